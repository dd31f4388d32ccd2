//! Sweeps over a real log and a real graph in a directory that goes away.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use caxton_events::memory::{Chosen, Later, Validity};
use caxton_events::{Draft, Event, MemoryEvent, MemoryId, Record, Scope, Seq};
use caxton_projections::graph::{EntityFilter, RelationFilter};

use super::cleanup::{Cleanup, First, Swept};
use super::{Engine, EngineOptions, Submission, SubmitError, UndoAsk, Wait};
use crate::commands::{EntityRef, NewEntity, NewObservation, NewRelation, OnExisting, RelationChange, Write};

const ON: &(dyn Fn() -> bool + Sync) = &|| true;

fn start(dir: &Path) -> Engine {
    Engine::start(&EngineOptions::new(dir), &mut |_| {}).unwrap()
}

fn submit(engine: &Engine, actor: &str, write: Write) -> MemoryId {
    let submission = Submission {
        actor: actor.parse().unwrap(),
        workspace: "lab".parse().unwrap(),
        named: None,
        correlation: None,
        causation: None,
        idempotency: None,
        writes: vec![write],
        atomic: true,
        wait: Wait::Applied,
    };
    engine.submit_blocking(submission).unwrap().results[0].as_ref().unwrap().id
}

fn observation(text: &str) -> NewObservation {
    NewObservation { content: text.to_owned(), validity: Validity::default() }
}

/// An entity of the agent's own.
fn create(engine: &Engine, actor: &str, name: &str, text: &str) -> MemoryId {
    let entity = NewEntity {
        scope: Scope::Agent(actor.parse().unwrap()),
        name: name.to_owned(),
        entity_type: "note".to_owned(),
        observations: vec![observation(text)],
        metadata: None,
        confidence: 1.0,
        validity: Validity::default(),
        on_existing: OnExisting::Merge,
    };
    submit(engine, actor, Write::CreateEntity(entity))
}

fn note(engine: &Engine, actor: &str, id: MemoryId, text: &str) {
    let entity = EntityRef::Id { id, scopes: Vec::new() };
    submit(engine, actor, Write::AddObservations { entity, observations: vec![observation(text)] });
}

fn relate(engine: &Engine, from: MemoryId, to: MemoryId, relation_type: &str, strength: f64) -> MemoryId {
    let entity = |id| EntityRef::Id { id, scopes: Vec::new() };
    let relation = NewRelation {
        scope: Scope::Agent("ada".parse().unwrap()),
        from: entity(from),
        to: entity(to),
        relation_type: relation_type.to_owned(),
        strength,
        confidence: 1.0,
        metadata: None,
        validity: Validity::default(),
        bidirectional: false,
        on_existing: OnExisting::Merge,
    };
    submit(engine, "ada", Write::CreateRelation(relation))
}

fn names(engine: &Engine) -> Vec<String> {
    let filter = EntityFilter { limit: 100, ..EntityFilter::default() };
    let entities = engine.view().graph().list_entities(&filter).unwrap();
    entities.into_iter().map(|entity| entity.name).collect()
}

fn relations(engine: &Engine) -> Vec<MemoryId> {
    let filter = RelationFilter { limit: 100, ..RelationFilter::default() };
    engine.view().graph().list_relations(&filter).unwrap().into_iter().map(|relation| relation.id).collect()
}

fn records(engine: &Engine, from: Seq) -> Vec<Record> {
    engine.log().scan(from, &caxton_events::log::Filter::default()).map(Result::unwrap).collect()
}

