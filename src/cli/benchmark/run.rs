//! A run under way: the server, what was found so far, and how it is shown meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use caxton_tools::benchmark::{Better, Figure, Part, Results, Setting, Target};
use serde_json::Value;

use super::door::{Ask, Door, code, refusal};
use super::instance::{Instance, Usage};
use super::load::{Load, Pacing, Work};
use super::record::{failures, latencies};
use super::words::Words;
use crate::cli::args::Common;
use crate::cli::failure::{Exit, Failure};
use crate::cli::progress::Progress;

/// Connections where there is a rate and none were asked for.
const CONNECTIONS: usize = 32;
/// Connections on which rows are written in bulk: more than these wait for each other at the log.
const WRITERS: usize = 4;
/// Time for a search to include everything.
const INDEX_TIMEOUT: Duration = Duration::from_hours(1);
/// How often that is asked.
const LOOK: Duration = Duration::from_millis(20);

/// A run under way.
pub(super) struct Run<'a> {
    common: &'a Common,
    pub(super) instance: Instance,
    pub(super) door: Door,
    connections: Option<usize>,
    /// Names and texts of this run.
    pub(super) words: Words,
    pub(super) results: Results,
    /// What the server took before anything was done.
    pub(super) before: Option<Usage>,
    /// Memory without files during the last part, in bytes, by seconds from its start.
    memory_seen: Vec<(f64, u64)>,
    /// 99th percentile of the last part at its full rate, in microseconds.
    tail: Option<f64>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        common: &'a Common,
        instance: Instance,
        connections: Option<usize>,
        words: Words,
        results: Results,
    ) -> Self {
        let (door, before) = (instance.door(common), instance.usage());
        let results = Results { target: instance.target(), ..results };
        let memory_seen = Vec::new();
        Self { common, instance, door, connections, words, results, before, memory_seen, tail: None }
    }

    /// Connections on which operations are sent at a rate: enough that one is free when an operation is due.
    pub(super) fn connections(&self) -> usize {
        self.connections.unwrap_or(CONNECTIONS)
    }

    /// Connections that each wait for an answer before they ask again: more than processors would measure their queue.
    pub(super) fn askers(&self) -> usize {
        let processors = || thread::available_parallelism().map_or(1, usize::from);
        self.connections.unwrap_or_else(processors)
    }

    /// Connections for writing in bulk.
    pub(super) fn writers(&self) -> usize {
        self.connections().min(WRITERS)
    }

    /// Whether the server searches by words alone.
    pub(super) fn keyword_only(&self) -> Result<bool, Failure> {
        let path = "/memory/search?agent_id=benchmark&query=x&mode=semantic&limit=1";
        Ok(self.searched(path, &mut || ())? == Searched::NoModel)
    }

    /// Does operations of one kind, and keeps what was found.
    pub(super) fn part(
        &mut self,
        name: &str,
        work: &dyn Work,
        pacing: Pacing,
        connections: usize,
    ) -> Result<Part, Failure> {
        self.part_beside((name, work), pacing, connections, &mut || ())
    }

    /// The same; `beside` is called several times a second meanwhile.
    pub(super) fn part_beside(
        &mut self,
        (name, work): (&str, &dyn Work),
        pacing: Pacing,
        connections: usize,
        beside: &mut dyn FnMut(),
    ) -> Result<Part, Failure> {
        let (offered, ramp_up) = match &pacing {
            Pacing::Open(schedule) => {
                (Some(schedule.mean_rate() * work.things(0) as f64), schedule.ramp_up())
            }
            Pacing::Closed { .. } => (None, Duration::ZERO),
        };
        let record = pacing.record(name);
        let operations = pacing.operations();
        let load = Load { door: &self.door, work, pacing, connections, record: &record };
        let mut progress = Progress::new(name.to_owned(), "operations", !self.common.no_progress);
        let (started, mut seen) = (Instant::now(), Vec::new());
        let ran = load.run(&mut |at| {
            progress.set(at, operations);
            beside();
            let now = started.elapsed().as_secs_f64();
            if seen.last().is_none_or(|(last, _): &(f64, u64)| now >= last + 1.0)
                && let Some(Usage { memory, .. }) = self.instance.usage()
            {
                seen.push((now, memory.resident.saturating_sub(memory.file_backed)));
            }
        });
        drop(progress);
        ran?;
        self.memory_seen = seen;
        self.tail = record.tail_from(ramp_up);
        let part = record.part(offered, ramp_up);
        self.keep(part.clone());
        Ok(part)
    }

    /// Memory without files during the last part, in bytes, by seconds from its start.
    pub(super) fn memory_seen(&self) -> &[(f64, u64)] {
        &self.memory_seen
    }

    /// 99th percentile of all that the last part did at its full rate, in microseconds; `None` where that was nothing.
    pub(super) const fn tail_at_full_rate(&self) -> Option<f64> {
        self.tail
    }

    /// Keeps what was found elsewhere.
    pub(super) fn keep(&mut self, part: Part) {
        self.results.parts.push(part);
    }

    /// Keeps a figure, where it came to a number.
    pub(super) fn figure(&mut self, figure: Figure) {
        self.results.keep(figure);
    }

    /// Keeps the share of a part that failed.
    pub(super) fn failures(&mut self, part: &Part) {
        if let Some(figure) = failures(part) {
            self.figure(figure);
        }
    }

    /// Says something about how it was measured.
    pub(super) fn remark(&mut self, text: impl Into<String>) {
        self.results.remarks.push(text.into());
    }

    /// Waits until searches by meaning include everything written so far; how long that took.
    pub(super) fn until_indexed(&self) -> Result<Duration, Failure> {
        let head = self.door.json(&Ask::get("/log/head"))?;
        let seq = head.get("seq").and_then(Value::as_u64).unwrap_or_default();
        let mode = if self.keyword_only()? { "keyword" } else { "semantic" };
        let path = format!("/memory/search?agent_id=benchmark&query=x&mode={mode}&limit=1&min_seq={seq}");
        let started = Instant::now();
        let mut progress = Progress::new("indexing", "events", !self.common.no_progress);
        self.searched(&path, &mut || progress.set(0, seq))?;
        Ok(started.elapsed())
    }

    /// Searches until there is an answer that is not to wait; `waiting` is called before each further one.
    fn searched(&self, path: &str, waiting: &mut dyn FnMut()) -> Result<Searched, Failure> {
        let started = Instant::now();
        while started.elapsed() < INDEX_TIMEOUT {
            let answer = self.door.send(&Ask::get(path));
            let (status, body) = answer.map_err(|silence| Failure::new(Exit::Unreachable, silence))?;
            match Searched::of(status, &body)? {
                Searched::NotYet => waiting(),
                found @ (Searched::Found | Searched::NoModel) => return Ok(found),
            }
            thread::sleep(LOOK);
        }
        let message = format!("a search had no answer within {} s but to wait", INDEX_TIMEOUT.as_secs());
        Err(Failure::new(Exit::Failed, message))
    }

    /// Keeps what the server takes of memory and disk, where it is our own.
    pub(super) fn resident(&mut self) {
        if let Some(Usage { memory, .. }) = self.instance.usage() {
            let megabytes = |bytes: u64| bytes as f64 / 1e6;
            let own = memory.resident.saturating_sub(memory.file_backed);
            self.figure(Figure::new("resident memory", megabytes(memory.resident), "MB", Better::Lower));
            self.figure(Figure::new("resident memory without files", megabytes(own), "MB", Better::Lower));
        }
        if let Some(bytes) = self.instance.disk_bytes() {
            self.figure(Figure::new("data directory", bytes as f64 / 1e6, "MB", Better::Lower));
        }
    }
}

