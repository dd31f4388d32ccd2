//! From a moment to the place in the log: the last record that was there, and when a record was made.

use crate::id::Seq;
use crate::log::blocks::{next_header, read_header};
use crate::log::filter::Filter;
use crate::log::reader::Reader;
use crate::log::scan::ReadError;
use crate::time::Timestamp;

impl Reader {
    /// The last record that was recorded at `at` or before; [`Seq::ZERO`] when there is none, and a position that was dropped
    /// when there is none among those that are kept. Times never go back from one
    /// record to the next, so that it is found by halving: it takes about log₂ of the number of blocks of headers and the
    /// events of one block. Events that were erased keep their times.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the store fails or a block on the way is damaged.
    pub fn last_by(&self, at: Timestamp) -> Result<Seq, ReadError> {
        let head = self.head();
        if head.recorded_at <= at {
            return Ok(head.seq);
        }
        let (snapshot, _) = self.bounded()?;
        // The answer lies from `low` on and before `high`.
        let (mut low, mut high) = (Seq::ZERO, head.seq);
        while low.next() < high {
            let middle = Seq(low.0.midpoint(high.0));
            let Some((first, value)) = next_header(&mut snapshot.headers_until(middle)?, true)? else {
                // What lay there was dropped; it was recorded before everything that is kept.
                low = middle;
                continue;
            };
            let header = read_header(first, &value)?;
            if header.first_at > at {
                high = first;
            } else if header.last_at <= at {
                low = header.last();
            } else {
                // It lies in this block.
                let filter = Filter {
                    until: Some(first),
                    recorded_before: Some(Timestamp::from_unix_micros(at.unix_micros() + 1)),
                    ..Filter::default()
                };
                let last = self.scan_found_back(header.last(), &filter).next().transpose()?;
                return Ok(last.map_or(first.previous(), |found| found.seq()));
            }
        }
        Ok(low)
    }

    /// When the record `seq` was recorded, also if it was erased since; `None` when there is no such record.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the store fails or its block is damaged.
    pub fn recorded_at(&self, seq: Seq) -> Result<Option<Timestamp>, ReadError> {
        let only = Filter { until: Some(seq), ..Filter::default() };
        let found = self.scan_found(seq, &only).next().transpose()?;
        Ok(found.filter(|found| found.seq() == seq).map(|found| found.recorded_at()))
    }
}
