//! The server that is measured: one of the benchmark's own in a process beside it, on a folder that is thrown away, or one
//! that runs already.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::door::{Ask, Door};
use crate::cli::args::Common;
use crate::cli::backend::ENDPOINT_FILE;
use crate::cli::failure::{Exit, Failure};
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
    folder: TempDir,
    child: Child,
    url: String,
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
        if let Some(url) = target.or(common.url.as_deref()) {
            let instance = Self::Running(url.to_owned());
            let asked = instance.door(common).json(&Ask::get("/health"))?;
            return if asked.get("status").is_some_and(Value::is_string) {
                Ok(instance)
            } else {
                let message = format!(
                    "--target: {url} is no Caxton: its /api/v1/health has no status; name the address of one"
                );
                Err(Failure::new(Exit::Usage, message))
            };
        }
        let folder = match parent {
            Some(parent) => TempDir::with_prefix_in("caxton-benchmark-", parent),
            None => TempDir::with_prefix("caxton-benchmark-"),
        };
        let folder = folder.map_err(|error| {
            let place = parent.map_or_else(std::env::temp_dir, Path::to_owned);
            Failure::file("write into", &place, &error)
        })?;
        let setup = prepare(folder.path())?;
        let (child, url) = start(common, folder.path(), setup.as_deref())?;
        Ok(Self::Own(Box::new(Own { common: common.clone(), setup, folder, child, url })))
    }

    /// The way to it.
    pub(super) fn door(&self, common: &Common) -> Door {
        match self {
            Self::Running(url) => Door::new(url, common.api_key.clone()),
            Self::Own(own) => Door::new(&own.url, None),
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
        let id = own.child.id();
        Some(Usage { memory: process_memory_of(id)?, processor: process_time_of(id)? })
    }

    /// Bytes of its data directory.
    pub(super) fn disk_bytes(&self) -> Option<u64> {
        let Self::Own(own) = self else { return None };
        Some(bytes_of(&data_dir(own.folder.path())))
    }

    /// Kills it as a power cut would, starts it again and says how long that took until it was ready. `None` of one that is not
    /// our own.
    pub(super) fn crash(&mut self) -> Result<Option<Duration>, Failure> {
        let Self::Own(own) = self else { return Ok(None) };
        end(&mut own.child);
        let started = Instant::now();
        (own.child, own.url) = start(&own.common, own.folder.path(), own.setup.as_deref())?;
        Ok(Some(started.elapsed()))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // Its folder is thrown away, so there is nothing to be kept.
    let _ = child.kill();
    let _ = child.wait();
}

fn data_dir(folder: &Path) -> PathBuf {
    folder.join("data")
}

/// Starts a server on the folder and waits until it is ready.
fn start(common: &Common, folder: &Path, setup: Option<&Path>) -> Result<(Child, String), Failure> {
    let (data, report) = (data_dir(folder), folder.join("server.log"));
    let program = std::env::current_exe().map_err(|error| {
        Failure::new(Exit::Failed, format!("could not find this program itself: {error}"))
    })?;
    let out = File::create(&report).map_err(|error| Failure::file("write", &report, &error))?;
    let err = out.try_clone().map_err(|error| Failure::file("write", &report, &error))?;
    let endpoint = data.join(ENDPOINT_FILE);
    // One that a killed server left would be taken for the new one's.
    let _ = fs::remove_file(&endpoint);
    let mut command = Command::new(program);
    command.args(["serve", "--port", "0", "--metrics-port", "off", "--no-progress", "--data-dir"]).arg(&data);
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
    command.env_remove("CAXTON_URL").env_remove("CAXTON_API_KEY").env_remove("CAXTON_DATA_DIR");
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    let mut child = command
        .spawn()
        .map_err(|error| Failure::new(Exit::Failed, format!("could not start a server: {error}")))?;
    match ready(&mut child, &endpoint) {
        Ok(url) => Ok((child, url)),
        Err(what) => {
            end(&mut child);
            let told = fs::read_to_string(&report).unwrap_or_default();
            let lines: Vec<&str> = told.lines().collect();
            let shown = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
            Err(Failure::new(Exit::Failed, format!("the server to be measured {what}; it said:\n{shown}")))
        }
    }
}

fn ready(child: &mut Child, endpoint: &Path) -> Result<String, String> {
    let started = Instant::now();
    while started.elapsed() < START_TIMEOUT {
        if let Ok(Some(status)) = child.try_wait() {
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
