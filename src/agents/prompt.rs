//! Prompts: texts with `{{name}}` and `{{name:default}}`, rendered by minijinja.
//!
//! Only these two forms mean something. Everything else, `{% … %}` and `{# … #}` included, is text, and values are
//! never read as templates.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use caxton_events::conversation::{Content, Message, Performative};
use minijinja::{Environment, UndefinedBehavior, Value};

pub use super::placeholders::RESERVED;
use super::spec::AgentSpec;

const SYSTEM: &str = "system_prompt";
const USER: &str = "user_prompt_template";
const REQUEST: &str = "request_handler";
const QUERY: &str = "query_handler";
const INFORM: &str = "inform_handler";
const SEARCH: &str = "query_template";

/// What variables of the engine begin with: those that have a value or nothing, and those that may be undefined.
const REQUIRED: &str = "r_";
const OPTIONAL: &str = "o_";

/// Why a text is no template.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The form is not one of the two.
    #[error("{template}: `{{{{{found}}}}}` is no placeholder; write {{{{name}}}} or {{{{name:default}}}}")]
    Placeholder {
        /// Which text.
        template: &'static str,
        /// What stands between the braces.
        found: String,
    },
    /// A placeholder is not closed.
    #[error("{template}: `{{{{` at byte {byte} is not closed")]
    Unclosed {
        /// Which text.
        template: &'static str,
        /// Where it stands.
        byte: usize,
    },
    /// The template engine refuses it.
    #[error("{template}: the template cannot be used")]
    Engine {
        /// Which text.
        template: &'static str,
        /// What the engine says.
        #[source]
        source: minijinja::Error,
    },
}

/// Values by name.
pub type Values = BTreeMap<String, String>;

/// A rendered text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Names that had neither a value nor a default; nothing stands in their places.
    pub missing: BTreeSet<String>,
}

/// The templates of one version of an agent.
#[derive(Debug)]
pub struct Prompts {
    templates: BTreeMap<&'static str, Template>,
    /// Compiled once; `None`: at every use.
    compiled: Option<Environment<'static>>,
}

/// A template in the engine's words.
#[derive(Debug)]
struct Template {
    source: String,
    names: BTreeSet<String>,
    required: BTreeSet<String>,
}

impl Prompts {
    /// Checks all templates of an agent and, if its file says so, keeps them compiled.
    ///
    /// # Errors
    ///
    /// [`PromptError`] for the first one that is none.
    pub fn new(spec: &AgentSpec) -> Result<Self, PromptError> {
        let texts = [
            (SYSTEM, Some(&spec.system_prompt)),
            (USER, spec.templates.user.as_ref()),
            (REQUEST, spec.templates.request.as_ref()),
            (QUERY, spec.templates.query.as_ref()),
            (INFORM, spec.templates.inform.as_ref()),
            (SEARCH, spec.memory.query_template.as_ref()),
        ];
        let mut templates = BTreeMap::new();
        let mut compiled = environment();
        for (name, text) in texts {
            let Some(text) = text else { continue };
            let template = translate(name, text)?;
            compiled
                .add_template_owned(name, template.source.clone())
                .map_err(|source| PromptError::Engine { template: name, source })?;
            templates.insert(name, template);
        }
        Ok(Self { templates, compiled: spec.performance.optimize_prompts.then_some(compiled) })
    }

    /// Whether the texts that a message of this performative is put in have a place for `name`.
    pub fn places(&self, performative: Performative, name: &str) -> bool {
        [SYSTEM, self.user_template(performative)]
            .into_iter()
            .filter_map(|template| self.templates.get(template))
            .any(|template| template.names.contains(name))
    }

    /// What the agent is told before everything else.
    ///
    /// # Errors
    ///
    /// [`PromptError::Engine`].
    pub fn system(&self, values: &Values) -> Result<Rendered, PromptError> {
        self.render(SYSTEM, values)
    }

    /// What the model is asked about a message of this performative.
    ///
    /// # Errors
    ///
    /// [`PromptError::Engine`].
    pub fn user(&self, performative: Performative, values: &Values) -> Result<Rendered, PromptError> {
        self.render(self.user_template(performative), values)
    }

    /// What memory is searched for.
    ///
    /// # Errors
    ///
    /// [`PromptError::Engine`].
    pub fn search(&self, values: &Values) -> Result<Rendered, PromptError> {
        self.render(SEARCH, values)
    }

