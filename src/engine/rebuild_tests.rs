//! A projection built anew while its engine runs: what answers meanwhile, and what is in use afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use caxton_events::conversation::{Content, Performative};
use caxton_events::log::{Filter, Log, LogOptions};
use caxton_events::memory::Validity;
use caxton_events::{AgentId, Event, Kind, MessageId, Scope, Seq, Subject, SystemEvent};
use caxton_projections::driver::catch_up_to;
use caxton_projections::graph::{EntityFilter, ReadError};
use caxton_projections::talk::TalkStore;
use caxton_projections::view::Part;

use super::erase::Asked;
use super::start::system_batch;
use super::{
    Engine, EngineOptions, RebuildRefusal, RebuildState, Submission, SubmitError, SystemClock, Wait,
};
use crate::commands::talk::{Outgoing, To, Upkeep};
use crate::commands::{NewEntity, NewObservation, OnExisting, Write};

const PATIENCE: Duration = Duration::from_mins(1);

fn start(dir: &Path, rebuild_beside: bool) -> Engine {
    let options = EngineOptions { rebuild_beside, ..EngineOptions::new(dir) };
    Engine::start(&options, &mut |_| {}).unwrap()
}

fn creation(name: &str) -> Submission {
    let observations =
        vec![NewObservation { content: format!("about {name}"), validity: Validity::default() }];
    Submission {
        actor: "ada".parse().unwrap(),
        workspace: "lab".parse().unwrap(),
        named: None,
        correlation: None,
        causation: None,
        idempotency: None,
        writes: vec![Write::CreateEntity(NewEntity {
            scope: Scope::Global,
            name: name.to_owned(),
            entity_type: "note".to_owned(),
            observations,
            metadata: None,
            confidence: 1.0,
            validity: Validity::default(),
            on_existing: OnExisting::Merge,
        })],
        atomic: true,
        wait: Wait::Applied,
    }
}

fn names(engine: &Engine) -> Vec<String> {
    let filter = EntityFilter { limit: 100_000, ..EntityFilter::default() };
    let entities = engine.view().graph().list_entities(&filter).unwrap();
    entities.into_iter().map(|entity| entity.name).collect()
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[track_caller]
fn done(engine: &Engine, part: Part) -> Seq {
    engine.wait_for_rebuild(part, PATIENCE);
    let rebuild = engine.last_rebuild(part).unwrap();
    assert_eq!((rebuild.state, rebuild.error), (RebuildState::Done, None));
    rebuild.seq
}

#[test]
fn a_rebuild_takes_the_place_of_the_graph_while_it_is_read_and_written() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path(), false);
    for number in 0..300 {
        engine.submit_blocking(creation(&format!("before {number}"))).unwrap();
    }
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        // Also when what follows fails: the writer would else be waited for.
        let stopper = StopAtEnd(&stop);
        let writer = scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                let name = format!("during {number}");
                let outcome = engine.submit_blocking(creation(&name)).unwrap();
                // A read after a write sees it, from whichever file.
                assert!(engine.view().graph().checkpoint().unwrap() >= outcome.last);
                assert!(engine.view().graph().entity_by_name(&Scope::Global, &name).unwrap().is_some());
                number += 1;
            }
            number
        });
        for _ in 0..3 {
            engine.rebuild(Part::Graph).unwrap();
            done(&engine, Part::Graph);
        }
        drop(stopper);
        writer.join().unwrap()
    });
    assert_eq!(names(&engine).len(), 300 + written);
    let digest = engine.view().graph().digest().unwrap();
    for left in ["graph.rebuilding", "graph.old"] {
        assert!(!dir.path().join(left).exists(), "{left}");
    }
    engine.stop();
    let engine = start(dir.path(), false);
    assert_eq!(engine.recovery().graph_rebuilt, None);
    assert_eq!(engine.view().graph().digest().unwrap(), digest);
    engine.stop();
}

#[test]
fn a_graph_that_stopped_goes_on_after_a_rebuild() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path(), false);
    engine.submit_blocking(creation("a")).unwrap();
    engine.graph_is_damaged("a test says so");
    assert!(matches!(engine.submit_blocking(creation("b")), Err(SubmitError::Unavailable { .. })));
    engine.rebuild(Part::Graph).unwrap();
    done(&engine, Part::Graph);
    engine.submit_blocking(creation("b")).unwrap();
    assert_eq!(names(&engine), ["a", "b"]);
    engine.stop();
    let engine = start(dir.path(), false);
    assert_eq!(engine.recovery().graph_rebuilt, None);
    engine.stop();
}

