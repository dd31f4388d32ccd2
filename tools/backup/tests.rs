//! Backups of small logs in folders that go away: whole, cut, changed, added to, restored.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod forks;
mod kept;
mod left;
mod places;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caxton_events::log::open::lock;
use caxton_events::log::{Batch, Filter, IdempotencyKey, Log, LogOptions, OpenError, Reader};
use caxton_events::memory::Validity;
use caxton_events::{Clock, Draft, MemoryEvent, MemoryId, Seq, Subject, SystemEvent, Timestamp};
use tempfile::TempDir;

use super::{
    Added, CheckError, Extra, Extras, Manifest, ManifestError, PartKind, ReceiveError, RestoreError,
    RestoreOptions, Restored, Until, begin, check, read_manifest, restore, source,
};

/// A clock that moves by a second at each look.
#[derive(Default)]
struct Seconds(AtomicU64);

impl Clock for Seconds {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(1_000_000 * self.0.fetch_add(1, Ordering::Relaxed))
    }
}

const NOW: Timestamp = Timestamp::from_unix_micros(1_000_000_000);

struct Fixture {
    dir: TempDir,
    log: Log,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let log = Log::open(&data, LogOptions::new([7; 16]), Arc::new(Seconds::default())).unwrap();
        Self { dir, log }
    }

    /// Appends so many events, each with an idempotency key.
    fn append(&self, count: u64) {
        for _ in 0..count {
            let number = self.log.head().seq.0;
            let event = MemoryEvent::ObservationAdded {
                id: MemoryId(1),
                entity: MemoryId(2),
                content: format!("observation {number}"),
                validity: Validity::default(),
            };
            let draft = Draft {
                stream: "system".to_owned(),
                actor: "ada".to_owned(),
                correlation: None,
                causation: None,
                event: event.into(),
            };
            let key = IdempotencyKey {
                key: format!("key {number}"),
                fingerprint: [1; 32],
                answer: b"yes".to_vec(),
            };
            let batch = Batch { key: Some(key), ..Batch::of(vec![draft]) };
            self.log.append(vec![batch]).unwrap().remove(0).unwrap();
        }
    }

    fn backup(&self) -> std::path::PathBuf {
        self.dir.path().join("backup")
    }

    fn extras() -> Vec<Extra> {
        let extra = |kind, name: &str, content: &str| Extra {
            kind,
            name: name.to_owned(),
            content: content.as_bytes().to_vec(),
        };
        vec![
            extra(PartKind::Format, "FORMAT", "1\n"),
            extra(PartKind::Agent, "library/librarian.md", "---\nname: Librarian\n---\n"),
            extra(PartKind::Config, "caxton.yaml", "server:\n  port: 8080\n"),
        ]
    }

    fn stream(&self, wanted: &super::Wanted) -> Vec<u8> {
        let frames = source(&self.log.reader(), wanted, Self::extras().into(), None).unwrap();
        frames.flat_map(Result::unwrap).collect()
    }

    fn add(&self) -> Added {
        let receiver = begin(&self.backup()).unwrap();
        let stream = self.stream(&receiver.wanted());
        receiver.receive(&mut stream.as_slice(), Vec::new(), (NOW, "0.0.0"), &mut |_, _| ()).unwrap()
    }

    fn restore(&self, to: &str, until: Until) -> Result<Restored, RestoreError> {
        let options = RestoreOptions { until, force: false, new_log_id: [9; 16], keys: None, at: NOW };
        restore(&self.backup(), &self.dir.path().join(to), &options, &mut |_, _| ())
    }

    fn open(&self, name: &str) -> Reader {
        Log::open_read_only(&self.dir.path().join(name)).unwrap()
    }
}

