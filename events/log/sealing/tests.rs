//! Encrypted payloads and their keys, as the log's callers see them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod rewriting;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Encrypt, KEYS_FILE, KeysError, Sealing};
use crate::log::chain::Frontier;
use crate::log::exchange::{EventLine, HeadLine, LineCheck, LineError};
use crate::log::rebuild::Rebuild;
use crate::log::stored::Body;
use crate::log::tests::{append, batch, clock, content, contents, keyed, options, records};
use crate::log::{
    AppendError, Batch, EraseError, Filter, ForkOptions, Found, FoundRef, Log, LogOptions, OpenError,
    ReadError, Reader, RecordRef, RewriteError, Salvaged, Series, copy_log, fork_log,
};
use crate::{Draft, Kind, Seq, Subject, SystemEvent, Timestamp};

/// Bytes that differ at each draw.
#[expect(clippy::unnecessary_wraps, reason = "the log takes a function that may fail")]
fn draw(bytes: &mut [u8]) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    for chunk in bytes.chunks_mut(8) {
        let next = COUNT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(&next.to_le_bytes()[..chunk.len()]);
    }
    Ok(())
}

fn sealed(what: Encrypt) -> LogOptions {
    LogOptions { sealing: Some(Sealing { what, draw }), compress_above: Some(256), ..options() }
}

fn open(dir: &Path) -> Log {
    Log::open(dir, sealed(Encrypt::All), clock()).unwrap()
}

fn subject(text: &str) -> Subject {
    text.parse().unwrap()
}

fn order(subjects: &[Subject], keys: Vec<u64>) -> Draft {
    Draft {
        stream: "system".to_owned(),
        actor: "system".to_owned(),
        correlation: None,
        causation: None,
        event: SystemEvent::ErasureOrdered {
            subjects: subjects.to_vec(),
            asked: "scope agent:ada".to_owned(),
            keys,
            events: 1,
            next_memory_id: 1,
            reason: None,
            by: "system".to_owned(),
        }
        .into(),
    }
}

fn erase(log: &Log, subjects: &[Subject]) -> Seq {
    log.erase(subjects, |keys| order(subjects, keys)).unwrap().first
}

/// Every file of the directory holds the text nowhere.
#[track_caller]
fn check_nowhere(dir: &Path, text: &str) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(text.len()).any(|part| part == text.as_bytes()), "{}", path.display());
    }
}

/// Every event, as each of the ways through the log shows it.
fn found(reader: &Reader) -> Vec<Found> {
    let all = Filter::default();
    let shown: Vec<Found> = reader.scan_found(Seq::FIRST, &all).map(Result::unwrap).collect();
    let (mut visited, mut passed) = (Vec::new(), 0);
    for block in reader.blocks(Seq::FIRST, &all) {
        let block = block.unwrap();
        assert!(block.block().unwrap().is_sound(), "the header has the checksum of its block");
        let visit = |found: &FoundRef<'_>| {
            visited.push(match found {
                FoundRef::Record(record) => Found::Record(record.to_record()?),
                FoundRef::Sealed(sealed) => Found::Sealed(sealed.clone()),
            });
            Ok::<(), ReadError>(())
        };
        block.for_each_found(visit).unwrap();
        let pass = |record: &RecordRef<'_>| record.event().map(|_| passed += 1);
        block.for_each(pass).unwrap();
    }
    assert_eq!(visited, shown);
    assert_eq!(passed, shown.iter().filter(|found| matches!(found, Found::Record(_))).count());
    let salvaged = reader.scan_salvaging(Seq::FIRST, &all).unwrap().map(|salvaged| match salvaged {
        Salvaged::Event(found) => *found,
        Salvaged::Lost(lost) => panic!("{lost:?}"),
    });
    assert_eq!(salvaged.collect::<Vec<_>>(), shown);
    let survey = reader.survey(&mut |_| ()).unwrap();
    let erased = shown.iter().filter(|found| matches!(found, Found::Sealed(_))).count();
    assert_eq!((survey.events, survey.erased), (shown.len() as u64, erased as u64));
    assert!(survey.gaps.is_empty());
    shown
}

