//! A log that is written anew: who reads it meanwhile, and what a crash leaves of the file that it was in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::{
    LONG, append, batch, check_nowhere, clock, contents, contents_of, does_not_sync, erase, options, records,
    subject,
};
use crate::log::rewrite::SyncFolder;
use crate::log::tests::disk::{Disk, Fault};
use crate::log::tests::until_merged;
use crate::log::{Filter, Log, LogOptions, RewriteError};
use crate::{Record, Seq, Subject};

fn old_file(dir: &Path) -> PathBuf {
    dir.join("events.redb.erased")
}

fn open(dir: &Path) -> Log {
    Log::open(dir, options(), clock()).unwrap()
}

/// A log that lies as it was written, with an order to erase what it has of ada.
fn ordered(dir: &Path, options: LogOptions) -> (Log, [Subject; 1], Seq) {
    let log = Log::open(dir, options, clock()).unwrap();
    for n in 0..40 {
        append(&log, batch("agent:ada", &[&format!("secret {n}"), &LONG.repeat(400)]));
    }
    let ada = [subject("agent:ada")];
    let order = erase(&log, &ada);
    (log, ada, order)
}

#[test]
fn who_reads_while_the_log_is_written_anew_goes_on_and_appends_do_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    // So that it is read from its file, and neither from the write-ahead log nor from memory.
    let from_file = LogOptions {
        cache_bytes: 256 << 10,
        compress_above: None,
        wal_group_bytes_max: 0,
        merge_blocks: false,
        ..options()
    };
    let (log, ada, order) = ordered(dir.path(), from_file);
    let then = records(&log.reader());
    let mut under_way = log.reader().scan(Seq::FIRST, &Filter::default());
    let first = under_way.next().unwrap().unwrap();
    let rewritten = log.write_anew(&ada, order, fs::File::sync_all).unwrap();
    append(&log, batch("agent:bob", &["of bob"]));
    let read: Vec<Record> = std::iter::once(first).chain(under_way.map(Result::unwrap)).collect();
    assert!(read == then, "{} records of {}", read.len(), then.len());
    assert_eq!(rewritten.overwrite().unwrap(), 80);
    assert!(!old_file(dir.path()).exists() && !log.has_old_file());
    assert_eq!(contents_of(&log).len(), 0);
    assert_eq!(records(&log.reader()).len(), 2, "the order, and what was said since");
    log.close().unwrap();
    check_nowhere(dir.path(), "secret");
}

#[test]
fn what_a_crash_leaves_of_the_old_file_is_zeros_after_the_next_opening() {
    type Cut = fn(&Log, &[Subject], Seq);
    let cuts: [Cut; 2] = [
        // The name of the new file may not last.
        |log, ada, order| drop(log.redact_with(ada, order, does_not_sync).unwrap_err()),
        // Killed while readers are waited for.
        |log, ada, order| drop(log.write_anew(ada, order, fs::File::sync_all).unwrap()),
    ];
    for cut in cuts {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (log, ada, order) = ordered(dir.path(), options());
        let kept = elsewhere.path().join("kept");
        fs::hard_link(dir.path().join("events.redb"), &kept).unwrap();
        let is_zeros = || fs::read(&kept).unwrap().iter().all(|byte| *byte == 0);
        cut(&log, &ada, order);
        drop(log);
        assert!(!is_zeros(), "a restart may still need it");
        let log = open(dir.path());
        assert!(is_zeros());
        assert!(!old_file(dir.path()).exists() && !log.has_old_file());
        assert_eq!((log.head().seq, contents_of(&log).len()), (order, 0));
        append(&log, batch("agent:bob", &["of bob since"]));
        log.close().unwrap();
    }
}

/// A file, and its length when the log's new file had got its name.
static WATCHED: Mutex<Option<(PathBuf, u64)>> = Mutex::new(None);

fn note(_: &fs::File) -> io::Result<()> {
    if let Some((path, bytes)) = &mut *WATCHED.lock().unwrap() {
        *bytes = fs::metadata(path)?.len();
    }
    Ok(())
}

