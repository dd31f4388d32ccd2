//! What counts as worse.

use std::collections::BTreeMap;

use super::super::Part;
use super::super::Setting;
use super::{Better, CompareError, Comparison, Figure, Results, Verdict, compare};

fn results(figures: Vec<Figure>) -> Results {
    Results { figures, ..Results::new("memory") }
}

/// A figure whose stretches lie around its value by as much as this share.
fn figure(name: &str, value: f64, better: Better, noise: f64) -> Figure {
    let around = (0..30).map(|n| value * (1.0 + noise * f64::from((n * 7) % 11 - 5) / 5.0));
    Figure::new(name, value, "u", better).over(around)
}

fn compared(base: Figure, current: Figure) -> Comparison {
    compare(&results(vec![base]), &results(vec![current]), 0.1).unwrap()
}

#[test]
fn a_change_counts_beyond_the_threshold_and_in_its_direction() {
    for (before, now, better, verdict) in [
        (100.0, 100.0, Better::Higher, Verdict::Same),
        (100.0, 91.0, Better::Higher, Verdict::Same),
        (100.0, 89.0, Better::Higher, Verdict::Regression),
        (100.0, 111.0, Better::Higher, Verdict::Improvement),
        (100.0, 111.0, Better::Lower, Verdict::Regression),
        (100.0, 89.0, Better::Lower, Verdict::Improvement),
        (100.0, 109.0, Better::Lower, Verdict::Same),
    ] {
        let found = compared(figure("x", before, better, 0.02), figure("x", now, better, 0.02));
        assert_eq!(found.changes[0].verdict, verdict, "{before} {now} {better:?}");
        let (low, high) = found.changes[0].interval_percent.unwrap_or_default();
        let change = found.changes[0].change_percent.unwrap();
        assert!(low <= change && change <= high, "{low} {change} {high}");
        assert_eq!(found.regressions().count(), usize::from(verdict == Verdict::Regression));
    }
}

/// Numbers that are the same in each run of a test (xorshift64*, S. Vigna, 2016).
struct Chance(u64);

impl Chance {
    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normal, around 0 with a deviation of 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.share()).sum::<f64>() - 6.0
    }

    /// So many normal numbers, each of which has this share of the one before.
    fn series(&mut self, count: usize, resembles: f64) -> Vec<f64> {
        let mut last = self.normal();
        let mut next = || {
            let following = resembles * last + (1.0 - resembles * resembles).sqrt() * self.normal();
            std::mem::replace(&mut last, following)
        };
        (0..count).map(|_| next()).collect()
    }

    /// So many values around one, each deviating by this share of it.
    fn around(&mut self, value: f64, share: f64, count: usize, resembles: f64) -> Vec<f64> {
        self.series(count, resembles).iter().map(|normal| value * (1.0 + share * normal)).collect()
    }
}

/// A figure that is the mean of its samples.
fn mean_of(samples: Vec<f64>) -> Figure {
    let mean = samples.iter().sum::<f64>() / samples.len() as f64;
    Figure::new("x", mean, "ms", Better::Lower).over(samples)
}

/// In which share of so many comparisons this came out.
fn how_often(
    pairs: u32,
    threshold: f64,
    wanted: &[Verdict],
    mut pair: impl FnMut(&mut Chance) -> (Figure, Figure),
) -> f64 {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let found = (0..pairs).filter(|_| {
        let (base, current) = pair(&mut chance);
        let found = compare(&results(vec![base]), &results(vec![current]), threshold).unwrap();
        wanted.contains(&found.changes[0].verdict)
    });
    found.count() as f64 / f64::from(pairs)
}

const SURE: [Verdict; 2] = [Verdict::Regression, Verdict::Improvement];

