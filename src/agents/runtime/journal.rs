//! Turns in the log. What is recorded of messages that are not done with is kept in memory as well, so that going on with
//! a turn reads nothing.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};

use caxton_events::log::{AppendError, Filter};
use caxton_events::{AgentId, Draft, Event, Family, Seq, TurnEvent, TurnId};
use futures::future::BoxFuture;

use super::mail::is_open;
use crate::agents::ports::{PortError, TooLarge, TurnLog};
use crate::agents::turn::turn_of;
use crate::engine::{Engine, TalkError};
use crate::failure;

type Key = (AgentId, Seq);

/// Turns in the log of an engine.
pub(super) struct Journal {
    engine: Engine,
    unfinished: Mutex<Unfinished>,
}

#[derive(Default)]
struct Unfinished {
    events: HashMap<Key, Vec<TurnEvent>>,
    of_turn: HashMap<TurnId, Key>,
    /// Messages of whose turns it is not known whether something was recorded.
    doubtful: HashSet<Key>,
}

impl Unfinished {
    fn note(&mut self, event: &TurnEvent, wanted: impl Fn(&Key) -> bool) {
        if let TurnEvent::Started { turn, agent, message, .. } = event {
            let key = (agent.clone(), *message);
            if wanted(&key) {
                self.of_turn.insert(*turn, key);
            }
        }
        if let Some(key) = self.of_turn.get(&turn_of(event)) {
            self.events.entry(key.clone()).or_default().push(event.clone());
        }
    }

    fn forget(&mut self, key: &Key) {
        self.doubtful.remove(key);
        for event in self.events.remove(key).unwrap_or_default() {
            self.of_turn.remove(&turn_of(&event));
        }
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("unfinished", &self.unfinished().events.len()).finish_non_exhaustive()
    }
}

impl Journal {
    /// A journal that knows nothing yet.
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, unfinished: Mutex::default() }
    }

    /// Reads what is recorded of messages that their agents are not done with, before the first turn. Blocks.
    ///
    /// # Errors
    ///
    /// [`TalkError::Read`].
    pub(super) fn read_unfinished(&self) -> Result<(), TalkError> {
        let oldest = {
            let talk = self.engine.view().talk().read();
            let by_file = talk.registry.agents().into_iter().filter(|agent| !agent.versions.is_empty());
            by_file
                .filter_map(|agent| talk.conversations.inbox(&agent.name)?.open_after(Seq::ZERO).next())
                .min()
        };
        if let Some(oldest) = oldest {
            let mut unfinished = Unfinished::default();
            self.scan(oldest, &mut unfinished, |(agent, seq)| {
                let talk = self.engine.view().talk().read();
                is_open(&talk, agent, *seq)
            })?;
            *self.unfinished() = unfinished;
        }
        Ok(())
    }

    fn scan(
        &self,
        from: Seq,
        found: &mut Unfinished,
        wanted: impl Fn(&Key) -> bool,
    ) -> Result<(), TalkError> {
        let filter = Filter { kinds: Some(Family::kinds(&[Family::Turn])), ..Filter::default() };
        for record in self.engine.log().scan(from, &filter) {
            if let Event::Turn(event) = &record.map_err(TalkError::Read)?.event {
                found.note(event, &wanted);
            }
        }
        Ok(())
    }

    fn unfinished(&self) -> MutexGuard<'_, Unfinished> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent is done with the message.
    pub(super) fn forget(&self, agent: &AgentId, seq: Seq) {
        self.unfinished().forget(&(agent.clone(), seq));
    }

    /// Forgets what is recorded of messages that are not open: they were erased, or are done with.
    pub(super) fn forget_closed(&self) {
        let talk = self.engine.view().talk().read();
        let mut unfinished = self.unfinished();
        let closed: Vec<Key> =
            unfinished.events.keys().filter(|(agent, seq)| !is_open(&talk, agent, *seq)).cloned().collect();
        for key in &closed {
            unfinished.forget(key);
        }
    }

    /// Finds out what is recorded of a message where that is not known. Blocks.
    fn find_out(&self, key: &Key) -> Result<(), TalkError> {
        let mut found = Unfinished::default();
        self.scan(key.1, &mut found, |other| other == key)?;
        let mut unfinished = self.unfinished();
        unfinished.forget(key);
        unfinished.events.extend(found.events);
        unfinished.of_turn.extend(found.of_turn);
        Ok(())
    }

    /// Whether it is not known if something was recorded of the message's turn.
    pub(super) fn is_doubtful(&self, key: &Key) -> bool {
        self.unfinished().doubtful.contains(key)
    }
}

fn not_recorded(source: Box<dyn Error + Send + Sync>) -> PortError {
    PortError { tried: "could not record an event of a turn", source }
}

impl TurnLog for std::sync::Arc<Journal> {
    fn record(&self, drafts: Vec<Draft>) -> BoxFuture<'_, Result<Vec<Seq>, PortError>> {
        Box::pin(async move {
            let events: Vec<TurnEvent> = drafts
                .iter()
                .filter_map(|draft| match &draft.event {
                    Event::Turn(event) => Some(event.clone()),
                    Event::Memory(_) | Event::Conversation(_) | Event::Agent(_) | Event::System(_) => None,
                })
                .collect();
            let recorded = self.engine.record_async(drafts).await;
            let mut unfinished = self.unfinished();
            match recorded {
                Ok(seqs) => {
                    for event in &events {
                        unfinished.note(event, |_| true);
                    }
                    Ok(seqs)
                }
                Err(TalkError::Log(AppendError::TooLarge { bytes, .. })) => {
                    Err(not_recorded(TooLarge { bytes }.into()))
                }
                Err(error) => {
                    // Of what is refused because it is being erased nothing was written.
                    if let TalkError::Log(source) = &error
                        && !matches!(source, AppendError::BeingErased { .. })
                    {
                        let unknown = events.iter().filter_map(|event| {
                            if let TurnEvent::Started { agent, message, .. } = event {
                                return Some((agent.clone(), *message));
                            }
                            unfinished.of_turn.get(&turn_of(event)).cloned()
                        });
                        let unknown: Vec<Key> = unknown.collect();
                        unfinished.doubtful.extend(unknown);
                    }
                    Err(not_recorded(error.into()))
                }
            }
        })
    }

    fn is_open(&self, agent: &AgentId, message: Seq) -> bool {
        is_open(&self.engine.view().talk().read(), agent, message)
    }

    fn recorded<'a>(
        &'a self,
        agent: &'a AgentId,
        message: Seq,
    ) -> BoxFuture<'a, Result<Vec<TurnEvent>, PortError>> {
        Box::pin(async move {
            let key = (agent.clone(), message);
            if self.is_doubtful(&key) {
                let (journal, doubtful) = (std::sync::Arc::clone(self), key.clone());
                let found = tokio::task::spawn_blocking(move || journal.find_out(&doubtful)).await;
                let found = found.unwrap_or(Err(TalkError::Stopped));
                found.map_err(|error| {
                    tracing::warn!(error = failure::chain(&error), "a turn could not be read");
                    PortError { tried: "could not read what is recorded of a turn", source: Box::new(error) }
                })?;
            }
            Ok(self.unfinished().events.get(&key).cloned().unwrap_or_default())
        })
    }
}
