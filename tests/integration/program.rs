//! The real program as a server of its own process, with its metrics.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::client::{Ask, Reply};

/// A running `caxton serve`; it is ended when dropped.
pub(crate) struct Program {
    child: Child,
    /// Where its API is.
    pub(crate) address: SocketAddr,
    metrics: Option<SocketAddr>,
    /// What it printed until it was ready.
    pub(crate) report: String,
    // Held open: the server may still print.
    out: BufReader<ChildStdout>,
    dir: TempDir,
}

/// The flags that give a server free ports and no model, whatever its file says.
const ANYWHERE: &[&str] = &["--port", "0", "--metrics-port", "0", "--keyword-only"];

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
        Self::in_dir(TempDir::new().unwrap(), config, ANYWHERE)
    }

    /// The same in a directory that may be in use for longer; `DIR` in the file is that directory.
    pub(crate) fn again(dir: TempDir, config: &str) -> Self {
        Self::in_dir(dir, config, ANYWHERE)
    }

    /// The same with these flags and no others.
    pub(crate) fn in_dir(dir: TempDir, config: &str, flags: &[&str]) -> Self {
        let file = dir.path().join("caxton.yaml");
        std::fs::write(&file, config.replace("DIR", dir.path().to_str().unwrap())).unwrap();
        let log = std::fs::File::create(dir.path().join("stderr")).unwrap();
        let mut child = caxton()
            .args(["serve", "--config"])
            .arg(&file)
            .args(flags)
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut report = String::new();
        // The last line that is always there.
        while !report.lines().any(|line| line.starts_with("  log ")) {
            let read = out.read_line(&mut report).unwrap();
            let told = std::fs::read_to_string(dir.path().join("stderr")).unwrap();
            assert!(read > 0, "the server ended: {report}{told}");
        }
        let address = |name: &str| {
            let line = report.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
            let rest = line.split("http://").nth(1)?;
            rest.split('/').next().unwrap().parse().ok()
        };
        let (api, metrics) = (address("REST").unwrap(), address("metrics"));
        Self { child, address: api, metrics, report, out, dir }
    }

    /// Where it keeps everything.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What it told on standard error.
    pub(crate) fn told(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stderr")).unwrap()
    }

    /// Whether its report says that a key changes nothing. It may come after what was waited for.
    pub(crate) fn told_of_no_effect(mut self, key: &str) -> bool {
        let mut report = std::mem::take(&mut self.report);
        super::cli::terminate(self.child.id());
        self.out.read_to_string(&mut report).unwrap();
        report.lines().any(|line| line.contains("no effect") && line.contains(key))
    }

    /// A file of the system about the process, as in `maps`.
    pub(crate) fn proc(&self, name: &str) -> String {
        std::fs::read_to_string(Path::new("/proc").join(self.child.id().to_string()).join(name)).unwrap()
    }

    /// How many of its threads have a name that begins so.
    pub(crate) fn threads_like(&self, name: &str) -> usize {
        self.tasks(|comm| comm.starts_with(name)).len()
    }

    /// The system's numbers of its threads of this name.
    pub(crate) fn threads(&self, name: &str) -> Vec<u32> {
        self.tasks(|comm| comm == name)
    }

    fn tasks(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<u32> {
        let tasks = Path::new("/proc").join(self.child.id().to_string()).join("task");
        let tasks = std::fs::read_dir(tasks).unwrap().map(|task| task.unwrap());
        // A thread may end meanwhile.
        let named = tasks.filter(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| is_wanted(comm.trim()))
        });
        named.map(|task| task.file_name().to_str().unwrap().parse().unwrap()).collect()
    }

    /// Ends it in order and gives its directory back.
    pub(crate) fn leave(mut self) -> TempDir {
        super::cli::terminate(self.child.id());
        assert!(self.child.wait().unwrap().success(), "{}", self.told());
        std::mem::replace(&mut self.dir, TempDir::new().unwrap())
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
        let reply = Ask::new(self.metrics.unwrap(), "GET", "/metrics").send().expect(200);
        String::from_utf8(reply.body).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
