//! State: what the log adds up to.

pub mod embedding;
