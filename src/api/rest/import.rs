//! `POST /memory/import`: what an export wrote, as one JSON document (all or nothing) or JSONL (each line for itself).

use std::time::Instant;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::Seq;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::Api;
use super::batch::{Tally, failed, millis};
use super::call::{Call, WriteContext};
use super::caller::CALLER;
use super::entity_writes::{ENTITY, OBSERVATION, answer, new_entity};
use super::export::EXPORT_VERSION_WITHOUT_END;
use super::fields::Fields;
use super::json::parse_line;
use super::lines::{Lines, offered};
use super::mcp_lines;
use super::problem::{Complaint, Problem};
use super::refusals;
use super::relations::{RELATION, new_relation};
use super::rows;
use crate::commands::write::NewRelation;
use crate::commands::{
    EntityRef, OnExisting, Refusal, RefusalCode, Write, WriteStatus, Written, WrittenKind,
};
use crate::engine::Outcome;

/// Members that an export adds to its rows; they are read over, because numbers and times are drawn anew.
const EXPORTED: &[&str] = &[
    "type",
    "entity_id",
    "memory_scope",
    "agent_id",
    "workspace",
    "version",
    "created_at",
    "updated_at",
    "observation_count",
    "seq",
    "embedding",
    "relation_id",
    "from_entity_id",
    "to_entity_id",
    "created_by",
    "observation_id",
    "updated_seq",
    "bidirectional",
    "status",
];
const STRATEGIES: &[(&str, OnExisting)] = &[
    ("update_existing", OnExisting::Update),
    ("skip_existing", OnExisting::Skip),
    ("error_on_conflict", OnExisting::Refuse),
];
const FORMATS: &[(&str, Format)] =
    &[("caxton", Format::Caxton), ("jsonl", Format::Caxton), ("mcp", Format::Mcp)];
/// Rows tried again at a time.
const EARLY_ROWS: usize = 256;
/// Failed lines that the answer lists.
const FAILURES_SHOWN: usize = 100;
/// Most rows of one JSON document.
const ROWS_MAX: usize = 1_000_000;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// As an export of this server.
    Caxton,
    /// As the memory of the MCP reference server.
    Mcp,
}

/// `POST /memory/import`.
pub(super) async fn import(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    if call.is_lines() { by_lines(api, call).await } else { whole(api, call).await }
}

fn entity(fields: &mut Fields, context: &WriteContext, strategy: OnExisting) -> Write {
    let mut wish = new_entity(fields, context.scope.clone(), &[OBSERVATION, EXPORTED]);
    wish.on_existing = strategy;
    Write::CreateEntity(wish)
}

/// Ends are names, whatever they look like: the numbers of an export mean nothing here.
fn relation(fields: &mut Fields, context: &WriteContext, strategy: OnExisting) -> Write {
    let ends = super::caller::from_upwards(&context.scope, &context.caller.visible());
    let named = |fields: &mut Fields, name: &str| fields.peek_text(name).unwrap_or_default();
    let (from, to) = (named(fields, "from_entity"), named(fields, "to_entity"));
    let wish = NewRelation {
        from: EntityRef::Named { name: from, scopes: ends.clone() },
        to: EntityRef::Named { name: to, scopes: ends },
        on_existing: strategy,
        ..new_relation(fields, context)
    };
    Write::CreateRelation(wish)
}

/// One JSON document, written as one command.
async fn whole(api: Api, call: Call) -> Result<Response, Problem> {
    let started = Instant::now();
    let mut query = call.query(WriteContext::QUERY)?;
    let mut body = call.members(&[CALLER, &["merge_strategy", "data"]])?;
    let context = WriteContext::take(&api, &call, &mut query, Some(&mut body));
    let strategy = body.choice("merge_strategy", STRATEGIES).unwrap_or(OnExisting::Update);
    let data = body.take("data").unwrap_or_else(|| {
        body.complain(
            "data",
            None,
            "is missing",
            "add the exported document: {\"entities\": […], \"relations\": […]}",
        );
        json!({})
    });
    let mut data = body.part(data, "data", &[&["entities", "relations", "export_metadata"]]);
    let (entities, relations) =
        (data.list("entities", false, ROWS_MAX), data.list("relations", false, ROWS_MAX));
    let entity_count = entities.len();
    let mut writes = Vec::with_capacity(entity_count + relations.len());
    for (index, item) in entities.into_iter().enumerate() {
        let mut part = data.part(item, &format!("entities[{index}]"), &[ENTITY, EXPORTED]);
        writes.push(entity(&mut part, &context, strategy));
        data.absorb(part);
    }
    for (index, item) in relations.into_iter().enumerate() {
        let mut part = data.part(item, &format!("relations[{index}]"), &[RELATION, EXPORTED]);
        writes.push(relation(&mut part, &context, strategy));
        data.absorb(part);
    }
    if writes.is_empty() {
        data.complain("entities", None, "and relations are empty", "give at least one entity or relation");
    }
    body.absorb(data);
    body.absorb(query);
    body.finish()?;
    let place = |index: usize| match index.checked_sub(entity_count) {
        Some(relation) => format!("data.relations[{relation}]."),
        None => format!("data.entities[{index}]."),
    };
    let outcome = api.write(&context, writes, true).await;
    let outcome = outcome.map_err(|error| refusals::not_submitted(error, &place))?;
    let mut report = Report::default();
    report.note(&outcome);
    for result in &outcome.results {
        report.count(result.clone());
    }
    let body = report.body(started);
    answer(StatusCode::CREATED, &body, &outcome, None)
}

