//! What all requests of an import did together, and the lines that were refused.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::failure::{Exit, Failure};
use super::output::{cell, counted, items, shortened};

/// Refused lines that the end of an import lists.
const ERRORS_SHOWN_MAX: usize = 20;

/// What all requests of an import did together.
#[derive(Debug, Default, serde::Serialize)]
pub(super) struct Totals {
    /// Requests sent.
    pub(super) requests: u64,
    /// The counters of the answers, added up.
    #[serde(flatten)]
    counters: BTreeMap<String, u64>,
    /// The first lines that were refused, each with its number in the file, the field and the remedy.
    errors: Vec<Value>,
}

impl Totals {
    /// Lines refused in all.
    fn failed(&self) -> usize {
        self.counters.get("failed").map_or(0, |failed| *failed as usize)
    }

    /// Whether a line was taken, or what it says was there already.
    fn took_any(&self) -> bool {
        let is_taken = |name: &str| {
            ["_imported", "_updated", "_skipped", "_resolved"].iter().any(|end| name.ends_with(end))
        };
        self.counters.iter().any(|(name, count)| *count > 0 && is_taken(name))
    }

    /// What is said of an import with lines that were refused.
    pub(super) fn refusal(&self) -> Option<Failure> {
        let failed = self.failed();
        let others = if self.took_any() { "the others are written" } else { "none was written" };
        let message = || format!("{} refused; {others}", counted(failed, "line"));
        (failed > 0).then(|| Failure::new(Exit::Refused, message()))
    }

    /// Adds the answer to the request whose first line was `first_line` of the file.
    pub(super) fn add(&mut self, answer: &Value, first_line: u64) {
        self.requests += 1;
        for error in items(answer, "errors").iter().take(ERRORS_SHOWN_MAX.saturating_sub(self.errors.len())) {
            let mut error = error.clone();
            if let Some(line) = error.get("line").and_then(Value::as_u64) {
                error["line"] = (first_line + line - 1).into();
            }
            self.errors.push(error);
        }
        for (name, value) in answer.as_object().into_iter().flatten() {
            let Some(value) = value.as_u64() else { continue };
            let counter = self.counters.entry(name.clone()).or_default();
            // A position is no amount: the last one counts.
            *counter = if name == "seq" { value } else { *counter + value };
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&counted(self.requests as usize, "request"))?;
        for (name, value) in self.counters.iter().filter(|(_, value)| **value > 0) {
            write!(f, ", {} {value}", name.replace('_', " "))?;
        }
        let mut before = String::new();
        for error in &self.errors {
            let [line, field, message, remedy] =
                ["line", "field", "message", "remedy"].map(|name| cell(error, name));
            write!(f, "\nline {line}: {field}: {}", shortened(&message))?;
            // What is to be done about many lines in a row is said once.
            if remedy != before {
                write!(f, "; {}", shortened(&remedy))?;
            }
            before = remedy;
        }
        match self.failed().saturating_sub(self.errors.len()) {
            0 => Ok(()),
            more => write!(f, "\n… and {} more", counted(more, "line")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use serde_json::json;

    use super::Totals;

    #[test]
    fn counters_of_all_requests_add_up() {
        let mut totals = Totals::default();
        totals.add(&json!({"import_id": "x", "entities_imported": 2, "relations_imported": 0, "seq": 7}), 1);
        let error =
            json!({"line": 3, "field": "entity_name", "message": "is empty", "remedy": "give a name"});
        totals.add(
            &json!({"import_id": "y", "entities_imported": 3, "failed": 1, "errors": [error], "seq": 9}),
            1_001,
        );
        let then =
            "2 requests, entities imported 5, failed 1, seq 9\nline 1003: entity_name: is empty; give a name";
        assert_eq!((totals.to_string().as_str(), totals.failed()), (then, 1));
        assert_eq!(totals.refusal().unwrap().to_string(), "1 line refused; the others are written");
    }

    #[test]
    fn refusals_are_short_and_those_that_are_not_shown_are_counted() {
        let mut totals = Totals::default();
        let error = |line: u64| json!({"line": line, "field": "seq", "message": "x".repeat(300), "remedy": "leave it out"});
        let errors: Vec<_> = (1..=1_000).map(error).collect();
        totals.add(&json!({"entities_imported": 0, "failed": 1_000, "errors": errors, "seq": 9}), 1);
        let told = totals.to_string();
        assert!(told.lines().all(|line| line.chars().count() < 200), "{told}");
        assert_eq!(told.matches("leave it out").count(), 1, "{told}");
        assert!(told.ends_with("\n… and 980 lines more"), "{told}");
        assert_eq!(totals.refusal().unwrap().to_string(), "1000 lines refused; none was written");
        assert!(Totals::default().refusal().is_none());
    }
}
