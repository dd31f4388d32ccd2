//! What a log is held to besides its chain: headers to their events, and what was erased to its order.

use std::io;
use std::path::Path;

use redb::ReadableTable as _;

use super::damage::{below, of_three_blocks, open_for_reading};
use super::disk::Disk;
use super::exchanging::lines_of;
use super::{append, batch, clock, draft, options};
use crate::log::block::{ENTRY_BYTES, checksum, redact};
use crate::log::blocks;
use crate::log::bloom::{Item, build, item_hash};
use crate::log::exchange::{HeadLine, LineCheck, LineError, LogLine};
use crate::log::flusher::chain_of;
use crate::log::header::Header;
use crate::log::pack::ChainEnd;
use crate::log::rebuild::Rebuild;
use crate::log::store::{BODIES, HEADERS};
use crate::log::verify::{Findings, verify_block};
use crate::log::{
    Batch, Encrypt, End, Filter, ForkOptions, Log, LogBuild, LogOptions, Sealing, copy_log, fork_log,
};
use crate::{Draft, Seq, Subject, SystemEvent, Timestamp};

#[expect(clippy::unnecessary_wraps, reason = "the log takes a function that may fail")]
fn draw(bytes: &mut [u8]) -> io::Result<()> {
    bytes.fill(5);
    Ok(())
}

/// What is wrong with the only block of a log whose header has these kinds and this filter, where some are given.
fn verify_under(log: &Log, kinds: Option<u128>, filter: Option<&[u8]>) -> Result<(), String> {
    let reader = log.reader();
    let snapshot = reader.snapshot().unwrap();
    let mut headers = snapshot.headers_from(Seq::FIRST).unwrap();
    let (first, value) = blocks::next_header(&mut headers, false).unwrap().unwrap();
    let header = blocks::read_header(first, &value).unwrap();
    let body = snapshot.body(first).unwrap();
    let (kinds, filter) = (kinds.unwrap_or(header.kinds), filter.unwrap_or(header.filter));
    let header = Header { kinds, filter, ..header };
    verify_block(&header, &body, &mut ChainEnd::default(), reader.keys(), &mut Findings::default())
        .map_err(|error| error.to_string())
}

