//! What waits, in memory.

use std::sync::Arc;

use caxton_events::conversation::{Content, Message};
use caxton_events::{AgentId, Seq};

use super::super::backlog::Backlog;
use super::name;
use crate::agents::ports::{Delivery, Room};
use crate::agents::scripted;

fn said(conversation: &str) -> Arc<Message> {
    Arc::new(Message { conversation: conversation.parse().unwrap(), ..scripted::message("x") })
}

/// A message of 40 MiB.
fn large(conversation: &str) -> Arc<Message> {
    let content = Content::Text("y".repeat(40 << 20));
    Arc::new(Message { content, ..Message::clone(&said(conversation)) })
}

/// Takes what there is room for, with no places of agents' own.
fn take(backlog: &mut Backlog, room: &[usize], is_open: impl Fn(&AgentId, Seq) -> bool) -> Vec<Delivery> {
    backlog.take(&Room { queues: room.to_vec(), own: &|_, _| false }, is_open)
}

fn seqs(taken: &[Delivery]) -> Vec<u64> {
    taken.iter().map(|delivery| delivery.seq.0).collect()
}

/// Messages of `ada` as (seq, conversation, queue).
fn waiting(messages: &[(u64, &str, usize)]) -> Backlog {
    let mut backlog = Backlog::new(2);
    for (seq, conversation, queue) in messages {
        backlog.add(&name("ada"), Seq(*seq), said(conversation), *queue);
    }
    backlog
}

#[test]
fn what_is_urgent_overtakes_what_is_not_but_never_in_its_own_conversation() {
    let mut backlog = waiting(&[(1, "a", 1), (2, "a", 0), (3, "b", 0), (4, "c", 1)]);
    assert_eq!(seqs(&take(&mut backlog, &[9, 0], |_, _| true)), [3], "2 waits for 1, which has no room");
    assert_eq!(seqs(&take(&mut backlog, &[9, 1], |_, _| true)), [1, 2]);
    assert_eq!(seqs(&take(&mut backlog, &[9, 9], |_, _| true)), [4]);
    assert!(take(&mut backlog, &[9, 9], |_, _| true).is_empty());
}

#[test]
fn nothing_is_taken_twice_and_what_is_put_back_keeps_its_place() {
    let mut backlog = waiting(&[(1, "a", 0), (2, "a", 0), (3, "a", 0)]);
    let taken = take(&mut backlog, &[2, 0], |_, _| true);
    backlog.add(&name("ada"), Seq(1), said("a"), 0);
    for delivery in taken {
        backlog.put_back(delivery, 0);
    }
    let taken = take(&mut backlog, &[9, 9], |_, _| true);
    assert_eq!(seqs(&taken), [1, 2, 3]);
    backlog.done(&name("ada"), Seq(1));
    backlog.add(&name("ada"), Seq(1), said("a"), 0);
    assert_eq!(
        seqs(&take(&mut backlog, &[9, 9], |_, _| true)),
        [1],
        "after that it is a message like any other"
    );
}

#[test]
fn what_is_done_with_elsewhere_is_dropped() {
    let mut backlog = waiting(&[(1, "a", 0), (2, "a", 0), (3, "b", 0)]);
    assert_eq!(seqs(&take(&mut backlog, &[9, 9], |_, seq| seq != Seq(1))), [2, 3]);
}

#[test]
fn what_is_not_open_any_more_is_forgotten_and_what_waits_behind_it_comes_next() {
    let mut backlog = waiting(&[(1, "a", 1), (2, "a", 0), (3, "b", 0), (5, "a", 0)]);
    backlog.note(&name("ada"), Seq(4));
    backlog.forget_closed(|_, seq| matches!(seq.0, 2 | 5));
    assert!(!backlog.has_unread(&name("ada")) && backlog.to_read(9).is_empty());
    assert_eq!(seqs(&take(&mut backlog, &[1, 0], |_, _| true)), [2], "1 had no room, and is gone");
    assert_eq!(seqs(&take(&mut backlog, &[9, 9], |_, _| true)), [5]);
    backlog.add(&name("ada"), Seq(1), said("a"), 0);
    assert_eq!(seqs(&take(&mut backlog, &[9, 9], |_, _| true)), [1], "nothing of it is known any more");
}

#[test]
fn what_has_to_be_read_keeps_its_place() {
    let mut backlog = Backlog::new(2);
    let ada = name("ada");
    backlog.note(&ada, Seq(1));
    backlog.note(&ada, Seq(2));
    assert!(backlog.has_unread(&ada) && !backlog.has_unread(&name("bob")));
    assert!(take(&mut backlog, &[9, 9], |_, _| true).is_empty());
    let keys = backlog.to_read(10);
    assert_eq!(keys.iter().map(|(seq, _)| seq.0).collect::<Vec<_>>(), [1, 2]);
    backlog.read(&ada, Seq(2), &said("a"), 0, None);
    backlog.read(&ada, Seq(1), &said("a"), 0, None);
    assert!(!backlog.has_unread(&ada));
    assert_eq!(seqs(&take(&mut backlog, &[9, 9], |_, _| true)), [1, 2]);
}

#[test]
fn what_is_not_kept_is_read_when_its_turn_comes() {
    let mut backlog = Backlog::new(1);
    for (seq, conversation) in [(1, "a"), (2, "b"), (3, "c")] {
        backlog.add(&name("ada"), Seq(seq), large(conversation), 0);
    }
    assert_eq!(seqs(&take(&mut backlog, &[9], |_, _| true)), [1, 2]);
    backlog.done(&name("ada"), Seq(1));
    assert!(take(&mut backlog, &[9], |_, _| true).is_empty());
    let keys = backlog.to_read(10);
    assert_eq!(keys, [(Seq(3), name("ada"))]);
    backlog.read(&name("ada"), Seq(3), &large("c"), 0, None);
    assert_eq!(seqs(&take(&mut backlog, &[9], |_, _| true)), [3]);
}

