//! What events ask of a server, in which order it is sent, and from when its latency counts.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use caxton_events::conversation::{Content, ConversationEnd, Message, Performative, Priority};
use caxton_events::memory::Validity;
use caxton_events::{
    AgentEvent, ConversationEvent, Event, MemoryEvent, MemoryId, MessageId, Record, Scope, Seq, SystemEvent,
    Timestamp,
};
use caxton_tools::replay::Watch;
use serde_json::{Value, json};

use super::load::{Load, Server};
use super::plan::{Key, Planned, Planner};
use super::target::recognise;
use super::wish::{Learned, Sent, Wish};

/// Records of commands, one after the other: each has its own correlation and its own second.
fn records(commands: &[&[Event]]) -> Vec<Record> {
    let mut records = Vec::new();
    for (second, events) in (1..).zip(commands) {
        for event in *events {
            let stream = match event {
                Event::Memory(_) => "agent:ada",
                Event::Agent(_) | Event::Conversation(_) | Event::Turn(_) | Event::System(_) => "talk",
            };
            records.push(Record {
                seq: Seq(records.len() as u64 + 1),
                recorded_at: Timestamp::from_unix_micros(second * 1_000_000),
                stream: stream.to_owned(),
                actor: "ada".to_owned(),
                correlation: Some(format!("request {second}")),
                causation: None,
                event: event.clone(),
            });
        }
    }
    records
}

fn planner(commands: &[&[Event]]) -> Planner<impl Iterator<Item = Result<Record, Infallible>>> {
    Planner::new(records(commands).into_iter().map(Ok))
}

fn planned(commands: &[&[Event]]) -> (Vec<Planned>, BTreeMap<&'static str, u64>) {
    let mut planner = planner(commands);
    let mut all = Vec::new();
    while let Ok(Some(one)) = planner.next() {
        all.push(one);
    }
    (all, planner.left_out)
}

