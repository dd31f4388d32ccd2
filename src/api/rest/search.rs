//! Search: by query string or by body, with the reasons of each hit.

use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use caxton_events::{Clock as _, Seq, Timestamp};
use caxton_projections::queries::{Fusion, Search, SearchHit, SearchMode};
use caxton_projections::view::{View, Wait};
use serde::Serialize;

use super::Api;
use super::batch::millis;
use super::call::{Call, ReadContext};
use super::caller::CALLER;
use super::fields::Fields;
use super::moment::Intervention;
use super::options::{Measure, SearchDefaults};
use super::problem::Problem;
use super::refusals::search_failed;
use super::rows::{self, EntityRow, ObservationRow, RelationRow};
use crate::engine::SystemClock;
use crate::engine::searches::Asking;

/// Longest question, in bytes. The model reads its first 256 tokens only.
const QUERY_BYTES_MAX: usize = 16 << 10;
/// Most observations shown with a hit, and most neighbours on each side of the matched one.
const SHOWN_MAX: u64 = 100;

const SEARCH: &[&str] = &[
    "query",
    "mode",
    "fusion",
    "semantic_weight",
    "entity_types",
    "owner",
    "limit",
    "min_similarity",
    "include_relations",
    "temporal_filter",
    "valid_at",
    "start_date",
    "end_date",
    "neighbours",
    "observation_limit",
    "exact",
];
const MODES: &[(&str, SearchMode)] =
    &[("hybrid", SearchMode::Hybrid), ("semantic", SearchMode::Semantic), ("keyword", SearchMode::Keyword)];

#[derive(Clone, Copy)]
enum Temporal {
    Current,
    All,
    DateRange,
}

const TEMPORAL: &[(&str, Temporal)] =
    &[("current", Temporal::Current), ("all", Temporal::All), ("date_range", Temporal::DateRange)];

/// A search with what is shown of its hits.
struct Asked {
    context: ReadContext,
    search: Search,
    /// Only what is true when it is asked: now, or as of the moment that is asked about.
    current: bool,
    /// The client wants none of the answers that are kept.
    afresh: bool,
}

/// `GET /memory/search`.
pub(super) async fn by_query(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[ReadContext::QUERY[0], ReadContext::QUERY[1], SEARCH])?;
    let context = ReadContext::take(&call, &mut query);
    let asked = asked(&api.options.search, context, &mut query);
    query.finish()?;
    answer(&api, Asked { afresh: wants_afresh(call.headers()), ..asked }).await
}

/// `POST /memory/search`: the same members as a JSON object. Who asks may stand in the query string as well, as of a write.
pub(super) async fn by_body(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[CALLER])?;
    let mut body = call.members(&[ReadContext::QUERY[0], ReadContext::QUERY[1], SEARCH])?;
    let context = ReadContext::take_body(&call, &mut query, &mut body);
    let asked = asked(&api.options.search, context, &mut body);
    body.absorb(query);
    body.finish()?;
    answer(&api, Asked { afresh: wants_afresh(call.headers()), ..asked }).await
}

fn asked(defaults: &SearchDefaults, context: ReadContext, fields: &mut Fields) -> Asked {
    let blank = fields.peek_text("query").is_some_and(|text| text.trim().is_empty());
    let text = fields.required_text("query");
    if blank {
        fields.complain("query", Some(&text), "is empty", "say what to look for");
    } else if text.len() > QUERY_BYTES_MAX {
        let message = format!("takes {} bytes, the limit is {QUERY_BYTES_MAX}", text.len());
        fields.complain("query", None, &message, "shorten it: the model reads the first 256 tokens");
    }
    let mode = fields.choice("mode", MODES).unwrap_or(defaults.mode);
    let fusion = fusion(defaults, mode, fields);
    let min_similarity = min_similarity(mode, fields);
    let TimeFilter { valid_at, valid_between, current } = time_filter(fields);
    let search = Search {
        text,
        mode,
        fusion,
        scopes: context.scopes.clone(),
        entity_types: fields.types("entity_types"),
        owner: fields.parsed("owner"),
        valid_at,
        valid_between,
        min_similarity,
        limit: fields
            .integer("limit", 1..=defaults.limit_max as u64)
            .map_or(defaults.limit, |limit| limit as usize),
        observations: fields.integer("observation_limit", 0..=SHOWN_MAX).unwrap_or(10) as usize,
        neighbours: fields
            .integer("neighbours", 0..=SHOWN_MAX)
            .map_or(defaults.neighbours, |count| count as usize),
        include_relations: fields.flag("include_relations").unwrap_or(false),
        exact: exact(mode, fields).unwrap_or(defaults.exact),
        precision: defaults.precision,
    };
    Asked { context, search, current, afresh: false }
}

