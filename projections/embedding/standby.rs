//! Threads that stand by to take part in work that is over before a thread could be started for it.
//!
//! A thread that is started, or woken, begins on the core of the one that asks, where the system knows of no idle core, as
//! virtual machines often do not: it then waits for that core until it is moved, milliseconds later. So threads are parked
//! and kept off the caller's core. One caller at a time has them; others go on alone.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};

use super::cores::{self, Movable};

/// What threads take part in.
pub(crate) trait Work: Send + Sync {
    /// Does some of it, on the calling thread.
    fn work(&self);
}

/// The threads, which end when this is dropped.
pub(crate) struct StandBy {
    helpers: Vec<Helper>,
    /// Held by the one caller that has them.
    turn: Mutex<()>,
}

struct Helper {
    desk: Arc<Desk>,
    thread: JoinHandle<()>,
}

/// What a helper and those who call it share.
struct Desk {
    work: Mutex<Option<Arc<dyn Work>>>,
    stop: AtomicBool,
    /// The core on which the helper was when it last came or went.
    core: AtomicUsize,
    /// The helper, as soon as it runs.
    movable: OnceLock<Movable>,
}

/// Work that the threads were called to; when this is dropped, those that have not come need not.
pub(crate) struct Called<'a> {
    helpers: &'a [Helper],
    _turn: MutexGuard<'a, ()>,
}

impl StandBy {
    /// Starts `count` threads called `name` and a number, or fewer where the system gives no more.
    pub(crate) fn start(name: &str, count: usize) -> Self {
        let started = (1..=count).map_while(|number| Helper::start(format!("{name}-{number}")).ok());
        Self { helpers: started.collect(), turn: Mutex::new(()) }
    }

    /// How many there are. One that panicked is none any more.
    pub(crate) fn count(&self) -> usize {
        self.helpers.iter().filter(|helper| !helper.thread.is_finished()).count()
    }

    /// Calls the threads to `work`; `None` when somebody else has them, or there are none.
    pub(crate) fn call(&self, work: &Arc<impl Work + 'static>) -> Option<Called<'_>> {
        if self.helpers.is_empty() {
            return None;
        }
        let turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        for helper in &self.helpers {
            *helper.desk.work() = Some(Arc::clone(work) as Arc<dyn Work>);
            helper.desk.part_from_caller();
            helper.thread.thread().unpark();
        }
        Some(Called { helpers: &self.helpers, _turn: turn })
    }
}

impl Drop for Called<'_> {
    fn drop(&mut self) {
        for helper in self.helpers {
            drop(helper.desk.work().take());
        }
    }
}

impl Drop for StandBy {
    fn drop(&mut self) {
        for Helper { desk, thread } in self.helpers.drain(..) {
            desk.stop.store(true, Ordering::Release);
            thread.thread().unpark();
            // Where it panicked, its callers went on without it.
            drop(thread.join());
        }
    }
}

impl Helper {
    fn start(name: String) -> io::Result<Self> {
        let desk = Arc::new(Desk {
            work: Mutex::new(None),
            stop: AtomicBool::new(false),
            core: AtomicUsize::new(usize::MAX),
            movable: OnceLock::new(),
        });
        let own = Arc::clone(&desk);
        let thread = thread::Builder::new().name(name).spawn(move || own.stand_by())?;
        Ok(Self { desk, thread })
    }
}

impl Desk {
    fn work(&self) -> MutexGuard<'_, Option<Arc<dyn Work>>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a helper does all the time.
    fn stand_by(&self) {
        if let Some(this) = Movable::this_thread() {
            // Nobody else sets it.
            let _ = self.movable.set(this);
        }
        while !self.stop.load(Ordering::Acquire) {
            let work = self.work().take();
            let Some(work) = work else {
                thread::park();
                continue;
            };
            self.note_core();
            work.work();
            self.note_core();
        }
    }

    fn note_core(&self) {
        self.core.store(cores::current().unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Sees to it that the helper does not wake on the caller's core, to wait for it until the work is done.
    fn part_from_caller(&self) {
        if let (Some(here), Some(helper)) = (cores::current(), self.movable.get())
            && here == self.core.load(Ordering::Relaxed)
        {
            helper.keep_off(here);
        }
    }
}
