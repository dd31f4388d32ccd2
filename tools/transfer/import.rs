//! A log out of the lines that [`events`](super::events) wrote: into an empty directory, with every hash checked.

use std::io::{self, BufRead};
use std::path::Path;

use caxton_events::log::exchange::{EventLine, HeadLine, LineCheck, LineError, LogLine};
use caxton_events::log::rebuild::{Rebuild, RebuildError};
use caxton_events::log::{Hash, PublicKey};
use caxton_events::{Seq, limits::EVENT_BYTES_MAX};
use serde::{Deserialize, Serialize};

use crate::log::Line as ShownLine;

/// Longest line, in bytes: an event as base64 and as it reads, which can take six times its bytes.
const LINE_BYTES_MAX: u64 = 16 * EVENT_BYTES_MAX as u64;

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// The id of the log, 32 hexadecimal digits.
    pub log_id: String,
    /// Events.
    pub events: u64,
    /// How many were erased by an order that is not among them, which is right for a fork or a log that was restored up to a point
    /// alone: no signature says so.
    pub erased_later: u64,
    /// How many of them are encrypted: they are read with the file of keys of the other directory, `erasure.keys`.
    pub encrypted: u64,
    /// The root over them, hexadecimal.
    pub root: String,
    /// The key that signed the head; `None`: it was not signed.
    pub public_key: Option<String>,
}

/// Why nothing was imported. Nothing is left of the attempt.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A line is not what was written.
    #[error("line {line} is not what was exported; copy the file again, or export again")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What does not fit.
        #[source]
        source: LineError,
    },
    /// A line cannot be read.
    #[error("line {line} cannot be read: {what}")]
    Malformed {
        /// Its number, from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// The last line is missing.
    #[error(
        "the lines end after event {last} without the line of type head: the file was cut short; export again"
    )]
    Cut {
        /// The last event.
        last: Seq,
    },
    /// There is not even the first line.
    #[error(
        "the input is empty: there is nothing to import; look at what the command said that was to write it, and export again"
    )]
    Empty,
    /// Events as they are shown to people and programs, without what makes a log of them.
    #[error(
        "these look like events as `caxton log salvage` and `caxton log tail --json` print them: they lack their stored bytes \
         and hashes, and no command makes a log of them; import what `caxton export events` wrote, or restore a backup (see \
         docs/replay.md)"
    )]
    Printed,
    /// A choice of events makes no log.
    #[error("these are chosen events, not a whole log; export without filters to import")]
    Chosen,
    /// The log had lost its beginning.
    #[error(
        "the exported log begins after {through}, what lies before was dropped: no log can be made of the rest; to have it \
         elsewhere, stop its server and copy the data directory as it is, with base/ and sealed/"
    )]
    Dropped {
        /// The last event that was dropped.
        through: Seq,
    },
    /// The event cannot be written, or cannot follow.
    #[error("line {line} could not be taken")]
    Rebuild {
        /// Its number, from 1.
        line: u64,
        /// Why.
        #[source]
        source: RebuildError,
    },
    /// The directory cannot be used, or the log could not be finished.
    #[error(transparent)]
    Log(RebuildError),
    /// The lines could not be read.
    #[error("could not read line {line}")]
    Read {
        /// Its number, from 1.
        line: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What was made has another root than what was read.
    #[error("the log that was made has another root than the lines: {made}, not {read}")]
    Root {
        /// What was made.
        made: Hash,
        /// What was read.
        read: String,
    },
}

/// A line, by its type.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum InLine {
    Log(LogLine),
    Event(EventLine),
    Head(HeadLine),
    End {},
}

