//! Vectors of recent queries, in memory: bounded in number and in age.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How large the cache may grow and how long it remembers.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheOptions {
    /// Vectors that are kept at most, at about 1.7 KB each; 0 turns the cache off. Default: 10,000.
    pub entries_max: usize,
    /// Age at which a vector is forgotten, or `None` for never. Default: 1 hour.
    pub ttl: Option<Duration>,
    /// Part of `entries_max` from which on old vectors are cleaned away, and to which a full cache is emptied.
    ///
    /// Default: 0.8. Bounds: 0 to 1; what lies outside counts as the bound.
    pub cleanup_threshold: f64,
    /// Empties a full cache to half of `entries_max`, where that is less than the threshold. Default: off.
    pub aggressive_cleanup: bool,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            entries_max: 10_000,
            ttl: Some(Duration::from_hours(1)),
            cleanup_threshold: 0.8,
            aggressive_cleanup: false,
        }
    }
}

/// What the cache did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct CacheStats {
    /// Vectors in it now.
    pub entries: usize,
    /// Vectors that it may hold.
    pub entries_max: usize,
    /// Questions that it answered.
    pub hits: u64,
    /// Questions that it could not answer.
    pub misses: u64,
    /// Vectors forgotten for their age.
    pub expired: u64,
    /// Vectors forgotten to make room, the least recently used first.
    pub evicted: u64,
}

/// A bounded cache from texts to vectors that forgets the least recently used first.
///
/// Time is what its caller says, on any clock that never goes back: this crate has none. Texts are held as 128 bits
/// of their BLAKE3.
pub struct QueryCache {
    options: CacheOptions,
    entries: HashMap<Key, usize>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Ends of the list that the slots form, in the order of their last use.
    newest: Option<usize>,
    oldest: Option<usize>,
    /// When each vector came, in that order; what was replaced or evicted since is skipped.
    arrivals: VecDeque<(Duration, Key)>,
    stats: CacheStats,
}

type Key = [u8; 16];

struct Slot {
    key: Key,
    vector: Arc<[f32]>,
    arrived: Duration,
    newer: Option<usize>,
    older: Option<usize>,
}

fn key_of(text: &str) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    key
}

impl QueryCache {
    /// An empty cache.
    pub fn new(options: CacheOptions) -> Self {
        Self {
            options,
            entries: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            newest: None,
            oldest: None,
            arrivals: VecDeque::new(),
            stats: CacheStats::default(),
        }
    }

    /// The vector of `text`, when it is known and not too old at `now`. Counts as a use of it.
    pub fn get(&mut self, text: &str, now: Duration) -> Option<Arc<[f32]>> {
        let mut found = self.entries.get(&key_of(text)).copied();
        if let Some(index) = found
            && self.is_expired(self.slots[index].arrived, now)
        {
            self.remove(index);
            self.stats.expired += 1;
            found = None;
        }
        let Some(index) = found else {
            self.stats.misses += 1;
            return None;
        };
        self.stats.hits += 1;
        self.unlink(index);
        self.link_newest(index);
        Some(Arc::clone(&self.slots[index].vector))
    }

    /// Remembers the vector of `text` from `now` on, and makes room for it where there is none.
    pub fn put(&mut self, text: &str, vector: Arc<[f32]>, now: Duration) {
        if self.options.entries_max == 0 {
            return;
        }
        let key = key_of(text);
        if let Some(index) = self.entries.get(&key).copied() {
            self.remove(index);
        }
        self.make_room(now);
        let slot = Slot { key, vector, arrived: now, newer: None, older: None };
        let index = if let Some(index) = self.free.pop() {
            self.slots[index] = slot;
            index
        } else {
            self.slots.push(slot);
            self.slots.len() - 1
        };
        self.entries.insert(key, index);
        self.arrivals.push_back((now, key));
        self.link_newest(index);
    }

    /// Forgets everything but the counts.
    pub fn clear(&mut self) {
        let stats = self.stats;
        *self = Self::new(self.options.clone());
        self.stats = stats;
    }

