//! The registry: who there is, what each can do, how each is.

mod fold;
mod serial;

use std::collections::BTreeMap;
use std::sync::Arc;

use caxton_events::agent::{AgentStatus, Circuit, Health};
use caxton_events::{AgentId, CapabilityName, RegistrationId, Seq, Timestamp, WorkspaceId};
use serde::{Deserialize, Serialize};

pub(crate) use serial::{micros, opt_micros};

use crate::by_name::ByName;
use crate::talk::changes::Taken;

/// Health checks and circuits may say so much about a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthRow {
    /// In what; `None`: in everything.
    pub capability: Option<CapabilityName>,
    /// How it is.
    pub health: Health,
    /// How that was found out.
    pub reason: String,
    /// Since when.
    #[serde(with = "micros")]
    pub at: Timestamp,
}

/// Where the text of an agent came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A file of the agents directory.
    Directory,
    /// A request.
    Request,
    /// An earlier version, taken back.
    Rollback {
        /// Where that version stands.
        to: Seq,
        /// It stays until the file has another SHA-256 than this one.
        file_sha256: String,
    },
}

/// The text an agent runs by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Where it stands in the log.
    pub seq: Seq,
    /// The version in the file.
    pub version: String,
    /// Where it came from.
    pub origin: Origin,
    /// The file, relative to the agents directory.
    pub path: String,
    /// SHA-256 of the text, lower-case hex.
    pub sha256: String,
    /// The whole text.
    pub content: String,
    /// When it was loaded.
    #[serde(with = "micros")]
    pub loaded_at: Timestamp,
}

/// An agent, external or by its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its name.
    pub name: AgentId,
    /// The workspace it works in.
    pub workspace: WorkspaceId,
    /// The record that first named it.
    pub since: Seq,
    /// When that was.
    #[serde(with = "micros")]
    pub registered_at: Timestamp,
    /// The text it runs by; `None` for an external agent, and for one whose file is gone.
    pub config: Option<Config>,
    /// Where every text it ever ran by stands, ascending: what a rollback can name.
    pub versions: Vec<Seq>,
    /// Its file is gone and nothing else speaks for it.
    pub removed: bool,
    /// Its status; an external agent has none.
    pub status: Option<AgentStatus>,
    /// Why.
    pub status_reason: String,
    /// How it was found to be, one row a capability and one for everything.
    pub health: Vec<HealthRow>,
    /// Whether messages are let through.
    pub circuit: Circuit,
    /// Failures in a row when the circuit last changed.
    pub failures: u32,
    /// An open circuit is tried again from this moment on.
    #[serde(with = "opt_micros")]
    pub circuit_until: Option<Timestamp>,
}

impl Agent {
    /// Whether it runs by a file.
    pub const fn is_config(&self) -> bool {
        self.config.is_some()
    }

    /// How it is in `capability`: what was found for it, or for everything, else healthy.
    pub fn health_in(&self, capability: Option<&CapabilityName>) -> Health {
        let row = |wanted: Option<&CapabilityName>| {
            self.health.iter().find(|row| row.capability.as_ref() == wanted).map(|row| row.health)
        };
        let all = row(None).unwrap_or(Health::Healthy);
        capability.and_then(|name| row(Some(name))).map_or(all, |own| own.max(all))
    }
}

/// A file that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The name in the file, where it has one that can be read.
    pub agent: Option<AgentId>,
    /// SHA-256 of the text, lower-case hex.
    pub sha256: String,
    /// Where the refusal stands.
    pub seq: Seq,
    /// When it was.
    #[serde(with = "micros")]
    pub at: Timestamp,
    /// What is wrong with it.
    pub problems: Vec<RejectedField>,
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedField {
    /// Line, from 1; 0 where there is none.
    pub line: u32,
    /// Column, from 1; 0 where there is none.
    pub column: u32,
    /// The key, dotted.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// An agent's offer of a capability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its number.
    pub id: RegistrationId,
    /// Who offers it.
    pub agent: AgentId,
    /// What it offers.
    pub capability: CapabilityName,
    /// The version of what it offers.
    pub version: String,
    /// 0 to 1,000; higher is preferred.
    pub priority: u16,
    /// A JSON object as text, or nothing.
    pub metadata: Option<String>,
    /// Where its health can be asked for.
    pub health_check_url: Option<String>,
    /// The record that registered it.
    pub seq: Seq,
    /// When that was.
    #[serde(with = "micros")]
    pub registered_at: Timestamp,
}

