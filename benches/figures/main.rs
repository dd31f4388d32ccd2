//! The README's table of figures: measured, kept, and written.
//!
//! ```text
//! cargo bench --bench figures                          writes README.md's table from results.json
//! cargo bench --bench figures -- measure [TEXT…]       first runs the commands of all rows, or of those that contain a TEXT
//! cargo bench --bench figures -- list                  tells the commands and what each needs
//! ```
//!
//! `rows.yaml` says what each row is, which command measures it and where in its output the figures are; `results.json` keeps
//! that output with the day, the commit and the machine. Nobody copies a number by hand. Commands run one after the other
//! and want the machine for themselves; all of them take about an hour, builds not counted. Commands one of whose rows needs a
//! variable that is not set are skipped, and so is what fails; both are told, and the last result stays.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench stops at the first surprise"
)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "its figures are for people")]

#[path = "../crowd/medium.rs"]
#[allow(dead_code, reason = "one of its figures is needed")]
mod medium;
mod page;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use page::{Machine, Results, Row, Run};

/// Where commands may leave what later ones use.
const FOLDER: &str = "target/figures";

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("benches/figures");
    let (rows, mut results) = (page::rows(&folder), page::results(&folder));
    // The runner adds a flag of its own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let mut complete = true;
    match words.first().map(String::as_str) {
        None => (),
        Some("list") => return list(&rows),
        Some("measure") => complete = measure(root, &rows, &words[1..], &mut results),
        Some(word) => {
            eprintln!("{word} is neither measure nor list");
            return ExitCode::from(2);
        }
    }
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    match page::table(&rows, &results).map(|table| page::placed(&readme, &table)) {
        Ok(Some(readme)) => fs::write(root.join("README.md"), readme).unwrap(),
        Ok(None) => {
            eprintln!("README.md has no lines {} and {}", page::BEGIN, page::END);
            return ExitCode::FAILURE;
        }
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    }
    if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn list(rows: &[Row]) -> ExitCode {
    for (row, needs) in page::commands(rows) {
        println!("{}", row.command);
        for name in needs.into_iter().filter(|name| std::env::var_os(name).is_none()) {
            println!("    needs {name}");
        }
    }
    ExitCode::SUCCESS
}

/// Runs the commands and keeps what they print after each; whether all of them could be run.
fn measure(root: &Path, rows: &[Row], texts: &[String], results: &mut Results) -> bool {
    fs::create_dir_all(root.join(FOLDER)).unwrap();
    let mut complete = true;
    for (row, needs) in page::commands(rows) {
        if !texts.is_empty() && !texts.iter().any(|text| row.command.contains(text.as_str())) {
            continue;
        }
        if let Some(name) = needs.into_iter().find(|name| std::env::var_os(name).is_none()) {
            eprintln!("skipped, {name} is not set: {}", row.command);
            complete = false;
            continue;
        }
        match run(root, row) {
            // What a pattern does not fit is kept, too: the table says so, and the pattern can be mended.
            Some(run) => {
                results.insert(row.command.clone(), run);
                let kept = serde_json::to_string_pretty(&results).unwrap() + "\n";
                fs::write(root.join("benches/figures/results.json"), kept).unwrap();
            }
            None => complete = false,
        }
    }
    complete
}

fn run(root: &Path, row: &Row) -> Option<Run> {
    if let Some(after) = &row.after
        && !root.join(&after.makes).exists()
    {
        println!("$ {}", after.run);
        lines(root, &after.run)?;
    }
    let sync = medium::at(&medium::syncs(&root.join(FOLDER), 101), 0.5);
    let mut output = Vec::new();
    for _ in 0..row.times {
        println!("$ {}", row.command);
        output = lines(root, &row.command)?;
    }
    let said =
        |command: &str| lines(root, command).and_then(|lines| lines.first().cloned()).unwrap_or_default();
    let changed =
        said("git status --porcelain --untracked-files=no -- Cargo.lock src events projections tools");
    Some(Run {
        date: said("date -u +%F"),
        commit: said("git rev-parse --short=9 HEAD") + if changed.is_empty() { "" } else { "+" },
        machine: machine(),
        sync_micros: sync.as_micros() as u64,
        output,
    })
}

/// What a command prints, which is shown as well; `None` when it fails.
fn lines(root: &Path, command: &str) -> Option<Vec<String>> {
    let mut child = Command::new("sh");
    // What cargo told this bench is not for the benches that it starts: they would be built anew for it.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_") && !["CARGO_HOME", "CARGO_TARGET_DIR"].contains(&text.as_ref()) {
            child.env_remove(&name);
        }
    }
    let mut child = child.args(["-c", command]).current_dir(root).stdout(Stdio::piped()).spawn().unwrap();
    let mut kept = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        println!("    {line}");
        // Progress that overwrote itself: what was left to see.
        let shown = line.rsplit('\r').next().unwrap_or_default().trim_end();
        if !shown.is_empty() {
            kept.push(shown.to_owned());
        }
    }
    let status = child.wait().unwrap();
    if !status.success() {
        eprintln!("failed, {status}: {command}");
        return None;
    }
    Some(kept)
}

fn machine() -> Machine {
    let field = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':').map(|(_, value)| value));
        line.unwrap_or("unknown").trim().to_owned()
    };
    let kib: u64 = field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Machine {
        processor: field("/proc/cpuinfo", "model name"),
        cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        memory_gib: (kib + (1 << 19)) >> 20,
        system: format!("Linux {}", release.trim()),
    }
}
