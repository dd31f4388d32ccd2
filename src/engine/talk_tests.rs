//! Messages through the whole pipeline, over a real log in a directory that goes away.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::time::Duration;

use caxton_events::conversation::{Content, ConversationEnd, DeadLetterReason, Performative, Strategy};
use caxton_events::{
    AgentEvent, AgentId, ConversationEvent, ConversationId, Draft, Event, MessageId, Seq, SystemEvent,
};
use caxton_projections::Projection as _;
use caxton_projections::talk::TalkStore;
use caxton_projections::view::Part;

use super::{Engine, EngineOptions, SentOutcome, TalkError};
use crate::commands::RefusalCode;
use crate::commands::talk::{NewCapability, NewConversation, Outgoing, To, Upkeep};

fn start(dir: &Path) -> Engine {
    Engine::start(&EngineOptions::new(dir), &mut |_| {}).unwrap()
}

fn name(name: &str) -> AgentId {
    name.parse().unwrap()
}

fn register(engine: &Engine, agent: &str) {
    let workspace = "lab".parse().unwrap();
    engine.upkeep_blocking(&name(agent), Upkeep::RegisterAgent { agent: name(agent), workspace }).unwrap();
}

fn offer(engine: &Engine, agent: &str, capability: &str) {
    let offer = NewCapability {
        agent: name(agent),
        capability: capability.parse().unwrap(),
        version: "1.0.0".to_owned(),
        priority: 50,
        metadata: None,
        health_check_url: None,
    };
    engine.upkeep_blocking(&name(agent), Upkeep::Offer(offer)).unwrap();
}

fn text(from: &str, to: &str, text: &str) -> Outgoing {
    let (to, content) = (To::Agents(vec![name(to)]), Content::Text(text.to_owned()));
    Outgoing::new(name(from), Performative::Inform, to, content)
}

fn capability(from: &str, capability: &str) -> Outgoing {
    let to =
        To::Capability { name: capability.parse().unwrap(), version: None, strategy: Strategy::BestMatch };
    Outgoing { to, performative: Performative::Request, ..text(from, "x", "do it") }
}

#[track_caller]
fn refused(result: Result<SentOutcome, TalkError>) -> RefusalCode {
    match result {
        Err(TalkError::Refused(refusals)) => refusals[0].code,
        other => panic!("{other:?}"),
    }
}

fn contents(engine: &Engine, agent: &str) -> Vec<String> {
    let records = engine.inbox_records(&name(agent), Seq::ZERO, 100_000).unwrap();
    let texts = records.into_iter().map(|record| {
        let Event::Conversation(ConversationEvent::MessageSent(message)) = record.event else {
            panic!("no message is at {}", record.seq);
        };
        message.content.as_str().to_owned()
    });
    texts.collect()
}

/// Folds the log of a stopped engine anew and compares with what it stored.
fn rebuild_equals_live(dir: &Path) {
    let engine = start(dir);
    engine.stop();
    let log = caxton_events::log::Log::open_read_only(dir).unwrap();
    let (live, mut store) = TalkStore::open(&dir.join("talk")).unwrap();
    let beside = tempfile::tempdir().unwrap();
    let (mut rebuilt, mut other) = TalkStore::open(beside.path()).unwrap();
    let kinds = Some(rebuilt.kinds());
    let until = Some(live.checkpoint());
    let filter = caxton_events::log::Filter { kinds, until, ..Default::default() };
    let records: Vec<_> = log.scan(Seq::FIRST, &filter).map(Result::unwrap).collect();
    rebuilt.fold(&records, live.checkpoint()).unwrap();
    assert_eq!(store.digest().unwrap(), other.digest().unwrap());
}

