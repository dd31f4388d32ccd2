//! What can be asked of the memory, and what an accepted wish answers.

use caxton_events::memory::Validity;
use caxton_events::{MemoryId, Scope, Seq};
use serde::{Deserialize, Serialize};

/// An entity that a command means: by number, or by name in the first of some scopes that has it.
#[derive(Debug, Clone, PartialEq)]
pub enum EntityRef {
    /// By number. Where no such entity is seen, a name that reads like the number (`ent_12`) will do.
    Id {
        /// Its number.
        id: MemoryId,
        /// Where to look for the name, most specific first.
        scopes: Vec<Scope>,
    },
    /// By name, looked up in the scopes in this order.
    Named {
        /// Its name.
        name: String,
        /// Where to look, most specific first.
        scopes: Vec<Scope>,
    },
}

/// What happens when the thing to create is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnExisting {
    /// Add what is missing: new observations; metadata, confidence and validity stay. Another type is a conflict.
    #[default]
    Merge,
    /// As merge, whatever the type of what is there: the type asked for is that of a new thing.
    Extend,
    /// Make it as asked: description replaced, missing observations added, another type taken over.
    Update,
    /// Leave it as it is.
    Skip,
    /// Refuse.
    Refuse,
}

/// A text about an entity, to be added.
#[derive(Debug, Clone, PartialEq)]
pub struct NewObservation {
    /// The text: 1 byte to `OBSERVATION_BYTES_MAX`.
    pub content: String,
    /// When it was true.
    pub validity: Validity,
}

/// An entity to be created.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEntity {
    /// Where it shall live.
    pub scope: Scope,
    /// Its name, unique in the scope.
    pub name: String,
    /// Its type.
    pub entity_type: String,
    /// What is known about it.
    pub observations: Vec<NewObservation>,
    /// A JSON object as text.
    pub metadata: Option<String>,
    /// 0 to 1.
    pub confidence: f64,
    /// When it was true.
    pub validity: Validity,
    /// What to do when it exists.
    pub on_existing: OnExisting,
}

/// The version that a change of an entity expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedVersion {
    /// The version.
    pub version: u32,
    /// The number of the entity, where that is known: one that was removed and created anew under its name counts its versions
    /// from 1 again.
    pub id: Option<MemoryId>,
}

/// Of whatever entity the change names.
impl From<u32> for ExpectedVersion {
    fn from(version: u32) -> Self {
        Self { version, id: None }
    }
}

/// A new description of an entity; `None` keeps what is there.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityChange {
    /// Which one.
    pub entity: EntityRef,
    /// Its new name.
    pub name: Option<String>,
    /// Its new type.
    pub entity_type: Option<String>,
    /// Its new metadata; `Some(None)` removes it.
    pub metadata: Option<Option<String>>,
    /// Its new confidence.
    pub confidence: Option<f64>,
    /// Its new validity.
    pub validity: Option<Validity>,
    /// Refuse unless this is the present version.
    pub expected_version: Option<ExpectedVersion>,
}

/// A relation to be created.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRelation {
    /// The scope it is written to.
    pub scope: Scope,
    /// Where it starts.
    pub from: EntityRef,
    /// Where it ends.
    pub to: EntityRef,
    /// What it says.
    pub relation_type: String,
    /// 0 to 1.
    pub strength: f64,
    /// 0 to 1.
    pub confidence: f64,
    /// A JSON object as text.
    pub metadata: Option<String>,
    /// When it was true.
    pub validity: Validity,
    /// Write the opposite direction too.
    pub bidirectional: bool,
    /// What to do when it exists.
    pub on_existing: OnExisting,
}

/// New properties of a relation; `None` keeps what is there.
#[derive(Debug, Clone, PartialEq)]
pub struct RelationChange {
    /// Which one.
    pub id: MemoryId,
    /// Its new strength.
    pub strength: Option<f64>,
    /// Its new confidence.
    pub confidence: Option<f64>,
    /// Its new metadata; `Some(None)` removes it.
    pub metadata: Option<Option<String>>,
    /// Its new validity.
    pub validity: Option<Validity>,
}

