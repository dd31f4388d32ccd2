//! The command line as a person meets it: the real program, its tables, its JSON, its exit codes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use caxton_events::log::open::lock;
use serde_json::Value;

use super::server::Server;

/// The program, deaf to the environment of whoever runs the tests.
pub(crate) fn caxton(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caxton"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CAXTON_") {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

#[track_caller]
pub(crate) fn run(args: &[&str]) -> Output {
    caxton(args).output().unwrap()
}

/// This goes well, and prints that.
#[track_caller]
pub(crate) fn check(args: &[&str], prints: &[&str]) {
    let output = run(args);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{args:?}: {out}{err}");
    for text in prints {
        assert!(out.contains(text), "{args:?} should print {text:?}, but: {out}");
    }
}

/// This fails with this exit code, and says that on standard error.
#[track_caller]
pub(crate) fn check_failure(args: &[&str], code: i32, says: &str) {
    let output = run(args);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {err}");
    assert!(err.contains(says), "{args:?} should say {says:?}, but: {err}");
}

#[track_caller]
pub(crate) fn json(args: &[&str]) -> Value {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The quick start, on whatever `place` names: a server or a directory.
fn quick_start(place: &[&str]) {
    let with = |args: &[&'static str]| [args, place].concat();
    let add = with(&["memory", "add", "gnuplot", "--type", "program", "Draws plots from the command line"]);
    check(&add, &["created gnuplot", "1 observation,"]);
    check(&with(&["memory", "add", "plotutils", "Converts vector graphics"]), &["created plotutils"]);
    check(&with(&["memory", "relate", "gnuplot", "resembles", "plotutils"]), &["-[resembles]-> plotutils"]);
    check(&with(&["memory", "search", "draws", "plots"]), &["gnuplot", "keyword", "1 hit in"]);
    check(&with(&["memory", "graph", "gnuplot"]), &["resembles", "2 things, 1 relation"]);
    check(&with(&["memory", "stats"]), &["total entities", "2"]);
    check(
        &with(&["log", "tail", "-n", "1", "--kind", "memory.relation_created"]),
        &["relation_type=resembles"],
    );
    let found = json(&with(&["--json", "memory", "search", "plots"]));
    assert_eq!(found["results"][0]["entity_name"], "gnuplot");
    check_failure(&with(&["memory", "graph", "nobody"]), 3, "ENTITY_NOT_FOUND");
    check_failure(&with(&["memory", "add", "", "x"]), 5, "remedy: ");
}

#[test]
fn what_is_told_has_its_own_time_and_a_thing_is_known_for_other_times_too() {
    let dir = tempfile::tempdir().unwrap();
    let place = ["--keyword-only", "--data-dir", dir.path().to_str().unwrap()];
    let with = |args: &[&'static str]| [args, &place[..]].concat();
    let cook =
        ["memory", "add", "job", "was a cook", "--valid-from", "2020-01-01", "--valid-to", "2022-01-01"];
    check(&with(&cook), &["created job"]);
    check(&with(&["memory", "add", "job", "is a baker", "--valid-from", "2022-01-01"]), &["updated job"]);
    check(&with(&["memory", "search", "baker"]), &["job", "is a baker", "1 hit in"]);
    check(&with(&["memory", "search", "cook"]), &["0 hits"]);
    check(&with(&["memory", "add", "ghost", "is to come", "--valid-from", "2999-01-01"]), &["created ghost"]);
    check(&with(&["memory", "search", "come"]), &["0 hits"]);
}

#[test]
fn the_quick_start_works_with_a_server() {
    let server = Server::start();
    quick_start(&["--url", &format!("http://{}", server.address)]);
}

#[test]
fn the_quick_start_works_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let place = ["--keyword-only", "--data-dir", dir.path().to_str().unwrap()];
    quick_start(&place);
    check(&[&["log", "verify"][..], &place].concat(), &["are as written", "root "]);
    check(&[&["projection", "check"][..], &place].concat(), &["equals its rebuild"]);
    check(&[&["status"][..], &place].concat(), &["no server runs on", "head #"]);
    let head = json(&[&["--json", "log", "head", "--kinds"][..], &place].concat());
    assert_eq!(head["kinds"]["memory.relation_created"], 1);
}

#[test]
fn an_export_reads_back_and_wrong_lines_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (one, two, file) = (path("one"), path("two"), path("memory.jsonl"));
    let from = ["--keyword-only", "--data-dir", &one];
    let to = ["--keyword-only", "--data-dir", &two];
    check(&[&["memory", "add", "a", "about a"][..], &from].concat(), &[]);
    check(&[&["memory", "add", "b", "about b"][..], &from].concat(), &[]);
    check(&[&["memory", "relate", "a", "knows", "b"][..], &from].concat(), &[]);
    let export = [&["memory", "export", "--out", &file][..], &from].concat();
    check(&export, &["wrote"]);
    check_failure(&export, 2, "is there already; name another place, or replace it with --force");
    check(&[&export[..], &["--force"]].concat(), &["wrote"]);
    check(
        &[&["memory", "import", &file][..], &to].concat(),
        &["entities imported 2", "relations imported 1"],
    );
    let whole = fs::read_to_string(&file).unwrap();
    // What was cut is refused before anything of it is written, although each line is a request of its own.
    let three = path("three");
    let nowhere = ["--keyword-only", "--data-dir", &three];
    let rows: Vec<&str> = whole.lines().collect();
    let half = &rows[3][..rows[3].len() / 2];
    let cuts = [
        (rows[..3].join("\n") + "\n", "cut short after 2 rows"),
        (format!("{}\n{half}", rows[..3].join("\n")), "line 4, its last one, ends in the middle"),
        (format!("{}\n{half}", rows[1..3].join("\n")), "line 3, its last one, ends in the middle"),
        ([&rows[..2], &rows[3..]].concat().join("\n"), "it holds 2 rows, its last line counts 3"),
    ];
    for (text, told) in cuts {
        fs::write(&file, text).unwrap();
        let output = run(&[&["memory", "import", "--chunk", "1", &file][..], &nowhere].concat());
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.contains(told) && err.contains("nothing was written"), "{err}");
    }
    // The same comes through a pipe, which can be read once only.
    let piped = |text: &str| {
        fs::write(&file, text).unwrap();
        let args = [&["memory", "import", "-"][..], &nowhere].concat();
        let output = caxton(&args).stdin(fs::File::open(&file).unwrap()).output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(told).unwrap())
    };
    let (code, told) = piped(&whole[..whole.len() / 2]);
    assert!(code == Some(1) && told.contains("nothing was written"), "{told}");
    let stats = json(&[&["--json", "memory", "stats"][..], &nowhere].concat());
    assert_eq!(stats["global_stats"]["total_entities"], 0, "{stats}");
    let (code, told) = piped(&whole);
    assert!(code == Some(0) && told.contains("entities imported 2, relations imported 1"), "{told}");
    let wrong =
        "{\"entity_name\": \"c\", \"entity_type\": \"t\", \"observations\": []}\n\n{\"entity_name\": 3}\n";
    fs::write(&file, wrong).unwrap();
    let output = run(&[&["memory", "import", &file][..], &to].concat());
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stdout).contains("line 3: "), "{output:?}");
}

