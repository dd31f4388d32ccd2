//! At full speed into nothing: block by block, each event decoded where it lies, on one thread or on two.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use caxton_events::Seq;
use caxton_events::log::{FoundRef, Reader};

use super::ReplayError;
use super::pace::Watch;
use super::range::Bounds;
use super::report::Tally;

/// Decodes every event of the range.
pub(super) fn decode(
    reader: &Reader,
    bounds: &Bounds,
    two_threads: bool,
    watch: &dyn Watch,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Tally, ReplayError> {
    let (all, done) = (bounds.events(), AtomicU64::new(0));
    if !two_threads || all < 2 {
        return part(reader, bounds, (bounds.from, bounds.until), watch, &mut |events| progress(events, all));
    }
    // Each thread reads a half of its own: nothing is handed over, and both halves are read in order.
    let middle = Seq(bounds.from.0 + all / 2);
    let add = |events: u64, before: &mut u64| {
        let added = events - *before;
        *before = events;
        done.fetch_add(added, Ordering::Relaxed) + added
    };
    thread::scope(|scope| {
        let second = thread::Builder::new().name("replay".to_owned()).spawn_scoped(scope, || {
            let mut before = 0;
            part(reader, bounds, (middle, bounds.until), watch, &mut |events| {
                let _ = add(events, &mut before);
            })
        });
        let second = second.map_err(ReplayError::Thread)?;
        let mut before = 0;
        let first = part(reader, bounds, (bounds.from, middle.previous()), watch, &mut |events| {
            progress(add(events, &mut before), all);
        });
        let second = second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let mut tally = first?;
        tally.add(&second?);
        progress(done.load(Ordering::Relaxed), all);
        Ok(tally)
    })
}

/// Decodes the events from the first of two positions to the last; `tick` hears how many there were so far.
fn part(
    reader: &Reader,
    bounds: &Bounds,
    (from, until): (Seq, Seq),
    watch: &dyn Watch,
    tick: &mut dyn FnMut(u64),
) -> Result<Tally, ReplayError> {
    let mut tally = Tally::new("decode a block");
    let mut blocks = reader.blocks(from, &bounds.filter(until));
    let mut before = watch.elapsed();
    for block in blocks.by_ref() {
        let block = block?;
        tally.bytes += block.bytes() as u64;
        block.for_each_found(|found| -> Result<(), ReplayError> {
            match found {
                FoundRef::Record(record) => {
                    let event = record.event()?;
                    tally.count(record.seq, event.kind());
                    black_box(&event);
                }
                FoundRef::Sealed(sealed) => tally.erased(sealed),
            }
            Ok(())
        })?;
        let now = watch.elapsed();
        tally.took(now.saturating_sub(before));
        before = now;
        tick(tally.events);
    }
    tally.blocks = blocks.stats().blocks_read;
    Ok(tally)
}
