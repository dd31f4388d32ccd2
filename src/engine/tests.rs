//! The pipeline over a real log and a real graph in a directory that goes away.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caxton_events::log::{Batch, IdempotencyKey, Log, LogOptions};
use caxton_events::memory::{Chosen, Later, Validity};
use caxton_events::{Draft, Scope, Seq, SystemEvent, Timestamp};
use caxton_projections::graph::EntityFilter;
use caxton_projections::queries::{Search, SearchAnswer, SearchError, SearchMode};
use caxton_projections::view::Part;

use super::searches::Asking;
use super::{
    Engine, EngineOptions, Idempotency, Outcome, StartError, Submission, SubmitError, SystemClock, UndoAsk,
    Wait,
};
use crate::commands::{
    EntityRef, NewEntity, NewObservation, NewRelation, OnExisting, Refusal, RefusalCode, Write,
};

fn start(dir: &Path) -> Engine {
    Engine::start(&EngineOptions::new(dir), &mut |_| {}).unwrap()
}

fn create(name: &str, observation: &str) -> Write {
    let observations =
        vec![NewObservation { content: observation.to_owned(), validity: Validity::default() }];
    Write::CreateEntity(NewEntity {
        scope: Scope::Global,
        name: name.to_owned(),
        entity_type: "note".to_owned(),
        observations,
        metadata: None,
        confidence: 1.0,
        validity: Validity::default(),
        on_existing: OnExisting::Merge,
    })
}

fn connect(from: &str, to: &str) -> Write {
    let named = |name: &str| EntityRef::Named { name: name.to_owned(), scopes: vec![Scope::Global] };
    Write::CreateRelation(NewRelation {
        scope: Scope::Global,
        from: named(from),
        to: named(to),
        relation_type: "next".to_owned(),
        strength: 0.5,
        confidence: 1.0,
        metadata: None,
        validity: Validity::default(),
        bidirectional: false,
        on_existing: OnExisting::Merge,
    })
}

fn submission(writes: Vec<Write>) -> Submission {
    Submission {
        actor: "ada".parse().unwrap(),
        workspace: "lab".parse().unwrap(),
        named: None,
        correlation: None,
        causation: None,
        idempotency: None,
        writes,
        atomic: true,
        wait: Wait::Applied,
    }
}

fn keyed(key: &str, fingerprint: u8, writes: Vec<Write>) -> Submission {
    let idempotency = Some(Idempotency { key: key.to_owned(), fingerprint: [fingerprint; 32] });
    Submission { idempotency, ..submission(writes) }
}

fn submit(engine: &Engine, writes: Vec<Write>) -> Outcome {
    engine.submit_blocking(submission(writes)).unwrap()
}

fn names(engine: &Engine) -> Vec<String> {
    let filter = EntityFilter { limit: 10_000, ..EntityFilter::default() };
    let entities = engine.view().graph().list_entities(&filter).unwrap();
    entities.into_iter().map(|entity| entity.name).collect()
}

#[test]
fn a_write_is_seen_when_it_is_answered_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    let outcome = submit(&engine, vec![create("a", "x"), create("b", "y"), connect("a", "b")]);
    assert_eq!(outcome.results.len(), 3);
    assert!(engine.view().seq() >= outcome.last);
    assert_eq!(names(&engine), ["a", "b"]);
    engine.stop();
    assert!(matches!(engine.submit_blocking(submission(vec![create("c", "z")])), Err(SubmitError::Stopped)));
    let engine = start(dir.path());
    assert_eq!(names(&engine), ["a", "b"]);
    assert_eq!(submit(&engine, vec![create("c", "z")]).results[0].as_ref().unwrap().version, 1);
    assert_eq!(names(&engine), ["a", "b", "c"]);
    engine.stop();
}

#[test]
fn a_refused_command_leaves_nothing_and_takes_no_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    let before = engine.log().head().seq;
    let refused = engine.submit_blocking(submission(vec![create("a", "x"), connect("a", "nobody")]));
    let Err(SubmitError::Refused(refusals)) = refused else { panic!("{refused:?}") };
    assert_eq!((refusals[0].code, refusals[0].index), (RefusalCode::EntityNotFound, 1));
    assert_eq!(engine.log().head().seq, before);
    let each = Submission { atomic: false, ..submission(vec![create("a", "x"), connect("a", "nobody")]) };
    let outcome = engine.submit_blocking(each).unwrap();
    assert!(outcome.results[0].is_ok() && outcome.results[1].is_err());
    assert_eq!(names(&engine), ["a"]);
    engine.stop();
}

