//! Vectors taken out of their files, so that nothing of them stays on disk.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::{
    EMPTY, EMPTY_KEY, HEADER_BYTES, RECORD_BYTES, Slot, StoreError, VECTOR_BYTES, VectorStore, io_error,
    lock, record_of, write,
};
use crate::shred::shred_in;

/// Bytes looked at together behind the last vector.
const EMPTIED_BYTES: usize = 1 << 20;
/// How names of files end that hold vectors, or say where they are.
const ENDINGS: [&str; 3] = [".keys", ".vecs", ".damaged"];

impl VectorStore {
    /// Overwrites every vector and its record but those in `keep`, and what lies behind the last one, on disk when this returns.
    /// Their slots stay empty; whoever keeps slots must save anew, because [`digest`](Self::digest) has changed.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] when the medium refuses: some may still be there.
    pub fn keep_only(&self, keep: &HashSet<Slot>) -> Result<(), StoreError> {
        self.sync()?;
        let (keys_path, vecs_path) = (&self.inner.keys_path, &self.inner.vecs_path);
        let writer = lock(&self.inner.writer);
        let mut catalogue = write(&self.inner.catalogue);
        for slot in (0..catalogue.checks.len()).map(|index| Slot(index as u32)) {
            if keep.contains(&slot) {
                continue;
            }
            let at = u64::from(slot.0);
            writer
                .vecs
                .write_all_at(&[0; VECTOR_BYTES], at * VECTOR_BYTES as u64)
                .map_err(io_error("write", vecs_path))?;
            writer
                .keys
                .write_all_at(
                    &record_of(EMPTY_KEY, EMPTY, slot),
                    HEADER_BYTES as u64 + at * RECORD_BYTES as u64,
                )
                .map_err(io_error("write", keys_path))?;
            catalogue.checks[slot.0 as usize] = EMPTY;
        }
        catalogue.slots.retain(|_, slot| keep.contains(slot));
        let end = (catalogue.checks.len() * VECTOR_BYTES) as u64;
        empty_from(&writer.vecs, end).map_err(io_error("write", vecs_path))?;
        writer.vecs.sync_data().map_err(io_error("sync", vecs_path))?;
        writer.keys.sync_data().map_err(io_error("sync", keys_path))
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
