//! Whose an event is: what can have a key of its own and be erased as one.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};

use crate::event::{Family, Kind};
use crate::id::{ConversationId, NameError};
use crate::scope::{Scope, ScopeError};

/// In front of a conversation's name, in texts and in the streams of turns.
const CONVERSATION: &str = "conversation:";

/// What the content of an event is about: a part of memory, or a conversation.
///
/// Its text form is that of a [`Scope`], or `conversation:ID`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Subject {
    /// What was remembered in a scope.
    Scope(Scope),
    /// What was said in a conversation, and the turns in which agents answered.
    Conversation(ConversationId),
}

impl Subject {
    /// The subject of an event of this kind in this stream. Facts about agents, inboxes and the server have none: they
    /// hold names and positions, no content.
    pub fn of(kind: Kind, stream: &str) -> Option<Self> {
        match kind.family() {
            Family::Memory => stream.parse().ok().map(Self::Scope),
            Family::Conversation if kind == Kind::InboxAcknowledged => None,
            Family::Conversation => stream.parse().ok().map(Self::Conversation),
            Family::Turn => stream.strip_prefix(CONVERSATION)?.parse().ok().map(Self::Conversation),
            Family::Agent | Family::System => None,
        }
    }

    /// The streams its events are in.
    pub fn streams(&self) -> Vec<String> {
        match self {
            Self::Scope(scope) => vec![scope.to_string()],
            Self::Conversation(id) => vec![id.as_str().to_owned(), format!("{CONVERSATION}{id}")],
        }
    }

    /// The scope, if it is one.
    pub const fn scope(&self) -> Option<&Scope> {
        match self {
            Self::Scope(scope) => Some(scope),
            Self::Conversation(_) => None,
        }
    }

    /// The conversation, if it is one.
    pub const fn conversation(&self) -> Option<&ConversationId> {
        match self {
            Self::Scope(_) => None,
            Self::Conversation(id) => Some(id),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scope(scope) => scope.fmt(f),
            Self::Conversation(id) => write!(f, "{CONVERSATION}{id}"),
        }
    }
}

/// Why a text names no subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Neither a scope nor a conversation.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The name of the conversation is not valid.
    #[error(transparent)]
    Conversation(#[from] NameError),
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        match text.strip_prefix(CONVERSATION) {
            Some(id) => Ok(Self::Conversation(id.parse()?)),
            None => Ok(Self::Scope(text.parse()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Subject;
    use crate::Kind;

    #[test]
    fn a_subject_reads_back_as_it_was_written() {
        for text in ["agent:ada", "workspace:lab", "global", "conversation:c-1"] {
            assert_eq!(text.parse::<Subject>().map(|subject| subject.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "ada", "conversation:", "agent:"] {
            assert!(text.parse::<Subject>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_event_belongs_to_its_scope_or_its_conversation_and_names_belong_to_nobody() {
        let cases = [
            (Kind::ObservationAdded, "agent:ada", Some("agent:ada")),
            (Kind::RelationCreated, "global", Some("global")),
            (Kind::MessageSent, "c-1", Some("conversation:c-1")),
            (Kind::MessageSent, "global", Some("conversation:global")),
            (Kind::ModelAnswered, "conversation:c-1", Some("conversation:c-1")),
            (Kind::ModelAnswered, "agents", None),
            (Kind::InboxAcknowledged, "inboxes", None),
            (Kind::AgentConfigLoaded, "agents", None),
            (Kind::ServerStopped, "system", None),
        ];
        for (kind, stream, subject) in cases {
            let found = Subject::of(kind, stream);
            assert_eq!(found.as_ref().map(ToString::to_string).as_deref(), subject, "{kind:?} {stream}");
            if let Some(found) = found {
                assert!(found.streams().contains(&stream.to_owned()), "{found}");
            }
        }
    }
}
