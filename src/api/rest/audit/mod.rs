//! The audit trail: `GET /audit`, events by who, what, where and when, as pages or as a whole; `GET /audit/why/…`.

mod streamed;
mod why;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use caxton_events::Seq;
use caxton_events::log::{ReadError, StoreError};
use caxton_projections::audit::trail::More;
use caxton_tools::audit::{Answer, AnswerError, Asked, FORMATS, Format, Summary, Writing};

use self::streamed::streamed;
pub(super) use self::why::why;
use super::Api;
use super::call::Call;
use super::fields::Fields;
use super::ids::{cursor_after, cursor_place};
use super::middleware::Formats;
use super::problem::Problem;
use super::refusals::{events_dropped, log_unreadable};
use crate::telemetry;

const OWN: &[&str] = &["format", "limit", "cursor"];
/// The word for a limit that is none.
const ALL: &str = "all";
/// Which event comes first.
const ORDERS: &[(&str, &str)] = &[("oldest", "oldest"), ("newest", "newest")];

/// `GET /audit`.
pub(super) async fn query(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[Asked::FIELDS, OWN])?;
    let asked = asked(&mut query);
    let format = query.choice("format", FORMATS);
    let limit = limit(&api, &mut query);
    let cursor = query.text("cursor");
    let question = asked.question();
    for wrong in question.as_ref().err().into_iter().flatten() {
        query.complain(wrong.field, Some(&wrong.value), &wrong.message, &wrong.remedy);
    }
    query.finish()?;
    let Ok(mut question) = question else { return Err(acceptable()) };
    let format = match format {
        Some(format) => format,
        None => accepted(call.headers(), api.options.formats)?,
    };
    let page_query = call.page_query();
    if let Some(cursor) = cursor {
        let place = Seq(cursor_place(&cursor, &page_query)?);
        if question.newest_first {
            question.to = Some(place.previous().min(question.to.unwrap_or(place)));
        } else {
            question.from = Some(place.next().max(question.from.unwrap_or(place)));
        }
    }
    let (own, to) = (api.clone(), question.to);
    let begun = api.read(move |_| {
        Answer::new(question, own.engine.log(), limit).map_err(|error| unanswered(&error, to))
    });
    let answer = begun.await?;
    let writing = Writing::new(format, &api.engine.log().log_id());
    match limit {
        Some(_) => page(&api, answer, (format, writing), &page_query).await,
        None => Ok(streamed(api, answer, format, writing)),
    }
}

/// Events of a page; `None` for all of them.
fn limit(api: &Api, query: &mut Fields) -> Option<u64> {
    if query.peek_text("limit").as_deref() == Some(ALL) {
        query.take("limit");
        return None;
    }
    let limit = query.integer("limit", 1..=api.options.page_size_max as u64);
    Some(limit.unwrap_or(api.options.page_size_default as u64))
}

fn asked(query: &mut Fields) -> Asked {
    Asked {
        actor: query.text("actor"),
        agent_id: query.text("agent_id"),
        conversation_id: query.text("conversation_id"),
        entity_id: query.text("entity_id"),
        message_id: query.text("message_id"),
        turn_id: query.text("turn_id"),
        kinds: query.texts("kinds"),
        correlation_id: query.text("correlation_id"),
        causation_seq: query.text("causation_seq"),
        stream: query.text("stream"),
        scope: query.text("scope"),
        since: query.text("since"),
        until: query.text("until"),
        from_seq: query.text("from_seq"),
        to_seq: query.text("to_seq"),
        order: query.choice("order", ORDERS).map(str::to_owned),
    }
}

/// The format that the client takes.
fn accepted(headers: &HeaderMap, formats: Formats) -> Result<Format, Problem> {
    let Some(accept) = headers.get(header::ACCEPT) else { return Ok(Format::Json) };
    let accept = accept.to_str().unwrap_or_default();
    Format::accepted(accept, formats.out_of_json()).ok_or_else(|| acceptable().value(accept))
}

fn acceptable() -> Problem {
    let types = "application/json, application/x-ndjson, text/csv or application/cloudevents-batch+json";
    Problem::new(StatusCode::NOT_ACCEPTABLE, "NOT_ACCEPTABLE", "there is no such format of the audit trail")
        .field("Accept")
        .remedy(format!("accept {types}, or give format"))
}

/// There is no answer to a question about what lies up to `to`.
fn unanswered(error: &AnswerError, to: Option<Seq>) -> Problem {
    match error {
        AnswerError::Dropped { first } => {
            let ends_before = to.is_some_and(|to| to < *first);
            events_dropped(if ends_before { "to_seq" } else { "until" }, *first)
        }
        AnswerError::Read(error) => log_unreadable(error),
    }
}

/// The log cannot be read at all.
fn unreadable(error: StoreError) -> Problem {
    log_unreadable(&ReadError::Store(error))
}

/// A page as one answer, with its figures in front of it as well.
async fn page(
    api: &Api,
    mut answer: Answer,
    (format, mut writing): (Format, Writing),
    page_query: &str,
) -> Result<Response, Problem> {
    let mut text = Vec::new();
    writing.begin(&mut text);
    while !answer.is_done() {
        if api.is_leaving() {
            return Err(super::refusals::stopping());
        }
        let own = api.clone();
        (answer, writing, text) = api
            .read(move |_| {
                answer
                    .step(own.engine.log(), own.engine.postings(), &mut |line| {
                        writing.row(line, &mut text);
                        More::Yes
                    })
                    .map_err(unreadable)?;
                Ok((answer, writing, text))
            })
            .await?;
    }
    let next = answer.stopped_at().map(|seq| cursor_after(seq.0, page_query));
    let summary = answer.summary(next);
    writing.end(&summary, &mut text);
    telemetry::audit_answered(summary.blocks_read, summary.blocks_skipped);
    let mut response = Response::new(text.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.extend(figures(&summary));
    Ok(response)
}

/// Names of [`figures`].
const FIGURES: &str = "caxton-audit-count, caxton-audit-head-seq, caxton-audit-first-seq, caxton-audit-blocks-read, \
                       caxton-audit-blocks-skipped, caxton-audit-bytes-read, caxton-audit-bytes-skipped, \
                       caxton-audit-postings-bytes-read";

/// The summary as headers, for formats that have no room for it.
fn figures(summary: &Summary) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, number) in [
        ("caxton-audit-count", summary.count),
        ("caxton-audit-head-seq", summary.head_seq.0),
        ("caxton-audit-first-seq", summary.first_seq.0),
        ("caxton-audit-blocks-read", summary.blocks_read),
        ("caxton-audit-blocks-skipped", summary.blocks_skipped),
        ("caxton-audit-bytes-read", summary.bytes_read),
        ("caxton-audit-bytes-skipped", summary.bytes_skipped),
        ("caxton-audit-postings-bytes-read", summary.postings_bytes_read),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from(number));
    }
    let gaps: Vec<String> =
        summary.gaps.iter().take(16).map(|gap| format!("{}-{}", gap.from_seq.0, gap.to_seq.0)).collect();
    let texts = [
        ("caxton-audit-gaps", (!gaps.is_empty()).then(|| gaps.join(", "))),
        ("caxton-next-cursor", summary.next_cursor.clone()),
    ];
    for (name, text) in texts {
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}
