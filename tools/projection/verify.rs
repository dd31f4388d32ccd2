//! Is a projection what the log adds up to? Folds the log afresh beside the one in use and compares.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

use caxton_events::Seq;
use caxton_events::log::Hash;
use caxton_projections::difference::Difference;
use caxton_projections::driver::catch_up_to;
use caxton_projections::graph::Graph;
use caxton_projections::vector::Vectors;
use serde::Serialize;

use super::base::seed;
use super::states::{State, StateError, TalkFile};
use super::{Home, Name, Progress};
use crate::counted::counted;

/// What a comparison found about one projection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Which projection.
    pub projection: Name,
    /// The last record that both folds include.
    pub seq: Seq,
    /// Whether every part is the same.
    pub equal: bool,
    /// Its parts: rows and words, agents and conversations, vectors.
    pub parts: Vec<VerifiedPart>,
    /// The first row that differs.
    pub difference: Option<Difference>,
}

/// One part of a projection, in use and folded afresh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedPart {
    /// Its name.
    pub part: &'static str,
    /// Rows of the one in use.
    pub rows: u64,
    /// Digest over its rows, hex.
    pub live: String,
    /// The same of the fresh fold.
    pub fresh: String,
    /// Whether they are the same.
    pub equal: bool,
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.equal { "equals" } else { "differs from" };
        write!(f, "{} at {} {verdict} its rebuild", self.projection, self.seq)?;
        for VerifiedPart { part, rows, live, fresh, equal } in &self.parts {
            write!(f, "\n  {part:<13} {live}  {}", counted(*rows, "row"))?;
            if !equal {
                write!(f, "\n  {:<13} {fresh}  folded afresh", "")?;
            }
        }
        if let Some(Difference { part, table, first, second }) = &self.difference {
            let shown = |row: &Option<String>| row.clone().unwrap_or_else(|| "no such row".to_owned());
            write!(f, "\n  the first difference is in {table} ({part})")?;
            write!(f, "\n    in use         {}", shown(first))?;
            write!(f, "\n    folded afresh  {}", shown(second))?;
        }
        Ok(())
    }
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The one in use could not be opened or read.
    #[error("could not read {name} in {}", path.display())]
    Live {
        /// Which projection.
        name: Name,
        /// Its folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<StateError>,
    },
    /// The fresh fold failed.
    #[error("could not fold {name} afresh in {}", path.display())]
    Fresh {
        /// Which projection.
        name: Name,
        /// The scratch folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<StateError>,
    },
    /// The scratch folder could not be made.
    #[error("could not make {}", path.display())]
    Scratch {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Folds the log afresh in a folder of its own, up to where the projection in use is, and compares everything. Nothing in
/// use is changed, but a journal may be moved into its file. The scratch folder takes as much room as the projection and
/// is removed.
///
/// # Errors
///
/// [`VerifyError`]; a difference is none.
pub fn verify(home: &Home<'_>, name: Name, progress: Progress<'_>) -> Result<Verified, VerifyError> {
    let scratch = home.data_dir.join(format!("{name}.verifying"));
    let made = clear(&scratch).and_then(|()| fs::create_dir_all(&scratch));
    made.map_err(|source| VerifyError::Scratch { path: scratch.clone(), source })?;
    let verified = match name {
        Name::Graph => compare::<Graph>(home, &scratch, progress),
        Name::Talk => compare::<TalkFile>(home, &scratch, progress),
        Name::Vectors => compare::<Vectors>(home, &scratch, progress),
    };
    // A scratch folder left behind costs room and nothing else.
    let _ = clear(&scratch);
    verified
}

fn compare<S: State>(
    home: &Home<'_>,
    scratch: &std::path::Path,
    progress: Progress<'_>,
) -> Result<Verified, VerifyError> {
    let place = home.data_dir.join(S::NAME.as_str());
    let live_failed =
        |source| VerifyError::Live { name: S::NAME, path: place.clone(), source: Box::new(source) };
    let failed =
        |source| VerifyError::Fresh { name: S::NAME, path: scratch.to_owned(), source: Box::new(source) };
    if S::stored(&place).map_err(live_failed)?.is_none() {
        return Err(live_failed(StateError::Missing));
    }
    let mut live = S::open(home, &place).map_err(live_failed)?;
    let seq = live.checkpoint();
    let seeded = seed(home, S::NAME, scratch, seq).map_err(|source| failed(StateError::Base(source)))?;
    let mut fresh = S::open(home, scratch).map_err(failed)?;
    if !seeded {
        fresh.begin().map_err(failed)?;
    }
    catch_up_to(home.log, fresh.projection(), seq, &mut |at, of| progress(S::NAME, at, of))
        .map_err(|error| failed(error.into()))?;
    let (here, there) = (live.parts().map_err(live_failed)?, fresh.parts().map_err(failed)?);
    let parts: Vec<VerifiedPart> = here
        .iter()
        .zip(&there)
        .map(|(live, fresh)| VerifiedPart {
            part: live.part,
            rows: live.rows,
            live: Hash(live.digest).to_string(),
            fresh: Hash(fresh.digest).to_string(),
            equal: live.digest == fresh.digest,
        })
        .collect();
    let equal = parts.iter().all(|part| part.equal);
    let difference = if equal { None } else { live.difference(&mut fresh).map_err(live_failed)? };
    Ok(Verified { projection: S::NAME, seq, equal, parts, difference })
}

fn clear(dir: &std::path::Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
