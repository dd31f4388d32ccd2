//! All turns of the server: takes messages from the inboxes of the agents that run, decides who is next, and runs turns
//! beside each other. What one agent does never stops another.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caxton_events::agent::Circuit;
use caxton_events::conversation::{Performative, Priority};
use caxton_events::{AgentEvent, AgentId, CapabilityName, Draft, Event, Seq, Timestamp};
use futures::FutureExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::batching::{BatchRules, Batcher};
use super::cancel::{Requests, is_quick};
use super::circuit::{Breaker, BreakerRules};
use super::ports::{Agents, Delivery, Found, Inbox, PortError, Room};
use super::queues::{Classifier, Lane, Picked, QueueFull, QueueRule, Queues};
use super::runner::{Outcome, Prepared, World, answer_cancel, memory_ask, run_turn};
use super::spec::Agent;
use crate::config::Config;
use crate::failure;
use crate::telemetry::{self, TurnOutcome};
use crate::toolbox::Waits;

/// Wait before a turn that could not be recorded goes on.
const STUCK_WAIT: Duration = Duration::from_secs(1);
/// The same before one whose conversation is being erased, which may take until the next start.
const ERASURE_WAIT: Duration = Duration::from_secs(15);

/// How turns are scheduled.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Turns at a time; one that waits for another agent's answer is not counted while it does.
    pub turns_max: usize,
    /// The queues.
    pub queues: Vec<QueueRule>,
    /// Who goes to which queue.
    pub classifier: Classifier,
    /// How conversations are prepared together.
    pub batch: BatchRules,
    /// When an agent that keeps failing is left alone.
    pub breaker: BreakerRules,
    /// Time for turns under way when the server stops; then they are cut off, and go on at the next start.
    pub drain: Duration,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let (queues, classifier) = Classifier::new(&config.request_handling);
        Self {
            turns_max: config.server.max_concurrent_conversations,
            queues,
            classifier,
            batch: BatchRules::from(&config.conversation_processing),
            breaker: BreakerRules {
                failures: config.agents.circuit_failures,
                open_for: config.agents.circuit_pause,
            },
            drain: config.server.shutdown_timeout,
        }
    }
}

/// Runs the turns of all agents.
#[derive(Debug)]
pub struct Scheduler {
    world: Arc<World>,
    inbox: Arc<dyn Inbox>,
    agents: Arc<Agents>,
    settings: Settings,
    waits: Arc<Waits>,
    queues: Mutex<Queues<Delivery>>,
    epoch: Instant,
}

impl Scheduler {
    /// A scheduler that has not begun. `waits` are of the turns that it will run.
    pub fn new(
        world: Arc<World>,
        inbox: Arc<dyn Inbox>,
        agents: Arc<Agents>,
        settings: Settings,
        waits: Arc<Waits>,
    ) -> Self {
        let queues = Mutex::new(Queues::new(settings.queues.clone()));
        Self { world, inbox, agents, settings, waits, queues, epoch: Instant::now() }
    }

    /// Whether there is room for a message like this to these agents, or to anybody when they are not known yet: asked
    /// before it is accepted from outside.
    ///
    /// # Errors
    ///
    /// [`QueueFull`], with the time after which to try again.
    pub fn check(
        &self,
        capability: Option<&CapabilityName>,
        priority: Priority,
        agents: &[&AgentId],
    ) -> Result<(), QueueFull> {
        let queue = self.settings.classifier.queue(capability, priority);
        let queues = self.queues();
        let checked = match agents {
            [] => queues.check(queue),
            agents => agents.iter().try_for_each(|agent| queues.check_for(queue, agent)),
        };
        drop(queues);
        if let Err(full) = &checked {
            telemetry::agent_queue_refused(&full.queue);
        }
        checked
    }