/// Makes the graph's file one of another version.
fn age(dir: &Path) {
    let file = dir.join("graph").join("graph.db");
    // `user_version` is the big-endian number at 60 of a SQLite file (sqlite.org/fileformat2.html, 1.3).
    let mut bytes = fs::read(&file).unwrap();
    bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
    fs::write(file, bytes).unwrap();
}

/// The room there is for the engines of one test.
static ROOM: AtomicU64 = AtomicU64::new(0);

fn room(dir: &Path) -> std::io::Result<u64> {
    fs::metadata(dir).map(|_| ROOM.load(Ordering::Relaxed))
}

#[test]
fn a_graph_of_another_version_is_rebuilt_while_everything_else_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path(), false);
    for number in 0..50 {
        engine.submit_blocking(creation(&format!("n{number}"))).unwrap();
    }
    engine.stop();
    age(dir.path());
    // A disk without room holds the rebuild up for as long as the test looks.
    let options = EngineOptions { rebuild_beside: true, room, ..EngineOptions::new(dir.path()) };
    let engine = Engine::start(&options, &mut |_| {}).unwrap();
    assert!(engine.recovery().graph_rebuilt.as_ref().unwrap().contains("has version 99"));
    let Err(ReadError::Rebuilding { reason }) = engine.view().graph().checkpoint() else {
        panic!("there is no graph to read");
    };
    assert!(reason.contains("has version 99"), "{reason}");
    let written = engine.submit_blocking(creation("meanwhile"));
    assert!(matches!(written, Err(SubmitError::Rebuilding { name: "graph", .. })), "{written:?}");
    // Agents are registered and get their messages all the same, and the log takes them in.
    let head = engine.log().head().seq;
    let bob: AgentId = "bob".parse().unwrap();
    let register = Upkeep::RegisterAgent { agent: bob.clone(), workspace: "lab".parse().unwrap() };
    engine.upkeep_blocking(&bob, register).unwrap();
    assert!(engine.log().head().seq > head);
    assert!(engine.view().talk().read().registry.agent(&bob).is_some());
    // The message says how much is missing and where; the old file is as it was.
    engine.wait_for_rebuild(Part::Graph, PATIENCE);
    let failed = engine.last_rebuild(Part::Graph).unwrap();
    let error = failed.error.unwrap();
    assert_eq!(failed.state, RebuildState::Failed);
    assert!(error.contains("are missing") && error.contains(dir.path().to_str().unwrap()), "{error}");
    assert!(engine.view().positions().get(Part::Graph).stopped.unwrap().contains("are missing"));
    assert!(dir.path().join("graph/graph.db").exists() && !dir.path().join("graph.rebuilding").exists());
    // With room, it is done.
    ROOM.store(u64::MAX, Ordering::Relaxed);
    engine.rebuild(Part::Graph).unwrap();
    done(&engine, Part::Graph);
    assert_eq!(engine.view().positions().get(Part::Graph).stopped, None);
    assert_eq!(names(&engine).len(), 50);
    engine.submit_blocking(creation("after")).unwrap();
    assert!(names(&engine).contains(&"after".to_owned()));
    engine.stop();
    let engine = start(dir.path(), true);
    assert_eq!(engine.recovery().graph_rebuilt, None);
    assert_eq!(names(&engine).len(), 51);
    engine.stop();
}

#[test]
fn a_stop_in_the_middle_of_a_rebuild_leaves_the_old_file_for_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path(), false);
    for number in 0..200 {
        engine.submit_blocking(creation(&format!("n{number}"))).unwrap();
    }
    engine.rebuild(Part::Graph).unwrap();
    engine.stop();
    assert!(matches!(engine.rebuild(Part::Graph), Err(RebuildRefusal::Stopping)));
    assert!(!dir.path().join("graph.rebuilding").exists());
    let engine = start(dir.path(), false);
    assert_eq!(names(&engine).len(), 200);
    engine.stop();
}

