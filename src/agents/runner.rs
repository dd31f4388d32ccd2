//! One turn with the world attached: does what [`turn`](super::turn) says is next, and records it before it is used.

mod give_up;
mod keep;
mod prepare;
mod take_back;
#[cfg(test)]
mod tests;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use caxton_events::turn::{ToolCall, Usage};
use caxton_events::{AgentId, Clock, ConversationId, Draft, Event, Seq, Timestamp, TurnEvent, TurnId};
use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use prepare::Known;
pub use prepare::{memory_ask, memory_ask_of};
pub use take_back::answer_cancel;

use super::circuit::later;
use super::context::tokens;
use super::ports::{
    Delivery, Found, Models, OutgoingReply, PortError, Replies, ReplyError, Sources, Tools, TurnLog,
};
use super::reply::{Reply, failure as failure_reply, reply_id};
use super::spec::Agent;
use super::turn::{Action, Ended, INTERRUPTED, Rules, TurnState};
use crate::failure;
use crate::llm::{Answer, Ask, ModelErrorKind};
use crate::toolbox::{Caller, ToolError};

/// Tools whose calls are recognised by turn and call, or only read: repeated, they have the effect of one.
const REPEATABLE: &[&str] = &["memory", "message"];

/// How much earlier than its turn a request to a model ends, at most: whoever makes it knows whether anybody was asked.
const REQUEST_ENDS_BEFORE: Duration = Duration::from_millis(100);

/// Hears the text of an answer while it is being made.
pub type Heard = Arc<dyn Fn(&AgentId, &ConversationId, &str) + Send + Sync>;

/// How often a message is taken up again after a failure, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryRules {
    /// Attempts in all. Default: 4.
    pub attempts_max: u32,
    /// Wait after the first failure; it doubles with each one. Default: 100 ms.
    pub first_wait: Duration,
    /// Longest wait. Default: 10 s.
    pub wait_max: Duration,
}

impl Default for RetryRules {
    fn default() -> Self {
        Self { attempts_max: 4, first_wait: Duration::from_millis(100), wait_max: Duration::from_secs(10) }
    }
}

impl RetryRules {
    /// The wait after so many failed attempts.
    pub fn wait(&self, failed: u32) -> Duration {
        let doublings = failed.saturating_sub(1).min(30);
        self.first_wait.saturating_mul(1 << doublings).min(self.wait_max)
    }
}

