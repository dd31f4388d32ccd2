//! Whatever the postings cover, and whatever became of their files, answers are what the log says.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caxton_events::conversation::{Content, Message, Performative, Priority};
use caxton_events::log::{Batch, Encrypt, Filter, Found, Log, LogOptions, Reader, Sealing};
use caxton_events::memory::Validity;
use caxton_events::turn::{ContextKind, ContextPart};
use caxton_events::{
    Clock, ConversationEvent, Draft, Event, Kind, MemoryEvent, MemoryId, MessageId, Record, Seq, Subject,
    SystemEvent, Timestamp, TurnEvent, TurnId,
};

use super::trail::More;
use super::{FOLDER, Postings, Question, Sizes, Step, Term, Trail};

/// Segments of 32 events, four of which become one.
const SIZES: Sizes = Sizes { events: 32, merged: 4 };
const EVENTS: u64 = 300;

#[derive(Debug, Default)]
struct Script(AtomicU64);

impl Clock for Script {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(1_000 * self.0.fetch_add(1, Ordering::Relaxed))
    }
}

fn message(n: u64) -> MessageId {
    MessageId::from_bytes((u128::from(n) << 64 | 7).to_be_bytes())
}

fn turn(n: u64) -> TurnId {
    TurnId::from_bytes(u128::from(n).to_be_bytes())
}

/// The n-th event: some of everything, told from the others by its number.
fn draft(n: u64) -> Draft {
    let agent = |n: u64| format!("agent-{}", n % 5);
    let conversation = format!("conv-{}", n % 7);
    let (stream, event): (String, Event) = match n % 4 {
        0 => (
            format!("agent:{}", agent(n / 4)),
            MemoryEvent::ObservationAdded {
                id: MemoryId(n + 1_000),
                entity: MemoryId(n % 11),
                content: format!("note {n}."),
                validity: Validity::default(),
            }
            .into(),
        ),
        1 => (
            conversation.clone(),
            ConversationEvent::MessageSent(Box::new(Message {
                id: message(n),
                id_given: true,
                performative: Performative::Inform,
                sender: agent(n).parse().unwrap(),
                receivers: vec![agent(n + 1).parse().unwrap(), agent(n + 2).parse().unwrap()],
                routing: None,
                conversation: conversation.parse().unwrap(),
                content: Content::Text(format!("word {n}.")),
                priority: Priority::Normal,
                reply_with: None,
                in_reply_to: None,
                reply_by: None,
                expires_at: None,
                extras: None,
            }))
            .into(),
        ),
        2 => (
            format!("conversation:{conversation}"),
            TurnEvent::ContextPrepared {
                turn: turn(n / 8),
                parts: vec![ContextPart {
                    kind: ContextKind::Memory,
                    used: vec![format!("obs_{}", n % 13), "#3".to_owned(), "tool:memory".to_owned()],
                    tokens: 1,
                    left_out: 0,
                    unavailable: None,
                }],
                budget_tokens: 10,
                missing_variables: Vec::new(),
                system_prompt: String::new(),
                user_prompt: String::new(),
            }
            .into(),
        ),
        _ => ("system".to_owned(), SystemEvent::ServerStarted { version: n.to_string() }.into()),
    };
    Draft {
        stream,
        actor: agent(n),
        correlation: n.is_multiple_of(3).then(|| turn(n / 8).to_string()),
        causation: (n > 10).then(|| Seq(n - n % 9)),
        event,
    }
}

fn options() -> LogOptions {
    LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..LogOptions::new([7; 16]) }
}

fn open(dir: &Path) -> Log {
    Log::open(dir, options(), Arc::new(Script::default())).unwrap()
}

/// A log with blocks of ten events.
fn log(dir: &Path) -> Log {
    let log = open(dir);
    for first in (1..=EVENTS).step_by(10) {
        let drafts = (first..first + 10).map(draft).collect();
        log.append(vec![Batch::of(drafts)]).unwrap().remove(0).unwrap();
    }
    log
}

