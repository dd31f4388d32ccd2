//! How far each projection has come, and waiting until it has come far enough.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caxton_events::Seq;

/// What must have happened to an event before somebody goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Wait {
    /// It is in the log.
    Durable,
    /// Graph and text have folded it.
    #[default]
    Applied,
    /// The vectors have folded it too.
    Indexed,
}

/// The projections that can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Graph and text: one database.
    Graph,
    /// Vectors.
    Vectors,
    /// Agents and conversations.
    Talk,
}

impl Part {
    /// Its name in answers and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Graph => "graph",
            Self::Vectors => "vectors",
            Self::Talk => "talk",
        }
    }
}

/// Where one projection is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The last record it includes.
    pub seq: Seq,
    /// Why it does not go on, if it does not.
    pub stopped: Option<String>,
}

/// Why waiting ended without success. What was waited for is in the log all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The time was over.
    #[error("projection {part} is at {position}, {wanted} was asked for", part = part.name())]
    TimedOut {
        /// Which one.
        part: Part,
        /// Where it is.
        position: Seq,
        /// Where it should be.
        wanted: Seq,
    },
    /// The projection has stopped.
    #[error("projection {part} has stopped at {position}: {error}", part = part.name())]
    Stopped {
        /// Which one.
        part: Part,
        /// Where it is.
        position: Seq,
        /// What it said.
        error: String,
    },
}

/// What is known of all of them.
#[derive(Debug, Default)]
struct Parts {
    at: [Position; 3],
    /// Why one of them is not whole any more, whatever the others do with it.
    ended: [Option<String>; 3],
}

impl Parts {
    fn get(&self, part: Part) -> Position {
        let Position { seq, stopped } = self.at[part as usize].clone();
        Position { seq, stopped: self.ended[part as usize].clone().or(stopped) }
    }

    /// Whether one does not include `seq` yet and may still come there.
    fn is_behind(&self, part: Part, seq: Seq) -> bool {
        let position = &self.at[part as usize];
        position.seq < seq && position.stopped.is_none() && self.ended[part as usize].is_none()
    }
}

/// The positions of all projections, shared by those who move them and those who wait.
#[derive(Debug)]
pub struct Positions {
    parts: Mutex<Parts>,
    moved: Condvar,
    /// Without vectors, waiting for them is waiting for the graph.
    has_vectors: bool,
    memory_changes: AtomicU64,
}

