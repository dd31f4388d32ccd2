//! How the engine carries many agents and many messages: making agents known, idle ones, the rate beside many, restarts.
//!
//! ```text
//! cargo bench --bench scalability                      operations at growing sizes, by criterion: its flags
//! cargo bench --bench scalability -- --all             everything below
//! cargo bench --bench scalability -- --only spawn      1 to 10,000 agents made known; agents of files
//! cargo bench --bench scalability -- --only rate       messages a second among 100 and among 10,000 agents
//! cargo bench --bench scalability -- --only restart    start with 1,000,000 messages in the log
//! cargo bench --bench scalability -- --only resources  memory and processor of 1 to 10,000 agents
//! cargo bench --bench scalability -- --only allocation what an agent takes: made known, 1,000 messages, stored
//! ```
//!
//! With criterion 64 messages go between 10 to 10,000 agents, and memories of 10 to 10,000 entities are asked and written.
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
//! *resources*: a process for each number of agents. They become known, each with a capability and a conversation; then
//! nothing happens for some seconds, and then 2,048 messages of 1 KB are under way for some seconds.
//!
//! *allocation*: counts what Rust code asks of the allocator, by all threads, divided by the number of agents: 100 of them
//! become known; 1,000 messages of 1 KB for each of them are sent, folded and acknowledged; then everything is stored.
//! SQLite's own memory is in the resident memory alone.
//!
//! Options: `--messages N` in the log (1,000,000), `--rounds N` (3), `--agents N` of the allocation (100), `--output FILE`
//! for resources and allocation as JSON, which `caxton benchmark compare` reads, `--dir DIR` (`target/scalability`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops at the first surprise")]
#![allow(clippy::print_stdout, reason = "the figures are what it is run for")]

mod allocation;
mod baselines;
mod counting;
#[path = "../crowd/mod.rs"]
mod crowd;
mod found;
#[path = "../harness/mod.rs"]
mod harness;
mod rate;
mod resources;
mod restart;
mod spawn;

use std::path::Path;

use crowd::arguments::Arguments;
use crowd::table::Table;
use found::Found;

/// Flags of the programs of its own.
const FLAGS: [&str; 8] =
    ["--all", "--only", "--messages", "--rounds", "--agents", "--output", "--dir", "--child"];
/// What can be measured.
const PARTS: [&str; 5] = ["spawn", "rate", "restart", "resources", "allocation"];

fn main() {
    caxton::allocator::give_back_after(caxton::config::Config::default().memory_allocation.purge_delay);
    if !harness::asks_for_own(&FLAGS, false) {
        baselines::run(&mut harness::criterion());
        return;
    }
    let arguments = Arguments::read();
    let dir = arguments.dir("target/scalability");
    let messages = arguments.number("--messages", 1_000_000);
    let agents = arguments.number("--agents", 100).max(1);
    match arguments.text("--child").as_deref() {
        Some("resources") => return resources::child(&dir, agents as usize),
        Some(role) => return restart::child(&dir, role, messages),
        None => (),
    }
    let only = arguments.text("--only").unwrap_or_default();
    if !PARTS.iter().any(|part| part.contains(&only)) {
        println!("--only: there is no part {only:?}; the parts are {}", PARTS.join(", "));
        std::process::exit(2);
    }
    let is_asked = |part: &str| part.contains(&only);
    let (mut table, mut found) = (Table::default(), Found::default());
    if is_asked("spawn") {
        spawn::idle(&dir, &mut table);
        spawn::registered(&dir, arguments.number("--rounds", 3), &mut table);
        spawn::of_files(&dir, &mut table);
    }
    if is_asked("rate") {
        rate::beside_many(&dir, arguments.number("--rounds", 3), &mut table);
    }
    if is_asked("restart") {
        restart::restarts(&dir, messages, &mut table);
    }
    if is_asked("resources") {
        resources::by_count(&dir, &mut found);
    }
    // The last, because counting does not end.
    if is_asked("allocation") {
        found.setting("agents", &agents);
        allocation::stages(&dir, agents, &mut found);
    }
    if ["spawn", "rate", "restart"].into_iter().any(is_asked) {
        table.print();
    }
    found.print();
    if let Some(file) = arguments.text("--output") {
        found.write(Path::new(&file));
    }
    let _ = std::fs::remove_dir_all(&dir);
}
