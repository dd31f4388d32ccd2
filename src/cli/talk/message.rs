//! `caxton message send`.

use std::io::Read as _;
use std::time::{Duration, Instant};

use caxton_events::limits::MESSAGE_CONTENT_BYTES_MAX;
use serde_json::{Map, Value, json};

use super::super::args::{Common, MessageCommand, MessageSend};
use super::super::backend::{Backend, Request, encoded};
use super::super::failure::{Exit, Failure};
use super::super::output::{Output, cell, counted, items};
use super::answers::{Bearing, Question, is_bad};
use super::shown::print_message;
use super::{moment, names, only_begins_like_json, server};

/// Seconds that one request waits for answers; the server cuts it to what it allows.
const POLL_SECONDS: u64 = 20;

/// Runs a command about messages.
pub(in crate::cli) fn run(
    command: &MessageCommand,
    common: &Common,
    out: &mut Output,
) -> Result<(), Failure> {
    let MessageCommand::Send(send) = command;
    // What can be refused without a server is refused before one is looked for.
    let body = body(send)?;
    let backend = match send.wait {
        Some(_) => Backend::Http(server(common, "only a running one can bring an answer")?),
        None => Backend::open(common, true)?,
    };
    let mut request = Request::post("/api/v1/messages", &body);
    if send.explain {
        request = request.with("explain", "true");
    }
    let sent = backend.ask(request)?;
    let Some(seconds) = send.wait else {
        return if out.is_json() { out.json(&sent) } else { print_sent(&sent, out) };
    };
    let question = Question::of(&sent, send.reply_with.as_deref());
    if !out.is_json() {
        print_sent(&sent, out)?;
        out.flush()?;
    }
    let mut wait = Wait { backend: &backend, agent: &send.from, question, answers: Vec::new() };
    let came = wait.until(Instant::now() + Duration::from_secs(seconds), out)?;
    if out.is_json() {
        out.json(&json!({ "sent": sent, "answers": wait.answers, "complete": came }))?;
    }
    wait.judge(came, seconds, &cell(&sent, "conversation_id"))
}

fn body(send: &MessageSend) -> Result<Value, Failure> {
    let text = if send.content == "-" { read_content()? } else { send.content.clone() };
    let content = if send.as_json {
        serde_json::from_str(&text).map_err(|error| {
            let message =
                format!("CONTENT is no JSON ({error}); correct it, or leave out --as-json to send a text");
            Failure::new(Exit::Usage, message)
        })?
    } else {
        Value::String(text)
    };
    let word = send.performative.as_deref();
    let word = word.unwrap_or(if send.in_reply_to.is_some() { "INFORM" } else { "REQUEST" });
    let mut body = Map::new();
    body.insert("performative".to_owned(), word.into());
    body.insert("sender".to_owned(), send.from.clone().into());
    if content.as_str().is_some_and(only_begins_like_json) {
        body.insert("content_type".to_owned(), "text".into());
    }
    body.insert("content".to_owned(), content);
    if send.capability.is_none() {
        body.insert("receivers".to_owned(), json!(send.to));
    }
    let version = send.version.as_deref().map(|version| format!(":{version}")).unwrap_or_default();
    let capability = send.capability.as_ref().map(|name| format!("{name}{version}"));
    let reply_by = send.reply_by.as_deref().map(|text| moment("--reply-by", text)).transpose()?;
    let expires = send.expires.as_deref().map(|text| moment("--expires", text)).transpose()?;
    for (name, value) in [
        ("workspace", send.workspace.clone()),
        ("capability", capability),
        ("routing_strategy", send.strategy.map(|strategy| strategy.as_str().to_owned())),
        ("conversation_id", send.conversation.clone()),
        ("topic", send.topic.clone()),
        ("in_reply_to", send.in_reply_to.clone()),
        ("reply_with", send.reply_with.clone()),
        ("reply_by", reply_by),
        ("expires_at", expires),
        ("priority", send.priority.map(|priority| priority.as_str().to_owned())),
        ("message_id", send.message_id.clone()),
    ] {
        if let Some(value) = value {
            body.insert(name.to_owned(), value.into());
        }
    }
    Ok(body.into())
}

/// Standard input up to a byte more than a message may hold, without the line end that a shell adds.
fn read_content() -> Result<String, Failure> {
    let mut text = String::new();
    let limit = MESSAGE_CONTENT_BYTES_MAX as u64 + 1;
    std::io::stdin()
        .take(limit)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(Exit::Failed, format!("could not read standard input: {error}")))?;
    let end = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(end);
    Ok(text)
}

