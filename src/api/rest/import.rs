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
use super::entity_writes::answer;
use super::export::EXPORT_VERSION_WITHOUT_END;
use super::import_rows::{
    ENTITY_ROW, Format, Imported, RELATION_ROW, ROWS_MAX, Strategy, entity, of_row, of_rows, relation, row,
};
use super::json::parse_line;
use super::lines::{Lines, offered, patiently};
use super::problem::{Complaint, Problem};
use super::refusals;
use super::rows;
use crate::commands::{OnExisting, Refusal, RefusalCode, Write, WriteStatus, Written, WrittenKind};
use crate::engine::{Outcome, Submission, SubmitError};

const STRATEGIES: &[(&str, OnExisting)] = &[
    ("update_existing", OnExisting::Update),
    ("skip_existing", OnExisting::Skip),
    ("error_on_conflict", OnExisting::Refuse),
];
const FORMATS: &[(&str, Format)] =
    &[("caxton", Format::Caxton), ("jsonl", Format::Caxton), ("mcp", Format::Mcp)];
/// Members of an exported document. Of these the last two are read over.
const EXPORTED: &[&str] = &["entities", "relations", "export_metadata", "relations_left_out"];
/// Rows tried again at a time.
const EARLY_ROWS: usize = 256;
/// Failed lines that the answer lists.
const FAILURES_SHOWN: usize = 100;

/// `POST /memory/import`.
pub(super) async fn import(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    if call.is_lines() { by_lines(api, call).await } else { whole(api, call).await }
}

/// One JSON document, written as one command.
async fn whole(api: Api, call: Call) -> Result<Response, Problem> {
    let started = Instant::now();
    let mut query = call.query(WriteContext::QUERY)?;
    let mut body = call.members(&[CALLER, &["merge_strategy", "data"]])?;
    let context = WriteContext::take(&api, &call, &mut query, Some(&mut body));
    let strategy = Strategy::from(body.choice("merge_strategy", STRATEGIES).unwrap_or(OnExisting::Update));
    let data = body.take("data").unwrap_or_else(|| {
        body.complain(
            "data",
            None,
            "is missing",
            "add the exported document: {\"entities\": […], \"relations\": […]}",
        );
        json!({})
    });
    let mut data = body.part(data, "data", &[EXPORTED]);
    let (entities, relations) =
        (data.list("entities", false, ROWS_MAX), data.list("relations", false, ROWS_MAX));
    let entity_count = entities.len();
    let mut rows = Vec::with_capacity(entity_count + relations.len());
    for (index, item) in entities.into_iter().enumerate() {
        let mut part = data.part(item, &format!("entities[{index}]"), ENTITY_ROW);
        rows.push(entity(&mut part, &context, strategy));
        data.absorb(part);
    }
    for (index, item) in relations.into_iter().enumerate() {
        let mut part = data.part(item, &format!("relations[{index}]"), RELATION_ROW);
        rows.push(relation(&mut part, &context, strategy));
        data.absorb(part);
    }
    if rows.is_empty() {
        data.complain("entities", None, "and relations are empty", "give at least one entity or relation");
    }
    body.absorb(data);
    body.absorb(query);
    body.finish()?;
    // Of each write its row, and the observations of the row that stand before its own.
    let (mut writes, mut places) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for (index, row) in rows.into_iter().enumerate() {
        let is_there = row.is_there(&api).await?;
        for (before, write) in row.writes(is_there) {
            writes.push(write);
            places.push((index, before));
        }
    }
    let mut outcome =
        api.write(&context, writes, true).await.map_err(|error| not_written(error, &places, entity_count))?;
    let mut report = Report::default();
    report.note(&outcome);
    let results = std::mem::take(&mut outcome.results);
    for result in of_rows(places.iter().map(|(_, before)| *before), results) {
        report.count(result);
    }
    let body = report.body(started);
    answer(StatusCode::CREATED, &body, &outcome, None)
}

