//! Payloads under keys that can be destroyed: what is encrypted, under which key, and how it is read again.
//!
//! Reading order: `file` (the keys on disk), `ring` (the keys in use), `cipher` (one payload), [`opened`] (an event as
//! it can be read today).

mod cipher;
mod file;
pub mod opened;
mod ring;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use cipher::{KEY_BYTES, NONCE_BYTES, OVERHEAD_BYTES, seal, unseal};
pub(crate) use file::KeyFile;
pub use file::{KEYS_FILE, take_keys};
pub(crate) use ring::{Held, KeyRing};

use crate::record::Draft;
use crate::scope::Scope;
use crate::subject::Subject;

/// Gives random bytes: the log draws none itself.
pub type Draw = fn(&mut [u8]) -> io::Result<()>;

/// Which payloads get a key of their own. What was written before a change stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encrypt {
    /// None: they lie in the log as they are.
    #[default]
    None,
    /// What agents remember for themselves, and what is said in conversations.
    Agents,
    /// That and what workspaces and all agents share.
    All,
}

impl Encrypt {
    fn covers(self, subject: &Subject) -> bool {
        match subject {
            Subject::Conversation(_) | Subject::Scope(Scope::Agent(_)) => self != Self::None,
            Subject::Scope(Scope::Workspace(_) | Scope::Global) => self == Self::All,
        }
    }
}

/// How payloads are encrypted.
#[derive(Debug, Clone, Copy)]
pub struct Sealing {
    /// Which.
    pub what: Encrypt,
    /// Where keys and nonces come from.
    pub draw: Draw,
}

/// Why keys could not be used. No key is ever replaced by guess.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The log has encrypted payloads, and the file with their keys is not there.
    #[error(
        "{} is missing, and without it {what} cannot be read; put it back from where it is kept (backups are made \
         without it)",
        path.display()
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// What cannot be read.
        what: String,
    },
    /// Others than its owner may read or write the file.
    #[error(
        "{} may be used by others than its owner (mode {mode:04o}): run chmod 600 on it, and think of everything that \
         is encrypted under its keys as read by them",
        path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file is not what was written.
    #[error("{} is damaged: {what}; put back a copy of it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The file belongs to another log.
    #[error("{} holds the keys of another log; put back the file of this one", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The system gave no random bytes.
    #[error("could not draw a key")]
    Random(#[source] io::Error),
    /// The file cannot be read, made or written.
    #[error("could not use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A key and its number.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    pub id: u64,
    pub secret: [u8; KEY_BYTES],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {:016x}", self.id)
    }
}

/// Chooses keys and nonces for what is written.
pub(crate) struct Sealer {
    sealing: Sealing,
    ring: Arc<KeyRing>,
    seed: [u8; 32],
    count: AtomicU64,
}

/// Without the seed of its nonces.
impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("what", &self.sealing.what).finish_non_exhaustive()
    }
}

impl Sealer {
    pub(crate) fn new(sealing: Sealing, ring: Arc<KeyRing>) -> Result<Self, KeysError> {
        let mut seed = [0; 32];
        (sealing.draw)(&mut seed).map_err(KeysError::Random)?;
        Ok(Self { sealing, ring, seed, count: AtomicU64::new(0) })
    }

    /// The key of each draft that gets one. Keys that are new are on disk when this returns.
    pub(crate) fn keys_for(&self, drafts: &[Draft]) -> Result<Vec<Option<Key>>, KeysError> {
        let mut subjects: Vec<Subject> = Vec::new();
        let mut places: Vec<Option<usize>> = Vec::with_capacity(drafts.len());
        for (index, draft) in drafts.iter().enumerate() {
            let kind = draft.event.kind();
            let same = |before: &Draft| {
                before.stream == draft.stream && before.event.kind().family() == kind.family()
            };
            // Neighbours are mostly of one subject.
            if let Some(before) = index.checked_sub(1)
                && same(&drafts[before])
                && places[before].is_some()
            {
                places.push(places[before]);
                continue;
            }
            let subject =
                Subject::of(kind, &draft.stream).filter(|subject| self.sealing.what.covers(subject));
            places.push(subject.map(|subject| {
                subjects.iter().position(|known| *known == subject).unwrap_or_else(|| {
                    subjects.push(subject);
                    subjects.len() - 1
                })
            }));
        }
        let keys = self.ring.keys_of(&subjects, self.sealing.draw)?;
        Ok(places.into_iter().map(|place| place.and_then(|place| keys.get(place).copied())).collect())
    }

    /// A nonce for this payload. It depends on the payload besides a seed and a count, so that even a process that runs
    /// twice from one image never uses one nonce for two payloads.
    pub(crate) fn nonce(&self, payload: &[u8]) -> [u8; NONCE_BYTES] {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let mut hasher = blake3::Hasher::new_keyed(&self.seed);
        hasher.update(&count.to_le_bytes()).update(payload);
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&hasher.finalize().as_bytes()[..NONCE_BYTES]);
        nonce
    }
}
