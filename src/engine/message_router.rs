//! The one owner of messages: decides a group of requests, hands it to the log, decides the next while that one syncs.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_events::conversation::ConversationEvent;
use caxton_events::log::{AppendError, Log, Ticket};
use caxton_events::{Clock as _, ConversationId, Draft, Event, MessageId, Seq, Timestamp};
use caxton_projections::conversations::{Deadline, SYSTEM};
use caxton_projections::talk::TalkReader;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::SystemClock;
use super::answers::Words;
use super::talk::{Answer, Done, Request, SentOutcome, SentResults, TalkError};
use crate::commands::talk::{Numbers, Outgoing, Overlay, Settings, Situation, decide_send, decide_upkeep};
use crate::commands::{Refusal, RefusalCode};
use crate::telemetry::{MessageOutcome, message_not_recorded};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Events that one look at the deadlines records at the most.
const DUE_MAX: usize = 1_024;
/// Messages decided together at the most, unless one request has more.
const GROUP_MAX: usize = 2_048;
/// Text of a group after which it is closed, in bytes.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// Empty overlays that are kept.
const SPARE_MAX: usize = 4;

/// What happens to a request once its part of the group is durable and folded.
pub(super) enum Waiting {
    /// Places of the messages among the part's drafts, or their refusals.
    Send(Vec<Result<Place, Refusal>>, Answer<SentResults>),
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
    pub(super) parts: Vec<Part>,
}

pub(super) struct MessageRouter {
    pub(super) log: Arc<Log>,
    pub(super) talk: TalkReader,
    pub(super) requests: Receiver<Request>,
    pub(super) folds: Sender<Group>,
    pub(super) settings: Settings,
    pub(super) numbers: Numbers,
    /// Groups handed over so far.
    pub(super) handed: u64,
    /// What the groups that are not folded yet changed, the oldest first.
    pub(super) under_way: VecDeque<Overlay>,
    /// Folded ones, empty: their maps need not grow again.
    pub(super) spare: Vec<Overlay>,
    pub(super) deadlines: BinaryHeap<Reverse<(Timestamp, ConversationId)>>,
    /// Deadlines whose events are under way.
    pub(super) fired: HashSet<(Seq, Deadline)>,
    /// Requests that must wait for the groups before them.
    pub(super) deferred: VecDeque<Request>,
    /// The first of them needs to see the groups before it folded.
    pub(super) must_settle: bool,
}

/// What a message whose number was used before comes to.
type Known = Result<SentOutcome, Refusal>;

/// A group while it is put together.
#[derive(Default)]
struct Draw {
    parts: Vec<Part>,
    drafts: Vec<Draft>,
    waiting: Vec<Waiting>,
    own: Overlay,
    scratch: Overlay,
}

