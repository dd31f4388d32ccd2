//! What a replay tells: how much, how fast, of what, and how long its steps took.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use caxton_events::log::SealedRecord;
use caxton_events::{Kind, Seq};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::projections::Folded;
use crate::counted::counted;

/// Longest time a histogram tells from longer ones, in nanoseconds: an hour.
const NANOS_MAX: u64 = 3_600_000_000_000;
/// Significant digits of a percentile.
const DIGITS: u8 = 3;

/// Percentiles of how long something took, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// What took so long.
    pub of: &'static str,
    /// How many there were.
    pub count: u64,
    /// Half took no longer.
    pub p50_micros: f64,
    /// Nine in ten took no longer.
    pub p90_micros: f64,
    /// 99 in a hundred took no longer.
    pub p99_micros: f64,
    /// 999 in a thousand took no longer.
    pub p999_micros: f64,
    /// None took longer.
    pub max_micros: f64,
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, count, p50_micros, p90_micros, p99_micros, p999_micros, max_micros } = self;
        write!(
            f,
            "{of}: p50 {}  p90 {}  p99 {}  p99.9 {}  max {}  ({count})",
            Micros(*p50_micros),
            Micros(*p90_micros),
            Micros(*p99_micros),
            Micros(*p999_micros),
            Micros(*max_micros)
        )
    }
}

/// A time in the unit that suits it.
struct Micros(f64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            micros if micros < 1_000.0 => write!(f, "{micros:.1} µs"),
            micros if micros < 1_000_000.0 => write!(f, "{:.2} ms", micros / 1e3),
            micros => write!(f, "{:.2} s", micros / 1e6),
        }
    }
}

/// How long many things took. Its size does not grow with their number.
#[derive(Debug, Clone)]
pub struct Latencies {
    of: &'static str,
    nanos: Histogram<u64>,
}

impl Latencies {
    /// Of nothing yet.
    pub fn new(of: &'static str) -> Self {
        #[expect(clippy::expect_used, reason = "the bounds are constants: 1 to an hour with three digits")]
        let nanos = Histogram::new_with_max(NANOS_MAX, DIGITS).expect("bounds that a histogram can have");
        Self { of, nanos }
    }

    /// Takes in one.
    pub fn add(&mut self, took: Duration) {
        self.nanos.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Takes in all of another one.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same bounds, so nothing of the other lies outside.
        let _ = self.nanos.add(&other.nanos);
    }

    /// Their percentiles; `None` where there was nothing.
    pub fn percentiles(&self) -> Option<Latency> {
        let at = |share: f64| self.nanos.value_at_quantile(share) as f64 / 1e3;
        (!self.nanos.is_empty()).then(|| Latency {
            of: self.of,
            count: self.nanos.len(),
            p50_micros: at(0.5),
            p90_micros: at(0.9),
            p99_micros: at(0.99),
            p999_micros: at(0.999),
            max_micros: self.nanos.max() as f64 / 1e3,
        })
    }
}

/// What a replay did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replayed {
    /// Position of the first event.
    pub first_seq: Option<Seq>,
    /// Position of the last event.
    pub last_seq: Option<Seq>,
    /// Events decoded.
    pub events: u64,
    /// Events of the range whose content was erased: there was nothing to decode.
    pub erased: u64,
    /// Blocks read.
    pub blocks: u64,
    /// Bytes of these blocks, as they lie in the log.
    pub bytes: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Events a second.
    pub events_per_second: f64,
    /// Millions of bytes a second.
    pub megabytes_per_second: f64,
    /// Events of each kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// How long each step took.
    pub latency: Option<Latency>,
    /// How late events were against their schedule; `None` at full speed.
    pub late: Option<Latency>,
    /// Where it was folded into; `None` for nothing.
    pub into: Option<Folded>,
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, blocks, seconds, events_per_second, megabytes_per_second, .. } = self;
        write!(f, "{} in {}", counted(*events, "event"), counted(*blocks, "block"))?;
        if let (Some(first), Some(last)) = (self.first_seq, self.last_seq) {
            write!(f, ", {first} to {last}")?;
        }
        write!(f, ", in {seconds:.3} s: {events_per_second:.0} events/s, {megabytes_per_second:.1} MB/s")?;
        for latency in [&self.latency, &self.late].into_iter().flatten() {
            write!(f, "\n{latency}")?;
        }
        for (kind, count) in &self.kinds {
            write!(f, "\n{count:>12}  {kind}")?;
        }
        if self.erased > 0 {
            write!(f, "\n{:>12}  erased: there was nothing to decode", self.erased)?;
        }
        match &self.into {
            Some(folded) => write!(f, "\n{folded}"),
            None => Ok(()),
        }
    }
}

/// Counts of a replay under way.
#[derive(Debug)]
pub(super) struct Tally {
    pub events: u64,
    erased: u64,
    pub bytes: u64,
    pub blocks: u64,
    pub first: Option<Seq>,
    pub last: Option<Seq>,
    kinds: [u64; 128],
    steps: Latencies,
    late: Latencies,
}

impl Tally {
    pub(super) fn new(step: &'static str) -> Self {
        Self {
            events: 0,
            erased: 0,
            bytes: 0,
            blocks: 0,
            first: None,
            last: None,
            kinds: [0; 128],
            steps: Latencies::new(step),
            late: Latencies::new("behind the schedule"),
        }
    }

    pub(super) fn count(&mut self, seq: Seq, kind: Kind) {
        self.reach(seq);
        self.events += 1;
        self.kinds[usize::from(kind.tag()) & 127] += 1;
    }

    pub(super) fn erased(&mut self, sealed: &SealedRecord) {
        self.reach(sealed.seq);
        self.erased += 1;
    }

    fn reach(&mut self, seq: Seq) {
        self.first.get_or_insert(seq);
        self.last = Some(seq);
    }

    pub(super) fn took(&mut self, took: Duration) {
        self.steps.add(took);
    }

    pub(super) fn late(&mut self, late: Duration) {
        self.late.add(late);
    }

    /// Takes in what was counted behind this.
    pub(super) fn add(&mut self, behind: &Self) {
        self.events += behind.events;
        self.erased += behind.erased;
        self.bytes += behind.bytes;
        self.blocks += behind.blocks;
        (self.first, self.last) = (self.first.or(behind.first), behind.last.or(self.last));
        for (kind, more) in self.kinds.iter_mut().zip(behind.kinds) {
            *kind += more;
        }
        self.steps.merge(&behind.steps);
    }

    pub(super) fn report(self, took: Duration, into: Option<Folded>) -> Replayed {
        let seconds = took.as_secs_f64();
        // A clock that stood still tells no speed.
        let a_second = |amount: u64| if seconds > 0.0 { amount as f64 / seconds } else { 0.0 };
        let count = |kind: &Kind| (kind.name(), self.kinds[usize::from(kind.tag())]);
        Replayed {
            first_seq: self.first,
            last_seq: self.last,
            events: self.events,
            erased: self.erased,
            blocks: self.blocks,
            bytes: self.bytes,
            seconds,
            events_per_second: a_second(self.events),
            megabytes_per_second: a_second(self.bytes) / 1e6,
            kinds: Kind::ALL.iter().map(count).filter(|(_, count)| *count > 0).collect(),
            latency: self.steps.percentiles(),
            late: self.late.percentiles(),
            into,
        }
    }
}
