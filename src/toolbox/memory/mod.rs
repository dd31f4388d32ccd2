//! The tool `memory`: search, store and relate, through the same pipeline as everyone's.
//!
//! A write is attributed to the agent and its turn, and keyed by turn and call: repeated after a crash, it is written
//! once and answers what it answered the first time.

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_events::memory::Validity;
use caxton_events::{AgentId, Clock as _, MemoryId, Scope};
use caxton_projections::graph::Entity;
use caxton_projections::queries::{Fusion, Search, SearchAnswer, SearchError, SearchMode};
use caxton_projections::view::{View, Wait};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::arguments::{Arguments, cut};
use super::{Caller, Permissions, ToolError, ToolProvider};
use crate::commands::{EntityRef, NewEntity, NewObservation, NewRelation, OnExisting, Write, Written};
use crate::config::MemoryScope;
use crate::engine::searches::Asking;
use crate::engine::{Engine, Idempotency, Outcome, Submission, SubmitError, SystemClock};
use crate::llm::ToolSpec;
use crate::{failure, telemetry};

/// The tool's name.
pub const NAME: &str = "memory";

/// Results of a search that does not say how many.
const RESULTS_DEFAULT: usize = 10;
/// Observations shown with a hit.
const SHOWN_OBSERVATIONS: usize = 5;
/// Longest observation that is shown whole, in bytes.
const SHOWN_BYTES_MAX: usize = 4 << 10;
/// Longest question, in bytes. The model reads its first 256 tokens only.
const QUERY_BYTES_MAX: usize = 16 << 10;
/// Observations of one call at most.
const OBSERVATIONS_MAX: usize = 100;
/// Types that a search may be narrowed to.
const TYPES_MAX: usize = 20;
/// The type of a new entity that is given none.
const TYPE_DEFAULT: &str = "note";
/// Agents that may store at a time; those that share a lane wait for one another.
const LANES: usize = 64;

const OPERATIONS: [&str; 3] = ["search", "store", "relate"];
const SEARCH: &[&str] = &["operation", "query", "limit", "entity_types", "scope", "min_similarity"];
const STORE: &[&str] = &["operation", "entity", "entity_type", "observations", "scope"];
const RELATE: &[&str] = &["operation", "from", "to", "relation", "strength", "scope"];

/// How searches rank.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Ranking {
    /// By meaning, by words, or both.
    pub mode: SearchMode,
    /// How two rankings become one.
    pub fusion: Fusion,
    /// Compare with every vector instead of using the index.
    pub exact: bool,
    /// Cosines within one step of this size count as equal where meaning alone ranks; 0 keeps the exact order.
    pub precision: f32,
}

/// The memory as agents reach it.
#[derive(Clone)]
pub struct Memory {
    engine: Engine,
    ranking: Ranking,
    /// Counting an agent's entities and adding one must not be interleaved with the same of another call.
    lanes: Arc<[Mutex<()>; LANES]>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("ranking", &self.ranking).finish_non_exhaustive()
    }
}

impl Memory {
    /// The memory of a running engine.
    pub fn new(engine: Engine, ranking: Ranking) -> Self {
        Self { engine, ranking, lanes: Arc::new(std::array::from_fn(|_| Mutex::new(()))) }
    }

    async fn search(&self, caller: &Caller, arguments: &Value) -> Result<Value, ToolError> {
        let search = self.asked(caller, arguments)?;
        let timeout = caller.permissions.memory_search_timeout.unwrap_or(Duration::MAX).min(caller.timeout);
        let limit = search.limit;
        let engine = self.engine.clone();
        let read = self.read(move |view| {
            let started = Instant::now();
            let found = engine.search(view, &search, Asking { at_present: true, afresh: false })?;
            telemetry::search_finished(started.elapsed());
            Ok(found)
        });
        let found = tokio::time::timeout(timeout, read).await.map_err(|_| ToolError::Timeout(timeout))??;
        Ok(shown(found, limit))
    }

