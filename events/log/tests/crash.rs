//! Power cuts, failing syncs and full disks, at every single operation.

use std::time::Duration;

use super::disk::{Disk, Fault, Survives};
use super::{batch, clock, content_of, contents, keyed, options};
use crate::log::{AppendError, Batch, Durability, Log, LogClosed, LogOptions, Ticket};
use crate::{Seq, log::Appended};

/// Commits of all sizes: lone events, more than the write-ahead log has room for, a keyed pair, one that takes several
/// blocks.
fn script() -> Vec<Batch> {
    let mut batches: Vec<Batch> = (0..20).map(|n| batch("agent:ada", &[&format!("lone {n}")])).collect();
    batches.insert(3, keyed(batch("agent:bob", &["pair a", "pair b"]), "pair", 1));
    let long: Vec<String> = (0..24).map(|n| format!("{n} {}", "x".repeat(20_000 + n))).collect();
    batches.insert(7, batch("global", &long.iter().map(String::as_str).collect::<Vec<_>>()));
    batches
}

fn sent(batch: &Batch) -> Vec<String> {
    batch.drafts.iter().map(|draft| content_of(&draft.event)).collect()
}

fn plain() -> LogOptions {
    LogOptions { compress_above: None, ..options() }
}

/// Submits the whole script before it waits for anything, a batch a commit, so that one commit is flushed while the next
/// is made; how many batches were acknowledged.
fn run_ahead(disk: &Disk) -> usize {
    let options = LogOptions { group_events_max: 1, ..plain() };
    let Ok(log) = Log::open_on(disk.clone(), options, clock()) else {
        return 0;
    };
    let tickets: Vec<_> = script().into_iter().map(|batch| log.submit(vec![batch])).collect();
    let answers: Vec<bool> = tickets
        .into_iter()
        .map(|ticket| ticket.and_then(Ticket::wait).is_ok_and(|mut results| results.remove(0).is_ok()))
        .collect();
    let acknowledged = answers.iter().take_while(|answer| **answer).count();
    assert!(!answers[acknowledged..].contains(&true), "{answers:?}: acknowledged behind a failure");
    acknowledged
}

/// Runs the script until the disk fails; how many batches were acknowledged.
fn run(disk: &Disk, options: LogOptions) -> usize {
    let Ok(log) = Log::open_on(disk.clone(), options, clock()) else {
        return 0;
    };
    let mut acknowledged = 0;
    for batch in script() {
        match log.append(vec![batch]).map(|mut results| results.remove(0)) {
            Ok(Ok(Appended { .. })) => acknowledged += 1,
            Ok(Err(AppendError::Io { .. } | AppendError::Closed(_))) | Err(_) => break,
            Ok(Err(refusal)) => panic!("refused: {refusal}"),
        }
    }
    acknowledged
}

