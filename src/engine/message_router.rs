//! The one owner of messages: decides a group of requests, hands it to the log, decides the next while that one syncs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_events::conversation::ConversationEvent;
use caxton_events::log::{AppendError, Log, Series, Ticket};
use caxton_events::{Clock as _, Draft, Event, MessageId, Seq};
use caxton_projections::conversations::SYSTEM;
use caxton_projections::talk::TalkReader;
use caxton_projections::view::{Part as Projected, Positions};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};

use super::SystemClock;
use super::answers::Words;
use super::deadlines::Deadlines;
use super::talk::{Answer, Done, Request, SentOutcome, SentResults, TalkError, no_dead_letter, replayed};
use crate::commands::talk::{
    Numbers, Outgoing, Overlay, Settings, Situation, Upkeep, decide_send, decide_upkeep,
};
use crate::commands::{Refusal, RefusalCode};
use crate::telemetry::{MessageOutcome, message_not_recorded};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How often it is looked whether everything is folded, by who waits for that.
const SETTLING: Duration = Duration::from_micros(200);
/// Messages decided together at the most, unless one request has more.
const GROUP_MAX: usize = 2_048;
/// Text of a group after which it is closed, in bytes.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// Empty overlays that are kept.
const SPARE_MAX: usize = 4;

/// What happens to a request once its part of the group is durable and folded.
pub(super) enum Waiting {
    Send {
        /// The first of the part's drafts that is the request's.
        from: usize,
        /// Places of the messages among the part's drafts, or their refusals.
        results: Vec<Result<Place, Refusal>>,
        answer: Answer<SentResults>,
    },
    /// From here to there.
    Upkeep(std::ops::Range<usize>, Answer<Done>),
    Record(usize, Answer<Vec<Seq>>),
}

/// Where a message will be found.
pub(super) enum Place {
    Draft(usize),
    Known(Box<SentOutcome>),
}

/// Drafts that are one batch of the log.
pub(super) struct Part {
    pub(super) drafts: Vec<Draft>,
    pub(super) ticket: Ticket,
    pub(super) waiting: Vec<Waiting>,
}

/// What was decided together.
pub(super) struct Group {
    pub(super) number: u64,
    /// How many series were broken before it was decided.
    pub(super) series: u64,
    pub(super) parts: Vec<Part>,
}

pub(super) struct MessageRouter {
    pub(super) log: Arc<Log>,
    pub(super) talk: TalkReader,
    pub(super) requests: Receiver<Request>,
    pub(super) folds: Sender<Group>,
    /// Disconnected when the thread that folds has ended.
    pub(super) fold_lives: Receiver<()>,
    pub(super) positions: Arc<Positions>,
    pub(super) settings: Settings,
    pub(super) numbers: Numbers,
    /// Groups handed over so far.
    pub(super) handed: u64,
    /// What the groups that are not folded yet changed, the oldest first.
    pub(super) under_way: VecDeque<Overlay>,
    /// Folded ones, empty: their maps need not grow again.
    pub(super) spare: Vec<Overlay>,
    /// What is decided is decided on what is under way: the log takes none of it behind what it refused.
    pub(super) series: Series,
    /// How many of them were broken.
    pub(super) series_broken: u64,
    pub(super) deadlines: Deadlines,
    /// Requests that must wait for the groups before them.
    pub(super) deferred: VecDeque<Request>,
    /// The first of them needs to see the groups before it folded.
    pub(super) must_settle: bool,
}

/// Whether everything that was handed over is folded.
enum Settled {
    Yes,
    /// Nothing is folded until its cause is removed: who asks meanwhile is told so.
    NotYet,
    /// The thread that folds has ended.
    Never,
}

/// What a message whose number was used before comes to.
type Known = Result<SentOutcome, Refusal>;

/// A group while it is put together.
#[derive(Default)]
pub(super) struct Draw {
    parts: Vec<Part>,
    drafts: Vec<Draft>,
    waiting: Vec<Waiting>,
    own: Overlay,
    scratch: Overlay,
}

