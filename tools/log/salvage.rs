//! What is left of a damaged log: every event that can be read, and what is lost.

use std::fmt;
use std::io::{self, Write};

use caxton_events::log::{Filter, Found, Lost, Reader, Salvaged, StoreError, Survey};
use caxton_events::{Seq, Timestamp};
use serde::Serialize;

use super::line::Line;
use crate::counted::counted;

/// Events that are lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// Position of the first.
    pub first_seq: Seq,
    /// Position of the last.
    pub last_seq: Seq,
    /// How many.
    pub events: u64,
    /// None of them was recorded before this moment, where that is known.
    pub recorded_from: Option<Timestamp>,
    /// None of them was recorded after this moment, where that is known.
    pub recorded_to: Option<Timestamp>,
    /// What they may be; `None` where nothing that is left says so.
    pub kinds: Option<Vec<&'static str>>,
    /// What is wrong.
    pub cause: String,
}

impl Loss {
    fn of(gap: &Lost) -> Self {
        let mut cause = gap.cause.to_string();
        let mut source = std::error::Error::source(&gap.cause);
        while let Some(inner) = source {
            cause = format!("{cause}: {inner}");
            source = inner.source();
        }
        Self {
            first_seq: gap.first,
            last_seq: gap.last,
            events: gap.last.0 - gap.first.0 + 1,
            recorded_from: gap.recorded_from,
            recorded_to: gap.recorded_to,
            kinds: gap.kinds.as_ref().map(|kinds| kinds.iter().map(|kind| kind.name()).collect()),
            cause,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first_seq, last_seq, events, .. } = self;
        match events {
            1 => write!(f, "lost: {first_seq}, recorded")?,
            _ => write!(f, "lost: {first_seq} to {last_seq}, {events} events recorded")?,
        }
        match (self.recorded_from, self.recorded_to) {
            (None, None) => f.write_str(" at an unknown time")?,
            (None, Some(to)) => write!(f, " from an unknown time to {to}")?,
            (Some(from), Some(to)) if to == from => write!(f, " at {to}")?,
            (Some(from), Some(to)) => write!(f, " from {from} to {to}")?,
            (Some(from), None) => write!(f, " from {from} on")?,
        }
        match &self.kinds {
            Some(kinds) => write!(f, ", {}", kinds.join(", "))?,
            None => f.write_str(", of unknown kinds")?,
        }
        write!(f, "\n  {}", self.cause)
    }
}

/// What is right in a log and what is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remains {
    /// Position the log ends at, as far as can be seen.
    pub head_seq: Seq,
    /// Bytes that are missing at the end of the log's file; with them, events behind `head_seq` may be lost.
    pub missing_bytes: u64,
    /// Whether the structure of the log's file is damaged. Where it does not lead to all there is, every page was looked at.
    pub structure_damaged: bool,
    /// So many commits behind `head_seq` may be lost at the most: the write-ahead log could not be read, since its seed is lost.
    pub unread_records: u64,
    /// What shows that events behind `head_seq` are lost, where something beside the log does.
    pub lost_end: Option<String>,
    /// Events that are what was written.
    pub events: u64,
    /// Of these, events whose content was erased.
    pub erased: u64,
    /// Of these, events that are encrypted under keys that are not at hand.
    pub unread: u64,
    /// What is lost, in order of position.
    pub lost: Vec<Loss>,
}

impl Remains {
    /// Before anything was read.
    fn none_of(reader: &Reader) -> Self {
        Self {
            head_seq: reader.head().seq,
            missing_bytes: reader.missing_bytes(),
            structure_damaged: reader.structure_damaged(),
            unread_records: reader.unread_records(),
            lost_end: None,
            events: 0,
            erased: 0,
            unread: 0,
            lost: Vec::new(),
        }
    }
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lost: u64 = self.lost.iter().map(|loss| loss.events).sum();
        write!(f, "{} of {} events are as written, {lost} lost", self.events, self.head_seq.0)?;
        if self.erased > 0 {
            write!(f, "\nthe content of {} was erased", counted(self.erased, "event"))?;
        }
        if self.unread > 0 {
            write!(f, "\nthe content of {} events is encrypted under keys that are not here", self.unread)?;
        }
        if self.structure_damaged {
            f.write_str("\nthe structure of the file is damaged: what it holds was found in spite of it")?;
        }
        self.lost.iter().try_for_each(|loss| write!(f, "\n{loss}"))?;
        if self.unread_records > 0 {
            let (records, head) = (counted(self.unread_records, "record"), self.head_seq);
            write!(
                f,
                "\nthe write-ahead log could not be read, its seed is lost: up to {records} behind {head} may be lost"
            )?;
        }
        match self.missing_bytes {
            0 => Ok(()),
            bytes => write!(
                f,
                "\nthe end of the file is missing, {bytes} bytes: events behind {} are lost, if there were any",
                self.head_seq
            ),
        }
    }
}

