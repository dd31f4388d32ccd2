//! Forks of a long log, cut at several places, while its server would go on; and the drop of its beginning.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_events::log::{
    Batch, Durability, Filter, ForkOptions, Log, LogOptions, TrimOptions, drop_before, fork_log,
};
use caxton_events::memory::Validity;
use caxton_events::{Clock, Draft, MemoryEvent, MemoryId, Seq, Timestamp};

/// Events appended together.
const BATCH_EVENTS: u64 = 4_096;
/// The bar: a fork takes no longer, whatever the size.
const FORK_MAX: Duration = Duration::from_secs(1);

/// What is measured.
pub(crate) struct Options {
    /// Folder to work in.
    pub(crate) dir: PathBuf,
    /// Events in the log.
    pub(crate) events: u64,
}

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(1_795_000_000_000_000)
    }
}

/// About 200 bytes as they are stored.
fn draft(n: u64) -> Draft {
    let event = MemoryEvent::ObservationAdded {
        id: MemoryId(n),
        entity: MemoryId(n / 2),
        content: format!("observation number {n:012}, {}", "of some length ".repeat(8)),
        validity: Validity::default(),
    };
    let (stream, actor) = ("agent:ada".to_owned(), "ada".to_owned());
    Draft { stream, actor, correlation: None, causation: None, event: event.into() }
}

fn written(dir: &Path, events: u64) -> Log {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).unwrap();
    let options = LogOptions { durability: Durability::Off, ..LogOptions::new([7; 16]) };
    let log = Log::open(dir, options, Arc::new(Noon)).unwrap();
    let mut next = 0;
    while next < events {
        let drafts = (next..(next + BATCH_EVENTS).min(events)).map(draft).collect();
        next = log.append(vec![Batch::of(drafts)]).unwrap().remove(0).unwrap().last.0;
    }
    log
}

fn seconds(took: Duration) -> String {
    format!("{:.3} s", took.as_secs_f64())
}

/// Measures and adds its rows to the table.
pub(crate) fn forks(options: &Options, table: &mut super::Table) {
    let parent = options.dir.join("parent");
    let log = written(&parent, options.events);
    // What a server has on disk before it is asked.
    log.seal().unwrap();
    let appended = log.append(vec![Batch::of((0..100).map(draft).collect())]).unwrap();
    assert!(appended.iter().all(Result::is_ok));
    let stats = log.reader().stats().unwrap();
    table.note("size of the log", format!("{} events, {} MB", stats.events, stats.file_bytes >> 20));
    let started = Instant::now();
    let sealed = log.seal().unwrap();
    table.note("seal of a running log", seconds(started.elapsed()));
    let head = log.head().seq.0;
    for (place, cut) in
        [("the first event", 1), ("a third", head / 3), ("a half", head / 2), ("the end", head)]
    {
        let to = options.dir.join(format!("fork-{cut}"));
        fs::create_dir(&to).unwrap();
        let what = ForkOptions { cut: Seq(cut), log_id: [9; 16], at: Noon.now() };
        let started = Instant::now();
        let forked = fork_log(&sealed, &what, &to, None).unwrap();
        let took = started.elapsed();
        assert_eq!(forked.root, log.reader().head_at(cut).unwrap().root);
        table.row(format!("fork at {place} (#{cut})"), seconds(took), "≤ 1 s", took <= FORK_MAX);
        let started = Instant::now();
        let fork = Log::open(&to, LogOptions::new([9; 16]), Arc::new(Noon)).unwrap();
        table.note(format!("opening it, #{cut}"), seconds(started.elapsed()));
        let last = fork.reader().scan_back(Seq(cut), &Filter::default()).next().unwrap().unwrap();
        assert_eq!(last.seq, Seq(cut));
        fork.close().unwrap();
        fs::remove_dir_all(&to).unwrap();
    }
    log.close().unwrap();
    let before =
        TrimOptions { before: Seq(head / 10 * 9), at: Noon.now(), by: "bench".to_owned(), forks_keep: false };
    let started = Instant::now();
    let trimmed = drop_before(&parent, &before).unwrap().unwrap();
    let figure = format!(
        "{}, {} events, {} MB given back",
        seconds(started.elapsed()),
        trimmed.events,
        trimmed.freed_bytes >> 20
    );
    table.note("drop of the first nine tenths", figure);
}
