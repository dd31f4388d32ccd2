//! Caxton: one process, one log, and what adds up from it, for AI agents.
//!
//! Reading order: [`commands`] (wishes and rules), [`engine`] (the pipeline), [`config`] (settings), [`llm`] and
//! [`toolbox`] (what agents think and act with), [`agents`] (agents from files), [`api`] and [`cli`] (the doors).

pub mod agents;
pub mod allocator;
pub mod api;
pub mod cli;
pub mod commands;
pub mod config;
pub mod engine;
pub mod failure;
pub mod llm;
pub mod model;
pub mod telemetry;
pub mod toolbox;

/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
