//! The flags of every benchmark: which of them go together, and what of them is kept with the results.

use std::path::Path;

use caxton_tools::benchmark::Setting;

use super::run::setting;
use crate::cli::args::{BenchmarkCommand, BenchmarkPlace, Common};
use crate::cli::failure::{Exit, Failure};
use crate::config::format_duration;

/// Refuses flags that would have no effect, and a server that nobody named to be measured.
pub(super) fn check(command: &BenchmarkCommand, common: &Common) -> Result<(), Failure> {
    let (place, has_rate) = match command {
        BenchmarkCommand::Memory(what) => (&what.place, false),
        BenchmarkCommand::Embeddings(what) => (&what.place, false),
        BenchmarkCommand::Agents(what) => (&what.place, true),
        BenchmarkCommand::Storage(what) => (&what.place, true),
        BenchmarkCommand::System(what) => (&what.place, true),
        BenchmarkCommand::Scenario(what) => (&what.place, true),
        BenchmarkCommand::Compare(_) => return Ok(()),
    };
    if !has_rate && !place.ramp_up.is_zero() {
        let what = "--ramp-up has no effect here: each connection sends when the answer before is there, at no rate; leave it out";
        return Err(Failure::new(Exit::Usage, what));
    }
    if matches!(command, BenchmarkCommand::Embeddings(_)) && place.connections.is_some() {
        let what = "--connections has no effect here: --parallel-threads says how many requests are under way; leave it out";
        return Err(Failure::new(Exit::Usage, what));
    }
    server(place.target.as_deref(), common.url.as_deref(), place.dir.as_deref())
}

/// Whether it is clear which server is measured. One that other commands talk to, by the environment at that, is filled with
/// agents and messages only when it is named for it.
fn server(target: Option<&str>, url: Option<&str>, dir: Option<&Path>) -> Result<(), Failure> {
    let message = match (target, url, dir) {
        (None, Some(url), _) => format!(
            "--url or CAXTON_URL names {url}, and a benchmark starts a server of its own where none is named with --target; give \
             --target {url} to measure that one, which keeps what is written there, or leave --url out and unset CAXTON_URL"
        ),
        (Some(url), _, Some(dir)) => format!(
            "--dir {} is where a server is started, and --target {url} names one that runs already; leave one of them out",
            dir.display()
        ),
        _ => return Ok(()),
    };
    Err(Failure::new(Exit::Usage, message))
}

/// Those that change what is measured, and, of a server that is started for it, what it does.
pub(super) fn settings(place: &BenchmarkPlace, common: &Common) -> Vec<Setting> {
    let connections = place.connections.map(|count| setting("connections", &count));
    let dir = place.dir.as_ref().map(|dir| setting("dir", &dir.display()));
    let ramp_up = setting("ramp-up", &format_duration(place.ramp_up));
    let mut settings: Vec<Setting> = connections.into_iter().chain(dir).chain([ramp_up]).collect();
    if place.target.is_none() {
        let preset = common.preset.map(|preset| setting("preset", &preset.name()));
        let config = common.config.as_ref().map(|config| setting("config", &config.display()));
        let model_path = common.model_path.as_ref().map(|dir| setting("model-path", &dir.display()));
        let keyword_only = common.keyword_only.then(|| setting("keyword-only", &true));
        settings.extend([preset, config, model_path, keyword_only].into_iter().flatten());
    }
    settings
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser as _;

    use super::{BenchmarkCommand, Common, Exit, check, server, settings};
    use crate::cli::args::{Args, Command};

    fn typed(flags: &str) -> (BenchmarkCommand, Common) {
        let args = Args::try_parse_from(["caxton", "benchmark"].into_iter().chain(flags.split(' '))).unwrap();
        let Command::Benchmark(command) = args.command else { panic!("{flags}") };
        // What the environment of the tests says is none of theirs.
        (command, Common { url: None, config: None, preset: None, ..args.common })
    }

    #[test]
    fn a_server_is_measured_when_it_is_named_for_that() {
        let (one, other, dir) = (Some("http://a:1"), Some("http://b:2"), Some(Path::new("/d")));
        for (target, url, dir, told) in [
            (None, None, None, None),
            (None, None, dir, None),
            (one, None, None, None),
            (one, other, None, None),
            (None, other, None, Some("--target http://b:2 to measure")),
            (None, other, dir, Some("unset CAXTON_URL")),
            (one, None, dir, Some("--dir /d is where")),
            (one, other, dir, Some("leave one of them out")),
        ] {
            let found = server(target, url, dir);
            assert_eq!(found.is_err(), told.is_some(), "{target:?} {url:?} {dir:?}");
            if let (Err(failure), Some(told)) = (found, told) {
                assert_eq!(failure.exit, Some(Exit::Usage));
                assert!(failure.to_string().contains(told), "{failure}");
            }
        }
    }

    #[test]
    fn a_flag_without_an_effect_is_refused() {
        for (flags, told) in [
            ("memory --ramp-up 1s", Some("--ramp-up has no effect")),
            ("embeddings --ramp-up 1s", Some("--ramp-up has no effect")),
            ("embeddings --connections 4", Some("--parallel-threads says")),
            ("memory --dir /d --target http://a:1", Some("--dir /d is where")),
            ("memory --connections 4 --ramp-up 0s", None),
            ("storage --connections 4 --ramp-up 1s", None),
            ("system --ramp-up 1s", None),
            ("scenario peak --ramp-up 1s", None),
            ("compare a b", None),
        ] {
            let (command, common) = typed(flags);
            let failure = check(&command, &common).err();
            assert_eq!(failure.is_some(), told.is_some(), "{flags}: {failure:?}");
            assert!(
                failure.is_none_or(|it| told.is_some_and(|told| it.to_string().contains(told))),
                "{flags}"
            );
        }
    }

    #[test]
    fn every_flag_that_changes_what_is_measured_is_kept() {
        let kept = |flags: &str| {
            let (command, common) = typed(flags);
            let BenchmarkCommand::Memory(what) = command else { panic!("{flags}") };
            let typed = settings(&what.place, &common).into_iter().filter_map(|setting| setting.typed());
            typed.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(kept("memory"), "--ramp-up 0s");
        let own = "memory --connections 8 --dir /d --model-path /m --keyword-only";
        assert_eq!(kept(own), "--connections 8 --dir /d --ramp-up 0s --model-path /m --keyword-only");
        let there = "memory --connections 8 --target http://a:1 --keyword-only";
        assert_eq!(
            kept(there),
            "--connections 8 --ramp-up 0s",
            "the server that is named has flags of its own"
        );
    }
}
