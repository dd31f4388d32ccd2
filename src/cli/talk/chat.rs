//! `caxton chat`: a conversation with an agent, line by line.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use caxton_events::limits::{AGENT_NAME_BYTES_MAX, MESSAGE_CONTENT_BYTES_MAX};
use caxton_events::{Clock as _, MessageId};
use serde_json::{Value, json};

use super::super::args::{self, At, Common};
use super::super::backend::{self, Backend, Request, encoded};
use super::super::failure::{Exit, Failure};
use super::super::feed::{Event, Told, listen, on_interrupt};
use super::super::output::{Output, cell, counted};
use super::answers::{Bearing, Question};
use super::conversations::{history, say_lost};
use super::shown::{plain, print_message};
use super::{content, only_begins_like_json, server};
use crate::engine::SystemClock;

/// Who talks where the system knows no name, or one that is taken.
const SOMEBODY: &str = "human";
/// Messages of a resumed conversation that are shown again.
const SHOWN_AGAIN: usize = 6;
/// Attempts to send a line while the server is away, and the wait before each.
const ATTEMPTS_MAX: u32 = 240;
const ATTEMPT_WAIT: Duration = Duration::from_millis(250);

/// What reaches a chat.
enum Occurrence {
    Typed(String),
    EndOfInput,
    Unreadable(io::Error),
    Told(Told),
    Interrupted,
}

impl From<Told> for Occurrence {
    fn from(told: Told) -> Self {
        Self::Told(told)
    }
}

/// Talks until the input ends or Ctrl-C.
pub(in crate::cli) fn run(what: &args::Chat, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let backend = Backend::Http(server(common, "agents answer in servers")?);
    let other = backend.ask(Request::get(&format!("/api/v1/agents/{}", encoded(&what.agent))))?;
    let me = introduce(what, &backend)?;
    let (told, occurrences) = channel();
    on_interrupt(told.clone(), Occurrence::Interrupted)?;
    let after = match &what.conversation {
        // What came while nobody was here is still in the inbox.
        Some(id) => resume(id, &backend, out)?,
        None => backend.ask(Request::get("/api/v1/log/head"))?["seq"].as_u64().unwrap_or_default(),
    };
    let inbox = format!("/api/v1/agents/{}/inbox", encoded(&me));
    let stream = format!("{inbox}/stream");
    let ask =
        move |after: u64| Request::get(&stream).with("after", &after.to_string()).with("pieces", "true");
    listen(common, after, ask, told.clone());
    let chat = Chat {
        what,
        common,
        backend,
        me,
        inbox,
        conversation: what.conversation.clone(),
        parent: None,
        question: None,
        deadline: None,
        spoken: String::new(),
        wanted: input(told),
        is_terminal: io::stdin().is_terminal() && io::stdout().is_terminal() && !out.is_json(),
    };
    chat.run(&other, &occurrences, out)
}

/// Makes the one who talks known, and answers the name.
fn introduce(what: &args::Chat, backend: &Backend) -> Result<String, Failure> {
    let me = what.name.clone().unwrap_or_else(|| {
        let user = std::env::var("USER").unwrap_or_default();
        name_of(&user, &what.agent)
    });
    match backend.ask(Request::get(&format!("/api/v1/agents/{}", encoded(&me)))) {
        Ok(known) if known["kind"] == "config" => {
            let message = format!(
                "{me} is an agent from a file, which reads its inbox itself; take another name with --as"
            );
            return Err(Failure::new(Exit::Refused, message));
        }
        Ok(_) => return Ok(me),
        Err(failure) if failure.exit == Some(Exit::NotFound) => (),
        Err(failure) => return Err(failure),
    }
    let mut body = json!({ "agent_id": me });
    if let Some(workspace) = &what.workspace {
        body["workspace"] = json!(workspace);
    }
    backend.ask(Request::post("/api/v1/agents", &body))?;
    Ok(me)
}

/// A user's name as the name of an agent that is not `taken`.
fn name_of(user: &str, taken: &str) -> String {
    let fits = |sign: char| sign.is_alphanumeric() || matches!(sign, '-' | '_' | '.' | ':' | '@');
    let mut name = String::new();
    for sign in user.chars().map(|sign| if fits(sign) { sign } else { '-' }) {
        if name.len() + sign.len_utf8() > AGENT_NAME_BYTES_MAX {
            break;
        }
        name.push(sign);
    }
    if name.is_empty() || name == "system" || name == taken { SOMEBODY.to_owned() } else { name }
}

