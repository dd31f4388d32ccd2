//! Random stories: live fold, rebuild and a model made of maps agree.

use std::collections::BTreeMap;

use caxton_events::memory::Validity;
use caxton_events::{MemoryEvent, MemoryId, Record, Scope, Timestamp};
use proptest::prelude::*;

use super::{Fixture, Story};
use crate::graph::{Direction, EntityFilter, GraphReader, RelationFilter};
use crate::projection::Projection;
use crate::text::KeywordQuery;

pub(super) const WORDS: &[&str] = &["ada", "engine", "loves", "steam", "the", "東京", "notes", "x86"];
pub(super) const SCOPES: &[&str] = &["agent:ada", "agent:bob", "workspace:lab", "global"];
const TYPES: &[&str] = &["person", "machine"];

/// A wish; it is told only where the writer would allow it.
#[derive(Debug, Clone)]
pub(super) struct Step {
    action: u8,
    pick: usize,
    other: usize,
    words: Vec<usize>,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0_u8..10, 0_usize..1_000, 0_usize..1_000, prop::collection::vec(0..WORDS.len(), 1..5))
        .prop_map(|(action, pick, other, words)| Step { action, pick, other, words });
    prop::collection::vec(step, 1..60)
}

/// What the graph should hold, as plain as it can be said.
#[derive(Default)]
pub(super) struct Model {
    entities: BTreeMap<MemoryId, (Scope, String, String, u32)>,
    observations: BTreeMap<MemoryId, (MemoryId, String)>,
    relations: BTreeMap<MemoryId, (MemoryId, MemoryId, String, u64)>,
}

impl Model {
    fn apply(&mut self, event: &MemoryEvent) {
        match event {
            MemoryEvent::EntityCreated { id, scope, name, entity_type, .. } => {
                self.entities.insert(*id, (scope.clone(), name.clone(), entity_type.clone(), 1));
            }
            MemoryEvent::EntityUpdated { id, name, entity_type, .. } => {
                let row = self.entities.get_mut(id).unwrap();
                *row = (row.0.clone(), name.clone(), entity_type.clone(), row.3 + 1);
            }
            MemoryEvent::EntityRemoved { id } => {
                self.entities.remove(id).unwrap();
            }
            MemoryEvent::ObservationAdded { id, entity, content, .. }
            | MemoryEvent::ObservationUpdated { id, entity, content, .. }
            | MemoryEvent::ObservationRestored { id, entity, content, .. } => {
                self.observations.insert(*id, (*entity, content.clone()));
            }
            MemoryEvent::ObservationRemoved { id, .. } => {
                self.observations.remove(id).unwrap();
            }
            MemoryEvent::RelationCreated { id, from, to, relation_type, strength, .. }
            | MemoryEvent::RelationRestored { id, from, to, relation_type, strength, .. } => {
                self.relations.insert(*id, (*from, *to, relation_type.clone(), strength.to_bits()));
            }
            MemoryEvent::RelationUpdated { id, strength, .. } => {
                self.relations.get_mut(id).unwrap().3 = strength.to_bits();
            }
            MemoryEvent::RelationRemoved { id } => {
                self.relations.remove(id).unwrap();
            }
            MemoryEvent::EntityRestored { id, scope, name, entity_type, version, .. } => {
                self.entities.insert(*id, (scope.clone(), name.clone(), entity_type.clone(), *version));
            }
            MemoryEvent::Undone { .. } => {}
        }
    }
}

fn nth<T>(map: &BTreeMap<MemoryId, T>, pick: usize) -> Option<MemoryId> {
    map.keys().nth(pick % map.len().max(1)).copied()
}

/// The event a step asks for, where it can be had.
fn event(story: &mut Story, model: &Model, step: &Step) -> Option<MemoryEvent> {
    let text = step.words.iter().map(|word| WORDS[*word]).collect::<Vec<_>>().join(" ");
    let validity = Validity { from: None, to: Some(Timestamp::from_unix_micros(step.other as u64)) };
    let entity_type = TYPES[step.other % TYPES.len()].to_owned();
    Some(match step.action {
        0 | 1 => MemoryEvent::EntityCreated {
            id: story.id(),
            scope: SCOPES[step.pick % SCOPES.len()].parse().unwrap(),
            name: text,
            entity_type,
            metadata: None,
            confidence: 1.0,
            validity,
        },
        2 => MemoryEvent::EntityUpdated {
            id: nth(&model.entities, step.pick)?,
            name: text,
            entity_type,
            metadata: Some("{}".to_owned()),
            confidence: 0.5,
            validity,
        },
        3 | 4 => MemoryEvent::ObservationAdded {
            entity: nth(&model.entities, step.pick)?,
            id: story.id(),
            content: text,
            validity,
        },
        5 => {
            let id = nth(&model.observations, step.pick)?;
            MemoryEvent::ObservationUpdated { id, entity: model.observations[&id].0, content: text, validity }
        }
        6 => {
            let id = nth(&model.observations, step.pick)?;
            MemoryEvent::ObservationRemoved { id, entity: model.observations[&id].0 }
        }
        7 => MemoryEvent::RelationCreated {
            from: nth(&model.entities, step.pick)?,
            to: nth(&model.entities, step.other)?,
            id: story.id(),
            scope: SCOPES[step.other % SCOPES.len()].parse().unwrap(),
            relation_type: entity_type,
            strength: step.pick as f64 / 1_000.0,
            confidence: 1.0,
            metadata: None,
            validity,
        },
        8 => MemoryEvent::RelationUpdated {
            id: nth(&model.relations, step.pick)?,
            strength: step.other as f64 / 1_000.0,
            confidence: 0.5,
            metadata: None,
            validity,
        },
        _ => MemoryEvent::RelationRemoved { id: nth(&model.relations, step.pick)? },
    })
}

