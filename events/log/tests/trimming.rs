//! A log without its oldest events: what is kept is kept as it was, and what cannot be said any more is said so.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::{append, batch, clock, contents, keyed, options, records};
use crate::log::origin::{ORIGIN_FILE, SEALED_DIR};
use crate::log::{
    CopyError, ForkOptions, Log, LogOptions, ProveError, Range, Reach, Reader, TrimError, TrimOptions,
    Trimmed, copy_log, detach, drop_before, fork_log, note_fork,
};
use crate::{Record, Seq, Timestamp};

/// Blocks of three events that stay apart.
fn apart(dir: &Path) -> Log {
    let apart = LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() };
    Log::open(dir, apart, clock()).unwrap()
}

fn fill(log: &Log, from: u64) {
    for n in from..from + 8 {
        let texts: Vec<String> = (0..3).map(|event| format!("event {n}.{event}")).collect();
        let one = batch(&format!("s{}", n % 2), &texts.iter().map(String::as_str).collect::<Vec<_>>());
        append(log, keyed(one, &format!("key {n}"), 1));
    }
}

fn reader(dir: &Path) -> Reader {
    Log::open_read_only(dir).unwrap()
}

fn trim(dir: &Path, before: u64) -> Result<Option<Trimmed>, TrimError> {
    let by = "ada".to_owned();
    let options = TrimOptions { before: Seq(before), at: Timestamp::EPOCH, by, forks_keep: false };
    drop_before(dir, &options)
}

/// What a log was before anything was dropped.
struct Before {
    records: Vec<Record>,
    reader: Reader,
    _dir: tempfile::TempDir,
}

/// A log of 24 events with seals behind these, as it was, in one file.
fn written(dir: &Path, seals: &[u64]) -> Before {
    let log = apart(dir);
    for n in 0..8 {
        append(
            &log,
            keyed(
                batch("s", &[&format!("{n}a"), &format!("{n}b"), &format!("{n}c")]),
                &format!("key {n}"),
                1,
            ),
        );
        if seals.contains(&(3 * n + 3)) {
            log.seal().unwrap();
        }
    }
    let copy = tempfile::tempdir().unwrap();
    copy_log(&log.reader(), Seq(24), &copy.path().join("events.redb"), &mut |_| ()).unwrap();
    log.close().unwrap();
    let reader = reader(copy.path());
    Before { records: records(&reader), reader, _dir: copy }
}

/// The log in `dir` has everything from `first` on, and proves what it proved before.
#[track_caller]
fn check_kept(dir: &Path, before: &Before, first: u64) {
    let kept = reader(dir);
    let then: Vec<&Record> = before.records.iter().filter(|record| record.seq.0 >= first).collect();
    assert_eq!(records(&kept).iter().collect::<Vec<_>>(), then, "{first}");
    assert_eq!((kept.head(), kept.first().unwrap()), (before.reader.head(), Seq(first)));
    let verified = kept.verify(&mut |_| ()).unwrap();
    assert_eq!((verified.events, verified.root), (25 - first, kept.head().root));
    let stats = kept.stats().unwrap();
    assert_eq!((stats.events, stats.keys), (25 - first, (25 - first) / 3));
    for n in 0..8 {
        let key = format!("key {n}");
        let row = before.reader.key(&key).unwrap().filter(|row| row.last.0 >= first);
        assert_eq!(kept.key(&key).unwrap(), row, "{key}");
    }
    for size in 0..=24 {
        match kept.head_at(size) {
            Ok(head) => assert_eq!(head, before.reader.head_at(size).unwrap()),
            Err(error) => {
                assert!(size > 0 && size + 1 < first, "{size}: {error}");
                assert!(matches!(error, ProveError::Dropped { .. }), "{error:?}");
            }
        }
        for seq in 1..=size {
            let proved = kept.prove_inclusion(Seq(seq), size);
            if seq >= first {
                assert_eq!(proved.unwrap(), before.reader.prove_inclusion(Seq(seq), size).unwrap());
            } else {
                assert!(matches!(proved, Err(ProveError::Dropped { .. })), "{seq} of {size}");
            }
        }
        for from in (first - 1).max(1)..=size {
            let grown = kept.prove_consistency(from, size).unwrap();
            assert_eq!(grown, before.reader.prove_consistency(from, size).unwrap());
        }
    }
    if first > 2 {
        let error = kept.prove_consistency(first - 2, 24).unwrap_err().to_string();
        let says =
            format!("the events before #{first} were dropped, so nothing can be proved of #{}", first - 2);
        assert!(error.starts_with(&says), "{error}");
    }
}

