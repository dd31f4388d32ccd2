//! What an import reads, seen to be whole before anything of it is sent.

use std::env::temp_dir;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, Write as _};
use std::path::Path;

use serde_json::Value;

use super::args::Import;
use super::failure::{Exit, Failure};
use super::transfer::{Chunks, counts_rows, input, is_dash, named};

/// What is said of an export of events.
const EXPORTED: &str = "holds the events of a log, which are for `caxton import events FILE --to DIR`; memory import takes what \
                        `caxton memory export` wrote";

/// The lines to import.
///
/// A file is read once more than it is sent. An export that comes through a pipe, which can be read once only, goes into a
/// file without a name first. Other lines of a pipe are sent as they come: nothing says how many there will be.
pub(super) fn open(import: &Import) -> Result<Box<dyn BufRead>, Failure> {
    let path = &import.file;
    let failed = |error: io::Error| Failure::file("read", path, &error);
    let mut lines = BufReader::new(input(path)?);
    let mut first = Vec::new();
    lines.read_until(b'\n', &mut first).map_err(failed)?;
    refuse_events(&first, path)?;
    if !is_dash(path) && std::fs::metadata(path).is_ok_and(|there| there.is_file()) {
        check(io::Cursor::new(first).chain(lines), import)?;
        return Ok(Box::new(BufReader::new(input(path)?)));
    }
    if !counts_rows(&first) {
        return Ok(Box::new(io::Cursor::new(first).chain(lines)));
    }
    let kept = tempfile::tempfile().and_then(|mut kept| {
        kept.write_all(&first)?;
        io::copy(&mut lines, &mut kept)?;
        kept.rewind()?;
        Ok(kept)
    });
    let mut kept = kept.map_err(|error| {
        let message =
            format!("could not keep the export in {} until it is whole: {error}", temp_dir().display());
        Failure::new(Exit::Failed, message)
    })?;
    check(BufReader::new(&kept), import)?;
    kept.rewind().map_err(failed)?;
    Ok(Box::new(BufReader::new(kept)))
}

/// Refuses a text whose first line is one of a log: events are no rows of a memory.
pub(super) fn refuse_events(text: &[u8], path: &Path) -> Result<(), Failure> {
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let value: Value = serde_json::from_slice(first).unwrap_or_default();
    let has = |names: &[&str]| names.iter().all(|name| value.get(name).is_some());
    let what = match value["type"].as_str() {
        Some("log") if has(&["log_id"]) => EXPORTED,
        Some("event") if has(&["seq", "body_hash"]) => EXPORTED,
        None if has(&["seq", "recorded_at", "kind", "data"]) => {
            "holds events as `caxton log tail --json` and `caxton log salvage` print them, which no command takes back (see \
             docs/replay.md); memory import takes what `caxton memory export` wrote"
        }
        Some(_) | None => return Ok(()),
    };
    let message = format!("{} {what}; nothing was written", named(path));
    Err(Failure::new(Exit::Usage, message))
}

/// Refuses lines that were cut.
pub(super) fn check(lines: impl BufRead, import: &Import) -> Result<(), Failure> {
    let mut chunks = Chunks::new(lines, import.chunk as usize);
    let failed = |error: io::Error| Failure::file("read", &import.file, &error);
    while let Some(chunk) = chunks.next_chunk().map_err(failed)? {
        // A document is sent whole, and read by its server to its end before anything is written.
        if chunk.is_document {
            return Ok(());
        }
    }
    if chunks.is_empty() {
        return Err(empty(&import.file));
    }
    let Some(missing) = chunks.missing() else { return Ok(()) };
    let message = format!(
        "{} is not whole: {missing}; nothing was written; export again, or take off what is half there and \
         the lines of type metadata and end to import the rest",
        import.file.display()
    );
    Err(Failure::new(Exit::Failed, message))
}

/// Why nothing was imported out of nothing: a command before the pipe that failed leaves no more than that behind, and is not to
/// be taken for an import that went well.
pub(super) fn empty(path: &Path) -> Failure {
    let place = named(path);
    let message = format!(
        "the input is empty: {place} holds nothing to import, and nothing was written; look at what the command said that was to \
         write it, and import again (an export of an empty memory has its first and its last line)"
    );
    Failure::new(Exit::Failed, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::path::Path;

    use super::refuse_events;

    #[test]
    fn events_are_refused_at_the_first_line_and_rows_are_not() {
        for (first, told) in [
            (
                r#"{"type":"log","version":1,"log_id":"00","events":2,"complete":true}"#,
                "caxton import events",
            ),
            (r#"{"type":"event","seq":1,"body_hash":"AA=="}"#, "caxton import events"),
            (r#"{"seq":1,"id":"x","recorded_at":"y","kind":"z","data":{}}"#, "docs/replay.md"),
        ] {
            let failure = refuse_events(first.as_bytes(), Path::new("log.jsonl")).unwrap_err();
            let said = failure.to_string();
            assert!(said.starts_with("log.jsonl holds ") && said.contains(told), "{said}");
            assert!(said.ends_with("nothing was written"), "{said}");
        }
        for first in [
            r#"{"type":"metadata","export_metadata":{"version":"1.1"}}"#,
            r#"{"type":"entity","name":"log","entityType":"event","observations":[]}"#,
            r#"{"entity_name":"tea","entity_type":"Drink","observations":[]}"#,
            r#"{"type":"log","entity_name":"tea"}"#,
            r#"{"entities":[]}"#,
            "nonsense",
            "",
        ] {
            refuse_events(first.as_bytes(), Path::new("memory.jsonl")).unwrap();
        }
    }
}
