//! What goes to the message router and what comes back.

use std::time::Instant;

use caxton_events::conversation::{Content, Message, Routing};
use caxton_events::log::{AppendError, Filter, ReadError};
use caxton_events::{
    AgentId, ConversationEvent, ConversationId, Draft, Event, Kind, MessageId, Record, Seq, Timestamp,
};
use caxton_projections::view::Part;
use crossbeam_channel::TrySendError;
use tokio::sync::oneshot;

use super::Engine;
use crate::commands::talk::routing::version_in;
use crate::commands::talk::{Answered, Outgoing, To, Upkeep};
use crate::commands::{Refusal, RefusalCode};
use crate::telemetry;

/// Messages of a conversation that are looked through for the one that is answered.
const LOOKED_THROUGH_MAX: usize = 1_000;
/// Positions between two wanted records over which one scan goes on instead of a new one beginning.
const GAP_MAX: u64 = 256;
/// Contents of records that are read at a time, in bytes: a message has up to 10 MiB, and nobody holds a thousand of
/// these.
pub const RECORDS_BYTES_MAX: u64 = caxton_events::limits::CONTENTS_BYTES_MAX;

/// A message that was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct SentOutcome {
    /// Where it stands.
    pub seq: Seq,
    /// Its number.
    pub id: MessageId,
    /// Its conversation.
    pub conversation: ConversationId,
    /// Who gets it; empty when routing found nobody.
    pub receivers: Vec<AgentId>,
    /// How they were found.
    pub routing: Option<Routing>,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// The number was known with the same content: this is the first message.
    pub replayed: bool,
}

impl SentOutcome {
    /// Takes receivers and routing out of the message.
    pub(super) fn of(seq: Seq, recorded_at: Timestamp, message: &mut Message, replayed: bool) -> Self {
        Self {
            seq,
            id: message.id,
            conversation: message.conversation.clone(),
            receivers: std::mem::take(&mut message.receivers),
            routing: message.routing.take(),
            recorded_at,
            replayed,
        }
    }
}

/// Something besides messages that was done.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// Where it stands; the end of the log when nothing had to be written.
    pub seq: Seq,
    /// What was recorded last for it, if anything was.
    pub record: Option<Record>,
    /// How many events were recorded for it.
    pub recorded: usize,
}

/// Why something was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// The rules said no. Nothing was written.
    #[error("the command was refused")]
    Refused(Vec<Refusal>),
    /// Too much waits. Nothing was written: try again later.
    #[error("too many commands are waiting")]
    Overloaded,
    /// The server is stopping. Nothing was written.
    #[error("the server is stopping")]
    Stopped,
    /// Agents and conversations lack what is recorded of them, and nothing is decided on that. Nothing was written: try again when
    /// they go on.
    #[error("projection {name} has stopped: {error}; nothing was written")]
    Unavailable {
        /// Which one.
        name: &'static str,
        /// What it said.
        error: String,
    },
    /// The log failed.
    #[error("could not record the command")]
    Log(#[source] AppendError),
    /// The log could not be read to decide the command. Nothing was written.
    #[error("could not read the log to decide the command")]
    Read(#[source] ReadError),
    /// The numbers of messages could not be looked up. Nothing was written.
    #[error("could not look up the number of the message")]
    Store(#[source] caxton_projections::ApplyError),
}

/// What one request of messages becomes: one result each, refusals only when it was not atomic.
pub type SentResults = Vec<Result<SentOutcome, Refusal>>;

/// A request on its way to the router.
pub(super) enum Request {
    Send { wishes: Vec<Outgoing>, atomic: bool, answer: Answer<SentResults> },
    Upkeep { actor: String, wish: Upkeep, answer: Answer<Done> },
    Record { drafts: Vec<Draft>, answer: Answer<Vec<Seq>> },
    Replay { dead_letter: Seq, once_more: bool, wish: Box<Outgoing>, answer: Answer<SentResults> },
}

pub(super) type Answer<T> = oneshot::Sender<Result<T, TalkError>>;
pub(super) type Answered1<T> = oneshot::Receiver<Result<T, TalkError>>;

impl Request {
    /// How much of a group it takes.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Send { wishes, .. } => wishes.len(),
            Self::Record { drafts, .. } => drafts.len(),
            Self::Upkeep { .. } | Self::Replay { .. } => 1,
        }
    }

    /// Tells who asks why nothing comes of it.
    pub(super) fn refuse(self, error: TalkError) {
        match self {
            Self::Send { answer, .. } | Self::Replay { answer, .. } => drop(answer.send(Err(error))),
            Self::Upkeep { answer, .. } => drop(answer.send(Err(error))),
            Self::Record { answer, .. } => drop(answer.send(Err(error))),
        }
    }
}