impl Draw {
    /// What nobody asked for.
    pub(super) fn of_time(drafts: Vec<Draft>, own: Overlay) -> Self {
        Self { drafts, own, ..Self::default() }
    }
}

impl MessageRouter {
    /// Works until every sender is gone.
    pub(super) fn run(mut self) {
        self.watch_open();
        let mut looked = Instant::now();
        loop {
            let mut first = self.deferred.pop_front();
            if first.is_none() {
                first = match self.requests.recv_timeout(TICK) {
                    Ok(request) => Some(request),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                };
            }
            if !self.ready() {
                self.deferred.extend(first);
                break;
            }
            if let Some(first) = first {
                let group = self.drain(first);
                self.decide(group);
            }
            if looked.elapsed() >= TICK {
                looked = Instant::now();
                self.look_at_deadlines(SystemClock.now());
            }
        }
        self.strand();
    }

    /// Waits where that is needed before the next group; `false`: nothing that is decided would be folded any more.
    pub(super) fn ready(&mut self) -> bool {
        let is_broken = self.series.is_broken();
        if self.must_settle || is_broken {
            match self.settle() {
                Settled::Yes => {
                    self.must_settle = false;
                    if is_broken {
                        self.series = Series::default();
                        self.series_broken += 1;
                    }
                }
                Settled::NotYet => (),
                Settled::Never => return false,
            }
        }
        self.fold_lives.try_recv() != Err(TryRecvError::Disconnected)
    }

    /// Tells everybody who asks that it is too late, until the engine stops.
    fn strand(self) {
        let Self { requests, folds, deferred, positions, .. } = self;
        tracing::error!(
            "the thread that folds messages has ended; none is taken until the server is restarted"
        );
        let (name, error) = (Projected::Talk.name(), "its thread has ended; restart the server");
        positions.stop(Projected::Talk, error.to_owned());
        drop(folds);
        for request in deferred.into_iter().chain(requests) {
            request.refuse(TalkError::Unavailable { name, error: error.to_owned() });
        }
    }

