//! What became worse between two runs, and how sure that is.
//!
//! A figure has regressed when it is worse by more than the threshold and the interval of its change lies on the side of what is
//! worse: it does not reach across "no change", nor lie beyond it.
//!
//! Stretches that follow each other resemble each other, so a run is cut into a few pieces, which do less so, and the interval
//! comes from how far the middles of these lie apart (batch means; B. Schmeiser, "Batch Size Effects in the Analysis of Simulation
//! Output", 1982). Rounds are such pieces by themselves. Few pieces say little, which the quantiles of Student's distribution
//! account for, with the degrees of freedom of B. L. Welch (1947) and the bounds of a ratio by E. C. Fieller (1954). The test
//! `equal_runs_are_rarely_told_apart` counts how often the interval is wrong.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};

use serde::Serialize;

use super::results::{Better, Figure, Middle, Results, Setting, median};

/// Fewer stretches than this are cut into two pieces: in more of them, neighbours would resemble each other too much.
const THREE_PIECES_FROM: usize = 8;
/// Pieces that a run is cut into at the most: more of them make the interval hardly narrower.
const PIECES_MAX: usize = 10;
/// Beyond how many standard errors 2.5 % lie on either side, by degrees of freedom (Student's distribution).
const QUANTILES: [(f64, f64); 8] = [
    (1.0, 12.706),
    (2.0, 4.303),
    (3.0, 3.182),
    (4.0, 2.776),
    (6.0, 2.447),
    (10.0, 2.228),
    (20.0, 2.086),
    (f64::INFINITY, 1.960),
];
/// Figures up to which a comment shows all of them at once.
const SHOWN_MAX: usize = 12;
/// Names of figures that an error tells.
const NAMES_SHOWN: usize = 4;

/// What came of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Worse beyond the threshold, and not by chance.
    Regression,
    /// Better beyond the threshold, and not by chance.
    Improvement,
    /// Beyond the threshold, but the interval reaches across "no change" or lies on its other side, or there is too little to tell.
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
    /// Within which the change lies, in percent, 95 %; `None` of single values, of too few, and where the base may as well be 0.
    pub interval_percent: Option<(f64, f64)>,
    /// How many values that comes from, of the base and now: stretches or samples, or rounds where a run has several.
    pub values: (usize, usize),
    /// What that means.
    pub verdict: Verdict,
}

impl Change {
    /// Its interval in words, or why it has none.
    pub fn interval(&self) -> String {
        match (self.interval_percent, self.values) {
            (Some((low, high)), _) => format!("{low:+.1} … {high:+.1} %"),
            (None, (0 | 1, 0 | 1)) => "one value each".to_owned(),
            (None, (0 | 1, _) | (_, 0 | 1)) => "too few values".to_owned(),
            (None, _) => "no bounds".to_owned(),
        }
    }
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
    /// Figures that only one of them has, those of the base first.
    pub unmatched: Vec<String>,
    /// Those of them that the base has: whether they became worse is not known.
    pub missing: Vec<String>,
    /// What makes the two hard to compare: another machine, other flags.
    pub differences: Vec<String>,
}

