//! Servers that are killed while agents talk: every message that was acknowledged is there once, where it was said to be,
//! in its order; inboxes have no gap and nothing twice; what was done with stays done with; deadlines are kept.
//!
//! `SIMULATION_KILLS` sets how often the server is killed (default 10), `SIMULATION_SEED` where the dice start.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use caxton::engine::SystemClock;
use caxton_events::{Clock as _, MessageId, Timestamp};
use serde_json::{Value, json};

use super::server::{Server, get, post};
use super::{Dice, number_from};

const SENDERS: u64 = 4;
const RECEIVERS: &[&str] = &["reader-0", "reader-1", "reader-2"];
/// Messages after which a sender begins another conversation.
const CONVERSATION_LEN: usize = 25;

/// What became of a message, as its sender was told.
#[derive(Debug, Clone, PartialEq)]
enum Fate {
    /// It is in the log.
    Kept { seq: u64, conversation: String, receivers: Vec<String> },
    /// It was refused.
    Never,
}

/// A message and its fate; `None` while it is in doubt.
struct Sent {
    body: Value,
    fate: Option<Fate>,
}

/// What a reader was told that it is done with.
#[derive(Clone, Default)]
struct Done {
    through: u64,
    also: BTreeSet<u64>,
}

/// What everybody shares.
struct World {
    base: Mutex<String>,
    /// By message id.
    sent: Mutex<BTreeMap<String, Sent>>,
    /// By conversation, its messages in the order of sending.
    order: Mutex<BTreeMap<String, Vec<String>>>,
    done: Mutex<BTreeMap<&'static str, Done>>,
    acknowledged: AtomicU64,
    /// Attempts that were answered by "I have this already".
    recognised: AtomicU64,
    senders_stop: AtomicBool,
    readers_stop: AtomicBool,
    /// The test has failed: nobody waits for anything any more.
    given_up: AtomicBool,
}

/// Lets everybody go when the test fails in the middle.
struct LetGo<'a>(&'a World);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.given_up.store(true, Ordering::Relaxed);
        }
    }
}

impl World {
    fn new(base: &str) -> Self {
        Self {
            base: Mutex::new(base.to_owned()),
            sent: Mutex::default(),
            order: Mutex::default(),
            done: Mutex::default(),
            acknowledged: AtomicU64::new(0),
            recognised: AtomicU64::new(0),
            senders_stop: AtomicBool::new(false),
            readers_stop: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
        }
    }

    fn base(&self) -> String {
        assert!(!self.given_up.load(Ordering::Relaxed), "the test has failed elsewhere");
        self.base.lock().unwrap().clone()
    }

    /// Asks until somebody answers; how often that took, and the answer.
    fn insist(&self, path: &str, body: &Value) -> (u32, u16, Value) {
        let mut attempts = 1;
        loop {
            match post(&self.base(), path, body) {
                Some((status, answer)) => return (attempts, status, answer),
                None => attempts += 1,
            }
            thread::yield_now();
        }
    }

    /// Notes what a sender was told of one message.
    fn note(&self, id: &str, fate: Fate) {
        if let Fate::Kept { conversation, .. } = &fate {
            self.order.lock().unwrap().entry(conversation.clone()).or_default().push(id.to_owned());
        }
        self.sent.lock().unwrap().get_mut(id).unwrap().fate = Some(fate);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

fn kept(answer: &Value) -> Fate {
    let receivers = answer["delivered_to"].as_array().unwrap();
    Fate::Kept {
        seq: answer["seq"].as_u64().unwrap(),
        conversation: answer["conversation_id"].as_str().unwrap().to_owned(),
        receivers: receivers.iter().map(|agent| agent.as_str().unwrap().to_owned()).collect(),
    }
}

fn later(millis: u64) -> Timestamp {
    Timestamp::from_unix_micros(SystemClock.now().unix_micros() + millis * 1_000)
}

/// One sender: a message after the other in a conversation of its own, each until its fate is known.
struct Sender<'a> {
    world: &'a World,
    name: String,
    dice: Dice,
    count: u64,
    conversation: Option<(String, usize)>,
}

impl Sender<'_> {
    fn run(mut self) {
        while !self.world.senders_stop.load(Ordering::Relaxed) {
            match self.dice.roll(4) {
                0 if self.conversation.is_some() => self.batch(),
                1 => self.one(json!({"capability": "work", "routing_strategy": "round_robin"})),
                2 => {
                    let at = later(1 + self.dice.roll(4_000));
                    self.one(json!({"receiver": "reader-2", "performative": "QUERY", "reply_by": at}));
                }
                _ => self.one(json!({"receivers": ["reader-0", "reader-1"]})),
            }
        }
    }

