//! The log, or a choice of its events, as lines of JSON or as a table.
//!
//! The lines of a whole log carry what makes its leaves and its roots, so that [`import`](super::import) can check them.

use caxton_events::Seq;
use caxton_events::log::chain::Frontier;
use caxton_events::log::exchange::{EventLine, HeadLine, LogLine};
use caxton_events::log::stored::KeptEvent;
use caxton_events::log::{Filter, Found, Head, Reader, Signer};
use serde::Serialize;
use serde_json::Value;

use super::table::{Cell, Table};
use super::{ExportError, PIECE_BYTES};
use crate::log::Line;

/// Columns of the table of events.
const SCHEMA: &str = "message events {
    REQUIRED INT64 seq (INTEGER(64, false));
    REQUIRED BYTE_ARRAY id (STRING);
    REQUIRED INT64 recorded_at (TIMESTAMP(MICROS, true));
    REQUIRED BYTE_ARRAY kind (STRING);
    REQUIRED INT32 version (INTEGER(8, false));
    REQUIRED BYTE_ARRAY stream (STRING);
    REQUIRED BYTE_ARRAY actor (STRING);
    OPTIONAL BYTE_ARRAY correlation_id (STRING);
    OPTIONAL INT64 causation_seq (INTEGER(64, false));
    REQUIRED BYTE_ARRAY data (JSON);
}";
/// Events of a piece at most: whoever asks for pieces may have others waiting.
const PIECE_EVENTS: u64 = 8_192;

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventFormat {
    /// A line of JSON each.
    Lines,
    /// A Parquet file.
    Parquet,
}

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The first position; 0 is the beginning.
    pub from: Seq,
    /// What they must be. Without [`Filter::until`]: up to the end of the log as it is now.
    pub filter: Filter,
}

/// What was written so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Events.
    pub events: u64,
    /// The last position that is looked at.
    pub through: Seq,
    /// Whether it is the whole log up to there: lines of it can be imported.
    pub complete: bool,
    /// Events without their content: it was erased, or is encrypted under a key that is not here.
    pub without_content: u64,
    /// The last event that the log had dropped: what is left of it cannot be imported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped_through: Option<Seq>,
}

/// An export of events, piece by piece. Between two pieces it holds nothing of the log, which goes on meanwhile; what is
/// recorded after it was begun is not in it.
#[derive(Debug)]
pub struct EventExport {
    log: Reader,
    filter: Filter,
    /// The next position to look at; `None`: the end was written.
    next: Option<Seq>,
    exported: Exported,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Lines(Box<Lines>),
    Table(Box<Table>),
    Finished,
}

/// The state of lines: what was read adds up to the roots.
#[derive(Debug)]
struct Lines {
    frontier: Frontier,
    /// What the log says that its head is after the last event.
    head: Head,
    signer: Option<Signer>,
    begun: bool,
    /// Orders to erase what is among them may lie elsewhere.
    gaps: bool,
}

impl EventExport {
    /// Begins one. Lines of a whole log end with its head, signed by `signer` if there is one.
    ///
    /// # Errors
    ///
    /// [`ExportError`] when the log cannot be read.
    pub fn begin(
        log: Reader,
        wanted: &Wanted,
        format: EventFormat,
        signer: Option<Signer>,
    ) -> Result<Self, ExportError> {
        let end = log.head().seq;
        let through = wanted.filter.until.map_or(end, |until| until.min(end));
        let filter = Filter { until: Some(through), ..wanted.filter.clone() };
        let all = Filter { until: Some(through), ..Filter::default() };
        let dropped_through = log.origin()?.dropped.map(|dropped| dropped.through);
        let complete = wanted.from <= Seq::FIRST && filter == all && dropped_through.is_none();
        let form = match format {
            EventFormat::Parquet => Form::Table(Box::new(Table::begin(SCHEMA)?)),
            EventFormat::Lines => {
                let head = if complete { log.head_at(through.0)? } else { Head::default() };
                // Those behind the last line are left out with what else is there.
                let gaps = complete && (log.may_lack_orders()? || (through < end && log.has_gaps()));
                let frontier = Frontier::default();
                Form::Lines(Box::new(Lines { frontier, head, signer, begun: false, gaps }))
            }
        };
        let exported = Exported { events: 0, through, complete, without_content: 0, dropped_through };
        Ok(Self { log, filter, next: Some(wanted.from.max(Seq::FIRST)), exported, form })
    }

    /// What was written so far.
    pub const fn exported(&self) -> Exported {
        self.exported
    }

