//! Opening: create or find the file, check its end, start the writer.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{ReadableTable as _, StorageBackend};

use crate::log::beside::{ID_FILE, write_id};
use crate::log::ending::{check_end, check_recent, end_of_remains};
use crate::log::header::array;
use crate::log::journal::{FileMedium, Journal, RING_BYTES, WAL_BYTES};
use crate::log::lock::{DirLock, LockError};
use crate::log::origin::Origin;
use crate::log::pack::ChainEnd;
use crate::log::past::{PartError, Past, PastError};
use crate::log::rewrite;
use crate::log::scan::ReadError;
use crate::log::seal::{sync_dir, sync_name};
use crate::log::sealing::KeysError;
use crate::log::store::{
    BODIES, Database, HEADERS, KEYS, META, Own, ReadOnly, StoreError, Writable, guarded,
};
use crate::log::trim::{remove_half_made, remove_leftover};
use crate::log::wal::{LOG_FORMAT_SEED, NO_SEED, SEED_ROW, Seed, WalBlock};

/// Name of the log's file in a data directory.
pub const LOG_FILE: &str = "events.redb";
/// The log under construction, before it has its name.
pub const NEW_FILE: &str = "events.redb.new";
/// What only a directory in use holds: without its log, it is not started anew.
const TRACES: &[&str] = &["sqlite", "sqlite3", "db", "vecs", "usearch"];
/// Format of a log that begins in its own file.
pub(crate) const LOG_FORMAT: u32 = 2;
/// Format of a log that goes on from an [`Origin`], which programs that know only [`LOG_FORMAT`] must not take for one.
const LOG_FORMAT_ORIGIN: u32 = 3;
pub(crate) const FORMAT_ROW: &str = "format";
pub(crate) const ID_ROW: &str = "log_id";
pub(crate) const ORIGIN_ROW: &str = "origin";
/// The permission of a file's owner to write to it.
const OWNER_WRITES: u32 = 0o200;
/// What a rehearsal writes.
const REHEARSAL_ROW: &str = "rehearsal";
const REHEARSAL_CACHE_BYTES: usize = 4 << 20;

/// Why a log could not be opened. Nothing was changed, and nothing is repaired by guess.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory open.
    #[error("{} is in use by {}; stop that first, or talk to it over HTTP", dir.display(), holder(*pid))]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The process that writes; 0 when it is only being read, by somebody unknown.
        pid: u32,
    },
    /// The directory was in use before, but its log is gone.
    #[error(
        "{} holds {found} but no {LOG_FILE}; restore it from a backup, or choose an empty directory",
        dir.display()
    )]
    Missing {
        /// The directory.
        dir: PathBuf,
        /// What shows that there was a log.
        found: String,
    },
    /// The log was written by a newer Caxton.
    #[error("{} has format {found}, this Caxton knows {LOG_FORMAT_SEED}; use a newer Caxton", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The log was written before leaves bound the kinds of their events.
    #[error(
        "{} has format {found}, this Caxton knows {LOG_FORMAT}; export the memory with the Caxton that wrote it and \
         import it into an empty directory",
        path.display()
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The file is damaged, cut short, or no log of Caxton's.
    #[error("{} is damaged or no log of Caxton's; restore it from a backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ReadError,
    },
    /// The log was not closed in order, which only an opening for writing can settle.
    #[error(
        "{} was not closed in order; start and stop the server once, then read it again, or check it as it is: caxton log \
         verify --salvage",
        path.display()
    )]
    Unclean {
        /// The file.
        path: PathBuf,
    },
    /// A sealed file, which holds an earlier part of the log, cannot be used.
    #[error(
        "{}, which holds an earlier part of this log, cannot be used; restore it from a backup, or from another data \
         directory that has a file of this name",
        path.display()
    )]
    Sealed {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: PartError,
    },
    /// A file could not be opened, created or written.
    #[error("could not open {} (is the directory writable, and is there space?)", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the medium said.
        #[source]
        source: io::Error,
    },
    /// The keys of encrypted payloads cannot be used.
    #[error("could not open the keys of encrypted payloads")]
    Keys(#[source] KeysError),
    /// The store refused.
    #[error("could not open {}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
}

