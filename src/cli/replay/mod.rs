//! `caxton replay`: the log of a stopped directory again, into nothing, into fresh projections, or into another server.
//!
//! Reading order: `source` (the log, also that of a backup), `wish` (what an event asks of a server), `plan` (from events to
//! requests), `load` (when they are sent), `target` (over HTTP).

mod load;
mod plan;
mod source;
mod target;
#[cfg(test)]
mod tests;
mod wish;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use caxton_events::Seq;
use caxton_projections::embedding::Embedder;
use caxton_tools::replay::{
    OpenProjectionsError, Options, Pace, Projections, Range, ReplayError, VectorParts, Watch, replay,
    replay_into,
};

use super::args::{Common, Replay};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::progress::Progress;
use super::ranges::moment;
use super::{model, setup};
use source::Source;
use target::Target;

/// Time as it passes.
struct Stopwatch(Instant);

impl Watch for Stopwatch {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn wait_until(&self, at: Duration) {
        thread::sleep(at.saturating_sub(self.0.elapsed()));
    }
}

/// Runs `caxton replay`.
pub(super) fn run(what: &Replay, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let range = range(what)?;
    let source = Source::open(common)?;
    let reader = &source.reader;
    let options = Options { range, pace: what.speed.unwrap_or(Pace::Full), two_threads: what.threads > 1 };
    let watch = Stopwatch(Instant::now());
    let mut progress = Progress::new("replaying", "events", !common.no_progress);
    if let Some(url) = &what.target {
        let (timing, in_flight) = (target::timing(what.speed, what.rate), usize::from(what.in_flight));
        let target = Target { url, key: common.api_key.clone(), timing, in_flight };
        let report = target::send(reader, &range, &target, &watch, &mut |done, all| progress.set(done, all));
        drop(progress);
        return out.value(&report?);
    }
    let replayed = match &what.into {
        None => replay(reader, &options, &watch, &mut |done, all| progress.set(done, all)),
        Some(dir) => {
            // Before a directory is made for nothing.
            let checked = range.resolve(reader).and_then(|bounds| bounds.from_the_first());
            checked.map_err(|error| failed(&error.into()))?;
            let projections = projections(dir, &source, common)?;
            replay_into(reader, &options, projections, &watch, &mut |done, all| progress.set(done, all))
        }
    };
    drop(progress);
    out.value(&replayed.map_err(|error| failed(&error))?)
}

/// Which events were asked for.
fn range(what: &Replay) -> Result<Range, Failure> {
    Ok(Range {
        from: what.from_seq.map(Seq),
        to: what.to_seq.map(Seq),
        recorded_from: moment("--from-time", what.from_time.as_deref())?,
        recorded_to: moment("--to-time", what.to_time.as_deref())?,
    })
}

/// Fresh projections in `dir`; with vectors where the model is here, which then is asked only for what the directory's
/// own vectors lack.
fn projections(dir: &Path, source: &Source, common: &Common) -> Result<Projections, Failure> {
    let loaded = setup::load(common, Vec::new())?;
    let sidecar = source.dir.join("vectors");
    let vectors = match model::found_here(&loaded) {
        Some(model) if !loaded.config.embedding.keyword_only => Some(VectorParts {
            embedder: setup::embedding_service(&loaded.config, &model)? as Arc<dyn Embedder>,
            sidecar: sidecar.is_dir().then_some(sidecar),
        }),
        Some(_) | None => None,
    };
    Projections::create(dir, &setup::sqlite_options(&loaded.config), vectors).map_err(|error| {
        let usage = matches!(error, OpenProjectionsError::NotEmpty { .. });
        Failure::of(if usage { Exit::Usage } else { Exit::Failed }, &error)
    })
}

fn failed(error: &ReplayError) -> Failure {
    let usage = matches!(error, ReplayError::Range(_) | ReplayError::Ordered);
    Failure::of(if usage { Exit::Usage } else { Exit::Failed }, error)
}
