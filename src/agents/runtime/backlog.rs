//! Messages that wait in inboxes for room in a queue: by conversation in the order of the log, and by queue.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use caxton_events::conversation::Message;
use caxton_events::{AgentId, ConversationId, Seq, Timestamp};

use crate::agents::cancel::TakenBack;
use crate::agents::ports::{Delivery, Room};

/// Contents of waiting messages that are kept, in bytes; those beyond it are read again when their turn comes.
const BYTES_MAX: usize = 64 << 20;
/// Contents of messages that are given out, or asked for, and not done with, in bytes. Once there are as many, an agent for which
/// nothing waits gets one all the same.
const OUT_BYTES_MAX: usize = 64 << 20;

/// A message in an inbox.
pub(super) type Key = (Seq, AgentId);

type Lane = (AgentId, ConversationId);

/// A message whose queue is known.
#[derive(Debug)]
struct Waiting {
    seq: Seq,
    queue: usize,
    /// Bytes of its content.
    size: usize,
    message: Option<Arc<Message>>,
    not_before: Option<Timestamp>,
}

impl Waiting {
    /// Bytes of its content that are kept.
    fn kept(&self) -> usize {
        if self.message.is_some() { self.size } else { 0 }
    }
}

/// What became of the first message of a conversation.
enum Head {
    Taken(Delivery),
    /// It was not kept, and is to be read.
    Wanted,
    /// Its agent is done with it.
    Gone,
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

    fn first(&self) -> Option<&Key> {
        self.conversations.first_key_value().map(|(key, _)| key)
    }

    /// The first one of an agent.
    fn first_of(&self, agent: &AgentId) -> Option<Key> {
        let (of, seq) = self.by_agent.range((agent.clone(), Seq::ZERO)..).next()?;
        (of == agent).then(|| (*seq, of.clone()))
    }
}

