//! `caxton memory undo`: what would change, or what did.

use std::fmt::Display;
use std::str::FromStr;

use caxton_events::{AgentId, ConversationId, WorkspaceId};
use serde_json::{Map, Value};

use super::args::Undo;
use super::backend::{Backend, Request};
use super::failure::{Exit, Failure};
use super::output::{Output, cell, counted, items, relation, shortened};
use super::ranges;

/// What a refusal calls the members of the request, and the flags that stand for them here.
const IN_FLAGS: &[(&str, &str)] = &[
    ("agent_id: ", "--as: "),
    ("without agent_id", "without --as"),
    ("with dry_run", "with --dry-run"),
    ("later=keep", "--later keep"),
    ("later=undo", "--later undo"),
    ("with since or from_seq", "with --since or --from-seq"),
    ("from_seq: the log", "--from-seq: the log"),
    ("to_seq: the log", "--to-seq: the log"),
    ("until: the log", "--until: the log"),
];

/// Refuses arguments that choose nothing or cannot be read, before a server is looked for.
pub(super) fn check(asked: &Undo) -> Result<(), Failure> {
    let Undo { agent, conversation, correlation, from_seq, to_seq, since, until, by, workspace, .. } = asked;
    name::<AgentId>("--agent", agent.as_deref())?;
    name::<ConversationId>("--conversation", conversation.as_deref())?;
    name::<AgentId>("--as", by.as_deref())?;
    name::<WorkspaceId>("--workspace", workspace.as_deref())?;
    ranges::positions(*from_seq, *to_seq)?;
    ranges::stretch(since.as_deref(), until.as_deref())?;
    let is_range = from_seq.is_some() && to_seq.is_some();
    if is_range || agent.is_some() || conversation.is_some() || correlation.is_some() {
        return Ok(());
    }
    let message = "--from-seq alone is no choice of facts; give --to-seq too, or --agent, --conversation or --correlation";
    Err(Failure::new(Exit::Usage, message))
}

/// Whether what a flag gives is a name.
fn name<T: FromStr<Err: Display>>(flag: &str, text: Option<&str>) -> Result<(), Failure> {
    let Some(text) = text else { return Ok(()) };
    match text.parse::<T>() {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(Exit::Usage, format!("{flag} {:?}: {error}", shortened(text)))),
    }
}

/// The same failure with the flags of the command line in it.
fn in_flags(failure: Failure) -> Failure {
    let told = IN_FLAGS.iter().fold(failure.to_string(), |told, (member, flag)| told.replace(member, flag));
    failure.told(told)
}

/// Takes facts back, or shows what that would do.
pub(super) fn undo(backend: &Backend, asked: &Undo, out: &mut Output) -> Result<(), Failure> {
    let answer = backend.ask(Request::post("/api/v1/memory/undo", &body(asked))).map_err(in_flags)?;
    if out.is_json() {
        out.json(&answer)?;
        return ended(&answer);
    }
    if is_refused(&answer) {
        out.line("What would change if it were not refused, with what builds on it (--later undo):")?;
    }
    let rows = items(&answer, "changes").iter().map(change).collect();
    out.table(&["row", "change", "scope", "before", "after", "undoes"], rows)?;
    rest(&answer, "changes", out)?;
    if !items(&answer, "later_facts").is_empty() {
        let columns = ["seq", "actor", "kind", "id", "why"];
        let row = |fact: &Value| columns.iter().map(|name| cell(fact, name)).collect();
        out.line(format_args!("Facts that build on them:"))?;
        out.table(&columns, items(&answer, "later_facts").iter().map(row).collect())?;
        rest(&answer, "later_facts", out)?;
    }
    out.line(format_args!("{}", sentence(&answer)))?;
    if let Some(first) = answer["first_seq"].as_u64().filter(|first| *first > 1 && asked.from_seq.is_none()) {
        out.line(format_args!("the log begins at #{first}: what was written before can no more be undone"))?;
    }
    ended(&answer)
}

fn is_refused(answer: &Value) -> bool {
    answer["status"] == "would_be_refused"
}

/// A preview of what would be refused ends as the refusal does: scripts look at the one before they do the other.
fn ended(answer: &Value) -> Result<(), Failure> {
    if !is_refused(answer) {
        return Ok(());
    }
    let facts = counted(answer["later_facts_total"].as_u64().unwrap_or_default() as usize, "later fact");
    let message = format!(
        "the undo would be refused for {facts}, which build on what would be undone; choose --later keep or --later undo"
    );
    Err(Failure::new(Exit::Refused, message))
}

fn body(asked: &Undo) -> Value {
    let mut body = Map::new();
    let texts = [
        ("agent", &asked.agent),
        ("conversation_id", &asked.conversation),
        ("correlation_id", &asked.correlation),
        ("since", &asked.since),
        ("until", &asked.until),
        ("agent_id", &asked.by),
        ("workspace", &asked.workspace),
    ];
    for (name, value) in texts {
        if let Some(value) = value.as_deref() {
            body.insert(name.to_owned(), value.into());
        }
    }
    for (name, value) in [("from_seq", asked.from_seq), ("to_seq", asked.to_seq)] {
        if let Some(value) = value {
            body.insert(name.to_owned(), value.into());
        }
    }
    body.insert("later".to_owned(), asked.later.as_str().into());
    body.insert("dry_run".to_owned(), asked.dry_run.into());
    body.insert("limit".to_owned(), asked.limit.into());
    body.into()
}

