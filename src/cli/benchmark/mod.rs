//! `caxton benchmark`: a server is measured from outside, as its users see it.
//!
//! Reading order: `place` (flags of all benchmarks), `schedule` (when operations are due), `load` (sending them), `record` (what
//! became of them), `instance` (the server), `run` (a run under way), then a file for each benchmark, then `effect` (runs in turns,
//! with a key set and without). What is kept of a run and how two are compared is in `caxton_tools::benchmark`.

mod agents;
mod door;
mod effect;
mod embeddings;
mod instance;
mod load;
mod made;
mod memory;
mod place;
mod record;
mod run;
mod scenarios;
mod schedule;
mod storage;
mod system;
mod target;
mod traffic;
mod words;

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use caxton_tools::benchmark::results::PROFILE;
use caxton_tools::benchmark::{
    Figure, Grade, Interval, Machine, Part, Percentiles, Results, Setting, compare, page, read_run,
};

use super::args::{BenchmarkCommand, BenchmarkCompare, BenchmarkPlace, Common};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::transfer::{is_dash, is_device, is_free, write_out};
use super::whole_output::WholeFile;
use crate::config::format_duration;
use crate::engine::SystemClock;
use caxton_events::Clock as _;
use instance::Instance;
use run::{Run, setting};
use scenarios::Scenario;
use words::Words;

/// Bytes on disk from which a run says what it will take.
const TOLD_BYTES: u64 = 100_000_000;

/// Runs it.
pub(super) fn run(command: &BenchmarkCommand, common: &Common, out: &mut Output) -> Result<(), Failure> {
    place::check(command, common)?;
    let place = match (command, command.place()) {
        (BenchmarkCommand::Compare(what), _) => return compared(what, out),
        (BenchmarkCommand::Effect(what), _) => return effect::run(what, common, out),
        (_, None) => return Ok(()),
        (_, Some(place)) => place,
    };
    // Found out now, not when the run is over.
    for file in [&place.output, &place.html].into_iter().flatten() {
        is_writable(file).map_err(|error| Failure::file("write", file, &error))?;
    }
    tell_disk(command, place);
    let results = measured(command, place, common)?;
    end(&results, place, out)
}

/// Measures once.
fn measured(command: &BenchmarkCommand, place: &BenchmarkPlace, common: &Common) -> Result<Results, Failure> {
    if let BenchmarkCommand::Agents(what) = command {
        agents::check(what)?;
    }
    if let BenchmarkCommand::Scenario(what) = command {
        scenarios::check(what)?;
    }
    let prepare = |folder: &Path| {
        let BenchmarkCommand::Agents(what) = command else { return Ok(None) };
        agents::prepare(folder, what.agents, common.config.as_deref())
    };
    let mut run = begin(plan(command), place, common, &prepare)?;
    match command {
        BenchmarkCommand::Memory(what) => memory::run(&mut run, what)?,
        BenchmarkCommand::Agents(what) => agents::run(&mut run, what)?,
        BenchmarkCommand::Embeddings(what) => embeddings::run(&mut run, what)?,
        BenchmarkCommand::Storage(what) => storage::run(&mut run, what, common.no_progress)?,
        BenchmarkCommand::System(what) => system::run(&mut run, what)?,
        BenchmarkCommand::Scenario(what) => scenarios::run(&mut run, what)?,
        // These set side by side what others measured.
        BenchmarkCommand::Effect(_) | BenchmarkCommand::Compare(_) => (),
    }
    Ok(run.results)
}

/// Bytes that it takes on disk at the most, as far as that is known.
fn disk_bytes(command: &BenchmarkCommand) -> u64 {
    match command {
        BenchmarkCommand::Memory(what) => memory::disk_bytes(what.entities, what.relations),
        BenchmarkCommand::Agents(what) => {
            let talked = what.conversations_per_second * what.duration.as_secs_f64();
            (talked * agents::TURN_DISK_BYTES) as u64
        }
        BenchmarkCommand::Storage(what) => {
            let written = (what.write_ops_per_second * what.duration.as_secs_f64()) as u64;
            memory::disk_bytes(storage::ENTITIES + written / 3, 0)
        }
        BenchmarkCommand::System(what) => system::disk_bytes(what),
        BenchmarkCommand::Scenario(what) => {
            let scenario = Scenario::of(what.name, what.duration);
            scenario.disk_bytes(what.batch, what.place.ramp_up)
        }
        BenchmarkCommand::Embeddings(_) | BenchmarkCommand::Effect(_) | BenchmarkCommand::Compare(_) => 0,
    }
}

