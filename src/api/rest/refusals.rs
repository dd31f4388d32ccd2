//! The one table from what the engine and the projections say to status and code.

use std::error::Error;

use axum::http::StatusCode;
use caxton_events::Seq;
use caxton_events::log::{AppendError, ReadError as LogReadError, Reader, StoreError};
use caxton_projections::embedding::EmbedError;
use caxton_projections::graph::ReadError;
use caxton_projections::queries::SearchError;

use super::problem::{Complaint, Problem};
use crate::commands::{Refusal, RefusalCode};
use crate::engine::SubmitError;
use crate::failure::chain;

/// The status of a rule that said no.
pub(super) const fn status_of(code: RefusalCode) -> StatusCode {
    match code {
        RefusalCode::Validation | RefusalCode::ProtocolViolation | RefusalCode::Expired => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        RefusalCode::EntityNotFound
        | RefusalCode::ObservationNotFound
        | RefusalCode::RelationNotFound
        | RefusalCode::AgentNotFound
        | RefusalCode::ConversationNotFound
        | RefusalCode::MessageNotFound
        | RefusalCode::RegistrationNotFound
        | RefusalCode::DeadLetterNotFound => StatusCode::NOT_FOUND,
        RefusalCode::QueueFull => StatusCode::TOO_MANY_REQUESTS,
        RefusalCode::TypeConflict
        | RefusalCode::RelationConflict
        | RefusalCode::VersionConflict
        | RefusalCode::AlreadyExists
        | RefusalCode::ConversationClosed
        | RefusalCode::MessageConflict
        | RefusalCode::LimitReached
        | RefusalCode::WrongState
        | RefusalCode::DuplicateRegistration
        | RefusalCode::IdempotencyConflict => StatusCode::CONFLICT,
        RefusalCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
    }
}

/// Where a write stands in the request: what is put before the names of its fields.
pub(super) type Place<'a> = &'a dyn Fn(usize) -> String;

/// A write that is the whole body.
pub(super) fn whole(_: usize) -> String {
    String::new()
}

/// A refusal as the client is told, with the names that the client uses.
pub(super) fn complaint(refusal: Refusal, place: Place<'_>) -> Complaint {
    let (first, rest) = match refusal.field.find(['.', '[']) {
        Some(end) => refusal.field.split_at(end),
        None => (refusal.field.as_str(), ""),
    };
    let first = match first {
        "name" => "entity_name",
        "from" => "from_entity",
        "to" => "to_entity",
        "scope" => "memory_scope",
        "version" => "expected_version",
        other => other,
    };
    // A key is one of the whole request, whatever write it stands with.
    let of_request = refusal.code == RefusalCode::IdempotencyConflict;
    let place = if of_request { String::new() } else { place(refusal.index) };
    Complaint {
        field: format!("{place}{first}{rest}"),
        code: refusal.code.as_str(),
        value: None,
        message: refusal.message,
        remedy: refusal.remedy,
    }
}

/// Refusals of an atomic command: nothing was written. The status is the first one's.
pub(super) fn refused(refusals: Vec<Refusal>, place: Place<'_>) -> Problem {
    let status = refusals.first().map_or(StatusCode::UNPROCESSABLE_ENTITY, |refusal| status_of(refusal.code));
    Problem::complaints(status, refusals.into_iter().map(|refusal| complaint(refusal, place)).collect())
}

/// The same, with what could not be read of the request.
pub(super) fn refused_beside(
    refusals: Vec<Refusal>,
    place: Place<'_>,
    unread: impl Iterator<Item = Complaint>,
) -> Problem {
    let status = refusals.first().map_or(StatusCode::UNPROCESSABLE_ENTITY, |refusal| status_of(refusal.code));
    let told = refusals.into_iter().map(|refusal| complaint(refusal, place));
    Problem::complaints(status, told.chain(unread).collect())
}

