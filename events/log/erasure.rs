//! Erasing subjects: what they have in the log, the order that ends it, and the keys that are destroyed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use crossbeam_channel::bounded;

use crate::codec;
use crate::event::{Event, Kind};
use crate::id::{ConversationId, Seq};
use crate::log::batch::{AppendError, Appended, Batch};
use crate::log::block::{Block, FLAG_SEALED, Stored};
use crate::log::blocks::{Value, damaged, next_header, open_block, open_to_read, read_header};
use crate::log::bloom::{self, Item, item_hash};
use crate::log::filter::Filter;
use crate::log::header::Header;
use crate::log::open::{OpenError, Opened, open_file, open_file_read_only, store_error, write_through};
use crate::log::options::LogOptions;
use crate::log::rewrite::{Redaction, RewriteError, Rewritten, SyncFolder, old_path};
use crate::log::salvage::{Lost, Step, Steps};
use crate::log::scan::ReadError;
use crate::log::sealing::opened::envelope_bytes;
use crate::log::sealing::{KEYS_FILE, KeyFile, KeyRing, KeysError};
use crate::log::store::{Database, META, Own, Snapshot, StoreError};
use crate::log::{Log, READ_ONLY_CACHE_BYTES, Reader};
use crate::record::Draft;
use crate::subject::Subject;
use crate::system::SystemEvent;
use crate::time::Clock;

/// In the table about the log: it has encrypted payloads, so there must be a file of keys.
const KEYS_ROW: &str = "keys";
/// In the table about the log: events of it were erased, and the order may not be in it.
const GAPS_ROW: &str = "gaps";
/// It is not known whether the log has erased events.
pub(crate) const UNKNOWN: u8 = 0;
/// It has none.
const NONE: u8 = 1;
/// It has some.
const SOME: u8 = 2;
/// Streams that are named where a file of keys is missing.
const NAMED_MAX: usize = 5;

/// What a subject has in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Holdings {
    /// Events encrypted under a key that is there: they are gone with the key.
    pub sealed: u64,
    /// Events that lie there as they were written.
    pub plain: u64,
    /// Events that were erased before.
    pub erased: u64,
}

impl Holdings {
    /// Events that can still be read.
    pub const fn readable(&self) -> u64 {
        self.sealed + self.plain
    }
}

/// Why subjects were not erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// The order was not recorded: nothing is erased.
    #[error("could not record the order to erase; nothing was erased")]
    Order(#[source] AppendError),
    /// The order stands, and nothing of the subjects is shown any more; but keys could not be destroyed. The next start
    /// tries again.
    #[error(
        "the order to erase is recorded at {order}, but keys could not be destroyed; restart to complete it"
    )]
    Keys {
        /// The order.
        order: Seq,
        /// Why.
        #[source]
        source: KeysError,
    },
}

/// Why what was ordered to be erased was not taken out of a log.
#[derive(Debug, thiserror::Error)]
pub enum OrdersError {
    /// The log did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log could not be written anew.
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    /// The log could not be closed in order.
    #[error("could not close the log in order")]
    Close(#[source] AppendError),
}

/// Takes out of the stopped log in `dir`, whose lock the caller holds, what lies there as it was written although an order in
/// the log erased it: what was copied before the order still has it. How many events lost their content.
///
/// # Errors
///
/// [`OrdersError`]; some of them may have lost it.
pub fn follow_orders(dir: &Path, clock: Arc<dyn Clock>) -> Result<u64, OrdersError> {
    let stopped = open_file_read_only(dir, READ_ONLY_CACHE_BYTES)?;
    let has_orders = has_order(&stopped.database.snapshot(Seq(u64::MAX)).map_err(ReadError::from)?)?;
    drop(stopped);
    if !has_orders {
        return Ok(0);
    }
    let options = LogOptions { merge_blocks: false, ..LogOptions::new([0; 16]) };
    let opened = open_file(dir, options.cache_bytes, options.log_id)?;
    // Without keys: what is encrypted goes with them.
    let log = Log::start(opened, Some(dir), None, Arc::default(), options, clock)?;
    let mut taken = 0;
    for (order, subjects) in orders(&log.reader())? {
        if log.reader().holds_plain(&subjects, order)? {
            taken += log.redact(&subjects, order)?;
        }
    }
    log.close().map_err(OrdersError::Close)?;
    Ok(taken)
}

/// Where something was ordered to be erased, and what, in order.
fn orders(log: &Reader) -> Result<Vec<(Seq, Vec<Subject>)>, ReadError> {
    let filter = Filter { kinds: Some(vec![Kind::ErasureOrdered]), ..Filter::default() };
    let mut orders = Vec::new();
    for record in log.scan(Seq::FIRST, &filter) {
        let record = record?;
        if let Event::System(SystemEvent::ErasureOrdered { subjects, .. }) = record.event {
            orders.push((record.seq, subjects));
        }
    }
    Ok(orders)
}

/// The log takes no events of some subjects until this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Hold {
    ring: Arc<KeyRing>,
    subjects: Vec<Subject>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.ring.let_go(&self.subjects);
    }
}

