//! Many writes in one request: a JSON list, all or nothing unless asked otherwise, or NDJSON, each line for itself.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::memory::Validity;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Instant;

use super::Api;
use super::call::{Call, WriteContext};
use super::caller::CALLER;
use super::entity_writes::{
    Asked, ENTITY, OBSERVATION, answer, as_asked, new_entity, new_observations, reference, shown,
};
use super::fields::{Fields, Sorted};
use super::ids::Row;
use super::lines;
use super::problem::{Complaint, Problem, shortened};
use super::refusals;
use super::relations::{RELATION, new_relation};
use crate::commands::{EntityRef, NewObservation, Refusal, Write, WriteStatus, Written, WrittenKind};
use crate::engine::SubmitError;

/// What a batch is made of.
pub(super) struct Kind {
    /// The member of the body that holds the list.
    list: &'static str,
    /// Members of one item.
    pub(super) known: &'static [&'static [&'static str]],
    /// Reads one item.
    read: fn(&mut Fields, &WriteContext) -> Write,
}

/// One item of a batch.
pub(super) struct Item {
    pub(super) write: Write,
    pub(super) asked: Asked,
}

impl Kind {
    /// Reads one item.
    pub(super) fn item(&self, fields: &mut Fields, context: &WriteContext) -> Item {
        let asked =
            Asked { gives_confidence: fields.given("confidence"), gives_content: fields.given("content") };
        Item { write: (self.read)(fields, context), asked }
    }
}

const OBSERVATION_ITEM: &[&str] = &["entity", "entity_id", "entity_name", "observations"];
/// Names of the entity of an observation, which mean the same.
const ENTITY_NAMES: [&str; 3] = ["entity", "entity_id", "entity_name"];

static ENTITIES: Kind = Kind {
    list: "entities",
    known: &[ENTITY],
    read: |fields, context| Write::CreateEntity(new_entity(fields, context.scope.clone(), &[OBSERVATION])),
};
static OBSERVATIONS: Kind =
    Kind { list: "observations", known: &[OBSERVATION_ITEM, OBSERVATION], read: observation_item };
static RELATIONS: Kind = Kind {
    list: "relations",
    known: &[RELATION],
    read: |fields, context| Write::CreateRelation(new_relation(fields, context)),
};

/// An entity with one `content` or several `observations`. The times of the item are those of each text that has none of its
/// own.
fn observation_item(fields: &mut Fields, context: &WriteContext) -> Write {
    // What is there and of another kind than a text is told of once, and is not missing besides.
    if !ENTITY_NAMES.iter().any(|name| fields.given(name)) {
        fields.complain("entity", None, "is missing", "add the id or the name of the entity");
    }
    let entity = entity_of(fields).unwrap_or_default();
    let (gives_content, gives_list) = (fields.given("content"), fields.given("observations"));
    let validity: Validity = fields.validity().unwrap_or_default();
    let mut observations = new_observations(fields, "observations", false, &[OBSERVATION], validity);
    let content = fields.text("content");
    if gives_content && gives_list {
        let message = "does not go with observations: an item has the one or the other";
        let remedy = "put this text into observations, or leave content or observations out";
        fields.complain("content", content.as_deref(), message, remedy);
    } else if !gives_content && !gives_list {
        fields.complain("content", None, "is missing", "add a content, or a list of observations");
    }
    observations.extend(content.map(|content| NewObservation { content, validity }));
    Write::AddObservations { entity: reference(entity, vec![context.scope.clone()]), observations }
}

/// The entity that an item names. Named twice it must be in the same words: whether an id and a name are one entity is known only
/// where it is written.
fn entity_of(fields: &mut Fields) -> Option<String> {
    let mut named: Option<(&str, String)> = None;
    for name in ENTITY_NAMES {
        let Some(text) = fields.text(name) else { continue };
        match &named {
            Some((before, other)) if *other != text => {
                let (other, is_id) = (shortened(other), |text: &str| Row::Entity.parse(text).is_some());
                let (message, remedy) = if is_id(&other) == is_id(&text) {
                    let message = format!("is not what {before} says beside it, {other:?}");
                    (message, "leave one of them out: they mean the same")
                } else {
                    let why = "whether an id and a name are the same is known only where it is written";
                    let message = format!("names the entity again beside {before}, {other:?}: {why}");
                    (message, "name it once, by its id or by its name: leave one of them out")
                };
                fields.complain(name, Some(&text), &message, remedy);
            }
            Some(_) => (),
            None => named = Some((name, text)),
        }
    }
    named.map(|(_, text)| text)
}

/// `POST /memory/entities/batch`.
pub(super) async fn entities(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    write(api, call, &ENTITIES).await
}

/// `POST /memory/observations/batch`.
pub(super) async fn observations(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    write(api, call, &OBSERVATIONS).await
}

/// `POST /memory/relations/batch`.
pub(super) async fn relations(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    write(api, call, &RELATIONS).await
}

async fn write(api: Api, call: Call, kind: &'static Kind) -> Result<Response, Problem> {
    let started = Instant::now();
    let mut query = call.query(WriteContext::QUERY)?;
    if call.is_lines() {
        let context = WriteContext::take(&api, &call, &mut query, None);
        query.finish()?;
        return Ok(lines::written(api, context, call, kind));
    }
    let mut body = call.members(&[CALLER, &[kind.list, "atomic"]])?;
    let context = WriteContext::take(&api, &call, &mut query, Some(&mut body));
    let atomic = body.flag("atomic").unwrap_or(true);
    let items = body.list(kind.list, true, api.options.batch_items_max);
    if items.is_empty() && body.is_fine() {
        body.complain(kind.list, None, "is empty", "give at least one item");
    }
    // Who asks decides what an item may name.
    let is_known_who = body.is_fine() && query.is_fine();
    let mut read = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let mut part = body.part(item, &format!("{}[{index}]", kind.list), kind.known);
        read.push((kind.item(&mut part, &context), part));
    }
    let Sorted { good, bad } = body.sorted(read, atomic);
    body.absorb(query);
    if is_known_who && !body.is_fine() {
        tell_refusals(&api, &context, (kind.list, good.as_slice()), &mut body).await;
    }
    body.finish()?;

