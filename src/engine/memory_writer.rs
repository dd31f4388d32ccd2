//! The one owner of the memory: decides a group of commands, commits it once, folds it, answers.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use caxton_events::log::{AppendError, Appended, Batch, IdempotencyKey, Log, LogClosed};
use caxton_events::{Draft, Event, Record, Seq};
use caxton_projections::driver::catch_up;
use caxton_projections::graph::{Graph, GraphReader, SqliteOptions};
use caxton_projections::projection::Projection;
use caxton_projections::swap::Place;
use caxton_projections::view::{Part, Positions};
use crossbeam_channel::{Receiver, Sender, never, select};
use tokio::sync::oneshot;

use super::erase::{self, EraseError, MemoryWork, Order};
use super::present::Folded;
use super::rebuild::Offer;
use super::steps::{Pace, Steps};
use super::submission::{Outcome, Submission, SubmitError, Wait};
use super::undo::PendingUndo;
use crate::commands::{self, Caller, Happened, Ids, Overlay, Refusal, RefusalCode, Written};
use crate::{failure, telemetry};

/// How long the writer waits for a command before it looks after its database.
const IDLE: Duration = Duration::from_secs(1);

/// How long it waits while the log holds records of others that the graph has not passed yet.
const BEHIND: Duration = Duration::from_millis(20);
/// How long an answer waits for agents and conversations to know its author.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);
/// Free pages given back at a time.
const VACUUM_PAGES: u32 = 1_000;

/// What the writer is asked.
pub(super) enum Asked {
    /// To write.
    Write(Pending),
    /// To undo. It reads the history of what it touches, so everything before it is committed and folded first.
    Undo(Box<PendingUndo>),
}

/// A command and where its outcome goes.
pub(super) struct Pending {
    pub(super) submission: Submission,
    /// It comes from the server itself.
    pub(super) everywhere: bool,
    pub(super) answer: oneshot::Sender<Result<Outcome, SubmitError>>,
}

/// Bounds of the writer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Writes that one group commit holds at the most, unless a single command has more.
    pub(super) group_writes_max: usize,
    /// How often the database's statistics are refreshed.
    pub(super) analyze_every: Duration,
}

pub(super) struct MemoryWriter {
    pub(super) log: Arc<Log>,
    /// `None` while it is built anew.
    pub(super) graph: Option<Graph>,
    /// Why there is none.
    pub(super) awaited: Option<String>,
    /// Reads whichever graph is in use.
    pub(super) reader: GraphReader,
    pub(super) place: Place,
    pub(super) sqlite: SqliteOptions,
    /// Another graph to take in place of the one in use.
    pub(super) offers: Receiver<Offer<Graph>>,
    pub(super) ids: Ids,
    pub(super) positions: Arc<Positions>,
    pub(super) commands: Receiver<Asked>,
    /// What is to be erased.
    pub(super) erasures: Receiver<MemoryWork>,
    pub(super) limits: Limits,
    /// What is folded in one transaction.
    pub(super) steps: Steps,
    /// Commands whose idempotency key stands in the group before them: they are first in the next one.
    pub(super) deferred: Vec<Pending>,
    /// An undo that ended the group before it.
    pub(super) undo_next: Option<Box<PendingUndo>>,
    /// Tells the fold of agents that the log holds something for it.
    pub(super) nudge: Sender<()>,
    /// The graph's file was found damaged by a reader: nothing may be decided on it.
    pub(super) damaged: Arc<AtomicBool>,
}

/// A command that was decided and now waits for the commit.
struct Decided {
    answer: oneshot::Sender<Result<Outcome, SubmitError>>,
    wait: Wait,
    results: Vec<Result<Written, Refusal>>,
    drafts: Vec<Draft>,
}

