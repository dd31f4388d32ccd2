//! `caxton projection list | verify | rebuild | check`: what is folded from the log, looked after.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use caxton_events::log::open::LOG_FILE;
use caxton_events::log::{Log, LogOptions, OpenError, Reader};
use caxton_projections::embedding::Embedder;
use caxton_projections::graph::SqliteOptions;
use caxton_tools::backup::{Restored, Until};
use caxton_tools::projection::{Home, Name, RebuildOptions, Rebuilt, list, rebuild, system_room, verify};
use serde_json::{Value, json};

use super::args::{Common, ProjectionCommand, RebuildProjections};
use super::backend::{self, Backend, Http, Request};
use super::failure::{Exit, Failure};
use super::model::{self, Missing};
use super::output::{Output, cell, items};
use super::progress::Progress;
use super::{backup, log, setup};
use crate::config::Loaded;
use crate::engine::SystemClock;
use crate::model::PullOptions;

/// How long the server may hold back an answer about a rebuild that goes on.
const FOLLOW_SECONDS: &str = "20";

/// Runs a command about projections.
pub(super) fn run(command: &ProjectionCommand, common: &Common, out: &mut Output) -> Result<(), Failure> {
    if let ProjectionCommand::Rebuild(RebuildProjections {
        names, from: Some(from), into: Some(into), ..
    }) = command
    {
        let restored = backup::into_directory(from, into, (Until::End, false, None), common)?;
        return build_restored(&restored, names, common, out);
    }
    let reads_files = matches!(command, ProjectionCommand::Verify(_) | ProjectionCommand::Check);
    let server = if reads_files { backend::holding_files(common) } else { backend::running(common) }?;
    match (server, command) {
        (Some(server), ProjectionCommand::List) => list_of_server(&Backend::Http(server), out),
        (Some(server), ProjectionCommand::Rebuild(what)) => rebuild_on_server(server, what, common, out),
        (Some(server), ProjectionCommand::Verify(_) | ProjectionCommand::Check) => {
            let message = format!(
                "{} has the directory open; stop it first: this reads the files itself",
                server.url()
            );
            Err(Failure::new(Exit::Unreachable, message))
        }
        (None, ProjectionCommand::List) => {
            let (dir, reader) = (setup::existing_data_dir(common)?, log::open(common)?);
            let rows = list(&dir, &reader);
            if out.is_json() { out.json(&json!({ "projections": rows })) } else { show(&json!(rows), out) }
        }
        (None, ProjectionCommand::Verify(what)) => verify_all(&what.names, common, out),
        (None, ProjectionCommand::Check) => verify_all(&[Name::Graph], common, out),
        (None, ProjectionCommand::Rebuild(what)) => rebuild_all(what, common, out),
    }
}

/// The rows as a table.
fn show(rows: &Value, out: &mut Output) -> Result<(), Failure> {
    let rows: Vec<Vec<String>> = rows
        .as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .map(|row| {
            ["name", "version", "checkpoint", "lag", "bytes", "status", "error"]
                .map(|name| cell(row, name))
                .into()
        })
        .collect();
    out.table(&["projection", "version", "checkpoint", "lag", "bytes", "status", "error"], rows)
}

fn list_of_server(server: &Backend, out: &mut Output) -> Result<(), Failure> {
    let found = server.ask(Request::get("/api/v1/projections"))?;
    if out.is_json() { out.json(&found) } else { show(&found["projections"], out) }
}

/// What the offline programs need, in one place.
struct Place {
    dir: PathBuf,
    sqlite: SqliteOptions,
    loaded: Loaded,
    embedder: Option<Arc<dyn Embedder>>,
}

