//! The one thread that appends.

use std::sync::{Arc, OnceLock};

use super::batch::LogClosed;

/// Why the log takes no more events, once it does not.
#[derive(Debug, Default)]
pub(crate) struct ClosedReason(OnceLock<Arc<str>>);

impl ClosedReason {
    /// The error every later caller gets.
    pub(crate) fn error(&self) -> LogClosed {
        LogClosed { reason: self.0.get().cloned().unwrap_or_else(|| Arc::from("it was closed in order")) }
    }
}