impl MemoryWriter {
    /// Works until every sender is gone, then gives the log back.
    pub(super) fn run(mut self) -> Arc<Log> {
        let mut analyzed = Instant::now();
        let mut folded = self.checkpoint();
        loop {
            let first = if let Some(undo) = self.undo_next.take() {
                Some(Asked::Undo(undo))
            } else if self.deferred.is_empty() {
                let wait = if self.is_behind() { BEHIND } else { IDLE };
                select! {
                    recv(self.commands) -> command => match command {
                        Ok(asked) => Some(asked),
                        Err(_) => break,
                    },
                    recv(self.offers) -> offer => {
                        match offer {
                            Ok(offer) => self.adopt(offer),
                            Err(_) => self.offers = never(),
                        }
                        None
                    }
                    recv(self.erasures) -> work => {
                        match work {
                            Ok(work) => self.erase(work),
                            Err(_) => self.erasures = never(),
                        }
                        None
                    }
                    default(wait) => None,
                }
            } else {
                Some(Asked::Write(self.deferred.remove(0)))
            };
            if let Some(asked) = first {
                match asked {
                    Asked::Write(first) => {
                        let group = self.drain(first);
                        self.commit(group);
                    }
                    Asked::Undo(undo) => self.undo(*undo),
                }
            } else if self.is_behind() {
                // A failure has been made visible; the next command says it again.
                let _ = self.fold_to_head();
            } else if self.checkpoint() > folded && analyzed.elapsed() >= self.limits.analyze_every {
                folded = self.checkpoint();
                analyzed = Instant::now();
                self.tidy();
            }
        }
        if let Some(Err(error)) = self.graph.as_mut().map(Graph::checkpoint_wal) {
            tracing::warn!(%error, "could not move the journal of the graph into its file");
        }
        self.log
    }

    /// The last record that the graph includes.
    pub(super) fn checkpoint(&self) -> Seq {
        self.graph.as_ref().map_or(Seq::ZERO, Graph::checkpoint)
    }

    /// Records an order to erase and folds it, or cleans the graph's files.
    fn erase(&mut self, work: MemoryWork) {
        match work {
            MemoryWork::Order { order, answer } => {
                let ordered = self.order(*order);
                if ordered.is_ok() {
                    self.positions.memory_changed();
                }
                // Who asked may have gone; the next start goes on with the order.
                let _ = answer.send(ordered);
            }
            MemoryWork::Scrub(answer) => {
                let folded = if self.graph.is_some() { self.fold_to_head() } else { Ok(()) };
                let scrubbed = folded.and_then(|()| match &mut self.graph {
                    Some(graph) => erase::until_free(|| graph.scrub()),
                    None => Err("it is being rebuilt".to_owned()),
                });
                let _ = answer.send(scrubbed);
            }
        }
    }

    fn order(&mut self, order: Order) -> Result<Order, EraseError> {
        if self.graph.is_none() {
            return Err(EraseError::Unready { what: "it is being rebuilt".to_owned() });
        }
        self.fold_to_head().map_err(|what| EraseError::Unready { what })?;
        let next = self.reader.next_id().map_err(|error| EraseError::Plan(error.into()))?;
        let order = erase::record_order(&self.log, order, next)?;
        // What fails here fails again when the files are cleaned, which is when it is told: the order stands.
        let _ = self.fold_to_head();
        Ok(order)
    }

    /// Whether the log holds records, of messages mostly, that the graph has not passed.
    fn is_behind(&self) -> bool {
        self.graph.is_some()
            && self.checkpoint() < self.log.head().seq
            && self.positions.get(Part::Graph).stopped.is_none()
            && !self.damaged.load(Ordering::Relaxed)
    }

    /// Refreshes the statistics of the database and gives free pages back, while nobody waits.
    fn tidy(&mut self) {
        let Some(graph) = &mut self.graph else { return };
        let tidied = graph.analyze().and_then(|()| graph.vacuum(VACUUM_PAGES));
        if let Err(error) = tidied {
            tracing::warn!(error = %failure::chain(&error), "could not tidy the database of the graph");
        }
    }

