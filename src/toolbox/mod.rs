//! What an agent may call.
//!
//! Reading order: this file (what a tool is), [`Toolbox`] (who may call what, within which bounds), then one module a
//! provider of tools: [`memory`], [`http_client`], [`message`] with [`Waits`] (turns that wait for an answer), [`mcp`].

mod arguments;
mod calls;
pub mod http_client;
pub mod mcp;
pub mod memory;
pub mod message;
mod names;
#[cfg(test)]
mod stub;
#[cfg(test)]
mod tests;
mod tls;
mod waits;

use std::fmt;
use std::time::Duration;

use caxton_events::{AgentId, ConversationId, Seq, TurnId, WorkspaceId};
use futures::future::BoxFuture;
use serde_json::Value;

use crate::config::MemoryScope;
use crate::llm::ToolSpec;

pub use calls::{Offer, Toolbox, Unavailable};
pub(crate) use names::family;
pub use names::model_name;
pub(crate) use waits::answered;
pub use waits::{Wait, Waiting, Waits};

/// Who calls a tool, and what it may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    /// The agent.
    pub agent: AgentId,
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// The turn the call belongs to: what it writes is attributed to it.
    pub turn: TurnId,
    /// The conversation of the turn.
    pub conversation: ConversationId,
    /// The record that led to the call.
    pub cause: Seq,
    /// The number of the call: a repetition after a crash is recognised by it.
    pub call: String,
    /// What the agent's file allows.
    pub permissions: Permissions,
    /// Time for the call.
    pub timeout: Duration,
}

/// What an agent's file allows its tools.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Permissions {
    /// Tools it may call, by name; `mcp:SERVER` and `mcp:SERVER/TOOL` for tools of MCP servers.
    pub tools: Vec<String>,
    /// `mcp:SERVER/TOOL` that it may not call although `tools` has its server.
    pub denied_tools: Vec<String>,
    /// Hosts that HTTP requests may go to: `api.example.com`, or `*.example.com` for everything below it; with a port,
    /// as in `api.example.com:8080`, that port alone.
    pub allowed_hosts: Vec<String>,
    /// Whether addresses of this machine and of private networks may be asked.
    pub private_addresses: bool,
    /// HTTP requests in a row that an answer may redirect to.
    pub redirects_max: u32,
    /// Time for one HTTP request with its redirects; `None`: as long as the call.
    pub http_timeout: Option<Duration>,
    /// Bytes of a result of `http_client` at most.
    pub http_bytes_max: usize,
    /// Bytes of a result of any other tool at most.
    pub result_bytes_max: usize,
    /// Results of one memory search at most.
    pub memory_results_max: usize,
    /// Whether it may write to memory.
    pub memory_writes: bool,
    /// The widest scope it may write to, and the one it writes to unless a call names a narrower one.
    pub memory_scope: MemoryScope,
    /// Entities it may own; `None`: as many as it likes.
    pub memory_entities_max: Option<u64>,
    /// Time for one search of memory; `None`: as long as the call.
    pub memory_search_timeout: Option<Duration>,
    /// Calls of one turn at most.
    pub calls_max: u32,
}

impl Permissions {
    /// Whether the tool `name` may be called, under either of its names.
    pub fn allow(&self, name: &str) -> bool {
        names::has(&self.tools, name) && !names::has(&self.denied_tools, name)
    }

    /// Bytes of a result of the tool `name` at most.
    pub fn bytes_max(&self, name: &str) -> usize {
        if name == http_client::NAME { self.http_bytes_max } else { self.result_bytes_max }
    }
}

/// Why a tool gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// The agent may not. Nothing happened.
    #[error("{0}")]
    Refused(String),
    /// The arguments are not what the tool takes. Nothing happened.
    #[error("{field}: {reason}; {remedy}")]
    Arguments {
        /// Which one.
        field: String,
        /// What is wrong.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// It took too long; it may have happened.
    #[error("no result within {0:?}")]
    Timeout(Duration),
    /// It was tried and failed.
    #[error("{0}")]
    Failed(String),
}

impl ToolError {
    /// The argument `field` is wrong.
    pub(crate) fn argument(field: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Arguments { field: field.to_owned(), reason: reason.into(), remedy: remedy.into() }
    }
}

/// A source of tools. Dropping a call's future ends it where that is possible.
pub trait ToolProvider: Send + Sync + fmt::Debug {
    /// The tools there are now, for the model to read. Opens what must be opened first.
    ///
    /// # Errors
    ///
    /// [`ToolError::Failed`] when a server of tools does not answer.
    fn tools(&self) -> BoxFuture<'_, Result<Vec<ToolSpec>, ToolError>>;

    /// Calls a tool; the result is text, or JSON as text.
    ///
    /// # Errors
    ///
    /// [`ToolError`].
    fn call<'a>(
        &'a self,
        caller: &'a Caller,
        tool: &'a str,
        arguments: &'a Value,
    ) -> BoxFuture<'a, Result<String, ToolError>>;
}
