//! Benchmarks as they are typed: small runs against servers of their own, what they leave behind, and what is refused.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::slice;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cli::{check, check_failure};
use super::program::{Program, caxton};
use super::server::Server;

/// Flags of a run that keeps its folder and its results in `dir`.
fn places(dir: &Path) -> Vec<String> {
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let flags = [
        "--dir",
        &path(""),
        "--output",
        &path("results.json"),
        "--html",
        &path("page.html"),
        "--no-progress",
    ];
    flags.map(str::to_owned).to_vec()
}

/// Runs a benchmark without a model and answers its results.
#[track_caller]
fn measured(args: &[&str], shown: &[&str]) -> Value {
    let dir = TempDir::new().unwrap();
    let places = places(dir.path());
    let all: Vec<&str> = ["--keyword-only", "benchmark"]
        .into_iter()
        .chain(args.iter().copied())
        .chain(places.iter().map(String::as_str))
        .collect();
    check(&all, shown);
    let page = fs::read_to_string(dir.path().join("page.html")).unwrap();
    assert!(page.contains("<svg") && page.ends_with("</html>\n"), "{page}");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the server's folder is removed: {left:?}");
    serde_json::from_slice(&fs::read(dir.path().join("results.json")).unwrap()).unwrap()
}

fn part<'a>(results: &'a Value, name: &str) -> &'a Value {
    let parts = results["parts"].as_array().unwrap();
    parts.iter().find(|part| part["name"] == name).unwrap_or_else(|| panic!("no {name} in {results}"))
}

fn figure<'a>(results: &'a Value, name: &str) -> &'a Value {
    let figures = results["figures"].as_array().unwrap();
    figures.iter().find(|figure| figure["name"] == name).unwrap_or_else(|| panic!("no {name} in {results}"))
}

#[track_caller]
fn check_done(results: &Value, name: &str, done: u64) {
    let part = part(results, name);
    assert_eq!((part["done"].as_u64(), &part["failed"]), (Some(done), &json!({})), "{name}");
    let latency = &part["latency"];
    let at = |which: &str| latency[which].as_f64().unwrap();
    assert!(at("p50") > 0.0 && at("p50") <= at("p99") && at("p99") <= at("max"), "{latency}");
    let counted: u64 =
        part["histogram"].as_array().unwrap().iter().map(|step| step[1].as_u64().unwrap()).sum();
    assert!(counted > 0 && counted <= done, "{counted} of {done}");
}

#[test]
fn a_memory_is_written_and_asked() {
    let results = measured(
        &["memory", "--entities", "600", "--relations", "300", "--search-queries", "40"],
        // A switch is told as it is typed.
        &["keyword search p99", "entities rate", "critical", "--ramp-up 0s --keyword-only\n"],
    );
    check_done(&results, "entities", 600);
    check_done(&results, "relations", 300);
    check_done(&results, "keyword search", 40);
    check_done(&results, "graph walk", 40);
    assert!(figure(&results, "resident memory")["value"].as_f64().unwrap() > 1.0);
    assert!(figure(&results, "data directory")["value"].as_f64().unwrap() > 0.1);
    assert_eq!(figure(&results, "keyword search p50")["target"]["target"], 10.0);
}

#[test]
fn what_a_key_changes_is_found_out_in_turns() {
    let dir = TempDir::new().unwrap();
    let parent = dir.path().to_str().unwrap();
    let found = super::cli::json(&[
        "--json",
        "--keyword-only",
        "benchmark",
        "effect",
        "memory.sqlite_config.page_size=65536",
        "--rounds",
        "2",
        "--",
        "memory",
        "--entities",
        "60",
        "--relations",
        "30",
        "--search-queries",
        "5",
        "--dir",
        parent,
    ]);
    let key = json!([{ "name": "memory.sqlite_config.page_size", "is": 4096, "set": 65536 }]);
    assert_eq!((&found["keys"], &found["rounds"], &found["left_out"]), (&key, &json!(2), &json!([])));
    let changes = found["changes"].as_array().unwrap();
    // Each table and each index has a page of its own.
    let disk = changes.iter().find(|change| change["name"] == "data directory").unwrap();
    assert_eq!((&disk["verdict"], &disk["values"]), (&json!("regression"), &json!([2, 2])), "{disk}");
    assert!(changes.iter().any(|change| change["name"] == "keyword search p50"), "{found}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the servers' folders are removed");
}

