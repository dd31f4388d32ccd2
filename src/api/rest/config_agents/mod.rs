//! Agents from files: a page, one, make, change, remove, restart, take back, judge.

mod answers;
mod kept;
mod templates;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use caxton_events::log::Filter;
use caxton_events::{AgentId, Family, Seq};
use caxton_projections::conversations::Inbox;
use caxton_projections::talk::TalkPart;
use caxton_projections::view::Part;
use serde_json::{Value, json};

use super::Api;
use super::call::{Call, READ_QUERY};
use super::fields::Fields;
use super::moment::{AS_OF, AsOf, dropped, talk_context};
use super::problem::{Complaint, Problem};
use super::refusals::log_unreadable;
use super::rows;
use super::talk::past::answer;
use super::talk::registry::stats;
use crate::agents::{AgentDirectory, Earlier, Roster, report};
pub(super) use kept::KeptLists;
use kept::Shown;

use answers::{changes, detail, not_granted, summary, updated};

/// The routes below `/api/v1`.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/config-agents", get(list).post(create))
        .route("/config-agents/validate", post(validate))
        .route("/config-agents/reload", post(reload))
        .route("/config-agents/templates", get(templates::list))
        .route("/config-agents/templates/{id}", get(templates::get))
        .route("/config-agents/templates/{id}/generate", post(templates::generate))
        .route("/config-agents/{id}", get(show).put(replace).delete(remove))
        .route("/config-agents/{id}/restart", post(restart))
        .route("/config-agents/{id}/rollback", post(roll_back))
}

/// The directory, where there is one.
fn directory(api: &Api) -> Result<&AgentDirectory, Problem> {
    api.options.agents.as_ref().ok_or_else(|| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "AGENTS_NOT_RUNNING", "no agents run in this process")
            .remedy("ask a server that was started with `caxton serve`")
    })
}

/// The agent that the path names. A name that can be none is one that nobody has.
fn named(call: &Call) -> Result<AgentId, Problem> {
    let name = call.path("id");
    name.parse().map_err(|_| answers::not_found(name))
}

/// The text of the answer to a GET or the body of a request, which must be there and be no longer than a file may be.
fn content(body: &mut Fields) -> String {
    // How long it may be is the file's rule, and told with the file's other faults.
    body.required_text("content")
}

/// `GET /config-agents`: by name; `files_rejected` are the files that could not be used.
async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query =
        call.query(&[READ_QUERY, AS_OF, &["workspace", "capability", "status", "limit", "offset"]])?;
    let (min_seq, as_of) = talk_context(&call, &mut query);
    let limit = query.integer("limit", 1..=api.options.page_size_max as u64);
    let limit = limit.map_or(api.options.page_size_default, |limit| limit as usize);
    let offset = query.integer("offset", 0..=u64::from(u32::MAX)).unwrap_or(0) as usize;
    let (workspace, capability) = (query.text("workspace"), query.text("capability"));
    let words: Vec<(&str, &str)> =
        ["running", "draining", "stopped", "error"].into_iter().map(|word| (word, word)).collect();
    let status = query.choice("status", &words);
    query.finish()?;
    let moment = api.talk_moment(as_of, min_seq).await?;
    let roster = roster(&api, moment).await?;
    // The past is asked for once; what is shown of the present is asked for again and again.
    let keeps = api.options.agent_list_max_age.filter(|_| moment.is_none());
    // Noted before the list is made: what is said meanwhile makes it stale, never the other way round.
    let now = Shown { roster: Arc::clone(&roster), talk: api.engine.view().positions().get(Part::Talk).seq };
    let asked = call.page_query() + &format!("\n{limit} {offset}");
    if let Some(age) = keeps
        && let Some(body) = api.agent_lists.find(&asked, &now, age)
    {
        return Ok(rows::made(body));
    }
    let fits = |agent: &&std::sync::Arc<crate::agents::LoadedAgent>| {
        let registered = &agent.registered;
        workspace.as_deref().is_none_or(|workspace| registered.workspace.as_str() == workspace)
            && status.is_none_or(|status| registered.status.as_str() == status)
            && capability.as_deref().is_none_or(|wanted| {
                registered.capabilities.keys().any(|capability| capability.as_str() == wanted)
            })
    };
    let agents: Vec<_> = roster.agents.values().filter(fits).cloned().collect();
    let rejected: Vec<Value> = roster.rejected.iter().map(answers::rejected).collect();
    let total = agents.len();
    let page = api.read_talk(moment, TalkPart::Everything, move |state| {
        let page = agents.iter().skip(offset).take(limit);
        let shown = page.map(|agent| with_activity(summary(agent), state.conversations.inbox(&agent.name)));
        Ok(shown.collect::<Vec<Value>>())
    });
    let page = page.await?;
    let list = json!({ "agents": page, "total": total, "limit": limit, "offset": offset, "files_rejected": rejected });
    if keeps.is_none() {
        return answer(moment, list);
    }
    let body = Bytes::from(list.to_string());
    api.agent_lists.keep(&asked, now, body.clone());
    Ok(rows::made(body))
}

