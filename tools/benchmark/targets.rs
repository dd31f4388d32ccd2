//! What is good enough: the targets of the performance guide, in three steps.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::results::Better;

/// Bounds of a number, in its unit; each is the worst value that still has the grade.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// What is aimed at.
    pub target: f64,
    /// What will do.
    pub acceptable: f64,
    /// What is not to be missed; beyond it the number fails.
    pub critical: f64,
}

/// How a number does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// It meets the target.
    Pass,
    /// It misses the target and is acceptable.
    Acceptable,
    /// It is worse than acceptable.
    Critical,
    /// It is worse than what is critical.
    Fail,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Acceptable => "acceptable",
            Self::Critical => "critical",
            Self::Fail => "fail",
        })
    }
}

impl Target {
    const fn of(target: f64, acceptable: f64, critical: f64) -> Self {
        Self { target, acceptable, critical }
    }

    /// A target alone: what misses it fails.
    pub const fn only(target: f64) -> Self {
        Self::of(target, target, target)
    }

    /// Messages a second.
    pub const MESSAGES_PER_SECOND: Self = Self::of(100_000.0, 50_000.0, 10_000.0);
    /// Median latency of a message, ms.
    pub const MESSAGE_P50_MS: Self = Self::of(1.0, 5.0, 10.0);
    /// 99th percentile of the latency of a message, ms.
    pub const MESSAGE_P99_MS: Self = Self::of(10.0, 50.0, 100.0);
    /// Until an agent is there, ms.
    pub const SPAWN_MS: Self = Self::of(100.0, 500.0, 1_000.0);
    /// Memory of an agent, MB.
    pub const AGENT_MB: Self = Self::of(10.0, 50.0, 100.0);
    /// Share of a core that an agent takes, percent.
    pub const AGENT_CPU_PERCENT: Self = Self::of(5.0, 10.0, 25.0);
    /// From a crash to answers, s.
    pub const RECOVERY_SECONDS: Self = Self::of(30.0, 120.0, 300.0);
    /// Median and 99th percentile of a search by meaning, ms.
    pub const SEARCH_MS: (Self, Self) = (Self::only(10.0), Self::only(50.0));
    /// Of an agent's answer, ms.
    pub const ANSWER_MS: (Self, Self) = (Self::only(100.0), Self::only(500.0));
    /// Of an embedding, ms.
    pub const EMBEDDING_MS: (Self, Self) = (Self::only(5.0), Self::only(20.0));
    /// Of a query of the store, ms.
    pub const STORE_MS: (Self, Self) = (Self::only(1.0), Self::only(10.0));

    /// How a number does.
    pub fn grade(&self, value: f64, better: Better) -> Grade {
        let meets = |bound: f64| match better {
            Better::Higher => value >= bound,
            Better::Lower => value <= bound,
        };
        if meets(self.target) {
            Grade::Pass
        } else if meets(self.acceptable) {
            Grade::Acceptable
        } else if meets(self.critical) {
            Grade::Critical
        } else {
            Grade::Fail
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Better, Grade, Target};

    #[test]
    fn a_bound_itself_still_has_the_grade() {
        for (value, grade) in [
            (200_000.0, Grade::Pass),
            (100_000.0, Grade::Pass),
            (99_999.0, Grade::Acceptable),
            (50_000.0, Grade::Acceptable),
            (49_999.0, Grade::Critical),
            (10_000.0, Grade::Critical),
            (9_999.0, Grade::Fail),
        ] {
            assert_eq!(Target::MESSAGES_PER_SECOND.grade(value, Better::Higher), grade, "{value}");
        }
        for (value, grade) in [
            (0.5, Grade::Pass),
            (1.0, Grade::Pass),
            (1.1, Grade::Acceptable),
            (5.1, Grade::Critical),
            (10.1, Grade::Fail),
            (f64::NAN, Grade::Fail),
        ] {
            assert_eq!(Target::MESSAGE_P50_MS.grade(value, Better::Lower), grade, "{value}");
        }
        assert_eq!(Target::only(10.0).grade(10.1, Better::Lower), Grade::Fail);
    }
}
