//! The rows of an import as writes: an entity or a relation, as an export of this server or an MCP memory server wrote it.

use axum::body::Bytes;
use caxton_events::limits::ENTITY_BYTES_MAX;
use caxton_events::memory::Validity;
use serde_json::Value;

use super::Api;
use super::call::WriteContext;
use super::caller::{ScopeKind, from_upwards};
use super::entity_writes::{ENTITY, OBSERVATION, OBSERVATIONS_MAX, new_entity, read_observations};
use super::fields::Fields;
use super::json::parse_line;
use super::lines::patiently;
use super::mcp_lines;
use super::problem::{Complaint, Problem};
use super::refusals::{OVERLOADED, graph_failed};
use super::relations::{RELATION, new_relation};
use crate::commands::write::{EntityChange, NewRelation};
use crate::commands::{EntityRef, NewObservation, OnExisting, Refusal, Write, WriteStatus, Written};

/// Members that an export adds to its rows; they are read over, because numbers and times are drawn anew.
const EXPORTED: &[&str] = &[
    "type",
    "entity_id",
    "memory_scope",
    "agent_id",
    "workspace",
    "version",
    "created_at",
    "updated_at",
    "observation_count",
    "seq",
    "embedding",
    "relation_id",
    "from_entity_id",
    "to_entity_id",
    "created_by",
    "observation_id",
    "updated_seq",
    "bidirectional",
    "status",
];
/// Members that say where the ends of a relation live that are not in the scope that was exported.
const ENDS: &[&str] = &["from_scope", "to_scope"];
/// Members of an entity in an import.
pub(super) const ENTITY_ROW: &[&[&str]] = &[ENTITY, EXPORTED];
/// Members of a relation in an import.
pub(super) const RELATION_ROW: &[&[&str]] = &[RELATION, EXPORTED, ENDS];
/// Most rows of one JSON document, and observations of one entity.
pub(super) const ROWS_MAX: usize = 1_000_000;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// As an export of this server.
    Caxton,
    /// As the memory of the MCP reference server.
    Mcp,
}

/// What becomes of rows that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strategy {
    entities: OnExisting,
    relations: OnExisting,
}

impl Strategy {
    /// Of lines of the MCP reference server unless something else is asked for. They say nothing of metadata, confidence,
    /// validity and strength, so what is there keeps its own, and its type, and gets the observations that it lacks.
    pub(super) const MCP: Self = Self { entities: OnExisting::Extend, relations: OnExisting::Skip };
}

/// The same of entities and relations.
impl From<OnExisting> for Strategy {
    fn from(on_existing: OnExisting) -> Self {
        Self { entities: on_existing, relations: on_existing }
    }
}

/// A row of an import.
pub(super) struct Imported {
    /// The write that makes it.
    pub(super) write: Write,
    /// Further observations of an entity that has more of them than one write takes, in parts that it takes.
    rest: Vec<Vec<NewObservation>>,
}

