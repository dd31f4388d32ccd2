//! Reading a damaged log: everything that is right on both sides of the damage, and what is lost by position, time and
//! kind. Nothing is guessed and nothing is repaired: what is delivered was held to its hashes.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::event::Kind;
use crate::id::Seq;
use crate::log::block::Block;
use crate::log::blocks::{Headers, Value, damaged, next_header, open_block, open_to_read, read_header};
use crate::log::chain::Frontier;
use crate::log::filter::{Filter, Matcher};
use crate::log::header::Header;
use crate::log::pack::ChainEnd;
use crate::log::scan::ReadError;
use crate::log::sealing::KeyRing;
use crate::log::sealing::opened::Found;
use crate::log::store::{Snapshot, StoreError};
use crate::log::verify::{Findings, check_event, verify_block};
use crate::log::visit::{EventBlock, Lens};
use crate::time::Timestamp;

/// Events that cannot be read, or are not what was written.
#[derive(Debug)]
pub struct Lost {
    /// Position of the first of them.
    pub first: Seq,
    /// Position of the last of them.
    pub last: Seq,
    /// None of them was recorded before this moment; `None` where nothing before them says so.
    pub recorded_from: Option<Timestamp>,
    /// None of them was recorded after this moment; `None` where nothing behind them says so.
    pub recorded_to: Option<Timestamp>,
    /// What they may be; `None` where nothing that is left says so.
    pub kinds: Option<Vec<Kind>>,
    /// What is wrong.
    pub cause: ReadError,
}

/// What reading on past damage delivers.
#[derive(Debug)]
pub enum Salvaged {
    /// An event as it was written, or what is left of one that was erased.
    Event(Box<Found>),
    /// Events that are lost.
    Lost(Lost),
}

/// What is right in a log and what is not.
#[derive(Debug, Default)]
pub struct Survey {
    /// Events that are what was written.
    pub events: u64,
    /// Of these, events whose content was erased.
    pub erased: u64,
    /// Of these, events that are encrypted under a key that is not here: their bytes are right, what they say was not read.
    pub unread: u64,
    /// Blocks that are right as a whole.
    pub blocks: u64,
    /// What is not, in order of position.
    pub gaps: Vec<Lost>,
}

/// Steps over what cannot be read grow by one part in so many of the way that was made.
const STEP_GROWTH: u64 = 32;
/// So many rows are looked at to find a header that is right.
const ROWS_TRIED_MAX: usize = 64;

/// One block, or what stands in its place.
pub(crate) enum Step {
    /// Header and body of the block at this position; the header was read and is right.
    Block(Seq, Value, Value),
    Gap(Lost),
}

/// A walk upwards over blocks that goes on after damage.
pub(crate) struct Steps {
    snapshot: Snapshot,
    /// `None` at the end.
    headers: Option<Headers>,
    /// The position that comes next.
    expected: Seq,
    /// The last position of the log.
    head: Seq,
    /// When the event before was recorded, as far as is known.
    at: Option<Timestamp>,
    /// What was wrong with what lay before the block to come.
    cause: Option<ReadError>,
    ready: VecDeque<Step>,
}

impl Steps {
    /// From the block that holds `from`; what is missing is told up to `head`.
    pub(crate) fn new(snapshot: Snapshot, from: Seq, head: Seq) -> Self {
        // What was dropped on purpose is not lost.
        let first = snapshot.past.start.frontier.count() + 1;
        // Before the very first event there is none.
        let at = (first > Seq::FIRST.0).then_some(snapshot.past.start.recorded_at);
        let mut steps = Self {
            snapshot,
            headers: None,
            expected: from.max(Seq(first)),
            head,
            at,
            cause: None,
            ready: VecDeque::new(),
        };
        match steps.snapshot.headers_from(steps.expected) {
            Ok(headers) => steps.headers = Some(headers),
            Err(error) => steps.go_on_after(error),
        }
        steps
    }

    pub(crate) fn next(&mut self) -> Option<Step> {
        while self.ready.is_empty() && self.headers.is_some() {
            self.advance();
        }
        self.ready.pop_front()
    }

    fn advance(&mut self) {
        let Some(headers) = &mut self.headers else { return };
        match next_header(headers, false) {
            Ok(Some((first, value))) => self.take(first, value),
            Ok(None) => {
                self.headers = None;
                self.gap_until(self.head, None);
            }
            Err(error) => self.go_on_after(error),
        }
    }