/// One row a line, written a chunk at a time; a line that fails does not stop the others. A relation whose ends are not
/// there yet is tried again behind the last line: they may stand further down.
async fn by_lines(api: Api, call: Call) -> Result<Response, Problem> {
    let started = Instant::now();
    let own: &[&str] = &["merge_strategy", "format"];
    let mut query = call.query(&[WriteContext::QUERY[0], WriteContext::QUERY[1], own])?;
    let context = WriteContext::take(&api, &call, &mut query, None);
    let strategy = query.choice("merge_strategy", STRATEGIES);
    let format = query.choice("format", FORMATS).unwrap_or(Format::Caxton);
    query.finish()?;
    let strategy = strategy.unwrap_or(match format {
        Format::Caxton => OnExisting::Update,
        // Its rows say nothing of metadata, confidence and validity, so these stay as they are.
        Format::Mcp => OnExisting::Merge,
    });
    whole_lines(&call.body)?;
    let (mut lines, mut report) = (Lines::of(call.body.clone()), Report::default());
    let (mut early, mut chunk) = (Vec::new(), 0);
    loop {
        let page = lines.chunk();
        if page.is_empty() {
            break;
        }
        let mut rows = Vec::with_capacity(page.len());
        for (number, line) in page {
            match row(&line, &context, strategy, format) {
                Ok(Some(write)) => rows.push((number, write)),
                Ok(None) => (),
                Err(complaint) => report.fail(number, &complaint, StatusCode::UNPROCESSABLE_ENTITY),
            }
        }
        early.extend(written(&api, &context, (chunk, true), rows, &mut report).await?);
        chunk += 1;
    }
    while !early.is_empty() {
        let rest = early.split_off(early.len().min(EARLY_ROWS));
        written(&api, &context, (chunk, false), early, &mut report).await?;
        (early, chunk) = (rest, chunk + 1);
    }
    if report.written() == 0 && report.failed == 0 {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "VALIDATION_ERROR",
            "there is nothing to import",
        )
        .field("body")
        .remedy("send one entity or relation a line"));
    }
    let status = match (report.failed, report.written()) {
        (0, _) => StatusCode::CREATED,
        (_, 0) => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::MULTI_STATUS,
    };
    rows::json(status, &report.body(started))
}

/// Writes the rows of a chunk and gives back the relations whose ends are not there, when these may still come.
async fn written(
    api: &Api,
    context: &WriteContext,
    (chunk, may_wait): (usize, bool),
    rows: Vec<(usize, Write)>,
    report: &mut Report,
) -> Result<Vec<(usize, Write)>, Problem> {
    let (numbers, writes): (Vec<usize>, Vec<Write>) = rows.into_iter().unzip();
    if writes.is_empty() {
        return Ok(Vec::new());
    }
    match offered(api, context, chunk, writes.clone()).await {
        Ok(mut outcome) => {
            let results = std::mem::take(&mut outcome.results);
            let (mut early, mut done) = (Vec::new(), Vec::new());
            for ((result, number), write) in results.into_iter().zip(numbers).zip(writes) {
                let waits = may_wait
                    && matches!(write, Write::CreateRelation(_))
                    && matches!(&result, Err(refusal) if refusal.code == RefusalCode::EntityNotFound);
                if waits {
                    early.push((number, write));
                } else {
                    outcome.results.push(result);
                    done.push(number);
                }
            }
            report.chunk(outcome, &done);
            Ok(early)
        }
        Err(error) => {
            let problem = refusals::not_submitted(error, &refusals::whole);
            // What was written before stays: the answer says how far it came.
            if report.written() == 0 {
                return Err(problem);
            }
            for number in numbers {
                report.fail(number, &problem.as_complaint(), problem.status());
            }
            Ok(Vec::new())
        }
    }
}

