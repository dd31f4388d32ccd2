//! `caxton corpus debian | python`: what this machine knows about its packages, as a file for `memory import`.

use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use caxton_tools::corpus::{Corpus, Package, debian, python};
use serde_json::json;

use super::args::{Common, CorpusCommand};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::progress::Progress;
use super::transfer::{input, is_dash, is_free, write_out};

/// Size of the text that `apt-cache dumpavail` prints, roughly, in bytes: the end of the bar.
const DUMP_BYTES: u64 = 50_000_000;

/// Runs a command that makes real input.
pub(super) fn run(command: &CorpusCommand, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let (CorpusCommand::Debian { out: file, force, .. } | CorpusCommand::Python { out: file, force, .. }) =
        command;
    // Before the packages are read, which takes a while.
    is_free(file, *force)?;
    let (packages, limit) = match command {
        CorpusCommand::Debian { from, limit, .. } => {
            let mut progress = Progress::new("reading packages", "bytes", !common.no_progress);
            (debian_packages(from.as_deref(), &mut progress)?, *limit)
        }
        CorpusCommand::Python { from, limit, .. } => {
            let folders = if from.is_empty() { site_packages()? } else { from.clone() };
            let packages = python::read(&folders).map_err(|error| Failure::of(Exit::Failed, &error))?;
            (packages, *limit)
        }
    };
    if packages.is_empty() {
        let message =
            "no package descriptions were found; run `apt-get update` first, or name the place with --from";
        return Err(Failure::new(Exit::NotFound, message));
    }
    let corpus = Corpus::new(packages, limit);
    write_out(file, |out| corpus.write_jsonl(out))?;
    if is_dash(file) {
        return Ok(());
    }
    if out.is_json() {
        return out.json(&json!({ "file": file, "size": corpus.size() }));
    }
    out.line(format_args!("wrote {} to {}", corpus.size(), file.display()))
}

fn debian_packages(from: Option<&Path>, progress: &mut Progress) -> Result<Vec<Package>, Failure> {
    if let Some(path) = from {
        return debian::read(BufReader::new(Counted { inner: input(path)?, bytes: 0, progress }))
            .map_err(|error| Failure::file("read", path, &error));
    }
    let missing = |error: std::io::Error| {
        let message = format!("could not run apt-cache: {error}; this needs a Debian system, or --from FILE");
        Failure::new(Exit::NotFound, message)
    };
    let mut apt = Command::new("apt-cache")
        .arg("dumpavail")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    let text = apt.stdout.take().ok_or_else(|| missing(std::io::ErrorKind::BrokenPipe.into()))?;
    let packages =
        debian::read(BufReader::new(Counted { inner: text, bytes: 0, progress })).map_err(missing)?;
    let status = apt.wait().map_err(missing)?;
    if status.success() {
        return Ok(packages);
    }
    Err(Failure::new(Exit::Failed, format!("apt-cache dumpavail ended with {status}")))
}

/// A reader that moves a bar.
struct Counted<'a, R> {
    inner: R,
    bytes: u64,
    progress: &'a mut Progress,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        self.progress.set(self.bytes, DUMP_BYTES);
        Ok(count)
    }
}

/// The folders where python3 looks for distributions.
fn site_packages() -> Result<Vec<PathBuf>, Failure> {
    let output = Command::new("python3").args(["-c", "import sys; print('\\n'.join(sys.path))"]).output();
    let output = output.map_err(|error| {
        Failure::new(Exit::NotFound, format!("could not run python3: {error}; name a folder with --from DIR"))
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter(|line| !line.is_empty()).map(PathBuf::from).collect())
}
