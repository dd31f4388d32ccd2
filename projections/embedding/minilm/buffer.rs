//! A page-aligned run of numbers that is given back to the system when it is dropped.

use std::io;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// `f32`s in memory of their own, aligned to a page, zero at first.
///
/// Not a `Vec`, because the system can be asked for huge pages here, and because a dropped buffer lowers the
/// process's memory at once.
pub(crate) struct FloatBuffer {
    map: MmapMut,
    len: usize,
}

impl FloatBuffer {
    /// `len` zeros, on huge pages where that is asked for and the system has them.
    ///
    /// # Errors
    ///
    /// The system's, when there is no memory.
    pub(crate) fn zeroed(len: usize, huge_pages: bool) -> io::Result<Self> {
        let bytes = len
            .max(1)
            .checked_mul(size_of::<f32>())
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let map = MmapMut::map_anon(bytes)?;
        #[cfg(target_os = "linux")]
        if huge_pages {
            // A kernel without huge pages refuses the advice; ordinary pages serve as well, only slower.
            drop(map.advise(memmap2::Advice::HugePage));
        }
        #[cfg(not(target_os = "linux"))]
        let _ = huge_pages;
        Ok(Self { map, len })
    }
}

impl Deref for FloatBuffer {
    type Target = [f32];

    #[allow(clippy::cast_ptr_alignment, reason = "a mapping starts on a page")]
    fn deref(&self) -> &[f32] {
        // SAFETY: the mapping holds at least `len` × 4 initialised bytes, is aligned to a page, lives as long as
        // `self`, is shared with nobody, and every bit pattern is an `f32`.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<f32>(), self.len) }
    }
}

impl DerefMut for FloatBuffer {
    #[allow(clippy::cast_ptr_alignment, reason = "a mapping starts on a page")]
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and `&mut self` makes this the only view.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast::<f32>(), self.len) }
    }
}
