//! A provider that is asked again when that can help, left alone when it cannot, and never by too many at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::breaker::{Breaker, Outcome};
use super::cache::fingerprint;
use super::clock::{Chance, Clock};
use super::silence::Silence;
use super::{Answer, Ask, LanguageModel, ModelError, ModelErrorKind, Pieces, by};
use crate::telemetry;

pub use super::breaker::BreakerOptions;

/// What a caller is told to wait when the queue before a provider is full.
const QUEUE_FULL_WAIT: Duration = Duration::from_secs(1);

/// How hard a provider is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resilience {
    /// Times that a request is made again.
    pub retries: u32,
    /// Wait before the first repetition; each later one waits twice as long, with half of it left to chance.
    pub retry_delay: Duration,
    /// Longest wait. A provider that asks for a longer one is not waited for.
    pub retry_delay_max: Duration,
    /// Requests under way at once.
    pub concurrent_max: usize,
    /// Requests that may wait for one of those to end; then they are turned away.
    pub waiting_max: usize,
    /// When the provider is left alone.
    pub breaker: BreakerOptions,
}

/// A provider with retries, a bounded queue and a circuit breaker.
#[derive(Debug)]
pub struct Resilient {
    inner: Arc<dyn LanguageModel>,
    options: Resilience,
    clock: Arc<dyn Clock>,
    chance: Arc<dyn Chance>,
    breaker: Mutex<Breaker>,
    /// The request that failed last: it may be the one to blame.
    suspect: Mutex<Option<[u8; 32]>>,
    silence: Mutex<Silence>,
    places: Semaphore,
    waiting: AtomicUsize,
}

impl Resilient {
    /// `inner`, tried as `options` say.
    pub fn new(
        inner: Arc<dyn LanguageModel>,
        options: Resilience,
        clock: Arc<dyn Clock>,
        chance: Arc<dyn Chance>,
    ) -> Self {
        let places = Semaphore::new(options.concurrent_max.clamp(1, Semaphore::MAX_PERMITS));
        let breaker = Mutex::new(Breaker::new(options.breaker));
        let (suspect, silence, waiting) = (Mutex::default(), Mutex::default(), AtomicUsize::new(0));
        Self { inner, options, clock, chance, breaker, suspect, silence, places, waiting }
    }

    fn error(&self, kind: ModelErrorKind, message: impl Into<String>) -> ModelError {
        ModelError::new(self.provider(), kind, message)
    }

    /// An error of this side: the provider was not asked, and asking again at once cannot help.
    fn turned_away(&self, reason: &'static str, wait: Duration, message: String) -> Failure {
        telemetry::model_turned_away(self.provider(), reason);
        let kind = ModelErrorKind::RateLimited { retry_after: Some(wait) };
        Failure::TurnedAway(ModelError { asked: false, ..self.error(kind, message) })
    }

    /// An error of a request that is dropped, and so does not count itself.
    fn late(&self, took: Duration) -> ModelError {
        let kind = ModelErrorKind::Timeout;
        telemetry::model_failed(self.provider(), kind.as_str(), took);
        self.error(kind, format!("no answer within {took:.1?}"))
    }

    /// A place among those who ask at once.
    async fn enter(&self, ask: &Ask) -> Result<SemaphorePermit<'_>, Failure> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        let _waiting = Waiting::new(&self.waiting, self.options.waiting_max).ok_or_else(|| {
            let message = format!("{} requests wait already (`max_waiting`)", self.options.waiting_max);
            self.turned_away("queue_full", QUEUE_FULL_WAIT, message)
        })?;
        let closed = |_| self.error(ModelErrorKind::Unreachable, "the provider was shut down");
        let place = by(ask.turn_by(), self.places.acquire()).await.ok_or_else(|| {
            let message = format!("all {} places were taken (`max_concurrent`)", self.options.concurrent_max);
            self.turned_away("no_place", QUEUE_FULL_WAIT, message)
        })?;
        place.map_err(|error| Failure::TurnedAway(closed(error)))
    }

    /// One attempt: a place, the breaker, the request.
    async fn attempt(&self, ask: &Ask, pieces: Pieces<'_>) -> Result<Answer, Failure> {
        let _place = self.enter(ask).await?;
        let mut ticket = Ticket::take(self, ask)?;
        let (began, first_word) = (Instant::now(), OnceLock::new());
        let hear = |piece: &str| {
            let now = Instant::now();
            first_word.get_or_init(|| now);
            self.silence().heard(now);
            if !piece.is_empty() {
                pieces(piece);
            }
        };
        let mut asking = self.inner.ask(ask, &hear);
        let mut in_time = by(ask.patience(), &mut asking).await;
        // Who speaks is not given up for another one.
        if in_time.is_none() && first_word.get().is_some() {
            in_time = by(ask.until, &mut asking).await;
        }
        let ended = Instant::now();
        let took = ended.duration_since(began);
        ticket.outcome = match &in_time {
            None => {
                let counts = first_word.get().is_none() && self.silence().counts(began, ended);
                if counts { Outcome::Failure } else { Outcome::Neither }
            }
            Some(Ok(_)) => {
                let first_word = first_word.get().map_or(took, |at| at.duration_since(began));
                self.silence().answered(ended, first_word);
                Outcome::Success
            }
            Some(Err(error)) => match error.kind {
                ModelErrorKind::Timeout | ModelErrorKind::Unreachable | ModelErrorKind::Failed => {
                    Outcome::Failure
                }
                // Whoever answers is there, however odd the answer.
                ModelErrorKind::Garbled | ModelErrorKind::RateLimited { .. } | ModelErrorKind::Refused => {
                    self.silence().heard(ended);
                    Outcome::Neither
                }
            },
        };
        if ticket.outcome == Outcome::Failure {
            *self.suspect() = Some(fingerprint(self.provider(), ask));
        }
        in_time.unwrap_or_else(|| Err(self.late(took))).map_err(Failure::Provider)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suspect(&self) -> MutexGuard<'_, Option<[u8; 32]>> {
        self.suspect.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn silence(&self) -> MutexGuard<'_, Silence> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was this very request that failed last.
    fn is_suspected(&self, ask: &Ask) -> bool {
        let suspect = *self.suspect();
        suspect.is_some_and(|suspect| suspect == fingerprint(self.provider(), ask))
    }

    /// How long to wait before repetition `number`, from 0; `None` when asking again cannot help.
    fn wait_before(&self, number: u32, error: &ModelError, ask: &Ask) -> Option<Duration> {
        if number >= self.options.retries || !error.kind.is_transient() {
            return None;
        }
        let longest = self.options.retry_delay_max;
        let full = self.options.retry_delay.saturating_mul(1 << number.min(20)).min(longest);
        let spread = full / 2 + (full / 2).mul_f64(self.chance.draw().clamp(0.0, 1.0));
        let asked_for = match error.kind {
            ModelErrorKind::RateLimited { retry_after } => retry_after.unwrap_or_default(),
            ModelErrorKind::Timeout
            | ModelErrorKind::Unreachable
            | ModelErrorKind::Failed
            | ModelErrorKind::Garbled
            | ModelErrorKind::Refused => Duration::ZERO,
        };
        let wait = asked_for.max(spread);
        // Later nobody would hear it, and a stand-in needs the time that is left.
        let in_time = ask.patience().is_none_or(|until| Instant::now() + wait < until);
        (asked_for <= longest && in_time).then_some(wait)
    }
}

