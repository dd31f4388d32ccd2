//! The vectors of one scope, in blocks that readers keep while a writer copies what it changes.

use std::sync::Arc;

use caxton_events::MemoryId;
use caxton_events::Timestamp;
use caxton_events::memory::Validity;

use crate::embedding::store::Slot;
use crate::vector::column::Column;
use crate::vector::quantise::{Code, Quantised};
use crate::vector::sketch::Sketches;

/// Rows of a block: 120 KB, of which a change to a full block copies 11.
pub(crate) const BLOCK_ROWS: usize = 256;

/// A row's name: `MemoryId << 12 | chunk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RowKey(pub(crate) u64);

/// Bits of a key that number the chunk.
const CHUNK_BITS: u32 = 12;

impl RowKey {
    /// Chunks that can be told apart: 4,096. What a text has beyond is left to the text index.
    pub(crate) const CHUNKS_MAX: usize = 1 << CHUNK_BITS;

    pub(crate) const fn new(row: MemoryId, chunk: u16) -> Self {
        Self(row.0 << CHUNK_BITS | chunk as u64)
    }

    /// The observation, or the entity for a header.
    pub(crate) const fn row(self) -> MemoryId {
        MemoryId(self.0 >> CHUNK_BITS)
    }

    pub(crate) const fn chunk(self) -> u16 {
        (self.0 & (Self::CHUNKS_MAX as u64 - 1)) as u16
    }
}

/// From `from` on and before `to`, in microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Span {
    pub(crate) const ALWAYS: Self = Self { from: 0, to: u64::MAX };

    pub(crate) const fn contains(self, at: u64) -> bool {
        self.from <= at && at < self.to
    }
}

impl From<Validity> for Span {
    fn from(validity: Validity) -> Self {
        Self {
            from: validity.from.map_or(0, Timestamp::unix_micros),
            to: validity.to.map_or(u64::MAX, Timestamp::unix_micros),
        }
    }
}

/// When a row counts: when it is true itself and its entity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spans {
    pub(crate) own: Span,
    pub(crate) entity: Span,
}

impl Spans {
    pub(crate) const ALWAYS: Self = Self { own: Span::ALWAYS, entity: Span::ALWAYS };
}

/// A row on its way into a slab.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) key: RowKey,
    pub(crate) entity: MemoryId,
    /// Number of the entity's type.
    pub(crate) kind: u32,
    pub(crate) spans: Spans,
    /// Where its f32 vector is.
    pub(crate) slot: Slot,
    pub(crate) vector: Quantised,
    /// The record that made it what it is.
    pub(crate) created: u64,
    /// The record that changed or removed it, once one did.
    pub(crate) closed: Option<u64>,
}

/// Up to [`BLOCK_ROWS`] rows, by column.
#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    pub(crate) codes: Column<Code>,
    pub(crate) sketches: Sketches,
    pub(crate) scales: Column<f32>,
    pub(crate) errors: Column<f32>,
    pub(crate) keys: Vec<RowKey>,
    pub(crate) entities: Vec<MemoryId>,
    pub(crate) kinds: Vec<u32>,
    pub(crate) slots: Vec<Slot>,
    /// One bit a row: set while the row is in the present.
    pub(crate) alive: [u64; BLOCK_ROWS / 64],
    /// `None` while every row is always true, as most are.
    pub(crate) spans: Option<Vec<Spans>>,
    /// The records that made the rows what they are.
    pub(crate) created: Vec<u64>,
    /// The latest of these.
    newest: u64,
    /// The records that changed or removed the rows; empty where the rows are those of the present.
    pub(crate) closed: Vec<u64>,
    /// The earliest of these.
    first_closed: u64,
}

/// Which rows a search wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Numbers of the types wanted; `None`: all.
    pub(crate) kinds: Option<Vec<u32>>,
    /// The moment at which a row must be true; `None`: at any time.
    pub(crate) valid_at: Option<u64>,
    /// The record after which a row must have been there; `None`: it is there now.
    pub(crate) as_of: Option<u64>,
}

impl Block {
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn is_alive(&self, at: usize) -> bool {
        self.alive[at / 64] >> (at % 64) & 1 == 1
    }

    pub(crate) fn spans_of(&self, at: usize) -> Spans {
        self.spans.as_ref().map_or(Spans::ALWAYS, |spans| spans[at])
    }

    /// Whether a search with this filter may answer with row `at`.
    pub(crate) fn passes(&self, at: usize, filter: &Filter) -> bool {
        self.is_alive(at)
            && filter.kinds.as_ref().is_none_or(|kinds| kinds.contains(&self.kinds[at]))
            && filter.valid_at.is_none_or(|moment| {
                let spans = self.spans_of(at);
                spans.own.contains(moment) && spans.entity.contains(moment)
            })
            && filter.as_of.is_none_or(|seq| {
                self.created[at] <= seq && self.closed.get(at).is_none_or(|&closed| closed > seq)
            })
    }

