//! CANCEL: a request that its sender takes back is not begun, or stops before its next step, and its turn answers the CANCEL.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use caxton_events::conversation::Performative;
use caxton_events::{AgentId, MessageId, Seq};
use tokio::sync::Notify;

use super::ports::Delivery;
use super::queues::Lane;
use crate::commands::talk::protocol::may_cancel;

/// Whether a message was taken back, and by which CANCEL. All copies of a delivery know of it.
#[derive(Debug, Clone, Default)]
pub struct TakenBack(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    by: OnceLock<Taking>,
    came: Notify,
}

#[derive(Debug)]
struct Taking {
    cancel: Delivery,
    /// Everything that it takes back.
    all: Arc<[Seq]>,
}

impl TakenBack {
    /// The CANCEL, once it is there.
    pub fn by(&self) -> Option<&Delivery> {
        self.0.by.get().map(|taking| &taking.cancel)
    }

    /// What the same CANCEL takes back behind the message at `seq`.
    pub fn behind(&self, seq: Seq) -> impl Iterator<Item = Seq> {
        let all = self.0.by.get().into_iter().flat_map(|taking| taking.all.iter().copied());
        all.filter(move |other| *other > seq)
    }

    /// The message is taken back, and so are `all` with it. Of several CANCELs the first one counts.
    fn take(&self, cancel: Delivery, all: Arc<[Seq]>) {
        if self.0.by.set(Taking { cancel, all }).is_ok() {
            self.0.came.notify_one();
        }
    }

    /// Waits until the message is taken back. One waits at a time.
    pub async fn came(&self) {
        while self.by().is_none() {
            self.0.came.notified().await;
        }
    }
}

/// Whether nothing has to be thought about a message: it takes back, or was taken back.
pub fn is_quick(delivery: &Delivery) -> bool {
    delivery.message.performative == Performative::Cancel || delivery.back.by().is_some()
}

/// What can be taken back: requests that wait for their turn, or are in it.
#[derive(Debug, Default)]
pub struct Requests(HashMap<Lane, Vec<Request>>);

#[derive(Debug)]
struct Request {
    seq: Seq,
    id: MessageId,
    word: Option<String>,
    sender: AgentId,
    back: TakenBack,
}

impl Requests {
    /// Notes a message that was taken from its inbox, where its sender can take such a one back.
    pub fn note(&mut self, lane: &Lane, delivery: &Delivery) {
        let message = &delivery.message;
        if may_cancel(message.performative) {
            let request = Request {
                seq: delivery.seq,
                id: message.id,
                word: message.reply_with.clone(),
                sender: message.sender.clone(),
                back: delivery.back.clone(),
            };
            self.0.entry(lane.clone()).or_default().push(request);
        }
    }

    /// The agent is done with the message, or has given it back.
    pub fn forget(&mut self, lane: &Lane, seq: Seq) {
        if let Some(requests) = self.0.get_mut(lane) {
            requests.retain(|request| request.seq != seq);
            if requests.is_empty() {
                self.0.remove(lane);
            }
        }
    }

    /// Takes back what `cancel` names, or, where it names nothing, whatever its sender has asked before in this conversation.
    pub fn take_back(&self, lane: &Lane, cancel: &Delivery) {
        let message = &cancel.message;
        let id = message.in_reply_to.as_ref().and_then(|word| word.parse::<MessageId>().ok());
        let is_named = |request: &Request| {
            let is_it = |word: &String| request.word.as_ref() == Some(word) || id == Some(request.id);
            message.in_reply_to.as_ref().is_none_or(is_it)
        };
        let is_meant = |request: &&Request| {
            request.seq < cancel.seq
                && request.sender == message.sender
                && is_named(request)
                && request.back.by().is_none()
        };
        let meant: Vec<&Request> = self.0.get(lane).into_iter().flatten().filter(is_meant).collect();
        let all: Arc<[Seq]> = meant.iter().map(|request| request.seq).collect();
        for request in meant {
            request.back.take(cancel.clone(), Arc::clone(&all));
        }
    }
}
