//! Erasing scopes: their rows, their files, the vectors of texts that nobody has any more, and those of other models.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use caxton_events::{Record, Seq, Subject};

use crate::embedding::embedder::guarded;
use crate::embedding::store::{Slot, StoreError};
use crate::graph::{GraphReader, ReadError};
use crate::projection::ApplyError;
use crate::shred::{shred, shred_in};
use crate::vector::Vectors;
use crate::vector::fold::{Changes, FoldError, Pace, Plan};
use crate::vector::shared::Cell;
use crate::vector::state::{SaveError, index_path, state_path};

/// Why vectors may still be in files.
#[derive(Debug, thiserror::Error)]
pub enum ScrubError {
    /// The texts that are left could not be read.
    #[error("could not read which texts are left")]
    Texts(#[source] ReadError),
    /// The store could not be written.
    #[error("could not take vectors out of their store")]
    Store(#[source] StoreError),
    /// A file could not be removed.
    #[error("could not remove a file of vectors")]
    File(#[source] io::Error),
    /// What is left could not be saved.
    #[error("could not save the vectors that are left")]
    Save(#[source] SaveError),
}

impl Vectors {
    /// Folds records among which is no order to erase; the cells that changed.
    pub(super) fn fold_part(&mut self, records: &[Record]) -> Result<Vec<Arc<Cell>>, ApplyError> {
        let panicked = |what| Err(self.not_stored(FoldError::Panicked { what }));
        // Nothing is changed before all of it is ready, so that a panic leaves nothing half done.
        let changes = guarded(|| self.planned(records)).unwrap_or_else(panicked);
        self.pace = if changes.is_ok() { Pace::AtOnce } else { Pace::Careful };
        let changes = changes?;
        Ok(changes.make(&mut self.entities, self.shared.options.index_from))
    }

    /// What the records change, with its vectors.
    fn planned(&self, records: &[Record]) -> Result<Changes, ApplyError> {
        let mut plan = Plan::new(&self.shared, self.embedder.as_ref(), &self.entities);
        for record in records {
            match plan.add(record) {
                Err(ApplyError::Unknown { .. }) if self.gaps => (),
                added => added?,
            }
        }
        plan.resolve(self.pace).map_err(|source| self.not_stored(source))
    }

    fn not_stored(&self, source: FoldError) -> ApplyError {
        ApplyError::Store { after: self.shared.checkpoint(), source: Box::new(source) }
    }

    /// Takes the scopes among `subjects` out, and the names of types that nothing else has, as folding the order to erase them
    /// does. It need not be folded before: where the log shows nothing of them up to the order, there is nothing left to take out
    /// when it is.
    pub fn forget(&mut self, subjects: &[Subject]) {
        let mut any = false;
        for scope in subjects.iter().filter_map(Subject::scope) {
            any |= self.shared.remove(scope).is_some();
            self.entities.retain(|_, entity| entity.cell.scope != *scope);
        }
        if any {
            let mut used: HashSet<u32> = self.entities.values().map(|entity| entity.kind).collect();
            for cell in self.shared.cells() {
                let view = cell.view();
                for slab in [&view.slab, &view.closed] {
                    used.extend((0..slab.rows).map(|row| {
                        let (block, at) = slab.locate(row);
                        block.kinds[at]
                    }));
                }
                used.extend(view.past.iter().map(|was| was.kind));
            }
            self.shared.keep_kinds(&used);
        }
    }

    /// Leaves in the files only what the present and the past in `graph` have, of which `erased` are no part any more, and what the
    /// rows here have. Texts of the graph that are not folded yet keep their vectors. Blocks; searches go on.
    ///
    /// # Errors
    ///
    /// [`ScrubError`]; try again.
    pub fn scrub(&mut self, graph: &GraphReader, erased: &[Subject]) -> Result<(), ScrubError> {
        let store = self.shared.store.clone();
        let mut keep: HashSet<Slot> = HashSet::new();
        let embedder = Arc::clone(&self.embedder);
        graph
            .each_text(&mut |text| {
                // A text that has a vector was one piece when it got it.
                match store.get_slot(text) {
                    Some(slot) => keep.extend([slot]),
                    // One that cannot be cut has vectors where it has rows, which follow.
                    None => keep.extend(
                        guarded(|| embedder.chunk(text))
                            .unwrap_or_default()
                            .into_iter()
                            .filter_map(|range| store.get_slot(&text[range])),
                    ),
                }
            })
            .map_err(ScrubError::Texts)?;
        for cell in self.shared.cells() {
            let view = cell.view();
            for slab in [&view.slab, &view.closed] {
                keep.extend((0..slab.rows).map(|row| {
                    let (block, at) = slab.locate(row);
                    block.slots[at]
                }));
            }
        }
        // What was saved before does not fit the store from here on.
        (self.saved, self.unsaved) = (Seq::ZERO, self.unsaved.max(1));
        store.keep_only(&keep).map_err(ScrubError::Store)?;
        for scope in erased.iter().filter_map(Subject::scope) {
            // Also where the scope was written again since: the file may still be the one over what is erased.
            shred(&index_path(&self.dir, scope)).map_err(ScrubError::File)?;
            if let Some(index) = self.shared.cell(scope).and_then(|cell| cell.view().index.clone()) {
                index.saved.store(false, Ordering::Relaxed);
            }
        }
        self.remove_stale(erased)?;
        shred(&state_path(&self.dir)).map_err(ScrubError::File)?;
        self.save().map_err(ScrubError::Save)
    }

    /// Removes the saved indexes: the rows that they are over are not gone on with.
    ///
    /// # Errors
    ///
    /// What the system said; some may be gone.
    pub fn remove_indexes(&self) -> io::Result<()> {
        shred_in(&self.dir, is_index)
    }

    /// Removes what an earlier process wrote and this one does not go on with: it may hold what is erased.
    fn remove_stale(&self, erased: &[Subject]) -> Result<(), ScrubError> {
        let scopes = self.shared.cells();
        let known: HashSet<PathBuf> = scopes.iter().map(|cell| index_path(&self.dir, &cell.scope)).collect();
        let is_stale = |name: &str| {
            let is_half = Path::new(name).extension().is_some_and(|ending| ending == "tmp");
            is_half || is_index(name) && !known.contains(&self.dir.join(name))
        };
        shred_in(&self.dir, is_stale).map_err(ScrubError::File)?;
        // Vectors are of what scopes hold; other models' are computed again, at a price.
        if erased.iter().any(|subject| subject.scope().is_some()) {
            self.shared.store.remove_others().map_err(ScrubError::Store)?;
        }
        Ok(())
    }
}

/// Whether a file of this name is an index.
fn is_index(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "hnsw")
}
