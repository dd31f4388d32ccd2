//! A whole answer, piece by piece: as much memory as one piece takes, as long as the client reads.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use caxton_projections::audit::trail::More;
use caxton_projections::view::View;
use caxton_tools::audit::{Answer, Format, Writing};
use futures::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;

use super::{Api, FIGURES, figures, unreadable};
use crate::api::rest::problem::Problem;
use crate::telemetry;

/// Bytes after which a piece is sent.
const PIECE_BYTES: usize = 64 << 10;
/// Steps without an event after which others may read.
const STEPS_MAX: u32 = 8;
/// Wait before the next piece is read when too many read at the moment.
const BUSY: Duration = Duration::from_millis(250);

struct Streaming {
    api: Api,
    format: Format,
    state: Arc<Mutex<State>>,
    at: Stage,
}

/// Shared with whoever reads the next piece, since a read that finds no turn gives nothing back.
struct State {
    answer: Answer,
    writing: Writing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    Events,
    Figures,
    End,
}

/// The answer with everything that matches.
pub(super) fn streamed(api: Api, answer: Answer, format: Format, writing: Writing) -> Response {
    let streaming =
        Streaming { api, format, state: Arc::new(Mutex::new(State { answer, writing })), at: Stage::Begin };
    let frames = stream::unfold(Some(streaming), |streaming| async move {
        let mut streaming = streaming?;
        match streaming.next().await {
            Ok(Some(frame)) => Some((Ok(frame), Some(streaming))),
            Ok(None) => None,
            // The status is out already: breaking off tells the client that the answer is not whole.
            Err(error) => Some((Err(error), None)),
        }
    });
    // Who compresses it asks once more behind the end.
    let mut response = Response::new(Body::new(StreamBody::new(frames.fuse())));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if format.is_bare() {
        headers.insert(header::TRAILER, HeaderValue::from_static(FIGURES));
    }
    response
}

impl Streaming {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn next(&mut self) -> io::Result<Option<Frame<Bytes>>> {
        let mut text = Vec::new();
        if self.at == Stage::Begin {
            self.state().writing.begin(&mut text);
            self.at = Stage::Events;
        }
        match self.at {
            Stage::Begin | Stage::Events => self.events(text).await.map(Some),
            Stage::Figures => {
                self.at = Stage::End;
                Ok(Some(Frame::trailers(figures(&self.state().answer.summary(None)))))
            }
            Stage::End => Ok(None),
        }
    }

    /// The next events behind `text`.
    async fn events(&mut self, mut text: Vec<u8>) -> io::Result<Frame<Bytes>> {
        while text.is_empty() && !self.state().answer.is_done() {
            if self.api.is_leaving() {
                return Err(io::Error::other("the server is stopping"));
            }
            match self.read().await {
                Ok(read) => text = read,
                Err(problem) if problem.code() == "OVERLOADED" => tokio::time::sleep(BUSY).await,
                Err(problem) => return Err(io::Error::other(problem.code())),
            }
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.answer.is_done() {
            let summary = state.answer.summary(None);
            telemetry::audit_answered(summary.blocks_read, summary.blocks_skipped);
            if self.format.is_bare() && !summary.gaps.is_empty() {
                return Err(io::Error::other("the log is damaged, and this format has no room to say where"));
            }
            state.writing.end(&summary, &mut text);
            self.at = if self.format.is_bare() { Stage::Figures } else { Stage::End };
        }
        Ok(Frame::data(text.into()))
    }

    /// The next events, as text.
    async fn read(&self) -> Result<Vec<u8>, Problem> {
        let (api, state) = (self.api.clone(), Arc::clone(&self.state));
        let work = move |_: &View| {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let State { answer, writing } = &mut *state;
            let mut text = Vec::new();
            for _ in 0..STEPS_MAX {
                answer
                    .step(api.engine.log(), api.engine.postings(), &mut |line| {
                        writing.row(line, &mut text);
                        if text.len() >= PIECE_BYTES { More::No } else { More::Yes }
                    })
                    .map_err(unreadable)?;
                if text.len() >= PIECE_BYTES || answer.is_done() {
                    break;
                }
            }
            Ok(text)
        };
        self.api.read(work).await
    }
}
