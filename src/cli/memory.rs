//! `caxton memory add | relate | search | graph | stats`; the others are in `transfer`, `memory_diff` and `undo`.

use serde_json::{Map, Value, json};

use super::args::{Add, At, AtAndTrue, Common, Graph, MemoryCommand, Mode, Relate, Search, Stats, Who};
use super::backend::{Backend, Request, encoded};
use super::compare;
use super::failure::{Exit, Failure};
use super::memory_diff;
use super::output::{Output, cell, counted, items, relation, shortened};
use super::{transfer, undo};

/// The type of a new thing when none is named.
const TYPE_DEFAULT: &str = "thing";

/// Runs a command about the memory.
pub(super) fn run(command: MemoryCommand, common: &Common, out: &mut Output) -> Result<(), Failure> {
    // What can be refused without a server is refused before one is looked for.
    if let MemoryCommand::Add(Add { metadata: Some(text), .. }) = &command {
        parse_metadata(text)?;
    }
    if let MemoryCommand::Undo(asked) = &command {
        undo::check(asked)?;
    }
    let writes =
        matches!(command, MemoryCommand::Add(_) | MemoryCommand::Relate(_) | MemoryCommand::Import(_));
    if let MemoryCommand::CompareSearch(what) = &command {
        return compare::run(what, common, out);
    }
    let backend = Backend::open(common, writes)?;
    match command {
        MemoryCommand::CompareSearch(_) => Ok(()),
        MemoryCommand::Add(add) => remember(&backend, add, out),
        MemoryCommand::Relate(relate) => connect(&backend, &relate, out),
        MemoryCommand::Search(search) => {
            if search.mode != Some(Mode::Keyword) {
                backend.let_model_catch_up(common);
            }
            find(&backend, &search, out)
        }
        MemoryCommand::Graph(graph) => walk(&backend, &graph, out),
        MemoryCommand::Stats(stats) => count(&backend, &stats, out),
        MemoryCommand::Diff(diff) => memory_diff::run(&backend, &diff, out),
        MemoryCommand::Export(export) => transfer::export(&backend, &export, common, out),
        MemoryCommand::Import(import) => transfer::import(&backend, &import, common, out),
        MemoryCommand::Undo(asked) => undo::undo(&backend, &asked, out),
    }
}

impl Request {
    /// With the parameters that say who asks.
    pub(super) fn from(self, who: &Who) -> Self {
        self.with("agent_id", &who.agent)
            .with("workspace", &who.workspace)
            .with_some("memory_scope", who.scope.map(super::args::ScopeName::as_str))
    }

    /// With the moment that is asked about.
    pub(super) fn at(self, at: &At) -> Self {
        self.with_some("as_of", at.as_of.as_deref())
    }

    /// With that and the time at which things must have been true.
    pub(super) fn when(self, when: &AtAndTrue) -> Self {
        self.at(&when.at).with_some("valid_at", when.valid_at.as_deref())
    }
}

/// The members of a body that say who asks.
fn body_from(who: &Who) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("agent_id".to_owned(), who.agent.clone().into());
    body.insert("workspace".to_owned(), who.workspace.clone().into());
    if let Some(scope) = who.scope {
        body.insert("memory_scope".to_owned(), scope.as_str().into());
    }
    body
}

fn parse_metadata(text: &str) -> Result<Value, Failure> {
    let wrong = |what: String| {
        Failure::new(Exit::Usage, format!("--metadata {what}; write a JSON object, as in '{{\"k\": 1}}'"))
    };
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(wrong("is JSON but no object".to_owned())),
        Err(error) => Err(wrong(format!("is no JSON ({error})"))),
    }
}

