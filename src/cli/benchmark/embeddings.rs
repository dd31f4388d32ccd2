//! `benchmark embeddings`: texts to vectors, one at a time and in batches.

use std::time::Duration;

use caxton_tools::benchmark::Target;
use serde_json::{Value, json};

use super::door::{Ask, Door, code};
use super::load::{Pacing, Refused, Work};
use super::record::{latencies, rate};
use super::run::{Run, graded};
use super::words::Words;
use crate::cli::args::BenchmarkEmbeddings;
use crate::cli::failure::{Exit, Failure};

/// Texts that are embedded alone.
const ALONE: u64 = 500;

/// Texts in a request.
struct Texts {
    batch: u64,
    total: u64,
    /// So that no text comes twice in a run: an answer that was kept would be measured.
    from: u64,
    words: Words,
}

impl Texts {
    fn rows(&self, number: u64) -> std::ops::Range<u64> {
        number * self.batch..((number + 1) * self.batch).min(self.total)
    }
}

impl Work for Texts {
    fn ask(&self, number: u64) -> Ask {
        let texts: Vec<String> =
            self.rows(number).map(|row| self.words.sentence(self.from + row, 77)).collect();
        Ask::post("/embeddings", &json!({ "model": "all-MiniLM-L6-v2", "input": texts }))
    }

    fn things(&self, number: u64) -> u64 {
        let rows = self.rows(number);
        rows.end - rows.start
    }

    fn judge(&self, number: u64, status: u16, body: &[u8]) -> Result<(), String> {
        if status != 200 {
            return Err(code(status, body));
        }
        let value: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let count = value.get("data").and_then(Value::as_array).map_or(0, Vec::len) as u64;
        if count == self.things(number) { Ok(()) } else { Err(format!("{count} vectors came back")) }
    }

    fn act(&self, door: &Door, _line: u64, number: u64) -> Result<(), Refused> {
        let (status, body) = door.send_at_root(&self.ask(number), "/v1").map_err(Refused::Silence)?;
        self.judge(number, status, &body).map_err(Refused::Answer)
    }
}

/// Runs it.
pub(super) fn run(run: &mut Run<'_>, what: &BenchmarkEmbeddings) -> Result<(), Failure> {
    if run.keyword_only()? {
        let message = "the server has no embedding model; start it without --keyword-only";
        return Err(Failure::new(Exit::Usage, message));
    }
    let within = what.duration.unwrap_or(Duration::MAX);
    let alone = what.total_embeddings.min(ALONE);
    let words = run.words;
    let single = Texts { batch: 1, total: alone, from: 1 << 40, words };
    let found = run.part("embedding", &single, Pacing::Closed { operations: alone, within }, 1)?;
    graded(run, &found, Target::EMBEDDING_MS);
    let many = Texts { batch: what.batch_size, total: what.total_embeddings, from: 0, words };
    let operations = what.total_embeddings.div_ceil(what.batch_size);
    let found =
        run.part("batch", &many, Pacing::Closed { operations, within }, usize::from(what.parallel_threads))?;
    run.figure(rate(&found, "embeddings/s"));
    if let Some((p50, p99)) = latencies(&found) {
        run.figure(p50);
        run.figure(p99);
    }
    run.failures(&found);
    run.resident();
    Ok(())
}
