//! `GET /memory/export`: a scope as JSON or JSONL, streamed page by page.

use std::collections::{HashMap, VecDeque};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use caxton_events::{Clock as _, MemoryId, Scope, Seq, Timestamp};
use caxton_projections::graph::{Entity, EntityFilter, Relation, RelationFilter};
use caxton_projections::view::{Part, View, Wait};
use futures::stream;
use serde_json::{Value, json};

use super::Api;
use super::call::{Call, ReadContext};
use super::contents::Room;
use super::entities::observations;
use super::moment::{marked, of_record};
use super::problem::Problem;
use super::refusals::{embedding_failed, graph_failed, no_model};
use super::rows::{EntityRow, ObservationRow, RelationRow};
use crate::engine::SystemClock;

/// Version of what is written. From 1.1 on, JSONL ends with a line that counts its rows.
pub(super) const EXPORT_VERSION: &str = "1.1";
/// The version without that line.
pub(super) const EXPORT_VERSION_WITHOUT_END: &str = "1.0";
/// Rows read at a time.
const PAGE: usize = 200;
/// A piece ends behind so many bytes: nobody holds all that an entity has.
const PIECE_BYTES: usize = 1 << 20;

/// How the export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Lines,
}

/// What comes next.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Head,
    Entities,
    /// The observations, behind this one, of an entity whose row is begun.
    Observations(MemoryId, MemoryId),
    /// Relations behind this one.
    Relations(Option<MemoryId>),
    Tail,
    End,
}

/// An entity, and the vector of its header where that is asked for.
type Pending = (Entity, Option<Vec<f32>>);

struct Export {
    scope: Scope,
    /// The scopes that the caller sees: relations to ends in others are left out, since no import would find these.
    visible: Vec<Scope>,
    agent: String,
    format: Format,
    embeddings: bool,
    /// Only what is true then.
    valid_at: Option<Timestamp>,
    /// The record that the memory is exported as of: what is written meanwhile is not in it, so that its rows belong together.
    moment: Seq,
    /// Whether the request names that record.
    is_past: bool,
    /// Entities that were read and are not written yet, with the vectors of their headers.
    pending: VecDeque<Pending>,
    /// The last entity that was read.
    read: Option<MemoryId>,
    /// Whether there are entities behind it.
    more: bool,
    /// Observations to be read at a time.
    at_once: usize,
    /// Rows written so far, for the last line: readers tell by it that none is missing.
    entities: usize,
    relations: usize,
    /// Relations that were left out because the caller does not see an end of them.
    left_out: usize,
}

/// `GET /memory/export`.
pub(super) async fn export(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let own: &[&str] = &["format", "include_embeddings", "valid_at"];
    let mut query = call.query(&[ReadContext::QUERY[0], ReadContext::QUERY[1], own])?;
    let context = ReadContext::take(&call, &mut query);
    let format = query.choice("format", &[("json", Format::Json), ("jsonl", Format::Lines)]);
    let mut export = Export {
        scope: context.caller.writes(api.options.default_scope),
        visible: context.caller.visible(),
        agent: context.caller.agent.to_string(),
        format: format.unwrap_or(Format::Json),
        embeddings: query.flag("include_embeddings").unwrap_or(false),
        valid_at: query.time("valid_at"),
        moment: Seq::ZERO,
        is_past: false,
        pending: VecDeque::new(),
        read: None,
        more: true,
        at_once: PAGE,
        entities: 0,
        relations: 0,
        left_out: 0,
    };
    query.finish()?;
    if export.embeddings && api.engine.view().semantic().is_none() {
        return Err(no_model());
    }
    let as_of = api.moment(&context, Wait::Applied).await?;
    let now = || api.engine.view().positions().get(Part::Graph).seq;
    (export.moment, export.is_past) = (as_of.map_or_else(now, |moment| moment.seq), as_of.is_some());
    let moment = export.moment;
    let media_type = match export.format {
        Format::Json => "application/json",
        Format::Lines => "application/x-ndjson",
    };
    // The head is read before the answer begins, so that a broken graph is still a problem with a status.
    let (export, head, next) = page(&api, export, Stage::Head).await?;
    let first = stream::once(async move { Ok::<_, std::io::Error>(head) });
    let rest = stream::unfold(Some((api, export, next)), |state| async move {
        let (api, export, stage) = state.filter(|(_, _, stage)| !matches!(stage, Stage::End))?;
        // The status is out already when a page fails: breaking off tells the client that the document is not whole.
        let page = page(&api, export, stage).await.map_err(|problem| std::io::Error::other(problem.code()));
        Some(match page {
            Ok((export, bytes, next)) => (Ok(bytes), Some((api, export, next))),
            Err(error) => (Err(error), None),
        })
    });
    let mut response =
        Response::new(Body::from_stream(futures::StreamExt::fuse(futures::StreamExt::chain(first, rest))));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    Ok(match as_of {
        Some(moment) => marked(response, moment),
        None => of_record(response, moment),
    })
}