impl MessageRouter {
    /// Works until every sender is gone.
    pub(super) fn run(mut self) {
        {
            let talk = self.talk.clone();
            let state = talk.read();
            let open = state.conversations.iter().filter(|conversation| conversation.is_open());
            self.deadlines.extend(open.map(|row| Reverse((row.deadline(), row.id.clone()))));
        }
        let mut looked = Instant::now();
        loop {
            let first = match self.deferred.pop_front() {
                Some(request) => {
                    if std::mem::take(&mut self.must_settle) {
                        self.settle();
                    }
                    Some(request)
                }
                None => match self.requests.recv_timeout(TICK) {
                    Ok(request) => Some(request),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                },
            };
            if let Some(first) = first {
                let group = self.drain(first);
                self.decide(group);
            }
            if looked.elapsed() >= TICK {
                looked = Instant::now();
                self.look_at_deadlines();
            }
        }
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

    /// Waits until everything handed over is folded.
    fn settle(&mut self) {
        while self.talk.read().mark < self.handed {
            std::thread::sleep(Duration::from_micros(200));
        }
        let groups = self.under_way.len();
        forget(&mut self.under_way, groups, &mut self.spare);
    }

    fn decide(&mut self, group: Vec<Request>) {
        let mut draw = Draw { own: self.spare.pop().unwrap_or_default(), ..Draw::default() };
        let mut rest = group.into_iter();
        let mut bytes = 0;
        for request in rest.by_ref() {
            if self.must_wait(&request, &draw.own) {
                self.must_settle = true;
                self.deferred.push_back(request);
                break;
            }
            match request {
                Request::Record { drafts, answer } => self.record(&mut draw, drafts, answer),
                Request::Send { wishes, atomic, answer } => {
                    bytes += wishes.iter().map(|wish| wish.content.as_str().len()).sum::<usize>();
                    self.send(&mut draw, wishes, atomic, answer);
                }
                Request::Replay { dead_letter, wish, answer } => {
                    self.replay(&mut draw, dead_letter, *wish, answer);
                }
                Request::Upkeep { actor, wish, answer } => self.upkeep(&mut draw, &actor, &wish, answer),
            }
            if bytes > GROUP_BYTES_MAX {
                break;
            }
        }
        self.deferred.extend(rest);
        self.hand_over(draw);
    }

    /// Whether a message of the request bears a number that is under way: its first answer is not there yet.
    fn must_wait(&self, request: &Request, own: &Overlay) -> bool {
        let Request::Send { wishes, .. } = request else { return false };
        wishes
            .iter()
            .filter_map(|wish| wish.id)
            .any(|id| own.holds(id) || self.under_way.iter().any(|layer| layer.holds(id)))
    }

    /// Decides with the state as it is now; what is folded by now is no longer counted as under way.
    fn with<T>(&mut self, work: impl FnOnce(&Situation<'_>, &mut Numbers) -> T) -> T {
        let state = self.talk.read();
        let folded =
            self.under_way.len().saturating_sub((self.handed - state.mark.min(self.handed)) as usize);
        forget(&mut self.under_way, folded, &mut self.spare);
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
        draw.waiting.push(Waiting::Send(results, answer));
    }

    fn replay(&mut self, draw: &mut Draw, dead_letter: Seq, wish: Outgoing, answer: Answer<SentResults>) {
        let before = draw.waiting.len();
        self.send(draw, vec![wish], true, answer);
        let Some(Waiting::Send(results, _)) = draw.waiting.get(before) else { return };
        if let Some(Ok(Place::Draft(at))) = results.first()
            && let Event::Conversation(ConversationEvent::MessageSent(message)) = &draw.drafts[*at].event
        {
            let event = ConversationEvent::DeadLetterReplayed { dead_letter, message: message.id };
            let stream = draw.drafts[*at].stream.clone();
            draw.drafts.push(system(stream, event));
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

    fn upkeep(
        &mut self,
        draw: &mut Draw,
        actor: &str,
        wish: &crate::commands::talk::Upkeep,
        answer: Answer<Done>,
    ) {
        let (before, head) = (draw.drafts.len(), self.log.head().seq);
        let Draw { drafts, own, .. } = draw;
        let decided =
            self.with(|situation, numbers| decide_upkeep(situation, own, actor, wish, head, numbers, drafts));
        match decided {
            Ok(()) => {
                let range = before..draw.drafts.len();
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

    /// Events that others vouch for are a batch of their own: one that is too large takes nothing else with it.
    fn record(&mut self, draw: &mut Draw, drafts: Vec<Draft>, answer: Answer<Vec<Seq>>) {
        if drafts.is_empty() {
            let _ = answer.send(Ok(Vec::new()));
            return;
        }
        self.submit(draw);
        self.follow(&drafts);
        let count = drafts.len();
        (draw.drafts, draw.waiting) = (drafts, vec![Waiting::Record(count, answer)]);
        self.submit(draw);
    }

    /// Watches the deadlines of what is opened or extended.
    fn follow(&mut self, drafts: &[Draft]) {
        for draft in drafts {
            if let Event::Conversation(
                ConversationEvent::Opened { conversation, idle_timeout_millis, life_timeout_millis, .. }
                | ConversationEvent::Extended { conversation, idle_timeout_millis, life_timeout_millis },
            ) = &draft.event
            {
                let millis = *idle_timeout_millis.min(life_timeout_millis);
                let now = SystemClock.now().unix_micros();
                let at = Timestamp::from_unix_micros(now.saturating_add(millis.saturating_mul(1_000)));
                self.deadlines.push(Reverse((at, conversation.clone())));
            }
        }
    }

    /// Hands the drafts so far to the log as one batch.
    fn submit(&self, draw: &mut Draw) {
        let (drafts, waiting) = (std::mem::take(&mut draw.drafts), std::mem::take(&mut draw.waiting));
        if drafts.is_empty() {
            for waiting in waiting {
                answer_known(waiting);
            }
            return;
        }
        match self.log.submit_drafts(&drafts) {
            Ok(ticket) => draw.parts.push(Part { drafts, ticket, waiting }),
            Err(closed) => {
                let error = AppendError::from(closed);
                for waiting in waiting {
                    waiting.fail(&error);
                }
            }
        }
    }

    fn hand_over(&mut self, mut draw: Draw) {
        self.submit(&mut draw);
        if draw.parts.is_empty() {
            return;
        }
        self.handed += 1;
        self.under_way.push_back(std::mem::take(&mut draw.own));
        let group = Group { number: self.handed, parts: draw.parts };
        if let Err(lost) = self.folds.send(group) {
            // The fold thread is gone: what is durable is folded at the next start.
            lost.0.parts.into_iter().flat_map(|part| part.waiting).for_each(drop);
        }
    }

    /// Records what time alone has brought about.
    fn look_at_deadlines(&mut self) {
        let now = SystemClock.now();
        let talk = self.talk.clone();
        let state = talk.read();
        self.fired.retain(|(sent, which)| state.conversations.is_pending(*sent, *which));
        let mut drafts = Vec::new();
        for (timer, which) in state.conversations.due(now).take(DUE_MAX) {
            if !self.fired.insert((timer.sent, which)) {
                continue;
            }
            let (sent, message) = (timer.sent, timer.id);
            let event = match which {
                Deadline::Reply => ConversationEvent::ReplyOverdue { sent, message },
                Deadline::Expiry => {
                    ConversationEvent::MessageExpired { sent, message, receivers: timer.receivers.clone() }
                }
            };
            drafts.push(system(timer.conversation.as_str().to_owned(), event));
        }
        let mut own = Overlay::default();
        let mut later = Vec::new();
        while let Some(Reverse((at, _))) = self.deadlines.peek()
            && *at <= now
            && drafts.len() < DUE_MAX
        {
            let Some(Reverse((_, id))) = self.deadlines.pop() else { break };
            let again = Timestamp::from_unix_micros(now.unix_micros() + 1_000_000);
            match state.conversations.get(&id) {
                // Opened, and not folded yet.
                None => later.push(Reverse((again, id))),
                Some(row) if !row.is_open() => (),
                Some(row) if row.deadline() > now => later.push(Reverse((row.deadline(), id))),
                Some(row) => {
                    own.close(&id);
                    let (conversation, end) = (id.clone(), row.end_at_deadline());
                    let event = ConversationEvent::Closed { conversation, end };
                    drafts.push(system(id.as_str().to_owned(), event));
                }
            }
        }
        drop(state);
        self.deadlines.extend(later);
        if !drafts.is_empty() {
            let draw = Draw { drafts, own, ..Draw::default() };
            self.hand_over(draw);
        }
    }
}

/// Forgets the oldest so many groups: they are folded.
fn forget(under_way: &mut VecDeque<Overlay>, groups: usize, spare: &mut Vec<Overlay>) {
    for mut overlay in under_way.drain(..groups) {
        if spare.len() < SPARE_MAX {
            overlay.clear();
            spare.push(overlay);
        }
    }
}

impl Waiting {
    pub(super) fn fail(self, error: &AppendError) {
        match self {
            Self::Send(_, answer) => drop(answer.send(Err(TalkError::Log(error.clone())))),
            Self::Upkeep(_, answer) => drop(answer.send(Err(TalkError::Log(error.clone())))),
            Self::Record(_, answer) => drop(answer.send(Err(TalkError::Log(error.clone())))),
        }
    }
}

/// Answers what needed no event: messages that were known already, or refused each for itself.
fn answer_known(waiting: Waiting) {
    if let Waiting::Send(results, answer) = waiting {
        let results = results.into_iter().filter_map(|result| match result {
            Ok(Place::Known(outcome)) => Some(Ok(*outcome)),
            Ok(Place::Draft(_)) => None,
            Err(refusal) => Some(Err(refusal)),
        });
        let _ = answer.send(Ok(results.collect()));
    }
}

fn system(stream: String, event: ConversationEvent) -> Draft {
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
