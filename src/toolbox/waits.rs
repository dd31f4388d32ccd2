//! Turns that wait for another agent's answer: others have their place meanwhile, and the answer is theirs alone.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caxton_events::conversation::{Message, Performative};
use caxton_events::{AgentId, ConversationId, MessageId, TurnId};
use tokio::sync::Notify;

/// A message whose sender waits for the answer in the middle of a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Who sent it.
    pub agent: AgentId,
    /// The turn that waits.
    pub turn: TurnId,
    /// The number of the message.
    pub message: MessageId,
    /// Its conversation, where that is not the turn's: what comes in the turn's own is not taken up before the turn ends.
    pub elsewhere: Option<ConversationId>,
}

/// What is waited for now.
#[derive(Debug, Default)]
pub struct Waits {
    open: Mutex<HashMap<MessageId, Wait>>,
    begun: Notify,
    ended: Notify,
}

/// A wait, for as long as this lives.
#[derive(Debug)]
#[must_use = "the wait ends when this is dropped"]
pub struct Waiting {
    waits: Arc<Waits>,
    message: MessageId,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waits.open().remove(&self.message);
        self.waits.ended.notify_one();
    }
}

impl Waits {
    /// Begins a wait. It begins before its message is sent: the answer may be there as soon as that is.
    pub fn begin(self: &Arc<Self>, wait: Wait) -> Waiting {
        let message = wait.message;
        self.open().insert(message, wait);
        self.begun.notify_one();
        Waiting { waits: Arc::clone(self), message }
    }

    /// Turns that wait.
    pub fn turns(&self) -> usize {
        // One turn may wait for several answers.
        self.open().values().map(|wait| wait.turn).collect::<HashSet<_>>().len()
    }

    /// Whether `message`, which is in the inbox of `agent`, is what a turn of that agent in another conversation waits for.
    pub fn holds(&self, agent: &AgentId, message: &Message) -> bool {
        let open = self.open();
        let wait = answered(message).and_then(|question| open.get(&question));
        wait.is_some_and(|wait| {
            wait.agent == *agent && wait.elsewhere.as_ref() == Some(&message.conversation)
        })
    }

    /// Waits until another wait begins. One waits at a time.
    pub async fn begun(&self) {
        self.begun.notified().await;
    }

    /// Waits until a wait ends. One waits at a time.
    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    fn open(&self) -> MutexGuard<'_, HashMap<MessageId, Wait>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The message that `message` answers: one that only says that there will be an answer is none.
pub(crate) fn answered(message: &Message) -> Option<MessageId> {
    if message.performative == Performative::Agree {
        return None;
    }
    message.in_reply_to.as_ref()?.parse().ok()
}
