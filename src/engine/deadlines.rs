//! Deadlines: what time alone brings about, and when it is looked for.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap};

use caxton_events::conversation::ConversationEvent;
use caxton_events::{Clock as _, ConversationId, Draft, Event, Seq, Timestamp};
use caxton_projections::conversations::Deadline;
use caxton_projections::view::Part;

use super::SystemClock;
use super::message_router::{Draw, MessageRouter, forget_folded, system};
use crate::commands::talk::{Overlay, passed};

/// Events that one look at the deadlines records at the most.
const DUE_MAX: usize = 1_024;
/// What is to be recorded is looked at again after so long, in microseconds: the log may have refused it.
const AGAIN_MICROS: u64 = 1_000_000;

/// What is waited for.
#[derive(Default)]
pub(super) struct Deadlines {
    /// When conversations are to be looked at.
    conversations: BinaryHeap<Reverse<(Timestamp, ConversationId)>>,
    /// Deadlines of messages whose events were handed over.
    fired: HashMap<(Seq, Deadline), Fired>,
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
        let open = state.conversations.iter().filter(|conversation| conversation.is_open());
        self.deadlines.conversations.extend(open.map(|row| Reverse((row.deadline(), row.id.clone()))));
    }

    /// Watches the deadlines of what is opened or extended.
    pub(super) fn follow(&mut self, drafts: &[Draft]) {
        for draft in drafts {
            if let Event::Conversation(
                ConversationEvent::Opened { conversation, idle_timeout_millis, life_timeout_millis, .. }
                | ConversationEvent::Extended { conversation, idle_timeout_millis, life_timeout_millis },
            ) = &draft.event
            {
                let millis = *idle_timeout_millis.min(life_timeout_millis);
                let now = SystemClock.now().unix_micros();
                let at = Timestamp::from_unix_micros(now.saturating_add(millis.saturating_mul(1_000)));
                self.deadlines.conversations.push(Reverse((at, conversation.clone())));
            }
        }
    }

    /// Records what time alone has brought about by `now`. What the log refuses is tried again.
    pub(super) fn look_at_deadlines(&mut self, now: Timestamp) {
        // A fold that stands still does not show what was recorded: everything would come a second time.
        if self.positions.get(Part::Talk).stopped.is_some() {
            return;
        }
        let talk = self.talk.clone();
        let state = talk.read();
        forget_folded(&mut self.under_way, &mut self.spare, (state.mark, self.handed));
        let again = Timestamp::from_unix_micros(now.unix_micros().saturating_add(AGAIN_MICROS));
        let group = self.handed + 1;
        let Deadlines { conversations, fired } = &mut self.deadlines;
        // What still waits for its event when its group is folded was refused.
        fired.retain(|(sent, which), fired| {
            state.conversations.is_pending(*sent, *which) && (fired.group > state.mark || fired.again > now)
        });
        let mut drafts = Vec::new();
        for (timer, which) in state.conversations.due(now) {
            if drafts.len() >= DUE_MAX {
                break;
            }
            let Entry::Vacant(place) = fired.entry((timer.sent, which)) else { continue };
            place.insert(Fired { group, again });
            let events = passed(&state.conversations, timer, which).into_iter();
            drafts.extend(events.map(|event| system(timer.conversation.as_str().to_owned(), event)));
        }
        let mut own = Overlay::default();
        let mut later = Vec::new();
        while let Some(Reverse((at, _))) = conversations.peek()
            && *at <= now
            && drafts.len() < DUE_MAX
        {
            let Some(Reverse((_, id))) = conversations.pop() else { break };
            match state.conversations.get(&id) {
                // Opened, and not folded yet. While nothing is under way there is none: it was refused, or erased.
                None if self.under_way.is_empty() => (),
                None => later.push(Reverse((again, id))),
                Some(row) if !row.is_open() => (),
                Some(row) if row.deadline() > now => later.push(Reverse((row.deadline(), id))),
                Some(row) => {
                    if !self.under_way.iter().any(|layer| layer.ends(&id)) {
                        own.close(&id);
                        let (conversation, end) = (id.clone(), row.end_at_deadline());
                        let event = ConversationEvent::Closed { conversation, end };
                        drafts.push(system(id.as_str().to_owned(), event));
                    }
                    later.push(Reverse((again, id)));
                }
            }
        }
        drop(state);
        self.deadlines.conversations.extend(later);
        if !drafts.is_empty() {
            self.hand_over(Draw::of_time(drafts, own));
        }
    }
}
