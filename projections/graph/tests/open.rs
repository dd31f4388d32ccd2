//! Opening: settings that take effect, files that are refused by name, readers that never block.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use caxton_events::{MemoryEvent, Seq};

use super::{Fixture, Story, small};
use crate::graph::{
    AutoVacuum, CheckpointStrategy, FILE_NAME, Graph, GraphError, ReadError, SqliteOptions, Synchronous,
    TempStore, VacuumStrategy, set_aside,
};
use crate::projection::Projection;
use crate::text::KeywordQuery;

const CHECKPOINTS: [CheckpointStrategy; 3] =
    [CheckpointStrategy::Passive, CheckpointStrategy::Full, CheckpointStrategy::Restart];

/// How often the journal of the graph was begun anew, as its header says.
fn begun(graph: &Graph) -> u32 {
    let journal = std::fs::read(graph.path().with_file_name(format!("{FILE_NAME}-wal"))).unwrap();
    u32::from_be_bytes(*journal.get(12..).unwrap().first_chunk().unwrap())
}

#[track_caller]
fn check_settings(graph: &Graph, then: &[(&str, &str)]) {
    for (pragma, value) in then {
        assert_eq!(graph.setting(pragma).unwrap(), *value, "{pragma}");
    }
}

#[test]
fn every_setting_reads_back_as_it_was_set() {
    check_settings(
        &Fixture::with(&SqliteOptions::default()).graph,
        &[
            ("journal_mode", "wal"),
            ("synchronous", "1"),
            ("cache_size", "-131072"),
            ("mmap_size", "536870912"),
            ("page_size", "4096"),
            ("temp_store", "2"),
            ("journal_size_limit", "104857600"),
            ("wal_autocheckpoint", "20000"),
            ("auto_vacuum", "0"),
            ("busy_timeout", "5000"),
        ],
    );
    let other = SqliteOptions {
        wal_mode: false,
        cache_size_mb: 3,
        mmap_size_mb: 0,
        page_size: 1024,
        synchronous: Synchronous::Full,
        journal_size_limit_mb: None,
        temp_store: TempStore::File,
        auto_vacuum: AutoVacuum::Full,
        wal_checkpoint_interval: 7,
        busy_timeout: Duration::from_millis(11),
        ..small()
    };
    check_settings(
        &Fixture::with(&other).graph,
        &[
            ("journal_mode", "truncate"),
            ("synchronous", "2"),
            ("cache_size", "-3072"),
            ("mmap_size", "0"),
            ("page_size", "1024"),
            ("temp_store", "1"),
            ("journal_size_limit", "-1"),
            ("wal_autocheckpoint", "7"),
            ("auto_vacuum", "1"),
            ("busy_timeout", "11"),
        ],
    );
}

#[test]
fn page_size_and_vacuum_mode_change_in_an_existing_file() {
    let mut story = Story::default();
    let ada = story.entity("agent:ada", "ada", "person");
    story.note(ada, "likes engines");
    let fixture = Fixture::told(&story, 10);
    let digest = fixture.graph.reader().digest().unwrap();
    drop(fixture.graph);
    for (page_size, auto_vacuum) in [(1024, AutoVacuum::Incremental), (65_536, AutoVacuum::Full)] {
        let options = SqliteOptions { page_size, auto_vacuum, ..small() };
        let graph = Graph::open(fixture.dir.path(), &options).unwrap();
        check_settings(&graph, &[("journal_mode", "wal"), ("page_size", &page_size.to_string())]);
        check_settings(&graph, &[("auto_vacuum", &(auto_vacuum as i32).to_string())]);
        assert_eq!(graph.reader().digest().unwrap(), digest);
    }
}

