//! The server on a data directory: the one that its file names, if that is the one which has the directory open.
//!
//! The file stays when a server is killed, and goes with a copy of the directory. By then another server may answer at the address
//! in it, so that the file alone would send what is asked of this directory, an erasure even, to that one.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use caxton_events::log::beside::id_beside;
use caxton_events::log::open::writer_of;

use super::ENDPOINT_FILE;
use super::http::{Found, Http, is_address};
use crate::cli::args::Common;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::shortened;

/// The server that has `dir` open, if one does: nobody is asked anything who has not the log of this directory.
pub(super) fn on_directory(dir: &Path, common: &Common) -> Result<Option<Http>, Failure> {
    let file = dir.join(ENDPOINT_FILE);
    let text = fs::read(&file);
    if text.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(None);
    }
    // A lock that cannot be looked at may be held: then the ids alone decide.
    let holder = writer_of(dir);
    if matches!(holder, Ok(None)) {
        return Ok(None);
    }
    let text = text.map_err(|error| unreadable(&file, &error))?;
    let text = String::from_utf8_lossy(&text);
    let url = text.trim();
    is_address(url, "").map_err(|_| names_no_server(&file, url))?;
    let server = Http::new(url, common.api_key.clone())?;
    let own = id_beside(dir).map(|id| format!("{:032x}", u128::from_be_bytes(id)));
    match server.who_answers() {
        Found::Nobody => Ok(None),
        Found::Log(id) if own.as_ref() == Some(&id) => Ok(Some(server)),
        found @ (Found::Log(_) | Found::Stranger) => match holder {
            Ok(Some(pid)) => Err(another(dir, url, pid, (own, found))),
            Ok(None) | Err(_) => Ok(None),
        },
    }
}

/// The directory is in use, and not by who answers.
fn another(dir: &Path, url: &str, pid: u32, (own, found): (Option<String>, Found)) -> Failure {
    let answers = match found {
        Found::Log(id) => format!("a server with another log answers ({id})"),
        Found::Stranger | Found::Nobody => "something answers that does not say which log it has".to_owned(),
    };
    let own = own.unwrap_or_else(|| "unknown".to_owned());
    let holder = if pid == 0 { "another process".to_owned() } else { format!("process {pid}") };
    let dir = dir.display();
    let message = format!(
        "{dir} is in use by {holder}, but at {url}, the address in {dir}/{ENDPOINT_FILE}, {answers}, not that of this directory \
         ({own}); nothing was asked of it. Wait until {holder} has ended, or name the server with --url"
    );
    Failure::new(Exit::Unreachable, message)
}

/// Somebody has the directory open, and the file does not say where to find it.
fn names_no_server(file: &Path, text: &str) -> Failure {
    let holds = if text.is_empty() { "is empty".to_owned() } else { format!("holds {:?}", shortened(text)) };
    let message = format!(
        "{} {holds}, where the address of the server on this data directory should stand (http://HOST:PORT), \
         and a process has the directory open; name the server with --url, or start it again",
        file.display()
    );
    Failure::new(Exit::Unreachable, message)
}

/// The file cannot be read; where that is nobody's but its owner's, whose it is.
fn unreadable(file: &Path, error: &io::Error) -> Failure {
    let message = format!("could not read {}: {error}", file.display());
    if error.kind() != io::ErrorKind::PermissionDenied {
        return Failure::new(Exit::Unreachable, message);
    }
    // What lies in a folder that is closed cannot be looked at either; the folder can.
    let closed = file.ancestors().skip(1).find_map(|above| Some((above, fs::metadata(above).ok()?.uid())));
    let whose = closed.map(|(above, uid)| {
        let owner = name_of(uid).unwrap_or_else(|| format!("user {uid}"));
        format!(
            "; {} belongs to {owner}: run this as {owner}, or name the server on it with --url",
            above.display()
        )
    });
    Failure::new(Exit::Failed, message + &whose.unwrap_or_default())
}

/// The name of a user of this machine.
fn name_of(uid: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse::<u32>() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs;
    use std::io;
    use std::os::unix::fs::MetadataExt as _;

    use super::{Exit, name_of, unreadable};

    #[test]
    fn a_directory_of_somebody_else_is_told_with_its_owner_and_is_no_server_that_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("endpoint");
        let uid = fs::metadata(folder.path()).unwrap().uid();
        let owner = name_of(uid).unwrap_or_else(|| format!("user {uid}"));
        let denied = unreadable(&file, &io::ErrorKind::PermissionDenied.into());
        assert_eq!(denied.exit, Some(Exit::Failed));
        let told = format!("; {} belongs to {owner}: run this as {owner}", folder.path().display());
        assert!(denied.to_string().contains(&told), "{denied}");
        let other = unreadable(&file, &io::ErrorKind::IsADirectory.into());
        assert_eq!(other.exit, Some(Exit::Unreachable));
        assert!(!other.to_string().contains("belongs"), "{other}");
    }

    #[test]
    fn users_have_their_names() {
        assert_eq!(name_of(0).as_deref(), Some("root"));
        assert_eq!(name_of(u32::MAX - 7), None);
    }
}
