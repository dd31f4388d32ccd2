//! Search in the memory: by meaning, by words, or by both.

mod room;
mod showing;
mod widening;

use std::collections::{HashMap, HashSet};

use caxton_events::memory::Validity;
use caxton_events::{AgentId, MemoryId, Scope, Seq, Timestamp};

use self::room::Room;
use self::widening::Widening;
use super::fusion::{Candidate, fuse, gain_max};
use crate::embedding::{EmbedError, QueryVector};
use crate::graph::{Entity, GraphMoment, Observation, ReadError, Relation};
use crate::text::{KEYWORD_LIMIT_MAX, KeywordQuery, TextHit};
use crate::vector::{Begun, VectorAnswer, VectorHit, VectorQuery, VectorSearchError};
use crate::view::View;

/// Rows asked of each ranking at first, for every hit wanted: several rows may belong to one entity.
const ROWS_PER_HIT: usize = 5;
/// Rows asked of each ranking at the least.
const ROWS_MIN: usize = 64;
/// The same where meaning alone ranks: no score depends on the rows behind the hits, so as few are asked for as mostly
/// make enough hits.
const SEMANTIC_ROWS_PER_HIT: usize = 3;
const SEMANTIC_ROWS_MIN: usize = 32;
/// Rows asked of each ranking at the most, when filters throw much away.
const ROWS_MAX: usize = 8_192;
/// The same of words.
const WORDS_ROWS_MAX: usize = 1_000;
/// The same of both where a filter is judged behind the ranking and may throw nearly everything away, and of words that rank alone:
/// there one entity may have all the first rows.
const FAR_ROWS_MAX: usize = KEYWORD_LIMIT_MAX;
/// How often candidates are ranked again at the most, because rows that were found are not there any more.
const RANKED_MAX: usize = 8;
/// Entities looked at together where a filter on them may refuse some.
const PAGE_ENTITIES: usize = 256;
/// Observations of one entity read together.
const PAGE_ROWS: usize = 16;

/// What ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SearchMode {
    /// The cosine of the query's and a text's vector.
    Semantic,
    /// BM25 over names, types and observations.
    Keyword,
    /// Both, fused.
    #[default]
    Hybrid,
}

/// How two rankings become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fusion {
    /// The weighted sum of both scores, each brought to 0 … 1 among the candidates.
    Weighted {
        /// 0 to 1; the rest goes to the words.
        semantic_weight: f32,
    },
    /// The sum of 1 / (60 + rank).
    ReciprocalRank,
}

impl Default for Fusion {
    fn default() -> Self {
        Self::Weighted { semantic_weight: 0.6 }
    }
}

/// A question to the memory.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Search {
    /// The question.
    pub text: String,
    /// What ranks.
    pub mode: SearchMode,
    /// How two rankings become one.
    pub fusion: Fusion,
    /// Where to look; nowhere when empty.
    pub scopes: Vec<Scope>,
    /// Only entities of these types; all when empty.
    pub entity_types: Vec<String>,
    /// Only entities that this agent created.
    pub owner: Option<AgentId>,
    /// Only what was true then.
    pub valid_at: Option<Timestamp>,
    /// Only what was true at some time from the first moment on and before the second.
    pub valid_between: Option<(Timestamp, Timestamp)>,
    /// Only hits with at least this cosine, −1 to 1.
    pub min_similarity: Option<f32>,
    /// Cosines within one step of this size count as equal where meaning alone ranks, and are ordered by number; 0 keeps the
    /// exact order.
    pub precision: f32,
    /// At most so many hits.
    pub limit: usize,
    /// Observations of each hit to show, the first ones.
    pub observations: usize,
    /// Observations of the same entity to show that were written just before and after the matched one, on each side.
    pub neighbours: usize,
    /// Whether to list each hit's relations.
    pub include_relations: bool,
    /// Compare with every vector instead of using the index.
    pub exact: bool,
}

