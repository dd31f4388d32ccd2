//! Who gets a message to a capability: strategies over candidates, each score with its reason.

use std::fmt::Write as _;

use caxton_events::agent::Health;
use caxton_events::conversation::{Because, Candidate, Strategy};
use caxton_events::limits::CANDIDATES_MAX;
use caxton_events::{AgentId, CapabilityName};

/// Open messages from which on an agent counts as fully loaded.
pub const FULL_LOAD: u64 = 1_000;
/// Different words about candidates that are remembered while the others are looked at.
const TOLD_MAX: usize = 8;

/// A provider as routing sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider<'a> {
    /// Who.
    pub agent: &'a AgentId,
    /// The version it offers.
    pub version: &'a str,
    /// 0 to 1,000; higher is preferred.
    pub priority: u16,
    /// How it is.
    pub health: Health,
    /// Why it cannot be chosen at all, such as an open circuit.
    pub unavailable: Option<&'static str>,
    /// Messages to it that it is not done with.
    pub load: u64,
    /// Its average time to answer, once it has answered.
    pub response_micros: Option<u64>,
    /// Share of its answers that were no failures, 0 to 1.
    pub success: f32,
    /// It takes part in the conversation already.
    pub in_conversation: bool,
}

/// Who was chosen, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Who gets the message.
    pub receivers: Vec<AgentId>,
    /// Who was looked at, the best first.
    pub candidates: Vec<Candidate>,
    /// One sentence.
    pub reason: String,
}

/// Nobody can be chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum NoChoice {
    /// Nobody offers it, or not in this version.
    NoProvider {
        /// The versions there are, when only the version is missing.
        versions: Vec<String>,
    },
    /// Somebody offers it, but none can take a message now.
    AllUnavailable {
        /// Who, each with its reason.
        candidates: Vec<Candidate>,
    },
}

impl Provider<'_> {
    fn health_factor(&self) -> f32 {
        match self.health {
            Health::Healthy => 1.0,
            Health::Degraded => 0.5,
            Health::Unhealthy => 0.0,
        }
    }

    /// How loaded it is, 0 to 1.
    pub fn load_score(&self) -> f32 {
        self.load.min(FULL_LOAD) as f32 / FULL_LOAD as f32
    }

    fn speed(&self) -> f32 {
        // Who has not answered yet is tried before it is judged.
        self.response_micros.map_or(1.0, |micros| 1.0 / (1.0 + micros as f32 / 1e6))
    }

    /// What the best match is made of, as it is told.
    fn weights(&self, strategy: Strategy) -> Option<Weights> {
        if !matches!(strategy, Strategy::BestMatch | Strategy::ContextContinuity) {
            return None;
        }
        Some(Weights {
            familiar: self.is_familiar(strategy),
            health: self.health,
            load: thousandths(self.load_score()),
            speed: thousandths(self.speed()),
            success: thousandths(self.success),
            priority: self.priority,
        })
    }

    fn passed_over(&self) -> Option<&'static str> {
        self.unavailable.or_else(|| (self.health == Health::Unhealthy).then_some("it is unhealthy"))
    }

    /// Its score, whose reason is written to `because`; but for that of [`Provider::weights`].
    fn score(&self, strategy: Strategy, because: &mut String) -> f32 {
        let (priority, load) = (f32::from(self.priority), self.load_score());
        // Writing to a text cannot fail.
        let _ = match strategy {
            Strategy::Priority | Strategy::Failover => write!(
                because,
                "priority {} × health {} × (1 − load {load:.3})",
                self.priority,
                self.health_factor()
            ),
            Strategy::LeastLoaded => write!(because, "{} messages under way", self.load),
            Strategy::FastestResponse => match self.response_micros {
                None => because.write_str("it has not answered yet"),
                Some(micros) => write!(because, "answers after {micros} µs"),
            },
            Strategy::RoundRobin | Strategy::Broadcast => because.write_str("available"),
            // Told by its weights.
            Strategy::BestMatch | Strategy::ContextContinuity => Ok(()),
        };
        match strategy {
            Strategy::Priority | Strategy::Failover => priority * self.health_factor() * (1.0 - load),
            Strategy::LeastLoaded => 1.0 / (1.0 + self.load as f32),
            Strategy::FastestResponse => self.speed(),
            Strategy::RoundRobin | Strategy::Broadcast => 1.0,
            Strategy::BestMatch | Strategy::ContextContinuity => {
                let score = 0.35 * self.health_factor()
                    + 0.25 * (1.0 - load)
                    + 0.15 * self.speed()
                    + 0.15 * self.success
                    + 0.10 * priority / 1_000.0;
                score + f32::from(u8::from(self.is_familiar(strategy)))
            }
        }
    }

    fn is_familiar(&self, strategy: Strategy) -> bool {
        strategy == Strategy::ContextContinuity && self.in_conversation
    }
}

