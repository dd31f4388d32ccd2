//! What an agent may call, and under which limits.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::fault::{Faults, Phase, Spot};
use super::super::reading::{Section, nearest};
use super::Surroundings;
use super::prompts::kept;
use crate::config::document::{Node, Yaml};
use crate::toolbox::Permissions;

/// Redirects that an HTTP request follows unless the file says otherwise.
const REDIRECTS_DEFAULT: u32 = 3;
/// Bytes of a tool's answer unless the file says otherwise.
const RESULT_BYTES_DEFAULT: usize = 1 << 20;
/// Results of one search of memory unless the file says otherwise.
const MEMORY_RESULTS_DEFAULT: usize = 100;
/// Calls of one turn unless the file says otherwise.
const CALLS_DEFAULT: u32 = 20;

/// How far the network is open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Network {
    None,
    Restricted,
    Full,
}

const NETWORK: &[(&str, Network)] =
    &[("none", Network::None), ("restricted", Network::Restricted), ("full", Network::Full)];
const FILE_ACCESS: &[(&str, ())] = &[("none", ()), ("readonly", ()), ("readwrite", ())];

/// `tools`, `permissions` and `security` together.
pub(super) fn permissions(top: &mut Section<'_>, around: &Surroundings, faults: &Faults) -> Permissions {
    let mut permissions = Permissions {
        redirects_max: REDIRECTS_DEFAULT,
        result_bytes_max: RESULT_BYTES_DEFAULT,
        memory_results_max: MEMORY_RESULTS_DEFAULT,
        memory_writes: true,
        calls_max: CALLS_DEFAULT,
        ..Permissions::default()
    };
    let mut network = Network::Restricted;
    let mut taken = BTreeMap::new();
    for (index, item) in top.list("tools").unwrap_or_default().iter().enumerate() {
        let field = format!("tools[{index}]");
        let Some(name) = tool(item, &field, around, faults) else { continue };
        if taken.insert(name.clone(), index).is_some() {
            let reason = format!("{name} is listed twice");
            faults.add(Phase::Tools, Spot::Node(item.id), &field, reason, "remove one of them");
            continue;
        }
        permissions.tools.push(name);
        if let Yaml::Map(entries) = &item.value {
            let mut item = Section::new(&field, entries, faults);
            item.take("name");
            if let Some(section) = item.section("permissions") {
                grant(section, &mut permissions, &mut network, faults);
            }
            item.finish();
        }
    }
    for key in ["permissions", "security"] {
        if let Some(section) = top.section(key) {
            grant(section, &mut permissions, &mut network, faults);
        }
    }
    match network {
        Network::Full => permissions.allowed_hosts = vec!["*".to_owned()],
        Network::None => permissions.allowed_hosts.clear(),
        Network::Restricted => (),
    }
    permissions
}

/// The name of a tool that exists.
fn tool(item: &Node, field: &str, around: &Surroundings, faults: &Faults) -> Option<String> {
    let name = match &item.value {
        Yaml::Text(name) => Some(name.as_str()),
        Yaml::Map(entries) => {
            entries.iter().find(|entry| entry.key == "name").and_then(|entry| entry.value.value.text())
        }
        Yaml::Null | Yaml::Bool(_) | Yaml::Whole(_) | Yaml::Real(_) | Yaml::List(_) => None,
    };
    let Some(name) = name else {
        let reason = format!("{} names no tool", item.value.shown());
        faults.add(
            Phase::Tools,
            Spot::Node(item.id),
            field,
            reason,
            "write the tool's name, or a map with `name:`",
        );
        return None;
    };
    // `mcp:SERVER/TOOL` is one tool of a server; whether it has that tool is known when the server is asked.
    let known =
        name.split_once('/').filter(|(server, _)| server.starts_with("mcp:")).map_or(name, |parts| parts.0);
    let is_unseen = around.any_server && known.strip_prefix("mcp:").is_some_and(|server| !server.is_empty());
    if is_unseen || around.tools.contains(known) {
        return Some(name.to_owned());
    }
    let names = || around.tools.iter().map(String::as_str);
    let remedy = match nearest(known, names()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("the tools are {}", names().collect::<Vec<_>>().join(", ")),
    };
    faults.add(Phase::Tools, Spot::Node(item.id), field, format!("there is no tool {name:?}"), &remedy);
    None
}