/// An entity that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchHit {
    /// The entity.
    pub entity: Entity,
    /// What it was ranked by: the fused score, the cosine or BM25; higher is better.
    pub score: f32,
    /// The cosine, −1 to 1, where the semantic ranking found it.
    pub similarity: Option<f32>,
    /// BM25, where the words found it.
    pub keyword_score: Option<f32>,
    /// The observation that matched best; `None` when name and type did.
    pub matched: Option<Observation>,
    /// Its first observations, as many as asked for.
    pub observations: Vec<Observation>,
    /// Which rankings found it: `semantic`, `keyword`.
    pub matched_by: Vec<&'static str>,
    /// Whether a word of the query is in its name or type.
    pub matched_name: bool,
    /// Observations written just before and after the matched one, in their order.
    pub neighbours: Vec<Observation>,
    /// Its first relations that are true at the time that is asked for, if asked for.
    pub relations: Vec<Relation>,
    /// Whether something of this was left out because an answer has no room for it or an entity too many relations, or may have
    /// been: behind what there is no room for nothing is read.
    pub truncated: bool,
}

/// What the graph says of a candidate.
struct HitRow<'a> {
    entity: Entity,
    found: &'a Candidate,
    observations: Vec<Observation>,
    matched: Option<Observation>,
    truncated: bool,
}

/// What the rankings found, each best first.
struct Ranking {
    candidates: Vec<(MemoryId, Candidate)>,
    /// Those that words alone found where hits have a least cosine, each with the most that it may score. Where only the nearest
    /// rows were looked at, they may be near enough.
    unsure: Vec<(MemoryId, Candidate)>,
}

/// What the graph refused, so that it is not asked again.
#[derive(Default)]
struct Refused {
    /// Entities that do not pass a filter, or are not there.
    entities: HashSet<MemoryId>,
    /// Observations that are not there any more, or not at the time that is asked for: the rankings are behind the graph.
    rows: HashSet<MemoryId>,
}

/// The answer to a [`Search`].
#[derive(Debug, Clone, PartialEq)]
pub struct SearchAnswer {
    /// Best first.
    pub hits: Vec<SearchHit>,
    /// What ranked in the end: keyword where hybrid was asked for and no model is loaded.
    pub mode: SearchMode,
    /// Whether every vector was considered, so that no nearer one was missed; where hits are lacking, or may be equal to the
    /// last one, every row that a ranking has.
    pub exact: bool,
    /// Whether the look went far enough: no hit is lacking because rows behind those that were looked at might pass the filters.
    pub complete: bool,
    /// The answer includes the memory up to this record.
    pub seq: Seq,
}