#[test]
fn agents_and_conversations_are_rebuilt_in_place() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path(), false);
    engine.submit_blocking(creation("a")).unwrap();
    engine.rebuild(Part::Talk).unwrap();
    let seq = done(&engine, Part::Talk);
    assert!(seq > Seq::ZERO);
    assert_eq!(engine.view().talk().read().checkpoint, seq);
    assert!(engine.view().talk().read().registry.agent(&"ada".parse().unwrap()).is_some());
    assert_eq!(engine.rebuild(Part::Vectors), Err(RebuildRefusal::NoModel));
    engine.stop();
    stored_is_what_the_log_adds_up_to(dir.path());
}

/// Folds the log of a stopped engine afresh and compares with what it stored.
#[track_caller]
fn stored_is_what_the_log_adds_up_to(dir: &Path) {
    let log = Log::open_read_only(dir).unwrap();
    let (_, mut live) = TalkStore::open(&dir.join("talk")).unwrap();
    let beside = tempfile::tempdir().unwrap();
    let (mut fresh, mut other) = TalkStore::open(beside.path()).unwrap();
    catch_up_to(&log, &mut fresh, live.stored(), &mut |_, _| ()).unwrap();
    assert_eq!(live.digest().unwrap(), other.digest().unwrap());
}

#[test]
fn messages_go_on_while_agents_and_conversations_are_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path(), false);
    let agents: [AgentId; 2] = ["ada".parse().unwrap(), "bob".parse().unwrap()];
    for agent in &agents {
        let register = Upkeep::RegisterAgent { agent: agent.clone(), workspace: "lab".parse().unwrap() };
        engine.upkeep_blocking(agent, register).unwrap();
    }
    // A number that its sender gives is known for good, whichever state is asked.
    let message = |number: u64| {
        let mut id = [7; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let content = Content::Text(format!("message {number}"));
        let to = To::Agents(vec![agents[1].clone()]);
        Outgoing {
            id: Some(MessageId::from_bytes(id)),
            ..Outgoing::new(agents[0].clone(), Performative::Inform, to, content)
        }
    };
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let stopper = StopAtEnd(&stop);
        let sender = scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                let first = engine.send_blocking(message(number)).unwrap();
                let again = engine.send_blocking(message(number)).unwrap();
                assert_eq!((first.seq, again.replayed), (again.seq, true), "{number}");
                number += 1;
            }
            number
        });
        for _ in 0..5 {
            engine.rebuild(Part::Talk).unwrap();
            done(&engine, Part::Talk);
        }
        drop(stopper);
        sender.join().unwrap()
    });
    let inbox = engine.inbox_records(&agents[1], Seq::ZERO, 1_000_000).unwrap();
    assert_eq!(inbox.len() as u64, sent);
    engine.stop();
    stored_is_what_the_log_adds_up_to(dir.path());
}

/// Rebuilds of one test that asked for room, and whether they are let in.
static DOOR: (Mutex<(usize, bool)>, Condvar) = (Mutex::new((0, false)), Condvar::new());

fn door(dir: &Path) -> std::io::Result<u64> {
    let mut state = DOOR.0.lock().unwrap();
    state.0 += 1;
    DOOR.1.notify_all();
    drop(DOOR.1.wait_while(state, |(_, open)| !*open).unwrap());
    fs::metadata(dir).map(|_| u64::MAX)
}

/// Where erasures were ordered, and which of the orders have their end.
fn orders(engine: &Engine) -> (Vec<Seq>, Vec<Seq>) {
    let kinds = Some(vec![Kind::ErasureOrdered, Kind::Erased]);
    let (mut ordered, mut ended) = (Vec::new(), Vec::new());
    for record in engine.log().scan(Seq::FIRST, &Filter { kinds, ..Filter::default() }) {
        let record = record.unwrap();
        if let Event::System(SystemEvent::Erased { order, .. }) = record.event {
            ended.push(order);
        } else {
            ordered.push(record.seq);
        }
    }
    (ordered, ended)
}

