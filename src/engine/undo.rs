//! Undoing: facts are chosen in the log, the memory writer decides on the present what takes them back, and records it in
//! one batch.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use caxton_events::limits::UNDO_EVENTS_MAX;
use caxton_events::log::{
    AppendError, Batch, Filter, IdempotencyKey, Range, Reach, ReadError as LogReadError, Reader,
};
use caxton_events::memory::{Chosen, Later};
use caxton_events::{
    AgentEvent, AgentId, Draft, Event, Family, Kind, MemoryEvent, Record, Scope, Seq, Timestamp, TurnEvent,
    WorkspaceId,
};
use caxton_projections::conversations::SYSTEM;
use caxton_projections::graph::{GraphReader, RowRef};
use caxton_projections::view::{Part, Wait};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::memory_group::key_conflict;
use super::memory_writer::{Asked, MemoryWriter};
use super::{Engine, Idempotency, SubmitError};
use crate::commands::undo::{Plan, PlanError, Undo, plan, row_of};
use crate::commands::{Refusal, RefusalCode};
use crate::telemetry;

/// The stream of the records that say what was undone.
const STREAM: &str = "memory";

/// What is asked.
#[derive(Debug, Clone)]
pub struct UndoAsk {
    /// Which facts.
    pub chosen: Chosen,
    /// What happens to those that build on them.
    pub later: Later,
    /// Who asks, with the workspace it works in: only scopes that it sees may change then. `None`: the operator, who may
    /// change every scope.
    pub by: Option<(AgentId, WorkspaceId)>,
    /// The request.
    pub correlation: Option<String>,
    /// The client's own key.
    pub idempotency: Option<Idempotency>,
    /// What must have happened before the answer.
    pub wait: Wait,
}

/// What an undo did, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UndoSummary {
    /// Facts that were chosen.
    pub selected: usize,
    /// Facts that were taken back, later ones that went along included.
    pub undone: usize,
    /// Chosen facts that were undone before.
    pub already_undone: usize,
    /// Chosen facts that stay, because later ones build on them.
    pub kept: usize,
    /// Facts whose effect others took back already.
    pub without_effect: usize,
    /// Facts that build on chosen ones.
    pub later_facts: usize,
    /// Rows that went.
    pub removed: usize,
    /// Rows that came back.
    pub restored: usize,
    /// Rows that are again what they were.
    pub changed: usize,
}

/// What an undo did, or would do.
#[derive(Debug, Clone)]
pub struct UndoOutcome {
    /// The record that names what was undone; the end of the log when nothing was written.
    pub first: Seq,
    /// The last of the records that did it.
    pub last: Seq,
    /// When they were recorded.
    pub recorded_at: Timestamp,
    /// Whether something was written.
    pub is_recorded: bool,
    /// The end of the log as the facts were chosen.
    pub through: Seq,
    /// What was done, in numbers.
    pub summary: UndoSummary,
    /// What was done, row by row; empty when the idempotency key was known.
    pub plan: Plan,
    /// The idempotency key was known: this is what the first request did.
    pub replayed: bool,
}

