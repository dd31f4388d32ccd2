//! How the engine carries many agents and many messages: making agents known, idle ones, the rate beside many, restarts.
//!
//! ```text
//! cargo bench --bench scalability                      everything
//! cargo bench --bench scalability -- --only spawn      1 to 10,000 agents made known; agents of files
//! cargo bench --bench scalability -- --only rate       messages a second among 100 and among 10,000 agents
//! cargo bench --bench scalability -- --only restart    start with 1,000,000 messages in the log
//! ```
//!
//! *spawn*: so many agents register at the same time, each of them by a request of its own; the time ends when the last
//! one is durable, in the registry and answered. Before that, in the fresh process, the memory that 10,000 idle agents
//! take and what the process uses while nothing happens. Agents of files: the time from the start of the directory until
//! every file is judged, recorded and in the roster.
//!
//! *rate*: 2,048 messages of 1 KB in flight, in rounds that take turns.
//!
//! *restart*: another process fills a log with messages in 100,000 conversations and ends in order; then one goes on for
//! some seconds and is killed; then the folder of agents and conversations is removed. After each the engine is started
//! and a message is sent through it.
//!
//! Options: `--messages N` in the log (1,000,000), `--rounds N` (3), `--dir DIR` (`target/scalability`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops at the first surprise")]
#![allow(clippy::print_stdout, reason = "the figures are what it is run for")]

#[path = "../crowd/mod.rs"]
mod crowd;
mod rate;
mod restart;
mod spawn;

use crowd::arguments::Arguments;
use crowd::table::Table;

fn main() {
    let arguments = Arguments::read();
    let dir = arguments.dir("target/scalability");
    let messages = arguments.number("--messages", 1_000_000);
    if let Some(role) = arguments.text("--child") {
        restart::child(&dir, &role, messages);
        return;
    }
    let only = arguments.text("--only").unwrap_or_default();
    let mut table = Table::default();
    if "spawn".contains(&only) {
        spawn::idle(&dir, &mut table);
        spawn::registered(&dir, arguments.number("--rounds", 3), &mut table);
        spawn::of_files(&dir, &mut table);
    }
    if "rate".contains(&only) {
        rate::beside_many(&dir, arguments.number("--rounds", 3), &mut table);
    }
    if "restart".contains(&only) {
        restart::restarts(&dir, messages, &mut table);
    }
    table.print();
    let _ = std::fs::remove_dir_all(&dir);
}
