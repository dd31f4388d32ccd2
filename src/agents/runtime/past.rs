//! What was said before in conversations: the latest messages of those that were looked at last stay in memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use caxton_events::conversation::Message;
use caxton_events::{AgentId, ConversationId, Seq};

use crate::agents::context::Said;
use crate::engine::{Engine, RECORDS_BYTES_MAX, TalkError};
use crate::telemetry;

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
    kept: Mutex<Kept>,
    /// Messages of an agent in a conversation, counted up to a position.
    counts: Mutex<HashMap<(AgentId, ConversationId), (Seq, usize)>>,
    /// Erasures so far: what was read before the last one is not kept.
    erasures: AtomicU64,
}

#[derive(Default)]
struct Kept {
    conversations_max: usize,
    conversations: HashMap<ConversationId, Latest>,
    /// Conversations by their last use.
    by_use: BTreeMap<u64, ConversationId>,
    uses: u64,
    bytes: usize,
    /// Of conversations that are not kept any more, for the next: their room, without a message.
    idle: Vec<Latest>,
    idle_max: usize,
}

#[derive(Default)]
struct Latest {
    used: u64,
    /// In the order of their positions.
    messages: VecDeque<(Seq, Arc<Message>)>,
}

impl Latest {
    fn message(&self, seq: Seq) -> Option<&Arc<Message>> {
        let at = self.messages.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
        self.messages.get(at).map(|(_, message)| message)
    }
}

impl std::fmt::Debug for Past {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Past").field("kept", &self.kept().conversations.len()).finish_non_exhaustive()
    }
}

impl Kept {
    fn touch(&mut self, conversation: &ConversationId) -> &mut Latest {
        self.uses += 1;
        let latest = self.conversations.entry(conversation.clone()).or_insert_with(|| {
            let idle = self.idle.pop();
            idle.inspect(|_| telemetry::conversation_object_reused()).unwrap_or_default()
        });
        self.by_use.remove(&latest.used);
        latest.used = self.uses;
        self.by_use.insert(self.uses, conversation.clone());
        latest
    }

    fn put(&mut self, seq: Seq, message: &Arc<Message>) {
        let latest = self.touch(&message.conversation);
        let Err(at) = latest.messages.binary_search_by_key(&seq, |(seq, _)| *seq) else { return };
        latest.messages.insert(at, (seq, Arc::clone(message)));
        let oldest = (latest.messages.len() > MESSAGES_MAX).then(|| latest.messages.pop_front()).flatten();
        self.bytes += message.content.as_str().len();
        self.bytes -= oldest.map_or(0, |(_, message)| message.content.as_str().len());
        while self.conversations.len() > self.conversations_max || self.bytes > BYTES_MAX {
            let Some((_, conversation)) = self.by_use.pop_first() else { return };
            let mut gone = self.conversations.remove(&conversation).unwrap_or_default();
            self.bytes -=
                gone.messages.drain(..).map(|(_, message)| message.content.as_str().len()).sum::<usize>();
            if self.idle.len() < self.idle_max {
                self.idle.push(gone);
            }
        }
    }
}

impl Past {
    /// Nothing is kept yet; of at most `conversations_max` conversations something will be, and the room of `idle_max` that
    /// are not kept any more waits for others.
    pub(super) fn new(engine: Engine, conversations_max: usize, idle_max: usize) -> Self {
        let kept = Kept { conversations_max, idle_max, ..Kept::default() };
        Self { engine, kept: Mutex::new(kept), counts: Mutex::default(), erasures: AtomicU64::new(0) }
    }

    /// Forgets everything, and what is being read: something of it was erased.
    pub(super) fn forget(&self) {
        // Counted first: who reads looks at the count under the lock that is taken next.
        self.erasures.fetch_add(1, Ordering::AcqRel);
        let mut kept = self.kept();
        let Kept { conversations_max, idle_max, .. } = *kept;
        *kept = Kept { conversations_max, idle_max, ..Kept::default() };
        drop(kept);
        self.counts().clear();
    }

