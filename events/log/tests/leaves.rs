//! Salvage where the store's own structure is damaged: what leads to the rows is gone, the rows are not.

use std::io;

use redb::{ReadableTable as _, StorageBackend};

use super::damage::{below, written};
use super::disk::{Disk, Survives};
use super::salvaging::{STORE, open_backend, open_disk, salvaged, unpackable, whole};
use super::{append, batch, clock, options};
use crate::log::header::Header;
use crate::log::journal::{PAGE, RING_BYTES};
use crate::log::open::put_origin;
use crate::log::origin::{Dropped, Origin};
use crate::log::pack::ChainEnd;
use crate::log::store::HEADERS;
use crate::log::{Filter, Log, LogOptions, Lost, Reader};
use crate::{Record, Seq};

fn open(bytes: Vec<u8>) -> Reader {
    open_disk(&Disk::holding(bytes)).unwrap()
}

fn lost(gaps: &[Lost]) -> u64 {
    gaps.iter().map(|gap| gap.last.0 - gap.first.0 + 1).sum()
}

/// A log of blocks that are in the store, none of them in the write-ahead log alone.
fn stored(events: u64, numbers: u64) -> (Vec<u8>, Vec<Record>) {
    let disk = Disk::default();
    let unmerged = LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() };
    let log = Log::open_on(disk.clone(), unmerged, clock()).unwrap();
    for n in 0..events {
        append(&log, batch("s", &[unpackable(n * numbers, numbers).as_str()]));
    }
    let truth = super::records(&log.reader());
    log.close().unwrap();
    (whole(disk.bytes()), truth)
}

#[test]
fn no_flipped_bit_costs_more_than_the_rows_of_a_page() {
    let (disk, truth) = written();
    let bytes = whole(disk.bytes());
    for at in (0..bytes.len()).step_by(89) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let (records, gaps) = salvaged(&open(flipped), 0, &Filter::default());
        for record in &records {
            assert_eq!(record, &truth[record.seq.0 as usize - 1], "byte {at}");
        }
        // The rows of a page are a dozen blocks of two events here.
        assert!(records.len() + 40 >= truth.len(), "byte {at}: {gaps:?}");
    }
}

#[test]
fn a_page_that_is_gone_costs_its_rows_and_no_page_leads_to_all() {
    let (bytes, truth) = stored(120, 60);
    let mut worst = 0;
    for page in (STORE..bytes.len()).step_by(PAGE as usize) {
        let mut bytes = bytes.clone();
        let end = bytes.len().min(page + PAGE as usize);
        bytes[page..end].fill(0xA5);
        let reader = open(bytes);
        let (records, gaps) = salvaged(&reader, 0, &Filter::default());
        for record in &records {
            assert_eq!(record, &truth[record.seq.0 as usize - 1], "page at {page}");
        }
        let head = reader.head().seq.0;
        assert_eq!(records.len() as u64 + lost(&gaps), head, "page at {page}: {gaps:?}");
        let whole = records.len() == truth.len();
        assert!(
            whole || reader.structure_damaged() || !gaps.is_empty(),
            "page at {page}: nothing is said of it"
        );
        worst = worst.max(truth.len() - records.len());
        let survey = reader.survey(&mut |_| ()).unwrap();
        assert_eq!(survey.events + lost(&survey.gaps), head, "page at {page}: {:?}", survey.gaps);
    }
    assert!((1..20).contains(&worst), "{worst} events were lost with one page");
}

#[test]
fn everything_is_found_where_no_tree_is_left() {
    let (mut bytes, truth) = stored(40, 600);
    // Superblocks, redb's header, and every page that is a branch.
    bytes[..2 * PAGE as usize].fill(0);
    bytes[STORE..STORE + PAGE as usize].fill(0);
    for page in (STORE..bytes.len()).step_by(PAGE as usize) {
        if bytes[page] == 2 {
            bytes[page] = 0;
        }
    }
    let reader = open(bytes);
    assert!(reader.structure_damaged());
    let (records, gaps) = salvaged(&reader, 0, &Filter::default());
    assert_eq!((records.len(), gaps.len()), (truth.len(), 0), "{gaps:?}");
    assert_eq!(records, truth);
    let survey = reader.survey(&mut |_| ()).unwrap();
    assert_eq!((survey.events, survey.gaps.len()), (40, 0));
}

#[test]
fn a_bit_in_an_event_costs_the_event_where_no_tree_is_left_either() {
    let (mut bytes, truth) = stored(40, 600);
    bytes[STORE..STORE + PAGE as usize].fill(0);
    let text = unpackable(7 * 600, 2);
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    bytes[at] ^= 1;
    let (records, gaps) = salvaged(&open(bytes), 0, &Filter::default());
    assert_eq!(records.len(), truth.len() - 1);
    assert_eq!(gaps.iter().map(|gap| (gap.first, gap.last)).collect::<Vec<_>>(), [(Seq(8), Seq(8))]);
}

#[test]
fn a_log_without_superblocks_is_named_damaged_though_its_trees_lead_to_everything() {
    let (mut bytes, truth) = stored(40, 60);
    assert!(!open(bytes.clone()).structure_damaged());
    bytes[..2 * PAGE as usize].fill(0);
    let reader = open(bytes);
    assert!(reader.structure_damaged());
    assert_eq!(salvaged(&reader, 0, &Filter::default()).0, truth);
}