/// What became of a command that has no outcome.
pub(super) fn not_submitted(error: SubmitError, place: Place<'_>) -> Problem {
    match error {
        SubmitError::Refused(refusals) => refused(refusals, place),
        SubmitError::Overloaded => overloaded("too many writes are waiting"),
        SubmitError::Stopped => stopping(),
        SubmitError::ProjectionStopped { name, error, last } => projection_stopped(name, &error, Some(last)),
        SubmitError::TimedOut { last } => {
            let detail = "the write is recorded, but the memory did not show it in time";
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "NOT_APPLIED_IN_TIME", detail)
                .detail("seq", last.0)
                .remedy("do not repeat the write: read with min_seq set to details.seq")
        }
        SubmitError::Log(error) => log_failed(&error),
        SubmitError::Unavailable { name, error } => projection_stopped(name, &error, None),
        SubmitError::Rebuilding { name, reason } => projection_rebuilding(name, &reason),
        SubmitError::Read(error) => log_unreadable(&error),
        SubmitError::Answer(error) => internal(&error),
        SubmitError::Graph(error) => graph_failed(&error),
    }
}

/// What to do about a log that has closed itself, whatever was asked.
pub(super) const REOPEN: &str =
    "remove the cause (on a full disk, make room) and restart the server; nothing is written until then";

/// Whether something is wrong with the log, and not with what was asked of it. Every write meets a closed log: the engine
/// tells once that it is closed, and why.
const fn is_failure(error: &AppendError) -> bool {
    match error {
        AppendError::Empty
        | AppendError::Unexpected { .. }
        | AppendError::SeriesBroken
        | AppendError::Keys { .. }
        | AppendError::Unchecked { .. }
        | AppendError::Io { .. } => true,
        AppendError::TooLarge { .. }
        | AppendError::KeyLength { .. }
        | AppendError::KeyConflict { .. }
        | AppendError::BeingErased { .. }
        | AppendError::Closed(_) => false,
    }
}

/// The log did not take the write.
pub(super) fn log_failed(error: &AppendError) -> Problem {
    if is_failure(error) {
        tracing::error!(error = %chain(error), "the log failed");
    }
    let detail = error.to_string();
    let problem = match error {
        AppendError::TooLarge { .. } => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", detail),
        AppendError::KeyConflict { .. } => {
            Problem::new(StatusCode::CONFLICT, RefusalCode::IdempotencyConflict.as_str(), detail)
                .field("Idempotency-Key")
                .remedy("use a new key for new content")
        }
        AppendError::KeyLength { .. } => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_ERROR", detail)
                .field("Idempotency-Key")
        }
        AppendError::Io { .. } if is_full(error) => Problem::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "DISK_FULL",
            "the disk of the data directory is full",
        )
        .remedy("make room and restart the server; whether this write survived shows after the restart"),
        AppendError::Io { .. } => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "STORAGE_ERROR", detail)
            .remedy("see the server's log; whether this write survived shows after a restart"),
        AppendError::Closed(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "LOG_CLOSED", detail)
            .remedy(format!("nothing was written; {REOPEN}")),
        AppendError::BeingErased { .. } => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "BEING_ERASED", detail)
                .remedy("nothing was written: send it again in a moment")
                .retry_after(1)
        }
        AppendError::Keys { .. } => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "STORAGE_ERROR", detail)
            .remedy("nothing was written; see the server's log: the file of keys cannot be written"),
        AppendError::Unchecked { .. } => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "STORAGE_ERROR", detail)
                .remedy("nothing was written; run `caxton log verify` on the stopped server")
        }
        AppendError::Empty | AppendError::Unexpected { .. } | AppendError::SeriesBroken => internal(error),
    };
    problem.caused_by(error)
}

fn is_full(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// The code of a graph that is not what SQLite wrote.
pub(super) const GRAPH_DAMAGED: &str = "GRAPH_DAMAGED";

/// The graph did not answer.
pub(super) fn graph_failed(error: &ReadError) -> Problem {
    match error {
        ReadError::Exhausted { .. } => overloaded("all read connections are busy"),
        ReadError::Forgotten { .. } => overloaded("the words of the memory are unloaded again and again"),
        ReadError::TooLarge { field, value, max } => {
            let detail = format!("{field} is {value}, the limit is {max}");
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_ERROR", detail)
                .field(*field)
                .value(&value.to_string())
                .remedy(format!("use at most {max}"))
        }
        ReadError::Rebuilding { reason } => projection_rebuilding("graph", reason),
        // Every request meets the damage. The engine hears of it by the code, and tells of it once.
        ReadError::Sqlite { .. } if error.is_damage() => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, GRAPH_DAMAGED, error.to_string())
                .remedy("restart the server: it sets the damaged file aside and rebuilds it from the log")
                .caused_by(error)
        }
        ReadError::Sqlite { .. } => {
            tracing::error!(error = %chain(error), "the graph could not be read");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "STORAGE_ERROR", error.to_string())
                .remedy("try again; see the server's log")
                .caused_by(error)
        }
    }
}

