//! The commands about agents that talk: what they share. Reading order: `shown` (a message for people), `message`
//! (sending one), `answers` (which messages answer it), `conversations`, `capabilities`, `dead_letters`, `agent_log`,
//! `chat`.

mod agent_log;
mod answers;
mod capabilities;
mod chat;
mod conversations;
mod dead_letters;
mod message;
mod shown;

use std::time::SystemTime;

use serde::de::IgnoredAny;
use serde_json::Value;

use super::args::{Common, PageOf};
use super::backend::{self, Backend, Http, Request};
use super::failure::{Exit, Failure};
use super::output::{Output, cell};

pub(super) use agent_log::run as agent_log;
pub(super) use capabilities::run as capabilities;
pub(super) use chat::run as chat;
pub(super) use conversations::run as conversations;
pub(super) use dead_letters::run as dead_letters;
pub(super) use message::run as message;

impl Request {
    /// With the parameters that say which page.
    pub(super) fn page(self, page: &PageOf) -> Self {
        let limit = page.limit.map(|limit| limit.to_string());
        self.with_some("limit", limit.as_deref()).with_some("cursor", page.cursor.as_deref())
    }
}

/// The server, for what needs somebody to answer.
fn server(common: &Common, why: &str) -> Result<Http, Failure> {
    backend::running(common)?.ok_or_else(|| {
        let message = format!("no server runs here, and {why}; start one with `caxton serve`");
        Failure::new(Exit::Unreachable, message)
    })
}

/// Every row of a list that comes in pages with cursors.
fn all(backend: &Backend, request: &Request, name: &str) -> Result<Vec<Value>, Failure> {
    let mut rows = Vec::new();
    let mut cursor = None;
    loop {
        // As many at a time as the server gives by itself: it may allow no more.
        let mut page = backend.ask(request.clone().with_some("cursor", cursor.as_deref()))?;
        if let Some(found) = page[name].as_array_mut() {
            rows.append(found);
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(rows),
        }
    }
}

/// Says how to get the next page, where there is one.
pub(super) fn print_next(answer: &Value, out: &mut Output) -> Result<(), Failure> {
    match answer["next_cursor"].as_str() {
        Some(next) => out.line(format_args!("there are more: add --cursor {next}")),
        None => Ok(()),
    }
}

/// A list of names in a JSON object.
fn names(value: &Value, name: &str) -> String {
    let names = value[name].as_array().map_or(&[][..], Vec::as_slice);
    names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}

/// A moment as the server reads it: RFC 3339 as it is, a span from now otherwise.
fn moment(flag: &str, text: &str) -> Result<String, Failure> {
    if text.contains('T') || text.matches('-').count() >= 2 {
        return Ok(text.to_owned());
    }
    let wrong = |why: String| {
        let message = format!("{flag}: {why}; write a time as in 2026-01-31T12:00:00Z, or a span as in 90s");
        Failure::new(Exit::Usage, message)
    };
    let span = humantime::parse_duration(text).map_err(|error| wrong(format!("{text:?}: {error}")))?;
    let at = SystemTime::now().checked_add(span).ok_or_else(|| wrong(format!("{text:?} is too far away")))?;
    // The formatter has no words for years of five digits.
    let latest = std::time::UNIX_EPOCH + std::time::Duration::from_secs(253_402_300_799);
    if at > latest {
        return Err(wrong(format!("{text:?} is too far away")));
    }
    Ok(humantime::format_rfc3339_micros(at).to_string())
}

/// A moment for a table: to the second.
fn second(value: &Value, name: &str) -> String {
    let at = cell(value, name);
    at.split_once('.').map_or_else(|| at.clone(), |(second, _)| format!("{second}Z"))
}

/// Whether a text begins like JSON and is none: a server refuses it unless it is told that it is a text.
fn only_begins_like_json(text: &str) -> bool {
    text.starts_with(['{', '[']) && serde_json::from_str::<IgnoredAny>(text).is_err()
}

/// The text of a content: texts as they are, JSON as JSON.
fn content(message: &Value) -> String {
    cell(message, "content")
}

#[cfg(test)]
mod tests {
    use super::moment;

    #[test]
    fn a_moment_is_a_time_or_a_span() {
        for time in ["2026-01-31T12:00:00Z", "2026-01-31"] {
            assert_eq!(moment("--reply-by", time).ok().as_deref(), Some(time));
        }
        assert!(moment("--reply-by", "90s").is_ok_and(|at| at.ends_with('Z')));
        for wrong in ["", "soon", "90", "999999999999999999s", "300000y"] {
            let failure = moment("--reply-by", wrong).map_err(|failure| failure.to_string());
            assert!(failure.is_err_and(|text| text.contains("--reply-by")), "{wrong}");
        }
    }
}
