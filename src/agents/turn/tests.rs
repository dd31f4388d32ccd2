//! The state machine against tables of events, and against crashes after each of them.

use caxton_events::turn::{ContextKind, ContextPart, Usage};
use proptest::prelude::*;

use super::*;
use crate::agents::scripted::call;

const TURN: TurnId = TurnId::from_bytes([1; 16]);

fn rules() -> Rules {
    Rules {
        performative: Performative::Request,
        auto_respond: false,
        steps_max: 4,
        calls_max: 3,
        concurrent_calls: 1,
        repeatable: &["memory"],
    }
}

fn started(turn: TurnId, attempt: u32) -> TurnEvent {
    TurnEvent::Started {
        turn,
        agent: "ada".parse().unwrap(),
        config: Seq(1),
        message: Seq(9),
        conversation: "c".parse().unwrap(),
        attempt,
    }
}

fn prepared() -> TurnEvent {
    let part = |kind, used: &str| ContextPart {
        kind,
        used: vec![used.to_owned()],
        tokens: 1,
        left_out: 0,
        unavailable: None,
    };
    TurnEvent::ContextPrepared {
        turn: TURN,
        parts: vec![part(ContextKind::History, "#3"), part(ContextKind::Memory, "obs_5")],
        budget_tokens: 10,
        missing_variables: Vec::new(),
        system_prompt: "be".to_owned(),
        user_prompt: "do".to_owned(),
    }
}

fn answered(step: u32, text: &str, tool_calls: Vec<ToolCall>) -> TurnEvent {
    TurnEvent::ModelAnswered {
        turn: TURN,
        step,
        provider: String::new(),
        model: String::new(),
        text: text.to_owned(),
        tool_calls,
        usage: Usage::default(),
        cached: false,
        took_micros: 0,
    }
}

fn model_failed(will_retry: bool) -> TurnEvent {
    TurnEvent::ModelFailed {
        turn: TURN,
        step: 1,
        provider: String::new(),
        model: String::new(),
        error: "no".to_owned(),
        will_retry,
    }
}

fn tool_started(call: &str) -> TurnEvent {
    TurnEvent::ToolStarted { turn: TURN, call: call.to_owned(), tool: "http".to_owned() }
}

fn tool_answered(call: &str, result: &str) -> TurnEvent {
    TurnEvent::ToolAnswered {
        turn: TURN,
        call: call.to_owned(),
        tool: "http".to_owned(),
        result: result.to_owned(),
        failed: false,
        took_micros: 0,
    }
}

fn tool_refused(call: &str) -> TurnEvent {
    TurnEvent::ToolRefused {
        turn: TURN,
        call: call.to_owned(),
        tool: "http".to_owned(),
        reason: "no".to_owned(),
    }
}

fn failed(will_retry: bool) -> TurnEvent {
    TurnEvent::Failed { turn: TURN, reason: "no".to_owned(), will_retry }
}

fn finished() -> TurnEvent {
    TurnEvent::Finished { turn: TURN, reply: None }
}

fn inform(text: &str) -> Action {
    let content = caxton_events::conversation::Content::Text(text.to_owned());
    Action::Reply(Reply { performative: Performative::Inform, content })
}

fn ask(step: u32) -> Action {
    Action::AskModel { step, with_tools: step < 4 }
}

#[track_caller]
fn check(events: &[TurnEvent], then: &Action) {
    assert_eq!(TurnState::of(events).next(&rules()), *then);
}

#[test]
fn each_state_has_one_next_action() {
    let begun = [started(TURN, 1), prepared()];
    let with = |more: &[TurnEvent]| [&begun[..], more].concat();
    let wish = |ids: &[&str]| answered(1, "", ids.iter().map(|id| call(id, "http")).collect());
    check(&[], &Action::Begin { attempt: 1 });
    check(&begun[..1], &Action::PrepareContext);
    check(&begun, &ask(1));
    check(&with(&[answered(1, "hi", vec![])]), &inform("hi"));
    check(&with(&[wish(&["a"])]), &Action::CallTools(vec![call("a", "http")]));
    check(
        &with(&[wish(&["a", "b"]), tool_started("a"), tool_answered("a", "r")]),
        &Action::CallTools(vec![call("b", "http")]),
    );
    check(&with(&[wish(&["a"]), tool_started("a"), tool_answered("a", "r")]), &ask(2));
    check(&with(&[wish(&["a"]), tool_refused("a")]), &ask(2));
    check(&with(&[wish(&["a"]), tool_started("a"), tool_refused("a")]), &ask(2));
    check(&with(&[answered(1, "hi", vec![]), finished()]), &Action::Done(Ended::Finished(None)));
    check(&with(&[failed(false)]), &Action::Done(Ended::Failed));
    check(&with(&[failed(true)]), &Action::Begin { attempt: 2 });
}

