//! What agents say, on its way to the engine.

use std::sync::Arc;
use std::time::Duration;

use caxton_events::conversation::{Content, Message, Strategy};
use caxton_events::{AgentId, Clock as _, ConversationEvent, ConversationId, Event, MessageId, Seq, TurnId};
use caxton_projections::conversations::SYSTEM;
use futures::future::BoxFuture;

use crate::agents::ports::{Delivery, OutgoingReply, PortError, Replies, ReplyError};
use crate::commands::talk::{Answered, Outgoing, To, Upkeep, may_answer};
use crate::commands::{Refusal, RefusalCode};
use crate::engine::{Engine, SentOutcome, SystemClock, TalkError};
use crate::failure;
use crate::toolbox::message::{AgentMessage, Answer, Asked, Messages, Recipient, SentMessage};
use crate::toolbox::{ToolError, answered};

/// Messages that are looked through at a time for an answer.
const READ_MAX: usize = 512;
/// Longest wait between two looks for an answer; a message ends it.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// A message with its place.
pub(super) type Read = (Seq, Arc<Message>);

/// The way out of agents.
#[derive(Clone)]
pub(super) struct Out {
    engine: Engine,
    strategy: Strategy,
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Out").field("strategy", &self.strategy).finish_non_exhaustive()
    }
}

impl Out {
    /// To `engine`; `strategy` is for messages to a capability that name none.
    pub(super) const fn new(engine: Engine, strategy: Strategy) -> Self {
        Self { engine, strategy }
    }

    async fn reply(&self, reply: OutgoingReply) -> Result<(), ReplyError> {
        let asked = &reply.answers;
        let to = To::Agents(vec![asked.sender.clone()]);
        // What only informs has no answer by the rules: what is said to it is a message of its own.
        let answers = may_answer(asked.performative, reply.reply.performative);
        let wish = Outgoing {
            registers: false,
            workspace: reply.workspace,
            id: Some(reply.id),
            conversation: Some(asked.conversation.clone()),
            priority: asked.priority,
            in_reply_to: answers.then(|| asked.reply_with.clone().unwrap_or_else(|| asked.id.to_string())),
            answered: answers.then(|| Answered {
                seq: reply.answers_seq,
                performative: asked.performative,
                sender: asked.sender.clone(),
                receivers: asked.receivers.clone(),
            }),
            causation: Some(reply.answers_seq),
            correlation: Some(reply.turn.to_string()),
            ..Outgoing::new(reply.agent, reply.reply.performative, to, reply.reply.content)
        };
        sent(self.engine.send(wish.as_written()).await)
    }

    /// The message of `delivery` to the next provider of its capability, as from its sender.
    async fn pass_on(&self, delivery: &Delivery, turn: TurnId) -> Result<bool, ReplyError> {
        let Some(routing) =
            delivery.message.routing.as_ref().filter(|one| one.strategy == Strategy::Failover)
        else {
            return Ok(false);
        };
        let (engine, seq, first) = (self.engine.clone(), delivery.seq, delivery.message.clone());
        let tried = tokio::task::spawn_blocking(move || tried(&engine, seq, &first)).await;
        let tried = tried.unwrap_or(Err(TalkError::Stopped)).map_err(unavailable)?;
        if routing.candidates.iter().all(|candidate| tried.contains(&candidate.agent)) {
            return Ok(false);
        }
        let message = Message::clone(&delivery.message);
        // The version that was asked for is not recorded, but who was looked at for it is.
        let among = Some(routing.candidates.iter().map(|candidate| candidate.agent.clone()).collect());
        let to =
            To::Capability { name: routing.capability.clone(), version: None, strategy: Strategy::Failover };
        let now = SystemClock.now();
        let wish = Outgoing {
            registers: false,
            plain: matches!(message.content, Content::Text(_)),
            id: Some(passed_on_id(turn)),
            conversation: Some(message.conversation),
            priority: message.priority,
            reply_with: message.reply_with.or_else(|| Some(message.id.to_string())),
            // One that is over would be refused; that it passed is recorded with the first message.
            reply_by: message.reply_by.filter(|at| *at > now),
            expires_at: message.expires_at,
            extras: message.extras,
            causation: Some(delivery.seq),
            correlation: Some(turn.to_string()),
            passed_over: tried,
            among,
            ..Outgoing::new(message.sender, message.performative, to, message.content)
        };
        match self.engine.send(wish).await {
            // When nobody is left who can take it, routing has told the sender.
            Ok(_) => Ok(true),
            Err(error) => match sent(Err(error)) {
                Ok(()) => Ok(true),
                Err(ReplyError::Refused(_)) => Ok(false),
                Err(error) => Err(error),
            },
        }
    }
}

