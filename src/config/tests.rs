//! What files, variables and flags make of each other.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

/// Given this file, variables and flags, when they are loaded, then this comes of it.
#[track_caller]
fn loaded(file: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Loaded, LoadError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("caxton.yaml");
    std::fs::write(&path, file).unwrap();
    let text = |(name, value): &(&str, &str)| ((*name).to_owned(), OsString::from(value));
    load(&Sources {
        preset: None,
        file: Some(path),
        environment: variables.iter().map(text).collect(),
        flags: flags.iter().map(|(key, value)| Flag::new("--flag", key, *value)).collect(),
    })
}

/// The text is refused with one fault at `place` (`None`: somewhere) whose message has all of `words`.
#[track_caller]
fn refused(text: &str, place: Option<(usize, usize)>, words: &[&str]) {
    let error = load_text(text).expect_err(text);
    let [problem] = error.problems.as_slice() else { panic!("one fault was expected: {error}") };
    assert_eq!(problem.place.map(|at| (at.line, at.column)), place, "{problem}\n{text}");
    for word in words {
        assert!(problem.to_string().contains(word), "{word:?} is not in {problem}");
    }
}

fn fixtures() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config");
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_block_of_the_tuning_guide_loads_and_each_key_is_traced_to_its_line() {
    let paths = fixtures();
    assert_eq!(paths.len(), 15);
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let loaded = load(&Sources { file: Some(path.clone()), ..Sources::default() });
        let loaded = loaded.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut traced = 0;
        for key in table::all_keys() {
            let Some(origin) = loaded.origin(key).filter(|origin| origin.written == *key) else { continue };
            let line = text.lines().nth(origin.place().unwrap().line - 1).unwrap();
            let leaf = key.rsplit('.').next().unwrap();
            assert!(
                line[origin.place().unwrap().column - 1..].starts_with(&format!("{leaf}:")),
                "{key}: {line}"
            );
            traced += 1;
        }
        assert!(traced > 0, "{}", path.display());
    }
}

#[test]
fn the_presets_are_the_profiles_of_the_tuning_guide() {
    for (preset, cache, conversations) in
        [(Preset::Throughput, 128, 1_000), (Preset::Latency, 256, 500), (Preset::MemoryOptimised, 32, 100)]
    {
        let loaded = load(&Sources { preset: Some(preset), ..Sources::default() }).unwrap();
        assert_eq!(loaded.config.memory.sqlite_config.cache_size_mb, cache, "{preset}");
        assert_eq!(loaded.config.server.max_concurrent_conversations, conversations, "{preset}");
        assert_eq!(loaded.warnings, [], "{preset}");
        assert_eq!(preset.name().parse(), Ok(preset));
        let fixture = format!("profile-{}.yaml", preset.name());
        let path = fixtures().into_iter().find(|path| path.ends_with(&fixture)).unwrap();
        let added = preset.text().strip_prefix(std::fs::read_to_string(path).unwrap().as_str());
        // What is not the guide's stands behind it.
        let expected = if preset == Preset::MemoryOptimised { "\n# Not in the guide:" } else { "" };
        assert!(added.is_some_and(|added| added.starts_with(expected)), "{preset}: {added:?}");
        assert_eq!(added.is_some_and(str::is_empty), expected.is_empty(), "{preset}");
    }
    assert_eq!("Memory-Optimized".parse(), Ok(Preset::MemoryOptimised));
    assert!("fast".parse::<Preset>().is_err());
}

