//! Threads that stand by to take part in work that is over before a thread could be started for it.
//!
//! A thread that is started, or woken, begins on the core of the one that asks, where the system knows of no idle core, as
//! virtual machines often do not: it then waits for that core until it is moved, milliseconds later. So threads are parked
//! and kept off the caller's core. One caller at a time has them; others go on alone.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};

use super::cores::Whereabouts;

/// Times a thread that was roused looks for work before it lets others have its core, and in all before it sleeps again: about 50 µs,
/// and half a millisecond.
const LOOKS_BUSY: u32 = 1_000;
/// See [`LOOKS_BUSY`].
const LOOKS_MAX: u32 = 2_000;

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
    /// Whether there is some, so that who looks for it need not lock.
    has_work: AtomicBool,
    /// Work comes soon.
    roused: AtomicBool,
    stop: AtomicBool,
    whereabouts: Whereabouts,
}

/// The threads, for whoever took them.
pub(crate) struct Taken<'a> {
    helpers: &'a [Helper],
    turn: MutexGuard<'a, ()>,
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

    /// How many there are.
    pub(crate) const fn count(&self) -> usize {
        self.helpers.len()
    }

    /// Takes the threads, for a call; `None` when somebody else has them, or there are none.
    pub(crate) fn take(&self) -> Option<Taken<'_>> {
        if self.helpers.is_empty() {
            return None;
        }
        let turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Taken { helpers: &self.helpers, turn })
    }
}

impl<'a> Taken<'a> {
    /// Wakes the threads for work that is about to come: they look for it a moment.
    pub(crate) fn rouse(&self) {
        for Helper { desk, thread } in self.helpers {
            desk.whereabouts.part_from_caller();
            desk.roused.store(true, Ordering::Release);
            thread.thread().unpark();
        }
    }

    /// Calls the threads to `work`.
    pub(crate) fn call(self, work: &Arc<impl Work + 'static>) -> Called<'a> {
        for Helper { desk, thread } in self.helpers {
            *desk.work() = Some(Arc::clone(work) as Arc<dyn Work>);
            desk.has_work.store(true, Ordering::Release);
            desk.whereabouts.part_from_caller();
            thread.thread().unpark();
        }
        Called { helpers: self.helpers, _turn: self.turn }
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
            // It does not panic.
            drop(thread.join());
        }
    }
}

impl Helper {
    fn start(name: String) -> io::Result<Self> {
        let desk = Arc::new(Desk {
            work: Mutex::new(None),
            has_work: AtomicBool::new(false),
            roused: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            whereabouts: Whereabouts::unknown(),
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

    /// Returns when there is work, or too long was none.
    fn look_for_work(&self) {
        for looks in 0..LOOKS_MAX {
            if self.has_work.load(Ordering::Acquire) {
                return;
            }
            if looks < LOOKS_BUSY {
                std::hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }

    /// What a helper does all the time.
    fn stand_by(&self) {
        self.whereabouts.begin();
        while !self.stop.load(Ordering::Acquire) {
            self.has_work.store(false, Ordering::Relaxed);
            let work = self.work().take();
            let Some(work) = work else {
                if self.roused.swap(false, Ordering::Acquire) {
                    self.look_for_work();
                } else {
                    thread::park();
                }
                // It may have been moved, for work that was over before it came.
                self.whereabouts.note();
                continue;
            };
            self.roused.store(false, Ordering::Relaxed);
            self.whereabouts.note();
            // The panic was told, and the work knows that it was left; whoever calls next counts on this thread.
            let _told = panic::catch_unwind(AssertUnwindSafe(|| work.work()));
            self.whereabouts.note();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

    use std::sync::atomic::AtomicUsize;

    use super::*;

    struct Counting {
        came: AtomicUsize,
        panics: bool,
    }

    impl Work for Counting {
        fn work(&self) {
            self.came.fetch_add(1, Ordering::SeqCst);
            assert!(!self.panics, "a panic that the test asks for");
        }
    }

    #[test]
    fn all_threads_come_to_one_caller_at_a_time_whatever_became_of_the_last_work() {
        let threads = StandBy::start("test", 2);
        for panics in [false, true, true, false] {
            let work = Arc::new(Counting { came: AtomicUsize::new(0), panics });
            let called = threads.take().unwrap().call(&work);
            while work.came.load(Ordering::SeqCst) < threads.count() {
                thread::yield_now();
            }
            assert!(threads.take().is_none(), "somebody has them");
            drop(called);
        }
    }

    #[test]
    fn threads_that_were_roused_come_whether_work_follows_at_once_late_or_never() {
        let threads = StandBy::start("test", 2);
        for yields in [0, 2 * LOOKS_MAX] {
            let taken = threads.take().unwrap();
            taken.rouse();
            drop(taken);
            let taken = threads.take().unwrap();
            taken.rouse();
            (0..yields).for_each(|_| thread::yield_now());
            let work = Arc::new(Counting { came: AtomicUsize::new(0), panics: false });
            let called = taken.call(&work);
            while work.came.load(Ordering::SeqCst) < threads.count() {
                thread::yield_now();
            }
            drop(called);
        }
    }

    #[test]
    fn without_threads_nobody_comes() {
        assert!(StandBy::start("test", 0).take().is_none());
    }
}
