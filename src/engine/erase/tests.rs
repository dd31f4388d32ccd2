//! What has to wait while something is to be erased, and what others left that an erasure takes.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use caxton_events::conversation::DeadLetterReason;
use caxton_events::log::{Batch, Encrypt, Filter, Log, LogOptions, Sealing, TrimOptions, drop_before};
use caxton_events::{
    ConversationEvent, ConversationId, Draft, Event, Kind, MessageId, Scope, Seq, Subject, SystemEvent,
    Timestamp, TurnEvent, TurnId,
};
use crossbeam_channel::bounded;

use super::plan::{Asked, PlanError};
use super::{EraseError, pending, queries};
use crate::commands::talk::{NewConversation, Upkeep};
use crate::engine::fork::{Cut, SealLogError, seal_stopped};
use crate::engine::start::system_batch;
use crate::engine::testing::{SameVector, created};
use crate::engine::trim::{DropError, DropOptions, drop_events, would_drop};
use crate::engine::{Engine, EngineOptions, SystemClock, TalkError, base};

fn start(dir: &Path) -> Engine {
    Engine::start(&EngineOptions::new(dir), &mut |_| {}).unwrap()
}

/// An order to erase a subject.
fn ordered(subject: &str, keys: Vec<u64>) -> SystemEvent {
    SystemEvent::ErasureOrdered {
        subjects: vec![subject.parse().unwrap()],
        asked: "test".to_owned(),
        keys,
        events: 2,
        next_memory_id: 100,
        reason: None,
        by: "test".to_owned(),
    }
}

/// Leaves a log of these events, each in a block of its own; the position of the last.
fn leave(dir: &Path, events: Vec<SystemEvent>) -> Seq {
    let apart = LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..LogOptions::new([7; 16]) };
    let log = Log::open(dir, apart, Arc::new(SystemClock)).unwrap();
    let mut last = Seq::ZERO;
    for event in events {
        last = log.append(vec![system_batch(event)]).unwrap().remove(0).unwrap().last;
    }
    log.close().unwrap();
    last
}

#[test]
fn nothing_is_sealed_or_dropped_while_something_is_to_be_erased() {
    let dir = tempfile::tempdir().unwrap();
    let events = vec![SystemEvent::ServerStopped, SystemEvent::ServerStopped, ordered("global", Vec::new())];
    let order = leave(dir.path(), events);
    let what = DropOptions { before: Cut::Head, by: "ada".to_owned(), forks_keep: false };
    let drop_all = || drop_events(&EngineOptions::new(dir.path()), &what, &mut |_| {});
    for refused in [drop_all().unwrap_err(), would_drop(dir.path(), Cut::Head).unwrap_err()] {
        assert!(matches!(refused, DropError::Erasing { order: found } if found == order), "{refused:?}");
    }
    assert!(!dir.path().join("base").exists());
    let refused = seal_stopped(dir.path(), Cut::Head).unwrap_err();
    assert!(matches!(refused, SealLogError::Erasing), "{refused:?}");
    let engine = start(dir.path());
    assert!(pending(engine.log()).unwrap().is_empty(), "the start completes it");
    let under_way = engine.inner.erasing.alone.lock().unwrap();
    let refused = engine.seal(Cut::Head).unwrap_err();
    assert!(matches!(refused, SealLogError::Erasing), "{refused:?}");
    drop(under_way);
    engine.seal(Cut::Head).unwrap();
    engine.stop();
    drop(engine);
    drop_all().unwrap();
}

/// Makes what a drop leaves that was cut short: a base, and half of one.
fn leave_bases(dir: &Path) {
    for name in ["2", "3.new"] {
        let graph = dir.join("base").join(name).join("graph");
        fs::create_dir_all(&graph).unwrap();
        fs::write(graph.join("graph.db"), "gone").unwrap();
    }
}

