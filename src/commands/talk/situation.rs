//! What a decision may know: the folded state, and on top of it what is decided but not folded yet.

use caxton_events::agent::{AgentStatus, Circuit};
use caxton_events::conversation::Strategy;
use caxton_events::limits::MESSAGE_CONTENT_BYTES_MAX;
use caxton_events::{
    AgentEvent, AgentId, CapabilityName, ConversationEvent, ConversationId, Draft, Event, MessageId,
    RegistrationId, Seq, Timestamp,
};
use caxton_projections::by_name::{ByName, NameSet};
use caxton_projections::conversations::{Conversation, Inbox, SYSTEM};
use caxton_projections::talk::TalkState;

use super::routing::{Provider, fits};

/// Limits of conversations and messages, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// A conversation ends after so long without a message, in milliseconds.
    pub idle_timeout_millis: u64,
    /// A conversation ends after so long altogether, in milliseconds.
    pub life_timeout_millis: u64,
    /// Agents of one conversation.
    pub participants_max: u32,
    /// Messages of one conversation.
    pub messages_max: u32,
    /// Messages of one inbox that are not done with.
    pub inbox_max: u64,
    /// Largest content of a message, in bytes; at most [`MESSAGE_CONTENT_BYTES_MAX`].
    pub content_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            idle_timeout_millis: 24 * 3_600_000,
            life_timeout_millis: 7 * 24 * 3_600_000,
            participants_max: 100,
            messages_max: u32::MAX,
            inbox_max: 1_000_000,
            content_bytes_max: MESSAGE_CONTENT_BYTES_MAX,
        }
    }
}

/// A conversation's part in what is not folded yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Delta {
    /// It is opened here, with these limits.
    pub(super) opened: Option<(u32, u32)>,
    pub(super) messages: u64,
    pub(super) joined: Vec<AgentId>,
    pub(super) ended: bool,
    /// It gets other timeouts.
    pub(super) extended: bool,
}

/// What was decided and not folded yet.
#[derive(Debug, Default)]
pub struct Overlay {
    pub(super) conversations: ByName<ConversationId, Delta>,
    pub(super) agents: NameSet<AgentId>,
    pub(super) ids: NameSet<MessageId>,
    pub(super) routed: ByName<CapabilityName, u64>,
    pub(super) load: ByName<AgentId, u64>,
    pub(super) offers: NameSet<(AgentId, CapabilityName)>,
    pub(super) withdrawn: NameSet<RegistrationId>,
    changed: NameSet<RegistrationId>,
    replayed: NameSet<Seq>,
}

impl Overlay {
    /// Takes over what one request decided.
    pub fn absorb(&mut self, other: &mut Self) {
        for (id, delta) in other.conversations.drain() {
            let known = self.conversations.entry(id).or_default();
            known.opened = known.opened.or(delta.opened);
            known.messages += delta.messages;
            known.joined.extend(delta.joined);
            known.ended |= delta.ended;
            known.extended |= delta.extended;
        }
        self.agents.extend(other.agents.drain());
        self.ids.extend(other.ids.drain());
        for (capability, count) in other.routed.drain() {
            *self.routed.entry(capability).or_default() += count;
        }
        for (agent, count) in other.load.drain() {
            *self.load.entry(agent).or_default() += count;
        }
        self.offers.extend(other.offers.drain());
        self.withdrawn.extend(other.withdrawn.drain());
        self.changed.extend(other.changed.drain());
        self.replayed.extend(other.replayed.drain());
    }

    /// Forgets what a refused request would have done.
    pub fn clear(&mut self) {
        self.conversations.clear();
        self.agents.clear();
        self.ids.clear();
        self.routed.clear();
        self.load.clear();
        self.offers.clear();
        self.withdrawn.clear();
        self.changed.clear();
        self.replayed.clear();
    }

    /// Notes that a conversation takes no more messages.
    pub fn close(&mut self, conversation: &ConversationId) {
        self.conversations.entry(conversation.clone()).or_default().ended = true;
    }

    /// Notes which offers and conversations get other properties by these events. Each such event has all of them, also those that
    /// nobody named: who fills these in has to see the ones before it.
    pub fn change(&mut self, drafts: &[Draft]) {
        for draft in drafts {
            if let Event::Agent(AgentEvent::CapabilityUpdated { registration, .. }) = &draft.event {
                self.changed.insert(*registration);
            } else if let Event::Conversation(ConversationEvent::Extended { conversation, .. }) = &draft.event
            {
                self.conversations.entry(conversation.clone()).or_default().extended = true;
            }
        }
    }

