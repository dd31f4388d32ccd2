//! When entities were read last, for a cleanup that removes what was not used for longest.
//!
//! It is no projection: reads are not events, so a start forgets them, and then the last change of an entity counts alone.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use caxton_events::{Clock, MemoryId, Timestamp};

/// Parts with a lock each, so that searches do not wait for each other.
const PARTS: usize = 16;
/// Entities that one part remembers; then it forgets the half that was read longest ago.
const PART_MAX: usize = 65_536;

/// Last reads of about a million entities at most. Off until it is [switched on](Self::switch_on), and free then.
#[derive(Default)]
pub struct Uses {
    clock: OnceLock<Box<dyn Clock>>,
    parts: [Mutex<HashMap<MemoryId, Timestamp>>; PARTS],
}

impl Uses {
    /// Remembers reads from now on, with the time of `clock`.
    pub fn switch_on(&self, clock: impl Clock + 'static) {
        // A second clock changes nothing: the first one goes on.
        let _ = self.clock.set(Box::new(clock));
    }

    /// These entities are read now.
    pub fn note(&self, ids: impl IntoIterator<Item = MemoryId>) {
        if let Some(clock) = self.clock.get() {
            self.note_at(ids, clock.now());
        }
    }

    fn note_at(&self, ids: impl IntoIterator<Item = MemoryId>, at: Timestamp) {
        for id in ids {
            let mut part = self.part(id).lock().unwrap_or_else(PoisonError::into_inner);
            if part.len() >= PART_MAX && !part.contains_key(&id) {
                let mut times: Vec<Timestamp> = part.values().copied().collect();
                let (_, middle, _) = times.select_nth_unstable(PART_MAX / 2);
                let middle = *middle;
                part.retain(|_, time| *time > middle);
            }
            part.insert(id, at);
        }
    }

    /// When the entity was read last, as far as is remembered.
    pub fn last(&self, id: MemoryId) -> Option<Timestamp> {
        self.part(id).lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied()
    }

    /// Forgets entities that are gone.
    pub fn forget(&self, ids: impl IntoIterator<Item = MemoryId>) {
        for id in ids {
            self.part(id).lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        }
    }

    const fn part(&self, id: MemoryId) -> &Mutex<HashMap<MemoryId, Timestamp>> {
        &self.parts[(id.0 % PARTS as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            at(12)
        }
    }

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_unix_micros(micros)
    }

    #[test]
    fn nothing_is_remembered_before_it_is_switched_on() {
        let uses = Uses::default();
        uses.note([MemoryId(1)]);
        assert_eq!(uses.last(MemoryId(1)), None);
        uses.switch_on(Noon);
        uses.note([MemoryId(1)]);
        assert_eq!(uses.last(MemoryId(1)), Some(at(12)));
        uses.forget([MemoryId(1)]);
        assert_eq!(uses.last(MemoryId(1)), None);
    }

    #[test]
    fn a_full_part_forgets_what_was_read_longest_ago() {
        let uses = Uses::default();
        let ids = |count: usize| (0..count).map(|number| MemoryId((number * PARTS) as u64));
        for (number, id) in ids(PART_MAX).enumerate() {
            uses.note_at([id], at(1 + number as u64));
        }
        uses.note_at([MemoryId((PART_MAX * PARTS) as u64)], at(1_000_000));
        let kept = ids(PART_MAX).filter(|id| uses.last(*id).is_some()).count();
        assert!(kept < PART_MAX / 2 + 1 && kept > PART_MAX / 4, "{kept}");
        assert_eq!(uses.last(MemoryId(0)), None, "the first to be read is the first to go");
        assert!(uses.last(MemoryId((PART_MAX * PARTS) as u64)).is_some());
    }
}