impl Engine {
    /// Sends a message: answers when it is durable and routed.
    ///
    /// # Errors
    ///
    /// [`TalkError`].
    pub async fn send(&self, wish: Outgoing) -> Result<SentOutcome, TalkError> {
        one(self.send_many(vec![wish], true).await?)
    }

    /// The same for callers outside of async code.
    ///
    /// # Errors
    ///
    /// [`TalkError`].
    pub fn send_blocking(&self, wish: Outgoing) -> Result<SentOutcome, TalkError> {
        one(self.send_many_blocking(vec![wish], true)?)
    }

    /// Sends messages in their order; atomic: all or none, else each for itself.
    ///
    /// # Errors
    ///
    /// [`TalkError`].
    pub async fn send_many(&self, mut wishes: Vec<Outgoing>, atomic: bool) -> Result<SentResults, TalkError> {
        let started = Instant::now();
        if wishes.iter().any(|wish| wish.in_reply_to.is_some() && wish.answered.is_none()) {
            // The message that is answered may lie far back in the log.
            let engine = self.clone();
            let found = tokio::task::spawn_blocking(move || {
                engine.find_answered(&mut wishes)?;
                Ok(wishes)
            });
            wishes = found.await.unwrap_or(Err(TalkError::Stopped))?;
        }
        let answer = self.ask(|answer| Request::Send { wishes, atomic, answer })?;
        let results = answer.await.unwrap_or(Err(TalkError::Stopped))?;
        telemetry::messages_answered(started.elapsed());
        Ok(results)
    }

    /// The same for callers outside of async code.
    ///
    /// # Errors
    ///
    /// [`TalkError`].
    pub fn send_many_blocking(
        &self,
        mut wishes: Vec<Outgoing>,
        atomic: bool,
    ) -> Result<SentResults, TalkError> {
        let started = Instant::now();
        self.find_answered(&mut wishes)?;
        let answer = self.ask(|answer| Request::Send { wishes, atomic, answer })?;
        let results = answer.blocking_recv().unwrap_or(Err(TalkError::Stopped))?;
        telemetry::messages_answered(started.elapsed());
        Ok(results)
    }

    /// Does something besides sending: opens, closes, acknowledges, registers.
    ///
    /// # Errors
    ///
    /// [`TalkError`].
    pub async fn upkeep(&self, actor: &AgentId, wish: Upkeep) -> Result<Done, TalkError> {
        let actor = actor.as_str().to_owned();
        self.ask(|answer| Request::Upkeep { actor, wish, answer })?.await.unwrap_or(Err(TalkError::Stopped))
    }

    /// The same for callers outside of async code.
    ///
    /// # Errors
    ///
    /// [`TalkError`].
    pub fn upkeep_blocking(&self, actor: &AgentId, wish: Upkeep) -> Result<Done, TalkError> {
        let actor = actor.as_str().to_owned();
        let answer = self.ask(|answer| Request::Upkeep { actor, wish, answer })?;
        answer.blocking_recv().unwrap_or(Err(TalkError::Stopped))
    }

    /// Records events of agents and turns, all or none, and answers with their positions when they are durable and
    /// folded. The caller vouches for them: no rule is checked.
    ///
    /// # Errors
    ///
    /// [`TalkError`].
    pub fn record(&self, drafts: Vec<Draft>) -> Result<Vec<Seq>, TalkError> {
        let answer = self.ask(|answer| Request::Record { drafts, answer })?;
        answer.blocking_recv().unwrap_or(Err(TalkError::Stopped))
    }

    /// The same in async code.
    ///
    /// # Errors
    ///
    /// [`TalkError`].
    pub async fn record_async(&self, drafts: Vec<Draft>) -> Result<Vec<Seq>, TalkError> {
        self.ask(|answer| Request::Record { drafts, answer })?.await.unwrap_or(Err(TalkError::Stopped))
    }

