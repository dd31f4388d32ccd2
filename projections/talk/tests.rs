//! A walk of records: whatever is flushed when, reopened when, or folded again, ends in the same rows.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use caxton_events::agent::{AgentStatus, ConfigProblem, ConfigSource, Health};
use caxton_events::conversation::{
    Content, ConversationEnd, DeadLetterReason, Message, Performative, Priority, Routing, Strategy,
};
use caxton_events::{
    AgentEvent, AgentId, ConversationEvent, ConversationId, Event, MessageId, Record, RegistrationId, Seq,
    Timestamp,
};

use super::{Talk, TalkStore};
use crate::conversations::{Lists, Phase, Window};
use crate::projection::Projection as _;

const MINUTE: u64 = 60_000_000;

pub(super) fn agent(number: u64) -> AgentId {
    format!("agent-{number}").parse().unwrap()
}

pub(super) fn conversation(number: u64) -> ConversationId {
    format!("conv-{number}").parse().unwrap()
}

fn at(seq: u64) -> Timestamp {
    Timestamp::from_unix_micros(1_700_000_000_000_000 + seq * 1_000)
}

fn record(seq: u64, causation: Option<Seq>, event: impl Into<Event>) -> Record {
    Record {
        seq: Seq(seq),
        recorded_at: at(seq),
        stream: "s".to_owned(),
        actor: "a".to_owned(),
        correlation: None,
        causation,
        event: event.into(),
    }
}

fn opened(number: u64) -> ConversationEvent {
    ConversationEvent::Opened {
        conversation: conversation(number),
        topic: Some("talk".to_owned()),
        protocol: None,
        parent: None,
        idle_timeout_millis: 60_000,
        life_timeout_millis: 600_000,
        participants_max: 10,
        messages_max: 1_000,
    }
}

fn message(seq: u64, performative: Performative, from: u64, to: u64, conv: u64) -> Message {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&seq.to_be_bytes());
    Message {
        id: MessageId::from_bytes(id),
        id_given: seq.is_multiple_of(3),
        performative,
        sender: agent(from),
        receivers: vec![agent(to)],
        routing: seq.is_multiple_of(7).then(|| Routing {
            capability: format!("answer-{}", seq % 3).parse().unwrap(),
            strategy: Strategy::BestMatch,
            candidates: Vec::new(),
            reason: String::new(),
        }),
        conversation: conversation(conv),
        content: Content::Text("x".to_owned()),
        priority: Priority::Normal,
        reply_with: None,
        in_reply_to: None,
        reply_by: None,
        expires_at: None,
        extras: None,
    }
}

fn sent(message: Message) -> ConversationEvent {
    ConversationEvent::MessageSent(Box::new(message))
}