const LONG: &str = "a secret that is said again and again; ";

#[test]
fn what_is_encrypted_reads_back_and_stands_in_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let long = LONG.repeat(50);
    let log = open(dir.path());
    append(&log, batch("agent:ada", &["short secret", &long]));
    append(&log, batch("workspace:lab", &["of the lab"]));
    assert_eq!(contents(&log.reader()), ["short secret", &long, "of the lab"]);
    log.close().unwrap();
    for text in ["short secret", LONG, "of the lab"] {
        check_nowhere(dir.path(), text);
    }
    let mode = fs::metadata(dir.path().join(KEYS_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let log = open(dir.path());
    assert_eq!(contents(&log.reader()), ["short secret", &long, "of the lab"]);
    assert_eq!(log.reader().key_counts(), (2, 0));
    log.close().unwrap();
}

#[test]
fn the_setting_says_whose_payloads_are_encrypted() {
    let streams = ["agent:ada", "workspace:lab", "global"];
    for (what, encrypted) in [(Encrypt::None, 0), (Encrypt::Agents, 1), (Encrypt::All, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), sealed(what), clock()).unwrap();
        let batches = streams.map(|stream| batch(stream, &["one", "two"]));
        log.append(batches.into()).unwrap();
        let subjects = streams.map(subject);
        let holdings = log.reader().holdings(&subjects).unwrap();
        let sealed = holdings.values().filter(|holdings| holdings.sealed == 2).count();
        let plain = holdings.values().filter(|holdings| holdings.plain == 2).count();
        assert_eq!((sealed, plain), (encrypted, 3 - encrypted), "{what:?}");
    }
}

#[test]
fn what_is_erased_is_passed_over_its_place_is_shown_and_everything_else_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, batch("agent:ada", &["of ada"]));
    append(&log, batch("agent:bob", &["of bob"]));
    let before = log.head();
    let order = erase(&log, &[subject("agent:ada")]);
    append(&log, batch("agent:ada", &["of ada again"]));
    let check = |log: &Log| {
        let reader = log.reader();
        let shown = found(&reader);
        assert_eq!(shown.len(), 4);
        let Found::Sealed(sealed) = &shown[0] else { panic!("{:?}", shown[0]) };
        assert_eq!((sealed.seq, sealed.erased_by), (Seq(1), Some(order)));
        assert_eq!(sealed.around.as_ref().unwrap().stream, "agent:ada");
        assert!(matches!(&shown[3], Found::Record(_)), "a new key after the erasure");
        let kept = reader.scan(Seq::FIRST, &Filter::default()).map(|record| record.unwrap().seq);
        assert_eq!(kept.collect::<Vec<_>>(), [Seq(2), order, Seq(4)]);
        let verified = reader.verify(&mut |_| ()).unwrap();
        assert_eq!((verified.events, verified.erased, verified.unread), (4, 1, 0));
        assert_eq!(reader.head_at(2).unwrap().root, before.root, "no root has changed");
        reader.prove_inclusion(Seq(1), 4).unwrap();
        assert!(reader.stored_event(Seq(1)).unwrap().found().is_ok());
        let holdings = reader.holdings(&[subject("agent:ada")]).unwrap()[&subject("agent:ada")];
        assert_eq!((holdings.sealed, holdings.plain, holdings.erased), (1, 0, 1));
    };
    check(&log);
    log.close().unwrap();
    let log = open(dir.path());
    check(&log);
    log.close().unwrap();
}

#[test]
fn a_key_that_is_destroyed_stands_in_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, batch("agent:ada", &["of ada"]));
    append(&log, batch("agent:bob", &["of bob"]));
    let keys = fs::read(dir.path().join(KEYS_FILE)).unwrap();
    let (ada, bob) = (keys[128 + 16..128 + 48].to_vec(), keys[256 + 16..256 + 48].to_vec());
    erase(&log, &[subject("agent:ada")]);
    log.close().unwrap();
    let stands = |key: &[u8]| {
        let files = fs::read_dir(dir.path()).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
        files.filter(|bytes| bytes.windows(key.len()).any(|part| part == key)).count()
    };
    assert_eq!((stands(&ada), stands(&bob)), (0, 1));
}

