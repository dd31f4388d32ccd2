//! The rows of a damaged store, found without its trees.
//!
//! A page that leads to others takes with it all that lies below it, though that may be whole. So every page of the file is
//! looked at for what a leaf looks like, and a row counts if it proves itself: a header by its checksum, a body by what its
//! header says of it. What the store no longer refers to is found, too; of blocks that lie over each other those are
//! used that give the most events and continue each other in the chain.
//!
//! Source of the layout: redb 4.6, docs/design.md, "Leaf page".

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use crate::id::Seq;
use crate::log::block::Block;
use crate::log::chain::Hash;
use crate::log::header::{HEADER_BYTES_MAX, Header, MAGIC, array};
use crate::log::journal::{Journal, PAGE, Remains};
use crate::log::open::{FORMAT_ROW, ID_ROW, LOG_FORMAT, ORIGIN_ROW};
use crate::log::origin::Origin;
use crate::log::store::{BODIES, HEADERS, KEYS, META, StoreError};
use crate::log::wal::{self, SEED_ROW, Seed, WalBlock};

/// How the type of a leaf is written.
const LEAF: u8 = 1;
/// Longest row about the log as a whole that is read.
const ABOUT_BYTES_MAX: usize = 1 << 20;
/// Rows about the log as a whole that are looked for.
const ABOUT_ROWS: [&str; 4] = [FORMAT_ROW, ID_ROW, ORIGIN_ROW, SEED_ROW];
/// So much of the file is read at a time.
const STRETCH_BYTES: u64 = 256 * PAGE;

/// A store made of what was found. Bodies stay where they are.
pub(crate) struct Gathered {
    pub database: redb::Database,
    pub bodies: Bodies,
    /// What looks like records of the write-ahead log with events behind these, where their seed is not known.
    pub unread_records: u64,
}

/// Where the bodies of blocks are.
pub(crate) struct Bodies {
    mediums: Vec<Remains>,
    places: HashMap<Seq, Source>,
}

enum Source {
    /// There in redb's part of a medium.
    Place(usize, Place),
    /// In the write-ahead log.
    Logged(Arc<WalBlock>),
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
    /// Where the header was found, and in which medium.
    at: u64,
    medium: usize,
    body: Option<Place>,
    /// The block, where it was found in the write-ahead log.
    logged: Option<Arc<WalBlock>>,
    /// Whether the body is what was written.
    exact: bool,
    /// How many events of it can be read.
    right: u64,
    /// Whether events of it were erased.
    erased: bool,
}

#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    candidates: Vec<Candidate>,
    /// Rows about the log as a whole: where, name and value.
    about: Vec<(u64, String, Vec<u8>)>,
}

impl Bodies {
    /// The body of the block at `first`; `None` where none was found.
    pub(crate) fn read(&self, first: Seq) -> Result<Option<Box<[u8]>>, StoreError> {
        match self.places.get(&first) {
            Some(Source::Place(medium, place)) => {
                self.mediums[*medium].bytes(*place).map(Some).map_err(StoreError::Io)
            }
            Some(Source::Logged(block)) => Ok(Some(block.body().into())),
            None => Ok(None),
        }
    }
}

impl Remains {
    fn bytes(&self, place: Place) -> io::Result<Box<[u8]>> {
        let mut bytes = vec![0; place.len as usize];
        self.read(place.at, &mut bytes)?;
        Ok(bytes.into())
    }
}

