//! Replaying logs that a test wrote, with a watch that the test moves.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caxton_events::log::{Batch, Log, LogOptions, Reader};
use caxton_events::memory::Validity;
use caxton_events::{AgentEvent, Clock, Draft, Event, MemoryEvent, MemoryId, Scope, Seq, Timestamp};
use caxton_projections::driver::catch_up;
use caxton_projections::graph::{Graph, SqliteOptions};
use tempfile::TempDir;

use super::{FoldedPart, Options, Pace, Projections, Range, ReplayError, Watch, pace, replay, replay_into};

/// A clock that says what it was told.
#[derive(Default)]
struct Told(AtomicU64);

impl Clock for Told {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(self.0.load(Ordering::Relaxed))
    }
}

/// A watch on which every look takes a microsecond, and whose waits take no time of the test's.
#[derive(Default)]
struct Fake {
    micros: AtomicU64,
    waits: std::sync::Mutex<Vec<Duration>>,
}

impl Watch for Fake {
    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.micros.fetch_add(1, Ordering::Relaxed))
    }

    fn wait_until(&self, at: Duration) {
        self.waits.lock().unwrap().push(at);
        self.micros.store(at.as_micros() as u64, Ordering::Relaxed);
    }
}

fn draft(event: impl Into<Event>) -> Draft {
    Draft {
        stream: "agent:ada".to_owned(),
        actor: "ada".to_owned(),
        correlation: None,
        causation: None,
        event: event.into(),
    }
}

fn entity(id: u64) -> Draft {
    draft(MemoryEvent::EntityCreated {
        id: MemoryId(id),
        scope: Scope::Agent("ada".parse().unwrap()),
        name: format!("entity {id}"),
        entity_type: "thing".to_owned(),
        metadata: None,
        confidence: 1.0,
        validity: Validity::default(),
    })
}

fn observation(id: u64, entity: u64) -> Draft {
    let (id, entity) = (MemoryId(id), MemoryId(entity));
    let content = format!("observation {id}");
    draft(MemoryEvent::ObservationAdded { id, entity, content, validity: Validity::default() })
}

