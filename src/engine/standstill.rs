//! Rebuilds stand still while something is erased: what one has read of the log before the order would come back with it, and
//! stay in the files that it has begun.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Who is at work: rebuilds, or an erasure. An erasure waits for rebuilds, which look now and then at whether one does, and
/// begin anew when it has ended.
#[derive(Debug, Default)]
pub(super) struct Standstill {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Rebuilds that are at work.
    at_work: usize,
    /// Erasures that are under way or wait for rebuilds.
    erasures: usize,
    /// The engine stops.
    over: bool,
}

/// A rebuild is at work until this is dropped.
pub(super) struct AtWork<'a>(&'a Standstill);

/// No rebuild is at work until this is dropped.
pub(super) struct Held<'a>(&'a Standstill);

impl Standstill {
    /// Waits until nothing is erased any more and lets a rebuild work; `None` when the engine stops.
    pub(super) fn work(&self) -> Option<AtWork<'_>> {
        let waited = self.changed.wait_while(self.state(), |state| state.erasures > 0 && !state.over);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.over {
            return None;
        }
        state.at_work += 1;
        Some(AtWork(self))
    }

    /// Whether an erasure waits for rebuilds, or is under way.
    pub(super) fn is_wanted(&self) -> bool {
        self.state().erasures > 0
    }

    /// Waits until no rebuild is at work, and lets none begin.
    pub(super) fn hold(&self) -> Held<'_> {
        let mut state = self.state();
        state.erasures += 1;
        drop(self.changed.wait_while(state, |state| state.at_work > 0));
        Held(self)
    }

    /// From now on no rebuild begins, and none waits.
    pub(super) fn end(&self) {
        self.state().over = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves whole values.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.state().at_work -= 1;
        self.0.changed.notify_all();
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.state().erasures -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::thread;

    use crossbeam_channel::bounded;

    use super::Standstill;

    #[test]
    fn an_erasure_waits_for_what_is_at_work_and_nothing_begins_before_it_has_ended() {
        let standstill = Standstill::default();
        let (told, steps) = bounded(8);
        let (end, ended) = bounded::<()>(0);
        thread::scope(|scope| {
            let at_work = standstill.work().unwrap();
            let (erasure, rebuild, standstill, end) = (told.clone(), told, &standstill, end);
            scope.spawn(move || {
                let held = standstill.hold();
                erasure.send("the erasure begins").unwrap();
                // Also when the test fails, which drops the other end.
                let _ = ended.recv();
                erasure.send("the erasure ends").unwrap();
                drop(held);
            });
            while !standstill.is_wanted() {
                thread::yield_now();
            }
            scope.spawn(move || {
                let at_work = standstill.work();
                rebuild.send(if at_work.is_some() { "a rebuild begins" } else { "it is over" }).unwrap();
            });
            assert!(steps.try_recv().is_err(), "a rebuild is still at work");
            drop(at_work);
            assert_eq!(steps.recv().unwrap(), "the erasure begins");
            end.send(()).unwrap();
        });
        assert_eq!(steps.iter().collect::<Vec<_>>(), ["the erasure ends", "a rebuild begins"]);
        assert!(!standstill.is_wanted());
    }

    #[test]
    fn a_rebuild_that_waits_hears_that_the_engine_stops() {
        let standstill = Standstill::default();
        let _held = standstill.hold();
        thread::scope(|scope| {
            let waits = scope.spawn(|| standstill.work().is_none());
            standstill.end();
            assert!(waits.join().unwrap());
        });
    }
}
