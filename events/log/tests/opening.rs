//! Opening: the lock, lost and foreign files, reading a stopped log, what a second opening finds.

use std::fs;
use std::path::Path;

use super::{append, batch, clock, contents, options};
use crate::Seq;
use crate::log::beside::id_beside;
use crate::log::journal::Journal;
use crate::log::open::writer_of;
use crate::log::{Log, LogOptions, OpenError};

fn open(dir: &Path) -> Result<Log, OpenError> {
    Log::open(dir, options(), clock())
}

#[test]
fn a_closed_log_is_found_again_with_its_head_its_id_and_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    append(&log, super::keyed(batch("a", &["x", "y"]), "k", 1));
    let head = log.head();
    assert!(log.reader().stats().unwrap().file_bytes > 0);
    log.close().unwrap();
    let other_id = LogOptions::new([9; 16]);
    let log = Log::open(dir.path(), other_id, clock()).unwrap();
    assert_eq!((log.head(), log.reader().log_id()), (head, [7; 16]));
    assert!(append(&log, super::keyed(batch("a", &["x", "y"]), "k", 1)).replayed.is_some());
    assert_eq!(append(&log, batch("a", &["z"])).first, Seq(3));
}

#[test]
fn a_second_writer_is_told_which_process_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    for error in [open(dir.path()).unwrap_err(), Log::open_read_only(dir.path()).unwrap_err()] {
        assert!(matches!(error, OpenError::Locked { pid, .. } if pid == std::process::id()), "{error:?}");
        let then = format!(
            "{} is in use by process {}; stop that first, or talk to it over HTTP",
            dir.path().display(),
            std::process::id()
        );
        assert_eq!(error.to_string(), then);
    }
    drop(log);
    drop(open(dir.path()).unwrap());
}

#[test]
fn a_directory_tells_who_writes_to_it_as_long_as_somebody_does() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(writer_of(dir.path()).unwrap(), None);
    let log = open(dir.path()).unwrap();
    assert_eq!(writer_of(dir.path()).unwrap(), Some(std::process::id()));
    log.close().unwrap();
    assert_eq!(writer_of(dir.path()).unwrap(), None);
    let reader = Log::open_read_only(dir.path()).unwrap();
    assert_eq!(writer_of(dir.path()).unwrap(), None, "who reads does not write");
    drop(reader);
    drop(open(dir.path()).unwrap());
}

#[test]
fn the_id_beside_a_log_is_its_own_from_the_next_opening_on() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(id_beside(dir.path()), None);
    open(dir.path()).unwrap().close().unwrap();
    assert_eq!(id_beside(dir.path()), Some([7; 16]));
    for other in ["09090909090909090909090909090909\n", "no id", ""] {
        // As where somebody put the file of another log into a directory that had one.
        fs::write(dir.path().join("events.id"), other).unwrap();
        assert_ne!(id_beside(dir.path()), Some([7; 16]), "{other}");
        open(dir.path()).unwrap().close().unwrap();
        assert_eq!(id_beside(dir.path()), Some([7; 16]), "{other}");
    }
}

#[test]
fn who_opens_a_log_to_salvage_it_hears_how_far_it_was_looked_through() {
    let dir = tempfile::tempdir().unwrap();
    let unmerged = LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() };
    let log = Log::open(dir.path(), unmerged, clock()).unwrap();
    for text in ["a", "b", "c"] {
        append(&log, batch("s", &[text, text]));
    }
    log.close().unwrap();
    let mut heard = Vec::new();
    let reader = Log::open_damaged(dir.path(), &mut |seq, head| heard.push((seq.0, head.0))).unwrap();
    assert_eq!(heard, [(2, 6), (4, 6), (6, 6)]);
    assert_eq!(contents(&reader), ["a", "a", "b", "b", "c", "c"]);
}

#[test]
fn a_stopped_log_is_read_by_several_and_written_by_nobody_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Log::open_read_only(dir.path()), Err(OpenError::Missing { .. })));
    let log = open(dir.path()).unwrap();
    append(&log, batch("a", &["x"]));
    log.close().unwrap();
    let readers = [Log::open_read_only(dir.path()).unwrap(), Log::open_read_only(dir.path()).unwrap()];
    for reader in &readers {
        assert_eq!(contents(reader), ["x"]);
        reader.verify(&mut |_| ()).unwrap();
    }
    assert!(matches!(open(dir.path()), Err(OpenError::Locked { pid: 0, .. })));
    drop(readers);
    open(dir.path()).unwrap();
}

#[test]
fn a_copy_of_a_log_without_its_lock_file_is_readable() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = open(dir.path()).unwrap();
    append(&log, batch("a", &["x"]));
    log.close().unwrap();
    fs::copy(dir.path().join("events.redb"), copy.path().join("events.redb")).unwrap();
    assert_eq!(contents(&Log::open_read_only(copy.path()).unwrap()), ["x"]);
}

