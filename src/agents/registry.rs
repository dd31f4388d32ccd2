//! Which agents of the directory there are, folded from the log's events alone.

use std::collections::{BTreeMap, VecDeque};

use caxton_events::agent::{AgentEvent, AgentStatus, ConfigProblem, ConfigSource};
use caxton_events::{AgentId, CapabilityName, RegistrationId, Seq, Timestamp, WorkspaceId};

/// Earlier versions of one agent that can be named; older ones are in the log by their position.
pub(super) const VERSIONS_MAX: usize = 1_000;
/// How the reason ends for which an agent is not run that is one too many. It is in logs: agents whose reason ends so come
/// back when there is room.
const TOO_MANY: &str = " agents already, which is the limit";

/// An agent of the directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Registered {
    /// Where the text in use stands.
    pub seq: Seq,
    /// When it was loaded.
    pub loaded_at: Timestamp,
    /// The version in the text.
    pub version: String,
    /// The workspace in the text.
    pub workspace: WorkspaceId,
    /// SHA-256 of the text in use.
    pub sha256: String,
    /// The file, relative to the agents directory.
    pub path: String,
    /// While the file has this SHA-256 the version in use stays: it was taken back to.
    pub pinned: Option<String>,
    /// What it does.
    pub status: AgentStatus,
    /// Why.
    pub reason: String,
    /// What it offers.
    pub capabilities: BTreeMap<CapabilityName, Registration>,
}

impl Registered {
    /// SHA-256 that the file has while nothing is to be done.
    pub fn file_sha256(&self) -> &str {
        self.pinned.as_deref().unwrap_or(&self.sha256)
    }

    /// Whether it is not run because there are as many agents as may be.
    pub fn is_kept_out(&self) -> bool {
        self.status == AgentStatus::Error && self.reason.ends_with(TOO_MANY)
    }
}

/// What is said of whoever comes when there are `agents_max` agents.
pub(super) fn too_many(agents_max: usize) -> String {
    format!("there are {agents_max}{TOO_MANY}")
}

/// A capability as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Its number.
    pub id: RegistrationId,
    /// Its version.
    pub version: String,
    /// Its priority.
    pub priority: u16,
    /// Its metadata, JSON as text.
    pub metadata: Option<String>,
}

/// A version that was loaded once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// Where it stands.
    pub seq: Seq,
    /// When it was loaded.
    pub loaded_at: Timestamp,
    /// The version in its text.
    pub version: String,
    /// SHA-256 of its text.
    pub sha256: String,
}

/// A file that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The name in it, where one can be read.
    pub agent: Option<AgentId>,
    /// SHA-256 of its text.
    pub sha256: String,
    /// Why.
    pub problems: Vec<ConfigProblem>,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Registry {
    /// The agents, by name.
    pub agents: BTreeMap<AgentId, Registered>,
    /// Files that are not used, by path.
    pub rejected: BTreeMap<String, Rejection>,
    /// Earlier versions, oldest first; they outlive the agent.
    pub past: BTreeMap<AgentId, VecDeque<Past>>,
}

impl Registry {
    /// Folds one event in.
    pub fn apply(&mut self, seq: Seq, at: Timestamp, event: &AgentEvent) {
        match event {
            AgentEvent::ConfigLoaded { agent, version, workspace, source, path, sha256, .. } => {
                let pinned = match source {
                    ConfigSource::Rollback { file_sha256, .. } => Some(file_sha256.clone()),
                    ConfigSource::Directory | ConfigSource::Request => None,
                };
                let registered = Registered {
                    seq,
                    loaded_at: at,
                    version: version.clone(),
                    workspace: workspace.clone(),
                    sha256: sha256.clone(),
                    path: path.clone(),
                    pinned,
                    status: AgentStatus::Stopped,
                    reason: "not started yet".to_owned(),
                    capabilities: BTreeMap::new(),
                };
                self.load(agent, registered);
            }
            AgentEvent::ConfigRejected { agent, path, sha256, problems } => {
                let rejection =
                    Rejection { agent: agent.clone(), sha256: sha256.clone(), problems: problems.clone() };
                self.rejected.insert(path.clone(), rejection);
            }
            AgentEvent::ConfigRemoved { agent, .. } => _ = self.agents.remove(agent),
            AgentEvent::StatusChanged { agent, status, reason } => {
                if let Some(registered) = self.agents.get_mut(agent) {
                    registered.status = *status;
                    registered.reason.clone_from(reason);
                }
            }
            AgentEvent::CapabilityRegistered {
                registration,
                agent,
                capability,
                version,
                priority,
                metadata,
                ..
            } => {
                if let Some(registered) = self.agents.get_mut(agent) {
                    let (version, metadata) = (version.clone(), metadata.clone());
                    let offered = Registration { id: *registration, version, priority: *priority, metadata };
                    registered.capabilities.insert(capability.clone(), offered);
                }
            }
            AgentEvent::CapabilityUpdated { registration, priority, metadata, .. } => {
                let offers = self.agents.values_mut().flat_map(|agent| agent.capabilities.values_mut());
                for offered in offers.filter(|offered| offered.id == *registration) {
                    offered.priority = *priority;
                    offered.metadata.clone_from(metadata);
                }
            }
            AgentEvent::CapabilityRemoved { registration, agent, capability } => {
                if let Some(registered) = self.agents.get_mut(agent)
                    && registered
                        .capabilities
                        .get(capability)
                        .is_some_and(|offered| offered.id == *registration)
                {
                    registered.capabilities.remove(capability);
                }
            }
            // External agents have no files; how well an agent does is not the directory's business.
            AgentEvent::ExternalRegistered { .. }
            | AgentEvent::HealthChanged { .. }
            | AgentEvent::CircuitChanged { .. } => (),
        }
    }

    /// Puts `registered` in the place of what was loaded before, whose status and capabilities stay.
    fn load(&mut self, agent: &AgentId, mut registered: Registered) {
        if registered.pinned.is_none() {
            self.rejected.remove(&registered.path);
        }
        let past = self.past.entry(agent.clone()).or_default();
        past.push_back(Past {
            seq: registered.seq,
            loaded_at: registered.loaded_at,
            version: registered.version.clone(),
            sha256: registered.sha256.clone(),
        });
        if past.len() > VERSIONS_MAX {
            past.pop_front();
        }
        if let Some(before) = self.agents.remove(agent) {
            registered.status = before.status;
            registered.reason = before.reason;
            registered.capabilities = before.capabilities;
        }
        self.agents.insert(agent.clone(), registered);
    }
}
