//! `caxton memory export | import`: the memory as JSON lines, in pieces, with progress.

use std::fs::File;
use std::io::{self, BufRead, BufWriter, Read, Write};
use std::path::Path;

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::args::{Common, Export, Import, ImportFormat, ScopeName};
use super::backend::{Backend, Request};
use super::failure::{Exit, Failure};
use super::import_totals::Totals;
use super::interrupt::Told;
use super::output::Output;
use super::progress::Progress;
use super::whole_answer::{Form, keep};
use super::whole_input;
use super::whole_output::WholeFile;

/// Version of exports whose last line does not count their rows.
const EXPORT_VERSION_WITHOUT_END: &str = "1.0";

/// A request ends before the line with which it would have more bytes than this, half of what a server takes by default. A
/// longer line is a request of its own.
const CHUNK_BYTES_MAX: usize = 16 << 20;

/// Whether a path means a standard stream.
pub(super) fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// What a path to read is called.
pub(super) fn named(path: &Path) -> String {
    if is_dash(path) { "standard input".to_owned() } else { path.display().to_string() }
}

/// A file to read, or standard input.
pub(super) fn input(path: &Path) -> Result<Box<dyn Read>, Failure> {
    if is_dash(path) {
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path).map_err(|error| Failure::file("read", path, &error))?;
    Ok(Box::new(file))
}

/// Whether something is there that is no file, such as a pipe: it is written to, not replaced.
pub(super) fn is_device(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir())
}

/// Refuses to replace what is there, unless that is wanted.
pub(super) fn is_free(path: &Path, force: bool) -> Result<(), Failure> {
    if force || is_dash(path) || is_device(path) || !path.exists() {
        return Ok(());
    }
    let message =
        format!("{} is there already; name another place, or replace it with --force", path.display());
    Err(Failure::new(Exit::Usage, message))
}

/// Writes a file through `write`, whole or not at all: beside it first, then in its place. `-` is standard output.
pub(super) fn write_out(
    path: &Path,
    write: impl FnOnce(&mut (dyn Write + Send)) -> io::Result<()>,
) -> Result<(), Failure> {
    if is_dash(path) {
        let mut out = BufWriter::new(io::stdout());
        return write(&mut out).and_then(|()| out.flush()).map_err(|error| Failure::output(&error));
    }
    let written = WholeFile::create(path).and_then(|mut file| {
        write(&mut file)?;
        file.finish()
    });
    written.map_err(|error| Failure::file("write", path, &error))
}

/// Writes the memory as JSON lines.
pub(super) fn export(
    backend: &Backend,
    export: &Export,
    common: &Common,
    out: &mut Output,
) -> Result<(), Failure> {
    is_free(&export.out, export.force)?;
    let request = Request::get("/api/v1/memory/export")
        .with("format", "jsonl")
        .with_some("include_embeddings", export.embeddings.then_some("true"))
        .when(&export.when)
        .from(&export.who);
    let body = backend.read(request)?;
    let mut progress = Progress::new("exporting", "rows", !common.no_progress);
    let bytes = keep(body, Form::Lines, &export.out, |body, file| {
        copy_rows(body, file, &mut |rows, of| progress.set(rows, of))
    })?;
    drop(progress);
    if is_dash(&export.out) {
        return Ok(());
    }
    if out.is_json() {
        return out.json(&json!({ "file": export.out, "bytes": bytes }));
    }
    out.line(format_args!("wrote {bytes} bytes to {}", export.out.display()))
}

/// Copies an export and says after each piece how many rows of how many are written; answers its bytes.
fn copy_rows(
    body: &mut impl BufRead,
    file: &mut dyn Write,
    said: &mut dyn FnMut(u64, u64),
) -> io::Result<u64> {
    let mut head = Vec::new();
    body.read_until(b'\n', &mut head)?;
    file.write_all(&head)?;
    let value: Value = serde_json::from_slice(&head).unwrap_or_default();
    let count = |name: &str| value["export_metadata"][name].as_u64().unwrap_or_default();
    let of = count("entity_count").saturating_add(count("relation_count"));
    let (mut bytes, mut rows) = (head.len() as u64, 0);
    loop {
        let piece = body.fill_buf()?;
        if piece.is_empty() {
            return Ok(bytes);
        }
        file.write_all(piece)?;
        let len = piece.len();
        bytes += len as u64;
        rows += piece.split(|byte| *byte == b'\n').skip(1).count() as u64;
        body.consume(len);
        // The last line is no row.
        said(rows.min(of), of);
    }
}