impl Place {
    /// Loads the model when `names` need it: when they are named, or when there are vectors to look after.
    fn open(names: &[Name], common: &Common) -> Result<(Self, Vec<Name>), Failure> {
        let dir = log::known_data_dir(common)?;
        let loaded = setup::load(common, Vec::new())?;
        let named = names.contains(&Name::Vectors);
        let vectors = dir.join(Name::Vectors.as_str()).exists() && !loaded.config.embedding.keyword_only;
        let wanted = if names.is_empty() {
            Name::ALL.into_iter().filter(|name| *name != Name::Vectors || vectors).collect()
        } else {
            names.to_vec()
        };
        let embedder: Option<Arc<dyn Embedder>> = if wanted.contains(&Name::Vectors) {
            if loaded.config.embedding.keyword_only && named {
                let message =
                    "the vectors need the model, and --keyword-only does without it; leave one of them out";
                return Err(Failure::new(Exit::Usage, message));
            }
            let options = PullOptions::default();
            let found = model::find_or_pull(&loaded, common, Missing::RefuseConfigured, &options)?;
            Some(setup::embedding_service(&loaded.config, &found)?)
        } else {
            None
        };
        let sqlite = setup::sqlite_options(&loaded.config);
        Ok((Self { dir, sqlite, loaded, embedder }, wanted))
    }

    fn home<'a>(&'a self, log: &'a Reader) -> Home<'a> {
        Home {
            data_dir: &self.dir,
            log,
            sqlite: &self.sqlite,
            vectors: setup::vector_options(&self.loaded.config),
            embedder: self.embedder.clone(),
        }
    }
}

fn verify_all(names: &[Name], common: &Common, out: &mut Output) -> Result<(), Failure> {
    let (place, names) = Place::open(names, common)?;
    let reader = log::open(common)?;
    let mut found = Vec::new();
    for name in names {
        let mut progress = Progress::new("folding afresh", "events", !common.no_progress);
        let verified = verify(&place.home(&reader), name, &mut |_, at, of| progress.set(at.0, of.0));
        drop(progress);
        let verified = verified.map_err(|error| Failure::of(Exit::Failed, &error))?;
        if !out.is_json() {
            out.line(&verified)?;
        }
        found.push(verified);
    }
    if out.is_json() {
        out.json(&json!({ "projections": found }))?;
    }
    let differing: Vec<&str> =
        found.iter().filter(|one| !one.equal).map(|one| one.projection.as_str()).collect();
    if differing.is_empty() {
        return Ok(());
    }
    let names = differing.join(" ");
    Err(Failure::new(
        Exit::Failed,
        format!("not what the log adds up to: {names}; `caxton projection rebuild {names}` makes it so"),
    ))
}

/// Builds what is named in the directory that was restored, or everything: the vectors too, unless there is to be no model. Shows
/// both, as one value where JSON was asked for.
pub(super) fn build_restored(
    restored: &Restored,
    names: &[Name],
    common: &Common,
    out: &mut Output,
) -> Result<(), Failure> {
    if !out.is_json() {
        out.line(restored)?;
    }
    let common = Common { data_dir: Some(restored.dir.clone()), ..common.clone() };
    let mut done = Vec::new();
    let built = named_or_all(names, &common).and_then(|names| {
        let what = RebuildProjections { names, keep_old: false, from: None, into: None };
        rebuild_each(&what, &common, out, &mut done)
    });
    if out.is_json() {
        // What was restored is there whether its projections are or not.
        out.json(&json!({ "restored": restored, "projections": done }))?;
    }
    built
}

fn named_or_all(names: &[Name], common: &Common) -> Result<Vec<Name>, Failure> {
    if !names.is_empty() {
        return Ok(names.to_vec());
    }
    let keyword_only = setup::load(common, Vec::new())?.config.embedding.keyword_only;
    Ok(Name::ALL.into_iter().filter(|name| *name != Name::Vectors || !keyword_only).collect())
}

fn rebuild_all(what: &RebuildProjections, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let mut done = Vec::new();
    rebuild_each(what, common, out, &mut done)?;
    if out.is_json() { out.json(&json!({ "projections": done })) } else { Ok(()) }
}