/// Whether `Cache-Control` says that the answer is not to be one that is kept (RFC 9111, section 5.2.1).
fn wants_afresh(headers: &HeaderMap) -> bool {
    let said = headers.get_all(header::CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
    said.flat_map(|value| value.split(',')).any(|directive| {
        let directive = directive.trim();
        ["no-cache", "no-store", "max-age=0"].iter().any(|known| directive.eq_ignore_ascii_case(known))
    })
}

/// How meaning and words are fused. Where one of them ranks alone there is nothing to fuse, and who says how is told so.
fn fusion(defaults: &SearchDefaults, mode: SearchMode, fields: &mut Fields) -> Fusion {
    let alone = match mode {
        SearchMode::Hybrid => None,
        SearchMode::Semantic => Some("does not go with mode=semantic, which ranks by meaning alone"),
        SearchMode::Keyword => Some("does not go with mode=keyword, which ranks by words alone"),
    };
    let word = fields.peek_text("fusion");
    let weight = fields.number("semantic_weight", 0.0..=1.0);
    let reciprocal =
        fields.choice("fusion", &[("weighted", false), ("reciprocal_rank", true), ("rrf", true)]);
    if let Some(message) = alone {
        let said =
            [("fusion", reciprocal.and(word)), ("semantic_weight", weight.map(|weight| weight.to_string()))];
        for (name, value) in said {
            if value.is_some() {
                fields.complain(name, value.as_deref(), message, "leave it out, or search with mode=hybrid");
            }
        }
        return defaults.fusion;
    }
    match (reciprocal, weight) {
        (Some(true), Some(_)) => {
            fields.complain(
                "semantic_weight",
                None,
                "does not go with fusion=reciprocal_rank",
                "leave one of them out",
            );
            Fusion::ReciprocalRank
        }
        (Some(true), None) => Fusion::ReciprocalRank,
        (_, Some(weight)) => Fusion::Weighted { semantic_weight: weight as f32 },
        (Some(false), None) => Fusion::Weighted { semantic_weight: defaults.semantic_weight },
        (None, None) => defaults.fusion,
    }
}

/// The least cosine of a hit. Where words alone rank there are no cosines, and an answer that passed the bound over would
/// hold what the client did not want.
fn min_similarity(mode: SearchMode, fields: &mut Fields) -> Option<f32> {
    let least = fields.number("min_similarity", -1.0..=1.0)?;
    if mode == SearchMode::Keyword {
        fields.complain(
            "min_similarity",
            Some(&least.to_string()),
            "does not go with mode=keyword, which compares no vectors",
            "leave it out, or search with mode=semantic or mode=hybrid",
        );
    }
    Some(least as f32)
}

/// Whether every vector is compared. Where words alone rank none is.
fn exact(mode: SearchMode, fields: &mut Fields) -> Option<bool> {
    let exact = fields.flag("exact")?;
    if exact && mode == SearchMode::Keyword {
        fields.complain(
            "exact",
            Some("true"),
            "does not go with mode=keyword, which compares no vectors",
            "leave it out, or search with mode=semantic or mode=hybrid",
        );
    }
    Some(exact)
}

/// What must be true: at a moment, within a range, when it is asked, or ever.
#[derive(Default)]
struct TimeFilter {
    valid_at: Option<Timestamp>,
    valid_between: Option<(Timestamp, Timestamp)>,
    current: bool,
}

fn time_filter(fields: &mut Fields) -> TimeFilter {
    let current = TimeFilter { current: true, ..TimeFilter::default() };
    let at = fields.time("valid_at");
    let (start_given, end_given) = (fields.has("start_date"), fields.has("end_date"));
    let (start, end) = (fields.time("start_date"), fields.time("end_date"));
    let temporal = fields.choice("temporal_filter", TEMPORAL);
    let ranged = start_given || end_given;
    match temporal {
        Some(Temporal::Current | Temporal::All) if ranged || at.is_some() => {
            fields.complain(
                "temporal_filter",
                None,
                "does not go with valid_at, start_date or end_date",
                "leave it out, or use date_range with both dates",
            );
        }
        Some(Temporal::DateRange) if at.is_some() => {
            fields.complain("valid_at", None, "does not go with date_range", "leave one of them out");
        }
        Some(Temporal::All) => return TimeFilter::default(),
        Some(Temporal::DateRange) | None if ranged || temporal.is_some() => match (start, end) {
            (Some(start), Some(end)) if start < end => {
                return TimeFilter { valid_between: Some((start, end)), ..TimeFilter::default() };
            }
            (Some(start), Some(_)) => {
                let message = format!("is not after start_date ({start})");
                fields.complain("end_date", None, &message, "give a later moment");
            }
            (None, _) if !start_given => fields.complain("start_date", None, "is missing", "give both dates"),
            (_, None) if !end_given => fields.complain("end_date", None, "is missing", "give both dates"),
            _ => (),
        },
        Some(Temporal::DateRange) | None if at.is_some() => {
            return TimeFilter { valid_at: at, ..TimeFilter::default() };
        }
        Some(Temporal::Current | Temporal::DateRange) | None => return current,
    }
    TimeFilter::default()
}

/// An answer as clients see it.
///
/// Written as it is, without a tree of values between: with its hits that would take hundreds of allocations.
#[derive(Serialize)]
struct Answer<'a> {
    query: &'a str,
    mode: Option<&'static str>,
    total_results: usize,
    results: Vec<HitRow>,
    memory_scope: Option<&'static str>,
    search_time_ms: f64,
    seq: Seq,
    events_behind: u64,
    /// Hits may be lacking: a filter kept so little that the look was ended before all rows were seen.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    incomplete: bool,
    #[serde(flatten)]
    past: Option<Past>,
}

