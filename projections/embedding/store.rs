//! Vectors on disk, found by their text: what a model said once is never asked again.
//!
//! A model has two files, named by the first 16 hex digits of [`ModelIdentity::vectors_key`]: of its weights' SHA-256, and
//! of another where it computes with fewer than 32 bits, so that vectors of different precisions never meet.
//!
//! ```text
//! <name>.keys  header 64 B | record 32 B | record 32 B | …
//!   header     magic "CAXVKEY1" | version: u32 LE | dimensions: u32 LE | vectors key: 32 B | synced: u32 LE
//!              | zero: 4 B | check of the 56 bytes before: 8 B
//!   record     key: first 16 B of BLAKE3(text) | check of the vector: 8 B | check of key, vector check, slot: 8 B
//! <name>.vecs  vector 1,536 B (384 × f32 LE) | vector | … | zeros up to a multiple of 12 MiB
//! ```
//!
//! Slot n is record n and vector n. Checks are the first bytes of a BLAKE3 hash. Records are only appended. Writes
//! are not synced one by one, because every vector can be computed again; [`VectorStore::sync`] raises `synced`, and
//! opening verifies every vector behind that mark, cuts the tail off at the last good one, and lowers the mark to it.

mod erase;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use caxton_events::log::hash_each;
use memmap2::{Mmap, MmapOptions};

use crate::embedding::{DIMENSIONS, ModelIdentity};

/// A vector as the store holds it.
pub type Vector = [f32; DIMENSIONS];

const VECTOR_BYTES: usize = DIMENSIONS * size_of::<f32>();
/// Vectors a mapping covers: 12 MiB, a whole number of pages.
const EXTENT_ROWS: usize = 8_192;
const EXTENT_BYTES: usize = EXTENT_ROWS * VECTOR_BYTES;
/// Vectors whose checks are made side by side: the lanes of the widest vector unit.
const CHECKED_TOGETHER: usize = 16;
const MAGIC: &[u8; 8] = b"CAXVKEY1";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
const RECORD_BYTES: usize = 32;
/// Key and check of a slot whose vector was taken out.
const EMPTY_KEY: u128 = 0;
const EMPTY: u64 = 0;
/// How far from 1 the squared length of a vector may be.
const LENGTH_TOLERANCE: f64 = 2e-3;

// Vectors are mapped, not decoded. On a big-endian machine they would read as nonsense.
const _: () = assert!(cfg!(target_endian = "little"), "the vector store needs a little-endian machine");

/// Place of a vector in its store, from 0. Means nothing in another store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// Why the store could not be opened, read or extended.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The medium refused. What was put before is still there.
    #[error("could not {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The model's vectors have another width than this build's.
    #[error("the model {model} makes vectors of {dimensions} numbers, this build works with {DIMENSIONS}")]
    Dimensions {
        /// The model's name.
        model: String,
        /// Its width.
        dimensions: usize,
    },
    /// The weights' hash is not 64 hex digits.
    #[error("{text:?} is no SHA-256 of model weights; 64 hex digits are needed")]
    Identity {
        /// What was given.
        text: String,
    },
    /// Not 384 finite numbers of length 1. Nothing was stored.
    #[error(
        "a vector needs {DIMENSIONS} finite numbers and length 1; this one has {numbers}, squared length {squared}"
    )]
    Vector {
        /// How many numbers it has.
        numbers: usize,
        /// Its squared length; NaN when a number is not finite.
        squared: f64,
    },
    /// All 4,294,967,295 slots are taken.
    #[error(
        "the vector store is full; remove its files while the server is stopped, and it fills with what is needed"
    )]
    Full,
}

/// What opening found, for the operator's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Opened {
    /// Vectors that can be found.
    pub vectors: usize,
    /// Records at the end that were cut off: torn or unverified when the machine stopped.
    pub cut: usize,
    /// Records in the middle that no longer verify and will be computed again when needed.
    pub damaged: usize,
    /// Where the records went if the files could not be used at all; the vectors lie beside them.
    pub set_aside: Option<PathBuf>,
}

/// A key is a hash already: its first eight bytes will do.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

/// What is known of every slot.
#[derive(Default)]
struct Catalogue {
    slots: HashMap<u128, Slot, BuildHasherDefault<KeyHasher>>,
    /// By slot: the check of its vector.
    checks: Vec<u64>,
    /// One bit a slot: record and vector were emptied, on disk. Slots behind the last word were not.
    emptied: Vec<u64>,
}

