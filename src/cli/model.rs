//! `caxton model pull` and `caxton embed`; finding the model, and fetching it where it is missing.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use caxton_projections::embedding::model_files::{
    self, ALL_MINILM_L6_V2, Damage, Finding, LockedModel, SMOLLM2_135M_INSTRUCT,
};
use caxton_projections::embedding::{EmbedError, Embedder as _, ModelIdentity};
use serde_json::json;

use super::args::{Common, EmbedText, ModelCommand, ModelName};
use super::failure::{Exit, Failure};
use super::output::Output;
use super::progress::Progress;
use super::setup;
use crate::config::Loaded;
use crate::failure::chain;
use crate::model::{self, PullOptions};

/// Key that names the folder of the model.
pub(super) const PATH_KEY: &str = "memory.embedding_config.model_path";
/// Longest text that is read from standard input, in bytes.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Numbers of a vector that are shown to people.
const SHOWN_NUMBERS: usize = 6;

/// `caxton model pull`.
pub(super) fn run(command: &ModelCommand, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let ModelCommand::Pull { name } = command;
    let loaded = setup::load(common, Vec::new())?;
    let (model, dir) = match name {
        ModelName::Minilm => (&ALL_MINILM_L6_V2, find_or_pull(&loaded, common, Missing::Fetch)?),
        ModelName::Smollm2 => {
            let model = &SMOLLM2_135M_INSTRUCT;
            let data_dir = &loaded.config.server.data_dir;
            let places = model_files::Places { configured: None, ..model::places(None, Some(data_dir)) };
            let candidates = model_files::candidates(&places, model);
            (model, found_or_fetched(model, &candidates, &places, &loaded, common, Missing::Fetch)?)
        }
    };
    if out.is_json() {
        return out.json(&json!({ "model": model.name, "dir": dir }));
    }
    out.line(format_args!("{} is in {}, verified", model.name, dir.display()))
}

/// `caxton embed`.
pub(super) fn embed(embed: &EmbedText, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let mut text = embed.text.clone();
    if text == "-" {
        text.clear();
        io::stdin()
            .take(TEXT_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| Failure::file("read", Path::new("-"), &error))?;
    }
    if text.trim().is_empty() {
        return Err(Failure::new(Exit::Usage, "the text is empty; say something"));
    }
    let loaded = setup::load(common, Vec::new())?;
    let dir = find_or_pull(&loaded, common, Missing::RefuseConfigured)?;
    let service = setup::embedding_service(&loaded.config, &dir)?;
    let vector = service.embed_query(&text).map_err(|error: EmbedError| Failure::of(Exit::Failed, &error))?;
    let tokens = service.count_tokens(&text);
    if out.is_json() {
        let ModelIdentity { name, precision, .. } = service.identity();
        return out.json(&json!({
            "model": name,
            "precision": precision,
            "instructions": service.instructions(),
            "tokens": tokens,
            "embedding": &vector[..],
        }));
    }
    let shown: Vec<String> = vector.iter().take(SHOWN_NUMBERS).map(|number| format!("{number:.4}")).collect();
    out.line(format_args!("{} numbers from {tokens} tokens: {} …", vector.len(), shown.join(" ")))
}

/// What happens when no folder has the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is fetched: into the folder that was named, or else into the cache.
    Fetch,
    /// A folder that was named is taken at its word: a copy was said to be there. Otherwise it is fetched.
    RefuseConfigured,
}

/// The folder of the whole and verified model.
pub(super) fn find_or_pull(loaded: &Loaded, common: &Common, missing: Missing) -> Result<PathBuf, Failure> {
    let (candidates, places) = where_it_may_be(loaded);
    found_or_fetched(&ALL_MINILM_L6_V2, &candidates, &places, loaded, common, missing)
}

/// The folder of the whole and verified model where it is on this machine; nothing is fetched.
pub(super) fn found_here(loaded: &Loaded) -> Option<PathBuf> {
    let (candidates, _) = where_it_may_be(loaded);
    match model_files::find_model(&candidates, &ALL_MINILM_L6_V2) {
        Finding::Found(found) => Some(found.dir),
        Finding::Missing | Finding::Damaged(_) => None,
    }
}