#[test]
fn what_a_drop_left_that_was_cut_short_goes_with_an_erasure_and_with_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    leave_bases(dir.path());
    engine.remove_set_aside().unwrap();
    assert!(!dir.path().join("base").exists());
    engine.stop();
    drop(engine);
    leave_bases(dir.path());
    start(dir.path()).stop();
    assert!(!dir.path().join("base").exists());
    // Where events were dropped, there is nothing else to start from.
    let dir = tempfile::tempdir().unwrap();
    leave(dir.path(), vec![SystemEvent::ServerStopped; 3]);
    let (before, by) = (Seq(3), "ada".to_owned());
    let options = TrimOptions { before, at: Timestamp::EPOCH, by, forks_keep: false };
    drop_before(dir.path(), &options).unwrap().unwrap();
    leave_bases(dir.path());
    base::remove_unused(dir.path(), &Log::open_read_only(dir.path()).unwrap()).unwrap();
    assert!(dir.path().join("base/2/graph/graph.db").exists() && !dir.path().join("base/3.new").exists());
}

#[test]
fn what_a_comparison_left_that_was_cut_short_goes_with_an_erasure_and_with_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["graph", "talk", "vectors"].map(|name| format!("{name}.verifying"));
    // Second names keep the bytes, so that they can be looked at afterwards.
    let kept = |name: &String| dir.path().join(format!("{name}.kept"));
    let leave_scratch = || {
        for name in &names {
            fs::create_dir(dir.path().join(name)).unwrap();
            let file = dir.path().join(name).join("file.db");
            fs::write(&file, [7_u8; 5_000]).unwrap();
            let _ = fs::remove_file(kept(name));
            fs::hard_link(&file, kept(name)).unwrap();
        }
    };
    let check_gone = || {
        for name in &names {
            assert!(!dir.path().join(name).exists(), "{name}");
            assert_eq!(fs::read(kept(name)).unwrap(), [0_u8; 5_000], "{name}");
        }
    };
    let engine = start(dir.path());
    leave_scratch();
    engine.remove_set_aside().unwrap();
    check_gone();
    engine.stop();
    drop(engine);
    leave_scratch();
    start(dir.path()).stop();
    check_gone();
}

#[test]
fn vectors_of_an_earlier_start_go_where_there_is_no_model() {
    for (subject, stays) in [("global", false), ("conversation:c-1", true)] {
        let dir = tempfile::tempdir().unwrap();
        leave(dir.path(), vec![SystemEvent::ServerStopped, ordered(subject, Vec::new())]);
        let vectors = dir.path().join("vectors");
        fs::create_dir(&vectors).unwrap();
        for name in ["vectors.state", "0123456789abcdef.keys", "0123456789abcdef.vecs", "ab.hnsw"] {
            fs::write(vectors.join(name), [7_u8; 5_000]).unwrap();
        }
        // A second name keeps the bytes, so that they can be looked at afterwards.
        let kept = dir.path().join("kept");
        fs::hard_link(vectors.join("0123456789abcdef.vecs"), &kept).unwrap();
        let engine = start(dir.path());
        assert!(pending(engine.log()).unwrap().is_empty(), "the start completes it");
        engine.stop();
        let left = fs::read_dir(&vectors).unwrap().count();
        assert_eq!((left, fs::read(&kept).unwrap()[0]), if stays { (4, 7) } else { (0, 0) }, "{subject}");
    }
}

/// A dead letter of a turn as earlier versions recorded it: in the stream of turns.
fn misnamed_letter(conversation: &str) -> Draft {
    let letter = ConversationEvent::MessageDeadLettered {
        sent: Seq::FIRST,
        message: MessageId::from_bytes([7; 16]),
        receiver: None,
        reason: DeadLetterReason::GivenUp,
        attempts: 1,
        detail: "it quotes what was said".to_owned(),
    };
    Draft {
        stream: format!("conversation:{conversation}"),
        actor: "ada".to_owned(),
        correlation: Some(conversation.to_owned()),
        causation: None,
        event: Event::Conversation(letter),
    }
}

