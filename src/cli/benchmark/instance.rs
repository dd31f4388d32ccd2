//! The server that is measured: one of the benchmark's own in a process beside it, on a folder that is thrown away, or one
//! that runs already.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::door::{Ask, Door};
use super::target::is_server;
use crate::cli::args::Common;
use crate::cli::backend::ENDPOINT_FILE;
use crate::cli::failure::{Exit, Failure};
use crate::cli::interrupt::Open;
use crate::telemetry::{ProcessMemory, process_memory_of, process_time_of};

/// Time for a server to be ready; one with a long log takes as long as it takes to fold it.
const START_TIMEOUT: Duration = Duration::from_mins(10);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(2);
/// Lines of its report that are shown when it does not start.
const LINES_SHOWN: usize = 8;

/// What the server is.
pub(super) enum Instance {
    /// One that runs already, at this address.
    Running(String),
    /// One of our own.
    Own(Box<Own>),
}

/// A server in a process of its own.
pub(super) struct Own {
    common: Common,
    /// Agents' files, and what their models answer by.
    setup: Option<PathBuf>,
    /// The folder that is held.
    path: PathBuf,
    held: Arc<Held>,
    /// Ends the process and removes the folder.
    _open: Open,
    url: String,
}

/// What is gone when the benchmark is: at its end, or when a signal ends it.
struct Held(Mutex<Option<(TempDir, Option<Child>)>>);

impl Held {
    fn lock(&self) -> MutexGuard<'_, Option<(TempDir, Option<Child>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the process, while it runs.
    fn process(&self) -> Option<u32> {
        self.lock().as_ref()?.1.as_ref().map(Child::id)
    }

    /// How the process ended, if it did.
    fn ended(&self) -> Option<ExitStatus> {
        self.lock().as_mut()?.1.as_mut()?.try_wait().ok()?
    }

    /// Ends the process, if there is one.
    fn end_process(&self) {
        if let Some((_, child)) = &mut *self.lock()
            && let Some(child) = child.take()
        {
            end(child);
        }
    }

    /// Starts a process: whoever removes what is held waits for it, and ends it.
    fn start(&self, spawn: impl FnOnce() -> Result<Child, Failure>) -> Result<(), Failure> {
        let mut held = self.lock();
        let Some((_, child)) = &mut *held else {
            return Err(Failure::new(Exit::Failed, "it was interrupted"));
        };
        *child = Some(spawn()?);
        Ok(())
    }
}

/// Ends the process and removes the folder.
fn remove(held: &mut Option<(TempDir, Option<Child>)>) {
    if let Some((folder, child)) = held.take() {
        child.into_iter().for_each(end);
        // What could not be removed is in the system's folder for such files, or where the user sees it.
        let _ = folder.close();
    }
}

/// What a process takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) memory: ProcessMemory,
    pub(super) processor: Duration,
}

impl Instance {
    /// The server that was named, or one of our own below `parent`. `prepare` fills its folder before it starts and names the
    /// configuration it is to be started with, where there is one.
    pub(super) fn open(
        common: &Common,
        target: Option<&str>,
        parent: Option<&Path>,
        prepare: &dyn Fn(&Path) -> Result<Option<PathBuf>, Failure>,
    ) -> Result<Self, Failure> {
        if let Some(url) = target {
            is_server("--target", url, common.api_key.as_deref())?;
            return Ok(Self::Running(url.to_owned()));
        }
        let folder = match parent {
            Some(parent) => TempDir::with_prefix_in("caxton-benchmark-", parent),
            None => TempDir::with_prefix("caxton-benchmark-"),
        };
        let folder = folder.map_err(|error| {
            let place = parent.map_or_else(std::env::temp_dir, Path::to_owned);
            Failure::file("write into", &place, &error)
        })?;
        let path = folder.path().to_owned();
        let held = Arc::new(Held(Mutex::new(Some((folder, None)))));
        let removed = Arc::clone(&held);
        let open = Open::closed_by(move || {
            remove(&mut removed.lock());
            String::new()
        });
        let setup = prepare(&path)?;
        let mut own = Own { common: common.clone(), setup, path, held, _open: open, url: String::new() };
        own.start()?;
        Ok(Self::Own(Box::new(own)))
    }

    /// The way to it.
    pub(super) fn door(&self, common: &Common) -> Door {
        match self {
            Self::Running(url) => Door::new(url, common.api_key.clone()),
            Self::Own(own) => Door::new(&own.url, common.api_key.clone()),
        }
    }

    /// Its address, if it is not our own.
    pub(super) fn target(&self) -> Option<String> {
        match self {
            Self::Running(url) => Some(url.clone()),
            Self::Own(_) => None,
        }
    }

    /// What it takes now; `None` of one that is not our own, or where the system does not tell.
    pub(super) fn usage(&self) -> Option<Usage> {
        let Self::Own(own) = self else { return None };
        let id = own.held.process()?;
        Some(Usage { memory: process_memory_of(id)?, processor: process_time_of(id)? })
    }

    /// Bytes of its data directory.
    pub(super) fn disk_bytes(&self) -> Option<u64> {
        let Self::Own(own) = self else { return None };
        Some(bytes_of(&data_dir(&own.path)))
    }

