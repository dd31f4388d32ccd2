//! The rows of a damaged store, found without its trees.
//!
//! A page that leads to others takes with it all that lies below it, though that may be whole. So every page of the file is
//! looked at for what a leaf looks like, and a row counts if it proves itself: a header by its checksum, a body by what its
//! header says of it, one header beside another by the chain. What the store no longer refers to may be found, too; it
//! is used only where it fits between its neighbours.
//!
//! Source of the layout: redb 4.6, docs/design.md, "Leaf page".

use std::collections::{BTreeMap, HashMap};
use std::io;

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use crate::id::Seq;
use crate::log::block::Block;
use crate::log::chain::Hash;
use crate::log::header::{HEADER_BYTES_MAX, Header, MAGIC, array};
use crate::log::journal::{PAGE, Remains};
use crate::log::open::{FORMAT_ROW, ID_ROW, LOG_FORMAT, ORIGIN_ROW};
use crate::log::origin::Origin;
use crate::log::store::{BODIES, HEADERS, KEYS, META, StoreError};

/// How the type of a leaf is written.
const LEAF: u8 = 1;
/// So much of the file is read at a time.
const STRETCH_BYTES: u64 = 256 * PAGE;

/// A store made of what was found. Bodies stay where they are.
pub(crate) struct Gathered {
    pub database: redb::Database,
    pub bodies: Bodies,
}

/// Where the bodies of blocks lie in the file.
pub(crate) struct Bodies {
    medium: Remains,
    places: HashMap<Seq, Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    at: u64,
    len: u32,
}

/// A row of a table whose keys are positions.
struct Row {
    key: u64,
    place: Place,
}

/// A header that is right, and what was found of its body.
struct Candidate {
    header: Vec<u8>,
    first: Seq,
    last: Seq,
    prev_root: Hash,
    root: Hash,
    /// Where the header was found.
    at: u64,
    body: Option<Place>,
    /// Whether the body is what was written.
    exact: bool,
    /// Whether events of it were erased.
    erased: bool,
}

#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    candidates: Vec<Candidate>,
    meta: BTreeMap<String, Vec<u8>>,
}

impl Bodies {
    /// The body of the block at `first`; `None` where none was found.
    pub(crate) fn read(&self, first: Seq) -> Result<Option<Box<[u8]>>, StoreError> {
        self.places.get(&first).map(|place| self.medium.bytes(*place)).transpose().map_err(StoreError::Io)
    }
}

impl Remains {
    fn bytes(&self, place: Place) -> io::Result<Box<[u8]>> {
        let mut bytes = vec![0; place.len as usize];
        self.read(place.at, &mut bytes)?;
        Ok(bytes.into())
    }
}

/// Looks through the whole file of the log with this id, if that is known.
pub(crate) fn gather(medium: Remains, log_id: Option<[u8; 16]>) -> Result<Gathered, StoreError> {
    let mut found = Found::default();
    if let Some(log_id) = log_id {
        found.take_about(ID_ROW, &log_id);
    }
    look_through(&medium, &mut found).map_err(StoreError::Io)?;
    find_bodies(&medium, &mut found).map_err(StoreError::Io)?;
    let Found { mut candidates, mut meta, .. } = found;
    // Without an id, nothing of the write-ahead log can be told from what a user wrote.
    meta.entry(ID_ROW.to_owned()).or_insert_with(|| vec![0; 16]);
    meta.entry(FORMAT_ROW.to_owned()).or_insert_with(|| LOG_FORMAT.to_le_bytes().to_vec());
    drop_what_lies_in_bodies(&mut candidates);
    let chosen = choose(&mut candidates);
    let database = redb::Builder::new().create_with_backend(InMemoryBackend::new())?;
    let transaction = database.begin_write()?;
    {
        let mut rows = transaction.open_table(META)?;
        for (name, row) in &meta {
            rows.insert(name.as_str(), row.as_slice())?;
        }
        let mut headers = transaction.open_table(HEADERS)?;
        for candidate in &chosen {
            headers.insert(candidate.first.0, candidate.header.as_slice())?;
        }
        transaction.open_table(BODIES)?;
        transaction.open_table(KEYS)?;
    }
    transaction.commit()?;
    let places = chosen.iter().filter_map(|candidate| Some((candidate.first, candidate.body?))).collect();
    Ok(Gathered { database, bodies: Bodies { medium, places } })
}