    fn asked(&self, caller: &Caller, arguments: &Value) -> Result<Search, ToolError> {
        let arguments = Arguments::of(arguments, SEARCH)?;
        let text = arguments.required("query")?;
        if text.len() > QUERY_BYTES_MAX {
            let reason = format!("takes {} bytes, the limit is {QUERY_BYTES_MAX}", text.len());
            return Err(ToolError::argument("query", reason, "shorten it"));
        }
        let most = caller.permissions.memory_results_max;
        if most == 0 {
            return Err(ToolError::Refused("this agent's file allows no results of a search".to_owned()));
        }
        let limit = arguments.count("limit", 1..=u64::MAX)?;
        let scopes = match scope_word(&arguments)? {
            Some(scope) => vec![scope_of(caller, scope)],
            None => visible(caller),
        };
        Ok(Search {
            text: text.to_owned(),
            mode: self.ranking.mode,
            fusion: self.ranking.fusion,
            exact: self.ranking.exact,
            precision: self.ranking.precision,
            scopes,
            entity_types: arguments.texts("entity_types", TYPES_MAX)?,
            valid_at: Some(SystemClock.now()),
            min_similarity: arguments.number("min_similarity", -1.0..=1.0)?.map(|cosine| cosine as f32),
            // Asking for more than the file allows is no error: fewer results are a good answer too.
            limit: limit.map_or(RESULTS_DEFAULT, |limit| usize::try_from(limit).unwrap_or(most)).min(most),
            observations: SHOWN_OBSERVATIONS,
            ..Search::default()
        })
    }

    async fn store(&self, caller: &Caller, arguments: &Value) -> Result<Value, ToolError> {
        may_write(&caller.permissions)?;
        let given = Arguments::of(arguments, STORE)?;
        let name = given.required("entity")?.to_owned();
        let entity_type = given.text("entity_type")?.map(str::to_owned);
        let observations = given.texts("observations", OBSERVATIONS_MAX)?;
        if observations.is_empty() {
            return Err(ToolError::argument("observations", "are missing", "say what is to be remembered"));
        }
        let scope = write_scope(caller, &given)?;
        let _turn = self.lane(&caller.agent).lock().await;
        let existing = self.existing(caller, scope.clone(), name.clone()).await?;
        let entity_type = entity_type.or(existing).unwrap_or_else(|| TYPE_DEFAULT.to_owned());
        let note = |content| NewObservation { content, validity: Validity::default() };
        let write = Write::CreateEntity(NewEntity {
            scope,
            name,
            entity_type,
            observations: observations.into_iter().map(note).collect(),
            metadata: None,
            confidence: 1.0,
            validity: Validity::default(),
            on_existing: OnExisting::Merge,
        });
        let (outcome, written) = self.submit(caller, arguments, write).await?;
        Ok(json!({
            "entity_id": format!("ent_{}", written.id),
            "status": written.status,
            "observation_ids": written.observations.iter().map(|id| format!("obs_{id}")).collect::<Vec<_>>(),
            "seq": outcome.last,
        }))
    }

    /// The type of the entity if it is there; else refuses when the agent may not own a further one.
    async fn existing(
        &self,
        caller: &Caller,
        scope: Scope,
        name: String,
    ) -> Result<Option<String>, ToolError> {
        let (agent, max) = (caller.agent.clone(), caller.permissions.memory_entities_max);
        let (existing, owned) = self
            .read(move |view| {
                let existing = view.graph().entity_by_name(&scope, &name)?;
                let counted = existing.is_none() && max.is_some();
                let owned = if counted { view.graph().entities_owned(&agent)? } else { 0 };
                Ok((existing, owned))
            })
            .await?;
        match (existing, max) {
            (Some(entity), _) => Ok(Some(entity.entity_type)),
            (None, Some(max)) if owned >= max => Err(ToolError::Refused(format!(
                "agent {} owns {owned} entities and may own {max} (max_memory_entities); add observations to one it \
                 has, or have some removed",
                caller.agent
            ))),
            (None, _) => Ok(None),
        }
    }

    async fn relate(&self, caller: &Caller, arguments: &Value) -> Result<Value, ToolError> {
        may_write(&caller.permissions)?;
        let given = Arguments::of(arguments, RELATE)?;
        let write = Write::CreateRelation(NewRelation {
            scope: write_scope(caller, &given)?,
            from: entity_ref(caller, given.required("from")?),
            to: entity_ref(caller, given.required("to")?),
            relation_type: given.required("relation")?.to_owned(),
            strength: given.number("strength", 0.0..=1.0)?.unwrap_or(0.5),
            confidence: 1.0,
            metadata: None,
            validity: Validity::default(),
            bidirectional: false,
            on_existing: OnExisting::Merge,
        });
        let (outcome, written) = self.submit(caller, arguments, write).await?;
        let id = format!("rel_{}", written.id);
        Ok(json!({ "relation_id": id, "status": written.status, "seq": outcome.last }))
    }

