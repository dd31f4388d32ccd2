//! Tells at once that a number of a message was never used: then the file need not be asked.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use caxton_events::MessageId;

use crate::by_name::NameHash;

/// Smallest and largest size, in words of eight bytes: 2 and 32 MiB. Where there are more numbers than that is good for,
/// the file is asked more often.
const WORDS: std::ops::RangeInclusive<usize> = 1 << 18..=1 << 22;
/// Bits set for a number, all in one word.
const PROBES: u32 = 4;

/// A Bloom filter over the numbers in the file and in memory. It knows nothing until it was told of the whole file.
#[derive(Debug)]
pub(super) struct Known {
    words: Box<[AtomicU64]>,
    hash: NameHash,
    complete: AtomicBool,
}

impl Default for Known {
    fn default() -> Self {
        Self::for_numbers(0)
    }
}

impl Known {
    /// For so many numbers and as many to come: sixteen bits each, then one in a hundred new ones is not seen to be new.
    pub(super) fn for_numbers(count: usize) -> Self {
        let words = (count / 2).next_power_of_two().clamp(*WORDS.start(), *WORDS.end());
        let words = std::iter::repeat_with(AtomicU64::default).take(words).collect();
        Self { words, hash: NameHash::default(), complete: AtomicBool::new(false) }
    }

    fn place(&self, id: MessageId) -> (&AtomicU64, u64) {
        let hash = self.hash.hash_one(id);
        let bits = (0..PROBES).fold(0, |bits, probe| bits | 1 << (hash >> (probe * 6) & 63));
        let at = (hash >> 32) as usize & (self.words.len() - 1);
        (&self.words[at], bits)
    }

    pub(super) fn add(&self, id: MessageId) {
        let (word, bits) = self.place(id);
        word.fetch_or(bits, Ordering::Relaxed);
    }

    /// Notes that every number of the file was added; later ones are added when they are folded.
    pub(super) fn complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// Whether the number is certainly in no message that is folded.
    pub(super) fn is_new(&self, id: MessageId) -> bool {
        let (word, bits) = self.place(id);
        self.complete.load(Ordering::Acquire) && word.load(Ordering::Relaxed) & bits != bits
    }
}

#[cfg(test)]
mod tests {
    use caxton_events::MessageId;

    use super::Known;

    #[test]
    fn what_was_added_is_never_new_and_others_mostly_are() {
        let known = Known::for_numbers(0);
        let id = |n: u32| MessageId::from_bytes(u128::from(n).to_be_bytes());
        assert!(!known.is_new(id(0)), "it knows nothing yet");
        (0..200_000).for_each(|n| known.add(id(n)));
        known.complete();
        assert!((0..200_000).all(|n| !known.is_new(id(n))));
        let missed = (200_000..300_000).filter(|n| !known.is_new(id(*n))).count();
        assert!(missed < 2_000, "{missed} of 100000");
    }
}