    fn take(&mut self, first: Seq, value: Value) {
        let header = match read_header(first, &value) {
            Ok(header) => header,
            Err(error) => return self.cause = Some(self.cause.take().unwrap_or(error)),
        };
        let (last, first_at, last_at) = (header.last(), header.first_at, header.last_at);
        if last < self.expected {
            return;
        }
        self.gap_until(first.previous(), Some(first_at));
        self.cause = None;
        let step = match self.snapshot.body(first) {
            Ok(body) => Step::Block(first, value, body),
            Err(cause) => Step::Gap(gap_of(&header, cause)),
        };
        self.ready.push_back(step);
        (self.expected, self.at) = (last.next(), Some(last_at));
    }

    /// Notes that what lies between here and `last` is lost, if anything does.
    fn gap_until(&mut self, last: Seq, recorded_to: Option<Timestamp>) {
        if last < self.expected {
            return;
        }
        let first = self.expected;
        let cause = self.cause.take().unwrap_or_else(|| damaged(first, "the block is missing"));
        let gap = Lost { first, last, recorded_from: self.at, recorded_to, kinds: None, cause };
        self.ready.push_back(Step::Gap(gap));
        self.expected = last.next();
    }

    /// The store's own structure is broken here: looks for the next place where it is not.
    fn go_on_after(&mut self, error: StoreError) {
        self.cause = Some(self.cause.take().unwrap_or_else(|| error.into()));
        // The block that is expected here may be whole where the way to it is broken.
        let before = Seq(self.expected.0.saturating_sub(1));
        self.headers = readable_behind(&self.snapshot, before, self.head);
        if self.headers.is_none() {
            self.gap_until(self.head, None);
        }
    }
}

/// How many events lie in blocks that are there, and how many do not. What the blocks hold is not looked at. `progress` hears
/// the last position looked for and `head`.
pub(crate) fn delivered(snapshot: Snapshot, head: Seq, progress: &mut dyn FnMut(Seq, Seq)) -> (u64, u64) {
    let mut steps = Steps::new(snapshot, Seq::FIRST, head);
    let (mut found, mut lost) = (0, 0);
    while let Some(step) = steps.next() {
        match step {
            Step::Block(first, value, _) => {
                let Ok(header) = read_header(first, &value) else { continue };
                found += u64::from(header.count);
                progress(header.last(), head);
            }
            Step::Gap(gap) => {
                lost += gap.last.0 - gap.first.0 + 1;
                progress(gap.last, head);
            }
        }
    }
    (found, lost)
}

/// Headers from the next place on, behind `start` and not behind `end`, that leads to one that is right.
fn readable_behind(snapshot: &Snapshot, start: Seq, end: Seq) -> Option<Headers> {
    let leading = |headers: Result<Headers, StoreError>| {
        let headers = headers.ok()?;
        // These steps are made on a copy; the walk makes them again.
        let mut ahead = headers.clone();
        for _ in 0..ROWS_TRIED_MAX {
            let (first, value) = next_header(&mut ahead, false).ok()??;
            // Any other row would be met again and again.
            if first > start && read_header(first, &value).is_ok() {
                return Some(headers);
            }
        }
        None
    };
    let readable = |from: u64| leading(snapshot.headers_beginning(Seq(from)));
    // Pages hold neighbours, so that what is broken and what is not come in stretches. The end of this one is bracketed in
    // steps that grow slowly, or a short stretch of what is right would be passed over, and then halved.
    let mut broken = start.0;
    let mut beyond = loop {
        if broken >= end.0 {
            // The last block may begin between the last two steps.
            return leading(snapshot.headers_from(end));
        }
        let at = broken.saturating_add(1 + (broken - start.0) / STEP_GROWTH).min(end.0);
        if readable(at).is_some() {
            break at;
        }
        broken = at;
    };
    while broken + 1 < beyond {
        let middle = broken + (beyond - broken) / 2;
        if readable(middle).is_some() { beyond = middle } else { broken = middle }
    }
    readable(beyond)
}

