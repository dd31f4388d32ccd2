//! `benchmark storage`: writes and reads of the store at given rates, side by side.

use std::thread;

use caxton_tools::benchmark::Target;
use serde_json::json;

use super::door::{Ask, Door};
use super::load::{Load, Pacing, Work};
use super::memory::fill;
use super::record::{Record, rate};
use super::run::{Run, graded};
use super::schedule::Schedule;
use super::words::{self, Words};
use crate::cli::args::BenchmarkStorage;
use crate::cli::failure::{Exit, Failure};
use crate::cli::progress::Progress;

/// Entities that are there before, and that reads ask for.
pub(super) const ENTITIES: u64 = 10_000;

/// Observations, each in a write of its own, durable when it is answered.
struct Writes {
    words: Words,
}

impl Work for Writes {
    fn ask(&self, number: u64) -> Ask {
        let name = self.words.name(words::mixed(number) % ENTITIES).replace(' ', "%20");
        let body = json!({ "observations": [self.words.sentence(number, 1_000)] });
        Ask::post(format!("/memory/entities/{name}/observations?agent_id=benchmark"), &body)
    }
}

/// Entities with their observations.
struct Reads {
    words: Words,
}

impl Work for Reads {
    fn ask(&self, number: u64) -> Ask {
        let name = self.words.name(words::mixed(number ^ 0x0bad_cafe) % ENTITIES).replace(' ', "%20");
        Ask::get(format!("/memory/entities/{name}?agent_id=benchmark"))
    }
}

/// Operations by a plan.
fn load<'a>(
    door: &'a Door,
    work: &'a dyn Work,
    schedule: Schedule,
    connections: usize,
    record: &'a Record,
) -> Load<'a> {
    Load { door, work, pacing: Pacing::Open(schedule), connections, record }
}

/// Runs it.
pub(super) fn run(run: &mut Run<'_>, what: &BenchmarkStorage, no_progress: bool) -> Result<(), Failure> {
    fill(run, ENTITIES, 0)?;
    let schedule = |rate| Schedule::steady(rate, what.duration, what.place.ramp_up);
    let (writes, reads) = (schedule(what.write_ops_per_second), schedule(what.read_ops_per_second));
    if writes.operations() + reads.operations() == 0 {
        let message =
            "--duration and both rates leave nothing to do; give a longer duration or a higher rate";
        return Err(Failure::new(Exit::Usage, message));
    }
    let records = (Record::planned("write", what.duration), Record::planned("read", what.duration));
    let connections = run.connections();
    let (offered_writes, offered_reads) = (writes.mean_rate(), reads.mean_rate());
    let (write, read) = (Writes { words: run.words }, Reads { words: run.words });
    let writing = load(&run.door, &write, writes, connections, &records.0);
    let reading = load(&run.door, &read, reads, connections, &records.1);
    let total = writing.pacing.operations() + reading.pacing.operations();
    let mut progress = Progress::new("writing and reading", "operations", !no_progress);
    thread::scope(|scope| {
        let writer = thread::Builder::new().name("benchmark".to_owned());
        let writer = writer
            .spawn_scoped(scope, || writing.run(&mut |_| ()))
            .map_err(|error| Failure::new(Exit::Failed, format!("could not start a thread: {error}")))?;
        let read = reading.run(&mut |_| {
            let ((written, unwritten), (read, unread)) = (records.0.so_far(), records.1.so_far());
            progress.set(written + unwritten + read + unread, total);
        });
        let wrote = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        wrote.and(read)
    })?;
    drop(progress);
    let part = |record: &Record, offered| record.part(Some(offered), what.place.ramp_up.min(what.duration));
    let (written, read) = (part(&records.0, offered_writes), part(&records.1, offered_reads));
    for part in [&written, &read] {
        run.keep(part.clone());
        run.figure(rate(part, "1/s"));
        graded(run, part, Target::STORE_MS);
    }
    run.resident();
    Ok(())
}
