//! What the writer and the readers of one log share: the database, the head, the reason it was closed.

use std::path::PathBuf;
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use crate::id::Seq;
use crate::log::batch::LogClosed;
use crate::log::erasure::UNKNOWN;
use crate::log::flusher::chain_of;
use crate::log::lock::DirLock;
use crate::log::reader::Head;
use crate::log::sealing::KeyRing;
use crate::log::store::{Database, Own, Snapshot, StoreError, Writable};

/// Why the log takes no more events, once it does not.
#[derive(Debug, Default)]
pub(crate) struct ClosedReason(OnceLock<Arc<str>>);

impl ClosedReason {
    /// The first reason given stays.
    pub(crate) fn set(&self, reason: &str) {
        let _ = self.0.set(Arc::from(reason));
    }

    /// The error every later caller gets.
    pub(crate) fn error(&self) -> LogClosed {
        self.given().unwrap_or_else(|| LogClosed { reason: Arc::from("it was closed in order") })
    }

    /// The same, once there is a reason.
    pub(crate) fn given(&self) -> Option<LogClosed> {
        self.0.get().cloned().map(|reason| LogClosed { reason })
    }
}

#[derive(Debug, Clone, Copy)]
struct Tail {
    head: Head,
    ended: bool,
}

/// Shared by the writer and every reader.
pub(crate) struct Shared {
    /// `None` once the log is closed: the file is released even while readers live.
    database: RwLock<Option<Database>>,
    tail: Mutex<Tail>,
    moved: Condvar,
    pub log_id: [u8; 16],
    /// The file, where there is one.
    pub path: Option<PathBuf>,
    pub closed: Arc<ClosedReason>,
    /// Whether events were erased, as far as that is known.
    pub gaps: AtomicU8,
    /// Held by every snapshot of the database.
    token: Mutex<Arc<()>>,
    /// Keys of encrypted payloads.
    pub keys: Arc<KeyRing>,
    /// A reader's share of the directory's lock, held as long as this is.
    lock: Option<DirLock>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("path", &self.path)
            .field("head", &self.head())
            .field("lock", &self.lock)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(database: Database, head: Head, log_id: [u8; 16], path: Option<PathBuf>) -> Self {
        Self {
            database: RwLock::new(Some(database)),
            tail: Mutex::new(Tail { head, ended: false }),
            moved: Condvar::new(),
            log_id,
            path,
            closed: Arc::default(),
            keys: Arc::default(),
            gaps: AtomicU8::new(UNKNOWN),
            token: Mutex::default(),
            lock: None,
        }
    }

    /// Reads with these keys.
    pub(crate) fn with_keys(self, keys: Arc<KeyRing>) -> Self {
        Self { keys, ..self }
    }

    /// Keeps a share of the directory's lock.
    pub(crate) fn holding(self, lock: Option<DirLock>) -> Self {
        Self { lock, ..self }
    }

    /// Runs `use_it` on the open database.
    pub(crate) fn with_database<T>(
        &self,
        use_it: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        database.as_ref().map_or(Err(StoreError::Closed), use_it)
    }

    /// What is durable; a commit that is still on its way to the medium is left out.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let head = self.head().seq;
        self.snapshot_through(head)
    }

    /// Everything that is committed, be it on the medium or on its way.
    pub(crate) fn whole_snapshot(&self) -> Result<Snapshot, StoreError> {
        self.snapshot_through(Seq(u64::MAX))
    }

    fn snapshot_through(&self, through: Seq) -> Result<Snapshot, StoreError> {
        self.with_database(|database| {
            let token = Arc::clone(&self.token.lock().unwrap_or_else(PoisonError::into_inner));
            Ok(Snapshot { token, ..database.snapshot(through)? })
        })
    }

    /// Puts another file with the same events in the place of the log's own; that, and what lives as long as somebody reads
    /// it.
    pub(crate) fn replace_own(&self, new: Writable) -> (Option<Own>, Weak<()>) {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let old = database.as_mut().map(|database| std::mem::replace(&mut database.own, Own::Writable(new)));
        let token = std::mem::take(&mut *self.token.lock().unwrap_or_else(PoisonError::into_inner));
        (old, Arc::downgrade(&token))
    }

    /// Puts another database in place of the open one. When that fails there is none any more.
    pub(crate) fn replace_database(
        &self,
        replace: impl FnOnce(Option<Database>) -> Result<Database, StoreError>,
    ) -> Result<(), StoreError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let old = database.take();
        *database = Some(replace(old)?);
        Ok(())
    }

    /// Takes the database out; readers get [`StoreError::Closed`] from now on.
    pub(crate) fn take_database(&self) -> Option<Database> {
        self.database.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn head(&self) -> Head {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).head
    }

    /// Makes a commit visible and wakes who waits for it.
    pub(crate) fn publish(&self, head: Head) {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).head = head;
        self.moved.notify_all();
    }

    /// Says that the log takes no more events because the store failed.
    pub(crate) fn close_after(&self, failure: &StoreError) {
        self.closed.set(&format!("an earlier write failed: {}", chain_of(failure)));
    }

    /// Wakes everybody for the last time.
    pub(crate) fn end(&self) {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.moved.notify_all();
    }

    /// Blocks until the writer has ended, and says why it did: for who was left without an answer.
    pub(crate) fn ended(&self) -> LogClosed {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.moved.wait_while(tail, |tail| !tail.ended).unwrap_or_else(PoisonError::into_inner));
        self.closed.error()
    }

    /// Blocks until the head is beyond `seq`, the log has ended, or `timeout` is over; the head's position then.
    pub(crate) fn wait_beyond(&self, seq: Seq, timeout: Duration) -> Seq {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let (tail, _) = self
            .moved
            .wait_timeout_while(tail, timeout, |tail| tail.head.seq <= seq && !tail.ended)
            .unwrap_or_else(PoisonError::into_inner);
        tail.head.seq
    }
}