#[test]
fn what_is_kept_proves_what_it_proved_wherever_its_events_lie() {
    for seals in [&[][..], &[12], &[6, 15], &[3, 6, 9, 24], &[24]] {
        for before in [4, 9, 12, 13, 16, 24] {
            let dir = tempfile::tempdir().unwrap();
            let was = written(dir.path(), seals);
            let first = (before - 1) / 3 * 3 + 1;
            let trimmed = trim(dir.path(), before).unwrap().unwrap();
            assert_eq!((trimmed.first, trimmed.events), (Seq(first), first - 1), "{seals:?} {before}");
            check_kept(dir.path(), &was, first);
            assert_eq!(trim(dir.path(), before).unwrap(), None, "there is nothing more to drop");
            // Once more, further on, after it went on.
            if first < 19 {
                trim(dir.path(), 19).unwrap().unwrap();
                check_kept(dir.path(), &was, 19);
            }
            let log = apart(dir.path());
            fill(&log, 20);
            log.seal().unwrap();
            assert_eq!(log.reader().verify(&mut |_| ()).unwrap().root, log.head().root);
            log.close().unwrap();
            reader(dir.path()).verify(&mut |_| ()).unwrap();
        }
    }
}

#[test]
fn what_was_dropped_is_in_no_file() {
    for seals in [&[][..], &[12], &[9, 24]] {
        let dir = tempfile::tempdir().unwrap();
        drop(written(dir.path(), seals));
        trim(dir.path(), 10).unwrap().unwrap();
        let folder = fs::read_dir(dir.path().join(SEALED_DIR)).into_iter().flatten();
        for entry in folder.chain(fs::read_dir(dir.path()).unwrap()) {
            let path = entry.unwrap().path();
            if path.is_file() {
                let bytes = fs::read(&path).unwrap();
                let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
                assert!(!holds(b"\x022b") && !holds(b"key 2"), "{}", path.display());
            }
        }
    }
}

/// A log with a sealed file and something in its own; both files, open, so that they can be looked at when they have no name.
fn two_files(dir: &Path) -> [File; 2] {
    let log = apart(dir);
    append(&log, batch("s", &["in the sealed file"]));
    let sealed = log.seal().unwrap();
    append(&log, batch("s", &["in its own file"]));
    log.close().unwrap();
    let sealed = dir.join(SEALED_DIR).join(&sealed.origin.sealed[0].file);
    [sealed, dir.join("events.redb")].map(|path| File::open(path).unwrap())
}

fn is_zeros(mut file: &File) -> bool {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    assert!(!bytes.is_empty());
    bytes.iter().all(|byte| *byte == 0)
}

#[test]
fn the_files_that_a_log_leaves_are_overwritten_but_for_those_that_have_other_names() {
    for is_shared in [false, true] {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = two_files(dir.path());
        if is_shared {
            let sealed = fs::read_dir(dir.path().join(SEALED_DIR)).unwrap().next().unwrap().unwrap().path();
            fs::hard_link(&sealed, elsewhere.path().join("sealed")).unwrap();
            fs::hard_link(dir.path().join("events.redb"), elsewhere.path().join("own")).unwrap();
        }
        detach(dir.path(), &mut |_, _| ()).unwrap();
        assert_eq!(files.each_ref().map(is_zeros), [!is_shared; 2]);
        assert_eq!(contents(&reader(dir.path())), ["in the sealed file", "in its own file"]);
        assert_eq!(fs::read_dir(dir.path().join(SEALED_DIR)).unwrap().count(), 0);
        assert!(!dir.path().join("events.redb.erased").exists());
    }
    // What is dropped goes in the same way.
    let dir = tempfile::tempdir().unwrap();
    let files = two_files(dir.path());
    trim(dir.path(), 2).unwrap().unwrap();
    assert_eq!(files.each_ref().map(is_zeros), [true, false], "its own file has what is kept");
    assert_eq!(contents(&reader(dir.path())), ["in its own file"]);
}