/// Why a document was not written, told of its rows.
fn not_written(error: SubmitError, places: &[(usize, usize)], entity_count: usize) -> Problem {
    let row_of = |index: usize| places.get(index).map_or(index, |(row, _)| *row);
    let place = |index: usize| match row_of(index).checked_sub(entity_count) {
        Some(relation) => format!("data.relations[{relation}]."),
        None => format!("data.entities[{}].", row_of(index)),
    };
    let SubmitError::Refused(refused) = error else {
        return refusals::not_submitted(error, &place);
    };
    let refused = refused.into_iter().map(|refusal| {
        let before = places.get(refusal.index).map_or(0, |(_, before)| *before);
        of_row(refusal, before)
    });
    refusals::refused(refused.collect(), &place)
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
    let strategy = match (strategy, format) {
        (Some(asked), _) => Strategy::from(asked),
        (None, Format::Caxton) => Strategy::from(OnExisting::Update),
        (None, Format::Mcp) => Strategy::MCP,
    };
    whole_lines(&call.body)?;
    let (mut lines, mut report) = (Lines::of(call.body.clone()), Report::default());
    let (mut early, mut chunk) = (Vec::new(), 0);
    loop {
        let page = lines.chunk();
        if page.is_empty() {
            break;
        }
        let (mut rows, mut large) = (Vec::with_capacity(page.len()), Vec::new());
        for (number, line) in page {
            match row(&line, &context, strategy, format) {
                Ok(Some(row)) if row.is_large() => large.push((number, row)),
                Ok(Some(row)) => rows.push((number, row.write)),
                Ok(None) => (),
                Err(complaint) => report.fail(number, &complaint, StatusCode::UNPROCESSABLE_ENTITY),
            }
        }
        // First, so that relations beside them find them.
        for row in large {
            written_alone(&api, &context, row, &mut report).await?;
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
            report.stop(refusals::not_submitted(error, &refusals::whole), &numbers)?;
            Ok(Vec::new())
        }
    }
}

/// Writes an entity that takes several writes as a command of its own, whole or not at all.
async fn written_alone(
    api: &Api,
    context: &WriteContext,
    (number, row): (usize, Imported),
    report: &mut Report,
) -> Result<(), Problem> {
    let writes = match row.is_there(api).await {
        Ok(is_there) => row.writes(is_there),
        Err(problem) => return report.stop(problem, &[number]),
    };
    let (before, writes): (Vec<usize>, Vec<Write>) = writes.into_iter().unzip();
    // Not the number of a chunk: rows that need no command of their own keep theirs.
    let name = format!("L{number}");
    let offer = || api.engine.submit(Submission { atomic: true, ..context.chunk(&name, writes.clone()) });
    match patiently(offer, |error| matches!(error, SubmitError::Overloaded)).await {
        Ok(mut outcome) => {
            outcome.results = of_rows(before.into_iter(), std::mem::take(&mut outcome.results));
            report.chunk(outcome, &[number]);
            Ok(())
        }
        Err(SubmitError::Refused(refused)) => {
            if let Some(refusal) = refused.into_iter().next() {
                let before = before.get(refusal.index).copied().unwrap_or(0);
                report.refuse(number, of_row(refusal, before));
            }
            Ok(())
        }
        Err(error) => report.stop(refusals::not_submitted(error, &refusals::whole), &[number]),
    }
}

/// Refuses lines that were cut short, before any of them is written: the last one ends in the middle, or they are an export
/// and lack the last one, which counts its rows.
fn whole_lines(body: &Bytes) -> Result<(), Problem> {
    let lines = (1_u64..).zip(body.split(|byte| *byte == b'\n'));
    let mut lines = lines.filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace));
    // What is no line of an import is none of an export either: it is refused with the others.
    let parsed = |line: &[u8]| parse_line(line).unwrap_or_default();
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
                Err(refusal) => self.refuse(*number, refusal),
            }
        }
    }

    fn refuse(&mut self, line: usize, refusal: Refusal) {
        let status = refusals::status_of(refusal.code);
        self.fail(line, &refusals::complaint(refusal, &refusals::whole), status);
    }

    /// Notes that lines could not be written. What was written before stays, and the answer says how far it came; where
    /// nothing was, the problem is the answer.
    fn stop(&mut self, problem: Problem, lines: &[usize]) -> Result<(), Problem> {
        if self.written() == 0 {
            return Err(problem);
        }
        for line in lines {
            self.fail(*line, &problem.as_complaint(), problem.status());
        }
        Ok(())
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
