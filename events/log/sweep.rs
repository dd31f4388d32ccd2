//! Reading that goes on behind what is damaged, and reading at given positions: for audits, which must say what they
//! could not see, and which mostly know where to look.

use std::sync::Arc;

use crate::id::Seq;
use crate::log::block::ENTRY_BYTES;
use crate::log::blocks::{Headers, Value, next_header, read_header};
use crate::log::filter::{Filter, Matcher};
use crate::log::header::Header;
use crate::log::reader::Reader;
use crate::log::scan::ReadError;
use crate::log::sealing::KEYS_FILE;
use crate::log::sealing::opened::{Found, SealedRecord};
use crate::log::store::{Snapshot, StoreError};
use crate::log::visit::{EventBlock, Lens};
use crate::record::Record;
use crate::time::Timestamp;

/// A stretch of the log that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Its first position.
    pub first: Seq,
    /// Its last position.
    pub last: Seq,
    /// What does not fit.
    pub what: String,
}

/// What a sweep comes upon.
#[derive(Debug, Clone, PartialEq)]
pub enum Swept {
    /// A record that matches.
    Record(Box<Record>),
    /// What is left of an erased one: it matches by what can still be read of it.
    Erased(Box<SealedRecord>),
    /// Something that cannot be read. The sweep goes on behind it.
    Gap(Gap),
}

/// How much of the log was touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Touched {
    /// Blocks whose events were looked at. One that a walk stops in and goes on from counts once.
    pub blocks: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// The first and the last position of the block that was looked at last.
    last: Option<(Seq, Seq)>,
}

/// How much of a log there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// Blocks.
    pub blocks: u64,
    /// Bytes of these.
    pub bytes: u64,
}

impl Reader {
    /// What matches `filter` from `from` on, upwards or, with `down`, downwards, and what cannot be read on the way.
    ///
    /// It holds a snapshot: do not park one for long.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store fails as a whole.
    pub fn sweep(&self, from: Seq, filter: &Filter, down: bool) -> Result<Sweep, StoreError> {
        let snapshot = self.snapshot()?;
        let headers = if down { snapshot.headers_until(from) } else { snapshot.headers_from(from) }?;
        let lens = Lens::new(Matcher::new(filter, from, down).up_to(snapshot.through), self.keys());
        let (lowest, highest) = if down {
            (filter.until.unwrap_or(Seq::FIRST), from)
        } else {
            (from, filter.until.unwrap_or(Seq(u64::MAX)))
        };
        let bounds = (lowest.max(snapshot.past.first()), highest.min(snapshot.through));
        Ok(Sweep {
            headers,
            lens,
            down,
            bounds,
            due: (bounds.0 <= bounds.1).then_some(if down { bounds.1 } else { bounds.0 }),
            open: None,
            owed: None,
            unreadable: None,
            room: Vec::new(),
            touched: Touched::default(),
            snapshot,
        })
    }

    /// A way to read the records at given positions that match `filter`, as the log stands now.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store fails as a whole.
    pub fn picker(&self, filter: &Filter) -> Result<Picker, StoreError> {
        let matcher = Matcher::new(&Filter { until: None, ..filter.clone() }, Seq::ZERO, false);
        let lens = Lens::new(matcher, self.keys());
        let snapshot = self.snapshot()?;
        Ok(Picker { snapshot, lens, open: None, room: Vec::new(), touched: Touched::default() })
    }

    /// How much there is to read.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store fails as a whole.
    pub fn extent(&self) -> Result<Extent, StoreError> {
        let snapshot = self.snapshot()?;
        let mut headers = snapshot.headers_until(Seq(u64::MAX))?;
        // A last header that cannot be read is a gap in what is read; here it only leaves the bytes unknown.
        let start = &snapshot.past.start;
        let bytes = next_header(&mut headers, true)?.and_then(|(first, value)| {
            let last = read_header(first, &value).ok()?;
            let events = last.last().0.saturating_sub(start.frontier.count());
            Some(last.bytes_through.saturating_sub(start.bytes_through) + events * ENTRY_BYTES as u64)
        });
        Ok(Extent { blocks: snapshot.block_count()?, bytes: bytes.unwrap_or_default() })
    }

