//! What an agent may call, and under which limits.

use std::collections::BTreeMap;

use caxton_events::limits::EVENT_BYTES_MAX;
use serde_json::{Map, Value};

use super::super::fault::{Faults, Phase, Spot};
use super::super::reading::{Section, nearest};
use super::Surroundings;
use super::prompts::kept;
use crate::config::document::{Node, Yaml};
use crate::toolbox::http_client::{self, is_host};
use crate::toolbox::{Permissions, family, model_name};

const HTTP_CLIENT: &str = http_client::NAME;

/// Redirects that an HTTP request follows unless the file says otherwise.
const REDIRECTS_DEFAULT: u32 = 3;
/// Bytes of a tool's result, which for `http_client` a file may say otherwise.
const RESULT_BYTES_DEFAULT: usize = 1 << 20;
/// Bytes of an answer to an HTTP request at most: it is recorded in one event, and there is more in that.
const HTTP_BYTES_MAX: usize = EVENT_BYTES_MAX - (1 << 20);
/// Bytes of such an answer that a file may name; above [`HTTP_BYTES_MAX`] they are cut, since files of earlier versions do.
const HTTP_BYTES_NAMED_MAX: u64 = 64 << 20;
/// Results of one search of memory unless the file says otherwise.
const MEMORY_RESULTS_DEFAULT: usize = 100;
/// Calls of one turn unless the file says otherwise.
const CALLS_DEFAULT: u32 = 20;

/// How far the network is open, the narrowest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Network {
    None,
    Restricted,
    Full,
}

const NETWORK: &[(&str, Network)] =
    &[("none", Network::None), ("restricted", Network::Restricted), ("full", Network::Full)];
const FILE_ACCESS: &[(&str, ())] = &[("none", ()), ("readonly", ()), ("readwrite", ())];

/// What the maps of permissions of one file say beside [`Permissions`].
#[derive(Default)]
struct Granted {
    /// The narrowest that any of them says.
    network: Option<Network>,
    /// Whether each of them that says something about private networks opens them.
    private_addresses: Option<bool>,
    /// The fewest calls of a turn that any of them says.
    calls_max: Option<u32>,
    /// Tools that are taken away again: place, field, name.
    restricted: Vec<(Spot, String, String)>,
}

/// `tools`, `permissions` and `security` together, how far the network is open, and how many calls they name, if any. Where
/// they contradict each other, the narrowest holds.
pub(super) fn permissions(
    top: &mut Section<'_>,
    around: &Surroundings,
    faults: &Faults,
) -> (Permissions, Network, Option<u32>) {
    let mut permissions = Permissions {
        redirects_max: REDIRECTS_DEFAULT,
        http_bytes_max: RESULT_BYTES_DEFAULT,
        result_bytes_max: RESULT_BYTES_DEFAULT,
        memory_results_max: MEMORY_RESULTS_DEFAULT,
        memory_writes: true,
        ..Permissions::default()
    };
    let mut granted = Granted::default();
    let mut taken = BTreeMap::new();
    for (index, item) in top.list("tools").unwrap_or_default().iter().enumerate() {
        let field = format!("tools[{index}]");
        let Some(name) = tool(item, &field, around, faults) else { continue };
        if taken.insert(name.clone(), index).is_some() {
            let reason = format!("{name} is listed twice");
            faults.add(Phase::Tools, Spot::Node(item.id), &field, reason, "remove one of them");
            continue;
        }
        if let Yaml::Map(entries) = &item.value {
            let mut item = Section::new(&field, entries, faults);
            item.take("name");
            if let Some(section) = item.section("permissions") {
                grant(section, name == HTTP_CLIENT, &mut permissions, &mut granted, faults);
            }
            item.finish();
        }
        permissions.tools.push(name);
    }
    for key in ["permissions", "security"] {
        if let Some(section) = top.section(key) {
            grant(section, true, &mut permissions, &mut granted, faults);
        }
    }
    for (spot, field, name) in granted.restricted {
        if !is_known(&name, around) {
            let (reason, remedy) = no_tool(&name, around);
            faults.warn(spot, &field, &reason, &remedy);
        }
        restrict(&mut permissions, name);
    }
    permissions.private_addresses = granted.private_addresses.unwrap_or(false);
    permissions.calls_max = granted.calls_max.unwrap_or(CALLS_DEFAULT);
    let network = granted.network.unwrap_or(Network::Restricted);
    limit(&mut permissions, network);
    (permissions, network, granted.calls_max)
}

/// Takes a tool away: one of an MCP server alone, or all of them.
fn restrict(permissions: &mut Permissions, name: String) {
    let (of, asked) = (family(&name), model_name(&name));
    if of == name {
        permissions.tools.retain(|tool| family(tool) != of);
        return;
    }
    permissions.tools.retain(|tool| model_name(tool) != asked);
    if permissions.tools.contains(&of) {
        permissions.denied_tools.push(name);
    }
}

/// Makes the hosts of `permissions` what `network` leaves of them.
fn limit(permissions: &mut Permissions, network: Network) {
    match network {
        Network::Full => permissions.allowed_hosts = vec!["*".to_owned()],
        Network::None => permissions.allowed_hosts.clear(),
        Network::Restricted => (),
    }
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
    if is_known(name, around) {
        return Some(name.to_owned());
    }
    let (reason, remedy) = no_tool(name, around);
    faults.add(Phase::Tools, Spot::Node(item.id), field, reason, &remedy);
    None
}

/// Whether there is such a tool. `mcp:SERVER/TOOL` is one tool of a server; whether it has that tool is known when the
/// server is asked.
fn is_known(name: &str, around: &Surroundings) -> bool {
    let family = family(name);
    let is_unseen = around.any_server && family.strip_prefix("mcp:").is_some_and(|server| !server.is_empty());
    is_unseen || around.tools.contains(&family)
}

