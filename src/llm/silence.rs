//! What the silence of a provider says about it: nothing while it speaks to others, or when it always takes as long.

use std::time::Duration;

use tokio::time::Instant;

/// Silence that counts as a failure of the provider. What had less time to answer says nothing about it: the turn may have
/// had little left.
const SILENCE_MIN: Duration = Duration::from_secs(5);
/// How long it is remembered that a first word took long: a provider that is gone since must not be thought slow for ever.
const SLOWEST_KEPT: Duration = Duration::from_mins(10);

/// How one provider has spoken and kept silent so far. Time comes from the caller.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// When it was last heard, whoever had asked.
    heard: Option<Instant>,
    /// When the last silence ended that counted.
    counted: Option<Instant>,
    /// When an answer was given whose first word took longest, and how long.
    slowest: Option<(Instant, Duration)>,
}

impl Silence {
    /// The provider says something.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = Some(now);
    }

    /// The provider has answered, and its first word took so long.
    pub(super) fn answered(&mut self, now: Instant, first_word: Duration) {
        self.heard = Some(now);
        if first_word >= self.slowest(now) {
            self.slowest = Some((now, first_word));
        }
    }

    /// Whether a request that was made at `began`, and is given up now without a word, is a failure of the provider. Of
    /// requests that wait together it is one: they may wait for each other.
    pub(super) fn counts(&mut self, began: Instant, now: Instant) -> bool {
        let took = now.duration_since(began);
        let is_long = took >= SILENCE_MIN && took > self.slowest(now);
        let since = |moment: Option<Instant>| moment.is_some_and(|moment| moment > began);
        let counts = is_long && !since(self.heard) && !since(self.counted);
        if counts {
            self.counted = Some(now);
        }
        counts
    }

    /// The longest time to a first word of late.
    fn slowest(&self, now: Instant) -> Duration {
        let of_late = self.slowest.filter(|(at, _)| now.duration_since(*at) < SLOWEST_KEPT);
        of_late.map_or(Duration::ZERO, |(_, took)| took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn of_requests_that_wait_together_one_counts_and_short_ones_do_not() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        let at = |count| start + seconds(count);
        assert!(!silence.counts(start, at(4)), "that is too short to say anything");
        assert!(silence.counts(start, at(30)));
        assert!(!silence.counts(at(1), at(31)) && !silence.counts(at(29), at(59)));
        assert!(silence.counts(at(30), at(60)), "this one began behind it");
    }

    #[test]
    fn nobody_is_silent_who_speaks_to_another() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        let at = |count| start + seconds(count);
        silence.heard(at(20));
        assert!(!silence.counts(start, at(30)));
        assert!(silence.counts(at(21), at(51)));
    }

    #[test]
    fn a_silence_counts_when_it_is_longer_than_any_of_late_that_ended_well() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        let at = |count| start + seconds(count);
        silence.answered(at(8), seconds(8));
        silence.answered(at(10), seconds(2));
        assert!(!silence.counts(at(10), at(16)) && !silence.counts(at(20), at(28)));
        assert!(silence.counts(at(30), at(39)));
        assert!(silence.counts(at(602), at(608)), "it was slow ten minutes ago");
    }
}
