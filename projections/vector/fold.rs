//! From records to rows: what a batch changes is planned and embedded first, then done at once.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use caxton_events::{Event, MemoryEvent, MemoryId, Record, Scope, Seq};

use crate::embedding::store::{Slot, StoreError, Vector, VectorStore};
use crate::embedding::{EmbedError, Embedder};
use crate::projection::ApplyError;
use crate::vector::past::{Past, Told, Was};
use crate::vector::quantise::{Quantised, quantise};
use crate::vector::shared::{Cell, Links, Shared, View};
use crate::vector::slab::{BLOCK_ROWS, Row, RowKey, Slab, Span, Spans};

/// Why texts have no vectors.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The model failed.
    #[error("could not embed {texts} texts")]
    Embed {
        /// How many there were.
        texts: usize,
        /// What the model said.
        #[source]
        source: EmbedError,
    },
    /// The model answered with too few or too many vectors.
    #[error("the model gave {vectors} vectors for {texts} texts")]
    Count {
        /// Asked for.
        texts: usize,
        /// Given.
        vectors: usize,
    },
    /// The model or what cuts texts for it panicked, which is an error in it.
    #[error("the texts could not be cut or embedded, for a reason that was not foreseen: {what}")]
    Panicked {
        /// What it said.
        what: String,
    },
    /// The vector store refused one.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the fold must know of an entity when one of its observations comes.
#[derive(Clone)]
pub(crate) struct EntityRow {
    pub(crate) cell: Arc<Cell>,
    /// Number of its type.
    pub(crate) kind: u32,
    pub(crate) span: Span,
}

/// A change to one scope. Nothing about it can fail any more once its texts have vectors.
enum Step {
    /// The vectors of an observation or a header are these, whatever they were.
    Put { row: MemoryId, entity: MemoryId, kind: u32, spans: Spans, pieces: Range<usize> },
    /// All rows of the entity have another type or time.
    Describe { entity: MemoryId, kind: u32, span: Span },
    /// The observation is no more.
    Remove { row: MemoryId },
    /// The entity is no more.
    RemoveEntity { entity: MemoryId },
}

/// What a batch of records changes.
pub(crate) struct Plan<'a> {
    shared: &'a Shared,
    embedder: &'a dyn Embedder,
    entities: &'a HashMap<MemoryId, EntityRow>,
    /// Entities of the batch; `None`: removed by it.
    changed: HashMap<MemoryId, Option<EntityRow>>,
    steps: Steps,
    /// Texts to embed, each short enough for the model, and where the vectors are that are known.
    pieces: Vec<Piece<'a>>,
    /// The record that is taken in.
    seq: Seq,
}

/// Texts that go through the model together: the vectors of those before them are in the store by then, and need no model at the next
/// try, whatever cuts this one short.
const TOGETHER_TEXTS: usize = 1_024;
/// The same while the model fails over some.
const CAREFUL_TEXTS: usize = 64;

/// How many texts go through the model together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// [`TOGETHER_TEXTS`]: those of a length share passes, and every thread has some.
    AtOnce,
    /// [`CAREFUL_TEXTS`].
    Careful,
}

/// A text, and the place of its vector where that was looked up and found.
type Piece<'a> = (Cow<'a, str>, Option<Slot>);

/// Changes by scope, each with the record that makes it.
type Steps = BTreeMap<Scope, (Arc<Cell>, Vec<(Seq, Step)>)>;

