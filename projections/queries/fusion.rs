//! Two rankings made one.

use std::collections::HashMap;

use caxton_events::MemoryId;

use super::search::Fusion;
use crate::text::{TextHit, TextHitKind};
use crate::vector::VectorHit;

/// The constant of reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009).
const RECIPROCAL_RANK_K: f32 = 60.0;

/// The least difference of cosines that counts as all the difference there is. Of a large memory the candidates span
/// about as much; of a small one the worst may be nearly as good as the best, and must not count as nothing.
const SIMILARITY_SPAN_MIN: f32 = 0.3;

/// An entity that some ranking found, with the best row of each.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Candidate {
    pub(super) score: f32,
    pub(super) similarity: Option<f32>,
    pub(super) semantic_row: Option<MemoryId>,
    pub(super) keyword_score: Option<f32>,
    pub(super) keyword_row: Option<MemoryId>,
    pub(super) keyword_in_name: bool,
}

/// The entities of both rankings with their fused score, best first; ties by number.
///
/// `semantic` and `keyword` are ordered best first and hold rows; of each entity the best row counts.
pub(super) fn fuse(
    semantic: &[VectorHit],
    keyword: &[TextHit],
    fusion: Fusion,
) -> Vec<(MemoryId, Candidate)> {
    let mut candidates: HashMap<MemoryId, Candidate> = HashMap::new();
    let mut similarities = Vec::new();
    for hit in semantic {
        let candidate = candidates.entry(hit.entity).or_default();
        if candidate.similarity.is_none() {
            candidate.similarity = Some(hit.similarity);
            candidate.semantic_row = Some(hit.row);
            similarities.push(hit.similarity);
            if let Fusion::ReciprocalRank = fusion {
                candidate.score += 1.0 / (RECIPROCAL_RANK_K + similarities.len() as f32);
            }
        }
    }
    let mut keyword_rank = 0.0;
    for hit in keyword {
        let candidate = candidates.entry(hit.entity).or_default();
        candidate.keyword_in_name |= hit.kind == TextHitKind::Header;
        if candidate.keyword_score.is_none() {
            candidate.keyword_score = Some(hit.score);
            candidate.keyword_row = Some(hit.row);
            keyword_rank += 1.0;
            if let Fusion::ReciprocalRank = fusion {
                candidate.score += 1.0 / (RECIPROCAL_RANK_K + keyword_rank);
            }
        }
    }
    if let Fusion::Weighted { semantic_weight } = fusion {
        let best_keyword = keyword.first().map_or(0.0, |hit| hit.score);
        for candidate in candidates.values_mut() {
            let by_words = candidate.keyword_score.map_or(0.0, |score| normalised(score, 0.0, best_keyword));
            let by_meaning = candidate.similarity.map_or(0.0, |similarity| {
                let best = similarities.first().copied().unwrap_or(0.0);
                meant(similarity, similarities.last().copied().unwrap_or(0.0), best)
            });
            candidate.score = semantic_weight * by_meaning + (1.0 - semantic_weight) * by_words;
        }
    }
    let mut ranked: Vec<_> = candidates.into_iter().collect();
    ranked.sort_by(|(id, a), (other, b)| b.score.total_cmp(&a.score).then(id.cmp(other)));
    ranked
}

/// What an entity that words alone found has more at the most once its similarity is known, where that is not above those
/// of the `candidates`.
pub(super) fn gain_max(candidates: &[(MemoryId, Candidate)], fusion: Fusion) -> f32 {
    let similarities = candidates.iter().filter_map(|(_, found)| found.similarity);
    match fusion {
        Fusion::ReciprocalRank => 1.0 / (RECIPROCAL_RANK_K + similarities.count() as f32 + 1.0),
        Fusion::Weighted { semantic_weight } => {
            let ends = (f32::INFINITY, f32::NEG_INFINITY);
            let (worst, best) =
                similarities.fold(ends, |(worst, best), found| (worst.min(found), best.max(found)));
            semantic_weight * meant(worst, worst, best)
        }
    }
}

