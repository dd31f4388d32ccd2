//! The full-text index: for each scope and word the texts that hold it, in memory.
//!
//! It is made of the rows of the graph's file when it is first asked ([`load`](super::load)) and follows the graph from
//! then on: the writer hands over each batch once its transaction is committed. Texts keep the record that wrote them and
//! the one that removed them, so that a query sees those of the moment it looks at, however far the index is.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use caxton_events::MemoryId;

use super::TextHitKind;
use super::batch::{Change, Done, NAME_WEIGHT, TextBatch};
use super::score::Scratch;
use super::shelf::{Document, Shelf};
use crate::by_name::{ByName, NameHash};

/// Texts that are added while readers wait.
const STEP: usize = 256;
/// How long a query waits for a batch that is committed and not yet here; handing it over takes milliseconds.
const HANDING_OVER_MAX: Duration = Duration::from_secs(10);
/// Bytes of a word among all words: its place in the map, and what the allocator gives for its letters.
const A_WORD: usize = size_of::<(Box<str>, u32)>() + 16;
/// In place of a document: there is none.
const NONE: u32 = u32::MAX;

#[cfg(test)]
thread_local! {
    /// Headers that this thread looked at in [`ScopeTexts::header_of`].
    pub(crate) static HEADERS_SEEN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A header beside its document.
#[derive(Debug, Clone, Copy)]
struct Head {
    entity_type: u32,
    /// The header that the same entity had before.
    before: u32,
}

/// The texts of a scope.
#[derive(Debug)]
pub(super) struct ScopeTexts {
    pub(super) headers: Shelf,
    pub(super) contents: Shelf,
    heads: Vec<Head>,
    entities: HashMap<MemoryId, u32, NameHash>,
    /// The newest header of each entity.
    newest: Vec<u32>,
    /// The type in it.
    newest_types: Vec<u32>,
    /// The last content about each entity, and for each content the one before it about the same entity.
    last_contents: Vec<u32>,
    contents_before: Vec<u32>,
}

impl ScopeTexts {
    fn new() -> Self {
        let (headers, contents) = (Shelf::new(NAME_WEIGHT), Shelf::new(1));
        Self {
            headers,
            contents,
            heads: Vec::new(),
            entities: HashMap::default(),
            newest: Vec::new(),
            newest_types: Vec::new(),
            last_contents: Vec::new(),
            contents_before: Vec::new(),
        }
    }

    /// How many entities it knows.
    pub(super) const fn entities(&self) -> usize {
        self.newest.len()
    }

    /// The header that an entity had after the record `moment`, or has now. The past takes a look at each that it had since.
    pub(super) fn header_of(&self, entity: u32, moment: Option<u64>) -> Option<u32> {
        let mut header = *self.newest.get(entity as usize)?;
        while header != NONE {
            #[cfg(test)]
            HEADERS_SEEN.set(HEADERS_SEEN.get() + 1);
            if self.headers.document(header)?.is_there(moment) {
                return Some(header);
            }
            // Of the present only the newest can be there.
            moment?;
            header = self.heads.get(header as usize)?.before;
        }
        None
    }

    /// The type that an entity has now, or had last.
    pub(super) fn newest_type(&self, entity: u32) -> Option<u32> {
        self.newest_types.get(entity as usize).copied()
    }

    /// The last content about an entity, of those that there are or were.
    pub(super) fn last_content(&self, entity: u32) -> Option<u32> {
        self.last_contents.get(entity as usize).copied().filter(|number| *number != NONE)
    }

    /// The content about the same entity before this one.
    pub(super) fn content_before(&self, number: u32) -> Option<u32> {
        self.contents_before.get(number as usize).copied().filter(|number| *number != NONE)
    }

    /// The type in a header.
    pub(super) fn type_of(&self, header: u32) -> Option<u32> {
        self.heads.get(header as usize).map(|head| head.entity_type)
    }

    fn entity(&mut self, id: MemoryId) -> u32 {
        let next = self.newest.len() as u32;
        let entity = *self.entities.entry(id).or_insert(next);
        if entity == next {
            self.newest.push(NONE);
            self.newest_types.push(NONE);
            self.last_contents.push(NONE);
        }
        entity
    }

    fn shelf(&mut self, kind: TextHitKind) -> &mut Shelf {
        match kind {
            TextHitKind::Header => &mut self.headers,
            TextHitKind::Observation => &mut self.contents,
        }
    }
}

/// All texts there are and were.
#[derive(Debug, Default)]
pub(super) struct Texts {
    words: ByName<Box<str>, u32>,
    types: ByName<Box<str>, u32>,
    scopes: HashMap<i64, ScopeTexts, NameHash>,
    /// The last record that is in here; `None`: nothing was loaded.
    through: Option<u64>,
    /// Whether a batch is being added: then some texts are of later records.
    adding: bool,
}

impl Texts {
    pub(super) fn scope(&self, scope: i64) -> Option<&ScopeTexts> {
        self.scopes.get(&scope)
    }

    pub(super) fn word(&self, word: &str) -> Option<u32> {
        self.words.get(word).copied()
    }

    pub(super) fn entity_type(&self, name: &str) -> Option<u32> {
        self.types.get(name).copied()
    }

    /// Adds what a range of the changes of `batch` says.
    pub(super) fn add(&mut self, batch: &TextBatch, range: std::ops::Range<usize>) {
        let mut words: Vec<(u32, u8)> = Vec::new();
        batch.each(range, |change, texts| {
            words.clear();
            words.extend(texts.iter().map(|(word, weight)| (number_of(&mut self.words, word), weight)));
            words.sort_unstable_by_key(|(word, _)| *word);
            words.dedup_by(|again, first| {
                let same = again.0 == first.0;
                if same {
                    first.1 = first.1.saturating_add(again.1);
                }
                same
            });
            self.change(change, &words);
        });
    }

    fn change(&mut self, change: &Change, words: &[(u32, u8)]) {
        let scope = self.scopes.entry(change.scope).or_insert_with(ScopeTexts::new);
        match &change.done {
            Done::Closed(removed) => scope.shelf(change.kind).close(change.created, *removed, words),
            Done::Added { row, entity, entity_type, validity } => {
                let entity = scope.entity(*entity);
                let document = Document::new(change.created, *row);
                let number = scope.shelf(change.kind).add(document, entity, change.len, validity, words);
                if let Some(entity_type) = entity_type {
                    let entity_type = number_of(&mut self.types, entity_type);
                    let newest = scope.newest.get_mut(entity as usize);
                    let before = newest.map_or(NONE, |newest| std::mem::replace(newest, number));
                    scope.heads.push(Head { entity_type, before });
                    if let Some(newest) = scope.newest_types.get_mut(entity as usize) {
                        *newest = entity_type;
                    }
                } else {
                    let last = scope.last_contents.get_mut(entity as usize);
                    let before = last.map_or(NONE, |last| std::mem::replace(last, number));
                    scope.contents_before.push(before);
                }
            }
        }
    }

    /// Bytes it takes, roughly.
    fn bytes(&self) -> usize {
        let an_entity = size_of::<(MemoryId, u32)>() + 3 * size_of::<u32>();
        let scope = |scope: &ScopeTexts| {
            let links = scope.contents_before.len() * size_of::<u32>();
            let heads = scope.heads.len() * size_of::<Head>() + links;
            scope.headers.bytes() + scope.contents.bytes() + heads + scope.entities() * an_entity
        };
        self.words.len() * A_WORD + self.scopes.values().map(scope).sum::<usize>()
    }
}

fn number_of(known: &mut ByName<Box<str>, u32>, name: &str) -> u32 {
    if let Some(&number) = known.get(name) {
        return number;
    }
    let number = known.len() as u32;
    known.insert(name.into(), number);
    number
}

/// What waits while the rows are read: batches by the last record of each.
#[derive(Debug, Default)]
struct Waiting {
    batches: Vec<(u64, TextBatch)>,
    /// Something changed that no batch in here tells.
    missed: bool,
}

/// The index that queries and the graph's writer share.
#[derive(Debug, Default)]
pub(crate) struct TextIndex {
    texts: RwLock<Texts>,
    /// While rows are read: what was folded meanwhile.
    waiting: Mutex<Option<Waiting>>,
    /// Held by the one thread that reads rows.
    pub(super) loader: Mutex<()>,
    /// The same as in `texts`, for those who wait until it grows. It changes while `texts` is held, which nobody takes who
    /// holds it.
    through: Mutex<Option<u64>>,
    grown: Condvar,
    scratch: Mutex<Vec<Scratch>>,
}

impl TextIndex {
    /// Whether batches need only count their words: nothing is loaded that they would change.
    pub(crate) fn is_unused(&self) -> bool {
        lock(&self.waiting).is_none() && lock(&self.through).is_none()
    }

    /// Takes in what was committed, up to the record `through`.
    pub(crate) fn take(&self, batch: TextBatch, through: u64) {
        {
            let mut waiting = lock(&self.waiting);
            if let Some(waiting) = waiting.as_mut() {
                waiting.missed |= batch.missed;
                waiting.batches.push((through, batch));
                return;
            }
        }
        let Some(known) = *lock(&self.through) else { return };
        if known >= through {
            // The rows were loaded between its commit and this, and it with them.
            return;
        }
        if batch.missed {
            self.unload();
        } else {
            self.add(&batch, through);
        }
    }

    fn add(&self, batch: &TextBatch, through: u64) {
        let mut from = 0;
        while from < batch.len() {
            let end = (from + STEP).min(batch.len());
            let mut texts = self.write();
            // Forgotten meanwhile: what is left of the batch is no index.
            if texts.through.is_none() {
                return;
            }
            texts.adding = true;
            texts.add(batch, from..end);
            from = end;
        }
        let texts = self.write();
        if texts.through.is_some() {
            self.reach(texts, through);
        }
    }

    fn reach(&self, mut texts: RwLockWriteGuard<'_, Texts>, through: u64) {
        texts.adding = false;
        texts.through = Some(through);
        *lock(&self.through) = Some(through);
        drop(texts);
        self.grown.notify_all();
    }

    /// Whether there is something to ask.
    pub(crate) fn is_loaded(&self) -> bool {
        lock(&self.through).is_some()
    }

    /// Forgets everything, what is being loaded too; the next query loads it again.
    pub(crate) fn unload(&self) {
        if let Some(waiting) = lock(&self.waiting).as_mut() {
            waiting.missed = true;
        }
        let mut place = self.write();
        let texts = std::mem::take(&mut *place);
        *lock(&self.through) = None;
        drop(place);
        self.grown.notify_all();
        // It takes a while, and nobody waits for it.
        drop(texts);
    }

    /// From here on batches wait for the end of loading. A snapshot that is begun after this holds all that came before.
    pub(super) fn begin_loading(&self) {
        *lock(&self.waiting) = Some(Waiting::default());
    }

    /// Takes in what was loaded, which includes the records up to `through`, and what was folded meanwhile. `false`:
    /// something was missed, and nothing is loaded.
    pub(super) fn finish_loading(&self, loaded: Option<(Texts, u64)>) -> bool {
        let mut waiting = lock(&self.waiting);
        let Waiting { batches, missed } = waiting.take().unwrap_or_default();
        let Some((mut texts, mut through)) = loaded.filter(|_| !missed) else { return false };
        for (last, batch) in batches {
            if last > through {
                texts.add(&batch, 0..batch.len());
                through = last;
            }
        }
        let mut place = self.write();
        *place = texts;
        self.reach(place, through);
        // Only now: a batch that is taken in next goes on from here.
        drop(waiting);
        true
    }

    /// The texts as of the record `moment` for a query whose snapshot holds the records up to `seq`; `None`: they must be
    /// loaded first.
    pub(super) fn at(&self, seq: u64, moment: u64) -> Option<AtMoment<'_>> {
        let through = lock(&self.through);
        let late = |through: &mut Option<u64>| through.is_some_and(|through| through < seq);
        let waited = self.grown.wait_timeout_while(through, HANDING_OVER_MAX, late);
        let (through, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(through);
        if waited.timed_out() {
            // The writer ended in the middle.
            self.unload();
            return None;
        }
        let texts = self.texts.read().unwrap_or_else(PoisonError::into_inner);
        let through = texts.through?;
        let moment = (through != moment || texts.adding).then_some(moment);
        Some(AtMoment { texts, moment })
    }

    /// Room for scores.
    pub(super) fn scratch(&self) -> Scratch {
        lock(&self.scratch).pop().unwrap_or_default()
    }

    /// Gives the room back, all zeros.
    pub(super) fn give_back(&self, scratch: Scratch) {
        lock(&self.scratch).push(scratch);
    }

    /// Bytes the index takes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.texts.read().unwrap_or_else(PoisonError::into_inner).bytes()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Texts> {
        self.texts.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The texts as a query sees them.
pub(super) struct AtMoment<'a> {
    texts: RwLockReadGuard<'a, Texts>,
    /// The record after which they are looked at; `None`: all that is there.
    pub(super) moment: Option<u64>,
}

impl Deref for AtMoment<'_> {
    type Target = Texts;

    fn deref(&self) -> &Texts {
        &self.texts
    }
}

