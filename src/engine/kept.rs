//! Answers about the memory that are kept: the same question is not answered anew while memory is as it was.

use std::collections::{BTreeMap, HashMap};

/// A question, by its hash: it may be private.
pub type Key = [u8; 32];

/// Under which circumstances a question was asked: read before it is answered, compared when its answer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// How often memory had changed.
    pub changes: u64,
    /// How often something had been erased.
    pub erasures: u64,
}

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Answers.
    pub answers: usize,
    /// All of them together, in bytes.
    pub bytes: usize,
}

/// Answers that are not kept any more. They may be many, to be dropped where nobody waits for that.
pub type Gone<V> = Vec<V>;

/// Answers that are kept, each from one moment until another. They are all of one state of memory: those of an earlier one will
/// not be right again.
#[derive(Debug)]
pub struct Kept<V, T> {
    room: Room,
    changes: u64,
    erasures: u64,
    answers: HashMap<Key, Answer<V, T>>,
    /// By the moment from which they do not hold, and the order in which they came.
    by_end: BTreeMap<(T, u64), Key>,
    came: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Answer<V, T> {
    value: V,
    bytes: usize,
    start: T,
    end: (T, u64),
}

impl<V: Clone, T: Copy + Ord> Kept<V, T> {
    /// None so far.
    pub fn new(room: Room) -> Self {
        let (answers, by_end) = (HashMap::new(), BTreeMap::new());
        Self { room, changes: 0, erasures: 0, answers, by_end, came: 0, bytes: 0 }
    }

    /// Erasures so far.
    pub const fn erasures(&self) -> u64 {
        self.erasures
    }

    /// Bytes that all answers take.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything, and what is being answered: something of it was erased.
    pub fn forget(&mut self) -> Gone<V> {
        self.erasures += 1;
        self.clear()
    }

    fn clear(&mut self) -> Gone<V> {
        self.by_end = BTreeMap::new();
        self.bytes = 0;
        std::mem::take(&mut self.answers).into_values().map(|answer| answer.value).collect()
    }

    /// The answer, if it is one of this state of memory and holds at `now`.
    pub fn get(&self, key: &Key, changes: u64, now: T) -> Option<V> {
        let holds = |answer: &&Answer<V, T>| answer.start <= now && now < answer.end.0;
        let answer = self.answers.get(key).filter(|_| self.changes == changes).filter(holds)?;
        Some(answer.value.clone())
    }

    /// Keeps an answer of so many bytes from now to `end`, unless something was erased meanwhile or memory is known to have
    /// changed. Where there is no room, those go that end first, and among them the oldest. What held of an earlier state of memory is
    /// given back.
    pub fn put(&mut self, key: Key, asked: Asked, (value, bytes): (V, usize), (now, end): (T, T)) -> Gone<V> {
        if self.erasures != asked.erasures || asked.changes < self.changes {
            return Gone::new();
        }
        let mut gone = Gone::new();
        if asked.changes > self.changes {
            self.changes = asked.changes;
            gone = self.clear();
        }
        let bytes = bytes + size_of::<Answer<V, T>>() + AROUND;
        if bytes > self.room.bytes {
            return gone;
        }
        self.remove(&key);
        while let Some((first, oldest)) = self.by_end.first_key_value().map(|(end, key)| (end.0, *key)) {
            let full = self.answers.len() >= self.room.answers || self.bytes + bytes > self.room.bytes;
            if first > now && !full {
                break;
            }
            self.remove(&oldest);
        }
        self.came += 1;
        let end = (end, self.came);
        self.bytes += bytes;
        self.by_end.insert(end, key);
        self.answers.insert(key, Answer { value, bytes, start: now, end });
        gone
    }

    fn remove(&mut self, key: &Key) {
        if let Some(answer) = self.answers.remove(key) {
            self.by_end.remove(&answer.end);
            self.bytes -= answer.bytes;
        }
    }
}

/// Bytes that keeping an answer takes besides, roughly: its places in both maps.
const AROUND: usize = 128;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const FRESH: Asked = Asked { changes: 0, erasures: 0 };
    const ROOM: Room = Room { answers: 10_000, bytes: 16 << 20 };

    fn kept() -> Kept<(), Instant> {
        Kept::new(ROOM)
    }

    /// An answer of so many bytes.
    fn of(bytes: usize) -> ((), usize) {
        ((), bytes)
    }

    /// A time from now to so many seconds later.
    fn seconds(now: Instant, later: u64) -> (Instant, Instant) {
        (now, now + Duration::from_secs(later))
    }

    #[test]
    fn answers_have_a_bound_in_bytes_and_the_oldest_go_first() {
        let (mut answers, now) = (kept(), Instant::now());
        for at in 0..40 {
            answers.put([at; 32], FRESH, of(1 << 20), seconds(now, 60));
        }
        assert_eq!(answers.answers.len(), 15);
        assert!(answers.bytes <= ROOM.bytes);
        assert!(answers.get(&[24; 32], 0, now).is_none() && answers.get(&[25; 32], 0, now).is_some());
        answers.put([99; 32], FRESH, of(ROOM.bytes), seconds(now, 60));
        assert_eq!(answers.answers.len(), 15, "what has no room at all pushes nothing out");
        for at in 25..40 {
            answers.remove(&[at; 32]);
        }
        assert_eq!((answers.bytes, answers.by_end.len()), (0, 0));
    }

    #[test]
    fn what_does_not_hold_at_the_time_or_is_of_another_state_of_memory_is_not_given() {
        let (mut answers, now) = (kept(), Instant::now());
        answers.put([1; 32], FRESH, of(1), seconds(now, 1));
        assert!(answers.get(&[1; 32], 0, now).is_some());
        assert!(answers.get(&[1; 32], 1, now).is_none(), "memory has changed");
        let before = now.checked_sub(Duration::from_secs(1)).unwrap();
        assert!(answers.get(&[1; 32], 0, before).is_none(), "the clock was set back");
        let later = now + Duration::from_secs(1);
        assert!(answers.get(&[1; 32], 0, later).is_none());
        answers.put([2; 32], FRESH, of(1), seconds(later, 1));
        assert_eq!(answers.answers.len(), 1, "the first is gone");
        answers.put([3; 32], Asked { changes: 7, ..FRESH }, of(1), seconds(later, 1));
        assert_eq!(answers.answers.len(), 1, "so is the second");
        answers.put([4; 32], FRESH, of(1), seconds(later, 1));
        assert!(answers.get(&[4; 32], 0, later).is_none(), "it was searched for before memory changed");
    }

    #[test]
    fn what_was_searched_for_while_something_was_erased_is_not_kept() {
        let (mut answers, now) = (kept(), Instant::now());
        let asked = Asked { changes: 0, erasures: answers.erasures() };
        answers.forget();
        answers.put([1; 32], asked, of(1), seconds(now, 1));
        assert!(answers.get(&[1; 32], 0, now).is_none());
        let asked = Asked { changes: 0, erasures: answers.erasures() };
        answers.put([1; 32], asked, of(1), seconds(now, 1));
        assert!(answers.get(&[1; 32], 0, now).is_some());
    }
}