impl Log {
    /// Refuses events of these subjects as [`AppendError::BeingErased`] until what it returns is dropped. Everything of them
    /// that was taken before stands in front of what is appended from now on.
    pub fn hold<'a>(&self, subjects: impl IntoIterator<Item = &'a Subject>) -> Hold {
        let ring = Arc::clone(&self.shared.keys);
        let subjects: Vec<Subject> = subjects.into_iter().cloned().collect();
        ring.hold(&subjects);
        Hold { ring, subjects }
    }

    /// The conversations that [`Log::hold`] keeps events of out of the log now.
    pub fn held_conversations(&self) -> HashSet<ConversationId> {
        self.shared.keys.held_conversations()
    }

    /// Records the order to erase `subjects`, which `order` makes from the numbers of their keys, and destroys these.
    ///
    /// While this runs the log takes no other events of the subjects, so everything of them before the order was written
    /// under the keys that are destroyed, and nothing after it. Until it returns, and after a crash until
    /// [`Log::destroy_keys`] is called for the order, the keys may still be there.
    ///
    /// # Errors
    ///
    /// [`EraseError`] says which half was done.
    pub fn erase(
        &self,
        subjects: &[Subject],
        order: impl FnOnce(Vec<u64>) -> Draft,
    ) -> Result<Appended, EraseError> {
        let _held = self.hold(subjects);
        let ids = self.shared.keys.ids_of(subjects);
        let appended = self
            .append(vec![Batch::of(vec![order(ids.clone())])])
            .map_err(AppendError::from)
            .and_then(|mut results| results.remove(0))
            .map_err(EraseError::Order)?;
        let order = appended.first;
        self.destroy_keys(&ids, order).map_err(|source| EraseError::Keys { order, source })?;
        Ok(appended)
    }

    /// Takes the content of the subjects' events before `order` out of the log where they lie as they were written: the log
    /// is written anew. Appends wait while that is written, reads go on; those that still read the old file 30 seconds after it
    /// are told that the log is closed. How many events lost their content.
    ///
    /// # Errors
    ///
    /// [`RewriteError`]; the log goes on, unless it was closed.
    pub fn redact(&self, subjects: &[Subject], order: Seq) -> Result<u64, RewriteError> {
        self.redact_with(subjects, order, File::sync_all)
    }

    /// The same; `sync_folder` makes the new file's name last.
    pub(crate) fn redact_with(
        &self,
        subjects: &[Subject],
        order: Seq,
        sync_folder: SyncFolder,
    ) -> Result<u64, RewriteError> {
        // Another one would overwrite an old file that is still read.
        let _alone = self.rewriting.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_anew(subjects, order, sync_folder)?.overwrite()
    }

    /// The same without the end of the old file.
    pub(crate) fn write_anew(
        &self,
        subjects: &[Subject],
        order: Seq,
        sync_folder: SyncFolder,
    ) -> Result<Rewritten, RewriteError> {
        let (answer, answered) = bounded(1);
        let redaction = Redaction { subjects: subjects.to_vec(), order, sync_folder, answer };
        let asked = self.redactions.send(redaction).ok();
        asked.and_then(|()| answered.recv().ok()).unwrap_or_else(|| Err(self.shared.ended().into()))
    }

    /// Whether the file that the log was in before it was written anew is still there: it has what was to be erased and could
    /// not be overwritten. [`Log::redact`] tries again.
    pub fn has_old_file(&self) -> bool {
        self.shared.path.as_deref().is_some_and(|path| old_path(path).exists())
    }

    /// Destroys keys that an order names and that are still there.
    ///
    /// # Errors
    ///
    /// [`KeysError`].
    pub fn destroy_keys(&self, ids: &[u64], order: Seq) -> Result<(), KeysError> {
        self.shared.keys.destroy(ids, order)?;
        self.shared.gaps.store(SOME, Ordering::Release);
        Ok(())
    }
}

