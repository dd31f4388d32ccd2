//! Searches as of earlier records: what was changed or removed since is found as it was, what came later is not.

use caxton_events::memory::Validity;
use caxton_events::{MemoryEvent, Scope, Seq, Timestamp};
use proptest::prelude::*;

use super::{
    Ask, House, ask, between, entity, entity_removed, entity_updated, observation, observation_during,
    observation_removed, observation_updated, scope,
};
use crate::projection::Projection as _;
use crate::vector::slab::{Row, Spans};
use crate::vector::{StateError, VectorOptions};

const SCOPES: &[&str] = &["global", "agent:ada", "workspace:lab"];
const TYPES: &[&str] = &["person", "machine"];
const TEXTS: &[&str] =
    &["likes tea", "wrote a program", "steam and iron", "one two three four five six", "", "numbers"];

/// Questions of every kind, over everything.
fn questions() -> Vec<Ask> {
    let wide = |text: &str| Ask { scopes: SCOPES.iter().map(|name| scope(name)).collect(), ..ask(text, 100) };
    vec![
        wide("likes tea"),
        Ask { limit: 2, ..wide("steam and iron") },
        Ask { entity_types: vec!["machine".into()], ..wide("wrote a program") },
        Ask { valid_at: Some(Timestamp::from_unix_micros(15)), ..wide("numbers") },
        Ask { min_similarity: Some(0.2), scopes: vec![Scope::Global], ..wide("name 3 (person)") },
    ]
}

/// A step of a story: what, and two choices.
type Step = (u8, usize, usize);

