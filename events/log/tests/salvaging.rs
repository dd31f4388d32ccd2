//! Salvage: what is right on both sides of damage is delivered, what is not is named, nothing is made up.

use std::fmt::Write as _;
use std::sync::Arc;

use redb::{ReadableTable as _, StorageBackend as _};

use super::damage::{below, of_three_blocks, open_for_reading, written};
use super::disk::{Disk, Survives};
use super::{append, batch, clock, content, options};
use crate::log::block::{ENTRY_BYTES, checksum};
use crate::log::chain::hash;
use crate::log::header::{HEADER_BYTES_MAX, Header};
use crate::log::journal::{Journal, PAGE, RING_BYTES, WAL_BYTES};
use crate::log::open::Opened;
use crate::log::remains::{open_backend_by_trees, open_backend_damaged};
use crate::log::store::{BODIES, HEADERS};
use crate::log::wal::{self, Seed};
use crate::log::{Filter, Found, Log, LogOptions, Lost, OpenError, Reader, Salvaged, share};
use crate::{Kind, Record, Seq};

fn open(bytes: Vec<u8>) -> Result<Reader, OpenError> {
    open_disk(&Disk::holding(bytes))
}

pub(super) fn open_disk(disk: &Disk) -> Result<Reader, OpenError> {
    open_backend_damaged(disk, options().log_id).map(reader)
}

/// What is left on any medium.
pub(super) fn open_backend<B: redb::StorageBackend + Clone>(medium: &B) -> Reader {
    reader(open_backend_damaged(medium, options().log_id).unwrap())
}

fn reader(Opened { database, end, log_id }: Opened) -> Reader {
    Reader::new(Arc::new(share(database, &end, log_id, None)))
}

/// What the trees of a log lead to: rows that a test replaced may still lie about.
fn by_trees(disk: &Disk) -> Reader {
    reader(open_backend_by_trees(disk).unwrap())
}

/// Everything that a reader salvages, and what it names as lost.
pub(super) fn salvaged(reader: &Reader, from: u64, filter: &Filter) -> (Vec<Record>, Vec<Lost>) {
    let (mut records, mut gaps) = (Vec::new(), Vec::new());
    for found in reader.scan_salvaging(Seq(from), filter).unwrap() {
        match found {
            Salvaged::Event(found) => match *found {
                Found::Record(record) => records.push(record),
                Found::Sealed(sealed) => panic!("nothing was erased: {sealed:?}"),
            },
            Salvaged::Lost(gap) => gaps.push(gap),
        }
    }
    (records, gaps)
}

#[test]
fn a_flipped_bit_anywhere_loses_what_it_hits_and_nothing_else() {
    let (disk, truth) = written();
    let bytes = disk.bytes();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut lost = 0;
    for at in (0..used).step_by(97) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let Ok(reader) = open(flipped) else { continue };
        let head = reader.head().seq.0 as usize;
        let (records, gaps) = salvaged(&reader, 0, &Filter::default());
        for record in &records {
            assert_eq!(record, &truth[record.seq.0 as usize - 1], "byte {at}");
        }
        let named: u64 = gaps.iter().map(|gap| gap.last.0 - gap.first.0 + 1).sum();
        assert_eq!(records.len() + named as usize, head, "byte {at}: {gaps:?}");
        // Two events a block: a bit costs a block at the most, unless it lies in the store's own pages.
        lost = lost.max(named);
        let survey = reader.survey(&mut |_| ()).unwrap();
        let surveyed: u64 = survey.gaps.iter().map(|gap| gap.last.0 - gap.first.0 + 1).sum();
        assert_eq!(survey.events + surveyed, head as u64, "byte {at}: {:?}", survey.gaps);
        assert!(survey.events <= records.len() as u64, "byte {at}: {:?} {gaps:?}", survey.gaps);
    }
    assert!(lost > 0, "no flip was noticed");
}

