//! The sealed files of a log, open for reading.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use redb::{ReadOnlyTable, ReadableDatabase, ReadableTableMetadata as _};

use crate::id::Seq;
use crate::log::chain::Hash;
use crate::log::header::Header;
use crate::log::journal::{FileMedium, Journal};
use crate::log::open::{ID_ROW, builder};
use crate::log::origin::{Origin, SEALED_DIR, SealedFile};
use crate::log::pack::ChainEnd;
use crate::log::store::{BODIES, HEADERS, KEYS, META, StoreError, guarded};

/// Memory for pages of each sealed file: reads go through the log in order, and the system keeps its pages as well.
const CACHE_BYTES: usize = 8 << 20;

/// The tables of one file as of one commit.
pub(crate) struct Tables {
    pub headers: ReadOnlyTable<u64, &'static [u8]>,
    pub bodies: ReadOnlyTable<u64, &'static [u8]>,
    pub keys: ReadOnlyTable<&'static str, &'static [u8]>,
}

impl Tables {
    /// The tables as last committed.
    pub(crate) fn open(transaction: &redb::ReadTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            headers: transaction.open_table(HEADERS)?,
            bodies: transaction.open_table(BODIES)?,
            keys: transaction.open_table(KEYS)?,
        })
    }
}

/// What keeps a sealed file open.
#[expect(dead_code, reason = "held for as long as its tables are read")]
enum Kept {
    /// Closed in order before it was sealed.
    Closed(redb::ReadOnlyDatabase),
    /// Sealed while its log went on: by this process, or by one that has ended since.
    Left(redb::Database),
}

/// A sealed file, as far as it belongs to the log.
pub(crate) struct Part {
    pub tables: Tables,
    pub sealed: SealedFile,
    /// The file.
    pub path: PathBuf,
    blocks: OnceLock<u64>,
    /// Dropped after the tables that read it.
    #[expect(dead_code, reason = "held for as long as its tables are read")]
    kept: Kept,
}

/// Why a sealed file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// It could not be opened or read.
    #[error("could not read it")]
    Store(#[from] StoreError),
    /// It is the file of another log.
    #[error("it is the file of another log")]
    OtherLog,
    /// Its events are not those that the log was built on.
    #[error("its root at {through} is {found}, the log goes on from {expected}")]
    OtherRoot {
        /// The last position that is read from it.
        through: Seq,
        /// The root there as the file says.
        found: String,
        /// The root that the log goes on from.
        expected: String,
    },
}

impl Part {
    /// Opens a sealed file in the folder `sealed` and checks that it ends as the log says.
    pub(crate) fn open(folder: &Path, sealed: &SealedFile) -> Result<Self, PartError> {
        let path = folder.join(&sealed.file);
        let medium = || {
            let file = File::open(&path).map_err(StoreError::Io)?;
            Ok::<_, StoreError>(Box::new(FileMedium::new(file).map_err(StoreError::Io)?))
        };
        let (kept, tables, log_id) = guarded(|| {
            let journal = Journal::open(medium()?, false).map_err(StoreError::Io)?;
            match builder(CACHE_BYTES).open_read_only_with_backend(journal.backend()) {
                Ok(database) => {
                    let (tables, log_id) = read(&database)?;
                    Ok((Kept::Closed(database), tables, log_id))
                }
                Err(redb::DatabaseError::RepairAborted) => {
                    let journal = Journal::open_frozen(medium()?).map_err(StoreError::Io)?;
                    let database = builder(CACHE_BYTES).create_with_backend(journal.backend())?;
                    let (tables, log_id) = read(&database)?;
                    Ok((Kept::Left(database), tables, log_id))
                }
                Err(error) => Err(error.into()),
            }
        })?;
        if log_id != sealed.log_id {
            return Err(PartError::OtherLog);
        }
        let part = Self { tables, sealed: sealed.clone(), path, blocks: OnceLock::new(), kept };
        part.check()?;
        Ok(part)
    }

    /// The part that a database has become which is not written any more, and whose journal is frozen.
    pub(crate) fn left(
        database: redb::Database,
        sealed: SealedFile,
        path: PathBuf,
    ) -> Result<Self, StoreError> {
        let tables = guarded(|| Tables::open(&database.begin_read()?))?;
        let kept = Kept::Left(database);
        Ok(Self { tables, sealed, path, blocks: OnceLock::new(), kept })
    }

