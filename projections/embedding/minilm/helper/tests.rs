//! The helper against the pass that does without: in time, late, and called by many at once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use super::super::forward::{Pass, Scratch, forward};
use super::super::weights::testing::{SMALL, every_way, small_weights};
use super::*;
use crate::embedding::Precision;

const PRODUCTS: [Product; 4] =
    [Product::AttentionIn, Product::AttentionOut, Product::FeedIn, Product::FeedOut];

fn text(len: u32) -> Vec<u32> {
    (0..len).map(|index| (index * index + len) % SMALL.vocabulary as u32).collect()
}

/// `rows` rows for `product`, and room for the result.
fn task(weights: &Weights, product: Product, rows: usize) -> (Vec<f32>, Vec<f32>) {
    let matrix = weights.matrix(1, product);
    let numbers = (0..rows * matrix.depth()).map(|index| (index * 37 % 101) as f32 / 50.0 - 1.0).collect();
    (numbers, vec![0.0; rows * matrix.count() * PANEL_COLUMNS])
}

/// The product as `run` computes it, which gets both sides and room for the result.
fn product_by(
    weights: &Weights,
    kernels: Kernels,
    product: Product,
    rows: usize,
    run: impl FnOnce(Rows<'_>, &Multiplication<'_>, &mut RowsMut<'_>),
) -> Vec<f32> {
    let (x, mut y) = task(weights, product, rows);
    let matrix = weights.matrix(1, product);
    let x = Rows { numbers: &x, count: rows, stride: matrix.depth() };
    let stride = matrix.count() * PANEL_COLUMNS;
    let mut operand = Operand::with_room(rows, matrix.depth()).unwrap();
    let tiles = kernels.tiles();
    let own = matrix.with(kernels, &tiles, x, &mut operand);
    run(x, &own, &mut RowsMut { numbers: &mut y, stride });
    y
}

fn alone(weights: &Weights, kernels: Kernels, product: Product, rows: usize) -> Vec<f32> {
    product_by(weights, kernels, product, rows, |_, own, y| own.all(kernels, product, y))
}

#[test]
fn what_the_helper_computes_has_the_same_bits() {
    for (kernels, weights) in every_way() {
        let weights = Arc::new(weights);
        let helper = Helper::start(Arc::clone(&weights), kernels).unwrap();
        for product in PRODUCTS {
            for rows in [1, 2, 8, 15, 60, TOKENS_MAX] {
                let mut shared = helper.call().unwrap();
                let found = product_by(&weights, kernels, product, rows, |x, _, y| {
                    let matrix = weights.matrix(1, product);
                    assert!(shared.lay_out(1, product, x, matrix));
                    // The pass's own thread takes nothing: all of it is the helper's.
                    let done = Done { turn: *shared.turn, panels: matrix.count() as u32 };
                    while helper.desk.finished.load(Ordering::Acquire) != done.pack() {
                        // It may have given up to wait for work.
                        helper.desk.calls.fetch_add(1, Ordering::Release);
                        helper.waker.unpark();
                        std::thread::yield_now();
                    }
                    assert!(shared.collect(0, rows, matrix, y));
                });
                let expected = alone(&weights, kernels, product, rows);
                assert_eq!(found, expected, "{kernels:?}, {:?}, {product:?}, {rows}", weights.numbers());
            }
        }
    }
}

#[test]
fn a_pass_with_the_helper_gives_the_same_bits_each_time() {
    for (kernels, weights) in every_way() {
        let weights = Arc::new(weights);
        let helper = Helper::start(Arc::clone(&weights), kernels).unwrap();
        let mut scratch = Scratch::default();
        for len in (1..=SMALL.positions as u32).step_by(7).cycle().take(240) {
            let text = text(len);
            let mut run = |helper| {
                let pass = Pass { kernels, weights: &weights, helper };
                forward(pass, &[&text], &mut scratch).unwrap()
            };
            let what = format!("{kernels:?}, {:?}, {len} tokens", weights.numbers());
            assert_eq!(run(Some(helper.call().unwrap())), run(None), "{what}");
        }
    }
}

#[test]
fn only_one_pass_at_a_time_has_the_helper() {
    let helper = Helper::start(Arc::new(small_weights()), Kernels::fastest(Precision::Fp32)).unwrap();
    let first = helper.call().unwrap();
    assert!(helper.call().is_none());
    drop(first);
    assert!(helper.call().is_some());
}

#[test]
fn a_helper_that_takes_a_panel_and_does_not_finish_it_costs_no_result() {
    let (weights, kernels) = (Arc::new(small_weights()), Kernels::fastest(Precision::Fp32));
    let desk = Desk::new(Arc::clone(&weights), kernels).unwrap();
    let (turn, stop, taken) = (Mutex::new(0), AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                taken.fetch_add(u32::from(desk.claim_back().is_some()), Ordering::Relaxed);
                std::thread::yield_now();
            }
        });
        for product in PRODUCTS {
            let before = taken.load(Ordering::Relaxed);
            while taken.load(Ordering::Relaxed) == before {
                let mut shared = Shared { desk: &desk, turn: turn.lock().unwrap(), late: 0 };
                let found = product_by(&weights, kernels, product, 60, |x, own, y| {
                    assert!(shared.multiply((1, product), x, own, y));
                });
                assert_eq!(found, alone(&weights, kernels, product, 60), "{product:?}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_pass_goes_on_alone_while_the_helper_still_reads_an_earlier_one() {
    let (weights, kernels) = (Arc::new(small_weights()), Kernels::fastest(Precision::Fp32));
    let desk = Desk::new(Arc::clone(&weights), kernels).unwrap();
    let turn = Mutex::new(0);
    let reading = desk.task.read().unwrap();
    let text = text(12);
    let shared = Shared { desk: &desk, turn: turn.lock().unwrap(), late: 0 };
    let run = |helper| {
        let pass = Pass { kernels, weights: &weights, helper };
        forward(pass, &[&text], &mut Scratch::default()).unwrap()
    };
    assert_eq!(run(Some(shared)), run(None));
    assert_eq!(*turn.lock().unwrap(), 0, "nothing was laid out");
    drop(reading);
    let shared = Shared { desk: &desk, turn: turn.lock().unwrap(), late: 0 };
    run(Some(shared));
    assert_eq!(*turn.lock().unwrap(), 4 * SMALL.layers as u32);
}

#[test]
fn a_panel_of_an_earlier_turn_is_not_computed() {
    let (weights, kernels) = (Arc::new(small_weights()), Kernels::fastest(Precision::Fp32));
    let desk = Desk::new(Arc::clone(&weights), kernels).unwrap();
    desk.claims.store(Claims { turn: 7, front: 0, back: 1 }.pack(), Ordering::Release);
    let mut done = Done { turn: 0, panels: 0 };
    assert!(!desk.take_panel(&kernels.tiles(), &mut done), "the task on the desk is that of turn 0");
    assert_eq!(desk.finished.load(Ordering::Acquire), 0);
}

#[test]
fn claims_meet_once() {
    let desk = Desk::new(Arc::new(small_weights()), Kernels::fastest(Precision::Fp32)).unwrap();
    desk.claims.store(Claims { turn: u32::MAX, front: 0, back: 1_000 }.pack(), Ordering::Release);
    let mut taken = std::thread::scope(|scope| {
        let back = scope.spawn(|| {
            std::iter::from_fn(|| desk.claim_back().map(|(turn, index)| (turn == u32::MAX, index)))
                .collect::<Vec<_>>()
        });
        let mut taken: Vec<_> =
            std::iter::from_fn(|| desk.claim_front()).map(|index| (true, index)).collect();
        taken.extend(back.join().unwrap());
        taken
    });
    taken.sort_unstable();
    assert_eq!(taken, (0..1_000).map(|index| (true, index)).collect::<Vec<_>>());
}
