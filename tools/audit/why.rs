//! From a fact back to what led to it: the message, the turn that took it up, what the turn read, asked and was answered;
//! and one step forward, to what it led to.

use std::collections::HashSet;

use caxton_events::limits::UNDO_EVENTS_MAX;
use caxton_events::log::{Filter, Found, Gap, Reader, StoreError, Swept};
use caxton_events::{
    AgentEvent, ConversationEvent, Event, Kind, MemoryEvent, MemoryId, Record, Seq, TurnEvent, TurnId,
    agent::ConfigSource,
};
use caxton_projections::audit::terms::{reads, turn_named, turn_of};
use caxton_projections::audit::trail::More;
use caxton_projections::audit::{Postings, Question, Trail};

use super::format::Unread;
use super::subject::Subject;
use super::tree::{Cause, TurnShown, Why};
use crate::log::Line;

/// Steps of one search; what was not found by then counts as not there, and the answer says so.
const SEARCH_STEPS_MAX: u32 = 256;
/// Versions of a row that are explained, the newest ones.
const VERSIONS_MAX: usize = 10;
/// Events of a turn that are looked at.
const TURN_EVENTS_MAX: usize = 200;
/// Rows of the memory that are explained of what one turn read.
const READS_MAX: usize = 20;
/// Events that something led to.
const LED_TO_MAX: usize = 50;

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WhyOptions {
    /// Steps back from the subject, at most.
    pub depth_max: usize,
    /// Events and turns in the answer, at most.
    pub nodes_max: usize,
}

impl WhyOptions {
    /// Bounds of the depth.
    pub const DEPTH: std::ops::RangeInclusive<u64> = 1..=32;
    /// Bounds of the size.
    pub const NODES: std::ops::RangeInclusive<u64> = 1..=1_000;
}

