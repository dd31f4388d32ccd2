//! An inbox: positions of the messages to one agent, how far it is done with them, and what it sent itself.

use std::collections::BTreeSet;

use caxton_events::{AgentId, Seq, Timestamp};
use serde::{Deserialize, Serialize};

use super::Postings;
use crate::agents::opt_micros;

/// The messages to one agent and what it did about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inbox {
    /// Whose.
    pub agent: AgentId,
    /// Every message up to here is done with.
    pub low: Seq,
    /// And these beyond it.
    pub sparse: BTreeSet<Seq>,
    /// How many are done with.
    pub acknowledged: u64,
    /// When it last sent a message, or was done with some.
    #[serde(with = "opt_micros")]
    pub active_at: Option<Timestamp>,
    /// Questions it answered.
    pub answered: u64,
    /// Of these, with `FAILURE`, `REFUSE` or `NOT_UNDERSTOOD`.
    pub failed: u64,
    /// Time from question to answer, the latest ones counting most, in microseconds.
    pub response_micros: u64,
    /// Where the messages stand.
    #[serde(skip)]
    pub messages: Postings,
    /// Where the messages stand that it sent.
    #[serde(skip)]
    pub sent: Postings,
    #[serde(skip)]
    pub(super) dirty: bool,
}

impl Inbox {
    pub(super) fn new(agent: AgentId) -> Self {
        Self {
            agent,
            low: Seq::ZERO,
            sparse: BTreeSet::new(),
            acknowledged: 0,
            active_at: None,
            answered: 0,
            failed: 0,
            response_micros: 0,
            messages: Postings::default(),
            sent: Postings::default(),
            dirty: false,
        }
    }

    /// A copy without the positions, which are stored apart.
    pub(super) fn row(&self) -> Self {
        let (agent, sparse) = (self.agent.clone(), self.sparse.clone());
        Self { agent, sparse, messages: Postings::default(), sent: Postings::default(), ..*self }
    }

    /// Messages that are not done with.
    pub fn waiting(&self) -> u64 {
        self.messages.len().saturating_sub(self.acknowledged)
    }

    /// Whether the agent is done with the message at `seq`.
    pub fn is_done(&self, seq: Seq) -> bool {
        seq <= self.low || self.sparse.contains(&seq)
    }

    /// Whether there is a message at `seq` that the agent is not done with. One that was erased is not there.
    pub fn is_open(&self, seq: Seq) -> bool {
        !self.is_done(seq) && self.messages.contains(seq)
    }

    /// Positions behind `after` that are not done with, upwards.
    pub fn open_after(&self, after: Seq) -> impl Iterator<Item = Seq> + '_ {
        self.messages.after(after.max(self.low)).filter(|seq| !self.sparse.contains(seq))
    }

    /// Marks everything up to `through`, and `also` beyond it, as done with.
    pub(super) fn acknowledge(&mut self, through: Seq, also: &[Seq]) {
        if through > self.low {
            let beyond = self.sparse.split_off(&through.next());
            let known = self.sparse.len() as u64;
            self.acknowledged += self.messages.count_between(self.low, through) - known;
            (self.low, self.sparse) = (through, beyond);
        }
        for seq in also {
            if self.is_open(*seq) {
                self.sparse.insert(*seq);
                self.acknowledged += 1;
            }
        }
        if self.sparse.is_empty() {
            return;
        }
        let done = self.messages.after(self.low).take_while(|seq| self.sparse.contains(seq)).last();
        if let Some(done) = done {
            self.low = done;
            self.sparse = self.sparse.split_off(&done.next());
        }
    }
}

#[cfg(test)]
mod tests {
    use caxton_events::Seq;

    use super::Inbox;

    #[test]
    fn acknowledging_in_any_order_ends_the_same() {
        let fresh = || {
            let mut inbox = Inbox::new("ada".parse().expect("a name"));
            (1..=10).for_each(|n| inbox.messages.push(Seq(n * 10)));
            inbox
        };
        let mut inbox = fresh();
        inbox.acknowledge(Seq::ZERO, &[Seq(30), Seq(30), Seq(31), Seq(50)]);
        assert_eq!((inbox.low, inbox.acknowledged, inbox.waiting()), (Seq(0), 2, 8));
        inbox.acknowledge(Seq(20), &[]);
        assert_eq!((inbox.low, inbox.acknowledged), (Seq(30), 4));
        let open = (0..=110).map(Seq).filter(|seq| inbox.is_open(*seq));
        assert!(open.eq(inbox.open_after(Seq::ZERO)), "what is not there is not open either");
        assert!(inbox.open_after(Seq::ZERO).eq([40, 60, 70, 80, 90, 100].map(Seq)));
        inbox.acknowledge(Seq(75), &[Seq(100), Seq(90), Seq(80)]);
        assert_eq!((inbox.low, inbox.acknowledged, inbox.waiting()), (Seq(100), 10, 0));
        assert!(inbox.sparse.is_empty());
        let mut whole = fresh();
        whole.acknowledge(Seq(100), &[]);
        assert_eq!(whole, inbox);
        inbox.acknowledge(Seq(10), &[Seq(20)]);
        assert_eq!(whole, inbox);
    }
}
