//! `mcp_servers`: servers of tools, by command or by URL.

use std::path::Path;
use std::time::Duration;

use super::setting::{DAY, Limits, millis, section};

/// Longest name of a server, in bytes: with it, names of tools must fit those that models take.
const NAME_BYTES_MAX: usize = 32;

section! {
    /// One row of `mcp_servers`: a server that speaks MCP, started by `command` or reached at `url`. Its tools are
    /// `mcp:NAME/TOOL` in agents' files.
    pub struct McpServer {
        /// Its name: 1 to 32 letters, digits and `-`.
        pub name: String = String::new(), Limits::NotEmpty;
        /// The program to start; it speaks MCP on standard input and output.
        pub command: Option<String> = None, Limits::NotEmpty;
        /// Its arguments.
        pub args: Vec<String> = Vec::new();
        /// Variables of its environment: `NAME=value`, or `NAME` for the value that Caxton itself was given, which is
        /// the way for secrets. Beside them it sees PATH, HOME, USER, LANG, TZ and TMPDIR only.
        pub env: Vec<String> = Vec::new();
        /// Where it is reached by streamable HTTP.
        pub url: Option<String> = None, Limits::NotEmpty;
        /// The variable of Caxton's environment that holds the bearer token for `url`.
        pub token_variable: Option<String> = None, Limits::NotEmpty;
        /// Time for it to start, and for one call.
        pub timeout: Duration = Duration::from_secs(30), millis(1, DAY);
    }
}

impl McpServer {
    /// What is wrong with it, each with what to do.
    pub(super) fn faults(&self) -> Vec<(String, &'static str)> {
        let mut faults = Vec::new();
        let mut fault = |message: String, remedy| faults.push((message, remedy));
        let valid = |sign: char| sign.is_ascii_alphanumeric() || sign == '-';
        if self.name.is_empty() {
            fault("the server has no name".to_owned(), "name it");
        } else if self.name.len() > NAME_BYTES_MAX || !self.name.chars().all(valid) {
            let message = format!("{:?} is no name of a server", self.name);
            fault(message, "use 1 to 32 letters, digits and -");
        }
        match (&self.command, &self.url) {
            (Some(_), Some(_)) => fault("command and url are both set".to_owned(), "keep one of them"),
            (None, None) => fault("neither command nor url is set".to_owned(), "set one of them"),
            (None, Some(url)) if !is_web(url) => {
                fault(
                    format!("{url:?} is no URL of a server"),
                    "write http://host/path or https://host/path",
                );
            }
            (None, Some(_)) if !(self.args.is_empty() && self.env.is_empty()) => {
                fault("args and env do not go with url".to_owned(), "leave them out, or set command instead");
            }
            (Some(_), None) if self.token_variable.is_some() => {
                fault("token_variable does not go with command".to_owned(), "use env instead");
            }
            (Some(_), None) | (None, Some(_)) => (),
        }
        if let Some(entry) = self.env.iter().find(|entry| entry.starts_with('=') || entry.contains('\0')) {
            fault(format!("{entry:?} is no variable"), "write NAME=value, or NAME");
        }
        faults
    }

    /// What it may lack where it is started, each with what to do. `is_set`: whether a variable is there.
    pub(crate) fn doubts(&self, is_set: impl Fn(&str) -> bool) -> Vec<(String, &'static str)> {
        let mut doubts = Vec::new();
        if let Some(command) = &self.command
            && command.contains(char::is_whitespace)
            && !Path::new(command).exists()
        {
            let message =
                format!("there is no program {command:?}: command is one program, without arguments");
            doubts.push((message, "write what follows the program into args, as in args: [-m, server]"));
        }
        let passed_on = self.env.iter().filter(|entry| !entry.contains('='));
        for name in self.token_variable.iter().chain(passed_on).filter(|name| !is_set(name)) {
            let message = format!("the variable {name} is not set");
            doubts.push((message, "export it before the server is started, or correct its name"));
        }
        doubts
    }
}