#[test]
fn settings_out_of_bounds_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        (SqliteOptions { page_size: 1000, ..small() }, "page_size is 1000"),
        (SqliteOptions { page_size: 256, ..small() }, "page_size is 256"),
        (SqliteOptions { cache_size_mb: 0, ..small() }, "cache_size_mb is 0"),
        (SqliteOptions { mmap_size_mb: 4096, ..small() }, "mmap_size_mb is 4096"),
        (SqliteOptions { readers: 0, ..small() }, "readers is 0"),
        (
            SqliteOptions { wal_checkpoint_interval: u32::MAX, ..small() },
            "wal_checkpoint_interval is 4294967295",
        ),
    ];
    for (options, then) in cases {
        let error = Graph::open(dir.path(), &options).unwrap_err();
        assert!(error.to_string().starts_with(then), "{error}");
        assert!(!error.is_rebuildable());
    }
    assert!(!dir.path().join(FILE_NAME).exists(), "nothing was made");
}

#[test]
fn a_file_of_another_program_or_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE songs(title TEXT)").unwrap();
    drop(other);
    let error = Graph::open(dir.path(), &small()).unwrap_err();
    assert!(matches!(error, GraphError::Foreign { .. }) && error.is_rebuildable(), "{error}");

    let fixture = Fixture::new();
    drop(fixture.graph);
    let file = rusqlite::Connection::open(fixture.dir.path().join(FILE_NAME)).unwrap();
    file.pragma_update(None, "user_version", 99).unwrap();
    drop(file);
    let error = Graph::open(fixture.dir.path(), &small()).unwrap_err();
    assert!(matches!(error, GraphError::Version { found: 99, .. }) && error.is_rebuildable(), "{error}");
}

#[test]
fn a_cut_or_overwritten_file_is_refused_as_damaged() {
    let mut story = Story::default();
    for number in 0..200 {
        let thing = story.entity("global", &format!("thing {number}"), "thing");
        story.note(thing, "a note of some length about a thing that has a number");
    }
    let fixture = Fixture::told(&story, 1000);
    drop(fixture.graph);
    let path = fixture.dir.path().join(FILE_NAME);
    let whole = std::fs::read(&path).unwrap();
    let mut cases: Vec<Vec<u8>> = [10, 100, 4096, 5000, whole.len() / 2, whole.len() - 4096]
        .iter()
        .map(|len| whole.get(..*len).unwrap().to_vec())
        .collect();
    cases.push(b"this is a text file, longer than the header of a database would be".repeat(99));
    cases.push({
        let mut holes = whole.clone();
        holes.get_mut(4096..).unwrap().fill(0xA5);
        holes
    });
    for bytes in cases {
        std::fs::write(&path, &bytes).unwrap();
        let error = Graph::open(fixture.dir.path(), &small()).unwrap_err();
        assert!(matches!(error, GraphError::Damaged { .. }), "{} bytes: {error}", bytes.len());
        assert!(error.is_rebuildable());
    }
    let aside = set_aside(fixture.dir.path()).unwrap().unwrap();
    assert!(aside.exists() && !path.exists());
    assert_eq!(set_aside(fixture.dir.path()).unwrap(), None);
    assert_eq!(Graph::open(fixture.dir.path(), &small()).unwrap().checkpoint(), Seq::ZERO);
}

#[test]
fn damage_found_while_reading_says_so() {
    let mut story = Story::default();
    for number in 0..500 {
        story.entity("global", &format!("thing {number}"), "thing");
    }
    let fixture = Fixture::told(&story, 1000);
    drop(fixture.graph);
    let path = fixture.dir.path().join(FILE_NAME);
    let mut bytes = std::fs::read(&path).unwrap();
    for page in bytes.chunks_mut(4096).filter(|page| page.windows(9).any(|text| text == b"thing 250")) {
        page.fill(0xA5);
    }
    std::fs::write(&path, bytes).unwrap();
    let graph = Graph::open(fixture.dir.path(), &small()).unwrap();
    assert!(!graph.check().unwrap().is_empty());
    let error = graph.reader().digest().unwrap_err();
    assert!(error.is_damage(), "{error:?}");
}

#[test]
fn what_was_folded_is_there_after_opening_again() {
    let mut story = Story::default();
    let ada = story.entity("agent:ada", "ada", "person");
    let fixture = Fixture::told(&story, 10);
    let digest = fixture.graph.reader().digest().unwrap();
    drop(fixture.graph);
    let graph = Graph::open(fixture.dir.path(), &small()).unwrap();
    assert_eq!(graph.checkpoint(), Seq(1));
    assert_eq!(graph.reader().digest().unwrap(), digest);
    assert_eq!(graph.reader().entity(ada).unwrap().unwrap().name, "ada");
    assert!(graph.check().unwrap().is_empty());
}

