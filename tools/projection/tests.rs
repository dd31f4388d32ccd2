//! Projections of small logs, built, compared and replaced in folders that go away.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use caxton_events::log::{Batch, Log, LogOptions, Reader};
use caxton_events::memory::Validity;
use caxton_events::{
    AgentEvent, Clock, ConversationEvent, Draft, Event, MemoryEvent, MemoryId, Scope, SystemEvent, Timestamp,
};
use caxton_projections::embedding::{DIMENSIONS, EmbedError, Embedder, ModelIdentity, Precision};
use caxton_projections::graph::SqliteOptions;
use caxton_projections::vector::VectorOptions;
use tempfile::TempDir;

use super::{Comparison, Home, Name, RebuildError, RebuildOptions, Rebuilt, list, rebuild, verify};

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(43_200_000_000)
    }
}

/// A model that knows the length of a text; one that knows nothing fails.
struct Lengths {
    identity: ModelIdentity,
    fails: bool,
}

impl Embedder for Lengths {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        if self.fails {
            return Err(EmbedError::Busy { waiting: 0 });
        }
        let vector = |text: &&str| {
            let mut vector = vec![0.0; DIMENSIONS];
            vector[text.len() % DIMENSIONS] = 1.0;
            vector
        };
        Ok(texts.iter().map(vector).collect())
    }

    fn chunk(&self, text: &str) -> Vec<Range<usize>> {
        std::iter::once(0..text.len()).collect()
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.len()
    }
}

fn model(fails: bool) -> Arc<dyn Embedder> {
    let identity = ModelIdentity {
        name: "lengths".to_owned(),
        weights_sha256: "0".repeat(64),
        dimensions: DIMENSIONS,
        precision: Precision::Fp32,
    };
    Arc::new(Lengths { identity, fails })
}

/// A data directory with a log of `observations`, one entity each, and somebody who talks.
struct Fixture {
    dir: TempDir,
    log: Log,
    sqlite: SqliteOptions,
}

impl Fixture {
    fn of(observations: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), LogOptions::new([7; 16]), Arc::new(Noon)).unwrap();
        let fixture = Self { dir, log, sqlite: SqliteOptions::default() };
        fixture.append(AgentEvent::ExternalRegistered {
            agent: "ada".parse().unwrap(),
            workspace: "lab".parse().unwrap(),
        });
        fixture.append(ConversationEvent::Opened {
            conversation: "conv-1".parse().unwrap(),
            topic: None,
            protocol: None,
            parent: None,
            idle_timeout_millis: 1_000,
            life_timeout_millis: 1_000,
            participants_max: 2,
            messages_max: 10,
        });
        for (number, text) in (1..).zip(observations) {
            fixture.observe(number, text);
        }
        fixture
    }

    fn observe(&self, number: u64, text: &str) {
        let entity = MemoryId(2 * number);
        self.append(MemoryEvent::EntityCreated {
            id: entity,
            scope: Scope::Global,
            name: format!("thing {number}"),
            entity_type: "thing".to_owned(),
            metadata: None,
            confidence: 1.0,
            validity: Validity::default(),
        });
        self.append(MemoryEvent::ObservationAdded {
            id: MemoryId(2 * number + 1),
            entity,
            content: text.to_owned(),
            validity: Validity::default(),
        });
    }

    fn append(&self, event: impl Into<Event>) {
        let draft = Draft {
            stream: "system".to_owned(),
            actor: "ada".to_owned(),
            correlation: None,
            causation: None,
            event: event.into(),
        };
        self.log.append(vec![Batch::of(vec![draft])]).unwrap().remove(0).unwrap();
    }

    fn home<'a>(&'a self, log: &'a Reader) -> Home<'a> {
        Home {
            data_dir: self.dir.path(),
            log,
            sqlite: &self.sqlite,
            vectors: VectorOptions::default(),
            embedder: Some(model(false)),
        }
    }

    fn rebuild(&self, name: Name, keep_old: bool) -> Rebuilt {
        let log = self.log.reader();
        let options = RebuildOptions { keep_old, room: &|_| Ok(u64::MAX) };
        rebuild(&self.home(&log), name, options, &mut |_, _, _| ()).unwrap()
    }

    fn folders(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap());
        let folders = names.filter(|entry| entry.path().is_dir());
        let mut names: Vec<String> =
            folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