impl Imported {
    /// Whether it takes more than one write. These belong into one command: all of them or none.
    pub(super) fn is_large(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Whether the row is an entity that takes several writes, is there, and is to be left as it is then: it is looked for
    /// before they are made, as patiently as they are offered. Whether it still is there, or still is not, is checked by what
    /// is written: it is refused otherwise.
    ///
    /// # Errors
    ///
    /// A [`Problem`] when it cannot be looked for.
    pub(super) async fn is_there(&self, api: &Api) -> Result<bool, Problem> {
        let Write::CreateEntity(wish) = &self.write else { return Ok(false) };
        if self.rest.is_empty() || wish.on_existing != OnExisting::Skip {
            return Ok(false);
        }
        let look = || {
            let (scope, name) = (wish.scope.clone(), wish.name.clone());
            api.query(move |view| {
                view.graph().entity_by_name(&scope, &name).map_err(|error| graph_failed(&error))
            })
        };
        let found = patiently(look, |problem: &Problem| problem.code() == OVERLOADED).await?;
        Ok(found.is_some())
    }

    /// The writes, each with the number of observations of the row that stand before its own. They are as many whether the
    /// entity [is there](Self::is_there) or not: to a request that is repeated with its key, the results are given that were kept
    /// of the first one.
    pub(super) fn writes(self, is_there: bool) -> Vec<(usize, Write)> {
        if self.rest.is_empty() {
            return vec![(0, self.write)];
        }
        let Write::CreateEntity(mut wish) = self.write else {
            return vec![(0, self.write)];
        };
        if wish.on_existing == OnExisting::Skip {
            wish.on_existing = OnExisting::Refuse;
        }
        let entity = EntityRef::Named { name: wish.name.clone(), scopes: vec![wish.scope.clone()] };
        let mut before = 0;
        let mut writes = Vec::with_capacity(1 + self.rest.len());
        let mut add = |count: usize, write: Write| {
            let write = if is_there { Write::UpdateEntity(unchanged(entity.clone())) } else { write };
            writes.push((before, write));
            before += count;
        };
        add(wish.observations.len(), Write::CreateEntity(wish));
        for observations in self.rest {
            add(observations.len(), Write::AddObservations { entity: entity.clone(), observations });
        }
        writes
    }
}

/// A change of nothing.
fn unchanged(entity: EntityRef) -> EntityChange {
    EntityChange {
        entity,
        name: None,
        entity_type: None,
        metadata: None,
        confidence: None,
        validity: None,
        expected_version: None,
    }
}

/// The entity in the members of a row.
pub(super) fn entity(fields: &mut Fields, context: &WriteContext, strategy: Strategy) -> Imported {
    const NAME: &str = "observations";
    let known: &[&[&str]] = &[OBSERVATION, EXPORTED];
    let items = fields.list(NAME, false, ROWS_MAX);
    let mut wish = new_entity(fields, context.scope.clone(), known);
    wish.on_existing = strategy.entities;
    let mut parts = parts(read_observations(fields, NAME, items, known, Validity::default())).into_iter();
    wish.observations = parts.next().unwrap_or_default();
    Imported { write: Write::CreateEntity(wish), rest: parts.collect() }
}

/// Observations in parts that one write takes each.
fn parts(observations: Vec<NewObservation>) -> Vec<Vec<NewObservation>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for observation in observations {
        let more = bytes + observation.content.len();
        if !part.is_empty() && (part.len() == OBSERVATIONS_MAX || more > ENTITY_BYTES_MAX) {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += observation.content.len();
        part.push(observation);
    }
    parts.push(part);
    parts
}

/// The relation in the members of a row. Ends are names, whatever they look like: the numbers of an export mean nothing here.
/// One whose scope is named is looked for in that scope alone, any other from the scope that is written to upwards.
pub(super) fn relation(fields: &mut Fields, context: &WriteContext, strategy: Strategy) -> Imported {
    let upwards = from_upwards(&context.scope, &context.caller.visible());
    let mut end = |name: &str, scope: &str| {
        let named = fields.choice(scope, ScopeKind::WORDS).map(|kind| vec![context.caller.scope(kind)]);
        let name = fields.peek_text(name).unwrap_or_default();
        EntityRef::Named { name, scopes: named.unwrap_or_else(|| upwards.clone()) }
    };
    let (from, to) = (end("from_entity", "from_scope"), end("to_entity", "to_scope"));
    let wish = NewRelation { from, to, on_existing: strategy.relations, ..new_relation(fields, context) };
    Imported { write: Write::CreateRelation(wish), rest: Vec::new() }
}

/// One line; `None` for the lines around an export's rows.
pub(super) fn row(
    line: &Bytes,
    context: &WriteContext,
    strategy: Strategy,
    format: Format,
) -> Result<Option<Imported>, Complaint> {
    let mut value = parse_line(line).map_err(|problem| problem.as_complaint())?;
    if format == Format::Mcp {
        value = mcp_lines::translated(value)?;
    }
    let kind = value.get("type").and_then(Value::as_str).map(str::to_owned);
    let is_relation = match kind.as_deref() {
        Some("metadata" | "end") => return Ok(None),
        Some("relation") => true,
        Some("entity") => false,
        Some(_) | None => value.get("relation_type").is_some(),
    };
    let known = if is_relation { RELATION_ROW } else { ENTITY_ROW };
    let mut fields = Fields::object(value, String::new(), known);
    fields.choice("type", &[("entity", ()), ("relation", ()), ("metadata", ()), ("end", ())]);
    let row = if is_relation {
        relation(&mut fields, context, strategy)
    } else {
        entity(&mut fields, context, strategy)
    };
    fields.into_complaint().map_or(Ok(Some(row)), Err)
}

/// One result for each row out of one for each write; `before` as [`Imported::writes`] has it. An entity that got further
/// observations alone was changed.
pub(super) fn of_rows(
    before: impl Iterator<Item = usize>,
    results: Vec<Result<Written, Refusal>>,
) -> Vec<Result<Written, Refusal>> {
    let mut rows: Vec<Result<Written, Refusal>> = Vec::with_capacity(results.len());
    for (before, result) in before.zip(results) {
        if before == 0 {
            rows.push(result);
        } else if let (Some(Ok(row)), Ok(part)) = (rows.last_mut(), &result)
            && row.status == WriteStatus::Unchanged
            && part.status != WriteStatus::Unchanged
        {
            row.status = WriteStatus::Updated;
        }
    }
    rows
}

/// The refusal of a write with its observations counted from the first one of the row.
pub(super) fn of_row(refusal: Refusal, before: usize) -> Refusal {
    let place = refusal.field.strip_prefix("observations[").and_then(|rest| rest.split_once(']'));
    let counted = place.and_then(|(number, rest)| {
        let number = number.parse::<usize>().ok()?;
        Some(format!("observations[{}]{rest}", number + before))
    });
    match counted {
        Some(field) => Refusal { field, ..refusal },
        None => refusal,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::time::Duration;

    use caxton_events::Scope;
    use caxton_events::limits::ENTITY_BYTES_MAX;
    use caxton_events::memory::Validity;

    use super::{
        Api, Imported, NewObservation, OBSERVATIONS_MAX, OVERLOADED, OnExisting, Write, of_row, parts,
    };
    use crate::api::rest::RestOptions;
    use crate::commands::{NewEntity, Refusal, RefusalCode};
    use crate::engine::{Engine, EngineOptions};

    /// An entity with three texts in two parts, to be left as it is where it is there.
    fn split() -> Imported {
        let texts = |count: usize| {
            let text = NewObservation { content: "x".to_owned(), validity: Validity::default() };
            vec![text; count]
        };
        let wish = NewEntity {
            scope: Scope::Global,
            name: "tea".to_owned(),
            entity_type: "T".to_owned(),
            observations: texts(2),
            metadata: None,
            confidence: 1.0,
            validity: Validity::default(),
            on_existing: OnExisting::Skip,
        };
        Imported { write: Write::CreateEntity(wish), rest: vec![texts(1)] }
    }

    #[test]
    fn a_row_has_as_many_writes_whether_it_is_there_or_not() {
        let [created, skipped] = [false, true].map(|is_there| split().writes(is_there));
        let before = |writes: &[(usize, Write)]| writes.iter().map(|(before, _)| *before).collect::<Vec<_>>();
        assert_eq!((before(&created), before(&skipped)), (vec![0, 2], vec![0, 2]));
        assert!(matches!(&created[0].1, Write::CreateEntity(wish) if wish.on_existing == OnExisting::Refuse));
        assert!(matches!(&created[1].1, Write::AddObservations { .. }));
        assert!(skipped.iter().all(|(_, write)| matches!(write, Write::UpdateEntity(_))));
    }

    #[test]
    fn a_row_is_looked_for_again_while_too_many_read() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| {}).unwrap();
        let options = RestOptions { reads_max: 1, reads_waiting_max: 0, ..RestOptions::default() };
        let api = Api::new(engine.clone(), options, false);
        // Its clock goes on where everybody waits.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let turn = api.turns.take().await.unwrap();
            let refused = api.turns.take().await.unwrap_err();
            assert_eq!(refused.code(), OVERLOADED);
            let row = split();
            let other = async {
                tokio::time::sleep(Duration::from_millis(15)).await;
                drop(turn);
            };
            let (found, ()) = tokio::join!(row.is_there(&api), other);
            assert!(!found.unwrap());
        });
        engine.stop();
    }

    #[test]
    fn observations_are_cut_into_what_one_write_takes() {
        let lens = |count: usize, bytes: usize| -> Vec<usize> {
            let one = NewObservation { content: "x".repeat(bytes), validity: Validity::default() };
            parts(vec![one; count]).iter().map(Vec::len).collect()
        };
        assert_eq!(lens(0, 1), [0]);
        assert_eq!(lens(OBSERVATIONS_MAX, 1), [OBSERVATIONS_MAX]);
        assert_eq!(lens(OBSERVATIONS_MAX + 1, 1), [OBSERVATIONS_MAX, 1]);
        assert_eq!(lens(21, 1 << 20), [10, 10, 1]);
        assert_eq!(lens(2, ENTITY_BYTES_MAX + 1), [1, 1]);
    }

    #[test]
    fn a_refused_observation_is_counted_from_the_first_one_of_its_row() {
        let refusal = |field: &str| Refusal {
            code: RefusalCode::Validation,
            index: 1,
            field: field.to_owned(),
            message: String::new(),
            remedy: String::new(),
        };
        for (field, then) in [
            ("observations[3]", "observations[13]"),
            ("observations[0].valid_to", "observations[10].valid_to"),
            ("observations", "observations"),
            ("entity_name", "entity_name"),
        ] {
            assert_eq!(of_row(refusal(field), 10), refusal(then));
        }
    }
}
