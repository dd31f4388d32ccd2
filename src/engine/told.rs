//! Threads whose panic is told: without that, who waits for them would wait in vain, and nobody would know why.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use caxton_projections::view::{Part, Positions};

/// Starts a thread that a projection needs. When it panics, the projection is said to have stopped for good.
pub(super) fn spawn<T: Send + 'static>(
    thread: &'static str,
    (part, positions): (Part, &Arc<Positions>),
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let told = Told { thread, part, positions: Arc::clone(positions) };
    thread::Builder::new().name(thread.to_owned()).spawn(move || {
        let _told = told;
        work()
    })
}

struct Told {
    thread: &'static str,
    part: Part,
    positions: Arc<Positions>,
}

impl Drop for Told {
    fn drop(&mut self) {
        if thread::panicking() {
            let (thread, projection) = (self.thread, self.part.name());
            tracing::error!(thread, projection, "a thread panicked; restart the server");
            self.positions.end(self.part, format!("its thread {thread} panicked; restart the server"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::panic::resume_unwind;
    use std::sync::Arc;

    use caxton_events::Seq;
    use caxton_projections::view::{Part, Positions};

    use super::spawn;

    #[test]
    fn a_thread_that_panics_is_named_from_then_on() {
        let positions = Arc::new(Positions::new(true));
        for (thread, part) in [
            ("memory-writer", Part::Graph),
            ("vector-fold", Part::Vectors),
            ("message-router", Part::Talk),
            ("talk-store", Part::Talk),
        ] {
            let stopped = || positions.get(part).stopped;
            let before = stopped();
            spawn(thread, (part, &positions), || ()).unwrap().join().unwrap();
            assert_eq!(stopped(), before, "it ended in order");
            let panicked = spawn::<()>(thread, (part, &positions), || resume_unwind(Box::new("as told")));
            panicked.unwrap().join().unwrap_err();
            // Others may go on with the same projection.
            positions.advance(part, Seq(1));
            assert_eq!(stopped(), Some(format!("its thread {thread} panicked; restart the server")));
        }
    }
}
