//! The thread's work without the thread: steps, saves, erasures, another fold in place of the one in use.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use caxton_events::log::{Batch, Log, LogOptions, Reader};
use caxton_events::memory::Validity;
use caxton_events::{Draft, Event, MemoryEvent, MemoryId, Seq, Subject, SystemEvent};
use caxton_projections::driver::catch_up;
use caxton_projections::embedding::{EmbedError, Embedder, VectorStore};
use caxton_projections::graph::{Graph, SqliteOptions};
use caxton_projections::projection::Projection as _;
use caxton_projections::vector::{StateError, VectorOptions, Vectors, stored};
use caxton_projections::view::{Part, Positions};
use crossbeam_channel::never;
use tempfile::TempDir;

use super::{Retry, Saving, VectorFold, fold_some};
use crate::engine::erase::{Order, record_order};
use crate::engine::rebuild::{RebuildState, Rebuilds, STOPS, VectorParts};
use crate::engine::testing::{SameVector, changes_are_noted_first, created};
use crate::engine::{EngineOptions, SystemClock};

/// A text with this word in it makes the model fail.
const POISON: &str = "poison";

/// The fold and what it stands on.
struct Desk {
    fold: VectorFold,
    graph: Graph,
    model: Arc<SameVector>,
    /// Texts that the model was asked for.
    asked: Arc<AtomicUsize>,
    is_mended: Arc<AtomicBool>,
    log: Log,
    ids: u64,
    dir: TempDir,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), LogOptions::new([7; 16]), Arc::new(SystemClock)).unwrap();
        let graph = Graph::open(&dir.path().join("graph"), &SqliteOptions::default()).unwrap();
        let (asked, is_mended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, mended) = (Arc::clone(&asked), Arc::clone(&is_mended));
        let model = Arc::new(SameVector::new(move |texts| {
            counter.fetch_add(texts.len(), Ordering::Relaxed);
            let bad = texts.iter().position(|text| text.contains(POISON));
            let bad = bad.filter(|_| !mended.load(Ordering::Relaxed));
            bad.map_or(Ok(()), |index| Err(EmbedError::NotFinite { index }))
        }));
        let store = VectorStore::open(&dir.path().join("vectors"), model.identity()).unwrap();
        let fold = VectorFold {
            vectors: opened(&dir.path().join("vectors"), store, &model),
            graph: graph.reader(),
            scrubs: never(),
            log: log.reader(),
            positions: Arc::new(Positions::new(true)),
            stopping: Arc::new(AtomicBool::new(false)),
            saving: Saving::every(Duration::from_mins(1), Instant::now()),
            records_max: 512,
            offers: never(),
            retry: Retry::default(),
            inherited: None,
        };
        Self { fold, graph, model, asked, is_mended, log, ids: 0, dir }
    }

    fn append(&self, stream: &str, event: Event) -> Seq {
        let (stream, actor) = (stream.to_owned(), "ada".to_owned());
        let draft = Draft { stream, actor, correlation: None, causation: None, event };
        self.log.append(vec![Batch::of(vec![draft])]).unwrap().remove(0).unwrap().last
    }

    /// Records an entity; its number.
    fn create(&mut self, scope: &str, name: &str) -> MemoryId {
        self.ids += 1;
        self.append(scope, created(self.ids, scope.parse().unwrap(), name).into());
        MemoryId(self.ids)
    }

    /// Records what is noted about an entity.
    fn observe(&mut self, scope: &str, entity: MemoryId, content: &str) -> Seq {
        self.ids += 1;
        let (id, content) = (MemoryId(self.ids), content.to_owned());
        let event = MemoryEvent::ObservationAdded { id, entity, content, validity: Validity::default() };
        self.append(scope, event.into())
    }

    fn rows(&self) -> u64 {
        self.fold.vectors.reader().stats().rows
    }
}

fn opened(dir: &Path, store: VectorStore, model: &Arc<SameVector>) -> Vectors {
    opened_with(VectorOptions::default(), dir, store, model)
}

