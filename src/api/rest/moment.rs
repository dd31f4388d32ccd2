//! `as_of=`: which record of the log a read is of, and what happened since that the answer cannot undo.

use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use caxton_events::log::{Filter, ReadError, Reader};
use caxton_events::{Clock as _, Event, Kind, Record, Seq, SystemEvent, Timestamp};
use caxton_projections::view::{View, Wait};
use serde::Serialize;
use serde_json::Value;

use super::Api;
use super::call::{Call, ReadContext};
use super::fields::Fields;
use super::problem::Problem;
use super::refusals::log_unreadable;
use crate::engine::SystemClock;

/// The parameter.
pub(super) const AS_OF: &[&str] = &["as_of"];
/// The header that says of which record an answer is.
const HEADER: &str = "caxton-as-of";
/// The header that says that something was erased since: the last order to do so.
pub(super) const ERASED_SINCE: &str = "caxton-erased-since";

/// What a request gives as a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// A position in the log.
    Seq(Seq),
    /// A time: the last record that was recorded then or before.
    Time(Timestamp),
}

impl Named {
    /// The moment that the value of `name` gives, when there is one.
    pub(super) fn take(fields: &mut Fields, name: &str) -> Option<Self> {
        let value = fields.take(name)?;
        let text = match &value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                value.to_string()
            }
        };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let named = if digits {
            text.parse().ok().map(|seq| Self::Seq(Seq(seq)))
        } else {
            text.parse().ok().filter(|_| value.is_string()).map(Self::Time)
        };
        if named.is_none() {
            let remedy =
                "write a seq, as in 1234, or a time, as in 2026-11-23T14:05:00Z (+ in a query is %2B)";
            fields.complain(name, Some(&text), "is neither a seq nor an RFC 3339 time from 1970 on", remedy);
        }
        named
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Seq(seq) => seq.0.fmt(f),
            Self::Time(at) => at.fmt(f),
        }
    }
}

/// A record of the past as of which a read is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// The record; [`Seq::ZERO`]: before the first one.
    pub(super) seq: Seq,
    /// When it was recorded; the epoch before the first one.
    pub(super) recorded_at: Timestamp,
    /// The last order to erase something that was recorded behind it: the answer is without that.
    pub(super) erased_since: Option<Seq>,
}

/// A moment, or the present.
pub(super) type AsOf = Option<Moment>;

impl Api {
    /// Waits until reads of the memory include what the request wants, and finds the record it is of.
    ///
    /// # Errors
    ///
    /// A [`Problem`]: 422 for a moment that is not there yet or contradicts `min_seq`, 503 when the projections are late.
    pub(super) async fn moment(&self, context: &ReadContext, wait: Wait) -> Result<AsOf, Problem> {
        let Some(named) = context.as_of else {
            self.caught_up(context.min_seq, wait).await?;
            return Ok(None);
        };
        let moment = self.named_moment("as_of", named, context.min_seq).await?;
        self.caught_up(Some(moment.seq), wait).await?;
        Ok(Some(moment))
    }

    /// The same for reads of agents and conversations.
    pub(super) async fn talk_moment(
        &self,
        named: Option<Named>,
        min_seq: Option<Seq>,
    ) -> Result<AsOf, Problem> {
        let Some(named) = named else {
            self.talk_caught_up(min_seq).await?;
            return Ok(None);
        };
        let moment = self.named_moment("as_of", named, min_seq).await?;
        self.talk_caught_up(Some(moment.seq)).await?;
        Ok(Some(moment))
    }

    /// The record that the value of `field` names, whether or not the projections are there.
    pub(super) async fn named_moment(
        &self,
        field: &'static str,
        named: Named,
        min_seq: Option<Seq>,
    ) -> Result<Moment, Problem> {
        let log = self.engine.log().clone();
        let api = self.clone();
        let moment = self.read(move |_| found(&log, &api.interventions, (field, named))).await?;
        match min_seq {
            Some(least) if least > moment.seq => {
                let detail = format!("{field}: record {} does not include min_seq {}", moment.seq, least.0);
                Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_ERROR", detail)
                    .field(field)
                    .value(&named.to_string())
                    .remedy("leave min_seq out, or name a later moment"))
            }
            Some(_) | None => Ok(moment),
        }
    }

    /// Answers from the memory at `moment`, and says in a header of which record the answer is.
    pub(super) async fn query_at(
        &self,
        moment: AsOf,
        query: impl FnOnce(&View) -> Result<Response, Problem> + Send + 'static,
    ) -> Result<Response, Problem> {
        self.query(move |view| at(view, moment, query)).await
    }

    /// The same for what more than SQLite answers.
    pub(super) async fn read_at(
        &self,
        moment: AsOf,
        read: impl FnOnce(&View) -> Result<Response, Problem> + Send + 'static,
    ) -> Result<Response, Problem> {
        let read = move |view: &View| at(view, moment, read);
        // The past takes its time.
        if moment.is_none() { self.read_here(read).await } else { self.read(read).await }
    }
}

