//! What an agent answers: the performative that fits a message, and the text of the model in it.

use caxton_events::conversation::{Content, Performative};
use caxton_events::{AgentId, MessageId, Seq, TurnId};
use serde_json::Value;

/// An answer on its way to the sender of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// What it does.
    pub performative: Performative,
    /// What it says.
    pub content: Content,
}

/// What a model's answer to a message with `asked` becomes; `None` when such a message gets no answer.
///
/// A model chooses the performative by answering with one JSON object, `{"performative": "REFUSE", "content": …}`. One
/// that does not answer such a message, and plain text, become what [`usual`] says. An empty content becomes the
/// performative's name: a message says something, and that word is all that the model had to say.
pub fn reply_to(asked: Performative, auto_respond: bool, text: &str) -> Option<Reply> {
    let usual = usual(asked, auto_respond)?;
    if text.trim().is_empty() {
        return failure(asked, "the model answered nothing").or_else(|| Some(plain(usual, text)));
    }
    let Some((wish, content)) = structured(text) else { return Some(plain(usual, text)) };
    let wish = wish.map(|wish| meant(asked, wish)).filter(|wish| answers(asked).contains(wish));
    let performative = wish.unwrap_or(usual);
    if content.as_str().is_empty() {
        return Some(plain(performative, performative.as_str()));
    }
    Some(Reply { performative, content })
}

/// What a model is told beside its prompt about a message whose answer a plain text cannot be.
pub const fn instruction(asked: Performative) -> Option<&'static str> {
    if !matches!(asked, Performative::Propose) {
        return None;
    }
    Some(
        "The message is a proposal. Answer with one JSON object and nothing else: {\"performative\": \"ACCEPT_PROPOSAL\", \
         \"content\": \"why\"} to accept it, or the same with REJECT_PROPOSAL to turn it down.",
    )
}

/// The answer that tells a sender that there is none, where it waits for one.
pub fn failure(asked: Performative, reason: &str) -> Option<Reply> {
    asked.expects_reply().then(|| plain(Performative::Failure, reason))
}

/// The number of a turn's answer. It follows from the turn's, so that an answer which is sent again after a crash is
/// recognised as the same.
pub fn reply_id(turn: TurnId) -> MessageId {
    let mut hash = blake3::Hasher::new_derive_key("caxton: number of a turn's answer");
    hash.update(&turn.bytes());
    numbered(&hash)
}

/// The number of the answer to the CANCEL at `cancel`, whoever gives it: there is one.
pub fn cancel_reply_id(agent: &AgentId, cancel: Seq) -> MessageId {
    let mut hash = blake3::Hasher::new_derive_key("caxton: number of the answer to a CANCEL");
    hash.update(agent.as_str().as_bytes());
    hash.update(&cancel.0.to_le_bytes());
    numbered(&hash)
}

fn numbered(hash: &blake3::Hasher) -> MessageId {
    let mut bytes = [0; 16];
    hash.finalize_xof().fill(&mut bytes);
    // A UUID of version 8: its meaning is ours.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    MessageId::from_bytes(bytes)
}

fn plain(performative: Performative, text: &str) -> Reply {
    Reply { performative, content: Content::Text(text.to_owned()) }
}

/// What plain text means as an answer. A proposal is neither taken nor turned down by accident: only a clear word decides.
const fn usual(asked: Performative, auto_respond: bool) -> Option<Performative> {
    match asked {
        Performative::Request | Performative::Query | Performative::Subscribe => Some(Performative::Inform),
        Performative::Propose => Some(Performative::NotUnderstood),
        Performative::Cfp => Some(Performative::Propose),
        Performative::Inform if auto_respond => Some(Performative::Inform),
        Performative::Inform
        | Performative::AcceptProposal
        | Performative::RejectProposal
        | Performative::Failure
        | Performative::NotUnderstood
        | Performative::Agree
        | Performative::Refuse
        | Performative::Confirm
        | Performative::Disconfirm
        | Performative::Cancel => None,
    }
}

/// The performative that a model means by its word: who agrees to a proposal accepts it, who refuses it turns it down.
const fn meant(asked: Performative, wish: Performative) -> Performative {
    match (asked, wish) {
        (Performative::Propose, Performative::Agree) => Performative::AcceptProposal,
        (Performative::Propose, Performative::Refuse) => Performative::RejectProposal,
        (_, wish) => wish,
    }
}

