//! Writing entities: create, change, replace, remove, and clearing a scope.

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use caxton_events::memory::Validity;
use caxton_events::{MemoryId, Scope, Seq, Timestamp};
use caxton_projections::view::{View, Wait};
use serde::Serialize;
use serde_json::{Value, json};

use super::Api;
use super::call::{Call, IDENTITY_BESIDE, WriteContext};
use super::caller::{CALLER, ScopeKind};
use super::fields::Fields;
use super::ids::Row;
use super::middleware::expected_version;
use super::problem::{Complaint, Problem, shortened};
use super::refusals::{self, graph_failed, whole};
use super::rows;
use crate::commands::write::{EntityChange, ExpectedVersion, NewEntity};
use crate::commands::{
    self, EntityRef, NewObservation, OnExisting, Refusal, RefusalCode, Write, WriteStatus, Written,
};
use crate::engine::{Outcome, SubmitError};

/// Members of an entity to be created.
pub(super) const ENTITY: &[&str] = &[
    "entity_name",
    "entity_type",
    "observations",
    "metadata",
    "confidence",
    "valid_from",
    "valid_to",
    "on_existing",
];
/// Members of an observation to be added.
pub(super) const OBSERVATION: &[&str] = &["content", "valid_from", "valid_to"];
/// What to do when the entity to create exists.
const ON_EXISTING: &[(&str, OnExisting)] = &[
    ("merge", OnExisting::Merge),
    ("extend", OnExisting::Extend),
    ("update", OnExisting::Update),
    ("skip", OnExisting::Skip),
    ("refuse", OnExisting::Refuse),
];
/// Most observations in one list.
pub(super) const OBSERVATIONS_MAX: usize = 10_000;
const CHANGE: &[&str] =
    &["entity_name", "entity_type", "metadata", "confidence", "valid_from", "valid_to", "expected_version"];

impl Api {
    /// Submits `writes` as one command and takes the time.
    pub(super) async fn write(
        &self,
        context: &WriteContext,
        writes: Vec<Write>,
        atomic: bool,
    ) -> Result<Outcome, SubmitError> {
        let started = std::time::Instant::now();
        let outcome = self.engine.submit(context.submission(writes, atomic)).await?;
        self.meter.store_finished(started.elapsed());
        Ok(outcome)
    }

    /// What the rules say against `writes` at the moment, none of which is written. It goes with a refusal: where the memory
    /// cannot be read, there is nothing to add to that.
    pub(super) async fn refusals(&self, context: &WriteContext, writes: Vec<Write>) -> Vec<Refusal> {
        let engine = self.engine.clone();
        let (actor, workspace) = (context.caller.agent.clone(), context.caller.workspace.clone());
        let named = context.caller.named_scope();
        let told = self.read(move |_| {
            let (actor, workspace, named) = (&actor, &workspace, named.as_ref());
            let caller = commands::Caller { actor, workspace, named, everywhere: false };
            engine.refusals(caller, &writes).map_err(|error| graph_failed(&error))
        });
        told.await.unwrap_or_default()
    }
}

/// The entity that a text in a request means: an id, or a name looked up in `scopes`.
pub(super) fn reference(text: String, scopes: Vec<Scope>) -> EntityRef {
    match Row::Entity.parse(&text) {
        Some(id) => EntityRef::Id { id, scopes },
        None => EntityRef::Named { name: text, scopes },
    }
}

/// The entity that the path means, in the scope of the write.
fn in_path(call: &Call, context: &WriteContext) -> EntityRef {
    reference(call.path("entity").to_owned(), vec![context.scope.clone()])
}

/// The wish in the members of an entity.
pub(super) fn new_entity(fields: &mut Fields, scope: Scope, known: &[&[&str]]) -> NewEntity {
    NewEntity {
        scope,
        name: fields.required_text("entity_name"),
        entity_type: fields.required_text("entity_type"),
        observations: new_observations(fields, "observations", false, known, Validity::default()),
        metadata: fields.metadata("metadata").flatten(),
        confidence: fields.number("confidence", 0.0..=1.0).unwrap_or(1.0),
        validity: fields.validity().unwrap_or_default(),
        on_existing: fields.choice("on_existing", ON_EXISTING).unwrap_or_default(),
    }
}

