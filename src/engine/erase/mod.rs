//! Erasing: a plan that can be looked at, an order that is recorded first, and everything that must be gone before the
//! erasure is recorded as done.
//!
//! 1. The memory writer records the order ([`SystemEvent::ErasureOrdered`]); the log takes nothing else of the subjects
//!    meanwhile and destroys their keys. Where events lie as they were written, the log is written anew without their
//!    content. From here on nothing of them is shown.
//! 2. Rows, words, conversations and vectors are taken out, their files written anew, caches emptied. Until the talk has
//!    forgotten the conversations, the log takes nothing of them: nothing would come of it.
//! 3. [`SystemEvent::Erased`] is recorded, and a receipt is signed.
//!
//! A crash in between leaves an order without its end: the next start goes on with it, and once more when a graph is there
//! that was rebuilt beside it. From the order to its end no projection is rebuilt: one that read the log before would bring
//! back what is gone.
//!
//! Reading order: [`plan`], this file, [`receipt`].

pub mod plan;
pub mod receipt;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use caxton_events::log::{
    EraseError as LogEraseError, Filter, Hold, Log, ProveError, ReadError, Reader, RewriteError,
};
use caxton_events::{Draft, Event, Kind, MemoryId, Seq, Subject, SystemEvent};
use caxton_projections::graph;
use caxton_projections::shred::{shred, shred_in};
use crossbeam_channel::{Sender, bounded};

use super::Engine;
use super::base;
use super::copies;
use super::queries;
use super::talk::TalkError;
use crate::failure;

pub use plan::{Asked, Plan, PlanError, Planned, Quoted};
pub use receipt::{Receipt, ReceiptError};

/// How long stages that readers hold up are tried again.
const TRIES: usize = 10;
/// The folder of the vectors.
const VECTORS: &str = "vectors";

/// An order to erase, as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Where it stands.
    pub seq: Seq,
    /// What is erased.
    pub subjects: Vec<Subject>,
    /// What was asked for.
    pub asked: String,
    /// Numbers of the keys.
    pub keys: Vec<u64>,
    /// Events that cannot be read any more.
    pub events: u64,
    /// Why.
    pub reason: Option<String>,
    /// Who asked for it.
    pub by: String,
}

/// Why something was not erased, or not completely.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// There is nothing to erase, or it cannot be erased. Nothing was changed.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// What would be erased is not what was looked at. Nothing was changed.
    #[error("what would be erased has changed since it was looked at; look at it again, then confirm that")]
    Changed,
    /// Another erasure is under way, or the log is being sealed. Nothing was changed.
    #[error("another erasure is under way, or the log is being sealed; try again when it is done")]
    Busy,
    /// The memory cannot take the order now. Nothing was changed.
    #[error("the graph cannot take the order now, nothing was erased: {what}")]
    Unready {
        /// Why.
        what: String,
    },
    /// The order failed.
    #[error(transparent)]
    Log(#[from] LogEraseError),
    /// The order stands; but events that lie in the log as they were written are still there.
    #[error(
        "the order to erase is recorded at {order}, but the log could not be written anew; restart to complete it"
    )]
    Rewrite {
        /// The order.
        order: Seq,
        /// Why.
        #[source]
        source: RewriteError,
    },
    /// The order stands, and nothing of the subjects is shown any more; but files may still hold something of them.
    #[error(
        "the order to erase is recorded at {order}, but {stage} could not be cleaned: {what}; restart to complete it"
    )]
    Incomplete {
        /// The order.
        order: Seq,
        /// What could not be cleaned.
        stage: &'static str,
        /// Why.
        what: String,
    },
    /// The order stands and everything is gone; but that could not be recorded.
    #[error("everything ordered at {order} is erased, but that could not be recorded; restart to record it")]
    Unrecorded {
        /// The order.
        order: Seq,
        /// Why.
        #[source]
        source: TalkError,
    },
    /// Everything is erased, and that is recorded; but the receipt could not be made.
    #[error("everything ordered at {order} is erased, but the receipt could not be made")]
    Receipt {
        /// The order.
        order: Seq,
        /// Why.
        #[source]
        source: ProveError,
    },
    /// The log could not be read.
    #[error("could not read the log")]
    Read(#[from] ReadError),
    /// The server is stopping.
    #[error("the server is stopping; the next start completes what was ordered")]
    Stopped,
}

