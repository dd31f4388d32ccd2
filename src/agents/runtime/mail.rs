//! The inboxes of the agents that run, out of the engine: what is new is handed over as it is folded, what is old is read.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caxton_events::conversation::Message;
use caxton_events::{AgentId, Seq};
use caxton_projections::talk::TalkState;
use futures::future::BoxFuture;
use tokio::sync::Notify;

use super::backlog::{Backlog, Key};
use super::journal::Journal;
use super::past::Past;
use super::replies::Read;
use crate::agents::ports::{Delivery, Inbox, PortError, Room};
use crate::agents::queues::Classifier;
use crate::commands::talk::Upkeep;
use crate::engine::{Engine, TalkError};
use crate::failure;
use crate::toolbox::Waits;

/// Messages that are read at a time.
const READ_MAX: usize = 512;
/// Wait before a log that could not be read is tried again.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// The inboxes of all agents that run here.
pub(super) struct Mail {
    engine: Engine,
    classifier: Classifier,
    journal: Arc<Journal>,
    past: Arc<Past>,
    waits: Arc<Waits>,
    state: Mutex<State>,
    /// Something was read.
    ready: Notify,
    /// Something is to be read.
    to_read: Notify,
}

struct State {
    backlog: Backlog,
    served: HashSet<AgentId>,
    /// Taken, and not given out: answers that turns wait for, and what came behind them in their conversations.
    held: Vec<Delivery>,
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mail").field("served", &self.state().served.len()).finish_non_exhaustive()
    }
}