fn holder(pid: u32) -> String {
    if pid == 0 { "somebody who reads it".to_owned() } else { format!("process {pid}") }
}

/// A log whose file is open and whose end was checked.
pub(crate) struct Opened {
    pub database: Database,
    pub end: ChainEnd,
    pub log_id: [u8; 16],
}

/// Takes the lock of `dir`, which is made if it is not there. Until it is dropped, nobody opens a log in it.
///
/// # Errors
///
/// [`OpenError::Locked`] if somebody has it, [`OpenError::Io`] otherwise.
pub fn lock(dir: &Path) -> Result<DirLock, OpenError> {
    make_dir(dir).map_err(|source| OpenError::Io { path: dir.to_owned(), source })?;
    DirLock::exclusive(dir).map_err(|error| lock_error(dir, error))
}

/// Makes a directory with all that it lies in, where it is not there.
fn make_dir(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    // What agents remember and say is nobody else's; one that is there keeps what its owner gave it.
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    missing.into_iter().filter(|made| !made.as_os_str().is_empty()).try_for_each(keep_name)
}

/// Makes the name of a directory last: a crash that takes it takes all that was acknowledged in it.
fn keep_name(dir: &Path) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    match sync_name(dir) {
        // What it lies in may not be read, or its file system cannot be asked.
        Err(error) if matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported) => Ok(()),
        synced => synced,
    }
}

/// Takes a reader's share of the lock of `dir`; `None` where there is no lock to take. Who writes has it whole.
///
/// # Errors
///
/// As [`lock`].
pub fn lock_shared(dir: &Path) -> Result<Option<DirLock>, OpenError> {
    DirLock::shared(dir).map_err(|error| lock_error(dir, error))
}

fn lock_error(dir: &Path, error: LockError) -> OpenError {
    match error {
        LockError::Held { pid } => OpenError::Locked { dir: dir.to_owned(), pid },
        LockError::Io(source) => OpenError::Io { path: dir.join("LOCK"), source },
    }
}

/// Opens the file in `dir`, which is locked, and creates it first where there never was one. What was left half made beside it
/// goes.
pub(crate) fn open_file(dir: &Path, cache_bytes: usize, log_id: [u8; 16]) -> Result<Opened, OpenError> {
    let opened = open_to_write(dir, cache_bytes, log_id)?;
    remove_half_made(dir, &opened.database.past.origin)
        .map_err(|source| OpenError::Io { path: dir.to_owned(), source })?;
    Ok(opened)
}

/// The same for who is making something beside it.
pub(crate) fn open_to_write(dir: &Path, cache_bytes: usize, log_id: [u8; 16]) -> Result<Opened, OpenError> {
    let path = dir.join(LOG_FILE);
    let exists = path.try_exists().map_err(|source| OpenError::Io { path: path.clone(), source })?;
    if !exists {
        create_file(dir, cache_bytes, log_id)?;
    }
    // redb takes an empty file for a new database; for us it is a log that lost its content.
    let length = fs::metadata(&path).map_err(|source| OpenError::Io { path: path.clone(), source })?.len();
    if length == 0 {
        return Err(OpenError::Damaged {
            path,
            source: StoreError::Damaged("it is empty".to_owned()).into(),
        });
    }
    rewrite::remove(&path.with_extension(rewrite::NEW_EXTENSION))
        .map_err(|source| OpenError::Io { path: path.clone(), source })?;
    // Opening for writing marks the file. What is refused is refused before that, so that it stays as it was found.
    match open_file_read_only(dir, cache_bytes) {
        Ok(_) | Err(OpenError::Unclean { .. }) => (),
        Err(error) => return Err(error),
    }
    allow_writing(&path);
    let database = guarded(|| {
        let file = File::options().read(true).write(true).open(&path).map_err(StoreError::Io)?;
        writable(Journal::open(medium(file)?, true).map_err(StoreError::Io)?, cache_bytes)
    })
    .map_err(|error| store_error(&path, error))?;
    let opened = check_writable(database, &path, Some(dir))?;
    // Not before it is sure that the log is in the other one.
    rewrite::remove_old(&path).map_err(|source| OpenError::Io { path: rewrite::old_path(&path), source })?;
    // What a crash kept from being removed; it costs space and nothing else, and the next opening tries again.
    let _ = remove_leftover(dir, &opened.database.past.origin);
    write_id(dir, opened.log_id).map_err(|source| OpenError::Io { path: dir.join(ID_FILE), source })?;
    Ok(opened)
}

