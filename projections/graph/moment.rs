//! Several questions about one state of the graph.

use caxton_events::MemoryId;
use rusqlite::Connection;

use super::as_of::AsOf;
use super::connection::unread;
use super::reader::{Side, entity_by_id, observation_by_id, observations_beyond};
use super::{Entity, Observation, ReadError};

/// The graph at one moment, for questions that belong together: they share a connection and a read
/// transaction, which costs more than a row does.
///
/// Every call fails with [`ReadError::Sqlite`] when the file cannot be read.
#[derive(Debug)]
pub struct GraphMoment<'a> {
    connection: &'a Connection,
    as_of: AsOf,
}

impl<'a> GraphMoment<'a> {
    pub(super) const fn new(connection: &'a Connection, as_of: AsOf) -> Self {
        Self { connection, as_of }
    }

    pub(super) const fn connection(&self) -> &'a Connection {
        self.connection
    }

    /// The entity with this number, if it is in the present.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn entity(&self, id: MemoryId) -> Result<Option<Entity>, ReadError> {
        entity_by_id(self.connection, self.as_of, id).map_err(unread("an entity"))
    }

    /// The observation with this number, if it is in the present.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn observation(&self, id: MemoryId) -> Result<Option<Observation>, ReadError> {
        observation_by_id(self.connection, self.as_of, id).map_err(unread("an observation"))
    }

    /// The first `limit` observations of an entity after the one given, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn observations_of(
        &self,
        entity: MemoryId,
        after: MemoryId,
        limit: usize,
    ) -> Result<Vec<Observation>, ReadError> {
        observations_beyond(self.connection, self.as_of, Side::After, entity, after, limit)
            .map_err(unread("observations of an entity"))
    }
}
