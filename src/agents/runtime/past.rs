//! What was said before in conversations: the latest messages of those that were looked at last stay in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caxton_events::conversation::Message;
use caxton_events::{AgentId, ConversationId, Seq};

use crate::agents::context::Said;
use crate::engine::{Engine, TalkError};

/// Messages of one conversation that are kept.
const MESSAGES_MAX: usize = 64;
/// Contents that are kept, in bytes.
const BYTES_MAX: usize = 64 << 20;
/// Messages that are counted at a time.
const READ_MAX: usize = 512;
/// Counts that are kept.
const COUNTS_MAX: usize = 10_000;
/// For each message that is asked for, so many are looked at: not all are to or from the one who asks.
const LOOKED_AT: usize = 4;

/// Earlier messages.
pub(super) struct Past {
    engine: Engine,
    conversations_max: usize,
    kept: Mutex<Kept>,
    /// Messages of an agent in a conversation, counted up to a position.
    counts: Mutex<HashMap<(AgentId, ConversationId), (Seq, usize)>>,
}

#[derive(Default)]
struct Kept {
    conversations: HashMap<ConversationId, Latest>,
    /// Conversations by their last use.
    by_use: BTreeMap<u64, ConversationId>,
    uses: u64,
    bytes: usize,
}

#[derive(Default)]
struct Latest {
    used: u64,
    messages: BTreeMap<Seq, Arc<Message>>,
}

impl std::fmt::Debug for Past {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Past").field("kept", &self.kept().conversations.len()).finish_non_exhaustive()
    }
}

impl Kept {
    fn touch(&mut self, conversation: &ConversationId) -> &mut Latest {
        self.uses += 1;
        let latest = self.conversations.entry(conversation.clone()).or_default();
        self.by_use.remove(&latest.used);
        latest.used = self.uses;
        self.by_use.insert(self.uses, conversation.clone());
        latest
    }

    fn put(&mut self, seq: Seq, message: &Arc<Message>, conversations_max: usize) {
        let latest = self.touch(&message.conversation);
        if latest.messages.insert(seq, Arc::clone(message)).is_some() {
            return;
        }
        let oldest = (latest.messages.len() > MESSAGES_MAX).then(|| latest.messages.pop_first()).flatten();
        self.bytes += message.content.as_str().len();
        self.bytes -= oldest.map_or(0, |(_, message)| message.content.as_str().len());
        while self.conversations.len() > conversations_max || self.bytes > BYTES_MAX {
            let Some((_, conversation)) = self.by_use.pop_first() else { return };
            let gone = self.conversations.remove(&conversation).unwrap_or_default();
            self.bytes -= gone.messages.values().map(|message| message.content.as_str().len()).sum::<usize>();
        }
    }
}

