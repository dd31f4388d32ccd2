//! How much of what belongs to hits an answer shows.

use caxton_events::limits::{CONTENTS_BYTES_MAX, OBSERVATION_BYTES_MAX};

/// Room for the texts that are shown with all hits of an answer, in bytes.
pub(super) struct Room {
    left: usize,
    /// There was a text too many.
    is_shut: bool,
}

impl Room {
    /// The last of it is for observations that matched: they are the reasons.
    const KEPT: usize = OBSERVATION_BYTES_MAX;

    pub(super) const fn new() -> Self {
        Self { left: CONTENTS_BYTES_MAX as usize, is_shut: false }
    }

    /// Whether there may be room for texts that did not match. Where there is none they need not be read; where there is, every
    /// observation that matched has room.
    pub(super) const fn is_open(&self) -> bool {
        !self.is_shut && self.left > Self::KEPT
    }

    /// Whether there is room for the text of an observation that matched.
    pub(super) const fn fits_matched(&self, bytes: usize) -> bool {
        bytes <= self.left
    }

    /// The same, and takes it then.
    pub(super) const fn takes_matched(&mut self, bytes: usize) -> bool {
        let fits = self.fits_matched(bytes);
        if fits {
            self.left -= bytes;
        }
        fits
    }

    /// The same for any other text. Behind the first that there is no room for there is none for any.
    pub(super) const fn takes(&mut self, bytes: usize) -> bool {
        if self.is_shut || bytes.saturating_add(Self::KEPT) > self.left {
            self.is_shut = true;
            return false;
        }
        self.takes_matched(bytes)
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

    const MIB: usize = 1 << 20;

    #[test]
    fn the_last_of_the_room_is_for_what_matched() {
        let mut room = Room::new();
        let mut texts = vec![MIB; 20];
        assert!(room.cuts(&mut texts, |bytes| *bytes));
        assert_eq!(texts.len(), 15);
        assert!(!room.takes(1));
        assert!(room.takes_matched(MIB) && !room.takes_matched(1));
        let mut none: Vec<usize> = Vec::new();
        assert!(!room.cuts(&mut none, |bytes| *bytes));
    }

    #[test]
    fn no_more_is_read_behind_the_first_text_without_room() {
        let mut room = Room::new();
        assert!(room.takes(14 * MIB) && room.is_open());
        assert!(!room.takes(MIB + 1) && !room.is_open());
        assert!(!room.takes(1), "what is smaller would be read for nothing mostly");
        assert!(room.fits_matched(2 * MIB) && !room.fits_matched(2 * MIB + 1));
        // It may be full without one too many.
        let mut room = Room::new();
        assert!(room.takes(15 * MIB) && !room.is_open());
    }
}
