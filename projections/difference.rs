//! Two folds of the same records compared: a digest for each part, and the first row in which they differ.

use serde::Serialize;

/// One part of a projection in its canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartDigest {
    /// `graph`, `text`, `agents`, `conversations` or `vectors`.
    pub part: &'static str,
    /// BLAKE3 over every row in a fixed order.
    #[serde(serialize_with = "hex")]
    pub digest: [u8; 32],
    /// How many rows that were.
    pub rows: u64,
}

/// The first row in which two states differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which part.
    pub part: &'static str,
    /// The table, or the scope of vectors.
    pub table: String,
    /// The row: its key and the columns that differ, in the first state; `None` when it is missing there.
    pub first: Option<String>,
    /// The same in the second state.
    pub second: Option<String>,
}

fn hex<S: serde::Serializer>(digest: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&blake3::Hash::from_bytes(*digest))
}