#[allow(clippy::too_many_lines, reason = "one arm a kind of event")]
/// Records of every kind the projection folds, drawn from `seed`.
pub(super) fn walk(seed: u64, length: u64) -> Vec<Record> {
    let mut state = seed | 1;
    let mut draw = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut records: Vec<Record> = Vec::new();
    let mut messages: Vec<(u64, Message)> = Vec::new();
    for seq in 1..=length {
        let (who, other, conv) = (draw(6), draw(6), draw(5));
        let registration = RegistrationId::from_bytes([who as u8; 16]);
        let capability = || "answer".parse().unwrap();
        let past = messages.get(draw(messages.len().max(1) as u64) as usize).cloned();
        let event: (Option<Seq>, Event) = match (draw(20), past) {
            (0, _) => (None, opened(conv).into()),
            (1, _) => {
                let workspace = "lab".parse().unwrap();
                (None, AgentEvent::ExternalRegistered { agent: agent(who), workspace }.into())
            }
            (2, _) => (None, loaded(who, seq).into()),
            (3, _) => (None, rejected(who).into()),
            (4, _) => {
                (None, AgentEvent::ConfigRemoved { agent: agent(who), path: format!("{who}.md") }.into())
            }
            (5, _) => (
                None,
                AgentEvent::StatusChanged {
                    agent: agent(who),
                    status: AgentStatus::ALL[draw(4) as usize],
                    reason: "r".to_owned(),
                }
                .into(),
            ),
            (6, _) => (None, registered(registration, who).into()),
            (7, _) => {
                let agent = agent(who);
                (None, AgentEvent::CapabilityRemoved { registration, agent, capability: capability() }.into())
            }
            (8, _) => (
                None,
                AgentEvent::HealthChanged {
                    agent: agent(who),
                    capability: (draw(2) == 0).then(capability),
                    health: Health::ALL[draw(3) as usize],
                    reason: "r".to_owned(),
                }
                .into(),
            ),
            (9, Some((sent, past))) => (
                None,
                ConversationEvent::InboxAcknowledged {
                    agent: past.receivers[0].clone(),
                    through: Seq(sent.saturating_sub(draw(40))),
                    also: vec![Seq(sent)],
                }
                .into(),
            ),
            (10, Some((sent, past))) => (
                None,
                ConversationEvent::MessageDeadLettered {
                    sent: Seq(sent),
                    message: past.id,
                    receiver: Some(past.receivers[0].clone()),
                    reason: DeadLetterReason::AgentStopped,
                    attempts: 0,
                    detail: String::new(),
                }
                .into(),
            ),
            (11, Some((sent, past))) => {
                let (sent, message, receivers) = (Seq(sent), past.id, past.receivers);
                (None, ConversationEvent::MessageExpired { sent, message, receivers }.into())
            }
            (12, Some((sent, past))) => (
                None,
                ConversationEvent::DeliveryRetried {
                    sent: Seq(sent),
                    message: past.id,
                    receiver: past.receivers[0].clone(),
                    attempts: 1,
                    not_before: at(seq + 9),
                    error: "e".to_owned(),
                }
                .into(),
            ),
            (13, _) if draw(4) == 0 => {
                let end = ConversationEnd::Completed;
                (None, ConversationEvent::Closed { conversation: conversation(conv), end }.into())
            }
            (14, Some((question, past))) => {
                let mut answer = message(seq, Performative::Inform, other, who, conv);
                (answer.sender, answer.receivers) = (past.receivers[0].clone(), vec![past.sender]);
                (answer.conversation, answer.in_reply_to) = (past.conversation, Some(past.id.to_string()));
                (Some(Seq(question)), sent(answer).into())
            }
            _ => {
                let mut fresh = message(seq, Performative::ALL[draw(15) as usize], who, other, conv);
                fresh.reply_by = (draw(4) == 0).then(|| at(seq + 100));
                fresh.expires_at = (draw(4) == 0).then(|| at(seq + 200));
                messages.push((seq, fresh.clone()));
                (None, sent(fresh).into())
            }
        };
        records.push(record(seq, event.0, event.1));
    }
    records
}

fn loaded(who: u64, seq: u64) -> AgentEvent {
    AgentEvent::ConfigLoaded {
        agent: agent(who),
        version: format!("1.0.{seq}"),
        workspace: "lab".parse().unwrap(),
        source: ConfigSource::Directory,
        path: format!("{who}.md"),
        sha256: format!("{seq:x}"),
        content: "text".to_owned(),
    }
}

fn rejected(who: u64) -> AgentEvent {
    let problem = ConfigProblem {
        line: 1,
        column: 1,
        field: "name".to_owned(),
        reason: "r".to_owned(),
        remedy: "m".to_owned(),
    };
    let (path, sha256) = (format!("{who}.md"), "0".to_owned());
    AgentEvent::ConfigRejected { agent: Some(agent(who)), path, sha256, problems: vec![problem] }
}

fn registered(registration: RegistrationId, who: u64) -> AgentEvent {
    AgentEvent::CapabilityRegistered {
        registration,
        agent: agent(who),
        capability: "answer".parse().unwrap(),
        version: "1.0.0".to_owned(),
        priority: 50,
        metadata: None,
        health_check_url: None,
    }
}