/// Checks that a conversation can go on, shows its end, and answers from where the inbox is to be read.
fn resume(id: &str, backend: &Backend, out: &mut Output) -> Result<u64, Failure> {
    let (conversation, messages) = history(backend, id, &At::default())?;
    if let Some(end) = conversation["end"].as_str() {
        let message =
            format!("the conversation {id} has ended ({end}); leave out --conversation to begin a new one");
        return Err(Failure::new(Exit::Refused, message));
    }
    if io::stdin().is_terminal() && !out.is_json() {
        let shown = &messages[messages.len().saturating_sub(SHOWN_AGAIN)..];
        shown.iter().try_for_each(|message| print_message(message, out))?;
    }
    Ok(0)
}

/// Reads a line from standard input each time one is wanted, so that no more is read than is sent.
fn input(told: Sender<Occurrence>) -> Sender<()> {
    let (wanted, wants) = channel::<()>();
    thread::spawn(move || {
        for () in wants {
            let mut line = String::new();
            let mut input = io::stdin().lock();
            let read = input.by_ref().take(MESSAGE_CONTENT_BYTES_MAX as u64 + 1).read_line(&mut line);
            let occurrence = match read {
                Ok(0) => Occurrence::EndOfInput,
                // The rest of a line that is too long is no line of its own.
                Ok(read) if read > MESSAGE_CONTENT_BYTES_MAX && !line.ends_with('\n') => {
                    match input.skip_until(b'\n') {
                        Ok(_) => Occurrence::Typed(line),
                        Err(error) => Occurrence::Unreadable(error),
                    }
                }
                Ok(_) => Occurrence::Typed(line),
                Err(error) => Occurrence::Unreadable(error),
            };
            if told.send(occurrence).is_err() {
                return;
            }
        }
    });
    wanted
}

struct Chat<'a> {
    what: &'a args::Chat,
    common: &'a Common,
    backend: Backend,
    me: String,
    inbox: String,
    /// There is one after the first line.
    conversation: Option<String>,
    /// The one that has ended.
    parent: Option<String>,
    /// What waits for its answer.
    question: Option<Question>,
    deadline: Option<Instant>,
    /// What was shown of an answer that is being made.
    spoken: String,
    /// Asks for the next line.
    wanted: Sender<()>,
    is_terminal: bool,
}

