//! Reading inboxes: what waits, waking who waits for more, and leases of competing consumers.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caxton_events::conversation::{ConversationEvent, Message};
use caxton_events::{AgentId, Event, Record, Seq};
use tokio::sync::{oneshot, watch};

use super::Engine;
use super::deliveries::Deliveries;
use super::talk::{RECORDS_BYTES_MAX, TalkError};

/// Leases that one consumer of an inbox holds at the most.
pub const LEASES_MAX: usize = 1_000;

/// Who waits for messages, by receiver, and for any event at all.
#[derive(Debug)]
pub(super) struct Wakers {
    waiting: Mutex<HashMap<AgentId, Vec<oneshot::Sender<()>>>>,
    count: AtomicUsize,
    moved: watch::Sender<Seq>,
    pub(super) deliveries: Deliveries,
}

impl Wakers {
    pub(super) fn new() -> Self {
        let (waiting, count) = (Mutex::default(), AtomicUsize::new(0));
        Self { waiting, count, moved: watch::channel(Seq::ZERO).0, deliveries: Deliveries::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<AgentId, Vec<oneshot::Sender<()>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the receivers of these messages.
    pub(super) fn wake(&self, records: &[Record]) {
        self.deliveries.fold(records);
        if let Some(last) = records.last() {
            self.moved.send_replace(last.seq);
        }
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut waiting = self.waiting();
        for record in records {
            if let Event::Conversation(ConversationEvent::MessageSent(message)) = &record.event {
                for receiver in &message.receivers {
                    for waker in waiting.remove(receiver).unwrap_or_default() {
                        self.count.fetch_sub(1, Ordering::AcqRel);
                        let _ = waker.send(());
                    }
                }
            }
        }
    }

    fn register(&self, agent: &AgentId) -> oneshot::Receiver<()> {
        let (waker, woken) = oneshot::channel();
        let mut waiting = self.waiting();
        let list = waiting.entry(agent.clone()).or_default();
        // Those who gave up are dropped here, so that the list does not grow while nothing comes.
        let before = list.len();
        list.retain(|waker| !waker.is_closed());
        self.count.fetch_sub(before - list.len(), Ordering::AcqRel);
        list.push(waker);
        self.count.fetch_add(1, Ordering::AcqRel);
        woken
    }
}

/// A message that a consumer works on.
#[derive(Debug, Clone)]
struct Lease {
    consumer: String,
    until: Instant,
}

/// Leases of all inboxes. They live in memory: after a restart everything unacknowledged is offered again.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<HashMap<AgentId, BTreeMap<Seq, Lease>>>);

impl Engine {
    /// Positions behind `after` in the agent's inbox that it is not done with, at most `limit`.
    pub fn inbox(&self, agent: &AgentId, after: Seq, limit: usize) -> Vec<Seq> {
        let state = self.view().talk().read();
        let inbox = state.conversations.inbox(agent);
        inbox.map_or_else(Vec::new, |inbox| inbox.open_after(after).take(limit).collect())
    }

    /// Waits until the inbox holds something behind `after` that is not done with, or `timeout` is over; whether it
    /// does.
    pub async fn wait_inbox(&self, agent: &AgentId, after: Seq, timeout: Duration) -> bool {
        self.wait_until(agent, timeout, || !self.inbox(agent, after, 1).is_empty()).await
    }

    /// The same for a message that the agent may be done with by then.
    pub async fn wait_message(&self, agent: &AgentId, after: Seq, timeout: Duration) -> bool {
        let is_there = || {
            let state = self.view().talk().read();
            let last = state.conversations.inbox(agent).and_then(|inbox| inbox.messages.last());
            last.is_some_and(|last| last > after)
        };
        self.wait_until(agent, timeout, is_there).await
    }

    /// Looks whether it is there whenever a message to the agent comes.
    async fn wait_until(&self, agent: &AgentId, timeout: Duration, is_there: impl Fn() -> bool) -> bool {
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            let woken = self.inner.wakers.register(agent);
            if is_there() {
                return true;
            }
            if self.is_stopping() || tokio::time::timeout_at(deadline, woken).await.is_err() {
                return is_there();
            }
        }
    }

    /// The last position at which a message or an event of an agent was recorded, as it moves.
    pub fn talk_moved(&self) -> watch::Receiver<Seq> {
        self.inner.wakers.moved.subscribe()
    }

    /// Gives a consumer up to `limit` messages of the inbox that no other consumer has, each until `lease` is over or it
    /// is acknowledged. What the consumer has already is given again and kept longer.
    pub fn lease(&self, agent: &AgentId, consumer: &str, limit: usize, lease: Duration) -> Vec<Seq> {
        let now = Instant::now();
        let mut all = self.inner.leases.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.view().talk().read();
        let Some(inbox) = state.conversations.inbox(agent) else { return Vec::new() };
        let leases = all.entry(agent.clone()).or_default();
        leases.retain(|seq, lease| lease.until > now && !inbox.is_done(*seq));
        let free = inbox
            .open_after(Seq::ZERO)
            .filter(|seq| leases.get(seq).is_none_or(|held| held.consumer == consumer));
        let given: Vec<Seq> = free.take(limit.min(LEASES_MAX)).collect();
        for seq in &given {
            leases.insert(*seq, Lease { consumer: consumer.to_owned(), until: now + lease });
        }
        given
    }

    /// Gives messages back before their lease is over; answers with those that the consumer held.
    pub fn release(&self, agent: &AgentId, consumer: &str, seqs: &[Seq]) -> Vec<Seq> {
        let now = Instant::now();
        let mut all = self.inner.leases.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(leases) = all.get_mut(agent) else { return Vec::new() };
        let mut released = Vec::new();
        for seq in seqs {
            let is_held = |lease: &Lease| lease.consumer == consumer && lease.until > now;
            if leases.get(seq).is_some_and(is_held) {
                leases.remove(seq);
                released.push(*seq);
            }
        }
        released
    }

    /// The messages among these records, read as [`Engine::records`] are: no more than so many bytes of them. Blocks.
    ///
    /// # Errors
    ///
    /// [`TalkError::Read`].
    pub fn messages(&self, seqs: &[Seq]) -> Result<Vec<(Seq, Arc<Message>)>, TalkError> {
        self.some_records(seqs, RECORDS_BYTES_MAX, |record| {
            let Event::Conversation(ConversationEvent::MessageSent(message)) = record.event else {
                return None;
            };
            Some((record.seq, Arc::from(message)))
        })
    }

    /// The first messages of an inbox with their places, read as [`Engine::records`] are. Blocks.
    ///
    /// # Errors
    ///
    /// [`TalkError::Read`].
    pub fn inbox_records(&self, agent: &AgentId, after: Seq, limit: usize) -> Result<Vec<Record>, TalkError> {
        self.records(&self.inbox(agent, after, limit))
    }
}
