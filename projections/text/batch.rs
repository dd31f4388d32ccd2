//! What one batch of records changes in the index: texts as words, in the order of the records.

use std::thread;

use caxton_events::memory::Validity;
use caxton_events::{Event, MemoryEvent, MemoryId, Record};

use super::TextHitKind;
use super::words::{Piece, each_piece, is_stop_word};

/// How often a word of a name counts.
pub(super) const NAME_WEIGHT: u8 = 3;
/// Texts from which on another thread counts half of them: some hundred microseconds of work.
const SHARED_MIN: usize = 256;

/// A text that comes or goes.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) scope: i64,
    pub(super) kind: TextHitKind,
    /// The record that wrote its row.
    pub(super) created: u64,
    pub(super) done: Done,
    /// How many words it has.
    pub(super) len: u32,
    /// Behind its last word in [`TextBatch::words`].
    end: usize,
}

/// What happened to a text.
#[derive(Debug)]
pub(super) enum Done {
    Added {
        row: MemoryId,
        entity: MemoryId,
        /// Of a header.
        entity_type: Option<Box<str>>,
        validity: Validity,
    },
    /// The record replaced or removed it.
    Closed(u64),
}

/// The changes of a batch.
#[derive(Debug, Default)]
pub(crate) struct TextBatch {
    changes: Vec<Change>,
    /// Words of all texts, one after the other.
    bytes: String,
    /// Where each of them ends, and how much it counts.
    ends: Vec<(usize, u8)>,
    /// Nobody wants the words, only their number, which may be known.
    counted: Option<Counts>,
    /// Whether texts came or went that no change tells of.
    pub(super) missed: bool,
}

/// An entity's name and type, or what was observed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Text<'a> {
    Header { name: &'a str, entity_type: &'a str },
    Content(&'a str),
}

impl<'a> Text<'a> {
    /// The text that a record writes.
    pub(crate) fn of(record: &'a Record) -> Option<Self> {
        match &record.event {
            Event::Memory(
                MemoryEvent::EntityCreated { name, entity_type, .. }
                | MemoryEvent::EntityUpdated { name, entity_type, .. }
                | MemoryEvent::EntityRestored { name, entity_type, .. },
            ) => Some(Self::Header { name, entity_type }),
            Event::Memory(
                MemoryEvent::ObservationAdded { content, .. }
                | MemoryEvent::ObservationUpdated { content, .. }
                | MemoryEvent::ObservationRestored { content, .. },
            ) => Some(Self::Content(content)),
            Event::Memory(_)
            | Event::Agent(_)
            | Event::Conversation(_)
            | Event::Turn(_)
            | Event::System(_) => None,
        }
    }

    /// How many words it has.
    pub(crate) fn words(self) -> i64 {
        let mut words = 0;
        self.each(|_, _, piece| words += i64::from(piece == Piece::Word));
        words
    }
}

impl Text<'_> {
    const fn kind(self) -> TextHitKind {
        match self {
            Self::Header { .. } => TextHitKind::Header,
            Self::Content(_) => TextHitKind::Observation,
        }
    }

    /// Calls `each` with all that is indexed, and how much it counts.
    fn each(self, mut each: impl FnMut(&str, u8, Piece)) {
        let body = |text: &str, each: &mut dyn FnMut(&str, u8, Piece)| {
            each_piece(text, |word, piece| {
                if !is_stop_word(word) {
                    each(word, 1, piece);
                }
            });
        };
        match self {
            Self::Header { name, entity_type } => {
                each_piece(name, |word, piece| each(word, NAME_WEIGHT, piece));
                body(entity_type, &mut each);
            }
            Self::Content(content) => body(content, &mut each),
        }
    }
}

/// How many words texts have, by the record that wrote each, in their order.
#[derive(Debug, Default)]
pub(crate) struct Counts(Vec<(u64, i64)>);

impl Counts {
    /// Counts the words of all texts that `records` write on this thread.
    pub(crate) fn alone(records: &[Record]) -> Self {
        Self(count(&texts(records)))
    }

    /// The same; where there are many texts, on two threads.
    pub(crate) fn of(records: &[Record]) -> Self {
        let texts = texts(records);
        if texts.len() < SHARED_MIN {
            return Self(count(&texts));
        }
        let (own, others) = texts.split_at(texts.len() / 2);
        let counted = thread::scope(|scope| {
            let other =
                thread::Builder::new().name("word-count".to_owned()).spawn_scoped(scope, || count(others));
            let mut counted = count(own);
            // Without a thread, or after a panic in it, they are counted when they are asked for.
            counted.extend(other.ok().and_then(|other| other.join().ok()).unwrap_or_default());
            counted
        });
        Self(counted)
    }

    fn get(&self, created: u64) -> Option<i64> {
        let found = self.0.binary_search_by_key(&created, |&(seq, _)| seq).ok()?;
        self.0.get(found).map(|&(_, words)| words)
    }
}

/// The texts that records write, by the position of each.
fn texts(records: &[Record]) -> Vec<(u64, Text<'_>)> {
    records.iter().filter_map(|record| Some((record.seq.0, Text::of(record)?))).collect()
}

