//! What is left after a stop, a crash, and damage to each file.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use caxton_events::{Event, Scope, Seq, SystemEvent};

use super::{
    Hashing, House, ask, between, entity, observation, observation_during, observation_removed, scope,
    vector_of,
};
use crate::projection::Projection;
use crate::vector::{PROJECTION_VERSION, StateError, VectorHit};

fn filled() -> House {
    let mut house = House::new();
    house.add([
        entity(1, "global", "Ada", "person"),
        observation_during(2, 1, "one", between(3, 9)),
        observation(3, 1, "two"),
        entity(4, "agent:ada", "Bob", "robot"),
        observation(5, 4, "a b c d e f g h"),
        observation_removed(3, 1),
    ]);
    house
}

fn everything(house: &mut House) -> Vec<VectorHit> {
    let mut asked = ask("one", 100);
    asked.scopes = vec![Scope::Global, scope("agent:ada")];
    asked.hits(&house.reader())
}

fn state(house: &House) -> PathBuf {
    house.path().join("vectors/vectors.state")
}

#[test]
fn saved_state_is_there_after_a_restart_without_the_model() {
    let mut house = filled();
    let before = everything(&mut house);
    assert_eq!((house.vectors().unsaved(), before.len()), (6, 5));
    assert_eq!(house.vectors().saved(), Seq::ZERO);
    house.vectors().save().unwrap();
    assert_eq!((house.vectors().unsaved(), house.vectors().saved()), (0, Seq(6)));
    let embedded = house.model.embedded();
    house.open();
    assert_eq!((house.vectors().checkpoint(), house.vectors().saved()), (Seq(6), Seq(6)));
    let spanned = house.vectors().shared.cells().iter().map(|cell| cell.view().slab.spanned).sum::<u32>();
    assert_eq!(spanned, 1, "one row has a time");
    assert_eq!((house.vectors().opened().rows, house.vectors().opened().refused.is_none()), (5, true));
    assert_eq!(everything(&mut house), before);
    house.add([observation(6, 4, "after"), observation_removed(2, 1)]);
    assert_eq!(ask("after", 1).rows(&house.reader()), [1], "another scope");
    assert_eq!(house.model.embedded(), embedded + 1);
    assert_eq!(everything(&mut house), everything(&mut house.rebuilt()));
}

#[test]
fn types_keep_their_numbers_where_others_were_forgotten() {
    let mut house = House::new();
    house.add([
        entity(1, "agent:ada", "Ada", "person"),
        entity(2, "agent:ada", "Bob", "robot"),
        entity(3, "global", "Charles", "machine"),
        entity(4, "global", "Difference", "engine"),
    ]);
    let mut order = house.log[0].clone();
    order.seq = Seq(5);
    order.event = Event::System(SystemEvent::ErasureOrdered {
        subjects: vec!["agent:ada".parse().unwrap()],
        asked: "scope agent:ada".into(),
        keys: Vec::new(),
        events: 2,
        next_memory_id: 5,
        reason: None,
        by: "system".into(),
    });
    house.log.push(order);
    house.fold_by(1).unwrap();
    let found = |house: &mut House| {
        ["machine", "engine", "person"].map(|kind| {
            let mut asked = ask("anything", 10);
            asked.entity_types = vec![kind.into()];
            asked.rows(&house.reader())
        })
    };
    assert_eq!(found(&mut house), [vec![3], vec![4], vec![]]);
    house.vectors().save().unwrap();
    house.open();
    assert!(house.vectors().opened().refused.is_none(), "{:?}", house.vectors().opened());
    assert_eq!(house.vectors().checkpoint(), Seq(5));
    assert_eq!(found(&mut house), [vec![3], vec![4], vec![]]);
    house.add([entity(6, "global", "Eve", "person")]);
    assert_eq!(found(&mut house), [vec![3], vec![4], vec![6]]);
}

#[test]
fn texts_that_were_remembered_have_their_vectors_without_the_model() {
    let mut house = filled();
    let (reader, model, embedded) = (house.reader(), house.model.clone(), house.model.embedded());
    let texts = ["one", "Ada (person)", "two"];
    assert_eq!(reader.vectors_of(&texts, &*model).unwrap(), texts.map(vector_of));
    assert_eq!(model.embedded(), embedded);
    // A text in several pieces has no vector of its own in the store.
    let texts = ["new", "one", "a b c d", "newer", "Bob (robot)"];
    assert_eq!(reader.vectors_of(&texts, &*model).unwrap(), texts.map(vector_of));
    assert_eq!(model.embedded(), embedded + 2, "a piece of another text is a text as well");
}

#[test]
fn what_was_not_saved_is_folded_again_without_the_model() {
    let mut house = filled();
    house.vectors().save().unwrap();
    house.add([observation(6, 4, "after the save"), observation_removed(5, 4)]);
    let (before, embedded) = (everything(&mut house), house.model.embedded());
    house.open();
    assert_eq!(house.vectors().checkpoint(), Seq(6));
    house.fold_by(1).unwrap();
    assert_eq!((everything(&mut house), house.model.embedded()), (before, embedded));
}

