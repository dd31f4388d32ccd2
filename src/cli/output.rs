//! Printing: tables for people, JSON for programs, and an end without noise when nobody reads any more.

use std::fmt::Display;
use std::io::{self, BufWriter, Write};

use comfy_table::{ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle, Width};
use serde::Serialize;
use serde_json::Value;

use super::failure::Failure;

/// Width of a table where no terminal says how wide it is, in columns.
const WIDTH_WITHOUT_TERMINAL: u16 = 120;

/// Longest cell that is never broken, in bytes: ids and names; not a text that happens to have no gap.
const CELL_WHOLE_MAX: usize = 40;

/// Characters of a text that is shown on one line.
const SHOWN_CHARS_MAX: usize = 160;

/// A line below the head and nothing else, so that rows can be cut and counted by other tools.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Standard output as one command uses it.
pub(super) struct Output {
    out: Box<dyn Write>,
    json: bool,
}

impl Output {
    /// Standard output, for JSON or for people.
    pub(super) fn stdout(json: bool) -> Self {
        Self { out: Box::new(BufWriter::new(io::stdout())), json }
    }

    /// Whether JSON was asked for.
    pub(super) const fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a value: as JSON, or as its text.
    pub(super) fn value(&mut self, value: &(impl Serialize + Display)) -> Result<(), Failure> {
        if self.json { self.json(value) } else { self.line(value) }
    }

    /// Prints a JSON value, indented, and a line end.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut self.out, value)
            .map_err(io::Error::from)
            .map_err(|e| Failure::output(&e))?;
        self.line("")
    }

    /// Prints a JSON value on one line.
    pub(super) fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.out, value)
            .map_err(io::Error::from)
            .map_err(|e| Failure::output(&e))?;
        self.line("")
    }

    /// Prints a text and a line end.
    pub(super) fn line(&mut self, text: impl Display) -> Result<(), Failure> {
        writeln!(self.out, "{text}").map_err(|error| Failure::output(&error))
    }

    /// Prints a text and nothing behind it.
    pub(super) fn text(&mut self, text: impl Display) -> Result<(), Failure> {
        write!(self.out, "{text}").map_err(|error| Failure::output(&error))
    }

    /// Prints a table; nothing at all when it has no rows.
    pub(super) fn table(&mut self, head: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(STYLE).set_content_arrangement(ContentArrangement::Dynamic);
        if table.width().is_none() {
            table.set_width(WIDTH_WITHOUT_TERMINAL);
        }
        let whole: Vec<bool> = (0..head.len()).map(|column| has_no_gap(&rows, column)).collect();
        table.set_header(head).add_rows(rows);
        // What has no gap to break at is something to be copied: an id, a name, a moment.
        for (column, _) in table.column_iter_mut().zip(whole).filter(|(_, whole)| *whole) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        self.line(table.trim_fmt())
    }

    /// Prints a table of texts to be read: no word of them is broken, be it longer than the line, and where no terminal says how wide
    /// it is, no line either.
    pub(super) fn texts(&mut self, head: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        let width = Table::new().width();
        self.line(table_of_texts(head, rows, width).trim_fmt())
    }

    /// Hands over what was printed so far.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| Failure::output(&error))
    }
}

fn table_of_texts(head: &[&str], rows: Vec<Vec<String>>, width: Option<u16>) -> Table {
    let word =
        |text: &str| text.split_whitespace().map(|word| word.chars().count()).max().unwrap_or_default();
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(String::as_str);
        cells.chain(head.get(column).copied()).map(word).max().unwrap_or_default()
    };
    let widest: Vec<usize> = (0..head.len()).map(widest).collect();
    let mut table = Table::new();
    table.load_style(STYLE).set_header(head).add_rows(rows);
    let Some(width) = width else {
        table.set_content_arrangement(ContentArrangement::Disabled);
        return table;
    };
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    for (column, widest) in table.column_iter_mut().zip(widest) {
        let least = u16::try_from(widest).unwrap_or(u16::MAX).saturating_add(column.padding_width());
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
    }
    table
}

fn has_no_gap(rows: &[Vec<String>], column: usize) -> bool {
    rows.iter()
        .filter_map(|row| row.get(column))
        .all(|cell| !cell.contains(char::is_whitespace) && cell.len() <= CELL_WHOLE_MAX)
}

/// The member `name` of a JSON object as a cell: texts without quotes, nothing where there is none.
pub(super) fn cell(value: &Value, name: &str) -> String {
    match value.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if number.is_f64() => {
            number.as_f64().map_or_else(String::new, |number| format!("{number:.3}"))
        }
        Some(other) => other.to_string(),
    }
}

/// A relation in words. An end that is gone, or that who asks does not see, has no name: there its id stands for it.
pub(super) fn relation(row: &Value) -> String {
    let end = |name: &str, id: &str| {
        Some(cell(row, name)).filter(|name| !name.is_empty()).unwrap_or_else(|| cell(row, id))
    };
    let (from, to) = (end("from_entity", "from_entity_id"), end("to_entity", "to_entity_id"));
    format!("{from} {} {to}", cell(row, "relation_type"))
}

/// `count` of a thing, as in `1 hit` and `2 hits`.
pub(super) fn counted(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// The members of a list in a JSON object; none where there is no list.
pub(super) fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A text on one line, cut where it is long.
pub(super) fn shortened(text: &str) -> String {
    let mut shown: String =
        text.chars().take(SHOWN_CHARS_MAX).map(|sign| if sign.is_control() { ' ' } else { sign }).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::{Output, shortened, table_of_texts};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn ids_in_a_table_stay_in_one_piece_beside_long_texts() {
        let page = Page::default();
        let mut out = Output { out: Box::new(page.clone()), json: false };
        let (id, text) = ("01234567-89ab-cdef-0123-456789abcdef", "a text of several words ".repeat(20));
        let row = |name: &str| vec![id.to_owned(), text.clone(), text.clone(), name.to_owned()];
        out.table(&["conversation", "topic", "more", "who"], vec![row("ada"), row("bob")]).unwrap();
        let shown = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        assert_eq!(shown.lines().filter(|line| line.contains(id)).count(), 2, "{shown}");
    }

    #[test]
    fn no_word_of_a_text_is_broken() {
        let key = "advanced_memory_tuning.embedding_advanced.model_precision";
        let texts = [
            format!("{key} says how many bits are computed with, and CAXTON_{}", "LONG_".repeat(9)),
            "true or false".to_owned(),
            "the default, line 7 of /etc/caxton/configuration/caxton.yaml".to_owned(),
        ];
        let rows = || vec![[&[key.to_owned()][..], &texts].concat()];
        for width in [None, Some(20), Some(60), Some(80), Some(120), Some(200)] {
            let shown = table_of_texts(&["key", "meaning", "value", "from"], rows(), width).to_string();
            let words: Vec<&str> = shown.split_whitespace().collect();
            for word in texts.iter().flat_map(|text| text.split(' ')).chain([key]) {
                assert!(words.contains(&word), "{word:?} at {width:?}:\n{shown}");
            }
            let is_one_line = shown.lines().count() == 3;
            assert_eq!(is_one_line, width.is_none(), "{width:?}:\n{shown}");
        }
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(shortened("a\nb\u{1b}c"), "a b c");
        assert_eq!(shortened(&"ä".repeat(161)), format!("{}…", "ä".repeat(160)));
    }
}
