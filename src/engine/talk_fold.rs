//! Folds what the router had recorded, as soon as it is durable; then answers, and wakes who waits for messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_events::conversation::ConversationEvent;
use caxton_events::log::{Appended, Filter, Log, LogClosed, Reader};
use caxton_events::{Draft, Event, Record, Seq};
use caxton_projections::driver::{catch_up, catch_up_to};
use caxton_projections::projection::Projection as _;
use caxton_projections::talk::{self, Talk, TalkStore};
use caxton_projections::view::{Part, Positions};
use crossbeam_channel::{Receiver, RecvTimeoutError, never, select};

use super::erase::{Scrub, until_free};
use super::inboxes::Wakers;
use super::message_router::{Group, Part as Batch, Place, Waiting};
use super::rebuild::Offer;
use super::talk::{Done, SentOutcome, TalkError};
use super::talk_redo::{Lost, outcome};
use crate::{failure, telemetry};

/// How long the thread waits for a group before it looks for records of others.
const IDLE: Duration = Duration::from_millis(20);
/// How often what is in memory is stored.
const STORE_EVERY: Duration = Duration::from_secs(1);
/// The same while so much changes that storing it takes long. What was not stored is folded again after a crash, which
/// the next start waits for.
const STORE_EVERY_MAX: Duration = Duration::from_secs(3);
/// Storing pauses so many times as long as it took.
const STORE_PAUSE: u32 = 12;

pub(super) struct TalkFold {
    pub(super) talk: Talk,
    pub(super) log: Reader,
    /// What is left of refused groups goes there once more.
    pub(super) writer: Arc<Log>,
    pub(super) lost: Lost,
    pub(super) groups: Receiver<Group>,
    /// Somebody else recorded what agents are to see at once.
    pub(super) nudges: Receiver<()>,
    /// Another fold to take in place of the one in use.
    pub(super) offers: Receiver<Offer<talk::TalkFold>>,
    /// One that includes more than the one in use, which is to come that far before.
    pub(super) offered: Option<Offer<talk::TalkFold>>,
    /// Something was erased from the log.
    pub(super) scrubs: Receiver<Scrub>,
    pub(super) positions: Arc<Positions>,
    pub(super) wakers: Arc<Wakers>,
    /// Whether it was told that the log is closed.
    pub(super) knows_closed: bool,
    /// Number of the last group that was taken.
    pub(super) taken: u64,
    /// The last record of these groups.
    pub(super) recorded: Seq,
}

impl TalkFold {
    /// Works until the router is gone.
    pub(super) fn run(mut self) {
        loop {
            select! {
                recv(self.groups) -> group => match group {
                    Ok(group) => self.take(group),
                    Err(_) => return,
                },
                recv(self.nudges) -> nudge => {
                    if nudge.is_err() {
                        self.nudges = never();
                    }
                    self.follow();
                }
                recv(self.offers) -> offer => match offer {
                    Ok(offer) => self.adopt(offer),
                    Err(_) => self.offers = never(),
                },
                recv(self.scrubs) -> scrub => match scrub {
                    Ok(answer) => self.fold_again(&answer),
                    Err(_) => self.scrubs = never(),
                },
                default(IDLE) => self.follow(),
            }
            if let Some(offer) = self.offered.take() {
                self.adopt(offer);
            }
        }
    }

    /// Folds what another fold lacks and takes it in place of the one in use; later, where it read records whose group is still
    /// under way.
    fn adopt(&mut self, offer: Offer<talk::TalkFold>) {
        if offer.fold.checkpoint() > self.talk.checkpoint() {
            self.follow();
            let goes_on = self.positions.standstill(Part::Talk).is_none() && self.log.closed().is_none();
            if goes_on && offer.fold.checkpoint() > self.talk.checkpoint() {
                self.offered = Some(offer);
                return;
            }
        }
        let (Offer { mut fold, answer }, checkpoint) = (offer, self.talk.checkpoint());
        let adopted = catch_up_to(&self.log, &mut fold, checkpoint, &mut |_, _| ())
            .map_err(|error| failure::chain(&error))
            .and_then(|_| self.talk.replace(fold).map_err(|fold| format!("it is at {}", fold.checkpoint())));
        if adopted.is_ok() {
            self.positions.advance(Part::Talk, checkpoint);
        }
        let _ = answer.send(adopted.map(|()| checkpoint));
    }

