//! `caxton config check`: everything there is to say about a file before a server runs with it.

use std::fmt;
use std::path::Path;

use super::effect::Ineffective;
use super::load::{Loaded, load_file_alone, load_text};
use super::paths;
use super::problem::{LoadError, Problem};

/// What there is to say about a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Why it cannot be used; empty when it can.
    pub problems: Vec<Problem>,
    /// What is allowed and should be known.
    pub warnings: Vec<Problem>,
    /// Keys that are set and change nothing.
    pub without_effect: Vec<Ineffective>,
}

impl Report {
    /// What the configuration itself says. What else would stop a server, its parts know: whoever asks them adds that.
    pub fn of(loaded: &Result<Loaded, LoadError>) -> Self {
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => return Self { problems: error.problems.clone(), ..Self::default() },
        };
        let problem = match loaded.config.api_keys() {
            Ok(keys) => {
                let exposed = loaded.config.check_exposure(&keys).err();
                exposed.map(|error| loaded.refused("http_server.bind_address", &error.to_string(), ""))
            }
            // A file that names keys which nobody can read would stop the server.
            Err(problem) => Some(*problem),
        };
        let warnings = loaded.warnings.iter().cloned().chain(paths::leading_nowhere(loaded)).collect();
        Self { problems: problem.into_iter().collect(), warnings, without_effect: loaded.without_effect() }
    }

    /// Whether a server can run with it.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }

    /// The report for machines.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "ok": self.is_ok(),
            "problems": self.problems,
            "warnings": self.warnings,
            "without_effect": self.without_effect,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (word, list) in [("error", &self.problems), ("warning", &self.warnings)] {
            for problem in list {
                writeln!(f, "{word}: {problem}")?;
                if let Some(excerpt) = problem.excerpt() {
                    writeln!(f, "{excerpt}")?;
                }
            }
        }
        for Ineffective { key, value, reason } in &self.without_effect {
            writeln!(f, "no effect: {key} = {value}: {reason}")?;
        }
        match self.problems.len() {
            0 => f.write_str("the configuration can be used"),
            1 => f.write_str("the configuration cannot be used: 1 fault"),
            count => write!(f, "the configuration cannot be used: {count} faults"),
        }
    }
}

/// Checks a text, on its own. Its relative paths count from the folder in which this process was started, as a server's do.
pub fn check(text: &str) -> Report {
    Report::of(&load_text(text))
}

/// Checks a file, on its own, as [`check`] does.
pub fn check_file(path: &Path) -> Report {
    Report::of(&load_file_alone(path.to_owned()))
}
