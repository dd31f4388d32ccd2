//! What texts are worth to a query: the postings of its words added up, window by window.

use super::index::ScopeTexts;
use super::list::{List, WINDOW};

/// How fast repetitions of a word stop to count, and how much long texts are marked down.
const K1: f32 = 1.2;
const B: f32 = 0.75;
/// Texts shorter than this find the worth of a word in a table.
const TABLE: usize = 256;
/// Sums of the same numbers in another order differ by less.
pub(super) const SLACK: f32 = 1.0 + 1e-5;
/// Scores looked at together.
pub(super) const LANES: usize = 16;
/// Texts with a mark in one number; so many scores are passed over in one step.
pub(super) const MARKS: usize = 64;

/// How much there is to search.
#[derive(Debug, Clone, Copy)]
pub(super) struct Corpus {
    pub(super) rows: f32,
    pub(super) mean_len: f32,
}

/// Room for the scores of a window and of the entities of a scope; all zeros between queries.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) window: Vec<f32>,
    pub(super) entities: Vec<f32>,
    /// Those that are not zero.
    pub(super) touched: Vec<u32>,
    /// Observations of these, a bit each.
    pub(super) marks: Vec<u64>,
    /// One observation of each that is to be marked.
    about: Vec<u32>,
    /// Which scores of a window of headers are not zero, a bit each.
    pub(super) scored: Vec<u64>,
    pub(super) at_once: AtOnce,
}

/// Texts of a window with their scores and the entities they are about.
///
/// Of each something is looked up far away in memory. A loop that does nothing else has the processor wait for many of
/// them together, one that judges each before it goes on waits for one after the other.
#[derive(Debug, Default)]
pub(super) struct AtOnce {
    numbers: Vec<u32>,
    entities: Vec<u32>,
    scores: Vec<f32>,
}

impl AtOnce {
    /// Takes the texts of the window from `first` on that are marked and have a score; leaves zeros.
    pub(super) fn take(&mut self, first: u32, marks: &[u64], window: &mut [f32]) {
        self.numbers.clear();
        self.scores.clear();
        for (word, &marks) in marks.iter().enumerate() {
            let mut left = marks;
            while left != 0 {
                let place = word * MARKS + left.trailing_zeros() as usize;
                left &= left - 1;
                let score = window.get_mut(place).map_or(0.0, std::mem::take);
                if score > 0.0 {
                    self.numbers.push(first + place as u32);
                    self.scores.push(score);
                }
            }
        }
    }

    /// Finds the entity of each.
    pub(super) fn look_up(&mut self, about: &[u32]) {
        self.entities.clear();
        let about = |number: &u32| about.get(*number as usize).copied().unwrap_or(u32::MAX);
        self.entities.extend(self.numbers.iter().map(about));
    }

    /// Adds to each what its entity has.
    pub(super) fn add(&mut self, entities: &[f32]) {
        for (score, &entity) in self.scores.iter_mut().zip(&self.entities) {
            *score += entities.get(entity as usize).copied().unwrap_or_default();
        }
    }

    /// Number, entity and score of each.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32, f32)> {
        let numbers = self.numbers.iter().zip(&self.entities).zip(&self.scores);
        numbers.map(|((&number, &entity), &score)| (number, entity, score))
    }
}

/// What postings of a word are worth.
#[derive(Debug, Clone, Copy)]
struct Worth {
    idf: f32,
    mean_len: f32,
}

impl Worth {
    /// BM25F of one word.
    fn of(self, weight: u8, len: u16) -> f32 {
        let weight = f32::from(weight);
        let length = 1.0 - B + B * f32::from(len) / self.mean_len;
        self.idf * weight * (K1 + 1.0) / (weight + K1 * length)
    }
}

