//! Messages to agents that run in this process: handed over as they are folded, so that nobody has to read them again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use caxton_events::conversation::{ConversationEvent, Message};
use caxton_events::{AgentId, Event, Record, Seq};
use tokio::sync::Notify;

use super::Engine;

/// Contents of messages that wait to be taken, in bytes; of those beyond it only the places are kept.
const BYTES_MAX: usize = 32 << 20;

/// A message to an agent that runs here.
#[derive(Debug, Clone)]
pub struct Delivered {
    /// Whose inbox it is in.
    pub agent: AgentId,
    /// Where it stands.
    pub seq: Seq,
    /// The message; `None` when so many wait that it has to be read from the log.
    pub message: Option<Arc<Message>>,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: Vec<Delivered>,
    bytes: usize,
}

/// What was folded for the agents that run here and not taken yet.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    any: AtomicBool,
    agents: RwLock<HashSet<AgentId>>,
    waiting: Mutex<Waiting>,
    more: Notify,
}

impl Deliveries {
    /// Keeps the messages to agents that run here.
    pub(super) fn fold(&self, records: &[Record]) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
        let mut waiting = None;
        for record in records {
            let Event::Conversation(ConversationEvent::MessageSent(message)) = &record.event else {
                continue;
            };
            let mut shared = None;
            for agent in message.receivers.iter().filter(|agent| agents.contains(*agent)) {
                let waiting = waiting.get_or_insert_with(|| self.waiting());
                let keeps = waiting.bytes < BYTES_MAX;
                if keeps {
                    waiting.bytes += message.content.as_str().len();
                }
                let message = keeps
                    .then(|| Arc::clone(shared.get_or_insert_with(|| Arc::new(message.as_ref().clone()))));
                waiting.messages.push(Delivered { agent: agent.clone(), seq: record.seq, message });
            }
        }
        if waiting.is_some() {
            drop(waiting);
            self.more.notify_one();
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// From now on messages to `agent` are handed over as they are recorded. Those that were recorded before are in its
    /// inbox; a message may be in both.
    pub fn hand_over(&self, agent: &AgentId) {
        let deliveries = &self.inner.wakers.deliveries;
        deliveries.agents.write().unwrap_or_else(PoisonError::into_inner).insert(agent.clone());
        deliveries.any.store(true, Ordering::Release);
    }

    /// From now on they stay in the inbox.
    pub fn hand_over_no_more(&self, agent: &AgentId) {
        let deliveries = &self.inner.wakers.deliveries;
        let mut agents = deliveries.agents.write().unwrap_or_else(PoisonError::into_inner);
        agents.remove(agent);
        deliveries.any.store(!agents.is_empty(), Ordering::Release);
    }

    /// Takes what was handed over, in the order of the log.
    pub fn handed_over(&self) -> Vec<Delivered> {
        std::mem::take(&mut *self.inner.wakers.deliveries.waiting()).messages
    }

    /// Waits until there is something to take.
    pub async fn more_handed_over(&self) {
        self.inner.wakers.deliveries.more.notified().await;
    }
}
