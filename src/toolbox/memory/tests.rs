//! The tool over a real engine in a directory that goes away, without a model.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::path::Path;

use caxton_events::log::Filter;
use caxton_events::{Record, Seq};

use super::*;
use crate::engine::EngineOptions;
use crate::toolbox::stub::caller;

fn start(dir: &Path) -> (Engine, Memory) {
    let engine = Engine::start(&EngineOptions::new(dir), &mut |_| {}).unwrap();
    let memory = Memory::new(engine.clone(), Ranking::default());
    (engine, memory)
}

/// Runs `test` over an engine of its own.
async fn with_memory(test: impl AsyncFnOnce(&Engine, &Memory)) {
    let dir = tempfile::tempdir().unwrap();
    let (engine, memory) = start(dir.path());
    test(&engine, &memory).await;
    engine.stop();
}

async fn call(memory: &Memory, caller: &Caller, arguments: Value) -> Result<Value, ToolError> {
    let text = memory.call(caller, NAME, &arguments).await?;
    Ok(serde_json::from_str(&text).unwrap())
}

#[test]
fn a_search_ranks_as_the_server_is_set_to() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = start(dir.path());
    let memory = Memory::new(engine.clone(), Ranking { exact: true, precision: 0.25, ..Ranking::default() });
    let asked = memory.asked(&caller(), &json!({"operation": "search", "query": "kettles"}));
    let asked = asked.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((asked.exact, asked.precision.to_bits()), (true, 0.25_f32.to_bits()));
    engine.stop();
}

/// The same agent in another call.
fn next(number: u32) -> Caller {
    Caller { call: format!("c{number}"), ..caller() }
}

fn store(entity: &str, observation: &str) -> Value {
    json!({"operation": "store", "entity": entity, "observations": [observation]})
}

fn records(engine: &Engine) -> Vec<Record> {
    let all = engine.log().scan(Seq::FIRST, &Filter::default());
    all.map(Result::unwrap).filter(|record| record.actor == "ada").collect()
}

#[track_caller]
fn refused(result: &Result<Value, ToolError>, words: &str) {
    assert!(
        matches!(result, Err(ToolError::Refused(reason)) if reason.contains(words)),
        "{words}: {result:?}"
    );
}

#[track_caller]
fn wrong(result: &Result<Value, ToolError>, argument: &str) {
    assert!(
        matches!(result, Err(ToolError::Arguments { field, .. }) if field == argument),
        "{argument}: {result:?}"
    );
}

#[tokio::test]
async fn what_is_stored_is_found_and_connected() {
    with_memory(async |_, memory| {
        let stored = call(memory, &next(1), store("redb", "an embedded key-value store")).await.unwrap();
        assert_eq!((&stored["entity_id"], &stored["status"]), (&json!("ent_1"), &json!("created")));
        let more = json!({
            "operation": "store", "entity": "tantivy", "entity_type": "crate", "scope": "agent",
            "observations": ["a full-text search engine"],
        });
        call(memory, &next(2), more).await.unwrap();
        let relation =
            json!({"operation": "relate", "from": "redb", "to": "ent_3", "relation": "sits_beside", "scope": "agent"});
        let related = call(memory, &next(3), relation).await.unwrap();
        assert_eq!((&related["relation_id"], &related["status"]), (&json!("rel_5"), &json!("created")));
        let found =
            call(memory, &next(4), json!({"operation": "search", "query": "embedded store"})).await.unwrap();
        let hit = &found["results"][0];
        assert_eq!(
            (&hit["entity"], &hit["scope"], &hit["entity_type"]),
            (&json!("redb"), &json!("workspace"), &json!("note"))
        );
        assert_eq!(hit["observations"], json!([{"id": "obs_2", "text": "an embedded key-value store"}]));
        let own = json!({"operation": "search", "query": "embedded search", "scope": "agent"});
        let found = call(memory, &next(5), own).await.unwrap();
        assert_eq!(found["results"].as_array().unwrap().len(), 1, "only its own scope: {found}");
        let typed = json!({"operation": "search", "query": "embedded search", "entity_types": "crate"});
        assert_eq!(call(memory, &next(6), typed).await.unwrap()["results"][0]["entity"], json!("tantivy"));
    })
    .await;
}