/// Says what a run will take on disk, where that is much.
fn tell_disk(command: &BenchmarkCommand, place: &BenchmarkPlace) {
    let disk = disk_bytes(command);
    if disk >= TOLD_BYTES && place.target.is_none() {
        let folder = place.dir.clone().unwrap_or_else(std::env::temp_dir);
        // Nobody may be there to read it.
        let _ = writeln!(
            io::stderr(),
            "this takes up to {} GB below {}, which is removed at the end",
            gigabytes(disk),
            folder.display()
        );
    }
}

/// Its name, and its flags for the results.
fn plan(command: &BenchmarkCommand) -> (&'static str, Vec<Setting>) {
    match command {
        BenchmarkCommand::Memory(what) => {
            let settings = vec![
                setting("entities", &what.entities),
                setting("relations", &what.relations),
                setting("search-queries", &what.search_queries),
                setting("duration", &format_duration(what.duration)),
            ];
            ("memory", settings)
        }
        BenchmarkCommand::Agents(what) => {
            let settings = vec![
                setting("agents", &what.agents),
                setting("conversations-per-second", &what.conversations_per_second),
                setting("duration", &format_duration(what.duration)),
                setting("response-timeout", &format_duration(what.response_timeout)),
            ];
            ("agents", settings)
        }
        BenchmarkCommand::Embeddings(what) => {
            let mut settings = vec![
                setting("batch-size", &what.batch_size),
                setting("total-embeddings", &what.total_embeddings),
                setting("parallel-threads", &what.parallel_threads),
            ];
            settings.extend(what.duration.map(|lasts| setting("duration", &format_duration(lasts))));
            ("embeddings", settings)
        }
        BenchmarkCommand::Storage(what) => {
            let settings = vec![
                setting("write-ops-per-second", &what.write_ops_per_second),
                setting("read-ops-per-second", &what.read_ops_per_second),
                setting("duration", &format_duration(what.duration)),
            ];
            ("storage", settings)
        }
        BenchmarkCommand::System(what) => {
            let settings = vec![
                setting("agents", &what.agents),
                setting("memory-entities", &what.memory_entities),
                setting("concurrent-conversations", &what.concurrent_conversations),
                setting("find-limits", &what.find_limits),
                setting("duration", &format_duration(what.duration)),
                setting("rate", &what.rate),
            ];
            ("system", settings)
        }
        BenchmarkCommand::Scenario(what) => {
            let scenario = Scenario::of(what.name, what.duration);
            let settings = vec![
                setting("scenario", &what.name.name()),
                setting("duration", &format_duration(scenario.lasts)),
                setting("batch", &what.batch),
            ];
            ("scenario", settings)
        }
        BenchmarkCommand::Effect(_) => ("effect", Vec::new()),
        BenchmarkCommand::Compare(_) => ("compare", Vec::new()),
    }
}

/// Where a run is prepared, and what for.
type Prepare<'a> = &'a dyn Fn(&Path) -> Result<Option<std::path::PathBuf>, Failure>;

/// Starts the server, or finds the one that was named.
fn begin<'a>(
    (name, mut settings): (&str, Vec<Setting>),
    place: &BenchmarkPlace,
    common: &'a Common,
    prepare: Prepare<'_>,
) -> Result<Run<'a>, Failure> {
    settings.extend(place::settings(place, common));
    let instance = Instance::open(common, place.target.as_deref(), place.dir.as_deref(), prepare)?;
    let results = Results {
        settings,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        profile: Some(PROFILE.to_owned()),
        started_at: SystemClock.now(),
        machine: Machine::here(),
        ..Results::new(name)
    };
    let own = instance.target().is_none();
    let words = if own { Words::OWN_SERVER } else { Words::drawn()? };
    let mut run = Run::new(common, instance, place.connections.map(usize::from), words, results);
    if !own {
        run.remark(format!("what this run leaves on the server has {} in its names", words.mark()));
    }
    if cfg!(debug_assertions) {
        run.remark("this is a development build: its figures say nothing about a release");
    }
    Ok(run)
}