    /// `first` and what waits behind it, up to the bound.
    fn drain(&mut self, first: Pending) -> Vec<Pending> {
        let mut writes = first.submission.writes.len();
        let mut group = vec![first];
        group.append(&mut self.deferred);
        while writes < self.limits.group_writes_max {
            match self.commands.try_recv() {
                Ok(Asked::Write(pending)) => {
                    writes += pending.submission.writes.len();
                    group.push(pending);
                }
                Ok(Asked::Undo(undo)) => {
                    self.undo_next = Some(undo);
                    break;
                }
                Err(_) => break,
            }
        }
        group
    }

    fn commit(&mut self, group: Vec<Pending>) {
        if let (None, Some(reason)) = (&self.graph, &self.awaited) {
            for pending in group {
                let (name, reason) = (Part::Graph.name(), reason.clone());
                let _ = pending.answer.send(Err(SubmitError::Rebuilding { name, reason }));
            }
            return;
        }
        if let Err(error) = self.fold_to_head() {
            for pending in group {
                let name = Part::Graph.name();
                let _ = pending.answer.send(Err(SubmitError::Unavailable { name, error: error.clone() }));
            }
            return;
        }
        let (decided, batches) = self.decide(group);
        if decided.is_empty() {
            return;
        }
        let started = Instant::now();
        let results = match self.log.append(batches) {
            Ok(results) => results,
            Err(closed) => {
                let error = AppendError::from(closed);
                for decided in decided {
                    let _ = decided.answer.send(Err(SubmitError::Log(error.clone())));
                }
                return;
            }
        };
        telemetry::log_appended(self.log.head().seq.0, started.elapsed());
        let mut records = Vec::new();
        let mut waiting = Vec::new();
        for (decided, result) in decided.into_iter().zip(results) {
            match result {
                Ok(appended) => {
                    let (answer, wait, outcome) = decided.placed(&appended, &mut records);
                    if wait == Wait::Durable {
                        let _ = answer.send(Ok(outcome));
                    } else {
                        waiting.push((answer, outcome));
                    }
                }
                Err(error) => {
                    let _ = decided.answer.send(Err(SubmitError::Log(error)));
                }
            }
        }
        let folded = self.fold(&records);
        self.positions.memory_changed();
        self.show_agents(&records);
        for (answer, outcome) in waiting {
            let _ = answer.send(match &folded {
                Ok(()) => Ok(outcome),
                Err(error) => Err(SubmitError::ProjectionStopped {
                    name: Part::Graph.name(),
                    error: error.clone(),
                    last: outcome.last,
                }),
            });
        }
    }

    /// Waits until whoever wrote for the first time can get messages: it is told that it is registered.
    pub(super) fn show_agents(&self, records: &[Record]) {
        let last = records.iter().rfind(|record| matches!(record.event, Event::Agent(_)));
        if let Some(record) = last {
            // A nudge that waits already will do.
            let _ = self.nudge.try_send(());
            self.positions.wait_for_part(Part::Talk, record.seq, SHOWN_WITHIN);
        }
    }

    /// Decides each command on top of those before it. Commands that need no commit are answered here.
    fn decide(&mut self, group: Vec<Pending>) -> (Vec<Decided>, Vec<Batch>) {
        let folded = Folded(self.reader.clone());
        let mut layer = Overlay::over(&folded);
        let mut keys: HashSet<String> = HashSet::new();
        let (mut decided, mut batches) = (Vec::new(), Vec::new());
        let mut broken = false;
        for pending in group {
            let key = pending.submission.scoped_key();
            if broken || key.as_ref().is_some_and(|key| keys.contains(key)) {
                self.deferred.push(pending);
                continue;
            }
            let Pending { submission, everywhere, answer } = pending;
            let ids = self.ids;
            match self.decide_one(&mut layer, (&submission, everywhere), key.as_deref()) {
                Ok(Verdict::Answered(outcome)) => {
                    let _ = answer.send(Ok(outcome));
                }
                Ok(Verdict::Commit { results, batch }) => {
                    keys.extend(key);
                    let drafts = batch.drafts.clone();
                    decided.push(Decided { answer, wait: submission.wait, results, drafts });
                    batches.push(batch);
                }
                Err(error) => {
                    self.ids = ids;
                    // After a failed read the layer may hold half a command: the rest of the group waits for the next.
                    broken = matches!(error, SubmitError::Graph(_));
                    let _ = answer.send(Err(error));
                }
            }
        }
        (decided, batches)
    }