#[test]
fn what_goes_first_is_what_the_strategy_says() {
    for (first, kept) in [
        (First::LeastUsed, ["read", "noted"]),
        (First::Oldest, ["newest", "noted"]),
        (First::Largest, ["read", "newest"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let engine = start(dir.path());
        let cleanup = Cleanup { entities_max: Some(2), batch: 1, first, threads: 3, ..Cleanup::default() };
        engine.expect_sweeps(&cleanup);
        let [read, _, noted, _] = [
            ("ada", "read", "a few"),
            ("bob", "large", "many words, more than others"),
            ("ada", "noted", "so"),
            ("bob", "newest", "none"),
        ]
        .map(|(actor, name, text)| create(&engine, actor, name, text));
        note(&engine, "ada", noted, "and so on, and on, and on, at length");
        engine.view().shown([read]);
        let before = engine.log().head().seq;
        let swept = engine.sweep(&cleanup, ON).unwrap();
        let mut left = names(&engine);
        left.sort_by_key(|name| kept.iter().position(|kept| kept == name));
        assert_eq!(left, kept, "{first:?}");
        let last = engine.log().head().seq;
        assert_eq!(swept, Swept { entities: 2, relations: 0, events: Some((before.next(), last)) });
        let correlation = format!("cleanup-{}", before.0);
        for record in records(&engine, before.next()) {
            assert_eq!(
                (record.actor.as_str(), record.correlation.as_deref()),
                ("system", Some(correlation.as_str()))
            );
        }
        assert!(!engine.view().graph().agent_known(&"system".parse().unwrap()).unwrap());
        assert_eq!(engine.sweep(&cleanup, ON).unwrap(), Swept::default(), "it is enough");
        assert_eq!(engine.log().head().seq, last);
        engine.stop();
    }
}

#[test]
fn relations_above_the_limit_go_and_can_be_taken_back() {
    for (first, kept) in [(First::LeastUsed, 0), (First::Oldest, 2)] {
        let dir = tempfile::tempdir().unwrap();
        let engine = start(dir.path());
        let [a, b] = ["a", "b"].map(|name| create(&engine, "ada", name, "x"));
        let made = [("strong", 0.9), ("weak", 0.1), ("young", 0.5)]
            .map(|(kind, strength)| relate(&engine, a, b, kind, strength));
        let cleanup = Cleanup { relations_max: Some(1), first, ..Cleanup::default() };
        let swept = engine.sweep(&cleanup, ON).unwrap();
        assert_eq!((swept.relations, relations(&engine)), (2, vec![made[kept]]), "{first:?}");
        let correlation = records(&engine, swept.events.unwrap().0)[0].correlation.clone();
        let ask = UndoAsk {
            chosen: Chosen { correlation, ..Chosen::default() },
            later: Later::Refuse,
            by: None,
            correlation: None,
            idempotency: None,
            wait: Wait::Applied,
        };
        tokio::runtime::Runtime::new().unwrap().block_on(engine.undo(ask)).unwrap();
        assert_eq!(relations(&engine), made);
        engine.stop();
    }
}

#[test]
fn what_is_used_or_changed_meanwhile_stays() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    let cleanup = Cleanup { entities_max: Some(2), batch: 1, orphans: false, ..Cleanup::default() };
    engine.expect_sweeps(&cleanup);
    let ids = ["first", "noted", "read", "fourth", "fifth"].map(|name| create(&engine, "ada", name, "x"));
    // Asked before the first choice and after each step: then two more were chosen already.
    let asked = AtomicU32::new(0);
    let between = || {
        if asked.fetch_add(1, Ordering::Relaxed) == 1 {
            note(&engine, "ada", ids[1], "of interest again");
            engine.view().shown([ids[2]]);
        }
        true
    };
    let swept = engine.sweep(&cleanup, &between).unwrap();
    assert_eq!((swept.entities, names(&engine)), (3, vec!["noted".to_owned(), "read".to_owned()]));
    engine.stop();
}

#[test]
fn an_entity_of_which_something_is_noted_after_it_was_chosen_stays_whatever_goes_first() {
    for first in [First::LeastUsed, First::Oldest, First::Largest] {
        let dir = tempfile::tempdir().unwrap();
        let engine = start(dir.path());
        let ids = ["first", "noted", "third"].map(|name| create(&engine, "ada", name, "x"));
        let cleanup =
            Cleanup { entities_max: Some(1), batch: 1, orphans: false, first, ..Cleanup::default() };
        let asked = AtomicU32::new(0);
        // Two were chosen. Behind the second step the sweep ends, or it would choose anew.
        let between = || {
            let count = asked.fetch_add(1, Ordering::Relaxed);
            if count == 1 {
                note(&engine, "ada", ids[1], "of interest again");
            }
            count < 2
        };
        let swept = engine.sweep(&cleanup, &between).unwrap();
        let mut left = names(&engine);
        left.sort();
        assert_eq!((swept.entities, left), (1, vec!["noted".to_owned(), "third".to_owned()]), "{first:?}");
        engine.stop();
    }
}

#[test]
fn a_relation_that_is_changed_after_it_was_chosen_stays_whatever_goes_first() {
    for first in [First::LeastUsed, First::Oldest, First::Largest] {
        let dir = tempfile::tempdir().unwrap();
        let engine = start(dir.path());
        let [a, b] = ["a", "b"].map(|name| create(&engine, "ada", name, "x"));
        let made = ["one", "two", "three", "four"].map(|kind| relate(&engine, a, b, kind, 0.5));
        let strengthened = RelationChange {
            id: made[1],
            strength: Some(1.0),
            confidence: None,
            metadata: None,
            validity: None,
        };
        let cleanup =
            Cleanup { relations_max: Some(1), batch: 1, orphans: false, first, ..Cleanup::default() };
        let asked = AtomicU32::new(0);
        // Before the choice and after each step: then two more were chosen already.
        let between = || {
            if asked.fetch_add(1, Ordering::Relaxed) == 1 {
                submit(&engine, "ada", Write::UpdateRelation(strengthened.clone()));
            }
            true
        };
        let swept = engine.sweep(&cleanup, &between).unwrap();
        assert_eq!((swept.relations, relations(&engine)), (3, vec![made[1]]), "{first:?}");
        engine.stop();
    }
}

#[test]
fn a_sweep_ends_between_two_steps_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    for number in 0..5 {
        create(&engine, "ada", &format!("n{number}"), "x");
    }
    let cleanup = Cleanup { entities_max: Some(1), batch: 2, orphans: false, ..Cleanup::default() };
    let asked = AtomicU32::new(0);
    let once = || asked.fetch_add(1, Ordering::Relaxed) < 1;
    assert_eq!(engine.sweep(&cleanup, &once).unwrap().entities, 2);
    assert_eq!(engine.sweep(&cleanup, &|| false).unwrap(), Swept::default());
    engine.stop();
    let ended = engine.sweep(&cleanup, ON);
    assert!(matches!(ended, Err(super::cleanup::SweepError::Submit(SubmitError::Stopped))), "{ended:?}");
}