impl<'a> Plan<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        embedder: &'a dyn Embedder,
        entities: &'a HashMap<MemoryId, EntityRow>,
    ) -> Self {
        let (changed, steps, pieces) = (HashMap::new(), BTreeMap::new(), Vec::new());
        Self { shared, embedder, entities, changed, steps, pieces, seq: Seq::ZERO }
    }

    /// Takes in one record.
    pub(crate) fn add(&mut self, record: &'a Record) -> Result<(), ApplyError> {
        self.seq = record.seq;
        match &record.event {
            Event::Memory(event) => self.add_memory(record.seq, event),
            Event::Agent(_) | Event::Conversation(_) | Event::Turn(_) | Event::System(_) => Ok(()),
        }
    }

    fn add_memory(&mut self, seq: Seq, event: &'a MemoryEvent) -> Result<(), ApplyError> {
        match event {
            MemoryEvent::EntityCreated { id, scope, name, entity_type, validity, .. } => {
                let cell = self.shared.cell_or_new(scope);
                let entity =
                    EntityRow { cell, kind: self.shared.kind(entity_type), span: Span::from(*validity) };
                self.put_header(*id, &entity, name, entity_type);
                self.changed.insert(*id, Some(entity));
            }
            MemoryEvent::EntityUpdated { id, name, entity_type, validity, .. } => {
                let before = self.entity(seq, *id)?;
                let (kind, span) = (self.shared.kind(entity_type), Span::from(*validity));
                let entity = EntityRow { cell: before.cell, kind, span };
                self.put_header(*id, &entity, name, entity_type);
                // Its rows are as it was: where that stays, none of all that it ever had need be looked at.
                if (before.kind, before.span) != (kind, span) {
                    self.step(&entity.cell, Step::Describe { entity: *id, kind, span });
                }
                self.changed.insert(*id, Some(entity));
            }
            MemoryEvent::EntityRestored { id, scope, name, entity_type, validity, .. } => {
                let cell = self.shared.cell_or_new(scope);
                let (kind, span) = (self.shared.kind(entity_type), Span::from(*validity));
                let entity = EntityRow { cell, kind, span };
                self.put_header(*id, &entity, name, entity_type);
                self.step(&entity.cell, Step::Describe { entity: *id, kind, span });
                self.changed.insert(*id, Some(entity));
            }
            MemoryEvent::EntityRemoved { id } => {
                let entity = self.entity(seq, *id)?;
                self.step(&entity.cell, Step::RemoveEntity { entity: *id });
                self.changed.insert(*id, None);
            }
            MemoryEvent::ObservationAdded { id, entity, content, validity }
            | MemoryEvent::ObservationUpdated { id, entity, content, validity }
            | MemoryEvent::ObservationRestored { id, entity, content, validity, .. } => {
                let owner = self.entity(seq, *entity)?;
                let pieces = self.pieces_of(Cow::Borrowed(content), RowKey::CHUNKS_MAX);
                self.put(*id, *entity, &owner, Span::from(*validity), pieces);
            }
            MemoryEvent::ObservationRemoved { id, entity } => {
                let owner = self.entity(seq, *entity)?;
                self.step(&owner.cell, Step::Remove { row: *id });
            }
            MemoryEvent::RelationCreated { .. }
            | MemoryEvent::RelationUpdated { .. }
            | MemoryEvent::RelationRestored { .. }
            | MemoryEvent::RelationRemoved { .. }
            | MemoryEvent::Undone { .. } => (),
        }
        Ok(())
    }

    fn entity(&self, seq: Seq, id: MemoryId) -> Result<EntityRow, ApplyError> {
        let known = match self.changed.get(&id) {
            Some(changed) => changed.as_ref(),
            None => self.entities.get(&id),
        };
        known.cloned().ok_or(ApplyError::Unknown { seq, what: "entity", id: id.0 })
    }

    fn step(&mut self, cell: &Arc<Cell>, step: Step) {
        let step = (self.seq, step);
        if let Some((_, steps)) = self.steps.get_mut(&cell.scope) {
            steps.push(step);
        } else {
            self.steps.insert(cell.scope.clone(), (Arc::clone(cell), vec![step]));
        }
    }

    fn put_header(&mut self, id: MemoryId, entity: &EntityRow, name: &str, entity_type: &str) {
        let pieces = self.pieces_of(Cow::Owned(format!("{name} ({entity_type})")), 1);
        self.put(id, id, entity, Span::ALWAYS, pieces);
    }

    fn put(&mut self, row: MemoryId, entity: MemoryId, owner: &EntityRow, own: Span, pieces: Range<usize>) {
        let spans = Spans { own, entity: owner.span, told: Told::NONE };
        self.step(&owner.cell, Step::Put { row, entity, kind: owner.kind, spans, pieces });
    }

    /// Cuts `text` into at most `max` pieces for the model.
    fn pieces_of(&mut self, text: Cow<'a, str>, max: usize) -> Range<usize> {
        let start = self.pieces.len();
        // A text that has a vector was one piece when it got it. Looking it up takes a microsecond, finding its
        // tokens forty; a rebuild of 300,000 rows lives from that.
        if let Some(slot) = self.shared.store.get_slot(&text) {
            self.pieces.push((text, Some(slot)));
        } else if !text.trim().is_empty() {
            for range in self.embedder.chunk(&text).into_iter().take(max) {
                let piece = match &text {
                    Cow::Borrowed(text) => Cow::Borrowed(&text[range]),
                    Cow::Owned(text) => Cow::Owned(text[range].to_owned()),
                };
                self.pieces.push((piece, None));
            }
        }
        start..self.pieces.len()
    }

    /// How often it looks at all rows of an entity.
    #[cfg(test)]
    pub(crate) fn described(&self) -> usize {
        let steps = self.steps.values().flat_map(|(_, steps)| steps);
        steps.filter(|(_, step)| matches!(step, Step::Describe { .. })).count()
    }

    /// Gets the vectors, from the store or from the model, and makes the changes ready.
    ///
    /// # Errors
    ///
    /// [`FoldError`]; vectors that were computed are kept for the next try, nothing else has changed.
    pub(crate) fn resolve(self, pace: Pace) -> Result<Changes, FoldError> {
        let vectors = vectors_of(&self.pieces, &self.shared.store, self.embedder, pace)?;
        Ok(Changes { entities: self.changed, steps: self.steps, vectors })
    }
}

