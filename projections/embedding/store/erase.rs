//! Vectors taken out of their files, so that nothing of them stays on disk.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{
    Catalogue, EMPTY, EMPTY_KEY, HEADER_BYTES, RECORD_BYTES, Slot, StoreError, VECTOR_BYTES, VectorStore,
    io_error, lock, read, record_of, write,
};
use crate::shred::shred_in;

/// Bytes looked at together behind the last vector.
const EMPTIED_BYTES: usize = 1 << 20;
/// Vectors overwritten together.
const RUN_ROWS_MAX: usize = EMPTIED_BYTES / VECTOR_BYTES;
/// How names of files end that hold vectors, or say where they are.
const ENDINGS: [&str; 3] = [".keys", ".vecs", ".damaged"];

impl VectorStore {
    /// Overwrites every vector and its record but those in `keep`, and what lies behind the last one, on disk when this returns.
    /// Their slots stay empty; whoever keeps slots must save anew, because [`digest`](Self::digest) has changed. What was emptied
    /// before is left alone. Nothing is put meanwhile; who looks for a vector does not wait.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] when the medium refuses: some may still be there.
    pub fn keep_only(&self, keep: &HashSet<Slot>) -> Result<(), StoreError> {
        self.sync()?;
        let (keys_path, vecs_path) = (&self.inner.keys_path, &self.inner.vecs_path);
        let writer = lock(&self.inner.writer);
        let runs = self.leaving(keep);
        let zeros = vec![0; RUN_ROWS_MAX * VECTOR_BYTES];
        for run in &runs {
            writer
                .vecs
                .write_all_at(&zeros[..run.len() * VECTOR_BYTES], (run.start * VECTOR_BYTES) as u64)
                .map_err(io_error("write", vecs_path))?;
        }
        empty_from(&writer.vecs, (self.len() * VECTOR_BYTES) as u64).map_err(io_error("write", vecs_path))?;
        // Before the records: one that is empty says that its vector is.
        writer.vecs.sync_data().map_err(io_error("sync", vecs_path))?;
        for run in &runs {
            let records: Vec<u8> =
                run.clone().flat_map(|index| record_of(EMPTY_KEY, EMPTY, Slot(index as u32))).collect();
            writer
                .keys
                .write_all_at(&records, (HEADER_BYTES + run.start * RECORD_BYTES) as u64)
                .map_err(io_error("write", keys_path))?;
            write(&self.inner.catalogue).checks[run.clone()].fill(EMPTY);
        }
        writer.keys.sync_data().map_err(io_error("sync", keys_path))?;
        let mut catalogue = write(&self.inner.catalogue);
        catalogue.slots.retain(|_, slot| keep.contains(slot));
        runs.into_iter().flatten().for_each(|index| catalogue.note_emptied(index));
        Ok(())
    }

    /// Slots that are not kept and were not emptied yet, in runs of neighbours.
    fn leaving(&self, keep: &HashSet<Slot>) -> Vec<Range<usize>> {
        let catalogue = read(&self.inner.catalogue);
        let mut runs: Vec<Range<usize>> = Vec::new();
        for index in 0..catalogue.checks.len() {
            if catalogue.is_emptied(index) || keep.contains(&Slot(index as u32)) {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.end == index && run.len() < RUN_ROWS_MAX => run.end += 1,
                Some(_) | None => runs.push(index..index + 1),
            }
        }
        runs
    }

    /// Overwrites and removes what lies beside the files of this store: vectors of other models and precisions, and files that
    /// were set aside. On disk when this returns.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] when the medium refuses: some may still be there.
    pub fn remove_others(&self) -> Result<(), StoreError> {
        let own = [&self.inner.keys_path, &self.inner.vecs_path];
        let is_own = |name: &str| own.iter().any(|path| path.file_name().is_some_and(|own| own == name));
        let dir = self.inner.keys_path.parent().unwrap_or(Path::new("."));
        shred_in(dir, |name| ENDINGS.iter().any(|ending| name.ends_with(*ending)) && !is_own(name))
            .map_err(io_error("remove vectors of other models from", dir))
    }
}

impl Catalogue {
    fn is_emptied(&self, index: usize) -> bool {
        self.emptied.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    pub(super) fn note_emptied(&mut self, index: usize) {
        if self.emptied.len() <= index / 64 {
            self.emptied.resize(index / 64 + 1, 0);
        }
        self.emptied[index / 64] |= 1 << (index % 64);
    }
}

/// Overwrites what lies in a file from `start` on: records that were cut off leave their vectors there. What reads as zeros is
/// left alone, so that holes take no room.
fn empty_from(file: &File, start: u64) -> io::Result<()> {
    let (mut at, end) = (start, file.metadata()?.len());
    let mut bytes = vec![0; EMPTIED_BYTES];
    while at < end {
        let some = &mut bytes[..(end - at).min(EMPTIED_BYTES as u64) as usize];
        file.read_exact_at(some, at)?;
        if some.iter().any(|byte| *byte != 0) {
            some.fill(0);
            file.write_all_at(some, at)?;
        }
        at += some.len() as u64;
    }
    Ok(())
}