#[test]
fn a_rebuild_equals_what_lived_through_flushes_and_restarts() {
    for seed in 1..=8 {
        let records = walk(seed * 7_919, 4_000);
        let (live, rebuilt) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut talk, mut store) = TalkStore::open(live.path()).unwrap();
        let size = 313 + seed as usize * 17;
        for (turn, chunk) in records.chunks(size).enumerate() {
            talk.apply(chunk).unwrap();
            if turn % 2 == 0 {
                store.flush().unwrap();
            }
            if turn % 5 == 4 {
                // What was not flushed is lost, as in a crash, and folded again.
                drop((talk, store));
                (talk, store) = TalkStore::open(live.path()).unwrap();
                let stored = talk.checkpoint().0 as usize;
                assert_eq!(talk.checkpoint(), store.stored());
                talk.apply(&records[stored..records.len().min((turn + 1) * size)]).unwrap();
            }
        }
        let (mut whole, mut other) = TalkStore::open(rebuilt.path()).unwrap();
        whole.apply(&records).unwrap();
        assert_eq!(store.digest().unwrap(), other.digest().unwrap(), "seed {seed}");
        // The state in memory says the same as the one read back.
        drop(store);
        let (again, _) = TalkStore::open(live.path()).unwrap();
        compare(&again, &whole);
        whole.reset().unwrap();
        whole.apply(&records).unwrap();
        let (_, mut first) = TalkStore::open(live.path()).unwrap();
        assert_eq!(first.digest().unwrap(), other.digest().unwrap(), "after a reset, seed {seed}");
    }
}