#[test]
fn a_rebuild_that_was_not_finished_is_forgotten() {
    let mut story = Story::default();
    story.entity("agent:ada", "ada", "person");
    let mut fixture = Fixture::told(&story, 10);
    fixture.graph.begin_rebuild().unwrap();
    assert_eq!(fixture.graph.setting("journal_mode").unwrap(), "off");
    fixture.graph.apply(&story.records).unwrap();
    assert_eq!(fixture.graph.reader().stats(None).unwrap().entities, 1, "queries see what is there");
    drop(fixture.graph);
    // Without a journal a crash can leave any of the pages as it was.
    let file = fixture.dir.path().join("graph.db");
    let len = std::fs::metadata(&file).unwrap().len();
    std::fs::write(&file, vec![0x5A; len as usize / 2]).unwrap();
    let graph = Graph::open(fixture.dir.path(), &small()).unwrap();
    assert_eq!(graph.checkpoint(), Seq::ZERO);
    assert_eq!(graph.reader().stats(None).unwrap().entities, 0);
}

#[test]
fn a_rebuild_that_is_finished_stays_with_a_journal_and_is_read_beside_its_writer() {
    let mut story = Story::default();
    let ada = story.entity("agent:ada", "ada", "person");
    let mut fixture = Fixture::told(&story, 10);
    let digest = fixture.graph.reader().digest().unwrap();
    fixture.graph.begin_rebuild().unwrap();
    fixture.graph.apply(&story.records).unwrap();
    fixture.graph.finish_rebuild().unwrap();
    assert_eq!(fixture.graph.setting("journal_mode").unwrap(), "wal");
    assert_eq!(fixture.graph.reader().digest().unwrap(), digest);
    let reader = fixture.graph.reader();
    reader
        .snapshot("a test", |_| {
            story.note(ada, "written while somebody reads");
            fixture.graph.apply(&story.records[1..]).unwrap();
            Ok(())
        })
        .unwrap();
    drop(fixture.graph);
    let graph = Graph::open(fixture.dir.path(), &small()).unwrap();
    assert_eq!(graph.checkpoint(), Seq(2));
    assert_eq!(graph.reader().observation_count(ada).unwrap(), 1);
}

#[test]
fn a_rebuild_beside_another_program_that_has_the_file_open_keeps_its_journal() {
    let mut story = Story::default();
    story.entity("agent:ada", "ada", "person");
    let mut fixture = Fixture::told(&story, 10);
    let digest = fixture.graph.reader().digest().unwrap();
    let other = rusqlite::Connection::open(fixture.graph.path()).unwrap();
    let entities = || other.query_row("SELECT count(*) FROM entities", (), |row| row.get::<_, i64>(0));
    assert_eq!(entities().unwrap(), 1);
    fixture.graph.begin_rebuild().unwrap();
    assert_eq!(fixture.graph.setting("journal_mode").unwrap(), "wal");
    fixture.graph.apply(&story.records).unwrap();
    fixture.graph.finish_rebuild().unwrap();
    assert_eq!(entities().unwrap(), 1);
    assert_eq!(fixture.graph.reader().digest().unwrap(), digest);
}

