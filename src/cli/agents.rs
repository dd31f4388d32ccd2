//! `caxton agents list | show | validate | reload | rollback`; `logs` is among the commands of `talk`. All but `list`, `show` and
//! `logs` are about agents from files.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use caxton_events::limits::AGENT_FILE_BYTES_MAX;
use serde_json::{Value, json};

use super::args::{AgentRollback, AgentShow, AgentsCommand, AgentsList, AgentsValidate, Common};
use super::backend::{self, Backend, Request, encoded};
use super::failure::{Exit, Failure};
use super::output::{Output, cell, counted, items};
use super::setup;
use super::talk;
use super::transfer::is_dash;
use crate::agents::{Definition, Judgement, Surroundings, is_note, judge, report};
use crate::config::{EXTRACTIVE, LOCAL};

/// What the server calls agents that are none of its files.
const EXTERNAL: &str = "external";

/// Runs a command about agents.
pub(super) fn run(command: &AgentsCommand, common: &Common, out: &mut Output) -> Result<(), Failure> {
    match command {
        AgentsCommand::List(list) => print_list(list, common, out),
        AgentsCommand::Show(show) => print_one(show, common, out),
        AgentsCommand::Validate(validate) => check_files(validate, common, out),
        AgentsCommand::Reload => reload(common, out),
        AgentsCommand::Rollback(rollback) => roll_back(rollback, common, out),
        AgentsCommand::Logs(logs) => talk::agent_log(logs, common, out),
    }
}

/// The server that agents run in: without one there are none.
fn server(common: &Common) -> Result<Backend, Failure> {
    backend::running(common)?.map(Backend::Http).ok_or_else(|| {
        let message = "no server runs here, and agents run in servers; start one with `caxton serve`";
        Failure::new(Exit::Unreachable, message)
    })
}

fn print_list(list: &AgentsList, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let request = Request::get("/api/v1/config-agents")
        .with_some("workspace", list.workspace.as_deref())
        .with_some("capability", list.capability.as_deref())
        .with_some("status", list.status.as_deref())
        .at(&list.at);
    let backend = server(common)?;
    let mut answer = backend.ask(request.clone())?;
    let total = answer["total"].as_u64().unwrap_or_default();
    while (items(&answer, "agents").len() as u64) < total {
        let offset = items(&answer, "agents").len().to_string();
        let next = backend.ask(request.clone().with("offset", &offset))?;
        let page = items(&next, "agents").to_vec();
        if page.is_empty() {
            break;
        }
        if let Some(agents) = answer["agents"].as_array_mut() {
            agents.extend(page);
        }
    }
    for agent in answer.get_mut("agents").and_then(Value::as_array_mut).into_iter().flatten() {
        put(agent, "kind", "config".into());
    }
    // Only an agent of a file has a status.
    if list.status.is_none() {
        add_registered(&mut answer, registered(&backend, list)?);
    }
    print_agents(&answer, out)
}

/// Agents that run outside of the server.
fn registered(backend: &Backend, list: &AgentsList) -> Result<Vec<Value>, Failure> {
    let request = Request::get("/api/v1/agents")
        .with("kind", EXTERNAL)
        .with_some("workspace", list.workspace.as_deref())
        .with_some("capability", list.capability.as_deref())
        .at(&list.at);
    let (mut agents, mut cursor) = (Vec::new(), None::<String>);
    loop {
        // As many at a time as the server gives by itself: it may allow no more.
        let page = backend.ask(request.clone().with_some("cursor", cursor.as_deref()))?;
        agents.extend_from_slice(items(&page, "agents"));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(agents),
        }
    }
}

/// Puts them behind those from files.
fn add_registered(answer: &mut Value, registered: Vec<Value>) {
    let Some(agents) = answer.get_mut("agents").and_then(Value::as_array_mut) else { return };
    agents.extend(registered.into_iter().map(named));
    let total = agents.len();
    put(answer, "total", total.into());
}

/// An agent that registered, with the other member that names one of a file.
fn named(mut agent: Value) -> Value {
    let name = agent["agent_id"].clone();
    put(&mut agent, "name", name);
    agent
}

/// Sets a member of an object.
fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}