/// The agents of the directory at `moment`.
async fn roster(api: &Api, moment: AsOf) -> Result<Arc<Roster>, Problem> {
    let directory = directory(api)?.clone();
    let Some(moment) = moment else { return Ok(directory.roster()) };
    let log = api.engine.log().clone();
    api.read(move |_| {
        let first = log.first().map_err(|error| log_unreadable(&error.into()))?;
        if first > Seq::FIRST {
            return Err(dropped("as_of", first));
        }
        let kinds = Some(Family::kinds(&[Family::Agent]));
        let filter = Filter { until: Some(moment.seq), kinds, ..Filter::default() };
        let roster = directory.roster_of(log.scan(Seq::FIRST, &filter));
        roster.map(Arc::new).map_err(|error| log_unreadable(&error))
    })
    .await
}

/// `GET /config-agents/{id}`.
async fn show(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[READ_QUERY, AS_OF])?;
    let (min_seq, as_of) = talk_context(&call, &mut query);
    query.finish()?;
    let moment = api.talk_moment(as_of, min_seq).await?;
    let name = named(&call)?;
    let roster = roster(&api, moment).await?;
    let shown = api.read_talk(moment, TalkPart::Everything, move |state| {
        let agent = roster.agents.get(&name).ok_or_else(|| answers::not_found(name.as_str()))?;
        let inbox = state.conversations.inbox(&name);
        let mut shown = with_activity(detail(agent, &roster), inbox);
        shown["execution_stats"] = stats(inbox);
        Ok(shown)
    });
    answer(moment, shown.await?)
}

/// With when the agent last did something.
fn with_activity(mut shown: Value, inbox: Option<&Inbox>) -> Value {
    shown["last_activity"] = json!(inbox.and_then(|inbox| inbox.active_at));
    shown
}