/// Why a search has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// Semantic search was asked for and Caxton runs without a model.
    #[error("there is no embedding model: the server runs keyword-only")]
    NoModel,
    /// The question could not be turned into a vector.
    #[error("could not embed the query")]
    Embed(#[source] EmbedError),
    /// The vectors could not be searched.
    #[error("could not search the vectors")]
    Vectors(#[source] VectorSearchError),
    /// The graph could not be read.
    #[error("could not read the memory")]
    Graph(#[from] ReadError),
}

impl Search {
    /// Answers the question from `view`.
    ///
    /// # Errors
    ///
    /// [`SearchError`].
    pub fn ask(&self, view: &View) -> Result<SearchAnswer, SearchError> {
        let mode = match (self.mode, view.semantic()) {
            (SearchMode::Semantic, None) => return Err(SearchError::NoModel),
            (SearchMode::Hybrid, None) => SearchMode::Keyword,
            (mode, _) => mode,
        };
        let seq = view.seq();
        let asked = match (mode, view.semantic()) {
            (SearchMode::Semantic | SearchMode::Hybrid, Some(semantic)) => {
                Some(semantic.embedding.begin_query(&self.text).map_err(SearchError::Embed)?)
            }
            _ => None,
        };
        let (per_hit, least) = match mode {
            SearchMode::Semantic => (SEMANTIC_ROWS_PER_HIT, SEMANTIC_ROWS_MIN),
            SearchMode::Keyword | SearchMode::Hybrid => (ROWS_PER_HIT, ROWS_MIN),
        };
        let mut rows = (self.limit * per_hit).clamp(least, ROWS_MAX);
        let precision = self.precision_of(mode);
        let (mut known, mut refused) = (HashMap::new(), Refused::default());
        // While the model is at the question, this thread looks for its words.
        let meanwhile = asked.as_ref().is_some_and(QueryVector::is_under_way);
        let mut words = if meanwhile { Some(self.by_words(view, mode, rows)?) } else { None };
        let query = asked.map(QueryVector::vector).transpose().map_err(SearchError::Embed)?;
        let mut widening = Widening::new(self.rows_max(mode), self.looks_far(mode), view.now());
        loop {
            // The threads that stand by for the vectors begin with them while this one looks for the words.
            let by_meaning = self.by_meaning(view, query.as_deref(), rows)?;
            let mut keyword = match words.take() {
                Some(words) => words,
                None => self.by_words(view, mode, rows)?,
            };
            let VectorAnswer { hits: mut semantic, exact } = by_meaning.finish();
            let is_cut = semantic.len() >= rows;
            let all = !is_cut && keyword.len() < self.words_rows(rows, mode);
            let last = semantic.last().map(|hit| hit.similarity);
            if self.valid_between.is_some() {
                view.graph().at_once(|graph| {
                    retain(&mut semantic, |hit| self.counts(graph, (hit.entity, hit.row), &mut known))?;
                    retain(&mut keyword, |hit| self.counts(graph, (hit.entity, hit.row), &mut known))
                })?;
            }
            let (hits, settled) = self.settled(view, (semantic, keyword), (mode, is_cut), &mut refused)?;
            let torn = is_torn(hits.last().map(|hit| hit.score), last, precision);
            let complete = settled && (all || (hits.len() >= self.limit && !torn));
            let wider = if complete { None } else { widening.behind(rows, view.now()) };
            let Some(wider) = wider else {
                view.shown(hits.iter().map(|hit| hit.entity.id));
                return Ok(SearchAnswer { hits, mode, exact: exact && complete, complete, seq });
            };
            rows = wider;
        }
    }

    /// The hits of these rows, and whether none of them was found by a row that the graph has not, nor one is lacking because its
    /// row may be near enough and is behind where the look ended. Rows that the graph has not are left out, and the rest is ranked
    /// again, so that an entity is found by its next best one.
    fn settled(
        &self,
        view: &View,
        (mut semantic, mut keyword): (Vec<VectorHit>, Vec<TextHit>),
        (mode, is_cut): (SearchMode, bool),
        refused: &mut Refused,
    ) -> Result<(Vec<SearchHit>, bool), SearchError> {
        let mut hits = Vec::new();
        for _ in 0..RANKED_MAX {
            semantic.retain(|hit| !refused.rows.contains(&hit.row));
            keyword.retain(|hit| !refused.rows.contains(&hit.row));
            let known = refused.rows.len();
            let Ranking { candidates, unsure } = self.ranked(&semantic, &keyword, mode);
            hits = self.hits(view, candidates, refused)?;
            if refused.rows.len() == known {
                let lacks = is_cut && self.may_lack(view, &hits, &unsure, refused)?;
                return Ok((hits, !lacks));
            }
        }
        Ok((hits, false))
    }

    /// Whether one of `unsure` would be among the hits if it were near enough.
    fn may_lack(
        &self,
        view: &View,
        hits: &[SearchHit],
        unsure: &[(MemoryId, Candidate)],
        refused: &mut Refused,
    ) -> Result<bool, ReadError> {
        let last = hits.last().filter(|_| hits.len() >= self.limit);
        let least = last.map_or(f32::NEG_INFINITY, |hit| hit.score);
        let mut unsure = unsure.iter().take_while(|(_, found)| found.score >= least).peekable();
        if unsure.peek().is_none() {
            return Ok(false);
        }
        view.graph().at_once(|graph| {
            for (id, _) in unsure {
                if !refused.entities.contains(id) {
                    if self.admitted(graph, *id)?.is_some() {
                        return Ok(true);
                    }
                    refused.entities.insert(*id);
                }
            }
            Ok(false)
        })
    }

    /// Whether entities may be refused that the rankings cannot judge.
    const fn is_filtered(&self) -> bool {
        self.owner.is_some() || self.valid_between.is_some()
    }

    /// Whether rows that lead to no further hit may be very many: then more are looked at, for a time.
    const fn looks_far(&self, mode: SearchMode) -> bool {
        self.is_filtered() || matches!(mode, SearchMode::Keyword)
    }

    const fn rows_max(&self, mode: SearchMode) -> usize {
        if self.looks_far(mode) { FAR_ROWS_MAX } else { ROWS_MAX }
    }

    /// Rows asked of the words where so many are asked for.
    fn words_rows(&self, rows: usize, mode: SearchMode) -> usize {
        rows.min(if self.looks_far(mode) { FAR_ROWS_MAX } else { WORDS_ROWS_MAX })
    }

    /// The step within which scores are equal.
    fn precision_of(&self, mode: SearchMode) -> f32 {
        if mode == SearchMode::Semantic { self.precision } else { 0.0 }
    }

    fn by_meaning<'a>(
        &self,
        view: &'a View,
        query: Option<&[f32]>,
        rows: usize,
    ) -> Result<Begun<'a>, SearchError> {
        let (Some(vector), Some(semantic)) = (query, view.semantic()) else {
            return Ok(Begun::nowhere());
        };
        let query = VectorQuery {
            vector,
            scopes: &self.scopes,
            entity_types: &self.entity_types,
            valid_at: self.valid_at,
            as_of: view.moment(),
            min_similarity: self.min_similarity,
            limit: rows,
            exact: self.exact,
        };
        semantic.vectors.begin(&query).map_err(SearchError::Vectors)
    }

    fn by_words(&self, view: &View, mode: SearchMode, rows: usize) -> Result<Vec<TextHit>, SearchError> {
        if mode == SearchMode::Semantic {
            return Ok(Vec::new());
        }
        let query = KeywordQuery {
            text: self.text.clone(),
            scopes: self.scopes.clone(),
            entity_types: self.entity_types.clone(),
            valid_at: self.valid_at,
            limit: self.words_rows(rows, mode),
        };
        Ok(view.graph().keyword(&query)?)
    }

    fn ranked(&self, semantic: &[VectorHit], keyword: &[TextHit], mode: SearchMode) -> Ranking {
        let mut ranked = fuse(semantic, keyword, self.fusion);
        match mode {
            SearchMode::Hybrid => {}
            SearchMode::Semantic => {
                for (_, found) in &mut ranked {
                    found.score = found.similarity.unwrap_or(-1.0);
                }
            }
            SearchMode::Keyword => {
                for (_, found) in &mut ranked {
                    found.score = found.keyword_score.unwrap_or(0.0);
                }
            }
        }
        let precision = self.precision_of(mode);
        ranked.sort_by(|(id, a), (other, b)| {
            step(b.score, precision).total_cmp(&step(a.score, precision)).then(id.cmp(other))
        });
        let is_bounded = self.min_similarity.is_some() && mode != SearchMode::Keyword;
        let (candidates, mut unsure): (Vec<_>, Vec<_>) =
            ranked.into_iter().partition(|(_, found)| !is_bounded || found.similarity.is_some());
        if !unsure.is_empty() {
            let gain = gain_max(&candidates, self.fusion);
            for (_, found) in &mut unsure {
                found.score += gain;
            }
        }
        Ranking { candidates, unsure }
    }

    /// The first `limit` candidates that pass the filters on entities, with all that is shown of them. Those that do not are noted,
    /// and not looked at again.
    fn hits(
        &self,
        view: &View,
        mut ranked: Vec<(MemoryId, Candidate)>,
        refused: &mut Refused,
    ) -> Result<Vec<SearchHit>, SearchError> {
        ranked.retain(|(id, _)| !refused.entities.contains(id));
        let mut hits = Vec::with_capacity(self.limit.min(ranked.len()));
        let filtered = self.is_filtered();
        let (mut ranked, mut room) = (ranked.into_iter(), Room::new());
        while hits.len() < self.limit {
            let missing = self.limit - hits.len();
            let page = ranked.by_ref().take(if filtered { missing.max(PAGE_ENTITIES) } else { missing });
            let page: Vec<_> = page.collect();
            if page.is_empty() {
                break;
            }
            let rows =
                view.graph().at_once(|graph| self.rows(graph, &page, missing, (refused, &mut room)))?;
            for row in rows {
                hits.push(self.hit(view, row, &mut room)?);
            }
        }
        Ok(hits)
    }

    /// What is shown of the first `limit` of `page` that are still there and pass the filters.
    fn rows<'a>(
        &self,
        graph: &GraphMoment<'_>,
        page: &'a [(MemoryId, Candidate)],
        limit: usize,
        (refused, room): (&mut Refused, &mut Room),
    ) -> Result<Vec<HitRow<'a>>, ReadError> {
        let mut rows = Vec::with_capacity(limit.min(page.len()));
        for (id, found) in page {
            if rows.len() == limit {
                break;
            }
            let Some(entity) = self.admitted(graph, *id)? else {
                refused.entities.insert(*id);
                continue;
            };
            let (observations, is_cut) = self.shown(graph, *id, room)?;
            let gone = refused.rows.len();
            let (matched, lacks) = self.matched(graph, (*id, found), &observations, (refused, room))?;
            if refused.rows.len() > gone {
                continue;
            }
            rows.push(HitRow { entity, found, observations, matched, truncated: is_cut || lacks });
        }
        Ok(rows)
    }

    /// Whether a row was true at some time that is asked for; whether its entity was is judged with the entity.
    fn counts(
        &self,
        graph: &GraphMoment<'_>,
        (entity, row): (MemoryId, MemoryId),
        known: &mut HashMap<MemoryId, bool>,
    ) -> Result<bool, ReadError> {
        if entity == row {
            return Ok(true);
        }
        if let Some(&counts) = known.get(&row) {
            return Ok(counts);
        }
        let extent = graph.observation_extent(row)?;
        let counts = extent.is_some_and(|(validity, _)| self.shows(validity));
        known.insert(row, counts);
        Ok(counts)
    }

    /// Whether an observation was true at the time that is asked for.
    fn shows(&self, validity: Validity) -> bool {
        self.valid_at.is_none_or(|at| validity.contains(at))
            && self.valid_between.is_none_or(|(from, to)| overlaps(validity, from, to))
    }

    /// An entity that passes every filter. Of others no more is read than what tells them apart.
    fn admitted(&self, graph: &GraphMoment<'_>, id: MemoryId) -> Result<Option<Entity>, ReadError> {
        if self.is_filtered() {
            let standing = graph.entity_standing(id)?;
            if standing.is_none_or(|(owner, validity)| !self.passes(&owner, validity)) {
                return Ok(None);
            }
        }
        Ok(graph.entity(id)?.filter(|entity| self.admits(entity)))
    }

    /// Whether an entity passes the filters that the rankings cannot judge.
    fn passes(&self, owner: &str, validity: Validity) -> bool {
        self.owner.as_ref().is_none_or(|wanted| wanted.as_str() == owner)
            && self.valid_between.is_none_or(|(from, to)| overlaps(validity, from, to))
    }

    /// Whether an entity passes every filter. The rankings have judged most of them, but may be behind the graph.
    fn admits(&self, entity: &Entity) -> bool {
        let typed = self.entity_types.is_empty() || self.entity_types.contains(&entity.entity_type);
        typed
            && self.passes(&entity.owner, entity.validity)
            && self.scopes.contains(&entity.scope)
            && self.valid_at.is_none_or(|at| entity.validity.contains(at))
    }
}

/// Keeps those of which `keep` says so.
fn retain<T>(
    items: &mut Vec<T>,
    mut keep: impl FnMut(&T) -> Result<bool, ReadError>,
) -> Result<(), ReadError> {
    let kept: Result<Vec<bool>, ReadError> = items.iter().map(&mut keep).collect();
    let mut kept = kept?.into_iter();
    items.retain(|_| kept.next().unwrap_or(false));
    Ok(())
}

fn overlaps(validity: Validity, from: Timestamp, to: Timestamp) -> bool {
    validity.from.is_none_or(|start| start < to) && validity.to.is_none_or(|end| end > from)
}

/// What counts of a score when steps of this size are not told apart.
fn step(score: f32, precision: f32) -> f32 {
    if precision > 0.0 { (score / precision).floor() } else { score }
}

/// Whether rows behind the last that was fetched may count as equal to the last hit: they are ordered by number, so that some may
/// come before it.
fn is_torn(hit: Option<f32>, row: Option<f32>, precision: f32) -> bool {
    precision > 0.0 && hit.zip(row).is_some_and(|(hit, row)| step(row, precision) >= step(hit, precision))
}

#[cfg(test)]
mod tests;