async fn page(api: &Api, mut export: Export, stage: Stage) -> Result<(Export, Bytes, Stage), Problem> {
    api.read(move |view| {
        let view = &view.as_of(export.moment);
        let (text, next) = match stage {
            Stage::Head => (export.head(view)?, Stage::Entities),
            Stage::Entities => export.entities(view)?,
            Stage::Observations(entity, after) => export.more_observations(view, entity, after)?,
            Stage::Relations(after) => export.relations(view, after)?,
            Stage::Tail | Stage::End => (export.tail(), Stage::End),
        };
        Ok((export, Bytes::from(text), next))
    })
    .await
}

impl Export {
    fn head(&self, view: &View) -> Result<String, Problem> {
        let stats = view.graph().stats(Some(std::slice::from_ref(&self.scope)));
        let stats = stats.map_err(|error| graph_failed(&error))?;
        let metadata = json!({
            "agent_id": self.agent,
            "memory_scope": self.scope.kind(),
            "scope": self.scope.to_string(),
            "exported_at": SystemClock.now(),
            // Of what is true at a time nobody knows how much it is before it is read.
            "entity_count": self.valid_at.is_none().then_some(stats.entities),
            "relation_count": self.valid_at.is_none().then_some(stats.relations),
            "format": if self.format == Format::Json { "json" } else { "jsonl" },
            "version": EXPORT_VERSION,
            "seq": view.seq(),
            "as_of": self.is_past.then_some(self.moment),
            "valid_at": self.valid_at,
        });
        Ok(match self.format {
            Format::Json => format!("{{\"export_metadata\":{metadata},\n\"entities\":["),
            Format::Lines => format!("{}\n", json!({"type": "metadata", "export_metadata": metadata})),
        })
    }

    /// The end, which says how many relations were left out where any were: how many is known here alone.
    fn tail(&self) -> String {
        let left_out = match self.left_out {
            0 => String::new(),
            count => format!(",\"relations_left_out\":{count}"),
        };
        match self.format {
            Format::Json => format!("]{left_out}}}\n"),
            Format::Lines => {
                let end = json!({"type": "end", "entities": self.entities, "relations": self.relations});
                let end = end.to_string();
                format!("{}{left_out}}}\n", end.strip_suffix('}').unwrap_or(&end))
            }
        }
    }

    /// Begins a row of the document, the `first` of its list or another; its object is left open.
    fn open_row(&self, text: &mut String, mut row: Value, kind: &str, first: bool) {
        match self.format {
            Format::Json => text.push_str(if first { "\n" } else { ",\n" }),
            Format::Lines => row["type"] = json!(kind),
        }
        let row = row.to_string();
        text.push_str(row.strip_suffix('}').unwrap_or(&row));
    }

    /// Ends a row behind its last member.
    fn close_row(&self, text: &mut String) {
        text.push_str(match self.format {
            Format::Json => "}",
            Format::Lines => "}\n",
        });
    }

    fn entities(&mut self, view: &View) -> Result<(String, Stage), Problem> {
        let mut text = String::new();
        while text.len() < PIECE_BYTES {
            let Some((entity, vector)) = self.next_entity(view)? else {
                if self.format == Format::Json {
                    text.push_str("],\n\"relations\":[");
                }
                return Ok((text, Stage::Relations(None)));
            };
            let id = entity.id;
            let mut row = json!(EntityRow::from(entity));
            if let Some(vector) = vector {
                row["embedding"] = json!(vector);
            }
            self.open_row(&mut text, row, "entity", self.entities == 0);
            text.push_str(",\"observations\":[");
            self.entities += 1;
            if let Some(last) = self.observations(view, &mut text, id, None)? {
                return Ok((text, Stage::Observations(id, last)));
            }
        }
        Ok((text, Stage::Entities))
    }

    /// The next entity; those behind it are read a page at a time.
    fn next_entity(&mut self, view: &View) -> Result<Option<Pending>, Problem> {
        if self.pending.is_empty() && self.more {
            let filter = EntityFilter {
                scopes: vec![self.scope.clone()],
                valid_at: self.valid_at,
                after: self.read,
                limit: PAGE,
                ..EntityFilter::default()
            };
            let page = view.graph().list_entities(&filter).map_err(|error| graph_failed(&error))?;
            self.more = page.len() == PAGE;
            self.read = page.last().map(|last| last.id).or(self.read);
            let vectors = if self.embeddings { headers(view, &page)? } else { Vec::new() };
            let vectors = vectors.into_iter().map(Some).chain(std::iter::repeat(None));
            self.pending = page.into_iter().zip(vectors).collect();
        }
        Ok(self.pending.pop_front())
    }

    fn more_observations(
        &mut self,
        view: &View,
        entity: MemoryId,
        after: MemoryId,
    ) -> Result<(String, Stage), Problem> {
        let mut text = String::new();
        let last = self.observations(view, &mut text, entity, Some(after))?;
        Ok((text, last.map_or(Stage::Entities, |last| Stage::Observations(entity, last))))
    }

