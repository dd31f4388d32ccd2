//! The `caxton` program; everything it does is in the library.

use std::process::ExitCode;

/// Messages are made on one thread and forgotten on another, which the system's allocator pays for with locks.
#[cfg(not(any(feature = "jemalloc", feature = "system-allocator")))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(all(feature = "jemalloc", not(feature = "system-allocator")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    caxton::cli::run()
}