fn remember(backend: &Backend, add: Add, out: &mut Output) -> Result<(), Failure> {
    let mut body = body_from(&add.who);
    body.insert("entity_name".to_owned(), add.name.into());
    // The type that nobody named is that of a new thing alone: what is there keeps its own.
    if add.entity_type.is_none() {
        body.insert("on_existing".to_owned(), "extend".into());
    }
    let entity_type = add.entity_type.unwrap_or_else(|| TYPE_DEFAULT.to_owned());
    body.insert("entity_type".to_owned(), entity_type.into());
    // What is told is what has its time: the thing may be known for other times, too.
    let times = [("valid_from", add.valid_from), ("valid_to", add.valid_to)];
    let times: Map<String, Value> =
        times.into_iter().filter_map(|(name, time)| Some((name.to_owned(), time?.into()))).collect();
    let observation = |content: String| {
        let mut observation = times.clone();
        observation.insert("content".to_owned(), content.into());
        Value::Object(observation)
    };
    body.insert("observations".to_owned(), add.observations.into_iter().map(observation).collect());
    if let Some(text) = &add.metadata {
        body.insert("metadata".to_owned(), parse_metadata(text)?);
    }
    let answer = backend.ask(Request::post("/api/v1/memory/entities", &body.into()))?;
    if out.is_json() {
        return out.json(&answer);
    }
    let observations = answer.get("observation_count").and_then(Value::as_u64).unwrap_or_default() as usize;
    out.line(format_args!(
        "{} {} ({}), {}, version {}, {} scope, seq {}",
        cell(&answer, "status"),
        cell(&answer, "entity_name"),
        cell(&answer, "entity_id"),
        counted(observations, "observation"),
        cell(&answer, "version"),
        cell(&answer, "memory_scope"),
        cell(&answer, "seq"),
    ))?;
    let not_taken: Vec<&str> = items(&answer, "not_taken").iter().filter_map(Value::as_str).collect();
    if not_taken.is_empty() {
        return Ok(());
    }
    out.line(format_args!("not taken: {}; what is there keeps its own", not_taken.join(", ")))
}

fn connect(backend: &Backend, relate: &Relate, out: &mut Output) -> Result<(), Failure> {
    let mut body = body_from(&relate.who);
    let more = json!({
        "from_entity": relate.from, "to_entity": relate.to, "relation_type": relate.relation,
        "strength": relate.strength, "bidirectional": relate.both,
    });
    if let Value::Object(more) = more {
        body.extend(more);
    }
    let answer = backend.ask(Request::post("/api/v1/memory/relations", &body.into()))?;
    if out.is_json() {
        return out.json(&answer);
    }
    let (from, to) = (&relate.from, &relate.to);
    let (status, id, seq) = (cell(&answer, "status"), cell(&answer, "relation_id"), cell(&answer, "seq"));
    out.line(format_args!("{status} {from} -[{}]-> {to} ({id}), seq {seq}", relate.relation))
}

fn find(backend: &Backend, search: &Search, out: &mut Output) -> Result<(), Failure> {
    let number = search.min_similarity.map(|least| least.to_string());
    let types = search.types.join(",");
    let request = Request::get("/api/v1/memory/search")
        .with("query", &search.query.join(" "))
        .with("limit", &search.limit.to_string())
        .with_some("mode", search.mode.map(super::args::Mode::as_str))
        .with_some("entity_types", (!types.is_empty()).then_some(types.as_str()))
        .with_some("min_similarity", number.as_deref())
        .with_some("include_relations", search.relations.then_some("true"))
        .when(&search.when)
        .from(&search.who);
    let answer = backend.ask(request)?;
    if out.is_json() {
        return out.json(&answer);
    }
    let hits = items(&answer, "results");
    let mut head = vec!["score", "name", "type", "found by", "what is known"];
    if search.relations {
        head.push("relations");
    }
    let rows = hits.iter().map(|hit| hit_row(hit, search.relations)).collect();
    out.table(&head, rows)?;
    out.line(format_args!("{} in {} ms", counted(hits.len(), "hit"), cell(&answer, "search_time_ms")))?;
    match answer["events_behind"].as_u64() {
        None | Some(0) => Ok(()),
        // Words are searched for without the model.
        Some(_) if answer["mode"] == "keyword" => Ok(()),
        Some(behind) => out.line(format_args!(
            "The model has not read the last {} of the log yet: {}.",
            counted(behind as usize, "event"),
            unread(backend)
        )),
    }
}

/// What an answer lacks that the model has not read.
fn unread(backend: &Backend) -> &'static str {
    match backend {
        Backend::Http(_) => "more may be found in a while",
        // It was waited for, and stopped.
        Backend::Local(_) => {
            "it could not, and more would be found; `caxton projection verify vectors` looks for what is wrong"
        }
    }
}

