//! The REST door without a socket: for a command line that opens the data directory itself.

use std::io::{self, Read};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, header};
use http_body_util::BodyExt as _;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;

use super::rest::{RestOptions, router};
use crate::engine::Engine;

/// A router and the threads it needs.
pub struct InProcess {
    runtime: Arc<Runtime>,
    router: Router,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The path or the method is malformed.
    #[error("could not make the request")]
    Request(#[from] axum::http::Error),
}

impl InProcess {
    /// A door to `engine`. The engine is stopped by whoever started it.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn new(engine: Engine, options: RestOptions) -> io::Result<Self> {
        Self::over(router(engine, options))
    }

    fn over(router: Router) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime: Arc::new(runtime), router })
    }

    /// Sends a request and waits for the beginning of the answer: its status, and its body, which is made while it is read. No
    /// `content_type`, no body.
    ///
    /// # Errors
    ///
    /// [`CallError`]; refusals of the API are answers.
    pub fn call(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<(u16, AnswerBody), CallError> {
        let mut request = Request::builder().method(method).uri(path);
        if !content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(Body::from(body))?;
        let response = match self.runtime.block_on(self.router.clone().oneshot(request)) {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let status = response.status().as_u16();
        let runtime = Arc::clone(&self.runtime);
        Ok((status, AnswerBody { body: response.into_body(), piece: Bytes::new(), runtime }))
    }
}

/// The body of an answer. What is not read is not made, and no more than a piece of it is in memory.
pub struct AnswerBody {
    body: Body,
    /// What has come and was not read yet.
    piece: Bytes,
    runtime: Arc<Runtime>,
}

impl Read for AnswerBody {
    /// Fails where the answer breaks off.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        while self.piece.is_empty() {
            match self.runtime.block_on(self.body.frame()) {
                // What is no data stands behind it, and nobody asks for that here.
                Some(Ok(frame)) => self.piece = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.piece.len());
        into[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::io::{self, Read as _};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::body::{Body, Bytes};
    use axum::routing::get;
    use futures::stream;

    use super::InProcess;

    const PIECES: usize = 1_000;
    const PIECE_BYTES: usize = 1_000;

    #[test]
    fn an_answer_is_made_while_it_is_read_and_says_where_it_breaks_off() {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&made);
        let answer = move || {
            let counted = Arc::clone(&counted);
            let pieces = (0..=PIECES).map(move |number| {
                counted.fetch_add(1, Ordering::SeqCst);
                if number == PIECES {
                    return Err(io::Error::other("the disk is gone"));
                }
                Ok(Bytes::from(vec![7_u8; PIECE_BYTES]))
            });
            async move { Body::from_stream(stream::iter(pieces)) }
        };
        let door = InProcess::over(Router::new().route("/all", get(answer))).unwrap();
        let (status, mut body) = door.call("GET", "/all", "", Vec::new()).unwrap();
        // It lives as long as who reads it.
        drop(door);
        assert_eq!((status, made.load(Ordering::SeqCst)), (200, 0));
        let mut some = [0_u8; PIECE_BYTES + 1];
        body.read_exact(&mut some).unwrap();
        assert_eq!((some, made.load(Ordering::SeqCst)), ([7; PIECE_BYTES + 1], 2));
        let mut rest = Vec::new();
        let error = body.read_to_end(&mut rest).unwrap_err();
        assert_eq!(rest, vec![7; (PIECES - 1) * PIECE_BYTES - 1]);
        assert!(error.to_string().contains("the disk is gone"), "{error}");
    }
}