    let (labels, asked): (Vec<_>, Vec<Asked>) =
        good.iter().map(|(_, item)| (label(&item.write), item.asked)).unzip();
    let (places, writes): (Vec<usize>, Vec<Write>) =
        good.into_iter().map(|(at, item)| (at, item.write)).unzip();
    let place_of = |index: usize| places.get(index).copied().unwrap_or(index);
    let place = |index: usize| format!("{}[{}].", kind.list, place_of(index));
    let outcome = as_asked(api.write(&context, writes, atomic).await, &asked);
    let outcome = outcome.map_err(|error| refusals::not_submitted(error, &place))?;
    let mut tally = Tally::default();
    let mut results = BTreeMap::new();
    for ((at, label), result) in places.iter().zip(labels).zip(&outcome.results) {
        results.insert(*at, tally.item(label, result.clone(), &place));
    }
    for (at, complaint, item) in &bad {
        tally.failed += 1;
        results.insert(*at, failed(label(&item.write), complaint, StatusCode::UNPROCESSABLE_ENTITY));
    }
    if tally.failed > 0 && tally.failed == results.len() {
        let refusals: Vec<Refusal> = outcome.results.into_iter().filter_map(Result::err).collect();
        return Err(refusals::refused_beside(refusals, &place, bad.into_iter().map(|(_, told, _)| told)));
    }
    let results: Vec<_> = results.into_values().collect();
    let list = kind.list;
    // Of a batch that writes nothing the last record is another's.
    let writes = tally.created + tally.updated > 0;
    let body = json!({
        "batch_id": writes.then(|| format!("batch_{}", outcome.last.0)),
        format!("{list}_created"): tally.created,
        format!("{list}_updated"): tally.updated,
        format!("{list}_unchanged"): tally.unchanged,
        format!("failed_{list}"): tally.failed,
        "processing_time_ms": millis(started),
        "results": results,
        "seq": outcome.last,
    });
    let status = match (tally.failed, tally.created) {
        (0, 0) => StatusCode::OK,
        (0, _) => StatusCode::CREATED,
        _ => StatusCode::MULTI_STATUS,
    };
    answer(status, &body, &outcome, None)
}

