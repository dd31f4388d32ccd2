//! `benchmark agents`: conversations with agents from files, each a question and its answer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use caxton_tools::benchmark::Target;
use serde_json::{Value, json};

use super::door::{Ask, Door, code};
use super::load::{Pacing, Refused, Work};
use super::made::Made;
use super::record::rate;
use super::run::{Run, graded};
use super::schedule::Schedule;
use super::words::Words;
use crate::cli::args::BenchmarkAgents;
use crate::cli::failure::{Exit, Failure};
use crate::config::format_duration;

/// Bytes on disk of a turn: the question, what was read for it, the answer; measured, and rounded up.
pub(super) const TURN_DISK_BYTES: f64 = 8_000.0;
/// What the agents' model answers by: no network, and an answer that repeats the question.
const RULES: &str = "\
model: rules
rules:
  - when: {system_contains: You are measured}
    answer: \"heard: {{question}}\"
";

/// What is counted for a question without an answer in time.
const LATE: &str = "no answer within --response-timeout";

fn agent(words: Words, number: u64) -> String {
    words.named("benchmark-agent", number)
}

fn client(words: Words, line: u64) -> String {
    words.named("benchmark-client", line)
}

fn file(words: Words, number: u64) -> String {
    format!(
        "---\nname: {}\nversion: 1.0.0\ncapabilities: [benchmark]\ntools: [memory]\n---\nYou are measured. Repeat what you hear.\n",
        agent(words, number)
    )
}

