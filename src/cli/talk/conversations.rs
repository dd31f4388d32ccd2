//! `caxton conversations list | show`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::{Value, json};

use super::super::args::{At, Common, ConversationShow, ConversationsCommand, ConversationsList};
use super::super::backend::{Backend, Request, encoded};
use super::super::failure::Failure;
use super::super::feed::{Told, listen, on_interrupt};
use super::super::output::{Output, cell, counted, items};
use super::shown::{happening, message_of, print_message};
use super::{all, names, print_next, second, server};

/// Runs a command about conversations.
pub(in crate::cli) fn run(
    command: &ConversationsCommand,
    common: &Common,
    out: &mut Output,
) -> Result<(), Failure> {
    match command {
        ConversationsCommand::List(list) => print_list(list, common, out),
        ConversationsCommand::Show(show) if show.follow => follow(show, common, out),
        ConversationsCommand::Show(show) => print_one(show, common, out),
    }
}

fn print_list(list: &ConversationsList, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let request = Request::get("/api/v1/conversations")
        .with_some("participant", list.participant.as_deref())
        .with_some("status", list.status.map(super::super::args::ConversationStatus::as_str))
        .at(&list.at)
        .page(&list.page);
    let answer = Backend::open(common, false)?.ask(request)?;
    if out.is_json() {
        return out.json(&answer);
    }
    let conversations = items(&answer, "conversations");
    let rows = conversations.iter().map(|row| {
        let [id, status, count, topic] =
            ["conversation_id", "status", "message_count", "topic"].map(|name| cell(row, name));
        vec![id, status, names(row, "participants"), count, second(row, "last_activity"), topic]
    });
    let head = ["conversation", "status", "participants", "messages", "last activity", "topic"];
    out.table(&head, rows.collect())?;
    out.line(counted(conversations.len(), "conversation"))?;
    print_next(&answer, out)
}

fn path(id: &str) -> String {
    format!("/api/v1/conversations/{}", encoded(id))
}

/// A conversation and what was said in it so far.
pub(super) fn history(backend: &Backend, id: &str, at: &At) -> Result<(Value, Vec<Value>), Failure> {
    let conversation = backend.ask(Request::get(&path(id)).at(at))?;
    let messages = all(backend, &Request::get(&format!("{}/messages", path(id))).at(at), "messages")?;
    Ok((conversation, messages))
}

fn print_one(show: &ConversationShow, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let (conversation, messages) = history(&Backend::open(common, false)?, &show.id, &show.at)?;
    if out.is_json() {
        return out.json(&json!({ "conversation": conversation, "messages": messages }));
    }
    print_head(&conversation, out)?;
    messages.iter().try_for_each(|message| print_message(message, out))?;
    match conversation["end"].as_str() {
        Some(end) => out.line(format_args!("{}  ended: {end}", cell(&conversation, "ended_at"))),
        None => Ok(()),
    }
}

fn print_head(conversation: &Value, out: &mut Output) -> Result<(), Failure> {
    let [id, status, topic, protocol, parent] =
        ["conversation_id", "status", "topic", "protocol", "parent_conversation"]
            .map(|name| cell(conversation, name));
    let participants = names(conversation, "participants");
    let mut head = format!("{id} ({status}), {}", counted(count(conversation), "message"));
    for (what, value) in
        [("between ", participants), ("topic: ", topic), ("protocol: ", protocol), ("out of ", parent)]
    {
        if !value.is_empty() {
            let _ = write!(head, ", {what}{value}");
        }
    }
    out.line(head)
}

fn count(conversation: &Value) -> usize {
    conversation["message_count"].as_u64().unwrap_or_default() as usize
}

/// What reaches a command that follows.
enum Occurrence {
    Told(Told),
    Interrupted,
}

impl From<Told> for Occurrence {
    fn from(told: Told) -> Self {
        Self::Told(told)
    }
}

/// A command that prints what comes, until Ctrl-C from its beginning on.
pub(super) struct Following {
    told: Sender<Occurrence>,
    occurrences: Receiver<Occurrence>,
}

impl Following {
    pub(super) fn begin() -> Result<Self, Failure> {
        let (told, occurrences) = channel();
        on_interrupt(told.clone(), Occurrence::Interrupted)?;
        Ok(Self { told, occurrences })
    }

    /// Prints the events behind `after` that `ask` asks for, until `print` says that it was the last one.
    pub(super) fn tell(
        self,
        common: &Common,
        after: u64,
        ask: impl Fn(u64) -> Request + Send + Sync + 'static,
        out: &mut Output,
        mut print: impl FnMut(&Value, &mut Output) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        listen(common, after, ask, self.told);
        for occurrence in self.occurrences {
            match occurrence {
                Occurrence::Told(Told::Event(event)) => {
                    let is_last = print(&event.data, out)?;
                    out.flush()?;
                    if is_last {
                        return Ok(());
                    }
                }
                Occurrence::Told(Told::Lost) => say_lost(),
                Occurrence::Told(Told::Ended(failure)) => return Err(failure),
                Occurrence::Interrupted => return Ok(()),
            }
        }
        Ok(())
    }
}

/// Tells a person why nothing comes. Nobody to tell is no fault.
pub(super) fn say_lost() {
    let _ = writeln!(std::io::stderr(), "caxton: the connection broke; looking for the server again");
}

fn follow(show: &ConversationShow, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let backend = Backend::Http(server(common, "without one nothing new is said")?);
    let following = Following::begin()?;
    let (conversation, messages) = history(&backend, &show.id, &show.at)?;
    if !out.is_json() {
        print_head(&conversation, out)?;
    }
    for message in &messages {
        if out.is_json() { out.json_line(message) } else { print_message(message, out) }?;
    }
    out.flush()?;
    // What lies before the log's first event was dropped, and asking for it is refused.
    let first = backend.ask(Request::get("/api/v1/log/head"))?["first_seq"].as_u64().unwrap_or(1);
    let opened = conversation["seq"].as_u64().unwrap_or_default();
    let last = messages.last().and_then(|message| message["seq"].as_u64());
    let id = cell(&conversation, "conversation_id");
    let ask = move |after: u64| {
        Request::get("/api/v1/events/stream").with("stream", &id).with("from_seq", &(after + 1).to_string())
    };
    let after = last.unwrap_or(opened).max(first.saturating_sub(1));
    following.tell(common, after, ask, out, |event, out| {
        if event["kind"] == "conversation.message_sent" {
            let message = message_of(event);
            if out.is_json() { out.json_line(&message) } else { print_message(&message, out) }?;
            return Ok(false);
        }
        if let Some(line) = happening(event) {
            if out.is_json() { out.json_line(event) } else { out.line(line) }?;
        }
        Ok(event["kind"] == "conversation.closed")
    })
}