/// What `of` makes of the last header that is right and that it makes anything of, found from the front: for a log whose
/// end cannot be read.
pub(crate) fn last_readable<T>(snapshot: &Snapshot, of: impl Fn(&Header<'_>) -> Option<T>) -> Option<T> {
    let (mut found, mut start) = (None, Seq::ZERO);
    let mut headers = snapshot.headers_beginning(Seq::FIRST).ok();
    loop {
        match headers.as_mut().map(|headers| next_header(headers, false)) {
            Some(Ok(Some((first, value)))) => {
                // Damaged pages may lead back; what is found lies further on each time.
                if first > start
                    && let Ok(header) = read_header(first, &value)
                {
                    start = first;
                    found = of(&header).or(found);
                }
            }
            Some(Ok(None)) => return found,
            None | Some(Err(_)) => match readable_behind(snapshot, start, Seq(u64::MAX)) {
                Some(readable) => headers = Some(readable),
                None => return found,
            },
        }
    }
}

/// A whole block that is lost.
fn gap_of(header: &Header<'_>, cause: ReadError) -> Lost {
    Lost {
        first: header.first,
        last: header.last(),
        recorded_from: Some(header.first_at),
        recorded_to: Some(header.last_at),
        kinds: Some(Kind::ALL.iter().copied().filter(|kind| header.kinds & (1 << kind.tag()) != 0).collect()),
        cause,
    }
}

/// Events of `header`'s block, from the one with `index` on, that are lost.
fn gap_in(header: &Header<'_>, block: &Block<'_>, index: usize, cause: ReadError) -> Lost {
    let (seq, entry) = (block.seq(index), block.entry(index));
    let at = Some(block.recorded_at(&entry));
    let kinds = Kind::from_tag(entry.tag.kind).into_iter().collect();
    Lost { first: seq, last: seq, recorded_from: at, recorded_to: at, kinds: Some(kinds), cause }
        .within(header)
}

impl Lost {
    fn within(mut self, header: &Header<'_>) -> Self {
        self.recorded_from = self.recorded_from.max(Some(header.first_at));
        self
    }

    /// Takes in the gap right behind this one.
    fn extend(&mut self, next: Self) {
        (self.last, self.recorded_to) = (next.last, next.recorded_to);
        if let (Some(kinds), Some(more)) = (&mut self.kinds, next.kinds) {
            kinds.extend(more);
            kinds.sort_unstable();
            kinds.dedup();
        }
    }
}

/// Events in order of position, past damaged blocks: see [`Reader::scan_salvaging`](crate::log::Reader::scan_salvaging).
pub struct Salvage {
    steps: Steps,
    lens: Arc<Lens>,
    until: Seq,
    current: Option<(Value, EventBlock)>,
    room: Vec<u8>,
    /// A gap that may go on.
    open: Option<Lost>,
    /// What comes behind it.
    held: Option<Box<Found>>,
}

impl std::fmt::Debug for Salvage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Salvage").field("expected", &self.steps.expected).finish_non_exhaustive()
    }
}

impl Salvage {
    pub(crate) fn new(
        snapshot: Snapshot,
        keys: &Arc<KeyRing>,
        from: Seq,
        head: Seq,
        filter: &Filter,
    ) -> Self {
        let until = filter.until.map_or(head, |until| until.min(head));
        Self {
            steps: Steps::new(snapshot, from, until),
            lens: Lens::new(Matcher::new(filter, from, false).up_to(until), keys),
            until,
            current: None,
            room: Vec::new(),
            open: None,
            held: None,
        }
    }

    /// Adds to the open gap, or closes it and opens another; the closed one.
    fn note(&mut self, mut gap: Lost) -> Option<Lost> {
        gap.last = gap.last.min(self.until);
        match &mut self.open {
            Some(open) if open.last.next() == gap.first && open.kinds.is_some() == gap.kinds.is_some() => {
                open.extend(gap);
                None
            }
            open => open.replace(gap),
        }
    }

    /// The next event of the block at hand.
    fn in_block(&mut self) -> Option<Result<Box<Found>, Lost>> {
        let (value, events) = self.current.as_mut()?;
        while let Some(index) = events.next_index(false) {
            match events.found(index, &mut self.room) {
                Ok(Some(found)) => return Some(Ok(Box::new(found))),
                Ok(None) => (),
                Err(cause) => {
                    let header = read_header(events.first(), value).ok()?;
                    let block = events.block().ok()?;
                    return Some(Err(gap_in(&header, &block, index, cause)));
                }
            }
        }
        self.current = None;
        None
    }
}

impl Iterator for Salvage {
    type Item = Salvaged;

