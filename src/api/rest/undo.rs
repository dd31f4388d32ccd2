//! `POST /memory/undo`: takes facts back, or says what that would do.

use std::collections::{BTreeSet, HashMap};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::limits::{UNDO_BYTES_MAX, UNDO_EVENTS_MAX};
use caxton_events::log::{Filter, Reader};
use caxton_events::memory::{Chosen, Later};
use caxton_events::{MemoryId, Scope, Seq};
use caxton_projections::graph::{Fact, HistoryRow, RowRef};
use caxton_projections::view::View;
use serde::Serialize;
use serde_json::{Value, json};

use super::Api;
use super::call::{Call, WriteContext};
use super::caller::CALLER;
use super::fields::Fields;
use super::problem::Problem;
use super::refusals::{self, events_dropped, graph_failed, log_unreadable, whole};
use super::rows::{EntityRow, ObservationRow, RelationRow, json as answer, names_of};
use crate::commands::undo::{Change, LaterFact, PlanError};
use crate::engine::{UndoAsk, UndoError, UndoOutcome};

/// What chooses facts, and how they are treated.
const ASKED: &[&str] = &[
    "agent",
    "conversation_id",
    "correlation_id",
    "from_seq",
    "to_seq",
    "since",
    "until",
    "later",
    "dry_run",
    "limit",
];
/// Changes and later facts that an answer lists unless told otherwise.
const LISTED: u64 = 1_000;
/// Most that it lists.
const LISTED_MAX: u64 = 100_000;
/// Later facts that a refusal lists, and how many of them its sentence names.
const BLOCKERS_LISTED: usize = 100;
const BLOCKERS_NAMED: usize = 3;

/// `POST /memory/undo`.
pub(super) async fn undo(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(WriteContext::QUERY)?;
    let mut body = call.members(&[CALLER, ASKED])?;
    let is_named =
        body.given("agent_id") || query.given("agent_id") || call.headers().get("x-caxton-agent").is_some();
    let context = WriteContext::take(&api, &call, &mut query, Some(&mut body));
    if context.caller.named.is_some() {
        let remedy = "leave it out: an undo changes the scopes that were written to";
        body.complain("memory_scope", None, "means nothing here", remedy);
    }
    let chosen = chosen(&mut body);
    let words: Vec<(&str, Later)> = Later::ALL.iter().map(|later| (later.as_str(), *later)).collect();
    let later = body.choice("later", &words).unwrap_or(Later::Refuse);
    let is_preview = body.flag("dry_run").unwrap_or(false);
    let listed = body.integer("limit", 0..=LISTED_MAX).unwrap_or(LISTED) as usize;
    body.absorb(query);
    body.finish()?;
    let by = is_named.then(|| (context.caller.agent.clone(), context.caller.workspace.clone()));
    // The operator sees all names, an agent those of its scopes.
    let visible = is_named.then(|| context.caller.visible());
    let ask = UndoAsk {
        chosen,
        later,
        by,
        correlation: Some(call.request_id.clone()),
        idempotency: context.idempotency().filter(|_| !is_preview),
        wait: context.wait,
    };
    let engine = api.engine.clone();
    if is_preview {
        let shown = move |view: &View, outcome: &UndoOutcome| {
            let status = if outcome.plan.is_refused(later) {
                "would_be_refused"
            } else if outcome.plan.changes.is_empty() {
                "unchanged"
            } else {
                "would_be_undone"
            };
            report((view, engine.log()), outcome, later, status, (listed, visible.as_deref()))
        };
        let engine = api.engine.clone();
        let body = api.read(move |view| shown(view, &engine.preview_undo(&ask).map_err(not_undone)?)).await?;
        return answer(StatusCode::OK, &body);
    }
    match api.engine.undo(ask).await {
        Ok(outcome) => {
            let status = if outcome.is_recorded { "undone" } else { "unchanged" };
            let known = told(&outcome, later, status);
            let shown = move |view: &View| {
                report((view, engine.log()), &outcome, later, status, (listed, visible.as_deref()))
            };
            let body = api.read_behind_write(shown).await.unwrap_or(known);
            answer(StatusCode::OK, &body)
        }
        Err(UndoError::Blocked(outcome)) => {
            Err(api.read(move |_| blocked(engine.log(), &outcome.plan.later_facts)).await?)
        }
        Err(error) => Err(not_undone(error)),
    }
}

