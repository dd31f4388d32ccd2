//! A second thread that takes part in the pass of one short text.
//!
//! A short text is over before a thread could be started for it, and what it waits for is memory: two cores fetch the
//! weights in little more than half the time of one. So one thread stands by, parked. While a pass goes on, each of
//! its products is laid out on the [`Desk`]: the pass's own thread takes panels of weights from the front, the helper
//! from the back, until they meet. Each column is computed as it would be alone, so the results are the same bits.
//!
//! Nobody depends on the helper. It works on a copy of the input and keeps its output to itself; where it is late,
//! because its core has other work, the pass computes that part too.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, TryLockError};
use std::thread::{JoinHandle, Thread};

use super::buffer::FloatBuffer;
use super::kernels::{Kernels, Order, PANEL_COLUMNS, Rows, RowsMut};
use super::product::{Matrix, Multiplication, Product};
use super::reduced::{Operand, Tiles};
use super::weights::{Numbers, Weights};
use crate::embedding::cores::Whereabouts;

/// Tokens of a text that is shared, at most. A longer one is rare as a query, and takes room here.
pub(crate) const TOKENS_MAX: usize = 112;

/// Times the helper looks for work before it lets others have its core: about 50 µs.
const LOOKS_BUSY: u32 = 1_000;
/// Times it looks in all before it parks although the pass is not over: about half a millisecond.
const LOOKS_MAX: u32 = 2_000;

/// Looks at the helper's last panel before the pass computes it itself: at least these, and one for so many
/// multiplications of a row by a panel's row. About five times what a panel takes.
const SPINS_MIN: usize = 1_000;
/// See [`SPINS_MIN`].
const WORK_PER_SPIN: usize = 16;

/// Times in a pass that the helper may be late.
const LATE_MAX: u32 = 3;

/// The thread, which ends when this is dropped.
pub(crate) struct Helper {
    desk: Arc<Desk>,
    /// The number of the last product. Held by the one pass that has the helper.
    turn: Mutex<u32>,
    waker: Thread,
    thread: Option<JoinHandle<()>>,
}

/// What the two threads share.
struct Desk {
    weights: Arc<Weights>,
    kernels: Kernels,
    /// Passes that asked the helper to come.
    calls: AtomicU32,
    /// Whether the pass that asked last still goes on.
    open: AtomicBool,
    stop: AtomicBool,
    whereabouts: Whereabouts,
    task: RwLock<Task>,
    /// See [`Claims`].
    claims: AtomicU64,
    /// See [`Done`].
    finished: AtomicU64,
    part: Mutex<Part>,
}

/// What the helper works on. It has no rival for it but a pass that collects.
struct Part {
    /// The columns that it has computed, at their places in the product.
    numbers: FloatBuffer,
    /// The rows that are multiplied, as reduced products take them, and of which turn they are.
    operand: Operand,
    taken: Option<u32>,
}

/// A product that is worked on.
struct Task {
    turn: u32,
    layer: usize,
    product: Product,
    rows: usize,
    /// A copy of the rows that are multiplied, without gaps.
    x: FloatBuffer,
}

/// Which panels of a turn's product nobody has taken: those from `front` on and before `back`.
///
/// As a number: `| turn: 32 | front: 16 | back: 16 |`.
#[derive(Clone, Copy)]
struct Claims {
    turn: u32,
    front: u16,
    back: u16,
}

impl Claims {
    fn pack(self) -> u64 {
        u64::from(self.turn) << 32 | u64::from(self.front) << 16 | u64::from(self.back)
    }

    fn unpack(number: u64) -> Self {
        Self { turn: (number >> 32) as u32, front: (number >> 16) as u16, back: number as u16 }
    }
}

/// How many panels of a turn's product the helper has finished, from the back.
///
/// As a number: `| turn: 32 | panels: 32 |`.
#[derive(Clone, Copy)]
struct Done {
    turn: u32,
    panels: u32,
}

impl Done {
    fn pack(self) -> u64 {
        u64::from(self.turn) << 32 | u64::from(self.panels)
    }
}

/// A pass that the helper was called to; when this is dropped the helper goes back.
pub(crate) struct Shared<'a> {
    desk: &'a Desk,
    turn: MutexGuard<'a, u32>,
    /// How often the helper was late. After [`LATE_MAX`] times the rest of the pass does without it.
    late: u32,
}