#[test]
fn equal_states_are_equal_files() {
    let (mut one, mut other) = (filled(), filled());
    one.vectors().save().unwrap();
    other.vectors().save().unwrap();
    assert_eq!(fs::read(state(&one)).unwrap(), fs::read(state(&other)).unwrap());
}

#[test]
fn any_cut_or_changed_byte_of_the_state_is_noticed_and_folded_anew() {
    let mut house = filled();
    let before = everything(&mut house);
    house.vectors().save().unwrap();
    let whole = fs::read(state(&house)).unwrap();
    for at in (0..whole.len()).filter(|at| at % 7 == 0 || *at > whole.len() - 40 || *at < 300) {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        for bytes in [&changed[..], &whole[..at]] {
            fs::write(state(&house), bytes).unwrap();
            house.open();
            assert!(house.vectors().opened().refused.is_some(), "byte {at}");
            assert_eq!(house.vectors().checkpoint(), Seq::ZERO, "byte {at}");
        }
    }
    house.fold_by(100).unwrap();
    assert_eq!(everything(&mut house), before);
    house.vectors().save().unwrap();
    assert_eq!(fs::read(state(&house)).unwrap(), whole);
}

#[test]
fn state_of_another_model_or_version_or_store_is_refused_by_name() {
    let mut house = filled();
    house.vectors().save().unwrap();
    let model = std::mem::replace(&mut house.model, Hashing::new('b'));
    house.open();
    assert!(matches!(house.vectors().opened().refused, Some(StateError::Model { .. })));
    house.model = model;
    house.vectors = None;
    fs::remove_dir_all(house.path().join("store")).unwrap();
    house.open();
    assert!(matches!(house.vectors().opened().refused, Some(StateError::Store)));
    let mut bytes = fs::read(state(&house)).unwrap();
    bytes[12] += 1;
    fs::write(state(&house), bytes).unwrap();
    house.open();
    let next = PROJECTION_VERSION + 1;
    assert!(
        matches!(house.vectors().opened().refused, Some(StateError::Version { version, .. }) if version == next)
    );
    house.fold_by(100).unwrap();
    assert_eq!(everything(&mut house).len(), 5);
}

#[test]
fn a_reset_survives_a_restart() {
    let mut house = filled();
    house.vectors().save().unwrap();
    house.vectors().reset().unwrap();
    assert_eq!(house.vectors().saved(), Seq::ZERO);
    house.open();
    assert_eq!((house.vectors().checkpoint(), house.reader().stats().rows), (Seq::ZERO, 0));
    house.vectors().reset().unwrap();
}

#[test]
fn a_failed_save_keeps_the_state_before() {
    let mut house = filled();
    house.vectors().save().unwrap();
    let before = fs::read(state(&house)).unwrap();
    house.add([observation(6, 4, "more")]);
    // A folder where the temporary file should be: the disk says no.
    fs::create_dir(state(&house).with_extension("tmp")).unwrap();
    assert!(house.vectors().save().is_err());
    assert_eq!((house.vectors().unsaved(), house.vectors().saved()), (1, Seq(6)), "it is tried again");
    assert_eq!(fs::read(state(&house)).unwrap(), before);
    house.open();
    assert_eq!(house.vectors().checkpoint(), Seq(6));
}

#[test]
fn a_damaged_stored_vector_is_answered_from_its_row_and_counted() {
    let mut house = filled();
    house.vectors().save().unwrap();
    let before = everything(&mut house);
    let path = house.path().join("store/aaaaaaaaaaaaaaaa.vecs");
    let mut bytes = fs::read(&path).unwrap();
    bytes[..6 * 1_536].fill(0x7f);
    fs::write(&path, bytes).unwrap();
    house.open();
    let after = everything(&mut house);
    assert_eq!(after.len(), before.len());
    for (after, before) in after.iter().zip(&before) {
        assert!((after.similarity - before.similarity).abs() < 0.02, "{after:?} {before:?}");
    }
    assert_eq!(house.reader().stats().damaged, 5);
}

#[test]
fn a_record_of_the_store_that_is_damaged_is_counted_from_the_start_on() {
    let mut house = filled();
    house.vectors = None;
    let path = house.path().join("store/aaaaaaaaaaaaaaaa.keys");
    let mut bytes = fs::read(&path).unwrap();
    bytes[64] ^= 1;
    fs::write(&path, bytes).unwrap();
    house.open();
    assert_eq!(house.reader().stats().damaged, 1);
}

#[test]
fn a_vector_that_is_taken_out_while_somebody_searches_is_no_damage() {
    let mut house = filled();
    let before = everything(&mut house);
    // As between the end of an erased scope's vectors and that of a search that saw the scope before.
    house.vectors().store().keep_only(&HashSet::new()).unwrap();
    let after = everything(&mut house);
    assert_eq!((after.len(), house.reader().stats().damaged), (before.len(), 0));
}
