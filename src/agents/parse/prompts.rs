//! What an agent is told: its prompt, its templates and the values that fill them.

use std::collections::BTreeMap;
use std::time::Duration;

use caxton_events::limits::AGENT_FILE_BYTES_MAX;
use serde_json::{Map, Value};

use super::super::definition::PromptTemplates;
use super::super::envelope::{Envelope, end_of};
use super::super::fault::{Faults, Phase, Spot};
use super::super::placeholders::{RESERVED, TemplateFault, placeholders, without_default};
use super::super::reading::{Placed, Section, to_json};
use crate::config::Place;
use crate::config::document::NodeId;

/// `parameters`, with those that mean something to the server.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    pub(super) values: Map<String, Value>,
    pub(super) response_timeout: Option<Duration>,
    pub(super) max_context_length: Option<u32>,
}

impl Parameters {
    /// Placeholders of a good template that may stay empty: neither a turn nor the file fills them, and they have no default.
    fn doubts(&self, template: &str) -> Vec<TemplateFault> {
        let is_known = |name: &str| RESERVED.contains(&name) || self.values.contains_key(name);
        let doubtful = without_default(template).into_iter().filter(|(_, name)| !is_known(name));
        let doubt = |(byte, name): (usize, &str)| {
            let known = RESERVED.iter().copied().chain(self.values.keys().map(String::as_str));
            let known = known.collect::<Vec<_>>().join(", ");
            TemplateFault {
                byte,
                reason: format!(
                    "nothing fills {{{{{name}}}}}, unless the message is a JSON object that has it; else nothing stands there"
                ),
                remedy: format!(
                    "add it to `parameters`, or write a default, as in {{{{{name}:none}}}}; the names are {known}"
                ),
            }
        };
        doubtful.map(doubt).collect()
    }
}

/// The key `system_prompt`, or else the body.
pub(super) fn system_prompt(
    top: &mut Section<'_>,
    envelope: &Envelope<'_>,
    parameters: &Parameters,
    faults: &Faults,
) -> Option<String> {
    const REMEDY: &str =
        "write what the agent is and does below the front matter, or under `system_prompt: |`";
    let given = top.take("system_prompt").is_some();
    if let Some((node, text)) = top.placed_text("system_prompt", AGENT_FILE_BYTES_MAX) {
        check_template(&(node, text.clone()), "system_prompt", parameters, faults);
        return Some(text.trim().to_owned());
    }
    if given {
        return None;
    }
    if envelope.body.trim().is_empty() {
        let reason = "the agent has no instructions";
        faults.add(Phase::Required, Spot::File, "system_prompt", reason, REMEDY);
        return None;
    }
    let spot = |byte: usize| {
        let (row, column) = end_of(&envelope.body[..byte]);
        Spot::At(Place { line: envelope.body_line + row - 1, column })
    };
    judge_template(envelope.body, "body", spot, parameters, faults);
    Some(envelope.body.replace("\r\n", "\n").trim().to_owned())
}

fn check_template((node, text): &Placed, field: &str, parameters: &Parameters, faults: &Faults) {
    judge_template(text, field, |byte| Spot::InText(*node, byte), parameters, faults);
}

/// Notes what is wrong with a template, or else what is doubtful. `spot` is where a byte of it stands.
fn judge_template(
    text: &str,
    field: &str,
    spot: impl Fn(usize) -> Spot,
    parameters: &Parameters,
    faults: &Faults,
) {
    match placeholders(text) {
        Ok(_) => {
            for doubt in parameters.doubts(text) {
                faults.warn(spot(doubt.byte), field, doubt.reason, &doubt.remedy);
            }
        }
        Err(found) => {
            for fault in found {
                faults.add(Phase::Templates, spot(fault.byte), field, fault.reason, &fault.remedy);
            }
        }
    }
}

/// `parameters`: values for templates, two of them limits.
pub(super) fn parameters(top: &mut Section<'_>, faults: &Faults) -> Parameters {
    let Some(values) = top.free("parameters") else { return Parameters::default() };
    for name in RESERVED.iter().filter(|name| values.contains_key(**name)) {
        let field = format!("parameters.{name}");
        let spot = top.section("parameters").map_or(Spot::File, |section| section.spot(name));
        let reason = format!("{name} is filled by every turn");
        faults.add(Phase::Templates, spot, &field, reason, "give the parameter another name");
    }
    let mut typed = Parameters { values, ..Parameters::default() };
    if let Some(mut section) = top.section("parameters") {
        typed.response_timeout = section.time("response_timeout");
        typed.max_context_length =
            section.whole("max_context_length", 1..=10_000_000).and_then(|tokens| u32::try_from(tokens).ok());
    }
    typed
}

/// The templates, wherever the file puts them.
pub(super) fn templates(top: &mut Section<'_>, parameters: &Parameters, faults: &Faults) -> PromptTemplates {
    let mut templates = PromptTemplates::default();
    if let Some(text) = top.placed_text("user_prompt_template", AGENT_FILE_BYTES_MAX) {
        check_template(&text, "user_prompt_template", parameters, faults);
        templates.user = Some(text.1);
    }
    let mut named = BTreeMap::new();
    for key in ["prompt_templates", "user_prompt_templates"] {
        for entry in top.named(key) {
            let field = format!("{key}.{}", entry.key);
            let Some(text) = entry.value.value.text() else {
                let reason = format!("{} is not a text", entry.value.value.shown());
                faults.add(
                    Phase::Values,
                    node(entry.value.id),
                    &field,
                    reason,
                    "write the template as a text",
                );
                continue;
            };
            check_template(&(entry.value.id, text.to_owned()), &field, parameters, faults);
            named.insert(entry.key.clone(), text.to_owned());
        }
    }
    templates.request = named.remove("request_handler");
    templates.query = named.remove("query_handler");
    templates.inform = named.remove("inform_handler");
    templates.named = named;
    templates
}

const fn node(id: NodeId) -> Spot {
    Spot::Node(id)
}

/// A template that stands alone, as in `query_template`.
pub(super) fn single(
    section: &mut Section<'_>,
    key: &'static str,
    parameters: &Parameters,
    faults: &Faults,
) -> Option<String> {
    let text = section.placed_text(key, AGENT_FILE_BYTES_MAX)?;
    check_template(&text, &section.name(key), parameters, faults);
    Some(text.1)
}

/// Everything below a key, for keys that are kept as they were written.
pub(super) fn kept(section: &mut Section<'_>, key: &'static str) -> Option<Value> {
    section.take(key).map(to_json)
}