#[test]
fn a_rebuild_equals_the_one_before_and_is_what_the_log_adds_up_to() {
    let fixture = Fixture::of(&["likes tea", "likes coffee"]);
    let log = fixture.log.reader();
    for name in Name::ALL {
        assert_eq!(fixture.rebuild(name, false).comparison, Comparison::None, "{name}");
    }
    let at = log.head().seq;
    fixture.append(SystemEvent::ServerStopped);
    for name in Name::ALL {
        let rebuilt = fixture.rebuild(name, false);
        assert_eq!(rebuilt.comparison, Comparison::Equal { at }, "{name}");
        assert_eq!(rebuilt.seq, at.next());
        let verified = verify(&fixture.home(&log), name, &mut |_, _, _| ()).unwrap();
        assert!(verified.equal && verified.seq == at.next(), "{verified}");
        let parts: Vec<_> = verified.parts.iter().map(|part| (part.part, part.live.clone())).collect();
        assert_eq!(parts, rebuilt.parts);
        assert!(verified.parts.iter().all(|part| part.rows > 0), "{verified}");
    }
    assert_eq!(fixture.folders(), ["graph", "talk", "vectors"]);
    let listed = list(fixture.dir.path(), &log);
    assert!(listed.iter().all(|row| row.checkpoint == Some(at.next()) && row.lag == Some(0)), "{listed:?}");
    assert!(listed.iter().all(|row| row.version.is_some() && row.bytes > 0 && row.error.is_none()));
}

#[test]
fn the_first_row_that_differs_is_named() {
    let fixture = Fixture::of(&["likes tea", "likes coffee"]);
    for name in Name::ALL {
        fixture.rebuild(name, false);
    }
    let other = Fixture::of(&["likes tea", "likes water"]);
    let log = other.log.reader();
    let found = |name| verify(&fixture.home(&log), name, &mut |_, _, _| ()).unwrap();
    let graph = found(Name::Graph);
    let unequal: Vec<_> = graph.parts.iter().filter(|part| !part.equal).map(|part| part.part).collect();
    assert_eq!(unequal, ["graph"]);
    let difference = graph.difference.clone().unwrap();
    assert_eq!((difference.part, difference.table.as_str()), ("graph", "observations"));
    assert_eq!(difference.first.as_deref(), Some("created_seq=6 content=\"likes coffee\""));
    assert_eq!(difference.second.as_deref(), Some("created_seq=6 content=\"likes water\""));
    assert!(graph.to_string().contains("graph at #6 differs from its rebuild"), "{graph}");
    assert!(found(Name::Talk).equal);
    let vectors = found(Name::Vectors);
    let difference = vectors.difference.clone().unwrap();
    assert_eq!((difference.table.as_str(), difference.first.is_some()), ("global", true), "{vectors}");
    assert_ne!(difference.first, difference.second);
    // A rebuild says the same and puts it right.
    let options = RebuildOptions { keep_old: false, room: &|_| Ok(u64::MAX) };
    let rebuilt = rebuild(&fixture.home(&log), Name::Graph, options, &mut |_, _, _| ()).unwrap();
    let parts = vec!["graph"];
    assert_eq!(rebuilt.comparison, Comparison::Differs { at: log.head().seq, parts });
    assert!(found(Name::Graph).equal);
}

#[test]
fn the_old_one_is_kept_when_asked_for() {
    let fixture = Fixture::of(&["likes tea"]);
    for name in Name::ALL {
        fixture.rebuild(name, false);
        let rebuilt = fixture.rebuild(name, true);
        assert_eq!(rebuilt.old, Some(fixture.dir.path().join(format!("{name}.old"))));
    }
    assert_eq!(fixture.folders(), ["graph", "graph.old", "talk", "talk.old", "vectors", "vectors.old"]);
    for name in Name::ALL {
        fixture.rebuild(name, false);
    }
    assert_eq!(fixture.folders(), ["graph", "talk", "vectors"]);
}

#[test]
fn without_room_nothing_is_touched_and_the_message_says_how_much_is_missing() {
    let fixture = Fixture::of(&["likes tea"]);
    fixture.rebuild(Name::Graph, false);
    let log = fixture.log.reader();
    let before = verify(&fixture.home(&log), Name::Graph, &mut |_, _, _| ()).unwrap();
    let options = RebuildOptions { keep_old: false, room: &|_| Ok(1_000) };
    let error = rebuild(&fixture.home(&log), Name::Graph, options, &mut |_, _, _| ()).unwrap_err();
    let RebuildError::NoRoom { name: Name::Graph, source } = &error else { panic!("{error}") };
    assert!(source.needed > 1_000 && source.free == 1_000 && !source.limited, "{source}");
    assert_eq!(source.dir, fixture.dir.path());
    assert_eq!(fixture.folders(), ["graph"]);
    assert_eq!(verify(&fixture.home(&log), Name::Graph, &mut |_, _, _| ()).unwrap(), before);
}

