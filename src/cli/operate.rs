//! `caxton config | status | key | completions`.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use clap::CommandFactory as _;
use serde_json::{Value, json};

use super::args::{Args, Common, ConfigCommand, KeyCommand};
use super::backend::{self, Backend, Request};
use super::failure::{Exit, Failure};
use super::output::{Output, cell};
use super::transfer::is_dash;
use super::{log, refusals, setup};
use crate::config::{self, Explained, ExplainedKey, KeyLine, Report, Sources};

/// `caxton config check | show | explain`.
pub(super) fn config(command: &ConfigCommand, common: &Common, out: &mut Output) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check { file } => {
            let loaded = if is_dash(file) {
                let mut text = String::new();
                let limit = config::TEXT_BYTES_MAX as u64 + 1;
                io::stdin()
                    .take(limit)
                    .read_to_string(&mut text)
                    .map_err(|error| Failure::file("read", file, &error))?;
                config::load_text(&text)
            } else {
                config::load(&Sources { file: Some(file.clone()), ..Sources::default() })
            };
            let mut report = Report::of(&loaded);
            if let Ok(loaded) = &loaded {
                refusals::add(loaded, &mut report);
            }
            let printed = if out.is_json() { out.json(&report.to_json()) } else { out.line(&report) };
            printed?;
            if report.is_ok() { Ok(()) } else { Err(Failure::new(Exit::Usage, "see above")) }
        }
        ConfigCommand::Show => {
            let loaded = setup::load(common, Vec::new())?;
            out.line(config::show(&loaded, out.is_json()).trim_end())
        }
        ConfigCommand::Explain { keys } => explain(keys, common, out),
    }
}

/// `caxton config explain`: all that is named, or what is wrong with the names.
fn explain(names: &[String], common: &Common, out: &mut Output) -> Result<(), Failure> {
    let loaded = setup::load(common, Vec::new())?;
    let all = [String::new()];
    let names = if names.is_empty() { &all[..] } else { names };
    let (mut explained, mut unknown) = (Vec::with_capacity(names.len()), Vec::new());
    for name in names {
        match config::explain(&loaded, name) {
            Ok(found) => explained.push(found),
            Err(error) => unknown.push(error.to_string()),
        }
    }
    if !unknown.is_empty() {
        return Err(Failure::new(Exit::Usage, unknown.join("\n")));
    }
    if out.is_json() {
        return match explained.as_slice() {
            [only] => out.json(only),
            several => out.json(&several),
        };
    }
    for (index, explained) in explained.into_iter().enumerate() {
        if index > 0 {
            out.line("")?;
        }
        print_explained(explained, out)?;
    }
    Ok(())
}

fn print_explained(explained: Explained, out: &mut Output) -> Result<(), Failure> {
    match explained {
        Explained::Key(key) => explain_key(*key, out),
        Explained::Section { keys, .. } => {
            let row = |line: KeyLine| {
                let effect =
                    line.without_effect.map_or_else(String::new, |why| format!(" (no effect: {why})"));
                let about = format!("{}{effect}", line.about);
                vec![line.key.to_owned(), shown(&line.value), line.source, about]
            };
            out.texts(&["key", "value", "from", "meaning"], keys.into_iter().map(row).collect())
        }
    }
}

fn explain_key(key: ExplainedKey, out: &mut Output) -> Result<(), Failure> {
    let mut rows = vec![
        ("meaning", key.about.to_owned()),
        ("takes", key.takes),
        ("default", shown(&key.default)),
        ("value", shown(&key.value)),
        ("from", key.source),
        ("variable", key.variable),
    ];
    if !key.aliases.is_empty() {
        rows.push(("aliases", key.aliases.join(", ")));
    }
    for field in key.rows {
        let default = shown(&field.default);
        rows.push((
            "in a row",
            format!("{}: {} ({}; default {default})", field.name, field.about, field.takes),
        ));
    }
    if let Some(reason) = key.without_effect {
        rows.push(("no effect", reason.to_owned()));
    }
    rows.extend(key.effect.map(|effect| ("effect", effect.to_owned())));
    rows.extend(key.see.map(|see| ("see", see.to_owned())));
    let rows = rows.into_iter().map(|(name, text)| vec![name.to_owned(), text]).collect();
    out.texts(&["key", &key.key], rows)
}

