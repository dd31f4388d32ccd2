//! What the fold makes of each event.

use caxton_events::memory::Validity;
use caxton_events::{AgentEvent, Event, MemoryEvent, MemoryId, Scope, Seq, Subject, SystemEvent, Timestamp};

use super::{
    CRASHES, House, POISON, ask, between, entity, entity_removed, entity_updated, observation,
    observation_during, observation_removed, observation_updated, scope, vector_of,
};
use crate::graph::{Graph, SqliteOptions};
use crate::projection::{ApplyError, Projection};
use crate::vector::fold::Plan;
use crate::vector::{VectorQuery, VectorSearchError};

/// Rows found for `text` with a similarity of 1, sorted.
#[track_caller]
fn check(house: &mut House, text: &str, then: &[u64]) {
    let mut asked = ask(text, 100);
    asked.scopes = vec![Scope::Global, scope("agent:ada"), scope("workspace:lab")];
    asked.min_similarity = Some(0.9999);
    let mut rows = asked.rows(&house.reader());
    rows.sort_unstable();
    assert_eq!(rows, then, "{text:?}");
}

#[test]
fn a_header_and_each_observation_have_a_row() {
    let mut house = House::new();
    house.add([entity(1, "global", "Ada", "person"), observation(2, 1, "wrote the first program")]);
    check(&mut house, "Ada (person)", &[1]);
    check(&mut house, "wrote the first program", &[2]);
    let hit = ask("wrote the first program", 1).hits(&house.reader())[0];
    assert_eq!((hit.row, hit.entity, hit.chunk), (MemoryId(2), MemoryId(1), 0));
    assert!((hit.similarity - 1.0).abs() < 1e-6);
}

#[test]
fn a_long_observation_has_a_row_for_each_piece() {
    let mut house = House::new();
    house.add([
        entity(1, "global", "Ada", "person"),
        observation(2, 1, " one two three four\nfive six seven eight  nine "),
    ]);
    for (chunk, text) in ["one two three four", "five six seven eight", "nine"].into_iter().enumerate() {
        let hit = ask(text, 1).hits(&house.reader())[0];
        assert_eq!((hit.row.0, usize::from(hit.chunk)), (2, chunk), "{text}");
    }
    house.add([observation_updated(2, 1, "one two three four five", Validity::default())]);
    check(&mut house, "five six seven eight", &[]);
    check(&mut house, "nine", &[]);
    check(&mut house, "five", &[2]);
    house.add([observation_removed(2, 1)]);
    check(&mut house, "one two three four", &[]);
    assert_eq!(house.reader().stats().rows, 1);
}

#[test]
fn an_empty_observation_has_no_row() {
    let mut house = House::new();
    house.add([entity(1, "global", "Ada", "person"), observation(2, 1, ""), observation(3, 1, " \n\t ")]);
    assert_eq!(house.reader().stats().rows, 1);
    house.add([observation_updated(2, 1, "now something", Validity::default())]);
    check(&mut house, "now something", &[2]);
    house.add([observation_updated(2, 1, "", Validity::default())]);
    check(&mut house, "now something", &[]);
}

#[test]
fn an_updated_entity_is_found_by_its_new_name_and_type() {
    let mut house = House::new();
    house.add([entity(1, "global", "Ada", "person"), observation(2, 1, "fact")]);
    house.add([entity_updated(1, "Augusta", "countess", Validity::default())]);
    check(&mut house, "Ada (person)", &[]);
    check(&mut house, "Augusta (countess)", &[1]);
    let mut asked = ask("fact", 10);
    asked.entity_types = vec!["person".into()];
    assert!(asked.rows(&house.reader()).is_empty());
    asked.entity_types = vec!["person".into(), "countess".into(), "unheard of".into()];
    assert_eq!(asked.rows(&house.reader()), [2, 1]);
    asked.entity_types = vec!["unheard of".into()];
    assert!(asked.rows(&house.reader()).is_empty());
}

#[test]
fn a_removed_entity_takes_all_its_rows_along() {
    let mut house = House::new();
    house.add([
        entity(1, "global", "Ada", "person"),
        observation(2, 1, "fact"),
        entity(3, "global", "Bob", "person"),
        observation(4, 3, "fact"),
        entity_removed(1),
    ]);
    check(&mut house, "fact", &[4]);
    check(&mut house, "Ada (person)", &[]);
    assert_eq!(house.reader().stats().rows, 2);
}