impl Shared<'_> {
    /// Writes the product of layer `layer` to `y`, as `own` does alone; `false` when it is not shared, and nothing was
    /// done.
    pub(crate) fn multiply(
        &mut self,
        (layer, product): (usize, Product),
        x: Rows<'_>,
        own: &Multiplication<'_>,
        y: &mut RowsMut<'_>,
    ) -> bool {
        let desk = self.desk;
        let matrix = desk.weights.matrix(layer, product);
        if self.late >= LATE_MAX || !self.lay_out(layer, product, x, matrix) {
            return false;
        }
        while let Some(index) = desk.claim_front() {
            own.panel(desk.kernels, product, index, Order::Upwards, y);
        }
        let first = usize::from(Claims::unpack(desk.claims.load(Ordering::Relaxed)).front);
        if first < matrix.count() && !self.collect(first, x.count, matrix, y) {
            self.late += 1;
            for index in first..matrix.count() {
                own.panel(desk.kernels, product, index, Order::Upwards, y);
            }
        }
        true
    }

    /// Lets the helper see a product; `false` when it is still busy with one that was finished without it.
    fn lay_out(&mut self, layer: usize, product: Product, x: Rows<'_>, matrix: Matrix<'_>) -> bool {
        let (Ok(mut task), Ok(back)) = (self.desk.task.try_write(), u16::try_from(matrix.count())) else {
            return false;
        };
        let width = matrix.depth();
        let Some(copy) = task.x.get_mut(..x.count * width) else { return false };
        for (to, row) in copy.chunks_exact_mut(width).zip(x.numbers.chunks(x.stride)) {
            to.copy_from_slice(&row[..width]);
        }
        *self.turn = self.turn.wrapping_add(1);
        (task.turn, task.layer, task.product, task.rows) = (*self.turn, layer, product, x.count);
        drop(task);
        self.desk.claims.store(Claims { turn: *self.turn, front: 0, back }.pack(), Ordering::Release);
        true
    }

    /// Takes over what the helper computed, the panels from `first` on; `false` when it is late.
    fn collect(&self, first: usize, rows: usize, matrix: Matrix<'_>, y: &mut RowsMut<'_>) -> bool {
        let done = Done { turn: *self.turn, panels: (matrix.count() - first) as u32 }.pack();
        // At most one panel is outstanding. The longer that takes, the longer it is worth waiting for.
        let mut spins = SPINS_MIN + rows * matrix.depth() / WORK_PER_SPIN;
        while self.desk.finished.load(Ordering::Acquire) != done {
            if spins == 0 {
                return false;
            }
            spins -= 1;
            std::hint::spin_loop();
        }
        let Ok(part) = self.desk.part.try_lock() else { return false };
        let columns = matrix.count() * PANEL_COLUMNS;
        for row in 0..rows {
            let columns = first * PANEL_COLUMNS..columns;
            let from = &part.numbers[row * columns.end..][columns.clone()];
            y.numbers[row * y.stride..][columns].copy_from_slice(from);
        }
        true
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        self.desk.open.store(false, Ordering::Relaxed);
    }
}

impl Helper {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The system's, when it gives no memory or no thread.
    pub(crate) fn start(weights: Arc<Weights>, kernels: Kernels) -> io::Result<Self> {
        let desk = Arc::new(Desk::new(weights, kernels)?);
        let own = Arc::clone(&desk);
        let thread =
            std::thread::Builder::new().name("embed-helper".to_owned()).spawn(move || own.stand_by())?;
        Ok(Self { desk, turn: Mutex::new(0), waker: thread.thread().clone(), thread: Some(thread) })
    }

    /// Calls the helper to a pass that is about to start; `None` when it takes part in another one.
    pub(crate) fn call(&self) -> Option<Shared<'_>> {
        let turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        self.desk.open.store(true, Ordering::Relaxed);
        self.desk.whereabouts.part_from_caller();
        self.desk.calls.fetch_add(1, Ordering::Release);
        self.waker.unpark();
        Some(Shared { desk: &self.desk, turn, late: 0 })
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.desk.stop.store(true, Ordering::Release);
        self.waker.unpark();
        if let Some(thread) = self.thread.take() {
            // Where it panicked, passes went on without it.
            drop(thread.join());
        }
    }
}

