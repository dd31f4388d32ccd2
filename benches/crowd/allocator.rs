//! The allocator that the product has: messages are made on one thread and forgotten on another.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
