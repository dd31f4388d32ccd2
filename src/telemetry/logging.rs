//! The process's own log lines, on standard error.

use std::io::{self, IsTerminal as _, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{LogFormat, Logging};

/// Libraries that log what other servers said, in which those may repeat a key. What matters of it is told by ours.
const QUIET: &[&str] = &["rmcp=off"];

/// Why log lines cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not one.
    #[error(
        "logging.filter: {filter:?} is not a filter; write a level (error, warn, info, debug, trace), or \
             levels by module as in `info,caxton=debug`"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What the parser said.
        #[source]
        source: ParseError,
    },
    /// Something else in this process writes them already.
    #[error("log lines are already being written")]
    Installed,
}

/// Starts writing log lines to standard error, for the whole process.
///
/// # Errors
///
/// [`LoggingError`] when the filter is wrong, or on the second call.
pub fn start_logging(logging: &Logging) -> Result<(), LoggingError> {
    let filter = parse_filter(&logging.filter)?;
    let colours =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Lossy(io::stderr()))
        .log_internal_errors(false)
        .with_ansi(colours);
    let installed = match logging.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    installed.map_err(|_| LoggingError::Installed)
}

/// A place for log lines that may break, as a pipe does whose reader is gone: then lines are lost, and nothing else is.
struct Lossy<W>(W);

impl<W: Write> Write for Lossy<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Ok(0) | Err(_) => Ok(bytes.len()),
            Ok(written) => Ok(written),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

fn parse_filter(filter: &str) -> Result<EnvFilter, LoggingError> {
    let wrong = |source| LoggingError::Filter { filter: filter.to_owned(), source };
    let mut parsed = EnvFilter::builder().parse(filter).map_err(wrong)?;
    for directive in QUIET {
        parsed = parsed.add_directive(directive.parse().map_err(wrong)?);
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;

    #[test]
    fn a_place_that_breaks_loses_lines_and_tells_nobody() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::BrokenPipe))
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::Error::from(io::ErrorKind::BrokenPipe))
            }
        }
        let mut lossy = Lossy(Broken);
        assert!(lossy.write_all(b"a line\n").is_ok() && lossy.flush().is_ok());
        let mut kept = Lossy(Vec::new());
        kept.write_all(b"a line\n").unwrap();
        assert_eq!(kept.0, b"a line\n");
    }

    #[test]
    fn a_filter_is_a_level_or_levels_by_module() {
        for filter in ["info", "warn,caxton=debug", "caxton::engine=trace,off"] {
            assert!(parse_filter(filter).is_ok(), "{filter}");
        }
        for filter in ["caxton=loud", "=,=", "info,caxton=debug=x"] {
            assert!(parse_filter(filter).is_err(), "{filter}");
        }
    }
}
