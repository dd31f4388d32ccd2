//! `caxton agents logs`: what an agent did, from the log.

use std::io::{self, Write as _};

use serde_json::Value;

use super::super::args::{AgentLogs, Common};
use super::super::backend::{Backend, Request, encoded};
use super::super::failure::{Exit, Failure};
use super::super::output::{Output, cell, counted, items, shortened};
use super::conversations::Following;
use super::shown::{message_of, plain};
use super::{content, names, server};

/// Positions of the first look back; each further one is four times as far.
const LOOK_BACK: u64 = 5_000;
/// Events asked for at a time.
const PAGE: &str = "1000";

/// Shows the newest events of an agent and, with `--follow`, those to come.
pub(in crate::cli) fn run(what: &AgentLogs, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let backend = if what.follow {
        Backend::Http(server(common, "without one no agent does anything new")?)
    } else {
        Backend::open(common, false)?
    };
    let following = what.follow.then(Following::begin).transpose()?;
    let found = backend.ask(Request::get(&format!("/api/v1/agents/{}", encoded(&what.name))));
    let Newest { events, head, first } = newest(&backend, &what.name, what.lines as usize)?;
    match found {
        // An agent whose file is gone is known to the log alone.
        Err(failure) if failure.exit != Some(Exit::NotFound) || events.is_empty() => return Err(failure),
        Ok(_) | Err(_) => (),
    }
    if first > 1 && events.len() < what.lines as usize {
        // Nobody may be listening there.
        let _ = writeln!(io::stderr(), "caxton: the log begins at #{first}, what lies before was dropped");
    }
    for event in &events {
        print(event, what, out)?;
    }
    out.flush()?;
    let Some(following) = following else { return Ok(()) };
    let name = what.name.clone();
    let ask = move |after: u64| {
        Request::get("/api/v1/events/stream")
            .with("agent_id", &name)
            .with("from_seq", &(after + 1).to_string())
    };
    following.tell(common, head, ask, out, |event, out| {
        print(event, what, out)?;
        Ok(false)
    })
}

fn print(event: &Value, what: &AgentLogs, out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.json_line(event);
    }
    match line(event, what) {
        Some(line) => {
            out.line(format_args!("{}  #{} {line}", cell(event, "recorded_at"), cell(event, "seq")))
        }
        None => Ok(()),
    }
}

/// What was found of an agent.
struct Newest {
    events: Vec<Value>,
    /// The position up to which was looked.
    head: u64,
    /// The first position that the log has.
    first: u64,
}

/// The newest `count` events that people are shown.
fn newest(backend: &Backend, agent: &str, count: usize) -> Result<Newest, Failure> {
    let answer = backend.ask(Request::get("/api/v1/log/head"))?;
    let (first, head) =
        (answer["first_seq"].as_u64().unwrap_or(1), answer["seq"].as_u64().unwrap_or_default());
    let (mut found, mut until, mut width) = (Vec::new(), head + 1, LOOK_BACK);
    while until > first && found.len() < count {
        let from = until.saturating_sub(width).max(first);
        let mut part = between(backend, agent, from, until)?;
        part.extend(found);
        (found, until, width) = (part, from, width.saturating_mul(4));
    }
    found.drain(..found.len().saturating_sub(count));
    Ok(Newest { events: found, head, first })
}

/// The agent's events at `from` and behind it, before `until`.
fn between(backend: &Backend, agent: &str, from: u64, until: u64) -> Result<Vec<Value>, Failure> {
    let (mut next, mut found) = (from, Vec::new());
    while next < until {
        let request = Request::get("/api/v1/events")
            .with("agent_id", agent)
            .with("from_seq", &next.to_string())
            .with("limit", PAGE);
        let page = backend.ask(request)?;
        let events = items(&page, "events").iter();
        let inside = events.filter(|event| event["seq"].as_u64().is_some_and(|seq| seq < until));
        found.extend(inside.filter(|event| is_shown(event)).cloned());
        // A server that does not move on would keep us for ever.
        next = page["next_seq"].as_u64().unwrap_or(until).max(next + 1);
    }
    Ok(found)
}

/// What an agent has read is its own business, and there is much of it.
fn is_shown(event: &Value) -> bool {
    event["kind"] != "conversation.inbox_acknowledged" && event["kind"] != "conversation.opened"
}

fn line(event: &Value, what: &AgentLogs) -> Option<String> {
    let kind = event["kind"].as_str().unwrap_or_default();
    let text = |text: &str| if what.full { plain(text) } else { shortened(text) };
    match kind.split_once('.') {
        Some(("turn", kind)) => turn(kind, &event["data"], text),
        Some(("conversation", _)) => talk(event, &what.name, text),
        Some(("agent", kind)) => agent(kind, &event["data"], text),
        Some(("memory", kind)) => Some(memory(kind, &event["data"], text)),
        _ => None,
    }
}

