//! Inboxes: what waits, waiting for more, leases of competing consumers, and being done.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::{AgentId, Seq};
use serde_json::{Value, json};

use super::super::Api;
use super::super::call::{Call, READ_QUERY};
use super::super::fields::Fields;
use super::super::problem::Problem;
use super::super::refusals::whole;
use super::super::rows;
use super::super::stream::{Source, answer, last_event_id};
use super::shown::message;
use super::{inbox_owner, not_done, seqs};
use crate::agents::AgentRuntime;
use crate::commands::talk::Upkeep;
use crate::engine::inboxes::LEASES_MAX;

const LIMIT_DEFAULT: u64 = 50;
/// Longest lease and longest wait that can be asked for, in seconds.
const SECONDS_MAX: u64 = 3_600;
const LEASE_SECONDS_DEFAULT: u64 = 60;
/// A waiting request looks again after so long: leases end, and the server may stop.
const LOOK: Duration = Duration::from_millis(250);

/// Who reads an inbox.
struct Reading {
    agent: AgentId,
    after: Seq,
    limit: usize,
    wait: Duration,
    /// The consumer, and how long it wants to keep what it gets.
    consumer: Option<(String, Duration)>,
}

impl Reading {
    fn take(agent: AgentId, query: &mut Fields, wait_max: Duration, head: Seq) -> Self {
        let after = query.integer("after", 0..=u64::MAX);
        within(query, "after", after.map(Seq), head);
        let limit = query.integer("limit", 1..=LEASES_MAX as u64).unwrap_or(LIMIT_DEFAULT) as usize;
        let wait = Duration::from_secs(query.integer("wait", 0..=SECONDS_MAX).unwrap_or(0));
        let lease = query.integer("lease", 1..=SECONDS_MAX);
        let consumer = query.text("consumer");
        if consumer.as_ref().is_some_and(|name| name.is_empty() || name.len() > 128) {
            query.complain("consumer", None, "must have 1 to 128 bytes", "give each worker a short name");
        }
        if consumer.is_none() && lease.is_some() {
            query.complain(
                "consumer",
                None,
                "is missing beside lease",
                "name the worker that takes the lease",
            );
        }
        if consumer.is_some() && after.is_some() {
            let remedy = "leave it out: a lease gives what nobody else works on";
            query.complain("after", None, "stands beside consumer", remedy);
        }
        let lease = Duration::from_secs(lease.unwrap_or(LEASE_SECONDS_DEFAULT));
        Self {
            agent,
            after: Seq(after.unwrap_or(0)),
            limit,
            wait: wait.min(wait_max),
            consumer: consumer.map(|name| (name, lease)),
        }
    }

    /// What there is for this reader now.
    fn now(&self, api: &Api) -> Vec<Seq> {
        match &self.consumer {
            Some((name, lease)) => api.engine.lease(&self.agent, name, self.limit, *lease),
            None => api.engine.inbox(&self.agent, self.after, self.limit),
        }
    }

    /// What there is once there is something, or the wait is over.
    async fn found(&self, api: &Api) -> Vec<Seq> {
        let deadline = tokio::time::Instant::now() + self.wait;
        loop {
            let newest = newest(api, &self.agent).max(self.after);
            let found = self.now(api);
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if !found.is_empty() || left.is_zero() || api.is_leaving() {
                return found;
            }
            api.engine.wait_inbox(&self.agent, newest, left.min(LOOK)).await;
        }
    }
}

/// A place behind the end of the log is no place of a message: who waits there would pass over what comes.
fn within(query: &mut Fields, name: &str, after: Option<Seq>, head: Seq) {
    if let Some(after) = after.filter(|after| *after > head) {
        let message = format!("is beyond the end of the log, {}", head.0);
        query.complain(name, Some(&after.0.to_string()), &message, "give next_after as an answer gave it");
    }
}

/// Where the last message to the agent stands.
fn newest(api: &Api, agent: &AgentId) -> Seq {
    let state = api.engine.view().talk().read();
    state.conversations.inbox(agent).and_then(|inbox| inbox.messages.last()).unwrap_or(Seq::ZERO)
}