/// What the memory writer is asked to do.
pub(super) enum MemoryWork {
    /// Record the order and fold it.
    Order { order: Box<Order>, answer: Sender<Result<Order, EraseError>> },
    /// Take what a recorded order left in the log out of it.
    Resume { order: Box<Order>, answer: Sender<Result<(), EraseError>> },
    /// Leave nothing of it in the graph's files.
    Scrub(Sender<Result<(), String>>),
}

/// What the keepers of vectors and talk are asked to do.
pub(super) type Scrub = Sender<Result<(), String>>;

/// The same for vectors, with what is erased.
pub(super) type ScrubVectors = (Vec<Subject>, Scrub);

/// The ways to those who keep something. They hold nothing: what is sent is taken, or its sender hears that nobody is there to
/// take it any more.
pub(super) struct Keepers {
    pub(super) memory: Sender<MemoryWork>,
    pub(super) talk: Sender<Scrub>,
    pub(super) talk_store: Sender<Scrub>,
    pub(super) vectors: Option<Sender<ScrubVectors>>,
}

/// What empties a cache.
type Forget = Box<dyn Fn() + Send + Sync>;

/// What erasures have to themselves, and whom they tell.
#[derive(Default)]
pub(super) struct Erasing {
    /// Held while something is erased, and while the log is sealed.
    pub(super) alone: Mutex<()>,
    /// Read by who makes a copy of the graph, for as long as that has a name; held while such names are removed.
    pub(super) copying: RwLock<()>,
    /// Held by who keeps frequent queries or computes them ahead, and while they are forgotten.
    pub(super) queries: Mutex<()>,
    /// What keeps messages out of conversations whose erasure is not complete, by the order.
    held: Mutex<BTreeMap<Seq, Hold>>,
    forgets: Mutex<Vec<Forget>>,
}

impl Engine {
    /// What erasing this would take away. Reads the part of the log that may hold something of it; blocks.
    ///
    /// # Errors
    ///
    /// [`PlanError`].
    pub fn erase_plan(&self, asked: &Asked) -> Result<Plan, PlanError> {
        let plan = plan::plan(self, asked)?;
        plan.check(self)?;
        Ok(plan)
    }

    /// Erases what was asked for, if the plan still has this token; blocks until everything is gone.
    ///
    /// # Errors
    ///
    /// [`EraseError`] says whether anything was changed.
    pub fn erase(
        &self,
        asked: &Asked,
        token: Option<&str>,
        (reason, by): (Option<String>, String),
    ) -> Result<(Plan, Receipt), EraseError> {
        let Ok(_alone) = self.inner.erasing.alone.try_lock() else { return Err(EraseError::Busy) };
        // Said before anything is interrupted: that may be the rebuild that is waited for.
        if let Err(graph::ReadError::Rebuilding { .. }) = self.view().graph().checkpoint() {
            return Err(EraseError::Unready { what: "it is being rebuilt".to_owned() });
        }
        self.complete_all(&pending(self.log())?)?;
        let plan = self.erase_plan(asked)?;
        if token.is_some_and(|token| token != plan.token()) {
            return Err(EraseError::Changed);
        }
        let _still = self.inner.rebuilds.standstill.hold();
        let order = Order {
            seq: Seq::ZERO,
            subjects: plan.subjects.iter().map(|planned| planned.subject.clone()).collect(),
            asked: asked.to_string(),
            keys: Vec::new(),
            events: plan.events(),
            reason,
            by,
        };
        let held = self.hold(&order)?;
        let (answer, answered) = bounded(1);
        let work = MemoryWork::Order { order: Box::new(order), answer };
        self.inner.keepers.memory.send(work).map_err(|_| EraseError::Stopped)?;
        let ordered = answered.recv().map_err(|_| EraseError::Stopped)?;
        let order = match ordered {
            Ok(order) => order,
            Err(error) => {
                // None was left before, so this is the one.
                if let Ok([Order { seq, .. }, ..]) = pending(self.log()).as_deref() {
                    self.held().insert(*seq, held);
                }
                return Err(error);
            }
        };
        let receipt = self.complete(&order, held, plan.quoted.count)?;
        Ok((plan, receipt))
    }

