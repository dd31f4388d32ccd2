//! What happens between agents: messages, their deliveries, and the conversations they belong to.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bincode::{Decode, Encode};
use serde::Serialize;

use crate::choice::choice;
use crate::id::{AgentId, CapabilityName, ConversationId, MessageId, Seq};
use crate::time::Timestamp;

choice! {
    /// What a message does, after FIPA's Communicative Act Library (SC00037J).
    "performative" Performative {
        /// Asks the receiver to act.
        Request = "REQUEST",
        /// Tells something that the sender holds to be true.
        Inform = "INFORM",
        /// Asks what the receiver knows.
        Query = "QUERY",
        /// Offers to do something under conditions.
        Propose = "PROPOSE",
        /// Takes an offer.
        AcceptProposal = "ACCEPT_PROPOSAL",
        /// Turns an offer down.
        RejectProposal = "REJECT_PROPOSAL",
        /// Tells that an action was tried and failed.
        Failure = "FAILURE",
        /// Tells that a message made no sense to its receiver.
        NotUnderstood = "NOT_UNDERSTOOD",
        /// Calls for proposals.
        Cfp = "CFP",
        /// Promises to do what was asked.
        Agree = "AGREE",
        /// Declines to do what was asked.
        Refuse = "REFUSE",
        /// Tells that something doubted is true.
        Confirm = "CONFIRM",
        /// Tells that something believed is false.
        Disconfirm = "DISCONFIRM",
        /// Takes back a request.
        Cancel = "CANCEL",
        /// Asks to be told of changes from now on.
        Subscribe = "SUBSCRIBE",
    }
}

impl Performative {
    /// Whether the sender waits for an answer: then `reply_by` and retries have a meaning.
    pub const fn expects_reply(self) -> bool {
        matches!(self, Self::Request | Self::Query | Self::Propose | Self::Cfp | Self::Subscribe)
    }
}

choice! {
    /// How urgent a message is, the least first.
    "priority" Priority {
        /// When there is time.
        Low = "low",
        /// As usual.
        Normal = "normal",
        /// Before the usual.
        High = "high",
        /// Before everything.
        Critical = "critical",
    }
}

choice! {
    /// How one of several providers of a capability is chosen.
    "routing strategy" Strategy {
        /// The healthiest, least loaded, fastest and best version, weighed together.
        BestMatch = "best_match",
        /// The highest priority × health × (1 − load).
        Priority = "priority",
        /// One after the other.
        RoundRobin = "round_robin",
        /// The fewest messages under way.
        LeastLoaded = "least_loaded",
        /// The lowest response time so far.
        FastestResponse = "fastest_response",
        /// All of them.
        Broadcast = "broadcast",
        /// The first by priority that is reachable; the others in turn when it fails.
        Failover = "failover",
        /// Who took part in the conversation already, else the best match.
        ContextContinuity = "context_continuity",
    }
}

choice! {
    /// Why a message did not reach a receiver.
    "dead letter reason" DeadLetterReason {
        /// Nobody offers the capability.
        NoProvider = "no_provider",
        /// Every provider is stopped, unhealthy or behind an open circuit.
        AllUnavailable = "all_unavailable",
        /// The receiver was removed.
        AgentGone = "agent_gone",
        /// The receiver is stopped.
        AgentStopped = "agent_stopped",
        /// Every attempt failed.
        RetriesExhausted = "retries_exhausted",
        /// Its time was over.
        Expired = "expired",
        /// Handling it failed in a way that another attempt would not have mended.
        GivenUp = "given_up",
    }
}

choice! {
    /// Why a conversation ended.
    "end of a conversation" ConversationEnd {
        /// Somebody said that it is done.
        Completed = "completed",
        /// Somebody broke it off.
        Cancelled = "cancelled",
        /// Nobody said anything for its idle timeout.
        IdleTimeout = "idle_timeout",
        /// It lasted for its longest life.
        LifeTimeout = "life_timeout",
    }
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// A JSON value as text, checked when it was sent.
    Json(String),
}

impl Content {
    /// The text as it is stored.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Text(text) | Self::Json(text) => text,
        }
    }
}

/// A message from one agent to others. Where it goes is decided before it is recorded.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Message {
    /// Its number, the sender's or drawn.
    pub id: MessageId,
    /// Whether the sender gave the number: then a repetition is recognised by it.
    pub id_given: bool,
    /// What it does.
    pub performative: Performative,
    /// Who sent it.
    pub sender: AgentId,
    /// Who gets it; empty when routing found nobody.
    pub receivers: Vec<AgentId>,
    /// How the receivers were found; `None` when the sender named them.
    pub routing: Option<Routing>,
    /// The conversation it belongs to.
    pub conversation: ConversationId,
    /// What it says.
    pub content: Content,
    /// How urgent it is.
    pub priority: Priority,
    /// The word that an answer is to carry in `in_reply_to`.
    pub reply_with: Option<String>,
    /// The word or the number of the message that this one answers, as the sender wrote it. Where that message stands
    /// is the record's causation.
    pub in_reply_to: Option<String>,
    /// An answer is wanted before this moment.
    pub reply_by: Option<Timestamp>,
    /// It need not be delivered from this moment on.
    pub expires_at: Option<Timestamp>,
    /// Everything else the sender wrote (protocol, language, ontology, parameters, attachments, hints, trace
    /// context …) as a JSON object, or nothing.
    pub extras: Option<String>,
}

