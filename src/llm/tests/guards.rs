//! Retries, limits, breaker, chain and cache, with time and chance of the test's own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Always, ManualClock, ask, call, question, said};
use crate::llm::cache::{Cache, CacheOptions, Cached};
use crate::llm::fallback::Fallback;
use crate::llm::resilient::{BreakerOptions, Resilience, Resilient};
use crate::llm::{Answer, Ask, Fact, LanguageModel, ModelError, ModelErrorKind, Pieces, Role};

/// A model that does what a list says, and then answers.
#[derive(Debug, Default)]
struct Planned {
    name: &'static str,
    plan: Mutex<VecDeque<(&'static str, ModelErrorKind)>>,
    asked: Mutex<Vec<Ask>>,
}

impl Planned {
    /// Each failure says a text before it fails.
    fn new(name: &'static str, failures: &[(&'static str, ModelErrorKind)]) -> Arc<Self> {
        let plan = Mutex::new(failures.iter().copied().collect());
        Arc::new(Self { name, plan, asked: Mutex::default() })
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl LanguageModel for Planned {
    fn provider(&self) -> &str {
        self.name
    }

    fn ask<'a>(&'a self, ask: &'a Ask, pieces: Pieces<'a>) -> BoxFuture<'a, Result<Answer, ModelError>> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(ask.clone());
            let next = self.plan.lock().unwrap().pop_front();
            if let Some((text, kind)) = next {
                if !text.is_empty() {
                    pieces(text);
                }
                return Err(ModelError::new(self.name, kind, kind.as_str()));
            }
            pieces("done");
            let text = "done".to_owned();
            Ok(Answer { text, provider: self.name.to_owned(), ..Answer::default() })
        })
    }
}

