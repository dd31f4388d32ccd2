//! What became worse between two runs, and how sure that is.
//!
//! A figure has regressed when it is worse by more than the threshold and the interval of its change lies on the side of what is
//! worse: it does not reach across "no change", nor lie beyond it. The interval comes from the stretches of both runs by a
//! moving-block bootstrap (H. R. Künsch, "The Jackknife and the Bootstrap for General Stationary Observations", 1989): stretches
//! that follow each other resemble each other, so they are drawn in blocks. It is the same for the same two files.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};

use serde::Serialize;

use super::results::{Better, Figure, Middle, Results, Setting, median};

/// Draws of the bootstrap.
const DRAWS: usize = 2_000;
/// Stretches that a figure must have for an interval.
const SAMPLES_MIN: usize = 5;
/// Figures up to which a comment shows all of them at once.
const SHOWN_MAX: usize = 12;
/// Names of figures that an error tells.
const NAMES_SHOWN: usize = 4;
/// Share of draws that lie outside on either side: 95 % lie inside.
const OUTSIDE: f64 = 0.025;

/// What came of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Worse beyond the threshold, and not by chance.
    Regression,
    /// Better beyond the threshold, and not by chance.
    Improvement,
    /// Beyond the threshold, but the interval reaches across "no change" or lies on its other side.
    Unsure,
    /// Within the threshold, or less than what counts for this figure.
    Same,
}

/// A figure in both runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// What it is of.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// Before.
    pub base: f64,
    /// Now.
    pub current: f64,
    /// Now against before, in percent: above 0 it grew; `None` where before was not above 0, which has no share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change_percent: Option<f64>,
    /// The same in words, as in `+20.0 %`, and `up from 0.000` where there is no share.
    pub told: String,
    /// Within which the change lies, in percent, 95 %; `None` with too few stretches.
    pub interval_percent: Option<(f64, f64)>,
    /// What that means.
    pub verdict: Verdict,
}

/// Two runs side by side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Which benchmark.
    pub benchmark: String,
    /// Share from which a change counts, as in 0.1.
    pub threshold: f64,
    /// Figures of both.
    pub changes: Vec<Change>,
    /// Figures that only one of them has.
    pub unmatched: Vec<String>,
    /// What makes the two hard to compare: another machine, other flags.
    pub differences: Vec<String>,
}

impl Comparison {
    /// Figures that became worse.
    pub fn regressions(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.verdict == Verdict::Regression)
    }

    /// As Markdown, for a comment on a change.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        let regressions = self.regressions().count();
        let head = match regressions {
            0 => "no regression".to_owned(),
            1 => "**1 regression**".to_owned(),
            more => format!("**{more} regressions**"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "### Benchmark {}: {head}\n", self.benchmark);
        let all: Vec<&Change> = self.changes.iter().collect();
        if all.len() <= SHOWN_MAX {
            table(&mut text, &all);
        } else {
            let told: Vec<&Change> =
                all.iter().copied().filter(|change| change.verdict != Verdict::Same).collect();
            if !told.is_empty() {
                table(&mut text, &told);
                text.push('\n');
            }
            let _ = writeln!(text, "<details><summary>All {} figures</summary>\n", all.len());
            table(&mut text, &all);
            text.push_str("\n</details>\n");
        }
        for difference in &self.differences {
            let _ = write!(text, "\n- {difference}");
        }
        for name in &self.unmatched {
            let _ = write!(text, "\n- only one run has {name}");
        }
        let _ = writeln!(
            text,
            "\n\nA change counts from {:.0} % on, where its 95 % interval excludes \"no change\".",
            self.threshold * 100.0
        );
        text
    }
}

/// Rows of a Markdown table.
fn table(text: &mut String, changes: &[&Change]) {
    text.push_str("| figure | base | current | change | 95 % interval | |\n|---|--:|--:|--:|--:|---|\n");
    for change in changes {
        let Change { name, unit, base, current, told, verdict, .. } = change;
        let (name, interval) = (name.replace('|', "\\|"), interval(change));
        let _ = writeln!(
            text,
            "| {name} | {} {unit} | {} {unit} | {told} | {interval} | {} |",
            digits(*base),
            digits(*current),
            word(*verdict)
        );
    }
}

/// Three digits behind the point, and more where these would say nothing.
fn digits(value: f64) -> String {
    if value != 0.0 && value.abs() < 0.1 { format!("{value:.5}") } else { format!("{value:.3}") }
}

fn interval(change: &Change) -> String {
    change
        .interval_percent
        .map_or_else(|| "one value each".to_owned(), |(low, high)| format!("{low:+.1} … {high:+.1} %"))
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Regression => "regression",
        Verdict::Improvement => "improvement",
        Verdict::Unsure => "unsure",
        Verdict::Same => "",
    }
}