/// What the words about a best match are made of: who weighs the same is told the same.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Weights {
    familiar: bool,
    health: Health,
    load: u16,
    speed: u16,
    success: u16,
    priority: u16,
}

impl Weights {
    /// By hand, since every message to a capability has it for several candidates, and the general formatting of
    /// fractions takes longer than all the rest of the routing.
    fn tell(self, because: &mut String) {
        because.push_str(if self.familiar { "in the conversation; health " } else { "health " });
        because.push_str(match self.health {
            Health::Healthy => "1",
            Health::Degraded => "0.5",
            Health::Unhealthy => "0",
        });
        for (name, thousandths) in
            [(", load ", self.load), (", speed ", self.speed), (", success ", self.success)]
        {
            because.push_str(name);
            because.push(if thousandths == 1_000 { '1' } else { '0' });
            because.push('.');
            for unit in [100, 10, 1] {
                because.push(char::from(b'0' + (thousandths / unit % 10) as u8));
            }
        }
        because.push_str(", priority ");
        let _ = write!(because, "{}", self.priority);
    }
}

/// A share in thousandths, halves away from zero. The sum is exact in the wider type, and no call of a library.
fn thousandths(share: f32) -> u16 {
    (f64::from(share.clamp(0.0, 1.0) * 1_000.0) + 0.5) as u16
}

/// Whether a provider's version is the one asked for: `2` is any 2.x, `2.1` any 2.1.x.
pub fn fits(version: &str, wanted: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| {
        version == wanted || version.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('.'))
    })
}

/// What a reason says of the version that was asked for; [`version_in`] reads it again.
pub fn in_version(version: Option<&str>) -> String {
    version.map_or_else(String::new, |version| format!(" in version {version}"))
}

/// The version that was asked for, out of the recorded reason for which nobody was found: the message is sent again to providers
/// of the same one.
pub fn version_in(reason: &str) -> Option<&str> {
    reason.split_once(" in version ")?.1.split(' ').next()
}

/// Whether `text` is a version or the beginning of one: one to three numbers, and behind three of them what semantic
/// versioning allows, as in `1.0.0-rc.1+b7`.
pub fn is_version(text: &str) -> bool {
    let (numbers, suffix) = match text.find(['-', '+']) {
        Some(end) => text.split_at(end),
        None => (text, ""),
    };
    let is_number = |part: &str| {
        (1..=20).contains(&part.len())
            && part.bytes().all(|sign| sign.is_ascii_digit())
            && (part.len() == 1 || !part.starts_with('0'))
    };
    let count = numbers.split('.').count();
    let words = |text: &str| {
        text.split('.').all(|word| {
            !word.is_empty() && word.bytes().all(|sign| sign.is_ascii_alphanumeric() || sign == b'-')
        })
    };
    let suffix_fits = match (suffix.strip_prefix('-'), suffix.strip_prefix('+')) {
        (Some(pre), _) => {
            pre.split_once('+').map_or_else(|| words(pre), |(pre, build)| words(pre) && words(build))
        }
        (None, Some(build)) => words(build),
        (None, None) => true,
    };
    count <= 3 && numbers.split('.').all(is_number) && suffix_fits && (suffix.is_empty() || count == 3)
}

/// A provider that can take the message, with its score and why it has that.
type Able<'p, 'a> = (f32, Because, &'p Provider<'a>);