/// What an answer about the past says besides.
#[derive(Serialize)]
struct Past {
    /// Whether every row was compared: then the same question has this answer however much is written later.
    exact: bool,
    /// What happened since that the answer cannot undo.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    intervened: Vec<Intervention>,
}

/// A hit as clients see it. Scores are shown as the `f64` that is equal to the `f32`, digit by digit.
#[derive(Serialize)]
struct HitRow {
    #[serde(flatten)]
    entity: EntityRow,
    /// How near in meaning, by the measure that `why` names; null where only words found it.
    similarity_score: Option<f64>,
    /// What ranks.
    score: f64,
    why: Why,
    #[serde(skip_serializing_if = "Option::is_none")]
    neighbours: Option<Vec<ObservationRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relations: Option<Vec<RelationRow>>,
    /// Something of this was left out, because one answer has no room for it, or shows no more relations.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

/// Why something was found.
#[derive(Serialize)]
struct Why {
    matched_by: Vec<&'static str>,
    /// What `similarity_score` is, where it is not the cosine.
    #[serde(skip_serializing_if = "Option::is_none")]
    measure: Option<&'static str>,
    cosine: Option<f64>,
    bm25: Option<f64>,
    matched_name: bool,
    matched_observation: Option<ObservationRow>,
}

async fn answer(api: &Api, mut asked: Asked) -> Result<Response, Problem> {
    let started = Instant::now();
    let semantic = asked.search.mode != SearchMode::Keyword;
    let wait = if semantic { Wait::Indexed } else { Wait::Applied };
    let moment = api.moment(&asked.context, wait).await?;
    if asked.current {
        // As of a moment it is not the time of asking that counts: the answer would change with it.
        asked.search.valid_at = Some(moment.map_or_else(|| SystemClock.now(), |moment| moment.recorded_at));
    }
    let meter = api.clone();
    api.read_at(moment, move |view| {
        let searched = Instant::now();
        let head = meter.engine.log().head().seq.0;
        let asking = Asking { at_present: asked.current, afresh: asked.afresh };
        let found =
            meter.engine.search(view, &asked.search, asking).map_err(|error| search_failed(&error))?;
        meter.meter.search_finished(searched.elapsed());
        let measure = meter.options.search.measure;
        let mut results = Vec::with_capacity(found.hits.len());
        for hit in found.hits {
            results.push(shown(view, hit, &asked, measure)?);
        }
        let mode = MODES.iter().find(|(_, mode)| *mode == found.mode).map(|(word, _)| *word);
        let caller = &asked.context.caller;
        let past = match view.moment() {
            None => None,
            Some(seq) => {
                let by_meaning = found.mode != SearchMode::Keyword;
                let intervened = meter.interventions.since(meter.engine.log(), seq, by_meaning)?;
                Some(Past { exact: found.exact, intervened })
            }
        };
        let body = Answer {
            query: &asked.search.text,
            mode,
            total_results: results.len(),
            results,
            memory_scope: caller.named.map(|kind| caller.scope(kind).kind()),
            search_time_ms: millis(started),
            seq: found.seq,
            events_behind: if past.is_some() { 0 } else { head.saturating_sub(found.seq.0) },
            incomplete: !found.complete,
            past,
        };
        let mut response = rows::shown(view, &body)?;
        // The time it took differs each time, so a tag would never match.
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, axum::http::HeaderValue::from_static("private, no-store"));
        Ok(response)
    })
    .await
}

