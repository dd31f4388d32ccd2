//! Observations: those of an entity, and one by its id.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::memory::Validity;
use caxton_events::{MemoryId, Scope};
use caxton_projections::graph::Observation;
use caxton_projections::view::{View, Wait};
use serde_json::json;

use super::Api;
use super::call::{Call, IDENTITY_BESIDE, ReadContext, WriteContext};
use super::caller::CALLER;
use super::contents::Room;
use super::entities::{Page, must_be_true, observations};
use super::entity_writes::{OBSERVATION, answer, created_or_ok, new_observations, only, reference, shown};
use super::ids::Row;
use super::problem::Problem;
use super::refusals::{self, graph_failed, whole};
use super::rows::{self, ObservationRow, find_entity};
use crate::commands::{Write, WriteStatus};

/// `GET /memory/entities/{id or name}/observations`: in the order they were added.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query =
        call.query(&[ReadContext::QUERY[0], ReadContext::QUERY[1], Page::QUERY, &["valid_at"]])?;
    let context = ReadContext::take(&call, &mut query);
    let page = Page::take(&api, &call, &mut query);
    let valid_at = query.time("valid_at");
    query.finish()?;
    let after = page.after()?.map(MemoryId);
    let moment = api.moment(&context, Wait::Applied).await?;
    let text = call.path("entity").to_owned();
    api.query_at(moment, move |view| {
        let entity = find_entity(view, &text, &context.scopes)?;
        must_be_true(&entity, valid_at)?;
        let (mut observations, is_short) =
            observations(view, entity.id, after, valid_at, page.limit + 1, &mut Room::default())?;
        let cut = page.cut(&mut observations, |observation| observation.id.0);
        let last = observations.last().filter(|_| is_short);
        let next_cursor = cut.or_else(|| last.map(|last| page.cursor_at(last.id.0)));
        let rows: Vec<_> = observations.into_iter().map(ObservationRow::from).collect();
        let answer = json!({
            "entity_id": Row::Entity.show(entity.id),
            "entity_name": entity.name,
            "count": rows.len(),
            "observations": rows,
            "next_cursor": next_cursor,
        });
        rows::shown(view, &answer)
    })
    .await
}

/// `POST /memory/entities/{id or name}/observations`: adds texts; those that are there already stay as they are.
pub(super) async fn add(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(WriteContext::QUERY)?;
    let mut body = call.members(&[CALLER, &["observations"]])?;
    let context = WriteContext::take(&api, &call, &mut query, Some(&mut body));
    let observations = new_observations(&mut body, "observations", true, &[OBSERVATION], Validity::default());
    body.absorb(query);
    body.finish()?;
    let entity = reference(call.path("entity").to_owned(), vec![context.scope.clone()]);
    let outcome = api.write(&context, vec![Write::AddObservations { entity, observations }], true).await;
    let (written, outcome) = only(outcome.map_err(|error| refusals::not_submitted(error, &whole))?)?;
    let mut body = json!({
        "entity_id": Row::Entity.show(written.id),
        "status": written.status,
        "observation_ids": shown(Row::Observation, &written.observations),
        "seq": outcome.last,
    });
    if !written.not_taken.is_empty() {
        body["not_taken"] = json!(written.not_taken);
    }
    let unchanged = written.status == WriteStatus::Unchanged;
    let status = if unchanged { StatusCode::OK } else { StatusCode::CREATED };
    answer(status, &body, &outcome, None)
}

/// The observation with this id, when its entity is in one of `scopes`.
fn find(view: &View, id: MemoryId, scopes: &[Scope]) -> Result<Observation, Problem> {
    let failed = |error| graph_failed(&error);
    let found = view.graph().observation(id).map_err(failed)?;
    let missing = || Row::Observation.missing(&Row::Observation.show(id));
    let observation = found.ok_or_else(missing)?;
    let entity = view.graph().entity(observation.entity).map_err(failed)?;
    match entity {
        Some(entity) if scopes.contains(&entity.scope) => Ok(observation),
        Some(_) | None => Err(missing()),
    }
}

/// `GET /memory/observations/{id}`.
pub(super) async fn get(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(ReadContext::QUERY)?;
    let context = ReadContext::take(&call, &mut query);
    query.finish()?;
    let id = Row::Observation.in_path(call.path("id"))?;
    let moment = api.moment(&context, Wait::Applied).await?;
    api.query_at(moment, move |view| {
        let observation = find(view, id, &context.scopes)?;
        rows::shown(view, &ObservationRow::from(observation))
    })
    .await
}

/// `PATCH /memory/observations/{id}`.
pub(super) async fn patch(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(WriteContext::QUERY)?;
    let mut body = call.members(&[CALLER, OBSERVATION])?;
    let context = WriteContext::take(&api, &call, &mut query, Some(&mut body));
    let content = body.text("content");
    let validity = body.validity_change();
    body.absorb(query);
    body.finish()?;
    let id = Row::Observation.in_path(call.path("id"))?;
    write_one(&api, &context, id, Write::UpdateObservation { id, content, validity }).await
}

/// `DELETE /memory/observations/{id}`: takes it out of the present.
pub(super) async fn delete(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.no_body(IDENTITY_BESIDE)?;
    let mut query = call.query(WriteContext::QUERY)?;
    let context = WriteContext::take(&api, &call, &mut query, None);
    query.finish()?;
    let id = Row::Observation.in_path(call.path("id"))?;
    write_one(&api, &context, id, Write::RemoveObservation { id }).await
}

async fn write_one(
    api: &Api,
    context: &WriteContext,
    id: MemoryId,
    write: Write,
) -> Result<Response, Problem> {
    let outcome = api.write(context, vec![write], true).await;
    let (written, outcome) = only(outcome.map_err(|error| refusals::not_submitted(error, &whole))?)?;
    let body = json!({
        "observation_id": Row::Observation.show(id),
        "entity_id": Row::Entity.show(written.id),
        "status": written.status,
        "seq": outcome.last,
    });
    answer(created_or_ok(written.status), &body, &outcome, None)
}
