//! `caxton backup`, `caxton backup verify`, `caxton restore`: the log in another place, and back.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caxton_events::log::{Log, LogOptions, OpenError};
use caxton_events::{Clock as _, Seq};
use caxton_tools::backup::{
    Added, CheckError, Frames, ManifestError, Places, ReceiveError, RestoreError, RestoreOptions, Restored,
    SourceError, Until, Wanted, begin, check, extras, restore, signing_key, source,
};

use super::args::{Backup, BackupCommand, Common, Restore};
use super::backend::{self, Backend, Request};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::progress::Progress;
use super::ranges::moment;
use super::{log, projection, proofs, setup};
use crate::engine::SystemClock;
use crate::failure::chain;

/// Runs `caxton backup`.
pub(super) fn backup(what: &Backup, common: &Common, out: &mut Output) -> Result<(), Failure> {
    if let Some(BackupCommand::Verify { dir }) = &what.command {
        return verify(dir, common, out);
    }
    let Some(to) = &what.to else {
        return Err(Failure::new(Exit::Usage, "name the folder of the backup with --to"));
    };
    let key = if what.with_keys { Some(key_beside(common)?) } else { None };
    let receiver = begin(to).map_err(|error| not_received(&error))?;
    let wanted = receiver.wanted();
    let mut progress = Progress::new("backing up", "events", !common.no_progress);
    let mut stream: Box<dyn Read> = match backend::running(common)? {
        Some(server) => ask(&Backend::Http(server), &wanted)?,
        None => Box::new(FrameReader::of(open(&wanted, common)?)),
    };
    let now = (SystemClock.now(), env!("CARGO_PKG_VERSION"));
    let added = receiver
        .receive(&mut *stream, key.into_iter().collect(), now, &mut |at, of| progress.set(at.0, of.0));
    drop(progress);
    let added: Added = added.map_err(|error| not_received(&error))?;
    out.value(&added)
}

/// The stream of a running server.
fn ask(server: &Backend, wanted: &Wanted) -> Result<Box<dyn Read>, Failure> {
    let request = Request::get("/api/v1/backup")
        .with("after", &wanted.after.0.to_string())
        .with_some("root", wanted.root.as_deref());
    server.read(request)
}

/// The stream of a stopped directory.
fn open(wanted: &Wanted, common: &Common) -> Result<Frames, Failure> {
    settle(common)?;
    let reader = log::open(common)?;
    let config = setup::load(common, Vec::new())?.config;
    let data_dir = setup::existing_data_dir(common)?;
    let agents = config.agents.directory.clone().unwrap_or_else(|| data_dir.join("agents"));
    let places = Places { data_dir, agents: Some(agents), config: common.config.clone() };
    let extras = extras(&places).map_err(|error| Failure::of(Exit::Failed, &error))?;
    let signer = proofs::signer(&reader, common).ok();
    source(&reader, wanted, extras, signer.as_ref()).map_err(|error| not_begun(&error))
}

/// Ends as with a running server, which refuses what is no failure of its own.
fn not_begun(error: &SourceError) -> Failure {
    let exit = match error {
        SourceError::OtherHistory { .. } | SourceError::Beyond { .. } | SourceError::Dropped { .. } => {
            Exit::Refused
        }
        SourceError::Read(_) => Exit::Failed,
    };
    Failure::of(exit, error)
}

/// Opens and closes a log that was not closed in order: what was acknowledged before a crash belongs into a backup, and
/// only an opening for writing finds it.
fn settle(common: &Common) -> Result<(), Failure> {
    let dir = log::known_data_dir(common)?;
    if let Err(OpenError::Unclean { .. }) = Log::open_read_only(&dir) {
        let log = Log::open(&dir, LogOptions::new([0; 16]), Arc::new(SystemClock))
            .map_err(|error| Failure::of(Exit::Failed, &error))?;
        log.close().map_err(|error| Failure::of(Exit::Failed, &error))?;
    }
    Ok(())
}

/// The key of the data directory on this machine. It never goes over the network.
fn key_beside(common: &Common) -> Result<caxton_tools::backup::Extra, Failure> {
    if common.url.is_some() {
        let message = "--with-keys reads signing.key from the data directory of this machine, and --url names a server; run it \
                       where the server runs, with --data-dir";
        return Err(Failure::new(Exit::Usage, message));
    }
    let dir = setup::existing_data_dir(common)?;
    let key = signing_key(&dir).map_err(|error| Failure::of(Exit::Failed, &error))?;
    key.ok_or_else(|| {
        let message = format!("there is no signing.key in {}; leave out --with-keys", dir.display());
        Failure::new(Exit::NotFound, message)
    })
}

