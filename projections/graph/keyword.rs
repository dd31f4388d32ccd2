//! The keyword query, asked of the graph's readers.

use super::reader::scope_ids;
use super::{GraphReader, ReadError};
use crate::text::{KEYWORD_LIMIT_MAX, KeywordQuery, TextHit, keyword};

/// How often a query has every text read at the most, each time because the words were unloaded before it could ask.
const ROUNDS_MAX: usize = 8;

impl GraphReader {
    /// Rows that share words with the query, best first. The first query after the graph was opened or replaced reads every
    /// text, unless [`load_words`](Self::load_words) did.
    ///
    /// # Errors
    ///
    /// [`ReadError::TooLarge`] beyond [`KEYWORD_LIMIT_MAX`]; [`ReadError::Forgotten`] where words are unloaded again and again;
    /// else as every query.
    pub fn keyword(&self, query: &KeywordQuery) -> Result<Vec<TextHit>, ReadError> {
        if query.limit > KEYWORD_LIMIT_MAX {
            return Err(ReadError::TooLarge { field: "limit", value: query.limit, max: KEYWORD_LIMIT_MAX });
        }
        until_answered(|| {
            self.load_words()?;
            self.snapshot("rows by keyword", |connection| {
                let scopes = scope_ids(connection, &query.scopes)?;
                keyword::ask(connection, self.pool().texts(), self.as_of, &scopes, query)
            })
        })
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

/// Asks until there is an answer; there is none where the words were unloaded meanwhile.
fn until_answered<T>(mut ask: impl FnMut() -> Result<Option<T>, ReadError>) -> Result<T, ReadError> {
    for _ in 0..ROUNDS_MAX {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
    }
    Err(ReadError::Forgotten { rounds: ROUNDS_MAX })
}

#[cfg(test)]
mod tests {
    use super::{ROUNDS_MAX, ReadError, until_answered};

    #[test]
    fn a_query_whose_words_are_unloaded_again_and_again_ends() {
        let answer_in = |round| {
            let mut asked = 0;
            until_answered(|| {
                asked += 1;
                Ok((asked == round).then_some(asked))
            })
        };
        assert!(matches!(answer_in(1), Ok(1)));
        assert!(matches!(answer_in(ROUNDS_MAX), Ok(ROUNDS_MAX)));
        let last = answer_in(ROUNDS_MAX + 1);
        assert!(matches!(last, Err(ReadError::Forgotten { rounds: ROUNDS_MAX })), "{last:?}");
    }
}