fn print_agents(answer: &Value, out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.json(answer);
    }
    let agents = items(answer, "agents");
    let rows = agents.iter().map(|agent| {
        let words = items(agent, "capabilities").iter().filter_map(Value::as_str).collect::<Vec<_>>();
        let version = cell(agent, "version");
        let place = if is_registered(agent) { "registered".to_owned() } else { cell(agent, "path") };
        let pinned = agent["pinned"].as_bool().unwrap_or_default();
        vec![
            cell(agent, "name"),
            if pinned { format!("{version} (pinned)") } else { version },
            cell(agent, "status"),
            cell(agent, "workspace"),
            words.join(", "),
            place,
        ]
    });
    out.table(&["agent", "version", "status", "workspace", "capabilities", "from"], rows.collect())?;
    let count = counted(agents.len(), "agent");
    match agents.iter().filter(|agent| is_registered(agent)).count() {
        0 => out.line(count)?,
        registered => out.line(format_args!(
            "{count}: {} from files, {registered} registered by programs outside of the server",
            agents.len() - registered
        ))?,
    }
    print_rejected(answer, out)
}

/// Whether the agent runs outside of the server, and has no file.
fn is_registered(agent: &Value) -> bool {
    agent["kind"] == EXTERNAL
}

/// Files that are not in use, each with its first faults.
fn print_rejected(answer: &Value, out: &mut Output) -> Result<(), Failure> {
    items(answer, "files_rejected").iter().flat_map(faults).try_for_each(|fault| out.line(fault))
}

/// The faults of a file that is not in use, a line each.
fn faults(file: &Value) -> Vec<String> {
    let path = cell(file, "path");
    let told = items(file, "errors").iter().map(|error| {
        let place = &error["location"];
        let place = match (place["line"].as_u64(), place["column"].as_u64()) {
            (Some(line), Some(column)) => format!("{path}:{line}:{column}"),
            _ => path.clone(),
        };
        let (field, message, remedy) = (cell(error, "field"), cell(error, "message"), cell(error, "remedy"));
        let field = if field.is_empty() { field } else { format!("{field}: ") };
        format!("not in use: {place}: {field}{message}; {remedy}")
    });
    told.collect()
}

/// What is said of an agent that is not there: where a file for it could not be used, which one and why.
fn not_found(backend: &Backend, show: &AgentShow, failure: Failure) -> Failure {
    if failure.exit != Some(Exit::NotFound) || show.at.as_of.is_some() {
        return failure;
    }
    let list = backend.ask(Request::get("/api/v1/config-agents").with("limit", "1"));
    match list.ok().and_then(|list| unusable(&list, &show.name)) {
        Some(message) => failure.told(message),
        None => failure,
    }
}

/// What is said of the files in a list of agents that would define this one, and could not be used.
fn unusable(list: &Value, name: &str) -> Option<String> {
    let is_its = |file: &&Value| {
        let path = cell(file, "path");
        let stem = Path::new(&path).file_stem().unwrap_or_default().to_string_lossy();
        [cell(file, "name").as_str(), &*stem].iter().any(|other| other.eq_ignore_ascii_case(name))
    };
    let faults: Vec<String> = items(list, "files_rejected").iter().filter(is_its).flat_map(faults).collect();
    let faults = (!faults.is_empty()).then(|| faults.join("\n"))?;
    Some(format!(
        "no agent {name} is in use: its file could not be used; correct it, and it is read again\n{faults}"
    ))
}

fn print_one(show: &AgentShow, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let path = format!("/api/v1/config-agents/{}", encoded(&show.name));
    let backend = server(common)?;
    let mut agent = match backend.ask(Request::get(&path).at(&show.at)) {
        Ok(agent) => agent,
        Err(failure) if failure.exit == Some(Exit::NotFound) => {
            return match of_outside(&backend, show)? {
                Some(agent) => print_registered(&agent, show, out),
                None => Err(not_found(&backend, show, failure)),
            };
        }
        Err(failure) => return Err(failure),
    };
    put(&mut agent, "kind", "config".into());
    if show.content {
        return out.line(cell(&agent, "content").trim_end());
    }
    if out.is_json() {
        return out.json(&agent);
    }
    let mut rows = Vec::new();
    for name in
        ["name", "version", "status", "status_reason", "workspace", "description", "path", "memory_scope"]
    {
        rows.push(vec![name.replace('_', " "), cell(&agent, name)]);
    }
    for name in ["capabilities", "tools"] {
        let words = items(&agent, name).iter().filter_map(Value::as_str).collect::<Vec<_>>();
        rows.push(vec![name.to_owned(), words.join(", ")]);
    }
    if let Some(limits) = agent["limits"].as_object() {
        rows.extend(limits.keys().map(|name| vec![name.replace('_', " "), cell(&agent["limits"], name)]));
    }
    out.table(&["what", "value"], rows)?;
    let versions = items(&agent, "versions").iter().map(|version| {
        let in_use = version["in_use"].as_bool().unwrap_or_default();
        let sha256: String = cell(version, "sha256").chars().take(12).collect();
        let used = if in_use { "in use" } else { "" };
        vec![
            cell(version, "seq"),
            cell(version, "version"),
            cell(version, "loaded_at"),
            sha256,
            used.to_owned(),
        ]
    });
    out.line("")?;
    out.table(&["seq", "version", "loaded at", "sha256", ""], versions.collect())?;
    print_rejected(&agent, out)
}

