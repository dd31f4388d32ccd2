//! Forks and sealed files: one past, two logs, and neither knows what the other does.

use std::fs;
use std::path::Path;

use super::{append, batch, clock, contents, keyed, options, records};
use crate::log::origin::SEALED_DIR;
use crate::log::{
    Encrypt, Filter, ForkError, ForkOptions, KEYS_FILE, Log, LogOptions, OpenError, PartError, Reader,
    SealedLog, Sealing, fork_log,
};
use crate::{Record, Seq, Timestamp};

const FORK: [u8; 16] = [9; 16];

fn open(dir: &Path) -> Log {
    Log::open(dir, options(), clock()).unwrap()
}

/// Eight batches, each a block of three events, every second with a key.
fn fill(log: &Log, from: u64) {
    for n in from..from + 8 {
        let texts: Vec<String> = (0..3).map(|event| format!("event {n}.{event}")).collect();
        let one = batch(&format!("s{}", n % 2), &texts.iter().map(String::as_str).collect::<Vec<_>>());
        append(log, if n % 2 == 0 { keyed(one, &format!("key {n}"), 1) } else { one });
    }
}

fn apart(dir: &Path) -> Log {
    let apart = LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() };
    Log::open(dir, apart, clock()).unwrap()
}

fn fork(parent: &SealedLog, cut: u64, to: &Path) -> Result<crate::log::Head, ForkError> {
    fork_log(parent, &ForkOptions { cut: Seq(cut), log_id: FORK, at: Timestamp::EPOCH }, to, None)
}

fn reader(dir: &Path) -> Reader {
    Log::open_read_only(dir).unwrap()
}

/// What the fork has in common with its parent up to `cut`.
#[track_caller]
fn check_shared(fork: &Reader, parent: &Reader, cut: u64) {
    assert_eq!(fork.head_at(cut).unwrap(), parent.head_at(cut).unwrap(), "{cut}");
    let (theirs, ours) = (records(parent), records(fork));
    assert_eq!(ours[..cut as usize], theirs[..cut as usize], "{cut}");
    for record in &ours[..cut as usize] {
        assert_eq!(fork.event_id(record), parent.event_id(record), "{}", record.seq);
    }
    for n in (0..32).step_by(2) {
        let key = format!("key {n}");
        let then = parent.key(&key).unwrap().filter(|row| row.last.0 <= cut);
        let ours = fork.key(&key).unwrap().filter(|row| row.last.0 <= cut || fork.head().seq.0 == cut);
        assert_eq!(ours, then, "{key} in a fork at {cut}");
    }
    for stream in ["s0", "s1"] {
        let filter = Filter { stream: Some(stream.to_owned()), ..Filter::default() };
        let found: Vec<Record> = fork.scan(Seq::FIRST, &filter).map(Result::unwrap).collect();
        let then: Vec<&Record> = ours.iter().filter(|record| record.stream == stream).collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), then);
    }
    let back: Vec<Record> = fork.scan_back(Seq(u64::MAX), &Filter::default()).map(Result::unwrap).collect();
    assert!(back.iter().rev().eq(&ours));
    let verified = fork.verify(&mut |_| ()).unwrap();
    assert_eq!((verified.events, verified.root), (ours.len() as u64, fork.head().root));
    fork.verify_own(&mut |_| ()).unwrap();
}

