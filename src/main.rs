//! The `caxton` program; everything it does is in the library.

use std::process::ExitCode;

/// Messages are made on one thread and forgotten on another, which the system's allocator pays for with locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    caxton::cli::run()
}
