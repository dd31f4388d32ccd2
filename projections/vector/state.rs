//! The projection on disk: rows, entities and checkpoint in one sealed file, an HNSW index a file beside it.
//!
//! ```text
//! vectors.state  version: u32 LE | projection version: u32 | checkpoint: u64 | past from: u64
//!                | 1 and the root of the log at the checkpoint: 32 B; or 0 where nobody said which log the records are of
//!                | model: 64 B of hex
//!                | store length: u64 | digest of the store up to there: 32 B
//!                | types: u32, each a text | scopes: u32, each a text, what its entities were: u32, each until: u64,
//!                type: u32, from: u64, to: u64, before: u32; rows: u32 and its blocks by column, and the same of the
//!                rows that were changed or removed
//!                | entities: u64, each id: u64, scope: u32, type: u32, from: u64, to: u64
//! *.hnsw         rows: u32 | digest of the model and these rows: 32 B | what usearch wrote
//! ```
//! A text is its length as u32 LE and its bytes.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use caxton_events::log::{Hash, ProveError};
use caxton_events::{MemoryId, Scope, Seq};

use crate::embedding::store::{Slot, StoreError, VectorStore};
use crate::embedding::{DIMENSIONS, ModelIdentity};
use crate::projection::Stored;
use crate::vector::PROJECTION_VERSION;
use crate::vector::files::{
    Content, FileError, Sink, array, nonsense, put_text, read_sealed, remove, text_of, u32_of, u64_of,
    write_sealed,
};
use crate::vector::fold::EntityRow;
use crate::vector::index::{Hnsw, IndexError, IndexSettings};
use crate::vector::past::{Past, Told, Was};
use crate::vector::quantise::Code;
use crate::vector::shared::{Cell, Kinds, View};
use crate::vector::slab::{BLOCK_ROWS, Block, RowKey, Slab, Span, Spans};

const STATE_MAGIC: [u8; 8] = *b"CAXVSTA1";
const INDEX_MAGIC: [u8; 8] = *b"CAXHNSW1";
const FORMAT: u32 = 5;
/// Longest text in the file: a scope or a type.
const TEXT_BYTES_MAX: usize = 4_096;
/// Bytes of a row on disk, without its spans.
const ROW_BYTES: u64 = DIMENSIONS as u64 + 40;

