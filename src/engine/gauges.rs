//! What the engine holds now, as metrics, and how long its model takes.

use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use caxton_events::{Clock as _, Seq};
use caxton_projections::embedding::{EmbedError, Embedder, ModelIdentity};
use caxton_projections::view::Part;
use crossbeam_channel::Sender;

use super::searches::SearchStats;
use super::{Engine, SystemClock};
use crate::telemetry::{self, TalkMeasured};

impl Engine {
    /// Brings the gauges up to date; meant to be called when they are about to be read.
    pub fn gauge(&self) {
        let inner = &self.inner;
        let graph = inner.view.graph();
        if let Ok(stats) = graph.stats(None) {
            telemetry::memory_counted(stats.entities, stats.relations);
        }
        telemetry::sqlite_measured(graph.file_bytes());
        telemetry::words_measured(graph.words_bytes());
        telemetry::sqlite_connections_open(inner.sqlite_connections);
        if let Ok(stats) = inner.log.stats() {
            telemetry::log_opened(stats.events);
            telemetry::log_measured(stats.file_bytes);
            let parts = [Some(Part::Graph), Some(Part::Talk), inner.view.semantic().map(|_| Part::Vectors)];
            for part in parts.into_iter().flatten() {
                let seq = inner.view.positions().get(part).seq;
                telemetry::projection_lagged(part.name(), stats.events.saturating_sub(seq.0));
            }
        }
        if let Some(semantic) = inner.view.semantic() {
            let stats = semantic.embedding.stats();
            telemetry::embedding_cut_ahead(stats.cut_ahead);
            let cache = stats.cache;
            let all = cache.hits + cache.misses;
            telemetry::embedding_cache_counted(cache.entries, cache.hits, all);
        }
        let (known, asked) = self.known_questions();
        let SearchStats { hits, bytes, .. } = self.search_stats();
        telemetry::search_cache_counted((known, asked), hits, bytes);
        telemetry::writes_pending(self.pending());
        self.watch();
        self.gauge_talk();
    }

    fn gauge_talk(&self) {
        let requests = self.inner.requests.read().unwrap_or_else(PoisonError::into_inner);
        let requests_waiting = requests.as_ref().map_or(0, Sender::len);
        drop(requests);
        let mut oldest: Option<Seq> = None;
        let mut now = {
            let state = self.view().talk().read();
            let (registry, conversations) = (&state.registry, &state.conversations);
            let (config_agents, external_agents) = registry.count();
            let mut now = TalkMeasured {
                requests_waiting,
                conversations_open: conversations.open(),
                conversations: conversations.len(),
                dead_letters: conversations.dead_letters().len(),
                config_agents,
                external_agents,
                ..TalkMeasured::default()
            };
            for inbox in conversations.inboxes().filter(|inbox| inbox.waiting() > 0) {
                now.inbox_waiting += inbox.waiting();
                now.inbox_waiting_max = now.inbox_waiting_max.max(inbox.waiting());
                let first = inbox.open_after(Seq::ZERO).next();
                oldest = oldest.into_iter().chain(first).min();
            }
            now
        };
        // The log is read when the state is free again.
        if let Some(record) = oldest.and_then(|seq| self.records(&[seq]).ok()?.pop()) {
            let micros = SystemClock.now().unix_micros().saturating_sub(record.recorded_at.unix_micros());
            now.inbox_lag = Duration::from_micros(micros);
        }
        telemetry::talk_measured(&now);
    }
}

fn timed(
    texts: &[&str],
    embed: impl FnOnce() -> Result<Vec<Vec<f32>>, EmbedError>,
) -> Result<Vec<Vec<f32>>, EmbedError> {
    let started = Instant::now();
    let vectors = embed()?;
    telemetry::embedding_finished(texts.len(), started.elapsed());
    Ok(vectors)
}

/// A model whose calls are timed.
pub struct Timed(pub Arc<dyn Embedder>);

impl Embedder for Timed {
    fn identity(&self) -> &ModelIdentity {
        self.0.identity()
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        timed(texts, || self.0.embed(texts))
    }

    fn cut(&self, texts: &[&str]) -> Option<Vec<Vec<u32>>> {
        self.0.cut(texts)
    }

    fn embed_cut(&self, texts: &[&str], tokens: Vec<Vec<u32>>) -> Result<Vec<Vec<f32>>, EmbedError> {
        timed(texts, || self.0.embed_cut(texts, tokens))
    }

    fn chunk(&self, text: &str) -> Vec<Range<usize>> {
        self.0.chunk(text)
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.0.count_tokens(text)
    }

    fn instructions(&self) -> &'static str {
        self.0.instructions()
    }
}
