//! From the bytes of a file to a [`Definition`], or to everything that is wrong with it.
//!
//! Judged in this order, and reported in it: syntax, required keys, capabilities, tools, values, memory scope,
//! templates. Everything is reported at once, except that a file whose front matter cannot be read has no second fault.

mod identity;
mod prompts;
mod tools;
mod upkeep;

use std::collections::BTreeSet;
use std::time::Duration;

use caxton_events::AgentId;
use caxton_events::agent::ConfigProblem;
use serde_json::Value;

use super::definition::{Definition, OwnLimits};
use super::envelope::{self, Envelope};
use super::fault::{Faults, Phase, Spot};
use super::reading::{DEPTH_MAX, Section, to_json, too_deep};
use crate::config::document::{Document, Yaml};
use crate::config::{Config, EXTRACTIVE, LOCAL, Place};

/// What there is beside the file, against which it is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// The tools there are; those of MCP servers as `mcp:SERVER`.
    pub tools: BTreeSet<String>,
    /// The model providers there are; empty: any.
    pub providers: BTreeSet<String>,
    /// Which MCP servers there are is not known: any that a file names may be there.
    pub any_server: bool,
    /// Answers of models are kept for files that wish so.
    pub keeps_answers: bool,
    /// Longest time for one call of a tool, where there is such a bound.
    pub tool_call_max: Option<Duration>,
    /// Refuse what is only doubtful, such as unknown keys.
    pub strict: bool,
}

impl Surroundings {
    /// What there is in a server that runs with `config`.
    pub fn of(config: &Config) -> Self {
        let servers = config.mcp_servers.iter().map(|server| format!("mcp:{}", server.name));
        let providers = config.llm.providers.iter().map(|provider| provider.name.clone());
        Self {
            tools: Self::default().tools.into_iter().chain(servers).collect(),
            providers: [EXTRACTIVE, LOCAL].map(str::to_owned).into_iter().chain(providers).collect(),
            ..Self::bounded(config)
        }
    }

    /// What `config` alone says about files; any provider and no server may be there.
    pub(super) fn bounded(config: &Config) -> Self {
        let keeps_answers = config.conversation_processing.response_cache_enabled;
        Self {
            keeps_answers: keeps_answers && !config.agents.response_cache_ttl.is_zero(),
            tool_call_max: config.agents.tool_call_timeout,
            strict: config.agents.strict,
            ..Self::default()
        }
    }
}

impl Default for Surroundings {
    fn default() -> Self {
        let tools = ["memory", "http_client", "message"].map(str::to_owned);
        Self {
            tools: BTreeSet::from(tools),
            providers: BTreeSet::new(),
            any_server: false,
            keeps_answers: true,
            tool_call_max: None,
            strict: false,
        }
    }
}

/// What a file turned out to be.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Judgement {
    /// The agent; `None` when there is a problem.
    pub definition: Option<Definition>,
    /// Its name, where the file has one that can be read.
    pub name: Option<AgentId>,
    /// What keeps it from being used.
    pub problems: Vec<ConfigProblem>,
    /// What is doubtful and does no harm. In strict mode these are problems.
    pub warnings: Vec<ConfigProblem>,
    /// The front matter as JSON; `null` where it cannot be read.
    pub front_matter: Value,
}

/// Reads a file.
///
/// ```
/// use caxton::agents::{Surroundings, judge};
///
/// let file = "---\nname: Reader\nversion: 1.0.0\ncapabilities: [reading]\n---\nYou read.\n";
/// let judgement = judge(file.as_bytes(), &Surroundings::default());
/// assert_eq!(judgement.definition.unwrap().system_prompt, "You read.");
///
/// let judgement = judge(b"---\nname: Reader\nversion: one\n---\n", &Surroundings::default());
/// let fields: Vec<_> = judgement.problems.iter().map(|problem| problem.field.as_str()).collect();
/// assert_eq!(fields, ["capabilities", "system_prompt", "version"]);
/// ```
pub fn judge(bytes: &[u8], around: &Surroundings) -> Judgement {
    let faults = Faults::default();
    let Some(envelope) = envelope::open(bytes, &faults) else {
        return Judgement { problems: faults.placed(None).0, ..Judgement::default() };
    };
    let Some(document) = document(&envelope, &faults) else {
        return Judgement { problems: faults.placed(None).0, ..Judgement::default() };
    };
    let front_matter = to_json(&document.root);
    let no_entries = Vec::new();
    let entries = match &document.root.value {
        Yaml::Map(entries) => entries,
        Yaml::Null => &no_entries,
        other @ (Yaml::Bool(_) | Yaml::Whole(_) | Yaml::Real(_) | Yaml::Text(_) | Yaml::List(_)) => {
            let reason = format!("the front matter is {}, not a map of keys", other.shown());
            faults.add(Phase::Syntax, Spot::Node(document.root.id), "", reason, "write `key: value` lines");
            let problems = faults.placed(Some(&document)).0;
            return Judgement { problems, front_matter, ..Judgement::default() };
        }
    };
    let (name, definition) = whole(Section::new("", entries, &faults), &envelope, around, &faults);
    let (mut problems, mut warnings) = faults.placed(Some(&document));
    if around.strict {
        problems.append(&mut warnings);
    }
    let definition = definition.filter(|_| problems.is_empty());
    Judgement { definition, name, problems, warnings, front_matter }
}