    /// Runs turns until `shutdown`, then lets those under way finish. `circuits` are as they were recorded last. Returns
    /// how many turns were cut off; they go on at the next start.
    pub async fn run(
        &self,
        circuits: HashMap<AgentId, Breaker>,
        shutdown: impl Future<Output = ()>,
    ) -> usize {
        let mut shutdown = pin!(shutdown);
        let mut work = Work {
            scheduler: self,
            batch: Batcher::new(self.settings.batch),
            breakers: circuits,
            tasks: JoinSet::new(),
            under_way: HashMap::new(),
            requests: Requests::default(),
            quick: HashSet::new(),
            turns: 0,
            preparing: 0,
        };
        loop {
            work.begin_what_can();
            work.measure();
            let own = |queue: usize, agent: &AgentId| !self.queues().holds(queue, agent);
            let room = Room { queues: self.queues().room(), own: &own };
            let wake = work.wake();
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(ended) = work.tasks.join_next(), if !work.tasks.is_empty() => {
                    if let Some(steps) = work.settle(ended.ok()) {
                        work.begin_turns(steps);
                    }
                }
                taken = self.inbox.next(&room) => work.queue(taken),
                () = self.agents.changed() => work.let_go(),
                // There is room for another turn.
                () = self.waits.begun() => (),
                () = sleep_until(wake.unwrap_or(self.epoch)), if wake.is_some() => (),
            }
        }
        work.drain().await
    }

    fn queues(&self) -> MutexGuard<'_, Queues<Delivery>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// A moment of the world on the scheduler's own clock, which is never set back.
    fn moment(&self, at: Timestamp) -> Duration {
        let ahead = at.unix_micros().saturating_sub(self.world.clock.now().unix_micros());
        self.now() + Duration::from_micros(ahead)
    }
}

/// The lane that a message waits in.
fn lane_of(delivery: &Delivery) -> Lane {
    Lane { agent: delivery.agent.clone(), conversation: delivery.message.conversation.clone() }
}

/// A message that is being handled, and who handles it.
type Taken = (Picked<Delivery>, Arc<Agent>);

/// What the end of a turn says about its agent.
enum Verdict {
    Worked,
    Broke,
    /// Nothing: it was about what was asked, or about nothing any more.
    None,
    /// Nothing before this moment.
    Later(Timestamp),
    /// Nothing could be recorded or sent.
    Stuck,
}

/// What a task ends with.
enum Step {
    /// A batch is prepared.
    Prepared(Vec<(Taken, Prepared)>),
    /// A turn ended.
    Ended(Box<Picked<Delivery>>, Outcome, Duration),
    /// A circuit was recorded.
    Noted,
}

/// What is under way.
struct Work<'a> {
    scheduler: &'a Scheduler,
    batch: Batcher<Taken>,
    breakers: HashMap<AgentId, Breaker>,
    tasks: JoinSet<Step>,
    /// Turns of each agent.
    under_way: HashMap<AgentId, usize>,
    /// What can be taken back.
    requests: Requests,
    /// What was begun past the limits and the circuit of its agent, since nothing has to be thought about it.
    quick: HashSet<(AgentId, Seq)>,
    turns: usize,
    /// Batches that are being prepared.
    preparing: usize,
}

