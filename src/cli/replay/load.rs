//! Sending requests when they are due, whether the ones before are answered or not, and how long each took from then.
//!
//! An open loop: a server that falls behind is not spared what was to come meanwhile, and the wait for it is part of the
//! latency (G. Tene, "How NOT to Measure Latency": coordinated omission). Only what must be in order waits for its turn,
//! and only so many requests are under way at a time; both waits count as well.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caxton_events::Timestamp;
use caxton_tools::replay::{Latencies, Latency, Watch};
use serde::Serialize;
use serde_json::Value;

use super::plan::{Key, Planned};
use super::wish::{Learned, Sent, Wish};
use crate::cli::output::counted;

/// Requests without an answer in a row after which the server is taken for gone.
const SILENCE_MAX: u64 = 50;

/// Who is sent requests.
pub(super) trait Server: Sync {
    /// Sends one; its status and the body, or why there is no answer.
    fn send(&self, sent: Sent) -> Result<(u16, Value), String>;

    /// The present.
    fn now(&self) -> Timestamp;
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Where it was sent.
    pub(super) target: String,
    /// Requests sent.
    pub(super) sent: u64,
    /// Those that did what they were to do.
    pub(super) accepted: u64,
    /// Those that were refused, by the server's code.
    pub(super) refused: BTreeMap<String, u64>,
    /// Those without an answer.
    pub(super) unanswered: u64,
    /// Why the last of those had none.
    pub(super) last_silence: Option<String>,
    /// Whether the server is to be taken for gone: the last of many requests had no answer, or none of few had one.
    #[serde(skip)]
    pub(super) is_gone: bool,
    /// Requests that were not sent: they are about something that is not there.
    pub(super) unknown: u64,
    /// Events that imply no request, or follow from others, by kind.
    pub(super) left_out: BTreeMap<&'static str, u64>,
    /// How long it took, in seconds.
    pub(super) seconds: f64,
    /// Requests a second.
    pub(super) requests_per_second: f64,
    /// From the moment a request was due to its answer.
    pub(super) latency: Option<Latency>,
    /// From the moment it was sent to its answer.
    pub(super) service: Option<Latency>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, sent, accepted, seconds, requests_per_second, .. } = self;
        write!(
            f,
            "{} to {target} in {seconds:.3} s: {requests_per_second:.1} a second, {accepted} accepted",
            counted(*sent as usize, "request")
        )?;
        for (code, count) in &self.refused {
            write!(f, "\n{count:>12}  refused: {code}")?;
        }
        if let Some(silence) = &self.last_silence {
            write!(f, "\n{:>12}  without an answer, the last: {silence}", self.unanswered)?;
        }
        if self.unknown > 0 {
            write!(f, "\n{:>12}  not sent: about what was made before the range, or refused", self.unknown)?;
        }
        for latency in [&self.latency, &self.service].into_iter().flatten() {
            write!(f, "\n{latency}")?;
        }
        self.left_out.iter().try_for_each(|(kind, count)| write!(f, "\n{count:>12}  left out: {kind}"))
    }
}

/// A request that is under way or waits for its turn.
struct Due {
    number: u64,
    wish: Wish,
    /// When it is to be sent.
    at: Duration,
    orders: Vec<Key>,
}

/// What the threads share.
#[derive(Default)]
struct Shared {
    /// Those whose turn it is.
    ready: VecDeque<Due>,
    /// Those that wait for others, and for how many.
    waiting: HashMap<u64, (Due, usize)>,
    /// Who waits for a request.
    behind: HashMap<u64, Vec<u64>>,
    /// The last request with a key, as long as it is not answered.
    last: HashMap<Key, u64>,
    under_way: HashSet<u64>,
    next: u64,
    ended: bool,
    known: Learned,
    sent: u64,
    accepted: u64,
    unknown: u64,
    unanswered: u64,
    silent: u64,
    last_silence: Option<String>,
    refused: BTreeMap<String, u64>,
}

/// A load under way.
pub(super) struct Load<'a> {
    server: &'a dyn Server,
    watch: &'a dyn Watch,
    in_flight_max: usize,
    shared: Mutex<Shared>,
    /// Something is ready to be sent, or nothing will be any more.
    ready: Condvar,
    /// Something was answered.
    room: Condvar,
    latencies: Mutex<(Latencies, Latencies)>,
}