/// Puts the agents' files into the folder of a server of our own; its configuration.
pub(super) fn prepare(folder: &Path, agents: u64, config: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    if let Some(config) = config {
        let message = format!(
            "--config {}: this benchmark starts its server with agents and a model of its own; leave the file out, use --preset, \
             or name a running server with --target",
            config.display()
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    let (agents_dir, rules, config) =
        (folder.join("agents"), folder.join("rules.yaml"), folder.join("caxton.yaml"));
    let write =
        |path: &Path, text: &str| fs::write(path, text).map_err(|error| Failure::file("write", path, &error));
    fs::create_dir_all(&agents_dir).map_err(|error| Failure::file("make", &agents_dir, &error))?;
    for number in 0..agents {
        let name = format!("{}.md", agent(Words::OWN_SERVER, number));
        write(&agents_dir.join(name), &file(Words::OWN_SERVER, number))?;
    }
    write(&rules, RULES)?;
    let text = json!({
        "agents": { "directory": agents_dir },
        "llm": { "default": "rules", "providers": [{ "name": "rules", "kind": "scripted", "script": rules }] },
    });
    // JSON is YAML.
    write(&config, &text.to_string())?;
    Ok(Some(config))
}

/// A question and its answer.
struct Conversations {
    agents: u64,
    timeout: Duration,
    words: Words,
}

impl Work for Conversations {
    fn ask(&self, number: u64) -> Ask {
        Ask::post("/messages", &self.question(0, number))
    }

    fn act(&self, door: &Door, line: u64, number: u64) -> Result<(), Refused> {
        let asked = Instant::now();
        let (status, body) =
            door.send(&Ask::post("/messages", &self.question(line, number))).map_err(Refused::Silence)?;
        if status != 201 {
            return Err(Refused::Answer(code(status, &body)));
        }
        let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
        let mut after = sent.get("seq").and_then(Value::as_u64).unwrap_or_default();
        let (inbox, tag) = (format!("/agents/{}/inbox", client(self.words, line)), tag(line, number));
        loop {
            let Some(left) = self.timeout.checked_sub(asked.elapsed()) else {
                return Err(Refused::Answer(LATE.to_owned()));
            };
            // Whole seconds, so that an answer may come when it is too late.
            let wait = left.as_secs().clamp(1, 20);
            let heard = door
                .send(&Ask::get(format!("{inbox}?after={after}&wait={wait}")))
                .map_err(Refused::Silence)?;
            let took = asked.elapsed();
            if heard.0 != 200 {
                return Err(Refused::Answer(code(heard.0, &heard.1)));
            }
            let heard: Value = serde_json::from_slice(&heard.1).unwrap_or_default();
            let messages = heard.get("messages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            for message in messages {
                let text = |name: &str| message.get(name).and_then(Value::as_str).unwrap_or_default();
                let seq = message.get("seq").and_then(Value::as_u64).unwrap_or_default();
                after = after.max(seq);
                if text("in_reply_to") == tag {
                    let done = Ask::post(format!("{inbox}/ack"), &json!({ "through": seq }));
                    door.send(&done).map_err(Refused::Silence)?;
                    return judged(text("performative"), took, self.timeout).map_err(Refused::Answer);
                }
            }
        }
    }
}

/// Whether an answer is one of success that came in time; otherwise why not.
fn judged(performative: &str, took: Duration, timeout: Duration) -> Result<(), String> {
    if took > timeout {
        return Err(LATE.to_owned());
    }
    if performative == "INFORM" { Ok(()) } else { Err(format!("answered with {performative}")) }
}

fn tag(line: u64, number: u64) -> String {
    format!("q{line}-{number}")
}

impl Conversations {
    fn question(&self, line: u64, number: u64) -> Value {
        json!({
            "performative": "REQUEST",
            "sender": client(self.words, line),
            "receiver": agent(self.words, number % self.agents),
            "content": self.words.question(number),
            "reply_with": tag(line, number),
        })
    }
}

/// When questions are asked.
fn schedule(what: &BenchmarkAgents) -> Schedule {
    Schedule::steady(what.conversations_per_second, what.duration, what.place.ramp_up)
}

/// Refuses a rate and a duration in which nothing is asked.
pub(super) fn check(what: &BenchmarkAgents) -> Result<(), Failure> {
    if schedule(what).operations() > 0 {
        return Ok(());
    }
    let message = format!(
        "--conversations-per-second {} for --duration {} asks nothing; give a higher rate or a longer duration",
        what.conversations_per_second,
        format_duration(what.duration)
    );
    Err(Failure::new(Exit::Usage, message))
}

/// Runs it.
pub(super) fn run(run: &mut Run<'_>, what: &BenchmarkAgents) -> Result<(), Failure> {
    let words = run.words;
    // What was made is taken away, whatever comes of it.
    let made = if run.instance.target().is_some() { Some(make(run, what.agents)?) } else { None };
    for line in 0..run.connections() as u64 {
        run.door.json(&Ask::post("/agents", &json!({ "agent_id": client(words, line) })))?;
    }
    let work = Conversations { agents: what.agents, timeout: what.response_timeout, words };
    let talked = run.part("conversation", &work, Pacing::Open(schedule(what)), run.connections())?;
    if let Some(made) = made {
        made.remove().into_iter().for_each(|left| run.remark(left));
    }
    run.figure(rate(&talked, "conversations/s"));
    graded(run, &talked, Target::ANSWER_MS);
    run.resident();
    Ok(())
}

/// Makes the agents on a server that runs already.
fn make(run: &mut Run<'_>, agents: u64) -> Result<Made, Failure> {
    let made = Made::new(&run.door);
    for number in 0..agents {
        made.make(&agent(run.words, number), &file(run.words, number))?;
    }
    run.remark(
        "the agents answered by the model that the server has as its default; their time is in the figures",
    );
    Ok(made)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LATE, judged};

    #[test]
    fn an_answer_that_comes_too_late_is_none() {
        let millis = Duration::from_millis;
        for (performative, took, why) in [
            ("INFORM", 499, None),
            ("INFORM", 500, None),
            ("INFORM", 501, Some(LATE)),
            ("FAILURE", 501, Some(LATE)),
            ("FAILURE", 10, Some("answered with FAILURE")),
        ] {
            let judged = judged(performative, millis(took), millis(500));
            assert_eq!(judged.err().as_deref(), why, "{performative} after {took} ms");
        }
    }
}