/// The postings of a word in a shelf, with what they are worth.
pub(super) struct Cursor<'a> {
    list: &'a List,
    worth: Worth,
    usual: u8,
    /// The worth of the usual weight by the length of the text; empty where the list is short.
    table: Vec<f32>,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(list: &'a List, idf: f32, corpus: Corpus, usual: u8) -> Self {
        let worth = Worth { idf, mean_len: corpus.mean_len };
        // For a few texts it takes longer to make than it saves.
        let lens = if list.count as usize > TABLE { TABLE } else { 0 };
        let table = (0..lens).map(|len| worth.of(usual, len as u16)).collect();
        Self { list, worth, usual, table }
    }

    /// Adds the worth of every posting of a window to `scores`, and calls `note` with its place there; `lens` are those of the
    /// window.
    fn add(
        &self,
        place: usize,
        lens: &[u16],
        scores: &mut [f32; WINDOW as usize],
        mut note: impl FnMut(usize),
    ) {
        let (table, usual, worth) = (self.table.as_slice(), self.usual, self.worth);
        // All it needs goes along, so that nothing is read again at each posting.
        self.list.each_in(place, usual, move |document, weight| {
            let place = (document % WINDOW) as usize;
            let len = lens.get(place).copied().unwrap_or_default();
            scores[place] += match table.get(usize::from(len)) {
                Some(&usually) if weight == usual => usually,
                _ => worth.of(weight, len),
            };
            note(place);
        });
    }
}

/// The postings of one word in one window.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) window: u32,
    /// Which of the cursors.
    cursor: usize,
    /// Which of its windows.
    place: usize,
    /// What a posting of it is worth at most.
    bound: f32,
}

/// Windows with what their documents are worth at most, and their parts in the order of the cursors.
pub(super) fn windows(cursors: &[Cursor<'_>]) -> Vec<(f32, Vec<Part>)> {
    let mut parts: Vec<Part> = Vec::new();
    for (cursor, of) in cursors.iter().enumerate() {
        parts.extend(of.list.windows().iter().enumerate().map(|(place, window)| Part {
            window: window.number,
            cursor,
            place,
            bound: of.worth.of(window.peak, window.shortest),
        }));
    }
    parts.sort_by_key(|part| part.window);
    let same = |a: &Part, b: &Part| a.window == b.window;
    parts
        .chunk_by(same)
        .map(|parts| (parts.iter().map(|part| part.bound).sum::<f32>() * SLACK, parts.to_vec()))
        .collect()
}

/// Adds the parts of a window up, and calls `note` with the place of each score in it; returns its first document.
pub(super) fn sum(
    parts: &[Part],
    cursors: &[Cursor<'_>],
    lens: &[u16],
    scores: &mut [f32],
    mut note: impl FnMut(usize),
) -> Option<u32> {
    let first = parts.first()?.window * WINDOW;
    let lens = lens.get(first as usize..).unwrap_or_default();
    let scores = scores.as_mut_array()?;
    for part in parts {
        cursors.get(part.cursor)?.add(part.place, lens, scores, &mut note);
    }
    Some(first)
}

/// Marks the observations of all entities with a score.
///
/// Where they lie is known only step by step, from one to that before: so a step is done for all entities before the next,
/// and memory is not waited for one by one.
pub(super) fn mark(place: &ScopeTexts, scratch: &mut Scratch) {
    let Scratch { touched, marks, about, .. } = scratch;
    marks.resize(place.contents.lens().len().div_ceil(MARKS), 0);
    about.extend(touched.iter().filter_map(|&entity| place.last_content(entity)));
    while !about.is_empty() {
        about.retain_mut(|number| {
            if let Some(marks) = marks.get_mut(*number as usize / MARKS) {
                *marks |= 1 << (*number as usize % MARKS);
            }
            let before = place.content_before(*number);
            *number = before.unwrap_or(*number);
            before.is_some()
        });
    }
}

/// Whether one of some scores is above 0 and not below `least`; a comparison of many at a time.
pub(super) fn reaches(scores: &[f32], least: f32) -> bool {
    let least = least.max(f32::MIN_POSITIVE);
    let (chunks, rest) = scores.as_chunks::<LANES>();
    let mut highest = [0.0_f32; LANES];
    for scores in chunks {
        for (highest, &score) in highest.iter_mut().zip(scores) {
            *highest = if score > *highest { score } else { *highest };
        }
    }
    let reached = |scores: &[f32]| scores.iter().fold(0, |any, score| any | u32::from(*score >= least)) != 0;
    reached(&highest) || reached(rest)
}
