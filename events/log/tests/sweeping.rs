//! Sweeping and picking: what is damaged becomes a gap, everything else is what was written.

use redb::ReadableTable as _;

use super::damage::{below, open_for_reading, written};
use super::disk::Disk;
use super::{append, batch, clock, draft, options, records};
use crate::log::store::{BODIES, HEADERS};
use crate::log::{Batch, Filter, Gap, Log, LogOptions, Reader, StoreError, Swept};
use crate::{Record, Seq, Timestamp};

/// Positions of the records and the gaps, in the order they come.
type Found = (Vec<u64>, Vec<(u64, u64)>);

fn swept(reader: &Reader, from: u64, filter: &Filter, down: bool) -> Result<Found, StoreError> {
    let mut sweep = reader.sweep(Seq(from), filter, down)?;
    let mut found = Found::default();
    while let Some(swept) = sweep.advance()? {
        match swept {
            Swept::Record(record) => found.0.push(record.seq.0),
            Swept::Erased(sealed) => panic!("{sealed:?} was never erased"),
            Swept::Gap(Gap { first, last, .. }) => found.1.push((first.0, last.0)),
        }
    }
    Ok(found)
}

#[test]
fn a_sweep_over_a_whole_log_gives_what_a_scan_gives() {
    let unmerged = LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() };
    let log = Log::open_on(Disk::default(), unmerged, clock()).unwrap();
    for n in 0..10 {
        append(&log, Batch::of((0..3).map(|_| draft(&format!("s{}", n % 4), "x")).collect()));
    }
    let reader = log.reader();
    let time = records(&reader)[13].recorded_at;
    let stream = |name: &str| Filter { stream: Some(name.to_owned()), ..Filter::default() };
    let filters = [
        Filter::default(),
        stream("s1"),
        stream("nobody's"),
        Filter { recorded_from: Some(time), ..Filter::default() },
        Filter { until: Some(Seq(17)), ..stream("s1") },
    ];
    for filter in filters {
        for from in 0..33 {
            let up: Vec<u64> = reader.scan(Seq(from), &filter).map(|record| record.unwrap().seq.0).collect();
            assert_eq!(swept(&reader, from, &filter, false).unwrap(), (up, vec![]), "{filter:?} from {from}");
            let down = reader.scan_back(Seq(from), &filter).map(|record| record.unwrap().seq.0).collect();
            assert_eq!(
                swept(&reader, from, &filter, true).unwrap(),
                (down, vec![]),
                "{filter:?} from {from}"
            );
        }
    }
    let mut sweep = reader.sweep(Seq(1), &stream("s3"), false).unwrap();
    while sweep.advance().unwrap().is_some() {}
    assert_eq!((sweep.touched().blocks, reader.extent().unwrap().blocks), (2, 10));
    let mut picker = reader.picker(&stream("s1")).unwrap();
    let picked: Vec<bool> = (0..40).map(|seq| picker.get(Seq(seq)).unwrap().is_some()).collect();
    let of_stream = |seq: u64| (1..=30).contains(&seq) && (seq - 1) / 3 % 4 == 1;
    assert_eq!(picked, (0..40).map(of_stream).collect::<Vec<_>>());
}

/// What is done to the tables of a log.
type Change = Box<dyn Fn(&redb::WriteTransaction)>;

/// A log of five blocks of three events.
fn of_five_blocks() -> Disk {
    let disk = Disk::default();
    let unmerged = LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() };
    let log = Log::open_on(disk.clone(), unmerged, clock()).unwrap();
    for n in 0..5 {
        append(&log, batch("s", &[&format!("a{n}"), "b", "c"]));
    }
    log.close().unwrap();
    disk
}

