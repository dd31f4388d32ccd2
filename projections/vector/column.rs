//! Columns of blocks: in a `Vec` while rows come, sealed beside their like on huge pages when the block is full.
//!
//! A scan reads the columns of many blocks one after another. Scattered over small pages, half of its time goes to
//! finding the pages; a sealed column is never changed, so copies of a block share it.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a region, and what it is aligned to: a huge page.
const REGION_BYTES: usize = 2 << 20;
/// Alignment of a column: a cache line.
const ALIGN: usize = 64;

/// The numbers of a block's rows.
#[derive(Debug, Clone)]
pub(crate) enum Column<T> {
    /// More may come.
    Open(Vec<T>),
    /// The block is full.
    Sealed(Arc<Sealed<T>>),
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self::Open(Vec::new())
    }
}

impl<T: Copy> Column<T> {
    /// Adds a number; a sealed column is opened again.
    pub(crate) fn push(&mut self, number: T) {
        self.open().push(number);
    }

    /// The column as a `Vec` of its own.
    pub(crate) fn open(&mut self) -> &mut Vec<T> {
        if let Self::Sealed(sealed) = self {
            *self = Self::Open(sealed.to_vec());
        }
        match self {
            Self::Open(numbers) => numbers,
            Self::Sealed(_) => unreachable!("it was opened above"),
        }
    }

    /// Moves the numbers beside those of other columns. Where there is no memory for that, they stay where they are.
    pub(crate) fn seal(&mut self) {
        if let Self::Open(numbers) = self
            && let Some(sealed) = Sealed::new(numbers)
        {
            *self = Self::Sealed(Arc::new(sealed));
        }
    }
}

impl<T> Deref for Column<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Open(numbers) => numbers,
            Self::Sealed(sealed) => sealed,
        }
    }
}

/// Numbers in a region, given back when dropped.
pub(crate) struct Sealed<T> {
    start: NonNull<T>,
    len: usize,
    owned: PhantomData<T>,
}

// SAFETY: it owns its numbers as a `Box<[T]>` does; nothing else refers to that part of the region.
unsafe impl<T: Send> Send for Sealed<T> {}
// SAFETY: as above; shared, it only gives out `&[T]`.
unsafe impl<T: Sync> Sync for Sealed<T> {}

impl<T: Copy> Sealed<T> {
    fn new(numbers: &[T]) -> Option<Self> {
        const { assert!(align_of::<T>() <= ALIGN) };
        let start = regions().take(size_of_val(numbers))?.cast::<T>();
        // SAFETY: `start` begins a slot of at least the size of `numbers`, aligned to ALIGN and taken by nobody else,
        // and `T` is `Copy`.
        unsafe { start.as_ptr().copy_from_nonoverlapping(numbers.as_ptr(), numbers.len()) };
        Some(Self { start, len: numbers.len(), owned: PhantomData })
    }
}

impl<T> Deref for Sealed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `new` wrote `len` numbers from `start` on, and the slot is this value's until it is dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for Sealed<T> {
    fn drop(&mut self) {
        regions().give_back(self.start.cast());
    }
}

impl<T: fmt::Debug> fmt::Debug for Sealed<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

/// Memory of one huge page, in slots of equal size.
struct Region {
    start: NonNull<u8>,
    slot_bytes: usize,
    /// Slots that nobody has.
    free: Vec<u16>,
}

// SAFETY: it owns its memory, and what lies in the slots belongs to those who took them.
unsafe impl Send for Region {}

impl Region {
    fn new(slot_bytes: usize) -> Option<Self> {
        let start = map_region()?;
        #[cfg(target_os = "linux")]
        // SAFETY: the range is this region's, and the advice changes nothing that is in it. A kernel without huge
        // pages refuses; ordinary pages serve as well, only slower.
        unsafe {
            libc::madvise(start.as_ptr().cast(), REGION_BYTES, libc::MADV_HUGEPAGE);
        }
        Some(Self { start, slot_bytes, free: (0..Self::slots(slot_bytes)).rev().collect() })
    }

    const fn slots(slot_bytes: usize) -> u16 {
        // Slots are a cache line at least, so there are 32,768 at most.
        (REGION_BYTES / slot_bytes) as u16
    }

    fn is_unused(&self) -> bool {
        self.free.len() == usize::from(Self::slots(self.slot_bytes))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `new` mapped just this range, and nobody has a slot: see `Regions::give_back`.
        unsafe { unmap(self.start.as_ptr(), REGION_BYTES) };
    }
}