/// The observations in a list: texts, or objects with `known` members. One without times of its own has those of `validity`.
pub(super) fn new_observations(
    fields: &mut Fields,
    name: &str,
    required: bool,
    known: &[&[&str]],
    validity: Validity,
) -> Vec<NewObservation> {
    let items = fields.list(name, required, OBSERVATIONS_MAX);
    read_observations(fields, name, items, known, validity)
}

/// The same of the `items` of a list.
pub(super) fn read_observations(
    fields: &mut Fields,
    name: &str,
    items: Vec<Value>,
    known: &[&[&str]],
    validity: Validity,
) -> Vec<NewObservation> {
    let mut observations = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        if let Value::String(content) = item {
            observations.push(NewObservation { content, validity });
            continue;
        }
        let mut part = fields.part(item, &format!("{name}[{index}]"), known);
        let content = part.required_text("content");
        observations.push(NewObservation { content, validity: part.validity().unwrap_or(validity) });
        fields.absorb(part);
    }
    observations
}

/// The answer to a written entity.
#[derive(Serialize)]
pub(super) struct EntityWritten {
    entity_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_type: Option<String>,
    status: WriteStatus,
    version: u32,
    observation_count: Option<u64>,
    observation_ids: Vec<String>,
    memory_scope: &'static str,
    agent_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<String>,
    created_at: Option<Timestamp>,
    updated_at: Option<Timestamp>,
    embedding_generated: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_taken: Vec<String>,
    seq: Seq,
}

/// What a request says of a write that the write does not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    /// Whether it gives a confidence.
    pub(super) gives_confidence: bool,
    /// Whether it gives the one text of the write as `content`, not as a list.
    pub(super) gives_content: bool,
}

impl Asked {
    /// Names a field of the write as the request does.
    fn rename(self, field: &mut String) {
        if !self.gives_content {
            return;
        }
        if field.as_str() == "observations" {
            "content".clone_into(field);
            return;
        }
        let Some(rest) = field.strip_prefix("observations[0]") else { return };
        let name = rest.strip_prefix('.').unwrap_or("content").to_owned();
        *field = name;
    }
}

/// What became of writes, as those who asked for them are told: in the words of their requests, and of a confidence that a
/// request does not give, nobody is told that it was not taken.
pub(super) fn as_asked(
    mut outcome: Result<Outcome, SubmitError>,
    asked: &[Asked],
) -> Result<Outcome, SubmitError> {
    match &mut outcome {
        Ok(outcome) => {
            for (result, asked) in outcome.results.iter_mut().zip(asked) {
                match result {
                    Ok(Written { not_taken, .. }) => {
                        not_taken.retain(|field| asked.gives_confidence || field != "confidence");
                        for field in not_taken {
                            asked.rename(field);
                        }
                    }
                    Err(refusal) => asked.rename(&mut refusal.field),
                }
            }
        }
        Err(SubmitError::Refused(refusals)) => {
            for refusal in refusals {
                let asked = asked.get(refusal.index).copied().unwrap_or_default();
                asked.rename(&mut refusal.field);
            }
        }
        Err(_) => (),
    }
    outcome
}

/// Ids as clients see them.
pub(super) fn shown(row: Row, ids: &[MemoryId]) -> Vec<String> {
    ids.iter().map(|id| row.show(*id)).collect()
}

/// The one result of a command with one write.
pub(super) fn only(outcome: Outcome) -> Result<(Written, Outcome), Problem> {
    match outcome.results.first() {
        Some(Ok(written)) => Ok((written.clone(), outcome)),
        Some(Err(refusal)) => Err(refusals::refused(vec![refusal.clone()], &whole)),
        None => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL_ERROR",
            "the engine answered without a result",
        )),
    }
}

/// An answer to a write, with the headers that go with it.
pub(super) fn answer(
    status: StatusCode,
    body: &impl Serialize,
    outcome: &Outcome,
    location: Option<String>,
) -> Result<Response, Problem> {
    let mut response = rows::json(status, body)?;
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("caxton-seq"), HeaderValue::from(outcome.last.0));
    if outcome.replayed {
        headers.insert(HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"));
    }
    if let Some(location) = location.and_then(|location| HeaderValue::from_str(&location).ok()) {
        headers.insert(header::LOCATION, location);
    }
    Ok(response)
}

/// 201 when something new is there, 200 otherwise.
pub(super) fn created_or_ok(status: WriteStatus) -> StatusCode {
    if status == WriteStatus::Created { StatusCode::CREATED } else { StatusCode::OK }
}

