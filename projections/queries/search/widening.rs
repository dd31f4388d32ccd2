//! How many rows a search asks of each ranking, one pass after another.

use std::time::Duration;

/// Time after which no wider pass is begun where filters may throw nearly everything away.
const BUDGET: Duration = Duration::from_millis(250);
/// How many times as many rows a pass has as the one before it, at the most and at the least.
const STEP_MAX: u128 = 8;
const STEP_MIN: u128 = 2;

/// Passes, each with more rows, until there are enough hits, or no more rows, or no more time.
#[derive(Debug)]
pub(super) struct Widening {
    rows_max: usize,
    /// When the last pass must have begun.
    until: Duration,
    /// When the pass under way did.
    begun: Duration,
}

impl Widening {
    /// Passes of up to so many rows from `now` on; `timed`: within the budget.
    pub(super) const fn new(rows_max: usize, timed: bool, now: Duration) -> Self {
        let until = if timed { now.saturating_add(BUDGET) } else { Duration::MAX };
        Self { rows_max, until, begun: now }
    }

    /// Rows of the pass behind one of `rows`. A pass takes about as long as it has rows: where time is short, it has fewer.
    pub(super) fn behind(&mut self, rows: usize, now: Duration) -> Option<usize> {
        if rows >= self.rows_max || now >= self.until {
            return None;
        }
        let (took, left) = (now.saturating_sub(self.begun), self.until.saturating_sub(now));
        self.begun = now;
        let step = (left.as_nanos() / took.as_nanos().max(1)).clamp(STEP_MIN, STEP_MAX);
        Some(rows.saturating_mul(step as usize).min(self.rows_max))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Widening;

    /// Rows of all passes, the first of 64, of which each takes so many milliseconds.
    fn passes(timed: bool, millis: &[u64]) -> Vec<usize> {
        let (mut now, mut rows) = (Duration::from_secs(7), vec![64]);
        let mut widening = Widening::new(65_536, timed, now);
        for &took in millis {
            now += Duration::from_millis(took);
            let Some(more) = widening.behind(rows[rows.len() - 1], now) else { break };
            rows.push(more);
        }
        rows
    }

    #[test]
    fn a_search_goes_on_while_there_are_rows_and_time() {
        for (timed, millis, then) in [
            (true, &[0, 0, 0, 0, 0][..], &[64, 512, 4_096, 32_768, 65_536][..]),
            (true, &[1, 8, 60, 100, 90], &[64, 512, 4_096, 12_288, 24_576]),
            (true, &[249, 2, 0], &[64, 128]),
            (true, &[250], &[64]),
            (false, &[9_000; 5], &[64, 512, 4_096, 32_768, 65_536]),
        ] {
            assert_eq!(passes(timed, millis), then, "{timed} {millis:?}");
        }
    }
}
