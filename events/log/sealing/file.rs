//! The file of the keys: places of 128 bytes, so that each is written and overwritten as a whole, where it stands.
//!
//! ```text
//! first place | magic "CXTKEYS1" | the log's id: 16 | places there are at least: u64 LE | zeros: 80 | checksum: 16 |
//! a key       | 1 | zeros: 7 | number: u64 LE | key: 32 | BLAKE3 of the subject's name: 32 | zeros: 32 | checksum: 16 |
//! destroyed   | 2 | zeros: 7 | number: u64 LE | position of the order: u64 LE | zeros: 88 | checksum: 16 |
//! ```
//!
//! The checksum is the front of BLAKE3 over the log's id and the 112 bytes before it. Places are appended and synced before
//! anything under their keys is written, so what a crash leaves torn at the end belongs to nothing. Then the first place
//! says how many there are, so that a file that was cut later is known as that; 0 says nothing, as in files of before. A key is
//! destroyed by writing over it where it stands.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::{Key, KeysError};
use crate::id::Seq;
use crate::log::chain::hash;
use crate::log::header::array;

/// Name of the file in a data directory.
pub const KEYS_FILE: &str = "erasure.keys";
const NEW_FILE: &str = "erasure.keys.new";
const MAGIC: &[u8; 8] = b"CXTKEYS1";
const PLACE: usize = 128;
const CHECKSUM: usize = 112;
/// Where the first place says how many there are.
const COUNT: std::ops::Range<usize> = 24..32;
const HELD: u8 = 1;
const DESTROYED: u8 = 2;
/// What nobody but the owner may have.
const FOREIGN_MODE: u32 = 0o077;

/// The hash of a subject's name.
pub(crate) type SubjectHash = [u8; 32];

/// What stands in one place.
#[derive(Debug)]
pub(crate) enum Place {
    /// A key and whose it is.
    Held(Key, SubjectHash),
    /// A key that is gone, and the order to destroy it.
    Destroyed(u64, Seq),
}

/// The open file.
#[derive(Debug)]
pub(crate) struct KeyFile {
    path: PathBuf,
    file: File,
    log_id: [u8; 16],
    places: u64,
}

impl KeyFile {
    /// Opens the file in `dir` with what stands in it, from the first key on; nothing where there is no file.
    pub(crate) fn open(
        dir: &Path,
        log_id: [u8; 16],
        writable: bool,
    ) -> Result<Option<(Self, Vec<Place>)>, KeysError> {
        let path = dir.join(KEYS_FILE);
        match File::options().read(true).write(writable).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KeysError::Io { path, source }),
            Ok(file) => Self::read(path, file, log_id, writable).map(Some),
        }
    }

    fn read(
        path: PathBuf,
        file: File,
        log_id: [u8; 16],
        writable: bool,
    ) -> Result<(Self, Vec<Place>), KeysError> {
        let io = |source: io::Error| KeysError::Io { path: path.clone(), source };
        let mode = file.metadata().map_err(io)?.mode() & 0o7777;
        if mode & FOREIGN_MODE != 0 {
            return Err(KeysError::Permissions { path, mode });
        }
        let bytes = fs::read(&path).map_err(io)?;
        let damaged = |what: String| KeysError::Damaged { path: path.clone(), what };
        let header = bytes.get(..PLACE).filter(|header| header.starts_with(MAGIC));
        let header = header.ok_or_else(|| damaged("it does not begin as a file of keys does".to_owned()))?;
        let named: [u8; 16] = array(&header[8..24]);
        if !is_whole(&named, header) {
            return Err(damaged("its first 128 bytes do not match their checksum".to_owned()));
        }
        if named != log_id {
            return Err(KeysError::Foreign { path });
        }
        let mut found = Vec::with_capacity(bytes.len() / PLACE);
        let end = bytes.len() - trailing(&bytes[PLACE..]);
        for (number, place) in bytes[PLACE..end].chunks_exact(PLACE).enumerate() {
            let place = decode(&log_id, place);
            found.push(
                place.ok_or_else(|| damaged(format!("key {} of it is not what was written", number + 1)))?,
            );
        }
        let opened = Self { path: path.clone(), file, log_id, places: 1 + found.len() as u64 };
        let noted = u64::from_le_bytes(array(&header[COUNT]));
        if opened.places < noted {
            let (left, keys) = (found.len(), noted - 1);
            return Err(damaged(format!("it has {left} of at least {keys} keys: its end is missing")));
        }
        if writable && end < bytes.len() {
            opened.file.set_len(end as u64).map_err(io)?;
        }
        if writable && noted < opened.places {
            // What was read may not be on disk yet.
            opened.file.sync_data().map_err(io)?;
            opened.note()?;
        }
        Ok((opened, found))
    }

    /// Copies the file in `from`, if there is one, for the log with another id in `to`, where there is none.
    pub(crate) fn copy(from: &Path, from_id: [u8; 16], to: &Path, to_id: [u8; 16]) -> Result<(), KeysError> {
        match Self::open(from, from_id, false)? {
            Some((_, places)) => Self::make_of(to, to_id, &places),
            None => Ok(()),
        }
    }

    fn make_of(dir: &Path, log_id: [u8; 16], places: &[Place]) -> Result<(), KeysError> {
        let bytes: Vec<u8> = places.iter().flat_map(|place| finish(&log_id, encode(place))).collect();
        Self::make(dir, log_id, &bytes).map(drop)
    }

    /// Makes an empty file in `dir`, where there is none.
    pub(crate) fn create(dir: &Path, log_id: [u8; 16]) -> Result<Self, KeysError> {
        Self::make(dir, log_id, &[])
    }

    /// Makes a file with these places in `dir`, where there is none.
    fn make(dir: &Path, log_id: [u8; 16], places: &[u8]) -> Result<Self, KeysError> {
        let path = dir.join(KEYS_FILE);
        let new = dir.join(NEW_FILE);
        let make = || {
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => (),
            }
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all_at(&header(&log_id, 1 + (places.len() / PLACE) as u64), 0)?;
            file.write_all_at(places, PLACE as u64)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(dir)?.sync_all()?;
            Ok(file)
        };
        let file = make().map_err(|source| KeysError::Io { path: path.clone(), source })?;
        Ok(Self { path, file, log_id, places: 1 + (places.len() / PLACE) as u64 })
    }

    /// Adds keys, on disk when this returns; the place of the first.
    pub(crate) fn add(&mut self, keys: &[(Key, SubjectHash)]) -> Result<u64, KeysError> {
        let first = self.places;
        let mut bytes = Vec::with_capacity(keys.len() * PLACE);
        for (key, subject) in keys {
            let place = encode(&Place::Held(*key, *subject));
            bytes.extend_from_slice(&finish(&self.log_id, place));
        }
        self.write(&bytes, first)?;
        self.places += keys.len() as u64;
        self.note()?;
        Ok(first)
    }

    /// Writes how many places there are, which are on disk; that need not be at once.
    fn note(&self) -> Result<(), KeysError> {
        self.file.write_all_at(&header(&self.log_id, self.places), 0).map_err(|source| self.failed(source))
    }

    /// Overwrites keys where they stand, by place and number; on disk when this returns.
    pub(crate) fn destroy(&mut self, keys: &[(u64, u64)], order: Seq) -> Result<(), KeysError> {
        for (at, id) in keys {
            let place = finish(&self.log_id, encode(&Place::Destroyed(*id, order)));
            self.file.write_all_at(&place, at * PLACE as u64).map_err(|source| self.failed(source))?;
        }
        self.file.sync_data().map_err(|source| self.failed(source))
    }

    fn write(&self, bytes: &[u8], place: u64) -> Result<(), KeysError> {
        self.file.write_all_at(bytes, place * PLACE as u64).map_err(|source| self.failed(source))?;
        self.file.sync_data().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> KeysError {
        KeysError::Io { path: self.path.clone(), source }
    }
}