/// Adds to what is wrong with some items what the rules say against the others, so that one answer tells all of it.
async fn tell_refusals(
    api: &Api,
    context: &WriteContext,
    (list, items): (&str, &[(usize, Item)]),
    body: &mut Fields,
) {
    let writes: Vec<Write> = items.iter().map(|(_, item)| item.write.clone()).collect();
    if writes.is_empty() {
        return;
    }
    let asked: Vec<Asked> = items.iter().map(|(_, item)| item.asked).collect();
    let refused = as_asked(Err(SubmitError::Refused(api.refusals(context, writes).await)), &asked);
    let Err(SubmitError::Refused(refusals)) = refused else { return };
    let place = |index: usize| format!("{list}[{}].", items.get(index).map_or(index, |(at, _)| *at));
    for refusal in refusals {
        body.tell(refusals::complaint(refusal, &place));
    }
}

/// Milliseconds since `started`, with three decimals.
pub(super) fn millis(started: Instant) -> f64 {
    started.elapsed().as_micros() as f64 / 1e3
}

/// What names an item in its result.
pub(super) fn label(write: &Write) -> Map<String, Value> {
    let mut label = Map::new();
    let name = |entity: &EntityRef| match entity {
        EntityRef::Id { id, .. } => Row::Entity.show(*id),
        EntityRef::Named { name, .. } => name.clone(),
    };
    match write {
        Write::CreateEntity(wish) => {
            label.insert("entity_name".to_owned(), json!(wish.name));
        }
        Write::CreateRelation(wish) => {
            label.insert("from_entity".to_owned(), json!(name(&wish.from)));
            label.insert("to_entity".to_owned(), json!(name(&wish.to)));
            label.insert("relation_type".to_owned(), json!(wish.relation_type));
        }
        Write::AddObservations { entity, .. } => {
            label.insert("entity".to_owned(), json!(name(entity)));
        }
        Write::UpdateEntity(_)
        | Write::RemoveEntity { .. }
        | Write::UpdateObservation { .. }
        | Write::RemoveObservation { .. }
        | Write::UpdateRelation(_)
        | Write::RemoveRelation { .. }
        | Write::Sweep { .. }
        | Write::ClearScope { .. } => (),
    }
    label
}

/// How many items ended how.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) created: usize,
    pub(super) updated: usize,
    pub(super) unchanged: usize,
    pub(super) failed: usize,
}

impl Tally {
    /// Counts one result and shows it.
    pub(super) fn item(
        &mut self,
        label: Map<String, Value>,
        result: Result<Written, Refusal>,
        place: refusals::Place<'_>,
    ) -> Map<String, Value> {
        match result {
            Ok(written) => {
                match written.status {
                    WriteStatus::Created => self.created += 1,
                    WriteStatus::Updated | WriteStatus::Removed => self.updated += 1,
                    WriteStatus::Unchanged | WriteStatus::Skipped => self.unchanged += 1,
                }
                done(label, &written)
            }
            Err(refusal) => {
                self.failed += 1;
                let status = refusals::status_of(refusal.code);
                failed(label, &refusals::complaint(refusal, place), status)
            }
        }
    }
}

/// An item that was written.
pub(super) fn done(mut item: Map<String, Value>, written: &Written) -> Map<String, Value> {
    item.insert("status".to_owned(), json!(written.status));
    match written.kind {
        WrittenKind::Entity | WrittenKind::Observations => {
            item.insert("entity_id".to_owned(), json!(Row::Entity.show(written.id)));
            item.insert("version".to_owned(), json!(written.version));
            item.insert("observation_ids".to_owned(), json!(shown(Row::Observation, &written.observations)));
        }
        WrittenKind::Relation => {
            item.insert("relation_id".to_owned(), json!(Row::Relation.show(written.id)));
        }
        WrittenKind::Scope => (),
    }
    if !written.not_taken.is_empty() {
        item.insert("not_taken".to_owned(), json!(written.not_taken));
    }
    item
}

/// An item that was not.
pub(super) fn failed(
    mut item: Map<String, Value>,
    complaint: &Complaint,
    status: StatusCode,
) -> Map<String, Value> {
    // What a line of its own would be answered with.
    let status = match complaint.code {
        "MALFORMED_JSON" | "INVALID_UTF8" => StatusCode::BAD_REQUEST,
        "BODY_TOO_LARGE" => StatusCode::PAYLOAD_TOO_LARGE,
        _ => status,
    };
    item.insert("status".to_owned(), json!("failed"));
    item.insert("http_status".to_owned(), json!(status.as_u16()));
    item.insert("code".to_owned(), json!(complaint.code));
    item.insert("field".to_owned(), json!(complaint.field));
    item.insert("message".to_owned(), json!(complaint.message));
    item.insert("remedy".to_owned(), json!(complaint.remedy));
    item
}
