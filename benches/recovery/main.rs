//! What lies in the log, taken up again: forks.
//!
//! ```text
//! cargo bench --bench recovery -- --fork          forks of a long log, and the drop of its beginning
//! ```
//!
//! Options: `--events N` (10,000,000), `--dir DIR` (`target/recovery`). Ten million events take 3 GB of disk; the folder is
//! removed at the end.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops at the first surprise")]
#![allow(clippy::print_stdout, reason = "the figures are what it is run for")]

#[path = "../crowd/arguments.rs"]
mod arguments;
mod fork;
#[path = "../crowd/table.rs"]
mod table;

use arguments::Arguments;
use table::Table;

fn main() {
    let arguments = Arguments::read();
    let dir = arguments.dir("target/recovery");
    let mut table = Table::default();
    if arguments.has("--fork") {
        let events = arguments.number("--events", 10_000_000);
        fork::forks(&fork::Options { dir: dir.clone(), events }, &mut table);
    } else {
        println!("say what to measure: --fork");
    }
    table.print();
    let _ = std::fs::remove_dir_all(&dir);
}