/// `POST /config-agents`.
async fn create(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let mut body = call.members(&[&["name", "content", "auto_start", "workspace"]])?;
    let name = body.required_text("name");
    let parsed = name.parse::<AgentId>();
    if parsed.is_err() && !name.is_empty() {
        let remedy = "use 2 to 64 letters, digits, '-' or '_', beginning with a letter";
        body.complain("name", Some(&name), "is no name of an agent", remedy);
    }
    let content = content(&mut body);
    let start = body.flag("auto_start").unwrap_or(true);
    let workspace = body.text("workspace");
    let directory = directory(&api)?;
    let content = match workspace {
        Some(workspace) => in_workspace(directory, content, &workspace, &mut body),
        None => content,
    };
    body.finish()?;
    let name = parsed.map_err(|_| answers::not_found(&name))?;
    let agent = directory.create(name, content, start).await.map_err(not_granted)?;
    let mut response = rows::json(StatusCode::CREATED, &summary(&agent))?;
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/config-agents/{}", agent.name)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// The text with the workspace that the request names: added where the text names none, refused where it names another.
fn in_workspace(directory: &AgentDirectory, content: String, workspace: &str, body: &mut Fields) -> String {
    if workspace.parse::<caxton_events::WorkspaceId>().is_err() {
        let remedy = "use letters, digits, '-', '_', '.', ':' or '@'";
        body.complain("workspace", Some(workspace), "is no name of a workspace", remedy);
        return content;
    }
    let front_matter = &directory.validate(&content).judgement.front_matter;
    match front_matter.get("workspace").and_then(Value::as_str) {
        Some(own) if own == workspace => content,
        Some(own) => {
            let message = format!("is not the workspace of the text, which is {own}");
            body.complain("workspace", Some(workspace), &message, "leave it out, or change the text");
            content
        }
        None if workspace == "default" || !front_matter.is_object() => content,
        None => match content.split_once('\n') {
            Some((fence, rest)) => {
                let end = if fence.ends_with('\r') { "\r\n" } else { "\n" };
                // Quoted: a name such as `1` or `no` is a text.
                format!("{fence}\nworkspace: \"{workspace}\"{end}{rest}")
            }
            None => content,
        },
    }
}

/// `PUT /config-agents/{id}`.
async fn replace(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let name = named(&call)?;
    let mut body = call.members(&[&["content", "restart"]])?;
    let content = content(&mut body);
    let restart = body.flag("restart").unwrap_or(true);
    body.finish()?;
    let directory = directory(&api)?;
    let before = directory.roster().agents.get(&name).cloned();
    let after = directory.replace(name, content, restart).await.map_err(not_granted)?;
    let changed = before.map_or_else(Vec::new, |before| changes(directory, &before.content, &after.content));
    rows::json(StatusCode::OK, &updated(&after, "changes", &json!(changed)))
}

/// `DELETE /config-agents/{id}`.
async fn remove(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.no_body("leave it out; force is a parameter of this request")?;
    let mut query = call.query(&[&["force"]])?;
    let force = query.flag("force").unwrap_or(false);
    query.finish()?;
    directory(&api)?.remove(named(&call)?, force).await.map_err(not_granted)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /config-agents/{id}/restart`.
async fn restart(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.no_body("leave it out")?;
    call.query(&[])?.finish()?;
    let directory = directory(&api)?;
    let agent = directory.restart(named(&call)?).await.map_err(not_granted)?;
    rows::json(StatusCode::OK, &updated(&agent, "restarted_at", &json!(directory.roster().at)))
}

/// `POST /config-agents/{id}/rollback`: to `version`, to the text at `seq`, or to the one before.
async fn roll_back(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let mut body = if call.body.is_empty() {
        Fields::object(json!({}), String::new(), &[])
    } else {
        call.members(&[&["version", "seq"]])?
    };
    let (version, seq) = (body.text("version"), body.integer("seq", 1..=u64::MAX));
    let to = match (version, seq) {
        (Some(version), None) => Earlier::Version(version),
        (None, Some(seq)) => Earlier::At(Seq(seq)),
        (None, None) => Earlier::Previous,
        (Some(version), Some(_)) => {
            body.complain("seq", None, "stands beside version", "give one of them");
            Earlier::Version(version)
        }
    };
    body.finish()?;
    let agent = directory(&api)?.roll_back(named(&call)?, to).await.map_err(not_granted)?;
    rows::json(StatusCode::OK, &updated(&agent, "pinned", &json!(agent.registered.pinned.is_some())))
}

/// `POST /config-agents/reload`: looks through the directory now.
async fn reload(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.no_body("leave it out")?;
    call.query(&[])?.finish()?;
    let roster = directory(&api)?.reload().await.map_err(not_granted)?;
    let agents: Vec<Value> = roster.agents.values().map(|agent| summary(agent)).collect();
    let rejected: Vec<Value> = roster.rejected.iter().map(answers::rejected).collect();
    rows::json(
        StatusCode::OK,
        &json!({ "agents": agents, "total": agents.len(), "files_rejected": rejected, "seq": roster.seq }),
    )
}

/// `POST /config-agents/validate`: 200 with what the text says, or 422 with everything that is wrong.
async fn validate(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    call.query(&[])?.finish()?;
    let mut body = call.members(&[&["content"]])?;
    let content = content(&mut body);
    body.finish()?;
    let checked = directory(&api)?.validate(&content);
    let judgement = &checked.judgement;
    let warnings: Vec<Value> = judgement.warnings.iter().map(report::to_json).collect();
    if judgement.definition.is_some() {
        let parsed = &judgement.front_matter;
        let answer =
            json!({ "valid": true, "parsed_config": parsed, "warnings": warnings, "sha256": checked.sha256 });
        return rows::json(StatusCode::OK, &answer);
    }
    let errors: Vec<Value> = judgement.problems.iter().map(report::to_json).collect();
    let answer = json!({ "valid": false, "errors": errors, "warnings": warnings, "sha256": checked.sha256 });
    rows::json(StatusCode::UNPROCESSABLE_ENTITY, &answer)
}

/// A fault of a file as one of a request.
fn complaint(problem: &caxton_events::agent::ConfigProblem) -> Complaint {
    let place = if problem.line > 0 {
        format!(" (line {}, column {})", problem.line, problem.column)
    } else {
        String::new()
    };
    let field =
        if problem.field.is_empty() { "content".to_owned() } else { format!("content.{}", problem.field) };
    Complaint {
        field,
        code: "VALIDATION_ERROR",
        value: None,
        message: format!("{}{place}", problem.reason),
        remedy: problem.remedy.clone(),
    }
}
