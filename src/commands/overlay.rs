//! Accepted events on top of a memory that has not folded them yet, so that one group commit can hold commands
//! that build on each other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher as _;

use caxton_events::{AgentEvent, AgentId, Event, MemoryEvent, MemoryId, Scope, Seq};
use caxton_projections::by_name::ByName;
use caxton_projections::graph::ReadError;

use super::present::{Present, PresentEntity, PresentObservation, PresentRelation};
use super::write::SweptRow;

/// A memory with some more events. Rows it does not touch are read from below.
pub struct Overlay<'below> {
    below: &'below dyn Present,
    entities: HashMap<MemoryId, Option<PresentEntity>>,
    names: HashMap<(Scope, String), Option<MemoryId>>,
    observations: HashMap<MemoryId, Option<PresentObservation>>,
    relations: HashMap<MemoryId, Option<PresentRelation>>,
    /// Rows of this layer by the entity they belong to.
    observations_by_entity: HashMap<MemoryId, BTreeSet<MemoryId>>,
    relations_by_entity: HashMap<MemoryId, BTreeSet<MemoryId>>,
    /// Observations of this layer by their entity and the hash of their text, relations by their ends: an import looks for each
    /// of the many rows that one entity may get.
    observations_by_text: ByName<(MemoryId, u64), Vec<MemoryId>>,
    relations_by_ends: HashMap<(MemoryId, MemoryId), BTreeSet<MemoryId>>,
    agents: HashSet<AgentId>,
}

impl<'below> Overlay<'below> {
    /// Nothing more than what is below.
    pub fn over(below: &'below dyn Present) -> Self {
        Self {
            below,
            entities: HashMap::new(),
            names: HashMap::new(),
            observations: HashMap::new(),
            relations: HashMap::new(),
            observations_by_entity: HashMap::new(),
            relations_by_entity: HashMap::new(),
            observations_by_text: ByName::default(),
            relations_by_ends: HashMap::new(),
            agents: HashSet::new(),
        }
    }

    /// Adds an event that was accepted.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the memory below could not be read.
    pub fn apply(&mut self, event: &Event) -> Result<(), ReadError> {
        match event {
            Event::Memory(event) => self.apply_memory(event),
            Event::Agent(AgentEvent::ExternalRegistered { agent, .. }) => {
                self.agents.insert(agent.clone());
                Ok(())
            }
            Event::Agent(_) | Event::Conversation(_) | Event::Turn(_) | Event::System(_) => Ok(()),
        }
    }

