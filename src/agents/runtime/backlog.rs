//! Messages that wait in inboxes for room in a queue: by conversation in the order of the log, and by queue.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use caxton_events::conversation::Message;
use caxton_events::{AgentId, ConversationId, Seq, Timestamp};

use crate::agents::ports::Delivery;

/// Contents of waiting messages that are kept, in bytes; those beyond it are read again when their turn comes.
const BYTES_MAX: usize = 64 << 20;

/// A message in an inbox.
pub(super) type Key = (Seq, AgentId);

type Lane = (AgentId, ConversationId);

/// A message whose queue is known.
#[derive(Debug)]
struct Waiting {
    seq: Seq,
    queue: usize,
    message: Option<Arc<Message>>,
    not_before: Option<Timestamp>,
}

/// What waits, and what was taken.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Of each queue, the messages that are the first of their conversation.
    heads: Vec<BTreeMap<Key, ConversationId>>,
    lanes: HashMap<Lane, VecDeque<Waiting>>,
    /// Everything that waits, is to be read, or was taken.
    known: HashSet<Key>,
    /// Messages whose queue is not known yet.
    unread: BTreeSet<Key>,
    unread_of: HashMap<AgentId, usize>,
    /// Messages at their turn that were not kept.
    wanted: BTreeSet<Key>,
    bytes: usize,
}

impl Backlog {
    /// Nothing waits for so many queues.
    pub(super) fn new(queues: usize) -> Self {
        Self {
            heads: vec![BTreeMap::new(); queues.max(1)],
            lanes: HashMap::new(),
            known: HashSet::new(),
            unread: BTreeSet::new(),
            unread_of: HashMap::new(),
            wanted: BTreeSet::new(),
            bytes: 0,
        }
    }

    /// Notes a message that has to be read first.
    pub(super) fn note(&mut self, agent: &AgentId, seq: Seq) {
        let key = (seq, agent.clone());
        if self.known.insert(key.clone()) {
            self.unread.insert(key);
            *self.unread_of.entry(agent.clone()).or_default() += 1;
        }
    }

    /// Takes a message off the list of those to be read; whether it was on it.
    fn is_read(&mut self, key: &Key) -> bool {
        let was_unread = self.unread.remove(key);
        if was_unread && let Some(count) = self.unread_of.get_mut(&key.1) {
            *count -= 1;
            if *count == 0 {
                self.unread_of.remove(&key.1);
            }
        }
        was_unread
    }

    /// Whether messages of this agent have to be read before newer ones may be added.
    pub(super) fn has_unread(&self, agent: &AgentId) -> bool {
        self.unread_of.contains_key(agent)
    }

    /// Adds a message, unless it is known.
    pub(super) fn add(&mut self, agent: &AgentId, seq: Seq, message: Arc<Message>, queue: usize) {
        if self.known.insert((seq, agent.clone())) {
            self.insert(agent, seq, message, queue, None);
        }
    }

    /// A message that was read: of those to be read first, or of those whose turn has come.
    pub(super) fn read(
        &mut self,
        agent: &AgentId,
        seq: Seq,
        message: &Arc<Message>,
        queue: usize,
        not_before: Option<Timestamp>,
    ) {
        let key = (seq, agent.clone());
        if self.is_read(&key) {
            self.insert(agent, seq, Arc::clone(message), queue, not_before);
        } else if self.wanted.remove(&key)
            && let Some(lane) = self.lanes.get_mut(&(agent.clone(), message.conversation.clone()))
            && let Some(waiting) = lane.iter_mut().find(|waiting| waiting.seq == seq)
        {
            // Its turn has come, so it is kept whatever else waits.
            self.bytes += message.content.as_str().len();
            waiting.message = Some(Arc::clone(message));
        }
    }

    /// What is to be read next: what has its turn first, then the oldest.
    pub(super) fn to_read(&self, limit: usize) -> Vec<Key> {
        self.wanted.iter().chain(&self.unread).take(limit).cloned().collect()
    }

    /// Forgets messages that could not be found in the log.
    pub(super) fn lost(&mut self, key: &Key) {
        if self.is_read(key) {
            self.known.remove(key);
        }
        self.wanted.remove(key);
    }