/// Whether a file can be written in this place. Nothing is left there, and what is there stays.
fn is_writable(file: &Path) -> io::Result<()> {
    match fs::OpenOptions::new().append(true).open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => (),
        opened => drop(opened?),
    }
    if is_device(file) {
        return Ok(());
    }
    // It is written beside its place and moved there.
    let folder = folder_of(file);
    fs::metadata(folder)?;
    // A file without a name, which is gone when it is closed.
    tempfile::tempfile_in(folder).map(drop)
}

/// The folder that a file is in.
fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file whole, or not at all.
fn write_whole(file: &Path, text: &str) -> Result<(), Failure> {
    let written = WholeFile::create(file).and_then(|mut whole| {
        whole.write_all(text.as_bytes())?;
        whole.finish()
    });
    written.map_err(|error| Failure::file("write", file, &error))
}

/// In gigabytes with a digit, rounded up: it is what must be free.
fn gigabytes(bytes: u64) -> String {
    format!("{:.1}", (bytes as f64 / 1e8).ceil() / 10.0)
}

/// Shows what was found, and writes it where that was asked.
fn end(results: &Results, place: &BenchmarkPlace, out: &mut Output) -> Result<(), Failure> {
    if let Some(file) = &place.output {
        let text = serde_json::to_string_pretty(results)
            .map_err(|error| Failure::new(Exit::Failed, format!("could not write the results: {error}")))?;
        write_whole(file, &(text + "\n"))?;
    }
    if let Some(file) = &place.html {
        write_whole(file, &page(results))?;
    }
    if out.is_json() {
        out.json(results)?;
    } else {
        shown(results, place.intervals, out)?;
    }
    ended(results)
}

/// Whether the run measured what it was to measure. Grades do not count: they say how the server does, `compare` says whether it
/// became worse.
fn ended(results: &Results) -> Result<(), Failure> {
    let undone = results.parts.iter().filter(|part| part.done == 0 && !part.failed.is_empty());
    let undone: Vec<&str> = undone.map(|part| part.name.as_str()).collect();
    if undone.is_empty() {
        return Ok(());
    }
    let message = format!("nothing was done of {}; what was refused stands above", undone.join(", "));
    Err(Failure::new(Exit::Failed, message))
}

/// What is shown of each operation and of each stretch.
const RATES: [&str; 9] =
    ["done", "failed", "per second", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "p99.9 ms", "max ms"];

/// The results as tables.
fn shown(results: &Results, intervals: bool, out: &mut Output) -> Result<(), Failure> {
    out.text(results)?;
    let (parts, figures) = (&results.parts, &results.figures);
    out.table(&[&["operation"], RATES.as_slice()].concat(), parts.iter().map(part_row).collect())?;
    for part in parts {
        for (why, count) in &part.failed {
            out.line(format_args!("{}: {count} × {why}", part.name))?;
        }
    }
    if intervals {
        out.line("")?;
        let rows = parts.iter().flat_map(|part| part.intervals.iter().map(|one| interval_row(part, one)));
        out.table(&[&["operation", "from s"], RATES.as_slice()].concat(), rows.collect())?;
    }
    out.line("")?;
    out.table(
        &["figure", "value", "unit", "target", "acceptable", "critical", "grade"],
        figures.iter().map(figure_row).collect(),
    )?;
    match figures.iter().filter(|figure| figure.grade == Some(Grade::Fail)).count() {
        0 => Ok(()),
        missed => out.line(format_args!("{missed} beyond what is critical")),
    }
}

