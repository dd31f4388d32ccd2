//! The toolbox as turns see it.

use std::time::Duration;

use futures::future::BoxFuture;

use crate::agents::ports::Tools;
use crate::llm::ToolSpec;
use crate::toolbox::{Caller, Permissions, ToolError, Toolbox};

impl Tools for Toolbox {
    fn offer<'a>(
        &'a self,
        permissions: &'a Permissions,
        within: Duration,
    ) -> BoxFuture<'a, (Vec<ToolSpec>, Vec<String>)> {
        Box::pin(async move {
            let offer = self.offer(permissions, within).await;
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
