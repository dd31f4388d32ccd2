//! Maps whose keys are short, such as names: looked up several times for each message.

use std::collections::{HashMap, HashSet};

/// A hash that is quick over short keys. It is seeded anew in each process, so that nobody can choose keys that collide.
pub type NameHash = foldhash::fast::RandomState;

/// A map by short keys. Its order means nothing.
pub type ByName<K, V> = HashMap<K, V, NameHash>;

/// A set of short keys. Its order means nothing.
pub type NameSet<K> = HashSet<K, NameHash>;