    fn user_template(&self, performative: Performative) -> &'static str {
        let own = match performative {
            Performative::Request => REQUEST,
            Performative::Query => QUERY,
            Performative::Inform => INFORM,
            Performative::Propose
            | Performative::AcceptProposal
            | Performative::RejectProposal
            | Performative::Failure
            | Performative::NotUnderstood
            | Performative::Cfp
            | Performative::Agree
            | Performative::Refuse
            | Performative::Confirm
            | Performative::Disconfirm
            | Performative::Cancel
            | Performative::Subscribe => USER,
        };
        if self.templates.contains_key(own) { own } else { USER }
    }

    /// Renders a template; without one, the message stands for it.
    fn render(&self, name: &'static str, values: &Values) -> Result<Rendered, PromptError> {
        let Some(template) = self.templates.get(name) else {
            let text = values.get("message_content").cloned().unwrap_or_default();
            return Ok(Rendered { text, missing: BTreeSet::new() });
        };
        let missing: BTreeSet<String> =
            template.required.iter().filter(|name| !values.contains_key(*name)).cloned().collect();
        // Missing names are bound to nothing by name: what the strict engine still finds undefined is our mistake.
        let mut bound: Vec<(String, Value)> =
            missing.iter().map(|name| (format!("{REQUIRED}{name}"), Value::from(""))).collect();
        for (name, value) in values.iter().filter(|(name, _)| template.names.contains(*name)) {
            bound.push((format!("{REQUIRED}{name}"), Value::from(value.as_str())));
            bound.push((format!("{OPTIONAL}{name}"), Value::from(value.as_str())));
        }
        let bound = Value::from_pairs(bound);
        let rendered = match &self.compiled {
            Some(compiled) => compiled.get_template(name).and_then(|template| template.render(bound)),
            None => environment().render_named_str(name, &template.source, bound),
        };
        let text = rendered.map_err(|source| PromptError::Engine { template: name, source })?;
        Ok(Rendered { text, missing })
    }
}

/// An engine that knows no escaping, no loading and no undefined values.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment
}

/// A text with placeholders in the engine's words: each piece of text as a quoted string, so that nothing in it means
/// anything to the engine.
fn translate(template: &'static str, text: &str) -> Result<Template, PromptError> {
    let mut translated =
        Template { source: String::new(), names: BTreeSet::new(), required: BTreeSet::new() };
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let byte = text.len() - rest.len() + start;
        let inner = &rest[start + 2..];
        let end = inner.find("}}").ok_or(PromptError::Unclosed { template, byte })?;
        let (inner, after) = (&inner[..end], &inner[end + 2..]);
        let (name, default) = match inner.split_once(':') {
            Some((name, default)) => (name.trim(), Some(default)),
            None => (inner.trim(), None),
        };
        if !is_name(name) || inner.contains("{{") {
            return Err(PromptError::Placeholder { template, found: inner.chars().take(64).collect() });
        }
        push_text(&mut translated.source, &rest[..start]);
        translated.names.insert(name.to_owned());
        let source = &mut translated.source;
        // Writing to a string cannot fail. The prefix keeps names apart from the words of the engine, such as `in`.
        let _ = if let Some(default) = default {
            write!(source, "{{{{ {OPTIONAL}{name} | default({}) }}}}", quoted(default))
        } else {
            translated.required.insert(name.to_owned());
            write!(source, "{{{{ {REQUIRED}{name} }}}}")
        };
        rest = after;
    }
    push_text(&mut translated.source, rest);
    Ok(translated)
}

fn push_text(source: &mut String, text: &str) {
    if !text.is_empty() {
        let _ = write!(source, "{{{{ {} }}}}", quoted(text));
    }
}

/// A string of the engine: JSON's escapes are among its own.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn is_name(name: &str) -> bool {
    let letter = |sign: char| sign.is_ascii_alphabetic() || sign == '_';
    name.starts_with(letter) && name.chars().all(|sign| letter(sign) || sign.is_ascii_digit())
}

/// What stands for the placeholders of a message: [`RESERVED`] names, then the agent's parameters, then the fields of a
/// message that is a JSON object. `context` holds the texts of the context by the same names.
pub fn values(spec: &AgentSpec, message: &Message, timestamp: &str, context: &Values) -> Values {
    let content = message.content.as_str();
    let fields = match &message.content {
        Content::Json(text) => serde_json::from_str(text).unwrap_or(serde_json::Value::Null),
        Content::Text(_) => serde_json::Value::Null,
    };
    let mut values = Values::new();
    for (name, value) in fields.as_object().into_iter().flatten().chain(&spec.parameters) {
        values.insert(name.clone(), shown(value));
    }
    let data = fields.get("data").map_or_else(|| content.to_owned(), shown);
    let capability = message.routing.as_ref().map_or("", |routing| routing.capability.as_str());
    for (name, value) in [
        ("request", content),
        ("data", &data),
        ("user_id", message.sender.as_str()),
        ("timestamp", timestamp),
        ("message_content", content),
        ("sender_agent", message.sender.as_str()),
        ("capability", capability),
        ("context", ""),
        ("memory_context", ""),
        ("conversation_history", ""),
    ] {
        values.insert(name.to_owned(), value.to_owned());
    }
    values.extend(context.iter().map(|(name, value)| (name.clone(), value.clone())));
    values
}

