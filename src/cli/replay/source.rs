//! The log that is replayed: that of a stopped directory, or of a backup, which is put together in a folder beside it meanwhile.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use caxton_events::Clock as _;
use caxton_events::log::Reader;
use caxton_tools::backup::{RestoreOptions, Until, restore};
use tempfile::TempDir;

use crate::cli::args::Common;
use crate::cli::backup::not_restored;
use crate::cli::failure::{Exit, Failure};
use crate::cli::interrupt::Open;
use crate::cli::progress::Progress;
use crate::cli::{log, setup};
use crate::engine::SystemClock;

/// An open log.
pub(super) struct Source {
    pub(super) reader: Reader,
    /// The directory that it lies in.
    pub(super) dir: PathBuf,
    /// Removes what was made of a backup, once nobody reads it any more.
    _made: Option<Open>,
}

impl Source {
    /// Opens the log of the data directory, or of the backup that is named for one.
    pub(super) fn open(common: &Common) -> Result<Self, Failure> {
        let named = setup::named_dir(common)?;
        if !setup::is_backup(&named) {
            return Ok(Self { reader: log::open(common)?, dir: named, _made: None });
        }
        let folder = beside(&named)?;
        let dir = folder.path().join("data");
        let open = Open::closed_by(move || {
            // What cannot be removed has a name that says what it is.
            let _ = folder.close();
            "what was made of the backup is removed".to_owned()
        });
        // There is nobody to tell that nobody can be told.
        let _ = writeln!(
            io::stderr(),
            "caxton: {} is a backup: its log lies in {} for as long as it is replayed",
            named.display(),
            dir.display()
        );
        put_together(&named, &dir, common)?;
        let made = Common { data_dir: Some(dir.clone()), ..common.clone() };
        Ok(Self { reader: log::open(&made)?, dir, _made: Some(open) })
    }
}

/// A folder of its own beside the backup, where there is as much room as for that.
fn beside(backup: &Path) -> Result<TempDir, Failure> {
    // The last name of a path may be a dot.
    let whole = backup.canonicalize().unwrap_or_else(|_| backup.to_owned());
    let parent = whole.parent().unwrap_or(Path::new("."));
    TempDir::with_prefix_in("caxton-replay-", parent).map_err(|error| {
        let (parent, backup) = (parent.display(), backup.display());
        let message = format!(
            "could not make a folder in {parent} for the log of the backup: {error}; restore it where there is room, with `caxton \
             restore --from {backup} --to DIR`, and replay DIR"
        );
        Failure::new(Exit::Failed, message)
    })
}

fn put_together(backup: &Path, dir: &Path, common: &Common) -> Result<(), Failure> {
    let options = RestoreOptions {
        until: Until::End,
        force: false,
        // The whole log keeps its own.
        new_log_id: [0; 16],
        keys: None,
        at: SystemClock.now(),
    };
    let mut progress = Progress::new("putting the log together", "events", !common.no_progress);
    let done = restore(backup, dir, &options, &mut |at, of| progress.set(at.0, of.0));
    drop(progress);
    done.map(|_| ()).map_err(|error| not_restored(&error))
}
