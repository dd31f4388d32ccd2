//! The end of an attempt that failed: another one, or none.

use caxton_events::conversation::DeadLetterReason;
use caxton_events::{ConversationEvent, Event, TurnEvent};

use super::{Outcome, Turn};
use crate::agents::circuit::later;
use crate::agents::ports::{PortError, ReplyError};
use crate::agents::reply::Reply;

impl Turn<'_> {
    /// The attempt has failed, and another one is made later.
    pub(super) async fn retry(&mut self, reason: String) -> Result<Outcome, PortError> {
        if !self.is_open() {
            return self.end_closed(reason, true).await;
        }
        let attempts = self.state.attempts();
        let wait = self.world.retry.wait(attempts).max(self.provider_wait.unwrap_or_default());
        let not_before = later(self.world.clock.now(), wait);
        let retried = ConversationEvent::DeliveryRetried {
            sent: self.delivery.seq,
            message: self.delivery.message.id,
            receiver: self.delivery.agent.clone(),
            attempts,
            not_before,
            error: reason.clone(),
        };
        self.give_up(reason.clone(), true, Some(retried)).await?;
        Ok(Outcome::Retry { not_before, reason })
    }

    /// The message is given up, or passed on. `blame`: whether that says something about the agent.
    pub(super) async fn fail(
        &mut self,
        reason: String,
        reply: Option<Reply>,
        blame: bool,
    ) -> Result<Outcome, PortError> {
        if !self.is_open() {
            return self.end_closed(reason, blame).await;
        }
        let passed_on = match self.world.replies.pass_on(self.delivery, self.id).await {
            Ok(passed_on) => passed_on,
            Err(ReplyError::Refused(_)) => false,
            Err(ReplyError::Unavailable(error)) => return Err(error),
        };
        if let Some(reply) = reply.filter(|_| !passed_on) {
            match self.send(reply).await {
                Ok(()) | Err(ReplyError::Refused(_)) => (),
                Err(ReplyError::Unavailable(error)) => return Err(error),
            }
        }
        let attempts = self.state.attempts();
        let exhausted = attempts >= self.world.retry.attempts_max;
        let dead = ConversationEvent::MessageDeadLettered {
            sent: self.delivery.seq,
            message: self.delivery.message.id,
            receiver: Some(self.delivery.agent.clone()),
            reason: if exhausted { DeadLetterReason::RetriesExhausted } else { DeadLetterReason::GivenUp },
            attempts,
            detail: reason.clone(),
        };
        self.give_up(reason.clone(), false, Some(dead)).await?;
        Ok(Outcome::Failed { reason, blame })
    }

    /// Whether the message waits for this turn still: it may have expired meanwhile, which is told, or somebody else may have
    /// seen to it.
    fn is_open(&self) -> bool {
        self.world.log.is_open(&self.delivery.agent, self.delivery.seq)
    }

    /// The attempt has failed, and nothing is to become of its message any more.
    async fn end_closed(&mut self, reason: String, blame: bool) -> Result<Outcome, PortError> {
        self.give_up(reason.clone(), false, None).await?;
        Ok(Outcome::Failed { reason, blame })
    }

    /// Records the end of an attempt and what becomes of the message, both or neither.
    async fn give_up(
        &mut self,
        reason: String,
        will_retry: bool,
        delivery: Option<ConversationEvent>,
    ) -> Result<(), PortError> {
        let failed = TurnEvent::Failed { turn: self.id, reason, will_retry };
        let delivery = delivery.map(|delivery| self.draft(Event::Conversation(delivery)));
        let drafts = std::iter::once(self.draft(Event::Turn(failed.clone()))).chain(delivery).collect();
        self.world.log.record(drafts).await?;
        self.state.apply(&failed);
        Ok(())
    }
}
