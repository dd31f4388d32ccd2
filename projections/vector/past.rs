//! What entities were before they were described anew, for searches as of earlier records. It is kept once for all rows of an
//! entity: a row has its vector with it, and there may be thousands.

use std::sync::Arc;

use crate::vector::slab::Span;

/// Entries that lie together: a change copies those of one part at most, 8 KB.
const PART: usize = 256;

/// The number of an entry in a [`Past`], from 1; 0: there is none. Later ones are larger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Told(pub(crate) u32);

impl Told {
    pub(crate) const NONE: Self = Self(0);
}

/// What an entity was before a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Was {
    /// The record that made it otherwise.
    pub(crate) until: u64,
    /// Number of its type.
    pub(crate) kind: u32,
    pub(crate) span: Span,
    /// What it was before that.
    pub(crate) before: Told,
}

/// What the entities of a scope were, in the order in which they ceased to be it. A clone shares the parts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Past {
    parts: Vec<Arc<Vec<Was>>>,
    len: u32,
}

impl Past {
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// Adds an entry; gives its number.
    pub(crate) fn push(&mut self, was: Was) -> Told {
        if self.len as usize == self.parts.len() * PART {
            self.parts.push(Arc::default());
        }
        if let Some(part) = self.parts.last_mut() {
            Arc::make_mut(part).push(was);
            self.len += 1;
        }
        Told(self.len)
    }

    fn get(&self, told: Told) -> Option<&Was> {
        let number = told.0.checked_sub(1)? as usize;
        self.parts.get(number / PART)?.get(number % PART)
    }

    /// What there is of an entity whose latest entry is `told`, the latest first.
    pub(crate) fn of(&self, told: Told) -> impl Iterator<Item = &Was> {
        std::iter::successors(self.get(told), |was| self.get(was.before))
    }

    /// What the entity was after record `seq`; `None`: what it is said to be where `told` stands.
    pub(crate) fn as_of(&self, told: Told, seq: u64) -> Option<&Was> {
        self.of(told).take_while(|was| was.until > seq).last()
    }

    /// Every entry, in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Was> {
        self.parts.iter().flat_map(|part| part.iter())
    }

    /// Its memory, in bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.len as usize * size_of::<Was>()
    }
}

#[cfg(test)]
mod tests {
    use super::{PART, Past, Span, Told, Was};

    #[test]
    fn what_was_is_found_by_the_record_it_ended_with() {
        let mut past = Past::default();
        let (mut odd, mut even) = (Told::NONE, Told::NONE);
        for until in 1..=4 * PART as u64 {
            let latest = if until % 2 == 1 { &mut odd } else { &mut even };
            let (kind, span) = (until as u32, Span { from: until, to: until + 1 });
            *latest = past.push(Was { until, kind, span, before: *latest });
        }
        assert_eq!((past.len() as usize, past.iter().count()), (4 * PART, 4 * PART));
        let kind = |told, seq| past.as_of(told, seq).map(|was| was.kind);
        for seq in 0..4 * PART as u64 {
            let next = |parity| seq as u32 + 1 + u32::from((seq + 1) % 2 != parity);
            assert_eq!(kind(even, seq), Some(next(0)), "as of {seq}");
            assert_eq!(kind(odd, seq), Some(next(1)).filter(|_| seq + 1 < 4 * PART as u64), "as of {seq}");
        }
        assert_eq!((kind(even, 4 * PART as u64), kind(Told::NONE, 0)), (None, None));
        assert_eq!(past.of(odd).count(), 2 * PART);
    }
}