/// The positions that are delivered and those that are lost, of a log whose second block, #4 to #6, was changed.
#[track_caller]
fn check(change: impl Fn(&redb::WriteTransaction), delivered: &[u64], lost: &[(u64, u64)], cause: &str) {
    let disk = of_three_blocks(&["d", "e", "f"]);
    below(&disk, |transaction| change(transaction));
    let reader = by_trees(&disk);
    let (records, gaps) = salvaged(&reader, 0, &Filter::default());
    assert_eq!(records.iter().map(|record| record.seq.0).collect::<Vec<_>>(), delivered);
    assert_eq!(gaps.iter().map(|gap| (gap.first.0, gap.last.0)).collect::<Vec<_>>(), lost);
    assert!(gaps[0].cause.to_string().contains(cause), "{}", gaps[0].cause);
    let survey = reader.survey(&mut |_| ()).unwrap();
    assert_eq!(survey.events, delivered.len() as u64);
    assert_eq!(survey.gaps.iter().map(|gap| (gap.first.0, gap.last.0)).collect::<Vec<_>>(), lost);
    assert_eq!(survey.blocks, 2);
}

fn change(
    table: redb::TableDefinition<'static, u64, &[u8]>,
    block: u64,
    at: impl Fn(&mut Vec<u8>),
) -> impl Fn(&redb::WriteTransaction) {
    move |transaction| {
        let mut rows = transaction.open_table(table).unwrap();
        let mut row = rows.get(block).unwrap().unwrap().value().to_vec();
        at(&mut row);
        rows.insert(block, row.as_slice()).unwrap();
    }
}

#[test]
fn each_kind_of_damage_costs_what_it_must() {
    let flip_e = |body: &mut Vec<u8>| {
        let text = body.iter().rposition(|byte| *byte == b'e').unwrap();
        body[text] ^= 1;
    };
    check(
        change(BODIES, 4, flip_e),
        &[1, 2, 3, 4, 6, 7, 8, 9],
        &[(5, 5)],
        "an event does not match its hash (#5)",
    );
    check(change(BODIES, 4, |body| body[3] ^= 1), &[1, 2, 3, 7, 8, 9], &[(4, 6)], "the entries do not match");
    check(change(BODIES, 4, |body| body.truncate(9)), &[1, 2, 3, 7, 8, 9], &[(4, 6)], "another length");
    check(
        change(HEADERS, 4, |header| header[30] ^= 1),
        &[1, 2, 3, 7, 8, 9],
        &[(4, 6)],
        "the header does not match",
    );
    let remove = |table| {
        move |transaction: &redb::WriteTransaction| {
            transaction.open_table::<u64, &[u8]>(table).unwrap().remove(4).unwrap();
        }
    };
    check(remove(BODIES), &[1, 2, 3, 7, 8, 9], &[(4, 6)], "its events are missing");
    check(remove(HEADERS), &[1, 2, 3, 7, 8, 9], &[(4, 6)], "the block is missing");
}

#[test]
fn a_gap_tells_when_its_events_were_recorded_and_what_they_may_be() {
    let disk = of_three_blocks(&["d", "e", "f"]);
    below(&disk, |transaction| {
        transaction.open_table(BODIES).unwrap().remove(4).unwrap();
    });
    let reader = by_trees(&disk);
    let (records, gaps) = salvaged(&reader, 0, &Filter::default());
    let gap = &gaps[0];
    assert_eq!(gap.kinds, Some(vec![Kind::ObservationAdded]));
    assert!(Some(records[2].recorded_at) <= gap.recorded_from);
    assert!(gap.recorded_to <= Some(records[3].recorded_at));
    let until = Filter { until: Some(Seq(4)), ..Filter::default() };
    let (records, gaps) = salvaged(&reader, 3, &until);
    assert_eq!((records.len(), records[0].seq), (1, Seq(3)));
    assert_eq!((gaps[0].first, gaps[0].last), (Seq(4), Seq(4)), "nothing beyond the end asked for is named");
}

#[test]
fn a_gap_that_nothing_lies_before_has_no_time_it_begins_at() {
    let disk = of_three_blocks(&["d", "e", "f"]);
    below(&disk, |transaction| {
        transaction.open_table(HEADERS).unwrap().remove(1).unwrap();
    });
    let reader = by_trees(&disk);
    let (records, gaps) = salvaged(&reader, 0, &Filter::default());
    let survey = reader.survey(&mut |_| ()).unwrap();
    for gap in [&gaps[0], &survey.gaps[0]] {
        assert_eq!((gap.first, gap.last, gap.recorded_from), (Seq(1), Seq(3), None));
        assert_eq!(gap.recorded_to, Some(records[0].recorded_at));
    }
}

