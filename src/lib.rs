//! Caxton: one process, one log, and what adds up from it, for AI agents.

pub mod commands;