#[test]
fn values_arrive_with_their_units() {
    let text = "
server: {port: 9000, request_timeout: 1m 30s, max_body_size: 1MB, metrics_port: null}
memory:
  sqlite_config: {synchronous: off, auto_vacuum: FULL, journal_size_limit_mb: ~, page_size: 1024}
  embedding_config: {cache_hit_target: 1, thread_count: 2}
memory_writes: {flush_interval: 250ms}
runtime: {cpu_optimization: {high_priority_threads: [http_workers]}}
request_handling: {priority_queues: {queues: [{name: one, priority: 7}]}}
";
    let config = load_text(text).unwrap().config;
    assert_eq!(config.server.request_timeout, Duration::from_secs(90));
    assert_eq!(config.server.max_body_size, Bytes(1 << 20));
    assert_eq!(config.server.metrics_port, None);
    assert_eq!(config.http_server.bind_address.to_string(), "127.0.0.1:9000");
    assert_eq!(config.memory.sqlite_config.synchronous, Synchronous::Off);
    assert_eq!(config.memory.sqlite_config.auto_vacuum, AutoVacuum::Full);
    assert_eq!(config.memory.sqlite_config.journal_size_limit_mb, None);
    assert!((config.memory.embedding_config.cache_hit_target - 1.0).abs() < f64::EPSILON);
    assert_eq!(config.embedding_threads(), 2);
    assert_eq!(config.log.flush_interval, Duration::from_millis(250));
    assert_eq!(config.runtime.cpu_optimization.high_priority_threads, [ThreadClass::HttpWorkers]);
    let queues = &config.request_handling.priority_queues.queues;
    assert_eq!((queues.len(), queues[0].name.as_str(), queues[0].priority), (1, "one", 7));
}