fn entity(id: u64, name: &str) -> Event {
    MemoryEvent::EntityCreated {
        id: MemoryId(id),
        scope: Scope::Agent("ada".parse().unwrap()),
        name: name.to_owned(),
        entity_type: "thing".to_owned(),
        metadata: Some(r#"{"a":1}"#.to_owned()),
        confidence: 0.5,
        validity: Validity::default(),
    }
    .into()
}

fn observation(id: u64, entity: u64) -> Event {
    let content = format!("text {id}");
    let (id, entity) = (MemoryId(id), MemoryId(entity));
    MemoryEvent::ObservationAdded { id, entity, content, validity: Validity::default() }.into()
}

fn relation(id: u64, from: u64, to: u64) -> Event {
    MemoryEvent::RelationCreated {
        id: MemoryId(id),
        scope: Scope::Agent("ada".parse().unwrap()),
        from: MemoryId(from),
        to: MemoryId(to),
        relation_type: "likes".to_owned(),
        strength: 0.5,
        confidence: 1.0,
        metadata: None,
        validity: Validity::default(),
    }
    .into()
}

fn opened(conversation: &str) -> Event {
    ConversationEvent::Opened {
        conversation: conversation.parse().unwrap(),
        topic: Some("tea".to_owned()),
        protocol: None,
        parent: None,
        idle_timeout_millis: 60_000,
        life_timeout_millis: 120_000,
        participants_max: 10,
        messages_max: u32::MAX,
    }
    .into()
}

fn message(number: u8, conversation: &str) -> Event {
    ConversationEvent::MessageSent(Box::new(Message {
        id: MessageId::from_bytes([number; 16]),
        id_given: false,
        performative: Performative::Request,
        sender: "ada".parse().unwrap(),
        receivers: vec!["bob".parse().unwrap()],
        routing: None,
        conversation: conversation.parse().unwrap(),
        content: Content::Text(format!("message {number}")),
        priority: Priority::Normal,
        reply_with: None,
        in_reply_to: None,
        reply_by: Some(Timestamp::from_unix_micros(5_000_000)),
        expires_at: None,
        extras: Some(r#"{"language":"en"}"#.to_owned()),
    }))
    .into()
}

fn registered(name: &str) -> Event {
    AgentEvent::ExternalRegistered { agent: name.parse().unwrap(), workspace: "lab".parse().unwrap() }.into()
}

const NOW: Timestamp = Timestamp::from_unix_micros(1_000_000_000_000_000);

/// Sends everything one by one to a server that draws numbers from 100 on; what was sent.
fn sent(planned: &[Planned]) -> Vec<(String, Value)> {
    let (mut known, mut next, mut all) = (Learned::default(), 100, Vec::new());
    for one in planned {
        let Some(request) = one.wish.request(&known, NOW) else { continue };
        let observations = request.body.as_ref().and_then(|body| body["observations"].as_array());
        let count = observations.map_or(0, Vec::len);
        next += 10;
        let ids: Vec<String> = (1..=count).map(|n| format!("obs_{}", next + n)).collect();
        // A message that names its conversation goes on in it.
        let named = request.body.as_ref().and_then(|body| body["conversation_id"].as_str());
        let conversation = named.map_or_else(|| format!("conv-{next}"), str::to_owned);
        let answer = json!({
            "entity_id": format!("ent_{next}"), "relation_id": format!("rel_{next}"), "observation_ids": ids,
            "conversation_id": conversation, "message_id": format!("new-{next}"), "seq": next,
        });
        one.wish.learn(&answer, &mut known);
        all.push((
            format!("{} {}", request.method, request.path.trim_start_matches("/api/v1")),
            request.body.unwrap_or_default(),
        ));
    }
    all
}

#[test]
fn an_entity_and_its_observations_are_one_request_and_what_follows_uses_the_servers_numbers() {
    let (planned, left_out) = planned(&[
        &[entity(1, "tea"), observation(2, 1), observation(3, 1)],
        &[observation(4, 1), observation(5, 1)],
        &[MemoryEvent::ObservationRemoved { id: MemoryId(3), entity: MemoryId(1) }.into()],
        &[entity(6, "cup")],
        &[relation(7, 1, 6)],
    ]);
    assert_eq!(left_out, BTreeMap::new());
    let sent = sent(&planned);
    let who = "?agent_id=ada&memory_scope=agent";
    let paths: Vec<&str> = sent.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        [
            format!("POST /memory/entities{who}"),
            format!("POST /memory/entities/ent_110/observations{who}"),
            format!("DELETE /memory/observations/obs_112{who}"),
            format!("POST /memory/entities{who}"),
            format!("POST /memory/relations{who}"),
        ]
    );
    let body = &sent[0].1;
    assert_eq!(body["entity_name"], "tea");
    assert_eq!(body["metadata"], json!({"a": 1}));
    let contents: Vec<&Value> =
        body["observations"].as_array().unwrap().iter().map(|item| &item["content"]).collect();
    assert_eq!(contents, ["text 2", "text 3"]);
    assert_eq!((&sent[4].1["from_entity"], &sent[4].1["to_entity"]), (&json!("ent_110"), &json!("ent_140")));
}

#[test]
fn a_text_that_begins_like_json_is_sent_as_a_text() {
    let with = |text: &str| -> Event {
        let Event::Conversation(ConversationEvent::MessageSent(mut message)) = message(1, "plan") else {
            panic!("another event")
        };
        message.content = Content::Text(text.to_owned());
        ConversationEvent::MessageSent(message).into()
    };
    for (text, content_type) in [("[URGENT] server down", json!("text")), ("hello", Value::Null)] {
        let (path, body) = &sent(&planned(&[&[with(text)]]).0)[0];
        assert_eq!((path.as_str(), &body["content"]), ("POST /messages", &json!(text)));
        assert_eq!(body["content_type"], content_type);
    }
}

#[test]
fn what_goes_with_an_entity_is_not_removed_twice() {
    let (planned, left_out) = planned(&[
        &[entity(1, "tea"), observation(2, 1)],
        &[entity(3, "cup")],
        &[relation(4, 1, 3)],
        &[
            MemoryEvent::RelationRemoved { id: MemoryId(4) }.into(),
            MemoryEvent::ObservationRemoved { id: MemoryId(2), entity: MemoryId(1) }.into(),
            MemoryEvent::EntityRemoved { id: MemoryId(1) }.into(),
        ],
    ]);
    assert_eq!(planned.len(), 4);
    assert!(matches!(planned[3].wish, Wish::RemoveEntity { .. }));
    assert_eq!(left_out, BTreeMap::from([("memory.observation_removed", 1), ("memory.relation_removed", 1)]));
    assert!(planned[2].orders.contains(&Key::Row(MemoryId(1))), "the relation is made before its end goes");
}

#[test]
fn a_message_opens_its_conversation_and_the_next_goes_on_in_it() {
    let (planned, left_out) = planned(&[
        &[registered("bob")],
        &[registered("ada"), opened("talk-1"), message(1, "talk-1")],
        &[message(2, "talk-1")],
        &[opened("talk-2")],
        &[message(3, "talk-2")],
        &[message(4, "older")],
        &[ConversationEvent::Closed {
            conversation: "talk-1".parse().unwrap(),
            end: ConversationEnd::Completed,
        }
        .into()],
        &[ConversationEvent::Closed {
            conversation: "talk-2".parse().unwrap(),
            end: ConversationEnd::IdleTimeout,
        }
        .into()],
        &[SystemEvent::ServerStopped.into()],
    ]);
    assert_eq!(left_out, BTreeMap::from([("conversation.closed", 1), ("system.server_stopped", 1)]));
    let sent = sent(&planned);
    let paths: Vec<&str> = sent.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "POST /agents",
            "POST /agents",
            "POST /messages",
            "POST /messages",
            "POST /conversations",
            "POST /messages",
            "POST /messages",
            "POST /conversations/conv-130/close",
        ]
    );
    assert_eq!((&sent[2].1["topic"], sent[2].1.get("conversation_id")), (&json!("tea"), None));
    assert_eq!(sent[2].1["language"], "en");
    assert_eq!(sent[3].1["conversation_id"], "conv-130");
    assert_eq!(sent[4].1["idle_timeout_seconds"], 60);
    assert_eq!(sent[5].1["conversation_id"], "conv-150");
    assert_eq!(sent[6].1.get("conversation_id"), None, "one that began before the range begins anew");
    // It was to be answered three seconds after it was recorded.
    let by = Timestamp::from_unix_micros(NOW.unix_micros() + 3_000_000);
    assert_eq!(sent[2].1["reply_by"], json!(by));
    let needs: Vec<Key> = planned[2].needs.clone();
    assert_eq!(needs, [Key::Agent("ada".to_owned()), Key::Agent("bob".to_owned())]);
}

