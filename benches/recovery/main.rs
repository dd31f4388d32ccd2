//! What lies in the log, taken up again: forks and audits.
//!
//! ```text
//! cargo bench --bench recovery -- --fork          forks of a long log, and the drop of its beginning
//! cargo bench --bench recovery -- --audit         answers over a long log beside a scan of all of it
//! ```
//!
//! Options: `--events N` (10,000,000), `--rounds N` of `--audit` (3), `--dir DIR` (`target/recovery`). Ten million events take
//! 3 GB of disk; the folder is removed at the end.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops at the first surprise")]
#![allow(clippy::print_stdout, reason = "the figures are what it is run for")]

#[path = "../crowd/arguments.rs"]
mod arguments;
mod audit;
mod fork;
#[path = "../crowd/table.rs"]
mod table;

use arguments::Arguments;
use table::Table;

fn main() {
    let arguments = Arguments::read();
    let dir = arguments.dir("target/recovery");
    let mut table = Table::default();
    let events = arguments.number("--events", 10_000_000);
    if arguments.has("--fork") {
        fork::forks(&fork::Options { dir: dir.clone(), events }, &mut table);
    }
    if arguments.has("--audit") {
        let rounds = arguments.number("--rounds", 3) as usize;
        audit::answers(&audit::Options { dir: dir.clone(), events, rounds }, &mut table);
    }
    if !arguments.has("--fork") && !arguments.has("--audit") {
        println!("say what to measure: --fork, --audit");
    }
    table.print();
    let _ = std::fs::remove_dir_all(&dir);
}
