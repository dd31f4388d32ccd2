//! Small blocks become large ones, and nobody can tell from the events.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::disk::{Disk, Survives};
use super::{append, batch, clock, options, records, until_merged};
use crate::log::rewrite::Redaction;
use crate::log::{Durability, Filter, Log, LogOptions, Ticket};
use crate::{Clock, Record, Seq, Timestamp};

/// Each append is a block in the store at once.
fn lone_blocks() -> LogOptions {
    LogOptions { wal_group_bytes_max: 0, ..options() }
}

/// Appends lone events and waits until the writer has merged what it can.
fn lone_appends(log: &Log, from: u64, until: u64) {
    for n in from..until {
        append(log, batch(&format!("s{}", n % 7), &[&format!("event {n}")]));
    }
}

fn unmerged(disk: &Disk) -> (Vec<Record>, crate::log::Head) {
    let log =
        Log::open_on(disk.clone(), LogOptions { merge_blocks: false, ..lone_blocks() }, clock()).unwrap();
    lone_appends(&log, 0, 1_000);
    assert_eq!(log.reader().stats().unwrap().blocks, 1_000);
    (records(&log.reader()), log.head())
}

#[test]
fn merging_keeps_every_event_its_hash_and_every_root() {
    let disk = Disk::default();
    let (before, head) = unmerged(&disk);
    let log = Log::open_on(disk.clone(), lone_blocks(), clock()).unwrap();
    until_merged(&log, 100);
    let reader = log.reader();
    assert_eq!(log.head(), head);
    log.close().unwrap();
    drop(reader);
    let log = Log::open_on(disk, lone_blocks(), clock()).unwrap();
    assert!(log.reader().stats().unwrap().blocks < 100);
    assert_eq!(records(&log.reader()), before);
    let verified = log.reader().verify(&mut |_| ()).unwrap();
    assert_eq!((verified.root, verified.events), (head.root, 1_000));
    for stream in ["s0", "s6", "none"] {
        let filter = Filter { stream: Some(stream.to_owned()), ..Filter::default() };
        let found: Vec<Record> = log.reader().scan(Seq::FIRST, &filter).map(Result::unwrap).collect();
        let then: Vec<Record> = before.iter().filter(|record| record.stream == stream).cloned().collect();
        assert_eq!(found, then);
    }
    lone_appends(&log, 1_000, 1_200);
    assert_eq!(log.reader().verify(&mut |_| ()).unwrap().events, 1_200);
}

#[test]
fn events_hours_apart_are_merged_too() {
    struct Hourly(std::sync::atomic::AtomicU64);
    impl crate::Clock for Hourly {
        fn now(&self) -> crate::Timestamp {
            let hour = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            crate::Timestamp::from_unix_micros(hour * 3_600_000_000)
        }
    }
    let disk = Disk::default();
    let log = Log::open_on(disk.clone(), lone_blocks(), std::sync::Arc::new(Hourly(5.into()))).unwrap();
    lone_appends(&log, 0, 200);
    until_merged(&log, 200);
    log.close().unwrap();
    let log = Log::open_on(disk, lone_blocks(), clock()).unwrap();
    assert!(log.reader().stats().unwrap().blocks < 200);
    let times: Vec<u64> = records(&log.reader())
        .iter()
        .map(|record| record.recorded_at.unix_micros() / 3_600_000_000)
        .collect();
    assert!(times.is_sorted() && times.len() == 200 && times[199] - times[0] == 199, "{times:?}");
    log.reader().verify(&mut |_| ()).unwrap();
}

#[test]
fn a_power_cut_between_a_merge_and_the_next_sync_brings_the_small_blocks_back() {
    let disk = Disk::default();
    let log = Log::open_on(disk.clone(), lone_blocks(), clock()).unwrap();
    for n in 0..300 {
        append(&log, batch("s", &[&format!("event {n}")]));
        for survives in [Survives::Nothing, Survives::Some(n)] {
            let left = Log::open_on(disk.after_power_cut(survives), lone_blocks(), clock()).unwrap();
            let verified = left.reader().verify(&mut |_| ()).unwrap();
            assert_eq!((verified.events, verified.root), (n + 1, log.head().root), "{survives:?}");
        }
    }
}

