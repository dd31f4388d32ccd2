//! Which records a scan delivers.

use crate::event::Kind;
use crate::id::Seq;
use crate::time::Timestamp;

/// Which records a scan delivers: those that meet every condition given. The default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// No record beyond this position: behind it going forwards, before it going backwards.
    pub until: Option<Seq>,
    /// Only these kinds.
    pub kinds: Option<Vec<Kind>>,
    /// Only this stream.
    pub stream: Option<String>,
    /// Only what this actor caused.
    pub actor: Option<String>,
    /// Only this correlation.
    pub correlation: Option<String>,
    /// Recorded at this time or later.
    pub recorded_from: Option<Timestamp>,
    /// Recorded before this time.
    pub recorded_before: Option<Timestamp>,
}
