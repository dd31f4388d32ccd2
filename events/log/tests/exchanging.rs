//! A log as lines, read into another file: the same leaves and root, or the line that is wrong.

use tempfile::TempDir;

use super::{append, batch, clock, options, records};
use crate::log::chain::{Frontier, hash};
use crate::log::exchange::{EventLine, HeadLine, LineCheck, LineError, LogLine};
use crate::log::rebuild::{Rebuild, RebuildError};
use crate::log::stored::Body;
use crate::log::{Filter, Log, LogOptions, OpenError, Signer};
use crate::{Seq, Timestamp};

fn signer() -> Signer {
    Signer::new([7; 16], &[1; 32])
}

/// A log of so many events, some in one batch, some long enough to be stored compressed.
fn log_of(count: u64) -> (TempDir, Log) {
    let dir = TempDir::new().unwrap();
    let log = Log::open(dir.path(), LogOptions { compress_above: Some(64), ..options() }, clock()).unwrap();
    let mut n = 0;
    while n < count {
        let texts: Vec<String> =
            (0..=n % 3).map(|more| format!("event {n} {}", "x".repeat(100 * more as usize))).collect();
        let texts: Vec<&str> = texts.iter().take((count - n) as usize).map(String::as_str).collect();
        append(&log, batch(&format!("s{}", n % 5), &texts));
        n += texts.len() as u64;
    }
    (dir, log)
}

/// The lines of a log, as they are written.
pub(super) fn lines_of(log: &Log) -> (Vec<EventLine>, HeadLine) {
    let reader = log.reader();
    let mut frontier = Frontier::default();
    let mut lines = Vec::new();
    for found in reader.scan_stored(Seq::FIRST, &Filter::default()) {
        let (event, read) = found.unwrap();
        assert_eq!((event.seq, event.recorded_at), (read.seq(), read.recorded_at()));
        assert!(event.is_intact());
        frontier.push(event.leaf());
        lines.push(EventLine::new(&event, Some(&frontier.root())));
    }
    let (checkpoint, key) = (signer().sign(reader.head()), signer().public_key());
    (lines, HeadLine::new(&reader.head(), Some((&checkpoint, &key))))
}

#[test]
fn a_log_made_of_its_events_has_the_same_events_and_the_same_root() {
    for count in [0, 1, 2, 3, 200, 5_000] {
        let (_dir, log) = log_of(count);
        let (lines, head) = lines_of(&log);
        let other = TempDir::new().unwrap();
        let (mut rebuild, mut check) =
            (Rebuild::begin(&other.path().join("new"), log.reader().log_id()).unwrap(), LineCheck::default());
        for line in &lines {
            rebuild.push(check.event(line).unwrap()).unwrap();
        }
        assert_eq!(check.head(&head, Some(&signer().public_key())).unwrap(), Some(signer().public_key()));
        let made = rebuild.finish().unwrap();
        assert_eq!((made.seq, made.root), (log.head().seq, log.head().root));
        let again = Log::open(&other.path().join("new"), options(), clock()).unwrap();
        assert_eq!((again.head().seq, again.head().root), (log.head().seq, log.head().root));
        assert_eq!(again.reader().log_id(), log.reader().log_id());
        assert_eq!(records(&again.reader()), records(&log.reader()));
        again.reader().verify(&mut |_| ()).unwrap();
        // It goes on like any other, and filters find what they should.
        append(&again, batch("s1", &["more"]));
        let filter = Filter { stream: Some("s1".to_owned()), ..Filter::default() };
        let found = again.reader().scan(Seq::FIRST, &filter).count();
        let expected = records(&again.reader()).iter().filter(|record| record.stream == "s1").count();
        assert_eq!(found, expected);
    }
}

/// The first line that does not fit, from 0.
fn first_wrong(lines: &[EventLine]) -> Option<(usize, LineError)> {
    let mut check = LineCheck::default();
    lines.iter().enumerate().find_map(|(at, line)| Some((at, check.event(line).err()?)))
}

