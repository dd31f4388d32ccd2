//! What must go or stay together: rows are looked at again and again until none is in the way of another.

use std::collections::{BTreeMap, HashMap};

use caxton_events::limits::UNDO_EVENTS_MAX;
use caxton_events::memory::Later;
use caxton_events::{MemoryId, Seq};
use caxton_projections::graph::{GraphMoment, RowRef};

use super::rows::{Place, Row, entities_of, place};
use super::{LOADED_BYTES_MAX, LaterFact, PlanError, Why};

/// Rows that are looked at, more than facts that are undone: what belongs to entities that would go is among them.
const ROWS_MAX: usize = 2 * UNDO_EVENTS_MAX;

/// A plan in the making.
pub(super) struct Planner<'a> {
    memory: &'a GraphMoment<'a>,
    undone: &'a BTreeMap<Seq, Vec<Seq>>,
    later: Later,
    rows: BTreeMap<RowRef, Row>,
    /// Bytes that texts of further rows may take.
    room: usize,
    /// Each with the row that it builds on.
    later_facts: BTreeMap<Seq, (LaterFact, RowRef)>,
    /// Who holds the place that a row would come back to, for each such row and place.
    holders: HashMap<(RowRef, Place), Option<RowRef>>,
}

/// Facts about one row that build on what is undone of another, or of the same.
struct Clash {
    undone: RowRef,
    /// The first of the facts that they build on.
    builds_on: Seq,
    by: RowRef,
    facts: Vec<Seq>,
    why: Why,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        memory: &'a GraphMoment<'a>,
        undone: &'a BTreeMap<Seq, Vec<Seq>>,
        later: Later,
    ) -> Self {
        let (rows, later_facts, holders) = (BTreeMap::new(), BTreeMap::new(), HashMap::new());
        Self { memory, undone, later, rows, room: LOADED_BYTES_MAX, later_facts, holders }
    }

    /// Asks for a fact about a row. What the graph does not know of, because it is gone for good, is passed over.
    pub(super) fn choose(&mut self, row: RowRef, seq: Seq) -> Result<(), PlanError> {
        let undone = self.undone;
        self.load(row)?.choose(seq, undone);
        Ok(())
    }

    /// Every row that was looked at.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// The same with what they are.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (&RowRef, &Row)> {
        self.rows.iter()
    }

    /// The facts that were found to build on undone ones, by position. Chosen ones that had to stay are none of them, nor
    /// are those whose rows will be what they are: what others took back already is in nobody's way.
    pub(super) fn later_facts(self) -> Vec<LaterFact> {
        let Self { rows, later_facts, later, .. } = self;
        let changes = |row: &RowRef| rows.get(row).is_some_and(Row::changes);
        let is_chosen =
            |fact: &LaterFact| rows.get(&fact.row).is_some_and(|row| row.chosen.contains(&fact.seq));
        let matters = |(fact, on): &(LaterFact, RowRef)| {
            !is_chosen(fact) && (later == Later::Keep || changes(&fact.row) || changes(on))
        };
        later_facts.into_values().filter(matters).map(|(fact, _)| fact).collect()
    }

    /// The row with its history, from the memory at first.
    pub(super) fn load(&mut self, row: RowRef) -> Result<&mut Row, PlanError> {
        if !self.rows.contains_key(&row) {
            if self.rows.len() >= ROWS_MAX {
                return Err(PlanError::TooMany);
            }
            let Some(versions) = self.memory.versions(row, self.room)? else {
                return Err(PlanError::TooLarge);
            };
            self.room -= versions.iter().map(|version| version.fact.text_bytes()).sum::<usize>();
            self.rows.insert(row, Row::new(versions, self.undone));
        }
        let undone = self.undone;
        Ok(self.rows.entry(row).or_insert_with(|| Row::new(Vec::new(), undone)))
    }

    /// Takes along or leaves, as asked, until nothing that stays builds on something that does not.
    pub(super) fn settle(&mut self) -> Result<(), PlanError> {
        loop {
            let mut moved = false;
            for clash in self.on_same_rows() {
                moved |= self.give_way(clash)?;
            }
            for clash in self.about_entities()? {
                moved |= self.give_way(clash)?;
            }
            for clash in self.in_places()? {
                moved |= self.give_way(clash)?;
            }
            if self.rows.values().map(|row| row.undone().len()).sum::<usize>() > UNDO_EVENTS_MAX {
                return Err(PlanError::TooMany);
            }
            if !moved {
                return Ok(());
            }
        }
    }

    /// Lets the facts of a clash go too, or what they build on stay; whether that changed anything.
    fn give_way(&mut self, clash: Clash) -> Result<bool, PlanError> {
        let Clash { undone, builds_on, by, facts, why } = clash;
        let Some(last) = facts.last().copied() else { return Ok(false) };
        for seq in &facts {
            let fact = LaterFact { seq: *seq, row: by, builds_on, why };
            self.later_facts.entry(*seq).or_insert((fact, undone));
        }
        let known = self.undone;
        if self.later == Later::Keep {
            return Ok(self.load(undone)?.keep_through(last, known));
        }
        if let (RowRef::Entity(entity), Why::Removed(_)) = (by, why) {
            // Whoever removed the entity removed what it had, and all of it comes back.
            for (seq, row) in self.memory.removed_with(entity, last)? {
                if self.load(row)?.take([seq], known) {
                    let fact = LaterFact { seq, row, builds_on, why };
                    self.later_facts.entry(seq).or_insert((fact, undone));
                }
            }
        }
        Ok(self.load(by)?.take(facts, known))
    }

    /// Facts that changed what an undone fact had made of the same row.
    fn on_same_rows(&self) -> Vec<Clash> {
        let clash = |(row, found): (&RowRef, &Row)| {
            let (facts, builds_on) = (found.built_upon(), *found.undone().first()?);
            let clash = Clash { undone: *row, builds_on, by: *row, facts, why: Why::SameRow };
            (!clash.facts.is_empty()).then_some(clash)
        };
        self.rows.iter().filter_map(clash).collect()
    }

    /// Rows that would be about an entity that is not there.
    fn about_entities(&mut self) -> Result<Vec<Clash>, PlanError> {
        let going = |(row, found): (&RowRef, &Row)| match row {
            RowRef::Entity(id) if !found.with_belongings && found.after().is_none() => Some(*id),
            RowRef::Entity(_) | RowRef::Observation(_) | RowRef::Relation(_) => None,
        };
        let going: Vec<MemoryId> = self.rows.iter().filter_map(going).collect();
        for entity in going {
            for row in self.memory.belongings(entity)? {
                self.load(row)?;
            }
            self.load(RowRef::Entity(entity))?.with_belongings = true;
        }
        let coming = |row: &Row| !row.undone().is_empty() && row.after().is_some();
        let needed = self.rows.values().filter(|row| coming(row));
        let needed: Vec<MemoryId> =
            needed.filter_map(Row::after).flat_map(|row| entities_of(&row.fact)).collect();
        for entity in needed {
            self.load(RowRef::Entity(entity))?;
        }
        let mut clashes = Vec::new();
        for (row, found) in &self.rows {
            for entity in found.after().map(|after| entities_of(&after.fact)).unwrap_or_default() {
                let Some(owner) = self.rows.get(&RowRef::Entity(entity)) else { continue };
                if owner.after().is_none() {
                    clashes.push(without_entity(self.later, (*row, found), (entity, owner)));
                }
            }
        }
        Ok(clashes)
    }

    /// Rows that would come back to a place that another has taken.
    fn in_places(&mut self) -> Result<Vec<Clash>, PlanError> {
        let coming: Vec<RowRef> =
            self.rows.iter().filter(|(_, row)| row.changes()).map(|(row, _)| *row).collect();
        for row in &coming {
            let Some(fact) = self.rows.get(row).and_then(Row::after).map(|after| after.fact.clone()) else {
                continue;
            };
            let key = (*row, place(&fact));
            let holder = match self.holders.get(&key) {
                Some(holder) => *holder,
                None => self.memory.in_place_of(&fact)?,
            };
            self.holders.insert(key, holder);
            if let Some(holder) = holder {
                self.load(holder)?;
            }
        }
        let mut places: HashMap<Place, Vec<RowRef>> = HashMap::new();
        for (row, found) in &self.rows {
            if let Some(after) = found.after() {
                places.entry(place(&after.fact)).or_default().push(*row);
            }
        }
        let mut clashes = Vec::new();
        for row in coming {
            let Some(found) = self.rows.get(&row) else { continue };
            let (Some(after), Some(first)) = (found.after(), found.undone().first()) else { continue };
            let key = place(&after.fact);
            for other in places.get(&key).into_iter().flatten().filter(|other| **other != row) {
                let Some(holder) = self.rows.get(other) else { continue };
                let Some(since) = holder.in_place_since(&key).filter(|since| since > first) else { continue };
                let builds_on = *first;
                // To whom an earlier undo gave a place keeps it, if nothing but the chosen facts' effect is lost by that.
                let kept = self.later != Later::Keep && holder.is_of_undo(since);
                clashes.push(if let Some(facts) = found.may_stay_out_of(&key).filter(|_| kept) {
                    let why = Why::TookPlaceOf(*other);
                    Clash { undone: *other, builds_on, by: row, facts, why }
                } else {
                    let (facts, why) = (holder.live_from(since), Why::TookPlaceOf(row));
                    Clash { undone: row, builds_on, by: *other, facts, why }
                });
            }
        }
        Ok(clashes)
    }
}