/// A row that a sweep chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweptRow {
    /// An entity, with its observations and relations.
    Entity(MemoryId),
    /// A relation.
    Relation(MemoryId),
}

/// A wish about the memory.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Name a thing in a scope.
    CreateEntity(NewEntity),
    /// Describe an entity anew.
    UpdateEntity(EntityChange),
    /// Take an entity out of the present, with its observations and relations.
    RemoveEntity {
        /// Which one.
        entity: EntityRef,
        /// Refuse unless this is the present version.
        expected_version: Option<ExpectedVersion>,
    },
    /// Note something about an entity. Texts that it has already are not added twice.
    AddObservations {
        /// Which one.
        entity: EntityRef,
        /// The texts.
        observations: Vec<NewObservation>,
    },
    /// Change an observation; `None` keeps what is there.
    UpdateObservation {
        /// Which one.
        id: MemoryId,
        /// Its new text.
        content: Option<String>,
        /// Its new validity.
        validity: Option<Validity>,
    },
    /// Take an observation out of the present.
    RemoveObservation {
        /// Which one.
        id: MemoryId,
    },
    /// Connect two entities.
    CreateRelation(NewRelation),
    /// Change a relation.
    UpdateRelation(RelationChange),
    /// Take a relation out of the present.
    RemoveRelation {
        /// Which one.
        id: MemoryId,
    },
    /// Take a row out of the present that nobody has changed since it was chosen.
    Sweep {
        /// Which one.
        row: SweptRow,
        /// Refuse if something was recorded of it after this record: of the relation, of the entity, or of its observations.
        since: Seq,
    },
    /// Take every entity of a scope out of the present.
    ClearScope {
        /// Which scope.
        scope: Scope,
        /// Only entities of these types; all when empty.
        entity_types: Vec<String>,
    },
}

/// What kind of row an accepted write was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrittenKind {
    /// An entity.
    Entity,
    /// Observations of an entity.
    Observations,
    /// A relation.
    Relation,
    /// A whole scope.
    Scope,
}

/// What an accepted write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteStatus {
    /// Something new is there.
    Created,
    /// Something was changed.
    Updated,
    /// Everything asked for was there already.
    Unchanged,
    /// Something was taken out of the present.
    Removed,
    /// It existed and was left as it is, as asked.
    Skipped,
}

/// The answer to an accepted write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// What it was about.
    pub kind: WrittenKind,
    /// What was done.
    pub status: WriteStatus,
    /// The entity or relation; for observations their entity; 0 for a whole scope.
    pub id: MemoryId,
    /// The observations added or changed, in the order asked.
    pub observations: Vec<MemoryId>,
    /// The version of the entity after the write; 0 where there is none.
    pub version: u32,
    /// Entities taken out of the present.
    pub removed_entities: u64,
    /// Relations taken out of the present.
    pub removed_relations: u64,
    /// Fields of the wish that were not taken because what is there keeps its own, as in `observations[2].valid_from`. A
    /// confidence that differs is among them also where the wish holds the default. Left out where there is none, so that
    /// answers that were kept before read as they did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_taken: Vec<String>,
    /// The name of the entity after the write, where the wish does not say it. It is not kept with the answer, as no text of the
    /// memory is: an answer outlives what it is about when that is erased by its key.
    #[serde(skip)]
    pub entity_name: Option<String>,
    /// The type of the entity after the write, where the wish says none or another one. It is not kept either.
    #[serde(skip)]
    pub entity_type: Option<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::Written;

    /// An answer as it was kept before anything was told of what is not taken.
    const KEPT: &str = concat!(
        r#"{"kind":"entity","status":"updated","id":7,"observations":[8],"version":2,"#,
        r#""removed_entities":0,"removed_relations":0}"#
    );

    #[test]
    fn an_answer_is_kept_as_it_was_and_without_texts_of_the_memory() {
        let mut written: Written = serde_json::from_str(KEPT).unwrap();
        assert!(written.not_taken.is_empty() && written.entity_type.is_none());
        written.entity_name = Some("Ada".to_owned());
        written.entity_type = Some("person".to_owned());
        assert_eq!(serde_json::to_string(&written).unwrap(), KEPT);
    }
}
