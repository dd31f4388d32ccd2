//! The pass of one text on several threads: each takes some of its tokens through all layers.
//!
//! A token meets the others only where it reads their keys and values. So each thread has rows of its own from the first
//! layer to the last, writes their queries, keys and values where all can read them, waits for the others once a layer, and
//! asks. What a layer reads lies apart from what the next one writes, so that nobody has to wait a second time.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::attention::{self, Head, Text, attend};
use super::forward::{Buffers, Met, Pass, Scratch, chunk_rows, embed_tokens, finish_layer, pool};
use super::kernels::{Kernels, Rows, RowsMut};
use super::product::Product;
use super::weights::{Numbers, Weights};
use crate::embedding::standby::{Taken, Work};

/// Rows of a thread are a multiple of it, but those of the last: whole tiles.
const ROWS: usize = 4;
/// Times a thread looks whether the others are there before it lets somebody else have its core.
const LOOKS_BUSY: u32 = 2_000;

/// Tokens that are worth a thread of their own. Fewer wait for the weights, which each thread fetches, more than they compute: the
/// helper, which shares the fetching, is as fast then.
pub(super) fn tokens_min(weights: &Weights) -> usize {
    match weights.numbers() {
        Numbers::Full | Numbers::Rounded => 10,
        Numbers::Reduced(_) => 6,
    }
}

/// Whether a pass of these weights can be split: not where attention is computed with 16 bits.
pub(super) fn can(kernels: Kernels, weights: &Weights) -> bool {
    !attention::is_bf16(kernels, weights)
}

/// A pass whose parts threads take, each one of them.
struct Split {
    kernels: Kernels,
    weights: Arc<Weights>,
    text: Vec<u32>,
    parts: Vec<Part>,
    /// The first part that nobody has taken; the caller's own is none of them.
    next: AtomicUsize,
    meeting: Meeting,
}

/// Some of the tokens.
struct Part {
    range: Range<usize>,
    met: Arc<Met>,
    /// Its thread's, as long as that works; what it found afterwards.
    scratch: Mutex<Scratch>,
}

/// The vector of `text` on this thread and on `others`, on as many as there are `scratches`; `None`: one did not come in time, or not to
/// its end, and nothing was done.
///
/// # Errors
///
/// The system's, when there is no memory for the intermediate results.
pub(super) fn forward(
    kernels: Kernels,
    weights: &Arc<Weights>,
    text: &[u32],
    scratches: &mut Vec<Scratch>,
    others: Taken<'_>,
) -> Result<Option<Vec<f32>>, io::Error> {
    let share = text.len().div_ceil(scratches.len()).next_multiple_of(ROWS);
    let width = 3 * weights.shape.hidden;
    let parts = (0..text.len()).step_by(share).map(|first| {
        let range = first..text.len().min(first + share);
        let mut scratch = scratches.pop().unwrap_or_default();
        scratch.reserve(weights, range.len(), text.len())?;
        let met = scratch.met(range.len() * width)?;
        Ok(Part { range, met, scratch: Mutex::new(scratch) })
    });
    let parts = parts.collect::<Result<Vec<_>, io::Error>>()?;
    let split = Arc::new(Split {
        kernels,
        weights: Arc::clone(weights),
        text: text.to_vec(),
        meeting: Meeting::of(parts.len()),
        parts,
        next: AtomicUsize::new(1),
    });
    let called = others.call(&split);
    split.take(0);
    // Once more at the end: what the others found is there then.
    let whole = split.meeting.wait();
    drop(called);
    let vector = whole.then(|| split.vector());
    give_back(&split.parts, whole, scratches);
    Ok(vector)
}

impl Work for Split {
    fn work(&self) {
        let own = self.next.fetch_add(1, Ordering::Relaxed);
        if own < self.parts.len() {
            self.take(own);
            self.meeting.arrive();
        }
    }
}

impl Split {
    /// Does a part.
    fn take(&self, own: usize) {
        let part = &self.parts[own];
        let _cancels = Cancels(&self.meeting);
        let mut scratch = part.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        match scratch.reserve(&self.weights, part.range.len(), self.text.len()) {
            Ok(buffers) => self.take_through(own, part, buffers),
            // There was room before.
            Err(_) => self.meeting.cancel(),
        }
    }