fn truth(reader: &Reader) -> Vec<Record> {
    reader.scan(Seq::FIRST, &Filter::default()).map(Result::unwrap).collect()
}

/// Whether the record is wanted, without terms.
fn is_wanted(record: &Record, question: &Question) -> bool {
    let about_agent = |name: &str| {
        record.actor == name
            || record.stream.strip_prefix("agent:") == Some(name)
            || matches!(&record.event, Event::Conversation(ConversationEvent::MessageSent(message))
                if message.sender.as_str() == name || message.receivers.iter().any(|one| one.as_str() == name))
    };
    let rows = if let Event::Memory(MemoryEvent::ObservationAdded { id, entity, .. }) = &record.event {
        vec![*id, *entity]
    } else {
        Vec::new()
    };
    let mut messages = None;
    if let Event::Conversation(ConversationEvent::MessageSent(message)) = &record.event {
        messages = Some(message.id);
    }
    let (mut turns, mut reads) = (None, "");
    if let Event::Turn(TurnEvent::ContextPrepared { turn, parts, .. }) = &record.event {
        (turns, reads) = (Some(*turn), parts[0].used[0].as_str());
    }
    let conversation = record.stream.trim_start_matches("conversation:");
    question.actor.as_deref().is_none_or(|actor| actor == record.actor)
        && question.agent.as_ref().is_none_or(|agent| about_agent(agent.as_str()))
        && question.conversation.as_ref().is_none_or(|name| name.as_str() == conversation)
        && question.row.is_none_or(|id| rows.contains(&id))
        && question.reads.is_none_or(|id| reads == format!("obs_{id}"))
        && question.message.is_none_or(|id| messages == Some(id))
        && question.turn.is_none_or(|id| turns == Some(id) || record.correlation == Some(id.to_string()))
        && question.kinds.as_ref().is_none_or(|kinds| kinds.contains(&record.event.kind()))
        && question.correlation.as_ref().is_none_or(|text| record.correlation.as_ref() == Some(text))
        && question.cause.is_none_or(|seq| record.causation == Some(seq))
        && question.stream.as_ref().is_none_or(|stream| *stream == record.stream)
        && question.since.is_none_or(|since| record.recorded_at >= since)
        && question.until.is_none_or(|until| record.recorded_at < until)
        && question.from.is_none_or(|from| record.seq >= from)
        && question.to.is_none_or(|to| record.seq <= to)
}

fn questions(truth: &[Record]) -> Vec<Question> {
    let none = Question::default;
    let time = |index: usize| Some(truth[index].recorded_at);
    let kinds = |kinds: &[Kind]| Some(kinds.to_vec());
    let some = |text: &str| Some(text.to_owned());
    vec![
        none(),
        Question { actor: some("agent-3"), ..none() },
        Question { actor: some("nobody"), ..none() },
        Question { agent: "agent-3".parse().ok(), ..none() },
        Question { agent: "agent-3".parse().ok(), actor: some("agent-1"), ..none() },
        Question { agent: "agent-1".parse().ok(), kinds: kinds(&[Kind::MessageSent]), ..none() },
        Question { conversation: "conv-4".parse().ok(), ..none() },
        Question { row: Some(MemoryId(5)), ..none() },
        Question { row: Some(MemoryId(1_040)), ..none() },
        Question { reads: Some(MemoryId(4)), ..none() },
        Question { message: Some(message(41)), ..none() },
        Question { turn: Some(turn(9)), ..none() },
        Question { correlation: some(&turn(9).to_string()), ..none() },
        Question { cause: Some(Seq(90)), ..none() },
        Question { stream: some("system"), since: time(55), until: time(222), ..none() },
        Question { agent: "agent-2".parse().ok(), since: time(140), ..none() },
        Question { agent: "agent-2".parse().ok(), from: Some(Seq(33)), to: Some(Seq(64)), ..none() },
        Question { agent: "agent-2".parse().ok(), from: Some(Seq(250)), to: Some(Seq(20)), ..none() },
        Question { kinds: kinds(&[]), ..none() },
        Question {
            kinds: kinds(&[Kind::ContextPrepared]),
            from: Some(Seq(60)),
            to: Some(Seq(999)),
            ..none()
        },
    ]
}