fn part_row(part: &Part) -> Vec<String> {
    let mut row = vec![
        part.name.clone(),
        part.done.to_string(),
        part.failed.values().sum::<u64>().to_string(),
        format!("{:.1}", part.per_second),
    ];
    let Some(Percentiles { p50, p90, p95, p99, p999, max }) = part.latency else { return row };
    row.extend([p50, p90, p95, p99, p999, max].map(|micros| format!("{:.3}", micros / 1e3)));
    row
}

/// A stretch; those in which the rate was still growing have a mark.
fn interval_row(part: &Part, interval: &Interval) -> Vec<String> {
    let Interval { at, done, failed, p50, p90, p95, p99, p999, max, .. } = *interval;
    let grows = if at < part.ramp_up_seconds { " ramp-up" } else { "" };
    let mut row = vec![
        part.name.clone(),
        format!("{at:.0}{grows}"),
        done.to_string(),
        failed.to_string(),
        format!("{:.1}", interval.per_second()),
    ];
    row.extend([p50, p90, p95, p99, p999, max].map(|micros| format!("{:.3}", micros / 1e3)));
    row
}

fn figure_row(figure: &Figure) -> Vec<String> {
    let bound = |of: fn(&caxton_tools::benchmark::Target) -> f64| {
        figure.target.as_ref().map_or_else(String::new, |target| of(target).to_string())
    };
    vec![
        figure.name.clone(),
        format!("{:.3}", figure.value),
        figure.unit.clone(),
        bound(|target| target.target),
        bound(|target| target.acceptable),
        bound(|target| target.critical),
        figure.grade.map_or_else(String::new, |grade| grade.to_string()),
    ]
}

/// Refuses to replace what is there, unless that is wanted. An empty file was made to be written to, as that of
/// `GITHUB_STEP_SUMMARY`.
fn may_write(file: &Path, force: bool) -> Result<(), Failure> {
    let is_empty = fs::metadata(file).is_ok_and(|there| there.is_file() && there.len() == 0);
    if is_empty || is_open_already(file) { Ok(()) } else { is_free(file, force) }
}

/// Writes a report for others to read, into the file that is there, if one is: whoever made it, or has it open, looks for it there.
fn report(file: &Path, text: &str) -> Result<(), Failure> {
    if is_dash(file) || is_standard_output(file) {
        return write_out(Path::new("-"), |out| out.write_all(text.as_bytes()));
    }
    let mut options = fs::OpenOptions::new();
    if is_open_already(file) {
        options.append(true);
    } else {
        options.write(true).create(true).truncate(true);
    }
    let written = options.open(file).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| Failure::file("write", file, &error))
}

/// Whether this names what a process has open, as `/dev/stderr` does: what was written there stays.
fn is_open_already(file: &Path) -> bool {
    // `/dev/stderr` leads to `/proc/self/fd/2`.
    let leads_to = fs::read_link(file).unwrap_or_default();
    let folder = file.parent().and_then(|folder| folder.canonicalize().ok()).unwrap_or_default();
    leads_to.starts_with("/proc") || (file.is_symlink() && folder.starts_with("/proc"))
}

/// Whether this leads where standard output does: opened once more, a file would be written to at two places.
fn is_standard_output(file: &Path) -> bool {
    let place = |path: &Path| fs::metadata(path).ok().map(|there| (there.dev(), there.ino()));
    place(file).is_some_and(|there| Some(there) == place(Path::new("/dev/stdout")))
}