#[test]
fn nothing_is_an_empty_configuration() {
    for text in ["", "\n", "# only a comment\n", "---\n", "~", "server:\n# all commented out\nlog: {}\n"] {
        let loaded = load_text(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(loaded.config, Config::default(), "{text:?}");
        assert_eq!(loaded.without_effect(), [], "{text:?}");
    }
}

#[test]
fn an_unknown_key_is_found_wherever_it_hides() {
    let did_you_mean = "did you mean memory.sqlite_config.cache_size_mb?";
    for (text, line, column) in [
        ("memory:\n  sqlite_config:\n    cache_size: 128\n", 3, 5),
        (
            "# one\n# cache_size: 1\nmemory:\n\n  sqlite_config:   # why\n      # cache_size\n      cache_size: 128 # it\n",
            7,
            7,
        ),
        ("memory:\n  \"sqlite_config\":\n    'cache_size': 128\n", 3, 5),
        ("memory: {sqlite_config: {wal_mode: true, cache_size: 128}}\n", 1, 42),
        ("memory: {\n  sqlite_config: {\n    wal_mode: true,\n    \"cache_size\": 128\n  }\n}\n", 4, 5),
        ("\"memory\": # ünï çödé\n  sqlite_config: { wal_mode: true, # ü: ü\n   cache_size: 1 }\n", 3, 4),
        (
            "--- # first\nlogging: {filter: \"cache_size: x\"}\nmemory:\n  sqlite_config:\n    ? cache_size\n    : 128\n",
            5,
            7,
        ),
        ("memory:\r\n  sqlite_config:\r\n    cache_size: 128\r\n", 3, 5),
        (
            "logging:\n  filter: |\n    memory:\n      cache_size: 1\nmemory:\n  sqlite_config: {cache_size: 1}\n",
            6,
            19,
        ),
        ("auth: {keys: {}}\nmemory: {sqlite_config: {\"cache_siz\\u0065\": 1}}", 2, 26),
    ] {
        refused(text, Some((line, column)), &["memory.sqlite_config.cache_size: unknown key", did_you_mean]);
    }
}

#[test]
fn a_key_in_a_list_is_found_too() {
    let queues = "request_handling:\n  priority_queues:\n    queues:\n      - name: a\n        priority: 0\n";
    let wrong = format!("{queues}      - name: b\n        prio: 1\n");
    refused(
        &wrong,
        Some((7, 9)),
        &["queues[1].prio: unknown key", "name, priority, max_latency, queue_size"],
    );
    refused(&wrong, Some((7, 9)), &["did you mean priority? The keys here are name"]);
    for key in ["apikey", "API_KEY", "api-key"] {
        let told = check(&format!("llm: {{providers: [{{name: a, {key}: sk-1}}]}}")).to_string();
        assert!(told.contains("did you mean api_key_env?") && !told.contains("sk-1"), "{told}");
    }
    let wrong = format!("{queues}      - {{name: b, priority: high}}\n");
    refused(&wrong, Some((6, 29)), &["queues[1].priority", "\"high\" is not a whole number from 0 to 255"]);
    let wrong = format!("{queues}      - name: b\n        name: c\n");
    refused(&wrong, Some((7, 9)), &["queues[1].name", "twice"]);
    let wrong = format!("{queues}      - b\n");
    refused(&wrong, Some((6, 9)), &["queues[1]", "\"b\" is not a map of keys"]);
    refused("agents: {overrides: [{max_conversations: 1}]}", Some((1, 10)), &["row 1 has no agent_type"]);
    refused("agents: {overrides: {a: 1}}", Some((1, 10)), &["a map is not a list of maps"]);
    let cpu = "runtime: {cpu_optimization: {high_priority_threads: [agents, [b]]}}";
    refused(cpu, Some((1, 62)), &["high_priority_threads[1]", "a list is not one of http_workers"]);
}

#[test]
fn a_wrong_value_is_named_with_its_line_and_what_would_fit() {
    for (text, column, words) in [
        ("server: {port: 70000}", 16, ["server.port: 70000 is not", "write a whole number from 0 to 65535"]),
        ("server: {port: -1}", 16, ["-1 is not", "0 to 65535"]),
        ("server: {port: \"8080\"}", 16, ["\"8080\" is not", "0 to 65535"]),
        ("server: {port: 8080.5}", 16, ["8080.5 is not", "0 to 65535"]),
        ("server: {port: 99999999999999999999999}", 16, ["is not", "0 to 65535"]),
        ("server: {port: }", 10, ["nothing is not", "0 to 65535"]),
        ("server: {port: [1]}", 10, ["a list is not", "0 to 65535"]),
        ("server: {request_timeout: 30}", 27, ["30 is a duration without a unit", "as in 30s"]),
        ("server: {request_timeout: soon}", 27, ["\"soon\" is not a duration", "such as 30s"]),
        ("server: {request_timeout: 0s}", 27, ["\"0s\" is not", "from 1ms to 24h"]),
        ("server: {request_timeout: -5s}", 27, ["\"-5s\" is not", "from 1ms"]),
        ("server: {max_body_size: 1 furlong}", 25, ["\"1 furlong\" is not a size", "8KB"]),
        ("server: {data_dir: ''}", 20, ["\"\" is not a path", "write a path"]),
        ("http_server: {bind_address: 8080}", 29, ["8080 is not", "such as 127.0.0.1:8080"]),
        ("http_server: {request_buffer_size: 4096}", 36, ["4096 is not", "from 8192"]),
        ("http_server: {etag_enabled: yes please}", 29, ["is not true or false", "write true or false"]),
        ("memory: {backend: neo4j}", 19, ["\"neo4j\" is not `embedded`", "write `embedded`"]),
        (
            "memory: {sqlite_config: {page_size: 1000}}",
            37,
            ["1000 is not", "a power of two from 512 to 65536"],
        ),
        (
            "memory: {sqlite_config: {synchronous: often}}",
            39,
            ["\"often\" is not", "one of off, normal, full"],
        ),
        ("memory: {scaling: {min_cache_hit_rate: .nan}}", 40, ["NaN is not", "a number from 0 to 1"]),
        ("memory: {scaling: {min_cache_hit_rate: 1.1}}", 40, ["1.1 is not", "a number from 0 to 1"]),
        ("memory: {embedding_config: {max_sequence_length: 513}}", 50, ["513 is not", "from 8 to 512"]),
        ("auth: {keys: {ada: cax_live_x}}", 20, ["auth.keys.ada", "`name: sha256:`"]),
    ] {
        refused(text, Some((1, column)), &words);
    }
    refused("server: 8080", Some((1, 9)), &["server: 8080 is not a map of keys", "indent its keys"]);
    refused("- server", Some((1, 1)), &["a list and not a map of keys"]);
    refused("memory: {scaling: {auto_migrate_enabled: true}}", Some((1, 20)), &["by itself", "false"]);
}

#[test]
fn how_a_size_or_a_time_is_written_is_told_once() {
    for (text, what, hint) in [
        ("server: {request_timeout: soon}", "\"soon\" is not a duration; write a duration", "such as 30s"),
        (
            "server: {request_timeout: 25h}",
            "\"25h\" is not within its bounds; write a duration",
            "24h, such as",
        ),
        ("server: {request_timeout: -5}", "-5 is not a duration; write a duration", "such as 30s"),
        ("server: {max_body_size: 1 furlong}", "\"1 furlong\" is not a size; write a size", "such as 8192"),
        ("server: {max_body_size: 1B}", "\"1B\" is not within its bounds; write a size", "such as 8192"),
    ] {
        let told = load_text(text).map_err(|error| error.to_string()).expect_err(text);
        assert!(told.contains(what), "{told}");
        assert_eq!((told.matches(hint).count(), told.matches("from ").count()), (1, 1), "{told}");
    }
}

#[test]
fn an_allowed_host_is_a_name_without_scheme_and_port() {
    let file = |name: &str| format!("server: {{allowed_hosts: ['{name}']}}");
    for name in ["https://caxton.example", "caxton.example:443", "*.example", "a b", "[fd00::x]"] {
        let told = load_text(&file(name)).map_err(|error| error.to_string()).expect_err(name);
        assert!(told.contains("server.allowed_hosts") && told.contains("is no name of a host"), "{told}");
    }
    for name in ["caxton.example.com", "desk", "10.0.0.7", "[fd00::1]"] {
        assert_eq!(load_text(&file(name)).unwrap().config.server.allowed_hosts, [name]);
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    for text in ["auth: {keys: {ada: cax_live_x}}", "auth: {keys: cax_live_x}", "auth: {key: cax_live_x}"] {
        let report = check(text);
        assert_eq!(report.problems.len(), 1, "{report}");
        assert!(!report.to_string().contains("cax_live_x"), "{report}");
    }
}

#[test]
fn what_is_not_yaml_is_refused_where_it_breaks() {
    refused("server:\n  port: 1\n port: 2\n", Some((3, 2)), &["correct the YAML"]);
    refused("server: {port: 1", Some((2, 1)), &["correct the YAML"]);
    refused("server:\n\tport: 1\n", Some((2, 1)), &["spaces"]);
    refused("server: !secret {port: 1}\n", Some((1, 9)), &["tags"]);
    refused("1: 2\n", Some((1, 1)), &["name of a key"]);
    refused("a: *nobody\n", Some((1, 4)), &["anchor"]);
    refused("server: {}\n---\nserver: {}\n", None, &["second document"]);
    refused(&"#".repeat(TEXT_BYTES_MAX + 1), None, &["the limit is 1048576"]);
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    refused(&format!("auth: {{keys: {deep}}}"), Some((1, 140)), &["recursion"]);
    let mut bomb = "a: &a [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
    for (this, last) in [("b", "a"), ("c", "b"), ("d", "c"), ("e", "d"), ("f", "e"), ("g", "f")] {
        let many = vec![format!("*{last}"); 10].join(",");
        bomb = format!("{bomb}{this}: &{this} [{many}]\n");
    }
    assert!(load_text(&bomb).is_err(), "aliases that multiply are cut short");
}

#[test]
fn an_anchor_may_be_used_again() {
    let text = "log: &same {cache_mb: 64}\nmemory: {cleanup: {interval: &long 1h}, scaling: {}}\nserver: {wait_timeout: *long}\n";
    let config = load_text(text).unwrap().config;
    assert_eq!(config.server.wait_timeout, Duration::from_hours(1));
    refused("log: &x {cache_mb: 64}\nlogging: *x\n", Some((1, 10)), &["logging.cache_mb: unknown key"]);
}

#[test]
fn a_key_may_be_given_once() {
    refused("server:\n  port: 1\n  wait_timeout: 1s\n  port: 1\n", Some((4, 3)), &["server.port", "line 2"]);
    refused("log: {}\nserver: {}\nlog: {}\n", Some((3, 1)), &["log: given twice, first in line 1"]);
}

#[test]
fn two_names_of_one_key_must_agree() {
    for (first, second) in [
        ("server: {request_timeout: 30s}", "http_server: {request_timeout: 10s}"),
        ("embedding_config: {batch_size: 32}", "memory: {embedding_config: {batch_size: 16}}"),
        ("memory: {sqlite_config: {wal_size_limit_mb: 10", "journal_size_limit_mb: 100}}"),
        ("http_server: {thread_pool_size: 8", "worker_threads: 4}"),
        ("http_server: {worker_threads: 8}", "runtime: {cpu_optimization: {http_worker_threads: 4}}"),
        (
            "http_server: {max_blocking_threads: 32}",
            "runtime: {cpu_optimization: {tokio_max_blocking_threads: 16}}",
        ),
        ("runtime: {cpu_optimization: {embedding_threads: 2}}", "embedding_config: {thread_count: 4}"),
        (
            "memory: {embedding_config: {memory_map_model: false}}",
            "memory_allocation: {embedding_model: {memory_mapping: true}}",
        ),
        (
            "memory: {cleanup: {batch_size: 100}}",
            "advanced_memory_tuning: {cleanup_advanced: {cleanup_batch_size: 1000}}",
        ),
        ("embedding_config: {precompute_common: true", "precompute_frequent: false}"),
        ("log: {flush_interval: 1s}", "memory_writes: {flush_interval: 2s}"),
        ("agents: {conversation_limit: 10", "default_limits: {max_conversations: 100}}"),
        ("agents: {max_memory_entities_per_agent: 500", "default_limits: {max_memory_entities: 5000}}"),
        ("server: {port: 8080}", "http_server: {bind_address: '127.0.0.1:9000'}"),
    ] {
        let joint = if first.ends_with('}') { "\n" } else { ",\n  " };
        let text = format!("# both\n{first}{joint}{second}");
        let error = load_text(&text).expect_err(&text);
        let [problem] = error.problems.as_slice() else { panic!("{error}") };
        assert_eq!(problem.place.unwrap().line, 3, "{problem}");
        assert!(problem.message.contains("in line 2") && problem.message.contains("in line 3"), "{problem}");
    }
    let same = "server: {port: 8080, request_timeout: 30s}\nhttp_server: {bind_address: '127.0.0.1:8080', request_timeout: 30000ms}";
    assert!(load_text(same).is_ok(), "{:?}", load_text(same));
}

#[test]
fn what_merely_sounds_alike_stays_apart() {
    let text = "server: {max_concurrent_conversations: 100}\nagents: {conversation_limit: 10, tool_call_timeout: 15s, default_limits: {tool_call_timeout: 10s}}";
    let config = load_text(text).unwrap().config;
    assert_eq!(config.server.max_concurrent_conversations, 100);
    assert_eq!(config.agents.default_limits.max_conversations, 10);
    assert_eq!(config.agents.tool_call_timeout, Some(Duration::from_secs(15)));
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_preset() {
    let key = "memory.sqlite_config.cache_size_mb";
    let cache = |loaded: &Loaded| loaded.config.memory.sqlite_config.cache_size_mb;
    let file = "memory: {sqlite_config: {cache_size_mb: 3}}";
    let variable = [("CAXTON_MEMORY__SQLITE_CONFIG__CACHE_SIZE_MB", "4")];
    let all = loaded(file, &variable, &[(key, "5")]).unwrap();
    assert_eq!((cache(&all), &all.origin(key).unwrap().source), (5, &Source::Flag("--flag".to_owned())));
    let two = loaded(file, &variable, &[]).unwrap();
    assert_eq!(cache(&two), 4);
    assert_eq!(two.origin(key).unwrap().source, Source::Environment(variable[0].0.to_owned()));
    let one = loaded(file, &[], &[]).unwrap();
    assert_eq!((cache(&one), one.origin(key).unwrap().place().unwrap().column), (3, 26));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some.yaml");
    std::fs::write(&path, "memory: {sqlite_config: {mmap_size_mb: 7}}").unwrap();
    let preset = Sources { preset: Some(Preset::Latency), file: Some(path), ..Sources::default() };
    let preset = load(&preset).unwrap();
    assert_eq!((cache(&preset), preset.config.memory.sqlite_config.mmap_size_mb), (256, 7));
    assert_eq!(preset.origin(key).unwrap().source, Source::Preset(Preset::Latency));
    assert!(preset.origin("log.cache_mb").is_none());
}

#[test]
fn a_higher_source_may_use_the_other_name_of_a_key() {
    let file = "http_server: {bind_address: '127.0.0.1:9000', request_timeout: 10s}";
    let loaded =
        loaded(file, &[("CAXTON_SERVER_PORT", "9001")], &[("server.request_timeout", "20s")]).unwrap();
    assert_eq!(loaded.config.http_server.bind_address.to_string(), "127.0.0.1:9001");
    assert_eq!(loaded.config.server.request_timeout, Duration::from_secs(20));
}

#[test]
fn a_wrong_value_is_refused_even_when_a_higher_source_overrides_it() {
    let error =
        loaded("server: {port: x}", &[("CAXTON_SERVER_PORT", "y")], &[("server.port", "1")]).unwrap_err();
    assert_eq!(error.problems.len(), 2, "{error}");
    assert!(error.problems[0].to_string().contains("caxton.yaml:1:16: server.port"), "{error}");
    assert!(
        error.problems[1].to_string().starts_with("the variable CAXTON_SERVER_PORT: server.port"),
        "{error}"
    );
}

#[test]
fn variables_and_flags_are_checked_like_files() {
    for (variables, flags, words) in [
        (&[("CAXTON_SERVER_PROT", "1")][..], &[][..], "did you mean CAXTON_SERVER__PORT?"),
        (
            &[("CAXTON_SERVER_PORT", "1"), ("CAXTON_HTTP_SERVER__BIND_ADDRESS", "127.0.0.1:2")],
            &[],
            "contradicts",
        ),
        (&[("CAXTON_SERVER_DATA_DIR", "{")], &[], "needs quotes"),
        (&[("CAXTON_SERVER_DATA_DIR", "/srv/my data #2")], &[], "needs quotes"),
        (&[], &[("server.prot", "1")], "did you mean server.port?"),
        (&[], &[("server", "1")], "unknown key"),
    ] {
        let error = loaded("", variables, flags).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let lists = [
        ("CAXTON_RUNTIME__CPU_OPTIMIZATION__HIGH_PRIORITY_THREADS", "[agents, messages]"),
        ("CAXTON_PORT", "tcp://x"),
    ];
    let config = loaded("", &lists, &[("server.metrics_port", "null")]).unwrap().config;
    assert_eq!(
        config.runtime.cpu_optimization.high_priority_threads,
        [ThreadClass::Agents, ThreadClass::Messages]
    );
    assert_eq!(config.server.metrics_port, None);
}

#[test]
fn a_flag_that_is_a_text_may_hold_any_signs() {
    for name in ["x #1", "2026", "true", "a: b", "~", "{", "'a"] {
        let flags = vec![Flag::text("--data-dir", "server.data_dir", name)];
        let loaded = load(&Sources { flags, ..Sources::default() }).unwrap();
        assert_eq!(loaded.config.server.data_dir, Path::new(name));
    }
    let quoted = loaded("", &[("CAXTON_SERVER_DATA_DIR", "'x #1' # why")], &[]).unwrap();
    assert_eq!(quoted.config.server.data_dir, Path::new("x #1"));
}

#[test]
fn every_fault_is_told_in_reading_order() {
    let text = "server:\n  prot: 1\n  wait_timeout: 5\nmemory: {search: {limit: 5, max_limit: 2}}\nlog: 3\n";
    let error = load_text(text).unwrap_err();
    let lines: Vec<_> = error.problems.iter().map(|problem| problem.place.unwrap().line).collect();
    assert_eq!(lines, [2, 3, 4, 5], "{error}");
    let told = error.to_string();
    assert!(told.starts_with("the configuration has 4 faults\n"), "{told}");
    assert!(told.contains("  2 |   prot: 1\n    |   ^"), "{told}");
}

#[test]
fn a_file_that_is_something_else_is_given_up_soon() {
    let lines: Vec<_> = (0..2_000).map(|line| format!("key{line}: {line}")).collect();
    let text = lines.join("\n");
    assert_eq!(load_text(&text).unwrap_err().problems.len(), 50);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.yaml");
    std::fs::write(&bad, b"server: \xff").unwrap();
    let large = dir.path().join("large.yaml");
    std::fs::write(&large, "#".repeat(TEXT_BYTES_MAX + 1)).unwrap();
    for (path, words) in [
        (dir.path().join("none.yaml"), "could not read"),
        (dir.path().to_owned(), "could not read"),
        (bad, "byte 8 is not UTF-8"),
        (large, "the limit is"),
    ] {
        let report = check_file(&path);
        assert_eq!(report.problems.len(), 1, "{report}");
        assert!(report.to_string().contains(words), "{report}");
        assert!(report.to_string().contains(path.to_str().unwrap()), "{report}");
    }
}

#[test]
fn warnings_do_not_stop_a_server() {
    for (text, words) in [
        ("embedding_config: {max_sequence_length: 384}", "256 is used"),
        ("log: {durability: interval}", "the last 1s"),
        ("log: {durability: off}", "any acknowledged write"),
    ] {
        let report = check(text);
        assert!(report.is_ok(), "{report}");
        assert_eq!(report.warnings.len(), 1, "{report}");
        assert!(report.to_string().contains(words), "{report}");
        assert_eq!(report.warnings[0].place.unwrap().line, 1, "{report}");
    }
    let config = load_text("embedding_config: {max_sequence_length: 384}").unwrap().config;
    assert_eq!(config.memory.embedding_config.max_sequence_length, MODEL_TOKENS_MAX);
}

#[test]
fn an_open_address_needs_a_key() {
    let open = load_text("http_server: {bind_address: '0.0.0.0:8080'}").unwrap().config;
    let keys = open.api_keys().unwrap();
    let refused = open.check_exposure(&keys).unwrap_err().to_string();
    assert!(refused.contains("0.0.0.0:8080"), "{refused}");
    let report = check("http_server: {bind_address: '0.0.0.0:8080'}");
    assert!(!report.is_ok() && report.to_string().contains(&refused), "{report}");
    assert_eq!(report.problems[0].place.unwrap().line, 1, "{report}");
    let hash = create_key().unwrap().hash;
    let text = format!("http_server: {{bind_address: '[::]:1'}}\nauth: {{keys: {{ada: '{hash}'}}}}");
    let open = load_text(&text).unwrap().config;
    assert_eq!(open.check_exposure(&open.api_keys().unwrap()), Ok(()));
    let report = check(&text);
    assert!(report.is_ok() && report.to_string().contains("other machines"), "{report}");
    let closed = load_text("http_server: {bind_address: '[::1]:1'}").unwrap().config;
    assert_eq!(closed.check_exposure(&KeyHashes::default()), Ok(()));
    let report = check("auth: {keys_file: /nonexistent/keys.yaml}");
    assert!(report.to_string().contains("could not read the keys"), "{report}");
}

#[test]
fn bounds_follow_each_other_unless_both_are_explicit() {
    let api = |text: &str| load_text(text).unwrap().config.api_optimization;
    assert_eq!(api("api_optimization: {max_page_size: 20}").default_page_size, 20);
    assert_eq!(api("api_optimization: {default_page_size: 2000}").max_page_size, 2_000);
    refused(
        "api_optimization: {default_page_size: 30, max_page_size: 20}",
        Some((1, 20)),
        &["30 is more than api_optimization.max_page_size = 20"],
    );
    let threads = "http_server: {worker_threads: 8}\nruntime: {cpu_optimization: {tokio_worker_threads: 4}}";
    refused(threads, Some((2, 30)), &["fewer than the 8"]);
    refused("logging: {filter: 'caxton=loud'}", Some((1, 11)), &["is not a filter", "info,caxton=debug"]);
    refused("server: {metrics_port: 8080}", Some((1, 10)), &["the REST API's"]);
    refused(
        "embedding: {keyword_only: true}\nmemory: {search: {mode: semantic}}",
        Some((2, 19)),
        &["keyword or hybrid"],
    );
    let precision = "advanced_memory_tuning: {embedding_advanced: {model_precision: int8}}";
    let candle = format!("embedding: {{engine: candle}}\n{precision}");
    refused(&candle, Some((2, 47)), &["fp32 alone", "embedding.engine: fused"]);
    assert!(load_text(precision).unwrap().without_effect().is_empty());
}

#[test]
fn keys_without_effect_are_listed_when_they_were_set() {
    let text = "memory_allocation: {allocator: mimalloc, sqlite_memory: {temp_allocator: malloc}}\nserver: {port: 8080}\n";
    let without_effect = load_text(text).unwrap().without_effect();
    let names: Vec<_> = without_effect.iter().map(|one| one.key.as_str()).collect();
    assert_eq!(names, ["memory_allocation.sqlite_memory.temp_allocator"]);
    let pools = |more: &str| {
        let text = format!("memory_allocation: {{agent_memory: {{pool_size: 5{more}}}}}");
        load_text(&text).unwrap().without_effect().len()
    };
    assert_eq!((pools(""), pools(", conversation_pool: false")), (0, 0));
    assert_eq!(pools(", conversation_pool: false, response_pool: false"), 1);
    let alias = load_text("memory_writes: {flush_interval: 1s}").unwrap().without_effect();
    assert_eq!(alias[0].key, "memory_writes.flush_interval", "as it was written");
    let jemalloc = load_text("memory_allocation: {allocator: jemalloc}").unwrap().without_effect();
    assert_eq!((jemalloc.len(), &jemalloc[0].value), (1, &serde_json::json!("jemalloc")));
    let flush = |text: &str| load_text(text).unwrap().without_effect().len();
    assert_eq!(flush("memory_writes: {flush_interval: 1s}"), 1);
    assert_eq!(flush("log: {durability: interval, flush_interval: 1s}"), 0);
}

#[test]
fn what_is_shown_can_be_loaded_again() {
    for path in fixtures() {
        let loaded = load(&Sources { file: Some(path.clone()), ..Sources::default() }).unwrap();
        let shown = show(&loaded, false);
        let again = load_text(&shown).unwrap_or_else(|error| panic!("{error}\n{shown}"));
        assert_eq!(again.config, loaded.config, "{shown}");
    }
}

#[test]
fn what_is_shown_says_where_it_came_from() {
    let loaded = loaded(
        "embedding_config: {batch_size: 16}\nmemory_allocation: {sqlite_memory: {temp_allocator: malloc}}",
        &[("CAXTON_SERVER_PORT", "1")],
        &[],
    );
    let loaded = loaded.unwrap();
    let shown = show(&loaded, false);
    let line = |start: &str| shown.lines().find(|line| line.trim().starts_with(start)).unwrap().to_owned();
    assert!(line("batch_size: 16").ends_with("caxton.yaml:1:20 as embedding_config.batch_size"), "{shown}");
    assert!(line("port: 1 ").ends_with("# the variable CAXTON_SERVER_PORT"), "{shown}");
    assert!(
        line("bind_address:").ends_with("# follows server.port, the variable CAXTON_SERVER_PORT"),
        "{shown}"
    );
    assert!(line("temp_allocator:").contains("; no effect: "), "{shown}");
    assert!(line("cache_mb: 32").ends_with("# default"), "{shown}");
    let json: serde_json::Value = serde_json::from_str(&show(&loaded, true)).unwrap();
    let keys = json["keys"].as_array().unwrap();
    let port = keys.iter().find(|row| row["key"] == "server.port").unwrap();
    assert_eq!((&port["value"], &port["source"]), (&1.into(), &"the variable CAXTON_SERVER_PORT".into()));
    assert_eq!(keys.len(), known_keys().len());
    assert!(known_keys().iter().all(|key| key["about"].is_string() && key["takes"].is_string()));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_makes_it_panic(text in "[ -~\n\u{e9}]{0,200}", at in 0_usize..400, cut in 0_usize..40) {
        let _ = load_text(&text);
        let preset = Preset::Latency.text();
        let broken: String = preset.chars().take(at).chain(preset.chars().skip(at + cut)).collect();
        let _ = check(&broken).to_string();
    }
}