/// Opens what is left and checks it: a prefix of whole batches, at least those acknowledged, with a right chain.
#[track_caller]
fn check_survivors(left: &Disk, acknowledged: usize, what: &str) {
    let log =
        Log::open_on(left.clone(), options(), clock()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let found = contents(&log.reader());
    let mut whole = Vec::new();
    let mut batches = 0;
    for batch in script() {
        if whole.len() == found.len() {
            break;
        }
        whole.extend(sent(&batch));
        batches += 1;
    }
    assert!(found == whole, "{what}: {} events are no prefix of whole batches", found.len());
    assert!(batches >= acknowledged, "{what}: {batches} batches are left of {acknowledged} acknowledged");
    let verified = log.reader().verify(&mut |_| ()).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    assert_eq!(verified.events, found.len() as u64, "{what}");
    assert_eq!(log.reader().key("pair").unwrap().is_some(), batches > 3, "{what}");
    let next = log.append(vec![batch("agent:ada", &["after"])]).unwrap().remove(0).unwrap();
    assert_eq!(next.first, Seq(found.len() as u64 + 1), "{what}");
}

/// A disk with an empty log; creating one is made safe by another name and a rename, not by the disk.
fn created() -> Disk {
    let disk = Disk::default();
    Log::open_on(disk.clone(), options(), clock()).unwrap().close().unwrap();
    disk
}

/// The operations of a whole run after the creation.
fn operations() -> std::ops::Range<u64> {
    let disk = created();
    let start = disk.operations();
    assert_eq!(run(&disk, plain()), script().len());
    start..disk.operations()
}

#[test]
fn every_acknowledged_batch_survives_a_power_cut_at_every_operation() {
    for at in operations() {
        let disk = created();
        disk.fail_at(at, Fault::Dead);
        let acknowledged = run(&disk, plain());
        for survives in
            [Survives::Nothing, Survives::Everything, Survives::Some(at), Survives::Some(at + 1_000_000)]
        {
            let left = disk.after_power_cut(survives);
            check_survivors(&left, acknowledged, &format!("cut at {at}, {survives:?}"));
        }
    }
}

#[test]
fn a_full_disk_or_a_failed_sync_closes_the_log_and_loses_nothing_acknowledged() {
    for fault in [Fault::Full, Fault::SyncFails] {
        for at in operations() {
            let disk = created();
            disk.fail_at(at, fault);
            let acknowledged = run(&disk, plain());
            let left = disk.after_power_cut(Survives::Some(at));
            check_survivors(&left, acknowledged, &format!("{fault:?} at {at}"));
        }
    }
}

#[test]
fn commits_that_overlap_survive_as_those_that_do_not() {
    let operations = operations();
    for fault in [Fault::Dead, Fault::Full, Fault::SyncFails] {
        for at in operations.clone() {
            let disk = created();
            disk.fail_at(at, fault);
            let acknowledged = run_ahead(&disk);
            for survives in [Survives::Nothing, Survives::Everything, Survives::Some(at)] {
                let left = disk.after_power_cut(survives);
                check_survivors(&left, acknowledged, &format!("{fault:?} at {at}, {survives:?}"));
            }
        }
    }
}

#[test]
fn after_a_failed_commit_every_later_append_is_told_why() {
    let disk = Disk::default();
    let log = Log::open_on(disk.clone(), options(), clock()).unwrap();
    disk.fail_at(0, Fault::Full);
    assert!(log.reader().closed().is_none());
    let error = log.append(vec![batch("a", &["one"])]).unwrap().remove(0).unwrap_err();
    assert!(matches!(error, AppendError::Io { first: Seq(1), .. }), "{error:?}");
    // Whoever was told of the failure finds the reason at once, and so does who only reads.
    let told = log.reader().closed().map(|closed| closed.to_string());
    let later: Result<(), LogClosed> =
        log.append(vec![batch("a", &["two"])]).and_then(|mut results| match results.remove(0) {
            Err(AppendError::Closed(closed)) => Err(closed),
            other => panic!("{other:?}"),
        });
    let reason = later.unwrap_err().to_string();
    assert_eq!(reason, "the log is closed: an earlier write failed: the medium failed: no storage space");
    assert_eq!(told, Some(reason));
    assert_eq!(log.reader().wait_beyond(Seq::ZERO, Duration::MAX), Seq::ZERO);
    assert!(matches!(log.close(), Err(AppendError::Io { .. })));
}

#[test]
fn with_an_interval_a_crash_loses_only_what_came_after_the_last_sync() {
    let disk = Disk::default();
    let interval = Durability::Interval(Duration::from_millis(1));
    let log = Log::open_on(disk.clone(), LogOptions { durability: interval, ..options() }, clock()).unwrap();
    let left = || {
        let log = Log::open_on(disk.after_power_cut(Survives::Nothing), options(), clock()).unwrap();
        log.reader().verify(&mut |_| ()).unwrap();
        contents(&log.reader())
    };
    for n in 1..=3 {
        super::append(&log, batch("a", &["x"]));
        loop {
            let seen = disk.syncs();
            let found = left().len();
            assert!((n - 1..=n).contains(&found), "{found} events are left of {n}");
            if found == n {
                break;
            }
            disk.wait_for_sync_after(seen);
        }
    }
}

#[test]
fn without_durability_a_crash_leaves_whole_batches_and_an_orderly_end_all_of_them() {
    let disk = created();
    let off = LogOptions { durability: Durability::Off, ..options() };
    let log = Log::open_on(disk.clone(), off, clock()).unwrap();
    for batch in script() {
        super::append(&log, batch);
    }
    for survives in [Survives::Nothing, Survives::Everything, Survives::Some(1)] {
        check_survivors(&disk.after_power_cut(survives), 0, &format!("{survives:?}"));
    }
    log.close().unwrap();
    check_survivors(&disk.after_power_cut(Survives::Nothing), script().len(), "closed in order");
}
