//! A world for tests: log, inboxes, model and tools in plain collections, doing what a script says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caxton_events::conversation::{
    Content, DeadLetterReason, Message, Performative, Priority, Routing, Strategy,
};
use caxton_events::log::AppendError;
use caxton_events::turn::ToolCall;
use caxton_events::{
    AgentId, Clock, ConversationEvent, ConversationId, Draft, Event, MessageId, Seq, Timestamp, TurnEvent,
    TurnId, WorkspaceId,
};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::cancel::TakenBack;
use super::circuit::later;
use super::context::{Offered, Said};
use super::ports::{
    Agents, Delivery, Found, Inbox, MemoryAsk, Models, OutgoingReply, PortError, Replies, ReplyError, Room,
    Sources, TooLarge, Tools, TurnLog,
};
use super::queues::Classifier;
use super::reply::Reply;
use super::runner::{RetryRules, World};
use super::spec::{Agent, AgentSpec, Limits, MemorySettings, ModelSettings, Performance, Templates};
use super::turn::turn_of;
use crate::llm::{Answer, Ask, Fact, LanguageModel, ModelError, ModelErrorKind, Pieces, Role, ToolSpec};
use crate::toolbox::{Caller, Permissions, ToolError};

/// An agent that says what it is told.
pub(super) fn spec(name: &str) -> AgentSpec {
    AgentSpec {
        agent: name.parse().unwrap(),
        workspace: "default".parse().unwrap(),
        config: Seq(1),
        capabilities: Vec::new(),
        system_prompt: "You are {{role:a helper}}.".to_owned(),
        templates: Templates::default(),
        parameters: serde_json::Map::new(),
        model: ModelSettings::default(),
        permissions: Permissions {
            tools: ["memory", "http_client", "message"].map(str::to_owned).to_vec(),
            calls_max: 10,
            ..Permissions::default()
        },
        limits: Limits::default(),
        memory: MemorySettings::default(),
        history_depth: 5,
        auto_respond: false,
        performance: Performance::default(),
    }
}

/// A request from bob in the conversation `c1`.
pub(super) fn message(text: &str) -> Message {
    Message {
        id: MessageId::from_bytes([7; 16]),
        id_given: false,
        performative: Performative::Request,
        sender: "bob".parse().unwrap(),
        receivers: vec!["ada".parse().unwrap()],
        routing: None,
        conversation: "c1".parse().unwrap(),
        content: Content::Text(text.to_owned()),
        priority: Priority::Normal,
        reply_with: None,
        in_reply_to: None,
        reply_by: None,
        expires_at: None,
        extras: None,
    }
}

/// A message to an agent, as its inbox gives it.
pub(super) fn delivery(agent: &str, seq: u64, message: Message) -> Delivery {
    let (agent, message) = (agent.parse().unwrap(), Arc::new(message));
    Delivery { agent, seq: Seq(seq), message, not_before: None, back: TakenBack::default() }
}

/// The same message in another conversation, with another priority.
pub(super) fn said_in(conversation: &str, priority: Priority, text: &str) -> Message {
    Message { conversation: conversation.parse().unwrap(), priority, ..message(text) }
}

/// The same message to a capability.
pub(super) fn asked_for(capability: &str, message: Message) -> Message {
    let routing = Routing {
        capability: capability.parse().unwrap(),
        strategy: Strategy::BestMatch,
        candidates: Vec::new(),
        reason: String::new(),
    };
    Message { routing: Some(routing), ..message }
}

pub(super) fn call(id: &str, tool: &str) -> ToolCall {
    ToolCall { id: id.to_owned(), tool: tool.to_owned(), arguments: "{}".to_owned() }
}

fn broken(tried: &'static str) -> PortError {
    PortError { tried, source: "the script says so".into() }
}

/// Time that stands still unless a test lets it pass.
#[derive(Debug)]
pub(super) struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        later(Timestamp::from_unix_micros(1_700_000_000_000_000), self.0.elapsed())
    }
}

/// What a model answers when its answer has no room in an event.
pub(super) const TOO_LARGE: &str = "(more than an event has room for)";

/// A log in a vector, which can be made to fail from a number of records on.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) drafts: Mutex<Vec<Draft>>,
    pub(super) full_at: AtomicUsize,
    /// What is recorded is of a conversation that is being erased.
    pub(super) erasing: AtomicBool,
    /// Messages that have expired.
    pub(super) expired: Mutex<Vec<Seq>>,
}

impl Records {
    /// The events of turns so far.
    pub(super) fn turns(&self) -> Vec<TurnEvent> {
        let drafts = self.drafts.lock().unwrap();
        drafts
            .iter()
            .filter_map(
                |draft| if let Event::Turn(event) = &draft.event { Some(event.clone()) } else { None },
            )
            .collect()
    }

