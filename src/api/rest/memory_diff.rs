//! `GET /memory/diff`: what differs in the memory between two moments.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::limits::CONTENTS_BYTES_MAX;
use caxton_events::{MemoryId, Scope, Seq};
use caxton_projections::graph::{Diff, DiffQuery, Difference, Fact};
use caxton_projections::view::{Part, View, Wait};
use serde::Serialize;
use serde_json::{Value, json};

use super::Api;
use super::call::{Call, READ_QUERY};
use super::caller::{CALLER, Caller};
use super::contents::Room;
use super::entities::Page;
use super::moment::{Moment, Named, marked};
use super::problem::Problem;
use super::refusals::{graph_failed, internal};
use super::rows::{self, EntityRow, ObservationRow, RelationRow, names_of};

/// A row that is not the same at both moments.
#[derive(Serialize)]
struct DifferenceRow {
    /// The record that made it what it is at the end, or removed it.
    seq: Seq,
    kind: &'static str,
    change: &'static str,
    /// The name of the entity that an observation is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_name: Option<String>,
    before: Value,
    after: Value,
}

/// `GET /memory/diff`: from one moment to another, by default to the present.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[CALLER, READ_QUERY, Page::QUERY, &["from", "to"]])?;
    let caller = Caller::take(&mut [&mut query], call.headers());
    let page = Page::take(&api, &call, &mut query);
    let min_seq = call.min_seq(&mut query);
    if !query.given("from") {
        query.complain(
            "from",
            None,
            "is missing",
            "give a seq or a time to compare with; 0 is the beginning",
        );
    }
    let (from, to) = (Named::take(&mut query, "from"), Named::take(&mut query, "to"));
    query.finish()?;
    let cursor = page.after_bound()?;
    api.caught_up(min_seq, Wait::Applied).await?;
    let from = api.named_moment("from", from.unwrap_or(Named::Seq(Seq::ZERO)), None).await?;
    let to = match (cursor, to) {
        // Pages of one request see the same end, whatever is written meanwhile.
        (Some((_, end)), _) => Named::Seq(Seq(end)),
        (None, Some(named)) => named,
        (None, None) => Named::Seq(api.engine.view().positions().get(Part::Graph).seq),
    };
    let to = api.named_moment("to", to, min_seq).await?;
    if from.seq > to.seq {
        let detail = format!("from: record {} is behind record {} of to", from.seq, to.seq);
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_ERROR", detail)
            .field("from")
            .value(&from.seq.to_string())
            .remedy("name the earlier moment in from"));
    }
    api.caught_up(Some(to.seq), Wait::Applied).await?;
    let after = cursor.map_or(from.seq, |(place, _)| Seq(place));
    let diff = DiffQuery {
        scopes: caller.reads(),
        from: from.seq,
        to: to.seq,
        after,
        limit: page.limit,
        bytes: CONTENTS_BYTES_MAX,
    };
    let visible = caller.visible();
    api.query(move |view| {
        let found = fitting(view.graph().diff(&diff).map_err(|error| graph_failed(&error))?);
        let next_cursor = (found.through < diff.to).then(|| page.cursor_bound(found.through.0, diff.to.0));
        let rows = shown(view, &diff, found.differences, &visible)?;
        let body = json!({
            "from": from.seq,
            "from_recorded_at": from.recorded_at,
            "to": to.seq,
            "to_recorded_at": to.recorded_at,
            "count": rows.len(),
            "differences": rows,
            "next_cursor": next_cursor,
        });
        Ok(marked(rows::json(StatusCode::OK, &body)?, Moment { erased_since: from.erased_since, ..to }))
    })
    .await
}

/// Those of the differences that one answer has room for.
fn fitting(mut found: Diff) -> Diff {
    let fitting = Room::default().takes_first(&found.differences, Difference::text_bytes);
    if fitting < found.differences.len() {
        found.differences.truncate(fitting);
        found.through = found.differences.last().map_or(found.through, |last| last.seq);
    }
    found
}

fn shown(
    view: &View,
    diff: &DiffQuery,
    found: Vec<Difference>,
    visible: &[Scope],
) -> Result<Vec<DifferenceRow>, Problem> {
    let (then, now) = (view.as_of(diff.from), view.as_of(diff.to));
    let mut rows = Vec::with_capacity(found.len());
    for Difference { seq, before, after } in found {
        let change = match (&before, &after) {
            (None, _) => "added",
            (Some(_), None) => "removed",
            (Some(_), Some(_)) => "changed",
        };
        let (kind, owner) = match after.as_ref().or(before.as_ref()) {
            Some(Fact::Observation(row)) => ("observation", Some(row.entity)),
            Some(Fact::Relation(_)) => ("relation", None),
            Some(Fact::Entity(_)) | None => ("entity", None),
        };
        let entity_name = owner.map(|id| name([&now, &then], id, visible)).transpose()?.flatten();
        rows.push(DifferenceRow {
            seq,
            kind,
            change,
            entity_name,
            before: fact(&then, before, visible)?,
            after: fact(&now, after, visible)?,
        });
    }
    Ok(rows)
}

/// The name of an entity in the first of these views that has it: at the end; of one that is gone by then, at the beginning.
fn name(views: [&View; 2], id: MemoryId, visible: &[Scope]) -> Result<Option<String>, Problem> {
    for view in views {
        if let Some(name) = names_of(view, std::iter::once(id), Some(visible))?.remove(&id) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn fact(view: &View, fact: Option<Fact>, visible: &[Scope]) -> Result<Value, Problem> {
    let row = match fact {
        None => return Ok(Value::Null),
        Some(Fact::Entity(entity)) => serde_json::to_value(EntityRow::from(entity)),
        Some(Fact::Observation(observation)) => serde_json::to_value(ObservationRow::from(observation)),
        Some(Fact::Relation(relation)) => {
            let row = RelationRow::all(view, vec![relation], visible)?.pop();
            serde_json::to_value(row)
        }
    };
    row.map_err(|error| internal(&error))
}