/// A disk of which a page cannot be read.
#[derive(Debug, Clone)]
struct BadSector(Disk, u64);

impl StorageBackend for BadSector {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let hit = offset < self.1 + PAGE && self.1 < offset + out.len() as u64;
        if hit { Err(io::Error::other("an input/output error")) } else { self.0.read(offset, out) }
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        panic!("nothing is written")
    }

    fn sync_data(&self) -> io::Result<()> {
        panic!("nothing is written")
    }

    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        panic!("nothing is written")
    }
}

#[test]
fn a_sector_that_cannot_be_read_costs_what_lies_in_it() {
    let (bytes, truth) = stored(120, 60);
    let mut lost = 0;
    for page in (0..bytes.len()).step_by(PAGE as usize) {
        let disk = BadSector(Disk::holding(bytes.clone()), page as u64);
        let (records, gaps) = salvaged(&open_backend(&disk), 0, &Filter::default());
        for record in &records {
            assert_eq!(record, &truth[record.seq.0 as usize - 1], "page at {page}");
        }
        assert!(records.len() + 20 > truth.len(), "page at {page}: {gaps:?}");
        lost += truth.len() - records.len();
    }
    assert!(lost > 0, "every page could be read");
}

#[test]
fn a_log_that_begins_behind_dropped_events_is_found_from_there() {
    let disk = Disk::default();
    let unmerged = LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() };
    let log = Log::open_on(disk.clone(), unmerged, clock()).unwrap();
    for n in 0..40 {
        append(&log, batch("s", &[unpackable(n * 600, 600).as_str()]));
    }
    let truth = super::records(&log.reader());
    log.close().unwrap();
    let dropped = header_before(&disk, 21);
    below(&disk, |transaction| {
        let origin = Origin {
            dropped: Some(Dropped::before(&dropped, truth[19].recorded_at, "ada")),
            ..Origin::default()
        };
        put_origin(transaction, &origin).unwrap();
        transaction.open_table(HEADERS).unwrap().retain(|first, _| first > 20).unwrap();
    });
    let mut bytes = whole(disk.bytes());
    bytes[STORE..STORE + PAGE as usize].fill(0);
    let reader = open(bytes);
    let (records, gaps) = salvaged(&reader, 0, &Filter::default());
    assert_eq!((records.as_slice(), gaps.len()), (&truth[20..], 0), "{gaps:?}");
    assert_eq!(reader.survey(&mut |_| ()).unwrap().events, 20);
}

/// The end of the chain before the block that begins at `first`.
fn header_before(disk: &Disk, first: u64) -> ChainEnd {
    let mut end = ChainEnd::default();
    below(disk, |transaction| {
        let headers = transaction.open_table(HEADERS).unwrap();
        let (at, row) = headers.range(..first).unwrap().next_back().unwrap().unwrap();
        let row = row.value().to_vec();
        let header = Header::decode(Seq(at.value()), &row).unwrap();
        end = ChainEnd {
            frontier: header.frontier().unwrap(),
            bytes_through: header.bytes_through,
            recorded_at: header.last_at,
        };
    });
    end
}

#[test]
fn what_the_write_ahead_log_still_has_is_taken_from_there() {
    let disk = Disk::default();
    let log = Log::open_on(disk.clone(), options(), clock()).unwrap();
    for n in 0..6 {
        append(&log, batch("s", &[format!("event {n}").as_str()]));
    }
    let truth = super::records(&log.reader());
    // The store has them all now; the records before it stay until others are written over them.
    log.close().unwrap();
    let mut bytes = whole(disk.bytes());
    bytes[STORE..].fill(0);
    let (records, gaps) = salvaged(&open(bytes), 0, &Filter::default());
    assert_eq!((records, gaps.len()), (truth, 0));
}

#[test]
fn a_lost_row_with_the_seed_hides_nothing_of_the_write_ahead_log_and_a_lost_seed_is_told() {
    let disk = Disk::default();
    let open_log = || {
        let with = LogOptions { wal_seed: Some([9; 8]), ..options() };
        Log::open_on(disk.clone(), with, clock()).unwrap()
    };
    // Too large for the write-ahead log; closed, all of it is in the store.
    let log = open_log();
    append(&log, batch("s", &[unpackable(0, 20_000).as_str()]));
    log.close().unwrap();
    let log = open_log();
    for text in ["small", "smaller", "smallest"] {
        append(&log, batch("s", &[text]));
    }
    let truth = super::records(&log.reader());
    let mut bytes = whole(disk.after_power_cut(Survives::Nothing).bytes());
    let ring = 2 * PAGE as usize;
    bytes[ring..ring + RING_BYTES as usize].fill(0);
    for page in bytes[STORE..].chunks_mut(PAGE as usize) {
        if page.windows(8).any(|window| window == b"wal_seed") {
            page.fill(0);
        }
    }
    let reader = open(bytes.clone());
    let (records, gaps) = salvaged(&reader, 0, &Filter::default());
    assert_eq!((records, gaps.len(), reader.unread_records()), (truth.clone(), 0, 0));
    bytes[..ring].fill(0);
    let reader = open(bytes);
    let (records, gaps) = salvaged(&reader, 0, &Filter::default());
    assert_eq!((records.as_slice(), gaps.len(), reader.unread_records()), (&truth[..1], 0, 3));
}
