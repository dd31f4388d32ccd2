//! What turns are told: earlier messages, memory, and what others can do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caxton_events::memory::Validity;
use caxton_events::{AgentId, Clock as _, ConversationId, Scope, Seq, Timestamp, WorkspaceId};
use caxton_projections::graph::{Observation, Relation};
use caxton_projections::queries::{Fusion, Search, SearchHit};
use futures::future::{BoxFuture, join_all};

use super::past::Past;
use crate::agents::context::{Offered, Said};
use crate::agents::ports::{Found, MemoryAsk, PortError, Sources};
use crate::engine::kept::{Asked, Kept, Key, Room};
use crate::engine::searches::Asking;
use crate::engine::{Engine, SystemClock};
use crate::llm::Fact;
use crate::telemetry;
use crate::toolbox::memory::Ranking;

/// Observations of a hit that become facts, the best one included.
const FACTS_OF_HIT: usize = 3;
/// Capabilities that a turn is told of.
const CAPABILITIES_MAX: usize = 100;
/// Longest question to memory, in bytes: a message may be much longer, and what it is about is said at its beginning.
const QUERY_BYTES_MAX: usize = 16 << 10;
/// Answers that are kept.
const KEPT: Room = Room { answers: 10_000, bytes: 16 << 20 };

type Answers = Kept<Vec<Fact>, Instant>;

/// The engine as turns see it.
pub(super) struct Known {
    engine: Engine,
    ranking: Ranking,
    past: Arc<Past>,
    /// Questions of one call of the model.
    asks_max: usize,
    answers: Mutex<Answers>,
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Known").field("ranking", &self.ranking).finish_non_exhaustive()
    }
}

impl Known {
    /// What `engine` knows. Of several questions at once, so many go through the model together.
    pub(super) fn new(engine: Engine, ranking: Ranking, past: Arc<Past>, asks_max: usize) -> Self {
        Self { engine, ranking, past, asks_max: asks_max.max(1), answers: Mutex::new(Kept::new(KEPT)) }
    }

    /// Forgets what was found: something of it was erased.
    pub(super) fn forget(&self) {
        self.answers().forget();
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn found(&self, ask: MemoryAsk) -> Found {
        // Counted before the search: what changes meanwhile makes it stale, never the other way round.
        let asked = Asked { changes: self.engine.memory_changes(), erasures: self.answers().erasures() };
        let (key, keep_for) = ((!ask.keep_for.is_zero()).then(|| key(&ask)), ask.keep_for);
        let kept = key.and_then(|key| self.answers().get(&key, asked.changes, Instant::now()));
        if let Some(facts) = kept {
            return Ok(facts);
        }
        let (engine, ranking) = (self.engine.clone(), self.ranking);
        let found = tokio::task::spawn_blocking(move || facts(&engine, ranking, &ask)).await;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| PortError {
            tried: "could not search memory",
            source,
        };
        let found = found.map_err(|error| failed(error.into()))?;
        let (facts, until) = found.map_err(|error| failed(error.into()))?;
        let (now, keep_for) = (Instant::now(), kept_for(keep_for, until, SystemClock.now()));
        if let (Some(key), Some(end)) = (key, now.checked_add(keep_for)) {
            self.answers().put(key, asked, (facts.clone(), size(&facts)), (now, end));
        }
        Ok(facts)
    }
}

/// The key of a question.
fn key(ask: &MemoryAsk) -> Key {
    *blake3::hash(format!("{ask:?}").as_bytes()).as_bytes()
}

/// Bytes that an answer takes.
fn size(facts: &[Fact]) -> usize {
    let texts: usize = facts.iter().map(|fact| fact.source.len() + fact.entity.len() + fact.text.len()).sum();
    texts + size_of_val(facts)
}

/// The items in their order, `max` together.
fn groups<T>(items: Vec<T>, max: usize) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || {
        let group: Vec<T> = items.by_ref().take(max.max(1)).collect();
        (!group.is_empty()).then_some(group)
    })
}

/// The beginning of a question that is too long.
fn cut(query: &mut String) {
    if query.len() > QUERY_BYTES_MAX {
        let end = (0..=QUERY_BYTES_MAX).rev().find(|end| query.is_char_boundary(*end));
        query.truncate(end.unwrap_or(0));
    }
}

