//! Messages between agents that are no files: what the server does to bring them is all that is measured.

use std::time::Duration;

use caxton_tools::benchmark::Part;
use serde_json::{Value, json};

use super::door::{Ask, Door};
use super::load::{Pacing, Work};
use super::run::Run;
use super::words::{self, Words};
use crate::cli::failure::{Exit, Failure};

// What messages take on disk was measured with `caxton benchmark scenario sustained --duration 30m --keyword-only`, over the
// first 13 million messages of 512 bytes, and rounded up. Blocks of the files were counted, so that no empty end of one was.

/// Bytes of a message in the log beside its content: 173 were found, with its part of what the receivers acknowledged. They are
/// the entry (48), the envelope, the names, the reasons of the routing, and its share of the block's header.
const LOG_BYTES: u64 = 180;
/// The share of the log's pages that blocks leave empty, as a divisor: a quarter of the last page of a group at the most
/// (`events/log/pack.rs`), half of that over groups of all lengths. The groups of the run above filled their pages.
const EMPTY_SHARE: u64 = 8;
/// The log's file is as long as redb made it ahead of what it holds: it doubles up to this length and is made so much longer at a
/// time then. A burst of 540,000 messages ends with 0.4 GB in a file of 0.6.
const LOG_AHEAD_BYTES_MAX: u64 = 4 << 30;
/// Bytes of a message in what is folded from the log: 17.2 in `audit/`, 3.8 in the inboxes of `talk/`.
const FOLDED_BYTES: u64 = 25;
/// Bytes that do not grow with the messages: the log's journal and write-ahead log (8 MiB), those of SQLite's files (9 MB), postings
/// while sixteen files become one (18 MB), what is taken ahead (16 MiB).
const FIXED_BYTES: u64 = 64 << 20;

/// Bytes on disk of so many messages with contents of `bytes`, at the most.
pub(super) fn disk_bytes(messages: u64, bytes: usize) -> u64 {
    let logged = bytes as u64 + LOG_BYTES;
    let log = messages.saturating_mul(logged + logged / EMPTY_SHARE);
    log.saturating_add(log.min(LOG_AHEAD_BYTES_MAX))
        .saturating_add(messages.saturating_mul(FOLDED_BYTES))
        .saturating_add(FIXED_BYTES)
}

/// Receivers that acknowledge at a time.
const RECEIVERS_A_TURN: u64 = 10;

/// Agents of the traffic, and conversations.
fn named(words: Words, number: u64) -> String {
    words.named("benchmark", number)
}

/// Agents that register.
struct Agents {
    words: Words,
}

impl Work for Agents {
    fn ask(&self, number: u64) -> Ask {
        Ask::post("/agents", &json!({ "agent_id": named(self.words, number) }))
    }
}

/// Messages, one or many in a request.
pub(super) struct Messages {
    pub(super) agents: u64,
    /// Bytes of the content of each.
    pub(super) bytes: usize,
    /// Messages in a request.
    pub(super) batch: u64,
    /// Conversations that they belong to, by turns; 0: each begins one of its own.
    pub(super) conversations: u64,
    pub(super) words: Words,
}

impl Messages {
    fn message(&self, number: u64) -> Value {
        let sender = number % self.agents;
        let receiver = (sender + 1 + words::mixed(number) % (self.agents - 1).max(1)) % self.agents;
        let named = |number| named(self.words, number);
        let mut message = json!({
            "performative": "INFORM", "sender": named(sender), "receiver": named(receiver),
            "content": self.words.text(number, self.bytes),
        });
        if let Some(conversation) = number.checked_rem(self.conversations) {
            // Both ends follow from the conversation, which has two participants at the most.
            let (one, other) = (conversation % self.agents, (conversation + 1) % self.agents);
            message["sender"] = named(one).into();
            message["receiver"] = named(other).into();
            message["conversation_id"] = named(conversation).into();
        }
        message
    }
}

