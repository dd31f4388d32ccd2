//! The tables of the log in redb, and what can go wrong with them.

use std::io;

/// What the medium or the store said.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The medium failed.
    #[error("the medium failed")]
    Io(#[source] io::Error),
    /// The file's own structure is broken.
    #[error("the store is damaged: {0}; restore events.redb from a backup")]
    Damaged(String),
    /// The store refused.
    #[error("the store refused")]
    Refused(#[source] Box<redb::Error>),
}
