//! The REST door over a real engine, in this process: every path, every refusal, many clients at once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod bad_input;
mod batches;
mod cli;
mod client;
mod concurrency;
mod config_agents;
mod connections;
mod entities;
mod messages;
mod observations;
#[path = "../simulation/server.rs"]
mod process;
mod protocol;
mod relations;
mod search;
mod server;
mod streams;
mod system;
mod transfer;
mod turns;
#[path = "../simulation/web.rs"]
mod web;