fn opened_with(options: VectorOptions, dir: &Path, store: VectorStore, model: &Arc<SameVector>) -> Vectors {
    let embedder: Arc<dyn Embedder> = Arc::clone(model) as Arc<dyn Embedder>;
    Vectors::open(dir, options, store, embedder).unwrap()
}

#[test]
fn what_fails_again_and_again_is_tried_after_twice_as_long_each_time() {
    let (mut retry, mut now) = (Retry::default(), Instant::now());
    assert!(retry.is_due(now));
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        retry.note(false, now);
        assert!(!retry.is_due(now + Duration::from_millis(seconds * 1_000 - 1)), "{seconds}");
        now += Duration::from_secs(seconds);
        assert!(retry.is_due(now), "{seconds}");
    }
    retry.note(true, now);
    assert!(retry.is_due(now));
    retry.note(false, now);
    assert!(retry.is_due(now + Duration::from_secs(1)), "as after the first");
}

#[test]
fn vectors_are_saved_seldom_where_that_takes_long_and_hardly_ever_where_nothing_of_them_changed() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut saving = Saving::every(Duration::from_mins(1), start);
    assert!(!saving.is_due(after(59), 1, true) && saving.is_due(after(60), 1, true));
    assert!(saving.is_due(after(60), 1, false), "another fold has taken their place");
    assert!(!saving.is_due(after(3_599), 0, true) && saving.is_due(after(3_600), 0, true));
    assert!(!saving.is_due(after(1_000_000), 0, false));
    saving.note(after(60), after(70));
    assert!(!saving.is_due(after(70 + 299), 1, true) && saving.is_due(after(70 + 300), 1, true));
    saving.note(after(500), after(700));
    assert!(!saving.is_due(after(700 + 5_999), 0, true) && saving.is_due(after(700 + 6_000), 0, true));
}

#[test]
fn a_step_ends_with_the_contents_that_it_may_hold() {
    let mut desk = Desk::new();
    let entity = desk.create("global", "much");
    for n in 0..25 {
        desk.observe("global", entity, &format!("{n} {}", "x".repeat(100_000)));
    }
    let (log, head) = (desk.log.reader(), desk.log.reader().head().seq);
    let steps = [(); 3].map(|()| fold_some(&mut desk.fold.vectors, &log, head, 512).unwrap());
    assert_eq!((steps, desk.fold.vectors.checkpoint()), ([12, 11, 3], head));
}

#[test]
fn a_rebuild_goes_by_steps_that_end_with_their_contents_too() {
    let mut desk = Desk::new();
    let entity = desk.create("global", "much");
    let text = "x".repeat(100_000);
    let notes: Vec<Seq> = (0..24).map(|n| desk.observe("global", entity, &format!("{n} {text}"))).collect();
    desk.observe("global", entity, POISON);
    let (store, embedder) = (desk.fold.vectors.store(), Arc::clone(&desk.model) as Arc<dyn Embedder>);
    let parts = VectorParts { store, embedder, options: VectorOptions::default() };
    let shared = (&desk.fold.positions, &desk.fold.stopping);
    let options = EngineOptions::new(desk.dir.path());
    let (rebuilds, _offers) = Rebuilds::new(&options, desk.log.reader(), Some(parts), shared);
    rebuilds.begin(Part::Vectors, "a test".to_owned()).unwrap();
    rebuilds.wait(Part::Vectors, Duration::from_mins(10));
    let rebuild = rebuilds.last(Part::Vectors).unwrap();
    // What stands in front of the third step is folded, before which it was looked whether the server stops.
    assert_eq!((rebuild.state, rebuild.seq), (RebuildState::Failed, notes[21]), "{rebuild:?}");
    rebuilds.join();
}

#[test]
fn records_that_a_scan_did_not_see_do_not_count_as_folded() {
    let mut desk = Desk::new();
    desk.create("global", "seen");
    let (log, head) = (desk.log.reader(), desk.log.reader().head().seq);
    // As where the block is lost that the rest lies in.
    let refused = fold_some(&mut desk.fold.vectors, &log, head.next(), 512).unwrap_err();
    assert!(refused.text.contains("before its head"), "{refused:?}");
    assert_eq!((desk.fold.vectors.checkpoint(), desk.rows()), (Seq::ZERO, 0));
    assert_eq!(fold_some(&mut desk.fold.vectors, &log, head, 512), Ok(1));
}

