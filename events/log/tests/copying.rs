//! Copies: whatever the cut, a log with the same past.

use std::fs;
use std::path::Path;

use super::disk::Disk;
use super::{append, batch, clock, keyed, options, records};
use crate::Seq;
use crate::log::{Batch, CopyError, Filter, Log, LogOptions, ReadError, Reader, copy_log};

/// A log of batches of several events, every third of them with a key.
fn log_of(batches: u64, options: LogOptions) -> Log {
    let log = Log::open_on(Disk::default(), options, clock()).unwrap();
    for n in 0..batches {
        append(&log, one(n));
    }
    log
}

fn one(n: u64) -> Batch {
    let texts: Vec<String> =
        (0..=n % 4).map(|event| format!("event {n}.{event} {}", "x".repeat(50))).collect();
    let batch = batch(&format!("s{}", n % 3), &texts.iter().map(String::as_str).collect::<Vec<_>>());
    if n.is_multiple_of(3) { keyed(batch, &format!("key {n}"), 1) } else { batch }
}

fn copy(log: &Reader, until: u64, dir: &Path) -> Reader {
    let copied = copy_log(log, Seq(until), &dir.join("events.redb"), &mut |_| ()).unwrap();
    let copy = Log::open_read_only(dir).unwrap();
    assert_eq!(copied.head, copy.head());
    assert_eq!(copied.keys, copy.stats().unwrap().keys);
    copy
}

/// The first `until` events of the log as a log of their own.
#[track_caller]
fn check(log: &Reader, until: u64) {
    let dir = tempfile::tempdir().unwrap();
    let copy = copy(log, until, dir.path());
    assert_eq!(copy.head(), log.head_at(until).unwrap(), "{until}");
    assert_eq!(copy.log_id(), log.log_id());
    assert_eq!(records(&copy), records(log)[..until as usize], "{until}");
    let verified = copy.verify(&mut |_| ()).unwrap();
    assert_eq!((verified.events, verified.root), (until, copy.head().root));
    for n in (0..log.head().seq.0).step_by(3) {
        let (key, row) = (format!("key {n}"), copy.key(&format!("key {n}")).unwrap());
        let then = log.key(&key).unwrap().filter(|row| row.last.0 <= until);
        assert_eq!(row, then, "{key} in a copy of {until}");
    }
    // The filter of a block that was cut knows what is in it, and nothing more is found.
    for stream in ["s0", "s1", "s2", "none"] {
        let filter = Filter { stream: Some(stream.to_owned()), ..Filter::default() };
        let found = |reader: &Reader| {
            reader.scan(Seq::FIRST, &filter).map(|record| record.unwrap().seq.0).collect::<Vec<_>>()
        };
        let then: Vec<u64> = found(log).into_iter().filter(|seq| *seq <= until).collect();
        assert_eq!(found(&copy), then, "{stream} in a copy of {until}");
    }
}

#[test]
fn a_copy_cut_anywhere_has_the_events_the_root_and_the_keys_up_to_there() {
    let in_wal = log_of(12, options());
    let merged = log_of(12, LogOptions { wal_group_bytes_max: 0, ..options() });
    let large = Log::open_on(Disk::default(), options(), clock()).unwrap();
    append(&large, one(1));
    append(&large, batch("s1", &vec!["y".repeat(40_000).as_str(); 30]));
    for log in [&in_wal, &merged, &large] {
        let reader = log.reader();
        for until in 0..=reader.head().seq.0 {
            check(&reader, until);
        }
    }
}

#[test]
fn a_copy_goes_on_as_a_log_of_its_own() {
    let (log, dir) = (log_of(5, options()), tempfile::tempdir().unwrap());
    let head = log.head();
    drop(copy(&log.reader(), 7, dir.path()));
    let copy = Log::open(dir.path(), options(), clock()).unwrap();
    assert_eq!(append(&copy, batch("s0", &["another"])).first, Seq(8));
    assert!(append(&copy, one(0)).replayed.is_some(), "the key of a batch that is in the copy is known");
    assert!(append(&copy, one(3)).replayed.is_none(), "that of a batch which was cut off is not");
    assert_eq!(copy.reader().prove_consistency(7, 12).unwrap().from, 7);
    copy.reader().verify(&mut |_| ()).unwrap();
    assert_eq!(log.head(), head, "what is written to the copy does not reach the log");
}

#[test]
fn what_cannot_be_copied_leaves_nothing_behind() {
    let (log, dir) = (log_of(3, options()), tempfile::tempdir().unwrap());
    let to = dir.path().join("events.redb");
    let beyond = copy_log(&log.reader(), Seq(99), &to, &mut |_| ()).unwrap_err();
    assert_eq!(beyond.to_string(), "#99 is not in the log, which ends at #6; choose a position from 0 to 6");
    assert!(!to.exists());
    fs::write(&to, "somebody's").unwrap();
    let taken = copy_log(&log.reader(), Seq(1), &to, &mut |_| ()).unwrap_err();
    assert!(matches!(taken, CopyError::Write { .. }), "{taken:?}");
    assert_eq!(fs::read_to_string(&to).unwrap(), "somebody's");
}

#[test]
fn damage_is_not_copied() {
    let disk = Disk::default();
    let apart = || LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() };
    let log = Log::open_on(disk.clone(), apart(), clock()).unwrap();
    for text in ["an event", "one of which a bit changes", "and another"] {
        append(&log, batch("s", &[text]));
    }
    log.close().unwrap();
    let mut bytes = disk.bytes();
    let planted = b"one of which";
    let at = bytes.windows(planted.len()).rposition(|window| window == planted).unwrap();
    bytes[at] ^= 1;
    let log = Log::open_on(Disk::holding(bytes), apart(), clock()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("events.redb");
    let damaged = copy_log(&log.reader(), Seq(3), &to, &mut |_| ()).unwrap_err();
    assert!(matches!(damaged, CopyError::Read(ReadError::Damaged { block: Seq(2), .. })), "{damaged:?}");
    assert!(!to.exists(), "what was copied before is removed");
    drop(copy(&log.reader(), 1, dir.path()));
}
