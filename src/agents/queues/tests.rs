//! Queues against scripts of arrivals and picks.

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 4] = ["critical", "high", "normal", "background"];

fn queues(size: usize) -> Queues<u64> {
    let rule = |(at, name): (usize, &&str)| QueueRule {
        name: (*name).to_owned(),
        priority: at as u32,
        max_latency: Duration::from_secs([1, 5, 15, 60][at]),
        size,
    };
    Queues::new(NAMES.iter().enumerate().map(rule).collect())
}

fn lane(number: u64) -> Lane {
    Lane { agent: "ada".parse().unwrap(), conversation: format!("c{number}").parse().unwrap() }
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Picks and finishes at once; the item's number.
fn serve(queues: &mut Queues<u64>, now: Duration) -> Option<u64> {
    let picked = queues.pick(now, |_| true)?;
    queues.done(&picked.lane);
    Some(picked.item)
}

#[test]
fn the_most_urgent_is_first_and_then_the_oldest() {
    let mut queues = queues(10);
    for (number, queue) in [(1, 3), (2, 2), (3, 0), (4, 2), (5, 1), (6, 0)] {
        queues.push(queue, lane(number), number, at(0)).unwrap();
    }
    let served: Vec<u64> = std::iter::from_fn(|| serve(&mut queues, at(1))).collect();
    assert_eq!(served, [3, 6, 5, 2, 4, 1]);
}

#[test]
fn a_critical_item_overtakes_a_full_background_queue() {
    let mut queues = queues(2_000);
    for number in 0..2_000 {
        queues.push(3, lane(number), number, at(0)).unwrap();
    }
    assert!(queues.push(3, lane(9_999), 9_999, at(0)).is_err());
    // Long after the measure of all of them, and after picks that were owed to nobody else.
    let now = at(3_600_000);
    for _ in 0..50 {
        assert!(serve(&mut queues, now).is_some());
    }
    queues.push(0, lane(5_000), 5_000, now).unwrap();
    assert_eq!(serve(&mut queues, now), Some(5_000));
}

#[test]
fn a_critical_item_waits_for_one_late_pick_at_most() {
    let mut queues = queues(2_000);
    for number in 0..1_000 {
        queues.push(3, lane(number), number, at(0)).unwrap();
        queues.push(0, lane(5_000 + number), 5_000 + number, at(0)).unwrap();
    }
    let now = at(3_600_000);
    let served: Vec<bool> =
        (0..500).filter_map(|_| serve(&mut queues, now)).map(|item| item >= 5_000).collect();
    assert!(served.windows(2).all(|two| two[0] || two[1]), "two in a row that are not critical");
    let others = served.iter().filter(|critical| !**critical).count();
    assert_eq!(others, 500 / LATE_PICK_EVERY as usize);
}

/// With more urgent work at every pick than can be done, each queue is still served.
#[test]
fn nobody_starves() {
    let mut queues = queues(100_000);
    let mut served = [0_u32; 4];
    let mut longest = [Duration::ZERO; 4];
    let mut number = 0;
    for step in 0..60_000_u64 {
        let now = at(step * 100);
        for queue in 0..4 {
            // Critical and high alone are more than is served; the others come now and then.
            if queue < 2 || step % 40 == 0 {
                queues.push(queue, lane(number), number, now).unwrap();
                number += 1;
            }
        }
        let picked = queues.pick(now, |_| true).unwrap();
        served[picked.queue] += 1;
        longest[picked.queue] = longest[picked.queue].max(picked.waited);
        queues.done(&picked.lane);
    }
    assert!(served[0] >= 40_000, "{served:?}");
    // One pick in five goes to the three others in turn: what comes once in 40 is served soon after it is late.
    assert!(served[1] >= 8_000 && served[2] >= 1_400 && served[3] >= 1_400, "{served:?}");
    assert!(longest[2] < Duration::from_secs(18) && longest[3] < Duration::from_secs(63), "{longest:?}");
}

#[test]
fn a_conversation_is_never_reordered_even_across_queues() {
    let mut queues = queues(10);
    queues.push(3, lane(1), 1, at(0)).unwrap();
    queues.push(2, lane(2), 2, at(0)).unwrap();
    queues.push(0, lane(1), 3, at(0)).unwrap();
    // The critical item cannot be first, so what stands before it is.
    let first = queues.pick(at(1), |_| true).unwrap();
    assert_eq!((first.item, first.queue), (1, 3));
    assert_eq!(queues.pick(at(1), |_| true).map(|picked| picked.item), Some(2), "its lane is taken");
    assert_eq!(queues.pick(at(1), |_| true), None);
    queues.done(&first.lane);
    assert_eq!(serve(&mut queues, at(1)), Some(3));
}

#[test]
fn what_is_hastened_waits_for_its_moment_no_longer() {
    let mut queues = queues(10);
    for number in 1..=2 {
        queues.push(2, lane(number), number, at(0)).unwrap();
    }
    for _ in 0..2 {
        let first = queues.pick(at(1), |_| true).unwrap();
        queues.put_back(first, at(1), at(500));
    }
    queues.hasten(&lane(1), |item| *item == 1);
    queues.hasten(&lane(2), |item| *item == 1);
    assert_eq!(serve(&mut queues, at(2)), Some(1));
    assert_eq!((serve(&mut queues, at(2)), queues.next_due(at(2))), (None, Some(at(500))));
}

#[test]
fn what_is_put_back_waits_its_time_before_the_rest_of_its_conversation() {
    let mut queues = queues(2);
    queues.push(2, lane(1), 1, at(0)).unwrap();
    queues.push(2, lane(1), 2, at(0)).unwrap();
    let first = queues.pick(at(1), |_| true).unwrap();
    queues.push(2, lane(3), 3, at(1)).unwrap();
    queues.put_back(first, at(1), at(500));
    assert_eq!(queues.next_due(at(1)), Some(at(500)));
    assert_eq!(serve(&mut queues, at(1)), Some(3));
    assert_eq!(serve(&mut queues, at(499)), None);
    assert_eq!((serve(&mut queues, at(500)), serve(&mut queues, at(500))), (Some(1), Some(2)));
    assert_eq!(queues.next_due(at(500)), None);
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let mut queues = queues(2);
    for (number, now) in [(1, 0), (2, 0), (3, 4_000), (4, 8_000), (5, 12_000)] {
        if number > 2 {
            assert!(serve(&mut queues, at(now)).is_some());
        }
        queues.push(2, lane(number), number, at(now)).unwrap();
    }
    let (item, full) = queues.push(2, lane(9), 9, at(12_000)).unwrap_err();
    assert_eq!((item, full.queue.as_str(), full.size), (9, "normal", 2));
    assert!(
        full.retry_after >= Duration::from_secs(1) && full.retry_after <= Duration::from_secs(4),
        "{full}"
    );
    assert_eq!(queues.room(), [2, 2, 0, 2]);
    queues.push(0, lane(10), 10, at(12_000)).unwrap();
}

#[test]
fn late_items_are_counted_by_queue() {
    let mut queues = queues(10);
    queues.push(0, lane(1), 1, at(0)).unwrap();
    queues.push(3, lane(2), 2, at(0)).unwrap();
    let first = queues.pick(at(1_001), |_| true).unwrap();
    assert!(first.late && first.waited == at(1_001));
    assert!(!queues.pick(at(1_001), |_| true).unwrap().late);
    assert_eq!(queues.late().collect::<Vec<_>>(), [1, 0, 0, 0]);
}

#[test]
fn what_is_not_ready_is_passed_over() {
    let mut queues = queues(10);
    queues.push(0, lane(1), 1, at(0)).unwrap();
    queues.push(0, lane(2), 2, at(0)).unwrap();
    assert_eq!(queues.pick(at(0), |item| *item == 2).map(|picked| picked.item), Some(2));
    assert_eq!(queues.remove(&"ada".parse().unwrap()), [1]);
    assert_eq!(queues.depths().sum::<usize>(), 0);
}

proptest! {
    /// Whatever comes, is picked, put back and finished in whatever order: each lane sees its items in order, one at a
    /// time, and in the end everything was served once.
    #[test]
    fn lanes_keep_their_order(script in proptest::collection::vec((0_u8..4, 0_usize..4, 0_u64..3), 1..120)) {
        let mut queues = queues(1_000);
        let mut running: Vec<Picked<u64>> = Vec::new();
        let mut served: HashMap<Lane, Vec<u64>> = HashMap::new();
        let mut pushed: HashMap<Lane, Vec<u64>> = HashMap::new();
        let (mut number, mut now) = (0, Duration::ZERO);
        for (act, queue, to) in script {
            now += at(700);
            match act {
                0 | 1 => {
                    queues.push(queue, lane(to), number, now).unwrap();
                    pushed.entry(lane(to)).or_default().push(number);
                    number += 1;
                }
                2 => {
                    if let Some(picked) = queues.pick(now, |_| true) {
                        prop_assert!(running.iter().all(|other| other.lane != picked.lane));
                        running.push(picked);
                    }
                }
                _ if running.is_empty() => (),
                _ => {
                    let ended = running.swap_remove(queue % running.len());
                    if to == 0 {
                        queues.put_back(ended, now, now + at(1_000));
                    } else {
                        served.entry(ended.lane.clone()).or_default().push(ended.item);
                        queues.done(&ended.lane);
                    }
                }
            }
        }
        for ended in running {
            served.entry(ended.lane.clone()).or_default().push(ended.item);
            queues.done(&ended.lane);
        }
        while let Some(picked) = queues.pick(now + at(10_000), |_| true) {
            served.entry(picked.lane.clone()).or_default().push(picked.item);
            queues.done(&picked.lane);
        }
        prop_assert_eq!(served, pushed);
        prop_assert!(queues.items.is_empty() && queues.lanes.is_empty());
    }
}

#[test]
fn each_agent_has_a_place_of_its_own_in_a_full_queue() {
    let mut queues = queues(2);
    let sue = |number: u64| Lane { agent: "sue".parse().unwrap(), ..lane(number) };
    queues.push(2, lane(1), 1, at(0)).unwrap();
    queues.push(2, lane(2), 2, at(0)).unwrap();
    assert!(queues.push(2, lane(3), 3, at(0)).is_err());
    queues.push(2, sue(4), 4, at(0)).unwrap();
    assert!(queues.push(2, sue(5), 5, at(0)).is_err(), "and no more than one");
    let of_sue = queues.pick(at(1), |item| *item == 4).unwrap();
    assert!(!queues.holds(2, &of_sue.lane.agent));
    queues.put_back(of_sue, at(1), at(2));
    assert!(queues.push(2, sue(5), 5, at(1)).is_err(), "what was put back has it again");
    assert_eq!(queues.remove(&"sue".parse().unwrap()), [4]);
    queues.push(2, sue(5), 5, at(1)).unwrap();
    assert!(queues.push(2, lane(3), 3, at(1)).is_err(), "it is no place of the others");
}
