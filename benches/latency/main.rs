//! How long things take: reads of the graph, and messages through the engine.
//!
//! ```text
//! cargo bench --bench latency                 the graph, by criterion
//! cargo bench --bench latency -- --messages   messages at a rate that does not wait for answers
//! ```
//!
//! The graph has 100,000 entities and 500,000 relations; figures of its fold, live and while rebuilding, are printed
//! first.
//!
//! `--messages` offers messages of 1 KB to an engine with 1,000 agents at moments that are fixed before it begins (gaps
//! drawn as of independent senders), whether or not the ones before were answered. A message's latency is counted from
//! the moment it was due, so a stall counts for every message that was due in it. All latencies are kept: the
//! percentiles are exact. Options: `--rate N` a second (10,000), `--seconds N` (20), `--dir DIR` (`target/latency`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops at the first surprise")]
#![allow(clippy::print_stdout, reason = "the figures are what it is run for")]

#[path = "../crowd/mod.rs"]
mod crowd;
mod graph;
mod messages;

use std::path::PathBuf;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let number = |name: &str, default: u64| {
        option(name).map_or(default, |value| value.parse().expect("the option takes a number"))
    };
    if arguments.iter().any(|argument| argument == "--messages") {
        let dir = PathBuf::from(option("--dir").unwrap_or_else(|| "target/latency".to_owned()));
        messages::offered(&dir, number("--rate", 10_000), number("--seconds", 20));
        return;
    }
    let mut criterion = criterion::Criterion::default().configure_from_args();
    graph::latency(&mut criterion);
    criterion.final_summary();
}
