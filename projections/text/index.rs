//! The full-text index: a contentless FTS5 table whose documents are keyed by the record that wrote them, and another of the
//! same make for the documents that were replaced or removed.
//!
//! A document's key is `2 × seq + 1` for the header of an entity and `2 × seq` for an observation, so keys only grow,
//! which FTS5 needs to write fast. Its words carry the scope and the field (`12n_ada`: scope 12, a name), so that the rows
//! that hold a word *in one scope* are one list, and a query never walks the rows of scopes it must not see.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rusqlite::{Connection, params};

use super::TextHitKind;
use super::words::{each_word, is_stop_word};

/// What the index is made of. `ascii` splits at what is neither letter, digit, `_` nor beyond ASCII: exactly at the
/// spaces between the words we hand over.
pub(crate) const SCHEMA: &str = "
CREATE VIRTUAL TABLE texts USING fts5(words, content='', contentless_delete=1, detail=none,
    tokenize=\"ascii tokenchars '_'\");
CREATE VIRTUAL TABLE texts_words USING fts5vocab(texts, instance);
CREATE VIRTUAL TABLE texts_past USING fts5(words, content='', contentless_delete=1, detail=none,
    tokenize=\"ascii tokenchars '_'\");
CREATE VIRTUAL TABLE texts_past_words USING fts5vocab(texts_past, instance);
";

/// What removes it.
pub(crate) const DROP: &str = "
DROP TABLE IF EXISTS texts_words; DROP TABLE IF EXISTS texts;
DROP TABLE IF EXISTS texts_past_words; DROP TABLE IF EXISTS texts_past;
";

/// Settings for a fold of the whole log: larger pieces, merged at the end.
pub(crate) const BULK: &str = "
INSERT INTO texts(texts, rank) VALUES ('hashsize', 67108864);
INSERT INTO texts(texts, rank) VALUES ('automerge', 0);
INSERT INTO texts(texts, rank) VALUES ('crisismerge', 1000);
INSERT INTO texts_past(texts_past, rank) VALUES ('hashsize', 16777216);
INSERT INTO texts_past(texts_past, rank) VALUES ('automerge', 0);
INSERT INTO texts_past(texts_past, rank) VALUES ('crisismerge', 1000);
";

/// Back to the settings for small batches, with what was written in bulk merged.
pub(crate) const LIVE: &str = "
INSERT INTO texts(texts) VALUES ('optimize');
INSERT INTO texts(texts, rank) VALUES ('hashsize', 1048576);
INSERT INTO texts(texts, rank) VALUES ('automerge', 4);
INSERT INTO texts(texts, rank) VALUES ('crisismerge', 16);
INSERT INTO texts_past(texts_past) VALUES ('optimize');
INSERT INTO texts_past(texts_past, rank) VALUES ('hashsize', 1048576);
INSERT INTO texts_past(texts_past, rank) VALUES ('automerge', 4);
INSERT INTO texts_past(texts_past, rank) VALUES ('crisismerge', 16);
";

/// Which text of a row a word stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// The name of an entity; stop words count here.
    Name,
    /// The type of an entity or the content of an observation.
    Body,
}

impl Field {
    const fn letter(self) -> char {
        match self {
            Self::Name => 'n',
            Self::Body => 'o',
        }
    }
}

/// The word as the index holds it.
pub(crate) fn indexed_word(into: &mut String, scope: i64, field: Field, word: &str) {
    // Writing to a string cannot fail.
    let _ = write!(into, "{scope}{}_{word}", field.letter());
}

/// The document's key for a row written by the record `seq`.
pub(crate) const fn document(seq: i64, kind: TextHitKind) -> i64 {
    match kind {
        TextHitKind::Header => seq * 2 + 1,
        TextHitKind::Observation => seq * 2,
    }
}

/// The record and the kind of row behind a document's key.
pub(crate) const fn row_of(document: i64) -> (i64, TextHitKind) {
    let kind = if document & 1 == 1 { TextHitKind::Header } else { TextHitKind::Observation };
    (document >> 1, kind)
}

/// What one batch of records changes in the index.
///
/// Kept back until the end of the batch: FTS5 does not find a document again that the same transaction has added, and
/// many rows that a batch replaces are of the same batch.
#[derive(Debug, Default)]
pub(crate) struct TextBatch {
    added: BTreeMap<i64, String>,
    removed: Vec<i64>,
    /// What is not in the present any more.
    past: BTreeMap<i64, String>,
}

impl TextBatch {
    /// Adds the header of an entity; returns how many words it has.
    pub(crate) fn add_header(&mut self, seq: i64, scope: i64, name: &str, entity_type: &str) -> i64 {
        let (words, len) = header_words(scope, name, entity_type);
        self.added.insert(document(seq, TextHitKind::Header), words);
        len
    }

    /// Adds the content of an observation; returns how many words it has.
    pub(crate) fn add_observation(&mut self, seq: i64, scope: i64, content: &str) -> i64 {
        let (words, len) = content_words(scope, content);
        self.added.insert(document(seq, TextHitKind::Observation), words);
        len
    }

    /// Moves the header of an entity into the past; returns how many words it has.
    pub(crate) fn close_header(&mut self, seq: i64, scope: i64, name: &str, entity_type: &str) -> i64 {
        let (words, len) = header_words(scope, name, entity_type);
        self.close(document(seq, TextHitKind::Header), words);
        len
    }

    /// Moves the content of an observation into the past; returns how many words it has.
    pub(crate) fn close_observation(&mut self, seq: i64, scope: i64, content: &str) -> i64 {
        let (words, len) = content_words(scope, content);
        self.close(document(seq, TextHitKind::Observation), words);
        len
    }

    fn close(&mut self, document: i64, words: String) {
        if self.added.remove(&document).is_none() {
            self.removed.push(document);
        }
        self.past.insert(document, words);
    }

    /// Writes the changes, in the order of the keys.
    pub(crate) fn write(self, connection: &Connection) -> rusqlite::Result<()> {
        let mut delete = connection.prepare_cached("DELETE FROM texts WHERE rowid = ?1")?;
        for document in self.removed {
            delete.execute(params![document])?;
        }
        let mut insert = connection.prepare_cached("INSERT INTO texts(rowid, words) VALUES (?1, ?2)")?;
        for (document, words) in self.added {
            insert.execute(params![document, words])?;
        }
        let mut insert = connection.prepare_cached("INSERT INTO texts_past(rowid, words) VALUES (?1, ?2)")?;
        for (document, words) in self.past {
            insert.execute(params![document, words])?;
        }
        Ok(())
    }
}

/// The words of a header as the index holds them, and how many there are.
fn header_words(scope: i64, name: &str, entity_type: &str) -> (String, i64) {
    let mut words = String::with_capacity((name.len() + entity_type.len()) * 2);
    let mut len = 0;
    each_word(name, |word| {
        indexed_word(&mut words, scope, Field::Name, word);
        words.push(' ');
        len += 1;
    });
    len += push_body(&mut words, scope, entity_type);
    (words, len)
}

/// The words of a content as the index holds them, and how many there are.
fn content_words(scope: i64, content: &str) -> (String, i64) {
    let mut words = String::with_capacity(content.len() * 2);
    let len = push_body(&mut words, scope, content);
    (words, len)
}

fn push_body(words: &mut String, scope: i64, text: &str) -> i64 {
    let mut len = 0;
    each_word(text, |word| {
        if !is_stop_word(word) {
            indexed_word(words, scope, Field::Body, word);
            words.push(' ');
            len += 1;
        }
    });
    len
}