/// Columns of the table for people.
const COLUMNS: [&str; 7] = ["figure", "base", "current", "unit", "change", "95 % interval", "verdict"];
/// Those that are numbers: their ends stand below each other.
const NUMBERS: [bool; 7] = [false, true, true, false, true, true, false];

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.changes.is_empty() {
            let rows: Vec<[String; 7]> =
                std::iter::once(COLUMNS.map(str::to_owned)).chain(self.changes.iter().map(row)).collect();
            let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
            let widths: [usize; 7] = std::array::from_fn(|column| width(column).unwrap_or_default());
            for row in &rows {
                let cells: Vec<String> = (0..COLUMNS.len())
                    .map(|column| match (NUMBERS[column], &row[column], widths[column]) {
                        (true, cell, width) => format!("{cell:>width$}"),
                        (false, cell, width) => format!("{cell:<width$}"),
                    })
                    .collect();
                writeln!(f, "{}", cells.join("  ").trim_end())?;
            }
        }
        self.differences.iter().try_for_each(|difference| writeln!(f, "{difference}"))?;
        self.unmatched.iter().try_for_each(|name| writeln!(f, "only one run has {name}"))?;
        match self.regressions().count() {
            0 => write!(f, "no regression beyond {:.0} %", self.threshold * 100.0),
            count => write!(f, "{count} beyond {:.0} % worse", self.threshold * 100.0),
        }
    }
}

/// A change as a row of that table.
fn row(change: &Change) -> [String; 7] {
    [
        change.name.clone(),
        digits(change.base),
        digits(change.current),
        change.unit.clone(),
        change.told.clone(),
        interval(change),
        word(change.verdict).to_owned(),
    ]
}

/// Why two runs are not set side by side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    /// They measured different things, by figures that have the same names.
    #[error(
        "the base is a run of {base:?}, the current one of {current:?}; compare two runs of the same benchmark"
    )]
    Different {
        /// Benchmark of the first.
        base: String,
        /// Benchmark of the second.
        current: String,
    },
    /// Nothing was measured by both: whatever became worse, it would not be seen.
    #[error(
        "no figure is in both runs, so nothing was compared: the base has {}, the current one {}; run the same benchmark with the \
         same flags for both",
        listed(base),
        listed(current)
    )]
    NothingInCommon {
        /// Figures of the first.
        base: Vec<String>,
        /// Figures of the second.
        current: Vec<String>,
    },
}

/// The first names, and how many there are besides.
fn listed(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => "none".to_owned(),
        all if all > NAMES_SHOWN => format!("{shown} and {} more", all - NAMES_SHOWN),
        _ => shown,
    }
}

/// Sets two runs side by side. `threshold`: the share from which a change counts, 0 to 1.
///
/// # Errors
///
/// [`CompareError`].
pub fn compare(base: &Results, current: &Results, threshold: f64) -> Result<Comparison, CompareError> {
    let (before, now) = (load(base), load(current));
    if before != now {
        return Err(CompareError::Different { base: before, current: now });
    }
    let (mut changes, mut unmatched) = (Vec::new(), Vec::new());
    for before in &base.figures {
        match current.figures.iter().find(|now| now.name == before.name && now.unit == before.unit) {
            Some(now) => changes.push(change(before, now, threshold)),
            None => unmatched.push(before.name.clone()),
        }
    }
    let is_new =
        |now: &&Figure| !base.figures.iter().any(|before| before.name == now.name && before.unit == now.unit);
    unmatched.extend(current.figures.iter().filter(is_new).map(|now| now.name.clone()));
    if changes.is_empty() {
        let names = |results: &Results| results.figures.iter().map(|figure| figure.name.clone()).collect();
        return Err(CompareError::NothingInCommon { base: names(base), current: names(current) });
    }
    let benchmark = current.benchmark.clone();
    Ok(Comparison { benchmark, threshold, changes, unmatched, differences: differences(base, current) })
}

/// The benchmark that was run, as in `memory` and `scenario peak`: each scenario is a load of its own.
fn load(results: &Results) -> String {
    let scenario = results.settings.iter().find(|set| set.flag == "scenario");
    scenario.map_or_else(
        || results.benchmark.clone(),
        |scenario| format!("{} {}", results.benchmark, scenario.value),
    )
}

