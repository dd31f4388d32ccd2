//! Sweeps: while the memory holds more than it may, what is least useful is removed, as any client would remove it.
//!
//! What goes is chosen on the present, a few thousand rows at a time, and removed in steps through the memory writer, as writes of the
//! actor `system`: other writes go between two steps, each removal is an event that audits show and that can be undone,
//! and a replay removes the same without choosing anew. What was changed since it was chosen stays: the writer, which alone
//! knows what is recorded by then, decides that.

use std::ops::Range;
use std::thread;
use std::time::Duration;

use caxton_events::{AgentId, MemoryId, Seq, WorkspaceId};
use caxton_projections::conversations::SYSTEM;
use caxton_projections::graph::ReadError;
use caxton_projections::view::Wait;

use super::{Engine, Submission, SubmitError, SystemClock};
use crate::commands::{SweptRow, Write, WrittenKind};
use crate::telemetry;

/// Rows that are chosen at a time.
const CHOSEN_MAX: usize = 10_000;
/// Rows whose numbers one search for orphans looks at, so that no read lasts long.
const LOOKED_AT: u64 = 50_000;

/// What goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum First {
    /// Entities that were neither read nor changed for longest; the weakest relations. The default.
    #[default]
    LeastUsed,
    /// Entities and relations whose last change is oldest.
    Oldest,
    /// Entities of whom most is noted, in bytes; the weakest relations.
    Largest,
}

/// What a sweep keeps to. By default it removes relations without an end, and else nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleanup {
    /// Time between two sweeps. Default: 5 minutes.
    pub interval: Duration,
    /// Entities that may stay; `None`: all. Default: all.
    pub entities_max: Option<u64>,
    /// Relations that may stay; `None`: all. Default: all.
    pub relations_max: Option<u64>,
    /// Rows removed in one step, at least 1. Default: 100.
    pub batch: usize,
    /// Whether relations that lack an end go. Default: yes.
    pub orphans: bool,
    /// What goes first. Default: what is used least.
    pub first: First,
    /// Threads that look for orphans and for what is largest, at least 1. Default: 1.
    pub threads: usize,
}

impl Default for Cleanup {
    fn default() -> Self {
        Self {
            interval: Duration::from_mins(5),
            entities_max: None,
            relations_max: None,
            batch: 100,
            orphans: true,
            first: First::default(),
            threads: 1,
        }
    }
}

/// What a sweep removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Entities, each with its observations and relations.
    pub entities: u64,
    /// Relations that were chosen, not those that went with an entity.
    pub relations: u64,
    /// The first event of the sweep and the last; others may stand between them. `None` when nothing was removed.
    pub events: Option<(Seq, Seq)>,
}