/// `GET /agents/{id}/inbox`: messages the agent is not done with, in their order.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[READ_QUERY, &["after", "limit", "wait", "consumer", "lease"]])?;
    let min_seq = call.min_seq(&mut query);
    api.talk_caught_up(min_seq).await?;
    let agent = inbox_owner(&api, &call)?;
    let head = api.engine.log().head().seq;
    let reading = Reading::take(agent, &mut query, api.options.wait_max(), head);
    query.finish()?;
    let found = reading.found(&api).await;
    let engine = api.engine.clone();
    api.read(move |_| {
        let records = engine.records(&found).map_err(|error| not_done(error, &whole))?;
        let messages: Vec<Value> = records.iter().filter_map(message).collect();
        // Of large messages fewer come at a time. What a consumer does not get now it gets when it asks again.
        let last = records.last().map(|record| record.seq).or(found.last().copied());
        let (waiting, done_through) = {
            let state = engine.view().talk().read();
            let inbox = state.conversations.inbox(&reading.agent);
            inbox.map_or((0, Seq::ZERO), |inbox| (inbox.waiting(), inbox.low))
        };
        let mut body = json!({
            "agent_id": reading.agent,
            "count": messages.len(),
            "messages": messages,
            "next_after": last.unwrap_or(reading.after),
            "waiting": waiting,
            "done_through": done_through,
        });
        if let Some((name, lease)) = &reading.consumer {
            body["consumer"] = json!(name);
            body["lease_seconds"] = json!(lease.as_secs());
        }
        rows::json(StatusCode::OK, &body)
    })
    .await
}

/// `GET /agents/{id}/inbox/stream`: messages behind `Last-Event-ID` or `after` that the agent is not done with, as they
/// come; with `pieces=true` also what is said to it while it is being made.
pub(super) async fn stream(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[&["after", "pieces"]])?;
    let agent = inbox_owner(&api, &call)?;
    let after = query.integer("after", 0..=u64::MAX).map(Seq);
    let wants_pieces = query.flag("pieces").unwrap_or(false);
    let resumed = last_event_id(&call, &mut query);
    let head = api.engine.log().head().seq;
    within(&mut query, "after", after, head);
    within(&mut query, "Last-Event-ID", resumed, head);
    query.finish()?;
    let pieces = api.options.turns.as_ref().filter(|_| wants_pieces).map(AgentRuntime::pieces);
    Ok(answer(api, Source::Inbox(agent), resumed.or(after).unwrap_or(Seq::ZERO), pieces))
}

/// `POST /agents/{id}/inbox/ack`: the agent is done with everything up to `through`, and with `seqs`.
pub(super) async fn acknowledge(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let agent = inbox_owner(&api, &call)?;
    let mut body = call.members(&[&["through", "seqs"]])?;
    if !body.has("through") && !body.has("seqs") {
        body.complain("through", None, "is missing", "give through, or seqs, or both");
    }
    let through = Seq(body.integer("through", 0..=u64::MAX).unwrap_or(0));
    let mut also = seqs(&mut body, "seqs");
    body.finish()?;
    also.sort_unstable();
    also.dedup();
    let wish = Upkeep::Acknowledge { agent: agent.clone(), through, also };
    let done = api.engine.upkeep(&agent, wish).await.map_err(|error| not_done(error, &whole))?;
    let (waiting, low) = {
        let state = api.engine.view().talk().read();
        let inbox = state.conversations.inbox(&agent);
        inbox.map_or((0, Seq::ZERO), |inbox| (inbox.waiting(), inbox.low))
    };
    let body = json!({
        "agent_id": agent,
        "status": if done.record.is_some() { "acknowledged" } else { "unchanged" },
        "done_through": low,
        "waiting": waiting,
        "seq": done.seq,
    });
    rows::json(StatusCode::OK, &body)
}

/// `POST /agents/{id}/inbox/release`: a consumer gives messages back before its lease is over.
pub(super) async fn release(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let agent = inbox_owner(&api, &call)?;
    let mut body = call.members(&[&["consumer", "seqs"]])?;
    let consumer = body.required_text("consumer");
    if !body.has("seqs") {
        body.complain("seqs", None, "is missing", "give the seq of each message to give back");
    }
    let seqs = seqs(&mut body, "seqs");
    body.finish()?;
    let released = api.engine.release(&agent, &consumer, &seqs);
    rows::json(StatusCode::OK, &json!({"agent_id": agent, "consumer": consumer, "released": released}))
}