#[test]
fn a_row_counts_while_it_and_its_entity_are_true() {
    let mut house = House::new();
    house.add([
        entity(1, "global", "Ada", "person"),
        observation_during(2, 1, "fact", between(10, 20)),
        observation(3, 1, "fact"),
    ]);
    let rows = |house: &mut House, at: Option<u64>| {
        let mut asked = ask("fact", 2);
        asked.valid_at = at.map(Timestamp::from_unix_micros);
        asked.min_similarity = Some(0.99);
        asked.rows(&house.reader())
    };
    assert_eq!(rows(&mut house, Some(9)), [3]);
    assert_eq!(rows(&mut house, Some(10)), [2, 3]);
    assert_eq!(rows(&mut house, Some(20)), [3]);
    assert_eq!(rows(&mut house, None), [2, 3]);
    house.add([entity_updated(1, "Ada", "person", between(15, 30))]);
    assert_eq!(rows(&mut house, Some(12)), Vec::<u64>::new());
    assert_eq!(rows(&mut house, Some(15)), [2, 3]);
    house.add([observation_updated(2, 1, "fact", Validity::default()), observation(4, 1, "other")]);
    assert_eq!(rows(&mut house, Some(25)), [2, 3]);
    assert_eq!(rows(&mut house, Some(30)), Vec::<u64>::new());
}

#[test]
fn a_scope_is_seen_only_when_it_is_named() {
    let mut house = House::new();
    house.add([
        entity(1, "global", "x", "t"),
        entity(2, "agent:ada", "x", "t"),
        entity(3, "workspace:lab", "x", "t"),
    ]);
    let mut asked = ask("x (t)", 10);
    asked.scopes = vec![scope("agent:ada"), scope("agent:bob"), scope("agent:ada"), Scope::Global];
    assert_eq!(asked.rows(&house.reader()), [1, 2], "equal ones by number, none twice");
    asked.scopes.clear();
    assert!(asked.rows(&house.reader()).is_empty());
}

#[test]
fn the_model_runs_once_for_each_text() {
    let mut house = House::new();
    house.add([
        entity(1, "global", "Ada", "person"),
        observation(2, 1, "fact"),
        entity(3, "agent:ada", "Ada", "person"),
        observation(4, 3, "fact"),
    ]);
    assert_eq!(house.model.embedded(), 2);
    house.add([observation_updated(4, 3, "fact", between(1, 2)), observation(5, 3, "another")]);
    assert_eq!(house.model.embedded(), 3);
    house.vectors().reset().unwrap();
    assert_eq!((house.reader().stats().rows, house.vectors().checkpoint()), (0, Seq::ZERO));
    house.fold_by(3).unwrap();
    assert_eq!(house.model.embedded(), 3);
    check(&mut house, "fact", &[2, 4]);
}

#[test]
fn a_failing_model_leaves_the_state_as_it_was() {
    let mut house = House::new();
    house.add([entity(1, "global", "Ada", "person")]);
    house.log([
        entity(2, "global", "Bob", "person"),
        entity_updated(1, "Eve", "spy", Validity::default()),
        observation(3, 2, POISON),
    ]);
    assert!(matches!(house.fold_by(10), Err(ApplyError::Store { after: Seq(1), .. })));
    assert_eq!(house.vectors().checkpoint(), Seq(1));
    check(&mut house, "Ada (person)", &[1]);
    check(&mut house, "Bob (person)", &[]);
}

#[test]
fn a_model_that_panics_leaves_the_state_as_it_was_and_says_so() {
    for text in CRASHES {
        let mut house = House::new();
        house.add([entity(1, "global", "Ada", "person")]);
        house.log([entity(2, "global", "Bob", "person"), observation(3, 2, text)]);
        for _ in 0..2 {
            let Err(ApplyError::Store { after: Seq(1), source }) = house.fold_by(10) else {
                panic!("{text}")
            };
            assert!(source.to_string().contains("a text was not expected"), "{source}");
        }
        check(&mut house, "Ada (person)", &[1]);
        check(&mut house, "Bob (person)", &[]);
    }
}