    /// Notes that the message of a dead letter is sent again.
    pub fn replay(&mut self, dead_letter: Seq) {
        self.replayed.insert(dead_letter);
    }

    /// Whether a message with this number is under way.
    pub fn holds(&self, id: MessageId) -> bool {
        self.ids.contains(&id)
    }

    /// Whether an agent becomes known.
    pub fn introduces(&self, agent: &AgentId) -> bool {
        self.agents.contains(agent)
    }

    /// Whether a conversation ends.
    pub fn ends(&self, conversation: &ConversationId) -> bool {
        self.conversations.get(conversation).is_some_and(|delta| delta.ended)
    }

    /// Whether a conversation gets other timeouts.
    pub fn extends(&self, conversation: &ConversationId) -> bool {
        self.conversations.get(conversation).is_some_and(|delta| delta.extended)
    }

    /// Whether an offer gets other properties.
    pub fn changes(&self, registration: RegistrationId) -> bool {
        self.changed.contains(&registration)
    }

    /// Whether the message of a dead letter is sent again.
    pub fn replays(&self, dead_letter: Seq) -> bool {
        self.replayed.contains(&dead_letter)
    }
}

/// A conversation with what is under way.
pub(super) struct Standing<'a> {
    exists: bool,
    pub(super) open: bool,
    pub(super) messages: u64,
    pub(super) messages_max: u32,
    pub(super) participants_max: u32,
    participants: &'a [AgentId],
    /// Who joined what is under way; a copy of the references, so that each is looked up once a message.
    joined: Vec<&'a AgentId>,
}

impl Standing<'_> {
    pub(super) fn takes_part(&self, agent: &AgentId) -> bool {
        self.participants.contains(agent) || self.joined.contains(&agent)
    }

    pub(super) fn participants(&self) -> usize {
        self.participants.len()
            + self.joined.iter().filter(|agent| !self.participants.contains(agent)).count()
    }
}

/// Who is asked for.
pub(super) struct Ask<'a> {
    pub(super) capability: &'a CapabilityName,
    pub(super) version: Option<&'a str>,
    /// It is none of its own providers.
    pub(super) sender: Option<&'a AgentId>,
    pub(super) standing: Option<&'a Standing<'a>>,
    /// Only what this one looks at is found out; `None`: everything.
    pub(super) strategy: Option<Strategy>,
}

/// The present as a decision sees it.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// What is folded.
    pub state: &'a TalkState,
    /// What is under way, the oldest first.
    pub under_way: &'a [Overlay],
    /// The present moment.
    pub now: Timestamp,
    /// The limits.
    pub settings: &'a Settings,
}

impl<'a> Situation<'a> {
    fn layers<'b>(&'b self, own: &'b Overlay) -> impl Iterator<Item = &'b Overlay> {
        self.under_way.iter().chain(std::iter::once(own))
    }

    pub(super) fn is_known(&self, own: &Overlay, agent: &AgentId) -> bool {
        self.state.registry.is_known(agent)
            || agent.as_str() == SYSTEM
            || self.layers(own).any(|layer| !layer.agents.is_empty() && layer.agents.contains(agent))
    }

    /// Whether an offer is taken back.
    pub(super) fn is_withdrawn(&self, own: &Overlay, registration: RegistrationId) -> bool {
        self.layers(own).any(|layer| !layer.withdrawn.is_empty() && layer.withdrawn.contains(&registration))
    }

    /// The conversation, if there is one.
    pub(super) fn conversation<'b>(&'b self, own: &'b Overlay, id: &ConversationId) -> Option<Standing<'b>> {
        Some(self.standing(own, id)).filter(|standing| standing.exists)
    }