/// Sets two files side by side.
fn compared(what: &BenchmarkCompare, out: &mut Output) -> Result<(), Failure> {
    if let Some(file) = &what.markdown {
        may_write(file, what.force)?;
    }
    let read = |path: &Path| read_run(path).map_err(|error| Failure::of(Exit::Usage, &error));
    let comparison = compare(&read(&what.base)?, &read(&what.current)?, what.threshold);
    let comparison = comparison.map_err(|error| Failure::of(Exit::Usage, &error))?;
    if let Some(file) = &what.markdown {
        report(file, &comparison.markdown())?;
    }
    out.value(&comparison)?;
    let worse: Vec<&str> = comparison.regressions().map(|change| change.name.as_str()).collect();
    let mut wrong = Vec::new();
    if !worse.is_empty() {
        wrong.push(format!("{} became worse: {}", worse.len(), worse.join(", ")));
    }
    // What is not measured any more may have become as bad as can be.
    if !comparison.missing.is_empty() && !what.allow_missing {
        let (count, names) = (comparison.missing.len(), comparison.missing.join(", "));
        wrong.push(format!(
            "{count} of the base are not in the current run: {names}; run the same benchmark with the same flags for both, or let \
             it lack them with --allow-missing"
        ));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Failed, wrong.join("\n"))) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::{
        Exit, Figure, Grade, Part, Results, ended, gigabytes, is_writable, may_write, report, write_whole,
    };
    use caxton_tools::benchmark::{Better, Target};

    /// A run in which so many operations were done and so many not.
    fn results((done, failed): (u64, u64)) -> Results {
        let slow = Figure::new("message p99", 1e6, "ms", Better::Lower);
        let refused = (failed > 0).then(|| ("429".to_owned(), failed));
        let part = Part {
            name: "message".to_owned(),
            done,
            failed: refused.into_iter().collect::<BTreeMap<_, _>>(),
            seconds: 1.0,
            ramp_up_seconds: 0.0,
            offered_per_second: None,
            planned_seconds: None,
            per_second: done as f64,
            latency: None,
            intervals: Vec::new(),
            histogram: Vec::new(),
        };
        Results {
            parts: vec![part],
            figures: vec![slow.against(Target::MESSAGE_P99_MS)],
            ..Results::new("scenario")
        }
    }

    #[test]
    fn a_run_fails_when_it_measured_nothing_and_not_by_its_grades() {
        let slow = results((10, 90));
        assert_eq!(slow.figures[0].grade, Some(Grade::Fail));
        assert!(ended(&slow).is_ok() && ended(&results((0, 0))).is_ok());
        let failure = ended(&results((0, 7))).unwrap_err();
        assert_eq!(failure.exit, Some(Exit::Failed));
        assert!(failure.to_string().contains("nothing was done of message"), "{failure}");
    }

    #[test]
    fn whether_a_file_can_be_written_is_found_out_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        let left = || fs::read_dir(folder.path()).unwrap().count();
        let (old, new) = (folder.path().join("old.json"), folder.path().join("new.json"));
        fs::write(&old, "old").unwrap();
        assert!(is_writable(&old).is_ok() && is_writable(&new).is_ok());
        assert_eq!((left(), fs::read_to_string(&old).unwrap().as_str()), (1, "old"));
        assert!(is_writable(folder.path()).is_err(), "a folder");
        let nowhere = is_writable(&folder.path().join("no/new.json")).unwrap_err();
        assert_eq!(nowhere.kind(), io::ErrorKind::NotFound);
        assert!(write_whole(&old, "new").is_ok());
        assert_eq!((left(), fs::read_to_string(&old).unwrap().as_str()), (1, "new"));
    }

    #[test]
    fn a_report_is_written_into_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let [plain, summary, link, full] =
            ["plain.md", "summary.md", "link.md", "full.md"].map(|name| folder.path().join(name));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        fs::write(&plain, "").unwrap();
        assert!(may_write(&summary, false).is_ok() && report(&summary, "new").is_ok());
        assert_eq!(mode(&summary), mode(&plain), "whoever may read other files may read it");
        // As a workflow makes it: empty, and perhaps somewhere else.
        symlink(&plain, &link).unwrap();
        assert!(may_write(&link, false).is_ok() && report(&link, "new").is_ok());
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&plain).unwrap(), "new");
        fs::write(&full, "a longer text").unwrap();
        assert!(may_write(&full, false).is_err());
        assert!(may_write(&full, true).is_ok() && report(&full, "new").is_ok());
        assert_eq!(fs::read_to_string(&full).unwrap(), "new");
    }

    #[test]
    fn what_must_be_free_is_rounded_up() {
        for (bytes, told) in
            [(100_000_000, "0.1"), (100_000_001, "0.2"), (449_280_000, "0.5"), (15_000_000_000, "15.0")]
        {
            assert_eq!(gigabytes(bytes), told);
        }
    }
}