#[test]
fn at_the_end_vectors_are_saved_unless_they_are() {
    for moved in [false, true] {
        let mut desk = Desk::new();
        desk.create("global", "kept");
        desk.fold.fold_next().unwrap();
        desk.fold.save();
        if moved {
            desk.append("system", SystemEvent::ServerStopped.into());
            desk.fold.fold_next().unwrap();
        }
        let (vectors, head) = (desk.dir.path().join("vectors"), desk.log.reader().head().seq);
        let inode = || fs::metadata(vectors.join("vectors.state")).unwrap().ino();
        let before = inode();
        desk.fold.stopping.store(true, Ordering::Relaxed);
        desk.fold.run();
        assert_eq!(inode() != before, moved);
        assert_eq!(stored(&vectors).unwrap().unwrap().checkpoint, head);
    }
}

#[test]
fn saved_vectors_are_good_only_where_the_log_has_the_records_they_are_of() {
    let mut desk = Desk::new();
    desk.create("global", "lost");
    desk.fold.fold_next().unwrap();
    let (dir, log, model) = (desk.dir.path().join("vectors"), desk.log.reader(), Arc::clone(&desk.model));
    let store = desk.fold.vectors.store();
    let checked = |log: &Reader| opened(&dir, store.clone(), &model).check_log(log);
    desk.fold.save();
    assert!(matches!(checked(&log), Err(StateError::NoLog)), "as an older program saved them");
    desk.fold.vectors.follow(&log);
    desk.fold.save();
    assert!(checked(&log).is_ok());
    desk.append("system", SystemEvent::ServerStopped.into());
    assert!(checked(&log).is_ok(), "it has grown");
    let mut other = Desk::new();
    assert!(checked(&other.log.reader()).is_ok(), "that it is shorter is seen by its end");
    for name in ["other", "more"] {
        other.create("global", name);
        let refused = checked(&other.log.reader());
        assert!(matches!(refused, Err(StateError::OtherLog { checkpoint: Seq(1) })), "{refused:?}");
    }
}

#[test]
fn an_index_that_was_built_behind_the_last_save_is_saved_as_well() {
    let mut desk = Desk::new();
    desk.create("global", "kept");
    desk.fold.fold_next().unwrap();
    desk.fold.save();
    // What is there is due an index all at once.
    let (vectors, store) = (desk.dir.path().join("vectors"), desk.fold.vectors.store());
    let options = VectorOptions { index_from: 1, ..VectorOptions::default() };
    desk.fold.vectors = opened_with(options, &vectors, store, &desk.model);
    desk.fold.vectors.finish_indexes();
    assert_eq!((desk.fold.vectors.unsaved(), desk.fold.has_moved(), desk.fold.unsaved()), (0, false, 1));
    desk.fold.stopping.store(true, Ordering::Relaxed);
    desk.fold.run();
    let mut files = fs::read_dir(&vectors).unwrap().map(|file| file.unwrap().path());
    assert!(files.any(|file| file.extension().is_some_and(|ending| ending == "hnsw")));
}

