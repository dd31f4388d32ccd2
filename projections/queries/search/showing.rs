//! What is shown of the entities that were found, read only as far as an answer has room for it.

use caxton_events::MemoryId;

use super::room::Room;
use super::{Candidate, HitRow, PAGE_ROWS, Refused, Search, SearchError, SearchHit};
use crate::graph::{Direction, GraphMoment, Observation, ReadError, RelationFilter};
use crate::view::View;

/// Relations listed with a hit.
const RELATIONS_MAX: usize = 50;

/// Observations that are shown, and whether some may be left out for want of room.
type Shown = (Vec<Observation>, bool);

impl Search {
    /// The observation to show as the reason, and whether there is no room for it: the semantic ranking's row before the keyword's,
    /// none for a header. What is not shown at the time that is asked for is noted.
    pub(super) fn matched(
        &self,
        graph: &GraphMoment<'_>,
        (entity, found): (MemoryId, &Candidate),
        observations: &[Observation],
        (refused, room): (&mut Refused, &mut Room),
    ) -> Result<(Option<Observation>, bool), ReadError> {
        let rows = [found.semantic_row, found.keyword_row].into_iter().flatten();
        for row in rows.filter(|row| *row != entity) {
            let known = observations.iter().find(|observation| observation.id == row);
            if known.is_none() && !room.is_open() && self.lacks_room(graph, row, room)? {
                return Ok((None, true));
            }
            let observation = match known {
                Some(observation) => Some(observation.clone()),
                None => graph.observation(row)?.filter(|observation| self.shows(observation.validity)),
            };
            if let Some(observation) = observation {
                let fits = room.takes_matched(observation.content.len());
                return Ok((fits.then_some(observation), !fits));
            }
            refused.rows.insert(row);
        }
        Ok((None, false))
    }

    /// Whether an observation that would be shown is longer than what is left of the room. Its text is not read.
    fn lacks_room(&self, graph: &GraphMoment<'_>, row: MemoryId, room: &Room) -> Result<bool, ReadError> {
        let extent = graph.observation_extent(row)?;
        Ok(extent.is_some_and(|(validity, bytes)| self.shows(validity) && !room.fits_matched(bytes)))
    }

    /// The first observations of an entity that were true at the time that is asked for, as many as are shown.
    pub(super) fn shown(
        &self,
        graph: &GraphMoment<'_>,
        entity: MemoryId,
        room: &mut Room,
    ) -> Result<Shown, ReadError> {
        let filtered = self.valid_at.is_some() || self.valid_between.is_some();
        // Each has up to 1 MiB: nobody holds many of them before it is known how large they are.
        let page_rows = if filtered { PAGE_ROWS } else { self.observations.min(PAGE_ROWS) };
        let (mut shown, mut after, mut more) = (Vec::new(), MemoryId::default(), true);
        while more && shown.len() < self.observations {
            if !room.is_open() {
                return Ok((shown, true));
            }
            let page = graph.observations_of(entity, after, page_rows)?;
            more = page.len() == page_rows;
            after = page.last().map_or(after, |last| last.id);
            for observation in page {
                if shown.len() == self.observations {
                    break;
                }
                if self.shows(observation.validity) {
                    if !room.takes(observation.content.len()) {
                        return Ok((shown, true));
                    }
                    shown.push(observation);
                }
            }
        }
        Ok((shown, false))
    }

    /// The observations of the same entity that were written just before and after one, in their order.
    fn around(
        &self,
        graph: &GraphMoment<'_>,
        matched: &Observation,
        room: &mut Room,
    ) -> Result<Shown, ReadError> {
        let entity = matched.entity;
        let before = |from, limit| graph.observations_before(entity, from, limit);
        let (mut found, cut_before) = self.beside(matched.id, room, before)?;
        found.reverse();
        let after = |from, limit| graph.observations_of(entity, from, limit);
        let (others, cut_after) = self.beside(matched.id, room, after)?;
        found.extend(others);
        Ok((found, cut_before || cut_after))
    }

    /// Those of one side, which `page` reads from one on, nearest first.
    fn beside(
        &self,
        mut from: MemoryId,
        room: &mut Room,
        page: impl Fn(MemoryId, usize) -> Result<Vec<Observation>, ReadError>,
    ) -> Result<Shown, ReadError> {
        let (mut found, mut missing) = (Vec::new(), self.neighbours);
        while missing > 0 {
            if !room.is_open() {
                return Ok((found, true));
            }
            let asked = missing.min(PAGE_ROWS);
            let read = page(from, asked)?;
            missing = if read.len() == asked { missing - asked } else { 0 };
            from = read.last().map_or(from, |last| last.id);
            for observation in read.into_iter().filter(|observation| self.shows(observation.validity)) {
                if !room.takes(observation.content.len()) {
                    return Ok((found, true));
                }
                found.push(observation);
            }
        }
        Ok((found, false))
    }

    pub(super) fn hit(
        &self,
        view: &View,
        row: HitRow<'_>,
        room: &mut Room,
    ) -> Result<SearchHit, SearchError> {
        let HitRow { entity, found, observations, matched, mut truncated } = row;
        let (neighbours, is_cut) = match &matched {
            Some(matched) if self.neighbours > 0 => {
                view.graph().at_once(|graph| self.around(graph, matched, room))?
            }
            _ => (Vec::new(), false),
        };
        truncated |= is_cut;
        let mut relations = Vec::new();
        if self.include_relations && room.is_open() {
            let filter = RelationFilter {
                scopes: self.scopes.clone(),
                valid_at: self.valid_at,
                valid_between: self.valid_between,
                // One more says that there is more.
                limit: RELATIONS_MAX + 1,
                ..RelationFilter::default()
            };
            relations = view.graph().relations_around(entity.id, Direction::Both, &filter)?;
            truncated |= relations.len() > RELATIONS_MAX;
            relations.truncate(RELATIONS_MAX);
            truncated |=
                room.cuts(&mut relations, |relation| relation.metadata.as_ref().map_or(0, String::len));
        } else {
            truncated |= self.include_relations;
        }
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
            truncated,
        })
    }
}