/// Builds them one by one, puts what became of each behind `done`, and tells people at once.
fn rebuild_each(
    what: &RebuildProjections,
    common: &Common,
    out: &mut Output,
    done: &mut Vec<Rebuilt>,
) -> Result<(), Failure> {
    let (place, names) = Place::open(&what.names, common)?;
    let log = open_alone(&place.dir)?;
    let reader = log.reader();
    for name in names {
        let mut progress = Progress::new("rebuilding", "events", !common.no_progress);
        let options = RebuildOptions { keep_old: what.keep_old, room: &system_room };
        let rebuilt = rebuild(&place.home(&reader), name, options, &mut |_, at, of| progress.set(at.0, of.0));
        drop(progress);
        let rebuilt = rebuilt.map_err(|error| Failure::of(Exit::Failed, &error))?;
        if !out.is_json() {
            out.line(&rebuilt)?;
        }
        done.push(rebuilt);
    }
    log.close().map_err(|error| Failure::of(Exit::Failed, &error))
}

/// The stopped log of `dir`, with the directory for this process alone. Nothing is appended to it.
fn open_alone(dir: &Path) -> Result<Log, Failure> {
    // Opening for writing would make a log where there is none.
    if !dir.join(LOG_FILE).exists() {
        let message = format!("there is no log in {}; name a data directory with --data-dir", dir.display());
        return Err(Failure::new(Exit::NotFound, message));
    }
    Log::open(dir, LogOptions::new([0; 16]), Arc::new(SystemClock)).map_err(|error| not_opened(&error))
}

fn not_opened(error: &OpenError) -> Failure {
    let exit = if matches!(error, OpenError::Locked { .. }) { Exit::Unreachable } else { Exit::Failed };
    Failure::of(exit, error)
}

/// Has a running server rebuild what is named, and follows it to the end.
fn rebuild_on_server(
    server: Http,
    what: &RebuildProjections,
    common: &Common,
    out: &mut Output,
) -> Result<(), Failure> {
    if what.keep_old {
        let message = "--keep-old needs a stopped server: a running one removes the old files when the new ones are in place";
        return Err(Failure::new(Exit::Usage, message));
    }
    let server = Backend::Http(server);
    let names = if what.names.is_empty() {
        let found = server.ask(Request::get("/api/v1/projections"))?;
        let there = items(&found, "projections").iter().filter(|row| cell(row, "status") != "disabled");
        there.map(|row| cell(row, "name")).collect()
    } else {
        what.names.iter().map(Name::to_string).collect::<Vec<_>>()
    };
    let mut done = Vec::new();
    for name in names {
        let mut state =
            server.ask(Request::post(&format!("/api/v1/projections/{name}/rebuild"), &json!({})))?;
        let number = state["rebuild"]["number"].clone();
        let mut progress = Progress::new("rebuilding", "events", !common.no_progress);
        while state["rebuild"]["state"] == "running" && state["rebuild"]["number"] == number {
            let at = |field: &str| state["rebuild"][field].as_u64().unwrap_or_default();
            progress.set(at("seq"), at("of"));
            state = server.ask(
                Request::get(&format!("/api/v1/projections/{name}")).with("wait_seconds", FOLLOW_SECONDS),
            )?;
        }
        drop(progress);
        if state["rebuild"]["state"] == "failed" {
            let message =
                format!("{name} was not rebuilt and stays as it was: {}", cell(&state["rebuild"], "error"));
            return Err(Failure::new(Exit::Failed, message));
        }
        if !out.is_json() {
            let seconds = cell(&state["rebuild"], "seconds");
            out.line(format_args!(
                "{name} rebuilt up to #{} in {seconds} s",
                cell(&state["rebuild"], "seq")
            ))?;
        }
        done.push(state);
    }
    if out.is_json() { out.json(&json!({ "projections": done })) } else { Ok(()) }
}