    fn next(&mut self) -> Option<Salvaged> {
        if let Some(found) = self.held.take() {
            return Some(Salvaged::Event(found));
        }
        loop {
            let gap = match self.in_block() {
                Some(Ok(found)) => match self.open.take() {
                    Some(gap) => {
                        self.held = Some(found);
                        return Some(Salvaged::Lost(gap));
                    }
                    None => return Some(Salvaged::Event(found)),
                },
                Some(Err(gap)) => gap,
                None => match self.steps.next() {
                    None => return self.open.take().map(Salvaged::Lost),
                    Some(Step::Gap(gap)) => gap,
                    Some(Step::Block(first, value, body)) => {
                        match block_at(first, &value, body, &self.lens) {
                            Ok(Some(events)) => {
                                self.current = Some((value, events));
                                continue;
                            }
                            Ok(None) => continue,
                            Err(gap) => gap,
                        }
                    }
                },
            };
            if let Some(closed) = self.note(gap) {
                return Some(Salvaged::Lost(closed));
            }
        }
    }
}

/// The block of a step, if it may hold what is asked for.
fn block_at(first: Seq, value: &Value, body: Value, lens: &Arc<Lens>) -> Result<Option<EventBlock>, Lost> {
    let Ok(header) = read_header(first, value) else { return Ok(None) };
    match open_to_read(&header, &body).map(|block| block.is_sound()) {
        Err(cause) => Err(gap_of(&header, cause)),
        // The header says what a block may hold, whether its body is right or not.
        Ok(_) if lens.matcher.is_past(first) || !lens.matcher.may_match(&header) => Ok(None),
        Ok(sound) => Ok(Some(EventBlock::opened(&header, body, sound, lens))),
    }
}

/// Checks every block as `verify` does and goes on after what is wrong. Behind a gap the chain is taken up again on the
/// word of the next header.
pub(crate) fn survey(snapshot: Snapshot, ring: &KeyRing, head: Seq, progress: &mut dyn FnMut(Seq)) -> Survey {
    let (mut survey, mut end) = (Survey::default(), snapshot.past.start.clone());
    let mut steps = Steps::new(snapshot, Seq::FIRST, head);
    while let Some(step) = steps.next() {
        match step {
            Step::Gap(gap) => {
                progress(gap.last);
                survey.note(gap);
            }
            Step::Block(first, value, body) => {
                let Ok(header) = read_header(first, &value) else { continue };
                survey.block(&header, &body, &mut end, ring);
                progress(header.last());
            }
        }
    }
    survey
}

impl Survey {
    fn note(&mut self, gap: Lost) {
        match self.gaps.last_mut() {
            Some(open) if open.last.next() == gap.first && open.kinds.is_some() == gap.kinds.is_some() => {
                open.extend(gap);
            }
            _ => self.gaps.push(gap),
        }
    }

    fn block(&mut self, header: &Header<'_>, body: &Value, end: &mut ChainEnd, ring: &KeyRing) {
        let follows = header.first.0 == end.frontier.count() + 1;
        if !follows && !take_up(header, end) {
            return self.note(gap_of(header, damaged(header.first, "its peaks do not fit")));
        }
        let mut findings = Findings::default();
        let checked = if follows {
            verify_block(header, body, end, ring, &mut findings)
        } else {
            open_block(header, body).map(|_| ())
        };
        let mut lost = 0;
        match (checked, open_block(header, body)) {
            (Ok(()), Ok(_)) if follows => (),
            (Err(cause), Err(_)) | (Ok(()), Err(cause)) => {
                return self.lose(gap_of(header, cause), header, end);
            }
            (checked, Ok(block)) => {
                findings = Findings::default();
                for index in 0..block.count() {
                    if let Err(cause) = check_event(&block, header.first, index, ring, &mut findings) {
                        self.note(gap_in(header, &block, index, cause));
                        lost += 1;
                    }
                }
                // Each event is what its entry says, and the block is not what the chain was made over.
                if let (Err(cause), 0) = (checked, lost) {
                    return self.lose(gap_of(header, cause), header, end);
                }
            }
        }
        self.events += u64::from(header.count) - lost;
        self.erased += findings.erased;
        self.unread += findings.unread;
        self.blocks += u64::from(lost == 0);
        take_up(header, end);
    }

    fn lose(&mut self, gap: Lost, header: &Header<'_>, end: &mut ChainEnd) {
        self.note(gap);
        take_up(header, end);
    }
}

/// Moves the end of the chain behind a block on the word of its header.
fn take_up(header: &Header<'_>, end: &mut ChainEnd) -> bool {
    let frontier: Option<Frontier> = header.frontier();
    let fits = frontier.is_some();
    *end = ChainEnd {
        frontier: frontier.unwrap_or_default(),
        bytes_through: header.bytes_through,
        recorded_at: header.last_at,
    };
    fits
}
