//! `caxton export …` and `caxton import …`: through a running server, or on the stopped directory itself.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use caxton_events::Seq;
use caxton_events::log::open::{LOG_FILE, NEW_FILE};
use caxton_events::log::rebuild::RebuildError;
use caxton_events::log::{Filter, PublicKey};
use caxton_tools::transfer::ExportError;
use caxton_tools::transfer::events::{EventExport, EventFormat, Wanted};
use caxton_tools::transfer::import::{ImportError, Imported, import};
use caxton_tools::transfer::memory::MemoryTable;
use caxton_tools::transfer::talk::TalkTable;
use serde_json::json;

use super::args::{
    Common, EventsFormat, ExportCommand, ExportConversations, ExportEvents, ExportMemory, ImportCommand,
    ImportEvents, MemoryFormat,
};
use super::backend::{self, Backend, Request};
use super::failure::{Exit, Failure};
use super::interrupt::{Told, due};
use super::output::{Output, cell, counted};
use super::progress::Progress;
use super::transfer::{input, is_dash, is_free, write_out};
use super::whole_answer::{Form, copy, keep, keep_all};
use super::{log, proofs, ranges};

/// Runs a command that takes data elsewhere.
pub(super) fn run_export(command: &ExportCommand, common: &Common, out: &mut Output) -> Result<(), Failure> {
    match command {
        ExportCommand::Events(asked) => events(asked, common, out),
        ExportCommand::Memory(asked) => memory(asked, common, out),
        ExportCommand::Conversations(asked) => conversations(asked, common, out),
    }
}

/// Runs a command that brings data in.
pub(super) fn run_import(command: &ImportCommand, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let ImportCommand::Events(asked) = command;
    import_events(asked, common, out)
}

fn events(asked: &ExportEvents, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let wanted = wanted(asked)?;
    is_free(&asked.out, asked.force)?;
    match backend::running(common)? {
        Some(server) => {
            let form = match asked.format {
                EventsFormat::Jsonl => Form::Lines,
                EventsFormat::Parquet => Form::Parquet,
            };
            let server = Backend::Http(server);
            if asked.from_seq.is_some() {
                let head = server.ask(Request::get("/api/v1/log/head"))?;
                head["seq"].as_u64().map_or(Ok(()), |head| begins_within(asked, Seq(head)))?;
            }
            fetched(&server, of_events(asked), (form, &asked.out), out)
        }
        None => from_log(asked, &wanted, common, out),
    }
}

/// Writes what the server answers to a file.
fn fetched(
    server: &Backend,
    request: Request,
    (form, path): (Form, &Path),
    out: &mut Output,
) -> Result<(), Failure> {
    let bytes = keep(Body(server.read(request)?), form, path, copy)?;
    if is_dash(path) { Ok(()) } else { print_written(path, bytes, out) }
}

/// Writes the tables that the server answers to files, all of them or none.
fn fetched_together(
    server: &Backend,
    requests: impl Iterator<Item = (Request, PathBuf)>,
    out: &mut Output,
) -> Result<(), Failure> {
    let answers = requests.map(|(request, place)| (server.read(request).map(Body), place));
    let written = keep_all(answers, Form::Parquet)?;
    written.iter().try_for_each(|(place, bytes)| print_written(place, *bytes, out))
}

fn print_written(path: &Path, bytes: u64, out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return out.json_line(&json!({ "file": path, "bytes": bytes }));
    }
    out.line(format_args!("wrote {bytes} bytes to {}", path.display()))
}

/// An answer that says for itself when it breaks off: what writes it down says only where to.
struct Body(Box<dyn Read>);

impl Read for Body {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes).map_err(|error| {
            let message =
                format!("the answer broke off ({error}); what the server could not read is in its log");
            io::Error::other(message)
        })
    }
}

/// What is asked for, which is checked before a server is looked for.
fn wanted(asked: &ExportEvents) -> Result<Wanted, Failure> {
    ranges::positions(asked.from_seq, asked.to_seq)?;
    let kinds = log::kinds(&asked.kinds)?;
    let (since, until) = ranges::stretch(asked.since.as_deref(), asked.until.as_deref())?;
    Ok(Wanted {
        from: Seq(asked.from_seq.unwrap_or(0)),
        filter: Filter {
            until: asked.to_seq.map(Seq),
            kinds,
            stream: asked.stream.clone(),
            actor: asked.actor.clone(),
            correlation: asked.correlation.clone(),
            recorded_from: since,
            recorded_before: until,
        },
    })
}

