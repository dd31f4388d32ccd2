//! What the memory writer does with a group of commands: decides each on top of those before it, commits them once as a
//! series, folds them, answers.

use std::collections::HashSet;
use std::time::Instant;

use caxton_events::log::{AppendError, Appended, Batch, Head, IdempotencyKey};
use caxton_events::{AgentEvent, Draft, Event, Record, Seq};
use caxton_projections::view::Part;
use tokio::sync::oneshot;

use super::memory_writer::{MemoryWriter, Pending};
use super::present::Folded;
use super::submission::{Outcome, Submission, SubmitError, Wait};
use crate::commands::{self, Caller, Happened, Overlay, Refusal, RefusalCode, Written};
use crate::telemetry;

/// How often a command is decided at the most, because the log refused what it was decided on.
const DECISIONS_MAX: usize = 4;

/// Where an outcome goes.
type Answer = oneshot::Sender<Result<Outcome, SubmitError>>;

/// A command that was decided and now waits for the commit.
struct Decided {
    pending: Pending,
    /// What is said of it once those before it are recorded, which it may rest on.
    answer: Result<Vec<Result<Written, Refusal>>, Vec<Refusal>>,
    /// Its batch; none where it is refused, or everything asked for is there when those before it are.
    drafts: Vec<Draft>,
}

enum Verdict {
    /// It was recorded before.
    Known(Outcome),
    /// With what is to be written, if anything is.
    Decided { results: Vec<Result<Written, Refusal>>, batch: Option<Batch> },
}

impl MemoryWriter {
    /// Decides a group, commits it, folds it, answers. Behind a command that the log refused the others are decided again.
    pub(super) fn commit(&mut self, mut group: Vec<Pending>) {
        for _ in 0..DECISIONS_MAX {
            if group.is_empty() {
                return;
            }
            group = self.commit_once(group);
        }
        for pending in group {
            // Nothing of it is recorded: whoever asks again is decided on what is there then.
            let _ = pending.answer.send(Err(SubmitError::Overloaded));
        }
    }

    /// Gives back the commands that were decided on top of one that the log refused; nothing of them was recorded.
    fn commit_once(&mut self, group: Vec<Pending>) -> Vec<Pending> {
        if let (None, Some(reason)) = (&self.graph, &self.awaited) {
            for pending in group {
                let (name, reason) = (Part::Graph.name(), reason.clone());
                let _ = pending.answer.send(Err(SubmitError::Rebuilding { name, reason }));
            }
            return Vec::new();
        }
        if let Err(error) = self.fold_to_head() {
            for pending in group {
                let name = Part::Graph.name();
                let _ = pending.answer.send(Err(SubmitError::Unavailable { name, error: error.clone() }));
            }
            return Vec::new();
        }
        let (decided, batches) = self.decide(group);
        if decided.is_empty() {
            return Vec::new();
        }
        let started = Instant::now();
        let results = match self.log.append_series(batches) {
            Ok(results) => results,
            Err(closed) => {
                let error = AppendError::from(closed);
                for decided in decided {
                    let _ = decided.pending.answer.send(Err(SubmitError::Log(error.clone())));
                }
                return Vec::new();
            }
        };
        telemetry::log_appended(self.log.head().seq.0, started.elapsed());
        let mut records = Vec::new();
        let Placed { waiting, again } = placed(decided, results, self.log.head(), &mut records);
        let folded = self.fold(&records);
        self.show_agents(&records);
        for (answer, told) in waiting {
            let _ = answer.send(match (&folded, told) {
                (Err(error), Ok(outcome)) => Err(SubmitError::ProjectionStopped {
                    name: Part::Graph.name(),
                    error: error.clone(),
                    last: outcome.last,
                }),
                (_, told) => told,
            });
        }
        again
    }

