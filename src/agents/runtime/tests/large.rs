//! Messages that are larger than what is read at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use caxton_events::conversation::{Content, Performative};
use caxton_events::limits::EVENT_BYTES_MAX;
use caxton_events::{Draft, Event, Seq, TurnEvent, TurnId};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::super::journal::Journal;
use super::super::mail::Mail;
use super::super::past::Past;
use super::super::replies::{Read, came_behind};
use super::{PATIENCE, name};
use crate::agents::ports::{Inbox as _, Room, TurnLog as _};
use crate::agents::queues::Classifier;
use crate::commands::talk::{Outgoing, To, Upkeep};
use crate::config::Config;
use crate::engine::{Engine, EngineOptions, SentOutcome, TalkError};

/// Three messages of bob to ada in one conversation, of which two are as much as is read at a time.
fn sent(engine: &Engine) -> Vec<SentOutcome> {
    let register = Upkeep::RegisterAgent { agent: name("ada"), workspace: "lab".parse().unwrap() };
    engine.upkeep_blocking(&name("ada"), register).unwrap();
    let mut sent: Vec<SentOutcome> = Vec::new();
    for _ in 0..3 {
        let to = To::Agents(vec![name("ada")]);
        let content = Content::Text("x".repeat(9 << 20));
        let conversation = sent.first().map(|first| first.conversation.clone());
        let wish = Outgoing::new(name("bob"), Performative::Inform, to, content);
        sent.push(engine.send_blocking(Outgoing { conversation, ..wish }).unwrap());
    }
    sent
}

/// The inbox of ada.
fn mail_of(engine: &Engine) -> Mail {
    let (queues, classifier) = Classifier::new(&Config::default().request_handling);
    let journal = Arc::new(Journal::new(engine.clone()));
    let past = Arc::new(Past::new(engine.clone(), 0, 0));
    let mail = Mail::new(engine.clone(), classifier, queues.len(), journal, past, Arc::default());
    mail.serve(&name("ada"));
    mail
}

/// Room for nine of each queue.
fn room() -> Room<'static> {
    let queues = Classifier::new(&Config::default().request_handling).0.len();
    Room { queues: vec![9; queues], own: &|_, _| false }
}

#[test]
fn what_no_event_has_room_for_is_told_apart_from_a_log_that_fails() {
    let dir = TempDir::new().unwrap();
    let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| ()).unwrap();
    let journal = Arc::new(Journal::new(engine.clone()));
    let failed = |error: String| Draft {
        stream: "conversation:c".to_owned(),
        actor: "ada".to_owned(),
        correlation: None,
        causation: None,
        event: Event::Turn(TurnEvent::ModelFailed {
            turn: TurnId::from_bytes([7; 16]),
            step: 1,
            provider: "script".to_owned(),
            model: String::new(),
            error,
            will_retry: false,
        }),
    };
    let runtime = runtime();
    let large = failed("x".repeat(EVENT_BYTES_MAX));
    let error = runtime.block_on(journal.record(vec![large])).unwrap_err();
    assert!(error.is_for_good(), "{error:?}");
    runtime.block_on(journal.record(vec![failed("x".to_owned())])).unwrap();
    engine.stop();
    let error = runtime.block_on(journal.record(vec![failed("x".to_owned())])).unwrap_err();
    assert!(!error.is_for_good(), "{error:?}");
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn large_messages_are_read_a_few_at_a_time_and_all_given_out() {
    let dir = TempDir::new().unwrap();
    let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| ()).unwrap();
    let seqs: Vec<Seq> = sent(&engine).iter().map(|one| one.seq).collect();
    assert_eq!(engine.messages(&seqs).unwrap().len(), 2);

    let mail = mail_of(&engine);
    let room = room();
    let all = async {
        let mut taken = Vec::new();
        while taken.len() < seqs.len() {
            taken.extend(mail.next(&room).await.into_iter().map(|delivery| delivery.seq));
        }
        taken
    };
    let taken = runtime().block_on(async {
        tokio::select! {
            () = mail.read() => Vec::new(),
            taken = timeout(PATIENCE, all) => taken.unwrap(),
        }
    });
    assert_eq!(taken, seqs);
    engine.stop();
}

/// Reads, but for the first time.
fn breaks_once(engine: &Engine, seqs: &[Seq]) -> Result<Vec<Read>, TalkError> {
    static BROKE: AtomicBool = AtomicBool::new(false);
    assert!(BROKE.swap(true, Ordering::Relaxed), "as the test wants it");
    engine.messages(seqs)
}

#[test]
fn inboxes_are_read_on_after_reading_them_broke() {
    let dir = TempDir::new().unwrap();
    let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| ()).unwrap();
    let first = sent(&engine)[0].seq;
    let mail = mail_of(&engine);
    let room = room();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let taken = runtime.block_on(async {
        tokio::select! {
            () = mail.read_by(breaks_once) => Vec::new(),
            taken = mail.next(&room) => taken,
        }
    });
    assert_eq!(taken.first().map(|delivery| delivery.seq), Some(first));
    engine.stop();
}

#[test]
fn what_was_said_before_ends_where_it_is_too_much_and_is_counted_to_its_end() {
    let dir = TempDir::new().unwrap();
    let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| ()).unwrap();
    let sent = sent(&engine);
    let (ada, bob, conversation) = (name("ada"), name("bob"), &sent[0].conversation);
    let past = Past::new(engine.clone(), 10, 0);
    let runtime = runtime();
    let said = runtime.block_on(past.of(&ada, conversation, Seq(u64::MAX), 9)).unwrap();
    let latest: Vec<Seq> = said.iter().map(|said| said.seq).collect();
    assert_eq!(latest, [sent[1].seq, sent[2].seq], "the latest, without a gap");
    assert_eq!(runtime.block_on(past.said_by(&bob, conversation, 3)).unwrap(), 3);
    engine.stop();
}

#[test]
fn an_answer_is_looked_for_behind_the_last_message_that_was_read() {
    let dir = TempDir::new().unwrap();
    let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| ()).unwrap();
    let sent = sent(&engine);
    let mut at = Seq::ZERO;
    for (count, through) in [(2, 1), (1, 2), (0, 2)] {
        let (came, seq) = came_behind(&engine, &name("ada"), at).unwrap();
        assert_eq!((came.len(), seq), (count, sent[through].seq));
        at = seq;
    }
    engine.stop();
}
