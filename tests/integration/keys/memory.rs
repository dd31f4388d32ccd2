//! Keys of the memory and its files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::super::program::Program;

fn sqlite(keys: &str) -> Program {
    Program::start(&format!("memory: {{sqlite_config: {{{keys}}}}}"))
}

/// The first bytes of the graph's file: what the format of SQLite keeps there.
fn head(program: &Program) -> Vec<u8> {
    let mut bytes = fs::read(program.data().join("graph/graph.db")).unwrap();
    bytes.truncate(100);
    bytes
}

fn number(head: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(head[at..at + 4].try_into().unwrap())
}

#[test]
fn the_graphs_file_is_made_as_the_file_says() {
    let usual = head(&sqlite(""));
    assert_eq!(
        (u16::from_be_bytes([usual[16], usual[17]]), usual[18]),
        (4_096, 2),
        "pages, and a write-ahead log"
    );
    assert_eq!(number(&usual, 52), 0, "it does not shrink by itself");
    let small = head(&sqlite("page_size: 1024, wal_mode: false, auto_vacuum: full"));
    assert_eq!((u16::from_be_bytes([small[16], small[17]]), small[18]), (1_024, 1));
    assert!(number(&small, 52) > 0 && number(&small, 64) == 0, "it shrinks at each commit");
    let asked = head(&sqlite("auto_vacuum: incremental"));
    assert!(number(&asked, 52) > 0 && number(&asked, 64) == 1, "it shrinks when it is asked to");
}

#[test]
fn the_graphs_file_is_mapped_where_the_file_says_so() {
    for (keys, mapped) in [("mmap_size_mb: 64", true), ("mmap_size_mb: 0", false)] {
        let dir = sqlite(keys).leave();
        // What is in the file already is mapped when it is read.
        let program = Program::again(dir, &format!("memory: {{sqlite_config: {{{keys}}}}}"));
        program.get("/memory/stats").expect(200);
        let maps = program.proc("maps");
        let found = maps.lines().any(|line| line.ends_with("graph.db"));
        assert_eq!(found, mapped, "{keys}");
    }
}

/// Bytes of the log after a long text was written.
fn log_bytes(keys: &str) -> u64 {
    let program = Program::start(&format!("memory_writes: {{{keys}}}"));
    let text = "the same words again and again ".repeat(30_000);
    let parts: Vec<&str> = (0..8).map(|at| &text[at * 100_000..(at + 1) * 100_000]).collect();
    let body = json!({"agent_id": "ada", "entity_name": "a", "entity_type": "thing", "observations": parts});
    program.post("/memory/entities", &body).expect(201);
    let dir = program.leave();
    fs::metadata(dir.path().join("data/events.redb")).unwrap().len()
}

#[test]
fn long_events_are_compressed_as_the_file_says() {
    let compressed = log_bytes("compress_observations: true");
    let plain = log_bytes("compress_observations: false");
    let above = log_bytes("compression_threshold: 1MB");
    assert!(compressed + 400_000 < plain, "{compressed} {plain}");
    assert!(compressed + 400_000 < above, "{compressed} {above}");
}

#[test]
fn payloads_are_encrypted_where_the_file_says_so() {
    let secret = "a kettle that nobody knows of";
    for (keys, readable) in [("encrypt: none", true), ("encrypt: all", false)] {
        let program = Program::start(&format!("privacy: {{{keys}}}"));
        let body =
            json!({"agent_id": "ada", "entity_name": "a", "entity_type": "thing", "observations": [secret]});
        program.post("/memory/entities", &body).expect(201);
        let dir: TempDir = program.leave();
        let log = fs::read(dir.path().join("data/events.redb")).unwrap();
        let found = log.windows(secret.len()).any(|bytes| bytes == secret.as_bytes());
        assert_eq!(found, readable, "{keys}");
    }
}