    /// Kills it as a power cut would, starts it again and says how long that took until it was ready. `None` of one that is not
    /// our own.
    pub(super) fn crash(&mut self) -> Result<Option<Duration>, Failure> {
        let Self::Own(own) = self else { return Ok(None) };
        own.held.end_process();
        let started = Instant::now();
        own.start()?;
        Ok(Some(started.elapsed()))
    }
}

impl Own {
    /// Starts the process on the folder and waits until it is ready.
    fn start(&mut self) -> Result<(), Failure> {
        let (data, report) = (data_dir(&self.path), self.path.join("server.log"));
        let endpoint = data.join(ENDPOINT_FILE);
        // One that a killed server left would be taken for the new one's.
        let _ = fs::remove_file(&endpoint);
        self.held.start(|| spawn(&self.common, &data, &report, self.setup.as_deref()))?;
        match ready(&self.held, &endpoint) {
            Ok(url) => self.url = url,
            Err(what) => {
                self.held.end_process();
                let told = fs::read_to_string(&report).unwrap_or_default();
                let lines: Vec<&str> = told.lines().collect();
                let shown = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
                let message = format!("the server to be measured {what}; it said:\n{shown}");
                return Err(Failure::new(Exit::Failed, message));
            }
        }
        lets_in(&Door::new(&self.url, self.common.api_key.clone()))
    }
}

/// Whether a server lets us in: that it is ready it tells everybody, and everything else only those who have a key that its
/// configuration names.
fn lets_in(door: &Door) -> Result<(), Failure> {
    door.json(&Ask::get("/log/head")).map(drop).map_err(|failure| {
        let is_refused = failure.exit == Some(Exit::Refused);
        let remedy = if is_refused { "; give a key that its configuration names with --api-key" } else { "" };
        let message = format!("the server to be measured is ready and does not let us in: {failure}{remedy}");
        failure.told(message)
    })
}

fn end(mut child: Child) {
    // Its folder is thrown away, so there is nothing to be kept.
    let _ = child.kill();
    let _ = child.wait();
}

fn data_dir(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// Starts a server on the data directory `data`, which says what it does in the file `report`.
fn spawn(common: &Common, data: &Path, report: &Path, setup: Option<&Path>) -> Result<Child, Failure> {
    let program = std::env::current_exe().map_err(|error| {
        Failure::new(Exit::Failed, format!("could not find this program itself: {error}"))
    })?;
    let out = File::create(report).map_err(|error| Failure::file("write", report, &error))?;
    let err = out.try_clone().map_err(|error| Failure::file("write", report, &error))?;
    let mut command = Command::new(program);
    command.args(["serve", "--port", "0", "--metrics-port", "off", "--no-progress", "--data-dir"]).arg(data);
    // This process holds the other end as long as it lives, however it ends.
    command.arg("--until-input-closes").stdin(Stdio::piped());
    if let Some(file) = setup.or(common.config.as_deref()) {
        command.arg("--config").arg(file);
    }
    if let Some(preset) = common.preset {
        command.args(["--preset", &preset.to_string()]);
    }
    if let Some(dir) = &common.model_path {
        command.arg("--model-path").arg(dir);
    }
    if common.keyword_only {
        command.arg("--keyword-only");
    }
    for set in &common.set {
        command.arg("--set").arg(set.to_string());
    }
    command.env_remove("CAXTON_URL").env_remove("CAXTON_API_KEY").env_remove("CAXTON_DATA_DIR");
    command.stdout(out).stderr(err);
    command.spawn().map_err(|error| Failure::new(Exit::Failed, format!("could not start a server: {error}")))
}

fn ready(held: &Held, endpoint: &Path) -> Result<String, String> {
    let started = Instant::now();
    while started.elapsed() < START_TIMEOUT {
        if let Some(status) = held.ended() {
            return Err(format!("ended with {status}"));
        }
        if let Ok(url) = fs::read_to_string(endpoint) {
            let url = url.trim().to_owned();
            if Door::new(&url, None).send(&Ask::get("/ready")).is_ok_and(|(status, _)| status == 200) {
                return Ok(url);
            }
        }
        thread::sleep(LOOK);
    }
    Err(format!("was not ready in {} s", START_TIMEOUT.as_secs()))
}

fn bytes_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_of(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::{Door, Exit, lets_in};

    /// A server that lets those in who have this key.
    fn guarded(key: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), mut request) = (stream, [0; 4_096]) else { return };
                let read = stream.read(&mut request).unwrap_or_default();
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let is_in = request.starts_with("GET /api/v1/log/head ")
                    && request.contains(&format!("Bearer {key}"));
                let (status, body) = if is_in {
                    ("200 OK", "{\"seq\":0}")
                } else {
                    ("401 Unauthorized", "{\"code\":\"UNAUTHORIZED\",\"detail\":\"no\"}")
                };
                // Who asked may have gone.
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        url
    }

    #[test]
    fn a_server_that_asks_for_a_key_is_asked_with_it_before_anything_is_measured() {
        let url = guarded("right");
        assert!(lets_in(&Door::new(&url, Some("right".to_owned()))).is_ok());
        for key in [None, Some("wrong".to_owned())] {
            let failure = lets_in(&Door::new(&url, key)).unwrap_err();
            assert_eq!(failure.exit, Some(Exit::Refused), "{failure}");
            let told = failure.to_string();
            assert!(told.contains("UNAUTHORIZED: no") && told.ends_with("with --api-key"), "{told}");
        }
    }
}
