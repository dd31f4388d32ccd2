//! An engine in this process, for a data directory that no server has open. Requests take the same way through the
//! REST router as those over HTTP, without a socket.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use caxton_projections::view::Part;

use super::{Answer, ENDPOINT_FILE, Request};
use crate::api::in_process::InProcess;
use crate::cli::args::Common;
use crate::cli::failure::{Exit, Failure};
use crate::cli::interrupt::Open;
use crate::cli::output::counted;
use crate::cli::progress::Progress;
use crate::cli::setup;
use crate::engine::Engine;

/// How often it is looked how far the model has come.
const LOOK: Duration = Duration::from_millis(100);
/// Who waits longer for the model is told so.
const PATIENCE: Duration = Duration::from_secs(1);

/// A started engine behind its router. Stops in order when it is dropped, or when a signal comes.
pub(in crate::cli) struct Local {
    /// Stops the engine, before the door to it is gone.
    _open: Open,
    door: InProcess,
    engine: Engine,
}

impl Local {
    /// Opens the data directory. Only commands that write make one where there is none.
    pub(in crate::cli) fn open(common: &Common, writes: bool) -> Result<Self, Failure> {
        if !writes {
            setup::existing_data_dir(common)?;
        }
        let loaded = setup::load(common, Vec::new())?;
        let mut progress = Progress::new("catching up", "events", !common.no_progress);
        let (engine, open) = setup::engine(&loaded, common, &mut progress)?;
        // The directory is this process's alone: the server that left its address here is gone.
        let _ = fs::remove_file(loaded.config.server.data_dir.join(ENDPOINT_FILE));
        let options = setup::rest_options(&loaded.config, None);
        let door =
            InProcess::new(engine.clone(), options).map_err(|error| Failure::of(Exit::Failed, &error))?;
        Ok(Self { _open: open, door, engine })
    }

    /// Has the model read what it has not read of the log yet: once this process has ended, nothing goes on with that.
    pub(super) fn let_model_catch_up(&self, common: &Common) {
        let mut progress = Progress::new("reading with the model", "events", !common.no_progress);
        let started = Instant::now();
        let mut told = common.no_progress || io::stderr().is_terminal();
        catch_up(&self.engine, &mut |done, all| {
            progress.set(done, all);
            if !told && started.elapsed() > PATIENCE {
                told = true;
                let events = counted(all as usize, "event");
                // There is nobody to tell that nobody can be told.
                let _ = writeln!(
                    io::stderr(),
                    "caxton: the model first reads the last {events} of the log; --mode keyword does without it"
                );
            }
        });
    }

    /// Sends a request.
    pub(super) fn send(&self, request: Request) -> Result<Answer, Failure> {
        let (kind, body) = request.body.unwrap_or_default();
        let (status, body) = self
            .door
            .call(request.method, &request.path, kind, body)
            .map_err(|error| Failure::of(Exit::Failed, &error))?;
        Ok(Answer { status, body: Box::new(body) })
    }
}

/// Waits until the vectors include the end of the log, or have stopped. `heard` hears how many events of how many are read.
fn catch_up(engine: &Engine, heard: &mut dyn FnMut(u64, u64)) {
    let (view, head) = (engine.view(), engine.log().head().seq);
    if view.semantic().is_none() {
        return;
    }
    let positions = view.positions();
    let begun = positions.get(Part::Vectors).seq;
    loop {
        let at = positions.get(Part::Vectors);
        if at.seq >= head || at.stopped.is_some() {
            return;
        }
        heard(at.seq.0.saturating_sub(begun.0), head.0.saturating_sub(begun.0));
        positions.wait_for_part(Part::Vectors, head, LOOK);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::sync::{Arc, Condvar, Mutex};

    use caxton_projections::view::Wait;

    use super::catch_up;
    use crate::api::in_process::InProcess;
    use crate::api::rest::RestOptions;
    use crate::engine::testing::SameVector;
    use crate::engine::{Engine, EngineOptions};

    /// What holds a model still until it is opened.
    #[derive(Default)]
    struct Gate {
        is_open: Mutex<bool>,
        opened: Condvar,
    }

    impl Gate {
        fn open(&self) {
            *self.is_open.lock().unwrap() = true;
            self.opened.notify_all();
        }

        fn pass(&self) {
            let is_open = self.is_open.lock().unwrap();
            drop(self.opened.wait_while(is_open, |is_open| !*is_open).unwrap());
        }
    }

    #[test]
    fn who_has_the_directory_alone_waits_until_the_model_has_read_the_log() {
        let (folder, gate) = (tempfile::tempdir().unwrap(), Arc::<Gate>::default());
        let held = Arc::clone(&gate);
        let embedding = Some(SameVector::served(move |_| {
            held.pass();
            Ok(())
        }));
        let options = EngineOptions { embedding, ..EngineOptions::new(folder.path()) };
        let engine = Engine::start(&options, &mut |_| ()).unwrap();
        let door = InProcess::new(engine.clone(), RestOptions::default()).unwrap();
        let body = br#"{"agent_id": "ada", "entity_name": "kettle", "entity_type": "thing",
            "observations": ["it boils"]}"#;
        let (status, _) =
            door.call("POST", "/api/v1/memory/entities", "application/json", body.to_vec()).unwrap();
        assert_eq!(status, 201);
        let head = engine.log().head().seq;
        let mut heard = Vec::new();
        catch_up(&engine, &mut |done, all| {
            // The model goes on when it is waited for, and not before.
            gate.open();
            heard.push((done, all));
        });
        assert!(engine.view().positions().reached(head, Wait::Indexed));
        assert!(heard.iter().all(|(done, all)| done < all) && !heard.is_empty(), "{heard:?}");
        engine.stop();
    }
}