#[test]
fn a_message_is_in_the_inbox_when_it_is_answered_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    assert_eq!(refused(engine.send_blocking(text("ada", "bob", "hi"))), RefusalCode::AgentNotFound);
    register(&engine, "bob");
    let first = engine.send_blocking(text("ada", "bob", "hi")).unwrap();
    let next =
        Outgoing { conversation: Some(first.conversation.clone()), ..text("ada", "bob", "you there?") };
    engine.send_blocking(next).unwrap();
    assert_eq!(contents(&engine, "bob"), ["hi", "you there?"]);
    engine.stop();
    assert!(matches!(engine.send_blocking(text("ada", "bob", "hi")), Err(TalkError::Stopped)));
    let engine = start(dir.path());
    assert_eq!(contents(&engine, "bob"), ["hi", "you there?"]);
    let ack = Upkeep::Acknowledge { agent: name("bob"), through: first.seq, also: Vec::new() };
    engine.upkeep_blocking(&name("bob"), ack).unwrap();
    assert_eq!(contents(&engine, "bob"), ["you there?"]);
    engine.stop();
    rebuild_equals_live(dir.path());
}

#[test]
fn records_are_read_up_to_so_many_bytes_and_at_least_one_from_either_end() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    register(&engine, "bob");
    let send = |_| engine.send_blocking(text("ada", "bob", &"x".repeat(1_000))).unwrap().seq;
    let up: Vec<Seq> = (0..5).map(send).collect();
    let down: Vec<Seq> = up.iter().rev().copied().collect();
    for (bytes_max, count) in [(0, 1), (1_000, 1), (2_000, 2), (1 << 20, 5)] {
        for seqs in [&up, &down] {
            let read = engine.some_records(seqs, bytes_max, |record| Some(record.seq)).unwrap();
            assert_eq!(read, seqs[..count], "{bytes_max}");
        }
    }
    // What is not kept takes no room.
    assert!(engine.some_records(&up, 0, |_| None::<Seq>).unwrap().is_empty());
    assert_eq!(engine.records(&up[1..2]).unwrap()[0].seq, up[1]);
    assert!(engine.records(&[]).unwrap().is_empty());
    engine.stop();
}

#[test]
fn a_number_given_twice_is_answered_once_and_conflicts_with_other_content() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    register(&engine, "bob");
    let id = Some(MessageId::from_bytes([7; 16]));
    let first = engine.send_blocking(Outgoing { id, ..text("ada", "bob", "hi") }).unwrap();
    for _ in 0..2 {
        let again = engine.send_blocking(Outgoing { id, ..text("ada", "bob", "hi") }).unwrap();
        assert!(again.replayed && again.seq == first.seq);
    }
    let other = engine.send_blocking(Outgoing { id, ..text("ada", "bob", "bye") });
    assert_eq!(refused(other), RefusalCode::MessageConflict);
    // Concurrent repetitions: whoever comes second waits for the first.
    let id = Some(MessageId::from_bytes([8; 16]));
    let seqs: Vec<Seq> = std::thread::scope(|scope| {
        let sent: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| engine.send_blocking(Outgoing { id, ..text("ada", "bob", "x") }).unwrap().seq)
            })
            .collect();
        sent.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(seqs.iter().all(|seq| *seq == seqs[0]), "{seqs:?}");
    engine.stop();
    let engine = start(dir.path());
    assert!(engine.send_blocking(Outgoing { id, ..text("ada", "bob", "x") }).unwrap().replayed);
    engine.stop();
}

#[test]
fn answers_follow_the_protocol_and_know_their_question() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    register(&engine, "bob");
    let ask = Outgoing {
        performative: Performative::Request,
        reply_with: Some("q1".to_owned()),
        ..text("ada", "bob", "do it")
    };
    let asked = engine.send_blocking(ask).unwrap();
    let answer = |performative, word: &str| Outgoing {
        performative,
        conversation: Some(asked.conversation.clone()),
        in_reply_to: Some(word.to_owned()),
        ..text("bob", "ada", "done")
    };
    let send = |performative, word: &str| engine.send_blocking(answer(performative, word));
    assert_eq!(refused(send(Performative::Propose, "q1")), RefusalCode::ProtocolViolation);
    assert_eq!(refused(send(Performative::Inform, "q2")), RefusalCode::MessageNotFound);
    send(Performative::Agree, "q1").unwrap();
    let done = send(Performative::Inform, &asked.id.to_string()).unwrap();
    let record = engine.records(&[done.seq]).unwrap().remove(0);
    assert_eq!(record.causation, Some(asked.seq));
    // The question is settled, and is found in the log all the same.
    send(Performative::Inform, "q1").unwrap();
    engine.stop();
    rebuild_equals_live(dir.path());
}