    /// The position up to which the log was looked at.
    pub fn position(&self) -> Seq {
        self.next.map_or(self.exported.through, Seq::previous)
    }

    /// The next piece, which may be empty; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`ExportError`]; what was written before is not whole then.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, ExportError> {
        let Some(from) = self.next else { return Ok(None) };
        let mut piece = Vec::with_capacity(PIECE_BYTES + (PIECE_BYTES >> 2));
        if let Form::Lines(lines) = &mut self.form
            && !std::mem::replace(&mut lines.begun, true)
        {
            let Exported { through, complete, dropped_through, .. } = self.exported;
            let (gaps, line) = (lines.gaps, LogLine::new(self.log.log_id(), through.0, complete));
            let line = LogLine { dropped_through, gaps, ..line };
            put(&mut piece, &Typed { r#type: "log", line: &line })?;
        }
        self.next = None;
        let mut looked = 0;
        for found in self.log.scan_stored(from, &self.filter) {
            let (event, read) = found?;
            self.exported.without_content += u64::from(matches!(read, Found::Sealed(_)));
            let (seq, line) = (event.seq, Line::of_found(&self.log, read));
            match &mut self.form {
                Form::Lines(lines) => lines.put(&mut piece, &event, &line, self.exported.complete)?,
                Form::Table(table) => {
                    table.push(cells(line, event.tag.version))?;
                    piece.append(&mut table.take()?);
                }
                Form::Finished => {}
            }
            self.exported.events += 1;
            looked += 1;
            if piece.len() >= PIECE_BYTES || looked == PIECE_EVENTS {
                self.next = Some(seq.next());
                return Ok(Some(piece));
            }
        }
        match std::mem::replace(&mut self.form, Form::Finished) {
            Form::Lines(lines) => lines.end(&mut piece, self.exported)?,
            Form::Table(table) => piece.append(&mut table.finish()?),
            Form::Finished => {}
        }
        Ok(Some(piece))
    }
}

impl Lines {
    fn put(
        &mut self,
        piece: &mut Vec<u8>,
        event: &KeptEvent,
        shown: &Line,
        complete: bool,
    ) -> Result<(), ExportError> {
        let root = complete.then(|| {
            self.frontier.push(event.leaf());
            self.frontier.root()
        });
        let line = OutLine {
            r#type: "event",
            event: EventLine::new(event, root.as_ref()),
            id: &shown.id,
            kind: &shown.kind,
            stream: &shown.stream,
            actor: &shown.actor,
            correlation_id: shown.correlation_id.as_deref(),
            causation_seq: shown.causation_seq,
            data: &shown.data,
        };
        put(piece, &line)
    }

    fn end(self, piece: &mut Vec<u8>, exported: Exported) -> Result<(), ExportError> {
        if !exported.complete {
            return put(piece, &serde_json::json!({ "type": "end", "events": exported.events }));
        }
        if self.frontier.root() != self.head.root || self.frontier.count() != self.head.seq.0 {
            return Err(ExportError::Root { seq: self.head.seq });
        }
        let signed = self.signer.map(|signer| (signer.sign(self.head), signer.public_key()));
        let line = HeadLine::new(&self.head, signed.as_ref().map(|(checkpoint, key)| (checkpoint, key)));
        put(piece, &Typed { r#type: "head", line: &line })
    }
}

/// A line of an event: what is stored, and what it reads.
#[derive(Serialize)]
struct OutLine<'a> {
    r#type: &'static str,
    #[serde(flatten)]
    event: EventLine,
    id: &'a str,
    kind: &'a str,
    stream: &'a str,
    actor: &'a str,
    correlation_id: Option<&'a str>,
    causation_seq: Option<Seq>,
    data: &'a Value,
}

#[derive(Serialize)]
struct Typed<'a, T: Serialize> {
    r#type: &'static str,
    #[serde(flatten)]
    line: &'a T,
}

fn put(piece: &mut Vec<u8>, line: &impl Serialize) -> Result<(), ExportError> {
    serde_json::to_writer(&mut *piece, line)?;
    piece.push(b'\n');
    Ok(())
}

fn cells(line: Line, version: u8) -> [Cell; 10] {
    [
        Cell::Long(line.seq.0),
        Cell::Text(line.id),
        Cell::Long(line.recorded_at.unix_micros()),
        Cell::Text(line.kind),
        Cell::Small(u32::from(version)),
        Cell::Text(line.stream),
        Cell::Text(line.actor),
        line.correlation_id.into(),
        line.causation_seq.map(|seq| seq.0).into(),
        Cell::Text(line.data.to_string()),
    ]
}