#[track_caller]
fn compare(a: &Talk, b: &Talk) {
    let (a, b) = (a.reader(), b.reader());
    let (a, b) = (a.read(), b.read());
    let (talk, other) = (&a.conversations, &b.conversations);
    assert_eq!((talk.open(), talk.messages(), talk.len()), (other.open(), other.messages(), other.len()));
    for conversation in talk.iter() {
        let same = other.get(&conversation.id).unwrap();
        assert!(conversation.messages.after(Seq::ZERO).eq(same.messages.after(Seq::ZERO)));
        assert_eq!(conversation.phase(), same.phase());
    }
    let opened = |state: &super::TalkState| {
        let all = state.conversations.opened_before(Seq(u64::MAX));
        all.map(|row| row.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(opened(&a), opened(&b));
    assert_eq!(opened(&a).len(), a.conversations.len());
    let everything = Window { after: Seq::ZERO, before: Seq(u64::MAX), newest_first: false };
    for number in 0..3 {
        let capability = Some(format!("answer-{number}").parse().unwrap());
        let lists = Lists { capability, ..Lists::default() };
        let routed = |state: &super::TalkState| state.conversations.find(&lists, everything, 10_000).seqs;
        assert_eq!(routed(&a), routed(&b));
        assert!(routed(&a).len() > 20);
    }
    for number in 0..6 {
        let both =
            |state: &super::TalkState| state.conversations.of_agent(&agent(number), everything, 10_000);
        assert_eq!(both(&a), both(&b));
        let active = |state: &super::TalkState| Some(state.conversations.inbox(&agent(number))?.active_at);
        assert_eq!(active(&a), active(&b));
        let waiting = |state: &super::TalkState| {
            let inbox = state.conversations.inbox(&agent(number))?;
            Some(inbox.open_after(Seq::ZERO).collect::<Vec<_>>())
        };
        assert_eq!(waiting(&a), waiting(&b));
        let open = a.conversations.inbox(&agent(number)).map(crate::conversations::Inbox::waiting);
        assert_eq!(open, waiting(&a).map(|open| open.len() as u64));
    }
    let due = |state: &super::TalkState| {
        let due = state.conversations.due(at(u64::MAX / 2_000));
        due.map(|(timer, which)| (timer.clone(), which)).collect::<Vec<_>>()
    };
    assert_eq!(due(&a), due(&b));
    assert!(a.registry.agents().eq(&b.registry.agents()));
}

#[test]
fn numbers_of_messages_are_found_before_and_after_they_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (mut talk, mut store) = TalkStore::open(dir.path()).unwrap();
    let first = message(3, Performative::Inform, 1, 2, 0);
    let drawn = message(4, Performative::Inform, 1, 2, 0);
    talk.apply(&[record(1, None, opened(0)), record(2, None, opened(1))]).unwrap();
    talk.apply(&[record(3, None, sent(first.clone())), record(4, None, sent(drawn.clone()))]).unwrap();
    let reader = talk.reader();
    for _ in 0..2 {
        assert_eq!(reader.message(first.id).unwrap(), Some(Seq(3)));
        assert_eq!(reader.message(drawn.id).unwrap(), None);
        store.flush().unwrap();
        store.learn_numbers().unwrap();
    }
    drop((talk, store, reader));
    let (mut talk, store) = TalkStore::open(dir.path()).unwrap();
    let later = message(6, Performative::Inform, 1, 2, 0);
    for learns in [false, true] {
        if learns {
            store.learn_numbers().unwrap();
            talk.fold(&[record(6, None, sent(later.clone()))], Seq(6)).unwrap();
        }
        assert_eq!(talk.reader().message(first.id).unwrap(), Some(Seq(3)));
        assert_eq!(talk.reader().message(drawn.id).unwrap(), None);
        assert_eq!(talk.reader().message(later.id).unwrap(), learns.then_some(Seq(6)));
    }
}

#[test]
fn what_could_not_be_stored_is_stored_first_the_next_time() {
    let records = walk(7_919, 3_000);
    let (live, rebuilt) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut talk, mut store) = TalkStore::open(live.path()).unwrap();
    let given = records.iter().find_map(|record| match &record.event {
        Event::Conversation(ConversationEvent::MessageSent(message)) if message.id_given => {
            Some((message.id, record.seq))
        }
        Event::Conversation(_) | Event::Memory(_) | Event::Agent(_) | Event::Turn(_) | Event::System(_) => {
            None
        }
    });
    let (number, seq) = given.unwrap();
    for (turn, chunk) in records.chunks(500).enumerate() {
        talk.apply(chunk).unwrap();
        // The disk takes nothing at first, and then again in the middle.
        let is_full = matches!(turn, 0 | 1 | 3);
        store.connection.pragma_update(None, "query_only", is_full).unwrap();
        let before = store.stored();
        assert_eq!(store.flush().is_err(), is_full, "{turn}");
        assert_eq!(store.stored(), if is_full { before } else { talk.checkpoint() });
        assert_eq!(talk.reader().message(number).unwrap(), Some(seq), "it is found on its way, too");
    }
    let (mut whole, mut other) = TalkStore::open(rebuilt.path()).unwrap();
    whole.apply(&records).unwrap();
    assert_eq!(store.digest().unwrap(), other.digest().unwrap());
    // A fold that begins anew meanwhile is stored behind what waits, and takes its place.
    talk.fold(&[record(3_001, None, opened(99))], Seq(3_001)).unwrap();
    store.connection.pragma_update(None, "query_only", true).unwrap();
    assert!(store.flush().is_err());
    talk.reset().unwrap();
    talk.apply(&records).unwrap();
    store.connection.pragma_update(None, "query_only", false).unwrap();
    assert_eq!(store.digest().unwrap(), other.digest().unwrap());
}

#[test]
fn a_number_that_is_used_again_is_of_the_later_message() {
    let dir = tempfile::tempdir().unwrap();
    let (mut talk, mut store) = TalkStore::open(dir.path()).unwrap();
    let first = message(3, Performative::Inform, 1, 2, 0);
    // As after the log has dropped the first one.
    for seq in [3, 9] {
        talk.fold(&[record(seq, None, sent(first.clone()))], Seq(seq)).unwrap();
        store.flush().unwrap();
        assert_eq!(talk.reader().message(first.id).unwrap(), Some(Seq(seq)));
    }
    drop((talk, store));
    let (talk, _store) = TalkStore::open(dir.path()).unwrap();
    assert_eq!(talk.reader().message(first.id).unwrap(), Some(Seq(9)));
}

