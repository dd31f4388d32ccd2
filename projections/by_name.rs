//! Maps whose keys are short, such as names, which are looked up several times for each message; and numbers by name.

use std::collections::{HashMap, HashSet};

/// A hash that is quick over short keys. It is seeded anew in each process, so that nobody can choose keys that collide.
pub type NameHash = foldhash::fast::RandomState;

/// A map by short keys. Its order means nothing.
pub type ByName<K, V> = HashMap<K, V, NameHash>;

/// A set of short keys. Its order means nothing.
pub type NameSet<K> = HashSet<K, NameHash>;

/// The numbers of those of `names` that have one, each once and in order: every one is compared with rows.
pub(crate) fn numbers_of(names: &[String], number: impl Fn(&str) -> Option<u32>) -> Vec<u32> {
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| number(name)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[cfg(test)]
mod tests {
    use super::numbers_of;

    #[test]
    fn names_that_are_given_again_have_one_number() {
        let names = ["tool", "person", "tool", "nobody's", "person", "tool"].map(str::to_owned);
        let number = |name: &str| match name {
            "person" => Some(0),
            "tool" => Some(2),
            _ => None,
        };
        assert_eq!(numbers_of(&names, number), [0, 2]);
        assert!(numbers_of(&names[3..4], number).is_empty());
    }
}
