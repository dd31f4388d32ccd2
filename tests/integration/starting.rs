//! A server that is asked to stop while it starts.

use std::env;
use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use caxton_projections::embedding::model_files::{self, Finding, Places};
use tempfile::TempDir;

use super::cli::{check, terminate};
use super::program::caxton;

/// How long what must come may take. Only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_mins(1);

/// A server that is not ready yet.
struct Starting {
    child: Child,
    told: Receiver<String>,
    dir: TempDir,
}

impl Starting {
    /// One in `data` of this folder.
    fn begin(dir: TempDir, serve: &mut Command) -> Self {
        serve.args(["--port", "0", "--metrics-port", "off", "--no-progress", "--data-dir"]);
        serve.arg(dir.path().join("data")).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = serve.spawn().unwrap();
        let (tell, told) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Self { child, told, dir }
    }

    /// One that waits for its key, with the pipe that it reads that from, and the key.
    fn without_key() -> (Self, File, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let place = ["--keyword-only", "--data-dir", data.to_str().unwrap()];
        check(&[&place[..], &["memory", "add", "kettle", "it boils"]].concat(), &[]);
        let path = data.join("signing.key");
        let key = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&path).status().unwrap().success());
        let starting = Self::begin(dir, caxton().args(["serve", "--keyword-only"]));
        let (opened, pipe) = mpsc::channel();
        // Open once somebody reads.
        thread::spawn(move || opened.send(File::options().write(true).open(path)));
        let pipe = pipe.recv_timeout(PATIENCE).expect("the start comes to the key").unwrap();
        (starting, pipe, key)
    }

    /// Waits until the server says this.
    fn await_line(&self, says: &str) {
        while !self.told.recv_timeout(PATIENCE).expect(says).contains(says) {}
    }

    /// Sends a signal and waits until the server says this.
    fn signal(&self, says: &str) {
        terminate(self.child.id());
        self.await_line(says);
    }

    /// Ends in order, and was never ready.
    fn ends_in_order(&mut self) {
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        let mut report = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut report).unwrap();
        assert_eq!(report, "");
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const FIRST: &str =
    "stopping: a download is broken off, a log is closed once it is open; a second signal does not wait";

#[test]
fn a_second_signal_ends_a_server_that_starts() {
    let (mut starting, _pipe, _) = Starting::without_key();
    starting.signal(FIRST);
    starting.signal("stopping at once");
    assert_eq!(starting.child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_server_that_is_asked_to_stop_while_it_starts_closes_its_log_and_is_never_ready() {
    let (mut starting, mut pipe, key) = Starting::without_key();
    starting.signal(FIRST);
    pipe.write_all(&key).unwrap();
    // The key ends where the pipe does.
    drop(pipe);
    starting.ends_in_order();
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn a_server_that_is_asked_to_stop_while_it_fetches_the_model_breaks_that_off() {
    let of_all =
        Places { home: None, configured: None, hub_cache: None, ..caxton::model::places(None, None) };
    let of_all = model_files::candidates(&of_all, &model_files::ALL_MINILM_L6_V2);
    if !matches!(model_files::find(&of_all), Finding::Missing) {
        eprintln!("skipped: every server of this machine finds the model");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (bin, home) = (dir.path().join("bin"), dir.path().join("home"));
    fs::create_dir(&bin).unwrap();
    // Whoever waits for this one waits for an hour.
    let python = bin.join("python3");
    fs::write(&python, "#!/bin/sh\nexec sleep 3600\n").unwrap();
    fs::set_permissions(&python, Permissions::from_mode(0o755)).unwrap();
    let usual = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([bin].into_iter().chain(env::split_paths(&usual))).unwrap();
    let mut serve = caxton();
    serve.arg("serve").current_dir(dir.path()).env("HOME", &home).env("PATH", path);
    // The hub is not asked: nobody listens where the way to it leads.
    serve.env("ALL_PROXY", "http://127.0.0.1:1");
    for name in ["VIRTUAL_ENV", "HF_HOME", "HF_HUB_CACHE", "NO_PROXY", "no_proxy"] {
        serve.env_remove(name);
    }
    let mut starting = Starting::begin(dir, &mut serve);
    starting.await_line("asking python3 -m pip");
    starting.signal(FIRST);
    starting.await_line("the download of all-MiniLM-L6-v2 was broken off");
    starting.ends_in_order();
    let left = fs::read_dir(home.join(".cache/caxton/models")).unwrap().count();
    assert_eq!(left, 0);
    assert!(!starting.dir.path().join("data/events.redb").exists(), "the log is not opened any more");
}