impl Past {
    /// Nothing is kept yet; of at most so many conversations something will be.
    pub(super) fn new(engine: Engine, conversations_max: usize) -> Self {
        Self { engine, conversations_max, kept: Mutex::default(), counts: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a message that is at hand, if its conversation is one of those that are kept.
    pub(super) fn remember(&self, seq: Seq, message: &Arc<Message>) {
        if self.conversations_max > 0 {
            self.kept().put(seq, message, self.conversations_max);
        }
    }

    /// The last `depth` messages before `before` to or from `agent`, the oldest first.
    ///
    /// # Errors
    ///
    /// [`TalkError::Read`].
    pub(super) async fn of(
        &self,
        agent: &AgentId,
        conversation: &ConversationId,
        before: Seq,
        depth: usize,
    ) -> Result<Vec<Said>, TalkError> {
        let seqs = {
            let talk = self.engine.view().talk().read();
            let row = talk.conversations.get(conversation);
            row.map_or_else(Vec::new, |row| row.messages.before(before, depth.saturating_mul(LOOKED_AT)))
        };
        let mut found: BTreeMap<Seq, Arc<Message>> = {
            let mut kept = self.kept();
            if kept.conversations.contains_key(conversation) {
                let messages = &kept.touch(conversation).messages;
                seqs.iter().filter_map(|seq| Some((*seq, Arc::clone(messages.get(seq)?)))).collect()
            } else {
                BTreeMap::new()
            }
        };
        let visible = |message: &Message| message.sender == *agent || message.receivers.contains(agent);
        // What is kept is the latest: nothing is read when that is enough.
        let kept = seqs.iter().take_while(|seq| found.contains_key(*seq));
        let enough =
            kept.filter(|seq| found.get(*seq).is_some_and(|message| visible(message))).count() >= depth;
        if !enough {
            let mut missing: Vec<Seq> = seqs.iter().copied().filter(|seq| !found.contains_key(seq)).collect();
            missing.reverse();
            found.extend(self.read(missing).await?);
        }
        let mut said: Vec<Said> = found
            .iter()
            .rev()
            .filter(|(_, message)| visible(message))
            .take(depth)
            .map(|(seq, message)| Said {
                seq: *seq,
                sender: message.sender.to_string(),
                performative: message.performative,
                text: message.content.as_str().to_owned(),
            })
            .collect();
        said.reverse();
        Ok(said)
    }

    /// Messages of `agent` in a conversation; not counted further than `enough`.
    ///
    /// # Errors
    ///
    /// [`TalkError::Read`].
    pub(super) async fn said_by(
        &self,
        agent: &AgentId,
        conversation: &ConversationId,
        enough: usize,
    ) -> Result<usize, TalkError> {
        let key = (agent.clone(), conversation.clone());
        let (through, mut count) = self.counts().get(&key).copied().unwrap_or((Seq::ZERO, 0));
        let new: Vec<Seq> = {
            let talk = self.engine.view().talk().read();
            let Some(row) = talk.conversations.get(conversation) else { return Ok(0) };
            // Whoever said so much has so many messages in it.
            if (row.messages.len() as usize) < enough {
                return Ok(0);
            }
            row.messages.after(through).collect()
        };
        for chunk in new.chunks(READ_MAX) {
            if count >= enough {
                return Ok(count);
            }
            let (engine, seqs) = (self.engine.clone(), chunk.to_vec());
            let records = tokio::task::spawn_blocking(move || engine.records(&seqs)).await;
            let records = records.unwrap_or(Err(TalkError::Stopped))?;
            count += records.iter().filter(|record| record.actor == agent.as_str()).count();
            let mut counts = self.counts();
            if counts.len() >= COUNTS_MAX {
                counts.clear();
            }
            counts.insert(key.clone(), (chunk.last().copied().unwrap_or(through), count));
        }
        Ok(count)
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<(AgentId, ConversationId), (Seq, usize)>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads messages, and keeps them.
    async fn read(&self, seqs: Vec<Seq>) -> Result<Vec<(Seq, Arc<Message>)>, TalkError> {
        if seqs.is_empty() {
            return Ok(Vec::new());
        }
        let engine = self.engine.clone();
        let messages = tokio::task::spawn_blocking(move || engine.messages(&seqs)).await;
        let messages = messages.unwrap_or(Err(TalkError::Stopped))?;
        for (seq, message) in &messages {
            self.remember(*seq, message);
        }
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;
    use crate::agents::scripted::said_in;
    use caxton_events::conversation::Priority;

    #[test]
    fn what_was_said_is_kept_of_as_many_conversations_as_the_cache_holds() {
        for (conversations_max, kept) in [(1, vec!["c3"]), (2, vec!["c2", "c3"]), (9, vec!["c1", "c2", "c3"])]
        {
            let mut cache = Kept::default();
            for (seq, conversation) in (1..).zip(["c1", "c2", "c3"]) {
                let message = Arc::new(said_in(conversation, Priority::Normal, "hello"));
                cache.put(Seq(seq), &message, conversations_max);
            }
            let mut found: Vec<String> = cache.conversations.keys().map(ToString::to_string).collect();
            found.sort();
            assert_eq!(found, kept, "{conversations_max}");
            assert_eq!(cache.bytes, 5 * kept.len());
        }
    }
}
