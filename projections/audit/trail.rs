//! Questions to the log: what matches is found by the postings where there are some, and read from the log where not.

use std::borrow::Cow;

use caxton_events::log::{Filter, Found, Gap, Reader, StoreError, Swept, Touched};
use caxton_events::{AgentId, ConversationId, Kind, MemoryId, MessageId, Seq, Timestamp, TurnId};

use super::Postings;
use super::segment::Segment;
use super::terms::{Term, terms};

/// Positions that are swept before a caller that waits is heard again.
const SWEPT_MAX: u64 = 1 << 16;
/// Blocks read for the positions of a segment before a caller that waits is heard again.
const PICKED_BLOCKS_MAX: u64 = 256;
/// Gaps that are named; more are counted.
const GAPS_MAX: usize = 1_000;

/// What is asked for: events that meet every condition given. The default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Who caused it.
    pub actor: Option<String>,
    /// Who caused it or whom it is about: sender, receiver, owner, subject.
    pub agent: Option<AgentId>,
    /// The conversation it belongs to.
    pub conversation: Option<ConversationId>,
    /// The entity, observation or relation that it writes or names.
    pub row: Option<MemoryId>,
    /// The entity or observation that it shows to a model.
    pub reads: Option<MemoryId>,
    /// The message it is, names or answers with.
    pub message: Option<MessageId>,
    /// The turn it is of, or in which it was written.
    pub turn: Option<TurnId>,
    /// Only these kinds.
    pub kinds: Option<Vec<Kind>>,
    /// What ties it to others.
    pub correlation: Option<String>,
    /// The event that led to it.
    pub cause: Option<Seq>,
    /// Its stream.
    pub stream: Option<String>,
    /// Recorded at this time or later.
    pub since: Option<Timestamp>,
    /// Recorded before this time.
    pub until: Option<Timestamp>,
    /// At this position or behind it.
    pub from: Option<Seq>,
    /// At this position or before it.
    pub to: Option<Seq>,
    /// The newest first.
    pub newest_first: bool,
}

impl Question {
    /// What must be among the terms of an event: one of each list.
    fn clauses(&self) -> Vec<Vec<Term<'static>>> {
        fn text(text: &str) -> Cow<'static, str> {
            Cow::Owned(text.to_owned())
        }
        let mut clauses = Vec::new();
        let mut must = |terms: Option<Vec<Term<'static>>>| clauses.extend(terms);
        let agent = self.agent.as_ref().map(AgentId::as_str);
        must(agent.map(|agent| vec![Term::Actor(text(agent)), Term::Agent(text(agent))]));
        must(self.actor.as_deref().map(|actor| vec![Term::Actor(text(actor))]));
        must(self.conversation.as_ref().map(|name| vec![Term::Conversation(text(name.as_str()))]));
        must(self.row.map(|id| vec![Term::Row(id)]));
        must(self.reads.map(|id| vec![Term::Reads(id)]));
        must(self.message.map(|id| vec![Term::Message(id)]));
        must(self.turn.map(|id| vec![Term::Turn(id)]));
        must(self.correlation.as_deref().map(|correlation| vec![Term::Correlation(text(correlation))]));
        must(self.cause.map(|seq| vec![Term::Cause(seq)]));
        must(self.stream.as_deref().map(|stream| vec![Term::Stream(text(stream))]));
        clauses
    }

    /// What the log itself passes over.
    fn filter(&self) -> Filter {
        Filter {
            until: None,
            kinds: self.kinds.clone(),
            stream: self.stream.clone(),
            actor: self.actor.clone(),
            correlation: self.correlation.clone(),
            recorded_from: self.since,
            recorded_before: self.until,
        }
    }
}

/// What an answer took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Events that matched so far.
    pub matched: u64,
    /// Blocks of the log that were read, and their bytes.
    pub read: Touched,
    /// Bytes of postings that were read.
    pub postings_bytes: u64,
    /// Blocks there are, and their bytes.
    pub blocks: u64,
    /// Bytes of all blocks.
    pub bytes: u64,
}

/// The way through the log that answers a question, to be walked in steps: between two of them nothing is held open.
#[derive(Debug, Clone)]
pub struct Trail {
    question: Question,
    clauses: Vec<Vec<Term<'static>>>,
    hashes: Vec<Vec<u64>>,
    filter: Filter,
    /// The positions that are left: from the first to the last, none when they are the other way round.
    left: (Seq, Seq),
    /// Positions of the segment that is walked through, in the order of the answer.
    found: Option<Positions>,
    figures: Figures,
    gaps: Vec<Gap>,
    gaps_more: u64,
}

/// Positions that the postings give for a stretch.
#[derive(Debug, Clone)]
struct Positions {
    first: Seq,
    last: Seq,
    seqs: std::vec::IntoIter<Seq>,
}

/// Whether the caller takes more now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum More {
    /// It does.
    Yes,
    /// It had enough for this step; the trail goes on behind the record it was given.
    No,
}