/// A value as it would be written; what is not set is called so.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "unset".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// `caxton status`: how the server is doing, or what the directory holds when none runs.
pub(super) fn status(common: &Common, out: &mut Output) -> Result<(), Failure> {
    if let Some(server) = backend::running(common)? {
        let url = server.url().to_owned();
        let health = Backend::Http(server).ask(Request::get("/api/v1/health/detailed"))?;
        if out.is_json() {
            return out.json(&json!({ "server": url, "health": health }));
        }
        out.line(format_args!("a server runs at {url}"))?;
        let mut rows = Vec::new();
        flatten("", &health, &mut rows);
        return out.table(&["what", "value"], rows);
    }
    let reader = log::open(common)?;
    let figures = caxton_tools::log::overview(&reader, false, &mut |_, _| ())
        .map_err(|error| Failure::of(Exit::Failed, &error))?;
    if out.is_json() {
        return out.json(&json!({ "server": null, "log": figures }));
    }
    out.line(format_args!("no server runs on {}\n{figures}", setup::data_dir(common)?.display()))
}

/// The leaves of a JSON value as rows of dotted name and value.
fn flatten(name: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    let below = |part: &str| if name.is_empty() { part.to_owned() } else { format!("{name}.{part}") };
    match value {
        Value::Object(members) => {
            for (part, value) in members {
                flatten(&below(part), value, rows);
            }
        }
        Value::Array(members) => {
            for (index, value) in members.iter().enumerate() {
                flatten(&below(&index.to_string()), value, rows);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            rows.push(vec![name.to_owned(), cell(&json!({ "value": value }), "value")]);
        }
    }
}

/// `caxton key create`.
pub(super) fn key(command: &KeyCommand, out: &mut Output) -> Result<(), Failure> {
    let KeyCommand::Create { name, keys_file } = command;
    let usable = !name.is_empty() && name.chars().all(|sign| sign.is_alphanumeric() || "-_.@".contains(sign));
    if !usable {
        let message = format!("{name:?} is no name for a key; use letters, digits, '-', '_', '.' or '@'");
        return Err(Failure::new(Exit::Usage, message));
    }
    let key = config::create_key().map_err(|error| Failure::of(Exit::Failed, &error))?;
    let line = format!("{name}: {}", key.hash);
    if let Some(path) = keys_file {
        add_line(path, name, &line)?;
    }
    if out.is_json() {
        return out.json(&json!({ "name": name, "key": key.key, "line": line, "keys_file": keys_file }));
    }
    out.line(format_args!("{}", key.key))?;
    match keys_file {
        Some(path) => out.line(format_args!(
            "its hash was added to {}; the key itself is kept nowhere. Restart the server with auth.keys_file set to \
             that file.",
            path.display()
        )),
        None => out.line(format_args!(
            "the key is kept nowhere. Put this line into the file that auth.keys_file names:\n{line}"
        )),
    }
}

/// Adds a line to a file that only its owner may read. A second key of the same name is refused: it would hide the first.
fn add_line(path: &Path, name: &str, line: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::file("write", path, &error);
    let before = match std::fs::read_to_string(path) {
        Ok(text)
            if text.lines().any(|line| line.split(':').next().is_some_and(|known| known.trim() == name)) =>
        {
            let message =
                format!("{} has a key named {name:?}; remove its line or use another name", path.display());
            return Err(Failure::new(Exit::Refused, message));
        }
        // What is put behind a line without an end would be read as part of it.
        Ok(text) if !text.is_empty() && !text.ends_with('\n') => "\n",
        Ok(_) => "",
        Err(error) if error.kind() == io::ErrorKind::NotFound => "",
        Err(error) => return Err(failed(error)),
    };
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    let mut file = file.map_err(failed)?;
    writeln!(file, "{before}{line}").and_then(|()| file.sync_all()).map_err(failed)
}

/// `caxton completions`.
pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "caxton", &mut script);
    io::stdout().write_all(&script).map_err(|error| Failure::output(&error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use std::os::unix::fs::PermissionsExt as _;

    use clap::CommandFactory as _;
    use serde_json::json;

    use super::{Args, add_line, flatten};
    use crate::cli::failure::Exit;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn health_is_flattened_into_rows() {
        let mut rows = Vec::new();
        flatten("", &json!({"a": {"b": 1, "c": [true, "x"]}, "d": null}), &mut rows);
        let then = [["a.b", "1"], ["a.c.0", "true"], ["a.c.1", "x"], ["d", ""]];
        assert_eq!(rows, then.map(|row| row.map(str::to_owned).to_vec()));
    }

    #[test]
    fn a_keys_file_is_for_its_owner_and_names_are_unique() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("keys");
        add_line(&path, "ada", "ada: sha256:1").expect("a new file");
        add_line(&path, "bob", "bob: sha256:2").expect("a second line");
        let failure = add_line(&path, "ada", "ada: sha256:3").expect_err("the name is taken");
        assert_eq!(failure.exit, Some(Exit::Refused));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "ada: sha256:1\nbob: sha256:2\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // A file that somebody wrote by hand may end without a line end.
        std::fs::write(&path, "eve: sha256:4").unwrap();
        add_line(&path, "ada", "ada: sha256:1").expect("another line");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "eve: sha256:4\nada: sha256:1\n");
    }
}