struct Writer {
    keys: File,
    vecs: File,
    header: [u8; HEADER_BYTES],
}

struct Inner {
    keys_path: PathBuf,
    vecs_path: PathBuf,
    opened: Opened,
    catalogue: RwLock<Catalogue>,
    extents: RwLock<Arc<Vec<Arc<Mmap>>>>,
    writer: Mutex<Writer>,
}

/// The vectors of one model. Clones share the files; one process may hold them at a time.
#[derive(Clone)]
pub struct VectorStore {
    inner: Arc<Inner>,
}

/// The vectors that were there when the view was taken: reading from it takes no lock.
#[derive(Clone)]
pub struct StoreView {
    extents: Arc<Vec<Arc<Mmap>>>,
}

impl StoreView {
    /// The vector at `slot`, unverified; `None` when the slot is beyond the view.
    #[expect(
        clippy::cast_ptr_alignment,
        reason = "mappings start at a page and vectors are 1,536 bytes long"
    )]
    pub fn vector(&self, slot: Slot) -> Option<&Vector> {
        let extent = self.extents.get(slot.0 as usize / EXTENT_ROWS)?;
        let start = slot.0 as usize % EXTENT_ROWS * VECTOR_BYTES;
        let bytes = extent.get(start..start + VECTOR_BYTES)?;
        let vector = bytes.as_ptr().cast::<Vector>();
        // SAFETY: `bytes` is VECTOR_BYTES long, which is the size of a `Vector`. A mapping starts at a page and
        // vectors are 1,536 bytes long, so the pointer is aligned to four bytes. Every bit pattern is an f32. The
        // borrow of `self` keeps the mapping alive. A slot is handed out after its bytes were written, and only
        // `keep_only` writes them again: zeros, through the file. As with every mapped file nothing in the language
        // keeps them still for who reads a vector at that moment. It gets numbers of before, zeros or some of both,
        // each of them an f32, and callers hold them against a check or a code before they rely on them.
        Some(unsafe { &*vector })
    }
}

impl VectorStore {
    /// Opens the store of `model` in `dir`, or creates it. Files that cannot be used are set aside, see [`Opened`].
    ///
    /// # Errors
    ///
    /// [`StoreError::Dimensions`] and [`StoreError::Identity`] for a model this build cannot store,
    /// [`StoreError::Io`] when the medium refuses.
    pub fn open(dir: &Path, model: &ModelIdentity) -> Result<Self, StoreError> {
        if model.dimensions != DIMENSIONS {
            return Err(StoreError::Dimensions { model: model.name.clone(), dimensions: model.dimensions });
        }
        let key = model.vectors_key();
        let header = header_of(&key)?;
        let name = &key[..16];
        let (keys_path, vecs_path) = (dir.join(format!("{name}.keys")), dir.join(format!("{name}.vecs")));
        fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let mut opened = Opened::default();
        let mut keys = open_file(&keys_path)?;
        let mut bytes = fs::read(&keys_path).map_err(io_error("read", &keys_path))?;
        if !bytes.is_empty() && synced_of(&bytes, &header).is_none() {
            opened.set_aside = Some(set_aside(&keys_path, &vecs_path)?);
            keys = open_file(&keys_path)?;
            bytes.clear();
        }
        if bytes.is_empty() {
            keys.write_all_at(&header, 0).map_err(io_error("write", &keys_path))?;
            bytes.extend_from_slice(&header);
        }
        let vecs = open_file(&vecs_path)?;
        let synced = synced_of(&bytes, &header).unwrap_or(0);
        let vecs_len = vecs.metadata().map_err(io_error("measure", &vecs_path))?.len() as usize;
        let records = ((bytes.len() - HEADER_BYTES) / RECORD_BYTES).min(vecs_len / VECTOR_BYTES);
        let mut extents = Vec::new();
        for extent in 0..records.div_ceil(EXTENT_ROWS) {
            extents.push(map_extent(&vecs, &vecs_path, extent)?);
        }
        let view = StoreView { extents: Arc::new(extents) };
        let catalogue = read_records(&bytes[HEADER_BYTES..], records, synced, &view, &mut opened);
        keys.set_len((HEADER_BYTES + catalogue.checks.len() * RECORD_BYTES) as u64)
            .map_err(io_error("cut the tail off", &keys_path))?;
        let mut header = header;
        header.copy_from_slice(&bytes[..HEADER_BYTES]);
        if synced as usize > catalogue.checks.len() {
            // What takes the places of those that were lost is not on disk because they were.
            set_synced(&mut header, catalogue.checks.len());
            keys.write_all_at(&header, 0).map_err(io_error("write", &keys_path))?;
            keys.sync_data().map_err(io_error("sync", &keys_path))?;
        }
        Ok(Self {
            inner: Arc::new(Inner {
                keys_path,
                vecs_path,
                opened,
                catalogue: RwLock::new(catalogue),
                extents: RwLock::new(view.extents),
                writer: Mutex::new(Writer { keys, vecs, header }),
            }),
        })
    }

