//! The log as its callers see it: what the tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod append;
mod at_time;
mod copying;
mod crash;
mod damage;
pub(super) mod disk;
mod evidence;
mod exchanging;
mod forking;
mod leaves;
mod merging;
mod model;
mod opening;
mod proving;
mod reading;
mod salvaging;
mod stretch;
mod sweeping;
mod trimming;
mod verifying;
mod wal;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Batch, Filter, IdempotencyKey, Log, LogOptions, Reader};
use crate::{Clock, Draft, Event, MemoryEvent, MemoryId, Record, Seq, Timestamp};

/// A clock that moves by one millisecond at each look.
#[derive(Debug, Default)]
pub(super) struct Script(AtomicU64);

impl Clock for Script {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(1_000 * self.0.fetch_add(1, Ordering::Relaxed))
    }
}

pub(super) fn clock() -> Arc<dyn Clock> {
    Arc::new(Script::default())
}

pub(super) fn options() -> LogOptions {
    LogOptions::new([7; 16])
}

/// An observation; the content tells one event from another.
pub(super) fn draft(stream: &str, content: &str) -> Draft {
    let observation = MemoryEvent::ObservationAdded {
        id: MemoryId(1),
        entity: MemoryId(2),
        content: content.to_owned(),
        validity: crate::memory::Validity::default(),
    };
    Draft {
        stream: stream.to_owned(),
        actor: "ada".to_owned(),
        correlation: None,
        causation: None,
        event: observation.into(),
    }
}

pub(super) fn batch(stream: &str, contents: &[&str]) -> Batch {
    Batch::of(contents.iter().map(|content| draft(stream, content)).collect())
}

pub(super) fn keyed(batch: Batch, key: &str, fingerprint: u8) -> Batch {
    let key = IdempotencyKey {
        key: key.to_owned(),
        fingerprint: [fingerprint; 32],
        answer: format!("answer to {key}").into_bytes(),
    };
    Batch { key: Some(key), ..batch }
}

/// Waits until merging has left fewer than `blocks`.
///
/// The writer merges when nothing waits for it, and not at all once the log is being closed. Appends of nothing are answered
/// between its turns.
pub(in crate::log) fn until_merged(log: &Log, blocks: u64) {
    let left = || log.reader().stats().unwrap().blocks;
    let merged = (0..100_000).any(|_| {
        log.append(vec![]).unwrap();
        left() < blocks
    });
    assert!(merged, "{} blocks are left", left());
}

/// Appends one batch that must be taken.
#[track_caller]
pub(super) fn append(log: &Log, batch: Batch) -> super::Appended {
    log.append(vec![batch]).unwrap().remove(0).unwrap()
}

pub(super) fn records(reader: &Reader) -> Vec<Record> {
    reader.scan(Seq::FIRST, &Filter::default()).map(Result::unwrap).collect()
}

/// The contents of all records, in order.
pub(super) fn contents(reader: &Reader) -> Vec<String> {
    records(reader).iter().map(content).collect()
}

pub(super) fn content(record: &Record) -> String {
    content_of(&record.event)
}

#[track_caller]
pub(super) fn content_of(event: &Event) -> String {
    let Event::Memory(MemoryEvent::ObservationAdded { content, .. }) = event else {
        panic!("no observation: {event:?}");
    };
    content.clone()
}

/// Numbers that are the same in each run (xorshift64*).
pub(in crate::log) struct Random(u64);

impl Random {
    pub(in crate::log) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `bound`.
    pub(in crate::log) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % bound
    }
}