/// Gives its owner the permission to write to the log, which a seal took that was cut short.
pub(crate) fn allow_writing(path: &Path) {
    let Ok(mode) = fs::metadata(path).map(|file| file.permissions().mode()) else { return };
    if mode & OWNER_WRITES == 0 {
        // Where that cannot be, the opening says what is wrong.
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode | OWNER_WRITES));
    }
}

/// What the last block of a log must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// What its header says.
    Right,
    /// Anything. The log's id is this one, if it is known from elsewhere.
    Damaged(Option<[u8; 16]>),
}

pub(crate) fn existing(dir: &Path) -> Result<PathBuf, OpenError> {
    let path = dir.join(LOG_FILE);
    if path.exists() {
        return Ok(path);
    }
    Err(OpenError::Missing { dir: dir.to_owned(), found: "nothing to read".to_owned() })
}

/// Opens the file in `dir` for reading.
pub(crate) fn open_file_read_only(dir: &Path, cache_bytes: usize) -> Result<Opened, OpenError> {
    let path = existing(dir)?;
    let journal = guarded(|| {
        let file = File::open(&path).map_err(StoreError::Io)?;
        Journal::open(medium(file)?, false).map_err(StoreError::Io)
    });
    let journal = journal.map_err(|error| store_error(&path, error))?;
    let database = guarded(|| match builder(cache_bytes).open_read_only_with_backend(journal.backend()) {
        Ok(database) => Ok(Some(database)),
        Err(redb::DatabaseError::RepairAborted) => Ok(None),
        Err(error) => Err(error.into()),
    })
    .map_err(|error| store_error(&path, error))?
    .ok_or_else(|| OpenError::Unclean { path: path.clone() })?;
    check_read_only(database, &journal, &path, Some(dir))
}

/// Opens the file in `dir` as a writer does and commits once, all in memory: the file stays as it is.
pub(crate) fn rehearse_file(dir: &Path) -> Result<(), OpenError> {
    let path = existing(dir)?;
    let opened = File::open(&path).map_err(StoreError::Io).and_then(medium);
    opened.and_then(rehearse).map_err(|error| store_error(&path, error))
}

/// The same on a medium of the caller's, of a log that was closed in order.
pub(crate) fn rehearse(medium: Box<dyn StorageBackend>) -> Result<(), StoreError> {
    guarded(|| {
        let journal = Journal::open_frozen(medium).map_err(StoreError::Io)?;
        let database = writable(journal, REHEARSAL_CACHE_BYTES)?;
        // The commit reads what redb itself keeps beside the tables, and readers never see: which pages are free.
        let ((), unsynced) = database.write(true, |transaction| {
            transaction.open_table(META)?.insert(REHEARSAL_ROW, [].as_slice())?;
            Ok(())
        })?;
        drop(unsynced);
        Ok(())
    })
}

/// The data directory that `path`, which need not exist, lies in: the nearest folder above it that holds a log.
pub fn data_dir_around(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let path = path.canonicalize().unwrap_or(path);
    let there = path.ancestors().skip(1).find(|above| above.exists())?;
    let there = there.canonicalize().ok()?;
    there.ancestors().find(|dir| dir.join(LOG_FILE).exists()).map(Path::to_owned)
}