/// Copies everything in a folder to another, over what is there.
fn copy(from: &Path, to: &Path) {
    for path in files(from) {
        let place = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::copy(&path, &place).unwrap();
    }
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn problems(dir: &Path) -> Vec<(String, String)> {
    let found = check(dir, &mut |_, _| ()).unwrap().problems;
    found.into_iter().map(|problem| (problem.part, problem.what)).collect()
}

#[test]
fn a_backup_that_is_added_to_restores_the_log_with_keys_and_files() {
    let fixture = Fixture::new();
    for round in 0..4 {
        fixture.append(round * 37);
        let before = fixture.backup().exists().then(|| read_manifest(&fixture.backup()).unwrap());
        let added = fixture.add();
        assert_eq!((added.events, added.files), (round * 37, 3));
        assert_eq!(added.head.seq, fixture.log.head().seq);
        // What was written before is not written again.
        let runs = |manifest: &Manifest| -> Vec<String> {
            let parts = manifest.parts.iter().filter(|part| part.run.is_some());
            parts.map(|part| part.blake3.clone()).collect()
        };
        let (before, now) =
            (before.as_ref().map(runs).unwrap_or_default(), read_manifest(&fixture.backup()).unwrap());
        assert_eq!(runs(&now)[..before.len()], before);
        assert_eq!(problems(&fixture.backup()), []);
        // The files of earlier times are gone, and nothing is half written.
        assert_eq!(files(&fixture.backup()).len(), now.parts.len() + 2);
    }
    let restored = fixture.restore("other", Until::End).unwrap();
    assert_eq!((restored.log_id.clone(), restored.files), (restored.from_log_id.clone(), 3));
    let log = fixture.open("other");
    assert_eq!((log.head(), log.log_id()), (fixture.log.head(), [7; 16]));
    assert_eq!(log.verify(&mut |_| ()).unwrap().keys, fixture.log.head().seq.0);
    assert_eq!(log.key("key 3").unwrap(), fixture.log.reader().key("key 3").unwrap());
    let other = fixture.dir.path().join("other");
    assert_eq!(
        fs::read_to_string(other.join("agents/library/librarian.md")).unwrap(),
        "---\nname: Librarian\n---\n"
    );
    assert_eq!(fs::read_to_string(other.join("FORMAT")).unwrap(), "1\n");
    assert!(other.join("restored-config.yaml").exists() && other.join("restored.json").exists());
}

#[test]
fn a_restore_to_a_point_is_another_log_with_the_same_past() {
    let fixture = Fixture::new();
    fixture.append(20);
    fixture.add();
    fixture.append(10);
    fixture.add();
    let times: Vec<Timestamp> = fixture
        .log
        .reader()
        .scan(Seq::FIRST, &Filter::default())
        .map(|record| record.unwrap().recorded_at)
        .collect();
    let moment = |seq: u64| Until::Time(times[seq as usize - 1]);
    let between =
        |seq: u64| Until::Time(Timestamp::from_unix_micros(times[seq as usize - 1].unix_micros() + 1));
    for (number, (until, seq)) in [
        (Until::Seq(Seq(1)), 1),
        (Until::Seq(Seq(20)), 20),
        (Until::Seq(Seq(21)), 21),
        (Until::Seq(Seq(30)), 30),
        (moment(7), 7),
        (between(25), 25),
        (between(30), 30),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("at-{number}");
        let restored = fixture.restore(&name, until).unwrap();
        assert_eq!(restored.head.seq, Seq(seq), "{until:?}");
        let log = fixture.open(&name);
        assert_eq!(log.head(), fixture.log.reader().head_at(seq).unwrap(), "{until:?}");
        assert_eq!(log.log_id(), if seq == 30 { [7; 16] } else { [9; 16] }, "{until:?}");
        assert_eq!(log.verify(&mut |_| ()).unwrap().keys, seq, "{until:?}");
        assert_eq!(log.key("key 0").unwrap().is_some(), seq > 0);
    }
    for until in [Until::Seq(Seq(31)), Until::Seq(Seq(0))] {
        assert!(matches!(fixture.restore("no", until), Err(RestoreError::Beyond { .. })), "{until:?}");
    }
    let early = Until::Time(Timestamp::EPOCH);
    if times[0] > Timestamp::EPOCH {
        assert!(matches!(fixture.restore("no", early), Err(RestoreError::Before { .. })));
    }
    assert!(!fixture.dir.path().join("no").exists() && !fixture.dir.path().join("no.restoring").exists());
}

#[test]
fn a_directory_that_is_not_empty_is_refused_or_moved_aside_and_never_removed() {
    let fixture = Fixture::new();
    fixture.append(3);
    fixture.add();
    let to = fixture.dir.path().join("other");
    fs::create_dir(&to).unwrap();
    fixture.restore("other", Until::End).unwrap();
    fs::write(to.join("precious"), "x").unwrap();
    let refused = fixture.restore("other", Until::End);
    assert!(matches!(&refused, Err(RestoreError::NotEmpty { .. })), "{refused:?}");
    assert!(to.join("precious").exists());
    let options = RestoreOptions { until: Until::End, force: true, new_log_id: [9; 16], keys: None, at: NOW };
    for number in 1..3 {
        let restored = restore(&fixture.backup(), &to, &options, &mut |_, _| ()).unwrap();
        let aside = fixture.dir.path().join(format!("other.before-restore-{number}"));
        assert_eq!(restored.aside.as_ref(), Some(&aside));
        assert_eq!(aside.join("precious").exists(), number == 1);
        assert!(aside.join("events.redb").exists());
    }
    assert_eq!(fixture.open("other").head(), fixture.log.head());
}

#[test]
fn a_backup_cut_short_at_any_place_is_refused_with_what_is_missing() {
    let fixture = Fixture::new();
    fixture.append(9);
    fixture.add();
    fixture.append(5);
    fixture.add();
    let whole: Vec<_> = files(&fixture.backup())
        .into_iter()
        .filter(|path| !path.ends_with("LOCK"))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    for (path, content) in &whole {
        let name = path.strip_prefix(fixture.backup()).unwrap().to_str().unwrap().to_owned();
        for len in (0..content.len()).step_by(1 + content.len() / 50).chain([content.len() - 1]) {
            fs::write(path, &content[..len]).unwrap();
            let restored = fixture.restore("no", Until::End);
            if name == "manifest.json" {
                let error = check(&fixture.backup(), &mut |_, _| ()).unwrap_err();
                let CheckError::Manifest(error) = &error;
                // The line end is all that may be missing of something that can be read.
                let expected = if len == content.len() - 1 {
                    matches!(error, ManifestError::Changed { .. })
                } else {
                    matches!(error, ManifestError::Unreadable { .. })
                };
                assert!(expected, "{len}: {error}");
                assert!(matches!(restored, Err(RestoreError::Manifest(_))), "{len}");
                continue;
            }
            let found = problems(&fixture.backup());
            assert_eq!(found[0].0, name);
            let says = format!("it is cut short: {len} of {} bytes are there", content.len());
            assert!(found[0].1.starts_with(&says), "{found:?}");
            let Err(RestoreError::NotWhole { problems, .. }) = restored else { panic!("{name} at {len}") };
            assert_eq!(problems[0].part, name);
        }
        fs::remove_file(path).unwrap();
        if name == "manifest.json" {
            let missing = check(&fixture.backup(), &mut |_, _| ());
            assert!(matches!(missing, Err(CheckError::Manifest(ManifestError::Missing { .. }))));
        } else {
            assert!(problems(&fixture.backup())[0].1.starts_with("it is missing"));
            assert!(matches!(fixture.restore("no", Until::End), Err(RestoreError::NotWhole { .. })));
            assert!(matches!(begin(&fixture.backup()), Err(ReceiveError::Damaged { .. })));
        }
        fs::write(path, content).unwrap();
    }
    assert_eq!(problems(&fixture.backup()), []);
    assert!(!fixture.dir.path().join("no").exists());
}

#[test]
fn every_flipped_bit_is_found() {
    let fixture = Fixture::new();
    fixture.append(2);
    fixture.add();
    for path in files(&fixture.backup()).into_iter().filter(|path| !path.ends_with("LOCK")) {
        let content = fs::read(&path).unwrap();
        for byte in 0..content.len() {
            let mut flipped = content.clone();
            flipped[byte] ^= 1 << (byte % 8);
            fs::write(&path, &flipped).unwrap();
            let found = check(&fixture.backup(), &mut |_, _| ());
            let seen = found.is_err() || found.is_ok_and(|checked| !checked.problems.is_empty());
            assert!(seen, "{} byte {byte}", path.display());
            // Restoring takes longer and is tried now and then.
            if byte % 41 == 0 {
                assert!(fixture.restore("no", Until::End).is_err(), "{} byte {byte}", path.display());
            }
        }
        fs::write(&path, &content).unwrap();
    }
    assert_eq!(problems(&fixture.backup()), []);
}

#[test]
fn what_breaks_off_adds_nothing_and_can_be_tried_again() {
    let fixture = Fixture::new();
    fixture.append(12);
    fixture.add();
    let manifest = read_manifest(&fixture.backup()).unwrap();
    fixture.append(12);
    let wanted = begin(&fixture.backup()).unwrap().wanted();
    let stream = fixture.stream(&wanted);
    for len in (0..stream.len()).step_by(97).chain([stream.len() - 1]) {
        let receiver = begin(&fixture.backup()).unwrap();
        let error =
            receiver.receive(&mut &stream[..len], Vec::new(), (NOW, "0"), &mut |_, _| ()).unwrap_err();
        assert!(matches!(error, ReceiveError::Source { .. }), "{len}: {error}");
        assert_eq!(read_manifest(&fixture.backup()).unwrap(), manifest, "{len}");
        assert_eq!(problems(&fixture.backup()), [], "{len}");
    }
    // A process that was killed leaves what no manifest names.
    fs::write(fixture.backup().join("log/000000000013-0.run"), "half").unwrap();
    assert_eq!(fixture.add().events, 12);
    assert_eq!(problems(&fixture.backup()), []);
}

#[test]
fn a_backup_is_added_to_from_its_own_log_alone() {
    let fixture = Fixture::new();
    fixture.append(5);
    fixture.add();
    let other = Fixture::new();
    other.append(3);
    let wanted = begin(&fixture.backup()).unwrap().wanted();
    let error = source(&other.log.reader(), &wanted, Extras::default(), None).err().unwrap();
    assert!(matches!(error, super::SourceError::Beyond { .. }), "{error}");
    // The same number of events, and one of them another.
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), LogOptions::new([7; 16]), Arc::new(Seconds::default())).unwrap();
    let third = Fixture { dir, log };
    third.append(2);
    third
        .log
        .append(vec![Batch::of(vec![Draft {
            stream: "system".to_owned(),
            actor: "bob".to_owned(),
            correlation: None,
            causation: None,
            event: caxton_events::SystemEvent::ServerStopped.into(),
        }])])
        .unwrap();
    third.append(2);
    let error = source(&third.log.reader(), &wanted, Extras::default(), None).err().unwrap();
    assert!(matches!(error, super::SourceError::OtherHistory { after: Seq(5) }), "{error}");
    // A folder with something else in it is left alone, and one that is being written too.
    assert!(matches!(begin(&fixture.dir.path().join("data")), Err(ReceiveError::Foreign { .. })));
    // So is one in a data directory, which need not be there yet.
    let inside = fixture.dir.path().join("data/deep/backup");
    assert!(matches!(begin(&inside), Err(ReceiveError::Inside { .. })) && !inside.exists());
    let held = begin(&fixture.backup()).unwrap();
    assert!(matches!(begin(&fixture.backup()), Err(ReceiveError::Locked { .. })));
    drop(held);
}

