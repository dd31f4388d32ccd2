//! `caxton projection check`: is what stands beside the log what the log adds up to?

use caxton_tools::projection::rebuild_check;

use super::args::{Common, ProjectionCommand};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::progress::Progress;
use super::{log, setup};

/// Name of the scratch folder, inside the data directory: it takes as much room as the graph itself.
const SCRATCH: &str = "rebuild-check.tmp";

/// Runs a command about projections.
pub(super) fn run(command: &ProjectionCommand, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let ProjectionCommand::Check = command;
    if let Some(server) = super::backend::running(common)? {
        let message =
            format!("{} has the directory open; stop it first: this reads the files itself", server.url());
        return Err(Failure::new(Exit::Unreachable, message));
    }
    let reader = log::open(common)?;
    let dir = setup::existing_data_dir(common)?;
    let config = setup::load(common, Vec::new())?.config;
    let scratch = dir.join(SCRATCH);
    std::fs::create_dir_all(&scratch).map_err(|error| Failure::file("make", &scratch, &error))?;
    let mut progress = Progress::new("rebuilding", "events", !common.no_progress);
    let checked = rebuild_check(
        &reader,
        &dir.join(setup::GRAPH_DIR),
        &scratch,
        &setup::sqlite_options(&config),
        &mut |seq, head| {
            progress.set(seq.0, head.0);
        },
    );
    drop(progress);
    // A scratch folder left behind costs room and nothing else.
    let _ = std::fs::remove_dir_all(&scratch);
    let checked = checked.map_err(|error| Failure::of(Exit::Failed, &error))?;
    out.value(&checked)?;
    if checked.equal { Ok(()) } else { Err(Failure::new(Exit::Failed, "the graph differs from the log")) }
}
