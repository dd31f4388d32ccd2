//! The scheduler in a scripted world, with time standing still.

use caxton_events::conversation::{Message, Performative, Priority};
use caxton_events::{MessageId, Seq};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::*;
use crate::agents::scripted::{
    Letters, Line, Stage, asked_for, call, delivery, message, running, said_in, spec,
};
use crate::agents::spec::AgentSpec;
use crate::config::RequestHandling;
use crate::llm::ModelErrorKind;

fn settings() -> Settings {
    let mut handling = RequestHandling::default();
    handling.classification.background_capabilities = vec!["batch-processing".to_owned()];
    let (queues, classifier) = Classifier::new(&handling);
    Settings {
        turns_max: 100,
        queues,
        classifier,
        batch: BatchRules {
            size: 10,
            timeout: Duration::from_millis(100),
            parallel: 4,
            search_together: true,
        },
        breaker: BreakerRules { failures: 3, open_for: Duration::from_mins(1) },
        drain: Duration::from_secs(20),
    }
}

/// A scheduler that runs until it is dropped or stopped.
struct Show {
    stage: Stage,
    letters: Arc<Letters>,
    agents: Arc<Agents>,
    scheduler: Arc<Scheduler>,
    stop: oneshot::Sender<()>,
    run: tokio::task::JoinHandle<usize>,
}

impl Show {
    fn new(stage: Stage, specs: Vec<AgentSpec>, settings: Settings, before: Vec<Delivery>) -> Self {
        let letters = Letters::new(settings.classifier.clone());
        for delivery in before {
            letters.add(delivery);
        }
        let agents = running(specs);
        let scheduler = Arc::new(Scheduler::new(
            stage.world.clone(),
            letters.clone(),
            agents.clone(),
            settings,
            Arc::default(),
        ));
        let (stop, stopped) = oneshot::channel::<()>();
        let on_stage = scheduler.clone();
        let run =
            tokio::spawn(async move { on_stage.run(HashMap::new(), async { _ = stopped.await }).await });
        Self { stage, letters, agents, scheduler, stop, run }
    }

    async fn end(self) -> usize {
        let _ = self.stop.send(());
        self.run.await.unwrap()
    }
}

fn told(seq: u64, conversation: &str) -> Delivery {
    delivery("ada", seq, said_in(conversation, Priority::Normal, "go"))
}

