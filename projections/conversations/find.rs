//! Messages by who said them to whom, where, and for what: by lists of positions, never by a walk over the log.

use caxton_events::{AgentId, CapabilityName, ConversationId, Seq};

use super::{Conversations, Postings};

/// Positions that one call looks at: the state is held meanwhile.
const LOOKED_AT_MAX: usize = 4_096;
/// Positions that are unpacked at a time going down.
const CHUNK: usize = 256;

/// Which lists a message must stand in. A list that is not named does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lists {
    /// Said in this conversation.
    pub conversation: Option<ConversationId>,
    /// Said by this agent.
    pub sender: Option<AgentId>,
    /// Said to this agent.
    pub receiver: Option<AgentId>,
    /// Said to who can do this.
    pub capability: Option<CapabilityName>,
}

impl Lists {
    /// Whether none is named.
    pub const fn is_empty(&self) -> bool {
        self.conversation.is_none()
            && self.sender.is_none()
            && self.receiver.is_none()
            && self.capability.is_none()
    }
}

/// Where to look, and from which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Behind this position.
    pub after: Seq,
    /// And before this one.
    pub before: Seq,
    /// Downwards from `before`, else upwards from `after`.
    pub newest_first: bool,
}

/// What was found in one look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Positions in the order that was asked for.
    pub seqs: Vec<Seq>,
    /// Where the look ended early: there may be more beyond it.
    pub more: Option<Seq>,
    /// How many there are in all, where that is known without looking.
    pub total: Option<u64>,
}

