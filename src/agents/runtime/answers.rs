//! What memory answered lately: the same question is not searched for again while memory is as it was.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use crate::agents::ports::MemoryAsk;
use crate::llm::Fact;

/// Answers that are kept.
const KEPT_MAX: usize = 10_000;
/// All of them together, in bytes.
const BYTES_MAX: usize = 16 << 20;

/// A question, by its hash: it holds the text of a message.
pub(super) type Key = [u8; 32];

/// The key of a question.
pub(super) fn key(ask: &MemoryAsk) -> Key {
    *blake3::hash(format!("{ask:?}").as_bytes()).as_bytes()
}

/// Under which circumstances a question was asked: read before it is, compared when its answer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// How often memory had changed.
    pub(super) changes: u64,
    /// How often something had been erased.
    pub(super) erasures: u64,
}

/// Answers that are kept. They are all of one state of memory: those of an earlier one will not be right again.
#[derive(Debug, Default)]
pub(super) struct Answers {
    changes: u64,
    erasures: u64,
    kept: HashMap<Key, Answer>,
    /// By the moment from which they are too old, and the order in which they came.
    by_end: BTreeMap<(Instant, u64), Key>,
    came: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Answer {
    facts: Vec<Fact>,
    bytes: usize,
    end: (Instant, u64),
}

impl Answers {
    /// Erasures so far.
    pub(super) const fn erasures(&self) -> u64 {
        self.erasures
    }

    /// Forgets everything, and what is being searched for: something of it was erased.
    pub(super) fn forget(&mut self) {
        *self = Self { changes: self.changes, erasures: self.erasures + 1, ..Self::default() };
    }

    /// The answer, if it is one of this state of memory and not too old.
    pub(super) fn get(&self, key: &Key, changes: u64, now: Instant) -> Option<Vec<Fact>> {
        let answer = self.kept.get(key).filter(|answer| self.changes == changes && answer.end.0 > now)?;
        Some(answer.facts.clone())
    }

    /// Keeps an answer up to `end`, unless something was erased meanwhile or memory is known to have changed.
    pub(super) fn put(&mut self, key: Key, asked: Asked, facts: &[Fact], (now, end): (Instant, Instant)) {
        if self.erasures != asked.erasures || asked.changes < self.changes {
            return;
        }
        if asked.changes > self.changes {
            *self = Self { changes: asked.changes, erasures: self.erasures, ..Self::default() };
        }
        let bytes = size(facts);
        if bytes > BYTES_MAX {
            return;
        }
        self.remove(&key);
        while let Some((first, oldest)) = self.by_end.first_key_value().map(|(end, key)| (end.0, *key)) {
            let full = self.kept.len() >= KEPT_MAX || self.bytes + bytes > BYTES_MAX;
            if first > now && !full {
                break;
            }
            self.remove(&oldest);
        }
        self.came += 1;
        let end = (end, self.came);
        self.bytes += bytes;
        self.by_end.insert(end, key);
        self.kept.insert(key, Answer { facts: facts.to_vec(), bytes, end });
    }

    fn remove(&mut self, key: &Key) {
        if let Some(answer) = self.kept.remove(key) {
            self.by_end.remove(&answer.end);
            self.bytes -= answer.bytes;
        }
    }
}

/// Bytes that an answer takes, with what keeping it takes.
fn size(facts: &[Fact]) -> usize {
    let texts: usize = facts.iter().map(|fact| fact.source.len() + fact.entity.len() + fact.text.len()).sum();
    texts + size_of_val(facts) + size_of::<Answer>() + 128
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const FRESH: Asked = Asked { changes: 0, erasures: 0 };

    fn fact(bytes: usize) -> Vec<Fact> {
        let (source, entity) = (String::new(), String::new());
        vec![Fact { source, entity, text: "x".repeat(bytes), score: 1.0, similarity: None }]
    }

    /// A time from now to so many seconds later.
    fn seconds(now: Instant, later: u64) -> (Instant, Instant) {
        (now, now + Duration::from_secs(later))
    }

    #[test]
    fn answers_have_a_bound_in_bytes_and_the_oldest_go_first() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        for at in 0..40 {
            answers.put([at; 32], FRESH, &fact(1 << 20), seconds(now, 60));
        }
        assert_eq!(answers.kept.len(), 15);
        assert!(answers.bytes <= BYTES_MAX);
        assert!(answers.get(&[24; 32], 0, now).is_none() && answers.get(&[25; 32], 0, now).is_some());
        answers.put([99; 32], FRESH, &fact(BYTES_MAX), seconds(now, 60));
        assert_eq!(answers.kept.len(), 15, "what has no room at all pushes nothing out");
        for at in 25..40 {
            answers.remove(&[at; 32]);
        }
        assert_eq!((answers.bytes, answers.by_end.len()), (0, 0));
    }

    #[test]
    fn what_is_too_old_or_of_another_state_of_memory_is_not_kept() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        answers.put([1; 32], FRESH, &fact(1), seconds(now, 1));
        assert!(answers.get(&[1; 32], 0, now).is_some());
        assert!(answers.get(&[1; 32], 1, now).is_none(), "memory has changed");
        let later = now + Duration::from_secs(1);
        assert!(answers.get(&[1; 32], 0, later).is_none());
        answers.put([2; 32], FRESH, &fact(1), seconds(later, 1));
        assert_eq!(answers.kept.len(), 1, "the first is gone");
        answers.put([3; 32], Asked { changes: 7, ..FRESH }, &fact(1), seconds(later, 1));
        assert_eq!(answers.kept.len(), 1, "so is the second");
        answers.put([4; 32], FRESH, &fact(1), seconds(later, 1));
        assert!(answers.get(&[4; 32], 0, later).is_none(), "it was searched for before memory changed");
    }

    #[test]
    fn what_was_searched_for_while_something_was_erased_is_not_kept() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        let asked = Asked { changes: 0, erasures: answers.erasures() };
        answers.forget();
        answers.put([1; 32], asked, &fact(1), seconds(now, 1));
        assert!(answers.get(&[1; 32], 0, now).is_none());
        let asked = Asked { changes: 0, erasures: answers.erasures() };
        answers.put([1; 32], asked, &fact(1), seconds(now, 1));
        assert!(answers.get(&[1; 32], 0, now).is_some());
    }
}
