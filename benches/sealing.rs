//! What encryption costs: the same events appended and read without it, under one key, and under a key each.
//!
//! `cargo bench --bench sealing`, or `-- --events 200000`; prints medians of three rounds.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement stops at the first surprise and prints"
)]

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Instant;

use caxton_events::log::{Batch, Encrypt, Filter, Log, LogOptions, Sealing};
use caxton_events::memory::Validity;
use caxton_events::{Clock, Draft, MemoryEvent, MemoryId, Seq, Timestamp};

const BATCH: u64 = 256;
const ROUNDS: usize = 3;

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(1_700_000_000_000_000)
    }
}

fn draw(bytes: &mut [u8]) -> io::Result<()> {
    File::open("/dev/urandom")?.read_exact(bytes)
}

/// One way to write the events: what is encrypted, and over how many scopes they are spread.
struct Way {
    name: &'static str,
    what: Encrypt,
    scopes: u64,
}

fn draft(n: u64, scopes: u64) -> Draft {
    let event = MemoryEvent::ObservationAdded {
        id: MemoryId(n),
        entity: MemoryId(n / 7),
        content: format!(
            "observation {n} says that the {}th of them is about as long as most are: {}",
            n % 97,
            "word ".repeat(20)
        ),
        validity: Validity::default(),
    };
    Draft {
        stream: format!("agent:a{}", n % scopes),
        actor: "ada".to_owned(),
        correlation: None,
        causation: None,
        event: event.into(),
    }
}

/// Events a second: appended, read.
fn run(way: &Way, events: u64) -> (f64, f64) {
    let dir = tempfile::tempdir().unwrap();
    let sealing = (way.what != Encrypt::None).then_some(Sealing { what: way.what, draw });
    let log =
        Log::open(dir.path(), LogOptions { sealing, ..LogOptions::new([7; 16]) }, Arc::new(Still)).unwrap();
    let batches: Vec<Batch> = (0..events / BATCH)
        .map(|batch| Batch::of((batch * BATCH..(batch + 1) * BATCH).map(|n| draft(n, way.scopes)).collect()))
        .collect();
    let count = (batches.len() as u64 * BATCH) as f64;
    let started = Instant::now();
    for batch in batches {
        log.append(vec![batch]).unwrap().remove(0).unwrap();
    }
    let appended = count / started.elapsed().as_secs_f64();
    let started = Instant::now();
    let read = log.reader().scan(Seq::FIRST, &Filter::default()).map(Result::unwrap).count();
    assert_eq!(read as u64, events / BATCH * BATCH);
    let read = count / started.elapsed().as_secs_f64();
    log.close().unwrap();
    (appended, read)
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let events = args.iter().skip_while(|arg| *arg != "--events").nth(1);
    let events = events.map_or(100_000, |count| count.parse().unwrap());
    let ways = [
        Way { name: "not encrypted", what: Encrypt::None, scopes: 4 },
        Way { name: "four keys", what: Encrypt::Agents, scopes: 4 },
        Way { name: "a key for every 4 events", what: Encrypt::Agents, scopes: events / 4 },
    ];
    let mut rounds: Vec<Vec<(f64, f64)>> = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for (way, rounds) in ways.iter().zip(&mut rounds) {
            rounds.push(run(way, events));
        }
    }
    let median = |mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    println!("{events} events of about 200 bytes in batches of {BATCH}, durable, one caller");
    for (way, rounds) in ways.iter().zip(rounds) {
        let (appended, read): (Vec<f64>, Vec<f64>) = rounds.into_iter().unzip();
        println!("{:>26}: {:>9.0} appended/s, {:>9.0} read/s", way.name, median(appended), median(read));
    }
}
