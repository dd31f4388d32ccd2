//! The models on this machine: where they lie, and how they get here.

pub mod pull;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use caxton_projections::embedding::model_files::{self, Finding, Places, SMOLLM2_135M_INSTRUCT};

pub use pull::{Progress, PullError, PullOptions, pull};

/// Where the model may lie, as this machine's environment has it.
///
/// `configured` is the folder that the configuration names; without one, `CAXTON_MODEL_DIR` counts.
pub fn places(configured: Option<&Path>, data_dir: Option<&Path>) -> Places {
    places_in(&|name| std::env::var_os(name), configured, data_dir)
}

fn places_in(
    env: &dyn Fn(&str) -> Option<OsString>,
    configured: Option<&Path>,
    data_dir: Option<&Path>,
) -> Places {
    let path = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = path("HOME");
    let pythons = [
        path("VIRTUAL_ENV").map(|venv| venv.join("lib")),
        home.as_ref().map(|home| home.join(".local/lib")),
        Some(PathBuf::from("/usr/local/lib")),
        Some(PathBuf::from("/usr/lib")),
    ];
    Places {
        configured: configured.map(Path::to_path_buf).or_else(|| path("CAXTON_MODEL_DIR")),
        data_dir: data_dir.map(Path::to_path_buf),
        hub_cache: path("HF_HUB_CACHE").or_else(|| path("HF_HOME").map(|home| home.join("hub"))),
        home,
        site_packages: pythons.iter().flatten().flat_map(|lib| site_packages(lib)).collect(),
    }
}

/// The verified file of the small language model, `None` when it is nowhere whole.
pub fn small_language_model(data_dir: Option<&Path>) -> Option<PathBuf> {
    // `CAXTON_MODEL_DIR` is of the embedding model alone.
    let places = Places { configured: None, ..places(None, data_dir) };
    let candidates = model_files::candidates(&places, &SMOLLM2_135M_INSTRUCT);
    match model_files::find_model(&candidates, &SMOLLM2_135M_INSTRUCT) {
        Finding::Found(found) => Some(found.dir.join(SMOLLM2_135M_INSTRUCT.weights()?.name)),
        Finding::Missing | Finding::Damaged(_) => None,
    }
}

/// The folders of Python packages under `lib`, sorted so that each start looks in the same order.
fn site_packages(lib: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(lib) else { return Vec::new() };
    let mut pythons: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .flat_map(|entry| ["site-packages", "dist-packages"].map(|folder| entry.path().join(folder)))
        .filter(|folder| folder.is_dir())
        .collect();
    pythons.sort();
    pythons
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::*;

    #[test]
    fn the_environment_says_where_to_look() {
        let home = tempfile::tempdir().unwrap();
        let packages = home.path().join("venv/lib/python3.12/site-packages");
        std::fs::create_dir_all(&packages).unwrap();
        let env = |name: &str| match name {
            "HOME" => Some(home.path().into()),
            "VIRTUAL_ENV" => Some(home.path().join("venv").into()),
            "HF_HOME" => Some("/hf".into()),
            "CAXTON_MODEL_DIR" => Some("/from-env".into()),
            _ => None,
        };
        let places = places_in(&env, None, Some(Path::new("/data")));
        assert_eq!(places.configured.as_deref(), Some(Path::new("/from-env")));
        assert_eq!(places.hub_cache.as_deref(), Some(Path::new("/hf/hub")));
        assert!(places.site_packages.contains(&packages));
        let places = places_in(&env, Some(Path::new("/configured")), None);
        assert_eq!(
            places.configured.as_deref(),
            Some(Path::new("/configured")),
            "the configuration goes first"
        );
        assert_eq!(
            places_in(&|_| Some(OsString::new()), None, None).configured,
            None,
            "an empty variable is none"
        );
    }
}