/// A closed log with `seconds.len()` events, recorded at these seconds: entities and observations in turns.
fn log(dir: &Path, seconds: &[u64]) -> Reader {
    let clock = Arc::new(Told::default());
    let log = Log::open(dir, LogOptions::new([7; 16]), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    for (n, at) in (1..).zip(seconds) {
        clock.0.store(at * 1_000_000, Ordering::Relaxed);
        let event = if n % 2 == 1 { entity(n) } else { observation(n, n - 1) };
        log.append(vec![Batch::of(vec![event])]).unwrap().remove(0).unwrap();
    }
    log.close().unwrap();
    Log::open_read_only(dir).unwrap()
}

fn of_seconds(seconds: &[u64]) -> (TempDir, Reader) {
    let dir = TempDir::new().unwrap();
    let reader = log(dir.path(), seconds);
    (dir, reader)
}

fn range(from: impl Into<Option<u64>>, to: impl Into<Option<u64>>) -> Range {
    Range { from: from.into().map(Seq), to: to.into().map(Seq), ..Range::default() }
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_unix_micros(second * 1_000_000)
}

#[test]
fn a_range_into_nothing_is_counted_by_kind_on_one_thread_and_on_two() {
    let (_dir, reader) = of_seconds(&[10; 9]);
    for two_threads in [false, true] {
        for (range, events, entities) in [
            (Range::default(), 9, 5),
            (range(2, 5), 4, 2),
            (range(9, None), 1, 1),
            (Range { recorded_to: Some(at(10)), ..Range::default() }, 9, 5),
        ] {
            let options = Options { range, two_threads, ..Options::default() };
            let mut heard = (0, 0);
            let replayed =
                replay(&reader, &options, &Fake::default(), &mut |done, all| heard = (done, all)).unwrap();
            assert_eq!(replayed.events, events, "{range:?}");
            assert_eq!(replayed.kinds.get("memory.entity_created"), Some(&entities), "{range:?}");
            assert_eq!(heard, (events, events), "{range:?}");
            let latency = replayed.latency.unwrap();
            assert!(latency.count >= 1 && latency.max_micros >= latency.p50_micros);
            assert!(replayed.events_per_second > 0.0 && replayed.bytes > 0);
        }
    }
}

#[test]
fn times_cut_a_range_and_both_ends_are_included() {
    let (_dir, reader) = of_seconds(&[10, 20, 20, 30, 40]);
    for (from, to, first, last) in
        [(20, 30, 2, 4), (11, 39, 2, 4), (0, 10, 1, 1), (40, 99, 5, 5), (0, 99, 1, 5)]
    {
        let range = Range { recorded_from: Some(at(from)), recorded_to: Some(at(to)), ..Range::default() };
        let options = Options { range, ..Options::default() };
        let replayed = replay(&reader, &options, &Fake::default(), &mut |_, _| ()).unwrap();
        assert_eq!(
            (replayed.first_seq, replayed.last_seq),
            (Some(Seq(first)), Some(Seq(last))),
            "{from}..{to}"
        );
    }
}

#[test]
fn a_range_that_is_none_is_refused_with_what_to_do() {
    let (_dir, reader) = of_seconds(&[10, 20, 30]);
    let times =
        |from, to| Range { recorded_from: Some(at(from)), recorded_to: Some(at(to)), ..Range::default() };
    for (range, says) in [
        (range(0, None), "from-seq is 0, the first event is 1"),
        (range(None, 4), "to-seq is #4, the log ends at #3; give a position up to that"),
        (range(4, None), "from-seq is #4, the log ends at #3; give a position up to that"),
        (range(3, 2), "from-seq #3 lies behind to-seq #2; exchange them"),
        (times(30, 10), "from-time 1970-01-01T00:00:30.000000Z lies behind to-time"),
        (times(21, 29), "no event lies in this range"),
    ] {
        let options = Options { range, ..Options::default() };
        let error = replay(&reader, &options, &Fake::default(), &mut |_, _| ()).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    let empty = TempDir::new().unwrap();
    Log::open(empty.path(), LogOptions::new([7; 16]), Arc::new(Told::default())).unwrap().close().unwrap();
    let reader = Log::open_read_only(empty.path()).unwrap();
    let error = replay(&reader, &Options::default(), &Fake::default(), &mut |_, _| ()).unwrap_err();
    assert_eq!(error.to_string(), "the log is empty: there is nothing to replay");
}

/// When events recorded at `seconds` are waited for at this speed.
#[track_caller]
fn check_waits(seconds: &[u64], times: f64, millis: &[u64]) {
    let (_dir, reader) = of_seconds(seconds);
    let watch = Fake::default();
    let options = Options { pace: Pace::Times(times), ..Options::default() };
    let replayed = replay(&reader, &options, &watch, &mut |_, _| ()).unwrap();
    let waits: Vec<u64> = watch.waits.lock().unwrap().iter().map(|at| at.as_millis() as u64).collect();
    assert_eq!(waits, millis, "× {times}");
    let late = replayed.late.unwrap();
    assert_eq!(late.count, seconds.len() as u64);
    assert!(late.max_micros < 1_000.0, "{late}");
}

#[test]
fn events_are_due_as_they_were_recorded_or_so_many_times_as_fast() {
    check_waits(&[100, 101, 101, 103, 110], 1.0, &[1_000, 3_000, 10_000]);
    check_waits(&[100, 101, 101, 103, 110], 10.0, &[100, 300, 1_000]);
    check_waits(&[100, 101, 101, 103, 110], 0.5, &[2_000, 6_000, 20_000]);
    check_waits(&[5, 5, 5], 1.0, &[]);
}

#[test]
fn a_moment_so_far_away_that_it_has_no_number_is_never_due() {
    let far = pace::due(Timestamp::EPOCH, Timestamp::from_unix_micros(u64::MAX), f64::MIN_POSITIVE);
    assert_eq!(far, Duration::MAX);
}

#[test]
fn a_replay_at_recorded_speed_folds_the_same_graph_as_one_at_full_speed() {
    let (_dir, reader) = of_seconds(&[1, 1, 2, 3, 3, 4]);
    let fold = |pace| {
        let dir = TempDir::new().unwrap();
        let projections =
            Projections::create(&dir.path().join("new"), &SqliteOptions::default(), None).unwrap();
        let mode = fs::metadata(dir.path().join("new")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "what agents remember is its owner's alone");
        let options = Options { pace, ..Options::default() };
        let watch = Fake::default();
        let replayed = replay_into(&reader, &options, projections, &watch, &mut |_, _| ()).unwrap();
        let waits = watch.waits.lock().unwrap().len();
        (replayed.into.unwrap(), replayed.latency.unwrap().count, waits)
    };
    let (at_once, batches, waits) = fold(Pace::Full);
    assert_eq!((batches, waits), (1, 0));
    let (in_time, batches, waits) = fold(Pace::Times(1.0));
    assert_eq!((batches, waits), (4, 3), "one batch for each second");
    assert_eq!(at_once.parts, in_time.parts);
}

#[test]
fn a_replay_up_to_a_position_has_the_graph_that_was_there() {
    let (_dir, reader) = of_seconds(&[10; 9]);
    for to in [1, 4, 9] {
        let source = TempDir::new().unwrap();
        let cut = log(source.path(), &vec![10; to as usize]);
        let mut graph = Graph::open(&source.path().join("graph"), &SqliteOptions::default()).unwrap();
        catch_up(&cut, &mut graph, &mut |_, _| ()).unwrap();
        let dir = TempDir::new().unwrap();
        let projections = Projections::create(dir.path(), &SqliteOptions::default(), None).unwrap();
        let options = Options { range: range(None, to), ..Options::default() };
        let replayed = replay_into(&reader, &options, projections, &Fake::default(), &mut |_, _| ()).unwrap();
        let folded = replayed.into.unwrap();
        let there: Vec<FoldedPart> =
            graph.reader().parts().unwrap().into_iter().map(FoldedPart::from).collect();
        assert_eq!(folded.parts[..there.len()], there, "to {to}");
        let again = Graph::open(&dir.path().join("graph"), &SqliteOptions::default()).unwrap();
        assert_eq!(again.reader().checkpoint().unwrap(), Seq(to), "what was folded is on disk");
    }
}

#[test]
fn projections_are_not_begun_in_the_middle_nor_beside_something_else() {
    let (dir, reader) = of_seconds(&[10, 20]);
    let fresh = TempDir::new().unwrap();
    let create = |dir: &Path| Projections::create(dir, &SqliteOptions::default(), None);
    for range in [range(2, None), Range { recorded_from: Some(at(20)), ..Range::default() }] {
        let projections = create(&fresh.path().join(format!("{range:?}").len().to_string())).unwrap();
        let options = Options { range, ..Options::default() };
        let error =
            replay_into(&reader, &options, projections, &Fake::default(), &mut |_, _| ()).unwrap_err();
        assert!(error.to_string().starts_with("a projection adds up from the first event"), "{error}");
    }
    let error = create(dir.path()).unwrap_err();
    assert!(error.to_string().ends_with("is not empty; name an empty or a new directory"), "{error}");
    let options = Options { two_threads: true, pace: Pace::Times(1.0), ..Options::default() };
    let error = replay(&reader, &options, &Fake::default(), &mut |_, _| ()).unwrap_err();
    assert!(matches!(error, ReplayError::Ordered));
}

#[test]
fn agents_are_folded_too() {
    let dir = TempDir::new().unwrap();
    let log = Log::open(dir.path(), LogOptions::new([7; 16]), Arc::new(Told::default())).unwrap();
    let registered = |name: &str| AgentEvent::ExternalRegistered {
        agent: name.parse().unwrap(),
        workspace: "lab".parse().unwrap(),
    };
    let drafts = vec![draft(registered("ada")), draft(registered("bob"))];
    log.append(vec![Batch::of(drafts)]).unwrap().remove(0).unwrap();
    log.close().unwrap();
    let reader = Log::open_read_only(dir.path()).unwrap();
    let digest = |to| {
        let fresh = TempDir::new().unwrap();
        let projections = Projections::create(fresh.path(), &SqliteOptions::default(), None).unwrap();
        let options = Options { range: range(None, to), ..Options::default() };
        let replayed = replay_into(&reader, &options, projections, &Fake::default(), &mut |_, _| ()).unwrap();
        replayed.into.unwrap().parts
    };
    assert_eq!(digest(2), digest(2));
    assert_ne!(digest(1), digest(2));
}

#[test]
fn a_speed_is_read_in_each_of_its_forms() {
    for (text, then) in [
        ("full", Some(Pace::Full)),
        ("recorded", Some(Pace::Times(1.0))),
        ("10", Some(Pace::Times(10.0))),
        ("x0.5", Some(Pace::Times(0.5))),
        ("×2", Some(Pace::Times(2.0))),
        ("0", None),
        ("-1", None),
        ("inf", None),
        ("NaN", None),
        ("fast", None),
        ("", None),
    ] {
        assert_eq!(text.parse::<Pace>().ok(), then, "{text:?}");
    }
}
