//! What a turn does beside answering: limits of its conversation, and remembering what was said.

use caxton_events::TurnEvent;
use caxton_events::conversation::Content;
use serde_json::json;

use super::Turn;
use crate::agents::ports::PortError;
use crate::agents::reply::Reply;
use crate::failure;
use crate::toolbox::{ToolError, memory};

/// The number of the call that remembers what was said: no model's number looks like it.
const CALL: &str = "auto_store";
/// Longest text that is remembered of one message, in bytes.
const REMEMBERED_BYTES_MAX: usize = 8 << 10;

impl Turn<'_> {
    /// Why the agent has answered enough in this conversation, if it has. The conversation's idle time is seen to as well.
    pub(super) async fn one_too_many(&self) -> Result<Option<String>, PortError> {
        let (spec, conversation) = (&self.agent.spec, &self.delivery.message.conversation);
        if let Some(idle) = spec.limits.idle_timeout {
            self.world.replies.limit_idle(conversation, idle).await?;
        }
        let most = spec.limits.turns_max as usize;
        let said = self.world.sources.said_by(&spec.agent, conversation, most).await?;
        Ok((said >= most).then(|| {
            format!(
                "{} has sent {said} messages in conversation {conversation}, its limit (conversation.max_turns); open a \
                 new conversation",
                spec.agent
            )
        }))
    }

    /// Remembers question and answer, if the agent's file says so. A refusal is recorded and changes nothing else.
    pub(super) async fn keep_what_was_said(&mut self, reply: Option<&Reply>) -> Result<(), PortError> {
        let (spec, message) = (&self.agent.spec, &self.delivery.message);
        if !spec.memory.auto_store {
            return Ok(());
        }
        let said = |name: &str, content: &Content| format!("{name}: {}", shortened(content.as_str()));
        let mut observations = vec![said(message.sender.as_str(), &message.content)];
        observations.extend(reply.map(|reply| said(spec.agent.as_str(), &reply.content)));
        let arguments = json!({
            "operation": "store",
            "entity": format!("conversation {}", message.conversation),
            "entity_type": "conversation",
            "observations": observations,
        });
        let mut caller = self.caller();
        CALL.clone_into(&mut caller.call);
        caller.permissions.tools.push(memory::NAME.to_owned());
        let stored = self.world.tools.call(&caller, memory::NAME, &arguments.to_string()).await;
        match stored {
            Ok(_) => Ok(()),
            Err(ToolError::Refused(reason)) => {
                let (call, tool) = (CALL.to_owned(), memory::NAME.to_owned());
                self.note(TurnEvent::ToolRefused { turn: self.id, call, tool, reason }).await
            }
            Err(error) => {
                let error = failure::chain(&error);
                tracing::warn!(agent = %spec.agent, error, "what was said is not remembered");
                Ok(())
            }
        }
    }
}

fn shortened(text: &str) -> &str {
    if text.len() <= REMEMBERED_BYTES_MAX {
        return text;
    }
    let end = (0..=REMEMBERED_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}