/// Why a server does not start with the folder that the configuration names; `None` when the model is there, or none is named.
pub(super) fn named_in_vain(loaded: &Loaded) -> Option<String> {
    // A folder that the environment names is not the configuration's.
    loaded.origin(PATH_KEY)?;
    let (candidates, places) = where_it_may_be(loaded);
    let named = places.configured?;
    match model_files::find_model(&candidates, &ALL_MINILM_L6_V2) {
        Finding::Found(_) => None,
        Finding::Damaged(damages) => Some(damaged(&ALL_MINILM_L6_V2, &damages)),
        Finding::Missing => Some(not_where_named(&named, &candidates)),
    }
}

fn where_it_may_be(loaded: &Loaded) -> (Vec<PathBuf>, model_files::Places) {
    let config = &loaded.config;
    let path = &config.memory.embedding_config.model_path;
    let configured = loaded.origin(PATH_KEY).map(|_| path.as_path());
    let places = model::places(configured, Some(&config.server.data_dir));
    let mut candidates = model_files::candidates(&places, &ALL_MINILM_L6_V2);
    if places.configured.is_none() {
        candidates.insert(0, path.join(ALL_MINILM_L6_V2.name));
    }
    (candidates, places)
}

/// The folder among `candidates` that holds `model`, whole; else where it was fetched to.
fn found_or_fetched(
    model: &'static LockedModel,
    candidates: &[PathBuf],
    places: &model_files::Places,
    loaded: &Loaded,
    common: &Common,
    missing: Missing,
) -> Result<PathBuf, Failure> {
    let destination = match (&places.configured, &places.home) {
        (Some(configured), _) => configured.clone(),
        (None, Some(home)) => home.join(".cache/caxton/models").join(model.name),
        (None, None) => loaded.config.server.data_dir.join("models").join(model.name),
    };
    match model_files::find_model(candidates, model) {
        Finding::Found(found) => Ok(found.dir),
        Finding::Damaged(damages) => Err(Failure::new(Exit::Failed, damaged(model, &damages))),
        Finding::Missing if missing == Missing::RefuseConfigured && places.configured.is_some() => {
            Err(Failure::new(Exit::NotFound, not_where_named(&destination, candidates)))
        }
        Finding::Missing => fetch(model, &destination, common),
    }
}

/// What is wrong with files that are there.
fn damaged(model: &LockedModel, damages: &[Damage]) -> String {
    let said: Vec<String> = damages.iter().map(|damage| chain(damage)).collect();
    format!("the model {} is damaged: {}", model.name, said.join("; "))
}

/// What was looked for in vain, and what to do.
fn not_where_named(named: &Path, candidates: &[PathBuf]) -> String {
    let files: Vec<&str> = ALL_MINILM_L6_V2.files.iter().map(|file| file.name).collect();
    let folders: Vec<String> = candidates.iter().map(|folder| folder.display().to_string()).collect();
    let dir = named.display();
    format!(
        "the embedding model is not in {dir}, which was named as its folder: looked for {} in {}; name a folder that \
         has them, fetch them with `caxton model pull --model-path {dir}`, or search by words with --keyword-only",
        files.join(", "),
        folders.join(" and ")
    )
}

fn fetch(model: &'static LockedModel, destination: &Path, common: &Common) -> Result<PathBuf, Failure> {
    let mut bar = Progress::new("fetching the model", "bytes", !common.no_progress);
    let say = |text: String| {
        // A terminal that has gone does not stop the download.
        let _ = writeln!(io::stderr(), "{text}");
    };
    say(format!("fetching {} into {}", model.name, destination.display()));
    let pulled = model::pull(model, destination, &PullOptions::default(), &mut |step| match step {
        model::Progress::Asking { source } => say(format!("asking {source}")),
        model::Progress::Transferred { bytes, total, .. } => bar.set(bytes, total),
        model::Progress::Failed { source, reason } => say(format!("{source}: {reason}")),
        model::Progress::Installed { .. } => (),
    });
    match pulled {
        Ok(found) => Ok(found.dir),
        Err(error) => Err(Failure::of(Exit::Failed, &error)),
    }
}
