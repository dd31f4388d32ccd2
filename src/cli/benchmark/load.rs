//! Sending operations when they are due, from many threads, and counting what becomes of them.
//!
//! An open loop: latency counts from the moment an operation was due by the schedule, so that a server that stalls is not
//! spared the operations that were to come meanwhile (coordinated omission; G. Tene, "How NOT to Measure Latency", 2013).
//! Without a schedule each thread sends the next operation when the one before is answered, and latency counts from sending.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::door::{Ask, Door, code};
use super::record::{Outcome, Record};
use super::schedule::Schedule;
use crate::cli::failure::{Exit, Failure};

/// How long behind the end of a schedule operations are still sent; what is left then was never sent.
const GRACE: Duration = Duration::from_secs(5);
/// What is counted for operations that were not sent.
const NOT_SENT: &str = "not sent: too far behind the schedule";
/// Answers missing in a row after which a server is taken for gone.
const SILENCE_MAX: u64 = 100;
/// Stack of a thread that sends, in bytes.
const STACK_BYTES: usize = 512 << 10;
/// Shorter waits are spent awake: a sleep takes about that much longer than was asked.
const AWAKE: Duration = Duration::from_micros(80);

/// Operations of one kind.
pub(super) trait Work: Sync {
    /// The request of operation `number`.
    fn ask(&self, number: u64) -> Ask;

    /// Things that operation `number` does.
    fn things(&self, _number: u64) -> u64 {
        1
    }

    /// Whether the answer is what was to come; otherwise why not, in few words that can be counted.
    fn judge(&self, _number: u64, status: u16, body: &[u8]) -> Result<(), String> {
        if (200..300).contains(&status) { Ok(()) } else { Err(code(status, body)) }
    }

    /// Does operation `number` on connection `line`: one request, unless it takes more.
    fn act(&self, door: &Door, _line: u64, number: u64) -> Result<(), Refused> {
        let (status, body) = door.send(&self.ask(number)).map_err(Refused::Silence)?;
        self.judge(number, status, &body).map_err(Refused::Answer)
    }
}

/// Why an operation was not done.
pub(super) enum Refused {
    /// There was no answer.
    Silence(String),
    /// The answer was another one.
    Answer(String),
}

/// When operations are sent.
#[derive(Debug, Clone)]
pub(super) enum Pacing {
    /// By a plan.
    Open(Schedule),
    /// So many, each thread one after the other, and none behind so much time.
    Closed { operations: u64, within: Duration },
}

impl Pacing {
    /// Operations, at the most.
    pub(super) const fn operations(&self) -> u64 {
        match self {
            Self::Open(schedule) => schedule.operations(),
            Self::Closed { operations, .. } => *operations,
        }
    }

    /// Where operations of this kind, called `name`, are counted: in stretches that go with how long they take.
    pub(super) fn record(&self, name: &str) -> Record {
        match self {
            Self::Open(schedule) => Record::planned(name, schedule.lasts()),
            // Nobody knows how long those without an end in time take: stretches are short then.
            Self::Closed { within, .. } if *within == Duration::MAX => Record::new(name, Duration::ZERO),
            Self::Closed { within, .. } => Record::new(name, *within),
        }
    }
}

/// A load on a server.
pub(super) struct Load<'a> {
    pub(super) door: &'a Door,
    pub(super) work: &'a dyn Work,
    pub(super) pacing: Pacing,
    /// Threads with a connection each.
    pub(super) connections: usize,
    pub(super) record: &'a Record,
}

/// What the threads share.
struct Shared<'a> {
    load: &'a Load<'a>,
    started: Instant,
    next: AtomicU64,
    silent: AtomicU64,
    gone: AtomicBool,
}