fn at(
    view: &View,
    moment: AsOf,
    query: impl FnOnce(&View) -> Result<Response, Problem>,
) -> Result<Response, Problem> {
    match moment {
        // Asked before the query, so that the answer includes it.
        None => {
            let seq = view.positions().get(caxton_projections::view::Part::Graph).seq;
            Ok(of_record(query(view)?, seq))
        }
        Some(moment) => match query(&view.as_of(moment.seq)) {
            Ok(response) => Ok(marked(response, moment)),
            Err(problem) => Err(moment.explained(problem)),
        },
    }
}

impl Moment {
    /// The problem, with what was erased since where something was not found.
    pub(super) fn explained(self, problem: Problem) -> Problem {
        match self.erased_since {
            Some(order) if problem.status() == StatusCode::NOT_FOUND => problem
                .erased_since(order)
                .detail("erased_since_seq", order.0)
                .remedy("if it was there then, it was erased since: see GET /audit?kinds=system.erased"),
            Some(_) | None => problem,
        }
    }
}

/// The answer with the record it is of in a header.
pub(super) fn of_record(mut response: Response, seq: Seq) -> Response {
    response.headers_mut().insert(HEADER, HeaderValue::from(seq.0));
    response
}

/// The same, with what was erased since in another header.
pub(super) fn marked(response: Response, moment: Moment) -> Response {
    let mut response = of_record(response, moment.seq);
    if let Some(order) = moment.erased_since {
        response.headers_mut().insert(ERASED_SINCE, HeaderValue::from(order.0));
    }
    response
}

fn found(
    log: &Reader,
    interventions: &Interventions,
    (field, named): (&'static str, Named),
) -> Result<Moment, Problem> {
    let unreadable = |error: ReadError| log_unreadable(&error);
    let head = log.head();
    let seq = match named {
        Named::Seq(seq) if seq > head.seq => return Err(future(field, named, log)),
        Named::Seq(seq) => seq,
        // The log's own time counts where the system's clock was set back since.
        Named::Time(at) if at > SystemClock.now().max(head.recorded_at) => {
            return Err(future(field, named, log));
        }
        Named::Time(at) => log.last_by(at).map_err(unreadable)?,
    };
    let first = log.first().map_err(|error| unreadable(error.into()))?;
    if first > Seq::FIRST && seq < first {
        return Err(dropped(field, first));
    }
    let recorded_at = log.recorded_at(seq).map_err(unreadable)?.unwrap_or(Timestamp::EPOCH);
    let erased_since = interventions.erased_since(log, seq)?;
    Ok(Moment { seq, recorded_at, erased_since })
}

/// The log has lost what the moment lies in.
pub(super) fn dropped(field: &'static str, first: Seq) -> Problem {
    let detail = format!("{field}: the log begins at record {first}, what lies before was dropped");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "AS_OF_DROPPED", detail)
        .field(field)
        .detail("first_seq", first.0)
        .remedy("ask for the present; of the memory, for a moment from that record on")
}

fn future(field: &'static str, named: Named, log: &Reader) -> Problem {
    let (head, now) = (log.head(), SystemClock.now());
    let detail = match named {
        Named::Seq(seq) => format!("{field}: the log has no record {} yet, it ends at {}", seq.0, head.seq),
        Named::Time(at) => format!("{field}: {at} is not over yet, it is {now}"),
    };
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "AS_OF_IN_FUTURE", detail)
        .field(field)
        .value(&named.to_string())
        .detail("head_seq", head.seq.0)
        .remedy("name a moment of the past, or leave it out for the present")
}

/// Something that happened behind a moment and that an answer as of it cannot undo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Intervention {
    /// Where it stands.
    seq: Seq,
    /// When it was.
    recorded_at: Timestamp,
    /// What it was: its kind of event.
    what: &'static str,
}

impl Intervention {
    /// Kinds of records that are one: what they took away or replaced is not to be had as of any record any more. A new
    /// kind of record that does so belongs here, and in [`Interventions::since`] what it concerns.
    const KINDS: &[Kind] = &[Kind::EmbeddingModelChanged, Kind::ErasureOrdered];