/// The process that has the data directory `dir` open for writing, 0 where it does not say; `None` where nobody has. A file that
/// a server left does not tell: only the lock ends with its process.
///
/// # Errors
///
/// What the system said of the lock's file.
pub fn writer_of(dir: &Path) -> io::Result<Option<u32>> {
    DirLock::writer(dir)
}

/// Opens a log's own file of any name for reading; its sealed files lie in the data directory `dir`.
pub(crate) fn open_file_at(path: &Path, dir: &Path, cache_bytes: usize) -> Result<Opened, OpenError> {
    let opened = guarded(|| {
        let file = File::open(path).map_err(StoreError::Io)?;
        let journal = Journal::open(medium(file)?, false).map_err(StoreError::Io)?;
        Ok((builder(cache_bytes).open_read_only_with_backend(journal.backend())?, journal))
    });
    let (database, journal) = opened.map_err(|error| store_error(path, error))?;
    check_read_only(database, &journal, path, Some(dir))
}

pub(crate) fn medium(file: File) -> Result<Box<dyn StorageBackend>, StoreError> {
    Ok(Box::new(FileMedium::new(file).map_err(StoreError::Io)?))
}

/// The database behind `journal`, which redb would lay out anew if it were empty.
fn writable(journal: Arc<Journal>, cache_bytes: usize) -> Result<Writable, StoreError> {
    let backend = journal.backend();
    if backend.len().map_err(StoreError::Io)? == 0 {
        return Err(StoreError::Damaged("it holds nothing".to_owned()));
    }
    let database = builder(cache_bytes).create_with_backend(backend)?;
    Ok(Writable::new(database, journal))
}

/// Lays out an empty log on an empty medium.
fn create(
    medium: Box<dyn StorageBackend>,
    cache_bytes: usize,
    log_id: [u8; 16],
) -> Result<Writable, StoreError> {
    let journal = Journal::create(medium, RING_BYTES, WAL_BYTES).map_err(StoreError::Io)?;
    let database = builder(cache_bytes).create_with_backend(journal.backend())?;
    let created = Writable::new(database, journal);
    write_through(&created, |transaction| initialize(transaction, log_id))?;
    Ok(created)
}

/// Writes where a log begins that does not simply begin in its own file.
pub(crate) fn put_origin(transaction: &redb::WriteTransaction, origin: &Origin) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META)?;
    let format = if origin.is_none() { LOG_FORMAT } else { LOG_FORMAT_ORIGIN };
    let format = if meta.get(SEED_ROW)?.is_some() { LOG_FORMAT_SEED } else { format };
    meta.insert(FORMAT_ROW, format.to_le_bytes().as_slice())?;
    meta.insert(ORIGIN_ROW, origin.to_json().as_bytes())?;
    Ok(())
}

/// Lays out an empty log in an empty file.
pub(crate) fn create_at(file: File, cache_bytes: usize, log_id: [u8; 16]) -> Result<Writable, StoreError> {
    guarded(|| create(medium(file)?, cache_bytes, log_id))
}

/// Runs `fill` in a transaction of its own, which is on the medium when this returns.
pub(crate) fn write_through(
    database: &Writable,
    fill: impl FnOnce(&redb::WriteTransaction) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let ((), sealed) = database.write(true, fill)?;
    sealed
        .map_or(Ok(()), |mut sealed| sealed.persist().and_then(|()| sealed.settle()).map_err(StoreError::Io))
}

/// Opens or creates a log on a medium of the caller's.
pub(crate) fn open_backend(
    backend: impl StorageBackend,
    cache_bytes: usize,
    log_id: [u8; 16],
) -> Result<Opened, OpenError> {
    let path = Path::new("(backend)");
    let opened = guarded(|| {
        let medium: Box<dyn StorageBackend> = Box::new(backend);
        if medium.len().map_err(StoreError::Io)? == 0 {
            return create(medium, cache_bytes, log_id);
        }
        writable(Journal::open(medium, true).map_err(StoreError::Io)?, cache_bytes)
    });
    check_writable(opened.map_err(|error| store_error(path, error))?, path, None)
}

