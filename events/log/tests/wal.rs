//! The write-ahead log seen from outside: nobody can tell where an event lies, and none is lost between the two places.

use super::damage::below;
use super::disk::{Disk, Fault, Survives};
use super::{Random, append, batch, clock, content, contents, keyed, options, records, salvaging};
use crate::log::journal::Journal;
use crate::log::open::{FORMAT_ROW, LOG_FILE};
use crate::log::store::META;
use crate::log::wal::{self, SEED_ROW, Seed, WalBlock};
use crate::log::{Batch, Filter, Log, LogOptions, Reader};
use crate::{Record, Seq};

const PAGE: usize = crate::log::journal::PAGE as usize;

fn open(disk: &Disk) -> Log {
    Log::open_on(disk.clone(), options(), clock()).unwrap()
}

/// What reading in every way gives, for a log that holds `event 1`, `event 2` and so on, each with a key.
#[track_caller]
fn check_reads(reader: &Reader, count: u64, what: &str) {
    let all = |from: u64, filter: &Filter| -> Vec<Record> {
        reader.scan(Seq(from), filter).map(Result::unwrap).collect()
    };
    for from in [1, count / 2, count, count + 1] {
        let up: Vec<u64> = all(from, &Filter::default()).iter().map(|record| record.seq.0).collect();
        assert_eq!(up, (from.max(1)..=count).collect::<Vec<_>>(), "{what}: up from {from}");
        let down = reader.scan_back(Seq(from), &Filter::default());
        let down: Vec<u64> = down.map(|record| record.unwrap().seq.0).collect();
        assert_eq!(down, (1..=from.min(count)).rev().collect::<Vec<_>>(), "{what}: down from {from}");
    }
    let stream = Filter { stream: Some("s3".to_owned()), ..Filter::default() };
    for record in all(1, &stream) {
        assert_eq!((content(&record), record.seq.0 % 5), (format!("event {}", record.seq.0), 3), "{what}");
    }
    for n in 1..=count {
        let row = reader.key(&format!("key {n}")).unwrap();
        assert_eq!(row.map(|row| (row.first, row.last)), Some((Seq(n), Seq(n))), "{what}: key {n}");
    }
    assert_eq!(reader.key("another").unwrap(), None);
    let stats = reader.stats().unwrap();
    assert_eq!((stats.events, stats.keys), (count, count), "{what}");
    let verified = reader.verify(&mut |_| ()).unwrap();
    assert_eq!((verified.events, verified.keys, verified.blocks), (count, count, stats.blocks), "{what}");
    assert_eq!(verified.root, reader.head().root, "{what}");
}

fn event(n: u64) -> Batch {
    keyed(batch(&format!("s{}", n % 5), &[&format!("event {n}")]), &format!("key {n}"), 1)
}

#[test]
fn an_event_is_read_wherever_it_lies() {
    let disk = Disk::default();
    let log = open(&disk);
    let reader = log.reader();
    for n in 1..=40 {
        append(&log, event(n));
        check_reads(&reader, n, &format!("after {n}"));
        assert!(append(&log, event(n)).replayed.is_some(), "the key of {n} is known");
    }
    // Eight records have room: what does not is one commit of the store, with all that was there before.
    assert!(reader.stats().unwrap().blocks <= 5 + 8);
    log.close().unwrap();
    check_reads(&open(&disk).reader(), 40, "opened again");
}

#[test]
fn small_commits_take_one_sync_each_and_become_one_block() {
    let disk = Disk::default();
    let log = open(&disk);
    let before = disk.syncs();
    for n in 1..=7 {
        append(&log, event(n));
    }
    assert_eq!(disk.syncs(), before + 7);
    assert_eq!(log.reader().stats().unwrap().blocks, 7);
    append(&log, batch("s", &["x".repeat(200_000).as_str()]));
    assert_eq!(log.reader().stats().unwrap().blocks, 1, "all went into the store together");
}

