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
use super::mcp_lines;
use super::problem::{Complaint, Problem};
use super::refusals::graph_failed;
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

    /// The writes, each with the number of observations of the row that stand before its own.
    ///
    /// An entity that takes several of them and is to be left as it is where it exists is looked for first. Whether it still
    /// is there, or still is not, is checked by what is written: it is refused otherwise.
    ///
    /// # Errors
    ///
    /// A [`Problem`] when it cannot be looked for.
    pub(super) async fn writes(self, api: &Api) -> Result<Vec<(usize, Write)>, Problem> {
        if self.rest.is_empty() {
            return Ok(vec![(0, self.write)]);
        }
        let Write::CreateEntity(mut wish) = self.write else {
            return Ok(vec![(0, self.write)]);
        };
        let (scope, name) = (wish.scope.clone(), wish.name.clone());
        let entity = EntityRef::Named { name: name.clone(), scopes: vec![scope.clone()] };
        if wish.on_existing == OnExisting::Skip {
            let found = api.query(move |view| {
                view.graph().entity_by_name(&scope, &name).map_err(|error| graph_failed(&error))
            });
            if found.await?.is_some() {
                return Ok(vec![(0, Write::UpdateEntity(unchanged(entity)))]);
            }
            wish.on_existing = OnExisting::Refuse;
        }
        let mut before = wish.observations.len();
        let mut writes = vec![(0, Write::CreateEntity(wish))];
        for observations in self.rest {
            let count = observations.len();
            writes.push((before, Write::AddObservations { entity: entity.clone(), observations }));
            before += count;
        }
        Ok(writes)
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
    use caxton_events::limits::ENTITY_BYTES_MAX;
    use caxton_events::memory::Validity;

    use super::{NewObservation, OBSERVATIONS_MAX, of_row, parts};
    use crate::commands::{Refusal, RefusalCode};

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
