//! The thread that looks after a server now and then: whether a limit is passed.

use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::Engine;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(15);

/// The running caretaker. Dropping it ends its thread.
#[derive(Debug)]
pub struct Caretaker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no caretaker.
#[derive(Debug, thiserror::Error)]
#[error("could not start the thread that looks after the limits")]
pub struct CaretakerError(#[source] std::io::Error);

impl Caretaker {
    /// Looks after `engine` from now on.
    ///
    /// # Errors
    ///
    /// [`CaretakerError`] when the system gives no thread.
    pub fn start(engine: &Engine) -> Result<Self, CaretakerError> {
        let (stop, stopped) = bounded::<()>(0);
        let engine = engine.clone();
        let run = move || {
            engine.watch();
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                engine.watch();
            }
        };
        let thread = std::thread::Builder::new().name("caretaker".to_owned()).spawn(run);
        Ok(Self { stop: Some(stop), thread: Some(thread.map_err(CaretakerError)?) })
    }
}

impl Drop for Caretaker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was told by its hook; the server needs nothing of it to stop.
            let _ = thread.join();
        }
    }
}
