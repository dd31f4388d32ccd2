//! What erasing would take away, before anything is.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use caxton_events::log::{Filter, Holdings, ReadError, Reader, Swept};
use caxton_events::{
    AgentId, ConversationId, Event, Family, Kind, MemoryEvent, MemoryId, Record, Scope, Seq, Subject,
    SystemEvent, TurnId,
};
use caxton_projections::audit::terms::{reads, turn_named, turn_of};
use caxton_projections::graph;
use caxton_projections::talk::TalkState;

use crate::engine::Engine;

/// Conversations that a plan names as quoting what goes; all are counted.
const QUOTED_NAMED_MAX: usize = 100;

/// What is to be erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// What was remembered in a scope.
    Scope(Scope),
    /// What an agent remembered for itself, and every conversation it took part in.
    Agent(AgentId),
    /// A conversation, with the turns in which agents answered.
    Conversation(ConversationId),
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scope(scope) => write!(f, "scope {scope}"),
            Self::Agent(agent) => write!(f, "agent {agent}"),
            Self::Conversation(id) => write!(f, "conversation {id}"),
        }
    }
}

/// A subject that goes, and what it has in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Which.
    pub subject: Subject,
    /// Its events.
    pub holdings: Holdings,
}

/// Conversations in whose turns agents were shown what goes, or wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quoted {
    /// The first of them, in order.
    pub named: Vec<ConversationId>,
    /// How many there are.
    pub count: u64,
}

/// What would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What was asked for.
    pub asked: Asked,
    /// What goes, in order; subjects without an event are left out.
    pub subjects: Vec<Planned>,
    /// What an agent wrote to scopes that others share, which stays: scope and facts of the present.
    pub stays: Vec<(String, u64)>,
    /// Conversations that stay although the records of their turns say what facts of a scope say which goes: prompts, answers of
    /// models, results of tools. When the scope is erased, nothing tells any more which they are.
    pub quoted: Quoted,
}