#[test]
fn a_header_that_leaves_out_something_of_its_events_is_wrong() {
    for sealing in [None, Some(Sealing { what: Encrypt::All, draw })] {
        let dir = tempfile::tempdir().unwrap();
        let how = LogOptions { compress_above: Some(64), sealing, ..options() };
        let log = Log::open(dir.path(), how, clock()).unwrap();
        let long = draft("agent:ada", &"long ".repeat(100));
        let long = Draft { actor: "bob".to_owned(), correlation: Some("request-1".to_owned()), ..long };
        append(&log, Batch::of(vec![draft("agent:ada", "short"), long, draft("agent:ada", "short again")]));
        assert_eq!(verify_under(&log, None, None), Ok(()));
        let error = verify_under(&log, Some(0), None).unwrap_err();
        assert!(error.contains("#1 is damaged: its header leaves out kinds of its events"), "{error}");
        let items = [
            (Item::Stream, "agent:ada"),
            (Item::Actor, "ada"),
            (Item::Actor, "bob"),
            (Item::Correlation, "request-1"),
        ]
        .map(|(item, text)| item_hash(item, text));
        // To know too much costs a look at the block, no more.
        assert_eq!(verify_under(&log, Some(u128::MAX), Some(&[])), Ok(()));
        assert_eq!(verify_under(&log, None, Some(&build(items.to_vec()))), Ok(()));
        let says = "its header leaves out streams, actors or correlations of its events";
        for left_out in items {
            let filter = build(items.into_iter().filter(|item| *item != left_out).collect());
            let error = verify_under(&log, None, Some(&filter)).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}

#[test]
fn events_that_a_forged_header_hides_from_every_search_are_named() {
    for (has_kinds, says) in [(false, "leaves out kinds"), (true, "leaves out streams, actors")] {
        let disk = of_three_blocks(&["d", "e", "f"]);
        below(&disk, |transaction| {
            let mut headers = transaction.open_table(HEADERS).unwrap();
            let row = headers.get(4).unwrap().unwrap().value().to_vec();
            let header = Header::decode(Seq(4), &row).unwrap();
            let forged =
                if has_kinds { Header { filter: &[0; 8], ..header } } else { Header { kinds: 0, ..header } };
            headers.insert(4, forged.encode().as_slice()).unwrap();
        });
        let reader = open_for_reading(disk.bytes()).unwrap();
        let filter = Filter { stream: Some("s".to_owned()), ..Filter::default() };
        assert_eq!(reader.scan(Seq::FIRST, &filter).map(Result::unwrap).count(), 6, "three are hidden");
        let error = chain_of(&reader.verify(&mut |_| ()).unwrap_err());
        assert!(error.starts_with("everything up to #3 is right") && error.contains(says), "{error}");
        let survey = reader.survey(&mut |_| ()).unwrap();
        assert_eq!((survey.gaps.len(), survey.gaps[0].first), (1, Seq(4)));
    }
}

fn order_to_erase() -> Draft {
    let event = SystemEvent::ErasureOrdered {
        subjects: vec!["agent:ada".parse().unwrap()],
        asked: "agent:ada".to_owned(),
        keys: Vec::new(),
        events: 1,
        next_memory_id: 1,
        reason: None,
        by: "ada".to_owned(),
    };
    Draft { event: event.into(), ..draft("system", "") }
}

/// Puts the mark of `order` in the place of the event at `seq`, which is alone in its block.
fn blank(disk: &Disk, seq: u64, order: Seq) {
    below(disk, |transaction| {
        let mut headers = transaction.open_table(HEADERS).unwrap();
        let mut bodies = transaction.open_table(BODIES).unwrap();
        let row = headers.get(seq).unwrap().unwrap().value().to_vec();
        let mut body = bodies.get(seq).unwrap().unwrap().value().to_vec();
        assert!(redact(&mut body[ENTRY_BYTES..], order));
        let header = Header::decode(Seq(seq), &row).unwrap();
        let made = Header { body_checksum: Some(checksum(&body)), ..header }.encode();
        headers.insert(seq, made.as_slice()).unwrap();
        bodies.insert(seq, body.as_slice()).unwrap();
    });
}

#[test]
fn an_order_erases_nothing_that_stands_behind_it() {
    for (at, order, is_right) in [(1, 2, true), (3, 2, false), (3, 3, false)] {
        let (disk, order) = (Disk::default(), Seq(order));
        let unmerged = LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() };
        let log = Log::open_on(disk.clone(), unmerged, clock()).unwrap();
        let (before, behind) = (draft("agent:ada", "a secret"), draft("agent:ada", "said since"));
        for one in [before, order_to_erase(), behind, draft("agent:bob", "the last")] {
            append(&log, Batch::of(vec![one]));
        }
        let (mut lines, head) = lines_of(&log);
        log.close().unwrap();
        blank(&disk, at, order);
        let verified = open_for_reading(disk.bytes()).unwrap().verify(&mut |_| ());
        let line = &mut lines[at as usize - 1];
        (line.stored, line.erased_by) = (None, Some(order));
        let mut check = LineCheck::default();
        let wrong = lines.iter().find_map(|line| check.event(line).err());
        if is_right {
            let verified = verified.unwrap();
            assert_eq!((verified.erased, verified.erased_later), (1, 0));
            assert!(wrong.is_none(), "{wrong:?}");
            check.head(&head, None).unwrap();
            continue;
        }
        let error = chain_of(&verified.unwrap_err());
        let says = format!("it was not erased by {order}, which does not lie behind it (#{at})");
        assert!(error.contains(&says), "{error}");
        assert!(matches!(wrong, Some(LineError::NoOrder { order: named }) if named == order), "{wrong:?}");
    }
}

/// A log that has the first two events of another, where the order at #3 erased the first, goes on, also as lines.
#[track_caller]
fn check_goes_on(dir: &Path) {
    let log = Log::open(dir, options(), clock()).unwrap();
    for grown in 0..4 {
        let verified = log.reader().verify(&mut |_| ()).unwrap();
        assert_eq!((verified.events, verified.erased, verified.erased_later), (2 + grown, 1, 1));
        log.reader().verify_own(&mut |_| ()).unwrap();
        append(&log, batch("agent:bob", &["said since"]));
    }
    assert!(log.reader().may_lack_orders().unwrap());
    let (lines, head) = (lines_of(&log).0, HeadLine::new(&log.head(), None));
    let first = LogLine { gaps: true, ..LogLine::new(log.reader().log_id(), 6, true) };
    let other = tempfile::tempdir().unwrap();
    let mut rebuild = Rebuild::begin(other.path(), log.reader().log_id()).unwrap();
    let mut check = LineCheck::begin(&first, None).unwrap();
    for line in &lines {
        rebuild.push(check.event(line).unwrap()).unwrap();
    }
    check.head(&head, None).unwrap();
    assert_eq!((check.erased_later(), rebuild.finish().unwrap().root), (1, log.head().root));
    let again = Log::open(other.path(), options(), clock()).unwrap();
    assert_eq!(again.reader().verify(&mut |_| ()).unwrap().erased_later, 1);
    let mut check = LineCheck::begin(&LogLine { gaps: false, ..first }, None).unwrap();
    for line in &lines {
        check.event(line).unwrap();
    }
    assert!(matches!(check.head(&head, None), Err(LineError::NoOrder { order: Seq(3) })));
}

#[test]
fn a_log_that_was_cut_before_an_order_is_right_however_far_it_goes_on() {
    let dirs: Vec<tempfile::TempDir> = (0..5).map(|_| tempfile::tempdir().unwrap()).collect();
    let log = Log::open(dirs[0].path(), options(), clock()).unwrap();
    append(&log, batch("agent:ada", &["a secret"]));
    append(&log, batch("agent:bob", &["of bob"]));
    append(&log, Batch::of(vec![order_to_erase()]));
    assert_eq!(log.redact(&["agent:ada".parse::<Subject>().unwrap()], Seq(3)).unwrap(), 1);
    let sealed = log.seal().unwrap();
    let options = ForkOptions { cut: Seq(2), log_id: [9; 16], at: Timestamp::EPOCH };
    fork_log(&sealed, &options, dirs[1].path(), None).unwrap();
    fork_log(&sealed, &options, dirs[2].path(), Some(&mut |_, _| ())).unwrap();
    copy_log(&log.reader(), Seq(2), &dirs[3].path().join("events.redb"), &mut |_| ()).unwrap();
    let mut build = LogBuild::begin(dirs[4].path(), [7; 16]).unwrap();
    for block in log.reader().stretch(End::default(), Seq(2)) {
        build.block(block.unwrap(), Seq(2)).unwrap();
    }
    build.finish().unwrap();
    for dir in &dirs[1..] {
        check_goes_on(dir.path());
    }
    // The log that has the order needs no note.
    assert!(!log.reader().may_lack_orders().unwrap());
    assert_eq!(log.reader().verify(&mut |_| ()).unwrap().erased_later, 0);
}
