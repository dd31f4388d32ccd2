//! Which messages answer a question, and what an answer means.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::output::cell;

/// A message that was sent, and what came back so far.
#[derive(Debug)]
pub(super) struct Question {
    conversation: String,
    /// Numbers and words that an answer may carry.
    words: BTreeSet<String>,
    /// Places of the message and of promises to answer it.
    places: BTreeSet<u64>,
    /// Where the message stands.
    pub(super) seq: u64,
    receivers: BTreeSet<String>,
    answered: BTreeSet<String>,
}

/// What a message is to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bearing {
    /// Nothing.
    None,
    /// A promise that an answer will come.
    Promise,
    /// The answer.
    Answer,
}

impl Question {
    /// The message that the server took: `sent` is its answer, `reply_with` the word that answers are to carry.
    pub(super) fn of(sent: &Value, reply_with: Option<&str>) -> Self {
        let seq = sent["seq"].as_u64().unwrap_or_default();
        let words = [Some(cell(sent, "message_id")), reply_with.map(str::to_owned)];
        let receivers = sent["delivered_to"].as_array().map_or(&[][..], Vec::as_slice);
        Self {
            conversation: cell(sent, "conversation_id"),
            words: words.into_iter().flatten().filter(|word| !word.is_empty()).collect(),
            places: BTreeSet::from([seq]),
            seq,
            receivers: receivers.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            answered: BTreeSet::new(),
        }
    }

    /// What `message` is to this question, and notes it. A receiver that names no question answers the last one.
    pub(super) fn hear(&mut self, message: &Value) -> Bearing {
        let seq = message["seq"].as_u64().unwrap_or_default();
        if message["conversation_id"] != *self.conversation || seq <= self.seq {
            return Bearing::None;
        }
        let sender = cell(message, "sender");
        let meant = match message["in_reply_to"].as_str() {
            Some(word) => {
                self.words.contains(word)
                    || message["answers_seq"].as_u64().is_some_and(|seq| self.places.contains(&seq))
            }
            None => self.receivers.contains(&sender),
        };
        if !meant {
            return Bearing::None;
        }
        if message["performative"] == "AGREE" {
            self.places.insert(seq);
            self.words.insert(cell(message, "message_id"));
            return Bearing::Promise;
        }
        self.answered.insert(sender);
        Bearing::Answer
    }

    /// Whether every receiver has answered, or the server in their place.
    pub(super) fn is_answered(&self) -> bool {
        if self.receivers.is_empty() {
            !self.answered.is_empty()
        } else {
            self.receivers.is_subset(&self.answered)
        }
    }
}

/// Whether a message says that nothing came of the question.
pub(super) fn is_bad(message: &Value) -> bool {
    matches!(message["performative"].as_str(), Some("FAILURE" | "REFUSE" | "NOT_UNDERSTOOD"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Bearing, Question};

    fn asked(receivers: &[&str]) -> Question {
        let sent = json!({
            "seq": 10, "message_id": "m10", "conversation_id": "c", "delivered_to": receivers,
        });
        Question::of(&sent, Some("q1"))
    }

    fn message(seq: u64, sender: &str, performative: &str, in_reply_to: Option<&str>) -> Value {
        json!({
            "seq": seq, "message_id": format!("m{seq}"), "conversation_id": "c", "sender": sender,
            "performative": performative, "in_reply_to": in_reply_to, "answers_seq": null,
        })
    }

    #[track_caller]
    fn check(given: &[Value], then: &[Bearing], answered: bool) {
        let mut question = asked(&["bob"]);
        let heard: Vec<Bearing> = given.iter().map(|message| question.hear(message)).collect();
        assert_eq!((heard.as_slice(), question.is_answered()), (then, answered));
    }

    #[test]
    fn an_answer_names_the_message_or_its_word_or_comes_from_a_receiver() {
        for word in [Some("m10"), Some("q1"), None] {
            check(&[message(11, "bob", "INFORM", word)], &[Bearing::Answer], true);
        }
        check(&[message(11, "bob", "INFORM", Some("m3"))], &[Bearing::None], false);
        check(&[message(11, "eve", "INFORM", None)], &[Bearing::None], false);
        check(&[message(9, "bob", "INFORM", Some("m10"))], &[Bearing::None], false);
        let mut elsewhere = message(11, "bob", "INFORM", Some("m10"));
        elsewhere["conversation_id"] = json!("d");
        check(&[elsewhere], &[Bearing::None], false);
    }

    #[test]
    fn a_promise_is_no_answer_and_what_answers_it_is() {
        let promise = message(11, "bob", "AGREE", Some("q1"));
        check(
            &[promise.clone(), message(12, "bob", "INFORM", Some("m11"))],
            &[Bearing::Promise, Bearing::Answer],
            true,
        );
        check(&[promise], &[Bearing::Promise], false);
    }

    #[test]
    fn everybody_who_was_asked_answers() {
        let mut question = asked(&["bob", "eve"]);
        assert_eq!(question.hear(&message(11, "bob", "INFORM", Some("q1"))), Bearing::Answer);
        assert!(!question.is_answered());
        assert_eq!(question.hear(&message(12, "eve", "REFUSE", Some("q1"))), Bearing::Answer);
        assert!(question.is_answered());
    }

    #[test]
    fn the_server_answers_where_nobody_was_found() {
        let mut question = asked(&[]);
        assert_eq!(question.hear(&message(12, "system", "FAILURE", Some("q1"))), Bearing::Answer);
        assert!(question.is_answered());
    }
}