    /// Tells what is to be forgotten whenever something is erased.
    pub fn when_erased(&self, forget: impl Fn() + Send + Sync + 'static) {
        self.inner.erasing.forgets.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(forget));
    }

    /// Goes on with orders that have no end yet. What was ordered is not shown whether or not this goes well: what is left of
    /// it is told, and tried again when another graph is in use, by the next erasure and by the next start.
    pub(super) fn complete_pending(&self) {
        let _alone = self.inner.erasing.alone.lock().unwrap_or_else(PoisonError::into_inner);
        let completed =
            pending(self.log()).map_err(EraseError::Read).and_then(|orders| self.complete_all(&orders));
        if let Err(error) = completed {
            tracing::error!(error = %failure::chain(&error), "an erasure that was cut short is not complete yet");
        }
    }

    /// From now on orders that wait for a graph to be rebuilt are gone on with when it is.
    pub(super) fn complete_behind_rebuilds(&self) {
        let inner = Arc::downgrade(&self.inner);
        self.inner.rebuilds.when_graph_is_rebuilt(move || {
            let engine = inner.upgrade().map(|inner| Self { inner });
            if let Some(engine) = engine.filter(|engine| !engine.is_stopping()) {
                engine.complete_pending();
            }
        });
    }

    /// Goes on with orders that were cut short, each as far as it goes; the first error.
    fn complete_all(&self, orders: &[Order]) -> Result<(), EraseError> {
        if orders.is_empty() {
            return Ok(());
        }
        let _still = self.inner.rebuilds.standstill.hold();
        let mut completed = Ok(());
        for order in orders {
            tracing::warn!(order = order.seq.0, asked = %order.asked, "completing an erasure that was cut short");
            completed = completed.and(self.go_on_with(order));
        }
        completed
    }

    fn go_on_with(&self, order: &Order) -> Result<(), EraseError> {
        let held = self.hold(order)?;
        if let Err(error) = self.resumed(order) {
            self.held().insert(order.seq, held);
            return Err(error);
        }
        // Nobody gets this receipt.
        self.complete(order, held, 0).map(drop)
    }

    /// Keeps what is said in the order's conversations out of the log, until it is dropped.
    fn hold(&self, order: &Order) -> Result<Hold, EraseError> {
        let log = self.inner.sealer.upgrade().ok_or(EraseError::Stopped)?;
        Ok(hold(&log, slice::from_ref(order)))
    }

    /// What keeps messages out of conversations that are not forgotten yet although their erasure is ordered.
    fn held(&self) -> MutexGuard<'_, BTreeMap<Seq, Hold>> {
        self.inner.erasing.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out of the log what the order left there when it failed: an end is recorded only where nothing is left.
    fn resumed(&self, order: &Order) -> Result<(), EraseError> {
        let (answer, answered) = bounded(1);
        let work = MemoryWork::Resume { order: Box::new(order.clone()), answer };
        self.inner.keepers.memory.send(work).map_err(|_| EraseError::Stopped)?;
        answered.recv().map_err(|_| EraseError::Stopped)?
    }

    /// Takes what was ordered out of everything beside the log, and records that it is done. So many conversations quote it.
    fn complete(&self, order: &Order, held: Hold, quoted: u64) -> Result<Receipt, EraseError> {
        self.clean(order, held)?;
        let Order { seq, .. } = order;
        let erased = SystemEvent::Erased { order: *seq, keys: order.keys.len() as u64, events: order.events };
        let draft = Draft {
            stream: "system".to_owned(),
            actor: order.by.clone(),
            correlation: None,
            causation: Some(*seq),
            event: erased.into(),
        };
        let recorded = self.record(vec![draft]);
        let recorded = recorded.map_err(|source| EraseError::Unrecorded { order: *seq, source })?;
        let erased = recorded.last().copied().unwrap_or(*seq);
        Receipt::of(self, order, erased, quoted).map_err(|source| EraseError::Receipt { order: *seq, source })
    }

    /// Takes what was ordered out of everything beside the log. Everybody is asked, whatever another says: what cannot be
    /// cleaned yet is no reason to show what can. The first error.
    fn clean(&self, Order { seq, subjects, .. }: &Order, held: Hold) -> Result<(), EraseError> {
        let keepers = &self.inner.keepers;
        // What is shown goes first. What was recorded before the order is on its way to the talk when it folds the log again, and
        // what is decided until then is with the log, which refuses it. An engine that stops decides nothing more.
        let _ = self.wait_until_decided();
        let talk = ask(&keepers.talk, |answer| answer);
        let _ = self.wait_until_decided();
        // What is not forgotten takes no messages: they would come behind the order, of a conversation that goes.
        if talk.is_ok() {
            self.held().remove(seq);
            drop(held);
        } else {
            self.held().insert(*seq, held);
        }
        // The vectors ask the graph what is left.
        let mut stages = vec![
            ("the state of conversations", talk),
            ("the file of conversations", ask(&keepers.talk_store, |answer| answer)),
            ("the graph", ask(&keepers.memory, MemoryWork::Scrub)),
        ];
        let vectors = match &keepers.vectors {
            Some(vectors) => ask(vectors, |answer| (subjects.clone(), answer)),
            None => self.remove_vectors(subjects).map_err(|error| error.to_string()),
        };
        stages.push(("the vectors", vectors));
        stages.push(("the postings of audits", self.forget_postings(*seq)));
        let queries = self.inner.erasing.queries.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = self.remove_set_aside().map_err(|error| error.to_string());
        stages.push(("what was set aside", removed));
        if let Some(semantic) = self.view().semantic() {
            semantic.embedding.clear_cache();
        }
        drop(queries);
        self.inner.searches.forget();
        for forget in &*self.inner.erasing.forgets.lock().unwrap_or_else(PoisonError::into_inner) {
            forget();
        }
        self.view().positions().memory_changed();
        let incomplete = |stage, what| EraseError::Incomplete { order: *seq, stage, what };
        stages.into_iter().try_for_each(|(stage, cleaned)| cleaned.map_err(|what| incomplete(stage, what)))
    }

    /// Postings that were made before say who and what was taken out of the log, by hashes.
    fn forget_postings(&self, order: Seq) -> Result<(), String> {
        let taken = self.log().taken_out(order).map_err(|error| failure::chain(&error))?;
        self.postings().forget(&taken).map_err(|error| failure::chain(&error))
    }

    /// Without a model nobody keeps the vectors of an earlier start, nor knows which are of what is erased: all go, and one that
    /// is there again computes them. Conversations have none.
    fn remove_vectors(&self, erased: &[Subject]) -> io::Result<()> {
        if erased.iter().all(|subject| subject.scope().is_none()) {
            return Ok(());
        }
        shred_in(&self.inner.data_dir.join(VECTORS), |_| true)
    }

    /// Copies of files that were found damaged, which nothing reads, and what killed processes left half made.
    fn remove_set_aside(&self) -> io::Result<()> {
        let dir = &self.inner.data_dir;
        for name in [queries::FILE_NAME, queries::BESIDE] {
            shred(&dir.join(name))?;
        }
        let copying = self.inner.erasing.copying.write().unwrap_or_else(PoisonError::into_inner);
        copies::remove(dir)?;
        drop(copying);
        base::remove_unused(dir, self.log())?;
        for folder in ["graph", VECTORS, "talk"] {
            for beside in ["damaged", "old", "rebuilding", "tmp", "verifying"] {
                shred(&dir.join(format!("{folder}.{beside}")))?;
            }
            // Those who keep the vectors look after theirs: one may be under way.
            if folder != VECTORS {
                let ends = |name: &str| [".damaged", ".tmp"].iter().any(|ending| name.ends_with(*ending));
                shred_in(&dir.join(folder), |name| name.contains(".aside-") || ends(name))?;
            }
        }
        File::open(dir)?.sync_all()
    }
}

