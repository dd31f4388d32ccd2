//! One file of postings over a stretch of the log, never changed once it is there: terms by their hash, each with the
//! positions of its events.
//!
//! ```text
//! content of the pages: | head: 1 page | lists | rows | fences |         (each begins on a page of its own)
//! head:  | magic "CXAUDIT1" | format: u32 LE | version of the terms: u32 | log id: 16 | first seq: u64 | last seq: u64 |
//!        | Merkle root of the log at the last seq: 32 | rows: u64 | page of the rows: u64 | page of the fences: u64 |
//! list:  | bytes of the rest | positions | distance of the first to the first seq | distance to the next | … | varints
//! row:   | hash: u64 | place: u32 |    ascending; top bit of the place: it is the only position, else where the list is
//! fence: | hash: u64 |                 of the first row of each page of rows
//! ```

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use caxton_events::Seq;
use caxton_events::log::Hash;

use super::pages::{self, CONTENT_BYTES, PageError, PageWriter};
use super::terms::TERMS_VERSION;
use crate::shred::shred;

const MAGIC: &[u8; 8] = b"CXAUDIT1";
const FORMAT: u32 = 1;
const HEAD_BYTES: usize = 112;
pub(super) const ROW_BYTES: usize = 12;
const ROWS_PER_PAGE: usize = CONTENT_BYTES / ROW_BYTES;
/// The place is the only position itself.
const SINGLE: u32 = 1 << 31;
/// Longest varint, in bytes.
const VARINT_BYTES_MAX: usize = 5;

/// Which stretch of which log a segment is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub log_id: [u8; 16],
    pub first: Seq,
    pub last: Seq,
    /// Merkle root over all events up to the last: another history has another.
    pub root: Hash,
}

/// Why a segment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The medium failed.
    #[error("could not {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// It is of another release.
    #[error("{} was written by another release", path.display())]
    Version {
        /// The file.
        path: PathBuf,
    },
    /// It is about another history than this log's.
    #[error("{} is about another log or another history of this one", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Its lists take more than a place can say.
    #[error("{} would take more than 2 GiB", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) stretch: Stretch,
    path: PathBuf,
    file: File,
    rows: u64,
    rows_page: u64,
    fences: Vec<u64>,
    pub(super) bytes: u64,
}

impl Segment {
    /// The file of a stretch in `dir`.
    pub(super) fn path_of(dir: &Path, first: Seq, last: Seq) -> PathBuf {
        dir.join(format!("{:020}-{:020}.postings", first.0, last.0))
    }