#[test]
fn a_backup_is_read_under_its_lock_alone() {
    let fixture = Fixture::new();
    fixture.append(5);
    fixture.add();
    let held = begin(&fixture.backup()).unwrap();
    // Who holds it may replace the manifest at any moment: what another reads of it meanwhile says nothing.
    fs::write(fixture.backup().join("manifest.json"), "half").unwrap();
    assert!(matches!(begin(&fixture.backup()), Err(ReceiveError::Locked { .. })));
    drop(held);
    assert!(matches!(begin(&fixture.backup()), Err(ReceiveError::Manifest(_))));
}

#[test]
fn what_the_manifest_on_the_disk_names_is_not_removed_after_an_error() {
    let fixture = Fixture::new();
    fixture.append(12);
    fixture.add();
    let (backup, other) = (fixture.backup(), fixture.dir.path().join("other"));
    let before = read_manifest(&backup).unwrap();
    let receiver = begin(&backup).unwrap();
    fixture.append(5);
    // What is there when the manifest has its name and syncing its folder fails.
    copy(&backup, &other);
    let adding = begin(&other).unwrap();
    let stream = fixture.stream(&adding.wanted());
    adding.receive(&mut stream.as_slice(), Vec::new(), (NOW, "0"), &mut |_, _| ()).unwrap();
    copy(&other, &backup);
    let now = read_manifest(&backup).unwrap();
    assert_eq!((before.head.seq, now.head.seq), (Seq(12), Seq(17)));
    receiver.receive(&mut &b""[..], Vec::new(), (NOW, "0"), &mut |_, _| ()).unwrap_err();
    // Which of the two is there after a power cut nobody knows.
    for part in before.parts.iter().chain(&now.parts) {
        assert!(backup.join(&part.path).exists(), "{}", part.path);
    }
    assert_eq!(problems(&backup), []);
    fixture.append(1);
    assert_eq!(fixture.add().events, 1);
    assert_eq!(problems(&backup), []);
    assert_eq!(files(&backup).len(), read_manifest(&backup).unwrap().parts.len() + 2);
}

