//! Messages of one request that answer each other: the log has no place for the question yet.

use std::collections::HashMap;

use caxton_events::{ConversationEvent, Draft, Event, MessageId, Seq};

use crate::commands::talk::{Answered, Outgoing};

/// The words and numbers by which messages of a request can be answered, with their places among the drafts. `None`:
/// nothing in the request answers anything.
pub(super) struct Words(Option<HashMap<String, usize>>);

impl Words {
    /// Of a request that is about to be decided.
    pub(super) fn of(wishes: &[Outgoing]) -> Self {
        let answers = wishes.len() > 1 && wishes.iter().any(|wish| wish.in_reply_to.is_some());
        Self(answers.then(HashMap::new))
    }

    /// Finds what a message answers; its conversation is then the question's.
    pub(super) fn find(&self, drafts: &[Draft], wish: &mut Outgoing) {
        let (Some(words), Some(word)) = (&self.0, &wish.in_reply_to) else { return };
        let number = || words.get(&word.parse::<MessageId>().ok()?.to_string());
        let Some(at) = words.get(word).or_else(number) else { return };
        let Some(Event::Conversation(ConversationEvent::MessageSent(message))) =
            drafts.get(*at).map(|draft| &draft.event)
        else {
            return;
        };
        if wish.conversation.as_ref().is_some_and(|id| *id != message.conversation) {
            return;
        }
        wish.conversation = Some(message.conversation.clone());
        wish.answered = Some(Answered {
            seq: Seq::ZERO,
            performative: message.performative,
            sender: message.sender.clone(),
            receivers: message.receivers.clone(),
        });
    }

    /// What a message can be answered by.
    pub(super) fn names(&self, wish: &Outgoing) -> Vec<String> {
        if self.0.is_none() {
            return Vec::new();
        }
        wish.reply_with.iter().cloned().chain(wish.id.map(|id| id.to_string())).collect()
    }

    /// Notes where that message is.
    pub(super) fn note(&mut self, names: Vec<String>, at: usize) {
        if let Some(words) = &mut self.0 {
            words.extend(names.into_iter().map(|name| (name, at)));
        }
    }
}
