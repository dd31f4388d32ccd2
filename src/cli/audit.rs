//! `caxton audit …`: through a running server, or on the stopped log itself.

use std::io::{self, BufRead as _, BufReader, Write};

use caxton_events::Clock as _;
use caxton_events::log::{KEYS_FILE, Reader};
use caxton_projections::audit::Postings;
use caxton_projections::audit::trail::More;
use caxton_tools::audit::{
    Answer, AnswerError, Asked, Format, Subject, Summary, Why, WhyError, WhyOptions, Writing, Wrong, ago, why,
};
use caxton_tools::log::Line;
use serde_json::Value;

use super::args::{AuditCommand, AuditFormat, AuditQuery, AuditWhy, Common};
use super::backend::{self, Backend, Request, encoded};
use super::failure::{Exit, Failure};
use super::log::open;
use super::output::Output;
use super::setup;
use super::transfer::{is_dash, is_free};
use super::whole_output::WholeFile;
use crate::engine::SystemClock;

/// Parameters by the flags that give them.
const FLAGS: &[(&str, &str)] = &[
    ("actor", "--actor"),
    ("agent_id", "--agent"),
    ("conversation_id", "--conversation"),
    ("entity_id", "--entity"),
    ("message_id", "--message"),
    ("turn_id", "--turn"),
    ("kinds", "--kind"),
    ("correlation_id", "--correlation"),
    ("causation_seq", "--cause"),
    ("stream", "--stream"),
    ("scope", "--scope"),
    ("since", "--since"),
    ("until", "--until"),
    ("from_seq", "--from"),
    ("to_seq", "--to"),
    ("order", "--newest"),
];

/// Runs a command about the audit trail.
pub(super) fn run(command: &AuditCommand, common: &Common, out: &mut Output) -> Result<(), Failure> {
    if let AuditCommand::Query(what) = command {
        is_free(&what.out, what.force)?;
    }
    let server = backend::running(common)?.map(Backend::Http);
    match command {
        AuditCommand::Query(what) => {
            let asked = asked(what)?;
            let mut printed = Printed::new(what, out)?;
            let summary = match &server {
                Some(server) => of_server(server, &asked, what, &mut printed)?,
                None => of_log(common, &asked, what, &mut printed)?,
            };
            printed.end(&summary)
        }
        AuditCommand::Why(what) => {
            let why = match &server {
                Some(server) => why_of_server(server, what)?,
                None => why_of_log(common, what)?,
            };
            out.value(&why)?;
            if why.gaps.is_empty() {
                return Ok(());
            }
            let message = "parts of the log could not be read, so that the explanation may lack something; they are named above";
            Err(Failure::new(Exit::Failed, message))
        }
    }
}

/// The question in the words that the server knows.
fn asked(what: &AuditQuery) -> Result<Asked, Failure> {
    let since = match &what.last {
        Some(span) => {
            let span = humantime::parse_duration(span).map_err(|error| {
                let message = format!("--last {span:?} is no span of time: {error}; write 24h, 30m or 7d");
                Failure::new(Exit::Usage, message)
            })?;
            let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
            Some(ago(SystemClock.now(), micros).to_string())
        }
        None => what.since.clone(),
    };
    let asked = Asked {
        actor: what.actor.clone(),
        agent_id: what.agent.clone(),
        conversation_id: what.conversation.clone(),
        entity_id: what.entity.clone(),
        message_id: what.message.clone(),
        turn_id: what.turn.clone(),
        kinds: what.kinds.clone(),
        correlation_id: what.correlation.clone(),
        causation_seq: what.cause.clone(),
        stream: what.stream.clone(),
        scope: what.scope.clone(),
        since,
        until: what.until.clone(),
        from_seq: what.from.clone(),
        to_seq: what.to.clone(),
        order: what.newest.then(|| "newest".to_owned()),
    };
    let Err(wrong) = asked.question() else { return Ok(asked) };
    let told: Vec<String> = wrong.into_iter().map(in_flags).collect();
    Err(Failure::new(Exit::Usage, told.join("\n")))
}

