//! Facts: what happened, in order, for good. The lowest crate: it knows no server, no clock and no randomness.
//!
//! Reading order: [`event`] (what can happen), [`record`] (an event with its place), [`codec`] (an event as bytes), [`log`] (where
//! they are kept).

pub mod agent;
pub mod codec;
pub mod event;
pub mod id;
pub mod limits;
pub mod log;
pub mod memory;
pub mod record;
pub mod scope;
pub mod system;
pub mod time;
pub mod upcast;

pub use agent::AgentEvent;
pub use event::{Event, Kind};
pub use id::{AgentId, MemoryId, Seq, WorkspaceId};
pub use memory::MemoryEvent;
pub use record::{Draft, Record};
pub use scope::Scope;
pub use system::SystemEvent;
pub use time::{Clock, Timestamp};