/// How the receivers of a message to a capability were found.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Routing {
    /// What was asked for.
    pub capability: CapabilityName,
    /// How the choice was made.
    pub strategy: Strategy,
    /// Who could have been chosen, the best first, at most [`crate::limits::CANDIDATES_MAX`].
    pub candidates: Vec<Candidate>,
    /// One sentence: why these receivers.
    pub reason: String,
}

/// Words about a candidate. Copies share them, since those who were looked at are mostly told the same.
#[derive(Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(into = "String")]
pub struct Because(Arc<str>);

impl Deref for Because {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// As the text that it is.
impl fmt::Debug for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Because {
    fn from(words: &str) -> Self {
        Self(words.into())
    }
}

impl From<Because> for String {
    fn from(because: Because) -> Self {
        because.0.as_ref().into()
    }
}

impl PartialEq<&str> for Because {
    fn eq(&self, words: &&str) -> bool {
        &*self.0 == *words
    }
}

/// A provider that routing looked at.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Candidate {
    /// Who.
    pub agent: AgentId,
    /// Its score under the strategy, higher is better.
    pub score: f32,
    /// What the score is made of, or why it was passed over.
    pub because: Because,
}

/// A fact about messages and conversations.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum ConversationEvent {
    /// A conversation began, by a wish or by its first message.
    Opened {
        /// Its name.
        conversation: ConversationId,
        /// What it is about.
        topic: Option<String>,
        /// The interaction protocol its messages follow, such as `fipa-request`.
        protocol: Option<String>,
        /// The conversation it came out of.
        parent: Option<ConversationId>,
        /// It ends after so long without a message, in milliseconds.
        idle_timeout_millis: u64,
        /// It ends after so long altogether, in milliseconds.
        life_timeout_millis: u64,
        /// Agents that may take part.
        participants_max: u32,
        /// Messages it may hold.
        messages_max: u32,
    },
    /// A message was sent and routed.
    MessageSent(Box<Message>),
    /// A message's `expires_at` passed before these receivers had acknowledged it.
    MessageExpired {
        /// Where it stands.
        sent: Seq,
        /// Its number.
        message: MessageId,
        /// Who had not acknowledged it.
        receivers: Vec<AgentId>,
    },
    /// A message's `reply_by` passed without an answer.
    ReplyOverdue {
        /// Where the message stands.
        sent: Seq,
        /// Its number.
        message: MessageId,
    },
    /// Handling a message failed; it will be tried again.
    DeliveryRetried {
        /// Where it stands.
        sent: Seq,
        /// Its number.
        message: MessageId,
        /// Whose attempt failed.
        receiver: AgentId,
        /// How many attempts failed so far.
        attempts: u32,
        /// The next attempt is not made before this moment.
        not_before: Timestamp,
        /// What failed.
        error: String,
    },
    /// A message will not be delivered to a receiver unless somebody replays it.
    MessageDeadLettered {
        /// Where it stands. [`Seq::ZERO`]: it is the message in front of this event in the same batch, with nothing but
        /// other dead letters of it in between.
        sent: Seq,
        /// Its number.
        message: MessageId,
        /// Who does not get it; `None` when routing found nobody.
        receiver: Option<AgentId>,
        /// Why.
        reason: DeadLetterReason,
        /// How many attempts were made.
        attempts: u32,
        /// More about it, for people.
        detail: String,
    },
    /// A dead letter was sent again, as a new message.
    DeadLetterReplayed {
        /// Where the dead letter stands.
        dead_letter: Seq,
        /// The number of the new message.
        message: MessageId,
    },
    /// An agent is done with messages of its inbox.
    InboxAcknowledged {
        /// Whose inbox.
        agent: AgentId,
        /// Everything up to here.
        through: Seq,
        /// And these beyond it, ascending.
        also: Vec<Seq>,
    },
    /// A conversation may last longer.
    Extended {
        /// Its name.
        conversation: ConversationId,
        /// Its idle timeout from now on, in milliseconds.
        idle_timeout_millis: u64,
        /// Its longest life from its beginning, in milliseconds.
        life_timeout_millis: u64,
    },
    /// A conversation ended; it takes no more messages.
    Closed {
        /// Its name.
        conversation: ConversationId,
        /// Why.
        end: ConversationEnd,
    },
    /// A closed conversation was put away: it is left out of lists unless asked for.
    Archived {
        /// Its name.
        conversation: ConversationId,
    },
}