/// Memory of a region from the system, not from the allocator: that one keeps twice as much for so large an alignment, and
/// touches what lies in front, which is a huge page more.
fn map_region() -> Option<NonNull<u8>> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
    // SAFETY: a new mapping of no file, wherever the system likes; nothing refers to it yet.
    let mapped = unsafe { libc::mmap(ptr::null_mut(), 2 * REGION_BYTES, access, kind, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return None;
    }
    let mapped = mapped.cast::<u8>();
    let before = mapped.align_offset(REGION_BYTES);
    // SAFETY: `before` is less than a region, so that a region fits behind it. What is given back lies in the mapping,
    // around that region, and nobody knows of it. Pages are smaller than regions, and both begin at a page.
    unsafe {
        let start = mapped.add(before);
        unmap(mapped, before);
        unmap(start.add(REGION_BYTES), REGION_BYTES - before);
        NonNull::new(start)
    }
}

/// Gives mapped memory back to the system.
///
/// # Safety
///
/// The range was mapped by [`map_region`], begins and ends at a page, and nothing refers to it any more.
unsafe fn unmap(start: *mut u8, bytes: usize) {
    if bytes > 0 {
        // SAFETY: the caller's promise. Should the system refuse, the range stays mapped, and nobody uses it.
        unsafe { libc::munmap(start.cast(), bytes) };
    }
}

/// All regions of the process, by their address. Static, as the heap is.
struct Regions(Vec<Region>);

static REGIONS: Mutex<Regions> = Mutex::new(Regions(Vec::new()));

fn regions() -> MutexGuard<'static, Regions> {
    REGIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Regions {
    /// A slot for so many bytes; `None` when there is no memory, or never will be for so many.
    fn take(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let slot_bytes = bytes.next_multiple_of(ALIGN);
        if slot_bytes == 0 || slot_bytes > REGION_BYTES {
            return None;
        }
        let fits = |region: &Region| region.slot_bytes == slot_bytes && !region.free.is_empty();
        let number = if let Some(number) = self.0.iter().position(fits) {
            number
        } else {
            let region = Region::new(slot_bytes)?;
            let number = self.0.partition_point(|other| other.start < region.start);
            self.0.insert(number, region);
            number
        };
        let region = &mut self.0[number];
        let slot = region.free.pop()?;
        // SAFETY: the slot lies within the region.
        Some(unsafe { region.start.add(usize::from(slot) * slot_bytes) })
    }

    /// Takes back the slot that starts at `start`, and gives the region back to the system when it was the last.
    fn give_back(&mut self, start: NonNull<u8>) {
        let number = self.0.partition_point(|region| region.start <= start) - 1;
        let region = &mut self.0[number];
        let offset = start.as_ptr() as usize - region.start.as_ptr() as usize;
        region.free.push((offset / region.slot_bytes) as u16);
        if region.is_unused() {
            self.0.remove(number);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::{ALIGN, Column, REGION_BYTES, Region, Regions};

    fn column(number: u64, len: usize) -> Column<u64> {
        let mut column = Column::Open((0..len as u64).map(|at| number * 1_000_000 + at).collect());
        column.seal();
        column
    }

    #[test]
    fn sealed_columns_hold_what_was_put_in_whatever_comes_and_goes() {
        let mut columns: Vec<(u64, usize, Column<u64>)> = Vec::new();
        for number in 0..2_000_u64 {
            let len = [1, 8, 9, 256, 12_288][number as usize % 5];
            columns.push((number, len, column(number, len)));
            if number % 3 == 0 {
                let gone = number as usize * 7 % columns.len();
                columns.swap_remove(gone);
            }
        }
        for (number, len, column) in &columns {
            assert!(matches!(column, Column::Sealed(_)));
            assert!(column.iter().copied().eq((0..*len as u64).map(|at| number * 1_000_000 + at)));
            assert_eq!(column.as_ptr() as usize % ALIGN, 0);
        }
    }

    #[test]
    fn a_copy_outlives_the_column_and_an_opened_one_leaves_it_alone() {
        let mut first = column(7, 256);
        let copy = first.clone();
        first.push(1);
        assert_eq!((first.len(), copy.len()), (257, 256));
        drop(first);
        assert!(copy.iter().copied().eq((0..256).map(|at| 7_000_000 + at)));
    }

    #[test]
    fn nothing_and_too_much_stay_where_they_are() {
        assert!(matches!(column(1, 0), Column::Open(_)));
        assert!(matches!(column(1, REGION_BYTES / 8 + 1), Column::Open(_)));
        assert!(matches!(column(1, REGION_BYTES / 8), Column::Sealed(_)));
    }

    #[test]
    fn slots_are_used_again_and_empty_regions_go_back() {
        let mut regions = Regions(Vec::new());
        let slots = usize::from(Region::slots(98_304));
        let mut taken: Vec<_> = (0..slots * 3).map(|_| regions.take(98_300).unwrap()).collect();
        assert_eq!(regions.0.len(), 3);
        let distinct: std::collections::BTreeSet<_> = taken.iter().copied().collect();
        assert_eq!(distinct.len(), slots * 3);
        let last = taken.pop().unwrap();
        regions.give_back(last);
        assert_eq!(regions.take(98_304), Some(last));
        regions.give_back(last);
        for slot in taken {
            regions.give_back(slot);
        }
        assert!(regions.0.is_empty());
    }
}