/// What one map of permissions grants.
fn grant(mut section: Section<'_>, permissions: &mut Permissions, network: &mut Network, faults: &Faults) {
    for key in ["network", "network_access"] {
        if let Some(node) = section.take(key)
            && let Yaml::Bool(open) = node.value
        {
            *network = if open { Network::Restricted } else { Network::None };
        } else if let Some(given) = section.choice(key, NETWORK) {
            *network = given;
        }
    }
    for key in ["allowed_hosts", "allowed_domains"] {
        hosts(&mut section, key, permissions, faults);
    }
    for name in section.texts("restricted_tools").unwrap_or_default() {
        permissions.tools.retain(|tool| *tool != name);
    }
    if let Some(private) = section.flag("private_addresses") {
        permissions.private_addresses = private;
    }
    if let Some(writes) = section.flag("memory_writes") {
        permissions.memory_writes = writes;
    }
    if let Some(calls) = section.whole("max_tool_calls", 1..=1_000) {
        permissions.calls_max = calls as u32;
    }
    if section.choice("file_access", FILE_ACCESS).is_some() {
        section.warn("file_access", "no tool reads or writes files", "remove it, or leave it as a note");
    }
    section.ignore(&["allowed_paths", "rate_limit", "require_auth", "allowed_capabilities"]);
    section.finish();
}

/// Adds the hosts of a list.
fn hosts(section: &mut Section<'_>, key: &'static str, permissions: &mut Permissions, faults: &Faults) {
    let items = section.list(key).unwrap_or_default();
    for (index, item) in items.iter().enumerate() {
        let Some(host) = item.value.text().filter(|host| is_host(host)) else {
            let reason = format!("{} is no name of a host", item.value.shown());
            let remedy = "write the host alone, as in api.example.com or *.example.com";
            let field = section.name(&format!("{key}[{index}]"));
            faults.add(Phase::Tools, Spot::Node(item.id), &field, reason, remedy);
            continue;
        };
        let host = host.to_ascii_lowercase();
        if !permissions.allowed_hosts.contains(&host) {
            permissions.allowed_hosts.push(host);
        }
    }
}

/// A host's name, an address, or `*.` before a name.
fn is_host(text: &str) -> bool {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|sign| sign.is_ascii_alphanumeric() || matches!(sign, b'-' | b'_'))
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// `tool_config`: kept as it is; what limits HTTP requests is taken over.
pub(super) fn config(
    top: &mut Section<'_>,
    permissions: &mut Permissions,
    faults: &Faults,
) -> Map<String, Value> {
    let Some(mut tools) = top.section("tool_config") else { return Map::new() };
    if let Some(mut http) = tools.section("http_client") {
        let full = permissions.allowed_hosts == ["*"];
        for key in ["allowed_hosts", "allowed_domains"] {
            hosts(&mut http, key, permissions, faults);
        }
        if full {
            permissions.allowed_hosts = vec!["*".to_owned()];
        }
        if let Some(redirects) = http.whole("max_redirects", 0..=20) {
            permissions.redirects_max = redirects as u32;
        }
        if let Some(bytes) = http.count("max_response_size", 1..=(64 << 20)) {
            permissions.result_bytes_max = bytes;
        }
        http.time("timeout");
    }
    let open = permissions.allowed_hosts.is_empty();
    if open && permissions.tools.iter().any(|tool| tool == "http_client") {
        let remedy = "list hosts under `permissions: allowed_hosts`, or write `network: full` there";
        top.warn("tools", "http_client may ask no host", remedy);
    }
    match kept(top, "tool_config") {
        Some(Value::Object(map)) => map,
        Some(_) | None => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::is_host;

    #[test]
    fn a_host_is_a_name_or_an_address_and_nothing_else() {
        for host in ["localhost", "api.example.com", "*.example.com", "10.0.0.1", "::1", "a_b.c-d"] {
            assert!(is_host(host), "{host}");
        }
        for text in ["", "*", "*.", "https://a.b", "a.b/c", "a..b", "-a.b", "a b", "a.b:80", "**.a", "a.*.b"]
        {
            assert!(!is_host(text), "{text}");
        }
    }
}
