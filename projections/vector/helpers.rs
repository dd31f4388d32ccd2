//! Threads that take part in the pass of one search.
//!
//! A pass is over before a thread could be started for it, and what it waits for is memory: two cores fetch in half
//! the time of one. So some threads stand by, parked. One pass at a time has them; others go on alone. Nobody depends
//! on them: a piece they took and do not finish is looked at again.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};

use crate::embedding::cores::{self, Movable};
use crate::vector::pass::Pass;

/// More threads than so many wait for the same memory.
const HELPERS_MAX: usize = 7;

/// The threads, which end when this is dropped.
pub(crate) struct Helpers {
    helpers: Vec<Helper>,
    /// Held by the one pass that has them.
    turn: Mutex<()>,
}

struct Helper {
    desk: Arc<Desk>,
    thread: JoinHandle<()>,
}

/// What a helper and those who call it share.
struct Desk {
    pass: Mutex<Option<Arc<Pass>>>,
    stop: AtomicBool,
    /// The core on which the helper was when it last came or went.
    core: AtomicUsize,
    /// The helper, as soon as it runs.
    movable: OnceLock<Movable>,
}

/// A pass that the helpers were called to; when this is dropped, those that have not come need not.
pub(crate) struct Called<'a> {
    helpers: &'a [Helper],
    _turn: MutexGuard<'a, ()>,
}

impl Helpers {
    /// Starts `count` threads, or fewer where the system gives no more.
    pub(crate) fn start(count: usize) -> Self {
        let started = (1..=count.min(HELPERS_MAX)).map_while(|number| Helper::start(number).ok());
        Self { helpers: started.collect(), turn: Mutex::new(()) }
    }

    /// Calls the helpers to `pass`; `None` when another one has them, or there are none.
    pub(crate) fn call(&self, pass: &Arc<Pass>) -> Option<Called<'_>> {
        if self.helpers.is_empty() {
            return None;
        }
        let turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        for helper in &self.helpers {
            *helper.desk.pass() = Some(Arc::clone(pass));
            helper.desk.part_from_caller();
            helper.thread.thread().unpark();
        }
        Some(Called { helpers: &self.helpers, _turn: turn })
    }
}

impl Drop for Called<'_> {
    fn drop(&mut self) {
        for helper in self.helpers {
            drop(helper.desk.pass().take());
        }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        for Helper { desk, thread } in self.helpers.drain(..) {
            desk.stop.store(true, Ordering::Release);
            thread.thread().unpark();
            // Where it panicked, passes went on without it.
            drop(thread.join());
        }
    }
}

impl Helper {
    fn start(number: usize) -> io::Result<Self> {
        let desk = Arc::new(Desk {
            pass: Mutex::new(None),
            stop: AtomicBool::new(false),
            core: AtomicUsize::new(usize::MAX),
            movable: OnceLock::new(),
        });
        let own = Arc::clone(&desk);
        let thread = thread::Builder::new().name(format!("scan-{number}")).spawn(move || own.stand_by())?;
        Ok(Self { desk, thread })
    }
}

impl Desk {
    fn pass(&self) -> MutexGuard<'_, Option<Arc<Pass>>> {
        self.pass.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a helper does all the time.
    fn stand_by(&self) {
        if let Some(this) = Movable::this_thread() {
            // Nobody else sets it.
            let _ = self.movable.set(this);
        }
        while !self.stop.load(Ordering::Acquire) {
            let pass = self.pass().take();
            let Some(pass) = pass else {
                thread::park();
                continue;
            };
            self.note_core();
            pass.work();
            self.note_core();
        }
    }

    fn note_core(&self) {
        self.core.store(cores::current().unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Sees to it that the helper does not wake on the caller's core, to wait for it until the pass is over.
    fn part_from_caller(&self) {
        if let (Some(here), Some(helper)) = (cores::current(), self.movable.get())
            && here == self.core.load(Ordering::Relaxed)
        {
            helper.keep_off(here);
        }
    }
}
