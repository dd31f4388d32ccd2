//! Rows to Parquet, a bounded number at a time. The home of the `parquet` crate.

use std::sync::Arc;

use parquet::basic::{Compression, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnDescriptor;

/// Rows after which a group is written.
pub const GROUP_ROWS_MAX: usize = 65_536;
/// Bytes of values after which a group is written, however few rows it has.
pub const GROUP_BYTES_MAX: usize = 16 << 20;

/// A value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// None, in a column that may have none.
    None,
    /// A whole number of 32 bits.
    Small(u32),
    /// A whole number of 64 bits.
    Long(u64),
    /// A number.
    Double(f64),
    /// A text.
    Text(String),
    /// A list of numbers.
    Vector(Vec<f32>),
}

impl Cell {
    /// Bytes of the value, roughly.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::None => 1,
            Self::Small(_) => 4,
            Self::Long(_) | Self::Double(_) => 8,
            Self::Text(text) => text.len() + 4,
            Self::Vector(vector) => vector.len() * 4,
        }
    }
}

/// A value that may not be there.
impl From<Option<u64>> for Cell {
    fn from(value: Option<u64>) -> Self {
        value.map_or(Self::None, Self::Long)
    }
}

/// A text that may not be there.
impl From<Option<String>> for Cell {
    fn from(value: Option<String>) -> Self {
        value.map_or(Self::None, Self::Text)
    }
}

/// A table that is being written. What it holds in memory is one group of rows, and what was not taken of the file.
pub struct Table {
    writer: SerializedFileWriter<Vec<u8>>,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("rows", &self.rows).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Table {
    /// Begins a table with this schema, in Parquet's own notation. A list is one of numbers that are all there.
    ///
    /// # Errors
    ///
    /// [`ParquetError`] when the schema is none.
    pub fn begin(schema: &str) -> Result<Self, ParquetError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by("caxton".to_owned())
            .build();
        let schema = Arc::new(parse_message_type(schema)?);
        let writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
        let described = writer.schema_descr().columns().iter();
        let columns = described.map(|described| Column::new(described)).collect();
        Ok(Self { writer, columns, rows: 0, bytes: 0 })
    }

    /// Adds a row: one cell a column, in the schema's order.
    ///
    /// # Errors
    ///
    /// [`ParquetError`] when a cell is not what its column holds.
    pub fn push(&mut self, row: impl IntoIterator<Item = Cell>) -> Result<(), ParquetError> {
        let mut row = row.into_iter();
        for column in &mut self.columns {
            let missing = || ParquetError::General(format!("a row ends before column {}", column.name));
            self.bytes += column.push(row.next().ok_or_else(missing)?)?;
        }
        self.rows += 1;
        if self.rows >= GROUP_ROWS_MAX || self.bytes >= GROUP_BYTES_MAX { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let Some(mut writer) = group.next_column()? else { break };
            column.write(writer.untyped())?;
            writer.close()?;
        }
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    /// What was written of the file since it was last taken.
    ///
    /// # Errors
    ///
    /// [`ParquetError`].
    pub fn take(&mut self) -> Result<Vec<u8>, ParquetError> {
        self.writer.flush()?;
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    /// The rest of the file.
    ///
    /// # Errors
    ///
    /// [`ParquetError`].
    pub fn finish(mut self) -> Result<Vec<u8>, ParquetError> {
        self.write_group()?;
        self.writer.into_inner()
    }
}

/// The values of a column that wait for their group.
struct Column {
    name: String,
    /// Whether a row may have no value.
    optional: bool,
    values: Values,
    /// How much of each value is there: 0 none, 1 a value or an empty list, 2 a number of a list.
    definition: Vec<i16>,
    /// 0 where a row begins, 1 where its list goes on.
    repetition: Vec<i16>,
}

enum Values {
    Small(Vec<i32>),
    Long(Vec<i64>),
    Double(Vec<f64>),
    Text(Vec<ByteArray>),
    Vector(Vec<f32>),
}

impl Column {
    fn new(described: &ColumnDescriptor) -> Self {
        let values = match described.physical_type() {
            Physical::INT32 | Physical::BOOLEAN => Values::Small(Vec::new()),
            Physical::INT64 | Physical::INT96 => Values::Long(Vec::new()),
            Physical::FLOAT => Values::Vector(Vec::new()),
            Physical::DOUBLE => Values::Double(Vec::new()),
            Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY => Values::Text(Vec::new()),
        };
        // A list is named by its path: `embedding.list.element`.
        let name = described.path().parts().first().cloned().unwrap_or_default();
        let optional = described.max_def_level() > 0;
        Self { name, optional, values, definition: Vec::new(), repetition: Vec::new() }
    }

    /// Adds a value; how many bytes it has.
    fn push(&mut self, cell: Cell) -> Result<usize, ParquetError> {
        let defined = i16::from(cell != Cell::None);
        let (bytes, levels) = match (&mut self.values, cell) {
            (_, Cell::None) if self.optional => (1, 1),
            (Values::Small(values), Cell::Small(value)) => {
                values.push(value as i32);
                (4, 1)
            }
            (Values::Long(values), Cell::Long(value)) => {
                values.push(value as i64);
                (8, 1)
            }
            (Values::Double(values), Cell::Double(value)) => {
                values.push(value);
                (8, 1)
            }
            (Values::Text(values), Cell::Text(value)) => {
                let bytes = value.len() + 4;
                values.push(ByteArray::from(value.into_bytes()));
                (bytes, 1)
            }
            (Values::Vector(values), Cell::Vector(vector)) if !vector.is_empty() => {
                self.definition.resize(self.definition.len() + vector.len(), 2);
                self.repetition.push(0);
                self.repetition.resize(self.definition.len(), 1);
                values.extend_from_slice(&vector);
                (vector.len() * 4, 0)
            }
            (Values::Vector(_), Cell::Vector(_)) => (4, 1),
            (_, cell) => {
                return Err(ParquetError::General(format!("column {} does not hold {cell:?}", self.name)));
            }
        };
        self.definition.resize(self.definition.len() + levels, defined);
        self.repetition.resize(self.definition.len(), 0);
        Ok(bytes)
    }

    /// Writes the values and forgets them.
    fn write(&mut self, writer: &mut ColumnWriter<'_>) -> Result<(), ParquetError> {
        let definition = self.optional.then_some(&*self.definition);
        let written = match (writer, &self.values) {
            (ColumnWriter::Int32ColumnWriter(writer), Values::Small(values)) => {
                writer.write_batch(values, definition, None)
            }
            (ColumnWriter::Int64ColumnWriter(writer), Values::Long(values)) => {
                writer.write_batch(values, definition, None)
            }
            (ColumnWriter::DoubleColumnWriter(writer), Values::Double(values)) => {
                writer.write_batch(values, definition, None)
            }
            (ColumnWriter::ByteArrayColumnWriter(writer), Values::Text(values)) => {
                writer.write_batch(values, definition, None)
            }
            (ColumnWriter::FloatColumnWriter(writer), Values::Vector(values)) => {
                writer.write_batch(values, definition, Some(&self.repetition))
            }
            (_, _) => Err(ParquetError::General(format!("column {} has a type of no cell", self.name))),
        };
        written.map(drop)?;
        match &mut self.values {
            Values::Small(values) => values.clear(),
            Values::Long(values) => values.clear(),
            Values::Double(values) => values.clear(),
            Values::Text(values) => values.clear(),
            Values::Vector(values) => values.clear(),
        }
        self.definition.clear();
        self.repetition.clear();
        Ok(())
    }
}
