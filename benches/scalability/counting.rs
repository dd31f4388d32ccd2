//! The product's allocator, and a count of what goes through it while that is asked for.

use std::alloc::{GlobalAlloc, Layout};
use std::ops::Sub;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Rates are measured with this off: a shared counter would be what they measure.
static IS_ON: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED: AtomicU64 = AtomicU64::new(0);
static FREED: AtomicU64 = AtomicU64::new(0);

/// Counts, and leaves the work to mimalloc.
struct Counting;

/// What was allocated since counting began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Allocated {
    /// Times that memory was asked for.
    pub(crate) times: u64,
    /// Bytes asked for, whether or not they were given back.
    pub(crate) bytes: u64,
    /// Bytes held more than when counting began; below 0 where older ones were given back.
    pub(crate) held: i64,
}

impl Sub for Allocated {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            times: self.times - before.times,
            bytes: self.bytes - before.bytes,
            held: self.held - before.held,
        }
    }
}

/// Begins to count.
pub(crate) fn count() {
    IS_ON.store(true, Ordering::SeqCst);
}

/// What was counted so far, of all threads.
pub(crate) fn so_far() -> Allocated {
    let (bytes, freed) = (ALLOCATED.load(Ordering::SeqCst), FREED.load(Ordering::SeqCst));
    Allocated { times: ALLOCATIONS.load(Ordering::SeqCst), bytes, held: bytes.wrapping_sub(freed) as i64 }
}

fn took(bytes: usize) {
    if IS_ON.load(Ordering::Relaxed) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        ALLOCATED.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

fn gave(bytes: usize) {
    if IS_ON.load(Ordering::Relaxed) {
        FREED.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

// SAFETY: every call goes on to mimalloc as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        gave(layout.size());
        // SAFETY: the caller's promises are passed on, and `memory` came from mimalloc.
        unsafe { MiMalloc.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        gave(layout.size());
        took(size);
        // SAFETY: the caller's promises are passed on, and `memory` came from mimalloc.
        unsafe { MiMalloc.realloc(memory, layout, size) }
    }
}