    /// Why a message became a dead letter, if one did.
    pub(super) fn reason(&self) -> Option<DeadLetterReason> {
        self.drafts.lock().unwrap().iter().find_map(|draft| {
            let Event::Conversation(ConversationEvent::MessageDeadLettered { reason, .. }) = &draft.event
            else {
                return None;
            };
            Some(*reason)
        })
    }

    /// The words for what happened, in order: events of turns by their names, others by their family.
    pub(super) fn words(&self) -> Vec<&'static str> {
        self.drafts.lock().unwrap().iter().map(|draft| draft.event.kind().name()).collect()
    }
}

impl TurnLog for Records {
    fn record(&self, drafts: Vec<Draft>) -> BoxFuture<'_, Result<Vec<Seq>, PortError>> {
        if self.erasing.load(Ordering::SeqCst) {
            let source = AppendError::BeingErased { stream: "one".to_owned() }.into();
            let error = PortError { tried: "could not record an event of a turn", source };
            return async move { Err(error) }.boxed();
        }
        let mut all = self.drafts.lock().unwrap();
        if all.len() + drafts.len() > self.full_at.load(Ordering::SeqCst) {
            return async { Err(broken("could not record an event of a turn")) }.boxed();
        }
        let is_large = |draft: &Draft| {
            let Event::Turn(TurnEvent::ModelAnswered { text, .. }) = &draft.event else { return false };
            text == TOO_LARGE
        };
        if drafts.iter().any(is_large) {
            let source = TooLarge { bytes: usize::MAX }.into();
            let error = PortError { tried: "could not record an event of a turn", source };
            return async move { Err(error) }.boxed();
        }
        all.extend(drafts);
        let seqs = vec![Seq(1_000 + all.len() as u64)];
        async move { Ok(seqs) }.boxed()
    }

    fn is_open(&self, _: &AgentId, message: Seq) -> bool {
        !self.expired.lock().unwrap().contains(&message)
    }

    fn recorded<'a>(
        &'a self,
        agent: &'a AgentId,
        message: Seq,
    ) -> BoxFuture<'a, Result<Vec<TurnEvent>, PortError>> {
        let turns = self.turns();
        let mine: Vec<_> = turns
            .iter()
            .filter(|event| {
                let TurnEvent::Started { agent: who, message: what, .. } = event else { return false };
                who == agent && *what == message
            })
            .map(turn_of)
            .collect();
        let events = turns.into_iter().filter(|event| mine.contains(&turn_of(event))).collect();
        async move { Ok(events) }.boxed()
    }
}

/// Answers that were sent, once for each number.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) replies: Mutex<BTreeMap<String, OutgoingReply>>,
    pub(super) refuse: Mutex<Option<String>>,
    /// Whether FAILURE is taken though everything else is refused.
    pub(super) takes_failures: AtomicBool,
    /// Sends that fail before one works.
    pub(super) failures: AtomicUsize,
    /// Somebody else takes what is given up.
    pub(super) passes_on: AtomicBool,
    pub(super) idle: Mutex<Option<Duration>>,
}

impl Sent {
    /// What was answered, as `ada to bob: INFORM text`, in order of the numbers.
    pub(super) fn lines(&self) -> Vec<String> {
        let replies = self.replies.lock().unwrap();
        let line = |sent: &OutgoingReply| {
            let Reply { performative, content } = &sent.reply;
            format!("{} to {}: {performative} {}", sent.agent, sent.answers.sender, content.as_str())
        };
        replies.values().map(line).collect()
    }
}

impl Replies for Sent {
    fn send(&self, reply: OutgoingReply) -> BoxFuture<'_, Result<(), ReplyError>> {
        async move {
            let takes = reply.reply.performative == Performative::Failure
                && self.takes_failures.load(Ordering::SeqCst);
            if let Some(reason) = self.refuse.lock().unwrap().clone().filter(|_| !takes) {
                return Err(ReplyError::Refused(reason));
            }
            if self
                .failures
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_ok()
            {
                return Err(ReplyError::Unavailable(broken("could not send an answer")));
            }
            self.replies.lock().unwrap().entry(reply.id.to_string()).or_insert(reply);
            Ok(())
        }
        .boxed()
    }

    fn pass_on<'a>(&'a self, _: &'a Delivery, _: TurnId) -> BoxFuture<'a, Result<bool, ReplyError>> {
        async { Ok(self.passes_on.load(Ordering::SeqCst)) }.boxed()
    }

    fn limit_idle<'a>(
        &'a self,
        _: &'a ConversationId,
        idle: Duration,
    ) -> BoxFuture<'a, Result<(), PortError>> {
        *self.idle.lock().unwrap() = Some(idle);
        async { Ok(()) }.boxed()
    }
}

