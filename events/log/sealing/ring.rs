//! The keys in use: by number to read, by subject to write, and those that are gone.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::file::{Place, SubjectHash};
use super::{Draw, Key, KeyFile, KeysError};
use crate::event::Kind;
use crate::id::{ConversationId, Seq};
use crate::log::chain::hash;
use crate::subject::Subject;

/// What is known of a key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Held {
    /// It is there.
    Key(Key),
    /// It was destroyed by this order.
    Destroyed(Seq),
    /// It is neither in the file nor known to be destroyed.
    Unknown,
}

/// All keys of a log.
#[derive(Debug, Default)]
pub(crate) struct KeyRing {
    state: RwLock<State>,
    /// Grows with each key that is destroyed.
    destroyed: AtomicU64,
    /// Whether some streams take no events now.
    holding: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    file: Option<KeyFile>,
    /// By number: the key and its place in the file.
    keys: HashMap<u64, (Key, u64)>,
    current: HashMap<SubjectHash, u64>,
    destroyed: HashMap<u64, Seq>,
    /// Subjects that take no events now, with how often each is held.
    held: HashMap<Subject, usize>,
}

impl KeyRing {
    /// The ring of a file and what stands in it.
    pub(crate) fn of(file: KeyFile, places: Vec<Place>) -> Self {
        let mut state = State { file: Some(file), ..State::default() };
        for (at, place) in (1..).zip(places) {
            match place {
                Place::Held(key, subject) => {
                    state.keys.insert(key.id, (key, at));
                    state.current.insert(subject, key.id);
                }
                Place::Destroyed(id, order) => {
                    state.destroyed.insert(id, order);
                }
            }
        }
        Self { state: RwLock::new(state), ..Self::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key with this number.
    pub(crate) fn get(&self, id: u64) -> Held {
        let state = self.read();
        match (state.keys.get(&id), state.destroyed.get(&id)) {
            (Some((key, _)), _) => Held::Key(*key),
            (None, Some(order)) => Held::Destroyed(*order),
            (None, None) => Held::Unknown,
        }
    }

    /// The key of each subject; those that have none get one, which is on disk when this returns.
    pub(crate) fn keys_of(&self, subjects: &[Subject], draw: Draw) -> Result<Vec<Key>, KeysError> {
        if subjects.is_empty() {
            return Ok(Vec::new());
        }
        let hashes: Vec<SubjectHash> = subjects.iter().map(hash_of).collect();
        {
            let state = self.read();
            let known: Vec<Key> = hashes.iter().filter_map(|subject| state.current_key(subject)).collect();
            if known.len() == hashes.len() {
                return Ok(known);
            }
        }
        let mut state = self.write();
        let mut added: Vec<(Key, SubjectHash)> = Vec::new();
        for subject in &hashes {
            if state.current_key(subject).is_none() {
                added.push((state.new_key(draw)?, *subject));
            }
        }
        let first = match &mut state.file {
            Some(file) => file.add(&added)?,
            None => 0,
        };
        for (at, (key, subject)) in (first..).zip(added) {
            state.keys.insert(key.id, (key, at));
            state.current.insert(subject, key.id);
        }
        Ok(hashes.iter().filter_map(|subject| state.current_key(subject)).collect())
    }

    /// Numbers of the keys that these subjects have now.
    pub(crate) fn ids_of<'a>(&self, subjects: impl IntoIterator<Item = &'a Subject>) -> Vec<u64> {
        let state = self.read();
        subjects.into_iter().filter_map(|subject| state.current.get(&hash_of(subject)).copied()).collect()
    }

    /// Whether the key with this number is there.
    pub(crate) fn is_held(&self, id: u64) -> bool {
        self.read().keys.contains_key(&id)
    }

    /// How many keys there are, and how many were destroyed.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.read();
        (state.keys.len(), state.destroyed.len())
    }

