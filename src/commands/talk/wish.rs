//! What agents can ask for.

use caxton_events::agent::Health;
use caxton_events::conversation::{Content, ConversationEnd, Message, Performative, Priority, Strategy};
use caxton_events::{
    AgentId, CapabilityName, ConversationId, MessageId, RegistrationId, Seq, Timestamp, WorkspaceId,
};
use serde::de::IgnoredAny;

/// Whom a message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// These agents; at least one.
    Agents(Vec<AgentId>),
    /// Who can do this.
    Capability {
        /// What is wanted.
        name: CapabilityName,
        /// Only providers of this version: `2`, or `2.0`, without the `v`.
        version: Option<String>,
        /// How one of several is chosen.
        strategy: Strategy,
    },
}

/// A message that this one answers, found before the decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Where it stands; [`Seq::ZERO`]: in the same request, so that it has no place yet.
    pub seq: Seq,
    /// What it does.
    pub performative: Performative,
    /// Who sent it.
    pub sender: AgentId,
    /// Who got it.
    pub receivers: Vec<AgentId>,
}

/// A message on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Who sends it.
    pub sender: AgentId,
    /// A sender that is not known becomes known by this, as an agent outside of the server. What a turn says makes nobody known:
    /// its agent is not known any more when it was removed meanwhile.
    pub registers: bool,
    /// The workspace of the sender.
    pub workspace: WorkspaceId,
    /// What it does.
    pub performative: Performative,
    /// Whom it is for.
    pub to: To,
    /// What it says.
    pub content: Content,
    /// A text is a text, whatever it begins with; otherwise one that begins like a JSON object or list must be one.
    pub plain: bool,
    /// Its number, where the sender gives one: a repetition is recognised by it.
    pub id: Option<MessageId>,
    /// The conversation; `None` opens one.
    pub conversation: Option<ConversationId>,
    /// What a conversation that this message opens is about.
    pub topic: Option<String>,
    /// The protocol of a conversation that this message opens.
    pub protocol: Option<String>,
    /// The conversation that one opened by this message comes out of.
    pub parent: Option<ConversationId>,
    /// How urgent it is.
    pub priority: Priority,
    /// The word that an answer is to carry.
    pub reply_with: Option<String>,
    /// The word or the number of the message that this one answers.
    pub in_reply_to: Option<String>,
    /// That message, when it was found; the engine looks it up.
    pub answered: Option<Answered>,
    /// An answer is wanted before this moment.
    pub reply_by: Option<Timestamp>,
    /// It need not be delivered from this moment on.
    pub expires_at: Option<Timestamp>,
    /// Everything else as a JSON object.
    pub extras: Option<String>,
    /// The event that led to this one, where it is no answer.
    pub causation: Option<Seq>,
    /// Ties together what one request caused.
    pub correlation: Option<String>,
    /// Providers that are not chosen: they had the message and failed.
    pub passed_over: Vec<AgentId>,
    /// The only providers that may be chosen, where that was decided before: those of the version that was asked for.
    pub among: Option<Vec<AgentId>>,
}

impl Outgoing {
    /// A message with nothing but what it must have.
    pub fn new(sender: AgentId, performative: Performative, to: To, content: Content) -> Self {
        Self {
            sender,
            registers: true,
            workspace: default_workspace(),
            performative,
            to,
            content,
            plain: false,
            id: None,
            conversation: None,
            topic: None,
            protocol: None,
            parent: None,
            priority: Priority::Normal,
            reply_with: None,
            in_reply_to: None,
            answered: None,
            reply_by: None,
            expires_at: None,
            extras: None,
            causation: None,
            correlation: None,
            passed_over: Vec::new(),
            among: None,
        }
    }

    /// The same, said by somebody who does not mind the form: a text that begins like JSON and is none is a text.
    #[must_use]
    pub fn as_written(self) -> Self {
        let plain = matches!(&self.content, Content::Text(text) if !is_json(text));
        Self { plain, ..self }
    }

    /// Whether the content became `recorded`: a text that begins like JSON is recorded as JSON.
    fn says(&self, recorded: &Content) -> bool {
        let became_json = matches!((&self.content, recorded), (Content::Text(text), Content::Json(_)) if begins_like_json(text));
        self.content == *recorded || (became_json && self.content.as_str() == recorded.as_str())
    }

