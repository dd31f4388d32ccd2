//! What the fold, the searches and the index builder share: a view of each scope, swapped whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use caxton_events::{MemoryId, Scope, Seq};

use crate::embedding::standby::StandBy;
use crate::embedding::store::VectorStore;
use crate::vector::VectorOptions;
use crate::vector::filter::{Filter, Wanted};
use crate::vector::index::Hnsw;
use crate::vector::kernels::Kernel;
use crate::vector::pass::Buffers;
use crate::vector::past::Past;
use crate::vector::slab::{RowKey, Slab};

/// Threads that stand by to scan at most: more wait for the same memory.
const HELPERS_MAX: usize = 7;

/// A scope as searches see it.
#[derive(Clone, Default)]
pub(crate) struct View {
    pub(crate) slab: Slab,
    /// Rows as they were before they were changed or removed, in the order in which that was: only searches as of an
    /// earlier record look at them.
    pub(crate) closed: Slab,
    /// What entities were before they were described anew.
    pub(crate) past: Past,
    /// Covers the slab's first rows; the rest is scanned.
    pub(crate) index: Option<Arc<Hnsw>>,
}

impl View {
    /// `filter` on the rows of this scope.
    pub(crate) const fn wanted<'a>(&'a self, filter: &'a Filter) -> Wanted<'a> {
        Wanted { filter, past: &self.past }
    }
}

/// A scope: what searches see, and what only the one who changes it needs.
pub(crate) struct Cell {
    pub(crate) scope: Scope,
    view: RwLock<Arc<View>>,
    links: Mutex<Links>,
    index_failure: Mutex<Option<IndexFailure>>,
}

/// Why a scope has not the index that it should have.
#[derive(Debug, Clone)]
pub(crate) struct IndexFailure {
    pub(crate) what: String,
    /// Rows that were to be indexed; `None`: it was a saved index that could not be read.
    pub(crate) rows: Option<u32>,
}

const NONE: u32 = u32::MAX;

/// Where the rows of a slab are. Follows from the slab, so it is never saved.
#[derive(Default)]
pub(crate) struct Links {
    /// Rows in the present by key.
    keys: HashMap<RowKey, u32>,
    /// The last row of each entity.
    heads: HashMap<MemoryId, u32>,
    /// By row: the row of the same entity before it.
    previous: Vec<u32>,
}

impl Links {
    /// The links of `slab`.
    pub(crate) fn of(slab: &Slab) -> Self {
        let mut links = Self::default();
        links.keys.reserve(slab.alive() as usize);
        links.previous.reserve(slab.rows as usize);
        for row in 0..slab.rows {
            let (block, at) = slab.locate(row);
            links.push(row, block.keys[at], block.entities[at]);
            if !block.is_alive(at) {
                links.keys.remove(&block.keys[at]);
            }
        }
        links
    }

    pub(crate) fn push(&mut self, row: u32, key: RowKey, entity: MemoryId) {
        self.keys.insert(key, row);
        self.previous.push(self.heads.insert(entity, row).unwrap_or(NONE));
    }

    pub(crate) fn row(&self, key: RowKey) -> Option<u32> {
        self.keys.get(&key).copied()
    }

    pub(crate) fn remove(&mut self, key: RowKey) -> Option<u32> {
        self.keys.remove(&key)
    }

    pub(crate) fn forget_entity(&mut self, entity: MemoryId) {
        self.heads.remove(&entity);
    }

    /// All rows of `entity`, removed ones included, the last first.
    pub(crate) fn rows_of(&self, entity: MemoryId) -> impl Iterator<Item = u32> {
        std::iter::successors(self.heads.get(&entity).copied(), |&row| {
            Some(self.previous[row as usize]).filter(|&row| row != NONE)
        })
    }
}

impl Cell {
    pub(crate) fn new(scope: Scope, view: View) -> Self {
        let links = Mutex::new(Links::of(&view.slab));
        let view = RwLock::new(Arc::new(view));
        Self { scope, view, links, index_failure: Mutex::default() }
    }

