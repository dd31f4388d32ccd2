//! Reading: directions, filters, skipped blocks, the live tail, ids, figures.

use std::thread;
use std::time::Duration;

use super::disk::Disk;
use super::{append, batch, clock, draft, options, records};
use crate::log::{Batch, Filter, Log, LogOptions, ReadError, ScanStats, StoreError};
use crate::{Kind, Seq, SystemEvent};

fn unmerged() -> LogOptions {
    LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() }
}

/// Ten blocks of three events; block n is of stream `s<n>`, but event 15 starts the server.
fn ten_blocks() -> Log {
    let log = Log::open_on(Disk::default(), unmerged(), clock()).unwrap();
    for n in 0..10 {
        let mut drafts: Vec<_> = (0..3).map(|_| draft(&format!("s{n}"), "x")).collect();
        if n == 4 {
            drafts[2].event = SystemEvent::ServerStarted { version: "1".to_owned() }.into();
            drafts[2].actor = "system".to_owned();
            drafts[2].correlation = Some("boot".to_owned());
        }
        append(&log, Batch::of(drafts));
    }
    log
}

#[track_caller]
fn check(log: &Log, from: u64, filter: &Filter, up: &[u64], stats: (u64, u64)) {
    let mut scan = log.reader().scan(Seq(from), filter);
    let found: Vec<u64> = scan.by_ref().map(|record| record.unwrap().seq.0).collect();
    assert_eq!(found, up, "{filter:?}");
    let ScanStats { blocks_read, blocks_skipped, .. } = scan.stats();
    assert_eq!((blocks_read, blocks_skipped), stats, "{filter:?}");
}

#[test]
fn a_filtered_scan_passes_over_blocks_that_cannot_match() {
    let log = ten_blocks();
    let all: Vec<u64> = (1..=30).collect();
    check(&log, 0, &Filter::default(), &all, (10, 0));
    check(&log, 8, &Filter { until: Some(Seq(13)), ..Filter::default() }, &all[7..13], (3, 0));
    check(&log, 31, &Filter::default(), &[], (0, 1));
    let stream = |name: &str| Filter { stream: Some(name.to_owned()), ..Filter::default() };
    check(&log, 1, &stream("s7"), &[22, 23, 24], (1, 9));
    check(&log, 23, &stream("s7"), &[23, 24], (1, 2));
    check(&log, 1, &stream("nobody's"), &[], (0, 10));
    check(&log, 1, &Filter { kinds: Some(vec![Kind::ServerStarted]), ..Filter::default() }, &[15], (1, 9));
    check(&log, 1, &Filter { kinds: Some(vec![]), ..Filter::default() }, &[], (0, 10));
    check(&log, 1, &Filter { actor: Some("system".to_owned()), ..Filter::default() }, &[15], (1, 9));
    check(&log, 1, &Filter { correlation: Some("boot".to_owned()), ..Filter::default() }, &[15], (1, 9));
    let at = records(&log.reader())[9].recorded_at;
    check(&log, 1, &Filter { recorded_from: Some(at), ..Filter::default() }, &all[9..], (7, 3));
    check(&log, 1, &Filter { recorded_before: Some(at), ..Filter::default() }, &all[..9], (3, 7));
}

#[test]
fn a_scan_counts_the_bytes_of_the_contents_that_it_hands_out() {
    let log = ten_blocks();
    let mut scan = log.reader().scan(Seq(1), &Filter { until: Some(Seq(3)), ..Filter::default() });
    assert_eq!(scan.content_bytes(), 0);
    let mut counted = Vec::new();
    while let Some(record) = scan.next() {
        record.unwrap();
        counted.push(scan.content_bytes());
    }
    assert_eq!(counted.len(), 3);
    assert!(counted[0] > 0 && counted.is_sorted_by(|a, b| a < b), "{counted:?}");
    // What the filter passes over is not handed out.
    let nobody = Filter { stream: Some("nobody's".to_owned()), ..Filter::default() };
    let mut scan = log.reader().scan(Seq(1), &nobody);
    assert!(scan.next().is_none());
    assert_eq!(scan.content_bytes(), 0);
}

#[test]
fn a_scan_back_delivers_the_same_records_from_the_other_end() {
    let log = ten_blocks();
    for from in [0, 1, 2, 3, 4, 15, 29, 30, 31, u64::MAX] {
        for until in [0, 1, 2, 14, 30, 31] {
            let filter = Filter { until: Some(Seq(until)), ..Filter::default() };
            let found: Vec<u64> =
                log.reader().scan_back(Seq(from), &filter).map(|record| record.unwrap().seq.0).collect();
            let then: Vec<u64> = (until.max(1)..=from.min(30)).rev().collect();
            assert_eq!(found, then, "from {from} until {until}");
        }
    }
    let stream = Filter { stream: Some("s2".to_owned()), ..Filter::default() };
    let mut scan = log.reader().scan_back(Seq(u64::MAX), &stream);
    assert_eq!(scan.next().unwrap().unwrap().seq, Seq(9));
    let ScanStats { blocks_read, blocks_skipped, .. } = scan.stats();
    assert_eq!((blocks_read, blocks_skipped), (1, 7));
}