#[test]
fn nobody_reads_what_is_not_durable_although_it_lies_in_one_block_with_what_is() {
    let disk = Disk::default();
    let log = Log::open_on(disk.clone(), LogOptions { compress_above: None, ..options() }, clock()).unwrap();
    for n in 1..=3 {
        append(&log, event(n));
    }
    let (reader, all) = (log.reader(), Filter::default());
    let (durable, before) = (records(&reader), reader.stats().unwrap());
    disk.hold_syncs();
    let ticket = log.submit(vec![batch("s", &["x".repeat(200_000).as_str()])]).unwrap();
    disk.wait_for_held_sync();
    let up = records(&reader);
    let mut down: Vec<Record> = reader.scan_back(Seq(u64::MAX), &all).map(Result::unwrap).collect();
    down.reverse();
    let swept = [(Seq::FIRST, false), (Seq(u64::MAX), true)].map(|(from, down)| {
        let mut sweep = reader.sweep(from, &all, down).unwrap();
        std::iter::from_fn(|| sweep.advance().unwrap()).count()
    });
    let (salvaged, gaps) = salvaging::salvaged(&reader, 0, &all);
    let stats = reader.stats().unwrap();
    let blocks = reader.whole().unwrap().block_count().unwrap();
    // Nothing is judged before: who waits for a sync would keep a failed test from ending.
    disk.let_syncs_go();
    ticket.wait().unwrap().remove(0).unwrap();
    assert_eq!(blocks, 1, "all went into the store together");
    assert_eq!((&up, &down, &salvaged), (&durable, &durable, &durable));
    assert_eq!((swept, gaps.len()), ([3, 3], 0));
    assert_eq!((stats.events, stats.bytes, stats.newest), (3, before.bytes, before.newest));
    assert_eq!((records(&reader).len(), reader.stats().unwrap().events), (4, 4));
}

#[test]
fn events_of_several_moments_in_one_block_keep_their_times() {
    let disk = Disk::default();
    let log = open(&disk);
    for n in 1..=20 {
        append(&log, event(n));
    }
    let before = records(&log.reader());
    assert!(before.windows(2).all(|pair| pair[0].recorded_at < pair[1].recorded_at));
    log.close().unwrap();
    let log = open(&disk);
    assert!(log.reader().stats().unwrap().blocks < 5);
    assert_eq!(records(&log.reader()), before);
}

#[test]
fn a_scan_goes_on_over_what_it_saw_while_its_events_move_into_the_store() {
    let disk = Disk::default();
    let log = open(&disk);
    for n in 1..=6 {
        append(&log, event(n));
    }
    let mut up = log.reader().scan(Seq::FIRST, &Filter::default());
    let mut down = log.reader().scan_back(Seq(u64::MAX), &Filter::default());
    assert_eq!(content(&up.next().unwrap().unwrap()), "event 1");
    assert_eq!(content(&down.next().unwrap().unwrap()), "event 6");
    for n in 7..=60 {
        append(&log, event(n));
    }
    let seqs = |scan: crate::log::Scan| scan.map(|record| record.unwrap().seq.0).collect::<Vec<_>>();
    assert_eq!(seqs(up), [2, 3, 4, 5, 6]);
    assert_eq!(seqs(down), [5, 4, 3, 2, 1]);
}

#[test]
fn a_log_that_lost_its_power_is_read_with_what_its_write_ahead_log_holds() {
    let disk = Disk::default();
    let log = open(&disk);
    for n in 1..=13 {
        append(&log, event(n));
    }
    let left = disk.after_power_cut(Survives::Nothing);
    let log = open(&left);
    check_reads(&log.reader(), 13, "opened again");
    append(&log, event(14));
    log.close().unwrap();
    check_reads(&open(&left).reader(), 14, "and once more");
}

/// Places of the records of `disk` that begin with `first` or a later event.
fn places_of(disk: &Disk, first: u64) -> Vec<usize> {
    let bytes = disk.bytes();
    let found = bytes.chunks(4_096).enumerate().filter(|(_, page)| {
        page.starts_with(b"CxtE") && page[8..16] >= first.to_le_bytes()[..] && page[9..16] == [0; 7]
    });
    found.map(|(page, _)| page * 4_096).collect()
}

#[test]
fn a_record_lost_before_others_is_damage_and_the_last_one_alone_is_what_was_under_way() {
    let disk = Disk::default();
    let log = open(&disk);
    for n in 1..=5 {
        append(&log, event(n));
    }
    let left = disk.after_power_cut(Survives::Nothing);
    let places = places_of(&left, 1);
    assert_eq!(places.len(), 5);
    for (n, place) in (1..).zip(&places) {
        let mut bytes = left.bytes();
        bytes[place + 60] ^= 1;
        salvage_all_but(&bytes, n);
        let opened = Log::open_on(Disk::holding(bytes), options(), clock());
        if n == 5 {
            assert_eq!(contents(&opened.unwrap().reader()).len(), 4);
            continue;
        }
        let error = opened.unwrap_err();
        assert_eq!(error.to_string(), "(backend) is damaged or no log of Caxton's; restore it from a backup");
        let source = std::error::Error::source(&error).unwrap().to_string();
        let then = format!("the block at #{} is damaged: the block before it is missing", n + 1);
        assert!(source.starts_with(&then), "{source}");
    }
}

