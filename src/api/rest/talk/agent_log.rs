//! `GET /agents/{id}/logs`: what an agent said, heard and did, one line each.

use axum::extract::State;
use axum::response::Response;
use caxton_events::conversation::{Message, Performative};
use caxton_events::log::Filter;
use caxton_events::turn::TurnEvent;
use caxton_events::{AgentId, ConversationEvent, Event, Family, Record, Seq};
use caxton_projections::conversations::Window;
use caxton_projections::talk::TalkPart;
use serde_json::{Value, json};

use super::super::Api;
use super::super::call::{Call, READ_QUERY};
use super::super::entities::Page;
use super::super::moment::{AS_OF, talk_context};
use super::super::problem::{Problem, shortened};
use super::super::refusals::{begins_at, log_unreadable, whole};
use super::past::answer;
use super::said::{SPAN, Span};
use super::{no_agent, not_done};
use crate::engine::{Engine, RECORDS_BYTES_MAX};

/// Lines looked at for one page; a level that keeps little answers early, with a cursor.
const LOOKED_AT_MAX: usize = 5_000;

/// How much a line matters, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Info,
    Warn,
    Error,
}

const LEVELS: &[(&str, Level)] = &[("info", Level::Info), ("warn", Level::Warn), ("error", Level::Error)];

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// `GET /agents/{id}/logs`: the latest first, unless `order=oldest`.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[Page::QUERY, READ_QUERY, AS_OF, SPAN, &["level"]])?;
    let page = Page::take(&api, &call, &mut query);
    let (min_seq, as_of) = talk_context(&call, &mut query);
    let span = Span::take(&mut query);
    let level = query.choice("level", LEVELS).unwrap_or(Level::Info);
    query.finish()?;
    let moment = api.talk_moment(as_of, min_seq).await?;
    let text = call.path("agent").to_owned();
    let agent = api.read_talk(moment, TalkPart::Agents, move |state| {
        text.parse().ok().filter(|name| state.registry.is_known(name)).ok_or_else(|| no_agent(&text))
    });
    let agent: AgentId = agent.await?;
    let cursor = page.after()?;
    let engine = api.engine.clone();
    api.read(move |_| {
        let mut window = span.window(engine.log(), moment, cursor)?;
        let (mut lines, mut stopped, mut looked_at) = (Vec::new(), None, 0);
        while lines.len() <= page.limit {
            let part = found(&engine, &agent, window, page.limit + 1, level)?;
            // Whoever has more looked at so many, be they erased.
            looked_at += page.limit + 1;
            lines.extend(part.lines.into_iter().filter_map(|(_, line)| line));
            let Some(place) = part.more else { break };
            if (looked_at >= LOOKED_AT_MAX || part.large) && lines.len() <= page.limit {
                stopped = Some(place);
                break;
            }
            if window.newest_first {
                window.before = place;
            } else {
                window.after = place;
            }
        }
        let next_cursor =
            page.cut(&mut lines, |(seq, _)| seq.0).or_else(|| stopped.map(|seq| page.cursor_at(seq.0)));
        let lines: Vec<Value> = lines.into_iter().map(|(_, line)| line).collect();
        let count = lines.len();
        let body = json!({
            "agent_id": agent,
            "logs": lines,
            "count": count,
            "next_cursor": next_cursor,
            "first_seq": begins_at(engine.log(), &[])?,
        });
        answer(moment, body)
    })
    .await
}

/// A stretch of the records of an agent.
struct Found {
    /// Each with its line, when it matters enough.
    lines: Vec<(Seq, Option<(Seq, Value)>)>,
    /// There may be more behind this place, where a record may stand that was erased.
    more: Option<Seq>,
    /// It ended there because so much was read.
    large: bool,
}

/// Up to `limit` records of the agent: its messages by their lists, its turns by the blocks that hold some of it. Of records
/// with much content, fewer.
fn found(
    engine: &Engine,
    agent: &AgentId,
    window: Window,
    limit: usize,
    level: Level,
) -> Result<Found, Problem> {
    let (mut seqs, has_turns) = {
        let state = engine.view().talk().read();
        let found = state.conversations.of_agent(agent, window, limit);
        let has_turns = state.registry.agent(agent).is_some_and(|agent| !agent.versions.is_empty());
        (found.into_iter().map(|(seq, _)| seq).collect::<Vec<Seq>>(), has_turns)
    };
    // What lies beyond the last message of a full page, or beyond the last one that was read, does not come on it.
    let full = seqs.last().copied().filter(|_| seqs.len() == limit);
    seqs.dedup();
    let records = engine.records(&seqs).map_err(|error| not_done(error, &whole))?;
    let cut = records.last().map(|record| record.seq).filter(|seq| seqs.last() != Some(seq));
    let mut edge = cut.or(full);
    let mut large = cut.is_some();
    let shown = |record: Record| (record.seq, line(agent, &record, level));
    let mut lines: Vec<_> = records.into_iter().map(shown).collect();
    let (first, last) = (window.after.next(), window.before.previous().min(engine.log().head().seq));
    if has_turns && first <= last {
        let kinds = Some(Family::kinds(&[Family::Turn]));
        let actor = Some(agent.as_str().to_owned());
        let filter = Filter { kinds, actor, ..Filter::default() };
        let log = engine.log();
        let mut scan = if window.newest_first {
            log.scan_back(last, &Filter { until: Some(edge.unwrap_or(first)), ..filter })
        } else {
            log.scan(first, &Filter { until: Some(edge.unwrap_or(last)), ..filter })
        };
        for _ in 0..limit {
            let Some(record) = scan.next() else { break };
            let record = record.map_err(|error| log_unreadable(&error))?;
            let seq = record.seq;
            lines.push(shown(record));
            if scan.content_bytes() >= RECORDS_BYTES_MAX {
                (edge, large) = (Some(seq), true);
                break;
            }
        }
    }
    if let Some(edge) = edge {
        lines.retain(|(seq, _)| if window.newest_first { *seq >= edge } else { *seq <= edge });
    }
    lines.sort_unstable_by_key(|(seq, _)| *seq);
    if window.newest_first {
        lines.reverse();
    }
    let is_full = lines.len() >= limit;
    lines.truncate(limit);
    let more = if is_full { lines.last().map(|(seq, _)| *seq) } else { edge };
    Ok(Found { lines, more, large })
}