/// The agent of this name that registered, and has no file; `None` when there is none.
fn of_outside(backend: &Backend, show: &AgentShow) -> Result<Option<Value>, Failure> {
    let path = format!("/api/v1/agents/{}", encoded(&show.name));
    match backend.ask(Request::get(&path).at(&show.at)) {
        Ok(agent) => Ok(Some(agent).filter(is_registered).map(named)),
        Err(failure) if failure.exit == Some(Exit::NotFound) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn print_registered(agent: &Value, show: &AgentShow, out: &mut Output) -> Result<(), Failure> {
    if show.content {
        let message = format!(
            "{} registered from outside of the server and has no file to print; leave out --content",
            cell(agent, "name")
        );
        return Err(Failure::new(Exit::NotFound, message));
    }
    if out.is_json() {
        return out.json(agent);
    }
    let row = |of: &Value, name: &str| vec![name.replace('_', " "), cell(of, name)];
    let mut rows = vec![row(agent, "name"), vec!["from".to_owned(), "registered".to_owned()]];
    rows.extend(["workspace", "health", "circuit"].map(|name| row(agent, name)));
    let offers = items(agent, "capabilities").iter().filter_map(Value::as_str).collect::<Vec<_>>();
    rows.push(vec!["capabilities".to_owned(), offers.join(", ")]);
    let counts = ["waiting", "messages_sent", "messages_received", "last_activity", "registered_at", "seq"];
    rows.extend(counts.map(|name| row(agent, name)));
    if let Some(stats) = agent["execution_stats"].as_object() {
        rows.extend(stats.keys().map(|name| row(&agent["execution_stats"], name)));
    }
    out.table(&["what", "value"], rows)
}

fn reload(common: &Common, out: &mut Output) -> Result<(), Failure> {
    let answer = server(common)?.ask(Request::post("/api/v1/config-agents/reload", &json!({})))?;
    print_agents(&answer, out)
}

fn roll_back(rollback: &AgentRollback, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let body = match (&rollback.to_version, rollback.to_seq) {
        (Some(version), _) => json!({ "version": version }),
        (None, Some(seq)) => json!({ "seq": seq }),
        (None, None) => json!({}),
    };
    let path = format!("/api/v1/config-agents/{}/rollback", encoded(&rollback.name));
    let answer = server(common)?.ask(Request::post(&path, &body))?;
    if out.is_json() {
        return out.json(&answer);
    }
    let (name, version) = (cell(&answer, "name"), cell(&answer, "version"));
    out.line(format_args!("{name} is back at {version}, until its file changes"))
}

/// One file as it was judged.
struct Judged {
    path: String,
    text: String,
    judgement: Judgement,
    /// What it names and nobody could look up.
    not_checked: Vec<String>,
}

fn check_files(validate: &AgentsValidate, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let config = setup::load(common, Vec::new())?.config;
    let is_at_hand = common.config.is_some();
    let known = if is_at_hand {
        Surroundings::of(&config)
    } else {
        Surroundings { any_server: true, ..Surroundings::default() }
    };
    let around = Surroundings { strict: validate.strict || config.agents.strict, ..known };
    let mut judged = Vec::new();
    for Named { path, by_folder } in expanded(&validate.files)? {
        let bytes = read(&path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if by_folder && is_note(&name, &bytes) {
            continue;
        }
        let path = if is_dash(&path) { "standard input".to_owned() } else { path.display().to_string() };
        let judgement = judge(&bytes, &around);
        let definition = judgement.definition.as_ref().filter(|_| !is_at_hand);
        let not_checked = definition.map(not_checked).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        judged.push(Judged { path, text, judgement, not_checked });
    }
    name_doubles(&mut judged);
    let bad = judged.iter().filter(|file| !file.judgement.problems.is_empty()).count();
    if out.is_json() {
        let shown: Vec<Value> = judged.iter().map(to_json).collect();
        out.json(&json!({ "valid": bad == 0, "files": shown }))?;
    } else {
        for file in &judged {
            print_judged(file, out)?;
        }
    }
    if bad == 0 {
        return Ok(());
    }
    let all = counted(judged.len(), "file");
    Err(Failure::new(Exit::Refused, format!("{bad} of {all} cannot be used; see above")))
}

/// What a file names that stands in the configuration of a server, and of no server one was given.
fn not_checked(definition: &Definition) -> Vec<String> {
    let tools = definition.permissions.tools.iter().filter(|tool| tool.starts_with("mcp:"));
    let built_in = |name: &str| [EXTRACTIVE, LOCAL].contains(&name);
    let provider = definition.llm.provider.iter().filter(|name| !built_in(name));
    let tools = tools.map(|tool| format!("tool {tool}"));
    tools.chain(provider.map(|name| format!("model provider {name}"))).collect()
}

/// A file to judge.
struct Named {
    path: PathBuf,
    /// Whether its folder was named, and not the file.
    by_folder: bool,
}

/// The files, with those of folders in order of their names.
fn expanded(paths: &[PathBuf]) -> Result<Vec<Named>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if is_dash(path) || !path.is_dir() {
            files.push(Named { path: path.clone(), by_folder: false });
            continue;
        }
        let failed = |error: &io::Error| Failure::file("read", path, error);
        let mut found = Vec::new();
        for entry in fs::read_dir(path).map_err(|error| failed(&error))? {
            let entry = entry.map_err(|error| failed(&error))?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".md") && !name.starts_with('.') {
                found.push(entry.path());
            }
        }
        found.sort();
        files.extend(found.into_iter().map(|path| Named { path, by_folder: true }));
    }
    Ok(files)
}

