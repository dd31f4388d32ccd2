//! The router and its fold without their threads: groups are decided and folded step by step.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod erasing;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use caxton_events::conversation::{Content, ConversationEnd, ConversationEvent, Performative, Strategy};
use caxton_events::log::{AppendError, Batch, Filter, Log, LogOptions, Reader, Series};
use caxton_events::{AgentId, Clock, ConversationId, Draft, Kind, Seq, Subject, SystemEvent, Timestamp};
use caxton_projections::conversations::SYSTEM;
use caxton_projections::talk::{TalkReader, TalkStore};
use caxton_projections::view::{Part, Positions};
use crossbeam_channel::{Sender, bounded, never};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::SystemClock;
use super::deadlines::Deadlines;
use super::inboxes::Wakers;
use super::message_router::{MessageRouter, system};
use super::talk::{Answer, Answered1, Done, Request, SentOutcome, SentResults, TalkError};
use super::talk_fold::TalkFold;
use super::talk_redo::Lost;
use crate::commands::RefusalCode;
use crate::commands::talk::{NewCapability, NewConversation, Numbers, Outgoing, Settings, To, Upkeep};

/// Both of them, and what they stand on.
struct Desk {
    router: MessageRouter,
    fold: TalkFold,
    log: Arc<Log>,
    talk: TalkReader,
    requests: Sender<Request>,
    lives: Sender<()>,
    store: TalkStore,
    _dir: TempDir,
}

impl Desk {
    /// With the agent bob and the conversations x and y.
    fn new() -> Self {
        Self::with(Arc::new(SystemClock))
    }

    /// The same, by another clock of the log.
    fn with(clock: Arc<dyn Clock>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), LogOptions::new([7; 16]), clock).unwrap();
        let log = Arc::new(log);
        let (talk, store) = TalkStore::open(&dir.path().join("talk")).unwrap();
        let reader = talk.reader();
        let positions = Arc::new(Positions::new(false));
        let (requests, incoming) = bounded(16);
        let (folds, groups) = bounded(16);
        let (lives, fold_lives) = bounded(1);
        let router = MessageRouter {
            log: Arc::clone(&log),
            talk: reader.clone(),
            requests: incoming,
            folds,
            fold_lives,
            positions: Arc::clone(&positions),
            settings: Settings::default(),
            numbers: Numbers::seeded(&[1; 32]),
            handed: 0,
            under_way: VecDeque::new(),
            spare: Vec::new(),
            series: Series::default(),
            series_broken: 0,
            deadlines: Deadlines::default(),
            deferred: VecDeque::new(),
            must_settle: false,
        };
        let fold = TalkFold {
            talk,
            log: log.reader(),
            writer: Arc::clone(&log),
            lost: Lost::default(),
            groups,
            nudges: never(),
            offers: never(),
            offered: None,
            scrubs: never(),
            positions,
            wakers: Arc::new(Wakers::new()),
            knows_closed: false,
            taken: 0,
            recorded: Seq::ZERO,
        };
        let mut desk = Self { router, fold, log, talk: reader, requests, lives, store, _dir: dir };
        let workspace = "lab".parse().unwrap();
        let (known, mut bob) = upkeep(Upkeep::RegisterAgent { agent: name("bob"), workspace });
        let (x, mut x_opened) = upkeep(open("x"));
        let (y, mut y_opened) = upkeep(open("y"));
        desk.router.decide(vec![known, x, y]);
        desk.fold_all();
        for opened in [&mut bob, &mut x_opened, &mut y_opened] {
            told(opened).unwrap();
        }
        desk
    }

    /// Folds every group that was handed over.
    fn fold_all(&mut self) {
        while let Ok(group) = self.fold.groups.try_recv() {
            self.fold.take(group);
        }
    }

    /// Goes on with what was deferred, until nothing is.
    fn go_on(&mut self) {
        self.fold_all();
        assert!(self.router.ready());
        while !self.router.deferred.is_empty() {
            let group = self.router.deferred.drain(..).collect();
            self.router.decide(group);
            self.fold_all();
            assert!(self.router.ready());
        }
    }

    /// Decides the first two in one group, and the third while that is under way.
    fn at_once(&mut self, [first, second, third]: [Request; 3]) {
        self.router.decide(vec![first, second]);
        let deferred = self.router.deferred.drain(..).chain([third]).collect();
        self.router.decide(deferred);
        self.go_on();
    }

    /// Does something while the log takes nothing of these conversations.
    fn held(&mut self, conversations: &[&str], work: impl FnOnce(&mut Self)) {
        let subjects: Vec<Subject> =
            conversations.iter().map(|name| Subject::Conversation(name.parse().unwrap())).collect();
        let log = Arc::clone(&self.log);
        let erased = log.erase(&subjects, |_| {
            work(self);
            of_server()
        });
        erased.unwrap();
    }

    fn is_known(&self, agent: &str) -> bool {
        self.talk.read().registry.is_known(&name(agent))
    }

    /// Messages that a conversation holds; `None`: there is none.
    fn said(&self, conversation: &str) -> Option<u64> {
        let id: ConversationId = conversation.parse().unwrap();
        self.talk.read().conversations.get(&id).map(|row| row.messages.len())
    }

    /// How often each of these stands in the log, by conversation.
    fn recorded(&self, kinds: &[Kind]) -> BTreeMap<(String, String), usize> {
        let filter = Filter { kinds: Some(kinds.to_vec()), ..Filter::default() };
        let mut found = BTreeMap::new();
        for record in self.log.reader().scan(Seq::FIRST, &filter) {
            let record = record.unwrap();
            *found.entry((record.stream, format!("{:?}", record.event.kind()))).or_default() += 1;
        }
        found
    }
}

