//! Many connections from one thread, each with one request under way, whatever is spoken over them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::watch;

/// What is spoken over one connection.
pub(crate) trait Wire: Send + 'static {
    /// What is sent first, and whether its answer is waited for.
    fn hello(&mut self, _out: &mut Vec<u8>) -> bool {
        false
    }

    /// Puts the next request behind `out`.
    fn request(&mut self, out: &mut Vec<u8>);

    /// Takes what it understands from the front of `input`, puts what the server wants to hear behind `out`, and says
    /// whether the answer is whole. A refusal is a panic: every answer counts as durable.
    fn answered(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> bool;
}

/// What a run showed.
pub(crate) struct Run {
    /// Requests that began and ended within the measured time, a second.
    pub(crate) rate: f64,
    /// Their times, ascending.
    pub(crate) times: Vec<Duration>,
    /// Requests that were answered in all, measured or not.
    pub(crate) answered: u64,
}

impl Run {
    /// The time below which `part` of 1,000 stay.
    pub(crate) fn at(&self, part: usize) -> Duration {
        self.times.get(self.times.len() * part / 1_000).copied().unwrap_or_default()
    }
}

/// Asks through all of `wires` as fast as answers come.
pub(crate) fn drive<W: Wire>(address: SocketAddr, wires: Vec<W>, warm: Duration, measured: Duration) -> Run {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (start, started) = watch::channel(None);
        let mut tasks = Vec::with_capacity(wires.len());
        for mut wire in wires {
            let mut line = Line::open(address).await;
            if wire.hello(&mut line.out) {
                line.exchange(&mut wire).await;
            }
            tasks.push(tokio::spawn(one(line, wire, started.clone(), measured)));
        }
        start.send_replace(Some(Instant::now() + warm));
        let (mut times, mut answered) = (Vec::new(), 0);
        for task in tasks {
            let (measured, all) = task.await.unwrap();
            times.extend(measured);
            answered += all;
        }
        times.sort_unstable();
        Run { rate: times.len() as f64 / measured.as_secs_f64(), times, answered }
    })
}

async fn one(
    mut line: Line,
    mut wire: impl Wire,
    mut started: watch::Receiver<Option<Instant>>,
    measured: Duration,
) -> (Vec<Duration>, u64) {
    let from = started.wait_for(Option::is_some).await.unwrap().unwrap();
    let until = from + measured;
    let (mut times, mut answered) = (Vec::new(), 0);
    loop {
        let asked = Instant::now();
        if asked >= until {
            return (times, answered);
        }
        wire.request(&mut line.out);
        line.exchange(&mut wire).await;
        answered += 1;
        let done = Instant::now();
        if asked >= from && done <= until {
            times.push(done - asked);
        }
    }
}

struct Line {
    stream: TcpStream,
    input: Vec<u8>,
    out: Vec<u8>,
}

impl Line {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, input: Vec::with_capacity(64 << 10), out: Vec::new() }
    }

    /// Sends what is to be sent and reads until the answer is whole.
    async fn exchange(&mut self, wire: &mut impl Wire) {
        loop {
            if !self.out.is_empty() {
                self.stream.write_all(&self.out).await.unwrap();
                self.out.clear();
            }
            let read = self.stream.read_buf(&mut self.input).await.unwrap();
            assert!(read > 0, "the server closed a connection");
            if wire.answered(&mut self.input, &mut self.out) {
                return;
            }
        }
    }
}