/// Asks a keeper and waits.
fn ask<T>(keeper: &Sender<T>, work: impl FnOnce(Scrub) -> T) -> Result<(), String> {
    let (answer, answered) = bounded(1);
    keeper.send(work(answer)).map_err(|_| "its thread has ended".to_owned())?;
    answered.recv().map_err(|_| "its thread has ended".to_owned())?
}

/// Tries until readers of an older state let go.
pub(super) fn until_free<E: std::error::Error>(
    mut scrub: impl FnMut() -> Result<bool, E>,
) -> Result<(), String> {
    for _ in 0..TRIES {
        if scrub().map_err(|error| failure::chain(&error))? {
            return Ok(());
        }
    }
    Err("readers of an older state kept it open all the time".to_owned())
}

/// Keeps what is said in the conversations of these orders out of the log: the talk takes it until it has folded the log again,
/// and then nothing is left that it would be a part of. The memory folds an order before it decides anything else.
pub(super) fn hold(log: &Log, orders: &[Order]) -> Hold {
    let subjects = orders.iter().flat_map(|order| &order.subjects);
    log.hold(subjects.filter(|subject| subject.conversation().is_some()))
}

/// Records the order; the caller folds it.
pub(super) fn record_order(log: &Log, order: Order, next_memory_id: MemoryId) -> Result<Order, EraseError> {
    let mut keys = Vec::new();
    let appended = log.erase(&order.subjects, |ids| {
        keys.clone_from(&ids);
        let event = SystemEvent::ErasureOrdered {
            subjects: order.subjects.clone(),
            asked: order.asked.clone(),
            keys: ids,
            events: order.events,
            next_memory_id: next_memory_id.0,
            reason: order.reason.clone(),
            by: order.by.clone(),
        };
        Draft {
            stream: "system".to_owned(),
            actor: order.by.clone(),
            correlation: None,
            causation: None,
            event: event.into(),
        }
    })?;
    let order = Order { seq: appended.first, keys, ..order };
    take_out(log, &order)?;
    Ok(order)
}