impl Mail {
    /// Nobody is served yet.
    pub(super) fn new(
        engine: Engine,
        classifier: Classifier,
        queues: usize,
        journal: Arc<Journal>,
        past: Arc<Past>,
        waits: Arc<Waits>,
    ) -> Self {
        let (backlog, served, held) = (Backlog::new(queues), HashSet::new(), Vec::new());
        let state = Mutex::new(State { backlog, served, held });
        let (ready, to_read) = (Notify::new(), Notify::new());
        Self { engine, classifier, journal, past, waits, state, ready, to_read }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the agent's messages are given out, those that wait already included.
    pub(super) fn serve(&self, agent: &AgentId) {
        if !self.state().served.insert(agent.clone()) {
            return;
        }
        // Handed over before its inbox is looked at, so that nothing falls between the two.
        self.engine.hand_over(agent);
        let waiting = self.engine.inbox(agent, Seq::ZERO, usize::MAX);
        if waiting.is_empty() {
            return;
        }
        let mut state = self.state();
        for seq in waiting {
            state.backlog.note(agent, seq);
        }
        drop(state);
        self.to_read.notify_one();
    }

    /// From now on they stay where they are.
    pub(super) fn serve_no_more(&self, agent: &AgentId) {
        self.engine.hand_over_no_more(agent);
        let mut state = self.state();
        state.served.remove(agent);
        state.backlog.forget(agent);
    }

    /// Reads what has to be read, for as long as the server runs.
    pub(super) async fn read(&self) {
        self.read_by(Engine::messages).await;
    }

    /// The same by `look`, which a test lets fail.
    pub(super) async fn read_by(&self, look: fn(&Engine, &[Seq]) -> Result<Vec<Read>, TalkError>) {
        loop {
            let keys = self.state().backlog.to_read(READ_MAX);
            if keys.is_empty() {
                self.to_read.notified().await;
                continue;
            }
            let (mut seqs, engine): (Vec<Seq>, _) =
                (keys.iter().map(|(seq, _)| *seq).collect(), self.engine.clone());
            seqs.sort_unstable();
            seqs.dedup();
            match tokio::task::spawn_blocking(move || look(&engine, &seqs)).await {
                Ok(Ok(messages)) => {
                    self.were_read(&keys, &messages);
                    self.ready.notify_one();
                }
                Ok(Err(error)) => {
                    let error = failure::chain(&error);
                    tracing::error!(error, "messages could not be read; they are tried again");
                    tokio::time::sleep(READ_AGAIN).await;
                }
                Err(error) => {
                    tracing::error!(%error, "reading messages broke; it is tried again");
                    tokio::time::sleep(READ_AGAIN).await;
                }
            }
        }
    }

    fn were_read(&self, keys: &[Key], messages: &[(Seq, Arc<Message>)]) {
        let talk = self.engine.view().talk().read();
        let mut state = self.state();
        // Of large messages fewer are read at a time: those behind them are read next.
        let through = messages.last().map_or(Seq(u64::MAX), |(seq, _)| *seq);
        for key in keys.iter().filter(|(seq, _)| *seq <= through) {
            let (seq, agent) = key;
            if !is_open(&talk, agent, *seq) {
                // It was erased, or is done with, since it was noted.
                state.backlog.lost(key);
                continue;
            }
            let Ok(at) = messages.binary_search_by_key(seq, |(seq, _)| *seq) else {
                tracing::error!(%agent, %seq, "an inbox names a message that is not in the log");
                state.backlog.lost(key);
                continue;
            };
            let message = &messages[at].1;
            let not_before = talk.conversations.retry(*seq, agent).map(|retry| retry.not_before);
            let queue = self.queue(message);
            state.backlog.read(agent, *seq, message, queue, not_before);
        }
    }

    fn queue(&self, message: &Message) -> usize {
        let capability = message.routing.as_ref().map(|routing| &routing.capability);
        self.classifier.queue(capability, message.priority)
    }

    /// Takes over what the engine handed over, and then what there is room for.
    fn take(&self, room: &Room<'_>) -> Vec<Delivery> {
        let new = self.engine.handed_over();
        let talk = self.engine.view().talk().read();
        let mut state = self.state();
        for delivered in new {
            let (agent, seq) = (delivered.agent, delivered.seq);
            match delivered.message {
                _ if !state.served.contains(&agent) || !is_open(&talk, &agent, seq) => (),
                // Behind those that are read first, or the order of a conversation would be lost.
                Some(message) if !state.backlog.has_unread(&agent) => {
                    let queue = self.queue(&message);
                    state.backlog.add(&agent, seq, message, queue);
                }
                Some(_) | None => state.backlog.note(&agent, seq),
            }
        }
        self.release(&talk, &mut state);
        let mut taken = state.backlog.take(room, |agent, seq| is_open(&talk, agent, seq));
        self.hold_back(&mut state, &mut taken);
        if !state.backlog.to_read(1).is_empty() {
            self.to_read.notify_one();
        }
        drop(state);
        // While the state is held, from which an erasure takes messages before anything is forgotten.
        for delivery in &taken {
            self.past.remember(delivery.seq, &delivery.message);
        }
        drop(talk);
        taken
    }

    /// Whether a turn waits for a message, or for one before it in the same conversation.
    fn is_held(&self, held: &[Delivery], delivery: &Delivery) -> bool {
        let Delivery { agent, message, .. } = delivery;
        self.waits.holds(agent, message)
            || held.iter().any(|one| one.agent == *agent && one.message.conversation == message.conversation)
    }

    /// Takes out of `taken` what turns wait for: given out, it would be handled twice.
    fn hold_back(&self, state: &mut State, taken: &mut Vec<Delivery>) {
        let before = state.held.len();
        for delivery in std::mem::take(taken) {
            let to = if self.is_held(&state.held, &delivery) { &mut state.held } else { &mut *taken };
            to.push(delivery);
        }
        if state.held.len() > before {
            // It took the room of others, for which is looked again.
            self.ready.notify_one();
        }
    }

    /// Takes out of what is held what nobody waits for any more: the turn is done with it, or it goes the way of every message.
    fn release(&self, talk: &TalkState, state: &mut State) {
        let mut held = Vec::new();
        for delivery in std::mem::take(&mut state.held) {
            if !is_open(talk, &delivery.agent, delivery.seq) || !state.served.contains(&delivery.agent) {
                state.backlog.done(&delivery.agent, delivery.seq);
            } else if self.is_held(&held, &delivery) {
                held.push(delivery);
            } else {
                let queue = self.queue(&delivery.message);
                state.backlog.put_back(delivery, queue);
            }
        }
        state.held = held;
    }

    /// Forgets what is kept of messages that were erased, wherever they wait.
    pub(super) fn forget_erased(&self) {
        let talk = self.engine.view().talk().read();
        let mut state = self.state();
        state.backlog.forget_closed(|agent, seq| is_open(&talk, agent, seq));
        self.release(&talk, &mut state);
        drop(state);
        drop(talk);
        self.journal.forget_closed();
        self.past.forget();
        self.ready.notify_one();
    }
}

/// Whether a message is still to be handled: it is in the inbox, out of which an erasure takes it, and its agent is not done
/// with it. Of what the state has not come to, nothing else is known.
pub(super) fn is_open(talk: &TalkState, agent: &AgentId, seq: Seq) -> bool {
    seq > talk.checkpoint || talk.conversations.inbox(agent).is_some_and(|inbox| inbox.is_open(seq))
}

impl Inbox for Mail {
    fn next<'a>(&'a self, room: &'a Room<'a>) -> BoxFuture<'a, Vec<Delivery>> {
        Box::pin(async move {
            loop {
                let taken = self.take(room);
                if !taken.is_empty() {
                    return taken;
                }
                tokio::select! {
                    () = self.ready.notified() => (),
                    () = self.engine.more_handed_over() => (),
                    () = self.waits.ended() => (),
                }
            }
        })
    }

    fn done<'a>(&'a self, agent: &'a AgentId, seq: Seq) -> BoxFuture<'a, Result<(), PortError>> {
        Box::pin(async move {
            let wish = Upkeep::Acknowledge { agent: agent.clone(), through: Seq::ZERO, also: vec![seq] };
            self.engine.upkeep(agent, wish).await.map_err(|error| PortError {
                tried: "could not acknowledge a message",
                source: Box::new(error),
            })?;
            self.state().backlog.done(agent, seq);
            self.journal.forget(agent, seq);
            Ok(())
        })
    }

    fn is_done(&self, agent: &AgentId, seq: Seq) -> bool {
        !is_open(&self.engine.view().talk().read(), agent, seq)
    }

    fn put_back(&self, delivery: Delivery) {
        let queue = self.queue(&delivery.message);
        let mut state = self.state();
        if state.served.contains(&delivery.agent) {
            state.backlog.put_back(delivery, queue);
            drop(state);
            self.ready.notify_one();
        } else {
            // It is found in the inbox again when its agent runs again.
            state.backlog.done(&delivery.agent, delivery.seq);
        }
    }
}