#[test]
fn an_order_without_its_end_is_completed_by_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, batch("agent:ada", &["of ada"]));
    // As after a crash between the order and the end of the keys.
    let ada = [subject("agent:ada")];
    let keys = log.reader().keys().ids_of(&ada);
    let order = append(&log, Batch::of(vec![order(&ada, keys.clone())])).first;
    assert_eq!(contents_of(&log).len(), 1);
    log.destroy_keys(&keys, order).unwrap();
    log.destroy_keys(&keys, order).unwrap();
    assert_eq!(contents_of(&log).len(), 0);
    log.close().unwrap();
}

fn contents_of(log: &Log) -> Vec<Seq> {
    let records = log.reader().scan(Seq::FIRST, &Filter::default()).map(Result::unwrap);
    records.filter(|record| record.stream == "agent:ada").map(|record| record.seq).collect()
}

#[test]
fn what_was_on_its_way_under_a_key_that_is_destroyed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, batch("agent:ada", &["of ada"]));
    let late = crate::log::prepare::prepare(batch("agent:ada", &["late"]), &log.preparation);
    erase(&log, &[subject("agent:ada")]);
    let refused = log.send(vec![late], None).unwrap().wait().unwrap().remove(0);
    assert!(matches!(refused, Err(AppendError::BeingErased { .. })), "{refused:?}");
    // Held twice, it is held until both have let go.
    let [held, twice] = [(); 2].map(|()| log.hold(&[subject("agent:ada")]));
    drop(twice);
    let refused = log.append(vec![batch("agent:ada", &["held"])]).unwrap().remove(0);
    assert!(matches!(refused, Err(AppendError::BeingErased { .. })), "{refused:?}");
    append(&log, batch("agent:bob", &["of bob"]));
    drop(held);
    append(&log, batch("agent:ada", &["now"]));
    log.close().unwrap();
}

#[test]
fn what_builds_on_a_refused_batch_is_refused_with_it_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let submit = |stream: &str, series: Option<&Series>| {
        log.submit_drafts(&batch(stream, &["said"]).drafts, series).unwrap()
    };
    let holding = log.hold(&[subject("agent:ada"), subject("conversation:agent:bob")]);
    let (series, other) = (Series::default(), Series::default());
    let tickets = [
        submit("agent:bob", Some(&series)),
        submit("agent:ada", Some(&series)),
        submit("agent:bob", Some(&series)),
        submit("agent:bob", Some(&other)),
        submit("agent:bob", None),
    ];
    let outcomes = tickets.map(|ticket| ticket.wait().unwrap().remove(0));
    let [before, held, behind, of_another, alone] = &outcomes;
    assert!(before.is_ok() && of_another.is_ok() && alone.is_ok(), "{outcomes:?}");
    assert!(matches!(held, Err(AppendError::BeingErased { stream }) if stream == "agent:ada"), "{held:?}");
    assert!(matches!(behind, Err(AppendError::SeriesBroken)), "{behind:?}");
    assert!(series.is_broken() && !other.is_broken());
    drop(holding);
    // What could not even be prepared breaks it, too; and it stays broken.
    let outcomes = [submit("agent:ada", Some(&series)), log.submit_drafts(&[], Some(&other)).unwrap()]
        .map(|ticket| ticket.wait().unwrap().remove(0));
    assert!(matches!(outcomes, [Err(AppendError::SeriesBroken), Err(AppendError::Empty)]), "{outcomes:?}");
    assert!(other.is_broken());
    log.close().unwrap();
}

