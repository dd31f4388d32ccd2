//! Tests of the parts together: bad files as a table, the model of reconciliation, a directory under fire.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod bad_files;
mod directory;
mod good_files;
mod reconcile;
mod wishes;

use std::fmt::Write as _;

/// A file of the agent `name` in this version.
fn file(name: &str, version: &str) -> String {
    format!("---\nname: {name}\nversion: {version}\ncapabilities: [answering]\n---\nYou answer.\n")
}

/// Problems as `line:column field: reason; remedy`, one a line.
fn told(problems: &[caxton_events::agent::ConfigProblem]) -> String {
    problems.iter().fold(String::new(), |mut text, problem| {
        let (line, column) = (problem.line, problem.column);
        let _ = writeln!(text, "{line}:{column} {}: {}; {}", problem.field, problem.reason, problem.remedy);
        text
    })
}
