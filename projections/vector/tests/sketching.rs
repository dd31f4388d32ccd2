//! Sketches: what a scan by them finds, and when it is certain.

use caxton_events::Timestamp;

use super::indexing::{recall, rows};
use super::{Ask, House, ask, entity_removed, observation, observation_removed};
use crate::vector::VectorOptions;

const ROWS: u64 = 10_000;

/// Sketches for every scope, an index for none.
fn sketched() -> House {
    let options = VectorOptions { sketch_from: 1, index_from: u32::MAX, ..VectorOptions::default() };
    House::with(options)
}

#[test]
fn sketches_pass_over_rows_and_find_what_a_scan_finds() {
    let mut house = sketched();
    house.add(rows(0..ROWS));
    let reader = house.reader();
    let (share, exact) = recall(&reader, |_| ());
    assert!(share >= 0.998, "{share}");
    assert_eq!(exact, 0, "sketches are used, and nothing is claimed that is not certain");
    for kinds in [vec!["rest"], vec!["rest", "half"], vec!["tenth"], vec!["hundredth"]] {
        let (share, _) = recall(&reader, |asked| {
            asked.entity_types = kinds.iter().map(|&kind| kind.to_owned()).collect();
        });
        assert!(share >= 0.998, "{kinds:?}: {share}");
    }
    let (share, _) = recall(&reader, |asked| asked.valid_at = Some(Timestamp::EPOCH));
    assert!(share >= 0.998, "{share}");
    let (share, exact) = recall(&reader, |asked| asked.entity_types = vec!["hundredth".into()]);
    assert_eq!(
        (share.to_bits(), exact),
        (1.0_f64.to_bits(), 100),
        "few rows of a block are compared themselves"
    );
}

#[test]
fn a_restart_finds_the_same_rows_by_sketches() {
    let mut house = sketched();
    house.add(rows(0..3_000));
    let asked: Vec<Ask> =
        (0..20).map(|number| Ask { exact: false, ..ask(&format!("question {number}"), 10) }).collect();
    let before: Vec<_> = asked.iter().map(|asked| asked.answer(&house.reader())).collect();
    house.vectors().save().unwrap();
    house.open();
    let after: Vec<_> = asked.iter().map(|asked| asked.answer(&house.reader())).collect();
    assert_eq!(before, after);
    assert!(before.iter().any(|answer| !answer.exact));
}

#[test]
fn removed_rows_are_not_found_and_new_ones_are_at_once() {
    let mut house = sketched();
    house.add(rows(0..3_000));
    let asked = Ask { exact: false, min_similarity: Some(0.99), ..ask("text 77", 3) };
    assert_eq!(asked.rows(&house.reader()), [156]);
    house.add([observation_removed(156, 155)]);
    assert!(asked.rows(&house.reader()).is_empty());
    house.add([observation(900_001, 199, "text 77")]);
    assert_eq!(asked.rows(&house.reader()), [900_001]);
    house.add([entity_removed(199)]);
    assert!(asked.rows(&house.reader()).is_empty());
}

#[test]
fn whoever_asks_for_everything_gets_it_for_certain() {
    let mut house = sketched();
    house.add(rows(0..1_000));
    let asked = Ask { exact: false, ..ask("anything", 5_000) };
    let answer = asked.answer(&house.reader());
    assert_eq!((answer.hits.len(), answer.exact), (2_000, true));
}