#[test]
fn a_damaged_last_block_is_lost_and_everything_before_it_is_read() {
    let (disk, truth) = written();
    let mut bytes = disk.bytes();
    while let Some(at) = bytes.windows(9).position(|window| window == b"event 39 ") {
        bytes[at] ^= 1;
    }
    let (records, gaps) = salvaged(&open(bytes).unwrap(), 0, &Filter::default());
    assert_eq!((records.len(), gaps.len()), (79, 1));
    assert_eq!((gaps[0].first, gaps[0].last), (Seq(79), Seq(79)));
    assert_eq!(records.last(), truth.last());
}

#[test]
fn a_replaced_block_can_be_read_and_is_named_by_the_survey() {
    let mut forged = (Vec::new(), Vec::new());
    below(&of_three_blocks(&["d", "another", "f"]), |transaction| {
        let row = |table: redb::TableDefinition<'static, u64, &[u8]>| {
            transaction.open_table(table).unwrap().get(4).unwrap().unwrap().value().to_vec()
        };
        forged = (row(HEADERS), row(BODIES));
    });
    let disk = of_three_blocks(&["d", "e", "f"]);
    below(&disk, |transaction| {
        transaction.open_table(HEADERS).unwrap().insert(4, forged.0.as_slice()).unwrap();
        transaction.open_table(BODIES).unwrap().insert(4, forged.1.as_slice()).unwrap();
    });
    let reader = open(disk.bytes()).unwrap();
    let survey = reader.survey(&mut |_| ()).unwrap();
    // The forged block continues what is before it; what is behind it shows that it was another one.
    assert_eq!(survey.gaps.iter().map(|gap| (gap.first.0, gap.last.0)).collect::<Vec<_>>(), [(7, 9)]);
    assert!(survey.gaps[0].cause.to_string().contains("does not continue the chain"));
}

#[test]
fn what_is_whole_is_delivered_whole_also_from_the_write_ahead_log() {
    let log = Log::open_on(Disk::default(), options(), clock()).unwrap();
    for n in 0..30 {
        append(&log, batch("s", &[&format!("event {n}")]));
    }
    let (records, gaps) = salvaged(&log.reader(), 5, &Filter::default());
    assert_eq!((records.len(), gaps.len(), content(&records[0]).as_str()), (26, 0, "event 4"));
    let survey = log.reader().survey(&mut |_| ()).unwrap();
    assert_eq!((survey.events, survey.gaps.len()), (30, 0));
}

#[test]
fn blocks_of_the_old_format_are_read_by_the_hashes_of_their_events() {
    let disk = Disk::default();
    let unmerged = LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() };
    let log = Log::open_on(disk.clone(), unmerged, clock()).unwrap();
    append(&log, batch("s", &["a", "second event"]));
    append(&log, batch("s", &["c"]));
    log.close().unwrap();
    below(&disk, |transaction| {
        let mut headers = transaction.open_table(HEADERS).unwrap();
        for first in [1, 3] {
            let row = headers.get(first).unwrap().unwrap().value().to_vec();
            let header = Header::decode(Seq(first), &row).unwrap();
            assert!(header.body_checksum.is_some());
            let old = Header { body_checksum: None, ..header }.encode();
            headers.insert(first, old.as_slice()).unwrap();
        }
    });
    let reader = open(disk.bytes()).unwrap();
    assert_eq!(super::contents(&reader), ["a", "second event", "c"]);
    assert_eq!(reader.verify(&mut |_| ()).unwrap().events, 3);
    let mut bytes = disk.bytes();
    while let Some(at) = bytes.windows(12).position(|window| window == b"second event") {
        bytes[at] ^= 1;
    }
    let (records, gaps) = salvaged(&open(bytes).unwrap(), 0, &Filter::default());
    assert_eq!((records.len(), gaps.len(), gaps[0].first), (2, 1, Seq(2)));
}

