//! The queries that were asked most, kept beside the log so that a start can compute their vectors before they are asked again.
//!
//! They are users' texts and nothing is derived from them: an erasure removes the file, whoever was erased.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};

use super::Engine;

/// The file in the data directory.
pub(super) const FILE_NAME: &str = "queries.json";
/// What is written before it takes that place.
pub(super) const BESIDE: &str = "queries.json.tmp";
/// Queries that are kept.
const KEPT_MAX: usize = 256;
/// A file larger than this was not written here.
const FILE_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    /// Each query with how often it was asked, the most frequent first.
    queries: Vec<(String, u64)>,
}

impl Engine {
    /// Computes the vectors of the queries that an earlier run kept; how many. A file that is not what was written is left
    /// alone, and told of.
    pub fn warm_queries(&self) -> usize {
        let Some(semantic) = self.view().semantic() else { return 0 };
        // An erasure forgets them behind this, not in the middle: what is forgotten must not come back.
        let _kept = self.inner.erasing.queries.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.data_dir().join(FILE_NAME);
        let read = fs::metadata(&path).and_then(|file| {
            if file.len() > FILE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large"));
            }
            serde_json::from_slice::<Kept>(&fs::read(&path)?).map_err(io::Error::from)
        });
        let kept = match read {
            Ok(kept) => kept.queries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return 0,
            Err(error) => {
                tracing::warn!(
                    path = %path.display(), %error,
                    "the frequent queries could not be read, and are not computed ahead; they are counted anew"
                );
                return 0;
            }
        };
        match semantic.embedding.warm(&kept) {
            Ok(count) => {
                tracing::info!(count, "the vectors of frequent queries are computed");
                count
            }
            Err(error) => {
                tracing::warn!(%error, "the vectors of frequent queries could not be computed ahead");
                0
            }
        }
    }

    /// Keeps the queries that were asked most, for the next start.
    ///
    /// # Errors
    ///
    /// The system's, when the file cannot be written; the one before stays then.
    pub fn keep_queries(&self) -> io::Result<()> {
        let Some(semantic) = self.view().semantic() else { return Ok(()) };
        let _kept = self.inner.erasing.queries.lock().unwrap_or_else(PoisonError::into_inner);
        let queries = semantic.embedding.frequent(KEPT_MAX);
        if queries.is_empty() {
            return Ok(());
        }
        let path = self.data_dir().join(FILE_NAME);
        let beside = self.data_dir().join(BESIDE);
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(&Kept { queries })?)?;
        file.sync_all()?;
        fs::rename(&beside, &path)
    }
}
