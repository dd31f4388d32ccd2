//! What is written reads back, and what was changed is refused by its line.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod strays;

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caxton_events::conversation::{Content, Message, Performative, Priority};
use caxton_events::log::{Batch, Filter, Log, LogOptions, Signer, TrimOptions, drop_before};
use caxton_events::memory::Validity;
use caxton_events::{
    AgentEvent, AgentId, Clock, ConversationEvent, Draft, Event, MemoryEvent, MemoryId, MessageId, Scope,
    Seq, Timestamp,
};
use caxton_projections::driver::catch_up;
use caxton_projections::graph::{Graph, PageMax, SqliteOptions};
use caxton_projections::talk::TalkStore;
use parquet::basic::{Compression, LogicalType};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::{Field, Row};
use tempfile::TempDir;

use super::events::{EventExport, EventFormat, Exported, Wanted};
use super::import::{ImportError, import};
use super::memory::{MemoryExport, MemoryTable};
use super::table::{Cell, GROUP_BYTES_MAX, GROUP_ROWS_MAX, Table};
use super::talk::{TalkExport, TalkTable};
use crate::log::{Tail, tail};

struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(1_700_000_000_000_000 + self.0.fetch_add(1_000, Ordering::Relaxed))
    }
}

fn signer() -> Signer {
    Signer::new([7; 16], &[1; 32])
}

fn log() -> (TempDir, Log) {
    let dir = TempDir::new().unwrap();
    let clock = Arc::new(Ticks(AtomicU64::new(0)));
    let log = Log::open(dir.path(), LogOptions::new([7; 16]), clock).unwrap();
    (dir, log)
}

fn tell(log: &Log, actor: &str, events: Vec<MemoryEvent>) {
    let draft = |event: MemoryEvent| Draft {
        stream: "global".to_owned(),
        actor: actor.to_owned(),
        correlation: (actor == "bob").then(|| "request-1".to_owned()),
        causation: (actor == "bob").then_some(Seq(1)),
        event: event.into(),
    };
    log.append(vec![Batch::of(events.into_iter().map(draft).collect())]).unwrap().remove(0).unwrap();
}

/// An engine with two notes and a loom that it resembles.
fn story() -> (TempDir, Log) {
    let (dir, log) = log();
    let (validity, id) = (Validity { from: Some(Timestamp::from_unix_micros(5)), to: None }, MemoryId);
    let entity = |number, name: &str| MemoryEvent::EntityCreated {
        id: id(number),
        scope: Scope::Global,
        name: name.to_owned(),
        entity_type: "machine".to_owned(),
        metadata: (number == 1).then(|| r#"{"a":1}"#.to_owned()),
        confidence: 0.5,
        validity,
    };
    let note = |number, content: &str| MemoryEvent::ObservationAdded {
        id: id(number),
        entity: id(1),
        content: content.to_owned(),
        validity: Validity::default(),
    };
    tell(&log, "ada", vec![entity(1, "engine"), note(2, "wébt 🧵"), note(3, "second")]);
    tell(
        &log,
        "bob",
        vec![
            entity(4, "loom"),
            MemoryEvent::RelationCreated {
                id: id(5),
                scope: Scope::Global,
                from: id(1),
                to: id(4),
                relation_type: "resembles".to_owned(),
                strength: 0.25,
                confidence: 1.0,
                metadata: None,
                validity: Validity::default(),
            },
        ],
    );
    (dir, log)
}

fn exported(log: &Log, wanted: &Wanted, format: EventFormat) -> (Vec<u8>, Exported) {
    let signer = Signer::new(log.reader().log_id(), &[1; 32]);
    let mut export = EventExport::begin(log.reader(), wanted, format, Some(signer)).unwrap();
    let mut all = Vec::new();
    while let Some(piece) = export.next_piece().unwrap() {
        all.extend(piece);
    }
    (all, export.exported())
}

fn lines(log: &Log, wanted: &Wanted) -> String {
    String::from_utf8(exported(log, wanted, EventFormat::Lines).0).unwrap()
}

fn reader(bytes: &[u8]) -> SerializedFileReader<File> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    SerializedFileReader::new(file).unwrap()
}

