//! The REST door: routes under `/api/v1` over the engine, problems as `application/problem+json`.
//!
//! Reading order: [`options`] (what it is told), [`serve`] (connections), `routes` (what there is), `middleware` (what
//! happens around every request), `call`, `json` and `fields` (how a request is read), `refusals` (the one table from errors to
//! statuses), then one file per resource.

mod audit;
mod backup;
mod batch;
mod buffers;
mod call;
mod caller;
mod config_agents;
mod contents;
mod embeddings;
mod entities;
mod entity_writes;
mod erase;
mod events;
mod events_export;
mod export;
mod fields;
mod graph_walk;
mod health;
mod ids;
mod import;
mod import_rows;
mod json;
mod lines;
mod log_proofs;
mod log_seal;
mod mcp_lines;
mod memory_diff;
mod meter;
mod middleware;
mod moment;
mod observations;
mod options;
mod problem;
mod projections;
mod reads;
#[cfg(test)]
mod recorded_tests;
mod refusals;
mod relations;
mod routes;
mod rows;
mod search;
mod serve;
mod stats;
mod stream;
mod talk;
mod undo;
#[cfg(test)]
mod waiting_tests;
mod wanted;
mod watch;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub use backup::BackupFiles;
pub use caller::ScopeKind;
pub use health::LOG_ID_HEADER;
pub use middleware::Formats;
pub use options::{ApiKeys, Compression, Measure, RestOptions, SearchDefaults};
pub use routes::router;
#[doc(hidden)]
pub use serve::serve_unlogged;
pub use serve::{ServeError, serve};

use crate::engine::Engine;
use meter::Meter;
use middleware::{Bodies, request_id::RequestIds};
use reads::Turns;

/// What every handler has at hand.
#[derive(Clone)]
struct Api(Arc<Shared>);

struct Shared {
    engine: Engine,
    options: RestOptions,
    /// Whether requests are taken by where they come from: nobody needs a key, and only this machine reaches the door.
    guards_hosts: bool,
    turns: Turns,
    /// Of requests for embeddings.
    embeddings: Turns,
    /// Of making the whole graph's file once more for an export.
    copies: Turns,
    /// Of such files that are there until they are sent: each takes the graph's room on the disk.
    open_copies: Turns,
    bodies: Bodies,
    /// Those of requests for embeddings.
    embedding_bodies: Bodies,
    request_ids: RequestIds,
    meter: Meter,
    checks: health::Checks,
    interventions: moment::Interventions,
    folds: talk::past::Folds,
    agent_lists: config_agents::KeptLists,
    started: Instant,
    leaving: AtomicBool,
}

impl Api {
    /// `is_local`: only this machine reaches the door.
    fn new(engine: Engine, options: RestOptions, is_local: bool) -> Self {
        buffers::keep(options.buffers_max);
        let api = Self(Arc::new(Shared {
            turns: Turns::new(options.reads_max, options.reads_waiting_max, "too many reads are waiting"),
            embeddings: Turns::new(
                options.embeddings_max,
                options.reads_waiting_max,
                "too many requests for embeddings are waiting",
            ),
            copies: Turns::new(1, 0, "another export as an SQLite file is being made"),
            open_copies: Turns::new(
                events_export::OPEN_COPIES_MAX,
                0,
                "too many exports as an SQLite file are being sent",
            ),
            bodies: Bodies::new(options.bodies_bytes_max),
            embedding_bodies: Bodies::new(options.bodies_bytes_max / 4),
            request_ids: RequestIds::new(),
            meter: Meter::default(),
            checks: health::Checks::default(),
            interventions: moment::Interventions::default(),
            folds: talk::past::Folds::default(),
            agent_lists: config_agents::KeptLists::default(),
            started: Instant::now(),
            leaving: AtomicBool::new(false),
            guards_hosts: is_local && options.api_keys.is_none(),
            engine,
            options,
        }));
        // It has the engine, which keeps this.
        let shared = Arc::downgrade(&api.0);
        api.engine.when_erased(move || {
            if let Some(shared) = shared.upgrade() {
                shared.folds.forget();
            }
        });
        api
    }

    /// Whether the door closes: then who waits is answered with what there is, and streams end.
    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed) || self.engine.is_stopping()
    }
}

impl Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
