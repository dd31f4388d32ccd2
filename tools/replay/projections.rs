//! Fresh projections in a directory of their own.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caxton_events::log::Hash;
use caxton_events::{Record, Seq};
use caxton_projections::difference::PartDigest;
use caxton_projections::embedding::{Embedder, StoreError, VectorStore};
use caxton_projections::graph::{Graph, GraphError, SqliteOptions};
use caxton_projections::projection::Projection;
use caxton_projections::talk::{OpenTalkError, Talk, TalkStore};
use caxton_projections::vector::{OpenVectorsError, VectorOptions, Vectors};
use serde::Serialize;

use super::ReplayError;
use crate::counted::counted;

/// What vectors need.
pub struct VectorParts {
    /// The model: it is asked for what the store does not have.
    pub embedder: Arc<dyn Embedder>,
    /// A directory with a store of vectors by content, whose files are copied first: those of a data directory. The model
    /// then is asked for nothing that was embedded before.
    pub sidecar: Option<PathBuf>,
}

/// Why there are no fresh projections.
#[derive(Debug, thiserror::Error)]
pub enum OpenProjectionsError {
    /// The directory holds something.
    #[error("{} is not empty; name an empty or a new directory", dir.display())]
    NotEmpty {
        /// Which one.
        dir: PathBuf,
    },
    /// The directory cannot be used.
    #[error("could not use {}", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The graph did not open.
    #[error("could not open the graph")]
    Graph(#[source] GraphError),
    /// The graph could not be prepared.
    #[error("could not prepare the graph")]
    Prepare(#[source] caxton_projections::projection::ApplyError),
    /// Agents and conversations did not open.
    #[error("could not open agents and conversations")]
    Talk(#[source] OpenTalkError),
    /// The store of vectors did not open.
    #[error("could not open the store of vectors")]
    Store(#[source] StoreError),
    /// The vectors did not open.
    #[error("could not open the vectors")]
    Vectors(#[source] OpenVectorsError),
}

/// What was folded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Folded {
    /// The directory: `graph`, `talk` and, where there is a model, `vectors`.
    pub dir: PathBuf,
    /// Each part with its digest, as `projection verify` tells them. Two folds of the same events have the same.
    pub parts: Vec<FoldedPart>,
    /// Texts with a vector; `None` without a model.
    pub vectors: Option<u64>,
}

/// A part of what was folded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoldedPart {
    /// Its name.
    pub part: &'static str,
    /// Its rows.
    pub rows: u64,
    /// Digest over its rows, hex.
    pub digest: String,
}

impl From<PartDigest> for FoldedPart {
    fn from(part: PartDigest) -> Self {
        Self { part: part.part, rows: part.rows, digest: Hash(part.digest).to_string() }
    }
}

impl fmt::Display for Folded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "folded into {}", self.dir.display())?;
        for FoldedPart { part, rows, digest } in &self.parts {
            write!(f, "\n  {part:<13} {digest}  {}", counted(*rows, "row"))?;
        }
        match self.vectors {
            Some(vectors) => write!(f, "\nvectors of {}", counted(vectors, "text")),
            None => write!(f, "\nno vectors: there is no model here"),
        }
    }
}

/// Graph, agents and conversations, and vectors, all empty at first.
pub struct Projections {
    dir: PathBuf,
    graph: Graph,
    talk: Talk,
    talk_store: TalkStore,
    vectors: Option<(Vectors, VectorStore)>,
}

impl fmt::Debug for Projections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projections").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Projections {
    /// Empty projections in `dir`, which must be empty or new.
    ///
    /// # Errors
    ///
    /// [`OpenProjectionsError`].
    pub fn create(
        dir: &Path,
        options: &SqliteOptions,
        vectors: Option<VectorParts>,
    ) -> Result<Self, OpenProjectionsError> {
        let io = |source| OpenProjectionsError::Io { path: dir.to_owned(), source };
        // What agents remember and say is nobody else's.
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        if fs::read_dir(dir).map_err(io)?.next().is_some() {
            return Err(OpenProjectionsError::NotEmpty { dir: dir.to_owned() });
        }
        let mut graph = Graph::open(&dir.join("graph"), options).map_err(OpenProjectionsError::Graph)?;
        graph.begin_rebuild().map_err(OpenProjectionsError::Prepare)?;
        let (talk, talk_store) = TalkStore::open(&dir.join("talk")).map_err(OpenProjectionsError::Talk)?;
        let vectors = vectors.map(|parts| open_vectors(&dir.join("vectors"), parts)).transpose()?;
        Ok(Self { dir: dir.to_owned(), graph, talk, talk_store, vectors })
    }

    /// Folds records that follow on those before.
    pub(super) fn fold(&mut self, records: &[Record], through: Seq) -> Result<(), ReplayError> {
        fold(&mut self.graph, records, through)?;
        fold(&mut self.talk, records, through)?;
        match &mut self.vectors {
            Some((vectors, _)) => fold(vectors, records, through),
            None => Ok(()),
        }
    }

    /// Puts everything on disk.
    pub(super) fn finish(mut self) -> Result<Folded, ReplayError> {
        let after = self.graph.checkpoint();
        self.graph.finish_rebuild().map_err(|source| ReplayError::Fold {
            projection: "graph",
            after,
            source,
        })?;
        let mut parts = self.graph.reader().parts().map_err(|error| unfinished("graph", error))?;
        parts.extend(self.talk_store.parts().map_err(|error| unfinished("talk", error))?);
        self.talk_store.close().map_err(|error| unfinished("talk", error))?;
        let mut count = None;
        if let Some((mut vectors, store)) = self.vectors {
            vectors.finish_indexes();
            vectors.save().map_err(|error| unfinished("vectors", error))?;
            parts.push(vectors.part());
            count = Some(store.len() as u64);
        }
        let parts = parts.into_iter().map(FoldedPart::from).collect();
        Ok(Folded { dir: self.dir, parts, vectors: count })
    }
}

fn unfinished(
    projection: &'static str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> ReplayError {
    ReplayError::Finish { projection, source: Box::new(error) }
}

fn fold(projection: &mut dyn Projection, records: &[Record], through: Seq) -> Result<(), ReplayError> {
    let (name, after) = (projection.name(), projection.checkpoint());
    projection.fold(records, through).map_err(|source| ReplayError::Fold { projection: name, after, source })
}

fn open_vectors(dir: &Path, parts: VectorParts) -> Result<(Vectors, VectorStore), OpenProjectionsError> {
    if let Some(sidecar) = &parts.sidecar {
        copy_store(sidecar, dir)
            .map_err(|source| OpenProjectionsError::Io { path: sidecar.clone(), source })?;
    }
    let store = VectorStore::open(dir, parts.embedder.identity()).map_err(OpenProjectionsError::Store)?;
    let vectors = Vectors::open(dir, VectorOptions::default(), store.clone(), parts.embedder)
        .map_err(OpenProjectionsError::Vectors)?;
    Ok((vectors, store))
}

/// Copies the vectors by content, and nothing that was folded from a log.
fn copy_store(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let stored = path.extension().is_some_and(|extension| extension == "keys" || extension == "vecs");
        if let Some(name) = path.file_name().filter(|_| stored) {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