#[test]
fn what_is_given_out_has_a_bound_in_bytes_and_each_agent_a_place_of_its_own() {
    let mut backlog = Backlog::new(1);
    for (seq, conversation) in [(1, "a"), (2, "b"), (3, "c")] {
        backlog.add(&name("ada"), Seq(seq), large(conversation), 0);
    }
    assert_eq!(seqs(&take(&mut backlog, &[9], |_, _| true)), [1, 2]);
    assert!(take(&mut backlog, &[9], |_, _| true).is_empty(), "there is room for its number, but not for it");
    assert!(backlog.to_read(9).is_empty(), "so it is not read either");
    backlog.add(&name("sue"), Seq(4), said("d"), 0);
    let sue_is_idle = |_: usize, agent: &AgentId| *agent == name("sue");
    let room = Room { queues: vec![9], own: &sue_is_idle };
    assert_eq!(seqs(&backlog.take(&room, |_, _| true)), [4]);
    backlog.put_back(scripted::delivery("ada", 2, Message::clone(&large("b"))), 0);
    assert_eq!(seqs(&take(&mut backlog, &[9], |_, _| true)), [2], "what comes back is out no longer");
    for seq in [1, 2] {
        backlog.done(&name("ada"), Seq(seq));
    }
    take(&mut backlog, &[9], |_, _| true);
    assert_eq!(backlog.to_read(9), [(Seq(3), name("ada"))]);
}

#[test]
fn no_more_is_read_than_there_is_room_for() {
    let (ada, sue) = (name("ada"), name("sue"));
    let mut backlog = Backlog::new(2);
    // They are kept, and nothing beside them.
    for (seq, conversation) in [(1, "a"), (2, "b")] {
        backlog.add(&sue, Seq(seq), large(conversation), 1);
    }
    for seq in 3..=9 {
        backlog.add(&ada, Seq(seq), said(&format!("c{seq}")), 0);
    }
    let wanted =
        |backlog: &Backlog| -> Vec<u64> { backlog.to_read(100).iter().map(|(seq, _)| seq.0).collect() };
    let ada_is_idle = |_: usize, agent: &AgentId| *agent == name("ada");
    let full = Room { queues: vec![0, 0], own: &ada_is_idle };
    for _ in 0..2 {
        assert!(backlog.take(&full, |_, _| true).is_empty());
        assert_eq!(wanted(&backlog), [3], "one for the place of its own");
        backlog.done(&ada, Seq(100));
    }
    for _ in 0..2 {
        assert!(take(&mut backlog, &[3, 0], |_, _| true).is_empty());
        assert_eq!(wanted(&backlog), [3, 4, 5], "what is read already has its place");
    }
    for seq in [3, 5] {
        backlog.read(&ada, Seq(seq), &said(&format!("c{seq}")), 0, None);
    }
    assert_eq!(seqs(&take(&mut backlog, &[3, 0], |_, _| true)), [3, 5]);
    assert_eq!(wanted(&backlog), [4]);
    backlog.lost(&(Seq(4), ada.clone()));
    assert!(take(&mut backlog, &[1, 0], |_, _| true).is_empty());
    assert_eq!(wanted(&backlog), [6], "what is not there takes no place");
    assert_eq!(seqs(&take(&mut backlog, &[0, 9], |_, _| true)), [1, 2]);
}

#[test]
fn an_agent_that_goes_leaves_nothing_behind() {
    let mut backlog = waiting(&[(1, "a", 0), (2, "b", 1)]);
    backlog.note(&name("ada"), Seq(3));
    backlog.add(&name("bob"), Seq(4), said("a"), 0);
    let taken = take(&mut backlog, &[1, 0], |_, _| true);
    assert_eq!(seqs(&taken), [1]);
    backlog.forget(&name("ada"));
    assert!(!backlog.has_unread(&name("ada")));
    assert_eq!(seqs(&take(&mut backlog, &[9, 9], |_, _| true)), [4]);
    // What was taken is still held, so it is not taken up beside itself.
    backlog.note(&name("ada"), Seq(1));
    backlog.note(&name("ada"), Seq(2));
    assert_eq!(backlog.to_read(9), [(Seq(2), name("ada"))]);
}

#[test]
fn an_agent_for_which_nothing_waits_gets_into_a_full_queue() {
    let mut backlog = waiting(&[(1, "a", 0), (2, "b", 0)]);
    backlog.add(&name("sue"), Seq(3), said("c"), 0);
    backlog.add(&name("sue"), Seq(4), said("d"), 0);
    let sue_is_idle = |_: usize, agent: &AgentId| *agent == name("sue");
    let full = Room { queues: vec![0, 0], own: &sue_is_idle };
    assert_eq!(seqs(&backlog.take(&full, |_, _| true)), [3], "one, and none of who has one there");
    assert!(backlog.take(&full, |_, _| true).is_empty(), "it is looked at again when something has changed");
    backlog.done(&name("sue"), Seq(3));
    assert_eq!(seqs(&backlog.take(&full, |_, _| true)), [4]);
    backlog.done(&name("sue"), Seq(4));
    assert_eq!(seqs(&take(&mut backlog, &[9, 9], |_, _| true)), [1, 2]);
}
