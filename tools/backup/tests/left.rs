//! What is in the folder of a backup and is none of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::super::{ReceiveError, begin, read_manifest};
use super::{Fixture, files, problems};

/// Files with their names in them.
fn put(dir: &Path, names: &[&str]) {
    for name in names {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
}

#[track_caller]
fn are_there(dir: &Path, names: &[&str]) {
    for name in names {
        assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), *name);
    }
}

#[test]
fn a_folder_with_names_like_those_of_a_backup_is_none_and_stays_as_it_is() {
    for names in [
        &["log/notes.txt"][..],
        &["LOCK", "log/notes.txt"],
        &["LOCK", "log/more/000000000001-0.run"],
        &["LOCK", "log/000000000001-0.run", "files/2024/beach.jpg"],
        &["LOCK", "files/1"],
        &["LOCK/file"],
        &["log/000000000001-0.run", "files/1/FORMAT"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), names);
        assert!(matches!(begin(dir.path()).err(), Some(ReceiveError::Foreign { .. })), "{names:?}");
        are_there(dir.path(), names);
    }
    let (dir, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(dir.path(), &["LOCK"]);
    symlink(away.path(), dir.path().join("log")).unwrap();
    assert!(matches!(begin(dir.path()).err(), Some(ReceiveError::Foreign { .. })));
}

#[test]
fn what_attempts_left_is_removed_and_what_others_put_there_is_not() {
    let fixture = Fixture::new();
    fixture.append(3);
    let (backup, away) = (fixture.backup(), fixture.dir.path().join("away"));
    put(&backup, &["LOCK", "manifest.json.part", "log/000000000001-7.run", "files/1/agents/deep/old.md"]);
    fixture.add();
    assert_eq!(files(&backup).len(), read_manifest(&backup).unwrap().parts.len() + 2);
    let theirs = ["log/notes.txt", "log/more/000000000001-0.run", "files/notes.txt", "files/2024/beach.jpg"];
    put(&backup, &theirs);
    put(&away, &["000000000001-0.run", "photo"]);
    for link in ["log/away", "files/1/away"] {
        symlink(&away, backup.join(link)).unwrap();
    }
    put(&backup, &["log/000000000004-7.run", "files/2/old.md"]);
    fixture.append(2);
    fixture.add();
    are_there(&backup, &theirs);
    are_there(&away, &["000000000001-0.run", "photo"]);
    for left in ["log/000000000004-7.run", "files/2/old.md", "files/1/FORMAT"] {
        assert!(!backup.join(left).exists(), "{left}");
    }
    assert_eq!(problems(&backup), []);
}