#[test]
fn an_event_of_a_newer_caxton_is_named_as_such_and_what_is_around_it_is_read() {
    let disk = of_three_blocks(&["d", "e", "f"]);
    below(&disk, |transaction| {
        let mut headers = transaction.open_table(HEADERS).unwrap();
        let mut bodies = transaction.open_table(BODIES).unwrap();
        let (row, mut body) = (
            headers.get(4).unwrap().unwrap().value().to_vec(),
            bodies.get(4).unwrap().unwrap().value().to_vec(),
        );
        // The kind of #5, in a block that is made anew around it.
        body[ENTRY_BYTES + 12] = 120;
        let header = Header::decode(Seq(4), &row).unwrap();
        let entries_hash = hash(&body[..3 * ENTRY_BYTES]);
        let made = Header { entries_hash, body_checksum: Some(checksum(&body)), ..header }.encode();
        headers.insert(4, made.as_slice()).unwrap();
        bodies.insert(4, body.as_slice()).unwrap();
    });
    let reader = open(disk.bytes()).unwrap();
    let newer = "written by a newer Caxton (kind 120, version 1); use that version to read it";
    let mut seen = Vec::new();
    let read = reader.blocks(Seq::FIRST, &Filter::default()).try_for_each(|block| {
        block?.for_each(|record| {
            seen.push((record.seq.0, record.kind()));
            record.event().map(|_| ())
        })
    });
    assert_eq!(std::error::Error::source(&read.unwrap_err()).unwrap().to_string(), newer);
    assert_eq!(seen.last(), Some(&(5, None)));
    let (records, gaps) = salvaged(&reader, 0, &Filter::default());
    assert_eq!((records.len(), gaps.len(), gaps[0].first, gaps[0].last), (8, 1, Seq(5), Seq(5)));
    assert_eq!(std::error::Error::source(&gaps[0].cause).unwrap().to_string(), newer);
}

/// Where redb's part of a file begins.
pub(super) const STORE: usize = (2 * PAGE + RING_BYTES + WAL_BYTES) as usize;

/// The file of a log up to the last byte that belongs to it: one that was not closed in order may be longer.
pub(super) fn whole(mut bytes: Vec<u8>) -> Vec<u8> {
    let journal = Journal::open(Box::new(Disk::holding(bytes.clone())), false).unwrap();
    bytes.truncate(STORE + journal.backend().len().unwrap() as usize);
    bytes
}

/// What is left of a file without its last bytes: records that were written, and all others up to the head by name.
/// `None` where nothing can be read.
#[track_caller]
fn without_end(bytes: &[u8], missing: usize, truth: &[Record]) -> Option<Vec<Record>> {
    let disk = Disk::holding(bytes[..bytes.len() - missing].to_vec());
    let reader = open_disk(&disk).ok()?;
    assert_eq!(reader.missing_bytes(), missing as u64);
    let (records, gaps) = salvaged(&reader, 0, &Filter::default());
    for record in &records {
        assert_eq!(Some(record), truth.get(record.seq.0 as usize - 1), "{missing} bytes are missing");
    }
    let lost: u64 = gaps.iter().map(|gap| gap.last.0 - gap.first.0 + 1).sum();
    let head = reader.head().seq.0;
    assert_eq!(records.len() as u64 + lost, head, "{missing} bytes are missing: {gaps:?}");
    let survey = reader.survey(&mut |_| ()).unwrap();
    let surveyed: u64 = survey.gaps.iter().map(|gap| gap.last.0 - gap.first.0 + 1).sum();
    assert_eq!(survey.events + surveyed, head, "{missing} bytes are missing: {:?}", survey.gaps);
    Some(records)
}