impl Desk {
    fn new(weights: Arc<Weights>, kernels: Kernels) -> io::Result<Self> {
        let width = weights.shape.hidden.max(weights.shape.feed_forward);
        let columns_max = width.max(3 * weights.shape.hidden);
        let x = FloatBuffer::zeroed(TOKENS_MAX * width, false)?;
        let numbers = FloatBuffer::zeroed(TOKENS_MAX * columns_max, false)?;
        let operand =
            Operand::with_room(TOKENS_MAX, if weights.numbers() == Numbers::Full { 0 } else { width })?;
        Ok(Self {
            weights,
            kernels,
            calls: AtomicU32::new(0),
            open: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            whereabouts: Whereabouts::unknown(),
            task: RwLock::new(Task { turn: 0, layer: 0, product: Product::AttentionIn, rows: 0, x }),
            claims: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            part: Mutex::new(Part { numbers, operand, taken: None }),
        })
    }

    /// What the helper does all the time.
    fn stand_by(&self) {
        let mut answered = 0;
        self.whereabouts.begin();
        while !self.stop.load(Ordering::Acquire) {
            let calls = self.calls.load(Ordering::Acquire);
            if calls == answered {
                std::thread::park();
            } else {
                answered = calls;
                self.whereabouts.note();
                self.take_part();
                self.whereabouts.note();
            }
        }
    }

    /// Works until the pass is over or lets the helper wait too long.
    fn take_part(&self) {
        let (mut looks, mut done) = (0, Done { turn: 0, panels: 0 });
        let tiles = self.kernels.tiles();
        while looks < LOOKS_MAX && self.open.load(Ordering::Relaxed) {
            if self.take_panel(&tiles, &mut done) {
                looks = 0;
                continue;
            }
            looks += 1;
            if looks < LOOKS_BUSY {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// Takes a panel for the pass's own thread: the turn's first that is left.
    fn claim_front(&self) -> Option<usize> {
        let take = |number| {
            let claims = Claims::unpack(number);
            (claims.front < claims.back).then(|| Claims { front: claims.front + 1, ..claims }.pack())
        };
        let before = self.claims.fetch_update(Ordering::Acquire, Ordering::Acquire, take).ok()?;
        Some(usize::from(Claims::unpack(before).front))
    }

    /// Takes a panel for the helper: the last that is left, and of which turn.
    fn claim_back(&self) -> Option<(u32, usize)> {
        let take = |number| {
            let claims = Claims::unpack(number);
            (claims.front < claims.back).then(|| Claims { back: claims.back - 1, ..claims }.pack())
        };
        let before = self.claims.fetch_update(Ordering::Acquire, Ordering::Acquire, take).ok()?;
        let Claims { turn, back, .. } = Claims::unpack(before);
        Some((turn, usize::from(back) - 1))
    }

    /// Takes the last panel that is left and multiplies by it; `false` when none is. `done` counts the panels that
    /// the helper has finished in a turn.
    fn take_panel(&self, tiles: &Tiles, done: &mut Done) -> bool {
        let Some((turn, index)) = self.claim_back() else { return false };
        // Locked by nobody else, unless this thread was so late that another pass goes on without it.
        let (Ok(task), Ok(mut part)) = (self.task.try_read(), self.part.try_lock()) else { return false };
        if task.turn != turn {
            return false;
        }
        let matrix = self.weights.matrix(task.layer, task.product);
        let x = Rows { numbers: &task.x, count: task.rows, stride: matrix.depth() };
        let Part { numbers, operand, taken } = &mut *part;
        let known = *taken == Some(turn);
        *taken = Some(turn);
        let multiplication = if known {
            matrix.with_taken(tiles, x, operand)
        } else {
            matrix.with(self.kernels, tiles, x, operand)
        };
        let mut y = RowsMut { numbers, stride: matrix.count() * PANEL_COLUMNS };
        multiplication.panel(self.kernels, task.product, index, Order::Downwards, &mut y);
        // Before the pass's own thread is told: it must find both free.
        drop((task, part));
        if done.turn != turn {
            *done = Done { turn, panels: 0 };
        }
        done.panels += 1;
        self.finished.store(done.pack(), Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests;
