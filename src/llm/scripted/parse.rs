//! Reads a file of rules; what is wrong with it has a line.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use caxton_events::turn::Usage;
use regex::Regex;
use serde_json::Value;

use super::template::{Json, Template};
use super::{CallTemplate, MODEL, Reply, Rule, Script, When};
use crate::config::{Document, Entry, Node, Place, Yaml, parse_duration};
use crate::llm::ModelErrorKind;

/// Words for the errors that a rule can give.
const ERRORS: &[&str] = &["timeout", "unreachable", "rate_limited", "failed", "garbled", "refused"];

/// Why a file of rules cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file could not be read.
    #[error("could not read the rules in {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A rule is wrong.
    #[error("{}{}: {message}", path.display(), place.map(|at| format!(":{at}")).unwrap_or_default())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where in it.
        place: Option<Place>,
        /// What is wrong, and what would be right.
        message: String,
    },
}

/// A fault in a text that has no name yet.
pub(super) struct Fault {
    place: Option<Place>,
    message: String,
}

impl Fault {
    pub(super) fn of(self, path: PathBuf) -> ScriptError {
        ScriptError::Wrong { path, place: self.place, message: self.message }
    }
}

pub(super) fn script(text: &str) -> Result<Script, Fault> {
    let document = Document::parse(text)
        .map_err(|error| Fault { place: error.place, message: error.message.clone() })?;
    let reader = Reader { document: &document };
    let mut script = Script { model: MODEL.to_owned(), rules: Vec::new() };
    for entry in reader.map(&document.root, &["model", "rules"])? {
        match entry.key.as_str() {
            "model" => reader.text(&entry.value)?.clone_into(&mut script.model),
            _ => {
                for item in reader.list(&entry.value)? {
                    script.rules.push(reader.rule(item)?);
                }
            }
        }
    }
    if script.rules.is_empty() {
        return Err(reader.fault(&document.root, "there are no rules; write `rules:` and a list below it"));
    }
    Ok(script)
}

struct Reader<'a> {
    document: &'a Document,
}