/// `POST /memory/entities`.
pub(super) async fn create(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(WriteContext::QUERY)?;
    let mut body = call.members(&[CALLER, ENTITY])?;
    let context = WriteContext::take(&api, &call, &mut query, Some(&mut body));
    let asked = Asked { gives_confidence: body.given("confidence"), gives_content: false };
    let wish = new_entity(&mut body, context.scope.clone(), &[OBSERVATION]);
    body.absorb(query);
    body.finish()?;
    let (name, entity_type) = (wish.name.clone(), wish.entity_type.clone());
    let outcome = as_asked(api.write(&context, vec![Write::CreateEntity(wish)], true).await, &[asked]);
    let (written, outcome) = only(outcome.map_err(|error| refusals::not_submitted(error, &whole))?)?;
    entity_written(&api, &context, written, outcome, Some(name), Some(entity_type)).await
}

/// Tells the client what stands there now; without waiting for it, or where it cannot be read, what is known from the write
/// itself. An answer that was kept does not know all of that, and what it is about stands there: a key is looked up behind
/// everything written before.
async fn entity_written(
    api: &Api,
    context: &WriteContext,
    written: Written,
    outcome: Outcome,
    name: Option<String>,
    entity_type: Option<String>,
) -> Result<Response, Problem> {
    // Of what was there already an answer that was kept does not say which type it has.
    let is_known = !outcome.replayed || written.status == WriteStatus::Created;
    let mut body = EntityWritten {
        entity_id: Row::Entity.show(written.id),
        entity_name: written.entity_name.or(name),
        entity_type: written.entity_type.or(entity_type).filter(|_| is_known),
        status: written.status,
        version: written.version,
        observation_count: None,
        observation_ids: shown(Row::Observation, &written.observations),
        memory_scope: context.scope.kind(),
        agent_id: context.caller.agent.to_string(),
        workspace: rows::workspace_of(&context.scope),
        created_at: Some(outcome.recorded_at).filter(|_| written.status == WriteStatus::Created),
        updated_at: Some(outcome.recorded_at).filter(|_| written.status != WriteStatus::Unchanged),
        embedding_generated: context.wait == Wait::Indexed && api.engine.view().semantic().is_some(),
        not_taken: written.not_taken,
        seq: outcome.last,
    };
    if (context.wait != Wait::Durable || outcome.replayed)
        && let Some((row, count)) =
            api.read_behind_write(move |view| present(view, written.id)).await.flatten()
    {
        body.observation_count = Some(count);
        body.entity_name = Some(row.entity_name);
        body.entity_type = Some(row.entity_type);
        body.memory_scope = row.memory_scope;
        body.agent_id = row.agent_id;
        body.workspace = row.workspace;
        body.created_at = Some(row.created_at);
        body.updated_at = Some(row.updated_at);
    }
    let status = created_or_ok(body.status);
    let location = format!("/api/v1/memory/entities/{}", body.entity_id);
    answer(status, &body, &outcome, Some(location))
}

/// An entity with the number of its observations; `None` when it is gone again.
fn present(view: &View, id: MemoryId) -> Result<Option<(rows::EntityRow, u64)>, Problem> {
    let failed = |error| graph_failed(&error);
    let Some(entity) = view.graph().entity(id).map_err(failed)? else { return Ok(None) };
    let count = view.graph().observation_count(id).map_err(failed)?;
    Ok(Some((entity.into(), count)))
}

/// `PATCH /memory/entities/{id or name}`: changes what is given.
pub(super) async fn patch(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    change(&api, &call, false).await
}

/// `PUT /memory/entities/{id or name}`: describes the entity anew; what is not given takes its default. Observations
/// have paths of their own.
pub(super) async fn put(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    change(&api, &call, true).await
}