    /// The first and the last position by the name of a file, be it finished or not.
    pub(super) fn named(name: &str) -> Option<(Seq, Seq)> {
        let (first, last) = name.split_once('.')?.0.split_once('-')?;
        Some((Seq(first.parse().ok()?), Seq(last.parse().ok()?)))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Positions it covers.
    pub(super) fn covers(&self) -> RangeInclusive<Seq> {
        self.stretch.first..=self.stretch.last
    }

    pub(super) fn events(&self) -> u64 {
        self.stretch.last.0 - self.stretch.first.0 + 1
    }

    /// Opens the file and checks its head; pages are checked as they are read.
    pub(super) fn open(path: &Path) -> Result<Self, SegmentError> {
        let failed = |source| SegmentError::Io { what: "open", path: path.to_owned(), source };
        let damaged = |what: &str| SegmentError::Damaged { path: path.to_owned(), what: what.to_owned() };
        let file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let head = pages::read(&file, 0, HEAD_BYTES).map_err(|error| refused(path, error))?;
        let (head, numbers) = (&head, |at: usize| u64::from_le_bytes(array(&head[at..at + 8])));
        if head[..8] != *MAGIC {
            return Err(damaged("it does not begin as postings do"));
        }
        let versions = u64::from(FORMAT) | u64::from(TERMS_VERSION) << 32;
        if numbers(8) != versions {
            return Err(SegmentError::Version { path: path.to_owned() });
        }
        let (rows, rows_page, fences_page) = (numbers(88), numbers(96), numbers(104));
        let stretch = Stretch {
            log_id: array(&head[16..32]),
            first: Seq(numbers(32)),
            last: Seq(numbers(40)),
            root: Hash(array(&head[48..80])),
        };
        let fences = (fences_page.saturating_sub(rows_page)) as usize;
        let whole = bytes / pages::PAGE_BYTES as u64;
        if stretch.first == Seq::ZERO
            || stretch.last < stretch.first
            || rows.div_ceil(ROWS_PER_PAGE as u64) != fences as u64
            || fences_page + (fences as u64 * 8).div_ceil(CONTENT_BYTES as u64) != whole
            || numbers(80) != stretch.last.0 - stretch.first.0 + 1
        {
            return Err(damaged("it has another length than its head says"));
        }
        let fences = pages::read(&file, fences_page * CONTENT_BYTES as u64, fences * 8)
            .map_err(|error| refused(path, error))?;
        let fences = fences.chunks_exact(8).map(|fence| u64::from_le_bytes(array(fence))).collect();
        Ok(Self { stretch, path: path.to_owned(), file, rows, rows_page, fences, bytes })
    }

    fn read(&self, start: u64, len: usize) -> Result<Vec<u8>, SegmentError> {
        pages::read(&self.file, start, len).map_err(|error| refused(&self.path, error))
    }

    fn damaged(&self, what: &str) -> SegmentError {
        SegmentError::Damaged { path: self.path.clone(), what: what.to_owned() }
    }

    /// The rows of one of its pages of rows.
    fn rows_of(&self, page: u64) -> Result<Vec<(u64, u32)>, SegmentError> {
        let rows = (self.rows - page * ROWS_PER_PAGE as u64).min(ROWS_PER_PAGE as u64) as usize;
        let bytes = self.read((self.rows_page + page) * CONTENT_BYTES as u64, rows * ROW_BYTES)?;
        let row = |row: &[u8]| (u64::from_le_bytes(array(&row[..8])), u32::from_le_bytes(array(&row[8..])));
        Ok(bytes.chunks_exact(ROW_BYTES).map(row).collect())
    }

    /// Distances from the first position of the events that have the term with this hash, ascending; and the bytes read
    /// to find them.
    pub(super) fn find(&self, hash: u64) -> Result<(Vec<u32>, u64), SegmentError> {
        let Some(page) = self.fences.partition_point(|fence| *fence <= hash).checked_sub(1) else {
            return Ok((Vec::new(), 0));
        };
        let rows = self.rows_of(page as u64)?;
        let read = pages::PAGE_BYTES as u64;
        match rows.binary_search_by_key(&hash, |(hash, _)| *hash) {
            Ok(row) => {
                let positions = self.positions(rows[row].1)?;
                Ok((positions, read + u64::from(rows[row].1 & SINGLE == 0) * pages::PAGE_BYTES as u64))
            }
            Err(_) => Ok((Vec::new(), read)),
        }
    }

    fn positions(&self, place: u32) -> Result<Vec<u32>, SegmentError> {
        if place & SINGLE != 0 {
            return Ok(vec![place & !SINGLE]);
        }
        let start = (CONTENT_BYTES + place as usize) as u64;
        let end = self.rows_page * CONTENT_BYTES as u64;
        let head = self.read(start, (end.saturating_sub(start) as usize).min(VARINT_BYTES_MAX))?;
        let (mut at, wrong) = (0, || self.damaged("a list has no length"));
        let len = varint(&head, &mut at).ok_or_else(wrong)? as usize;
        if start + (at + len) as u64 > end {
            return Err(self.damaged("a list ends outside of the lists"));
        }
        let bytes = self.read(start + at as u64, len)?;
        unpacked(&bytes).ok_or_else(|| self.damaged("a list is cut short"))
    }

    /// Its terms in order.
    fn terms(&self) -> Terms<'_> {
        Terms { segment: self, page: 0, rows: Vec::new().into_iter() }
    }
}

/// The terms of a segment, one after the other.
struct Terms<'a> {
    segment: &'a Segment,
    page: u64,
    rows: std::vec::IntoIter<(u64, u32)>,
}

impl Terms<'_> {
    fn next(&mut self) -> Result<Option<(u64, u32)>, SegmentError> {
        if self.rows.len() == 0 && self.page < self.segment.fences.len() as u64 {
            self.rows = self.segment.rows_of(self.page)?.into_iter();
            self.page += 1;
        }
        Ok(self.rows.next())
    }
}

/// Writes a segment: terms in the order of their hashes.
pub(super) struct SegmentWriter {
    stretch: Stretch,
    path: PathBuf,
    unfinished: PathBuf,
    lists: PageWriter<BufWriter<File>>,
    lists_bytes: usize,
    rows: Vec<u8>,
}

impl SegmentWriter {
    /// Begins the file of a stretch in `dir` under another name.
    pub(super) fn create(dir: &Path, stretch: Stretch) -> Result<Self, SegmentError> {
        let path = Segment::path_of(dir, stretch.first, stretch.last);
        let unfinished = path.with_extension("unfinished");
        let failed = |source| SegmentError::Io { what: "create", path: unfinished.clone(), source };
        // Of one that was cut short before the bytes would stay.
        shred(&unfinished).map_err(failed)?;
        let mut file = BufWriter::new(File::create(&unfinished).map_err(failed)?);
        // The head is written when everything behind it is known.
        file.write_all(&[0; pages::PAGE_BYTES]).map_err(failed)?;
        Ok(Self {
            stretch,
            path,
            lists: PageWriter::new(file, 1),
            unfinished,
            lists_bytes: 0,
            rows: Vec::new(),
        })
    }

    fn failed(&self, source: io::Error) -> SegmentError {
        SegmentError::Io { what: "write", path: self.unfinished.clone(), source }
    }

