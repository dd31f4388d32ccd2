//! Copies of the graph's file, for who exports it: made in the data directory, and without a name before anything of one is
//! read.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use caxton_projections::graph::ReadError;
use caxton_projections::shred::shred;

use super::Engine;

/// What the names of copies begin with, before their number.
const BEGIN: &str = "export-";
/// What they end with; `SQLite` may put a name of its own behind it.
const END: &str = ".tmp";

/// Copies that were begun: each has a name of its own.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The graph could not be read, or its copy not be written.
    #[error(transparent)]
    Graph(#[from] ReadError),
    /// What was written could not be opened.
    #[error("could not open a copy of the graph")]
    Open(#[source] io::Error),
}

impl Engine {
    /// The file of the graph as it is at one moment, past and present, without free pages. It has no name any more, so that
    /// nothing is left of it once it is closed. Blocks.
    ///
    /// # Errors
    ///
    /// [`CopyError`]; nothing is left of the copy.
    pub fn copy_graph(&self) -> Result<File, CopyError> {
        // An erasure takes copies that a killed process left away, and would take this one for such.
        let _named = self.inner.erasing.copying.read().unwrap_or_else(PoisonError::into_inner);
        let number = BEGUN.fetch_add(1, Ordering::Relaxed);
        let path = self.data_dir().join(format!("{BEGIN}{number}{END}"));
        let copied = self.view().graph().copy_into(&path);
        let opened =
            copied.map_err(CopyError::from).and_then(|()| File::open(&path).map_err(CopyError::Open));
        // What was not made has no file; what was is open.
        let _ = fs::remove_file(&path);
        opened
    }
}

/// Overwrites and removes the copies that a process left which was killed while it made them.
///
/// # Errors
///
/// What the system said.
pub(super) fn remove(data_dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(data_dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_copy = name.to_string_lossy().strip_prefix(BEGIN).is_some_and(|rest| rest.contains(END));
        if is_copy {
            shred(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs;
    use std::path::{Path, PathBuf};

    use caxton_events::conversation::{Content, Performative};

    use super::{Engine, remove};
    use crate::commands::talk::{Outgoing, To, Upkeep};
    use crate::engine::EngineOptions;
    use crate::engine::erase::Asked;

    /// Leaves a copy as a killed process does; a second name by which its bytes can be looked at.
    fn left(dir: &Path, name: &str) -> PathBuf {
        let kept = dir.join("kept");
        let _ = fs::remove_file(&kept);
        fs::write(dir.join(name), vec![7; 10_000]).unwrap();
        fs::hard_link(dir.join(name), &kept).unwrap();
        kept
    }

    #[track_caller]
    fn check_gone(dir: &Path, name: &str, kept: &Path) {
        assert!(!dir.join(name).exists(), "{name}");
        assert_eq!(fs::read(kept).unwrap(), vec![0; 10_000], "{name}");
    }

    #[test]
    fn copies_that_a_killed_process_left_go_at_the_start_and_with_every_erasure() {
        let dir = tempfile::tempdir().unwrap();
        let kept = left(dir.path(), "export-3.tmp");
        let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| {}).unwrap();
        check_gone(dir.path(), "export-3.tmp", &kept);
        let bob = "bob".parse().unwrap();
        let register = Upkeep::RegisterAgent { agent: bob, workspace: "lab".parse().unwrap() };
        engine.upkeep_blocking(&"bob".parse().unwrap(), register).unwrap();
        let (to, content) = (To::Agents(vec!["bob".parse().unwrap()]), Content::Text("hi".to_owned()));
        let wish = Outgoing::new("ada".parse().unwrap(), Performative::Inform, to, content);
        let sent = engine.send_blocking(wish).unwrap();
        let kept = left(dir.path(), "export-9.tmp");
        engine.erase(&Asked::Conversation(sent.conversation), None, (None, "test".to_owned())).unwrap();
        check_gone(dir.path(), "export-9.tmp", &kept);
        // One that is made now is whole, and leaves no name.
        let copy = engine.copy_graph().unwrap();
        assert!(copy.metadata().unwrap().len() > 0);
        let mut names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.all(|name| !name.to_string_lossy().starts_with("export-")));
        engine.stop();
        for name in ["export-1.tmp-journal", "export-12.tmp"] {
            let kept = left(dir.path(), name);
            remove(dir.path()).unwrap();
            check_gone(dir.path(), name, &kept);
        }
        fs::write(dir.path().join("export-of-mine"), "stays").unwrap();
        remove(dir.path()).unwrap();
        assert!(dir.path().join("export-of-mine").exists());
    }
}
