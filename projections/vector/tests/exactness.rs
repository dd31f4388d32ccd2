//! The exact search against brute force over the f32 vectors: the same rows, the same scores, bit for bit.

use std::collections::{BTreeMap, HashSet};

use caxton_events::memory::Validity;
use caxton_events::{MemoryId, Scope, Timestamp};
use proptest::prelude::*;

use super::{
    Ask, House, ask, between, entity, entity_removed, entity_updated, observation_during,
    observation_removed, observation_updated, vector_of,
};
use crate::vector::VectorHit;
use crate::vector::quantise::similarity;

/// What the model of the projection knows of an entity.
#[derive(Clone)]
struct Known {
    header: String,
    kind: String,
    validity: Validity,
    observations: BTreeMap<u64, (String, Validity)>,
}

/// A change, in numbers that are taken modulo what there is.
#[derive(Debug, Clone)]
enum Change {
    Create { kind: u8 },
    Describe { entity: u8, kind: u8, from: u64 },
    Remove { entity: u8 },
    Observe { entity: u8, text: u16, from: u64 },
    Reword { observation: u8, text: u16, from: u64 },
    Forget { observation: u8 },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..4_u8).prop_map(|kind| Change::Create { kind }),
        1 => (any::<u8>(), 0..4_u8, 0..5_u64)
            .prop_map(|(entity, kind, from)| Change::Describe { entity, kind, from }),
        1 => any::<u8>().prop_map(|entity| Change::Remove { entity }),
        8 => (any::<u8>(), 0..300_u16, 0..5_u64)
            .prop_map(|(entity, text, from)| Change::Observe { entity, text, from }),
        2 => (any::<u8>(), 0..300_u16, 0..5_u64)
            .prop_map(|(observation, text, from)| Change::Reword { observation, text, from }),
        2 => any::<u8>().prop_map(|observation| Change::Forget { observation }),
    ]
}

/// The plain specification: maps instead of slabs, and every vector compared.
#[derive(Default)]
struct Model {
    next: u64,
    entities: BTreeMap<u64, Known>,
}

fn span(from: u64) -> Validity {
    if from == 0 { Validity::default() } else { between(from, from + 2) }
}

impl Model {
    fn pick(&self, entity: u8) -> Option<u64> {
        self.entities.keys().nth(usize::from(entity) % self.entities.len().max(1)).copied()
    }

    fn pick_observation(&self, observation: u8) -> Option<(u64, u64)> {
        let all = self
            .entities
            .iter()
            .flat_map(|(&id, known)| known.observations.keys().map(move |&row| (id, row)));
        let all: Vec<_> = all.collect();
        all.get(usize::from(observation) % all.len().max(1)).copied()
    }

    /// Makes the change in the model and says it to the house.
    fn make(&mut self, change: &Change, house: &mut House) {
        match *change {
            Change::Create { kind } => {
                self.next += 1;
                let (name, kind) = (format!("name{}", self.next), format!("kind{kind}"));
                house.log([entity(self.next, "global", &name, &kind)]);
                let header = format!("{name} ({kind})");
                let observations = BTreeMap::new();
                self.entities.insert(self.next, Known { header, kind, validity: span(0), observations });
            }
            Change::Describe { entity, kind, from } => {
                let Some(id) = self.pick(entity) else { return };
                let (name, kind) = (format!("again{id}"), format!("kind{kind}"));
                house.log([entity_updated(id, &name, &kind, span(from))]);
                let known = self.entities.get_mut(&id).unwrap();
                known.header = format!("{name} ({kind})");
                (known.kind, known.validity) = (kind, span(from));
            }
            Change::Remove { entity } => {
                let Some(id) = self.pick(entity) else { return };
                house.log([entity_removed(id)]);
                self.entities.remove(&id);
            }
            Change::Observe { entity, text, from } => {
                let Some(id) = self.pick(entity) else { return };
                self.next += 1;
                let text = format!("text {text}");
                house.log([observation_during(self.next, id, &text, span(from))]);
                self.entities.get_mut(&id).unwrap().observations.insert(self.next, (text, span(from)));
            }
            Change::Reword { observation, text, from } => {
                let Some((id, row)) = self.pick_observation(observation) else { return };
                let text = format!("text {text}");
                house.log([observation_updated(row, id, &text, span(from))]);
                self.entities.get_mut(&id).unwrap().observations.insert(row, (text, span(from)));
            }
            Change::Forget { observation } => {
                let Some((id, row)) = self.pick_observation(observation) else { return };
                house.log([observation_removed(row, id)]);
                self.entities.get_mut(&id).unwrap().observations.remove(&row);
            }
        }
    }