/// Why a log could not be salvaged.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// Nothing of it can be read.
    #[error("nothing of the log can be read")]
    Store(#[source] StoreError),
    /// What was read could not be written.
    #[error("could not write the events")]
    Write(#[source] io::Error),
}

/// Checks everything as `verify` does and goes on after damage. `progress` hears the last position checked and the last
/// one there is.
///
/// # Errors
///
/// [`StoreError`] if nothing of the log can be read.
pub fn survey(reader: &Reader, progress: &mut dyn FnMut(Seq, Seq)) -> Result<Remains, StoreError> {
    let head = reader.head().seq;
    let survey = reader.survey(&mut |seq| progress(seq, head))?;
    let Survey { events, erased, unread, gaps, .. } = survey;
    let lost = gaps.iter().map(Loss::of).collect();
    Ok(Remains { events, erased, unread, lost, ..Remains::none_of(reader) })
}

/// Writes every event that can be read to `out`, a JSON object a line as `log tail --json` prints them, and tells what is
/// lost.
///
/// # Errors
///
/// [`SalvageError`].
pub fn salvage(
    reader: &Reader,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(Seq, Seq),
) -> Result<Remains, SalvageError> {
    let head = reader.head().seq;
    let mut remains = Remains::none_of(reader);
    for found in reader.scan_salvaging(Seq::FIRST, &Filter::default()).map_err(SalvageError::Store)? {
        match found {
            Salvaged::Event(found) => {
                progress(found.seq(), head);
                if let Found::Sealed(sealed) = &*found {
                    let count =
                        if sealed.erased_by.is_some() { &mut remains.erased } else { &mut remains.unread };
                    *count += 1;
                }
                let write = serde_json::to_writer(&mut *out, &Line::of_found(reader, *found))
                    .map_err(io::Error::from);
                write.and_then(|()| out.write_all(b"\n")).map_err(SalvageError::Write)?;
                remains.events += 1;
            }
            Salvaged::Lost(gap) => remains.lost.push(Loss::of(&gap)),
        }
    }
    out.flush().map_err(SalvageError::Write)?;
    Ok(remains)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use caxton_events::{Seq, Timestamp};
    use serde_json::json;

    use super::{Loss, Remains};

    #[test]
    fn a_time_that_nothing_says_is_told_as_unknown() {
        let at = |seconds: u64| Some(Timestamp::from_unix_micros(seconds * 1_000_000));
        for (from, to, told) in [
            (None, None, "at an unknown time"),
            (None, at(9), "from an unknown time to 1970-01-01T00:00:09.000000Z"),
            (at(5), None, "from 1970-01-01T00:00:05.000000Z on"),
            (at(5), at(5), "at 1970-01-01T00:00:05.000000Z"),
            (at(5), at(9), "from 1970-01-01T00:00:05.000000Z to 1970-01-01T00:00:09.000000Z"),
        ] {
            let loss = Loss {
                first_seq: Seq(1),
                last_seq: Seq(3),
                events: 3,
                recorded_from: from,
                recorded_to: to,
                kinds: None,
                cause: "the block is missing".to_owned(),
            };
            let then =
                format!("lost: #1 to #3, 3 events recorded {told}, of unknown kinds\n  the block is missing");
            assert_eq!(loss.to_string(), then);
            assert_eq!(serde_json::to_value(&loss).unwrap()["recorded_from"], json!(from));
        }
    }

    #[test]
    fn records_that_nobody_can_read_are_told_of() {
        let mut remains = Remains {
            head_seq: Seq(2),
            missing_bytes: 0,
            structure_damaged: false,
            unread_records: 0,
            lost_end: None,
            events: 2,
            erased: 0,
            unread: 0,
            lost: Vec::new(),
        };
        let whole = remains.to_string();
        remains.unread_records = 3;
        let then = "\nthe write-ahead log could not be read, its seed is lost: up to 3 records behind #2 may be lost";
        assert_eq!(remains.to_string(), format!("{whole}{then}"));
    }
}
