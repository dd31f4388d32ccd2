//! Who said what when, and who has still to hear it: conversations, inboxes, deadlines, dead letters. Contents stay in
//! the log; here are positions.

mod exchange;
mod find;
mod fold;
mod inbox;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use caxton_events::conversation::{ConversationEnd, DeadLetterReason};
use caxton_events::{AgentId, ConversationId, MessageId, Seq, Timestamp};
use serde::{Deserialize, Serialize};

pub use exchange::{Exchange, Phase};
pub use find::{Found, Lists, Window};
pub use inbox::Inbox;

use crate::agents::{micros, opt_micros};
use crate::by_name::ByName;
use crate::talk::changes::{Changes, List, Taken};
pub use crate::talk::postings::Postings;
use crate::talk::spill::Spill;

/// The name that messages of the server itself bear. It is no agent and has no inbox.
pub const SYSTEM: &str = "system";

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Why.
    pub end: ConversationEnd,
    /// Where that stands.
    pub seq: Seq,
    /// When it was.
    #[serde(with = "micros")]
    pub at: Timestamp,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    /// Its name.
    pub id: ConversationId,
    /// What it is about.
    pub topic: Option<String>,
    /// The interaction protocol it follows.
    pub protocol: Option<String>,
    /// The conversation it came out of.
    pub parent: Option<ConversationId>,
    /// It ends after so long without a message, in milliseconds.
    pub idle_timeout_millis: u64,
    /// It ends after so long altogether, in milliseconds.
    pub life_timeout_millis: u64,
    /// Agents that may take part.
    pub participants_max: u32,
    /// Messages it may hold.
    pub messages_max: u32,
    /// Where it was opened.
    pub opened: Seq,
    /// When that was.
    #[serde(with = "micros")]
    pub opened_at: Timestamp,
    /// Who sent or got a message in it, in that order.
    pub participants: Vec<AgentId>,
    /// When the last message was recorded; when it was opened, while there is none.
    #[serde(with = "micros")]
    pub last_at: Timestamp,
    /// How it ended, if it did.
    pub ending: Option<Ending>,
    /// It is left out of lists unless asked for.
    pub archived: bool,
    /// Messages that wait for an answer, the oldest first; at most [`Exchange::OPEN_MAX`].
    pub exchanges: Vec<Exchange>,
    /// Where its messages stand.
    #[serde(skip)]
    pub messages: Postings,
    #[serde(skip)]
    dirty: bool,
}

impl Conversation {
    /// A copy without the positions, which are stored apart.
    fn row(&self) -> Self {
        Self {
            id: self.id.clone(),
            topic: self.topic.clone(),
            protocol: self.protocol.clone(),
            parent: self.parent.clone(),
            participants: self.participants.clone(),
            exchanges: self.exchanges.clone(),
            messages: Postings::default(),
            ..*self
        }
    }

    /// Whether it takes messages.
    pub const fn is_open(&self) -> bool {
        self.ending.is_none()
    }

    /// When it ends by itself, if nothing is said before.
    pub fn deadline(&self) -> Timestamp {
        self.deadline_with(self.idle_timeout_millis, self.life_timeout_millis)
    }

    /// When it would end by itself with these timeouts.
    pub fn deadline_with(&self, idle_timeout_millis: u64, life_timeout_millis: u64) -> Timestamp {
        let after = |at: Timestamp, millis: u64| {
            Timestamp::from_unix_micros(at.unix_micros().saturating_add(millis.saturating_mul(1_000)))
        };
        after(self.last_at, idle_timeout_millis).min(after(self.opened_at, life_timeout_millis))
    }

    /// Why it ends at [`Conversation::deadline`].
    pub fn end_at_deadline(&self) -> ConversationEnd {
        let life =
            self.opened_at.unix_micros().saturating_add(self.life_timeout_millis.saturating_mul(1_000));
        if self.deadline().unix_micros() == life {
            ConversationEnd::LifeTimeout
        } else {
            ConversationEnd::IdleTimeout
        }
    }

    /// The message that carries this `reply_with` or this number and waits for an answer, the latest first.
    pub fn exchange(&self, word: &str) -> Option<&Exchange> {
        let id = word.parse::<MessageId>().ok();
        self.exchanges.iter().rev().find(|exchange| {
            exchange.reply_with.as_deref() == Some(word) || id.is_some_and(|id| exchange.id == id)
        })
    }
}