fn look_through(medium: &Remains, found: &mut Found) -> io::Result<()> {
    let bytes = medium.len()?;
    let mut stretch = Vec::new();
    let mut start = 0;
    while start < bytes {
        stretch.resize(STRETCH_BYTES.min(bytes - start) as usize, 0);
        medium.read(start, &mut stretch)?;
        for (page, at) in stretch.chunks(PAGE as usize).zip((start..).step_by(PAGE as usize)) {
            if page[0] == LEAF && page.len() == PAGE as usize {
                found.take_rows(page, at, bytes, medium)?;
                found.take_meta(page);
            }
        }
        start += STRETCH_BYTES;
    }
    Ok(())
}

/// Where keys and values of a leaf's rows end, if it may be one of that many rows: offsets of the fixed part, 4 bytes each.
fn offsets(page: &[u8], start: usize, count: usize) -> Option<Vec<usize>> {
    let table = page.get(start..start + 4 * count)?;
    let ends: Vec<usize> = table.chunks_exact(4).map(|end| u32::from_le_bytes(array(end)) as usize).collect();
    ends.is_sorted().then_some(ends)
}

impl Found {
    /// Takes the rows of a leaf whose keys are positions; headers are read.
    fn take_rows(&mut self, page: &[u8], at: u64, file_bytes: u64, medium: &Remains) -> io::Result<()> {
        let count = usize::from(u16::from_le_bytes(array(&page[2..4])));
        let (keys, values) = (4 + 4 * count, 4 + 12 * count);
        let Some(ends) = offsets(page, 4, count) else { return Ok(()) };
        let Some(keys) = page.get(keys..values) else { return Ok(()) };
        let keys: Vec<u64> = keys.chunks_exact(8).map(|key| u64::from_le_bytes(array(key))).collect();
        let fits = ends.last().is_some_and(|end| at + *end as u64 <= file_bytes);
        if !fits || ends[0] < values || !keys.is_sorted_by(|one, next| one < next) {
            return Ok(());
        }
        let mut start = values;
        for (key, end) in keys.into_iter().zip(ends) {
            let place = Place { at: at + start as u64, len: (end - start) as u32 };
            let header = page.get(start..).is_some_and(|value| value.starts_with(MAGIC));
            if header && (place.len as usize) <= HEADER_BYTES_MAX {
                self.take_header(Seq(key), place, medium.bytes(place)?.into());
            } else {
                self.rows.push(Row { key, place });
            }
            start = end;
        }
        Ok(())
    }

    fn take_header(&mut self, first: Seq, place: Place, bytes: Vec<u8>) {
        let Ok(header) = Header::decode(first, &bytes) else { return };
        let (last, prev_root, root) = (header.last(), header.prev_root, header.root);
        self.candidates.push(Candidate {
            header: bytes,
            first,
            last,
            prev_root,
            root,
            at: place.at,
            body: None,
            exact: false,
            erased: false,
        });
    }

    /// Takes the rows that say what is known about the log as a whole. What is known already stays.
    fn take_meta(&mut self, page: &[u8]) {
        let count = usize::from(u16::from_le_bytes(array(&page[2..4])));
        let start = 4 + 8 * count;
        let (Some(key_ends), Some(value_ends)) =
            (offsets(page, 4, count), offsets(page, 4 + 4 * count, count))
        else {
            return;
        };
        let mut key_start = start;
        let Some(mut value_start) = key_ends.last().copied() else { return };
        for (key_end, value_end) in key_ends.into_iter().zip(value_ends) {
            let (key, value) = (page.get(key_start..key_end), page.get(value_start..value_end));
            let name = key.and_then(|key| std::str::from_utf8(key).ok());
            if let (Some(name), Some(value)) = (name, value) {
                self.take_about(name, value);
            }
            (key_start, value_start) = (key_end, value_end);
        }
    }