#[test]
fn a_fork_anywhere_shares_everything_up_to_the_cut_and_nothing_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let parent = apart(dir.path());
    fill(&parent, 0);
    let sealed = parent.seal().unwrap();
    for cut in 1..=24 {
        let to = tempfile::tempdir().unwrap();
        let head = fork(&sealed, cut, to.path()).unwrap();
        assert_eq!(head, parent.reader().head_at(cut).unwrap());
        let ours = reader(to.path());
        assert_eq!((ours.head(), ours.log_id()), (head, FORK));
        assert_eq!(records(&ours).len() as u64, cut);
        check_shared(&ours, &parent.reader(), cut);
        drop(ours);
        let ours = open(to.path());
        assert_eq!(append(&ours, batch("s0", &["only in the fork"])).first, Seq(cut + 1));
        check_shared(&ours.reader(), &parent.reader(), cut);
        // A key whose events were cut off is free, one that is shared is known.
        let replayed = append(&ours, keyed(batch("s0", &["again"]), "key 2", 1)).replayed;
        assert_eq!(replayed.is_some(), cut >= 9, "{cut}");
        let growth = ours.reader().prove_consistency(cut, ours.head().seq.0).unwrap();
        assert_eq!(growth.check(&parent.reader().head_at(cut).unwrap(), &ours.head()), Ok(()));
    }
    assert_eq!(records(&parent.reader()).len(), 24, "nothing of it reached the parent");
    assert_eq!(append(&parent, batch("s0", &["only in the parent"])).first, Seq(25));
    parent.reader().verify(&mut |_| ()).unwrap();
}

#[test]
fn a_log_is_sealed_while_it_is_written_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 0);
    let reader = log.reader();
    let mut under_way = reader.scan(Seq::FIRST, &Filter::default());
    let first = under_way.next().unwrap().unwrap();
    let sealed = log.seal().unwrap();
    assert_eq!((sealed.head, sealed.origin.sealed.len()), (log.head(), 1));
    assert_eq!(log.seal().unwrap(), sealed, "there is nothing to seal again");
    fill(&log, 8);
    let read: Vec<Record> = std::iter::once(first).chain(under_way.map(Result::unwrap)).collect();
    assert_eq!(read[..], records(&reader)[..24], "who was reading goes on");
    assert_eq!(append(&log, keyed(batch("s0", &["x"]), "key 0", 1)).first, Seq(1), "its keys are known");
    log.seal().unwrap();
    fill(&log, 16);
    let head = log.head();
    let then = records(&reader);
    assert_eq!(then.len(), 72);
    log.close().unwrap();
    for _ in 0..2 {
        let log = open(dir.path());
        assert_eq!((log.head(), log.reader().origin().unwrap().sealed.len()), (head, 2));
        assert_eq!(records(&log.reader()), then);
        let verified = log.reader().verify(&mut |_| ()).unwrap();
        assert_eq!((verified.events, verified.root, verified.keys), (72, head.root, 12));
        let stats = log.reader().stats().unwrap();
        assert_eq!((stats.events, stats.keys, stats.blocks), (72, 12, verified.blocks));
        log.close().unwrap();
    }
}

/// The files as a kill would leave them.
fn as_killed(dir: &Path) -> tempfile::TempDir {
    let left = tempfile::tempdir().unwrap();
    fs::create_dir(left.path().join(SEALED_DIR)).unwrap();
    for folder in ["", SEALED_DIR] {
        for entry in fs::read_dir(dir.join(folder)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), left.path().join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
    left
}

#[test]
fn a_file_that_was_sealed_by_a_process_that_was_killed_is_read_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 0);
    log.seal().unwrap();
    fill(&log, 8);
    let then = records(&log.reader());
    let left = as_killed(dir.path());
    let before = fs::read(sealed_file(left.path())).unwrap();
    let again = open(left.path());
    assert_eq!(records(&again.reader()), then);
    fill(&again, 16);
    again.close().unwrap();
    reader(left.path()).verify(&mut |_| ()).unwrap();
    assert!(fs::read(sealed_file(left.path())).unwrap() == before, "a sealed file is not written");
}

