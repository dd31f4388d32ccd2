//! Conversations that are erased while the router takes messages to them.

use caxton_events::{Clock as _, Kind, MemoryId, Seq, Subject, Timestamp};
use caxton_projections::driver::catch_up_to;
use caxton_projections::projection::Projection as _;
use caxton_projections::talk::TalkStore;
use crossbeam_channel::bounded;

use super::super::erase::{Order, hold, record_order};
use super::{
    Desk, Outgoing, RefusalCode, SystemClock, code, erased, message, name, open, outcome, send, told, upkeep,
};

impl Desk {
    /// Orders to erase a conversation and takes it out of the log.
    fn order(&self, conversation: &str) {
        record_order(&self.log, erasure(conversation), MemoryId(1)).unwrap();
    }

    /// Folds the log again; the state is then what a fold of its own makes of it.
    fn fold_again(&mut self) {
        let (answer, answered) = bounded(1);
        self.fold.fold_again(&answer);
        answered.recv().unwrap().unwrap();
        let beside = tempfile::tempdir().unwrap();
        let (mut rebuilt, mut other) = TalkStore::open(beside.path()).unwrap();
        let through = self.fold.talk.checkpoint();
        catch_up_to(&self.log.reader(), &mut rebuilt, through, &mut |_, _| ()).unwrap();
        assert_eq!(self.store.digest().unwrap(), other.digest().unwrap());
    }
}

/// What is to be ordered.
fn erasure(conversation: &str) -> Order {
    Order {
        seq: Seq::ZERO,
        subjects: vec![Subject::Conversation(conversation.parse().unwrap())],
        asked: format!("conversation {conversation}"),
        keys: Vec::new(),
        events: 1,
        reason: None,
        by: "ada".to_owned(),
    }
}

#[test]
fn a_conversation_that_is_being_erased_takes_no_others_with_it() {
    let mut desk = Desk::new();
    desk.held(&["x"], |desk| {
        let (in_x, mut to_x) = send(message("ada", "bob", Some("x")));
        let (in_y, mut to_y) = send(message("eve", "bob", Some("y")));
        let (another, mut to_another) = send(message("joe", "bob", None));
        let (later, mut to_later) = send(message("eve", "bob", Some("y")));
        desk.router.decide(vec![in_x, in_y, another]);
        // Decided while the first group is under way.
        desk.router.decide(vec![later]);
        desk.fold_all();
        assert_eq!(erased(outcome(&mut to_x)), "x");
        let (y, another) = (outcome(&mut to_y).unwrap(), outcome(&mut to_another).unwrap());
        let later = outcome(&mut to_later).unwrap();
        assert!(y.seq < another.seq && another.seq < later.seq, "in their order");
        assert_eq!(desk.said(another.conversation.as_str()), Some(1));
    });
    assert_eq!((desk.said("x"), desk.said("y")), (Some(0), Some(2)));
    desk.go_on();
    let (in_x, mut to_x) = send(message("ada", "bob", Some("x")));
    desk.router.decide(vec![in_x]);
    desk.fold_all();
    outcome(&mut to_x).unwrap();
    assert_eq!(desk.said("x"), Some(1));
}

#[test]
fn nothing_is_taken_into_a_conversation_that_is_erased_before_the_talk_has_forgotten_it() {
    let mut desk = Desk::new();
    let held = hold(&desk.log, &[erasure("x")]);
    desk.order("x");
    let (in_x, mut to_x) = send(message("ada", "bob", Some("x")));
    let (in_y, mut to_y) = send(message("eve", "bob", Some("y")));
    desk.router.decide(vec![in_x, in_y]);
    desk.fold_again();
    drop(held);
    assert_eq!(erased(outcome(&mut to_x)), "x");
    outcome(&mut to_y).unwrap();
    desk.go_on();
    let (late, mut too_late) = send(message("ada", "bob", Some("x")));
    let (opening, mut opened) = upkeep(open("x"));
    desk.router.decide(vec![late, opening]);
    desk.fold_all();
    assert_eq!(code(outcome(&mut too_late)), RefusalCode::ConversationNotFound);
    told(&mut opened).unwrap();
    assert_eq!((desk.said("x"), desk.said("y")), (Some(0), Some(1)), "x is another one");
}

#[test]
fn what_was_recorded_before_an_order_and_is_not_folded_yet_does_not_come_back_behind_it() {
    let mut desk = Desk::new();
    let (opening, mut opened) = upkeep(open("z"));
    let (in_z, mut to_z) = send(message("ada", "bob", Some("z")));
    let (in_y, mut to_y) = send(message("ada", "bob", Some("y")));
    let before = desk.log.head().seq;
    desk.router.decide(vec![opening, in_z, in_y]);
    // What is under way may come behind an order, and is new then.
    while desk.log.head().seq.0 < before.0 + 3 {
        std::thread::yield_now();
    }
    desk.order("z");
    desk.fold_again();
    desk.fold_all();
    told(&mut opened).unwrap();
    let (sent_z, sent_y) = (outcome(&mut to_z).unwrap(), outcome(&mut to_y).unwrap());
    assert_eq!((desk.said("z"), desk.said("y")), (None, Some(1)));
    let state = desk.talk.read();
    let inbox = state.conversations.inbox(&name("bob")).unwrap();
    assert!(inbox.is_open(sent_y.seq) && !inbox.is_open(sent_z.seq));
}

#[test]
fn a_conversation_that_is_called_as_a_stream_of_the_server_is_keeps_nothing_out_of_that() {
    let mut desk = Desk::new();
    let (opening, mut opened) = upkeep(open("agents"));
    desk.router.decide(vec![opening]);
    desk.fold_all();
    told(&mut opened).unwrap();
    desk.held(&["agents"], |desk| {
        // Both become known, which is recorded among the agents.
        let (in_y, mut to_y) = send(message("eve", "bob", Some("y")));
        desk.router.decide(vec![in_y]);
        desk.fold_all();
        outcome(&mut to_y).unwrap();
        let (in_held, mut to_held) = send(message("joe", "bob", Some("agents")));
        desk.router.decide(vec![in_held]);
        desk.fold_all();
        assert_eq!(erased(outcome(&mut to_held)), "agents");
    });
    assert!(desk.is_known("eve"));
    assert_eq!((desk.said("agents"), desk.said("y")), (Some(0), Some(1)));
}

#[test]
fn what_time_brings_about_in_a_conversation_that_is_held_is_handed_over_when_it_is_let_go() {
    const KINDS: [Kind; 3] = [Kind::ReplyOverdue, Kind::MessageExpired, Kind::ConversationClosed];
    let mut desk = Desk::new();
    let now = SystemClock.now().unix_micros();
    let in_seconds = |seconds: u64| Timestamp::from_unix_micros(now + seconds * 1_000_000);
    let soon = Some(in_seconds(3_600));
    let (request, mut sent) =
        send(Outgoing { reply_by: soon, expires_at: soon, ..message("ada", "bob", Some("x")) });
    desk.router.decide(vec![request]);
    desk.fold_all();
    outcome(&mut sent).unwrap();
    desk.held(&["x", "y"], |desk| {
        for seconds in [7_200, 7_300] {
            desk.router.look_at_deadlines(in_seconds(seconds));
            assert!(desk.fold.groups.is_empty(), "the log would refuse it each time");
        }
    });
    desk.router.look_at_deadlines(in_seconds(7_400));
    desk.fold_all();
    let recorded = desk.recorded(&KINDS);
    // Both are closed, and of the message the answer is late and it has expired.
    assert!(recorded.len() == 4 && recorded.values().all(|count| *count == 1), "{recorded:?}");
}