async fn change(api: &Api, call: &Call, whole_row: bool) -> Result<Response, Problem> {
    let mut query = call.query(WriteContext::QUERY)?;
    let mut body = call.members(&[CALLER, CHANGE])?;
    let context = WriteContext::take(api, call, &mut query, Some(&mut body));
    let in_header = expected_version(call.headers(), &mut query);
    let in_body = body.integer("expected_version", 1..=u64::from(u32::MAX));
    let in_body = in_body.map(|version| ExpectedVersion::from(version as u32));
    let mut change = EntityChange {
        entity: in_path(call, &context),
        name: body.text("entity_name"),
        entity_type: if whole_row {
            Some(body.required_text("entity_type"))
        } else {
            body.text("entity_type")
        },
        metadata: body.metadata("metadata"),
        confidence: body.number("confidence", 0.0..=1.0),
        validity: if whole_row { body.validity() } else { body.validity_change() },
        expected_version: in_header.or(in_body),
    };
    if whole_row {
        change.metadata.get_or_insert(None);
        change.confidence.get_or_insert(1.0);
        change.validity.get_or_insert_default();
    }
    body.absorb(query);
    body.finish()?;
    let (name, entity_type) = (change.name.clone(), change.entity_type.clone());
    let outcome = api.write(&context, vec![Write::UpdateEntity(change)], true).await;
    let outcome = outcome.map_err(|error| not_changed(error, call, in_header))?;
    let (written, outcome) = only(outcome)?;
    entity_written(api, &context, written, outcome, name, entity_type).await
}

/// Why an entity was not changed. A version that `If-Match` asked for and that is gone is 412 and told of the header; one
/// that the body asked for is 409 and told of its member.
fn not_changed(error: SubmitError, call: &Call, in_header: Option<ExpectedVersion>) -> Problem {
    if let SubmitError::Refused(refused) = &error
        && let Some(stale) = refused.iter().find(|refusal| refusal.code == RefusalCode::VersionConflict)
        && in_header.is_some()
    {
        let given = call.headers().get(header::IF_MATCH).and_then(|value| value.to_str().ok());
        let complaint = Complaint {
            field: "If-Match".to_owned(),
            value: given.map(shortened),
            ..refusals::complaint(stale.clone(), &whole)
        };
        return Problem::complaints(StatusCode::PRECONDITION_FAILED, vec![complaint]);
    }
    call.with_values(refusals::not_submitted(error, &whole))
}

/// `DELETE /memory/entities/{id or name}`: takes it out of the present with its observations and relations.
pub(super) async fn delete(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.no_body(IDENTITY_BESIDE)?;
    let mut query = call.query(WriteContext::QUERY)?;
    let context = WriteContext::take(&api, &call, &mut query, None);
    let expected_version = expected_version(call.headers(), &mut query);
    query.finish()?;
    let write = Write::RemoveEntity { entity: in_path(&call, &context), expected_version };
    let outcome = api.write(&context, vec![write], true).await;
    let (written, outcome) = only(outcome.map_err(|error| not_changed(error, &call, expected_version))?)?;
    let body = json!({
        "entity_id": Row::Entity.show(written.id),
        "status": written.status,
        "relations_deleted": written.removed_relations,
        "seq": outcome.last,
    });
    answer(StatusCode::OK, &body, &outcome, None)
}

/// `DELETE /memory/{agent_id}?confirm=true`: takes a whole scope out of the present.
pub(super) async fn clear(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.no_body(IDENTITY_BESIDE)?;
    let own: &[&str] = &["entity_types", "confirm"];
    let mut query = call.query(&[WriteContext::QUERY[0], WriteContext::QUERY[1], own])?;
    let mut path = Fields::object(json!({"agent_id": call.path("agent_id")}), String::new(), &[CALLER]);
    let context = WriteContext::take(&api, &call, &mut query, Some(&mut path));
    let entity_types = query.types("entity_types");
    let confirmed = query.flag("confirm") == Some(true);
    query.absorb(path);
    query.finish()?;
    // What is cleared is the agent's own memory unless another scope is named, whatever writes go to by default.
    let scope = context.caller.writes(ScopeKind::Agent);
    if !confirmed {
        let detail = format!("this takes every entity of {scope} out of the present");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "CONFIRMATION_REQUIRED", detail)
            .field("confirm")
            .remedy("add confirm=true"));
    }
    let write = Write::ClearScope { scope: scope.clone(), entity_types };
    let outcome = api.write(&context, vec![write], true).await;
    let (written, outcome) = only(outcome.map_err(|error| refusals::not_submitted(error, &whole))?)?;
    let body = json!({
        "agent_id": context.caller.agent,
        "memory_scope": scope.kind(),
        "entities_deleted": written.removed_entities,
        "relations_deleted": written.removed_relations,
        "cleared_at": outcome.recorded_at,
        "seq": outcome.last,
    });
    answer(StatusCode::OK, &body, &outcome, None)
}