#[test]
fn a_capability_that_nobody_offers_fails_back_and_can_be_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    register(&engine, "bob");
    offer(&engine, "bob", "data-analysis.visual");
    let sent = engine.send_blocking(capability("ada", "data-analysis.text")).unwrap();
    assert!(sent.receivers.is_empty());
    let told = contents(&engine, "ada");
    assert!(told[0].contains("similar capabilities: data-analysis.visual (1)"), "{told:?}");
    let letter = {
        let state = engine.view().talk().read();
        let (seq, letter) = state.conversations.dead_letters().iter().next().unwrap();
        assert_eq!((letter.sent, letter.reason), (sent.seq, DeadLetterReason::NoProvider));
        *seq
    };
    offer(&engine, "bob", "data-analysis.text");
    let again = engine.replay_blocking(letter, false).unwrap();
    assert_eq!(again.receivers, [name("bob")]);
    assert_eq!(contents(&engine, "bob"), ["do it"]);
    let state = engine.view().talk().read();
    assert_eq!(state.conversations.dead_letters()[&letter].replayed, [again.id]);
    drop(state);
    engine.stop();
    rebuild_equals_live(dir.path());
}

#[test]
fn a_dead_letter_is_sent_again_to_the_version_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    register(&engine, "bob");
    offer(&engine, "bob", "work");
    let to = To::Capability {
        name: "work".parse().unwrap(),
        version: Some("2".to_owned()),
        strategy: Strategy::BestMatch,
    };
    let sent = engine.send_blocking(Outgoing { to, ..capability("ada", "work") }).unwrap();
    assert!(sent.receivers.is_empty());
    let letter = *engine.view().talk().read().conversations.dead_letters().keys().next().unwrap();
    let again = engine.replay_blocking(letter, false).unwrap();
    assert!(again.receivers.is_empty(), "{again:?}");
    register(&engine, "eve");
    let offer = NewCapability {
        agent: name("eve"),
        capability: "work".parse().unwrap(),
        version: "2.1.0".to_owned(),
        priority: 50,
        metadata: None,
        health_check_url: None,
    };
    engine.upkeep_blocking(&name("eve"), Upkeep::Offer(offer)).unwrap();
    assert_eq!(engine.replay_blocking(letter, true).unwrap().receivers, [name("eve")]);
    engine.stop();
}

#[test]
fn names_like_an_unknown_one_are_looked_for_among_a_thousand_at_the_most() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    register(&engine, "bob");
    let remedy = || match engine.send_blocking(text("ada", "bobb", "hi")) {
        Err(TalkError::Refused(refusals)) => refusals[0].remedy.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(remedy(), "did you mean bob?");
    let others = (0..1_000).map(|number| Draft {
        stream: "agents".to_owned(),
        actor: "system".to_owned(),
        correlation: None,
        causation: None,
        event: AgentEvent::ExternalRegistered {
            agent: name(&format!("someone-{number}")),
            workspace: "lab".parse().unwrap(),
        }
        .into(),
    });
    engine.record(others.collect()).unwrap();
    assert_eq!(remedy(), "register it with POST /agents, or send to a capability");
    engine.stop();
}

#[test]
fn an_atomic_batch_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    register(&engine, "bob");
    let head = engine.log().head().seq;
    let wishes = || vec![text("ada", "bob", "1"), text("ada", "nobody", "2"), text("eve", "bob", "3")];
    let Err(TalkError::Refused(refusals)) = engine.send_many_blocking(wishes(), true) else { panic!() };
    assert_eq!((refusals[0].index, refusals[0].code), (1, RefusalCode::AgentNotFound));
    assert_eq!(engine.log().head().seq, head);
    let each = engine.send_many_blocking(wishes(), false).unwrap();
    assert!(each[0].is_ok() && each[1].is_err() && each[2].is_ok());
    assert_eq!(contents(&engine, "bob"), ["1", "3"]);
    engine.stop();
}

