//! Judgements by content: the same text is judged once.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::parse::{Judgement, Surroundings, judge};
use crate::telemetry;

/// A text's hash and what the text turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// SHA-256 of the text, lower-case hex.
    pub sha256: String,
    /// What it turned out to be.
    pub judgement: Judgement,
}

/// Judges files, and remembers the last judgements.
#[derive(Debug)]
pub struct Validator {
    around: Surroundings,
    entries_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_hash: HashMap<[u8; 32], (u64, Arc<Checked>)>,
    by_use: BTreeMap<u64, [u8; 32]>,
    moment: u64,
    uses: u64,
    hits: u64,
}

impl Validator {
    /// Remembers up to `entries_max` judgements; 0: none.
    pub fn new(around: Surroundings, entries_max: usize) -> Self {
        Self { around, entries_max, kept: Mutex::default() }
    }

    /// What `bytes` turn out to be.
    pub fn check(&self, bytes: &[u8]) -> Arc<Checked> {
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        if let Some(checked) = self.lookup(&hash) {
            return checked;
        }
        // Two threads may judge one text at a time; both come to the same.
        let checked = Arc::new(Checked { sha256: hex(&hash), judgement: judge(bytes, &self.around) });
        self.keep(hash, &checked);
        checked
    }

    /// Hits and questions since the start.
    pub fn counts(&self) -> (u64, u64) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.hits, kept.uses)
    }

    fn lookup(&self, hash: &[u8; 32]) -> Option<Arc<Checked>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        kept.moment += 1;
        let now = kept.moment;
        let found =
            kept.by_hash.get_mut(hash).map(|(used, checked)| (std::mem::replace(used, now), checked.clone()));
        if let Some((used, _)) = &found {
            kept.hits += 1;
            kept.by_use.remove(used);
            kept.by_use.insert(now, *hash);
        }
        telemetry::agent_validations_counted(kept.by_hash.len(), kept.hits, kept.uses);
        found.map(|(_, checked)| checked)
    }

    fn keep(&self, hash: [u8; 32], checked: &Arc<Checked>) {
        if self.entries_max == 0 {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // A moment of its own, so that two threads that judged different texts do not share one.
        kept.moment += 1;
        let now = kept.moment;
        if let Some((used, _)) = kept.by_hash.insert(hash, (now, checked.clone())) {
            kept.by_use.remove(&used);
        }
        kept.by_use.insert(now, hash);
        while kept.by_hash.len() > self.entries_max {
            let Some((_, oldest)) = kept.by_use.pop_first() else { break };
            kept.by_hash.remove(&oldest);
        }
    }
}

/// SHA-256 of `bytes` in lower-case hex.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes).into())
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(version: u32) -> Vec<u8> {
        format!("---\nname: Ada\nversion: 1.0.{version}\ncapabilities: [a]\n---\nHi\n").into_bytes()
    }

    /// After these texts, so many were found in a cache of `entries_max`.
    #[track_caller]
    fn check(entries_max: usize, versions: &[u32], hits: u64) {
        let validator = Validator::new(Surroundings::default(), entries_max);
        for version in versions {
            let checked = validator.check(&text(*version));
            let found = checked.judgement.definition.as_ref().map(|definition| definition.version.clone());
            assert_eq!(found, Some(format!("1.0.{version}")));
        }
        assert_eq!(validator.counts(), (hits, versions.len() as u64));
    }

    #[test]
    fn the_longest_unused_is_forgotten() {
        check(2, &[1, 1, 1], 2);
        check(2, &[1, 2, 1, 3, 1, 2], 2);
        check(0, &[1, 1, 1], 0);
        check(1, &[1, 2, 1, 2, 2], 1);
    }

    #[test]
    fn the_hash_is_that_of_the_text() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256_hex(b""), empty);
    }
}
