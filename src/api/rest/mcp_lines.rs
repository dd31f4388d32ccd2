//! The lines of `memory.jsonl`, the file of the MCP reference memory server, as rows of an import.
//!
//! `{"type": "entity", "name", "entityType", "observations": [text…]}` and
//! `{"type": "relation", "from", "to", "relationType"}`.

use serde_json::{Map, Value};

use super::problem::Complaint;

/// Its names and ours.
const ENTITY: &[(&str, &str)] =
    &[("name", "entity_name"), ("entityType", "entity_type"), ("observations", "observations")];
const RELATION: &[(&str, &str)] =
    &[("from", "from_entity"), ("to", "to_entity"), ("relationType", "relation_type")];

/// The line in our names. A name that is not there, or that is none of its, is a complaint.
pub(super) fn translated(value: Value) -> Result<Value, Complaint> {
    let Value::Object(members) = value else {
        return Err(complaint("", "is no JSON object", "write one entity or relation a line"));
    };
    let names = match members.get("type").and_then(Value::as_str) {
        Some("entity") => ENTITY,
        Some("relation") => RELATION,
        Some(_) | None => {
            return Err(complaint(
                "type",
                "is neither entity nor relation",
                "give \"entity\" or \"relation\"",
            ));
        }
    };
    let mut row = Map::new();
    for (name, value) in members {
        match names.iter().find(|(theirs, _)| *theirs == name) {
            Some((_, ours)) => drop(row.insert((*ours).to_owned(), value)),
            None if name == "type" => drop(row.insert(name, value)),
            None => {
                let known: Vec<&str> = names.iter().map(|(theirs, _)| *theirs).collect();
                let remedy = format!("leave it out; known are: {}", known.join(", "));
                return Err(complaint(&name, "means nothing in this format", &remedy));
            }
        }
    }
    if let Some((missing, _)) =
        names.iter().find(|(_, ours)| *ours != "observations" && !row.contains_key(*ours))
    {
        return Err(complaint(missing, "is missing", "add it"));
    }
    Ok(Value::Object(row))
}

fn complaint(field: &str, message: &str, remedy: &str) -> Complaint {
    Complaint {
        field: field.to_owned(),
        code: "VALIDATION_ERROR",
        value: None,
        message: message.to_owned(),
        remedy: remedy.to_owned(),
    }
}
