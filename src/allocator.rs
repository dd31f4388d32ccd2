//! What the allocator does with memory that was freed.
//!
//! Given back to the system at once, as mimalloc does after 10 ms, it must be asked for again page by page: 0.2 µs for each
//! 4 KiB, and up to 15 µs in a virtual machine whose host takes free memory back as well. Groups of 1,024 events of 1 KB
//! became durable 1.4 times as fast where it was kept for longer.

use std::time::Duration;

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

/// `mi_option_purge_delay` in `mimalloc.h` of mimalloc 2, in milliseconds.
const PURGE_DELAY: mi_option_t = 15;

/// From now on memory that was freed goes back to the system after `delay`, or ten times that where it lies in large
/// pieces, unless it is used again before; whole milliseconds count. Another allocator than mimalloc does not listen, and the variable
/// `MIMALLOC_PURGE_DELAY` has the last word.
pub fn give_back_after(delay: Duration) {
    let millis = delay.as_millis().try_into().unwrap_or(i32::MAX);
    // SAFETY: the option exists. It is one machine word that is written here and read when something is freed, so who reads
    // it meanwhile finds the old number or the new one; mimalloc itself reads it without more, see `options.c`.
    unsafe { mi_option_set_default(PURGE_DELAY, millis.into()) };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::mem::MaybeUninit;
    use std::time::Duration;

    use libmimalloc_sys::{mi_free, mi_malloc};

    use super::give_back_after;

    const BYTES: usize = 8 << 20;

    /// Pages that this thread had to get from the system so far.
    fn faults() -> i64 {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the call writes one `rusage`, for which zeros are valid too.
        let usage = unsafe {
            assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()), 0);
            usage.assume_init()
        };
        usage.ru_minflt
    }

    /// Pages that taking, filling and freeing 8 MiB once more had to get.
    fn taken_again() -> i64 {
        let take = || {
            // SAFETY: filled as far as it was asked for, and freed once.
            unsafe {
                let memory = mi_malloc(BYTES);
                assert!(!memory.is_null());
                memory.cast::<u8>().write_bytes(7, BYTES);
                std::hint::black_box(memory);
                mi_free(memory);
            }
        };
        take();
        let before = faults();
        take();
        faults() - before
    }

    #[test]
    fn freed_memory_is_kept_for_so_long() {
        give_back_after(Duration::from_hours(1));
        let kept = taken_again();
        give_back_after(Duration::ZERO);
        let given_back = taken_again();
        give_back_after(Duration::from_hours(1));
        // In huge pages there are few of them; a thread may meet one or another for itself.
        assert!(kept < given_back, "{kept} {given_back}");
    }
}