#[test]
fn a_missing_damaged_open_or_foreign_file_of_keys_is_refused_by_name_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, batch("agent:ada", &["of ada", "more of ada"]));
    log.close().unwrap();
    let path = dir.path().join(KEYS_FILE);
    let whole = fs::read(&path).unwrap();
    let refused = |bytes: Option<&[u8]>| {
        match bytes {
            Some(bytes) => {
                fs::write(&path, bytes).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            }
            None => fs::remove_file(&path).unwrap(),
        }
        let error = Log::open(dir.path(), sealed(Encrypt::All), clock()).unwrap_err();
        assert_eq!(fs::read(&path).ok().as_deref(), bytes, "nothing is changed, nothing is made");
        let OpenError::Keys(error) = error else { panic!("{error}") };
        error
    };
    let missing = refused(None).to_string();
    assert!(
        missing.contains("without it the content of 2 events (in agent:ada) cannot be read"),
        "{missing}"
    );
    let mut flipped = whole.clone();
    flipped[128 + 20] ^= 1;
    assert!(refused(Some(&flipped)).to_string().contains("key 1 of it is not what was written"));
    assert!(matches!(refused(Some(b"")), KeysError::Damaged { .. }));
    for cut in [128, 200, 255] {
        let error = refused(Some(&whole[..cut])).to_string();
        assert!(error.contains("it has 0 of at least 1 keys: its end is missing"), "{error}");
    }
    let other = tempfile::tempdir().unwrap();
    let foreign = LogOptions { log_id: [8; 16], ..sealed(Encrypt::All) };
    drop(Log::open(other.path(), foreign, clock()).unwrap());
    assert!(matches!(
        refused(Some(&fs::read(other.path().join(KEYS_FILE)).unwrap())),
        KeysError::Foreign { .. }
    ));
    fs::write(&path, &whole).unwrap();
    for mode in [0o644, 0o640, 0o602] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Log::open(dir.path(), sealed(Encrypt::None), clock()).unwrap_err();
        assert!(matches!(error, OpenError::Keys(KeysError::Permissions { .. })), "{error:?}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    // What a write that was cut short left behind belongs to nothing.
    for torn in [&[0; 128][..], &[7; 60]] {
        fs::write(&path, [&whole, torn].concat()).unwrap();
        let log = Log::open(dir.path(), LogOptions { sealing: None, ..options() }, clock()).unwrap();
        assert_eq!(contents(&log.reader()), ["of ada", "more of ada"]);
        log.close().unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
    // A file of before does not say how many keys it has; it does from then on.
    fs::write(&path, [&super::file::header(&options().log_id, 0)[..], &whole[128..]].concat()).unwrap();
    open(dir.path()).close().unwrap();
    assert_eq!(fs::read(&path).unwrap(), whole);
}

#[test]
fn a_copy_without_keys_verifies_and_is_never_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, batch("agent:ada", &["of ada"]));
    log.close().unwrap();
    fs::remove_file(dir.path().join(KEYS_FILE)).unwrap();
    let reader = Log::open_read_only(dir.path()).unwrap();
    let verified = reader.verify(&mut |_| ()).unwrap();
    assert_eq!((verified.events, verified.erased, verified.unread), (1, 0, 1));
    let read = reader.scan(Seq::FIRST, &Filter::default()).next().unwrap();
    assert!(matches!(&read, Err(ReadError::KeyMissing { stream, .. }) if stream == "agent:ada"), "{read:?}");
    let shown = reader.scan_found(Seq::FIRST, &Filter::default()).next().unwrap();
    assert!(matches!(shown, Err(ReadError::KeyMissing { .. })), "{shown:?}");
    let block = reader.blocks(Seq::FIRST, &Filter::default()).next().unwrap().unwrap();
    let visited: Result<(), ReadError> = block.for_each(|_| Ok(()));
    assert!(matches!(&visited, Err(ReadError::KeyMissing { stream, .. }) if stream == "agent:ada"));
    // What is salvaged says what is left of it: its bytes are there.
    let saved = reader.scan_salvaging(Seq::FIRST, &Filter::default()).unwrap().next();
    let Some(Salvaged::Event(saved)) = saved else { panic!("{saved:?}") };
    assert!(matches!(*saved, Found::Sealed(_)));
    assert_eq!(reader.survey(&mut |_| ()).unwrap().unread, 1);
}