    fn apply_memory(&mut self, event: &MemoryEvent) -> Result<(), ReadError> {
        match event {
            MemoryEvent::EntityCreated { .. }
            | MemoryEvent::EntityUpdated { .. }
            | MemoryEvent::EntityRestored { .. }
            | MemoryEvent::EntityRemoved { .. } => self.apply_entity(event),
            MemoryEvent::ObservationAdded { id, entity, content, validity }
            | MemoryEvent::ObservationUpdated { id, entity, content, validity }
            | MemoryEvent::ObservationRestored { id, entity, content, validity, .. } => {
                let row = PresentObservation {
                    id: *id,
                    entity: *entity,
                    content: content.clone(),
                    validity: *validity,
                };
                self.observations_by_entity.entry(*entity).or_default().insert(*id);
                self.put_observation(*id, Some(row));
                Ok(())
            }
            MemoryEvent::ObservationRemoved { id, entity } => {
                // The entity has changed by it, though nothing is listed.
                self.observations_by_entity.entry(*entity).or_default();
                self.put_observation(*id, None);
                Ok(())
            }
            MemoryEvent::RelationCreated { .. }
            | MemoryEvent::RelationUpdated { .. }
            | MemoryEvent::RelationRestored { .. }
            | MemoryEvent::RelationRemoved { .. } => self.apply_relation(event),
            MemoryEvent::Undone { .. } => Ok(()),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "apply_memory sends entity events only")]
    fn apply_entity(&mut self, event: &MemoryEvent) -> Result<(), ReadError> {
        match event {
            MemoryEvent::EntityCreated { id, scope, name, entity_type, metadata, confidence, validity } => {
                self.names.insert((scope.clone(), name.clone()), Some(*id));
                let row = PresentEntity {
                    id: *id,
                    scope: scope.clone(),
                    name: name.clone(),
                    entity_type: entity_type.clone(),
                    metadata: metadata.clone(),
                    confidence: *confidence,
                    validity: *validity,
                    version: 1,
                };
                self.entities.insert(*id, Some(row));
            }
            MemoryEvent::EntityUpdated { id, name, entity_type, metadata, confidence, validity } => {
                if let Some(mut row) = self.entity(*id)? {
                    self.names.insert((row.scope.clone(), row.name.clone()), None);
                    self.names.insert((row.scope.clone(), name.clone()), Some(*id));
                    row.name.clone_from(name);
                    row.entity_type.clone_from(entity_type);
                    row.metadata.clone_from(metadata);
                    row.confidence = *confidence;
                    row.validity = *validity;
                    row.version += 1;
                    self.entities.insert(*id, Some(row));
                }
            }
            MemoryEvent::EntityRestored {
                id,
                scope,
                name,
                entity_type,
                metadata,
                confidence,
                validity,
                version,
                ..
            } => {
                if let Some(row) = self.entity(*id)? {
                    self.free_name(row);
                }
                self.names.insert((scope.clone(), name.clone()), Some(*id));
                let row = PresentEntity {
                    id: *id,
                    scope: scope.clone(),
                    name: name.clone(),
                    entity_type: entity_type.clone(),
                    metadata: metadata.clone(),
                    confidence: *confidence,
                    validity: *validity,
                    version: *version,
                };
                self.entities.insert(*id, Some(row));
            }
            MemoryEvent::EntityRemoved { id } => {
                if let Some(row) = self.entity(*id)? {
                    self.free_name(row);
                }
                self.entities.insert(*id, None);
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes that an entity has its name no more, unless another has it already: an undo may swap names.
    fn free_name(&mut self, row: PresentEntity) {
        let holder = self.names.entry((row.scope, row.name)).or_insert(Some(row.id));
        if *holder == Some(row.id) {
            *holder = None;
        }
    }

    /// Notes what an observation is now, and finds it by its text from here on.
    fn put_observation(&mut self, id: MemoryId, row: Option<PresentObservation>) {
        let place = row.as_ref().map(|row| self.place_of_text(row.entity, &row.content));
        if let Some(before) = self.observations.insert(id, row).flatten() {
            let place = self.place_of_text(before.entity, &before.content);
            if let Some(ids) = self.observations_by_text.get_mut(&place) {
                ids.retain(|other| *other != id);
            }
        }
        if let Some(place) = place {
            self.observations_by_text.entry(place).or_default().push(id);
        }
    }

    fn place_of_text(&self, entity: MemoryId, content: &str) -> (MemoryId, u64) {
        (entity, self.observations_by_text.hasher().hash_one(content))
    }

    /// Observations of this layer that may read `content`: only their hash is the same for sure.
    fn likely_readings(&self, entity: MemoryId, content: &str) -> &[MemoryId] {
        self.observations_by_text.get(&self.place_of_text(entity, content)).map_or(&[], Vec::as_slice)
    }

    /// Lists a relation of this layer with its ends.
    fn list_relation(&mut self, id: MemoryId, from: MemoryId, to: MemoryId) {
        for end in [from, to] {
            self.relations_by_entity.entry(end).or_default().insert(id);
        }
        self.relations_by_ends.entry((from, to)).or_default().insert(id);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "apply_memory sends relation events only")]
    fn apply_relation(&mut self, event: &MemoryEvent) -> Result<(), ReadError> {
        match event {
            MemoryEvent::RelationCreated {
                id,
                scope,
                from,
                to,
                relation_type,
                strength,
                confidence,
                metadata,
                validity,
            }
            | MemoryEvent::RelationRestored {
                id,
                scope,
                from,
                to,
                relation_type,
                strength,
                confidence,
                metadata,
                validity,
                ..
            } => {
                let row = PresentRelation {
                    id: *id,
                    scope: scope.clone(),
                    from: *from,
                    to: *to,
                    relation_type: relation_type.clone(),
                    strength: *strength,
                    confidence: *confidence,
                    metadata: metadata.clone(),
                    validity: *validity,
                };
                self.relations.insert(*id, Some(row));
                self.list_relation(*id, *from, *to);
            }
            MemoryEvent::RelationUpdated { id, strength, confidence, metadata, validity } => {
                if let Some(mut row) = self.relation(*id)? {
                    row.strength = *strength;
                    row.confidence = *confidence;
                    row.metadata.clone_from(metadata);
                    row.validity = *validity;
                    // The row may come from below: list it here too, so that a look-up by its ends sees this version.
                    self.list_relation(*id, row.from, row.to);
                    self.relations.insert(*id, Some(row));
                }
            }
            MemoryEvent::RelationRemoved { id } => {
                self.relations.insert(*id, None);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Present for Overlay<'_> {
    fn entity(&self, id: MemoryId) -> Result<Option<PresentEntity>, ReadError> {
        match self.entities.get(&id) {
            Some(row) => Ok(row.clone()),
            None => self.below.entity(id),
        }
    }

    fn entity_named(&self, scope: &Scope, name: &str) -> Result<Option<PresentEntity>, ReadError> {
        match self.names.get(&(scope.clone(), name.to_owned())) {
            Some(Some(id)) => self.entity(*id),
            Some(None) => Ok(None),
            // A row below may have been renamed or described anew here: ask again by its number.
            None => match self.below.entity_named(scope, name)? {
                Some(row) => self.entity(row.id),
                None => Ok(None),
            },
        }
    }

    fn entities_of(&self, scope: &Scope, entity_types: &[String]) -> Result<Vec<MemoryId>, ReadError> {
        let mut all: BTreeSet<MemoryId> = self.below.entities_of(scope, entity_types)?.into_iter().collect();
        for (id, row) in &self.entities {
            let belongs = row.as_ref().is_some_and(|row| {
                row.scope == *scope && (entity_types.is_empty() || entity_types.contains(&row.entity_type))
            });
            if belongs {
                all.insert(*id);
            } else {
                all.remove(id);
            }
        }
        Ok(all.into_iter().collect())
    }

    fn observation(&self, id: MemoryId) -> Result<Option<PresentObservation>, ReadError> {
        match self.observations.get(&id) {
            Some(row) => Ok(row.clone()),
            None => self.below.observation(id),
        }
    }

    fn observation_reading(&self, entity: MemoryId, content: &str) -> Result<Option<MemoryId>, ReadError> {
        let reads = |id: &&MemoryId| {
            self.observations.get(*id).and_then(Option::as_ref).is_some_and(|row| row.content == content)
        };
        if let Some(id) = self.likely_readings(entity, content).iter().filter(reads).min() {
            return Ok(Some(*id));
        }
        let below = self.below.observation_reading(entity, content)?;
        // A row that this layer removed or changed reads differently now.
        Ok(below.filter(|id| !self.observations.contains_key(id)))
    }

    fn observations_of(&self, entity: MemoryId) -> Result<Vec<MemoryId>, ReadError> {
        let mut all: BTreeSet<MemoryId> = self.below.observations_of(entity)?.into_iter().collect();
        all.extend(self.observations_by_entity.get(&entity).into_iter().flatten());
        Ok(all.into_iter().filter(|id| !matches!(self.observations.get(id), Some(None))).collect())
    }

    fn relation(&self, id: MemoryId) -> Result<Option<PresentRelation>, ReadError> {
        match self.relations.get(&id) {
            Some(row) => Ok(row.clone()),
            None => self.below.relation(id),
        }
    }

    fn relation_between(
        &self,
        scope: &Scope,
        from: MemoryId,
        to: MemoryId,
        relation_type: &str,
    ) -> Result<Option<PresentRelation>, ReadError> {
        let here = self.relations_by_ends.get(&(from, to)).into_iter().flatten().find_map(|id| {
            let row = self.relations.get(id)?.as_ref()?;
            let same = row.scope == *scope && row.relation_type == relation_type;
            same.then(|| row.clone())
        });
        if here.is_some() {
            return Ok(here);
        }
        let below = self.below.relation_between(scope, from, to, relation_type)?;
        Ok(below.filter(|row| !self.relations.contains_key(&row.id)))
    }

    fn relations_of(&self, entity: MemoryId) -> Result<Vec<(MemoryId, Scope)>, ReadError> {
        let mut all: BTreeMap<MemoryId, Scope> = self.below.relations_of(entity)?.into_iter().collect();
        for id in self.relations_by_entity.get(&entity).into_iter().flatten() {
            if let Some(Some(row)) = self.relations.get(id) {
                all.insert(*id, row.scope.clone());
            }
        }
        Ok(all.into_iter().filter(|(id, _)| !matches!(self.relations.get(id), Some(None))).collect())
    }

    fn relations_in(&self, scope: &Scope) -> Result<Vec<MemoryId>, ReadError> {
        let mut all: BTreeSet<MemoryId> = self.below.relations_in(scope)?.into_iter().collect();
        for (id, row) in &self.relations {
            if row.as_ref().is_some_and(|row| row.scope == *scope) {
                all.insert(*id);
            } else {
                all.remove(id);
            }
        }
        Ok(all.into_iter().collect())
    }

    fn changed_since(&self, row: SweptRow, since: Seq) -> Result<bool, ReadError> {
        // What this layer holds was accepted after everything below.
        let here = match row {
            SweptRow::Entity(id) => {
                self.entities.contains_key(&id) || self.observations_by_entity.contains_key(&id)
            }
            SweptRow::Relation(id) => self.relations.contains_key(&id),
        };
        if here { Ok(true) } else { self.below.changed_since(row, since) }
    }

    fn agent_known(&self, agent: &AgentId) -> Result<bool, ReadError> {
        if self.agents.contains(agent) { Ok(true) } else { self.below.agent_known(agent) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use caxton_events::memory::Validity;
    use caxton_events::{Event, MemoryEvent, MemoryId};

    use super::super::tests::{Nothing, added, connected, created};
    use super::{Overlay, Present as _};

    const BOB: MemoryId = MemoryId(1);

    fn of(events: &[Event]) -> Overlay<'static> {
        let mut overlay = Overlay::over(&Nothing);
        for event in events {
            overlay.apply(event).unwrap();
        }
        overlay
    }

    fn changed(id: u64, content: &str) -> Event {
        let (id, content) = (MemoryId(id), content.to_owned());
        MemoryEvent::ObservationUpdated { id, entity: BOB, content, validity: Validity::default() }.into()
    }

    #[test]
    fn a_text_or_a_relation_is_compared_with_those_alone_that_are_likely_the_same() {
        let mut events = vec![created(1, "Bob")];
        for number in 0..1_000 {
            events.push(added(10 + number, 1, &format!("note {number}")));
            events.push(connected(10_000 + number, 1, 5_000 + number));
        }
        let overlay = of(&events);
        for number in 0..1_000 {
            let text = format!("note {number}");
            assert_eq!(overlay.likely_readings(BOB, &text), [MemoryId(10 + number)]);
            assert_eq!(overlay.observation_reading(BOB, &text).unwrap(), Some(MemoryId(10 + number)));
            assert_eq!(overlay.relations_by_ends[&(BOB, MemoryId(5_000 + number))].len(), 1);
        }
        assert_eq!(overlay.likely_readings(MemoryId(2), "note 1"), []);
        assert_eq!(overlay.observation_reading(BOB, "another note").unwrap(), None);
    }

    #[test]
    fn an_observation_is_found_by_what_it_reads_now() {
        let removed =
            |id| -> Event { MemoryEvent::ObservationRemoved { id: MemoryId(id), entity: BOB }.into() };
        let given = [created(1, "Bob"), added(2, 1, "tea"), changed(2, "coffee"), added(4, 1, "tea")];
        let mut overlay = of(&given);
        let reading = |overlay: &Overlay<'_>, text: &str| {
            overlay.observation_reading(BOB, text).unwrap().map(|id| id.0)
        };
        assert_eq!((reading(&overlay, "tea"), reading(&overlay, "coffee")), (Some(4), Some(2)));
        // An undo may bring a text back that another one has by then.
        overlay.apply(&changed(2, "tea")).unwrap();
        assert_eq!((reading(&overlay, "tea"), reading(&overlay, "coffee")), (Some(2), None));
        // However often it changes, it is listed once.
        overlay.apply(&changed(2, "tea")).unwrap();
        assert_eq!(overlay.likely_readings(BOB, "tea").len(), 2);
        overlay.apply(&removed(2)).unwrap();
        assert_eq!(reading(&overlay, "tea"), Some(4));
        overlay.apply(&removed(4)).unwrap();
        assert_eq!(reading(&overlay, "tea"), None);
        assert_eq!(overlay.likely_readings(BOB, "tea"), []);
    }
}
