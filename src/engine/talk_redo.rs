//! Groups that the log refused: the request that is to blame is refused alone, and what was decided on top of it is looked
//! at again.
//!
//! Everything in front of the group is folded by then, so that the state is all there is to know.

use std::collections::{HashMap, HashSet};

use caxton_events::conversation::ConversationEvent;
use caxton_events::log::{AppendError, Appended, Ticket};
use caxton_events::{AgentEvent, AgentId, ConversationId, Draft, Event, Subject};
use caxton_projections::talk::TalkState;

use super::message_router::{Place, Waiting};
use super::talk::TalkError;
use super::talk_fold::{TalkFold, answer};
use crate::commands::{Refusal, RefusalCode};
use crate::failure;

/// Agents that requests of a series were to make known and did not: others of it took them for known.
#[derive(Default)]
pub(super) struct Lost {
    series: u64,
    introductions: HashMap<AgentId, Draft>,
}

impl Lost {
    /// A group of this series begins. What is decided after a series was broken takes nobody for known who is not.
    pub(super) fn enter(&mut self, series: u64) {
        if self.series != series {
            self.series = series;
            self.introductions.clear();
        }
    }

    fn note(&mut self, drafts: &[Draft]) {
        for draft in drafts {
            if let Event::Agent(AgentEvent::ExternalRegistered { agent, .. }) = &draft.event {
                self.introductions.insert(agent.clone(), draft.clone());
            }
        }
    }
}

/// Requests that are to be one batch.
#[derive(Default)]
struct Stretch {
    drafts: Vec<Draft>,
    asked: Vec<Asked>,
}

/// One of them.
struct Asked {
    /// How many of the drafts are its.
    drafts: usize,
    /// Places count from the first of them. `None`: nobody asked, time has brought it about.
    waiting: Option<Waiting>,
}

impl Stretch {
    fn of(drafts: Vec<Draft>, waiting: Vec<Waiting>) -> Self {
        if waiting.is_empty() {
            let asked = drafts.iter().map(|_| Asked { drafts: 1, waiting: None }).collect();
            return Self { drafts, asked };
        }
        let mut ends: Vec<usize> = waiting.iter().skip(1).map(Waiting::begins).collect();
        ends.push(drafts.len());
        let asked = waiting.into_iter().zip(ends).map(|(waiting, end)| Asked {
            drafts: end.saturating_sub(waiting.begins()),
            waiting: Some(waiting.apart()),
        });
        Self { asked: asked.collect(), drafts }
    }

    /// Two with half of the requests each.
    fn halves(mut self) -> [Self; 2] {
        let asked = self.asked.split_off(self.asked.len() / 2);
        let first: usize = self.asked.iter().map(|asked| asked.drafts).sum();
        let drafts = self.drafts.split_off(first);
        [self, Self { drafts, asked }]
    }
}

impl TalkFold {
    /// Records what can be recorded of a batch that the log refused, and tells the others why theirs is not.
    pub(super) fn refused(
        &mut self,
        (drafts, waiting): (Vec<Draft>, Vec<Waiting>),
        error: &AppendError,
        mark: u64,
    ) {
        let stretch = Stretch::of(drafts, waiting);
        if matches!(error, AppendError::SeriesBroken) {
            self.redo(stretch, mark);
        } else {
            self.part(stretch, error, mark);
        }
    }

    /// Hands what still stands of these requests to the log once more.
    fn redo(&mut self, stretch: Stretch, mark: u64) {
        let (mut drafts, mut stretch) = self.standing(stretch);
        let introduced = drafts.len();
        drafts.append(&mut stretch.drafts);
        if drafts.is_empty() {
            for waiting in stretch.asked.into_iter().filter_map(|asked| asked.waiting) {
                answer(waiting, &mut []);
            }
            return;
        }
        let submitted = self.writer.submit_drafts(&drafts, None);
        match submitted.map_err(AppendError::from).and_then(outcome) {
            Ok(appended) => {
                let mut records = self.placed(drafts, &appended, mark);
                let mut rest = &mut records[introduced..];
                for asked in stretch.asked {
                    let own = rest.split_off_mut(..asked.drafts).unwrap_or_default();
                    if let Some(waiting) = asked.waiting {
                        answer(waiting, own);
                    }
                }
            }
            Err(error) => {
                stretch.drafts = drafts.split_off(introduced);
                self.part(stretch, &error, mark);
            }
        }
    }

    /// Parts the requests of a refused batch, down to those that are to blame.
    fn part(&mut self, stretch: Stretch, error: &AppendError, mark: u64) {
        let is_closed = matches!(error, AppendError::Io { .. } | AppendError::Closed(_));
        if stretch.asked.len() > 1 && !is_closed {
            for half in stretch.halves() {
                self.redo(half, mark);
            }
            return;
        }
        self.lost.note(&stretch.drafts);
        for asked in stretch.asked {
            if let Some(waiting) = asked.waiting {
                waiting.fail(error);
            } else if !is_closed {
                let error = failure::chain(error);
                tracing::warn!(%error, "could not record what time has brought about; it is tried again");
            }
        }
    }