/// Who had this message already, by the messages that it was passed on from.
fn tried(engine: &Engine, seq: Seq, message: &Message) -> Result<Vec<AgentId>, TalkError> {
    let mut tried = message.receivers.clone();
    let mut at = seq;
    loop {
        let cause = engine.records(&[at])?.pop().and_then(|record| record.causation);
        let Some(before) =
            cause.map(|cause| engine.records(&[cause])).transpose()?.and_then(|mut found| found.pop())
        else {
            return Ok(tried);
        };
        let Event::Conversation(ConversationEvent::MessageSent(earlier)) = before.event else {
            return Ok(tried);
        };
        let is_same = earlier.sender == message.sender
            && earlier.conversation == message.conversation
            && earlier.content == message.content
            && earlier.routing.as_ref().is_some_and(|one| one.strategy == Strategy::Failover);
        if !is_same {
            return Ok(tried);
        }
        tried.extend(earlier.receivers);
        at = before.seq;
    }
}

/// The number of the message that a turn passes on, the same whenever it is resumed.
fn passed_on_id(turn: TurnId) -> MessageId {
    let mut hash = blake3::Hasher::new_derive_key("caxton: number of a message that a turn passes on");
    let mut bytes = [0; 16];
    hash.update(&turn.bytes()).finalize_xof().fill(&mut bytes);
    // A UUID of version 8: its meaning is ours.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    MessageId::from_bytes(bytes)
}

fn unavailable(error: TalkError) -> ReplyError {
    ReplyError::Unavailable(PortError { tried: "could not send an answer", source: Box::new(error) })
}

fn sent(result: Result<SentOutcome, TalkError>) -> Result<(), ReplyError> {
    match result {
        Ok(_) => Ok(()),
        Err(TalkError::Refused(refusals)) => match refusals.first() {
            // A turn that is resumed may say it in other words: what was said first counts.
            Some(refusal) if refusal.code == RefusalCode::MessageConflict => Ok(()),
            Some(refusal) if refusal.code == RefusalCode::QueueFull => {
                Err(unavailable(TalkError::Refused(refusals)))
            }
            refusal => Err(ReplyError::Refused(said(refusal))),
        },
        Err(error) => Err(unavailable(error)),
    }
}

fn said(refusal: Option<&Refusal>) -> String {
    let told = |refusal: &Refusal| format!("{}: {}", refusal.field, refusal.message);
    refusal.map_or_else(|| "without a reason".to_owned(), told)
}

/// A refusal in the words of the tool `message`, whose caller named the receiver by the argument `to`.
fn refused(refusal: Refusal, to: &str) -> ToolError {
    let Refusal { code, field, message, remedy, .. } = refusal;
    let (field, remedy) = match (field.as_str(), code) {
        ("receiver", RefusalCode::AgentNotFound) if !remedy.starts_with("did you mean") => {
            (to, "name an agent that there is, or give a capability")
        }
        ("receiver", RefusalCode::LimitReached) => {
            (to, "send it in a conversation that has room for one more")
        }
        ("receiver", _) => (to, remedy.as_str()),
        ("conversation_id", RefusalCode::ConversationNotFound) => {
            ("conversation", "name one that there is, or leave it out to stay in this one")
        }
        ("conversation_id", _) => ("conversation", "name one that is open and has room"),
        (field, _) => (field, remedy.as_str()),
    };
    ToolError::argument(field, message, remedy)
}

impl Replies for Out {
    fn send(&self, reply: OutgoingReply) -> BoxFuture<'_, Result<(), ReplyError>> {
        Box::pin(self.reply(reply))
    }

    fn pass_on<'a>(
        &'a self,
        delivery: &'a Delivery,
        turn: TurnId,
    ) -> BoxFuture<'a, Result<bool, ReplyError>> {
        Box::pin(self.pass_on(delivery, turn))
    }

    fn limit_idle<'a>(
        &'a self,
        conversation: &'a ConversationId,
        idle: Duration,
    ) -> BoxFuture<'a, Result<(), PortError>> {
        Box::pin(async move {
            let millis = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
            let is_other = {
                let talk = self.engine.view().talk().read();
                let row = talk.conversations.get(conversation).filter(|row| row.is_open());
                row.is_some_and(|row| row.idle_timeout_millis != millis)
            };
            if !is_other {
                return Ok(());
            }
            let tried = "could not record a conversation's idle time";
            let system = SYSTEM.parse::<AgentId>();
            let system = system.map_err(|error| PortError { tried, source: Box::new(error) })?;
            // Its life is what it is when this is decided: somebody may just prolong it.
            let wish = Upkeep::Extend {
                conversation: conversation.clone(),
                idle_timeout_millis: Some(millis),
                life_timeout_millis: None,
            };
            match self.engine.upkeep(&system, wish).await {
                // Refused is what has ended meanwhile, or is gone.
                Ok(_) | Err(TalkError::Refused(_)) => Ok(()),
                Err(error) => Err(PortError { tried, source: Box::new(error) }),
            }
        })
    }
}