/// Place and 8-bit form of the vector of each of `texts`.
fn vectors_of(
    texts: &[Piece<'_>],
    store: &VectorStore,
    embedder: &dyn Embedder,
    pace: Pace,
) -> Result<Vec<(Slot, Quantised)>, FoldError> {
    let slots: Vec<Option<Slot>> =
        texts.iter().map(|(text, known)| known.or_else(|| store.get_slot(text))).collect();
    let mut found: Vec<Option<(Slot, Quantised)>> = vec![None; texts.len()];
    store.each_vector(&slots, |number, vector| {
        found[number] = slots[number].map(|slot| (slot, quantise(vector)));
    });
    let mut missing: Vec<&str> = Vec::new();
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    for ((text, _), _) in texts.iter().zip(&found).filter(|(_, found)| found.is_none()) {
        numbers.entry(text).or_insert_with(|| {
            missing.push(text);
            missing.len() - 1
        });
    }
    if !missing.is_empty() {
        let together = match pace {
            Pace::AtOnce => TOGETHER_TEXTS,
            Pace::Careful => CAREFUL_TEXTS,
        };
        let mut made = Vec::with_capacity(missing.len());
        for texts in missing.chunks(together) {
            made.extend(embedded(texts, store, embedder)?);
        }
        for ((text, _), found) in texts.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
            *found = numbers.get(text.as_ref()).map(|&number| made[number].clone());
        }
    }
    Ok(found.into_iter().flatten().collect())
}

/// Place and 8-bit form of the vector of each of `texts`, which the model makes and the store keeps.
fn embedded(
    texts: &[&str],
    store: &VectorStore,
    embedder: &dyn Embedder,
) -> Result<Vec<(Slot, Quantised)>, FoldError> {
    let vectors = embedder.embed(texts).map_err(|source| FoldError::Embed { texts: texts.len(), source })?;
    if vectors.len() != texts.len() {
        return Err(FoldError::Count { texts: texts.len(), vectors: vectors.len() });
    }
    let mut made = Vec::with_capacity(texts.len());
    for (text, vector) in texts.iter().zip(&vectors) {
        let slot = store.put(text, vector)?;
        // Read back rather than taken from the model: the code belongs to what the slot holds.
        let vector = store.view().vector(slot).copied().unwrap_or_else(|| exactly(vector));
        made.push((slot, quantise(&vector)));
    }
    Ok(made)
}

/// `numbers`, which the store accepted, as an array.
fn exactly(numbers: &[f32]) -> Vector {
    std::array::from_fn(|at| numbers[at])
}

/// A plan whose texts have vectors.
pub(crate) struct Changes {
    entities: HashMap<MemoryId, Option<EntityRow>>,
    steps: Steps,
    vectors: Vec<(Slot, Quantised)>,
}

impl Changes {
    /// Makes the changes and shows them to searches, scope by scope. Gives the cells that changed.
    pub(crate) fn make(self, entities: &mut HashMap<MemoryId, EntityRow>, index_from: u32) -> Vec<Arc<Cell>> {
        for (id, entity) in self.entities {
            match entity {
                Some(entity) => entities.insert(id, entity),
                None => entities.remove(&id),
            };
        }
        let mut cells = Vec::with_capacity(self.steps.len());
        for (_, (cell, steps)) in self.steps {
            let mut links = cell.edit();
            let mut view = View::clone(&cell.view());
            for (seq, step) in steps {
                let View { slab, closed, past, .. } = &mut view;
                Rows { slab, closed, past, links: &mut links, seq: seq.0 }.take(step, &self.vectors);
            }
            compact(&mut view, &mut links, index_from);
            cell.publish(&links, view);
            drop(links);
            cells.push(cell);
        }
        cells
    }
}