/// The first place of a file that has so many.
pub(super) fn header(log_id: &[u8; 16], places: u64) -> [u8; PLACE] {
    let mut header = [0; PLACE];
    header[..8].copy_from_slice(MAGIC);
    header[8..24].copy_from_slice(log_id);
    header[COUNT].copy_from_slice(&places.to_le_bytes());
    finish(log_id, header)
}

/// Bytes at the end that a write which was cut short left: less than a place, or places of zeros.
fn trailing(places: &[u8]) -> usize {
    let torn = places.len() % PLACE;
    let whole = &places[..places.len() - torn];
    let empty = whole.rchunks_exact(PLACE).take_while(|place| place.iter().all(|byte| *byte == 0)).count();
    torn + empty * PLACE
}

fn checksum(log_id: &[u8; 16], place: &[u8]) -> [u8; PLACE - CHECKSUM] {
    let mut bytes = log_id.to_vec();
    bytes.extend_from_slice(&place[..CHECKSUM]);
    array(&hash(&bytes).0[..PLACE - CHECKSUM])
}

fn finish(log_id: &[u8; 16], mut place: [u8; PLACE]) -> [u8; PLACE] {
    let checksum = checksum(log_id, &place);
    place[CHECKSUM..].copy_from_slice(&checksum);
    place
}

fn is_whole(log_id: &[u8; 16], place: &[u8]) -> bool {
    checksum(log_id, place) == place[CHECKSUM..]
}

/// Puts the keys that `file` holds for one log into the data directory `dir` of a log with its past, where there are none.
///
/// # Errors
///
/// [`KeysError`], also when there is no such file.
pub fn take_keys(file: &Path, of: [u8; 16], dir: &Path, log_id: [u8; 16]) -> Result<(), KeysError> {
    let opened = File::open(file).map_err(|source| KeysError::Io { path: file.to_owned(), source })?;
    let (_, places) = KeyFile::read(file.to_owned(), opened, of, false)?;
    KeyFile::make_of(dir, log_id, &places)
}

/// The place without its checksum.
fn encode(what: &Place) -> [u8; PLACE] {
    let mut place = [0; PLACE];
    match what {
        Place::Held(key, subject) => {
            place[0] = HELD;
            place[8..16].copy_from_slice(&key.id.to_le_bytes());
            place[16..48].copy_from_slice(&key.secret);
            place[48..80].copy_from_slice(subject);
        }
        Place::Destroyed(id, order) => {
            place[0] = DESTROYED;
            place[8..16].copy_from_slice(&id.to_le_bytes());
            place[16..24].copy_from_slice(&order.0.to_le_bytes());
        }
    }
    place
}

fn decode(log_id: &[u8; 16], place: &[u8]) -> Option<Place> {
    if !is_whole(log_id, place) {
        return None;
    }
    let id = u64::from_le_bytes(array(&place[8..16]));
    match place[0] {
        HELD => Some(Place::Held(Key { id, secret: array(&place[16..48]) }, array(&place[48..80]))),
        DESTROYED => Some(Place::Destroyed(id, Seq(u64::from_le_bytes(array(&place[16..24]))))),
        _ => None,
    }
}
