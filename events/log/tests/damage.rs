//! Damage: any flipped bit is refused by name or changes nothing; nothing is made up, nothing panics.

use std::sync::Arc;

use redb::ReadableTable as _;

use super::disk::Disk;
use super::{append, batch, clock, keyed, options, records};
use crate::log::block::{Block, ENTRY_BYTES, checksum, redact};
use crate::log::header::Header;
use crate::log::journal::Journal;
use crate::log::open::{Opened, open_backend_read_only, rehearse};
use crate::log::store::{BODIES, HEADERS};
use crate::log::{Filter, Log, LogOptions, OpenError, Reader, share};
use crate::{Record, Seq};

pub(super) fn written() -> (Disk, Vec<Record>) {
    let disk = Disk::default();
    let log = Log::open_on(
        disk.clone(),
        LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() },
        clock(),
    )
    .unwrap();
    for n in 0..40 {
        let text = format!("event {n} {}", "abc".repeat(n * 5));
        append(&log, keyed(batch(&format!("s{}", n % 3), &[&text, "tail"]), &format!("key {n}"), 1));
    }
    let records = records(&log.reader());
    log.close().unwrap();
    (disk, records)
}

/// What is read is what was written, up to the error that ends it; whether there was one.
#[track_caller]
fn check_truth(reader: &Reader, truth: &[Record], what: &str) -> bool {
    let mut wrong = false;
    for (index, record) in reader.scan(Seq::FIRST, &Filter::default()).enumerate() {
        match record {
            Ok(record) => assert_eq!(Some(&record), truth.get(index), "{what}"),
            Err(_) => wrong = true,
        }
    }
    let back = reader.scan_back(Seq(u64::MAX), &Filter::default());
    for (record, then) in back.zip(truth.iter().rev()) {
        match record {
            Ok(record) => assert_eq!(&record, then, "{what}"),
            Err(_) => wrong = true,
        }
    }
    for n in 0..40 {
        match reader.key(&format!("key {n}")) {
            Ok(Some(row)) => assert_eq!((row.first, row.last), (Seq(2 * n + 1), Seq(2 * n + 2)), "{what}"),
            Ok(None) | Err(_) => wrong = true,
        }
    }
    wrong
}

pub(super) fn open_for_reading(bytes: Vec<u8>) -> Result<Reader, OpenError> {
    let Opened { database, end, log_id } = open_backend_read_only(Disk::holding(bytes))?;
    Ok(Reader::new(Arc::new(share(database, &end, log_id, None))))
}

#[test]
fn a_flipped_bit_anywhere_is_refused_or_changes_nothing() {
    let (disk, truth) = written();
    let bytes = disk.bytes();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut noticed = 0;
    for at in (0..used).step_by(101) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let what = format!("byte {at}");
        // For reading: where redb's own record of free pages is damaged, redb aborts when it writes.
        let Ok(reader) = open_for_reading(flipped) else {
            noticed += 1;
            continue;
        };
        let wrong = check_truth(&reader, &truth, &what);
        match reader.verify(&mut |_| ()) {
            Ok(verified) => {
                assert!(!wrong, "{what}: verified although a read failed");
                assert_eq!(verified.events, truth.len() as u64, "{what}");
            }
            Err(_) => noticed += 1,
        }
    }
    assert!(noticed > 20, "only {noticed} flips were noticed");
}

/// Flips a bit of the stored text and says what the log says.
fn with_flip_in(text: &str) -> (Log, Vec<Record>) {
    let (disk, truth) = written();
    let mut bytes = disk.bytes();
    let mut places = Vec::new();
    for at in 0..bytes.len() - text.len() {
        if bytes[at..].starts_with(text.as_bytes()) {
            places.push(at);
        }
    }
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 1;
    }
    (Log::open_on(Disk::holding(bytes), options(), clock()).unwrap(), truth)
}

#[test]
fn a_damaged_event_is_named_and_everything_before_it_is_read() {
    let (log, truth) = with_flip_in("event 20 ");
    let reader = log.reader();
    let results: Vec<_> = reader.scan(Seq::FIRST, &Filter::default()).collect();
    assert_eq!(results.len(), 41);
    for (result, then) in results.iter().zip(&truth[..40]) {
        assert_eq!(result.as_ref().unwrap(), then);
    }
    let then = "the block at #41 is damaged: an event does not match its hash (#41); restore events.redb from a backup";
    assert_eq!(results[40].as_ref().unwrap_err().to_string(), then);
    let mut reached = Seq::ZERO;
    let error = reader.verify(&mut |seq| reached = seq).unwrap_err();
    assert_eq!(error.to_string(), "everything up to #40 is right, what follows is not");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), then);
    assert_eq!(reached, Seq(40));
}