/// Reads JSON lines, or one JSON document, into the memory.
pub(super) fn import(
    backend: &Backend,
    import: &Import,
    common: &Common,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut progress = Progress::new("importing", "bytes", !common.no_progress);
    let mut totals = Totals::default();
    let missing = if import.format == ImportFormat::Mcp {
        let mut whole = Vec::new();
        let read = input(&import.file)?.read_to_end(&mut whole);
        read.map_err(|error| Failure::file("read", &import.file, &error))?;
        whole_input::refuse_events(&whole, &import.file)?;
        whole_input::check(whole.as_slice(), import)?;
        // Entities first: relations may stand before what they connect.
        for relations in [false, true] {
            let lines = only(&whole, relations);
            let what =
                if relations { "its entities, and the relations of its" } else { "the entities of its" };
            send(backend, import, (what, lines.as_slice()), (&mut totals, &mut progress))?;
        }
        None
    } else {
        let lines = whole_input::open(import)?;
        let sent = send(backend, import, ("its", lines), (&mut totals, &mut progress))?;
        if sent.is_empty() {
            return Err(whole_input::empty(&import.file));
        }
        sent.missing()
    };
    drop(progress);
    out.value(&totals)?;
    // A file was whole when it was looked at, and has changed since; lines of a pipe are not looked at before.
    if let Some(missing) = missing {
        let message = format!(
            "{} is not whole: {missing}; what it held is written; import it again when it is: what is there already is not \
             written twice",
            import.file.display()
        );
        return Err(Failure::new(Exit::Failed, message));
    }
    totals.refusal().map_or(Ok(()), Err)
}

/// The lines that are relations, or the others; each in its place, so that its number stays.
fn only(lines: &[u8], relations: bool) -> Vec<u8> {
    let is_relation =
        |line: &[u8]| serde_json::from_slice::<Value>(line).is_ok_and(|value| value["type"] == "relation");
    let mut kept = Vec::with_capacity(lines.len());
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        kept.extend_from_slice(if is_relation(line) == relations { line } else { b"\n" });
    }
    kept
}