#[test]
fn an_import_of_nothing_is_not_one_that_went_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (file, data, other) = (path("memory.jsonl"), path("data"), path("other"));
    let place = ["--keyword-only", "--data-dir", &data];
    for text in ["", "\n \n"] {
        fs::write(&file, text).unwrap();
        for import in [&["memory", "import", &file][..], &["memory", "import", "--format", "mcp", &file]] {
            check_failure(&[import, &place].concat(), 1, "memory.jsonl holds nothing to import");
        }
        let piped = [&["memory", "import", "-"][..], &place].concat();
        let output = caxton(&piped).stdin(fs::File::open(&file).unwrap()).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.contains("the input is empty: standard input holds nothing"), "{err}");
        check_failure(&["import", "events", &file, "--to", &other], 5, "the input is empty: ");
        assert!(!Path::new(&other).exists());
    }
    // An export of an empty memory has lines, and no row between them.
    check(&[&["memory", "export", "--force", "--out", &file][..], &place].concat(), &["wrote"]);
    check(&[&["memory", "import", &file][..], &place].concat(), &["0 requests"]);
}

#[test]
fn exit_codes_say_what_went_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.yaml");
    fs::write(&file, "server:\n  prot: 1\n").unwrap();
    let (file, dir) = (file.to_str().unwrap(), dir.path().to_str().unwrap());
    check_failure(&["memory"], 2, "Usage");
    check_failure(&["serve", "--config", file, "--data-dir", dir], 2, "did you mean");
    check_failure(&["serve", "--config", "/nowhere.yaml"], 2, "could not read the file");
    check_failure(&["serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", dir], 2, "caxton key create");
    check_failure(&["memory", "stats", "--url", "http://127.0.0.1:1"], 4, "is it running?");
    check_failure(&["memory", "stats", "--url", "nonsense"], 2, "http://HOST:PORT");
    check_failure(&["log", "verify", "--data-dir", "/nowhere/at/all"], 3, "no data directory");
    check_failure(&["memory", "search", "x", "--data-dir", "/nowhere/at/all"], 3, "no data directory");
    check_failure(&["memory", "add", "a", "b", "--metadata", "[1]", "--data-dir", dir], 2, "JSON object");
    check_failure(&["corpus", "debian", "--from", "/dev/null"], 3, "no package descriptions");
    check_failure(&["embed", " "], 2, "the text is empty");
    check_failure(&["key", "create", "a b"], 2, "no name for a key");
}