/// Which facts are meant.
fn chosen(body: &mut Fields) -> Chosen {
    let (since, until) = body.stretch();
    let chosen = Chosen {
        agent: body.parsed("agent"),
        conversation: body.parsed("conversation_id"),
        correlation: body.text("correlation_id"),
        from: body.integer("from_seq", 1..=u64::MAX).map(Seq),
        to: body.integer("to_seq", 1..=u64::MAX).map(Seq),
        since,
        until,
    };
    let Chosen { agent, conversation, correlation, from, to, .. } = &chosen;
    let is_range = from.is_some() && to.is_some();
    if agent.is_none() && conversation.is_none() && correlation.is_none() && !is_range && body.is_fine() {
        let remedy = "name an agent, a conversation_id, a correlation_id, or both from_seq and to_seq";
        body.complain("agent", None, "is missing, and so is every other choice of facts", remedy);
    }
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        let message = format!("is before from_seq {}", from.0);
        body.complain("to_seq", Some(&to.0.to_string()), &message, "give the later position as to_seq");
    }
    chosen
}

#[derive(Serialize)]
struct ChangeRow {
    id: String,
    change: &'static str,
    scope: String,
    before: Option<Value>,
    after: Option<Value>,
    undoes: Vec<Seq>,
    /// No chosen fact is among them.
    taken_along: bool,
    /// The record that did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<Seq>,
}

fn report(
    (view, log): (&View, &Reader),
    outcome: &UndoOutcome,
    later: Later,
    status: &str,
    (listed, visible): (usize, Option<&[Scope]>),
) -> Result<Value, Problem> {
    let seq = |index: usize| outcome.is_recorded.then_some(Seq(outcome.first.0 + 1 + index as u64));
    let names = EndNames::of(view, &outcome.plan.changes, listed, visible);
    let changes = outcome.plan.changes.iter().enumerate().take(listed);
    let changes: Vec<ChangeRow> = changes.map(|(index, change)| shown(change, &names, seq(index))).collect();
    let mut body = told(outcome, later, status);
    // The undo may be done: a log that fails behind it must not make it look as if it were not.
    body["first_seq"] = json!(log.first().ok());
    body["changes"] = json!(changes);
    match facts(log, &outcome.plan.later_facts, listed) {
        Ok(facts) => body["later_facts"] = json!(facts),
        Err(_) if outcome.is_recorded => (),
        Err(problem) => return Err(problem),
    }
    Ok(body)
}

/// What is known of an undo without reading anything: its figures and positions.
fn told(outcome: &UndoOutcome, later: Later, status: &str) -> Value {
    let mut body = json!(outcome.summary);
    body["status"] = json!(status);
    body["later"] = json!(later.as_str());
    body["through_seq"] = json!(outcome.through);
    body["changes_total"] = json!(outcome.plan.changes.len());
    body["later_facts_total"] = json!(outcome.plan.later_facts.len());
    body["seq"] = json!(outcome.last);
    if outcome.is_recorded {
        body["undo_seq"] = json!(outcome.first);
        body["recorded_at"] = json!(outcome.recorded_at);
        body["replayed"] = json!(outcome.replayed);
    }
    body
}

/// Names of the ends of the relations that change.
#[derive(Default)]
struct EndNames {
    /// Before the undo.
    before: HashMap<MemoryId, String>,
    /// Behind it.
    after: HashMap<MemoryId, String>,
}

impl EndNames {
    /// Those for the first `listed` changes. An end that the undo itself renames, takes away or brings back has the name
    /// that the plan has for that side, or else for the other; any other end has that of the graph, where it is
    /// `visible`. One that is in neither has none.
    fn of(view: &View, changes: &[Change], listed: usize, visible: Option<&[Scope]>) -> Self {
        let versions = changes.iter().take(listed).flat_map(|change| [&change.before, &change.after]);
        let relations = versions.flatten().filter_map(|version| match &version.fact {
            Fact::Relation(relation) => Some([relation.from, relation.to]),
            Fact::Entity(_) | Fact::Observation(_) => None,
        });
        let ends: BTreeSet<MemoryId> = relations.flatten().collect();
        if ends.is_empty() {
            return Self::default();
        }
        // The undo may be done: a graph that fails behind it must not make it look as if it were not.
        let before = names_of(view, ends.iter().copied(), visible).unwrap_or_default();
        let mut names = Self { after: before.clone(), before };
        for change in changes {
            let RowRef::Entity(id) = change.row else { continue };
            if !ends.contains(&id) {
                continue;
            }
            let (was, will_be) = (name_in(change.before.as_deref()), name_in(change.after.as_deref()));
            names.before.extend(was.or(will_be).map(|name| (id, name.to_owned())));
            names.after.extend(will_be.or(was).map(|name| (id, name.to_owned())));
        }
        names
    }
}

