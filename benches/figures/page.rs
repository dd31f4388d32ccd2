//! The rows of the README's table of figures, what their commands printed, and the table made of both.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use regex::Regex;
use serde::{Deserialize, Serialize};

/// The line in README.md behind which the table stands.
pub(crate) const BEGIN: &str = "<!-- figures: made by `cargo bench --bench figures` -->";
/// The line behind the table.
pub(crate) const END: &str = "<!-- end of figures -->";

/// A row of the table, as `rows.yaml` describes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// What is measured.
    pub(crate) what: String,
    /// What measures it, to be run by a shell in the repository.
    pub(crate) command: String,
    /// How often it is run, one after the other; the last run counts. A first run may make what later ones keep.
    #[serde(default = "once")]
    pub(crate) times: usize,
    /// What must have run before, unless the path that is named first is there.
    #[serde(default)]
    pub(crate) after: Option<Preparation>,
    /// Variables without which it cannot be measured.
    #[serde(default)]
    pub(crate) needs: Vec<String>,
    /// Patterns, each of which matches a line of what the command prints, behind the line of the one before.
    pub(crate) find: Vec<String>,
    /// What is shown: `{N}` is the Nth group of all patterns.
    pub(crate) figure: String,
}

/// Something that a measurement needs on the disk.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Preparation {
    /// The path that is there afterwards.
    pub(crate) makes: String,
    /// The command that makes it.
    pub(crate) run: String,
}

const fn once() -> usize {
    1
}

/// The machine that something was measured on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The processor's name.
    pub(crate) processor: String,
    /// Cores that the process may use.
    pub(crate) cores: usize,
    /// Memory in GiB.
    pub(crate) memory_gib: u64,
    /// Kernel and its release.
    pub(crate) system: String,
}

/// What a command printed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The day, as in 2026-01-31.
    pub(crate) date: String,
    /// The commit that was measured; ends in `+` when files differed from it.
    pub(crate) commit: String,
    /// Where.
    pub(crate) machine: Machine,
    /// Median time of an append of 4 KiB with fdatasync just before, in microseconds.
    pub(crate) sync_micros: u64,
    /// The lines.
    pub(crate) output: Vec<String>,
}

/// The newest run of each command.
pub(crate) type Results = BTreeMap<String, Run>;

/// Reads the rows.
pub(crate) fn rows(folder: &Path) -> Vec<Row> {
    serde_yaml::from_str(&read(&folder.join("rows.yaml"))).unwrap()
}

/// Reads the results; none when there is no file.
pub(crate) fn results(folder: &Path) -> Results {
    let path = folder.join("results.json");
    if path.exists() { serde_json::from_str(&read(&path)).unwrap() } else { Results::new() }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Row {
    /// What is shown of a run, or the pattern that matches no line of it.
    pub(crate) fn shown(&self, run: &Run) -> Result<String, String> {
        let mut shown = self.figure.clone();
        let (mut number, mut lines) = (0, run.output.iter());
        for pattern in &self.find {
            let expression = Regex::new(pattern).map_err(|error| format!("{pattern}: {error}"))?;
            let found = lines.find_map(|line| expression.captures(line));
            let found = found.ok_or_else(|| format!("no further line matches {pattern}"))?;
            for group in found.iter().skip(1) {
                number += 1;
                shown = shown.replace(&format!("{{{number}}}"), group.map_or("", |group| group.as_str()));
            }
        }
        Ok(shown)
    }
}

/// The table of everything that was measured, a part for each machine; or what does not fit.
pub(crate) fn table(rows: &[Row], results: &Results) -> Result<String, String> {
    let mut machines: Vec<&Machine> = results.values().map(|run| &run.machine).collect();
    machines.sort();
    machines.dedup();
    let mut text = String::new();
    for machine in machines {
        let here = |row: &Row| results.get(&row.command).filter(|run| run.machine == *machine);
        let runs: Vec<&Run> = rows.iter().filter_map(here).collect();
        let (Some(first), Some(last)) =
            (runs.iter().map(|run| &run.date).min(), runs.iter().map(|run| &run.date).max())
        else {
            continue;
        };
        let when = if first == last { format!("on {first}") } else { format!("from {first} to {last}") };
        let Machine { processor, cores, memory_gib, system } = machine;
        let syncs = runs.iter().map(|run| run.sync_micros);
        let (low, high) = (syncs.clone().min().unwrap_or(0), syncs.max().unwrap_or(0));
        writeln!(
            text,
            "Measured {when} on {cores} cores of {processor}, {memory_gib} GiB, {system}, with a disk that makes 4 KiB \
             durable in {low} to {high} µs; client and server share the cores.\n\n| what | figure | command |\n|---|---|---|"
        )
        .map_err(|error| error.to_string())?;
        for row in rows {
            if let Some(run) = here(row) {
                let figure = row.shown(run).map_err(|why| format!("{}: {why}", row.command))?;
                let mut how = format!("`{}`", row.command);
                for name in row.needs.iter().filter(|name| !row.command.contains(name.as_str())) {
                    how = format!("{how} with `{name}`");
                }
                if row.times > 1 {
                    how.push_str(", second run");
                }
                writeln!(text, "| {} | {figure} | {how} |", row.what).map_err(|error| error.to_string())?;
            }
        }
        text.push('\n');
    }
    Ok(text)
}

/// Each command once, in the order of its first row, with the variables that any of its rows needs: what it prints without one of
/// them lacks the lines of a row.
pub(crate) fn commands(rows: &[Row]) -> Vec<(&Row, BTreeSet<&str>)> {
    let mut found: Vec<(&Row, BTreeSet<&str>)> = Vec::new();
    for row in rows {
        let needs = row.needs.iter().map(String::as_str);
        match found.iter_mut().find(|(first, _)| first.command == row.command) {
            Some((_, all)) => all.extend(needs),
            None => found.push((row, needs.collect())),
        }
    }
    found
}

/// README with the table in its place; `None` when it has none.
pub(crate) fn placed(readme: &str, table: &str) -> Option<String> {
    let (before, rest) = readme.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{table}{END}{after}"))
}
