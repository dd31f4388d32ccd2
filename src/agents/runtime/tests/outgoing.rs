//! What agents say, without the model that thinks of it.

use std::sync::Arc;

use caxton_events::agent::ConfigSource;
use caxton_events::conversation::{Content, ConversationEnd, Message, Performative, Priority, Strategy};
use caxton_events::log::Filter;
use caxton_events::memory::Validity;
use caxton_events::{AgentEvent, Draft, Kind, MessageId, Scope, Seq, Timestamp, TurnId};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::super::journal::Journal;
use super::super::mail::Mail;
use super::super::past::Past;
use super::super::replies::Out;
use super::{PATIENCE, name};
use crate::agents::cancel::TakenBack;
use crate::agents::ports::{Delivery, Inbox as _, OutgoingReply, Replies};
use crate::agents::queues::Classifier;
use crate::agents::reply::Reply;
use crate::agents::{AgentLog as _, EngineLog};
use crate::commands::talk::{NewCapability, Outgoing, To, Upkeep};
use crate::commands::{NewEntity, OnExisting, Write};
use crate::config::Config;
use crate::engine::{Engine, EngineOptions, SentOutcome, Submission, Wait};
use crate::toolbox::message::{AgentMessage, Asked, Messages, Recipient};

const TURN: TurnId = TurnId::from_bytes([7; 16]);

