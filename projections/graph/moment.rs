//! Several questions about one state of the graph.

use caxton_events::MemoryId;
use rusqlite::Connection;

use super::connection::unread;
use super::reader::{Side, entity_by_id, observation_by_id, observations_beyond};
use super::{Entity, Observation, ReadError};

/// The graph as it is at one moment, for questions that belong together: they share a connection and a read
/// transaction, which costs more than a row does.
///
/// Every call fails with [`ReadError::Sqlite`] when the file cannot be read.
#[derive(Debug)]
pub struct GraphMoment<'a> {
    connection: &'a Connection,
}

impl<'a> GraphMoment<'a> {
    pub(super) const fn new(connection: &'a Connection) -> Self {
        Self { connection }
    }

    /// The entity with this number, if it is in the present.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn entity(&self, id: MemoryId) -> Result<Option<Entity>, ReadError> {
        entity_by_id(self.connection, id).map_err(unread("an entity"))
    }

    /// The observation with this number, if it is in the present.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn observation(&self, id: MemoryId) -> Result<Option<Observation>, ReadError> {
        observation_by_id(self.connection, id).map_err(unread("an observation"))
    }

    /// The first `limit` observations of an entity, in the order of their numbers.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn observations_of(&self, entity: MemoryId, limit: usize) -> Result<Vec<Observation>, ReadError> {
        observations_beyond(self.connection, Side::After, entity, MemoryId::default(), limit)
            .map_err(unread("observations of an entity"))
    }
}
