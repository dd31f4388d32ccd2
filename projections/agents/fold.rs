//! From records about agents to the registry.

use std::sync::Arc;

use caxton_events::agent::{AgentStatus, Circuit, ConfigSource};
use caxton_events::{AgentEvent, AgentId, Record, WorkspaceId};

use super::{Agent, Config, HealthRow, Origin, Registration, Registry, RejectedField, Rejection};
use crate::talk::changes::{Changes, Table};

impl Registry {
    /// Folds one record in and notes what must be stored. Agents are noted in `changes` by name and written later.
    pub(crate) fn apply(&mut self, record: &Record, event: &AgentEvent, changes: &mut Changes) {
        match event {
            AgentEvent::ExternalRegistered { agent, workspace } => {
                self.known(record, agent, workspace, changes);
            }
            AgentEvent::ConfigLoaded { agent, version, workspace, source, path, sha256, content } => {
                if self.rejections.remove(path).is_some() {
                    changes.remove(Table::Rejections, path);
                }
                let config = Config {
                    seq: record.seq,
                    version: version.clone(),
                    origin: origin(source),
                    path: path.clone(),
                    sha256: sha256.clone(),
                    content: content.clone(),
                    loaded_at: record.recorded_at,
                };
                let row = self.known(record, agent, workspace, changes);
                row.workspace = workspace.clone();
                row.versions.push(record.seq);
                row.config = Some(config);
                row.status.get_or_insert(AgentStatus::Running);
            }
            AgentEvent::ConfigRejected { .. } => self.rejected(record, event, changes),
            AgentEvent::ConfigRemoved { agent, path } => {
                if self.rejections.remove(path).is_some() {
                    changes.remove(Table::Rejections, path);
                }
                if let Some(row) = self.changed(agent, changes) {
                    (row.config, row.status, row.removed) = (None, None, true);
                }
            }
            AgentEvent::StatusChanged { agent, status, reason } => {
                if let Some(row) = self.changed(agent, changes) {
                    row.status = Some(*status);
                    row.status_reason.clone_from(reason);
                }
            }
            AgentEvent::HealthChanged { agent, capability, health, reason } => {
                let found = HealthRow {
                    capability: capability.clone(),
                    health: *health,
                    reason: reason.clone(),
                    at: record.recorded_at,
                };
                if let Some(row) = self.changed(agent, changes) {
                    match row.health.iter_mut().find(|known| known.capability == found.capability) {
                        Some(known) => *known = found,
                        None => row.health.push(found),
                    }
                }
            }
            AgentEvent::CircuitChanged { agent, circuit, failures, until } => {
                if let Some(row) = self.changed(agent, changes) {
                    (row.circuit, row.failures, row.circuit_until) = (*circuit, *failures, *until);
                }
            }
            AgentEvent::CapabilityRegistered { .. }
            | AgentEvent::CapabilityUpdated { .. }
            | AgentEvent::CapabilityRemoved { .. } => self.apply_capability(record, event, changes),
        }
    }

    fn rejected(&mut self, record: &Record, event: &AgentEvent, changes: &mut Changes) {
        let AgentEvent::ConfigRejected { agent, path, sha256, problems } = event else { return };
        let problems = problems.iter().map(|problem| RejectedField {
            line: problem.line,
            column: problem.column,
            field: problem.field.clone(),
            reason: problem.reason.clone(),
            remedy: problem.remedy.clone(),
        });
        let rejection = Rejection {
            agent: agent.clone(),
            sha256: sha256.clone(),
            seq: record.seq,
            at: record.recorded_at,
            problems: problems.collect(),
        };
        changes.put(Table::Rejections, path, &rejection);
        self.rejections.insert(path.clone(), rejection);
    }

    fn apply_capability(&mut self, record: &Record, event: &AgentEvent, changes: &mut Changes) {
        match event {
            AgentEvent::CapabilityRegistered {
                registration,
                agent,
                capability,
                version,
                priority,
                metadata,
                health_check_url,
            } => {
                let row = Registration {
                    id: *registration,
                    agent: agent.clone(),
                    capability: capability.clone(),
                    version: version.clone(),
                    priority: *priority,
                    metadata: metadata.clone(),
                    health_check_url: health_check_url.clone(),
                    seq: record.seq,
                    registered_at: record.recorded_at,
                };
                changes.put(Table::Registrations, &registration.to_string(), &row);
                self.register(row);
            }
            AgentEvent::CapabilityUpdated { registration, priority, metadata, health_check_url } => {
                if let Some(known) = self.registrations.get_mut(registration) {
                    let mut row = Registration::clone(known);
                    row.priority = *priority;
                    row.metadata.clone_from(metadata);
                    row.health_check_url.clone_from(health_check_url);
                    changes.put(Table::Registrations, &registration.to_string(), &row);
                    *known = Arc::new(row);
                    let providers = self.providers.get_mut(&known.capability).into_iter().flatten();
                    for provider in providers.filter(|provider| provider.id == *registration) {
                        *provider = Arc::clone(known);
                    }
                }
            }
            AgentEvent::CapabilityRemoved { registration, capability, .. } => {
                changes.remove(Table::Registrations, &registration.to_string());
                self.registrations.remove(registration);
                if let Some(providers) = self.providers.get_mut(capability) {
                    providers.retain(|known| known.id != *registration);
                    if providers.is_empty() {
                        self.providers.remove(capability);
                    }
                }
            }
            AgentEvent::ExternalRegistered { .. }
            | AgentEvent::ConfigLoaded { .. }
            | AgentEvent::ConfigRejected { .. }
            | AgentEvent::ConfigRemoved { .. }
            | AgentEvent::StatusChanged { .. }
            | AgentEvent::HealthChanged { .. }
            | AgentEvent::CircuitChanged { .. } => (),
        }
    }

    /// The agent, made when it is new; it is no longer removed.
    fn known(
        &mut self,
        record: &Record,
        name: &AgentId,
        workspace: &WorkspaceId,
        changes: &mut Changes,
    ) -> &mut Agent {
        changes.agents.insert(name.clone());
        let key = self.agents.get(name).map_or_else(|| name.apart(), |agent| agent.name.clone());
        let agent = self.agents.entry(key.clone()).or_insert_with(|| {
            Box::new(Agent {
                name: key,
                workspace: workspace.clone(),
                since: record.seq,
                registered_at: record.recorded_at,
                config: None,
                versions: Vec::new(),
                removed: false,
                status: None,
                status_reason: String::new(),
                health: Vec::new(),
                circuit: Circuit::Closed,
                failures: 0,
                circuit_until: None,
            })
        });
        agent.removed = false;
        agent
    }

    fn changed(&mut self, name: &AgentId, changes: &mut Changes) -> Option<&mut Agent> {
        let agent = self.agents.get_mut(name)?;
        changes.agents.insert(name.clone());
        Some(agent)
    }
}

fn origin(source: &ConfigSource) -> Origin {
    match source {
        ConfigSource::Directory => Origin::Directory,
        ConfigSource::Request => Origin::Request,
        ConfigSource::Rollback { to, file_sha256 } => {
            Origin::Rollback { to: *to, file_sha256: file_sha256.clone() }
        }
    }
}