/// The folder of the model, where this machine has one.
fn model() -> Option<String> {
    let home =
        std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/caxton/models/all-MiniLM-L6-v2"));
    let named = std::env::var_os("CAXTON_MODEL_DIR").map(PathBuf::from);
    let found = named.into_iter().chain(home).find(|dir| dir.join("model.safetensors").exists());
    found.map(|dir| dir.to_str().unwrap().to_owned())
}

fn with_model(dir: &str, config: &str) -> Program {
    let flags = ["--port", "0", "--metrics-port", "0", "--model-path", dir];
    Program::in_dir(TempDir::new().unwrap(), config, &flags)
}

/// Mappings of the process: what each is of, its size and what of it is in memory, in KB, and its flags.
fn mappings(program: &Program) -> Vec<(String, u64, u64, String)> {
    let mut found: Vec<(String, u64, u64, String)> = Vec::new();
    for line in program.proc("smaps").lines() {
        let kilobytes = |rest: &str| rest.trim().trim_end_matches(" kB").parse().unwrap();
        let first = line.split_whitespace().next().unwrap_or_default();
        if first.contains('-') {
            found.push((line.to_owned(), 0, 0, String::new()));
        } else if let Some(last) = found.last_mut() {
            if let Some(rest) = line.strip_prefix("Size:") {
                last.1 = kilobytes(rest);
            } else if let Some(rest) = line.strip_prefix("Rss:") {
                last.2 = kilobytes(rest);
            } else if let Some(rest) = line.strip_prefix("VmFlags:") {
                last.3 = format!("{rest} ");
            }
        }
    }
    found
}