    /// A new message, entered as in doubt.
    fn message(&mut self, more: Value) -> (String, Value) {
        self.count += 1;
        let random: [u8; 10] = std::array::from_fn(|_| self.dice.roll(256) as u8);
        let id = MessageId::new(SystemClock.now(), random).to_string();
        let mut body = json!({"message_id": id, "sender": self.name, "performative": "INFORM",
            "content": format!("{} says {}", self.name, self.count)});
        if let Some((conversation, _)) = &self.conversation {
            body["conversation_id"] = json!(conversation);
        }
        let Value::Object(more) = more else { panic!("{more}") };
        body.as_object_mut().unwrap().extend(more);
        let sent = Sent { body: body.clone(), fate: None };
        self.world.sent.lock().unwrap().insert(id.clone(), sent);
        (id, body)
    }

    fn one(&mut self, more: Value) {
        let (id, body) = self.message(more);
        let (attempts, status, answer) = self.world.insist("/api/v1/messages", &body);
        let fate = match (status, attempts) {
            (201, _) => kept(&answer),
            (200, 2..) if answer["replayed"] == true => {
                self.world.recognised.fetch_add(1, Ordering::Relaxed);
                kept(&answer)
            }
            // Its time was over before the server had it.
            (422, _) if answer["code"] == "EXPIRED" => Fate::Never,
            _ => panic!("{body} was answered {status} at attempt {attempts}: {answer}"),
        };
        self.goes_on_in(&fate, 1);
        self.world.note(&id, fate);
    }

    /// Four messages, all or none.
    fn batch(&mut self) {
        let to = |index: usize| json!({"receiver": RECEIVERS[index % RECEIVERS.len()]});
        let (ids, bodies): (Vec<_>, Vec<_>) = (0..4).map(|index| self.message(to(index))).unzip();
        let (attempts, status, answer) =
            self.world.insist("/api/v1/messages/batch", &json!({"messages": bodies}));
        assert_eq!(status, 201, "a batch was answered at attempt {attempts}: {answer}");
        let results = answer["results"].as_array().unwrap();
        let recognised = results.iter().filter(|result| result["replayed"] == true).count();
        assert!(recognised == 0 || (recognised == 4 && attempts > 1), "half a batch was kept: {answer}");
        self.world.recognised.fetch_add(recognised as u64, Ordering::Relaxed);
        for (id, result) in ids.iter().zip(results) {
            let fate = kept(result);
            self.goes_on_in(&fate, 1);
            self.world.note(id, fate);
        }
    }

    fn goes_on_in(&mut self, fate: &Fate, count: usize) {
        let Fate::Kept { conversation, .. } = fate else { return };
        let before = self.conversation.take().map_or(0, |(_, count)| count);
        if before + count < CONVERSATION_LEN {
            self.conversation = Some((conversation.clone(), before + count));
        }
    }
}