#[test]
fn a_call_that_may_have_happened_is_repeated_only_where_that_does_no_harm() {
    let begun =
        |tool| [started(TURN, 1), prepared(), answered(1, "", vec![call("a", tool)]), tool_started("a")];
    check(&begun("http"), &Action::GiveUpCall(call("a", "http")));
    check(&begun("memory"), &Action::CallTools(vec![call("a", "memory")]));
}

#[test]
fn calls_beyond_the_limit_are_refused() {
    let calls = ["a", "b", "c", "d"].map(|id| call(id, "http"));
    let mut events = vec![started(TURN, 1), prepared(), answered(1, "", calls.to_vec())];
    for id in ["a", "b", "c"] {
        check(&events, &Action::CallTools(vec![call(id, "http")]));
        events.extend([tool_started(id), tool_answered(id, "r")]);
    }
    let Action::RefuseTool { call: refused, reason } = TurnState::of(&events).next(&rules()) else {
        panic!()
    };
    assert!(refused.id == "d" && reason.contains("3 times at most"), "{reason}");
    let several = Rules { concurrent_calls: 8, ..rules() };
    let Action::CallTools(now) = TurnState::of(&events[..3]).next(&several) else { panic!() };
    assert_eq!(now, calls[..3], "as many at a time as the limit leaves");
    let none = Rules { calls_max: 0, ..rules() };
    assert_eq!(TurnState::of(&events[..2]).next(&none), Action::AskModel { step: 1, with_tools: false });
}

#[test]
fn the_last_step_is_asked_without_tools_and_must_answer() {
    let mut events = vec![started(TURN, 1), prepared()];
    for step in 1..4 {
        events.push(answered(step, "", vec![call(&format!("c{step}"), "memory")]));
        events.push(tool_answered(&format!("c{step}"), "r"));
    }
    check(&events, &Action::AskModel { step: 4, with_tools: false });
    events.push(answered(4, "", vec![call("more", "memory")]));
    let Action::Fail { reason, reply } = TurnState::of(&events).next(&rules()) else { panic!() };
    assert!(reason.contains("step 4"), "{reason}");
    assert_eq!(reply.map(|reply| reply.performative), Some(Performative::Failure));
}

#[test]
fn a_model_that_failed_is_asked_again_in_the_next_attempt_of_the_same_turn() {
    let mut events = vec![started(TURN, 1), prepared()];
    events.extend([answered(1, "", vec![call("a", "http")]), tool_started("a"), tool_answered("a", "r")]);
    events.push(model_failed(true));
    check(&events, &Action::Retry { reason: "no".to_owned() });
    events.push(failed(true));
    check(&events, &Action::Begin { attempt: 2 });
    events.push(started(TURN, 2));
    check(&events, &ask(2));
    events.push(model_failed(false));
    let Action::Fail { reason, .. } = TurnState::of(&events).next(&rules()) else { panic!() };
    assert_eq!(reason, "no");
    let (begun, state) = (TurnState::of(&events).begun(), TurnState::of(&events));
    assert_eq!((begun.map(|begun| begun.attempt), state.attempts(), state.has_acted()), (Some(2), 2, true));
}

#[test]
fn a_failure_before_the_prompts_is_a_failure_too() {
    let Action::Fail { .. } = TurnState::of(&[started(TURN, 1), model_failed(false)]).next(&rules()) else {
        panic!()
    };
}

#[test]
fn another_turn_begins_from_nothing() {
    let other = TurnId::from_bytes([2; 16]);
    let events = [started(TURN, 1), prepared(), failed(true), started(other, 2), answered(1, "late", vec![])];
    let state = TurnState::of(&events);
    assert_eq!(state.begun().map(|begun| (begun.turn, begun.attempt)), Some((other, 2)));
    assert_eq!((state.next(&rules()), state.prompts()), (Action::PrepareContext, None));
}

#[test]
fn the_chat_is_told_in_the_order_of_the_calls() {
    let calls = vec![call("a", "http"), call("b", "http")];
    let events = [
        started(TURN, 1),
        prepared(),
        answered(1, "hm", calls.clone()),
        tool_answered("b", "second"),
        tool_answered("a", "first"),
    ];
    let state = TurnState::of(&events);
    let chat = state.messages();
    let said: Vec<_> =
        chat.iter().map(|one| (one.role, one.content.as_str(), one.answers.as_deref())).collect();
    let then = [
        (Role::User, "do", None),
        (Role::Assistant, "hm", None),
        (Role::Tool, "first", Some("a")),
        (Role::Tool, "second", Some("b")),
    ];
    assert_eq!(said, then);
    assert_eq!(chat[1].tool_calls, calls);
    assert_eq!(state.prompts().map(|prompts| prompts.memories.clone()), Some(vec!["obs_5".to_owned()]));
}

