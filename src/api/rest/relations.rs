//! Relations: a page, one, create, change, remove.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::{MemoryId, Scope};
use caxton_projections::graph::{Direction, Relation, RelationFilter};
use caxton_projections::view::{View, Wait};
use serde_json::{Value, json};

use super::Api;
use super::call::{Call, IDENTITY_BESIDE, ReadContext, WriteContext};
use super::caller::{CALLER, from_upwards};
use super::contents::of_relation;
use super::entities::Page;
use super::entity_writes::{answer, created_or_ok, only, reference};
use super::fields::Fields;
use super::ids::Row;
use super::problem::Problem;
use super::refusals::{self, graph_failed, whole};
use super::rows::{self, RelationRow, find_entity};
use crate::commands::write::{NewRelation, RelationChange};
use crate::commands::{EntityRef, OnExisting, Write, WriteStatus};
use crate::engine::Outcome;

/// Members of a relation to be created.
pub(super) const RELATION: &[&str] = &[
    "from_entity",
    "to_entity",
    "relation_type",
    "strength",
    "confidence",
    "metadata",
    "valid_from",
    "valid_to",
    "bidirectional",
    "on_existing",
];
const CHANGE: &[&str] = &["strength", "confidence", "metadata", "valid_from", "valid_to"];
/// What to do when the relation to create exists.
const ON_EXISTING: &[(&str, OnExisting)] = &[
    ("merge", OnExisting::Merge),
    ("update", OnExisting::Update),
    ("skip", OnExisting::Skip),
    ("refuse", OnExisting::Refuse),
];
/// Strength of a relation that names none.
const STRENGTH_DEFAULT: f64 = 0.5;
/// Spellings of directions.
pub(super) const DIRECTIONS: &[(&str, Direction)] = &[
    ("both", Direction::Both),
    ("outgoing", Direction::Outgoing),
    ("incoming", Direction::Incoming),
    ("bidirectional", Direction::Both),
];

/// The wish in the members of a relation.
pub(super) fn new_relation(fields: &mut Fields, context: &WriteContext) -> NewRelation {
    let ends = from_upwards(&context.scope, &context.caller.visible());
    NewRelation {
        scope: context.scope.clone(),
        from: reference(fields.required_text("from_entity"), ends.clone()),
        to: reference(fields.required_text("to_entity"), ends),
        relation_type: fields.required_text("relation_type"),
        strength: fields.number("strength", 0.0..=1.0).unwrap_or(STRENGTH_DEFAULT),
        confidence: fields.number("confidence", 0.0..=1.0).unwrap_or(1.0),
        metadata: fields.metadata("metadata").flatten(),
        validity: fields.validity().unwrap_or_default(),
        bidirectional: fields.flag("bidirectional").unwrap_or(false),
        on_existing: fields.choice("on_existing", ON_EXISTING).unwrap_or_default(),
    }
}

fn end(reference: &EntityRef) -> String {
    match reference {
        EntityRef::Id { id, .. } => Row::Entity.show(*id),
        EntityRef::Named { name, .. } => name.clone(),
    }
}

/// `POST /memory/relations`.
pub(super) async fn create(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(WriteContext::QUERY)?;
    let mut body = call.members(&[CALLER, RELATION])?;
    let context = WriteContext::take(&api, &call, &mut query, Some(&mut body));
    let wish = new_relation(&mut body, &context);
    body.absorb(query);
    body.finish()?;
    let asked = json!({
        "from_entity": end(&wish.from),
        "to_entity": end(&wish.to),
        "relation_type": wish.relation_type,
        "strength": wish.strength,
        "confidence": wish.confidence,
        "memory_scope": context.scope.kind(),
        "created_by": context.caller.agent,
    });
    let bidirectional = wish.bidirectional;
    let outcome = api.write(&context, vec![Write::CreateRelation(wish)], true).await;
    let (written, outcome) = only(outcome.map_err(|error| refusals::not_submitted(error, &whole))?)?;
    let shown = present(&api, &context, written.id).await;
    let mut shown = shown.unwrap_or_else(|| known(asked, written.status));
    shown["relation_id"] = json!(Row::Relation.show(written.id));
    shown["bidirectional"] = json!(bidirectional);
    shown["status"] = json!(written.status);
    shown["seq"] = json!(outcome.last);
    let location = format!("/api/v1/memory/relations/{}", Row::Relation.show(written.id));
    answer(created_or_ok(written.status), &shown, &outcome, Some(location))
}

/// What a write knows of a relation that it asked for.
fn known(mut asked: Value, status: WriteStatus) -> Value {
    // Who made one that was there it does not know, nor what one says of itself that was left as it is.
    let unknown: &[&str] = match status {
        WriteStatus::Created => &[],
        WriteStatus::Updated | WriteStatus::Unchanged | WriteStatus::Removed => &["created_by"],
        WriteStatus::Skipped => &["created_by", "strength", "confidence"],
    };
    if let Some(members) = asked.as_object_mut() {
        members.retain(|name, _| !unknown.contains(&name.as_str()));
    }
    asked
}

/// The relation as it stands now; `None` when nobody waited for it, it cannot be read, or it is gone again.
async fn present(api: &Api, context: &WriteContext, id: MemoryId) -> Option<Value> {
    if context.wait == Wait::Durable {
        return None;
    }
    let visible = context.caller.visible();
    let found = api.read_behind_write(move |view| {
        let Some(relation) = view.graph().relation(id).map_err(|error| graph_failed(&error))? else {
            return Ok(None);
        };
        let row = RelationRow::all(view, vec![relation], &visible)?.pop();
        serde_json::to_value(row).map(Some).map_err(|error| refusals::internal(&error))
    });
    found.await.flatten()
}

