//! The thread that builds HNSW indexes while searches scan.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::vector::VectorOptions;
use crate::vector::index::{Hnsw, IndexError, IndexSettings};
use crate::vector::shared::{Cell, IndexFailure, Links, Shared, View};
use crate::vector::slab::Slab;
use crate::vector::state::load_index;

/// Rows behind an index that are scanned before it is worth extending.
const TAIL_ROWS_MIN: u32 = 8_192;

/// What a scope's index needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Rows were added.
    Extend,
    /// There is none yet.
    Build,
    /// Too many of its rows were removed: the slab is compacted and the index made anew.
    Renew,
}

impl VectorOptions {
    pub(crate) fn index_settings(&self) -> IndexSettings {
        IndexSettings {
            expansion_add: self.expansion_add,
            expansion_search: self.expansion_search,
            threads: self.build_threads.max(1),
        }
    }
}

/// Rows by which a scope of so many must have changed to be worth another build.
fn many_of(rows: u32) -> u32 {
    TAIL_ROWS_MIN.max(rows / 16)
}

/// Living rows from which on a scope is looked after. An index stays down to half of what makes one, and with it the numbers of
/// rows: until then nobody else frees the room of those that were removed.
pub(crate) const fn least_rows(has_index: bool, options: &VectorOptions) -> u32 {
    if has_index { options.index_from / 2 } else { options.index_from }
}

fn work_on(view: &View, options: &VectorOptions) -> Option<Work> {
    let slab = &view.slab;
    if slab.alive() < least_rows(view.index.is_some(), options) {
        return None;
    }
    // Removed rows stay in the graph as way-marks; a quarter of them costs searches a third.
    let churned = slab.dead > slab.rows / 4;
    match &view.index {
        _ if churned => Some(Work::Renew),
        None => Some(Work::Build),
        Some(index) => {
            let tail = slab.rows - index.rows();
            (tail > many_of(index.rows())).then_some(Work::Extend)
        }
    }
}

/// Whether the builder has something to do for this scope, if only to forget why it lacked an index that it need not have any more.
pub(crate) fn wants_work(cell: &Cell, options: &VectorOptions) -> bool {
    work_on(&cell.view(), options).is_some() || cell.index_failure().is_some()
}

/// What the thread is told.
enum Wake {
    /// A scope may need an index.
    Look,
    /// Look, and then answer.
    Answer(Sender<()>),
}

/// The thread, from the outside. Dropping it stops and joins it.
pub(crate) struct Builder {
    wake: Option<Sender<Wake>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Builder {
    /// Starts the thread, which first looks for saved indexes of `model` in `dir`.
    pub(crate) fn start(dir: PathBuf, model: String, shared: Arc<Shared>) -> std::io::Result<Self> {
        let (wake, woken) = bounded(1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new().name("vector-index".into()).spawn(move || {
            load_all(&dir, &model, &shared);
            work(&shared, &woken, &stopped);
        })?;
        Ok(Self { wake: Some(wake), stop, thread: Some(thread) })
    }

    /// Tells the thread that a scope may need an index.
    pub(crate) fn wake(&self) {
        if let Some(wake) = &self.wake {
            // Full means that it was told already, disconnected that it is gone with its shared state.
            match wake.try_send(Wake::Look) {
                Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => (),
            }
        }
    }

    /// Blocks until every scope that needs an index has one, or the thread is gone.
    pub(crate) fn finish(&self) {
        let (answer, answered) = bounded(1);
        if let Some(wake) = &self.wake
            && wake.send(Wake::Answer(answer)).is_ok()
        {
            // An error means that the thread ended: there is nothing to wait for.
            let _ = answered.recv();
        }
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the panic hook; searches scan without it.
            let _ = thread.join();
        }
    }
}

fn load_all(dir: &std::path::Path, model: &str, shared: &Shared) {
    for cell in shared.cells() {
        let view = cell.view();
        if view.slab.alive() < least_rows(true, &shared.options) {
            continue;
        }
        match load_index(dir, model, &cell.scope, &view.slab, shared.options.index_settings()) {
            Ok(Some(index)) => {
                install(&cell, &view.slab, index, false);
            }
            Ok(None) => (),
            // It is built anew where one is due; until it is, what was wrong with the file is kept for the operator.
            Err(error) => {
                cell.set_index_failure(Some(IndexFailure { what: with_causes(&error), rows: None }));
            }
        }
    }
}

fn work(shared: &Shared, woken: &Receiver<Wake>, stop: &AtomicBool) {
    let mut asked = Some(Wake::Look);
    while let Some(wake) = asked {
        for cell in shared.cells() {
            serve(shared, &cell, stop);
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if let Wake::Answer(answer) = wake {
            // Whoever asked may have gone.
            let _ = answer.send(());
        }
        asked = woken.recv().ok();
    }
}

/// Builds for one scope until it needs nothing more.
fn serve(shared: &Shared, cell: &Cell, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let view = cell.view();
        // It has the index that it should have, which may be none.
        let Some(work) = work_on(&view, &shared.options) else { return cell.set_index_failure(None) };
        let failed_over = cell.index_failure().and_then(|failure| failure.rows);
        if failed_over.is_some_and(|rows| view.slab.rows.abs_diff(rows) <= many_of(rows)) {
            // It may have taken an hour, and with every fold the next one would begin.
            return;
        }
        match build(shared, cell, &view, work, stop) {
            Ok(()) => cell.set_index_failure(None),
            Err(IndexError::Stopped) => return,
            Err(error) => {
                let failure = IndexFailure { what: with_causes(&error), rows: Some(view.slab.rows) };
                return cell.set_index_failure(Some(failure));
            }
        }
    }
}

fn build(shared: &Shared, cell: &Cell, view: &View, work: Work, stop: &AtomicBool) -> Result<(), IndexError> {
    let settings = shared.options.index_settings();
    let compact = work == Work::Renew;
    let index = if compact {
        let slab = without_removed(&view.slab, &view.slab);
        Hnsw::build(None, &slab, &shared.store, settings, stop)?
    } else {
        Hnsw::build(view.index.as_deref(), &view.slab, &shared.store, settings, stop)?
    };
    install(cell, &view.slab, index, compact);
    shared.has_unsaved_index.store(true, Ordering::Release);
    Ok(())
}

/// `now` without the rows that were removed when `then` was taken. Rows of `then` that were in the present get the
/// same numbers whatever happened since.
fn without_removed(now: &Slab, then: &Slab) -> Slab {
    now.compacted(|row| {
        row >= then.rows || {
            let (block, at) = then.locate(row);
            block.is_alive(at)
        }
    })
}

/// Gives the scope its index, unless its rows got other numbers since `then`.
fn install(cell: &Cell, then: &Slab, index: Hnsw, compact: bool) {
    let mut links = cell.edit();
    let now = cell.view();
    if now.slab.generation != then.generation {
        return;
    }
    let mut view = View { index: Some(Arc::new(index)), ..View::clone(&now) };
    if compact {
        view.slab = without_removed(&now.slab, then);
        *links = Links::of(&view.slab);
    }
    cell.publish(&links, view);
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