#[test]
fn what_a_detaching_that_was_cut_short_left_is_overwritten_by_the_next_or_by_an_opening() {
    let again: [fn(&Path); 2] = [|dir| detach(dir, &mut |_, _| ()).unwrap(), |dir| drop(apart(dir))];
    for again in again {
        let dir = tempfile::tempdir().unwrap();
        let [sealed, own] = two_files(dir.path());
        let old = dir.path().join("events.redb.erased");
        // As after a crash behind the rename: the old file has its second name, the other one is still there.
        let name = fs::read_dir(dir.path().join(SEALED_DIR)).unwrap().next().unwrap().unwrap().path();
        for (path, kept) in [(&dir.path().join("events.redb"), "own"), (&name, "part")] {
            fs::hard_link(path, dir.path().join(kept)).unwrap();
        }
        detach(dir.path(), &mut |_, _| ()).unwrap();
        fs::rename(dir.path().join("own"), &old).unwrap();
        fs::rename(dir.path().join("part"), &name).unwrap();
        assert!(!is_zeros(&sealed) && !is_zeros(&own));
        again(dir.path());
        assert!(is_zeros(&sealed) && is_zeros(&own));
        assert!(!old.exists() && !name.exists());
        assert_eq!(contents(&reader(dir.path())), ["in the sealed file", "in its own file"]);
    }
}

#[test]
fn a_position_that_is_not_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(written(dir.path(), &[]));
    let refused = trim(dir.path(), 25).unwrap_err().to_string();
    assert_eq!(refused, "#25 lies beyond the end of the log; choose a position up to 24");
    assert_eq!(trim(dir.path(), 3).unwrap(), None, "what is kept begins in the first block");
    let log = apart(dir.path());
    assert!(matches!(trim(dir.path(), 10), Err(TrimError::Open(_))), "somebody has it open");
    drop(log);
}

#[test]
fn what_is_left_of_a_range_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let was = written(dir.path(), &[12]);
    let at = |seq: usize| Some(was.records[seq - 1].recorded_at);
    let reach = |range: &Range| reader(dir.path()).reach(range).unwrap();
    let all = Range::default();
    assert_eq!(reach(&all), (Seq(1), Reach::Whole));
    trim(dir.path(), 7).unwrap().unwrap();
    for (range, then) in [
        (all, Reach::Cut),
        (Range { from: Some(Seq(7)), ..all }, Reach::Whole),
        (Range { from: Some(Seq(6)), ..all }, Reach::Cut),
        (Range { to: Some(Seq(7)), ..all }, Reach::Cut),
        (Range { to: Some(Seq(6)), ..all }, Reach::Dropped),
        (Range { from: Some(Seq(2)), to: Some(Seq(5)), ..all }, Reach::Dropped),
        (Range { since: at(7), ..all }, Reach::Whole),
        (Range { since: at(6), ..all }, Reach::Cut),
        (Range { until: at(7), ..all }, Reach::Dropped),
        (Range { until: at(10), ..all }, Reach::Cut),
        (Range { until: Some(Timestamp::EPOCH), ..all }, Reach::Dropped),
    ] {
        assert_eq!(reach(&range), (Seq(7), then), "{range:?}");
    }
}

