//! A page-aligned run of numbers that is given back to the system when it is dropped.

use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// A number of which every bit pattern is one, zeros among them.
///
/// # Safety
///
/// The type has no padding, no invalid bit pattern, and an alignment that divides a page.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: every 32 bits are an `f32`.
unsafe impl Plain for f32 {}
// SAFETY: every 32 bits are a `u32`.
unsafe impl Plain for u32 {}

/// Numbers in memory of their own, aligned to a page, zero at first.
///
/// Not a `Vec`, because the system can be asked for huge pages here, and because a dropped buffer lowers the
/// process's memory at once.
pub(crate) struct Buffer<T: Plain> {
    map: MmapMut,
    len: usize,
    numbers: PhantomData<T>,
}

/// A buffer of `f32`.
pub(crate) type FloatBuffer = Buffer<f32>;
/// A buffer of words: what they hold is known to whoever packed them.
pub(crate) type WordBuffer = Buffer<u32>;

impl<T: Plain> Buffer<T> {
    /// `len` zeros, on huge pages where that is asked for and the system has them.
    ///
    /// # Errors
    ///
    /// The system's, when there is no memory.
    pub(crate) fn zeroed(len: usize, huge_pages: bool) -> io::Result<Self> {
        let bytes = len
            .max(1)
            .checked_mul(size_of::<T>())
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let map = MmapMut::map_anon(bytes)?;
        #[cfg(target_os = "linux")]
        if huge_pages {
            // A kernel without huge pages refuses the advice; ordinary pages serve as well, only slower.
            drop(map.advise(memmap2::Advice::HugePage));
        }
        #[cfg(not(target_os = "linux"))]
        let _ = huge_pages;
        Ok(Self { map, len, numbers: PhantomData })
    }
}

impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds at least `len` initialised numbers, is aligned to a page, lives as long as
        // `self`, is shared with nobody, and every bit pattern is a `T`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<T>(), self.len) }
    }
}

impl<T: Plain> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `&mut self` makes this the only view.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast::<T>(), self.len) }
    }
}

impl WordBuffer {
    /// The same memory as numbers.
    pub(crate) fn floats(&self) -> &[f32] {
        let words: &[u32] = self;
        // SAFETY: both have 32 bits and the same alignment, and every bit pattern is an `f32`.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<f32>(), words.len()) }
    }
}