#[test]
fn a_fold_that_fails_again_and_again_does_not_compute_again_what_it_has() {
    for text in [POISON, CRASHES[0]] {
        let mut house = House::new();
        house.log([entity(1, "global", "Ada", "person")]);
        house.log((2..200).map(|id| observation(id, 1, &format!("fact {id}"))));
        house.log([observation(200, 1, text)]);
        house.log((201..300).map(|id| observation(id, 1, &format!("fact {id}"))));
        let asked = |house: &mut House| {
            let before = house.model.embedded();
            house.fold_by(1_000).unwrap_err();
            house.model.embedded() - before
        };
        asked(&mut house);
        assert!(asked(&mut house) >= 3 * 64, "{text}: those before it");
        for _ in 0..3 {
            assert!(asked(&mut house) <= 64, "{text}: only those that went with it");
        }
        check(&mut house, "fact 2", &[]);
        house.log.truncate(199);
        house.fold_by(1_000).unwrap();
        check(&mut house, "fact 2", &[2]);
        let mut rebuilt = house.rebuilt();
        assert_eq!(house.vectors().part(), rebuilt.vectors().part());
    }
}

#[test]
fn what_was_embedded_before_a_fold_was_cut_short_is_in_the_store() {
    let mut house = House::new();
    house.log([entity(1, "global", "Ada", "person")]);
    house.log((2..2_500).map(|id| observation(id, 1, &format!("fact {id}"))));
    house.log([observation(2_500, 1, POISON)]);
    house.fold_by(10_000).unwrap_err();
    assert_eq!(house.vectors().store().len(), 2 * 1_024);
}

#[test]
fn an_update_looks_at_all_rows_of_an_entity_only_where_its_type_or_time_changes() {
    let mut house = House::new();
    house.add([entity(1, "global", "Ada", "person"), observation(2, 1, "fact")]);
    let update = |name: &str, kind: &str| entity_updated(1, name, kind, Validity::default());
    for (events, described) in [
        (vec![update("Eve", "person")], 0),
        (vec![update("Ada", "spy")], 1),
        (vec![entity_updated(1, "Ada", "person", between(10, 20))], 1),
        (vec![update("Ada", "spy"), update("Eve", "spy")], 1),
        (vec![update("Ada", "spy"), update("Ada", "person")], 2),
    ] {
        house.log(events.clone());
        let records = house.log.split_off(2);
        let vectors = house.vectors();
        let mut plan = Plan::new(&vectors.shared, vectors.embedder.as_ref(), &vectors.entities);
        for record in &records {
            plan.add(record).unwrap();
        }
        assert_eq!(plan.described(), described, "{events:?}");
    }
}

#[test]
fn what_is_erased_goes_before_its_order_is_folded_and_texts_not_folded_yet_keep_their_vectors() {
    let mut house = House::new();
    house.add([
        entity(1, "global", "Ada", "person"),
        observation(2, 1, "stays"),
        entity(3, "agent:ada", "Bob", "spy"),
        observation(4, 3, "gone"),
    ]);
    house.log([observation(5, 1, "not folded yet"), observation(6, 1, POISON)]);
    let erased: [Subject; 1] = ["agent:ada".parse().unwrap()];
    house.order(&erased);
    house.fold_by(10).unwrap_err();
    // As an earlier try left it.
    house.vectors().store().put("not folded yet", &vector_of("not folded yet")).unwrap();
    let mut graph = Graph::open(&house.path().join("graph"), &SqliteOptions::default()).unwrap();
    graph.apply(&house.log).unwrap();
    house.vectors().forget(&erased);
    check(&mut house, "gone", &[]);
    house.vectors().scrub(&graph.reader(), &erased).unwrap();
    let store = house.vectors().store();
    let is_stored = |text: &str| store.get_slot(text).is_some();
    let stored = ["stays", "Ada (person)", "not folded yet", "gone", "Bob (spy)"].map(is_stored);
    assert_eq!(stored, [true, true, true, false, false]);
    drop(store);
    house.open();
    assert_eq!((house.vectors().checkpoint(), house.vectors().saved()), (Seq(4), Seq(4)));
    check(&mut house, "stays", &[2]);
    // What is behind is folded once the model can; the order among it finds nothing left.
    house.log[5].event = Event::Memory(observation(6, 1, "mended"));
    house.add([entity(7, "agent:ada", "Bob", "again")]);
    check(&mut house, "gone", &[]);
    check(&mut house, "mended", &[6]);
    check(&mut house, "Bob (again)", &[7]);
    let mut rebuilt = house.rebuilt();
    assert_eq!(house.vectors().part(), rebuilt.vectors().part());
}