#[test]
fn equal_runs_are_rarely_told_apart() {
    for count in [2, 5, 8, 16, 30, 100] {
        for (resembles, share) in [(0.0, 0.08), (0.5, 0.11), (0.8, 0.3)] {
            let run = |chance: &mut Chance| mean_of(chance.around(100.0, 0.1, count, resembles));
            let found = how_often(1_000, 0.0, &SURE, |chance| (run(chance), run(chance)));
            assert!(found <= share, "{count} stretches, {resembles}: {found}");
        }
        let heavy =
            |chance: &mut Chance| mean_of(chance.series(count, 0.0).into_iter().map(f64::exp).collect());
        let found = how_often(1_000, 0.0, &SURE, |chance| (heavy(chance), heavy(chance)));
        assert!(found <= 0.07, "{count} stretches with a long tail: {found}");
    }
}

#[test]
fn a_change_that_is_there_is_found() {
    let slower = |count| {
        how_often(500, 0.1, &[Verdict::Regression], |chance| {
            (mean_of(chance.around(100.0, 0.05, count, 0.0)), mean_of(chance.around(120.0, 0.05, count, 0.0)))
        })
    };
    for count in [8, 10, 30, 100] {
        assert!(slower(count) >= 0.97, "{count} stretches: {}", slower(count));
    }
    // Twice as long is found in few, too.
    let twice = how_often(500, 0.1, &[Verdict::Regression], |chance| {
        (mean_of(chance.around(100.0, 0.02, 3, 0.0)), mean_of(chance.around(200.0, 0.02, 3, 0.0)))
    });
    assert!(twice >= 0.97, "{twice}");
}

#[test]
fn what_differs_between_rounds_is_no_change() {
    /// Rounds, each around a middle of its own.
    fn run(chance: &mut Chance, value: f64, rounds: usize) -> Figure {
        let rounds: Vec<Vec<f64>> = (0..rounds)
            .map(|_| {
                let middle = value * (1.0 + 0.05 * chance.normal());
                chance.around(middle, 0.02, 20, 0.0)
            })
            .collect();
        let mean = rounds.iter().flatten().sum::<f64>() / rounds.iter().flatten().count() as f64;
        Figure::new("x", mean, "µs", Better::Lower).over_rounds(rounds).by_median()
    }
    for rounds in [2, 3, 5] {
        let equal =
            how_often(1_000, 0.0, &SURE, |chance| (run(chance, 100.0, rounds), run(chance, 100.0, rounds)));
        assert!(equal <= 0.07, "{rounds} rounds: {equal}");
    }
    let slower = |chance: &mut Chance| (run(chance, 100.0, 5), run(chance, 130.0, 5));
    assert!(how_often(500, 0.1, &[Verdict::Regression], slower) >= 0.97);
    // Several rounds beside one say nothing of how far rounds of that one lie apart.
    let found =
        how_often(1, 0.1, &[Verdict::Unsure], |chance| (run(chance, 100.0, 5), run(chance, 200.0, 1)));
    assert!(found > 0.5);
}

#[test]
fn a_base_that_may_be_nothing_makes_nothing_sure() {
    let rate = |value: f64, samples: &[f64]| {
        Figure::new("message rate", value, "1/s", Better::Higher).over(samples.iter().copied())
    };
    let base = rate(62.5, &[0.0, 0.0, 250.0, 0.0, 0.0, 0.0, 0.0, 250.0]);
    let current = rate(50.0, &[0.0, 0.0, 0.0, 250.0, 0.0, 0.0, 0.0, 0.0, 250.0, 0.0]);
    let found = compared(base, current);
    assert_eq!((found.changes[0].verdict, found.changes[0].values), (Verdict::Unsure, (8, 10)), "{found}");
    assert!(found.to_string().contains("no bounds"), "{found}");
    // A rate that falls to nothing for good is no chance.
    let stopped = compared(rate(100.0, &[99.0, 101.0].repeat(5)), rate(0.0, &[0.0; 10]));
    assert_eq!(stopped.changes[0].verdict, Verdict::Regression, "{stopped}");
    assert_eq!(stopped.changes[0].interval_percent, Some((-100.0, -100.0)));
}

