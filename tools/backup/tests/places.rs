//! Where nothing can be restored to.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::super::{RestoreError, RestoreOptions, Until, restore};
use super::{Fixture, NOW};

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
