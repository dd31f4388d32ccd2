//! The memory writer without its thread: groups of commands that the log does not take as they are, and a graph that stopped.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caxton_events::log::{AppendError, Batch, Filter, Log, LogOptions};
use caxton_events::memory::Validity;
use caxton_events::{Draft, Event, Kind, MemoryEvent, Scope, Seq, Subject, SystemEvent};
use caxton_projections::driver::catch_up;
use caxton_projections::graph::{Graph, SqliteOptions};
use caxton_projections::swap::Place;
use caxton_projections::talk::TalkStore;
use caxton_projections::view::{Part, Positions};
use crossbeam_channel::{bounded, never};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::SystemClock;
use super::memory_writer::{Limits, MemoryWriter, Pending};
use super::steps::{StepLimits, Steps};
use super::submission::{Outcome, Submission, SubmitError, Wait};
use super::testing::{changes_are_noted_first, created};
use crate::commands::{
    EntityRef, Ids, NewEntity, NewObservation, OnExisting, RefusalCode, SweptRow, Write, WriteStatus,
};

type Answered = oneshot::Receiver<Result<Outcome, SubmitError>>;

/// The writer and what it stands on.
struct Desk {
    writer: MemoryWriter,
    log: Arc<Log>,
    dir: TempDir,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), LogOptions::new([7; 16]), Arc::new(SystemClock)).unwrap();
        let log = Arc::new(log);
        let (sqlite, place) = (SqliteOptions::default(), Place::new(dir.path(), Part::Graph.name()));
        let graph = Graph::open(place.current(), &sqlite).unwrap();
        let reader = graph.reader();
        let positions = Arc::new(Positions::new(false));
        // Nobody waits until agents are known.
        positions.advance(Part::Talk, Seq(u64::MAX));
        let (nudge, _) = bounded(1);
        let (talk, _) = TalkStore::open(&dir.path().join("talk")).unwrap();
        let writer = MemoryWriter {
            log: Arc::clone(&log),
            graph: Some(graph),
            awaited: None,
            ids: Ids::starting_at(reader.next_id().unwrap()),
            reader,
            place,
            sqlite,
            offers: never(),
            positions,
            commands: never(),
            erasures: never(),
            limits: Limits { group_writes_max: 1_000, analyze_every: Duration::from_mins(1) },
            steps: Steps::new(StepLimits::default()),
            deferred: Vec::new(),
            undo_next: None,
            talk: talk.reader(),
            nudge,
            damaged: Arc::new(AtomicBool::new(false)),
        };
        Self { writer, log, dir }
    }

    /// Commits a group while the log takes nothing of this scope.
    fn commit_while_held(&mut self, scope: &str, group: Vec<Pending>) {
        let subjects: [Subject; 1] = [scope.parse().unwrap()];
        let log = Arc::clone(&self.log);
        let erased = log.erase(&subjects, |_| {
            self.writer.commit(group);
            Draft {
                stream: "system".to_owned(),
                actor: "system".to_owned(),
                correlation: None,
                causation: None,
                event: SystemEvent::ServerStopped.into(),
            }
        });
        erased.unwrap();
    }

    /// The names of the entities that were recorded, in their order.
    fn recorded(&self) -> Vec<String> {
        let filter = Filter { kinds: Some(vec![Kind::EntityCreated]), ..Filter::default() };
        let names = self.log.reader().scan(Seq::FIRST, &filter).map(|record| {
            let Event::Memory(MemoryEvent::EntityCreated { name, .. }) = record.unwrap().event else {
                panic!("it is of another kind");
            };
            name
        });
        names.collect()
    }
}

fn create(scope: &str, name: &str) -> Write {
    Write::CreateEntity(NewEntity {
        scope: scope.parse().unwrap(),
        name: name.to_owned(),
        entity_type: "note".to_owned(),
        observations: Vec::new(),
        metadata: None,
        confidence: 1.0,
        validity: Validity::default(),
        on_existing: OnExisting::Merge,
    })
}

fn observe(name: &str) -> Write {
    let entity = EntityRef::Named { name: name.to_owned(), scopes: vec![Scope::Global] };
    let observations = vec![NewObservation { content: "is hot".to_owned(), validity: Validity::default() }];
    Write::AddObservations { entity, observations }
}

