//! Appending: places, atomic batches, idempotency, expected positions, bounds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;

use super::disk::Disk;
use super::{append, batch, clock, content, contents, draft, keyed, options, records};
use crate::log::{AppendError, Batch, Expected, Log, LogOptions};
use crate::{Seq, Timestamp};

fn open(options: LogOptions) -> Log {
    Log::open_on(Disk::default(), options, clock()).unwrap()
}

#[test]
fn events_get_the_next_places_and_come_back_as_they_were() {
    let log = open(options());
    let mut one = draft("agent:ada", "one");
    one.correlation = Some("request-1".to_owned());
    one.causation = Some(Seq(9));
    let first = append(&log, Batch::of(vec![one.clone(), draft("global", "two")]));
    let second = append(&log, batch("global", &["three"]));
    assert_eq!((first.first, first.last, second.first, second.last), (Seq(1), Seq(2), Seq(3), Seq(3)));
    let records = records(&log.reader());
    assert_eq!(records.iter().map(|record| record.seq.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(records[0].recorded_at, first.recorded_at);
    assert!(records[1].recorded_at < records[2].recorded_at);
    assert_eq!((&records[0].correlation, records[0].causation), (&one.correlation, one.causation));
    assert_eq!(
        (&records[0].stream, &records[0].actor, &records[0].event),
        (&one.stream, &one.actor, &one.event)
    );
    assert_eq!(log.head().seq, Seq(3));
    assert_eq!(log.head().root, log.reader().verify(&mut |_| ()).unwrap().root);
}

#[test]
fn a_clock_that_runs_backwards_does_not_take_the_log_with_it() {
    struct Backwards(std::sync::atomic::AtomicU64);
    impl crate::Clock for Backwards {
        fn now(&self) -> Timestamp {
            Timestamp::from_unix_micros(self.0.fetch_sub(10, std::sync::atomic::Ordering::Relaxed))
        }
    }
    let log = Log::open_on(Disk::default(), options(), Arc::new(Backwards(1_000.into()))).unwrap();
    let times: Vec<_> = (0..3).map(|_| append(&log, batch("a", &["x"])).recorded_at.unix_micros()).collect();
    assert_eq!(times, [1_000, 1_000, 1_000]);
    log.reader().verify(&mut |_| ()).unwrap();
}

#[test]
fn a_known_key_is_answered_from_its_first_time_and_another_content_is_a_conflict() {
    let log = open(options());
    append(&log, batch("a", &["before"]));
    let first = append(&log, keyed(batch("a", &["x", "y"]), "k", 1));
    assert_eq!(first.replayed, None);
    let again = append(&log, keyed(batch("a", &["x", "y"]), "k", 1));
    assert_eq!(again.replayed.as_deref(), Some(b"answer to k".as_slice()));
    assert_eq!((again.first, again.last, again.recorded_at), (first.first, first.last, first.recorded_at));
    let conflict = log.append(vec![keyed(batch("a", &["z"]), "k", 2)]).unwrap().remove(0).unwrap_err();
    assert!(matches!(&conflict, AppendError::KeyConflict { key, first: Seq(2) } if key == "k"), "{conflict}");
    assert_eq!(contents(&log.reader()), ["before", "x", "y"]);
    let row = log.reader().key("k").unwrap().unwrap();
    assert_eq!((row.first, row.last, row.fingerprint), (Seq(2), Seq(3), [1; 32]));
    assert_eq!(log.reader().key("other").unwrap(), None);
}

#[test]
fn the_same_key_twice_in_one_group_is_written_once() {
    let log = open(options());
    let twins = vec![keyed(batch("a", &["x"]), "k", 1), keyed(batch("a", &["x"]), "k", 1)];
    let results = log.append(twins).unwrap();
    assert_eq!(results[0].as_ref().unwrap().replayed, None);
    assert!(results[1].as_ref().unwrap().replayed.is_some());
    assert_eq!(contents(&log.reader()), ["x"]);
}

/// What became of batches that are a series: the contents that were written, and where the first one is that was not.
#[track_caller]
fn check_series(log: &Log, batches: Vec<Batch>, written: &[&str], broken: usize) {
    let (before, count) = (log.head().seq.0 as usize, batches.len());
    let results = log.append_series(batches).unwrap();
    assert_eq!(results.len(), count);
    for (at, result) in results.iter().enumerate() {
        let is_behind = matches!(result, Err(AppendError::SeriesBroken));
        assert_eq!(is_behind, at > broken, "{at}: {result:?}");
        assert_eq!(matches!(result, Ok(appended) if appended.replayed.is_none()), at < broken, "{result:?}");
    }
    assert_eq!(contents(&log.reader())[before..], *written);
}

#[test]
fn behind_a_batch_that_is_not_written_a_series_ends() {
    let log = open(options());
    let three = |second: Batch| vec![batch("a", &["1"]), second, batch("a", &["3"]), batch("b", &["4"])];
    check_series(&log, three(keyed(batch("a", &["2"]), "k", 1)), &["1", "2", "3", "4"], 4);
    // It is refused before it reaches the log, there, and not at all but answered from its first time.
    check_series(&log, three(Batch::default()), &["1"], 1);
    check_series(&log, three(keyed(batch("a", &["2"]), "k", 2)), &["1"], 1);
    check_series(&log, three(keyed(batch("a", &["2"]), "k", 1)), &["1"], 1);
    // Each call is a series of its own.
    check_series(&log, three(batch("a", &["2"])), &["1", "2", "3", "4"], 4);
    check_series(&log, Vec::new(), &[], 0);
}

#[track_caller]
fn refused(log: &Log, batch: Batch, then: Option<Seq>) {
    match log.append(vec![batch]).unwrap().remove(0) {
        Err(AppendError::Unexpected { actual, .. }) => assert_eq!(actual, then),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_is_refused_unless_its_stream_is_where_the_caller_thinks() {
    let log = open(options());
    let expecting = |stream: &str, expected| Batch {
        expected: Some((stream.to_owned(), expected)),
        ..batch(stream, &["x"])
    };
    refused(&log, expecting("a", Expected::LastSeq(Seq(1))), None);
    append(&log, expecting("a", Expected::Empty));
    refused(&log, expecting("a", Expected::Empty), Some(Seq(1)));
    append(&log, batch("b", &["y"]));
    append(&log, expecting("a", Expected::LastSeq(Seq(1))));
    refused(&log, expecting("a", Expected::LastSeq(Seq(1))), Some(Seq(3)));
    append(&log, expecting("b", Expected::LastSeq(Seq(2))));
    // In one group, each batch sees the ones before it: also those of a stream not asked for before.
    let group = vec![
        batch("c", &["1", "2"]),
        expecting("c", Expected::LastSeq(Seq(6))),
        expecting("c", Expected::Empty),
    ];
    let results = log.append(group).unwrap();
    assert_eq!(results[1].as_ref().unwrap().first, Seq(7));
    assert!(matches!(results[2], Err(AppendError::Unexpected { actual: Some(Seq(7)), .. })));
}

#[test]
fn what_cannot_be_written_is_refused_by_name_and_touches_nothing() {
    let log = open(LogOptions { compress_above: None, ..options() });
    let huge = "x".repeat(crate::limits::EVENT_BYTES_MAX);
    for (batch, then) in [
        (Batch::default(), "the batch is empty; give at least one event"),
        (keyed(batch("a", &["x"]), "", 1), "the idempotency key takes 0 bytes; use 1 to 255"),
        (keyed(batch("a", &["x"]), &"k".repeat(256), 1), "the idempotency key takes 256 bytes; use 1 to 255"),
        (
            batch("a", &["fits", &huge]),
            "event 1 of the batch takes 16777235 bytes, the limit is 16777216; split its content",
        ),
    ] {
        let mut results = log.append(vec![batch, super::batch("a", &["neighbour"])]).unwrap();
        assert_eq!(results.remove(0).unwrap_err().to_string(), then);
        results.remove(0).unwrap();
    }
    assert_eq!(contents(&log.reader()), ["neighbour"; 4]);
}

#[test]
fn large_events_are_kept_whole_with_and_without_compression() {
    for compress_above in [None, Some(0), Some(4_096)] {
        let log = open(LogOptions { compress_above, ..options() });
        let mut random = super::Random::new(3);
        let noise: String = (0..700_000).map(|_| char::from(b' ' + random.below(90) as u8)).collect();
        let text = "the same words again ".repeat(40_000);
        append(&log, batch("a", &["", &noise, "small", &text]));
        let found = contents(&log.reader());
        assert!(found == ["", noise.as_str(), "small", text.as_str()], "{compress_above:?}");
        let stored = log.reader().stats().unwrap().bytes as usize;
        assert_eq!(stored < noise.len() + text.len(), compress_above.is_some(), "{stored}");
        log.reader().verify(&mut |_| ()).unwrap();
    }
}

#[test]
fn concurrent_appenders_lose_nothing_and_share_commits() {
    let disk = Disk::default();
    let log = Log::open_on(disk.clone(), LogOptions { queue_max: 4, ..options() }, clock()).unwrap();
    let before = disk.syncs();
    thread::scope(|scope| {
        for writer in 0..16 {
            let log = &log;
            scope.spawn(move || {
                for n in 0..50 {
                    let appended = append(log, batch("a", &[&format!("{writer}.{n}"), "tail"]));
                    assert_eq!(appended.last, appended.first.next());
                }
            });
        }
    });
    let records = records(&log.reader());
    assert_eq!(records.len(), 1_600);
    let heads: BTreeSet<String> = records.iter().step_by(2).map(content).collect();
    assert_eq!(heads.len(), 800);
    assert!(records.iter().skip(1).step_by(2).all(|record| content(record) == "tail"));
    assert!(disk.syncs() - before < 800 * 2, "no two appends shared a commit");
    log.reader().verify(&mut |_| ()).unwrap();
}

#[test]
fn a_dropped_ticket_does_not_take_the_batch_back_and_close_writes_what_was_submitted() {
    let disk = Disk::default();
    let log = Log::open_on(disk.clone(), options(), clock()).unwrap();
    for n in 0..100 {
        drop(log.submit(vec![batch("a", &[&n.to_string()])]).unwrap());
    }
    log.close().unwrap();
    let log = Log::open_on(disk, options(), clock()).unwrap();
    assert_eq!(log.head().seq, Seq(100));
}