    /// Adds a term that stands at these distances from the first position: ascending, at least one.
    pub(super) fn add(&mut self, hash: u64, positions: &[u32]) -> Result<(), SegmentError> {
        let place = match positions {
            [] => return Ok(()),
            [only] => *only | SINGLE,
            _ => {
                let place = self.lists_bytes as u32;
                let (mut packed, mut list) = (Vec::with_capacity(positions.len() * 2), Vec::new());
                put(&mut packed, positions.len() as u32);
                let mut before = 0;
                for position in positions {
                    put(&mut packed, position - before);
                    before = *position;
                }
                put(&mut list, packed.len() as u32);
                list.append(&mut packed);
                self.lists_bytes += list.len();
                if self.lists_bytes >= SINGLE as usize {
                    return Err(SegmentError::TooLarge { path: self.path.clone() });
                }
                self.lists.write(&list).map_err(|source| self.failed(source))?;
                place
            }
        };
        self.rows.extend(hash.to_le_bytes());
        self.rows.extend(place.to_le_bytes());
        Ok(())
    }

    /// Makes the file last and gives it its name.
    pub(super) fn finish(mut self) -> Result<Segment, SegmentError> {
        let (rows_page, fences_page) = self.tables().map_err(|source| self.failed(source))?;
        let Stretch { log_id, first, last, root } = self.stretch;
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend(MAGIC);
        head.extend(FORMAT.to_le_bytes());
        head.extend(TERMS_VERSION.to_le_bytes());
        head.extend(log_id);
        head.extend(first.0.to_le_bytes());
        head.extend(last.0.to_le_bytes());
        head.extend(root.0);
        head.extend((last.0 - first.0 + 1).to_le_bytes());
        head.extend((self.rows.len() as u64 / ROW_BYTES as u64).to_le_bytes());
        head.extend(rows_page.to_le_bytes());
        head.extend(fences_page.to_le_bytes());
        let (path, unfinished) = (self.path.clone(), self.unfinished.clone());
        let out = self.lists.into_inner();
        place(out, &pages::page(0, &head), &unfinished, &path).map_err(|source| SegmentError::Io {
            what: "write",
            path: path.clone(),
            source,
        })?;
        Segment::open(&path)
    }

    /// Writes rows and fences behind the lists; the pages they begin on.
    fn tables(&mut self) -> io::Result<(u64, u64)> {
        let rows_page = self.lists.end_page()?;
        self.lists.write(&self.rows)?;
        let fences_page = self.lists.end_page()?;
        for page in self.rows.chunks(CONTENT_BYTES) {
            self.lists.write(&page[..8])?;
        }
        self.lists.end_page()?;
        Ok((rows_page, fences_page))
    }
}

/// Writes the head and puts the file in its place: there as a whole or not at all. One that has its name is out of use; it is
/// overwritten, as what an erasure takes out of the log may stand there. Zeros are no page: should a crash leave them, they are
/// dropped as damaged.
fn place(mut out: BufWriter<File>, head: &[u8], unfinished: &Path, path: &Path) -> io::Result<()> {
    out.seek(SeekFrom::Start(0))?;
    out.write_all(head)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    shred(path)?;
    fs::rename(unfinished, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

/// One segment over neighbouring ones, which stay as they are. `root` is that of the last.
pub(super) fn merge(dir: &Path, parts: &[&Segment]) -> Result<Option<Segment>, SegmentError> {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return Ok(None) };
    let stretch = Stretch { first: first.stretch.first, ..last.stretch };
    let mut writer = SegmentWriter::create(dir, stretch)?;
    let mut sources: Vec<Terms<'_>> = parts.iter().map(|part| part.terms()).collect();
    let mut heads = sources.iter_mut().map(Terms::next).collect::<Result<Vec<_>, _>>()?;
    let mut positions = Vec::new();
    while let Some(hash) = heads.iter().flatten().map(|(hash, _)| *hash).min() {
        positions.clear();
        for ((head, source), part) in heads.iter_mut().zip(&mut sources).zip(parts) {
            let Some((own, place)) = *head else { continue };
            if own == hash {
                let shift = (part.stretch.first.0 - stretch.first.0) as u32;
                positions.extend(part.positions(place)?.into_iter().map(|position| position + shift));
                *head = source.next()?;
            }
        }
        writer.add(hash, &positions)?;
    }
    writer.finish().map(Some)
}

fn refused(path: &Path, error: PageError) -> SegmentError {
    match error {
        PageError::Io(source) => SegmentError::Io { what: "read", path: path.to_owned(), source },
        PageError::Damaged { .. } => SegmentError::Damaged { path: path.to_owned(), what: error.to_string() },
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}

/// Seven bits a byte, the lowest first.
fn put(bytes: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u32> {
    let mut number = 0_u32;
    for shift in (0..32).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        number |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// The positions of a list behind its length.
fn unpacked(bytes: &[u8]) -> Option<Vec<u32>> {
    let mut at = 0;
    let count = varint(bytes, &mut at)? as usize;
    // A position takes a byte at least.
    let mut positions = Vec::with_capacity(count.min(bytes.len()));
    let mut position = 0_u32;
    for _ in 0..count {
        position = position.checked_add(varint(bytes, &mut at)?)?;
        positions.push(position);
    }
    (at == bytes.len()).then_some(positions)
}
