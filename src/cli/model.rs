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
use crate::model::{self, PullError, PullOptions};

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
    let options = PullOptions::default();
    let (model, dir) = match name {
        ModelName::Minilm => (&ALL_MINILM_L6_V2, find_or_pull(&loaded, common, Missing::Fetch, &options)?),
        ModelName::Smollm2 => {
            let model = &SMOLLM2_135M_INSTRUCT;
            let data_dir = &loaded.config.server.data_dir;
            let places = model_files::Places { configured: None, ..model::places(None, Some(data_dir)) };
            let candidates = model_files::candidates(&places, model);
            let places = (&candidates[..], &places);
            (model, found_or_fetched(model, places, &loaded, common, Missing::Fetch, &options)?)
        }
    };
    if out.is_json() {
        return out.json(&json!({ "model": model.name, "dir": dir }));
    }
    out.line(format_args!("{} is in {}, verified", model.name, dir.display()))
}

/// `caxton embed`.
pub(super) fn embed(embed: &EmbedText, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let text = if embed.text == "-" { read_text(io::stdin())? } else { embed.text.clone() };
    if text.trim().is_empty() {
        return Err(Failure::new(Exit::Usage, "the text is empty; say something"));
    }
    let loaded = setup::load(common, Vec::new())?;
    let dir = find_or_pull(&loaded, common, Missing::RefuseConfigured, &PullOptions::default())?;
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

/// A text to its end: the beginning of one would have another vector than the whole.
fn read_text(input: impl io::Read) -> Result<String, Failure> {
    let unreadable = |error: io::Error| Failure::file("read", Path::new("-"), &error);
    let mut bytes = Vec::new();
    // One more than there may be tells whether there is more.
    input.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        let message = format!("the text has more than {TEXT_BYTES_MAX} bytes; give a shorter one");
        return Err(Failure::new(Exit::Usage, message));
    }
    String::from_utf8(bytes)
        .map_err(|error| unreadable(io::Error::new(io::ErrorKind::InvalidData, error.utf8_error())))
}

/// What happens when no folder has the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is fetched, also where files of it are there and damaged: into the folder that was named, or else into the cache.
    Fetch,
    /// A folder that was named is taken at its word: a copy was said to be there. Otherwise it is fetched.
    RefuseConfigured,
}

/// The folder of the whole and verified model. A pull that `options` stop is no fault.
pub(super) fn find_or_pull(
    loaded: &Loaded,
    common: &Common,
    missing: Missing,
    options: &PullOptions,
) -> Result<PathBuf, Failure> {
    let (candidates, places) = where_it_may_be(loaded);
    found_or_fetched(&ALL_MINILM_L6_V2, (&candidates, &places), loaded, common, missing, options)
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
    (candidates, places): (&[PathBuf], &model_files::Places),
    loaded: &Loaded,
    common: &Common,
    missing: Missing,
    options: &PullOptions,
) -> Result<PathBuf, Failure> {
    let destination = match (&places.configured, &places.home) {
        (Some(configured), _) => configured.clone(),
        (None, Some(home)) => home.join(".cache/caxton/models").join(model.name),
        (None, None) => loaded.config.server.data_dir.join("models").join(model.name),
    };
    match model_files::find_model(candidates, model) {
        Finding::Found(found) => Ok(found.dir),
        Finding::Damaged(damages) if missing == Missing::Fetch => {
            say(&format!("the files of {} are fetched again: {}", model.name, wrong(&damages)));
            fetch(model, &destination, common, options)
        }
        Finding::Damaged(damages) => Err(Failure::new(Exit::Failed, damaged(model, &damages))),
        Finding::Missing if missing == Missing::RefuseConfigured && places.configured.is_some() => {
            Err(Failure::new(Exit::NotFound, not_where_named(&destination, candidates)))
        }
        Finding::Missing => fetch(model, &destination, common, options),
    }
}