fn rows(file: &[u8]) -> (SerializedFileReader<File>, Vec<Row>) {
    let reader = reader(file);
    let rows = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    (reader, rows)
}

fn field<'a>(row: &'a Row, name: &str) -> &'a Field {
    row.get_column_iter().find(|(column, _)| *column == name).map(|(_, field)| field).unwrap()
}

#[test]
fn lines_of_a_whole_log_make_the_same_log_again() {
    let (_dir, log) = story();
    let text = lines(&log, &Wanted::default());
    assert_eq!(text.lines().count(), 7);
    let other = TempDir::new().unwrap();
    let key = signer().public_key();
    let mut heard = 0;
    let imported =
        import(&mut text.as_bytes(), other.path(), Some(&key), &mut |seq, _| heard = seq.0).unwrap();
    assert_eq!((imported.events, heard), (5, 5));
    assert_eq!(imported.root, log.head().root.to_string());
    assert_eq!(imported.public_key, Some(key.to_string()));
    let again = Log::open_read_only(other.path()).unwrap();
    assert_eq!((again.log_id(), again.head().root), (log.reader().log_id(), log.head().root));
    let read = |reader: &caxton_events::log::Reader| {
        reader.scan(Seq(1), &Filter::default()).map(Result::unwrap).collect::<Vec<_>>()
    };
    assert_eq!(read(&again), read(&log.reader()));
}

/// The events as `log tail --json` prints them.
fn shown(log: &Log) -> String {
    let what = Tail { from: Some(Seq(1)), lines_max: 10, ..Tail::default() };
    let lines = tail(&log.reader(), &what).unwrap();
    lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect()
}

#[track_caller]
fn check_refused(text: &str, says: &str) {
    let dir = TempDir::new().unwrap();
    let error = import(&mut text.as_bytes(), dir.path(), None, &mut |_, _| ()).unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    let said = format!("{error}: {source}");
    let (begins, why) = says.split_once(": ").unwrap_or((says, ""));
    assert!(said.starts_with(begins) && said.contains(why), "{said}");
    assert!(!dir.path().join("events.redb").exists());
}

#[test]
fn lines_that_are_not_what_was_exported_are_refused_by_their_number() {
    let (_dir, log) = story();
    let text = lines(&log, &Wanted::default());
    let all: Vec<&str> = text.lines().collect();
    let joined = |lines: &[&str]| lines.join("\n");
    for (changed, says) in [
        (joined(&all[..6]), "the lines end after event #5"),
        (joined(&all[..3]), "the lines end after event #2"),
        (
            joined(&[&all[..2], &all[3..]].concat()),
            "line 3 is not what was exported: event #3 stands where #2 is due",
        ),
        (
            joined(&[all[0], all[2], all[1]]),
            "line 2 is not what was exported: event #2 stands where #1 is due",
        ),
        (joined(&all[1..]), "line 1 cannot be read: it is no line of type log"),
        (format!("{text}{}\n", all[1]), "line 8 cannot be read: something follows"),
        ("nonsense".to_owned(), "line 1 cannot be read: expected ident at column 2"),
        (text[..text.len() - 40].to_owned(), "line 7 cannot be read: it is cut short after"),
        (
            shown(&log),
            "these look like events: as `caxton log salvage` and `caxton log tail --json` print them",
        ),
        (String::new(), "the input is empty"),
        ("\n\n".to_owned(), "the input is empty"),
    ] {
        check_refused(&changed, says);
    }
    let stored = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["stored"].as_str().unwrap().to_owned()
    };
    let exchanged = all[2].replace(&stored(all[2]), &stored(all[3]));
    check_refused(
        &joined(&[all[0], all[1], &exchanged]),
        "line 3 is not what was exported: the bytes of event #2 have another hash",
    );
    let later = all[3].replace("2023-11-14", "2023-11-15");
    assert_ne!(later, all[3]);
    check_refused(
        &joined(&[all[0], all[1], all[2], &later]),
        "line 4 is not what was exported: event #3 does not lead",
    );
    let some =
        Wanted { filter: Filter { actor: Some("bob".to_owned()), ..Filter::default() }, ..Wanted::default() };
    check_refused(&lines(&log, &some), "these are chosen events");
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("x"), "").unwrap();
    let error = import(&mut text.as_bytes(), dir.path(), None, &mut |_, _| ()).unwrap_err();
    assert!(matches!(error, ImportError::Log(_)), "{error}");
}

