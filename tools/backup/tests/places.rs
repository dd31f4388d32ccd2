//! Where nothing can be restored to, or not yet.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::super::{RestoreError, RestoreOptions, Until, restore};
use super::{Fixture, NOW, files};

#[test]
fn a_place_whose_name_no_directory_can_get_is_refused_before_anything_is_built() {
    let fixture = Fixture::new();
    fixture.append(3);
    fixture.add();
    let (empty, link) = (fixture.dir.path().join("empty"), fixture.dir.path().join("link"));
    fs::create_dir(&empty).unwrap();
    symlink(&empty, &link).unwrap();
    let places = [Path::new("/proc"), Path::new("."), Path::new("/"), &empty.join(".."), &link];
    for (to, force) in places.into_iter().flat_map(|to| [(to, false), (to, true)]) {
        let options = RestoreOptions { until: Until::End, force, new_log_id: [9; 16], keys: None, at: NOW };
        let refused = restore(&fixture.backup(), to, &options, &mut |_, _| ());
        let told = format!("{} {force}: {refused:?}", to.display());
        assert!(matches!(refused, Err(RestoreError::Unnamable { .. })), "{told}");
    }
    assert!(!fixture.dir.path().join("link.restoring").exists());
    fixture.restore("empty", Until::End).unwrap();
}

#[test]
fn what_others_put_beside_the_place_is_not_touched() {
    let fixture = Fixture::new();
    fixture.append(3);
    fixture.add();
    let beside = fixture.dir.path().join("other.restoring");
    fs::create_dir(&beside).unwrap();
    for name in ["photo", "LOCK"] {
        fs::write(beside.join(name), "x").unwrap();
        let there = files(&beside);
        let refused = fixture.restore("other", Until::End);
        assert!(matches!(refused, Err(RestoreError::InTheWay { .. })), "{refused:?}");
        assert_eq!(files(&beside), there);
    }
    // What a restore left that was killed says so.
    fs::write(beside.join("restored.json.part"), "half").unwrap();
    fixture.restore("other", Until::End).unwrap();
    let other = fixture.dir.path().join("other");
    assert!(!beside.exists() && !other.join("photo").exists() && !other.join("restored.json.part").exists());
}

#[test]
fn what_was_restored_whole_and_did_not_get_its_name_is_not_built_anew() {
    let fixture = Fixture::new();
    fixture.append(3);
    fixture.add();
    // As the end of the process before the names are changed leaves it.
    fixture.restore("other.restoring", Until::End).unwrap();
    let (beside, other) = (fixture.dir.path().join("other.restoring"), fixture.dir.path().join("other"));
    let there = files(&beside);
    let refused = fixture.restore("other", Until::End);
    assert!(matches!(refused, Err(RestoreError::Unnamed { .. })), "{refused:?}");
    assert!(files(&beside) == there && !other.exists());
    fs::rename(beside, other).unwrap();
    assert_eq!(fixture.open("other").head(), fixture.log.head());
}