/// What is wrong with a parameter, by the flag that gives it.
fn in_flags(wrong: Wrong) -> String {
    let field = FLAGS.iter().find(|(field, _)| *field == wrong.field).map_or(wrong.field, |(_, flag)| *flag);
    let message = wrong.message.replace("from_seq", "--from").replace("after since", "after --since");
    Wrong { field, message, ..wrong }.to_string()
}

/// Where events are written, and how.
struct Printed<'a> {
    place: Place<'a>,
    /// `None`: lines for people.
    writing: Option<Writing>,
    format: Option<Format>,
    text: Vec<u8>,
    begun: bool,
}

enum Place<'a> {
    Output(&'a mut Output),
    File(WholeFile, &'a AuditQuery),
}

impl<'a> Printed<'a> {
    fn new(what: &'a AuditQuery, out: &'a mut Output) -> Result<Self, Failure> {
        let format = match what.format {
            Some(AuditFormat::Text) => None,
            None => out.is_json().then_some(Format::Json),
            Some(AuditFormat::Json) => Some(Format::Json),
            Some(AuditFormat::Jsonl) => Some(Format::JsonLines),
            Some(AuditFormat::Csv) => Some(Format::Csv),
            Some(AuditFormat::Cloudevents) => Some(Format::CloudEvents),
            Some(AuditFormat::CloudeventsJsonl) => Some(Format::CloudEventsLines),
        };
        let place = if is_dash(&what.out) {
            Place::Output(out)
        } else {
            let file =
                WholeFile::create(&what.out).map_err(|error| Failure::file("write", &what.out, &error))?;
            Place::File(file, what)
        };
        Ok(Self { place, writing: None, format, text: Vec::new(), begun: false })
    }

    /// What comes is from this log.
    fn begin(&mut self, log_id: &[u8; 16]) -> Result<(), Failure> {
        self.begun = true;
        self.writing = self.format.map(|format| Writing::new(format, log_id));
        if let Some(writing) = &self.writing {
            writing.begin(&mut self.text);
        }
        self.put()
    }

    fn line(&mut self, line: Line) -> Result<(), Failure> {
        match &mut self.writing {
            Some(writing) => writing.row(line, &mut self.text),
            // Writing to a Vec has no way to fail.
            None => drop(writeln!(self.text, "{line}")),
        }
        self.put()
    }

    fn put(&mut self) -> Result<(), Failure> {
        let text = std::mem::take(&mut self.text);
        match &mut self.place {
            Place::Output(out) => out.text(String::from_utf8_lossy(&text)),
            Place::File(file, what) => {
                file.write_all(&text).map_err(|error| Failure::file("write", &what.out, &error))
            }
        }
    }

    /// Writes the end, and tells people what the answer took.
    fn end(mut self, summary: &Summary) -> Result<(), Failure> {
        if let Some(writing) = &self.writing {
            writing.end(summary, &mut self.text);
        }
        self.put()?;
        match self.place {
            Place::Output(out) => out.flush()?,
            Place::File(file, what) => {
                file.finish().map_err(|error| Failure::file("write", &what.out, &error))?;
            }
        }
        // Nobody may be listening there.
        let _ = writeln!(io::stderr(), "{}", told(summary));
        if summary.gaps.is_empty() {
            return Ok(());
        }
        let gap = |gap: &caxton_tools::audit::Unread| {
            format!("{} to {} could not be read: {}", gap.from_seq, gap.to_seq, gap.what)
        };
        let mut gaps: Vec<String> = summary.gaps.iter().map(gap).collect();
        if summary.gaps_more > 0 {
            gaps.push(format!("and {} more", summary.gaps_more));
        }
        let damaged = summary.gaps.iter().any(|gap| is_damage(&gap.what));
        let remedy = if damaged {
            "; run caxton log verify, and restore what it names from a backup, or save what can still be read: caxton log \
             salvage --to DIR"
        } else {
            ""
        };
        let message = format!("the answer may lack events: {}{remedy}", gaps.join("; "));
        Err(Failure::new(Exit::Failed, message))
    }
}

/// Whether what is said of a gap is that the log is not what was written. What is written, and cannot be read here for want of
/// a key or of a newer program, is whole.
fn is_damage(what: &str) -> bool {
    ![KEYS_FILE, "does not open under key", "written by a newer Caxton"].iter().any(|why| what.contains(why))
}

fn told(summary: &Summary) -> String {
    let Summary { count, first_seq, blocks_read, blocks_skipped, bytes_read, postings_bytes_read, .. } =
        summary;
    let events = if *count == 1 { "event" } else { "events" };
    let mut told = format!(
        "{count} {events}; {blocks_read} of {} blocks read ({bytes_read} bytes, {postings_bytes_read} of postings)",
        blocks_read + blocks_skipped,
    );
    if summary.dropped {
        told = format!("{told}; the log begins at {first_seq}, what lies before was dropped");
    }
    if summary.next_cursor.is_some() {
        told.push_str("; there may be more: add --all, or go on behind the last event with --from or --to");
    }
    told
}

fn of_log(
    common: &Common,
    asked: &Asked,
    what: &AuditQuery,
    printed: &mut Printed<'_>,
) -> Result<Summary, Failure> {
    let (reader, postings) = opened(common)?;
    // It was found to be right before.
    let question = asked.question().map_err(|_| Failure::new(Exit::Usage, "the question is not valid"))?;
    let limit = match what.limit {
        _ if what.all => None,
        Some(limit) => Some(limit),
        // As many as a server gives by itself.
        None => Some(setup::load(common, Vec::new())?.config.api_optimization.default_page_size as u64),
    };
    let mut answer = Answer::new(question, &reader, limit).map_err(|error| {
        let exit = if matches!(error, AnswerError::Dropped { .. }) { Exit::Refused } else { Exit::Failed };
        Failure::of(exit, &error)
    })?;
    printed.begin(&reader.log_id())?;
    while !answer.is_done() {
        let mut put = Ok(());
        answer
            .step(&reader, &postings, &mut |line| {
                put = printed.line(line);
                if put.is_ok() { More::Yes } else { More::No }
            })
            .map_err(|error| Failure::of(Exit::Failed, &error))?;
        put?;
    }
    let next = answer.stopped_at().map(|seq| seq.0.to_string());
    Ok(answer.summary(next))
}

/// The stopped log and its postings. Without them the answer is the same.
fn opened(common: &Common) -> Result<(Reader, Postings), Failure> {
    let reader = open(common)?;
    let postings = Postings::at(&setup::existing_data_dir(common)?);
    if let Err(error) = postings.open(&reader) {
        let _ = writeln!(io::stderr(), "caxton: {}; the log is read instead", crate::failure::chain(&error));
    }
    Ok((reader, postings))
}

fn of_server(
    server: &Backend,
    asked: &Asked,
    what: &AuditQuery,
    printed: &mut Printed<'_>,
) -> Result<Summary, Failure> {
    let head = server.ask(Request::get("/api/v1/log/head"))?;
    let log_id = log_id(&head).ok_or_else(|| broken_off("its head names no log"))?;
    let kinds = asked.kinds.join(",");
    let limit = if what.all { Some("all".to_owned()) } else { what.limit.map(|limit| limit.to_string()) };
    let request = Request::get("/api/v1/audit")
        .with("format", "jsonl")
        .with_some("limit", limit.as_deref())
        .with_some("actor", asked.actor.as_deref())
        .with_some("agent_id", asked.agent_id.as_deref())
        .with_some("conversation_id", asked.conversation_id.as_deref())
        .with_some("entity_id", asked.entity_id.as_deref())
        .with_some("message_id", asked.message_id.as_deref())
        .with_some("turn_id", asked.turn_id.as_deref())
        .with_some("kinds", (!kinds.is_empty()).then_some(kinds.as_str()))
        .with_some("correlation_id", asked.correlation_id.as_deref())
        .with_some("causation_seq", asked.causation_seq.as_deref())
        .with_some("stream", asked.stream.as_deref())
        .with_some("scope", asked.scope.as_deref())
        .with_some("since", asked.since.as_deref())
        .with_some("until", asked.until.as_deref())
        .with_some("from_seq", asked.from_seq.as_deref())
        .with_some("to_seq", asked.to_seq.as_deref())
        .with_some("order", asked.order.as_deref());
    let body = server.read(request)?;
    printed.begin(&log_id)?;
    for line in BufReader::new(body).lines() {
        let line = line.map_err(|error| broken_off(&error.to_string()))?;
        let mut value: Value = serde_json::from_str(&line).map_err(|error| broken_off(&error.to_string()))?;
        if let Some(summary) = value.get_mut("summary") {
            return serde_json::from_value(summary.take()).map_err(|error| broken_off(&error.to_string()));
        }
        printed.line(serde_json::from_value(value).map_err(|error| broken_off(&error.to_string()))?)?;
    }
    Err(broken_off("its end is missing"))
}

fn broken_off(what: &str) -> Failure {
    Failure::new(Exit::Failed, format!("the server's answer is not whole: {what}; ask again"))
}

/// The log's id, from its public key: `caxton/log/<hex>+…`.
fn log_id(head: &Value) -> Option<[u8; 16]> {
    let hex = head.get("public_key")?.as_str()?.strip_prefix("caxton/log/")?.get(..32)?;
    let mut id = [0; 16];
    for (byte, digits) in id.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(id)
}

fn why_of_server(server: &Backend, what: &AuditWhy) -> Result<Why, Failure> {
    let request = Request::get(&format!("/api/v1/audit/why/{}", encoded(&what.what)))
        .with("depth", &what.depth.to_string())
        .with("nodes", &what.nodes.to_string());
    serde_json::from_value(server.ask(request)?).map_err(|error| broken_off(&error.to_string()))
}

fn why_of_log(common: &Common, what: &AuditWhy) -> Result<Why, Failure> {
    let subject: Subject = what.what.parse().map_err(|error| Failure::of(Exit::Usage, &error))?;
    let (reader, postings) = opened(common)?;
    let options = WhyOptions { depth_max: what.depth as usize, nodes_max: what.nodes as usize };
    why(&reader, &postings, (&what.what, &subject), options).map_err(|error| {
        let exit = match error {
            WhyError::NotFound { .. } => Exit::NotFound,
            WhyError::Dropped { .. } => Exit::Refused,
            WhyError::Damaged { .. } | WhyError::Store(_) => Exit::Failed,
        };
        Failure::of(exit, &error)
    })
}

#[cfg(test)]
mod tests {
    use caxton_events::codec::DecodeError;

    use super::{Asked, FLAGS, KEYS_FILE, in_flags, is_damage};

    #[test]
    fn what_is_wrong_is_told_of_the_flag_that_gave_it() {
        let asked = Asked { kinds: vec!["bogus.".to_owned()], ..Asked::default() };
        let told: Vec<String> = asked.question().err().into_iter().flatten().map(in_flags).collect();
        let says = "--kind \"bogus.\" is no kind of event; use a kind or a family: ";
        assert!(told.len() == 1 && told[0].starts_with(says), "{told:?}");
        for field in Asked::FIELDS {
            assert!(FLAGS.iter().any(|(known, _)| known == field), "{field}");
        }
    }

    #[test]
    fn what_is_whole_and_cannot_be_read_here_is_no_damage() {
        let newer = DecodeError::Newer { kind: 9, version: 200 };
        let other_key = DecodeError::Unsealed { subject_key: 7 };
        for whole in
            [newer.to_string(), other_key.to_string(), format!("put back the newest copy of {KEYS_FILE}")]
        {
            assert!(!is_damage(&whole), "{whole}");
        }
        assert!(is_damage("an event does not match its hash"));
        assert!(is_damage(&DecodeError::Trailing { bytes: 3 }.to_string()));
    }
}
