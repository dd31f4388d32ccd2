//! Reading entities: a page, one, and what became of it.

use std::collections::HashMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use caxton_events::limits::CONTENTS_BYTES_MAX;
use caxton_events::memory::Validity;
use caxton_events::{MemoryId, Scope, Seq, Timestamp};
use caxton_projections::graph::{
    Entity, EntityFilter, Fact, HistoryQuery, HistoryRow, Observation, Relation,
};
use caxton_projections::view::{View, Wait};
use serde::Serialize;
use serde_json::{Value, json};

use super::Api;
use super::call::{Call, ReadContext};
use super::contents::{Room, of_entity};
use super::fields::Fields;
use super::ids::{Row, cursor_after, cursor_place};
use super::middleware::Version;
use super::problem::{Problem, shortened};
use super::refusals::graph_failed;
use super::rows::{self, EntityRow, ObservationRow, RelationRow, find_entity, names_of};

/// Observations shown with an entity.
const OBSERVATIONS_SHOWN: usize = 100;
/// Observations read at a time: each has up to 1 MiB.
const READ_AT_ONCE: usize = 16;

/// Which page is asked for.
pub(super) struct Page {
    /// At most so many items.
    pub(super) limit: usize,
    cursor: Option<String>,
    query: String,
}

impl Page {
    /// Parameters of every page.
    pub(super) const QUERY: &[&str] = &["limit", "cursor"];

    /// Reads it from the query string.
    pub(super) fn take(api: &Api, call: &Call, query: &mut Fields) -> Self {
        let limit = query.integer("limit", 1..=api.options.page_size_max as u64);
        Self {
            limit: limit.map_or(api.options.page_size_default, |limit| limit as usize),
            cursor: query.text("cursor"),
            query: call.page_query(),
        }
    }

    /// The id that the page starts after.
    ///
    /// # Errors
    ///
    /// A [`Problem`] for a broken cursor.
    pub(super) fn after(&self) -> Result<Option<u64>, Problem> {
        self.cursor.as_deref().map(|cursor| cursor_place(cursor, &self.query)).transpose()
    }

    /// Cuts `items`, which were asked for with one more than the limit, and gives the next page's cursor.
    pub(super) fn cut<T>(&self, items: &mut Vec<T>, id: impl Fn(&T) -> u64) -> Option<String> {
        if items.len() <= self.limit {
            return None;
        }
        items.truncate(self.limit);
        items.last().map(|last| self.cursor_at(id(last)))
    }

    /// The same, cut besides to the contents that one answer holds: `bytes` of each item.
    pub(super) fn cut_to_room<T>(
        &self,
        items: &mut Vec<T>,
        id: impl Fn(&T) -> u64,
        bytes: impl Fn(&T) -> usize,
    ) -> Option<String> {
        let fitting = Room::default().takes_first(items, bytes);
        if fitting > self.limit || fitting == items.len() {
            return self.cut(items, id);
        }
        items.truncate(fitting);
        items.last().map(|last| self.cursor_at(id(last)))
    }

    /// The cursor of a page that starts after `id`.
    pub(super) fn cursor_at(&self, id: u64) -> String {
        cursor_after(id, &self.query)
    }

    /// The place that the page starts after, and what the first page was bound to.
    ///
    /// # Errors
    ///
    /// A [`Problem`] for a broken cursor.
    pub(super) fn after_bound(&self) -> Result<Option<(u64, u64)>, Problem> {
        let Some(cursor) = self.cursor.as_deref() else { return Ok(None) };
        let parts = cursor.rsplit_once('.').and_then(|(front, bound)| Some((front, bound.parse().ok()?)));
        let (front, bound) = parts.unwrap_or((cursor, 0));
        Ok(Some((cursor_place(front, &self.bound_query(bound))?, bound)))
    }

    /// The cursor of a page that starts after `id`, of a list that ends at `bound`.
    pub(super) fn cursor_bound(&self, id: u64, bound: u64) -> String {
        format!("{}.{bound}", cursor_after(id, &self.bound_query(bound)))
    }

    fn bound_query(&self, bound: u64) -> String {
        format!("{}\n{bound}", self.query)
    }
}