/// Makes a log in `dir`, which must be empty, of these lines. `progress` hears each position with the bytes read.
///
/// With `known`, the log must be the one whose key that is, and its head signed by it.
///
/// # Errors
///
/// [`ImportError`] names the first line that does not fit.
pub fn import(
    lines: &mut dyn BufRead,
    dir: &Path,
    known: Option<&PublicKey>,
    progress: &mut dyn FnMut(Seq, u64),
) -> Result<Imported, ImportError> {
    let mut lines = Lines { reader: lines, number: 0, bytes: 0, text: Vec::new() };
    let log = match lines.next_line()?.ok_or(ImportError::Empty)? {
        InLine::Log(log) => log,
        InLine::Event(_) | InLine::Head(_) | InLine::End {} => {
            let what = "it is no line of type log; the first line says which log follows".to_owned();
            return Err(ImportError::Malformed { line: 1, what });
        }
    };
    let of_line = |source| ImportError::Line { line: lines.number, source };
    let log_id = log.log_id().map_err(of_line)?;
    let mut check = LineCheck::begin(&log, known).map_err(of_line)?;
    if let Some(through) = log.dropped_through {
        return Err(ImportError::Dropped { through });
    }
    if !log.complete {
        return Err(ImportError::Chosen);
    }
    let mut rebuild = Rebuild::begin(dir, log_id).map_err(ImportError::Log)?;
    let mut encrypted = 0;
    let (head, public_key) = loop {
        let Some(line) = lines.next_line()? else {
            return Err(ImportError::Cut { last: Seq(check.count()) });
        };
        let number = lines.number;
        let wrong = |source| ImportError::Line { line: number, source };
        match line {
            InLine::Event(event) => {
                let event = check.event(&event).map_err(wrong)?;
                let seq = event.seq;
                encrypted += u64::from(event.is_encrypted());
                rebuild.push(event).map_err(|source| ImportError::Rebuild { line: number, source })?;
                progress(seq, lines.bytes);
            }
            InLine::Head(head) => {
                let key = check.head(&head, known).map_err(wrong)?;
                break (head, key);
            }
            InLine::Log(_) | InLine::End {} => {
                let what = "it is no line of type event or head".to_owned();
                return Err(ImportError::Malformed { line: number, what });
            }
        }
    };
    if lines.next_line()?.is_some() {
        let what = "something follows the line of type head".to_owned();
        return Err(ImportError::Malformed { line: lines.number, what });
    }
    let made = rebuild.finish().map_err(ImportError::Log)?;
    if !head.has_root(&made.root) {
        return Err(ImportError::Root { made: made.root, read: head.root });
    }
    Ok(Imported {
        log_id: log.log_id,
        events: made.seq.0,
        erased_later: check.erased_later(),
        encrypted,
        root: made.root.to_string(),
        public_key: public_key.map(|key| key.to_string()),
    })
}

struct Lines<'a> {
    reader: &'a mut dyn BufRead,
    number: u64,
    bytes: u64,
    text: Vec<u8>,
}

impl Lines<'_> {
    /// The next line that is not blank; `None` at the end.
    fn next_line(&mut self) -> Result<Option<InLine>, ImportError> {
        loop {
            self.text.clear();
            self.number += 1;
            let line = self.number;
            let read = io::Read::take(&mut *self.reader, LINE_BYTES_MAX).read_until(b'\n', &mut self.text);
            let read = read.map_err(|source| ImportError::Read { line, source })?;
            self.bytes += read as u64;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 == LINE_BYTES_MAX {
                let what = format!("it has more than {LINE_BYTES_MAX} bytes");
                return Err(ImportError::Malformed { line, what });
            }
            if self.text.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            return serde_json::from_slice(&self.text).map(Some).map_err(|error| {
                let is_printed = line == 1 && serde_json::from_slice::<ShownLine>(&self.text).is_ok();
                if is_printed {
                    ImportError::Printed
                } else {
                    ImportError::Malformed { line, what: self.reason(&error) }
                }
            });
        }
    }

    /// Why the line is none. The parser counts lines within this one.
    fn reason(&self, error: &serde_json::Error) -> String {
        if error.is_eof() {
            return format!(
                "it is cut short after {} bytes; copy the file again, or export again",
                self.text.len()
            );
        }
        let text = error.to_string();
        format!("{} at column {}", text.split(" at line ").next().unwrap_or_default(), error.column())
    }
}
