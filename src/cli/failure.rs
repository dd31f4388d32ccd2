//! Why a command did not do what was asked, and the exit code that says so to scripts.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

use crate::failure::chain;

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
    /// The exit code; `None` when whoever read the output has gone, which is no fault.
    pub(super) exit: Option<Exit>,
    message: String,
}

impl Failure {
    /// A failure with a message that says what to do.
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit: Some(exit), message: message.into() }
    }

    /// A failure that comes from below, with its whole chain of causes.
    pub(super) fn of(exit: Exit, error: &dyn Error) -> Self {
        Self::new(exit, chain(error))
    }

    /// The same failure, told with more of what was going on.
    pub(super) fn told(self, message: String) -> Self {
        Self { exit: self.exit, message }
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

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::{Exit, Failure};
    use crate::cli::args::EXIT_CODES;

    #[test]
    fn every_exit_code_is_in_the_help() {
        for exit in [Exit::Failed, Exit::Usage, Exit::NotFound, Exit::Unreachable, Exit::Refused] {
            let line = format!("\n  {}  ", exit as u8);
            assert!(EXIT_CODES.contains(&line), "{exit:?}");
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