#[test]
fn what_is_erased_goes_from_files_although_the_model_fails_before_the_order() {
    let mut desk = Desk::new();
    let (ada, bob) = (desk.create("global", "Ada"), desk.create("agent:bob", "Bob"));
    desk.observe("global", ada, "stays");
    desk.observe("agent:bob", bob, "gone");
    desk.fold.fold_next().unwrap();
    let folded = desk.fold.vectors.checkpoint();
    desk.observe("global", ada, POISON);
    desk.fold.fold_next().unwrap_err();
    let subjects: Vec<Subject> = vec!["agent:bob".parse().unwrap()];
    let order = Order {
        seq: Seq::ZERO,
        subjects: subjects.clone(),
        asked: "test".to_owned(),
        keys: Vec::new(),
        events: 2,
        reason: None,
        by: "test".to_owned(),
    };
    record_order(&desk.log, order, MemoryId(100)).unwrap();
    catch_up(&desk.log.reader(), &mut desk.graph, &mut |_, _| ()).unwrap();
    let (asked, changes) = (desk.asked.load(Ordering::Relaxed), desk.fold.positions.memory_changes());
    desk.fold.scrub(&subjects).unwrap();
    assert_eq!((desk.fold.vectors.checkpoint(), desk.rows()), (folded, 2));
    assert_eq!(desk.asked.load(Ordering::Relaxed), asked);
    assert!(desk.fold.positions.memory_changes() > changes);
    let store = desk.fold.vectors.store();
    let is_stored = |text: &str| store.get_slot(text).is_some();
    assert_eq!(
        ["Ada (note)", "stays", "Bob (note)", "gone"].map(is_stored),
        [true, true, false, false],
        "nothing of it is on disk"
    );

    // What is written there since is not of what was erased, neither before the order is folded nor behind it.
    desk.ids = 100;
    desk.create("agent:bob", "Bob again");
    desk.is_mended.store(true, Ordering::Relaxed);
    desk.fold.fold_next().unwrap();
    assert_eq!((desk.fold.vectors.checkpoint(), desk.rows()), (desk.log.reader().head().seq, 4));
    desk.append("system", SystemEvent::ServerStopped.into());
    desk.fold.scrub(&subjects).unwrap();
    assert_eq!((desk.rows(), is_stored("Bob again (note)")), (4, true));
}

#[test]
fn what_was_taken_over_from_a_parent_goes_when_all_is_folded_unless_a_text_here_has_it() {
    let mut desk = Desk::new();
    let store = desk.fold.vectors.store();
    let vector = desk.model.embed(&["any"]).unwrap().remove(0);
    for text in ["Ada (note)", "of the parent"] {
        store.put(text, &vector).unwrap();
    }
    let mark = desk.dir.path().join("vectors").join("inherited");
    fs::write(&mark, "").unwrap();
    desk.fold.inherited = Some(mark.clone());
    desk.create("global", "Ada");
    let is_stored = |text: &str| store.get_slot(text).is_some();
    let kept = |desk: &mut Desk| {
        desk.fold.keep_own();
        [is_stored("Ada (note)"), is_stored("of the parent"), mark.exists()]
    };
    assert_eq!(kept(&mut desk), [true; 3], "nothing is folded yet");
    desk.fold.fold_next().unwrap();
    assert_eq!(kept(&mut desk), [true; 3], "the graph has more texts");
    catch_up(&desk.log.reader(), &mut desk.graph, &mut |_, _| ()).unwrap();
    assert_eq!(kept(&mut desk), [true, false, false]);
    assert_eq!(desk.rows(), 1);
}

#[test]
fn another_fold_is_brought_up_step_by_step_unless_the_engine_stops() {
    let mut desk = Desk::new();
    for n in 0..5 {
        desk.create("global", &format!("thing {n}"));
    }
    desk.fold.fold_next().unwrap();
    desk.fold.records_max = 2;
    let offered = |desk: &Desk| {
        opened(&desk.dir.path().join("vectors.rebuilding"), desk.fold.vectors.store(), &desk.model)
    };
    desk.fold.stopping.store(true, Ordering::Relaxed);
    let fold = offered(&desk);
    assert_eq!(desk.fold.take(fold), Err(STOPS.to_owned()));
    desk.fold.stopping.store(false, Ordering::Relaxed);
    let fold = offered(&desk);
    let head = desk.log.reader().head().seq;
    assert_eq!(desk.fold.take(fold), Ok(head));
    assert_eq!((desk.rows(), desk.fold.positions.get(Part::Vectors).seq), (5, head));
}

#[test]
fn nobody_hears_how_far_the_vectors_are_before_their_change_is_noted() {
    let mut desk = Desk::new();
    let positions = Arc::clone(&desk.fold.positions);
    changes_are_noted_first(&positions, Part::Vectors, |n| {
        desk.create("global", &format!("thing {n}"));
        desk.fold.fold_next().unwrap();
        desk.fold.vectors.checkpoint()
    });
}
