//! Backups: the log up to a head with what belongs to it, in a folder that is added to; and logs made of them.
//!
//! ```text
//! manifest.json   what there is, written last and in one step: what it does not name is not part of the backup
//! log/            a file per run of blocks: one or more for each time the backup was added to
//! files/<n>/      agents' files, the configuration, FORMAT and, if asked for, signing.key, as they were the last time
//! LOCK            held while the backup is written
//! ```
//!
//! Reading order: [`format`](mod@format) (the files), [`frames`] (what a backup is sent as), [`source()`] and [`extras()`] (a log and its
//! files as frames), [`begin()`] (frames to a folder), [`check()`], [`restore()`].

mod beside;
mod check;
mod disk;
mod extras;
pub mod format;
mod frames;
mod left;
mod receive;
mod restore;
mod source;
#[cfg(test)]
mod tests;

pub use beside::empty_but;
pub use check::{CheckError, Checked, Problem, check};
pub use extras::{ExtraError, Places, extras, signing_key};
pub use format::{Manifest, ManifestError, Part, PartKind, read_manifest};
pub use frames::FrameError;
pub use receive::{Added, ReceiveError, Receiver, begin};
pub use restore::{RestoreError, RestoreOptions, Restored, Until, restore};
pub use source::{Extra, Extras, Frames, SourceError, Wanted, source};
