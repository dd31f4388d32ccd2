//! Small files beside the log: its id, and how such files are written.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use crate::log::origin::hex;
use crate::log::seal::sync_dir;

/// Holds the log's id as hex beside the log, so that a log that was lost is told from one that never was.
pub(crate) const ID_FILE: &str = "events.id";

/// The id that the data directory `dir` gives for its log; `None` where it gives none.
pub fn id_beside(dir: &Path) -> Option<[u8; 16]> {
    let text = fs::read_to_string(dir.join(ID_FILE)).ok()?;
    hex::parse(text.trim())
}

/// Writes the id beside the log, also over that of a log which was here before: whoever looks for its server goes by it.
pub(crate) fn write_id(dir: &Path, log_id: [u8; 16]) -> io::Result<()> {
    let text = format!("{:032x}\n", u128::from_be_bytes(log_id));
    if fs::read(dir.join(ID_FILE)).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(());
    }
    write_whole(dir, ID_FILE, text.as_bytes())
}

/// Writes a small file of this name in `dir`: after a crash it is there as it was before or with all of `content`. It is on the
/// medium when this returns.
///
/// # Errors
///
/// What the medium said.
pub fn write_whole(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, dir.join(name))?;
    sync_dir(dir)
}