    async fn submit(
        &self,
        caller: &Caller,
        arguments: &Value,
        write: Write,
    ) -> Result<(Outcome, Written), ToolError> {
        let submission = Submission {
            actor: caller.agent.clone(),
            workspace: caller.workspace.clone(),
            named: None,
            correlation: Some(caller.turn.to_string()),
            causation: Some(caller.cause),
            // Models number their calls anew in each turn.
            idempotency: Some(Idempotency {
                key: format!("{}/{}", caller.turn, caller.call),
                fingerprint: *blake3::hash(arguments.to_string().as_bytes()).as_bytes(),
            }),
            writes: vec![write],
            atomic: true,
            wait: Wait::Applied,
        };
        let outcome = self.engine.submit(submission).await.map_err(not_submitted)?;
        match outcome.results.first() {
            Some(Ok(written)) => {
                let written = written.clone();
                Ok((outcome, written))
            }
            Some(Err(_)) | None => Err(ToolError::Failed("the write has no result".to_owned())),
        }
    }

    /// Runs `read` on a blocking thread.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View) -> Result<T, SearchError> + Send + 'static,
    ) -> Result<T, ToolError> {
        let engine = self.engine.clone();
        let work = move || {
            read(engine.view()).map_err(|error| {
                let text = failure::chain(&error);
                if is_damage(&error) {
                    engine.graph_is_damaged(&text);
                }
                ToolError::Failed(text)
            })
        };
        let ended = tokio::task::spawn_blocking(work).await;
        ended.unwrap_or_else(|error| Err(ToolError::Failed(format!("the search broke: {error}"))))
    }

    fn lane(&self, agent: &AgentId) -> &Mutex<()> {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let lane = hasher.hash_one(agent) % LANES as u64;
        &self.lanes[lane as usize]
    }
}

impl ToolProvider for Memory {
    fn tools(&self) -> BoxFuture<'_, Result<Vec<ToolSpec>, ToolError>> {
        Box::pin(async { Ok(vec![spec()]) })
    }

    fn call<'a>(
        &'a self,
        caller: &'a Caller,
        _tool: &'a str,
        arguments: &'a Value,
    ) -> BoxFuture<'a, Result<String, ToolError>> {
        Box::pin(async move {
            let operation = arguments.get("operation").and_then(Value::as_str);
            let result = match operation {
                Some("search") => self.search(caller, arguments).await,
                Some("store") => self.store(caller, arguments).await,
                Some("relate") => self.relate(caller, arguments).await,
                Some(_) | None => {
                    let remedy = format!("use one of {}", OPERATIONS.join(", "));
                    Err(ToolError::argument("operation", "is missing or unknown", remedy))
                }
            };
            Ok(fitted(result?, caller.permissions.result_bytes_max))
        })
    }
}

fn spec() -> ToolSpec {
    ToolSpec {
        name: NAME.to_owned(),
        description:
            "Long-term memory. search: what is known about a question. store: remember something about an \
                      entity. relate: connect two entities."
                .to_owned(),
        parameters: json!({
            "type": "object",
            "properties": {
                "operation": {"type": "string", "enum": OPERATIONS},
                "query": {"type": "string", "description": "search: the question"},
                "limit": {"type": "integer", "minimum": 1, "description": "search: results at most"},
                "entity_types": {"type": "array", "items": {"type": "string"}, "description": "search: only these"},
                "min_similarity": {"type": "number", "description": "search: least cosine, -1 to 1"},
                "entity": {"type": "string", "description": "store: the name of the thing"},
                "entity_type": {"type": "string", "description": "store: what kind of thing it is"},
                "observations": {
                    "type": "array", "items": {"type": "string"}, "description": "store: one sentence each",
                },
                "from": {"type": "string", "description": "relate: name or ent_ number"},
                "to": {"type": "string", "description": "relate: name or ent_ number"},
                "relation": {"type": "string", "description": "relate: what connects them, as in depends_on"},
                "strength": {"type": "number", "description": "relate: 0 to 1"},
                "scope": {"type": "string", "enum": MemoryScope::WORDS},
            },
            "required": ["operation"],
            "additionalProperties": false,
        }),
    }
}