impl Work<'_> {
    /// Puts messages in their queues. Those of agents that do not run any more go back.
    fn queue(&mut self, taken: Vec<Delivery>) {
        let scheduler = self.scheduler;
        for delivery in taken {
            let message = &delivery.message;
            let queue = scheduler.settings.classifier.queue(delivery.capability(), message.priority);
            let lane = lane_of(&delivery);
            let not_before = delivery.not_before.map_or(Duration::ZERO, |at| scheduler.moment(at));
            if scheduler.agents.get(&delivery.agent).is_none() {
                scheduler.inbox.put_back(delivery);
                continue;
            }
            self.requests.note(&lane, &delivery);
            if message.performative == Performative::Cancel {
                self.requests.take_back(&lane, &delivery);
                scheduler.queues().hasten(&lane, is_quick);
            }
            let seq = delivery.seq;
            let pushed =
                scheduler.queues().push_for(queue, lane.clone(), delivery, scheduler.now(), not_before);
            if let Err((delivery, full)) = pushed {
                tracing::warn!(%full, "the inbox gave more than there is room for; the message stays there");
                self.requests.forget(&lane, seq);
                scheduler.inbox.put_back(delivery);
            }
        }
    }

    /// Gives back what waits for agents that do not run any more.
    fn let_go(&mut self) {
        let scheduler = self.scheduler;
        let mut queues = scheduler.queues();
        let mut gone: Vec<AgentId> =
            queues.agents().filter(|agent| scheduler.agents.get(agent).is_none()).cloned().collect();
        gone.dedup();
        for delivery in gone.iter().flat_map(|agent| queues.remove(agent)) {
            self.requests.forget(&lane_of(&delivery), delivery.seq);
            scheduler.inbox.put_back(delivery);
        }
    }

    /// Takes up what may be taken up, and prepares it in batches.
    fn begin_what_can(&mut self) {
        let scheduler = self.scheduler;
        loop {
            while self.has_room() && !self.batch.is_full() {
                let Some(taken) = self.pick() else { break };
                let urgent = taken.0.queue == 0 && scheduler.settings.queues.len() > 1;
                self.batch.add(taken, urgent, scheduler.now());
            }
            let Some(batch) = self.batch.flush(scheduler.now(), self.preparing == 0) else { return };
            telemetry::batch_formed(batch.len());
            self.preparing += 1;
            let (world, inbox) = (Arc::clone(&scheduler.world), Arc::clone(&scheduler.inbox));
            self.tasks.spawn(prepare(world, inbox, batch, scheduler.settings.batch));
        }
    }

    /// Whether there is room for another turn. One that waits for another agent's answer leaves its place to others: that
    /// agent's turn may be among them.
    fn has_room(&self) -> bool {
        let Scheduler { settings, waits, .. } = self.scheduler;
        self.turns.saturating_sub(waits.turns()) < settings.turns_max
    }

    fn pick(&mut self) -> Option<Taken> {
        let scheduler = self.scheduler;
        let now = scheduler.world.clock.now();
        let mut running: HashMap<AgentId, Option<Arc<Agent>>> = HashMap::new();
        let ready = |delivery: &Delivery| {
            let agent = running
                .entry(delivery.agent.clone())
                .or_insert_with(|| scheduler.agents.get(&delivery.agent));
            let under_way = self.under_way.get(&delivery.agent).copied().unwrap_or_default();
            let lets_through = || self.breakers.get(&delivery.agent).is_none_or(|one| one.lets_through(now));
            agent.as_ref().is_some_and(|agent| {
                let most = agent.spec.limits.conversations_max.max(1);
                is_quick(delivery) || (under_way < most && lets_through())
            })
        };
        let picked = scheduler.queues().pick(scheduler.now(), ready)?;
        let name = &picked.item.agent;
        let agent = running.remove(name).flatten().or_else(|| scheduler.agents.get(name));
        let Some(agent) = agent else {
            scheduler.queues().done(&picked.lane);
            self.requests.forget(&picked.lane, picked.item.seq);
            scheduler.inbox.put_back(picked.item);
            return None;
        };
        self.turns += 1;
        *self.under_way.entry(name.clone()).or_default() += 1;
        if is_quick(&picked.item) {
            self.quick.insert((name.clone(), picked.item.seq));
        } else if let Some(breaker) = self.breakers.get_mut(name)
            && let Some(circuit) = breaker.begin()
        {
            let event = breaker.event(name, circuit);
            self.note(event);
        }
        let queue = scheduler.settings.queues.get(picked.queue).map_or("", |rule| rule.name.as_str());
        telemetry::agent_queue_served(queue, picked.waited, picked.late);
        Some((picked, agent))
    }

    fn begin_turns(&mut self, prepared: Vec<(Taken, Prepared)>) {
        for ((picked, agent), prepared) in prepared {
            let (world, inbox) = (Arc::clone(&self.scheduler.world), Arc::clone(&self.scheduler.inbox));
            self.tasks.spawn(async move {
                let started = Instant::now();
                let outcome = handle(&world, inbox.as_ref(), &agent, &picked.item, prepared).await;
                Step::Ended(Box::new(picked), outcome, started.elapsed())
            });
        }
    }

    /// Takes note of a task's end; a prepared batch is given back to be begun.
    fn settle(&mut self, ended: Option<Step>) -> Option<Vec<(Taken, Prepared)>> {
        match ended? {
            Step::Noted => None,
            Step::Prepared(prepared) => {
                self.preparing -= 1;
                Some(prepared)
            }
            Step::Ended(picked, outcome, took) => {
                self.end(*picked, outcome, took);
                None
            }
        }
    }

    fn end(&mut self, picked: Picked<Delivery>, outcome: Outcome, took: Duration) {
        let scheduler = self.scheduler;
        let agent = picked.item.agent.clone();
        self.turns -= 1;
        if let Some(count) = self.under_way.get_mut(&agent) {
            *count -= 1;
            if *count == 0 {
                self.under_way.remove(&agent);
            }
        }
        let (word, verdict) = match &outcome {
            Outcome::Finished => (TurnOutcome::Finished, Verdict::Worked),
            Outcome::Gone => (TurnOutcome::Finished, Verdict::None),
            Outcome::Retry { .. } => (TurnOutcome::Retried, Verdict::Broke),
            Outcome::Waits { not_before, .. } => (TurnOutcome::Retried, Verdict::Later(*not_before)),
            Outcome::Failed { blame: true, .. } => (TurnOutcome::Failed, Verdict::Broke),
            Outcome::Failed { blame: false, .. } => (TurnOutcome::Failed, Verdict::None),
            Outcome::TakenBack => (TurnOutcome::Cancelled, Verdict::None),
            Outcome::Stuck(_) => (TurnOutcome::Stuck, Verdict::Stuck),
        };
        telemetry::turn_ended(word, took);
        if !self.quick.remove(&(agent.clone(), picked.item.seq)) {
            match verdict {
                Verdict::Worked => self.end_circuit(&agent, Some(true)),
                Verdict::Broke => self.end_circuit(&agent, Some(false)),
                Verdict::Stuck => self.end_circuit(&agent, None),
                // The next one may show at once how the agent does.
                Verdict::None => self.put_off_circuit(&agent, scheduler.world.clock.now()),
                Verdict::Later(not_before) => self.put_off_circuit(&agent, not_before),
            }
        }
        if !matches!(outcome, Outcome::Retry { .. } | Outcome::Waits { .. } | Outcome::Stuck(_)) {
            self.requests.forget(&picked.lane, picked.item.seq);
        }
        let now = scheduler.now();
        match outcome {
            Outcome::Finished | Outcome::Gone => scheduler.queues().done(&picked.lane),
            Outcome::TakenBack => {
                tracing::info!(%agent, message = %picked.item.seq, "a message was taken back");
                scheduler.queues().done(&picked.lane);
            }
            Outcome::Failed { reason, .. } => {
                tracing::warn!(%agent, message = %picked.item.seq, reason, "a message is given up");
                scheduler.queues().done(&picked.lane);
            }
            Outcome::Retry { not_before, reason } | Outcome::Waits { not_before, reason } => {
                tracing::info!(%agent, message = %picked.item.seq, reason, "a message is taken up again later");
                // What was taken back meanwhile has nothing to wait for.
                let not_before = if is_quick(&picked.item) { now } else { scheduler.moment(not_before) };
                scheduler.queues().put_back(picked, now, not_before);
            }
            Outcome::Stuck(error) if error.is_being_erased() => {
                tracing::info!(%agent, message = %picked.item.seq, "a turn waits for an erasure to be complete");
                scheduler.queues().put_back(picked, now, now + ERASURE_WAIT);
            }
            Outcome::Stuck(error) => {
                let error = failure::chain(&error);
                tracing::error!(%agent, message = %picked.item.seq, error, "a turn is stuck and goes on later");
                scheduler.queues().put_back(picked, now, now + STUCK_WAIT);
            }
        }
    }

    /// A turn said nothing about the agent, such as one that waits for its model.
    fn put_off_circuit(&mut self, agent: &AgentId, until: Timestamp) {
        let changed = self
            .breakers
            .get_mut(agent)
            .and_then(|breaker| breaker.put_off(until).map(|circuit| breaker.event(agent, circuit)));
        if let Some(event) = changed {
            self.note(event);
        }
    }

    /// `verdict`: whether the turn succeeded; nothing, when its end says nothing about the agent.
    fn end_circuit(&mut self, agent: &AgentId, verdict: Option<bool>) {
        let now = self.scheduler.world.clock.now();
        let breaker = self.breakers.entry(agent.clone()).or_default();
        // A log that fails is not the agent's fault; only a circuit that waits for this turn has to hear of it.
        let changed = if verdict.is_none() && breaker.lets_through(now) {
            None
        } else {
            breaker.end(verdict.unwrap_or(false), now, &self.scheduler.settings.breaker)
        };
        let event = changed.map(|circuit: Circuit| breaker.event(agent, circuit));
        if *breaker == Breaker::default() {
            self.breakers.remove(agent);
        }
        if let Some(event) = event {
            self.note(event);
        }
    }

    fn note(&mut self, event: AgentEvent) {
        let world = Arc::clone(&self.scheduler.world);
        self.tasks.spawn(async move {
            let draft = Draft {
                stream: "agents".to_owned(),
                actor: "system".to_owned(),
                correlation: None,
                causation: None,
                event: Event::Agent(event),
            };
            if let Err(error) = world.log.record(vec![draft]).await {
                tracing::error!(error = failure::chain(&error), "the state of a circuit was not recorded");
            }
            Step::Noted
        });
    }

    /// When there is something to do though nothing happens.
    fn wake(&self) -> Option<Instant> {
        let scheduler = self.scheduler;
        let (now, world_now) = (scheduler.now(), scheduler.world.clock.now());
        let circuits = self.breakers.values().filter_map(Breaker::until).filter(|until| *until > world_now);
        let circuit = circuits.min().map(|until| scheduler.moment(until));
        let due = [self.batch.due(), scheduler.queues().next_due(now), circuit].into_iter().flatten().min();
        due.map(|due| scheduler.epoch + due)
    }

    fn measure(&self) {
        telemetry::turns_running(self.turns);
        let queues = self.scheduler.queues();
        for (rule, depth) in queues.rules().zip(queues.depths()) {
            telemetry::agent_queue_measured(&rule.name, depth);
        }
    }

    /// Waits for turns under way; how many had to be cut off. What waits stays in the inboxes.
    async fn drain(mut self) -> usize {
        let limit = self.scheduler.settings.drain;
        self.turns -= self.batch.take_back().len();
        let ended = timeout(limit, async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Some(steps) = self.settle(ended.ok()) {
                    self.turns -= steps.len();
                }
            }
        });
        if ended.await.is_err() {
            tracing::warn!(turns = self.turns, "turns are cut off; they go on at the next start");
        }
        self.tasks.shutdown().await;
        self.turns
    }
}

