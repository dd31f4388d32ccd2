//! What one batch of records changes in the index: texts as words, in the order of the records.

use caxton_events::MemoryId;
use caxton_events::memory::Validity;

use super::TextHitKind;
use super::words::{each_word, is_stop_word};

/// How often a word of a name counts.
pub(super) const NAME_WEIGHT: u8 = 3;

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
    /// Nobody wants the words, only their number.
    counted_only: bool,
    /// Whether texts came or went that no change tells of.
    pub(super) missed: bool,
}

/// An entity's name and type, or what was observed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Text<'a> {
    Header { name: &'a str, entity_type: &'a str },
    Content(&'a str),
}

impl Text<'_> {
    const fn kind(self) -> TextHitKind {
        match self {
            Self::Header { .. } => TextHitKind::Header,
            Self::Content(_) => TextHitKind::Observation,
        }
    }

    /// Calls `each` with every word that is indexed, and how much it counts.
    fn each(self, mut each: impl FnMut(&str, u8)) {
        let body = |text: &str, each: &mut dyn FnMut(&str, u8)| {
            each_word(text, |word| {
                if !is_stop_word(word) {
                    each(word, 1);
                }
            });
        };
        match self {
            Self::Header { name, entity_type } => {
                each_word(name, |word| each(word, NAME_WEIGHT));
                body(entity_type, &mut each);
            }
            Self::Content(content) => body(content, &mut each),
        }
    }
}

/// A row's place: its scope and the record that wrote it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) scope: i64,
    pub(crate) created: i64,
}

impl TextBatch {
    /// An empty batch. `counted_only`: nobody wants the words, only their number.
    pub(crate) fn new(counted_only: bool) -> Self {
        Self { counted_only, ..Self::default() }
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
            Text::Header { entity_type, .. } if !self.counted_only => Some(entity_type.into()),
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
        *self = Self { missed: true, ..Self::new(true) };
    }

    fn push(&mut self, at: Written, text: Text<'_>, done: Done) -> i64 {
        let mut len = 0;
        if self.counted_only {
            self.missed = true;
            text.each(|_, _| len += 1);
            return i64::from(len);
        }
        text.each(|word, weight| {
            len += 1;
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
