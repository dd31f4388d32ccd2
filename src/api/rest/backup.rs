//! `GET /backup`: the log and the files that belong to it, streamed while the server goes on.

use std::path::PathBuf;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use caxton_events::Seq;
use caxton_tools::backup::{Frames, Places, SourceError, Wanted, extras, source};
use futures::{StreamExt as _, stream};

use super::Api;
use super::call::Call;
use super::problem::Problem;
use super::refusals::{internal, log_unreadable};
use crate::failure::chain;

/// Bytes that are put together before they are sent.
const CHUNK_BYTES: usize = 1 << 20;
/// What a backup is sent as. Its events are compressed already.
pub(super) const MEDIA_TYPE: &str = "application/x-caxton-backup";

/// Where the files are that go with the log.
#[derive(Debug, Clone, Default)]
pub struct BackupFiles {
    /// The folder of agents.
    pub agents: Option<PathBuf>,
    /// The configuration file.
    pub config: Option<PathBuf>,
}

/// `GET /backup`: everything behind `after`, where the root must be `root`, up to the head as it is now.
pub(super) async fn backup(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[&["after", "root"]])?;
    let after = Seq(query.integer("after", 0..=u64::MAX).unwrap_or(0));
    let root = query.text("root");
    if after > Seq::ZERO && root.is_none() {
        query.complain("root", None, "is missing", "give the Merkle root at `after`, as the manifest has it");
    }
    query.finish()?;
    let own = api.clone();
    let frames = api
        .read(move |_| {
            let BackupFiles { agents, config } = own.options.backup.clone();
            let places = Places { data_dir: own.engine.data_dir().to_owned(), agents, config };
            let extras = extras(&places).map_err(|error| internal(&error))?;
            let wanted = Wanted { after, root };
            source(own.engine.log(), &wanted, extras, Some(own.engine.signer()))
                .map_err(|error| refused(&error))
        })
        .await?;
    let body = stream::unfold(Some((api, frames)), |state| async move {
        let (api, frames) = state?;
        // The status is out: breaking off tells the client that the backup is not whole, and so does its last frame.
        match chunk(&api, frames).await {
            Ok((bytes, frames)) if !bytes.is_empty() => Some((Ok(bytes), Some((api, frames)))),
            Ok(_) => None,
            Err(problem) => Some((Err(std::io::Error::other(problem.code())), None)),
        }
    });
    // Who compresses it asks once more behind the end.
    let mut response = Response::new(Body::from_stream(body.fuse()));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    Ok(response)
}

async fn chunk(api: &Api, mut frames: Frames) -> Result<(Bytes, Frames), Problem> {
    api.read(move |_| {
        let mut bytes = Vec::with_capacity(CHUNK_BYTES + (CHUNK_BYTES >> 1));
        while bytes.len() < CHUNK_BYTES
            && let Some(frame) = frames.next()
        {
            bytes.extend(frame.map_err(|error| refused(&error))?);
        }
        Ok((Bytes::from(bytes), frames))
    })
    .await
}

fn refused(error: &SourceError) -> Problem {
    match error {
        SourceError::Dropped { .. } => {
            Problem::new(StatusCode::CONFLICT, "EVENTS_DROPPED", error.to_string())
        }
        SourceError::OtherHistory { .. } | SourceError::Beyond { .. } => {
            Problem::new(StatusCode::CONFLICT, "OTHER_HISTORY", error.to_string())
                .remedy("begin a new backup in an empty folder")
        }
        SourceError::Read(error) => {
            tracing::error!(error = %chain(error), "a backup broke off");
            log_unreadable(error)
        }
    }
}