/// Looks through the whole file of the log with this id and this origin, if these are known; as each of `journals` has it.
pub(crate) fn gather(
    journals: &[Arc<Journal>],
    log_id: Option<[u8; 16]>,
    origin: Option<Vec<u8>>,
) -> Result<Gathered, StoreError> {
    let mediums: Vec<Remains> = journals.iter().map(Journal::remains).collect();
    let (mut candidates, mut about) = (Vec::new(), Vec::new());
    for (index, medium) in mediums.iter().enumerate() {
        let mut found = Found::default();
        look_through(medium, &mut found).map_err(StoreError::Io)?;
        find_bodies(medium, &mut found).map_err(StoreError::Io)?;
        // What lies in a body that was proven to be one is what somebody wrote into a message.
        let bodies = outermost(&found.candidates);
        found.candidates.retain(|candidate| !lies_in(candidate.at, &bodies));
        found.about.retain(|(at, ..)| !lies_in(*at, &bodies));
        candidates.extend(found.candidates.into_iter().map(|it| Candidate { medium: index, ..it }));
        about.append(&mut found.about);
    }
    about.extend(origin.map(|origin| (u64::MAX, ORIGIN_ROW.to_owned(), origin)));
    let mut about = known(about, log_id);
    // A superblock proves itself, and a row about the log does not.
    let seed = journals.iter().find_map(|journal| journal.kept_seed());
    about.extend(seed.map(|seed| (SEED_ROW.to_owned(), seed.to_vec())));
    let wal = journals.first().map(|journal| journal.read_wal()).transpose().map_err(StoreError::Io)?;
    let wal = wal.unwrap_or_default();
    if let Some(log_id) = about.get(ID_ROW).and_then(|id| <[u8; 16]>::try_from(id.as_slice()).ok())
        && let Some(seed) = Seed::of_file(about.get(SEED_ROW).map(Vec::as_slice), &log_id)
    {
        candidates.extend(wal::records(seed, &wal).iter().filter_map(logged));
    }
    let chosen = choose(&mut candidates);
    let reached = chosen.last().map_or(Seq::ZERO, |last| last.last);
    let unread_records = if about.contains_key(SEED_ROW) { 0 } else { wal::unproven(&wal, reached) };
    let database = redb::Builder::new().create_with_backend(InMemoryBackend::new())?;
    let transaction = database.begin_write()?;
    {
        let mut rows = transaction.open_table(META)?;
        for (name, row) in &about {
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
    let places = chosen.iter().filter_map(|candidate| {
        let logged = candidate.logged.clone().map(Source::Logged);
        let placed = candidate.body.map(|place| Source::Place(candidate.medium, place));
        Some((candidate.first, placed.or(logged)?))
    });
    let places = places.collect();
    Ok(Gathered { database, bodies: Bodies { mediums, places }, unread_records })
}

/// A block of the write-ahead log: it is whole, or it would be none.
fn logged(block: &Arc<WalBlock>) -> Option<Candidate> {
    let header = Header::decode(block.first, block.header()).ok()?;
    let opened = Block::open_to_read(&header, block.body()).ok()?;
    let (right, erased) = (right_events(&opened, &header), opened.has_redacted());
    Some(Candidate {
        header: block.header().to_vec(),
        first: block.first,
        last: header.last(),
        prev_root: header.prev_root,
        root: header.root,
        at: u64::MAX,
        medium: 0,
        body: None,
        exact: right == u64::from(header.count),
        right,
        erased,
        logged: Some(Arc::clone(block)),
    })
}

/// What is known about the log as a whole. Without the seed, nothing of the write-ahead log can be told from what a user wrote.
fn known(about: Vec<(u64, String, Vec<u8>)>, log_id: Option<[u8; 16]>) -> BTreeMap<String, Vec<u8>> {
    let mut known = BTreeMap::new();
    known.extend(log_id.map(|log_id| (ID_ROW.to_owned(), log_id.to_vec())));
    for (_, name, value) in about {
        let before: Option<&Vec<u8>> = known.get(&name);
        let better = match name.as_str() {
            FORMAT_ROW => before.is_none() && value.len() == 4,
            ID_ROW => before.is_none() && value.len() == 16,
            SEED_ROW => before.is_none() && value.len() == 8,
            // A log's beginning only moves on.
            ORIGIN_ROW => Origin::from_json(&value).is_some_and(|origin| {
                let before = before.and_then(|before| Origin::from_json(before));
                before.is_none_or(|before| begins(&before) < begins(&origin))
            }),
            _ => false,
        };
        if better {
            known.insert(name, value);
        }
    }
    known.entry(ID_ROW.to_owned()).or_insert_with(|| vec![0; 16]);
    known.entry(FORMAT_ROW.to_owned()).or_insert_with(|| LOG_FORMAT.to_le_bytes().to_vec());
    known
}

/// Grows as a log's beginning moves on.
fn begins(origin: &Origin) -> (Seq, Option<Seq>, usize) {
    (origin.before_first().seq, origin.sealed.last().map(|sealed| sealed.through), origin.forks.len())
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
                found.take_about(page, at, bytes, medium)?;
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
            medium: 0,
            body: None,
            exact: false,
            right: 0,
            erased: false,
            logged: None,
        });
    }

    /// Takes the rows that say what is known about the log as a whole.
    fn take_about(&mut self, page: &[u8], at: u64, file_bytes: u64, medium: &Remains) -> io::Result<()> {
        let count = usize::from(u16::from_le_bytes(array(&page[2..4])));
        let (keys, values) = (offsets(page, 4, count), offsets(page, 4 + 4 * count, count));
        let (Some(key_ends), Some(value_ends)) = (keys, values) else { return Ok(()) };
        let (mut key_start, Some(mut start)) = (4 + 8 * count, key_ends.last().copied()) else {
            return Ok(());
        };
        for (key_end, end) in key_ends.into_iter().zip(value_ends) {
            let name = page.get(key_start..key_end).and_then(|key| std::str::from_utf8(key).ok());
            let fits = end >= start && end - start <= ABOUT_BYTES_MAX && at + end as u64 <= file_bytes;
            if let Some(name) = name.filter(|name| fits && ABOUT_ROWS.contains(name)) {
                let place = Place { at: at + start as u64, len: (end - start) as u32 };
                self.about.push((place.at, name.to_owned(), medium.bytes(place)?.into()));
            }
            (key_start, start) = (key_end, end);
        }
        Ok(())
    }
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
            let block = Block::open_to_read(&header, body).ok();
            let right = block.as_ref().map_or(0, |block| right_events(block, &header));
            if right > candidate.right || candidate.body.is_none() {
                candidate.erased = block.is_some_and(|block| block.has_redacted());
                (candidate.body, candidate.right) = (Some(place), right);
                candidate.exact = right == u64::from(header.count);
            }
        }
    }
    Ok(())
}

