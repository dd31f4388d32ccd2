//! The log alone: how many events it makes durable, beside a plain segment file, and beside redb and SQLite with a row for
//! each.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use caxton_events::log::{Batch, Log, LogOptions, Ticket};
use caxton_events::memory::Validity;
use caxton_events::{Clock, Draft, MemoryEvent, MemoryId, Timestamp, codec};
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::crowd::medium::{at, syncs};
use crate::crowd::ratios::{median, summary};

/// Groups on their way to the disk at a time: one is written while the next is encoded.
const IN_FLIGHT: usize = 2;
const APPENDERS: usize = 512;

pub(crate) struct System;

impl Clock for System {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp::from_unix_micros(since.as_micros() as u64)
    }
}

/// An event of 1 KB, encoded. The text is different in each, so that nothing is saved by repetition.
fn draft(n: u64) -> Draft {
    let mut content = format!("{n:020} ");
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while content.len() < 985 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.push(char::from(b'a' + (state % 26) as u8));
    }
    let event = MemoryEvent::ObservationAdded {
        id: MemoryId(n),
        entity: MemoryId(n / 2),
        content,
        validity: Validity::default(),
    };
    let (stream, actor) = ("agent:ada".to_owned(), "ada".to_owned());
    Draft { stream, actor, correlation: None, causation: None, event: event.into() }
}

/// What makes events durable: takes a group, and answers when it is on disk.
trait Contestant: Sync {
    type Pending;
    fn submit(&self, drafts: Vec<Draft>) -> Self::Pending;
    fn wait(pending: Self::Pending);
}

impl Contestant for Log {
    type Pending = Ticket;

    fn submit(&self, drafts: Vec<Draft>) -> Ticket {
        Log::submit(self, vec![Batch::of(drafts)]).unwrap()
    }

    fn wait(pending: Ticket) {
        pending.wait().unwrap().remove(0).unwrap();
    }
}

pub(crate) fn open_log(dir: &Path, group_events_max: usize) -> Log {
    let options = LogOptions { group_events_max, ..LogOptions::new([1; 16]) };
    Log::open(dir, options, Arc::new(System)).unwrap()
}

type Job = (Vec<Vec<u8>>, Sender<()>);

/// The same pipeline with another medium behind it: encoding on the caller's thread, one writer, group commit.
struct Baseline {
    queue: Option<Sender<Job>>,
    writer: Option<thread::JoinHandle<()>>,
}

impl Baseline {
    fn start(group_events_max: usize, mut write: impl FnMut(&[Job]) + Send + 'static) -> Self {
        let (queue, jobs): (Sender<Job>, Receiver<Job>) = bounded(2_048);
        let run = move || {
            while let Ok(first) = jobs.recv() {
                let mut events = first.0.len();
                let mut group = vec![first];
                while events < group_events_max
                    && let Ok(job) = jobs.try_recv()
                {
                    events += job.0.len();
                    group.push(job);
                }
                write(&group);
                for (_, answer) in group {
                    let _ = answer.send(());
                }
            }
        };
        let writer = thread::Builder::new().name("baseline".to_owned()).spawn(run).unwrap();
        Self { queue: Some(queue), writer: Some(writer) }
    }

    /// A file that grows, each event behind its length, and one fdatasync a group. No hash, no checksum, no index.
    fn segment(dir: &Path, group_events_max: usize) -> Self {
        let mut file = File::create(dir.join("segment")).unwrap();
        let mut bytes = Vec::new();
        Self::start(group_events_max, move |group| {
            bytes.clear();
            for event in group.iter().flat_map(|(events, _)| events) {
                bytes.extend_from_slice(&(event.len() as u32).to_le_bytes());
                bytes.extend_from_slice(event);
            }
            file.write_all(&bytes).unwrap();
            file.sync_data().unwrap();
        })
    }