fn not_received(error: &ReceiveError) -> Failure {
    let exit = match error {
        ReceiveError::Foreign { .. } | ReceiveError::Inside { .. } | ReceiveError::OtherLog { .. } => {
            Exit::Refused
        }
        ReceiveError::Locked { .. } => Exit::Unreachable,
        ReceiveError::Manifest(_)
        | ReceiveError::Damaged { .. }
        | ReceiveError::Source { .. }
        | ReceiveError::Block { .. }
        | ReceiveError::Head { .. }
        | ReceiveError::ReadBack { .. }
        | ReceiveError::Name { .. }
        | ReceiveError::Io { .. } => Exit::Failed,
    };
    Failure::of(exit, error)
}

/// Frames as bytes to read.
struct FrameReader {
    frames: Frames,
    bytes: io::Cursor<Vec<u8>>,
}

impl FrameReader {
    fn of(frames: Frames) -> Self {
        Self { frames, bytes: io::Cursor::default() }
    }
}

impl Read for FrameReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.bytes.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            match self.frames.next() {
                Some(frame) => self.bytes = io::Cursor::new(frame.map_err(io::Error::other)?),
                None => return Ok(0),
            }
        }
    }
}

fn verify(dir: &Path, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let mut progress = Progress::new("verifying", "events", !common.no_progress);
    let checked = check(dir, &mut |at, of| progress.set(at.0, of.0));
    drop(progress);
    let checked = checked.map_err(|CheckError::Manifest(error)| no_backup(&error))?;
    out.value(&checked)?;
    if checked.problems.is_empty() {
        return Ok(());
    }
    let parts: Vec<&str> = checked.problems.iter().map(|problem| problem.part.as_str()).collect();
    let message = format!("the backup is not whole ({}); make a new one", parts.join(", "));
    Err(Failure::new(Exit::Failed, message))
}

fn no_backup(error: &ManifestError) -> Failure {
    let exit = if matches!(error, ManifestError::Missing { .. }) { Exit::NotFound } else { Exit::Failed };
    Failure::of(exit, error)
}

/// Runs `caxton restore`.
pub(super) fn run_restore(what: &Restore, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let until = match (what.to_seq, moment("--to-time", what.to_time.as_deref())?) {
        (Some(seq), _) => Until::Seq(Seq(seq)),
        (None, Some(time)) => Until::Time(time),
        (None, None) => Until::End,
    };
    let restored = into_directory(&what.from, &what.to, (until, what.force, what.keys.clone()), common)?;
    if what.rebuild {
        return projection::build_restored(&restored, &[], common, out);
    }
    out.value(&restored)?;
    if out.is_json() {
        return Ok(());
    }
    out.line("the projections are built at the first start, or by `caxton projection rebuild`")
}

/// Makes a data directory of a backup.
pub(super) fn into_directory(
    from: &Path,
    to: &Path,
    (until, force, keys): (Until, bool, Option<PathBuf>),
    common: &Common,
) -> Result<Restored, Failure> {
    let mut new_log_id = [0; 16];
    getrandom::fill(&mut new_log_id)
        .map_err(|error| Failure::new(Exit::Failed, format!("could not draw an id for the log: {error}")))?;
    let options = RestoreOptions { until, force, new_log_id, keys, at: SystemClock.now() };
    let mut progress = Progress::new("restoring", "events", !common.no_progress);
    let restored = restore(from, to, &options, &mut |at, of| progress.set(at.0, of.0));
    drop(progress);
    restored.map_err(|error| not_restored(&error))
}

/// What a restore failed with.
pub(super) fn not_restored(error: &RestoreError) -> Failure {
    let exit = match error {
        RestoreError::Manifest(error) => return no_backup(error),
        RestoreError::Unnamable { .. } => Exit::Usage,
        RestoreError::NotEmpty { .. } | RestoreError::InTheWay { .. } | RestoreError::Unnamed { .. } => {
            Exit::Refused
        }
        RestoreError::Lock(OpenError::Locked { .. }) | RestoreError::Underway { .. } => Exit::Unreachable,
        RestoreError::Beyond { .. } | RestoreError::Before { .. } => Exit::NotFound,
        RestoreError::NotWhole { .. }
        | RestoreError::Lock(_)
        | RestoreError::Orders(_)
        | RestoreError::Build(_)
        | RestoreError::Head { .. }
        | RestoreError::Keys(_)
        | RestoreError::Io { .. } => Exit::Failed,
    };
    // What is damaged is the backup, of which nothing can be salvaged.
    Failure::new(exit, chain(error))
}

#[cfg(test)]
mod tests {
    use caxton_events::Seq;
    use caxton_events::log::ReadError;

    use super::{Exit, SourceError, not_begun};

    #[test]
    fn what_a_server_refuses_is_refused_where_none_runs() {
        for (error, exit) in [
            (SourceError::OtherHistory { after: Seq(3) }, Exit::Refused),
            (SourceError::Beyond { after: Seq(3), head: Seq(2) }, Exit::Refused),
            (SourceError::Dropped { first: Seq(4) }, Exit::Refused),
            (SourceError::Read(ReadError::Key { key: "k".to_owned() }), Exit::Failed),
        ] {
            let failure = not_begun(&error);
            assert_eq!(failure.exit, Some(exit), "{failure}");
        }
    }
}
