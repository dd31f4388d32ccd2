//! The keyword query, asked of the graph's readers.

use super::reader::scope_ids;
use super::{GraphReader, ReadError};
use crate::text::{KEYWORD_LIMIT_MAX, KeywordQuery, TextHit, keyword};

impl GraphReader {
    /// Rows that share words with the query, best first.
    ///
    /// # Errors
    ///
    /// [`ReadError::TooLarge`] beyond [`KEYWORD_LIMIT_MAX`]; else as every query.
    pub fn keyword(&self, query: &KeywordQuery) -> Result<Vec<TextHit>, ReadError> {
        if query.limit > KEYWORD_LIMIT_MAX {
            return Err(ReadError::TooLarge { field: "limit", value: query.limit, max: KEYWORD_LIMIT_MAX });
        }
        self.snapshot("rows by keyword", |connection| {
            let scopes = scope_ids(connection, &query.scopes)?;
            keyword::ask(connection, self.as_of, &scopes, query)
        })
    }
}
