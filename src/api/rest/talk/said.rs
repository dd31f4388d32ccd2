//! `GET /messages`: what was said, by who said it to whom, where, what for and when.

use axum::extract::State;
use axum::response::Response;
use caxton_events::conversation::Performative;
use caxton_events::log::{Filter, Reader};
use caxton_events::{AgentId, ConversationEvent, Event, Kind, Record, Seq, Timestamp};
use caxton_projections::conversations::{Lists, SYSTEM, Window};
use serde_json::{Value, json};

use super::super::Api;
use super::super::call::{Call, READ_QUERY};
use super::super::entities::Page;
use super::super::fields::Fields;
use super::super::moment::{AS_OF, AsOf, talk_context};
use super::super::problem::Problem;
use super::super::refusals::{begins_at, events_dropped, log_unreadable, whole};
use super::not_done;
use super::past::answer;
use super::shown::message;
use crate::engine::{Engine, RECORDS_BYTES_MAX};

/// Messages looked at for one page; a filter that keeps little answers early, with a cursor.
const LOOKED_AT_MAX: usize = 10_000;
/// Messages that are read at a time, at least.
const CHUNK: usize = 64;

const FILTER: &[&str] = &["sender", "receiver", "conversation_id", "capability", "performative"];
/// From when to when, and from which end.
pub(super) const SPAN: &[&str] = &["since", "until", "order"];
const ORDERS: &[(&str, bool)] = &[("newest", true), ("oldest", false)];

/// A stretch of time, as the request gives it.
pub(super) struct Span {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    newest_first: bool,
}

impl Span {
    pub(super) fn take(query: &mut Fields) -> Self {
        let (since, until) = query.stretch();
        Self { since, until, newest_first: query.choice("order", ORDERS).unwrap_or(true) }
    }

    /// The positions of that time, behind or before the cursor. Blocks.
    pub(super) fn window(&self, log: &Reader, moment: AsOf, cursor: Option<u64>) -> Result<Window, Problem> {
        // The first position that was recorded then or later; behind the last one when none was.
        let place = |at: Option<Timestamp>| match at.map(Timestamp::unix_micros) {
            None => Ok(None),
            Some(0) => Ok(Some(Seq::FIRST)),
            Some(micros) => {
                let before = log.last_by(Timestamp::from_unix_micros(micros - 1));
                before.map(|last| Some(last.next())).map_err(|error| log_unreadable(&error))
            }
        };
        let mut window = Window {
            after: place(self.since)?.map_or(Seq::ZERO, Seq::previous),
            before: place(self.until)?.unwrap_or(Seq(u64::MAX)),
            newest_first: self.newest_first,
        };
        let first = begins_at(log, &[])?;
        if first > Seq::FIRST && window.before <= first {
            return Err(events_dropped("until", first));
        }
        // The lists still name what was dropped: a page of that would be empty.
        window.after = window.after.max(first.previous());
        if let Some(moment) = moment {
            window.before = window.before.min(moment.seq.next());
        }
        match cursor {
            Some(seq) if self.newest_first => window.before = window.before.min(Seq(seq)),
            Some(seq) => window.after = window.after.max(Seq(seq)),
            None => (),
        }
        Ok(window)
    }
}

/// What is looked for.
struct Asked {
    lists: Lists,
    /// Only what the server itself said, which stands in no list of a sender.
    by_system: bool,
    performative: Option<Performative>,
    limit: usize,
}

/// What a look gave: one more message than fits on the page, when there are more.
#[derive(Default)]
struct Looked {
    records: Vec<Record>,
    /// Bytes of their contents.
    bytes: usize,
    /// Where it ended before it had enough.
    stopped: Option<Seq>,
    total: Option<u64>,
}

impl Looked {
    /// Whether they are as much as one answer should hold, be they few.
    const fn is_large(&self) -> bool {
        self.bytes as u64 >= RECORDS_BYTES_MAX
    }
}

impl Asked {
    /// Takes a record into `looked` if it is wanted.
    fn take(&self, record: Record, looked: &mut Looked) {
        let Event::Conversation(ConversationEvent::MessageSent(message)) = &record.event else { return };
        if self.performative.is_none_or(|wanted| wanted == message.performative)
            && (!self.by_system || message.sender.as_str() == SYSTEM)
        {
            looked.bytes += message.content.as_str().len();
            looked.records.push(record);
        }
    }

