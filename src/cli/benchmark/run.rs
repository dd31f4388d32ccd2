//! A run under way: the server, what was found so far, and how it is shown meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use caxton_tools::benchmark::{Better, Figure, Part, Results, Setting, Target};
use serde_json::Value;

use super::door::{Ask, Door};
use super::instance::{Instance, Usage};
use super::load::{Load, Pacing, Work};
use super::record::{Record, latencies};
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
    pub(super) fn keyword_only(&self) -> bool {
        let asked =
            self.door.send(&Ask::get("/memory/search?agent_id=benchmark&query=x&mode=semantic&limit=1"));
        asked.is_ok_and(|(status, _)| status == 503)
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
        let (lasts, offered, ramp_up) = match &pacing {
            Pacing::Open(schedule) => {
                let offered = schedule.mean_rate() * work.things(0) as f64;
                (schedule.lasts(), Some(offered), schedule.ramp_up())
            }
            Pacing::Closed { within, .. } => (*within, None, Duration::ZERO),
        };
        // Without an end in time nobody knows how long it takes; stretches of a second then.
        let record = Record::new(name, if lasts > Duration::from_hours(25) { Duration::ZERO } else { lasts });
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

    /// Keeps a figure.
    pub(super) fn figure(&mut self, figure: Figure) {
        self.results.figures.push(figure);
    }

    /// Says something about how it was measured.
    pub(super) fn remark(&mut self, text: impl Into<String>) {
        self.results.remarks.push(text.into());
    }

    /// Waits until searches by meaning include everything written so far; how long that took.
    pub(super) fn until_indexed(&self) -> Result<Duration, Failure> {
        let head = self.door.json(&Ask::get("/log/head"))?;
        let seq = head.get("seq").and_then(Value::as_u64).unwrap_or_default();
        let mode = if self.keyword_only() { "keyword" } else { "semantic" };
        let path = format!("/memory/search?agent_id=benchmark&query=x&mode={mode}&limit=1&min_seq={seq}");
        let started = Instant::now();
        let mut progress = Progress::new("indexing", "events", !self.common.no_progress);
        while started.elapsed() < INDEX_TIMEOUT {
            match self.door.send(&Ask::get(&*path)) {
                Ok((200, _)) => return Ok(started.elapsed()),
                Ok((503, _)) => progress.set(0, seq),
                Ok((status, body)) => {
                    let message =
                        format!("while waiting for the index: {}", super::door::code(status, &body));
                    return Err(Failure::new(Exit::Failed, message));
                }
                Err(silence) => return Err(Failure::new(Exit::Unreachable, silence)),
            }
            thread::sleep(LOOK);
        }
        let message = format!("searches did not include everything within {} s", INDEX_TIMEOUT.as_secs());
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
    if !part.failed.is_empty() {
        let failed = (1.0 - part.success()) * 100.0;
        run.figure(Figure::new(format!("{} failed", part.name), failed, "%", Better::Lower));
    }
}