    fn answer(&self, ask: &Ask) -> Vec<VectorHit> {
        let query = vector_of(&ask.text);
        let mut hits = Vec::new();
        for (&id, known) in &self.entities {
            if !ask.entity_types.is_empty() && !ask.entity_types.contains(&known.kind) {
                continue;
            }
            let header = (id, &known.header, Validity::default());
            let rows = known.observations.iter().map(|(&row, (text, validity))| (row, text, *validity));
            for (row, text, validity) in std::iter::once(header).chain(rows) {
                if ask.valid_at.is_some_and(|at| !validity.contains(at) || !known.validity.contains(at)) {
                    continue;
                }
                let vector = vector_of(text);
                let similarity =
                    similarity(query.as_slice().try_into().unwrap(), vector.as_slice().try_into().unwrap());
                if ask.min_similarity.is_none_or(|least| similarity >= least) {
                    hits.push(VectorHit { row: MemoryId(row), entity: MemoryId(id), chunk: 0, similarity });
                }
            }
        }
        hits.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.row.cmp(&b.row)));
        hits.truncate(ask.limit);
        hits
    }
}

fn question() -> impl Strategy<Value = Ask> {
    let kinds = prop_oneof![Just(Vec::new()), proptest::collection::vec(0..5_u8, 1..3)];
    let least = prop_oneof![Just(None), (0.0_f32..0.9).prop_map(Some)];
    let limit = prop_oneof![1..20_usize, Just(1_000)];
    let at = proptest::option::of(0..8_u64);
    (0..400_u16, kinds, least, limit, at).prop_map(|(text, kinds, least, limit, at)| {
        let mut asked = ask(&format!("text {text}"), limit);
        asked.entity_types = kinds.into_iter().map(|kind| format!("kind{kind}")).collect();
        asked.min_similarity = least;
        asked.valid_at = at.map(Timestamp::from_unix_micros);
        asked
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_scan_answers_as_brute_force_does(
        changes in proptest::collection::vec(change(), 1..900),
        batch in 1..200_usize,
        questions in proptest::collection::vec(question(), 1..12),
    ) {
        let (mut house, mut model) = (House::new(), Model::default());
        for change in &changes {
            model.make(change, &mut house);
        }
        house.fold_by(batch).unwrap();
        let reader = house.reader();
        for asked in &questions {
            prop_assert_eq!(asked.hits(&reader), model.answer(asked));
        }
        let rows: usize = model.entities.values().map(|known| 1 + known.observations.len()).sum();
        prop_assert_eq!(reader.stats().rows, rows as u64);
        prop_assert_eq!(reader.stats().damaged, 0);

        house.vectors().save().unwrap();
        house.open();
        let reader = house.reader();
        for asked in &questions {
            prop_assert_eq!(asked.hits(&reader), model.answer(asked));
        }
    }
}

#[test]
fn equal_rows_come_by_number_however_many_there_are() {
    let mut house = House::new();
    let rows = (2..1_200).map(|id| super::observation(id, 1, "same"));
    house.add(std::iter::once(entity(1, "global", "a", "t")).chain(rows));
    for limit in [1, 10, 255, 256, 257, 1_000] {
        let then: Vec<u64> = (2..2 + limit as u64).collect();
        assert_eq!(ask("same", limit).rows(&house.reader()), then);
    }
}

#[test]
fn every_row_is_found_once_when_all_are_asked_for() {
    let mut house = House::new();
    let rows = (2..3_000).map(|id| super::observation(id, 1, &format!("text {id}")));
    house.add(std::iter::once(entity(1, "global", "a", "t")).chain(rows));
    let mut asked = ask("anything", usize::MAX);
    asked.scopes = vec![Scope::Global];
    let rows = asked.rows(&house.reader());
    assert_eq!((rows.len(), rows.iter().collect::<HashSet<_>>().len()), (2_999, 2_999));
}

#[test]
fn full_blocks_are_scanned_as_single_rows_are() {
    let mut house = House::new();
    let rows = (2..1_400).map(|id| super::observation(id, 1, &format!("text {id}")));
    house.add(std::iter::once(entity(1, "global", "a", "t")).chain(rows));
    let reader = house.reader();
    for question in ["text 2", "text 257", "text 1399", "a (t)", "something else"] {
        for (limit, min_similarity) in [(1, None), (10, None), (64, Some(0.05)), (1_000, None), (2_000, None)]
        {
            let whole = Ask { min_similarity, ..ask(question, limit) };
            // A filter that all rows pass is looked at row by row.
            let single = Ask { entity_types: vec!["t".into()], min_similarity, ..ask(question, limit) };
            assert_eq!(whole.hits(&reader), single.hits(&reader), "{question}, {limit}");
        }
    }
}
