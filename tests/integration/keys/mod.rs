//! The keys of the configuration: each is explained, and each does what it says.
//!
//! `table` names the test that shows what a key does; those that nothing else shows are here, each with a real server
//! that was given the key in its file.

mod agents;
mod door;
mod explain;
mod formats;
mod memory;
mod search;
mod table;
mod talk;
mod threads;
