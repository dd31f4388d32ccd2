//! Keys of the REST API: addresses, limits, pages, compression, keys, the process's own log.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::cli::{caxton, check_failure};
use super::super::client::connect;
use super::super::program::Program;

fn entities(program: &Program, names: &[&str]) {
    for name in names {
        let body = json!({"agent_id": "ada", "entity_name": name, "entity_type": "thing",
                          "observations": ["one kettle", "a cup"]});
        program.post("/memory/entities", &body).expect(201);
    }
}

fn rows(answer: &Value, name: &str) -> usize {
    answer[name].as_array().unwrap_or_else(|| panic!("{answer}")).len()
}

#[test]
fn a_server_listens_where_its_file_says() {
    let file = "http_server: {bind_address: '127.0.0.2:0'}\nserver: {metrics_port: null}\n\
                embedding: {keyword_only: true}\n";
    let program = Program::in_dir(TempDir::new().unwrap(), file, &[]);
    assert_eq!(program.address.ip().to_string(), "127.0.0.2");
    assert!(program.report.contains("metrics    off"), "{}", program.report);
    assert!(program.report.contains("search by words only"), "{}", program.report);
    program.get("/health").expect(200);

    let file = "server: {port: 0, metrics_port: 0}\nembedding: {keyword_only: true}\n";
    let program = Program::in_dir(TempDir::new().unwrap(), file, &[]);
    assert_ne!(program.address.port(), 8080);
    assert!(program.metrics().contains("caxton_server_startup_time_seconds"));
}

#[test]
fn a_data_directory_of_the_file_is_used() {
    let dir = TempDir::new().unwrap();
    let (file, data) = (dir.path().join("c.yaml"), dir.path().join("elsewhere"));
    std::fs::write(&file, format!("server: {{data_dir: '{}'}}", data.display())).unwrap();
    let place = ["--config", file.to_str().unwrap(), "--keyword-only"];
    super::super::cli::check(&[&["memory", "add", "kettle", "boils"][..], &place].concat(), &["created"]);
    assert!(data.join("events.redb").exists());
}

#[test]
fn a_data_directory_of_the_command_line_may_have_any_name() {
    for name in ["x #1", "2026", "a: b"] {
        let add = ["memory", "add", "kettle", "boils", "--keyword-only"];
        let flag = caxton(&[&add[..], &["--data-dir", name]].concat());
        let mut variable = caxton(&add);
        variable.env("CAXTON_DATA_DIR", name);
        for mut command in [flag, variable] {
            let dir = TempDir::new().unwrap();
            let output = command.current_dir(dir.path()).output().unwrap();
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(dir.path().join(name).join("events.redb").exists(), "{name}");
        }
    }
}

#[test]
fn pages_have_the_size_of_the_file() {
    let program = Program::start("api_optimization: {default_page_size: 2, max_page_size: 3}");
    entities(&program, &["a", "b", "c", "d"]);
    let page = |query: &str| program.get(&format!("/memory/entities?agent_id=ada{query}"));
    assert_eq!(rows(&page("").expect(200).json(), "entities"), 2);
    assert_eq!(rows(&page("&limit=3").expect(200).json(), "entities"), 3);
    assert_eq!(page("&limit=4").problem(422, "VALIDATION_ERROR")["field"], "limit");
}

#[test]
fn a_search_is_bounded_and_widened_as_the_file_says() {
    let program = Program::start("memory: {search: {mode: keyword, limit: 2, max_limit: 3, neighbours: 1}}");
    entities(&program, &["a", "b", "c", "d"]);
    let search = |query: &str| program.get(&format!("/memory/search?agent_id=ada&query=kettle{query}"));
    let hits = search("").expect(200).json();
    assert_eq!(rows(&hits, "results"), 2, "{hits}");
    assert_eq!(hits["results"][0]["neighbours"].as_array().map(Vec::len), Some(1), "{hits}");
    assert_eq!(rows(&search("&limit=3").expect(200).json(), "results"), 3);
    search("&limit=4").problem(422, "VALIDATION_ERROR");
}

#[test]
fn answers_are_kept_as_the_file_says() {
    for (size, kept) in [("1MB", 2), ("0", 0)] {
        let program = Program::start(&format!("memory: {{search: {{cache_size: {size}}}}}"));
        entities(&program, &["a"]);
        let path = "/memory/search?agent_id=ada&query=kettle";
        let found = || program.get(path).expect(200).json();
        let first = found();
        for again in
            [found(), program.ask("GET", path).header("Cache-Control", "no-cache").send().json(), found()]
        {
            assert_eq!(again["results"], first["results"]);
        }
        let metrics = program.metrics();
        let hits = format!("caxton_memory_search_cache_hits_total {kept}\n");
        assert!(metrics.contains(&hits), "{size}: {metrics}");
        entities(&program, &["b"]);
        assert_eq!(rows(&found(), "results"), 2, "{size}");
    }
}

