//! The backup of a fork: what is made of it is the fork, with the same past.

use std::fs;
use std::sync::Arc;

use caxton_events::Seq;
use caxton_events::log::{Filter, ForkOptions, Log, LogOptions, Reader, SealedLog, fork_log};

use super::super::{Until, read_manifest};
use super::{Fixture, NOW, Seconds, problems};

/// A fork of five events that has four of its own.
fn forked() -> Fixture {
    let parent = Fixture::new();
    parent.append(5);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let sealed = SealedLog { dir: parent.dir.path().join("data"), ..parent.log.seal().unwrap() };
    fork_log(&sealed, &ForkOptions { cut: Seq(5), log_id: [8; 16], at: NOW }, &data, None).unwrap();
    let log = Log::open(&data, LogOptions::new([8; 16]), Arc::new(Seconds::default())).unwrap();
    let fork = Fixture { dir, log };
    fork.append(4);
    fork
}

fn ids(log: &Reader) -> Vec<String> {
    let records = log.scan(Seq::FIRST, &Filter::default()).map(Result::unwrap);
    records.map(|record| log.event_id(&record).to_string()).collect()
}

#[test]
fn the_backup_of_a_fork_restores_to_a_log_whose_events_have_the_same_ids() {
    let fork = forked();
    let live = fork.log.reader();
    let forks = live.origin().unwrap().forks;
    assert_eq!(forks.len(), 1);
    fork.add();
    assert_eq!(read_manifest(&fork.backup()).unwrap().forks, forks);
    assert_eq!(problems(&fork.backup()), []);
    fork.restore("whole", Until::End).unwrap();
    let whole = fork.open("whole");
    assert_eq!((whole.head(), whole.log_id()), (live.head(), [8; 16]));
    assert_eq!(whole.origin().unwrap().forks, forks);
    assert_eq!(ids(&whole), ids(&live));
    assert!(fork.dir.path().join("whole/origin.json").exists());
    whole.verify(&mut |_| ()).unwrap();
    // Only what came from the parent, and as far as it is there.
    for (name, until) in [("early", 3), ("late", 7)] {
        fork.restore(name, Until::Seq(Seq(until))).unwrap();
        let log = fork.open(name);
        assert_eq!(log.log_id(), [9; 16], "{name}");
        let shared = until.min(5);
        assert_eq!(log.origin().unwrap().forks[0].seq, Seq(shared), "{name}");
        assert_eq!(ids(&log)[..shared as usize], ids(&live)[..shared as usize], "{name}");
        assert_eq!(log.log_id_at(Seq(7)), [9; 16], "{name}");
        log.verify(&mut |_| ()).unwrap();
    }
}

#[test]
fn the_manifest_of_a_log_that_is_no_fork_is_as_it_was() {
    let fixture = Fixture::new();
    fixture.append(1);
    fixture.add();
    let manifest = fs::read_to_string(fixture.backup().join("manifest.json")).unwrap();
    assert!(!manifest.contains("forks"), "{manifest}");
}