#[test]
fn a_damaged_last_block_is_refused_when_the_log_is_opened() {
    let (disk, _) = written();
    let mut bytes = disk.bytes();
    while let Some(at) = bytes.windows(9).position(|window| window == b"event 39 ") {
        bytes[at] ^= 1;
    }
    let error = Log::open_on(Disk::holding(bytes), options(), clock()).unwrap_err();
    let then = "(backend) is damaged or no log of Caxton's; restore it from a backup";
    assert_eq!(error.to_string(), then);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("the block at #79 is damaged: an event does not match its hash"), "{source}");
}

#[test]
fn merging_does_not_bless_what_is_damaged() {
    let disk = Disk::default();
    let log = Log::open_on(
        disk.clone(),
        LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() },
        clock(),
    )
    .unwrap();
    for n in 0..200 {
        append(&log, batch("s", &[&format!("event {n} ")]));
    }
    log.close().unwrap();
    let mut bytes = disk.bytes();
    while let Some(at) = bytes.windows(10).position(|window| window == b"event 150 ") {
        bytes[at] ^= 1;
    }
    let disk = Disk::holding(bytes);
    let log = Log::open_on(disk.clone(), options(), clock()).unwrap();
    log.append(vec![]).unwrap();
    log.close().unwrap();
    let log = Log::open_on(disk, options(), clock()).unwrap();
    let error = log.reader().verify(&mut |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "everything up to #150 is right, what follows is not");
}

/// A log of three blocks of three events, the second of which holds these contents.
pub(super) fn of_three_blocks(second: &[&str]) -> Disk {
    let disk = Disk::default();
    let unmerged = LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() };
    let log = Log::open_on(disk.clone(), unmerged, clock()).unwrap();
    for contents in [&["a", "b", "c"], second, &["g", "h", "i"]] {
        append(&log, batch("s", contents));
    }
    log.close().unwrap();
    disk
}

/// Runs `change` on the headers and bodies of a log, below everything that checks them.
pub(super) fn below(disk: &Disk, change: impl FnOnce(&redb::WriteTransaction)) {
    let journal = Journal::open(Box::new(disk.clone()), true).unwrap();
    let database = redb::Database::builder().create_with_backend(journal.backend()).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

#[test]
fn an_event_that_was_replaced_removed_or_moved_with_its_block_made_anew_is_named() {
    let broken = "it does not continue the chain: its root before differs from the one reached";
    let cases = [
        (&["d", "another", "f"][..], "up to #6", format!("the block at #7 is damaged: {broken}")),
        (&["d", "f"], "up to #5", "the block at #7 is damaged: the block before it is missing".to_owned()),
        (&["e", "d", "f"], "up to #6", format!("the block at #7 is damaged: {broken}")),
    ];
    for (second, good, then) in cases {
        let mut forged = (Vec::new(), Vec::new());
        below(&of_three_blocks(second), |transaction| {
            let rows = |table: redb::TableDefinition<'static, u64, &[u8]>| {
                transaction.open_table(table).unwrap().get(4).unwrap().unwrap().value().to_vec()
            };
            forged = (rows(HEADERS), rows(BODIES));
        });
        let disk = of_three_blocks(&["d", "e", "f"]);
        below(&disk, |transaction| {
            transaction.open_table(HEADERS).unwrap().insert(4, forged.0.as_slice()).unwrap();
            transaction.open_table(BODIES).unwrap().insert(4, forged.1.as_slice()).unwrap();
        });
        let verified = open_for_reading(disk.bytes()).map(|reader| reader.verify(&mut |_| ()));
        // The last block is checked against the one before it when the log is opened.
        let error = match verified {
            Err(OpenError::Damaged { source, .. }) => source.to_string(),
            Ok(Err(error)) => {
                assert!(error.to_string().contains(good), "{error}");
                std::error::Error::source(&error).unwrap().to_string()
            }
            other => panic!("{second:?}: {other:?}"),
        };
        assert!(error.starts_with(&then), "{second:?}: {error}");
    }
}

