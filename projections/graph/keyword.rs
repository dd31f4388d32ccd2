//! The keyword query, asked of the graph's readers.

use super::reader::scope_ids;
use super::{GraphReader, ReadError};
use crate::text::{KEYWORD_LIMIT_MAX, KeywordQuery, TextHit, keyword};

impl GraphReader {
    /// Rows that share words with the query, best first. The first query after the graph was opened or replaced reads every
    /// text, unless [`load_words`](Self::load_words) did.
    ///
    /// # Errors
    ///
    /// [`ReadError::TooLarge`] beyond [`KEYWORD_LIMIT_MAX`]; else as every query.
    pub fn keyword(&self, query: &KeywordQuery) -> Result<Vec<TextHit>, ReadError> {
        if query.limit > KEYWORD_LIMIT_MAX {
            return Err(ReadError::TooLarge { field: "limit", value: query.limit, max: KEYWORD_LIMIT_MAX });
        }
        loop {
            self.load_words()?;
            let answer = self.snapshot("rows by keyword", |connection| {
                let scopes = scope_ids(connection, &query.scopes)?;
                keyword::ask(connection, self.pool().texts(), self.as_of, &scopes, query)
            })?;
            // Else the words were unloaded meanwhile.
            if let Some(hits) = answer {
                return Ok(hits);
            }
        }
    }

    /// Reads every text and notes which words stand in it, unless that was done: about a second for 500,000 texts. Queries
    /// by keyword wait for it.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn load_words(&self) -> Result<(), ReadError> {
        let texts = self.pool().texts();
        if texts.is_loaded() {
            return Ok(());
        }
        texts.load(|read| self.snapshot("every text", |connection| read(connection)))
    }

    /// Bytes that the words take in memory, roughly.
    pub fn words_bytes(&self) -> usize {
        self.pool().texts().bytes()
    }
}