    /// redb as a log is mostly kept in it: a row for each event. The same cache and the same quick repair.
    fn rows(dir: &Path, group_events_max: usize) -> Self {
        let table: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("events");
        let mut builder = redb::Builder::new();
        builder.set_cache_size(32 << 20);
        let database = builder.create(dir.join("rows.redb")).unwrap();
        let mut seq = 0;
        Self::start(group_events_max, move |group| {
            let mut transaction = database.begin_write().unwrap();
            transaction.set_quick_repair(true);
            let mut rows = transaction.open_table(table).unwrap();
            for event in group.iter().flat_map(|(events, _)| events) {
                seq += 1;
                rows.insert(seq, event.as_slice()).unwrap();
            }
            drop(rows);
            transaction.commit().unwrap();
        })
    }

    /// SQLite as a log is mostly kept in it: a row for each event, its write-ahead log, and a sync at each commit.
    fn sqlite(dir: &Path, group_events_max: usize) -> Self {
        let database = rusqlite::Connection::open(dir.join("rows.sqlite")).unwrap();
        let tables = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -32768;
            CREATE TABLE events (seq INTEGER PRIMARY KEY, event BLOB NOT NULL)";
        database.execute_batch(tables).unwrap();
        let mut seq = 0_i64;
        Self::start(group_events_max, move |group| {
            let transaction = database.unchecked_transaction().unwrap();
            let mut insert = transaction.prepare_cached("INSERT INTO events VALUES (?1, ?2)").unwrap();
            for event in group.iter().flat_map(|(events, _)| events) {
                seq += 1;
                insert.execute((seq, event)).unwrap();
            }
            drop(insert);
            transaction.commit().unwrap();
        })
    }
}

impl Contestant for Baseline {
    type Pending = Receiver<()>;

    fn submit(&self, drafts: Vec<Draft>) -> Receiver<()> {
        let encode = |draft: &Draft| {
            let mut bytes = Vec::with_capacity(1_100);
            codec::encode(draft, &mut bytes);
            bytes
        };
        let events = drafts.iter().map(encode).collect();
        let (answer, answered) = bounded(1);
        self.queue.as_ref().unwrap().send((events, answer)).unwrap();
        answered
    }

    fn wait(pending: Receiver<()>) {
        pending.recv().unwrap();
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        drop(self.queue.take());
        let _ = self.writer.take().map(thread::JoinHandle::join);
    }
}

/// Appends `groups` groups of `size` events from one thread, [`IN_FLIGHT`] at a time; events a second.
fn groups<C: Contestant>(contestant: &C, size: usize, groups: usize) -> f64 {
    let drafts: Vec<Vec<Draft>> =
        (0..groups).map(|group| (0..size).map(|n| draft((group * size + n) as u64)).collect()).collect();
    let start = Instant::now();
    let mut pending = VecDeque::new();
    for drafts in drafts {
        if pending.len() == IN_FLIGHT
            && let Some(oldest) = pending.pop_front()
        {
            C::wait(oldest);
        }
        pending.push_back(contestant.submit(drafts));
    }
    for last in pending {
        C::wait(last);
    }
    (size * groups) as f64 / start.elapsed().as_secs_f64()
}

/// Events a second of `draft`: so many groups of `size` from one thread, [`IN_FLIGHT`] groups at a time. They are made a
/// few groups ahead, on another thread.
pub(crate) fn groups_of(
    log: &Log,
    size: usize,
    groups: usize,
    draft: impl Fn(u64) -> Draft + Send + Sync,
) -> f64 {
    thread::scope(|scope| {
        let (made, ready) = bounded(4);
        scope.spawn(move || {
            for group in 0..groups {
                let numbers = (group * size) as u64..((group + 1) * size) as u64;
                made.send(numbers.map(&draft).collect::<Vec<Draft>>()).unwrap();
            }
        });
        let (start, mut pending) = (Instant::now(), VecDeque::new());
        for drafts in ready {
            if pending.len() == IN_FLIGHT
                && let Some(oldest) = pending.pop_front()
            {
                Log::wait(oldest);
            }
            pending.push_back(Contestant::submit(log, drafts));
        }
        pending.into_iter().for_each(Log::wait);
        (size * groups) as f64 / start.elapsed().as_secs_f64()
    })
}