/// All agents with what they offer.
#[derive(Debug, Default)]
pub struct Registry {
    /// The rows lie apart, so that the map stays small.
    pub(crate) agents: ByName<AgentId, Box<Agent>>,
    pub(crate) rejections: BTreeMap<String, Rejection>,
    pub(crate) registrations: BTreeMap<RegistrationId, Arc<Registration>>,
    /// The same rows, in the order they were made.
    pub(crate) providers: BTreeMap<CapabilityName, Vec<Arc<Registration>>>,
}

impl Registry {
    /// An agent by its name, also one that was removed.
    pub fn agent(&self, name: &AgentId) -> Option<&Agent> {
        self.agents.get(name).map(Box::as_ref)
    }

    /// Whether messages can be addressed to this name.
    pub fn is_known(&self, name: &AgentId) -> bool {
        self.agents.get(name).is_some_and(|agent| !agent.removed)
    }

    /// The names of all agents, also of those that were removed, in no order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &AgentId> {
        self.agents.keys()
    }

    /// Every agent that was not removed, by name.
    pub fn agents(&self) -> Vec<&Agent> {
        let mut agents: Vec<&Agent> =
            self.agents.values().map(Box::as_ref).filter(|agent| !agent.removed).collect();
        agents.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        agents
    }

    /// How many agents from files and how many others there are.
    pub fn count(&self) -> (usize, usize) {
        let present = || self.agents.values().filter(|agent| !agent.removed);
        let config = present().filter(|agent| agent.is_config()).count();
        (config, present().count() - config)
    }

    /// The last refusal of each file that is still refused, by file.
    pub const fn rejections(&self) -> &BTreeMap<String, Rejection> {
        &self.rejections
    }

    /// The last refusal that concerns an agent: of its file, or of a file that bears its name.
    pub fn rejection_of(&self, agent: &Agent) -> Option<(&String, &Rejection)> {
        let own = agent.config.as_ref().and_then(|config| self.rejections.get_key_value(&config.path));
        own.or_else(|| {
            let named = self.rejections.iter();
            named.filter(|(_, row)| row.agent.as_ref() == Some(&agent.name)).max_by_key(|(_, row)| row.seq)
        })
    }

    /// A registration by its number.
    pub fn registration(&self, id: RegistrationId) -> Option<&Registration> {
        self.registrations.get(&id).map(Arc::as_ref)
    }

    /// Every registration, by number.
    pub fn registrations(&self) -> impl Iterator<Item = &Registration> {
        self.registrations.values().map(Arc::as_ref)
    }

    /// The registrations of one agent, by number.
    pub fn registrations_of<'a>(&'a self, agent: &'a AgentId) -> impl Iterator<Item = &'a Registration> {
        self.registrations().filter(move |row| row.agent == *agent)
    }

    /// The registrations of one capability, in the order they were made.
    pub fn providers<'a>(
        &'a self,
        capability: &CapabilityName,
    ) -> impl ExactSizeIterator<Item = &'a Registration> {
        self.providers.get(capability).map_or(&[][..], Vec::as_slice).iter().map(Arc::as_ref)
    }

    /// Every capability that somebody offers, with how many do, by name.
    pub fn capabilities(&self) -> impl Iterator<Item = (&CapabilityName, usize)> {
        self.providers.iter().map(|(name, rows)| (name, rows.len()))
    }

    pub(crate) fn restore_agent(&mut self, agent: Agent) {
        self.agents.insert(agent.name.clone(), Box::new(agent));
    }

    /// Rows must come in the order they were made.
    pub(crate) fn restore_registrations(&mut self, mut rows: Vec<Registration>) {
        rows.sort_unstable_by_key(|row| (row.seq, row.id));
        for row in rows {
            self.register(row);
        }
    }

    pub(crate) fn register(&mut self, row: Registration) {
        let row = Arc::new(row);
        self.providers.entry(row.capability.clone()).or_default().push(Arc::clone(&row));
        self.registrations.insert(row.id, row);
    }

    /// Copies the rows of all that changed.
    pub(crate) fn take(&self, taken: &mut Taken) {
        let names = taken.changes.agents.drain();
        taken.agents.extend(names.filter_map(|name| self.agent(&name).cloned()));
    }
}