/// What the answer to a search says about the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Searched {
    /// It was there.
    Found,
    /// It is to be asked again.
    NotYet,
    /// There is none, because there is no model.
    NoModel,
}

impl Searched {
    /// By the code of the answer: the status of one that is to wait is also that of one that will never be there.
    fn of(status: u16, body: &[u8]) -> Result<Self, Failure> {
        match (status, &*code(status, body)) {
            (200, _) => Ok(Self::Found),
            (503, "NOT_CAUGHT_UP" | "OVERLOADED") => Ok(Self::NotYet),
            (503, "NO_MODEL") => Ok(Self::NoModel),
            _ => {
                let exit = if matches!(status, 401 | 403) { Exit::Refused } else { Exit::Failed };
                Err(Failure::new(exit, format!("a search was refused: {}", refusal(status, body))))
            }
        }
    }
}

/// A flag with its value, for the results.
pub(super) fn setting(flag: &str, value: &impl ToString) -> Setting {
    Setting { flag: flag.to_owned(), value: value.to_string() }
}

/// Keeps the median and the 99th percentile of a part against their targets, and the share that failed.
pub(super) fn graded(run: &mut Run<'_>, part: &Part, (p50, p99): (Target, Target)) {
    if let Some((median, tail)) = latencies(part) {
        run.figure(median.against(p50));
        run.figure(tail.against(p99));
    }
    run.failures(part);
}

#[cfg(test)]
mod tests {
    use super::{Exit, Searched};

    #[test]
    fn a_search_is_waited_for_where_the_server_says_so_and_nowhere_else() {
        let of = |status, code: &str| {
            let body = format!("{{\"code\": \"{code}\", \"detail\": \"why\", \"remedy\": \"do this\"}}");
            Searched::of(status, body.as_bytes())
        };
        assert_eq!(Searched::of(200, b"{}").ok(), Some(Searched::Found));
        for (code, searched) in [
            ("NOT_CAUGHT_UP", Searched::NotYet),
            ("OVERLOADED", Searched::NotYet),
            ("NO_MODEL", Searched::NoModel),
        ] {
            assert_eq!(of(503, code).ok(), Some(searched), "{code}");
        }
        for (status, code, exit) in [
            (503, "PROJECTION_STOPPED", Exit::Failed),
            (503, "LOG_CLOSED", Exit::Failed),
            (500, "EMBEDDING_ERROR", Exit::Failed),
            (401, "UNAUTHORIZED", Exit::Refused),
        ] {
            let failure = of(status, code).unwrap_err();
            assert_eq!(failure.exit, Some(exit), "{code}");
            assert_eq!(failure.to_string(), format!("a search was refused: {code}: why; do this"));
        }
        assert!(Searched::of(503, b"no problem at all").is_err());
    }
}
