//! What a message waits for, and where a conversation stands in its protocol.

use caxton_events::conversation::Performative;
use caxton_events::{AgentId, MessageId, Seq, Timestamp};
use serde::{Deserialize, Serialize};

use super::Conversation;
use crate::agents::micros;

/// A message that waits for an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// Where it stands.
    pub sent: Seq,
    /// Its number.
    pub id: MessageId,
    /// What it does.
    pub performative: Performative,
    /// Who sent it.
    pub sender: AgentId,
    /// Who got it.
    pub receivers: Vec<AgentId>,
    /// The word that an answer carries.
    pub reply_with: Option<String>,
    /// When it was recorded.
    #[serde(with = "micros")]
    pub at: Timestamp,
    /// An answer that did not end it yet, such as AGREE.
    pub answer: Option<Performative>,
}

impl Exchange {
    /// Exchanges that one conversation keeps; the oldest is forgotten for a new one.
    pub const OPEN_MAX: usize = 64;
}

/// Where a conversation stands, derived from the performatives of its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nobody waits for anything.
    Idle,
    /// A request or a question waits for its first answer.
    AwaitingReply,
    /// An offer or a call for offers is on the table.
    Negotiating,
    /// Somebody agreed to act and has not told the result.
    Agreed,
    /// Somebody is told of changes from now on.
    Subscribed,
    /// It is over.
    Ended,
}

impl Phase {
    /// Its word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::AwaitingReply => "awaiting_reply",
            Self::Negotiating => "negotiating",
            Self::Agreed => "agreed",
            Self::Subscribed => "subscribed",
            Self::Ended => "ended",
        }
    }
}

impl Conversation {
    /// Where it stands in its protocol.
    pub fn phase(&self) -> Phase {
        if !self.is_open() {
            return Phase::Ended;
        }
        let has = |wanted: &dyn Fn(&Exchange) -> bool| self.exchanges.iter().any(wanted);
        if has(&|exchange| matches!(exchange.performative, Performative::Propose | Performative::Cfp)) {
            Phase::Negotiating
        } else if has(&|exchange| {
            exchange.performative == Performative::AcceptProposal
                || exchange.answer == Some(Performative::Agree)
                    && exchange.performative != Performative::Subscribe
        }) {
            Phase::Agreed
        } else if has(&|exchange| exchange.answer.is_none()) {
            Phase::AwaitingReply
        } else if self.exchanges.is_empty() {
            Phase::Idle
        } else {
            Phase::Subscribed
        }
    }
}

/// Whether an answer ends what it answers.
pub(super) const fn ends(question: Performative, answer: Performative) -> bool {
    match answer {
        Performative::Agree => false,
        // Every change is told, and every offer answers the same call.
        Performative::Inform => !matches!(question, Performative::Subscribe),
        Performative::Propose => !matches!(question, Performative::Cfp),
        Performative::Request
        | Performative::Query
        | Performative::AcceptProposal
        | Performative::RejectProposal
        | Performative::Failure
        | Performative::NotUnderstood
        | Performative::Cfp
        | Performative::Refuse
        | Performative::Confirm
        | Performative::Disconfirm
        | Performative::Cancel
        | Performative::Subscribe => true,
    }
}

/// Whether a message waits for an answer.
pub(super) const fn waits(performative: Performative) -> bool {
    performative.expects_reply() || matches!(performative, Performative::AcceptProposal)
}