/// What is wrong with files that are there, without what to do about it: that is done.
fn wrong(damages: &[Damage]) -> String {
    let said = damages.iter().map(|damage| match damage {
        Damage::Absent { path } => format!("{} is missing", path.display()),
        Damage::Size { path, bytes, expected } => {
            format!("{} has {bytes} bytes instead of {expected}", path.display())
        }
        Damage::Checksum { path, sha256, expected } => {
            format!("{} has SHA-256 {sha256} instead of {expected}", path.display())
        }
        Damage::Unreadable { .. } => chain(damage),
    });
    said.collect::<Vec<_>>().join("; ")
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

fn fetch(
    model: &'static LockedModel,
    destination: &Path,
    common: &Common,
    options: &PullOptions,
) -> Result<PathBuf, Failure> {
    let mut bar = Progress::new("fetching the model", "bytes", !common.no_progress);
    say(&format!("fetching {} into {}", model.name, destination.display()));
    let pulled = model::pull(model, destination, options, &mut |step| match step {
        model::Progress::Asking { source } => say(&format!("asking {source}")),
        model::Progress::Transferred { bytes, total, .. } => bar.set(bytes, total),
        model::Progress::Failed { source, reason } => say(&format!("{source}: {reason}")),
        model::Progress::Installed { .. } => (),
    });
    match pulled {
        Ok(found) => Ok(found.dir),
        Err(error @ PullError::Stopped { .. }) => {
            say(&error.to_string());
            Err(Failure::asked_for())
        }
        Err(error) => Err(Failure::of(Exit::Failed, &error)),
    }
}

fn say(text: &str) {
    // A terminal that has gone does not stop the download.
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs;
    use std::io::{self, Read as _};
    use std::sync::Arc;

    use clap::Parser as _;

    use super::super::args::Args;
    use super::{
        ALL_MINILM_L6_V2, Damage, Exit, Failure, Missing, PullOptions, TEXT_BYTES_MAX, found_or_fetched,
        model_files, read_text, wrong,
    };
    use crate::config::load_text;

    /// What comes of a folder whose weights are cut short, where no source answers.
    fn with_half_a_model(missing: Missing, stops: bool) -> Failure {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(model_files::WEIGHTS), "half").unwrap();
        let named = [folder.path().to_path_buf()];
        let places =
            model_files::Places { configured: named.first().cloned(), ..model_files::Places::default() };
        let (loaded, args) = (load_text("").unwrap(), Args::try_parse_from(["caxton", "status"]).unwrap());
        let options = PullOptions {
            hub_url: Some("http://127.0.0.1:1/model".to_owned()),
            pips: Vec::new(),
            stop: Arc::new(stops.into()),
        };
        let found =
            found_or_fetched(&ALL_MINILM_L6_V2, (&named, &places), &loaded, &args.common, missing, &options);
        found.unwrap_err()
    }

    #[test]
    fn a_pull_fetches_a_damaged_model_again_and_a_start_refuses_it() {
        let refused = with_half_a_model(Missing::RefuseConfigured, false).to_string();
        assert!(refused.starts_with("the model all-MiniLM-L6-v2 is damaged: "), "{refused}");
        let failed = with_half_a_model(Missing::Fetch, false);
        assert_eq!(failed.exit, Some(Exit::Failed));
        assert!(failed.to_string().starts_with("could not fetch all-MiniLM-L6-v2: "), "{failed}");
        let path = "m/config.json".into();
        let told =
            wrong(&[Damage::Absent { path }, Damage::Size { path: "n".into(), bytes: 1, expected: 2 }]);
        assert_eq!(told, "m/config.json is missing; n has 1 bytes instead of 2");
    }

    #[test]
    fn a_download_that_is_broken_off_as_asked_is_no_fault() {
        assert_eq!(with_half_a_model(Missing::Fetch, true).exit, None);
    }

    #[test]
    fn a_text_is_read_to_its_end_or_refused() {
        let signs = |count: u64| read_text(io::repeat(b'a').take(count));
        assert_eq!(signs(TEXT_BYTES_MAX).unwrap().len() as u64, TEXT_BYTES_MAX);
        let refused = signs(TEXT_BYTES_MAX + 1).unwrap_err();
        assert_eq!(refused.exit, Some(Exit::Usage));
        assert_eq!(refused.to_string(), "the text has more than 1048576 bytes; give a shorter one");
        // A limit that cuts a sign in two is not blamed on the sign.
        let long = "ä".repeat(TEXT_BYTES_MAX as usize);
        assert_eq!(read_text(long.as_bytes()).unwrap_err().exit, Some(Exit::Usage));
        let told = read_text(&b"a\xff"[..]).unwrap_err().to_string();
        assert!(told.starts_with("could not read -: invalid utf-8"), "{told}");
    }
}