#[test]
fn what_fails_half_way_leaves_the_old_in_use_and_nothing_beside_it() {
    let fixture = Fixture::of(&["likes tea"]);
    fixture.rebuild(Name::Vectors, false);
    fixture.observe(9, "a text the model was never asked about");
    let log = fixture.log.reader();
    let home = Home { embedder: Some(model(true)), ..fixture.home(&log) };
    let options = RebuildOptions { keep_old: false, room: &|_| Ok(u64::MAX) };
    let error = rebuild(&home, Name::Vectors, options, &mut |_, _, _| ()).unwrap_err();
    assert!(matches!(error, RebuildError::Build { name: Name::Vectors, .. }), "{error}");
    assert_eq!(fixture.folders(), ["vectors"]);
    assert_eq!(list(fixture.dir.path(), &log)[2].lag, Some(2));
    let nobody = Home { embedder: None, ..fixture.home(&log) };
    let error = rebuild(&nobody, Name::Vectors, options, &mut |_, _, _| ()).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("caxton model pull"));
}

#[test]
fn one_that_cannot_be_read_is_replaced_and_the_reason_told() {
    let fixture = Fixture::of(&["likes tea"]);
    let spoil = |name: &str, file: &str| {
        fs::create_dir_all(fixture.dir.path().join(name)).unwrap();
        fs::write(fixture.dir.path().join(name).join(file), vec![7; 20_000]).unwrap();
    };
    spoil("graph", "graph.db");
    spoil("talk", "talk.db");
    spoil("vectors", "vectors.state");
    let log = fixture.log.reader();
    for row in list(fixture.dir.path(), &log) {
        assert_eq!((row.version, row.checkpoint, row.lag), (None, None, None), "{row}");
        assert!(row.error.unwrap().contains(&format!("caxton projection rebuild {}", row.name)));
    }
    for name in Name::ALL {
        assert!(verify(&fixture.home(&log), name, &mut |_, _, _| ()).is_err());
        let rebuilt = fixture.rebuild(name, false);
        assert!(matches!(rebuilt.comparison, Comparison::Unreadable { .. }), "{rebuilt}");
        assert!(verify(&fixture.home(&log), name, &mut |_, _, _| ()).unwrap().equal);
    }
}

#[test]
fn vectors_that_were_cut_or_changed_are_listed_as_damaged() {
    let fixture = Fixture::of(&["likes tea"]);
    fixture.rebuild(Name::Vectors, false);
    let log = fixture.log.reader();
    let file = fixture.dir.path().join("vectors").join("vectors.state");
    let whole = fs::read(&file).unwrap();
    // In the version, the checkpoint, the content and the seal.
    for at in [12, 17, 200, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        for bytes in [&changed[..], &whole[..at]] {
            fs::write(&file, bytes).unwrap();
            let row = list(fixture.dir.path(), &log).remove(2);
            assert_eq!((row.version, row.checkpoint, row.lag), (None, None, None), "byte {at}: {row}");
            let error = row.error.unwrap();
            assert!(error.contains("vectors.state is damaged: "), "byte {at}: {error}");
        }
    }
    fs::write(&file, whole).unwrap();
    assert_eq!(list(fixture.dir.path(), &log)[2].lag, Some(0));
}

/// What a crash leaves: a half-built folder is not taken for a projection, and goes.
#[test]
fn a_crash_in_the_middle_of_a_rebuild_leaves_the_old_in_use() {
    let fixture = Fixture::of(&["likes tea"]);
    for name in Name::ALL {
        fixture.rebuild(name, false);
        let dir = fixture.dir.path();
        let half = dir.join(format!("{name}.rebuilding"));
        copy(&dir.join(name.as_str()), &half);
        for entry in fs::read_dir(&half).unwrap() {
            let path = entry.unwrap().path();
            let len = fs::metadata(&path).unwrap().len();
            fs::File::options().write(true).open(path).unwrap().set_len(len / 2).unwrap();
        }
        let log = fixture.log.reader();
        let verified = verify(&fixture.home(&log), name, &mut |_, _, _| ()).unwrap();
        assert!(verified.equal, "{verified}");
        let at = log.head().seq;
        assert_eq!(fixture.rebuild(name, false).comparison, Comparison::Equal { at });
    }
    assert_eq!(fixture.folders(), ["graph", "talk", "vectors"]);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}
