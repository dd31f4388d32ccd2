//! All tools together: who may call what, for how long, and how much may come back.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::join_all;
use serde_json::Value;

use super::arguments::shortened;
use super::mcp::McpTools;
use super::names::family;
use super::{Caller, Permissions, ToolError, ToolProvider};
use crate::config::McpServer;
use crate::llm::ToolSpec;
use crate::telemetry::{self, ToolOutcome};

/// Longest text of arguments, in bytes.
const ARGUMENTS_BYTES_MAX: usize = 1 << 20;

/// The tools that an agent may call now.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Offer {
    /// For the model to read.
    pub tools: Vec<ToolSpec>,
    /// What its file allows and is not there.
    pub unavailable: Vec<Unavailable>,
}

/// A tool that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// The name in the agent's file.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Providers of tools by their names: `memory`, `http_client`, `message`, `mcp:SERVER`.
///
/// Nothing is opened before an agent that may use it asks for it.
#[derive(Debug, Clone, Default)]
pub struct Toolbox {
    providers: BTreeMap<String, Arc<dyn ToolProvider>>,
}

impl Toolbox {
    /// A toolbox without tools.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with a further provider; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, name: &str, provider: Arc<dyn ToolProvider>) -> Self {
        self.providers.insert(name.to_owned(), provider);
        self
    }

    /// The same with the tools of these MCP servers. None is opened yet.
    #[must_use]
    pub fn with_servers(self, servers: &[McpServer]) -> Self {
        servers.iter().fold(self, |toolbox, server| {
            let tools = McpTools::new(server.clone());
            toolbox.with(&tools.family(), Arc::new(tools))
        })
    }

    /// The names of the providers.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.providers.keys().map(String::as_str)
    }

    /// Whether there is a provider for `name`, an entry of an agent's file. Opens nothing, so a tool that its MCP
    /// server turns out not to have is known too.
    pub fn knows(&self, name: &str) -> bool {
        self.providers.contains_key(&family(name))
    }

    /// The tools that these permissions allow. Opens what must be opened; what does not open within `timeout` is named
    /// with its reason, and may be there the next time.
    pub async fn offer(&self, permissions: &Permissions, timeout: Duration) -> Offer {
        let mut asked: BTreeMap<String, &str> = BTreeMap::new();
        for name in &permissions.tools {
            asked.entry(family(name)).or_insert(name);
        }
        let ask = asked.into_iter().map(|(family, name)| async move {
            let found = match self.providers.get(&family) {
                Some(provider) => {
                    let found = tokio::time::timeout(timeout, provider.tools()).await;
                    found.unwrap_or(Err(ToolError::Timeout(timeout))).map_err(|error| error.to_string())
                }
                None => Err(self.missing(name)),
            };
            (name, found)
        });
        let mut offer = Offer::default();
        for (name, found) in join_all(ask).await {
            match found {
                Ok(tools) => {
                    offer.tools.extend(tools.into_iter().filter(|tool| permissions.allow(&tool.name)));
                }
                Err(reason) => offer.unavailable.push(Unavailable { name: name.to_owned(), reason }),
            }
        }
        offer
    }

    /// Calls a tool under either of its names; `arguments` is a JSON object as text, empty for none.
    ///
    /// # Errors
    ///
    /// [`ToolError`]; a result larger than the caller's limit is a failure.
    pub async fn call(&self, caller: &Caller, tool: &str, arguments: &str) -> Result<String, ToolError> {
        let family = family(tool);
        let known = self.providers.get(&family);
        let started = Instant::now();
        let result = match known {
            Some(provider) => self.checked(provider.as_ref(), caller, tool, arguments).await,
            None => Err(ToolError::Refused(self.missing(tool))),
        };
        // A model may make names up: they must not become labels.
        let label = if known.is_some() { family.as_str() } else { "unknown" };
        telemetry::tool_called(label, outcome(&result), started.elapsed());
        result
    }

    async fn checked(
        &self,
        provider: &dyn ToolProvider,
        caller: &Caller,
        tool: &str,
        arguments: &str,
    ) -> Result<String, ToolError> {
        let permissions = &caller.permissions;
        if !permissions.allow(tool) {
            return Err(ToolError::Refused(format!(
                "agent {} may not call {}; its file allows {}",
                caller.agent,
                shortened(tool),
                listed(&permissions.tools)
            )));
        }
        let arguments = parsed(arguments)?;
        let call = AssertUnwindSafe(provider.call(caller, tool, &arguments)).catch_unwind();
        let Ok(ended) = tokio::time::timeout(caller.timeout, call).await else {
            return Err(ToolError::Timeout(caller.timeout));
        };
        let result = ended.unwrap_or_else(|_| {
            tracing::error!(tool, agent = %caller.agent, "a tool panicked; its call failed, nothing else");
            Err(ToolError::Failed("the tool broke in the middle; the server's log has the place".to_owned()))
        })?;
        let (bytes, max) = (result.len(), permissions.bytes_max(tool));
        if bytes > max {
            return Err(ToolError::Failed(format!(
                "the result takes {bytes} bytes, the limit is {max}; ask for less"
            )));
        }
        Ok(result)
    }

    fn missing(&self, tool: &str) -> String {
        let names: Vec<String> = self.names().map(str::to_owned).collect();
        format!("there is no tool {}; there are {}", shortened(tool), listed(&names))
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn parsed(text: &str) -> Result<Value, ToolError> {
    if text.trim().is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    if text.len() > ARGUMENTS_BYTES_MAX {
        let reason = format!("take {} bytes, the limit is {ARGUMENTS_BYTES_MAX}", text.len());
        return Err(ToolError::argument("arguments", reason, "shorten them"));
    }
    let wrong = |reason: String| ToolError::argument("arguments", reason, "write {\"name\": value, …}");
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(wrong(format!("must be a JSON object, not {}", shortened(text)))),
        Err(error) => Err(wrong(format!("are not JSON ({error}): {}", shortened(text)))),
    }
}

const fn outcome(result: &Result<String, ToolError>) -> ToolOutcome {
    match result {
        Ok(_) => ToolOutcome::Done,
        Err(ToolError::Refused(_)) => ToolOutcome::Refused,
        Err(ToolError::Arguments { .. }) => ToolOutcome::Arguments,
        Err(ToolError::Timeout(_)) => ToolOutcome::Timeout,
        Err(ToolError::Failed(_)) => ToolOutcome::Failed,
    }
}