/// `GET /memory/entities`: entities in the order of their ids.
pub(super) async fn list(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let own: &[&str] = &["entity_types", "name_prefix", "valid_at", "include_observations"];
    let mut query = call.query(&[ReadContext::QUERY[0], ReadContext::QUERY[1], Page::QUERY, own])?;
    let context = ReadContext::take(&call, &mut query);
    let page = Page::take(&api, &call, &mut query);
    let mut filter = EntityFilter {
        scopes: context.scopes.clone(),
        entity_types: query.types("entity_types"),
        name_prefix: query.text("name_prefix"),
        valid_at: query.time("valid_at"),
        after: None,
        limit: page.limit + 1,
    };
    let with_observations = query.flag("include_observations").unwrap_or(false);
    query.finish()?;
    filter.after = page.after()?.map(MemoryId);
    let valid_at = filter.valid_at;
    let moment = api.moment(&context, Wait::Applied).await?;
    api.query_at(moment, move |view| {
        let entities = view.graph().list_entities(&filter).map_err(|error| graph_failed(&error))?;
        let mut goes_on = entities.len() > page.limit;
        let (mut shown, mut last, mut room) = (Vec::new(), None, Room::default());
        for entity in entities.into_iter().take(page.limit) {
            let (id, mut bytes) = (entity.id, of_entity(&entity));
            let mut row = EntityRow::from(entity);
            with_count(view, id, valid_at, &mut row)?;
            if with_observations {
                bytes += with_texts(view, id, valid_at, &mut row)?;
            }
            // On the next page it is the first, and shown whole.
            if !room.takes(bytes) {
                goes_on = true;
                break;
            }
            last = Some(id);
            shown.push(row);
        }
        let next_cursor = last.filter(|_| goes_on).map(|id| page.cursor_at(id.0));
        let count = shown.len();
        rows::shown(view, &json!({"entities": shown, "count": count, "next_cursor": next_cursor}))
    })
    .await
}

/// With the number of its observations: of those that are true at `valid_at`.
fn with_count(
    view: &View,
    id: MemoryId,
    valid_at: Option<Timestamp>,
    row: &mut EntityRow,
) -> Result<(), Problem> {
    let count = match valid_at {
        None => view.graph().observation_count(id),
        Some(at) => view.graph().observation_count_at(id, at),
    };
    row.observation_count = Some(count.map_err(|error| graph_failed(&error))?);
    Ok(())
}

/// With its first observations, as many as one answer holds: those that are true at `valid_at`. How many bytes they have.
fn with_texts(
    view: &View,
    id: MemoryId,
    valid_at: Option<Timestamp>,
    row: &mut EntityRow,
) -> Result<usize, Problem> {
    let (texts, _) = observations(view, id, None, valid_at, OBSERVATIONS_SHOWN, &mut Room::default())?;
    let bytes = texts.iter().map(|text| text.content.len()).sum();
    row.observations = Some(texts.into_iter().map(ObservationRow::from).collect());
    Ok(bytes)
}

/// Up to `limit` observations of an entity behind the one given that are true at `valid_at`, and whether it ended before that
/// because there is no `room` for the next one.
pub(super) fn observations(
    view: &View,
    entity: MemoryId,
    after: Option<MemoryId>,
    valid_at: Option<Timestamp>,
    limit: usize,
    room: &mut Room,
) -> Result<(Vec<Observation>, bool), Problem> {
    let is_true = |row: &Observation| valid_at.is_none_or(|at| row.validity.contains(at));
    let rows = READ_AT_ONCE.min(limit.max(1));
    let read = view.graph().at_once(|graph| {
        let (mut found, mut after) = (Vec::new(), after.unwrap_or_default());
        loop {
            let page = graph.observations_of(entity, after, rows)?;
            let is_last = page.len() < rows;
            after = page.last().map_or(after, |last| last.id);
            for row in page.into_iter().filter(is_true) {
                if found.len() == limit {
                    return Ok((found, false));
                }
                if !room.takes(row.content.len()) {
                    return Ok((found, true));
                }
                found.push(row);
            }
            if is_last || found.len() == limit {
                return Ok((found, false));
            }
        }
    });
    read.map_err(|error| graph_failed(&error))
}

/// Refuses an entity that is not true at the time asked about, as lists and searches leave it out.
///
/// # Errors
///
/// A [`Problem`]: 404 with the time at which it is true.
pub(super) fn must_be_true(entity: &Entity, valid_at: Option<Timestamp>) -> Result<(), Problem> {
    let Some(at) = valid_at.filter(|at| !entity.validity.contains(*at)) else { return Ok(()) };
    let Validity { from, to } = entity.validity;
    let bounds = [("valid_from", from), ("valid_to", to)];
    let shown: Vec<String> =
        bounds.iter().filter_map(|(name, bound)| bound.map(|bound| format!("{name} {bound}"))).collect();
    let (id, name) = (Row::Entity.show(entity.id), shortened(&entity.name));
    let detail = format!("entity {name:?} ({id}) is there but not true at {at}: it has {}", shown.join(", "));
    Err(Problem::new(StatusCode::NOT_FOUND, Row::Entity.not_found(), detail)
        .field("valid_at")
        .value(&at.to_string())
        .detail("entity_id", id)
        .detail("valid_from", json!(from))
        .detail("valid_to", json!(to))
        .remedy("leave valid_at out, or give a time from its valid_from on and before its valid_to"))
}