impl Chat<'_> {
    fn run(
        mut self,
        other: &Value,
        occurrences: &Receiver<Occurrence>,
        out: &mut Output,
    ) -> Result<(), Failure> {
        if self.is_terminal {
            let agent = &self.what.agent;
            out.line(format_args!("You are {}, talking to {agent}. Ctrl-D ends the chat.", self.me))?;
            if let Some(status) = other["status"].as_str().filter(|status| *status != "running") {
                out.line(format_args!("{agent} is {status}."))?;
            }
        }
        self.want_line(out)?;
        loop {
            let Some(occurrence) = self.next(occurrences) else {
                let waited = counted(self.what.timeout as usize, "second");
                self.give_up(&format!("no answer within {waited}; it is shown when it comes"), out)?;
                continue;
            };
            match occurrence {
                Occurrence::Typed(line) => match line.trim_end_matches(['\n', '\r']) {
                    line if line.trim().is_empty() => self.want_line(out)?,
                    line => self.say(line, out)?,
                },
                Occurrence::Told(Told::Event(event)) => self.hear(&event, out)?,
                Occurrence::Told(Told::Lost) => say_lost(),
                Occurrence::Told(Told::Ended(failure)) => return Err(failure),
                Occurrence::EndOfInput | Occurrence::Interrupted => return self.leave(out),
                Occurrence::Unreadable(error) => {
                    let message = format!("could not read standard input: {error}");
                    return Err(Failure::new(Exit::Failed, message));
                }
            }
        }
    }

    /// `None` when the time for an answer is over.
    fn next(&self, occurrences: &Receiver<Occurrence>) -> Option<Occurrence> {
        let Some(deadline) = self.deadline else {
            // The senders live as long as the process.
            return Some(occurrences.recv().unwrap_or(Occurrence::EndOfInput));
        };
        match occurrences.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(occurrence) => Some(occurrence),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Occurrence::EndOfInput),
        }
    }

    /// Has the next line read.
    fn want_line(&mut self, out: &mut Output) -> Result<(), Failure> {
        (self.question, self.deadline) = (None, None);
        if !std::mem::take(&mut self.spoken).is_empty() {
            out.line("")?;
        }
        if self.is_terminal {
            out.text(format_args!("{}> ", self.me))?;
        }
        out.flush()?;
        // The reader is gone only when the process ends.
        let _ = self.wanted.send(());
        Ok(())
    }

    /// Says why there is no answer, and goes on.
    fn give_up(&mut self, why: &str, out: &mut Output) -> Result<(), Failure> {
        if out.is_json() {
            out.json_line(&json!({ "error": why }))
        } else {
            out.line(format_args!("! {why}"))
        }?;
        self.want_line(out)
    }

    /// Sends a line.
    fn say(&mut self, line: &str, out: &mut Output) -> Result<(), Failure> {
        let sent = match self.deliver(line) {
            Err(failure) if failure.exit == Some(Exit::Refused) && self.has_ended()? => {
                self.parent = self.conversation.take();
                self.deliver(line)
            }
            sent => sent,
        };
        let sent = match sent {
            Ok(sent) => sent,
            Err(failure) if matches!(failure.exit, Some(Exit::Refused | Exit::NotFound)) => {
                return self.give_up(&format!("not sent: {failure}"), out);
            }
            Err(failure) => return Err(failure),
        };
        (self.conversation, self.parent) = (sent["conversation_id"].as_str().map(str::to_owned), None);
        if out.is_json() {
            out.json_line(&json!({ "sent": sent }))?;
        }
        if sent["status"] != "delivered" {
            let why = format!("{} does not get it: see `caxton deadletters list`", self.what.agent);
            return self.give_up(&why, out);
        }
        self.question = Some(Question::of(&sent, None));
        self.deadline = Some(Instant::now() + Duration::from_secs(self.what.timeout));
        out.flush()
    }

    /// Sends a message until the server has it: a number of its own keeps it from being there twice.
    fn deliver(&mut self, line: &str) -> Result<Value, Failure> {
        let mut random = [0; 10];
        getrandom::fill(&mut random).map_err(|error| {
            Failure::new(Exit::Failed, format!("the system gives no random numbers: {error}"))
        })?;
        let mut body = json!({
            "message_id": MessageId::new(SystemClock.now(), random).to_string(),
            "performative": self.what.performative.as_str(),
            "sender": self.me,
            "receiver": self.what.agent,
            "content": line,
        });
        if only_begins_like_json(line) {
            body["content_type"] = json!("text");
        }
        for (name, value) in [
            ("workspace", &self.what.workspace),
            ("conversation_id", &self.conversation),
            ("parent_conversation", &self.parent),
        ] {
            if let Some(value) = value {
                body[name] = json!(value);
            }
        }
        let mut attempts = 0;
        loop {
            match self.backend.ask(Request::post("/api/v1/messages", &body)) {
                Err(failure) if failure.exit == Some(Exit::Unreachable) && attempts < ATTEMPTS_MAX => {
                    attempts += 1;
                    thread::sleep(ATTEMPT_WAIT);
                    if let Ok(Some(server)) = backend::running(self.common) {
                        self.backend = Backend::Http(server);
                    }
                }
                done => return done,
            }
        }
    }

    fn has_ended(&self) -> Result<bool, Failure> {
        let Some(id) = &self.conversation else { return Ok(false) };
        let conversation =
            self.backend.ask(Request::get(&format!("/api/v1/conversations/{}", encoded(id))))?;
        Ok(conversation["end"].is_string())
    }

    /// Shows what came, if it belongs to this conversation.
    fn hear(&mut self, event: &Event, out: &mut Output) -> Result<(), Failure> {
        let message = &event.data;
        let here = self.conversation.as_deref();
        if event.name == "piece" && message["conversation_id"].as_str() == here && !out.is_json() {
            return self.hear_piece(message, out);
        }
        if event.name != "message" || here.is_none() || message["conversation_id"].as_str() != here {
            return Ok(());
        }
        let is_idle = self.question.is_none();
        if out.is_json() {
            out.json_line(message)?;
        } else {
            let whole = spoken(message);
            let begun = std::mem::take(&mut self.spoken);
            if let Some(rest) = whole.strip_prefix(&begun).filter(|_| !begun.is_empty()) {
                out.line(rest)?;
            } else {
                // What stands behind the prompt is the terminal's; the line begins anew.
                let clear = if self.is_terminal && is_idle { "\r\x1b[K" } else { "" };
                // What was begun was a remark on the way to something else.
                let end = if begun.is_empty() { "" } else { "\n" };
                out.line(format_args!("{end}{clear}{whole}"))?;
            }
        }
        out.flush()?;
        self.acknowledge(event.seq)?;
        let bearing = self.question.as_mut().map_or(Bearing::None, |question| question.hear(message));
        match bearing {
            Bearing::Answer => self.want_line(out),
            Bearing::None if is_idle && self.is_terminal => {
                out.text(format_args!("{}> ", self.me))?;
                out.flush()
            }
            Bearing::None | Bearing::Promise => Ok(()),
        }
    }

    /// Shows a piece of the answer while it is being made.
    fn hear_piece(&mut self, piece: &Value, out: &mut Output) -> Result<(), Failure> {
        if self.question.is_none() || piece["sender"].as_str() != Some(&self.what.agent) {
            return Ok(());
        }
        let text = plain(piece["text"].as_str().unwrap_or_default());
        let begin = if self.spoken.is_empty() { format!("{}: ", self.what.agent) } else { String::new() };
        out.text(format_args!("{begin}{text}"))?;
        self.spoken.push_str(&begin);
        self.spoken.push_str(&text);
        out.flush()
    }

    /// The message has been read. When the server is away it is shown again another time.
    fn acknowledge(&self, seq: u64) -> Result<(), Failure> {
        let request = Request::post(&format!("{}/ack", self.inbox), &json!({ "seqs": [seq] }));
        match self.backend.ask(request) {
            Err(failure) if failure.exit == Some(Exit::Unreachable) => Ok(()),
            done => done.map(|_| ()),
        }
    }

    fn leave(&self, out: &mut Output) -> Result<(), Failure> {
        if !self.is_terminal {
            return Ok(());
        }
        out.line("")?;
        let Some(id) = &self.conversation else { return Ok(()) };
        let name = self.what.name.as_ref().map(|name| format!(" --as {name}")).unwrap_or_default();
        out.line(format_args!("Go on with: caxton chat {}{name} --conversation {id}", self.what.agent))
    }
}