#[test]
fn what_a_seal_leaves_that_was_cut_short_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 0);
    log.close().unwrap();
    // Killed after the new file, and after the second name.
    fs::write(dir.path().join("events.redb.new"), "half of it").unwrap();
    let log = open(dir.path());
    assert_eq!(log.head().seq, Seq(24));
    let name = crate::log::origin::sealed_name(&[7; 16], Seq(24));
    fs::create_dir(dir.path().join(SEALED_DIR)).unwrap();
    fs::hard_link(dir.path().join("events.redb"), dir.path().join(SEALED_DIR).join(name)).unwrap();
    log.seal().unwrap();
    fill(&log, 8);
    log.close().unwrap();
    assert_eq!(reader(dir.path()).verify(&mut |_| ()).unwrap().events, 48);
}

#[test]
fn a_fork_of_a_fork_shares_what_each_of_them_shared() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let parent = apart(dirs[0].path());
    fill(&parent, 0);
    fork(&parent.seal().unwrap(), 14, dirs[1].path()).unwrap();
    let child = open(dirs[1].path());
    fill(&child, 20);
    let sealed = child.seal().unwrap();
    // Behind the first cut, in the block that was cut there, right at it, and far before it.
    for cut in [38, 20, 15, 14, 13, 12, 3, 1] {
        let to = tempfile::tempdir().unwrap();
        fork_log(
            &sealed,
            &ForkOptions { cut: Seq(cut), log_id: [3; 16], at: Timestamp::EPOCH },
            to.path(),
            None,
        )
        .unwrap();
        let grandchild = reader(to.path());
        check_shared(&grandchild, &child.reader(), cut);
        check_shared(&grandchild, &parent.reader(), cut.min(14));
        let ids: Vec<[u8; 16]> = grandchild.origin().unwrap().forks.iter().map(|fork| fork.log_id).collect();
        assert_eq!(ids, [[7; 16], FORK]);
    }
}

/// Forks of forks of a log, each cut earlier in the block that its parent has of what is not shared.
#[track_caller]
fn check_cut_again(mut log: Log) {
    let shared = log.head().seq.0;
    append(&log, batch("s0", &["one", "two", "three", "four"]));
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    for (dir, cut) in dirs.iter().zip((1..=3).rev().map(|more| shared + more)) {
        fill(&log, 8);
        fork(&log.seal().unwrap(), cut, dir.path()).unwrap();
        let ours = apart(dir.path());
        check_shared(&ours.reader(), &log.reader(), cut);
        log = ours;
    }
    log.close().unwrap();
}

#[test]
fn a_fork_that_was_cut_in_the_first_block_of_a_file_is_forked_there_again() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    check_cut_again(apart(dirs[0].path()));
    // The same behind a file that has blocks.
    let parent = apart(dirs[1].path());
    fill(&parent, 0);
    fork(&parent.seal().unwrap(), 12, dirs[2].path()).unwrap();
    check_cut_again(apart(dirs[2].path()));
}

#[test]
fn a_fork_needs_its_parent_no_more() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let parent = open(dir.path());
    fill(&parent, 0);
    fork(&parent.seal().unwrap(), 20, to.path()).unwrap();
    let then = records(&parent.reader());
    drop(parent);
    dir.close().unwrap();
    let ours = open(to.path());
    assert_eq!(records(&ours.reader()), then[..20]);
    fill(&ours, 8);
    ours.reader().verify(&mut |_| ()).unwrap();
}

fn sealed_file(dir: &Path) -> std::path::PathBuf {
    fs::read_dir(dir.join(SEALED_DIR)).unwrap().next().unwrap().unwrap().path()
}

/// Opens a fork whose sealed file was changed by `change`, which gets its path and that of another log's.
#[track_caller]
fn check_refused(change: impl FnOnce(&Path, &Path), then: impl Fn(&PartError) -> bool) {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let parent = open(dirs[0].path());
    fill(&parent, 0);
    fork(&parent.seal().unwrap(), 20, dirs[1].path()).unwrap();
    let other = Log::open(dirs[2].path(), LogOptions::new([8; 16]), clock()).unwrap();
    fill(&other, 3);
    other.seal().unwrap();
    change(&sealed_file(dirs[1].path()), &sealed_file(dirs[2].path()));
    for opened in
        [Log::open(dirs[1].path(), options(), clock()).err(), Log::open_read_only(dirs[1].path()).err()]
    {
        let Some(OpenError::Sealed { path, source }) = opened else {
            panic!("{opened:?}");
        };
        assert!(path.starts_with(dirs[1].path()) && then(&source), "{source:?}");
    }
    parent.reader().verify(&mut |_| ()).unwrap();
}