    fn erasures(&self) -> u64 {
        self.erasures.load(Ordering::Acquire)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a message that is at hand, if its conversation is one of those that are kept.
    pub(super) fn remember(&self, seq: Seq, message: &Arc<Message>) {
        let mut kept = self.kept();
        if kept.conversations_max > 0 {
            kept.put(seq, message);
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
                let latest = kept.touch(conversation);
                seqs.iter().filter_map(|seq| Some((*seq, Arc::clone(latest.message(*seq)?)))).collect()
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
            let missing = seqs.iter().copied().filter(|seq| !found.contains_key(seq)).collect();
            self.complete(&mut found, missing).await?;
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
        let erasures = self.erasures();
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
        let mut rest = new.as_slice();
        while !rest.is_empty() && count < enough {
            let (engine, seqs) = (self.engine.clone(), rest[..rest.len().min(READ_MAX)].to_vec());
            let asked_for = seqs.last().copied();
            let records = tokio::task::spawn_blocking(move || engine.records(&seqs)).await;
            let records = records.unwrap_or(Err(TalkError::Stopped))?;
            count += records.iter().filter(|record| record.actor == agent.as_str()).count();
            // Of large messages fewer are read at a time.
            let through = records.last().map(|record| record.seq).or(asked_for).unwrap_or(through);
            rest = &rest[rest.partition_point(|seq| *seq <= through)..];
            let mut counts = self.counts();
            if counts.len() >= COUNTS_MAX {
                counts.clear();
            }
            if self.erasures() == erasures {
                counts.insert(key.clone(), (through, count));
            }
        }
        Ok(count)
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<(AgentId, ConversationId), (Seq, usize)>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the messages that are missing, the newest first, until they are as much as is read at a time; what lies before
    /// those is left out then, so that there is no gap.
    async fn complete(
        &self,
        found: &mut BTreeMap<Seq, Arc<Message>>,
        mut missing: Vec<Seq>,
    ) -> Result<(), TalkError> {
        let mut bytes = 0;
        while !missing.is_empty() {
            let came = self.read(missing.clone()).await?;
            // None of them is left: they were erased.
            let Some(oldest) = came.last().map(|(seq, _)| *seq) else { break };
            bytes += came.iter().map(|(_, message)| message.content.as_str().len() as u64).sum::<u64>();
            missing.retain(|seq| *seq < oldest);
            found.extend(came);
            if bytes >= RECORDS_BYTES_MAX && !missing.is_empty() {
                *found = found.split_off(&oldest);
                break;
            }
        }
        Ok(())
    }

    /// Reads messages, and keeps them.
    async fn read(&self, seqs: Vec<Seq>) -> Result<Vec<(Seq, Arc<Message>)>, TalkError> {
        if seqs.is_empty() {
            return Ok(Vec::new());
        }
        let (engine, erasures) = (self.engine.clone(), self.erasures());
        let messages = tokio::task::spawn_blocking(move || engine.messages(&seqs)).await;
        let messages = messages.unwrap_or(Err(TalkError::Stopped))?;
        let mut kept = self.kept();
        if self.erasures() == erasures && kept.conversations_max > 0 {
            for (seq, message) in &messages {
                kept.put(*seq, message);
            }
        }
        drop(kept);
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
            let mut cache = Kept { conversations_max, ..Kept::default() };
            for (seq, conversation) in (1..).zip(["c1", "c2", "c3"]) {
                let message = Arc::new(said_in(conversation, Priority::Normal, "hello"));
                cache.put(Seq(seq), &message);
            }
            let mut found: Vec<String> = cache.conversations.keys().map(ToString::to_string).collect();
            found.sort();
            assert_eq!(found, kept, "{conversations_max}");
            assert_eq!(cache.bytes, 5 * kept.len());
        }
    }

    #[test]
    fn the_room_of_conversations_that_are_not_kept_any_more_is_used_again() {
        for (idle_max, reused) in [(0, false), (1, true)] {
            let mut cache = Kept { conversations_max: 1, idle_max, ..Kept::default() };
            let put = |cache: &mut Kept, seq: u64, conversation: &str| {
                cache.put(Seq(seq), &Arc::new(said_in(conversation, Priority::Normal, "hello")));
            };
            for seq in 1..=20 {
                put(&mut cache, seq, "c1");
            }
            put(&mut cache, 21, "c2");
            assert_eq!(cache.idle.len(), idle_max);
            put(&mut cache, 23, "c3");
            put(&mut cache, 22, "c3");
            let (latest, found) = cache.conversations.iter().next().map(|(id, one)| (one, id)).unwrap();
            assert_eq!(found.to_string(), "c3");
            assert_eq!(latest.messages.capacity() >= 20, reused, "{}", latest.messages.capacity());
            let seqs: Vec<u64> = latest.messages.iter().map(|(seq, _)| seq.0).collect();
            assert_eq!((seqs, cache.bytes), (vec![22, 23], 10), "nothing of the others is in it");
            assert!(latest.message(Seq(22)).is_some() && latest.message(Seq(1)).is_none());
        }
    }
}