/// Searches memory for all of a batch at once.
async fn prepare(world: Arc<World>, inbox: Arc<dyn Inbox>, batch: Vec<Taken>, rules: BatchRules) -> Step {
    let gate = Arc::new(Semaphore::new(rules.parallel.max(1)));
    let mut asks = Vec::new();
    let mut asked_by = Vec::new();
    if rules.search_together && batch.len() > 1 {
        for (at, (picked, agent)) in batch.iter().enumerate() {
            // Nothing is asked for a message that was erased or taken back while it waited.
            if !inbox.is_done(&picked.item.agent, picked.item.seq)
                && !is_quick(&picked.item)
                && let Some(ask) = memory_ask(agent, &picked.item)
            {
                asks.push(ask);
                asked_by.push(at);
            }
        }
    }
    let mut found: HashMap<usize, Found> = HashMap::new();
    if !asks.is_empty() {
        let longest = batch.iter().map(|(_, agent)| agent.spec.limits.memory_search_timeout).max();
        let search = AssertUnwindSafe(world.sources.search(asks)).catch_unwind();
        // Without an answer, each turn asks for itself, and reports what it is told.
        if let Ok(Ok(answers)) = timeout(longest.unwrap_or_default(), search).await {
            found = asked_by.into_iter().zip(answers).collect();
        }
    }
    let prepared = batch
        .into_iter()
        .enumerate()
        .map(|(at, taken)| (taken, Prepared { found: found.remove(&at), gate: Some(Arc::clone(&gate)) }));
    Step::Prepared(prepared.collect())
}

/// Runs a turn, and acknowledges its message when that is done with.
async fn handle(
    world: &World,
    inbox: &dyn Inbox,
    agent: &Agent,
    delivery: &Delivery,
    prepared: Prepared,
) -> Outcome {
    // A tool of an earlier turn may have waited for this message, and it may have been erased.
    let outcome = if inbox.is_done(&delivery.agent, delivery.seq) {
        Outcome::Gone
    } else if delivery.message.performative == Performative::Cancel {
        answer_cancel(world, agent, delivery).await
    } else {
        run_turn(world, agent, delivery, prepared).await
    };
    if matches!(outcome, Outcome::Retry { .. } | Outcome::Waits { .. } | Outcome::Stuck(_)) {
        return outcome;
    }
    let acknowledged = AssertUnwindSafe(inbox.done(&delivery.agent, delivery.seq)).catch_unwind().await;
    match acknowledged {
        Ok(Ok(())) => outcome,
        Ok(Err(error)) => Outcome::Stuck(error),
        Err(_) => Outcome::Stuck(PortError {
            tried: "could not acknowledge a message",
            source: "the inbox broke in the middle".into(),
        }),
    }
}