fn count(texts: &[(u64, Text<'_>)]) -> Vec<(u64, i64)> {
    texts.iter().map(|&(seq, text)| (seq, text.words())).collect()
}

/// A row's place: its scope and the record that wrote it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) scope: i64,
    pub(crate) created: i64,
}

impl TextBatch {
    /// An empty batch. With `counted`, nobody wants the words, only their number.
    pub(crate) fn new(counted: Option<Counts>) -> Self {
        Self { counted, ..Self::default() }
    }

    /// Adds the text of the row `row` of `entity`; returns how many words it has.
    pub(crate) fn add(
        &mut self,
        at: Written,
        (row, entity): (MemoryId, MemoryId),
        text: Text<'_>,
        validity: &Validity,
    ) -> i64 {
        let entity_type = match text {
            Text::Header { entity_type, .. } if self.counted.is_none() => Some(entity_type.into()),
            Text::Header { .. } | Text::Content(_) => None,
        };
        self.push(at, text, Done::Added { row, entity, entity_type, validity: *validity })
    }

    /// Moves a text into the past, which the record `removed` did; returns how many words it has.
    pub(crate) fn close(&mut self, at: Written, removed: i64, text: Text<'_>) -> i64 {
        self.push(at, text, Done::Closed(removed as u64))
    }

    /// Notes that rows were erased: what is known of the texts does not hold any more.
    pub(crate) fn erase(&mut self) {
        *self = Self { missed: true, ..Self::new(Some(Counts::default())) };
    }

    fn push(&mut self, at: Written, text: Text<'_>, done: Done) -> i64 {
        if let Some(counts) = &self.counted {
            self.missed = true;
            return counts.get(at.created as u64).unwrap_or_else(|| text.words());
        }
        let mut len = 0;
        text.each(|word, weight, piece| {
            len += u32::from(piece == Piece::Word);
            self.bytes.push_str(word);
            self.ends.push((self.bytes.len(), weight));
        });
        let Written { scope, created } = at;
        let (created, end) = (created as u64, self.ends.len());
        self.changes.push(Change { scope, kind: text.kind(), created, done, len, end });
        i64::from(len)
    }

    /// How many texts it changes.
    pub(super) const fn len(&self) -> usize {
        self.changes.len()
    }

    /// What it takes, roughly: the words, their ends, the changes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes.len()
            + self.ends.len() * size_of::<(usize, u8)>()
            + self.changes.len() * size_of::<Change>()
    }

    /// Calls `each` with the changes of `range` and their words.
    pub(super) fn each(&self, range: std::ops::Range<usize>, mut each: impl FnMut(&Change, Words<'_>)) {
        let before = |place: usize| place.checked_sub(1);
        let mut from =
            before(range.start).and_then(|place| self.changes.get(place)).map_or(0, |change| change.end);
        for change in self.changes.get(range).unwrap_or_default() {
            let start = before(from).and_then(|place| self.ends.get(place)).map_or(0, |&(end, _)| end);
            let ends = self.ends.get(from..change.end).unwrap_or_default();
            each(change, Words { bytes: &self.bytes, start, ends });
            from = change.end;
        }
    }
}

/// The words of one text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'a> {
    bytes: &'a str,
    start: usize,
    ends: &'a [(usize, u8)],
}

impl<'a> Words<'a> {
    /// Each word and how much it counts; a word that stands twice comes twice.
    pub(super) fn iter(self) -> impl Iterator<Item = (&'a str, u8)> {
        let mut start = self.start;
        self.ends.iter().map(move |&(end, weight)| {
            let word = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            (word, weight)
        })
    }
}

#[cfg(test)]
mod tests {
    use caxton_events::{Event, MemoryEvent, MemoryId, Record, Seq, Timestamp};

    use super::{Counts, SHARED_MIN, Text, Validity};

    #[test]
    fn many_texts_are_counted_as_one_is() {
        let record = |seq: u64| Record {
            seq: Seq(seq),
            recorded_at: Timestamp::EPOCH,
            stream: "memory".to_owned(),
            actor: "ada".to_owned(),
            correlation: None,
            causation: None,
            event: Event::Memory(MemoryEvent::ObservationAdded {
                id: MemoryId(seq),
                entity: MemoryId(1),
                content: "a compiler and the turbine ".repeat(seq as usize % 7),
                validity: Validity::default(),
            }),
        };
        for count in [0, 1, SHARED_MIN - 1, SHARED_MIN, 3 * SHARED_MIN + 1] {
            let records: Vec<Record> = (1..=count as u64).map(record).collect();
            let (counts, alone) = (Counts::of(&records), Counts::alone(&records));
            for record in &records {
                let words = Text::of(record).map(Text::words);
                assert_eq!(words, Some(2 * (record.seq.0 as i64 % 7)), "`a`, `and` and `the` do not count");
                assert_eq!(counts.get(record.seq.0), words);
                assert_eq!(alone.get(record.seq.0), words);
            }
            assert_eq!(counts.get(count as u64 + 1), None);
        }
    }
}