/// What is left of a log of five events that lost the `lost`th and was not closed in order; its file stays as it is.
#[track_caller]
fn salvage_all_but(bytes: &[u8], lost: u64) {
    let disk = Disk::holding(bytes.to_vec());
    let (records, gaps) = {
        let reader = salvaging::open_disk(&disk).unwrap();
        salvaging::salvaged(&reader, 0, &Filter::default())
    };
    assert_eq!(disk.bytes(), bytes);
    let kept: Vec<u64> = records.iter().map(|record| record.seq.0).collect();
    assert_eq!(kept, (1..=5).filter(|n| *n != lost).collect::<Vec<_>>());
    let named: Vec<_> = gaps.iter().map(|gap| (gap.first.0, gap.last.0)).collect();
    assert_eq!(named, if lost == 5 { Vec::new() } else { vec![(lost, lost)] });
}

#[test]
fn records_of_another_log_are_none() {
    let disk = Disk::default();
    let log = open(&disk);
    append(&log, event(1));
    let bytes = disk.bytes();
    assert_eq!(wal::records(Seed::of(&[7; 16]), &bytes).len(), 1);
    assert!(wal::records(Seed::of(&[8; 16]), &bytes).is_empty());
}

/// The page that `text` begins in, and where in it, of a disk that has it once.
fn place_of(disk: &Disk, text: &str) -> (usize, usize) {
    let bytes = disk.bytes();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    (at / PAGE, at % PAGE)
}

#[test]
fn what_a_user_wrote_is_no_record_although_it_has_the_seed_that_the_logs_id_would_be() {
    const TEXT: usize = 3 * PAGE;
    let with = || LogOptions { compress_above: None, wal_seed: Some([9; 8]), ..options() };
    let public = Seed::of(&options().log_id);
    let pretended = (1_000..).map(|first| WalBlock::build(public, Seq(first), 0, &[], |_| Vec::new()));
    let mut pretended = pretended.map(|block| String::from_utf8(block.record().to_vec()));
    let pretended = pretended.find_map(Result::ok).unwrap();
    assert_eq!(pretended.len(), PAGE);
    // Where a text of that length comes to lie.
    let probed = Disk::default();
    let log = Log::open_on(probed.clone(), with(), clock()).unwrap();
    let mark = "where does this go?";
    append(&log, batch("s", &[&format!("{mark:x<TEXT$}")]));
    let (page, at) = place_of(&probed, mark);

    let disk = Disk::default();
    let log = Log::open_on(disk.clone(), with(), clock()).unwrap();
    let (before, behind) = ("x".repeat(PAGE - at), "x".repeat(TEXT - 2 * PAGE + at));
    append(&log, batch("s", &[&format!("{before}{pretended}{behind}")]));
    append(&log, batch("s", &[&"y".repeat(200_000)]));
    append(&log, batch("s", &["small"]));
    log.close().unwrap();
    let bytes = disk.bytes();
    assert_eq!(bytes[(page + 1) * PAGE..][..PAGE], *pretended.as_bytes(), "right behind the small one");
    assert!(wal::records(public, &bytes).iter().any(|block| block.first >= Seq(1_000)));
    let log = Log::open_on(disk, with(), clock()).unwrap();
    assert_eq!(contents(&log.reader()).last().unwrap(), "small");
}

#[test]
fn each_file_of_a_log_keeps_the_secret_that_it_was_given_first() {
    let dir = tempfile::tempdir().unwrap();
    let with = |wal_seed| Log::open(dir.path(), LogOptions { wal_seed, ..options() }, clock()).unwrap();
    let seeds = [Seed::of(&options().log_id), Seed::secret([1; 8]), Seed::secret([2; 8])];
    let check = |log: &Log, n: u64, under: [usize; 3]| {
        append(log, event(n));
        let bytes = std::fs::read(dir.path().join(LOG_FILE)).unwrap();
        assert_eq!(seeds.map(|seed| wal::records(seed, &bytes).len()), under, "with event {n}");
    };
    let log = with(None);
    check(&log, 1, [1, 0, 0]);
    log.close().unwrap();
    let log = with(Some([1; 8]));
    check(&log, 2, [0, 1, 0]);
    let format = log.shared.with_database(|database| database.own.meta(FORMAT_ROW)).unwrap().unwrap();
    assert_eq!(format, wal::LOG_FORMAT_SEED.to_le_bytes(), "older programs would not find what stands there");
    log.close().unwrap();
    let log = with(Some([2; 8]));
    check(&log, 3, [0, 1, 0]);
    assert_eq!(log.redact(&[], Seq::FIRST).unwrap(), 0);
    check(&log, 4, [0, 0, 1]);
    log.seal().unwrap();
    check(&log, 5, [0, 0, 1]);
    log.close().unwrap();
    assert_eq!(records(&with(None).reader()).len(), 5);
}