/// A file up to a byte more than it may have.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    if !is_dash(path) && fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let message = format!("{} is not a file; name agent files or a folder of them", path.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    let mut bytes = Vec::new();
    let limit = AGENT_FILE_BYTES_MAX as u64 + 1;
    let read = if is_dash(path) {
        io::stdin().take(limit).read_to_end(&mut bytes)
    } else {
        fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::file("read", path, &error))?;
    Ok(bytes)
}

/// Tells of files with one name: a server uses one of them.
fn name_doubles(judged: &mut [Judged]) {
    let mut first: BTreeMap<String, String> = BTreeMap::new();
    for file in judged.iter_mut() {
        let Some(definition) = &file.judgement.definition else { continue };
        let name = definition.name.to_string();
        let Some(other) = first.get(&name) else {
            first.insert(name, file.path.clone());
            continue;
        };
        let problem = caxton_events::agent::ConfigProblem {
            line: 0,
            column: 0,
            field: "name".to_owned(),
            reason: format!("{} and {other} both define the agent {name}", file.path),
            remedy: "give one of them another name".to_owned(),
        };
        file.judgement.problems.push(problem);
    }
}

fn to_json(file: &Judged) -> Value {
    let judgement = &file.judgement;
    let shown = |problems: &[_]| problems.iter().map(report::to_json).collect::<Vec<_>>();
    json!({
        "path": file.path,
        "name": judgement.name,
        "valid": judgement.problems.is_empty(),
        "errors": shown(&judgement.problems),
        "warnings": shown(&judgement.warnings),
        "not_checked": file.not_checked,
    })
}

fn print_judged(file: &Judged, out: &mut Output) -> Result<(), Failure> {
    let judgement = &file.judgement;
    if judgement.problems.is_empty()
        && let Some(definition) = &judgement.definition
    {
        let (name, version) = (&definition.name, &definition.version);
        out.line(format_args!("{}: {name} {version} can be used", file.path))?;
    }
    if !file.not_checked.is_empty() {
        let names = file.not_checked.join(", ");
        out.line(format_args!("  not checked: {names}; name the server's configuration with --config"))?;
    }
    let text = format!(
        "{}{}",
        report::render(&file.path, &file.text, &judgement.problems, '×'),
        report::render(&file.path, &file.text, &judgement.warnings, '⚠')
    );
    if text.is_empty() { Ok(()) } else { out.line(text.trim_end()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use serde_json::json;

    use super::unusable;

    #[test]
    fn an_agent_whose_file_cannot_be_used_is_told_of_by_name_and_by_file() {
        let fault = json!({
            "location": {"line": 3, "column": 1}, "field": "version", "message": "is missing", "remedy": "give one",
        });
        let list = json!({ "files_rejected": [
            { "path": "agents/broken.md", "name": null, "errors": [fault] },
            { "path": "agents/tea.md", "name": "Brewer", "errors": [{ "message": "is empty", "remedy": "fill it" }] },
        ]});
        let told = unusable(&list, "Broken").unwrap();
        assert!(told.starts_with("no agent Broken is in use: its file could not be used"), "{told}");
        assert!(
            told.ends_with("\nnot in use: agents/broken.md:3:1: version: is missing; give one"),
            "{told}"
        );
        let told = unusable(&list, "Brewer").unwrap();
        assert!(told.ends_with("\nnot in use: agents/tea.md: is empty; fill it"), "{told}");
        assert_eq!(unusable(&list, "Nobody"), None);
    }
}