    /// Whether the lists alone decide what is wanted.
    const fn is_counted(&self) -> bool {
        self.performative.is_none() && !self.by_system
    }

    /// By the lists of who said and got what: only what stands in all of them is read.
    fn by_lists(&self, engine: &Engine, mut window: Window) -> Result<Looked, Problem> {
        let (mut looked, mut count) = (Looked::default(), 0);
        loop {
            let wanted = (self.limit - looked.records.len()).max(CHUNK);
            let found = engine.view().talk().read().conversations.find(&self.lists, window, wanted);
            looked.total = found.total.filter(|_| self.is_counted());
            count += found.seqs.len().max(CHUNK);
            let records = engine.records(&found.seqs).map_err(|error| not_done(error, &whole))?;
            // Of large messages fewer are read at a time.
            let cut = records.last().map(|record| record.seq).filter(|seq| found.seqs.last() != Some(seq));
            for record in records {
                self.take(record, &mut looked);
            }
            let Some(place) = cut.or(found.more) else { return Ok(looked) };
            if looked.records.len() >= self.limit {
                return Ok(looked);
            }
            if count >= LOOKED_AT_MAX || cut.is_some() || looked.is_large() {
                looked.stopped = Some(place);
                return Ok(looked);
            }
            if window.newest_first {
                window.before = place;
            } else {
                window.after = place;
            }
        }
    }

    /// Without a list: the log from one end.
    fn by_log(&self, log: &Reader, window: Window) -> Result<Looked, Problem> {
        let head = log.head().seq;
        let (first, last) = (window.after.next(), window.before.previous().min(head));
        let mut looked = Looked::default();
        if first > last {
            return Ok(looked);
        }
        let (from, until) = if window.newest_first { (last, first) } else { (first, last) };
        let filter = Filter { until: Some(until), kinds: Some(vec![Kind::MessageSent]), ..Filter::default() };
        let scan = if window.newest_first { log.scan_back(from, &filter) } else { log.scan(from, &filter) };
        for (count, record) in scan.enumerate() {
            let record = record.map_err(|error| log_unreadable(&error))?;
            let seq = record.seq;
            self.take(record, &mut looked);
            if looked.records.len() >= self.limit {
                break;
            }
            if count + 1 >= LOOKED_AT_MAX || looked.is_large() {
                looked.stopped = Some(seq);
                break;
            }
        }
        Ok(looked)
    }
}

/// `GET /messages`: the latest first, unless `order=oldest`.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[Page::QUERY, READ_QUERY, AS_OF, FILTER, SPAN])?;
    let page = Page::take(&api, &call, &mut query);
    let (min_seq, as_of) = talk_context(&call, &mut query);
    let sender = query.parsed::<AgentId>("sender");
    let by_system = sender.as_ref().is_some_and(|sender| sender.as_str() == SYSTEM);
    let lists = Lists {
        conversation: query.parsed("conversation_id"),
        sender: sender.filter(|_| !by_system),
        receiver: query.parsed("receiver"),
        capability: query.parsed("capability"),
    };
    let asked = Asked { lists, by_system, performative: query.parsed("performative"), limit: page.limit + 1 };
    let span = Span::take(&mut query);
    query.finish()?;
    let cursor = page.after()?;
    let moment = api.talk_moment(as_of, min_seq).await?;
    let engine = api.engine.clone();
    api.read(move |view| {
        let window = span.window(engine.log(), moment, cursor)?;
        let mut looked = if asked.lists.is_empty() {
            asked.by_log(engine.log(), window)?
        } else {
            asked.by_lists(&engine, window)?
        };
        if asked.lists.is_empty() && asked.is_counted() {
            looked.total = Some(view.talk().read().conversations.messages());
        }
        // A stretch of time is not counted.
        let is_whole = span.since.is_none() && span.until.is_none() && moment.is_none();
        let total = looked.total.filter(|_| is_whole);
        let next_cursor = page
            .cut(&mut looked.records, |record| record.seq.0)
            .or_else(|| looked.stopped.map(|seq| page.cursor_at(seq.0)));
        let messages: Vec<Value> = looked.records.iter().filter_map(message).collect();
        let count = messages.len();
        let body = json!({
            "messages": messages,
            "count": count,
            "total": total,
            "next_cursor": next_cursor,
            "first_seq": begins_at(engine.log(), &[])?,
        });
        answer(moment, body)
    })
    .await
}
