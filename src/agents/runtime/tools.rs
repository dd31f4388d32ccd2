//! The toolbox as turns see it.

use std::time::Duration;

use futures::future::BoxFuture;

use crate::agents::ports::Tools;
use crate::llm::ToolSpec;
use crate::toolbox::{Caller, Permissions, ToolError, Toolbox};

/// Time for tools to open; a turn bounds it by its own.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

impl Tools for Toolbox {
    fn offer<'a>(&'a self, permissions: &'a Permissions) -> BoxFuture<'a, (Vec<ToolSpec>, Vec<String>)> {
        Box::pin(async move {
            let offer = self.offer(permissions, OPEN_TIMEOUT).await;
            let missing = offer.unavailable.into_iter().map(|one| format!("{}: {}", one.name, one.reason));
            (offer.tools, missing.collect())
        })
    }

    fn call<'a>(
        &'a self,
        caller: &'a Caller,
        tool: &'a str,
        arguments: &'a str,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        Box::pin(self.call(caller, tool, arguments))
    }
}