#[test]
fn a_file_in_place_of_the_data_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.redb");
    fs::write(&file, "something").unwrap();
    let file = file.to_str().unwrap();
    let inside = format!("{file}/data");
    let commands = [
        &["serve", "--port", "0", "--metrics-port", "off"][..],
        &["memory", "stats"],
        &["memory", "add", "a", "b"],
        &["log", "verify"],
        &["log", "salvage", "--to", "/nowhere"],
        &["status"],
    ];
    for place in [file, &inside] {
        let told = format!("the data directory cannot be {place}: {file} is a file, not a folder; name the");
        for command in commands {
            check_failure(&[command, &["--data-dir", place, "--keyword-only"]].concat(), 2, &told);
        }
    }
    let config = dir.path().join("caxton.yaml");
    fs::write(&config, format!("server:\n  data_dir: {file}\n")).unwrap();
    check_failure(&["memory", "stats", "--config", config.to_str().unwrap()], 2, "is a file, not a folder");
}

#[test]
fn an_endpoint_file_that_names_no_server_is_none_unless_somebody_writes_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = dir.path().join("endpoint");
    let place = ["--keyword-only", "--data-dir", dir.path().to_str().unwrap()];
    check(&[&["memory", "add", "a", "b"][..], &place].concat(), &["created a"]);
    for (holds, told) in [
        (&b""[..], "is empty"),
        (b" \n", "is empty"),
        (b"not an address\n", "holds \"not an address\""),
        (b"\xff\xfe", "holds "),
        (b"ftp://127.0.0.1:8080\n", "holds \"ftp://127.0.0.1:8080\""),
    ] {
        fs::write(&endpoint, holds).unwrap();
        // As after a power cut: the lock says that no server runs.
        check(&[&["memory", "stats"][..], &place].concat(), &[]);
        check(&[&["status"][..], &place].concat(), &["no server runs on"]);
        let _held = lock(dir.path()).unwrap();
        // Who had the directory alone removed what it was.
        fs::write(&endpoint, holds).unwrap();
        let told = format!("{} {told}", endpoint.display());
        for command in [&["memory", "stats"][..], &["memory", "add", "a", "b"], &["log", "verify"]] {
            check_failure(&[command, &place].concat(), 4, &told);
        }
        check_failure(&[&["status"][..], &place].concat(), 4, "has the directory open; name the server with");
    }
}

#[test]
fn a_folder_named_for_the_model_is_taken_at_its_word() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().to_str().unwrap();
    let says = "looked for config.json, tokenizer.json, model.safetensors in";
    check_failure(&["embed", "--model-path", empty, "text"], 3, says);
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    check_failure(
        &["serve", "--port", "0", "--metrics-port", "off", "--data-dir", data, "--model-path", empty],
        3,
        says,
    );
    let left =
        fs::read_dir(empty).unwrap().map(|entry| entry.unwrap().file_name()).filter(|name| name != "data");
    assert_eq!(left.count(), 0, "something was put there");
}

