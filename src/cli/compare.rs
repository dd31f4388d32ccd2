//! `caxton memory compare-search`: the same questions asked of two memories, and how their answers differ.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::args::{Common, CompareSearch, Mode};
use super::backend::{Backend, Http, Local, Request};
use super::failure::{Exit, Failure};
use super::output::{Output, cell, counted, items, shortened};
use super::progress::Progress;
use super::transfer;

/// Longest file of questions that is read, in bytes.
const QUERIES_BYTES_MAX: u64 = 16 << 20;

/// How often it is looked whether a memory has read its log.
const LOOK: Duration = Duration::from_millis(100);

/// How all answers differ.
#[derive(Debug, Serialize)]
struct Comparison {
    /// Questions asked.
    queries: usize,
    /// Hits compared for each.
    k: u16,
    /// What ranked in this memory: one without a model is searched by words.
    mode: String,
    /// What ranked in the other.
    other_mode: String,
    /// Mean share of hits that both memories found, 0 to 1.
    mean_overlap: f64,
    /// Questions whose hits are the same in the same order.
    same: usize,
    results: Vec<QueryDifference>,
}

/// How the answers to one question differ.
#[derive(Debug, Serialize, PartialEq)]
struct QueryDifference {
    query: String,
    /// Share of hits that both found among those that either could have, 0 to 1; 1 when neither found any.
    overlap: f64,
    /// Hits with another place or in one answer alone, by their place in the first answer, then in the other.
    changes: Vec<Change>,
}

/// A hit whose place is not the same.
#[derive(Debug, Serialize, PartialEq)]
struct Change {
    entity_name: String,
    /// Its place in this memory's answer, from 1; absent when it is not in it.
    rank: Option<usize>,
    /// Its place in the other's.
    other_rank: Option<usize>,
    score: Option<f64>,
    other_score: Option<f64>,
}

/// One hit of an answer.
#[derive(Debug, Clone, PartialEq)]
struct Hit {
    /// Name within a scope, which both memories share where they share a past.
    key: (String, String),
    score: Option<f64>,
}

/// What one memory answered.
#[derive(Default)]
struct Answers {
    mode: String,
    /// The hits of each question.
    hits: Vec<Vec<Hit>>,
}

/// Asks both memories and shows how they differ.
pub(super) fn run(what: &CompareSearch, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let queries = queries(what)?;
    // One after the other: an engine of this process that is no more needed gives its memory back.
    let ask_all = |backend: &Backend, name: &str| -> Result<Answers, Failure> {
        wait(backend, name, what.mode, common)?;
        let mut answers = Answers::default();
        for query in &queries {
            let answer = ask(backend, what, query)?;
            answers.mode = cell(&answer, "mode");
            answers.hits.push(items(&answer, "results").iter().map(hit).collect());
        }
        Ok(answers)
    };
    let ours = ask_all(&Backend::open(common, false)?, "this memory")?;
    let theirs = ask_all(&other(what, common)?, &what.with)?;
    let mut results = Vec::with_capacity(queries.len());
    for ((query, ours), theirs) in queries.into_iter().zip(&ours.hits).zip(&theirs.hits) {
        results.push(difference(query, ours, theirs));
    }
    let count = results.len();
    let mean_overlap = results.iter().map(|result| result.overlap).sum::<f64>() / count.max(1) as f64;
    let same = results.iter().filter(|result| result.changes.is_empty()).count();
    let (mode, other_mode) = (ours.mode, theirs.mode);
    let comparison =
        Comparison { queries: count, k: what.limit, mode, other_mode, mean_overlap, same, results };
    if out.is_json() { out.json(&comparison) } else { show(&comparison, out) }
}

