//! Lines that name another log than they are of, and those of logs that an order to erase is not in.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use caxton_events::log::{Filter, ForkOptions, Log, LogOptions, fork_log};
use caxton_events::{MemoryEvent, MemoryId, Seq, Subject, SystemEvent, Timestamp};
use tempfile::TempDir;

use super::{Ticks, lines, record, signer, story, tell};
use crate::transfer::events::Wanted;
use crate::transfer::import::import;

#[test]
fn lines_under_the_name_of_another_log_than_their_key_are_refused() {
    let (_dir, log) = story();
    let text = lines(&log, &Wanted::default());
    let renamed = text.replacen(&"07".repeat(16), &"08".repeat(16), 1);
    let key = signer().public_key();
    // Who does not know the key is told when the head names it.
    for (known, line) in [(Some(&key), 1), (None, 7)] {
        let dir = TempDir::new().unwrap();
        let error = import(&mut renamed.as_bytes(), dir.path(), known, &mut |_, _| ()).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.to_string().starts_with(&format!("line {line} is not what was exported")), "{error}");
        assert!(source.starts_with("the first line is that of caxton/log/0808"), "{source}");
        assert!(!dir.path().join("events.redb").exists());
    }
}

#[test]
fn a_log_that_lacks_the_order_by_which_events_were_erased_is_exported_and_imported() {
    let (_dir, log) = story();
    let subjects = vec!["global".parse::<Subject>().unwrap()];
    let order = SystemEvent::ErasureOrdered {
        subjects: subjects.clone(),
        asked: "global".to_owned(),
        keys: Vec::new(),
        events: 5,
        next_memory_id: 6,
        reason: None,
        by: "ada".to_owned(),
    };
    let order = record(&log, None, order.into());
    assert_eq!(log.redact(&subjects, order).unwrap(), 5);
    let to = TempDir::new().unwrap();
    let options = ForkOptions { cut: Seq(5), log_id: [9; 16], at: Timestamp::EPOCH };
    fork_log(&log.seal().unwrap(), &options, to.path(), None).unwrap();
    let clock = Arc::new(Ticks(AtomicU64::new(1_000_000)));
    let fork = Log::open(to.path(), LogOptions::new([9; 16]), clock).unwrap();
    for _ in 0..2 {
        tell(&fork, "ada", vec![MemoryEvent::EntityRemoved { id: MemoryId(4) }]);
    }
    let front = Filter { until: Some(Seq(5)), ..Filter::default() };
    let front = Wanted { filter: front, ..Wanted::default() };
    for (text, then) in [
        (lines(&log, &Wanted::default()), (6, 0)),
        (lines(&log, &front), (5, 5)),
        (lines(&fork, &Wanted::default()), (7, 5)),
    ] {
        let dir = TempDir::new().unwrap();
        let imported = import(&mut text.as_bytes(), dir.path(), None, &mut |_, _| ()).unwrap();
        assert_eq!((imported.events, imported.erased_later), then);
        let verified = Log::open_read_only(dir.path()).unwrap().verify(&mut |_| ()).unwrap();
        assert_eq!((verified.erased, verified.erased_later), (5, then.1));
    }
}