/// A message as it is read aloud.
fn spoken(message: &Value) -> String {
    let (who, said) = (cell(message, "sender"), content(message));
    let does = match message["performative"].as_str().unwrap_or_default() {
        "INFORM" | "CONFIRM" => "",
        "FAILURE" => " failed",
        "REFUSE" => " refuses",
        "NOT_UNDERSTOOD" => " did not understand",
        "AGREE" => " agrees",
        "DISCONFIRM" => " says no",
        other => return format!("{who} ({other}): {}", plain(&said)),
    };
    format!("{who}{does}: {}", plain(&said))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{name_of, spoken};

    #[test]
    fn the_name_of_a_user_becomes_one_of_an_agent() {
        for (user, then) in
            [("ada", "ada"), ("", "human"), ("a b/c", "a-b-c"), ("system", "human"), ("bob", "human")]
        {
            assert_eq!(name_of(user, "bob"), then);
        }
        assert_eq!(name_of(&"ä".repeat(100), "bob"), "ä".repeat(64));
    }

    #[test]
    fn failures_and_refusals_are_said_plainly() {
        for (word, then) in [
            ("INFORM", "bob: x"),
            ("FAILURE", "bob failed: x"),
            ("REFUSE", "bob refuses: x"),
            ("PROPOSE", "bob (PROPOSE): x"),
        ] {
            assert_eq!(spoken(&json!({"sender": "bob", "performative": word, "content": "x"})), then);
        }
    }
}