    /// What can be taken of a group: all of it, or, while what was recorded is not folded, what others vouch for alone. The rest
    /// would be decided on a state that lacks what was told to be there.
    fn takeable(&self, group: Vec<Request>) -> Vec<Request> {
        let Some(error) = self.positions.standstill(Projected::Talk) else { return group };
        let closed = self.log.reader().closed();
        let (taken, refused): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|request| matches!(request, Request::Record { .. }));
        for request in refused {
            request.refuse(match &closed {
                Some(closed) => TalkError::Log(closed.clone().into()),
                None => TalkError::Unavailable { name: Projected::Talk.name(), error: error.clone() },
            });
        }
        taken
    }

    fn drain(&mut self, first: Request) -> Vec<Request> {
        let mut weight = first.weight();
        let mut group = vec![first];
        while weight < GROUP_MAX {
            let next = self.deferred.pop_front().or_else(|| self.requests.try_recv().ok());
            let Some(request) = next else { break };
            weight += request.weight();
            group.push(request);
        }
        group
    }

    /// Waits until everything handed over is folded, as long as that goes on.
    fn settle(&mut self) -> Settled {
        while self.talk.read().mark < self.handed {
            if self.fold_lives.recv_timeout(SETTLING) == Err(RecvTimeoutError::Disconnected) {
                return Settled::Never;
            }
            if self.positions.standstill(Projected::Talk).is_some() {
                return Settled::NotYet;
            }
        }
        forget_folded(&mut self.under_way, &mut self.spare, (self.handed, self.handed));
        Settled::Yes
    }

    pub(super) fn decide(&mut self, group: Vec<Request>) {
        let mut draw = Draw { own: self.spare.pop().unwrap_or_default(), ..Draw::default() };
        let mut rest = VecDeque::from(self.takeable(group));
        let mut bytes = 0;
        while let Some(request) = rest.pop_front() {
            if self.must_wait(&request, &draw.own) {
                self.must_settle = true;
                rest.push_front(request);
                break;
            }
            match request {
                Request::Record { drafts, answer } => self.record(&mut draw, drafts, answer),
                Request::Send { wishes, atomic, answer } => {
                    bytes += wishes.iter().map(|wish| wish.content.as_str().len()).sum::<usize>();
                    self.send(&mut draw, wishes, atomic, answer);
                }
                Request::Replay { dead_letter, once_more, wish, answer } => {
                    self.replay(&mut draw, (dead_letter, once_more), *wish, answer);
                }
                Request::Upkeep { actor, wish, answer } => self.upkeep(&mut draw, &actor, &wish, answer),
            }
            if bytes > GROUP_BYTES_MAX {
                break;
            }
        }
        // In front of those that were deferred before and found no room in this group.
        rest.append(&mut self.deferred);
        self.deferred = rest;
        self.hand_over(draw);
    }

    /// Whether what the request is about is under way, so that it is to be seen first what became of it: a message of the
    /// same number, the same dead letter, the same agent becoming known, the end of the same conversation or its other timeouts,
    /// other properties of the same offer.
    fn must_wait(&self, request: &Request, own: &Overlay) -> bool {
        let layers = || std::iter::once(own).chain(&self.under_way);
        match request {
            Request::Send { wishes, .. } => {
                wishes.iter().filter_map(|wish| wish.id).any(|id| layers().any(|layer| layer.holds(id)))
            }
            Request::Replay { dead_letter, once_more: false, .. } => {
                layers().any(|layer| layer.replays(*dead_letter))
            }
            Request::Upkeep { wish: Upkeep::RegisterAgent { agent, .. }, .. } => {
                layers().any(|layer| layer.introduces(agent))
            }
            Request::Upkeep { wish: Upkeep::Close { conversation, .. }, .. } => {
                layers().any(|layer| layer.ends(conversation))
            }
            Request::Upkeep { wish: Upkeep::Extend { conversation, .. }, .. } => {
                layers().any(|layer| layer.extends(conversation))
            }
            Request::Upkeep { wish: Upkeep::ChangeOffer { registration, .. }, .. } => {
                layers().any(|layer| layer.changes(*registration))
            }
            Request::Upkeep { wish: Upkeep::Archive { conversations }, .. } => {
                layers().any(|layer| conversations.iter().any(|id| layer.ends(id)))
            }
            Request::Upkeep { .. } | Request::Replay { .. } | Request::Record { .. } => false,
        }
    }

    /// Decides with the state as it is now; what is folded by now is no longer counted as under way.
    fn with<T>(&mut self, work: impl FnOnce(&Situation<'_>, &mut Numbers) -> T) -> T {
        let state = self.talk.read();
        forget_folded(&mut self.under_way, &mut self.spare, (state.mark, self.handed));
        let situation = Situation {
            state: &state,
            under_way: self.under_way.make_contiguous(),
            now: SystemClock.now(),
            settings: &self.settings,
        };
        work(&situation, &mut self.numbers)
    }

    fn send(&mut self, draw: &mut Draw, wishes: Vec<Outgoing>, atomic: bool, answer: Answer<SentResults>) {
        let known = match self.known(&wishes) {
            Ok(known) => known,
            Err(error) => {
                let _ = answer.send(Err(error));
                return;
            }
        };
        let mut results = Vec::with_capacity(wishes.len());
        let before = draw.drafts.len();
        let mut words = Words::of(&wishes);
        let Draw { drafts, own, scratch, .. } = draw;
        // What may have to be taken back is noted apart; the group's own changes are then one more layer below it.
        let apart = atomic && wishes.len() > 1;
        if apart {
            self.under_way.push_back(std::mem::take(own));
            self.handed += 1;
        }
        let noted = if apart { &mut *scratch } else { &mut *own };
        self.with(|situation, numbers| {
            for (index, mut wish) in wishes.into_iter().enumerate() {
                if let Some((_, found)) = known.iter().find(|(at, _)| *at == index) {
                    let outcome =
                        if found.is_ok() { MessageOutcome::Repeated } else { MessageOutcome::Refused };
                    message_not_recorded(wish.performative, outcome);
                    results.push(found.clone().map(|outcome| Place::Known(Box::new(outcome))));
                    continue;
                }
                if wish.id.is_some_and(|id| noted.holds(id)) {
                    results.push(Err(conflict(index, wish.id, "another message of this request")));
                    continue;
                }
                words.find(drafts, &mut wish);
                let names = words.names(&wish);
                let (start, performative) = (drafts.len(), wish.performative);
                match decide_send(situation, noted, wish, numbers, drafts) {
                    Ok(at) => {
                        words.note(names, at);
                        results.push(Ok(Place::Draft(at)));
                    }
                    Err(refusal) => {
                        message_not_recorded(performative, MessageOutcome::Refused);
                        drafts.truncate(start);
                        results.push(Err(Refusal { index, ..refusal }));
                    }
                }
            }
        });
        if apart {
            self.handed -= 1;
            *own = self.under_way.pop_back().unwrap_or_default();
        }
        if atomic && results.iter().any(Result::is_err) {
            drafts.truncate(before);
            scratch.clear();
            let refusals = results.into_iter().filter_map(Result::err).collect();
            let _ = answer.send(Err(TalkError::Refused(refusals)));
            return;
        }
        if apart {
            own.absorb(scratch);
        }
        self.follow(&draw.drafts[before..]);
        draw.waiting.push(Waiting::Send { from: before, results, answer });
    }

    fn replay(
        &mut self,
        draw: &mut Draw,
        (dead_letter, once_more): (Seq, bool),
        wish: Outgoing,
        answer: Answer<SentResults>,
    ) {
        let letter = self.with(|situation, _| {
            let letter = situation.state.conversations.dead_letters().get(&dead_letter)?;
            Some(letter.replayed.last().copied())
        });
        let refused = match letter {
            None => Some(no_dead_letter(dead_letter)),
            Some(Some(last)) if !once_more => Some(replayed(dead_letter, &last.to_string())),
            Some(_) => None,
        };
        if let Some(refused) = refused {
            let _ = answer.send(Err(refused));
            return;
        }
        let before = draw.waiting.len();
        self.send(draw, vec![wish], true, answer);
        let Some(Waiting::Send { results, .. }) = draw.waiting.get(before) else { return };
        if let Some(Ok(Place::Draft(at))) = results.first()
            && let Event::Conversation(ConversationEvent::MessageSent(message)) = &draw.drafts[*at].event
        {
            let event = ConversationEvent::DeadLetterReplayed { dead_letter, message: message.id };
            let stream = draw.drafts[*at].stream.clone();
            draw.drafts.push(system(stream, event));
            draw.own.replay(dead_letter);
        }
    }

    /// Messages whose numbers were used before: the first answer, or a conflict.
    fn known(&self, wishes: &[Outgoing]) -> Result<Vec<(usize, Known)>, TalkError> {
        let mut known = Vec::new();
        for (index, wish) in wishes.iter().enumerate() {
            let Some(id) = wish.id else { continue };
            let Some(seq) = self.talk.message(id).map_err(TalkError::Store)? else { continue };
            let filter = caxton_events::log::Filter { until: Some(seq), ..Default::default() };
            let record = self.log.reader().scan(seq, &filter).next().transpose().map_err(TalkError::Read)?;
            let Some(record) = record else { continue };
            let Event::Conversation(ConversationEvent::MessageSent(mut message)) = record.event else {
                continue;
            };
            let answer = if wish.became(&message) {
                Ok(SentOutcome::of(record.seq, record.recorded_at, &mut message, true))
            } else {
                Err(conflict(index, Some(id), &format!("another message, recorded at {}", seq.0)))
            };
            known.push((index, answer));
        }
        Ok(known)
    }

    fn upkeep(&mut self, draw: &mut Draw, actor: &str, wish: &Upkeep, answer: Answer<Done>) {
        let (before, head) = (draw.drafts.len(), self.log.head().seq);
        let Draw { drafts, own, .. } = draw;
        let decided =
            self.with(|situation, numbers| decide_upkeep(situation, own, actor, wish, head, numbers, drafts));
        match decided {
            Ok(()) => {
                let range = before..draw.drafts.len();
                draw.own.change(&draw.drafts[before..]);
                self.follow(&draw.drafts[before..]);
                if range.is_empty() {
                    let _ = answer.send(Ok(Done { seq: head, record: None, recorded: 0 }));
                } else {
                    draw.waiting.push(Waiting::Upkeep(range, answer));
                }
            }
            Err(refusal) => {
                let _ = answer.send(Err(TalkError::Refused(vec![refusal])));
            }
        }
    }

    /// Events that others vouch for are a batch of their own: one that is too large takes nothing else with it. They build
    /// on nothing that is under way.
    fn record(&mut self, draw: &mut Draw, drafts: Vec<Draft>, answer: Answer<Vec<Seq>>) {
        if drafts.is_empty() {
            let _ = answer.send(Ok(Vec::new()));
            return;
        }
        self.submit(draw, Some(&self.series));
        draw.own.change(&drafts);
        self.follow(&drafts);
        let count = drafts.len();
        (draw.drafts, draw.waiting) = (drafts, vec![Waiting::Record(count, answer)]);
        self.submit(draw, None);
    }

    /// Hands the drafts so far to the log as one batch.
    fn submit(&self, draw: &mut Draw, series: Option<&Series>) {
        let (drafts, waiting) = (std::mem::take(&mut draw.drafts), std::mem::take(&mut draw.waiting));
        if drafts.is_empty() {
            for waiting in waiting {
                answer_known(waiting);
            }
            return;
        }
        match self.log.submit_drafts(&drafts, series) {
            Ok(ticket) => draw.parts.push(Part { drafts, ticket, waiting }),
            Err(closed) => {
                let error = AppendError::from(closed);
                for waiting in waiting {
                    waiting.fail(&error);
                }
            }
        }
    }

    pub(super) fn hand_over(&mut self, mut draw: Draw) {
        self.submit(&mut draw, Some(&self.series));
        if draw.parts.is_empty() {
            return;
        }
        let group = Group { number: self.handed + 1, series: self.series_broken, parts: draw.parts };
        // Otherwise the fold thread is gone: what is durable is folded at the next start, and nobody waits for it.
        if self.folds.send(group).is_ok() {
            self.handed += 1;
            self.under_way.push_back(draw.own);
        }
    }
}