#[test]
fn calls_get_numbers_that_are_theirs_alone() {
    let state = TurnState::of(&[started(TURN, 1), prepared(), answered(1, "", vec![call("a", "http")])]);
    let numbered = state.numbered(["a", "", "a", "b", ""].map(|id| call(id, "http")).to_vec());
    let mut ids: Vec<String> = numbered.iter().map(|call| call.id.clone()).collect();
    assert!(ids.contains(&"b".to_owned()) && !ids.contains(&"a".to_owned()));
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

/// What a model says at each step, and what the tools give: a function of the state, as after a restart.
#[derive(Debug, Clone)]
struct Story {
    /// Calls at each step; after the last, it answers.
    steps: Vec<Vec<bool>>,
    rules: Rules,
}

/// One event for an action, as the runner records it. A call that was cut off is the only thing a crash changes.
fn act(story: &Story, state: &TurnState, action: &Action) -> Vec<TurnEvent> {
    match action {
        Action::Begin { attempt } => vec![started(TURN, *attempt)],
        Action::PrepareContext => vec![prepared()],
        Action::AskModel { step, with_tools } => {
            let wishes = story.steps.get(*step as usize - 1).filter(|_| *with_tools);
            let calls = wishes.into_iter().flatten().enumerate();
            let tool = |repeatable: bool| if repeatable { "memory" } else { "http" };
            let calls =
                calls.map(|(at, repeatable)| call(&format!("{step}.{at}"), tool(*repeatable))).collect();
            vec![answered(*step, &format!("answer {step}"), calls)]
        }
        Action::CallTools(calls) => {
            let fresh = calls.iter().filter(|call| !state.has_started(&call.id));
            let begun = fresh.map(|call| tool_started(&call.id));
            begun.chain(calls.iter().map(|call| tool_answered(&call.id, &call.id))).collect()
        }
        Action::GiveUpCall(call) => vec![tool_answered(&call.id, INTERRUPTED)],
        Action::RefuseTool { call, .. } => vec![tool_refused(&call.id)],
        Action::Reply(_) | Action::Finish => vec![finished()],
        Action::Retry { .. } => vec![failed(true)],
        Action::Fail { .. } => vec![failed(false)],
        Action::Done(_) => Vec::new(),
    }
}

/// Goes on from `events` to the end; the whole record, and the answer.
fn run(story: &Story, mut events: Vec<TurnEvent>) -> (Vec<TurnEvent>, Option<Reply>) {
    let mut reply = None;
    for _ in 0..1_000 {
        let state = TurnState::of(&events);
        let action = state.next(&story.rules);
        if let Action::Reply(said) = &action {
            reply = Some(said.clone());
        }
        let more = act(story, &state, &action);
        if more.is_empty() {
            return (events, reply);
        }
        events.extend(more);
    }
    panic!("a turn without an end");
}

fn stories() -> impl Strategy<Value = Story> {
    let steps = proptest::collection::vec(proptest::collection::vec(any::<bool>(), 1..4), 0..5);
    (steps, 1_u32..5, 0_u32..6, 1_usize..4).prop_map(|(steps, steps_max, calls_max, concurrent_calls)| {
        Story { steps, rules: Rules { steps_max, calls_max, concurrent_calls, ..rules() } }
    })
}

proptest! {
    /// After a crash behind any event the turn ends as it would have, no answer of the model is asked for again, and
    /// only a call that was under way and must not be repeated has another result.
    #[test]
    fn a_crash_after_any_event_changes_nothing_but_the_call_it_cut_off(story in stories()) {
        let (whole, reply) = run(&story, Vec::new());
        for cut in 0..=whole.len() {
            let prefix = whole[..cut].to_vec();
            let state = TurnState::of(&prefix);
            prop_assert_eq!(state.next(&story.rules), TurnState::of(&prefix).next(&story.rules));
            let (again, second) = run(&story, prefix);
            let answers = |events: &[TurnEvent]| -> Vec<TurnEvent> {
                events.iter().filter(|event| matches!(event, TurnEvent::ModelAnswered { .. })).cloned().collect()
            };
            prop_assert_eq!(answers(&again), answers(&whole));
            prop_assert_eq!(again.last(), whole.last());
            if cut + 1 < whole.len() {
                prop_assert_eq!(&second, &reply);
            }
            let results = |events: &[TurnEvent]| -> Vec<(String, String)> {
                events.iter().filter_map(|event| {
                    let TurnEvent::ToolAnswered { call, result, .. } = event else { return None };
                    Some((call.clone(), result.clone()))
                }).collect()
            };
            let (mut one, mut other) = (results(&whole), results(&again));
            one.sort();
            other.sort();
            let lost = other.iter().filter(|(_, result)| result == INTERRUPTED).count();
            prop_assert!(lost <= story.rules.concurrent_calls);
            for ((call, result), (same, now)) in one.iter().zip(&other) {
                prop_assert_eq!(call, same);
                prop_assert!(result == now || now == INTERRUPTED);
            }
        }
    }
}
