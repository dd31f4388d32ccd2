//! Texts with `{{name}}` in them.

use regex::Captures;
use serde_json::{Map, Value};

use crate::llm::Fact;

/// Names that every template knows.
const NAMES: &[&str] = &["question", "last", "result", "fact", "source", "step"];

/// What a name begins with that means a member of the newest result, which is JSON: `result.answer.content`.
const RESULT_PART: &str = "result.";

/// A member of JSON as text; nothing where there is none.
fn part_of(json: &str, path: &str) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(json) else { return String::new() };
    for name in path.split('.') {
        let member = match &mut value {
            Value::Object(members) => members.remove(name),
            Value::Array(items) => name.parse().ok().and_then(|at: usize| items.get_mut(at)).map(Value::take),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        let Some(member) = member else { return String::new() };
        value = member;
    }
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What stands for the names.
pub(super) struct Values<'a> {
    pub(super) question: &'a str,
    pub(super) last: &'a str,
    pub(super) result: &'a str,
    pub(super) fact: Option<&'a Fact>,
    pub(super) step: usize,
    pub(super) groups: Option<Captures<'a>>,
}

impl Values<'_> {
    fn of(&self, name: &str) -> String {
        match name {
            "question" => self.question.to_owned(),
            "last" => self.last.to_owned(),
            "result" => self.result.to_owned(),
            "fact" => self.fact.map_or_else(String::new, |fact| fact.text.clone()),
            "source" => self.fact.map_or_else(String::new, |fact| fact.source.clone()),
            "step" => self.step.to_string(),
            name if name.starts_with(RESULT_PART) => part_of(self.result, &name[RESULT_PART.len()..]),
            group => {
                let found = self.groups.as_ref().and_then(|groups| match group.parse() {
                    Ok(number) => groups.get(number),
                    Err(_) => groups.name(group),
                });
                found.map_or_else(String::new, |group| group.as_str().to_owned())
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(String),
}

/// A text with names in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Template(Vec<Part>);

impl Template {
    /// Reads a template that may use `groups` beside the names that all know; says what is wrong with it.
    pub(super) fn parse(text: &str, groups: &[String]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("{{") {
            let Some((name, after)) = behind.split_once("}}") else {
                return Err("`{{` has no `}}`".to_owned());
            };
            let name = name.trim();
            let known = NAMES.contains(&name) || name.starts_with(RESULT_PART);
            if !known && !groups.iter().any(|group| group == name) {
                let known: Vec<&str> =
                    NAMES.iter().copied().chain(groups.iter().map(String::as_str)).collect();
                return Err(format!("`{{{{{name}}}}}` stands for nothing; known are {}", known.join(", ")));
            }
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Name(name.to_owned()));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    pub(super) fn fill(&self, values: &Values<'_>) -> String {
        let fill = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Name(name) => values.of(name),
        };
        self.0.iter().map(fill).collect()
    }
}

/// JSON whose texts are templates.
#[derive(Debug, Clone)]
pub(super) enum Json {
    Plain(Value),
    Text(Template),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

impl Json {
    pub(super) fn fill(&self, values: &Values<'_>) -> Value {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Text(template) => template.fill(values).into(),
            Self::List(items) => items.iter().map(|item| item.fill(values)).collect(),
            Self::Map(entries) => {
                let filled = entries.iter().map(|(key, value)| (key.clone(), value.fill(values)));
                Value::Object(filled.collect::<Map<_, _>>())
            }
        }
    }
}
