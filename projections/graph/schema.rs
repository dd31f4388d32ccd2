//! Tables and indexes: the seed's names, every version of every row.
//!
//! A row is what one record wrote; its key is that record's position, so rows are appended and never move. `removed_seq`
//! is the record that replaced or removed it, and the present is `removed_seq IS NULL`. The state as of a position `s` is
//! `created_seq <= s AND (removed_seq IS NULL OR removed_seq > s)`. Times are microseconds since 1970.
//!
//! `figures` has the counts of a scope after each record that changed them: what it held, and how many words there were, as
//! of any record.
//!
//! The seed's 13 indexes keep their names and their leading columns; they hold the present only and carry what the
//! queries need besides. `removed_seq`, always null there, is among the columns because SQLite would else fetch the row to
//! look at it:
//!
//! | index | serves |
//! | --- | --- |
//! | `idx_entities_type` | lists by type and scope, in the order of numbers |
//! | `idx_entities_name` | an entity by its name; lists by the start of a name |
//! | `idx_entities_type_name`, `_created`, `_updated`, `idx_relations_type`, `_strength` | other programs' SQL on this file |
//! | `idx_relations_from` | one hop and walks, without touching the rows; the relation of a triple |
//! | `idx_relations_to` | one hop and walks against the direction, without touching the rows |
//! | `idx_observations_entity` | observations of an entity, their neighbours and their number |
//! | `idx_observations_content` | an observation by its text, over the first 64 bytes, and its entity: many begin with the same words |
//! | `idx_entities_owner` (ours) | how many entities an agent has, without touching the rows |
//! | `idx_…_valid_from`, `_valid_to` (ours) | when something of the present begins or ends to be true next |
//! | `idx_…_past…` (ours) | the same questions as of a record, for rows that were replaced or removed since |
//! | `idx_…_removed` (ours) | what was removed between two records |
//! | `idx_embeddings_vector`, `_similarity` | other programs' SQL; `embeddings` stays empty unless an export fills it: vectors live in their own store beside this file |

/// Grows when an older file must not be read.
pub const VERSION: u32 = 4;

/// `CXTN`: marks the file as ours.
pub(super) const APPLICATION_ID: i32 = 0x4358_544E;