/// The front matter as a tree.
fn document(envelope: &Envelope<'_>, faults: &Faults) -> Option<Document> {
    let document = match Document::parse(&envelope.yaml) {
        Ok(document) => document,
        Err(error) => {
            let line_max = error.place.map_or(usize::MAX, |place| place.line + 1);
            if let Some(tab) = envelope::indenting_tab(&envelope.yaml, line_max) {
                let reason = "a tab indents this line; YAML does not allow it";
                faults.add(Phase::Syntax, Spot::At(tab), "", reason, "indent with spaces, two a level");
            } else {
                let (message, begun) = begun_at(&error.message);
                let spot = begun.or(error.place).map_or(Spot::File, Spot::At);
                let reason = format!("the front matter is no YAML: {message}");
                faults.add(Phase::Syntax, spot, "", reason, remedy_for(message));
            }
            return None;
        }
    };
    if let Some(node) = too_deep(&document.root, 0) {
        let place = document.place(node);
        let reason = format!("values lie more than {DEPTH_MAX} levels deep");
        faults.add(Phase::Syntax, place.map_or(Spot::File, Spot::At), "", reason, "flatten them");
        return None;
    }
    Some(document)
}

/// The parser's message without the place at its end, which is where a quote or a bracket was opened. That place is the
/// better one when the end of the text was reached: there is nothing to see there.
fn begun_at(message: &str) -> (&str, Option<Place>) {
    let Some((words, place)) = message.rsplit_once(" at line ") else { return (message, None) };
    let numbers = place
        .split_once(" column ")
        .and_then(|(line, column)| Some(Place { line: line.parse().ok()?, column: column.parse().ok()? }));
    let open = ["end of stream", "',' or"].iter().any(|end| message.contains(end));
    numbers.map_or((message, None), |place| (words, open.then_some(place)))
}

/// What to do about an error of the parser.
fn remedy_for(message: &str) -> &'static str {
    const REMEDIES: &[(&str, &str)] = &[
        ("mapping values are not allowed", "put a text that contains `: ` into quotes"),
        ("did not find expected key", "give keys of one map the same indentation, and close quotes"),
        ("did not find expected ',' or", "close the bracket, and put commas between items"),
        ("cannot start any token", "put a text that begins with `@`, `%` or a backquote into quotes"),
        ("unknown anchor", "define the anchor with `&name` before it, or put `*text` into quotes"),
        ("repetition limit", "write the values out instead of repeating them by aliases"),
        ("aliases repeat", "write the values out instead of repeating them by aliases"),
        ("recursion limit", "flatten the values"),
        ("second document", "close the front matter with `---` once"),
        ("tags", "remove the tag"),
        ("unexpected end of stream", "close the quote"),
    ];
    let found = REMEDIES.iter().find(|(words, _)| message.contains(words));
    found.map_or("correct the line; texts with special signs go into quotes", |(_, remedy)| remedy)
}

/// The whole of it. The name comes back even when the rest is wrong.
fn whole(
    mut top: Section<'_>,
    envelope: &Envelope<'_>,
    around: &Surroundings,
    faults: &Faults,
) -> (Option<AgentId>, Option<Definition>) {
    let name = identity::name(&mut top, faults);
    let version = identity::version(&mut top, faults);
    let capabilities = identity::capabilities(&mut top, faults);
    let parameters = prompts::parameters(&mut top, faults);
    let prompt = prompts::system_prompt(&mut top, envelope, &parameters, faults);
    let templates = prompts::templates(&mut top, &parameters, faults);
    let (mut permissions, network, max_tool_calls) = tools::permissions(&mut top, around, faults);
    let tool_config = tools::config(&mut top, &mut permissions, network, faults);
    let memory = upkeep::memory(&mut top, &parameters, faults);
    let limits = upkeep::limits(&mut top, &parameters, memory.scope, around);
    let limits = OwnLimits { max_tool_calls, ..limits };
    permissions.memory_writes &= memory.used.enabled;
    if let Some(most) = limits.memory_search_limit {
        permissions.memory_results_max = most;
    }
    let workspace = identity::workspace(&mut top);
    let about = identity::about(&mut top);
    let agent_type = top.text("agent_type", 100);
    let requires = identity::requires(&mut top, faults);
    let performance = upkeep::performance(&mut top, around);
    let conversation = upkeep::conversation(&mut top);
    let llm = upkeep::llm(&mut top, around);
    top.ignore(upkeep::IGNORED);
    top.finish();
    let definition = (|| {
        let (version, capabilities) = (version?, capabilities?);
        Some(Definition {
            name: name.clone()?,
            version,
            workspace,
            about,
            agent_type,
            capabilities,
            requires,
            permissions,
            tool_config,
            system_prompt: prompt?,
            body: envelope.body.replace("\r\n", "\n").trim().to_owned(),
            templates,
            parameters: parameters.values,
            limits,
            performance,
            conversation,
            memory: memory.used,
            llm,
        })
    })();
    (name, definition)
}