#[test]
fn a_body_is_bounded_by_the_file() {
    let program = Program::start("server: {max_body_size: 2KB}");
    let body = |bytes: usize| {
        json!({"agent_id": "ada", "entity_name": "a", "entity_type": "thing",
                                     "observations": ["x".repeat(bytes)]})
    };
    program.post("/memory/entities", &body(3_000)).problem(413, "BODY_TOO_LARGE");
    program.post("/memory/entities", &body(1_000)).expect(201);
}

#[test]
fn the_longest_head_is_that_of_either_buffer() {
    let long = "x".repeat(40_000);
    for (file, status) in [
        ("", 431),
        ("http_server: {header_buffer_size: 64KB}", 200),
        ("http_server: {request_buffer_size: 64KB}", 200),
    ] {
        let program = Program::start(file);
        let reply = program.ask("GET", "/health").header("X-Long", &long).send();
        assert_eq!(reply.status, status, "{file}");
    }
}

/// Bytes of a long answer to a client that takes gzip, and whether it was compressed.
fn answer(file: &str, path: &str) -> (usize, bool) {
    let program = Program::start(file);
    let body = json!({"agent_id": "ada", "entity_name": "a", "entity_type": "thing",
                      "observations": (0..400).map(|n| format!("note {n} says {}", n * 7_919 % 1_000))
                          .collect::<Vec<_>>()});
    program.post("/memory/entities", &body).expect(201);
    let reply = program.ask("GET", path).header("Accept-Encoding", "gzip").send().expect(200);
    (reply.body.len(), reply.header("content-encoding") == Some("gzip"))
}

#[test]
fn answers_are_compressed_as_the_file_says() {
    let long = "/memory/export?agent_id=ada";
    let fast = answer("http_server: {compression_level: 1}", long);
    let small = answer("http_server: {compression_level: 9}", long);
    assert!(fast.1 && small.1 && small.0 < fast.0, "{fast:?} {small:?}");
    assert!(!answer("http_server: {enable_compression: false}", long).1);
    assert!(!answer("http_server: {compression_threshold: 100KB}", "/health").1);
    assert!(answer("http_server: {compression_threshold: 10}", "/health").1);
}

#[test]
fn reads_carry_a_tag_unless_the_file_says_no() {
    for (file, tagged) in [("", true), ("http_server: {etag_enabled: false}", false)] {
        let reply = Program::start(file).get("/memory/stats").expect(200);
        assert_eq!(reply.header("etag").is_some(), tagged, "{file}");
    }
}

#[test]
fn errors_are_as_detailed_as_the_file_says() {
    for (file, detailed) in [("", true), ("api_optimization: {detailed_errors: false}", false)] {
        let problem = Program::start(file).get("/memory/entities?limit=-1").problem(422, "VALIDATION_ERROR");
        assert_eq!(problem.get("errors").is_some(), detailed, "{problem}");
        assert_eq!(problem.get("value").is_some(), detailed, "{problem}");
    }
}

#[test]
fn a_read_waits_for_its_position_as_long_as_the_file_says() {
    let program = Program::start("server: {wait_timeout: 1ms}");
    let reply = program.ask("GET", "/memory/stats").header("Caxton-Min-Seq", "1000000").send();
    let problem = reply.problem(503, "NOT_CAUGHT_UP");
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("1ms")), "{problem}");
}

#[test]
fn keys_of_the_file_open_the_door_and_no_others() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("keys");
    let made =
        super::super::cli::json(&["--json", "key", "create", "ada", "--keys-file", path.to_str().unwrap()]);
    let (key, line) = (made["key"].as_str().unwrap(), made["line"].as_str().unwrap());
    let hash = line.split_once(": ").unwrap().1;
    for file in
        [format!("auth: {{keys_file: '{}'}}", path.display()), format!("auth: {{keys: {{ada: '{hash}'}}}}")]
    {
        let program = Program::start(&file);
        assert!(program.report.contains("1 known"), "{}", program.report);
        program.get("/memory/stats").problem(401, "UNAUTHORIZED");
        program
            .ask("GET", "/memory/stats")
            .header("Authorization", &format!("Bearer {key}"))
            .send()
            .expect(200);
    }
}

#[test]
fn hosts_besides_this_machine_are_those_of_the_file() {
    for (file, status) in [("", 421), ("server: {allowed_hosts: [caxton.example]}", 200)] {
        let program = Program::start(file);
        let proxied = program.ask("GET", "/health").header("Host", "caxton.example:8443");
        assert_eq!(proxied.send().status, status, "{file}");
        program.ask("GET", "/health").header("Host", "other.example").send().problem(421, "HOST_NOT_ALLOWED");
        program.get("/health").expect(200);
    }
}

#[test]
fn lines_of_the_log_are_as_the_file_says() {
    let program = Program::start("logging: {filter: 'caxton=debug', format: json}");
    program.get("/health").expect(200);
    let told = program.told();
    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["level"] == "DEBUG"), "{told}");
    let quiet = Program::start("logging: {filter: error}");
    quiet.get("/health").expect(200);
    assert_eq!(quiet.told(), "");
}

