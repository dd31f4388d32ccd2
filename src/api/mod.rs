//! The doors of the server: each translates between a protocol and the engine, and holds no rule of its own.

pub mod in_process;
pub mod metrics;
pub mod rest;
