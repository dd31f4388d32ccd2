//! The decision: a command and the present in, events or refusals out. No clock, no store, no effect.

use std::collections::BTreeMap;

use caxton_events::{AgentEvent, Event, MemoryEvent, MemoryId, Scope, Seq};
use caxton_projections::graph::ReadError;

use super::overlay::Overlay;
use super::present::{Present, PresentEntity};
use super::refusal::{Refusal, RefusalCode};
use super::seen::{Caller, Seen};
use super::write::{EntityRef, SweptRow, Write, Written};
use super::{check, entities, relations};

/// The counter that new rows take their numbers from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    next: u64,
}

impl Ids {
    /// Starts at `next`, a number never used before.
    pub const fn starting_at(next: MemoryId) -> Self {
        Self { next: next.0 }
    }

    /// The next number.
    pub(super) const fn draw(&mut self) -> MemoryId {
        let id = MemoryId(self.next);
        self.next += 1;
        id
    }
}

/// Why one write yields no events.
#[derive(Debug)]
pub enum DecideError {
    /// The rules say no.
    Refused(Refusal),
    /// The memory could not be read.
    Graph(ReadError),
}

impl From<Refusal> for DecideError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ReadError> for DecideError {
    fn from(error: ReadError) -> Self {
        Self::Graph(error)
    }
}

/// An event and the stream it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct Happened {
    /// The scope of the row that was written or removed, or `agents`.
    pub stream: String,
    /// What happened.
    pub event: Event,
}

/// What a command comes to.
#[derive(Debug, PartialEq)]
pub struct Decision {
    /// What happened, in order; empty when everything asked for was there already.
    pub events: Vec<Happened>,
    /// One per write.
    pub results: Vec<Result<Written, Refusal>>,
}

/// What one write comes to.
pub(super) struct Verdict {
    /// The scope that is written to.
    pub(super) scope: Scope,
    pub(super) events: Vec<MemoryEvent>,
    pub(super) written: Written,
    /// The scopes of relations that go with an entity: they may be narrower than that of the entity.
    pub(super) relations: BTreeMap<MemoryId, Scope>,
}

impl Verdict {
    /// What happens to rows of one scope.
    pub(super) fn of(scope: Scope, events: Vec<MemoryEvent>, written: Written) -> Self {
        Self { scope, events, written, relations: BTreeMap::new() }
    }
}

/// Decides a command against `present`.
///
/// With `atomic`, one refusal refuses the whole command: the result then holds refusals only and no events. Later
/// writes see what earlier ones of the same command did.
///
/// # Errors
///
/// [`ReadError`] if the memory could not be read; nothing was decided then.
pub fn decide(
    present: &dyn Present,
    caller: Caller<'_>,
    writes: &[Write],
    atomic: bool,
    ids: &mut Ids,
) -> Result<Decision, ReadError> {
    let first_id = *ids;
    let mut layer = Overlay::over(present);
    let mut events = Vec::new();
    let mut results = Vec::with_capacity(writes.len());
    for (index, write) in writes.iter().enumerate() {
        let drawn = *ids;
        // A write touches only the scope that is named; the ends of a relation stay as they are.
        let named = caller.named.filter(|_| !matches!(write, Write::CreateRelation(_)));
        let seen = Seen { memory: &layer, caller: Caller { named, ..caller } };
        let verdict = decide_write(&seen, write, ids).and_then(|verdict| own(verdict, &seen));
        match verdict {
            Ok(Verdict { scope, events: happened, written, relations }) => {
                for event in happened {
                    let stream = scope_of(&event, &scope, &relations).to_string();
                    let event = Event::Memory(event);
                    layer.apply(&event)?;
                    events.push(Happened { stream, event });
                }
                results.push(Ok(written));
            }
            Err(DecideError::Refused(mut refusal)) => {
                *ids = drawn;
                refusal.index = index;
                results.push(Err(refusal));
            }
            Err(DecideError::Graph(error)) => return Err(error),
        }
    }
    if atomic && results.iter().any(Result::is_err) {
        *ids = first_id;
        results.retain(Result::is_err);
        return Ok(Decision { events: Vec::new(), results });
    }
    let Caller { actor, workspace, everywhere, .. } = caller;
    if !everywhere && !events.is_empty() && !present.agent_known(actor)? {
        let registered =
            AgentEvent::ExternalRegistered { agent: actor.clone(), workspace: workspace.clone() };
        events.insert(0, Happened { stream: "agents".to_owned(), event: registered.into() });
    }
    Ok(Decision { events, results })
}