fn shown(view: &View, hit: SearchHit, asked: &Asked, measure: Measure) -> Result<HitRow, Problem> {
    let mut entity = EntityRow::from(hit.entity);
    if asked.search.observations > 0 {
        entity.observations = Some(hit.observations.into_iter().map(ObservationRow::from).collect());
    }
    let relations = if asked.search.include_relations {
        Some(RelationRow::all(view, hit.relations, &asked.context.caller.visible())?)
    } else {
        None
    };
    let neighbours =
        (asked.search.neighbours > 0).then(|| hit.neighbours.into_iter().map(ObservationRow::from).collect());
    Ok(HitRow {
        entity,
        similarity_score: hit.similarity.map(|cosine| measure.of(f64::from(cosine))),
        score: if asked.search.mode == SearchMode::Semantic {
            measure.of(f64::from(hit.score))
        } else {
            f64::from(hit.score)
        },
        why: Why {
            matched_by: hit.matched_by,
            measure: (measure != Measure::Cosine).then(|| measure.as_str()),
            cosine: hit.similarity.map(f64::from),
            bm25: hit.keyword_score.map(f64::from),
            matched_name: hit.matched_name,
            matched_observation: hit.matched.map(ObservationRow::from),
        },
        neighbours,
        relations,
        truncated: hit.truncated,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Fields, Fusion, SEARCH, SearchDefaults, SearchMode, fusion};

    #[test]
    fn a_weighted_fusion_has_the_weight_that_the_server_is_told() {
        let weighted = |semantic_weight| Fusion::Weighted { semantic_weight };
        for default in [Fusion::ReciprocalRank, weighted(0.3)] {
            let defaults =
                SearchDefaults { fusion: default, semantic_weight: 0.3, ..SearchDefaults::default() };
            for (asked, then) in [
                (json!({"fusion": "weighted"}), weighted(0.3)),
                (json!({"fusion": "weighted", "semantic_weight": 0.9}), weighted(0.9)),
                (json!({"semantic_weight": 0.9}), weighted(0.9)),
                (json!({"fusion": "rrf"}), Fusion::ReciprocalRank),
                (json!({}), default),
            ] {
                let shown = asked.to_string();
                let mut fields = Fields::object(asked, String::new(), &[SEARCH]);
                assert_eq!(fusion(&defaults, SearchMode::Hybrid, &mut fields), then, "{shown}");
                assert!(fields.into_complaint().is_none(), "{shown}");
            }
        }
    }
}
