//! When a changed file is read: at once when it is known to be whole, else when it has been quiet; never too often.

use std::collections::BTreeMap;
use std::time::Duration;

/// How long a file must be left alone before it is read, when nothing says that it is whole.
pub(super) const QUIET: Duration = Duration::from_millis(25);
/// How long a file that is never left alone is waited for.
pub(super) const QUIET_MAX: Duration = Duration::from_millis(500);
/// Time between two readings of one file.
pub(super) const SPACING: Duration = Duration::from_millis(100);

/// What was seen of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// It is whole: renamed into place, or closed by its writer.
    Whole,
    /// It was written to, made or taken away, and more may come.
    Touched,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    first: Duration,
    due: Duration,
}

/// Files that changed and were not read yet. Moments are times since some start.
#[derive(Debug, Default)]
pub(super) struct Settling {
    waiting: BTreeMap<String, Waiting>,
    taken: BTreeMap<String, Duration>,
}

impl Settling {
    /// Notes a sign of the file at `path`.
    pub(super) fn note(&mut self, path: &str, sign: Sign, now: Duration) {
        let first = self.waiting.get(path).map_or(now, |waiting| waiting.first);
        let ready = match sign {
            Sign::Whole => now,
            Sign::Touched => (now + QUIET).min(first + QUIET_MAX),
        };
        let spaced = self.taken.get(path).map_or(Duration::ZERO, |taken| *taken + SPACING);
        self.waiting.insert(path.to_owned(), Waiting { first, due: ready.max(spaced) });
    }

    /// The files to be read now, with the moment of each one's first sign.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<(String, Duration)> {
        self.taken.retain(|_, taken| *taken + SPACING > now);
        let due: Vec<(String, Duration)> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.due <= now)
            .map(|(path, waiting)| (path.clone(), waiting.first))
            .collect();
        for (path, _) in &due {
            self.waiting.remove(path);
            self.taken.insert(path.clone(), now);
        }
        due
    }

    /// When the next file is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.waiting.values().map(|waiting| waiting.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// After these signs of files, the readings as (file, moment), when every due moment is kept.
    fn run(signs: &[(&str, Sign, u64)]) -> Vec<(String, u64)> {
        let mut settling = Settling::default();
        let mut read = Vec::new();
        let mut take = |settling: &mut Settling, until: Duration| {
            while let Some(due) = settling.next_due().filter(|due| *due <= until) {
                read.extend(
                    settling.take_due(due).into_iter().map(|(path, _)| (path, due.as_millis() as u64)),
                );
            }
        };
        for (path, sign, at) in signs {
            take(&mut settling, ms(*at).saturating_sub(ms(1)));
            settling.note(path, *sign, ms(*at));
        }
        take(&mut settling, ms(1_000_000));
        read
    }

    #[track_caller]
    fn check(signs: &[(&str, Sign, u64)], then: &[(&str, u64)]) {
        let read = run(signs);
        let read: Vec<_> = read.iter().map(|(path, at)| (path.as_str(), *at)).collect();
        assert_eq!(read, then, "{signs:?}");
    }

    #[test]
    fn a_whole_file_is_read_at_once_and_a_half_one_when_it_is_quiet() {
        use Sign::{Touched, Whole};
        check(&[("a", Whole, 5)], &[("a", 5)]);
        check(&[("a", Touched, 5)], &[("a", 30)]);
        check(&[("a", Touched, 5), ("a", Touched, 20), ("a", Whole, 22)], &[("a", 22)]);
        check(&[("a", Touched, 5), ("a", Touched, 20), ("b", Whole, 21)], &[("b", 21), ("a", 45)]);
    }

    #[test]
    fn a_storm_is_read_now_and_then_and_the_last_change_always() {
        let storm: Vec<_> = (0..100).map(|index| ("a", Sign::Whole, index * 10)).collect();
        let read = run(&storm);
        assert_eq!(read.len(), 11, "{read:?}");
        assert!(read.last().is_some_and(|(_, at)| *at >= 990), "{read:?}");
        let storm: Vec<_> = (0..100).map(|index| ("a", Sign::Touched, index * 10)).collect();
        let read = run(&storm);
        assert_eq!(read.first(), Some(&("a".to_owned(), 500)), "{read:?}");
        assert!(read.last().is_some_and(|(_, at)| *at > 990), "{read:?}");
    }

    #[test]
    fn a_storm_does_not_hold_up_other_files() {
        let mut signs: Vec<_> = (0..100).map(|index| ("a", Sign::Touched, index * 10)).collect();
        signs.insert(50, ("b", Sign::Whole, 500));
        assert!(run(&signs).contains(&("b".to_owned(), 500)));
    }
}
