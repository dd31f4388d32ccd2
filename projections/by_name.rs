//! Maps by short keys, such as names: looked up several times for each message.

use std::collections::HashMap;

/// A map with a hash that is quick over short keys. It is seeded anew in each process, so that nobody can choose names
/// that collide; its order means nothing.
pub type ByName<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