impl Load<'_> {
    /// Sends everything and waits for the answers. `progress` hears how many operations were taken up, several times a second.
    ///
    /// # Errors
    ///
    /// When the server is gone, or the system gives no thread.
    pub(super) fn run(&self, progress: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        let shared = Shared {
            load: self,
            started: Instant::now(),
            next: AtomicU64::new(0),
            silent: AtomicU64::new(0),
            gone: AtomicBool::new(false),
        };
        let operations = self.pacing.operations();
        thread::scope(|scope| {
            let mut threads = Vec::with_capacity(self.connections);
            for line in 0..self.connections.max(1) {
                let sender = thread::Builder::new().name("benchmark".to_owned()).stack_size(STACK_BYTES);
                let spawned = sender.spawn_scoped(scope, {
                    let shared = &shared;
                    move || shared.send(line as u64)
                });
                threads.push(spawned.map_err(|error| {
                    // Those that are there end with the next operation.
                    shared.gone.store(true, Ordering::Relaxed);
                    let message =
                        format!("could not start {} threads: {error}; lower --connections", self.connections);
                    Failure::new(Exit::Failed, message)
                })?);
            }
            while threads.iter().any(|thread| !thread.is_finished()) {
                progress(shared.next.load(Ordering::Relaxed).min(operations));
                thread::sleep(Duration::from_millis(100));
            }
            progress(operations);
            Ok::<(), Failure>(())
        })?;
        if shared.gone.load(Ordering::Relaxed) {
            let message =
                format!("{SILENCE_MAX} requests in a row had no answer; is the server still running?");
            return Err(Failure::new(Exit::Unreachable, message));
        }
        Ok(())
    }
}

impl Shared<'_> {
    fn send(&self, line: u64) {
        let Load { work, pacing, record, door, .. } = self.load;
        let door = door.another();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = match pacing {
                Pacing::Open(schedule) => {
                    let Some(due) = schedule.due(number) else { return };
                    if self.started.elapsed() > schedule.lasts().saturating_add(GRACE) {
                        let at = self.started.elapsed();
                        record.add(
                            at,
                            at.saturating_sub(due),
                            &Outcome::Failed(work.things(number), NOT_SENT),
                        );
                        continue;
                    }
                    self.wait_until(due);
                    due
                }
                Pacing::Closed { operations, within } => {
                    let now = self.started.elapsed();
                    if number >= *operations || now >= *within {
                        return;
                    }
                    now
                }
            };
            if self.gone.load(Ordering::Relaxed) {
                return;
            }
            let done = work.act(&door, line, number);
            let at = self.started.elapsed();
            if matches!(done, Err(Refused::Silence(_))) {
                if self.silent.fetch_add(1, Ordering::Relaxed) + 1 >= SILENCE_MAX {
                    self.gone.store(true, Ordering::Relaxed);
                }
            } else {
                self.silent.store(0, Ordering::Relaxed);
            }
            let took = at.saturating_sub(due);
            let things = work.things(number);
            match done {
                Ok(()) => record.add(at, took, &Outcome::Done(things)),
                Err(Refused::Answer(why)) => record.add(at, took, &Outcome::Failed(things, &why)),
                Err(Refused::Silence(why)) => {
                    record.add(at, took, &Outcome::Failed(things, &format!("no answer: {why}")));
                }
            }
        }
    }

    fn wait_until(&self, due: Duration) {
        loop {
            let Some(left) = due.checked_sub(self.started.elapsed()).filter(|left| !left.is_zero()) else {
                return;
            };
            match left.checked_sub(AWAKE) {
                Some(asleep) if !asleep.is_zero() => thread::sleep(asleep),
                _ => thread::yield_now(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::record::IN_SECONDS_MAX;
    use super::{Outcome, Pacing, Schedule};

    #[test]
    fn a_plan_has_its_length_however_long_it_is() {
        let hours = Duration::from_hours;
        let open = |lasts| Pacing::Open(Schedule::steady(1.0, lasts, Duration::ZERO));
        let closed = |within| Pacing::Closed { operations: 1, within };
        for (pacing, at, stretch_seconds) in [
            (open(hours(24)), hours(24), 144.0),
            (open(hours(100)), hours(100), 600.0),
            (open(Duration::from_secs(9)), Duration::from_secs(9), 1.0),
            (open(IN_SECONDS_MAX), IN_SECONDS_MAX, 1.0),
            (closed(hours(100)), hours(100), 600.0),
            (closed(Duration::MAX), Duration::from_mins(2), 1.0),
        ] {
            let record = pacing.record("message");
            record.add(at, Duration::from_millis(1), &Outcome::Done(1));
            let part = record.part(None, Duration::ZERO);
            assert!(part.intervals.len() <= 601, "{pacing:?}: {}", part.intervals.len());
            let second = part.intervals[1].at;
            assert!((second - stretch_seconds).abs() < 1e-6, "{pacing:?}: {second}");
        }
        assert_eq!(
            open(hours(1)).record("message").part(None, Duration::ZERO).planned_seconds,
            Some(3_600.0)
        );
    }
}