fn print_sent(sent: &Value, out: &mut Output) -> Result<(), Failure> {
    let [seq, conversation, id] = ["seq", "conversation_id", "message_id"].map(|name| cell(sent, name));
    let to = match names(sent, "delivered_to") {
        to if to.is_empty() => "nobody".to_owned(),
        to => to,
    };
    let again = if sent["replayed"] == true { ", as it was sent before" } else { "" };
    out.line(format_args!("sent to {to} as #{seq} in {conversation}, message {id}{again}"))?;
    if let Some(routing) = sent.get("routing") {
        let [capability, strategy, reason] =
            ["capability", "strategy", "reason"].map(|name| cell(routing, name));
        out.line(format_args!("for {capability} by {strategy}: {reason}"))?;
        print_candidates(routing, out)?;
    }
    let letters = items(sent, "dead_letters");
    if letters.is_empty() {
        return Ok(());
    }
    let letters: Vec<String> = letters.iter().map(|seq| format!("#{seq}")).collect();
    out.line(format_args!(
        "not delivered to everybody: dead letter {}; see `caxton deadletters list`",
        letters.join(", ")
    ))
}

/// Who was looked at, the best first.
pub(super) fn print_candidates(routing: &Value, out: &mut Output) -> Result<(), Failure> {
    let row = |row: &Value| ["agent_id", "score", "because"].map(|name| cell(row, name)).to_vec();
    out.table(&["agent", "score", "because"], items(routing, "candidates").iter().map(row).collect())
}

/// The wait for the answers to a message.
struct Wait<'a> {
    backend: &'a Backend,
    agent: &'a str,
    question: Question,
    answers: Vec<Value>,
}

impl Wait<'_> {
    /// Whether every answer came before `deadline`. Each is printed and acknowledged as it comes.
    fn until(&mut self, deadline: Instant, out: &mut Output) -> Result<bool, Failure> {
        let path = format!("/api/v1/agents/{}/inbox", encoded(self.agent));
        let mut after = self.question.seq;
        while !self.question.is_answered() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // The last poll is the shorter one; a wait of less than a second asks once more and is done.
            let seconds = left.as_secs().min(POLL_SECONDS).max(u64::from(left.subsec_millis() > 0));
            let request = Request::get(&path)
                .with("after", &after.to_string())
                .with("limit", "100")
                .with("wait", &seconds.to_string());
            let page = self.backend.ask(request)?;
            after = page["next_after"].as_u64().unwrap_or(after);
            let mut read = Vec::new();
            for message in items(&page, "messages") {
                if self.question.hear(message) == Bearing::None {
                    continue;
                }
                if !out.is_json() {
                    print_message(message, out)?;
                    out.flush()?;
                }
                read.push(message["seq"].clone());
                self.answers.push(message.clone());
            }
            if !read.is_empty() {
                self.backend.ask(Request::post(&format!("{path}/ack"), &json!({ "seqs": read })))?;
            }
        }
        Ok(true)
    }

    fn judge(&self, came: bool, seconds: u64, conversation: &str) -> Result<(), Failure> {
        let bad: Vec<String> = self
            .answers
            .iter()
            .filter(|answer| is_bad(answer))
            .map(|answer| format!("{} answered {}", cell(answer, "sender"), cell(answer, "performative")))
            .collect();
        if !bad.is_empty() {
            return Err(Failure::new(Exit::Failed, format!("{}; see above", bad.join(", "))));
        }
        if came {
            return Ok(());
        }
        let message = format!(
            "not every answer came within {}; more may come: `caxton conversations show {conversation} --follow`",
            counted(seconds as usize, "second")
        );
        Err(Failure::new(Exit::Failed, message))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use clap::Parser as _;
    use serde_json::{Value, json};

    use super::body;
    use crate::cli::args::{Args, Command, MessageCommand};

    fn typed(words: &[&str]) -> Value {
        let words = [&["caxton", "message", "send", "--from", "ada"], words].concat();
        let Command::Message(MessageCommand::Send(send)) = Args::try_parse_from(words).unwrap().command
        else {
            panic!("another command")
        };
        body(&send).unwrap()
    }

    #[test]
    fn what_was_typed_becomes_a_message() {
        let then =
            json!({"performative": "REQUEST", "sender": "ada", "receivers": ["bob", "eve"], "content": "hi"});
        assert_eq!(typed(&["--to", "bob", "--to", "eve", "hi"]), then);
        assert_eq!(typed(&["--to", "bob,eve", "hi"]), then);
        let then = json!({
            "performative": "query", "sender": "ada", "capability": "plots:2", "routing_strategy": "round_robin",
            "content": 3, "priority": "high",
        });
        let words = [
            "--capability",
            "plots",
            "--version",
            "2",
            "--strategy",
            "round_robin",
            "-p",
            "query",
            "--as-json",
            "--priority",
            "high",
            "3",
        ];
        assert_eq!(typed(&words), then);
        for (text, content_type) in
            [("[URGENT] server down", "text".into()), ("{name} it", "text".into()), ("[1]", Value::Null)]
        {
            let typed = typed(&["--to", "bob", text]);
            assert_eq!((&typed["content"], &typed["content_type"]), (&json!(text), &content_type));
        }
        let answer = typed(&["--to", "bob", "--conversation", "c", "--in-reply-to", "q1", "yes"]);
        assert_eq!((&answer["performative"], &answer["in_reply_to"]), (&json!("INFORM"), &json!("q1")));
    }
}