#[test]
fn an_answer_ends_the_wait_for_it_however_many_others_are_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (mut talk, _store) = TalkStore::open(dir.path()).unwrap();
    let asked = |seq, reply_by| {
        let question = Message { reply_by, ..message(seq, Performative::Request, 1, 2, 0) };
        record(seq, None, sent(question))
    };
    let mut records = vec![record(1, None, opened(0)), asked(2, Some(at(1_000)))];
    records.extend((3..=66).map(|seq| asked(seq, None)));
    talk.fold(&records, Seq(66)).unwrap();
    let reader = talk.reader();
    let due = || reader.read().conversations.due(at(2_000)).count();
    assert_eq!(due(), 1);
    let in_reply_to = Some("q".to_owned());
    let elsewhere =
        Message { in_reply_to: in_reply_to.clone(), ..message(67, Performative::Inform, 2, 1, 1) };
    let answer = Message { in_reply_to, ..message(68, Performative::Inform, 2, 1, 0) };
    for (seq, message, left) in [(67, elsewhere, 1), (68, answer, 0)] {
        talk.fold(&[record(seq, Some(Seq(2)), sent(message))], Seq(seq)).unwrap();
        assert_eq!(due(), left, "{seq}");
    }
}

#[test]
fn a_changed_offer_is_the_one_that_routing_sees() {
    let dir = tempfile::tempdir().unwrap();
    let (mut talk, _store) = TalkStore::open(dir.path()).unwrap();
    let registration = RegistrationId::from_bytes([1; 16]);
    let updated =
        AgentEvent::CapabilityUpdated { registration, priority: 900, metadata: None, health_check_url: None };
    let records = [record(1, None, registered(registration, 1)), record(2, None, updated)];
    talk.fold(&records, Seq(2)).unwrap();
    let reader = talk.reader();
    let state = reader.read();
    let row = state.registry.registration(registration).unwrap();
    assert_eq!(row.priority, 900);
    assert!(state.registry.providers(&row.capability).eq([row]));
}

#[test]
fn a_conversation_says_where_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let (mut talk, _store) = TalkStore::open(dir.path()).unwrap();
    let reply = |seq, performative, question: u64| {
        let mut answer = message(seq, performative, 2, 1, 0);
        answer.in_reply_to = Some("q".to_owned());
        record(seq, Some(Seq(question)), sent(answer))
    };
    let ask = |seq, performative| record(seq, None, sent(message(seq, performative, 1, 2, 0)));
    let steps = [
        (record(1, None, opened(0)), Phase::Idle),
        (ask(2, Performative::Request), Phase::AwaitingReply),
        (reply(3, Performative::Agree, 2), Phase::Agreed),
        (reply(4, Performative::Inform, 2), Phase::Idle),
        (ask(5, Performative::Cfp), Phase::Negotiating),
        (reply(6, Performative::Refuse, 5), Phase::Idle),
        (ask(7, Performative::Subscribe), Phase::AwaitingReply),
        (reply(8, Performative::Agree, 7), Phase::Subscribed),
        (reply(9, Performative::Inform, 7), Phase::Subscribed),
    ];
    let reader = talk.reader();
    for (step, phase) in steps {
        let seq = step.seq;
        talk.apply(&[step]).unwrap();
        assert_eq!(reader.read().conversations.get(&conversation(0)).unwrap().phase(), phase, "{seq}");
    }
    let state = reader.read();
    let conversation = state.conversations.get(&conversation(0)).unwrap();
    assert_eq!(conversation.deadline(), Timestamp::from_unix_micros(at(9).unix_micros() + MINUTE));
    assert_eq!(conversation.end_at_deadline(), ConversationEnd::IdleTimeout);
    // 2 to its first answer, then 7 to its first: what comes after an AGREE is not counted again.
    let inbox = state.conversations.inbox(&agent(2)).unwrap();
    assert_eq!((inbox.answered, inbox.failed, inbox.response_micros), (3, 1, 1_000));
}