    fn decide_one(
        &mut self,
        layer: &mut Overlay<'_>,
        (submission, everywhere): (&Submission, bool),
        key: Option<&str>,
    ) -> Result<Verdict, SubmitError> {
        let idempotency = submission.idempotency.as_ref();
        if let (Some(key), Some(asked)) = (key, idempotency)
            && let Some(known) = self.log.reader().key(key).map_err(SubmitError::Read)?
        {
            if known.fingerprint != asked.fingerprint {
                return Err(SubmitError::Refused(vec![key_conflict(&asked.key, known.first)]));
            }
            let results = results_kept(&known.answer).map_err(SubmitError::Answer)?;
            let (first, last, recorded_at) = (known.first, known.last, known.recorded_at);
            return Ok(Verdict::Answered(Outcome { first, last, recorded_at, results, replayed: true }));
        }
        let Submission { actor, workspace, writes, atomic, .. } = submission;
        let caller = Caller { actor, workspace, everywhere };
        let decision =
            commands::decide(layer, caller, writes, *atomic, &mut self.ids).map_err(SubmitError::Graph)?;
        if submission.atomic && decision.results.iter().any(Result::is_err) {
            return Err(SubmitError::Refused(decision.results.into_iter().filter_map(Result::err).collect()));
        }
        if decision.events.is_empty() {
            let head = self.log.head();
            return Ok(Verdict::Answered(Outcome {
                first: head.seq,
                last: head.seq,
                recorded_at: head.recorded_at,
                results: decision.results,
                replayed: false,
            }));
        }
        for happened in &decision.events {
            layer.apply(&happened.event).map_err(SubmitError::Graph)?;
        }
        let drafts = drafts(submission, decision.events);
        let key = match (key, idempotency) {
            (Some(key), Some(asked)) => Some(IdempotencyKey {
                key: key.to_owned(),
                fingerprint: asked.fingerprint,
                answer: kept(&decision.results).map_err(SubmitError::Answer)?,
            }),
            _ => None,
        };
        Ok(Verdict::Commit { results: decision.results, batch: Batch { drafts, key, expected: None } })
    }

    /// Folds what was just appended; from the log where something else was appended in between.
    pub(super) fn fold(&mut self, records: &[Record]) -> Result<(), String> {
        let next = self.checkpoint().next();
        let contiguous = records.iter().zip(next.0..).all(|(record, seq)| record.seq.0 == seq);
        let Some(graph) = self.graph.as_mut().filter(|_| contiguous) else {
            return self.fold_to_head();
        };
        let mut rest = records;
        while !rest.is_empty() {
            let (step, behind) = rest.split_at(self.steps.next(rest));
            let started = Instant::now();
            if let Err(error) = graph.apply(step) {
                return Err(self.stopped(&error));
            }
            let took = started.elapsed();
            telemetry::graph_step_finished(step.len(), took);
            if let Pace::Halved(records_max) = self.steps.took(took) {
                tracing::warn!(
                    ?took,
                    records = step.len(),
                    records_max,
                    "steps of the graph are made smaller"
                );
            }
            rest = behind;
        }
        // A reader may have met damage meanwhile, which only the next start mends.
        if !self.damaged.load(Ordering::Relaxed) {
            self.positions.advance(Part::Graph, self.checkpoint());
        }
        Ok(())
    }

