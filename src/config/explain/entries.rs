//! The table behind `explain`: every key that has an effect, with that and how to see it.

use super::{agents, memory, server, tuning};

/// What is to be said of a key beside its type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Its name.
    pub(super) key: &'static str,
    /// What the program does differently, in whole sentences.
    pub(super) effect: &'static str,
    /// What shows it.
    pub(super) see: &'static str,
}

pub(super) const fn entry(key: &'static str, effect: &'static str, see: &'static str) -> Entry {
    Entry { key, effect, see }
}

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static Entry> {
    [server::ENTRIES, memory::ENTRIES, tuning::ENTRIES, agents::ENTRIES].into_iter().flatten()
}

/// That of a key.
pub(super) fn of(key: &str) -> Option<&'static Entry> {
    all().find(|entry| entry.key == key)
}
