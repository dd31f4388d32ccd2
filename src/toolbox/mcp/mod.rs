//! Tools of MCP servers, over standard input and output or streamable HTTP.
//!
//! What a server sends is somebody else's text: it is bounded, and a server that hangs, talks nonsense or dies fails the
//! call it was asked for and nothing else.
//!
//! Reading order: [`McpTools`] (the provider), `connection` (start, death, rest), `process` (children).

mod connection;
mod process;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rmcp::ServiceError;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ResourceContents, Tool,
};
use serde_json::Value;

use self::connection::{Connection, told};
use super::arguments::{cut, shortened};
use super::names::{self, of_server};
use super::{Caller, ToolError, ToolProvider};
use crate::config::McpServer;
use crate::llm::ToolSpec;

/// Longest message of a server, in bytes; a longer one is dropped, and the call that waits for it times out.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Longest description of a tool that a model reads, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 4 << 10;
/// Longest schema of a tool's arguments, in bytes; a tool with a longer one is not offered.
const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// What of a server's error is told, in bytes.
const ERROR_BYTES_MAX: usize = 1 << 10;
/// Room for the note that a result was cut.
const NOTE_BYTES_MAX: usize = 64;
/// How long a start takes until turns do without the server's tools and no longer wait for them.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// The tools of one MCP server. It is opened at its first use and killed when this is dropped.
#[derive(Debug)]
pub struct McpTools {
    connection: Arc<Connection>,
    start_patience: Duration,
}

impl McpTools {
    /// The tools of `server`. Nothing is opened yet.
    pub fn new(server: McpServer) -> Self {
        Self { connection: Arc::new(Connection::new(server)), start_patience: START_PATIENCE }
    }

    /// The name of this provider in a [`Toolbox`](super::Toolbox): `mcp:SERVER`.
    pub fn family(&self) -> String {
        names::of(&self.connection.server.name)
    }

    /// What a call is told whose server went away. Only one that Caxton starts is started again.
    fn closed(&self) -> String {
        let again = if self.connection.server.command.is_some() { "started" } else { "connected to" };
        format!("died in the middle of the call; it is {again} again when it is needed")
    }

    async fn ask(&self, caller: &Caller, tool: &str, arguments: &Value) -> Result<String, ToolError> {
        let running = self.connection.running().await?;
        let tools = running.tools().await.map_err(|reason| self.connection.failed(&reason))?;
        let server = &self.connection.server.name;
        let asked = names::model_name(tool);
        let Some(found) = tools.iter().find(|one| of_server(server, &one.name) == asked) else {
            let known: Vec<&str> = tools.iter().map(|tool| tool.name.as_ref()).collect();
            let (tool, known) = (shortened(tool), shortened(&known.join(", ")));
            return Err(ToolError::Refused(format!(
                "MCP server {server} has no tool {tool}; it has {known}"
            )));
        };
        let mut params = CallToolRequestParams::new(found.name.clone());
        if let Value::Object(members) = arguments {
            params = params.with_arguments(members.clone());
        }
        let timeout = self.connection.server.timeout.min(caller.timeout);
        // A request that is dropped tells the server so.
        let ended = tokio::time::timeout(timeout, running.peer().call_tool_once(params)).await;
        match ended.map_err(|_| ToolError::Timeout(timeout))? {
            Ok(CallToolResponse::Complete(result)) => {
                self.connection.worked();
                let text = result_text(&result, caller.permissions.result_bytes_max);
                let clean = |text: String| self.connection.without_secrets(&text);
                match text {
                    Err(ToolError::Failed(text)) => Err(ToolError::Failed(clean(text))),
                    text => text.map(clean),
                }
            }
            Ok(_) => Err(self.connection.failed("asks for what agents cannot give: input, or time")),
            Err(ServiceError::TransportClosed) => Err(self.connection.failed(&self.closed())),
            Err(error) => {
                let text = told(&error);
                Err(self.connection.failed(&format!("failed: {}", cut(&text, ERROR_BYTES_MAX))))
            }
        }
    }
}

impl ToolProvider for McpTools {
    fn tools(&self) -> BoxFuture<'_, Result<Vec<ToolSpec>, ToolError>> {
        Box::pin(async {
            if let Some(seconds) = self.connection.has_been_starting(self.start_patience) {
                return Err(self.connection.failed(&format!("has been starting for {seconds} s")));
            }
            let running = self.connection.running().await?;
            let timeout = self.connection.server.timeout;
            let tools = tokio::time::timeout(timeout, running.tools()).await;
            let tools = tools.map_err(|_| ToolError::Timeout(timeout))?;
            let tools = tools.map_err(|reason| self.connection.failed(&reason))?;
            let server = &self.connection.server.name;
            let mut specs: Vec<ToolSpec> = tools.iter().filter_map(|tool| spec(server, tool)).collect();
            specs.sort_by(|a, b| a.name.cmp(&b.name));
            specs.dedup_by(|a, b| a.name == b.name);
            Ok(specs)
        })
    }

    fn call<'a>(
        &'a self,
        caller: &'a Caller,
        tool: &'a str,
        arguments: &'a Value,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        Box::pin(self.ask(caller, tool, arguments))
    }
}

fn spec(server: &str, tool: &Tool) -> Option<ToolSpec> {
    let parameters = Value::Object((*tool.input_schema).clone());
    if parameters.to_string().len() > SCHEMA_BYTES_MAX {
        tracing::warn!(server, tool = %tool.name, "a tool is not offered: the schema of its arguments is too long");
        return None;
    }
    let description = tool.description.as_deref().or(tool.title.as_deref()).unwrap_or_default();
    let description = cut(description, DESCRIPTION_BYTES_MAX).to_owned();
    Some(ToolSpec { name: of_server(server, &tool.name), description, parameters })
}

/// What a call gave, as text of at most `bytes`.
fn result_text(result: &CallToolResult, bytes: usize) -> Result<String, ToolError> {
    let mut text = String::new();
    for block in &result.content {
        if !text.is_empty() {
            text.push('\n');
        }
        write_block(&mut text, block);
    }
    if text.is_empty()
        && let Some(structured) = &result.structured_content
    {
        text = structured.to_string();
    }
    if text.len() > bytes {
        let all = text.len();
        text.truncate(cut(&text, bytes.saturating_sub(NOTE_BYTES_MAX)).len());
        let _ = write!(text, "\n[cut: {} of {all} bytes]", text.len());
    }
    if result.is_error == Some(true) { Err(ToolError::Failed(text)) } else { Ok(text) }
}

/// Text as it is; of everything else, what it would be.
fn write_block(text: &mut String, block: &ContentBlock) {
    let _ = match block {
        ContentBlock::Text(block) => write!(text, "{}", block.text),
        ContentBlock::Image(block) => {
            write!(text, "[{} of {} bytes in base 64]", block.mime_type, block.data.len())
        }
        ContentBlock::Audio(block) => {
            write!(text, "[{} of {} bytes in base 64]", block.mime_type, block.data.len())
        }
        ContentBlock::Resource(block) => match &block.resource {
            ResourceContents::TextResourceContents { text: inner, .. } => write!(text, "{inner}"),
            ResourceContents::BlobResourceContents { uri, blob, .. } => {
                write!(text, "[{uri} of {} bytes in base 64]", blob.len())
            }
            _ => write!(text, "[a resource]"),
        },
        ContentBlock::ResourceLink(link) => write!(text, "[{}]", link.uri),
        _ => write!(text, "[something else]"),
    };
}