impl Reader {
    /// Whether events of the log were erased, so that others may speak of what is not told any more. Looked up once.
    pub fn has_gaps(&self) -> bool {
        let gaps = self.gaps();
        match gaps.load(Ordering::Acquire) {
            UNKNOWN => {
                // A log that cannot be read has other worries, which whoever reads it is told of.
                let found = self.keys().counts().1 > 0 || self.looks_erased().unwrap_or(false);
                let found = if found { SOME } else { NONE };
                // What was erased meanwhile has said so.
                let _ = gaps.compare_exchange(UNKNOWN, found, Ordering::AcqRel, Ordering::Acquire);
                gaps.load(Ordering::Acquire) == SOME
            }
            known => known == SOME,
        }
    }

    fn looks_erased(&self) -> Result<bool, ReadError> {
        Ok(self.may_lack_orders()? || has_order(&self.whole()?)?)
    }

    /// Whether it is noted that events may have been erased by orders that are not in this log: of a fork, or a log that was
    /// restored up to a point, they may lie behind where it began to go its own way. The note alone proves nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the log is closed or its file is damaged.
    pub fn may_lack_orders(&self) -> Result<bool, StoreError> {
        Ok(self.meta(GAPS_ROW)?.is_some())
    }

    /// Sealed files that a part of the log lies in. What lies there as it was written cannot be taken out of the log.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the log is closed.
    pub fn sealed_files(&self) -> Result<usize, ReadError> {
        Ok(self.whole()?.past.parts.len())
    }

    /// Whether something of these subjects from before `order` lies in the log as it was written. It reads the blocks that may
    /// hold something of them.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the log is damaged.
    pub fn holds_plain(&self, subjects: &[Subject], order: Seq) -> Result<bool, ReadError> {
        let mut found = false;
        each_of(&self.whole()?, subjects, &mut |_, at| found |= at.seq < order && at.key.is_none())?;
        Ok(found)
    }

    /// Events that this order took out of the log, where they lay as they were written, in order; with them those that are
    /// damaged, of which nobody can tell. It reads every block before the order: one that was merged since does not tell any
    /// more what its erased events were about.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the log is closed or its medium failed.
    pub fn taken_out(&self, order: Seq) -> Result<Vec<Seq>, ReadError> {
        let mut taken = Vec::new();
        let mut steps = Steps::new(self.whole()?, Seq::FIRST, order.previous());
        while let Some(step) = steps.next() {
            match step {
                Step::Block(first, ..) if first >= order => break,
                Step::Block(first, value, body) => {
                    taken.extend(taken_of(&read_header(first, &value)?, &body, order));
                }
                Step::Gap(Lost { cause: ReadError::Store(cause), .. })
                    if !matches!(cause, StoreError::Damaged(_)) =>
                {
                    return Err(cause.into());
                }
                Step::Gap(gap) => taken.extend((gap.first.0..=gap.last.0).map(Seq)),
            }
        }
        taken.retain(|seq| *seq < order);
        Ok(taken)
    }

    /// What each of these subjects has in the log. It reads the blocks that may hold something of them.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the log is damaged.
    pub fn holdings(&self, subjects: &[Subject]) -> Result<BTreeMap<Subject, Holdings>, ReadError> {
        let mut holdings: BTreeMap<Subject, Holdings> =
            subjects.iter().map(|subject| (subject.clone(), Holdings::default())).collect();
        let ring = Arc::clone(self.keys());
        each_of(&self.whole()?, subjects, &mut |subject, at| {
            let Some(found) = holdings.get_mut(subject) else { return };
            match at.key {
                None => found.plain += 1,
                Some(key) if ring.is_held(key) => found.sealed += 1,
                Some(_) => found.erased += 1,
            }
        })?;
        Ok(holdings)
    }
}