/// One reader: what is behind the last message it has seen, and then is done with it. What it read, in order.
fn read(world: &World, receiver: &'static str) -> Vec<u64> {
    let (mut after, mut all, mut turn) = (0, Vec::new(), 0_u64);
    loop {
        let last = world.readers_stop.load(Ordering::Relaxed);
        let path = format!("/api/v1/agents/{receiver}/inbox?after={after}&limit=50&wait=1");
        let Some((status, page)) = get(&world.base(), &path) else {
            thread::yield_now();
            continue;
        };
        assert_eq!(status, 200, "{page}");
        let seqs: Vec<u64> =
            page["messages"].as_array().unwrap().iter().map(|row| row["seq"].as_u64().unwrap()).collect();
        let Some(newest) = seqs.last().copied() else {
            if last {
                return all;
            }
            continue;
        };
        assert!(seqs[0] > after && seqs.is_sorted(), "{receiver} got {seqs:?} behind {after}");
        (after, turn) = (newest, turn + 1);
        all.extend(&seqs);
        // Now everything so far, now the newest alone.
        let (through, also) =
            if turn.is_multiple_of(3) { (0, BTreeSet::from([newest])) } else { (newest, BTreeSet::new()) };
        let body = json!({"through": through, "seqs": also});
        let (_, status, answer) = world.insist(&format!("/api/v1/agents/{receiver}/inbox/ack"), &body);
        assert_eq!(status, 200, "{answer}");
        let mut done = world.done.lock().unwrap();
        let done = done.entry(receiver).or_default();
        done.through = done.through.max(through);
        done.also.extend(also);
    }
}

/// What was acknowledged is not offered again.
fn check_done(world: &World) {
    let known = world.done.lock().unwrap().clone();
    for (receiver, done) in known {
        let (status, page) =
            get(&world.base(), &format!("/api/v1/agents/{receiver}/inbox?limit=1000")).unwrap();
        assert_eq!(status, 200, "{page}");
        let through = page["done_through"].as_u64().unwrap();
        assert!(through >= done.through, "{receiver} was done through {}, now {through}", done.through);
        for row in page["messages"].as_array().unwrap() {
            let seq = row["seq"].as_u64().unwrap();
            let is_done = seq <= done.through || done.also.contains(&seq);
            assert!(!is_done, "{receiver} is offered {seq} again");
        }
    }
}

/// Messages sent once more are recognised: the newest ones, and some of all.
fn check_resending(world: &World, dice: &mut Dice) {
    let known: Vec<(Value, Fate)> = {
        let sent = world.sent.lock().unwrap();
        let kept = sent.values().filter_map(|sent| Some((&sent.body, sent.fate.as_ref()?)));
        kept.filter(|(_, fate)| **fate != Fate::Never)
            .map(|(body, fate)| (body.clone(), fate.clone()))
            .collect()
    };
    let newest = known.iter().rev().take(5);
    let any: Vec<usize> = (0..5.min(known.len())).map(|_| dice.roll(known.len() as u64) as usize).collect();
    for (body, fate) in newest.chain(any.into_iter().map(|index| &known[index])) {
        let (status, answer) = post(&world.base(), "/api/v1/messages", body).unwrap();
        assert_eq!((status, &answer["replayed"]), (200, &json!(true)), "{body}: {answer}");
        assert_eq!(&kept(&answer), fate, "{body}");
    }
}

/// Every event of a kind, in order.
fn events(base: &str, kind: &str) -> Vec<Value> {
    let (mut all, mut from) = (Vec::new(), 1);
    loop {
        let path = format!("/api/v1/events?kinds={kind}&limit=1000&from_seq={from}");
        let (status, page) = get(base, &path).unwrap();
        assert_eq!(status, 200, "{page}");
        all.extend(page["events"].as_array().unwrap().iter().cloned());
        from = page["next_seq"].as_u64().unwrap();
        if from > page["head_seq"].as_u64().unwrap() {
            return all;
        }
    }
}

