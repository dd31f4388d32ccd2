//! An engine in this process, for a data directory that no server has open. Requests take the same way through the
//! REST router as those over HTTP, without a socket.

use std::io::Cursor;

use super::{Answer, Request};
use crate::api::in_process::InProcess;
use crate::cli::args::Common;
use crate::cli::failure::{Exit, Failure};
use crate::cli::interrupt::Open;
use crate::cli::progress::Progress;
use crate::cli::setup;

/// A started engine behind its router. Stops in order when it is dropped, or when a signal comes.
pub(in crate::cli) struct Local {
    /// Stops the engine, before the door to it is gone.
    _open: Open,
    door: InProcess,
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
        let options = setup::rest_options(&loaded.config, None);
        let door = InProcess::new(engine, options).map_err(|error| Failure::of(Exit::Failed, &error))?;
        Ok(Self { _open: open, door })
    }

    /// Sends a request.
    pub(super) fn send(&self, request: Request) -> Result<Answer, Failure> {
        let (kind, body) = request.body.unwrap_or_default();
        let (status, bytes) = self
            .door
            .call(request.method, &request.path, kind, body)
            .map_err(|error| Failure::of(Exit::Failed, &error))?;
        Ok(Answer { status, body: Box::new(Cursor::new(bytes)) })
    }
}
