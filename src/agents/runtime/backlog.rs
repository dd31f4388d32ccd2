//! Messages that wait in inboxes for room in a queue: by conversation in the order of the log, and by queue.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use caxton_events::conversation::Message;
use caxton_events::{AgentId, ConversationId, Seq, Timestamp};

use crate::agents::cancel::TakenBack;
use crate::agents::ports::{Delivery, Room};

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

/// Messages that are the first of their conversation, by their place and by their agent.
#[derive(Debug, Default)]
struct Heads {
    conversations: BTreeMap<Key, ConversationId>,
    by_agent: BTreeSet<(AgentId, Seq)>,
}

impl Heads {
    fn insert(&mut self, key: Key, conversation: ConversationId) {
        self.by_agent.insert((key.1.clone(), key.0));
        self.conversations.insert(key, conversation);
    }

    fn remove(&mut self, key: &Key) {
        self.by_agent.remove(&(key.1.clone(), key.0));
        self.conversations.remove(key);
    }

    fn forget(&mut self, agent: &AgentId) {
        self.conversations.retain(|key, _| key.1 != *agent);
        self.by_agent.retain(|(of, _)| of != agent);
    }

    /// The first one that is not `wanted` already.
    fn first(&self, wanted: &BTreeSet<Key>) -> Option<Key> {
        self.conversations.keys().find(|key| !wanted.contains(*key)).cloned()
    }

    /// The same of one agent.
    fn first_of(&self, agent: &AgentId, wanted: &BTreeSet<Key>) -> Option<Key> {
        let of_agent = self.by_agent.range((agent.clone(), Seq::ZERO)..);
        let mut keys = of_agent.take_while(|(of, _)| of == agent).map(|(of, seq)| (*seq, of.clone()));
        keys.find(|key| !wanted.contains(key))
    }
}

/// What waits, and what was taken.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Of each queue, the messages that are the first of their conversation.
    heads: Vec<Heads>,
    /// Agents whose own place in a full queue may be free: something came for them, or was done, since it was looked at.
    awaited: BTreeSet<AgentId>,
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
            heads: std::iter::repeat_with(Heads::default).take(queues.max(1)).collect(),
            awaited: BTreeSet::new(),
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
            self.awaited.insert(agent.clone());
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
        self.awaited.insert(agent.clone());
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

    /// Takes at most as many messages of each queue as `room` says. Those for which `is_open` says no are dropped: their
    /// agent is done with them. Those that were not kept are wanted from now on, and taken once they are read.
    pub(super) fn take(&mut self, room: &Room<'_>, is_open: impl Fn(&AgentId, Seq) -> bool) -> Vec<Delivery> {
        let mut taken = Vec::new();
        let mut left: Vec<usize> =
            (0..self.heads.len()).map(|at| room.queues.get(at).copied().unwrap_or(0)).collect();
        loop {
            // The oldest of all first, so that the order of the log is kept where it can be.
            let queues = self.heads.iter().enumerate().filter(|(queue, _)| left[*queue] > 0);
            let next = queues.filter_map(|(queue, heads)| Some((heads.first(&self.wanted)?, queue))).min();
            let Some((key, queue)) = next else { break };
            if let Some(delivery) = self.take_head(queue, key, &is_open) {
                left[queue] -= 1;
                taken.push(delivery);
            }
        }
        // A queue may have been filled just now, so that what is held there is more than `room` knows.
        let filled: BTreeSet<AgentId> = taken.iter().map(|delivery| delivery.agent.clone()).collect();
        for agent in std::mem::take(&mut self.awaited) {
            if filled.contains(&agent) {
                self.awaited.insert(agent);
                continue;
            }
            let full = (0..self.heads.len()).filter(|queue| left[*queue] == 0);
            for queue in full.filter(|queue| (room.own)(*queue, &agent)) {
                while let Some(key) = self.heads[queue].first_of(&agent, &self.wanted) {
                    if let Some(delivery) = self.take_head(queue, key, &is_open) {
                        taken.push(delivery);
                        break;
                    }
                }
            }
        }
        taken
    }

    /// Takes a head of a queue, if it is open and was kept.
    fn take_head(
        &mut self,
        queue: usize,
        key: Key,
        is_open: &impl Fn(&AgentId, Seq) -> bool,
    ) -> Option<Delivery> {
        let conversation = self.heads[queue].conversations.get(&key)?.clone();
        let lane = (key.1.clone(), conversation);
        let Some(first) = self.lanes.get_mut(&lane).and_then(VecDeque::pop_front) else {
            self.heads[queue].remove(&key);
            return None;
        };
        if !is_open(&key.1, key.0) {
            self.bytes -= first.message.map_or(0, |message| message.content.as_str().len());
            self.known.remove(&key);
            self.behead(queue, &key, &lane);
            return None;
        }
        let Some(message) = first.message else {
            self.wanted.insert(key);
            if let Some(waiting) = self.lanes.get_mut(&lane) {
                waiting.push_front(first);
            }
            return None;
        };
        self.bytes -= message.content.as_str().len();
        self.behead(queue, &key, &lane);
        let (agent, seq, back) = (key.1, key.0, TakenBack::default());
        Some(Delivery { agent, seq, message, not_before: first.not_before, back })
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
        self.awaited.insert(agent.clone());
    }

    /// A message that was taken waits again.
    pub(super) fn put_back(&mut self, delivery: Delivery, queue: usize) {
        let Delivery { agent, seq, message, not_before, .. } = delivery;
        self.insert(&agent, seq, message, queue, not_before);
    }

    /// Forgets what waits and is not open: it was erased, or is done with.
    pub(super) fn forget_closed(&mut self, is_open: impl Fn(&AgentId, Seq) -> bool) {
        let closed: Vec<Key> =
            self.unread.iter().filter(|(seq, agent)| !is_open(agent, *seq)).cloned().collect();
        for key in &closed {
            self.lost(key);
        }
        let Self { heads, awaited, lanes, known, wanted, bytes, .. } = self;
        heads.fill_with(Heads::default);
        lanes.retain(|(agent, conversation), lane| {
            lane.retain(|waiting| {
                let open = is_open(agent, waiting.seq);
                if !open {
                    let key = (waiting.seq, agent.clone());
                    wanted.remove(&key);
                    known.remove(&key);
                    *bytes -= waiting.message.as_ref().map_or(0, |message| message.content.as_str().len());
                    awaited.insert(agent.clone());
                }
                open
            });
            let Some(first) = lane.front() else { return false };
            heads[first.queue].insert((first.seq, agent.clone()), conversation.clone());
            true
        });
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
            heads.forget(agent);
        }
        self.awaited.remove(agent);
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