    /// Writes the observations of an entity behind `after`, or all of them, and the end of its row; or so many of them that the
    /// piece is full, and then which the last one is.
    fn observations(
        &mut self,
        view: &View,
        text: &mut String,
        entity: MemoryId,
        mut after: Option<MemoryId>,
    ) -> Result<Option<MemoryId>, Problem> {
        loop {
            let (limit, left) = (self.at_once, PIECE_BYTES.saturating_sub(text.len()));
            let (page, is_short) =
                observations(view, entity, after, self.valid_at, limit, &mut Room::of(left as u64))?;
            let is_last = page.len() < limit && !is_short;
            // Of long ones no more are read than are written, and more again of short ones.
            self.at_once = if is_short { page.len().max(1) } else { (limit * 2).min(PAGE) };
            for observation in page {
                if after.is_some() {
                    text.push(',');
                }
                after = Some(observation.id);
                text.push_str(&json!(ObservationRow::from(observation)).to_string());
            }
            if is_last {
                text.push(']');
                self.close_row(text);
                return Ok(None);
            }
            if text.len() >= PIECE_BYTES {
                return Ok(after);
            }
        }
    }

    fn relations(&mut self, view: &View, mut after: Option<MemoryId>) -> Result<(String, Stage), Problem> {
        let filter = RelationFilter {
            scopes: vec![self.scope.clone()],
            valid_at: self.valid_at,
            after,
            limit: PAGE,
            ..RelationFilter::default()
        };
        let page = view.graph().list_relations(&filter).map_err(|error| graph_failed(&error))?;
        let is_last = page.len() < PAGE;
        let ends = Ends::of(view, &page, &self.visible)?;
        let mut text = String::new();
        for relation in page {
            after = Some(relation.id);
            if !ends.are_true(&relation, self.valid_at) {
                continue;
            }
            if ends.are_hidden(&relation) {
                self.left_out += 1;
            } else {
                let row = ends.row(relation, &self.scope);
                self.open_row(&mut text, json!(row), "relation", self.relations == 0);
                self.close_row(&mut text);
                self.relations += 1;
            }
            if text.len() >= PIECE_BYTES {
                return Ok((text, Stage::Relations(after)));
            }
        }
        Ok((text, if is_last { Stage::Tail } else { Stage::Relations(after) }))
    }
}

/// The entities that relations connect.
struct Ends {
    entities: HashMap<MemoryId, Entity>,
    names: HashMap<MemoryId, String>,
}

impl Ends {
    fn of(view: &View, relations: &[Relation], visible: &[Scope]) -> Result<Self, Problem> {
        let mut ids: Vec<MemoryId> =
            relations.iter().flat_map(|relation| [relation.from, relation.to]).collect();
        ids.sort_unstable();
        ids.dedup();
        let entities = view.graph().entities(&ids).map_err(|error| graph_failed(&error))?;
        let seen = entities.iter().filter(|entity| visible.contains(&entity.scope));
        let names = seen.map(|entity| (entity.id, entity.name.clone())).collect();
        Ok(Self { entities: entities.into_iter().map(|entity| (entity.id, entity)).collect(), names })
    }

    /// Whether both ends of a relation are true at `valid_at`.
    fn are_true(&self, relation: &Relation, valid_at: Option<Timestamp>) -> bool {
        let is_true = |end: MemoryId, at: Timestamp| {
            self.entities.get(&end).is_some_and(|entity| entity.validity.contains(at))
        };
        valid_at.is_none_or(|at| is_true(relation.from, at) && is_true(relation.to, at))
    }

    /// Whether an end of a relation is there and the caller does not see it.
    fn are_hidden(&self, relation: &Relation) -> bool {
        let is_hidden = |end: MemoryId| self.entities.contains_key(&end) && !self.names.contains_key(&end);
        is_hidden(relation.from) || is_hidden(relation.to)
    }

    /// The row of a relation in an export of `scope`, with the scopes of its ends that live in another.
    fn row(&self, relation: Relation, scope: &Scope) -> RelationRow {
        let elsewhere = |end: MemoryId| {
            let entity = self.entities.get(&end).filter(|entity| entity.scope != *scope);
            entity.map(|entity| entity.scope.kind())
        };
        let (from_scope, to_scope) = (elsewhere(relation.from), elsewhere(relation.to));
        RelationRow { from_scope, to_scope, ..RelationRow::new(relation, &self.names) }
    }
}

/// The vectors of the entities' headers: name and type, as the vector index keeps them.
fn headers(view: &View, entities: &[Entity]) -> Result<Vec<Vec<f32>>, Problem> {
    let semantic = view.semantic().ok_or_else(no_model)?;
    let texts: Vec<String> =
        entities.iter().map(|entity| format!("{} ({})", entity.name, entity.entity_type)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let vectors = semantic.vectors.vectors_of(&texts, &*semantic.embedding);
    vectors.map_err(|error| embedding_failed(&error))
}