/// Refuses lines that were cut short, before any of them is written: the last one ends in the middle, or they are an export
/// and lack the last one, which counts its rows.
fn whole_lines(body: &Bytes) -> Result<(), Problem> {
    let lines = (1_u64..).zip(body.split(|byte| *byte == b'\n'));
    let mut lines = lines.filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace));
    let parsed = |line: &[u8]| serde_json::from_slice::<Value>(line).unwrap_or_default();
    let Some(first) = lines.next() else { return Ok(()) };
    let (rows, (number, last)) = lines.fold((0_u64, first), |(rows, _), line| (rows + 1, line));
    let cut = |detail: String, remedy: &str| {
        Problem::new(StatusCode::BAD_REQUEST, "BODY_INCOMPLETE", format!("{detail}; nothing was written"))
            .field("body")
            .detail("line", number)
            .remedy(remedy)
    };
    if !body.ends_with(b"\n") && serde_json::from_slice::<IgnoredAny>(last).is_err_and(|error| error.is_eof())
    {
        let detail = format!("line {number}, the last one, ends in the middle");
        return Err(cut(detail, "send all of it; or take the half line off to import what is there"));
    }
    let head = parsed(first.1);
    let version = head["export_metadata"]["version"].as_str();
    if version.is_none_or(|version| version == EXPORT_VERSION_WITHOUT_END) {
        return Ok(());
    }
    let end = Some(parsed(last)).filter(|end| end["type"] == "end");
    let counted = |end: &Value| end["entities"].as_u64()?.checked_add(end["relations"].as_u64()?);
    let detail = match end.as_ref().map(counted) {
        Some(counted) if counted == rows.checked_sub(1) => return Ok(()),
        Some(Some(counted)) => {
            let found = rows.saturating_sub(1);
            format!("the export holds {found} rows, its last line, {number}, counts {counted}")
        }
        Some(None) => format!("the last line of the export, {number}, counts no rows"),
        None => format!("the export was cut short: the line of type end is missing behind line {number}"),
    };
    Err(cut(detail, "export again; or remove the lines of type metadata and end to import what is there"))
}

/// One line as a write; `None` for the lines around an export's rows.
fn row(
    line: &Bytes,
    context: &WriteContext,
    strategy: OnExisting,
    format: Format,
) -> Result<Option<Write>, Complaint> {
    let mut value = parse_line(line).map_err(|problem| problem.as_complaint())?;
    if format == Format::Mcp {
        value = mcp_lines::translated(value)?;
    }
    let kind = value.get("type").and_then(Value::as_str).map(str::to_owned);
    let is_relation = match kind.as_deref() {
        Some("metadata" | "end") => return Ok(None),
        Some("relation") => true,
        Some("entity") => false,
        Some(_) | None => value.get("relation_type").is_some(),
    };
    let known: &[&[&str]] = if is_relation { &[RELATION, EXPORTED] } else { &[ENTITY, EXPORTED] };
    let mut fields = Fields::object(value, String::new(), known);
    fields.choice("type", &[("entity", ()), ("relation", ()), ("metadata", ()), ("end", ())]);
    let write = if is_relation {
        relation(&mut fields, context, strategy)
    } else {
        entity(&mut fields, context, strategy)
    };
    fields.into_complaint().map_or(Ok(Some(write)), Err)
}

/// What became of the rows.
#[derive(Default)]
struct Report {
    /// Reads that include this see everything.
    last: Seq,
    /// The last record that the import wrote; `None` while it wrote none.
    last_written: Option<Seq>,
    entities: Tally,
    relations: Tally,
    failed: usize,
    failures: Vec<Map<String, Value>>,
}

impl Report {
    /// Notes how far the log is behind a command, and whether that is of this import: behind one that writes nothing the last
    /// record is another's.
    fn note(&mut self, outcome: &Outcome) {
        let writes = |written: &Written| {
            matches!(written.status, WriteStatus::Created | WriteStatus::Updated | WriteStatus::Removed)
        };
        if outcome.results.iter().flatten().any(writes) {
            self.last_written = Some(outcome.last);
        }
        self.last = outcome.last;
    }

    fn count(&mut self, result: Result<Written, Refusal>) {
        let tally = match &result {
            Ok(written) if written.kind == WrittenKind::Relation => &mut self.relations,
            _ => &mut self.entities,
        };
        tally.item(Map::new(), result, &refusals::whole);
    }

    fn chunk(&mut self, outcome: Outcome, numbers: &[usize]) {
        self.note(&outcome);
        for (result, number) in outcome.results.into_iter().zip(numbers) {
            match result {
                Ok(written) => self.count(Ok(written)),
                Err(refusal) => {
                    let status = refusals::status_of(refusal.code);
                    self.fail(*number, &refusals::complaint(refusal, &refusals::whole), status);
                }
            }
        }
    }

    fn fail(&mut self, line: usize, complaint: &Complaint, status: StatusCode) {
        self.failed += 1;
        if self.failures.len() < FAILURES_SHOWN {
            let mut item = Map::new();
            item.insert("line".to_owned(), json!(line));
            self.failures.push(failed(item, complaint, status));
        }
    }

    fn written(&self) -> usize {
        [&self.entities, &self.relations]
            .iter()
            .map(|tally| tally.created + tally.updated + tally.unchanged)
            .sum()
    }

    fn body(&self, started: Instant) -> Value {
        let existed = |tally: &Tally| tally.updated + tally.unchanged;
        json!({
            "import_id": self.last_written.map(|seq| format!("import_{}", seq.0)),
            "entities_imported": self.entities.created,
            "entities_updated": self.entities.updated,
            "entities_skipped": self.entities.unchanged,
            "relations_imported": self.relations.created,
            "relations_updated": self.relations.updated,
            "relations_skipped": self.relations.unchanged,
            "conflicts_resolved": existed(&self.entities) + existed(&self.relations),
            "failed": self.failed,
            "errors": self.failures,
            "processing_time_ms": millis(started),
            "seq": self.last,
        })
    }
}