fn hit_row(hit: &Value, with_relations: bool) -> Vec<String> {
    let why = hit.get("why").unwrap_or(&Value::Null);
    let found_by: Vec<&str> = items(why, "matched_by").iter().filter_map(Value::as_str).collect();
    let matched = why.get("matched_observation").map(|matched| cell(matched, "content")).unwrap_or_default();
    let known = if matched.is_empty() { first_observation(hit) } else { matched };
    let mut row = vec![
        cell(hit, "score"),
        cell(hit, "entity_name"),
        cell(hit, "entity_type"),
        found_by.join(", "),
        shortened(&known),
    ];
    if with_relations {
        row.push(items(hit, "relations").iter().map(relation).collect::<Vec<_>>().join("\n"));
    }
    row
}

fn first_observation(hit: &Value) -> String {
    match items(hit, "observations").first() {
        Some(Value::String(text)) => text.clone(),
        Some(other) => cell(other, "content"),
        None => String::new(),
    }
}

fn walk(backend: &Backend, graph: &Graph, out: &mut Output) -> Result<(), Failure> {
    let types = graph.types.join(",");
    let request = Request::get(&format!("/api/v1/memory/graph/{}", encoded(&graph.name)))
        .with("max_depth", &graph.depth.to_string())
        .with("min_strength", &graph.min_strength.to_string())
        .with_some("relation_types", (!types.is_empty()).then_some(types.as_str()))
        .with("include_observations", "false")
        .when(&graph.when)
        .from(&graph.who);
    let answer = backend.ask(request)?;
    if out.is_json() {
        return out.json(&answer);
    }
    let found = answer.get("graph").unwrap_or(&Value::Null);
    let (nodes, edges) = (items(found, "nodes"), items(found, "edges"));
    let columns = |value: &Value, names: &[&str]| names.iter().map(|name| cell(value, name)).collect();
    let node_rows =
        nodes.iter().map(|node| columns(node, &["depth", "entity_name", "entity_type"])).collect();
    out.table(&["depth", "name", "type"], node_rows)?;
    let names = ["from", "relation_type", "to", "strength"];
    let edge_rows = edges.iter().map(|edge| columns(edge, &names)).collect();
    out.table(&["from", "relation", "to", "strength"], edge_rows)?;
    out.line(format_args!("{}, {}", counted(nodes.len(), "thing"), counted(edges.len(), "relation")))
}

fn count(backend: &Backend, stats: &Stats, out: &mut Output) -> Result<(), Failure> {
    let request = Request::get("/api/v1/memory/stats").with_some("agent_id", stats.agent.as_deref());
    let answer = backend.ask(request.at(&stats.at))?;
    if out.is_json() {
        return out.json(&answer);
    }
    let mut rows = Vec::new();
    for section in ["global_stats", "performance_metrics"] {
        for (name, value) in answer.get(section).and_then(Value::as_object).into_iter().flatten() {
            let shown = cell(&json!({ "value": value }), "value");
            rows.push(vec![name.replace('_', " "), shown]);
        }
    }
    out.table(&["what", "how much"], rows)?;
    let names = ["memory_scope", "entity_count", "relation_count", "active_agents"];
    let breakdown = items(&answer, "scope_breakdown");
    let rows = breakdown.iter().map(|row| names.iter().map(|name| cell(row, name)).collect()).collect();
    out.table(&["scope", "entities", "relations", "agents"], rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use serde_json::json;

    use super::{hit_row, parse_metadata};

    #[test]
    fn metadata_must_be_an_object() {
        assert!(parse_metadata("{}").is_ok());
        for text in ["", "[1]", "{", "nonsense"] {
            let message = parse_metadata(text).expect_err(text).to_string();
            assert!(message.contains("write a JSON object"), "{message}");
        }
    }

    #[test]
    fn a_hit_shows_the_observation_that_matched() {
        let hit = json!({
            "score": 0.51234, "entity_name": "gnuplot", "entity_type": "package",
            "why": {
                "matched_by": ["semantic", "keyword"],
                "matched_observation": {"content": "plots\nfrom a terminal"},
            },
            "relations": [{"from_entity": "gnuplot", "relation_type": "suggests", "to_entity": "gnuplot-doc"}],
        });
        let then = [
            "0.512",
            "gnuplot",
            "package",
            "semantic, keyword",
            "plots from a terminal",
            "gnuplot suggests gnuplot-doc",
        ];
        assert_eq!(hit_row(&hit, true), then);
    }
}
