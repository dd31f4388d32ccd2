//! Whether many agents slow the messages of each down.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::crowd::closed_loop::{Load, rate};
use crate::crowd::table::Table;
use crate::crowd::{Crowd, Mode, fresh, runtime};

const FEW: usize = 100;
const MANY: usize = 10_000;
const RATIO_MIN: f64 = 0.8;

/// Rates among few and among many agents, in turns.
pub(crate) fn beside_many(dir: &Path, rounds: u64, table: &mut Table) {
    let runtime = runtime();
    let load = Load { mode: Mode::Direct, in_flight: 2_048, group: 1 };
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for turn in 0..2 {
            let which = (round + turn) as usize % 2;
            let crowd = Arc::new(Crowd::start(&fresh(dir), &runtime, [FEW, MANY][which]));
            let (rate, _) = rate(&crowd, &runtime, load, Duration::from_secs(4), 0);
            crowd.engine.stop();
            println!("  round {}: {} agents: {rate:.0}/s", round + 1, [FEW, MANY][which]);
            rates[which].push(rate);
        }
    }
    let [few, many] = rates.map(|mut rates: Vec<f64>| {
        rates.sort_unstable_by(f64::total_cmp);
        rates[rates.len() / 2]
    });
    table.note("messages among 100 agents", format!("{few:.0}/s"));
    let (what, figure) = ("messages among 10,000 agents", format!("{many:.0}/s, {:.2} of that", many / few));
    table.row(what, figure, format!("≥ {RATIO_MIN} of that"), many / few >= RATIO_MIN);
}