impl Messages for Out {
    fn send(&self, message: AgentMessage) -> BoxFuture<'_, Result<SentMessage, ToolError>> {
        let (to, named_by) = match message.to {
            Recipient::Agent(agent) => (To::Agents(vec![agent]), "to"),
            Recipient::Capability { name, strategy } => {
                let strategy = strategy.unwrap_or(self.strategy);
                (To::Capability { name, version: None, strategy }, "capability")
            }
        };
        let wish = Outgoing {
            registers: false,
            workspace: message.workspace,
            id: Some(message.id),
            conversation: Some(message.conversation),
            priority: message.priority,
            in_reply_to: message.in_reply_to,
            causation: Some(message.cause),
            correlation: Some(message.turn.to_string()),
            ..Outgoing::new(message.sender, message.performative, to, message.content)
        };
        let wish = wish.as_written();
        Box::pin(async move {
            match self.engine.send(wish).await {
                Ok(outcome) => Ok(SentMessage {
                    seq: outcome.seq,
                    receivers: outcome.receivers,
                    reason: outcome.routing.map(|routing| routing.reason).unwrap_or_default(),
                }),
                Err(TalkError::Refused(refusals)) => Err(match refusals.into_iter().next() {
                    Some(refusal) => refused(refusal, named_by),
                    None => ToolError::Failed("the message was refused".to_owned()),
                }),
                Err(error) => Err(ToolError::Failed(failure::chain(&error))),
            }
        })
    }

    fn answer<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, Result<Answer, ToolError>> {
        Box::pin(async move {
            let mut looked_at = asked.seq;
            loop {
                let (engine, agent) = (self.engine.clone(), asked.sender.clone());
                let read = tokio::task::spawn_blocking(move || came_behind(&engine, &agent, looked_at)).await;
                let came = read.unwrap_or(Err(TalkError::Stopped));
                let (came, through) = came.map_err(|error| ToolError::Failed(failure::chain(&error)))?;
                looked_at = through;
                if let Some((seq, message)) = came.into_iter().find(|(_, message)| answers(message, asked)) {
                    let wish = Upkeep::Acknowledge {
                        agent: asked.sender.clone(),
                        through: Seq::ZERO,
                        also: vec![seq],
                    };
                    let done = self.engine.upkeep(asked.sender, wish).await;
                    done.map_err(|error| ToolError::Failed(failure::chain(&error)))?;
                    let Message { sender, performative, content, .. } = message.as_ref();
                    let (sender, performative, content) = (sender.clone(), *performative, content.clone());
                    return Ok(Answer { seq, sender, performative, content });
                }
                // The agent may be done with the answer before this looks: then it is there all the same.
                self.engine.wait_message(asked.sender, looked_at, ANSWER_WAIT).await;
                if self.engine.is_stopping() {
                    return Err(ToolError::Failed(TalkError::Stopped.to_string()));
                }
            }
        })
    }
}

/// The messages to `agent` behind a position, also those that it is done with, and how far they go.
pub(super) fn came_behind(
    engine: &Engine,
    agent: &AgentId,
    after: Seq,
) -> Result<(Vec<Read>, Seq), TalkError> {
    let seqs: Vec<Seq> = {
        let talk = engine.view().talk().read();
        let inbox = talk.conversations.inbox(agent);
        inbox.map_or_else(Vec::new, |inbox| inbox.messages.after(after).take(READ_MAX).collect())
    };
    let came = engine.messages(&seqs)?;
    // Of large messages fewer are read at a time; where none is left of them, they are all looked at.
    let through = came.last().map(|(seq, _)| *seq).or(seqs.last().copied()).unwrap_or(after);
    Ok((came, through))
}

/// Whether a message ends the wait for an answer.
fn answers(message: &Message, asked: Asked<'_>) -> bool {
    message.conversation == *asked.conversation && answered(message) == Some(asked.id)
}
