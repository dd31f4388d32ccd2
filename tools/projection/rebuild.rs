//! Another fold of the log in the place of a projection: built beside it, compared, read back, put in place.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use caxton_events::Seq;
use caxton_events::log::{Filter, Hash};
use caxton_projections::difference::PartDigest;
use caxton_projections::driver::catch_up_to;
use caxton_projections::graph::{DAMAGED_MARK, Graph, is_out_of_room};
use caxton_projections::projection::Projection;
use caxton_projections::swap::Place;
use caxton_projections::vector::Vectors;
use serde::Serialize;

use super::base::seed;
use super::room::{NoRoom, Room, needed_bytes};
use super::states::{State, StateError, TalkFile};
use super::{Home, Name, Progress};

/// How a projection is rebuilt.
#[derive(Clone, Copy)]
pub struct RebuildOptions<'a> {
    /// Whether the one that was in use stays, as `NAME.old`.
    pub keep_old: bool,
    /// How much room there is.
    pub room: Room<'a>,
}

/// What became of a projection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// Which one.
    pub projection: Name,
    /// The last record the new one includes: the end of the log.
    pub seq: Seq,
    /// What the new one is beside the old.
    pub comparison: Comparison,
    /// Digests of the new one's parts, hex, read back from its files.
    pub parts: Vec<(&'static str, String)>,
    /// Where the old one is kept, when that was asked for.
    pub old: Option<PathBuf>,
}

/// What the new one is beside the one it replaces, at the last record that the old one includes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum Comparison {
    /// Every part is the same.
    Equal {
        /// Where they were compared.
        at: Seq,
    },
    /// The old one was not what the log adds up to.
    Differs {
        /// Where they were compared.
        at: Seq,
        /// The parts that differ.
        parts: Vec<&'static str>,
    },
    /// There was none.
    None,
    /// The old one could not be read.
    Unreadable {
        /// Why not.
        reason: String,
    },
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal { at } => write!(f, "the old one was the same at {at}"),
            Self::Differs { at, parts } => {
                write!(f, "the old one was not what the log adds up to at {at}: {}", parts.join(", "))
            }
            Self::None => f.write_str("there was none before"),
            Self::Unreadable { reason } => write!(f, "the old one could not be read: {reason}"),
        }
    }
}

impl fmt::Display for Rebuilt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rebuilt up to {}; {}", self.projection, self.seq, self.comparison)?;
        for (part, digest) in &self.parts {
            write!(f, "\n  {part:<13} {digest}")?;
        }
        self.old.as_ref().map_or(Ok(()), |old| write!(f, "\n  the old one is in {}", old.display()))
    }
}