/// Which relations a page lists.
struct Listing {
    entity: Option<String>,
    direction: Direction,
    filter: RelationFilter,
}

/// `GET /memory/relations`: all that the caller sees, or those of `entity`, in the order of their ids.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let own: &[&str] = &["entity", "direction", "relation_types", "min_strength", "valid_at"];
    let mut query = call.query(&[ReadContext::QUERY[0], ReadContext::QUERY[1], Page::QUERY, own])?;
    let context = ReadContext::take(&call, &mut query);
    let page = Page::take(&api, &call, &mut query);
    let direction = query.choice("direction", DIRECTIONS);
    let mut listing = Listing {
        entity: query.text("entity"),
        direction: direction.unwrap_or_default(),
        filter: RelationFilter {
            scopes: context.scopes.clone(),
            relation_types: query.types("relation_types"),
            min_strength: query.number("min_strength", 0.0..=1.0).unwrap_or(0.0),
            valid_at: query.time("valid_at"),
            valid_between: None,
            after: None,
            limit: page.limit + 1,
        },
    };
    if direction.is_some() && listing.entity.is_none() {
        query.complain("direction", None, "needs an entity", "add entity=ID or NAME, or leave direction out");
    }
    query.finish()?;
    listing.filter.after = page.after()?.map(MemoryId);
    let moment = api.moment(&context, Wait::Applied).await?;
    api.query_at(moment, move |view| {
        let mut relations = match &listing.entity {
            Some(text) => around(view, text, &listing)?,
            None => view.graph().list_relations(&listing.filter).map_err(|error| graph_failed(&error))?,
        };
        let next_cursor = page.cut_to_room(&mut relations, |relation| relation.id.0, of_relation);
        let rows = RelationRow::all(view, relations, &context.caller.visible())?;
        let answer = json!({"count": rows.len(), "relations": rows, "next_cursor": next_cursor});
        rows::shown(view, &answer)
    })
    .await
}

/// The relations of one entity that pass the filter.
fn around(view: &View, text: &str, listing: &Listing) -> Result<Vec<Relation>, Problem> {
    let entity = find_entity(view, text, &listing.filter.scopes)?;
    let found = view.graph().relations_around(entity.id, listing.direction, &listing.filter);
    found.map_err(|error| graph_failed(&error))
}

/// The relation with this id, when it was written to one of `scopes`.
fn find(view: &View, id: MemoryId, scopes: &[Scope]) -> Result<Relation, Problem> {
    let found = view.graph().relation(id).map_err(|error| graph_failed(&error))?;
    let seen = found.filter(|relation| scopes.contains(&relation.scope));
    seen.ok_or_else(|| Row::Relation.missing(&Row::Relation.show(id)))
}

/// `GET /memory/relations/{id}`.
pub(super) async fn get(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(ReadContext::QUERY)?;
    let context = ReadContext::take(&call, &mut query);
    query.finish()?;
    let id = Row::Relation.in_path(call.path("id"))?;
    let moment = api.moment(&context, Wait::Applied).await?;
    api.query_at(moment, move |view| {
        let relation = find(view, id, &context.scopes)?;
        rows::shown(view, &RelationRow::all(view, vec![relation], &context.caller.visible())?.pop())
    })
    .await
}

/// `PATCH /memory/relations/{id}`.
pub(super) async fn patch(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(WriteContext::QUERY)?;
    let mut body = call.members(&[CALLER, CHANGE])?;
    let context = WriteContext::take(&api, &call, &mut query, Some(&mut body));
    let id = Row::Relation.in_path(call.path("id"))?;
    let change = RelationChange {
        id,
        strength: body.number("strength", 0.0..=1.0),
        confidence: body.number("confidence", 0.0..=1.0),
        metadata: body.metadata("metadata"),
        validity: body.validity_change(),
    };
    body.absorb(query);
    body.finish()?;
    let outcome = write_one(&api, &context, Write::UpdateRelation(change)).await?;
    let (written, outcome) = only(outcome)?;
    let mut shown = present(&api, &context, id).await.unwrap_or_else(|| json!({}));
    shown["relation_id"] = json!(Row::Relation.show(id));
    shown["status"] = json!(written.status);
    shown["seq"] = json!(outcome.last);
    answer(StatusCode::OK, &shown, &outcome, None)
}

/// `DELETE /memory/relations/{id}`: takes it out of the present.
pub(super) async fn delete(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.no_body(IDENTITY_BESIDE)?;
    let mut query = call.query(WriteContext::QUERY)?;
    let context = WriteContext::take(&api, &call, &mut query, None);
    query.finish()?;
    let id = Row::Relation.in_path(call.path("id"))?;
    let outcome = write_one(&api, &context, Write::RemoveRelation { id }).await?;
    let (written, outcome) = only(outcome)?;
    let body = json!({"relation_id": Row::Relation.show(id), "status": written.status, "seq": outcome.last});
    answer(StatusCode::OK, &body, &outcome, None)
}

async fn write_one(api: &Api, context: &WriteContext, write: Write) -> Result<Outcome, Problem> {
    let outcome = api.write(context, vec![write], true).await;
    outcome.map_err(|error| refusals::not_submitted(error, &whole))
}