/// Takes an entity out as the writer does: what hangs on it first.
fn remove_entity(story: &mut Story, model: &mut Model, id: MemoryId) {
    let mut events = Vec::new();
    for (observation, (entity, _)) in &model.observations {
        if *entity == id {
            events.push(MemoryEvent::ObservationRemoved { id: *observation, entity: id });
        }
    }
    for (relation, (from, to, ..)) in &model.relations {
        if *from == id || *to == id {
            events.push(MemoryEvent::RelationRemoved { id: *relation });
        }
    }
    events.push(MemoryEvent::EntityRemoved { id });
    for event in events {
        model.apply(&event);
        story.tell(event);
    }
}

pub(super) fn tell(steps: &[Step]) -> (Vec<Record>, Model) {
    let (mut story, mut model) = (Story::default(), Model::default());
    for step in steps {
        if step.action == 9 && step.other % 3 == 0 {
            if let Some(id) = nth(&model.entities, step.pick) {
                remove_entity(&mut story, &mut model, id);
            }
        } else if let Some(event) = event(&mut story, &model, step) {
            model.apply(&event);
            story.tell(event);
        }
    }
    (story.records, model)
}

fn assert_like(reader: &GraphReader, model: &Model) {
    let all = EntityFilter { limit: 1_000, ..EntityFilter::default() };
    let entities: BTreeMap<_, _> = reader
        .list_entities(&all)
        .unwrap()
        .into_iter()
        .map(|row| (row.id, (row.scope, row.name, row.entity_type, row.version)))
        .collect();
    assert_eq!(entities, model.entities);
    let mut observations = BTreeMap::new();
    for entity in entities.keys() {
        for row in reader.observations_of(*entity, None, 1_000).unwrap() {
            observations.insert(row.id, (row.entity, row.content));
        }
    }
    assert_eq!(observations, model.observations);
    let all = RelationFilter { limit: 1_000, ..RelationFilter::default() };
    let relations: BTreeMap<_, _> = reader
        .list_relations(&all)
        .unwrap()
        .into_iter()
        .map(|row| (row.id, (row.from, row.to, row.relation_type, row.strength.to_bits())))
        .collect();
    assert_eq!(relations, model.relations);
    for entity in entities.keys() {
        let found = reader.relations_of(*entity, Direction::Both, &[], 0.0, None, 1_000).unwrap();
        let expected = relations.iter().filter(|(_, row)| row.0 == *entity || row.1 == *entity);
        assert!(found.iter().map(|row| &row.id).eq(expected.map(|(id, _)| id)));
    }
    let stats = reader.stats(None).unwrap();
    let counted = (stats.entities as usize, stats.observations as usize, stats.relations as usize);
    assert_eq!(counted, (entities.len(), observations.len(), relations.len()));
    assert_words(reader, model);
}

/// Each word finds exactly the rows that hold it.
fn assert_words(reader: &GraphReader, model: &Model) {
    for word in WORDS.iter().filter(|word| **word != "the") {
        let query = KeywordQuery { text: (*word).to_owned(), limit: 1_000, ..KeywordQuery::default() };
        let mut found: Vec<_> = reader.keyword(&query).unwrap().iter().map(|hit| hit.row).collect();
        found.sort_unstable();
        let names = model.entities.iter().filter(|(_, row)| row.1.contains(word)).map(|(id, _)| *id);
        let notes = model.observations.iter().filter(|(_, row)| row.1.contains(word)).map(|(id, _)| *id);
        let mut expected: Vec<_> = names.chain(notes).collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "{word}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn live_fold_rebuild_and_model_agree(steps in steps(), batch in 1_usize..20) {
        let (records, model) = tell(&steps);
        let mut fixture = Fixture::new();
        let reader = fixture.graph.reader();
        // The words follow the fold, or are read from its rows.
        if batch % 2 == 0 {
            reader.load_words().unwrap();
        }
        for records in records.chunks(batch) {
            fixture.graph.apply(records).unwrap();
        }
        assert_like(&reader, &model);
        let live = reader.digest().unwrap();

        fixture.graph.begin_rebuild().unwrap();
        fixture.graph.apply(&records).unwrap();
        fixture.graph.finish_rebuild().unwrap();
        prop_assert_eq!(reader.digest().unwrap(), live);
        assert_like(&reader, &model);
        prop_assert_eq!(fixture.graph.check().unwrap(), Vec::<String>::new());

        fixture.graph.reset().unwrap();
        fixture.graph.apply(&records).unwrap();
        prop_assert_eq!(reader.digest().unwrap(), live);
    }
}
