//! The REST door without a socket: for a command line that opens the data directory itself.

use std::io;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use http_body_util::BodyExt as _;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt as _;

use super::rest::{RestOptions, router};
use crate::engine::Engine;

/// A router and the threads it needs.
pub struct InProcess {
    runtime: Runtime,
    router: Router,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The path or the method is malformed.
    #[error("could not make the request")]
    Request(#[from] axum::http::Error),
    /// The answer broke off.
    #[error("the answer broke off")]
    Answer(#[from] axum::Error),
}

impl InProcess {
    /// A door to `engine`. The engine is stopped by whoever started it.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn new(engine: Engine, options: RestOptions) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, router: router(engine, options) })
    }

    /// Sends a request and waits for the whole answer: its status and its body. No `content_type`, no body.
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
    ) -> Result<(u16, Vec<u8>), CallError> {
        let mut request = Request::builder().method(method).uri(path);
        if !content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(Body::from(body))?;
        self.runtime.block_on(async {
            let response = match self.router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let status = response.status().as_u16();
            let bytes = response.into_body().collect().await?.to_bytes();
            Ok((status, bytes.to_vec()))
        })
    }
}
