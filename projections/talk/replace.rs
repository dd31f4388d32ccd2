//! Another fold of the log in the place of the one in use: beside a running server, without a moment between.
//!
//! No file is swapped: the new state is stored by the next flush, whose one transaction removes every old row and writes
//! every new one, so that a crash leaves the old file or the new.

use std::sync::Arc;

use caxton_events::{Kind, Record, Seq};

use super::changes::Changes;
use super::{Talk, TalkState};
use crate::projection::{ApplyError, Projection};

/// A fold from the first record on that nobody reads yet, in memory alone.
#[derive(Debug, Default)]
pub struct TalkFold {
    state: TalkState,
}

impl Projection for TalkFold {
    fn name(&self) -> &'static str {
        "talk"
    }

    fn version(&self) -> u32 {
        super::TALK_VERSION
    }

    fn checkpoint(&self) -> Seq {
        self.state.checkpoint
    }

    fn kinds(&self) -> Vec<Kind> {
        super::kinds()
    }

    fn fold(&mut self, records: &[Record], through: Seq) -> Result<(), ApplyError> {
        for record in records {
            self.state.fold(record);
        }
        self.state.checkpoint = through;
        Ok(())
    }

    fn reset(&mut self) -> Result<(), ApplyError> {
        self.state = TalkState::default();
        Ok(())
    }
}

impl Talk {
    /// Takes `fold` in the place of the present state, if both include the same records; else gives it back, to be folded
    /// further. Readers see the one or the other.
    ///
    /// # Errors
    ///
    /// The fold, untouched.
    pub fn replace(&mut self, mut fold: TalkFold) -> Result<(), Box<TalkFold>> {
        let mut state = self.shared.write();
        if fold.state.checkpoint != state.checkpoint {
            return Err(Box::new(fold));
        }
        fold.state.mark = state.mark;
        // Numbers that were ever known stay known, which costs a look into the file and nothing else.
        fold.state.known = Arc::clone(&state.known);
        fold.state.changes.reset = true;
        fold.state.conversations.spill = state.fresh(Changes::default()).conversations.spill;
        *state = fold.state;
        Ok(())
    }
}
