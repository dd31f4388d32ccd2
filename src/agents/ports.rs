//! What turns need from the rest of the server.
//!
//! The engine stands behind these traits in a server, and plain collections in tests.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use caxton_events::conversation::Message;
use caxton_events::limits::EVENT_BYTES_MAX;
use caxton_events::log::AppendError;
use caxton_events::{
    AgentId, CapabilityName, ConversationId, Draft, MessageId, Seq, Timestamp, TurnEvent, TurnId, WorkspaceId,
};
use futures::future::BoxFuture;

use super::cancel::TakenBack;
use super::context::{Offered, Said};
use super::reply::Reply;
use super::spec::Agent;
use crate::llm::{Fact, LanguageModel, ToolSpec};
use crate::toolbox::{Caller, Permissions, ToolError};

/// A part of the server that did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{tried}")]
pub struct PortError {
    /// What was tried, as in `could not record an event of a turn`.
    pub tried: &'static str,
    /// Why it failed.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl PortError {
    /// Whether it fails again, however often it is tried.
    pub fn is_for_good(&self) -> bool {
        self.source.is::<TooLarge>()
    }

    /// Whether it was about what is being erased, of which the log takes nothing until that is complete. Nothing was recorded.
    pub fn is_being_erased(&self) -> bool {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&*self.source);
        while let Some(error) = cause {
            if matches!(error.downcast_ref::<AppendError>(), Some(AppendError::BeingErased { .. })) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// What was to be recorded has no room in an event. Nothing of it was recorded.
#[derive(Debug, thiserror::Error)]
#[error("it takes {bytes} bytes, and an event has room for {EVENT_BYTES_MAX}")]
pub struct TooLarge {
    /// Encoded size.
    pub bytes: usize,
}

/// A message in the inbox of an agent that runs here.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Whose inbox.
    pub agent: AgentId,
    /// Where the message stands.
    pub seq: Seq,
    /// The message.
    pub message: Arc<Message>,
    /// It is not taken up before this moment: an earlier attempt failed.
    pub not_before: Option<Timestamp>,
    /// Whether its sender has taken it back since.
    pub back: TakenBack,
}

impl Delivery {
    /// The capability that was asked for.
    pub fn capability(&self) -> Option<&CapabilityName> {
        self.message.routing.as_ref().map(|routing| &routing.capability)
    }
}

/// What the queues have room for.
pub struct Room<'a> {
    /// Messages that each queue takes.
    pub queues: Vec<usize>,
    /// Whether a queue that is full takes one for this agent all the same, because nothing waits for it there.
    pub own: &'a (dyn Fn(usize, &AgentId) -> bool + Send + Sync),
}

/// The inboxes of all agents that run here.
pub trait Inbox: Send + Sync + fmt::Debug {
    /// Waits until there are messages, and takes them, in the order of the log within each conversation. Of each queue,
    /// as [`super::queues::Classifier`] tells them apart, it takes at most as many as `room` says.
    ///
    /// What was taken is not given again in this process, unless it is put back. Dropping the future takes nothing.
    fn next<'a>(&'a self, room: &'a Room<'a>) -> BoxFuture<'a, Vec<Delivery>>;

    /// The agent is done with the message, for good: the inbox is acknowledged so far.
    fn done<'a>(&'a self, agent: &'a AgentId, seq: Seq) -> BoxFuture<'a, Result<(), PortError>>;

    /// Whether there is nothing to do about a message that was taken: somebody else may have seen to it, or it was
    /// erased.
    fn is_done(&self, agent: &AgentId, seq: Seq) -> bool;

    /// The agent does not run any more; the message is given again when it does.
    fn put_back(&self, delivery: Delivery);
}

/// An answer of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct OutgoingReply {
    /// Its number, the same whenever the turn is resumed: a second one is recognised as a repetition.
    pub id: MessageId,
    /// Who answers.
    pub agent: AgentId,
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// The message that is answered.
    pub answers: Arc<Message>,
    /// Where that message stands.
    pub answers_seq: Seq,
    /// The turn that made the answer.
    pub turn: TurnId,
    /// What is said.
    pub reply: Reply,
}

/// Why an answer was not sent.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// The rules say no, and will say so again: the conversation is closed or full.
    #[error("the answer was refused: {0}")]
    Refused(String),
    /// It may be sent later.
    #[error(transparent)]
    Unavailable(PortError),
}

/// Where answers go.
pub trait Replies: Send + Sync + fmt::Debug {
    /// Sends an answer; it is durable before this returns. One whose number is known already is not sent again, and
    /// counts as sent.
    ///
    /// # Errors
    ///
    /// [`ReplyError`].
    fn send(&self, reply: OutgoingReply) -> BoxFuture<'_, Result<(), ReplyError>>;

    /// Gives a message that was routed with `failover`, and that `turn` is the last attempt at, to the next provider.
    /// `false`: it is not such a message, or everyone had it. Once passed on, it is not passed on again.
    ///
    /// # Errors
    ///
    /// [`ReplyError`].
    fn pass_on<'a>(&'a self, delivery: &'a Delivery, turn: TurnId)
    -> BoxFuture<'a, Result<bool, ReplyError>>;

    /// From now on a conversation ends after `idle` without a message; nothing happens when that is so already.
    ///
    /// # Errors
    ///
    /// [`PortError`].
    fn limit_idle<'a>(
        &'a self,
        conversation: &'a ConversationId,
        idle: Duration,
    ) -> BoxFuture<'a, Result<(), PortError>>;
}

