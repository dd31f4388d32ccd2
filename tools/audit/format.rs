//! Events as others read them: JSON, JSON lines, CSV, `CloudEvents`. Written piece by piece, so that an answer of any length
//! needs no more memory than one of its events.

use caxton_events::{Seq, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::log::Line;

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object with a list, and the summary behind it.
    Json,
    /// A JSON object on each line; the last line is the summary.
    JsonLines,
    /// RFC 4180 with a line of names.
    Csv,
    /// A batch of `CloudEvents` 1.0: a JSON list.
    CloudEvents,
    /// A `CloudEvent` 1.0 as JSON on each line.
    CloudEventsLines,
}

/// Columns of [`Format::Csv`].
const COLUMNS: &str = "seq,id,recorded_at,kind,stream,actor,correlation_id,causation_seq,data\r\n";

/// Formats by the names they are asked for by.
pub const FORMATS: &[(&str, Format)] = &[
    ("json", Format::Json),
    ("jsonl", Format::JsonLines),
    ("csv", Format::Csv),
    ("cloudevents", Format::CloudEvents),
    ("cloudevents-jsonl", Format::CloudEventsLines),
];

impl Format {
    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonLines | Self::CloudEventsLines => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::CloudEvents => "application/cloudevents-batch+json",
        }
    }

    /// The format that an `Accept` header asks for: the first it names that there is, by their weights. `None` when it
    /// takes none of them. `out_of_json` are media types that somebody else makes of JSON.
    pub fn accepted(accept: &str, out_of_json: &[&str]) -> Option<Self> {
        let mut wishes: Vec<(f32, usize, &str)> = Vec::new();
        for (index, range) in accept.split(',').enumerate() {
            let mut parts = range.split(';').map(str::trim);
            let range = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok());
            wishes.push((weight.unwrap_or(0.0), index, range));
        }
        wishes.retain(|(weight, ..)| *weight > 0.0);
        wishes.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(&other.1)));
        wishes.into_iter().find_map(|(_, _, range)| match range.to_ascii_lowercase().as_str() {
            "" | "*/*" | "application/*" | "application/json" => Some(Self::Json),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Some(Self::JsonLines),
            "text/csv" | "text/*" => Some(Self::Csv),
            "application/cloudevents-batch+json" => Some(Self::CloudEvents),
            range => out_of_json.contains(&range).then_some(Self::Json),
        })
    }

    /// Whether the answer itself has no room for the summary.
    pub const fn is_bare(self) -> bool {
        matches!(self, Self::Csv | Self::CloudEvents | Self::CloudEventsLines)
    }
}

/// A stretch of the log that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// Its first position.
    pub from_seq: Seq,
    /// Its last position.
    pub to_seq: Seq,
    /// What is wrong.
    pub what: String,
}

/// What an answer took, and whether it is whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Events given.
    pub count: u64,
    /// Where the next page begins; `None` on the last one.
    pub next_cursor: Option<String>,
    /// The end of the log when the answer began.
    pub head_seq: Seq,
    /// The first event that the log has.
    #[serde(default)]
    pub first_seq: Seq,
    /// Whether what was asked about begins before that: events that were dropped are missing from the answer.
    #[serde(default)]
    pub dropped: bool,
    /// Blocks of the log that were read.
    pub blocks_read: u64,
    /// Blocks of the log that were not.
    pub blocks_skipped: u64,
    /// Bytes of the blocks that were read.
    pub bytes_read: u64,
    /// Bytes of those that were not.
    pub bytes_skipped: u64,
    /// Bytes of postings that were read.
    pub postings_bytes_read: u64,
    /// Stretches that could not be read; events in them may be missing from the answer.
    pub gaps: Vec<Unread>,
    /// Stretches that could not be read and are not named.
    pub gaps_more: u64,
}

/// Writes an answer.
#[derive(Debug, Clone)]
pub struct Writing {
    format: Format,
    /// The log's name, as in its signed heads.
    source: String,
    rows: u64,
}

impl Writing {
    /// Begins an answer from the log with this id.
    pub fn new(format: Format, log_id: &[u8; 16]) -> Self {
        let mut source = "caxton/log/".to_owned();
        for byte in log_id {
            let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
            source.extend([digit(byte >> 4), digit(byte & 15)]);
        }
        Self { format, source, rows: 0 }
    }

    /// What stands in front of the first event.
    pub fn begin(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(match self.format {
            Format::Json => b"{\"events\":[",
            Format::Csv => COLUMNS.as_bytes(),
            Format::CloudEvents => b"[",
            Format::JsonLines | Format::CloudEventsLines => b"",
        });
    }

