//! The REST door over a real engine, in this process: every path, every refusal, many clients at once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod agent_logs;
mod api_page;
mod audit;
mod backup;
mod bad_input;
mod batches;
mod bench_flags;
mod benchmark;
mod cli;
mod cli_chat;
mod cli_talk;
mod client;
mod concurrency;
mod config_agents;
mod config_page;
mod connections;
mod contents;
mod dropped;
mod endpoint;
mod entities;
mod erase;
mod exchange;
mod figures;
mod forks;
mod hosts;
mod keys;
mod large_messages;
mod messages;
mod metrics;
mod observations;
#[path = "../simulation/server.rs"]
mod process;
mod program;
mod projections;
mod proofs;
mod protocol;
mod providers;
mod relations;
mod replay;
mod retention;
mod said;
mod search;
mod server;
mod starting;
mod streams;
mod system;
mod talk_state;
mod time;
mod transfer;
mod turns;
mod undo;
#[path = "../simulation/web.rs"]
mod web;
mod workflows;