#[test]
fn a_key_used_again_gets_the_first_answer_or_a_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    let first = engine.submit_blocking(keyed("k", 1, vec![create("a", "x")])).unwrap();
    let head = engine.log().head().seq;
    let again = engine.submit_blocking(keyed("k", 1, vec![create("a", "x")])).unwrap();
    assert!(again.replayed && !first.replayed);
    assert_eq!((again.first, again.last, &again.results), (first.first, first.last, &first.results));
    assert_eq!(engine.log().head().seq, head);
    let other = engine.submit_blocking(keyed("k", 2, vec![create("b", "x")]));
    assert!(
        matches!(other, Err(SubmitError::Refused(refusals)) if refusals[0].code == RefusalCode::IdempotencyConflict)
    );
    engine.stop();
    // The key outlives the process.
    let engine = start(dir.path());
    assert!(engine.submit_blocking(keyed("k", 1, vec![create("a", "x")])).unwrap().replayed);
    engine.stop();
}

/// A command with a write that is taken and two that are not.
fn partly_refused() -> Submission {
    let Write::CreateEntity(wish) = create("zqname", "x") else { panic!("an entity is created") };
    let again = Write::CreateEntity(NewEntity { on_existing: OnExisting::Refuse, ..wish });
    let writes = vec![create("taken", "y"), again, connect("zqname", "zqnobody")];
    Submission { atomic: false, ..keyed("k", 1, writes) }
}

#[test]
fn a_refusal_that_is_kept_with_a_key_holds_no_text_and_is_told_again_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    submit(&engine, vec![create("zqname", "x")]);
    let first = engine.submit_blocking(partly_refused()).unwrap();
    let row = engine.log().key(&partly_refused().scoped_key().unwrap()).unwrap().unwrap();
    let kept = String::from_utf8(row.answer).unwrap();
    assert!(!kept.contains("zq"), "{kept}");
    let again = engine.submit_blocking(partly_refused()).unwrap();
    assert!(again.replayed);
    assert_eq!(again.results[0], first.results[0]);
    for (told, said) in again.results[1..].iter().zip(&first.results[1..]) {
        let (told, said) = (told.as_ref().unwrap_err(), said.as_ref().unwrap_err());
        let message = said.message.replace("zqname", "…").replace("zqnobody", "…");
        assert_ne!(message, said.message);
        assert_eq!(*told, Refusal { message, ..said.clone() });
    }
    engine.stop();
}

#[test]
fn a_refusal_that_was_kept_with_its_text_is_told_without_it() {
    let dir = tempfile::tempdir().unwrap();
    start(dir.path()).stop();
    // As earlier versions kept it.
    let answer = concat!(
        r#"[{"Err":{"code":"AlreadyExists","index":1,"field":"entity_name","#,
        r#""message":"\"zqname\" exists in global as ent_1","remedy":"use another name"}}]"#
    );
    let asked = partly_refused();
    let key = IdempotencyKey {
        key: asked.scoped_key().unwrap(),
        fingerprint: [1; 32],
        answer: answer.as_bytes().to_vec(),
    };
    let draft = Draft {
        stream: "system".to_owned(),
        actor: "system".to_owned(),
        correlation: None,
        causation: None,
        event: SystemEvent::ServerStopped.into(),
    };
    let log = Log::open(dir.path(), LogOptions::new([0; 16]), Arc::new(SystemClock)).unwrap();
    let batch = Batch { key: Some(key), ..Batch::of(vec![draft]) };
    log.append(vec![batch]).unwrap().remove(0).unwrap();
    log.close().unwrap();
    let engine = start(dir.path());
    let again = engine.submit_blocking(asked).unwrap();
    assert!(again.replayed);
    let told = again.results[0].as_ref().unwrap_err();
    assert_eq!((told.code, told.index, told.field.as_str()), (RefusalCode::AlreadyExists, 1, "entity_name"));
    assert_eq!(told.message, "\"…\" exists in global as ent_1");
    engine.stop();
}