#[test]
fn the_model_lies_in_memory_as_the_file_says() {
    let Some(dir) = model() else { return };
    let pages = |keys: &str| {
        let program = with_model(&dir, &format!("memory_allocation: {{embedding_model: {{{keys}}}}}"));
        let all = mappings(&program);
        let mapped = all.iter().find(|(name, ..)| name.ends_with("model.safetensors"));
        // The weights take 41 MB; what is larger is the allocator's own.
        let huge = |(_, size, _, flags): &(String, u64, u64, String)| {
            (30_000..100_000).contains(size) && flags.contains(" hg ")
        };
        let huge = all.iter().any(huge);
        (mapped.map(|(_, size, resident, _)| (*size, *resident)), huge)
    };
    let (mapped, huge) = pages("memory_mapping: true, prefault_pages: true, huge_pages: true");
    let (size, resident) = mapped.unwrap();
    assert!(resident == size && huge, "{resident} of {size}");
    let (mapped, huge) = pages("memory_mapping: true, prefault_pages: false, huge_pages: false");
    let (size, resident) = mapped.unwrap();
    assert!(resident < size && !huge, "{resident} of {size}");
    assert_eq!(pages("memory_mapping: false").0, None);
    let held = |keys: &str| {
        let program = with_model(&dir, &format!("memory_allocation: {{embedding_model: {{{keys}}}}}"));
        let told = program.proc("smaps_rollup");
        let line = told.lines().find_map(|line| line.strip_prefix("AnonHugePages:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    // What was touched before the configuration was read may lie in a few.
    assert!(held("huge_pages: false") < 20_000, "{}", held("huge_pages: false"));
}

#[test]
fn freed_memory_is_used_again_for_as_long_as_the_file_says() {
    // Pages that the program had to get for large bodies, one after the other, none of which leaves anything behind.
    let taken = |delay: &str| {
        let program = Program::start(&format!("memory_allocation: {{purge_delay: {delay}}}"));
        let faults = || {
            let told = program.proc("stat");
            let behind_the_name = told.rsplit_once(") ").unwrap().1;
            behind_the_name.split(' ').nth(7).unwrap().parse::<u64>().unwrap()
        };
        let body = json!({"name": "x".repeat(4 << 20), "entity_type": "Thing"});
        let ask = || program.ask("POST", "/memory/entities?agent_id=ada").json(&body).send();
        (0..4).for_each(|_| assert_eq!(ask().status, 422));
        let before = faults();
        (0..10).for_each(|_| drop(ask()));
        faults() - before
    };
    let (given_back, kept) = (taken("0ms"), taken("1h"));
    assert!(given_back > 2 * kept, "{given_back} {kept}");
}

#[test]
fn the_model_and_scans_have_the_threads_of_the_file() {
    let Some(dir) = model() else { return };
    for (embed, scan) in [(1, 1), (3, 4)] {
        let config = format!(
            "memory: {{embedding_config: {{thread_count: {embed}}}}}\n\
             advanced_memory_tuning: {{vector_similarity: {{scan_threads: {scan}}}}}\n"
        );
        let program = with_model(&dir, &config);
        let body =
            json!({"agent_id": "ada", "entity_name": "a", "entity_type": "thing", "observations": ["x"]});
        program.post("/memory/entities?wait=indexed", &body).expect(201);
        program.get("/memory/search?agent_id=ada&query=thing&mode=semantic").expect(200);
        let count = |name: &str| program.threads_like(name);
        assert_eq!(count("embed-bulk-"), embed, "{config}");
        assert_eq!(count("scan-"), scan - 1, "the search's own thread scans too: {config}");
    }
}

#[test]
fn queries_that_were_asked_before_a_start_are_known_after_it() {
    let Some(model) = model() else { return };
    let flags = ["--port", "0", "--metrics-port", "0", "--model-path", &model];
    let config = "memory: {embedding_config: {precompute_common: true}}";
    let metric = |program: &Program, name: &str| {
        let metrics = program.metrics();
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_default().to_owned()
    };
    let ask = |program: &Program| {
        program.get("/memory/search?agent_id=ada&query=where+bees+live").expect(200);
    };
    let program = Program::in_dir(TempDir::new().unwrap(), config, &flags);
    ask(&program);
    ask(&program);
    let dir = program.leave();
    let kept = fs::read_to_string(dir.path().join("data/queries.json")).unwrap();
    assert_eq!(kept, r#"{"queries":[["where bees live",2]]}"#);
    let program = Program::in_dir(dir, config, &flags);
    let started = Instant::now();
    while metric(&program, "caxton_embedding_cache_size") != "1" {
        assert!(started.elapsed() < Duration::from_mins(1), "{}", program.told());
        std::thread::yield_now();
    }
    ask(&program);
    assert_eq!(metric(&program, "caxton_embedding_cache_hit_rate"), "1", "it was there before it was asked");
    // Whoever is erased, what was asked is gone.
    let body = json!({"agent_id": "ada", "entity_name": "a", "entity_type": "thing", "observations": ["x"]});
    program.post("/memory/entities", &body).expect(201);
    let plan = program.post("/erase", &json!({"agent": "ada", "dry_run": true})).expect(200).json();
    program.post("/erase", &json!({"agent": "ada", "confirm": plan["confirm"]})).expect(200);
    assert!(!program.data().join("queries.json").exists());
    let dir = program.leave();
    assert!(!dir.path().join("data/queries.json").exists(), "and does not come back");
    fs::write(dir.path().join("data/queries.json"), "{\"queries\": 7}").unwrap();
    let program = Program::in_dir(dir, config, &flags);
    while !program.told().contains("the frequent queries could not be read") {
        assert!(started.elapsed() < Duration::from_mins(2), "{}", program.told());
        std::thread::yield_now();
    }
    ask(&program);
}

#[test]
fn a_limit_that_is_passed_is_told_of() {
    let program = Program::start("memory: {scaling: {max_entities: 1, max_relations: 1}}");
    let passed = |program: &Program| program.get("/health/detailed").expect(200).json()["scaling"].clone();
    let entity = |name: &str| {
        let body =
            json!({"agent_id": "ada", "entity_name": name, "entity_type": "thing", "observations": []});
        program.post("/memory/entities", &body).expect(201);
    };
    entity("a");
    assert_eq!(passed(&program)["advised"], false);
    entity("b");
    for (from, to) in [("a", "b"), ("b", "a")] {
        let body = json!({"agent_id": "ada", "from_entity": from, "to_entity": to, "relation_type": "x"});
        program.post("/memory/relations", &body).expect(201);
    }
    let told = passed(&program);
    assert_eq!(told["passed"][0], json!({"limit": "max_entities", "allowed": 1.0, "found": 2.0}));
    assert_eq!(told["passed"][1], json!({"limit": "max_relations", "allowed": 1.0, "found": 2.0}));
    assert!(told["remedy"].as_str().is_some_and(|remedy| remedy.contains("qdrant")), "{told}");
    let metrics = program.metrics();
    assert!(metrics.contains("caxton_memory_scaling_advised{limit=\"max_entities\"} 1\n"), "{metrics}");
    assert!(metrics.contains("caxton_memory_scaling_advised{limit=\"max_storage_mb\"} 0\n"), "{metrics}");
    let warned = |program: &Program| program.told().matches("memory.scaling.max_entities").count();
    assert_eq!(warned(&program), 1, "{}", program.told());
    program.metrics();
    assert_eq!(warned(&program), 1, "it is said once");
}

#[test]
fn what_is_above_a_limit_goes_by_itself() {
    let program = Program::start("memory: {cleanup: {interval: 1s, entity_limit: 2}}");
    assert!(program.report.contains("2 entities"), "the report says that something goes: {}", program.report);
    for (agent, name) in [("ada", "a"), ("bob", "b"), ("ada", "c"), ("bob", "d")] {
        let body =
            json!({"agent_id": agent, "entity_name": name, "entity_type": "thing", "observations": ["x"]});
        program.post("/memory/entities", &body).expect(201);
    }
    let held = || {
        program.get("/memory/stats").expect(200).json()["global_stats"]["total_entities"].as_u64().unwrap()
    };
    let started = Instant::now();
    while held() > 2 {
        assert!(started.elapsed() < Duration::from_mins(1), "nothing goes");
        std::thread::yield_now();
    }
    let audit = program.get("/audit?actor=system&kinds=memory.entity_removed").expect(200).json();
    assert_eq!(audit["events"].as_array().map(Vec::len), Some(2), "{audit}");
    let removed = "caxton_memory_cleanup_removed_total{kind=\"entity\"} 2\n";
    while !program.metrics().contains(removed) {
        assert!(started.elapsed() < Duration::from_mins(1), "{}", program.metrics());
        std::thread::yield_now();
    }
}

#[test]
fn statistics_of_the_planner_are_made_as_often_as_the_file_says() {
    let program = Program::start("advanced_memory_tuning: {sqlite_advanced: {analyze_frequency: 1s}}");
    let body = json!({"agent_id": "ada", "entity_name": "a", "entity_type": "thing", "observations": ["x"]});
    program.post("/memory/entities", &body).expect(201);
    let made = || {
        ["graph/graph.db", "graph/graph.db-wal"].iter().any(|name| {
            let bytes = fs::read(program.data().join(name)).unwrap_or_default();
            bytes.windows(12).any(|bytes| bytes == b"sqlite_stat1")
        })
    };
    assert!(!made(), "nothing was refreshed so far");
    let started = Instant::now();
    while !made() {
        assert!(started.elapsed() < Duration::from_mins(1), "no statistics");
        std::thread::yield_now();
    }
}

#[test]
fn the_report_says_which_allocator_the_program_has() {
    let usual = Program::start("");
    let has = usual.report.lines().find_map(|line| line.trim().strip_prefix("allocator ")).unwrap().trim();
    for name in ["mimalloc", "jemalloc", "system"] {
        let program = Program::start(&format!("memory_allocation: {{allocator: {name}}}"));
        let told = program.told_of_no_effect("memory_allocation.allocator");
        assert_eq!(told, name != has, "{name}");
    }
}