    /// The scope as it is now. The lock is held for the copy of a pointer.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&read(&self.view))
    }

    /// The right to change the scope: whoever holds it is the only one who calls [`publish`](Self::publish).
    pub(crate) fn edit(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows searches another view.
    pub(crate) fn publish(&self, _editing: &MutexGuard<'_, Links>, view: View) {
        *write(&self.view) = Arc::new(view);
    }

    pub(crate) fn index_failure(&self) -> Option<IndexFailure> {
        self.index_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_index_failure(&self, failure: Option<IndexFailure>) {
        *self.index_failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }
}

/// The types of entities, numbered in the order they were first seen.
#[derive(Default, Clone)]
pub(crate) struct Kinds {
    pub(crate) names: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Kinds {
    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    fn keep(&mut self, used: &HashSet<u32>) {
        self.numbers.retain(|_, number| used.contains(number));
        for (number, name) in self.names.iter_mut().enumerate() {
            if !used.contains(&(number as u32)) {
                *name = Arc::from("");
            }
        }
    }

    pub(crate) fn intern(&mut self, name: &str) -> u32 {
        self.number(name).unwrap_or_else(|| self.push(name))
    }

    /// Gives the next number to `name`. Those that were forgotten have an empty one, and keep their numbers.
    pub(crate) fn push(&mut self, name: &str) -> u32 {
        let (name, number) = (Arc::<str>::from(name), self.names.len() as u32);
        self.names.push(Arc::clone(&name));
        if !name.is_empty() {
            self.numbers.insert(name, number);
        }
        number
    }
}

/// What is exchanged as a whole: numbers of types mean nothing in the rows of another fold.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) cells: BTreeMap<Scope, Arc<Cell>>,
    pub(crate) kinds: Kinds,
    /// Rows as they were before this record are not all there, or not as they were.
    pub(crate) past_from: Seq,
}

/// Everything that outlives a borrow of the projection.
pub(crate) struct Shared {
    pub(crate) options: VectorOptions,
    pub(crate) kernel: Kernel,
    pub(crate) store: VectorStore,
    pub(crate) helpers: StandBy,
    pub(crate) buffers: Arc<Buffers>,
    known: RwLock<Known>,
    checkpoint: AtomicU64,
    /// An index was built that no file holds yet. Asked for with every record of the log: views are not looked at for it.
    pub(crate) has_unsaved_index: AtomicBool,
    /// Stored vectors that were lost when the store was opened, and those that did not fit their code, counted each time one
    /// was met.
    pub(crate) damaged: AtomicU64,
}

impl Shared {
    pub(crate) fn new(options: VectorOptions, store: VectorStore) -> Self {
        let damaged = AtomicU64::new(store.opened().damaged as u64);
        Self {
            options,
            kernel: Kernel::detect(),
            store,
            helpers: StandBy::start("scan", options.scan_threads.saturating_sub(1).min(HELPERS_MAX)),
            buffers: Arc::default(),
            known: RwLock::default(),
            checkpoint: AtomicU64::new(0),
            has_unsaved_index: AtomicBool::new(false),
            damaged,
        }
    }

    /// Scopes and types as they belong together. Nothing else of this may be called before it is dropped.
    pub(crate) fn known(&self) -> RwLockReadGuard<'_, Known> {
        read(&self.known)
    }

    pub(crate) fn cell(&self, scope: &Scope) -> Option<Arc<Cell>> {
        self.known().cells.get(scope).cloned()
    }

    /// The cell of `scope`, made if need be.
    pub(crate) fn cell_or_new(&self, scope: &Scope) -> Arc<Cell> {
        if let Some(cell) = self.cell(scope) {
            return cell;
        }
        let cell = Arc::new(Cell::new(scope.clone(), View::default()));
        write(&self.known).cells.insert(scope.clone(), Arc::clone(&cell));
        cell
    }

    /// Takes the cell of `scope` out: searches find nothing there, and what is built for it goes nowhere.
    pub(crate) fn remove(&self, scope: &Scope) -> Option<Arc<Cell>> {
        write(&self.known).cells.remove(scope)
    }

    /// Forgets the names of the types with other numbers than these.
    pub(crate) fn keep_kinds(&self, used: &HashSet<u32>) {
        write(&self.known).kinds.keep(used);
    }

    /// Every cell, by scope.
    pub(crate) fn cells(&self) -> Vec<Arc<Cell>> {
        self.known().cells.values().cloned().collect()
    }

    /// Replaces everything; searches from now on see this.
    pub(crate) fn restore(&self, cells: Vec<Cell>, kinds: Kinds, (past_from, checkpoint): (Seq, Seq)) {
        let cells = cells.into_iter().map(|cell| (cell.scope.clone(), Arc::new(cell))).collect();
        *write(&self.known) = Known { cells, kinds, past_from };
        self.set_checkpoint(checkpoint);
    }

    /// Replaces everything by what `other` has; searches from now on see this.
    pub(crate) fn take_over(&self, other: &Self) {
        let Known { cells, kinds, past_from } = &*other.known();
        let known = Known { cells: cells.clone(), kinds: kinds.clone(), past_from: *past_from };
        *write(&self.known) = known;
        self.set_checkpoint(other.checkpoint());
    }

    /// The types of entities as they are now.
    pub(crate) fn kinds(&self) -> Kinds {
        self.known().kinds.clone()
    }

    /// The number of a type, which gets one if need be.
    pub(crate) fn kind(&self, name: &str) -> u32 {
        let number = self.known().kinds.number(name);
        number.unwrap_or_else(|| write(&self.known).kinds.intern(name))
    }

    pub(crate) fn past_from(&self) -> Seq {
        self.known().past_from
    }

    pub(crate) fn set_past_from(&self, seq: Seq) {
        write(&self.known).past_from = seq;
    }

    pub(crate) fn checkpoint(&self) -> Seq {
        Seq(self.checkpoint.load(Ordering::Acquire))
    }

    /// Called after the views that include it were published.
    pub(crate) fn set_checkpoint(&self, checkpoint: Seq) {
        self.checkpoint.store(checkpoint.0, Ordering::Release);
    }
}

// What these locks guard is swapped in one assignment: a panic elsewhere cannot leave it half done.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