#[test]
fn no_byte_of_the_old_file_is_cut_off_before_it_is_overwritten() {
    let ends: [SyncFolder; 2] = [
        |folder| note(folder).and_then(|()| folder.sync_all()),
        |folder| note(folder).and_then(|()| does_not_sync(folder)),
    ];
    for (end, written) in ends.into_iter().zip([Some(80), None]) {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (log, ada, order) = ordered(dir.path(), options());
        let kept = elsewhere.path().join("kept");
        fs::hard_link(dir.path().join("events.redb"), &kept).unwrap();
        *WATCHED.lock().unwrap() = Some((kept.clone(), 0));
        assert_eq!(log.redact_with(&ada, order, end).ok(), written);
        drop(log);
        open(dir.path()).close().unwrap();
        let (left, watched) = (fs::read(&kept).unwrap(), WATCHED.lock().unwrap().take());
        assert_eq!(watched, Some((kept, left.len() as u64)));
        assert!(left.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_log_that_is_written_anew_does_not_vouch_for_what_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let unmerged = || LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() };
    let log = Log::open(dir.path(), unmerged(), clock()).unwrap();
    append(&log, batch("agent:bob", &["of bob, damaged"]));
    append(&log, batch("agent:ada", &["of ada"]));
    log.close().unwrap();
    let file = dir.path().join("events.redb");
    let mut bytes = fs::read(&file).unwrap();
    while let Some(at) = bytes.windows(15).position(|window| window == b"of bob, damaged") {
        bytes[at] ^= 1;
    }
    fs::write(&file, bytes).unwrap();
    let log = Log::open(dir.path(), unmerged(), clock()).unwrap();
    let ada = [subject("agent:ada")];
    let order = erase(&log, &ada);
    assert_eq!(log.redact(&ada, order).unwrap(), 1);
    let first = log.reader().scan(Seq::FIRST, &Filter::default()).next().unwrap();
    assert!(first.unwrap_err().to_string().contains("an event does not match its hash (#1)"));
    // Nobody can tell whether it was taken out.
    assert_eq!(log.reader().taken_out(order).unwrap(), [Seq(1), Seq(2)]);
}

#[test]
fn a_second_name_of_the_log_goes_and_the_log_stays() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, batch("agent:ada", &["of ada"]));
    log.close().unwrap();
    // Killed before the new file had the log's name.
    fs::hard_link(dir.path().join("events.redb"), old_file(dir.path())).unwrap();
    let log = open(dir.path());
    assert!(!old_file(dir.path()).exists());
    assert_eq!(contents(&log.reader()), ["of ada"]);
    log.close().unwrap();
    assert_eq!(contents(&open(dir.path()).reader()), ["of ada"]);
}

#[test]
fn a_log_is_sealed_without_a_second_name() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, batch("agent:ada", &["of ada"]));
    // The new file could not get the log's name.
    fs::hard_link(dir.path().join("events.redb"), old_file(dir.path())).unwrap();
    log.seal().unwrap();
    assert!(!log.has_old_file());
    append(&log, batch("agent:bob", &["of bob"]));
    log.close().unwrap();
    let log = open(dir.path());
    assert_eq!(contents(&log.reader()), ["of ada", "of bob"]);
    log.reader().verify(&mut |_| ()).unwrap();
}

#[test]
fn what_was_taken_out_is_found_although_its_blocks_were_merged_since() {
    let dir = tempfile::tempdir().unwrap();
    // Each append is a block.
    let log = Log::open(dir.path(), LogOptions { wal_group_bytes_max: 0, ..options() }, clock()).unwrap();
    for n in 0..10 {
        append(&log, batch("agent:ada", &[&format!("secret {n}")]));
    }
    let ada = [subject("agent:ada")];
    let order = erase(&log, &ada);
    assert_eq!(log.redact(&ada, order).unwrap(), 10);
    let then: Vec<Seq> = (1..=10).map(Seq).collect();
    assert_eq!(log.reader().taken_out(order).unwrap(), then);
    for n in 0..200 {
        append(&log, batch("agent:bob", &[&format!("of bob {n}")]));
    }
    until_merged(&log, 100);
    assert_eq!(log.reader().taken_out(order).unwrap(), then);
}

#[test]
fn an_old_file_that_cannot_be_removed_is_named_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (log, ada, order) = ordered(dir.path(), options());
    let rewritten = log.write_anew(&ada, order, fs::File::sync_all).unwrap();
    let old = old_file(dir.path());
    fs::remove_file(&old).unwrap();
    fs::create_dir(&old).unwrap();
    let failed = rewritten.overwrite().unwrap_err();
    let begins = format!("could not overwrite and remove {}, ", old.display());
    assert!(failed.to_string().starts_with(&begins), "{failed}");
    assert!(log.has_old_file());
    assert_eq!(contents_of(&log).len(), 0, "the new file is the log");
    let again = log.redact(&ada, order);
    assert!(matches!(&again, Err(RewriteError::Old { path, .. }) if *path == old), "{again:?}");
    fs::remove_dir(&old).unwrap();
    fs::write(&old, "a secret").unwrap();
    assert_eq!(log.redact(&ada, order).unwrap(), 0);
    assert!(!log.has_old_file());
    log.close().unwrap();
}

#[test]
fn who_asks_a_log_that_has_failed_to_be_written_anew_is_told_why_it_has() {
    let disk = Disk::default();
    let log = Log::open_on(disk.clone(), options(), clock()).unwrap();
    disk.fail_at(0, Fault::Full);
    log.append(vec![batch("agent:ada", &["of ada"])]).unwrap().remove(0).unwrap_err();
    for _ in 0..2 {
        let refused = log.redact(&[subject("agent:ada")], Seq(1)).unwrap_err();
        let reason = "the log is closed: an earlier write failed: the medium failed: no storage space";
        assert_eq!(refused.to_string(), reason);
    }
}
