//! What agents said, as tables: agents, conversations, messages, each a Parquet file.

use caxton_events::agent::AgentStatus;
use caxton_events::conversation::{Content, Message};
use caxton_events::log::{Filter, Reader};
use caxton_events::{ConversationEvent, Event, Kind, Record, Seq, Timestamp};
use caxton_projections::agents::Agent;
use caxton_projections::conversations::Conversation;
use caxton_projections::talk::TalkReader;
use serde::Serialize;
use serde_json::{Value, json};

use super::ExportError;
use super::table::{Cell, GROUP_BYTES_MAX, Table};

/// Rows of a piece at the most; one whose values take [`GROUP_BYTES_MAX`] has fewer.
const PAGE_ROWS: usize = 2_048;

/// One of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TalkTable {
    /// Agents that were not removed.
    Agents,
    /// Conversations, open or not.
    Conversations,
    /// Messages with their contents, out of the log.
    Messages,
}

impl TalkTable {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Agents, Self::Conversations, Self::Messages];

    /// Its name, as in `messages.parquet`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Conversations => "conversations",
            Self::Messages => "messages",
        }
    }

    const fn schema(self) -> &'static str {
        match self {
            Self::Agents => {
                "message agents {
                    REQUIRED BYTE_ARRAY agent_id (STRING); REQUIRED BYTE_ARRAY workspace (STRING);
                    OPTIONAL BYTE_ARRAY status (STRING); REQUIRED BYTE_ARRAY status_reason (STRING);
                    OPTIONAL BYTE_ARRAY config_path (STRING); OPTIONAL BYTE_ARRAY config_version (STRING);
                    OPTIONAL BYTE_ARRAY config_sha256 (STRING); REQUIRED BYTE_ARRAY capabilities (JSON);
                    REQUIRED INT64 registered_at (TIMESTAMP(MICROS, true));
                    REQUIRED INT64 registered_seq (INTEGER(64, false));
                }"
            }
            Self::Conversations => {
                "message conversations {
                    REQUIRED BYTE_ARRAY conversation_id (STRING); REQUIRED BYTE_ARRAY status (STRING);
                    OPTIONAL BYTE_ARRAY topic (STRING); OPTIONAL BYTE_ARRAY protocol (STRING);
                    OPTIONAL BYTE_ARRAY parent_conversation (STRING); REQUIRED BYTE_ARRAY participants (JSON);
                    REQUIRED INT64 messages (INTEGER(64, false));
                    REQUIRED INT64 opened_at (TIMESTAMP(MICROS, true));
                    REQUIRED INT64 opened_seq (INTEGER(64, false));
                    REQUIRED INT64 last_at (TIMESTAMP(MICROS, true));
                    OPTIONAL INT64 ended_at (TIMESTAMP(MICROS, true));
                    OPTIONAL INT64 ended_seq (INTEGER(64, false));
                }"
            }
            Self::Messages => {
                "message messages {
                    REQUIRED INT64 seq (INTEGER(64, false)); REQUIRED BYTE_ARRAY message_id (STRING);
                    REQUIRED BYTE_ARRAY conversation_id (STRING);
                    REQUIRED INT64 sent_at (TIMESTAMP(MICROS, true)); REQUIRED BYTE_ARRAY performative (STRING);
                    REQUIRED BYTE_ARRAY sender (STRING); REQUIRED BYTE_ARRAY receivers (JSON);
                    OPTIONAL BYTE_ARRAY capability (STRING); REQUIRED BYTE_ARRAY content (STRING);
                    REQUIRED BYTE_ARRAY content_format (STRING); REQUIRED BYTE_ARRAY priority (STRING);
                    OPTIONAL BYTE_ARRAY reply_with (STRING); OPTIONAL BYTE_ARRAY in_reply_to (STRING);
                    OPTIONAL INT64 answers_seq (INTEGER(64, false));
                    OPTIONAL INT64 reply_by (TIMESTAMP(MICROS, true));
                    OPTIONAL INT64 expires_at (TIMESTAMP(MICROS, true));
                    OPTIONAL BYTE_ARRAY extras (JSON);
                }"
            }
        }
    }
}

/// An export of one table, piece by piece. What began after its last record is not in it; agents and conversations that began
/// before are as they are when their piece is made.
#[derive(Debug)]
pub struct TalkExport {
    talk: TalkReader,
    log: Reader,
    kind: TalkTable,
    /// `None`: the end was written.
    table: Option<Table>,
    /// The last position that is looked at.
    through: Seq,
    /// The record of the last row.
    after: Seq,
    rows: u64,
}

impl TalkExport {
    /// Begins one up to the record `through`, which both readers must include.
    ///
    /// # Errors
    ///
    /// [`ExportError`].
    pub fn begin(talk: TalkReader, log: Reader, through: Seq, kind: TalkTable) -> Result<Self, ExportError> {
        let table = Some(Table::begin(kind.schema())?);
        Ok(Self { talk, log, kind, table, through, after: Seq::ZERO, rows: 0 })
    }