impl Positions {
    /// All at the start. Without vectors, [`Wait::Indexed`] means [`Wait::Applied`].
    pub fn new(has_vectors: bool) -> Self {
        Self {
            parts: Mutex::default(),
            moved: Condvar::new(),
            has_vectors,
            memory_changes: AtomicU64::new(0),
        }
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        // Every critical section below leaves whole values, so a panic elsewhere does not spoil them.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that something of the memory changed for those who read it: once it is shown to them, and before
    /// [`advance`](Self::advance) tells who waits for it.
    pub fn memory_changed(&self) {
        self.memory_changes.fetch_add(1, Ordering::Release);
    }

    /// How often that was noted: while it stays the same, the same question has the same answer.
    pub fn memory_changes(&self) -> u64 {
        self.memory_changes.load(Ordering::Acquire)
    }

    /// Where a projection is.
    pub fn get(&self, part: Part) -> Position {
        self.parts().get(part)
    }

    /// Why a projection does not go on with the log, if it does not: of one of whose threads another has ended, this is what
    /// stopped those that are left.
    pub fn standstill(&self, part: Part) -> Option<String> {
        self.parts().at[part as usize].stopped.clone()
    }

    /// Notes that a projection includes `seq`; it goes on if it had stopped.
    pub fn advance(&self, part: Part, seq: Seq) {
        self.parts().at[part as usize] = Position { seq, stopped: None };
        self.moved.notify_all();
    }

    /// Notes that a projection does not go on.
    pub fn stop(&self, part: Part, error: String) {
        self.parts().at[part as usize].stopped = Some(error);
        self.moved.notify_all();
    }

    /// Notes that a thread of a projection has ended and none takes its place: from now on the projection is said to have stopped,
    /// however far other threads bring it.
    pub fn end(&self, part: Part, error: String) {
        self.parts().ended[part as usize] = Some(error);
        self.moved.notify_all();
    }

    /// Whether `wait` is satisfied for `seq` without waiting.
    pub fn reached(&self, seq: Seq, wait: Wait) -> bool {
        let parts = self.parts();
        self.parts_of(wait).iter().all(|part| parts.at[*part as usize].seq >= seq)
    }

    /// Blocks until the projections of `wait` include `seq`, at most for `timeout`.
    ///
    /// # Errors
    ///
    /// [`WaitError`]: time is over, or a projection has stopped before `seq`.
    pub fn wait_for(&self, seq: Seq, wait: Wait, timeout: Duration) -> Result<(), WaitError> {
        for part in self.parts_of(wait) {
            let (parts, _) = self
                .moved
                .wait_timeout_while(self.parts(), timeout, |parts| parts.is_behind(*part, seq))
                .unwrap_or_else(PoisonError::into_inner);
            let position = parts.get(*part);
            drop(parts);
            if position.seq >= seq {
                continue;
            }
            return Err(match position.stopped {
                Some(error) => WaitError::Stopped { part: *part, position: position.seq, error },
                None => WaitError::TimedOut { part: *part, position: position.seq, wanted: seq },
            });
        }
        Ok(())
    }

    /// Blocks until one projection includes `seq`, has stopped, or `timeout` is over; whether it includes it.
    pub fn wait_for_part(&self, part: Part, seq: Seq, timeout: Duration) -> bool {
        let waited = self.moved.wait_timeout_while(self.parts(), timeout, |parts| parts.is_behind(part, seq));
        let (parts, _) = waited.unwrap_or_else(PoisonError::into_inner);
        parts.at[part as usize].seq >= seq
    }

    fn parts_of(&self, wait: Wait) -> &'static [Part] {
        match wait {
            Wait::Durable => &[],
            Wait::Indexed if self.has_vectors => &[Part::Graph, Part::Vectors],
            Wait::Applied | Wait::Indexed => &[Part::Graph],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use caxton_events::Seq;

    use super::{Part, Positions, Wait, WaitError};

    #[test]
    fn waiting_ends_when_the_projection_is_there_stopped_or_late() {
        let positions = Positions::new(true);
        positions.advance(Part::Graph, Seq(5));
        assert_eq!(positions.wait_for(Seq(5), Wait::Applied, Duration::ZERO), Ok(()));
        assert_eq!(positions.wait_for(Seq(9), Wait::Durable, Duration::ZERO), Ok(()));
        let late = positions.wait_for(Seq(5), Wait::Indexed, Duration::ZERO);
        assert_eq!(late, Err(WaitError::TimedOut { part: Part::Vectors, position: Seq(0), wanted: Seq(5) }));
        positions.stop(Part::Vectors, "disk full".to_owned());
        let stopped = positions.wait_for(Seq(5), Wait::Indexed, Duration::from_hours(1));
        assert!(matches!(stopped, Err(WaitError::Stopped { part: Part::Vectors, .. })));
    }

    #[test]
    fn what_has_ended_is_said_to_have_stopped_however_far_it_comes() {
        let positions = Positions::new(false);
        positions.end(Part::Graph, "its thread panicked".to_owned());
        let ended = positions.wait_for(Seq(5), Wait::Applied, Duration::from_hours(1));
        assert!(matches!(ended, Err(WaitError::Stopped { part: Part::Graph, .. })));
        positions.advance(Part::Graph, Seq(5));
        assert_eq!(positions.get(Part::Graph).stopped.as_deref(), Some("its thread panicked"));
        assert_eq!(positions.standstill(Part::Graph), None);
        assert_eq!(positions.wait_for(Seq(5), Wait::Applied, Duration::ZERO), Ok(()));
    }

    #[test]
    fn without_vectors_indexed_means_applied() {
        let positions = Positions::new(false);
        positions.advance(Part::Graph, Seq(5));
        assert!(positions.reached(Seq(5), Wait::Indexed));
        assert!(positions.wait_for_part(Part::Graph, Seq(5), Duration::from_hours(1)));
        assert!(!positions.wait_for_part(Part::Talk, Seq(5), Duration::ZERO));
    }
}