/// A row would stay or come back, and an entity that it is about would not be there.
fn without_entity(later: Later, (row, found): (RowRef, &Row), (entity, owner): (MemoryId, &Row)) -> Clash {
    let first = found.undone().first().copied();
    // An entity that is gone for its own reasons was removed by somebody; what goes by this undo was built upon.
    if let Some(removal) = owner.removal()
        && let Some(builds_on) = first.filter(|first| removal > *first || owner.undone().is_empty())
    {
        let on = RowRef::Entity(entity);
        if later != Later::Keep && owner.is_of_undo(removal) {
            // What an earlier undo took away does not come back for the sake of a row about it: that stays away, too. So
            // the same undo finds nothing to do a second time.
            let facts = found.live_from(Seq::ZERO);
            return Clash { undone: on, builds_on, by: row, facts, why: Why::About(entity) };
        }
        return Clash { undone: row, builds_on, by: on, facts: vec![removal], why: Why::Removed(entity) };
    }
    let builds_on = owner.undone().first().or(first.as_ref()).copied().unwrap_or_default();
    let facts = found.live_from(builds_on);
    Clash { undone: RowRef::Entity(entity), builds_on, by: row, facts, why: Why::About(entity) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::collections::BTreeMap;

    use caxton_events::memory::{Later, Validity};
    use caxton_events::{MemoryEvent, MemoryId, Record, Scope, Seq, Timestamp};
    use caxton_projections::graph::{Graph, RowRef, SqliteOptions};
    use caxton_projections::projection::Projection as _;

    use super::{PlanError, Planner};

    #[test]
    fn no_more_text_is_loaded_than_there_is_room_for() {
        let dir = tempfile::tempdir().unwrap();
        let options =
            SqliteOptions { readers: 1, cache_size_mb: 2, mmap_size_mb: 4, ..SqliteOptions::default() };
        let mut graph = Graph::open(dir.path(), &options).unwrap();
        let (ada, note, validity) = (MemoryId(1), MemoryId(2), Validity::default());
        let events = [
            MemoryEvent::EntityCreated {
                id: ada,
                scope: Scope::Global,
                name: "ada".to_owned(),
                entity_type: "person".to_owned(),
                metadata: None,
                confidence: 1.0,
                validity,
            },
            MemoryEvent::ObservationAdded { id: note, entity: ada, content: "x".repeat(10), validity },
            MemoryEvent::ObservationUpdated { id: note, entity: ada, content: "y".repeat(20), validity },
        ];
        let record = |(seq, event): (u64, MemoryEvent)| Record {
            seq: Seq(seq),
            recorded_at: Timestamp::from_unix_micros(seq),
            stream: "test".to_owned(),
            actor: "ada".to_owned(),
            correlation: None,
            causation: None,
            event: event.into(),
        };
        let records: Vec<Record> = (1..).zip(events).map(record).collect();
        graph.apply(&records).unwrap();
        let undone = BTreeMap::new();
        for (room, fits) in [(33, true), (32, false), (13, false), (2, false)] {
            let loaded = graph.reader().at_once(|memory| {
                let mut planner = Planner { room, ..Planner::new(memory, &undone, Later::Keep) };
                let rows = [RowRef::Entity(ada), RowRef::Observation(note)];
                Ok(rows.into_iter().try_for_each(|row| planner.load(row).map(|_| ())))
            });
            let loaded = loaded.unwrap();
            assert!(
                matches!((&loaded, fits), (Ok(()), true) | (Err(PlanError::TooLarge), false)),
                "{room}: {loaded:?}"
            );
        }
    }
}