/// What waits, and what was taken.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Of each queue, the messages that are the first of their conversation, but for those that are to be read.
    heads: Vec<Heads>,
    /// Agents whose own place in a full queue may be free: something came for them, or was done, since it was looked at.
    awaited: BTreeSet<AgentId>,
    lanes: HashMap<Lane, VecDeque<Waiting>>,
    /// Everything that waits, is to be read, or was taken.
    known: HashSet<Key>,
    /// Messages whose queue is not known yet.
    unread: BTreeSet<Key>,
    unread_of: HashMap<AgentId, usize>,
    /// Messages at their turn that were not kept, with their queue and conversation. They have their place in the queue.
    wanted: BTreeMap<Key, (usize, ConversationId)>,
    /// Those of them that were read since, with their queue.
    came: BTreeMap<Key, usize>,
    bytes: usize,
    /// What was given out or is asked for, with the bytes of its content.
    out: HashMap<Key, usize>,
    out_bytes: usize,
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
            wanted: BTreeMap::new(),
            came: BTreeMap::new(),
            bytes: 0,
            out: HashMap::new(),
            out_bytes: 0,
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
        } else if let Some((queue, conversation)) = self.wanted.remove(&key) {
            let lane = self.lanes.get_mut(&(agent.clone(), conversation.clone()));
            let at = lane.as_ref().and_then(|lane| lane.iter().position(|waiting| waiting.seq == seq));
            if let (Some(lane), Some(at)) = (lane, at) {
                // Its turn has come, so it is kept whatever else waits.
                self.bytes += lane[at].size;
                lane[at].message = Some(Arc::clone(message));
                self.awaited.insert(agent.clone());
                if at == 0 {
                    self.heads[queue].insert(key.clone(), conversation);
                    self.came.insert(key, queue);
                    return;
                }
            }
            // Another one has come before it.
            self.give_back(&key);
        }
    }

    /// What is to be read next: what has its turn first, then the oldest.
    pub(super) fn to_read(&self, limit: usize) -> Vec<Key> {
        self.wanted.keys().chain(&self.unread).take(limit).cloned().collect()
    }

    /// Forgets messages that could not be found in the log.
    pub(super) fn lost(&mut self, key: &Key) {
        if self.is_read(key) {
            self.known.remove(key);
        }
        let Some((_, conversation)) = self.wanted.remove(key) else { return };
        self.give_back(key);
        self.known.remove(key);
        // It had the agent's own place.
        self.awaited.insert(key.1.clone());
        let lane = (key.1.clone(), conversation);
        let Some(waiting) = self.lanes.get_mut(&lane) else { return };
        let was_first = waiting.front().is_some_and(|first| first.seq == key.0);
        waiting.retain(|waiting| waiting.seq != key.0);
        if was_first {
            self.next_of(&lane);
        }
    }

    /// Notes what is given out or asked for.
    fn give_out(&mut self, key: &Key, size: usize) {
        if self.out.insert(key.clone(), size).is_none() {
            self.out_bytes += size;
        }
    }

    /// It is neither any more.
    fn give_back(&mut self, key: &Key) {
        self.out_bytes -= self.out.remove(key).unwrap_or_default();
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
            let first = lane.front().map(|first| (first.queue, (first.seq, agent.clone())));
            lane.push_front(Waiting { seq, queue, size, message, not_before });
            self.heads[queue].insert((seq, agent.clone()), conversation);
            if let Some((queue, first)) = first {
                self.heads[queue].remove(&first);
                // One that was read has no place of its own any more.
                if self.came.remove(&first).is_some() {
                    self.give_back(&first);
                }
            }
        } else {
            lane.insert(at, Waiting { seq, queue, size, message, not_before });
        }
    }

    /// Takes at most as many messages of each queue as `room` says, and as [`OUT_BYTES_MAX`] has room for. Those for which
    /// `is_open` says no are dropped: their agent is done with them. Those that were not kept are wanted from now on, have their
    /// place, and are taken once they are read.
    pub(super) fn take(&mut self, room: &Room<'_>, is_open: impl Fn(&AgentId, Seq) -> bool) -> Vec<Delivery> {
        let mut left: Vec<usize> =
            (0..self.heads.len()).map(|at| room.queues.get(at).copied().unwrap_or(0)).collect();
        let mut taken = self.take_what_came(room, &mut left, &is_open);
        for queue in self.came.values().chain(self.wanted.values().map(|(queue, _)| queue)) {
            left[*queue] = left[*queue].saturating_sub(1);
        }
        while self.out_bytes < OUT_BYTES_MAX {
            // The oldest of all first, so that the order of the log is kept where it can be.
            let queues = self.heads.iter().enumerate().filter(|(queue, _)| left[*queue] > 0);
            let next = queues.filter_map(|(queue, heads)| Some((heads.first()?, queue))).min();
            let Some((key, queue)) = next.map(|(key, queue)| (key.clone(), queue)) else { break };
            match self.take_head(queue, key, &is_open) {
                Head::Taken(delivery) => {
                    left[queue] -= 1;
                    taken.push(delivery);
                }
                Head::Wanted => left[queue] -= 1,
                Head::Gone => (),
            }
        }
        self.take_own(room, &left, &is_open, &mut taken);
        taken
    }

    /// Takes what was wanted and has been read: it has its place.
    fn take_what_came(
        &mut self,
        room: &Room<'_>,
        left: &mut [usize],
        is_open: &impl Fn(&AgentId, Seq) -> bool,
    ) -> Vec<Delivery> {
        let (mut taken, mut own) = (Vec::new(), BTreeSet::new());
        for (key, queue) in std::mem::take(&mut self.came) {
            if left[queue] == 0 && !((room.own)(queue, &key.1) && own.insert((queue, key.1.clone()))) {
                self.came.insert(key, queue);
                continue;
            }
            if let Head::Taken(delivery) = self.take_head(queue, key, is_open) {
                left[queue] = left[queue].saturating_sub(1);
                taken.push(delivery);
            }
        }
        taken
    }

    /// Takes one for each agent for which nothing waits in a queue without room.
    fn take_own(
        &mut self,
        room: &Room<'_>,
        left: &[usize],
        is_open: &impl Fn(&AgentId, Seq) -> bool,
        taken: &mut Vec<Delivery>,
    ) {
        // A queue may have been filled just now, so that what is held there is more than `room` knows.
        let filled: BTreeSet<AgentId> = taken.iter().map(|delivery| delivery.agent.clone()).collect();
        for agent in std::mem::take(&mut self.awaited) {
            if filled.contains(&agent) {
                self.awaited.insert(agent);
                continue;
            }
            let is_full = self.out_bytes >= OUT_BYTES_MAX;
            for queue in (0..self.heads.len()).filter(|queue| is_full || left[*queue] == 0) {
                let waits = self.heads[queue].first_of(&agent).is_some();
                if !waits || !(room.own)(queue, &agent) || self.is_asked(queue, &agent) {
                    continue;
                }
                while let Some(key) = self.heads[queue].first_of(&agent) {
                    match self.take_head(queue, key, is_open) {
                        Head::Taken(delivery) => taken.push(delivery),
                        Head::Wanted => (),
                        Head::Gone => continue,
                    }
                    break;
                }
            }
        }
    }

    /// Whether something is asked for, or was read, that takes the agent's own place in a queue.
    fn is_asked(&self, queue: usize, agent: &AgentId) -> bool {
        self.wanted.iter().any(|((_, of), (at, _))| *at == queue && of == agent)
            || self.came.iter().any(|((_, of), at)| *at == queue && of == agent)
    }

    /// Takes a head of a queue, if it is open and was kept.
    fn take_head(&mut self, queue: usize, key: Key, is_open: &impl Fn(&AgentId, Seq) -> bool) -> Head {
        let Some(conversation) = self.heads[queue].conversations.get(&key).cloned() else {
            self.give_back(&key);
            return Head::Gone;
        };
        self.heads[queue].remove(&key);
        let lane = (key.1.clone(), conversation);
        let Some(first) = self.lanes.get_mut(&lane).and_then(VecDeque::pop_front) else {
            self.give_back(&key);
            return Head::Gone;
        };
        self.bytes -= first.kept();
        if !is_open(&key.1, key.0) {
            self.give_back(&key);
            self.known.remove(&key);
            self.next_of(&lane);
            return Head::Gone;
        }
        self.give_out(&key, first.size);
        let Some(message) = first.message else {
            if let Some(waiting) = self.lanes.get_mut(&lane) {
                waiting.push_front(first);
            }
            self.wanted.insert(key, (queue, lane.1));
            return Head::Wanted;
        };
        self.next_of(&lane);
        let (agent, seq, back) = (key.1, key.0, TakenBack::default());
        Head::Taken(Delivery { agent, seq, message, not_before: first.not_before, back })
    }

    /// The first of a lane is gone; the next one takes its place.
    fn next_of(&mut self, lane: &Lane) {
        let Some(next) = self.lanes.get(lane).and_then(VecDeque::front) else {
            self.lanes.remove(lane);
            return;
        };
        let key = (next.seq, lane.0.clone());
        if !self.wanted.contains_key(&key) {
            self.heads[next.queue].insert(key, lane.1.clone());
        }
    }

    /// A message that was taken is done with.
    pub(super) fn done(&mut self, agent: &AgentId, seq: Seq) {
        let key = (seq, agent.clone());
        self.known.remove(&key);
        self.give_back(&key);
        self.awaited.insert(agent.clone());
    }

    /// A message that was taken waits again.
    pub(super) fn put_back(&mut self, delivery: Delivery, queue: usize) {
        let Delivery { agent, seq, message, not_before, .. } = delivery;
        self.give_back(&(seq, agent.clone()));
        self.insert(&agent, seq, message, queue, not_before);
    }

    /// Forgets what waits and is not open: it was erased, or is done with.
    pub(super) fn forget_closed(&mut self, is_open: impl Fn(&AgentId, Seq) -> bool) {
        let closed: Vec<Key> =
            self.unread.iter().filter(|(seq, agent)| !is_open(agent, *seq)).cloned().collect();
        for key in &closed {
            self.lost(key);
        }
        let mut gone: Vec<Key> = Vec::new();
        let Self { heads, lanes, wanted, bytes, .. } = self;
        heads.fill_with(Heads::default);
        lanes.retain(|(agent, conversation), lane| {
            lane.retain(|waiting| {
                let open = is_open(agent, waiting.seq);
                if !open {
                    *bytes -= waiting.kept();
                    gone.push((waiting.seq, agent.clone()));
                }
                open
            });
            let Some(first) = lane.front() else { return false };
            let key = (first.seq, agent.clone());
            if !wanted.contains_key(&key) {
                heads[first.queue].insert(key, conversation.clone());
            }
            true
        });
        for key in gone {
            self.wanted.remove(&key);
            self.came.remove(&key);
            self.known.remove(&key);
            self.give_back(&key);
            self.awaited.insert(key.1);
        }
    }

    /// Forgets what waits for an agent. What was taken stays taken.
    pub(super) fn forget(&mut self, agent: &AgentId) {
        let of_others = |key: &Key| key.1 != *agent;
        for key in self.unread.iter().filter(|key| !of_others(key)) {
            self.known.remove(key);
        }
        self.unread.retain(of_others);
        self.unread_of.remove(agent);
        let asked: Vec<Key> =
            self.wanted.keys().chain(self.came.keys()).filter(|key| !of_others(key)).cloned().collect();
        for key in &asked {
            self.give_back(key);
        }
        self.wanted.retain(|key, _| of_others(key));
        self.came.retain(|key, _| of_others(key));
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
                *bytes -= waiting.kept();
            }
            false
        });
    }
}