/// Who can take the message and who was passed over, in the order of `providers`.
fn weigh<'p, 'a>(strategy: Strategy, providers: &'p [Provider<'a>]) -> (Vec<Able<'p, 'a>>, Vec<Candidate>) {
    let mut able: Vec<Able<'_, '_>> = Vec::with_capacity(providers.len());
    let mut passed_over = Vec::new();
    let mut words = String::with_capacity(128);
    // The last few weights, each with the place of who weighs that.
    let mut told: [Option<(Weights, usize)>; TOLD_MAX] = [None; TOLD_MAX];
    let mut next = 0;
    for provider in providers {
        match provider.passed_over() {
            None => {
                words.clear();
                let score = provider.score(strategy, &mut words);
                let same = if let Some(weights) = provider.weights(strategy) {
                    let same = told.iter().flatten().find(|(known, _)| *known == weights).copied();
                    if same.is_none() {
                        weights.tell(&mut words);
                        told[next % TOLD_MAX] = Some((weights, able.len()));
                        next += 1;
                    }
                    same.map(|(_, at)| &able[at])
                } else {
                    able.last().filter(|(_, because, _)| **because == *words)
                };
                let because = same.map_or_else(|| words.as_str().into(), |(_, because, _)| because.clone());
                able.push((score, because, provider));
            }
            Some(why) => {
                passed_over.push(Candidate {
                    agent: provider.agent.clone(),
                    score: 0.0,
                    because: why.into(),
                });
            }
        }
    }
    (able, passed_over)
}

/// Why the first of them is chosen, or all.
fn reason(strategy: Strategy, able: &[Able<'_, '_>]) -> String {
    let (_, because, Provider { agent: first, in_conversation, .. }) = &able[0];
    let count = able.len();
    match strategy {
        Strategy::Broadcast => format!("all {count} providers that can take a message"),
        Strategy::RoundRobin => format!("{first} is next of {count}"),
        Strategy::ContextContinuity if *in_conversation => {
            format!("{first} is in the conversation already")
        }
        Strategy::BestMatch
        | Strategy::Priority
        | Strategy::LeastLoaded
        | Strategy::FastestResponse
        | Strategy::Failover
        | Strategy::ContextContinuity => {
            let mut reason = String::with_capacity(first.as_str().len() + because.len() + 24);
            reason.push_str(first.as_str());
            let _ = write!(reason, " is first of {count}: ");
            reason.push_str(because);
            reason
        }
    }
}

/// Chooses among `providers`. `turn` counts what was routed to the capability before. The answer depends on the
/// arguments alone.
///
/// # Errors
///
/// [`NoChoice`] when nobody can take the message.
pub fn choose(strategy: Strategy, providers: &[Provider<'_>], turn: u64) -> Result<Choice, NoChoice> {
    if providers.is_empty() {
        return Err(NoChoice::NoProvider { versions: Vec::new() });
    }
    let (mut able, mut passed_over) = weigh(strategy, providers);
    if able.is_empty() {
        passed_over.truncate(CANDIDATES_MAX);
        return Err(NoChoice::AllUnavailable { candidates: passed_over });
    }
    if strategy == Strategy::RoundRobin {
        able.sort_unstable_by(|a, b| a.2.agent.cmp(b.2.agent));
        let len = able.len() as u64;
        able.rotate_left((turn % len) as usize);
    } else {
        able.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.2.agent.cmp(b.2.agent)));
    }
    let receivers: Vec<AgentId> = if strategy == Strategy::Broadcast {
        able.iter().map(|(_, _, provider)| provider.agent.clone()).collect()
    } else {
        vec![able[0].2.agent.clone()]
    };
    let reason = reason(strategy, &able);
    let mut candidates: Vec<Candidate> = able
        .into_iter()
        .take(CANDIDATES_MAX)
        .map(|(score, because, provider)| Candidate { agent: provider.agent.clone(), score, because })
        .collect();
    candidates.extend(passed_over);
    candidates.truncate(CANDIDATES_MAX);
    Ok(Choice { receivers, candidates, reason })
}

/// Names of capabilities that look like `wanted`, the nearest first: same first level, or few letters apart.
pub fn similar<'a>(
    wanted: &str,
    known: impl Iterator<Item = (&'a CapabilityName, usize)>,
) -> Vec<(&'a CapabilityName, usize)> {
    const SHOWN_MAX: usize = 5;
    let top = |name: &str| name.split('.').next().map(str::to_owned);
    let mut near: Vec<(f64, &CapabilityName, usize)> = known
        .map(|(name, count)| {
            let same_top = f64::from(u8::from(top(name.as_str()) == top(wanted)));
            (strsim::jaro_winkler(wanted, name.as_str()) + same_top, name, count)
        })
        .filter(|(score, ..)| *score > 0.75)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    near.into_iter().take(SHOWN_MAX).map(|(_, name, count)| (name, count)).collect()
}
