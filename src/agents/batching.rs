//! Batches of conversations: what is ready at about the same time is prepared together, so that memory is searched once.
//!
//! Pure: the time is passed in. The timer that flushes a batch which nothing more comes to is [`Batcher::due`].

use std::time::Duration;

use crate::config::ConversationProcessing;

/// How batches are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRules {
    /// Conversations of a batch at most.
    pub size: usize,
    /// Longest wait of the first for more.
    pub timeout: Duration,
    /// Contexts of a batch that are made at the same time.
    pub parallel: usize,
    /// Search memory once for all of a batch.
    pub search_together: bool,
}

impl From<&ConversationProcessing> for BatchRules {
    fn from(settings: &ConversationProcessing) -> Self {
        Self {
            size: settings.batch_size,
            timeout: settings.batch_timeout,
            parallel: settings.parallel_conversations,
            search_together: settings.memory_batch_search,
        }
    }
}

/// A batch that is being filled.
#[derive(Debug)]
pub struct Batcher<T> {
    rules: BatchRules,
    items: Vec<T>,
    since: Duration,
    urgent: bool,
}

impl<T> Batcher<T> {
    /// An empty batch.
    pub const fn new(rules: BatchRules) -> Self {
        Self { rules, items: Vec::new(), since: Duration::ZERO, urgent: false }
    }

    /// Adds a conversation. An urgent one does not wait for others.
    pub fn add(&mut self, item: T, urgent: bool, now: Duration) {
        if self.items.is_empty() {
            self.since = now;
        }
        self.items.push(item);
        self.urgent |= urgent;
    }

    /// Conversations in the batch.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether it holds as many as it may.
    pub fn is_full(&self) -> bool {
        self.items.len() >= self.rules.size.max(1)
    }

    /// When it is flushed though it is not full.
    pub fn due(&self) -> Option<Duration> {
        (!self.items.is_empty()).then_some(self.since + self.rules.timeout)
    }

    /// The batch, if its time has come: it is full, holds something urgent, its timer has run out, or nothing else is
    /// being prepared, so that waiting would gain nothing.
    pub fn flush(&mut self, now: Duration, idle: bool) -> Option<Vec<T>> {
        let timed_out = self.due().is_some_and(|due| now >= due);
        if self.items.is_empty() || !(self.is_full() || self.urgent || timed_out || idle) {
            return None;
        }
        self.urgent = false;
        Some(std::mem::take(&mut self.items))
    }

    /// What waits, without a batch being made.
    pub fn take_back(&mut self) -> Vec<T> {
        std::mem::take(&mut self.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: BatchRules =
        BatchRules { size: 3, timeout: Duration::from_millis(100), parallel: 4, search_together: true };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_full_batch_goes_at_once() {
        let mut batch = Batcher::new(RULES);
        for item in 1..=3 {
            assert_eq!(batch.flush(at(0), false), None);
            batch.add(item, false, at(0));
        }
        assert!(batch.is_full());
        assert_eq!(batch.flush(at(0), false), Some(vec![1, 2, 3]));
        assert!(batch.is_empty() && batch.due().is_none());
    }

    #[test]
    fn a_timer_flushes_what_nothing_more_comes_to() {
        let mut batch = Batcher::new(RULES);
        batch.add(1, false, at(50));
        batch.add(2, false, at(120));
        assert_eq!(batch.due(), Some(at(150)), "the first one counts");
        assert_eq!(batch.flush(at(149), false), None);
        assert_eq!(batch.flush(at(150), false), Some(vec![1, 2]));
        batch.add(3, false, at(200));
        assert_eq!(batch.due(), Some(at(300)));
    }

    #[test]
    fn nobody_waits_for_nothing() {
        let mut batch = Batcher::new(RULES);
        assert_eq!(batch.flush(at(0), true), None);
        batch.add(1, false, at(0));
        assert_eq!(batch.flush(at(0), true), Some(vec![1]));
        batch.add(2, false, at(0));
        batch.add(3, true, at(0));
        assert_eq!(batch.flush(at(0), false), Some(vec![2, 3]));
        batch.add(4, false, at(0));
        assert_eq!(batch.flush(at(0), false), None, "urgency goes with its batch");
    }
}