#[test]
fn files_that_a_fork_shares_are_not_dropped_without_a_word() {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let was = written(dir.path(), &[12]);
    let log = apart(dir.path());
    let sealed = log.seal().unwrap();
    log.close().unwrap();
    let at = Timestamp::EPOCH;
    fork_log(&sealed, &ForkOptions { cut: Seq(9), log_id: [9; 16], at }, to.path(), None).unwrap();
    let refused = trim(dir.path(), 10).unwrap_err().to_string();
    assert!(
        refused.contains("is shared with another data directory; drop the events there first"),
        "{refused}"
    );
    let fork = crate::log::Fork { dir: to.path().to_owned(), seq: Seq(9), at };
    note_fork(dir.path(), &fork).unwrap();
    let refused = trim(dir.path(), 10).unwrap_err().to_string();
    assert!(refused.contains(&format!("is shared with the fork {} at #9", to.path().display())), "{refused}");
    check_kept(dir.path(), &was, 1);
    // Let be, the fork keeps what it has.
    let forks_keep = TrimOptions { before: Seq(10), at, by: "ada".to_owned(), forks_keep: true };
    let shared = fs::read_dir(to.path().join(SEALED_DIR)).unwrap();
    let shared: u64 = shared.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum();
    let dropped = drop_before(dir.path(), &forks_keep).unwrap().unwrap();
    assert_eq!(dropped.first, Seq(10));
    // The name that went was not the last one.
    assert_eq!((dropped.freed_bytes, dropped.kept_bytes), (0, shared), "{dropped:?}");
    check_kept(dir.path(), &was, 10);
    assert_eq!(records(&reader(to.path())), was.records[..9]);
    // A fork that has its own files stands in nobody's way.
    detach(to.path(), &mut |_, _| ()).unwrap();
    assert_eq!(records(&reader(to.path())), was.records[..9]);
    assert_eq!(fs::read_dir(to.path().join(SEALED_DIR)).unwrap().count(), 0);
    let dropped = trim(to.path(), 7).unwrap().unwrap();
    assert_eq!((dropped.first, dropped.kept_bytes), (Seq(7), 0));
    reader(to.path()).verify(&mut |_| ()).unwrap();
}

#[test]
fn a_log_that_lost_its_beginning_is_copied_sealed_and_forked_as_it_is() {
    let (dir, to, copy) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let was = written(dir.path(), &[15]);
    trim(dir.path(), 8).unwrap().unwrap();
    let refused = copy_log(&reader(dir.path()), Seq(3), &copy.path().join("no"), &mut |_| ()).unwrap_err();
    assert!(matches!(refused, CopyError::Dropped { first: Seq(7) }), "{refused:?}");
    copy_log(&reader(dir.path()), Seq(24), &copy.path().join("events.redb"), &mut |_| ()).unwrap();
    check_kept(copy.path(), &was, 7);
    let log = apart(dir.path());
    let sealed = log.seal().unwrap();
    let at = Timestamp::EPOCH;
    let options = |cut| ForkOptions { cut: Seq(cut), log_id: [9; 16], at };
    let refused = fork_log(&sealed, &options(6), to.path(), None).unwrap_err().to_string();
    assert_eq!(refused, "#6 is not in the log; choose a position from 7 to 24");
    fork_log(&sealed, &options(11), to.path(), None).unwrap();
    let fork = reader(to.path());
    assert_eq!(records(&fork), was.records[6..11]);
    fork.verify(&mut |_| ()).unwrap();
    assert_eq!(fork.head_at(8).unwrap(), was.reader.head_at(8).unwrap());
}

#[test]
fn a_drop_that_was_cut_short_leaves_the_one_log_or_the_other() {
    // Before the switch: what was being written lies about.
    let dir = tempfile::tempdir().unwrap();
    let was = written(dir.path(), &[12]);
    fs::write(dir.path().join("events.redb.new"), "half of it").unwrap();
    let half = format!("{:020}-{}", 7, crate::log::origin::sealed_name(&[7; 16], Seq(12)));
    fs::write(dir.path().join(SEALED_DIR).join(half), "half of it").unwrap();
    check_kept(dir.path(), &was, 1);
    trim(dir.path(), 7).unwrap().unwrap();
    check_kept(dir.path(), &was, 7);
    // After it: a file that is of no more use is removed by the next opening.
    let old = dir.path().join(SEALED_DIR).join(crate::log::origin::sealed_name(&[7; 16], Seq(12)));
    assert!(!old.exists());
    fs::write(&old, "what was dropped").unwrap();
    check_kept(dir.path(), &was, 7);
    drop(apart(dir.path()));
    assert!(!old.exists());
    check_kept(dir.path(), &was, 7);
}