    /// Positions between which everything lies that was recorded from `from` on and before `before`: exact to a block,
    /// found by halving. The first is behind the last where there is nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store fails as a whole.
    pub fn span(&self, from: Option<Timestamp>, before: Option<Timestamp>) -> Result<(Seq, Seq), StoreError> {
        let snapshot = self.snapshot()?;
        let first = match from {
            Some(from) => halved(&snapshot, false, |(_, last_at)| last_at < from)?,
            None => snapshot.past.first(),
        };
        let behind = match before {
            Some(before) => halved(&snapshot, true, |(first_at, _)| first_at < before)?,
            None => snapshot.through.next(),
        };
        Ok((first, behind.previous()))
    }
}

/// The first position of the first block whose times are not early; behind the last position when all are. What a block
/// whose header cannot be read counts as makes the span wider, never narrower.
fn halved(
    snapshot: &Snapshot,
    unreadable_is_early: bool,
    is_early: impl Fn((Timestamp, Timestamp)) -> bool,
) -> Result<Seq, StoreError> {
    let (mut low, mut high) = (snapshot.past.first(), snapshot.through.next());
    while low < high {
        let middle = Seq(low.0.midpoint(high.0));
        let Some((first, value)) = next_header(&mut snapshot.headers_until(middle)?, true)? else {
            return Ok(low);
        };
        let (early, last) = match read_header(first, &value) {
            Ok(header) => (is_early((header.first_at, header.last_at)), header.last()),
            Err(_) => (unreadable_is_early, middle),
        };
        if early {
            low = last.max(middle).next();
        } else {
            high = first.max(low);
        }
    }
    Ok(low)
}

/// The stretch around `seq` that no readable header covers.
fn uncovered(snapshot: &Snapshot, seq: Seq) -> Result<(Seq, Seq), StoreError> {
    let (mut first, mut last) = (snapshot.past.first(), snapshot.through);
    let mut before = snapshot.headers_until(seq)?;
    while let Some((at, value)) = next_header(&mut before, true)? {
        if let Some(end) = read_header(at, &value).ok().map(|header| header.last()).filter(|end| *end < seq) {
            first = end.next();
            break;
        }
    }
    let mut behind = snapshot.headers_from(seq)?;
    while let Some((at, value)) = next_header(&mut behind, false)? {
        if at > seq && read_header(at, &value).is_ok() {
            last = at.previous();
            break;
        }
    }
    Ok((first.min(seq), last.max(seq)))
}

/// What was found to be wrong, in the words of the log without their remedy.
fn what(error: ReadError) -> Result<String, StoreError> {
    match error {
        ReadError::Damaged { what, .. } => Ok(what),
        ReadError::Decode { source, .. } => Ok(source.to_string()),
        ReadError::Key { key } => Ok(key),
        ReadError::KeyMissing { .. } => Ok(error.to_string()),
        ReadError::Store(error) => Err(error),
    }
}

/// The record at an index of an open block, or what is wrong with it.
fn read(open: &EventBlock, index: usize, room: &mut Vec<u8>) -> Result<Option<Swept>, StoreError> {
    match open.found(index, room) {
        Ok(Some(Found::Record(record))) => Ok(Some(Swept::Record(Box::new(record)))),
        Ok(Some(Found::Sealed(SealedRecord { erased_by: None, seq, .. }))) => {
            let what = format!(
                "it is encrypted under a key that is not here; put back the newest copy of {KEYS_FILE}"
            );
            Ok(Some(Swept::Gap(Gap { first: seq, last: seq, what })))
        }
        Ok(Some(Found::Sealed(sealed))) => Ok(Some(Swept::Erased(Box::new(sealed)))),
        Ok(None) => Ok(None),
        Err(error) => {
            let seq = Seq(open.first().0 + index as u64);
            Ok(Some(Swept::Gap(Gap { first: seq, last: seq, what: what(error)? })))
        }
    }
}

