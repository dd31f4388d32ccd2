//! The events of the log, page by page or as they come.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::log::Filter;
use caxton_events::{Family, Kind, Seq};
use caxton_tools::log::Line;
use serde_json::json;

use super::Api;
use super::call::Call;
use super::fields::Fields;
use super::problem::{Problem, nearest, shortened};
use super::refusals::{begins_at, log_unreadable};
use super::rows;
use super::wanted::Wanted;
use crate::engine::RECORDS_BYTES_MAX;

const LIMIT_DEFAULT: u64 = 100;
const LIMIT_MAX: u64 = 1_000;
/// Longest time a client may wait for the next event, in seconds.
const WAIT_SECONDS_MAX: u64 = 25;
const POLL: Duration = Duration::from_millis(20);
/// Records looked at for one page; a filter that keeps little answers early with a `next_seq`.
const SCANNED_MAX: usize = 200_000;

/// Parameters that choose events.
pub(super) const FILTER: &[&str] =
    &["kinds", "actor", "agent_id", "stream", "correlation_id", "since", "until"];

/// `GET /events`: events from `from_seq` on, at most `limit`; with `wait_seconds` it waits for the next one.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[FILTER, &["from_seq", "limit", "wait_seconds"]])?;
    let given = query.integer("from_seq", 1..=u64::MAX).map(Seq);
    let from = given.unwrap_or(Seq::FIRST);
    let limit = query.integer("limit", 1..=LIMIT_MAX).unwrap_or(LIMIT_DEFAULT) as usize;
    let wait = query.integer("wait_seconds", 0..=WAIT_SECONDS_MAX).unwrap_or(0);
    let wanted = wanted(&mut query);
    query.finish()?;
    let first = begins_at(api.engine.log(), &[("from_seq", given)])?;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(wait).min(api.options.wait_max());
    while api.engine.log().head().seq < from && tokio::time::Instant::now() < deadline {
        if api.is_leaving() {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let log = api.engine.log().clone();
    api.read(move |_| {
        let head = log.head().seq;
        // Beyond the head nothing is promised: whoever asks too far comes back to where the next event will be.
        let (mut events, mut scanned, mut next) = (Vec::new(), 0, head.next());
        let (mut bytes, mut before) = (0, 0);
        let mut scan = log.scan_found(from, &wanted.filter);
        while let Some(found) = scan.next() {
            let found = found.map_err(|error| log_unreadable(&error))?;
            scanned += 1;
            if events.len() == limit || scanned > SCANNED_MAX || bytes >= RECORDS_BYTES_MAX {
                next = found.seq();
                break;
            }
            next = next.max(found.seq().next());
            let size = scan.content_bytes() - before;
            if wanted.takes_found(&found) {
                bytes += size;
                events.push(Line::of_found(&log, found));
            }
            before += size;
        }
        let body = json!({
            "count": events.len(),
            "events": events,
            "next_seq": next,
            "head_seq": head,
            "first_seq": first,
        });
        rows::json(StatusCode::OK, &body)
    })
    .await
}

/// What the parameters choose.
pub(super) fn wanted(query: &mut Fields) -> Wanted {
    let (recorded_from, recorded_before) = query.stretch();
    let filter = Filter {
        until: None,
        kinds: kinds(query),
        stream: query.text("stream"),
        actor: query.text("actor"),
        correlation: query.text("correlation_id"),
        recorded_from,
        recorded_before,
    };
    Wanted { filter, concerning: query.parsed("agent_id") }
}

fn kinds(query: &mut Fields) -> Option<Vec<Kind>> {
    let names = query.texts("kinds");
    let mut kinds = Vec::with_capacity(names.len());
    for name in &names {
        let named = Kind::named(name);
        if named.is_empty() {
            let known = || Kind::ALL.iter().map(|kind| kind.name()).chain(Family::PREFIXES.iter().copied());
            let remedy = if let Some(near) = nearest(name, known()) {
                format!("did you mean {near:?}?")
            } else {
                query.explain("kinds", known().collect::<Vec<_>>());
                "use a kind or a family: see details.kinds".to_owned()
            };
            let message = format!("{:?} is no kind of event", shortened(name));
            query.complain("kinds", Some(name), &message, &remedy);
        }
        kinds.extend(named);
    }
    kinds.sort_unstable();
    kinds.dedup();
    (!names.is_empty()).then_some(kinds)
}