#[test]
fn relations_that_lack_an_end_go_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let engine = start(dir.path());
    // The rules let no such relation come to be; a log from elsewhere may hold one.
    let entity = MemoryEvent::EntityCreated {
        id: MemoryId(101),
        scope: Scope::Global,
        name: "a".to_owned(),
        entity_type: "thing".to_owned(),
        metadata: None,
        confidence: 1.0,
        validity: Validity::default(),
    };
    let relation = MemoryEvent::RelationCreated {
        id: MemoryId(102),
        scope: Scope::Global,
        from: MemoryId(101),
        to: MemoryId(77),
        relation_type: "leads nowhere".to_owned(),
        strength: 1.0,
        confidence: 1.0,
        metadata: None,
        validity: Validity::default(),
    };
    let draft = |event: MemoryEvent| Draft {
        stream: "global".to_owned(),
        actor: "ada".to_owned(),
        correlation: None,
        causation: None,
        event: Event::Memory(event),
    };
    engine.record(vec![draft(entity), draft(relation)]).unwrap();
    create(&engine, "ada", "b", "what is recorded is folded by now");
    let keep = Cleanup { orphans: false, ..Cleanup::default() };
    assert_eq!(
        (engine.sweep(&keep, ON).unwrap(), relations(&engine)),
        (Swept::default(), vec![MemoryId(102)])
    );
    let swept = engine.sweep(&Cleanup { threads: 2, ..Cleanup::default() }, ON).unwrap();
    assert_eq!((swept.relations, relations(&engine), names(&engine).len()), (1, Vec::new(), 2));
    engine.stop();
}