    /// What opening found.
    pub fn opened(&self) -> &Opened {
        &self.inner.opened
    }

    /// Where the vector of `text` is, if it was ever put.
    pub fn get_slot(&self, text: &str) -> Option<Slot> {
        read(&self.inner.catalogue).slots.get(&key_of(text)).copied()
    }

    /// The vectors so far. Later ones need another view.
    pub fn view(&self) -> StoreView {
        StoreView { extents: Arc::clone(&read(&self.inner.extents)) }
    }

    /// The vector at `slot` if it is as it was written; `None` when it is damaged or was never put.
    pub fn vector(&self, slot: Slot) -> Option<Vector> {
        let check = *read(&self.inner.catalogue).checks.get(slot.0 as usize)?;
        let vector = *self.view().vector(slot)?;
        (check_of(&bytes_of(&vector)) == check).then_some(vector)
    }

    /// Gives `each` the number of each slot, and what [`vector`](Self::vector) says of it where that is a vector: the
    /// same, but checked side by side in a sixth of the time.
    pub fn each_vector(&self, slots: &[Option<Slot>], mut each: impl FnMut(usize, &Vector)) {
        let mut vectors = Vec::with_capacity(CHECKED_TOGETHER);
        let mut bytes = Vec::with_capacity(CHECKED_TOGETHER);
        for (group, slots) in slots.chunks(CHECKED_TOGETHER).enumerate() {
            vectors.clear();
            {
                let catalogue = read(&self.inner.catalogue);
                let view = self.view();
                let known = slots.iter().enumerate().filter_map(|(at, slot)| {
                    let check = *catalogue.checks.get((*slot)?.0 as usize)?;
                    Some((group * CHECKED_TOGETHER + at, check, *view.vector((*slot)?)?))
                });
                vectors.extend(known);
            }
            bytes.clear();
            bytes.extend(vectors.iter().map(|(_, _, vector)| bytes_of(vector)));
            let inputs: Vec<&[u8]> = bytes.iter().map(<[u8; VECTOR_BYTES]>::as_slice).collect();
            for ((number, check, vector), hash) in vectors.iter().zip(hash_each(&inputs)) {
                if first_word(&hash.0) == *check {
                    each(*number, vector);
                }
            }
        }
    }

    /// Keeps the vector of `text`. A text that has an intact one keeps it; a damaged one is replaced.
    ///
    /// It survives the end of the process at once and a power cut after [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// [`StoreError::Vector`] for anything but a unit vector, [`StoreError::Full`], and [`StoreError::Io`] when the
    /// medium refuses; then nothing was stored.
    pub fn put(&self, text: &str, vector: &[f32]) -> Result<Slot, StoreError> {
        let squared: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let (Ok(vector), true) = (Vector::try_from(vector), (squared - 1.0).abs() <= LENGTH_TOLERANCE) else {
            let squared = if squared.is_finite() { squared } else { f64::NAN };
            return Err(StoreError::Vector { numbers: vector.len(), squared });
        };
        let key = key_of(text);
        let writer = lock(&self.inner.writer);
        let known = read(&self.inner.catalogue).slots.get(&key).copied();
        if let Some(slot) = known.filter(|&slot| self.vector(slot).is_some()) {
            return Ok(slot);
        }
        let index = self.len();
        let slot = Slot(u32::try_from(index).ok().filter(|&index| index < u32::MAX).ok_or(StoreError::Full)?);
        self.make_room(&writer, index)?;
        let bytes = bytes_of(&vector);
        let check = check_of(&bytes);
        let (keys_path, vecs_path) = (&self.inner.keys_path, &self.inner.vecs_path);
        let vector_at = (index * VECTOR_BYTES) as u64;
        let record_at = (HEADER_BYTES + index * RECORD_BYTES) as u64;
        writer.vecs.write_all_at(&bytes, vector_at).map_err(io_error("write", vecs_path))?;
        writer
            .keys
            .write_all_at(&record_of(key, check, slot), record_at)
            .map_err(io_error("write", keys_path))?;
        let mut catalogue = write(&self.inner.catalogue);
        catalogue.slots.insert(key, slot);
        catalogue.checks.push(check);
        Ok(slot)
    }

