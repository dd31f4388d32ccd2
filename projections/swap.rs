//! A projection's folder replaced as a whole: the new one is built beside it, and one rename puts it in place.
//!
//! ```text
//! graph/             in use
//! graph.rebuilding/  being built, or what a crash left of it
//! graph.old/         what was in use before, kept when asked for
//! ```
//!
//! SQLite keeps a journal beside its file, and both belong together: so folders are renamed, never files, and only while
//! nobody has them open. Where the system can exchange two names in one step, there is no moment without the projection;
//! elsewhere a crash between two renames leaves the old one under another name, and [`Place::settle`] puts it back. Nothing
//! here is told by a guess: what lies in `.rebuilding` is never taken for finished after a crash.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The folder of one projection in a data directory.
#[derive(Debug, Clone)]
pub struct Place {
    current: PathBuf,
}

/// What a crash had left beside a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settled {
    /// A folder that was being built was removed.
    pub removed: bool,
    /// The one in use before a swap was put back: the swap had not come to its end.
    pub restored: bool,
}

impl Place {
    /// The folder `name` in `data_dir`, whether it exists or not.
    pub fn new(data_dir: &Path, name: &str) -> Self {
        Self { current: data_dir.join(name) }
    }

    /// The folder in use.
    pub fn current(&self) -> &Path {
        &self.current
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        self.parent()
    }

    /// Where a new one is built.
    pub fn beside(&self) -> PathBuf {
        self.current.with_extension("rebuilding")
    }

    /// Where the one that was in use is kept.
    pub fn old(&self) -> PathBuf {
        self.current.with_extension("old")
    }

    /// Cleans up after a crash: what was half built goes, and the projection is in its place again. Whoever calls it
    /// holds the directory's lock, and builds nothing.
    ///
    /// # Errors
    ///
    /// What the system said; nothing that is in use was touched.
    pub fn settle(&self) -> io::Result<Settled> {
        let mut settled = Settled::default();
        if !self.current.try_exists()? && self.old().try_exists()? && self.beside().try_exists()? {
            fs::rename(self.old(), &self.current)?;
            settled.restored = true;
        }
        settled.removed = remove(&self.beside())?;
        if settled != Settled::default() {
            sync_dir(self.parent())?;
        }
        Ok(settled)
    }

    /// Makes the empty folder in which a new one is built.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn begin(&self) -> io::Result<PathBuf> {
        let beside = self.beside();
        remove(&beside)?;
        fs::create_dir_all(&beside)?;
        Ok(beside)
    }

    /// Removes what is being built.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn give_up(&self) -> io::Result<()> {
        remove(&self.beside()).map(|_| ())
    }

    /// Puts the new folder in place, once all its files are on disk; the one that was in use goes to
    /// [`old`](Self::old). Nobody may have a file of either one open.
    ///
    /// # Errors
    ///
    /// What the system said; the one that was in use still is.
    pub fn swap(&self) -> io::Result<()> {
        self.swap_by(&exchange, &mut || Ok(()))
    }

    /// The same with the system's means as given, and `step` before each change of a name: what it fails with is taken for
    /// the end of the process.
    fn swap_by(&self, exchange: Exchange<'_>, step: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let (beside, old) = (self.beside(), self.old());
        sync_files(&beside)?;
        step()?;
        remove(&old)?;
        step()?;
        if !self.current.try_exists()? {
            fs::rename(&beside, &self.current)?;
            return sync_dir(self.parent());
        }
        if exchange(&beside, &self.current)? {
            step()?;
            sync_dir(self.parent())?;
            fs::rename(&beside, &old)?;
        } else {
            fs::rename(&self.current, &old)?;
            step()?;
            if let Err(error) = fs::rename(&beside, &self.current) {
                fs::rename(&old, &self.current)?;
                return Err(error);
            }
        }
        step()?;
        sync_dir(self.parent())
    }

    /// Puts back the one that was in use before [`swap`](Self::swap), and removes the new one.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn undo(&self) -> io::Result<()> {
        let old = self.old();
        if !old.try_exists()? {
            return Ok(());
        }
        if exchange(&old, &self.current)? {
            remove(&old)?;
        } else {
            fs::rename(&self.current, self.beside())?;
            fs::rename(&old, &self.current)?;
            remove(&self.beside())?;
        }
        sync_dir(self.parent())
    }

    /// Removes the one that was in use before.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn discard_old(&self) -> io::Result<()> {
        remove(&self.old()).map(|_| ())
    }

    fn parent(&self) -> &Path {
        self.current.parent().unwrap_or(Path::new("."))
    }
}