/// What a trail gives of a log without erased events; with `one` a record at a time.
fn walked(question: &Question, reader: &Reader, postings: &Postings, one: bool) -> (Vec<Record>, Trail) {
    let (found, trail) = walked_found(question, reader, postings, one);
    let records = found.into_iter().map(|event| match event {
        Found::Record(record) => record,
        Found::Sealed(sealed) => panic!("{sealed:?} was erased"),
    });
    (records.collect(), trail)
}

fn walked_found(question: &Question, reader: &Reader, postings: &Postings, one: bool) -> (Vec<Found>, Trail) {
    let mut trail = Trail::new(question.clone(), reader).unwrap();
    let mut found = Vec::new();
    let mut steps = 0;
    while !trail.is_done() {
        trail
            .step(reader, postings, &mut |event| {
                found.push(event);
                if one { More::No } else { More::Yes }
            })
            .unwrap();
        steps += 1;
        assert!(steps < 10_000, "{question:?} comes to no end");
    }
    (found, trail)
}

/// Every question has the answer of the log, in both directions, at once and record by record.
#[track_caller]
fn check(reader: &Reader, postings: &Postings, truth: &[Record], what: &str) {
    for question in questions(truth) {
        let mut then: Vec<Record> =
            truth.iter().filter(|record| is_wanted(record, &question)).cloned().collect();
        for newest_first in [false, true] {
            let question = Question { newest_first, ..question.clone() };
            let mut blocks = None;
            for one in [false, true] {
                let (found, trail) = walked(&question, reader, postings, one);
                let figures = trail.figures();
                assert!(figures.read.blocks <= figures.blocks, "{what}: {question:?}: {figures:?}");
                assert!(figures.read.bytes <= figures.bytes, "{what}: {question:?}: {figures:?}");
                // A block that is gone on in counts once, however often the walk stops in it.
                let read = (figures.read.blocks, figures.read.bytes);
                assert_eq!(*blocks.get_or_insert(read), read, "{what}: {question:?}");
                assert_eq!(found, then, "{what}: {question:?}");
                assert_eq!(trail.figures().matched, then.len() as u64);
                assert_eq!(trail.gaps(), (&[][..], 0), "{what}: {question:?}");
            }
            then.reverse();
        }
    }
}

fn built(dir: &Path, reader: &Reader) -> Postings {
    let postings = Postings::with_sizes(dir, SIZES);
    while postings.step(reader, &|| false).unwrap() != Step::Done {}
    postings
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir.join(FOLDER)).unwrap();
    entries.map(|entry| entry.unwrap().path()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn answers_are_the_same_whatever_the_postings_cover() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path());
    let reader = log.reader();
    let truth = truth(&reader);
    let postings = Postings::with_sizes(dir.path(), SIZES);
    check(&reader, &postings, &truth, "nothing");
    let mut steps = 0;
    while postings.step(&reader, &|| false).unwrap() != Step::Done {
        steps += 1;
        check(&reader, &postings, &truth, &format!("step {steps}"));
    }
    // Nine of 32, and twice four of them became one.
    assert_eq!(steps, 9 + 2);
    let status = postings.status();
    assert_eq!((status.through, status.events, status.segments), (Seq(288), 288, 3));
    for (first, what) in [(1, "the first"), (129, "the second"), (257, "the last")] {
        let segments = postings.segments();
        let segment = segments.iter().find(|segment| segment.covers().start() == &Seq(first)).unwrap();
        postings.drop_segment(segment, &super::SegmentError::Version { path: PathBuf::from(what) });
        check(&reader, &postings, &truth, &format!("without {what}"));
        while postings.step(&reader, &|| false).unwrap() != Step::Done {}
        assert_eq!(postings.status().through, Seq(288), "made again: {what}");
    }
    check(&reader, &postings, &truth, "everything again");
}