/// The scope of the row that an event of a write to `scope` is about. Whoever erases a scope erases what was recorded of its
/// rows, and nothing that was recorded of others.
fn scope_of<'v>(
    event: &MemoryEvent,
    scope: &'v Scope,
    relations: &'v BTreeMap<MemoryId, Scope>,
) -> &'v Scope {
    if let MemoryEvent::RelationRemoved { id } = event { relations.get(id).unwrap_or(scope) } else { scope }
}

/// Refuses to write to somebody else's scope.
fn own(verdict: Verdict, seen: &Seen<'_>) -> Result<Verdict, DecideError> {
    if seen.sees(&verdict.scope) {
        return Ok(verdict);
    }
    let Caller { actor, workspace, named, .. } = seen.caller;
    let message = match named {
        Some(named) => format!("{} is not {named}, which the request names", verdict.scope),
        None => format!("{} is none of agent:{actor}, workspace:{workspace} and global", verdict.scope),
    };
    Err(check::refuse(RefusalCode::Validation, "scope", message, "name a scope you can see").into())
}

fn decide_write(present: &dyn Present, write: &Write, ids: &mut Ids) -> Result<Verdict, DecideError> {
    match write {
        Write::CreateEntity(wish) => entities::create(present, wish, ids),
        Write::UpdateEntity(wish) => entities::update(present, wish),
        Write::RemoveEntity { entity, expected_version } => {
            let entity = resolve(present, "entity", entity)?;
            entities::check_version(&entity, *expected_version)?;
            entities::remove(present, entity)
        }
        Write::AddObservations { entity, observations } => {
            if observations.is_empty() {
                let message = "there is no observation to add".to_owned();
                let remedy = "give at least one text";
                return Err(check::refuse(RefusalCode::Validation, "observations", message, remedy).into());
            }
            check::check_observations(observations)?;
            let entity = resolve(present, "entity", entity)?;
            entities::observe(present, entity, observations, ids)
        }
        Write::UpdateObservation { id, content, validity } => {
            entities::update_observation(present, *id, content.as_deref(), *validity)
        }
        Write::RemoveObservation { id } => entities::remove_observation(present, *id),
        Write::CreateRelation(wish) => relations::create(present, wish, ids),
        Write::UpdateRelation(wish) => relations::update(present, wish),
        Write::RemoveRelation { id } => relations::remove(present, *id),
        Write::Sweep { row, since } => sweep(present, *row, *since),
        Write::ClearScope { scope, entity_types } => entities::clear(present, scope, entity_types),
    }
}

/// The rules for what a sweep chose: it goes as it was when it was chosen, or it stays.
fn sweep(present: &dyn Present, row: SweptRow, since: Seq) -> Result<Verdict, DecideError> {
    if present.changed_since(row, since)? {
        let (field, name) = match row {
            SweptRow::Entity(id) => ("entity", format!("ent_{id}")),
            SweptRow::Relation(id) => ("relation_id", format!("rel_{id}")),
        };
        let message = format!("{name} is gone, or was changed after {since}");
        return Err(check::refuse(RefusalCode::VersionConflict, field, message, "choose again").into());
    }
    match row {
        SweptRow::Entity(id) => {
            let entity = EntityRef::Id { id, scopes: Vec::new() };
            entities::remove(present, resolve(present, "entity", &entity)?)
        }
        SweptRow::Relation(id) => relations::remove(present, id),
    }
}

/// The entity that `reference` means.
pub(super) fn resolve(
    present: &dyn Present,
    field: &str,
    reference: &EntityRef,
) -> Result<PresentEntity, DecideError> {
    let (by_number, name, scopes) = match reference {
        EntityRef::Id { id, scopes } => (present.entity(*id)?, &format!("ent_{id}"), scopes),
        EntityRef::Named { name, scopes } => (None, name, scopes),
    };
    if let Some(found) = by_number {
        return Ok(found);
    }
    check::check_name(field, name)?;
    for scope in scopes {
        if let Some(found) = present.entity_named(scope, name)? {
            return Ok(found);
        }
    }
    Err({
        let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        let message = format!("there is no entity {} in {}", check::excerpt(name), scopes.join(", "));
        let remedy = "create it first, or name another scope";
        check::refuse(RefusalCode::EntityNotFound, field, message, remedy).into()
    })
}
