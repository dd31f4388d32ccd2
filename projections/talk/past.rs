//! Agents and conversations as of an earlier record: folded from the log again, as far as a question needs it.
//!
//! The fold is the one of the present, over fewer records: blocks without one that is wanted are passed over by their
//! header, and of one conversation only the records of its stream are read. So what is answered is what the present answered
//! when that record was the last.

use caxton_events::log::{Filter, ReadError, Reader};
use caxton_events::{ConversationId, Family, Kind, Seq};

use super::TalkState;
use super::changes::Changes;

/// Records that are folded for one question at most.
pub const PAST_RECORDS_MAX: u64 = 2_000_000;
/// Records after which what a flush would write is thrown away.
const FORGET_AFTER: u64 = 4_096;

/// How much of the talk is folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TalkPart {
    /// Agents and conversations.
    Everything,
    /// All conversations, without what agents did about their inboxes.
    Conversations,
    /// One conversation, without that.
    Conversation(ConversationId),
    /// Who there is, without what was said.
    Agents,
}

/// The records that a conversation is made of.
const CONVERSATION: &[Kind] = &[
    Kind::ConversationOpened,
    Kind::MessageSent,
    Kind::ConversationExtended,
    Kind::ConversationClosed,
    Kind::ConversationArchived,
];

impl TalkPart {
    fn filter(&self, through: Seq) -> Filter {
        let kinds = match self {
            Self::Everything => Family::kinds(&[Family::Agent, Family::Conversation]),
            Self::Conversations | Self::Conversation(_) => CONVERSATION.to_vec(),
            Self::Agents => Family::kinds(&[Family::Agent]),
        };
        let stream = match self {
            Self::Conversation(id) => Some(id.as_str().to_owned()),
            Self::Everything | Self::Conversations | Self::Agents => None,
        };
        Filter { until: Some(through), kinds: Some(kinds), stream, ..Filter::default() }
    }
}

/// Why there is no state of the past.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// More than [`PAST_RECORDS_MAX`] records would have to be folded.
    #[error("more than {max} records of agents and conversations lie up to record {through}")]
    TooFar {
        /// The record that was asked for.
        through: Seq,
        /// How many are folded at most.
        max: u64,
    },
    /// The log lost its oldest events, from which the fold would begin.
    #[error("the log begins at record {first}: what agents and conversations were before was dropped")]
    Dropped {
        /// The first record that is kept.
        first: Seq,
    },
    /// The log could not be read.
    #[error("could not read the log to fold the past from it")]
    Read(#[from] ReadError),
}

/// A part of the talk as of a record. It can go on to a later record, not back.
#[derive(Debug)]
pub struct PastTalk {
    part: TalkPart,
    state: TalkState,
    records: u64,
}

impl PastTalk {
    /// Nothing yet, as before the first record.
    pub fn new(part: TalkPart) -> Self {
        Self { part, state: TalkState::default(), records: 0 }
    }

    /// What is folded.
    pub const fn part(&self) -> &TalkPart {
        &self.part
    }

    /// The record it is as of.
    pub const fn through(&self) -> Seq {
        self.state.checkpoint
    }

    /// How many records were folded for it.
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// The state as of [`through`](Self::through), of the part that was folded.
    pub const fn state(&self) -> &TalkState {
        &self.state
    }

