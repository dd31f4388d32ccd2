//! What has to wait while something is to be erased, and what others left that an erasure takes.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use caxton_events::conversation::DeadLetterReason;
use caxton_events::log::{Encrypt, Filter, Log, LogOptions, TrimOptions, drop_before};
use caxton_events::{
    ConversationEvent, Draft, Event, Kind, MessageId, Scope, Seq, Subject, SystemEvent, Timestamp,
};

use super::plan::Asked;
use super::{EraseError, pending};
use crate::commands::talk::{NewConversation, Upkeep};
use crate::engine::fork::{Cut, SealLogError, seal_stopped};
use crate::engine::start::system_batch;
use crate::engine::trim::{DropError, DropOptions, drop_events, would_drop};
use crate::engine::{Engine, EngineOptions, SystemClock, base};

fn start(dir: &Path) -> Engine {
    Engine::start(&EngineOptions::new(dir), &mut |_| {}).unwrap()
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
    let ordered = SystemEvent::ErasureOrdered {
        subjects: vec![Subject::Scope(Scope::Global)],
        asked: "test".to_owned(),
        keys: Vec::new(),
        events: 2,
        next_memory_id: 100,
        reason: None,
        by: "test".to_owned(),
    };
    let order = leave(dir.path(), vec![SystemEvent::ServerStopped, SystemEvent::ServerStopped, ordered]);
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
        let order = SystemEvent::ErasureOrdered {
            subjects: vec![subject.parse().unwrap()],
            asked: "test".to_owned(),
            keys: Vec::new(),
            events: 2,
            next_memory_id: 100,
            reason: None,
            by: "test".to_owned(),
        };
        leave(dir.path(), vec![SystemEvent::ServerStopped, order]);
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
    // A folder where the new log is to be written.
    let in_the_way = dir.path().join("events.redb.rewrite");
    fs::create_dir(&in_the_way).unwrap();
    assert!(matches!(erase("c1"), Err(EraseError::Rewrite { .. })));
    assert!(left("c1") > 0 && pending(engine.log()).unwrap().len() == 1);
    assert!(matches!(erase("c2"), Err(EraseError::Rewrite { .. })), "it goes on with the first");
    assert_eq!(pending(engine.log()).unwrap().len(), 1);
    fs::remove_dir(&in_the_way).unwrap();
    erase("c2").unwrap();
    assert_eq!((left("c1"), left("c2"), pending(engine.log()).unwrap().len()), (0, 0, 0));
    engine.stop();
}