    /// Whether it is the file that it was, and what is read from it ends where the log goes on.
    fn check(&self) -> Result<(), PartError> {
        let SealedFile { through, root, last, last_root, .. } = &self.sealed;
        self.check_root(*last, last_root)?;
        // A log that was cut inside of the file's first block has none of its blocks.
        if self.first()? > *through { Ok(()) } else { self.check_root(*through, root) }
    }

    /// Whether a block ends at `through`, with this root.
    fn check_root(&self, through: Seq, root: &[u8; 32]) -> Result<(), PartError> {
        let found = guarded(|| {
            let found = self.tables.headers.range_owned(..=through.0)?.next_back().transpose()?;
            let Some((first, header)) = found else { return Ok(None) };
            let first = Seq(first.value());
            let damaged = |what| StoreError::Damaged(format!("the block at {first}: {what}"));
            let header = Header::decode(first, header.value()).map_err(damaged)?;
            Ok(Some((header.last(), header.root)))
        })?;
        match found {
            Some((last, found)) if last == through && found.0 == *root => Ok(()),
            found => Err(PartError::OtherRoot {
                through,
                found: found.map_or_else(|| "none".to_owned(), |(_, root)| root.to_string()),
                expected: Hash(*root).to_string(),
            }),
        }
    }

    /// Position of its first block.
    pub(crate) fn first(&self) -> Result<Seq, StoreError> {
        guarded(|| {
            let first = self.tables.headers.range_owned::<u64>(..)?.next().transpose()?;
            let first = first.map(|(first, _)| Seq(first.value()));
            first.ok_or_else(|| StoreError::Damaged("it has no block".to_owned()))
        })
    }

    /// How many of its blocks belong to the log.
    pub(crate) fn blocks(&self) -> Result<u64, StoreError> {
        if let Some(blocks) = self.blocks.get() {
            return Ok(*blocks);
        }
        let counted = guarded(|| {
            let beyond = self.tables.headers.range_owned(self.sealed.through.0 + 1..)?.count() as u64;
            Ok(self.tables.headers.len()? - beyond)
        })?;
        Ok(*self.blocks.get_or_init(|| counted))
    }
}

fn read(database: &impl ReadableDatabase) -> Result<(Tables, [u8; 16]), StoreError> {
    let transaction = database.begin_read()?;
    let id = transaction.open_table(META)?.get_owned(ID_ROW)?;
    let id = id.and_then(|id| <[u8; 16]>::try_from(id.value()).ok());
    let id = id.ok_or_else(|| StoreError::Damaged("it has no id".to_owned()))?;
    Ok((Tables::open(&transaction)?, id))
}

/// Everything before the first block of a log's own file.
#[derive(Default)]
pub(crate) struct Past {
    /// The end of the chain before the first event that the log still has.
    pub start: ChainEnd,
    /// The oldest first.
    pub parts: Vec<Arc<Part>>,
    pub origin: Origin,
}

/// Why what a log says about its beginning cannot be used.
pub(crate) enum PastError {
    /// Its frontier is not that of its root.
    Unfit,
    /// A sealed file.
    Part(PathBuf, PartError),
}

impl Past {
    /// Opens the sealed files that `origin` names, in the data directory `dir`.
    pub(crate) fn open(dir: &Path, origin: Origin) -> Result<Self, PastError> {
        let start = origin.start().ok_or(PastError::Unfit)?;
        let folder = dir.join(SEALED_DIR);
        let open = |sealed: &SealedFile| {
            let part = Part::open(&folder, sealed).map(Arc::new);
            part.map_err(|source| PastError::Part(folder.join(&sealed.file), source))
        };
        let parts = origin.sealed.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { start, parts, origin })
    }

    /// The same without the files that cannot be used: what lay in them is missing.
    pub(crate) fn open_remains(dir: &Path, origin: Origin) -> Result<Self, PastError> {
        let start = origin.start().ok_or(PastError::Unfit)?;
        let folder = dir.join(SEALED_DIR);
        let parts = origin.sealed.iter().filter_map(|sealed| Part::open(&folder, sealed).ok().map(Arc::new));
        Ok(Self { start, parts: parts.collect(), origin })
    }

    /// The first position that the log still has.
    pub(crate) fn first(&self) -> Seq {
        Seq(self.start.frontier.count() + 1)
    }

    /// The last position that is in sealed files or dropped: the log's own file goes on behind it.
    pub(crate) fn through(&self) -> Seq {
        self.parts.last().map_or_else(|| self.first().previous(), |part| part.sealed.through)
    }
}
