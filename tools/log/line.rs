//! One record of the log, as it is shown.

use std::fmt;

use caxton_events::log::{Around, Found, Reader, SealedRecord, event_id, event_id_at};
use caxton_events::{Record, Seq, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::payload::payload;

/// Characters of a text value that the line for people shows.
const SHOWN_CHARS_MAX: usize = 60;

/// A record as JSON, the same as `GET /api/v1/events` gives; prints as one line for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Its position.
    pub seq: Seq,
    /// Its `UUIDv7`.
    pub id: String,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// The dotted name of its kind.
    pub kind: String,
    /// The stream it belongs to.
    pub stream: String,
    /// Who caused it.
    pub actor: String,
    /// What ties it to others of one request.
    #[serde(default)]
    pub correlation_id: Option<String>,
    /// The event that led to it.
    #[serde(default)]
    pub causation_seq: Option<Seq>,
    /// The event's own fields.
    pub data: Value,
}

impl Line {
    /// The line for a record of the log that `reader` reads.
    pub fn of(reader: &Reader, record: Record) -> Self {
        Self::of_log(&reader.log_id_at(record.seq), record)
    }

    /// The line for an event of the log that `reader` reads, which may have been erased.
    pub fn of_found(reader: &Reader, found: Found) -> Self {
        Self::of_log_found(&reader.log_id_at(found.seq()), found)
    }

    /// The line for an event of the log with this id. What was erased, or is encrypted under a key that is not at hand,
    /// shows what is left of it: `data` then says which, and under which key.
    pub fn of_log_found(log_id: &[u8; 16], found: Found) -> Self {
        let sealed = match found {
            Found::Record(record) => return Self::of_log(log_id, record),
            Found::Sealed(sealed) => sealed,
        };
        let SealedRecord { seq, recorded_at, kind, around, key, erased_by } = sealed;
        let mut data = match erased_by {
            Some(order) => json!({ "erased": true, "erased_by_seq": order }),
            None => json!({ "encrypted": true }),
        };
        if let Some(key) = key {
            data["key_id"] = format!("{key:016x}").into();
        }
        let around = around.unwrap_or_else(|| Around {
            stream: String::new(),
            actor: String::new(),
            correlation: None,
            causation: None,
        });
        Self {
            seq,
            id: event_id_at(log_id, seq, recorded_at).to_string(),
            recorded_at,
            kind: kind.name().to_owned(),
            stream: around.stream,
            actor: around.actor,
            correlation_id: around.correlation,
            causation_seq: around.causation,
            data,
        }
    }

    /// The line for a record of the log with this id.
    pub fn of_log(log_id: &[u8; 16], record: Record) -> Self {
        Self {
            seq: record.seq,
            id: event_id(log_id, &record).to_string(),
            recorded_at: record.recorded_at,
            kind: record.event.kind().name().to_owned(),
            data: payload(&record.event),
            stream: record.stream,
            actor: record.actor,
            correlation_id: record.correlation,
            causation_seq: record.causation,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seq, recorded_at, kind, stream, actor, .. } = self;
        write!(f, "{seq} {recorded_at} {kind} {stream} by {actor}:")?;
        for (name, value) in self.data.as_object().into_iter().flatten() {
            match value {
                Value::String(text) => write!(f, " {name}={}", shortened(text))?,
                Value::Null => (),
                Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    write!(f, " {name}={value}")?;
                }
            }
        }
        Ok(())
    }
}

/// The text on one line, quoted where it holds a space, cut where it is long.
fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    let plain = shown.chars().all(|sign| !sign.is_whitespace() && !sign.is_control() && sign != '"');
    if plain && !shown.is_empty() { shown } else { format!("{shown:?}") }
}

#[cfg(test)]
mod tests {
    use caxton_events::{Seq, Timestamp};
    use serde_json::json;

    use super::{Line, shortened};

    #[test]
    fn a_line_shows_everything_on_one_line() {
        let line = Line {
            seq: Seq(7),
            id: String::new(),
            recorded_at: Timestamp::EPOCH,
            kind: "memory.observation_added".to_owned(),
            stream: "agent:ada".to_owned(),
            actor: "ada".to_owned(),
            correlation_id: None,
            causation_seq: None,
            data: json!({ "observation_id": "obs_3", "content": "two\nlines", "valid_to": null }),
        };
        let then = "#7 1970-01-01T00:00:00.000000Z memory.observation_added agent:ada by ada: content=\"two\\nlines\" observation_id=obs_3";
        assert_eq!(line.to_string(), then);
    }

    #[test]
    fn long_and_odd_texts_are_cut_and_quoted() {
        for (text, shown) in [("plain", "plain"), ("", "\"\""), ("a b", "\"a b\""), ("a\"b", "\"a\\\"b\"")] {
            assert_eq!(shortened(text), shown);
        }
        assert_eq!(shortened(&"é".repeat(61)), format!("{}…", "é".repeat(60)));
    }
}
