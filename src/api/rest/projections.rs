//! `GET /projections`, `GET /projections/{name}`, `POST /projections/{name}/rebuild`: what is folded from the log.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use caxton_projections::view::Part;
use caxton_projections::{graph, talk, vector};
use caxton_tools::projection::folder_bytes;
use serde_json::{Value, json};

use super::Api;
use super::call::Call;
use super::problem::{Problem, nearest, shortened};
use super::rows;
use crate::engine::{RebuildRefusal, RebuildState};

const PARTS: [Part; 3] = [Part::Graph, Part::Talk, Part::Vectors];
/// Longest wait for the end of a rebuild, in seconds.
const WAIT_SECONDS_MAX: u64 = 25;
/// How often an answer that waits looks whether it must not any more.
const LOOK: Duration = Duration::from_millis(100);

/// `GET /projections`.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let own = api.clone();
    api.read(move |_| {
        let rows: Vec<Value> = PARTS.into_iter().map(|part| row(&own, part)).collect();
        rows::json(StatusCode::OK, &json!({ "projections": rows, "head_seq": own.engine.log().head().seq }))
    })
    .await
}

/// `GET /projections/{name}`: with `wait_seconds`, when its rebuild has ended or the time is over.
pub(super) async fn get(
    State(api): State<Api>,
    Path(name): Path<String>,
    call: Call,
) -> Result<Response, Problem> {
    let mut query = call.query(&[&["wait_seconds"]])?;
    let seconds = query.integer("wait_seconds", 0..=WAIT_SECONDS_MAX).unwrap_or(0);
    query.finish()?;
    let part = part(&name)?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds).min(api.options.wait_max());
    let running = |api: &Api| {
        let last = api.engine.last_rebuild(part);
        last.is_some_and(|rebuild| rebuild.state == RebuildState::Running)
    };
    while running(&api) && !api.is_leaving() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
    }
    answer(api, part, StatusCode::OK).await
}

/// `POST /projections/{name}/rebuild`: begins it.
pub(super) async fn rebuild(
    State(api): State<Api>,
    Path(name): Path<String>,
    call: Call,
) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    call.no_body("leave it out: a rebuild takes no settings")?;
    let part = part(&name)?;
    api.engine.rebuild(part).map_err(|refused| refusal(&refused))?;
    answer(api, part, StatusCode::ACCEPTED).await
}

async fn answer(api: Api, part: Part, status: StatusCode) -> Result<Response, Problem> {
    let own = api.clone();
    api.read(move |_| rows::json(status, &row(&own, part))).await
}

fn refusal(refused: &RebuildRefusal) -> Problem {
    let text = refused.to_string();
    match refused {
        RebuildRefusal::UnderWay { part } => Problem::new(StatusCode::CONFLICT, "REBUILD_UNDER_WAY", text)
            .remedy(format!("GET /api/v1/projections/{}?wait_seconds=25 waits for its end", part.name())),
        RebuildRefusal::NoModel => super::refusals::no_model(),
        RebuildRefusal::Stopping => super::refusals::stopping(),
        RebuildRefusal::Thread(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", text)
            .remedy("the projection in use still is; see the server's log"),
    }
}

/// The projection of this name.
fn part(name: &str) -> Result<Part, Problem> {
    PARTS.into_iter().find(|part| part.name() == name).ok_or_else(|| {
        let detail = format!("there is no projection {:?}", shortened(name));
        let remedy = match nearest(name, PARTS.into_iter().map(Part::name)) {
            Some(near) => format!("did you mean {near}?"),
            None => "use graph, talk or vectors".to_owned(),
        };
        Problem::new(StatusCode::NOT_FOUND, "PROJECTION_NOT_FOUND", detail).field("name").remedy(remedy)
    })
}

/// A projection as it is shown.
fn row(api: &Api, part: Part) -> Value {
    let view = api.engine.view();
    let (position, head) = (view.positions().get(part), api.engine.log().head().seq);
    let rebuild = api.engine.last_rebuild(part);
    let rebuilding = rebuild.as_ref().is_some_and(|rebuild| rebuild.state == RebuildState::Running);
    let version = match part {
        Part::Graph => graph::VERSION,
        Part::Talk => talk::TALK_VERSION,
        Part::Vectors => vector::PROJECTION_VERSION,
    };
    let status = if part == Part::Vectors && view.semantic().is_none() {
        "disabled"
    } else if rebuilding {
        "rebuilding"
    } else if position.stopped.is_some() {
        "stopped"
    } else if position.seq < head {
        "catching_up"
    } else {
        "current"
    };
    json!({
        "name": part.name(),
        "version": version,
        "status": status,
        "checkpoint": position.seq,
        "lag": head.0.saturating_sub(position.seq.0),
        "bytes": folder_bytes(&api.engine.data_dir().join(part.name()), &|_| true).unwrap_or(0),
        "error": position.stopped,
        "rebuild": rebuild,
    })
}