/// The tables, and the indexes the fold itself needs.
pub(super) const TABLES: &str = "
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL,
    checkpoint INTEGER NOT NULL,
    next_id INTEGER NOT NULL,
    rebuilding INTEGER NOT NULL
);
CREATE TABLE scopes (
    id INTEGER PRIMARY KEY,
    scope TEXT NOT NULL UNIQUE,
    entities INTEGER NOT NULL DEFAULT 0,
    observations INTEGER NOT NULL DEFAULT 0,
    relations INTEGER NOT NULL DEFAULT 0,
    text_rows INTEGER NOT NULL DEFAULT 0,
    text_words INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE figures (
    scope_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    entities INTEGER NOT NULL,
    observations INTEGER NOT NULL,
    relations INTEGER NOT NULL,
    text_rows INTEGER NOT NULL,
    text_words INTEGER NOT NULL,
    PRIMARY KEY (scope_id, seq)
) WITHOUT ROWID;
CREATE TABLE agents (
    agent_id TEXT PRIMARY KEY,
    workspace TEXT NOT NULL,
    registered_at INTEGER NOT NULL,
    created_seq INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE entities (
    created_seq INTEGER PRIMARY KEY,
    removed_seq INTEGER,
    removed_at INTEGER,
    id INTEGER NOT NULL,
    scope_id INTEGER NOT NULL,
    version INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    valid_from INTEGER,
    valid_to INTEGER,
    confidence REAL NOT NULL,
    owner TEXT NOT NULL,
    actor TEXT NOT NULL,
    name TEXT NOT NULL,
    entity_type TEXT NOT NULL,
    metadata TEXT
);
CREATE TABLE observations (
    created_seq INTEGER PRIMARY KEY,
    removed_seq INTEGER,
    removed_at INTEGER,
    id INTEGER NOT NULL,
    entity_id INTEGER NOT NULL,
    scope_id INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    valid_from INTEGER,
    valid_to INTEGER,
    actor TEXT NOT NULL,
    content TEXT NOT NULL
);
CREATE TABLE relations (
    created_seq INTEGER PRIMARY KEY,
    removed_seq INTEGER,
    removed_at INTEGER,
    id INTEGER NOT NULL,
    scope_id INTEGER NOT NULL,
    from_entity INTEGER NOT NULL,
    to_entity INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    valid_from INTEGER,
    valid_to INTEGER,
    strength REAL NOT NULL,
    confidence REAL NOT NULL,
    actor TEXT NOT NULL,
    relation_type TEXT NOT NULL,
    metadata TEXT
);
CREATE TABLE embeddings (
    entity_id INTEGER PRIMARY KEY,
    vector BLOB NOT NULL,
    model_version TEXT NOT NULL,
    created_at INTEGER NOT NULL
);
CREATE UNIQUE INDEX idx_entities_id ON entities(id) WHERE removed_seq IS NULL;
CREATE UNIQUE INDEX idx_observations_id ON observations(id) WHERE removed_seq IS NULL;
CREATE UNIQUE INDEX idx_relations_id ON relations(id) WHERE removed_seq IS NULL;
";

/// The indexes that only queries need: a rebuild makes them last.
pub(super) const INDEXES: &str = "
CREATE INDEX IF NOT EXISTS idx_entities_scope ON entities(scope_id, id) WHERE removed_seq IS NULL;
CREATE INDEX IF NOT EXISTS idx_entities_owner ON entities(owner, removed_seq) WHERE removed_seq IS NULL;
CREATE INDEX IF NOT EXISTS idx_entities_type ON entities(entity_type, scope_id, id) WHERE removed_seq IS NULL;
CREATE INDEX IF NOT EXISTS idx_entities_name ON entities(name, scope_id, id) WHERE removed_seq IS NULL;
CREATE INDEX IF NOT EXISTS idx_entities_type_name ON entities(entity_type, name) WHERE removed_seq IS NULL;
CREATE INDEX IF NOT EXISTS idx_entities_created ON entities(created_at) WHERE removed_seq IS NULL;
CREATE INDEX IF NOT EXISTS idx_entities_updated ON entities(updated_at) WHERE removed_seq IS NULL;
CREATE INDEX IF NOT EXISTS idx_observations_entity ON observations(entity_id, id, removed_seq) WHERE removed_seq IS NULL;
CREATE INDEX IF NOT EXISTS idx_observations_content ON observations(substr(CAST(content AS BLOB), 1, 64), entity_id)
    WHERE removed_seq IS NULL;
CREATE INDEX IF NOT EXISTS idx_entities_valid_from ON entities(valid_from)
    WHERE removed_seq IS NULL AND valid_from IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_entities_valid_to ON entities(valid_to) WHERE removed_seq IS NULL AND valid_to IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_observations_valid_from ON observations(valid_from)
    WHERE removed_seq IS NULL AND valid_from IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_observations_valid_to ON observations(valid_to)
    WHERE removed_seq IS NULL AND valid_to IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_relations_valid_from ON relations(valid_from)
    WHERE removed_seq IS NULL AND valid_from IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_relations_valid_to ON relations(valid_to) WHERE removed_seq IS NULL AND valid_to IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_relations_scope ON relations(scope_id, id) WHERE removed_seq IS NULL;
CREATE INDEX IF NOT EXISTS idx_relations_from
    ON relations(from_entity, to_entity, relation_type, id, strength, confidence, scope_id, removed_seq)
    WHERE removed_seq IS NULL;
CREATE INDEX IF NOT EXISTS idx_relations_to
    ON relations(to_entity, id, from_entity, relation_type, strength, confidence, scope_id, removed_seq) WHERE removed_seq IS NULL;
CREATE INDEX IF NOT EXISTS idx_relations_type ON relations(relation_type) WHERE removed_seq IS NULL;
CREATE INDEX IF NOT EXISTS idx_relations_strength ON relations(strength) WHERE removed_seq IS NULL;
CREATE INDEX IF NOT EXISTS idx_entities_past ON entities(id, removed_seq) WHERE removed_seq IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_entities_past_scope ON entities(scope_id, id, removed_seq) WHERE removed_seq IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_entities_past_type ON entities(entity_type, scope_id, id, removed_seq)
    WHERE removed_seq IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_entities_past_name ON entities(name, scope_id, id, removed_seq)
    WHERE removed_seq IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_entities_removed ON entities(removed_seq) WHERE removed_seq IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_observations_past_id ON observations(id, removed_seq) WHERE removed_seq IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_observations_past ON observations(entity_id, id, removed_seq)
    WHERE removed_seq IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_observations_removed ON observations(removed_seq) WHERE removed_seq IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_relations_past_id ON relations(id, removed_seq) WHERE removed_seq IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_relations_past_scope ON relations(scope_id, id, removed_seq)
    WHERE removed_seq IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_relations_past_from
    ON relations(from_entity, removed_seq, to_entity, relation_type, id, strength, confidence, scope_id)
    WHERE removed_seq IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_relations_past_to
    ON relations(to_entity, removed_seq, id, from_entity, relation_type, strength, confidence, scope_id)
    WHERE removed_seq IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_relations_removed ON relations(removed_seq) WHERE removed_seq IS NOT NULL;
CREATE INDEX IF NOT EXISTS idx_embeddings_vector ON embeddings(entity_id);
CREATE INDEX IF NOT EXISTS idx_embeddings_similarity ON embeddings(substr(vector, 1, 64));
";

/// What removes everything.
pub(super) const DROP: &str = "
DROP TABLE IF EXISTS meta; DROP TABLE IF EXISTS scopes; DROP TABLE IF EXISTS figures; DROP TABLE IF EXISTS agents; DROP TABLE IF EXISTS entities;
DROP TABLE IF EXISTS observations; DROP TABLE IF EXISTS relations; DROP TABLE IF EXISTS embeddings;
";