/// Why nothing was undone.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// The log could not be read.
    #[error("could not look for the facts to undo")]
    Read(#[from] LogReadError),
    /// The choice names positions, or ends at a time, before the first event that the log has: what was chosen there cannot be
    /// found any more.
    #[error("the log begins at {first}, what lies before was dropped")]
    Dropped {
        /// What of the choice it is.
        field: &'static str,
        /// That first one.
        first: Seq,
    },
    /// There is no plan.
    #[error("could not decide what to undo")]
    Plan(#[source] PlanError),
    /// Later facts build on chosen ones.
    #[error("{} facts build on what would be undone", .0.plan.later_facts.len())]
    Blocked(Box<UndoOutcome>),
    /// The rules said no.
    #[error("the undo was refused")]
    Refused(Refusal),
    /// The writer did not do it.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// The facts that an undo is about.
#[derive(Debug, Clone, Default)]
struct Choice {
    facts: Vec<(Seq, RowRef)>,
    undone: BTreeMap<Seq, Vec<Seq>>,
    through: Seq,
}

/// An undo on its way to the writer.
pub(super) struct PendingUndo {
    ask: UndoAsk,
    choice: Choice,
    answer: oneshot::Sender<Result<UndoOutcome, UndoError>>,
}

impl Engine {
    /// What an undo would do now. Writes nothing; blocks.
    ///
    /// # Errors
    ///
    /// [`UndoError`], but never [`UndoError::Blocked`]: the plan says what is in the way.
    pub fn preview_undo(&self, ask: &UndoAsk) -> Result<UndoOutcome, UndoError> {
        let choice = choose(&self.inner.log, &ask.chosen)?;
        // The graph is milliseconds behind at the most. Where it has stopped, the plan is of the state it has.
        let _ = self.inner.view.wait_for(choice.through, Wait::Applied, self.inner.index_timeout);
        let plan = decided(self.inner.view.graph(), ask, &choice)?;
        let head = self.inner.log.head();
        Ok(UndoOutcome {
            first: head.seq,
            last: head.seq,
            recorded_at: head.recorded_at,
            is_recorded: false,
            through: choice.through,
            summary: summary(&choice, &plan),
            plan,
            replayed: false,
        })
    }

    /// Takes facts back, all or none of what the plan says.
    ///
    /// # Errors
    ///
    /// [`UndoError`]; nothing was written then, unless the writer says so.
    pub async fn undo(&self, ask: UndoAsk) -> Result<UndoOutcome, UndoError> {
        let (log, chosen, wait) = (self.inner.log.clone(), ask.chosen.clone(), ask.wait);
        let choice = tokio::task::spawn_blocking(move || choose(&log, &chosen)).await;
        let choice = choice.map_err(|_| SubmitError::Stopped)??;
        let (answer, outcome) = oneshot::channel();
        self.ask_writer(Asked::Undo(Box::new(PendingUndo { ask, choice, answer })))?;
        let outcome = outcome.await.map_err(|_| SubmitError::Stopped)??;
        if wait == Wait::Indexed {
            let (engine, last) = (self.clone(), outcome.last);
            let waited = tokio::task::spawn_blocking(move || engine.wait_indexed(last)).await;
            waited.map_err(|_| SubmitError::Stopped)??;
        }
        Ok(outcome)
    }
}

/// Finds the facts that meet every condition, up to the log's end as it is now.
fn choose(log: &Reader, chosen: &Chosen) -> Result<Choice, UndoError> {
    let Chosen { from, to, since, until, .. } = *chosen;
    let (first, reach) = log.reach(&Range { from, to, since, until })?;
    // Of a range that was named a part is not what was asked for. Who names an agent means what there is of it.
    let is_lost = |seq: Option<Seq>| seq.is_some_and(|seq| seq < first);
    if is_lost(from) || reach == Reach::Dropped {
        let field = match (is_lost(from), is_lost(to)) {
            (true, _) => "from_seq",
            (false, true) => "to_seq",
            (false, false) => "until",
        };
        return Err(UndoError::Dropped { field, first });
    }
    let through = log.head().seq;
    let conversation = chosen.conversation.as_ref().map(|id| Turns::of(log, id.as_str())).transpose()?;
    let filter = Filter {
        until: Some(chosen.to.unwrap_or(through).min(through)),
        kinds: Some(Family::kinds(&[Family::Memory])),
        stream: None,
        actor: chosen.agent.as_ref().map(ToString::to_string),
        correlation: chosen.correlation.clone(),
        recorded_from: chosen.since,
        recorded_before: chosen.until,
    };
    let mut choice = Choice { through, ..Choice::default() };
    for record in log.scan(chosen.from.unwrap_or(Seq(1)), &filter) {
        let record = record?;
        let row = match &record.event {
            Event::Memory(event) => row_of(event),
            Event::Agent(_) | Event::Conversation(_) | Event::Turn(_) | Event::System(_) => None,
        };
        let Some(row) = row.filter(|_| conversation.as_ref().is_none_or(|turns| turns.led_to(&record)))
        else {
            continue;
        };
        if choice.facts.len() == UNDO_EVENTS_MAX {
            return Err(UndoError::Plan(PlanError::TooMany));
        }
        choice.facts.push((record.seq, row));
    }
    choice.undone = undone_after(log, Seq::ZERO, through)?;
    Ok(choice)
}

/// What belongs to a conversation.
struct Turns {
    /// The correlations of what its turns wrote, and of itself.
    correlations: HashSet<String>,
    /// Its records: what they led to is of it too.
    records: HashSet<Seq>,
}

impl Turns {
    fn of(log: &Reader, conversation: &str) -> Result<Self, LogReadError> {
        let (mut correlations, mut records) = (HashSet::from([conversation.to_owned()]), HashSet::new());
        let filter = Filter { correlation: Some(conversation.to_owned()), ..Filter::default() };
        for record in log.scan(Seq(1), &filter) {
            let record = record?;
            records.insert(record.seq);
            if let Event::Turn(TurnEvent::Started { turn, .. }) = &record.event {
                correlations.insert(turn.to_string());
            }
        }
        Ok(Self { correlations, records })
    }

    fn led_to(&self, record: &Record) -> bool {
        record.correlation.as_ref().is_some_and(|correlation| self.correlations.contains(correlation))
            || record.causation.is_some_and(|cause| self.records.contains(&cause))
    }
}

/// What was undone by records after `after`: each of them with the facts that it undid.
fn undone_after(log: &Reader, after: Seq, through: Seq) -> Result<BTreeMap<Seq, Vec<Seq>>, LogReadError> {
    let filter = Filter { until: Some(through), kinds: Some(vec![Kind::MemoryUndone]), ..Filter::default() };
    let mut undone = BTreeMap::new();
    for record in log.scan(after.next(), &filter) {
        let record = record?;
        if let Event::Memory(MemoryEvent::Undone { undoes, .. }) = record.event {
            undone.extend((record.seq.next().0..).map(Seq).zip(undoes));
        }
    }
    Ok(undone)
}

/// The plan on the state that `graph` has now.
fn decided(graph: &GraphReader, ask: &UndoAsk, choice: &Choice) -> Result<Plan, UndoError> {
    let undo = Undo { chosen: &choice.facts, undone: &choice.undone, later: ask.later };
    let plan = graph.at_once(|memory| Ok(plan(memory, &undo)));
    let plan = plan.map_err(|error| UndoError::Plan(error.into()))?.map_err(UndoError::Plan)?;
    if let Some((agent, workspace)) = &ask.by {
        let sees = |scope: &Scope| match scope {
            Scope::Agent(owner) => owner == agent,
            Scope::Workspace(name) => name == workspace,
            Scope::Global => true,
        };
        if let Some(foreign) = plan.changes.iter().find(|change| !sees(&change.scope)) {
            return Err(UndoError::Refused(Refusal {
                code: RefusalCode::Validation,
                index: 0,
                field: "agent_id".to_owned(),
                message: format!(
                    "{} lives in {}, which {agent} in workspace {workspace} does not see",
                    foreign.row, foreign.scope
                ),
                remedy: "choose less, or ask as the operator: without agent_id".to_owned(),
            }));
        }
    }
    Ok(plan)
}

fn summary(choice: &Choice, plan: &Plan) -> UndoSummary {
    let count = |went: bool, came: bool| {
        let alike = |before: bool, after: bool| before == went && after == came;
        plan.changes.iter().filter(|change| alike(change.before.is_some(), change.after.is_some())).count()
    };
    UndoSummary {
        selected: choice.facts.len(),
        undone: plan.changes.iter().map(|change| change.undoes.len()).sum(),
        already_undone: plan.already_undone,
        kept: plan.kept,
        without_effect: plan.without_effect,
        later_facts: plan.later_facts.len(),
        removed: count(true, false),
        restored: count(false, true),
        changed: count(true, true),
    }
}

impl MemoryWriter {
    /// Decides an undo on the present, commits it, folds it, answers.
    pub(super) fn undo(&mut self, pending: PendingUndo) {
        let PendingUndo { ask, choice, answer } = pending;
        // Whoever asked may have gone.
        let _ = answer.send(self.try_undo(&ask, choice));
    }

    fn try_undo(&mut self, ask: &UndoAsk, mut choice: Choice) -> Result<UndoOutcome, UndoError> {
        let name = Part::Graph.name();
        if let (None, Some(reason)) = (&self.graph, &self.awaited) {
            return Err(SubmitError::Rebuilding { name, reason: reason.clone() }.into());
        }
        self.fold_to_head().map_err(|error| SubmitError::Unavailable { name, error })?;
        let key = ask.idempotency.as_ref().map(|asked| asked.scoped(&actor(ask)));
        if let (Some(key), Some(asked)) = (&key, &ask.idempotency)
            && let Some(known) = self.log.reader().key(key)?
        {
            if known.fingerprint != asked.fingerprint {
                return Err(UndoError::Refused(key_conflict(&asked.key, known.first)));
            }
            let summary = serde_json::from_slice(&known.answer).map_err(SubmitError::Answer)?;
            return Ok(UndoOutcome {
                first: known.first,
                last: known.last,
                recorded_at: known.recorded_at,
                is_recorded: true,
                through: choice.through,
                summary,
                plan: Plan::default(),
                replayed: true,
            });
        }
        let head = self.log.head();
        let since = undone_after(&self.log.reader(), choice.through, head.seq)?;
        choice.undone.extend(since);
        let plan = decided(&self.reader, ask, &choice)?;
        let mut outcome = UndoOutcome {
            first: head.seq,
            last: head.seq,
            recorded_at: head.recorded_at,
            is_recorded: false,
            through: choice.through,
            summary: summary(&choice, &plan),
            plan,
            replayed: false,
        };
        if outcome.plan.is_refused(ask.later) {
            return Err(UndoError::Blocked(Box::new(outcome)));
        }
        if outcome.plan.changes.is_empty() {
            return Ok(outcome);
        }
        let key = match (key, &ask.idempotency) {
            (Some(key), Some(asked)) => Some(IdempotencyKey {
                key,
                fingerprint: asked.fingerprint,
                answer: serde_json::to_vec(&outcome.summary).map_err(SubmitError::Answer)?,
            }),
            _ => None,
        };
        let drafts = self.drafts_of(ask, &outcome)?;
        self.record(drafts, key, &mut outcome)?;
        Ok(outcome)
    }

    /// The batch: who asks if it is new, what is undone, what undoes it.
    fn drafts_of(&self, ask: &UndoAsk, outcome: &UndoOutcome) -> Result<Vec<Draft>, UndoError> {
        let actor = actor(ask);
        let draft = |stream: String, causation: Option<Seq>, event: Event| Draft {
            stream,
            actor: actor.clone(),
            correlation: ask.correlation.clone(),
            causation,
            event,
        };
        let mut drafts = Vec::with_capacity(outcome.plan.changes.len() + 2);
        if let Some((agent, workspace)) = &ask.by {
            let known = self.reader.agent_known(agent).map_err(SubmitError::Graph)?;
            if !known {
                let registered =
                    AgentEvent::ExternalRegistered { agent: agent.clone(), workspace: workspace.clone() };
                drafts.push(draft("agents".to_owned(), None, registered.into()));
            }
        }
        let undone = MemoryEvent::Undone {
            chosen: ask.chosen.clone(),
            later: ask.later,
            through: outcome.through,
            undoes: outcome.plan.changes.iter().map(|change| change.undoes.clone()).collect(),
        };
        drafts.push(draft(STREAM.to_owned(), None, undone.into()));
        for change in &outcome.plan.changes {
            let cause = change.undoes.last().copied();
            drafts.push(draft(change.scope.to_string(), cause, change.event.clone().into()));
        }
        Ok(drafts)
    }

    /// Commits the batch and folds it.
    fn record(
        &mut self,
        drafts: Vec<Draft>,
        key: Option<IdempotencyKey>,
        outcome: &mut UndoOutcome,
    ) -> Result<(), UndoError> {
        let batch = Batch { drafts: drafts.clone(), key, expected: None };
        let started = Instant::now();
        let results =
            self.log.append(vec![batch]).map_err(|closed| SubmitError::Log(AppendError::from(closed)))?;
        telemetry::log_appended(self.log.head().seq.0, started.elapsed());
        let Some(result) = results.into_iter().next() else { return Ok(()) };
        let appended = result.map_err(SubmitError::Log)?;
        let records: Vec<Record> = appended.records(drafts).collect();
        let undone = records.iter().find(|record| record.event.kind() == Kind::MemoryUndone);
        outcome.first = undone.map_or(appended.first, |record| record.seq);
        (outcome.last, outcome.recorded_at, outcome.is_recorded) =
            (appended.last, appended.recorded_at, true);
        let folded = self.fold(&records);
        self.show_agents(&records);
        let (name, last) = (Part::Graph.name(), appended.last);
        folded.map_err(|error| SubmitError::ProjectionStopped { name, error, last })?;
        Ok(())
    }
}

fn actor(ask: &UndoAsk) -> String {
    ask.by.as_ref().map_or_else(|| SYSTEM.to_owned(), |(agent, _)| agent.to_string())
}