#[test]
fn a_key_that_cannot_be_measured_is_refused_before_anything_is() {
    for (set, says) in [
        ("memory.sqlite_config.page_siz=512", "did you mean memory.sqlite_config.page_size?"),
        ("memory.sqlite_config.page_size=513", "a power of two"),
        ("memory.sqlite_config.page_size=4096", "is 4096 already; give another value"),
        ("server.port=8080", "server.port"),
    ] {
        check_failure(&["--keyword-only", "benchmark", "effect", set, "--", "memory"], 2, says);
    }
}

#[test]
fn agents_from_files_answer_at_a_rate() {
    let results = measured(
        &[
            "agents",
            "--agents",
            "3",
            "--conversations-per-second",
            "20",
            "--duration",
            "2s",
            "--connections",
            "8",
        ],
        &["conversation p50"],
    );
    check_done(&results, "conversation", 40);
    assert_eq!(part(&results, "conversation")["offered_per_second"], 20.0);
}

#[test]
fn the_store_is_written_and_read_side_by_side() {
    let results = measured(
        &[
            "storage",
            "--write-ops-per-second",
            "40",
            "--read-ops-per-second",
            "90",
            "--duration",
            "3s",
            "--ramp-up",
            "1s",
            "--intervals",
        ],
        &["write p99", "read p99", "p99.9 ms", "0 ramp-up"],
    );
    // Half as many in the second in which the rate grows.
    check_done(&results, "write", 100);
    check_done(&results, "read", 225);
    assert!(results["settings"].as_array().unwrap().contains(&json!({"flag": "ramp-up", "value": "1s"})));
    let read = part(&results, "read");
    assert_eq!(read["ramp_up_seconds"], 1.0);
    let stretches = read["intervals"].as_array().unwrap();
    assert!(stretches.len() >= 3, "{stretches:?}");
    let shares = ["p50", "p90", "p95", "p99", "p999", "max"];
    for stretch in stretches {
        let told: Vec<f64> = shares.iter().map(|share| stretch[share].as_f64().unwrap()).collect();
        assert!(told.is_sorted(), "{stretch}");
    }
    let done: u64 = stretches.iter().map(|stretch| stretch["done"].as_u64().unwrap()).sum();
    assert_eq!(done, 225);
}