    /// Brings the graph up to the log's head; does nothing when it is there.
    pub(super) fn fold_to_head(&mut self) -> Result<(), String> {
        if self.damaged.load(Ordering::Relaxed) {
            return Err("its file is damaged; restart the server to rebuild it from the log".to_owned());
        }
        let reader = self.log.reader();
        if self.checkpoint() == reader.head().seq && self.positions.get(Part::Graph).stopped.is_none() {
            return Ok(());
        }
        let Some(graph) = &mut self.graph else {
            return Err("there is none; restart the server to rebuild it from the log".to_owned());
        };
        match catch_up(&reader, graph, &mut |_, _| {}) {
            Ok(seq) => {
                self.positions.advance(Part::Graph, seq);
                Ok(())
            }
            Err(error) => Err(match reader.closed().filter(|_| error.is_of_log()) {
                Some(closed) => self.cut_off(&closed),
                None => self.stopped(&error),
            }),
        }
    }

    /// Makes the failure visible and gives its text.
    fn stopped(&self, error: &dyn std::error::Error) -> String {
        let text = failure::chain(error);
        // Every write tries again. It is told once, and again when it is another failure.
        if self.positions.get(Part::Graph).stopped.as_deref() != Some(text.as_str()) {
            tracing::error!(projection = Part::Graph.name(), error = %text, "a projection has stopped");
        }
        self.positions.stop(Part::Graph, text.clone());
        text
    }

    /// The log was closed before the graph had all of it. Nothing is wrong with the graph: the next start folds the rest.
    fn cut_off(&self, closed: &LogClosed) -> String {
        let text = closed.to_string();
        self.positions.stop(Part::Graph, text.clone());
        text
    }
}

enum Verdict {
    /// Nothing is to be written.
    Answered(Outcome),
    /// To be written.
    Commit { results: Vec<Result<Written, Refusal>>, batch: Batch },
}

impl Decided {
    /// The outcome at the place the log gave, and the records it became.
    fn placed(
        self,
        appended: &Appended,
        records: &mut Vec<Record>,
    ) -> (oneshot::Sender<Result<Outcome, SubmitError>>, Wait, Outcome) {
        if appended.replayed.is_none() {
            for (draft, seq) in self.drafts.into_iter().zip(appended.first.0..) {
                records.push(Record {
                    seq: Seq(seq),
                    recorded_at: appended.recorded_at,
                    stream: draft.stream,
                    actor: draft.actor,
                    correlation: draft.correlation,
                    causation: draft.causation,
                    event: draft.event,
                });
            }
        }
        let outcome = Outcome {
            first: appended.first,
            last: appended.last,
            recorded_at: appended.recorded_at,
            results: self.results,
            replayed: appended.replayed.is_some(),
        };
        (self.answer, self.wait, outcome)
    }
}

/// The events of a command as the log takes them.
fn drafts(submission: &Submission, events: Vec<Happened>) -> Vec<Draft> {
    let draft = |happened: Happened| Draft {
        stream: happened.stream,
        actor: submission.actor.as_str().to_owned(),
        correlation: submission.correlation.clone(),
        causation: submission.causation,
        event: happened.event,
    };
    events.into_iter().map(draft).collect()
}

/// An answer as it is kept with its key. It may outlive what it is about, so it holds no text of the memory.
fn kept(results: &[Result<Written, Refusal>]) -> Result<Vec<u8>, serde_json::Error> {
    let results = results.iter().map(|result| result.as_ref().map_err(Refusal::without_texts));
    serde_json::to_vec(&results.collect::<Vec<_>>())
}

/// What was kept. Earlier versions kept refusals with their texts, which are not told again.
fn results_kept(answer: &[u8]) -> Result<Vec<Result<Written, Refusal>>, serde_json::Error> {
    let results: Vec<Result<Written, Refusal>> = serde_json::from_slice(answer)?;
    Ok(results.into_iter().map(|result| result.map_err(|refusal| refusal.without_texts())).collect())
}

pub(super) fn key_conflict(key: &str, first: Seq) -> Refusal {
    Refusal {
        code: RefusalCode::IdempotencyConflict,
        index: 0,
        field: "Idempotency-Key".to_owned(),
        message: format!("{key:?} was used for another request, recorded at {first}"),
        remedy: "use a new key for a new request".to_owned(),
    }
}