/// What turns work with.
#[derive(Clone)]
pub struct World {
    /// Where turns are recorded.
    pub log: Arc<dyn TurnLog>,
    /// Where answers go.
    pub replies: Arc<dyn Replies>,
    /// What turns are told.
    pub sources: Arc<dyn Sources>,
    /// What turns may call.
    pub tools: Arc<dyn Tools>,
    /// What turns think with.
    pub models: Models,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// When failed messages are taken up again.
    pub retry: RetryRules,
    /// Who listens to answers as they are made.
    pub heard: Option<Heard>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("models", &self.models)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// What became of a message.
#[derive(Debug)]
pub enum Outcome {
    /// It was handled.
    Finished,
    /// It is given up; it is a dead letter.
    Failed {
        /// Why.
        reason: String,
        /// Whether that says something about the agent, and not about what was asked of it or where.
        blame: bool,
    },
    /// There was nothing to do about it any more: it expired, was erased, or somebody else has seen to it.
    Gone,
    /// Its sender took it back, and was told so.
    TakenBack,
    /// It is taken up again.
    Retry {
        /// Not before this moment.
        not_before: Timestamp,
        /// Why.
        reason: String,
    },
    /// Its model is not asked for now, and nobody is to blame: the same attempt goes on later.
    Waits {
        /// Not before this moment.
        not_before: Timestamp,
        /// Why.
        reason: String,
    },
    /// Nothing more could be recorded or sent. What is recorded holds; the turn goes on from there another time.
    Stuck(PortError),
}

/// What was prepared for several turns together.
#[derive(Debug, Default)]
pub struct Prepared {
    /// What memory answered to [`memory_ask`].
    pub found: Option<Found>,
    /// Bounds the contexts of a batch that are made at once.
    pub gate: Option<Arc<Semaphore>>,
}

/// Handles a message, or goes on with what is recorded of it. A panic is a failed attempt.
pub async fn run_turn(world: &World, agent: &Agent, delivery: &Delivery, prepared: Prepared) -> Outcome {
    let attempt = async {
        let mut turn = Turn::resume(world, agent, delivery, prepared).await?;
        match turn.drive().await {
            // Tried again it would be asked, called and prepared again, and there would be no room for it again.
            Err(error) if error.is_for_good() => {
                let reason = failure::chain(&error);
                let reply = failure_reply(delivery.message.performative, &reason);
                turn.fail(reason, reply, true).await
            }
            ended => ended,
        }
    };
    let ended = match AssertUnwindSafe(attempt).catch_unwind().await {
        Ok(ended) => ended,
        Err(_) => after_panic(world, agent, delivery).await,
    };
    ended.unwrap_or_else(Outcome::Stuck)
}

async fn after_panic(world: &World, agent: &Agent, delivery: &Delivery) -> Result<Outcome, PortError> {
    tracing::error!(agent = %delivery.agent, message = %delivery.seq, "a turn panicked; no other is touched");
    let mut turn = Turn::resume(world, agent, delivery, Prepared::default()).await?;
    let reason = "the turn broke in the middle; the server's log has the place".to_owned();
    if turn.state.begun().is_none() {
        turn.begin(1).await?;
    }
    if turn.state.attempts() < world.retry.attempts_max {
        return turn.retry(reason).await;
    }
    let reply = failure_reply(delivery.message.performative, &reason);
    turn.fail(reason, reply, true).await
}

struct Turn<'a> {
    world: &'a World,
    agent: &'a Agent,
    delivery: &'a Delivery,
    rules: Rules,
    state: TurnState,
    /// The number of the turn; of the next one, before it has begun.
    id: TurnId,
    /// The newest record of the turn, or else the message.
    cause: Seq,
    deadline: Instant,
    /// When the provider said it may be asked again.
    provider_wait: Option<Duration>,
    /// Why the provider was not asked, when it was not.
    turned_away: Option<String>,
    prepared: Prepared,
    known: Option<Known>,
}

impl<'a> Turn<'a> {
    async fn resume(
        world: &'a World,
        agent: &'a Agent,
        delivery: &'a Delivery,
        prepared: Prepared,
    ) -> Result<Self, PortError> {
        let recorded = world.log.recorded(&delivery.agent, delivery.seq).await?;
        let state = TurnState::of(&recorded);
        let spec = &agent.spec;
        let rules = Rules {
            performative: delivery.message.performative,
            auto_respond: spec.auto_respond,
            steps_max: spec.limits.steps_max,
            calls_max: spec.permissions.calls_max,
            concurrent_calls: spec.performance.concurrent_tools,
            repeatable: REPEATABLE,
        };
        // An agent that was changed since begins anew, unless it would do again what cannot be undone.
        let same = state.begun().filter(|begun| begun.config == spec.config || state.has_acted());
        let next = || turn_id(world.clock.now(), delivery, state.attempts() + 1);
        let begins = matches!(state.next(&rules), Action::Begin { .. });
        let id = if begins { same } else { state.begun() }.map_or_else(next, |begun| begun.turn);
        Ok(Self {
            world,
            agent,
            delivery,
            rules,
            state,
            id,
            cause: delivery.seq,
            deadline: Instant::now() + spec.limits.response_timeout,
            provider_wait: None,
            turned_away: None,
            prepared,
            known: None,
        })
    }

