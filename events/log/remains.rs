//! Opening what is left of a damaged log: by its trees, or, where these lead to less than there is, by its leaves.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use redb::StorageBackend;

use crate::id::Seq;
use crate::log::beside::id_beside;
use crate::log::journal::Journal;
use crate::log::leaves::gather;
use crate::log::open::{End, OpenError, Opened, builder, check, existing, medium, store_error};
use crate::log::origin::ORIGIN_FILE;
use crate::log::salvage::delivered;
use crate::log::scan::ReadError;
use crate::log::store::{Own, ReadOnly, StoreError, guarded};

/// Opens the file in `dir` for reading as it is, whatever is wrong with it and whether it was closed in order or not. It
/// stays as it is. `progress` hears how far the events of the log were looked for, and how many there should be; a damaged log is
/// looked through more than once.
pub(crate) fn open_file_damaged(
    dir: &Path,
    cache_bytes: usize,
    progress: &mut dyn FnMut(Seq, Seq),
) -> Result<Opened, OpenError> {
    let path = existing(dir)?;
    let log_id = id_beside(dir);
    let origin = fs::read(dir.join(ORIGIN_FILE)).ok();
    let medium = || medium(File::open(&path).map_err(StoreError::Io)?);
    let damaged = Damaged { path: &path, dir: Some(dir), log_id, origin, cache_bytes };
    damaged.open(medium, progress)
}

/// Opens what is left of a log on a medium of the caller's.
#[cfg(test)]
pub(crate) fn open_backend_damaged<B: StorageBackend + Clone>(
    backend: &B,
    log_id: [u8; 16],
) -> Result<Opened, OpenError> {
    let (log_id, origin) = (Some(log_id), None);
    let damaged = Damaged { path: Path::new("(backend)"), dir: None, log_id, origin, cache_bytes: 1 << 20 };
    damaged.open(|| Ok(Box::new(backend.clone())), &mut |_, _| ())
}

/// The same by its trees alone: what a test takes away from them may still lie about.
#[cfg(test)]
pub(crate) fn open_backend_by_trees<B: StorageBackend + Clone>(backend: &B) -> Result<Opened, OpenError> {
    let (log_id, origin) = (None, None);
    let damaged = Damaged { path: Path::new("(backend)"), dir: None, log_id, origin, cache_bytes: 1 << 20 };
    damaged.by_trees(&Journal::open_remains(Box::new(backend.clone())).unwrap())
}

/// A log of which something may be left.
struct Damaged<'a> {
    path: &'a Path,
    dir: Option<&'a Path>,
    /// Its id, if that is known from elsewhere.
    log_id: Option<[u8; 16]>,
    /// What it says about its beginning, in the copy beside it.
    origin: Option<Vec<u8>>,
    cache_bytes: usize,
}

impl Damaged<'_> {
    fn open(
        &self,
        medium: impl Fn() -> Result<Box<dyn StorageBackend>, StoreError>,
        progress: &mut dyn FnMut(Seq, Seq),
    ) -> Result<Opened, OpenError> {
        let journal = guarded(|| Journal::open_remains(medium()?).map_err(StoreError::Io));
        let journal = journal.map_err(|error| store_error(self.path, error))?;
        let by_trees = self.by_trees(&journal);
        let found = match &by_trees {
            Ok(opened) => {
                let (found, lost) = counts(opened, progress);
                // Where the trees do not lead to the end, nobody knows how much is lost.
                if opened.database.stored_seq().is_err() || !self.opens_strictly(&medium) {
                    journal.note_damage();
                }
                if lost == 0 && journal.missing_bytes() == 0 && !journal.is_damaged() {
                    return by_trees;
                }
                found
            }
            Err(OpenError::Damaged { .. } | OpenError::Store { .. }) => 0,
            Err(_) => return by_trees,
        };
        let records = guarded(|| Journal::open_records(medium()?).map_err(StoreError::Io)).ok();
        match self.by_leaves(&journal, records) {
            Ok(opened) if counts(&opened, progress).0 > found => Ok(opened),
            // Opened anew: a page that could not be read keeps redb from reading any other.
            Ok(_) | Err(_) => self.by_trees(&journal),
        }
    }

    /// Whether it is no log that others refuse: one that was not closed in order is none.
    fn opens_strictly(&self, medium: &impl Fn() -> Result<Box<dyn StorageBackend>, StoreError>) -> bool {
        let journal = guarded(|| Journal::open(medium()?, false).map_err(StoreError::Io));
        let Ok(journal) = journal else { return false };
        let opened =
            guarded(|| match builder(self.cache_bytes).open_read_only_with_backend(journal.backend()) {
                Ok(database) => Ok(Some(database)),
                Err(redb::DatabaseError::RepairAborted) => Ok(None),
                Err(error) => Err(error.into()),
            });
        let Ok(Some(database)) = opened else { return opened.is_ok() };
        let own = Own::ReadOnly(ReadOnly::new(database, &journal));
        let checked = match check(own, &journal, self.path, self.dir, End::Right) {
            Ok(checked) => checked.opened(),
            // A block that is not what was written is named when it is read.
            Err(OpenError::Damaged { source, .. }) => return !matches!(source, ReadError::Store(_)),
            Err(_) => return false,
        };
        let keys = checked.database.snapshot(Seq(u64::MAX)).map_err(ReadError::from);
        keys.and_then(|snapshot| snapshot.each_own_key(&mut |_, _| Ok::<_, ReadError>(()))).is_ok()
    }

    fn by_trees(&self, journal: &Arc<Journal>) -> Result<Opened, OpenError> {
        let database = guarded(|| {
            Ok(builder(self.cache_bytes)
                .set_concurrency_mode(redb::ConcurrencyMode::SingleWriter)
                .open_read_only_with_backend(journal.remains())?)
        });
        let database = database.map_err(|error| store_error(self.path, error))?;
        self.check(ReadOnly::new(database, journal), journal)
    }

    /// What lies in the file, and what lay in places of it that `records` have pages of.
    fn by_leaves(&self, journal: &Arc<Journal>, records: Option<Arc<Journal>>) -> Result<Opened, OpenError> {
        let journals: Vec<Arc<Journal>> = [Arc::clone(journal)].into_iter().chain(records).collect();
        let gathered = guarded(|| gather(&journals, self.log_id, self.origin.clone()))
            .map_err(|error| store_error(self.path, error))?;
        self.check(ReadOnly::gathered(gathered, journal), journal)
    }

    fn check(&self, own: ReadOnly, journal: &Journal) -> Result<Opened, OpenError> {
        Ok(check(Own::ReadOnly(own), journal, self.path, self.dir, End::Damaged(self.log_id))?.opened())
    }
}

/// How many events of a log lie in blocks that are there, and how many do not.
fn counts(opened: &Opened, progress: &mut dyn FnMut(Seq, Seq)) -> (u64, u64) {
    let head = Seq(opened.end.frontier.count());
    opened.database.snapshot(head).map_or((0, 1), |snapshot| delivered(snapshot, head, progress))
}