/// The questions, a line each; empty lines are passed over.
fn queries(what: &CompareSearch) -> Result<Vec<String>, Failure> {
    let text = read_whole(transfer::input(&what.queries)?, &what.queries)?;
    let queries: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if queries.is_empty() {
        let message = format!("{} has no question; write one a line", what.queries.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(queries)
}

/// All that there is to read; one byte more than is taken shows that there is more.
fn read_whole(from: impl Read, path: &Path) -> Result<String, Failure> {
    let mut text = Vec::new();
    let read = from.take(QUERIES_BYTES_MAX + 1).read_to_end(&mut text);
    read.map_err(|error| Failure::file("read", path, &error))?;
    if text.len() as u64 > QUERIES_BYTES_MAX {
        let message = format!(
            "--queries: {} has more than {QUERIES_BYTES_MAX} bytes; ask in several runs, with a part of the questions each",
            transfer::named(path)
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    String::from_utf8(text).map_err(|_| {
        let message = format!("--queries: {} is not UTF-8; write one question a line", transfer::named(path));
        Failure::new(Exit::Usage, message)
    })
}

/// The memory to compare with: a server, or a stopped directory.
fn other(what: &CompareSearch, common: &Common) -> Result<Backend, Failure> {
    if what.with.starts_with("http://") || what.with.starts_with("https://") {
        return Ok(Backend::Http(Http::new(&what.with, common.api_key.clone())?));
    }
    let theirs = Common {
        data_dir: Some(what.with.clone().into()),
        config: what.with_config.clone().or_else(|| common.config.clone()),
        model_path: what.with_model_path.clone().or_else(|| common.model_path.clone()),
        keyword_only: common.keyword_only || what.with_keyword_only,
        url: None,
        ..common.clone()
    };
    if let Some(server) = super::backend::running(&theirs)? {
        return Ok(Backend::Http(server));
    }
    Ok(Backend::Local(Box::new(Local::open(&theirs, false)?)))
}

/// Waits until a memory has read its log. The vectors of a new fork are not there yet: it would be compared by its words alone.
fn wait(backend: &Backend, name: &str, mode: Option<Mode>, common: &Common) -> Result<(), Failure> {
    let mut progress = Progress::new(format!("waiting for {name}"), "events", !common.no_progress);
    let look = || backend.ask(Request::get("/api/v1/projections"));
    caught_up(name, mode, look, |at, of| {
        progress.set(at, of);
        thread::sleep(LOOK);
    })
}

/// Looks until the projections that rank include what the log held at the first look, with a `pause` between.
fn caught_up(
    name: &str,
    mode: Option<Mode>,
    mut look: impl FnMut() -> Result<Value, Failure>,
    mut pause: impl FnMut(u64, u64),
) -> Result<(), Failure> {
    let checkpoint = |row: &Value| row["checkpoint"].as_u64().unwrap_or_default();
    let mut head = None;
    loop {
        let state = look()?;
        let goal = *head.get_or_insert_with(|| state["head_seq"].as_u64().unwrap_or_default());
        let ranks = |row: &&Value| match cell(row, "name").as_str() {
            "graph" => true,
            "vectors" => mode != Some(Mode::Keyword) && cell(row, "status") != "disabled",
            _ => false,
        };
        let behind = items(&state, "projections").iter().filter(ranks).filter(|row| checkpoint(row) < goal);
        let Some(row) = behind.min_by_key(|row| checkpoint(row)) else { return Ok(()) };
        if cell(row, "status") == "stopped" {
            let message = format!(
                "the projection {} of {name} has stopped at #{} of #{goal}: {}; a comparison would tell what it lacks as a \
                 difference",
                cell(row, "name"),
                checkpoint(row),
                cell(row, "error")
            );
            return Err(Failure::new(Exit::Failed, message));
        }
        pause(checkpoint(row), goal);
    }
}

fn ask(backend: &Backend, what: &CompareSearch, query: &str) -> Result<Value, Failure> {
    let request = Request::get("/api/v1/memory/search")
        .with("query", query)
        .with("limit", &what.limit.to_string())
        .with_some("mode", what.mode.map(Mode::as_str))
        .from(&what.who);
    backend.ask(request)
}

fn hit(value: &Value) -> Hit {
    let key = (cell(value, "memory_scope"), cell(value, "entity_name"));
    Hit { key, score: value.get("score").and_then(Value::as_f64) }
}

/// Compares two answers.
fn difference(query: String, ours: &[Hit], theirs: &[Hit]) -> QueryDifference {
    type Place = (usize, Option<f64>);
    type Places = (Option<Place>, Option<Place>);
    let mut places: BTreeMap<&(String, String), Places> = BTreeMap::new();
    for (rank, hit) in (1..).zip(ours) {
        places.entry(&hit.key).or_default().0 = Some((rank, hit.score));
    }
    for (rank, hit) in (1..).zip(theirs) {
        places.entry(&hit.key).or_default().1 = Some((rank, hit.score));
    }
    let both = places.values().filter(|(ours, theirs)| ours.is_some() && theirs.is_some()).count();
    let most = ours.len().max(theirs.len());
    let overlap = if most == 0 { 1.0 } else { both as f64 / most as f64 };
    let rank = |place: &Option<Place>| place.map(|(rank, _)| rank);
    let moved = places.into_iter().filter(|(_, (ours, theirs))| rank(ours) != rank(theirs));
    let mut changes: Vec<Change> = moved
        .map(|((_, name), (ours, theirs))| Change {
            entity_name: name.clone(),
            rank: rank(&ours),
            other_rank: rank(&theirs),
            score: ours.and_then(|(_, score)| score),
            other_score: theirs.and_then(|(_, score)| score),
        })
        .collect();
    changes.sort_by_key(|change| (change.rank.unwrap_or(usize::MAX), change.other_rank));
    QueryDifference { query, overlap, changes }
}

fn show(comparison: &Comparison, out: &mut Output) -> Result<(), Failure> {
    let place = |rank: Option<usize>| rank.map_or_else(|| "-".to_owned(), |rank| rank.to_string());
    let score = |score: Option<f64>| score.map_or_else(String::new, |score| format!("{score:.3}"));
    for result in comparison.results.iter().filter(|result| !result.changes.is_empty()) {
        out.line(format_args!("{}  (overlap {:.2})", shortened(&result.query), result.overlap))?;
        let row = |change: &Change| {
            vec![
                place(change.rank),
                place(change.other_rank),
                change.entity_name.clone(),
                score(change.score),
                score(change.other_score),
            ]
        };
        let rows = result.changes.iter().map(row).collect();
        out.table(&["place", "other", "name", "score", "other score"], rows)?;
    }
    let Comparison { queries, k, mode, other_mode, mean_overlap, same, .. } = comparison;
    if mode != other_mode {
        out.line(format_args!("this memory was searched in mode {mode}, the other in mode {other_mode}"))?;
    }
    out.line(format_args!(
        "{} compared, {same} with the same {k} hits in the same order, mean overlap {mean_overlap:.3}",
        counted(*queries, "question")
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::io::Read as _;
    use std::path::Path;

    use serde_json::{Value, json};

    use super::{Change, Hit, QUERIES_BYTES_MAX, caught_up, difference, read_whole};
    use crate::cli::args::Mode;
    use crate::cli::failure::{Exit, Failure};

    #[test]
    fn questions_are_read_to_the_last_or_not_at_all() {
        let read = |bytes| read_whole(std::io::repeat(b'q').take(bytes), Path::new("questions"));
        assert_eq!(read(QUERIES_BYTES_MAX).unwrap().len() as u64, QUERIES_BYTES_MAX);
        let refused = read(QUERIES_BYTES_MAX + 1).unwrap_err();
        assert_eq!(refused.exit, Some(Exit::Usage));
        assert!(refused.to_string().contains("questions has more than 16777216 bytes"), "{refused}");
    }

    /// Places at which `caught_up` paused when it saw these states one after the other, and how it ended.
    fn paused(mode: Option<Mode>, states: Vec<Value>) -> (Vec<(u64, u64)>, Result<(), Failure>) {
        let (mut states, mut pauses) = (states.into_iter(), Vec::new());
        let ended = caught_up("x", mode, || Ok(states.next().unwrap()), |at, of| pauses.push((at, of)));
        assert_eq!(states.next(), None, "what comes behind the end is not looked at");
        (pauses, ended)
    }

    fn state(head: u64, graph: u64, vectors: u64, status: &str) -> Value {
        json!({ "head_seq": head, "projections": [
            { "name": "graph", "status": "current", "checkpoint": graph },
            { "name": "talk", "status": "stopped", "checkpoint": 0 },
            { "name": "vectors", "status": status, "checkpoint": vectors, "error": "the disk is full" },
        ]})
    }

    #[test]
    fn a_memory_is_asked_when_its_vectors_are_there() {
        let busy = "catching_up";
        let (pauses, ended) =
            paused(None, vec![state(9, 9, 0, busy), state(12, 12, 5, busy), state(20, 20, 9, busy)]);
        assert!(ended.is_ok(), "what is written meanwhile is not waited for");
        assert_eq!(pauses, [(0, 9), (5, 9)]);
        for (mode, status) in
            [(Some(Mode::Keyword), busy), (Some(Mode::Keyword), "stopped"), (None, "disabled")]
        {
            let (pauses, ended) = paused(mode, vec![state(9, 9, 0, status)]);
            assert!(ended.is_ok() && pauses.is_empty(), "{mode:?} {status}: words alone rank");
        }
        let (_, ended) = paused(Some(Mode::Hybrid), vec![state(9, 9, 4, busy), state(9, 9, 4, "stopped")]);
        let told = ended.unwrap_err().to_string();
        assert!(
            told.starts_with("the projection vectors of x has stopped at #4 of #9: the disk is full"),
            "{told}"
        );
    }

    fn hits(names: &[(&str, f64)]) -> Vec<Hit> {
        let hit = |(name, score): &(&str, f64)| Hit {
            key: ("agent".to_owned(), (*name).to_owned()),
            score: Some(*score),
        };
        names.iter().map(hit).collect()
    }

    #[track_caller]
    fn check(ours: &[(&str, f64)], theirs: &[(&str, f64)], overlap: f64, changes: &[(&str, &str)]) {
        let found = difference("q".to_owned(), &hits(ours), &hits(theirs));
        let place = |rank: Option<usize>| rank.map_or_else(|| "-".to_owned(), |rank| rank.to_string());
        let shown: Vec<(String, String)> = found
            .changes
            .iter()
            .map(|change: &Change| {
                (change.entity_name.clone(), format!("{}>{}", place(change.rank), place(change.other_rank)))
            })
            .collect();
        let then: Vec<(String, String)> =
            changes.iter().map(|(name, places)| ((*name).to_owned(), (*places).to_owned())).collect();
        assert_eq!(shown, then);
        assert!((found.overlap - overlap).abs() < 1e-9, "{}", found.overlap);
    }

    #[test]
    fn answers_differ_by_what_is_found_and_where() {
        check(&[], &[], 1.0, &[]);
        check(&[("a", 0.9), ("b", 0.5)], &[("a", 0.8), ("b", 0.4)], 1.0, &[]);
        check(&[("a", 0.9), ("b", 0.5)], &[("b", 0.8), ("a", 0.4)], 1.0, &[("a", "1>2"), ("b", "2>1")]);
        check(
            &[("a", 0.9), ("b", 0.5)],
            &[("a", 0.9), ("c", 0.7), ("b", 0.5)],
            2.0 / 3.0,
            &[("b", "2>3"), ("c", "->2")],
        );
        check(&[("a", 0.9)], &[], 0.0, &[("a", "1>-")]);
    }
}
