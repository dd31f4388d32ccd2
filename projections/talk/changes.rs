//! What must be stored since the last flush: rows by table and key, taken out of the state at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use caxton_events::{AgentId, ConversationId, MessageId, Seq};
use serde::Serialize;

use super::postings::Postings;
use crate::agents::Agent;
use crate::by_name::{ByName, NameSet};
use crate::conversations::{Conversation, Inbox};

/// Tables of one row a thing: a key and its state as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    Agents,
    Rejections,
    Registrations,
    Conversations,
    Inboxes,
    Timers,
    Retries,
    DeadLetters,
}

impl Table {
    pub(crate) const ALL: [Self; 8] = [
        Self::Agents,
        Self::Rejections,
        Self::Registrations,
        Self::Conversations,
        Self::Inboxes,
        Self::Timers,
        Self::Retries,
        Self::DeadLetters,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Rejections => "rejections",
            Self::Registrations => "registrations",
            Self::Conversations => "conversations",
            Self::Inboxes => "inboxes",
            Self::Timers => "timers",
            Self::Retries => "retries",
            Self::DeadLetters => "dead_letters",
        }
    }
}

/// Lists of positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    Conversation,
    Inbox,
    /// What an agent sent.
    Sent,
    /// What was for a capability.
    Routed,
}

impl List {
    pub(crate) const ALL: [Self; 4] = [Self::Conversation, Self::Inbox, Self::Sent, Self::Routed];

    pub(crate) const fn table(self) -> &'static str {
        match self {
            Self::Conversation => "conversation_blocks",
            Self::Inbox => "inbox_blocks",
            Self::Sent => "sent_blocks",
            Self::Routed => "routed_blocks",
        }
    }
}

/// One packed block on its way to the file.
#[derive(Debug)]
pub(crate) struct BlockRow {
    pub(crate) list: List,
    pub(crate) owner: String,
    pub(crate) number: usize,
    pub(crate) first: Seq,
    pub(crate) last: Seq,
    pub(crate) count: u32,
    pub(crate) distances: Vec<u8>,
}

/// What changed since the last flush.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Everything stored before is void.
    pub(crate) reset: bool,
    /// `None`: the row is gone.
    pub(crate) rows: BTreeMap<(Table, String), Option<String>>,
    pub(crate) agents: NameSet<AgentId>,
    pub(crate) conversations: Vec<ConversationId>,
    pub(crate) inboxes: Vec<AgentId>,
    pub(crate) routed: NameSet<String>,
    /// Numbers of messages that their senders gave.
    pub(crate) ids: Arc<ByName<MessageId, Seq>>,
    pub(crate) blocks: Vec<BlockRow>,
}

/// What a flush takes out of the state at one moment. It is turned into rows when nobody waits for the state any more.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) changes: Changes,
    pub(crate) agents: Vec<Agent>,
    pub(crate) conversations: Vec<Conversation>,
    pub(crate) inboxes: Vec<Inbox>,
}

impl Taken {
    /// All of it as rows.
    pub(crate) fn rows(self) -> Changes {
        let Self { mut changes, agents, conversations, inboxes } = self;
        for row in &agents {
            changes.put(Table::Agents, row.name.as_str(), row);
        }
        for row in &conversations {
            changes.put(Table::Conversations, row.id.as_str(), row);
        }
        for row in &inboxes {
            changes.put(Table::Inboxes, row.agent.as_str(), row);
        }
        changes
    }
}

impl Changes {
    #[expect(
        clippy::expect_used,
        reason = "the rows are structs of texts, numbers and lists: no map has other keys"
    )]
    pub(crate) fn put(&mut self, table: Table, key: &str, row: &impl Serialize) {
        let row = serde_json::to_string(row).expect("a row is JSON");
        self.rows.insert((table, key.to_owned()), Some(row));
    }

    pub(crate) fn remove(&mut self, table: Table, key: &str) {
        self.rows.insert((table, key.to_owned()), None);
    }

    pub(crate) fn id(&mut self, id: MessageId, seq: Seq) {
        Arc::make_mut(&mut self.ids).insert(id, seq);
    }

    pub(crate) fn postings(&mut self, list: List, owner: &str, postings: &mut Postings) {
        for number in postings.unstored() {
            let block = postings.block(number);
            self.blocks.push(BlockRow {
                list,
                owner: owner.to_owned(),
                number,
                first: block.first,
                last: block.last,
                count: block.count,
                distances: block.distances.clone(),
            });
        }
    }
}
