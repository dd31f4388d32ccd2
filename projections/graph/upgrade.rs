//! Files of earlier versions, made into files of this one where they lie. The events that they come from may have been dropped: then
//! they cannot be folded anew, nor can the base that a fold would begin from, which is as old as they are.

use std::ops::RangeInclusive;

use rusqlite::{Connection, Row};

use super::schema;
use crate::text::batch::Text;

/// The versions that can be. 2 has words in the file; both count words otherwise, and have all texts that begin alike in one place.
pub(super) const UPGRADED: RangeInclusive<u32> = 2..=3;

/// What they have and this version has not, or has otherwise.
const DROP: &str = "
DROP TABLE IF EXISTS texts_words; DROP TABLE IF EXISTS texts;
DROP TABLE IF EXISTS texts_past_words; DROP TABLE IF EXISTS texts_past;
DROP INDEX IF EXISTS idx_observations_content;
";

const HEADERS: &str = "SELECT scope_id, created_seq, removed_seq, name, entity_type FROM entities";
const CONTENTS: &str = "SELECT scope_id, created_seq, removed_seq, content, NULL FROM observations";

/// Makes the file one of this version, or leaves it as it was.
pub(super) fn upgrade(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(DROP)?;
    transaction.execute_batch(schema::INDEXES)?;
    count_again(&transaction)?;
    transaction.execute("UPDATE meta SET version = ?1", (schema::VERSION,))?;
    transaction.pragma_update(None, "user_version", schema::VERSION)?;
    transaction.commit()
}

/// Counts the words of all texts: how many each scope has, and had after each record.
fn count_again(connection: &Connection) -> rusqlite::Result<()> {
    let mut changes = changes(connection)?.into_iter().peekable();
    let (mut scope, mut words, mut wrong) = (None, 0, Vec::new());
    let mut figures =
        connection.prepare("SELECT scope_id, seq, text_words FROM figures ORDER BY scope_id, seq")?;
    let mut rows = figures.query(())?;
    while let Some(row) = rows.next()? {
        let (of, seq, known): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if scope.replace(of) != Some(of) {
            words = 0;
        }
        while let Some((place, _, more)) = changes.next_if(|&(place, record, _)| (place, record) <= (of, seq))
        {
            words += if place == of { more } else { 0 };
        }
        if words != known {
            wrong.push((of, seq, words));
        }
    }
    let mut correct =
        connection.prepare("UPDATE figures SET text_words = ?3 WHERE scope_id = ?1 AND seq = ?2")?;
    for figure in wrong {
        correct.execute(figure)?;
    }
    connection.execute(
        "UPDATE scopes SET text_words = coalesce(
             (SELECT text_words FROM figures WHERE scope_id = scopes.id ORDER BY seq DESC LIMIT 1), text_words)",
        (),
    )?;
    Ok(())
}

/// How many words came or went in each scope by each record, by scope and record.
fn changes(connection: &Connection) -> rusqlite::Result<Vec<(i64, i64, i64)>> {
    let mut changes = Vec::new();
    for sql in [HEADERS, CONTENTS] {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            let (scope, words) = (row.get(0)?, text(row)?.words());
            changes.push((scope, row.get(1)?, words));
            if let Some(removed) = row.get(2)? {
                changes.push((scope, removed, -words));
            }
        }
    }
    changes.sort_unstable();
    Ok(changes)
}

fn text<'a>(row: &'a Row<'_>) -> rusqlite::Result<Text<'a>> {
    let first = row.get_ref(3)?.as_str()?;
    Ok(match row.get_ref(4)?.as_str_or_null()? {
        Some(entity_type) => Text::Header { name: first, entity_type },
        None => Text::Content(first),
    })
}