#[test]
fn postings_are_opened_again_and_two_makings_give_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path());
    let reader = log.reader();
    let made = built(dir.path(), &reader);
    let opened = Postings::with_sizes(dir.path(), SIZES);
    fs::write(dir.path().join(FOLDER).join("x.unfinished"), "half").unwrap();
    opened.open(&reader).unwrap();
    opened.tidy().unwrap();
    assert_eq!(opened.status(), made.status());
    check(&reader, &opened, &truth(&reader), "opened");
    let other = tempfile::tempdir().unwrap();
    built(other.path(), &reader);
    let contents = |dir: &Path| files(dir).into_values().collect::<Vec<_>>();
    assert_eq!(contents(dir.path()), contents(other.path()));
}

#[test]
fn postings_let_an_answer_read_what_it_needs_alone() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path());
    let reader = log.reader();
    let question = Question { row: Some(MemoryId(1_040)), to: Some(Seq(288)), ..Question::default() };
    let blocks = |postings: &Postings| walked(&question, &reader, postings, false).1.figures().read.blocks;
    assert_eq!(blocks(&Postings::with_sizes(dir.path(), SIZES)), 29);
    let postings = built(dir.path(), &reader);
    assert_eq!(blocks(&postings), 1);
    let figures = walked(&question, &reader, &postings, false).1.figures();
    assert!(figures.postings_bytes > 0 && figures.blocks == 30 && figures.bytes > figures.read.bytes);
}

#[test]
fn a_flipped_bit_in_the_postings_changes_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path());
    let reader = log.reader();
    let truth = truth(&reader);
    built(dir.path(), &reader);
    let whole = files(dir.path());
    let asked = [
        Question { agent: "agent-3".parse().ok(), ..Question::default() },
        Question { cause: Some(Seq(90)), newest_first: true, ..Question::default() },
    ];
    let mut noticed = 0;
    for (path, bytes) in &whole {
        for at in (0..bytes.len()).step_by(211) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(path, &flipped).unwrap();
            let postings = Postings::with_sizes(dir.path(), SIZES);
            postings.open(&reader).unwrap();
            for question in &asked {
                let mut then: Vec<Record> =
                    truth.iter().filter(|record| is_wanted(record, question)).cloned().collect();
                if question.newest_first {
                    then.reverse();
                }
                assert_eq!(walked(question, &reader, &postings, false).0, then, "byte {at} of {path:?}");
            }
            let status = postings.status();
            noticed += status.dropped.len();
            for dropped in &status.dropped {
                assert!(dropped.contains(path.file_name().unwrap().to_str().unwrap()), "{dropped}");
            }
        }
        for len in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            fs::write(path, &bytes[..len]).unwrap();
            let postings = Postings::with_sizes(dir.path(), SIZES);
            postings.open(&reader).unwrap();
            assert_eq!(postings.status().dropped.len(), 1, "cut to {len}");
            check(&reader, &postings, &truth, "cut");
        }
        fs::write(path, bytes).unwrap();
    }
    assert!(noticed > 20, "only {noticed} flips were noticed");
    let last = whole.keys().last().unwrap();
    fs::write(last, "nonsense").unwrap();
    let postings = Postings::with_sizes(dir.path(), SIZES);
    postings.open(&reader).unwrap();
    postings.tidy().unwrap();
    while postings.step(&reader, &|| false).unwrap() != Step::Done {}
    assert_eq!(files(dir.path()), whole, "what was damaged is made again");
}