impl Conversations {
    /// Up to `limit` messages that stand in all of `lists`; with no list named, none.
    pub fn find(&self, lists: &Lists, window: Window, limit: usize) -> Found {
        let Some(mut wanted) = self.lists(lists) else { return Found { total: Some(0), ..Found::default() } };
        wanted.sort_unstable_by_key(|list| list.len());
        let Some((shortest, others)) = wanted.split_first() else { return Found::default() };
        let total = others.is_empty().then(|| shortest.len());
        let in_all = |seq: Seq| others.iter().all(|list| list.contains(seq));
        let (mut seqs, mut more, mut looked_at) = (Vec::new(), None, 0);
        let mut take = |seq: Seq| {
            looked_at += 1;
            if in_all(seq) {
                seqs.push(seq);
            }
            if seqs.len() == limit || looked_at == LOOKED_AT_MAX {
                more = Some(seq);
            }
            more.is_none()
        };
        if window.newest_first {
            let mut before = window.before;
            'look: loop {
                let chunk = shortest.before(before, CHUNK);
                for seq in chunk.iter().take_while(|seq| **seq > window.after) {
                    if !take(*seq) {
                        break 'look;
                    }
                }
                match chunk.last() {
                    Some(last) if chunk.len() == CHUNK && *last > window.after => before = *last,
                    _ => break,
                }
            }
        } else {
            for seq in shortest.after(window.after).take_while(|seq| *seq < window.before) {
                if !take(seq) {
                    break;
                }
            }
        }
        Found { seqs, more, total }
    }

    /// Up to `limit` messages that the agent sent or got, each with whether it sent it.
    pub fn of_agent(&self, agent: &AgentId, window: Window, limit: usize) -> Vec<(Seq, bool)> {
        let Some(inbox) = self.inbox(agent) else { return Vec::new() };
        let part = |list: &Postings, sent: bool| -> Vec<(Seq, bool)> {
            if window.newest_first {
                let before = list.before(window.before, limit).into_iter();
                before.take_while(|seq| *seq > window.after).map(|seq| (seq, sent)).collect()
            } else {
                let after = list.after(window.after).take_while(|seq| *seq < window.before);
                after.take(limit).map(|seq| (seq, sent)).collect()
            }
        };
        let mut both = part(&inbox.messages, false);
        both.extend(part(&inbox.sent, true));
        both.sort_unstable();
        if window.newest_first {
            both.reverse();
        }
        both.truncate(limit);
        both
    }

    /// The lists that are named; `None` when one of them does not exist.
    fn lists(&self, lists: &Lists) -> Option<Vec<&Postings>> {
        let mut wanted = Vec::with_capacity(4);
        if let Some(id) = &lists.conversation {
            wanted.push(&self.get(id)?.messages);
        }
        if let Some(agent) = &lists.sender {
            wanted.push(&self.inbox(agent)?.sent);
        }
        if let Some(agent) = &lists.receiver {
            wanted.push(&self.inbox(agent)?.messages);
        }
        if let Some(capability) = &lists.capability {
            wanted.push(self.routed.get(capability.as_str())?);
        }
        Some(wanted)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;
    use crate::conversations::Inbox;

    /// Ada sends at the even positions below 20,000; bob gets what stands at multiples of three.
    fn talk() -> Conversations {
        let mut talk = Conversations::default();
        for (name, step_sent, step_got) in [("ada", 2, 5), ("bob", 7, 3)] {
            let agent: AgentId = name.parse().unwrap();
            let mut inbox = Inbox::new(agent.clone());
            (1..20_000).filter(|seq| seq % step_sent == 0).for_each(|seq| inbox.sent.push(Seq(seq)));
            (1..20_000).filter(|seq| seq % step_got == 0).for_each(|seq| inbox.messages.push(Seq(seq)));
            talk.inboxes.insert(agent, Box::new(inbox));
        }
        talk
    }

    /// Every page from one end to the other is what a walk over all positions gives.
    #[track_caller]
    fn check(lists: &Lists, window: Window, limit: usize, is_in: impl Fn(u64) -> bool) {
        let talk = talk();
        let (mut place, mut found) = (window, Vec::new());
        loop {
            let page = talk.find(lists, place, limit);
            assert!(page.seqs.len() <= limit);
            found.extend(page.seqs);
            match page.more {
                Some(seq) if window.newest_first => place.before = seq,
                Some(seq) => place.after = seq,
                None => break,
            }
        }
        let within = |seq: &u64| *seq > window.after.0 && *seq < window.before.0 && is_in(*seq);
        let mut expected: Vec<Seq> = (1..20_000).filter(within).map(Seq).collect();
        if window.newest_first {
            expected.reverse();
        }
        assert_eq!(found, expected, "{lists:?} {window:?} {limit}");
    }

    #[test]
    fn pages_of_lists_and_of_their_intersection_are_whole_in_both_directions() {
        let agent = |name: &str| Some(name.parse().unwrap());
        for newest_first in [true, false] {
            for (after, before) in [(0, u64::MAX), (300, 15_000), (17, 18), (9_999, 10_001)] {
                let window = Window { after: Seq(after), before: Seq(before), newest_first };
                for limit in [1_000, 255, 7] {
                    let sender = Lists { sender: agent("ada"), ..Lists::default() };
                    check(&sender, window, limit, |seq| seq % 2 == 0);
                    let both = Lists { receiver: agent("bob"), ..sender };
                    check(&both, window, limit, |seq| seq % 6 == 0);
                }
            }
            let window = Window { after: Seq::ZERO, before: Seq(u64::MAX), newest_first };
            let nobody = Lists { sender: agent("eve"), ..Lists::default() };
            check(&nobody, window, 10, |_| false);
            assert_eq!(talk().find(&nobody, window, 10).total, Some(0));
        }
    }

    #[test]
    fn what_an_agent_sent_and_got_is_one_list() {
        let (talk, agent) = (talk(), "ada".parse().unwrap());
        let up = Window { after: Seq(3), before: Seq(13), newest_first: false };
        let shown = |window, limit| -> Vec<(u64, bool)> {
            talk.of_agent(&agent, window, limit).into_iter().map(|(seq, sent)| (seq.0, sent)).collect()
        };
        assert_eq!(shown(up, 4), [(4, true), (5, false), (6, true), (8, true)]);
        let down = Window { newest_first: true, ..up };
        assert_eq!(shown(down, 3), [(12, true), (10, true), (10, false)]);
    }
}
