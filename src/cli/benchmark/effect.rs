//! `benchmark effect`: what a key of the configuration changes, by runs of a benchmark that take turns.

use std::fmt;

use caxton_tools::benchmark::{Change, Results, Verdict, compare, of_rounds};
use clap::Parser as _;
use serde::Serialize;

use super::{measured, place, tell_disk};
use crate::cli::args::{Args, BenchmarkCommand, BenchmarkEffect, BenchmarkPlace, Command, Common, KeyValue};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::cli::setup;
use crate::config::{Config, Flag, effect_of};

/// What was set, and what that changed.
#[derive(Debug, Serialize)]
struct Effect {
    /// The benchmark, as it was typed.
    benchmark: String,
    /// What was set.
    keys: Vec<Key>,
    /// Runs on each side.
    rounds: u16,
    /// Share by which a figure must differ.
    threshold: f64,
    /// Figures, the ones without it as the base.
    changes: Vec<Change>,
    /// Figures that not every run has.
    left_out: Vec<String>,
}

/// A key with both of its values.
#[derive(Debug, PartialEq, Serialize)]
struct Key {
    name: String,
    /// As it is without.
    is: serde_json::Value,
    /// As it was set.
    set: serde_json::Value,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |value: &serde_json::Value| {
            if value.is_null() { "unset".to_owned() } else { value.to_string() }
        };
        for Key { name, is, set } in &self.keys {
            writeln!(f, "{name}: {} instead of {}", told(set), told(is))?;
        }
        writeln!(f, "{} runs of `benchmark {}` each, in turns", self.rounds, self.benchmark)?;
        if !self.left_out.is_empty() {
            writeln!(f, "left out, as not every run has it: {}", self.left_out.join(", "))?;
        }
        Ok(())
    }
}

/// Runs it.
pub(super) fn run(what: &BenchmarkEffect, outer: &Common, out: &mut Output) -> Result<(), Failure> {
    let (command, common) = inner(&what.of, outer)?;
    let place = command.place().ok_or_else(nothing_to_run)?;
    place::check(&command, &common)?;
    refuse_files(place)?;
    let with = Common { set: common.set.iter().chain(&what.with).cloned().collect(), ..common.clone() };
    let keys = keys(&what.with, &loaded(&common)?, &loaded(&with)?)?;
    tell_disk(&command, place);
    let (mut base, mut set) = (Vec::new(), Vec::new());
    let all = 2 * u64::from(what.rounds);
    let mut progress = Progress::new("benchmark effect", "runs", !outer.no_progress);
    for round in 0..what.rounds {
        // Whoever comes second finds another machine: each is it in turn.
        let mut sides = [(&common, &mut base), (&with, &mut set)];
        if round % 2 == 1 {
            sides.reverse();
        }
        for (at, (common, runs)) in (0_u64..).zip(sides) {
            progress.set(2 * u64::from(round) + at, all);
            let results = measured(&command, place, common)?;
            super::ended(&results)?;
            runs.push(results);
        }
    }
    drop(progress);
    let effect = effect(what, keys, &base, &set)?;
    if out.is_json() {
        return out.json(&effect);
    }
    out.text(&effect)?;
    out.line("")?;
    out.table(&COLUMNS, effect.changes.iter().map(row).collect())
}

/// The benchmark that was named behind `--`, with the flags of every command from before it and from behind.
fn inner(of: &[String], outer: &Common) -> Result<(BenchmarkCommand, Common), Failure> {
    let typed = ["caxton", "benchmark"].into_iter().chain(of.iter().map(String::as_str));
    let args = Args::try_parse_from(typed).map_err(|error| {
        let message = format!("behind `--`: {}", error.render().to_string().trim());
        Failure::new(Exit::Usage, message)
    })?;
    let (Command::Benchmark(command), common) = (args.command, args.common) else {
        return Err(nothing_to_run());
    };
    let outer = outer.clone();
    let set = outer.set.into_iter().chain(common.set).collect();
    let common = Common {
        data_dir: common.data_dir.or(outer.data_dir),
        config: common.config.or(outer.config),
        preset: common.preset.or(outer.preset),
        set,
        url: common.url.or(outer.url),
        api_key: common.api_key.or(outer.api_key),
        keyword_only: common.keyword_only || outer.keyword_only,
        model_path: common.model_path.or(outer.model_path),
        json: false,
        // Of each run; the runs have a bar of their own.
        no_progress: true,
    };
    Ok((command, common))
}