impl Reader<'_> {
    fn fault(&self, node: &Node, message: impl Into<String>) -> Fault {
        Fault { place: self.document.place(node.id), message: message.into() }
    }

    /// The entries of a map whose keys are among `known`, each once.
    fn map<'n>(&self, node: &'n Node, known: &[&str]) -> Result<&'n [Entry], Fault> {
        let Yaml::Map(entries) = &node.value else {
            let message = format!("{} is not a map of {}", node.value.shown(), known.join(", "));
            return Err(self.fault(node, message));
        };
        for (index, entry) in entries.iter().enumerate() {
            let place = || self.document.place(entry.key_id);
            if !known.contains(&entry.key.as_str()) {
                let message = format!("unknown key {:?}; the keys here are {}", entry.key, known.join(", "));
                return Err(Fault { place: place(), message });
            }
            if entries[..index].iter().any(|before| before.key == entry.key) {
                return Err(Fault { place: place(), message: format!("{} is given twice", entry.key) });
            }
        }
        Ok(entries)
    }

    fn list<'n>(&self, node: &'n Node) -> Result<&'n [Node], Fault> {
        if let Yaml::List(items) = &node.value { Ok(items) } else { Err(self.kind(node, "a list")) }
    }

    fn kind(&self, node: &Node, what: &str) -> Fault {
        self.fault(node, format!("{} is not {what}", node.value.shown()))
    }

    fn text<'n>(&self, node: &'n Node) -> Result<&'n str, Fault> {
        node.value.text().ok_or_else(|| self.kind(node, "a text"))
    }

    fn whole(&self, node: &Node, least: u64) -> Result<u64, Fault> {
        let found = if let Yaml::Whole(number) = node.value { u64::try_from(number).ok() } else { None };
        let found = found.filter(|number| *number >= least && *number < u64::MAX);
        found.ok_or_else(|| self.kind(node, &format!("a whole number of at least {least}")))
    }

    fn duration(&self, node: &Node) -> Result<Duration, Fault> {
        let found = node.value.text().and_then(parse_duration);
        found.ok_or_else(|| self.kind(node, "a duration such as 20ms"))
    }

    fn template(&self, node: &Node, groups: &[String]) -> Result<Template, Fault> {
        Template::parse(self.text(node)?, groups).map_err(|message| self.fault(node, message))
    }

    fn rule(&self, node: &Node) -> Result<Rule, Fault> {
        let keys = ["when", "times", "delay", "answer", "calls", "error", "usage"];
        let entries = self.map(node, &keys)?;
        let value = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
        let when = value("when").map_or_else(|| Ok(When::default()), |node| self.when(node))?;
        let groups: Vec<String> = when.matches.as_ref().map(groups_of).unwrap_or_default();
        let (answer, calls, error) = (value("answer"), value("calls"), value("error"));
        let reply = match (answer, calls, error) {
            (None, None, None) => {
                return Err(self.fault(node, "the rule does nothing; give it answer, calls or error"));
            }
            (None, None, Some(error)) => self.error(error)?,
            (_, _, Some(error)) => {
                return Err(self.fault(error, "a rule gives an answer or an error, not both"));
            }
            (text, calls, None) => Reply::Answer {
                text: text.map_or_else(|| Ok(Template::default()), |node| self.template(node, &groups))?,
                calls: calls.map_or_else(|| Ok(Vec::new()), |node| self.calls(node, &groups))?,
            },
        };
        let times = value("times").map_or(Ok(u64::MAX), |node| self.whole(node, 1))?;
        Ok(Rule {
            when,
            delay: value("delay").map_or(Ok(Duration::ZERO), |node| self.duration(node))?,
            reply,
            usage: value("usage").map(|node| self.usage(node)).transpose()?,
            left: AtomicU64::new(times),
        })
    }

    fn when(&self, node: &Node) -> Result<When, Fault> {
        let keys = ["contains", "matches", "performative", "step", "system_contains", "result_contains"];
        let mut when = When::default();
        for Entry { key, value, .. } in self.map(node, &keys)? {
            match key.as_str() {
                "contains" => {
                    let one = std::slice::from_ref(value);
                    let items = if let Yaml::List(items) = &value.value { items.as_slice() } else { one };
                    let words = items.iter().map(|item| self.text(item).map(str::to_lowercase));
                    when.contains = words.collect::<Result<_, _>>()?;
                }
                "matches" => {
                    let regex = Regex::new(self.text(value)?);
                    when.matches = Some(regex.map_err(|error| {
                        self.fault(value, format!("not a regular expression: {error}").replace('\n', " "))
                    })?);
                }
                "performative" => when.performative = Some(self.text(value)?.to_owned()),
                "step" => when.step = Some(self.whole(value, 1)?),
                "system_contains" => when.system_contains = Some(self.text(value)?.to_owned()),
                _ => when.result_contains = Some(self.text(value)?.to_owned()),
            }
        }
        Ok(when)
    }

    fn calls(&self, node: &Node, groups: &[String]) -> Result<Vec<CallTemplate>, Fault> {
        let call = |item: &Node| {
            let entries = self.map(item, &["tool", "arguments"])?;
            let value = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
            let Some(tool) = value("tool") else { return Err(self.fault(item, "the call names no tool")) };
            let arguments = value("arguments");
            if let Some(node) = arguments
                && !matches!(node.value, Yaml::Map(_))
            {
                return Err(self.kind(node, "a map of arguments"));
            }
            Ok(CallTemplate {
                tool: self.text(tool)?.to_owned(),
                arguments: arguments
                    .map_or_else(|| Ok(Json::Map(Vec::new())), |node| self.json(node, groups))?,
            })
        };
        self.list(node)?.iter().map(call).collect()
    }

    fn json(&self, node: &Node, groups: &[String]) -> Result<Json, Fault> {
        Ok(match &node.value {
            Yaml::Null => Json::Plain(Value::Null),
            Yaml::Bool(value) => Json::Plain((*value).into()),
            Yaml::Whole(value) => {
                let number = i64::try_from(*value).map_err(|_| self.kind(node, "a number of 64 bits"))?;
                Json::Plain(number.into())
            }
            Yaml::Real(value) => Json::Plain((*value).into()),
            Yaml::Text(_) => Json::Text(self.template(node, groups)?),
            Yaml::List(items) => {
                Json::List(items.iter().map(|item| self.json(item, groups)).collect::<Result<_, _>>()?)
            }
            Yaml::Map(entries) => {
                let filled =
                    entries.iter().map(|entry| Ok((entry.key.clone(), self.json(&entry.value, groups)?)));
                Json::Map(filled.collect::<Result<_, Fault>>()?)
            }
        })
    }

    fn error(&self, node: &Node) -> Result<Reply, Fault> {
        let entries = self.map(node, &["kind", "message", "retry_after"])?;
        let value = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
        let Some(kind_node) = value("kind") else { return Err(self.fault(node, "the error has no kind")) };
        let retry_after = value("retry_after").map(|node| self.duration(node)).transpose()?;
        let kind = match self.text(kind_node)? {
            "timeout" => ModelErrorKind::Timeout,
            "unreachable" => ModelErrorKind::Unreachable,
            "rate_limited" => ModelErrorKind::RateLimited { retry_after },
            "failed" => ModelErrorKind::Failed,
            "garbled" => ModelErrorKind::Garbled,
            "refused" => ModelErrorKind::Refused,
            _ => return Err(self.kind(kind_node, &format!("one of {}", ERRORS.join(", ")))),
        };
        let message = value("message").map_or(Ok("the rule says so"), |node| self.text(node))?;
        Ok(Reply::Error { kind, message: message.to_owned() })
    }

    fn usage(&self, node: &Node) -> Result<Usage, Fault> {
        let mut usage = Usage::default();
        for Entry { key, value, .. } in self.map(node, &["input_tokens", "output_tokens"])? {
            let count = u32::try_from(self.whole(value, 0)?).unwrap_or(u32::MAX);
            if key == "input_tokens" {
                usage.input_tokens = count;
            } else {
                usage.output_tokens = count;
            }
        }
        Ok(usage)
    }
}

/// The groups of an expression, by number and, where they have one, by name.
fn groups_of(regex: &Regex) -> Vec<String> {
    let named = regex.capture_names().flatten().map(str::to_owned);
    (0..regex.captures_len()).map(|number| number.to_string()).chain(named).collect()
}