    async fn drive(&mut self) -> Result<Outcome, PortError> {
        let delivery = self.delivery;
        // What waited to be sent when the turn was cut off may have been sent: it is too late to stop.
        let may_stop = !matches!(self.state.next(&self.rules), Action::Reply(_));
        loop {
            let action = self.state.next(&self.rules);
            let stops = may_stop && !matches!(action, Action::Done(_));
            if let Some(cancel) = delivery.back.by().filter(|_| stops) {
                return self.take_back(cancel, !matches!(action, Action::Begin { .. })).await;
            }
            match action {
                Action::Begin { attempt } => {
                    self.begin(attempt).await?;
                    if let Some(reason) = self.one_too_many().await? {
                        let reply = failure_reply(self.delivery.message.performative, &reason);
                        return self.fail(reason, reply, false).await;
                    }
                }
                Action::PrepareContext => self.prepare_context().await?,
                Action::AskModel { step, with_tools } => {
                    self.ask(step, with_tools).await?;
                    if let Some(reason) = self.turned_away.take() {
                        return Ok(self.waits(reason));
                    }
                }
                Action::CallTools(calls) => self.call(calls).await?,
                Action::GiveUpCall(call) => {
                    let answered = self.answered(call, INTERRUPTED.to_owned(), true, Duration::ZERO);
                    self.note(answered).await?;
                }
                Action::RefuseTool { call, reason } => {
                    let refused =
                        TurnEvent::ToolRefused { turn: self.id, call: call.id, tool: call.tool, reason };
                    self.note(refused).await?;
                }
                Action::Reply(reply) => match self.send(reply.clone()).await {
                    Ok(()) => {
                        self.keep_what_was_said(Some(&reply)).await?;
                        let reply = Some(reply_id(self.id));
                        self.note(TurnEvent::Finished { turn: self.id, reply }).await?;
                    }
                    Err(ReplyError::Refused(reason)) => {
                        let reason = format!("the answer was refused: {reason}");
                        let reply = failure_reply(self.rules.performative, &reason);
                        return self.fail(reason, reply, false).await;
                    }
                    Err(ReplyError::Unavailable(error)) => return Err(error),
                },
                Action::Finish => {
                    self.keep_what_was_said(None).await?;
                    self.note(TurnEvent::Finished { turn: self.id, reply: None }).await?;
                }
                Action::Retry { reason } => return self.retry(reason).await,
                Action::Fail { reason, reply } => return self.fail(reason, reply, true).await,
                Action::Done(Ended::Finished(_)) => return Ok(Outcome::Finished),
                Action::Done(Ended::Failed) => {
                    let reason = "an earlier attempt was the last".to_owned();
                    return Ok(Outcome::Failed { reason, blame: true });
                }
            }
        }
    }

    async fn begin(&mut self, attempt: u32) -> Result<(), PortError> {
        let delivery = self.delivery;
        self.note(TurnEvent::Started {
            turn: self.id,
            agent: delivery.agent.clone(),
            config: self.agent.spec.config,
            message: delivery.seq,
            conversation: delivery.message.conversation.clone(),
            attempt,
        })
        .await
    }