#[tokio::test]
async fn a_search_sees_what_the_agent_may_see_and_nothing_else() {
    with_memory(async |_, memory| {
        let eve = Caller { agent: "eve".parse().unwrap(), workspace: "den".parse().unwrap(), ..next(1) };
        call(memory, &eve, store("secret", "the plan of eve")).await.unwrap();
        let query = json!({"operation": "search", "query": "plan"});
        assert_eq!(call(memory, &next(1), query.clone()).await.unwrap()["results"], json!([]));
        assert_eq!(call(memory, &eve, query).await.unwrap()["results"][0]["entity"], json!("secret"));
    })
    .await;
}

#[tokio::test]
async fn a_call_that_is_repeated_after_a_restart_writes_once() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, memory) = start(dir.path());
    let mut limited = next(1);
    limited.permissions.memory_entities_max = Some(1);
    let first = call(&memory, &limited, store("a", "x")).await.unwrap();
    let before = records(&engine).len();
    engine.stop();
    let (engine, memory) = start(dir.path());
    assert_eq!(call(&memory, &limited, store("a", "x")).await.unwrap(), first);
    assert_eq!(records(&engine).len(), before);
    wrong(&call(&memory, &limited, store("a", "y")).await, "Idempotency-Key");
    let other_turn = Caller { turn: caxton_events::TurnId::from_bytes([8; 16]), ..next(1) };
    assert!(
        call(&memory, &other_turn, store("a", "y")).await.is_ok(),
        "calls are numbered anew in each turn"
    );
    engine.stop();
}

