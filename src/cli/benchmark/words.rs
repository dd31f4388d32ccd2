//! Texts for benchmarks: made of numbers, different from each other and from those of other runs, and of words that a model
//! knows.

use std::fmt::Write as _;

use crate::cli::failure::{Exit, Failure};

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
/// The first number behind a question, and how many there are: more than most memories have entities, and short.
const QUESTIONS: (u64, u64) = (100_000, 900_000);
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

/// The type of entity `number`.
pub(super) fn kind(number: u64) -> &'static str {
    one_of(KINDS, number ^ 0x5eed)
}

/// Names and texts of one run. Those of another run are others: a server that was measured before would otherwise find all of
/// them in its store and in its caches, and have nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Words {
    run: u32,
}

impl Words {
    /// Those on a server of our own, which nobody has measured before.
    pub(super) const OWN_SERVER: Self = Self::of(0);

    /// Those of run `run`: the same each time.
    pub(super) const fn of(run: u32) -> Self {
        Self { run }
    }

    /// Those of a run that no server knows: one of four billion.
    pub(super) fn drawn() -> Result<Self, Failure> {
        let mut run = [0; 4];
        getrandom::fill(&mut run).map_err(|error| {
            let message = format!("the system gave no random number for the names of this run: {error}");
            Failure::new(Exit::Failed, message)
        })?;
        Ok(Self::of(u32::from_le_bytes(run)))
    }

    /// What stands in every name of the run, as in `r3f2a9c01`.
    pub(super) fn mark(self) -> String {
        format!("r{:08x}", self.run)
    }

    /// What the texts about `number` are drawn from.
    fn seed(self, number: u64) -> u64 {
        mixed(number.wrapping_add(mixed(u64::from(self.run))))
    }

    /// The name of entity `number`.
    pub(super) fn name(self, number: u64) -> String {
        // One word of letters and digits: a mark of its own would be a word that stands in every name.
        format!("{} {number}{}", one_of(NAMES, number), self.mark())
    }

    /// The name of agent or conversation `number`, of those that `of` tells from others.
    pub(super) fn named(self, of: &str, number: u64) -> String {
        format!("{of}-{}-{number}", self.mark())
    }

    /// A sentence; `salt` tells those of one number from each other.
    pub(super) fn sentence(self, number: u64, salt: u64) -> String {
        let seed = self.seed(number).wrapping_add(mixed(salt).rotate_left(17));
        format!(
            "{} {} {} {}, note {number}.{salt}",
            one_of(NAMES, seed),
            one_of(VERBS, seed ^ 1),
            one_of(SUBJECTS, seed ^ 2),
            one_of(PLACES, seed ^ 3)
        )
    }

    /// A question that some sentences answer. The number behind it makes it one that nobody asked before: there are
    /// few thousand others, and what was asked may be in a cache.
    pub(super) fn question(self, number: u64) -> String {
        let seed = self.seed(number ^ 0x00de_ad10);
        format!(
            "who {} {} {}, {}",
            one_of(VERBS, seed ^ 1),
            one_of(SUBJECTS, seed ^ 2),
            one_of(PLACES, seed ^ 3),
            QUESTIONS.0 + mixed(seed) % QUESTIONS.1
        )
    }

    /// A text of exactly so many bytes.
    pub(super) fn text(self, number: u64, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 80);
        let mut salt = 0;
        while text.len() < bytes {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}. ", self.sentence(number, salt));
            salt += 1;
        }
        text.truncate(bytes);
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Words;

    #[test]
    fn texts_are_the_same_each_time_and_differ_from_each_other() {
        let words = Words::of(0);
        let all: HashSet<String> = (0..2_000).map(|n| words.sentence(n % 500, n / 500)).collect();
        assert_eq!(all.len(), 2_000);
        assert_eq!(words.sentence(7, 1), Words::of(0).sentence(7, 1));
        assert_eq!((0..500).map(|n| words.question(n)).collect::<HashSet<_>>().len(), 500);
        assert_ne!(words.name(1), words.name(2));
        for bytes in [0, 1, 79, 1_024] {
            assert_eq!(words.text(3, bytes).len(), bytes);
        }
    }

    #[test]
    fn two_runs_share_neither_names_nor_texts_nor_questions() {
        let all = |run| {
            let words = Words::of(run);
            let of = |n| {
                [
                    words.name(n),
                    words.named("benchmark", n),
                    words.sentence(n, 0),
                    words.question(n),
                    words.text(n, 512),
                ]
            };
            (0..100).flat_map(of).collect::<HashSet<_>>()
        };
        let (one, other) = (all(0), all(0x3f2a_9c01));
        assert_eq!(one.intersection(&other).collect::<Vec<_>>(), Vec::<&String>::new());
        assert_eq!(Words::of(0x3f2a_9c01).named("benchmark", 7), "benchmark-r3f2a9c01-7");
        assert!(Words::of(1).name(7).ends_with(" 7r00000001"), "{}", Words::of(1).name(7));
    }
}
