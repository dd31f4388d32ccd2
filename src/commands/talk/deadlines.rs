//! What time alone brings about for a message.

use caxton_events::conversation::DeadLetterReason;
use caxton_events::{AgentId, ConversationEvent};
use caxton_projections::conversations::{Conversations, Deadline, Timer};

/// What is recorded when a deadline of a message has passed. One that expires is a dead letter to each receiver that was not
/// done with it, so that it is seen and can be sent again.
pub fn passed(conversations: &Conversations, timer: &Timer, which: Deadline) -> Vec<ConversationEvent> {
    let (sent, message) = (timer.sent, timer.id);
    if which == Deadline::Reply {
        return vec![ConversationEvent::ReplyOverdue { sent, message }];
    }
    let at = timer.expires_at.map_or_else(String::new, |at| format!(" at {at}"));
    let letter = |receiver: &AgentId| ConversationEvent::MessageDeadLettered {
        sent,
        message,
        receiver: Some(receiver.clone()),
        reason: DeadLetterReason::Expired,
        attempts: conversations.retry(sent, receiver).map_or(0, |retry| retry.attempts),
        detail: format!("it expired{at}, before {receiver} was done with it"),
    };
    let receivers = timer.receivers.clone();
    let expired = ConversationEvent::MessageExpired { sent, message, receivers };
    std::iter::once(expired).chain(timer.receivers.iter().map(letter)).collect()
}