    /// Sends the message of a dead letter again, as a new message in its conversation, or in a new one when that has
    /// ended. One that was sent again before is sent `once_more` only. Blocks.
    ///
    /// # Errors
    ///
    /// [`TalkError`].
    pub fn replay_blocking(&self, dead_letter: Seq, once_more: bool) -> Result<SentOutcome, TalkError> {
        let (letter, ended) = {
            let state = self.view().talk().read();
            let letter = state.conversations.dead_letters().get(&dead_letter).cloned();
            let Some(letter) = letter else { return Err(no_dead_letter(dead_letter)) };
            (letter, state.checkpoint)
        };
        let found = self.records(&[letter.sent])?;
        let Some(Event::Conversation(ConversationEvent::MessageSent(message))) =
            found.into_iter().next().map(|record| record.event)
        else {
            return Err(no_dead_letter(dead_letter));
        };
        debug_assert!(letter.seq <= ended, "a dead letter that is not folded");
        let mut wish = again(*message, letter.receiver);
        let open = {
            let state = self.view().talk().read();
            let conversation = wish.conversation.as_ref().and_then(|id| state.conversations.get(id));
            conversation.is_some_and(caxton_projections::conversations::Conversation::is_open)
        };
        if !open {
            wish.parent = wish.conversation.take();
        }
        wish.causation = Some(dead_letter);
        let wish = Box::new(wish);
        let answer = self.ask(|answer| Request::Replay { dead_letter, once_more, wish, answer })?;
        one(answer.blocking_recv().unwrap_or(Err(TalkError::Stopped))?)
    }

    pub(super) fn ask<T>(
        &self,
        request: impl FnOnce(Answer<T>) -> Request,
    ) -> Result<Answered1<T>, TalkError> {
        let (answer, answered) = oneshot::channel();
        let requests = self.inner.requests.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let sender = requests.as_ref().ok_or(TalkError::Stopped)?;
        if let Some(closed) = self.inner.log.closed() {
            return Err(TalkError::Log(closed.into()));
        }
        match sender.try_send(request(answer)) {
            Ok(()) => Ok(answered),
            Err(TrySendError::Full(_)) => Err(TalkError::Overloaded),
            Err(TrySendError::Disconnected(_)) => Err(match self.ended(Part::Talk) {
                Some((name, error)) => TalkError::Unavailable { name, error },
                None => TalkError::Stopped,
            }),
        }
    }

    /// Waits until everything that was asked before is decided, and handed to the log and to the fold. Blocks.
    ///
    /// # Errors
    ///
    /// [`TalkError::Stopped`].
    pub(super) fn wait_until_decided(&self) -> Result<(), TalkError> {
        let (answer, answered) = oneshot::channel();
        let requests = self.inner.requests.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        // It waits for a place behind the others, however many they are.
        let nothing = Request::Record { drafts: Vec::new(), answer };
        requests.ok_or(TalkError::Stopped)?.send(nothing).map_err(|_| TalkError::Stopped)?;
        answered.blocking_recv().unwrap_or(Err(TalkError::Stopped)).map(drop)
    }

    /// Records by position, in that order; positions must ascend, or descend. Those of events that were erased are left
    /// out.
    ///
    /// It ends behind [`RECORDS_BYTES_MAX`]: whoever wants more goes on behind the last record that it got, and has all
    /// of them when it gets none. Blocks.
    ///
    /// # Errors
    ///
    /// [`TalkError::Read`].
    pub fn records(&self, seqs: &[Seq]) -> Result<Vec<Record>, TalkError> {
        self.some_records(seqs, RECORDS_BYTES_MAX, Some)
    }

    /// What `keep` makes of these records, until that has so many bytes.
    pub(super) fn some_records<T>(
        &self,
        seqs: &[Seq],
        bytes_max: u64,
        keep: impl Fn(Record) -> Option<T>,
    ) -> Result<Vec<T>, TalkError> {
        let (mut kept, mut bytes, mut rest) = (Vec::with_capacity(seqs.len()), 0, seqs);
        let down = seqs.first() > seqs.last();
        while let Some(first) = rest.first() {
            let is_near = |pair: &&[Seq]| pair[1].0.abs_diff(pair[0].0) <= GAP_MAX;
            let (run, later) = rest.split_at(rest.windows(2).take_while(is_near).count() + 1);
            let filter = Filter { until: run.last().copied(), ..Filter::default() };
            let log = self.log();
            let mut scan = if down { log.scan_back(*first, &filter) } else { log.scan(*first, &filter) };
            let mut before = 0;
            while let Some(record) = scan.next() {
                let record = record.map_err(TalkError::Read)?;
                let size = scan.content_bytes() - before;
                before = scan.content_bytes();
                if run.binary_search_by(|seq| order(*seq, record.seq, down)).is_err() {
                    continue;
                }
                if let Some(item) = keep(record) {
                    kept.push(item);
                    bytes += size;
                    if bytes >= bytes_max {
                        return Ok(kept);
                    }
                }
            }
            rest = later;
        }
        Ok(kept)
    }

