//! `GET /memory/export`: a scope as JSON or JSONL, streamed page by page.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use caxton_events::{Clock as _, MemoryId, Scope, Seq, Timestamp};
use caxton_projections::graph::{Entity, EntityFilter, RelationFilter};
use caxton_projections::view::{View, Wait};
use futures::stream;
use serde_json::{Value, json};

use super::Api;
use super::call::{Call, ReadContext};
use super::entities::observations;
use super::moment::marked;
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
    Entities(Option<MemoryId>),
    Relations(Option<MemoryId>),
    Tail,
    End,
}

struct Export {
    scope: Scope,
    agent: String,
    format: Format,
    embeddings: bool,
    /// Only what is true then.
    valid_at: Option<Timestamp>,
    /// The memory as of this record; `None`: as it is.
    moment: Option<Seq>,
    /// Rows written so far, for the last line: readers tell by it that none is missing.
    entities: usize,
    relations: usize,
}

/// `GET /memory/export`.
pub(super) async fn export(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let own: &[&str] = &["format", "include_embeddings", "valid_at"];
    let mut query = call.query(&[ReadContext::QUERY[0], ReadContext::QUERY[1], own])?;
    let context = ReadContext::take(&call, &mut query);
    let format = query.choice("format", &[("json", Format::Json), ("jsonl", Format::Lines)]);
    let mut export = Export {
        scope: context.caller.writes(api.options.default_scope),
        agent: context.caller.agent.to_string(),
        format: format.unwrap_or(Format::Json),
        embeddings: query.flag("include_embeddings").unwrap_or(false),
        valid_at: query.time("valid_at"),
        moment: None,
        entities: 0,
        relations: 0,
    };
    query.finish()?;
    if export.embeddings && api.engine.view().semantic().is_none() {
        return Err(no_model());
    }
    let as_of = api.moment(&context, Wait::Applied).await?;
    export.moment = as_of.map(|moment| moment.seq);
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
        None => response,
    })
}

async fn page(api: &Api, mut export: Export, stage: Stage) -> Result<(Export, Bytes, Stage), Problem> {
    api.read(move |view| {
        let past = export.moment.map(|seq| view.as_of(seq));
        let view = past.as_ref().unwrap_or(view);
        let (text, next) = match stage {
            Stage::Head => (export.head(view)?, Stage::Entities(None)),
            Stage::Entities(after) => export.entities(view, after)?,
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
            "as_of": view.moment(),
            "valid_at": self.valid_at,
        });
        Ok(match self.format {
            Format::Json => format!("{{\"export_metadata\":{metadata},\n\"entities\":["),
            Format::Lines => format!("{}\n", json!({"type": "metadata", "export_metadata": metadata})),
        })
    }

    fn tail(&self) -> String {
        match self.format {
            Format::Json => "]}\n".to_owned(),
            Format::Lines => {
                format!(
                    "{}\n",
                    json!({"type": "end", "entities": self.entities, "relations": self.relations})
                )
            }
        }
    }

    /// One row of the document; `first` of its list.
    fn row(&self, text: &mut String, mut row: Value, kind: &str, first: bool) {
        match self.format {
            Format::Json => {
                text.push_str(if first { "\n" } else { ",\n" });
                text.push_str(&row.to_string());
            }
            Format::Lines => {
                row["type"] = json!(kind);
                text.push_str(&row.to_string());
                text.push('\n');
            }
        }
    }

    fn entities(&mut self, view: &View, after: Option<MemoryId>) -> Result<(String, Stage), Problem> {
        let filter = EntityFilter {
            scopes: vec![self.scope.clone()],
            valid_at: self.valid_at,
            after,
            limit: PAGE,
            ..EntityFilter::default()
        };
        let page = view.graph().list_entities(&filter).map_err(|error| graph_failed(&error))?;
        let vectors = if self.embeddings { headers(view, &page)? } else { Vec::new() };
        let (mut text, last, len) = (String::new(), page.last().map(|entity| entity.id), page.len());
        self.entities += len;
        for (index, entity) in page.into_iter().enumerate() {
            let id = entity.id;
            let mut row = EntityRow::from(entity);
            row.observations = Some(all_observations(view, id, self.valid_at)?);
            let mut row = json!(row);
            if let Some(vector) = vectors.get(index) {
                row["embedding"] = json!(vector);
            }
            self.row(&mut text, row, "entity", after.is_none() && index == 0);
        }
        if len == PAGE {
            return Ok((text, Stage::Entities(last)));
        }
        if self.format == Format::Json {
            text.push_str("],\n\"relations\":[");
        }
        Ok((text, Stage::Relations(None)))
    }

    fn relations(&mut self, view: &View, after: Option<MemoryId>) -> Result<(String, Stage), Problem> {
        let filter = RelationFilter {
            scopes: vec![self.scope.clone()],
            valid_at: self.valid_at,
            after,
            limit: PAGE,
            ..RelationFilter::default()
        };
        let page = view.graph().list_relations(&filter).map_err(|error| graph_failed(&error))?;
        let (mut text, last, len) = (String::new(), page.last().map(|relation| relation.id), page.len());
        self.relations += len;
        for (index, row) in RelationRow::all(view, page)?.into_iter().enumerate() {
            self.row(&mut text, json!(row), "relation", after.is_none() && index == 0);
        }
        Ok((text, if len == PAGE { Stage::Relations(last) } else { Stage::Tail }))
    }
}

fn all_observations(
    view: &View,
    entity: MemoryId,
    valid_at: Option<Timestamp>,
) -> Result<Vec<ObservationRow>, Problem> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = observations(view, entity, after, valid_at, PAGE)?;
        let (len, last) = (page.len(), page.last().map(|observation| observation.id));
        rows.extend(page.into_iter().map(ObservationRow::from));
        if len < PAGE {
            return Ok(rows);
        }
        after = last;
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