    /// Rows written so far.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// The next piece, which may be empty; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`ExportError`]; what was written before is not whole then.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, ExportError> {
        if self.table.is_none() {
            return Ok(None);
        }
        let Page { rows, is_last } = match self.kind {
            TalkTable::Agents => self.agents(),
            TalkTable::Conversations => self.conversations()?,
            TalkTable::Messages => self.messages()?,
        };
        let Some(table) = &mut self.table else { return Ok(None) };
        for (seq, cells) in rows {
            self.after = seq;
            self.rows += 1;
            table.push(cells)?;
        }
        let piece = table.take()?;
        if !is_last {
            return Ok(Some(piece));
        }
        let rest = self.table.take().map(Table::finish).transpose()?.unwrap_or_default();
        Ok(Some([piece, rest].concat()))
    }

    /// By name: all of them, since there are few.
    fn agents(&self) -> Page {
        let state = self.talk.read();
        let offers = |agent: &Agent| {
            let own = state.registry.registrations().filter(|offer| offer.agent == agent.name);
            let own = own.map(|offer| {
                json!({ "capability": offer.capability, "version": offer.version, "priority": offer.priority })
            });
            own.collect::<Vec<_>>()
        };
        let agents = state.registry.agents().into_iter().filter(|agent| agent.since <= self.through);
        let rows = agents.map(|agent| (agent.since, of_agent(agent, &json!(offers(agent))))).collect();
        Page { rows, is_last: true }
    }

    /// In the order in which they were opened.
    fn conversations(&self) -> Result<Page, ExportError> {
        let state = self.talk.read();
        let opened = state.conversations.opened_after(self.after);
        let opened = opened.take_while(|conversation| conversation.opened <= self.through);
        Page::of(opened.map(|row| Ok((row.opened, of_conversation(row)))))
    }

    /// In the order in which they were sent.
    fn messages(&self) -> Result<Page, ExportError> {
        let filter =
            Filter { until: Some(self.through), kinds: Some(vec![Kind::MessageSent]), ..Filter::default() };
        Page::of(self.log.scan(self.after.next(), &filter).filter_map(|record| {
            let row = |record: Record| {
                let Event::Conversation(ConversationEvent::MessageSent(message)) = &record.event else {
                    return None;
                };
                Some((record.seq, of_message(&record, message)))
            };
            record.map_err(ExportError::from).map(row).transpose()
        }))
    }
}

/// A row and the record it is of.
type PageRow = (Seq, Vec<Cell>);

/// Rows with their records.
struct Page {
    rows: Vec<PageRow>,
    /// Whether there is nothing behind them.
    is_last: bool,
}

impl Page {
    /// The first of these rows, until they are many or take much; one at least, where there is one.
    fn of(all: impl Iterator<Item = Result<PageRow, ExportError>>) -> Result<Self, ExportError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for row in all {
            let row = row?;
            bytes += row.1.iter().map(Cell::bytes).sum::<usize>();
            rows.push(row);
            if rows.len() == PAGE_ROWS || bytes >= GROUP_BYTES_MAX {
                return Ok(Self { rows, is_last: false });
            }
        }
        Ok(Self { rows, is_last: true })
    }
}

fn text(text: &(impl ToString + ?Sized)) -> Cell {
    Cell::Text(text.to_string())
}

fn text_or_none(text: Option<impl ToString>) -> Cell {
    text.map(|text| text.to_string()).into()
}

fn moment(at: Timestamp) -> Cell {
    Cell::Long(at.unix_micros())
}

fn moment_or_none(at: Option<Timestamp>) -> Cell {
    at.map(Timestamp::unix_micros).into()
}

fn of_agent(agent: &Agent, offers: &Value) -> Vec<Cell> {
    let config = agent.config.as_ref();
    vec![
        text(&agent.name),
        text(&agent.workspace),
        text_or_none(agent.status.map(AgentStatus::as_str)),
        text(&agent.status_reason),
        text_or_none(config.map(|config| &config.path)),
        text_or_none(config.map(|config| &config.version)),
        text_or_none(config.map(|config| &config.sha256)),
        text(offers),
        moment(agent.registered_at),
        Cell::Long(agent.since.0),
    ]
}

fn of_conversation(row: &Conversation) -> Vec<Cell> {
    let status = match (row.archived, row.ending) {
        (true, _) => "archived",
        (false, Some(ending)) => ending.end.as_str(),
        (false, None) => "active",
    };
    vec![
        text(&row.id),
        text(status),
        text_or_none(row.topic.as_ref()),
        text_or_none(row.protocol.as_ref()),
        text_or_none(row.parent.as_ref()),
        text(&json!(row.participants)),
        Cell::Long(row.messages.len()),
        moment(row.opened_at),
        Cell::Long(row.opened.0),
        moment(row.last_at),
        moment_or_none(row.ending.map(|ending| ending.at)),
        row.ending.map(|ending| ending.seq.0).into(),
    ]
}

fn of_message(record: &Record, message: &Message) -> Vec<Cell> {
    let format = match message.content {
        Content::Text(_) => "text",
        Content::Json(_) => "json",
    };
    vec![
        Cell::Long(record.seq.0),
        text(&message.id),
        text(&message.conversation),
        moment(record.recorded_at),
        text(message.performative.as_str()),
        text(&message.sender),
        text(&json!(message.receivers)),
        text_or_none(message.routing.as_ref().map(|routing| &routing.capability)),
        text(message.content.as_str()),
        text(format),
        text(message.priority.as_str()),
        text_or_none(message.reply_with.as_ref()),
        text_or_none(message.in_reply_to.as_ref()),
        record.causation.map(|seq| seq.0).into(),
        moment_or_none(message.reply_by),
        moment_or_none(message.expires_at),
        text_or_none(message.extras.as_ref()),
    ]
}