    fn insert(
        &mut self,
        agent: &AgentId,
        seq: Seq,
        message: Arc<Message>,
        queue: usize,
        not_before: Option<Timestamp>,
    ) {
        let conversation = message.conversation.clone();
        let size = message.content.as_str().len();
        let message = (self.bytes < BYTES_MAX).then_some(message);
        if message.is_some() {
            self.bytes += size;
        }
        let queue = queue.min(self.heads.len() - 1);
        let lane = self.lanes.entry((agent.clone(), conversation.clone())).or_default();
        let at = lane.partition_point(|waiting| waiting.seq < seq);
        if at == 0 {
            if let Some(first) = lane.front() {
                self.heads[first.queue].remove(&(first.seq, agent.clone()));
            }
            self.heads[queue].insert((seq, agent.clone()), conversation);
        }
        lane.insert(at, Waiting { seq, queue, message, not_before });
    }

    /// Takes at most `room` messages of each queue. Those for which `is_open` says no are dropped: their agent is done
    /// with them. Those that were not kept are wanted from now on, and taken once they are read.
    pub(super) fn take(&mut self, room: &[usize], is_open: impl Fn(&AgentId, Seq) -> bool) -> Vec<Delivery> {
        let mut taken = Vec::new();
        let mut room: Vec<usize> =
            (0..self.heads.len()).map(|at| room.get(at).copied().unwrap_or(0)).collect();
        loop {
            // The oldest of all first, so that the order of the log is kept where it can be.
            let next = self
                .heads
                .iter()
                .enumerate()
                .filter(|(queue, _)| room[*queue] > 0)
                .filter_map(|(queue, heads)| {
                    let (key, _) = heads.iter().find(|(key, _)| !self.wanted.contains(*key))?;
                    Some((key.clone(), queue))
                })
                .min();
            let Some((key, queue)) = next else { return taken };
            let Some(conversation) = self.heads[queue].get(&key).cloned() else { return taken };
            let lane = (key.1.clone(), conversation);
            let Some(first) = self.lanes.get_mut(&lane).and_then(VecDeque::pop_front) else {
                self.heads[queue].remove(&key);
                continue;
            };
            if !is_open(&key.1, key.0) {
                self.bytes -= first.message.map_or(0, |message| message.content.as_str().len());
                self.known.remove(&key);
                self.behead(queue, &key, &lane);
                continue;
            }
            let Some(message) = first.message else {
                self.wanted.insert(key);
                if let Some(waiting) = self.lanes.get_mut(&lane) {
                    waiting.push_front(first);
                }
                continue;
            };
            self.bytes -= message.content.as_str().len();
            self.behead(queue, &key, &lane);
            room[queue] -= 1;
            taken.push(Delivery { agent: key.1, seq: key.0, message, not_before: first.not_before });
        }
    }

    /// The first of a lane is gone; the next one takes its place.
    fn behead(&mut self, queue: usize, key: &Key, lane: &Lane) {
        self.heads[queue].remove(key);
        match self.lanes.get(lane).and_then(VecDeque::front) {
            Some(next) => {
                self.heads[next.queue].insert((next.seq, lane.0.clone()), lane.1.clone());
            }
            None => _ = self.lanes.remove(lane),
        }
    }

    /// A message that was taken is done with.
    pub(super) fn done(&mut self, agent: &AgentId, seq: Seq) {
        self.known.remove(&(seq, agent.clone()));
    }

    /// A message that was taken waits again.
    pub(super) fn put_back(&mut self, delivery: Delivery, queue: usize) {
        let Delivery { agent, seq, message, not_before } = delivery;
        self.insert(&agent, seq, message, queue, not_before);
    }

    /// Forgets what waits for an agent. What was taken stays taken.
    pub(super) fn forget(&mut self, agent: &AgentId) {
        let of_others = |key: &Key| key.1 != *agent;
        for key in self.unread.iter().filter(|key| !of_others(key)) {
            self.known.remove(key);
        }
        self.unread.retain(of_others);
        self.unread_of.remove(agent);
        self.wanted.retain(of_others);
        for heads in &mut self.heads {
            heads.retain(|key, _| of_others(key));
        }
        let (known, bytes) = (&mut self.known, &mut self.bytes);
        self.lanes.retain(|(of, _), lane| {
            if of != agent {
                return true;
            }
            for waiting in lane {
                known.remove(&(waiting.seq, of.clone()));
                *bytes -= waiting.message.as_ref().map_or(0, |message| message.content.as_str().len());
            }
            false
        });
    }
}