fn right_events(block: &Block<'_>, header: &Header<'_>) -> u64 {
    if block.is_sound() {
        return u64::from(header.count);
    }
    (0..block.count()).filter(|index| block.stored(*index).is_ok()).count() as u64
}

/// Bodies that were proven to be one, in order of place, but for those that lie in others.
fn outermost(candidates: &[Candidate]) -> Vec<Place> {
    let exact = candidates.iter().filter(|candidate| candidate.exact);
    let mut bodies: Vec<Place> = exact.filter_map(|candidate| candidate.body).collect();
    bodies.sort_unstable_by_key(|body| body.at);
    let mut outer: Vec<Place> = Vec::new();
    for body in bodies {
        if !lies_in(body.at, &outer) {
            outer.push(body);
        }
    }
    outer
}

fn lies_in(at: u64, bodies: &[Place]) -> bool {
    let before = bodies.partition_point(|body| body.at <= at);
    before.checked_sub(1).is_some_and(|index| at < bodies[index].at + u64::from(bodies[index].len))
}

/// What a way through blocks is worth: events that can be read; blocks with erased events, so that what was erased stays
/// erased; blocks that continue the one before; blocks.
type Worth = (u64, u64, u64, u64);

/// The best way through what was found: of blocks that do not overlap, those with the most events that can be read. Where
/// there is room between them, blocks of which nothing can be read say when and what was there.
fn choose(candidates: &mut [Candidate]) -> Vec<&Candidate> {
    candidates.sort_by_key(|it| (it.last, it.first));
    let candidates = &*candidates;
    let mut worth: Vec<Worth> = Vec::with_capacity(candidates.len());
    let mut before: Vec<Option<usize>> = Vec::with_capacity(candidates.len());
    // Of the first so many, the one that ends the best way; and who ends with a root.
    let mut best: Vec<Option<usize>> = vec![None];
    let mut ending: HashMap<Hash, usize> = HashMap::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let apart = candidates[..index].partition_point(|other| other.last < candidate.first);
        let follows = ending.get(&candidate.prev_root).filter(|other| **other < apart).copied();
        let way = |other: Option<usize>, follows: u64| {
            let (events, erased, links, blocks) = other.map_or((0, 0, 0, 0), |other| worth[other]);
            (events + candidate.right, erased + u64::from(candidate.erased), links + follows, blocks + 1)
        };
        let ways =
            [(way(best[apart], 0), best[apart]), (way(follows, u64::from(follows.is_some())), follows)];
        let (value, from) = ways.into_iter().max_by_key(|(worth, _)| *worth).unwrap_or_default();
        worth.push(value);
        before.push(from);
        let known = best[index].filter(|other| worth[*other] >= value);
        best.push(Some(known.unwrap_or(index)));
        let same = ending.entry(candidate.root).or_insert(index);
        if worth[*same] < value {
            *same = index;
        }
    }
    let mut way = Vec::new();
    let mut at = best.last().copied().flatten();
    while let Some(index) = at {
        way.push(index);
        at = before[index];
    }
    way.reverse();
    way.into_iter().map(|index| &candidates[index]).collect()
}