/// Takes the content of events that lie in the log as they were written out of it. What came behind the order is new, and
/// stays.
fn take_out(log: &Log, order: &Order) -> Result<(), EraseError> {
    if !log.reader().holds_plain(&order.subjects, order.seq)? && !log.has_old_file() {
        return Ok(());
    }
    let rewritten = log.redact(&order.subjects, order.seq);
    rewritten.map(drop).map_err(|source| EraseError::Rewrite { order: order.seq, source })
}

/// Orders of the log that have no end yet.
///
/// # Errors
///
/// [`ReadError`].
pub(super) fn pending(log: &Reader) -> Result<Vec<Order>, ReadError> {
    let kinds = Some(vec![Kind::ErasureOrdered, Kind::Erased]);
    let mut pending: Vec<Order> = Vec::new();
    for record in log.scan(Seq::FIRST, &Filter { kinds, ..Filter::default() }) {
        let record = record?;
        match record.event {
            Event::System(SystemEvent::ErasureOrdered {
                subjects, asked, keys, events, reason, by, ..
            }) => pending.push(Order { seq: record.seq, subjects, asked, keys, events, reason, by }),
            Event::System(SystemEvent::Erased { order, .. }) => pending.retain(|one| one.seq != order),
            Event::System(_)
            | Event::Memory(_)
            | Event::Agent(_)
            | Event::Conversation(_)
            | Event::Turn(_) => (),
        }
    }
    Ok(pending)
}

/// Takes what was ordered out of the log where a crash or a failure left it there.
pub(super) fn resume(log: &Log, orders: &[Order]) -> Result<(), EraseError> {
    for order in orders {
        log.destroy_keys(&order.keys, order.seq)
            .map_err(|source| LogEraseError::Keys { order: order.seq, source })?;
        take_out(log, order)?;
    }
    Ok(())
}