/// Opens a directory after `change`; the error's text with the directory taken out.
#[track_caller]
fn check(change: impl FnOnce(&Path), then: &str) {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    append(&log, batch("a", &["x"]));
    log.close().unwrap();
    change(dir.path());
    let content = || fs::read(dir.path().join("events.redb")).ok().map(|bytes| blake3::hash(&bytes));
    let before = content();
    let error = open(dir.path()).expect_err(then);
    assert_eq!(error.to_string().replace(&dir.path().display().to_string(), "DIR"), then);
    assert_eq!(content(), before, "a refused opening changed the file");
}

#[test]
fn nothing_starts_an_empty_log_beside_a_broken_or_lost_one() {
    let damaged = "DIR/events.redb is damaged or no log of Caxton's; restore it from a backup";
    let log = |dir: &Path| dir.join("events.redb");
    check(|dir| fs::write(log(dir), b"").unwrap(), damaged);
    check(|dir| fs::write(log(dir), b"not a log, but a text that somebody put here").unwrap(), damaged);
    check(|dir| fs::write(log(dir), vec![0; 1 << 16]).unwrap(), damaged);
    check(
        |dir| {
            fs::remove_file(log(dir)).unwrap();
            drop(redb::Database::create(log(dir)).unwrap());
        },
        damaged,
    );
    let file = |dir: &Path| fs::OpenOptions::new().write(true).open(log(dir)).unwrap();
    check(|dir| file(dir).set_len(8_192).unwrap(), damaged);
    check(
        |dir| fs::remove_file(log(dir)).unwrap(),
        "DIR holds events.id but no events.redb; restore it from a backup, or choose an empty directory",
    );
    check(
        |dir| {
            fs::remove_file(log(dir)).unwrap();
            fs::rename(dir.join("events.id"), dir.join("memory.sqlite")).unwrap();
        },
        "DIR holds memory.sqlite but no events.redb; restore it from a backup, or choose an empty directory",
    );
}

fn set_format(dir: &Path, format: u32) {
    let file = fs::File::options().read(true).write(true).open(dir.join("events.redb")).unwrap();
    let medium = redb::backends::FileBackend::new(file).unwrap();
    let journal = Journal::open(Box::new(medium), true).unwrap();
    let database = redb::Database::builder().create_with_backend(journal.backend()).unwrap();
    let transaction = database.begin_write().unwrap();
    let table = redb::TableDefinition::<&str, &[u8]>::new("meta");
    transaction.open_table(table).unwrap().insert("format", format.to_le_bytes().as_slice()).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn a_log_of_another_format_is_refused_by_name() {
    check(|dir| set_format(dir, 5), "DIR/events.redb has format 5, this Caxton knows 4; use a newer Caxton");
    check(
        |dir| set_format(dir, 1),
        "DIR/events.redb has format 1, this Caxton knows 2; export the memory with the Caxton that wrote it and import \
         it into an empty directory",
    );
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    // A file where a directory should be, and a lock that cannot be opened: the same for root, who may write anywhere.
    let error = open(&file).unwrap_err();
    assert!(matches!(&error, OpenError::Io { path, .. } if *path == file), "{error:?}");
    fs::create_dir(dir.path().join("LOCK")).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(&error, OpenError::Io { path, .. } if path.ends_with("LOCK")), "{error:?}");
    assert!(error.to_string().ends_with("LOCK (is the directory writable, and is there space?)"), "{error}");
}

#[test]
fn a_directory_that_is_made_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let [made, there] = ["above/made", "there"].map(|name| dir.path().join(name));
    fs::create_dir(&there).unwrap();
    fs::set_permissions(&there, fs::Permissions::from_mode(0o755)).unwrap();
    for (data, mode) in [(made, 0o700), (there, 0o755)] {
        drop(open(&data).unwrap());
        assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, mode, "{}", data.display());
    }
}

#[test]
fn a_creation_that_was_cut_short_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("events.redb.new"), b"half of it").unwrap();
    let log = open(dir.path()).unwrap();
    append(&log, batch("a", &["x"]));
    assert!(!dir.path().join("events.redb.new").exists());
}

#[test]
fn an_id_that_a_power_cut_left_without_its_content_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let id = dir.path().join("events.id");
    let then = fs::read(&id).unwrap();
    for left in [&b""[..], &[0; 33], &then[..7]] {
        fs::write(&id, left).unwrap();
        drop(open(dir.path()).unwrap());
        assert_eq!(fs::read(&id).unwrap(), then);
    }
    assert!(!dir.path().join("events.id.new").exists());
}