    /// Slots taken, damaged ones included.
    pub fn len(&self) -> usize {
        read(&self.inner.catalogue).checks.len()
    }

    /// Whether nothing was ever put.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A hash of the first `len` records: whoever keeps slots can tell whether they still mean the same.
    /// `None` when there are fewer.
    pub fn digest(&self, len: usize) -> Option<[u8; 32]> {
        let catalogue = read(&self.inner.catalogue);
        let mut hasher = blake3::Hasher::new();
        for check in catalogue.checks.get(..len)? {
            hasher.update(&check.to_le_bytes());
        }
        Some(*hasher.finalize().as_bytes())
    }

    /// Makes everything put so far survive a power cut.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`] when the medium refuses; what is synced then is what was synced before.
    pub fn sync(&self) -> Result<(), StoreError> {
        let mut writer = lock(&self.inner.writer);
        let (keys_path, vecs_path) = (&self.inner.keys_path, &self.inner.vecs_path);
        let mut header = writer.header;
        set_synced(&mut header, self.len());
        if header == writer.header {
            return Ok(());
        }
        writer.vecs.sync_data().map_err(io_error("sync", vecs_path))?;
        writer.keys.sync_data().map_err(io_error("sync", keys_path))?;
        writer.keys.write_all_at(&header, 0).map_err(io_error("write", keys_path))?;
        writer.keys.sync_data().map_err(io_error("sync", keys_path))?;
        writer.header = header;
        Ok(())
    }

    /// Extends the vectors' file and maps the new part, when `index` is beyond it.
    fn make_room(&self, writer: &MutexGuard<'_, Writer>, index: usize) -> Result<(), StoreError> {
        let extent = index / EXTENT_ROWS;
        let mapped = self.view().extents;
        if extent < mapped.len() {
            return Ok(());
        }
        let added = map_extent(&writer.vecs, &self.inner.vecs_path, extent)?;
        let mut extents = Vec::clone(&mapped);
        extents.push(added);
        *write(&self.inner.extents) = Arc::new(extents);
        Ok(())
    }
}

impl std::fmt::Debug for VectorStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VectorStore").field("keys", &self.inner.keys_path).field("len", &self.len()).finish()
    }
}

/// Reads the records, verifies the vectors behind `synced`, drops what cannot be used from the end.
fn read_records(
    bytes: &[u8],
    records: usize,
    synced: u32,
    view: &StoreView,
    opened: &mut Opened,
) -> Catalogue {
    let mut found = Vec::with_capacity(records);
    for (index, record) in bytes.chunks_exact(RECORD_BYTES).take(records).enumerate() {
        let slot = Slot(index as u32);
        let key = u128::from_le_bytes(std::array::from_fn(|i| record[i]));
        let check = u64::from_le_bytes(std::array::from_fn(|i| record[16 + i]));
        let intact = record_of(key, check, slot) == record
            && (slot.0 < synced
                || (key, check) == (EMPTY_KEY, EMPTY)
                || view.vector(slot).is_some_and(|vector| check_of(&bytes_of(vector)) == check));
        found.push(intact.then_some((key, check)));
    }
    let kept = found.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
    opened.cut = bytes.len().div_ceil(RECORD_BYTES) - kept;
    let mut catalogue = Catalogue::default();
    catalogue.slots.reserve(kept);
    catalogue.checks.reserve(kept);
    for (index, record) in found.into_iter().take(kept).enumerate() {
        if let Some((key, check)) = record {
            if (key, check) == (EMPTY_KEY, EMPTY) {
                catalogue.note_emptied(index);
            } else {
                catalogue.slots.insert(key, Slot(index as u32));
            }
            catalogue.checks.push(check);
        } else {
            opened.damaged += 1;
            catalogue.checks.push(0);
        }
    }
    opened.vectors = catalogue.slots.len();
    catalogue
}

