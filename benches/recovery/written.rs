//! Logs to get back from.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use caxton_events::log::{Batch, Durability, Log, LogOptions};
use caxton_events::memory::Validity;
use caxton_events::{Clock, Draft, MemoryEvent, MemoryId, Timestamp};

/// Events appended together.
const BATCH: u64 = 4_096;

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(1_795_000_000_000_000)
    }
}

/// A text of `len` bytes; each number has another one, so that nothing is saved by repetition.
pub(crate) fn text(n: u64, len: usize) -> String {
    let mut text = format!("{n:020} ");
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while text.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push(char::from(b'a' + (state % 26) as u8));
    }
    text
}

/// An observation that takes `bytes` bytes with its envelope.
pub(crate) fn observation(n: u64, bytes: usize) -> Draft {
    let event = MemoryEvent::ObservationAdded {
        id: MemoryId(n),
        entity: MemoryId(n / 2),
        content: text(n, bytes - 31),
        validity: Validity::default(),
    };
    let (stream, actor) = ("agent:ada".to_owned(), "ada".to_owned());
    Draft { stream, actor, correlation: None, causation: None, event: event.into() }
}

/// A closed log with so many events in a directory of its own.
pub(crate) fn log(dir: &Path, events: u64, draft: impl Fn(u64) -> Draft) {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).unwrap();
    let options = LogOptions { durability: Durability::Off, ..LogOptions::new([7; 16]) };
    let log = Log::open(dir, options, Arc::new(Noon)).unwrap();
    let mut next = 0;
    while next < events {
        let drafts: Vec<Draft> = (next..(next + BATCH).min(events)).map(&draft).collect();
        next = log.append(vec![Batch::of(drafts)]).unwrap().remove(0).unwrap().last.0;
    }
    log.close().unwrap();
}