/// The line for a record, when it matters enough.
fn line(agent: &AgentId, record: &Record, least: Level) -> Option<(Seq, Value)> {
    let (level, event, text, about) = match &record.event {
        Event::Conversation(ConversationEvent::MessageSent(message)) => said(agent, message),
        Event::Turn(event) => did(event, record.event.kind().name()),
        Event::Conversation(_) | Event::Memory(_) | Event::Agent(_) | Event::System(_) => return None,
    };
    if level < least {
        return None;
    }
    let mut shown = json!({
        "seq": record.seq,
        "recorded_at": record.recorded_at,
        "level": level.as_str(),
        "event": event,
        "text": text,
    });
    if let (Value::Object(shown), Value::Object(about)) = (&mut shown, about) {
        shown.extend(about);
    }
    Some((record.seq, shown))
}

type Said = (Level, String, String, Value);

fn said(agent: &AgentId, message: &Message) -> Said {
    let failed = matches!(
        message.performative,
        Performative::Failure | Performative::Refuse | Performative::NotUnderstood
    );
    let level = if failed { Level::Warn } else { Level::Info };
    let receivers: Vec<&str> = message.receivers.iter().map(AgentId::as_str).collect();
    let sent = message.sender == *agent;
    let (event, peers) = if sent {
        let nobody = receivers.is_empty();
        ("message.sent", if nobody { "to nobody".to_owned() } else { format!("to {}", receivers.join(", ")) })
    } else {
        ("message.received", format!("from {}", message.sender))
    };
    let text = format!("{} {peers}: {}", message.performative, shortened(message.content.as_str()));
    let about = json!({
        "message_id": message.id,
        "conversation_id": message.conversation,
        "performative": message.performative,
        "sender": message.sender,
        "receivers": message.receivers,
    });
    (level, event.to_owned(), text, about)
}

fn did(event: &TurnEvent, kind: &str) -> Said {
    let retried = |retry: &bool| if *retry { Level::Warn } else { Level::Error };
    let (level, turn, text) = match event {
        TurnEvent::Started { turn, message, attempt, .. } => {
            (Level::Info, turn, format!("took up the message at {}, attempt {attempt}", message.0))
        }
        TurnEvent::ContextPrepared { turn, parts, budget_tokens, missing_variables, .. } => {
            let failed = parts.iter().any(|part| part.unavailable.is_some()) || !missing_variables.is_empty();
            let tokens: u64 = parts.iter().map(|part| u64::from(part.tokens)).sum();
            let level = if failed { Level::Warn } else { Level::Info };
            (level, turn, format!("prepared a context of {tokens} of {budget_tokens} tokens"))
        }
        TurnEvent::ModelAnswered { turn, provider, model, text, tool_calls, took_micros, .. } => {
            let tools: Vec<&str> = tool_calls.iter().map(|call| call.tool.as_str()).collect();
            let said = if tools.is_empty() { shortened(text) } else { format!("calls {}", tools.join(", ")) };
            (Level::Info, turn, format!("{provider}/{model} after {} ms: {said}", took_micros / 1_000))
        }
        TurnEvent::ModelFailed { turn, provider, model, error, will_retry, .. } => {
            (retried(will_retry), turn, format!("{provider}/{model}: {}", shortened(error)))
        }
        TurnEvent::ToolStarted { turn, tool, .. } => (Level::Info, turn, format!("calls {tool}")),
        TurnEvent::ToolAnswered { turn, tool, result, failed, took_micros, .. } => {
            let level = if *failed { Level::Warn } else { Level::Info };
            (level, turn, format!("{tool} after {} ms: {}", took_micros / 1_000, shortened(result)))
        }
        TurnEvent::ToolRefused { turn, tool, reason, .. } => {
            (Level::Warn, turn, format!("{tool} was refused: {}", shortened(reason)))
        }
        TurnEvent::Finished { turn, reply } => {
            let said = reply.map_or_else(|| "without an answer".to_owned(), |id| format!("with {id}"));
            (Level::Info, turn, format!("done, {said}"))
        }
        TurnEvent::Failed { turn, reason, will_retry } => {
            (retried(will_retry), turn, format!("came to nothing: {}", shortened(reason)))
        }
    };
    (level, kind.to_owned(), text, json!({"turn": turn}))
}