#[test]
fn a_line_that_was_changed_removed_moved_or_replaced_is_the_first_that_does_not_fit() {
    let (_dir, log) = log_of(12);
    let (lines, head) = lines_of(&log);
    assert!(first_wrong(&lines).is_none());
    let other = lines_of(&log_of(14).1).0;
    for at in 0..12 {
        let changed = |change: &dyn Fn(&mut EventLine)| {
            let mut lines = lines.clone();
            change(&mut lines[at]);
            let (found, error) = first_wrong(&lines).unwrap();
            assert_eq!(found, at, "{error}");
            error
        };
        let body = changed(&|line| line.stored = other[(at + 1) % 12].stored.clone());
        assert!(matches!(body, LineError::Body { .. }), "{body}");
        for error in [
            changed(&|line| line.recorded_at = Timestamp::from_unix_micros(1)),
            changed(&|line| line.kind_number += 1),
            changed(&|line| line.version += 1),
            changed(&|line| line.flags ^= 1),
            changed(&|line| line.root.clone_from(&other[(at + 1) % 12].root)),
            // Bytes and their hash together.
            changed(&|line| {
                (line.stored, line.body_hash) =
                    (other[(at + 1) % 12].stored.clone(), other[(at + 1) % 12].body_hash.clone());
            }),
        ] {
            assert!(matches!(error, LineError::Root { .. }), "{error}");
        }
        assert!(matches!(changed(&|line| line.root = None), LineError::NoRoot { .. }));
        assert!(matches!(changed(&|line| line.stored = None), LineError::Bytes { .. }));
        assert!(matches!(changed(&|line| line.erased_by = Some(Seq(1))), LineError::Bytes { .. }));
        assert!(matches!(changed(&|line| line.stored.as_mut().unwrap().push('!')), LineError::Base64 { .. }));
        assert!(matches!(changed(&|line| line.seq = Seq(99)), LineError::Order { .. }));
        let mut without = lines.clone();
        without.remove(at);
        let found = first_wrong(&without);
        assert_eq!(found.map(|(found, _)| found), (at < 11).then_some(at));
        let mut swapped = lines.clone();
        swapped.swap(at, (at + 1) % 12);
        assert_eq!(first_wrong(&swapped).unwrap().0, at.min((at + 1) % 12));
    }
    let mut check = LineCheck::default();
    for line in &lines[..11] {
        check.event(line).unwrap();
    }
    assert!(matches!(check.head(&head, None), Err(LineError::HeadPlace { .. })), "the last is missing");
    check.event(&lines[11]).unwrap();
    check.head(&head, None).unwrap();
    let elsewhere = HeadLine { root: lines[10].root.clone().unwrap(), ..head.clone() };
    assert!(matches!(check.head(&elsewhere, None), Err(LineError::HeadRoot { what: "head", .. })));
    let shorter = signer().sign(log.reader().head_at(11).unwrap()).to_string();
    let shorter = HeadLine { checkpoint: Some(shorter), ..head.clone() };
    assert!(matches!(check.head(&shorter, None), Err(LineError::HeadPlace { .. })));
    let unsigned = HeadLine { checkpoint: None, ..head.clone() };
    assert!(matches!(check.head(&unsigned, None), Ok(None)));
    assert!(matches!(check.head(&unsigned, Some(&signer().public_key())), Err(LineError::Unsigned)));
    let stranger = Signer::new([7; 16], &[2; 32]).public_key();
    assert!(matches!(check.head(&head, Some(&stranger)), Err(LineError::OtherKey { .. })));
    let forged = Signer::new([7; 16], &[2; 32]).sign(log.head()).to_string();
    let forged = HeadLine { checkpoint: Some(forged), ..head };
    assert!(matches!(check.head(&forged, None), Err(LineError::Signature(_))));
}

