//! The shipped profiles, as files that a person can read, copy and change.

use std::fmt;
use std::str::FromStr;

/// A shipped profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// For many agents at once.
    Throughput,
    /// For short waits.
    Latency,
    /// For small machines: below 256 MB.
    MemoryOptimised,
}

impl Preset {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Throughput, Self::Latency, Self::MemoryOptimised];

    /// Its name, as given to `--preset`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::MemoryOptimised => "memory-optimised",
        }
    }

    /// Its text.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Throughput => include_str!("presets/throughput.yaml"),
            Self::Latency => include_str!("presets/latency.yaml"),
            Self::MemoryOptimised => include_str!("presets/memory-optimised.yaml"),
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no preset has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no preset {name:?}; the presets are throughput, latency, memory-optimised")]
pub struct UnknownPreset {
    /// The name given.
    pub name: String,
}

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(name: &str) -> Result<Self, UnknownPreset> {
        // Both spellings of the last one are in use.
        let wanted = name.to_ascii_lowercase().replace("optimized", "optimised").replace('_', "-");
        let found = Self::ALL.iter().copied().find(|preset| preset.name() == wanted);
        found.ok_or_else(|| UnknownPreset { name: name.to_owned() })
    }
}