/// The log holds what was acknowledged, once, as it was acknowledged, and nothing that nobody sent.
fn check_log(world: &World, recorded: &[Value]) {
    let sent = world.sent.lock().unwrap();
    let mut found: BTreeMap<&str, &Value> = BTreeMap::new();
    for event in recorded {
        let id = event["data"]["message_id"].as_str().unwrap();
        assert!(found.insert(id, event).is_none(), "{id} is there twice");
        assert!(sent.contains_key(id), "{id} was never sent");
    }
    for (id, Sent { body, fate }) in &*sent {
        match fate.as_ref().expect("every fate is known") {
            Fate::Never => assert!(!found.contains_key(id.as_str()), "{id} was refused and is there"),
            Fate::Kept { seq, conversation, receivers } => {
                let event =
                    found.get(id.as_str()).unwrap_or_else(|| panic!("{body} was acknowledged and is lost"));
                let data = &event["data"];
                assert_eq!(
                    (&event["seq"], &data["conversation_id"]),
                    (&json!(seq), &json!(conversation)),
                    "{id}"
                );
                assert_eq!(
                    (&data["receivers"], &data["content"]),
                    (&json!(receivers), &body["content"]),
                    "{id}"
                );
            }
        }
    }
}

/// Each reader got everything that was sent to it, once and in order.
fn check_reading(read: &[(&str, Vec<u64>)], recorded: &[Value]) {
    for (receiver, seqs) in read {
        let to_it = recorded.iter().filter(|event| {
            event["data"]["receivers"].as_array().unwrap().iter().any(|agent| *agent == **receiver)
        });
        let expected: Vec<u64> = to_it.map(|event| event["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, &expected, "{receiver} missed something or got it twice");
    }
}

/// Each conversation holds its messages in the order in which they were sent.
fn check_conversations(world: &World) {
    for (conversation, ids) in &*world.order.lock().unwrap() {
        let path = format!("/api/v1/conversations/{conversation}/messages?limit=1000");
        let (status, page) = get(&world.base(), &path).unwrap();
        assert_eq!(status, 200, "{page}");
        let shown: Vec<&str> = page["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["message_id"].as_str().unwrap())
            .collect();
        assert_eq!(shown, ids.iter().map(String::as_str).collect::<Vec<_>>(), "{conversation}");
    }
}

/// Every deadline that was promised has passed or passes, once.
fn check_deadlines(world: &World) -> usize {
    let mut wanted: BTreeSet<String> = {
        let sent = world.sent.lock().unwrap();
        let kept = sent.iter().filter(|(_, sent)| matches!(sent.fate, Some(Fate::Kept { .. })));
        kept.filter(|(_, sent)| sent.body.get("reply_by").is_some()).map(|(id, _)| id.clone()).collect()
    };
    let (all, mut from) = (wanted.len(), 1);
    // A bound against hanging for ever, not a measure.
    let patience = Instant::now() + Duration::from_mins(1);
    while !wanted.is_empty() {
        assert!(Instant::now() < patience, "{} of {all} deadlines were forgotten", wanted.len());
        let path = format!(
            "/api/v1/events?kinds=conversation.reply_overdue&limit=1000&wait_seconds=5&from_seq={from}"
        );
        let (_, page) = get(&world.base(), &path).unwrap();
        for event in page["events"].as_array().unwrap() {
            let id = event["data"]["message_id"].as_str().unwrap();
            assert!(wanted.remove(id), "the deadline of {id} was told twice, or is none");
        }
        from = page["next_seq"].as_u64().unwrap();
    }
    all
}

/// Everything that readers see of inboxes and conversations.
fn seen(base: &str) -> Vec<Value> {
    let paths = RECEIVERS.iter().map(|receiver| format!("/api/v1/agents/{receiver}/inbox?limit=1000"));
    let mut seen: Vec<Value> = paths.map(|path| get(base, &path).unwrap().1).collect();
    let mut cursor = String::new();
    loop {
        let (_, mut page) =
            get(base, &format!("/api/v1/conversations?status=all&limit=1000{cursor}")).unwrap();
        let next = page["next_cursor"].take();
        seen.push(page);
        match next.as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return seen,
        }
    }
}

/// Waits until agents and conversations are written to their file once more.
fn wait_for_store(data_dir: &Path, world: &World) {
    let written = || {
        let files = std::fs::read_dir(data_dir.join("talk")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().modified().unwrap()).max()
    };
    let before = written();
    // A bound against hanging for ever, not a measure.
    let patience = Instant::now() + Duration::from_mins(1);
    while written() == before {
        assert!(Instant::now() < patience && !world.base().is_empty(), "nothing is stored");
        thread::yield_now();
    }
}

fn register_readers(base: &str) {
    for receiver in RECEIVERS {
        let offer = json!({"agent_id": receiver, "capability": "work"});
        assert_eq!(post(base, "/api/v1/agents", &json!({"agent_id": receiver})).unwrap().0, 201);
        assert_eq!(post(base, "/api/v1/capabilities", &offer).unwrap().0, 201);
    }
}

#[test]
fn what_agents_were_told_of_their_messages_holds_through_sigkill() {
    let (kills, seed) = (number_from("SIMULATION_KILLS", 10), number_from("SIMULATION_SEED", 1));
    eprintln!("{kills} kills, SIMULATION_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut dice = Dice(seed);
    let mut server = Server::start(dir.path(), &["--keyword-only"]);
    register_readers(server.base());
    let world = World::new(server.base());
    let read = thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|number| {
                let (name, dice) = (format!("sender-{number}"), Dice(seed * 1_000 + number));
                let sender = Sender { world: &world, name, dice, count: 0, conversation: None };
                scope.spawn(|| sender.run())
            })
            .collect();
        let readers: Vec<_> =
            RECEIVERS.iter().map(|receiver| (*receiver, scope.spawn(|| read(&world, receiver)))).collect();
        let _let_go = LetGo(&world);
        for round in 0..kills {
            if round % 2 == 1 {
                // What the next start reads from the file is another matter than what it folds from the log.
                wait_for_store(dir.path(), &world);
            }
            let until = world.acknowledged.load(Ordering::Relaxed) + 1 + dice.roll(200);
            while world.acknowledged.load(Ordering::Relaxed) < until {
                assert!(
                    !senders.iter().any(thread::ScopedJoinHandle::is_finished),
                    "a sender met a wrong answer"
                );
                assert!(
                    !readers.iter().any(|(_, reader)| reader.is_finished()),
                    "a reader met a wrong answer"
                );
                thread::yield_now();
            }
            server.kill();
            server = Server::start(dir.path(), &["--keyword-only"]);
            server.base().clone_into(&mut world.base.lock().unwrap());
            check_done(&world);
            check_resending(&world, &mut dice);
        }
        world.senders_stop.store(true, Ordering::Relaxed);
        for sender in senders {
            sender.join().unwrap();
        }
        world.readers_stop.store(true, Ordering::Relaxed);
        readers.into_iter().map(|(name, reader)| (name, reader.join().unwrap())).collect::<Vec<_>>()
    });
    let recorded = events(server.base(), "conversation.message_sent");
    check_log(&world, &recorded);
    check_reading(&read, &recorded);
    check_conversations(&world);
    check_done(&world);
    let deadlines = check_deadlines(&world);
    let lived = seen(server.base());
    server.stop();
    std::fs::remove_dir_all(dir.path().join("talk")).unwrap();
    let server = Server::start(dir.path(), &["--keyword-only"]);
    assert_eq!(seen(server.base()), lived, "what is folded afresh from the log differs");
    server.stop();
    let recognised = world.recognised.load(Ordering::Relaxed);
    let sent = world.sent.lock().unwrap();
    let refused = sent.values().filter(|sent| sent.fate == Some(Fate::Never)).count();
    eprintln!(
        "{} messages, {recognised} of them recognised after a kill, {refused} refused, {deadlines} deadlines",
        recorded.len()
    );
}