/// Events that the writer would allow: entities 1, 2, …, observations above 1,000, each of a living entity.
fn story(steps: &[Step]) -> Vec<MemoryEvent> {
    let (mut events, mut entities, mut observations) =
        (Vec::new(), Vec::<u64>::new(), Vec::<(u64, u64)>::new());
    let mut next = 0;
    for &(action, pick, other) in steps {
        next += 1;
        let validity = if other % 3 == 0 { between(10, 20) } else { Validity::default() };
        let text = TEXTS[pick % TEXTS.len()];
        let kind = TYPES[other % TYPES.len()];
        let living = entities.get(pick % entities.len().max(1)).copied();
        let noted = observations.get(pick % observations.len().max(1)).copied();
        match (action, living, noted) {
            (0 | 1, ..) | (_, None, _) => {
                entities.push(next);
                events.push(entity(next, SCOPES[other % SCOPES.len()], &format!("name {}", pick % 5), kind));
            }
            (2, Some(id), _) => {
                events.push(entity_updated(id, &format!("name {}", other % 5), kind, validity));
            }
            (3, Some(id), _) if other % 4 == 0 => {
                entities.retain(|known| *known != id);
                for (note, _) in observations.extract_if(.., |(_, owner)| *owner == id) {
                    events.push(observation_removed(note, id));
                }
                events.push(entity_removed(id));
            }
            (4, _, Some((note, owner))) => {
                events.push(observation_updated(note, owner, TEXTS[other % TEXTS.len()], validity));
            }
            (5, _, Some((note, owner))) => {
                observations.retain(|(known, _)| *known != note);
                events.push(observation_removed(note, owner));
            }
            (_, Some(id), _) => {
                observations.push((1_000 + next, id));
                events.push(observation_during(1_000 + next, id, text, validity));
            }
        }
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_moment_of_the_past_answers_as_it_did_when_it_was_the_present(
        steps in prop::collection::vec((0_u8..8, 0_usize..100, 0_usize..100), 1..60), batch in 1_usize..9,
    ) {
        let events = story(&steps);
        let mut whole = House::new();
        whole.log(events.clone());
        whole.fold_by(batch).unwrap();
        whole.vectors().save().unwrap();
        whole.open();
        let mut growing = House::new();
        for through in 0..=events.len() {
            growing.add(events.get(through.wrapping_sub(1)).cloned());
            for question in questions() {
                let then = Ask { as_of: Some(Seq(through as u64)), ..question.clone() };
                let (past, present) = (then.answer(&whole.reader()), question.answer(&growing.reader()));
                prop_assert_eq!(past, present, "as of {}: {:?}", through, question);
            }
        }
    }
}

/// Many rows, of which a third are changed after each of three rounds.
fn churned(options: VectorOptions) -> House {
    let mut house = House::with(options);
    house.add((0..900).map(|n| entity(n + 1, "global", &format!("thing {n}"), "t")));
    for round in 0..3 {
        house.add(
            (0..900)
                .filter(|n| n % 3 == round)
                .map(|n| entity_updated(n + 1, &format!("thing {n} changed"), "t", Validity::default())),
        );
    }
    house
}

fn as_of(question: &Ask, seq: u64) -> Ask {
    Ask { as_of: Some(Seq(seq)), ..question.clone() }
}

#[test]
fn an_answer_of_the_past_stays_whatever_is_written_later() {
    let options = VectorOptions { sketch_from: 100, ..VectorOptions::default() };
    let mut house = churned(options);
    let questions: Vec<Ask> = (0..20).map(|n| ask(&format!("thing {n}"), 10)).collect();
    let moments = [1, 450, 900, 1_000, 1_200, 1_800];
    let answers = |house: &mut House| -> Vec<_> {
        let reader = house.reader();
        questions.iter().flat_map(|q| moments.map(|seq| as_of(q, seq).hits(&reader))).collect()
    };
    let before = answers(&mut house);
    house.add((0..900).map(|n| entity(n + 2_001, "global", &format!("later {n}"), "t")));
    house.add((0..900).map(|n| entity_removed(n + 1)));
    assert_eq!(answers(&mut house), before);
    let mut rebuilt = house.rebuilt();
    assert_eq!(answers(&mut rebuilt), before, "a rebuild keeps the past");
}

#[test]
fn rows_of_the_past_cost_the_present_nothing_and_survive_a_restart() {
    let mut house = churned(VectorOptions::default());
    let stats = house.reader().stats();
    assert_eq!((stats.rows, stats.scopes[0].closed), (900, 900));
    house.vectors().save().unwrap();
    house.open();
    assert!(house.vectors().opened().refused.is_none(), "{:?}", house.vectors().opened());
    assert_eq!(house.reader().stats(), stats);
    let question = as_of(&Ask { min_similarity: Some(0.999), ..ask("thing 5 (t)", 5) }, 900);
    assert_eq!(question.rows(&house.reader()), [6]);
    assert!(Ask { as_of: None, ..question }.rows(&house.reader()).is_empty());
}

#[test]
fn an_index_answers_questions_about_the_past_as_well() {
    let options = VectorOptions { index_from: 500, scan_rows_per_candidate: 1, ..VectorOptions::default() };
    let mut house = churned(options);
    house.vectors().finish_indexes();
    let reader = house.reader();
    assert!(reader.stats().scopes[0].indexed > 0);
    let (mut found, mut wanted) = (0, 0);
    for n in 0..20 {
        let exact = as_of(&ask(&format!("thing {n} (t)"), 10), 1_000);
        let by_index = Ask { exact: false, ..exact.clone() };
        let truth = exact.rows(&reader);
        wanted += truth.len();
        found += by_index.rows(&reader).iter().filter(|row| truth.contains(row)).count();
    }
    assert!(found * 100 >= wanted * 95, "{found} of {wanted}");
}

#[test]
fn a_past_that_is_lacking_is_told_of_also_after_a_restart() {
    let mut house = House::new();
    house.vectors().lack_past(Seq(3));
    house.add([entity(1, "global", "Ada", "person"), observation(2, 1, "fact")]);
    house.add([observation(3, 1, "more"), observation(4, 1, "most")]);
    let question = ask("fact", 5);
    let is_exact = |house: &mut House, question: &Ask| question.answer(&house.reader()).exact;
    for _ in 0..2 {
        assert!(is_exact(&mut house, &question) && is_exact(&mut house, &as_of(&question, 3)));
        assert!(!is_exact(&mut house, &as_of(&question, 2)));
        let robots = Ask { entity_types: vec!["robot".into()], ..as_of(&question, 2) };
        assert!(!is_exact(&mut house, &robots), "there may have been some");
        house.vectors().save().unwrap();
        house.open();
        assert_eq!(house.vectors().checkpoint(), Seq(4));
    }
    house.vectors().reset().unwrap();
    house.fold_by(1).unwrap();
    assert!(is_exact(&mut house, &as_of(&question, 2)));
}

#[test]
fn describing_an_entity_anew_keeps_no_copies_of_its_rows() {
    let mut house = House::new();
    house.add([entity(1, "global", "Ada", "person")]);
    house.add((0..300).map(|n| observation(n + 2, 1, &format!("fact {n}"))));
    let bytes = house.reader().stats().scopes[0].bytes;
    for round in 0..100 {
        let (kind, other) = (format!("type {}", round % 2), TYPES[round as usize % 2]);
        house.add([entity_updated(1, "Ada", &kind, between(round, 1_000))]);
        house.add([entity_updated(1, "Ada", other, Validity::default())]);
    }
    house.vectors().save().unwrap();
    house.open();
    let stats = house.reader().stats();
    // The header says its type, so there is one for each time it changed.
    assert_eq!((stats.rows, stats.scopes[0].closed), (301, 200));
    let (header, times) = (size_of::<Row>() as u64 + 100, 301 * size_of::<Spans>() as u64);
    let grown = stats.scopes[0].bytes - bytes;
    assert!(grown <= 400 * header + times, "{grown} bytes for 200 changes");
    let mut facts = |kind: &str, valid_at: u64, seq: u64| {
        let question = Ask {
            entity_types: vec![kind.into()],
            valid_at: Some(Timestamp::from_unix_micros(valid_at)),
            ..ask("fact 5", 1_000)
        };
        as_of(&question, 301 + seq).rows(&house.reader()).len()
    };
    assert_eq!([facts("person", 5, 0), facts("type 0", 5, 0)], [301, 0]);
    assert_eq!([facts("type 0", 0, 1), facts("type 1", 5, 1)], [301, 0]);
    assert_eq!([facts("type 1", 41, 2 * 41 + 1), facts("type 1", 40, 2 * 41 + 1)], [301, 0]);
    assert_eq!([facts("machine", 40, 2 * 41 + 2), facts("type 1", 41, 2 * 41 + 2)], [301, 0]);
    let digest = house.vectors().part();
    let mut rebuilt = house.rebuilt();
    assert_eq!(rebuilt.vectors().part(), digest);
    assert!(rebuilt.vectors().difference(house.vectors()).is_none());
}

#[test]
fn another_past_of_an_entity_is_a_difference() {
    let folded = |kind: &str| {
        let mut house = House::new();
        house.add([entity(1, "global", "Ada", "person"), observation(2, 1, "fact")]);
        house.add([entity_updated(1, "Ada", kind, Validity::default())]);
        house.add([entity_updated(1, "Ada", "spy", Validity::default())]);
        house
    };
    let (mut one, mut other) = (folded("robot"), folded("machine"));
    let rows = |house: &mut House| house.reader().stats().rows;
    assert_eq!(rows(&mut one), rows(&mut other));
    assert_ne!(one.vectors().part().digest, other.vectors().part().digest);
    let difference = one.vectors().difference(other.vectors()).unwrap();
    assert!(difference.first.is_some(), "{difference:?}");
}

#[test]
fn state_of_an_older_version_is_folded_anew() {
    let mut house = House::new();
    house.add([entity(1, "global", "Ada", "person"), observation(2, 1, "fact")]);
    house.vectors().save().unwrap();
    let path = house.path().join("vectors").join("vectors.state");
    let mut bytes = std::fs::read(&path).unwrap();
    let len = bytes.len() - 32;
    bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
    let seal = *blake3::hash(&bytes[..len]).as_bytes();
    bytes[len..].copy_from_slice(&seal);
    std::fs::write(&path, bytes).unwrap();
    house.open();
    let refused = house.vectors().opened().refused.as_ref();
    assert!(matches!(refused, Some(StateError::Version { format: 1, .. })), "{refused:?}");
    assert_eq!(house.vectors().checkpoint(), Seq::ZERO);
}