    /// What still stands of requests that were decided on what is not there now, and the agents that have to become known
    /// in front of it. The others are refused.
    fn standing(&mut self, stretch: Stretch) -> (Vec<Draft>, Stretch) {
        let reader = self.talk.reader();
        let state = reader.read();
        let mut standing = Stretch::default();
        let mut introductions = Vec::new();
        let mut introduced: HashSet<AgentId> = HashSet::new();
        let mut opened: HashSet<ConversationId> = HashSet::new();
        let mut drafts = stretch.drafts.into_iter();
        for asked in stretch.asked {
            let own: Vec<Draft> = drafts.by_ref().take(asked.drafts).collect();
            if let Some((at, missing)) = missing(&state, &opened, &own) {
                self.lost.note(&own);
                if let Some(waiting) = asked.waiting {
                    waiting.refuse(at, &missing);
                }
                continue;
            }
            opened.extend(own.iter().filter_map(opens));
            for agent in own.iter().flat_map(|draft| takes_for_known(&draft.event)) {
                if !state.registry.is_known(agent)
                    && let Some(introduction) = self.lost.introductions.get(agent)
                    && introduced.insert(agent.clone())
                {
                    introductions.push(introduction.clone());
                }
            }
            standing.drafts.extend(own);
            standing.asked.push(asked);
        }
        (introductions, standing)
    }
}

impl Waiting {
    /// The first of its part's drafts that is its.
    fn begins(&self) -> usize {
        match self {
            Self::Send { from, .. } => *from,
            Self::Upkeep(range, _) => range.start,
            Self::Record(..) => 0,
        }
    }

    /// The same with places that count from there.
    fn apart(self) -> Self {
        let begins = self.begins();
        let moved = |place: Place| match place {
            Place::Draft(at) => Place::Draft(at - begins),
            Place::Known(outcome) => Place::Known(outcome),
        };
        match self {
            Self::Send { results, answer, .. } => {
                let results = results.into_iter().map(|result| result.map(moved)).collect();
                Self::Send { from: 0, results, answer }
            }
            Self::Upkeep(range, answer) => Self::Upkeep(0..range.len(), answer),
            Self::Record(count, answer) => Self::Record(count, answer),
        }
    }

    /// Tells that the conversation which its draft at `at` needs is not there.
    fn refuse(self, at: usize, conversation: &ConversationId) {
        let index = match &self {
            Self::Send { results, .. } => {
                let is_of = |result: &Result<Place, Refusal>| matches!(result, Ok(Place::Draft(place)) if *place >= at);
                results.iter().position(is_of).unwrap_or(0)
            }
            Self::Upkeep(..) | Self::Record(..) => 0,
        };
        self.tell(TalkError::Refused(vec![Refusal {
            code: RefusalCode::ConversationNotFound,
            index,
            field: "conversation_id".to_owned(),
            message: format!("there is no conversation {conversation}"),
            remedy: "open it first: what was to open it was refused, or it was erased meanwhile".to_owned(),
        }]));
    }
}

/// Waits for the place of a batch that was submitted alone.
pub(super) fn outcome(ticket: Ticket) -> Result<Appended, AppendError> {
    ticket.wait().map_err(AppendError::from).and_then(|mut results| results.remove(0))
}

/// The first draft of a request that needs a conversation which is not there, and that.
fn missing(
    state: &TalkState,
    opened: &HashSet<ConversationId>,
    drafts: &[Draft],
) -> Option<(usize, ConversationId)> {
    let mut own: HashSet<ConversationId> = HashSet::new();
    for (at, draft) in drafts.iter().enumerate() {
        let Some(Subject::Conversation(id)) = Subject::of(draft.event.kind(), &draft.stream) else {
            continue;
        };
        let needed = if let Event::Conversation(ConversationEvent::Opened { parent, .. }) = &draft.event {
            own.insert(id);
            parent.clone()
        } else {
            Some(id)
        };
        let is_there = |id: &ConversationId| {
            state.conversations.get(id).is_some() || opened.contains(id) || own.contains(id)
        };
        if let Some(id) = needed.filter(|id| !is_there(id)) {
            return Some((at, id));
        }
    }
    None
}

/// The conversation that a draft opens.
fn opens(draft: &Draft) -> Option<ConversationId> {
    let Event::Conversation(ConversationEvent::Opened { conversation, .. }) = &draft.event else {
        return None;
    };
    Some(conversation.clone())
}

/// The agents that an event takes for known.
fn takes_for_known(event: &Event) -> Vec<&AgentId> {
    if let Event::Conversation(ConversationEvent::MessageSent(message)) = event {
        return std::iter::once(&message.sender).chain(&message.receivers).collect();
    }
    if let Event::Conversation(ConversationEvent::InboxAcknowledged { agent, .. })
    | Event::Agent(
        AgentEvent::CapabilityRegistered { agent, .. } | AgentEvent::HealthChanged { agent, .. },
    ) = event
    {
        return vec![agent];
    }
    Vec::new()
}
