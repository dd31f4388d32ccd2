//! What must happen so that the registry is what the directory says: pure, from registry and files to events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use caxton_events::agent::{AgentEvent, AgentStatus, ConfigProblem, ConfigSource};
use caxton_events::{AgentId, RegistrationId};

use super::definition::{Definition, Offer};
use super::fault::whole_file;
use super::registry::{Registered, Registry, too_many};
use super::validator::Checked;

/// A file of the directory as it was last read.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Its text; empty when it is no text.
    pub content: Arc<str>,
    /// What the text turned out to be.
    pub checked: Arc<Checked>,
}

impl Seen {
    fn definition(&self) -> Option<&Definition> {
        self.checked.judgement.definition.as_ref()
    }
}

/// Files by path, relative to the directory.
pub type Files = BTreeMap<String, Seen>;

/// What beside registry and files decides.
pub struct Rules<'a> {
    /// Agents at most.
    pub agents_max: usize,
    /// Draws numbers for registrations.
    pub number: &'a mut dyn FnMut() -> RegistrationId,
    /// Whether an agent outside the server has this name.
    pub is_external: &'a dyn Fn(&AgentId) -> bool,
}

/// The events that bring the registry to the files; none when nothing is to be done.
///
/// A file that cannot be used leaves its agent as it is. Of two files with one name the one that is loaded stays; of
/// two new ones the first by path is loaded. One with the name of an agent outside the server is not loaded. A version that was taken back to stays while its file is the same.
/// Of more agents than may be, those beyond the limit stay loaded and are not run.
pub fn reconcile(registry: &Registry, files: &Files, rules: &mut Rules<'_>) -> Vec<AgentEvent> {
    let owners = owners(registry, files);
    let mut events = Vec::new();
    let mut count = 0;
    for (agent, registered) in &registry.agents {
        if owners.contains_key(agent) {
            count += 1;
        } else {
            events.extend(removal(agent, registered));
        }
    }
    let mut rejections: BTreeMap<&str, Vec<ConfigProblem>> = BTreeMap::new();
    for (path, seen) in files {
        let Some(definition) = seen.definition() else {
            rejections.insert(path, seen.checked.judgement.problems.clone());
            continue;
        };
        let name = &definition.name;
        let owner = owners.get(name).copied();
        if owner != Some(path.as_str()) {
            rejections.insert(path, vec![name_taken(name, path, owner.unwrap_or_default())]);
            continue;
        }
        let registered = registry.agents.get(name);
        let settled = registered.is_some_and(|registered| is_settled(registered, path, seen));
        if settled {
            continue;
        }
        if registered.is_none() && (rules.is_external)(name) {
            rejections.insert(path, vec![name_of_another(name)]);
            continue;
        }
        if registered.is_none() && count >= rules.agents_max {
            rejections.insert(path, vec![no_room(rules.agents_max)]);
            continue;
        }
        count += usize::from(registered.is_none());
        let loading = Loading {
            source: ConfigSource::Directory,
            path,
            sha256: &seen.checked.sha256,
            content: &seen.content,
            start: true,
        };
        events.extend(loaded(registered, definition, &loading, rules.number));
    }
    let moved = by_room(registry, &owners, &events, rules.agents_max);
    events.extend(moved);
    for (path, problems) in rejections {
        let seen = &files[path];
        let known = registry.rejected.get(path);
        if known.is_some_and(|known| known.sha256 == seen.checked.sha256 && known.problems == problems) {
            continue;
        }
        events.push(AgentEvent::ConfigRejected {
            agent: seen.checked.judgement.name.clone(),
            path: path.to_owned(),
            sha256: seen.checked.sha256.clone(),
            problems,
        });
    }
    events
}

/// Whether an agent is one of those beyond the limit, which are not run.
pub fn is_beyond(registry: &Registry, files: &Files, agent: &AgentId, agents_max: usize) -> bool {
    let owners = owners(registry, files);
    let kept = registry.agents.keys().filter(|name| owners.contains_key(*name));
    kept.skip(agents_max).any(|name| name == agent)
}

/// What becomes of agents that were loaded while there was room for more: of those with a file, the ones beyond the limit,
/// in order of name, are not run, and come back where there is room for them. They keep texts, versions and offers.
fn by_room(
    registry: &Registry,
    owners: &BTreeMap<AgentId, &str>,
    events: &[AgentEvent],
    agents_max: usize,
) -> Vec<AgentEvent> {
    let is_started = |name: &AgentId| {
        events.iter().any(|event| {
            matches!(event, AgentEvent::StatusChanged { agent, status: AgentStatus::Running, .. } if agent == name)
        })
    };
    let kept = registry.agents.iter().filter(|(name, _)| owners.contains_key(*name));
    let moved = kept.enumerate().filter_map(|(index, (agent, registered))| {
        let change = if index < agents_max {
            registered.is_kept_out().then(|| (AgentStatus::Running, "there is room for it again".to_owned()))
        } else {
            let reason = too_many(agents_max);
            let runs = matches!(registered.status, AgentStatus::Running | AgentStatus::Draining);
            let is_new = runs || is_started(agent) || registered.is_kept_out();
            (is_new && registered.reason != reason).then_some((AgentStatus::Error, reason))
        };
        let (status, reason) = change?;
        Some(AgentEvent::StatusChanged { agent: agent.clone(), status, reason })
    });
    moved.collect()
}