#[test]
fn a_value_beside_several_goes_by_the_threshold_alone() {
    let of = |value: f64, count: usize| {
        Figure::new("x", value, "ms", Better::Lower).over(std::iter::repeat_n(value, count))
    };
    for (base, now, verdict, told) in [
        (1, 30, Verdict::Regression, "too few values"),
        (30, 0, Verdict::Regression, "too few values"),
        (1, 1, Verdict::Regression, "one value each"),
        (0, 1, Verdict::Regression, "one value each"),
        (2, 2, Verdict::Regression, "+100.0 … +100.0 %"),
    ] {
        let found = compared(of(10.0, base), of(20.0, now));
        assert_eq!(found.changes[0].verdict, verdict, "{base} {now}");
        assert!(found.to_string().contains(told) && found.markdown().contains(told), "{found}");
    }
}

#[test]
fn what_may_be_chance_is_no_regression() {
    let noisy = |value| figure("x", value, Better::Higher, 3.0);
    assert_eq!(compared(noisy(100.0), noisy(85.0)).changes[0].verdict, Verdict::Unsure);
}

#[test]
fn single_values_are_compared_as_they_are() {
    let single = |value| Figure::new("x", value, "ms", Better::Lower);
    let found = compared(single(10.0), single(12.0));
    assert_eq!(found.changes[0].verdict, Verdict::Regression);
    assert_eq!(found.changes[0].interval_percent, None);
    assert!(found.to_string().contains("one value each"), "{found}");
    assert!(found.markdown().contains("**1 regression**"), "{}", found.markdown());
    // From nothing to something has no ratio, and is beyond any threshold.
    assert_eq!(compared(single(0.0), single(1.0)).changes[0].verdict, Verdict::Regression);
}

#[test]
fn a_base_that_is_not_above_nothing_does_not_turn_the_direction() {
    let growth = |value| Figure::new("growth of memory", value, "MB/min", Better::Lower);
    for (before, now, verdict, told) in [
        (-0.5, 2.0, Verdict::Regression, "up from -0.500"),
        (2.0, -0.5, Verdict::Improvement, "-125.0 %"),
        (-2.0, -0.5, Verdict::Regression, "up from -2.000"),
        (-0.5, -2.0, Verdict::Improvement, "down from -0.500"),
        (0.0, 0.5, Verdict::Regression, "up from 0.000"),
        (0.0, -0.5, Verdict::Improvement, "down from 0.000"),
        (0.0, -0.0, Verdict::Same, "+0.0 %"),
        (-2.0, -2.0, Verdict::Same, "+0.0 %"),
    ] {
        let change = &compared(growth(before), growth(now)).changes[0];
        assert_eq!((change.verdict, &*change.told), (verdict, told), "{before} {now}");
    }
    // Stretches below nothing have no share, either.
    let below = |value| figure("x", value, Better::Lower, 0.5);
    assert_eq!(compared(below(-1.0), below(-2.0)).changes[0].interval_percent, None);
}

#[test]
fn what_is_near_nothing_counts_from_its_least_change_on() {
    let failed = |share| Figure::new("message failed", share, "%", Better::Lower).counting_from(0.1);
    for (before, now, verdict) in [
        (0.0, 0.0, Verdict::Same),
        (0.0, 0.01, Verdict::Same),
        (0.01, 0.09, Verdict::Same),
        (0.0, 0.2, Verdict::Regression),
        (0.0, 40.0, Verdict::Regression),
        (0.2, 0.0, Verdict::Improvement),
        (40.0, 40.2, Verdict::Same),
    ] {
        assert_eq!(compared(failed(before), failed(now)).changes[0].verdict, verdict, "{before} {now}");
    }
    // A run of an earlier version does not say what counts.
    let old = Figure::new("message failed", 0.0, "%", Better::Lower);
    assert_eq!(compared(old, failed(0.01)).changes[0].verdict, Verdict::Same);
}

