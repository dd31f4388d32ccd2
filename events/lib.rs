//! Facts: what happened, in order, for good. The lowest crate: it knows no server, no clock and no randomness.
//!
//! Reading order: [`event`] (what can happen), [`record`] (an event with its place), [`codec`] (an event as bytes),
//! [`borrowed`] (an event where it lies), [`log`] (where they are kept).

pub mod agent;
pub mod borrowed;
pub mod choice;
pub mod codec;
pub mod conversation;
mod cursor;
pub mod event;
pub mod id;
pub mod limits;
pub mod log;
pub mod memory;
pub mod record;
#[cfg(test)]
mod samples;
pub mod scope;
pub mod subject;
pub mod system;
pub mod time;
pub mod turn;
pub mod upcast;

pub use agent::AgentEvent;
pub use borrowed::EventRef;
pub use conversation::ConversationEvent;
pub use event::{Event, Family, Kind};
pub use id::{
    AgentId, CapabilityName, ConversationId, MemoryId, MessageId, RegistrationId, Seq, TurnId, WorkspaceId,
};
pub use memory::MemoryEvent;
pub use record::{Draft, Record};
pub use scope::Scope;
pub use subject::Subject;
pub use system::SystemEvent;
pub use time::{Clock, Timestamp};
pub use turn::TurnEvent;
