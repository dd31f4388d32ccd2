//! `benchmark memory`: a memory of some size is written, and asked.

use std::time::Duration;

use serde_json::json;

use super::door::Ask;
use super::load::{Pacing, Work};
use super::run::{Run, graded};
use super::words::{self, Words};
use crate::cli::args::BenchmarkMemory;
use crate::cli::failure::Failure;
use caxton_tools::benchmark::{Better, Figure, Target};

/// Seconds by which the wait for the index must differ to count: mostly there is none.
const INDEXED_LEAST_SECONDS: f64 = 0.1;
/// Rows that go into one request.
const ROWS: u64 = 250;
/// The agent that it all belongs to.
const AGENT: &str = "agent_id=benchmark";
/// Observations of each entity.
const OBSERVATIONS: u64 = 3;
/// Bytes on disk of an entity with its observations and vectors, and of a relation; measured, and rounded up.
const DISK_BYTES: (u64, u64) = (9_000, 900);

/// Bytes that a run takes on disk, roughly.
pub(super) fn disk_bytes(entities: u64, relations: u64) -> u64 {
    entities * DISK_BYTES.0 + relations * DISK_BYTES.1
}

/// Entities with observations, many in a request.
struct Entities {
    count: u64,
    words: Words,
}

/// Relations between them.
struct Relations {
    count: u64,
    entities: u64,
    words: Words,
}

/// Requests for so many rows.
const fn requests(rows: u64) -> u64 {
    rows.div_ceil(ROWS)
}

/// Rows of request `number`.
fn rows(count: u64, number: u64) -> std::ops::Range<u64> {
    number * ROWS..((number + 1) * ROWS).min(count)
}

/// Every line of the answer must be one of success.
fn judge_lines(status: u16, body: &[u8], rows: u64) -> Result<(), String> {
    if status != 200 {
        return Err(super::door::code(status, body));
    }
    let text = String::from_utf8_lossy(body);
    let bad = text.lines().find(|line| line.contains("\"status\":\"failed\""));
    let count = text.lines().filter(|line| !line.trim().is_empty()).count() as u64;
    match bad {
        Some(line) => Err(format!("refused: {}", line.chars().take(160).collect::<String>())),
        None if count < rows => Err(format!("{count} of {rows} rows were answered")),
        None => Ok(()),
    }
}

impl Work for Entities {
    fn ask(&self, number: u64) -> Ask {
        let mut body = Vec::new();
        for row in rows(self.count, number) {
            let observations: Vec<String> =
                (0..OBSERVATIONS).map(|salt| self.words.sentence(row, salt)).collect();
            let line = json!({
                "entity_name": self.words.name(row), "entity_type": words::kind(row), "observations": observations,
            });
            body.extend_from_slice(line.to_string().as_bytes());
            body.push(b'\n');
        }
        Ask::lines(format!("/memory/entities/batch?{AGENT}"), body)
    }

    fn things(&self, number: u64) -> u64 {
        let rows = rows(self.count, number);
        rows.end - rows.start
    }

    fn judge(&self, number: u64, status: u16, body: &[u8]) -> Result<(), String> {
        judge_lines(status, body, self.things(number))
    }
}

impl Work for Relations {
    fn ask(&self, number: u64) -> Ask {
        let mut body = Vec::new();
        for row in rows(self.count, number) {
            let from = words::mixed(row) % self.entities;
            // Another one, so that nothing is related to itself.
            let to = (from + 1 + words::mixed(row ^ 0xff) % (self.entities - 1)) % self.entities;
            let line = json!({
                "from_entity": self.words.name(from), "to_entity": self.words.name(to),
                "relation_type": format!("knows_{}", row % 9),
            });
            body.extend_from_slice(line.to_string().as_bytes());
            body.push(b'\n');
        }
        Ask::lines(format!("/memory/relations/batch?{AGENT}"), body)
    }

    fn things(&self, number: u64) -> u64 {
        let rows = rows(self.count, number);
        rows.end - rows.start
    }

    fn judge(&self, number: u64, status: u16, body: &[u8]) -> Result<(), String> {
        judge_lines(status, body, self.things(number))
    }
}

/// Searches in one mode.
pub(super) struct Searches {
    pub(super) mode: &'static str,
    pub(super) words: Words,
}

impl Work for Searches {
    fn ask(&self, number: u64) -> Ask {
        let question = self.words.question(number);
        let body = json!({ "agent_id": "benchmark", "query": question, "mode": self.mode, "limit": 10 });
        Ask::post("/memory/search", &body)
    }
}

/// Walks from an entity to what lies around it.
struct Walks {
    entities: u64,
    words: Words,
}

impl Work for Walks {
    fn ask(&self, number: u64) -> Ask {
        let name = self.words.name(words::mixed(number) % self.entities).replace(' ', "%20");
        Ask::get(format!("/memory/graph/{name}?{AGENT}&max_depth=2&max_nodes=100&include_observations=false"))
    }
}

/// Writes the memory; answers when searches by meaning see all of it.
pub(super) fn fill(run: &mut Run<'_>, entities: u64, relations: u64) -> Result<(), Failure> {
    let all = |operations| Pacing::Closed { operations, within: Duration::MAX };
    let words = run.words;
    let work = Entities { count: entities, words };
    let written = run.part("entities", &work, all(requests(entities)), run.writers())?;
    run.figure(super::record::rate(&written, "entities/s"));
    run.failures(&written);
    if relations > 0 && entities > 1 {
        let work = Relations { count: relations, entities, words };
        let related = run.part("relations", &work, all(requests(relations)), run.writers())?;
        run.figure(super::record::rate(&related, "relations/s"));
        run.failures(&related);
    }
    let waited = run.until_indexed()?;
    let indexed = Figure::new("indexed after", waited.as_secs_f64(), "s", Better::Lower);
    run.figure(indexed.counting_from(INDEXED_LEAST_SECONDS));
    Ok(())
}

/// Runs it.
pub(super) fn run(run: &mut Run<'_>, what: &BenchmarkMemory) -> Result<(), Failure> {
    fill(run, what.entities, what.relations)?;
    let (within, words) = (what.duration, run.words);
    let searches = Pacing::Closed { operations: what.search_queries, within };
    let modes: &[(&'static str, &'static str)] = if run.keyword_only()? {
        &[("keyword search", "keyword")]
    } else {
        &[("semantic search", "semantic"), ("hybrid search", "hybrid"), ("keyword search", "keyword")]
    };
    for (name, mode) in modes {
        let found = run.part(name, &Searches { mode, words }, searches.clone(), run.askers())?;
        run.figure(super::record::rate(&found, "queries/s"));
        graded(run, &found, Target::SEARCH_MS);
    }
    if what.relations > 0 && what.entities > 1 {
        let work = Walks { entities: what.entities, words };
        let walked = run.part("graph walk", &work, searches, run.askers())?;
        graded(run, &walked, Target::STORE_MS);
    }
    run.resident();
    Ok(())
}