/// Sends lines in requests; answers what knows how whole they were. `what` of the file they are is told when a signal ends it.
fn send<R: BufRead>(
    backend: &Backend,
    import: &Import,
    (what, lines): (&'static str, R),
    (totals, progress): (&mut Totals, &mut Progress),
) -> Result<Chunks<R>, Failure> {
    let size = std::fs::metadata(&import.file).map_or(0, |file| file.len());
    let mut lines = Chunks::new(lines, import.chunk as usize);
    let (mut done, told) = (0, Told::new());
    let file = import.file.clone();
    told.say(move || taken(&file, what, 0));
    while let Some(chunk) = lines.next_chunk().map_err(|error| Failure::file("read", &import.file, &error))? {
        done += chunk.bytes.len() as u64;
        let first = chunk.first_line;
        let answer = backend.ask_for(request(import, chunk)?, "entities_imported").map_err(|failure| {
            let kept =
                if totals.requests == 0 { "nothing was written" } else { "the lines before it are written" };
            let message =
                format!("line {first} of {} or one after it: {failure}\n{kept}", import.file.display());
            failure.told(message)
        })?;
        totals.add(&answer, first);
        let (file, count) = (import.file.clone(), lines.given());
        told.say(move || taken(&file, what, count));
        progress.set(done, size);
    }
    Ok(lines)
}

/// How far an import came that a signal ended.
fn taken(file: &Path, what: &str, lines: u64) -> String {
    let place = named(file);
    format!(
        "{place}: {what} first {lines} lines were taken, and perhaps the next ones; import it again: what is there already is \
         not written twice"
    )
}

/// The request that writes a chunk.
fn request(import: &Import, chunk: Chunk) -> Result<Request, Failure> {
    let mut who = import.who.clone();
    who.scope.get_or_insert(ScopeName::Agent);
    let strategy = import.on_conflict.map(super::args::MergeStrategy::as_str);
    if !chunk.is_document {
        let format = (import.format == ImportFormat::Mcp).then_some("mcp");
        return Ok(Request::post_lines("/api/v1/memory/import", chunk.bytes)
            .from(&who)
            .with_some("format", format)
            .with_some("merge_strategy", strategy));
    }
    let data: Value = serde_json::from_slice(&chunk.bytes).map_err(|error| {
        let message =
            format!("{} is neither JSON lines nor one JSON document: {error}", import.file.display());
        Failure::new(if error.is_eof() { Exit::Failed } else { Exit::Usage }, message)
    })?;
    let body = json!({
        "agent_id": who.agent, "workspace": who.workspace, "memory_scope": who.scope.map(ScopeName::as_str),
        "merge_strategy": strategy.unwrap_or("update_existing"), "data": data,
    });
    Ok(Request::post("/api/v1/memory/import", &body))
}

/// Some lines of the file, or all of it when it is one document over several lines.
pub(super) struct Chunk {
    first_line: u64,
    bytes: Vec<u8>,
    pub(super) is_document: bool,
}

/// A reader cut into requests.
pub(super) struct Chunks<R> {
    reader: R,
    lines_max: usize,
    bytes_max: usize,
    /// Lines read so far.
    line: u64,
    /// The last of them, where the next chunk begins with it.
    held: Vec<u8>,
    /// Rows read so far.
    rows: u64,
    /// Whether the first line says that the last one counts the rows.
    counts_rows: bool,
    /// What the last line counts.
    counted: Option<u64>,
    /// Whether the last line ends in the middle.
    is_cut: bool,
    /// Whether nothing but space was read.
    is_empty: bool,
}

impl<R: BufRead> Chunks<R> {
    /// Requests of so many lines.
    pub(super) const fn new(reader: R, lines_max: usize) -> Self {
        Self {
            reader,
            lines_max,
            bytes_max: CHUNK_BYTES_MAX,
            line: 0,
            held: Vec::new(),
            rows: 0,
            counts_rows: false,
            counted: None,
            is_cut: false,
            is_empty: true,
        }
    }

    /// The next chunk; `None` at the end.
    pub(super) fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        loop {
            let first_line = self.given() + 1;
            let mut bytes = std::mem::take(&mut self.held);
            let held_lines = usize::from(!bytes.is_empty());
            for _ in held_lines..self.lines_max {
                let mut line = Vec::new();
                if self.reader.read_until(b'\n', &mut line)? == 0 {
                    break;
                }
                self.line += 1;
                self.is_empty &= line.iter().all(u8::is_ascii_whitespace);
                if self.line == 1 && opens_document(&line) {
                    self.reader.read_to_end(&mut line)?;
                    return Ok(Some(Chunk { first_line, bytes: line, is_document: true }));
                }
                if self.note(&line) || self.is_cut {
                    // An empty line in its place keeps the numbers of the others. Half a line is no row; what is missing is told
                    // at the end.
                    line = b"\n".to_vec();
                }
                if !bytes.is_empty() && bytes.len() + line.len() > self.bytes_max {
                    self.held = line;
                    break;
                }
                bytes.append(&mut line);
            }
            if !bytes.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(Chunk { first_line, bytes, is_document: false }));
            }
            if bytes.is_empty() {
                return Ok(None);
            }
        }
    }

    /// How many lines the chunks so far have.
    fn given(&self) -> u64 {
        self.line - u64::from(!self.held.is_empty())
    }

    /// Counts a line; whether it stands at an end of an export and is for this reader alone: the requests are pieces.
    fn note(&mut self, line: &[u8]) -> bool {
        self.is_cut = is_cut(line);
        let marks = self.line == 1 || line.windows(5).any(|window| window == b"\"end\"");
        let value: Value = if marks { serde_json::from_slice(line).unwrap_or_default() } else { Value::Null };
        match value["type"].as_str() {
            Some("metadata") => {
                self.counts_rows = says_rows_are_counted(&value);
                true
            }
            Some("end") => {
                let rows = |name: &str| value[name].as_u64().unwrap_or_default();
                self.counted = Some(rows("entities").saturating_add(rows("relations")));
                true
            }
            Some(_) | None => {
                self.rows += u64::from(!line.iter().all(u8::is_ascii_whitespace));
                false
            }
        }
    }

    /// Whether there was nothing to read, not even the first line of an export; to be asked at the end.
    pub(super) const fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// What an export that was not read whole lacks; to be asked at the end.
    pub(super) fn missing(&self) -> Option<String> {
        if self.is_cut {
            return Some(format!("line {}, its last one, ends in the middle", self.line));
        }
        match self.counted {
            Some(counted) if counted != self.rows => {
                Some(format!("it holds {} rows, its last line counts {counted}", self.rows))
            }
            None if self.counts_rows => {
                let (rows, line) = (self.rows, self.line);
                Some(format!(
                    "it was cut short after {rows} rows: its last line is missing behind line {line}"
                ))
            }
            Some(_) | None => None,
        }
    }
}