/// Opens a log on a medium of the caller's for reading.
#[cfg(test)]
pub(crate) fn open_backend_read_only(backend: impl StorageBackend) -> Result<Opened, OpenError> {
    let path = Path::new("(backend)");
    let opened = guarded(|| {
        let journal = Journal::open(Box::new(backend), false).map_err(StoreError::Io)?;
        Ok((builder(1 << 20).open_read_only_with_backend(journal.backend())?, journal))
    });
    let (database, journal) = opened.map_err(|error| store_error(path, error))?;
    check_read_only(database, &journal, path, None)
}

pub(crate) fn builder(cache_bytes: usize) -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder.set_cache_size(cache_bytes);
    builder
}

/// Builds the log under another name and gives it its own when it is complete and on disk.
fn create_file(dir: &Path, cache_bytes: usize, log_id: [u8; 16]) -> Result<(), OpenError> {
    if let Some(found) = trace(dir).map_err(|source| OpenError::Io { path: dir.to_owned(), source })? {
        return Err(OpenError::Missing { dir: dir.to_owned(), found });
    }
    let path = dir.join(NEW_FILE);
    let io = |source| OpenError::Io { path: path.clone(), source };
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        Ok(()) | Err(_) => (),
    }
    guarded(|| {
        let file =
            File::options().read(true).write(true).create_new(true).open(&path).map_err(StoreError::Io)?;
        Ok(create_at(file, cache_bytes, log_id)?.database.close()?)
    })
    .map_err(|error| store_error(&path, error))?;
    fs::rename(&path, dir.join(LOG_FILE)).map_err(io)?;
    // Whoever made the directory.
    sync_dir(dir).and_then(|()| keep_name(dir)).map_err(io)
}

/// What shows that a directory was in use before, if anything does.
fn trace(dir: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        if name == ID_FILE || TRACES.contains(&extension) {
            return Ok(Some(name.into_owned()));
        }
    }
    Ok(None)
}

fn initialize(transaction: &redb::WriteTransaction, log_id: [u8; 16]) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META)?;
    meta.insert(FORMAT_ROW, LOG_FORMAT.to_le_bytes().as_slice())?;
    meta.insert(ID_ROW, log_id.as_slice())?;
    transaction.open_table(HEADERS)?;
    transaction.open_table(BODIES)?;
    transaction.open_table(KEYS)?;
    Ok(())
}

/// What the log says about itself, and what its write-ahead log has beyond its tables.
pub(crate) struct Checked {
    database: Database,
    end: ChainEnd,
    log_id: [u8; 16],
    recent: Vec<Arc<WalBlock>>,
}

impl Checked {
    pub(crate) fn opened(self) -> Opened {
        Opened { database: self.database, end: self.end, log_id: self.log_id }
    }
}

fn check_read_only(
    database: redb::ReadOnlyDatabase,
    journal: &Journal,
    path: &Path,
    dir: Option<&Path>,
) -> Result<Opened, OpenError> {
    let Checked { database, end, log_id, recent } =
        check(Own::ReadOnly(ReadOnly::new(database, journal)), journal, path, dir, End::Right)?;
    if recent.is_empty() {
        Ok(Opened { database, end, log_id })
    } else {
        Err(OpenError::Unclean { path: path.to_owned() })
    }
}

fn check_writable(database: Writable, path: &Path, dir: Option<&Path>) -> Result<Opened, OpenError> {
    let journal = Arc::clone(&database.journal);
    let checked = check(Own::Writable(database), &journal, path, dir, End::Right)?;
    let Checked { database, end, log_id, recent } = checked;
    if let Own::Writable(writable) = &database.own
        && !recent.is_empty()
    {
        write_through(writable, |transaction| store_blocks(transaction, &recent))
            .map_err(|error| store_error(path, error))?;
    }
    Ok(Opened { database, end, log_id })
}

