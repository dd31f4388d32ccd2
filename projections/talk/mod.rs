//! Agents and conversations as one projection: state in memory, stored in a SQLite file of its own in the background.
//!
//! Reading order: [`postings`] (lists of positions), `spill` (where most of them are), [`crate::agents`] and [`crate::conversations`] (the state),
//! `changes` (what a flush writes), [`store`] (the file), `past` (the same as of an earlier record), `compare` (two folds),
//! `replace` (another fold in its place).
//!
//! A crash loses what was not flushed; the checkpoint is in the same transaction as the rows, so the next start folds
//! the rest from the log again.

pub(crate) mod changes;
mod compare;
mod known;
mod past;
pub mod postings;
mod replace;
pub(crate) mod spill;
pub mod store;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use caxton_events::log::{Filter, ReadError, Reader};
use caxton_events::{ConversationEvent, Event, Family, Kind, MessageId, Record, Seq};

pub use compare::stored;
pub use past::{PAST_RECORDS_MAX, PastError, PastTalk, TalkPart};
pub use replace::TalkFold;
pub use store::{FILE_NAME, OpenTalkError, TalkStore};

use crate::agents::Registry;
use crate::by_name::ByName;
use crate::conversations::Conversations;
use crate::projection::{ApplyError, Projection};
use changes::{Changes, Taken};
use known::Known;
use store::Ids;

/// Version of the state; another one is rebuilt from the log.
pub const TALK_VERSION: u32 = 2;

/// Agents and conversations at one moment.
#[derive(Debug, Default)]
pub struct TalkState {
    /// Who there is.
    pub registry: Registry,
    /// Who said what.
    pub conversations: Conversations,
    /// The last record included.
    pub checkpoint: Seq,
    /// The writer's own count of what it handed over; starts at zero and is not stored.
    pub mark: u64,
    changes: Changes,
    /// Which numbers are certainly new.
    known: Arc<Known>,
    /// Numbers that are on their way to the file.
    storing: Arc<ByName<MessageId, Seq>>,
}

impl TalkState {
    fn fold(&mut self, record: &Record) {
        match &record.event {
            Event::Agent(event) => self.registry.apply(record, event, &mut self.changes),
            Event::Conversation(event) => {
                if let ConversationEvent::MessageSent(message) = event
                    && message.id_given
                {
                    self.known.add(message.id);
                }
                self.conversations.apply(record, event, &mut self.changes);
            }
            Event::Memory(_) | Event::Turn(_) | Event::System(_) => (),
        }
    }

    /// An empty state whose positions go to a file as those of this one do, but to another: the old one ends with the state.
    fn fresh(&self, changes: Changes) -> Self {
        let spill = self.conversations.spill.as_ref().and_then(|spill| spill.fresh().ok());
        let mut fresh = Self { changes, known: Arc::clone(&self.known), ..Self::default() };
        fresh.conversations.spill = spill.map(Arc::new);
        fresh
    }

    /// Takes out everything that is to be stored.
    fn take_changes(&mut self) -> Taken {
        let mut taken = Taken { changes: std::mem::take(&mut self.changes), ..Taken::default() };
        self.registry.take(&mut taken);
        self.conversations.take(&mut taken);
        self.storing = Arc::clone(&taken.changes.ids);
        taken
    }
}

#[derive(Debug)]
struct Shared {
    state: RwLock<TalkState>,
    ids: Mutex<Ids>,
}

impl Shared {
    // A panic while the state is changed leaves it half folded; its thread then ends and nothing is folded any more.
    fn read(&self) -> RwLockReadGuard<'_, TalkState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, TalkState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kinds of records that are folded.
fn kinds() -> Vec<Kind> {
    Family::kinds(&[Family::Agent, Family::Conversation])
}

/// The projection's writing side.
#[derive(Debug)]
pub struct Talk {
    shared: Arc<Shared>,
}

impl Talk {
    /// Folds as [`Projection::fold`] does, and sets [`TalkState::mark`] at the same moment.
    pub fn fold_marked(&mut self, records: &[Record], through: Seq, mark: u64) {
        let mut state = self.shared.write();
        for record in records {
            state.fold(record);
        }
        state.checkpoint = state.checkpoint.max(through);
        state.mark = mark;
    }

    /// Folds the log again, as far as it is folded, and puts the result in the place of the state at one moment: what was
    /// erased from the log since is gone from it as if it had never been said.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; the state is then as before.
    pub fn fold_again(&mut self, log: &Reader) -> Result<(), ReadError> {
        let changes = Changes { reset: true, ..Changes::default() };
        let (through, mut fresh) = {
            let state = self.shared.read();
            (state.checkpoint, state.fresh(changes))
        };
        let filter = Filter { until: Some(through), kinds: Some(self.kinds()), ..Filter::default() };
        for record in log.scan(Seq::FIRST, &filter) {
            fresh.fold(&record?);
        }
        let mut state = self.shared.write();
        (fresh.checkpoint, fresh.mark) = (state.checkpoint, state.mark);
        *state = fresh;
        Ok(())
    }

    /// A handle for queries; cheap to clone.
    pub fn reader(&self) -> TalkReader {
        TalkReader { shared: Arc::clone(&self.shared) }
    }
}

impl Projection for Talk {
    fn name(&self) -> &'static str {
        "talk"
    }

    fn version(&self) -> u32 {
        TALK_VERSION
    }

    fn checkpoint(&self) -> Seq {
        self.shared.read().checkpoint
    }

    fn kinds(&self) -> Vec<Kind> {
        kinds()
    }

    fn fold(&mut self, records: &[Record], through: Seq) -> Result<(), ApplyError> {
        let mut state = self.shared.write();
        for record in records {
            state.fold(record);
        }
        state.checkpoint = through;
        Ok(())
    }

    fn reset(&mut self) -> Result<(), ApplyError> {
        let changes = Changes { reset: true, ..Changes::default() };
        let mut state = self.shared.write();
        *state = TalkState { mark: state.mark, ..state.fresh(changes) };
        Ok(())
    }
}

/// Reads agents and conversations. A guard holds up the fold: keep it short, and never over a read of the log.
#[derive(Debug, Clone)]
pub struct TalkReader {
    shared: Arc<Shared>,
}

impl TalkReader {
    /// The state now.
    pub fn read(&self) -> RwLockReadGuard<'_, TalkState> {
        self.shared.read()
    }

    /// Where the message stands whose sender gave it this number.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Store`] when the file could not be read.
    pub fn message(&self, id: MessageId) -> Result<Option<Seq>, ApplyError> {
        let state = self.shared.read();
        if state.changes.reset {
            return Ok(state.changes.ids.get(&id).copied());
        }
        if let Some(seq) = state.changes.ids.get(&id).or_else(|| state.storing.get(&id)) {
            return Ok(Some(*seq));
        }
        if state.known.is_new(id) {
            return Ok(None);
        }
        let after = state.checkpoint;
        drop(state);
        let ids = self.shared.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.find(id).map_err(|source| ApplyError::Store { after, source: Box::new(source) })
    }
}