    async fn ask(&mut self, step: u32, with_tools: bool) -> Result<(), PortError> {
        let spec = &self.agent.spec;
        let model = &spec.model;
        let name = model.provider.as_deref();
        let Some(provider) = self.world.models.named(name) else {
            let error = format!("there is no provider {:?} in the configuration", name.unwrap_or_default());
            return self.model_failed(step, name.unwrap_or_default().to_owned(), error, false).await;
        };
        let provider = Arc::clone(provider);
        let known = self.known().await;
        let started = Instant::now();
        let left = self.deadline.saturating_duration_since(started);
        let until = started + left.saturating_sub(REQUEST_ENDS_BEFORE.min(left / 10));
        let ask = Ask {
            model: model.model.clone(),
            system: self.state.prompts().map(|prompts| prompts.system.clone()).unwrap_or_default(),
            messages: self.state.messages(),
            tools: if with_tools { known.tools } else { Vec::new() },
            facts: known.facts,
            question: self.delivery.message.content.as_str().to_owned(),
            performative: self.delivery.message.performative.as_str().to_owned(),
            temperature: model.temperature,
            top_p: model.top_p,
            max_tokens: model.max_tokens,
            frequency_penalty: model.frequency_penalty,
            presence_penalty: model.presence_penalty,
            reuse: spec.performance.cache_responses,
            until: Some(until),
            first_word_by: None,
        };
        let heard = |piece: &str| {
            if let Some(heard) = &self.world.heard {
                heard(&self.delivery.agent, &self.delivery.message.conversation, piece);
            }
        };
        let asked = tokio::select! {
            biased;
            // The request ends with its future.
            () = self.delivery.back.came() => return Ok(()),
            asked = timeout_at(self.deadline, provider.ask(&ask, &heard)) => asked,
        };
        let name = provider.provider().to_owned();
        match asked {
            Ok(Ok(answer)) => self.model_answered(step, name, &ask, answer, started.elapsed()).await,
            Ok(Err(error)) if !error.asked || Instant::now() < until => {
                if let ModelErrorKind::RateLimited { retry_after } = error.kind {
                    self.provider_wait = retry_after;
                }
                // Nothing is recorded: the attempt has not failed. It begins with all of its time again, and one that has used
                // up much of it by itself must not have that without end.
                if !error.asked && left >= spec.limits.response_timeout / 2 {
                    self.turned_away = Some(error.to_string());
                    return Ok(());
                }
                let again =
                    error.kind.is_transient() && self.state.attempts() < self.world.retry.attempts_max;
                self.model_failed(step, name, error.to_string(), again).await
            }
            // Time that is used up does not come back with another attempt.
            Ok(Err(_)) | Err(_) => {
                let limit = self.agent.spec.limits.response_timeout;
                self.model_failed(step, name, format!("no answer within {limit:?}"), false).await
            }
        }
    }

    async fn model_answered(
        &mut self,
        step: u32,
        provider: String,
        ask: &Ask,
        answer: Answer,
        took: Duration,
    ) -> Result<(), PortError> {
        let usage = if answer.usage == Usage::default() { estimated(ask, &answer) } else { answer.usage };
        // A chain of stand-ins says who answered; a provider by itself need not.
        let provider = if answer.provider.is_empty() { provider } else { answer.provider };
        self.note(TurnEvent::ModelAnswered {
            turn: self.id,
            step,
            provider,
            model: answer.model,
            text: answer.text,
            tool_calls: self.state.numbered(answer.tool_calls),
            usage,
            cached: answer.cached,
            took_micros: micros(took),
        })
        .await
    }

    async fn model_failed(
        &mut self,
        step: u32,
        provider: String,
        error: String,
        will_retry: bool,
    ) -> Result<(), PortError> {
        let model = self.agent.spec.model.model.clone();
        self.note(TurnEvent::ModelFailed { turn: self.id, step, provider, model, error, will_retry }).await
    }

    /// Calls tools at the same time. Each result is recorded when it is there, so that a slow call does not lose it.
    async fn call(&mut self, calls: Vec<ToolCall>) -> Result<(), PortError> {
        let started = calls.iter().filter(|call| !self.state.has_started(&call.id)).map(|call| {
            TurnEvent::ToolStarted { turn: self.id, call: call.id.clone(), tool: call.tool.clone() }
        });
        self.note_all(started.collect()).await?;
        let world = self.world;
        let caller = self.caller();
        let limit = caller.timeout;
        let mut running: FuturesUnordered<_> = calls
            .into_iter()
            .map(|call| {
                let caller = Caller { call: call.id.clone(), ..caller.clone() };
                async move {
                    let started = Instant::now();
                    let called = timeout(limit, world.tools.call(&caller, &call.tool, &call.arguments)).await;
                    let result = called.unwrap_or(Err(ToolError::Timeout(limit)));
                    (call, result, started.elapsed())
                }
            })
            .collect();
        while let Some((call, result, took)) = running.next().await {
            let event = match result {
                Ok(result) => self.answered(call, result, false, took),
                Err(ToolError::Refused(reason)) => {
                    TurnEvent::ToolRefused { turn: self.id, call: call.id, tool: call.tool, reason }
                }
                Err(error) => self.answered(call, failure::chain(&error), true, took),
            };
            self.note(event).await?;
        }
        Ok(())
    }