#[test]
fn a_reader_of_an_old_state_holds_nothing_up() {
    for wal_checkpoint_strategy in CHECKPOINTS {
        let mut story = Story::default();
        let ada = story.entity("agent:ada", "ada", "person");
        let mut fixture = Fixture::with(&SqliteOptions {
            wal_checkpoint_strategy,
            wal_checkpoint_interval: 1,
            busy_timeout: Duration::from_millis(10),
            ..small()
        });
        fixture.graph.apply(&story.records).unwrap();
        let reader = fixture.graph.reader();
        reader
            .snapshot("a test", |connection| {
                let count = |connection: &rusqlite::Connection| {
                    connection.query_row("SELECT count(*) FROM observations", (), |row| row.get::<_, i64>(0))
                };
                assert_eq!(count(connection)?, 0);
                story.note(ada, "written meanwhile");
                fixture.graph.apply(&story.records).unwrap();
                fixture.graph.checkpoint_wal().unwrap();
                assert_eq!(count(connection)?, 0, "the reader sees its own state to the end");
                Ok(())
            })
            .unwrap();
        assert_eq!(reader.observation_count(ada).unwrap(), 1, "{wal_checkpoint_strategy:?}");
        assert!(fixture.graph.check().unwrap().is_empty());
    }
}

#[test]
fn a_commit_waits_for_the_readers_of_an_old_state_where_it_is_told_to_and_the_journal_begins_anew() {
    for (wal_checkpoint_strategy, waits) in CHECKPOINTS.into_iter().zip([false, true, true]) {
        let mut fixture =
            Fixture::with(&SqliteOptions { wal_checkpoint_strategy, wal_checkpoint_interval: 1, ..small() });
        let mut story = Story::default();
        for number in 0..3 {
            story.entity("global", &format!("thing {number}"), "thing");
        }
        fixture.graph.apply(&story.records[..1]).unwrap();
        let reader = &fixture.graph.reader();
        let (holding, held) = mpsc::channel();
        let (done, written) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                let held = reader.snapshot("a test", |connection| {
                    connection.query_row("SELECT count(*) FROM entities", (), |_| Ok(()))?;
                    holding.send(()).unwrap();
                    // The commit that waits for this reader can be seen already.
                    while waits && reader.checkpoint().unwrap() < Seq(2) {
                        thread::yield_now();
                    }
                    if !waits {
                        written.recv().unwrap();
                    }
                    Ok(())
                });
                held.unwrap();
            });
            held.recv().unwrap();
            fixture.graph.apply(&story.records[1..2]).unwrap();
            // Who was waited for has gone.
            let _ = done.send(());
        });
        let before = begun(&fixture.graph);
        fixture.graph.apply(&story.records[2..]).unwrap();
        assert_eq!(begun(&fixture.graph) > before, waits, "{wal_checkpoint_strategy:?}");
        assert_eq!(reader.stats(None).unwrap().entities, 3);
    }
}

#[test]
fn a_query_without_a_free_connection_fails_in_time() {
    let fixture = Fixture::with(&SqliteOptions { readers: 1, reader_wait: Duration::ZERO, ..small() });
    let reader = fixture.graph.reader();
    let inner = reader.with("a test", |_| Ok(reader.checkpoint())).unwrap();
    assert!(matches!(inner, Err(ReadError::Exhausted { readers: 1, .. })), "{inner:?}");
    assert_eq!(reader.checkpoint().unwrap(), Seq::ZERO, "the connection came back");
}

#[test]
fn a_waiting_query_gets_the_connection_that_comes_back() {
    let fixture =
        Fixture::with(&SqliteOptions { readers: 1, reader_wait: Duration::from_mins(1), ..small() });
    let reader = fixture.graph.reader();
    let asked = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| reader.checkpoint().unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(asked, [Seq::ZERO; 4]);
}

#[test]
fn upkeep_gives_space_back_and_changes_no_answer() {
    let strategies = [
        (AutoVacuum::Incremental, VacuumStrategy::Incremental),
        (AutoVacuum::None, VacuumStrategy::Full),
        (AutoVacuum::Incremental, VacuumStrategy::Auto),
    ];
    for ((auto_vacuum, vacuum_strategy), wal_checkpoint_strategy) in strategies.into_iter().zip(CHECKPOINTS) {
        let mut fixture = Fixture::with(&SqliteOptions {
            auto_vacuum,
            wal_checkpoint_strategy,
            vacuum_strategy,
            ..small()
        });
        let mut story = Story::default();
        for number in 0..2_000 {
            story.entity("global", &format!("thing {number} {}", "x".repeat(200)), "thing");
        }
        fixture.graph.apply(&story.records).unwrap();
        fixture.graph.reset().unwrap();
        story.records.truncate(3);
        fixture.graph.apply(&story.records).unwrap();
        let digest = fixture.graph.reader().digest().unwrap();
        fixture.graph.analyze().unwrap();
        fixture.graph.vacuum(1_000_000).unwrap();
        fixture.graph.checkpoint_wal().unwrap();
        assert_eq!(fixture.graph.setting("freelist_count").unwrap(), "0", "{vacuum_strategy:?}");
        assert_eq!(fixture.graph.reader().digest().unwrap(), digest);
        assert!(fixture.graph.reader().file_bytes() > 0);
    }
}