#[test]
fn an_order_that_cannot_be_recorded_erases_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, batch("agent:ada", &["of ada"]));
    let huge = [subject("agent:ada")];
    let refused = log.erase(&huge, |keys| Draft { stream: "s".repeat(17 << 20), ..order(&huge, keys) });
    assert!(matches!(refused, Err(EraseError::Order(AppendError::TooLarge { .. }))), "{refused:?}");
    assert_eq!(contents(&log.reader()), ["of ada"]);
    append(&log, batch("agent:ada", &["more"]));
    log.close().unwrap();
}

#[test]
fn blocks_of_encrypted_events_merge_and_keep_what_a_filter_finds() {
    let dir = tempfile::tempdir().unwrap();
    let small = LogOptions { wal_group_bytes_max: 0, ..sealed(Encrypt::All) };
    let log = Log::open(dir.path(), small, clock()).unwrap();
    for n in 0..200 {
        append(&log, batch(&format!("agent:a{}", n % 4), &[&format!("text {n}")]));
    }
    erase(&log, &[subject("agent:a1")]);
    log.close().unwrap();
    let log = open(dir.path());
    let filter = Filter { stream: Some("agent:a2".to_owned()), ..Filter::default() };
    assert_eq!(log.reader().scan(Seq::FIRST, &filter).map(Result::unwrap).count(), 50);
    let verified = log.reader().verify(&mut |_| ()).unwrap();
    assert_eq!((verified.events, verified.erased), (201, 50));
    log.close().unwrap();
}

#[test]
fn what_lies_as_it_was_written_is_taken_out_by_writing_the_log_anew() {
    let dir = tempfile::tempdir().unwrap();
    let plain = || LogOptions { wal_group_bytes_max: 64 << 10, ..options() };
    let log = Log::open(dir.path(), plain(), clock()).unwrap();
    let long = LONG.repeat(200);
    for n in 0..50 {
        append(
            &log,
            keyed(batch("agent:ada", &[&format!("secret {n}"), &long]), &format!("secret key {n}"), 1),
        );
        append(&log, keyed(batch("agent:bob", &[&format!("of bob {n}")]), &format!("bob's key {n}"), 1));
    }
    let (before, reader) = (log.head(), log.reader());
    let mut under_way = reader.scan(Seq::FIRST, &Filter::default());
    under_way.next().unwrap().unwrap();
    drop(under_way);
    let ada = [subject("agent:ada")];
    let order = erase(&log, &ada);
    assert_eq!(log.redact(&ada, order).unwrap(), 100);
    append(&log, batch("agent:ada", &["said since"]));
    let check = |log: &Log| {
        let reader = log.reader();
        assert!(reader.has_gaps());
        assert_eq!(reader.head_at(before.seq.0).unwrap(), before, "no root has changed");
        let shown = found(&reader);
        let erased = shown
            .iter()
            .filter(|found| matches!(found, Found::Sealed(sealed) if sealed.erased_by == Some(order)));
        assert_eq!((shown.len(), erased.count()), (152, 100));
        assert_eq!(contents_of(log).len(), 1, "what was said since stays");
        let verified = reader.verify(&mut |_| ()).unwrap();
        assert_eq!((verified.events, verified.erased, verified.keys), (152, 100, 50));
        assert!(reader.stored_event(Seq(1)).is_err());
        reader.prove_inclusion(Seq(1), 152).unwrap();
        assert_eq!(reader.key("secret key 3").unwrap(), None);
        assert!(reader.key("bob's key 3").unwrap().is_some());
    };
    check(&log);
    log.close().unwrap();
    for text in ["secret", LONG] {
        check_nowhere(dir.path(), text);
    }
    // A rewriting that was cut short leaves a file that the next start removes.
    let torn = dir.path().join("events.redb.rewrite");
    fs::write(&torn, "half of a log").unwrap();
    let log = Log::open(dir.path(), plain(), clock()).unwrap();
    assert!(!torn.exists());
    check(&log);
    log.close().unwrap();
}

fn does_not_sync(_: &fs::File) -> io::Result<()> {
    Err(io::Error::other("the folder did not sync"))
}

