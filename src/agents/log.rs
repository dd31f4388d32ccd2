//! Where what happens to agents is kept: a trait, and a log in memory for tests and tools.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use caxton_events::agent::AgentEvent;
use caxton_events::{AgentId, Seq, Timestamp};

/// Why events of agents were not kept, or could not be read.
#[derive(Debug, thiserror::Error)]
#[error("could not {what} what happens to agents")]
pub struct LogError {
    /// `record` or `read`.
    pub what: &'static str,
    /// What the log said.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

/// The log, as far as agents of the directory need it.
pub trait AgentLog: Send + Sync + fmt::Debug {
    /// Appends `events`, all or none; they are durable when this returns. One position an event.
    ///
    /// # Errors
    ///
    /// [`LogError`]: nothing was kept, or the log is closed for good.
    fn record(&self, events: Vec<AgentEvent>) -> Result<Vec<Seq>, LogError>;

    /// Gives every event of agents to `each`, in order.
    ///
    /// # Errors
    ///
    /// [`LogError`] when the log cannot be read.
    fn replay(&self, each: &mut dyn FnMut(Seq, Timestamp, &AgentEvent)) -> Result<(), LogError>;

    /// The event at a position; `None` where there is none of agents.
    ///
    /// # Errors
    ///
    /// [`LogError`] when the log cannot be read.
    fn read(&self, seq: Seq) -> Result<Option<AgentEvent>, LogError>;

    /// Whether an agent outside the server has this name.
    fn is_external(&self, agent: &AgentId) -> bool;
}

/// A log that lasts as long as the process.
#[derive(Debug, Default)]
pub struct MemoryLog(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    events: Vec<AgentEvent>,
    refusals: VecDeque<&'static str>,
}

impl MemoryLog {
    /// Everything that was recorded.
    pub fn events(&self) -> Vec<AgentEvent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).events.clone()
    }

    /// Fails the next call of [`AgentLog::record`] with this message.
    pub fn fail_next(&self, message: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).refusals.push_back(message);
    }
}

impl AgentLog for MemoryLog {
    fn record(&self, events: Vec<AgentEvent>) -> Result<Vec<Seq>, LogError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(message) = kept.refusals.pop_front() {
            return Err(LogError { what: "record", source: message.into() });
        }
        let first = kept.events.len() as u64 + 1;
        let seqs = (first..first + events.len() as u64).map(Seq).collect();
        kept.events.extend(events);
        Ok(seqs)
    }

    fn replay(&self, each: &mut dyn FnMut(Seq, Timestamp, &AgentEvent)) -> Result<(), LogError> {
        for (index, event) in self.events().iter().enumerate() {
            each(Seq(index as u64 + 1), Timestamp::from_unix_micros(index as u64), event);
        }
        Ok(())
    }

    fn read(&self, seq: Seq) -> Result<Option<AgentEvent>, LogError> {
        let index = usize::try_from(seq.0).ok().and_then(|seq| seq.checked_sub(1));
        Ok(index.and_then(|index| self.events().get(index).cloned()))
    }

    fn is_external(&self, agent: &AgentId) -> bool {
        let is_it = |event: &AgentEvent| matches!(event, AgentEvent::ExternalRegistered { agent: name, .. } if name == agent);
        self.events().iter().any(is_it)
    }
}