/// The events of a block that the order took out of it, and those that are damaged.
fn taken_of(header: &Header<'_>, body: &Value, order: Seq) -> Vec<Seq> {
    let Ok(block) = open_to_read(header, body) else {
        return (header.first.0..=header.last().0).map(Seq).collect();
    };
    // What does not begin with 0 need not be hashed, unless something of the block is known to be damaged.
    let is_damaged = header.body_checksum.is_some() && !block.is_sound();
    let may_be =
        |index: usize| is_damaged || block.raw(index).is_none_or(|stored| stored.first() == Some(&0));
    let is_taken = |index: &usize| {
        may_be(*index)
            && match block.stored(*index) {
                Ok(Stored::Redacted(by)) => by == order,
                Ok(Stored::Bytes(_)) => false,
                Err(_) => true,
            }
    };
    (0..block.count()).filter(is_taken).map(|index| block.seq(index)).collect()
}

/// Where an event of a subject is.
pub(crate) struct At {
    /// Its position.
    pub seq: Seq,
    /// Number of the key it is encrypted under.
    pub key: Option<u64>,
}

/// Calls `each` for every event of these subjects that is there.
pub(crate) fn each_of(
    snapshot: &Snapshot,
    subjects: &[Subject],
    each: &mut dyn FnMut(&Subject, &At),
) -> Result<(), ReadError> {
    let finder = Finder::of(subjects);
    let mut headers = snapshot.headers_from(Seq::ZERO)?;
    while let Some((first, value)) = next_header(&mut headers, false)? {
        let header = read_header(first, &value)?;
        if !finder.may_be_in(header.filter) {
            continue;
        }
        let body = snapshot.body(first)?;
        let block = open_block(&header, &body)?;
        for index in 0..block.count() {
            let tag = block.entry(index).tag;
            let of_block = |what: &str| damaged(first, format!("{what} ({})", block.seq(index)));
            let Stored::Bytes(stored) = block.stored(index).map_err(of_block)? else { continue };
            let bytes = envelope_bytes(stored, tag).map_err(of_block)?;
            let (envelope, _) = codec::decode_envelope(&bytes)
                .map_err(|source| ReadError::Decode { seq: block.seq(index), source })?;
            if let Some(subject) = finder.subject(tag.kind, envelope.stream) {
                each(subject, &At { seq: block.seq(index), key: envelope.subject_key });
            }
        }
    }
    Ok(())
}

/// Finds the events of subjects.
pub(crate) struct Finder<'a> {
    items: Vec<u64>,
    streams: HashMap<String, Vec<&'a Subject>>,
}

impl<'a> Finder<'a> {
    pub(crate) fn of(subjects: &'a [Subject]) -> Self {
        let mut streams: HashMap<String, Vec<&'a Subject>> = HashMap::new();
        for subject in subjects {
            for stream in subject.streams() {
                streams.entry(stream).or_default().push(subject);
            }
        }
        let items = streams.keys().map(|stream| item_hash(Item::Stream, stream)).collect();
        Self { items, streams }
    }

    /// Whether a block with this filter may hold something; "no" is certain.
    pub(crate) fn may_be_in(&self, filter: &[u8]) -> bool {
        self.items.iter().any(|item| bloom::may_contain(filter, *item))
    }

    /// The subject that an event of this kind and stream belongs to, if it is one of them.
    pub(crate) fn subject(&self, kind: u8, stream: &str) -> Option<&'a Subject> {
        let candidates = self.streams.get(stream)?;
        let subject = Subject::of(Kind::from_tag(kind)?, stream)?;
        candidates.iter().copied().find(|candidate| **candidate == subject)
    }
}

/// Opens the keys of the log in `dir`, and makes their file where payloads are to be encrypted and there is none.
pub(crate) fn open_keys(
    dir: &Path,
    opened: &Opened,
    options: &LogOptions,
) -> Result<Arc<KeyRing>, OpenError> {
    if let Some((file, places)) = KeyFile::open(dir, opened.log_id, true).map_err(OpenError::Keys)? {
        mark(dir, opened)?;
        return Ok(Arc::new(KeyRing::of(file, places)));
    }
    if is_marked(dir, &opened.database.own)? {
        let what =
            sealed(&opened.database).map_err(|source| OpenError::Damaged { path: dir.to_owned(), source })?;
        return Err(OpenError::Keys(KeysError::Missing { path: dir.join(KEYS_FILE), what }));
    }
    if options.sealing.is_none() {
        return Ok(Arc::default());
    }
    let file = KeyFile::create(dir, opened.log_id).map_err(OpenError::Keys)?;
    mark(dir, opened)?;
    Ok(Arc::new(KeyRing::of(file, Vec::new())))
}

