//! Answers that are kept for requests that are exactly the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use super::super::web::{Reply, Request, Web};
use super::{Town, file, of, provider};

#[test]
fn a_kept_answer_is_given_again_where_the_file_and_the_configuration_say_so() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&asked);
    let model = Web::start(move |request: &Request| {
        counts.fetch_add(1, Ordering::Relaxed);
        Reply::says(&format!("{} to {}", request.number, request.last("user")))
    });
    let agents = [
        ("ada", file("ada", "talk", "performance: {cache_responses: true}")),
        ("sue", file("sue", "ask", "performance: {cache_responses: false}")),
    ];
    for (config, again) in
        [("agents: {response_cache_ttl: 1h}", true), ("agents: {response_cache_ttl: 0s}", false)]
    {
        asked.store(0, Ordering::Relaxed);
        let town = Town::with(&[provider("m", &model, "")], config, &agents);
        let ask = |agent: &str, text: &str| -> (Value, Value) {
            let sent = town.ask(agent, text);
            let content = town.answer(&sent)["content"].clone();
            let cached = of(&town.turn(&sent), "turn.model_answered", "cached");
            assert_eq!(cached.len(), 1);
            (content, cached[0].clone())
        };
        let first = ask("ada", "how many?");
        assert_eq!(first.1, false);
        let second = ask("ada", "how many?");
        assert_eq!(second.1, again, "{config}");
        assert_eq!(first.0 == second.0, again, "{config}: {first:?} {second:?}");
        assert_eq!(ask("ada", "how much?").1, false, "another question is another request");
        let (one, other) = (ask("sue", "how many?"), ask("sue", "how many?"));
        assert!(one.1 == false && other.1 == false && one.0 != other.0, "{one:?} {other:?}");
        assert_eq!(asked.load(Ordering::Relaxed), if again { 4 } else { 5 });
    }
}