#[test]
fn a_change_without_a_share_is_told_in_words_and_not_as_null() {
    let single = |value| Figure::new("x", value, "ms", Better::Lower);
    let json = |before, now| serde_json::to_value(&compared(single(before), single(now)).changes[0]).unwrap();
    let endless = json(0.0, 1.0);
    assert_eq!((endless.get("change_percent"), endless["told"].as_str()), (None, Some("up from 0.000")));
    assert_eq!(json(2.0, 1.0)["change_percent"], -50.0);
    let found = compared(single(0.0), single(1.0));
    assert!(found.to_string().contains("up from 0.000"), "{found}");
    assert!(found.markdown().contains("| up from 0.000 |"), "{}", found.markdown());
}

#[test]
fn an_interval_on_the_other_side_of_no_change_makes_nothing_sure() {
    // One slow second lifts the percentile of all operations, while the seconds became faster.
    let p99 = |value, of_stretches: f64| {
        let stretches = (0..30).map(|n| of_stretches * (1.0 + f64::from(n % 3) / 100.0));
        Figure::new("message p99", value, "ms", Better::Lower).over(stretches)
    };
    for (before, now, verdict) in [
        (p99(10.0, 10.0), p99(20.0, 5.0), Verdict::Unsure),
        (p99(20.0, 5.0), p99(10.0, 10.0), Verdict::Unsure),
        (p99(10.0, 10.0), p99(20.0, 15.0), Verdict::Regression),
        (p99(20.0, 15.0), p99(10.0, 10.0), Verdict::Improvement),
    ] {
        let found = compared(before, now);
        assert_eq!(found.changes[0].verdict, verdict, "{found}");
        assert!(found.changes[0].interval_percent.is_some(), "{found}");
    }
}

#[test]
fn what_cannot_be_compared_is_told() {
    let with = |name: &str| {
        let figures = ["both", name].map(|name| figure(name, 1.0, Better::Lower, 0.0));
        results(figures.to_vec())
    };
    let (mut base, mut now) = (with("gone"), with("new"));
    base.machine.processor = "one".to_owned();
    now.machine.processor = "other".to_owned();
    now.target = Some("http://127.0.0.1:1".to_owned());
    let found = compare(&base, &now, 0.1).unwrap();
    assert_eq!(found.unmatched, ["gone", "new"]);
    assert_eq!(found.missing, ["gone"]);
    for told in ["only the base has gone", "only the current run has new"] {
        assert!(found.to_string().contains(told) && found.markdown().contains(told), "{found}");
    }
    assert_eq!(found.differences.len(), 2, "{:?}", found.differences);
    base.target = Some("http://127.0.0.1:2".to_owned());
    (base.profile, now.profile) = (Some("release".to_owned()), Some("debug".to_owned()));
    let differences = compare(&base, &now, 0.1).unwrap().differences;
    assert_eq!(
        differences[1..],
        [
            "the build differs: \"release\", now \"debug\"",
            "the target differs: \"http://127.0.0.1:2\", now \"http://127.0.0.1:1\"",
        ]
    );
    // A run of an earlier version does not tell how it was built.
    base.profile = None;
    assert_eq!(compare(&base, &now, 0.1).unwrap().differences.len(), 2);
}

#[test]
fn two_runs_without_a_figure_in_common_are_not_compared() {
    let run = |name: &str| results(vec![figure(name, 1.0, Better::Lower, 0.0)]);
    let error = compare(&run("write p99"), &run("read p99"), 0.1).unwrap_err();
    let told = error.to_string();
    assert!(told.contains("the base has write p99, the current one read p99; run the same"), "{told}");
    let many = results((0..6).map(|n| figure(&n.to_string(), 1.0, Better::Lower, 0.0)).collect());
    let told = compare(&many, &results(Vec::new()), 0.1).unwrap_err().to_string();
    assert!(told.contains("the base has 0, 1, 2, 3 and 2 more, the current one none; "), "{told}");
}