fn change(change: &Value) -> Vec<String> {
    let undoes: Vec<String> =
        items(change, "undoes").iter().filter_map(Value::as_u64).map(|seq| format!("#{seq}")).collect();
    let says = |name: &str| change.get(name).map(says).unwrap_or_default();
    vec![
        cell(change, "id"),
        cell(change, "change"),
        cell(change, "scope"),
        says("before"),
        says("after"),
        shortened(&undoes.join(" ")),
    ]
}

/// What a version of a row says, in few words.
fn says(row: &Value) -> String {
    if row.get("content").is_some() {
        return shortened(&cell(row, "content"));
    }
    if row.get("relation_type").is_some() {
        return shortened(&relation(row));
    }
    if row.get("entity_name").is_none() {
        return String::new();
    }
    shortened(&format!("{} ({})", cell(row, "entity_name"), cell(row, "entity_type")))
}

/// Says how many more there are than the answer lists.
fn rest(answer: &Value, name: &str, out: &mut Output) -> Result<(), Failure> {
    let total = answer[format!("{name}_total")].as_u64().unwrap_or_default() as usize;
    match total.saturating_sub(items(answer, name).len()) {
        0 => Ok(()),
        more => out.line(format_args!("… and {more} more (--limit)")),
    }
}

/// What was done, and how to take it back.
fn sentence(answer: &Value) -> String {
    let number = |name: &str| answer[name].as_u64().unwrap_or_default() as usize;
    let mut parts = vec![format!("{} chosen", counted(number("selected"), "fact"))];
    for (name, what) in [
        ("undone", "undone"),
        ("already_undone", "undone before"),
        ("kept", "kept for later facts"),
        ("without_effect", "without effect by now"),
    ] {
        if number(name) > 0 || name == "undone" {
            parts.push(format!("{} {what}", number(name)));
        }
    }
    let parts = parts.join(", ");
    match answer["status"].as_str() {
        Some("undone") => {
            let [first, last] = ["undo_seq", "seq"].map(|name| cell(answer, name));
            format!("{parts}; to take it back: caxton memory undo --from-seq {first} --to-seq {last}")
        }
        Some("would_be_refused") => {
            format!("{parts} with those that build on them, if it were not refused; nothing was done")
        }
        Some("would_be_undone") => format!("{parts}; nothing was done"),
        _ => format!("{parts}; there was nothing to do"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{change, ended, sentence};
    use crate::cli::failure::Exit;

    #[test]
    fn a_change_shows_what_was_and_what_will_be() {
        let row = json!({
            "id": "obs_4", "change": "changed", "scope": "global", "undoes": [7, 9],
            "before": {"content": "new"}, "after": {"content": "old"},
        });
        assert_eq!(change(&row), ["obs_4", "changed", "global", "new", "old", "#7 #9"]);
        let gone = json!({
            "id": "ent_3", "change": "removed", "scope": "global", "undoes": [7], "after": null,
            "before": {"entity_name": "Ada", "entity_type": "person"},
        });
        assert_eq!(change(&gone), ["ent_3", "removed", "global", "Ada (person)", "", "#7"]);
    }

    #[test]
    fn a_relation_names_its_ends_and_one_that_is_gone_by_its_id() {
        let row = json!({
            "id": "rel_5", "change": "removed", "scope": "global", "undoes": [8], "after": null,
            "before": {"from_entity": "Ada", "from_entity_id": "ent_3", "relation_type": "knows",
                "to_entity": null, "to_entity_id": "ent_4"},
        });
        assert_eq!(change(&row), ["rel_5", "removed", "global", "Ada knows ent_4", "", "#8"]);
    }

    #[test]
    fn the_sentence_says_how_to_take_an_undo_back() {
        let done =
            json!({"status": "undone", "selected": 3, "undone": 2, "kept": 1, "undo_seq": 8, "seq": 10});
        let then = "3 facts chosen, 2 undone, 1 kept for later facts; to take it back: caxton memory undo --from-seq 8 --to-seq 10";
        assert_eq!(sentence(&done), then);
        let nothing = json!({"status": "unchanged", "selected": 0});
        assert_eq!(sentence(&nothing), "0 facts chosen, 0 undone; there was nothing to do");
    }

    #[test]
    fn a_preview_of_what_would_be_refused_ends_as_the_refusal_does() {
        let preview =
            |status: &str| json!({"status": status, "selected": 1, "undone": 2, "later_facts_total": 1});
        for status in ["would_be_undone", "undone", "unchanged"] {
            assert!(ended(&preview(status)).is_ok(), "{status}");
        }
        let refused = preview("would_be_refused");
        let then =
            "1 fact chosen, 2 undone with those that build on them, if it were not refused; nothing was done";
        assert_eq!(sentence(&refused), then);
        let failure = ended(&refused).unwrap_err();
        assert_eq!(failure.exit, Some(Exit::Refused));
        let told = failure.to_string();
        assert!(told.starts_with("the undo would be refused for 1 later fact, which"), "{told}");
    }
}
