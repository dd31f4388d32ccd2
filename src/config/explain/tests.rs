//! Every key is explained, under each of its names, with where its value came from.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;

use super::super::effect;
use super::super::load::{Sources, load, load_text};
use super::super::show::canonical_keys;
use super::super::{Flag, Preset};
use super::{Explained, ExplainedKey, entries, explain};

fn key(text: &str, name: &str) -> ExplainedKey {
    match explain(&load_text(text).unwrap(), name).unwrap() {
        Explained::Key(key) => *key,
        Explained::Section { section, .. } => unreachable!("{section} is a section"),
    }
}

#[test]
fn every_key_with_an_effect_has_one_entry_and_every_entry_such_a_key() {
    let mut entries: Vec<&str> = entries::all().map(|entry| entry.key).collect();
    // One for a key without effect would promise what does not happen.
    let keys: BTreeSet<&str> = canonical_keys().filter(|key| effect::never(key).is_none()).collect();
    let known: BTreeSet<&str> = entries.iter().copied().collect();
    assert_eq!(known.difference(&keys).collect::<Vec<_>>(), Vec::<&&str>::new(), "entries without a key");
    assert_eq!(keys.difference(&known).collect::<Vec<_>>(), Vec::<&&str>::new(), "keys without an entry");
    entries.sort_unstable();
    entries.dedup();
    assert_eq!(entries.len(), entries::all().count(), "a key has two entries");
}

#[test]
fn every_entry_says_what_happens_in_a_sentence_and_where_it_shows() {
    for entry in entries::all() {
        assert!(entry.effect.len() > 20 && entry.effect.ends_with('.'), "{}: {}", entry.key, entry.effect);
        assert!(!entry.effect.contains("  "), "{}: {}", entry.key, entry.effect);
        assert!(entry.see.len() > 5 && !entry.see.ends_with('.'), "{}: {}", entry.key, entry.see);
    }
}

#[test]
fn every_metric_that_is_to_be_looked_at_is_one_that_there_is() {
    let metrics = include_str!("../../../docs/metrics.md");
    for entry in entries::all() {
        let names = entry.see.split(|sign: char| !(sign.is_ascii_alphanumeric() || sign == '_'));
        for name in names.filter(|name| name.starts_with("caxton_")) {
            assert!(metrics.contains(name), "{}: {name}", entry.key);
        }
    }
}

#[test]
fn a_key_that_changes_nothing_says_why_and_promises_nothing() {
    for (text, name) in [
        (
            "memory_allocation:\n  sqlite_memory:\n    temp_allocator: malloc\n",
            "memory_allocation.sqlite_memory.temp_allocator",
        ),
        ("", "memory_allocation.sqlite_memory.page_cache_allocator"),
        ("", "memory_allocation.sqlite_memory.temp_allocator"),
    ] {
        let found = key(text, name);
        assert_eq!((found.effect, found.see), (None, None), "{name}");
        assert!(found.without_effect.is_some(), "{name}");
    }
    let flush = key("", "log.flush_interval");
    assert!(flush.effect.is_some() && flush.without_effect.is_some(), "durability says that it is not used");
}

#[test]
fn a_value_is_explained_with_its_place_and_its_alias() {
    let found = key("http_server:\n  request_timeout: 12s\n", "http_server.request_timeout");
    assert_eq!(found.key, "server.request_timeout");
    assert_eq!(found.aliases, ["http_server.request_timeout"]);
    assert_eq!((found.default.as_str(), found.value.as_str()), (Some("30s"), Some("12s")));
    assert_eq!(found.source, "the text:2:3 as http_server.request_timeout");
    assert_eq!(found.variable, "CAXTON_SERVER__REQUEST_TIMEOUT");
    assert_eq!(key("", "server.port").source, "default");
    let follows = key("server:\n  port: 9000\n", "http_server.bind_address");
    assert_eq!(follows.value, "127.0.0.1:9000");
    assert!(follows.source.starts_with("follows server.port, "), "{}", follows.source);
}

#[test]
fn presets_and_flags_are_named_as_sources() {
    let flags = vec![Flag::new("--port", "server.port", "9000")];
    let loaded = load(&Sources { preset: Some(Preset::Throughput), flags, ..Sources::default() }).unwrap();
    for (name, source) in
        [("server.port", "--port"), ("memory.cleanup.entity_limit", "preset throughput:26:5")]
    {
        let Ok(Explained::Key(found)) = explain(&loaded, name) else { unreachable!("{name}") };
        assert_eq!(found.source, source);
    }
}

#[test]
fn a_section_lists_its_keys_and_no_name_lists_all() {
    let loaded = load_text("memory:\n  cleanup:\n    interval: 7m\n").unwrap();
    let below = |name: &str| match explain(&loaded, name).unwrap() {
        Explained::Section { keys, .. } => keys,
        Explained::Key(key) => unreachable!("{} is a key", key.key),
    };
    let cleanup = below("memory.cleanup");
    assert!(cleanup.iter().all(|line| line.key.starts_with("memory.cleanup.")));
    let interval = cleanup.iter().find(|line| line.key.ends_with("interval")).unwrap();
    assert_eq!((interval.value.as_str(), interval.source.as_str()), (Some("7m"), "the text:3:5"));
    assert_eq!(below("embedding_config").len(), below("memory.embedding_config.").len());
    assert_eq!(below("").len(), canonical_keys().count());
}

#[test]
fn a_key_that_holds_rows_explains_their_keys() {
    let rows = key("", "request_handling.priority_queues.queues").rows;
    let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
    assert_eq!(names, ["name", "priority", "max_latency", "queue_size"]);
    assert_eq!(rows[1].takes, "a whole number from 0 to 255");
    assert!(key("", "server.port").rows.is_empty());
}

#[test]
fn an_unknown_name_is_told_its_neighbours() {
    let loaded = load_text("").unwrap();
    for (name, near) in [
        ("memory.cleanup.entity_limt", "memory.cleanup.entity_limit"),
        ("cache_size", "memory.embedding_config.cache_size"),
        ("memory.claenup", "memory.cleanup"),
        ("SERVER.PORT", "server.port"),
    ] {
        let unknown = explain(&loaded, name).unwrap_err();
        assert!(unknown.nearest.contains(&near), "{name}: {unknown}");
        assert!(unknown.to_string().contains(near), "{unknown}");
        assert!(unknown.nearest.len() <= 5, "{unknown}");
    }
    let far = explain(&loaded, "zzz").unwrap_err();
    assert_eq!(far.to_string(), "there is no key \"zzz\"; `caxton config explain` lists all");
}
