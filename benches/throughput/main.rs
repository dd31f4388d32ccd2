//! How much becomes durable: events in the log, and messages through the engine.
//!
//! ```text
//! cargo bench --bench throughput                              groups of writes, by criterion: its flags
//! cargo bench --bench throughput -- --paired                  the log beside its peers
//! cargo bench --bench throughput -- --messages                messages through the engine
//! cargo bench --bench throughput -- --sustained               messages at full speed for a minute
//! ```
//!
//! With criterion the log takes groups of events of 200 bytes, up to 300,000 of them before another log is made, and the
//! engine takes entities and messages.
//!
//! `--paired` measures the log, a plain segment file, and redb and SQLite (WAL, `synchronous=FULL`) with a row an event in turns,
//! in one process and on one disk, and prints ratios: each line is a geometric mean over at least nine interleaved rounds with its 90 % interval,
//! beside the time of a bare fdatasync.
//!
//! `--messages` starts an engine with 1,000 agents and keeps 2,048 messages of 1 KB in flight through `Engine::send` and
//! `Engine::send_many`: to agents and to capabilities. Each row is the median of the rounds, each of them over a fresh
//! data directory, after a second to warm up. `--sustained` does the same once for a long time and watches how far the
//! projections are behind; then the log alone takes as many of the same messages. It needs about 20 GB of disk.
//!
//! Options: `--rounds N` (9 with `--paired`, 3 with `--messages`), `--seconds N` of a round (4) or of the long run (60),
//! `--dir DIR` (`target/throughput`), `--only TEXT`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops at the first surprise")]
#![allow(clippy::print_stdout, reason = "the figures are what it is run for")]

#[path = "../crowd/allocator.rs"]
mod allocator;
mod baselines;
#[path = "../crowd/mod.rs"]
mod crowd;
#[path = "../harness/mod.rs"]
mod harness;
mod log;
mod messages;

use crowd::arguments::Arguments;
use crowd::table::Table;

fn main() {
    allocator::set_up();
    let arguments = Arguments::read();
    let dir = arguments.dir("target/throughput");
    let only = arguments.text("--only").unwrap_or_default();
    if arguments.has("--paired") {
        log::Paired { rounds: arguments.number("--rounds", 9).max(9) as usize, dir, only }.run();
        return;
    }
    if !arguments.has("--messages") && !arguments.has("--sustained") {
        baselines::run(&mut harness::criterion());
        return;
    }
    let mut table = Table::default();
    let rounds = arguments.number("--rounds", 3) as usize;
    let options = |seconds| messages::Options {
        dir: dir.clone(),
        rounds,
        seconds: arguments.number("--seconds", seconds),
        only: only.clone(),
    };
    if arguments.has("--messages") {
        messages::rates(&options(4), &mut table);
    }
    if arguments.has("--sustained") {
        messages::sustained(&options(60), &mut table);
    }
    table.print();
    let _ = std::fs::remove_dir_all(&dir);
}