#[test]
fn chosen_events_are_lines_that_count_themselves() {
    let (_dir, log) = story();
    for (wanted, seqs) in [
        (Wanted { from: Seq(4), ..Wanted::default() }, vec![4, 5]),
        (
            Wanted { filter: Filter { until: Some(Seq(2)), ..Filter::default() }, ..Wanted::default() },
            vec![1, 2],
        ),
        (
            Wanted {
                filter: Filter { actor: Some("bob".to_owned()), ..Filter::default() },
                ..Wanted::default()
            },
            vec![4, 5],
        ),
    ] {
        let text = lines(&log, &wanted);
        let values: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let found: Vec<u64> = values
            .iter()
            .filter(|line| line["type"] == "event")
            .map(|line| line["seq"].as_u64().unwrap())
            .collect();
        assert_eq!(found, seqs);
        let end = values.last().unwrap();
        let whole = wanted.from <= Seq(1) && wanted.filter.actor.is_none();
        assert_eq!(end["type"], if whole { "head" } else { "end" });
    }
}

#[test]
fn events_read_back_from_parquet_with_their_types() {
    let (_dir, log) = story();
    let (file, exported) = exported(&log, &Wanted::default(), EventFormat::Parquet);
    assert_eq!(exported.events, 5);
    let (reader, rows) = rows(&file);
    let schema = reader.metadata().file_metadata().schema_descr();
    let logical = |name: &str| {
        let column = schema.columns().iter().find(|column| column.name() == name).unwrap();
        column.logical_type_ref().cloned()
    };
    assert!(matches!(logical("recorded_at"), Some(LogicalType::Timestamp { .. })));
    assert!(matches!(logical("seq"), Some(LogicalType::Integer { .. })));
    assert_eq!(logical("data"), Some(LogicalType::Json));
    let column = reader.metadata().row_group(0).column(0);
    assert_eq!(column.compression(), Compression::SNAPPY);
    assert_eq!(field(&rows[0], "seq"), &Field::ULong(1));
    assert_eq!(field(&rows[0], "recorded_at"), &Field::TimestampMicros(1_700_000_000_000_000));
    assert_eq!(field(&rows[0], "kind"), &Field::Str("memory.entity_created".to_owned()));
    assert_eq!(field(&rows[0], "correlation_id"), &Field::Null);
    assert_eq!(field(&rows[4], "correlation_id"), &Field::Str("request-1".to_owned()));
    assert_eq!(field(&rows[4], "causation_seq"), &Field::ULong(1));
    let Field::Str(data) = field(&rows[1], "data") else { panic!("no JSON") };
    assert_eq!(serde_json::from_str::<serde_json::Value>(data).unwrap()["content"], "wébt 🧵");
}

#[test]
fn row_groups_are_bounded() {
    let mut table = Table::begin("message t { REQUIRED INT64 n; OPTIONAL BYTE_ARRAY s (STRING); }").unwrap();
    let rows = GROUP_ROWS_MAX * 2 + 7;
    for n in 0..rows {
        let text = (n % 3 == 0).then(|| format!("{n}"));
        table.push([Cell::Long(n as u64), text.into()]).unwrap();
    }
    let reader = reader(&table.finish().unwrap());
    let groups: Vec<i64> = reader.metadata().row_groups().iter().map(RowGroupMetaData::num_rows).collect();
    assert_eq!(groups, [GROUP_ROWS_MAX as i64, GROUP_ROWS_MAX as i64, 7]);
    for (n, row) in reader.get_row_iter(None).unwrap().map(Result::unwrap).enumerate().step_by(10_001) {
        assert_eq!(field(&row, "n"), &Field::Long(n as i64));
        let text = if n % 3 == 0 { Field::Str(n.to_string()) } else { Field::Null };
        assert_eq!(field(&row, "s"), &text);
    }
}