fn nothing_to_run() -> Failure {
    let message = "behind `--` stands a benchmark that measures, as in `-- storage --duration 10s`: memory, agents, embeddings, \
                   storage, system or scenario";
    Failure::new(Exit::Usage, message)
}

/// Refuses what is of a single run, and a server that nothing can be set of.
fn refuse_files(place: &BenchmarkPlace) -> Result<(), Failure> {
    let given = [
        ("--target", place.target.is_some(), "a running server has its configuration already"),
        (
            "--output",
            place.output.is_some(),
            "there are many runs; --json before `--` prints what came of them",
        ),
        ("--html", place.html.is_some(), "there are many runs, and a page shows one"),
        ("--intervals", place.intervals, "there are many runs; it shows the stretches of one"),
    ];
    match given.into_iter().find(|(_, is_given, _)| *is_given) {
        None => Ok(()),
        Some((flag, _, why)) => Err(Failure::new(
            Exit::Usage,
            format!("{flag} has no place behind `--` here: {why}; leave it out"),
        )),
    }
}

/// The configuration that a measured server has.
fn loaded(common: &Common) -> Result<Config, Failure> {
    // What it is started with itself, so that a key of these is refused as one that is given twice.
    let flags = vec![
        Flag::new("--port", "server.port", "0"),
        Flag::new("--metrics-port", "server.metrics_port", "null"),
        Flag::text("--data-dir", "server.data_dir", "a folder of its own"),
    ];
    let common = Common { data_dir: None, ..common.clone() };
    Ok(setup::load(&common, flags)?.config)
}

/// The keys that are set, each with both values. One that changes nothing would be measured for nothing.
fn keys(with: &[KeyValue], base: &Config, set: &Config) -> Result<Vec<Key>, Failure> {
    let key = |given: &KeyValue| {
        let (is, now) = (effect_of(base, &given.key), effect_of(set, &given.key));
        let refused = if let Some(reason) = now.without_effect {
            format!("{given} would change nothing: {reason}; `caxton config explain {}` says more", given.key)
        } else if is.value == now.value {
            format!("{} is {} already; give another value", given.key, is.value)
        } else {
            return Ok(Key { name: given.key.clone(), is: is.value, set: now.value });
        };
        Err(Failure::new(Exit::Usage, refused))
    };
    with.iter().map(key).collect()
}

/// What the runs say together.
fn effect(
    what: &BenchmarkEffect,
    keys: Vec<Key>,
    base: &[Results],
    set: &[Results],
) -> Result<Effect, Failure> {
    let (base, set) = (of_rounds(base), of_rounds(set));
    let comparison =
        compare(&base, &set, what.threshold).map_err(|error| Failure::of(Exit::Failed, &error))?;
    let left_out = base.remarks.into_iter().chain(set.remarks).chain(comparison.unmatched);
    let mut left_out: Vec<String> = left_out.collect();
    left_out.sort_unstable();
    left_out.dedup();
    Ok(Effect {
        benchmark: what.of.join(" "),
        keys,
        rounds: what.rounds,
        threshold: what.threshold,
        changes: comparison.changes,
        left_out,
    })
}

const COLUMNS: [&str; 7] = ["figure", "as it is", "set", "unit", "change", "95 % interval", ""];