impl Trail {
    /// The way that answers `question` over the log as it stands now.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the log cannot be read at all.
    pub fn new(question: Question, reader: &Reader) -> Result<Self, StoreError> {
        let extent = reader.extent()?;
        let mut left = (reader.first()?, reader.head().seq);
        if question.since.is_some() || question.until.is_some() {
            let (first, last) = reader.span(question.since, question.until)?;
            left = (left.0.max(first), left.1.min(last));
        }
        left = (
            left.0.max(question.from.unwrap_or(Seq::ZERO)),
            left.1.min(question.to.unwrap_or(Seq(u64::MAX))),
        );
        let clauses = question.clauses();
        let hashes = clauses.iter().map(|clause| clause.iter().map(Term::hash).collect()).collect();
        Ok(Self {
            filter: question.filter(),
            question,
            clauses,
            hashes,
            left,
            found: None,
            figures: Figures { blocks: extent.blocks, bytes: extent.bytes, ..Figures::default() },
            gaps: Vec::new(),
            gaps_more: 0,
        })
    }

    /// Whether everything was given.
    pub fn is_done(&self) -> bool {
        self.left.0 > self.left.1
    }

    /// What it took so far.
    pub fn figures(&self) -> Figures {
        self.figures
    }

    /// Stretches that could not be read, and how many more there are than are named.
    pub fn gaps(&self) -> (&[Gap], u64) {
        (&self.gaps, self.gaps_more)
    }

    /// Walks on: gives what matches until `give` has enough, the trail is done, or so much was read that whoever waits
    /// should be heard.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when the log cannot be read at all. What is damaged in places becomes a gap.
    pub fn step(
        &mut self,
        reader: &Reader,
        postings: &Postings,
        give: &mut dyn FnMut(Found) -> More,
    ) -> Result<(), StoreError> {
        if self.is_done() {
            return Ok(());
        }
        if self.found.is_none() && !self.find(postings) {
            return self.sweep(reader, postings, give);
        }
        let Some(found) = self.found.take() else { return Ok(()) };
        self.pick(reader, found, give)
    }

    /// The end that is walked on from.
    fn at(&self) -> Seq {
        if self.question.newest_first { self.left.1 } else { self.left.0 }
    }

    /// Leaves everything up to `seq` behind, in the direction of the answer.
    fn pass(&mut self, seq: Seq) {
        if self.is_done() {
            return;
        }
        if self.question.newest_first {
            // Nothing lies before the first position: then the trail is done.
            self.left = if seq <= self.left.0 { (Seq(1), Seq::ZERO) } else { (self.left.0, seq.previous()) };
        } else {
            self.left.0 = self.left.0.max(seq.next());
        }
    }

    /// Looks the question up in the segment that covers the next position; whether there is one that can be read.
    fn find(&mut self, postings: &Postings) -> bool {
        let down = self.question.newest_first;
        if self.hashes.is_empty() {
            return false;
        }
        while let Some(segment) = postings.at_or_beyond(self.at(), down) {
            if !segment.covers().contains(&self.at()) {
                return false;
            }
            match self.looked_up(&segment) {
                Ok(seqs) => {
                    let (first, last) = (segment.stretch.first, segment.stretch.last);
                    self.found = Some(Positions { first, last, seqs: seqs.into_iter() });
                    return true;
                }
                Err(error) => postings.drop_segment(&segment, &error),
            }
        }
        false
    }

    fn looked_up(&mut self, segment: &Segment) -> Result<Vec<Seq>, super::SegmentError> {
        let mut lists = Vec::with_capacity(self.hashes.len());
        for clause in &self.hashes {
            let mut united = Vec::new();
            for hash in clause {
                let (list, bytes) = segment.find(*hash)?;
                self.figures.postings_bytes += bytes;
                united = if united.is_empty() { list } else { merged(&united, &list) };
            }
            if united.is_empty() {
                return Ok(Vec::new());
            }
            lists.push(united);
        }
        lists.sort_by_key(Vec::len);
        let both = lists.into_iter().reduce(|few, many| intersected(few, &many)).unwrap_or_default();
        let seqs = both.into_iter().map(|position| Seq(segment.stretch.first.0 + u64::from(position)));
        let mut seqs: Vec<Seq> = seqs.filter(|seq| self.left.0 <= *seq && *seq <= self.left.1).collect();
        if self.question.newest_first {
            seqs.reverse();
        }
        Ok(seqs)
    }

    fn pick(
        &mut self,
        reader: &Reader,
        mut found: Positions,
        give: &mut dyn FnMut(Found) -> More,
    ) -> Result<(), StoreError> {
        let mut picker = reader.picker(&self.filter)?.going_on(self.figures.read);
        let mut unread: Option<(Seq, Seq)> = None;
        let mut more = More::Yes;
        while more == More::Yes && picker.touched().blocks < PICKED_BLOCKS_MAX {
            let Some(seq) = found.seqs.next() else {
                // What stands in none of the lists of this stretch cannot match.
                self.pass(if self.question.newest_first { found.first } else { found.last });
                self.add(picker.touched());
                return Ok(());
            };
            self.pass(seq);
            if unread.is_some_and(|(first, last)| first <= seq && seq <= last) {
                continue;
            }
            match picker.get(seq)? {
                Some(Swept::Record(record)) => more = self.take(Found::Record(*record), give),
                Some(Swept::Erased(sealed)) => more = self.take(Found::Sealed(*sealed), give),
                Some(Swept::Gap(gap)) => {
                    unread = Some((gap.first, gap.last));
                    self.note(gap);
                }
                None => (),
            }
        }
        self.add(picker.touched());
        self.found = Some(found);
        Ok(())
    }

