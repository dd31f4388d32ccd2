//! Where tests find the model, and a model that needs no files.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::{Path, PathBuf};

use super::model_files::{self, Finding, Places};

/// The folder of the real model, or `None` after saying plainly that a test was skipped.
///
/// It is looked for where `CAXTON_MODEL_DIR` says, else in the usual places.
#[allow(clippy::disallowed_methods, reason = "only tests ask the environment where the model is")]
#[allow(clippy::print_stderr, reason = "a skipped test must be seen")]
pub(crate) fn model_dir(test: &str) -> Option<PathBuf> {
    let places = Places {
        configured: std::env::var_os("CAXTON_MODEL_DIR").map(PathBuf::from),
        home: std::env::var_os("HOME").map(PathBuf::from),
        ..Places::default()
    };
    let candidates = model_files::candidates(&places, &model_files::ALL_MINILM_L6_V2);
    match model_files::find(&candidates) {
        Finding::Found(found) => Some(found.dir),
        Finding::Missing => {
            eprintln!("SKIPPED {test}: no model; run `caxton model pull` or set CAXTON_MODEL_DIR");
            None
        }
        Finding::Damaged(damage) => panic!("the model for {test} is damaged: {damage:?}"),
    }
}

/// A text and its vector from `PyTorch`.
#[derive(serde::Deserialize)]
pub(crate) struct ReferenceText {
    pub(crate) text: String,
    pub(crate) vector: Vec<f32>,
}

#[derive(serde::Deserialize)]
struct Reference {
    texts: Vec<ReferenceText>,
}

/// Texts with vectors from `PyTorch`: those in `golden/`, and those of a larger file where one lies beside the
/// workspace.
pub(crate) fn reference_texts() -> Vec<ReferenceText> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let small = folder.join("embedding/golden/all-minilm-l6-v2.json");
    let large = folder
        .ancestors()
        .map(|folder| folder.join("shared/data/minilm-reference.json"))
        .find(|file| file.exists());
    let bytes = std::fs::read(large.unwrap_or(small)).unwrap();
    serde_json::from_slice::<Reference>(&bytes).unwrap().texts
}

/// The cosine of the angle between two vectors.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