/// Why a sweep ended before its end. What was removed until then stays removed.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// What may go could not be found.
    #[error("could not look for what to remove")]
    Read(#[from] ReadError),
    /// A step was not taken.
    #[error("could not remove what was chosen")]
    Submit(#[from] SubmitError),
    /// The server's own name is none, which cannot be.
    #[error("the server has no name")]
    Name(#[from] caxton_events::id::NameError),
}

/// A sweep under way.
struct Sweep<'a> {
    engine: &'a Engine,
    cleanup: &'a Cleanup,
    actor: AgentId,
    workspace: WorkspaceId,
    /// What its events have in common, so that one sweep can be listed and undone.
    correlation: String,
    go_on: &'a (dyn Fn() -> bool + Sync),
    swept: Swept,
}

impl Engine {
    /// Prepares for sweeps: from now on reads of entities are remembered, if sweeps go by them.
    pub fn expect_sweeps(&self, cleanup: &Cleanup) {
        if cleanup.entities_max.is_some() && cleanup.first == First::LeastUsed {
            self.view().uses().switch_on(SystemClock);
        }
    }

    /// Sweeps once: until the memory holds no more than it may, nothing can be removed, or `go_on` says no. Blocks.
    ///
    /// # Errors
    ///
    /// [`SweepError`]; [`SubmitError::Overloaded`] in it says that clients' writes fill the queue: try again later.
    pub fn sweep(&self, cleanup: &Cleanup, go_on: &(dyn Fn() -> bool + Sync)) -> Result<Swept, SweepError> {
        let (actor, workspace) = (SYSTEM.parse()?, SYSTEM.parse()?);
        let correlation = format!("cleanup-{}", self.log().head().seq.0);
        let swept = Swept::default();
        let mut sweep = Sweep { engine: self, cleanup, actor, workspace, correlation, go_on, swept };
        let ended = sweep.run();
        let Swept { entities, relations, events } = sweep.swept;
        telemetry::swept(entities, relations);
        if events.is_some() {
            tracing::info!(
                entities,
                relations,
                "removed what memory.cleanup does not keep: `caxton audit query --correlation {0}` shows it, and \
                 `caxton memory undo --correlation {0}` takes it back",
                sweep.correlation
            );
        }
        ended.map(|()| sweep.swept)
    }
}

impl Sweep<'_> {
    fn run(&mut self) -> Result<(), SweepError> {
        if self.cleanup.orphans {
            self.orphans()?;
        }
        while let Some(over) = self.over(self.cleanup.entities_max, |stats| stats.entities)? {
            if !self.entities(over)? {
                break;
            }
        }
        while let Some(over) = self.over(self.cleanup.relations_max, |stats| stats.relations)? {
            let weakest = self.cleanup.first != First::Oldest;
            let since = self.present()?;
            let chosen = self.engine.view().graph().relations_to_go(over, weakest)?;
            if !self.relations(&chosen, since)? {
                break;
            }
        }
        Ok(())
    }

    /// How many rows are too many, [`CHOSEN_MAX`] at most; `None`: none, or the sweep ends.
    fn over(
        &self,
        allowed: Option<u64>,
        count: impl Fn(&caxton_projections::graph::GraphStats) -> u64,
    ) -> Result<Option<usize>, SweepError> {
        let Some(allowed) = allowed.filter(|_| (self.go_on)()) else { return Ok(None) };
        let over = count(&self.engine.view().graph().stats(None)?).saturating_sub(allowed);
        Ok((over > 0).then_some((over as usize).min(CHOSEN_MAX)))
    }

    /// The last record that whatever is chosen behind this call includes: what changes a row later keeps it.
    fn present(&self) -> Result<Seq, ReadError> {
        self.engine.view().graph().checkpoint()
    }

    /// Removes so many entities; whether any was.
    fn entities(&mut self, count: usize) -> Result<bool, SweepError> {
        let (graph, view) = (self.engine.view().graph(), self.engine.view());
        let by_time = self.cleanup.first != First::Largest;
        let uses = view.uses();
        let used = |id| if self.cleanup.first == First::LeastUsed { uses.last(id) } else { None };
        let since = self.present()?;
        let mut chosen = if by_time {
            graph.least_recent(count, used)?
        } else {
            self.shared_out(|ids| graph.largest(ids, count))?
        };
        if !by_time {
            chosen.sort_unstable_by_key(|victim| (std::cmp::Reverse(victim.key), victim.id));
            chosen.truncate(count);
        }
        // Whoever was as recent as this when they were chosen may go; whoever was used since may not.
        let latest = chosen.last().map_or(0, |victim| victim.key);
        let is_used = |id| used(id).is_some_and(|at| at.unix_micros() > latest);
        let mut removed = false;
        for step in chosen.chunks(self.cleanup.batch) {
            let unused = step.iter().map(|victim| victim.id).filter(|id| !is_used(*id));
            let gone = self.remove(unused.map(SweptRow::Entity), since)?;
            removed |= !gone.is_empty();
            uses.forget(gone);
            if !(self.go_on)() {
                break;
            }
        }
        Ok(removed)
    }

    /// Removes these relations, which were chosen behind the record `since`; whether any was.
    fn relations(&mut self, ids: &[MemoryId], since: Seq) -> Result<bool, SweepError> {
        let mut removed = false;
        for step in ids.chunks(self.cleanup.batch) {
            removed |= !self.remove(step.iter().copied().map(SweptRow::Relation), since)?.is_empty();
            if !(self.go_on)() {
                break;
            }
        }
        Ok(removed)
    }

    fn orphans(&mut self) -> Result<(), SweepError> {
        let graph = self.engine.view().graph();
        let (go_on, since) = (self.go_on, self.present()?);
        let found = self.shared_out(|Range { start, end }| {
            let mut found = Vec::new();
            for first in (start.0..end.0).step_by(LOOKED_AT as usize) {
                let ids = MemoryId(first)..MemoryId((first + LOOKED_AT).min(end.0));
                found.extend(graph.orphaned_relations(ids, CHOSEN_MAX)?);
                if !go_on() {
                    break;
                }
            }
            Ok(found)
        })?;
        self.relations(&found, since).map(drop)
    }

    /// What `look` finds among all numbers of rows, on as many threads as there may be.
    fn shared_out<T: Send>(
        &self,
        look: impl Fn(Range<MemoryId>) -> Result<Vec<T>, ReadError> + Sync,
    ) -> Result<Vec<T>, ReadError> {
        let end = self.engine.view().graph().next_id()?.0;
        let share = end.div_ceil(self.cleanup.threads as u64).max(1);
        let parts = (0..end).step_by(usize::try_from(share).unwrap_or(usize::MAX));
        let parts: Vec<_> =
            parts.map(|first| MemoryId(first)..MemoryId(end.min(first.saturating_add(share)))).collect();
        let [part] = parts.as_slice() else {
            return thread::scope(|scope| {
                let look = &look;
                let others = parts.into_iter().enumerate().map(|(number, part)| {
                    let thread = thread::Builder::new().name(format!("cleanup-{number}"));
                    let work = part.clone();
                    thread.spawn_scoped(scope, move || look(work)).map_err(|_| part)
                });
                // All are started before the first is waited for. Where the system gives no thread, this one does the work.
                let others: Vec<_> = others.collect();
                let mut found = Vec::new();
                for other in others {
                    let looked = other.map_or_else(look, |thread| {
                        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                    });
                    found.extend(looked?);
                }
                Ok(found)
            });
        };
        look(part.clone())
    }

    /// One step, and what was removed in it. What is gone, or was changed behind the record `since`, is left alone.
    fn remove(
        &mut self,
        rows: impl Iterator<Item = SweptRow>,
        since: Seq,
    ) -> Result<Vec<MemoryId>, SweepError> {
        let writes: Vec<Write> = rows.map(|row| Write::Sweep { row, since }).collect();
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let submission = Submission {
            actor: self.actor.clone(),
            workspace: self.workspace.clone(),
            named: None,
            correlation: Some(self.correlation.clone()),
            causation: None,
            idempotency: None,
            writes,
            atomic: false,
            wait: Wait::Applied,
        };
        let outcome = self.engine.submit_everywhere(submission)?;
        let mut removed = Vec::new();
        for written in outcome.results.into_iter().flatten() {
            removed.push(written.id);
            match written.kind {
                WrittenKind::Entity => self.swept.entities += 1,
                WrittenKind::Relation => self.swept.relations += 1,
                WrittenKind::Observations | WrittenKind::Scope => (),
            }
        }
        if !removed.is_empty() {
            let first = self.swept.events.map_or(outcome.first, |(first, _)| first);
            self.swept.events = Some((first, outcome.last));
        }
        Ok(removed)
    }
}
