//! `caxton config explain` as a person meets it.

use serde_json::{Value, json};

use super::super::cli::{check, check_failure, json, run};

#[test]
fn a_key_is_explained_to_people_and_to_programs() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("caxton.yaml");
    std::fs::write(&file, "http_server:\n  thread_pool_size: 3\n").unwrap();
    let file = file.to_str().unwrap();
    let asked = ["config", "explain", "http_server.worker_threads", "--config", file];
    check(
        &asked,
        &[
            "Threads that handle requests",
            "a whole number from 1 to 1024",
            "unset",
            "caxton.yaml:2:3 as",
            "CAXTON_HTTP_SERVER__WORKER_THREADS",
            "runtime.cpu_optimization.http_worker_threads",
            "caxton-http",
        ],
    );
    let key = json(&["config", "explain", "http_server.thread_pool_size", "--config", file, "--json"]);
    assert_eq!((&key["key"], &key["value"]), (&json!("http_server.worker_threads"), &json!(3)));
    assert_eq!(key["source"], format!("{file}:2:3 as http_server.thread_pool_size"));
    assert_eq!((&key["default"], &key["without_effect"]), (&Value::Null, &Value::Null));
    for name in ["about", "takes", "effect", "see", "variable"] {
        assert!(key[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {key}");
    }
}

#[test]
fn a_key_without_effect_says_why() {
    let key = json(&["config", "explain", "memory_allocation.sqlite_memory.temp_allocator", "--json"]);
    assert!(key["without_effect"].as_str().is_some_and(|reason| !reason.is_empty()), "{key}");
}

#[test]
fn a_section_lists_its_keys_with_their_values() {
    check(
        &["config", "explain", "memory.search"],
        &["memory.search.limit", "10", "default", "Hits of a search"],
    );
    let below = json(&["config", "explain", "memory.cleanup", "--preset", "throughput", "--json"]);
    let keys = below["keys"].as_array().unwrap();
    let limit = keys.iter().find(|line| line["key"] == "memory.cleanup.entity_limit").unwrap();
    assert_eq!(limit["value"], 50_000);
    assert!(
        limit["source"].as_str().is_some_and(|source| source.starts_with("preset throughput")),
        "{limit}"
    );
    let all = json(&["config", "explain", "--json"]);
    assert_eq!(all["keys"].as_array().unwrap().len(), caxton::config::known_keys().len());
}

#[test]
fn an_unknown_key_is_told_the_nearest_and_ends_as_wrong_usage() {
    check_failure(
        &["config", "explain", "memory.cleanup.entity_limt"],
        2,
        "there is no key \"memory.cleanup.entity_limt\"; did you mean memory.cleanup.entity_limit?",
    );
    check_failure(&["config", "explain", "cache_size"], 2, "memory.embedding_config.cache_size");
    check_failure(&["config", "explain", "zzz"], 2, "`caxton config explain` lists all");
}

#[test]
fn several_names_are_explained_together_or_not_at_all() {
    let names = ["config", "explain", "server.port", "memory.search", "embedding_config.cache_size"];
    let told = ["server.port", "memory.search.limit", "memory.embedding_config.cache_size"];
    check(&names, &told);
    let all = json(&[&names[..], &["--json"]].concat());
    let all = all.as_array().unwrap();
    let each: Vec<Value> =
        names[2..].iter().copied().map(|name| json(&["config", "explain", name, "--json"])).collect();
    assert_eq!(all, &each);
    let unknown = ["config", "explain", "server.port", "memory.cleanup.entity_limt", "zzz"];
    check_failure(&unknown, 2, "did you mean memory.cleanup.entity_limit?");
    check_failure(&unknown, 2, "there is no key \"zzz\"");
    assert!(run(&unknown).stdout.is_empty());
}