/// How long an answer is kept of which so much is asked, and something ends to be true at `until`. What begins to be true meanwhile
/// is not in it.
fn kept_for(asked: Duration, until: Option<Timestamp>, now: Timestamp) -> Duration {
    let left =
        |until: Timestamp| Duration::from_micros(until.unix_micros().saturating_sub(now.unix_micros()));
    asked.min(until.map_or(Duration::MAX, left))
}

/// When the first of these ends that were true at `at`.
fn first_end(shown: impl Iterator<Item = Validity>, at: Timestamp) -> Option<Timestamp> {
    shown.filter_map(|validity| validity.to).filter(|to| *to > at).min()
}

/// What the memory is asked for a turn.
fn search_for(ask: &MemoryAsk, ranking: Ranking) -> Search {
    let fusion = match ask.semantic_weight {
        Some(weight) => Fusion::Weighted { semantic_weight: weight as f32 },
        None => ranking.fusion,
    };
    Search {
        text: ask.query.clone(),
        mode: ranking.mode,
        fusion,
        exact: ranking.exact,
        precision: ranking.precision,
        scopes: vec![Scope::Agent(ask.agent.clone()), Scope::Workspace(ask.workspace.clone()), Scope::Global],
        valid_at: Some(SystemClock.now()),
        min_similarity: ask.min_similarity.map(|cosine| cosine as f32),
        limit: ask.limit,
        observations: FACTS_OF_HIT,
        include_relations: ask.include_relationships,
        ..Search::default()
    }
}

/// What is found, and when the first of it ends to be true.
fn facts(
    engine: &Engine,
    ranking: Ranking,
    ask: &MemoryAsk,
) -> Result<(Vec<Fact>, Option<Timestamp>), caxton_projections::queries::SearchError> {
    let search = search_for(ask, ranking);
    let started = Instant::now();
    let answer = engine.search(engine.view(), &search, Asking { at_present: true, afresh: false })?;
    telemetry::search_finished(started.elapsed());
    let names: HashMap<_, _> =
        answer.hits.iter().map(|hit| (hit.entity.id, hit.entity.name.clone())).collect();
    let shown = answer.hits.iter().flat_map(|hit| {
        let observations = hit.matched.iter().chain(&hit.observations).map(|one| one.validity);
        let relations = hit.relations.iter().map(|relation| relation.validity);
        observations.chain(relations).chain([hit.entity.validity])
    });
    let until = search.valid_at.and_then(|at| first_end(shown, at));
    Ok((answer.hits.iter().flat_map(|hit| of_hit(hit, &names)).collect(), until))
}

/// A hit as facts: what matched, then what else is known first; a thing without observations by its name and type.
fn of_hit(hit: &SearchHit, names: &HashMap<caxton_events::MemoryId, String>) -> Vec<Fact> {
    let entity = &hit.entity;
    let fact = |source: String, text: String| Fact {
        source,
        entity: entity.name.clone(),
        text,
        score: hit.score,
        similarity: hit.similarity,
    };
    let of = |one: &Observation| fact(format!("obs_{}", one.id), one.content.clone());
    let matched = hit.matched.as_ref().map(|matched| matched.id);
    let others = hit.observations.iter().filter(|one| Some(one.id) != matched);
    let mut facts: Vec<Fact> = hit.matched.iter().chain(others).take(FACTS_OF_HIT).map(of).collect();
    if facts.is_empty() {
        facts.push(fact(format!("ent_{}", entity.id), format!("{} ({})", entity.name, entity.entity_type)));
    }
    let name = |id| names.get(&id).cloned().unwrap_or_else(|| format!("ent_{id}"));
    facts.extend(hit.relations.iter().map(|Relation { id, from, to, relation_type, .. }| {
        fact(format!("rel_{id}"), format!("{} {relation_type} {}", name(*from), name(*to)))
    }));
    facts
}