/// Why nothing can be erased.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Nothing was ever recorded about it.
    #[error("there is nothing to erase: nothing was ever recorded of the {asked}")]
    Unknown {
        /// What was asked for.
        asked: String,
    },
    /// Everything of it was erased before.
    #[error(
        "there is nothing to erase: everything of the {asked} was erased before, by the order at {order}"
    )]
    Gone {
        /// What was asked for.
        asked: String,
        /// The last order.
        order: Seq,
    },
    /// Some of it lies as it was written in sealed files, which other directories may share.
    #[error(
        "{events} events of the {asked} were recorded without encryption and lie in {files} sealed files that forks may \
         share; stop the server, run caxton log detach, and erase then"
    )]
    Shared {
        /// What was asked for.
        asked: String,
        /// How many.
        events: u64,
        /// Sealed files of the log.
        files: usize,
    },
    /// The oldest events were dropped: what they led to lies in the base beside the log, out of which nothing can be cut.
    #[error(
        "the events of the log before {first} were dropped, and what they led to is kept as a whole in base/; erasing from it \
         is not possible: export what is to stay and import it into an empty directory"
    )]
    Trimmed {
        /// The first event that the log has.
        first: Seq,
    },
    /// The log could not be read.
    #[error("could not read the log")]
    Read(#[from] ReadError),
    /// The graph could not be read.
    #[error("could not read the graph")]
    Graph(#[from] graph::ReadError),
}

/// Makes the plan.
pub(super) fn plan(engine: &Engine, asked: &Asked) -> Result<Plan, PlanError> {
    // Before anything is said about what the log has: it may have lost just that.
    let dropped = engine.log().origin().map_err(ReadError::from)?.before_first().seq;
    if dropped > Seq::ZERO {
        return Err(PlanError::Trimmed { first: dropped.next() });
    }
    let mut subjects: BTreeSet<Subject> = BTreeSet::new();
    let mut stays = Vec::new();
    match asked {
        Asked::Scope(scope) => drop(subjects.insert(Subject::Scope(scope.clone()))),
        Asked::Conversation(id) => {
            subjects.insert(Subject::Conversation(id.clone()));
            subjects.extend(misnamed(&engine.view().talk().read(), id));
        }
        Asked::Agent(agent) => {
            let own = Scope::Agent(agent.clone());
            let state = engine.view().talk().read();
            for row in state.conversations.iter().filter(|row| row.participants.contains(agent)) {
                subjects.insert(Subject::Conversation(row.id.clone()));
                subjects.extend(misnamed(&state, &row.id));
            }
            drop(state);
            stays = engine.view().graph().written_elsewhere(agent, &own)?;
            subjects.insert(Subject::Scope(own));
        }
    }
    let wanted: Vec<Subject> = subjects.into_iter().collect();
    let holdings = engine.log().holdings(&wanted)?;
    let subjects: Vec<Planned> = holdings
        .into_iter()
        .filter(|(_, holdings)| *holdings != Holdings::default())
        .map(|(subject, holdings)| Planned { subject, holdings })
        .collect();
    let plan = Plan { asked: asked.clone(), subjects, stays, quoted: Quoted::default() };
    if plan.events() > 0 {
        return match asked {
            Asked::Scope(scope) => Ok(Plan { quoted: quoted(engine.log(), scope)?, ..plan }),
            // What an agent alone sees, it sees in conversations that go as well.
            Asked::Agent(_) | Asked::Conversation(_) => Ok(plan),
        };
    }
    match erased_before(engine, &wanted)? {
        Some(order) => Err(PlanError::Gone { asked: asked.to_string(), order }),
        None => Err(PlanError::Unknown { asked: asked.to_string() }),
    }
}

/// The subject that dead letters and retries of a turn have which earlier versions recorded in the stream of turns: the name of
/// that stream is taken for a conversation's. None where there is a conversation of this name, from whose facts they cannot be
/// told apart, and where no conversation can have so long a name.
fn misnamed(state: &TalkState, id: &ConversationId) -> Option<Subject> {
    let name: ConversationId = Subject::Conversation(id.clone()).to_string().parse().ok()?;
    state.conversations.get(&name).is_none().then_some(Subject::Conversation(name))
}

/// Conversations in whose turns agents were shown rows of this scope, or wrote them. Reads what was remembered in it, and where
/// turns begin and are shown something.
fn quoted(log: &Reader, scope: &Scope) -> Result<Quoted, ReadError> {
    let (mut rows, mut turns): (HashSet<MemoryId>, HashSet<TurnId>) = (HashSet::new(), HashSet::new());
    let (kinds, stream) = (Some(Family::kinds(&[Family::Memory])), Some(scope.to_string()));
    each(log, &Filter { kinds, stream, ..Filter::default() }, &mut |record| {
        turns.extend(record.correlation.as_deref().and_then(turn_named));
        if let Event::Memory(event) = &record.event {
            rows.extend(row(event));
        }
    })?;
    let mut found: BTreeSet<ConversationId> = BTreeSet::new();
    let kinds = Some(vec![Kind::TurnStarted, Kind::ContextPrepared, Kind::ToolAnswered]);
    each(log, &Filter { kinds, ..Filter::default() }, &mut |record| {
        if let Event::Turn(event) = &record.event
            && (turns.contains(&turn_of(event)) || reads(event).iter().any(|id| rows.contains(id)))
            && let Some(Subject::Conversation(id)) = Subject::of(record.event.kind(), &record.stream)
        {
            found.insert(id);
        }
    })?;
    let count = found.len() as u64;
    Ok(Quoted { named: found.into_iter().take(QUOTED_NAMED_MAX).collect(), count })
}

/// Calls `each` for every record that matches and can be read: what cannot be read is shown to nobody.
fn each(log: &Reader, filter: &Filter, each: &mut dyn FnMut(&Record)) -> Result<(), ReadError> {
    let mut sweep = log.sweep(Seq::FIRST, filter, false)?;
    while let Some(swept) = sweep.advance()? {
        if let Swept::Record(record) = swept {
            each(&record);
        }
    }
    Ok(())
}

/// The row that a fact of the memory is about.
fn row(event: &MemoryEvent) -> Option<MemoryId> {
    match event {
        MemoryEvent::EntityCreated { id, .. }
        | MemoryEvent::EntityUpdated { id, .. }
        | MemoryEvent::EntityRemoved { id }
        | MemoryEvent::EntityRestored { id, .. }
        | MemoryEvent::ObservationAdded { id, .. }
        | MemoryEvent::ObservationUpdated { id, .. }
        | MemoryEvent::ObservationRemoved { id, .. }
        | MemoryEvent::ObservationRestored { id, .. }
        | MemoryEvent::RelationCreated { id, .. }
        | MemoryEvent::RelationUpdated { id, .. }
        | MemoryEvent::RelationRemoved { id }
        | MemoryEvent::RelationRestored { id, .. } => Some(*id),
        MemoryEvent::Undone { .. } => None,
    }
}

/// The last order that erased one of these.
fn erased_before(engine: &Engine, subjects: &[Subject]) -> Result<Option<Seq>, ReadError> {
    let log = engine.log();
    let filter = Filter { kinds: Some(vec![Kind::ErasureOrdered]), ..Filter::default() };
    for record in log.scan_back(log.head().seq, &filter) {
        let record = record?;
        if let Event::System(SystemEvent::ErasureOrdered { subjects: erased, .. }) = &record.event
            && subjects.iter().any(|subject| erased.contains(subject))
        {
            return Ok(Some(record.seq));
        }
    }
    Ok(None)
}

impl Plan {
    /// Events that could not be read any more.
    pub fn events(&self) -> u64 {
        self.subjects.iter().map(|planned| planned.holdings.readable()).sum()
    }

    /// Of these, events that lie in the log as they were written: the log is written anew without their content.
    pub fn plain(&self) -> u64 {
        self.subjects.iter().map(|planned| planned.holdings.plain).sum()
    }

    /// Whether it can be done.
    ///
    /// # Errors
    ///
    /// [`PlanError::Shared`] if something can be taken out only by writing files anew that others may share.
    pub(super) fn check(&self, engine: &Engine) -> Result<(), PlanError> {
        let files = engine.log().sealed_files()?;
        if self.plain() == 0 || files == 0 {
            return Ok(());
        }
        Err(PlanError::Shared { asked: self.asked.to_string(), events: self.plain(), files })
    }

    /// Stands for this plan: another one has another token.
    pub fn token(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.asked.to_string().as_bytes());
        for Planned { subject, holdings } in &self.subjects {
            hasher.update(format!("\n{subject} {}", holdings.readable()).as_bytes());
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }
}
