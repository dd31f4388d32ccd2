//! Search in the memory: by meaning, by words, or by both.

use std::collections::HashMap;

use caxton_events::memory::Validity;
use caxton_events::{AgentId, MemoryId, Scope, Seq, Timestamp};

use super::fusion::{Candidate, fuse};
use crate::embedding::{EmbedError, QueryVector};
use crate::graph::{Direction, Entity, GraphMoment, Observation, ReadError, Relation, RelationFilter};
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
/// Entities, and observations of one, looked at together where a filter on them may refuse some.
const PAGE_MIN: usize = 16;
/// Relations listed with a hit.
const RELATIONS_MAX: usize = 50;

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
    /// Only entities that were true at some time from the first moment on and before the second.
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
    /// Its relations, if asked for.
    pub relations: Vec<Relation>,
}

/// What the graph says of a candidate.
struct HitRow<'a> {
    entity: Entity,
    found: &'a Candidate,
    observations: Vec<Observation>,
    matched: Option<Observation>,
}

/// The answer to a [`Search`].
#[derive(Debug, Clone, PartialEq)]
pub struct SearchAnswer {
    /// Best first.
    pub hits: Vec<SearchHit>,
    /// What ranked in the end: keyword where hybrid was asked for and no model is loaded.
    pub mode: SearchMode,
    /// Whether every vector was considered, so that no nearer one was missed.
    pub exact: bool,
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
        let mut counts = self.counting(view);
        // While the model is at the question, this thread looks for its words.
        let meanwhile = asked.as_ref().is_some_and(QueryVector::is_under_way);
        let mut words = if meanwhile { Some(self.by_words(view, mode, rows)?) } else { None };
        let query = asked.map(QueryVector::vector).transpose().map_err(SearchError::Embed)?;
        loop {
            // The threads that stand by for the vectors begin with them while this one looks for the words.
            let by_meaning = self.by_meaning(view, query.as_deref(), rows)?;
            let mut keyword = match words.take() {
                Some(words) => words,
                None => self.by_words(view, mode, rows)?,
            };
            let VectorAnswer { hits: mut semantic, exact } = by_meaning.finish();
            let saturated = semantic.len() >= rows || keyword.len() >= rows.min(KEYWORD_LIMIT_MAX);
            if self.valid_between.is_some() {
                retain(&mut semantic, |hit| counts(hit.entity, hit.row))?;
                retain(&mut keyword, |hit| counts(hit.entity, hit.row))?;
            }
            let ranked = self.ranked(&semantic, &keyword, mode);
            let hits = self.hits(view, ranked)?;
            if hits.len() >= self.limit || !saturated || rows >= ROWS_MAX {
                view.shown(hits.iter().map(|hit| hit.entity.id));
                return Ok(SearchAnswer { hits, mode, exact, seq });
            }
            rows = (rows * 8).min(ROWS_MAX);
        }
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
            limit: rows.min(KEYWORD_LIMIT_MAX),
        };
        Ok(view.graph().keyword(&query)?)
    }

    fn ranked(
        &self,
        semantic: &[VectorHit],
        keyword: &[TextHit],
        mode: SearchMode,
    ) -> Vec<(MemoryId, Candidate)> {
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
        if self.min_similarity.is_some() && mode != SearchMode::Keyword {
            ranked.retain(|(_, found)| found.similarity.is_some());
        }
        let precision = if mode == SearchMode::Semantic { self.precision } else { 0.0 };
        ranked.sort_by(|(id, a), (other, b)| {
            step(b.score, precision).total_cmp(&step(a.score, precision)).then(id.cmp(other))
        });
        ranked
    }

    /// The first `limit` candidates that pass the filters on entities, with all that is shown of them.
    fn hits(&self, view: &View, ranked: Vec<(MemoryId, Candidate)>) -> Result<Vec<SearchHit>, SearchError> {
        let mut hits = Vec::with_capacity(self.limit.min(ranked.len()));
        let filtered = self.owner.is_some() || self.valid_between.is_some();
        let mut ranked = ranked.into_iter();
        while hits.len() < self.limit {
            let missing = self.limit - hits.len();
            let page = ranked.by_ref().take(if filtered { missing.max(PAGE_MIN) } else { missing });
            let page: Vec<_> = page.collect();
            if page.is_empty() {
                break;
            }
            let rows = view.graph().at_once(|graph| self.rows(graph, &page, missing))?;
            for row in rows {
                hits.push(self.hit(view, row)?);
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
    ) -> Result<Vec<HitRow<'a>>, ReadError> {
        let mut rows = Vec::with_capacity(limit.min(page.len()));
        for (id, found) in page {
            if rows.len() == limit {
                break;
            }
            let Some(entity) = graph.entity(*id)?.filter(|entity| self.admits(entity)) else {
                continue;
            };
            let observations = self.shown(graph, *id)?;
            let matched = match matched_row(*id, found) {
                None => None,
                Some(row) => match observations.iter().find(|observation| observation.id == row) {
                    Some(observation) => Some(observation.clone()),
                    None => graph.observation(row)?,
                },
            };
            rows.push(HitRow { entity, found, observations, matched });
        }
        Ok(rows)
    }

    /// Whether a row was true at some time that is asked for; whether its entity was is judged with the entity.
    fn counting<'a>(
        &'a self,
        view: &'a View,
    ) -> impl FnMut(MemoryId, MemoryId) -> Result<bool, ReadError> + 'a {
        let mut known: HashMap<MemoryId, bool> = HashMap::new();
        move |entity, row| {
            if entity == row {
                return Ok(true);
            }
            if let Some(&counts) = known.get(&row) {
                return Ok(counts);
            }
            let observation = view.graph().observation(row)?;
            let counts = observation.is_some_and(|observation| self.shows(&observation));
            known.insert(row, counts);
            Ok(counts)
        }
    }

    /// Whether an observation was true at the time that is asked for.
    fn shows(&self, observation: &Observation) -> bool {
        self.valid_at.is_none_or(|at| observation.validity.contains(at))
            && self.valid_between.is_none_or(|(from, to)| overlaps(observation.validity, from, to))
    }

    /// The first observations of an entity that were true at the time that is asked for, as many as are shown.
    fn shown(&self, graph: &GraphMoment<'_>, entity: MemoryId) -> Result<Vec<Observation>, ReadError> {
        let filtered = self.valid_at.is_some() || self.valid_between.is_some();
        let mut page_rows = if filtered { self.observations.max(PAGE_MIN) } else { self.observations };
        let (mut shown, mut after, mut more) = (Vec::new(), MemoryId::default(), true);
        while more && shown.len() < self.observations {
            let page = graph.observations_of(entity, after, page_rows)?;
            more = page.len() == page_rows;
            after = page.last().map_or(after, |last| last.id);
            // What is true may lie behind much that no longer is.
            page_rows = (page_rows * 2).min(ROWS_MAX);
            shown.extend(page.into_iter().filter(|observation| self.shows(observation)));
        }
        shown.truncate(self.observations);
        Ok(shown)
    }

    fn admits(&self, entity: &Entity) -> bool {
        let owned = self.owner.as_ref().is_none_or(|owner| entity.owner == owner.as_str());
        owned && self.valid_between.is_none_or(|(from, to)| overlaps(entity.validity, from, to))
    }

    fn hit(&self, view: &View, row: HitRow<'_>) -> Result<SearchHit, SearchError> {
        let HitRow { entity, found, observations, matched } = row;
        let neighbours = match &matched {
            Some(observation) if self.neighbours > 0 => {
                view.graph().neighbours(observation.id, self.neighbours, self.neighbours)?
            }
            _ => Vec::new(),
        };
        let relations = if self.include_relations {
            let scopes = self.scopes.clone();
            let visible = RelationFilter { scopes, limit: RELATIONS_MAX, ..RelationFilter::default() };
            view.graph().relations_around(entity.id, Direction::Both, &visible)?
        } else {
            Vec::new()
        };
        let mut matched_by = Vec::with_capacity(2);
        if found.similarity.is_some() {
            matched_by.push("semantic");
        }
        if found.keyword_score.is_some() {
            matched_by.push("keyword");
        }
        Ok(SearchHit {
            entity,
            score: found.score,
            similarity: found.similarity,
            keyword_score: found.keyword_score,
            matched,
            observations,
            matched_by,
            matched_name: found.keyword_in_name,
            neighbours,
            relations,
        })
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

/// The observation to show as the reason: the semantic ranking's row before the keyword's, `None` for a header.
fn matched_row(entity: MemoryId, found: &Candidate) -> Option<MemoryId> {
    [found.semantic_row, found.keyword_row].into_iter().flatten().find(|row| *row != entity)
}

fn overlaps(validity: Validity, from: Timestamp, to: Timestamp) -> bool {
    validity.from.is_none_or(|start| start < to) && validity.to.is_none_or(|end| end > from)
}

/// What counts of a score when steps of this size are not told apart.
fn step(score: f32, precision: f32) -> f32 {
    if precision > 0.0 { (score / precision).floor() } else { score }
}

#[cfg(test)]
mod tests {
    use super::step;

    #[test]
    fn scores_within_a_step_are_equal_and_others_keep_their_order() {
        for (a, b, precision, equal) in [
            (0.912, 0.914, 0.01, true),
            (0.91, 0.93, 0.01, false),
            (-0.013, -0.011, 0.01, true),
            (0.912, 0.914, 0.0, false),
        ] {
            let (a, b) = (step(a, precision), step(b, precision));
            assert_eq!(a.total_cmp(&b).is_eq(), equal, "{a} {b} {precision}");
            assert!(a <= b);
        }
    }
}