const FAILED: (&str, ModelErrorKind) = ("", ModelErrorKind::Failed);
const BUSY: fn(u64) -> (&'static str, ModelErrorKind) =
    |seconds| ("", ModelErrorKind::RateLimited { retry_after: Some(Duration::from_secs(seconds)) });

const RESILIENCE: Resilience = Resilience {
    retries: 3,
    retry_delay: Duration::from_secs(1),
    retry_delay_max: Duration::from_secs(3),
    concurrent_max: 1,
    waiting_max: 1,
    breaker: BreakerOptions { failures: 5, pause: Duration::from_mins(1), successes: 1 },
};

fn resilient(model: Arc<dyn LanguageModel>, clock: &Arc<ManualClock>, chance: f64) -> Resilient {
    let clock: Arc<ManualClock> = Arc::clone(clock);
    Resilient::new(model, RESILIENCE, clock, Arc::new(Always(chance)))
}

#[tokio::test]
async fn waits_grow_and_are_left_half_to_chance() {
    for (chance, waits) in [(0.0, [500, 1_000, 1_500]), (1.0, [1_000, 2_000, 3_000])] {
        let (clock, model) = (Arc::new(ManualClock::default()), Planned::new("p", &[FAILED; 3]));
        let answer = ask(&resilient(model.clone(), &clock, chance), &question("tea")).await.0.unwrap();
        assert_eq!(answer.text, "done");
        assert_eq!(clock.slept(), waits.map(Duration::from_millis));
    }
}

#[tokio::test]
async fn what_cannot_be_helped_is_not_repeated() {
    let refused = ("", ModelErrorKind::Refused);
    for (plan, asked, waits) in [
        (vec![refused], 1, vec![]),
        (vec![FAILED, refused], 2, vec![1]),
        (vec![FAILED; 9], 4, vec![1, 2, 3]),
        // A wait that the provider names is kept, a longer one than ours is not waited for.
        (vec![BUSY(2), FAILED, FAILED, FAILED], 4, vec![2, 2, 3]),
        (vec![BUSY(4)], 1, vec![]),
    ] {
        let (clock, model) = (Arc::new(ManualClock::default()), Planned::new("p", &plan));
        let error = ask(&resilient(model.clone(), &clock, 1.0), &question("tea")).await.0.unwrap_err();
        assert_eq!(error.kind, plan[asked - 1].1, "{plan:?}");
        assert_eq!(model.asked(), asked, "{plan:?}");
        let waits: Vec<Duration> = waits.into_iter().map(Duration::from_secs).collect();
        assert_eq!(clock.slept(), waits, "{plan:?}");
    }
}

#[tokio::test]
async fn a_second_attempt_is_silent_when_the_first_was_heard() {
    let half = ("do", ModelErrorKind::Failed);
    for (plan, heard) in [(vec![half], "do"), (vec![FAILED], "done"), (vec![FAILED, half, half], "do")] {
        let (clock, model) = (Arc::new(ManualClock::default()), Planned::new("p", &plan));
        let (answered, pieces) = ask(&resilient(model, &clock, 0.0), &question("tea")).await;
        assert_eq!((answered.unwrap().text.as_str(), pieces.concat().as_str()), ("done", heard), "{plan:?}");
    }
}

#[tokio::test]
async fn a_provider_that_fails_too_often_is_left_alone_for_a_while() {
    let (clock, model) = (Arc::new(ManualClock::default()), Planned::new("p", &[FAILED; 5]));
    let guarded = resilient(model.clone(), &clock, 0.0);
    assert_eq!(ask(&guarded, &question("1")).await.0.unwrap_err().kind, ModelErrorKind::Failed);
    // The fifth failure opens it; what the provider said is told, not that it is left alone now.
    let error = ask(&guarded, &question("2")).await.0.unwrap_err();
    assert_eq!((error.kind, model.asked()), (ModelErrorKind::Failed, 5));
    let error = ask(&guarded, &question("3")).await.0.unwrap_err();
    assert!(error.message.contains("circuit open"), "{error}");
    assert!(matches!(error.kind, ModelErrorKind::RateLimited { retry_after: Some(_) }), "{error:?}");
    assert_eq!(model.asked(), 5, "it was not asked");
    clock.advance(Duration::from_mins(1));
    assert_eq!(ask(&guarded, &question("4")).await.0.unwrap().text, "done");
    assert_eq!(ask(&guarded, &question("5")).await.0.unwrap().text, "done");
}

#[tokio::test]
async fn whoever_answers_nonsense_is_not_left_alone() {
    let garbled = ("", ModelErrorKind::Garbled);
    let (clock, model) = (Arc::new(ManualClock::default()), Planned::new("p", &[garbled; 12]));
    let guarded = resilient(model.clone(), &clock, 0.0);
    for number in 1..=3 {
        let error = ask(&guarded, &question("1")).await.0.unwrap_err();
        assert_eq!((error.kind, model.asked()), (ModelErrorKind::Garbled, 4 * number));
    }
    assert_eq!(ask(&guarded, &question("2")).await.0.unwrap().text, "done");
}

#[tokio::test]
async fn the_request_that_failed_last_is_not_the_first_to_try_again() {
    let (clock, model) = (Arc::new(ManualClock::default()), Planned::new("p", &[FAILED; 5]));
    let guarded = resilient(model.clone(), &clock, 0.0);
    for _ in 0..2 {
        assert!(ask(&guarded, &question("bad")).await.0.is_err());
    }
    clock.advance(Duration::from_mins(1));
    let error = ask(&guarded, &question("bad")).await.0.unwrap_err();
    assert!(matches!(error.kind, ModelErrorKind::RateLimited { retry_after: Some(_) }), "{error:?}");
    assert_eq!(ask(&guarded, &question("good")).await.0.unwrap().text, "done");
    assert_eq!(ask(&guarded, &question("bad")).await.0.unwrap().text, "done", "all is well again");
}

/// A model that answers when it is let.
#[derive(Debug)]
struct Gated(Semaphore);

impl LanguageModel for Gated {
    fn provider(&self) -> &'static str {
        "gated"
    }

    fn ask<'a>(&'a self, _: &'a Ask, _: Pieces<'a>) -> BoxFuture<'a, Result<Answer, ModelError>> {
        Box::pin(async {
            self.0.acquire().await.unwrap().forget();
            Ok(Answer::default())
        })
    }
}

/// A model that fails once, and then answers when it is let.
#[derive(Debug)]
struct Recovering {
    failed: AtomicBool,
    gate: Semaphore,
}

impl LanguageModel for Recovering {
    fn provider(&self) -> &'static str {
        "recovering"
    }

    fn ask<'a>(&'a self, _: &'a Ask, _: Pieces<'a>) -> BoxFuture<'a, Result<Answer, ModelError>> {
        Box::pin(async {
            if !self.failed.swap(true, Ordering::Relaxed) {
                return Err(ModelError::new("recovering", ModelErrorKind::Failed, "away"));
            }
            self.gate.acquire().await.unwrap().forget();
            Ok(Answer::default())
        })
    }
}

