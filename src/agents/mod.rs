//! Agents from files: a markdown file with front matter is an agent, and goes on being one while it is edited.
//!
//! Reading order: [`definition`] (what a file says), [`parse`] (from bytes to that, with every fault named),
//! [`reconcile`] (what follows from files and registry, pure), [`keeper`] (the thread that reads and records),
//! [`directory`] (how others talk to it), [`templates`] (files to begin with).

pub mod definition;
mod directory;
mod envelope;
mod fault;
mod files;
mod keeper;
pub mod limits;
mod log;
mod parse;
mod placeholders;
mod reading;
pub mod reconcile;
mod registry;
pub mod report;
mod roster;
mod settle;
pub mod templates;
#[cfg(test)]
mod tests;
mod validator;
mod watcher;
mod wish;

pub use definition::Definition;
pub use directory::{AgentDirectory, Conversations, DirectoryOptions, Noticing, StartError};
pub use log::{AgentLog, LogError, MemoryLog};
pub use parse::{Judgement, Surroundings, judge};
pub use placeholders::{RESERVED, TemplateFault, fill, placeholders};
pub use registry::{Past, Registered, Registration, Registry, Rejection};
pub use roster::{LoadedAgent, RejectedFile, Roster};
pub use validator::{Checked, Validator};
pub use wish::{DirectoryError, Earlier};