#[test]
fn the_memory_reads_back_from_parquet() {
    let (dir, log) = story();
    let mut graph = Graph::open(&dir.path().join("graph"), &SqliteOptions::default()).unwrap();
    catch_up(&log.reader(), &mut graph, &mut |_, _| ()).unwrap();
    let embed = |texts: &[&str]| Ok(texts.iter().map(|text| vec![text.len() as f32; 384]).collect());
    let read = |table| {
        let mut export = MemoryExport::begin(&graph.reader(), log.head().seq, table, true).unwrap();
        let mut file = Vec::new();
        while let Some(piece) = export.next_piece(Some(&embed)).unwrap() {
            file.extend(piece);
        }
        let rows = rows(&file).1;
        assert_eq!(rows.len() as u64, export.rows());
        rows
    };
    let entities = read(MemoryTable::Entities);
    assert_eq!(field(&entities[0], "name"), &Field::Str("engine".to_owned()));
    assert_eq!(field(&entities[0], "metadata"), &Field::Str(r#"{"a":1}"#.to_owned()));
    assert_eq!(field(&entities[1], "metadata"), &Field::Null);
    assert_eq!(field(&entities[0], "valid_from"), &Field::TimestampMicros(5));
    assert_eq!(field(&entities[0], "confidence"), &Field::Double(0.5));
    let Field::ListInternal(vector) = field(&entities[0], "embedding") else { panic!("no list") };
    assert_eq!((vector.elements().len(), &vector.elements()[383]), (384, &Field::Float(16.0)));
    let notes = read(MemoryTable::Observations);
    assert_eq!(field(&notes[0], "content"), &Field::Str("wébt 🧵".to_owned()));
    assert_eq!(field(&notes[0], "created_by"), &Field::Str("ada".to_owned()));
    let relations = read(MemoryTable::Relations);
    assert_eq!(field(&relations[0], "strength"), &Field::Double(0.25));
    assert_eq!(field(&relations[0], "to_entity_id"), &Field::ULong(4));
    let copy = dir.path().join("copy.db");
    graph.reader().copy_into(&copy).unwrap();
    let again = dir.path().join("again");
    std::fs::create_dir(&again).unwrap();
    std::fs::copy(&copy, again.join("graph.db")).unwrap();
    let again = Graph::open(&again, &SqliteOptions::default()).unwrap();
    assert_eq!(again.reader().digest().unwrap(), graph.reader().digest().unwrap());
}

#[test]
fn an_export_in_pieces_is_of_the_moment_it_was_begun() {
    let (dir, log) = story();
    let notes = |from: u64| {
        let note = |id| MemoryEvent::ObservationAdded {
            id: MemoryId(id),
            entity: MemoryId(1),
            content: format!("note {id}"),
            validity: Validity::default(),
        };
        (from..from + 10_000).map(note).collect()
    };
    tell(&log, "ada", notes(10));
    let mut graph = Graph::open(&dir.path().join("graph"), &SqliteOptions::default()).unwrap();
    catch_up(&log.reader(), &mut graph, &mut |_, _| ()).unwrap();
    let seq = log.head().seq;
    let mut text =
        EventExport::begin(log.reader(), &Wanted::default(), EventFormat::Lines, Some(signer())).unwrap();
    let mut table = MemoryExport::begin(&graph.reader(), seq, MemoryTable::Observations, false).unwrap();
    let (mut lines, mut file, mut pieces) = (text.next_piece().unwrap().unwrap(), Vec::new(), 0);
    file.extend(table.next_piece(None).unwrap().unwrap());
    // Both go on while more is written, and what was there is taken away.
    tell(&log, "ada", notes(20_000));
    let remove = |id| MemoryEvent::ObservationRemoved { id: MemoryId(id), entity: MemoryId(1) };
    tell(&log, "ada", (10..10_010).map(remove).collect());
    catch_up(&log.reader(), &mut graph, &mut |_, _| ()).unwrap();
    while let Some(piece) = text.next_piece().unwrap() {
        lines.extend(piece);
        pieces += 1;
    }
    while let Some(piece) = table.next_piece(None).unwrap() {
        file.extend(piece);
    }
    assert!(pieces > 1);
    assert_eq!((text.exported().events, text.exported().through), (10_005, seq));
    let other = TempDir::new().unwrap();
    let imported = import(&mut &*lines, other.path(), None, &mut |_, _| ()).unwrap();
    assert_eq!(imported.root, log.reader().head_at(seq.0).unwrap().root.to_string());
    let rows = rows(&file).1;
    assert_eq!((rows.len(), table.rows()), (10_002, 10_002));
    assert_eq!(field(&rows[10_001], "content"), &Field::Str("note 10009".to_owned()));
    let all = PageMax { rows: 20_000, bytes: usize::MAX };
    assert_eq!(graph.reader().list_observations(None, all).unwrap().len(), 10_002);
}

#[test]
fn what_is_left_of_a_log_is_exported_but_not_imported() {
    let (dir, log) = story();
    log.seal().unwrap();
    tell(&log, "ada", vec![MemoryEvent::EntityRemoved { id: MemoryId(4) }]);
    log.close().unwrap();
    let options = TrimOptions {
        before: Seq(6),
        at: Timestamp::from_unix_micros(9),
        by: "ada".to_owned(),
        forks_keep: false,
    };
    drop_before(dir.path(), &options).unwrap().unwrap();
    let clock = Arc::new(Ticks(AtomicU64::new(1_000_000)));
    let log = Log::open(dir.path(), LogOptions::new([7; 16]), clock).unwrap();
    let text = lines(&log, &Wanted::default());
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((&first["complete"], &first["dropped_through"]), (&false.into(), &5.into()));
    // A backup begins with the first event, too: what is left to do is to copy the directory.
    let remedy = "stop its server and copy the data directory as it is, with base/ and sealed/";
    check_refused(&text, &format!("the exported log begins after #5: {remedy}"));
}

#[test]
fn a_row_that_its_table_cannot_hold_is_refused() {
    let table = || Table::begin("message t { REQUIRED INT64 n; OPTIONAL BYTE_ARRAY s (STRING); }").unwrap();
    for (row, says) in [
        (vec![Cell::Long(1)], "a row ends before column s"),
        (vec![Cell::None, Cell::None], "column n does not hold None"),
        (vec![Cell::Text(String::new()), Cell::None], "column n does not hold Text"),
    ] {
        let error = table().push(row).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// Records an event of the conversation `c-1`; its position.
fn record(log: &Log, causation: Option<Seq>, event: Event) -> Seq {
    let (stream, actor) = ("c-1".to_owned(), "ada".to_owned());
    let draft = Draft { stream, actor, correlation: None, causation, event };
    log.append(vec![Batch::of(vec![draft])]).unwrap().remove(0).unwrap().first
}

/// Ada says something to bob and eve.
fn say(log: &Log, number: u8, content: Content, answers: Option<Seq>) -> Seq {
    let name = |name: &str| name.parse::<AgentId>().unwrap();
    let message = Message {
        id: MessageId::from_bytes([number; 16]),
        id_given: false,
        performative: Performative::Inform,
        sender: name("ada"),
        receivers: vec![name("bob"), name("eve")],
        routing: None,
        conversation: "c-1".parse().unwrap(),
        content,
        priority: Priority::Normal,
        reply_with: None,
        in_reply_to: None,
        reply_by: Some(Timestamp::from_unix_micros(7)),
        expires_at: None,
        extras: Some(r#"{"language":"en"}"#.to_owned()),
    };
    record(log, answers, ConversationEvent::MessageSent(Box::new(message)).into())
}

#[test]
fn what_agents_said_reads_back_from_parquet() {
    let (dir, log) = log();
    let (agent, workspace) = ("ada".parse().unwrap(), "lab".parse().unwrap());
    record(&log, None, AgentEvent::ExternalRegistered { agent, workspace }.into());
    let opened = ConversationEvent::Opened {
        conversation: "c-1".parse().unwrap(),
        topic: Some("tea".to_owned()),
        protocol: None,
        parent: None,
        idle_timeout_millis: 60_000,
        life_timeout_millis: 600_000,
        participants_max: 10,
        messages_max: 1_000,
    };
    record(&log, None, opened.into());
    let first = say(&log, 1, Content::Text("tea is ready".to_owned()), None);
    say(&log, 2, Content::Json(r#"{"cups":2}"#.to_owned()), Some(first));
    let (mut talk, _store) = TalkStore::open(&dir.path().join("talk")).unwrap();
    catch_up(&log.reader(), &mut talk, &mut |_, _| ()).unwrap();
    let through = log.head().seq;
    say(&log, 3, Content::Text("too late".to_owned()), None);
    let read = |table| {
        let mut export = TalkExport::begin(talk.reader(), log.reader(), through, table).unwrap();
        let mut file = Vec::new();
        while let Some(piece) = export.next_piece().unwrap() {
            file.extend(piece);
        }
        let rows = rows(&file).1;
        assert_eq!(rows.len() as u64, export.rows());
        rows
    };
    let text = |text: &str| Field::Str(text.to_owned());
    let messages = read(TalkTable::Messages);
    assert_eq!(messages.len(), 2);
    assert_eq!(field(&messages[0], "content"), &text("tea is ready"));
    assert_eq!(field(&messages[0], "receivers"), &text(r#"["bob","eve"]"#));
    assert_eq!(field(&messages[0], "performative"), &text("INFORM"));
    assert_eq!(field(&messages[0], "reply_by"), &Field::TimestampMicros(7));
    assert_eq!(field(&messages[0], "answers_seq"), &Field::Null);
    assert_eq!(field(&messages[1], "answers_seq"), &Field::ULong(first.0));
    assert_eq!(field(&messages[1], "content_format"), &text("json"));
    let conversations = read(TalkTable::Conversations);
    assert_eq!(field(&conversations[0], "conversation_id"), &text("c-1"));
    assert_eq!(field(&conversations[0], "status"), &text("active"));
    assert_eq!(field(&conversations[0], "messages"), &Field::ULong(2));
    assert_eq!(field(&conversations[0], "participants"), &text(r#"["ada","bob","eve"]"#));
    assert_eq!(field(&conversations[0], "ended_at"), &Field::Null);
    let agents = read(TalkTable::Agents);
    assert_eq!(field(&agents[0], "agent_id"), &text("ada"));
    assert_eq!(field(&agents[0], "workspace"), &text("lab"));
    assert_eq!(field(&agents[0], "capabilities"), &text("[]"));
}

/// How many rows each piece adds, and whether all of them are in the file.
#[track_caller]
fn check_pieces(mut next: impl FnMut() -> (Option<Vec<u8>>, u64), then: &[u64]) {
    let (mut file, mut before, mut added) = (Vec::new(), 0, Vec::new());
    while let (Some(piece), rows) = next() {
        file.extend(piece);
        added.push(rows - before);
        before = rows;
    }
    added.retain(|rows| *rows > 0);
    assert_eq!(added, then);
    assert_eq!(rows(&file).1.len() as u64, before);
}

#[test]
fn a_piece_of_an_export_takes_no_more_than_a_group_of_rows() {
    let (dir, log) = story();
    let content = "x".repeat(1 << 20);
    let in_a_piece = (GROUP_BYTES_MAX >> 20) as u64;
    for id in 10..10 + in_a_piece + 3 {
        let (content, validity) = (content.clone(), Validity::default());
        tell(
            &log,
            "ada",
            vec![MemoryEvent::ObservationAdded { id: MemoryId(id), entity: MemoryId(1), content, validity }],
        );
    }
    let mut graph = Graph::open(&dir.path().join("graph"), &SqliteOptions::default()).unwrap();
    catch_up(&log.reader(), &mut graph, &mut |_, _| ()).unwrap();
    let (seq, embed) = (log.head().seq, |texts: &[&str]| Ok(vec![vec![0.5; 384]; texts.len()]));
    // The two small ones of the story come first.
    for with_vectors in [false, true] {
        let mut export =
            MemoryExport::begin(&graph.reader(), seq, MemoryTable::Observations, with_vectors).unwrap();
        check_pieces(|| (export.next_piece(Some(&embed)).unwrap(), export.rows()), &[in_a_piece + 2, 3]);
    }

    let large = "y".repeat(GROUP_BYTES_MAX / 3 + 1);
    for number in 1..=4 {
        say(&log, number, Content::Text(large.clone()), None);
    }
    let (talk, _store) = TalkStore::open(&dir.path().join("talk")).unwrap();
    let mut export =
        TalkExport::begin(talk.reader(), log.reader(), log.head().seq, TalkTable::Messages).unwrap();
    check_pieces(|| (export.next_piece().unwrap(), export.rows()), &[3, 1]);
}
