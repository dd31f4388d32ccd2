//! Texts for benchmarks: made of numbers, the same in each run, different from each other, and of words that a model knows.

use std::fmt::Write as _;

const NAMES: &[&str] = &[
    "Ada",
    "Babbage",
    "Curie",
    "Darwin",
    "Euler",
    "Franklin",
    "Gauss",
    "Hopper",
    "Ibn Sina",
    "Jacquard",
    "Kepler",
    "Lovelace",
    "Mendel",
    "Noether",
    "Oresme",
    "Pascal",
    "Ramanujan",
    "Shannon",
    "Turing",
    "Volta",
    "Wright",
    "Yukawa",
    "Zuse",
];
const SUBJECTS: &[&str] = &[
    "a compiler",
    "the harbour",
    "a telescope",
    "the library",
    "a printing press",
    "the mountain path",
    "a neural network",
    "the orchard",
    "a steam engine",
    "the river delta",
    "a chess game",
    "the night train",
    "a violin",
    "the observatory",
    "a database index",
    "the old lighthouse",
    "a loom",
    "the market square",
    "a glacier",
    "the botanical garden",
];
const VERBS: &[&str] = &[
    "repairs",
    "describes",
    "measures",
    "visits",
    "paints",
    "explains",
    "remembers",
    "improves",
    "borrows",
    "studies",
    "photographs",
    "compares",
    "doubts",
    "prefers",
    "rebuilds",
    "records",
];
const PLACES: &[&str] = &[
    "in Lisbon",
    "near the coast",
    "before sunrise",
    "with great care",
    "in the winter of that year",
    "for the third time",
    "at the university",
    "beside the canal",
    "without a map",
    "after the concert",
    "in Kyoto",
    "under heavy rain",
];
const KINDS: &[&str] = &["person", "project", "place", "tool", "event", "idea", "document", "team"];

/// Numbers from a number: `SplitMix64` (G. Steele, D. Lea, C. Flood, 2014).
pub(super) fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn one_of<'a>(words: &[&'a str], chance: u64) -> &'a str {
    words[(mixed(chance) % words.len() as u64) as usize]
}

/// The name of entity `number`.
pub(super) fn name(number: u64) -> String {
    format!("{} {number}", one_of(NAMES, number))
}

/// Its type.
pub(super) fn kind(number: u64) -> &'static str {
    one_of(KINDS, number ^ 0x5eed)
}

/// A sentence; `salt` tells those of one number from each other.
pub(super) fn sentence(number: u64, salt: u64) -> String {
    let seed = mixed(number).wrapping_add(mixed(salt).rotate_left(17));
    format!(
        "{} {} {} {}, note {number}.{salt}",
        one_of(NAMES, seed),
        one_of(VERBS, seed ^ 1),
        one_of(SUBJECTS, seed ^ 2),
        one_of(PLACES, seed ^ 3)
    )
}

/// A question that some sentences answer.
pub(super) fn question(number: u64) -> String {
    let seed = mixed(number ^ 0x00de_ad10);
    format!("who {} {} {}", one_of(VERBS, seed ^ 1), one_of(SUBJECTS, seed ^ 2), one_of(PLACES, seed ^ 3))
}

/// A text of exactly so many bytes.
pub(super) fn text(number: u64, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 80);
    let mut salt = 0;
    while text.len() < bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{}. ", sentence(number, salt));
        salt += 1;
    }
    text.truncate(bytes);
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{name, question, sentence, text};

    #[test]
    fn texts_are_the_same_each_time_and_differ_from_each_other() {
        let all: HashSet<String> = (0..2_000).map(|n| sentence(n % 500, n / 500)).collect();
        assert_eq!(all.len(), 2_000);
        assert_eq!(sentence(7, 1), sentence(7, 1));
        assert!((0..500).map(question).collect::<HashSet<_>>().len() > 300);
        assert_ne!(name(1), name(2));
        for bytes in [0, 1, 79, 1_024] {
            assert_eq!(text(3, bytes).len(), bytes);
        }
    }
}