    /// One event.
    pub fn row(&mut self, line: Line, out: &mut Vec<u8>) {
        let separated = matches!(self.format, Format::Json | Format::CloudEvents);
        if separated {
            out.extend_from_slice(if self.rows == 0 { b"\n" } else { b",\n" });
        }
        self.rows += 1;
        match self.format {
            Format::Json | Format::JsonLines => put(out, &line),
            Format::Csv => csv(&line, out),
            Format::CloudEvents | Format::CloudEventsLines => put(out, &cloud_event(line, &self.source)),
        }
        if !separated && self.format != Format::Csv {
            out.push(b'\n');
        }
    }

    /// What stands behind the last event.
    pub fn end(&self, summary: &Summary, out: &mut Vec<u8>) {
        match self.format {
            Format::Json => {
                out.extend_from_slice(b"\n],\n");
                // An object without its opening brace: the list was its first member.
                let mut rest = Vec::new();
                put(&mut rest, summary);
                out.extend_from_slice(&rest[1..]);
                out.push(b'\n');
            }
            Format::JsonLines => {
                put(out, &json!({ "summary": summary }));
                out.push(b'\n');
            }
            Format::CloudEvents => out.extend_from_slice(b"\n]\n"),
            Format::Csv | Format::CloudEventsLines => (),
        }
    }
}

fn put(out: &mut Vec<u8>, value: &impl Serialize) {
    // These have text keys alone, so that they always serialise.
    out.extend(serde_json::to_vec(value).unwrap_or_default());
}