fn asked(actor: &str, writes: Vec<Write>) -> (Pending, Answered) {
    let (answer, answered) = oneshot::channel();
    let submission = Submission {
        actor: actor.parse().unwrap(),
        workspace: "lab".parse().unwrap(),
        named: None,
        correlation: None,
        causation: None,
        idempotency: None,
        writes,
        atomic: true,
        wait: Wait::Applied,
    };
    (Pending { submission, everywhere: false, answer }, answered)
}

/// The answer, which must be there.
#[track_caller]
fn told(answered: &mut Answered) -> Result<Outcome, SubmitError> {
    answered.try_recv().unwrap()
}

fn status(outcome: &Outcome) -> WriteStatus {
    outcome.results[0].as_ref().unwrap().status
}

#[test]
fn what_was_decided_on_a_command_that_the_log_refused_is_decided_again() {
    let mut desk = Desk::new();
    let (held, mut of_held) = asked("ada", vec![create("global", "tea"), create("agent:ada", "diary")]);
    let (on_it, mut of_on_it) = asked("bob", vec![observe("tea")]);
    let (alone, mut of_alone) = asked("eve", vec![create("global", "rain")]);
    let (same, mut of_same) = asked("joe", vec![create("global", "tea")]);
    let (again, mut of_again) = asked("joe", vec![create("global", "tea")]);
    desk.commit_while_held("agent:ada", vec![held, on_it, alone, same, again]);
    let refused = told(&mut of_held);
    assert!(
        matches!(&refused, Err(SubmitError::Log(AppendError::BeingErased { stream })) if stream == "agent:ada"),
        "{refused:?}"
    );
    match told(&mut of_on_it) {
        Err(SubmitError::Refused(refusals)) => assert_eq!(refusals[0].code, RefusalCode::EntityNotFound),
        other => panic!("{other:?}"),
    }
    let (alone, same) = (told(&mut of_alone).unwrap(), told(&mut of_same).unwrap());
    assert_eq!((status(&alone), status(&same)), (WriteStatus::Created, WriteStatus::Created));
    // What is there already is told of once it is recorded, with a place that includes it.
    let again = told(&mut of_again).unwrap();
    assert_eq!(status(&again), WriteStatus::Unchanged);
    assert!(alone.last < same.last && same.last <= again.last);
    assert_eq!(desk.recorded(), ["rain", "tea"]);

    // What was recorded can be folded, by a graph that begins anew too.
    desk.writer.fold_to_head().unwrap();
    let mut anew = Graph::open(&desk.dir.path().join("anew"), &SqliteOptions::default()).unwrap();
    catch_up(&desk.log.reader(), &mut anew, &mut |_, _| ()).unwrap();
    assert_eq!(anew.reader().digest().unwrap(), desk.writer.reader.digest().unwrap());
}

#[test]
fn a_refusal_is_told_when_what_it_rests_on_is_recorded() {
    let only_new = |name: &str| {
        let Write::CreateEntity(entity) = create("global", name) else { panic!("it is another") };
        Write::CreateEntity(NewEntity { on_existing: OnExisting::Refuse, ..entity })
    };
    let mut desk = Desk::new();
    let (held, mut of_held) = asked("ada", vec![create("global", "tea"), create("agent:ada", "diary")]);
    let (tea, mut of_tea) = asked("bob", vec![only_new("tea")]);
    let (rain, mut of_rain) = asked("eve", vec![create("global", "rain")]);
    let (again, mut of_again) = asked("joe", vec![only_new("rain")]);
    desk.commit_while_held("agent:ada", vec![held, tea, rain, again]);
    told(&mut of_held).unwrap_err();
    // There is no tea of ada's that bob's could be one too many beside.
    assert_eq!(status(&told(&mut of_tea).unwrap()), WriteStatus::Created);
    assert_eq!(status(&told(&mut of_rain).unwrap()), WriteStatus::Created);
    let refused = told(&mut of_again);
    assert!(
        matches!(&refused, Err(SubmitError::Refused(refusals)) if refusals[0].code == RefusalCode::AlreadyExists),
        "{refused:?}"
    );
    assert_eq!(desk.recorded(), ["tea", "rain"]);
}