/// Opens the keys of the log in `dir` to read with them; without their file, what is encrypted is not readable.
pub(crate) fn open_keys_read_only(dir: &Path, log_id: [u8; 16]) -> Result<Arc<KeyRing>, OpenError> {
    let opened = KeyFile::open(dir, log_id, false).map_err(OpenError::Keys)?;
    Ok(opened.map_or_else(Arc::default, |(file, places)| Arc::new(KeyRing::of(file, places))))
}

fn is_marked(dir: &Path, own: &Own) -> Result<bool, OpenError> {
    own.meta(KEYS_ROW).map(|row| row.is_some()).map_err(|error| store_error(dir, error))
}

/// Notes in the log that there is a file of keys.
fn mark(dir: &Path, opened: &Opened) -> Result<(), OpenError> {
    if is_marked(dir, &opened.database.own)? {
        return Ok(());
    }
    let Own::Writable(writable) = &opened.database.own else { return Ok(()) };
    let marks = Marks { sealed: true, gaps: false };
    write_through(writable, |transaction| marks.put(transaction))
        .map_err(|error: StoreError| store_error(dir, error))
}

/// Whether the log has an order to erase: then events may speak of what is not told any more. What cannot be read has none.
fn has_order(snapshot: &Snapshot) -> Result<bool, ReadError> {
    let mut headers = snapshot.headers_from(Seq::ZERO)?;
    while let Some((first, value)) = next_header(&mut headers, false)? {
        let header = read_header(first, &value);
        if header.is_ok_and(|header| header.kinds & (1 << Kind::ErasureOrdered.tag()) != 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Carries the notes over to a new file of the log.
pub(crate) fn carry_marks(from: &Own, to: &redb::WriteTransaction) -> Result<(), StoreError> {
    let is_set = |row| from.meta(row).map(|row| row.is_some());
    Marks { sealed: is_set(KEYS_ROW)?, gaps: is_set(GAPS_ROW)? }.put(to)
}

/// What a file of a log notes about its events, since it cannot be seen without reading all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Marks {
    /// Payloads are encrypted: there must be a file of keys.
    pub sealed: bool,
    /// Events were erased.
    pub gaps: bool,
}

impl Marks {
    /// Adds what a block has.
    pub(crate) fn note(&mut self, first: Seq, header: &[u8], body: &[u8]) {
        let Ok(header) = Header::decode(first, header) else { return };
        let Ok(block) = Block::trusted(first, header.first_at, header.count, body, false) else { return };
        self.sealed = self.sealed || block.has_sealed();
        self.gaps = self.gaps || block.has_redacted();
    }

    /// Notes it in a file of the log.
    pub(crate) fn put(self, to: &redb::WriteTransaction) -> Result<(), StoreError> {
        for (row, is_set) in [(KEYS_ROW, self.sealed), (GAPS_ROW, self.gaps)] {
            if is_set {
                to.open_table(META)?.insert(row, [1_u8].as_slice())?;
            }
        }
        Ok(())
    }
}

/// What is encrypted in a log whose keys are not there, in words.
fn sealed(database: &Database) -> Result<String, ReadError> {
    let snapshot = database.snapshot(Seq(u64::MAX))?;
    let mut streams: BTreeMap<String, u64> = BTreeMap::new();
    let mut headers = snapshot.headers_from(Seq::ZERO)?;
    while let Some((first, value)) = next_header(&mut headers, false)? {
        let header = read_header(first, &value)?;
        let body = snapshot.body(first)?;
        let block = open_block(&header, &body)?;
        for index in (0..block.count()).filter(|index| block.entry(*index).tag.flags & FLAG_SEALED != 0) {
            if let Ok(Stored::Bytes(stored)) = block.stored(index)
                && let Ok((envelope, _)) = codec::decode_envelope(stored)
            {
                *streams.entry(envelope.stream.to_owned()).or_default() += 1;
            }
        }
    }
    let events: u64 = streams.values().sum();
    let named: Vec<&str> = streams.keys().take(NAMED_MAX).map(String::as_str).collect();
    let more = match streams.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Ok(match events {
        0 => "what was encrypted".to_owned(),
        events => format!("the content of {events} events (in {}{more})", named.join(", ")),
    })
}