/// `GET /memory/entities/{id or name}`: one entity with its first observations.
pub(super) async fn get(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let own: &[&str] = &["include_observations", "valid_at"];
    let mut query = call.query(&[ReadContext::QUERY[0], ReadContext::QUERY[1], own])?;
    let context = ReadContext::take(&call, &mut query);
    let with_observations = query.flag("include_observations").unwrap_or(true);
    let valid_at = query.time("valid_at");
    query.finish()?;
    let moment = api.moment(&context, Wait::Applied).await?;
    let text = call.path("entity").to_owned();
    api.query_at(moment, move |view| {
        let entity = find_entity(view, &text, &context.scopes)?;
        must_be_true(&entity, valid_at)?;
        let (id, version) = (entity.id, entity.version);
        view.shown([id]);
        let mut row = EntityRow::from(entity);
        with_count(view, id, valid_at, &mut row)?;
        if with_observations {
            with_texts(view, id, valid_at, &mut row)?;
        }
        let mut response = rows::shown(view, &row)?;
        response.extensions_mut().insert(Version { version, id });
        Ok(response)
    })
    .await
}

/// One version of one row.
#[derive(Serialize)]
struct VersionRow {
    seq: Seq,
    recorded_at: Timestamp,
    agent_id: String,
    removed_seq: Option<Seq>,
    removed_at: Option<Timestamp>,
    kind: &'static str,
    #[serde(flatten)]
    fact: Value,
}

impl VersionRow {
    fn new(view: &View, row: HistoryRow, visible: &[Scope]) -> Result<Self, Problem> {
        let (kind, fact) = match row.fact {
            Fact::Entity(entity) => ("entity", json!({"entity": EntityRow::from(entity)})),
            Fact::Observation(observation) => {
                ("observation", json!({"observation": ObservationRow::from(observation)}))
            }
            Fact::Relation(relation) => {
                let names = names_then(view, row.created_seq, &relation, visible)?;
                ("relation", json!({"relation": RelationRow::new(relation, &names)}))
            }
        };
        Ok(Self {
            seq: row.created_seq,
            recorded_at: row.created_at,
            agent_id: row.actor,
            removed_seq: row.removed_seq,
            removed_at: row.removed_at,
            kind,
            fact,
        })
    }
}

/// The names that the ends of a relation had when the record `at` wrote this version of it. An end of which nothing of
/// that time is kept has the name that `view` knows, and one in none of the scopes that are `visible` has no name.
fn names_then(
    view: &View,
    at: Seq,
    relation: &Relation,
    visible: &[Scope],
) -> Result<HashMap<MemoryId, String>, Problem> {
    let ends = [relation.from, relation.to];
    let mut names = names_of(&view.as_of(at), ends.into_iter(), Some(visible))?;
    if ends.iter().any(|end| !names.contains_key(end)) {
        for (id, name) in names_of(view, ends.into_iter(), Some(visible))? {
            names.entry(id).or_insert(name);
        }
    }
    Ok(names)
}

/// `GET /memory/entities/{id or name}/history`: every version of the entity, its observations and its relations. A
/// removed entity is found by its id.
pub(super) async fn history(State(api): State<Api>, call: Call) -> Result<Response, Problem> {
    let mut query = call.query(&[ReadContext::QUERY[0], ReadContext::QUERY[1], Page::QUERY])?;
    let context = ReadContext::take(&call, &mut query);
    let page = Page::take(&api, &call, &mut query);
    query.finish()?;
    let after = page.after()?.map_or(Seq::ZERO, Seq);
    let moment = api.moment(&context, Wait::Applied).await?;
    let text = call.path("entity").to_owned();
    api.query_at(moment, move |view| {
        let id = once_entity(view, &text, &context.scopes)?;
        let visible = context.caller.visible();
        let query = HistoryQuery {
            entity: id,
            scopes: context.scopes,
            after,
            limit: page.limit,
            bytes: CONTENTS_BYTES_MAX,
        };
        let found = view.graph().history_page(&query).map_err(|error| graph_failed(&error))?;
        let last = found.rows.last().filter(|_| !found.is_last);
        let next_cursor = last.map(|last| page.cursor_at(last.created_seq.0));
        let versions = found.rows.into_iter().map(|row| VersionRow::new(view, row, &visible));
        let versions = versions.collect::<Result<Vec<_>, _>>()?;
        let answer = json!({
            "entity_id": Row::Entity.show(id),
            "versions": versions,
            "next_cursor": next_cursor,
        });
        rows::shown(view, &answer)
    })
    .await
}

/// The number of an entity that is there, or once was.
fn once_entity(view: &View, text: &str, scopes: &[Scope]) -> Result<MemoryId, Problem> {
    let missing = match find_entity(view, text, scopes) {
        Ok(entity) => return Ok(entity.id),
        Err(problem) => problem,
    };
    let Some(id) = Row::Entity.parse(text).filter(|_| missing.status() == StatusCode::NOT_FOUND) else {
        return Err(missing);
    };
    let was_there = view.graph().entity_was_in(id, scopes).map_err(|error| graph_failed(&error))?;
    if was_there { Ok(id) } else { Err(missing) }
}