#[test]
fn postings_that_are_made_again_leave_nothing_of_those_before() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path());
    let reader = log.reader();
    let postings = built(dir.path(), &reader);
    let whole = files(dir.path());
    let segments = postings.segments();
    let last = segments.last().unwrap();
    let unfinished = last.path().with_extension("unfinished");
    fs::copy(last.path(), &unfinished).unwrap();
    // Second names keep the bytes, so that they can be looked at afterwards.
    let kept = [last.path(), unfinished.as_path()].map(|path| {
        let kept = dir.path().join(path.extension().unwrap());
        fs::hard_link(path, &kept).unwrap();
        kept
    });
    postings.drop_segment(last, &super::SegmentError::Version { path: PathBuf::from("the last") });
    while postings.step(&reader, &|| false).unwrap() != Step::Done {}
    assert_eq!(files(dir.path()), whole);
    for kept in kept {
        assert!(fs::read(&kept).unwrap().iter().all(|byte| *byte == 0), "{}", kept.display());
    }
}

#[test]
fn postings_of_another_history_are_not_used() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = log(dir.path());
    built(dir.path(), &first.reader());
    // The same log id, another first event.
    let second = open(other.path());
    for n in 2..=EVENTS + 1 {
        second.append(vec![Batch::of(vec![draft(n)])]).unwrap().remove(0).unwrap();
    }
    fs::create_dir(other.path().join(FOLDER)).unwrap();
    for (path, bytes) in files(dir.path()) {
        fs::write(other.path().join(FOLDER).join(path.file_name().unwrap()), bytes).unwrap();
    }
    let postings = Postings::with_sizes(other.path(), SIZES);
    postings.open(&second.reader()).unwrap();
    let status = postings.status();
    assert_eq!((status.segments, status.dropped.len()), (0, 3), "{status:?}");
    assert!(status.dropped[0].ends_with("is about another log or another history of this one"), "{status:?}");
    check(&second.reader(), &postings, &truth(&second.reader()), "another history");
}

#[test]
fn a_damaged_event_is_a_gap_with_postings_and_without() {
    let dir = tempfile::tempdir().unwrap();
    let truth = {
        let log = log(dir.path());
        let truth = truth(&log.reader());
        built(dir.path(), &log.reader());
        log.close().unwrap();
        truth
    };
    let file = dir.path().join("events.redb");
    let mut bytes = fs::read(&file).unwrap();
    let text = b"note 100.";
    while let Some(at) = bytes.windows(text.len()).position(|window| window == text) {
        bytes[at] ^= 1;
    }
    fs::write(&file, bytes).unwrap();
    let log = open(dir.path());
    let reader = log.reader();
    let covered = Postings::with_sizes(dir.path(), SIZES);
    covered.open(&reader).unwrap();
    assert_eq!(covered.status().segments, 3);
    let fresh_dir = tempfile::tempdir().unwrap();
    let fresh = Postings::with_sizes(fresh_dir.path(), SIZES);
    let mut failures = 0;
    loop {
        match fresh.step(&reader, &|| false) {
            Ok(Step::Done) => break,
            Ok(Step::Built { .. } | Step::Merged) => (),
            Err(_) => failures += 1,
        }
    }
    assert_eq!(
        (failures, fresh.status().events),
        (1, 256),
        "what cannot be read is left out, the rest is covered"
    );
    let none = Postings::with_sizes(&fresh_dir.path().join("none"), SIZES);
    for (postings, what) in [(&covered, "covered"), (&fresh, "covered but there"), (&none, "none")] {
        for newest_first in [false, true] {
            let question = Question { actor: Some(draft(100).actor), newest_first, ..Question::default() };
            let wanted = |record: &&Record| is_wanted(record, &question) && record.seq != Seq(100);
            let mut then: Vec<Record> = truth.iter().filter(wanted).cloned().collect();
            if newest_first {
                then.reverse();
            }
            let (found, trail) = walked(&question, &reader, postings, false);
            assert_eq!(found, then, "{what}");
            let (gaps, more) = trail.gaps();
            assert_eq!((gaps.len(), more, gaps[0].first, gaps[0].last), (1, 0, Seq(100), Seq(100)), "{what}");
        }
    }
}

