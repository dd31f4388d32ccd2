//! What a bench was asked for on its command line.

use std::path::PathBuf;

/// Arguments of the form `--name` and `--name VALUE`.
pub(crate) struct Arguments(Vec<String>);

impl Arguments {
    /// Those of this process.
    pub(crate) fn read() -> Self {
        Self(std::env::args().collect())
    }

    /// Whether the name was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    /// What stands behind the name.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|argument| argument == name)?;
        self.0.get(at + 1).cloned()
    }

    /// The number behind the name.
    pub(crate) fn number(&self, name: &str, default: u64) -> u64 {
        self.text(name).map_or(default, |value| value.parse().expect("the option takes a number"))
    }

    /// `--dir`, the folder that the bench works in.
    pub(crate) fn dir(&self, default: &str) -> PathBuf {
        PathBuf::from(self.text("--dir").unwrap_or_else(|| default.to_owned()))
    }
}