    /// Folds the log again without what was erased from it. Groups that wait have it still: they are folded before, or it would
    /// come back with them.
    pub(super) fn fold_again(&mut self, answer: &Scrub) {
        for group in self.groups.try_iter().take(self.groups.len()).collect::<Vec<_>>() {
            self.take(group);
        }
        let folded = self.talk.fold_again(&self.log).map_err(|error| failure::chain(&error));
        // Who asked may have gone; the next start asks again.
        let _ = answer.send(folded);
    }

    pub(super) fn take(&mut self, group: Group) {
        self.lost.enter(group.series);
        let last = group.parts.len().saturating_sub(1);
        for (index, Batch { drafts, ticket, waiting }) in group.parts.into_iter().enumerate() {
            match outcome(ticket) {
                Ok(appended) => {
                    let mark = if index == last { group.number } else { group.number - 1 };
                    let mut records = self.placed(drafts, &appended, mark);
                    for waiting in waiting {
                        answer(waiting, &mut records);
                    }
                }
                Err(error) => self.refused((drafts, waiting), &error, group.number - 1),
            }
        }
        // Also when a batch failed: what follows must not wait for it.
        self.taken = group.number;
        self.mark();
    }

    /// Tells the router that the groups so far are folded, which then forgets what it decided. Not while a record of theirs could
    /// not be folded: the state lacks it, and a number that was used would be taken for a new one.
    fn mark(&mut self) {
        let checkpoint = self.talk.checkpoint();
        if checkpoint >= self.recorded {
            self.talk.fold_marked(&[], checkpoint, self.taken);
        }
    }

    /// Folds a batch that is durable, and wakes who waits for messages.
    pub(super) fn placed(&mut self, drafts: Vec<Draft>, appended: &Appended, mark: u64) -> Vec<Record> {
        let records: Vec<Record> = appended.records(drafts).collect();
        telemetry::talk_recorded(&records);
        self.recorded = self.recorded.max(appended.last);
        let checkpoint = self.talk.checkpoint();
        if checkpoint.next() < appended.first
            && let Err(error) = self.pass_to(appended.first.previous())
        {
            self.stopped(&error);
        }
        let checkpoint = self.talk.checkpoint();
        if checkpoint.next() >= appended.first {
            let fresh = records.partition_point(|record| record.seq <= checkpoint);
            self.talk.fold_marked(&records[fresh..], appended.last, mark);
            self.positions.advance(Part::Talk, self.talk.checkpoint());
        }
        self.wakers.wake(&records);
        records
    }

    /// Folds what others recorded up to `through`.
    fn pass_to(&mut self, through: Seq) -> Result<(), String> {
        let filter = Filter { until: Some(through), kinds: Some(self.talk.kinds()), ..Filter::default() };
        let records =
            self.log.scan(self.talk.checkpoint().next(), &filter).collect::<Result<Vec<Record>, _>>();
        let records = records.map_err(|error| failure::chain(&error))?;
        self.talk.fold(&records, through).map_err(|error| failure::chain(&error))
    }

    /// Follows the log while no group is under way.
    pub(super) fn follow(&mut self) {
        if !self.groups.is_empty() {
            return;
        }
        if let Some(closed) = self.log.closed() {
            self.cut_off(&closed);
            return;
        }
        if self.log.head().seq == self.talk.checkpoint() {
            return;
        }
        match catch_up(&self.log, &mut self.talk, &mut |_, _| ()) {
            Ok(seq) => {
                self.mark();
                self.positions.advance(Part::Talk, seq);
            }
            Err(error) => self.stopped(&failure::chain(&error)),
        }
    }

    fn stopped(&mut self, error: &str) {
        if let Some(closed) = self.log.closed() {
            self.cut_off(&closed);
        } else if self.positions.standstill(Part::Talk).is_none() {
            tracing::error!(projection = Part::Talk.name(), %error, "a projection has stopped");
            self.positions.stop(Part::Talk, error.to_owned());
        }
    }

