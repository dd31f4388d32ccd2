//! Small blocks become large ones, and nobody can tell from the events.

use super::disk::{Disk, Survives};
use super::{append, batch, clock, options, records, until_merged};
use crate::log::{Filter, Log, LogOptions};
use crate::{Record, Seq};

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
