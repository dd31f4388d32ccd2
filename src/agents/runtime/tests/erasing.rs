//! What is erased while it waits for an agent.

use std::fs;
use std::sync::Arc;

use caxton_events::conversation::{Content, Performative};
use caxton_events::{Draft, Event, Seq, Timestamp, TurnEvent, TurnId};
use futures::FutureExt as _;
use tempfile::TempDir;

use super::super::forget_when_erased;
use super::super::journal::Journal;
use super::super::mail::Mail;
use super::super::past::Past;
use super::super::sources::Known;
use super::name;
use crate::agents::ports::{Inbox as _, Room, TurnLog as _};
use crate::agents::queues::Classifier;
use crate::commands::talk::{Outgoing, To, Upkeep};
use crate::config::Config;
use crate::engine::erase::Asked;
use crate::engine::{Engine, EngineOptions, SentOutcome};
use crate::toolbox::memory::Ranking;

fn started(sent: &SentOutcome) -> Draft {
    let turn = TurnId::new(Timestamp::from_unix_micros(1), [7; 10]);
    let event = TurnEvent::Started {
        turn,
        agent: name("ada"),
        config: Seq::FIRST,
        message: sent.seq,
        conversation: sent.conversation.clone(),
        attempt: 1,
    };
    Draft {
        stream: format!("conversation:{}", sent.conversation),
        actor: "ada".to_owned(),
        correlation: None,
        causation: Some(sent.seq),
        event: Event::Turn(event),
    }
}

#[test]
fn what_was_erased_while_it_waited_is_given_to_nobody_and_kept_nowhere() {
    let dir = TempDir::new().unwrap();
    let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| ()).unwrap();
    let ada = name("ada");
    let register = Upkeep::RegisterAgent { agent: ada.clone(), workspace: "lab".parse().unwrap() };
    engine.upkeep_blocking(&ada, register).unwrap();
    let (queues, classifier) = Classifier::new(&Config::default().request_handling);
    let journal = Arc::new(Journal::new(engine.clone()));
    let past = Arc::new(Past::new(engine.clone(), 10, 0));
    let (own_journal, own_past) = (Arc::clone(&journal), Arc::clone(&past));
    let waits = Arc::default();
    let mail = Arc::new(Mail::new(engine.clone(), classifier, queues.len(), own_journal, own_past, waits));
    let known = Arc::new(Known::new(engine.clone(), Ranking::default(), Arc::clone(&past), 1));
    forget_when_erased(&engine, &mail, &known);
    mail.serve(&ada);
    let sent = ["taken", "waiting", "staying"].map(|text| {
        let (to, content) = (To::Agents(vec![ada.clone()]), Content::Text(text.to_owned()));
        engine.send_blocking(Outgoing::new(name("bob"), Performative::Request, to, content)).unwrap()
    });
    let take = |count: usize| -> Vec<Seq> {
        let room = Room { queues: vec![count; queues.len()], own: &|_, _| false };
        let taken = mail.next(&room).now_or_never().unwrap_or_default();
        taken.iter().map(|delivery| delivery.seq).collect()
    };
    assert_eq!(take(1), [sent[0].seq]);
    // Its turn has begun and waits for another attempt.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(journal.record(vec![started(&sent[0])])).unwrap();
    assert_eq!(format!("{past:?} {journal:?}"), "Past { kept: 1, .. } Journal { unfinished: 1, .. }");
    for gone in &sent[..2] {
        let asked = Asked::Conversation(gone.conversation.clone());
        engine.erase(&asked, None, (None, "test".to_owned())).unwrap();
    }
    assert_eq!(format!("{past:?} {journal:?}"), "Past { kept: 0, .. } Journal { unfinished: 0, .. }");
    assert!(mail.is_done(&ada, sent[0].seq), "no attempt is made any more");
    assert!(!mail.is_done(&ada, sent[2].seq));
    assert_eq!(take(9), [sent[2].seq]);
    engine.stop();
}

#[test]
fn of_a_turn_that_is_refused_because_it_is_being_erased_it_is_known_that_nothing_was_recorded() {
    let dir = TempDir::new().unwrap();
    let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| ()).unwrap();
    let ada = name("ada");
    let register = Upkeep::RegisterAgent { agent: ada.clone(), workspace: "lab".parse().unwrap() };
    engine.upkeep_blocking(&ada, register).unwrap();
    let (to, content) = (To::Agents(vec![ada.clone()]), Content::Text("hi".to_owned()));
    let sent = engine.send_blocking(Outgoing::new(name("bob"), Performative::Request, to, content)).unwrap();
    // A folder where the new log is to be written: the conversation is held until the next erasure.
    fs::create_dir(dir.path().join("events.redb.rewrite")).unwrap();
    let asked = Asked::Conversation(sent.conversation.clone());
    assert!(engine.erase(&asked, None, (None, "test".to_owned())).is_err());
    let journal = Arc::new(Journal::new(engine.clone()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let refused = runtime.block_on(journal.record(vec![started(&sent)])).unwrap_err();
    assert!(refused.is_being_erased() && !refused.is_for_good(), "{refused:?}");
    assert!(!journal.is_doubtful(&(ada, sent.seq)));
    engine.stop();
}