#[test]
fn concurrent_writers_lose_nothing_and_a_shared_key_writes_once() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    submit(&engine, vec![create("hub", "all know it")]);
    std::thread::scope(|scope| {
        for writer in 0..16 {
            let engine = &engine;
            scope.spawn(move || {
                for turn in 0..20 {
                    let name = format!("{writer}/{turn}");
                    submit(engine, vec![create(&name, "x"), connect("hub", &name)]);
                    engine
                        .submit_blocking(keyed(
                            &format!("turn-{turn}"),
                            9,
                            vec![create(&format!("shared/{turn}"), "y")],
                        ))
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(names(&engine).len(), 1 + 16 * 20 + 20);
    let stats = engine.view().graph().stats(None).unwrap();
    assert_eq!((stats.relations, stats.observations), (320, 341));
    engine.log().verify(&mut |_| {}).unwrap();
    engine.stop();
}

#[test]
fn a_graph_that_is_gone_cut_or_overwritten_is_rebuilt_equal() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    for index in 0..50 {
        submit(
            &engine,
            vec![
                create(&format!("n{index}"), &format!("note {index}")),
                create("shared", &format!("o{index}")),
            ],
        );
    }
    engine.stop();
    let database = dir.path().join("graph");
    let file = fs::read_dir(&database).unwrap().map(|entry| entry.unwrap().path());
    let file = file.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let digest = |engine: &Engine| engine.view().graph().digest().unwrap();
    let engine = start(dir.path());
    let lived = digest(&engine);
    engine.stop();
    let spoil: [&dyn Fn(); 4] = [
        &|| fs::remove_dir_all(&database).unwrap(),
        &|| fs::File::options().write(true).open(&file).unwrap().set_len(5_000).unwrap(),
        &|| fs::write(&file, vec![7; 100_000]).unwrap(),
        &|| {
            let half = fs::metadata(&file).unwrap().len() / 2;
            fs::File::options().write(true).open(&file).unwrap().set_len(half).unwrap();
        },
    ];
    for spoil in spoil {
        spoil();
        let engine = start(dir.path());
        assert_eq!(digest(&engine), lived);
        assert_eq!(names(&engine).len(), 51);
        engine.stop();
    }
}

#[test]
fn a_graph_found_damaged_while_running_is_rebuilt_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    submit(&engine, vec![create("a", "x")]);
    engine.graph_is_damaged("a test says so");
    let refused = engine.submit_blocking(submission(vec![create("b", "y")]));
    assert!(matches!(refused, Err(SubmitError::Unavailable { name: "graph", .. })), "{refused:?}");
    engine.stop();
    let engine = start(dir.path());
    assert!(engine.recovery().graph_rebuilt.is_some());
    submit(&engine, vec![create("b", "y")]);
    assert_eq!(names(&engine), ["a", "b"]);
    engine.stop();
    let engine = start(dir.path());
    assert_eq!(engine.recovery().graph_rebuilt, None);
    engine.graph_is_damaged("a test says so");
    engine.stop();
    // An operator removes the folder; the mark must not outlive the rebuild.
    fs::remove_dir_all(dir.path().join("graph")).unwrap();
    start(dir.path()).stop();
    let engine = start(dir.path());
    assert_eq!(engine.recovery().graph_rebuilt, None);
    assert_eq!(names(&engine), ["a", "b"]);
    engine.stop();
}

#[test]
fn caches_learn_of_a_graph_that_an_undo_brought_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    submit(&engine, vec![create("a", "x")]);
    let positions = engine.view().positions();
    let changes = positions.memory_changes();
    positions.stop(Part::Graph, "database or disk is full".to_owned());
    let of_nobody = UndoAsk {
        chosen: Chosen { agent: Some("nobody".parse().unwrap()), ..Chosen::default() },
        later: Later::Refuse,
        by: None,
        correlation: None,
        idempotency: None,
        wait: Wait::Applied,
    };
    let outcome = tokio::runtime::Runtime::new().unwrap().block_on(engine.undo(of_nobody)).unwrap();
    assert!(!outcome.is_recorded);
    assert!(positions.get(Part::Graph).stopped.is_none() && positions.memory_changes() > changes);
    engine.stop();
}

#[test]
fn two_engines_do_not_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    let second = Engine::start(&EngineOptions::new(dir.path()), &mut |_| {});
    assert!(matches!(second, Err(StartError::Log(_))));
    engine.stop();
    start(dir.path()).stop();
}

#[test]
fn a_directory_of_a_newer_format_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("FORMAT"), "2\n").unwrap();
    let refused = Engine::start(&EngineOptions::new(dir.path()), &mut |_| {}).err().unwrap();
    assert!(refused.to_string().contains("data format \"2\""), "{refused}");
}

#[test]
fn a_format_that_a_power_cut_left_without_its_content_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    start(dir.path()).stop();
    let format = dir.path().join("FORMAT");
    for left in ["", "\0\0"] {
        fs::write(&format, left).unwrap();
        start(dir.path()).stop();
        assert_eq!(fs::read_to_string(&format).unwrap(), "1\n");
    }
}