#[tokio::test]
async fn who_comes_while_one_tries_is_told_a_time_and_that_nobody_was_asked() {
    let model = Arc::new(Recovering { failed: AtomicBool::new(false), gate: Semaphore::new(0) });
    let clock = Arc::new(ManualClock::default());
    let breaker = BreakerOptions { failures: 1, ..RESILIENCE.breaker };
    let options = Resilience { retries: 0, concurrent_max: 9, breaker, ..RESILIENCE };
    let guarded = Resilient::new(model.clone(), options, clock.clone(), Arc::new(Always(0.0)));
    assert!(ask(&guarded, &question("1")).await.0.unwrap_err().asked);
    clock.advance(Duration::from_millis(59_980));
    let error = ask(&guarded, &question("2")).await.0.unwrap_err();
    assert!(!error.asked && error.message.contains("tried again in 0.1 s"), "{error}");
    clock.advance(Duration::from_millis(20));
    let (tries, other) = (question("3"), question("4"));
    let mut first = guarded.ask(&tries, &|_| ());
    assert!(step(&mut first).is_none());
    let error = step(&mut guarded.ask(&other, &|_| ())).unwrap().unwrap_err();
    let wait = ModelErrorKind::RateLimited { retry_after: Some(Duration::from_secs(3)) };
    assert_eq!((error.asked, error.kind), (false, wait));
    model.gate.add_permits(2);
    assert!(first.await.is_ok());
    assert!(ask(&guarded, &other).await.0.is_ok(), "all go on");
    // A chain asked somebody when one of its providers was asked.
    let chain = Fallback::new(Planned::new("a", &[FAILED]), vec![Arc::new(AwayModel)]);
    assert!(ask(&chain, &question("5")).await.0.unwrap_err().asked);
    assert!(!ask(&AwayModel, &question("5")).await.0.unwrap_err().asked);
}

/// A model that is never asked.
#[derive(Debug)]
struct AwayModel;

impl LanguageModel for AwayModel {
    fn provider(&self) -> &'static str {
        "away"
    }

    fn ask<'a>(&'a self, _: &'a Ask, _: Pieces<'a>) -> BoxFuture<'a, Result<Answer, ModelError>> {
        let kind = ModelErrorKind::RateLimited { retry_after: None };
        let error = ModelError { asked: false, ..ModelError::new("away", kind, "left alone") };
        Box::pin(async move { Err(error) })
    }
}

/// Runs `future` until it waits for something; `None` then.
fn step<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    use futures::FutureExt as _;
    future.now_or_never()
}

#[tokio::test]
async fn more_than_the_queue_holds_are_turned_away_at_once_and_who_leaves_makes_room() {
    let gate = Arc::new(Gated(Semaphore::new(0)));
    let clock = Arc::new(ManualClock::default());
    let guarded = resilient(gate.clone(), &clock, 0.0);
    let asked = question("tea");
    let (mut first, mut second) = (guarded.ask(&asked, &|_| ()), guarded.ask(&asked, &|_| ()));
    assert!(step(&mut first).is_none() && step(&mut second).is_none());
    let error = step(&mut guarded.ask(&asked, &|_| ())).unwrap().unwrap_err();
    assert!(error.message.contains("max_waiting"), "{error}");
    assert!(matches!(error.kind, ModelErrorKind::RateLimited { retry_after: Some(_) }));
    drop(second);
    let mut third = guarded.ask(&asked, &|_| ());
    assert!(step(&mut third).is_none(), "the one who left made room");
    drop(first);
    assert!(step(&mut third).is_none());
    gate.0.add_permits(1);
    assert!(third.await.is_ok(), "the one who was asked and left gave its place back");
    assert_eq!(clock.slept(), []);
}

/// A question of somebody who waits so many seconds.
fn within(seconds: u64, text: &str) -> Ask {
    Ask { until: Some(Instant::now() + Duration::from_secs(seconds)), ..question(text) }
}