/// The search did not answer.
pub(super) fn search_failed(error: &SearchError) -> Problem {
    match error {
        SearchError::NoModel => no_model(),
        SearchError::Embed(error) => embedding_failed(error),
        failed @ SearchError::Vectors(_) => {
            tracing::error!(error = %chain(error), "the vectors could not be searched");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "SEARCH_ERROR", error.to_string())
                .remedy("try again with mode=keyword; see the server's log")
                .caused_by(failed)
        }
        SearchError::Graph(error) => graph_failed(error),
    }
}

/// The model did not answer.
pub(super) fn embedding_failed(error: &EmbedError) -> Problem {
    if let EmbedError::Busy { .. } = error {
        return overloaded("too many texts wait for the embedding model");
    }
    tracing::error!(error = %chain(error), "the model failed");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "EMBEDDING_ERROR", "the text could not be embedded")
        .remedy("try again, or search with mode=keyword; see the server's log")
        .caused_by(error)
}

/// There is no model.
pub(super) fn no_model() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "NO_MODEL",
        "there is no embedding model: the server runs keyword-only",
    )
    .remedy("search with mode=keyword, or start the server with a model (caxton model pull)")
}

/// The log did not answer.
pub(super) fn log_unreadable(error: &LogReadError) -> Problem {
    if let LogReadError::Store(StoreError::Closed) = error {
        let detail = "the log is closed, and not read any more; GET /api/v1/health/detailed says why";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "LOG_CLOSED", detail).remedy(REOPEN);
    }
    tracing::error!(error = %chain(error), "the log could not be read");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "STORAGE_ERROR", error.to_string())
        .remedy("run caxton log verify")
        .caused_by(error)
}

/// What was asked for lies before the log's first event.
pub(super) fn events_dropped(field: &str, first: Seq) -> Problem {
    let detail = format!("{field}: the log begins at record {first}, what lies before was dropped");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "EVENTS_DROPPED", detail)
        .field(field)
        .detail("first_seq", first.0)
        .remedy(format!("ask for what lies at {} or behind it", first.0))
}

/// The position of the log's first event. Those of `given` that lie before it are refused: who goes on at one of them would
/// miss what was dropped without knowing.
pub(super) fn begins_at(log: &Reader, given: &[(&str, Option<Seq>)]) -> Result<Seq, Problem> {
    let first = log.first().map_err(|error| log_unreadable(&LogReadError::Store(error)))?;
    match given.iter().find(|(_, seq)| seq.is_some_and(|seq| seq < first)) {
        Some((field, _)) => Err(events_dropped(field, first)),
        None => Ok(first),
    }
}

/// The code of what [`overloaded`] answers: it goes again after a while.
pub(super) const OVERLOADED: &str = "OVERLOADED";

/// More is asked than can be done.
pub(super) fn overloaded(detail: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, detail)
        .remedy("nothing was done: try again after the time in Retry-After")
        .retry_after(1)
}

/// The server is on its way out.
pub(super) fn stopping() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "STOPPING", "the server is stopping; nothing was written")
        .remedy("try again when it is back")
        .retry_after(5)
        .close()
}

/// What to do about a projection that has stopped.
pub(super) const GO_ON: &str = "remove the cause and restart the server: it goes on from the log";

