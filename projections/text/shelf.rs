//! The texts of one kind in one scope: names and types of entities, or observations.

use std::collections::HashMap;

use caxton_events::memory::Validity;
use caxton_events::{MemoryId, Timestamp};

use super::list::List;
use crate::by_name::NameHash;

/// Documents in one number of a set.
const BITS: usize = 64;
/// In place of a record or a document: there is none.
const NONE: u64 = u64::MAX;

/// A text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Document {
    /// The record that wrote its row.
    pub(super) created: u64,
    /// The record that replaced or removed it; [`NONE`]: it is in the present.
    removed: u64,
    pub(super) row: MemoryId,
}

impl Document {
    pub(super) const fn new(created: u64, row: MemoryId) -> Self {
        Self { created, removed: NONE, row }
    }

    /// Whether its row was there after the record `moment`; `None`: whether it is there now.
    pub(super) const fn is_there(&self, moment: Option<u64>) -> bool {
        match moment {
            None => self.removed == NONE,
            Some(moment) => self.created <= moment && self.removed > moment,
        }
    }
}

/// At which moment a shelf is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct When {
    /// After this record. Whatever was removed at all was removed before the one that stands for the present.
    moment: u64,
    /// Documents that were there already.
    known: u32,
}

impl When {
    const fn is_now(self) -> bool {
        self.moment == NONE - 1
    }
}

/// Documents numbered in the order of the records that wrote them, and for each word those that hold it.
#[derive(Debug)]
pub(super) struct Shelf {
    documents: Vec<Document>,
    /// How many words each has, cut to what fits. Apart, as are the entities: scoring reads nothing else of most.
    lens: Vec<u16>,
    /// Which entity of the scope each is about.
    entities: Vec<u32>,
    /// Which are not in the present, a bit each: most of what is scored needs no more of its document.
    gone: Vec<u64>,
    /// Of those that are not always true.
    validity: HashMap<u32, Validity, NameHash>,
    lists: HashMap<u32, u32, NameHash>,
    postings: Vec<List>,
    posting_bytes: usize,
    /// The weight that most words have.
    usual: u8,
}

impl Shelf {
    pub(super) fn new(usual: u8) -> Self {
        let (documents, lens, entities, postings) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (validity, lists) = (HashMap::default(), HashMap::default());
        Self {
            documents,
            lens,
            entities,
            gone: Vec::new(),
            validity,
            lists,
            postings,
            posting_bytes: 0,
            usual,
        }
    }

    /// Adds a text behind all others; `words` are numbers of different words and their weights. Returns its number.
    pub(super) fn add(
        &mut self,
        document: Document,
        entity: u32,
        len: u32,
        validity: &Validity,
        words: &[(u32, u8)],
    ) -> u32 {
        let number = self.documents.len() as u32;
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        self.documents.push(document);
        self.lens.push(len);
        self.entities.push(entity);
        self.gone.resize(self.documents.len().div_ceil(BITS), 0);
        if *validity != Validity::default() {
            self.validity.insert(number, *validity);
        }
        for &(word, weight) in words {
            let next = self.postings.len() as u32;
            let place = *self.lists.entry(word).or_insert(next);
            if place == next {
                self.postings.push(List::default());
            }
            if let Some(list) = self.postings.get_mut(place as usize) {
                self.posting_bytes += list.push(number, weight, len, self.usual);
            }
        }
        number
    }

    /// Moves the text that the record `created` wrote into the past.
    pub(super) fn close(&mut self, created: u64, removed: u64, words: &[(u32, u8)]) {
        let Some(number) = self.number_of(created).map(|number| number as usize) else { return };
        let place = self.documents.get_mut(number).zip(self.gone.get_mut(number / BITS));
        let Some((document, gone)) = place else { return };
        document.removed = removed;
        *gone |= 1 << (number % BITS);
        for (word, _) in words {
            let list = self.lists.get(word).and_then(|&place| self.postings.get_mut(place as usize));
            if let Some(list) = list {
                list.gone += 1;
            }
        }
    }

    /// The text that the record `created` wrote.
    pub(super) fn number_of(&self, created: u64) -> Option<u32> {
        let found = self.documents.binary_search_by_key(&created, |document| document.created);
        found.ok().map(|number| number as u32)
    }

    pub(super) fn document(&self, number: u32) -> Option<&Document> {
        self.documents.get(number as usize)
    }

    pub(super) const fn lens(&self) -> &[u16] {
        self.lens.as_slice()
    }

    pub(super) const fn entities(&self) -> &[u32] {
        self.entities.as_slice()
    }

    pub(super) const fn usual(&self) -> u8 {
        self.usual
    }

    /// The postings of the word with this number.
    pub(super) fn list(&self, word: u32) -> Option<&List> {
        self.postings.get(*self.lists.get(&word)? as usize)
    }

    /// The texts that a question may look at: those there now, or as of the record `moment`.
    pub(super) fn when(&self, moment: Option<u64>) -> When {
        let known = match moment {
            None => self.documents.len(),
            Some(moment) => self.documents.partition_point(|document| document.created <= moment),
        };
        When { moment: moment.unwrap_or(NONE - 1), known: known as u32 }
    }

    /// How many texts hold the word of `list`.
    pub(super) fn holders(&self, list: &List, when: When) -> u32 {
        let all = when.known as usize == self.documents.len();
        if all && (list.gone == 0 || when.is_now()) {
            return list.count - list.gone;
        }
        let mut holders = 0;
        list.each(self.usual, |number, _| holders += u32::from(self.is_there(number, when)));
        holders
    }

    /// Whether the text was there then. Of most it is enough to know that nothing removed them.
    fn is_there(&self, number: u32, when: When) -> bool {
        let gone = self.gone.get(number as usize / BITS).copied().unwrap_or(u64::MAX);
        number < when.known
            && (gone >> (number as usize % BITS) & 1 == 0
                || self.document(number).is_some_and(|document| document.removed > when.moment))
    }

    /// Whether the text was there then and is true at `valid_at`, where one is given.
    pub(super) fn counts(&self, number: u32, when: When, valid_at: Option<Timestamp>) -> bool {
        let is_true = |at| self.validity.get(&number).is_none_or(|validity| validity.contains(at));
        self.is_there(number, when) && valid_at.is_none_or(is_true)
    }

    /// Bytes it takes, roughly.
    pub(super) const fn bytes(&self) -> usize {
        let a_document = size_of::<Document>() + size_of::<u16>() + size_of::<u32>();
        let a_word = size_of::<List>() + size_of::<(u32, u32)>();
        self.documents.len() * a_document + self.postings.len() * a_word + self.posting_bytes
    }
}
