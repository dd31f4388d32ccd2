//! Answers that are kept for a while, found by everything that determines them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;

use super::clock::Clock;
use super::{Answer, Ask, LanguageModel, ModelError, Pieces, Role};
use crate::telemetry;

/// Bounds of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheOptions {
    /// Age of an answer at most.
    pub ttl: Duration,
    /// Answers kept at most; the one unused for longest goes first.
    pub entries_max: usize,
    /// Bytes of all answers at most.
    pub bytes_max: usize,
}

/// Kept answers, of one provider or of several: all of them together are within the bounds.
#[derive(Debug)]
pub struct Cache(Mutex<Kept>);

impl Cache {
    /// An empty one.
    pub fn new(options: CacheOptions) -> Self {
        Self(Mutex::new(Kept::new(options)))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A provider whose answers are kept.
///
/// An answer of a provider that stood in for this one is not kept: this one is asked again as soon as it is back.
#[derive(Debug)]
pub struct Cached {
    inner: Arc<dyn LanguageModel>,
    clock: Arc<dyn Clock>,
    cache: Arc<Cache>,
}

impl Cached {
    /// `inner`, with its answers kept in `cache`, where others may have theirs: who answers is part of what an answer is found by.
    pub fn new(inner: Arc<dyn LanguageModel>, cache: Arc<Cache>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, clock, cache }
    }
}

impl LanguageModel for Cached {
    fn forget(&self) {
        let mut kept = self.cache.kept();
        *kept = Kept { erasures: kept.erasures + 1, ..Kept::new(kept.options) };
    }

    fn provider(&self) -> &str {
        self.inner.provider()
    }

    fn ask<'a>(&'a self, ask: &'a Ask, pieces: Pieces<'a>) -> BoxFuture<'a, Result<Answer, ModelError>> {
        Box::pin(async move {
            if !ask.reuse {
                return self.inner.ask(ask, pieces).await;
            }
            let key = fingerprint(self.provider(), ask);
            let (found, erasures) = {
                let mut kept = self.cache.kept();
                (kept.get(&key, self.clock.now()), kept.erasures)
            };
            telemetry::model_cache_asked(found.is_some());
            if let Some(answer) = found {
                if !answer.text.is_empty() {
                    pieces(&answer.text);
                }
                return Ok(Answer { cached: true, ..answer });
            }
            let answer = self.inner.ask(ask, pieces).await?;
            if answer.provider == self.provider() {
                let mut kept = self.cache.kept();
                // What was made of something that was erased meanwhile is not kept.
                if kept.erasures == erasures {
                    kept.put(key, answer.clone(), self.clock.now());
                }
            }
            Ok(answer)
        })
    }
}

type Key = [u8; 32];

#[derive(Debug)]
struct Entry {
    answer: Answer,
    expires: Duration,
    used: u64,
    bytes: usize,
}

/// The answers, and the order in which they were used.
#[derive(Debug)]
struct Kept {
    options: CacheOptions,
    entries: HashMap<Key, Entry>,
    order: BTreeMap<u64, Key>,
    bytes: usize,
    uses: u64,
    erasures: u64,
}

impl Kept {
    fn new(options: CacheOptions) -> Self {
        Self { options, entries: HashMap::new(), order: BTreeMap::new(), bytes: 0, uses: 0, erasures: 0 }
    }

    fn get(&mut self, key: &Key, now: Duration) -> Option<Answer> {
        if self.entries.get(key)?.expires <= now {
            self.remove(key);
            return None;
        }
        let entry = self.entries.get_mut(key)?;
        self.order.remove(&entry.used);
        self.uses += 1;
        entry.used = self.uses;
        self.order.insert(entry.used, *key);
        Some(entry.answer.clone())
    }

    fn put(&mut self, key: Key, answer: Answer, now: Duration) {
        let bytes = size_of_answer(&answer);
        if bytes > self.options.bytes_max || self.options.entries_max == 0 {
            return;
        }
        self.remove(&key);
        while self.entries.len() >= self.options.entries_max || self.bytes + bytes > self.options.bytes_max {
            let Some(oldest) = self.order.first_key_value().map(|(_, key)| *key) else { break };
            self.remove(&oldest);
        }
        self.uses += 1;
        let expires = now.saturating_add(self.options.ttl);
        self.order.insert(self.uses, key);
        self.bytes += bytes;
        self.entries.insert(key, Entry { answer, expires, used: self.uses, bytes });
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
            self.bytes -= entry.bytes;
        }
    }
}

/// Bytes that an answer holds, with what keeping it takes.
fn size_of_answer(answer: &Answer) -> usize {
    let calls = answer.tool_calls.iter();
    let calls: usize = calls.map(|call| call.id.len() + call.tool.len() + call.arguments.len() + 72).sum();
    answer.text.len() + answer.model.len() + answer.provider.len() + calls + size_of::<Entry>() + 128
}

/// The hash of everything that determines an answer. Each part has its length before it, so that no two requests
/// can give the same bytes.
pub(super) fn fingerprint(provider: &str, ask: &Ask) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    let count = |count: usize| (count as u64).to_le_bytes();
    for text in [provider, &ask.model, &ask.system, &ask.question, &ask.performative] {
        part(text.as_bytes());
    }
    part(&count(ask.messages.len()));
    for message in &ask.messages {
        part(match message.role {
            Role::User => b"user",
            Role::Assistant => b"assistant",
            Role::Tool => b"tool",
        });
        part(message.content.as_bytes());
        part(&[u8::from(message.answers.is_some())]);
        part(message.answers.as_deref().unwrap_or_default().as_bytes());
        part(&count(message.tool_calls.len()));
        for call in &message.tool_calls {
            for text in [&call.id, &call.tool, &call.arguments] {
                part(text.as_bytes());
            }
        }
    }
    part(&count(ask.tools.len()));
    for tool in &ask.tools {
        part(tool.name.as_bytes());
        part(tool.description.as_bytes());
        part(tool.parameters.to_string().as_bytes());
    }
    part(&count(ask.facts.len()));
    for fact in &ask.facts {
        for text in [&fact.source, &fact.entity, &fact.text] {
            part(text.as_bytes());
        }
        part(&fact.score.to_bits().to_le_bytes());
    }
    let bits = |number: Option<u32>| {
        number.map_or([0; 5], |bits| {
            let [a, b, c, d] = bits.to_le_bytes();
            [1, a, b, c, d]
        })
    };
    part(&bits(ask.temperature.map(f32::to_bits)));
    part(&bits(ask.top_p.map(f32::to_bits)));
    part(&bits(ask.max_tokens));
    part(&bits(ask.frequency_penalty.map(f32::to_bits)));
    part(&bits(ask.presence_penalty.map(f32::to_bits)));
    *hasher.finalize().as_bytes()
}