/// Where turns are recorded.
pub trait TurnLog: Send + Sync + fmt::Debug {
    /// Records events, all or none; they are durable before this returns.
    ///
    /// # Errors
    ///
    /// [`PortError`] when it is not known whether they are recorded; of [`TooLarge`] when they cannot be.
    fn record(&self, drafts: Vec<Draft>) -> BoxFuture<'_, Result<Vec<Seq>, PortError>>;

    /// Whether the message still waits for the agent to be done with it: it may expire while its turn is under way.
    fn is_open(&self, agent: &AgentId, message: Seq) -> bool;

    /// What is recorded of the agent's turns over this message, the oldest first.
    ///
    /// # Errors
    ///
    /// [`PortError`] when it cannot be read.
    fn recorded<'a>(
        &'a self,
        agent: &'a AgentId,
        message: Seq,
    ) -> BoxFuture<'a, Result<Vec<TurnEvent>, PortError>>;
}

/// A question to memory.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryAsk {
    /// Who asks.
    pub agent: AgentId,
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// What is searched for.
    pub query: String,
    /// Results at most.
    pub limit: usize,
    /// Lowest cosine of a result.
    pub min_similarity: Option<f64>,
    /// Weight of meaning against words.
    pub semantic_weight: Option<f64>,
    /// Show what results are related to.
    pub include_relationships: bool,
    /// The same question is not searched for again within this time, while memory is as it was.
    pub keep_for: Duration,
}

/// What memory answers, the best first.
pub type Found = Result<Vec<Fact>, PortError>;

/// What turns are told by the rest of the server.
pub trait Sources: Send + Sync + fmt::Debug {
    /// The last `depth` messages of a conversation before `before` that the agent may see, the oldest first.
    fn history<'a>(
        &'a self,
        agent: &'a AgentId,
        conversation: &'a ConversationId,
        before: Seq,
        depth: usize,
    ) -> BoxFuture<'a, Result<Vec<Said>, PortError>>;

    /// Searches memory for several questions at once, so that they become vectors in one pass. As many answers as
    /// questions, in the same order.
    fn search(&self, asks: Vec<MemoryAsk>) -> BoxFuture<'_, Vec<Found>>;

    /// Messages that the agent sent in a conversation; not counted further than `enough`.
    fn said_by<'a>(
        &'a self,
        agent: &'a AgentId,
        conversation: &'a ConversationId,
        enough: usize,
    ) -> BoxFuture<'a, Result<usize, PortError>>;

    /// What others in the workspace offer.
    fn capabilities<'a>(
        &'a self,
        agent: &'a AgentId,
        workspace: &'a WorkspaceId,
    ) -> BoxFuture<'a, Result<Vec<Offered>, PortError>>;
}

/// Tools as turns reach them: permissions and limits hold behind this.
pub trait Tools: Send + Sync + fmt::Debug {
    /// The tools that these permissions allow, and what is not there `within` this time, with its reason.
    fn offer<'a>(
        &'a self,
        permissions: &'a Permissions,
        within: Duration,
    ) -> BoxFuture<'a, (Vec<ToolSpec>, Vec<String>)>;

    /// Calls a tool; `arguments` is JSON as text.
    ///
    /// # Errors
    ///
    /// [`ToolError`].
    fn call<'a>(
        &'a self,
        caller: &'a Caller,
        tool: &'a str,
        arguments: &'a str,
    ) -> BoxFuture<'a, Result<String, ToolError>>;
}

/// The providers of language models.
#[derive(Debug, Clone)]
pub struct Models {
    usual: Arc<dyn LanguageModel>,
    named: BTreeMap<String, Arc<dyn LanguageModel>>,
}

impl Models {
    /// Providers with a default.
    pub fn new(usual: Arc<dyn LanguageModel>) -> Self {
        Self { usual, named: BTreeMap::new() }
    }

    /// The same with a provider that agents can name.
    #[must_use]
    pub fn with(mut self, name: &str, model: Arc<dyn LanguageModel>) -> Self {
        self.named.insert(name.to_owned(), model);
        self
    }

    /// The provider of this name, or the default for none.
    pub fn named(&self, name: Option<&str>) -> Option<&Arc<dyn LanguageModel>> {
        name.map_or(Some(&self.usual), |name| self.named.get(name))
    }
}

/// The agents that run, by name. A version is swapped in one step; turns under way keep the one they began with.
#[derive(Debug, Default)]
pub struct Agents {
    by_name: RwLock<BTreeMap<AgentId, Arc<Agent>>>,
    changed: tokio::sync::Notify,
}

impl Agents {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on this version runs.
    pub fn put(&self, agent: Agent) {
        let mut agents = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        agents.insert(agent.spec.agent.clone(), Arc::new(agent));
        drop(agents);
        self.changed.notify_one();
    }

    /// From now on the agent takes nothing. What it has begun is finished.
    pub fn remove(&self, agent: &AgentId) {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).remove(agent);
        self.changed.notify_one();
    }

    /// The version that runs.
    pub fn get(&self, agent: &AgentId) -> Option<Arc<Agent>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(agent).cloned()
    }

    /// Whether nobody runs.
    pub fn is_empty(&self) -> bool {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Waits for a change since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}