/// Bytes that differ at each draw.
#[expect(clippy::unnecessary_wraps, reason = "the log takes a function that may fail")]
fn draw(bytes: &mut [u8]) -> std::io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    for chunk in bytes.chunks_mut(8) {
        let next = COUNT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(&next.to_le_bytes()[..chunk.len()]);
    }
    Ok(())
}

#[test]
fn erased_events_are_found_by_what_is_left_of_them_whenever_the_postings_were_made() {
    for what in [Encrypt::All, Encrypt::None] {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { sealing: Some(Sealing { what, draw }), ..options() };
        let log = Log::open(dir.path(), options, Arc::new(Script::default())).unwrap();
        for first in (1..=EVENTS).step_by(10) {
            log.append(vec![Batch::of((first..first + 10).map(draft).collect())]).unwrap().remove(0).unwrap();
        }
        let reader = log.reader();
        let before = built(dir.path(), &reader);
        let subjects: Vec<Subject> = vec!["agent:agent-1".parse().unwrap()];
        let order = log.erase(&subjects, |keys| Draft {
            stream: "system".to_owned(),
            actor: "system".to_owned(),
            correlation: None,
            causation: None,
            event: SystemEvent::ErasureOrdered {
                subjects: subjects.clone(),
                asked: "agent agent-1".to_owned(),
                keys,
                events: 15,
                next_memory_id: 1,
                reason: None,
                by: "system".to_owned(),
            }
            .into(),
        });
        let order = order.unwrap().first;
        if what == Encrypt::None {
            assert_eq!(log.redact(&subjects, order).unwrap(), 15);
        }
        let truth: Vec<Found> =
            reader.scan_found(Seq::FIRST, &Filter::default()).map(Result::unwrap).collect();
        let erased = |event: &&Found| matches!(event, Found::Sealed(_));
        assert_eq!(truth.iter().filter(erased).count(), 15);
        let fresh = tempfile::tempdir().unwrap();
        let after = built(fresh.path(), &reader);
        let none = Postings::with_sizes(&fresh.path().join("none"), SIZES);
        let stream = Question { stream: Some("agent:agent-1".to_owned()), ..Question::default() };
        let row = Question { row: Some(MemoryId(1_004)), ..Question::default() };
        let by_cause = Question { cause: Some(Seq(99)), ..Question::default() };
        for postings in [&before, &after, &none] {
            let found = |question: &Question| walked_found(question, &reader, postings, false).0;
            assert_eq!(found(&Question::default()), truth);
            // Stream, actor and cause of what was encrypted can be read; what was not is gone with them.
            let left = if what == Encrypt::None { 0 } else { 15 };
            assert_eq!(found(&stream).iter().filter(erased).count(), left);
            assert_eq!(found(&row), [], "what it was about is gone");
            let caused = truth.iter().filter(|event| match event {
                Found::Record(record) => record.causation == Some(Seq(99)),
                Found::Sealed(sealed) => {
                    sealed.around.as_ref().is_some_and(|around| around.causation == Some(Seq(99)))
                }
            });
            assert_eq!(found(&by_cause), caused.cloned().collect::<Vec<_>>());
        }
        // What was taken out of the log stands in what was made before, until that is forgotten.
        let term = Term::Stream(Cow::Borrowed("agent:agent-1")).hash();
        let tells = || before.segments().iter().any(|part| !part.find(term).unwrap().0.is_empty());
        assert!(tells());
        before.forget(&reader.taken_out(order).unwrap()).unwrap();
        for _ in 0..2 {
            assert_eq!(tells(), what == Encrypt::All);
            while before.step(&reader, &|| false).unwrap() != Step::Done {}
            assert_eq!(before.status().through, Seq(288));
        }
    }
}
