//! Audits over a long log: what an agent did that is active in one block of a hundred, and one that is active everywhere a
//! little, beside a scan that decodes every event and keeps those.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use caxton_events::log::{Batch, Filter, Log, LogOptions, Reader};
use caxton_events::memory::Validity;
use caxton_events::{Clock, Draft, MemoryEvent, MemoryId, Seq, Timestamp};
use caxton_projections::audit::trail::More;
use caxton_projections::audit::{Postings, Question, Step, Trail};

use crate::crowd::table::Table;

/// How it is measured.
pub(crate) struct Options {
    /// Where the log is made.
    pub(crate) dir: PathBuf,
    /// Events of the log.
    pub(crate) events: u64,
    /// Rounds; the medians count.
    pub(crate) rounds: usize,
}

/// Active in one stretch of a hundred, as long as a block.
const BURSTS: &str = "bursts";
/// Active in one event of a hundred.
const SPREAD: &str = "spread";
/// Events that fill a block.
const BLOCK_EVENTS: u64 = 1_050;
const BATCH_EVENTS: u64 = 4_200;

struct Now;

impl Clock for Now {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Timestamp::from_unix_micros(since.as_micros() as u64)
    }
}

/// An observation of about 200 bytes.
fn draft(n: u64) -> Draft {
    let actor = if n / BLOCK_EVENTS % 100 == 50 {
        BURSTS.to_owned()
    } else if n % 100 == 7 {
        SPREAD.to_owned()
    } else {
        format!("agent-{}", n % 50)
    };
    Draft {
        stream: format!("agent:{actor}"),
        actor,
        correlation: Some(format!("01977d3e-{:04x}-7c31-9d3e-{:012x}", n >> 32 & 0xffff, n)),
        causation: None,
        event: MemoryEvent::ObservationAdded {
            id: MemoryId(n),
            entity: MemoryId(n % 100_000),
            content: format!("observation {n}: {}", "what is known about it, in so many words, ".repeat(2)),
            validity: Validity::default(),
        }
        .into(),
    }
}

fn written(options: &Options) -> Log {
    let _ = std::fs::remove_dir_all(&options.dir);
    std::fs::create_dir_all(&options.dir).unwrap();
    let log = Log::open(&options.dir, LogOptions::new([7; 16]), Arc::new(Now)).unwrap();
    let mut under_way = std::collections::VecDeque::new();
    for first in (0..options.events).step_by(BATCH_EVENTS as usize) {
        let last = (first + BATCH_EVENTS).min(options.events);
        under_way.push_back(log.submit(vec![Batch::of((first..last).map(draft).collect())]).unwrap());
        if under_way.len() > 8 {
            under_way.pop_front().unwrap().wait().unwrap().remove(0).unwrap();
        }
    }
    for ticket in under_way {
        ticket.wait().unwrap().remove(0).unwrap();
    }
    log
}

/// Every event is decoded, and those of the actor are counted.
fn scanned(reader: &Reader, actor: &str) -> u64 {
    let all = reader.scan(Seq::FIRST, &Filter::default());
    all.filter(|record| record.as_ref().unwrap().actor == actor).count() as u64
}

/// The answer to a question: how many events, and blocks read.
fn answered(reader: &Reader, postings: &Postings, question: Question) -> (u64, u64) {
    let mut trail = Trail::new(question, reader).unwrap();
    let mut count = 0;
    while !trail.is_done() {
        trail
            .step(reader, postings, &mut |_| {
                count += 1;
                More::Yes
            })
            .unwrap();
    }
    (count, trail.figures().read.blocks)
}

fn timed<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let started = Instant::now();
    let value = run();
    (started.elapsed(), value)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Measures and adds its rows to the table.
pub(crate) fn answers(options: &Options, table: &mut Table) {
    let (took, log) = timed(|| written(options));
    let reader = log.reader();
    let (stats, events) = (reader.stats().unwrap(), options.events as f64);
    table.note("events written a second", format!("{:.0}", events / took.as_secs_f64()));
    table.note("size of the log", format!("{} events, {} MB", stats.events, stats.file_bytes >> 20));
    let postings = Postings::at(&options.dir);
    let (took, ()) = timed(|| while postings.step(&reader, &|| false).unwrap() != Step::Done {});
    let status = postings.status();
    table.note("postings made, events a second", format!("{:.0}", status.events as f64 / took.as_secs_f64()));
    table.note("size of the postings", format!("{} MB in {} files", status.bytes >> 20, status.segments));
    let by = |actor: &str| Question { actor: Some(actor.to_owned()), ..Question::default() };
    let about = |agent: &str| Question { agent: agent.parse().ok(), ..Question::default() };
    let point = Question { row: Some(MemoryId(options.events / 2)), ..Question::default() };
    let cases = [
        ("of an agent in 1 % of the blocks", by(BURSTS), Some(0.05)),
        ("about an agent in 1 % of the blocks", about(BURSTS), Some(0.05)),
        ("of an agent in 1 % of the events", by(SPREAD), Some(0.3)),
        ("about an agent in 1 % of the events", about(SPREAD), Some(0.3)),
        ("about one observation", point, None),
    ];
    let mut full = Vec::new();
    let mut times = vec![Vec::new(); cases.len()];
    let mut found = vec![(0, 0); cases.len()];
    for _ in 0..options.rounds.max(1) {
        let (took, count) = timed(|| scanned(&reader, SPREAD));
        full.push(took);
        for (index, (_, question, _)) in cases.iter().enumerate() {
            let (took, answer) = timed(|| answered(&reader, &postings, question.clone()));
            times[index].push(took);
            found[index] = answer;
        }
        assert_eq!(found[2].0, count, "the answer is what the scan found");
    }
    let full = median(full);
    table.note("the full scan, events a second", format!("{:.0}", events / full.as_secs_f64()));
    for (((what, _, bar), times), (count, blocks)) in cases.into_iter().zip(times).zip(found) {
        let took = median(times);
        let ratio = took.as_secs_f64() / full.as_secs_f64();
        let figure = format!(
            "{:.2} % ({took:.1?}; {count} events, {blocks} of {} blocks)",
            ratio * 100.0,
            stats.blocks
        );
        match bar {
            Some(bar) => {
                table.row(what, figure, format!("≤ {:.0} % of the full scan", bar * 100.0), ratio <= bar);
            }
            None => table.note(what, figure),
        }
    }
    log.close().unwrap();
}
