//! Which rule answers, what it says, and what is said of a file that is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use super::super::tests::{ManualClock, ask, question, said};
use super::*;
use crate::llm::{ChatMessage, Fact};

fn scripted(text: &str) -> (Scripted, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    let time: Arc<ManualClock> = Arc::clone(&clock);
    (Scripted::parse("s", Path::new("rules.yaml"), text, time).unwrap(), clock)
}

const RULES: &str = r#"
rules:
  - when: {step: 2, result_contains: "42"}
    answer: "The result is {{result}}."
  - when: {performative: QUERY_REF, matches: "(?<n>\\d+) cups? of (\\w+)"}
    delay: 20ms
    answer: "{{n}} x {{2}}, says {{source}}: {{fact}}"
    calls:
      - tool: memory
        arguments: {action: search, query: "{{2}}", limit: 3, deep: [true, null, 1.5, "{{n}}"]}
  - when: {contains: [green, TEA], system_contains: librarian}
    answer: Green tea, {{last}}
  - when: {contains: busy}
    times: 2
    error: {kind: rate_limited, retry_after: 1s, message: slow down}
  - when: {contains: busy}
    answer: better now
"#;

#[tokio::test]
async fn the_first_rule_that_fits_answers() {
    let (model, clock) = scripted(RULES);
    let fact = Fact {
        source: "obs_5".into(),
        entity: "tea".into(),
        text: "{{n}} is hot".into(),
        score: 1.0,
        similarity: None,
    };
    let asked = Ask {
        facts: vec![fact],
        performative: "query_ref".to_owned(),
        ..question("I want 3 cups of oolong")
    };
    let (answered, heard) = ask(&model, &asked).await;
    let answer = answered.unwrap();
    assert_eq!(answer.text, "3 x oolong, says obs_5: {{n}} is hot", "values are not looked at again");
    assert!(heard.len() > 3 && heard.concat() == answer.text, "{heard:?}");
    let arguments = r#"{"action":"search","deep":[true,null,1.5,"3"],"limit":3,"query":"oolong"}"#;
    assert_eq!(
        (answer.tool_calls[0].tool.as_str(), answer.tool_calls[0].arguments.as_str()),
        ("memory", arguments)
    );
    assert_eq!(clock.slept(), [Duration::from_millis(20)]);
    assert_eq!((answer.model.as_str(), answer.provider.as_str()), ("scripted", "s"));
    let other = Ask { performative: "REQUEST".to_owned(), ..asked };
    let error = ask(&model, &other).await.0.unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::Refused);
    assert!(error.message.contains("3 cups") && error.message.contains("step 1"), "{error}");
    let answer = ask(&model, &question("Tea? Greenish.")).await.0.unwrap();
    assert_eq!(answer.text, "Green tea, Tea? Greenish.");
}

#[tokio::test]
async fn steps_are_counted_since_the_user_spoke() {
    let (model, _) = scripted(RULES);
    let mut asked = question("what is it");
    asked.messages.insert(0, said(Role::Assistant, "before"));
    asked.messages.push(said(Role::Assistant, "I look"));
    asked.messages.push(ChatMessage { answers: Some("c".to_owned()), ..said(Role::Tool, "it is 42") });
    assert_eq!(asked.step(), 2);
    assert_eq!(ask(&model, &asked).await.0.unwrap().text, "The result is it is 42.");
}

#[tokio::test]
async fn a_rule_may_answer_so_often_and_no_more() {
    let (model, _) = scripted(RULES);
    let wait = Some(Duration::from_secs(1));
    for _ in 0..2 {
        let error = ask(&model, &question("busy?")).await.0.unwrap_err();
        assert_eq!(error.kind, ModelErrorKind::RateLimited { retry_after: wait });
        assert_eq!(error.message, "slow down");
    }
    assert_eq!(ask(&model, &question("busy?")).await.0.unwrap().text, "better now");
}

#[test]
fn what_is_wrong_with_a_file_has_its_place() {
    for (text, place, words) in [
        ("", "", "is not a map of model, rules"),
        ("rules: []", ":1:1", "there are no rules"),
        ("model: x", ":1:1", "there are no rules"),
        ("rules: [{answer: a}", ":2:1", ""),
        ("rules:\n  - answr: a", ":2:5", "unknown key \"answr\"; the keys here are when, times"),
        ("rules:\n  - when: {contain: a}\n    answer: b", ":2:12", "contains, matches"),
        ("rules:\n  - when: {step: 1}", ":2:5", "does nothing"),
        ("rules:\n  - answer: a\n    error: {kind: failed}", ":3:12", "not both"),
        ("rules:\n  - answer: a\n    answer: b", "", "answer"),
        ("rules:\n  - error: {kind: sad}", ":2:19", "one of timeout, unreachable"),
        ("rules:\n  - error: {}", ":2:12", "no kind"),
        ("rules:\n  - answer: a\n    when: {matches: '(a'}", ":3:21", "not a regular expression"),
        ("rules:\n  - answer: '{{name}}'", ":2:13", "known are question, last"),
        ("rules:\n  - answer: '{{question'", ":2:13", "has no `}}`"),
        ("rules:\n  - calls: [{tool: a, arguments: {q: '{{1}}'}}]", ":2:38", "stands for nothing"),
        ("rules:\n  - calls: [{arguments: {}}]", ":2:13", "names no tool"),
        ("rules:\n  - calls: [{tool: a, arguments: 1}]", ":2:34", "not a map of arguments"),
        ("rules:\n  - {answer: a, delay: 20}", ":2:24", "a duration such as 20ms"),
        ("rules:\n  - {answer: a, times: 0}", ":2:24", "of at least 1"),
        ("rules:\n  - {answer: a, usage: {input_tokens: -1}}", ":2:39", "of at least 0"),
        ("rules:\n  - {answer: 7}", ":2:14", "7 is not a text"),
    ] {
        let clock = Arc::new(ManualClock::default());
        let error = Scripted::parse("s", Path::new("rules.yaml"), text, clock).unwrap_err().to_string();
        assert!(error.starts_with(&format!("rules.yaml{place}")), "{place} is not in {error}");
        assert!(error.contains(words), "{words:?} is not in {error}");
    }
}