/// Text of so many numbers that compression makes little of.
pub(super) fn unpackable(from: u64, numbers: u64) -> String {
    let mut text = String::new();
    for number in from..from + numbers {
        write!(text, "{:x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).unwrap();
    }
    text
}

#[test]
fn a_file_whose_end_is_missing_gives_what_is_left() {
    let disk = Disk::default();
    let log = Log::open_on(disk.clone(), LogOptions { merge_blocks: false, ..options() }, clock()).unwrap();
    for n in 0..400_u64 {
        let text = unpackable(n * 60, 60);
        append(&log, batch("s", &[text.as_str()]));
    }
    let truth = super::records(&log.reader());
    log.close().unwrap();
    let bytes = whole(disk.bytes());
    assert!(open_for_reading(bytes[..bytes.len() - 1].to_vec()).is_err(), "only salvage reads such a file");
    assert_eq!(without_end(&bytes, 0, &truth).unwrap(), truth);
    assert_eq!(without_end(&bytes, 1, &truth).unwrap(), truth, "the last page is not full");
    let left: Vec<usize> = (1..bytes.len() - STORE)
        .step_by(9_973)
        .filter_map(|missing| without_end(&bytes, missing, &truth))
        .map(|left| left.len())
        .collect();
    assert!(left.iter().any(|left| (1..truth.len()).contains(left)), "no cut left a part: {left:?}");
}

#[test]
fn what_only_the_write_ahead_log_has_is_saved_although_the_end_of_the_file_is_missing() {
    let disk = Disk::default();
    let log = Log::open_on(disk.clone(), options(), clock()).unwrap();
    for n in 0..60 {
        append(&log, batch("s", &[&format!("event {n}")]));
    }
    let truth = super::records(&log.reader());
    let bytes = whole(disk.after_power_cut(Survives::Nothing).bytes());
    let logged = wal::records(Seed::of(&log.reader().log_id()), &bytes);
    assert!(logged.iter().any(|block| block.first == Seq(60)), "the last event is in the store already");
    assert_eq!(without_end(&bytes, 1, &truth).unwrap(), truth);
    for missing in (1..bytes.len() - STORE).step_by(PAGE as usize) {
        let Some(left) = without_end(&bytes, missing, &truth) else { continue };
        assert_eq!(left.last(), truth.last(), "{missing} bytes are missing");
    }
}

#[test]
fn a_damaged_header_at_the_end_hides_nothing_that_only_the_write_ahead_log_has() {
    let disk = Disk::default();
    let log = Log::open_on(disk.clone(), options(), clock()).unwrap();
    // Too large for the write-ahead log, however well it is packed.
    let large = unpackable(0, 20_000);
    append(&log, batch("s", &[large.as_str()]));
    append(&log, batch("s", &["a small one"]));
    let left = disk.after_power_cut(Survives::Nothing);
    // Every copy of it, also those the store refers to no more.
    let (mut bytes, start) = (left.bytes(), [b"CXBH".as_slice(), &[2, 0]].concat());
    for at in 0..bytes.len() - HEADER_BYTES_MAX {
        if bytes[at..].starts_with(&start) && bytes[at + 8..].starts_with(&1_u64.to_le_bytes()) {
            bytes[at + 30] ^= 1;
        }
    }
    let (records, gaps) = salvaged(&open(bytes).unwrap(), 0, &Filter::default());
    assert_eq!(records.iter().map(content).collect::<Vec<_>>(), ["a small one"]);
    assert_eq!(gaps.iter().map(|gap| (gap.first.0, gap.last.0)).collect::<Vec<_>>(), [(1, 1)]);
}

#[test]
fn a_broken_page_of_the_store_hides_nothing_that_only_the_write_ahead_log_has() {
    let disk = Disk::default();
    let log = Log::open_on(disk.clone(), options(), clock()).unwrap();
    append(&log, batch("s", &[unpackable(0, 20_000).as_str()]));
    for text in ["small", "smaller", "smallest"] {
        append(&log, batch("s", &[text]));
    }
    let bytes = whole(disk.after_power_cut(Survives::Nothing).bytes());
    let mut opened = 0;
    for page in (STORE..bytes.len()).step_by(PAGE as usize) {
        let mut bytes = bytes.clone();
        let end = bytes.len().min(page + PAGE as usize);
        bytes[page..end].fill(0xA5);
        let Ok(reader) = open_disk(&Disk::holding(bytes)) else { continue };
        opened += 1;
        let (records, _) = salvaged(&reader, 0, &Filter::default());
        let texts: Vec<String> = records.iter().map(content).collect();
        assert!(texts.ends_with(&["small", "smaller", "smallest"].map(str::to_owned)), "page at {page}");
    }
    assert!(opened > 1, "{opened}");
}