#[test]
fn a_log_that_is_written_anew_under_a_name_that_may_not_last_takes_no_more_events() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options(), clock()).unwrap();
    append(&log, batch("agent:ada", &["of ada"]));
    append(&log, batch("agent:bob", &["of bob"]));
    let ada = [subject("agent:ada")];
    let order = erase(&log, &ada);
    let failed = log.redact_with(&ada, order, does_not_sync).unwrap_err();
    assert!(matches!(failed, RewriteError::Closed(_)), "{failed:?}");
    assert!(failed.to_string().contains("the folder did not sync"), "{failed}");
    // What would be acknowledged now would lie in a file that a restart may not find.
    let closed = log.append(vec![batch("agent:bob", &["too late"])]).unwrap_err();
    assert!(closed.reason.contains("the folder did not sync"), "{closed}");
    log.close().unwrap_err();
    let log = Log::open(dir.path(), options(), clock()).unwrap();
    assert_eq!(log.head().seq, order);
    assert_eq!(contents_of(&log).len(), 0);
    assert_eq!(log.redact(&ada, order).unwrap(), 0, "the new file is the log");
    append(&log, batch("agent:bob", &["of bob since"]));
    log.close().unwrap();
}

#[test]
fn the_mark_of_an_erasure_that_nobody_ordered_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options(), clock()).unwrap();
    append(&log, batch("agent:ada", &["a secret of some length"]));
    append(&log, batch("agent:bob", &["no order"]));
    log.redact(&[subject("agent:ada")], Seq(2)).unwrap();
    let error = log.reader().verify(&mut |_| ()).unwrap_err();
    let text = crate::log::flusher::chain_of(&error);
    assert!(text.contains("events say that they were erased by #2, which is no order to erase"), "{text}");
    log.close().unwrap();
}

#[test]
fn what_is_erased_keeps_its_moment() {
    for options in [options(), sealed(Encrypt::All)] {
        let dir = tempfile::tempdir().unwrap();
        let is_plain = options.sealing.is_none();
        let log = Log::open(dir.path(), options, clock()).unwrap();
        for stream in ["agent:ada", "agent:bob", "agent:ada", "agent:ada", "agent:bob"] {
            append(&log, batch(stream, &["said"]));
        }
        let before = records(&log.reader());
        let ada = [subject("agent:ada")];
        let order = erase(&log, &ada);
        if is_plain {
            assert_eq!(log.redact(&ada, order).unwrap(), 3);
        }
        let reader = log.reader();
        for record in &before {
            assert_eq!(reader.recorded_at(record.seq).unwrap(), Some(record.recorded_at), "{}", record.seq);
            assert_eq!(reader.last_by(record.recorded_at).unwrap(), record.seq);
        }
        log.close().unwrap();
    }
}

/// What can be read of the memory.
fn texts(reader: &Reader) -> Vec<String> {
    let filter = Filter { kinds: Some(vec![Kind::ObservationAdded]), ..Filter::default() };
    reader.scan(Seq::FIRST, &filter).map(|record| content(&record.unwrap())).collect()
}