/// A step of a turn. Turns run beside each other: each line begins with the end of its turn's number.
fn turn(kind: &str, data: &Value, text: impl Fn(&str) -> String) -> Option<String> {
    let id = cell(data, "turn_id");
    let tag = id.get(id.len().saturating_sub(6)..).unwrap_or(&id);
    step(kind, data, text).map(|step| format!("[{tag}] {step}"))
}

fn step(kind: &str, data: &Value, text: impl Fn(&str) -> String) -> Option<String> {
    let part = |name| cell(data, name);
    let millis = || data["took_micros"].as_f64().unwrap_or_default() / 1_000.0;
    let will_retry = data["will_retry"] == true;
    Some(match kind {
        "started" => {
            let (asked, attempt) = (part("message_seq"), part("attempt"));
            let again = if attempt == "1" { String::new() } else { format!(", attempt {attempt}") };
            format!("takes up #{asked}{again}")
        }
        "context_prepared" => {
            let parts = items(data, "parts");
            let tokens: u64 = parts.iter().filter_map(|row| row["tokens"].as_u64()).sum();
            let sources: Vec<String> = parts.iter().map(source).collect();
            let sources = if sources.is_empty() { "nothing".to_owned() } else { sources.join(", ") };
            format!("context: {sources}; {tokens} of {} tokens", part("budget_tokens"))
        }
        "model_answered" => {
            let usage = &data["usage"];
            let calls = items(data, "tool_calls");
            let said = match (part("text"), calls.len()) {
                (said, 0) => text(&said),
                (_, count) => {
                    let tools: Vec<String> = calls.iter().map(|call| cell(call, "tool")).collect();
                    format!("wants {}: {}", counted(count, "call"), tools.join(", "))
                }
            };
            let kept = if data["cached"] == true { ", kept answer" } else { "" };
            format!(
                "{}/{} answered in {:.1} ms ({} + {} tokens{kept}): {said}",
                part("provider"),
                part("model"),
                millis(),
                cell(usage, "input_tokens"),
                cell(usage, "output_tokens"),
            )
        }
        "model_failed" => {
            let next = if will_retry { "; it is asked again" } else { "" };
            format!("{}/{} failed: {}{next}", part("provider"), part("model"), text(&part("error")))
        }
        "tool_started" => format!("calls {}", part("tool")),
        "tool_answered" => {
            let how = if data["failed"] == true { "failed" } else { "answered" };
            format!("{} {how} in {:.1} ms: {}", part("tool"), millis(), text(&part("result")))
        }
        "tool_refused" => format!("{} is refused: {}", part("tool"), text(&part("reason"))),
        "finished" => match part("reply_message_id") {
            reply if reply.is_empty() => "is done, without an answer".to_owned(),
            reply => format!("is done, answer {reply}"),
        },
        "failed" => {
            let next = if will_retry { "; the message is taken up again" } else { "" };
            format!("failed: {}{next}", text(&part("reason")))
        }
        _ => return None,
    })
}

/// What one source gave to a turn's context.
fn source(part: &Value) -> String {
    let name = cell(part, "source").replace('_', " ");
    match part["unavailable"].as_str() {
        Some(why) => format!("{name} unavailable ({why})"),
        None => format!("{name} {}", items(part, "used").len()),
    }
}

fn talk(event: &Value, agent: &str, text: impl Fn(&str) -> String) -> Option<String> {
    if event["kind"] != "conversation.message_sent" {
        // The place and the time stand in front of every line already.
        let line = super::shown::happening(event)?;
        return line.split_once("  #")?.1.split_once(' ').map(|(_, what)| what.to_owned());
    }
    let message = message_of(event);
    let [word, sender, conversation] =
        ["performative", "sender", "conversation_id"].map(|name| cell(&message, name));
    let said = text(&content(&message));
    Some(if sender == agent {
        format!("sends {word} to {} in {conversation}: {said}", names(&message, "receivers"))
    } else {
        format!("gets {word} from {sender} in {conversation}: {said}")
    })
}

