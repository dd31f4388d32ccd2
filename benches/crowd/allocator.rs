//! The allocator that the product has: messages are made on one thread and forgotten on another.

use caxton::allocator::give_back_after;
use caxton::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lets it keep freed memory for as long as a server does.
pub(crate) fn set_up() {
    give_back_after(Config::default().memory_allocation.purge_delay);
}