/// A message with a deadline that nothing has ended yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// Where the message stands.
    pub sent: Seq,
    /// Its number.
    pub id: MessageId,
    /// Its conversation.
    pub conversation: ConversationId,
    /// An answer is wanted before this moment.
    #[serde(with = "opt_micros")]
    pub reply_by: Option<Timestamp>,
    /// It need not be delivered from this moment on.
    #[serde(with = "opt_micros")]
    pub expires_at: Option<Timestamp>,
    /// Who has not acknowledged it.
    pub receivers: Vec<AgentId>,
}

/// Which of a message's two deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deadline {
    /// `reply_by`.
    Reply,
    /// `expires_at`.
    Expiry,
}

/// A message whose handling failed and is to be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Where it stands.
    pub sent: Seq,
    /// Whose attempt failed.
    pub receiver: AgentId,
    /// How many attempts failed so far.
    pub attempts: u32,
    /// The next attempt is not made before this moment.
    #[serde(with = "micros")]
    pub not_before: Timestamp,
    /// What failed.
    pub error: String,
}

/// A message that a receiver does not get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Where the dead letter stands.
    pub seq: Seq,
    /// Where the message stands.
    pub sent: Seq,
    /// The message's number.
    pub message: MessageId,
    /// Who does not get it; `None` when routing found nobody.
    pub receiver: Option<AgentId>,
    /// Why.
    pub reason: DeadLetterReason,
    /// How many attempts were made.
    pub attempts: u32,
    /// More about it.
    pub detail: String,
    /// When it was given up.
    #[serde(with = "micros")]
    pub at: Timestamp,
    /// The messages it was sent again as.
    pub replayed: Vec<MessageId>,
}

/// Conversations and inboxes.
#[derive(Debug, Default)]
pub struct Conversations {
    /// The rows lie apart, so that the maps stay small: who looks for a name then waits for one row and not for the map.
    pub(crate) all: ByName<ConversationId, Box<Conversation>>,
    /// Their names in the order in which they were opened.
    opened: Vec<(Seq, ConversationId)>,
    pub(crate) inboxes: ByName<AgentId, Box<Inbox>>,
    pub(crate) timers: BTreeMap<Seq, Timer>,
    due: BTreeSet<(Timestamp, Seq, Deadline)>,
    pub(crate) retries: BTreeMap<(Seq, AgentId), Retry>,
    pub(crate) dead_letters: BTreeMap<Seq, DeadLetter>,
    /// Messages by the capability they were for.
    pub(crate) routed: ByName<String, Postings>,
    open: usize,
    messages: u64,
    /// Where full blocks of positions go; none: they stay in memory.
    pub(crate) spill: Option<Arc<Spill>>,
}

impl Conversations {
    /// A conversation by its name.
    pub fn get(&self, id: &ConversationId) -> Option<&Conversation> {
        self.all.get(id).map(Box::as_ref)
    }