#[test]
fn what_a_drop_or_a_seal_left_half_made_goes_with_the_next_opening() {
    let dir = tempfile::tempdir().unwrap();
    drop(written(dir.path(), &[12]));
    let own = dir.path().join("events.redb");
    let sealed = |name: &str| dir.path().join(SEALED_DIR).join(name);
    let name = |last| crate::log::origin::sealed_name(&[7; 16], Seq(last));
    let (new, rest) = (dir.path().join("events.redb.new"), sealed(&format!("{:020}-{}", 7, name(12))));
    let (second, other) = (sealed(&name(24)), sealed(&name(99)));
    for file in [&new, &rest, &other] {
        fs::write(file, "half of it").unwrap();
    }
    // Earlier versions took the permission to write from a file before it was sealed.
    fs::hard_link(&own, &second).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o400)).unwrap();
    drop(apart(dir.path()));
    for file in [&new, &rest, &second] {
        assert!(!file.exists(), "{}", file.display());
    }
    assert!(other.exists() && sealed(&name(12)).exists(), "nobody knows what it is, and a part of the log");
    assert_ne!(fs::metadata(&own).unwrap().permissions().mode() & 0o200, 0);
    assert_eq!(reader(dir.path()).verify(&mut |_| ()).unwrap().events, 24);
}

#[test]
fn what_says_where_a_log_begins_is_put_in_its_place_whole() {
    let dir = tempfile::tempdir().unwrap();
    drop(written(dir.path(), &[12]));
    let (origin, kept) = (dir.path().join(ORIGIN_FILE), dir.path().join("kept"));
    let changes: [fn(&Path); 3] = [
        |dir| drop(apart(dir).seal().unwrap()),
        |dir| assert!(trim(dir, 7).unwrap().is_some()),
        |dir| detach(dir, &mut |_, _| ()).unwrap(),
    ];
    for change in changes {
        let then = fs::read(&origin).unwrap();
        // Written where it lies it would change under this name as well, and a crash would leave a part of it.
        fs::hard_link(&origin, &kept).unwrap();
        change(dir.path());
        assert_ne!(fs::read(&origin).unwrap(), then);
        assert_eq!(fs::read(&kept).unwrap(), then);
        fs::remove_file(&kept).unwrap();
    }
}

/// A fork at `cut` of a log with blocks of two batches, and six events of its own behind it, in a sealed file or not.
fn forked(cut: u64, seals: bool) -> tempfile::TempDir {
    let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let parent = apart(dir.path());
    let three = |n: u64| keyed(batch("s", &["a", "b", "c"]), &format!("key {n}"), 1);
    for n in [0, 2, 4, 6] {
        for appended in parent.append(vec![three(n), three(n + 1)]).unwrap() {
            appended.unwrap();
        }
    }
    assert_eq!(parent.reader().stats().unwrap().blocks, 4);
    let options = ForkOptions { cut: Seq(cut), log_id: [9; 16], at: Timestamp::EPOCH };
    fork_log(&parent.seal().unwrap(), &options, to.path(), None).unwrap();
    let fork = apart(to.path());
    append(&fork, three(8));
    append(&fork, three(9));
    if seals {
        fork.seal().unwrap();
    }
    fork.close().unwrap();
    to
}

#[test]
fn a_fork_that_was_cut_before_the_end_of_its_parent_loses_its_beginning_and_nothing_more() {
    let keys = |log: &Reader| (0..10).map(|n| log.key(&format!("key {n}")).unwrap()).collect::<Vec<_>>();
    // Behind a block, behind the first batch of one, and within a batch; what is dropped ends in the file that is shared, with it,
    // and behind it.
    for cut in [12, 14, 15] {
        for seals in [false, true] {
            for befores in [&[7, 16][..], &[13, 16], &[16]] {
                let dir = forked(cut, seals);
                let then = reader(dir.path());
                let (then_records, then_keys, head) = (records(&then), keys(&then), then.head());
                drop(then);
                for before in befores {
                    let Some(trimmed) = trim(dir.path(), *before).unwrap() else { continue };
                    let first = trimmed.first;
                    let what = format!("cut at {cut}, {seals}, dropped before {first}");
                    let kept = reader(dir.path());
                    assert_eq!((kept.head(), kept.first().unwrap()), (head, first), "{what}");
                    assert_eq!(records(&kept), then_records[first.0 as usize - 1..], "{what}");
                    for (left, then) in keys(&kept).iter().zip(&then_keys) {
                        // Keys of events that went may stay where a cut brought them, in the log's own file.
                        let is_gone = then.as_ref().is_none_or(|then| then.last < first);
                        assert!(left == then || left.is_none() && is_gone, "{what}: {left:?}, not {then:?}");
                    }
                    kept.verify(&mut |_| ()).unwrap();
                }
                let log = apart(dir.path());
                append(&log, batch("s", &["more"]));
            }
        }
    }
}