/// What a panic leaves half changed is never read: the thread that changes it is the writer's, and the server stops with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::thread;

    use caxton_events::MemoryId;
    use caxton_events::memory::Validity;

    use super::{TextBatch, TextIndex, Texts, lock};
    use crate::text::batch::{Text, Written};

    fn batch(created: u32) -> TextBatch {
        let mut batch = TextBatch::default();
        let ids = (MemoryId(u64::from(created)), MemoryId(1));
        let at = Written { scope: 1, created: i64::from(created) };
        batch.add(at, ids, Text::Content("a turbine"), &Validity::default());
        batch
    }

    fn wordless() -> TextBatch {
        let mut batch = TextBatch::default();
        batch.erase();
        batch
    }

    fn texts_at(index: &TextIndex, seq: u64) -> usize {
        let texts = index.at(seq, seq).unwrap();
        texts.scope(1).unwrap().contents.lens().len()
    }

    #[test]
    fn a_batch_that_is_loaded_before_it_is_taken_in_counts_once() {
        let index = TextIndex::default();
        index.begin_loading();
        // It is committed, and read with the other rows, before the writer hands it over.
        let mut texts = Texts::default();
        texts.add(&batch(5), 0..1);
        assert!(index.finish_loading(Some((texts, 5))));
        index.take(batch(5), 5);
        assert_eq!(texts_at(&index, 5), 1);
        index.take(batch(6), 6);
        assert_eq!(texts_at(&index, 6), 2);
        // Nor does one that tells no words take away what was read behind it.
        index.take(wordless(), 6);
        assert_eq!(texts_at(&index, 6), 2);
        index.take(wordless(), 7);
        assert!(!index.is_loaded());
    }

    /// Does `change` while nobody else can note how far the index is: until that is noted, nobody sees texts that are further
    /// than what is noted, or not as far.
    #[track_caller]
    fn check_noted_with_the_texts(index: &TextIndex, change: impl FnOnce() + Send) {
        let noted = lock(&index.through);
        let known = *noted;
        let seen = || index.texts.try_read().ok().map(|texts| texts.through);
        let torn = thread::scope(|scope| {
            thread::Builder::new().spawn_scoped(scope, change).unwrap();
            // Until it has the texts.
            while seen() == Some(known) {
                thread::yield_now();
            }
            let torn = (0..10_000).find_map(|_| {
                thread::yield_now();
                seen().filter(|through| *through != known)
            });
            drop(noted);
            torn
        });
        assert_eq!(torn, None);
    }

    #[test]
    fn how_far_the_texts_are_is_noted_while_they_are_held() {
        let index = TextIndex::default();
        index.begin_loading();
        assert!(index.finish_loading(Some((Texts::default(), 5))));
        check_noted_with_the_texts(&index, || index.add(&batch(6), 6));
        assert_eq!(texts_at(&index, 6), 1);
        check_noted_with_the_texts(&index, || index.unload());
        assert!(!index.is_loaded() && index.at(6, 6).is_none());
    }
}