#[test]
fn limits_count_what_is_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    register(&engine, "bob");
    let id: ConversationId = "small".parse().unwrap();
    let wish =
        NewConversation { id: Some(id.clone()), messages_max: Some(100), ..NewConversation::default() };
    engine.upkeep_blocking(&name("ada"), Upkeep::Open(wish)).unwrap();
    let sent: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let wish = || Outgoing { conversation: Some(id.clone()), ..text("ada", "bob", "x") };
                    (0..40).filter(|_| engine.send_blocking(wish()).is_ok()).count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(sent, 100);
    assert_eq!(contents(&engine, "bob").len(), 100);
    let end = ConversationEnd::Completed;
    engine.upkeep_blocking(&name("ada"), Upkeep::Close { conversation: id.clone(), end }).unwrap();
    let late = Outgoing { conversation: Some(id), ..text("ada", "bob", "x") };
    assert_eq!(refused(engine.send_blocking(late)), RefusalCode::ConversationClosed);
    engine.stop();
    rebuild_equals_live(dir.path());
}

#[test]
fn what_others_record_is_folded_between_messages() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    register(&engine, "bob");
    let draft = |event: Event| Draft {
        stream: "agents".to_owned(),
        actor: "system".to_owned(),
        correlation: None,
        causation: None,
        event,
    };
    let seqs = engine.record(vec![
        draft(
            AgentEvent::ExternalRegistered { agent: name("eve"), workspace: "lab".parse().unwrap() }.into(),
        ),
        draft(SystemEvent::ServerStopped.into()),
    ]);
    assert_eq!(seqs.unwrap().len(), 2);
    engine.send_blocking(text("ada", "eve", "hi")).unwrap();
    assert_eq!(contents(&engine, "eve"), ["hi"]);
    assert!(matches!(engine.record(Vec::new()), Ok(seqs) if seqs.is_empty()));
    engine.stop();
    rebuild_equals_live(dir.path());
}

#[test]
fn deadlines_are_kept_by_events() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    register(&engine, "bob");
    let soon = super::SystemClock;
    let soon = caxton_events::Clock::now(&soon).unix_micros() + 300_000;
    let soon = Some(caxton_events::Timestamp::from_unix_micros(soon));
    let wish = Outgoing { reply_by: soon, expires_at: soon, ..text("ada", "bob", "quick") };
    let sent = engine.send_blocking(wish).unwrap();
    let id: ConversationId = "brief".parse().unwrap();
    let wish = NewConversation {
        id: Some(id.clone()),
        idle_timeout_millis: Some(200),
        ..NewConversation::default()
    };
    engine.upkeep_blocking(&name("ada"), Upkeep::Open(wish)).unwrap();
    // Reads the log until all four have come; nothing depends on when.
    let mut seen = Vec::new();
    let (mut at, mut letter) = (sent.seq, Seq::ZERO);
    while seen.len() < 4 {
        let head = engine.log().wait_beyond(at, Duration::from_mins(1));
        assert!(head > at, "nothing came");
        for record in engine.log().scan(at.next(), &caxton_events::log::Filter::default()) {
            let record = record.unwrap();
            at = record.seq;
            let Event::Conversation(event) = record.event else { continue };
            if let ConversationEvent::ReplyOverdue { .. } = event {
                seen.push("overdue");
            } else if let ConversationEvent::MessageExpired { receivers, .. } = event {
                assert_eq!(receivers, [name("bob")]);
                seen.push("expired");
            } else if let ConversationEvent::MessageDeadLettered { receiver, reason, .. } = event {
                assert_eq!((receiver, reason), (Some(name("bob")), DeadLetterReason::Expired));
                letter = at;
                seen.push("dead letter");
            } else if let ConversationEvent::Closed { conversation, end } = event {
                assert_eq!((conversation, end), (id.clone(), ConversationEnd::IdleTimeout));
                seen.push("closed");
            }
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, ["closed", "dead letter", "expired", "overdue"]);
    // It is kept, and can be sent again, without the deadline that is over.
    assert!(engine.view().positions().wait_for_part(Part::Talk, letter, Duration::from_mins(1)));
    assert_eq!(engine.view().talk().read().conversations.dead_letters()[&letter].sent, sent.seq);
    assert!(contents(&engine, "bob").is_empty());
    engine.replay_blocking(letter, false).unwrap();
    assert_eq!(contents(&engine, "bob"), ["quick"]);
    engine.stop();
    rebuild_equals_live(dir.path());
}