impl LanguageModel for Resilient {
    fn provider(&self) -> &str {
        self.inner.provider()
    }

    fn ask<'a>(&'a self, ask: &'a Ask, pieces: Pieces<'a>) -> BoxFuture<'a, Result<Answer, ModelError>> {
        Box::pin(async move {
            let once = Once::new(pieces);
            let mut last: Option<ModelError> = None;
            for number in 0.. {
                let error = match self.attempt(ask, &|piece| once.hear(piece)).await {
                    Ok(answer) => return Ok(answer),
                    // What the provider said before tells more.
                    Err(Failure::TurnedAway(error)) => return Err(last.unwrap_or(error)),
                    Err(Failure::Provider(error)) => error,
                };
                let Some(wait) = self.wait_before(number, &error, ask) else { return Err(error) };
                telemetry::model_retried(self.provider());
                tracing::debug!(provider = self.provider(), %error, ?wait, "the model is asked again");
                once.attempt_broke();
                last = Some(error);
                self.clock.sleep(wait).await;
            }
            Err(self.error(ModelErrorKind::Failed, "the request was repeated too often"))
        })
    }
}

/// Why an attempt gave no answer.
enum Failure {
    /// The provider was asked.
    Provider(ModelError),
    /// It was not.
    TurnedAway(ModelError),
}

/// Lets the pieces of one attempt through: when an attempt breaks off after it was heard, later ones are silent.
pub(super) struct Once<'a> {
    pieces: Pieces<'a>,
    heard: AtomicBool,
    silent: AtomicBool,
}

impl<'a> Once<'a> {
    pub(super) fn new(pieces: Pieces<'a>) -> Self {
        Self { pieces, heard: AtomicBool::new(false), silent: AtomicBool::new(false) }
    }

    pub(super) fn hear(&self, piece: &str) {
        if !self.silent.load(Ordering::Relaxed) {
            self.heard.store(true, Ordering::Relaxed);
            (self.pieces)(piece);
        }
    }

    pub(super) fn attempt_broke(&self) {
        self.silent.fetch_or(self.heard.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// One who waits, counted while it exists.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize, max: usize) -> Option<Self> {
        let more = |now| (now < max).then_some(now + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok().then(|| Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that the breaker let through. However it ends, the breaker hears of it.
struct Ticket<'a> {
    owner: &'a Resilient,
    outcome: Outcome,
}

impl<'a> Ticket<'a> {
    fn take(owner: &'a Resilient, ask: &Ask) -> Result<Self, Failure> {
        let is_open = owner.breaker().is_open();
        let suspected = is_open && owner.is_suspected(ask);
        let admitted = owner.breaker().admit(owner.clock.now(), suspected);
        match admitted {
            Ok(()) => Ok(Self { owner, outcome: Outcome::Neither }),
            Err(wait) => {
                let seconds = wait.as_secs_f64().max(0.1);
                let message = format!(
                    "failed too often and is left alone (circuit open, tried again in {seconds:.1} s)"
                );
                Err(owner.turned_away("circuit_open", wait, message))
            }
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut breaker = self.owner.breaker();
        breaker.record(self.owner.clock.now(), self.outcome);
        telemetry::model_circuit(self.owner.provider(), breaker.is_open());
    }
}