    /// Decides each command on top of those before it. Commands that wait for no commit are answered here.
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
            let ids = self.ids;
            match self.decide_one(&mut layer, &pending, key.as_deref()) {
                Ok(Verdict::Known(outcome)) => {
                    let _ = pending.answer.send(Ok(outcome));
                }
                Ok(Verdict::Decided { results, batch: None }) if batches.is_empty() => {
                    let _ = pending.answer.send(Ok(outcome(&nothing_new(self.log.head()), results)));
                }
                Ok(Verdict::Decided { results, batch }) => {
                    let mut drafts = Vec::new();
                    if let Some(batch) = batch {
                        keys.extend(key);
                        drafts.clone_from(&batch.drafts);
                        batches.push(batch);
                    }
                    decided.push(Decided { pending, answer: Ok(results), drafts });
                }
                Err(SubmitError::Refused(refusals)) if !batches.is_empty() => {
                    self.ids = ids;
                    decided.push(Decided { pending, answer: Err(refusals), drafts: Vec::new() });
                }
                Err(error) => {
                    self.ids = ids;
                    // After a failed read the layer may hold half a command: the rest of the group waits for the next.
                    broken = matches!(error, SubmitError::Graph(_));
                    let _ = pending.answer.send(Err(error));
                }
            }
        }
        (decided, batches)
    }

    fn decide_one(
        &mut self,
        layer: &mut Overlay<'_>,
        Pending { submission, everywhere, .. }: &Pending,
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
            return Ok(Verdict::Known(Outcome { first, last, recorded_at, results, replayed: true }));
        }
        let Submission { actor, workspace, named, writes, atomic, .. } = submission;
        let caller = Caller { actor, workspace, named: named.as_ref(), everywhere: *everywhere };
        let mut decision =
            commands::decide(layer, caller, writes, *atomic, &mut self.ids).map_err(SubmitError::Graph)?;
        if submission.atomic && decision.results.iter().any(Result::is_err) {
            return Err(SubmitError::Refused(decision.results.into_iter().filter_map(Result::err).collect()));
        }
        if submission.causation.is_some() && self.is_removed(actor) {
            let registers =
                |event: &Event| matches!(event, Event::Agent(AgentEvent::ExternalRegistered { .. }));
            decision.events.retain(|happened| !registers(&happened.event));
        }
        if decision.events.is_empty() {
            return Ok(Verdict::Decided { results: decision.results, batch: None });
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
        let batch = Some(Batch { drafts, key, expected: None });
        Ok(Verdict::Decided { results: decision.results, batch })
    }
}

/// What became of a group.
#[derive(Default)]
struct Placed {
    /// Who is answered once it is folded, and what.
    waiting: Vec<(Answer, Result<Outcome, SubmitError>)>,
    /// Behind a command that was not recorded as it was decided.
    again: Vec<Pending>,
}

/// Deals out what became of the batches of a group, and answers who waits for no fold. `head` is the log's end behind them.
fn placed(
    decided: Vec<Decided>,
    results: Vec<Result<Appended, AppendError>>,
    head: Head,
    records: &mut Vec<Record>,
) -> Placed {
    let (mut placed, mut results, mut is_whole) = (Placed::default(), results.into_iter(), true);
    for Decided { pending, answer, drafts } in decided {
        let result = if !drafts.is_empty() {
            results.next().unwrap_or(Err(AppendError::SeriesBroken))
        } else if is_whole {
            Ok(nothing_new(head))
        } else {
            Err(AppendError::SeriesBroken)
        };
        is_whole &= matches!(&result, Ok(Appended { replayed: None, .. }));
        match result {
            Ok(appended) => {
                if appended.replayed.is_none() {
                    records.extend(appended.records(drafts));
                }
                let told = answer.map(|results| outcome(&appended, results)).map_err(SubmitError::Refused);
                if pending.submission.wait == Wait::Durable {
                    let _ = pending.answer.send(told);
                } else {
                    placed.waiting.push((pending.answer, told));
                }
            }
            Err(AppendError::SeriesBroken) => placed.again.push(pending),
            Err(error) => {
                let _ = pending.answer.send(Err(SubmitError::Log(error)));
            }
        }
    }
    placed
}

/// The place of a command that changes nothing.
fn nothing_new(head: Head) -> Appended {
    Appended { first: head.seq, last: head.seq, recorded_at: head.recorded_at, replayed: None }
}

fn outcome(appended: &Appended, results: Vec<Result<Written, Refusal>>) -> Outcome {
    Outcome {
        first: appended.first,
        last: appended.last,
        recorded_at: appended.recorded_at,
        results,
        replayed: appended.replayed.is_some(),
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
