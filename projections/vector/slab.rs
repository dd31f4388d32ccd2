//! The vectors of one scope, in blocks that readers keep while a writer copies what it changes.

use std::sync::Arc;

use caxton_events::MemoryId;
use caxton_events::Timestamp;
use caxton_events::memory::Validity;

use crate::embedding::store::Slot;
use crate::vector::column::Column;
use crate::vector::filter::{Filter, Wanted};
use crate::vector::kernels::{RowBits, equal, fetch};
use crate::vector::past::Told;
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
    /// What the entity was before it was described as it is here.
    pub(crate) told: Told,
}

impl Spans {
    pub(crate) const ALWAYS: Self = Self { own: Span::ALWAYS, entity: Span::ALWAYS, told: Told::NONE };
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
    /// The record that made it what it is, but for what it says of its entity.
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
    pub(crate) alive: RowBits,
    /// `None` while every row is always true, as most are, and its entity was never described anew.
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

    /// Whether a search may answer with row `at`.
    pub(crate) fn passes(&self, at: usize, wanted: Wanted<'_>) -> bool {
        let (Wanted { filter, past }, spans) = (wanted, self.spans_of(at));
        let was = filter.as_of.and_then(|seq| past.as_of(spans.told, seq));
        let (kind, entity) = was.map_or((self.kinds[at], spans.entity), |was| (was.kind, was.span));
        self.is_alive(at)
            && filter.wants_kind(kind)
            && filter.valid_at.is_none_or(|moment| spans.own.contains(moment) && entity.contains(moment))
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

    /// One bit a row, set where it is not before `from` and is wanted.
    pub(crate) fn rows_from(&self, from: usize, wanted: Wanted<'_>) -> RowBits {
        if from == 0 && self.passes_whole(wanted.filter) {
            return [u64::MAX; BLOCK_ROWS / 64];
        }
        let mut rows = self.passing(wanted);
        for (number, word) in rows.iter_mut().enumerate() {
            *word &= u64::MAX.checked_shl(from.saturating_sub(number * 64) as u32).unwrap_or(0);
        }
        rows
    }

    /// Writes the rows from `from` on that are wanted to `rows` and says how many there are.
    pub(crate) fn select(&self, from: usize, wanted: Wanted<'_>, rows: &mut [u8; BLOCK_ROWS]) -> usize {
        places(&self.rows_from(from, wanted), rows)
    }

    /// How many rows before `end` are wanted.
    pub(crate) fn count(&self, end: usize, wanted: Wanted<'_>) -> usize {
        if end >= BLOCK_ROWS && self.passes_whole(wanted.filter) {
            return BLOCK_ROWS;
        }
        let before = |number: usize| match end.saturating_sub(number * 64) {
            rows @ 0..64 => !(u64::MAX << rows),
            _ => u64::MAX,
        };
        let words = self.passing(wanted).into_iter().enumerate();
        words.map(|(number, word)| (word & before(number)).count_ones() as usize).sum()
    }

    /// One bit a row, set where it is wanted.
    fn passing(&self, wanted: Wanted<'_>) -> RowBits {
        let filter = wanted.filter;
        let mut rows = self.alive;
        if let Some(kinds) = &filter.kinds {
            let mut those = RowBits::default();
            for kind in kinds {
                those.iter_mut().zip(equal(&self.kinds, *kind)).for_each(|(word, more)| *word |= more);
            }
            rows.iter_mut().zip(those).for_each(|(word, those)| *word &= those);
        }
        if let (Some(moment), Some(spans)) = (filter.valid_at, &self.spans) {
            keep(&mut rows, spans, |spans| spans.own.contains(moment) && spans.entity.contains(moment));
        }
        if let Some(seq) = filter.as_of {
            if let Some(spans) = self.spans.as_ref().filter(|_| filter.asks_of_entities()) {
                self.as_entities_were(&mut rows, spans, wanted, seq);
            }
            keep(&mut rows, &self.created, |&created| created <= seq);
            if !self.closed.is_empty() {
                keep(&mut rows, &self.closed, |&closed| closed > seq);
            }
        }
        rows
    }

    /// Decides anew about rows whose entity was described anew behind record `seq`.
    fn as_entities_were(&self, rows: &mut RowBits, spans: &[Spans], wanted: Wanted<'_>, seq: u64) {
        let Wanted { filter, past } = wanted;
        // Rows of an entity often stand together.
        let mut last = (Told::NONE, None);
        for (at, spans) in spans.iter().enumerate().filter(|(_, spans)| spans.told > Told::NONE) {
            if last.0 != spans.told {
                last = (spans.told, past.as_of(spans.told, seq));
            }
            let Some(was) = last.1 else { continue };
            let in_time = |moment| spans.own.contains(moment) && was.span.contains(moment);
            let passes =
                self.is_alive(at) && filter.wants_kind(was.kind) && filter.valid_at.is_none_or(in_time);
            let (word, bit) = (&mut rows[at / 64], 1 << (at % 64));
            *word = if passes { *word | bit } else { *word & !bit };
        }
    }

    fn push(&mut self, row: &Row) {
        let at = self.len();
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
            self.sketches = Sketches::of(&self.codes, &self.scales);
            self.codes.seal();
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

/// Writes the places of the bits that are set to `rows`, in order, and says how many there are.
pub(crate) fn places(bits: &RowBits, rows: &mut [u8; BLOCK_ROWS]) -> usize {
    let mut count = 0;
    for (number, mut word) in bits.iter().copied().enumerate() {
        while word != 0 {
            rows[count] = (number * 64) as u8 + word.trailing_zeros() as u8;
            count += 1;
            word &= word - 1;
        }
    }
    count
}

/// Keeps the bits of rows of which `passes` says so in `column`.
fn keep<T>(rows: &mut RowBits, column: &[T], passes: impl Fn(&T) -> bool) {
    for (word, numbers) in rows.iter_mut().zip(column.chunks(64)) {
        // No branch for each row: most filters keep rows in no order that could be foreseen.
        let passing = numbers.iter().enumerate().map(|(at, number)| u64::from(passes(number)) << at);
        *word &= passing.fold(0, |word, bit| word | bit);
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
    /// Blocks with rows that may not always be true.
    pub(crate) spanned: u32,
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

    /// Brings near what `filter` looks at in the blocks behind block `number`: they lie wherever there was room.
    pub(crate) fn fetch_after(&self, number: usize, filter: &Filter) {
        if let Some(block) = self.blocks.get(number + 1).filter(|_| filter.kinds.is_some()) {
            fetch(&block.kinds);
        }
        if let Some(block) = self.blocks.get(number + 2) {
            fetch(std::slice::from_ref(&**block));
        }
    }

    /// Has `change` change the block of `row`, of the writer's own, at the place of it.
    fn change(&mut self, row: u32, change: impl FnOnce(&mut Block, usize)) {
        let block = Arc::make_mut(&mut self.blocks[row as usize / BLOCK_ROWS]);
        let had_spans = block.spans.is_some();
        change(block, row as usize % BLOCK_ROWS);
        self.spanned += u32::from(block.spans.is_some() && !had_spans);
    }

    pub(crate) fn push(&mut self, row: &Row) -> u32 {
        let number = self.rows;
        if number as usize / BLOCK_ROWS == self.blocks.len() {
            self.blocks.push(Arc::default());
        }
        self.change(number, |block, _| block.push(row));
        self.rows += 1;
        number
    }

    /// Adds a block that is whole behind others that are full.
    pub(crate) fn push_block(&mut self, block: Block) {
        self.rows += block.len() as u32;
        self.spanned += u32::from(block.spans.is_some());
        self.blocks.push(Arc::new(block));
    }

    /// Takes `row` out of the present.
    pub(crate) fn remove(&mut self, row: u32) {
        if self.locate(row).0.is_alive(row as usize % BLOCK_ROWS) {
            self.change(row, |block, at| block.alive[at / 64] &= !(1 << (at % 64)));
            self.dead += 1;
        }
    }

    /// Gives `row` a time of its own, as the record `seq` says.
    pub(crate) fn set_own_span(&mut self, row: u32, own: Span, seq: u64) {
        self.change(row, |block, at| {
            block.set_spans(at, Spans { own, ..block.spans_of(at) });
            block.set_created(at, seq);
        });
    }

    /// Gives `row` its entity's type and time, and what the entity was before.
    pub(crate) fn set_entity(&mut self, row: u32, kind: u32, entity: Span, told: Told) {
        self.change(row, |block, at| {
            let before = block.spans_of(at);
            let spans = Spans { own: before.own, entity, told };
            block.kinds[at] = kind;
            if spans != before {
                block.set_spans(at, spans);
            }
        });
    }

    /// How many rows below `end` are wanted.
    pub(crate) fn count(&self, wanted: Wanted<'_>, end: u32) -> u32 {
        if wanted.filter.passes_all() && end == self.rows {
            return self.alive();
        }
        let mut left = end as usize;
        let mut count = 0;
        for block in &self.blocks {
            count += block.count(left, wanted);
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

    /// A hash of `model`, whose vectors they have, and of what the first `rows` rows are: an index over them is good for another
    /// slab with the same.
    pub(crate) fn digest(&self, model: &str, rows: u32) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(model.as_bytes());
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

#[cfg(test)]
mod tests {
    use super::{BLOCK_ROWS, Block, Filter, MemoryId, Row, RowKey, Slab, Slot, Span, Spans, Wanted};
    use crate::embedding::DIMENSIONS;
    use crate::vector::past::{Past, Told, Was};
    use crate::vector::quantise::{Code, Quantised};

    const SPAN: Span = Span { from: 10, to: 20 };

    fn row(at: u64, own: Span) -> Row {
        Row {
            key: RowKey::new(MemoryId(at), 0),
            entity: MemoryId(at),
            kind: 0,
            spans: Spans { own, ..Spans::ALWAYS },
            slot: Slot(at as u32),
            vector: Quantised { code: Code([1; DIMENSIONS]), scale: 1.0, error: 0.0 },
            created: 0,
            closed: None,
        }
    }

    fn block(rows: usize, closed: bool) -> Block {
        let mut block = Block::default();
        for at in 0..rows as u64 {
            let chance = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let plain = row(at, if chance % 8 == 0 { SPAN } else { Span::ALWAYS });
            // Some of those entities that stand together.
            let told = Told(if at / 5 % 3 == 0 { (at / 5 % 7) as u32 } else { 0 });
            block.push(&Row {
                kind: (chance >> 3 & 15) as u32 / 5,
                created: chance >> 7 & 63,
                closed: closed.then_some(64 + (chance >> 13 & 63)),
                spans: Spans { told, ..plain.spans },
                ..plain
            });
            if (chance >> 20) % 4 == 0 {
                block.alive[at as usize / 64] &= !(1 << (at % 64));
            }
        }
        block
    }

    /// Entities that were one thing after the other, until records 20, 40, …, 120.
    fn past() -> Past {
        let mut past = Past::default();
        for number in 1..=6 {
            let span = if number % 2 == 0 { SPAN } else { Span { from: 0, to: 12 } };
            let before = Told(if number == 4 { 0 } else { number - 1 });
            past.push(Was { until: u64::from(number) * 20, kind: number % 4, span, before });
        }
        past
    }

    #[test]
    fn a_moment_tells_rows_apart_only_where_some_have_a_time() {
        let now = Filter { valid_at: Some(5), ..Filter::default() };
        let mut slab = Slab::default();
        for at in 0..600 {
            slab.push(&row(at, Span::ALWAYS));
        }
        slab.set_entity(20, 1, Span::ALWAYS, Told::NONE);
        assert!(now.on(&slab).passes_all());
        let of_kind = Filter { kinds: Some(vec![1]), ..now.clone() }.on(&slab);
        assert_eq!((of_kind.kinds, of_kind.valid_at), (Some(vec![1]), None));
        slab.set_own_span(300, SPAN, 701);
        slab.set_own_span(301, SPAN, 702);
        assert_eq!((slab.spanned, now.on(&slab).valid_at), (1, Some(5)));
        slab.set_entity(10, 1, SPAN, Told::NONE);
        slab.push(&row(600, SPAN));
        assert_eq!(slab.spanned, 3);
        assert_eq!(slab.compacted(|row| row != 10 && row != 600).spanned, 1);
        slab.set_entity(10, 1, Span::ALWAYS, Told(1));
        assert_eq!(slab.compacted(|row| row != 600).spanned, 2, "its entity had a time");
    }

    #[test]
    fn rows_are_selected_and_counted_as_they_pass_one_by_one() {
        let kinds = [None, Some(vec![]), Some(vec![1]), Some(vec![3, 0]), Some(vec![9])];
        let filters: Vec<Filter> = kinds
            .into_iter()
            .flat_map(|kinds| [None, Some(5), Some(15)].map(|valid_at| (kinds.clone(), valid_at)))
            .flat_map(|(kinds, valid_at)| {
                [None, Some(40), Some(90)].map(|as_of| Filter { kinds: kinds.clone(), valid_at, as_of })
            })
            .collect();
        let past = past();
        for (rows, closed) in
            [0, 1, 63, 64, 65, 200, BLOCK_ROWS].into_iter().flat_map(|n| [(n, true), (n, false)])
        {
            let block = block(rows, closed);
            for filter in &filters {
                let wanted = Wanted { filter, past: &past };
                let passing: Vec<u8> =
                    (0..rows).filter(|&at| block.passes(at, wanted)).map(|at| at as u8).collect();
                for edge in [0, 1, 63, 64, 100, 192, 255, BLOCK_ROWS, 1_000] {
                    let mut selected = [0; BLOCK_ROWS];
                    let count = block.select(edge, wanted, &mut selected);
                    let behind: Vec<u8> =
                        passing.iter().copied().filter(|&at| usize::from(at) >= edge).collect();
                    assert_eq!(selected[..count], behind, "{rows} rows from {edge}, {filter:?}");
                    assert_eq!(block.count(edge, wanted), passing.len() - behind.len(), "before {edge}");
                }
            }
        }
    }
}