impl Work for Messages {
    fn ask(&self, number: u64) -> Ask {
        if self.batch == 1 {
            return Ask::post("/messages", &self.message(number));
        }
        let first = number * self.batch;
        let messages: Vec<Value> = (first..first + self.batch).map(|number| self.message(number)).collect();
        Ask::post("/messages/batch", &json!({ "messages": messages }))
    }

    fn things(&self, _number: u64) -> u64 {
        self.batch
    }
}

/// Conversations that are opened before anything is said in them.
struct Openings {
    words: Words,
}

impl Work for Openings {
    fn ask(&self, number: u64) -> Ask {
        Ask::post("/conversations", &json!({ "conversation_id": named(self.words, number) }))
    }
}

/// Receivers that are done with what they got, some of them at a time, so that no inbox fills up.
pub(super) struct Receivers {
    door: Door,
    agents: u64,
    words: Words,
    next: u64,
}

impl Receivers {
    pub(super) fn new(door: &Door, agents: u64, words: Words) -> Self {
        Self { door: door.another(), agents, words, next: 0 }
    }

    /// Has the next of them acknowledge everything. What fails is done the next time round.
    pub(super) fn acknowledge(&mut self) {
        let head = self.door.send(&Ask::get("/log/head")).ok();
        let head = head.and_then(|(_, body)| serde_json::from_slice::<Value>(&body).ok());
        let Some(seq) = head.as_ref().and_then(|head| head.get("seq")).and_then(Value::as_u64) else {
            return;
        };
        for _ in 0..RECEIVERS_A_TURN.min(self.agents) {
            let inbox = format!("/agents/{}/inbox/ack", named(self.words, self.next % self.agents));
            let _ = self.door.send(&Ask::post(inbox, &json!({ "through": seq })));
            self.next += 1;
        }
    }
}

/// Opens so many conversations.
///
/// # Errors
///
/// [`Failure`] also where one of them was refused: what is said in it would be refused as well.
pub(super) fn open(run: &mut Run<'_>, conversations: u64) -> Result<(), Failure> {
    let all = Pacing::Closed { operations: conversations, within: Duration::MAX };
    let opened = run.part("conversation opened", &Openings { words: run.words }, all, run.writers())?;
    all_done("conversations could not be opened", &opened)
}

/// Registers so many agents.
///
/// # Errors
///
/// [`Failure`] also where one of them was refused: what it is to send and to get would be refused as well.
pub(super) fn register(run: &mut Run<'_>, agents: u64) -> Result<Part, Failure> {
    let all = Pacing::Closed { operations: agents, within: Duration::MAX };
    let registered = run.part("agent spawn", &Agents { words: run.words }, all, run.writers())?;
    all_done("agents could not be registered", &registered)?;
    Ok(registered)
}

/// Refuses what lacks a part of its basis, before it is measured for a day.
fn all_done(what: &str, part: &Part) -> Result<(), Failure> {
    let failed: u64 = part.failed.values().sum();
    if failed == 0 {
        return Ok(());
    }
    let why: Vec<String> = part.failed.iter().map(|(why, count)| format!("{count} × {why}")).collect();
    let message = format!("{failed} of {} {what}: {}", part.done + failed, why.join(", "));
    Err(Failure::new(Exit::Failed, message))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::record::{Outcome, Record};
    use super::{Exit, all_done};

    #[test]
    fn a_load_whose_agents_are_refused_is_not_measured() {
        let record = Record::new("agent spawn", Duration::ZERO);
        let add = |outcome| record.add(Duration::ZERO, Duration::from_millis(1), &outcome);
        let judged = || all_done("agents could not be registered", &record.part(None, Duration::ZERO));
        add(Outcome::Done(1));
        assert!(judged().is_ok());
        add(Outcome::Failed(2, "UNAUTHORIZED"));
        add(Outcome::Failed(1, "OVERLOADED"));
        let failure = judged().unwrap_err();
        assert_eq!(failure.exit, Some(Exit::Failed));
        let told = "3 of 4 agents could not be registered: 1 × OVERLOADED, 2 × UNAUTHORIZED";
        assert_eq!(failure.to_string(), told);
    }
}
