//! In the order of the log: into projections batch by batch, or by the times that were recorded.

use std::hint::black_box;
use std::time::Duration;

use caxton_events::log::{FoundRef, Reader};
use caxton_events::{Record, Seq, Timestamp};
use caxton_projections::driver::BATCH_RECORDS_MAX;

use super::ReplayError;
use super::pace::{Pace, Watch, due};
use super::projections::Projections;
use super::range::Bounds;
use super::report::Tally;

/// Bytes of blocks in a batch after which it is folded.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// When events are due.
struct Schedule<'a> {
    watch: &'a dyn Watch,
    /// When the first event was due.
    started: Duration,
    begins_at: Timestamp,
    times: f64,
}

impl Schedule<'_> {
    fn due(&self, at: Timestamp) -> Duration {
        self.started.saturating_add(due(self.begins_at, at, self.times))
    }

    /// Whether an event that was recorded then must still wait.
    fn is_early(&self, at: Timestamp) -> bool {
        self.due(at) > self.watch.elapsed()
    }

    /// Waits until it is due, and notes how late it is.
    fn wait(&self, at: Timestamp, tally: &mut Tally) {
        let due = self.due(at);
        let mut now = self.watch.elapsed();
        if now < due {
            self.watch.wait_until(due);
            now = self.watch.elapsed();
        }
        tally.late(now.saturating_sub(due));
    }
}

/// Decodes every event of the range when it is due.
pub(super) fn decode(
    reader: &Reader,
    bounds: &Bounds,
    times: f64,
    watch: &dyn Watch,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Tally, ReplayError> {
    let schedule = Schedule { watch, started: watch.elapsed(), begins_at: bounds.begins_at, times };
    let mut tally = Tally::new("decode an event");
    let mut blocks = reader.blocks(bounds.from, &bounds.filter(bounds.until));
    for block in blocks.by_ref() {
        let block = block?;
        tally.bytes += block.bytes() as u64;
        block.for_each_found(|found| -> Result<(), ReplayError> {
            let record = match found {
                FoundRef::Record(record) => record,
                FoundRef::Sealed(sealed) => {
                    tally.erased(sealed);
                    return Ok(());
                }
            };
            schedule.wait(record.recorded_at, &mut tally);
            let before = watch.elapsed();
            let event = record.event()?;
            tally.count(record.seq, event.kind());
            black_box(&event);
            tally.took(watch.elapsed().saturating_sub(before));
            progress(tally.events, bounds.events());
            Ok(())
        })?;
    }
    tally.blocks = blocks.stats().blocks_read;
    Ok(tally)
}

/// A batch on its way into the projections.
struct Batch<'a> {
    projections: &'a mut Projections,
    watch: &'a dyn Watch,
    records: Vec<Record>,
    bytes: usize,
    /// The last position that the projections include.
    through: Seq,
}

impl Batch<'_> {
    fn is_full(&self) -> bool {
        self.records.len() >= BATCH_RECORDS_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    fn fold(&mut self, tally: &mut Tally) -> Result<(), ReplayError> {
        // What was erased behind the last record is included: there is nothing of it to fold.
        let Some(through) = tally.last.filter(|last| *last > self.through) else { return Ok(()) };
        self.through = through;
        let before = self.watch.elapsed();
        self.projections.fold(&self.records, through)?;
        tally.took(self.watch.elapsed().saturating_sub(before));
        self.records.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// Folds every event of the range, each when it is due. Those that are due together are folded together.
pub(super) fn fold(
    reader: &Reader,
    bounds: &Bounds,
    pace: Pace,
    projections: &mut Projections,
    watch: &dyn Watch,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Tally, ReplayError> {
    let schedule = match pace {
        Pace::Full => None,
        Pace::Times(times) => {
            Some(Schedule { watch, started: watch.elapsed(), begins_at: bounds.begins_at, times })
        }
    };
    let mut tally = Tally::new("fold a batch");
    let records = Vec::with_capacity(BATCH_RECORDS_MAX);
    let mut batch = Batch { projections, watch, records, bytes: 0, through: Seq::ZERO };
    let mut blocks = reader.blocks(bounds.from, &bounds.filter(bounds.until));
    for block in blocks.by_ref() {
        let block = block?;
        tally.bytes += block.bytes() as u64;
        let bytes = block.bytes() / block_events(block.first(), block.last());
        block.for_each_found(|found| -> Result<(), ReplayError> {
            let record = match found {
                FoundRef::Record(record) => record,
                FoundRef::Sealed(sealed) => {
                    tally.erased(sealed);
                    return Ok(());
                }
            };
            if let Some(schedule) = &schedule {
                if schedule.is_early(record.recorded_at) {
                    batch.fold(&mut tally)?;
                }
                schedule.wait(record.recorded_at, &mut tally);
            }
            let record = record.to_record()?;
            tally.count(record.seq, record.event.kind());
            batch.records.push(record);
            batch.bytes += bytes;
            if batch.is_full() {
                batch.fold(&mut tally)?;
                progress(tally.events, bounds.events());
            }
            Ok(())
        })?;
    }
    batch.fold(&mut tally)?;
    progress(tally.events, bounds.events());
    tally.blocks = blocks.stats().blocks_read;
    Ok(tally)
}

fn block_events(first: Seq, last: Seq) -> usize {
    (last.0 - first.0 + 1) as usize
}