fn agent(kind: &str, data: &Value, text: impl Fn(&str) -> String) -> Option<String> {
    let part = |name| cell(data, name);
    Some(match kind {
        "external_registered" => format!("is registered, in workspace {}", part("workspace")),
        "config_loaded" => format!("is version {} from here on ({})", part("version"), part("path")),
        "config_rejected" => {
            let problems = items(data, "problems");
            let first = problems.first().map(|problem| cell(problem, "reason")).unwrap_or_default();
            format!(
                "{} cannot be used, {}: {}",
                part("path"),
                counted(problems.len(), "problem"),
                text(&first)
            )
        }
        "config_removed" => format!("is gone with {}", part("path")),
        "status_changed" => format!("is {}: {}", part("status"), text(&part("reason"))),
        "capability_registered" => format!("offers {} {}", part("capability"), part("version")),
        "capability_updated" => format!("changes an offer, priority {}", part("priority")),
        "capability_removed" => format!("no longer offers {}", part("capability")),
        "health_changed" => format!("is {}: {}", part("health"), text(&part("reason"))),
        "circuit_changed" => {
            format!("circuit {} after {} failures in a row", part("circuit"), part("failures"))
        }
        _ => return None,
    })
}

fn memory(kind: &str, data: &Value, text: impl Fn(&str) -> String) -> String {
    let part = |name| cell(data, name);
    match kind {
        "entity_created" => format!("remembers {} ({})", text(&part("entity_name")), part("entity_id")),
        "observation_added" => format!("remembers of {}: {}", part("entity_id"), text(&part("content"))),
        "relation_created" => {
            let [from, says, to] = ["from_entity_id", "relation_type", "to_entity_id"].map(part);
            format!("relates {from} {says} {to}")
        }
        other => {
            let id = ["entity_id", "observation_id", "relation_id"]
                .map(part)
                .into_iter()
                .find(|id| !id.is_empty());
            format!("memory: {} {}", other.replace('_', " "), id.unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{AgentLogs, line};

    #[track_caller]
    fn check(kind: &str, data: &Value, then: &str) {
        let what = AgentLogs { name: "bob".to_owned(), lines: 1, follow: false, full: false };
        let event = json!({"seq": 20, "recorded_at": "T", "kind": kind, "causation_seq": 3, "data": data});
        assert_eq!(line(&event, &what).as_deref(), Some(then));
    }

    #[test]
    fn a_turn_is_told_step_by_step() {
        check(
            "turn.started",
            &json!({"message_seq": 17, "turn_id": "turn_1", "attempt": 1}),
            "[turn_1] takes up #17",
        );
        check(
            "turn.started",
            &json!({"message_seq": 17, "turn_id": "turn_1", "attempt": 2}),
            "[turn_1] takes up #17, attempt 2",
        );
        check(
            "turn.context_prepared",
            &json!({"budget_tokens": 4000, "parts": [
                {"source": "memory", "used": ["ent_1", "obs_2"], "tokens": 40, "unavailable": null},
                {"source": "tool_data", "used": [], "tokens": 0, "unavailable": "no answer"},
            ]}),
            "[] context: memory 2, tool data unavailable (no answer); 40 of 4000 tokens",
        );
        let answered = |calls: Value| {
            json!({"provider": "extractive", "model": "m", "text": "a\nb", "tool_calls": calls, "cached": true,
                "usage": {"input_tokens": 12, "output_tokens": 3}, "took_micros": 4_200})
        };
        check(
            "turn.model_answered",
            &answered(json!([])),
            "[] extractive/m answered in 4.2 ms (12 + 3 tokens, kept answer): a b",
        );
        check(
            "turn.model_answered",
            &answered(json!([{"tool": "memory"}, {"tool": "http_client"}])),
            "[] extractive/m answered in 4.2 ms (12 + 3 tokens, kept answer): wants 2 calls: memory, http_client",
        );
        check(
            "turn.tool_refused",
            &json!({"tool": "http_client", "reason": "the host is not allowed"}),
            "[] http_client is refused: the host is not allowed",
        );
        check(
            "turn.failed",
            &json!({"reason": "r", "will_retry": true}),
            "[] failed: r; the message is taken up again",
        );
        check("turn.finished", &json!({"reply_message_id": null}), "[] is done, without an answer");
    }

    #[test]
    fn messages_are_told_from_the_agents_side() {
        let message = |sender: &str| {
            json!({"sender": sender, "receivers": ["eve"], "performative": "INFORM", "conversation_id": "c",
                "content": {"cups": 3}})
        };
        check("conversation.message_sent", &message("bob"), "sends INFORM to eve in c: {\"cups\":3}");
        check("conversation.message_sent", &message("ada"), "gets INFORM from ada in c: {\"cups\":3}");
        check(
            "conversation.message_dead_lettered",
            &json!({"sent_seq": 3, "receiver": "bob", "reason": "agent_stopped", "detail": "bob is stopped"}),
            "#3 is given up for bob: agent_stopped (bob is stopped)",
        );
    }
}
