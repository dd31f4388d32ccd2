//! Messages through the network, each durable before it is acknowledged: how many a second, and how long each takes.
//!
//! ```text
//! cargo bench --bench messages -- [--only many|bare|peers] [--rounds 3] [--seconds 2] [--connections 64,128,…]
//!     [--bodies 32] [--dir DIR]
//! ```
//!
//! Three parts, each in rounds that take turns: `many`, bodies of a hundred messages, beside the same handler without a
//! log and beside a door that takes bodies and reads nothing; `bare`, one message a request
//! beside the same handler without a log; `peers`, one message a request beside Redis streams, `UmaDB` and NATS
//! `JetStream`. Messages of 1 KB between 1,000 agents; every server starts over an empty directory, and answers only what
//! is on disk. `PEER_REDIS`, `PEER_UMADB` and `PEER_NATS` say where the programs of the peers are; one that is not named
//! is left out. Figures are medians over the rounds, with the least and the most behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark is a script: it stops at the first surprise and prints what it sees"
)]

#[path = "../crowd/allocator.rs"]
mod allocator;
mod bare;
mod client;
mod grpc;
mod http;
#[path = "../crowd/medium.rs"]
#[allow(dead_code, reason = "each bench uses its part")]
mod medium;
mod payload;
mod peers;
#[path = "../../tests/simulation/server.rs"]
mod server;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::{Run, drive};
use http::{Http, MANY, Shape};
use medium::{at, syncs};
use payload::{BYTES, Payloads};
use peers::Peer;

/// Before it is measured.
const WARM: Duration = Duration::from_millis(500);

struct Options {
    only: Option<String>,
    rounds: usize,
    measured: Duration,
    connections: Vec<usize>,
    /// Connections that send bodies of many messages.
    bodies: usize,
    dir: PathBuf,
}

impl Options {
    fn read() -> Self {
        let mut options = Self {
            only: None,
            rounds: 3,
            measured: Duration::from_secs(2),
            connections: vec![64, 128, 256, 512, 1_024],
            bodies: 32,
            dir: Path::new(env!("CARGO_TARGET_TMPDIR")).join("messages"),
        };
        let mut args = std::env::args().skip(1);
        while let Some(flag) = args.next() {
            let mut value = || args.next().expect("a flag needs a value");
            match flag.as_str() {
                "--only" => options.only = Some(value()),
                "--rounds" => options.rounds = value().parse().unwrap(),
                "--seconds" => options.measured = Duration::from_secs_f64(value().parse().unwrap()),
                "--connections" => {
                    options.connections = value().split(',').map(|count| count.parse().unwrap()).collect();
                }
                "--bodies" => options.bodies = value().parse().unwrap(),
                "--dir" => options.dir = value().into(),
                bare::FLAG => {
                    bare::serve(Path::new(&value()));
                    std::process::exit(0);
                }
                // The bench runner adds flags of its own.
                _ => {}
            }
        }
        options
    }

    fn wants(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }

    /// An empty directory.
    fn fresh(&self) -> PathBuf {
        let _ = fs::remove_dir_all(&self.dir);
        fs::create_dir_all(&self.dir).unwrap();
        self.dir.clone()
    }
}

/// The figures of one contestant, a round each.
#[derive(Default)]
struct Figures {
    runs: Vec<Run>,
}

impl Figures {
    fn show(&self, name: &str, messages: usize) {
        let rates = || self.runs.iter().map(|run| run.rate * messages as f64);
        let part = |part| middle(self.runs.iter().map(|run| run.at(part).as_secs_f64() * 1e3));
        let (least, most) = (rates().fold(f64::MAX, f64::min), rates().fold(0.0, f64::max));
        println!(
            "  {name:<24} {:>9.0}/s [{least:.0}, {most:.0}]  a request: p50 {:.2} ms, p99 {:.2} ms",
            middle(rates()),
            part(500),
            part(990),
        );
    }

