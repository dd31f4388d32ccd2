//! Why a command did not do what was asked, and the exit code that says so to scripts.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use caxton_events::log::open::LOG_FILE;
use caxton_events::log::{Log, OpenError, PartError, ReadError, StoreError};

use crate::failure::chain;

/// What there is to do about a damaged log besides a backup.
pub(super) const SALVAGE: &str = "; or save what can still be read of the log: caxton log salvage --to DIR";

/// A damaged log of so many bytes at most is looked through before anybody is sent to salvage it; a longer one keeps who only
/// wants to be told what is wrong waiting too long.
const LOOKED_THROUGH_BYTES_MAX: u64 = 64 << 20;

/// How a command ended. The numbers are documented in `--help` and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// The disk, the network or a damaged file said no.
    Failed = 1,
    /// Wrong usage, or a configuration that cannot be used.
    Usage = 2,
    /// No such thing.
    NotFound = 3,
    /// No server, or one that does not answer.
    Unreachable = 4,
    /// The rules said no.
    Refused = 5,
}

/// A command that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// The exit code; `None` for what is no fault: whoever read the output has gone, or asked for the end.
    pub(super) exit: Option<Exit>,
    message: String,
}

impl Failure {
    /// A failure with a message that says what to do.
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit: Some(exit), message: message.into() }
    }

    /// A failure that comes from below, with its whole chain of causes; where the log is damaged, with what rescues it.
    pub(super) fn of(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        let mut message = chain(error);
        if is_damaged_log(error) && !is_hopeless(error) {
            message.push_str(SALVAGE);
        }
        Self::new(exit, message)
    }

    /// The same failure, told with more of what was going on.
    pub(super) fn told(self, message: String) -> Self {
        Self { exit: self.exit, message }
    }

    /// The end of a command that was asked to end before it was done.
    pub(super) fn asked_for() -> Self {
        Self { exit: None, message: String::new() }
    }

    /// What could not be done to a file.
    pub(super) fn file(what: &str, path: &Path, error: &io::Error) -> Self {
        let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
        Self::new(exit, format!("could not {what} {}: {error}", path.display()))
    }

    /// What could not be printed.
    pub(super) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { exit: None, message: String::new() };
        }
        Self::new(Exit::Failed, format!("could not write to standard output: {error}"))
    }
}

/// Whether the log of the data directory is damaged in a way that leaves something to read.
fn is_damaged_log(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(inner) = next {
        // Nothing is read of a log that lacks one of its sealed files.
        if inner.is::<PartError>() {
            return false;
        }
        if matches!(inner.downcast_ref::<OpenError>(), Some(OpenError::Damaged { .. }))
            || matches!(inner.downcast_ref::<ReadError>(), Some(ReadError::Damaged { .. }))
            || matches!(inner.downcast_ref::<StoreError>(), Some(StoreError::Damaged(_)))
        {
            return true;
        }
        next = inner.source();
    }
    false
}

/// Whether the log's file is known to hold not one event, as one that is empty or is no log at all.
fn is_hopeless(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(inner) = next {
        if let Some(OpenError::Damaged { path, .. }) = inner.downcast_ref::<OpenError>() {
            return holds_nothing(path);
        }
        next = inner.source();
    }
    false
}

fn holds_nothing(path: &Path) -> bool {
    let is_short = fs::metadata(path).is_ok_and(|file| file.len() <= LOOKED_THROUGH_BYTES_MAX);
    let dir = path.parent().filter(|_| is_short && path.ends_with(LOG_FILE));
    let opened = dir.map(|dir| Log::open_damaged(dir, &mut |_, _| ()));
    matches!(opened, Some(Err(OpenError::Damaged { .. } | OpenError::Store { .. })))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::io;
    use std::path::{Path, PathBuf};

    use super::{Exit, Failure, OpenError, PartError, StoreError};
    use crate::cli::args::EXIT_CODES;
    use crate::engine::StartError;

    #[test]
    fn every_exit_code_is_in_the_help() {
        for exit in [Exit::Failed, Exit::Usage, Exit::NotFound, Exit::Unreachable, Exit::Refused] {
            let line = format!("\n  {}  ", exit as u8);
            assert!(EXIT_CODES.contains(&line), "{exit:?}");
        }
    }

    #[test]
    fn a_damaged_log_can_be_salvaged_and_one_without_a_sealed_file_cannot() {
        let path = PathBuf::from("events.redb");
        let damaged = || StoreError::Damaged("it is cut short".to_owned());
        let told = |error: OpenError| Failure::of(Exit::Failed, &StartError::Log(error)).to_string();
        let end = "or save what can still be read of the log: caxton log salvage --to DIR";
        let damage = told(OpenError::Damaged { path: path.clone(), source: damaged().into() });
        assert!(damage.ends_with(end), "{damage}");
        for other in [
            OpenError::Sealed { path: path.clone(), source: PartError::Store(damaged()) },
            OpenError::Unclean { path: path.clone() },
            OpenError::Newer { path, found: 99 },
        ] {
            let other = told(other);
            assert!(!other.ends_with(end), "{other}");
        }
    }

    #[test]
    fn nobody_is_sent_to_salvage_a_file_that_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.redb");
        for bytes in [&b""[..], b"no log of ours"] {
            std::fs::write(&path, bytes).unwrap();
            let source = StoreError::Damaged("it makes no sense".to_owned()).into();
            let error = StartError::Log(OpenError::Damaged { path: path.clone(), source });
            let told = Failure::of(Exit::Failed, &error).to_string();
            assert!(told.contains("restore it from a backup") && !told.contains("salvage"), "{told}");
        }
    }

    #[test]
    fn a_closed_pipe_is_no_fault() {
        assert_eq!(Failure::output(&io::ErrorKind::BrokenPipe.into()).exit, None);
        assert_eq!(Failure::output(&io::ErrorKind::StorageFull.into()).exit, Some(Exit::Failed));
    }

    #[test]
    fn a_missing_file_is_not_found() {
        let failure = Failure::file("read", Path::new("x.yaml"), &io::ErrorKind::NotFound.into());
        assert_eq!(failure.exit, Some(Exit::NotFound));
        assert_eq!(failure.to_string(), "could not read x.yaml: entity not found");
    }
}
