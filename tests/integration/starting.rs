//! A server that is asked to stop while it starts.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::cli::{check, terminate};
use super::program::caxton;

/// How long what must come may take. Only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_mins(1);

/// A server whose start waits for its key, which is read from a pipe.
struct Starting {
    child: Child,
    told: Receiver<String>,
    pipe: File,
    key: Vec<u8>,
    _dir: TempDir,
}

impl Starting {
    fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let place = ["--keyword-only", "--data-dir", data.to_str().unwrap()];
        check(&[&place[..], &["memory", "add", "kettle", "it boils"]].concat(), &[]);
        let path = data.join("signing.key");
        let key = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&path).status().unwrap().success());
        let mut serve = caxton();
        serve.arg("serve").args(place).args(["--port", "0", "--metrics-port", "off"]);
        let mut child = serve.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (tell, told) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let (opened, pipe) = mpsc::channel();
        // Open once somebody reads.
        thread::spawn(move || opened.send(File::options().write(true).open(path)));
        let pipe = pipe.recv_timeout(PATIENCE).expect("the start comes to the key").unwrap();
        Self { child, told, pipe, key, _dir: dir }
    }

    /// Sends a signal and waits until the server says this.
    fn signal(&self, says: &str) {
        terminate(self.child.id());
        while !self.told.recv_timeout(PATIENCE).expect(says).contains(says) {}
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const FIRST: &str = "stopping as soon as the log is open; a second signal does not wait";

#[test]
fn a_second_signal_ends_a_server_that_starts() {
    let mut starting = Starting::begin();
    starting.signal(FIRST);
    starting.signal("stopping at once");
    assert_eq!(starting.child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_server_that_is_asked_to_stop_while_it_starts_closes_its_log_and_is_never_ready() {
    let mut starting = Starting::begin();
    starting.signal(FIRST);
    let Starting { pipe, key, .. } = &mut starting;
    pipe.write_all(key).unwrap();
    // The key ends where the pipe does.
    starting.pipe = File::open("/dev/null").unwrap();
    assert_eq!(starting.child.wait().unwrap().code(), Some(0));
    let mut report = String::new();
    starting.child.stdout.take().unwrap().read_to_string(&mut report).unwrap();
    assert_eq!(report, "");
}
