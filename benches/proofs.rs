//! What proofs cost: their size, the time to make one and to check one, over a log of many small events.
//!
//! `cargo bench --bench proofs` writes 10,000,000 events (`--events N`) into `target/proofs` (`--dir DIR`, about 1.3 GB),
//! which takes about a minute, opens the log again and proves 2,000 events (`--proofs N`) at random places and the growth
//! from as many earlier sizes. Making is timed with a page cache of 32 MiB, checking with and without its signature.

#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]
#![allow(clippy::print_stdout, reason = "the figures are what it is run for")]

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_events::log::{Batch, Durability, Evidence, InclusionProof, Log, LogOptions, Reader, Signer};
use caxton_events::memory::Validity;
use caxton_events::{Clock, Draft, MemoryEvent, MemoryId, Seq, Timestamp};

/// Events appended together.
const BATCH: u64 = 4_096;

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(1_795_000_000_000_000)
    }
}

fn draft(n: u64) -> Draft {
    let event = MemoryEvent::ObservationAdded {
        id: MemoryId(n),
        entity: MemoryId(n / 2),
        content: format!("observation number {n}"),
        validity: Validity::default(),
    };
    let (stream, actor) = ("agent:ada".to_owned(), "ada".to_owned());
    Draft { stream, actor, correlation: None, causation: None, event: event.into() }
}

fn write(dir: &Path, events: u64) {
    let options = LogOptions { durability: Durability::Off, ..LogOptions::new([7; 16]) };
    let log = Log::open(dir, options, Arc::new(Noon)).unwrap();
    let mut next = log.head().seq.0;
    while next < events {
        let drafts = (next..(next + BATCH).min(events)).map(draft).collect();
        next = log.append(vec![Batch::of(drafts)]).unwrap().remove(0).unwrap().last.0;
    }
    log.close().unwrap();
}

/// Times of single operations.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn of<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = black_box(work());
        self.0.push(started.elapsed());
        done
    }

    fn print(mut self, what: &str) {
        self.0.sort_unstable();
        let at = |share: usize| self.0[(self.0.len() - 1) * share / 100].as_secs_f64() * 1e6;
        println!("{what:<44} p50 {:>8.1} µs   p99 {:>8.1} µs   max {:>8.1} µs", at(50), at(99), at(100));
    }
}

/// Places spread over the log, the same in each run (xorshift64*).
fn places(count: u64, below: u64) -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..count).map(move |_| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        1 + state.wrapping_mul(0x2545_f491_4f6c_dd1d) % below
    })
}

fn bytes_of(evidence: &Evidence) -> (usize, usize) {
    let text = serde_json::to_string_pretty(evidence).unwrap().len();
    (evidence.path.len() * 32 + evidence.checkpoint.to_string().len(), text)
}

fn measure(reader: &Reader, proofs: u64) {
    let (head, signer) = (reader.head(), Signer::new(reader.log_id(), &[1; 32]));
    let key = signer.public_key();
    let [mut making, mut checking, mut paths, mut growing, mut grown] = <[Times; 5]>::default();
    let (mut largest, mut largest_text) = (0, 0);
    for seq in places(proofs, head.seq.0) {
        let evidence = making.of(|| reader.evidence(Seq(seq), head.seq.0, &signer)).unwrap();
        checking.of(|| evidence.check(Some(&key))).unwrap();
        let proof = InclusionProof { seq: Seq(seq), size: head.seq.0, path: evidence.path.clone() };
        paths.of(|| proof.check(&evidence.event.leaf(), &head)).unwrap();
        let (bytes, text) = bytes_of(&evidence);
        (largest, largest_text) = (largest.max(bytes), largest_text.max(text));
        let growth = growing.of(|| reader.growth(seq, head.seq.0, &signer)).unwrap();
        grown.of(|| growth.check(Some(&key))).unwrap();
    }
    println!("{} events, {} proofs", head.seq.0, proofs);
    println!("largest proof: {largest} bytes of path and signed head, {largest_text} as JSON with its event");
    making.print("make the proof of an event");
    paths.print("check its path");
    checking.print("check event, path and signature");
    growing.print("make a proof of consistency");
    grown.print("check it, with two signatures");
}

fn option(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}

fn main() {
    let number = |name: &str, default| option(name).map_or(default, |value| value.parse().unwrap());
    let dir = option("--dir").map_or_else(|| PathBuf::from("target/proofs"), PathBuf::from);
    write(&dir, number("--events", 10_000_000));
    let reader = Log::open_read_only(&dir).unwrap();
    measure(&reader, number("--proofs", 2_000));
    drop(reader);
    fs::remove_dir_all(&dir).unwrap();
}
