//! Who is next: queues by urgency, and lanes that keep each conversation in order.
//!
//! Pure: the time is passed in, as a duration since any fixed moment.

mod classifier;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use caxton_events::{AgentId, ConversationId};

pub use classifier::Classifier;

/// Every so many picks, a less urgent queue whose oldest item is late is served first: of several, the one that was not
/// served for longest.
///
/// So however much is urgent, each queue with something late gets its part of this share, and what is urgent waits for
/// one pick at most that is not its own.
pub const LATE_PICK_EVERY: u32 = 5;

/// Longest wait that a refusal asks for.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);
/// Shortest wait that a refusal asks for.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// One queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRule {
    /// Its name.
    pub name: String,
    /// Its place: 0 is served first.
    pub priority: u32,
    /// Wait above which an item is late.
    pub max_latency: Duration,
    /// Items that may wait.
    pub size: usize,
}

/// The messages of one conversation to one agent: they are handled one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// To whom.
    pub agent: AgentId,
    /// In which conversation.
    pub conversation: ConversationId,
}

/// A queue has no room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the queue {queue} is full ({size} wait); try again in {} s", retry_after.as_secs())]
pub struct QueueFull {
    /// Its name.
    pub queue: String,
    /// Its size.
    pub size: usize,
    /// When there should be room: the time between two picks of late.
    pub retry_after: Duration,
}

/// An item that was picked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picked<T> {
    /// The item.
    pub item: T,
    /// Its lane, taken until [`Queues::done`] or [`Queues::put_back`].
    pub lane: Lane,
    /// The queue it waited in.
    pub queue: usize,
    /// How long it waited.
    pub waited: Duration,
    /// Whether that is longer than its queue's measure.
    pub late: bool,
}

/// Items that wait, each in a queue and in a lane.
#[derive(Debug)]
pub struct Queues<T> {
    /// The most urgent first.
    by_urgency: Vec<Queue>,
    items: HashMap<u64, Waiting<T>>,
    lanes: HashMap<Lane, LaneState>,
    /// How many items of an agent wait in a queue.
    held: HashMap<(usize, AgentId), usize>,
    next_id: u64,
    /// Picks in a row for the most urgent queue while others waited.
    urgent_picks: u32,
    /// Picks so far.
    picks: u64,
}

#[derive(Debug)]
struct Queue {
    rule: QueueRule,
    /// Items by arrival, the oldest first.
    waiting: BTreeSet<u64>,
    late: u64,
    /// The number of its last pick.
    served: u64,
    last_pick: Option<Duration>,
    /// Mean time between two picks of late.
    pace: Duration,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    lane: Lane,
    queue: usize,
    since: Duration,
    not_before: Duration,
}

#[derive(Debug, Default)]
struct LaneState {
    /// Waiting items, in the order of the conversation.
    waiting: VecDeque<u64>,
    taken: bool,
}

impl<T> Queues<T> {
    /// Empty queues. They are numbered by priority, the most urgent first.
    pub fn new(mut rules: Vec<QueueRule>) -> Self {
        rules.sort_by_key(|rule| rule.priority);
        let queue = |rule| Queue {
            rule,
            waiting: BTreeSet::new(),
            late: 0,
            served: 0,
            last_pick: None,
            pace: Duration::ZERO,
        };
        Self {
            by_urgency: rules.into_iter().map(queue).collect(),
            items: HashMap::new(),
            lanes: HashMap::new(),
            held: HashMap::new(),
            next_id: 0,
            urgent_picks: 0,
            picks: 0,
        }
    }

    /// The rules, in the order of the queues.
    pub fn rules(&self) -> impl Iterator<Item = &QueueRule> {
        self.by_urgency.iter().map(|queue| &queue.rule)
    }

    /// Items that wait in each queue.
    pub fn depths(&self) -> impl Iterator<Item = usize> {
        self.by_urgency.iter().map(|queue| queue.waiting.len())
    }

    /// Items of each queue that were picked late so far.
    pub fn late(&self) -> impl Iterator<Item = u64> {
        self.by_urgency.iter().map(|queue| queue.late)
    }

    /// Items that each queue has room for.
    pub fn room(&self) -> Vec<usize> {
        self.by_urgency.iter().map(|queue| queue.rule.size.saturating_sub(queue.waiting.len())).collect()
    }