    fn take_about(&mut self, name: &str, value: &[u8]) {
        let known = self.meta.get(name);
        let better = match name {
            FORMAT_ROW => known.is_none() && value.len() == 4,
            ID_ROW => known.is_none() && value.len() == 16,
            // A log's beginning only moves on.
            ORIGIN_ROW => Origin::from_json(value).is_some_and(|origin| {
                let known = known.and_then(|known| Origin::from_json(known));
                known.is_none_or(|known| begins(&known) < begins(&origin))
            }),
            _ => false,
        };
        if better {
            self.meta.insert(name.to_owned(), value.to_vec());
        }
    }
}

/// Grows as a log's beginning moves on.
fn begins(origin: &Origin) -> (Seq, Option<Seq>, usize) {
    (origin.before_first().seq, origin.sealed.last().map(|sealed| sealed.through), origin.forks.len())
}

/// Holds the rows that may be bodies to the headers at the same position.
fn find_bodies(medium: &Remains, found: &mut Found) -> io::Result<()> {
    let mut at_first: HashMap<Seq, Vec<usize>> = HashMap::new();
    for (index, candidate) in found.candidates.iter().enumerate() {
        at_first.entry(candidate.first).or_default().push(index);
    }
    for Row { key, place } in std::mem::take(&mut found.rows) {
        let Some(indexes) = at_first.get(&Seq(key)) else { continue };
        let mut body: Option<Box<[u8]>> = None;
        for index in indexes {
            let candidate = &mut found.candidates[*index];
            let Ok(header) = Header::decode(candidate.first, &candidate.header) else { continue };
            if candidate.exact || header.body_bytes != place.len {
                continue;
            }
            let body: &[u8] = match &mut body {
                Some(body) => body,
                none => none.insert(medium.bytes(place)?),
            };
            let block = Block::open_to_read(&header, body);
            let exact = block.as_ref().is_ok_and(|block| block.is_sound() || header.body_checksum.is_none());
            if exact || candidate.body.is_none() {
                candidate.erased = block.is_ok_and(|block| block.has_redacted());
                (candidate.body, candidate.exact) = (Some(place), exact);
            }
        }
    }
    Ok(())
}

/// Forgets headers that lie in what bodies were proven to be: they are what somebody wrote into a message.
fn drop_what_lies_in_bodies(candidates: &mut Vec<Candidate>) {
    let mut bodies: Vec<Place> = candidates
        .iter()
        .filter(|candidate| candidate.exact)
        .filter_map(|candidate| candidate.body)
        .collect();
    bodies.sort_unstable_by_key(|body| body.at);
    // No two lie over each other unless one is of that kind, and it lies in the longer one.
    let mut outer: Vec<Place> = Vec::new();
    for body in bodies {
        let within = |outer: &Place| body.at < outer.at + u64::from(outer.len);
        if !outer.last().is_some_and(within) {
            outer.push(body);
        }
    }
    candidates.retain(|candidate| {
        let before = outer.partition_point(|body| body.at <= candidate.at);
        let around = before.checked_sub(1).map(|index| outer[index]);
        around.is_none_or(|body| body.at + u64::from(body.len) <= candidate.at)
    });
}

