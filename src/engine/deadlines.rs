//! Deadlines: what time alone brings about, and when it is looked for.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};

use caxton_events::conversation::ConversationEvent;
use caxton_events::{Clock as _, ConversationId, Draft, Event, Seq, Timestamp};
use caxton_projections::by_name::ByName;
use caxton_projections::conversations::{Deadline, SYSTEM};
use caxton_projections::view::Part;

use super::SystemClock;
use super::message_router::{Draw, MessageRouter, forget_folded, system};
use crate::commands::talk::{Overlay, passed};

/// Events that one look at the deadlines records at the most.
const DUE_MAX: usize = 1_024;
/// Times of no account that are kept, beside as many as there are others.
const VOID_MAX: usize = 1_024;
/// What is to be recorded is looked at again after so long, in microseconds: the log may have refused it.
const AGAIN_MICROS: u64 = 1_000_000;

/// What is waited for.
#[derive(Default)]
pub(super) struct Deadlines {
    /// When each conversation is looked at next.
    next: ByName<ConversationId, Timestamp>,
    /// The same by time. What says another time than `next` is of no account any more.
    by_time: BinaryHeap<Reverse<(Timestamp, ConversationId)>>,
    /// Deadlines of messages whose events were handed over.
    fired: HashMap<(Seq, Deadline), Fired>,
}

impl Deadlines {
    /// The conversation is looked at at this moment, unless it is earlier.
    fn watch(&mut self, id: &ConversationId, at: Timestamp) {
        match self.next.get_mut(id) {
            Some(known) if *known <= at => return,
            Some(known) => *known = at,
            None => _ = self.next.insert(id.clone(), at),
        }
        self.by_time.push(Reverse((at, id.clone())));
        if self.by_time.len() > 2 * self.next.len() + VOID_MAX {
            self.by_time = self.next.iter().map(|(id, at)| Reverse((*at, id.clone()))).collect();
        }
    }

    /// The next conversation that is to be looked at by `now`. It is watched no longer.
    fn due(&mut self, now: Timestamp) -> Option<ConversationId> {
        while self.by_time.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Reverse((at, id)) = self.by_time.pop()?;
            if self.next.get(&id) == Some(&at) {
                self.next.remove(&id);
                return Some(id);
            }
        }
        None
    }

    /// How many times are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.by_time.len()
    }
}

/// An event that was handed over.
struct Fired {
    /// Number of its group.
    group: u64,
    /// It is not tried again before this moment.
    again: Timestamp,
}

impl MessageRouter {
    /// Watches the deadlines of all that is open.
    pub(super) fn watch_open(&mut self) {
        let talk = self.talk.clone();
        let state = talk.read();
        for row in state.conversations.iter().filter(|row| row.is_open()) {
            self.deadlines.watch(&row.id, row.deadline());
        }
    }

    /// Watches the deadlines of what is opened or extended.
    pub(super) fn follow(&mut self, drafts: &[Draft]) {
        for draft in drafts {
            if let Event::Conversation(
                ConversationEvent::Opened { conversation, idle_timeout_millis, life_timeout_millis, .. }
                | ConversationEvent::Extended { conversation, idle_timeout_millis, life_timeout_millis },
            ) = &draft.event
            {
                let is_new = matches!(draft.event, Event::Conversation(ConversationEvent::Opened { .. }));
                // A turn that sets the idle time is about to answer: what its message waited before does not end the conversation.
                let is_of_turn = draft.actor == SYSTEM;
                let timeouts = (*idle_timeout_millis, *life_timeout_millis);
                let at = (!is_new && !is_of_turn).then(|| self.ends_with(conversation, timeouts)).flatten();
                let at = at.unwrap_or_else(|| {
                    let millis = timeouts.0.min(timeouts.1);
                    let now = SystemClock.now().unix_micros();
                    Timestamp::from_unix_micros(now.saturating_add(millis.saturating_mul(1_000)))
                });
                self.deadlines.watch(conversation, at);
            }
        }
    }

    /// When a conversation that is there ends with other timeouts: they count from its last message and from its beginning.
    fn ends_with(&self, id: &ConversationId, (idle, life): (u64, u64)) -> Option<Timestamp> {
        let state = self.talk.read();
        state.conversations.get(id).map(|row| row.deadline_with(idle, life))
    }

    /// Records what time alone has brought about by `now`. What the log refuses is tried again. Conversations that are being
    /// erased are passed over: the log takes nothing of them, however long that lasts.
    pub(super) fn look_at_deadlines(&mut self, now: Timestamp) {
        // A fold that stands still does not show what was recorded: everything would come a second time.
        if self.positions.standstill(Part::Talk).is_some() {
            return;
        }
        let held = self.log.held_conversations();
        let talk = self.talk.clone();
        let state = talk.read();
        forget_folded(&mut self.under_way, &mut self.spare, (state.mark, self.handed));
        let again = Timestamp::from_unix_micros(now.unix_micros().saturating_add(AGAIN_MICROS));
        let group = self.handed + 1;
        let fired = &mut self.deadlines.fired;
        // What still waits for its event when its group is folded was refused.
        fired.retain(|(sent, which), fired| {
            state.conversations.is_pending(*sent, *which) && (fired.group > state.mark || fired.again > now)
        });
        let mut drafts = Vec::new();
        for (timer, which) in state.conversations.due(now) {
            if drafts.len() >= DUE_MAX {
                break;
            }
            if held.contains(&timer.conversation) {
                continue;
            }
            let Entry::Vacant(place) = fired.entry((timer.sent, which)) else { continue };
            place.insert(Fired { group, again });
            let events = passed(&state.conversations, timer, which).into_iter();
            drafts.extend(events.map(|event| system(timer.conversation.as_str().to_owned(), event)));
        }
        let mut own = Overlay::default();
        let mut later = Vec::new();
        while drafts.len() < DUE_MAX
            && let Some(id) = self.deadlines.due(now)
        {
            match state.conversations.get(&id) {
                // Opened, and not folded yet. While nothing is under way there is none: it was refused, or erased.
                None if self.under_way.is_empty() => (),
                None => later.push((again, id)),
                Some(row) if !row.is_open() => (),
                Some(row) if row.deadline() > now => {
                    // Other timeouts may be under way.
                    let is_settled = self.under_way.is_empty();
                    later.push((if is_settled { row.deadline() } else { row.deadline().min(again) }, id));
                }
                Some(_) if held.contains(&id) => later.push((again, id)),
                Some(row) => {
                    if !own.ends(&id) && !self.under_way.iter().any(|layer| layer.ends(&id)) {
                        own.close(&id);
                        let (conversation, end) = (id.clone(), row.end_at_deadline());
                        let event = ConversationEvent::Closed { conversation, end };
                        drafts.push(system(id.as_str().to_owned(), event));
                    }
                    later.push((again, id));
                }
            }
        }
        drop(state);
        for (at, id) in later {
            self.deadlines.watch(&id, at);
        }
        if !drafts.is_empty() {
            self.hand_over(Draw::of_time(drafts, own));
        }
    }
}
