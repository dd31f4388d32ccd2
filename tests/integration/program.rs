//! The real program as a server of its own process, with its metrics.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::client::{Ask, Reply};

/// A running `caxton serve`; it is ended when dropped.
pub(crate) struct Program {
    child: Child,
    /// Where its API is.
    pub(crate) address: SocketAddr,
    metrics: SocketAddr,
    // Held open: the server may still print.
    _out: BufReader<ChildStdout>,
    _dir: TempDir,
}

/// A command of the program, deaf to the environment of whoever runs the tests.
pub(crate) fn caxton() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caxton"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CAXTON_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

impl Program {
    /// Starts with this configuration file, on free ports and without a model, and waits until it is ready.
    pub(crate) fn start(config: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("caxton.yaml");
        std::fs::write(&file, config).unwrap();
        let mut child = caxton()
            .args(["serve", "--port", "0", "--metrics-port", "0", "--keyword-only", "--config"])
            .arg(&file)
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut report = String::new();
        // The last line that is always there.
        while !report.lines().any(|line| line.starts_with("  log ")) {
            assert!(out.read_line(&mut report).unwrap() > 0, "the server ended: {report}");
        }
        let address = |name: &str| {
            let line = report.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
            let rest = line.split("http://").nth(1).unwrap();
            rest.split('/').next().unwrap().parse().unwrap()
        };
        let (api, metrics) = (address("REST"), address("metrics"));
        Self { child, address: api, metrics, _out: out, _dir: dir }
    }

    pub(crate) fn ask(&self, method: &str, path: &str) -> Ask {
        Ask::new(self.address, method, &format!("/api/v1{path}"))
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask("GET", path).send()
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask("POST", path).json(body).send()
    }

    /// The metrics as Prometheus reads them.
    pub(crate) fn metrics(&self) -> String {
        let reply = Ask::new(self.metrics, "GET", "/metrics").send().expect(200);
        String::from_utf8(reply.body).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