#[test]
fn dead_letters_in_the_stream_of_turns_go_with_their_conversation() {
    for encrypt in [Encrypt::None, Encrypt::All] {
        let dir = tempfile::tempdir().unwrap();
        let options = EngineOptions { encrypt, ..EngineOptions::new(dir.path()) };
        let engine = Engine::start(&options, &mut |_| {}).unwrap();
        for id in ["c1", "c2", "conversation:c2"] {
            let wish = NewConversation { id: Some(id.parse().unwrap()), ..NewConversation::default() };
            engine.upkeep_blocking(&"ada".parse().unwrap(), Upkeep::Open(wish)).unwrap();
        }
        engine.record(vec![misnamed_letter("c1"), misnamed_letter("c2")]).unwrap();
        let erase = |id: &str| -> Vec<String> {
            let asked = Asked::Conversation(id.parse().unwrap());
            let (plan, _) = engine.erase(&asked, None, (None, "test".to_owned())).unwrap();
            plan.subjects.iter().map(|planned| planned.subject.to_string()).collect()
        };
        assert_eq!(erase("c1"), ["conversation:c1", "conversation:conversation:c1"]);
        // Of a conversation that has the name of that stream nothing is taken.
        assert_eq!(erase("c2"), ["conversation:c2"]);
        let kinds = Some(vec![Kind::MessageDeadLettered]);
        let left = engine.log().scan(Seq::FIRST, &Filter { kinds, ..Filter::default() });
        let left: Vec<String> = left.map(|record| record.unwrap().stream).collect();
        assert_eq!(left, ["conversation:c2"]);
        engine.stop();
    }
}

#[test]
fn what_came_behind_an_order_is_not_taken_for_what_it_left() {
    let dir = tempfile::tempdir().unwrap();
    let ada = Scope::Agent("ada".parse().unwrap());
    let note = |id| {
        let event = Event::Memory(created(id, ada.clone(), "tea"));
        let (stream, actor) = (ada.to_string(), "ada".to_owned());
        vec![Batch::of(vec![Draft { stream, actor, correlation: None, causation: None, event }])]
    };
    let open = |sealing| {
        let options = LogOptions { sealing, ..LogOptions::new([7; 16]) };
        Log::open(dir.path(), options, Arc::new(SystemClock)).unwrap()
    };
    let subjects = [Subject::Scope(ada.clone())];
    let log = open(Some(Sealing {
        what: Encrypt::All,
        draw: |bytes| getrandom::fill(bytes).map_err(io::Error::other),
    }));
    log.append(note(1)).unwrap().remove(0).unwrap();
    // The keys are gone; the end is missing.
    log.erase(&subjects, |keys| system_batch(ordered("agent:ada", keys)).drafts.remove(0)).unwrap();
    log.close().unwrap();
    // As it is with another setting, in a log that a fork was made of since.
    let log = open(None);
    log.append(note(200)).unwrap().remove(0).unwrap();
    log.seal().unwrap();
    log.close().unwrap();
    let engine = start(dir.path());
    assert!(pending(engine.log()).unwrap().is_empty(), "the start completes it");
    assert_eq!(engine.log().holdings(&subjects).unwrap()[&subjects[0]].plain, 1, "that is new");
    engine.stop();
}