#[test]
fn one_restore_at_a_time_is_made_to_a_directory_and_what_a_killed_one_left_is_replaced() {
    let fixture = Fixture::new();
    fixture.append(20);
    fixture.add();
    let (to, beside) = (fixture.dir.path().join("other"), fixture.dir.path().join("other.restoring"));
    fs::create_dir_all(beside.join("graph")).unwrap();
    for left in ["left", "LOCK", "restored.json.part"] {
        fs::write(beside.join(left), "x").unwrap();
    }
    let options =
        RestoreOptions { until: Until::End, force: false, new_log_id: [9; 16], keys: None, at: NOW };
    let mut second = Vec::new();
    let restored = restore(&fixture.backup(), &to, &options, &mut |_, _| {
        second.push(fixture.restore("other", Until::End));
    });
    restored.unwrap();
    assert!(!second.is_empty());
    assert!(second.iter().all(|second| matches!(second, Err(RestoreError::Underway { .. }))), "{second:?}");
    assert_eq!(fixture.open("other").verify(&mut |_| ()).unwrap().keys, 20);
    assert!(!beside.exists() && !to.join("left").exists() && !to.join("graph").exists());
    // One that is refused leaves nothing either.
    let run = fixture.backup().join(&read_manifest(&fixture.backup()).unwrap().parts[0].path);
    let mut content = fs::read(&run).unwrap();
    content[100] ^= 1;
    fs::write(&run, content).unwrap();
    assert!(fixture.restore("no", Until::End).is_err());
    assert!(!fixture.dir.path().join("no.restoring").exists());
}

