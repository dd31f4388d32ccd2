//! The memory as tables: entities, observations, relations, each a Parquet file, as of one record.

use caxton_events::limits::METADATA_BYTES_MAX;
use caxton_events::memory::Validity;
use caxton_events::{MemoryId, Seq, Timestamp};
use caxton_projections::embedding::EmbedError;
use caxton_projections::graph::{
    Entity, EntityFilter, GraphReader, Observation, PageMax, Relation, RelationFilter,
};
use serde::Serialize;

use super::ExportError;
use super::table::{Cell, GROUP_BYTES_MAX, Table};

/// Observations of a piece at the most; one whose texts take [`GROUP_BYTES_MAX`] has fewer.
const PAGE_ROWS: usize = 2_048;
/// Entities and relations of a piece: as many as take [`GROUP_BYTES_MAX`] with the largest metadata.
const DESCRIBED_ROWS: usize = GROUP_BYTES_MAX / METADATA_BYTES_MAX;
/// Rows of a piece at the most where their texts are turned into vectors.
const EMBED_ROWS: usize = 64;

/// One of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryTable {
    /// Entities.
    Entities,
    /// Observations.
    Observations,
    /// Relations.
    Relations,
}

impl MemoryTable {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Entities, Self::Observations, Self::Relations];

    /// Its name, as in `entities.parquet`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Entities => "entities",
            Self::Observations => "observations",
            Self::Relations => "relations",
        }
    }
}

/// Turns texts into vectors of 384 numbers, in their order.
pub type Embed<'a> = &'a (dyn Fn(&[&str]) -> Result<Vec<Vec<f32>>, EmbedError> + Sync);

const TIMES: &str = "
    OPTIONAL INT64 valid_from (TIMESTAMP(MICROS, true));
    OPTIONAL INT64 valid_to (TIMESTAMP(MICROS, true));
    REQUIRED INT64 created_at (TIMESTAMP(MICROS, true));
    REQUIRED INT64 created_seq (INTEGER(64, false));";
const EMBEDDING: &str = "OPTIONAL group embedding (LIST) { REPEATED group list { REQUIRED FLOAT element; } }";

fn schema(table: MemoryTable, with_vectors: bool) -> String {
    let own = match table {
        MemoryTable::Entities => {
            "REQUIRED INT64 entity_id (INTEGER(64, false)); REQUIRED BYTE_ARRAY scope (STRING);
             REQUIRED BYTE_ARRAY name (STRING); REQUIRED BYTE_ARRAY entity_type (STRING);
             OPTIONAL BYTE_ARRAY metadata (JSON); REQUIRED DOUBLE confidence; REQUIRED INT32 version (INTEGER(32, false));
             REQUIRED BYTE_ARRAY owner (STRING); REQUIRED INT64 updated_at (TIMESTAMP(MICROS, true));
             REQUIRED INT64 updated_seq (INTEGER(64, false));"
        }
        MemoryTable::Observations => {
            "REQUIRED INT64 observation_id (INTEGER(64, false)); REQUIRED INT64 entity_id (INTEGER(64, false));
             REQUIRED BYTE_ARRAY content (STRING); REQUIRED BYTE_ARRAY created_by (STRING);"
        }
        MemoryTable::Relations => {
            "REQUIRED INT64 relation_id (INTEGER(64, false)); REQUIRED BYTE_ARRAY scope (STRING);
             REQUIRED INT64 from_entity_id (INTEGER(64, false)); REQUIRED INT64 to_entity_id (INTEGER(64, false));
             REQUIRED BYTE_ARRAY relation_type (STRING); REQUIRED DOUBLE strength; REQUIRED DOUBLE confidence;
             OPTIONAL BYTE_ARRAY metadata (JSON); REQUIRED BYTE_ARRAY created_by (STRING);
             REQUIRED INT64 updated_at (TIMESTAMP(MICROS, true));"
        }
    };
    let vectors = if with_vectors { EMBEDDING } else { "" };
    format!("message {} {{ {own} {TIMES} {vectors} }}", table.name())
}

/// An export of one table as of one record, piece by piece. Between two pieces it holds nothing of the memory, which is
/// written meanwhile.
#[derive(Debug)]
pub struct MemoryExport {
    graph: GraphReader,
    kind: MemoryTable,
    /// `None`: the end was written.
    table: Option<Table>,
    after: Option<MemoryId>,
    rows: u64,
    with_vectors: bool,
}

impl MemoryExport {
    /// Begins one of what the graph held after the record `seq`, which it must include.
    ///
    /// # Errors
    ///
    /// [`ExportError`].
    pub fn begin(
        graph: &GraphReader,
        seq: Seq,
        kind: MemoryTable,
        with_vectors: bool,
    ) -> Result<Self, ExportError> {
        let with_vectors = with_vectors && kind != MemoryTable::Relations;
        let table = Some(Table::begin(&schema(kind, with_vectors))?);
        Ok(Self { graph: graph.as_of(seq), kind, table, after: None, rows: 0, with_vectors })
    }