/// What somebody else records.
fn of_server() -> Draft {
    Draft {
        stream: SYSTEM.to_owned(),
        actor: SYSTEM.to_owned(),
        correlation: None,
        causation: None,
        event: SystemEvent::ServerStopped.into(),
    }
}

/// A log that has ended far behind what a desk has: whatever is read of it fails.
fn unreadable() -> Reader {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), LogOptions::new([8; 16]), Arc::new(SystemClock)).unwrap();
    let drafts = (0..100).map(|_| of_server()).collect();
    log.append(vec![Batch::of(drafts)]).unwrap().remove(0).unwrap();
    let reader = log.reader();
    log.close().unwrap();
    reader
}

fn name(name: &str) -> AgentId {
    name.parse().unwrap()
}

fn open(conversation: &str) -> Upkeep {
    let id = Some(conversation.parse().unwrap());
    Upkeep::Open(NewConversation { id, idle_timeout_millis: Some(5_000), ..NewConversation::default() })
}

fn close(conversation: &str) -> Upkeep {
    Upkeep::Close { conversation: conversation.parse().unwrap(), end: ConversationEnd::Completed }
}

fn message(from: &str, to: &str, conversation: Option<&str>) -> Outgoing {
    let (to, content) = (To::Agents(vec![name(to)]), Content::Text("hi".to_owned()));
    let conversation = conversation.map(|id| id.parse().unwrap());
    Outgoing { conversation, ..Outgoing::new(name(from), Performative::Inform, to, content) }
}

fn ask<T>(request: impl FnOnce(Answer<T>) -> Request) -> (Request, Answered1<T>) {
    let (answer, answered) = oneshot::channel();
    (request(answer), answered)
}

fn send(wish: Outgoing) -> (Request, Answered1<SentResults>) {
    ask(|answer| Request::Send { wishes: vec![wish], atomic: true, answer })
}

fn upkeep(wish: Upkeep) -> (Request, Answered1<Done>) {
    ask(|answer| Request::Upkeep { actor: "ada".to_owned(), wish, answer })
}

fn replay(dead_letter: Seq, once_more: bool) -> (Request, Answered1<SentResults>) {
    let wish = Box::new(message("ada", "bob", None));
    ask(|answer| Request::Replay { dead_letter, once_more, wish, answer })
}

/// What the answer is, which must be there.
#[track_caller]
fn told<T>(answered: &mut Answered1<T>) -> Result<T, TalkError> {
    answered.try_recv().unwrap()
}