#[test]
fn a_directory_that_is_moved_aside_is_locked_until_then() {
    let fixture = Fixture::new();
    fixture.append(20);
    fixture.add();
    let to = fixture.dir.path().join("other");
    fixture.restore("other", Until::End).unwrap();
    let options = RestoreOptions { until: Until::End, force: true, new_log_id: [9; 16], keys: None, at: NOW };
    let held = lock(&to).unwrap();
    let refused = restore(&fixture.backup(), &to, &options, &mut |_, _| ());
    assert!(matches!(refused, Err(RestoreError::Lock(OpenError::Locked { .. }))), "{refused:?}");
    drop(held);
    let mut started = Vec::new();
    let restored = restore(&fixture.backup(), &to, &options, &mut |_, _| {
        started.push(Log::open(&to, LogOptions::new([7; 16]), Arc::new(Seconds::default())));
    });
    restored.unwrap();
    assert!(!started.is_empty());
    assert!(started.iter().all(|started| matches!(started, Err(OpenError::Locked { .. }))), "{started:?}");
    // It is free again, and so is the one in its place.
    drop(lock(&fixture.dir.path().join("other.before-restore-1")).unwrap());
    drop(lock(&to).unwrap());
}

#[test]
fn a_restored_directory_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let fixture = Fixture::new();
    fixture.append(1);
    fixture.add();
    // One that was left was made for all to read.
    fs::create_dir(fixture.dir.path().join("left.restoring")).unwrap();
    for name in ["new", "left"] {
        fixture.restore(name, Until::End).unwrap();
        let mode = fs::metadata(fixture.dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{name}");
    }
}