#[test]
fn a_model_file_that_is_not_what_it_should_be_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: u64| {
        fs::File::create(dir.path().join(name)).unwrap().set_len(bytes).unwrap();
    };
    // Of the right size, and full of zeros.
    file("config.json", 612);
    file("tokenizer.json", 466_247);
    file("model.safetensors", 90_868_376);
    let path = dir.path().to_str().unwrap();
    let data = dir.path().join("data");
    let serve = ["serve", "--port", "0", "--metrics-port", "off", "--model-path", path];
    let serve = [&serve[..], &["--data-dir", data.to_str().unwrap()]].concat();
    check_failure(&serve, 1, "the model all-MiniLM-L6-v2 is damaged");
    check_failure(&serve, 1, "config.json");
    file("model.safetensors", 1_000);
    check_failure(&serve, 1, "model.safetensors");
}

#[test]
fn shells_get_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        check(&["completions", shell], &["caxton", "memory", "keyword-only"]);
    }
}

#[test]
fn a_configuration_is_checked_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("caxton.yaml");
    fs::write(&file, "server:\n  port: 9999\n").unwrap();
    let file = file.to_str().unwrap();
    check(&["config", "check", file], &["can be used"]);
    check(&["config", "show", "--config", file], &["9999"]);
    fs::write(file, "server:\n  port: many\n").unwrap();
    let output = run(&["config", "check", file]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stdout).contains(":2:"), "{output:?}");
}

#[test]
fn a_configuration_whose_paths_lead_nowhere_from_here_is_told() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join("docs/examples/caxton.yaml");
    let elsewhere = tempfile::tempdir().unwrap();
    let checked = |from: &Path| {
        let output = caxton(&["config", "check", file.to_str().unwrap()]).current_dir(from).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, told) = checked(root);
    assert!(code == Some(0) && !told.contains("warning"), "{told}");
    let (code, told) = checked(elsewhere.path());
    assert_eq!(code, Some(2), "a server does not start without its rules: {told}");
    for (key, path, here) in [
        ("agents.directory: there is no folder ", "docs/examples/agents", "(from here "),
        (
            "llm.providers: rules has no rules: could not read the rules in ",
            "docs/examples/rules.yaml",
            "from here it is ",
        ),
    ] {
        let Some(line) = told.lines().find(|line| line.contains(key)) else { panic!("no {key} in {told}") };
        assert!(line.contains(&format!("{key}{path}")), "{line}");
        assert_eq!(line.starts_with("warning: "), key.starts_with("agents"), "{line}");
        // The temporary folder may be named by another path here: by that of a link.
        let (_, here) = line.split_once(here).unwrap();
        assert!(here.starts_with('/') && here.contains(&format!("/{path}")), "{line}");
    }
}