    /// Who calls, without the number of the call.
    fn caller(&self) -> Caller {
        let (delivery, spec) = (self.delivery, &self.agent.spec);
        Caller {
            agent: delivery.agent.clone(),
            workspace: spec.workspace.clone(),
            turn: self.id,
            conversation: delivery.message.conversation.clone(),
            cause: self.cause,
            call: String::new(),
            permissions: spec.permissions.clone(),
            timeout: spec
                .limits
                .tool_call_timeout
                .min(self.deadline.saturating_duration_since(Instant::now())),
        }
    }

    fn answered(&self, call: ToolCall, result: String, failed: bool, took: Duration) -> TurnEvent {
        TurnEvent::ToolAnswered {
            turn: self.id,
            call: call.id,
            tool: call.tool,
            result,
            failed,
            took_micros: micros(took),
        }
    }

    async fn send(&self, reply: Reply) -> Result<(), ReplyError> {
        let outgoing = OutgoingReply {
            id: reply_id(self.id),
            agent: self.delivery.agent.clone(),
            workspace: self.agent.spec.workspace.clone(),
            answers: Arc::clone(&self.delivery.message),
            answers_seq: self.delivery.seq,
            turn: self.id,
            reply,
        };
        self.world.replies.send(outgoing).await
    }

    /// The turn stands still where it is.
    fn waits(&self, reason: String) -> Outcome {
        let wait = self.provider_wait.unwrap_or_default().max(self.world.retry.first_wait);
        Outcome::Waits { not_before: later(self.world.clock.now(), wait), reason }
    }

    async fn note(&mut self, event: TurnEvent) -> Result<(), PortError> {
        self.note_all(vec![event]).await
    }

    async fn note_all(&mut self, events: Vec<TurnEvent>) -> Result<(), PortError> {
        if events.is_empty() {
            return Ok(());
        }
        let drafts = events.iter().map(|event| self.draft(Event::Turn(event.clone()))).collect();
        let seqs = self.world.log.record(drafts).await?;
        self.cause = seqs.last().copied().unwrap_or(self.cause);
        for event in &events {
            self.state.apply(event);
        }
        Ok(())
    }

    fn draft(&self, event: Event) -> Draft {
        let conversation = &self.delivery.message.conversation;
        // By its stream an event is found when the conversation is erased.
        let stream = match &event {
            Event::Conversation(_) => conversation.to_string(),
            Event::Memory(_) | Event::Agent(_) | Event::Turn(_) | Event::System(_) => {
                format!("conversation:{conversation}")
            }
        };
        Draft {
            stream,
            actor: self.delivery.agent.to_string(),
            correlation: Some(conversation.to_string()),
            causation: Some(self.cause),
            event,
        }
    }
}

/// A number that the same attempt at the same message gets in the same millisecond, whoever draws it.
fn turn_id(now: Timestamp, delivery: &Delivery, attempt: u32) -> TurnId {
    let mut hash = blake3::Hasher::new_derive_key("caxton: number of a turn");
    hash.update(delivery.agent.as_str().as_bytes());
    hash.update(&delivery.seq.0.to_le_bytes());
    hash.update(&attempt.to_le_bytes());
    let mut random = [0; 10];
    hash.finalize_xof().fill(&mut random);
    TurnId::new(now, random)
}

fn estimated(ask: &Ask, answer: &Answer) -> Usage {
    let messages = ask.messages.iter().map(|message| tokens(&message.content)).sum::<u32>();
    let wishes = answer.tool_calls.iter().map(|call| tokens(&call.arguments)).sum::<u32>();
    Usage {
        input_tokens: tokens(&ask.system) + messages,
        output_tokens: tokens(&answer.text) + wishes,
        estimated: true,
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}