#[test]
fn what_is_damaged_is_a_gap_and_no_larger_than_it_must_be() {
    let flip = |table: redb::TableDefinition<'static, u64, &'static [u8]>, at: usize| {
        move |transaction: &redb::WriteTransaction| {
            let mut table = transaction.open_table(table).unwrap();
            let mut bytes = table.get(4).unwrap().unwrap().value().to_vec();
            let at = if at == usize::MAX { bytes.len() - 1 } else { at };
            bytes[at] ^= 1;
            table.insert(4, bytes.as_slice()).unwrap();
        }
    };
    let remove = |table: redb::TableDefinition<'static, u64, &'static [u8]>| {
        move |transaction: &redb::WriteTransaction| {
            transaction.open_table(table).unwrap().remove(4).unwrap();
        }
    };
    let cases: [(&str, Change, (u64, u64)); 5] = [
        ("a bit of the last event", Box::new(flip(BODIES, usize::MAX)), (6, 6)),
        ("a bit of an entry", Box::new(flip(BODIES, 3)), (4, 6)),
        ("a bit of the header", Box::new(flip(HEADERS, 20)), (4, 6)),
        ("no body", Box::new(remove(BODIES)), (4, 6)),
        ("no header", Box::new(remove(HEADERS)), (4, 6)),
    ];
    for (what, change, gap) in cases {
        // Opening looks at the last two blocks, and not at the second.
        let disk = of_five_blocks();
        below(&disk, change);
        let reader = open_for_reading(disk.bytes()).unwrap();
        let whole =
            |range: std::ops::RangeInclusive<u64>| range.filter(move |seq| !(gap.0..=gap.1).contains(seq));
        let up: Vec<u64> = whole(1..=15).collect();
        let all = Filter::default();
        assert_eq!(swept(&reader, 1, &all, false).unwrap(), (up.clone(), vec![gap]), "{what}");
        let down = whole(1..=15).collect::<Vec<_>>().into_iter().rev().collect();
        assert_eq!(swept(&reader, 15, &all, true).unwrap(), (down, vec![gap]), "{what}, from its end");
        let mut picker = reader.picker(&all).unwrap();
        for seq in 1..=15 {
            match picker.get(Seq(seq)).unwrap() {
                Some(Swept::Record(record)) => {
                    assert_eq!((record.seq.0, up.contains(&seq)), (seq, true), "{what}");
                }
                Some(Swept::Erased(sealed)) => panic!("{what}: {sealed:?} was never erased"),
                Some(Swept::Gap(found)) => {
                    assert!(found.first.0 <= seq && seq <= found.last.0, "{what}: {found:?}");
                    assert!(!up.contains(&seq), "{what}: {seq} is whole");
                }
                None => panic!("{what}: nothing at {seq}"),
            }
        }
    }
}

/// Every position up to the head comes once, as the record that was written or in a gap.
#[track_caller]
fn check_all(found: &[Swept], truth: &[Record], head: Seq, what: &str) {
    let mut seen = vec![0; truth.len() + 1];
    for swept in found {
        match swept {
            Swept::Record(record) => {
                assert_eq!(Some(&**record), truth.get(record.seq.0 as usize - 1), "{what}");
                seen[record.seq.0 as usize] += 1;
            }
            Swept::Erased(sealed) => panic!("{what}: {sealed:?} was never erased"),
            Swept::Gap(gap) => (gap.first.0..=gap.last.0).for_each(|seq| seen[seq as usize] += 1),
        }
    }
    assert!(seen[1..=head.0 as usize].iter().all(|times| *times == 1), "{what}: {seen:?}");
}

#[test]
fn a_flipped_bit_anywhere_hides_nothing_but_what_is_named() {
    let (disk, truth) = written();
    let bytes = disk.bytes();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut gaps = 0;
    for at in (0..used).step_by(103) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let Ok(reader) = open_for_reading(flipped) else { continue };
        for down in [false, true] {
            let Ok(mut sweep) =
                reader.sweep(if down { Seq(u64::MAX) } else { Seq::FIRST }, &Filter::default(), down)
            else {
                continue;
            };
            let mut found = Vec::new();
            let ended = loop {
                match sweep.advance() {
                    Ok(Some(swept)) => found.push(swept),
                    ended => break ended,
                }
            };
            // Damage of redb's own pages ends the sweep with an error.
            if ended.is_ok() {
                gaps += found.iter().filter(|swept| matches!(swept, Swept::Gap(_))).count();
                check_all(&found, &truth, reader.head().seq, &format!("byte {at}, down {down}"));
            }
        }
    }
    assert!(gaps > 20, "only {gaps} gaps");
}

#[test]
fn a_span_of_time_holds_all_of_it_and_little_more() {
    let unmerged = LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() };
    let log = Log::open_on(Disk::default(), unmerged, clock()).unwrap();
    for n in 0..20 {
        append(&log, batch("s", &[&n.to_string(), "x"]));
    }
    let reader = log.reader();
    let truth = records(&reader);
    let edges: Vec<Timestamp> = truth
        .iter()
        .flat_map(|record| {
            [0, 1].map(|more| Timestamp::from_unix_micros(record.recorded_at.unix_micros() + more))
        })
        .collect();
    for from in &edges {
        for before in &edges {
            let (first, last) = reader.span(Some(*from), Some(*before)).unwrap();
            let inside = |record: &&Record| *from <= record.recorded_at && record.recorded_at < *before;
            let seqs: Vec<Seq> = truth.iter().filter(inside).map(|record| record.seq).collect();
            if let (Some(least), Some(most)) = (seqs.first(), seqs.last()) {
                assert!(first <= *least && *most <= last, "{from} to {before}: {first} to {last}");
                // A block has two events.
                assert!(
                    least.0 - first.0 < 2 && last.0 - most.0 < 2,
                    "{from} to {before}: {first} to {last}"
                );
            }
        }
    }
    assert_eq!(reader.span(None, None).unwrap(), (Seq(1), Seq(40)));
}
