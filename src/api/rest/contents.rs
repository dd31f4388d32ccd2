//! How much of the memory one answer holds: up to 16 MiB of contents, as of messages and events, and at least one row.

use caxton_events::limits::CONTENTS_BYTES_MAX;
use caxton_projections::graph::{Entity, Relation};

/// Room for contents in an answer.
#[derive(Debug)]
pub(super) struct Room {
    left: u64,
    is_untouched: bool,
}

/// That of a whole answer.
impl Default for Room {
    fn default() -> Self {
        Self::of(CONTENTS_BYTES_MAX)
    }
}

impl Room {
    /// Room for so many bytes.
    pub(super) const fn of(bytes: u64) -> Self {
        Self { left: bytes, is_untouched: true }
    }

    /// Whether there is room for so many bytes, which are taken then. Who comes first has it, however much that is.
    pub(super) const fn takes(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        if bytes > self.left && !self.is_untouched {
            return false;
        }
        self.left = self.left.saturating_sub(bytes);
        self.is_untouched = false;
        true
    }

    /// How many of `items`, from the first on, there is room for.
    pub(super) fn takes_first<T>(&mut self, items: &[T], bytes: impl Fn(&T) -> usize) -> usize {
        items.iter().take_while(|item| self.takes(bytes(item))).count()
    }
}

/// The texts of an entity, in bytes.
pub(super) fn of_entity(entity: &Entity) -> usize {
    entity.name.len() + entity.metadata.as_ref().map_or(0, String::len)
}

/// The texts of a relation, in bytes.
pub(super) fn of_relation(relation: &Relation) -> usize {
    relation.metadata.as_ref().map_or(0, String::len)
}

#[cfg(test)]
mod tests {
    use super::Room;

    #[test]
    fn what_comes_first_has_room_and_then_nothing_beyond_it() {
        let mut room = Room::of(10);
        assert_eq!([4, 6, 0, 1].map(|bytes| room.takes(bytes)), [true, true, true, false]);
        let mut room = Room::of(10);
        assert_eq!([11, 0, 1].map(|bytes| room.takes(bytes)), [true, true, false]);
        assert_eq!(Room::of(10).takes_first(&[3, 3, 5, 1], |bytes| *bytes), 2);
        assert_eq!(Room::of(10).takes_first(&[30, 1], |bytes| *bytes), 1);
        assert_eq!(Room::default().takes_first(&[1 << 20; 20], |bytes| *bytes), 16);
    }
}