    /// Rows written so far.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// The next piece, which may be empty; `None` at the end. `embed` must be there if vectors are wanted.
    ///
    /// # Errors
    ///
    /// [`ExportError`]; what was written before is not whole then.
    pub fn next_piece(&mut self, embed: Option<Embed<'_>>) -> Result<Option<Vec<u8>>, ExportError> {
        if self.table.is_none() {
            return Ok(None);
        }
        let page = self.page()?;
        let Some(table) = &mut self.table else { return Ok(None) };
        if page.is_empty() {
            return self.table.take().map(Table::finish).transpose().map_err(ExportError::from);
        }
        let vectors = match embed.filter(|_| self.with_vectors) {
            Some(embed) => embed(&page.iter().filter_map(|row| row.text.as_deref()).collect::<Vec<_>>())?,
            None => Vec::new(),
        };
        let mut vectors = vectors.into_iter().map(Cell::Vector);
        for PageRow { id, cells, .. } in page {
            self.after = Some(id);
            self.rows += 1;
            table.push(cells.into_iter().chain(vectors.next()))?;
        }
        Ok(Some(table.take()?))
    }

    /// The next rows; none at the end, and only there.
    fn page(&self) -> Result<Vec<PageRow>, ExportError> {
        let (after, graph, with_text) = (self.after, &self.graph, self.with_vectors);
        let limit = |rows: usize| if with_text { rows.min(EMBED_ROWS) } else { rows };
        Ok(match self.kind {
            MemoryTable::Entities => {
                let filter = EntityFilter { after, limit: limit(DESCRIBED_ROWS), ..EntityFilter::default() };
                graph.list_entities(&filter)?.into_iter().map(|row| entity(row, with_text)).collect()
            }
            MemoryTable::Observations => {
                let max = PageMax { rows: limit(PAGE_ROWS), bytes: GROUP_BYTES_MAX };
                let rows = graph.list_observations(after, max)?.into_iter();
                rows.map(|row| observation(row, with_text)).collect()
            }
            MemoryTable::Relations => {
                let filter =
                    RelationFilter { after, limit: limit(DESCRIBED_ROWS), ..RelationFilter::default() };
                graph.list_relations(&filter)?.into_iter().map(relation).collect()
            }
        })
    }
}

/// A row of a page.
struct PageRow {
    id: MemoryId,
    cells: Vec<Cell>,
    /// As the vector index keeps it, where it becomes a vector.
    text: Option<String>,
}

fn entity(row: Entity, with_text: bool) -> PageRow {
    let text = with_text.then(|| format!("{} ({})", row.name, row.entity_type));
    let mut cells = vec![
        Cell::Long(row.id.0),
        Cell::Text(row.scope.to_string()),
        Cell::Text(row.name),
        Cell::Text(row.entity_type),
        row.metadata.into(),
        Cell::Double(row.confidence),
        Cell::Small(row.version),
        Cell::Text(row.owner),
        Cell::Long(row.updated_at.unix_micros()),
        Cell::Long(row.updated_seq.0),
    ];
    cells.extend(times(row.validity, row.created_at, row.created_seq));
    PageRow { id: row.id, cells, text }
}

fn observation(row: Observation, with_text: bool) -> PageRow {
    let text = with_text.then(|| row.content.clone());
    let mut cells =
        vec![Cell::Long(row.id.0), Cell::Long(row.entity.0), Cell::Text(row.content), Cell::Text(row.actor)];
    cells.extend(times(row.validity, row.created_at, row.created_seq));
    PageRow { id: row.id, cells, text }
}

fn relation(row: Relation) -> PageRow {
    let mut cells = vec![
        Cell::Long(row.id.0),
        Cell::Text(row.scope.to_string()),
        Cell::Long(row.from.0),
        Cell::Long(row.to.0),
        Cell::Text(row.relation_type),
        Cell::Double(row.strength),
        Cell::Double(row.confidence),
        row.metadata.into(),
        Cell::Text(row.actor),
        Cell::Long(row.updated_at.unix_micros()),
    ];
    cells.extend(times(row.validity, row.created_at, row.created_seq));
    PageRow { id: row.id, cells, text: None }
}

fn times(validity: Validity, created_at: Timestamp, created_seq: Seq) -> [Cell; 4] {
    let micros = |at: Option<Timestamp>| at.map(Timestamp::unix_micros).into();
    [
        micros(validity.from),
        micros(validity.to),
        Cell::Long(created_at.unix_micros()),
        Cell::Long(created_seq.0),
    ]
}