#[test]
fn what_only_one_value_can_be_is_refused_at_the_start() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("c.yaml");
    for (text, says) in [
        ("memory: {backend: qdrant}", "memory.backend"),
        ("memory: {embedding_config: {model: bert}}", "memory.embedding_config.model"),
        ("memory: {scaling: {auto_migrate_enabled: true}}", "Caxton does not move data by itself"),
        ("memory: {scaling: {migration_backend: mongo}}", "memory.scaling.migration_backend"),
        ("runtime: {cpu_optimization: {async_runtime: async-std}}", "runtime.cpu_optimization.async_runtime"),
    ] {
        std::fs::write(&file, text).unwrap();
        check_failure(&["serve", "--config", file.to_str().unwrap()], 2, says);
    }
}

#[test]
fn the_report_says_what_a_power_cut_may_lose() {
    for (file, says) in [
        ("", "always: an acknowledged write is on disk"),
        ("log: {durability: interval, flush_interval: 250ms}", "in the last 250ms"),
        ("log: {durability: 'off'}", "off: a crash may lose everything"),
    ] {
        let program = Program::start(file);
        assert!(program.report.contains(says), "{}", program.report);
    }
}

#[test]
fn what_stays_the_same_may_be_kept_as_long_as_the_file_says() {
    for (file, then) in [
        ("", "private, max-age=300"),
        ("http_server: {cache_ttl: 7s}", "private, max-age=7"),
        ("http_server: {cache_static_content: false}", "private, no-cache"),
    ] {
        let program = Program::start(file);
        for path in ["/config-agents/templates", "/memory/config"] {
            assert_eq!(program.get(path).expect(200).header("cache-control"), Some(then), "{file} {path}");
        }
        let changing = program.get("/memory/stats").expect(200);
        assert_eq!(changing.header("cache-control"), Some("private, no-cache"));
    }
}

#[test]
fn the_graph_is_read_by_as_many_as_the_file_says() {
    for (file, connections) in [("", 9), ("runtime: {cpu_optimization: {memory_worker_threads: 3}}", 4)] {
        let metrics = Program::start(file).metrics();
        assert!(metrics.contains(&format!("\ncaxton_server_sqlite_connections {connections}\n")), "{file}");
    }
}

/// Bytes that the system has of an answer that its client does not read, as the server's socket is listed.
fn under_way(program: &Program) -> u64 {
    let port = format!(":{:04X}", program.address.port());
    let sockets = program.proc("net/tcp");
    let own = sockets.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let queues = own
        .filter(|words| words[1].ends_with(&port))
        .map(|words| words[4].split(':').next().unwrap().to_owned());
    queues.map(|bytes| u64::from_str_radix(&bytes, 16).unwrap()).max().unwrap_or(0)
}

#[test]
fn a_slow_client_is_sent_no_more_ahead_than_the_file_says() {
    let waits = |file: &str| {
        let program = Program::start(file);
        let body = json!({"agent_id": "ada", "entity_name": "a", "entity_type": "thing",
                          "observations": (0..80).map(|n| format!("{n} {}", "x".repeat(90_000))).collect::<Vec<_>>()});
        program.post("/memory/entities", &body).expect(201);
        let mut stream = connect(program.address);
        stream.write_all(&program.ask("GET", "/memory/export?agent_id=ada").bytes()).unwrap();
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).unwrap();
        // Until what the system holds grows no more.
        let (started, mut last, mut same) = (Instant::now(), 0, 0);
        while same < 200 {
            let now = under_way(&program);
            same = if now == last && now > 0 { same + 1 } else { 0 };
            last = now;
            assert!(started.elapsed() < Duration::from_mins(1), "it never rests: {now}");
        }
        last
    };
    let (small, usual) = (waits("http_server: {response_buffer_size: 8KB}"), waits(""));
    assert!(small < 100_000 && small * 4 < usual, "{small} {usual}");
}

#[test]
fn answers_are_written_into_buffers_of_others_where_the_file_says_so() {
    for (keys, reused) in [
        ("", true),
        ("response_pool: true, pool_size: 1", true),
        ("response_pool: true, pool_size: 0", false),
        ("response_pool: false", false),
    ] {
        let program = Program::start(&format!("memory_allocation: {{agent_memory: {{{keys}}}}}"));
        entities(&program, &["a", "b"]);
        let first = program.get("/memory/entities?agent_id=ada").expect(200).json();
        for _ in 0..3 {
            assert_eq!(program.get("/memory/entities?agent_id=ada").expect(200).json(), first);
        }
        let counted = program
            .metrics()
            .lines()
            .find_map(|line| line.strip_prefix("caxton_response_pool_reused_total "))
            .map_or(0, |count| count.parse::<u64>().unwrap());
        assert_eq!(counted > 0, reused, "{keys}: {counted}");
    }
}
