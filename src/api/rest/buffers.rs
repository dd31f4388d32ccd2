//! Buffers that answers are written into, used again once an answer was sent.
//!
//! Of the whole process, as its allocator is: an answer is written far from the settings of the door that sends it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use axum::body::Bytes;

use crate::telemetry;

/// Room that a buffer keeps at most, in bytes: larger ones are freed.
const ROOM_MAX: usize = 64 << 10;
/// Room of a new buffer, in bytes: most answers fit.
const ROOM_MIN: usize = 1 << 10;

/// The buffers of this process.
static POOL: Pool = Pool::new();

/// Buffers that nobody uses now.
struct Pool {
    /// How many are kept.
    max: AtomicUsize,
    idle: Mutex<Vec<Vec<u8>>>,
}

/// A buffer with an answer in it, which goes back to its pool.
struct Lent {
    bytes: Vec<u8>,
    pool: &'static Pool,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.pool.put_back(std::mem::take(&mut self.bytes));
    }
}

impl Pool {
    const fn new() -> Self {
        Self { max: AtomicUsize::new(0), idle: Mutex::new(Vec::new()) }
    }

    /// Keeps at most `max` buffers from now on; 0: none.
    fn resize(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).truncate(max);
    }

    /// What `write` writes, and whether into a buffer that was used before.
    fn filled<E>(
        &'static self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(Bytes, bool), E> {
        if self.max.load(Ordering::Relaxed) == 0 {
            let mut bytes = Vec::new();
            write(&mut bytes)?;
            return Ok((Bytes::from(bytes), false));
        }
        let used = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let again = used.is_some();
        let mut lent = Lent { bytes: used.unwrap_or_else(|| Vec::with_capacity(ROOM_MIN)), pool: self };
        write(&mut lent.bytes)?;
        Ok((Bytes::from_owner(lent), again))
    }

    fn put_back(&self, mut bytes: Vec<u8>) {
        if bytes.capacity() > ROOM_MAX {
            return;
        }
        bytes.clear();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.max.load(Ordering::Relaxed) {
            idle.push(bytes);
        }
    }
}

/// Keeps at most `max` buffers from now on; 0: each answer gets memory of its own.
pub(super) fn keep(max: usize) {
    POOL.resize(max);
}

/// `value` as JSON.
///
/// # Errors
///
/// Those of `serde_json`.
pub(super) fn json(value: &impl serde::Serialize) -> Result<Bytes, serde_json::Error> {
    let (bytes, again) = POOL.filled(|bytes| serde_json::to_writer(bytes, value))?;
    if again {
        telemetry::response_buffer_reused();
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::io;

    use super::*;

    fn filled(pool: &'static Pool, text: &str) -> (Bytes, bool) {
        pool.filled(|bytes| io::Write::write_all(bytes, text.as_bytes())).unwrap()
    }

    #[test]
    fn a_buffer_is_used_again_when_its_answer_is_gone() {
        static POOL: Pool = Pool::new();
        POOL.resize(1);
        let (first, again) = filled(&POOL, "a longer answer");
        assert_eq!((&first[..], again), (&b"a longer answer"[..], false));
        let part = first.slice(2..8);
        drop(first);
        assert!(!filled(&POOL, "b").1, "a part of the first is still in use");
        assert_eq!(&part[..], b"longer");
        // That of `b` is kept; there is room for one.
        drop(part);
        let (second, again) = filled(&POOL, "c");
        assert_eq!((&second[..], again), (&b"c"[..], true));
        assert!(!filled(&POOL, "d").1);
    }

    #[test]
    fn what_failed_or_is_large_leaves_nothing_behind() {
        static POOL: Pool = Pool::new();
        POOL.resize(8);
        drop(filled(&POOL, &"x".repeat(ROOM_MAX + 1)));
        assert!(POOL.idle.lock().unwrap().is_empty());
        let failed = POOL.filled(|bytes| {
            bytes.extend(b"half of");
            Err(io::Error::other("no more"))
        });
        assert!(failed.is_err());
        assert_eq!(&filled(&POOL, "whole").0[..], b"whole");
        POOL.resize(0);
        assert!(!filled(&POOL, "x").1 && POOL.idle.lock().unwrap().is_empty());
    }
}
