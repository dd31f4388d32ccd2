//! The log read again and checked, beside what reads and hashes plain files.

use std::fs::File;
use std::hint::black_box;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use caxton_events::log::{Filter, Log, Reader};
use caxton_events::{Seq, codec, upcast};
use caxton_tools::replay::{Options, Watch, replay};
use twox_hash::XxHash3_64;

use super::written::{log, observation};
use crate::crowd::ratios::{median, summary};
use crate::crowd::table::Table;

/// Bytes read from a plain file at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Smallest rate of a replay, in events a second.
const RATE_MIN: f64 = 5_000_000.0;

struct Stopwatch(Instant);

impl Watch for Stopwatch {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn wait_until(&self, _at: Duration) {}
}

/// Seconds that each of two takes, in turns, a different one first in each round.
fn pairs(rounds: usize, one: impl Fn(), other: impl Fn()) -> (Vec<f64>, Vec<f64>) {
    let seconds = |run: &dyn Fn()| {
        let started = Instant::now();
        run();
        started.elapsed().as_secs_f64()
    };
    // The page cache is warm from the first on.
    one();
    other();
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if round % 2 == 0 {
            ones.push(seconds(&one));
            others.push(seconds(&other));
        } else {
            others.push(seconds(&other));
            ones.push(seconds(&one));
        }
    }
    (ones, others)
}

/// How many times as fast the first is as the second, with its interval.
fn speed(ones: &[f64], others: &[f64]) -> (f64, f64, f64) {
    let ratios: Vec<f64> = ones.iter().zip(others).map(|(one, other)| other / one).collect();
    summary(&ratios)
}

pub(crate) fn replayed(reader: &Reader, two_threads: bool) -> u64 {
    let options = Options { two_threads, ..Options::default() };
    replay(reader, &options, &Stopwatch(Instant::now()), &mut |_, _| ()).unwrap().events
}

/// `| length: u32 LE | XXH3: u64 LE | kind: u8 | version: u8 | event |`, one behind the other.
fn write_segment(reader: &Reader, path: &Path) {
    let mut file = BufWriter::with_capacity(PIECE_BYTES, File::create(path).unwrap());
    let mut event = Vec::new();
    for record in reader.scan(Seq::FIRST, &Filter::default()) {
        let record = record.unwrap();
        let kind = record.event.kind();
        let draft = caxton_events::Draft {
            stream: record.stream,
            actor: record.actor,
            correlation: record.correlation,
            causation: record.causation,
            event: record.event,
        };
        event.clear();
        codec::encode(&draft, &mut event);
        file.write_all(&(event.len() as u32).to_le_bytes()).unwrap();
        file.write_all(&XxHash3_64::oneshot(&event).to_le_bytes()).unwrap();
        file.write_all(&[kind.tag(), upcast::version(kind)]).unwrap();
        file.write_all(&event).unwrap();
    }
    file.flush().unwrap();
}

/// Reads a segment file: checks every checksum, decodes every event and counts its kind.
fn read_segment(path: &Path) -> u64 {
    let mut file = BufReader::with_capacity(PIECE_BYTES, File::open(path).unwrap());
    let (mut head, mut event, mut kinds) = ([0; 14], Vec::new(), [0_u64; 128]);
    while file.read_exact(&mut head).is_ok() {
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        event.resize(length, 0);
        file.read_exact(&mut event).unwrap();
        let checksum = XxHash3_64::oneshot(&event).to_le_bytes();
        assert_eq!(checksum, head[4..12]);
        let (envelope, payload) = codec::decode_envelope(&event).unwrap();
        let decoded = upcast::decode_borrowed(head[12], head[13], payload).unwrap();
        kinds[usize::from(decoded.kind().tag())] += 1;
        black_box((&envelope, &decoded));
    }
    kinds.iter().sum()
}

/// Replay into nothing and a segment file of the same events.
pub(crate) fn beside_a_segment_file(dir: &Path, events: u64, rounds: usize, table: &mut Table) {
    let (dir, segment) = (dir.join("replay"), dir.join("segment"));
    log(&dir, events, |n| observation(n, 150));
    let reader = Log::open_read_only(&dir).unwrap();
    write_segment(&reader, &segment);
    assert_eq!(read_segment(&segment), events);
    let (mut ones, others) = pairs(
        rounds,
        || assert_eq!(replayed(&reader, false), events),
        || assert_eq!(read_segment(&segment), events),
    );
    let (mean, low, high) = speed(&ones, &others);
    let (mut twos, _) = pairs(rounds, || assert_eq!(replayed(&reader, true), events), || ());
    let rate = |seconds: &mut [f64]| events as f64 / median(seconds);
    let (one, two) = (rate(&mut ones), rate(&mut twos));
    let what = format!("replay of {events} events of 150 B into nothing");
    table.row(&what, format!("{:.2} M/s", one / 1e6), "5 M/s", one >= RATE_MIN);
    table.row(
        "… × a segment file",
        format!("{mean:.2} [{low:.2}, {high:.2}] ({:.2} M/s)", rate(&mut others.clone()) / 1e6),
        "0.9",
        mean >= 0.9,
    );
    table.note("… on two threads", format!("{:.2} M/s", two / 1e6));
    drop(reader);
    let _ = std::fs::remove_dir_all(&dir);
    let _ = std::fs::remove_file(&segment);
}

fn hash_file(path: &Path) -> blake3::Hash {
    let (mut file, mut piece) = (File::open(path).unwrap(), vec![0; PIECE_BYTES]);
    let mut hasher = blake3::Hasher::new();
    loop {
        match file.read(&mut piece).unwrap() {
            0 => return hasher.finalize(),
            length => {
                hasher.update(&piece[..length]);
            }
        }
    }
}

/// `log verify` and BLAKE3 over the same file.
pub(crate) fn beside_blake3(dir: &Path, events: u64, rounds: usize, table: &mut Table) {
    let dir = dir.join("verify");
    for bytes in [200, 1_024] {
        let count = events * 200 / bytes as u64;
        log(&dir, count, |n| observation(n, bytes));
        let reader = Log::open_read_only(&dir).unwrap();
        let file = dir.join("events.redb");
        let (mut ones, mut others) = pairs(
            rounds,
            || assert_eq!(reader.verify(&mut |_| ()).unwrap().events, count),
            || {
                black_box(hash_file(&file));
            },
        );
        let (mean, low, high) = speed(&ones, &others);
        let size = std::fs::metadata(&file).unwrap().len() as f64 / 1e9;
        let speeds = (size / median(&mut ones), size / median(&mut others));
        table.row(
            format!("verify of {count} events of {bytes} B × BLAKE3 over the file"),
            format!("{mean:.2} [{low:.2}, {high:.2}] ({:.2} and {:.2} GB/s)", speeds.0, speeds.1),
            "0.7",
            mean >= 0.7,
        );
    }
    let _ = std::fs::remove_dir_all(&dir);
}