/// Maps extent number `extent`, after extending the file to its end.
fn map_extent(vecs: &File, path: &Path, extent: usize) -> Result<Arc<Mmap>, StoreError> {
    let (start, end) = (extent * EXTENT_BYTES, (extent + 1) * EXTENT_BYTES);
    if vecs.metadata().map_err(io_error("measure", path))?.len() < end as u64 {
        vecs.set_len(end as u64).map_err(io_error("extend", path))?;
    }
    // SAFETY: the data directory's lock keeps other processes away, and this process never shortens the file. It writes
    // to a slot again that was handed out only to empty it: `StoreView::vector` says what its readers see then.
    let mapped = unsafe { MmapOptions::new().offset(start as u64).len(EXTENT_BYTES).map(vecs) };
    Ok(Arc::new(mapped.map_err(io_error("map", path))?))
}

/// Renames files that cannot be used; where that of the records is now. The vectors go first: without their records, those of
/// the next store would come before them in the same file, and nobody would know of the rest.
fn set_aside(keys_path: &Path, vecs_path: &Path) -> Result<PathBuf, StoreError> {
    match fs::rename(vecs_path, vecs_path.with_extension("vecs.damaged")) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("set aside", vecs_path)(source));
        }
        Ok(()) | Err(_) => (),
    }
    let aside = keys_path.with_extension("keys.damaged");
    fs::rename(keys_path, &aside).map_err(io_error("set aside", keys_path))?;
    Ok(aside)
}

fn open_file(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(io_error("open", path))
}

/// The header of an empty store of the model whose vectors are kept under `key`.
fn header_of(key: &str) -> Result<[u8; HEADER_BYTES], StoreError> {
    let hex = key.as_bytes();
    let digit = |at: usize| char::from(hex[at]).to_digit(16);
    if hex.len() != 64 || (0..64).any(|at| digit(at).is_none()) {
        return Err(StoreError::Identity { text: key.chars().take(80).collect() });
    }
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&(DIMENSIONS as u32).to_le_bytes());
    for (at, byte) in header[16..48].iter_mut().enumerate() {
        *byte = (digit(at * 2).unwrap_or(0) << 4 | digit(at * 2 + 1).unwrap_or(0)) as u8;
    }
    seal_header(&mut header);
    Ok(header)
}

/// Raises or lowers the mark up to which vectors are believed to be on disk.
fn set_synced(header: &mut [u8; HEADER_BYTES], synced: usize) {
    header[48..52].copy_from_slice(&(synced as u32).to_le_bytes());
    seal_header(header);
}

fn seal_header(header: &mut [u8; HEADER_BYTES]) {
    let check = check_of(&header[..56]);
    header[56..].copy_from_slice(&check.to_le_bytes());
}

/// The `synced` mark of a file that starts with `bytes`; `None` when its header is damaged or of another model.
fn synced_of(bytes: &[u8], empty: &[u8; HEADER_BYTES]) -> Option<u32> {
    let header = bytes.get(..HEADER_BYTES)?;
    if header[..48] != empty[..48] || header[56..] != check_of(&header[..56]).to_le_bytes() {
        return None;
    }
    Some(u32::from_le_bytes(std::array::from_fn(|i| header[48 + i])))
}

fn record_of(key: u128, check: u64, slot: Slot) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..16].copy_from_slice(&key.to_le_bytes());
    record[16..24].copy_from_slice(&check.to_le_bytes());
    // The slot's number stands where the check will be, so that the check covers it too.
    record[24..].copy_from_slice(&u64::from(slot.0).to_le_bytes());
    let own = check_of(&record);
    record[24..].copy_from_slice(&own.to_le_bytes());
    record
}

fn key_of(text: &str) -> u128 {
    let hash = blake3::hash(text.as_bytes());
    u128::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[i]))
}

fn check_of(bytes: &[u8]) -> u64 {
    first_word(blake3::hash(bytes).as_bytes())
}

fn first_word(hash: &[u8; 32]) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| hash[i]))
}

fn bytes_of(vector: &Vector) -> [u8; VECTOR_BYTES] {
    let mut bytes = [0; VECTOR_BYTES];
    for (to, number) in bytes.chunks_exact_mut(4).zip(vector) {
        to.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Io { action, path, source }
}

// A panic while one of these locks was held leaves at worst a record that is not in the catalogue yet; the next put
// overwrites it. So a poisoned lock is as good as any.
fn lock(writer: &Mutex<Writer>) -> MutexGuard<'_, Writer> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