#[test]
fn an_erasure_waits_for_a_rebuild_which_begins_anew_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = EngineOptions { room: door, ..EngineOptions::new(dir.path()) };
    let engine = Engine::start(&options, &mut |_| {}).unwrap();
    engine.submit_blocking(creation("gone")).unwrap();
    engine.rebuild(Part::Graph).unwrap();
    drop(DOOR.1.wait_while(DOOR.0.lock().unwrap(), |(asked, _)| *asked == 0).unwrap());
    let own = engine.clone();
    let erasing = std::thread::spawn(move || {
        own.erase(&Asked::Scope(Scope::Global), None, (None, "test".to_owned())).map(drop)
    });
    let standstill = &engine.inner.rebuilds.standstill;
    while !standstill.is_wanted() && !erasing.is_finished() {
        std::thread::yield_now();
    }
    assert!(orders(&engine).0.is_empty(), "a rebuild is at work, which may have read what is to go");
    DOOR.0.lock().unwrap().1 = true;
    DOOR.1.notify_all();
    erasing.join().unwrap().unwrap();
    done(&engine, Part::Graph);
    assert_eq!(DOOR.0.lock().unwrap().0, 2, "what it had begun is of no use");
    let (ordered, ended) = orders(&engine);
    assert_eq!((ordered.len(), &ended), (1, &ordered));
    assert!(names(&engine).is_empty());
    // One that is asked for meanwhile waits as well.
    let held = standstill.hold();
    engine.rebuild(Part::Talk).unwrap();
    assert_eq!(engine.last_rebuild(Part::Talk).unwrap().state, RebuildState::Running);
    drop(held);
    done(&engine, Part::Talk);
    engine.stop();
    let file = fs::read(dir.path().join("graph/graph.db")).unwrap();
    assert!(!file.windows(10).any(|part| part == b"about gone"));
}

/// Leaves an order to erase without its end, as a process that is killed behind it does.
fn order(dir: &Path, subject: Subject) -> Seq {
    let log = Log::open(dir, LogOptions::new([0; 16]), Arc::new(SystemClock)).unwrap();
    let order = SystemEvent::ErasureOrdered {
        subjects: vec![subject],
        asked: "test".to_owned(),
        keys: Vec::new(),
        events: 2,
        next_memory_id: 100,
        reason: None,
        by: "test".to_owned(),
    };
    let appended = log.append(vec![system_batch(order)]).unwrap().remove(0).unwrap();
    log.close().unwrap();
    appended.first
}

/// The room there is for the graph of one test.
static ROOM_LATER: AtomicU64 = AtomicU64::new(0);

fn room_later(dir: &Path) -> std::io::Result<u64> {
    fs::metadata(dir).map(|_| ROOM_LATER.load(Ordering::Relaxed))
}

#[test]
fn an_erasure_that_was_cut_short_hides_what_it_can_at_once_and_ends_when_the_graph_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path(), false);
    let bob: AgentId = "bob".parse().unwrap();
    let register = Upkeep::RegisterAgent { agent: bob.clone(), workspace: "lab".parse().unwrap() };
    engine.upkeep_blocking(&bob, register).unwrap();
    let (to, content) = (To::Agents(vec![bob.clone()]), Content::Text("gone".to_owned()));
    let wish = Outgoing::new("ada".parse().unwrap(), Performative::Inform, to, content);
    let conversation = engine.send_blocking(wish).unwrap().conversation;
    engine.submit_blocking(creation("stays")).unwrap();
    engine.stop();
    let order = order(dir.path(), Subject::Conversation(conversation.clone()));
    age(dir.path());
    let options = EngineOptions { rebuild_beside: true, room: room_later, ..EngineOptions::new(dir.path()) };
    let engine = Engine::start(&options, &mut |_| {}).unwrap();
    assert!(engine.view().talk().read().conversations.get(&conversation).is_none());
    assert!(engine.inbox(&bob, Seq::ZERO, 10).is_empty());
    assert_eq!(orders(&engine), (vec![order], Vec::new()), "the graph's files are not cleaned");
    engine.wait_for_rebuild(Part::Graph, PATIENCE);
    ROOM_LATER.store(u64::MAX, Ordering::Relaxed);
    engine.rebuild(Part::Graph).unwrap();
    done(&engine, Part::Graph);
    assert_eq!(orders(&engine), (vec![order], vec![order]));
    assert_eq!(names(&engine), ["stays"]);
    engine.stop();
}