/// Forgets the groups up to `mark`, of those handed over: they are folded.
pub(super) fn forget_folded(
    under_way: &mut VecDeque<Overlay>,
    spare: &mut Vec<Overlay>,
    (mark, handed): (u64, u64),
) {
    let folded = under_way.len().saturating_sub((handed - mark.min(handed)) as usize);
    for mut overlay in under_way.drain(..folded) {
        if spare.len() < SPARE_MAX {
            overlay.clear();
            spare.push(overlay);
        }
    }
}

impl Waiting {
    pub(super) fn fail(self, error: &AppendError) {
        self.tell(TalkError::Log(error.clone()));
    }

    pub(super) fn tell(self, error: TalkError) {
        match self {
            Self::Send { answer, .. } => drop(answer.send(Err(error))),
            Self::Upkeep(_, answer) => drop(answer.send(Err(error))),
            Self::Record(_, answer) => drop(answer.send(Err(error))),
        }
    }
}

/// Answers what needed no event: messages that were known already, or refused each for itself.
fn answer_known(waiting: Waiting) {
    if let Waiting::Send { results, answer, .. } = waiting {
        let results = results.into_iter().filter_map(|result| match result {
            Ok(Place::Known(outcome)) => Some(Ok(*outcome)),
            Ok(Place::Draft(_)) => None,
            Err(refusal) => Some(Err(refusal)),
        });
        let _ = answer.send(Ok(results.collect()));
    }
}

pub(super) fn system(stream: String, event: ConversationEvent) -> Draft {
    Draft { stream, actor: SYSTEM.to_owned(), correlation: None, causation: None, event: event.into() }
}

fn conflict(index: usize, id: Option<MessageId>, what: &str) -> Refusal {
    let id = id.map(|id| id.to_string()).unwrap_or_default();
    Refusal {
        code: RefusalCode::MessageConflict,
        index,
        field: "message_id".to_owned(),
        message: format!("{id} is the number of {what}"),
        remedy: "give a new message a new message_id, or leave it out".to_owned(),
    }
}
