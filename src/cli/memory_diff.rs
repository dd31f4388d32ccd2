//! `caxton memory diff`: what came, changed and went between two moments.

use serde_json::Value;

use super::args::MemoryDiff;
use super::backend::{Backend, Request};
use super::failure::Failure;
use super::output::{Output, cell, counted, items, relation, shortened};
use super::talk::print_next;

/// What may change of a row and is not in the words for it.
const BESIDE: [&str; 5] = ["metadata", "confidence", "strength", "valid_from", "valid_to"];

/// Asks for the differences and prints them.
pub(super) fn run(backend: &Backend, diff: &MemoryDiff, out: &mut Output) -> Result<(), Failure> {
    let request = Request::get("/api/v1/memory/diff")
        .with("from", &diff.from)
        .with_some("to", diff.to.as_deref())
        .page(&diff.page)
        .from(&diff.who);
    let answer = backend.ask(request)?;
    if out.is_json() {
        return out.json(&answer);
    }
    let differences = items(&answer, "differences");
    out.table(&["seq", "change", "kind", "before", "after"], differences.iter().map(row).collect())?;
    let (from, to) = (cell(&answer, "from"), cell(&answer, "to"));
    out.line(format_args!("{} from {from} to {to}", counted(differences.len(), "difference")))?;
    print_next(&answer, out)
}

fn row(difference: &Value) -> Vec<String> {
    let kind = cell(difference, "kind");
    let (before, after) = (&difference["before"], &difference["after"]);
    let is_changed = !before.is_null() && !after.is_null();
    let changed = BESIDE.into_iter().filter(|name| is_changed && before[*name] != after[*name]);
    let changed: Vec<&str> = changed.collect();
    let side = |row: &Value| {
        let mut parts = vec![shortened(&words(&kind, difference, row))];
        // As the answer has them: that is how they are written, too.
        parts.extend(changed.iter().map(|name| shortened(&format!("{name}={}", row[*name]))));
        parts.join(" ")
    };
    vec![cell(difference, "seq"), cell(difference, "change"), kind.clone(), side(before), side(after)]
}

/// A row of the memory in words; nothing where there is none.
fn words(kind: &str, difference: &Value, row: &Value) -> String {
    if row.is_null() {
        return String::new();
    }
    match kind {
        "entity" => format!("{} ({})", cell(row, "entity_name"), cell(row, "entity_type")),
        "observation" => format!("{}: {}", cell(difference, "entity_name"), cell(row, "content")),
        _ => relation(row),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::row;

    #[test]
    fn a_difference_says_what_was_and_what_is() {
        let changed = json!({"seq": 9, "change": "changed", "kind": "entity",
            "before": {"entity_name": "Ada", "entity_type": "person"},
            "after": {"entity_name": "Lady Ada", "entity_type": "countess"}});
        assert_eq!(row(&changed), ["9", "changed", "entity", "Ada (person)", "Lady Ada (countess)"]);
        let removed = json!({"seq": 10, "change": "removed", "kind": "observation", "entity_name": "Ada",
            "before": {"content": "likes tea"}, "after": null});
        assert_eq!(row(&removed), ["10", "removed", "observation", "Ada: likes tea", ""]);
        let added = json!({"seq": 11, "change": "added", "kind": "relation", "before": null,
            "after": {"from_entity": "Ada", "relation_type": "knows", "to_entity": "Charles"}});
        assert_eq!(row(&added), ["11", "added", "relation", "", "Ada knows Charles"]);
        let hidden = json!({"seq": 12, "change": "added", "kind": "relation", "before": null,
            "after": {"from_entity": "Ada", "from_entity_id": "ent_3", "relation_type": "knows",
                "to_entity": null, "to_entity_id": "ent_4"}});
        assert_eq!(row(&hidden)[4], "Ada knows ent_4");
    }

    #[test]
    fn what_changed_beside_the_words_is_shown_and_nothing_else() {
        let side = |metadata: Value, confidence: f64| {
            json!({"entity_name": "Ada", "entity_type": "person", "metadata": metadata, "confidence": confidence,
                "valid_from": null, "updated_at": "2026-01-01T00:00:00Z", "version": 1})
        };
        let changed = |before: Value, after: Value| {
            row(&json!({"seq": 9, "change": "changed", "kind": "entity", "before": before, "after": after}))
        };
        let shown = changed(side(json!({"city": "London"}), 0.5), side(Value::Null, 0.5));
        assert_eq!(shown[3..], ["Ada (person) metadata={\"city\":\"London\"}", "Ada (person) metadata=null"]);
        let shown = changed(side(Value::Null, 0.5), side(Value::Null, 1.0));
        assert_eq!(shown[3..], ["Ada (person) confidence=0.5", "Ada (person) confidence=1.0"]);
        let shown = changed(Value::Null, side(json!({"city": "London"}), 0.5));
        assert_eq!(shown[3..], ["", "Ada (person)"]);
    }
}