#[test]
fn a_sealed_file_that_is_lost_or_not_the_one_it_was_is_named() {
    let replace = |ours: &Path, other: &[u8]| {
        fs::remove_file(ours).unwrap();
        fs::write(ours, other).unwrap();
    };
    check_refused(|ours, _| fs::remove_file(ours).unwrap(), |error| matches!(error, PartError::Store(_)));
    check_refused(
        |ours, other| replace(ours, &fs::read(other).unwrap()),
        |error| matches!(error, PartError::OtherLog),
    );
    check_refused(|ours, _| replace(ours, b"no log"), |error| matches!(error, PartError::Store(_)));
    check_refused(
        |ours, _| {
            // The same log, which then took another course.
            let dir = tempfile::tempdir().unwrap();
            let log = open(dir.path());
            fill(&log, 5);
            log.close().unwrap();
            replace(ours, &fs::read(dir.path().join("events.redb")).unwrap());
        },
        |error| matches!(error, PartError::OtherRoot { through: Seq(24), .. }),
    );
}

#[test]
fn there_is_no_fork_where_there_is_no_event() {
    let dir = tempfile::tempdir().unwrap();
    let parent = open(dir.path());
    fill(&parent, 0);
    let sealed = parent.seal().unwrap();
    for cut in [0, 25, u64::MAX] {
        let to = tempfile::tempdir().unwrap();
        let refused = fork(&sealed, cut, to.path()).unwrap_err().to_string();
        assert_eq!(refused, format!("#{cut} is not in the log; choose a position from 1 to 24"));
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
    }
    assert_eq!(contents(&parent.reader()).len(), 24);
}

#[test]
fn a_fork_with_a_copy_shares_nothing_on_disk() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let parent = apart(dir.path());
    fill(&parent, 0);
    let sealed = parent.seal().unwrap();
    let options = ForkOptions { cut: Seq(14), log_id: FORK, at: Timestamp::EPOCH };
    let mut heard = Vec::new();
    let head = fork_log(&sealed, &options, to.path(), Some(&mut |at, of| heard.push((at, of)))).unwrap();
    assert_eq!(heard.last(), Some(&(Seq(14), Seq(14))));
    assert!(!to.path().join(SEALED_DIR).exists());
    let ours = reader(to.path());
    assert_eq!((ours.head(), ours.log_id()), (head, FORK));
    check_shared(&ours, &parent.reader(), 14);
}

#[test]
fn a_fork_that_is_cut_short_has_no_keys() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let draw = |bytes: &mut [u8]| -> std::io::Result<()> {
        bytes.fill(5);
        Ok(())
    };
    let sealing = Some(Sealing { what: Encrypt::All, draw });
    let parent = Log::open(dir.path(), LogOptions { sealing, ..options() }, clock()).unwrap();
    append(&parent, batch("agent:ada", &["of ada"]));
    let sealed = parent.seal().unwrap();
    fs::create_dir(to.path().join(SEALED_DIR)).unwrap();
    let cut_short = fork(&sealed, 1, to.path());
    assert!(matches!(cut_short, Err(ForkError::Write { .. })), "{cut_short:?}");
    assert!(!to.path().join(KEYS_FILE).exists());
    fs::remove_dir(to.path().join(SEALED_DIR)).unwrap();
    fork(&sealed, 1, to.path()).unwrap();
    assert!(to.path().join(KEYS_FILE).exists());
}