impl Touched {
    /// This and what a walk that went on behind it touched: see [`Sweep::going_on`] and [`Picker::going_on`].
    #[must_use]
    pub fn and(self, next: Self) -> Self {
        Self { blocks: self.blocks + next.blocks, bytes: self.bytes + next.bytes, last: next.last }
    }

    /// Nothing yet, behind this.
    fn behind(self) -> Self {
        Self { last: self.last, ..Self::default() }
    }

    /// Counts a block, unless the walk stopped in it before. It is the same, whatever blocks lie there by now, if it has a position
    /// of the last one.
    fn add(&mut self, header: &Header<'_>) {
        let (first, last) = (header.first, header.last());
        let is_known = self.last.is_some_and(|known| first <= known.1 && known.0 <= last);
        self.last = Some((first, last));
        if !is_known {
            self.blocks += 1;
            self.bytes += u64::from(header.body_bytes);
        }
    }
}

/// Records in order of position with the gaps between them: see [`Reader::sweep`].
pub struct Sweep {
    snapshot: Snapshot,
    headers: Headers,
    lens: Arc<Lens>,
    down: bool,
    /// The first and the last position that are asked for and there.
    bounds: (Seq, Seq),
    /// The position that the next block must hold; `None` at the end.
    due: Option<Seq>,
    open: Option<EventBlock>,
    /// A block that stands behind a gap.
    owed: Option<(Seq, Value)>,
    /// What is wrong with the header that was passed last.
    unreadable: Option<String>,
    /// What is compressed or encrypted is unpacked here.
    room: Vec<u8>,
    touched: Touched,
}

impl std::fmt::Debug for Sweep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweep").field("touched", &self.touched).finish_non_exhaustive()
    }
}

impl Sweep {
    /// The same sweep as a part of a walk that touched `before`: the block in which that stopped is not counted again.
    #[must_use]
    pub fn going_on(self, before: Touched) -> Self {
        Self { touched: before.behind(), ..self }
    }

    /// What was touched so far.
    pub fn touched(&self) -> Touched {
        self.touched
    }

    /// The next record or gap.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store fails as a whole.
    pub fn advance(&mut self) -> Result<Option<Swept>, StoreError> {
        loop {
            if let Some(open) = &mut self.open {
                while let Some(index) = open.next_index(self.down) {
                    if let Some(swept) = read(open, index, &mut self.room)? {
                        return Ok(Some(swept));
                    }
                }
                self.open = None;
            }
            match self.next_block()? {
                Some(Some(gap)) => return Ok(Some(Swept::Gap(gap))),
                Some(None) => (),
                None => return Ok(None),
            }
        }
    }

    /// Moves to the next block that may hold a match. `None` at the end; a gap instead of a block that cannot be read,
    /// or in front of one where others are missing.
    #[expect(clippy::option_option, reason = "an end, a block and a gap are three things")]
    fn next_block(&mut self) -> Result<Option<Option<Gap>>, StoreError> {
        if let Some((first, value)) = self.owed.take() {
            return self.enter(first, &value).map(Some);
        }
        while let Some(due) = self.due {
            let Some((first, value)) = next_header(&mut self.headers, self.down)? else {
                self.due = None;
                let end = if self.down { self.bounds.0 } else { self.bounds.1 };
                return Ok(Some(Some(self.missing(due, end))));
            };
            let last = match read_header(first, &value) {
                Ok(header) => header.last(),
                Err(error) => {
                    // Nor is its place to be trusted: the next one that can be read tells what is missing.
                    self.unreadable = Some(what(error)?);
                    continue;
                }
            };
            let (near, far) = if self.down { (last, first) } else { (first, last) };
            self.due = if self.down {
                (far > self.bounds.0).then(|| far.previous())
            } else {
                (far < self.bounds.1).then(|| far.next())
            };
            if self.down && near < due || !self.down && near > due {
                self.owed = Some((first, value));
                let end = if self.down { near.next() } else { near.previous() };
                return Ok(Some(Some(self.missing(due, end))));
            }
            let gap = self.enter(first, &value)?;
            if gap.is_some() || self.open.is_some() {
                return Ok(Some(gap));
            }
        }
        Ok(None)
    }