/// The name in a version of an entity.
fn name_in(version: Option<&HistoryRow>) -> Option<&str> {
    match &version?.fact {
        Fact::Entity(entity) => Some(&entity.name),
        Fact::Observation(_) | Fact::Relation(_) => None,
    }
}

fn shown(change: &Change, names: &EndNames, seq: Option<Seq>) -> ChangeRow {
    ChangeRow {
        id: change.row.to_string(),
        change: match (&change.before, &change.after) {
            (None, _) => "restored",
            (Some(_), None) => "removed",
            (Some(_), Some(_)) => "changed",
        },
        scope: change.scope.to_string(),
        before: change.before.as_ref().map(|version| row(version, &names.before)),
        after: change.after.as_ref().map(|version| row(version, &names.after)),
        undoes: change.undoes.clone(),
        taken_along: change.along,
        seq,
    }
}

/// A version of a row as reads show it.
fn row(version: &HistoryRow, names: &HashMap<MemoryId, String>) -> Value {
    match version.fact.clone() {
        Fact::Entity(entity) => json!(EntityRow::from(entity)),
        Fact::Observation(observation) => json!(ObservationRow::from(observation)),
        Fact::Relation(relation) => json!(RelationRow::new(relation, names)),
    }
}

#[derive(Serialize)]
struct FactRow {
    seq: Seq,
    kind: &'static str,
    actor: String,
    recorded_at: caxton_events::Timestamp,
    id: String,
    builds_on: Seq,
    why: String,
}

/// The first of the later facts, with what the log says of them.
fn facts(log: &Reader, later: &[LaterFact], listed: usize) -> Result<Vec<FactRow>, Problem> {
    let mut rows = Vec::with_capacity(later.len().min(listed));
    for fact in later.iter().take(listed) {
        let filter = Filter { until: Some(fact.seq), ..Filter::default() };
        let Some(record) = log.scan(fact.seq, &filter).next() else { continue };
        let record = record.map_err(|error| log_unreadable(&error))?;
        rows.push(FactRow {
            seq: fact.seq,
            kind: record.event.kind().name(),
            actor: record.actor,
            recorded_at: record.recorded_at,
            id: fact.row.to_string(),
            builds_on: fact.builds_on,
            why: fact.why.to_string(),
        });
    }
    Ok(rows)
}

/// Later facts are in the way: nothing was written.
fn blocked(log: &Reader, later: &[LaterFact]) -> Result<Problem, Problem> {
    let rows = facts(log, later, BLOCKERS_LISTED)?;
    let named: Vec<String> = rows
        .iter()
        .take(BLOCKERS_NAMED)
        .map(|row| format!("#{} by {} ({} {})", row.seq.0, row.actor, row.id, row.why))
        .collect();
    let more = if later.len() > named.len() { ", …" } else { "" };
    let detail = format!(
        "{} later facts build on what would be undone: {}{more}; nothing was undone",
        later.len(),
        named.join(", ")
    );
    Ok(Problem::new(StatusCode::CONFLICT, "UNDO_BLOCKED", detail)
        .field("later")
        .value(Later::Refuse.as_str())
        .remedy("see them all with dry_run; then choose later=keep (they stay, with what they build on) or later=undo (they go too)")
        .detail("later_facts_total", later.len())
        .detail("later_facts", json!(rows)))
}

fn not_undone(error: UndoError) -> Problem {
    match error {
        UndoError::Read(error) => log_unreadable(&error),
        UndoError::Dropped { field, first } => events_dropped(field, first),
        UndoError::Plan(PlanError::Graph(error)) => graph_failed(&error),
        UndoError::Plan(error @ (PlanError::TooMany | PlanError::TooLarge)) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", error.to_string())
                .field("agent")
                .remedy("undo piece by piece, the newest first: narrow it with since or from_seq")
                .detail("facts_max", UNDO_EVENTS_MAX)
                .detail("bytes_max", UNDO_BYTES_MAX)
        }
        UndoError::Refused(refusal) => refusals::refused(vec![refusal], &whole),
        UndoError::Submit(error) => refusals::not_submitted(error, &whole),
        error @ UndoError::Blocked(_) => refusals::internal(&error),
    }
}