impl Default for WhyOptions {
    fn default() -> Self {
        Self { depth_max: 8, nodes_max: 200 }
    }
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub enum WhyError {
    /// The log has nothing of it.
    #[error("the log has no {subject}{}", lost(*first))]
    NotFound {
        /// What was asked for.
        subject: String,
        /// The first event that the log has: it may have stood before that.
        first: Seq,
    },
    /// It stood before the first event that the log has.
    #[error("{subject}: the log begins at {first}, what lies before was dropped")]
    Dropped {
        /// What was asked for.
        subject: String,
        /// That first one.
        first: Seq,
    },
    /// It stands where the log cannot be read.
    #[error("{subject} stands where the log is damaged, from {} to {}: {}", gap.first, gap.last, gap.what)]
    Damaged {
        /// What was asked for.
        subject: String,
        /// The stretch.
        gap: Gap,
    },
    /// The log cannot be read at all.
    #[error("could not read the log")]
    Store(#[from] StoreError),
}

/// What is said of a log that does not begin with the first event.
fn lost(first: Seq) -> String {
    if first > Seq::FIRST {
        format!("; it begins at {first}, what lies before was dropped")
    } else {
        String::new()
    }
}

/// Explains `subject`, which was asked for as `text`.
///
/// # Errors
///
/// [`WhyError`].
pub fn why(
    reader: &Reader,
    postings: &Postings,
    (text, subject): (&str, &Subject),
    options: WhyOptions,
) -> Result<Why, WhyError> {
    let first = reader.first()?;
    if let Subject::Seq(seq) = subject
        && *seq < first
    {
        return Err(WhyError::Dropped { subject: text.to_owned(), first });
    }
    let mut walk = Walk {
        reader,
        postings,
        options,
        nodes: 0,
        seen: HashSet::new(),
        turns: HashSet::new(),
        cut: false,
        gaps: Vec::new(),
    };
    let roots = walk.roots(subject)?;
    let mut because = Vec::new();
    for record in &roots {
        because.extend(walk.explained("is", record, 0)?);
    }
    if let (Subject::Seq(seq), []) = (subject, &roots[..]) {
        because.extend(walk.explained_at("is", *seq, 0)?);
    }
    if let Subject::Turn(turn) = subject {
        because.extend(walk.turn_explained(*turn, None, 0)?);
    }
    if because.is_empty() {
        let subject = text.to_owned();
        return Err(match walk.gaps.pop() {
            Some(gap) => WhyError::Damaged { subject, gap },
            None => WhyError::NotFound { subject, first },
        });
    }
    let led_to = walk.led_to(subject, &roots)?;
    Ok(Why {
        subject: text.to_owned(),
        head_seq: reader.head().seq,
        first_seq: first,
        because,
        led_to,
        cut: walk.cut,
        gaps: walk
            .gaps
            .into_iter()
            .map(|gap| Unread { from_seq: gap.first, to_seq: gap.last, what: gap.what })
            .collect(),
    })
}

/// The event, unless it was erased.
fn read(event: Found) -> Option<Record> {
    match event {
        Found::Record(record) => Some(record),
        Found::Sealed(_) => None,
    }
}

/// The way back, with what was passed already.
struct Walk<'a> {
    reader: &'a Reader,
    postings: &'a Postings,
    options: WhyOptions,
    nodes: usize,
    /// Events that are in the answer: a second time they are only named. Causes lie in front of their effects, so that
    /// there is no way round in circles; in a log that says otherwise this ends it.
    seen: HashSet<Seq>,
    turns: HashSet<TurnId>,
    /// Whether something was left out because of a bound.
    cut: bool,
    gaps: Vec<Gap>,
}

impl Walk<'_> {
    /// The event at a position, as far as it can still be read.
    fn event(&mut self, seq: Seq) -> Result<Option<Found>, StoreError> {
        match self.reader.picker(&Filter::default())?.get(seq)? {
            Some(Swept::Record(record)) => Ok(Some(Found::Record(*record))),
            Some(Swept::Erased(sealed)) => Ok(Some(Found::Sealed(*sealed))),
            Some(Swept::Gap(gap)) => {
                self.note(gap);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn record(&mut self, seq: Seq) -> Result<Option<Record>, StoreError> {
        Ok(self.event(seq)?.and_then(read))
    }

    fn note(&mut self, gap: Gap) {
        if !self.gaps.contains(&gap) {
            self.gaps.push(gap);
        }
    }

    /// Up to `limit` records that answer the question; `until` ends it behind a record.
    fn search(
        &mut self,
        question: Question,
        limit: usize,
        until: impl Fn(&Record) -> bool,
    ) -> Result<Vec<Record>, StoreError> {
        let mut trail = Trail::new(question, self.reader)?;
        let (mut found, mut ended, mut steps) = (Vec::new(), false, 0);
        while !trail.is_done() && !ended {
            if steps == SEARCH_STEPS_MAX {
                self.cut = true;
                break;
            }
            steps += 1;
            trail.step(self.reader, self.postings, &mut |event| {
                let Some(record) = read(event) else { return More::Yes };
                ended = until(&record);
                found.push(record);
                ended |= found.len() == limit;
                if ended { More::No } else { More::Yes }
            })?;
        }
        let gaps = trail.gaps().0.to_vec();
        for gap in gaps {
            self.note(gap);
        }
        Ok(found)
    }

    /// The events that the subject is.
    fn roots(&mut self, subject: &Subject) -> Result<Vec<Record>, StoreError> {
        match subject {
            Subject::Seq(seq) => Ok(self.record(*seq)?.into_iter().collect()),
            Subject::Row(id, kinds) => {
                let question = Question {
                    row: Some(*id),
                    kinds: Some(kinds.clone()),
                    newest_first: true,
                    ..Question::default()
                };
                let mut found = self.search(question, VERSIONS_MAX, |_| false)?;
                self.cut |= found.len() == VERSIONS_MAX;
                found.retain(|record| row_of(&record.event) == Some(*id));
                found.reverse();
                Ok(found)
            }
            Subject::Message(id) => {
                let kinds = Some(vec![Kind::MessageSent]);
                self.search(Question { message: Some(*id), kinds, ..Question::default() }, 1, |_| true)
            }
            Subject::Turn(_) => Ok(Vec::new()),
        }
    }

    /// Takes up a place in the answer; whether there was one.
    fn place(&mut self, depth: usize) -> bool {
        let free = self.nodes < self.options.nodes_max && depth <= self.options.depth_max;
        self.cut |= !free;
        self.nodes += usize::from(free);
        free
    }

    /// An event without what led to it.
    fn leaf(&mut self, relation: &'static str, record: &Record) -> Option<Cause> {
        if !self.place(0) {
            return None;
        }
        let repeated = !self.seen.insert(record.seq);
        let line = Line::of(self.reader, record.clone());
        Some(Cause::of_event(relation, line, repeated))
    }

    /// An event with what led to it.
    fn explained(
        &mut self,
        relation: &'static str,
        record: &Record,
        depth: usize,
    ) -> Result<Option<Cause>, StoreError> {
        if depth > self.options.depth_max {
            self.cut = true;
            return Ok(None);
        }
        let Some(mut cause) = self.leaf(relation, record) else { return Ok(None) };
        if !cause.repeated {
            cause.because = self.causes(record, depth + 1)?;
        }
        Ok(Some(cause))
    }

    fn explained_at(
        &mut self,
        relation: &'static str,
        seq: Seq,
        depth: usize,
    ) -> Result<Option<Cause>, StoreError> {
        match self.event(seq)? {
            Some(Found::Record(record)) => self.explained(relation, &record, depth),
            // What led to it is gone with its content; that it was there shows.
            Some(erased @ Found::Sealed(_)) if self.place(depth) => {
                let repeated = !self.seen.insert(seq);
                Ok(Some(Cause::of_event(relation, Line::of_found(self.reader, erased), repeated)))
            }
            Some(Found::Sealed(_)) | None => Ok(None),
        }
    }

    /// What led to an event: the turn it belongs to, its cause, and what it says itself that it is about.
    fn causes(&mut self, record: &Record, depth: usize) -> Result<Vec<Cause>, StoreError> {
        let mut causes = Vec::new();
        let mut named = Vec::new();
        let own = match &record.event {
            Event::Turn(event) => Some(turn_of(event)),
            Event::Memory(_) | Event::Agent(_) | Event::Conversation(_) | Event::System(_) => None,
        };
        let by_turn = own.or_else(|| record.correlation.as_deref().and_then(turn_named));
        if let Some(turn) = by_turn {
            causes.extend(self.turn_explained(turn, Some(record.seq), depth)?);
        }
        // Within a turn its steps follow from one another: the turn shows them.
        if let Some(seq) = record.causation.filter(|seq| by_turn.is_none() && *seq < record.seq) {
            match self.undo_of(record)? {
                Some((undo, facts)) => {
                    causes.extend(self.explained("done by", &undo, depth)?);
                    self.cut |= facts.len() > READS_MAX;
                    for fact in facts.into_iter().take(READS_MAX) {
                        causes.extend(self.explained_at("undoes", fact, depth)?);
                    }
                }
                None => causes.extend(self.explained_at("caused by", seq, depth)?),
            }
            named.push(seq);
        }
        for (relation, seq) in references(&record.event) {
            if seq != Seq::ZERO && seq < record.seq && !named.contains(&seq) {
                causes.extend(self.explained_at(relation, seq, depth)?);
            }
        }
        Ok(causes)
    }

    /// The record of the undo that wrote an event, and the facts that the event takes back. They stand in one batch: the
    /// record in front, and behind it an event for each row, in the order in which it names the facts.
    fn undo_of(&mut self, record: &Record) -> Result<Option<(Record, Vec<Seq>)>, StoreError> {
        if !matches!(record.event, Event::Memory(_)) {
            return Ok(None);
        }
        let question = Question {
            kinds: Some(vec![Kind::MemoryUndone]),
            correlation: record.correlation.clone(),
            from: Some(Seq(record.seq.0.saturating_sub(UNDO_EVENTS_MAX as u64 + 1).max(1))),
            to: Some(record.seq.previous()),
            newest_first: true,
            ..Question::default()
        };
        let Some(undo) = self.search(question, 1, |_| true)?.pop() else { return Ok(None) };
        let Event::Memory(MemoryEvent::Undone { undoes, .. }) = &undo.event else { return Ok(None) };
        let facts = undoes.get((record.seq.0 - undo.seq.0 - 1) as usize);
        let facts = facts.filter(|facts| facts.last() == record.causation.as_ref()).cloned();
        Ok(facts.map(|facts| (undo, facts)))
    }

    /// A turn with the message it took up, the agent's file it ran by and what it read.
    fn turn_explained(
        &mut self,
        turn: TurnId,
        near: Option<Seq>,
        depth: usize,
    ) -> Result<Option<Cause>, StoreError> {
        if !self.place(depth) {
            return Ok(None);
        }
        if !self.turns.insert(turn) {
            return Ok(Some(Cause::of_turn(TurnShown::named(turn), true)));
        }
        let records = self.turn_records(turn, near)?;
        if records.is_empty() {
            return Ok(None);
        }
        let lines = records.iter().map(|record| Line::of(self.reader, record.clone())).collect();
        let mut cause = Cause::of_turn(TurnShown::of(turn, lines), false);
        for record in &records {
            let Event::Turn(event) = &record.event else { continue };
            if let TurnEvent::Started { message, config, .. } = event {
                cause.because.extend(self.explained_at("took up", *message, depth + 1)?);
                let config = self.record(*config)?;
                cause.because.extend(config.and_then(|config| self.leaf("runs by", &config)));
            }
            if let TurnEvent::ContextPrepared { parts, .. } = event {
                let used = parts.iter().flat_map(|part| &part.used);
                let heard: Vec<Seq> =
                    used.filter_map(|name| name.strip_prefix('#')?.parse().ok().map(Seq)).collect();
                for seq in heard.into_iter().take(READS_MAX) {
                    let said = self.record(seq)?;
                    cause.because.extend(said.and_then(|said| self.leaf("was told of", &said)));
                }
            }
            cause.because.extend(self.read_by(event, record.seq, depth + 1)?);
        }
        Ok(Some(cause))
    }

    /// What a turn read of the memory, as it was written by then.
    fn read_by(&mut self, event: &TurnEvent, at: Seq, depth: usize) -> Result<Vec<Cause>, StoreError> {
        let mut causes = Vec::new();
        let ids = reads(event);
        self.cut |= ids.len() > READS_MAX;
        for id in ids.into_iter().take(READS_MAX) {
            // One counter numbers both, so that it is one or the other.
            for kinds in [
                [Kind::EntityCreated, Kind::EntityUpdated, Kind::EntityRestored],
                [Kind::ObservationAdded, Kind::ObservationUpdated, Kind::ObservationRestored],
            ] {
                let question = Question {
                    row: Some(id),
                    kinds: Some(kinds.to_vec()),
                    to: Some(at),
                    newest_first: true,
                    ..Question::default()
                };
                let found = self.search(question, 1, |_| true)?;
                if let Some(written) = found.first().filter(|record| row_of(&record.event) == Some(id)) {
                    causes.extend(self.explained("read", written, depth)?);
                    break;
                }
            }
        }
        Ok(causes)
    }

    /// The events of a turn in their order, from its start to its end. `near` is one that was written in it.
    fn turn_records(&mut self, turn: TurnId, near: Option<Seq>) -> Result<Vec<Record>, StoreError> {
        let kinds = Some(caxton_events::Family::kinds(&[caxton_events::Family::Turn]));
        let question = Question { turn: Some(turn), kinds, ..Question::default() };
        let starts = |record: &Record| matches!(record.event, Event::Turn(TurnEvent::Started { .. }));
        let ends = |record: &Record| {
            matches!(record.event, Event::Turn(TurnEvent::Finished { .. } | TurnEvent::Failed { .. }))
        };
        let before = Question { to: near, newest_first: near.is_some(), ..question.clone() };
        let Some(near) = near else { return self.search(before, TURN_EVENTS_MAX, ends) };
        let mut records = self.search(before, TURN_EVENTS_MAX, starts)?;
        records.reverse();
        if !records.last().is_some_and(ends) {
            let after = Question { from: Some(near.next()), ..question };
            records.extend(self.search(after, TURN_EVENTS_MAX, ends)?);
        }
        Ok(records)
    }

    /// One step forward: what the subject's events led to, and which turns read the row.
    fn led_to(&mut self, subject: &Subject, roots: &[Record]) -> Result<Vec<Cause>, StoreError> {
        let mut questions: Vec<(&'static str, Question)> = Vec::new();
        for root in roots {
            let from = Some(root.seq.next());
            questions.push(("led to", Question { cause: Some(root.seq), from, ..Question::default() }));
            // What an undo wrote has the facts that it takes back as causes.
            if let Event::Memory(MemoryEvent::Undone { undoes, .. }) = &root.event {
                let to = Some(Seq(root.seq.0 + undoes.len() as u64));
                questions.push(("led to", Question { from, to, ..Question::default() }));
            }
        }
        if let Subject::Row(id, _) = subject {
            questions.push(("was read by", Question { reads: Some(*id), ..Question::default() }));
        }
        if let Subject::Turn(turn) = subject {
            let kinds = caxton_events::Family::kinds(&[
                caxton_events::Family::Memory,
                caxton_events::Family::Conversation,
                caxton_events::Family::Agent,
            ]);
            let question = Question { turn: Some(*turn), kinds: Some(kinds), ..Question::default() };
            questions.push(("led to", question));
        }
        let mut led_to = Vec::new();
        for (relation, question) in questions {
            let found = self.search(question, LED_TO_MAX, |_| false)?;
            self.cut |= found.len() == LED_TO_MAX;
            for record in &found {
                led_to.extend(self.leaf(relation, record));
            }
        }
        Ok(led_to)
    }
}

/// The row that an event writes.
fn row_of(event: &Event) -> Option<MemoryId> {
    let Event::Memory(event) = event else { return None };
    match event {
        MemoryEvent::EntityCreated { id, .. }
        | MemoryEvent::EntityUpdated { id, .. }
        | MemoryEvent::EntityRemoved { id }
        | MemoryEvent::ObservationAdded { id, .. }
        | MemoryEvent::ObservationUpdated { id, .. }
        | MemoryEvent::ObservationRemoved { id, .. }
        | MemoryEvent::RelationCreated { id, .. }
        | MemoryEvent::RelationUpdated { id, .. }
        | MemoryEvent::RelationRemoved { id }
        | MemoryEvent::EntityRestored { id, .. }
        | MemoryEvent::ObservationRestored { id, .. }
        | MemoryEvent::RelationRestored { id, .. } => Some(*id),
        MemoryEvent::Undone { .. } => None,
    }
}

/// Events that an event names as what it is about.
fn references(event: &Event) -> Vec<(&'static str, Seq)> {
    match event {
        Event::Conversation(event) => match event {
            ConversationEvent::MessageExpired { sent, .. }
            | ConversationEvent::ReplyOverdue { sent, .. }
            | ConversationEvent::DeliveryRetried { sent, .. }
            | ConversationEvent::MessageDeadLettered { sent, .. } => vec![("about", *sent)],
            ConversationEvent::DeadLetterReplayed { dead_letter, .. } => vec![("replays", *dead_letter)],
            ConversationEvent::Opened { .. }
            | ConversationEvent::MessageSent(_)
            | ConversationEvent::InboxAcknowledged { .. }
            | ConversationEvent::Extended { .. }
            | ConversationEvent::Closed { .. }
            | ConversationEvent::Archived { .. } => Vec::new(),
        },
        Event::Agent(AgentEvent::ConfigLoaded { source: ConfigSource::Rollback { to, .. }, .. }) => {
            vec![("takes back", *to)]
        }
        Event::Memory(_) | Event::Agent(_) | Event::Turn(_) | Event::System(_) => Vec::new(),
    }
}