/// A line of CSV: the event's own fields are one JSON object in the last column.
fn csv(line: &Line, out: &mut Vec<u8>) {
    let Line { seq, id, recorded_at, kind, stream, actor, correlation_id, causation_seq, data } = line;
    let cause = causation_seq.map(|seq| seq.0.to_string()).unwrap_or_default();
    let cells = [
        &seq.0.to_string(),
        id,
        &recorded_at.to_string(),
        kind,
        &harmless(stream),
        &harmless(actor),
        &harmless(correlation_id.as_deref().unwrap_or_default()),
        &cause,
        &data.to_string(),
    ];
    for (index, cell) in cells.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        quoted(cell, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// A text that spreadsheets do not take for a formula: one that begins like one gets an apostrophe in front.
fn harmless(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

/// RFC 4180 §2: quotes around what has commas, quotes or line ends, and every quote in it twice.
fn quoted(cell: &str, out: &mut Vec<u8>) {
    if !cell.contains([',', '"', '\r', '\n']) {
        out.extend_from_slice(cell.as_bytes());
        return;
    }
    out.push(b'"');
    out.extend_from_slice(cell.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

/// A `CloudEvent` 1.0 in its JSON format, with the extensions Sequence, Recorded Time and Correlation.
///
/// Its `id` is the position, so that `causationid` is the `id` of another event of the same source.
fn cloud_event(line: Line, source: &str) -> Value {
    let Line { seq, id, recorded_at, kind, stream, actor, correlation_id, causation_seq, data } = line;
    let at: Timestamp = recorded_at;
    let mut event = Map::new();
    let mut put = |name: &str, value: Value| event.insert(name.to_owned(), value);
    put("specversion", json!("1.0"));
    put("id", json!(seq.0.to_string()));
    put("source", json!(source));
    put("type", json!(format!("caxton.{kind}")));
    put("time", json!(at));
    put("datacontenttype", json!("application/json"));
    // All of them have the same width, so that they are ordered as texts too.
    put("sequence", json!(format!("{:020}", seq.0)));
    put("recordedtime", json!(at));
    put("recordid", json!(id));
    for (name, text) in [
        ("subject", Some(stream)),
        ("actor", Some(actor)),
        ("correlationid", correlation_id),
        ("causationid", causation_seq.map(|seq| seq.0.to_string())),
    ] {
        // Attributes are never empty and hold no control characters.
        let text = text.filter(|text| !text.is_empty());
        if let Some(text) = text {
            put(name, json!(text.replace(char::is_control, "\u{fffd}")));
        }
    }
    put("data", data);
    Value::Object(event)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use caxton_events::{Seq, Timestamp};
    use serde_json::{Value, json};

    use super::{Format, Summary, Writing};
    use crate::log::Line;

    fn lines() -> [Line; 2] {
        let line = Line {
            seq: Seq(7),
            id: "018f".to_owned(),
            recorded_at: Timestamp::EPOCH,
            kind: "memory.observation_added".to_owned(),
            stream: "agent:ada".to_owned(),
            actor: "@ada".to_owned(),
            correlation_id: Some("=1+1,\"x\"\n".to_owned()),
            causation_seq: Some(Seq(3)),
            data: json!({"content": "two\nlines, \"quoted\""}),
        };
        [
            line.clone(),
            Line { seq: Seq(8), correlation_id: None, causation_seq: None, data: json!({}), ..line },
        ]
    }

    fn written(format: Format) -> String {
        let mut writing = Writing::new(format, &[7; 16]);
        let mut out = Vec::new();
        writing.begin(&mut out);
        for line in lines() {
            writing.row(line, &mut out);
        }
        writing.end(&Summary { count: 2, head_seq: Seq(9), ..Summary::default() }, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_is_one_object_and_lines_end_with_the_summary() {
        let value: Value = serde_json::from_str(&written(Format::Json)).unwrap();
        assert_eq!((&value["count"], &value["head_seq"], &value["gaps"]), (&json!(2), &json!(9), &json!([])));
        assert_eq!(serde_json::from_value::<Vec<Line>>(value["events"].clone()).unwrap(), lines());
        let text = written(Format::JsonLines);
        let values: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((values.len(), &values[2]["summary"]["count"]), (3, &json!(2)));
        assert_eq!(values[0], json!(lines()[0]));
    }

    #[test]
    fn an_answer_without_events_is_whole_in_every_format() {
        for (_, format) in super::FORMATS {
            let (writing, mut out) = (Writing::new(*format, &[7; 16]), Vec::new());
            writing.begin(&mut out);
            writing.end(&Summary::default(), &mut out);
            let text = String::from_utf8(out).unwrap();
            match format {
                Format::Json | Format::CloudEvents | Format::JsonLines => {
                    serde_json::from_str::<Value>(&text).unwrap();
                }
                Format::Csv => assert_eq!(text, super::COLUMNS),
                Format::CloudEventsLines => assert_eq!(text, ""),
            }
        }
    }

    #[test]
    fn csv_is_quoted_and_holds_no_formulas() {
        let then = "seq,id,recorded_at,kind,stream,actor,correlation_id,causation_seq,data\r\n\
            7,018f,1970-01-01T00:00:00.000000Z,memory.observation_added,agent:ada,'@ada,\"'=1+1,\"\"x\"\"\n\",3,\
            \"{\"\"content\"\":\"\"two\\nlines, \\\"\"quoted\\\"\"\"\"}\"\r\n\
            8,018f,1970-01-01T00:00:00.000000Z,memory.observation_added,agent:ada,'@ada,,,{}\r\n";
        assert_eq!(written(Format::Csv), then);
    }

    #[test]
    fn cloud_events_follow_their_specification() {
        let batch: Vec<Value> = serde_json::from_str(&written(Format::CloudEvents)).unwrap();
        let text = written(Format::CloudEventsLines);
        let alone: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(batch, alone);
        assert_eq!(
            batch[0],
            json!({
                "specversion": "1.0", "id": "7", "source": "caxton/log/07070707070707070707070707070707",
                "type": "caxton.memory.observation_added", "subject": "agent:ada",
                "time": "1970-01-01T00:00:00.000000Z", "recordedtime": "1970-01-01T00:00:00.000000Z",
                "datacontenttype": "application/json", "sequence": "00000000000000000007", "recordid": "018f",
                "actor": "@ada", "correlationid": "=1+1,\"x\"\u{fffd}", "causationid": "3",
                "data": {"content": "two\nlines, \"quoted\""},
            })
        );
        for event in &batch {
            for (name, value) in event.as_object().unwrap() {
                // Names: lower-case letters and digits, at most 20 of them.
                assert!(
                    name.len() <= 20
                        && name.bytes().all(|sign| sign.is_ascii_lowercase() || sign.is_ascii_digit())
                );
                if name != "data" {
                    let text = value.as_str().unwrap();
                    assert!(!text.is_empty() && !text.contains(char::is_control), "{name}: {text:?}");
                }
            }
        }
        assert_eq!(batch[1].get("correlationid"), None);
    }

    #[test]
    fn an_accept_header_chooses_by_weight_and_order() {
        for (accept, then) in [
            ("*/*", Some(Format::Json)),
            ("text/csv", Some(Format::Csv)),
            ("text/html, application/x-ndjson;q=0.9, */*;q=0.1", Some(Format::JsonLines)),
            ("text/csv;q=0.2, application/cloudevents-batch+json", Some(Format::CloudEvents)),
            ("application/json;q=0, text/csv", Some(Format::Csv)),
            ("text/html", None),
            ("text/csv;q=0", None),
        ] {
            assert_eq!(Format::accepted(accept, &[]), then, "{accept}");
        }
        for (accept, then) in [
            ("Application/MsgPack", Some(Format::Json)),
            ("application/msgpack;q=0.2, text/csv", Some(Format::Csv)),
            ("application/x-msgpack", None),
        ] {
            assert_eq!(Format::accepted(accept, &["application/msgpack"]), then, "{accept}");
        }
    }
}