fn is_web(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    use super::super::load_text;
    use super::*;

    #[test]
    fn a_server_is_a_command_or_a_url() {
        let command = || McpServer {
            name: "files".to_owned(),
            command: Some("mcp-files".to_owned()),
            ..Default::default()
        };
        let url = || McpServer {
            name: "web".to_owned(),
            url: Some("https://mcp.example.com/mcp".to_owned()),
            token_variable: Some("TOKEN".to_owned()),
            ..Default::default()
        };
        assert!(command().faults().is_empty() && url().faults().is_empty());
        let text = |text: &str| Some(text.to_owned());
        for (server, words) in [
            (McpServer { name: String::new(), ..command() }, "no name"),
            (McpServer { name: "a_b".to_owned(), ..command() }, "no name of a server"),
            (McpServer { name: "x".repeat(33), ..command() }, "no name of a server"),
            (McpServer { url: text("http://x/"), ..command() }, "both"),
            (McpServer { command: None, ..command() }, "neither"),
            (McpServer { token_variable: text("T"), ..command() }, "token_variable"),
            (McpServer { env: vec!["=x".to_owned()], ..command() }, "no variable"),
            (McpServer { url: text("ftp://x/"), ..url() }, "no URL"),
            (McpServer { url: text("http:///x"), ..url() }, "no URL"),
            (McpServer { args: vec!["x".to_owned()], ..url() }, "args and env"),
        ] {
            let faults = server.faults();
            assert!(faults.len() == 1 && faults[0].0.contains(words), "{words}: {faults:?}");
        }
    }

    #[test]
    fn what_a_server_lacks_here_is_doubtful() {
        let server = |command: &str, env: &[&str]| McpServer {
            command: Some(command.to_owned()),
            env: env.iter().map(|entry| (*entry).to_owned()).collect(),
            ..Default::default()
        };
        let web = McpServer { token_variable: Some("TOKEN".to_owned()), ..Default::default() };
        for (server, words) in [
            (server("python3", &["SET", "UNSET=x"]), &[][..]),
            (server("python3 -m foo", &[]), &["there is no program \"python3 -m foo\""]),
            (server("python3", &["FOO"]), &["the variable FOO is not set"]),
            (web, &["the variable TOKEN is not set"]),
        ] {
            let doubts = server.doubts(|name| name == "SET");
            let told: Vec<&str> =
                doubts.iter().map(|(message, _)| message.split(": ").next().unwrap_or_default()).collect();
            assert_eq!(told, words);
        }
    }

    #[test]
    fn servers_are_rows_of_the_file_and_each_fault_says_which_row() {
        let text = "mcp_servers:\n- name: files\n  command: mcp-files\n  args: [--root, /srv]\n  env: [TOKEN]\n  timeout: 5s\n";
        let loaded = load_text(text).map(|loaded| loaded.config.mcp_servers.0);
        let server = McpServer {
            name: "files".to_owned(),
            command: Some("mcp-files".to_owned()),
            args: vec!["--root".to_owned(), "/srv".to_owned()],
            env: vec!["TOKEN".to_owned()],
            timeout: Duration::from_secs(5),
            ..McpServer::default()
        };
        assert_eq!(loaded.ok(), Some(vec![server]));
        for (text, words) in [
            ("mcp_servers: [{name: a, command: x}, {name: a, command: y}]", "two servers are called a"),
            ("mcp_servers: [{name: a, command: x}, {name: b}]", "row 2: neither command nor url"),
            ("mcp_servers: [{name: a, command: x, timeout: 0s}]", "timeout"),
            ("mcp_servers: [{name: a, comand: x}]", "comand"),
        ] {
            let error = load_text(text).map(|_| ()).map_err(|error| error.to_string());
            assert!(error.as_ref().is_err_and(|error| error.contains(words)), "{text}: {error:?}");
        }
    }
}