#[test]
fn a_batch_with_an_order_to_erase_that_fails_goes_on_where_it_failed() {
    let mut house = House::new();
    house.log([
        entity(1, "global", "Ada", "person"),
        entity(2, "agent:ada", "Bob", "person"),
        observation(3, 1, "fact"),
        observation_updated(3, 1, "another fact", Validity::default()),
    ]);
    house.order(&["agent:ada".parse().unwrap()]);
    house.log([observation(4, 1, POISON), observation(5, 1, "later")]);
    assert!(matches!(house.fold_by(10), Err(ApplyError::Store { after: Seq(5), .. })));
    assert_eq!((house.vectors().checkpoint(), house.vectors().unsaved()), (Seq(5), 5));
    check(&mut house, "another fact", &[3]);
    check(&mut house, "Bob (person)", &[]);
    house.log.truncate(5);
    house.add([observation(5, 1, "later")]);
    let mut rebuilt = house.rebuilt();
    assert_eq!(house.vectors().part(), rebuilt.vectors().part(), "nothing was folded twice");
}

#[test]
fn a_gap_and_an_unknown_entity_are_refused() {
    let mut house = House::new();
    house.log([entity(1, "global", "a", "t"), entity(2, "global", "b", "t"), entity(3, "global", "c", "t")]);
    let log = house.log.clone();
    let result = house.vectors().apply(&log[1..]);
    assert!(matches!(result, Err(ApplyError::Gap { expected: Seq(1), found: Seq(2) })));
    house.vectors().apply(&log[..2]).unwrap();
    house.vectors().apply(&log).unwrap();
    assert_eq!(house.vectors().checkpoint(), Seq(3), "a record that comes twice counts once");
    for event in [observation(9, 7, "x"), entity_removed(7), observation_removed(9, 7)] {
        house.log([event]);
        let result = house.fold_by(1);
        assert!(matches!(result, Err(ApplyError::Unknown { seq: Seq(4), what: "entity", id: 7 })));
        house.log.pop();
    }
    house.add([entity_removed(1)]);
    house.log([observation(9, 1, "x")]);
    assert!(matches!(house.fold_by(1), Err(ApplyError::Unknown { id: 1, .. })));
}

#[test]
fn events_without_text_move_the_checkpoint() {
    let mut house = House::new();
    house.log([entity(1, "global", "a", "t"), MemoryEvent::RelationRemoved { id: MemoryId(9) }]);
    let mut record = house.log[0].clone();
    for event in [
        Event::System(SystemEvent::ServerStopped),
        Event::Agent(AgentEvent::ExternalRegistered {
            agent: "ada".parse().unwrap(),
            workspace: "lab".parse().unwrap(),
        }),
    ] {
        record.seq = Seq(house.log.len() as u64 + 1);
        record.event = event;
        house.log.push(record.clone());
    }
    house.fold_by(100).unwrap();
    assert_eq!((house.vectors().checkpoint(), house.reader().checkpoint()), (Seq(4), Seq(4)));
    assert_eq!(house.reader().stats().rows, 1);
}

#[test]
fn a_text_of_too_many_pieces_is_found_by_its_first_4096() {
    let mut house = House::new();
    let words: Vec<String> = (0..4 * 4_100).map(|number| format!("w{number}")).collect();
    house.add([entity(1, "global", "a", "t"), observation(2, 1, &words.join(" "))]);
    assert_eq!(house.reader().stats().rows, 4_097);
    assert_eq!(ask(&words[4 * 4_095..4 * 4_096].join(" "), 1).hits(&house.reader())[0].chunk, 4_095);
    house.add([observation_removed(2, 1)]);
    assert_eq!(house.reader().stats().rows, 1);
}

#[test]
fn a_query_that_cannot_be_compared_is_refused() {
    let mut house = House::new();
    let mut query = VectorQuery {
        vector: &[1.0; 3],
        scopes: &[Scope::Global],
        entity_types: &[],
        valid_at: None,
        as_of: None,
        min_similarity: None,
        limit: 1,
        exact: true,
    };
    let reader = house.reader();
    assert!(matches!(reader.search(&query), Err(VectorSearchError::Vector(_))));
    query.vector = &[1.0; 384];
    query.min_similarity = Some(f32::NAN);
    assert_eq!(reader.search(&query), Err(VectorSearchError::MinSimilarity));
    query.min_similarity = None;
    query.limit = 0;
    assert!(reader.search(&query).unwrap().hits.is_empty());
    query.limit = usize::MAX;
    assert!(reader.search(&query).unwrap().hits.is_empty());
}