#[test]
fn a_seed_stands_in_a_superblock_too_whoever_wrote_it_into_the_tables() {
    let disk = Disk::default();
    let kept = || Journal::open(Box::new(Disk::holding(disk.bytes())), false).unwrap().kept_seed();
    open(&disk).close().unwrap();
    assert_eq!(kept(), None);
    below(&disk, |transaction| {
        transaction.open_table(META).unwrap().insert(SEED_ROW, [3_u8; 8].as_slice()).unwrap();
    });
    let log = open(&disk);
    assert_eq!(kept(), Some([3; 8]));
    append(&log, event(1));
    log.close().unwrap();
    let log = open(&disk);
    assert_eq!((kept(), contents(&log.reader()).len()), (Some([3; 8]), 1));
}

/// Batches of many sizes, small ones mostly, so that the records come round many times.
fn many(seed: u64) -> Vec<Batch> {
    let mut random = Random::new(seed);
    (0..80)
        .map(|n| {
            let long = [10, 10, 10, 3_000, 9_000, 90_000][random.below(6) as usize];
            let count = 1 + random.below(3);
            let texts: Vec<String> =
                (0..count).map(|m| format!("{n}.{m} {}", "x".repeat(random.below(long) as usize))).collect();
            batch("s", &texts.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .collect()
}

#[test]
fn no_acknowledged_batch_is_lost_however_often_the_records_come_round() {
    let mut cuts = 0;
    for seed in 0..120_u64 {
        let disk = Disk::default();
        // Half of the logs get their secret where the power may go.
        let wal_seed = seed.is_multiple_of(2).then_some([7; 8]);
        let options =
            || LogOptions { compress_above: None, wal_group_bytes_max: 20_000, wal_seed, ..options() };
        open(&disk).close().unwrap();
        let batches = many(seed);
        let fault = [Fault::Dead, Fault::Full, Fault::SyncFails][seed as usize % 3];
        disk.fail_at(disk.operations() + Random::new(seed).below(250), fault);
        let acknowledged = Log::open_on(disk.clone(), options(), clock()).map_or(0, |log| {
            let tickets: Vec<_> = batches.iter().map(|batch| log.submit(vec![batch.clone()])).collect();
            let answers = tickets.into_iter().map(|ticket| {
                ticket.and_then(crate::log::Ticket::wait).is_ok_and(|mut results| results.remove(0).is_ok())
            });
            answers.take_while(|answer| *answer).count()
        });
        for survives in [Survives::Nothing, Survives::Everything, Survives::Some(seed), Survives::Some(!seed)]
        {
            let what = format!("seed {seed}, {fault:?}, {survives:?}");
            let left = disk.after_power_cut(survives);
            let log =
                Log::open_on(left, options(), clock()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
            let found = contents(&log.reader());
            let mut whole = Vec::new();
            let mut count = 0;
            while whole.len() < found.len() {
                let sent = batches[count].drafts.iter().map(|draft| super::content_of(&draft.event));
                whole.extend(sent);
                count += 1;
            }
            assert!(found == whole, "{what}: no prefix of whole batches");
            assert!(count >= acknowledged, "{what}: {count} of {acknowledged} acknowledged");
            let verified = log.reader().verify(&mut |_| ()).unwrap();
            assert_eq!((verified.events, verified.root), (found.len() as u64, log.head().root), "{what}");
            append(&log, batch("s", &["after"]));
            cuts += 1;
        }
    }
    assert_eq!(cuts, 480);
}

#[test]
fn who_reads_while_events_move_sees_each_once() {
    let log = open(&Disk::default());
    let reader = log.reader();
    std::thread::scope(|scope| {
        let readers = [false, true].map(|down| {
            let reader = reader.clone();
            scope.spawn(move || {
                while reader.head().seq < Seq(1_500) {
                    let head = reader.head().seq.0;
                    let seqs: Vec<u64> = if down {
                        let scan = reader.scan_back(Seq(head), &Filter::default());
                        let mut seqs: Vec<u64> = scan.map(|record| record.unwrap().seq.0).collect();
                        seqs.reverse();
                        seqs
                    } else {
                        let filter = Filter { until: Some(Seq(head)), ..Filter::default() };
                        reader.scan(Seq::FIRST, &filter).map(|record| record.unwrap().seq.0).collect()
                    };
                    assert_eq!(seqs, (1..=head).collect::<Vec<_>>());
                }
            })
        });
        for n in 1..=1_500 {
            append(&log, batch("s", &[&format!("event {n}")]));
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