/// Whether this is the first line of an export whose last line counts its rows.
pub(super) fn counts_rows(line: &[u8]) -> bool {
    let value: Value = serde_json::from_slice(line).unwrap_or_default();
    value["type"] == "metadata" && says_rows_are_counted(&value)
}

fn says_rows_are_counted(metadata: &Value) -> bool {
    let version = metadata["export_metadata"]["version"].as_str();
    version.is_some_and(|version| version != EXPORT_VERSION_WITHOUT_END)
}

/// Whether a line that nothing follows ends in the middle.
fn is_cut(line: &[u8]) -> bool {
    if line.ends_with(b"\n") || line.iter().all(u8::is_ascii_whitespace) {
        return false;
    }
    serde_json::from_slice::<IgnoredAny>(line).is_err_and(|error| error.is_eof())
}

/// Whether the first line opens one document that holds everything, as `GET /memory/export?format=json` gives it.
fn opens_document(line: &[u8]) -> bool {
    match serde_json::from_slice::<Value>(line) {
        Ok(value) => value.get("entities").is_some_and(Value::is_array),
        Err(error) => error.is_eof() && !line.iter().all(u8::is_ascii_whitespace),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use std::io;

    use super::{Chunks, write_out};
    use crate::cli::failure::Exit;

    #[track_caller]
    fn check(text: &str, lines_max: usize, then: &[(u64, &str, bool)]) {
        let mut chunks = Chunks::new(text.as_bytes(), lines_max);
        let mut found = Vec::new();
        while let Some(chunk) = chunks.next_chunk().expect("memory is readable") {
            found.push((chunk.first_line, String::from_utf8(chunk.bytes).unwrap(), chunk.is_document));
        }
        let found: Vec<_> = found.iter().map(|(line, text, whole)| (*line, text.as_str(), *whole)).collect();
        assert_eq!(found, then);
    }

    #[test]
    fn lines_are_cut_into_requests() {
        check("{}\n{}\n{}", 2, &[(1, "{}\n{}\n", false), (3, "{}", false)]);
        check("", 2, &[]);
        check("\n \n", 2, &[]);
        check("{}\n\n\n\n{}\n", 1, &[(1, "{}\n", false), (5, "{}\n", false)]);
    }

    #[test]
    fn a_line_that_would_make_a_request_too_large_begins_the_next_one() {
        let text = "{\"a\":1}\n{\"b\":22}\n\n{\"c\":3}\n{\"long\":44444444444444}\n{}\n";
        let mut chunks = Chunks::new(text.as_bytes(), 100);
        chunks.bytes_max = 16;
        let mut found = Vec::new();
        while let Some(chunk) = chunks.next_chunk().expect("memory is readable") {
            found.push((chunk.first_line, chunks.given(), String::from_utf8(chunk.bytes).unwrap()));
        }
        let found: Vec<_> =
            found.iter().map(|(first, given, text)| (*first, *given, text.as_str())).collect();
        let long = "{\"long\":44444444444444}\n";
        let then = [
            (1, 1, "{\"a\":1}\n"),
            (2, 3, "{\"b\":22}\n\n"),
            (4, 4, "{\"c\":3}\n"),
            (5, 5, long),
            (6, 6, "{}\n"),
        ];
        assert_eq!(found, then);
        assert_eq!(chunks.missing(), None);
    }

    #[test]
    fn an_export_that_is_not_whole_is_noticed() {
        let head = "{\"export_metadata\": {\"version\": \"1.1\"}, \"type\": \"metadata\"}\n";
        let end = "{\"type\": \"end\", \"entities\": 1, \"relations\": 1}\n";
        let row = "{\"entity_name\": \"end\"}\n";
        for (text, missing) in [
            (format!("{head}{row}{row}{end}"), None),
            (format!("{row}{row}"), None),
            (head.replace("1.1", "1.0") + row, None),
            (
                format!("{head}{row}"),
                Some("it was cut short after 1 rows: its last line is missing behind line 2"),
            ),
            (format!("{head}{row}{{\"entity_na"), Some("line 3, its last one, ends in the middle")),
            (format!("{row}{{\"entity_name\": \"x\""), Some("line 2, its last one, ends in the middle")),
            (format!("{row}{{\"entity_name\": \"x\"}}"), None),
            (format!("{head}{row}{end}"), Some("it holds 1 rows, its last line counts 2")),
        ] {
            for lines_max in [1, 2, 100] {
                let mut chunks = Chunks::new(text.as_bytes(), lines_max);
                while chunks.next_chunk().expect("memory is readable").is_some() {}
                assert_eq!(chunks.missing().as_deref(), missing, "{text}");
            }
        }
    }

    #[test]
    fn half_a_line_is_told_and_not_sent() {
        let text = "{\"entity_name\": \"x\"}\n{\"entity_na";
        for (lines_max, sent) in [(100, "{\"entity_name\": \"x\"}\n\n"), (1, "{\"entity_name\": \"x\"}\n")] {
            check(text, lines_max, &[(1, sent, false)]);
            let mut chunks = Chunks::new(text.as_bytes(), lines_max);
            while chunks.next_chunk().expect("memory is readable").is_some() {}
            assert_eq!(chunks.missing().as_deref(), Some("line 2, its last one, ends in the middle"));
        }
    }

    #[test]
    fn a_document_goes_whole() {
        let one_line = "{\"entities\": []}\n";
        check(one_line, 2, &[(1, one_line, true)]);
        let pretty = "{\n  \"entities\": []\n}\n";
        check(pretty, 1, &[(1, pretty, true)]);
    }

    #[test]
    fn an_export_is_copied_as_it_is_and_its_rows_are_counted() {
        let text = "{\"export_metadata\": {\"entity_count\": 2, \"relation_count\": 1}}\n{}\n{}\n{}\n{\"type\": \"end\"}\n";
        let (mut copy, mut said) = (Vec::new(), Vec::new());
        let mut body = io::BufReader::with_capacity(4, text.as_bytes());
        let bytes = super::copy_rows(&mut body, &mut copy, &mut |rows, of| said.push((rows, of)));
        assert_eq!(
            (bytes.expect("memory is readable"), copy.as_slice()),
            (text.len() as u64, text.as_bytes())
        );
        assert!(said.is_sorted() && said.iter().all(|(_, of)| *of == 3), "{said:?}");
        assert_eq!(said.last(), Some(&(3, 3)));
    }

    #[test]
    fn a_file_is_written_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("out.jsonl");
        write_out(&path, |out| out.write_all(b"old")).expect("a writable folder");
        let failure = write_out(&path, |out| {
            out.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(failure.expect_err("the disk is full").exit, Some(Exit::Failed));
        assert_eq!(std::fs::read(&path).expect("the old file"), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1);
    }
}
