//! Turns in a scripted world: what is recorded, what is sent, and what a crash anywhere leaves to do.

use std::sync::atomic::Ordering;

use caxton_events::conversation::{Content, DeadLetterReason, Message, Performative};
use caxton_events::turn::ContextKind;
use futures::future::BoxFuture;

use super::*;
use crate::agents::context::Said;
use crate::agents::scripted::{self, Line, Stage, call, delivery, message, spec};
use crate::agents::spec::AgentSpec;
use crate::llm::clock::{SystemChance, SystemClock};
use crate::llm::resilient::{BreakerOptions, Resilience, Resilient};
use crate::llm::{Fact, Role, ToolSpec};
use crate::toolbox::{ToolProvider, Toolbox};

async fn handle(stage: &Stage, spec: AgentSpec, message: Message) -> Outcome {
    let agent = Agent::new(spec).unwrap();
    run_turn(&stage.world, &agent, &delivery("ada", 9, message), Prepared::default()).await
}

fn knowing() -> scripted::Known {
    let said = |seq, text: &str| Said {
        seq: Seq(seq),
        sender: "bob".to_owned(),
        performative: Performative::Inform,
        text: text.to_owned(),
    };
    let fact = |source: &str, text: &str| Fact {
        source: source.to_owned(),
        entity: "bees".to_owned(),
        text: text.to_owned(),
        score: 0.9,
        similarity: None,
    };
    scripted::Known {
        history: vec![said(3, "hello"), said(5, "well")],
        facts: vec![fact("obs_5", "bees dance"), fact("obs_6", "bees sleep")],
        ..scripted::Known::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_is_answered_and_everything_is_recorded() {
    let stage = Stage::knowing(vec![Line::Text("They dance.")], knowing());
    let outcome = handle(&stage, spec("ada"), message("What do bees do?")).await;
    assert!(matches!(outcome, Outcome::Finished), "{outcome:?}");
    assert_eq!(stage.sent.lines(), ["ada to bob: INFORM They dance."]);
    let words = ["turn.started", "turn.context_prepared", "turn.model_answered", "turn.finished"];
    assert_eq!(stage.log.words(), words);
    let asks = stage.model.asks.lock().unwrap();
    let ask = &asks[0];
    assert!(
        ask.system
            .starts_with("You are a helper.\n\nSaid before in this conversation:\nbob (INFORM): hello\n")
    );
    assert!(ask.system.contains("- [obs_5] bees: bees dance\n"), "{}", ask.system);
    assert_eq!((ask.messages[0].role, ask.messages[0].content.as_str()), (Role::User, "What do bees do?"));
    assert_eq!((ask.question.as_str(), ask.facts.len(), ask.tools.len()), ("What do bees do?", 2, 3));
    let drafts = stage.log.drafts.lock().unwrap();
    assert_eq!((drafts[0].stream.as_str(), drafts[0].actor.as_str()), ("conversation:c1", "ada"));
    assert_eq!((drafts[0].causation, drafts[1].causation), (Some(Seq(9)), Some(Seq(1_001))));
}

#[tokio::test(start_paused = true)]
async fn the_context_names_what_was_used_and_what_was_missing() {
    let stage = Stage::knowing(vec![Line::Text("x")], knowing());
    stage.known.fail.lock().unwrap().push("history");
    let mut spec = spec("ada");
    spec.system_prompt = "{{memory_context}}{{mood}}{{tone:dry}}".to_owned();
    handle(&stage, spec, message("?")).await;
    let turns = stage.log.turns();
    let TurnEvent::ContextPrepared { parts, missing_variables, system_prompt, .. } = &turns[1] else {
        panic!()
    };
    assert_eq!(missing_variables, &["mood"]);
    assert_eq!(system_prompt, "- [obs_5] bees: bees dance\n- [obs_6] bees: bees sleep\ndry");
    let part = |kind| parts.iter().find(|part| part.kind == kind).unwrap();
    assert_eq!(part(ContextKind::Memory).used, ["obs_5", "obs_6"]);
    assert_eq!(part(ContextKind::Capabilities).used, ["capability:summarise"]);
    assert_eq!(part(ContextKind::Tools).used.len(), 3);
    let unavailable = part(ContextKind::History).unavailable.as_deref();
    assert_eq!(unavailable, Some("could not ask: the script says so"));
}

#[tokio::test(start_paused = true)]
async fn tools_are_called_and_their_results_told_to_the_model() {
    let lines = vec![
        Line::Calls(vec![call("1", "memory"), call("1", "denied")]),
        Line::Calls(vec![call("", "failing")]),
        Line::Text("done"),
    ];
    let stage = Stage::new(lines);
    let mut spec = spec("ada");
    spec.performance.concurrent_tools = 2;
    handle(&stage, spec, message("go")).await;
    assert_eq!(stage.sent.lines(), ["ada to bob: INFORM done"]);
    assert_eq!(stage.kit.called.lock().unwrap().len(), 3);
    let asks = stage.model.asks.lock().unwrap();
    let results = |ask: &Ask| -> Vec<String> {
        let tools = ask.messages.iter().filter(|message| message.role == Role::Tool);
        tools.map(|message| message.content.clone()).collect()
    };
    assert_eq!(results(&asks[1]), ["memory said so", "refused: not in its file"]);
    assert_eq!(results(&asks[2])[2], "broke");
}

/// One tool, or a server that is being started for ever.
#[derive(Debug)]
struct Source(Option<&'static str>);

impl ToolProvider for Source {
    fn tools(&self) -> BoxFuture<'_, Result<Vec<ToolSpec>, ToolError>> {
        let Some(name) = self.0 else { return Box::pin(std::future::pending()) };
        let (name, description) = (name.to_owned(), String::new());
        let spec = ToolSpec { name, description, parameters: serde_json::json!({}) };
        Box::pin(async move { Ok(vec![spec]) })
    }

    fn call<'a>(
        &'a self,
        _: &'a Caller,
        _: &'a str,
        _: &'a serde_json::Value,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        Box::pin(async { Ok("done".to_owned()) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_of_tools_that_hangs_takes_no_other_tool_away() {
    let stage = Stage::new(vec![Line::Text("x")]);
    let toolbox = Toolbox::new()
        .with("memory", Arc::new(Source(Some("memory"))))
        .with("mcp:good", Arc::new(Source(Some("mcp__good__echo"))))
        .with("mcp:hang", Arc::new(Source(None)));
    let world = World { tools: Arc::new(toolbox), ..World::clone(&stage.world) };
    let mut spec = spec("ada");
    spec.permissions.tools = ["memory", "mcp:good", "mcp:hang"].map(str::to_owned).to_vec();
    let agent = Agent::new(spec).unwrap();
    let before = Instant::now();
    run_turn(&world, &agent, &delivery("ada", 9, message("go")), Prepared::default()).await;
    assert_eq!(before.elapsed().as_secs(), 5);
    let asks = stage.model.asks.lock().unwrap();
    let offered: Vec<&str> = asks[0].tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(offered, ["mcp__good__echo", "memory"]);
    let turns = stage.log.turns();
    let TurnEvent::ContextPrepared { parts, .. } = &turns[1] else { panic!() };
    let part = parts.iter().find(|part| part.kind == ContextKind::Tools).unwrap();
    assert_eq!(part.used, ["tool:mcp__good__echo", "tool:memory"]);
    assert_eq!(part.unavailable.as_deref(), Some("mcp:hang: no result within 5s"));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_fills_the_context_takes_no_tool_away_and_a_restart_gives_none_back() {
    let stage = Stage::knowing(vec![Line::Text("x")], knowing());
    stage.model.first.lock().unwrap().push_back(Line::Error(ModelErrorKind::Unreachable));
    let mut spec = spec("ada");
    // More than there is room for.
    spec.permissions.tools.push("n".repeat(20_000));
    for _ in 0..2 {
        handle(&stage, spec.clone(), message(&"go ".repeat(10_000))).await;
    }
    let asks = stage.model.asks.lock().unwrap();
    for ask in asks.iter() {
        let offered: Vec<&str> = ask.tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(offered, ["memory", "http_client", "message"]);
    }
    assert_eq!((asks.len(), stage.log.turns().len()), (2, 7), "the second goes on with the first's context");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_no_event_has_room_for_is_given_up_at_once_and_told() {
    let stage = Stage::new(vec![Line::Text(scripted::TOO_LARGE)]);
    let outcome = handle(&stage, spec("ada"), message("go")).await;
    assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
    assert_eq!(stage.model.asked(), 1);
    let sent = stage.sent.lines();
    assert!(
        sent[0].starts_with("ada to bob: FAILURE could not record an event of a turn: it takes"),
        "{sent:?}"
    );
    let words =
        ["turn.started", "turn.context_prepared", "turn.failed", "conversation.message_dead_lettered"];
    assert_eq!(stage.log.words(), words);
}

/// The log stops taking records behind each event in turn, as a crash would have it; then the turn goes on.
#[tokio::test(start_paused = true)]
async fn after_a_crash_anywhere_the_turn_is_finished_without_asking_again() {
    let lines = || {
        vec![
            Line::Calls(vec![call("a", "memory"), call("b", "http_client")]),
            Line::Calls(vec![call("c", "http_client")]),
            Line::Text("done"),
        ]
    };
    let whole = Stage::knowing(lines(), knowing());
    handle(&whole, spec("ada"), message("go")).await;
    let events = whole.log.turns().len();
    assert_eq!(events, 12);
    for cut in 0..events {
        let stage = Stage::knowing(lines(), knowing());
        stage.log.full_at.store(cut, Ordering::SeqCst);
        let outcome = handle(&stage, spec("ada"), message("go")).await;
        assert!(matches!(outcome, Outcome::Stuck(_)), "{cut}: {outcome:?}");
        let answered = |stage: &Stage| {
            let turns = stage.log.turns();
            turns.iter().filter(|event| matches!(event, TurnEvent::ModelAnswered { .. })).count()
        };
        let before = answered(&stage);
        let asked = stage.model.asked();
        stage.log.full_at.store(usize::MAX, Ordering::SeqCst);
        let outcome = handle(&stage, spec("ada"), message("go")).await;
        assert!(matches!(outcome, Outcome::Finished), "{cut}: {outcome:?}");
        assert_eq!(stage.sent.lines(), ["ada to bob: INFORM done"], "{cut}");
        assert_eq!(stage.model.asked() - asked, 3 - before, "{cut}: what was answered is not asked again");
        assert_eq!(answered(&stage), 3, "{cut}");
        let asks = stage.model.asks.lock().unwrap();
        assert!(asks.iter().all(|ask| ask.facts.len() == 2), "{cut}: facts are there again");
        let mut called = stage.kit.called.lock().unwrap().clone();
        called.sort();
        called.dedup();
        let twice = stage.kit.called.lock().unwrap().len() - called.len();
        let repeated_memory =
            stage.kit.called.lock().unwrap().iter().filter(|one| *one == "memory:a").count() == 2;
        assert_eq!(twice, usize::from(repeated_memory), "{cut}: only memory is asked twice");
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_fails_for_a_while_is_asked_again_later() {
    let stage = Stage::new(vec![Line::Calls(vec![call("a", "http_client")]), Line::Text("done")]);
    let wait = Duration::from_secs(7);
    let slow_down = ModelErrorKind::RateLimited { retry_after: Some(wait) };
    stage.model.first.lock().unwrap().extend([
        Line::Calls(vec![call("a", "http_client")]),
        Line::Error(ModelErrorKind::Unreachable),
        Line::Error(slow_down),
    ]);
    let now = stage.world.clock.now();
    let Outcome::Retry { not_before, .. } = handle(&stage, spec("ada"), message("go")).await else {
        panic!()
    };
    assert_eq!(not_before, later(now, Duration::from_millis(100)));
    let words = stage.log.words();
    assert_eq!(
        words[words.len() - 3..],
        ["turn.model_failed", "turn.failed", "conversation.delivery_retried"]
    );
    let streams: Vec<String> =
        stage.log.drafts.lock().unwrap().iter().rev().take(2).map(|draft| draft.stream.clone()).collect();
    assert_eq!(streams, ["c1", "conversation:c1"], "what is about the message lies where the message does");
    let Outcome::Retry { not_before, .. } = handle(&stage, spec("ada"), message("go")).await else {
        panic!()
    };
    assert_eq!(not_before, later(now, wait), "the provider's word counts");
    let outcome = handle(&stage, spec("ada"), message("go")).await;
    assert!(matches!(outcome, Outcome::Finished), "{outcome:?}");
    assert_eq!(stage.kit.called.lock().unwrap().len(), 1, "what was done is not done again");
    assert_eq!(stage.sent.lines(), ["ada to bob: INFORM done"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_given_up_after_its_last_attempt_and_the_sender_is_told() {
    let stage = Stage::new(vec![Line::Error(ModelErrorKind::Failed)]);
    for _ in 1..4 {
        let outcome = handle(&stage, spec("ada"), message("go")).await;
        assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");
    }
    let outcome = handle(&stage, spec("ada"), message("go")).await;
    assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
    assert_eq!(stage.sent.lines(), ["ada to bob: FAILURE script: as scripted"]);
    assert_eq!(stage.log.words().last(), Some(&"conversation.message_dead_lettered"));
    assert_eq!(stage.log.reason(), Some(DeadLetterReason::RetriesExhausted));
    let outcome = handle(&stage, spec("ada"), message("go")).await;
    assert!(matches!(outcome, Outcome::Failed { .. }) && stage.model.asked() == 4, "it stays given up");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_get_better_is_not_tried_again() {
    type Change = fn(&mut AgentSpec);
    let cases: [(Vec<Line>, Change, &str); 4] = [
        (vec![Line::Error(ModelErrorKind::Refused)], |_| (), "script: as scripted"),
        (vec![Line::Hang], |_| (), "no answer within 30s"),
        (vec![Line::Text("x")], |spec| spec.model.provider = Some("gone".to_owned()), "no provider \"gone\""),
        (vec![Line::Calls(vec![call("a", "memory")])], |spec| spec.limits.steps_max = 1, "step 1, its last"),
    ];
    for (lines, change, words) in cases {
        let stage = Stage::new(lines);
        let mut spec = spec("ada");
        change(&mut spec);
        let Outcome::Failed { reason, blame } = handle(&stage, spec, message("go")).await else {
            panic!("{words}")
        };
        assert!(blame && reason.contains(words), "{reason}");
        assert!(stage.sent.lines()[0].starts_with("ada to bob: FAILURE "), "{:?}", stage.sent.lines());
    }
}

/// The world of `stage` with what a configuration puts around its model, which is asked once at a time.
fn guarded(stage: &Stage) -> World {
    let second = Duration::from_secs(1);
    let options = Resilience {
        retries: 3,
        retry_delay: second,
        retry_delay_max: second,
        concurrent_max: 1,
        waiting_max: 9,
        breaker: BreakerOptions { failures: 5, pause: second, successes: 1 },
    };
    let (clock, chance) = (Arc::new(SystemClock::default()), Arc::new(SystemChance));
    let model = Resilient::new(stage.model.clone(), options, clock, chance);
    World { models: Models::new(Arc::new(model)), ..World::clone(&stage.world) }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_only_waits_for_its_provider_is_not_given_up() {
    let stage = Stage::new(vec![Line::After(Duration::from_secs(20), "done")]);
    let (world, agent) = (guarded(&stage), Agent::new(spec("ada")).unwrap());
    let [first, second] = [9, 10].map(|seq| delivery("ada", seq, message("go")));
    let run = |delivery| run_turn(&world, &agent, delivery, Prepared::default());
    let (answered, waits) = tokio::join!(run(&first), run(&second));
    assert!(matches!(answered, Outcome::Finished), "{answered:?}");
    assert!(matches!(waits, Outcome::Waits { .. }), "{waits:?}");
    assert_eq!(stage.model.asked(), 1);
    let outcome = run(&second).await;
    assert!(matches!(outcome, Outcome::Finished), "{outcome:?}");
    assert_eq!(stage.sent.lines(), ["ada to bob: INFORM done"; 2]);
    assert!(!stage.log.words().contains(&"turn.model_failed"), "nothing has failed");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_used_up_its_time_before_its_provider_had_no_place_has_failed() {
    for (seconds, waits) in [(30, true), (15, false)] {
        let calls = || Line::Calls(vec![call("a", "hanging")]);
        let stage = Stage::new(vec![calls(), Line::Text("done")]);
        stage.model.first.lock().unwrap().extend([calls(), Line::Away(Duration::from_secs(1))]);
        let mut spec = spec("ada");
        spec.limits.response_timeout = Duration::from_secs(seconds);
        let outcome = handle(&stage, spec.clone(), message("go")).await;
        let failed = matches!(outcome, Outcome::Retry { .. });
        assert_eq!((matches!(outcome, Outcome::Waits { .. }), failed), (waits, !waits), "{outcome:?}");
        let outcome = handle(&stage, spec, message("go")).await;
        assert!(matches!(outcome, Outcome::Finished), "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn time_that_a_silent_provider_used_up_does_not_come_back_with_another_attempt() {
    let stage = Stage::new(vec![Line::Hang]);
    let (world, agent) = (guarded(&stage), Agent::new(spec("ada")).unwrap());
    let outcome = run_turn(&world, &agent, &delivery("ada", 9, message("go")), Prepared::default()).await;
    assert!(matches!(outcome, Outcome::Failed { blame: true, .. }), "{outcome:?}");
    assert_eq!(stage.sent.lines(), ["ada to bob: FAILURE no answer within 30s"]);
    assert_eq!(stage.model.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_hangs_costs_its_time_and_no_more() {
    let stage = Stage::new(vec![Line::Calls(vec![call("a", "hanging")]), Line::Text("done")]);
    let before = Instant::now();
    handle(&stage, spec("ada"), message("go")).await;
    assert_eq!(before.elapsed().as_secs(), 10);
    assert_eq!(stage.sent.lines(), ["ada to bob: INFORM done"]);
    let turns = stage.log.turns();
    let told = turns.iter().any(|event| {
        matches!(event, TurnEvent::ToolAnswered { result, failed: true, .. } if result.contains("no result within 10s"))
    });
    assert!(told, "{turns:?}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failed_attempt() {
    let stage = Stage::new(vec![Line::Text("done")]);
    stage.model.first.lock().unwrap().push_back(Line::Panic);
    let outcome = handle(&stage, spec("ada"), message("go")).await;
    assert!(matches!(outcome, Outcome::Retry { .. }), "{outcome:?}");
    let outcome = handle(&stage, spec("ada"), message("go")).await;
    assert!(matches!(outcome, Outcome::Finished), "{outcome:?}");
    let stage = Stage::new(vec![Line::Panic]);
    for _ in 1..4 {
        assert!(matches!(handle(&stage, spec("ada"), message("go")).await, Outcome::Retry { .. }));
    }
    assert!(matches!(handle(&stage, spec("ada"), message("go")).await, Outcome::Failed { .. }));
    assert!(stage.sent.lines()[0].contains("FAILURE the turn broke"), "{:?}", stage.sent.lines());
}

#[tokio::test(start_paused = true)]
async fn the_answer_fits_the_performative_and_information_is_only_heard() {
    let told = |performative| Message { performative, ..message("it rains") };
    for (performative, lines) in [
        (Performative::Inform, &[][..]),
        (Performative::Failure, &[]),
        (Performative::Query, &["ada to bob: REFUSE not today"]),
        (Performative::Propose, &["ada to bob: REJECT_PROPOSAL not today"]),
    ] {
        let stage = Stage::new(vec![Line::Text(r#"{"performative":"refuse","content":"not today"}"#)]);
        let outcome = handle(&stage, spec("ada"), told(performative)).await;
        assert!(matches!(outcome, Outcome::Finished), "{outcome:?}");
        assert_eq!(stage.sent.lines(), lines, "{performative}");
        assert_eq!(stage.model.asked(), 1, "it is heard all the same");
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_clear_word_decides_about_a_proposal_and_the_model_is_asked_for_one() {
    let stage = Stage::new(vec![Line::Text("Yes, I accept, noon is fine.")]);
    let proposal = Message { performative: Performative::Propose, ..message("noon?") };
    handle(&stage, spec("ada"), proposal).await;
    assert_eq!(stage.sent.lines(), ["ada to bob: NOT_UNDERSTOOD Yes, I accept, noon is fine."]);
    let told = |stage: &Stage| stage.model.asks.lock().unwrap()[0].system.clone();
    assert!(told(&stage).contains("ACCEPT_PROPOSAL"), "{}", told(&stage));
    let stage = Stage::new(vec![Line::Text("at noon")]);
    handle(&stage, spec("ada"), message("when?")).await;
    assert!(!told(&stage).contains("ACCEPT_PROPOSAL"), "{}", told(&stage));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_refused_ends_the_turn_and_one_that_is_not_sent_waits() {
    let stage = Stage::new(vec![Line::Text("done")]);
    *stage.sent.refuse.lock().unwrap() = Some("the conversation is closed".to_owned());
    let Outcome::Failed { reason, blame } = handle(&stage, spec("ada"), message("go")).await else {
        panic!()
    };
    assert_eq!(reason, "the answer was refused: the conversation is closed");
    assert!(!blame, "it is no fault of the agent");

    let stage = Stage::new(vec![Line::Text("done")]);
    *stage.sent.refuse.lock().unwrap() = Some("it is too long".to_owned());
    stage.sent.takes_failures.store(true, Ordering::SeqCst);
    assert!(matches!(handle(&stage, spec("ada"), message("go")).await, Outcome::Failed { .. }));
    assert_eq!(
        stage.sent.lines(),
        ["ada to bob: FAILURE the answer was refused: it is too long"],
        "who waits is told"
    );
    assert_eq!(stage.log.reason(), Some(DeadLetterReason::GivenUp), "it was not tried again");

    let stage = Stage::new(vec![Line::Text("done")]);
    stage.sent.failures.store(1, Ordering::SeqCst);
    assert!(matches!(handle(&stage, spec("ada"), message("go")).await, Outcome::Stuck(_)));
    assert!(matches!(handle(&stage, spec("ada"), message("go")).await, Outcome::Finished));
    assert_eq!((stage.model.asked(), stage.sent.lines().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_changed_agent_begins_anew_unless_it_would_do_something_again() {
    for (first, asked) in [(Line::Text("old"), 3), (Line::Calls(vec![call("a", "http_client")]), 3)] {
        let acts = matches!(first, Line::Calls(_));
        let stage = Stage::new(vec![first.clone(), Line::Text("new")]);
        stage.model.first.lock().unwrap().extend(if acts {
            vec![first, Line::Error(ModelErrorKind::Failed)]
        } else {
            vec![Line::Error(ModelErrorKind::Failed), Line::Error(ModelErrorKind::Failed)]
        });
        let mut spec = spec("ada");
        assert!(matches!(handle(&stage, spec.clone(), message("go")).await, Outcome::Retry { .. }));
        if !acts {
            assert!(matches!(handle(&stage, spec.clone(), message("go")).await, Outcome::Retry { .. }));
        }
        spec.config = Seq(2);
        assert!(matches!(handle(&stage, spec, message("go")).await, Outcome::Finished));
        let turns = stage.log.turns();
        let mut started: Vec<TurnId> = Vec::new();
        for event in &turns {
            if let TurnEvent::Started { turn, .. } = event {
                started.push(*turn);
            }
        }
        let (first, last) = (started[0], started[started.len() - 1]);
        assert_eq!(first == last, acts, "{started:?}");
        assert_eq!(stage.model.asked(), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn the_message_and_its_fields_are_in_reach_of_templates() {
    let stage = Stage::new(vec![Line::Text("x")]);
    let mut spec = spec("ada");
    spec.templates.request = Some("{{sender_agent}} wants {{topic}} at {{timestamp}}".to_owned());
    let json = Message { content: Content::Json(r#"{"topic":"bees"}"#.to_owned()), ..message("") };
    handle(&stage, spec, json).await;
    let asks = stage.model.asks.lock().unwrap();
    assert_eq!(asks[0].messages[0].content, "bob wants bees at 2023-11-14T22:13:20.000000Z");
}

#[tokio::test(start_paused = true)]
async fn what_expired_during_its_turn_is_given_up_without_a_word() {
    use ModelErrorKind::{Failed, Refused};
    for (kind, attempts) in [(Refused, 0), (Failed, 0), (Failed, 3)] {
        let stage = Stage::new(vec![Line::Error(kind)]);
        for _ in 0..attempts {
            assert!(matches!(handle(&stage, spec("ada"), message("go")).await, Outcome::Retry { .. }));
        }
        stage.log.expired.lock().unwrap().push(Seq(9));
        let outcome = handle(&stage, spec("ada"), message("go")).await;
        assert!(matches!(outcome, Outcome::Failed { blame: true, .. }), "{outcome:?}");
        assert!(stage.sent.lines().is_empty(), "its sender is sent nothing");
        assert_eq!(stage.log.reason(), None, "it is a dead letter already");
        let retried =
            stage.log.words().iter().filter(|word| **word == "conversation.delivery_retried").count();
        assert_eq!((retried, stage.log.words().last()), (attempts, Some(&"turn.failed")));
        let TurnEvent::Failed { will_retry, .. } = stage.log.turns().pop().unwrap() else { panic!() };
        assert!(!will_retry);
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_too_often_is_told_and_the_agent_is_not_to_blame() {
    let known = scripted::Known { said: 5, ..scripted::Known::default() };
    let stage = Stage::knowing(vec![Line::Text("done")], known);
    let mut spec = spec("ada");
    spec.limits.turns_max = 5;
    let outcome = handle(&stage, spec, message("go")).await;
    assert!(matches!(outcome, Outcome::Failed { blame: false, .. }), "{outcome:?}");
    assert!(stage.sent.lines()[0].contains("conversation.max_turns"), "{:?}", stage.sent.lines());
}

#[test]
fn waits_double_up_to_a_limit() {
    let rules = RetryRules::default();
    let waits: Vec<u128> = [1, 2, 3, 7, 8, 1_000].map(|failed| rules.wait(failed).as_millis()).to_vec();
    assert_eq!(waits, [100, 200, 400, 6_400, 10_000, 10_000]);
}