#[test]
fn a_sweep_leaves_alone_what_was_changed_in_front_of_it() {
    let mut desk = Desk::new();
    let (both, mut of_both) = asked("ada", vec![create("global", "tea"), create("global", "rain")]);
    desk.writer.commit(vec![both]);
    let rows = told(&mut of_both).unwrap().results.into_iter().map(|row| SweptRow::Entity(row.unwrap().id));
    // Both were chosen behind this record; the note comes in the group in which they are to go.
    let since = desk.log.head().seq;
    let (noted, _of_noted) = asked("bob", vec![observe("tea")]);
    let (mut sweep, mut of_sweep) = asked("system", rows.map(|row| Write::Sweep { row, since }).collect());
    (sweep.everywhere, sweep.submission.atomic) = (true, false);
    desk.writer.commit(vec![noted, sweep]);
    let results = told(&mut of_sweep).unwrap().results;
    assert_eq!(results[0].as_ref().unwrap_err().code, RefusalCode::VersionConflict);
    assert_eq!(results[1].as_ref().unwrap().status, WriteStatus::Removed);
}

#[test]
fn a_group_of_which_the_log_refuses_one_after_another_is_turned_away_in_the_end() {
    let mut desk = Desk::new();
    let names = ["a", "b", "c", "d", "e"];
    let held = names.map(|name| asked("ada", vec![create("agent:ada", name)]));
    let (mut group, mut answers): (Vec<Pending>, Vec<Answered>) = held.into_iter().unzip();
    let (last, of_last) = asked("eve", vec![create("global", "rain")]);
    group.push(last);
    answers.push(of_last);
    desk.commit_while_held("agent:ada", group);
    for (at, answered) in answers.iter_mut().enumerate() {
        let told = told(answered);
        let as_expected = match &told {
            Err(SubmitError::Log(AppendError::BeingErased { .. })) => at < 4,
            Err(SubmitError::Overloaded) => at >= 4,
            _ => false,
        };
        assert!(as_expected, "{at}: {told:?}");
    }
    assert!(desk.recorded().is_empty());
    let (rain, mut of_rain) = asked("eve", vec![create("global", "rain")]);
    desk.writer.commit(vec![rain]);
    assert_eq!(status(&told(&mut of_rain).unwrap()), WriteStatus::Created);
}

#[test]
fn a_graph_that_stopped_for_a_cause_that_may_pass_is_tried_again() {
    let mut desk = Desk::new();
    let positions = Arc::clone(&desk.writer.positions);
    let stopped = || positions.get(Part::Graph).stopped;
    let record = |id| {
        let event = created(id, Scope::Global, &format!("thing {id}"));
        let (stream, actor) = ("global".to_owned(), "ada".to_owned());
        let draft = Draft { stream, actor, correlation: None, causation: None, event: event.into() };
        desk.log.append(vec![Batch::of(vec![draft])]).unwrap().remove(0).unwrap();
    };
    assert!(!desk.writer.fold_rest(), "there is nothing");

    // The log has it and the graph has not: its disk was full for a moment.
    record(1);
    positions.stop(Part::Graph, "database or disk is full".to_owned());
    let changes = positions.memory_changes();
    assert!(desk.writer.fold_rest());
    assert_eq!((stopped(), positions.get(Part::Graph).seq), (None, desk.log.head().seq));
    assert!(positions.memory_changes() > changes, "answers of before do not hold");
    assert!(!desk.writer.fold_rest(), "once is enough");

    // It may also have all of it by now.
    positions.stop(Part::Graph, "database or disk is full".to_owned());
    assert!(desk.writer.fold_rest());
    assert_eq!(stopped(), None);

    // A damaged one is left alone.
    record(2);
    desk.writer.damaged.store(true, Ordering::Relaxed);
    positions.stop(Part::Graph, "its file is damaged".to_owned());
    assert!(!desk.writer.fold_rest());
    assert_eq!(stopped().as_deref(), Some("its file is damaged"));
}

#[test]
fn nobody_hears_how_far_the_graph_is_before_its_change_is_noted() {
    let mut desk = Desk::new();
    let positions = Arc::clone(&desk.writer.positions);
    changes_are_noted_first(&positions, Part::Graph, |n| {
        let (pending, mut answered) = asked("ada", vec![create("global", &format!("thing {n}"))]);
        desk.writer.commit(vec![pending]);
        told(&mut answered).unwrap().last
    });
}
