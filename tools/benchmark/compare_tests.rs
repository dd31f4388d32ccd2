//! What counts as worse.

use std::collections::BTreeMap;

use caxton_events::Timestamp;

use super::super::Part;
use super::super::Setting;
use super::{Better, CompareError, Comparison, Figure, Results, Verdict, compare};

fn results(figures: Vec<Figure>) -> Results {
    Results {
        format: 1,
        benchmark: "memory".to_owned(),
        settings: Vec::new(),
        target: None,
        version: "0".to_owned(),
        started_at: Timestamp::EPOCH,
        machine: super::super::Machine::default(),
        parts: Vec::new(),
        figures,
        remarks: Vec::new(),
    }
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
        let change = found.changes[0].change_percent;
        assert!(low <= change && change <= high, "{low} {change} {high}");
        assert_eq!(found.regressions().count(), usize::from(verdict == Verdict::Regression));
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
fn what_cannot_be_compared_is_told() {
    let mut base = results(vec![figure("gone", 1.0, Better::Lower, 0.0)]);
    let mut now = results(vec![figure("new", 1.0, Better::Lower, 0.0)]);
    base.machine.processor = "one".to_owned();
    now.machine.processor = "other".to_owned();
    now.target = Some("http://127.0.0.1:1".to_owned());
    let found = compare(&base, &now, 0.1).unwrap();
    assert_eq!(found.unmatched, ["gone", "new"]);
    assert_eq!(found.differences.len(), 2, "{:?}", found.differences);
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