#[test]
fn what_is_no_next_event_and_no_empty_directory_is_refused_and_leaves_nothing() {
    let (_dir, log) = log_of(4);
    let events: Vec<_> =
        log.reader().scan_stored(Seq::FIRST, &Filter::default()).map(|found| found.unwrap().0).collect();
    let dir = TempDir::new().unwrap();
    let place = dir.path().join("new");
    let mut rebuild = Rebuild::begin(&place, [7; 16]).unwrap();
    let mut late = events[0].clone();
    late.recorded_at = Timestamp::from_unix_micros(u64::MAX >> 2);
    rebuild.push(late).unwrap();
    assert!(matches!(rebuild.push(events[2].clone()), Err(RebuildError::Order { .. })));
    assert!(matches!(rebuild.push(events[1].clone()), Err(RebuildError::Time { .. })));
    drop(rebuild);
    // What is left of an attempt is in nobody's way.
    let mut rebuild = Rebuild::begin(&place, [7; 16]).unwrap();
    rebuild.push(events[0].clone()).unwrap();
    let mut cut = events[1].clone();
    let Body::Stored(bytes) = &mut cut.body else { panic!("nothing was erased") };
    bytes.truncate(3);
    cut.body_hash = hash(bytes);
    assert!(matches!(rebuild.push(cut), Err(RebuildError::Unreadable { .. })));
    let mut strange = events[1].clone();
    strange.tag.flags |= 1 << 9;
    assert!(matches!(rebuild.push(strange), Err(RebuildError::Unreadable { .. })));
    drop(rebuild);
    let left: Vec<_> = std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "LOCK"), "{left:?}");
    let held = Rebuild::begin(&place, [7; 16]).unwrap();
    assert!(matches!(Rebuild::begin(&place, [7; 16]), Err(RebuildError::Open(OpenError::Locked { .. }))));
    drop(held);
    std::fs::write(place.join("notes.txt"), "").unwrap();
    let error = Rebuild::begin(&place, [7; 16]).unwrap_err().to_string();
    assert!(error.contains("is not empty, it holds notes.txt; name a directory"), "{error}");
    assert!(!place.join("events.redb.new").exists());
}

#[test]
fn an_attempt_that_left_no_log_but_its_id_is_in_nobodys_way() {
    let dir = TempDir::new().unwrap();
    let place = dir.path().join("new");
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("events.id"), "09\n").unwrap();
    Rebuild::begin(&place, [7; 16]).unwrap().finish().unwrap();
    let id = std::fs::read_to_string(place.join("events.id")).unwrap();
    assert_eq!(id, format!("{}\n", "07".repeat(16)));
    let refused = Rebuild::begin(&place, [7; 16]).unwrap_err().to_string();
    assert!(refused.contains("it holds events.redb"), "{refused}");
}

#[test]
fn the_first_line_says_which_log_it_is_and_which_version_wrote_it() {
    let line = LogLine::new([0xab; 16], 3, true);
    assert_eq!(line.log_id().unwrap(), [0xab; 16]);
    assert!(matches!(LogLine { version: 2, ..line.clone() }.log_id(), Err(LineError::Version { found: 2 })));
    for log_id in ["", "xyz", "+bababababababababababababababab"] {
        let wrong = LogLine { log_id: log_id.to_owned(), ..line.clone() };
        assert!(matches!(wrong.log_id(), Err(LineError::LogId { .. })), "{log_id}");
    }
    let key = signer().public_key();
    assert!(matches!(LineCheck::begin(&line, Some(&key)), Err(LineError::OtherLog { .. })));
    LineCheck::begin(&LogLine::new([7; 16], 3, true), Some(&key)).unwrap();
    // Without the key, the head says whose it is.
    let (lines, head) = lines_of(&log_of(3).1);
    let mut check = LineCheck::begin(&line, None).unwrap();
    for line in &lines {
        check.event(line).unwrap();
    }
    assert!(matches!(check.head(&head, None), Err(LineError::OtherLog { .. })));
}

#[test]
fn the_first_line_of_before_says_of_no_gaps_and_is_written_as_it_was() {
    let line = LogLine::new([7; 16], 3, true);
    let text = r#"{"version":1,"log_id":"07070707070707070707070707070707","events":3,"complete":true}"#;
    assert_eq!(serde_json::to_string(&line).unwrap(), text);
    assert_eq!(serde_json::from_str::<LogLine>(text).unwrap(), line);
    let gaps = LogLine { gaps: true, ..line };
    let text = serde_json::to_string(&gaps).unwrap();
    assert!(text.ends_with(r#","gaps":true}"#), "{text}");
    assert_eq!(serde_json::from_str::<LogLine>(&text).unwrap(), gaps);
}