/// The same of one message.
#[track_caller]
fn outcome(answered: &mut Answered1<SentResults>) -> Result<SentOutcome, TalkError> {
    told(answered).map(|results| results.into_iter().next().unwrap().unwrap())
}

#[track_caller]
fn code<T: std::fmt::Debug>(result: Result<T, TalkError>) -> RefusalCode {
    match result {
        Err(TalkError::Refused(refusals)) => refusals[0].code,
        other => panic!("{other:?}"),
    }
}

/// The stream that is said to be erased.
#[track_caller]
fn erased<T: std::fmt::Debug>(result: Result<T, TalkError>) -> String {
    match result {
        Err(TalkError::Log(AppendError::BeingErased { stream })) => stream,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_decided_on_top_of_what_was_refused_is_looked_at_again() {
    let mut desk = Desk::new();
    desk.held(&["x", "new"], |desk| {
        let (introducing, mut to_x) = send(message("ada", "bob", Some("x")));
        let (opening, mut opened) = upkeep(open("new"));
        // They take ada for known and the conversation for open.
        let (from_ada, mut to_y) = send(message("ada", "bob", Some("y")));
        let (to_ada, mut by_bob) = send(message("bob", "ada", None));
        let (in_new, mut to_new) = send(message("bob", "ada", Some("new")));
        desk.router.decide(vec![introducing, opening, from_ada]);
        desk.router.decide(vec![to_ada, in_new]);
        desk.fold_all();
        assert_eq!(
            (erased(outcome(&mut to_x)), erased(told(&mut opened))),
            ("x".to_owned(), "new".to_owned())
        );
        outcome(&mut to_y).unwrap();
        outcome(&mut by_bob).unwrap();
        assert_eq!(code(outcome(&mut to_new)), RefusalCode::ConversationNotFound);
    });
    assert!(desk.is_known("ada"));
    assert_eq!((desk.said("x"), desk.said("y"), desk.said("new")), (Some(0), Some(1), None));
    let sent = desk.recorded(&[Kind::MessageSent]);
    assert!(!sent.keys().any(|(stream, _)| stream == "new"), "{sent:?}");
    let known = desk.recorded(&[Kind::ExternalAgentRegistered]);
    assert_eq!(known.values().sum::<usize>(), 2, "bob and ada, each once");
}

#[test]
fn nobody_is_told_of_an_end_that_is_not_recorded() {
    let mut desk = Desk::new();
    let (first, mut one) = upkeep(close("y"));
    let (second, mut other) = upkeep(close("y"));
    desk.held(&["y"], |desk| {
        desk.router.decide(vec![first, second]);
        desk.fold_all();
        assert_eq!(erased(told(&mut one)), "y");
        assert_eq!(other.try_recv().unwrap_err(), TryRecvError::Empty);
    });
    desk.go_on();
    assert_eq!(told(&mut other).unwrap().recorded, 1);
    let (third, mut none) = upkeep(close("y"));
    desk.router.decide(vec![third]);
    desk.go_on();
    assert_eq!(told(&mut none).unwrap().recorded, 0);
}

#[test]
fn deadlines_that_could_not_be_recorded_are_recorded_later_and_once() {
    const KINDS: [Kind; 3] = [Kind::ReplyOverdue, Kind::MessageExpired, Kind::ConversationClosed];
    let mut desk = Desk::new();
    let now = SystemClock.now().unix_micros();
    let in_seconds = |seconds: u64| Timestamp::from_unix_micros(now + seconds * 1_000_000);
    for conversation in ["x", "y"] {
        let soon = Some(in_seconds(3_600));
        let (request, mut sent) =
            send(Outgoing { reply_by: soon, expires_at: soon, ..message("ada", "bob", Some(conversation)) });
        desk.router.decide(vec![request]);
        desk.fold_all();
        outcome(&mut sent).unwrap();
    }
    let each_once = |conversations: &[&str]| -> BTreeMap<(String, String), usize> {
        let of = |name: &str| KINDS.map(|kind| ((name.to_owned(), format!("{kind:?}")), 1));
        conversations.iter().flat_map(|name| of(name)).collect()
    };
    desk.held(&["x"], |desk| {
        desk.router.look_at_deadlines(in_seconds(7_200));
        desk.fold_all();
        assert_eq!(desk.recorded(&KINDS), each_once(&["y"]));
        desk.router.look_at_deadlines(in_seconds(7_200));
        assert!(desk.fold.groups.is_empty(), "not again at once");
    });
    desk.go_on();
    // The second look comes while the events of the first are under way.
    for seconds in [7_300, 7_400] {
        desk.router.look_at_deadlines(in_seconds(seconds));
    }
    desk.fold_all();
    desk.router.look_at_deadlines(in_seconds(7_500));
    desk.fold_all();
    assert_eq!(desk.recorded(&KINDS), each_once(&["x", "y"]));
}

/// Ten hours behind.
#[derive(Debug)]
struct Slow;

const HOUR_MILLIS: u64 = 3_600_000;

impl Clock for Slow {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(SystemClock.now().unix_micros() - 10 * HOUR_MILLIS * 1_000)
    }
}

#[test]
fn other_timeouts_count_from_the_last_message_and_end_a_conversation_once() {
    let mut desk = Desk::with(Arc::new(Slow));
    let id: ConversationId = "z".parse().unwrap();
    let wish = NewConversation { id: Some(id.clone()), ..NewConversation::default() };
    let (opening, mut opened) = upkeep(Upkeep::Open(wish));
    desk.router.decide(vec![opening]);
    desk.fold_all();
    told(&mut opened).unwrap();
    // Each ends it earlier than the one before, the last one twelve hours after it was opened: in two hours.
    let extends = (0..=2_000).rev().map(|more| {
        let event = ConversationEvent::Extended {
            conversation: id.clone(),
            idle_timeout_millis: 12 * HOUR_MILLIS + more,
            life_timeout_millis: 100 * HOUR_MILLIS,
        };
        Draft { actor: "ada".to_owned(), ..system("z".to_owned(), event) }
    });
    let (request, _recorded) = ask(|answer| Request::Record { drafts: extends.collect(), answer });
    desk.router.decide(vec![request]);
    desk.fold_all();
    assert!(desk.router.deadlines.kept() < 1_200, "{}", desk.router.deadlines.kept());
    let now = SystemClock.now().unix_micros();
    let closed = |desk: &mut Desk, minutes: u64| {
        desk.router.look_at_deadlines(Timestamp::from_unix_micros(now + minutes * 60_000_000));
        desk.fold_all();
        let closed = desk.recorded(&[Kind::ConversationClosed]);
        closed.into_iter().find(|((stream, _), _)| stream == "z").map(|(_, count)| count)
    };
    assert_eq!(closed(&mut desk, 60), None);
    assert_eq!(closed(&mut desk, 180), Some(1));
    assert_eq!(closed(&mut desk, 20_000), Some(1));
}

#[test]
fn a_turn_that_sets_the_idle_time_has_it_to_answer() {
    let mut desk = Desk::with(Arc::new(Slow));
    let conversation: ConversationId = "z".parse().unwrap();
    let wish = NewConversation { id: Some(conversation.clone()), ..NewConversation::default() };
    let (opening, mut opened) = upkeep(Upkeep::Open(wish));
    desk.router.decide(vec![opening]);
    desk.fold_all();
    told(&mut opened).unwrap();
    // By the log's clock it is ten hours old, as one whose message waited for so long.
    let (request, mut extended) = ask(|answer| {
        let (idle_timeout_millis, life_timeout_millis) = (Some(HOUR_MILLIS / 2), None);
        let wish = Upkeep::Extend { conversation, idle_timeout_millis, life_timeout_millis };
        Request::Upkeep { actor: SYSTEM.to_owned(), wish, answer }
    });
    desk.router.decide(vec![request]);
    desk.fold_all();
    told(&mut extended).unwrap();
    let now = SystemClock.now().unix_micros();
    for (minutes, is_closed) in [(5, false), (40, true)] {
        desk.router.look_at_deadlines(Timestamp::from_unix_micros(now + minutes * 60_000_000));
        desk.fold_all();
        let closed = desk.recorded(&[Kind::ConversationClosed]);
        assert_eq!(closed.keys().any(|(stream, _)| stream == "z"), is_closed, "{minutes}");
    }
}

#[test]
fn timeouts_that_are_changed_at_the_same_moment_are_all_changed() {
    let mut desk = Desk::new();
    let extend = |idle_timeout_millis, life_timeout_millis| {
        let conversation = "x".parse().unwrap();
        upkeep(Upkeep::Extend { conversation, idle_timeout_millis, life_timeout_millis })
    };
    let (first, mut one) = extend(Some(6 * HOUR_MILLIS), None);
    let (second, mut two) = extend(None, Some(7 * HOUR_MILLIS));
    let (third, mut three) = extend(Some(8 * HOUR_MILLIS), None);
    desk.at_once([first, second, third]);
    for answered in [&mut one, &mut two, &mut three] {
        assert_eq!(told(answered).unwrap().recorded, 1);
    }
    let state = desk.talk.read();
    let row = state.conversations.get(&"x".parse().unwrap()).unwrap();
    assert_eq!((row.idle_timeout_millis, row.life_timeout_millis), (8 * HOUR_MILLIS, 7 * HOUR_MILLIS));
}

#[test]
fn an_offer_that_is_changed_and_withdrawn_at_the_same_moment_loses_nothing_and_is_gone() {
    let mut desk = Desk::new();
    let (agent, capability) = (name("bob"), "plots".parse().unwrap());
    let (request, mut offered) = upkeep(Upkeep::Offer(NewCapability {
        agent: agent.clone(),
        capability,
        version: "1.0.0".to_owned(),
        priority: 50,
        metadata: None,
        health_check_url: None,
    }));
    desk.router.decide(vec![request]);
    desk.fold_all();
    told(&mut offered).unwrap();
    let (registration, capability) = {
        let state = desk.talk.read();
        let row = state.registry.registrations().next().unwrap();
        (row.id, row.capability.clone())
    };
    let change = |priority, metadata: Option<&str>, url: Option<&str>| {
        let own = |text: &str| Some(text.to_owned());
        let (metadata, health_check_url) = (metadata.map(own), url.map(own));
        upkeep(Upkeep::ChangeOffer { registration, priority, metadata, health_check_url })
    };
    let (first, mut one) = change(Some(100), None, None);
    let (second, mut two) = change(None, Some("{}"), None);
    let (third, mut three) = change(None, None, Some("http://bob"));
    desk.at_once([first, second, third]);
    for answered in [&mut one, &mut two, &mut three] {
        told(answered).unwrap();
    }
    {
        let state = desk.talk.read();
        let row = state.registry.registration(registration).unwrap();
        let texts = (row.metadata.as_deref(), row.health_check_url.as_deref());
        assert_eq!((row.priority, texts), (100, (Some("{}"), Some("http://bob"))));
    }
    let (withdrawing, mut withdrawn) = upkeep(Upkeep::Withdraw { agent, capability });
    let ((late, mut of_late), (later, mut of_later)) =
        (change(Some(1), None, None), change(Some(2), None, None));
    desk.at_once([withdrawing, late, later]);
    told(&mut withdrawn).unwrap();
    for answered in [&mut of_late, &mut of_later] {
        assert_eq!(code(told(answered)), RefusalCode::RegistrationNotFound);
    }
}

#[test]
fn a_dead_letter_is_sent_again_once_by_two_who_ask_at_the_same_moment() {
    let mut desk = Desk::new();
    let to =
        To::Capability { name: "nobody.does".parse().unwrap(), version: None, strategy: Strategy::BestMatch };
    let (request, mut sent) = send(Outgoing { to, ..message("ada", "bob", None) });
    desk.router.decide(vec![request]);
    desk.fold_all();
    outcome(&mut sent).unwrap();
    let letter = *desk.talk.read().conversations.dead_letters().keys().next().unwrap();
    let ((first, mut one), (second, mut two)) = (replay(letter, false), replay(letter, false));
    let (third, mut three) = replay(letter, false);
    desk.at_once([first, second, third]);
    outcome(&mut one).unwrap();
    assert_eq!(code(outcome(&mut two)), RefusalCode::WrongState);
    assert_eq!(code(outcome(&mut three)), RefusalCode::WrongState);
    let ((fourth, mut four), (fifth, mut five)) = (replay(letter, true), replay(Seq(1), true));
    desk.router.decide(vec![fourth, fifth]);
    desk.go_on();
    outcome(&mut four).unwrap();
    assert_eq!(code(outcome(&mut five)), RefusalCode::DeadLetterNotFound);
    let state = desk.talk.read();
    assert_eq!(state.conversations.dead_letters()[&letter].replayed.len(), 2);
}

#[test]
fn nothing_is_decided_on_a_state_that_lacks_what_is_recorded() {
    let mut desk = Desk::new();
    let id = Some("018f6b3c-52aa-7c31-9d3e-0a1b2c3d4e5f".parse().unwrap());
    let once = || send(Outgoing { id, ..message("ada", "bob", Some("x")) });
    // The record in front of the message cannot be read, so that the message is not folded either.
    desk.log.append(vec![Batch::of(vec![of_server()])]).unwrap().remove(0).unwrap();
    let readable = std::mem::replace(&mut desk.fold.log, unreadable());
    let (request, mut sent) = once();
    desk.router.decide(vec![request]);
    desk.fold_all();
    let sent = outcome(&mut sent).unwrap();
    assert_eq!((desk.said("x"), desk.talk.read().mark), (Some(0), desk.router.handed - 1));
    for must_settle in [false, true] {
        desk.router.must_settle = must_settle;
        assert!(desk.router.ready(), "it waits for nothing that does not come");
        let (again, mut refused) = once();
        let (other, mut closed) = upkeep(close("y"));
        desk.router.decide(vec![again, other]);
        assert!(matches!(told(&mut refused), Err(TalkError::Unavailable { .. })));
        assert!(matches!(told(&mut closed), Err(TalkError::Unavailable { .. })));
    }
    // What was told to be there is found as soon as it can be read.
    desk.fold.log = readable;
    desk.fold.follow();
    assert_eq!((desk.said("x"), desk.talk.read().mark), (Some(1), desk.router.handed));
    let (again, mut repeated) = once();
    desk.router.decide(vec![again]);
    desk.go_on();
    let repeated = outcome(&mut repeated).unwrap();
    assert_eq!((repeated.seq, repeated.replayed, desk.said("x")), (sent.seq, true, Some(1)));
}

#[test]
fn what_is_put_off_stays_in_its_order() {
    let mut desk = Desk::new();
    let of = |content: String| Outgoing { content: Content::Text(content), ..message("ada", "bob", None) };
    let (large, _large) = send(of("x".repeat(5 << 20)));
    let (next, _next) = send(of("next".to_owned()));
    let (last, _last) = send(of("last".to_owned()));
    desk.router.deferred.push_back(last);
    desk.router.decide(vec![large, next]);
    let mut order = Vec::new();
    for request in &desk.router.deferred {
        let Request::Send { wishes, .. } = request else { panic!("it is no message") };
        order.push(wishes[0].content.as_str());
    }
    assert_eq!(order, ["next", "last"]);
}

#[test]
fn without_the_thread_that_folds_the_router_refuses_and_ends() {
    let mut desk = Desk::new();
    let (lost, mut unfolded) = send(message("ada", "bob", None));
    desk.router.decide(vec![lost]);
    let Desk { mut router, fold, requests, lives, .. } = desk;
    let positions = Arc::clone(&fold.positions);
    drop((fold, lives));
    // It was handed over, and will never be folded.
    router.must_settle = true;
    assert!(!router.ready());
    let (late, answered) = send(message("ada", "bob", None));
    requests.send(late).unwrap();
    let thread = std::thread::spawn(move || router.run());
    let told = answered.blocking_recv().unwrap();
    assert!(matches!(told, Err(TalkError::Unavailable { .. })), "who asks is told at once: {told:?}");
    drop(requests);
    thread.join().unwrap();
    assert!(positions.get(Part::Talk).stopped.is_some());
    assert_eq!(unfolded.try_recv().unwrap_err(), TryRecvError::Closed);
}