    /// Whether the block is full and every row of it passes `filter`: what can be told without a look at the rows.
    pub(crate) fn passes_whole(&self, filter: &Filter) -> bool {
        self.len() == BLOCK_ROWS
            && self.alive == [u64::MAX; BLOCK_ROWS / 64]
            && filter.kinds.is_none()
            && (filter.valid_at.is_none() || self.spans.is_none())
            && filter
                .as_of
                .is_none_or(|seq| self.newest <= seq && (self.closed.is_empty() || self.first_closed > seq))
    }

    /// Writes the rows from `from` on that pass `filter` to `rows` and says how many there are.
    pub(crate) fn select(&self, from: usize, filter: &Filter, rows: &mut [u8; BLOCK_ROWS]) -> usize {
        let mut marks = [0; BLOCK_ROWS];
        self.mark(filter, &mut marks);
        marks[..from].fill(0);
        let mut count = 0;
        for (number, eight) in marks.chunks_exact(8).enumerate() {
            // Most filters keep little: eight rows are passed over in one step.
            if eight.iter().all(|&mark| mark == 0) {
                continue;
            }
            for (at, &mark) in eight.iter().enumerate() {
                // Written always and kept only if it counts: no branch to mispredict.
                rows[count.min(BLOCK_ROWS - 1)] = (number * 8 + at) as u8;
                count += usize::from(mark);
            }
        }
        count
    }

    /// How many rows before `end` pass `filter`.
    pub(crate) fn count(&self, end: usize, filter: &Filter) -> usize {
        if end >= BLOCK_ROWS && self.passes_whole(filter) {
            return BLOCK_ROWS;
        }
        let mut marks = [0; BLOCK_ROWS];
        self.mark(filter, &mut marks);
        marks[..end.min(self.len())].iter().map(|&mark| usize::from(mark)).sum()
    }

    /// Writes 1 for each row that passes `filter` and 0 for the others: loops without branches over one column each.
    fn mark(&self, filter: &Filter, marks: &mut [u8; BLOCK_ROWS]) {
        match &filter.kinds {
            None => marks[..self.len()].fill(1),
            Some(kinds) => {
                for wanted in kinds {
                    for (mark, kind) in marks.iter_mut().zip(&self.kinds) {
                        *mark |= u8::from(kind == wanted);
                    }
                }
            }
        }
        for (number, &word) in self.alive.iter().enumerate() {
            let here = &mut marks[number * 64..][..64];
            if word != u64::MAX {
                here.iter_mut().enumerate().for_each(|(at, mark)| *mark &= (word >> at & 1) as u8);
            }
        }
        if let (Some(moment), Some(spans)) = (filter.valid_at, &self.spans) {
            for (mark, spans) in marks.iter_mut().zip(spans) {
                *mark &= u8::from(spans.own.contains(moment) && spans.entity.contains(moment));
            }
        }
        if let Some(seq) = filter.as_of {
            for (mark, &created) in marks.iter_mut().zip(&self.created) {
                *mark &= u8::from(created <= seq);
            }
            for (mark, &closed) in marks.iter_mut().zip(&self.closed) {
                *mark &= u8::from(closed > seq);
            }
        }
    }

    fn push(&mut self, row: &Row) {
        let at = self.len();
        self.sketches.push(&row.vector.code, row.vector.scale);
        self.codes.push(row.vector.code);
        self.scales.push(row.vector.scale);
        self.errors.push(row.vector.error);
        self.keys.push(row.key);
        self.entities.push(row.entity);
        self.kinds.push(row.kind);
        self.slots.push(row.slot);
        self.alive[at / 64] |= 1 << (at % 64);
        self.push_records(row.created, row.closed);
        if let Some(spans) = &mut self.spans {
            spans.push(row.spans);
        } else if row.spans != Spans::ALWAYS {
            self.set_spans(at, row.spans);
        }
        self.seal_if_full();
    }

    /// Notes of the last row which records made and closed it.
    pub(crate) fn push_records(&mut self, created: u64, closed: Option<u64>) {
        self.created.push(created);
        self.newest = self.newest.max(created);
        if let Some(closed) = closed {
            self.first_closed = if self.closed.is_empty() { closed } else { self.first_closed.min(closed) };
            self.closed.push(closed);
        }
    }

    fn set_created(&mut self, at: usize, seq: u64) {
        self.created[at] = seq;
        self.newest = self.newest.max(seq);
    }

    /// Lays what a scan reads beside that of other blocks, where no row will come any more.
    pub(crate) fn seal_if_full(&mut self) {
        if self.len() == BLOCK_ROWS {
            self.codes.seal();
            self.sketches.seal();
            self.scales.seal();
            self.errors.seal();
        }
    }

    fn set_spans(&mut self, at: usize, then: Spans) {
        let len = self.len();
        let spans = self.spans.get_or_insert_with(|| vec![Spans::ALWAYS; len]);
        spans[at] = then;
    }