#[test]
fn blocks_show_what_a_scan_delivers_and_pass_over_what_it_passes_over() {
    let log = ten_blocks();
    let filters = [
        Filter::default(),
        Filter { until: Some(Seq(13)), ..Filter::default() },
        Filter { stream: Some("s7".to_owned()), ..Filter::default() },
        Filter { kinds: Some(vec![Kind::ServerStarted]), ..Filter::default() },
        Filter { correlation: Some("boot".to_owned()), ..Filter::default() },
    ];
    for (from, filter) in
        [0, 8, 31].into_iter().flat_map(|from| filters.iter().map(move |filter| (from, filter)))
    {
        let mut scan = log.reader().scan(Seq(from), filter);
        let delivered: Vec<_> = scan.by_ref().map(Result::unwrap).collect();
        let (mut blocks, mut shown) = (log.reader().blocks(Seq(from), filter), Vec::new());
        for block in blocks.by_ref() {
            let block = block.unwrap();
            let visited = block.for_each(|record| {
                assert!(block.first() <= record.seq && record.seq <= block.last());
                assert_eq!(Some(record.event()?.kind()), record.kind());
                shown.push(record.to_record()?);
                Ok::<_, ReadError>(())
            });
            visited.unwrap();
        }
        assert_eq!(shown, delivered, "from {from}, {filter:?}");
        assert_eq!(blocks.stats(), scan.stats(), "from {from}, {filter:?}");
    }
}

#[test]
fn compressed_events_are_visited_as_they_were_written() {
    let log = Log::open_on(Disk::default(), options(), clock()).unwrap();
    let texts = ["long ".repeat(1_000), "short".to_owned(), "longer ".repeat(3_000)];
    append(&log, batch("s", &texts.each_ref().map(String::as_str)));
    let mut seen = Vec::new();
    for block in log.reader().blocks(Seq::FIRST, &Filter::default()) {
        let visited = block.unwrap().for_each(|record| {
            seen.push(super::content(&record.to_record()?));
            Ok::<_, ReadError>(())
        });
        visited.unwrap();
    }
    assert_eq!(seen, texts);
}

#[test]
fn a_scan_sees_the_log_as_it_stood_when_it_began() {
    let log = ten_blocks();
    let scan = log.reader().scan(Seq::FIRST, &Filter::default());
    append(&log, batch("late", &["x"]));
    assert_eq!(scan.count(), 30);
    assert_eq!(log.reader().scan(Seq::FIRST, &Filter::default()).count(), 31);
}

#[test]
fn the_tail_wakes_on_a_commit_on_a_timeout_and_at_the_end() {
    let log = ten_blocks();
    let reader = log.reader();
    assert_eq!(reader.wait_beyond(Seq(29), Duration::MAX), Seq(30));
    assert_eq!(reader.wait_beyond(Seq(30), Duration::ZERO), Seq(30));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| reader.wait_beyond(Seq(30), Duration::MAX));
        append(&log, batch("s", &["x"]));
        assert_eq!(waiting.join().unwrap(), Seq(31));
        let waiting = scope.spawn(|| reader.wait_beyond(Seq(31), Duration::MAX));
        log.close().unwrap();
        assert_eq!(waiting.join().unwrap(), Seq(31));
    });
    let after = reader.scan(Seq::FIRST, &Filter::default()).next().unwrap();
    assert!(matches!(after, Err(ReadError::Store(StoreError::Closed))), "{after:?}");
}

#[test]
fn an_event_id_is_a_version_7_uuid_of_its_time_its_log_and_its_place() {
    let log = ten_blocks();
    let records = records(&log.reader());
    let mut ids: Vec<_> = records.iter().map(|record| log.reader().event_id(record)).collect();
    assert_eq!(ids[11], log.reader().event_id(&records[11]));
    assert!(ids.iter().all(|id| id.get_version_num() == 7));
    assert!(ids.chunks(3).is_sorted_by(|a, b| a.iter().max() < b.iter().min()));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 30);
    let other = Log::open_on(Disk::default(), LogOptions::new([8; 16]), clock()).unwrap();
    assert_ne!(other.reader().event_id(&records[0]), log.reader().event_id(&records[0]));
}

#[test]
fn the_figures_add_up() {
    let log = ten_blocks();
    let stats = log.reader().stats().unwrap();
    assert_eq!((stats.events, stats.blocks, stats.keys), (30, 10, 0));
    let records = records(&log.reader());
    assert_eq!((stats.oldest, stats.newest), (Some(records[0].recorded_at), Some(records[29].recorded_at)));
    assert!(stats.bytes > 30 * 10);
    let empty = Log::open_on(Disk::default(), options(), clock()).unwrap();
    assert_eq!(empty.reader().stats().unwrap(), crate::log::LogStats::default());
    assert_eq!(empty.reader().verify(&mut |_| ()).unwrap().root, empty.head().root);
}

#[test]
fn a_log_its_readers_and_scans_go_between_threads() {
    fn shared<T: Send + Sync>() {}
    fn moved<T: Send>() {}
    shared::<Log>();
    shared::<crate::log::Reader>();
    moved::<crate::log::Scan>();
    moved::<crate::log::Ticket>();
}

#[test]
fn a_second_scan_reads_the_medium_only_where_the_cache_is_small() {
    let second_scan = |cache_bytes: usize| {
        let disk = Disk::default();
        let log = Log::open_on(disk.clone(), unmerged(), clock()).unwrap();
        let mut random = super::Random::new(3);
        for _ in 0..20 {
            let text: String = (0..200_000).map(|_| char::from(b'!' + random.below(90) as u8)).collect();
            append(&log, batch("s", &[&text]));
        }
        log.close().unwrap();
        let options = LogOptions { cache_bytes, ..unmerged() };
        let log = Log::open_on(disk.clone(), options, clock()).unwrap();
        assert_eq!(records(&log.reader()).len(), 20);
        let before = disk.read_bytes();
        assert_eq!(records(&log.reader()).len(), 20);
        disk.read_bytes() - before
    };
    let (without, with) = (second_scan(0), second_scan(32 << 20));
    assert!(without > 4_000_000 && with < 400_000, "{without} {with}");
}