/// Events that a busy writer takes, each as a group of its own.
const WAITING: u64 = 400;
/// The one with which it is asked for something else, while a merge is due and not overdue.
const ASKED_AT: u64 = 80;
/// The one with which that must be done, as likely as 40 throws of a coin show both sides: before a merge is made.
const DONE_BY: u64 = 120;

/// A clock that stands still until all events wait for the writer, and tells how many it took.
struct Watch {
    all_wait: Receiver<()>,
    taken: AtomicU64,
    look: OnceLock<Box<dyn Fn(u64) + Send + Sync>>,
}

impl Clock for Watch {
    fn now(&self) -> Timestamp {
        // Blocks until the sender is gone.
        let _ = self.all_wait.recv();
        let taken = self.taken.fetch_add(1, Ordering::Relaxed) + 1;
        self.look.get().unwrap()(taken);
        Timestamp::from_unix_micros(taken)
    }
}

/// What there is when the writer takes the last of many events, before which its queue was never empty.
struct Seen {
    redacted: bool,
    blocks: u64,
    on_disk: Disk,
}

fn busy(durability: Durability) -> Seen {
    let (hold, all_wait) = bounded(0);
    let watch = Arc::new(Watch { all_wait, taken: AtomicU64::new(0), look: OnceLock::new() });
    let disk = Disk::default();
    let options = LogOptions { durability, group_events_max: 1, ..options() };
    let log = Log::open_on(disk.clone(), options, Arc::<Watch>::clone(&watch)).unwrap();
    let (reader, redactions) = (log.reader(), log.redactions.clone());
    let (answer, answered) = bounded(1);
    let (tell, told) = bounded(1);
    let redacted = AtomicBool::new(false);
    let look = move |taken: u64| match taken {
        ASKED_AT => {
            let (subjects, answer) = (Vec::new(), answer.clone());
            let redaction = Redaction { subjects, order: Seq::FIRST, sync_folder: File::sync_all, answer };
            redactions.send(redaction).unwrap();
        }
        DONE_BY => redacted.store(!answered.is_empty(), Ordering::Relaxed),
        WAITING => {
            let redacted = redacted.load(Ordering::Relaxed);
            let blocks = reader.whole().unwrap().block_count().unwrap();
            let on_disk = disk.after_power_cut(Survives::Nothing);
            tell.send(Seen { redacted, blocks, on_disk }).unwrap();
        }
        _ => (),
    };
    assert!(watch.look.set(Box::new(look)).is_ok());
    let submit = |n: u64| log.submit(vec![batch("s", &[&format!("event {n}")])]).unwrap();
    let tickets: Vec<Ticket> = (0..WAITING).map(submit).collect();
    drop(hold);
    for ticket in tickets {
        ticket.wait().unwrap().remove(0).unwrap();
    }
    log.close().unwrap();
    told.recv().unwrap()
}

#[test]
fn a_queue_that_is_never_empty_keeps_neither_merges_nor_redactions_waiting() {
    let seen = busy(Durability::Off);
    assert!(seen.redacted, "it was refused, as the log lies in no file, and that at once");
    assert!(seen.blocks < WAITING / 2, "{} blocks", seen.blocks);
}

#[test]
fn a_queue_that_is_never_empty_keeps_no_sync_waiting() {
    // Always due.
    let seen = busy(Durability::Interval(Duration::from_nanos(1)));
    let log = Log::open_on(seen.on_disk, options(), clock()).unwrap();
    let synced = records(&log.reader()).len() as u64;
    assert!(synced > WAITING / 2, "{synced} events");
}
