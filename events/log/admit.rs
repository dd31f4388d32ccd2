//! Which batches are placed: idempotency keys and expected positions, checked against the log and the open group.

use std::collections::HashMap;
use std::sync::Arc;

use crate::id::Seq;
use crate::log::batch::{Answer, AppendError, Appended, Expected, IdempotencyKey, Series};
use crate::log::filter::Filter;
use crate::log::prepare::Prepared;
use crate::log::reader::{KeyRow, find_key};
use crate::log::scan::{FoundScan, ReadError, Scan};
use crate::log::shared::Shared;
use crate::time::Timestamp;

/// Streams whose end is remembered; beyond that all are forgotten and looked up again.
const STREAMS_MAX: usize = 65_536;

/// The ends of streams that were asked for, so that a stream is looked up once and then followed.
#[derive(Debug, Default)]
pub(crate) struct StreamEnds(HashMap<String, Option<Seq>>);

impl StreamEnds {
    /// Follows what a placed batch writes.
    fn follow(&mut self, prepared: &Prepared, first: Seq) {
        if self.0.is_empty() {
            return;
        }
        for (stream, index) in prepared.streams.iter() {
            if let Some(end) = self.0.get_mut(stream) {
                *end = Some(Seq(first.0 + index as u64));
            }
        }
    }
}

/// The batches of one commit while it is being put together.
pub(crate) struct Group<'a> {
    shared: &'a Shared,
    ends: &'a mut StreamEnds,
    /// When the group was taken.
    pub now: Timestamp,
    /// Where the next batch goes.
    next: Seq,
    /// What is placed, in order.
    pub placed: Vec<Prepared>,
    /// Rows of the keys that are new in this group.
    pub keys: HashMap<String, KeyRow>,
}

impl<'a> Group<'a> {
    pub(crate) fn new(shared: &'a Shared, ends: &'a mut StreamEnds, next: Seq, now: Timestamp) -> Self {
        Self { shared, ends, now, next, placed: Vec::new(), keys: HashMap::new() }
    }

    /// Admits the batches of one submission in order; none behind one of their series that was not written as it is.
    pub(crate) fn admit_all(
        &mut self,
        batches: Vec<Result<Prepared, AppendError>>,
        series: Option<&Series>,
    ) -> Answer {
        let mut results = Vec::with_capacity(batches.len());
        for batch in batches {
            let result = if series.is_some_and(Series::is_broken) {
                Err(AppendError::SeriesBroken)
            } else {
                batch.and_then(|batch| self.admit(batch))
            };
            // Nothing is written of one that is known by its key either, and what was written then is not what others build on.
            let is_placed = matches!(&result, Ok(Appended { replayed: None, .. }));
            if let (Some(series), false) = (series, is_placed) {
                series.break_off();
            }
            results.push(result);
        }
        results
    }

    /// Places a batch at the end of the group, answers it from its first time, or refuses it.
    pub(crate) fn admit(&mut self, prepared: Prepared) -> Result<Appended, AppendError> {
        if let Some(key) = &prepared.key
            && let Some(row) = self.known(&key.key)?
        {
            return replay(key, row);
        }
        if let Some((stream, expected)) = &prepared.expected {
            let actual = self.end_of(stream)?;
            let fits = match expected {
                Expected::Empty => actual.is_none(),
                Expected::LastSeq(seq) => actual == Some(*seq),
            };
            if !fits {
                let (stream, expected) = (stream.clone(), *expected);
                return Err(AppendError::Unexpected { stream, expected, actual });
            }
        }
        let ring = &self.shared.keys;
        if let Some(stream) = ring.held(prepared.kinds_and_streams()) {
            return Err(AppendError::BeingErased { stream: stream.to_owned() });
        }
        if ring.is_any_destroyed(&prepared.sealed_under, prepared.generation) {
            let stream =
                prepared.streams.iter().next().map(|(stream, _)| stream.to_owned()).unwrap_or_default();
            return Err(AppendError::BeingErased { stream });
        }
        Ok(self.place(prepared))
    }

    fn place(&mut self, mut prepared: Prepared) -> Appended {
        let first = self.next;
        let last = Seq(first.0 + prepared.events.len() as u64 - 1);
        self.next = last.next();
        if let Some(IdempotencyKey { key, fingerprint, answer }) = prepared.key.take() {
            self.keys.insert(key, KeyRow { fingerprint, first, last, recorded_at: self.now, answer });
        }
        self.ends.follow(&prepared, first);
        prepared.recorded_at = self.now;
        self.placed.push(prepared);
        Appended { first, last, recorded_at: self.now, replayed: None }
    }

    fn known(&self, key: &str) -> Result<Option<KeyRow>, AppendError> {
        if let Some(row) = self.keys.get(key) {
            return Ok(Some(row.clone()));
        }
        let snapshot = self.shared.whole_snapshot().map_err(|error| unchecked(error.into()))?;
        find_key(&snapshot, key).map_err(unchecked)
    }

    /// Position of the stream's last event, counting what this group has placed.
    fn end_of(&mut self, stream: &str) -> Result<Option<Seq>, AppendError> {
        if let Some(end) = self.ends.0.get(stream) {
            return Ok(*end);
        }
        let mut after = self.next;
        let mut end = None;
        for prepared in self.placed.iter().rev() {
            after = Seq(after.0 - prepared.events.len() as u64);
            if let Some(index) = prepared.streams.last_of(stream) {
                end = Some(Seq(after.0 + index as u64));
                break;
            }
        }
        if end.is_none() {
            let filter = Filter { stream: Some(stream.to_owned()), ..Filter::default() };
            let scan =
                Scan::new(self.shared.whole_snapshot(), &self.shared.keys, Seq(u64::MAX), &filter, true);
            let newest = FoundScan(scan).next();
            end = newest.transpose().map_err(unchecked)?.map(|found| found.seq());
        }
        if self.ends.0.len() >= STREAMS_MAX {
            self.ends.0.clear();
        }
        self.ends.0.insert(stream.to_owned(), end);
        Ok(end)
    }
}

fn replay(key: &IdempotencyKey, row: KeyRow) -> Result<Appended, AppendError> {
    if key.fingerprint != row.fingerprint {
        return Err(AppendError::KeyConflict { key: key.key.clone(), first: row.first });
    }
    let KeyRow { first, last, recorded_at, answer, .. } = row;
    Ok(Appended { first, last, recorded_at, replayed: Some(answer) })
}

fn unchecked(source: ReadError) -> AppendError {
    AppendError::Unchecked { source: Arc::new(source) }
}
