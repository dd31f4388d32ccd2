//! What an import reads, seen to be whole before anything of it is sent.

use std::env::temp_dir;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, Write as _};
use std::path::Path;

use super::args::Import;
use super::failure::{Exit, Failure};
use super::transfer::{Chunks, counts_rows, input, is_dash};

/// The lines to import.
///
/// A file is read once more than it is sent. An export that comes through a pipe, which can be read once only, goes into a
/// file without a name first. Other lines of a pipe are sent as they come: nothing says how many there will be.
pub(super) fn open(import: &Import) -> Result<Box<dyn BufRead>, Failure> {
    let path = &import.file;
    let failed = |error: io::Error| Failure::file("read", path, &error);
    let mut lines = BufReader::new(input(path)?);
    if !is_dash(path) && std::fs::metadata(path).is_ok_and(|there| there.is_file()) {
        check(lines, import)?;
        return Ok(Box::new(BufReader::new(input(path)?)));
    }
    let mut first = Vec::new();
    lines.read_until(b'\n', &mut first).map_err(failed)?;
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
    let place = if is_dash(path) { "standard input".to_owned() } else { path.display().to_string() };
    let message = format!(
        "the input is empty: {place} holds nothing to import, and nothing was written; look at what the command said that was to \
         write it, and import again (an export of an empty memory has its first and its last line)"
    );
    Failure::new(Exit::Failed, message)
}