/// [`APPENDERS`] threads append one event at a time and wait for it; events a second and the 99th percentile.
fn appenders<C: Contestant>(contestant: &C, each: usize) -> (f64, Duration) {
    let mut waits: Vec<Duration> = Vec::new();
    let start = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..APPENDERS)
            .map(|appender| {
                let run = move || {
                    let mut waits = Vec::with_capacity(each);
                    for n in 0..each {
                        let draft = draft((appender * each + n) as u64);
                        let start = Instant::now();
                        C::wait(contestant.submit(vec![draft]));
                        waits.push(start.elapsed());
                    }
                    waits
                };
                thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, run).unwrap()
            })
            .collect();
        for thread in threads {
            waits.extend(thread.join().unwrap());
        }
    });
    let rate = waits.len() as f64 / start.elapsed().as_secs_f64();
    waits.sort_unstable();
    (rate, waits[waits.len() * 99 / 100])
}

/// The contestants in turns.
pub(crate) struct Paired {
    pub(crate) rounds: usize,
    pub(crate) dir: PathBuf,
    pub(crate) only: String,
}

impl Paired {
    /// A fresh directory for one run.
    fn fresh(&self) -> PathBuf {
        let dir = self.dir.join("run");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Measures the log (0), the segment file (1), rows in redb (2) and in SQLite (3), a different one first in each round.
    fn rounds(&self, contestants: usize, run: impl Fn(&Path, usize) -> f64) -> Vec<Vec<f64>> {
        let mut rates = vec![Vec::new(); contestants];
        for round in 0..self.rounds {
            for turn in 0..contestants {
                let which = (round + turn) % contestants;
                rates[which].push(run(&self.fresh(), which));
            }
        }
        rates
    }

    fn report(&self, what: &str, mut rates: Vec<Vec<f64>>, bars: &[(&str, f64)], note: &str) {
        let probe = at(&syncs(&self.fresh(), 101), 0.5);
        let ratios: Vec<Vec<f64>> = rates[1..]
            .iter()
            .map(|other| rates[0].iter().zip(other).map(|(log, other)| log / other).collect())
            .collect();
        let medians: Vec<f64> = rates.iter_mut().map(|rates| median(rates) / 1_000.0).collect();
        print!("{what}: log {:.0} k/s{note}", medians[0]);
        for (((name, bar), ratios), median) in bars.iter().zip(&ratios).zip(&medians[1..]) {
            let (mean, low, high) = summary(ratios);
            let holds = if low >= bar * 0.9 { "holds" } else { "MISSED" };
            print!("; {mean:.2} [{low:.2}, {high:.2}] x {name} ({median:.0} k/s), bar {bar} {holds}");
        }
        println!("; fdatasync {:.2} ms", probe.as_secs_f64() * 1_000.0);
    }

    /// Measures and prints.
    pub(crate) fn run(&self) {
        println!("{} interleaved rounds in {}, 1 KB events", self.rounds, self.dir.display());
        for (size, count, segment, sqlite) in
            [(256, 160, 0.75, 1.4), (1_024, 60, 0.75, 2.8), (4_096, 24, 0.95, 3.5)]
        {
            let what = format!("groups of {size}");
            if what.contains(&self.only) {
                let rates = self.rounds(4, |dir, which| match which {
                    0 => groups(&open_log(dir, size), size, count),
                    1 => groups(&Baseline::segment(dir, size), size, count),
                    2 => groups(&Baseline::rows(dir, size), size, count),
                    _ => groups(&Baseline::sqlite(dir, size), size, count),
                });
                let bars = [("segment file", segment), ("rows in redb", 1.7), ("SQLite", sqlite)];
                self.report(&what, rates, &bars, "");
            }
        }
        let what = format!("{APPENDERS} appenders");
        if what.contains(&self.only) {
            let tails = RefCell::new([Vec::new(), Vec::new()]);
            let rates = self.rounds(2, |dir, which| {
                let (rate, tail) = match which {
                    0 => appenders(&open_log(dir, 4_096), 100),
                    _ => appenders(&Baseline::segment(dir, 4_096), 100),
                };
                tails.borrow_mut()[which].push(tail.as_secs_f64() * 1_000.0);
                rate
            });
            let [mut log, mut segment] = tails.into_inner();
            let note = format!(", p99 {:.1} ms (segment file {:.1})", median(&mut log), median(&mut segment));
            self.report(&what, rates, &[("segment file", 0.6)], &note);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