/// A projection does not go on; `recorded` is the write that is in the log all the same.
pub(super) fn projection_stopped(name: &str, error: &str, recorded: Option<Seq>) -> Problem {
    let detail = match recorded {
        Some(last) => {
            format!("the write is recorded as {}, but projection {name} has stopped: {error}", last.0)
        }
        None => format!("projection {name} has stopped: {error}"),
    };
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "PROJECTION_STOPPED", detail)
        .detail("projection", name);
    match recorded {
        Some(last) => problem.detail("seq", last.0).remedy(
            "do not repeat the write; remove the cause and restart the server, which goes on from the log",
        ),
        None => problem.remedy(GO_ON),
    }
}

/// A projection is not there yet: it is built anew from the log.
pub(super) fn projection_rebuilding(name: &str, reason: &str) -> Problem {
    let detail = format!("projection {name} is being rebuilt from the log: {reason}");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "PROJECTION_REBUILDING", detail)
        .detail("projection", name)
        .remedy("nothing was written; GET /api/v1/projections says how far it is; everything else is answered meanwhile")
        .retry_after(5)
}

/// Something that should not happen.
pub(super) fn internal(error: &(dyn Error + 'static)) -> Problem {
    tracing::error!(error = %chain(error), "a request failed");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", "the server failed to answer")
        .remedy("see the server's log for the request id")
        .caused_by(error)
}

#[cfg(test)]
mod tests {
    use caxton_events::log::LogClosed;

    use super::{
        AppendError, Refusal, RefusalCode, Seq, complaint, is_failure, log_failed, status_of, whole,
    };

    #[test]
    fn every_rule_has_its_status() {
        for (code, status) in [
            (RefusalCode::Validation, 422),
            (RefusalCode::EntityNotFound, 404),
            (RefusalCode::ObservationNotFound, 404),
            (RefusalCode::RelationNotFound, 404),
            (RefusalCode::TypeConflict, 409),
            (RefusalCode::RelationConflict, 409),
            (RefusalCode::VersionConflict, 409),
            (RefusalCode::AlreadyExists, 409),
            (RefusalCode::TooLarge, 413),
            (RefusalCode::IdempotencyConflict, 409),
            (RefusalCode::AgentNotFound, 404),
            (RefusalCode::ConversationClosed, 409),
            (RefusalCode::ProtocolViolation, 422),
            (RefusalCode::QueueFull, 429),
        ] {
            assert_eq!(status_of(code).as_u16(), status, "{code:?}");
        }
    }

    #[test]
    fn what_the_log_refuses_is_no_failure_of_the_log() {
        let stream = "c-1".to_owned();
        for (error, status, fails) in [
            (AppendError::TooLarge { index: 0, bytes: 1 }, 413, false),
            (AppendError::KeyLength { bytes: 0 }, 422, false),
            (AppendError::KeyConflict { key: "k".to_owned(), first: Seq(1) }, 409, false),
            (AppendError::BeingErased { stream }, 503, false),
            (AppendError::Closed(LogClosed { reason: "it ended".into() }), 503, false),
            (AppendError::Empty, 500, true),
        ] {
            assert_eq!(
                (log_failed(&error).status().as_u16(), is_failure(&error)),
                (status, fails),
                "{error}"
            );
        }
    }

    #[test]
    fn a_field_is_named_as_the_client_names_it() {
        for (field, shown) in [
            ("name", "entities[7].entity_name"),
            ("observations[2].content", "entities[7].observations[2].content"),
            ("from", "entities[7].from_entity"),
            ("entity_type", "entities[7].entity_type"),
            ("version", "entities[7].expected_version"),
        ] {
            let refusal = Refusal {
                code: RefusalCode::Validation,
                index: 7,
                field: field.to_owned(),
                message: String::new(),
                remedy: String::new(),
            };
            assert_eq!(complaint(refusal.clone(), &|index| format!("entities[{index}].")).field, shown);
            assert!(shown.ends_with(&complaint(refusal, &whole).field));
        }
    }

    #[test]
    fn a_key_that_was_used_is_one_of_the_whole_request() {
        let refusal = Refusal {
            code: RefusalCode::IdempotencyConflict,
            index: 0,
            field: "Idempotency-Key".to_owned(),
            message: String::new(),
            remedy: String::new(),
        };
        assert_eq!(complaint(refusal, &|index| format!("entities[{index}].")).field, "Idempotency-Key");
    }
}
