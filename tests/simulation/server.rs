//! A real server in a process of its own, to talk to, to measure and to kill.

#![allow(dead_code, reason = "tests and benchmarks share it, each uses a part")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running `caxton serve`.
pub(crate) struct Server {
    child: Child,
    base: String,
}

impl Server {
    /// Starts a server on free ports and waits until it answers.
    pub(crate) fn start(data_dir: &Path, flags: &[&str]) -> Self {
        Self::start_by(&mut Command::new(env!("CARGO_BIN_EXE_caxton")), data_dir, data_dir, flags)
    }

    /// As [`start`](Self::start), with what runs the program given, and where this process sees the data directory.
    pub(crate) fn start_by(command: &mut Command, data_dir: &Path, seen: &Path, flags: &[&str]) -> Self {
        let endpoint = seen.join("endpoint");
        let _ = std::fs::remove_file(&endpoint);
        let mut child = command
            .arg("serve")
            .args(["--port", "0", "--metrics-port", "0", "--data-dir"])
            .arg(data_dir)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        // A bound against hanging for ever, not a measure.
        let patience = Instant::now() + Duration::from_mins(2);
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended with {status} instead of starting");
            }
            if let Ok(base) = std::fs::read_to_string(&endpoint)
                && let Some((200, _)) = get(base.trim(), "/api/v1/health")
            {
                return Self { child, base: base.trim().to_owned() };
            }
            assert!(Instant::now() < patience, "the server does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Where it answers.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Its memory as the system sees it: the high-water mark, what is private now, what is mapped from files.
    pub(crate) fn memory(&self) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let wanted = ["VmHWM", "RssAnon", "RssFile"];
        let lines = status.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
        lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
    }

    /// Ends it without a chance to clean up.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(self) {
        assert_eq!(self.ended(), Some(0), "SIGTERM did not end the server in order");
    }

    /// Asks it to end, waits, and tells with which exit code it did.
    pub(crate) fn ended(mut self) -> Option<i32> {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.timeout_global(Some(Duration::from_mins(1))).build().into()
}

thread_local! {
    static AGENT: ureq::Agent = agent();
}

/// Status and JSON of a GET, `None` when the transport failed.
pub(crate) fn get(base: &str, path: &str) -> Option<(u16, Value)> {
    get_with(base, path, &[])
}

/// The same with these headers.
pub(crate) fn get_with(base: &str, path: &str, headers: &[(&str, &str)]) -> Option<(u16, Value)> {
    let request = |agent: &ureq::Agent| {
        let request = agent.get(format!("{base}{path}"));
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).call()
    };
    let mut answer = AGENT.with(request).ok()?;
    let status = answer.status().as_u16();
    Some((status, serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()?))
}

/// Status and JSON of a POST, `None` when the transport failed.
pub(crate) fn post(base: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
    let request = |agent: &ureq::Agent| {
        agent.post(format!("{base}{path}")).header("content-type", "application/json").send(body.to_string())
    };
    let mut answer = AGENT.with(request).ok()?;
    let status = answer.status().as_u16();
    Some((status, serde_json::from_str(&answer.body_mut().read_to_string().ok()?).ok()?))
}