/// One answer of the scripted model.
#[derive(Debug, Clone)]
pub(super) enum Line {
    Text(&'static str),
    /// Repeats the question.
    Echo,
    Calls(Vec<ToolCall>),
    Error(ModelErrorKind),
    /// The provider is not asked, and may be after this time.
    Away(Duration),
    After(Duration, &'static str),
    Hang,
    Panic,
}

/// A model that says the line for the number of answers it is shown, the last one for all further ones.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) lines: Vec<Line>,
    /// Said instead, one request after the other.
    pub(super) first: Mutex<VecDeque<Line>>,
    pub(super) asks: Mutex<Vec<Ask>>,
}

impl Script {
    pub(super) fn new(lines: Vec<Line>) -> Arc<Self> {
        Arc::new(Self { lines, first: Mutex::default(), asks: Mutex::default() })
    }

    pub(super) fn asked(&self) -> usize {
        self.asks.lock().unwrap().len()
    }
}

impl LanguageModel for Script {
    fn provider(&self) -> &'static str {
        "script"
    }

    fn ask<'a>(&'a self, ask: &'a Ask, pieces: Pieces<'a>) -> BoxFuture<'a, Result<Answer, ModelError>> {
        async move {
            self.asks.lock().unwrap().push(ask.clone());
            let first = self.first.lock().unwrap().pop_front();
            let answers = ask.messages.iter().filter(|message| message.role == Role::Assistant).count();
            let line = first.unwrap_or_else(|| self.lines[answers.min(self.lines.len() - 1)].clone());
            let text = |text: &str| {
                pieces(text);
                Answer { text: text.to_owned(), model: "m1".to_owned(), ..Answer::default() }
            };
            match line {
                Line::Text(line) => Ok(text(line)),
                Line::Echo => Ok(text(&ask.question)),
                Line::Calls(tool_calls) => Ok(Answer { tool_calls, ..Answer::default() }),
                Line::Error(kind) => Err(ModelError::new("script", kind, "as scripted")),
                Line::Away(wait) => {
                    let kind = ModelErrorKind::RateLimited { retry_after: Some(wait) };
                    Err(ModelError { asked: false, ..ModelError::new("script", kind, "left alone") })
                }
                Line::After(wait, line) => {
                    sleep(wait).await;
                    Ok(text(line))
                }
                Line::Hang => std::future::pending().await,
                Line::Panic => panic!("as scripted"),
            }
        }
        .boxed()
    }
}

/// Sources with a fixed content.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) history: Vec<Said>,
    pub(super) facts: Vec<Fact>,
    pub(super) fail: Mutex<Vec<&'static str>>,
    /// Questions of each search.
    pub(super) searches: Mutex<Vec<usize>>,
    /// Messages that the agent has sent in the conversation.
    pub(super) said: usize,
    /// Time until it is known what was said before.
    pub(super) takes: Mutex<Duration>,
}

impl Known {
    fn answer<T>(&self, source: &'static str, value: T) -> Result<T, PortError> {
        if self.fail.lock().unwrap().contains(&source) { Err(broken("could not ask")) } else { Ok(value) }
    }
}

impl Sources for Known {
    fn history<'a>(
        &'a self,
        _: &'a AgentId,
        _: &'a ConversationId,
        _: Seq,
        depth: usize,
    ) -> BoxFuture<'a, Result<Vec<Said>, PortError>> {
        let from = self.history.len().saturating_sub(depth);
        let takes = *self.takes.lock().unwrap();
        async move {
            tokio::time::sleep(takes).await;
            self.answer("history", self.history[from..].to_vec())
        }
        .boxed()
    }

    fn search(&self, asks: Vec<MemoryAsk>) -> BoxFuture<'_, Vec<Found>> {
        async move {
            self.searches.lock().unwrap().push(asks.len());
            asks.iter().map(|_| self.answer("memory", self.facts.clone())).collect()
        }
        .boxed()
    }

    fn said_by<'a>(
        &'a self,
        _: &'a AgentId,
        _: &'a ConversationId,
        _: usize,
    ) -> BoxFuture<'a, Result<usize, PortError>> {
        async { Ok(self.said) }.boxed()
    }

    fn capabilities<'a>(
        &'a self,
        _: &'a AgentId,
        _: &'a WorkspaceId,
    ) -> BoxFuture<'a, Result<Vec<Offered>, PortError>> {
        let offered = Offered { capability: "summarise".to_owned(), agents: vec!["sue".to_owned()] };
        async move { self.answer("capabilities", vec![offered]) }.boxed()
    }
}

/// Tools that answer with their name. `denied` is refused, `hanging` hangs.
#[derive(Debug, Default)]
pub(super) struct Kit {
    pub(super) called: Mutex<Vec<String>>,
}