/// The rows of a scope while a record changes them.
struct Rows<'a> {
    slab: &'a mut Slab,
    closed: &'a mut Slab,
    past: &'a mut Past,
    links: &'a mut Links,
    seq: u64,
}

impl Rows<'_> {
    fn take(&mut self, step: Step, vectors: &[(Slot, Quantised)]) {
        match step {
            Step::Put { row, entity, kind, spans, pieces } => {
                let chunks = pieces.len();
                for (chunk, piece) in pieces.enumerate() {
                    let key = RowKey::new(row, chunk as u16);
                    let (slot, vector) = &vectors[piece];
                    self.put(&Row {
                        key,
                        entity,
                        kind,
                        spans,
                        slot: *slot,
                        vector: vector.clone(),
                        created: self.seq,
                        closed: None,
                    });
                }
                self.remove_from(row, chunks);
            }
            Step::Describe { entity, kind, span } => self.describe(entity, kind, span),
            Step::Remove { row } => self.remove_from(row, 0),
            Step::RemoveEntity { entity } => {
                let rows: Vec<u32> = self.links.rows_of(entity).collect();
                for row in rows {
                    let (block, at) = self.slab.locate(row);
                    if block.is_alive(at) {
                        self.links.remove(block.keys[at]);
                        self.remove(row);
                    }
                }
                self.links.forget_entity(entity);
            }
        }
    }

    /// Gives all rows of `entity` this type and time, and keeps once for all of them what it was.
    fn describe(&mut self, entity: MemoryId, kind: u32, span: Span) {
        let differs = |&row: &u32| {
            let (block, at) = self.slab.locate(row);
            block.is_alive(at) && (block.kinds[at] != kind || block.spans_of(at).entity != span)
        };
        let rows: Vec<u32> = self.links.rows_of(entity).filter(differs).collect();
        let Some(&row) = rows.first() else { return };
        let (block, at) = self.slab.locate(row);
        let (was, until) = ((block.kinds[at], block.spans_of(at).entity), self.seq);
        let told = rows.iter().map(|&row| self.slab.locate(row)).map(|(block, at)| block.spans_of(at).told);
        // Rows that came since it was described last name nothing before them.
        let before = told.max().unwrap_or_default();
        let told = self.past.push(Was { until, kind: was.0, span: was.1, before });
        for row in rows {
            self.slab.set_entity(row, kind, span, told);
        }
    }

    /// Puts a row in, in the place of one with the same key.
    fn put(&mut self, new: &Row) {
        if let Some(old) = self.links.row(new.key) {
            let (block, at) = self.slab.locate(old);
            if block.slots[at] == new.slot {
                if block.spans_of(at).own != new.spans.own {
                    self.keep(old);
                    self.slab.set_own_span(old, new.spans.own, self.seq);
                }
                return;
            }
            self.remove(old);
        }
        self.links.push(self.slab.push(new), new.key, new.entity);
    }

    /// Keeps what a row was until this record, unless this record made it so.
    fn keep(&mut self, row: u32) {
        let (block, at) = self.slab.locate(row);
        if block.created[at] < self.seq {
            self.closed.push(&Row { closed: Some(self.seq), ..block.row(at) });
        }
    }

    fn remove(&mut self, row: u32) {
        self.keep(row);
        self.slab.remove(row);
    }

    /// Removes the chunks of an observation from number `chunk` on.
    fn remove_from(&mut self, row: MemoryId, chunk: usize) {
        for chunk in chunk..RowKey::CHUNKS_MAX {
            match self.links.remove(RowKey::new(row, chunk as u16)) {
                Some(row) => self.remove(row),
                None => return,
            }
        }
    }
}

/// Frees the room of removed rows where no index knows the rows by number. The builder does it where one does.
fn compact(view: &mut View, links: &mut Links, index_from: u32) {
    if view.slab.alive() < index_from / 2 {
        view.index = None;
    }
    let slab = &view.slab;
    if view.index.is_none() && slab.dead as usize > BLOCK_ROWS && slab.dead > slab.alive() {
        let old = view.slab.clone();
        view.slab = old.compacted(|row| {
            let (block, at) = old.locate(row);
            block.is_alive(at)
        });
        *links = Links::of(&view.slab);
    }
}