fn row(change: &Change) -> Vec<String> {
    let word = match change.verdict {
        Verdict::Improvement => "better",
        Verdict::Regression => "worse",
        Verdict::Unsure => "unsure",
        Verdict::Same => "",
    };
    vec![
        change.name.clone(),
        format!("{:.3}", change.base),
        format!("{:.3}", change.current),
        change.unit.clone(),
        change.told.clone(),
        change.interval(),
        word.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use caxton_tools::benchmark::{Better, Figure};

    use super::*;
    use crate::config::load_text;

    fn typed(flags: &str) -> Result<(BenchmarkEffect, Common), String> {
        let words = ["caxton", "benchmark", "effect"].into_iter().chain(flags.split(' '));
        let args = Args::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Benchmark(BenchmarkCommand::Effect(what)) = args.command else { panic!("{flags}") };
        Ok((what, Common { url: None, config: None, preset: None, ..args.common }))
    }

    #[test]
    fn flags_hold_before_the_benchmark_and_behind() {
        let (what, common) =
            typed("--keyword-only --set a=1 --preset latency b=2 -- storage --set c=3").unwrap();
        let (command, common) = inner(&what.of, &common).unwrap();
        assert!(matches!(command, BenchmarkCommand::Storage(_)));
        assert!(common.keyword_only && common.no_progress && !common.json);
        let set: Vec<String> = common.set.iter().map(ToString::to_string).collect();
        assert_eq!(set, ["a=1", "c=3"], "what is set in every other run is not among them");
    }

    #[test]
    fn what_cannot_take_turns_is_refused() {
        let refused = |flags: &str| {
            let (what, common) = typed(flags)?;
            let (command, _) = inner(&what.of, &common).map_err(|failure| failure.to_string())?;
            let place = command.place().ok_or_else(|| nothing_to_run().to_string())?;
            refuse_files(place).map_err(|failure| failure.to_string())
        };
        assert_eq!(refused("a=1 -- storage --dir /d"), Ok(()));
        for (flags, told) in [
            ("a=1 -- compare a b", "behind `--` stands a benchmark that measures"),
            ("a=1 -- effect a=1 -- storage", "behind `--` stands a benchmark that measures"),
            ("a=1 -- storage --rounds 3", "unexpected argument '--rounds'"),
            ("a=1 -- storage --target http://a:1", "--target has no place"),
            ("a=1 -- storage --output a", "--output has no place"),
            ("a=1 -- storage --html a", "--html has no place"),
            ("a=1 -- storage --intervals", "--intervals has no place"),
            ("a=1 storage", "write KEY=VALUE"),
            ("a=1", "required"),
            ("-- storage", "required"),
            ("a=1 --rounds 1 -- storage", "2..=1000"),
        ] {
            let refused = refused(flags).unwrap_err();
            assert!(refused.contains(told), "{flags}: {refused}");
        }
    }

    #[test]
    fn a_key_that_changes_nothing_is_not_measured() {
        let config = |text: &str| load_text(text).unwrap().config;
        let found = |text: &str, set: &str, now: &str| {
            let (key, value) = set.split_once('=').unwrap();
            let given = [KeyValue { key: key.to_owned(), value: value.to_owned() }];
            keys(&given, &config(text), &config(now)).map_err(|failure| failure.to_string())
        };
        let rows =
            found("", "memory.sqlite_config.mmap_size_mb=0", "memory: {sqlite_config: {mmap_size_mb: 0}}");
        let key = Key {
            name: "memory.sqlite_config.mmap_size_mb".to_owned(),
            is: serde_json::json!(512),
            set: serde_json::json!(0),
        };
        assert_eq!(rows, Ok(vec![key]));
        let same =
            found("", "http_server.compression_level=6", "http_server: {compression_level: 6}").unwrap_err();
        assert!(same.contains("is 6 already; give another value"), "{same}");
        let off = "http_server: {enable_compression: false, compression_level: 9}";
        let off = found("http_server: {enable_compression: false}", "http_server.compression_level=9", off)
            .unwrap_err();
        assert!(off.contains("would change nothing: http_server.enable_compression is false"), "{off}");
    }

    #[test]
    fn runs_say_together_what_changed() {
        let (what, _) = typed("a=1 --rounds 3 -- storage").unwrap();
        let results = |latency: f64, rate: f64| Results {
            figures: vec![
                Figure::new("write p50", latency, "ms", Better::Lower),
                Figure::new("read rate", rate, "1/s", Better::Higher),
            ],
            ..Results::new("storage")
        };
        let base = [results(1.0, 100.0), results(1.1, 101.0), results(0.9, 99.0)];
        let set = [results(2.0, 100.0), results(2.1, 101.0), results(1.9, 99.0)];
        let found = effect(&what, Vec::new(), &base, &set).unwrap();
        let rows: Vec<_> = found.changes.iter().map(row).collect();
        assert_eq!(rows[0][..5], ["write p50", "1.000", "2.000", "ms", "+100.0 %"]);
        assert_eq!([&*rows[0][6], &*rows[1][6]], ["worse", ""]);
        assert_eq!(found.to_string(), "3 runs of `benchmark storage` each, in turns\n");
    }
}