impl Tools for Kit {
    fn offer<'a>(
        &'a self,
        permissions: &'a Permissions,
        _: Duration,
    ) -> BoxFuture<'a, (Vec<ToolSpec>, Vec<String>)> {
        let spec = |name: &String| ToolSpec {
            name: name.clone(),
            description: String::new(),
            parameters: serde_json::json!({}),
        };
        async move { (permissions.tools.iter().map(spec).collect(), Vec::new()) }.boxed()
    }

    fn call<'a>(
        &'a self,
        caller: &'a Caller,
        tool: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        async move {
            self.called.lock().unwrap().push(format!("{tool}:{}", caller.call));
            match tool {
                "denied" => Err(ToolError::Refused("not in its file".to_owned())),
                "hanging" => std::future::pending().await,
                "failing" => Err(ToolError::Failed("broke".to_owned())),
                _ => Ok(format!("{tool} said so")),
            }
        }
        .boxed()
    }
}

/// Everything around turns.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) log: Arc<Records>,
    pub(super) sent: Arc<Sent>,
    pub(super) model: Arc<Script>,
    pub(super) known: Arc<Known>,
    pub(super) kit: Arc<Kit>,
    pub(super) world: Arc<World>,
}

impl Stage {
    pub(super) fn new(lines: Vec<Line>) -> Self {
        Self::knowing(lines, Known::default())
    }

    pub(super) fn knowing(lines: Vec<Line>, known: Known) -> Self {
        let log = Arc::new(Records { full_at: AtomicUsize::new(usize::MAX), ..Records::default() });
        let (sent, kit, known) = (Arc::new(Sent::default()), Arc::new(Kit::default()), Arc::new(known));
        let model = Script::new(lines);
        let world = Arc::new(World {
            log: log.clone(),
            replies: sent.clone(),
            sources: known.clone(),
            tools: kit.clone(),
            models: Models::new(model.clone()),
            clock: Arc::new(TestClock(Instant::now())),
            retry: RetryRules::default(),
            heard: None,
        });
        Self { log, sent, model, known, kit, world }
    }
}

/// Inboxes in a vector.
#[derive(Debug)]
pub(super) struct Letters {
    waiting: Mutex<VecDeque<Delivery>>,
    pub(super) done: Mutex<Vec<u64>>,
    pub(super) given_back: Mutex<Vec<u64>>,
    /// Messages that somebody else has seen to.
    pub(super) gone: Mutex<Vec<u64>>,
    classifier: Classifier,
    changed: Notify,
}

impl Letters {
    pub(super) fn new(classifier: Classifier) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            done: Mutex::default(),
            given_back: Mutex::default(),
            gone: Mutex::default(),
            classifier,
            changed: Notify::new(),
        })
    }

    pub(super) fn add(&self, delivery: Delivery) {
        self.waiting.lock().unwrap().push_back(delivery);
        self.changed.notify_one();
    }

    /// Waits until so many messages are done with; their places, in that order.
    pub(super) async fn done(&self, count: usize) -> Vec<u64> {
        loop {
            let done = self.done.lock().unwrap().clone();
            if done.len() >= count {
                return done;
            }
            // With time standing still, this lets everybody else act first.
            sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Inbox for Letters {
    fn next<'a>(&'a self, room: &'a Room<'a>) -> BoxFuture<'a, Vec<Delivery>> {
        async move {
            loop {
                let mut room = room.queues.clone();
                let mut taken = Vec::new();
                self.waiting.lock().unwrap().retain(|delivery| {
                    let queue = self.classifier.queue(delivery.capability(), delivery.message.priority);
                    if room[queue] == 0 {
                        return true;
                    }
                    room[queue] -= 1;
                    taken.push(delivery.clone());
                    false
                });
                if !taken.is_empty() {
                    return taken;
                }
                self.changed.notified().await;
            }
        }
        .boxed()
    }

    fn done<'a>(&'a self, _: &'a AgentId, seq: Seq) -> BoxFuture<'a, Result<(), PortError>> {
        self.done.lock().unwrap().push(seq.0);
        async { Ok(()) }.boxed()
    }

    fn is_done(&self, _: &AgentId, seq: Seq) -> bool {
        self.gone.lock().unwrap().contains(&seq.0)
    }

    fn put_back(&self, delivery: Delivery) {
        self.given_back.lock().unwrap().push(delivery.seq.0);
    }
}

/// These agents, running.
pub(super) fn running(specs: impl IntoIterator<Item = AgentSpec>) -> Arc<Agents> {
    let agents = Agents::new();
    for spec in specs {
        agents.put(Agent::new(spec).unwrap());
    }
    Arc::new(agents)
}
