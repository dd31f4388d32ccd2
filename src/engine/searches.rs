//! Searches of the memory, and their answers as long as these hold.
//!
//! An answer holds while memory is as it was and, where it is of the moment of asking, until something of the memory begins or
//! ends to be true.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caxton_events::Timestamp;
use caxton_projections::graph::{Observation, ReadError, Relation};
use caxton_projections::queries::{Search, SearchAnswer, SearchError, SearchHit, SearchMode};
use caxton_projections::view::View;

use super::Engine;
use super::kept::{Asked, Kept, Key, Room};

/// The end of what holds until memory changes.
const NEVER: Timestamp = Timestamp::from_unix_micros(u64::MAX);

/// How a search is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asking {
    /// `valid_at` is the moment of asking: a later one has the same answer as long as nothing begins or ends to be true.
    pub at_present: bool,
    /// The answer is not to be one that is kept.
    pub afresh: bool,
}

/// What was asked of the answers that are kept, since the start, and what they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SearchStats {
    /// Searches that were answered with one.
    pub hits: u64,
    /// Searches of the present that were not.
    pub misses: u64,
    /// Bytes of the answers.
    pub bytes: usize,
}

/// The answers that are kept.
#[derive(Debug)]
pub(super) struct Searches {
    bytes_max: usize,
    kept: Mutex<Kept<Arc<SearchAnswer>, Timestamp>>,
    /// The stretch of time that was looked at last.
    still: Mutex<Option<Still>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// A stretch in which nothing of a state of memory begins or ends to be true.
#[derive(Debug, Clone, Copy)]
struct Still {
    changes: u64,
    from: Timestamp,
    until: Timestamp,
}

impl Searches {
    /// So many bytes of answers are kept; 0: none is.
    pub(super) fn new(bytes_max: usize) -> Self {
        let kept = Mutex::new(Kept::new(Room { answers: usize::MAX, bytes: bytes_max }));
        Self { bytes_max, kept, still: Mutex::new(None), hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept<Arc<SearchAnswer>, Timestamp>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything: something of it was erased.
    pub(super) fn forget(&self) {
        let gone = self.kept().forget();
        drop(gone);
    }

    /// Until when nothing of the present begins or ends to be true. The graph is asked once in each stretch of each state.
    fn still_until(&self, view: &View, changes: u64, now: Timestamp) -> Result<Timestamp, ReadError> {
        let still = || self.still.lock().unwrap_or_else(PoisonError::into_inner);
        let known = *still();
        let known = known.filter(|one| one.changes == changes && one.from <= now && now < one.until);
        if let Some(Still { until, .. }) = known {
            return Ok(until);
        }
        let until = view.graph().next_turn(now)?.unwrap_or(NEVER);
        *still() = Some(Still { changes, from: now, until });
        Ok(until)
    }

    fn get(&self, key: &Key, changes: u64, now: Timestamp) -> Option<Arc<SearchAnswer>> {
        let kept = self.kept().get(key, changes, now);
        let counter = if kept.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        kept
    }
}

impl Engine {
    /// What `search` finds in `view`, of which answers are kept where it shows the present.
    ///
    /// # Errors
    ///
    /// [`SearchError`].
    pub fn search(&self, view: &View, search: &Search, asking: Asking) -> Result<SearchAnswer, SearchError> {
        let searches = &self.inner.searches;
        if searches.bytes_max == 0 || view.moment().is_some() {
            return search.ask(view);
        }
        // In this order: what changes after a look makes the answer stale, never the other way round.
        let seq = view.seq();
        let changes = view.positions().memory_changes();
        let asked = Asked { changes, erasures: searches.kept().erasures() };
        let now = search.valid_at.filter(|_| asking.at_present).unwrap_or(Timestamp::EPOCH);
        let key = key(search, asking);
        let kept = if asking.afresh { None } else { searches.get(&key, changes, now) };
        if let Some(kept) = kept {
            if search.mode != SearchMode::Keyword
                && let Some(semantic) = view.semantic()
            {
                semantic.embedding.note_query(&search.text);
            }
            view.shown(kept.hits.iter().map(|hit| hit.entity.id));
            return Ok(SearchAnswer { seq: kept.seq.max(seq), ..(*kept).clone() });
        }
        let answer = search.ask(view)?;
        let end = if asking.at_present { searches.still_until(view, changes, now) } else { Ok(NEVER) };
        let bytes = size(&answer);
        // Where the look was ended early the next one may see more.
        if answer.complete
            && bytes <= searches.bytes_max
            && let Ok(end) = end
        {
            let kept = (Arc::new(answer.clone()), bytes);
            let gone = searches.kept().put(key, asked, kept, (now, end));
            drop(gone);
        }
        Ok(answer)
    }

    /// How searches fared with the answers that are kept.
    pub fn search_stats(&self) -> SearchStats {
        let searches = &self.inner.searches;
        SearchStats {
            hits: searches.hits.load(Ordering::Relaxed),
            misses: searches.misses.load(Ordering::Relaxed),
            bytes: searches.kept().bytes(),
        }
    }

    /// Searches whose question was known, and all of which that can be said: they were answered with what is kept or, where there
    /// is a model, with a vector that is.
    pub fn known_questions(&self) -> (u64, u64) {
        let SearchStats { hits, misses, .. } = self.search_stats();
        match self.view().semantic().map(|semantic| semantic.embedding.stats().cache) {
            Some(vectors) => (hits + vectors.hits, hits + vectors.hits + vectors.misses),
            None => (hits, hits + misses),
        }
    }
}

/// The key of a search: everything it asks for, but the moment of asking.
fn key(search: &Search, asking: Asking) -> Key {
    let text = if asking.at_present {
        format!("present {:?}", Search { valid_at: None, ..search.clone() })
    } else {
        format!("{search:?}")
    };
    *blake3::hash(text.as_bytes()).as_bytes()
}

/// Bytes that an answer takes, roughly.
fn size(answer: &SearchAnswer) -> usize {
    answer.hits.iter().map(of_hit).sum::<usize>() + size_of::<SearchAnswer>()
}

fn of_hit(hit: &SearchHit) -> usize {
    let SearchHit { entity, matched, observations, neighbours, relations, .. } = hit;
    let metadata = entity.metadata.as_ref().map_or(0, String::len);
    let texts = entity.name.len() + entity.entity_type.len() + entity.owner.len() + metadata;
    let noted = matched.iter().chain(observations).chain(neighbours).map(of_observation);
    texts + noted.sum::<usize>() + relations.iter().map(of_relation).sum::<usize>() + size_of::<SearchHit>()
}

fn of_observation(observation: &Observation) -> usize {
    observation.content.len() + observation.actor.len() + size_of::<Observation>()
}

fn of_relation(relation: &Relation) -> usize {
    let metadata = relation.metadata.as_ref().map_or(0, String::len);
    relation.relation_type.len() + relation.actor.len() + metadata + size_of::<Relation>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_the_same_at_another_moment_of_asking_and_not_with_another_filter() {
        let at = |micros| Some(Timestamp::from_unix_micros(micros));
        let present = Asking { at_present: true, afresh: false };
        let search = |text: &str, valid_at| Search { text: text.to_owned(), valid_at, ..Search::default() };
        let key_of = |search: &Search| key(search, present);
        assert_eq!(key_of(&search("tea", at(1))), key_of(&search("tea", at(2))));
        assert_ne!(key_of(&search("tea", at(1))), key_of(&search("coffee", at(1))));
        let limited = Search { limit: 3, ..search("tea", at(1)) };
        assert_ne!(key_of(&search("tea", at(1))), key_of(&limited));
        let then = |valid_at| key(&search("tea", valid_at), Asking::default());
        assert_ne!(then(at(1)), then(at(2)));
        assert_ne!(then(None), key_of(&search("tea", None)), "of all times is not of the present");
        assert_eq!(
            key_of(&search("tea", None)),
            key(&search("tea", None), Asking { afresh: true, ..present })
        );
    }
}
