//! Which core a thread runs on, and keeping it off its caller's.
//!
//! For Linux. Elsewhere nobody knows the core, and nothing is done.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[cfg(target_os = "linux")]
use linux::{Movable, current};

#[cfg(not(target_os = "linux"))]
use elsewhere::{Movable, current};

/// Whether threads stay on the cores that they were given.
static PINNED: AtomicBool = AtomicBool::new(false);

/// Has all threads of this process stay where they are put from now on: whoever calls this gives them cores of their own, which
/// keeping them off their callers' cores would undo.
pub fn leave_pinned() {
    PINNED.store(true, Ordering::Relaxed);
}

/// Where a thread that others call is, as far as it told.
pub(crate) struct Whereabouts {
    /// The core on which it was last; [`usize::MAX`] when nobody knows.
    core: AtomicUsize,
    /// The thread, as soon as it runs.
    movable: OnceLock<Movable>,
}

impl Whereabouts {
    /// Of a thread that has not begun.
    pub(crate) const fn unknown() -> Self {
        Self { core: AtomicUsize::new(usize::MAX), movable: OnceLock::new() }
    }

    /// Called by the thread itself, before it waits for the first call.
    pub(crate) fn begin(&self) {
        if let Some(this) = Movable::this_thread() {
            // Nobody else sets it.
            let _ = self.movable.set(this);
        }
    }

    /// Called by the thread itself, whenever it may have been moved.
    pub(crate) fn note(&self) {
        self.core.store(current().unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Sees to it that the thread wakes on another core than the one that calls this.
    ///
    /// A thread wakes where it slept if the system knows of no core nearby that is idle, as virtual machines often do
    /// not, and then waits for the caller's core until it is moved: milliseconds, when the work is over.
    pub(crate) fn part_from_caller(&self) {
        if let Some(here) = current()
            && let Some(thread) = self.movable_from(here)
        {
            thread.keep_off(here);
        }
    }

    /// The thread, where it is on this core and may be moved.
    fn movable_from(&self, here: usize) -> Option<&Movable> {
        let is_there = here == self.core.load(Ordering::Relaxed) && !PINNED.load(Ordering::Relaxed);
        self.movable.get().filter(|_| is_there)
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use libc::{CPU_CLR, CPU_COUNT, CPU_ISSET, CPU_SETSIZE, cpu_set_t, pid_t};

    /// The core that the calling thread runs on, at least a moment ago.
    pub(crate) fn current() -> Option<usize> {
        // SAFETY: the function takes nothing and only gives a number.
        usize::try_from(unsafe { libc::sched_getcpu() }).ok()
    }

    /// A thread that can be kept off a core.
    pub(crate) struct Movable {
        thread: pid_t,
        /// The cores it could use when this was made.
        cores: cpu_set_t,
    }

    impl Movable {
        /// The calling thread; `None` when the system says nothing about it, or has one core for it.
        pub(crate) fn this_thread() -> Option<Self> {
            // SAFETY: a set of cores is an array of integers, for which zeros are a value: no core.
            let mut cores: cpu_set_t = unsafe { std::mem::zeroed() };
            // SAFETY: `cores` is as large as it is said to be; 0 is the calling thread.
            let failed = unsafe { libc::sched_getaffinity(0, size_of::<cpu_set_t>(), &raw mut cores) };
            // SAFETY: the function takes nothing and only gives a number.
            let thread = unsafe { libc::gettid() };
            // SAFETY: the function reads the set alone.
            let count = unsafe { CPU_COUNT(&cores) };
            (failed == 0 && count > 1).then_some(Self { thread, cores })
        }

        /// Lets the thread run on each of its cores but `core`.
        ///
        /// Where the system refuses, the thread runs where it ran before, and nothing is lost but time.
        pub(crate) fn keep_off(&self, core: usize) {
            let mut cores = self.cores;
            // SAFETY: the number is below the size of the set.
            if core < CPU_SETSIZE as usize && unsafe { CPU_ISSET(core, &cores) } {
                // SAFETY: as above.
                unsafe { CPU_CLR(core, &mut cores) };
                // SAFETY: `cores` is as large as it is said to be. The thread lives as long as the one owner of
                // this value calls; a number that is no thread's any more would be refused.
                let _refused =
                    unsafe { libc::sched_setaffinity(self.thread, size_of::<cpu_set_t>(), &raw const cores) };
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod elsewhere {
    /// No core is known.
    pub(crate) const fn current() -> Option<usize> {
        None
    }

    /// No thread can be moved.
    pub(crate) struct Movable;

    impl Movable {
        pub(crate) const fn this_thread() -> Option<Self> {
            None
        }

        pub(crate) const fn keep_off(&self, _core: usize) {}
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::sync::atomic::Ordering;

    use super::{Movable, PINNED, Whereabouts, current, leave_pinned};

    #[test]
    fn a_thread_leaves_the_core_it_is_kept_off() {
        let leave = || {
            // Where there is one core, there is nothing to test.
            let Some(this) = Movable::this_thread() else { return };
            for _ in 0..10 {
                let before = current().unwrap();
                this.keep_off(before);
                assert_ne!(current().unwrap(), before);
            }
        };
        // A thread of its own, because it does not come back to all cores.
        std::thread::scope(|scope| scope.spawn(leave).join().unwrap());
    }

    #[test]
    fn a_thread_that_is_pinned_is_not_moved_off_its_callers_core() {
        let this = Whereabouts::unknown();
        this.begin();
        this.note();
        let here = this.core.load(Ordering::Relaxed);
        // Where there is one core, nobody is moved.
        assert_eq!(this.movable_from(here).is_some(), Movable::this_thread().is_some());
        assert!(this.movable_from(here + 1).is_none(), "it is elsewhere");
        leave_pinned();
        assert!(this.movable_from(here).is_none());
        PINNED.store(false, Ordering::Relaxed);
    }

    #[test]
    fn a_core_that_the_thread_does_not_have_changes_nothing() {
        let Some(this) = Movable::this_thread() else { return };
        this.keep_off(1_023);
        this.keep_off(usize::MAX);
        assert!(Movable::this_thread().is_some());
    }
}
