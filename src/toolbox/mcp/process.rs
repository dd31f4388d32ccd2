//! A child process that speaks MCP: started with little environment, killed with all it started.

use std::env;
use std::io;
use std::process::Stdio;

use process_wrap::tokio::{ChildWrapper, CommandWrap, KillOnDrop};
use rmcp::RoleClient;
use rmcp::transport::async_rw::AsyncRwTransport;
use tokio::io::{AsyncReadExt as _, BufReader};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

use super::MESSAGE_BYTES_MAX;

/// What every child sees of our environment: enough to find programs and the user's files, and no key.
const INHERITED: [&str; 8] = ["PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "SYSTEMROOT", "TEMP"];

/// Bytes of what a child says on standard error that are told in one line of our log.
const STDERR_BYTES_MAX: usize = 4 << 10;

/// The messages from and to a child.
pub(super) type Pipe = AsyncRwTransport<RoleClient, ChildStdout, ChildStdin>;

/// A running child. Dropping it kills it and the processes of its group.
#[derive(Debug)]
pub(super) struct Child(Box<dyn ChildWrapper>);

impl Drop for Child {
    fn drop(&mut self) {
        // The leader is not waited for while this value lives, so its number cannot be another's by now.
        if let Err(error) = self.0.start_kill()
            && error.raw_os_error().is_some()
        {
            tracing::debug!(%error, "an MCP server had ended before it was killed");
        }
    }
}

/// Starts `command`.
pub(super) fn start(
    server: &str,
    command: &str,
    args: &[String],
    env: &[String],
) -> io::Result<(Child, Pipe)> {
    let variables = INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), env::var_os(name)?)));
    let given = env.iter().filter_map(|entry| match entry.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.into())),
        None => Some((entry.clone(), env::var_os(entry)?)),
    });
    let mut wrapped = CommandWrap::with_new(command, |command| {
        command.args(args).env_clear().envs(variables).envs(given);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    });
    wrapped.wrap(KillOnDrop);
    #[cfg(unix)]
    wrapped.wrap(process_wrap::tokio::ProcessGroup::leader());
    let mut child = Child(wrapped.spawn()?);
    let (input, output) = (child.0.stdin().take(), child.0.stdout().take());
    let (Some(input), Some(output)) = (input, output) else {
        return Err(io::Error::other("the child has no standard input or output"));
    };
    if let Some(errors) = child.0.stderr().take() {
        tokio::spawn(tell(server.to_owned(), errors));
    }
    Ok((child, AsyncRwTransport::new(output, input).with_max_line_length(MESSAGE_BYTES_MAX)))
}

/// Tells our log what the child says on standard error, so that it never blocks on it.
async fn tell(server: String, errors: ChildStderr) {
    let mut errors = BufReader::new(errors);
    let mut bytes = vec![0; STDERR_BYTES_MAX];
    while let Ok(count @ 1..) = errors.read(&mut bytes).await {
        let text = String::from_utf8_lossy(&bytes[..count]);
        tracing::debug!(server, text = text.trim_end(), "an MCP server says");
    }
}