impl Comparison {
    /// Figures that became worse.
    pub fn regressions(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.verdict == Verdict::Regression)
    }

    /// What is said of each figure that only one of them has.
    fn alone(&self) -> impl Iterator<Item = String> {
        self.unmatched.iter().enumerate().map(|(at, name)| {
            let which = if at < self.missing.len() { "base" } else { "current run" };
            format!("only the {which} has {name}")
        })
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
        for alone in self.alone() {
            let _ = write!(text, "\n- {alone}");
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
        let (name, interval) = (name.replace('|', "\\|"), change.interval());
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
        self.alone().try_for_each(|alone| writeln!(f, "{alone}"))?;
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
        change.interval(),
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

/// Sets two runs side by side. `threshold`: the share from which a change counts, from 0 to less than 1: a rate that fell to
/// nothing has lost no more than all of it.
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
    let missing = unmatched.clone();
    let is_new =
        |now: &&Figure| !base.figures.iter().any(|before| before.name == now.name && before.unit == now.unit);
    unmatched.extend(current.figures.iter().filter(is_new).map(|now| now.name.clone()));
    if changes.is_empty() {
        let names = |results: &Results| results.figures.iter().map(|figure| figure.name.clone()).collect();
        return Err(CompareError::NothingInCommon { base: names(base), current: names(current) });
    }
    let benchmark = current.benchmark.clone();
    let differences = differences(base, current);
    Ok(Comparison { benchmark, threshold, changes, unmatched, missing, differences })
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
    let Evidence { values, interval, is_sure } = evidence(before, now, grew);
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
        values,
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

/// What speaks for a change.
struct Evidence {
    values: (usize, usize),
    /// Within which the ratio of the two lies.
    interval: Option<(f64, f64)>,
    is_sure: bool,
}

/// How sure it is that a figure changed, where it `grew` or became smaller.
fn evidence(before: &Figure, now: &Figure, grew: bool) -> Evidence {
    // Samples of a round have in common what differs between rounds: they say nothing about that, however many there are.
    let in_rounds = before.rounds.len().max(now.rounds.len()) > 1;
    let (pieces_before, pieces_now) = (pieces(before, in_rounds), pieces(now, in_rounds));
    let values = if in_rounds {
        (pieces_before.len(), pieces_now.len())
    } else {
        (before.samples.len(), now.samples.len())
    };
    let (Some(before), Some(now)) =
        (Estimate::of(before, &pieces_before, in_rounds), Estimate::of(now, &pieces_now, in_rounds))
    else {
        // A part that is over within a stretch says nothing of chance, and is still to be noticed when it takes several.
        let fewest = if in_rounds { values.0.max(values.1) } else { values.0.min(values.1) };
        return Evidence { values, interval: None, is_sure: fewest <= 1 };
    };
    let (of_before, of_now) = (before.variance.powi(2), now.variance.powi(2));
    let variance = before.variance + now.variance;
    let quantile = quantile(variance.powi(2) / (of_before / before.degrees + of_now / now.degrees));
    let (margin, growth) = (quantile * variance.sqrt(), now.middle - before.middle);
    // Below the margin it may be chance. Beyond it, but the other way, the middle of the stretches went where the figure did not: a
    // percentile of all operations is another number than the mean of those of the stretches.
    let is_sure = if grew { growth > margin } else { growth < -margin };
    Evidence { values, interval: bounds(&before, &now, quantile), is_sure }
}

/// The samples of a figure in pieces: its rounds, or parts of the run.
fn pieces(figure: &Figure, in_rounds: bool) -> Vec<&[f64]> {
    let samples = figure.samples.as_slice();
    if !in_rounds {
        let count = match samples.len() {
            few @ ..THREE_PIECES_FROM => few.min(2),
            many => many.isqrt().clamp(3, PIECES_MAX),
        };
        let at = |piece: usize| piece * samples.len() / count;
        return (0..count).map(|piece| &samples[at(piece)..at(piece + 1)]).collect();
    }
    let mut rest = samples;
    let rounds = figure.rounds.iter().map(|len| {
        let (round, behind) = rest.split_at((*len).min(rest.len()));
        rest = behind;
        round
    });
    let rounds: Vec<&[f64]> = rounds.filter(|round| !round.is_empty()).collect();
    if rounds.is_empty() { vec![samples] } else { rounds }
}

/// The middle of what a figure has samples of.
struct Estimate {
    middle: f64,
    /// Square of its standard error.
    variance: f64,
    /// Degrees of freedom that this is known with.
    degrees: f64,
}

impl Estimate {
    /// From pieces; `None` of fewer than two, which do not tell how far they lie apart.
    fn of(figure: &Figure, pieces: &[&[f64]], in_rounds: bool) -> Option<Self> {
        if pieces.len() < 2 {
            return None;
        }
        let middles: Vec<f64> = pieces.iter().map(|piece| middle(figure.middle, piece)).collect();
        let (count, mean) = (middles.len() as f64, mean(&middles));
        let squares: f64 = middles.iter().map(|middle| (middle - mean).powi(2)).sum();
        let middle = if in_rounds { mean } else { middle(figure.middle, &figure.samples) };
        Some(Self { middle, variance: squares / (count - 1.0) / count, degrees: count - 1.0 })
    }
}

fn middle(which: Middle, values: &[f64]) -> f64 {
    match which {
        Middle::Mean => mean(values),
        Middle::Median => median(values),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Within which the ratio of the two lies; `None` where the one before is not surely above 0: there is no end to it then.
fn bounds(before: &Estimate, now: &Estimate, quantile: f64) -> Option<(f64, f64)> {
    let (ratio, share) = (now.middle / before.middle, (quantile / before.middle).powi(2));
    let (of_before, of_now) = (before.variance * share, now.variance * share);
    let room = 1.0 - of_before;
    if before.middle <= 0.0 || room <= 0.0 {
        return None;
    }
    let half = (of_before * ratio * ratio + of_now * room).sqrt();
    let (low, high) = ((ratio - half) / room, (ratio + half) / room);
    // What is not below 0 has lost all of it at the most.
    let low = if now.middle >= 0.0 { low.max(0.0) } else { low };
    (low.is_finite() && high.is_finite()).then_some((low, high))
}

/// The quantile for so many degrees of freedom: between two of the table it goes about as one divided by them.
fn quantile(degrees: f64) -> f64 {
    // No number where nothing lies apart: any quantile will do then.
    let degrees = degrees.max(1.0);
    let mut steps = QUANTILES.iter().zip(QUANTILES.iter().skip(1));
    let between = steps.find(|(_, (more, _))| degrees <= *more);
    between.map_or(f64::INFINITY, |((fewer, wide), (more, narrow))| {
        narrow + (wide - narrow) * (1.0 / degrees - 1.0 / more) / (1.0 / fewer - 1.0 / more)
    })
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