#[test]
fn a_fork_has_keys_of_its_own_and_a_copy_without_them_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for (stream, text) in [("agent:ada", "of ada"), ("agent:bob", "of bob"), ("agent:eve", "of eve")] {
        append(&log, batch(stream, &[text]));
    }
    erase(&log, &[subject("agent:eve")]);
    let sealed_log = log.seal().unwrap();
    let copies: Vec<tempfile::TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let options = ForkOptions { cut: Seq(4), log_id: [9; 16], at: Timestamp::EPOCH };
    fork_log(&sealed_log, &options, copies[0].path(), None).unwrap();
    fork_log(&sealed_log, &options, copies[1].path(), Some(&mut |_, _| ())).unwrap();
    copy_log(&log.reader(), Seq(4), &copies[2].path().join("events.redb"), &mut |_| ()).unwrap();
    erase(&log, &[subject("agent:ada")]);
    assert_eq!(texts(&log.reader()), ["of bob"]);
    log.close().unwrap();
    for copy in &copies[..2] {
        assert_eq!(fs::metadata(copy.path().join(KEYS_FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        let fork =
            Log::open(copy.path(), LogOptions { log_id: [9; 16], ..sealed(Encrypt::All) }, clock()).unwrap();
        assert_eq!(texts(&fork.reader()), ["of ada", "of bob"]);
        erase(&fork, &[subject("agent:bob")]);
        append(&fork, batch("agent:bob", &["of bob since"]));
        assert_eq!(texts(&fork.reader()), ["of ada", "of bob since"]);
        fork.close().unwrap();
    }
    for with in [sealed(Encrypt::All), self::options()] {
        let refused = Log::open(copies[2].path(), with, clock()).unwrap_err();
        assert!(matches!(refused, OpenError::Keys(KeysError::Missing { .. })), "{refused}");
        assert!(!copies[2].path().join(KEYS_FILE).exists(), "no new keys are made beside an old log");
    }
    assert_eq!(texts(&open(dir.path()).reader()), ["of bob"]);
}

#[test]
fn a_log_that_travels_as_lines_keeps_its_hashes_and_nothing_of_what_was_erased() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), sealed(Encrypt::Agents), clock()).unwrap();
    append(&log, batch("agent:ada", &["of ada"]));
    append(&log, batch("workspace:lab", &["of the lab"]));
    append(&log, batch("agent:bob", &["of bob"]));
    append(&log, batch("global", &["of all"]));
    let lab = subject("workspace:lab");
    let by = erase(&log, &[subject("agent:ada"), lab.clone()]);
    assert_eq!(log.redact(&[lab], by).unwrap(), 1);
    let (mut frontier, mut lines) = (Frontier::default(), Vec::new());
    for kept in log.reader().scan_stored(Seq::FIRST, &Filter::default()) {
        let (kept, read) = kept.unwrap();
        assert_eq!(kept.seq, read.seq());
        frontier.push(kept.leaf());
        lines.push(EventLine::new(&kept, Some(&frontier.root())));
        let stored = if let Body::Stored(bytes) = kept.body { bytes } else { Vec::new() };
        for gone in ["of ada", "of the lab", "of bob"] {
            assert!(!stored.windows(gone.len()).any(|part| part == gone.as_bytes()), "{gone}");
        }
    }
    assert_eq!((lines[1].stored.as_ref(), lines[1].erased_by), (None, Some(by)));
    assert!(lines[0].stored.is_some(), "its bytes are of no use without the key");

    let other = tempfile::tempdir().unwrap();
    let (mut check, mut rebuild) =
        (LineCheck::default(), Rebuild::begin(other.path(), log.reader().log_id()).unwrap());
    for line in &lines {
        rebuild.push(check.event(line).unwrap()).unwrap();
    }
    let head = HeadLine::new(&log.head(), None);
    check.head(&head, None).unwrap();
    assert_eq!(rebuild.finish().unwrap().root, log.head().root);
    // It wants the keys before it is written to, and shows then what the old one shows.
    let missing = Log::open(other.path(), options(), clock()).unwrap_err();
    assert!(matches!(missing, OpenError::Keys(KeysError::Missing { .. })), "{missing}");
    let then = found(&log.reader());
    log.close().unwrap();
    fs::copy(dir.path().join(KEYS_FILE), other.path().join(KEYS_FILE)).unwrap();
    let again = Log::open(other.path(), options(), clock()).unwrap();
    assert_eq!(found(&again.reader()), then);
    let verified = again.reader().verify(&mut |_| ()).unwrap();
    assert_eq!((verified.root, verified.erased, verified.unread), (again.head().root, 2, 0));
    // What nobody ordered to be erased must be there.
    lines[2].erased_by = Some(Seq(4));
    lines[2].stored = None;
    let mut check = LineCheck::default();
    for line in &lines {
        check.event(line).unwrap();
    }
    assert!(matches!(check.head(&head, None), Err(LineError::NoOrder { order: Seq(4) })));
}
