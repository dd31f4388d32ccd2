//! The outside of an agent's file: bytes to text, front matter and body.

use caxton_events::limits::AGENT_FILE_BYTES_MAX;

use super::fault::{Faults, Phase, Spot};
use crate::config::Place;

/// Brackets that may be open at once in front matter: the parser's work grows with their square.
const OPEN_BRACKETS_MAX: usize = 500;

/// The two parts of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Envelope<'a> {
    /// The front matter below as many empty lines as stand before it, so that its lines have the file's numbers.
    pub(super) yaml: String,
    /// What stands after the front matter, line ends as they are.
    pub(super) body: &'a str,
    /// The line on which the body begins, from 1.
    pub(super) body_line: usize,
}

/// Opens a file, or says what keeps it shut.
pub(super) fn open<'a>(bytes: &'a [u8], faults: &Faults) -> Option<Envelope<'a>> {
    let refuse = |line: usize, column: usize, reason: &str, remedy: &str| {
        faults.add(Phase::Syntax, Spot::At(Place { line, column }), "", reason, remedy);
    };
    if bytes.len() > AGENT_FILE_BYTES_MAX {
        let reason = format!("the file takes {} bytes, the limit is {AGENT_FILE_BYTES_MAX}", bytes.len());
        faults.add(
            Phase::Syntax,
            Spot::File,
            "",
            reason,
            "shorten it, and put reference material into memory",
        );
        return None;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let (line, column) = end_of(&before);
            refuse(line, column, "the file is not UTF-8 from here on", "save it as UTF-8");
            return None;
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.split_inclusive('\n');
    let first = lines.next().unwrap_or_default();
    if !is_fence(first) {
        let (reason, remedy) = if text.trim().is_empty() {
            ("the file is empty", "begin it with front matter: `---`, keys such as `name:`, `---`")
        } else if is_fence(first.trim_start()) || text.trim_start().starts_with("---") {
            ("something stands before the `---` of the front matter", "make `---` the first line")
        } else {
            ("there is no front matter", "begin the file with `---`, keys such as `name:`, and `---`")
        };
        refuse(1, 1, reason, remedy);
        return None;
    }
    let start = first.len();
    let mut end = start;
    let mut line = 1;
    for next in lines {
        line += 1;
        if is_fence(next) {
            let yaml = format!("\n{}", &text[start..end]);
            if let Some((line, column)) = deepest(&yaml) {
                let reason = format!("more than {OPEN_BRACKETS_MAX} brackets are open here");
                refuse(
                    line,
                    column,
                    &reason,
                    "close them, or put such text into the body below the front matter",
                );
                return None;
            }
            return Some(Envelope { yaml, body: &text[end + next.len()..], body_line: line + 1 });
        }
        end += next.len();
    }
    refuse(1, 1, "the front matter is not closed", "put a line `---` after its last key");
    None
}

fn is_fence(line: &str) -> bool {
    line.trim_end() == "---"
}

/// Line and column, from 1, of what follows `text`.
pub(super) fn end_of(text: &str) -> (usize, usize) {
    let last = text.rsplit('\n').next().unwrap_or_default();
    (text.matches('\n').count() + 1, last.chars().count() + 1)
}

/// Where too many brackets are open. Counts them in quotes and comments too: a file that has that many there is no
/// agent's either.
fn deepest(yaml: &str) -> Option<(usize, usize)> {
    let mut open = 0_usize;
    for (at, sign) in yaml.bytes().enumerate() {
        match sign {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => (),
        }
        if open > OPEN_BRACKETS_MAX {
            return Some(end_of(&String::from_utf8_lossy(&yaml.as_bytes()[..at])));
        }
    }
    None
}

/// The first tab in the indentation of a line up to and with `line_max`.
pub(super) fn indenting_tab(yaml: &str, line_max: usize) -> Option<Place> {
    yaml.lines().take(line_max).enumerate().find_map(|(index, line)| {
        let indent = &line[..line.len() - line.trim_start_matches([' ', '\t']).len()];
        let at = indent.find('\t')?;
        Some(Place { line: index + 1, column: at + 1 })
    })
}
