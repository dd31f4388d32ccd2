//! Problems of an agent's file for people: the line, a mark under it, and what to do.

use std::fmt::Write as _;

use caxton_events::agent::ConfigProblem;
use serde_json::{Value, json};

/// Longest piece of a line that is shown, in characters.
const LINE_CHARS_MAX: usize = 160;

/// Problems with the lines they stand on, for a terminal.
///
/// ```text
///   × version: "one" is no version
///    ╭─[reader.md:3:10]
///  2 │ name: Reader
///  3 │ version: one
///    ·          ─┬─
///    ·           ╰── here
///    ╰────
///   help: write MAJOR.MINOR.PATCH, as in 1.0.0
/// ```
///
/// `sign` stands before each: `×` for problems, `⚠` for warnings.
pub fn render(path: &str, text: &str, problems: &[ConfigProblem], sign: char) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::new();
    for problem in problems {
        let field = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
        let _ = writeln!(out, "  {sign} {field}{}", problem.reason);
        excerpt(&mut out, path, &lines, problem);
        let _ = writeln!(out, "  help: {}\n", problem.remedy);
    }
    out
}

fn excerpt(out: &mut String, path: &str, lines: &[&str], problem: &ConfigProblem) {
    let line = problem.line as usize;
    let Some(text) = line.checked_sub(1).and_then(|index| lines.get(index)) else {
        let _ = writeln!(out, "    in {path}");
        return;
    };
    let width = problem.line.to_string().len();
    let gap = " ".repeat(width);
    let column = (problem.column as usize).max(1);
    let _ = writeln!(out, "  {gap} ╭─[{path}:{line}:{column}]");
    if line > 1 {
        let before = lines.get(line - 2).copied().unwrap_or_default();
        let _ = writeln!(out, "  {:>width$} │ {}", line - 1, shown(before, 0));
    }
    // A long line is shown from a little before the mark.
    let skipped = if column > LINE_CHARS_MAX { column - 41 } else { 0 };
    let _ = writeln!(out, "  {line} │ {}", shown(text, skipped));
    let rest = text.chars().skip(column - 1);
    let length = rest.take_while(|sign| !sign.is_whitespace()).count().clamp(1, 40);
    let indent = " ".repeat(column - 1 - skipped);
    let middle = (length - 1) / 2;
    let (left, right) = ("─".repeat(middle), "─".repeat(length - 1 - middle));
    let _ = writeln!(out, "  {gap} · {indent}{left}┬{right}");
    let _ = writeln!(out, "  {gap} · {indent}{}╰── here", " ".repeat(middle));
    let _ = writeln!(out, "  {gap} ╰────");
}

/// A line without what would move the mark: tabs become one space, signs that a terminal obeys become `·`.
fn shown(line: &str, skipped: usize) -> String {
    let plain = |sign: char| match sign {
        '\t' => ' ',
        sign if sign.is_control() => '·',
        sign => sign,
    };
    line.chars().skip(skipped).take(LINE_CHARS_MAX).map(plain).collect()
}

/// A problem as the API gives it.
pub fn to_json(problem: &ConfigProblem) -> Value {
    json!({
        "field": problem.field,
        "message": problem.reason,
        "remedy": problem.remedy,
        "location": (problem.line > 0).then(|| json!({ "line": problem.line, "column": problem.column })),
    })
}

#[cfg(test)]
mod tests {
    use caxton_events::agent::ConfigProblem;

    use super::render;

    fn problem(line: u32, column: u32, field: &str) -> ConfigProblem {
        let (reason, remedy) = ("it is wrong".to_owned(), "write it right".to_owned());
        ConfigProblem { line, column, field: field.to_owned(), reason, remedy }
    }

    #[test]
    fn the_mark_stands_under_the_word() {
        let text = "---\nname: Reader\nversion: one\n---\n";
        let shown = render("reader.md", text, &[problem(3, 10, "version")], '×');
        let then = "  × version: it is wrong\n    ╭─[reader.md:3:10]\n  2 │ name: Reader\n  3 │ version: one\n    ·          ─┬─\n    ·           ╰── here\n    ╰────\n  help: write it right\n\n";
        assert_eq!(shown, then);
    }

    #[test]
    fn what_has_no_line_names_the_file() {
        let shown = render("a.md", "", &[problem(0, 0, ""), problem(9, 1, "")], '⚠');
        assert_eq!(shown, "  ⚠ it is wrong\n    in a.md\n  help: write it right\n\n".repeat(2));
    }

    #[test]
    fn long_lines_and_odd_signs_are_cut_and_tamed() {
        let text = format!("\t\u{1b}[2J{}wrong\n", "x".repeat(500));
        let shown = render("a.md", &text, &[problem(1, 506, "")], '×');
        assert!(shown.lines().all(|line| line.chars().count() < 220), "{shown}");
        assert!(shown.contains("wrong") && !shown.contains('\u{1b}'), "{shown}");
    }
}