fn start(dir: &TempDir) -> Engine {
    Engine::start(&EngineOptions::new(dir.path()), &mut |_| ()).unwrap()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn register(engine: &Engine, agent: &str) {
    let known = Upkeep::RegisterAgent { agent: name(agent), workspace: "lab".parse().unwrap() };
    engine.upkeep_blocking(&name(agent), known).unwrap();
}

fn record(engine: &Engine, event: AgentEvent) {
    let draft = Draft {
        stream: "agents".to_owned(),
        actor: "system".to_owned(),
        correlation: None,
        causation: None,
        event: event.into(),
    };
    engine.record(vec![draft]).unwrap();
}

fn send(engine: &Engine, to: To) -> SentOutcome {
    let content = Content::Text("what now?".to_owned());
    engine.send_blocking(Outgoing::new(name("bob"), Performative::Request, to, content)).unwrap()
}

fn message(engine: &Engine, seq: Seq) -> Arc<Message> {
    engine.messages(&[seq]).unwrap().remove(0).1
}

fn inbox(engine: &Engine, agent: &str) -> usize {
    engine.inbox(&name(agent), Seq::ZERO, 99).len()
}

/// What the tool `memory` writes in a turn.
fn remembered(cause: Seq) -> Submission {
    let entity = NewEntity {
        scope: Scope::Global,
        name: "bees".to_owned(),
        entity_type: "note".to_owned(),
        observations: Vec::new(),
        metadata: None,
        confidence: 1.0,
        validity: Validity::default(),
        on_existing: OnExisting::Merge,
    };
    Submission {
        actor: name("ada"),
        workspace: "lab".parse().unwrap(),
        named: None,
        correlation: Some(TURN.to_string()),
        causation: Some(cause),
        idempotency: None,
        writes: vec![Write::CreateEntity(entity)],
        atomic: true,
        wait: Wait::Applied,
    }
}

#[test]
fn an_agent_that_is_removed_during_its_turn_ends_the_turn_and_stays_removed() {
    let dir = TempDir::new().unwrap();
    let engine = start(&dir);
    let ada = name("ada");
    let loaded = AgentEvent::ConfigLoaded {
        agent: ada.clone(),
        version: "1.0.0".to_owned(),
        workspace: "lab".parse().unwrap(),
        source: ConfigSource::Directory,
        path: "ada.md".to_owned(),
        sha256: "0".repeat(64),
        content: "You talk.".to_owned(),
    };
    record(&engine, loaded);
    let sent = send(&engine, To::Agents(vec![ada.clone()]));
    record(&engine, AgentEvent::ConfigRemoved { agent: ada.clone(), path: "ada.md".to_owned() });

    engine.submit_blocking(remembered(sent.seq)).unwrap();
    let reply = OutgoingReply {
        id: MessageId::from_bytes([9; 16]),
        agent: ada.clone(),
        workspace: "lab".parse().unwrap(),
        answers: message(&engine, sent.seq),
        answers_seq: sent.seq,
        turn: TURN,
        reply: Reply { performative: Performative::Inform, content: Content::Text("this".to_owned()) },
    };
    let out = Out::new(engine.clone(), Strategy::BestMatch);
    let (queues, classifier) = Classifier::new(&Config::default().request_handling);
    let journal = Arc::new(Journal::new(engine.clone()));
    let past = Arc::new(Past::new(engine.clone(), 0, 0));
    let mail = Mail::new(engine.clone(), classifier, queues.len(), journal, past, Arc::default());
    runtime().block_on(async {
        Replies::send(&out, reply).await.unwrap();
        mail.done(&ada, sent.seq).await.unwrap();
    });
    assert_eq!((inbox(&engine, "bob"), inbox(&engine, "ada")), (1, 0));
    assert!(!engine.view().talk().read().registry.is_known(&ada));
    assert!(!EngineLog::of(engine.clone()).is_external(&ada));
    let filter = Filter { kinds: Some(vec![Kind::ExternalAgentRegistered]), ..Filter::default() };
    let known = engine.log().scan(Seq::FIRST, &filter).map(|record| record.unwrap().actor);
    assert_eq!(known.collect::<Vec<_>>(), ["bob"]);
    engine.stop();
}

#[test]
fn a_message_is_passed_on_after_the_time_for_its_answer() {
    let dir = TempDir::new().unwrap();
    let engine = start(&dir);
    for agent in ["ada", "sue"] {
        register(&engine, agent);
        let offer = NewCapability {
            agent: name(agent),
            capability: "work".parse().unwrap(),
            version: "1.0.0".to_owned(),
            priority: 50,
            metadata: None,
            health_check_url: None,
        };
        engine.upkeep_blocking(&name(agent), Upkeep::Offer(offer)).unwrap();
    }
    let strategy = Strategy::Failover;
    let sent = send(&engine, To::Capability { name: "work".parse().unwrap(), version: None, strategy });
    let message = Message {
        reply_by: Some(Timestamp::from_unix_micros(1)),
        ..Message::clone(&message(&engine, sent.seq))
    };
    let delivery = Delivery {
        agent: sent.receivers[0].clone(),
        seq: sent.seq,
        message: Arc::new(message),
        not_before: None,
        back: TakenBack::default(),
    };
    let out = Out::new(engine.clone(), strategy);
    let passed_on = runtime().block_on(Replies::pass_on(&out, &delivery, TURN));
    assert!(passed_on.unwrap());
    assert_eq!((inbox(&engine, "ada"), inbox(&engine, "sue")), (1, 1));
    engine.stop();
}

#[test]
fn an_answer_names_its_question_in_any_spelling() {
    let dir = TempDir::new().unwrap();
    let engine = start(&dir);
    register(&engine, "ada");
    let (id, content) = (MessageId::from_bytes([0xab; 16]), Content::Text("what now?".to_owned()));
    let question = Outgoing::new(name("bob"), Performative::Request, To::Agents(vec![name("ada")]), content);
    let sent = engine.send_blocking(Outgoing { id: Some(id), ..question }).unwrap();
    let content = Content::Text("this".to_owned());
    let answer = Outgoing {
        conversation: Some(sent.conversation.clone()),
        in_reply_to: Some(id.to_string().to_uppercase()),
        ..Outgoing::new(name("ada"), Performative::Inform, To::Agents(vec![name("bob")]), content)
    };
    let answer = engine.send_blocking(answer).unwrap();
    let sender = name("bob");
    let asked = Asked { sender: &sender, conversation: &sent.conversation, seq: sent.seq, id };
    let out = Out::new(engine.clone(), Strategy::BestMatch);
    let heard = runtime().block_on(async { timeout(PATIENCE, Messages::answer(&out, asked)).await });
    assert_eq!(heard.unwrap().unwrap().seq, answer.seq);
    engine.stop();
}

#[test]
fn a_refused_answer_is_told_with_what_is_wrong_with_it() {
    let dir = TempDir::new().unwrap();
    let engine = start(&dir);
    register(&engine, "ada");
    let sent = send(&engine, To::Agents(vec![name("ada")]));
    let reply = OutgoingReply {
        id: MessageId::from_bytes([9; 16]),
        agent: name("ada"),
        workspace: "lab".parse().unwrap(),
        answers: message(&engine, sent.seq),
        answers_seq: sent.seq,
        turn: TURN,
        reply: Reply { performative: Performative::Inform, content: Content::Text(String::new()) },
    };
    let out = Out::new(engine.clone(), Strategy::BestMatch);
    let refused = runtime().block_on(Replies::send(&out, reply)).unwrap_err();
    assert_eq!(refused.to_string(), "the answer was refused: content: is empty");
    engine.stop();
}

#[test]
fn a_refused_message_is_told_in_the_words_of_the_tool() {
    let dir = TempDir::new().unwrap();
    let engine = start(&dir);
    register(&engine, "ada");
    let (open, closed) =
        (send(&engine, To::Agents(vec![name("ada")])), send(&engine, To::Agents(vec![name("ada")])));
    let end = ConversationEnd::Completed;
    let close = Upkeep::Close { conversation: closed.conversation.clone(), end };
    engine.upkeep_blocking(&name("bob"), close).unwrap();
    let (open, closed) = (open.conversation.to_string(), closed.conversation.to_string());
    let out = Out::new(engine.clone(), Strategy::BestMatch);
    let runtime = runtime();
    for (to, conversation, words) in [
        (
            "zoe",
            open.as_str(),
            "to: there is no agent zoe; name an agent that there is, or give a capability",
        ),
        ("adaa", open.as_str(), "to: there is no agent adaa; did you mean ada?"),
        (
            "ada",
            "nowhere",
            "conversation: there is no conversation nowhere; name one that there is, or leave it out to stay in this one",
        ),
        (
            "ada",
            &closed,
            &format!("conversation: conversation {closed} has ended; name one that is open and has room"),
        ),
    ] {
        let message = AgentMessage {
            id: MessageId::from_bytes([5; 16]),
            sender: name("bob"),
            workspace: "lab".parse().unwrap(),
            performative: Performative::Inform,
            to: Recipient::Agent(name(to)),
            content: Content::Text("x".to_owned()),
            conversation: conversation.parse().unwrap(),
            priority: Priority::Normal,
            in_reply_to: None,
            turn: TURN,
            cause: Seq::FIRST,
        };
        let refused = runtime.block_on(Messages::send(&out, message)).unwrap_err();
        assert_eq!(refused.to_string(), words);
    }
    engine.stop();
}
