//! The end of a turn whose message was taken back, and what a CANCEL is told that came too late.

use std::sync::Arc;

use caxton_events::conversation::{Content, Performative};
use caxton_events::{Seq, TurnEvent, TurnId};

use super::{Outcome, Turn, World, turn_id};
use crate::agents::ports::{Delivery, OutgoingReply, PortError, ReplyError};
use crate::agents::reply::{Reply, cancel_reply_id};
use crate::agents::spec::Agent;

/// Messages that an answer names beside its own; of more it tells how many.
const NAMED_MAX: usize = 10;

impl Turn<'_> {
    /// Stops here: `cancel` is answered, and the message is not. `begun`: an attempt is under way.
    pub(super) async fn take_back(&mut self, cancel: &Delivery, begun: bool) -> Result<Outcome, PortError> {
        let (message, calls) = (self.delivery.seq, self.state.calls_started());
        let done = match calls {
            0 => "nothing of it was done".to_owned(),
            1 => "a tool had been called by then".to_owned(),
            calls => format!("tools had been called {calls} times by then"),
        };
        let others: Vec<Seq> = self.delivery.back.behind(message).collect();
        let words = format!("{message} is taken back; {done}{}", with_it(&others));
        tell(self.world, self.agent, cancel, self.id, Performative::Inform, words).await?;
        if begun {
            let reason = format!("taken back by {}", cancel.seq);
            self.note(TurnEvent::Failed { turn: self.id, reason, will_retry: false }).await?;
        }
        Ok(Outcome::TakenBack)
    }
}

/// What else the CANCEL took back: it waited behind, and was not begun.
fn with_it(others: &[Seq]) -> String {
    if others.is_empty() {
        return String::new();
    }
    let named: Vec<String> = others.iter().take(NAMED_MAX).map(Seq::to_string).collect();
    let more = match others.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("; taken back with it: {}{more}", named.join(", "))
}

/// Answers a CANCEL in its own place in the conversation: it is behind what it takes back, whose turn has answered it if it
/// was still there.
pub async fn answer_cancel(world: &World, agent: &Agent, cancel: &Delivery) -> Outcome {
    let turn = turn_id(world.clock.now(), cancel, 1);
    let words = "there is nothing to take back: it was answered or given up before, or never came".to_owned();
    match tell(world, agent, cancel, turn, Performative::Failure, words).await {
        Ok(()) => Outcome::Finished,
        Err(error) => Outcome::Stuck(error),
    }
}

/// Sends the answer to a CANCEL, once: the first one counts.
async fn tell(
    world: &World,
    agent: &Agent,
    cancel: &Delivery,
    turn: TurnId,
    performative: Performative,
    words: String,
) -> Result<(), PortError> {
    let outgoing = OutgoingReply {
        id: cancel_reply_id(&cancel.agent, cancel.seq),
        agent: cancel.agent.clone(),
        workspace: agent.spec.workspace.clone(),
        answers: Arc::clone(&cancel.message),
        answers_seq: cancel.seq,
        turn,
        reply: Reply { performative, content: Content::Text(words) },
    };
    match world.replies.send(outgoing).await {
        Ok(()) => Ok(()),
        Err(ReplyError::Refused(reason)) => {
            tracing::info!(agent = %cancel.agent, cancel = %cancel.seq, reason, "a CANCEL cannot be answered");
            Ok(())
        }
        Err(ReplyError::Unavailable(error)) => Err(error),
    }
}