#[test]
fn without_a_model_words_find_and_meaning_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    submit(&engine, vec![create("gnuplot", "draws curves in a terminal"), create("vim", "edits text")]);
    let search =
        Search { text: "curves".to_owned(), scopes: vec![Scope::Global], limit: 5, ..Search::default() };
    let answer = search.ask(engine.view()).unwrap();
    assert_eq!(answer.mode, SearchMode::Keyword);
    assert_eq!(answer.hits.iter().map(|hit| hit.entity.name.as_str()).collect::<Vec<_>>(), ["gnuplot"]);
    assert!(answer.seq > Seq::ZERO);
    let semantic = Search { mode: SearchMode::Semantic, ..search };
    assert!(matches!(semantic.ask(engine.view()), Err(SearchError::NoModel)));
    engine.stop();
}

#[test]
fn what_one_agent_owns_is_found_behind_any_number_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    for hundred in 0..12 {
        submit(&engine, (0..100).map(|n| create(&format!("n{hundred}-{n}"), "curves")).collect());
    }
    let last = create("mine", "curves, of which there is so much more to be told than by anybody before");
    engine.submit_blocking(Submission { actor: "bob".parse().unwrap(), ..submission(vec![last]) }).unwrap();
    let search = Search {
        text: "curves".to_owned(),
        scopes: vec![Scope::Global],
        owner: Some("bob".parse().unwrap()),
        limit: 3,
        ..Search::default()
    };
    let untimed = engine.view().clone().timed(|| Duration::ZERO);
    let answer = search.ask(&untimed).unwrap();
    let found: Vec<_> = answer.hits.iter().map(|hit| hit.entity.name.as_str()).collect();
    assert_eq!((found, answer.exact, answer.complete), (vec!["mine"], true, true));
    let hours = AtomicU64::new(0);
    let late = move || Duration::from_secs(3_600 * hours.fetch_add(1, Ordering::Relaxed));
    let answer = search.ask(&engine.view().clone().timed(late)).unwrap();
    assert!(
        answer.hits.is_empty() && !answer.exact && !answer.complete,
        "there was no time to look further, and that is said"
    );
    let more = Search { owner: None, limit: 1_100, ..search }.ask(&untimed).unwrap();
    assert_eq!((more.hits.len(), more.exact, more.complete), (1_100, true, true));
    engine.stop();
}

#[test]
fn what_others_know_is_found_behind_any_number_of_rows_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    for hundred in 0..12 {
        submit(&engine, (0..100).map(|n| create("talkative", &format!("curves {hundred}x{n}"))).collect());
    }
    submit(
        &engine,
        vec![create("quiet", "curves, of which there is so much more to be told than by anybody else")],
    );
    let search =
        Search { text: "curves".to_owned(), scopes: vec![Scope::Global], limit: 2, ..Search::default() };
    let found =
        |answer: &SearchAnswer| answer.hits.iter().map(|hit| hit.entity.name.clone()).collect::<Vec<_>>();
    let answer = search.ask(&engine.view().clone().timed(|| Duration::ZERO)).unwrap();
    assert_eq!((found(&answer), answer.complete), (vec!["talkative".to_owned(), "quiet".to_owned()], true));
    let hours = AtomicU64::new(0);
    let late = move || Duration::from_secs(3_600 * hours.fetch_add(1, Ordering::Relaxed));
    let answer = search.ask(&engine.view().clone().timed(late)).unwrap();
    assert_eq!((found(&answer), answer.complete), (vec!["talkative".to_owned()], false), "and that is said");
    engine.stop();
}

#[test]
fn what_was_noted_beside_a_hit_counts_at_the_time_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    let noted = |content: &str, to| {
        let validity = Validity { from: None, to: Some(Timestamp::from_unix_micros(to)) };
        NewObservation { content: content.to_owned(), validity }
    };
    let Write::CreateEntity(mut plotter) = create("gnuplot", "first") else { panic!("it is none") };
    plotter.observations = vec![noted("before", 10), noted("curves", 30), noted("behind", 30)];
    submit(&engine, vec![Write::CreateEntity(plotter)]);
    let neighbours = |at| {
        let search = Search {
            text: "curves".to_owned(),
            scopes: vec![Scope::Global],
            valid_at: Some(Timestamp::from_unix_micros(at)),
            neighbours: 2,
            limit: 5,
            ..Search::default()
        };
        let hits = search.ask(engine.view()).unwrap().hits;
        let all = hits.into_iter().flat_map(|hit| hit.neighbours);
        all.map(|observation| observation.content).collect::<Vec<_>>()
    };
    assert_eq!(
        (neighbours(5), neighbours(20)),
        (vec!["before".to_owned(), "behind".to_owned()], vec!["behind".to_owned()])
    );
    engine.stop();
}

