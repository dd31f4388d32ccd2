//! An export that a server answers: whatever listens there may answer something, and only an export takes the place of a file.

use std::io::{self, BufReader, Chain, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::failure::{Exit, Failure};
use super::transfer::write_out;
use super::whole_output::{WholeFile, finish_all};

/// Bytes that are looked at before anything is written.
const FIRST_BYTES: u64 = 16;
/// Bytes of the end that are kept to look at: the last line of an export is short.
const LAST_BYTES: usize = 16 << 10;

/// What an export is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A line of JSON each; the last one marks the end.
    Lines,
    /// A Parquet file.
    Parquet,
    /// A file of SQLite.
    Sqlite,
}

impl Form {
    /// What each of them begins with.
    const fn beginning(self) -> &'static [u8] {
        match self {
            Self::Lines => b"{",
            Self::Parquet => b"PAR1",
            Self::Sqlite => b"SQLite format 3",
        }
    }
}

/// An answer that began as an export does, with its beginning.
pub(super) struct Answered<R> {
    body: Chain<Cursor<Vec<u8>>, R>,
    form: Form,
    last: Vec<u8>,
}

impl<R: Read> Answered<R> {
    fn begin(mut body: R, form: Form, path: &Path) -> Result<Self, Failure> {
        let mut first = Vec::new();
        let read = body.by_ref().take(FIRST_BYTES).read_to_end(&mut first);
        read.map_err(|error| {
            let message = format!("the answer broke off: {error}; nothing was written to {}", path.display());
            Failure::new(Exit::Failed, message)
        })?;
        if first.starts_with(form.beginning()) {
            return Ok(Self { body: Cursor::new(first).chain(body), form, last: Vec::new() });
        }
        let what = if first.is_empty() {
            "is empty".to_owned()
        } else {
            format!("begins with {:?}", String::from_utf8_lossy(&first))
        };
        let message = format!(
            "the answer {what}, which is no export; is this a Caxton server? Nothing was written to {}",
            path.display()
        );
        Err(Failure::new(Exit::Failed, message))
    }

    /// Refuses lines without the one that marks the end; to be asked when all is read.
    fn end(&self) -> Result<(), Failure> {
        let mut lines = self.last.trim_ascii_end().rsplit(|byte| *byte == b'\n');
        let last: Value = serde_json::from_slice(lines.next().unwrap_or_default()).unwrap_or_default();
        if self.form != Form::Lines || matches!(last["type"].as_str(), Some("end" | "head")) {
            return Ok(());
        }
        let message = "the answer lacks an export's last line: it is no export, or half of one; is this a Caxton server?";
        Err(Failure::new(Exit::Failed, message))
    }
}

impl<R: Read> Read for Answered<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.body.read(bytes)?;
        if self.form == Form::Lines {
            self.last.extend_from_slice(&bytes[..count]);
            self.last.drain(..self.last.len().saturating_sub(LAST_BYTES));
        }
        Ok(count)
    }
}

/// Writes an answer through `copy` to a file, which stays as it was when it is no export; answers the bytes.
pub(super) fn keep<R: Read>(
    body: R,
    form: Form,
    path: &Path,
    copy: impl FnOnce(&mut BufReader<Answered<R>>, &mut dyn Write) -> io::Result<u64>,
) -> Result<u64, Failure> {
    let mut body = BufReader::new(Answered::begin(body, form, path)?);
    let (mut bytes, mut cut) = (0, None);
    let written = write_out(path, |file| {
        bytes = copy(&mut body, file)?;
        body.get_ref().end().map_err(|failure| io::Error::other(cut.insert(failure).to_string()))
    });
    match cut {
        Some(failure) => Err(failure),
        None => written.map(|()| bytes),
    }
}

/// Writes answers to files, which take their places together when the last of them is there; the bytes of each. When one of them
/// is no export, all files stay as they were.
pub(super) fn keep_all<R: Read>(
    answers: impl IntoIterator<Item = (Result<R, Failure>, PathBuf)>,
    form: Form,
) -> Result<Vec<(PathBuf, u64)>, Failure> {
    let (mut files, mut written) = (Vec::new(), Vec::new());
    for (body, place) in answers {
        let mut body = Answered::begin(body?, form, &place)?;
        let failed = |error: io::Error| Failure::file("write", &place, &error);
        let mut file = WholeFile::create(&place).map_err(failed)?;
        let bytes = copy(&mut body, &mut file).map_err(failed)?;
        body.end()?;
        file.sync().map_err(failed)?;
        files.push(file);
        written.push((place, bytes));
    }
    finish_all(files).map_err(|(place, error)| Failure::file("write", &place, &error))?;
    Ok(written)
}

/// Copies all of it.
pub(super) fn copy(body: &mut impl Read, file: &mut dyn Write) -> io::Result<u64> {
    io::copy(body, file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs;

    use super::{Form, copy, keep, keep_all};
    use crate::cli::failure::{Exit, Failure};

    #[test]
    fn a_file_is_replaced_by_an_export_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("export");
        fs::write(&path, "old").unwrap();
        for (form, answer) in [
            (Form::Lines, ""),
            (Form::Lines, "<html>hello</html>"),
            (Form::Lines, "{\"status\":\"ok\"}\n"),
            (Form::Lines, "{\"type\":\"log\"}\n{\"type\":\"event\"}\n"),
            (Form::Lines, "{\"type\":\"log\"}\n{\"events\":0,\"type\":\"en"),
            (Form::Parquet, ""),
            (Form::Parquet, "PAR"),
            (Form::Parquet, "<html>hello</html>"),
            (Form::Sqlite, ""),
            (Form::Sqlite, "PAR1"),
        ] {
            let failure = keep(answer.as_bytes(), form, &path, copy).unwrap_err();
            let told = failure.to_string();
            assert_eq!(failure.exit, Some(Exit::Failed), "{told}");
            assert!(told.contains("is no export") && told.contains("is this a Caxton server?"), "{told}");
            assert_eq!(fs::read(&path).unwrap(), b"old", "{answer}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let long = format!("{{\"type\":\"log\"}}\n{}\n{{\"type\":\"head\"}}\n", " ".repeat(100_000));
        for (form, answer) in [
            (Form::Lines, "{\"type\":\"log\"}\n{\"events\":0,\"type\":\"end\"}\n"),
            (Form::Lines, long.as_str()),
            (Form::Parquet, "PAR1 and the rest of it"),
            (Form::Sqlite, "SQLite format 3\0 and the rest of it"),
        ] {
            assert_eq!(keep(answer.as_bytes(), form, &path, copy).unwrap(), answer.len() as u64);
            assert_eq!(fs::read(&path).unwrap(), answer.as_bytes());
        }
    }

    #[test]
    fn files_of_one_export_are_there_together_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let places = ["entities", "observations"].map(|name| folder.path().join(name));
        let kept = |last: Result<&'static str, Failure>| {
            let bodies = [Ok("PAR1 first".as_bytes()), last.map(str::as_bytes)];
            keep_all(bodies.into_iter().zip(places.clone()), Form::Parquet)
        };
        let stopped = || Failure::new(Exit::Failed, "the server is stopping");
        for last in [Ok("<html>no</html>"), Err(stopped())] {
            let told = kept(last).unwrap_err().to_string();
            assert!(told.contains("is no export") || told == "the server is stopping", "{told}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
        let [first, second] = places.clone();
        assert_eq!(kept(Ok("PAR1 2nd")).unwrap(), [(first, 10), (second, 8)]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
