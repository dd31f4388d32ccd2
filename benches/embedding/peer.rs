//! Others that compute the same, in processes of their own.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use caxton_projections::embedding::Embedder;

use crate::{PAIRS, REST, pairs, time};

/// A Python, and a script of `benches/peers` with the name of what it runs.
pub(crate) type Program<'a> = (&'a Path, (&'static str, &'static str));
pub(crate) const ONNXRUNTIME: (&str, &str) = ("onnxruntime_minilm.py", "onnxruntime");
pub(crate) const TORCH: (&str, &str) = ("torch_minilm.py", "PyTorch");

/// The other implementation in a process of its own, which takes its own time.
pub(crate) struct Peer {
    process: Script,
    pub(crate) name: String,
}

/// A Python script that answers lines of JSON.
pub(crate) struct Script {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What it is, by its own words.
    pub(crate) version: String,
}

impl Script {
    pub(crate) fn start(python: &Path, script: &str, arguments: &[&OsStr]) -> Self {
        let script: PathBuf = [env!("CARGO_MANIFEST_DIR"), "benches/peers", script].iter().collect();
        let mut command = Command::new(python);
        command.arg(script).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut script = Self { child, input, output, version: String::new() };
        let version = script.read();
        version["version"].as_str().unwrap().clone_into(&mut script.version);
        script
    }

    fn read(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn ask(&mut self, question: &impl serde::Serialize) -> serde_json::Value {
        writeln!(self.input, "{}", serde_json::to_string(question).unwrap()).unwrap();
        self.read()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Peer {
    pub(crate) fn start(
        (python, (script, name)): Program<'_>,
        model: &Path,
        bits: &str,
        threads: usize,
    ) -> Self {
        let threads = threads.to_string();
        let process = Script::start(python, script, &[model.as_os_str(), bits.as_ref(), threads.as_ref()]);
        let name = format!("{name} {} {bits}", process.version);
        Self { process, name }
    }

    /// Seconds of `model` and of the peer, which computes the same.
    pub(crate) fn pairs(&mut self, model: &dyn Embedder, texts: &[&str]) -> Vec<(f64, f64)> {
        let first: Vec<f64> = serde_json::from_value(self.process.ask(&texts)["first"].clone()).unwrap();
        let ours = model.embed(&texts[..1]).unwrap();
        let cosine: f64 = first.iter().zip(&ours[0]).map(|(a, b)| a * f64::from(*b)).sum();
        // Its 8 bits and ours are rounded at different places.
        assert!(cosine > 0.95, "the peer computes something else: {cosine}");
        let rested = |run: &mut dyn FnMut() -> Duration| {
            std::thread::sleep(REST);
            run()
        };
        let theirs = |peer: &mut Self| {
            let answer = peer.process.ask(&texts);
            Duration::from_secs_f64(answer["seconds"].as_f64().expect("its seconds"))
        };
        pairs(PAIRS, || rested(&mut || time(model, texts)), || rested(&mut || theirs(self)))
    }
}