#[cfg(test)]
mod tests {
    use super::{Candidate, Place, choose, lies_in, outermost};
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
            medium: 0,
            body: Some(Place { at: first * 100_000, len: 50_000 }),
            exact: true,
            right: last - first + 1,
            erased: false,
            logged: None,
        }
    }

    /// The same with so many events that can be read.
    fn broken(first: u64, last: u64, roots: (u8, u8), right: u64) -> Candidate {
        Candidate { exact: false, right, ..block(first, last, roots) }
    }

    #[track_caller]
    fn check(mut candidates: Vec<Candidate>, chosen: &[(u64, u64, u8)]) {
        let found: Vec<(u64, u64, u8)> =
            choose(&mut candidates).iter().map(|it| (it.first.0, it.last.0, it.root.0[0])).collect();
        assert_eq!(found, chosen);
    }

    #[test]
    fn of_blocks_over_each_other_those_with_the_most_events_are_chosen() {
        check(vec![], &[]);
        check(vec![block(3, 4, (1, 2)), block(1, 2, (0, 1))], &[(1, 2, 1), (3, 4, 2)]);
        // A block of which one event is lost, and an old copy of a part of it.
        check(vec![broken(1, 500, (0, 9), 499), block(250, 250, (3, 4))], &[(1, 500, 9)]);
        check(vec![broken(1, 4, (0, 2), 1), block(3, 4, (1, 2))], &[(3, 4, 2)]);
        // What cannot be read at all fills the room that is left.
        let headless = Candidate { body: None, ..broken(3, 4, (9, 9), 0) };
        check(vec![block(1, 2, (0, 1)), headless, block(5, 6, (2, 3))], &[(1, 2, 1), (3, 4, 9), (5, 6, 3)]);
        // Merged blocks and the ones they were made of.
        check(vec![block(1, 4, (0, 2)), block(1, 2, (0, 1)), block(5, 6, (2, 3))], &[(1, 4, 2), (5, 6, 3)]);
    }

    #[test]
    fn of_equals_those_that_continue_each_other_are_chosen_and_what_was_erased_stays_erased() {
        let of_another = block(3, 4, (7, 8));
        check(
            vec![block(1, 2, (0, 1)), of_another, block(3, 4, (1, 2)), block(5, 6, (2, 3))],
            &[(1, 2, 1), (3, 4, 2), (5, 6, 3)],
        );
        // Also the first one, by what comes behind it.
        let of_another = block(1, 2, (7, 8));
        check(vec![block(1, 2, (0, 1)), of_another, block(3, 4, (1, 2))], &[(1, 2, 1), (3, 4, 2)]);
        let erased = || Candidate { erased: true, ..block(1, 4, (0, 2)) };
        let parts = || [block(1, 2, (0, 1)), block(3, 4, (1, 2))];
        check([vec![erased()], parts().into()].into_iter().flatten().collect(), &[(1, 4, 2)]);
        check([parts().into(), vec![erased()]].into_iter().flatten().collect(), &[(1, 4, 2)]);
    }

    #[test]
    fn what_lies_in_a_body_is_part_of_a_message() {
        let forged = Candidate { body: Some(Place { at: 120_100, len: 10 }), ..block(1, 1, (5, 6)) };
        let bodies = outermost(&[forged, block(1, 2, (0, 1)), broken(3, 4, (1, 2), 1)]);
        assert_eq!(bodies, [Place { at: 100_000, len: 50_000 }]);
        for (at, within) in
            [(99_999, false), (100_000, true), (149_999, true), (150_000, false), (310_000, false)]
        {
            assert_eq!(lies_in(at, &bodies), within, "{at}");
        }
    }
}