/// One way through what was found: whole blocks first, the others where these leave room.
fn choose(candidates: &mut [Candidate]) -> Vec<&Candidate> {
    // Of several that begin at one place, the last in this order is best; an erased event stays erased.
    candidates.sort_by_key(|it| (it.first, it.exact, it.erased, it.body.is_some(), it.last));
    let groups = || candidates.chunk_by(|one, next| one.first == next.first);
    let mut whole: Vec<&Candidate> = Vec::new();
    for group in groups() {
        let before = whole.last();
        if before.is_some_and(|before| before.last >= group[0].first) {
            continue;
        }
        let exact = || group.iter().rev().filter(|candidate| candidate.exact);
        let follows =
            |candidate: &&Candidate| before.is_some_and(|before| before.root == candidate.prev_root);
        let best = exact().find(follows).or_else(|| exact().next());
        whole.extend(best);
    }
    let mut chosen: Vec<&Candidate> = Vec::with_capacity(whole.len());
    let mut left = whole.into_iter().peekable();
    for group in groups() {
        let first = group[0].first;
        if let Some(next) = left.next_if(|next| next.first == first) {
            chosen.push(next);
            continue;
        }
        let room = left.peek().map_or(Seq(u64::MAX), |next| next.first.previous());
        if chosen.last().is_none_or(|before| before.last < first) {
            chosen.extend(group.iter().rev().find(|candidate| candidate.last <= room));
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Place, choose, drop_what_lies_in_bodies};
    use crate::Seq;
    use crate::log::chain::Hash;

    /// A whole block of `first` to `last` whose body lies at a place of its own.
    fn block(first: u64, last: u64, roots: (u8, u8)) -> Candidate {
        Candidate {
            header: Vec::new(),
            first: Seq(first),
            last: Seq(last),
            prev_root: Hash([roots.0; 32]),
            root: Hash([roots.1; 32]),
            at: 0,
            body: Some(Place { at: first * 100_000, len: 50_000 }),
            exact: true,
            erased: false,
        }
    }

    #[track_caller]
    fn check(mut candidates: Vec<Candidate>, chosen: &[(u64, u64, u8)]) {
        let found: Vec<(u64, u64, u8)> =
            choose(&mut candidates).iter().map(|it| (it.first.0, it.last.0, it.root.0[0])).collect();
        assert_eq!(found, chosen);
    }

    #[test]
    fn what_follows_in_the_chain_is_chosen_and_what_is_whole_before_what_is_not() {
        check(vec![block(3, 4, (1, 2)), block(1, 2, (0, 1))], &[(1, 2, 1), (3, 4, 2)]);
        // Of two that are whole, the one that follows, be it shorter.
        let other = block(3, 9, (7, 8));
        check(vec![block(1, 2, (0, 1)), other, block(3, 4, (1, 2))], &[(1, 2, 1), (3, 4, 2)]);
        // One that is not whole gives way, and fills what is left.
        let broken = Candidate { exact: false, ..block(1, 4, (0, 2)) };
        check(vec![broken, block(3, 4, (1, 2))], &[(3, 4, 2)]);
        let broken = Candidate { exact: false, ..block(3, 4, (1, 2)) };
        let headless = Candidate { body: None, ..Candidate { exact: false, ..block(3, 4, (9, 9)) } };
        check(
            vec![block(1, 2, (0, 1)), broken, headless, block(5, 6, (2, 3))],
            &[(1, 2, 1), (3, 4, 2), (5, 6, 3)],
        );
        // An erased event stays erased.
        let erased = Candidate { erased: true, ..block(1, 2, (0, 1)) };
        let mut candidates = vec![erased, block(1, 2, (0, 1))];
        assert!(choose(&mut candidates)[0].erased);
    }

    #[test]
    fn a_header_within_a_body_is_part_of_a_message() {
        let within = Candidate { at: 110_000, ..block(2, 2, (5, 6)) };
        let forged_body =
            Candidate { at: 120_000, body: Some(Place { at: 120_100, len: 10 }), ..block(1, 1, (5, 6)) };
        let behind = Candidate { at: 150_000, ..block(3, 4, (1, 2)) };
        let mut candidates = vec![within, forged_body, block(1, 2, (0, 1)), behind];
        drop_what_lies_in_bodies(&mut candidates);
        assert_eq!(candidates.iter().map(|it| it.at).collect::<Vec<_>>(), [0, 150_000]);
        // Of a body that is not what was written nothing is known.
        let damaged = Candidate { exact: false, ..block(1, 2, (0, 1)) };
        let mut candidates = vec![damaged, Candidate { at: 110_000, ..block(2, 2, (5, 6)) }];
        drop_what_lies_in_bodies(&mut candidates);
        assert_eq!(candidates.len(), 2);
    }
}