    /// What the cache did so far.
    pub fn stats(&self) -> CacheStats {
        CacheStats { entries: self.entries.len(), entries_max: self.options.entries_max, ..self.stats }
    }

    fn is_expired(&self, arrived: Duration, now: Duration) -> bool {
        self.options.ttl.is_some_and(|ttl| now.saturating_sub(arrived) >= ttl)
    }

    fn make_room(&mut self, now: Duration) {
        let entries_max = self.options.entries_max;
        let threshold = (entries_max as f64 * self.options.cleanup_threshold.clamp(0.0, 1.0)) as usize;
        if self.entries.len() >= threshold {
            self.remove_expired(now);
        }
        if self.entries.len() < entries_max {
            return;
        }
        let target = if self.options.aggressive_cleanup { threshold.min(entries_max / 2) } else { threshold };
        while self.entries.len() > target.min(entries_max - 1) {
            let Some(oldest) = self.oldest else { break };
            self.remove(oldest);
            self.stats.evicted += 1;
        }
    }

    fn remove_expired(&mut self, now: Duration) {
        while let Some((arrived, key)) = self.arrivals.front().copied() {
            let current =
                self.entries.get(&key).copied().filter(|index| self.slots[*index].arrived == arrived);
            if current.is_some() && !self.is_expired(arrived, now) {
                return;
            }
            // Taken away first: `remove` may tidy the arrivals, and then another one stands in front.
            self.arrivals.pop_front();
            if let Some(index) = current {
                self.remove(index);
                self.stats.expired += 1;
            }
        }
    }

    fn remove(&mut self, index: usize) {
        self.unlink(index);
        self.entries.remove(&self.slots[index].key);
        self.slots[index].vector = Arc::new([]);
        self.free.push(index);
        // Vectors that are replaced again and again leave arrivals behind; they are dropped before they outweigh
        // what is held.
        if self.arrivals.len() > 2 * self.options.entries_max {
            let (entries, slots) = (&self.entries, &self.slots);
            self.arrivals.retain(|(arrived, key)| {
                entries.get(key).is_some_and(|index| slots[*index].arrived == *arrived)
            });
        }
    }