#[test]
fn an_inbox_is_acknowledged_by_the_servers_positions() {
    let done = |through, also: &[u64]| {
        let also = also.iter().copied().map(Seq).collect();
        ConversationEvent::InboxAcknowledged { agent: "bob".parse().unwrap(), through: Seq(through), also }
            .into()
    };
    let (planned, _) = planned(&[
        &[message(1, "a")],
        &[message(2, "a")],
        &[message(3, "b")],
        &[done(1, &[3])],
        &[done(9, &[])],
        &[done(9, &[])],
    ]);
    let acks: Vec<Value> = sent(&planned).split_off(3).into_iter().map(|(_, body)| body).collect();
    assert_eq!(acks, [json!({"seqs": [110, 130]}), json!({"seqs": [120]})]);
    assert_eq!(planned.len(), 5, "what was acknowledged before is no request");
}

#[test]
fn what_the_range_does_not_hold_is_not_asked_for() {
    let (planned, _) = planned(&[&[observation(2, 1)], &[relation(4, 1, 3)]]);
    assert_eq!((planned.len(), sent(&planned).len()), (2, 0));
}

/// A watch that only waits and servers move.
#[derive(Default)]
struct Fake(AtomicU64);

impl Watch for Fake {
    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::SeqCst))
    }

    fn wait_until(&self, at: Duration) {
        self.0.fetch_max(at.as_micros() as u64, Ordering::SeqCst);
    }
}

/// A server that takes 100 ms for each request, by the fake watch, and remembers them.
struct Slow<'a> {
    watch: &'a Fake,
    seen: Mutex<Vec<String>>,
    answer: fn(usize) -> Result<(u16, Value), String>,
}

impl Server for Slow<'_> {
    fn send(&self, sent: Sent) -> Result<(u16, Value), String> {
        self.watch.0.fetch_add(100_000, Ordering::SeqCst);
        let mut seen = self.seen.lock().unwrap();
        seen.push(format!("{} {}", sent.path, sent.body.unwrap_or_default()["content"]));
        (self.answer)(seen.len())
    }

    fn now(&self) -> Timestamp {
        NOW
    }
}

/// Sends `planned`, due at these milliseconds, on so many threads.
fn run<'a>(
    server: &'a Slow<'a>,
    in_flight: usize,
    planned: Vec<Planned>,
    due_millis: impl Fn(u64) -> u64,
) -> (super::load::Report, bool) {
    let load = Load::new(server, server.watch, in_flight);
    let answers = thread::scope(|scope| {
        for _ in 0..in_flight {
            scope.spawn(|| load.run());
        }
        let mut answers = true;
        for (number, one) in (0..).zip(planned) {
            answers = answers && load.offer(one, Duration::from_millis(due_millis(number)));
        }
        load.end();
        answers
    });
    (load.report("http://there".to_owned(), BTreeMap::new(), server.watch.elapsed()), answers)
}

fn messages(conversations: &[&str]) -> Vec<Planned> {
    let events: Vec<[Event; 1]> =
        (1..).zip(conversations).map(|(number, conversation)| [message(number, conversation)]).collect();
    let commands: Vec<&[Event]> = events.iter().map(|event| &event[..]).collect();
    planned(&commands).0
}

#[test]
fn a_server_that_falls_behind_is_measured_from_when_requests_were_due() {
    let watch = Fake::default();
    let server = Slow { watch: &watch, seen: Mutex::default(), answer: |n| Ok((201, json!({ "seq": n }))) };
    let (report, answers) = run(&server, 1, messages(&["a", "b", "c", "d"]), |number| number * 10);
    assert!(answers && report.accepted == 4);
    let (latency, service) = (report.latency.unwrap(), report.service.unwrap());
    // One after the other they take 400 ms, and the last was due after 30.
    assert!(latency.max_micros >= 369_000.0, "{latency}");
    assert!(service.p50_micros < 150_000.0, "{service}");
}