/// The hits, the best first.
fn shown(found: SearchAnswer, limit: usize) -> Value {
    let results = found.hits.into_iter().map(|hit| {
        let Entity { id, name, entity_type, scope, .. } = hit.entity;
        let matched = hit.matched.as_ref().map(|matched| matched.id);
        let texts = hit.matched.iter().chain(hit.observations.iter().filter(|one| Some(one.id) != matched));
        let observations = texts.take(SHOWN_OBSERVATIONS).map(|one| {
            let text = cut(&one.content, SHOWN_BYTES_MAX);
            let mut shown = json!({ "id": format!("obs_{}", one.id), "text": text });
            if text.len() < one.content.len() {
                shown["bytes"] = json!(one.content.len());
            }
            shown
        });
        json!({
            "entity_id": format!("ent_{id}"),
            "entity": name,
            "entity_type": entity_type,
            "scope": scope.kind(),
            "score": f64::from(hit.score),
            "observations": observations.collect::<Vec<_>>(),
        })
    });
    json!({ "results": results.collect::<Vec<_>>(), "limit": limit })
}

/// The result as text; hits that do not fit are left out, the worst first.
fn fitted(mut result: Value, bytes: usize) -> String {
    let mut text = result.to_string();
    let mut left_out = 0;
    while text.len() > bytes {
        let hits = result.get_mut("results").and_then(Value::as_array_mut);
        if hits.and_then(Vec::pop).is_none() {
            break;
        }
        left_out += 1;
        result["left_out"] = json!(left_out);
        text = result.to_string();
    }
    text
}

fn may_write(permissions: &Permissions) -> Result<(), ToolError> {
    if permissions.memory_writes {
        return Ok(());
    }
    Err(ToolError::Refused("this agent may read the memory and not write to it".to_owned()))
}

fn scope_word(arguments: &Arguments<'_>) -> Result<Option<MemoryScope>, ToolError> {
    let Some(word) = arguments.text("scope")? else { return Ok(None) };
    let scopes = [MemoryScope::Agent, MemoryScope::Workspace, MemoryScope::Global];
    let found = scopes.into_iter().find(|scope| scope.as_str() == word);
    found.map(Some).ok_or_else(|| {
        let remedy = format!("use one of {}", MemoryScope::WORDS.join(", "));
        ToolError::argument("scope", format!("{:?} is no scope", cut(word, 64)), remedy)
    })
}

fn scope_of(caller: &Caller, scope: MemoryScope) -> Scope {
    match scope {
        MemoryScope::Agent => Scope::Agent(caller.agent.clone()),
        MemoryScope::Workspace => Scope::Workspace(caller.workspace.clone()),
        MemoryScope::Global => Scope::Global,
    }
}

/// Every scope that the caller sees, most specific first.
fn visible(caller: &Caller) -> Vec<Scope> {
    [MemoryScope::Agent, MemoryScope::Workspace, MemoryScope::Global]
        .map(|scope| scope_of(caller, scope))
        .to_vec()
}

/// The scope that a write goes to: the one it names, which must not be wider than the file allows.
fn write_scope(caller: &Caller, arguments: &Arguments<'_>) -> Result<Scope, ToolError> {
    let widest = caller.permissions.memory_scope;
    let asked = scope_word(arguments)?.unwrap_or(widest);
    if asked as u8 > widest as u8 {
        return Err(ToolError::Refused(format!(
            "this agent may write to the scope {widest} at the widest (memory_scope), not to {asked}"
        )));
    }
    Ok(scope_of(caller, asked))
}

/// `ent_5` by number, everything else by name, in the scopes that the caller sees.
fn entity_ref(caller: &Caller, text: &str) -> EntityRef {
    match text.strip_prefix("ent_").and_then(|number| number.parse().ok()) {
        Some(number) => EntityRef::Id { id: MemoryId(number), scopes: visible(caller) },
        None => EntityRef::Named { name: text.to_owned(), scopes: visible(caller) },
    }
}

/// What became of a write without outcome, with the names that the tool uses.
fn not_submitted(error: SubmitError) -> ToolError {
    let SubmitError::Refused(refusals) = error else { return ToolError::Failed(failure::chain(&error)) };
    let Some(refusal) = refusals.into_iter().next() else {
        return ToolError::Failed("the memory refused without a reason".to_owned());
    };
    let (first, rest) = match refusal.field.find(['.', '[']) {
        Some(end) => refusal.field.split_at(end),
        None => (refusal.field.as_str(), ""),
    };
    let first = match first {
        "name" | "entity_name" => "entity",
        "from_entity" => "from",
        "to_entity" => "to",
        "relation_type" => "relation",
        other => other,
    };
    ToolError::argument(&format!("{first}{rest}"), refusal.message, refusal.remedy)
}

fn is_damage(error: &SearchError) -> bool {
    matches!(error, SearchError::Graph(error) if error.is_damage())
}
