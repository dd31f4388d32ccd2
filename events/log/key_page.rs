//! The idempotency keys of a stretch, a page at a time: what a backup carries away besides blocks.

use std::collections::BTreeMap;
use std::ops::Bound;

use redb::ReadOnlyTable;

use crate::id::Seq;
use crate::log::keys;
use crate::log::reader::Reader;
use crate::log::scan::ReadError;
use crate::log::store::guarded;

/// Bytes of keys and rows after which a page ends early.
const PAGE_BYTES: usize = 8 << 20;

impl Reader {
    /// Idempotency keys in order, each with its row as it is stored, whose batches lie behind `after` and up to `until`: the first
    /// `len_max` that come behind the key `from`, fewer where they are long, and none where there are no more.
    ///
    /// Each page is read of the log as it is then. One whose `until` is in the log misses no key and meets none twice.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn keys_behind(
        &self,
        from: Option<&str>,
        (after, until): (Seq, Seq),
        len_max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, ReadError> {
        let snapshot = self.snapshot().map_err(ReadError::from)?;
        let mut page = Page::new(from, after, len_max);
        for (key, row) in snapshot.recent[snapshot.recent_from..].iter().flat_map(|block| block.keys()) {
            page.take(key, row, until)?;
        }
        page.read(&snapshot.own.keys, until)?;
        for part in snapshot.past.parts.iter().filter(|part| after < part.sealed.keys_through) {
            page.read(&part.tables.keys, until.min(part.sealed.keys_through))?;
        }
        Ok(page.rows.into_iter().collect())
    }
}

/// A page under way: the first keys of all that it was shown.
struct Page<'a> {
    from: Option<&'a str>,
    after: Seq,
    len_max: usize,
    rows: BTreeMap<String, Vec<u8>>,
    bytes: usize,
    /// The first key that had no room: what comes from here on is for later pages.
    end: Option<String>,
}

impl<'a> Page<'a> {
    fn new(from: Option<&'a str>, after: Seq, len_max: usize) -> Self {
        Self { from, after, len_max: len_max.max(1), rows: BTreeMap::new(), bytes: 0, end: None }
    }

    /// Takes what belongs to it of a table in the order of keys.
    fn read(
        &mut self,
        table: &ReadOnlyTable<&'static str, &'static [u8]>,
        until: Seq,
    ) -> Result<(), ReadError> {
        let behind: (Bound<&str>, Bound<&str>) =
            (self.from.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let mut rows = guarded(|| Ok(table.range_owned::<&str>(behind)?)).map_err(ReadError::from)?;
        loop {
            let taken = guarded(|| {
                let next = rows.next().transpose()?;
                Ok(next.map(|(key, row)| self.take(key.value(), row.value(), until)))
            });
            let goes_on = taken.map_err(ReadError::from)?.transpose()?.unwrap_or(false);
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// Takes a key if it belongs to it; whether one behind it may.
    fn take(&mut self, key: &str, row: &[u8], until: Seq) -> Result<bool, ReadError> {
        if self.end.as_deref().is_some_and(|end| end <= key) {
            return Ok(false);
        }
        if self.from.is_some_and(|from| key <= from) {
            return Ok(true);
        }
        let known = keys::decode(key, row).ok_or_else(|| ReadError::Key { key: key.to_owned() })?;
        if self.after < known.last && known.last <= until {
            self.put(key, row);
        }
        Ok(true)
    }

    fn put(&mut self, key: &str, row: &[u8]) {
        // The row that came first is the newer one.
        if self.rows.contains_key(key) {
            return;
        }
        self.bytes += key.len() + row.len();
        self.rows.insert(key.to_owned(), row.to_vec());
        while self.rows.len() > self.len_max || (self.bytes > PAGE_BYTES && self.rows.len() > 1) {
            let Some((key, row)) = self.rows.pop_last() else { return };
            self.bytes -= key.len() + row.len();
            self.end = Some(key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::{PAGE_BYTES, Page};
    use crate::Seq;
    use crate::log::tests::{append, batch, clock, keyed, options};
    use crate::log::{Log, ReadError, Reader};

    /// All pages of so many keys, one behind the other.
    fn pages(reader: &Reader, stretch: (Seq, Seq), len_max: usize) -> Vec<(String, Vec<u8>)> {
        let mut all: Vec<(String, Vec<u8>)> = Vec::new();
        loop {
            let from = all.last().map(|(key, _)| key.clone());
            let page = reader.keys_behind(from.as_deref(), stretch, len_max).unwrap();
            assert!(page.len() <= len_max);
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    #[test]
    fn pages_hold_every_key_of_a_stretch_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), options(), clock()).unwrap();
        for number in 0..40 {
            append(&log, keyed(batch("a", &["x"]), &format!("key {:02}", number * 7 % 40), 1));
            if [15, 26].contains(&number) {
                log.seal().unwrap();
            }
        }
        let reader = log.reader();
        for (after, until) in [(0, 40), (10, 30), (16, 40), (27, 40), (3, 9), (40, 40)] {
            let stretch = (Seq(after), Seq(until));
            let mut expected = Vec::new();
            let shown = reader.keys_of::<ReadError>(stretch.0, stretch.1, &mut |key, row| {
                expected.push((key.to_owned(), row.to_vec()));
                Ok(())
            });
            shown.unwrap();
            expected.sort();
            assert_eq!(expected.len() as u64, until - after);
            for len_max in [1, 3, 7, 100] {
                assert_eq!(pages(&reader, stretch, len_max), expected, "{stretch:?} {len_max}");
            }
        }
    }

    #[test]
    fn a_page_of_long_rows_ends_early_and_holds_one_at_the_least() {
        let mut page = Page::new(None, Seq::ZERO, 10);
        let half = vec![0_u8; PAGE_BYTES / 2 + 1];
        for key in ["c", "b"] {
            page.put(key, &half);
        }
        page.put("a", &[half.clone(), half].concat());
        assert_eq!(page.rows.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(page.end.as_deref(), Some("b"));
    }
}