/// What is wrong with a name that no tool has, and the remedy.
fn no_tool(name: &str, around: &Surroundings) -> (String, String) {
    let names = || around.tools.iter().map(String::as_str);
    let remedy = match nearest(&family(name), names()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("the tools are {}", names().collect::<Vec<_>>().join(", ")),
    };
    (format!("there is no tool {name:?}"), remedy)
}

/// What one map of permissions grants: no more than any other map leaves open. Only those that hold for `http_client` say anything
/// about the network.
fn grant(
    mut section: Section<'_>,
    asks_hosts: bool,
    permissions: &mut Permissions,
    granted: &mut Granted,
    faults: &Faults,
) {
    for key in ["network", "network_access"] {
        let said = if let Some(node) = section.take(key)
            && let Yaml::Bool(open) = node.value
        {
            Some(if open { Network::Restricted } else { Network::None })
        } else {
            section.choice(key, NETWORK)
        };
        if asks_hosts {
            granted.network = granted.network.into_iter().chain(said).min();
        } else if said.is_some() {
            no_hosts(&section, key);
        }
    }
    for key in ["allowed_hosts", "allowed_domains"] {
        let found = hosts(&mut section, key, faults);
        if asks_hosts {
            allow(permissions, found);
        } else if !found.is_empty() {
            no_hosts(&section, key);
        }
    }
    for (index, item) in section.list("restricted_tools").unwrap_or_default().iter().enumerate() {
        let field = format!("restricted_tools[{index}]");
        match item.value.text().filter(|text| !text.trim().is_empty()) {
            Some(name) => {
                let field = section.name(&field);
                granted.restricted.push((Spot::Node(item.id), field, name.trim().to_owned()));
            }
            None => section.wrong(&field, item, "the name of a tool"),
        }
    }
    if let Some(private) = section.flag("private_addresses") {
        if asks_hosts {
            granted.private_addresses = Some(granted.private_addresses.unwrap_or(true) && private);
        } else {
            no_hosts(&section, "private_addresses");
        }
    }
    permissions.memory_writes &= section.flag("memory_writes").unwrap_or(true);
    let calls = section.whole("max_tool_calls", 1..=1_000).map(|calls| calls as u32);
    granted.calls_max = granted.calls_max.into_iter().chain(calls).min();
    if section.choice("file_access", FILE_ACCESS).is_some() {
        section.warn("file_access", "no tool reads or writes files", "remove it, or leave it as a note");
    }
    section.ignore(&["allowed_paths", "rate_limit", "require_auth", "allowed_capabilities"]);
    section.finish();
}

/// Says that a key about the network has no effect here.
fn no_hosts(section: &Section<'_>, key: &str) {
    let reason =
        "has no effect here: of the tools, http_client alone asks hosts, and an MCP server does what it does";
    section.warn(key, reason, "write it below http_client, or under `permissions:` of the file");
}

/// The hosts of a list, in small letters.
fn hosts(section: &mut Section<'_>, key: &'static str, faults: &Faults) -> Vec<String> {
    let items = section.list(key).unwrap_or_default();
    let mut found = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let Some(host) = item.value.text().filter(|host| is_host(host)) else {
            let reason = format!("{} is no name of a host", item.value.shown());
            let remedy = "write the host alone, as in api.example.com or *.example.com, or with its port, as in \
                          api.example.com:8080";
            let field = section.name(&format!("{key}[{index}]"));
            faults.add(Phase::Tools, Spot::Node(item.id), &field, reason, remedy);
            continue;
        };
        found.push(host.to_ascii_lowercase());
    }
    found
}

/// Adds hosts that requests may go to.
fn allow(permissions: &mut Permissions, hosts: Vec<String>) {
    for host in hosts {
        if !permissions.allowed_hosts.contains(&host) {
            permissions.allowed_hosts.push(host);
        }
    }
}

/// `tool_config`: kept as it is; what limits HTTP requests is taken over, within what `network` leaves open.
pub(super) fn config(
    top: &mut Section<'_>,
    permissions: &mut Permissions,
    network: Network,
    faults: &Faults,
) -> Map<String, Value> {
    let Some(mut tools) = top.section("tool_config") else { return Map::new() };
    if let Some(mut http) = tools.section("http_client") {
        for key in ["allowed_hosts", "allowed_domains"] {
            let found = hosts(&mut http, key, faults);
            allow(permissions, found);
        }
        limit(permissions, network);
        if let Some(redirects) = http.whole("max_redirects", 0..=20) {
            permissions.redirects_max = redirects as u32;
        }
        if let Some(bytes) = http.count("max_response_size", 1..=HTTP_BYTES_NAMED_MAX) {
            permissions.http_bytes_max = bytes.min(HTTP_BYTES_MAX);
            if bytes > HTTP_BYTES_MAX {
                let reason =
                    format!("{bytes} is cut to {HTTP_BYTES_MAX}: more has no room in an event of the log");
                http.warn("max_response_size", &reason, &format!("write {HTTP_BYTES_MAX}, or less"));
            }
        }
        permissions.http_timeout = http.time("timeout");
    }
    let open = permissions.allowed_hosts.is_empty();
    if open && permissions.tools.iter().any(|tool| tool == HTTP_CLIENT) {
        let remedy = "list hosts under `permissions: allowed_hosts`, or write `network: full` there";
        top.warn("tools", "http_client may ask no host", remedy);
    }
    match kept(top, "tool_config") {
        Some(Value::Object(map)) => map,
        Some(_) | None => Map::new(),
    }
}
