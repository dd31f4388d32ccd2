//! The same door without a log, in a process of its own: this program once more, told to serve.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use caxton::api::rest::{RestOptions, serve_unlogged};
use caxton::engine::{Engine, EngineOptions};
use caxton::telemetry::Telemetry;

/// The flag that makes this program serve.
pub(crate) const FLAG: &str = "--serve-unlogged";

/// A running one; it ends with this value.
pub(crate) struct Bare {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Bare {
    pub(crate) fn start(dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(FLAG)
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: line.trim().parse().unwrap() }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until it is killed, with the threads and the metrics of the product.
pub(crate) fn serve(dir: &Path) {
    let telemetry = Telemetry::install().unwrap();
    let _upkeep = telemetry.start_upkeep().unwrap();
    let engine = Engine::start(&EngineOptions::new(dir), &mut |_| ()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        std::io::stdout().flush().unwrap();
        let options = RestOptions { connections_max: 4_096, ..RestOptions::default() };
        serve_unlogged(listener, engine, options, std::future::pending()).await.unwrap();
    });
}
