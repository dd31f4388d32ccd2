//! Which records a scan delivers.

use std::ops::Range;

use crate::codec::Envelope;
use crate::event::Kind;
use crate::id::Seq;
use crate::log::bloom::{self, Item, item_hash};
use crate::log::header::Header;
use crate::time::Timestamp;

/// Which records a scan delivers: those that meet every condition given. The default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// No record beyond this position: behind it going forwards, before it going backwards.
    pub until: Option<Seq>,
    /// Only these kinds.
    pub kinds: Option<Vec<Kind>>,
    /// Only this stream.
    pub stream: Option<String>,
    /// Only what this actor caused.
    pub actor: Option<String>,
    /// Only this correlation.
    pub correlation: Option<String>,
    /// Recorded at this time or later.
    pub recorded_from: Option<Timestamp>,
    /// Recorded before this time.
    pub recorded_before: Option<Timestamp>,
}

/// A filter with its hashes made, and the bounds of one scan.
pub(crate) struct Matcher {
    filter: Filter,
    /// Bit `tag` is set for each kind that is wanted.
    kinds: u128,
    items: Vec<u64>,
    lowest: Seq,
    highest: Seq,
    down: bool,
}

impl Matcher {
    pub(crate) fn new(filter: &Filter, from: Seq, down: bool) -> Self {
        let kinds = filter
            .kinds
            .as_ref()
            .map_or(u128::MAX, |kinds| kinds.iter().fold(0, |bits, kind| bits | 1 << kind.tag()));
        let wanted = [
            (Item::Stream, &filter.stream),
            (Item::Actor, &filter.actor),
            (Item::Correlation, &filter.correlation),
        ];
        let items = wanted
            .into_iter()
            .filter_map(|(item, text)| text.as_ref().map(|text| item_hash(item, text)))
            .collect();
        let (lowest, highest) = if down {
            (filter.until.unwrap_or(Seq::ZERO), from)
        } else {
            (from, filter.until.unwrap_or(Seq(u64::MAX)))
        };
        Self { filter: filter.clone(), kinds, items, lowest, highest, down }
    }

    /// The same without what lies behind `through`, such as the end of a block whose beginning alone is on the medium.
    pub(crate) fn up_to(self, through: Seq) -> Self {
        Self { highest: self.highest.min(through), ..self }
    }

    /// Whether a block that begins (going up) or ends (going down) here, and all after it, lie beyond the scan.
    pub(crate) fn is_past(&self, near: Seq) -> bool {
        if self.down { near < self.lowest } else { near > self.highest }
    }

    /// Whether the block may hold a match; "no" is certain.
    pub(crate) fn may_match(&self, header: &Header<'_>) -> bool {
        header.kinds & self.kinds != 0
            && self.filter.recorded_from.is_none_or(|from| header.last_at >= from)
            && self.filter.recorded_before.is_none_or(|before| header.first_at < before)
            && self.items.iter().all(|item| bloom::may_contain(header.filter, *item))
            && header.last() >= self.lowest
            && header.first <= self.highest
    }

    /// The indexes of the block that lie within the bounds.
    pub(crate) fn indexes(&self, header: &Header<'_>) -> Range<usize> {
        let start = self.lowest.0.saturating_sub(header.first.0);
        let end = self.highest.0.min(header.last().0).saturating_sub(header.first.0).saturating_add(1);
        start as usize..end as usize
    }

    pub(crate) fn takes_entry(&self, kind: u8, recorded_at: Timestamp) -> bool {
        // A kind of 128 or more cannot be written; it is let through so that decoding names it.
        1_u128.checked_shl(u32::from(kind)).is_none_or(|bit| self.kinds & bit != 0)
            && self.filter.recorded_from.is_none_or(|from| recorded_at >= from)
            && self.filter.recorded_before.is_none_or(|before| recorded_at < before)
    }

    /// An envelope that was erased is taken if nothing is asked about envelopes.
    #[inline]
    pub(crate) fn takes_envelope(&self, envelope: Option<&Envelope<'_>>) -> bool {
        self.items.is_empty() || envelope.is_some_and(|envelope| self.matches(envelope))
    }

    fn matches(&self, envelope: &Envelope<'_>) -> bool {
        let filter = &self.filter;
        filter.stream.as_deref().is_none_or(|stream| stream == envelope.stream)
            && filter.actor.as_deref().is_none_or(|actor| actor == envelope.actor)
            && filter.correlation.as_deref().is_none_or(|wanted| Some(wanted) == envelope.correlation)
    }
}
