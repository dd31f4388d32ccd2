//! The one owner of the memory: takes what it is asked in turn, and folds the graph. What becomes of commands is in
//! [`memory_group`](super::memory_group).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use caxton_events::log::{Log, LogClosed};
use caxton_events::{AgentId, Event, Record, Seq};
use caxton_projections::driver::catch_up;
use caxton_projections::graph::{Graph, GraphReader, SqliteOptions};
use caxton_projections::projection::Projection;
use caxton_projections::swap::Place;
use caxton_projections::talk::TalkReader;
use caxton_projections::view::{Part, Positions};
use crossbeam_channel::{Receiver, Sender, never, select};
use tokio::sync::oneshot;

use super::erase::{self, EraseError, MemoryWork, Order};
use super::rebuild::Offer;
use super::steps::{Steps, Stepwise};
use super::submission::{Outcome, Submission, SubmitError};
use super::undo::PendingUndo;
use crate::commands::Ids;
use crate::failure;

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
    /// Who is an agent.
    pub(super) talk: TalkReader,
    /// Tells the fold of agents that the log holds something for it.
    pub(super) nudge: Sender<()>,
    /// The graph's file was found damaged by a reader: nothing may be decided on it.
    pub(super) damaged: Arc<AtomicBool>,
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
            } else if !self.fold_rest()
                && self.checkpoint() > folded
                && analyzed.elapsed() >= self.limits.analyze_every
            {
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

    /// Records an order to erase and folds it, takes what one left out of the log, or cleans the graph's files.
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
            MemoryWork::Resume { order, answer } => {
                let _ = answer.send(erase::resume(&self.log, &[*order]));
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
        let ordered = erase::record_order(&self.log, order, next);
        // An order that was recorded stands, whatever failed behind it: what it is about is not shown from now on. What fails
        // here fails again when the files are cleaned, which is when it is told.
        let _ = self.fold_to_head();
        ordered
    }

    /// Whether the log holds records, of messages mostly, that the graph has not passed.
    fn is_behind(&self) -> bool {
        self.graph.is_some()
            && self.checkpoint() < self.log.head().seq
            && self.positions.get(Part::Graph).stopped.is_none()
            && !self.damaged.load(Ordering::Relaxed)
    }

    /// Whether the graph has stopped for a cause that may pass, as a full disk does, and neither damage nor the log's end.
    fn may_go_on(&self) -> bool {
        self.graph.is_some()
            && self.positions.get(Part::Graph).stopped.is_some()
            && !self.damaged.load(Ordering::Relaxed)
            && self.log.reader().closed().is_none()
    }

    /// Folds what others recorded and what could not be folded before, while nobody asks for anything; `false`: there is
    /// nothing.
    pub(super) fn fold_rest(&mut self) -> bool {
        let is_due = self.is_behind() || self.may_go_on();
        if is_due {
            // A failure has been made visible; the next command says it again.
            let _ = self.fold_to_head();
        }
        is_due
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

    /// Whether the file of this agent is gone: what its last turn writes does not make it an agent again.
    pub(super) fn is_removed(&self, agent: &AgentId) -> bool {
        self.talk.read().registry.agent(agent).is_some_and(|agent| agent.removed)
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

    /// Folds what was just appended; from the log where something else was appended in between.
    pub(super) fn fold(&mut self, records: &[Record]) -> Result<(), String> {
        let next = self.checkpoint().next();
        let contiguous = records.iter().zip(next.0..).all(|(record, seq)| record.seq.0 == seq);
        let Some(graph) = self.graph.as_mut().filter(|_| contiguous) else {
            return self.fold_to_head();
        };
        let folded = Stepwise::new(graph, &mut self.steps).apply(records);
        // Before anybody hears that it is there. What fails may be there in part.
        self.positions.memory_changed();
        folded.map_err(|error| self.stopped(&error))?;
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
        // What others appended meanwhile, as agents that talk do, makes no step larger.
        let mut stepwise = Stepwise::new(graph, &mut self.steps);
        let folded = catch_up(&reader, &mut stepwise, &mut |_, _| {});
        // Before anybody hears that it is there. A graph that had stopped may have more of the memory than readers know of; over
        // messages only its checkpoint moves.
        let had_stopped = self.positions.get(Part::Graph).stopped.is_some();
        if stepwise.has_folded() || (folded.is_ok() && had_stopped) {
            self.positions.memory_changed();
        }
        match folded {
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