    /// Looks up what messages answer.
    fn find_answered(&self, wishes: &mut [Outgoing]) -> Result<(), TalkError> {
        for wish in wishes {
            if let (Some(word), Some(conversation), None) =
                (&wish.in_reply_to, &wish.conversation, &wish.answered)
            {
                wish.answered = self.answered(conversation, word)?;
            }
        }
        Ok(())
    }

    /// The message of a conversation with this `reply_with` or this number. Blocks when it does not wait for an answer
    /// any more, and has to be read.
    ///
    /// # Errors
    ///
    /// [`TalkError::Read`], [`TalkError::Store`].
    pub fn answered(&self, conversation: &ConversationId, word: &str) -> Result<Option<Answered>, TalkError> {
        let recent = {
            let state = self.view().talk().read();
            let Some(row) = state.conversations.get(conversation) else { return Ok(None) };
            if let Some(exchange) = row.exchange(word) {
                return Ok(Some(Answered {
                    seq: exchange.sent,
                    performative: exchange.performative,
                    sender: exchange.sender.clone(),
                    receivers: exchange.receivers.clone(),
                }));
            }
            row.messages.before(Seq(u64::MAX), LOOKED_THROUGH_MAX)
        };
        let id = word.parse::<MessageId>().ok();
        let found = match id {
            Some(id) => self.view().talk().message(id).map_err(TalkError::Store)?,
            None => None,
        };
        let is_it = |message: &Message| {
            message.conversation == *conversation
                && (message.reply_with.as_deref() == Some(word) || id == Some(message.id))
        };
        let (Some(newest), Some(oldest)) = (recent.first(), recent.last()) else { return Ok(None) };
        let filter = Filter {
            until: Some(found.unwrap_or(*oldest)),
            kinds: Some(vec![Kind::MessageSent]),
            stream: Some(conversation.as_str().to_owned()),
            ..Filter::default()
        };
        for record in self.log().scan_back(found.unwrap_or(*newest), &filter) {
            let record = record.map_err(TalkError::Read)?;
            if let Event::Conversation(ConversationEvent::MessageSent(message)) = record.event
                && is_it(&message)
            {
                let Message { performative, sender, receivers, .. } = *message;
                return Ok(Some(Answered { seq: record.seq, performative, sender, receivers }));
            }
        }
        Ok(None)
    }
}

/// How two positions stand in a list that ascends, or goes down.
fn order(one: Seq, other: Seq, down: bool) -> std::cmp::Ordering {
    if down { other.cmp(&one) } else { one.cmp(&other) }
}

fn one(results: SentResults) -> Result<SentOutcome, TalkError> {
    match results.into_iter().next() {
        Some(Ok(outcome)) => Ok(outcome),
        Some(Err(refusal)) => Err(TalkError::Refused(vec![refusal])),
        None => Err(TalkError::Stopped),
    }
}

pub(super) fn replayed(seq: Seq, message: &str) -> TalkError {
    TalkError::Refused(vec![Refusal {
        code: RefusalCode::WrongState,
        index: 0,
        field: "dead_letter".to_owned(),
        message: format!("the dead letter at {} was sent again already, as {message}", seq.0),
        remedy: "send again=true to send it once more".to_owned(),
    }])
}

pub(super) fn no_dead_letter(seq: Seq) -> TalkError {
    TalkError::Refused(vec![Refusal {
        code: RefusalCode::DeadLetterNotFound,
        index: 0,
        field: "dead_letter".to_owned(),
        message: format!("there is no dead letter at {}", seq.0),
        remedy: "see GET /dead-letters for those there are".to_owned(),
    }])
}

/// The wish to send a message again, to one receiver or to who can be found now.
fn again(message: Message, receiver: Option<AgentId>) -> Outgoing {
    let plain = matches!(message.content, Content::Text(_));
    let to = match (receiver, message.routing) {
        (Some(receiver), _) => To::Agents(vec![receiver]),
        (None, Some(routing)) => {
            let version = version_in(&routing.reason).map(str::to_owned);
            To::Capability { name: routing.capability, version, strategy: routing.strategy }
        }
        (None, None) => To::Agents(message.receivers),
    };
    Outgoing {
        // Its sender may have been removed since.
        registers: false,
        plain,
        conversation: Some(message.conversation),
        priority: message.priority,
        reply_with: message.reply_with,
        extras: message.extras,
        ..Outgoing::new(message.sender, message.performative, to, message.content)
    }
}
