//! The projections behind one trait: opened from their folder, folded in bulk, brought to disk, compared.

use std::path::Path;
use std::sync::Arc;

use caxton_events::Seq;
use caxton_projections::difference::{Difference, PartDigest};
use caxton_projections::driver::CatchUpError;
use caxton_projections::embedding::{StoreError, VectorStore};
use caxton_projections::graph::{self, Graph, GraphError};
use caxton_projections::projection::{ApplyError, Projection, Stored};
use caxton_projections::talk::{self, OpenTalkError, Talk, TalkStore};
use caxton_projections::vector::{self, FileError, OpenVectorsError, SaveError, Vectors};

use super::{Home, Name};

/// Why a projection could not be opened, folded, stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The graph did not open.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The graph could not be read.
    #[error(transparent)]
    Read(#[from] graph::ReadError),
    /// Agents and conversations did not open.
    #[error(transparent)]
    Talk(#[from] OpenTalkError),
    /// The file of agents and conversations could not be written or read.
    #[error("could not use the file of agents and conversations")]
    TalkFile(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store of vectors did not open.
    #[error("could not open the store of vectors")]
    Store(#[from] StoreError),
    /// The vectors did not open.
    #[error("could not open the vectors")]
    Vectors(#[from] OpenVectorsError),
    /// The file of the saved vectors cannot be read.
    #[error(transparent)]
    VectorsFile(#[from] FileError),
    /// The saved vectors cannot be used.
    #[error("the saved vectors cannot be used: {0}")]
    Refused(String),
    /// The vectors could not be saved.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// What dropped events led to could not be put in place.
    #[error("could not begin from what is kept in the place of dropped events")]
    Base(#[source] std::io::Error),
    /// There is nothing in the folder.
    #[error("there is none; rebuild it, or start the server once")]
    Missing,
    /// There is no model.
    #[error(
        "the embedding model is needed, and there is none: fetch it (caxton model pull) or leave the vectors out"
    )]
    NoModel,
    /// Records could not be folded.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The projection could not be brought up to the log.
    #[error(transparent)]
    CatchUp(#[from] CatchUpError),
}

impl StateError {
    /// Whether the system kept the file from being read: then nothing is known about what is in it.
    pub(super) const fn is_of_system(&self) -> bool {
        matches!(self, Self::Graph(GraphError::Io { .. }) | Self::VectorsFile(FileError::Io { .. }))
    }
}

/// A projection that can be built in a folder and compared with another one of its kind.
pub(super) trait State: Sized {
    /// Which projection it is.
    const NAME: Name;

    /// The part of it that folds.
    fn projection(&mut self) -> &mut dyn Projection;

    /// Opens what is in `dir`, and makes it empty where there is nothing.
    fn open(home: &Home<'_>, dir: &Path) -> Result<Self, StateError>;

    /// What the files in `dir` say about themselves; `None` when there are none.
    fn stored(dir: &Path) -> Result<Option<Stored>, StateError>;

    /// Prepares for a fold from the first record on.
    fn begin(&mut self) -> Result<(), StateError>;

    /// Ends a fold from the first record on: everything is in the files, closed.
    fn finish(self) -> Result<(), StateError>;

    /// Ends a fold that began from a base.
    fn finish_seeded(self) -> Result<(), StateError> {
        self.finish()
    }

    /// The digests of its parts.
    fn parts(&mut self) -> Result<Vec<PartDigest>, StateError>;

    /// Where two of them differ first.
    fn difference(&mut self, other: &mut Self) -> Result<Option<Difference>, StateError>;

    /// The last record it includes.
    fn checkpoint(&mut self) -> Seq {
        self.projection().checkpoint()
    }
}

impl State for Graph {
    const NAME: Name = Name::Graph;

    fn projection(&mut self) -> &mut dyn Projection {
        self
    }

    fn open(home: &Home<'_>, dir: &Path) -> Result<Self, StateError> {
        Ok(Self::open(dir, home.sqlite)?)
    }

    fn stored(dir: &Path) -> Result<Option<Stored>, StateError> {
        Ok(graph::stored(dir)?)
    }

    fn begin(&mut self) -> Result<(), StateError> {
        Ok(self.begin_rebuild()?)
    }

    fn finish(mut self) -> Result<(), StateError> {
        self.finish_rebuild()?;
        Ok(self.close()?)
    }

    fn finish_seeded(self) -> Result<(), StateError> {
        Ok(self.close()?)
    }

    fn parts(&mut self) -> Result<Vec<PartDigest>, StateError> {
        Ok(self.reader().parts()?)
    }

    fn difference(&mut self, other: &mut Self) -> Result<Option<Difference>, StateError> {
        Ok(self.reader().difference(&other.reader())?)
    }
}

/// Agents and conversations with their file.
pub(super) struct TalkFile {
    talk: Talk,
    store: TalkStore,
}

fn talk_file(error: impl std::error::Error + Send + Sync + 'static) -> StateError {
    StateError::TalkFile(Box::new(error))
}

impl State for TalkFile {
    const NAME: Name = Name::Talk;

    fn projection(&mut self) -> &mut dyn Projection {
        &mut self.talk
    }

    fn open(_: &Home<'_>, dir: &Path) -> Result<Self, StateError> {
        let (talk, store) = TalkStore::open(dir)?;
        Ok(Self { talk, store })
    }

    fn stored(dir: &Path) -> Result<Option<Stored>, StateError> {
        talk::stored(dir).map_err(talk_file)
    }

    fn begin(&mut self) -> Result<(), StateError> {
        Ok(())
    }

    fn finish(mut self) -> Result<(), StateError> {
        self.store.flush().map_err(talk_file)?;
        self.store.close().map_err(talk_file)
    }

    fn parts(&mut self) -> Result<Vec<PartDigest>, StateError> {
        self.store.parts().map_err(talk_file)
    }

    fn difference(&mut self, other: &mut Self) -> Result<Option<Difference>, StateError> {
        self.store.difference(&mut other.store).map_err(talk_file)
    }
}

impl State for Vectors {
    const NAME: Name = Name::Vectors;

    fn projection(&mut self) -> &mut dyn Projection {
        self
    }

    /// The rows are in `dir`; the vectors themselves, by content, always in the data directory: they are of the model, not
    /// of a fold, and a rebuild does not run it again. Rows of other records than the log's are no error: what differs is found out.
    fn open(home: &Home<'_>, dir: &Path) -> Result<Self, StateError> {
        let embedder = home.embedder.clone().ok_or(StateError::NoModel)?;
        let store = VectorStore::open(&home.data_dir.join(Name::Vectors.as_str()), embedder.identity())?;
        let mut vectors = Self::open(dir, home.vectors, store, Arc::clone(&embedder))?;
        vectors.follow(home.log);
        match &vectors.opened().refused {
            None => Ok(vectors),
            Some(refused) => Err(StateError::Refused(told(refused))),
        }
    }

    fn stored(dir: &Path) -> Result<Option<Stored>, StateError> {
        Ok(vector::stored(dir)?)
    }

    fn begin(&mut self) -> Result<(), StateError> {
        Ok(())
    }

    fn finish(mut self) -> Result<(), StateError> {
        self.finish_indexes();
        Ok(self.save()?)
    }

    fn parts(&mut self) -> Result<Vec<PartDigest>, StateError> {
        Ok(vec![self.part()])
    }

    fn difference(&mut self, other: &mut Self) -> Result<Option<Difference>, StateError> {
        Ok(Self::difference(self, other))
    }
}

/// An error with its causes in one line.
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