#[test]
fn what_ends_a_server_at_its_start_is_a_fault_of_its_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (file, data, key) = (path("caxton.yaml"), path("data"), path("key"));
    fs::write(path("rules.yaml"), "rules: []\n").unwrap();
    fs::write(path("empty-keys"), "# nobody yet\n").unwrap();
    fs::write(&key, "sk-1\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let provider = |row: &str| format!("llm:\n  providers:\n  - {{name: a, {row}}}\n");
    let checked = |data: &str, text: &str| {
        fs::write(&file, format!("server:\n  data_dir: '{data}'\n{text}")).unwrap();
        let output = run(&["config", "check", &file]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let inside = format!("{key}/data");
    for (data, text) in [
        (&data, provider("kind: scripted, script: no/rules.yaml")),
        (&data, provider(&format!("kind: scripted, script: '{}'", path("rules.yaml")))),
        (&data, provider(&format!("api_key_file: '{key}'"))),
        (&data, format!("embedding_config:\n  model_path: '{}'\n", path("no-model"))),
        (&data, "http_server:\n  bind_address: 0.0.0.0:0\n".to_owned()),
        (&data, format!("auth:\n  keys_file: '{}'\n", path("no-keys"))),
        (&data, format!("auth:\n  keys_file: '{}'\n", path("empty-keys"))),
        (&inside, String::new()),
    ] {
        let (code, told) = checked(data, &text);
        assert_eq!(code, Some(2), "{text}: {told}");
        let served = run(&["serve", "--config", &file, "--port", "0", "--metrics-port", "off"]);
        assert!(!served.status.success(), "{text}");
        let err = String::from_utf8(served.stderr).unwrap();
        let Some(says) = err.lines().find_map(|line| line.strip_prefix("caxton: ")) else { panic!("{err}") };
        assert!(told.contains(says), "{text}: serve says {says:?}, the check {told}");
    }
    let agents = format!("embedding:\n  keyword_only: true\nagents:\n  directory: '{key}'\n");
    let (code, told) = checked(&data, &agents);
    let says = "could not open the agents directory";
    assert!(code == Some(2) && told.contains(says), "{told}");
    check_failure(&["serve", "--config", &file, "--port", "0", "--metrics-port", "off"], 1, says);
}

#[test]
fn a_key_of_a_provider_is_missed_and_not_repeated() {
    let checked = |row: &str| {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("caxton.yaml");
        fs::write(&file, format!("llm:\n  providers:\n  - {{name: a, {row}}}\n")).unwrap();
        let output = run(&["config", "check", file.to_str().unwrap()]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, told) = checked("api_key_file: sk-secret");
    assert!(code == Some(2) && told.contains("the file that its api_key_file names: "), "{told}");
    assert!(!told.contains("sk-secret"), "{told}");
    // The variable may be set where the server starts.
    let (code, told) = checked("api_key_env: NO_SUCH_KEY_ANYWHERE");
    let says = "a has no key: the variable NO_SUCH_KEY_ANYWHERE is not set; export it before";
    let Some(line) = told.lines().find(|line| line.contains(says)) else { panic!("{told}") };
    assert!(code == Some(0) && line.starts_with("warning: "), "{told}");
}

#[test]
fn what_an_mcp_server_lacks_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("caxton.yaml");
    let rows = "mcp_servers:\n- {name: a, command: python3 -m foo, env: [NO_SUCH_VARIABLE]}\n\
                - {name: b, url: 'http://127.0.0.1:1/mcp', token_variable: NO_SUCH_TOKEN}\n";
    fs::write(&file, rows).unwrap();
    let output = run(&["config", "check", file.to_str().unwrap()]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    for words in [
        "row 1: there is no program \"python3 -m foo\"",
        "row 1: the variable NO_SUCH_VARIABLE is not set",
        "row 2: the variable NO_SUCH_TOKEN is not set",
    ] {
        assert!(told.lines().any(|line| line.starts_with("warning: ") && line.contains(words)), "{told}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_fault() {
    let mut child =
        caxton(&["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 1];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_served_directory_is_found_and_left_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let place = ["--keyword-only", "--data-dir", dir.path().to_str().unwrap()];
    let mut server = caxton(&[&["serve", "--port", "0", "--metrics-port", "0"][..], &place].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The report's last line comes when the server is ready.
    let report = until(server.stdout.as_mut().unwrap(), "log        ");
    assert!(report.contains("whoever reaches the port"), "{report}");
    check(&[&["memory", "add", "a", "about a"][..], &place].concat(), &["created a"]);
    check(&[&["status"][..], &place].concat(), &["a server runs at http://127.0.0.1:"]);
    check_failure(&[&["log", "verify"][..], &place].concat(), 4, "stop it first");
    check_failure(
        &[&["serve", "--port", "0", "--metrics-port", "off"][..], &place].concat(),
        4,
        "in use by process",
    );
    assert!(dir.path().join("endpoint").exists());
    terminate(server.id());
    assert!(server.wait().unwrap().success());
    assert!(!dir.path().join("endpoint").exists());
    check(&[&["memory", "graph", "a"][..], &place].concat(), &["1 thing,"]);
}

#[test]
fn every_preset_starts() {
    for preset in ["throughput", "latency", "memory-optimised"] {
        let dir = tempfile::tempdir().unwrap();
        let place = ["--keyword-only", "--data-dir", dir.path().to_str().unwrap()];
        let serve = ["serve", "--preset", preset, "--port", "0", "--metrics-port", "off"];
        let mut server = caxton(&[&serve[..], &place].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let report = until(server.stdout.as_mut().unwrap(), " replayed");
        assert!(report.contains("is ready"), "{preset}: {report}");
        check(&[&["memory", "add", "a", "about a"][..], &place].concat(), &["created a"]);
        terminate(server.id());
        assert!(server.wait().unwrap().success(), "{preset}");
    }
}

/// Reads until `text` has come.
pub(crate) fn until(stream: &mut impl std::io::Read, text: &str) -> String {
    let mut read = String::new();
    let mut byte = [0; 1];
    while !read.contains(text) && stream.read(&mut byte).unwrap() == 1 {
        read.push(char::from(byte[0]));
    }
    read
}

pub(crate) fn terminate(process: u32) {
    let killed = Command::new("kill").args(["-TERM", &process.to_string()]).status().unwrap();
    assert!(killed.success());
}

#[test]
fn a_command_that_is_interrupted_closes_the_log_it_opened() {
    let dir = tempfile::tempdir().unwrap();
    let place = ["--keyword-only", "--data-dir", dir.path().to_str().unwrap()];
    let args = [&["memory", "import", "--chunk", "1", "-"][..], &place].concat();
    let mut import = caxton(&args).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = import.stdin.take().unwrap();
    // More than a pipe holds: when all of it is written, some is read, and lines were taken.
    for number in 0..300 {
        let text = "x".repeat(1_000);
        let row = serde_json::json!({
            "entity_name": format!("thing {number}"), "entity_type": "Thing", "observations": [text],
        });
        writeln!(lines, "{row}").unwrap();
    }
    terminate(import.id());
    let ended = import.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.contains("interrupted; the log is closed in order; standard input: its first "), "{told}");
    assert!(told.contains(" lines were taken") && !told.contains(" first 0 lines"), "{told}");
    drop(lines);
    check(&[&["log", "verify"][..], &place].concat(), &["are as written"]);
    check(&[&["log", "head"][..], &place].concat(), &["head #"]);
}

#[test]
fn a_log_is_not_taken_for_a_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let [data, file, shown, other] = ["data", "log.jsonl", "shown.jsonl", "other"].map(path);
    let place = ["--keyword-only", "--data-dir", &data];
    check(&[&["memory", "add", "tea", "a drink"][..], &place].concat(), &[]);
    check(&[&["export", "events", "--out", &file][..], &place].concat(), &["wrote"]);
    let tail = run(&[&["--json", "log", "tail"][..], &place].concat());
    fs::write(&shown, tail.stdout).unwrap();
    for format in ["caxton", "mcp"] {
        let import = |file| [&["memory", "import", "--format", format, file][..], &place].concat();
        check_failure(&import(file.as_str()), 2, "are for `caxton import events FILE --to DIR`");
        check_failure(&import(shown.as_str()), 2, "which no command takes back (see docs/replay.md)");
    }
    check_failure(&["import", "events", &shown, "--to", &other], 5, "no command makes a log of them");
}

#[test]
fn a_corpus_is_made_and_imported() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (dump, file, data) = (path("dump"), path("corpus.jsonl"), path("data"));
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/corpus/fixtures/dumpavail.txt"), &dump)
        .unwrap();
    let made = ["corpus", "debian", "--from", &dump, "--out", &file];
    check(&made, &["4 entities", "3 relations"]);
    fs::write(&file, "mine").unwrap();
    check_failure(&made, 2, "is there already; name another place, or replace it with --force");
    check_failure(&["corpus", "python", "--from", &dump, "--out", &file], 2, "is there already");
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    check(&[&made[..], &["--force"]].concat(), &["4 entities", "3 relations"]);
    let place = ["--keyword-only", "--data-dir", &data];
    check(
        &[&["memory", "import", &file][..], &place].concat(),
        &["entities imported 4", "relations imported 3"],
    );
    check(&[&["memory", "search", "interactive plotting"][..], &place].concat(), &["gnuplot"]);
}

#[test]
fn a_key_is_shown_once_and_its_hash_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    let made = json(&["--json", "key", "create", "ada", "--keys-file", file.to_str().unwrap()]);
    let kept = fs::read_to_string(&file).unwrap();
    assert!(kept.starts_with("ada: sha256:") && !kept.contains(made["key"].as_str().unwrap()), "{kept}");
    let again = run(&["key", "create", "ada", "--keys-file", file.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(5));
}

#[test]
fn text_from_standard_input_is_read() {
    let mut child =
        caxton(&["config", "check", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"server: {port: 1234}\n").unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
}
