//! What it takes to get back from the log, and to work on a large one: reading it again, checking it, starting with nothing
//! but it, forks and audits.
//!
//! ```text
//! cargo bench --bench recovery                          short logs, by criterion: its flags
//! cargo bench --bench recovery -- --all                 everything below
//! cargo bench --bench recovery -- --only replay         replay into nothing beside a plain segment file
//! cargo bench --bench recovery -- --only verify         `log verify` beside BLAKE3 over the same file
//! cargo bench --bench recovery -- --only restart        start with the projections gone
//! cargo bench --bench recovery -- --fork                forks of a long log, and the drop of its beginning
//! cargo bench --bench recovery -- --audit               answers over a long log beside a scan of all of it
//! ```
//!
//! `--fork` and `--audit` are short for `--only fork` and `--only audit`.
//!
//! With criterion a log of 100,000 events is replayed and verified, a graph is folded from 30,000, and an engine starts over
//! 20,000, with its projections and without.
//!
//! *replay*: events of about 150 bytes, each decoded, from a warm page cache on one thread. The segment file holds the
//! same events, each behind its length and an XXH3 of its own; it is read in pieces of 256 KiB, every checksum checked,
//! every event decoded by the same function.
//!
//! *verify*: events of 200 bytes and of 1 KB; the other is `blake3::Hasher` over the log's whole file, read in pieces of
//! 256 KiB, on one thread, as `b3sum --num-threads 1` does it.
//!
//! Both print the geometric mean over at least nine interleaved pairs with its 90 % interval.
//!
//! *restart*: 1,000,000 events of entities, observations, relations and messages; graph, agents, conversations and the
//! state of the vectors are removed, the vectors by content stay. The time ends when every part includes the log's end and
//! searches are exact; an HNSW index may follow.
//!
//! Options: `--events N` of replay and verify (4,000,000), and of forks and audits (10,000,000, 3 GB of disk),
//! `--restart-events N` (1,000,000), `--rounds N` of replay and verify (9) and of audits (3), `--dir DIR`
//! (`target/recovery`; it is removed at the end).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops at the first surprise")]
#![allow(clippy::print_stdout, reason = "the figures are what it is run for")]

#[path = "../crowd/allocator.rs"]
mod allocator;
mod audit;
mod baselines;
#[path = "../crowd/mod.rs"]
mod crowd;
mod fork;
#[path = "../harness/mod.rs"]
mod harness;
mod replay;
mod restart;
mod written;

use crowd::arguments::Arguments;
use crowd::table::Table;

/// Flags of the programs of its own.
const FLAGS: [&str; 11] = [
    "--all",
    "--only",
    "--replay",
    "--verify",
    "--restart",
    "--fork",
    "--audit",
    "--events",
    "--restart-events",
    "--rounds",
    "--dir",
];
/// What can be measured.
const PARTS: [&str; 5] = ["replay", "verify", "restart", "fork", "audit"];

/// The parts that were asked for: all, if none was named.
fn wanted(arguments: &Arguments) -> Result<Vec<&'static str>, String> {
    let only = arguments.text("--only");
    if let Some(only) = only.as_deref().filter(|only| !PARTS.contains(only)) {
        return Err(format!("--only: there is no part {only:?}; the parts are {}", PARTS.join(", ")));
    }
    let named = |part: &&str| only.as_deref() == Some(*part) || arguments.has(&format!("--{part}"));
    let named: Vec<&'static str> = PARTS.into_iter().filter(named).collect();
    Ok(if named.is_empty() { PARTS.to_vec() } else { named })
}

fn main() {
    allocator::set_up();
    if !harness::asks_for_own(&FLAGS, false) {
        baselines::run(&mut harness::criterion());
        return;
    }
    let arguments = Arguments::read();
    let wanted = match wanted(&arguments) {
        Ok(wanted) => wanted,
        Err(wrong) => {
            println!("{wrong}");
            std::process::exit(2);
        }
    };
    let dir = arguments.dir("target/recovery");
    let (events, many) = (arguments.number("--events", 4_000_000), arguments.number("--events", 10_000_000));
    let rounds = arguments.number("--rounds", 9).max(9) as usize;
    let mut table = Table::default();
    for part in wanted {
        match part {
            "replay" => replay::beside_a_segment_file(&dir, events, rounds, &mut table),
            "verify" => replay::beside_blake3(&dir, events, rounds, &mut table),
            "restart" => {
                let events = arguments.number("--restart-events", 1_000_000);
                restart::without_projections(&dir, events, &mut table);
            }
            "fork" => fork::forks(&fork::Options { dir: dir.clone(), events: many }, &mut table),
            _ => {
                let rounds = arguments.number("--rounds", 3) as usize;
                let options = audit::Options { dir: dir.clone(), events: many, rounds };
                audit::answers(&options, &mut table);
            }
        }
    }
    table.print();
    let _ = std::fs::remove_dir_all(&dir);
}
