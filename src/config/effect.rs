//! Keys that are read and checked but change nothing yet, each with its reason. Later work makes this table shorter.

use super::table::value_of;
use super::{Allocator, Config, Durability};

/// A key that was set and changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Ineffective {
    /// The key, as it was written.
    pub key: String,
    /// Its value.
    pub value: serde_json::Value,
    /// Why it changes nothing.
    pub reason: &'static str,
}

/// Keys below `name` have no effect while `applies` holds.
struct Rule {
    name: &'static str,
    reason: &'static str,
    applies: fn(&Config) -> bool,
    /// Whether there is a value that changes something, here or in another build.
    works: bool,
}

const fn always(name: &'static str, reason: &'static str) -> Rule {
    Rule { name, reason, applies: |_| true, works: false }
}

const ONE_ALLOCATOR: &str =
    "SQLite is given the allocator of the process, see memory_allocation.allocator; there is no other";

const OTHER_ALLOCATOR: &str = if cfg!(feature = "system-allocator") {
    "this binary was built with the system's allocator; build it without `--features system-allocator`"
} else if cfg!(feature = "jemalloc") {
    "this binary was built with jemalloc; build it without `--features jemalloc`"
} else {
    "this binary was built with mimalloc; build it with `--features jemalloc` or `--features system-allocator`"
};

/// The table.
const RULES: &[Rule] = &[
    always("memory_allocation.sqlite_memory", ONE_ALLOCATOR),
    Rule {
        name: "memory_allocation.agent_memory.pool_size",
        reason: "both pools are off; see conversation_pool and response_pool beside it",
        applies: |config| {
            let pools = &config.memory_allocation.agent_memory;
            !pools.conversation_pool && !pools.response_pool
        },
        works: true,
    },
    Rule {
        name: "memory_allocation.allocator",
        reason: OTHER_ALLOCATOR,
        applies: |config| config.memory_allocation.allocator != Allocator::BUILT_IN,
        works: true,
    },
    Rule {
        name: "memory_allocation.purge_delay",
        reason: "it is for mimalloc, and this binary was built with another allocator",
        applies: |_| Allocator::BUILT_IN != Allocator::Mimalloc,
        works: true,
    },
    Rule {
        name: "server.allowed_hosts",
        reason: "there are API keys: who has one is answered, whatever host a request is for",
        applies: |config| config.auth.keys_file.is_some() || !config.auth.keys.is_empty(),
        works: true,
    },
    Rule {
        name: "log.flush_interval",
        reason: "it is for `log.durability: interval`; now each write waits for the disk or none does",
        applies: |config| config.log.durability != Durability::Interval,
        works: true,
    },
];

/// The rules about the key `name` (canonical).
fn about(name: &str) -> impl Iterator<Item = &'static Rule> {
    let below = move |rule: &&Rule| {
        name.strip_prefix(rule.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    RULES.iter().filter(below)
}

/// Why the key `name` (canonical) has no effect; `None` when it has.
pub(crate) fn reason(config: &Config, name: &str) -> Option<&'static str> {
    about(name).find(|rule| (rule.applies)(config)).map(|rule| rule.reason)
}

/// Why no value of the key `name` (canonical) changes anything; `None` when one does.
pub(crate) fn never(name: &str) -> Option<&'static str> {
    about(name).find(|rule| !rule.works).map(|rule| rule.reason)
}

/// Those of `keys` (the canonical name and the one that was written) that have no effect.
pub(crate) fn among<'a>(config: &Config, keys: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Ineffective> {
    let listed = keys.filter_map(|(name, written)| {
        let reason = reason(config, name)?;
        Some(Ineffective { key: written.to_owned(), value: value_of(config, name), reason })
    });
    listed.collect()
}

#[cfg(test)]
mod tests {
    use super::super::table::known;
    use super::*;

    #[test]
    fn every_row_of_the_table_names_something_that_exists() {
        for rule in RULES {
            assert!(known(rule.name).is_some(), "{}", rule.name);
            assert!(!rule.reason.is_empty() && !rule.reason.ends_with('.'), "{}", rule.reason);
        }
    }

    #[test]
    fn a_value_that_is_already_so_is_not_listed() {
        let mut config = Config::default();
        assert_eq!(reason(&config, "memory_allocation.allocator"), None);
        config.memory_allocation.allocator = match Allocator::BUILT_IN {
            Allocator::Jemalloc => Allocator::System,
            Allocator::System | Allocator::Mimalloc => Allocator::Jemalloc,
        };
        assert!(reason(&config, "memory_allocation.allocator").is_some());
        assert_eq!(reason(&config, "server.port"), None);
        assert_eq!(reason(&config, "server.allowed_hosts"), None);
        config.auth.keys_file = Some("keys".into());
        assert!(reason(&config, "server.allowed_hosts").is_some());
    }
}