    fn unlink(&mut self, index: usize) {
        let (newer, older) = (self.slots[index].newer.take(), self.slots[index].older.take());
        match newer {
            Some(newer) => self.slots[newer].older = older,
            None => self.newest = older,
        }
        match older {
            Some(older) => self.slots[older].newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, index: usize) {
        self.slots[index].older = self.newest;
        match self.newest.replace(index) {
            Some(second) => self.slots[second].newer = Some(index),
            None => self.oldest = Some(index),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use proptest::prelude::*;

    use super::*;

    fn options(entries_max: usize) -> CacheOptions {
        CacheOptions { entries_max, ttl: Some(Duration::from_secs(10)), ..CacheOptions::default() }
    }

    fn vector(number: f32) -> Arc<[f32]> {
        Arc::from([number])
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_least_recently_used_are_forgotten_down_to_the_threshold() {
        for (aggressive_cleanup, left) in [(false, 8 + 1), (true, 5 + 1)] {
            let mut cache = QueryCache::new(CacheOptions { aggressive_cleanup, ..options(10) });
            for number in 0_u8..10 {
                cache.put(&number.to_string(), vector(f32::from(number)), at(0));
            }
            assert_eq!(cache.get("0", at(1)), Some(vector(0.0)), "now the most recently used");
            cache.put("new", vector(99.0), at(1));
            assert_eq!(cache.stats().entries, left);
            assert_eq!(cache.stats().evicted, 11 - left as u64);
            assert_eq!(cache.get("1", at(1)), None);
            assert_eq!(cache.get("0", at(1)), Some(vector(0.0)));
            assert_eq!(cache.get("9", at(1)), Some(vector(9.0)));
        }
    }

    #[test]
    fn a_vector_is_forgotten_at_its_age_however_often_it_is_used() {
        let mut cache = QueryCache::new(options(10));
        cache.put("a", vector(1.0), at(0));
        assert_eq!(cache.get("a", at(9)), Some(vector(1.0)));
        assert_eq!(cache.get("a", at(10)), None);
        cache.put("a", vector(2.0), at(10));
        assert_eq!(cache.get("a", at(19)), Some(vector(2.0)));
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.entries), (2, 1, 1));
    }

    #[test]
    fn what_is_too_old_when_it_is_asked_for_is_dropped_and_counted_once() {
        let mut cache = QueryCache::new(options(10));
        cache.put("a", vector(1.0), at(0));
        for _ in 0..2 {
            assert_eq!(cache.get("a", at(10)), None);
        }
        let stats = cache.stats();
        assert_eq!((stats.misses, stats.entries, stats.expired), (2, 0, 1));
        cache.put("a", vector(2.0), at(10));
        assert_eq!(cache.get("a", at(11)), Some(vector(2.0)));
        assert_eq!((cache.stats().entries, cache.stats().expired), (1, 1));
    }

    #[test]
    fn beyond_the_threshold_what_is_too_old_goes_first() {
        let mut cache = QueryCache::new(options(10));
        for number in 0..8 {
            cache.put(&number.to_string(), vector(0.0), at(number));
        }
        cache.put("new", vector(1.0), at(13));
        let stats = cache.stats();
        assert_eq!((stats.entries, stats.expired, stats.evicted), (8 - 4 + 1, 4, 0));
    }

    /// Tidying the arrivals while one expires once took the next one's arrival with it.
    #[test]
    fn an_expiry_that_tidies_up_forgets_no_other_arrival() {
        let mut cache = QueryCache::new(options(2));
        for _ in 0..4 {
            cache.put("a", vector(1.0), at(0));
        }
        for (text, seconds) in [("b", 5), ("c", 12), ("d", 16)] {
            cache.put(text, vector(1.0), at(seconds));
        }
        let stats = cache.stats();
        assert_eq!((stats.entries, stats.expired, stats.evicted), (2, 2, 0));
    }

    #[test]
    fn without_room_nothing_is_kept() {
        let mut cache = QueryCache::new(options(0));
        cache.put("a", vector(1.0), at(0));
        assert_eq!(cache.get("a", at(0)), None);
    }

    #[test]
    fn a_threshold_of_nothing_leaves_the_newest() {
        let mut cache = QueryCache::new(CacheOptions { cleanup_threshold: -1.0, ..options(3) });
        for text in ["a", "b", "c", "d"] {
            cache.put(text, vector(1.0), at(0));
        }
        assert_eq!(cache.stats().entries, 1);
        assert!(cache.get("d", at(0)).is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// The simplest model: a list of entries in the order of their last use.
        #[test]
        fn it_does_what_a_plain_list_does(steps in prop::collection::vec((0_u8..12, any::<bool>(), 0_u64..3), 1..300)) {
            let mut cache = QueryCache::new(options(6));
            let mut list: Vec<(u8, u64, f32)> = Vec::new();
            let (mut now, mut expired) = (0, 0);
            for (count, (text, is_put, passed)) in steps.into_iter().enumerate() {
                now += passed;
                let name = text.to_string();
                if is_put {
                    let number = count as f32;
                    cache.put(&name, vector(number), at(now));
                    list.retain(|entry| entry.0 != text);
                    if list.len() >= 4 {
                        let before = list.len();
                        list.retain(|entry| now - entry.1 < 10);
                        expired += before - list.len();
                    }
                    if list.len() >= 6 {
                        list.drain(..list.len() - 4);
                    }
                    list.push((text, now, number));
                } else {
                    let before = list.len();
                    list.retain(|entry| entry.0 != text || now - entry.1 < 10);
                    expired += before - list.len();
                    let found = list.iter().position(|entry| entry.0 == text);
                    let expected = found.map(|index| {
                        let entry = list.remove(index);
                        list.push(entry);
                        vector(entry.2)
                    });
                    prop_assert_eq!(cache.get(&name, at(now)), expected);
                }
                prop_assert_eq!(cache.stats().entries, list.len());
                prop_assert_eq!(cache.stats().expired, expired as u64);
            }
        }
    }
}
