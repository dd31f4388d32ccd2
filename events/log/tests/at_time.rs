//! From moments to places: by the whole range of times, whatever the blocks, also where the clock stood or ran backwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::Disk;
use super::{Random, append, batch, options, records};
use crate::log::{Log, LogOptions, TrimOptions, drop_before};
use crate::{Clock, Seq, Timestamp};

/// A clock that goes on by up to three microseconds, stands still, or runs backwards.
struct Staggering(AtomicU64);

impl Clock for Staggering {
    fn now(&self) -> Timestamp {
        let step = self.0.fetch_add(1, Ordering::Relaxed);
        let mut random = Random::new(step);
        Timestamp::from_unix_micros(1_000 + step * 2 + random.below(8) - 4)
    }
}

#[track_caller]
fn check(log: &Log) {
    let reader = log.reader();
    let records = records(&reader);
    assert!(records.is_sorted_by_key(|record| record.recorded_at), "times never go back");
    let (first, last) =
        (records[0].recorded_at.unix_micros(), records[records.len() - 1].recorded_at.unix_micros());
    for micros in first - 2..=last + 2 {
        let at = Timestamp::from_unix_micros(micros);
        let then = records.iter().rev().find(|record| record.recorded_at <= at);
        assert_eq!(reader.last_by(at).unwrap(), then.map_or(Seq::ZERO, |record| record.seq), "{micros}");
    }
    for record in &records {
        assert_eq!(reader.recorded_at(record.seq).unwrap(), Some(record.recorded_at));
    }
    assert_eq!(reader.recorded_at(Seq::ZERO).unwrap(), None);
    assert_eq!(reader.recorded_at(records[records.len() - 1].seq.next()).unwrap(), None);
}

#[test]
fn a_moment_names_the_last_record_that_was_there() {
    let small = LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() };
    for options in [options(), small] {
        let clock = Arc::new(Staggering(AtomicU64::new(1)));
        let log = Log::open_on(Disk::default(), options, clock).unwrap();
        for n in 0..40_usize {
            let contents: Vec<&str> = ["a", "b", "c", "d", "e"].into_iter().take(n % 5 + 1).collect();
            append(&log, batch("s", &contents));
        }
        check(&log);
    }
}

#[test]
fn sealed_files_are_looked_through_and_what_was_dropped_is_before_everything() {
    let dir = tempfile::tempdir().unwrap();
    let apart = LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() };
    let log = Log::open(dir.path(), apart, Arc::new(Staggering(AtomicU64::new(1)))).unwrap();
    for n in 0..12 {
        append(&log, batch("s", &["a", "b", "c"]));
        if n == 4 || n == 8 {
            log.seal().unwrap();
        }
    }
    check(&log);
    let all = records(&log.reader());
    log.close().unwrap();
    let trim = TrimOptions { before: Seq(20), at: Timestamp::EPOCH, by: "ada".to_owned(), forks_keep: false };
    drop_before(dir.path(), &trim).unwrap().unwrap();
    let reader = Log::open_read_only(dir.path()).unwrap();
    let first = reader.first().unwrap();
    assert!(first > Seq::FIRST);
    for record in all {
        let found = reader.last_by(record.recorded_at).unwrap();
        assert!(if record.seq < first { found < first || found >= record.seq } else { found >= record.seq });
        let kept = (record.seq >= first).then_some(record.recorded_at);
        assert_eq!(reader.recorded_at(record.seq).unwrap(), kept);
    }
    assert!(reader.last_by(Timestamp::EPOCH).unwrap() < first);
}

#[test]
fn an_empty_log_has_no_moments() {
    let log = Log::open_on(Disk::default(), options(), super::clock()).unwrap();
    assert_eq!(log.reader().last_by(Timestamp::from_unix_micros(u64::MAX)).unwrap(), Seq::ZERO);
    assert_eq!(log.reader().recorded_at(Seq::FIRST).unwrap(), None);
}