    /// Folds on up to `through`, over `records_max` records in all at most; does nothing when it is beyond it.
    ///
    /// # Errors
    ///
    /// [`PastError`]; the state is then of no use.
    pub fn fold_to(&mut self, log: &Reader, through: Seq, records_max: u64) -> Result<(), PastError> {
        if through <= self.state.checkpoint {
            return Ok(());
        }
        let first = log.first().map_err(ReadError::from)?;
        if first > Seq::FIRST {
            return Err(PastError::Dropped { first });
        }
        for record in log.scan(self.state.checkpoint.next(), &self.part.filter(through)) {
            self.state.fold(&record?);
            self.records += 1;
            if self.records > records_max {
                return Err(PastError::TooFar { through, max: records_max });
            }
            if self.records.is_multiple_of(FORGET_AFTER) {
                self.state.changes = Changes::default();
            }
        }
        self.state.changes = Changes::default();
        self.state.checkpoint = through;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::sync::Arc;

    use caxton_events::log::{Batch, Filter, Log, LogOptions, TrimOptions, drop_before};
    use caxton_events::{Clock, ConversationEvent, Draft, Event, Record, Seq, Timestamp};
    use serde_json::{Value, json};

    use super::super::tests::{agent, conversation, walk};
    use super::super::{TalkState, TalkStore};
    use super::{PastError, PastTalk, TalkPart};
    use crate::projection::Projection as _;

    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            Timestamp::from_unix_micros(43_200_000_000)
        }
    }

    /// The conversation that a record is told in.
    fn stream(event: &Event) -> String {
        match event {
            Event::Conversation(ConversationEvent::MessageSent(message)) => message.conversation.to_string(),
            Event::Conversation(
                ConversationEvent::Opened { conversation, .. }
                | ConversationEvent::Extended { conversation, .. }
                | ConversationEvent::Closed { conversation, .. }
                | ConversationEvent::Archived { conversation },
            ) => conversation.to_string(),
            Event::Conversation(_) => "inboxes".to_owned(),
            Event::Agent(_) | Event::Memory(_) | Event::Turn(_) | Event::System(_) => "agents".to_owned(),
        }
    }

    /// A log of a random walk, and its records as they were recorded.
    fn logged(dir: &std::path::Path, seed: u64, length: u64) -> (Log, Vec<Record>) {
        let log = Log::open(dir, LogOptions::new([7; 16]), Arc::new(Noon)).unwrap();
        let draft = |record: &Record| Draft {
            stream: stream(&record.event),
            actor: record.actor.clone(),
            correlation: None,
            causation: record.causation,
            event: record.event.clone(),
        };
        for records in walk(seed, length).chunks(20) {
            log.append(vec![Batch::of(records.iter().map(draft).collect())]).unwrap().remove(0).unwrap();
        }
        let records = log.reader().scan(Seq::FIRST, &Filter::default()).map(Result::unwrap).collect();
        (log, records)
    }

    fn shown(state: &TalkState, number: u64) -> Value {
        let row = state.conversations.get(&conversation(number));
        json!([row, row.map(|row| row.messages.after(Seq::ZERO).collect::<Vec<_>>())])
    }

    fn everything(state: &TalkState) -> Value {
        let inbox = |number| {
            let inbox = state.conversations.inbox(&agent(number));
            json!([inbox, inbox.map(|inbox| (inbox.messages.len(), inbox.sent.len(), inbox.waiting()))])
        };
        json!({
            "conversations": (0..6).map(|number| shown(state, number)).collect::<Vec<_>>(),
            "opened": state.conversations.opened_before(Seq(u64::MAX)).map(|row| &row.id).collect::<Vec<_>>(),
            "inboxes": (0..6).map(inbox).collect::<Vec<_>>(),
            "agents": state.registry.agents(),
            "offers": state.registry.registrations().collect::<Vec<_>>(),
        })
    }

    #[test]
    fn as_of_each_record_the_fold_is_what_lived_until_then() {
        let dir = tempfile::tempdir().unwrap();
        let (log, records) = logged(dir.path(), 77, 300);
        let reader = log.reader();
        let (mut live, _store) = TalkStore::open(&dir.path().join("talk")).unwrap();
        let mut going_on = PastTalk::new(TalkPart::Everything);
        for record in &records {
            live.apply(std::slice::from_ref(record)).unwrap();
            let (seq, state) = (record.seq, live.reader());
            let state = state.read();
            let mut anew = PastTalk::new(TalkPart::Everything);
            anew.fold_to(&reader, seq, 1_000).unwrap();
            going_on.fold_to(&reader, seq, 1_000).unwrap();
            assert_eq!(everything(anew.state()), everything(&state), "as of {seq}");
            assert_eq!(everything(going_on.state()), everything(&state), "going on to {seq}");
            let number = seq.0 % 5;
            let mut one = PastTalk::new(TalkPart::Conversation(conversation(number)));
            one.fold_to(&reader, seq, 1_000).unwrap();
            assert_eq!(shown(one.state(), number), shown(&state, number), "one as of {seq}");
            assert!(one.records() <= anew.records());
        }
    }

    #[test]
    fn a_fold_over_too_many_records_is_refused_and_another_part_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (log, records) = logged(dir.path(), 5, 200);
        let (reader, through) = (log.reader(), Seq(records.len() as u64));
        let mut all = PastTalk::new(TalkPart::Everything);
        let refused = all.fold_to(&reader, through, 50);
        assert!(matches!(refused, Err(PastError::TooFar { max: 50, .. })), "{refused:?}");
        let mut early = PastTalk::new(TalkPart::Everything);
        early.fold_to(&reader, Seq(40), 50).unwrap();
        let mut one = PastTalk::new(TalkPart::Conversation("nobody-said-so".parse().unwrap()));
        one.fold_to(&reader, through, 0).unwrap();
        assert_eq!((one.records(), one.through()), (0, through));
    }

    #[test]
    fn without_the_oldest_records_there_is_nothing_to_fold_from() {
        let dir = tempfile::tempdir().unwrap();
        let apart = LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..LogOptions::new([7; 16]) };
        let log = Log::open(dir.path(), apart, Arc::new(Noon)).unwrap();
        for record in walk(5, 30) {
            let Record { actor, event, .. } = record;
            let draft = Draft { stream: stream(&event), actor, correlation: None, causation: None, event };
            log.append(vec![Batch::of(vec![draft])]).unwrap().remove(0).unwrap();
        }
        log.close().unwrap();
        let by = "ada".to_owned();
        let trim = TrimOptions { before: Seq(10), at: Timestamp::EPOCH, by, forks_keep: false };
        drop_before(dir.path(), &trim).unwrap().unwrap();
        let reader = Log::open_read_only(dir.path()).unwrap();
        let mut fold = PastTalk::new(TalkPart::Conversations);
        let refused = fold.fold_to(&reader, reader.head().seq, 1_000);
        assert!(matches!(refused, Err(PastError::Dropped { first }) if first > Seq::FIRST), "{refused:?}");
    }
}
