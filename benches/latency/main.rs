//! How long things take: reads of the graph, and messages through the engine.
//!
//! ```text
//! cargo bench --bench latency                 single operations, by criterion: its flags, as in `--save-baseline main`
//! cargo bench --bench latency -- --graph      quantiles of reads of a large graph, and the pace of its fold
//! cargo bench --bench latency -- --messages   messages at a rate that does not wait for answers
//! ```
//!
//! With criterion the memory has 10,000 entities; a short text is embedded where `CAXTON_MODEL_DIR` names the model.
//!
//! With `--graph` it has 100,000 entities and 500,000 relations; figures of its fold, live and while rebuilding, are
//! printed first.
//!
//! `--messages` offers messages of 1 KB to an engine with 1,000 agents at moments that are fixed before it begins (gaps
//! drawn as of independent senders), whether or not the ones before were answered. A message's latency is counted from
//! the moment it was due, so a stall counts for every message that was due in it. All latencies are kept: the
//! percentiles are exact. Options: `--rate N` a second (10,000), `--seconds N` (20), `--dir DIR` (`target/latency`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops at the first surprise")]
#![allow(clippy::print_stdout, reason = "the figures are what it is run for")]

#[path = "../crowd/allocator.rs"]
mod allocator;
mod baselines;
#[path = "../crowd/mod.rs"]
mod crowd;
mod graph;
#[path = "../harness/mod.rs"]
mod harness;
mod messages;

use crowd::arguments::Arguments;

fn main() {
    allocator::set_up();
    let arguments = Arguments::read();
    if arguments.has("--messages") {
        let dir = arguments.dir("target/latency");
        messages::offered(&dir, arguments.number("--rate", 10_000), arguments.number("--seconds", 20));
        return;
    }
    if arguments.has("--graph") {
        graph::latency();
        return;
    }
    baselines::run(&mut harness::criterion());
}