    /// The conversation as it stands, also when there is none.
    fn standing<'b>(&'b self, own: &'b Overlay, id: &ConversationId) -> Standing<'b> {
        let folded = self.state.conversations.get(id);
        let mut standing = Standing {
            exists: folded.is_some(),
            open: folded.is_some_and(Conversation::is_open),
            messages: folded.map_or(0, |folded| folded.messages.len()),
            messages_max: folded.map_or(0, |folded| folded.messages_max),
            participants_max: folded.map_or(0, |folded| folded.participants_max),
            participants: folded.map_or(&[], |folded| &folded.participants),
            joined: Vec::new(),
        };
        for delta in self.layers(own).filter_map(|layer| layer.conversations.get(id)) {
            if let Some((participants_max, messages_max)) = delta.opened
                && !standing.exists
            {
                (standing.exists, standing.open) = (true, true);
                (standing.participants_max, standing.messages_max) = (participants_max, messages_max);
            }
            if standing.exists {
                standing.messages += delta.messages;
                standing.open &= !delta.ended;
            }
            standing.joined.extend(&delta.joined);
        }
        standing
    }

    pub(super) fn load(&self, own: &Overlay, agent: &AgentId) -> u64 {
        self.state.conversations.inbox(agent).map_or(0, Inbox::waiting) + self.loading(own, agent)
    }

    /// Messages to an agent that are under way.
    fn loading(&self, own: &Overlay, agent: &AgentId) -> u64 {
        self.layers(own).filter_map(|layer| layer.load.get(agent)).sum()
    }

    pub(super) fn turn(&self, own: &Overlay, capability: &CapabilityName) -> u64 {
        let under_way = self.layers(own).filter_map(|layer| layer.routed.get(capability)).sum::<u64>();
        self.state.conversations.routed(capability.as_str()) + under_way
    }

    /// Who offers a capability in a version, as routing sees them; the sender itself is none of them. Also the versions
    /// that were passed over.
    pub fn providers(
        &self,
        own: &Overlay,
        capability: &CapabilityName,
        version: Option<&str>,
        sender: Option<&AgentId>,
        conversation: Option<&ConversationId>,
    ) -> (Vec<Provider<'a>>, Vec<String>) {
        let standing = conversation.map(|id| self.standing(own, id));
        self.candidates(
            own,
            &Ask { capability, version, sender, standing: standing.as_ref(), strategy: None },
        )
    }

    /// The same, as far as it decides: what is not found out stays at zero, or `false`.
    pub(super) fn candidates(&self, own: &Overlay, ask: &Ask<'_>) -> (Vec<Provider<'a>>, Vec<String>) {
        let familiar = ask.strategy.is_none_or(|strategy| strategy == Strategy::ContextContinuity);
        // Inboxes change with each message on the thread that folds: looking at one waits for the other core.
        let weighed = ask
            .strategy
            .is_none_or(|strategy| !matches!(strategy, Strategy::RoundRobin | Strategy::Broadcast));
        let rows = self.state.registry.providers(ask.capability);
        let mut providers: Vec<Provider<'a>> = Vec::with_capacity(rows.len());
        let mut others = Vec::new();
        for row in rows {
            if ask.sender == Some(&row.agent) || self.is_withdrawn(own, row.id) {
                continue;
            }
            if !fits(&row.version, ask.version) {
                others.push(row.version.clone());
                continue;
            }
            let Some(agent) = self.state.registry.agent(&row.agent) else { continue };
            let takes_part = || ask.standing.is_some_and(|standing| standing.takes_part(&row.agent));
            let closed_off =
                agent.circuit == Circuit::Open && agent.circuit_until.is_none_or(|until| until > self.now);
            let unavailable = match agent.status {
                _ if agent.removed => Some("it was removed"),
                Some(AgentStatus::Stopped) => Some("it is stopped"),
                Some(AgentStatus::Error) => Some("it is in error"),
                Some(AgentStatus::Draining) if !takes_part() => Some("it is draining"),
                _ if closed_off => Some("its circuit is open"),
                Some(AgentStatus::Running | AgentStatus::Draining) | None => None,
            };
            let inbox = if weighed { self.state.conversations.inbox(&row.agent) } else { None };
            let answering = inbox.filter(|inbox| inbox.answered > 0);
            providers.push(Provider {
                agent: &row.agent,
                version: &row.version,
                priority: row.priority,
                health: agent.health_in(Some(ask.capability)),
                unavailable,
                load: if weighed {
                    inbox.map_or(0, Inbox::waiting) + self.loading(own, &row.agent)
                } else {
                    0
                },
                response_micros: answering.map(|inbox| inbox.response_micros).filter(|micros| *micros > 0),
                success: answering.map_or(1.0, |inbox| 1.0 - inbox.failed as f32 / inbox.answered as f32),
                in_conversation: familiar && takes_part(),
            });
        }
        (providers, others)
    }
}