#[test]
fn what_was_erased_after_it_was_backed_up_is_not_restored() {
    const SECRET: &str = "zqsecret";
    let fixture = Fixture::new();
    fixture.append(3);
    let draft = |stream: &str, event| Draft {
        stream: stream.to_owned(),
        actor: "ada".to_owned(),
        correlation: None,
        causation: None,
        event,
    };
    let observed = |content: &str| {
        let (content, validity) = (content.to_owned(), Validity::default());
        let (id, entity) = (MemoryId(1), MemoryId(2));
        draft("agent:ada", MemoryEvent::ObservationAdded { id, entity, content, validity }.into())
    };
    fixture.log.append(vec![Batch::of(vec![observed(SECRET)])]).unwrap().remove(0).unwrap();
    fixture.append(1);
    fixture.add();
    let subjects = vec!["agent:ada".parse::<Subject>().unwrap()];
    let ordered = fixture.log.erase(&subjects, |keys| {
        let order = SystemEvent::ErasureOrdered {
            subjects: subjects.clone(),
            asked: "agent:ada".to_owned(),
            keys,
            events: 1,
            next_memory_id: 3,
            reason: None,
            by: "ada".to_owned(),
        };
        draft("system", order.into())
    });
    let order = ordered.unwrap().first;
    assert_eq!(fixture.log.redact(&subjects, order).unwrap(), 1);
    // What comes later is new, and stays.
    fixture.log.append(vec![Batch::of(vec![observed("zqnew")])]).unwrap().remove(0).unwrap();
    fixture.add();
    let holds = |dir: &Path, text: &str| {
        let holds = |content: Vec<u8>| content.windows(text.len()).any(|window| window == text.as_bytes());
        files(dir).into_iter().any(|path| holds(fs::read(path).unwrap()))
    };
    assert!(holds(&fixture.backup(), SECRET), "no erasure reaches a backup");
    for (name, until, then) in [
        ("whole", Until::End, (1, false)),
        ("ordered", Until::Seq(order), (1, false)),
        ("before", Until::Seq(order.previous()), (0, true)),
    ] {
        let restored = fixture.restore(name, until).unwrap();
        let dir = fixture.dir.path().join(name);
        assert_eq!((restored.taken_out, holds(&dir, SECRET)), then, "{name}");
        let log = fixture.open(name);
        assert_eq!(log.head(), fixture.log.reader().head_at(restored.head.seq.0).unwrap(), "{name}");
        log.verify(&mut |_| ()).unwrap();
    }
    assert!(holds(&fixture.dir.path().join("whole"), "zqnew"));
}
