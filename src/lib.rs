//! Behaviour: commands, the engine, and the doors through which they are reached.

pub mod commands;
pub mod config;
pub mod model;