#[test]
fn a_system_comes_back_after_a_kill() {
    let args = "system --agents 5 --memory-entities 300 --concurrent-conversations 4 --duration 1s --rate 50";
    let results = measured(
        &args.split(' ').collect::<Vec<_>>(),
        &[
            "recovery after a kill",
            "messages in batches rate",
            "--concurrent-conversations 4 --duration 1s --rate 50 ",
        ],
    );
    check_done(&results, "agent spawn", 5);
    check_done(&results, "message", 50);
    assert!(part(&results, "messages in batches")["done"].as_u64().unwrap() >= 100);
    assert!(figure(&results, "recovery after a kill")["value"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_scenario_is_judged_by_what_came_through() {
    let results =
        measured(&["scenario", "peak", "--duration", "300ms", "--batch", "100"], &["message success"]);
    let part = part(&results, "message");
    let failed: u64 = part["failed"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(part["done"].as_u64().unwrap() + failed, 30_000, "each message once");
    assert_eq!(figure(&results, "message success")["unit"], "%");
}

#[test]
fn a_running_server_is_measured_where_it_is() {
    let server = Server::start();
    let url = format!("http://{}", server.address);
    let dir = TempDir::new().unwrap();
    let output = dir.path().join("results.json");
    let measure = || {
        let args = "benchmark memory --entities 20 --relations 0 --search-queries 5 --no-progress --target";
        let args: Vec<&str> =
            args.split(' ').chain([&*url, "--force", "--output", output.to_str().unwrap()]).collect();
        check(&args, &["keyword search", "what this run leaves on the server has r"]);
    };
    measure();
    let results: Value = serde_json::from_slice(&fs::read(&output).unwrap()).unwrap();
    assert_eq!(results["target"], url);
    assert_eq!(server.get("/memory/entities?agent_id=benchmark&limit=100").expect(200).json()["count"], 20);
    let figures = results["figures"].as_array().unwrap();
    assert!(figures.iter().all(|figure| figure["name"] != "resident memory"), "nobody can tell from outside");
    measure();
    let count = &server.get("/memory/entities?agent_id=benchmark&limit=100").expect(200).json()["count"];
    assert_eq!(count, 40, "the second run writes as much as the first");
}

#[test]
fn a_second_run_on_a_server_registers_and_opens_as_much_as_the_first() {
    let server = Server::start();
    let url = format!("http://{}", server.address);
    let args = "benchmark system --agents 3 --memory-entities 0 --concurrent-conversations 2 --duration 100ms --rate 20";
    let args: Vec<&str> = args.split(' ').chain(["--no-progress", "--target", &url]).collect();
    for run in 1..=2 {
        check(&args, &["agent spawn"]);
        let count = |what: &str| {
            let rows = server.get(&format!("/{what}?limit=100")).expect(200).json();
            rows[what].as_array().unwrap().len()
        };
        assert_eq!((count("agents"), count("conversations")), (3 * run, 2 * run));
    }
}

/// A server whose agents answer by rules, without a model.
fn answering() -> Program {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("agents")).unwrap();
    let rules = "model: rules\nrules:\n  - when: {system_contains: You are measured}\n    answer: heard\n";
    fs::write(dir.path().join("rules.yaml"), rules).unwrap();
    let config = "{agents: {directory: DIR/agents}, llm: {default: rules, providers: [{name: rules, kind: scripted, \
                  script: DIR/rules.yaml}]}}";
    Program::again(dir, config)
}

/// `benchmark agents` on a server that runs already, for so long.
fn agents_there(server: &Program, duration: &str) -> Vec<String> {
    let args = format!(
        "benchmark agents --agents 2 --conversations-per-second 20 --connections 4 --no-progress --duration {duration} --target \
         http://{}",
        server.address
    );
    args.split(' ').map(str::to_owned).collect()
}

fn agents_of(server: &Program) -> Value {
    server.get("/config-agents").expect(200).json()["total"].clone()
}

#[test]
fn agents_that_were_made_on_a_running_server_are_removed() {
    let server = answering();
    let args = agents_there(&server, "1s");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = super::cli::run(&args);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !told.contains("not removed"), "{told}");
    assert_eq!(agents_of(&server), 0, "also with conversations that are open");
}

#[test]
fn agents_that_were_made_on_a_running_server_are_removed_when_it_is_interrupted() {
    let server = answering();
    let mut run = caxton()
        .args(agents_there(&server, "10m"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Until somebody talks to them.
    while server.get("/conversations").expect(200).json()["conversations"] == json!([]) {
        assert_eq!(run.try_wait().unwrap(), None);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(agents_of(&server), 2);
    super::cli::terminate(run.id());
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert_eq!(agents_of(&server), 0);
}

/// Writes the results of a run with these figures; answers where.
fn written(dir: &Path, name: &str, figures: &[(&str, f64)]) -> String {
    let figure =
        |(name, value): &(&str, f64)| json!({"name": name, "value": value, "unit": "ms", "better": "lower"});
    let results = json!({
        "format": 1, "benchmark": "memory", "settings": [], "target": null, "version": "0",
        "started_at": "2026-01-01T00:00:00Z", "parts": [],
        "machine": {"processor": "p", "cores": 2, "memory_bytes": 1, "system": "s"},
        "figures": figures.iter().map(figure).collect::<Vec<_>>(),
    });
    let path = dir.join(name);
    fs::write(&path, results.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_figure_that_the_current_run_lacks_ends_with_1() {
    let dir = TempDir::new().unwrap();
    let (search, walk) = (("search p99", 10.0), ("graph walk p99", 1.0));
    let both = written(dir.path(), "both.json", &[search, walk]);
    let one = written(dir.path(), "one.json", &[search]);
    let lacks = ["benchmark", "compare", &both, &one];
    check_failure(&lacks, 1, "1 of the base are not in the current run: graph walk p99;");
    check(
        &[&lacks[..], &["--allow-missing"]].concat(),
        &["only the base has graph walk p99", "no regression"],
    );
    check(&["benchmark", "compare", &one, &both], &["only the current run has graph walk p99"]);
}

#[test]
fn two_runs_are_compared_and_what_became_worse_ends_with_1() {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, p99: f64| written(dir.path(), name, &[("search p99", p99)]);
    let (base, worse, better) =
        (write("base.json", 10.0), write("worse.json", 12.0), write("better.json", 8.0));
    check(
        &["benchmark", "compare", &base, &better],
        &["verdict\n", "-20.0 %", "improvement", "no regression"],
    );
    check_failure(&["benchmark", "compare", &base, &worse], 1, "1 became worse: search p99");
    let note = dir.path().join("note.md");
    check(
        &["benchmark", "compare", &base, &worse, "--threshold", "0.3", "--markdown", note.to_str().unwrap()],
        &["no regression beyond 30 %"],
    );
    assert!(fs::read_to_string(&note).unwrap().contains("| search p99 | 10.000 ms | 12.000 ms | +20.0 % |"));
    let again = ["benchmark", "compare", &base, &better, "--report", note.to_str().unwrap()];
    check_failure(&again, 2, "note.md is there already; name another place, or replace it with --force");
    assert!(fs::read_to_string(&note).unwrap().contains("+20.0 %"));
    check(&[&again[..], &["--force"]].concat(), &["no regression"]);
    assert!(fs::read_to_string(&note).unwrap().contains("-20.0 %"));
    // What standard output leads to has both, one behind the other, and what was there before.
    let shown = dir.path().join("shown.txt");
    fs::write(&shown, "before\n").unwrap();
    let file = fs::OpenOptions::new().append(true).open(&shown).unwrap();
    let to_output = ["benchmark", "compare", &base, &better, "--report", "/dev/stdout"];
    assert!(caxton().args(to_output).stdout(file).status().unwrap().success());
    let shown = fs::read_to_string(&shown).unwrap();
    let [report, table] = ["| search p99 | 10.000 ms |", "no regression beyond"].map(|text| shown.find(text));
    assert!(shown.starts_with("before\n") && report.is_some() && report < table, "{shown}");
    fs::write(dir.path().join("cut.json"), "{\"format\": 1, \"bench").unwrap();
    fs::write(dir.path().join("new.json"), "{\"format\": 2}").unwrap();
    fs::write(dir.path().join("empty.json"), "").unwrap();
    let other = fs::read_to_string(&base).unwrap().replace("\"memory\"", "\"system\"");
    fs::write(dir.path().join("other.json"), other).unwrap();
    let foreign = fs::read_to_string(&base).unwrap().replace("search p99", "write p99");
    fs::write(dir.path().join("foreign.json"), foreign).unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for (file, what) in [
        ("none.json", "could not read"),
        ("cut.json", "is no results file of a benchmark (line 1"),
        ("new.json", "has format 2, this program reads up to 1"),
        ("empty.json", "empty.json is empty; run the benchmark again"),
        ("foreign.json", "no figure is in both runs, so nothing was compared: the base has search p99"),
        (
            "other.json",
            "a run of \"memory\", the current one of \"system\"; compare two runs of the same benchmark",
        ),
    ] {
        check_failure(&["benchmark", "compare", &base, &path(file)], 2, what);
    }
}

/// Runs criterion over operations that take so many nanoseconds, by their own word, and keeps that under a name.
fn kept(dir: &Path, baseline: &str, nanos: u64) {
    let mut criterion = Criterion::default()
        .output_directory(dir)
        .save_baseline(baseline.to_owned())
        .sample_size(10)
        .warm_up_time(Duration::from_nanos(1))
        .measurement_time(Duration::from_millis(1))
        .nresamples(1_001)
        .without_plots();
    let mut group = criterion.benchmark_group("spin");
    group.throughput(Throughput::Elements(64));
    let id = BenchmarkId::new("rounds", 64);
    group.bench_function(id, |bencher| bencher.iter_custom(|times| Duration::from_nanos(times * nanos)));
    group.finish();
}

#[test]
fn baselines_that_criterion_kept_are_compared() {
    let dir = TempDir::new().unwrap();
    kept(dir.path(), "main", 2_000);
    kept(dir.path(), "again", 2_100);
    kept(dir.path(), "slow", 2_600);
    let place = |name: &str| format!("{}:{name}", dir.path().display());
    let (main, again, slow) = (place("main"), place("again"), place("slow"));
    check(&["benchmark", "compare", &main, &again], &["spin/rounds/64", "2.000", "+5.0 %", "no regression"]);
    check(&["benchmark", "compare", &slow, &main], &["improvement"]);
    check_failure(&["benchmark", "compare", &main, &slow], 1, "1 became worse: spin/rounds/64");
    // The last run is what the folder itself stands for; rounds are one run.
    check_failure(&["benchmark", "compare", &main, dir.path().to_str().unwrap()], 1, "spin/rounds/64");
    let note = dir.path().join("note.md");
    let rounds = place("main,again");
    check(
        &["benchmark", "compare", &rounds, &slow, "--threshold", "0.5", "--report", note.to_str().unwrap()],
        &["2.050"],
    );
    let note = fs::read_to_string(note).unwrap();
    assert!(note.contains("| spin/rounds/64 | 2.050 µs | 2.600 µs | +26.8 % |"), "{note}");
    check_failure(&["benchmark", "compare", &main, &place("head")], 2, "only again, main, new, slow");
}

#[test]
fn what_cannot_be_measured_is_refused_by_name() {
    for (args, what) in [
        ("memory --entities 0", "--entities"),
        ("memory --duration 0s", "must be longer than nothing"),
        ("memory --duration soon", "write it as in 300s"),
        ("storage --write-ops-per-second -1", "must be a number from 0 to 10000000"),
        ("storage --read-ops-per-second many", "must be a number from 0 to 10000000"),
        (
            "agents --conversations-per-second 0",
            "'--conversations-per-second <RATE>': must be a number above 0",
        ),
        (
            "agents --conversations-per-second 0.01 --duration 1s",
            "asks nothing; give a higher rate or a longer",
        ),
        ("memory --target http://127.0.0.1:9/api/v1", "leave it out: http://127.0.0.1:9"),
        ("scenario storm", "possible values: peak, sustained, burst"),
        ("compare a b --threshold x", "must be a share from 0 to less than 1"),
        ("compare a b --threshold 1", "no rate falls by more than all of it"),
        ("storage --duration 18446744073709551615s", "'--duration <TIME>': must be 30 days at the most"),
        ("system --find-limits --ramp-up 31d", "'--ramp-up <TIME>': must be 30 days at the most"),
        ("scenario burst --duration 24s", "too short for a burst"),
        ("scenario burst --duration 601s", "is told by the second; give 10m or less"),
        ("memory --output same --html same", "--output and --html both name same; name two files"),
        ("memory --connections 0", "--connections"),
        ("memory --ramp-up 1s", "--ramp-up has no effect here"),
        ("embeddings --connections 2", "--connections has no effect here: --parallel-threads"),
        ("memory --url http://127.0.0.1:9", "give --target http://127.0.0.1:9 to measure that one"),
        ("memory --dir /tmp --target http://127.0.0.1:9", "--dir /tmp is where a server is started"),
    ] {
        let args: Vec<&str> = std::iter::once("benchmark").chain(args.split(' ')).collect();
        check_failure(&args, 2, what);
    }
    let nowhere = ["--keyword-only", "benchmark", "memory", "--dir", "/nowhere/at/all"];
    check_failure(&nowhere, 3, "/nowhere/at/all");
    let unwritable = ["--keyword-only", "benchmark", "memory", "--output", "/nowhere/results.json"];
    check_failure(&unwritable, 3, "/nowhere/results.json");
    check_failure(&["benchmark", "memory", "--target", "http://127.0.0.1:9"], 4, "is it running?");
    check_failure(&["benchmark", "memory", "--target", "foo"], 2, "write http://HOST:PORT");
}

#[test]
fn a_server_that_the_environment_names_is_not_measured_unasked() {
    let server = Server::start();
    let args = "--keyword-only benchmark memory --entities 20 --relations 0 --search-queries 5 --no-progress";
    let mut command = super::cli::caxton(&args.split(' ').collect::<Vec<_>>());
    let output = command.env("CAXTON_URL", format!("http://{}", server.address)).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("unset CAXTON_URL"), "{told}");
    assert_eq!(server.get("/memory/entities?agent_id=benchmark").expect(200).json()["count"], 0);
}

#[test]
fn the_own_server_is_asked_with_the_key_that_its_configuration_names() {
    let dir = TempDir::new().unwrap();
    let (keys, config) = (dir.path().join("keys"), dir.path().join("caxton.yaml"));
    let made = super::cli::json(&["--json", "key", "create", "ada", "--keys-file", keys.to_str().unwrap()]);
    fs::write(&config, format!("auth: {{keys_file: '{}'}}", keys.display())).unwrap();
    let args = "--keyword-only benchmark memory --entities 20 --relations 0 --search-queries 5 --no-progress --config";
    let args: Vec<&str> = args.split(' ').chain([config.to_str().unwrap()]).collect();
    check_failure(&args, 5, "give a key that its configuration names with --api-key");
    check(&[&args[..], &["--api-key", made["key"].as_str().unwrap()]].concat(), &["keyword search p99"]);
}

#[test]
fn a_benchmark_that_is_interrupted_leaves_nothing() {
    let (dir, results) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let old = results.path().join("old.json");
    fs::write(&old, "old").unwrap();
    let (mut run, _) = serving(dir.path(), &old, &results.path().join("new.html"));
    super::cli::terminate(run.id());
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert_eq!(in_folder(dir.path()), Vec::<PathBuf>::new());
    assert_eq!(
        in_folder(results.path()),
        slice::from_ref(&old),
        "nothing is begun before there is something"
    );
    assert_eq!(fs::read_to_string(&old).unwrap(), "old");
}

#[test]
fn the_server_of_a_benchmark_that_is_killed_ends() {
    let (dir, results) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let file = |name: &str| results.path().join(name);
    let (mut run, address) = serving(dir.path(), &file("new.json"), &file("new.html"));
    assert!(TcpStream::connect(&address).is_ok());
    run.kill().unwrap();
    run.wait().unwrap();
    while TcpStream::connect(&address).is_ok() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(in_folder(results.path()), Vec::<PathBuf>::new());
}

/// What is in a folder.
fn in_folder(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// A benchmark that writes a memory, and the address of its server, which has its folder in `dir`.
fn serving(dir: &Path, output: &Path, html: &Path) -> (Child, String) {
    let mut run = caxton()
        .args(["--keyword-only", "benchmark", "memory", "--entities", "100000", "--no-progress", "--force"])
        .arg("--dir")
        .arg(dir)
        .arg("--output")
        .arg(output)
        .arg("--html")
        .arg(html)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    loop {
        let endpoints =
            in_folder(dir).into_iter().map(|folder| fs::read_to_string(folder.join("data/endpoint")));
        if let Some(address) =
            endpoints.flatten().find_map(|url| Some(url.trim().strip_prefix("http://")?.to_owned()))
        {
            return (run, address);
        }
        assert_eq!(run.try_wait().unwrap(), None);
        std::thread::sleep(Duration::from_millis(5));
    }
}