fn differences(base: &Results, current: &Results) -> Vec<String> {
    let mut found = Vec::new();
    let mut told = |what: &str, before: &str, now: &str| {
        if before != now {
            found.push(format!("{what} differs: {before:?}, now {now:?}"));
        }
    };
    told("the processor", &base.machine.processor, &current.machine.processor);
    told("the number of cores", &base.machine.cores.to_string(), &current.machine.cores.to_string());
    if let (Some(before), Some(now)) = (&base.profile, &current.profile) {
        told("the build", before, now);
    }
    match (&base.target, &current.target) {
        (Some(before), Some(now)) => told("the target", before, now),
        (None, None) => (),
        (Some(_), None) | (None, Some(_)) => {
            found.push(
                "one ran against a server over HTTP, the other against an engine of its own".to_owned(),
            );
        }
    }
    let value = |results: &Results, flag: &str| {
        let set = results.settings.iter().find(|set| set.flag == flag);
        set.map_or_else(|| "not given".to_owned(), |set| set.value.clone())
    };
    let only_now = current.settings.iter().filter(|now| base.settings.iter().all(|set| set.flag != now.flag));
    for Setting { flag, .. } in base.settings.iter().chain(only_now) {
        let (before, now) = (value(base, flag), value(current, flag));
        if before != now {
            found.push(format!("--{flag} differs: {before}, now {now}"));
        }
    }
    found
}

fn change(before: &Figure, now: &Figure, threshold: f64) -> Change {
    let (ratio, grew) = (ratio(before.value, now.value), now.value > before.value);
    let enough = before.samples.len().min(now.samples.len()) >= SAMPLES_MIN;
    let interval = enough.then(|| bootstrapped(before, now)).flatten();
    // Across "no change" it may be chance. On the other side of it, the middle of the stretches went where the figure did not: a
    // percentile of all operations is another number than the mean of those of the stretches.
    let is_sure = interval.is_none_or(|(low, high)| if grew { low > 1.0 } else { high < 1.0 });
    let counts = (now.value - before.value).abs() >= before.least_change.max(now.least_change);
    let beyond = counts && (ratio - 1.0).abs() > threshold;
    let verdict = match (beyond, is_sure, grew == (before.better == Better::Higher)) {
        (false, ..) => Verdict::Same,
        (true, false, _) => Verdict::Unsure,
        (true, true, true) => Verdict::Improvement,
        (true, true, false) => Verdict::Regression,
    };
    let percent = |ratio: f64| (ratio - 1.0) * 100.0;
    let change_percent = ratio.is_finite().then(|| percent(ratio));
    let direction = if grew { "up" } else { "down" };
    let told = change_percent.map_or_else(
        || format!("{direction} from {}", digits(before.value)),
        |percent| format!("{percent:+.1} %"),
    );
    Change {
        name: before.name.clone(),
        unit: before.unit.clone(),
        base: before.value,
        current: now.value,
        change_percent,
        told,
        interval_percent: interval.map(|(low, high)| (percent(low), percent(high))),
        verdict,
    }
}

/// `now` as a multiple of `before`: without end, up or down, where `before` is not above 0 and has no multiples that say which
/// way it went. Nothing before and nothing now is no change.
fn ratio(before: f64, now: f64) -> f64 {
    match now.partial_cmp(&before) {
        Some(Ordering::Equal) | None => 1.0,
        Some(Ordering::Less | Ordering::Greater) if before > 0.0 => now / before,
        Some(Ordering::Less) => f64::NEG_INFINITY,
        Some(Ordering::Greater) => f64::INFINITY,
    }
}

/// Within which the ratio of the two lies; `None` where the one before is not above 0 in every draw.
fn bootstrapped(before: &Figure, now: &Figure) -> Option<(f64, f64)> {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let mut ratios: Vec<f64> = (0..DRAWS)
        .filter_map(|_| {
            let (now, before) = (drawn(now, &mut chance), drawn(before, &mut chance));
            (before > 0.0).then(|| now / before)
        })
        .filter(|ratio| ratio.is_finite())
        .collect();
    if ratios.len() < DRAWS {
        return None;
    }
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios[((ratios.len() - 1) as f64 * share).round() as usize];
    Some((at(OUTSIDE), at(1.0 - OUTSIDE)))
}

/// The middle of as many samples, drawn in blocks that follow each other.
fn drawn(figure: &Figure, chance: &mut Chance) -> f64 {
    let samples = &figure.samples;
    let block = (samples.len() as f64).sqrt().ceil() as usize;
    let starts = samples.len() - block + 1;
    let mut drawn = Vec::with_capacity(samples.len() + block);
    while drawn.len() < samples.len() {
        let start = chance.below(starts);
        drawn.extend_from_slice(&samples[start..start + block]);
    }
    drawn.truncate(samples.len());
    match figure.middle {
        Middle::Mean => drawn.iter().sum::<f64>() / drawn.len() as f64,
        Middle::Median => median(&drawn),
    }
}

/// Numbers that are the same in each run (xorshift64*, S. Vigna, 2016).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        ((u128::from(drawn) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