fn shown(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::scripted::{message, spec};

    fn prompts(system: &str, optimize: bool) -> Result<Prompts, PromptError> {
        let mut spec = spec("ada");
        spec.system_prompt = system.to_owned();
        spec.performance.optimize_prompts = optimize;
        Prompts::new(&spec)
    }

    #[track_caller]
    fn renders(template: &str, values: &[(&str, &str)], text: &str, missing: &[&str]) {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        for optimize in [true, false] {
            let rendered = prompts(template, optimize).unwrap().system(&values).unwrap();
            assert_eq!(rendered.text, text, "{template}");
            assert_eq!(
                rendered.missing.iter().map(String::as_str).collect::<Vec<_>>(),
                missing,
                "{template}"
            );
        }
    }

    #[test]
    fn names_get_values_defaults_or_are_reported() {
        renders("Hi {{ name }}!", &[("name", "Ada")], "Hi Ada!", &[]);
        renders("{{a}}{{b:two, \"2\"}}{{c:}}", &[("a", "1")], "1two, \"2\"", &[]);
        renders("{{b:two}}", &[("b", "2")], "2", &[]);
        renders("<{{y}}|{{x}}|{{x:d}}>", &[], "<||d>", &["x", "y"]);
        renders("", &[], "", &[]);
    }

    #[test]
    fn only_placeholders_mean_anything() {
        for text in
            ["{% if x %}", "{# gone #}", "{\"a\": {\"b\": 1}}\n", "100 % {", "}}", "é \\ \" '\u{1}\u{2028}"]
        {
            renders(text, &[], text, &[]);
        }
        let value = "{{ other }} {% raw %} <b>&amp;";
        renders("{{x}}", &[("x", value), ("other", "no")], value, &[]);
    }

    #[test]
    fn names_may_be_words_of_the_engine() {
        for name in
            RESERVED.iter().chain(&["if", "not", "in", "true", "loop", "self", "range", "none", "and"])
        {
            renders(&format!("[{{{{{name}}}}}]"), &[(name, "v")], "[v]", &[]);
            renders(&format!("[{{{{{name}}}}}]"), &[], "[]", &[name]);
            renders(&format!("[{{{{{name}:d}}}}]"), &[], "[d]", &[]);
        }
    }

    #[test]
    fn other_forms_are_refused_by_name() {
        for (text, words) in [
            ("{{#if a}}", "{{#if a}}"),
            ("{{/if}}", "no placeholder"),
            ("{{a.b}}", "no placeholder"),
            ("{{a|upper}}", "no placeholder"),
            ("{{}}", "no placeholder"),
            ("{{1}}", "no placeholder"),
            ("{{a {{b}}", "no placeholder"),
            ("ab {{c", "byte 3"),
        ] {
            let error = prompts(text, true).unwrap_err().to_string();
            assert!(error.starts_with("system_prompt: ") && error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_message_is_put_by_its_performative() {
        let mut spec = spec("ada");
        spec.templates.user = Some("any {{message_content}}".to_owned());
        spec.templates.query = Some("query {{memory_context}}".to_owned());
        let prompts = Prompts::new(&spec).unwrap();
        let values = values(&spec, &message("x"), "now", &Values::new());
        for (performative, text) in
            [(Performative::Query, "query "), (Performative::Request, "any x"), (Performative::Cfp, "any x")]
        {
            assert_eq!(prompts.user(performative, &values).unwrap().text, text);
        }
        assert!(prompts.places(Performative::Query, "memory_context"));
        assert!(!prompts.places(Performative::Request, "memory_context"));
    }

    #[test]
    fn what_the_server_says_hides_what_others_say() {
        let mut spec = spec("ada");
        spec.parameters.insert("tone".to_owned(), "dry".into());
        spec.parameters.insert("limit".to_owned(), 3.into());
        spec.parameters.insert("sender_agent".to_owned(), "mallory".into());
        let mut message = message("");
        let text = r#"{"tone":"loud","topic":"bees","data":{"n":1},"timestamp":"never"}"#;
        message.content = Content::Json(text.to_owned());
        let context = Values::from([("memory_context".to_owned(), "m".to_owned())]);
        let values = values(&spec, &message, "now", &context);
        for (name, value) in [
            ("tone", "dry"),
            ("limit", "3"),
            ("topic", "bees"),
            ("data", r#"{"n":1}"#),
            ("sender_agent", "bob"),
            ("timestamp", "now"),
            ("memory_context", "m"),
            ("conversation_history", ""),
        ] {
            assert_eq!(values.get(name).map(String::as_str), Some(value), "{name}");
        }
    }
}
