//! What is said of an agent, and why a wish was not granted.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::super::problem::{Problem, shortened};
use super::super::refusals::internal;
use super::complaint;
use crate::agents::limits::Limits;
use crate::agents::{AgentDirectory, DirectoryError, LoadedAgent, RejectedFile, Roster, report};
use crate::config::format_duration;

/// The agent in a line.
pub(super) fn summary(agent: &LoadedAgent) -> Value {
    let registered = &agent.registered;
    let definition = agent.definition.as_deref();
    json!({
        "agent_id": agent.name,
        "id": agent.name,
        "name": agent.name,
        "version": registered.version,
        "status": registered.status.as_str(),
        "status_reason": registered.reason,
        "capabilities": registered.capabilities.keys().collect::<Vec<_>>(),
        "workspace": registered.workspace,
        "deployed_at": registered.loaded_at,
        "memory_enabled": definition.is_some_and(|definition| definition.memory.enabled),
        "tools": definition.map(|definition| &definition.permissions.tools),
        "description": definition.and_then(|definition| definition.about.description.as_deref()),
        "path": registered.path,
        "pinned": registered.pinned.is_some(),
        "seq": registered.seq,
    })
}

/// Everything about the agent.
pub(super) fn detail(agent: &LoadedAgent, roster: &Roster) -> Value {
    let mut shown = summary(agent);
    let definition = agent.definition.as_deref();
    shown["sha256"] = json!(agent.registered.sha256);
    shown["parameters"] = json!(definition.map(|definition| &definition.parameters));
    shown["memory_scope"] = json!(agent.limits.as_ref().map(|limits| limits.memory_scope.as_str()));
    shown["limits"] = json!(agent.limits.as_ref().map(limits));
    shown["content"] = json!(&*agent.content);
    shown["warnings"] = agent.warnings.iter().map(report::to_json).collect();
    let version = |past: &crate::agents::Past| {
        json!({
            "seq": past.seq,
            "version": past.version,
            "sha256": past.sha256,
            "loaded_at": past.loaded_at,
            "in_use": past.seq == agent.registered.seq,
        })
    };
    shown["versions"] = agent.versions.iter().rev().map(version).collect();
    // A newer text that cannot be used is the first thing whoever edited it wants to know.
    let own = roster.rejected.iter().filter(|file| file.path == agent.registered.path);
    shown["files_rejected"] = own.map(rejected).collect();
    shown
}

fn limits(limits: &Limits) -> Value {
    json!({
        "max_conversations": limits.max_conversations,
        "max_memory_entities": limits.max_memory_entities,
        "response_timeout": format_duration(limits.response_timeout),
        "tool_call_timeout": format_duration(limits.tool_call_timeout),
        "memory_search_timeout": format_duration(limits.memory_search_timeout),
        "memory_search_limit": limits.memory_search_limit,
    })
}

/// A file that is not in use.
pub(super) fn rejected(file: &RejectedFile) -> Value {
    let errors: Vec<Value> = file.problems.iter().map(report::to_json).collect();
    json!({ "path": file.path, "name": file.agent, "errors": errors })
}

/// What changed in an agent, with one member more.
pub(super) fn updated(agent: &LoadedAgent, name: &str, value: &Value) -> Value {
    let registered = &agent.registered;
    let mut shown = json!({
        "agent_id": agent.name,
        "id": agent.name,
        "name": agent.name,
        "version": registered.version,
        "status": registered.status.as_str(),
        "updated_at": registered.loaded_at,
        "seq": registered.seq,
    });
    shown[name] = value.clone();
    shown
}

/// Keys of the front matter that differ between two texts, `body` for what stands below it.
pub(super) fn changes(directory: &AgentDirectory, before: &str, after: &str) -> Vec<String> {
    let keys = |text: &str| match &directory.validate(text).judgement.front_matter {
        Value::Object(map) => map.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    };
    let body = |text: &str| {
        let definition = directory.validate(text).judgement.definition.clone();
        definition.map(|definition| definition.body)
    };
    let (old, new) = (keys(before), keys(after));
    let mut changed: Vec<String> =
        old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key)).cloned().collect();
    changed.sort_unstable();
    changed.dedup();
    if body(before) != body(after) {
        changed.push("body".to_owned());
    }
    changed
}

/// Nobody has this name.
pub(super) fn not_found(name: &str) -> Problem {
    let detail = format!("there is no agent {} in the agents directory", shortened(name));
    Problem::new(StatusCode::NOT_FOUND, "AGENT_NOT_FOUND", detail).field("id").value(name).remedy(
        "GET /api/v1/config-agents lists those there are; GET /api/v1/agents also those that registered",
    )
}

/// Why a wish was not granted.
pub(super) fn not_granted(error: DirectoryError) -> Problem {
    let detail = error.to_string();
    let conflict =
        |code, remedy: &str| Problem::new(StatusCode::CONFLICT, code, detail.clone()).remedy(remedy);
    match error {
        DirectoryError::Invalid { problems, warnings } => {
            let complaints = problems.iter().map(complaint).collect();
            let shown = |problems: &[_]| problems.iter().map(report::to_json).collect::<Vec<_>>();
            Problem::complaints(StatusCode::UNPROCESSABLE_ENTITY, complaints)
                .detail("errors", shown(&problems))
                .detail("warnings", shown(&warnings))
        }
        DirectoryError::NotFound(name) => not_found(&name),
        DirectoryError::NameTaken { .. } => {
            conflict("NAME_CONFLICT", "PUT changes the agent there is; another needs another name")
        }
        DirectoryError::NameOfAnother(_) => conflict("NAME_CONFLICT", "give the new agent another name"),
        DirectoryError::Full(_) => {
            conflict("AGENT_LIMIT_EXCEEDED", "remove an agent, or raise agents.max_agents")
        }
        DirectoryError::Talking { ref name, .. } => {
            let remedy = format!(
                "GET /api/v1/conversations?participant={name}&status=active lists them, POST /api/v1/conversations/{{id}}/close \
                 ends one, and its idle timeout does by itself; or send force=true"
            );
            conflict("AGENT_BUSY", &remedy)
        }
        DirectoryError::NoSuchVersion { .. } => {
            Problem::new(StatusCode::NOT_FOUND, "VERSION_NOT_FOUND", detail)
                .remedy("GET /api/v1/config-agents/ with the agent's name lists its versions")
        }
        DirectoryError::Busy => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED", detail)
            .remedy("try again")
            .retry_after(1),
        DirectoryError::Stopped => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "STOPPING", detail)
            .remedy("ask again after the restart"),
        DirectoryError::Unreadable(ref source) => {
            let detail = format!("{detail}: {source}; the agents stay as they are");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "AGENTS_UNREADABLE", detail)
                .remedy("see that agents.directory exists and can be read, then ask again")
        }
        DirectoryError::File { .. } | DirectoryError::Log(_) => internal(&error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::{DirectoryError, not_granted};

    #[test]
    fn an_agent_that_talks_is_refused_with_the_way_to_its_conversations() {
        let error = DirectoryError::Talking { name: "ada".parse().unwrap(), conversations: 23 };
        let told = not_granted(error).as_complaint();
        assert_eq!((told.code, told.message.as_str()), ("AGENT_BUSY", "ada has 23 open conversations"));
        for part in
            ["/conversations?participant=ada&status=active ", "/conversations/{id}/close ", "force=true"]
        {
            assert!(told.remedy.contains(part), "{}", told.remedy);
        }
    }
}