    /// Whether a queue takes another item.
    ///
    /// # Errors
    ///
    /// [`QueueFull`], with the time after which to try again.
    pub fn check(&self, queue: usize) -> Result<(), QueueFull> {
        let Queue { rule, waiting, pace, .. } = &self.by_urgency[queue.min(self.by_urgency.len() - 1)];
        if waiting.len() < rule.size {
            return Ok(());
        }
        // Whole seconds, as the header `Retry-After` has them, and never too early.
        let seconds = Duration::from_secs(pace.as_secs() + u64::from(pace.subsec_nanos() > 0));
        let retry_after = seconds.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX);
        Err(QueueFull { queue: rule.name.clone(), size: rule.size, retry_after })
    }

    /// Whether a queue takes an item for this agent: each agent has a place of its own beside those of the queue, so that
    /// what waits for one that hangs never shuts others out.
    ///
    /// # Errors
    ///
    /// [`QueueFull`], with the time after which to try again.
    pub fn check_for(&self, queue: usize, agent: &AgentId) -> Result<(), QueueFull> {
        if self.holds(queue, agent) { self.check(queue) } else { Ok(()) }
    }

    /// Whether something waits for this agent in a queue.
    pub fn holds(&self, queue: usize, agent: &AgentId) -> bool {
        self.held.contains_key(&(queue.min(self.by_urgency.len() - 1), agent.clone()))
    }

    /// Puts an item at the end of a queue and of its lane.
    ///
    /// # Errors
    ///
    /// [`QueueFull`], and the item.
    pub fn push(&mut self, queue: usize, lane: Lane, item: T, now: Duration) -> Result<(), (T, QueueFull)> {
        self.push_for(queue, lane, item, now, Duration::ZERO)
    }

    /// The same for an item that is not picked before a moment.
    ///
    /// # Errors
    ///
    /// [`QueueFull`], and the item.
    pub fn push_for(
        &mut self,
        queue: usize,
        lane: Lane,
        item: T,
        now: Duration,
        not_before: Duration,
    ) -> Result<(), (T, QueueFull)> {
        let queue = queue.min(self.by_urgency.len() - 1);
        if let Err(full) = self.check_for(queue, &lane.agent) {
            return Err((item, full));
        }
        let id = self.next_id;
        self.next_id += 1;
        self.by_urgency[queue].waiting.insert(id);
        *self.held.entry((queue, lane.agent.clone())).or_default() += 1;
        self.lanes.entry(lane.clone()).or_default().waiting.push_back(id);
        let since = now.max(not_before);
        self.items.insert(id, Waiting { item, lane, queue, since, not_before });
        Ok(())
    }

    /// Picks the next item whose lane is free and for which `ready` says yes; its lane is taken until it is done.
    ///
    /// The most urgent queue is served first, and within it the oldest item, but every [`LATE_PICK_EVERY`]th pick serves
    /// another one if something in it is late by its own `max_latency`. Where an older item of the same conversation waits
    /// in a less urgent queue, that one is picked in its place.
    pub fn pick(&mut self, now: Duration, mut ready: impl FnMut(&T) -> bool) -> Option<Picked<T>> {
        let mut order: Vec<usize> =
            (0..self.by_urgency.len()).filter(|&queue| !self.by_urgency[queue].waiting.is_empty()).collect();
        let urgent = *order.first()?;
        let others_wait = order.len() > 1;
        if self.urgent_picks + 1 >= LATE_PICK_EVERY
            && let Some(late) = self.longest_unserved(&order[1..], now)
        {
            order.insert(0, late);
        }
        for queue in order {
            if let Some(id) = self.first_ready(queue, now, &mut ready) {
                if queue != urgent {
                    self.urgent_picks = 0;
                } else if others_wait {
                    self.urgent_picks = (self.urgent_picks + 1).min(LATE_PICK_EVERY);
                }
                self.picks += 1;
                self.by_urgency[queue].served = self.picks;
                return self.take(id, now);
            }
        }
        None
    }

    /// The item is done: the next of its lane may be picked.
    pub fn done(&mut self, lane: &Lane) {
        if let Some(state) = self.lanes.get_mut(lane) {
            state.taken = false;
            if state.waiting.is_empty() {
                self.lanes.remove(lane);
            }
        }
    }

    /// The item goes back to the front of its lane, and is not picked before `not_before`. It had its place already, so
    /// it is taken even by a full queue.
    pub fn put_back(&mut self, picked: Picked<T>, now: Duration, not_before: Duration) {
        let Picked { item, lane, queue, .. } = picked;
        let id = self.next_id;
        self.next_id += 1;
        self.by_urgency[queue].waiting.insert(id);
        *self.held.entry((queue, lane.agent.clone())).or_default() += 1;
        let state = self.lanes.entry(lane.clone()).or_default();
        state.taken = false;
        state.waiting.push_front(id);
        self.items.insert(id, Waiting { item, lane, queue, since: now.max(not_before), not_before });
    }

    /// What waits in a lane for its moment, and for which `wanted` says yes, waits for it no longer.
    pub fn hasten(&mut self, lane: &Lane, wanted: impl Fn(&T) -> bool) {
        for id in self.lanes.get(lane).into_iter().flat_map(|state| &state.waiting) {
            if let Some(waiting) = self.items.get_mut(id).filter(|waiting| wanted(&waiting.item)) {
                waiting.not_before = Duration::ZERO;
            }
        }
    }

    /// When the next item that was put back may be picked.
    pub fn next_due(&self, now: Duration) -> Option<Duration> {
        // Only items that were put back have a moment, and few are.
        self.items.values().map(|waiting| waiting.not_before).filter(|due| *due > now).min()
    }

    /// Takes out everything that waits for an agent, in order.
    pub fn remove(&mut self, agent: &AgentId) -> Vec<T> {
        let mut ids: Vec<(Lane, u64)> = Vec::new();
        for (lane, state) in self.lanes.iter_mut().filter(|(lane, _)| lane.agent == *agent) {
            ids.extend(state.waiting.drain(..).map(|id| (lane.clone(), id)));
        }
        self.lanes.retain(|_, state| state.taken || !state.waiting.is_empty());
        ids.iter().filter_map(|(_, id)| self.forget(*id)).map(|waiting| waiting.item).collect()
    }

    /// Agents for whom something waits.
    pub fn agents(&self) -> impl Iterator<Item = &AgentId> {
        self.lanes.iter().filter(|(_, state)| !state.waiting.is_empty()).map(|(lane, _)| &lane.agent)
    }

    /// The one of these queues that was not served for longest, of those whose oldest item is late.
    fn longest_unserved(&self, queues: &[usize], now: Duration) -> Option<usize> {
        let is_late = |queue: &Queue| {
            let oldest = queue.waiting.first().and_then(|id| self.items.get(id));
            oldest.is_some_and(|oldest| now.saturating_sub(oldest.since) > queue.rule.max_latency)
        };
        let late = queues.iter().copied().filter(|&queue| is_late(&self.by_urgency[queue]));
        late.min_by_key(|&queue| self.by_urgency[queue].served)
    }

    /// The first item that can be picked in favour of `queue`.
    fn first_ready(&self, queue: usize, now: Duration, ready: &mut impl FnMut(&T) -> bool) -> Option<u64> {
        self.by_urgency[queue].waiting.iter().find_map(|id| {
            let lane = self.lanes.get(&self.items.get(id)?.lane)?;
            let front = *lane.waiting.front()?;
            let first = self.items.get(&front)?;
            (!lane.taken && first.not_before <= now && ready(&first.item)).then_some(front)
        })
    }

    fn take(&mut self, id: u64, now: Duration) -> Option<Picked<T>> {
        let Waiting { item, lane, queue, since, .. } = self.forget(id)?;
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.waiting.retain(|waiting| *waiting != id);
            state.taken = true;
        }
        let waited = now.saturating_sub(since);
        let from = &mut self.by_urgency[queue];
        let late = waited > from.rule.max_latency;
        from.late += u64::from(late);
        if let Some(last) = from.last_pick.replace(now) {
            from.pace = (from.pace * 7 + now.saturating_sub(last)) / 8;
        }
        Some(Picked { item, lane, queue, waited, late })
    }

    fn forget(&mut self, id: u64) -> Option<Waiting<T>> {
        let waiting = self.items.remove(&id)?;
        self.by_urgency[waiting.queue].waiting.remove(&id);
        let key = (waiting.queue, waiting.lane.agent.clone());
        if let Some(count) = self.held.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(&key);
            }
        }
        Some(waiting)
    }
}