/// The performatives that answer a message with `asked`.
const fn answers(asked: Performative) -> &'static [Performative] {
    use Performative::{
        AcceptProposal, Agree, Confirm, Disconfirm, Failure, Inform, NotUnderstood, Propose, Refuse,
        RejectProposal,
    };
    match asked {
        Performative::Request | Performative::Subscribe => &[Inform, Agree, Refuse, Failure, NotUnderstood],
        Performative::Query => &[Inform, Confirm, Disconfirm, Refuse, Failure, NotUnderstood],
        Performative::Propose => &[AcceptProposal, RejectProposal, Failure, NotUnderstood],
        Performative::Cfp => &[Propose, Refuse, Failure, NotUnderstood],
        Performative::Inform => &[Inform, NotUnderstood],
        AcceptProposal
        | RejectProposal
        | Failure
        | NotUnderstood
        | Agree
        | Refuse
        | Confirm
        | Disconfirm
        | Performative::Cancel => &[],
    }
}

/// The performative, if it is one, and the content of an answer that is one JSON object with both.
fn structured(text: &str) -> Option<(Option<Performative>, Content)> {
    let Ok(Value::Object(mut object)) = serde_json::from_str(text.trim()) else { return None };
    let wish = object.remove("performative")?.as_str()?.parse().ok();
    let content = object.remove("content")?;
    let content = content
        .as_str()
        .map_or_else(|| Content::Json(content.to_string()), |text| Content::Text(text.to_owned()));
    Some((wish, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(asked: Performative, auto_respond: bool, text: &str, then: Option<(Performative, &str)>) {
        let reply = reply_to(asked, auto_respond, text);
        let reply = reply.as_ref().map(|reply| (reply.performative, reply.content.as_str()));
        assert_eq!(reply, then, "{asked} {text}");
    }

    #[test]
    fn plain_text_answers_as_the_message_asks() {
        use Performative::*;
        for (asked, then) in [
            (Request, Some(Inform)),
            (Query, Some(Inform)),
            (Subscribe, Some(Inform)),
            (Propose, Some(NotUnderstood)),
            (Cfp, Some(Propose)),
        ] {
            check(asked, false, "yes", then.map(|then| (then, "yes")));
        }
        let silent = [
            AcceptProposal,
            RejectProposal,
            Failure,
            NotUnderstood,
            Agree,
            Refuse,
            Confirm,
            Disconfirm,
            Cancel,
        ];
        for asked in silent {
            check(asked, true, "yes", None);
        }
        check(Inform, false, "yes", None);
        check(Inform, true, "yes", Some((Inform, "yes")));
    }

    #[test]
    fn a_model_chooses_among_the_answers_that_fit() {
        use Performative::*;
        let yes = r#" {"performative": "accept-proposal", "content": "done"} "#;
        check(Propose, false, yes, Some((AcceptProposal, "done")));
        check(Propose, false, r#"{"performative":"AGREE","content":"x"}"#, Some((AcceptProposal, "x")));
        check(Propose, false, r#"{"performative":"REFUSE","content":"x"}"#, Some((RejectProposal, "x")));
        check(Propose, false, r#"{"performative":"INFORM","content":"x"}"#, Some((NotUnderstood, "x")));
        check(Request, false, yes, Some((Inform, "done")));
        check(Cfp, false, r#"{"performative":"REFUSE","content":{"why":1}}"#, Some((Refuse, r#"{"why":1}"#)));
        check(Query, false, r#"{"performative":"SING","content":"la"}"#, Some((Inform, "la")));
        check(Inform, false, r#"{"performative":"INFORM","content":"x"}"#, None);
        let bare = r#"{"performative":"ACCEPT_PROPOSAL","content":""}"#;
        check(Propose, false, bare, Some((AcceptProposal, "ACCEPT_PROPOSAL")));
        check(Request, false, bare, Some((Inform, "INFORM")));
        for text in [r#"{"performative":"REFUSE"}"#, r#"{"content":"x"}"#, r#"["REFUSE"]"#, "{", "7"] {
            check(Request, false, text, Some((Inform, text)));
        }
    }

    #[test]
    fn nothing_is_a_failure_for_those_who_wait() {
        check(
            Performative::Request,
            false,
            " \n",
            Some((Performative::Failure, "the model answered nothing")),
        );
        assert_eq!(failure(Performative::Inform, "x"), None);
    }

    #[test]
    fn the_number_of_an_answer_follows_from_its_turn() {
        let (one, two) = (TurnId::from_bytes([1; 16]), TurnId::from_bytes([2; 16]));
        assert_eq!(reply_id(one), reply_id(one));
        assert_ne!(reply_id(one), reply_id(two));
        assert_eq!(reply_id(one).to_string().parse(), Ok(reply_id(one)));
    }
}