/// Which file each name belongs to. Names without a file are not in it.
fn owners<'f>(registry: &Registry, files: &'f Files) -> BTreeMap<AgentId, &'f str> {
    let mut owners: BTreeMap<AgentId, &str> = BTreeMap::new();
    for (agent, registered) in &registry.agents {
        let Some((path, seen)) = files.get_key_value(&registered.path) else { continue };
        // A file that cannot be used keeps what was loaded from it; one that has become another agent does not.
        if seen.definition().is_none_or(|definition| definition.name == *agent) {
            owners.insert(agent.clone(), path);
        }
    }
    for (path, seen) in files {
        if let Some(definition) = seen.definition() {
            owners.entry(definition.name.clone()).or_insert(path);
        }
    }
    owners
}

fn is_settled(registered: &Registered, path: &str, seen: &Seen) -> bool {
    let same_text = registered.file_sha256() == seen.checked.sha256;
    // A pinned file that was moved keeps its pin; its new place is seen when it changes.
    same_text && (registered.path == path || registered.pinned.is_some())
}

/// A text that is about to be used.
#[derive(Debug, Clone)]
pub struct Loading<'a> {
    /// Where it came from.
    pub source: ConfigSource,
    /// The file, relative to the directory.
    pub path: &'a str,
    /// SHA-256 of the text.
    pub sha256: &'a str,
    /// The text.
    pub content: &'a str,
    /// Whether a new agent starts at once.
    pub start: bool,
}

/// The events that put `definition` into use in place of `before`.
pub fn loaded(
    before: Option<&Registered>,
    definition: &Definition,
    loading: &Loading<'_>,
    number: &mut dyn FnMut() -> RegistrationId,
) -> Vec<AgentEvent> {
    let agent = &definition.name;
    let mut events = vec![AgentEvent::ConfigLoaded {
        agent: agent.clone(),
        version: definition.version.clone(),
        workspace: definition.workspace.clone(),
        source: loading.source.clone(),
        path: loading.path.to_owned(),
        sha256: loading.sha256.to_owned(),
        content: loading.content.to_owned(),
    }];
    offers(&mut events, before, definition, number);
    // Whoever was stopped by a request stays stopped; what broke is tried again with the new text.
    let status = match before.map(|before| before.status) {
        None if loading.start => Some((AgentStatus::Running, "loaded")),
        None => Some((AgentStatus::Stopped, "it was not to be started")),
        // Another text makes no room.
        Some(AgentStatus::Error) if before.is_some_and(Registered::is_kept_out) => None,
        Some(AgentStatus::Error) => Some((AgentStatus::Running, "loaded again")),
        Some(AgentStatus::Running | AgentStatus::Draining | AgentStatus::Stopped) => None,
    };
    if let Some((status, reason)) = status {
        events.push(AgentEvent::StatusChanged { agent: agent.clone(), status, reason: reason.to_owned() });
    }
    events
}

/// What changes in the capabilities.
fn offers(
    events: &mut Vec<AgentEvent>,
    before: Option<&Registered>,
    definition: &Definition,
    number: &mut dyn FnMut() -> RegistrationId,
) {
    let agent = &definition.name;
    let wanted: BTreeSet<_> =
        definition.capabilities.iter().map(|offer| (&offer.name, &offer.version)).collect();
    for (name, registered) in before.iter().flat_map(|before| &before.capabilities) {
        if !wanted.contains(&(name, &registered.version)) {
            let (agent, capability) = (agent.clone(), name.clone());
            events.push(AgentEvent::CapabilityRemoved { registration: registered.id, agent, capability });
        }
    }
    for Offer { name, version, priority, metadata } in &definition.capabilities {
        let metadata = metadata.as_ref().map(|map| serde_json::Value::Object(map.clone()).to_string());
        let registered = before.and_then(|before| before.capabilities.get(name));
        match registered.filter(|registered| registered.version == *version) {
            Some(same) if same.priority == *priority && same.metadata == metadata => (),
            Some(same) => events.push(AgentEvent::CapabilityUpdated {
                registration: same.id,
                priority: *priority,
                metadata,
                health_check_url: None,
            }),
            None => events.push(AgentEvent::CapabilityRegistered {
                registration: number(),
                agent: agent.clone(),
                capability: name.clone(),
                version: version.clone(),
                priority: *priority,
                metadata,
                health_check_url: None,
            }),
        }
    }
}

/// The events that take an agent out of use.
pub fn removal(agent: &AgentId, registered: &Registered) -> Vec<AgentEvent> {
    let offers = registered.capabilities.iter().map(|(capability, offered)| AgentEvent::CapabilityRemoved {
        registration: offered.id,
        agent: agent.clone(),
        capability: capability.clone(),
    });
    let removed = AgentEvent::ConfigRemoved { agent: agent.clone(), path: registered.path.clone() };
    offers.chain([removed]).collect()
}

fn name_taken(name: &AgentId, path: &str, owner: &str) -> ConfigProblem {
    let reason = format!("{path} and {owner} both define the agent {name}; {owner} is in use");
    let remedy = format!("give the agent in {path} another name, or remove one of the files");
    ConfigProblem { field: "name".to_owned(), ..whole_file(reason, remedy) }
}

fn name_of_another(name: &AgentId) -> ConfigProblem {
    let reason =
        format!("{name} is the name of an agent outside the server, whose inbox this one would take over");
    let remedy = "give the agent in the file another name".to_owned();
    ConfigProblem { field: "name".to_owned(), ..whole_file(reason, remedy) }
}

fn no_room(agents_max: usize) -> ConfigProblem {
    whole_file(too_many(agents_max), "remove another agent's file, or raise agents.max_agents")
}