/// What a similarity counts among candidates of which these are the worst and the best.
fn meant(similarity: f32, worst: f32, best: f32) -> f32 {
    normalised(similarity, worst.min(best - SIMILARITY_SPAN_MIN), best)
}

/// `score` on a line where `worst` is 0 and `best` is 1.
fn normalised(score: f32, worst: f32, best: f32) -> f32 {
    if best > worst { (score - worst) / (best - worst) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use caxton_events::MemoryId;

    use super::{Fusion, TextHit, TextHitKind, VectorHit, fuse, gain_max};

    fn alike(entity: u64, similarity: f32) -> VectorHit {
        VectorHit { row: MemoryId(entity + 100), entity: MemoryId(entity), chunk: 0, similarity }
    }

    fn worded(entity: u64, score: f32) -> TextHit {
        TextHit { row: MemoryId(entity), entity: MemoryId(entity), score, kind: TextHitKind::Header }
    }

    #[track_caller]
    fn check(fusion: Fusion, semantic: &[VectorHit], keyword: &[TextHit], then: &[u64]) {
        let order: Vec<u64> = fuse(semantic, keyword, fusion).into_iter().map(|(id, _)| id.0).collect();
        assert_eq!(order, then);
    }

    #[test]
    fn what_both_rankings_found_comes_first() {
        let semantic = [alike(1, 0.9), alike(2, 0.8), alike(2, 0.7), alike(3, 0.1)];
        let keyword = [worded(4, 8.0), worded(2, 7.0)];
        check(Fusion::Weighted { semantic_weight: 0.6 }, &semantic, &keyword, &[2, 1, 4, 3]);
        check(Fusion::ReciprocalRank, &semantic, &keyword, &[2, 1, 4, 3]);
    }

    #[test]
    fn a_clear_meaning_beats_a_common_word() {
        // Found for "draw a plot from a terminal": a plotter by meaning alone, a terminal by its word as well.
        let semantic = [alike(1, 0.66), alike(2, 0.45), alike(3, 0.41)];
        let keyword = [worded(4, 10.0), worded(2, 7.5)];
        check(Fusion::Weighted { semantic_weight: 0.6 }, &semantic, &keyword, &[1, 2, 4, 3]);
        // Two that mean nearly the same: the word decides.
        let semantic = [alike(1, 0.48), alike(2, 0.46)];
        check(Fusion::Weighted { semantic_weight: 0.6 }, &semantic, &[worded(2, 3.0)], &[2, 1]);
    }

    #[test]
    fn one_ranking_alone_keeps_its_order() {
        let semantic = [alike(5, 0.5), alike(4, 0.5), alike(3, -0.2)];
        check(Fusion::Weighted { semantic_weight: 1.0 }, &semantic, &[], &[4, 5, 3]);
        check(Fusion::Weighted { semantic_weight: 0.6 }, &[], &[worded(9, 2.0), worded(1, 1.0)], &[9, 1]);
        check(Fusion::ReciprocalRank, &[], &[], &[]);
    }

    #[test]
    fn what_words_found_gains_no_more_than_the_last_that_is_known() {
        let semantic = [alike(1, 0.9), alike(2, 0.8), alike(3, 0.7)];
        for (fusion, last) in [
            (Fusion::Weighted { semantic_weight: 0.6 }, 0.6 * (0.7 - 0.6) / 0.3),
            (Fusion::ReciprocalRank, 1.0 / 64.0),
        ] {
            let gain = gain_max(&fuse(&semantic, &[], fusion), fusion);
            assert!((gain - last).abs() < 1e-5, "{fusion:?}: {gain}, not {last}");
            // As much as it then has more.
            let (of_words, more) = ([worded(4, 5.0)], [semantic.as_slice(), &[alike(4, 0.7)]].concat());
            let score = |semantic: &[VectorHit]| {
                let found = fuse(semantic, &of_words, fusion);
                found.into_iter().find(|(id, _)| id.0 == 4).map_or(0.0, |(_, found)| found.score)
            };
            assert!((score(&more) - score(&semantic) - gain).abs() < 1e-5, "{fusion:?}");
        }
    }
}