/// Removes a folder with all it holds; whether there was one.
fn remove(dir: &Path) -> io::Result<bool> {
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits until everything in `dir` is on disk.
fn sync_files(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_files(&path)?;
        } else {
            File::open(path)?.sync_all()?;
        }
    }
    sync_dir(dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Exchanges two names in one step, or says that it cannot.
type Exchange<'a> = &'a dyn Fn(&Path, &Path) -> io::Result<bool>;

/// Exchanges two names in one step; `false` where the system or the file system cannot.
#[cfg(target_os = "linux")]
fn exchange(one: &Path, other: &Path) -> io::Result<bool> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs;
    use std::path::Path;

    use super::{Place, Settled, exchange};

    fn put(dir: &Path, what: &str) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("file"), what).unwrap();
    }

    fn held(dir: &Path) -> Option<String> {
        fs::read_to_string(dir.join("file")).ok()
    }

    #[test]
    fn a_swap_puts_the_new_in_place_and_keeps_the_old_until_it_is_discarded() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path(), "graph");
        put(place.current(), "old");
        put(&place.begin().unwrap(), "new");
        place.swap().unwrap();
        assert_eq!(held(place.current()).as_deref(), Some("new"));
        assert_eq!(held(&place.old()).as_deref(), Some("old"));
        assert!(!place.beside().exists());
        place.undo().unwrap();
        assert_eq!((held(place.current()).as_deref(), held(&place.old())), (Some("old"), None));
        put(&place.begin().unwrap(), "new");
        place.swap().unwrap();
        place.discard_old().unwrap();
        assert_eq!((held(place.current()).as_deref(), held(&place.old())), (Some("new"), None));
    }

    #[test]
    fn the_first_one_is_put_where_nothing_was() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path(), "graph");
        put(&place.begin().unwrap(), "new");
        place.swap().unwrap();
        assert_eq!(held(place.current()).as_deref(), Some("new"));
        assert!(!place.old().exists());
    }

    /// What lies in use, being built and kept; what is in use after the next start, and what that found.
    type Step = ([Option<&'static str>; 3], Option<&'static str>, Settled);

    /// The folders as a crash leaves them at each step, and what is in use after the next start.
    #[test]
    fn a_crash_at_any_step_leaves_the_old_or_the_new_in_use() {
        // In use, being built, kept: before the swap; exchanged; exchanged and renamed; without exchange: between the
        // two renames; after them; a kept one of an earlier rebuild with the one in use removed by hand.
        let steps: [Step; 6] = [
            ([Some("old"), Some("half"), None], Some("old"), Settled { removed: true, restored: false }),
            ([Some("new"), Some("old"), None], Some("new"), Settled { removed: true, restored: false }),
            ([Some("new"), None, Some("old")], Some("new"), Settled::default()),
            ([None, Some("new"), Some("old")], Some("old"), Settled { removed: true, restored: true }),
            ([Some("new"), None, Some("old")], Some("new"), Settled::default()),
            ([None, None, Some("old")], None, Settled::default()),
        ];
        for (folders, in_use, found) in steps {
            let dir = tempfile::tempdir().unwrap();
            let place = Place::new(dir.path(), "graph");
            for (what, at) in folders.iter().zip([place.current().to_owned(), place.beside(), place.old()]) {
                if let Some(what) = what {
                    put(&at, what);
                }
            }
            assert_eq!(place.settle().unwrap(), found, "{folders:?}");
            assert_eq!(held(place.current()).as_deref(), in_use, "{folders:?}");
            assert!(!place.beside().exists(), "{folders:?}");
            assert_eq!(place.settle().unwrap(), Settled::default(), "once is enough: {folders:?}");
        }
    }

    /// The process ends before each change of a name, with and without an exchange in one step, with and without one that is
    /// in use and one that was kept.
    #[test]
    fn a_swap_that_ends_at_any_step_leaves_the_old_or_the_new_in_use() {
        let cases = [(true, true), (true, false), (false, true), (false, false)];
        for (can_exchange, kept) in cases {
            let mut whole = false;
            for end in 0..10 {
                let dir = tempfile::tempdir().unwrap();
                let place = Place::new(dir.path(), "graph");
                put(place.current(), "old");
                put(&place.begin().unwrap(), "new");
                if kept {
                    put(&place.old(), "older");
                }
                let by =
                    |one: &Path, other: &Path| if can_exchange { exchange(one, other) } else { Ok(false) };
                let mut steps = 0;
                let ended = place.swap_by(&by, &mut || {
                    steps += 1;
                    if steps > end { Err(std::io::Error::other("the process ends")) } else { Ok(()) }
                });
                whole |= ended.is_ok();
                place.settle().unwrap();
                let in_use = held(place.current());
                assert!(
                    matches!(in_use.as_deref(), Some("old" | "new")),
                    "exchange {can_exchange}, step {end}: {in_use:?}"
                );
                assert!(ended.is_err() || in_use.as_deref() == Some("new"));
                assert!(!place.beside().exists());
                // The next one is put in place all the same.
                put(&place.begin().unwrap(), "newer");
                place.swap().unwrap();
                assert_eq!(held(place.current()).as_deref(), Some("newer"));
            }
            assert!(whole, "ten steps are more than there are");
        }
    }

    #[test]
    fn what_cannot_be_swapped_leaves_the_old_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path(), "graph");
        put(place.current(), "old");
        assert!(place.swap().is_err(), "nothing was built");
        assert_eq!(held(place.current()).as_deref(), Some("old"));
    }

    #[test]
    fn two_folders_change_places_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        put(&one, "1");
        put(&other, "2");
        if exchange(&one, &other).unwrap() {
            assert_eq!((held(&one).as_deref(), held(&other).as_deref()), (Some("2"), Some("1")));
        }
    }
}
