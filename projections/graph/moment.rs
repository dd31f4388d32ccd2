//! Several questions about one state of the graph.

use std::sync::LazyLock;

use caxton_events::MemoryId;
use caxton_events::memory::Validity;
use rusqlite::Connection;

use super::as_of::AsOf;
use super::connection::unread;
use super::reader::{Side, entity_by_id, observation_by_id, observations_beyond};
use super::{Entity, Observation, ReadError, columns};

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

    /// Who created the entity with this number and when it is true, if it is in the present. The rest of it is not read.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn entity_standing(&self, id: MemoryId) -> Result<Option<(String, Validity)>, ReadError> {
        static SQL: LazyLock<[String; 2]> = LazyLock::new(|| {
            AsOf::by_id("entities", "e", |condition| {
                format!("SELECT e.owner, e.valid_from, e.valid_to FROM entities e WHERE {condition}")
            })
        });
        self.as_of
            .one(self.connection, self.as_of.of(&SQL), &[(":id", &(id.0 as i64))], |row| {
                Ok((row.get(0)?, columns::validity(row, 1)?))
            })
            .map_err(unread("the owner of an entity"))
    }

    /// When the observation with this number is true and how many bytes its text has, if it is in the present. The text is not read.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn observation_extent(&self, id: MemoryId) -> Result<Option<(Validity, usize)>, ReadError> {
        static SQL: LazyLock<[String; 2]> = LazyLock::new(|| {
            AsOf::by_id("observations", "o", |condition| {
                format!(
                    "SELECT o.valid_from, o.valid_to, octet_length(o.content)
                     FROM observations o WHERE {condition}"
                )
            })
        });
        self.as_of
            .one(self.connection, self.as_of.of(&SQL), &[(":id", &(id.0 as i64))], |row| {
                Ok((columns::validity(row, 0)?, row.get::<_, i64>(2)? as usize))
            })
            .map_err(unread("the time of an observation"))
    }

    /// The last `limit` observations of an entity before the one given, the nearest first.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn observations_before(
        &self,
        entity: MemoryId,
        before: MemoryId,
        limit: usize,
    ) -> Result<Vec<Observation>, ReadError> {
        observations_beyond(self.connection, self.as_of, Side::Before, entity, before, limit)
            .map_err(unread("observations of an entity"))
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