    fn of(record: &Record) -> Option<Self> {
        let is_one = match &record.event {
            Event::System(SystemEvent::EmbeddingModelChanged { .. } | SystemEvent::ErasureOrdered { .. }) => {
                true
            }
            Event::System(_)
            | Event::Memory(_)
            | Event::Agent(_)
            | Event::Conversation(_)
            | Event::Turn(_) => false,
        };
        is_one.then(|| Self {
            seq: record.seq,
            recorded_at: record.recorded_at,
            what: record.event.kind().name(),
        })
    }
}

/// All interventions of the log, as far as it was looked through. They are few, and blocks without one are passed over.
#[derive(Debug, Default)]
pub(super) struct Interventions(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    through: Seq,
    found: Vec<Intervention>,
}

impl Interventions {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last order to erase behind `moment`.
    fn erased_since(&self, log: &Reader, moment: Seq) -> Result<Option<Seq>, Problem> {
        let last = |known: &Known| {
            let erasures = known.found.iter().filter(|one| one.what == Kind::ErasureOrdered.name());
            erasures.map(|one| one.seq).max().filter(|seq| *seq > moment)
        };
        self.looked_up(log).map(|known| last(&known))
    }

    /// What happened behind `moment` that concerns a question; `by_meaning`: whether vectors answer it.
    ///
    /// # Errors
    ///
    /// A [`Problem`] when the log cannot be read.
    pub(super) fn since(
        &self,
        log: &Reader,
        moment: Seq,
        by_meaning: bool,
    ) -> Result<Vec<Intervention>, Problem> {
        let known = self.looked_up(log)?;
        // Of the model only what vectors say depends.
        let concerns = |one: &&Intervention| by_meaning || one.what != Kind::EmbeddingModelChanged.name();
        Ok(known.found.iter().filter(|one| one.seq > moment).filter(concerns).cloned().collect())
    }

    /// All of them up to the head of the log.
    fn looked_up(&self, log: &Reader) -> Result<MutexGuard<'_, Known>, Problem> {
        let mut known = self.known();
        let head = log.head().seq;
        if known.through < head {
            let filter =
                Filter { until: Some(head), kinds: Some(Intervention::KINDS.to_vec()), ..Filter::default() };
            for record in log.scan(known.through.next(), &filter) {
                let record = record.map_err(|error| log_unreadable(&error))?;
                known.found.extend(Intervention::of(&record));
            }
            known.through = head;
        }
        Ok(known)
    }
}

/// The parameters of a read of agents and conversations that every such read has: `min_seq` and `as_of`.
pub(super) fn talk_context(call: &Call, query: &mut Fields) -> (Option<Seq>, Option<Named>) {
    (call.min_seq(query), Named::take(query, "as_of"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use caxton_events::{Seq, Timestamp};

    use super::super::fields::Fields;
    use super::{AS_OF, Named};

    #[track_caller]
    fn check(text: &str, then: Option<Named>) {
        let mut fields = Fields::query(Some(&format!("as_of={text}")), &[AS_OF]).unwrap();
        assert_eq!(Named::take(&mut fields, "as_of"), then, "{text}");
        assert_eq!(fields.is_fine(), then.is_some(), "{text}");
    }

    #[test]
    fn a_moment_is_a_position_or_a_time() {
        check("0", Some(Named::Seq(Seq::ZERO)));
        check("18446744073709551615", Some(Named::Seq(Seq(u64::MAX))));
        check("1970-01-01T00:00:01Z", Some(Named::Time(Timestamp::from_unix_micros(1_000_000))));
        check("1970-01-02", Some(Named::Time(Timestamp::from_unix_micros(86_400_000_000))));
        for text in ["", "-1", "1.5", "18446744073709551616", "now", "1970-01-01T00:00:00", "1 2"] {
            check(text, None);
        }
    }

    #[test]
    fn a_member_may_be_a_number() {
        let read = |value: serde_json::Value| {
            let mut fields = Fields::object(serde_json::json!({ "as_of": value }), String::new(), &[AS_OF]);
            (Named::take(&mut fields, "as_of"), fields.is_fine())
        };
        assert_eq!(read(7.into()), (Some(Named::Seq(Seq(7))), true));
        assert_eq!(read(serde_json::Value::Null), (None, true));
        for value in
            [serde_json::json!(-7), serde_json::json!(1.5), serde_json::json!(true), serde_json::json!([7])]
        {
            assert_eq!(read(value), (None, false));
        }
    }
}
