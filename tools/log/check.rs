//! Whether a log is what was written: every hash, from the first event to the last.

use std::fmt;

use caxton_events::Seq;
use caxton_events::log::{Reader, VerifyError};
use serde::Serialize;

use crate::counted::counted;

/// What was checked and found in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Intact {
    /// Events checked.
    pub events: u64,
    /// Blocks checked.
    pub blocks: u64,
    /// Of these, events whose content was erased; their places and what stands before and after them are proved all the same.
    pub erased: u64,
    /// Of the erased ones, those whose order is not in this log, as in a fork.
    pub erased_later: u64,
    /// Of these, events encrypted under keys that are not at hand.
    pub unread: u64,
    /// Idempotency keys checked.
    pub keys: u64,
    /// Merkle root over all events, hex. Two logs with the same root have the same events.
    pub root: String,
}

impl fmt::Display for Intact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, blocks, erased, erased_later, unread, keys, root } = self;
        write!(
            f,
            "{} in {} and {} are as written\nroot {root}",
            counted(*events, "event"),
            counted(*blocks, "block"),
            counted(*keys, "idempotency key")
        )?;
        if *erased > 0 {
            write!(f, "\nthe content of {} was erased", counted(*erased, "event"))?;
        }
        if *erased_later > 0 {
            write!(
                f,
                "\n{erased_later} of them name an order that is not in this log: right for a fork or a log that was restored up \
                 to a point, and for no other"
            )?;
        }
        if *unread > 0 {
            write!(
                f,
                "\nthe content of {unread} events is encrypted under keys that are not here; it was not read"
            )?;
        }
        Ok(())
    }
}

/// Recomputes every hash, or with `own` those of what lies behind sealed files. `progress` hears the last position checked and the last one there is.
///
/// # Errors
///
/// [`VerifyError`] names the first block that is wrong and how far everything was right.
pub fn verify(reader: &Reader, own: bool, progress: &mut dyn FnMut(Seq, Seq)) -> Result<Intact, VerifyError> {
    let head = reader.head().seq;
    let mut heard = |seq| progress(seq, head);
    let verified = if own { reader.verify_own(&mut heard) } else { reader.verify(&mut heard) }?;
    Ok(Intact {
        events: verified.events,
        blocks: verified.blocks,
        erased: verified.erased,
        erased_later: verified.erased_later,
        unread: verified.unread,
        keys: verified.keys,
        root: verified.root.to_string(),
    })
}
