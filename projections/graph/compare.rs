//! Rows of two databases side by side: digests by part, and the first difference. What holds for the graph's file holds
//! for that of agents and conversations too.

use std::fmt::Write as _;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Rows, Statement};

use crate::difference::{Difference, PartDigest};

/// Longest value that a difference shows, in characters.
const SHOWN_CHARS_MAX: usize = 120;

/// The rows of one table in their canonical order. The first columns are its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Canonical {
    /// Which part of the projection it belongs to.
    pub(crate) part: &'static str,
    /// Name of the table.
    pub(crate) table: &'static str,
    /// The statement that gives every row in order of the key.
    pub(crate) sql: &'static str,
    /// How many columns the key has; 0: there is one row at the most.
    pub(crate) key: usize,
}

/// The digests of all parts, in the order in which they first appear in `tables`.
pub(crate) fn digests(connection: &Connection, tables: &[Canonical]) -> rusqlite::Result<Vec<PartDigest>> {
    let mut parts: Vec<(&'static str, blake3::Hasher, u64)> = Vec::new();
    for table in tables {
        if parts.iter().all(|(part, ..)| *part != table.part) {
            parts.push((table.part, blake3::Hasher::new(), 0));
        }
        for (_, hasher, rows) in parts.iter_mut().filter(|(part, ..)| *part == table.part) {
            *rows += hash_rows(connection, table.sql, hasher)?;
        }
    }
    let digest = |(part, hasher, rows): (_, blake3::Hasher, _)| PartDigest {
        part,
        digest: *hasher.finalize().as_bytes(),
        rows,
    };
    Ok(parts.into_iter().map(digest).collect())
}

/// Each value as its type, its length where it has one, and its bytes, so that no two sequences of values look alike;
/// gives the number of rows.
pub(crate) fn hash_rows(
    connection: &Connection,
    sql: &str,
    hasher: &mut blake3::Hasher,
) -> rusqlite::Result<u64> {
    hasher.update(sql.as_bytes());
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query(())?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += 1;
        for column in 0..columns {
            match row.get_ref(column)? {
                ValueRef::Null => {
                    hasher.update(&[0]);
                }
                ValueRef::Integer(number) => {
                    hasher.update(&[1]).update(&number.to_le_bytes());
                }
                ValueRef::Real(number) => {
                    hasher.update(&[2]).update(&number.to_bits().to_le_bytes());
                }
                ValueRef::Text(bytes) => {
                    hasher.update(&[3]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
                }
                ValueRef::Blob(bytes) => {
                    hasher.update(&[4]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
                }
            }
        }
    }
    Ok(count)
}

/// The first row that one of the two has and the other has not, or has otherwise.
pub(crate) fn difference(
    first: &Connection,
    second: &Connection,
    tables: &[Canonical],
) -> rusqlite::Result<Option<Difference>> {
    for table in tables {
        let (mut one, mut other) = (first.prepare(table.sql)?, second.prepare(table.sql)?);
        let names: Vec<String> = one.column_names().map(str::to_owned).collect();
        if let Some((first, second)) = differing(&mut one, &mut other, &names, table.key)? {
            let (part, table) = (table.part, table.table.to_owned());
            return Ok(Some(Difference { part, table, first, second }));
        }
    }
    Ok(None)
}

/// What the first state has, and what the second.
type Pair = (Option<String>, Option<String>);

fn differing(
    one: &mut Statement<'_>,
    other: &mut Statement<'_>,
    names: &[String],
    key: usize,
) -> rusqlite::Result<Option<Pair>> {
    let (mut one, mut other) = (one.query(())?, other.query(())?);
    loop {
        let (here, there) = (next(&mut one, names.len())?, next(&mut other, names.len())?);
        let (here, there) = match (here, there) {
            (None, None) => return Ok(None),
            (Some(here), Some(there)) if here == there => continue,
            (Some(here), None) => return Ok(Some((Some(shown(&here, names, 0..names.len())), None))),
            (None, Some(there)) => return Ok(Some((None, Some(shown(&there, names, 0..names.len()))))),
            (Some(here), Some(there)) => (here, there),
        };
        let order = here.iter().zip(&there).take(key).map(|(a, b)| a.cmp_key(b)).find(|order| order.is_ne());
        return Ok(Some(match order {
            // The one that comes first has no counterpart on the other side.
            Some(std::cmp::Ordering::Less) => (Some(shown(&here, names, 0..names.len())), None),
            Some(_) => (None, Some(shown(&there, names, 0..names.len()))),
            None => {
                let columns = (0..names.len()).filter(|&at| at < key || here[at] != there[at]);
                let columns: Vec<usize> = columns.collect();
                (
                    Some(shown(&here, names, columns.iter().copied())),
                    Some(shown(&there, names, columns.iter().copied())),
                )
            }
        }));
    }
}

/// A value with its type, to be compared and shown.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cell {
    Null,
    Integer(i64),
    Real(u64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl Cell {
    /// The order in which SQLite gives keys: numbers or texts, never both in one column.
    fn cmp_key(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Self::Integer(one), Self::Integer(other)) => one.cmp(other),
            (Self::Text(one) | Self::Blob(one), Self::Text(other) | Self::Blob(other)) => one.cmp(other),
            (Self::Null | Self::Integer(_) | Self::Real(_) | Self::Text(_) | Self::Blob(_), _) => {
                std::cmp::Ordering::Equal
            }
        }
    }
}

fn next(rows: &mut Rows<'_>, columns: usize) -> rusqlite::Result<Option<Vec<Cell>>> {
    let Some(row) = rows.next()? else { return Ok(None) };
    let cell = |column| {
        Ok(match row.get_ref(column)? {
            ValueRef::Null => Cell::Null,
            ValueRef::Integer(number) => Cell::Integer(number),
            ValueRef::Real(number) => Cell::Real(number.to_bits()),
            ValueRef::Text(bytes) => Cell::Text(bytes.to_vec()),
            ValueRef::Blob(bytes) => Cell::Blob(bytes.to_vec()),
        })
    };
    (0..columns).map(cell).collect::<rusqlite::Result<_>>().map(Some)
}

fn shown(row: &[Cell], names: &[String], columns: impl Iterator<Item = usize>) -> String {
    let mut text = String::new();
    for column in columns {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&names[column]);
        text.push('=');
        // Writing to a text cannot fail.
        let _ = match &row[column] {
            Cell::Null => write!(text, "null"),
            Cell::Integer(number) => write!(text, "{number}"),
            Cell::Real(bits) => write!(text, "{}", f64::from_bits(*bits)),
            Cell::Text(bytes) => {
                let whole = String::from_utf8_lossy(bytes);
                let cut: String = whole.chars().take(SHOWN_CHARS_MAX).collect();
                let more = if cut.len() < whole.len() { "…" } else { "" };
                write!(text, "{cut:?}{more}")
            }
            Cell::Blob(bytes) => write!(text, "{} bytes", bytes.len()),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use rusqlite::Connection;

    use super::{Canonical, difference, digests};
    use crate::difference::Difference;

    const TABLES: &[Canonical] = &[
        Canonical { part: "a", table: "one", sql: "SELECT id, name, size FROM one ORDER BY id", key: 1 },
        Canonical { part: "b", table: "two", sql: "SELECT key, raw FROM two ORDER BY key", key: 1 },
    ];

    fn database(rows: &str) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE one(id INTEGER, name TEXT, size REAL); CREATE TABLE two(key TEXT, raw BLOB);",
            )
            .unwrap();
        connection
            .execute_batch(
                "INSERT INTO one VALUES (1, 'x', 0.5), (2, 'y', 1.5); INSERT INTO two VALUES ('k', x'00');",
            )
            .unwrap();
        connection.execute_batch(rows).unwrap();
        connection
    }

    #[track_caller]
    fn check(change: &str, part: &'static str, table: &str, first: Option<&str>, second: Option<&str>) {
        let (one, other) = (database(""), database(change));
        let found = difference(&one, &other, TABLES).unwrap();
        let expected = Difference {
            part,
            table: table.to_owned(),
            first: first.map(str::to_owned),
            second: second.map(str::to_owned),
        };
        assert_eq!(found, Some(expected), "{change}");
        let equal: Vec<bool> = digests(&one, TABLES)
            .unwrap()
            .iter()
            .zip(digests(&other, TABLES).unwrap())
            .map(|(a, b)| *a == b)
            .collect();
        assert_eq!(equal, [part != "a", part != "b"], "{change}");
    }

    #[test]
    fn the_first_row_that_differs_is_named_with_what_differs() {
        check("DELETE FROM one WHERE id = 2", "a", "one", Some("id=2 name=\"y\" size=1.5"), None);
        check("DELETE FROM one WHERE id = 1", "a", "one", Some("id=1 name=\"x\" size=0.5"), None);
        check("INSERT INTO one VALUES (0, 'w', 1)", "a", "one", None, Some("id=0 name=\"w\" size=1"));
        check(
            "UPDATE one SET name = 'z' WHERE id = 2",
            "a",
            "one",
            Some("id=2 name=\"y\""),
            Some("id=2 name=\"z\""),
        );
        check(
            "UPDATE one SET size = NULL WHERE id = 1",
            "a",
            "one",
            Some("id=1 size=0.5"),
            Some("id=1 size=null"),
        );
        check(
            "UPDATE two SET raw = x'01'",
            "b",
            "two",
            Some("key=\"k\" raw=1 bytes"),
            Some("key=\"k\" raw=1 bytes"),
        );
    }

    #[test]
    fn equal_rows_have_equal_digests_and_no_difference() {
        let (one, other) = (database(""), database("UPDATE one SET name = name"));
        assert_eq!(digests(&one, TABLES).unwrap(), digests(&other, TABLES).unwrap());
        assert_eq!(digests(&one, TABLES).unwrap().iter().map(|part| part.rows).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(difference(&one, &other, TABLES).unwrap(), None);
    }
}