    /// Takes the tokens of a part through all layers; not to the end when another thread does not.
    fn take_through(&self, own: usize, part: &Part, buffers: &mut Buffers) {
        let (kernels, weights) = (self.kernels, &*self.weights);
        let (hidden, chunk_rows) = (weights.shape.hidden, chunk_rows(weights));
        let (range, count) = (&part.range, part.range.len());
        let tiles = &kernels.tiles();
        let mut pass = Pass { kernels, weights, helper: None };
        let tokens = std::iter::once((range.start, &self.text[range.clone()]));
        embed_tokens(kernels, weights, tokens, &mut buffers.hidden);
        for layer in 0..weights.layers.len() {
            {
                let mut rows = part.met[layer % 2].write().unwrap_or_else(PoisonError::into_inner);
                for first in (0..count).step_by(chunk_rows) {
                    let count = chunk_rows.min(count - first);
                    pass.multiply(
                        (layer, Product::AttentionIn),
                        tiles,
                        Rows { numbers: &buffers.hidden[first * hidden..], count, stride: hidden },
                        &mut buffers.operand,
                        &mut RowsMut { numbers: &mut rows[first * 3 * hidden..], stride: 3 * hidden },
                    );
                }
            }
            if (own, layer) == (0, 0) && !self.all_came() {
                self.meeting.cancel();
                return;
            }
            if !self.meeting.wait() {
                return;
            }
            let all = self.parts.iter().map(|part| part.met[layer % 2].read());
            let all: Vec<_> = all.map(|part| part.unwrap_or_else(PoisonError::into_inner)).collect();
            let rows = all.iter().zip(&self.parts);
            let parts: Vec<&[f32]> =
                rows.map(|(numbers, part)| &numbers[..part.range.len() * 3 * hidden]).collect();
            let text = Text { parts: &parts, own, hidden };
            let Buffers { gathered, keys, values, scores, .. } = &mut *buffers;
            attend(kernels, text, &mut Head { keys, values, scores }, gathered);
            drop(all);
            for first in (0..count).step_by(chunk_rows) {
                finish_layer(&mut pass, tiles, layer, first..count.min(first + chunk_rows), buffers);
            }
        }
    }

    /// Whether each part has a thread, after a short wait. Where one has not, because the core has other work, none gets one any more.
    fn all_came(&self) -> bool {
        let count = self.parts.len();
        for _ in 0..LOOKS_BUSY {
            if self.next.load(Ordering::Relaxed) >= count {
                return true;
            }
            std::hint::spin_loop();
        }
        self.next.swap(count, Ordering::Relaxed) >= count
    }

    /// The text's vector, when all parts are through.
    fn vector(&self) -> Vec<f32> {
        let hidden = self.weights.shape.hidden;
        let scratches: Vec<_> = self
            .parts
            .iter()
            .map(|part| part.scratch.lock().unwrap_or_else(PoisonError::into_inner))
            .collect();
        let rows = self
            .parts
            .iter()
            .zip(&scratches)
            .map(|(part, scratch)| scratch.states(part.range.len() * hidden));
        pool(rows, hidden)
    }
}

/// Gives the memory back that no thread works with. Where the pass was not `whole`, a thread that took a part may come late and
/// still write what the others were to read: nobody else gets that.
fn give_back(parts: &[Part], whole: bool, scratches: &mut Vec<Scratch>) {
    let free = parts.iter().filter_map(|part| part.scratch.try_lock().ok());
    scratches.extend(free.map(|mut scratch| {
        let mut scratch = std::mem::take(&mut *scratch);
        if !whole {
            scratch.forget_met();
        }
        scratch
    }));
}

/// Where threads wait for each other, again and again. They look instead of sleeping: the wait is shorter than a wake-up.
struct Meeting {
    threads: usize,
    /// How many came, of all times.
    arrived: AtomicUsize,
    cancelled: AtomicBool,
}

impl Meeting {
    const fn of(threads: usize) -> Self {
        Self { threads, arrived: AtomicUsize::new(0), cancelled: AtomicBool::new(false) }
    }

    /// Is here, and does not wait for the others; how many were here before, of all times.
    fn arrive(&self) -> usize {
        self.arrived.fetch_add(1, Ordering::AcqRel)
    }

    /// Waits until all threads are here; `false`: one will never be.
    fn wait(&self) -> bool {
        let arrived = self.arrive();
        let complete = (arrived / self.threads + 1) * self.threads;
        let mut looks = 0_u32;
        while self.arrived.load(Ordering::Acquire) < complete {
            if self.cancelled.load(Ordering::Relaxed) {
                return false;
            }
            if looks < LOOKS_BUSY {
                looks += 1;
                std::hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
        // Who left comes no more often than who went on, so that the number alone does not tell.
        !self.cancelled.load(Ordering::Relaxed)
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// Cancels the meeting when its thread panics.
struct Cancels<'a>(&'a Meeting);

impl Drop for Cancels<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::sync::{Arc, Mutex};

    use super::{Meeting, Part, Scratch, give_back};

    #[test]
    fn what_a_late_thread_may_write_to_is_not_handed_out_again() {
        for whole in [true, false] {
            let mut scratch = Scratch::default();
            let met = scratch.met(8).unwrap();
            let part = Part { range: 0..1, met: Arc::clone(&met), scratch: Mutex::new(scratch) };
            let mut scratches = Vec::new();
            give_back(&[part], whole, &mut scratches);
            assert_eq!(Arc::ptr_eq(&scratches[0].met(8).unwrap(), &met), whole);
        }
    }

    #[test]
    fn a_meeting_that_was_cancelled_stays_so_whoever_comes() {
        let meeting = Meeting::of(2);
        meeting.cancel();
        for _ in 0..4 {
            assert!(!meeting.wait());
        }
        let meeting = Meeting::of(2);
        meeting.arrive();
        assert!(meeting.wait());
        meeting.cancel();
        meeting.arrive();
        assert!(!meeting.wait());
    }
}