/// Why the state was not saved. What was saved before is still there.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// A file could not be written.
    #[error("could not save the vectors' state")]
    File(#[from] FileError),
    /// The vectors themselves could not be synced.
    #[error("could not save the vectors")]
    Store(#[from] StoreError),
    /// usearch could not write its index.
    #[error("could not save the vectors' index")]
    Index(#[from] IndexError),
    /// The log could not say what it was at the checkpoint.
    #[error("could not read from the log which records the vectors are of")]
    Log(#[from] ProveError),
}

/// Why saved state was not used: it is folded anew.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file cannot be read or is damaged.
    #[error("could not read the vectors' state")]
    File(#[from] FileError),
    /// Written by another version of the projection.
    #[error(
        "the vectors' state is of format {format}, version {version}; this build reads {FORMAT}, {PROJECTION_VERSION}"
    )]
    Version {
        /// Of the file.
        format: u32,
        /// Of the fold.
        version: u32,
    },
    /// Made with other weights.
    #[error("the vectors' state was made with another model or precision ({found}, now {expected})")]
    Model {
        /// SHA-256 of the weights then.
        found: String,
        /// SHA-256 of the weights now.
        expected: String,
    },
    /// The vector store is not the one the rows point into.
    #[error("the vector store is not the one the state was saved with")]
    Store,
    /// The log has other records up to the checkpoint: it is another one, or lost its end and went on.
    #[error("the vectors' state was folded from other records than the log has up to {checkpoint}")]
    OtherLog {
        /// Of the file.
        checkpoint: Seq,
    },
    /// Written before states said which records they are of.
    #[error("the vectors' state does not say which records it was folded from")]
    NoLog,
}

/// Everything a fold needs to go on.
pub(crate) struct Loaded {
    pub(crate) checkpoint: Seq,
    pub(crate) past_from: Seq,
    /// Of the log at the checkpoint, where that was known.
    pub(crate) root: Option<Hash>,
    pub(crate) kinds: Kinds,
    pub(crate) cells: Vec<Cell>,
    /// By entity: which of `cells`, type and time.
    pub(crate) entities: Vec<(MemoryId, u32, u32, Span)>,
}

/// A moment of the projection, to be written whenever and on whichever thread suits: see [`Snapshot::write`].
pub struct Snapshot {
    pub(crate) dir: PathBuf,
    pub(crate) store: VectorStore,
    pub(crate) model: String,
    pub(crate) checkpoint: Seq,
    pub(crate) past_from: Seq,
    /// Of the log at the checkpoint, where there is a log.
    pub(crate) root: Option<Hash>,
    pub(crate) kinds: Kinds,
    pub(crate) views: Vec<(Scope, Arc<View>)>,
    pub(crate) entities: HashMap<MemoryId, EntityRow>,
    /// Living rows of a scope below which it has no index.
    pub(crate) indexed_from: u32,
}

/// Where the state of a projection in `dir` is.
pub(crate) fn state_path(dir: &Path) -> PathBuf {
    dir.join("vectors.state")
}

/// Where the index of `scope` is.
pub(crate) fn index_path(dir: &Path, scope: &Scope) -> PathBuf {
    let hash = blake3::hash(scope.to_string().as_bytes()).to_hex();
    dir.join(format!("{}.hnsw", &hash[..16]))
}

impl Snapshot {
    /// The last record it includes.
    pub fn checkpoint(&self) -> Seq {
        self.checkpoint
    }

    /// Writes the state, and each index that no file holds yet, and removes those of scopes that have become too small for one. A
    /// crash leaves the old files or the new ones.
    ///
    /// # Errors
    ///
    /// [`SaveError`]; what was saved before is still there.
    pub fn write(&self) -> Result<(), SaveError> {
        self.store.sync()?;
        // Taken after the sync: slots of this snapshot are below.
        let store_len = self.store.len();
        let digest = self.store.digest(store_len).unwrap_or_default();
        write_sealed(&state_path(&self.dir), STATE_MAGIC, |sink| {
            sink.write_all(&FORMAT.to_le_bytes())?;
            sink.write_all(&PROJECTION_VERSION.to_le_bytes())?;
            sink.write_all(&self.checkpoint.0.to_le_bytes())?;
            sink.write_all(&self.past_from.0.to_le_bytes())?;
            sink.write_all(&[u8::from(self.root.is_some())])?;
            if let Some(root) = self.root {
                sink.write_all(&root.0)?;
            }
            put_text(sink, &self.model)?;
            sink.write_all(&(store_len as u64).to_le_bytes())?;
            sink.write_all(&digest)?;
            self.put_content(sink)
        })?;
        for (scope, view) in &self.views {
            match &view.index {
                Some(index) if !index.saved.load(Ordering::Relaxed) => {
                    self.write_index(scope, &view.slab, index)?;
                }
                // That of a larger scope is about to be read, after a start.
                None if view.slab.alive() < self.indexed_from => remove(&index_path(&self.dir, scope))?,
                Some(_) | None => (),
            }
        }
        Ok(())
    }

    fn put_content(&self, sink: &mut Sink) -> io::Result<()> {
        sink.write_all(&(self.kinds.names.len() as u32).to_le_bytes())?;
        for name in &self.kinds.names {
            put_text(sink, name)?;
        }
        sink.write_all(&(self.views.len() as u32).to_le_bytes())?;
        let mut numbers = HashMap::new();
        for (number, (scope, view)) in self.views.iter().enumerate() {
            numbers.insert(scope, number as u32);
            put_text(sink, &scope.to_string())?;
            put_past(sink, &view.past)?;
            for slab in [&view.slab, &view.closed] {
                sink.write_all(&slab.rows.to_le_bytes())?;
                for block in &slab.blocks {
                    put_block(sink, block)?;
                }
            }
        }
        sink.write_all(&(self.entities.len() as u64).to_le_bytes())?;
        // In the order of ids, so that equal states are equal files.
        let mut entities: Vec<_> = self.entities.iter().collect();
        entities.sort_unstable_by_key(|(id, _)| **id);
        for (id, entity) in entities {
            let scope = numbers.get(&entity.cell.scope).ok_or(nonsense("an entity has no scope"))?;
            sink.write_all(&id.0.to_le_bytes())?;
            sink.write_all(&scope.to_le_bytes())?;
            sink.write_all(&entity.kind.to_le_bytes())?;
            put_span(sink, entity.span)?;
        }
        Ok(())
    }

    fn write_index(&self, scope: &Scope, slab: &Slab, index: &Hnsw) -> Result<(), SaveError> {
        let bytes = index.bytes()?;
        write_sealed(&index_path(&self.dir, scope), INDEX_MAGIC, |sink| {
            sink.write_all(&index.rows().to_le_bytes())?;
            sink.write_all(&slab.digest(&self.model, index.rows()))?;
            sink.write_all(&bytes)
        })?;
        index.saved.store(true, Ordering::Relaxed);
        Ok(())
    }
}

fn put_block(sink: &mut Sink, block: &Block) -> io::Result<()> {
    for code in block.codes.iter() {
        sink.write_all(&code.0.map(|step| step as u8))?;
    }
    for at in 0..block.len() {
        sink.write_all(&block.keys[at].0.to_le_bytes())?;
        sink.write_all(&block.entities[at].0.to_le_bytes())?;
        sink.write_all(&block.scales[at].to_le_bytes())?;
        sink.write_all(&block.errors[at].to_le_bytes())?;
        sink.write_all(&block.kinds[at].to_le_bytes())?;
        sink.write_all(&block.slots[at].0.to_le_bytes())?;
        sink.write_all(&block.created[at].to_le_bytes())?;
    }
    sink.write_all(&[u8::from(!block.closed.is_empty())])?;
    for seq in &block.closed {
        sink.write_all(&seq.to_le_bytes())?;
    }
    for word in block.alive {
        sink.write_all(&word.to_le_bytes())?;
    }
    sink.write_all(&[u8::from(block.spans.is_some())])?;
    for Spans { own, entity, told } in block.spans.iter().flatten() {
        put_span(sink, *own)?;
        put_span(sink, *entity)?;
        sink.write_all(&told.0.to_le_bytes())?;
    }
    Ok(())
}

fn put_past(sink: &mut Sink, past: &Past) -> io::Result<()> {
    sink.write_all(&past.len().to_le_bytes())?;
    for Was { until, kind, span, before } in past.iter() {
        sink.write_all(&until.to_le_bytes())?;
        sink.write_all(&kind.to_le_bytes())?;
        put_span(sink, *span)?;
        sink.write_all(&before.0.to_le_bytes())?;
    }
    Ok(())
}

fn put_span(sink: &mut Sink, span: Span) -> io::Result<()> {
    sink.write_all(&span.from.to_le_bytes())?;
    sink.write_all(&span.to.to_le_bytes())
}

fn span_of(source: &mut Content) -> io::Result<Span> {
    Ok(Span { from: u64_of(source)?, to: u64_of(source)? })
}

fn past_of(source: &mut Content, kinds: u32) -> io::Result<Past> {
    let mut past = Past::default();
    for number in 0..u32_of(source)? {
        let (until, kind, span) = (u64_of(source)?, u32_of(source)?, span_of(source)?);
        let before = Told(u32_of(source)?);
        if kind >= kinds || before.0 > number {
            return Err(nonsense("an entity was what does not exist"));
        }
        past.push(Was { until, kind, span, before });
    }
    Ok(past)
}

/// How many types, vectors and entries of the past there are for rows to name.
#[derive(Clone, Copy)]
struct Named {
    kinds: u32,
    slots: u64,
    told: u32,
}

fn block_of(source: &mut Content, len: usize, named: Named) -> io::Result<Block> {
    let mut block = Block::default();
    for _ in 0..len {
        block.codes.push(Code(array::<DIMENSIONS>(source)?.map(|byte| byte as i8)));
    }
    let mut created = Vec::with_capacity(len);
    for _ in 0..len {
        block.keys.push(RowKey(u64_of(source)?));
        block.entities.push(MemoryId(u64_of(source)?));
        block.scales.push(f32::from_le_bytes(array(source)?));
        block.errors.push(f32::from_le_bytes(array(source)?));
        block.kinds.push(u32_of(source)?);
        block.slots.push(Slot(u32_of(source)?));
        created.push(u64_of(source)?);
    }
    let is_closed = array::<1>(source)?[0] == 1;
    for created in created {
        let closed = if is_closed { Some(u64_of(source)?) } else { None };
        block.push_records(created, closed);
    }
    block.seal_if_full();
    if block.kinds.iter().any(|&kind| kind >= named.kinds) {
        return Err(nonsense("a row has a type that does not exist"));
    }
    if block.slots.iter().any(|slot| u64::from(slot.0) >= named.slots) {
        return Err(nonsense("a row has a vector that does not exist"));
    }
    for word in &mut block.alive {
        *word = u64_of(source)?;
    }
    if array::<1>(source)?[0] == 1 {
        let spans = (0..len).map(|_| {
            Ok(Spans { own: span_of(source)?, entity: span_of(source)?, told: Told(u32_of(source)?) })
        });
        let spans: Vec<Spans> = spans.collect::<io::Result<_>>()?;
        if spans.iter().any(|spans| spans.told.0 > named.told) {
            return Err(nonsense("a row's entity has a past that does not exist"));
        }
        block.spans = Some(spans);
    }
    Ok(block)
}

fn slab_of(source: &mut Content, file_bytes: u64, named: Named) -> io::Result<Slab> {
    let rows = u32_of(source)?;
    if u64::from(rows) * ROW_BYTES > file_bytes {
        return Err(nonsense("there are more rows than bytes"));
    }
    let mut slab = Slab::default();
    let mut left = rows as usize;
    while left > 0 {
        let len = left.min(BLOCK_ROWS);
        let block = block_of(source, len, named)?;
        let alive = (0..BLOCK_ROWS).filter(|&at| block.is_alive(at)).count();
        slab.dead += (len.checked_sub(alive).ok_or(nonsense("more rows live than there are"))?) as u32;
        slab.push_block(block);
        left -= len;
    }
    Ok(slab)
}

/// What the file in `dir` says about itself; `None` where there is none. The whole of it is read: a file that is damaged says
/// nothing that can be relied on.
///
/// # Errors
///
/// [`FileError`] if it cannot be read or is not what was written.
pub fn stored(dir: &Path) -> Result<Option<Stored>, FileError> {
    read_sealed(&state_path(dir), STATE_MAGIC, |source, _| {
        let (_, version) = (u32_of(source)?, u32_of(source)?);
        let checkpoint = Seq(u64_of(source)?);
        io::copy(source, &mut io::sink())?;
        Ok(Stored { version, checkpoint })
    })
}

/// What [`Snapshot::write`] left in `dir`; `None` when there is nothing.
pub(crate) fn load(
    dir: &Path,
    model: &ModelIdentity,
    store: &VectorStore,
) -> Result<Option<Loaded>, StateError> {
    let mut refusal = None;
    let loaded = read_sealed(&state_path(dir), STATE_MAGIC, |source, file_bytes| {
        let (format, version) = (u32_of(source)?, u32_of(source)?);
        let checkpoint = Seq(u64_of(source)?);
        if format != FORMAT || version != PROJECTION_VERSION {
            refusal = Some(StateError::Version { format, version });
            return Err(nonsense("another version"));
        }
        let past_from = Seq(u64_of(source)?);
        let root = if array::<1>(source)?[0] == 1 { Some(Hash(array(source)?)) } else { None };
        let found = text_of(source, TEXT_BYTES_MAX)?;
        let expected = model.vectors_key();
        if found != expected {
            refusal = Some(StateError::Model { found, expected });
            return Err(nonsense("another model"));
        }
        let (slots, digest) = (u64_of(source)?, array::<32>(source)?);
        if store.digest(slots as usize) != Some(digest) {
            refusal = Some(StateError::Store);
            return Err(nonsense("another store"));
        }
        content_of(source, (checkpoint, past_from, root), (file_bytes, slots))
    });
    match (loaded, refusal) {
        (Err(FileError::Damaged { .. }), Some(refusal)) => Err(refusal),
        (loaded, _) => Ok(loaded?),
    }
}

fn content_of(
    source: &mut Content,
    (checkpoint, past_from, root): (Seq, Seq, Option<Hash>),
    (file_bytes, slots): (u64, u64),
) -> io::Result<Loaded> {
    let mut kinds = Kinds::default();
    for _ in 0..u32_of(source)? {
        kinds.push(&text_of(source, TEXT_BYTES_MAX)?);
    }
    let kinds_len = kinds.names.len() as u32;
    let mut cells = Vec::new();
    for _ in 0..u32_of(source)? {
        let scope = text_of(source, TEXT_BYTES_MAX)?;
        let scope = scope.parse().map_err(|_| nonsense("a scope has no name"))?;
        let past = past_of(source, kinds_len)?;
        let named = Named { kinds: kinds_len, slots, told: past.len() };
        let (slab, closed) = (slab_of(source, file_bytes, named)?, slab_of(source, file_bytes, named)?);
        cells.push(Cell::new(scope, View { slab, closed, past, index: None }));
    }
    let mut entities = Vec::new();
    for _ in 0..u64_of(source)? {
        let (id, cell, kind) = (MemoryId(u64_of(source)?), u32_of(source)?, u32_of(source)?);
        let span = span_of(source)?;
        if cell as usize >= cells.len() || kind >= kinds_len {
            return Err(nonsense("an entity has a scope or a type that does not exist"));
        }
        entities.push((id, cell, kind, span));
    }
    Ok(Loaded { checkpoint, past_from, root, kinds, cells, entities })
}

/// The saved index of `scope`, if there is one and it is over the first rows of `slab`, with vectors of `model`.
pub(crate) fn load_index(
    dir: &Path,
    model: &str,
    scope: &Scope,
    slab: &Slab,
    settings: IndexSettings,
) -> Result<Option<Hnsw>, SaveError> {
    let found = read_sealed(&index_path(dir, scope), INDEX_MAGIC, |source, _| {
        let (rows, digest) = (u32_of(source)?, array::<32>(source)?);
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes)?;
        Ok((rows, digest, bytes))
    })?;
    let Some((rows, digest, bytes)) = found else { return Ok(None) };
    if rows > slab.rows || slab.digest(model, rows) != digest {
        return Ok(None);
    }
    let index = Hnsw::read(&bytes, rows, rows as usize, settings)?;
    index.saved.store(true, Ordering::Relaxed);
    Ok(Some(index))
}
