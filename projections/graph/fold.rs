//! The fold: one batch of records inside one transaction.

mod erase;
mod inserts;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use caxton_events::memory::{self, Validity};
use caxton_events::{AgentEvent, Event, MemoryEvent, MemoryId, Record, Scope, Seq, SystemEvent, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use crate::text::batch::{Text, TextBatch, Written};
use inserts::Inserts;

/// Most entities and scopes whose place is remembered between batches.
const PLACES_MAX: usize = 1 << 20;

/// What the fold remembers of the file. It holds only what was committed or is part of the batch under way, and is
/// dropped when a batch fails.
#[derive(Debug, Default)]
pub(super) struct Memo {
    scopes: BTreeMap<Scope, i64>,
    scope_of_entity: BTreeMap<u64, i64>,
}

/// Why a batch was not folded.
#[derive(Debug)]
pub(super) enum FoldError {
    Sqlite(rusqlite::Error),
    Unknown { seq: Seq, what: &'static str, id: u64 },
}

impl From<rusqlite::Error> for FoldError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// How many rows a scope has in the present, and how many texts and words.
#[derive(Debug, Default, Clone, Copy)]
struct Figures {
    entities: i64,
    observations: i64,
    relations: i64,
    text_rows: i64,
    text_words: i64,
}

/// One batch under way.
pub(super) struct Fold<'a> {
    connection: &'a Connection,
    memo: &'a mut Memo,
    /// Records may speak of rows that were erased.
    gaps: bool,
    /// Of the scopes that the batch changes, as they are after its last record.
    figures: BTreeMap<i64, Figures>,
    /// The scope that the record under way changes.
    touched: Option<i64>,
    texts: TextBatch,
    next_id: u64,
    inserts: Inserts<'a>,
}

impl<'a> Fold<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        memo: &'a mut Memo,
        gaps: bool,
        texts: TextBatch,
    ) -> rusqlite::Result<Self> {
        let next_id: i64 =
            connection.prepare_cached("SELECT next_id FROM meta")?.query_row((), |row| row.get(0))?;
        Ok(Self {
            connection,
            memo,
            gaps,
            figures: BTreeMap::new(),
            touched: None,
            texts,
            next_id: next_id as u64,
            inserts: Inserts::default(),
        })
    }

    /// Folds one record in.
    pub(super) fn apply(&mut self, record: &Record) -> Result<(), FoldError> {
        let place = Place {
            seq: record.seq.0 as i64,
            at: record.recorded_at.unix_micros() as i64,
            actor: &record.actor,
        };
        match &record.event {
            Event::Memory(event) => match self.memory(&place, event) {
                Err(FoldError::Unknown { .. }) if self.gaps => {
                    self.touched = None;
                    Ok(())
                }
                folded => {
                    folded?;
                    self.count(&place)
                }
            },
            Event::System(SystemEvent::ErasureOrdered { subjects, next_memory_id, .. }) => {
                self.erase(&place, subjects, *next_memory_id)
            }
            Event::Agent(AgentEvent::ExternalRegistered { agent, workspace }) => {
                self.connection
                    .prepare_cached("INSERT OR IGNORE INTO agents VALUES (?1, ?2, ?3, ?4)")?
                    .execute((agent.as_str(), workspace.as_str(), place.at, place.seq))?;
                Ok(())
            }
            // Of agents, their talk and the server, not of the memory.
            Event::Agent(_) | Event::Conversation(_) | Event::Turn(_) | Event::System(_) => Ok(()),
        }
    }

    /// Writes what was kept for the end of the batch, and the checkpoint; returns what changed of the texts.
    pub(super) fn finish(mut self, checkpoint: Seq) -> rusqlite::Result<TextBatch> {
        self.flush()?;
        self.connection
            .prepare_cached("UPDATE meta SET checkpoint = ?1, next_id = ?2")?
            .execute((checkpoint.0 as i64, self.next_id as i64))?;
        Ok(self.texts)
    }

    fn memory(&mut self, place: &Place<'_>, event: &MemoryEvent) -> Result<(), FoldError> {
        match event {
            MemoryEvent::EntityCreated { id, scope, name, entity_type, metadata, confidence, validity } => {
                self.number(*id);
                let scope = self.scope_id(scope)?;
                let row =
                    EntityRow { id: *id, name, entity_type, metadata, confidence: *confidence, validity };
                self.add_entity(place, &row, &Origin::new(place, scope))
            }
            MemoryEvent::EntityUpdated { id, name, entity_type, metadata, confidence, validity } => {
                let origin = self.close_entity(place, *id)?;
                let row =
                    EntityRow { id: *id, name, entity_type, metadata, confidence: *confidence, validity };
                self.add_entity(place, &row, &origin)
            }
            MemoryEvent::EntityRemoved { id } => {
                self.close_entity(place, *id)?;
                self.memo.scope_of_entity.remove(&id.0);
                Ok(())
            }
            MemoryEvent::ObservationAdded { id, entity, content, validity } => {
                self.number(*id);
                let scope = self.scope_of(place, *entity)?;
                let row = ObservationRow { id: *id, entity: *entity, content, validity };
                self.add_observation(place, &row, &Origin::new(place, scope))
            }
            MemoryEvent::ObservationUpdated { id, entity, content, validity } => {
                let origin = self.close_observation(place, *id)?;
                let row = ObservationRow { id: *id, entity: *entity, content, validity };
                self.add_observation(place, &row, &origin)
            }
            MemoryEvent::ObservationRemoved { id, entity: _ } => {
                self.close_observation(place, *id)?;
                Ok(())
            }
            MemoryEvent::RelationCreated {
                id,
                scope,
                from,
                to,
                relation_type,
                strength,
                confidence,
                metadata,
                validity,
            } => {
                self.number(*id);
                let scope = self.scope_id(scope)?;
                let ends = Ends { from: *from, to: *to, relation_type: relation_type.clone() };
                let row =
                    RelationRow { id: *id, strength: *strength, confidence: *confidence, metadata, validity };
                self.add_relation(place, &row, &ends, &Origin::new(place, scope))
            }
            MemoryEvent::RelationUpdated { id, strength, confidence, metadata, validity } => {
                let (origin, ends) = self.close_relation(place, *id)?;
                let row =
                    RelationRow { id: *id, strength: *strength, confidence: *confidence, metadata, validity };
                self.add_relation(place, &row, &ends, &origin)
            }
            MemoryEvent::RelationRemoved { id } => {
                self.close_relation(place, *id)?;
                Ok(())
            }
            MemoryEvent::EntityRestored { .. }
            | MemoryEvent::ObservationRestored { .. }
            | MemoryEvent::RelationRestored { .. } => self.restore(place, event),
            // The records behind it are what was done.
            MemoryEvent::Undone { .. } => Ok(()),
        }
    }

    /// Puts an earlier version in the place of the present one, if there is one.
    #[expect(clippy::wildcard_enum_match_arm, reason = "`memory` sends restorations only")]
    fn restore(&mut self, place: &Place<'_>, event: &MemoryEvent) -> Result<(), FoldError> {
        match event {
            MemoryEvent::EntityRestored {
                id,
                scope,
                name,
                entity_type,
                metadata,
                confidence,
                validity,
                owner,
                version,
                origin,
            } => {
                gone(self.close_entity(place, *id))?;
                let scope = self.scope_id(scope)?;
                let row =
                    EntityRow { id: *id, name, entity_type, metadata, confidence: *confidence, validity };
                let (place, mut origin) = place.of(origin, scope);
                (origin.version, origin.owner) = (*version, Some(owner.clone()));
                self.add_entity(&place, &row, &origin)
            }
            MemoryEvent::ObservationRestored { id, entity, content, validity, origin } => {
                gone(self.close_observation(place, *id))?;
                let scope = self.scope_of(place, *entity)?;
                let row = ObservationRow { id: *id, entity: *entity, content, validity };
                let (place, origin) = place.of(origin, scope);
                self.add_observation(&place, &row, &origin)
            }
            MemoryEvent::RelationRestored {
                id,
                scope,
                from,
                to,
                relation_type,
                strength,
                confidence,
                metadata,
                validity,
                origin,
            } => {
                gone(self.close_relation(place, *id))?;
                let scope = self.scope_id(scope)?;
                let ends = Ends { from: *from, to: *to, relation_type: relation_type.clone() };
                let row =
                    RelationRow { id: *id, strength: *strength, confidence: *confidence, metadata, validity };
                let (place, origin) = place.of(origin, scope);
                self.add_relation(&place, &row, &ends, &origin)
            }
            _ => Ok(()),
        }
    }

    fn number(&mut self, id: MemoryId) {
        self.next_id = self.next_id.max(id.0 + 1);
    }

    /// The figures of a scope, to be changed by the record under way.
    fn figures(&mut self, scope: i64) -> rusqlite::Result<&mut Figures> {
        self.touched = Some(scope);
        match self.figures.entry(scope) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                let stored = self
                    .connection
                    .prepare_cached(
                        "SELECT entities, observations, relations, text_rows, text_words FROM scopes WHERE id = ?1",
                    )?
                    .query_row((scope,), |row| {
                        Ok(Figures {
                            entities: row.get(0)?,
                            observations: row.get(1)?,
                            relations: row.get(2)?,
                            text_rows: row.get(3)?,
                            text_words: row.get(4)?,
                        })
                    })?;
                Ok(place.insert(stored))
            }
        }
    }

    /// Notes what the figures of the changed scope are after this record.
    fn count(&mut self, place: &Place<'_>) -> Result<(), FoldError> {
        let Some(scope) = self.touched.take() else { return Ok(()) };
        let Figures { entities, observations, relations, text_rows, text_words } = *self.figures(scope)?;
        self.touched = None;
        self.connection
            .prepare_cached("INSERT INTO figures VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute((scope, place.seq, entities, observations, relations, text_rows, text_words))?;
        Ok(())
    }

    /// The number of a scope; scopes are numbered as they are first written to.
    fn scope_id(&mut self, scope: &Scope) -> rusqlite::Result<i64> {
        if let Some(&id) = self.memo.scopes.get(scope) {
            return Ok(id);
        }
        let text = scope.to_string();
        let known = self
            .connection
            .prepare_cached("SELECT id FROM scopes WHERE scope = ?1")?
            .query_row((&text,), |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => self
                .connection
                .prepare_cached("INSERT INTO scopes(scope) VALUES (?1) RETURNING id")?
                .query_row((&text,), |row| row.get(0))?,
        };
        if self.memo.scopes.len() < PLACES_MAX {
            self.memo.scopes.insert(scope.clone(), id);
        }
        Ok(id)
    }

    /// The scope an entity of the present lives in.
    fn scope_of(&mut self, place: &Place<'_>, entity: MemoryId) -> Result<i64, FoldError> {
        if let Some(&scope) = self.memo.scope_of_entity.get(&entity.0) {
            return Ok(scope);
        }
        let scope = self
            .connection
            .prepare_cached("SELECT scope_id FROM entities WHERE id = ?1 AND removed_seq IS NULL")?
            .query_row((entity.0 as i64,), |row| row.get(0))
            .optional()?
            .ok_or_else(|| place.unknown("entity", entity))?;
        self.remember(entity, scope);
        Ok(scope)
    }

    fn remember(&mut self, entity: MemoryId, scope: i64) {
        if self.memo.scope_of_entity.len() >= PLACES_MAX {
            self.memo.scope_of_entity.pop_first();
        }
        self.memo.scope_of_entity.insert(entity.0, scope);
    }

    fn add_entity(
        &mut self,
        place: &Place<'_>,
        row: &EntityRow<'_>,
        origin: &Origin,
    ) -> Result<(), FoldError> {
        self.remember(row.id, origin.scope);
        self.inserts.entity(self.connection)?.execute((
            place.seq,
            row.id.0 as i64,
            origin.scope,
            origin.version,
            origin.seq,
            origin.at,
            place.at,
            micros(row.validity.from),
            micros(row.validity.to),
            row.confidence,
            origin.owner.as_deref().unwrap_or(place.actor),
            place.actor,
            row.name,
            row.entity_type,
            row.metadata,
        ))?;
        let text = Text::Header { name: row.name, entity_type: row.entity_type };
        let written = Written { scope: origin.scope, created: place.seq };
        let words = self.texts.add(written, (row.id, row.id), text, row.validity);
        let figures = self.figures(origin.scope)?;
        figures.entities += 1;
        figures.text_rows += 1;
        figures.text_words += words;
        Ok(())
    }

    fn close_entity(&mut self, place: &Place<'_>, id: MemoryId) -> Result<Origin, FoldError> {
        let closed = self
            .connection
            .prepare_cached(
                "UPDATE entities SET removed_seq = ?1, removed_at = ?2 WHERE id = ?3 AND removed_seq IS NULL
                 RETURNING created_seq, scope_id, version, first_seq, created_at, owner, name, entity_type",
            )?
            .query_row((place.seq, place.at, id.0 as i64), |row| {
                let origin = Origin {
                    scope: row.get(1)?,
                    version: row.get::<_, u32>(2)? + 1,
                    seq: row.get(3)?,
                    at: row.get(4)?,
                    owner: row.get(5)?,
                };
                let (name, entity_type) = (row.get_ref(6)?.as_str()?, row.get_ref(7)?.as_str()?);
                let written = Written { scope: origin.scope, created: row.get(0)? };
                let words = self.texts.close(written, place.seq, Text::Header { name, entity_type });
                Ok((origin, words))
            })
            .optional()?;
        let (origin, words) = closed.ok_or_else(|| place.unknown("entity", id))?;
        let figures = self.figures(origin.scope)?;
        figures.entities -= 1;
        figures.text_rows -= 1;
        figures.text_words -= words;
        Ok(origin)
    }

    fn add_observation(
        &mut self,
        place: &Place<'_>,
        row: &ObservationRow<'_>,
        origin: &Origin,
    ) -> Result<(), FoldError> {
        self.inserts.observation(self.connection)?.execute((
            place.seq,
            row.id.0 as i64,
            row.entity.0 as i64,
            origin.scope,
            origin.seq,
            origin.at,
            place.at,
            micros(row.validity.from),
            micros(row.validity.to),
            place.actor,
            row.content,
        ))?;
        let written = Written { scope: origin.scope, created: place.seq };
        let words = self.texts.add(written, (row.id, row.entity), Text::Content(row.content), row.validity);
        let figures = self.figures(origin.scope)?;
        figures.observations += 1;
        figures.text_rows += 1;
        figures.text_words += words;
        Ok(())
    }

    fn close_observation(&mut self, place: &Place<'_>, id: MemoryId) -> Result<Origin, FoldError> {
        let closed = self
            .connection
            .prepare_cached(
                "UPDATE observations SET removed_seq = ?1, removed_at = ?2 WHERE id = ?3 AND removed_seq IS NULL
                 RETURNING created_seq, scope_id, first_seq, created_at, content",
            )?
            .query_row((place.seq, place.at, id.0 as i64), |row| {
                let origin =
                    Origin { scope: row.get(1)?, version: 1, seq: row.get(2)?, at: row.get(3)?, owner: None };
                let written = Written { scope: origin.scope, created: row.get(0)? };
                let words = self.texts.close(written, place.seq, Text::Content(row.get_ref(4)?.as_str()?));
                Ok((origin, words))
            })
            .optional()?;
        let (origin, words) = closed.ok_or_else(|| place.unknown("observation", id))?;
        let figures = self.figures(origin.scope)?;
        figures.observations -= 1;
        figures.text_rows -= 1;
        figures.text_words -= words;
        Ok(origin)
    }

    fn add_relation(
        &mut self,
        place: &Place<'_>,
        row: &RelationRow<'_>,
        ends: &Ends,
        origin: &Origin,
    ) -> Result<(), FoldError> {
        self.inserts.relation(self.connection)?.execute((
            place.seq,
            row.id.0 as i64,
            origin.scope,
            ends.from.0 as i64,
            ends.to.0 as i64,
            origin.seq,
            origin.at,
            place.at,
            micros(row.validity.from),
            micros(row.validity.to),
            row.strength,
            row.confidence,
            place.actor,
            &ends.relation_type,
            row.metadata,
        ))?;
        self.figures(origin.scope)?.relations += 1;
        Ok(())
    }

    fn close_relation(&mut self, place: &Place<'_>, id: MemoryId) -> Result<(Origin, Ends), FoldError> {
        let closed = self
            .connection
            .prepare_cached(
                "UPDATE relations SET removed_seq = ?1, removed_at = ?2 WHERE id = ?3 AND removed_seq IS NULL
                 RETURNING scope_id, first_seq, created_at, from_entity, to_entity, relation_type",
            )?
            .query_row((place.seq, place.at, id.0 as i64), |row| {
                let origin =
                    Origin { scope: row.get(0)?, version: 1, seq: row.get(1)?, at: row.get(2)?, owner: None };
                let id = |column| row.get::<_, i64>(column).map(|id| MemoryId(id as u64));
                Ok((origin, Ends { from: id(3)?, to: id(4)?, relation_type: row.get(5)? }))
            })
            .optional()?;
        let (origin, ends) = closed.ok_or_else(|| place.unknown("relation", id))?;
        self.figures(origin.scope)?.relations -= 1;
        Ok((origin, ends))
    }
}