#[tokio::test]
async fn a_write_is_attributed_to_the_agent_and_its_turn() {
    with_memory(async |engine, memory| {
        call(memory, &next(1), store("a", "x")).await.unwrap();
        let records = records(engine);
        assert!(!records.is_empty());
        for record in records {
            assert_eq!(record.correlation, Some(next(1).turn.to_string()));
            assert_eq!(record.causation, Some(next(1).cause), "the call that wrote it");
        }
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_owns_as_many_entities_as_it_may_adds_to_those() {
    with_memory(async |_, memory| {
        let limited = |number| {
            let mut caller = next(number);
            caller.permissions.memory_entities_max = Some(2);
            caller
        };
        call(memory, &limited(1), store("a", "x")).await.unwrap();
        let in_scope = json!({"operation": "store", "entity": "b", "observations": ["x"], "scope": "agent"});
        call(memory, &limited(2), in_scope).await.unwrap();
        let third = call(memory, &limited(3), store("c", "x")).await;
        refused(&third, "agent ada owns 2 entities and may own 2");
        let more = call(memory, &limited(4), store("a", "y")).await.unwrap();
        assert_eq!(more["status"], json!("updated"));
        let bob = Caller { agent: "bob".parse().unwrap(), ..limited(5) };
        assert!(call(memory, &bob, store("c", "x")).await.is_ok(), "the limit is each agent's own");
    })
    .await;
}

#[tokio::test]
async fn calls_at_once_do_not_pass_the_limit_together() {
    with_memory(async |_, memory| {
        let calls = (0..20).map(async |number| {
            let mut caller = next(number);
            caller.permissions.memory_entities_max = Some(3);
            call(memory, &caller, store(&format!("e{number}"), "x")).await.is_ok()
        });
        let stored = futures::future::join_all(calls).await;
        assert_eq!(stored.into_iter().filter(|stored| *stored).count(), 3);
    })
    .await;
}

#[tokio::test]
async fn what_the_file_does_not_allow_is_refused() {
    with_memory(async |engine, memory| {
        let mut reader = next(1);
        reader.permissions.memory_writes = false;
        let relate = json!({"operation": "relate", "from": "a", "to": "b", "relation": "c"});
        refused(&call(memory, &reader, store("a", "x")).await, "not write");
        refused(&call(memory, &reader, relate).await, "not write");
        let wide = json!({"operation": "store", "entity": "a", "observations": ["x"], "scope": "global"});
        refused(
            &call(memory, &next(1), wide).await,
            "to the scope workspace at the widest (memory_scope), not to global",
        );
        let mut none = next(1);
        none.permissions.memory_results_max = 0;
        refused(&call(memory, &none, json!({"operation": "search", "query": "x"})).await, "no results");
        assert!(records(engine).is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_with_the_arguments_is_named() {
    with_memory(async |_, memory| {
        call(memory, &next(1), store("a", "x")).await.unwrap();
        for (number, (arguments, field)) in (2..).zip([
            (json!({}), "operation"),
            (json!({"operation": "forget"}), "operation"),
            (json!({"operation": 7}), "operation"),
            (json!({"operation": "search"}), "query"),
            (json!({"operation": "search", "query": " "}), "query"),
            (json!({"operation": "search", "query": "x".repeat(20_000)}), "query"),
            (json!({"operation": "search", "query": "x", "limit": 0}), "limit"),
            (json!({"operation": "search", "query": "x", "limit": -1}), "limit"),
            (json!({"operation": "search", "query": "x", "scope": "all"}), "scope"),
            (json!({"operation": "search", "query": "x", "min_similarity": 2}), "min_similarity"),
            (json!({"operation": "search", "query": "x", "entity": "y"}), "entity"),
            (json!({"operation": "store", "observations": ["x"]}), "entity"),
            (json!({"operation": "store", "entity": "b"}), "observations"),
            (json!({"operation": "store", "entity": "b", "observations": [1]}), "observations[0]"),
            (json!({"operation": "store", "entity": "b", "observations": [""]}), "observations[0]"),
            (json!({"operation": "store", "entity": "x".repeat(2_000), "observations": ["x"]}), "entity"),
            (
                json!({"operation": "store", "entity": "a", "entity_type": "b", "observations": ["x"]}),
                "entity_type",
            ),
            (json!({"operation": "relate", "from": "a", "to": "nobody", "relation": "c"}), "to"),
            (json!({"operation": "relate", "from": "ent_99", "to": "a", "relation": "c"}), "from"),
            (json!({"operation": "relate", "from": "a", "to": "a"}), "relation"),
            (
                json!({"operation": "relate", "from": "a", "to": "a", "relation": "c", "strength": 2}),
                "strength",
            ),
        ]) {
            wrong(&call(memory, &next(number), arguments).await, field);
        }
    })
    .await;
}

#[tokio::test]
async fn results_are_as_many_and_as_long_as_they_may_be() {
    with_memory(async |_, memory| {
        for number in 0..15 {
            let observation = format!("{} {}", "word ".repeat(2_000), number);
            call(memory, &next(number), store(&format!("e{number}"), &observation)).await.unwrap();
        }
        let query = json!({"operation": "search", "query": "word", "limit": 1_000});
        let few = {
            let mut caller = next(20);
            caller.permissions.memory_results_max = 3;
            call(memory, &caller, query.clone()).await.unwrap()
        };
        assert_eq!((few["results"].as_array().unwrap().len(), &few["limit"]), (3, &json!(3)));
        assert_eq!(
            few["results"][0]["observations"][0]["bytes"].as_u64().map(|bytes| bytes > 10_000),
            Some(true)
        );
        let mut narrow = next(21);
        narrow.permissions.result_bytes_max = 10_000;
        let text = memory.call(&narrow, NAME, &query).await.unwrap();
        let shown: Value = serde_json::from_str(&text).unwrap();
        assert!(text.len() <= 10_000 && shown["left_out"].as_u64() > Some(5), "{} bytes", text.len());
    })
    .await;
}

#[test]
fn a_search_that_takes_too_long_is_given_up() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(with_memory(async |_, memory| {
        // The only thread that may block is busy until the search was given up.
        let (done, busy) = std::sync::mpsc::channel::<()>();
        let other = tokio::task::spawn_blocking(move || busy.recv());
        let timeout = Duration::from_millis(20);
        let mut caller = next(1);
        caller.permissions.memory_search_timeout = Some(timeout);
        let result = call(memory, &caller, json!({"operation": "search", "query": "x"})).await;
        assert_eq!(result, Err(ToolError::Timeout(timeout)));
        done.send(()).unwrap();
        other.await.unwrap().unwrap();
    }));
}

#[tokio::test]
async fn a_stopped_engine_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, memory) = start(dir.path());
    engine.stop();
    let result = call(&memory, &next(1), store("a", "x")).await;
    assert!(matches!(&result, Err(ToolError::Failed(reason)) if reason.contains("stopping")), "{result:?}");
}