    /// Destroys keys, in the file and in memory. Those that are gone already stay as they are.
    pub(crate) fn destroy(&self, ids: &[u64], order: Seq) -> Result<(), KeysError> {
        let mut state = self.write();
        let places: Vec<(u64, u64)> =
            ids.iter().filter_map(|id| state.keys.get(id).map(|(_, at)| (*at, *id))).collect();
        if let Some(file) = &mut state.file
            && !places.is_empty()
        {
            file.destroy(&places, order)?;
        }
        for id in ids {
            if let Some((key, _)) = state.keys.get_mut(id) {
                key.secret = std::hint::black_box([0; super::KEY_BYTES]);
            }
            state.keys.remove(id);
            state.destroyed.entry(*id).or_insert(order);
        }
        let gone: HashSet<u64> = ids.iter().copied().collect();
        state.current.retain(|_, id| !gone.contains(id));
        self.destroyed.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// From now on, until each of these subjects is let go as often as it is held, the log takes no events of it.
    pub(crate) fn hold(&self, subjects: &[Subject]) {
        let mut state = self.write();
        for subject in subjects {
            *state.held.entry(subject.clone()).or_default() += 1;
        }
        self.holding.store(!state.held.is_empty(), Ordering::Release);
    }

    /// Ends one hold of these subjects.
    pub(crate) fn let_go(&self, subjects: &[Subject]) {
        let mut state = self.write();
        for subject in subjects {
            if let Some(holds) = state.held.get_mut(subject) {
                *holds -= 1;
            }
        }
        state.held.retain(|_, holds| *holds > 0);
        self.holding.store(!state.held.is_empty(), Ordering::Release);
    }

    /// What is different when a key was destroyed since.
    pub(crate) fn generation(&self) -> u64 {
        self.destroyed.load(Ordering::Acquire)
    }

    /// The stream of the first of these events, each by its kind and its stream, that is not taken now. Others may have a stream
    /// of the same name: a conversation may be called as a scope or a stream of the server is.
    pub(crate) fn held<'a>(&self, events: impl IntoIterator<Item = (Kind, &'a str)>) -> Option<&'a str> {
        if !self.holding.load(Ordering::Acquire) {
            return None;
        }
        let state = self.read();
        let mut before = None;
        for (kind, stream) in events {
            // Neighbours are mostly of one subject.
            if before != Some((kind, stream))
                && Subject::of(kind, stream).is_some_and(|subject| state.held.contains_key(&subject))
            {
                return Some(stream);
            }
            before = Some((kind, stream));
        }
        None
    }

    /// The conversations of which the log takes no events now.
    pub(crate) fn held_conversations(&self) -> HashSet<ConversationId> {
        if !self.holding.load(Ordering::Acquire) {
            return HashSet::new();
        }
        self.read().held.keys().filter_map(Subject::conversation).cloned().collect()
    }

    /// Whether one of these keys is gone; `generation` is from before they were used.
    pub(crate) fn is_any_destroyed(&self, ids: &[u64], generation: u64) -> bool {
        if ids.is_empty() || self.generation() == generation {
            return false;
        }
        let state = self.read();
        ids.iter().any(|id| state.destroyed.contains_key(id))
    }
}

impl State {
    fn current_key(&self, subject: &SubjectHash) -> Option<Key> {
        let id = self.current.get(subject)?;
        self.keys.get(id).map(|(key, _)| *key)
    }

    /// A key with a number that was not given before, also if the end of the file was lost: numbers are drawn.
    fn new_key(&self, draw: Draw) -> Result<Key, KeysError> {
        loop {
            let mut number = [0; 8];
            let mut secret = [0; super::KEY_BYTES];
            draw(&mut number).and_then(|()| draw(&mut secret)).map_err(KeysError::Random)?;
            let id = u64::from_le_bytes(number);
            if id != 0 && !self.keys.contains_key(&id) && !self.destroyed.contains_key(&id) {
                return Ok(Key { id, secret });
            }
        }
    }
}

fn hash_of(subject: &Subject) -> SubjectHash {
    hash(subject.to_string().as_bytes()).0
}
