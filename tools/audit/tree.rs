//! An explanation, as a tree for people and as JSON.

use std::fmt;

use caxton_events::{Seq, TurnId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::format::Unread;
use crate::log::Line;

/// Characters of a text that are shown of an event.
const TEXT_CHARS_MAX: usize = 500;
/// Characters of a step that are shown on its line.
const STEP_CHARS_MAX: usize = 160;

/// Why something is as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// What was asked for.
    pub subject: String,
    /// The end of the log when it was asked.
    pub head_seq: Seq,
    /// The first event that the log has: what led to something before it was dropped.
    #[serde(default)]
    pub first_seq: Seq,
    /// The events that it is, each with what led to it.
    pub because: Vec<Cause>,
    /// What it led to, one step forward.
    pub led_to: Vec<Cause>,
    /// Whether something was left out because of a bound.
    pub cut: bool,
    /// Stretches of the log that could not be read on the way.
    pub gaps: Vec<Unread>,
}

/// An event or a turn, and what led to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// How it bears on what stands above it.
    pub relation: String,
    /// The event, long texts shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Line>,
    /// The turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<TurnShown>,
    /// It is explained at another place of the answer.
    #[serde(default)]
    pub repeated: bool,
    /// What led to it.
    #[serde(default)]
    pub because: Vec<Cause>,
}

/// A turn: what happened in it, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnShown {
    /// Its number.
    pub turn_id: String,
    /// Who.
    pub agent_id: Option<String>,
    /// Its events.
    pub steps: Vec<Step>,
}

/// One event of a turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its position.
    pub seq: Seq,
    /// Its kind.
    pub kind: String,
    /// What it says, on one line.
    pub text: String,
    /// Its fields, without the prompts and with long texts shortened.
    pub data: Value,
}

impl Cause {
    pub(super) fn of_event(relation: &str, mut line: Line, repeated: bool) -> Self {
        shorten(&mut line.data);
        Self { relation: relation.to_owned(), event: Some(line), turn: None, repeated, because: Vec::new() }
    }

    pub(super) fn of_turn(turn: TurnShown, repeated: bool) -> Self {
        Self {
            relation: "in the turn".to_owned(),
            event: None,
            turn: Some(turn),
            repeated,
            because: Vec::new(),
        }
    }
}

impl TurnShown {
    /// A turn that is shown elsewhere.
    pub(super) fn named(turn: TurnId) -> Self {
        Self { turn_id: turn.to_string(), agent_id: None, steps: Vec::new() }
    }

    /// A turn with its events.
    pub(super) fn of(turn: TurnId, lines: Vec<Line>) -> Self {
        let agent_id = lines.first().map(|line| line.actor.clone());
        let step = |mut line: Line| {
            let text = text_of(&line);
            if let Some(fields) = line.data.as_object_mut() {
                fields
                    .retain(|name, _| !matches!(name.as_str(), "turn_id" | "system_prompt" | "user_prompt"));
            }
            shorten(&mut line.data);
            Step { seq: line.seq, kind: line.kind, text, data: line.data }
        };
        Self { turn_id: turn.to_string(), agent_id, steps: lines.into_iter().map(step).collect() }
    }
}

/// What an event of a turn says, for people.
fn text_of(line: &Line) -> String {
    let data = &line.data;
    let text = |name: &str| data[name].as_str().unwrap_or_default();
    match line.kind.as_str() {
        "turn.started" => {
            format!("took up the message at #{}, attempt {}", data["message_seq"], data["attempt"])
        }
        "turn.context_prepared" => {
            let parts = data["parts"].as_array().map_or(&[][..], Vec::as_slice);
            let used = parts.iter().flat_map(|part| part["used"].as_array().into_iter().flatten());
            let used: Vec<&str> = used.filter_map(Value::as_str).collect();
            format!("was told of {}", if used.is_empty() { "nothing".to_owned() } else { used.join(", ") })
        }
        "turn.model_answered" => {
            let calls = data["tool_calls"].as_array().into_iter().flatten();
            let calls: Vec<String> = calls
                .map(|call| {
                    let name = |name: &str| call[name].as_str().unwrap_or_default().to_owned();
                    format!(
                        "{} {}",
                        name("tool"),
                        call.get("arguments").map_or(String::new(), Value::to_string)
                    )
                })
                .collect();
            let said = if calls.is_empty() {
                text("text").to_owned()
            } else {
                format!("calls {}", calls.join(", "))
            };
            format!("{}/{}: {said}", text("provider"), text("model"))
        }
        "turn.model_failed" => format!("{}/{} failed: {}", text("provider"), text("model"), text("error")),
        "turn.tool_started" => format!("calls {}", text("tool")),
        "turn.tool_answered" => format!("{} answered: {}", text("tool"), text("result")),
        "turn.tool_refused" => format!("{} was refused: {}", text("tool"), text("reason")),
        "turn.finished" => match data["reply_message_id"].as_str() {
            Some(reply) => format!("done, with the message {reply}"),
            None => "done".to_owned(),
        },
        "turn.failed" => format!("came to nothing: {}", text("reason")),
        _ => data.to_string(),
    }
}

/// Cuts every long text in a value.
fn shorten(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some((end, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
                text.truncate(end);
                text.push('…');
            }
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(members) => members.values_mut().for_each(shorten),
        Value::Null | Value::Bool(_) | Value::Number(_) => (),
    }
}

/// A text on one line, cut where it is long.
fn on_one_line(text: &str, chars_max: usize) -> String {
    let mut shown: String =
        text.chars().take(chars_max).map(|sign| if sign.is_control() { ' ' } else { sign }).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "why {}", self.subject)?;
        branches(f, &self.because, "")?;
        if !self.led_to.is_empty() {
            write!(f, "\nand then")?;
            branches(f, &self.led_to, "")?;
        }
        for Unread { from_seq, to_seq, what } in &self.gaps {
            write!(f, "\nnot read: {from_seq} to {to_seq}: {what}")?;
        }
        if self.first_seq > Seq::FIRST {
            write!(f, "\nthe log begins at {}: causes that lie before were dropped", self.first_seq)?;
        }
        if self.cut {
            write!(
                f,
                "\nmore was left out: ask for more with depth and nodes, or about one of the events above"
            )?;
        }
        Ok(())
    }
}

fn branches(f: &mut fmt::Formatter<'_>, causes: &[Cause], indent: &str) -> fmt::Result {
    for (index, cause) in causes.iter().enumerate() {
        let is_last = index + 1 == causes.len();
        let (fork, below) = if is_last { ("└─", "   ") } else { ("├─", "│  ") };
        write!(f, "\n{indent}{fork} {} ", cause.relation)?;
        let indent = format!("{indent}{below}");
        if let Some(line) = &cause.event {
            write!(f, "{line}")?;
        }
        if let Some(turn) = &cause.turn {
            write!(f, "{}", turn.turn_id)?;
            if let Some(agent) = &turn.agent_id {
                write!(f, " of {agent}")?;
            }
            let bar = if cause.because.is_empty() { "   " } else { "│  " };
            for Step { seq, text, .. } in &turn.steps {
                write!(f, "\n{indent}{bar}{seq} {}", on_one_line(text, STEP_CHARS_MAX))?;
            }
        }
        if cause.repeated {
            write!(f, " (see above)")?;
        }
        branches(f, &cause.because, &indent)?;
    }
    Ok(())
}