    /// Reads what no segment covers, up to the next one that does.
    fn sweep(
        &mut self,
        reader: &Reader,
        postings: &Postings,
        give: &mut dyn FnMut(Found) -> More,
    ) -> Result<(), StoreError> {
        let down = self.question.newest_first;
        let at = self.at();
        let beyond = if self.hashes.is_empty() { None } else { postings.at_or_beyond(at, down) };
        let far = if down {
            let edge = beyond.map_or(Seq::FIRST, |segment| segment.stretch.last.next());
            edge.max(self.left.0).max(Seq(at.0.saturating_sub(SWEPT_MAX - 1)))
        } else {
            let edge = beyond.map_or(Seq(u64::MAX), |segment| segment.stretch.first.previous());
            edge.min(self.left.1).min(Seq(at.0.saturating_add(SWEPT_MAX - 1)))
        };
        let filter = Filter { until: Some(far), ..self.filter.clone() };
        let mut sweep = reader.sweep(at, &filter, down)?.going_on(self.figures.read);
        let mut more = More::Yes;
        while more == More::Yes {
            match sweep.advance()? {
                Some(Swept::Record(record)) => {
                    self.pass(record.seq);
                    more = self.take(Found::Record(*record), give);
                }
                Some(Swept::Erased(sealed)) => {
                    self.pass(sealed.seq);
                    more = self.take(Found::Sealed(*sealed), give);
                }
                Some(Swept::Gap(gap)) => {
                    self.pass(if down { gap.first } else { gap.last });
                    self.note(gap);
                }
                None => {
                    self.pass(far);
                    break;
                }
            }
        }
        self.add(sweep.touched());
        Ok(())
    }

    /// Gives the event if it is what was asked for.
    fn take(&mut self, event: Found, give: &mut dyn FnMut(Found) -> More) -> More {
        if !self.is_wanted(&event) {
            return More::Yes;
        }
        self.figures.matched += 1;
        give(event)
    }

    /// Whether one of each clause is among the event's terms.
    fn is_wanted(&self, event: &Found) -> bool {
        if self.clauses.is_empty() {
            return true;
        }
        let mut met = vec![false; self.clauses.len()];
        terms(event, &mut |term| {
            for (clause, met) in self.clauses.iter().zip(&mut met) {
                *met |= clause.contains(&term);
            }
        });
        met.iter().all(|met| *met)
    }

    fn note(&mut self, mut gap: Gap) {
        // A block may begin before what was asked for, or end behind it.
        let (from, to) =
            (self.question.from.unwrap_or(Seq::FIRST), self.question.to.unwrap_or(Seq(u64::MAX)));
        (gap.first, gap.last) = (gap.first.max(from), gap.last.min(to));
        if self.gaps.iter().any(|known| known.first <= gap.first && gap.last <= known.last) {
            return;
        }
        // What lies beside a known one and lacks the same is a part of it.
        let beside = |known: &&mut Gap| {
            known.what == gap.what && (known.last.next() == gap.first || gap.last.next() == known.first)
        };
        if let Some(known) = self.gaps.iter_mut().find(beside) {
            (known.first, known.last) = (known.first.min(gap.first), known.last.max(gap.last));
            return;
        }
        if self.gaps.len() < GAPS_MAX {
            self.gaps.push(gap);
        } else {
            self.gaps_more += 1;
        }
    }

    fn add(&mut self, touched: Touched) {
        self.figures.read = self.figures.read.and(touched);
    }
}

/// Both lists as one, ascending, without repetitions.
fn merged(one: &[u32], other: &[u32]) -> Vec<u32> {
    let mut all = Vec::with_capacity(one.len() + other.len());
    let (mut left, mut right) = (one.iter().copied().peekable(), other.iter().copied().peekable());
    loop {
        let next = match (left.peek(), right.peek()) {
            (Some(a), Some(b)) if a <= b => left.next(),
            (Some(_), None) => left.next(),
            (_, Some(_)) => right.next(),
            (None, None) => return all,
        };
        if let Some(next) = next
            && all.last() != Some(&next)
        {
            all.push(next);
        }
    }
}

/// What stands in both lists.
fn intersected(mut few: Vec<u32>, many: &[u32]) -> Vec<u32> {
    let mut from = 0;
    few.retain(|position| {
        from += many[from..].partition_point(|other| other < position);
        many.get(from) == Some(position)
    });
    few
}
