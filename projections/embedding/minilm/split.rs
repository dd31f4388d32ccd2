//! The pass of one long text on several threads: each takes some of its tokens through all layers.
//!
//! A token meets the others only where it reads their keys and values. So each thread has rows of its own from the first
//! layer to the last, writes their queries, keys and values where all can read them, waits for the others once a layer, and
//! asks. What a layer reads lies apart from what the next one writes, so that nobody has to wait a second time.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::thread;

use super::attention::{Head, Text, attend};
use super::buffer::FloatBuffer;
use super::forward::{Buffers, CHUNK_ROWS, Pass, Scratch, embed_tokens, finish_layer, pool};
use super::kernels::{Kernels, Rows, RowsMut};
use super::product::Product;
use super::weights::Weights;

/// Tokens that are worth a thread of their own: below, the helper makes more of a second core.
pub(super) const TOKENS_MIN: usize = 28;
/// Rows of a thread are a multiple of it, but those of the last: whole tiles.
const ROWS: usize = 4;
/// Times a thread looks whether the others are there before it lets somebody else have its core.
const LOOKS_BUSY: u32 = 2_000;

/// Queries, keys and values of one thread's tokens: those of this layer and of the next.
type Shared = [RwLock<FloatBuffer>; 2];

/// The vector of `text` on as many threads as there are `scratches`, this one among them; `None`: there was no thread, or one
/// did not come to its end, and nothing was done.
///
/// # Errors
///
/// The system's, when there is no memory for the intermediate results.
pub(super) fn forward(
    kernels: Kernels,
    weights: &Weights,
    text: &[u32],
    scratches: &mut [Scratch],
) -> Result<Option<Vec<f32>>, io::Error> {
    let share = text.len().div_ceil(scratches.len()).next_multiple_of(ROWS);
    let ranges: Vec<Range<usize>> =
        (0..text.len()).step_by(share).map(|first| first..text.len().min(first + share)).collect();
    let width = 3 * weights.shape.hidden;
    let room = |range: &Range<usize>| FloatBuffer::zeroed(range.len() * width, false).map(RwLock::new);
    let shared = ranges
        .iter()
        .map(|range| Ok([room(range)?, room(range)?]))
        .collect::<Result<Vec<Shared>, io::Error>>()?;
    let mut buffers = Vec::with_capacity(ranges.len());
    for (scratch, range) in scratches.iter_mut().zip(&ranges) {
        buffers.push(scratch.reserve(weights, range.len(), text.len())?);
    }
    let meeting = Meeting::of(ranges.len());
    let parts = ranges.iter().zip(&mut buffers).enumerate();
    let mut parts: Vec<_> = parts
        .map(|(own, (range, buffers))| {
            let (shared, meeting) = (shared.as_slice(), &meeting);
            move || Part { kernels, weights, shared, own, meeting }.run(text, range.clone(), buffers)
        })
        .collect();
    let mut first = parts.remove(0);
    let whole = thread::scope(|scope| {
        let mut others = Vec::with_capacity(parts.len());
        for (index, part) in parts.into_iter().enumerate() {
            let thread = thread::Builder::new().name(format!("embed-part-{}", index + 1));
            match thread.spawn_scoped(scope, part) {
                Ok(other) => others.push(other),
                Err(_) => meeting.cancel(),
            }
        }
        let first = first();
        others.into_iter().all(|other| other.join().is_ok_and(|whole| whole)) && first
    });
    let rows = ranges
        .iter()
        .zip(&buffers)
        .map(|(range, buffers)| &buffers.hidden[..range.len() * weights.shape.hidden]);
    Ok(whole.then(|| pool(rows, weights.shape.hidden)))
}

/// One thread's share.
struct Part<'a> {
    kernels: Kernels,
    weights: &'a Weights,
    shared: &'a [Shared],
    own: usize,
    meeting: &'a Meeting,
}

impl Part<'_> {
    /// Takes the tokens of `range` through all layers; `false` when another thread does not.
    fn run(&self, text: &[u32], range: Range<usize>, buffers: &mut Buffers) -> bool {
        let _cancels = Cancels(self.meeting);
        let (kernels, weights) = (self.kernels, self.weights);
        let (hidden, count) = (weights.shape.hidden, range.len());
        let tiles = &kernels.tiles();
        let mut pass = Pass { kernels, weights, helper: None };
        let tokens = std::iter::once((range.start, &text[range]));
        embed_tokens(kernels, weights, tokens, &mut buffers.hidden);
        for layer in 0..weights.layers.len() {
            {
                let own = self.shared[self.own][layer % 2].write();
                let mut own = own.unwrap_or_else(PoisonError::into_inner);
                for first in (0..count).step_by(CHUNK_ROWS) {
                    let count = CHUNK_ROWS.min(count - first);
                    pass.multiply(
                        (layer, Product::AttentionIn),
                        tiles,
                        Rows { numbers: &buffers.hidden[first * hidden..], count, stride: hidden },
                        &mut buffers.operand,
                        &mut RowsMut { numbers: &mut own[first * 3 * hidden..], stride: 3 * hidden },
                    );
                }
            }
            if !self.meeting.wait() {
                return false;
            }
            let all: Vec<_> = self
                .shared
                .iter()
                .map(|part| part[layer % 2].read().unwrap_or_else(PoisonError::into_inner))
                .collect();
            let parts: Vec<&[f32]> = all.iter().map(|part| &***part).collect();
            let text = Text { parts: &parts, own: self.own, hidden };
            let Buffers { gathered, keys, values, scores, .. } = &mut *buffers;
            attend(kernels, text, &mut Head { keys, values, scores }, gathered);
            drop(all);
            for first in (0..count).step_by(CHUNK_ROWS) {
                finish_layer(&mut pass, tiles, layer, first..count.min(first + CHUNK_ROWS), buffers);
            }
        }
        true
    }
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

    /// Waits until all threads are here; `false`: one will never be.
    fn wait(&self) -> bool {
        let arrived = self.arrived.fetch_add(1, Ordering::AcqRel);
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
        true
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
