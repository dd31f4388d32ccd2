//! Models as a configuration makes them.

use std::sync::Arc;
use std::time::Duration;

use super::stub::{Reply, Stub};
use super::{Always, ManualClock, ask, question};
use crate::config::{Llm, load_text};
use crate::llm::registry::{Registry, RegistryError, Surroundings};
use crate::llm::{Ask, Fact};

fn llm(text: &str) -> Llm {
    load_text(text).unwrap_or_else(|error| panic!("{error}")).config.llm
}

fn registry(llm: &Llm, cache_ttl: Duration) -> Result<(Registry, Arc<ManualClock>), RegistryError> {
    let clock = Arc::new(ManualClock::default());
    let environment = |name: &str| (name == "TEST_KEY").then(|| "sk-test-12345".to_owned());
    let time: Arc<ManualClock> = Arc::clone(&clock);
    let around = Surroundings {
        clock: time,
        chance: Arc::new(Always(0.0)),
        ..Surroundings::of_machine(&environment, cache_ttl)
    };
    Ok((Registry::build(llm, &around)?, clock))
}

#[tokio::test]
async fn nothing_configured_quotes_memory() {
    let (registry, _) = registry(&llm(""), Duration::ZERO).unwrap();
    let model = registry.get("").unwrap();
    assert_eq!((model.provider(), registry.default_name()), ("extractive", "extractive"));
    let fact = Fact {
        source: "obs_5".into(),
        entity: "tea".into(),
        text: "Tea is green.".into(),
        score: 1.0,
        similarity: None,
    };
    let (answered, heard) = ask(&*model, &Ask { facts: vec![fact], ..question("What is tea?") }).await;
    let answer = answered.unwrap();
    assert_eq!((answer.text.as_str(), answer.model.as_str()), ("Tea is green. [obs_5]", "extractive"));
    assert!(heard.concat() == answer.text && answer.usage.estimated);
    assert_eq!(registry.names().collect::<Vec<_>>(), ["extractive", "local"]);
    let local = ask(&*registry.get("local").unwrap(), &question("tea")).await.0;
    assert_eq!(local.unwrap().model, "extractive", "without facts there is nothing to word");
    let error = registry.get("gpt").unwrap_err().to_string();
    assert!(error.contains("\"gpt\"") && error.contains("extractive"), "{error}");
}

#[tokio::test]
async fn a_failing_provider_is_retried_then_the_chain_answers_then_it_is_asked_again() {
    let good = r#"{"choices": [{"message": {"content": "tea"}, "finish_reason": "stop"}]}"#;
    let failure = Reply::of("500 Oh", "Connection: close\r\n", "");
    let mut replies = vec![failure; 2];
    replies.push(Reply::json(good));
    let stub = Stub::start(replies).await;
    let text = format!(
        "
llm:
  default: main
  chain: [extractive]
  providers:
    - {{name: main, base_url: '{}/v1', model: m, api_key_env: TEST_KEY, retries: 1}}
",
        stub.url
    );
    let (registry, clock) = registry(&llm(&text), Duration::from_mins(1)).unwrap();
    let model = registry.get("").unwrap();
    let answer = ask(&*model, &question("tea")).await.0.unwrap();
    assert_eq!((answer.provider.as_str(), clock.slept().len()), ("extractive", 1));
    for was_kept in [false, true] {
        let answer = ask(&*model, &question("tea")).await.0.unwrap();
        assert_eq!((answer.provider.as_str(), answer.text.as_str()), ("main", "tea"));
        assert_eq!(answer.cached, was_kept);
    }
    assert_eq!(stub.requests().len(), 3);
    assert!(stub.requests()[0].head.contains("Bearer sk-test-12345"));
    assert!(!format!("{registry:?}").contains("sk-test"), "{registry:?}");
}

#[tokio::test]
async fn answers_are_kept_within_the_bounds_of_the_configuration() {
    let long = format!(
        r#"{{"choices": [{{"message": {{"content": "{}"}}, "finish_reason": "stop"}}]}}"#,
        "tea ".repeat(2_000)
    );
    for (bounds, one_kept, two_kept) in
        [("", true, true), ("cache_entries: 1", true, false), ("cache_size: 4096", false, false)]
    {
        let stub = Stub::start(vec![Reply::json(&long)]).await;
        let text = format!(
            "llm:\n  default: main\n  {bounds}\n  providers:\n    - {{name: main, base_url: '{}/v1', model: m, \
             api_key_env: TEST_KEY}}\n",
            stub.url
        );
        let (registry, _) = registry(&llm(&text), Duration::from_mins(1)).unwrap();
        let model = registry.get("").unwrap();
        let mut kept = Vec::new();
        for asked in ["a", "a", "b", "a"] {
            kept.push(ask(&*model, &question(asked)).await.0.unwrap().cached);
        }
        assert_eq!(kept, [false, one_kept, false, two_kept], "{bounds}");
    }
}

#[tokio::test]
async fn what_all_providers_keep_is_within_the_bounds_together() {
    let good = r#"{"choices": [{"message": {"content": "tea"}, "finish_reason": "stop"}]}"#;
    let stub = Stub::start(vec![Reply::json(good)]).await;
    for (bound, then) in [(1, [false, true, false, false]), (2, [false, true, false, true])] {
        let row = |name: &str| {
            format!("    - {{name: {name}, base_url: '{}/v1', model: m, api_key_env: TEST_KEY}}\n", stub.url)
        };
        let rows = row("main") + &row("other");
        let text = format!("llm:\n  default: main\n  cache_entries: {bound}\n  providers:\n{rows}");
        let (registry, _) = registry(&llm(&text), Duration::from_mins(1)).unwrap();
        let mut kept = Vec::new();
        for name in ["main", "main", "other", "main"] {
            let model = registry.get(name).unwrap();
            kept.push(ask(&*model, &question("tea")).await.0.unwrap().cached);
        }
        assert_eq!(kept, then, "{bound}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules.yaml");
    std::fs::write(&rules, "rules:\n  - answr: x\n").unwrap();
    for (row, words) in [
        ("{name: a, api_key_env: NOT_SET}".to_owned(), "a has no key: the variable NOT_SET is not set"),
        ("{name: a, api_key_file: /no/such/key}".to_owned(), "could not read the key in /no/such/key"),
        (
            format!("{{name: a, kind: scripted, script: '{}'}}", rules.display()),
            "rules.yaml:2:5: unknown key",
        ),
        ("{name: a, kind: scripted, script: /no/such/rules}".to_owned(), "could not read the rules"),
    ] {
        let config = llm(&format!("llm:\n  providers:\n    - {row}\n"));
        let error = registry(&config, Duration::ZERO).map(|_| ()).unwrap_err();
        let told = crate::failure::chain(&error);
        assert!(told.contains(words), "{words:?} is not in {told}");
    }
}