/// Why a projection was not rebuilt. The one in use still is, and what was half built was removed.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// There is no room.
    #[error("{name} was not rebuilt and stays as it was")]
    NoRoom {
        /// Which projection.
        name: Name,
        /// How much is missing, and where.
        #[source]
        source: NoRoom,
    },
    /// The new one could not be built.
    #[error("could not build {name} in {}; the old one stays in use", path.display())]
    Build {
        /// Which projection.
        name: Name,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<StateError>,
    },
    /// What was read back is not what was folded: the medium lies, or the memory.
    #[error(
        "{name} was built, but reads back otherwise than it was folded ({part}); the old one stays in use; check the disk"
    )]
    ReadBack {
        /// Which projection.
        name: Name,
        /// Which part of it.
        part: &'static str,
    },
    /// Folders could not be made, renamed or removed.
    #[error("could not put {name} in place in {}", path.display())]
    Place {
        /// Which projection.
        name: Name,
        /// Its folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Builds a projection anew from the log, beside the one in use, and puts it in its place.
///
/// A crash at any point leaves the old one or the new one in use. The old one is compared and, unless it is to be kept,
/// removed when the new one is in place. Nobody else may have a file of it open.
///
/// # Errors
///
/// [`RebuildError`].
pub fn rebuild(
    home: &Home<'_>,
    name: Name,
    options: RebuildOptions<'_>,
    progress: Progress<'_>,
) -> Result<Rebuilt, RebuildError> {
    let place = Place::new(home.data_dir, name.as_str());
    let failed = |source| RebuildError::Place { name, path: place.current().to_owned(), source };
    place.settle().map_err(failed)?;
    let needed = needed_bytes(home.log, place.current(), name).map_err(failed)?;
    let free = (options.room)(home.data_dir).map_err(failed)?;
    if free < needed {
        let source = NoRoom { dir: home.data_dir.to_owned(), needed, free, limited: false };
        return Err(RebuildError::NoRoom { name, source });
    }
    let rebuilt = match name {
        Name::Graph => build::<Graph>(home, &place, options, progress),
        Name::Talk => build::<TalkFile>(home, &place, options, progress),
        Name::Vectors => build::<Vectors>(home, &place, options, progress),
    };
    rebuilt.map_err(|error| {
        // What is left of it is removed at the next start as well.
        let _ = place.give_up();
        if !is_out_of_room(&error) {
            return error;
        }
        let free = (options.room)(home.data_dir).unwrap_or(0);
        let source = NoRoom { dir: home.data_dir.to_owned(), needed, free, limited: free >= needed };
        RebuildError::NoRoom { name, source }
    })
}

fn build<S: State>(
    home: &Home<'_>,
    place: &Place,
    options: RebuildOptions<'_>,
    progress: Progress<'_>,
) -> Result<Rebuilt, RebuildError> {
    let name = S::NAME;
    let beside = place.beside();
    let in_place = |source| RebuildError::Place { name, path: place.current().to_owned(), source };
    let failed = |source| RebuildError::Build { name, path: beside.clone(), source: Box::new(source) };
    place.begin().map_err(in_place)?;
    let (old, reason) = old_parts::<S>(home, place.current());
    let head = home.log.head().seq;
    let at_most = old.as_ref().map_or(head, |(at, _)| *at);
    let seeded = seed(home, name, &beside, at_most).map_err(|source| failed(StateError::Base(source)))?;
    let mut new = S::open(home, &beside).map_err(failed)?;
    if !seeded {
        new.begin().map_err(failed)?;
    }
    let mut progress = |at, _| progress(name, at, head);
    let mut comparison = reason.map_or(Comparison::None, |reason| Comparison::Unreadable { reason });
    let mut folded = None;
    if let Some((at, old)) = old {
        catch_up_to(home.log, new.projection(), at, &mut progress).map_err(|error| failed(error.into()))?;
        let now = new.parts().map_err(failed)?;
        let parts = differing(&old, &now);
        comparison =
            if parts.is_empty() { Comparison::Equal { at } } else { Comparison::Differs { at, parts } };
        // Mostly nothing of it was recorded behind the old one; then its digests, which take long, stay what they are.
        folded = Some(now).filter(|_| has_none_behind(home, new.projection(), at));
    }
    catch_up_to(home.log, new.projection(), head, &mut progress).map_err(|error| failed(error.into()))?;
    let folded = folded.map_or_else(|| new.parts(), Ok).map_err(failed)?;
    if seeded { new.finish_seeded() } else { new.finish() }.map_err(failed)?;
    let read_back = S::open(home, &beside).map_err(failed)?;
    let parts = close_parts(read_back).map_err(failed)?;
    if let Some(part) = differing(&folded, &parts).first() {
        return Err(RebuildError::ReadBack { name, part });
    }
    let old = if name == Name::Vectors {
        replace_rows(place, options.keep_old).map_err(in_place)?
    } else {
        place.swap().map_err(in_place)?;
        if !options.keep_old {
            place.discard_old().map_err(in_place)?;
        }
        Some(place.old()).filter(|old| options.keep_old && old.exists())
    };
    if name == Name::Graph {
        // Whatever was found in the old one is not in this one.
        match fs::remove_file(home.data_dir.join(DAMAGED_MARK)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(in_place(error)),
            Ok(()) | Err(_) => (),
        }
    }
    let parts = parts.iter().map(|part| (part.part, Hash(part.digest).to_string())).collect();
    Ok(Rebuilt { projection: name, seq: head, comparison, parts, old })
}

/// Whether the log holds nothing behind `at` that the projection folds.
fn has_none_behind(home: &Home<'_>, projection: &dyn Projection, at: Seq) -> bool {
    let filter = Filter { kinds: Some(projection.kinds()), ..Filter::default() };
    home.log.scan(at.next(), &filter).next().is_none()
}

/// The old one's checkpoint and digests, or why there are none. It is closed again.
fn old_parts<S: State>(home: &Home<'_>, place: &Path) -> (Option<(Seq, Vec<PartDigest>)>, Option<String>) {
    let read = || {
        let Some(stored) = S::stored(place)? else { return Ok(None) };
        if stored.checkpoint > home.log.head().seq {
            let head = home.log.head().seq;
            return Err(StateError::Refused(format!(
                "it is at {}, the log ends at {head}",
                stored.checkpoint
            )));
        }
        let mut old = S::open(home, place)?;
        let at = old.checkpoint();
        let parts = close_parts(old)?;
        Ok(Some((at, parts)))
    };
    match read() {
        Ok(old) => (old, None),
        Err(error) => (None, Some(error.to_string())),
    }
}

fn close_parts<S: State>(mut state: S) -> Result<Vec<PartDigest>, StateError> {
    state.parts()
}

/// The parts that are not the same in both.
fn differing(one: &[PartDigest], other: &[PartDigest]) -> Vec<&'static str> {
    let differing = one.iter().zip(other).filter(|(one, other)| one.digest != other.digest);
    differing.map(|(one, _)| one.part).collect()
}

/// Puts new rows of vectors beside the vectors themselves, which stay: one rename makes them the ones in use, and an index
/// that belongs to other rows is seen by its digest and built anew.
fn replace_rows(place: &Place, keep_old: bool) -> io::Result<Option<PathBuf>> {
    const STATE: &str = "vectors.state";
    let (dir, beside, old) = (place.current(), place.beside(), place.old());
    place.discard_old()?;
    let kept = keep_old && dir.join(STATE).exists();
    if kept {
        fs::create_dir_all(&old)?;
        fs::hard_link(dir.join(STATE), old.join(STATE))?;
    }
    fs::create_dir_all(dir)?;
    fs::rename(beside.join(STATE), dir.join(STATE))?;
    for entry in fs::read_dir(&beside)? {
        let entry = entry?;
        fs::rename(entry.path(), dir.join(entry.file_name()))?;
    }
    fs::File::open(dir)?.sync_all()?;
    place.give_up()?;
    Ok(kept.then_some(old))
}