    /// The median of the rounds' ratios to `other`.
    fn to(&self, other: &Self) -> f64 {
        middle(self.runs.iter().zip(&other.runs).map(|(mine, other)| mine.rate / other.rate))
    }
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Sends to our own server, and looks whether the log grew by what was acknowledged.
fn ours(
    server: &server::Server,
    options: &Options,
    payloads: &Payloads,
    shape: Shape,
    connections: usize,
) -> Run {
    let address: SocketAddr = server.base().trim_start_matches("http://").parse().unwrap();
    let before = http::head(server);
    let wires = (0..connections).map(|at| Http::new(payloads.of(at), shape)).collect();
    let run = drive(address, wires, WARM, options.measured);
    let each = if shape == Shape::One { 1 } else { MANY as u64 };
    let recorded = http::head(server) - before;
    assert!(recorded >= run.answered * each, "{} answers, {recorded} records", run.answered);
    run
}

fn many(options: &Options, payloads: &Payloads) {
    println!("\nbodies of {MANY} messages over {} connections, through HTTP", options.bodies);
    let shapes = [("JSON array", Shape::Array), ("NDJSON", Shape::Lines)];
    let doors = [("the array without a log", Shape::Array), ("the array unread", Shape::Unread)];
    let (mut logged, mut unlogged) =
        ([(); 2].map(|()| Figures::default()), [(); 2].map(|()| Figures::default()));
    for _ in 0..options.rounds {
        for ((_, shape), figures) in shapes.iter().zip(&mut logged) {
            let server = http::start(&options.fresh());
            figures.runs.push(ours(&server, options, payloads, *shape, options.bodies));
            server.stop();
        }
        for ((_, shape), figures) in doors.iter().zip(&mut unlogged) {
            figures.runs.push(unlogged_door(options, payloads, *shape, options.bodies));
        }
    }
    for ((name, _), figures) in shapes.iter().zip(&logged).chain(doors.iter().zip(&unlogged)) {
        figures.show(name, MANY);
    }
    let [read, unread] = &unlogged;
    println!(
        "  the array: {:.2} of the rate without a log, {:.2} of the rate unread",
        logged[0].to(read),
        logged[0].to(unread)
    );
}

/// Sends to the door that has no log behind it.
fn unlogged_door(options: &Options, payloads: &Payloads, shape: Shape, connections: usize) -> Run {
    let server = bare::Bare::start(&options.fresh());
    let wires = (0..connections).map(|at| Http::new(payloads.of(at), shape)).collect();
    drive(server.address, wires, WARM, options.measured)
}

fn bare_door(options: &Options, payloads: &Payloads) {
    let connections = options.connections[0];
    println!("\none message a request over {connections} connections, through HTTP");
    let (mut logged, mut unlogged) = (Figures::default(), Figures::default());
    for _ in 0..options.rounds {
        let server = http::start(&options.fresh());
        logged.runs.push(ours(&server, options, payloads, Shape::One, connections));
        server.stop();
        unlogged.runs.push(unlogged_door(options, payloads, Shape::One, connections));
    }
    logged.show("caxton", 1);
    unlogged.show("the same without a log", 1);
    println!("  with a log {:.2} of the rate without", logged.to(&unlogged));
}

fn peers(options: &Options, payloads: &Payloads) {
    let mut there = Vec::new();
    for peer in Peer::ALL {
        let (variable, how) = peer.variable();
        match peer.program() {
            Some(program) => {
                println!("\n{}: {}", peer.name(), peers::version(&program));
                there.push((peer, program));
            }
            None => println!("\n{} is left out: {variable} names {how}", peer.name()),
        }
    }
    let counts = &options.connections;
    let mut mine: Vec<Figures> = counts.iter().map(|_| Figures::default()).collect();
    let mut theirs: Vec<Vec<Figures>> =
        there.iter().map(|_| counts.iter().map(|_| Figures::default()).collect()).collect();
    for _ in 0..options.rounds {
        let server = http::start(&options.fresh());
        for (figures, count) in mine.iter_mut().zip(counts) {
            figures.runs.push(ours(&server, options, payloads, Shape::One, *count));
        }
        server.stop();
        for ((peer, program), figures) in there.iter().zip(&mut theirs) {
            let process = peer.start(&options.fresh(), program);
            for (figures, count) in figures.iter_mut().zip(counts) {
                let run = peer.measure(process.address, *count, payloads, (WARM, options.measured));
                figures.runs.push(run);
            }
        }
    }
    for (at, count) in counts.iter().enumerate() {
        println!("\none message a request over {count} connections");
        mine[at].show("caxton", 1);
        for ((peer, _), figures) in there.iter().zip(&theirs) {
            figures[at].show(peer.name(), 1);
            println!("  {:>24} {:.2} times {}", "caxton", mine[at].to(&figures[at]), peer.name());
        }
    }
}

fn main() {
    allocator::set_up();
    let options = Options::read();
    let payloads = Payloads::new();
    println!(
        "messages of {BYTES} bytes, {} agents, {} rounds of {:?}; a bare fdatasync {:.2?}",
        payload::AGENTS,
        options.rounds,
        options.measured,
        at(&syncs(&options.fresh(), 101), 0.5),
    );
    if options.wants("many") {
        many(&options, &payloads);
    }
    if options.wants("bare") {
        bare_door(&options, &payloads);
    }
    if options.wants("peers") {
        peers(&options, &payloads);
    }
    let _ = fs::remove_dir_all(&options.dir);
}
