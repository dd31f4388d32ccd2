//! Wishes of agents among themselves: messages, conversations, inboxes, offers; and the pure decisions about them.
//!
//! Reading order: [`wish`] (what can be asked), [`situation`] (what a decision may know), [`send`] (the rules of
//! messages), [`protocol`] (what answers what), [`routing`] (who gets it), [`deadlines`] (what time brings about), [`upkeep`]
//! (everything else).

pub mod deadlines;
pub mod protocol;
pub mod routing;
pub mod send;
pub mod situation;
#[cfg(test)]
mod tests;
pub mod upkeep;
pub mod wish;

pub use deadlines::passed;
pub use protocol::may_answer;
pub use routing::{Choice, NoChoice, Provider, choose};
pub use send::{Numbers, decide_send};
pub use situation::{Overlay, Settings, Situation};
pub use upkeep::decide_upkeep;
pub use wish::{Answered, NewCapability, NewConversation, Outgoing, To, Upkeep};

use caxton_events::{Draft, Event, Seq};

/// An event of agents on its way to the log.
fn draft(stream: &str, actor: &str, causation: Option<Seq>, event: impl Into<Event>) -> Draft {
    Draft {
        stream: stream.to_owned(),
        actor: actor.to_owned(),
        correlation: None,
        causation,
        event: event.into(),
    }
}
