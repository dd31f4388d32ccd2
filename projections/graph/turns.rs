//! When the present will be another one without anything being written.

use caxton_events::Timestamp;

use super::{GraphReader, ReadError};

/// The least of the ends of validity behind `?1`: each is the first row of an index.
pub(super) const NEXT_TURN: &str = "SELECT min(at) FROM (
    SELECT min(valid_from) AS at FROM entities WHERE removed_seq IS NULL AND valid_from > ?1 UNION ALL
    SELECT min(valid_to) FROM entities WHERE removed_seq IS NULL AND valid_to > ?1 UNION ALL
    SELECT min(valid_from) FROM observations WHERE removed_seq IS NULL AND valid_from > ?1 UNION ALL
    SELECT min(valid_to) FROM observations WHERE removed_seq IS NULL AND valid_to > ?1 UNION ALL
    SELECT min(valid_from) FROM relations WHERE removed_seq IS NULL AND valid_from > ?1 UNION ALL
    SELECT min(valid_to) FROM relations WHERE removed_seq IS NULL AND valid_to > ?1)";

impl GraphReader {
    /// The first moment after `after` at which something of the present, in any scope, begins or ends to be true; `None`: there
    /// is none.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn next_turn(&self, after: Timestamp) -> Result<Option<Timestamp>, ReadError> {
        let at: Option<i64> = self.with("the times of the memory", |connection| {
            connection.prepare_cached(NEXT_TURN)?.query_row([after.unix_micros() as i64], |row| row.get(0))
        })?;
        Ok(at.map(|micros| Timestamp::from_unix_micros(micros as u64)))
    }
}