impl Sources for Known {
    fn history<'a>(
        &'a self,
        agent: &'a AgentId,
        conversation: &'a ConversationId,
        before: Seq,
        depth: usize,
    ) -> BoxFuture<'a, Result<Vec<Said>, PortError>> {
        Box::pin(async move {
            let said = self.past.of(agent, conversation, before, depth).await;
            said.map_err(|error| PortError {
                tried: "could not read what was said before",
                source: Box::new(error),
            })
        })
    }

    fn search(&self, mut asks: Vec<MemoryAsk>) -> BoxFuture<'_, Vec<Found>> {
        for ask in &mut asks {
            cut(&mut ask.query);
        }
        Box::pin(async move {
            let mut found = Vec::with_capacity(asks.len());
            for group in groups(asks, self.asks_max) {
                // Asked at the same time, questions share one pass of the model.
                found.extend(join_all(group.into_iter().map(|ask| self.found(ask))).await);
            }
            found
        })
    }

    fn said_by<'a>(
        &'a self,
        agent: &'a AgentId,
        conversation: &'a ConversationId,
        enough: usize,
    ) -> BoxFuture<'a, Result<usize, PortError>> {
        Box::pin(async move {
            self.past.said_by(agent, conversation, enough).await.map_err(|error| PortError {
                tried: "could not count what was said",
                source: Box::new(error),
            })
        })
    }

    fn capabilities<'a>(
        &'a self,
        agent: &'a AgentId,
        workspace: &'a WorkspaceId,
    ) -> BoxFuture<'a, Result<Vec<Offered>, PortError>> {
        let talk = self.engine.view().talk().read();
        let mut offered: Vec<(u64, Offered)> = Vec::new();
        for (capability, _) in talk.registry.capabilities() {
            let providers = talk.registry.providers(capability).filter(|row| row.agent != *agent);
            let there = providers.filter(|row| {
                let known = talk.registry.agent(&row.agent);
                known.is_some_and(|known| known.workspace == *workspace && !known.removed)
            });
            let agents: Vec<String> = there.map(|row| row.agent.to_string()).collect();
            if !agents.is_empty() {
                let asked = talk.conversations.routed(capability.as_str());
                offered.push((asked, Offered { capability: capability.to_string(), agents }));
            }
        }
        drop(talk);
        // What is asked for most is the most useful; names tell equals apart.
        offered.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.capability.cmp(&other.capability)));
        let offered = offered.into_iter().take(CAPABILITIES_MAX).map(|(_, offered)| offered).collect();
        Box::pin(async { Ok(offered) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use caxton_events::Timestamp;
    use caxton_events::memory::Validity;

    use super::{MemoryAsk, QUERY_BYTES_MAX, Ranking, cut, first_end, groups, kept_for, search_for};

    #[test]
    fn a_turn_searches_as_the_server_is_set_to() {
        let ask = MemoryAsk {
            agent: "ada".parse().unwrap(),
            workspace: "lab".parse().unwrap(),
            query: "kettles".to_owned(),
            limit: 3,
            min_similarity: None,
            semantic_weight: None,
            include_relationships: false,
            keep_for: Duration::ZERO,
        };
        for (exact, precision) in [(true, 0.25), (false, 0.0)] {
            let search = search_for(&ask, Ranking { exact, precision, ..Ranking::default() });
            assert_eq!((search.exact, search.precision.to_bits()), (exact, f32::to_bits(precision)));
        }
    }

    #[test]
    fn an_answer_is_kept_no_longer_than_all_of_it_is_true() {
        let at = |second: u64| Timestamp::from_unix_micros(second * 1_000_000);
        for (asked, ends, then) in [
            (20, vec![None, Some(130), Some(110)], Duration::from_secs(10)),
            (20, vec![Some(130), None], Duration::from_secs(20)),
            (20, vec![Some(90)], Duration::from_secs(20)),
            (300, vec![], Duration::from_mins(5)),
        ] {
            let shown = ends.iter().map(|end| Validity { from: None, to: end.map(at) });
            let until = first_end(shown, at(100));
            assert_eq!(kept_for(Duration::from_secs(asked), until, at(100)), then, "{asked} {ends:?}");
        }
        assert_eq!(kept_for(Duration::from_mins(5), Some(at(99)), at(100)), Duration::ZERO);
    }

    #[test]
    fn a_question_that_is_too_long_is_cut_between_two_letters() {
        // Behind a letter of one byte, those of two end at odd places.
        for (letters, bytes) in [(1, 3), (QUERY_BYTES_MAX, QUERY_BYTES_MAX - 1)] {
            let mut query = format!("x{}", "ä".repeat(letters));
            cut(&mut query);
            assert_eq!(query.len(), bytes);
        }
    }

    #[test]
    fn questions_are_asked_so_many_together_and_keep_their_order() {
        for (max, then) in [
            (2, vec![vec![1, 2], vec![3, 4], vec![5]]),
            (5, vec![vec![1, 2, 3, 4, 5]]),
            (0, vec![vec![1], vec![2], vec![3], vec![4], vec![5]]),
        ] {
            assert_eq!(groups(vec![1, 2, 3, 4, 5], max).collect::<Vec<_>>(), then, "{max}");
        }
        assert_eq!(groups(Vec::<u8>::new(), 3).count(), 0);
    }
}
