//! A log put together from blocks that were carried away from one: every hash is recomputed on the way.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::id::Seq;
use crate::log::beside::{write_id, write_whole};
use crate::log::erasure::Marks;
use crate::log::keys;
use crate::log::open::{LOG_FILE, NEW_FILE, create_at, put_origin, write_through};
use crate::log::origin::{ForkedFrom, ORIGIN_FILE, Origin};
use crate::log::reader::Head;
use crate::log::scan::ReadError;
use crate::log::seal::sync_dir;
use crate::log::store::{BODIES, HEADERS, KEYS, StoreError, Writable, guarded};
use crate::log::stretch::{End, StoredBlock};

/// Bytes of blocks and keys in one commit.
const COMMIT_BYTES: usize = 32 << 20;
/// Memory for pages while it is written.
const CACHE_BYTES: usize = 32 << 20;

/// Why a log was not built. What there is of it has not its name and is removed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A block is damaged, or is not the one that follows.
    #[error("what follows {good} is not what was recorded")]
    Block {
        /// Last position that is right.
        good: Seq,
        /// What is wrong.
        #[source]
        source: ReadError,
    },
    /// The row of an idempotency key is damaged.
    #[error("the row of an idempotency key is not what was recorded")]
    Key(#[source] ReadError),
    /// It could not be written.
    #[error("could not write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: StoreError,
    },
}

/// A log under construction in a directory that has none.
pub struct LogBuild {
    path: PathBuf,
    dir: PathBuf,
    log_id: [u8; 16],
    /// `None` once it is finished.
    target: Option<Writable>,
    end: End,
    blocks: Vec<StoredBlock>,
    keys: Vec<(String, Vec<u8>)>,
    bytes: usize,
    marks: Marks,
    forks: Vec<ForkedFrom>,
}

impl LogBuild {
    /// Begins a log with this id in `dir`.
    ///
    /// # Errors
    ///
    /// [`BuildError::Write`].
    pub fn begin(dir: &Path, log_id: [u8; 16]) -> Result<Self, BuildError> {
        let path = dir.join(NEW_FILE);
        let failed = |source| BuildError::Write { path: path.clone(), source };
        let cleared = match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
        let file = cleared
            .and_then(|()| File::options().read(true).write(true).create_new(true).open(&path))
            .map_err(|source| failed(StoreError::Io(source)))?;
        let target = create_at(file, CACHE_BYTES, log_id).map_err(failed)?;
        let (end, blocks, keys) = (End::default(), Vec::new(), Vec::new());
        Ok(Self {
            dir: dir.to_owned(),
            path,
            log_id,
            target: Some(target),
            end,
            blocks,
            keys,
            bytes: 0,
            marks: Marks::default(),
            forks: Vec::new(),
        })
    }

    /// Says which logs its first events were recorded in, the oldest first: what lies behind its end is left out.
    pub fn forked_from(&mut self, forks: Vec<ForkedFrom>) {
        self.forks = forks;
    }

    /// Where it ends so far.
    pub fn head(&self) -> Head {
        self.end.head()
    }

    /// Whether payloads of it are encrypted: then it can only be read with its file of keys.
    pub fn has_sealed(&self) -> bool {
        self.marks.sealed
    }

    /// Adds the next block, up to `until` where that lies in it; whether all of it was added.
    ///
    /// # Errors
    ///
    /// [`BuildError`].
    pub fn block(&mut self, block: StoredBlock, until: Seq) -> Result<bool, BuildError> {
        let good = self.end.seq();
        let wrong = |source| BuildError::Block { good, source };
        let last = block.last().map_err(wrong)?;
        if until < block.first {
            return Ok(false);
        }
        let whole = last <= until;
        let block = if whole {
            self.end.take(&block).map_err(wrong)?;
            block
        } else {
            block.front(until, &mut self.end).map_err(wrong)?
        };
        self.marks.note(block.first, &block.header, &block.body);
        self.bytes += block.header.len() + block.body.len();
        self.blocks.push(block);
        self.flush_if_due()?;
        Ok(whole)
    }

    /// Adds an idempotency key with its row, unless its batch ends behind `until`.
    ///
    /// # Errors
    ///
    /// [`BuildError`].
    pub fn key(&mut self, key: &str, row: &[u8], until: Seq) -> Result<(), BuildError> {
        let unreadable = || BuildError::Key(ReadError::Key { key: key.to_owned() });
        if keys::decode(key, row).ok_or_else(unreadable)?.last > until {
            return Ok(());
        }
        self.bytes += key.len() + row.len();
        self.keys.push((key.to_owned(), row.to_vec()));
        self.flush_if_due()
    }

    /// Closes it, gives it its name and waits until it is on disk.
    ///
    /// # Errors
    ///
    /// [`BuildError::Write`].
    pub fn finish(mut self) -> Result<Head, BuildError> {
        self.flush()?;
        let path = self.path.clone();
        let failed = |source| BuildError::Write { path: path.clone(), source };
        let origin = self.origin();
        if let Some(target) = self.target.take() {
            if let Some(origin) = &origin {
                write_through(&target, |transaction| put_origin(transaction, origin)).map_err(failed)?;
            }
            guarded(|| Ok(target.database.close()?)).map_err(failed)?;
        }
        let named = fs::rename(&self.path, self.dir.join(LOG_FILE)).and_then(|()| sync_dir(&self.dir));
        named.map_err(|source| failed(StoreError::Io(source)))?;
        if let Some(origin) = &origin {
            let written = write_whole(&self.dir, ORIGIN_FILE, origin.to_json().as_bytes());
            written.map_err(|source| failed(StoreError::Io(source)))?;
        }
        // Behind the log: alone it would say that one was lost. Where it cannot be written, the next opening does.
        let _ = write_id(&self.dir, self.log_id);
        Ok(self.end.head())
    }

    /// What lies before the first event that it recorded itself.
    fn origin(&self) -> Option<Origin> {
        let head = self.end.head();
        let all = Origin { forks: self.forks.clone(), ..Origin::default() };
        (!all.is_none()).then(|| all.shared(head.seq, &head.root))
    }

    fn flush_if_due(&mut self) -> Result<(), BuildError> {
        if self.bytes < COMMIT_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), BuildError> {
        let Some(target) = &self.target else { return Ok(()) };
        let (blocks, keys) = (std::mem::take(&mut self.blocks), std::mem::take(&mut self.keys));
        let marks = self.marks;
        self.bytes = 0;
        let written = write_through(target, |transaction| {
            let (mut headers, mut bodies) =
                (transaction.open_table(HEADERS)?, transaction.open_table(BODIES)?);
            marks.put(transaction)?;
            for block in &blocks {
                headers.insert(block.first.0, block.header.as_slice())?;
                bodies.insert(block.first.0, block.body.as_slice())?;
            }
            let mut table = transaction.open_table(KEYS)?;
            for (key, row) in &keys {
                table.insert(key.as_str(), row.as_slice())?;
            }
            Ok(())
        });
        written.map_err(|source| BuildError::Write { path: self.path.clone(), source })
    }
}

impl Drop for LogBuild {
    fn drop(&mut self) {
        // It was not finished, or it has another name by now.
        drop(self.target.take());
        let _ = fs::remove_file(&self.path);
    }
}