/// Brings blocks of the write-ahead log into the tables, as they are.
fn store_blocks(transaction: &redb::WriteTransaction, blocks: &[Arc<WalBlock>]) -> Result<(), StoreError> {
    let mut headers = transaction.open_table(HEADERS)?;
    let mut bodies = transaction.open_table(BODIES)?;
    let mut keys = transaction.open_table(KEYS)?;
    for block in blocks {
        headers.insert(block.first.0, block.header())?;
        bodies.insert(block.first.0, block.body())?;
        for (key, row) in block.keys() {
            keys.insert(key, row)?;
        }
    }
    Ok(())
}

/// Reads what the log says about itself, checks its last block and what stands in its write-ahead log; how long that takes
/// does not depend on its size.
pub(crate) fn check(
    own: Own,
    journal: &Journal,
    path: &Path,
    dir: Option<&Path>,
    wanted: End,
) -> Result<Checked, OpenError> {
    let unfit = |what: &str| OpenError::Damaged {
        path: path.to_owned(),
        source: StoreError::Damaged(what.to_owned()).into(),
    };
    let row = |name| own.meta(name).map_err(|error| store_error(path, error));
    let format = row(FORMAT_ROW)?.filter(|row| row.len() == 4).ok_or_else(|| unfit("it names no format"))?;
    match u32::from_le_bytes(array(&format)) {
        LOG_FORMAT | LOG_FORMAT_ORIGIN | LOG_FORMAT_SEED => (),
        found if found < LOG_FORMAT => return Err(OpenError::Older { path: path.to_owned(), found }),
        found => return Err(OpenError::Newer { path: path.to_owned(), found }),
    }
    let log_id = row(ID_ROW)?.filter(|row| row.len() == 16).ok_or_else(|| unfit("it has no id"))?;
    let log_id = match wanted {
        End::Damaged(Some(known)) => known,
        End::Damaged(None) | End::Right => array(&log_id),
    };
    let seed = Seed::of_file(row(SEED_ROW)?.as_deref(), &log_id).ok_or_else(|| unfit(NO_SEED))?;
    let origin = row(ORIGIN_ROW)?.map_or_else(|| Some(Origin::default()), |row| Origin::from_json(&row));
    let origin = origin.ok_or_else(|| unfit("what it says about its beginning cannot be read"))?;
    let dir = dir.unwrap_or_else(|| Path::new(""));
    let past = match wanted {
        End::Right => Past::open(dir, origin),
        End::Damaged(_) => Past::open_remains(dir, origin),
    };
    let past = past.map_err(|error| match error {
        PastError::Unfit => unfit("the frontier of what was dropped before it does not fit its root"),
        PastError::Part(path, source) => OpenError::Sealed { path, source },
    })?;
    let database = Database { own, past: Arc::new(past) };
    let checked = match wanted {
        End::Right => check_end(&database).and_then(|mut end| {
            let recent = check_recent(&database, journal, seed, &mut end)?;
            Ok((end, recent))
        }),
        End::Damaged(_) => end_of_remains(&database, journal, seed).map(|end| (end, Vec::new())),
    };
    let checked = checked.map(|(end, recent)| Checked { database, end, log_id, recent });
    checked.map_err(|error| match error {
        ReadError::Store(error) => store_error(path, error),
        ReadError::Damaged { .. }
        | ReadError::Decode { .. }
        | ReadError::KeyMissing { .. }
        | ReadError::Key { .. } => OpenError::Damaged { path: path.to_owned(), source: error },
    })
}

pub(crate) fn store_error(path: &Path, error: StoreError) -> OpenError {
    let path = path.to_owned();
    let foreign = io::ErrorKind::InvalidData;
    match error {
        StoreError::Io(source)
            if source.kind() != foreign && source.kind() != io::ErrorKind::UnexpectedEof =>
        {
            OpenError::Io { path, source }
        }
        StoreError::Io(_) | StoreError::Damaged(_) => OpenError::Damaged { path, source: error.into() },
        StoreError::Refused(_) | StoreError::Closed => OpenError::Store { path, source: error },
    }
}