    /// The stretch that is not there, from one end that is asked for to the other.
    fn missing(&mut self, one: Seq, other: Seq) -> Gap {
        let (first, last) = (one.min(other).max(self.bounds.0), one.max(other).min(self.bounds.1));
        let what = self.unreadable.take().unwrap_or_else(|| "the blocks are missing".to_owned());
        Gap { first, last, what }
    }

    /// Opens the block if it may hold a match; a gap when it cannot be read.
    fn enter(&mut self, first: Seq, value: &Value) -> Result<Option<Gap>, StoreError> {
        let header = match read_header(first, value) {
            Ok(header) => header,
            Err(error) => return Ok(Some(Gap { first, last: first, what: what(error)? })),
        };
        if !self.lens.matcher.may_match(&header) {
            return Ok(None);
        }
        self.touched.add(&header);
        match EventBlock::open(&self.snapshot, &header, &self.lens) {
            Ok(open) => {
                self.open = Some(open);
                Ok(None)
            }
            Err(error) => Ok(Some(Gap { first, last: header.last(), what: what(error)? })),
        }
    }
}

/// Reads records at given positions: see [`Reader::picker`]. Cheapest when they are asked for in order, since the
/// block of the last one stays open.
pub struct Picker {
    snapshot: Snapshot,
    lens: Arc<Lens>,
    open: Option<EventBlock>,
    /// What is compressed or encrypted is unpacked here.
    room: Vec<u8>,
    touched: Touched,
}

impl std::fmt::Debug for Picker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Picker").field("touched", &self.touched).finish_non_exhaustive()
    }
}

impl Picker {
    /// The same picker as a part of a walk that touched `before`: the block in which that stopped is not counted again.
    #[must_use]
    pub fn going_on(self, before: Touched) -> Self {
        Self { touched: before.behind(), ..self }
    }

    /// What was touched so far.
    pub fn touched(&self) -> Touched {
        self.touched
    }

    /// The record at `seq` if there is one and it matches. Of its block, the header, the entries and this event are
    /// checked; the other events are not looked at.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the store fails as a whole.
    pub fn get(&mut self, seq: Seq) -> Result<Option<Swept>, StoreError> {
        if seq < self.snapshot.past.first() || seq > self.snapshot.through {
            return Ok(None);
        }
        let is_open = self.open.as_ref().is_some_and(|open| open.first() <= seq && seq <= open.last());
        if !is_open && let Some(gap) = self.open_at(seq)? {
            return Ok(Some(Swept::Gap(gap)));
        }
        let Some(open) = &self.open else { return Ok(None) };
        read(open, (seq.0 - open.first().0) as usize, &mut self.room)
    }

    /// Opens the block that holds `seq`; the gap where it cannot be read.
    fn open_at(&mut self, seq: Seq) -> Result<Option<Gap>, StoreError> {
        self.open = None;
        let mut wrong = "the block is missing".to_owned();
        if let Some((first, value)) = next_header(&mut self.snapshot.headers_until(seq)?, true)? {
            match read_header(first, &value) {
                Ok(header) if header.last() >= seq => {
                    self.touched.add(&header);
                    match EventBlock::open(&self.snapshot, &header, &self.lens) {
                        Ok(open) => self.open = Some(open),
                        Err(error) => {
                            return Ok(Some(Gap { first, last: header.last(), what: what(error)? }));
                        }
                    }
                    return Ok(None);
                }
                Ok(_) => (),
                Err(error) => wrong = what(error)?,
            }
        }
        let (first, last) = uncovered(&self.snapshot, seq)?;
        Ok(Some(Gap { first, last, what: wrong }))
    }
}