    /// The log is closed. This thread looks at it more often than any other, so that it is the one to tell, once. What the
    /// fold still lacks, it takes at the next start: nothing is wrong with it.
    fn cut_off(&mut self, closed: &LogClosed) {
        if !std::mem::replace(&mut self.knows_closed, true) {
            tracing::error!(
                reason = %closed.reason,
                "the log is closed: nothing is written until the cause is removed and the server is restarted"
            );
        }
        if self.log.head().seq > self.talk.checkpoint() && self.positions.standstill(Part::Talk).is_none() {
            self.positions.stop(Part::Talk, closed.to_string());
        }
    }
}

/// Answers a request whose drafts these records were.
pub(super) fn answer(waiting: Waiting, records: &mut [Record]) {
    match waiting {
        Waiting::Send { results, answer, .. } => {
            if answer.is_closed() {
                return;
            }
            let mut outcome = |at: usize| {
                let record = records.get_mut(at)?;
                let Event::Conversation(ConversationEvent::MessageSent(message)) = &mut record.event else {
                    return None;
                };
                Some(SentOutcome::of(record.seq, record.recorded_at, message, false))
            };
            let results = results.into_iter().filter_map(|result| match result {
                Ok(Place::Draft(at)) => outcome(at).map(Ok),
                Ok(Place::Known(known)) => Some(Ok(*known)),
                Err(refusal) => Some(Err(refusal)),
            });
            let _ = answer.send(Ok(results.collect()));
        }
        Waiting::Upkeep(range, answer) => {
            let recorded = range.len();
            let record = records.get(range).and_then(<[Record]>::last).cloned();
            let done = record.map(|record| Done { seq: record.seq, record: Some(record), recorded });
            let _ = answer.send(done.ok_or(TalkError::Stopped));
        }
        Waiting::Record(count, answer) => {
            let _ = answer.send(Ok(records.iter().take(count).map(|record| record.seq).collect()));
        }
    }
}

/// Stores what the start folded and reads the numbers of messages; then stores what is in memory now and then, and at the
/// end.
pub(super) fn store(mut store: TalkStore, stop: &Receiver<()>, scrubs: &Receiver<Scrub>) {
    let mut going_on = true;
    let mut knows_numbers = false;
    let mut fails = false;
    loop {
        let started = Instant::now();
        match store.flush() {
            // It is tried again after each pause, and told once.
            Err(error) if !std::mem::replace(&mut fails, true) => {
                tracing::warn!(error = %failure::chain(&error), "could not store agents and conversations; it is tried again, and what is not stored in the end is folded from the log at the next start");
            }
            Ok(()) if std::mem::take(&mut fails) => {
                tracing::info!("agents and conversations are stored again");
            }
            Ok(()) | Err(_) => (),
        }
        if !going_on {
            break;
        }
        let pause = pause(started.elapsed());
        if !std::mem::replace(&mut knows_numbers, true)
            && let Err(error) = store.learn_numbers()
        {
            tracing::warn!(error = %failure::chain(&error), "could not read the numbers of messages; each new one is looked up");
        }
        select! {
            recv(stop) -> _ => going_on = false,
            recv(scrubs) -> scrub => match scrub {
                Ok(answer) => drop(answer.send(until_free(|| store.scrub()))),
                // Nobody can ask any more: the end is near.
                Err(_) => going_on = matches!(stop.recv_timeout(pause), Err(RecvTimeoutError::Timeout)),
            },
            default(pause) => (),
        }
    }
    if let Err(error) = store.close() {
        tracing::warn!(%error, "could not move the journal of the talk into its file");
    }
}

/// How long to wait after storing took so long. Each agent and each conversation that changed is written once a time,
/// however often it changed: where there are many, the fewer times the less there is to write.
fn pause(took: Duration) -> Duration {
    (took * STORE_PAUSE).clamp(STORE_EVERY, STORE_EVERY_MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::pause;

    #[test]
    fn what_takes_long_is_stored_less_often() {
        for (took, waits) in [(0, 1_000), (50, 1_000), (200, 2_400), (5_000, 3_000)] {
            assert_eq!(pause(Duration::from_millis(took)), Duration::from_millis(waits), "{took}");
        }
    }
}