#[test]
fn queries_that_are_computed_ahead_keep_nobody_from_sealing_and_erasing() {
    let dir = tempfile::tempdir().unwrap();
    let ((asked, is_asked), (go_on, goes_on)) = (bounded(1), bounded::<()>(1));
    let embedding = SameVector::served(move |texts| {
        if texts.contains(&"tea") {
            asked.send(()).unwrap();
            goes_on.recv().unwrap();
        }
        Ok(())
    });
    let options = EngineOptions { embedding: Some(embedding), ..EngineOptions::new(dir.path()) };
    let engine = Engine::start(&options, &mut |_| {}).unwrap();
    fs::write(dir.path().join(queries::FILE_NAME), r#"{"queries":[["tea",3]]}"#).unwrap();
    thread::scope(|scope| {
        let warms = scope.spawn(|| engine.warm_queries());
        is_asked.recv().unwrap();
        let sealed = engine.seal(Cut::Head);
        let erased = engine.erase(&Asked::Scope(Scope::Global), None, (None, "test".to_owned()));
        go_on.send(()).unwrap();
        assert_eq!(warms.join().unwrap(), 1);
        sealed.unwrap();
        assert!(matches!(erased, Err(EraseError::Plan(PlanError::Unknown { .. }))), "{erased:?}");
    });
    engine.stop();
}

#[test]
fn a_plan_names_the_conversations_in_which_agents_were_shown_what_goes_or_wrote_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    let by_ada = |stream: String, correlation: Option<String>, event: Event| {
        let actor = "ada".to_owned();
        Draft { stream, actor, correlation, causation: None, event }
    };
    let turn = |number: u8| TurnId::from_bytes([number; 16]);
    let note = |id: u64, scope: &str, turn: Option<TurnId>| {
        let event = created(id, scope.parse().unwrap(), &format!("note {id}"));
        by_ada(scope.to_owned(), turn.map(|turn| turn.to_string()), event.into())
    };
    let shown = |conversation: &str, number: u8, row: &str| {
        let (call, tool, failed, took_micros) = ("1".to_owned(), "memory".to_owned(), false, 1);
        let result = format!(r#"{{"results":[{{"entity_id":"{row}"}}]}}"#);
        let event = TurnEvent::ToolAnswered { turn: turn(number), call, tool, result, failed, took_micros };
        by_ada(format!("conversation:{conversation}"), None, event.into())
    };
    let drafts = vec![
        note(1, "workspace:lab", None),
        note(2, "workspace:lab", Some(turn(3))),
        note(3, "global", None),
        shown("c1", 1, "ent_1"),
        shown("c2", 2, "ent_3"),
        shown("c3", 3, "ent_3"),
    ];
    engine.record(drafts).unwrap();
    let lab = Asked::Scope("workspace:lab".parse().unwrap());
    let (plan, receipt) = engine.erase(&lab, None, (None, "test".to_owned())).unwrap();
    let named: Vec<&str> = plan.quoted.named.iter().map(ConversationId::as_str).collect();
    assert_eq!((named, plan.quoted.count), (vec!["c1", "c3"], 2));
    assert!(receipt.text.contains("\nquoted in 2 conversations, which stay\n"), "{}", receipt.text);
    engine.stop();
}

#[test]
fn an_order_that_failed_in_the_log_has_its_end_only_when_nothing_is_left_there() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    for id in ["c1", "c2"] {
        let wish = NewConversation { id: Some(id.parse().unwrap()), ..NewConversation::default() };
        engine.upkeep_blocking(&"ada".parse().unwrap(), Upkeep::Open(wish)).unwrap();
    }
    let asked = |id: &str| Asked::Conversation(id.parse().unwrap());
    let erase = |id: &str| engine.erase(&asked(id), None, (None, "test".to_owned()));
    let left = |id: &str| {
        let subject: Subject = format!("conversation:{id}").parse().unwrap();
        engine.log().holdings(&[subject]).unwrap().values().map(|holdings| holdings.plain).sum::<u64>()
    };
    let extend = |id: &str| {
        let (conversation, idle_timeout_millis) = (id.parse().unwrap(), Some(7_200_000));
        let wish = Upkeep::Extend { conversation, idle_timeout_millis, life_timeout_millis: None };
        engine.upkeep_blocking(&"ada".parse().unwrap(), wish).map(drop)
    };
    // A folder where the new log is to be written.
    let in_the_way = dir.path().join("events.redb.rewrite");
    fs::create_dir(&in_the_way).unwrap();
    assert!(matches!(erase("c1"), Err(EraseError::Rewrite { .. })));
    assert!(left("c1") > 0 && pending(engine.log()).unwrap().len() == 1);
    let refused = extend("c1").map_err(|error| format!("{error:?}")).unwrap_err();
    assert!(refused.contains("BeingErased"), "its erasure is not complete: {refused}");
    assert!(matches!(erase("c2"), Err(EraseError::Rewrite { .. })), "it goes on with the first");
    assert_eq!(pending(engine.log()).unwrap().len(), 1);
    fs::remove_dir(&in_the_way).unwrap();
    erase("c2").unwrap();
    assert_eq!((left("c1"), left("c2"), pending(engine.log()).unwrap().len()), (0, 0, 0));
    for id in ["c1", "c2"] {
        assert!(matches!(extend(id), Err(TalkError::Refused(_))), "nothing is left of it");
    }
    engine.stop();
}
