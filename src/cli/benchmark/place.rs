//! The flags of every benchmark: which of them go together, and what of them is kept with the results.

use std::path::{Path, PathBuf};

use caxton_tools::benchmark::Setting;

use super::run::setting;
use super::{folder_of, is_open_already, may_write};
use crate::cli::args::{BenchmarkCommand, BenchmarkPlace, Common};
use crate::cli::failure::{Exit, Failure};
use crate::cli::transfer::{is_dash, is_device};
use crate::config::format_duration;

/// Refuses flags that would have no effect, files that are not to be replaced, and a server that nobody named to be measured.
pub(super) fn check(command: &BenchmarkCommand, common: &Common) -> Result<(), Failure> {
    let Some(place) = command.place() else { return Ok(()) };
    let has_rate = !matches!(command, BenchmarkCommand::Memory(_) | BenchmarkCommand::Embeddings(_));
    if let (Some(target), Some(set)) = (&place.target, common.set.first()) {
        let message = format!(
            "--set {set} has no effect on the server at {target}, which has a configuration of its own; leave --set out"
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    if !has_rate && !place.ramp_up.is_zero() {
        let what = "--ramp-up has no effect here: each connection sends when the answer before is there, at no rate; leave it out";
        return Err(Failure::new(Exit::Usage, what));
    }
    if matches!(command, BenchmarkCommand::Embeddings(_)) && place.connections.is_some() {
        let what = "--connections has no effect here: --parallel-threads says how many requests are under way; leave it out";
        return Err(Failure::new(Exit::Usage, what));
    }
    files(place)?;
    server(place.target.as_deref(), common.url.as_deref(), place.dir.as_deref())
}

/// Whether each file that is to be written is one of its own, and not there yet unless it may be replaced.
fn files(place: &BenchmarkPlace) -> Result<(), Failure> {
    let (output, html) = (place.output.as_deref(), place.html.as_deref());
    for (flag, file, example) in [("--output", output, "results.json"), ("--html", html, "page.html")] {
        let Some(file) = file else { continue };
        // A file is put in its place when it is whole; what a process has open would be put aside by that.
        if is_dash(file) || (is_open_already(file) && !is_device(file)) {
            let message = format!(
                "{flag} {} is no file of its own; name one, as in {flag} {example}, or have the results on standard output with \
                 --json",
                file.display()
            );
            return Err(Failure::new(Exit::Usage, message));
        }
        may_write(file, place.force)?;
    }
    match (output, html) {
        (Some(output), Some(html)) if !is_device(output) && place_of(output) == place_of(html) => {
            let message = format!("--output and --html both name {}; name two files", output.display());
            Err(Failure::new(Exit::Usage, message))
        }
        _ => Ok(()),
    }
}

/// Where a file is, however it is named.
fn place_of(file: &Path) -> PathBuf {
    file.canonicalize().unwrap_or_else(|_| {
        let folder = folder_of(file);
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        folder.join(file.file_name().unwrap_or_default())
    })
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
        // One flag, however often it was given: two runs are compared flag by flag.
        let set: Vec<String> = common.set.iter().map(ToString::to_string).collect();
        let set = (!set.is_empty()).then(|| setting("set", &set.join(" --set ")));
        settings.extend([preset, config, model_path, keyword_only, set].into_iter().flatten());
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
            (
                "memory --set a.b=1 --target http://a:1",
                Some("--set a.b=1 has no effect on the server at http://a:1"),
            ),
            ("memory --set a.b=1", None),
            ("scenario peak --ramp-up 1s", None),
            ("compare a b", None),
            (
                "memory --output -",
                Some("--output - is no file of its own; name one, as in --output results.json"),
            ),
            ("memory --html -", Some("name one, as in --html page.html")),
            ("memory --output nowhere/a --html nowhere/a", Some("--output and --html both name nowhere/a;")),
            ("memory --output a --html ./a", Some("name two files")),
            ("memory --output /dev/null --html /dev/null", None),
            ("memory --output a --html b", None),
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
    fn files_that_are_there_are_replaced_when_that_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let [full, empty, link] =
            ["full.json", "empty.json", "link.json"].map(|name| folder.path().join(name));
        std::fs::write(&full, "kept").unwrap();
        std::fs::write(&empty, "").unwrap();
        std::os::unix::fs::symlink(&empty, &link).unwrap();
        let told = |flags: &str| {
            let (command, common) = typed(flags);
            check(&command, &common).err().map(|failure| (failure.exit, failure.to_string()))
        };
        let (full, empty, link) = (full.display(), empty.display(), link.display());
        for flag in ["--output", "--html"] {
            let refused = told(&format!("memory {flag} {full}"));
            assert_eq!(refused.as_ref().and_then(|(exit, _)| *exit), Some(Exit::Usage), "{refused:?}");
            assert!(refused.is_some_and(|(_, text)| text.contains("or replace it with --force")), "{flag}");
            assert_eq!(told(&format!("memory {flag} {full} --force")), None);
            assert_eq!(told(&format!("memory {flag} {empty}")), None, "it was made to be written to");
        }
        let same = told(&format!("memory --output {empty} --html {link}"));
        assert!(same.is_some_and(|(_, text)| text.contains("name two files")));
        let same = told(&format!("memory --output {full} --html {full} --force"));
        assert!(same.is_some_and(|(_, text)| text.contains("name two files")));
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
        let set = "memory --set a.b=1 --set c=[2]";
        assert_eq!(kept(set), "--ramp-up 0s --set a.b=1 --set c=[2]");
        let there = "memory --connections 8 --target http://a:1 --keyword-only";
        assert_eq!(
            kept(there),
            "--connections 8 --ramp-up 0s",
            "the server that is named has flags of its own"
        );
    }
}