#[test]
fn a_conversation_is_sent_in_order_whatever_runs_beside_it() {
    let watch = Fake::default();
    let server = Slow {
        watch: &watch,
        seen: Mutex::default(),
        answer: |n| Ok((201, json!({ "conversation_id": "c", "seq": n }))),
    };
    let names: Vec<&str> = (0..60).map(|n| ["a", "b", "c"][n % 3]).collect();
    let (report, _) = run(&server, 8, messages(&names), |_| 0);
    assert_eq!((report.sent, report.accepted), (60, 60));
    let seen = server.seen.lock().unwrap();
    for of in 0..3 {
        let numbers: Vec<usize> = seen
            .iter()
            .map(|line| line.trim_end_matches('"').rsplit(' ').next().unwrap().parse().unwrap())
            .filter(|number: &usize| (number - 1) % 3 == of)
            .collect();
        assert!(numbers.is_sorted() && numbers.len() == 20, "{numbers:?}");
    }
}

#[test]
fn refusals_are_counted_by_code_and_a_server_that_is_gone_ends_the_load() {
    let watch = Fake::default();
    let answer: fn(usize) -> Result<(u16, Value), String> = |n| match n {
        1 => Ok((404, json!({ "code": "AGENT_NOT_FOUND" }))),
        2 => Ok((502, Value::Null)),
        3 => Ok((201, Value::Null)),
        _ => Err("connection refused".to_owned()),
    };
    let server = Slow { watch: &watch, seen: Mutex::default(), answer };
    let names = vec!["a"; 200];
    let (report, answers) = run(&server, 2, messages(&names), |_| 0);
    assert!(!answers, "it is noticed");
    assert_eq!(report.refused, BTreeMap::from([("502".to_owned(), 1), ("AGENT_NOT_FOUND".to_owned(), 1)]));
    assert_eq!(report.accepted, 1);
    assert!((50..60).contains(&report.unanswered), "{}", report.unanswered);
    let text = report.to_string();
    assert!(
        text.contains("refused: AGENT_NOT_FOUND") && text.contains("the last: connection refused"),
        "{text}"
    );
}

#[test]
fn a_server_that_is_gone_when_all_is_under_way_is_noticed() {
    type Answer = Result<(u16, Value), String>;
    type Answers = fn(usize) -> Answer;
    fn silence_but_at(answered: usize, number: usize) -> Answer {
        if number == answered { Ok((502, Value::Null)) } else { Err("connection refused".to_owned()) }
    }
    let cases: [(usize, Answers, bool); 5] = [
        (1, |n| silence_but_at(0, n), true),
        (60, |n| silence_but_at(0, n), true),
        (60, |n| silence_but_at(1, n), true),
        (40, |n| silence_but_at(1, n), false),
        (40, |n| silence_but_at(40, n), false),
    ];
    for (count, answer, is_gone) in cases {
        let watch = Fake::default();
        let server = Slow { watch: &watch, seen: Mutex::default(), answer };
        let (report, _) = run(&server, 64, messages(&vec!["a"; count]), |_| 0);
        assert_eq!(report.is_gone, is_gone, "{report}");
    }
}

/// A server that answers everything in the same way.
struct Same(u16, Value);

impl Server for Same {
    fn send(&self, _sent: Sent) -> Result<(u16, Value), String> {
        Ok((self.0, self.1.clone()))
    }

    fn now(&self) -> Timestamp {
        NOW
    }
}

#[test]
fn what_is_no_caxton_or_does_not_take_the_key_is_sent_nothing() {
    let check = |status, body, says: Option<&str>| {
        let recognised =
            recognise(&Same(status, body), "http://there").map_err(|failure| failure.to_string());
        match says {
            None => assert_eq!(recognised, Ok(())),
            Some(says) => {
                assert!(recognised.as_ref().is_err_and(|error| error.contains(says)), "{recognised:?}");
            }
        }
    };
    check(200, json!({ "status": "healthy", "version": "0.1.0" }), None);
    check(
        200,
        json!({ "status": "ok" }),
        Some("http://there is no Caxton: it answers GET /api/v1/health with 200"),
    );
    check(
        404,
        Value::Null,
        Some("http://there is no Caxton: it answers GET /api/v1/health with 404; name the"),
    );
    check(
        401,
        json!({ "code": "UNAUTHORIZED" }),
        Some("does not take the key (401); give one that it takes"),
    );
    check(503, json!({ "code": "STOPPING" }), Some("http://there answers STOPPING; wait until"));
}