    /// Every conversation, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Conversation> {
        self.all.values().map(Box::as_ref)
    }

    /// Those that were opened after `seq`, the oldest first.
    pub fn opened_after(&self, seq: Seq) -> impl Iterator<Item = &Conversation> {
        let start = self.opened.partition_point(|(opened, _)| *opened <= seq);
        self.opened[start..].iter().filter_map(|(_, id)| self.get(id))
    }

    /// Those that were opened before `seq`, the latest first.
    pub fn opened_before(&self, seq: Seq) -> impl Iterator<Item = &Conversation> {
        let end = self.opened.partition_point(|(opened, _)| *opened < seq);
        self.opened[..end].iter().rev().filter_map(|(_, id)| self.get(id))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many are open.
    pub const fn open(&self) -> usize {
        self.open
    }

    /// Messages in all of them.
    pub const fn messages(&self) -> u64 {
        self.messages
    }

    /// The inbox of an agent, once it sent or got something.
    pub fn inbox(&self, agent: &AgentId) -> Option<&Inbox> {
        self.inboxes.get(agent).map(Box::as_ref)
    }

    /// Every inbox, in no order.
    pub fn inboxes(&self) -> impl Iterator<Item = &Inbox> {
        self.inboxes.values().map(Box::as_ref)
    }

    /// Messages with this deadline not after `now`, the earliest first.
    pub fn due(&self, now: Timestamp) -> impl Iterator<Item = (&Timer, Deadline)> {
        let due = self.due.iter().take_while(move |(at, ..)| *at <= now);
        due.filter_map(|(_, sent, which)| Some((self.timers.get(sent)?, *which)))
    }

    /// Whether this deadline of the message is still to come, or came and has no event yet.
    pub fn is_pending(&self, sent: Seq, which: Deadline) -> bool {
        self.timers.get(&sent).is_some_and(|timer| match which {
            Deadline::Reply => timer.reply_by.is_some(),
            Deadline::Expiry => timer.expires_at.is_some(),
        })
    }

    /// The earliest deadline of a message.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, ..)| *at)
    }

    /// The retry that a receiver's message waits for.
    pub fn retry(&self, sent: Seq, receiver: &AgentId) -> Option<&Retry> {
        self.retries.get(&(sent, receiver.clone()))
    }

    /// Every retry that is still to be made.
    pub fn retries(&self) -> impl Iterator<Item = &Retry> {
        self.retries.values()
    }

    /// Every dead letter, by position.
    pub const fn dead_letters(&self) -> &BTreeMap<Seq, DeadLetter> {
        &self.dead_letters
    }

    /// Messages that were routed to this capability so far.
    pub fn routed(&self, capability: &str) -> u64 {
        self.routed.get(capability).map_or(0, Postings::len)
    }

    pub(crate) fn restore_conversation(&mut self, conversation: Conversation) {
        self.open += usize::from(conversation.is_open());
        self.opened.push((conversation.opened, conversation.id.clone()));
        self.all.insert(conversation.id.clone(), Box::new(conversation));
    }

    pub(crate) fn restore_timer(&mut self, timer: Timer) {
        self.due.extend(timer.reply_by.map(|at| (at, timer.sent, Deadline::Reply)));
        self.due.extend(timer.expires_at.map(|at| (at, timer.sent, Deadline::Expiry)));
        self.timers.insert(timer.sent, timer);
    }

    /// Counts what was restored, and puts it in order.
    pub(crate) fn restored(&mut self) {
        self.opened.sort_unstable_by_key(|(opened, _)| *opened);
        self.messages = self.all.values().map(|conversation| conversation.messages.len()).sum();
        let Some(spill) = &self.spill else { return };
        let said = self.all.values_mut().map(|conversation| &mut conversation.messages);
        let heard = self.inboxes.values_mut().flat_map(|inbox| [&mut inbox.messages, &mut inbox.sent]);
        said.chain(heard).chain(self.routed.values_mut()).for_each(|list| list.spill(spill));
    }

    /// The list of positions that a stored block belongs to.
    pub(crate) fn list(&mut self, list: List, owner: &str) -> Option<&mut Postings> {
        match list {
            List::Conversation => {
                let id: ConversationId = owner.parse().ok()?;
                self.all.get_mut(&id).map(|conversation| &mut conversation.messages)
            }
            List::Inbox => {
                let agent: AgentId = owner.parse().ok()?;
                self.inboxes.get_mut(&agent).map(|inbox| &mut inbox.messages)
            }
            List::Sent => {
                let agent: AgentId = owner.parse().ok()?;
                self.inboxes.get_mut(&agent).map(|inbox| &mut inbox.sent)
            }
            List::Routed => Some(self.routed.entry(owner.to_owned()).or_default()),
        }
    }

    /// Copies the rows of all that changed, and lets go what need not be in memory.
    pub(crate) fn take(&mut self, taken: &mut Taken) {
        let changes = &mut taken.changes;
        let spill = self.spill.clone();
        let put = |changes: &mut Changes, list, owner: &str, postings: &mut Postings| {
            changes.postings(list, owner, postings);
            if let Some(spill) = &spill {
                postings.spill(spill);
            }
        };
        for id in std::mem::take(&mut changes.conversations) {
            if let Some(conversation) = self.all.get_mut(&id) {
                conversation.dirty = false;
                put(changes, List::Conversation, id.as_str(), &mut conversation.messages);
                taken.conversations.push(conversation.row());
            }
        }
        for agent in std::mem::take(&mut changes.inboxes) {
            if let Some(inbox) = self.inboxes.get_mut(&agent) {
                inbox.dirty = false;
                put(changes, List::Inbox, agent.as_str(), &mut inbox.messages);
                put(changes, List::Sent, agent.as_str(), &mut inbox.sent);
                taken.inboxes.push(inbox.row());
            }
        }
        for capability in std::mem::take(&mut changes.routed) {
            if let Some(routed) = self.routed.get_mut(&capability) {
                put(changes, List::Routed, &capability, routed);
            }
        }
    }
}