/// `model`, left alone after its first failure.
fn fused(model: Arc<dyn LanguageModel>) -> Resilient {
    let breaker = BreakerOptions { failures: 1, ..RESILIENCE.breaker };
    let options = Resilience { breaker, ..RESILIENCE };
    Resilient::new(model, options, Arc::new(ManualClock::default()), Arc::new(Always(0.0)))
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_is_turned_away_while_there_is_time() {
    let guarded = fused(Arc::new(Gated(Semaphore::new(0))));
    let first = question("1");
    let mut first = guarded.ask(&first, &|_| ());
    assert!(step(&mut first).is_none());
    let began = Instant::now();
    let error = ask(&guarded, &within(10, "2")).await.0.unwrap_err();
    let wait = ModelErrorKind::RateLimited { retry_after: Some(Duration::from_secs(1)) };
    assert_eq!((error.asked, error.kind, began.elapsed().as_secs()), (false, wait, 5));
    assert!(error.message.contains("max_concurrent"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_provider_leaves_time_for_the_next_one_and_is_left_alone() {
    let silent = Arc::new(fused(Arc::new(Gated(Semaphore::new(0)))));
    // Who had little time says nothing about it.
    for _ in 0..2 {
        let error = ask(&*silent, &within(4, "tea")).await.0.unwrap_err();
        assert_eq!((error.asked, error.kind), (true, ModelErrorKind::Timeout));
    }
    let chain = Fallback::new(silent, vec![Planned::new("b", &[])]);
    for seconds in [15, 0] {
        let began = Instant::now();
        let answer = ask(&chain, &within(30, "tea")).await.0.unwrap();
        assert_eq!((answer.provider.as_str(), began.elapsed().as_secs()), ("b", seconds));
    }
}

/// A model that says this at once, and the rest after so many seconds.
#[derive(Debug)]
struct Slow(&'static str, u64);

impl LanguageModel for Slow {
    fn provider(&self) -> &'static str {
        "slow"
    }

    fn ask<'a>(&'a self, _: &'a Ask, pieces: Pieces<'a>) -> BoxFuture<'a, Result<Answer, ModelError>> {
        Box::pin(async move {
            pieces(self.0);
            tokio::time::sleep(Duration::from_secs(self.1)).await;
            pieces("ne");
            Ok(Answer { provider: "slow".to_owned(), ..Answer::default() })
        })
    }
}

#[tokio::test(start_paused = true)]
async fn who_speaks_is_not_given_up_for_the_next_one_nor_left_alone_for_being_slow() {
    // Who thinks, or says what it calls, says nothing that others hear.
    for (first, takes, seconds, heard) in
        [("do", 20, 20, &["do", "ne"][..]), ("do", 40, 30, &["do"]), ("", 20, 20, &["ne"]), ("", 40, 30, &[])]
    {
        let (slow, other) = (Arc::new(fused(Arc::new(Slow(first, takes)))), Planned::new("b", &[]));
        let chain = Fallback::new(slow.clone(), vec![other.clone()]);
        let began = Instant::now();
        let (answered, pieces) = ask(&chain, &within(30, "tea")).await;
        assert_eq!((answered.is_ok(), began.elapsed().as_secs()), (takes < 30, seconds));
        assert_eq!(
            (pieces.iter().map(String::as_str).collect::<Vec<_>>(), other.asked()),
            (heard.to_vec(), 0)
        );
        assert_eq!(ask(&*slow, &within(60, "tea")).await.0.unwrap().provider, "slow");
    }
}

/// A model that answers one after the other, each in so many seconds.
#[derive(Debug)]
struct OneByOne(Semaphore, u64);

impl LanguageModel for OneByOne {
    fn provider(&self) -> &'static str {
        "one by one"
    }

    fn ask<'a>(&'a self, _: &'a Ask, _: Pieces<'a>) -> BoxFuture<'a, Result<Answer, ModelError>> {
        Box::pin(async {
            let _turn = self.0.acquire().await.unwrap();
            tokio::time::sleep(Duration::from_secs(self.1)).await;
            Ok(Answer::default())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_is_not_left_alone_for_those_who_have_too_little_time_for_it() {
    let breaker = BreakerOptions { failures: 2, ..RESILIENCE.breaker };
    let options = Resilience { retries: 0, concurrent_max: 9, breaker, ..RESILIENCE };
    // Where the first has no answer either, all who wait together are one failure.
    for (takes, answers) in [(10, 2), (31, 0)] {
        let model = Arc::new(OneByOne(Semaphore::new(1), takes));
        let (clock, chance) = (Arc::new(ManualClock::default()), Arc::new(Always(0.0)));
        let guarded = Resilient::new(model.clone(), options, clock, chance);
        let asked = within(29, "tea");
        let answered = futures::future::join_all((0..8).map(|_| ask(&guarded, &asked))).await;
        assert_eq!(answered.iter().filter(|(answered, _)| answered.is_ok()).count(), answers);
        assert!(ask(&guarded, &within(60, "tea")).await.0.is_ok());
        // It is known by now how long it takes.
        for _ in 0..9 {
            let error = ask(&guarded, &within(6, "tea")).await.0.unwrap_err();
            assert_eq!((error.asked, error.kind), (true, ModelErrorKind::Timeout));
        }
        assert_eq!(model.0.forget_permits(1), 1, "now it hangs");
        for was_asked in [true, true, false] {
            let error = ask(&guarded, &within(45, "tea")).await.0.unwrap_err();
            assert_eq!(error.asked, was_asked, "{error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_repeated_that_would_come_too_late() {
    let (clock, model) = (Arc::new(ManualClock::default()), Planned::new("p", &[FAILED; 3]));
    let error = ask(&resilient(model.clone(), &clock, 1.0), &within(2, "tea")).await.0.unwrap_err();
    assert_eq!((error.kind, model.asked()), (ModelErrorKind::Failed, 2));
    assert_eq!(clock.slept(), [Duration::from_secs(1)]);
}

#[tokio::test]
async fn a_stand_in_that_refuses_makes_nothing_final() {
    let refuses = || Planned::new("b", &[("", ModelErrorKind::Refused)]);
    let firsts: [(Arc<dyn LanguageModel>, bool); 2] =
        [(Planned::new("a", &[FAILED]), true), (Arc::new(AwayModel), false)];
    for (first, asked) in firsts {
        let name = first.provider().to_owned();
        let error = ask(&Fallback::new(first, vec![refuses()]), &question("tea")).await.0.unwrap_err();
        assert!(error.kind.is_transient(), "{error}");
        assert_eq!((error.asked, error.provider), (asked, name));
        assert!(error.message.contains("b: refused"), "{}", error.message);
    }
}

#[tokio::test]
async fn the_next_provider_answers_under_its_own_model() {
    let refused = ("", ModelErrorKind::Refused);
    let (first, second, third) =
        (Planned::new("a", &[refused]), Planned::new("b", &[("ha", FAILED.1)]), Planned::new("c", &[]));
    let chain = Fallback::new(first.clone(), vec![second.clone(), third.clone()]);
    let (answered, heard) = ask(&chain, &question("tea")).await;
    assert_eq!(answered.unwrap().provider, "c");
    assert_eq!(heard, ["ha"], "what was heard of b is not taken back, and c is silent");
    assert_eq!(first.asked.lock().unwrap()[0].model, "m1");
    assert_eq!(third.asked.lock().unwrap()[0].model, "");
    assert_eq!(ask(&chain, &question("tea")).await.0.unwrap().provider, "a");
    let none = Fallback::new(Planned::new("a", &[refused]), vec![Planned::new("b", &[FAILED])]);
    let error = ask(&none, &question("tea")).await.0.unwrap_err();
    assert_eq!((error.provider.as_str(), error.kind), ("b", ModelErrorKind::Failed));
    assert!(error.message.contains("a: refused"), "{error}");
}

fn cached(model: Arc<dyn LanguageModel>, entries_max: usize, bytes_max: usize) -> (Cached, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let options = CacheOptions { ttl: Duration::from_secs(10), entries_max, bytes_max };
    let time: Arc<ManualClock> = Arc::clone(&clock);
    (Cached::new(model, Arc::new(Cache::new(options)), time), clock)
}

/// Whether the answer to `asked` was kept from before.
async fn kept(model: &Cached, asked: &Ask) -> bool {
    let (answered, heard) = ask(model, asked).await;
    let answer = answered.unwrap();
    assert_eq!((answer.text.as_str(), heard.concat().as_str()), ("done", "done"));
    answer.cached
}

#[tokio::test]
async fn an_answer_is_kept_until_it_is_old() {
    let (model, clock) = cached(Planned::new("p", &[]), 9, 1 << 20);
    assert!(!kept(&model, &question("tea")).await);
    clock.advance(Duration::from_millis(9_999));
    assert!(kept(&model, &question("tea")).await);
    clock.advance(Duration::from_millis(1));
    assert!(!kept(&model, &question("tea")).await, "being used makes it no younger");
}

#[tokio::test]
async fn the_longest_unused_goes_first_and_errors_are_not_kept() {
    let planned = Planned::new("p", &[("", ModelErrorKind::Failed)]);
    let (model, _) = cached(planned, 2, 1 << 20);
    assert!(ask(&model, &question("a")).await.0.is_err());
    for (text, was_kept) in [("a", false), ("b", false), ("a", true), ("c", false), ("a", true), ("b", false)]
    {
        assert_eq!(kept(&model, &question(text)).await, was_kept, "{text}");
    }
    let (model, _) = cached(Planned::new("p", &[]), 9, 16);
    assert!(!kept(&model, &question("a")).await && !kept(&model, &question("a")).await, "too large to keep");
    let (model, _) = cached(Planned::new("p", &[]), 9, 700);
    for (text, was_kept) in [("a", false), ("a", true), ("b", false), ("c", false), ("a", false)] {
        assert_eq!(kept(&model, &question(text)).await, was_kept, "{text} within the bytes");
    }
}

#[tokio::test]
async fn an_answer_that_was_on_its_way_when_something_was_erased_is_not_kept() {
    let (model, _) = cached(Planned::new("p", &[]), 9, 1 << 20);
    let answer = model.ask(&question("tea"), &|_| model.forget()).await.unwrap();
    assert_eq!((answer.text.as_str(), answer.cached), ("done", false));
    assert!(!kept(&model, &question("tea")).await);
    assert!(kept(&model, &question("tea")).await);
}

#[tokio::test]
async fn who_stood_in_is_not_kept() {
    let first = Planned::new("a", &[FAILED]);
    let (model, _) = cached(Arc::new(Fallback::new(first, vec![Planned::new("b", &[])])), 9, 1 << 20);
    assert_eq!(ask(&model, &question("tea")).await.0.unwrap().provider, "b");
    let answer = ask(&model, &question("tea")).await.0.unwrap();
    assert_eq!((answer.provider.as_str(), answer.cached), ("a", false));
}

#[tokio::test]
async fn everything_that_determines_an_answer_tells_two_requests_apart() {
    let base = || question("tea");
    let fact = |score| Fact {
        source: "obs_1".into(),
        entity: "e".into(),
        text: "t".into(),
        score,
        similarity: None,
    };
    let with = |change: &dyn Fn(&mut Ask)| {
        let mut ask = base();
        change(&mut ask);
        ask
    };
    let asks = [
        base(),
        with(&|ask| ask.model.push('x')),
        with(&|ask| ask.system.push('x')),
        with(&|ask| ask.question.push('x')),
        with(&|ask| ask.performative.push('x')),
        with(&|ask| ask.messages[0].role = Role::Tool),
        with(&|ask| ask.messages[0].answers = Some(String::new())),
        with(&|ask| ask.messages[0].tool_calls.push(call("a", "b", "{}"))),
        with(&|ask| ask.messages[0].tool_calls.push(call("a", "", "b{}"))),
        with(&|ask| ask.messages.push(said(Role::User, ""))),
        with(&|ask| ask.tools.clear()),
        with(&|ask| ask.tools[0].name.push('x')),
        with(&|ask| ask.tools[0].description.push('x')),
        with(&|ask| ask.tools[0].parameters["x"] = 1.into()),
        with(&|ask| ask.facts.push(fact(0.5))),
        with(&|ask| ask.facts.push(fact(0.25))),
        with(&|ask| ask.temperature = Some(0.0)),
        with(&|ask| ask.top_p = Some(0.0)),
        with(&|ask| ask.max_tokens = Some(0)),
    ];
    let (model, _) = cached(Planned::new("p", &[]), 99, 1 << 20);
    for asked in &asks {
        assert!(!kept(&model, asked).await, "{asked:?}");
    }
    for asked in &asks {
        assert!(kept(&model, asked).await, "{asked:?}");
    }
    assert!(kept(&model, &within(30, "tea")).await, "how long it is waited for determines nothing");
}
