//! How much of what belongs to hits an answer shows.

use caxton_events::limits::{CONTENTS_BYTES_MAX, OBSERVATION_BYTES_MAX};

/// Room for the texts that are shown with all hits of an answer, in bytes.
pub(super) struct Room {
    left: usize,
}

impl Room {
    /// The last of it is for observations that matched: they are the reasons.
    const KEPT: usize = OBSERVATION_BYTES_MAX;

    pub(super) const fn new() -> Self {
        Self { left: CONTENTS_BYTES_MAX as usize }
    }

    /// Whether there is room for the text of an observation that matched, which is taken then.
    pub(super) const fn takes_matched(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.left;
        if fits {
            self.left -= bytes;
        }
        fits
    }

    /// The same for any other text.
    pub(super) const fn takes(&mut self, bytes: usize) -> bool {
        bytes.saturating_add(Self::KEPT) <= self.left && self.takes_matched(bytes)
    }

    /// Leaves the items from the first one on that there is no room for out; whether there are such.
    pub(super) fn cuts<T>(&mut self, items: &mut Vec<T>, bytes: impl Fn(&T) -> usize) -> bool {
        let fitting = items.iter().take_while(|item| self.takes(bytes(item))).count();
        let is_cut = fitting < items.len();
        items.truncate(fitting);
        is_cut
    }
}

#[cfg(test)]
mod tests {
    use super::Room;

    #[test]
    fn the_last_of_the_room_is_for_what_matched() {
        const MIB: usize = 1 << 20;
        let mut room = Room::new();
        let mut texts = vec![MIB; 20];
        assert!(room.cuts(&mut texts, |bytes| *bytes));
        assert_eq!(texts.len(), 15);
        assert!(!room.takes(1));
        assert!(room.takes_matched(MIB) && !room.takes_matched(1));
        let mut none: Vec<usize> = Vec::new();
        assert!(!room.cuts(&mut none, |bytes| *bytes));
    }
}