    /// Row `at`, to be pushed elsewhere.
    pub(crate) fn row(&self, at: usize) -> Row {
        Row {
            key: self.keys[at],
            entity: self.entities[at],
            kind: self.kinds[at],
            spans: self.spans_of(at),
            slot: self.slots[at],
            vector: Quantised { code: self.codes[at], scale: self.scales[at], error: self.errors[at] },
            created: self.created[at],
            closed: self.closed.get(at).copied(),
        }
    }
}

/// The rows of a scope, numbered from 0. A clone shares the blocks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slab {
    pub(crate) blocks: Vec<Arc<Block>>,
    /// Rows, removed ones included.
    pub(crate) rows: u32,
    /// Rows that were removed and still take room.
    pub(crate) dead: u32,
    /// Grows when rows get other numbers.
    pub(crate) generation: u64,
}

impl Slab {
    pub(crate) const fn alive(&self) -> u32 {
        self.rows - self.dead
    }

    /// The block of `row` and the place in it.
    pub(crate) fn locate(&self, row: u32) -> (&Block, usize) {
        (&self.blocks[row as usize / BLOCK_ROWS], row as usize % BLOCK_ROWS)
    }

    /// As [`locate`](Self::locate), with a block of the writer's own.
    fn locate_mut(&mut self, row: u32) -> (&mut Block, usize) {
        (Arc::make_mut(&mut self.blocks[row as usize / BLOCK_ROWS]), row as usize % BLOCK_ROWS)
    }

    pub(crate) fn push(&mut self, row: &Row) -> u32 {
        let number = self.rows;
        if number as usize / BLOCK_ROWS == self.blocks.len() {
            self.blocks.push(Arc::default());
        }
        self.locate_mut(number).0.push(row);
        self.rows += 1;
        number
    }

    /// Takes `row` out of the present.
    pub(crate) fn remove(&mut self, row: u32) {
        if self.locate(row).0.is_alive(row as usize % BLOCK_ROWS) {
            let (block, at) = self.locate_mut(row);
            block.alive[at / 64] &= !(1 << (at % 64));
            self.dead += 1;
        }
    }

    /// Gives `row` a time of its own, as the record `seq` says.
    pub(crate) fn set_own_span(&mut self, row: u32, own: Span, seq: u64) {
        let (block, at) = self.locate_mut(row);
        block.set_spans(at, Spans { own, ..block.spans_of(at) });
        block.set_created(at, seq);
    }

    /// Gives `row` its entity's type and time, as the record `seq` says.
    pub(crate) fn set_entity(&mut self, row: u32, kind: u32, entity: Span, seq: u64) {
        let (block, at) = self.locate_mut(row);
        let spans = block.spans_of(at);
        block.kinds[at] = kind;
        if spans.entity != entity {
            block.set_spans(at, Spans { entity, ..spans });
        }
        block.set_created(at, seq);
    }

    /// How many rows below `end` pass `filter`.
    pub(crate) fn count(&self, filter: &Filter, end: u32) -> u32 {
        let all = filter.kinds.is_none() && filter.valid_at.is_none() && filter.as_of.is_none();
        if all && end == self.rows {
            return self.alive();
        }
        let mut left = end as usize;
        let mut count = 0;
        for block in &self.blocks {
            count += block.count(left, filter);
            left = left.saturating_sub(block.len());
        }
        count as u32
    }

    /// Memory of the rows, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let row = size_of::<Row>() - size_of::<Spans>() - size_of::<Option<u64>>() + Sketches::ROW_BYTES;
        let spans = |block: &Block| block.spans.as_ref().map_or(0, |spans| spans.len() * size_of::<Spans>());
        let closed = |block: &Block| block.closed.len() * size_of::<u64>();
        self.blocks.iter().map(|block| block.len() * row + spans(block) + closed(block)).sum()
    }

    /// The same rows without those that `keep` does not want, numbered anew in the same order.
    pub(crate) fn compacted(&self, keep: impl Fn(u32) -> bool) -> Self {
        let mut slab = Self { generation: self.generation + 1, ..Self::default() };
        for row in (0..self.rows).filter(|&row| keep(row)) {
            let (block, at) = self.locate(row);
            let number = slab.push(&block.row(at));
            if !block.is_alive(at) {
                slab.remove(number);
            }
        }
        slab
    }

    /// A hash of what the first `rows` rows are: an index over them is good for another slab with the same.
    pub(crate) fn digest(&self, rows: u32) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut bytes = Vec::with_capacity(BLOCK_ROWS * 12);
        let mut left = rows as usize;
        for block in &self.blocks {
            let len = block.len().min(left);
            bytes.clear();
            for at in 0..len {
                bytes.extend_from_slice(&block.keys[at].0.to_le_bytes());
                bytes.extend_from_slice(&block.slots[at].0.to_le_bytes());
            }
            hasher.update(&bytes);
            left -= len;
        }
        *hasher.finalize().as_bytes()
    }
}