#[test]
fn a_log_that_can_be_read_and_not_written_is_told_by_a_rehearsal_that_changes_nothing() {
    let (disk, truth) = written();
    let whole = disk.bytes();
    let unmerged = || LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() };
    let mut refused = 0;
    for start in (0..whole.len()).step_by(4_096).filter(|start| whole[*start..][..4_096] != [0; 4_096]) {
        let mut bytes = whole.clone();
        bytes[start..][..4_096].fill(0);
        let Ok(reader) = open_for_reading(bytes.clone()) else { continue };
        if check_truth(&reader, &truth, "a page") || reader.verify(&mut |_| ()).is_err() {
            continue;
        }
        drop(reader);
        let disk = Disk::holding(bytes.clone());
        let rehearsed = rehearse(Box::new(disk.clone()));
        assert!(disk.bytes() == bytes, "the page at {start}");
        let taken = Log::open_on(disk, unmerged(), clock())
            .is_ok_and(|log| log.append(vec![batch("s", &["more"])]).is_ok_and(|results| results[0].is_ok()));
        assert!(taken || rehearsed.is_err(), "the page at {start}");
        refused += u32::from(rehearsed.is_err());
    }
    assert!(refused > 0);
    assert!(rehearse(Box::new(Disk::holding(whole))).is_ok());
}

/// A log of three blocks of three events. Of each, the second was taken out by the order at #10 and the third by another.
fn of_three_blocks_with_gaps() -> Disk {
    let disk = of_three_blocks(&["d", "e", "f"]);
    below(&disk, |transaction| {
        let mut headers = transaction.open_table(HEADERS).unwrap();
        let mut bodies = transaction.open_table(BODIES).unwrap();
        for first in [1, 4, 7] {
            let row = headers.get(first).unwrap().unwrap().value().to_vec();
            let mut body = bodies.get(first).unwrap().unwrap().value().to_vec();
            let header = Header::decode(Seq(first), &row).unwrap();
            let block = Block::open(&header, &body).unwrap();
            let ends = [0, 1, 2].map(|index| 3 * ENTRY_BYTES + block.entry(index).body_end as usize);
            assert!(redact(&mut body[ends[0]..ends[1]], Seq(10)));
            assert!(redact(&mut body[ends[1]..ends[2]], Seq(11)));
            let made = Header { body_checksum: Some(checksum(&body)), ..header }.encode();
            headers.insert(first, made.as_slice()).unwrap();
            bodies.insert(first, body.as_slice()).unwrap();
        }
    });
    disk
}

#[test]
fn what_is_damaged_counts_as_taken_out_and_hides_nothing_that_was() {
    type Change = fn(&mut Vec<u8>);
    type Table = redb::TableDefinition<'static, u64, &'static [u8]>;
    let block: &[u64] = &[1, 2, 3, 5, 8];
    let cases: [(Table, Change, &[u64]); 6] = [
        (BODIES, |_| (), &[2, 5, 8]),
        (HEADERS, |header| header[30] ^= 1, block),
        (BODIES, |entries| entries[3] ^= 1, block),
        (BODIES, |body| body.truncate(9), block),
        (BODIES, |body| body[3 * ENTRY_BYTES] ^= 1, &[1, 2, 5, 8]),
        // What is left of the mark does not say whose it is.
        (BODIES, |body| *body.last_mut().unwrap() ^= 1, &[2, 3, 5, 8]),
    ];
    for (table, change, taken) in cases {
        let disk = of_three_blocks_with_gaps();
        below(&disk, |transaction| {
            let mut rows = transaction.open_table(table).unwrap();
            let mut row = rows.get(1).unwrap().unwrap().value().to_vec();
            change(&mut row);
            rows.insert(1, row.as_slice()).unwrap();
        });
        let found = open_for_reading(disk.bytes()).unwrap().taken_out(Seq(10)).unwrap();
        assert_eq!(found.iter().map(|seq| seq.0).collect::<Vec<_>>(), taken, "{table}");
    }
    for table in [HEADERS, BODIES] {
        let disk = of_three_blocks_with_gaps();
        below(&disk, |transaction| {
            transaction.open_table(table).unwrap().remove(1).unwrap();
        });
        let found = open_for_reading(disk.bytes()).unwrap().taken_out(Seq(10)).unwrap();
        assert_eq!(found.iter().map(|seq| seq.0).collect::<Vec<_>>(), block, "without a row of {table}");
    }
}
