//! Criterion's folders, written as it writes them.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::super::{Verdict, compare, read_run};
use super::{CriterionError, read_criterion};

/// A benchmark with samples of these nanoseconds for ten iterations each.
fn put(dir: &Path, id: &str, baseline: &str, nanos: &[f64]) {
    let folder = dir.join(id).join(baseline);
    fs::create_dir_all(&folder).unwrap();
    let benchmark = format!(
        r#"{{"group_id":"g","function_id":null,"value_str":null,"throughput":{{"Elements":1}},"full_id":"{id}","directory_name":"{id}","title":"{id}"}}"#
    );
    fs::write(folder.join("benchmark.json"), benchmark).unwrap();
    let iters = vec![10.0; nanos.len()];
    let sample = serde_json::json!({"sampling_mode": "Flat", "iters": iters, "times": nanos});
    fs::write(folder.join("sample.json"), sample.to_string()).unwrap();
}

#[test]
fn each_benchmark_becomes_the_median_time_of_an_iteration() {
    let dir = TempDir::new().unwrap();
    put(dir.path(), "group/function/64", "main", &[10_000.0, 30_000.0, 20_000.0]);
    put(dir.path(), "group/function/64", "new", &[5.0]);
    put(dir.path(), "alone", "main", &[40_000.0, 20_000.0]);
    fs::create_dir_all(dir.path().join("group/report")).unwrap();
    let results = read_criterion(dir.path(), &["main"]).unwrap();
    let figures: Vec<(&str, f64, &[f64])> =
        results.figures.iter().map(|one| (one.name.as_str(), one.value, &one.samples[..])).collect();
    assert_eq!(figures, [("alone", 3.0, &[4.0, 2.0][..]), ("group/function/64", 2.0, &[1.0, 3.0, 2.0])]);
    assert!(results.figures.iter().all(|figure| figure.unit == "µs"));
}

#[test]
fn rounds_follow_each_other() {
    let dir = TempDir::new().unwrap();
    put(dir.path(), "x", "head-1", &[10_000.0, 20_000.0]);
    put(dir.path(), "x", "head-2", &[30_000.0]);
    let results = read_criterion(dir.path(), &["head-1", "head-2"]).unwrap();
    assert_eq!(results.figures[0].samples, [1.0, 2.0, 3.0]);
    assert_eq!(results.figures[0].rounds, [2, 1]);
    // A round that is named again is the same round.
    let one = read_criterion(dir.path(), &["head-1", "head-1"]).unwrap();
    assert_eq!(one.figures[0].samples, [1.0, 2.0]);
    assert!(one.figures[0].rounds.is_empty());
}

#[test]
fn rounds_that_differ_as_much_from_each_other_make_nothing_sure() {
    let dir = TempDir::new().unwrap();
    let around = |nanos: f64| -> Vec<f64> { (0..20).map(|n| nanos + f64::from((n * 7) % 11)).collect() };
    for (at, [base, head, slow]) in
        [[10_000.0, 11_000.0, 20_000.0], [9_000.0, 13_000.0, 20_500.0], [11_000.0, 11_200.0, 19_500.0]]
            .into_iter()
            .enumerate()
    {
        for (name, nanos) in [("base", base), ("head", head), ("slow", slow)] {
            put(dir.path(), "x", &format!("{name}-{at}"), &around(nanos));
        }
    }
    let run = |name: &str| {
        let rounds = [0, 1, 2].map(|at| format!("{name}-{at}"));
        read_criterion(dir.path(), &rounds.each_ref().map(String::as_str)).unwrap()
    };
    for (name, verdict) in [("head", Verdict::Unsure), ("slow", Verdict::Regression)] {
        let found = compare(&run("base"), &run(name), 0.1).unwrap();
        assert_eq!((found.changes[0].verdict, found.changes[0].values), (verdict, (3, 3)), "{name}: {found}");
    }
}

#[test]
fn a_slower_run_is_a_regression_and_one_stray_sample_is_not() {
    let dir = TempDir::new().unwrap();
    let around = |nanos: f64| -> Vec<f64> { (0..20).map(|n| nanos + f64::from((n * 7) % 11)).collect() };
    put(dir.path(), "x", "main", &around(10_000.0));
    let mut stray = around(10_050.0);
    stray[7] = 1_000_000.0;
    put(dir.path(), "x", "stray", &stray);
    put(dir.path(), "x", "slow", &around(12_000.0));
    for (name, verdict) in [("stray", Verdict::Same), ("slow", Verdict::Regression), ("main", Verdict::Same)]
    {
        let place =
            |name: &str| dir.path().join("").to_str().unwrap().trim_end_matches('/').to_owned() + ":" + name;
        let base = read_run(Path::new(&place("main"))).unwrap();
        let found = compare(&base, &read_run(Path::new(&place(name))).unwrap(), 0.1).unwrap();
        assert_eq!(found.changes[0].verdict, verdict, "{name}: {found}");
        let (low, high) = found.changes[0].interval_percent.unwrap();
        let change = found.changes[0].change_percent.unwrap();
        assert!(low <= change && change <= high, "{low} {change} {high}");
    }
}

#[test]
fn a_folder_alone_is_its_last_run() {
    let dir = TempDir::new().unwrap();
    put(dir.path(), "x", "main", &[10_000.0]);
    put(dir.path(), "x", "new", &[20_000.0]);
    assert_eq!(read_run(dir.path()).unwrap().figures[0].samples, [2.0]);
}

#[test]
fn what_is_not_there_or_no_sample_is_named() {
    let dir = TempDir::new().unwrap();
    let empty = read_criterion(dir.path(), &["main"]).unwrap_err().to_string();
    assert!(empty.contains("has no baseline \"main\", only nothing that criterion wrote"), "{empty}");
    put(dir.path(), "x", "base", &[10_000.0]);
    put(dir.path(), "x", "new", &[10_000.0]);
    let other = read_criterion(dir.path(), &["base", "main"]).unwrap_err().to_string();
    assert!(other.contains("only base, new; run the bench with --save-baseline main"), "{other}");
    let sample = dir.path().join("x/base/sample.json");
    for (text, wrong) in [
        (r#"{"iters": [1.0], "times": []}"#, "1 counts of iterations and 0 times"),
        (r#"{"iters": [0.0], "times": [1.0]}"#, "must be above 0"),
        (r#"{"iters": [], "times": []}"#, "0 counts"),
        (r#"{"iters": [1.0]"#, "is not what criterion 0.8 writes (line 1"),
    ] {
        fs::write(&sample, text).unwrap();
        let error = read_criterion(dir.path(), &["base"]).unwrap_err();
        assert!(error.to_string().contains(wrong), "{error}");
        assert!(error.to_string().contains("sample.json"), "{error}");
    }
    fs::remove_file(&sample).unwrap();
    assert!(matches!(read_criterion(dir.path(), &["base"]), Err(CriterionError::Io { .. })));
}
