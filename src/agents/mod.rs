//! Agents that run inside the server: where they come from, what they are told, how they answer, and when.
//!
//! A markdown file with front matter is an agent, and goes on being one while it is edited: [`definition`] (what a file
//! says), [`parse`] (from bytes to that, with every fault named), [`reconcile`] (what follows from files and registry,
//! pure), [`keeper`] (the thread that reads and records), [`directory`] (how others talk to it), [`templates`] (files to
//! begin with).
//!
//! It answers messages: [`spec`] (what an agent is made of), [`turn`] and [`reply`] (one message, as a state machine
//! without input and output), [`prompt`] and [`context`] (what the model reads), [`ports`] (what a turn needs from
//! the rest of the server), [`runner`] (one message, with the world attached), [`cancel`] (taking one back), [`queues`],
//! [`batching`] and [`circuit`] (who is next), [`scheduler`] (all of it together), [`runtime`] (all of it over the engine).

pub mod batching;
pub mod cancel;
pub mod circuit;
pub mod context;
pub mod definition;
mod directory;
mod engine_log;
mod envelope;
mod fault;
mod files;
mod keeper;
pub mod limits;
mod log;
mod parse;
mod placeholders;
pub mod ports;
pub mod prompt;
pub mod queues;
mod reading;
pub mod reconcile;
mod registry;
pub mod reply;
pub mod report;
mod roster;
pub mod runner;
pub mod runtime;
pub mod scheduler;
#[cfg(test)]
mod scripted;
mod settle;
pub mod spec;
pub mod templates;
#[cfg(test)]
mod tests;
pub mod turn;
mod validator;
mod watcher;
mod wish;

pub use definition::Definition;
pub use directory::{AgentDirectory, Conversations, DirectoryOptions, Noticing, StartError};
pub use engine_log::{EngineLog, open_conversations};
pub use files::is_note;
pub use log::{AgentLog, LogError, MemoryLog};
pub use parse::{Judgement, Surroundings, judge};
pub use placeholders::{RESERVED, TemplateFault, fill, placeholders};
pub use registry::{Past, Registered, Registration, Registry, Rejection};
pub use roster::{LoadedAgent, RejectedFile, Roster};
pub use runtime::{AgentRuntime, Equipment, Piece, RuntimeError};
pub use validator::{Checked, Validator};
pub use wish::{DirectoryError, Earlier};