#[test]
fn more_writes_than_may_wait_are_refused_at_once() {
    for (commands_max, refused) in [(1, true), (100_000, false)] {
        let dir = tempfile::tempdir().unwrap();
        let engine =
            Engine::start(&EngineOptions { commands_max, ..EngineOptions::new(dir.path()) }, &mut |_| {})
                .unwrap();
        let asked: Vec<_> = (0..2_000)
            .map(|number| engine.enqueue(submission(vec![create(&format!("n{number}"), "waits")])))
            .collect();
        let overloaded = asked.iter().any(|asked| matches!(asked, Err(SubmitError::Overloaded)));
        assert_eq!(overloaded, refused, "{commands_max}");
        for outcome in asked.into_iter().flatten() {
            outcome.blocking_recv().unwrap().unwrap();
        }
        engine.stop();
    }
}

/// Searches for words of today that somebody asks at `at`, and how many answers of those that are kept there were so far.
fn found_at(engine: &Engine, text: &str, at: u64) -> (Vec<String>, u64) {
    let search = Search {
        text: text.to_owned(),
        scopes: vec![Scope::Global],
        valid_at: Some(Timestamp::from_unix_micros(at)),
        limit: 5,
        ..Search::default()
    };
    let asking = Asking { at_present: true, afresh: false };
    let answer = engine.search(engine.view(), &search, asking).unwrap();
    (answer.hits.into_iter().map(|hit| hit.entity.name).collect(), engine.search_stats().hits)
}

#[test]
fn an_answer_is_kept_until_memory_changes_or_something_begins_or_ends_to_be_true() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    let with = |name: &str, from: u64, to: u64| {
        let Write::CreateEntity(mut entity) = create(name, "curves") else { panic!("it is none") };
        let at = |micros: u64| Some(Timestamp::from_unix_micros(micros)).filter(|_| micros > 0);
        entity.observations[0].validity = Validity { from: at(from), to: at(to) };
        Write::CreateEntity(entity)
    };
    submit(&engine, vec![with("gnuplot", 0, 300), with("octave", 200, 0)]);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let (first, both, second) = (names(&["gnuplot"]), names(&["gnuplot", "octave"]), names(&["octave"]));
    assert_eq!(found_at(&engine, "curves", 100), (first.clone(), 0));
    assert_eq!(found_at(&engine, "curves", 199), (first.clone(), 1));
    assert_eq!(found_at(&engine, "curves", 99), (first, 1), "the clock was set back");
    assert_eq!(found_at(&engine, "curves", 200), (both.clone(), 1), "the second is true from then on");
    assert_eq!(found_at(&engine, "curves", 299), (both, 2));
    assert_eq!(found_at(&engine, "curves", 300), (second.clone(), 2), "the first no more");
    assert_eq!(found_at(&engine, "curves", 9_000), (second, 3));
    submit(&engine, vec![create("matplotlib", "curves")]);
    let (after, hits) = found_at(&engine, "curves", 9_000);
    assert!(after.contains(&"matplotlib".to_owned()) && hits == 3, "{after:?}");
    assert_eq!(found_at(&engine, "curves", 9_001).1, 4);
    assert!(engine.search_stats().bytes > 0);
    let global = super::erase::Asked::Scope(Scope::Global);
    engine.erase(&global, None, (None, "test".to_owned())).unwrap();
    assert_eq!(engine.search_stats().bytes, 0, "nothing of what was erased stays in memory");
    engine.stop();
}

#[test]
fn an_answer_of_before_is_not_given_to_who_waited_for_a_write() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    submit(&engine, vec![create("n0", "curves")]);
    // 0: no more.
    let current = AtomicU64::new(1);
    std::thread::scope(|scope| {
        // Somebody who asks for it all the time has answers of every moment kept.
        scope.spawn(|| {
            let next = || Some(current.load(Ordering::Relaxed)).filter(|n| *n > 0);
            while let Some(n) = next() {
                found_at(&engine, &format!("n{n}"), 9_000);
            }
        });
        for n in 1..200 {
            current.store(n, Ordering::Relaxed);
            let outcome = engine.submit_blocking(submission(vec![create(&format!("n{n}"), "note")])).unwrap();
            engine.view().wait_for(outcome.last, Wait::Applied, Duration::from_mins(1)).unwrap();
            let (found, _) = found_at(&engine, &format!("n{n}"), 9_000);
            assert_eq!(found, [format!("n{n}")]);
        }
        current.store(0, Ordering::Relaxed);
    });
    engine.stop();
}