impl<'a> Load<'a> {
    pub(super) fn new(server: &'a dyn Server, watch: &'a dyn Watch, in_flight_max: usize) -> Self {
        Self {
            server,
            watch,
            in_flight_max: in_flight_max.max(1),
            shared: Mutex::default(),
            ready: Condvar::new(),
            room: Condvar::new(),
            latencies: Mutex::new((
                Latencies::new("from when it was due"),
                Latencies::new("from when it was sent"),
            )),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the request is due and there is room, and puts it in its order. Whether the server still answers.
    pub(super) fn offer(&self, planned: Planned, due: Duration) -> bool {
        if self.watch.elapsed() < due {
            self.watch.wait_until(due);
        }
        let shared = self.lock();
        let full =
            |shared: &mut Shared| shared.under_way.len() >= self.in_flight_max && shared.silent < SILENCE_MAX;
        let mut shared = self.room.wait_while(shared, full).unwrap_or_else(PoisonError::into_inner);
        if shared.silent >= SILENCE_MAX {
            return false;
        }
        let Planned { wish, orders, needs, .. } = planned;
        let number = shared.next;
        shared.next += 1;
        let before: HashSet<u64> =
            orders.iter().chain(&needs).filter_map(|key| shared.last.get(key).copied()).collect();
        for key in &orders {
            shared.last.insert(key.clone(), number);
        }
        for earlier in &before {
            shared.behind.entry(*earlier).or_default().push(number);
        }
        shared.under_way.insert(number);
        let request = Due { number, wish, at: due, orders };
        if before.is_empty() {
            shared.ready.push_back(request);
            self.ready.notify_one();
        } else {
            shared.waiting.insert(number, (request, before.len()));
        }
        true
    }

    /// No more is offered: the threads end when everything is answered.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.ready.notify_all();
    }

    /// Sends what is ready until the end; for a thread of its own.
    pub(super) fn run(&self) {
        loop {
            let idle = |shared: &mut Shared| {
                shared.ready.is_empty() && !(shared.ended && shared.under_way.is_empty())
            };
            let waited = self.ready.wait_while(self.lock(), idle);
            let mut shared = waited.unwrap_or_else(PoisonError::into_inner);
            let Some(request) = shared.ready.pop_front() else { return };
            let sent = request.wish.request(&shared.known, self.server.now());
            drop(shared);
            let answer = sent.map(|sent| self.timed(sent, request.at));
            self.finish(request, answer);
        }
    }

    fn timed(&self, sent: Sent, due: Duration) -> Result<(u16, Value), String> {
        let before = self.watch.elapsed();
        let answer = self.server.send(sent);
        let now = self.watch.elapsed();
        if answer.is_ok() {
            let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
            latencies.0.add(now.saturating_sub(due));
            latencies.1.add(now.saturating_sub(before));
        }
        answer
    }

    /// Notes the answer, and lets go on who waited for it.
    fn finish(&self, request: Due, answer: Option<Result<(u16, Value), String>>) {
        let mut guard = self.lock();
        let shared = &mut *guard;
        match answer {
            None => shared.unknown += 1,
            Some(Err(silence)) => {
                shared.sent += 1;
                shared.unanswered += 1;
                shared.silent += 1;
                shared.last_silence = Some(silence);
            }
            Some(Ok((status, body))) => {
                shared.sent += 1;
                shared.silent = 0;
                if (200..300).contains(&status) {
                    shared.accepted += 1;
                    request.wish.learn(&body, &mut shared.known);
                } else {
                    let code = body.get("code").and_then(Value::as_str).map(str::to_owned);
                    *shared.refused.entry(code.unwrap_or_else(|| status.to_string())).or_default() += 1;
                }
            }
        }
        shared.under_way.remove(&request.number);
        for key in request.orders {
            if shared.last.get(&key) == Some(&request.number) {
                shared.last.remove(&key);
            }
        }
        for number in shared.behind.remove(&request.number).unwrap_or_default() {
            let still = shared.waiting.get_mut(&number).map(|(_, before)| {
                *before -= 1;
                *before
            });
            if still == Some(0)
                && let Some((request, _)) = shared.waiting.remove(&number)
            {
                shared.ready.push_back(request);
                self.ready.notify_one();
            }
        }
        if shared.ended && shared.under_way.is_empty() {
            self.ready.notify_all();
        }
        drop(guard);
        self.room.notify_one();
    }

    /// What came of it, after `took`.
    pub(super) fn report(
        self,
        target: String,
        left_out: BTreeMap<&'static str, u64>,
        took: Duration,
    ) -> Report {
        let shared = self.shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (latency, service) = self.latencies.into_inner().unwrap_or_else(PoisonError::into_inner);
        let seconds = took.as_secs_f64();
        Report {
            target,
            sent: shared.sent,
            accepted: shared.accepted,
            refused: shared.refused,
            unanswered: shared.unanswered,
            last_silence: shared.last_silence,
            is_gone: shared.silent >= SILENCE_MAX || (shared.sent > 0 && shared.unanswered == shared.sent),
            unknown: shared.unknown,
            left_out,
            seconds,
            requests_per_second: if seconds > 0.0 { shared.sent as f64 / seconds } else { 0.0 },
            latency: latency.percentiles(),
            service: service.percentiles(),
        }
    }
}
