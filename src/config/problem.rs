//! What is wrong with a configuration: where, what, and what to do about it.

use std::fmt;
use std::path::PathBuf;

use super::document::Place;
use super::presets::Preset;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nowhere: it is Caxton's own.
    Default,
    /// A shipped preset.
    Preset(Preset),
    /// A file.
    File(PathBuf),
    /// A text without a file, as in a test or from standard input.
    Text,
    /// An environment variable.
    Environment(String),
    /// A flag of the command line, with its dashes.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset(preset) => write!(f, "preset {}", preset.name()),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Text => f.write_str("the text"),
            Self::Environment(name) => write!(f, "the variable {name}"),
            Self::Flag(name) => write!(f, "{name}"),
        }
    }
}

impl serde::Serialize for Source {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// One fault of a configuration.
///
/// Prints as `caxton.yaml:12:5: memory.sqlite_config.cache_size: unknown key; did you mean …`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Where the value was given.
    pub source: Source,
    /// Line and column there, where it has lines.
    pub place: Option<Place>,
    /// The key, as it was written.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// The line of the text that `place` points into.
    pub snippet: Option<String>,
}

impl Problem {
    pub(crate) fn new(source: Source, key: &str, message: impl Into<String>, remedy: &str) -> Self {
        let (key, message, remedy) = (key.to_owned(), message.into(), remedy.to_owned());
        Self { source, place: None, key, message, remedy, snippet: None }
    }

    pub(crate) fn at(mut self, place: Option<Place>) -> Self {
        self.place = place;
        self
    }

    /// The line of the text with a mark under the column, for a terminal; `None` where there is no line.
    ///
    /// ```text
    ///   12 |     cache_size: 128
    ///      |     ^
    /// ```
    pub fn excerpt(&self) -> Option<String> {
        let (place, line) = (self.place?, self.snippet.as_ref()?);
        let number = place.line.to_string();
        let gap = " ".repeat(number.len());
        // Tabs stay tabs, so that the mark stands right whatever their width.
        let indent: String =
            line.chars().take(place.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        Some(format!("  {number} | {line}\n  {gap} | {indent}^"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        if let Some(place) = self.place {
            write!(f, ":{place}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}; {}", self.message, self.remedy)
    }
}

/// Why a configuration could not be loaded: the faults that were found, in reading order, up to some dozens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => write!(f, "{only}")?,
            problems => write!(f, "the configuration has {} faults", problems.len())?,
        }
        let several = self.problems.len() > 1;
        for problem in &self.problems {
            if several {
                write!(f, "\n{problem}")?;
            }
            if let Some(excerpt) = problem.excerpt() {
                write!(f, "\n{excerpt}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}