    /// Whether `message` is what this wish became: then a repetition of its number is answered and not refused.
    pub fn became(&self, message: &Message) -> bool {
        let to = match (&self.to, &message.routing) {
            (To::Agents(agents), None) => *agents == message.receivers,
            (To::Capability { name, strategy, .. }, Some(routing)) => {
                *name == routing.capability && *strategy == routing.strategy
            }
            (To::Agents(_), Some(_)) | (To::Capability { .. }, None) => false,
        };
        to && self.sender == message.sender
            && self.performative == message.performative
            && self.says(&message.content)
            && self.conversation.as_ref().is_none_or(|id| *id == message.conversation)
            && self.priority == message.priority
            && self.reply_with == message.reply_with
            && self.in_reply_to == message.in_reply_to
            && self.reply_by == message.reply_by
            && self.expires_at == message.expires_at
            && self.extras == message.extras
    }
}

/// Whether a text claims to be a JSON object or list; then it must be one.
pub(super) fn begins_like_json(text: &str) -> bool {
    text.starts_with(['{', '['])
}

/// Whether a text is a JSON object or list.
fn is_json(text: &str) -> bool {
    begins_like_json(text) && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[expect(clippy::expect_used, reason = "the default name is made of letters only")]
fn default_workspace() -> WorkspaceId {
    "default".parse().expect("letters are a valid name")
}

/// A conversation to open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewConversation {
    /// Its name; drawn when there is none.
    pub id: Option<ConversationId>,
    /// What it is about.
    pub topic: Option<String>,
    /// The protocol it follows.
    pub protocol: Option<String>,
    /// The conversation it comes out of.
    pub parent: Option<ConversationId>,
    /// Instead of the configured one, in milliseconds.
    pub idle_timeout_millis: Option<u64>,
    /// Instead of the configured one, in milliseconds.
    pub life_timeout_millis: Option<u64>,
    /// Instead of the configured one.
    pub participants_max: Option<u32>,
    /// Instead of the configured one.
    pub messages_max: Option<u32>,
}

/// An offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCapability {
    /// Who offers it.
    pub agent: AgentId,
    /// What it offers.
    pub capability: CapabilityName,
    /// The version of what it offers.
    pub version: String,
    /// 0 to 1,000; higher is preferred.
    pub priority: u16,
    /// A JSON object as text, or nothing.
    pub metadata: Option<String>,
    /// Where its health can be asked for.
    pub health_check_url: Option<String>,
}

/// What is asked for besides messages.
#[derive(Debug, Clone, PartialEq)]
pub enum Upkeep {
    /// An agent outside the server makes itself known.
    RegisterAgent {
        /// Its name.
        agent: AgentId,
        /// Its workspace.
        workspace: WorkspaceId,
    },
    /// A conversation begins before its first message.
    Open(NewConversation),
    /// A conversation is over.
    Close {
        /// Which one.
        conversation: ConversationId,
        /// Why.
        end: ConversationEnd,
    },
    /// A conversation may last longer, or shorter.
    Extend {
        /// Which one.
        conversation: ConversationId,
        /// Its idle timeout from now on, in milliseconds.
        idle_timeout_millis: Option<u64>,
        /// Its longest life from its beginning, in milliseconds.
        life_timeout_millis: Option<u64>,
    },
    /// Conversations that are over are put away, all or none.
    Archive {
        /// Which ones.
        conversations: Vec<ConversationId>,
    },
    /// How an agent is, as it says itself or somebody found out.
    ReportHealth {
        /// Who.
        agent: AgentId,
        /// In what; `None`: in everything.
        capability: Option<CapabilityName>,
        /// How it is.
        health: Health,
        /// More about it.
        reason: String,
    },
    /// An agent is done with messages.
    Acknowledge {
        /// Whose inbox.
        agent: AgentId,
        /// Everything up to here.
        through: Seq,
        /// And these beyond it.
        also: Vec<Seq>,
    },
    /// An agent offers something.
    Offer(NewCapability),
    /// An offer gets other properties.
    ChangeOffer {
        /// Which one.
        registration: RegistrationId,
        /// Its priority from now on.
        priority: Option<u16>,
        /// Its metadata from now on; `Some(None)` takes it away.
        metadata: Option<Option<String>>,
        /// Its health check from now on; `Some(None)` takes it away.
        health_check_url: Option<Option<String>>,
    },
    /// An agent no longer offers something.
    Withdraw {
        /// Who.
        agent: AgentId,
        /// What.
        capability: CapabilityName,
    },
}
