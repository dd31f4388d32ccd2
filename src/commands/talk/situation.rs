//! What a decision may know: the folded state, and on top of it what is decided but not folded yet.

use std::collections::{HashMap, HashSet};

use caxton_events::agent::{AgentStatus, Circuit};
use caxton_events::limits::MESSAGE_CONTENT_BYTES_MAX;
use caxton_events::{AgentId, CapabilityName, ConversationId, MessageId, RegistrationId, Timestamp};
use caxton_projections::conversations::SYSTEM;
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
}

/// What was decided and not folded yet.
#[derive(Debug, Default)]
pub struct Overlay {
    pub(super) conversations: HashMap<ConversationId, Delta>,
    pub(super) agents: HashSet<AgentId>,
    pub(super) ids: HashSet<MessageId>,
    pub(super) routed: HashMap<CapabilityName, u64>,
    pub(super) load: HashMap<AgentId, u64>,
    pub(super) offers: HashSet<(AgentId, CapabilityName)>,
    pub(super) withdrawn: HashSet<RegistrationId>,
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
    }

    /// Notes that a conversation takes no more messages.
    pub fn close(&mut self, conversation: &ConversationId) {
        self.conversations.entry(conversation.clone()).or_default().ended = true;
    }

    /// Whether a message with this number is under way.
    pub fn holds(&self, id: MessageId) -> bool {
        self.ids.contains(&id)
    }
}

/// A conversation with what is under way.
pub(super) struct Standing {
    pub(super) open: bool,
    pub(super) messages: u64,
    pub(super) messages_max: u32,
    pub(super) participants_max: u32,
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

    /// The conversation, if there is one.
    pub(super) fn conversation(&self, own: &Overlay, id: &ConversationId) -> Option<Standing> {
        let mut standing = self.state.conversations.get(id).map(|folded| Standing {
            open: folded.is_open(),
            messages: folded.messages.len(),
            messages_max: folded.messages_max,
            participants_max: folded.participants_max,
        });
        for delta in self.layers(own).filter_map(|layer| layer.conversations.get(id)) {
            if let Some((participants_max, messages_max)) = delta.opened {
                standing.get_or_insert(Standing { open: true, messages: 0, messages_max, participants_max });
            }
            if let Some(standing) = &mut standing {
                standing.messages += delta.messages;
                standing.open &= !delta.ended;
            }
        }
        standing
    }

    pub(super) fn takes_part(&self, own: &Overlay, id: &ConversationId, agent: &AgentId) -> bool {
        self.state.conversations.get(id).is_some_and(|folded| folded.participants.contains(agent))
            || self
                .layers(own)
                .filter_map(|layer| layer.conversations.get(id))
                .any(|delta| delta.joined.contains(agent))
    }

    pub(super) fn participants(&self, own: &Overlay, id: &ConversationId) -> usize {
        let folded = self.state.conversations.get(id).map_or(&[][..], |folded| &folded.participants);
        let joined = self.layers(own).filter_map(|layer| layer.conversations.get(id));
        let fresh = joined.flat_map(|delta| &delta.joined).filter(|agent| !folded.contains(agent));
        folded.len() + fresh.count()
    }

    pub(super) fn load(&self, own: &Overlay, agent: &AgentId) -> u64 {
        let folded = self
            .state
            .conversations
            .inbox(agent)
            .map_or(0, caxton_projections::conversations::Inbox::waiting);
        folded + self.layers(own).filter_map(|layer| layer.load.get(agent)).sum::<u64>()
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
        let mut providers: Vec<Provider<'a>> = Vec::new();
        let mut others = Vec::new();
        for row in self.state.registry.providers(capability) {
            if self.layers(own).any(|layer| layer.withdrawn.contains(&row.id)) || sender == Some(&row.agent) {
                continue;
            }
            if !fits(&row.version, version) {
                others.push(row.version.clone());
                continue;
            }
            let Some(agent) = self.state.registry.agent(&row.agent) else { continue };
            let in_conversation = conversation.is_some_and(|id| self.takes_part(own, id, &row.agent));
            let closed_off =
                agent.circuit == Circuit::Open && agent.circuit_until.is_none_or(|until| until > self.now);
            let unavailable = match agent.status {
                _ if agent.removed => Some("it was removed"),
                Some(AgentStatus::Stopped) => Some("it is stopped"),
                Some(AgentStatus::Error) => Some("it is in error"),
                Some(AgentStatus::Draining) if !in_conversation => Some("it is draining"),
                _ if closed_off => Some("its circuit is open"),
                Some(AgentStatus::Running | AgentStatus::Draining) | None => None,
            };
            let inbox = self.state.conversations.inbox(&row.agent).filter(|inbox| inbox.answered > 0);
            providers.push(Provider {
                agent: &row.agent,
                version: &row.version,
                priority: row.priority,
                health: agent.health_in(Some(capability)),
                unavailable,
                load: self.load(own, &row.agent),
                response_micros: inbox.map(|inbox| inbox.response_micros).filter(|micros| *micros > 0),
                success: inbox.map_or(1.0, |inbox| 1.0 - inbox.failed as f32 / inbox.answered as f32),
                in_conversation,
            });
        }
        (providers, others)
    }
}