/// Refuses to begin behind the end of the log: an export of nothing would look like one of a quiet log.
fn begins_within(asked: &ExportEvents, head: Seq) -> Result<(), Failure> {
    match asked.from_seq.filter(|from| Seq(*from) > head) {
        None => Ok(()),
        Some(from) => {
            let message = format!(
                "--from-seq {from}: the log ends at {head}; give a position up to that, or leave it out"
            );
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

fn of_events(asked: &ExportEvents) -> Request {
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let kinds = asked.kinds.join(",");
    let format = match asked.format {
        EventsFormat::Jsonl => "jsonl",
        EventsFormat::Parquet => "parquet",
    };
    Request::get("/api/v1/events/export")
        .with("format", format)
        .with_some("kinds", (!kinds.is_empty()).then_some(kinds.as_str()))
        .with_some("actor", asked.actor.as_deref())
        .with_some("stream", asked.stream.as_deref())
        .with_some("correlation_id", asked.correlation.as_deref())
        .with_some("from_seq", number(asked.from_seq).as_deref())
        .with_some("to_seq", number(asked.to_seq).as_deref())
        .with_some("since", asked.since.as_deref())
        .with_some("until", asked.until.as_deref())
}

/// Reads the stopped log itself.
fn from_log(asked: &ExportEvents, wanted: &Wanted, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let log = log::open(common)?;
    begins_within(asked, log.head().seq)?;
    ranges::not_dropped(&log, &[("--from-seq", asked.from_seq), ("--to-seq", asked.to_seq)])?;
    let signer = match proofs::signer(&log, common) {
        Ok(signer) => Some(signer),
        // A log that no server ever had has no key; its head is then not signed.
        Err(failure) if failure.exit == Some(Exit::NotFound) => None,
        Err(failure) => return Err(failure),
    };
    let format = match asked.format {
        EventsFormat::Jsonl => EventFormat::Lines,
        EventsFormat::Parquet => EventFormat::Parquet,
    };
    let export = EventExport::begin(log, wanted, format, signer);
    let mut export = export.map_err(|error| Failure::of(Exit::Failed, &error))?;
    let mut progress = Progress::new("exporting", "events", !common.no_progress);
    let (mut bytes, mut unread) = (0, None);
    let written = write_out(&asked.out, |file| {
        let mut failed = |error: ExportError| io::Error::other(unread.insert(error).to_string());
        while let Some(piece) = export.next_piece().map_err(&mut failed)? {
            file.write_all(&piece)?;
            bytes += piece.len();
            progress.set(export.position().0, export.exported().through.0);
        }
        Ok(())
    });
    drop(progress);
    if let Some(error) = unread {
        return Err(Failure::of(Exit::Failed, &error));
    }
    written?;
    let exported = export.exported();
    if is_dash(&asked.out) {
        return Ok(());
    }
    if out.is_json() {
        return out.json_line(&json!({ "file": asked.out, "bytes": bytes, "exported": exported }));
    }
    out.line(format_args!("wrote {bytes} bytes to {}", asked.out.display()))?;
    if exported.without_content == 0 {
        return Ok(());
    }
    let count = counted(exported.without_content as usize, "event");
    out.line(format_args!(
        "{count} without content: it was erased, or is encrypted under a key that is not here"
    ))
}

fn memory(asked: &ExportMemory, common: &Common, out: &mut Output) -> Result<(), Failure> {
    const PATH: &str = "/api/v1/memory/export/tables";
    let usage = |message: &str| Err(Failure::new(Exit::Usage, message));
    if asked.format == MemoryFormat::Sqlite {
        if asked.embeddings {
            return usage("--embeddings is for --format parquet: the SQLite file holds no vectors");
        }
        if asked.when.as_of.is_some() {
            return usage("--as-of is for --format parquet: the SQLite file holds the history of every row");
        }
        is_free(&asked.out, asked.force)?;
        let backend = Backend::open(common, false)?;
        let request = Request::get(PATH).with("format", "sqlite");
        return fetched(&backend, request, (Form::Sqlite, &asked.out), out);
    }
    let names = MemoryTable::ALL.map(MemoryTable::name);
    let places = places(&asked.out, names, asked.force)?;
    let backend = Backend::open(common, false)?;
    // All three are of the same record.
    let as_of = match &asked.when.as_of {
        Some(as_of) => as_of.clone(),
        None => last_record(&backend)?,
    };
    let vectors = asked.embeddings.then_some("true");
    let request = |name| Request::get(PATH).with("table", name).with("as_of", &as_of);
    let requests = names.map(|name| request(name).with_some("include_embeddings", vectors));
    fetched_together(&backend, requests.into_iter().zip(places), out)
}

fn conversations(asked: &ExportConversations, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let names = TalkTable::ALL.map(TalkTable::name);
    let places = places(&asked.out, names, asked.force)?;
    let backend = Backend::open(common, false)?;
    // What is said while they are written is in none of them.
    let through = last_record(&backend)?;
    let request =
        |name| Request::get("/api/v1/conversations/export").with("table", name).with("through", &through);
    fetched_together(&backend, names.map(request).into_iter().zip(places), out)
}

/// The last position there is.
fn last_record(backend: &Backend) -> Result<String, Failure> {
    Ok(cell(&backend.ask(Request::get("/api/v1/log/head"))?, "seq"))
}

/// Where the files of these names go; their folder is made.
fn places<const N: usize>(
    dir: &Path,
    names: [&'static str; N],
    force: bool,
) -> Result<[PathBuf; N], Failure> {
    if is_dash(dir) {
        let message = "--out - is for one file; name a folder for the Parquet files";
        return Err(Failure::new(Exit::Usage, message));
    }
    let places = names.map(|name| dir.join(format!("{name}.parquet")));
    places.iter().try_for_each(|place| is_free(place, force))?;
    std::fs::create_dir_all(dir).map_err(|error| Failure::file("make", dir, &error))?;
    Ok(places)
}

fn import_events(asked: &ImportEvents, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let key = asked.public_key.as_deref().map(str::parse::<PublicKey>).transpose();
    let key = key.map_err(|error| Failure::of(Exit::Usage, &error))?;
    let size = std::fs::metadata(&asked.file).map_or(0, |file| file.len());
    let mut progress = Progress::new("importing", "bytes", !common.no_progress);
    let mut lines = BufReader::with_capacity(1 << 20, input(&asked.file)?);
    let mut attempt = None;
    let imported = import(&mut lines, &asked.to, key.as_ref(), &mut |_, bytes| {
        // Only from the first event on the directory is known to be this import's.
        attempt.get_or_insert_with(|| Attempt::begin(&asked.to));
        progress.set(bytes, size);
    });
    drop((progress, attempt));
    let imported = imported.map_err(|error| {
        let exit = match error {
            ImportError::Log(RebuildError::NotEmpty { .. })
            | ImportError::Line { .. }
            | ImportError::Malformed { .. }
            | ImportError::Cut { .. }
            | ImportError::Empty
            | ImportError::Printed
            | ImportError::Chosen
            | ImportError::Dropped { .. }
            | ImportError::Rebuild { .. }
            | ImportError::Root { .. } => Exit::Refused,
            ImportError::Log(_) | ImportError::Read { .. } => Exit::Failed,
        };
        Failure::of(exit, &error)
    })?;
    if out.is_json() {
        return out.json(&imported);
    }
    let Imported { events, erased_later, encrypted, root, public_key, .. } = &imported;
    let signed = match public_key {
        Some(key) => format!("its head is signed by {key}"),
        None => "its head is not signed".to_owned(),
    };
    let (count, dir) = (counted(*events as usize, "event"), asked.to.display());
    out.line(format_args!("{count} in {dir}, every hash as exported; root {root}; {signed}"))?;
    if *erased_later > 0 {
        let count = counted(*erased_later as usize, "event");
        out.line(format_args!(
            "{count} erased by an order that is not in this log: right for a fork or a log that was restored up to a point, and \
             for no other"
        ))?;
    }
    if *encrypted == 0 {
        return Ok(());
    }
    let count = counted(*encrypted as usize, "event");
    out.line(format_args!(
        "{count} encrypted: copy erasure.keys of the other data directory to {dir} before a server starts on it"
    ))
}

/// A log in the making: a signal removes it and says so.
struct Attempt {
    file: PathBuf,
    _told: Told,
}

impl Attempt {
    fn begin(dir: &Path) -> Self {
        let (file, told, dir) = (dir.join(NEW_FILE), Told::new(), dir.to_owned());
        told.say(move || {
            let whole = dir.join(LOG_FILE).exists();
            let what = if whole { "the log was whole by then, in" } else { "nothing was imported into" };
            format!("{what} {}", dir.display())
        });
        due().add_part(file.clone());
        Self { file, _told: told }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        due().remove_part(&self.file);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs;

    use super::{Attempt, NEW_FILE};
    use crate::cli::interrupt::due;

    #[test]
    fn a_log_in_the_making_is_on_the_list_of_what_a_signal_removes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(NEW_FILE);
        fs::write(&file, "half").unwrap();
        let attempt = Attempt::begin(folder.path());
        assert!(due().holds(&file));
        drop(attempt);
        assert!(!due().holds(&file) && file.exists());
    }
}