/// A row that comes back may be in the present or not.
fn gone<T>(closed: Result<T, FoldError>) -> Result<(), FoldError> {
    match closed {
        Ok(_) | Err(FoldError::Unknown { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Where a row is written, when and by whom.
struct Place<'a> {
    seq: i64,
    at: i64,
    actor: &'a str,
}

impl Place<'_> {
    fn unknown(&self, what: &'static str, id: MemoryId) -> FoldError {
        FoldError::Unknown { seq: Seq(self.seq as u64), what, id: id.0 }
    }

    /// The same place for a row that comes back: written by its author, first when it was.
    fn of<'o>(&self, origin: &'o memory::Origin, scope: i64) -> (Place<'o>, Origin) {
        let kept = Origin {
            scope,
            version: 1,
            seq: origin.first.0 as i64,
            at: origin.created_at.unix_micros() as i64,
            owner: None,
        };
        (Place { seq: self.seq, at: self.at, actor: &origin.author }, kept)
    }
}

/// What a new version of a row keeps of the first one.
struct Origin {
    scope: i64,
    version: u32,
    seq: i64,
    at: i64,
    owner: Option<String>,
}

impl Origin {
    const fn new(place: &Place<'_>, scope: i64) -> Self {
        Self { scope, version: 1, seq: place.seq, at: place.at, owner: None }
    }
}

struct EntityRow<'a> {
    id: MemoryId,
    name: &'a str,
    entity_type: &'a str,
    metadata: &'a Option<String>,
    confidence: f64,
    validity: &'a Validity,
}

struct ObservationRow<'a> {
    id: MemoryId,
    entity: MemoryId,
    content: &'a str,
    validity: &'a Validity,
}

struct RelationRow<'a> {
    id: MemoryId,
    strength: f64,
    confidence: f64,
    metadata: &'a Option<String>,
    validity: &'a Validity,
}

/// What a relation connects.
struct Ends {
    from: MemoryId,
    to: MemoryId,
    relation_type: String,
}

fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(|at| at.unix_micros() as i64)
}