#[test]
fn runs_that_tried_other_rates_are_compared_by_the_limit_they_found() {
    let run = |limit: f64, rates: &[u64]| {
        let limit = Figure::new("highest rate within the targets", limit, "messages/s", Better::Higher);
        let tried = |rate: &u64| Part {
            name: format!("message at {rate}/s"),
            done: *rate,
            failed: BTreeMap::new(),
            seconds: 1.0,
            ramp_up_seconds: 0.0,
            offered_per_second: None,
            planned_seconds: None,
            per_second: *rate as f64,
            latency: None,
            intervals: Vec::new(),
            histogram: Vec::new(),
        };
        Results { parts: rates.iter().map(tried).collect(), ..results(vec![limit]) }
    };
    let found = compare(&run(500.0, &[500, 1_000, 750]), &run(1_000.0, &[500, 1_000, 2_000]), 0.1).unwrap();
    assert_eq!(found.changes.len(), 1, "{found}");
    assert_eq!((found.changes[0].verdict, found.unmatched.len()), (Verdict::Improvement, 0), "{found}");
}

#[test]
fn the_same_two_runs_have_the_same_interval() {
    let pair = || (figure("x", 100.0, Better::Higher, 0.5), figure("x", 80.0, Better::Higher, 0.5));
    let (a, b) = (pair(), pair());
    assert_eq!(compared(a.0, a.1), compared(b.0, b.1));
}

#[test]
fn runs_of_different_benchmarks_are_not_compared() {
    let run = |benchmark: &str, scenario: Option<&str>| Results {
        benchmark: benchmark.to_owned(),
        settings: scenario
            .map(|value| Setting { flag: "scenario".to_owned(), value: value.to_owned() })
            .into_iter()
            .collect(),
        ..results(vec![Figure::new("search p99", 1.0, "ms", Better::Lower)])
    };
    for ((base, base_load), (current, current_load), told) in [
        (("memory", None), ("system", None), Some(("memory", "system"))),
        (("scenario", Some("peak")), ("scenario", Some("burst")), Some(("scenario peak", "scenario burst"))),
        (("scenario", Some("peak")), ("scenario", Some("peak")), None),
    ] {
        let found = compare(&run(base, base_load), &run(current, current_load), 0.1);
        let different = |(base, current): (&str, &str)| CompareError::Different {
            base: base.to_owned(),
            current: current.to_owned(),
        };
        assert_eq!(found.err(), told.map(different));
    }
}

#[test]
fn the_table_has_a_heading_and_its_columns_stand_below_it() {
    let pair = |of: fn(f64) -> Figure| (of(1.0), of(2.0));
    let one = pair(|by| Figure::new("search p99", 10.0 * by, "ms", Better::Lower));
    let other =
        pair(|by| Figure::new("messages in batches rate", 123_456.0 * by, "messages/s", Better::Higher));
    let found = compare(&results(vec![one.0, other.0]), &results(vec![one.1, other.1]), 0.1).unwrap();
    let shown = found.to_string();
    let lines: Vec<&str> = shown.lines().take(3).collect();
    assert!(lines[0].starts_with("figure ") && lines[0].ends_with("verdict"), "{shown}");
    let ends = |text: &str, line: usize| lines[line].find(text).map(|at| at + text.len());
    assert_eq!(ends("current", 0), ends("20.000", 1), "{shown}");
    assert_eq!(ends("current", 0), ends("246912.000", 2), "{shown}");
    assert_eq!(ends("change", 0), ends("+100.0 %", 1), "{shown}");
    let begins = |text: &str, line: usize| lines[line].find(text);
    assert_eq!(begins("unit", 0), begins("ms", 1), "{shown}");
    assert_eq!(
        (begins("verdict", 0), begins("verdict", 0)),
        (begins("regression", 1), begins("improvement", 2)),
        "{shown}"
    );
}