#[tokio::test(start_paused = true)]
async fn messages_are_answered_and_acknowledged() {
    let stage = Stage::new(vec![Line::Echo]);
    let before = (1..=5).map(|seq| told(seq, &format!("c{seq}"))).collect();
    let show = Show::new(stage, vec![spec("ada")], settings(), before);
    let mut done = show.letters.done(5).await;
    done.sort_unstable();
    assert_eq!(done, [1, 2, 3, 4, 5]);
    show.letters.add(told(6, "c1"));
    assert_eq!(show.letters.done(6).await[5], 6);
    assert_eq!(show.stage.sent.lines().len(), 6);
    assert_eq!(show.end().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_conversation_stays_in_order_while_others_go_on() {
    let stage = Stage::new(vec![Line::Text("x")]);
    stage.model.first.lock().unwrap().push_back(Line::After(Duration::from_secs(5), "slow"));
    let before = vec![told(1, "one"), told(2, "one"), told(3, "one"), told(4, "two"), told(5, "three")];
    let show = Show::new(stage, vec![spec("ada")], settings(), before);
    let done = show.letters.done(5).await;
    assert_eq!(done[2..], [1, 2, 3], "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_fails_holds_its_conversation_until_its_time_comes() {
    let stage = Stage::new(vec![Line::Text("x")]);
    stage.model.first.lock().unwrap().push_back(Line::Error(ModelErrorKind::Unreachable));
    let started = Instant::now();
    let show =
        Show::new(stage, vec![spec("ada")], settings(), vec![told(1, "one"), told(2, "one"), told(3, "two")]);
    assert_eq!(show.letters.done(3).await, [3, 1, 2]);
    let took = started.elapsed().as_millis();
    assert!((100..110).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_to_wait_after_a_restart_waits() {
    let stage = Stage::new(vec![Line::Text("x")]);
    let not_before = super::super::circuit::later(stage.world.clock.now(), Duration::from_secs(3));
    let waiting = Delivery { not_before: Some(not_before), ..told(1, "one") };
    let started = Instant::now();
    let show = Show::new(stage, vec![spec("ada")], settings(), vec![waiting, told(2, "one"), told(3, "two")]);
    assert_eq!(show.letters.done(3).await, [3, 1, 2]);
    assert_eq!(started.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn turns_run_beside_each_other_within_the_limits() {
    for (all, each, seconds) in [(100, 100, 1), (2, 100, 3), (100, 3, 2)] {
        let stage = Stage::new(vec![Line::After(Duration::from_secs(1), "x")]);
        let mut spec = spec("ada");
        spec.limits.conversations_max = each;
        let limits = Settings { turns_max: all, ..settings() };
        let started = Instant::now();
        let before = (1..=6).map(|seq| told(seq, &format!("c{seq}"))).collect();
        let show = Show::new(stage, vec![spec], limits, before);
        show.letters.done(6).await;
        assert_eq!(started.elapsed().as_secs(), seconds, "{all} {each}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_hangs_or_breaks_stops_nobody_else() {
    let stage = Stage::new(vec![Line::Text("x")]);
    stage.model.first.lock().unwrap().extend([Line::Hang, Line::Panic]);
    let mut before: Vec<Delivery> = (1..=2).map(|seq| told(seq, &format!("c{seq}"))).collect();
    before.extend(
        (3..=20).map(|seq| delivery("sue", seq, said_in(&format!("c{seq}"), Priority::Normal, "go"))),
    );
    let started = Instant::now();
    let show = Show::new(stage, vec![spec("ada"), spec("sue")], settings(), before);
    let done = show.letters.done(18).await;
    assert!(done.iter().all(|seq| *seq > 1), "{done:?}");
    assert!(started.elapsed() < Duration::from_secs(1));
    show.letters.done(20).await;
    assert_eq!(started.elapsed().as_secs(), 30, "the one that hangs is given up in its time");
}

#[tokio::test(start_paused = true)]
async fn memory_is_searched_once_for_a_batch() {
    for (together, searches) in [(true, vec![10, 10, 5]), (false, vec![1; 25])] {
        let stage = Stage::new(vec![Line::Text("x")]);
        let mut rules = settings();
        rules.batch.search_together = together;
        let before = (1..=25).map(|seq| told(seq, &format!("c{seq}"))).collect();
        let show = Show::new(stage, vec![spec("ada")], rules, before);
        show.letters.done(25).await;
        assert_eq!(*show.stage.known.searches.lock().unwrap(), searches);
    }
}

#[tokio::test(start_paused = true)]
async fn so_many_conversations_of_a_batch_are_prepared_at_a_time() {
    for (parallel, seconds) in [(1, 8), (4, 2), (100, 1)] {
        let stage = Stage::new(vec![Line::Text("x")]);
        *stage.known.takes.lock().unwrap() = Duration::from_secs(1);
        let mut rules = settings();
        rules.batch.parallel = parallel;
        let before = (1..=8).map(|seq| told(seq, &format!("c{seq}"))).collect();
        let started = Instant::now();
        let show = Show::new(stage, vec![spec("ada")], rules, before);
        show.letters.done(8).await;
        assert_eq!(started.elapsed().as_secs(), seconds, "{parallel}");
    }
}

#[test]
fn the_scheduler_does_what_the_configuration_says() {
    let text = "server: {max_concurrent_conversations: 7, shutdown_timeout: 8s}\n\
                agents: {circuit_failures: 9, circuit_pause: 11s}\n\
                conversation_processing: {batch_size: 12, batch_timeout: 13ms, parallel_conversations: 14, \
                memory_batch_search: false}\n";
    let settings = Settings::from(&crate::config::load_text(text).unwrap().config);
    assert_eq!((settings.turns_max, settings.drain), (7, Duration::from_secs(8)));
    assert_eq!((settings.breaker.failures, settings.breaker.open_for), (9, Duration::from_secs(11)));
    let batch =
        BatchRules { size: 12, timeout: Duration::from_millis(13), parallel: 14, search_together: false };
    assert_eq!(settings.batch, batch);
}

#[tokio::test(start_paused = true)]
async fn a_circuit_opens_is_tried_after_its_time_and_closes() {
    let stage = Stage::new(vec![Line::Text("x")]);
    stage.model.first.lock().unwrap().extend(vec![Line::Error(ModelErrorKind::Refused); 3]);
    let before = (1..=6).map(|seq| told(seq, "one")).collect();
    let started = Instant::now();
    let show = Show::new(stage, vec![spec("ada")], settings(), before);
    assert_eq!(show.letters.done(3).await, [1, 2, 3]);
    assert_eq!(show.stage.model.asked(), 3);
    assert_eq!(show.letters.done(6).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(started.elapsed().as_secs(), 60);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(circuits(&show.stage), [(Circuit::Open, 3), (Circuit::HalfOpen, 3), (Circuit::Closed, 0)]);
}

/// The states of circuits that were recorded, with their failures in a row.
fn circuits(stage: &Stage) -> Vec<(Circuit, u32)> {
    let drafts = stage.log.drafts.lock().unwrap();
    let circuits = drafts.iter().filter_map(|draft| {
        let Event::Agent(AgentEvent::CircuitChanged { circuit, failures, .. }) = &draft.event else {
            return None;
        };
        Some((*circuit, *failures))
    });
    circuits.collect()
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_gone_says_nothing_about_an_agent_that_is_broken() {
    let stage = Stage::new(vec![Line::Error(ModelErrorKind::Refused)]);
    let before = (1..=5).map(|seq| told(seq, "one")).collect();
    let show = Show::new(stage, vec![spec("ada")], settings(), before);
    show.letters.gone.lock().unwrap().push(4);
    assert_eq!(show.letters.done(5).await, [1, 2, 3, 4, 5]);
    sleep(Duration::from_millis(1)).await;
    let then = [
        (Circuit::Open, 3),
        (Circuit::HalfOpen, 3),
        // The fourth was no trial: the fifth is, and fails.
        (Circuit::Open, 3),
        (Circuit::HalfOpen, 3),
        (Circuit::Open, 4),
    ];
    assert_eq!(circuits(&show.stage), then);
    assert_eq!(show.stage.model.asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_clients_do_opens_no_circuit() {
    let stage = Stage::new(vec![Line::Text("done")]);
    *stage.sent.refuse.lock().unwrap() = Some("the conversation is closed".to_owned());
    let before = (1..=5).map(|seq| told(seq, "one")).collect();
    let show = Show::new(stage, vec![spec("ada")], settings(), before);
    assert_eq!(show.letters.done(5).await, [1, 2, 3, 4, 5]);
    sleep(Duration::from_millis(1)).await;
    assert!(circuits(&show.stage).is_empty(), "{:?}", circuits(&show.stage));
}

#[tokio::test(start_paused = true)]
async fn messages_wait_for_a_provider_that_is_left_alone_and_none_is_given_up() {
    let stage = Stage::new(vec![Line::Text("x")]);
    // Each of the six is turned away more often than a message is tried.
    stage.model.first.lock().unwrap().extend(vec![Line::Away(Duration::from_secs(3)); 30]);
    let before = (1..=6).map(|seq| told(seq, &format!("c{seq}"))).collect();
    let started = Instant::now();
    let show = Show::new(stage, vec![spec("ada")], settings(), before);
    let mut done = show.letters.done(6).await;
    done.sort_unstable();
    assert_eq!(done, [1, 2, 3, 4, 5, 6]);
    assert_eq!((started.elapsed().as_secs(), show.stage.model.asked()), (15, 36));
    assert_eq!(show.stage.sent.lines(), ["ada to bob: INFORM x"; 6]);
    let words = show.stage.log.words();
    for word in ["turn.model_failed", "turn.failed", "conversation.delivery_retried", "agent.circuit_changed"]
    {
        assert!(!words.contains(&word), "{word}");
    }
    assert_eq!(words.iter().filter(|word| **word == "turn.started").count(), 6, "each has its first attempt");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_left_alone_says_nothing_about_the_agent_that_is_tried() {
    let stage = Stage::new(vec![Line::Text("x")]);
    let mut lines = vec![Line::Error(ModelErrorKind::Refused); 3];
    lines.push(Line::Away(Duration::from_secs(3)));
    stage.model.first.lock().unwrap().extend(lines);
    let started = Instant::now();
    let before = (1..=4).map(|seq| told(seq, "one")).collect();
    let show = Show::new(stage, vec![spec("ada")], settings(), before);
    assert_eq!(show.letters.done(4).await, [1, 2, 3, 4]);
    assert_eq!(
        started.elapsed().as_secs(),
        63,
        "it is tried again when the provider is, and not a pause later"
    );
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_provider_can_be_taken_back() {
    let stage = Stage::new(vec![Line::Away(Duration::from_mins(10))]);
    let started = Instant::now();
    let show = Show::new(stage, vec![spec("ada")], settings(), vec![told(1, "one")]);
    sleep(Duration::from_secs(1)).await;
    show.letters.add(cancel(2, "one", None));
    assert_eq!(show.letters.done(2).await, [1, 2]);
    assert!(started.elapsed() < Duration::from_secs(30), "the provider is not waited for");
    assert_eq!(show.stage.sent.lines(), ["ada to bob: INFORM #1 is taken back; nothing of it was done"]);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_without_a_name_tells_all_that_it_took_back() {
    for (last, then) in [
        (4, "; taken back with it: #3, #4"),
        (14, "; taken back with it: #3, #4, #5, #6, #7, #8, #9, #10, #11, #12 and 2 more"),
    ] {
        let stage = Stage::new(vec![Line::After(Duration::from_secs(5), "slow")]);
        let mut before = vec![told(1, "one")];
        before.extend((2..=last).map(|seq| told(seq, "two")));
        before.push(cancel(last + 1, "two", None));
        let limits = Settings { turns_max: 1, ..settings() };
        let show = Show::new(stage, vec![spec("ada")], limits, before);
        show.letters.done(usize::try_from(last).unwrap() + 1).await;
        let mut sent = show.stage.sent.lines();
        sent.sort();
        let words = format!("ada to bob: INFORM #2 is taken back; nothing of it was done{then}");
        assert_eq!(sent, [words.as_str(), "ada to bob: INFORM slow"]);
    }
}

/// bob takes back what he asked in a conversation, or the message with this word.
fn cancel(seq: u64, conversation: &str, word: Option<&str>) -> Delivery {
    let said = said_in(conversation, Priority::Normal, "never mind");
    let in_reply_to = word.map(str::to_owned);
    delivery("ada", seq, Message { performative: Performative::Cancel, in_reply_to, ..said })
}

const TOO_LATE: &str =
    "ada to bob: FAILURE there is nothing to take back: it was answered or given up before, or never came";

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_is_taken_out_and_its_sender_is_told() {
    let stage = Stage::new(vec![Line::After(Duration::from_secs(5), "slow")]);
    let before = vec![told(1, "one"), told(2, "two"), cancel(3, "two", None), told(4, "two")];
    let limits = Settings { turns_max: 1, ..settings() };
    let show = Show::new(stage, vec![spec("ada")], limits, before);
    assert_eq!(show.letters.done(4).await, [1, 2, 3, 4]);
    assert_eq!(show.stage.model.asked(), 2, "nobody thinks about what was taken back, or about a CANCEL");
    let mut sent = show.stage.sent.lines();
    sent.sort();
    let taken_back = "ada to bob: INFORM #2 is taken back; nothing of it was done";
    assert_eq!(sent, [taken_back, "ada to bob: INFORM slow", "ada to bob: INFORM slow"]);
    assert!(!show.stage.log.words().contains(&"conversation.message_dead_lettered"));
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_stops_before_its_next_step() {
    let tools = Line::Calls(vec![call("a", "memory")]);
    let stage = Stage::new(vec![tools, Line::Hang]);
    let started = Instant::now();
    let named = |seq, word: &str| {
        let said = said_in("one", Priority::Normal, "go");
        delivery("ada", seq, Message { reply_with: Some(word.to_owned()), ..said })
    };
    let show = Show::new(stage, vec![spec("ada")], settings(), vec![named(1, "q1"), named(2, "q2")]);
    sleep(Duration::from_millis(500)).await;
    show.letters.add(cancel(3, "one", Some("q1")));
    show.letters.add(cancel(4, "one", Some("q2")));
    show.letters.add(cancel(5, "one", Some("q1")));
    assert_eq!(show.letters.done(5).await, [1, 2, 3, 4, 5]);
    assert!(started.elapsed() < Duration::from_secs(30), "the model is not waited for");
    let mut sent = show.stage.sent.lines();
    sent.sort();
    let then = [
        TOO_LATE,
        "ada to bob: INFORM #1 is taken back; a tool had been called by then",
        "ada to bob: INFORM #2 is taken back; nothing of it was done",
    ];
    assert_eq!(sent, then, "each CANCEL has one answer, and the requests have none");
    assert_eq!(show.stage.log.words().last(), Some(&"turn.failed"));
}

#[tokio::test(start_paused = true)]
async fn a_request_is_taken_back_by_its_number_in_any_spelling() {
    let stage = Stage::new(vec![Line::Hang]);
    let id = MessageId::from_bytes([0xab; 16]);
    let request = delivery("ada", 1, Message { id, ..said_in("one", Priority::Normal, "go") });
    let show = Show::new(stage, vec![spec("ada")], settings(), vec![request]);
    sleep(Duration::from_millis(500)).await;
    show.letters.add(cancel(2, "one", Some(&id.to_string().to_uppercase())));
    assert_eq!(show.letters.done(2).await, [1, 2]);
    assert_eq!(show.stage.sent.lines(), ["ada to bob: INFORM #1 is taken back; nothing of it was done"]);
}

#[tokio::test(start_paused = true)]
async fn only_the_sender_takes_back_and_what_was_answered_stays() {
    let stage = Stage::new(vec![Line::Echo]);
    let said = said_in("one", Priority::Normal, "never mind");
    let sender = "eve".parse().unwrap();
    let by_another = Message { performative: Performative::Cancel, sender, ..said };
    let before = vec![told(1, "one"), delivery("ada", 2, by_another), told(3, "two")];
    let show = Show::new(stage, vec![spec("ada")], settings(), before);
    show.letters.done(3).await;
    show.letters.add(cancel(4, "two", None));
    show.letters.done(4).await;
    let sent = show.stage.sent.lines();
    assert_eq!(sent.iter().filter(|line| *line == "ada to bob: INFORM go").count(), 2, "{sent:?}");
    assert!(
        sent.contains(&TOO_LATE.to_owned()) && sent.contains(&TOO_LATE.replace("bob", "eve")),
        "{sent:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn taking_back_needs_no_circuit_and_no_second_attempt() {
    let stage = Stage::new(vec![Line::Error(ModelErrorKind::Refused)]);
    let again = ModelErrorKind::RateLimited { retry_after: Some(Duration::from_mins(10)) };
    stage.model.first.lock().unwrap().push_back(Line::Error(again));
    let mut before = vec![told(1, "one")];
    before.extend((2..=5).map(|seq| told(seq, "two")));
    let started = Instant::now();
    let show = Show::new(stage, vec![spec("ada")], settings(), before);
    sleep(Duration::from_secs(1)).await;
    show.letters.add(cancel(6, "one", None));
    show.letters.add(cancel(7, "two", None));
    show.letters.done(7).await;
    assert!(started.elapsed() < Duration::from_secs(30), "neither the pause nor the provider is waited for");
    let words = show.stage.log.words();
    assert_eq!(words.iter().filter(|word| **word == "agent.circuit_changed").count(), 1, "it stays open");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_a_critical_message_overtakes_it() {
    let stage = Stage::new(vec![Line::After(Duration::from_secs(1), "x")]);
    let rules = Settings { turns_max: 1, ..settings() };
    let capability = "batch-processing".parse().unwrap();
    let job = |seq: u64| {
        let said = said_in(&format!("c{seq}"), Priority::Normal, "go");
        delivery("ada", seq, asked_for("batch-processing", said))
    };
    let show = Show::new(stage, vec![spec("ada")], rules, (1..=2_500).map(job).collect());
    sleep(Duration::from_millis(500)).await;
    let full = show.scheduler.check(Some(&capability), Priority::Critical, &[]).unwrap_err();
    assert_eq!((full.queue.as_str(), full.size), ("background", 2_000));
    assert!(show.scheduler.check(None, Priority::Critical, &[]).is_ok());
    show.letters.add(delivery("ada", 9_999, said_in("urgent", Priority::Critical, "help")));
    assert_eq!(show.letters.done(2).await[1], 9_999, "it is the next");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_fails_delays_turns_and_loses_none() {
    let stage = Stage::new(vec![Line::Text("x")]);
    stage.log.full_at.store(2, std::sync::atomic::Ordering::SeqCst);
    let show = Show::new(stage, vec![spec("ada")], settings(), vec![told(1, "one"), told(2, "one")]);
    sleep(Duration::from_millis(2_500)).await;
    assert!(show.letters.done.lock().unwrap().is_empty());
    show.stage.log.full_at.store(usize::MAX, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(show.letters.done(2).await, [1, 2]);
    assert_eq!(show.stage.sent.lines().len(), 2);
    assert!(!show.stage.log.words().contains(&"agent.circuit_changed"), "the agent is not to blame");
}

#[tokio::test(start_paused = true)]
async fn a_turn_of_a_conversation_that_is_being_erased_is_not_tried_again_each_second() {
    let stage = Stage::new(vec![Line::Text("x")]);
    stage.log.erasing.store(true, std::sync::atomic::Ordering::SeqCst);
    let started = Instant::now();
    let show = Show::new(stage, vec![spec("ada")], settings(), vec![told(1, "one")]);
    sleep(Duration::from_millis(500)).await;
    show.stage.log.erasing.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(show.letters.done(1).await, [1]);
    assert_eq!(started.elapsed().as_secs(), ERASURE_WAIT.as_secs());
    assert!(!show.stage.log.words().contains(&"agent.circuit_changed"), "the agent is not to blame");
}

#[tokio::test(start_paused = true)]
async fn a_removed_agent_takes_nothing_more_and_its_messages_go_back() {
    let stage = Stage::new(vec![Line::After(Duration::from_secs(1), "x")]);
    let before = vec![told(1, "one"), told(2, "one"), told(3, "one")];
    let show = Show::new(stage, vec![spec("ada")], settings(), before);
    sleep(Duration::from_millis(500)).await;
    show.agents.remove(&"ada".parse().unwrap());
    assert_eq!(show.letters.done(1).await, [1], "what it has begun is finished");
    show.letters.add(told(4, "one"));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(*show.letters.given_back.lock().unwrap(), [2, 3, 4]);
    assert_eq!(show.stage.model.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn turns_under_way_use_the_version_they_began_with() {
    let lines = vec![Line::Calls(vec![call("a", "http_client")]), Line::After(Duration::from_secs(1), "x")];
    let show = Show::new(Stage::new(lines), vec![spec("ada")], settings(), vec![told(1, "one")]);
    sleep(Duration::from_millis(500)).await;
    let mut changed = spec("ada");
    changed.config = Seq(2);
    changed.system_prompt = "New.".to_owned();
    show.agents.put(Agent::new(changed).unwrap());
    show.letters.done(1).await;
    show.letters.add(told(2, "one"));
    show.letters.done(2).await;
    let asks = show.stage.model.asks.lock().unwrap();
    let said: Vec<bool> = asks.iter().map(|ask| ask.system.starts_with("New.")).collect();
    assert_eq!(said, [false, false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_turns_finish_and_cuts_off_those_that_do_not() {
    let stage = Stage::new(vec![Line::Text("x")]);
    let slow = |seconds| Line::After(Duration::from_secs(seconds), "slow");
    stage.model.first.lock().unwrap().extend([slow(5), slow(25)]);
    let before = vec![told(1, "one"), told(2, "two"), told(3, "one")];
    let show = Show::new(stage, vec![spec("ada")], settings(), before);
    sleep(Duration::from_millis(500)).await;
    let (letters, started) = (show.letters.clone(), Instant::now());
    let log = show.stage.log.clone();
    assert_eq!(show.end().await, 1);
    assert_eq!(started.elapsed().as_secs(), 20);
    assert_eq!(*letters.done.lock().unwrap(), [1], "nothing new is begun");
    assert!(
        !log.words().contains(&"turn.failed"),
        "what is cut off is not failed: it goes on at the next start"
    );
}

#[tokio::test(start_paused = true)]
async fn information_is_acknowledged_without_an_answer() {
    let told = Message { performative: Performative::Inform, ..message("it rains") };
    let show = Show::new(
        Stage::new(vec![Line::Text("ok")]),
        vec![spec("ada")],
        settings(),
        vec![delivery("ada", 1, told)],
    );
    assert_eq!(show.letters.done(1).await, [1]);
    assert!(show.stage.sent.lines().is_empty());
}