#[test]
fn competing_consumers_share_an_inbox_and_get_back_what_was_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    register(&engine, "bob");
    let seqs: Vec<Seq> =
        (0..6).map(|n| engine.send_blocking(text("ada", "bob", &n.to_string())).unwrap().seq).collect();
    let bob = name("bob");
    let long = Duration::from_hours(1);
    let one = engine.lease(&bob, "one", 2, long);
    let two = engine.lease(&bob, "two", 3, Duration::ZERO);
    assert_eq!((one.as_slice(), two.as_slice()), (&seqs[..2], &seqs[2..5]));
    // The leases of `two` are over at once; what it acknowledged is gone all the same.
    let ack = Upkeep::Acknowledge { agent: bob.clone(), through: Seq::ZERO, also: vec![seqs[2]] };
    engine.upkeep_blocking(&bob, ack).unwrap();
    assert_eq!(engine.lease(&bob, "three", 10, long), &seqs[3..]);
    assert_eq!(engine.lease(&bob, "one", 10, long), &seqs[..2]);
    assert!(engine.release(&bob, "another", &seqs).is_empty(), "only what it has");
    assert_eq!(engine.release(&bob, "one", &seqs[..1]), &seqs[..1]);
    assert_eq!(engine.lease(&bob, "three", 1, long), &seqs[..1]);
    engine.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_an_inbox_is_woken() {
    let dir = tempfile::tempdir().unwrap();
    let engine = tokio::task::block_in_place(|| start(dir.path()));
    tokio::task::block_in_place(|| register(&engine, "bob"));
    assert!(!engine.wait_inbox(&name("bob"), Seq::ZERO, Duration::ZERO).await);
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.wait_inbox(&name("bob"), Seq::ZERO, Duration::from_mins(1)).await }
    });
    engine.send(text("ada", "bob", "hi")).await.unwrap();
    assert!(waiting.await.unwrap());
    tokio::task::block_in_place(|| engine.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_its_receiver_is_done_with_ends_the_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = tokio::task::block_in_place(|| start(dir.path()));
    tokio::task::block_in_place(|| register(&engine, "bob"));
    let sent = engine.send(text("ada", "bob", "hi")).await.unwrap();
    let done = Upkeep::Acknowledge { agent: name("bob"), through: sent.seq, also: Vec::new() };
    engine.upkeep(&name("bob"), done).await.unwrap();
    assert!(!engine.wait_inbox(&name("bob"), Seq::ZERO, Duration::ZERO).await);
    assert!(engine.wait_message(&name("bob"), Seq::ZERO, Duration::ZERO).await);
    assert!(!engine.wait_message(&name("bob"), sent.seq, Duration::ZERO).await);
    tokio::task::block_in_place(|| engine.stop());
}

#[test]
fn more_requests_than_may_wait_for_the_router_are_refused_at_once() {
    for (requests_max, refused) in [(1, true), (100_000, false)] {
        let dir = tempfile::tempdir().unwrap();
        let options = EngineOptions { requests_max, ..EngineOptions::new(dir.path()) };
        let engine = Engine::start(&options, &mut |_| {}).unwrap();
        register(&engine, "ada");
        register(&engine, "bob");
        let started: Vec<_> = (0..2_000)
            .map(|number| {
                let wishes = vec![text("ada", "bob", &format!("number {number}"))];
                engine.ask(|answer| super::talk::Request::Send { wishes, atomic: false, answer })
            })
            .collect();
        let overloaded = started.iter().filter(|asked| matches!(asked, Err(TalkError::Overloaded))).count();
        assert_eq!(overloaded > 0, refused, "{requests_max}");
        for asked in started.into_iter().flatten() {
            asked.blocking_recv().unwrap().unwrap();
        }
        engine.stop();
    }
}
