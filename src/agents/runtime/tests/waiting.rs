//! Turns that wait for the answer of another agent, and what is held back for them.

use std::sync::Arc;

use caxton_events::conversation::{Content, Performative};
use caxton_events::{MessageId, Seq, TurnEvent, TurnId};
use futures::FutureExt as _;
use tempfile::TempDir;

use super::super::journal::Journal;
use super::super::mail::Mail;
use super::super::past::Past;
use super::{Life, file, name, put, wait};
use crate::agents::ports::{Inbox as _, Room};
use crate::agents::queues::Classifier;
use crate::commands::talk::{Outgoing, To, Upkeep};
use crate::config::Config;
use crate::engine::{Engine, EngineOptions, SentOutcome};
use crate::toolbox::{Wait, Waits};

/// The folder of ada, who asks others, and of sue.
fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    put(dir.path(), "ada", &file("ada", "talk", "tools: [message]\n", "You talk."));
    put(dir.path(), "sue", &file("sue", "other", "", "You talk."));
    dir
}

#[test]
fn a_turn_that_waits_for_an_agent_leaves_its_place_to_it() {
    let dir = folder();
    let life = Life::with(dir.path(), |config| config.server.max_concurrent_conversations = 1);
    life.request("ada", "ask the other");
    assert_eq!(life.heard(1)[0].content, Content::Text("it says: re: what now?".to_owned()));
    life.end();
}

#[test]
fn an_answer_in_another_conversation_is_the_result_of_the_tool_and_nothing_else() {
    let dir = folder();
    let life = Life::begin(dir.path());
    let other = life.send(To::Agents(vec![name("sue")]), Performative::Inform, "listen").conversation;
    life.request("ada", &format!("aside in {other}"));
    assert_eq!(life.heard(1)[0].content, Content::Text("it says: re: what now?".to_owned()));
    wait(|| life.engine.inbox(&name("ada"), Seq::ZERO, 1).is_empty());
    let of_ada =
        |event: &TurnEvent| matches!(event, TurnEvent::Started { agent, .. } if *agent == name("ada"));
    assert_eq!(life.turns().iter().filter(|event| of_ada(event)).count(), 1);
    life.end();
}

/// Says something in ada's inbox, in the conversation of `question` where there is one.
fn say(engine: &Engine, question: Option<&SentOutcome>, answers: bool) -> Seq {
    let (to, content) = (To::Agents(vec![name("ada")]), Content::Text("this".to_owned()));
    let wish = Outgoing {
        conversation: question.map(|question| question.conversation.clone()),
        in_reply_to: question.filter(|_| answers).map(|question| question.id.to_string()),
        ..Outgoing::new(name("sue"), Performative::Inform, to, content)
    };
    engine.send_blocking(wish).unwrap().seq
}

#[test]
fn what_a_turn_waits_for_is_held_back_with_all_behind_it_and_given_out_when_nobody_waits() {
    let dir = TempDir::new().unwrap();
    let engine = Engine::start(&EngineOptions::new(dir.path()), &mut |_| ()).unwrap();
    let ada = name("ada");
    for agent in ["ada", "sue"] {
        let known = Upkeep::RegisterAgent { agent: name(agent), workspace: "lab".parse().unwrap() };
        engine.upkeep_blocking(&name(agent), known).unwrap();
    }
    let (queues, classifier) = Classifier::new(&Config::default().request_handling);
    let (journal, waits) = (Arc::new(Journal::new(engine.clone())), Arc::new(Waits::default()));
    let past = Arc::new(Past::new(engine.clone(), 0, 0));
    let mail = Mail::new(engine.clone(), classifier, queues.len(), journal, past, Arc::clone(&waits));
    mail.serve(&ada);
    // Room for one message: what is held back takes none of it.
    let room = Room { queues: vec![1; queues.len()], own: &|_, _| false };
    let take = || -> Vec<Seq> {
        let taken = || mail.next(&room).now_or_never();
        std::iter::from_fn(taken).flatten().map(|delivery| delivery.seq).collect()
    };
    for (number, is_taken) in [(1, false), (2, true)] {
        let (to, content) = (To::Agents(vec![name("sue")]), Content::Text("what now?".to_owned()));
        let question = Outgoing::new(ada.clone(), Performative::Request, to, content);
        let message = MessageId::from_bytes([number; 16]);
        let sent = engine.send_blocking(Outgoing { id: Some(message), ..question }).unwrap();
        let (turn, elsewhere) = (TurnId::from_bytes([7; 16]), Some(sent.conversation.clone()));
        let waiting = waits.begin(Wait { agent: ada.clone(), turn, message, elsewhere });
        assert_eq!(waits.turns(), 1);
        let (answer, behind) = (say(&engine, Some(&sent), true), say(&engine, Some(&sent), false));
        let apart = say(&engine, None, false);
        assert_eq!(take(), [apart]);
        if is_taken {
            let done = Upkeep::Acknowledge { agent: ada.clone(), through: Seq::ZERO, also: vec![answer] };
            engine.upkeep_blocking(&ada, done).unwrap();
        }
        drop(waiting);
        assert_eq!((waits.turns(), take()), (0, if is_taken { vec![behind] } else { vec![answer, behind] }));
    }
    engine.stop();
}
