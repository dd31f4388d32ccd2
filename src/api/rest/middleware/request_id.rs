//! The id that ties a request to its answer, its problem, its log lines and its events.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::HeaderMap;

/// Its header, in and out.
pub(super) const HEADER: &str = "x-request-id";
/// Longest id taken from a client, in bytes.
const BYTES_MAX: usize = 128;

/// The id of the request, in its extensions.
#[derive(Debug, Clone)]
pub(in crate::api::rest) struct RequestId(pub(in crate::api::rest) String);

/// Where ids come from when the client sends none.
#[derive(Debug)]
pub(in crate::api::rest) struct RequestIds {
    /// Different in each run of the server.
    run: u32,
    next: AtomicU64,
}

impl RequestIds {
    /// Ids of a new run.
    pub(in crate::api::rest) fn new() -> Self {
        // Without a source of randomness the ids of two runs may coincide, which harms nothing but a search in logs.
        Self { run: getrandom::u32().unwrap_or(0), next: AtomicU64::new(1) }
    }

    /// The client's id when it is short visible ASCII, a new one otherwise.
    pub(super) fn of(&self, headers: &HeaderMap) -> String {
        let given = headers.get(HEADER).and_then(|value| value.to_str().ok());
        match given {
            Some(id)
                if (1..=BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) =>
            {
                id.to_owned()
            }
            Some(_) | None => format!("{:08x}-{:x}", self.run, self.next.fetch_add(1, Ordering::Relaxed)),
        }
    }
}
