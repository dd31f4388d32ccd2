//! The provider around a reworder that says what the test wants.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use futures::FutureExt as _;

use super::super::tests::{ask, question};
use super::*;
use crate::llm::Fact;

/// Says one thing, each time the test lets it.
struct Says {
    what: Result<&'static str, &'static str>,
    turn: Option<Arc<Mutex<Receiver<()>>>>,
}

impl Reworder for Says {
    fn reword(&mut self, _: &str, facts: &[String], _: u32, _: &dyn Fn() -> bool) -> Result<String, String> {
        assert_eq!(facts, ["tea: Green tea is ready."]);
        if let Some(turn) = &self.turn {
            turn.lock().unwrap().recv().unwrap();
        }
        self.what.map(str::to_owned).map_err(str::to_owned)
    }
}

fn local(what: Result<&'static str, &'static str>, turn: Option<Receiver<()>>) -> Local {
    let turn = turn.map(|turn| Arc::new(Mutex::new(turn)));
    let load: Load = Arc::new(move || Ok(Box::new(Says { what, turn: turn.clone() })));
    Local::with("local", Some(load))
}

fn asked() -> Ask {
    let text = "Green tea is ready.".to_owned();
    let fact =
        Fact { source: "obs_5".to_owned(), entity: "tea".to_owned(), text, score: 1.0, similarity: None };
    Ask { facts: vec![fact], ..question("Is there tea?") }
}

#[tokio::test]
async fn its_words_are_used_only_when_the_facts_bear_them_out() {
    for (said, text, model) in [
        ("Tea is ready.", "Tea is ready. [obs_5]", MODEL),
        ("Black tea is ready.", "Green tea is ready. [obs_5]", extractive::MODEL),
        ("", "Green tea is ready. [obs_5]", extractive::MODEL),
    ] {
        let (answered, heard) = ask(&local(Ok(said), None), &asked()).await;
        let answer = answered.unwrap();
        assert_eq!((answer.text.as_str(), answer.model.as_str()), (text, model));
        assert_eq!((heard, answer.provider.as_str()), (vec![text.to_owned()], "local"));
    }
    let nothing = Ask { facts: Vec::new(), ..asked() };
    let answer = ask(&local(Ok("Tea is ready."), None), &nothing).await.0.unwrap();
    assert_eq!(
        (answer.text.as_str(), answer.model.as_str()),
        ("Nothing in memory about \"Is there tea?\".", "extractive")
    );
}

#[tokio::test]
async fn what_goes_wrong_is_told() {
    let error = ask(&Local::new("local", None), &asked()).await.0.unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::Refused);
    assert!(error.message.contains("caxton model pull smollm2"), "{error}");
    let error = ask(&local(Err("no numbers"), None), &asked()).await.0.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ModelErrorKind::Failed, "no numbers"));
    let missing = Local::new("local", Some(PathBuf::from("/no/such/model.gguf")));
    for _ in 0..2 {
        let error = ask(&missing, &asked()).await.0.unwrap_err();
        assert!(error.message.contains("/no/such/model.gguf"), "{error}");
    }
}

#[tokio::test]
async fn a_thread_that_died_is_started_again() {
    let loads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&loads);
    let load: Load = Arc::new(move || {
        assert_ne!(count.fetch_add(1, Ordering::SeqCst), 0, "the first time it falls over");
        Ok(Box::new(Says { what: Ok("Tea is ready."), turn: None }))
    });
    let model = Local::with("local", Some(load));
    let first = ask(&model, &asked()).await.0.unwrap_err();
    assert_eq!(first.kind, ModelErrorKind::Failed);
    // The thread may still be on its way down when the next question comes.
    let mut answered = ask(&model, &asked()).await.0;
    while answered.is_err() {
        answered = ask(&model, &asked()).await.0;
    }
    assert_eq!(answered.unwrap().text, "Tea is ready. [obs_5]");
}

#[tokio::test]
async fn a_full_queue_turns_away_and_those_who_left_are_passed_over() {
    let (turn, turns) = mpsc::channel();
    let model = local(Ok("Tea is ready."), Some(turns));
    let asked = asked();
    let mut waiting = Vec::new();
    let error = loop {
        let mut asking = model.ask(&asked, &|_| ());
        match (&mut asking).now_or_never() {
            None => waiting.push(asking),
            Some(answered) => break answered.unwrap_err(),
        }
    };
    assert!(matches!(error.kind, ModelErrorKind::RateLimited { retry_after: Some(_) }), "{error:?}");
    assert!(!error.asked, "it waits for its time, and that is no failure");
    // One may be in the model's hands beside those in the queue.
    assert!((WAITING_MAX..=WAITING_MAX + 1).contains(&waiting.len()), "{}", waiting.len());
    let last = waiting.pop().unwrap();
    drop(waiting);
    // The one in the model's hands, if there is one, and the last: nobody else takes a turn.
    turn.send(()).unwrap();
    turn.send(()).unwrap();
    assert!(last.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_question_whose_turn_does_not_come_in_time_is_turned_away() {
    let (turn, turns) = mpsc::channel();
    let model = local(Ok("Tea is ready."), Some(turns));
    let first = asked();
    let mut first = model.ask(&first, &|_| ());
    assert!((&mut first).now_or_never().is_none());
    let until = Some(tokio::time::Instant::now() + Duration::from_secs(10));
    let error = ask(&model, &Ask { until, ..asked() }).await.0.unwrap_err();
    assert!(matches!(error.kind, ModelErrorKind::RateLimited { retry_after: Some(_) }), "{error:?}");
    assert!(!error.asked, "{error}");
    turn.send(()).unwrap();
    assert!(first.await.is_ok());
}