/// Makes a file what an earlier version had written.
fn age(path: &std::path::Path, version: u32) {
    let file = rusqlite::Connection::open(path).unwrap();
    file.execute_batch(&format!(
        "DROP INDEX idx_entities_valid_from; DROP INDEX idx_entities_valid_to;
         DROP INDEX idx_observations_valid_from; DROP INDEX idx_observations_valid_to;
         DROP INDEX idx_relations_valid_from; DROP INDEX idx_relations_valid_to;
         DROP INDEX idx_observations_content;
         CREATE INDEX idx_observations_content ON observations(substr(CAST(content AS BLOB), 1, 64))
             WHERE removed_seq IS NULL;
         UPDATE scopes SET text_words = text_words + 1;
         UPDATE figures SET text_words = 2 * text_words + 1 WHERE seq % 3 > 0;
         UPDATE meta SET version = {version}; PRAGMA user_version = {version};"
    ))
    .unwrap();
    if version == 2 {
        file.execute_batch(
            "CREATE VIRTUAL TABLE texts USING fts5(words, content='', contentless_delete=1, detail=none);
             CREATE VIRTUAL TABLE texts_words USING fts5vocab(texts, instance);
             CREATE VIRTUAL TABLE texts_past USING fts5(words, content='', contentless_delete=1, detail=none);
             CREATE VIRTUAL TABLE texts_past_words USING fts5vocab(texts_past, instance);
             INSERT INTO texts(rowid, words) VALUES (4, '1o_likes 1o_tea');",
        )
        .unwrap();
    }
}

#[test]
fn a_file_of_an_earlier_version_becomes_one_of_this_where_it_lies() {
    let mut story = Story::default();
    let ada = story.entity("agent:ada", "ada of the lab", "person");
    let note = story.note(ada, "likes tea from 東京都");
    let loom = story.entity("global", "loom", "machine");
    let gone = story.note(loom, "makes caches and noise");
    story.relate(ada, loom, "uses", 0.5);
    story.rename(ada, "countess");
    story.tell(MemoryEvent::ObservationRemoved { id: gone, entity: loom });
    for version in [2, 3] {
        let Fixture { graph, dir } = Fixture::told(&story, 9);
        let digest = graph.reader().digest().unwrap();
        drop(graph);
        age(&dir.path().join(FILE_NAME), version);
        let graph = Graph::open(dir.path(), &small()).unwrap();
        assert_eq!(graph.setting("user_version").unwrap(), "4");
        assert_eq!(graph.checkpoint(), Seq(7));
        assert_eq!(graph.reader().digest().unwrap(), digest, "as if it had been folded anew");
        assert_eq!(graph.reader().observation_by_content(loom, "makes tea").unwrap(), None);
        let query = KeywordQuery { text: "tea".to_owned(), limit: 1, ..KeywordQuery::default() };
        assert_eq!(graph.reader().keyword(&query).unwrap().first().map(|hit| hit.row), Some(note));
        let file = rusqlite::Connection::open(graph.path()).unwrap();
        let count = |what: &str| {
            let sql = format!("SELECT count(*) FROM sqlite_schema WHERE {what}");
            file.query_row(&sql, (), |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(count("name LIKE 'texts%'"), 0);
        assert_eq!(count("name = 'idx_observations_content' AND sql LIKE '%entity_id%'"), 1);
        assert_eq!(count("type = 'index' AND name LIKE 'idx_%_valid_%'"), 6);
    }
}
