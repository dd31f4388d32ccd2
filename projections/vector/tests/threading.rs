//! Searches on several threads: the same answers as on one.

use std::sync::Arc;

use super::indexing::rows;
use super::{Ask, House, ask, entity, observation};
use crate::embedding::standby::Work;
use crate::vector::filter::Filter;
use crate::vector::kernels::Kernel;
use crate::vector::pass::{Aim, Buffers, Part, Pass};
use crate::vector::quantise::Query;
use crate::vector::scan::Best;
use crate::vector::{VectorAnswer, VectorOptions};

const ROWS: u64 = 15_000;

fn house(sketch_from: u32, scan_threads: usize) -> House {
    let options =
        VectorOptions { sketch_from, scan_threads, index_from: u32::MAX, ..VectorOptions::default() };
    let mut house = House::with(options);
    house.add(rows(0..ROWS));
    house
}

fn questions(exact: bool) -> Vec<Ask> {
    let kinds: [&[&str]; 4] = [&[], &["half"], &["tenth", "rest"], &["hundredth"]];
    let question = |number: usize| {
        let entity_types = kinds[number % 4].iter().map(|&kind| kind.to_owned()).collect();
        let limit = [10, 1, 64, 700][number / 4 % 4];
        Ask { entity_types, exact, ..ask(&format!("question {number}"), limit) }
    };
    (0..32).map(question).collect()
}

#[test]
fn answers_do_not_depend_on_the_number_of_threads() {
    for (sketch_from, exact) in [(1, false), (1, true), (u32::MAX, false)] {
        let answers = |threads| -> Vec<VectorAnswer> {
            let mut house = house(sketch_from, threads);
            let reader = house.reader();
            // Some at the same time, so that some have helpers and some have none.
            let ask_all = || questions(exact).iter().map(|asked| asked.answer(&reader)).collect();
            std::thread::scope(|scope| {
                let others: Vec<_> = (1..threads).map(|_| scope.spawn(ask_all)).collect();
                let answers: Vec<VectorAnswer> = ask_all();
                for other in others {
                    assert_eq!(other.join().unwrap(), answers, "at the same time, {threads} threads");
                }
                answers
            })
        };
        let alone = answers(1);
        assert!(
            alone.iter().any(|answer| answer.exact) && alone.iter().all(|answer| !answer.hits.is_empty())
        );
        for threads in [2, 4] {
            assert!(
                answers(threads) == alone,
                "{threads} threads, sketches from {sketch_from}, exact {exact}"
            );
        }
    }
}

/// What a pass over the rows of `house` finds, and whether it passed over some; so many pieces, at the first look and at the
/// closer one, as `taken` says are taken by a thread that never comes back.
fn find(house: &mut House, kernel: Kernel, sketched: bool, taken: (usize, usize)) -> (Vec<Best>, bool) {
    let shared = Arc::clone(&house.vectors().shared);
    let view = shared.cell(&caxton_events::Scope::Global).unwrap().view();
    let query = Query::new(&super::vector_of("question 5")).unwrap();
    let minimum = f32::NEG_INFINITY;
    let aim = Aim { query, kernel, filter: Filter::default(), limit: 20, minimum };
    let pass =
        Pass::new(aim, vec![Part { view, closed: false, from: 0, sketched }], Arc::<Buffers>::default());
    pass.lose(taken.0, taken.1);
    pass.work();
    let (scan, slabs) = (pass.scan(minimum), pass.slabs());
    let passed_over = pass.passes_over(scan.floor());
    (scan.finish(&slabs, &shared.store.view(), minimum).0, passed_over)
}

#[test]
fn pieces_that_a_thread_took_and_left_are_not_missing() {
    let mut house = house(1, 1);
    for sketched in [true, false] {
        let whole = find(&mut house, Kernel::detect(), sketched, (0, 0));
        assert_eq!((whole.0.len(), whole.1), (20, sketched));
        for taken in [(1, 0), (3, 0), (100, 0), (0, 1), (0, 100), (2, 2)] {
            assert_eq!(find(&mut house, Kernel::detect(), sketched, taken), whole);
        }
    }
}

#[test]
fn every_processor_finds_the_same() {
    let mut house = house(1, 1);
    for sketched in [true, false] {
        let plain = find(&mut house, Kernel::Portable, sketched, (0, 0));
        for kernel in Kernel::available() {
            assert_eq!(find(&mut house, kernel, sketched, (0, 0)), plain, "{kernel:?}");
        }
    }
}

#[test]
fn scopes_of_any_size_are_searched_together() {
    let mut house = house(1_000, 2);
    house.add([entity(900_001, "agent:ada", "a", "half")]);
    house.add((0..300).map(|number| observation(910_000 + number, 900_001, &format!("mine {number}"))));
    let reader = house.reader();
    for number in 0..20 {
        let mut asked = ask(&format!("mine {number}"), 10);
        asked.scopes = vec![caxton_events::Scope::Global, super::scope("agent:ada")];
        let exact = asked.answer(&reader);
        asked.exact = false;
        assert_eq!(asked.answer(&reader).hits[0], exact.hits[0]);
        assert_eq!(exact.hits[0].row.0, 910_000 + number);
    }
}
