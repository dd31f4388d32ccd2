//! A message, and what else happens in a conversation, for people.

use serde_json::{Value, json};

use super::super::failure::Failure;
use super::super::output::{Output, cell};
use super::{content, names};

/// Prints a message: who, to whom, what, then what it says, indented.
pub(super) fn print_message(message: &Value, out: &mut Output) -> Result<(), Failure> {
    out.line(head(message))?;
    plain(&content(message)).lines().try_for_each(|line| out.line(format_args!("  {line}")))
}

/// A text without the signs by which it could command a terminal.
pub(super) fn plain(text: &str) -> String {
    let is_plain = |sign: char| !sign.is_control() || matches!(sign, '\n' | '\t');
    text.chars().map(|sign| if is_plain(sign) { sign } else { '\u{fffd}' }).collect()
}

fn head(message: &Value) -> String {
    let text = |name| cell(message, name);
    let receivers = names(message, "receivers");
    let to = if receivers.is_empty() { "nobody" } else { &receivers };
    let (at, sender, word, seq) = (text("recorded_at"), text("sender"), text("performative"), text("seq"));
    let answers = match message["answers_seq"].as_u64() {
        Some(asked) => format!(", answers #{asked}"),
        None if message["in_reply_to"].is_string() => format!(", answers {}", text("in_reply_to")),
        None => String::new(),
    };
    let priority = match message["priority"].as_str() {
        None | Some("normal") => String::new(),
        Some(priority) => format!(", {priority} priority"),
    };
    let reply_by = match text("reply_by") {
        at if at.is_empty() => at,
        at => format!(", answer by {at}"),
    };
    let routing = &message["routing"];
    let [capability, strategy, reason] = ["capability", "strategy", "reason"].map(|name| cell(routing, name));
    let routed = if routing.is_object() {
        format!("\n  for {capability} by {strategy}: {reason}")
    } else {
        String::new()
    };
    format!("{at}  {sender} → {to}  {word}  #{seq}{answers}{priority}{reply_by}{routed}")
}

/// The message in an event of the log, in the form in which a conversation's messages come.
pub(super) fn message_of(event: &Value) -> Value {
    let mut message = event["data"].clone();
    message["seq"] = event["seq"].clone();
    message["recorded_at"] = event["recorded_at"].clone();
    // What an answer answers is the event that led to it; other messages may have a cause as well.
    message["answers_seq"] =
        if message["in_reply_to"].is_string() { event["causation_seq"].clone() } else { json!(null) };
    message
}

/// What happens in a conversation besides messages, on one line; `None` for what is nobody's concern.
pub(super) fn happening(event: &Value) -> Option<String> {
    let data = &event["data"];
    let text = |name| cell(data, name);
    let sent = text("sent_seq");
    let what = match event["kind"].as_str().unwrap_or_default() {
        "conversation.opened" => match text("topic") {
            topic if topic.is_empty() => "the conversation begins".to_owned(),
            topic => format!("the conversation begins: {topic}"),
        },
        "conversation.closed" => format!("the conversation ends: {}", text("end")),
        "conversation.archived" => "the conversation is put away".to_owned(),
        "conversation.extended" => "the conversation may last longer".to_owned(),
        "conversation.message_expired" => {
            format!("#{sent} expired before {} had taken it", names(data, "receivers"))
        }
        "conversation.reply_overdue" => format!("#{sent} was not answered in time"),
        "conversation.delivery_retried" => {
            let (who, error, at) = (text("receiver"), text("error"), text("not_before"));
            format!("{who} could not handle #{sent}: {error}; it tries again after {at}")
        }
        "conversation.message_dead_lettered" => {
            let who = match text("receiver") {
                who if who.is_empty() => "nobody".to_owned(),
                who => who,
            };
            // 0 stands for the message right in front of it.
            let sent = if data["sent_seq"] == 0 { "the message".to_owned() } else { format!("#{sent}") };
            format!("{sent} is given up for {who}: {} ({})", text("reason"), text("detail"))
        }
        "conversation.dead_letter_replayed" => {
            format!("dead letter #{} is sent again", text("dead_letter_seq"))
        }
        _ => return None,
    };
    Some(format!("{}  #{} {what}", cell(event, "recorded_at"), cell(event, "seq")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{happening, head, message_of, plain};

    #[test]
    fn a_message_says_who_to_whom_and_why() {
        let event = json!({
            "seq": 17, "recorded_at": "T", "causation_seq": 12, "kind": "conversation.message_sent",
            "data": {
                "sender": "ada", "receivers": ["bob", "eve"], "performative": "INFORM", "priority": "high",
                "in_reply_to": "q1", "content": "x",
                "routing": {"capability": "plots", "strategy": "priority", "reason": "bob is first of 2"},
            },
        });
        let then = "T  ada → bob, eve  INFORM  #17, answers #12, high priority\n  for plots by priority: bob is first of 2";
        assert_eq!(head(&message_of(&event)), then);
    }

    #[test]
    fn what_agents_say_does_not_command_the_terminal() {
        assert_eq!(plain("a\n\tb\u{1b}[2Jc\rd"), "a\n\tb\u{fffd}[2Jc\u{fffd}d");
    }

    #[test]
    fn a_cause_that_is_no_question_is_not_answered() {
        let event = json!({"seq": 1, "causation_seq": 5, "data": {"receivers": [], "priority": "normal"}});
        assert!(head(&message_of(&event)).ends_with(" → nobody    #1"));
    }

    #[test]
    fn only_what_concerns_people_is_told() {
        let closed = json!({"seq": 2, "recorded_at": "T", "kind": "conversation.closed", "data": {"end": "completed"}});
        assert_eq!(happening(&closed).as_deref(), Some("T  #2 the conversation ends: completed"));
        let done =
            json!({"seq": 3, "recorded_at": "T", "kind": "conversation.inbox_acknowledged", "data": {}});
        assert_eq!(happening(&done), None);
    }
}
