//! Agents that run: the scheduler over the engine, fed by the agents directory.
//!
//! Reading order: this file (starting, following the directory, stopping), [`load`] (from a file's text to what runs),
//! [`mail`] over [`backlog`] (inboxes), [`journal`] (turns in the log), [`replies`] (what agents say), [`sources`] over
//! [`past`] (what they are told), [`tools`].

mod backlog;
mod journal;
mod load;
mod mail;
mod past;
mod replies;
mod sources;
#[cfg(test)]
mod tests;
mod tools;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caxton_events::agent::{AgentStatus, Circuit};
use caxton_events::conversation::Strategy;
use caxton_events::{AgentId, CapabilityName, ConversationId, Seq};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{broadcast, watch};

use self::journal::Journal;
use self::mail::Mail;
use self::past::Past;
use self::replies::Out;
use self::sources::Known;
use super::circuit::Breaker;
use super::ports::{Agents, Models, Sources as _};
use super::queues::QueueFull;
use super::runner::{RetryRules, World, memory_ask_of};
use super::scheduler::{Scheduler, Settings};
use super::spec::Agent;
use super::{AgentDirectory, LoadedAgent};
use crate::commands::talk::{Outgoing, To};
use crate::config::Config;
use crate::engine::{Engine, SystemClock};
use crate::failure;
use crate::llm::{Registry, RegistryError};
use crate::toolbox::http_client::{self, HttpClient};
use crate::toolbox::memory::{self, Memory, Ranking};
use crate::toolbox::message::{self, MessageTool};
use crate::toolbox::{Toolbox, Waits};

/// Pieces of answers that a slow listener may be behind.
const PIECES_MAX: usize = 1_024;
/// Wait before turns that could not be read are read again.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Time for the tools of a version that is loaded to open.
const TOOLS_TIMEOUT: Duration = Duration::from_secs(10);

/// Why no agent can run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The models of the configuration cannot be used.
    #[error(transparent)]
    Models(#[from] RegistryError),
    /// The system gives no threads.
    #[error("could not start the threads of the agents")]
    Threads(#[source] io::Error),
}

/// A piece of an answer while it is being made. What counts is the message that follows.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Who answers.
    pub agent: AgentId,
    /// Where.
    pub conversation: ConversationId,
    /// The text.
    pub text: Arc<str>,
}

/// What runs agents: their models, their tools and how memory is searched for them.
#[derive(Debug, Clone)]
pub struct Equipment {
    /// The models.
    pub models: Registry,
    /// The tools.
    pub tools: Toolbox,
    /// How memory is searched.
    pub ranking: Ranking,
    /// Turns that wait for the answer to a message.
    waits: Arc<Waits>,
}

impl Equipment {
    /// The tools that every server has, over `engine`, and those of the MCP servers of `config`.
    pub fn new(config: &Config, engine: &Engine, models: Registry, ranking: Ranking) -> Self {
        let out = Arc::new(Out::new(engine.clone(), Strategy::BestMatch));
        let waits = Arc::new(Waits::default());
        let tools = Toolbox::new()
            .with(memory::NAME, Arc::new(Memory::new(engine.clone(), ranking)))
            .with(http_client::NAME, Arc::new(HttpClient::new()))
            .with(message::NAME, Arc::new(MessageTool::new(out, Arc::clone(&waits))))
            .with_servers(&config.mcp_servers);
        engine.when_erased(models.forgetting());
        Self { models, tools, ranking, waits }
    }
}

/// The agents of the directory, running. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AgentRuntime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Handle,
    scheduler: Arc<Scheduler>,
    agents: Arc<Agents>,
    pieces: broadcast::Sender<Piece>,
    stop: watch::Sender<bool>,
    threads: Mutex<Option<Runtime>>,
    running: Mutex<Option<tokio::task::JoinHandle<usize>>>,
}

struct Handle(Engine);

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

impl AgentRuntime {
    /// Starts to run what `directory` has, on threads of its own. Turns that were under way when the server stopped go on.
    ///
    /// # Errors
    ///
    /// [`RuntimeError`]: nothing runs then.
    pub fn start(
        config: &Config,
        engine: &Engine,
        directory: &AgentDirectory,
        equipment: Equipment,
    ) -> Result<Self, RuntimeError> {
        let threads = Builder::new_multi_thread()
            .worker_threads(config.agent_worker_threads())
            .thread_name("caxton-agents")
            .enable_all()
            .build()
            .map_err(RuntimeError::Threads)?;
        let processing = &config.conversation_processing;
        let settings = Settings::from(config);
        let journal = Arc::new(Journal::new(engine.clone()));
        let pools = &config.memory_allocation.agent_memory;
        let idle_max = if pools.conversation_pool { pools.pool_size } else { 0 };
        let past = Arc::new(Past::new(engine.clone(), processing.conversation_cache_size, idle_max));
        let mail = Arc::new(Mail::new(
            engine.clone(),
            settings.classifier.clone(),
            settings.queues.len(),
            Arc::clone(&journal),
            Arc::clone(&past),
            Arc::clone(&equipment.waits),
        ));
        let known =
            Arc::new(Known::new(engine.clone(), equipment.ranking, past, processing.embedding_batch_size));
        forget_when_erased(engine, &mail, &known);
        let pieces = broadcast::channel(PIECES_MAX).0;
        let world = Arc::new(World {
            log: Arc::new(Arc::clone(&journal)),
            replies: Arc::new(Out::new(engine.clone(), Strategy::BestMatch)),
            sources: Arc::clone(&known) as _,
            tools: Arc::new(equipment.tools.clone()),
            models: models(&equipment.models)?,
            clock: Arc::new(SystemClock),
            retry: RetryRules::default(),
            heard: Some(heard(pieces.clone())),
        });
        let agents = Arc::new(Agents::new());
        let inbox = Arc::clone(&mail);
        let scheduler =
            Arc::new(Scheduler::new(world, inbox, Arc::clone(&agents), settings, equipment.waits));
        let (stop, stopped) = watch::channel(false);
        let follower = Follower {
            directory: directory.clone(),
            agents: Arc::clone(&agents),
            mail: Arc::clone(&mail),
            tools: equipment.tools,
            known,
            context_cache_ttl: processing.context_cache_ttl,
            loaded: BTreeMap::new(),
        };
        threads.spawn(until(stopped.clone(), async move { mail.read().await }));
        threads.spawn(until(stopped.clone(), follower.follow()));
        let (running, circuits) = (Arc::clone(&scheduler), circuits(engine));
        let running = threads.spawn(async move {
            let mut stopped = stopped;
            // Nothing is taken up before it is known what was begun.
            let begun = until(stopped.clone(), read_unfinished(journal));
            begun.await;
            // An error says that whoever could stop it is gone, which stops it too.
            running.run(circuits, async move { _ = stopped.wait_for(|stop| *stop).await }).await
        });
        let inner = Inner {
            engine: Handle(engine.clone()),
            scheduler,
            agents,
            pieces,
            stop,
            threads: Mutex::new(Some(threads)),
            running: Mutex::new(Some(running)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whether there is room for a message, asked before it is accepted from outside: only agents that run here have
    /// queues.
    ///
    /// # Errors
    ///
    /// [`QueueFull`], with the time after which to try again.
    pub fn check(&self, wish: &Outgoing) -> Result<(), QueueFull> {
        let agents = &self.inner.agents;
        if agents.is_empty() {
            return Ok(());
        }
        let scheduler = &self.inner.scheduler;
        match &wish.to {
            To::Agents(receivers) => {
                let here: Vec<&AgentId> =
                    receivers.iter().filter(|agent| agents.get(agent).is_some()).collect();
                if here.is_empty() { Ok(()) } else { scheduler.check(None, wish.priority, &here) }
            }
            To::Capability { name, .. } if self.is_offered_here(name) => {
                scheduler.check(Some(name), wish.priority, &[])
            }
            To::Capability { .. } => Ok(()),
        }
    }

    fn is_offered_here(&self, capability: &CapabilityName) -> bool {
        let talk = self.inner.engine.0.view().talk().read();
        let mut providers = talk.registry.providers(capability);
        providers.any(|row| self.inner.agents.get(&row.agent).is_some())
    }

    /// Hears pieces of answers as they are made.
    pub fn pieces(&self) -> broadcast::Receiver<Piece> {
        self.inner.pieces.subscribe()
    }

    /// Takes up nothing more. Turns under way have `server.shutdown_timeout` from now on to finish. Does not wait for them.
    pub fn begin_stop(&self) {
        // Receivers are gone only when all has ended already.
        let _ = self.inner.stop.send(true);
    }

    /// Takes up nothing more and lets turns under way finish, for what is left of their time where the end has begun before;
    /// what is cut off goes on at the next start. Blocks; a second call does nothing.
    pub fn stop(&self) {
        self.begin_stop();
        let running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let threads = self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(threads) = threads else { return };
        if let Some(running) = running
            && let Err(error) = threads.block_on(running)
        {
            tracing::error!(%error, "the scheduler of the agents broke; its turns go on at the next start");
        }
        threads.shutdown_background();
    }
}

/// Has what is kept of messages and of memory forgotten whenever something is erased.
fn forget_when_erased(engine: &Engine, mail: &Arc<Mail>, known: &Arc<Known>) {
    // They have the engine, which keeps this.
    let (mail, known) = (Arc::downgrade(mail), Arc::downgrade(known));
    engine.when_erased(move || {
        if let (Some(mail), Some(known)) = (mail.upgrade(), known.upgrade()) {
            mail.forget_erased();
            known.forget();
        }
    });
}

/// Reads what is recorded of turns that are not finished, until it can be read.
async fn read_unfinished(journal: Arc<Journal>) {
    loop {
        let reading = Arc::clone(&journal);
        match tokio::task::spawn_blocking(move || reading.read_unfinished()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                let error = failure::chain(&error);
                tracing::error!(
                    error,
                    "what is recorded of turns could not be read; agents wait until it can"
                );
            }
            Err(error) => {
                tracing::error!(%error, "reading what is recorded of turns broke; it is tried again");
            }
        }
        tokio::time::sleep(READ_AGAIN).await;
    }
}

/// Runs `work` until the server stops.
async fn until(mut stopped: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! { () = work => (), _ = stopped.wait_for(|stop| *stop) => () }
}

fn models(registry: &Registry) -> Result<Models, RegistryError> {
    registry
        .names()
        .try_fold(Models::new(registry.get("")?), |models, name| Ok(models.with(name, registry.get(name)?)))
}

fn heard(pieces: broadcast::Sender<Piece>) -> super::runner::Heard {
    Arc::new(move |agent, conversation, text| {
        if pieces.receiver_count() > 0 {
            let piece = Piece { agent: agent.clone(), conversation: conversation.clone(), text: text.into() };
            // Nobody may be left.
            let _ = pieces.send(piece);
        }
    })
}

/// The circuits as they were recorded last.
fn circuits(engine: &Engine) -> HashMap<AgentId, Breaker> {
    let talk = engine.view().talk().read();
    let agents = talk.registry.agents().into_iter();
    let broken = agents.filter(|agent| agent.circuit != Circuit::Closed);
    broken
        .map(|agent| {
            let breaker = Breaker::recorded(agent.circuit, agent.failures, agent.circuit_until);
            (agent.name.clone(), breaker)
        })
        .collect()
}

/// Brings what runs to what the directory has.
struct Follower {
    directory: AgentDirectory,
    agents: Arc<Agents>,
    mail: Arc<Mail>,
    tools: Toolbox,
    known: Arc<Known>,
    context_cache_ttl: Duration,
    /// Where the texts stand that run.
    loaded: BTreeMap<AgentId, Seq>,
}

impl Follower {
    async fn follow(mut self) {
        let mut changes = self.directory.changes();
        loop {
            changes.borrow_and_update();
            self.bring_up_to_date();
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn bring_up_to_date(&mut self) {
        let roster = self.directory.roster();
        let runs = |loaded: &LoadedAgent| {
            loaded.definition.is_some()
                && matches!(loaded.registered.status, AgentStatus::Running | AgentStatus::Draining)
        };
        let gone: Vec<AgentId> = self
            .loaded
            .keys()
            .filter(|name| !roster.agents.get(*name).is_some_and(|loaded| runs(loaded)))
            .cloned()
            .collect();
        for name in gone {
            self.loaded.remove(&name);
            self.mail.serve_no_more(&name);
            self.agents.remove(&name);
        }
        for loaded in roster.agents.values().filter(|loaded| runs(loaded)) {
            if self.loaded.get(&loaded.name) != Some(&loaded.registered.seq) {
                self.load(loaded);
            }
        }
    }

    fn load(&mut self, loaded: &LoadedAgent) {
        let (Some(definition), Some(limits)) = (&loaded.definition, &loaded.limits) else { return };
        match load::agent(definition, limits, loaded.registered.seq, self.context_cache_ttl) {
            Ok(agent) => {
                self.warm(&agent);
                self.agents.put(agent);
                self.mail.serve(&loaded.name);
                self.loaded.insert(loaded.name.clone(), loaded.registered.seq);
            }
            Err(error) => {
                let error = failure::chain(&error);
                tracing::error!(agent = %loaded.name, error, "a version cannot run; the one before it goes on");
            }
        }
    }

    /// Does now what the first turn would wait for, where the file asks for that.
    fn warm(&self, agent: &Agent) {
        let spec = &agent.spec;
        if !spec.performance.lazy_tool_loading && !spec.permissions.tools.is_empty() {
            let (tools, permissions, name) =
                (self.tools.clone(), spec.permissions.clone(), spec.agent.clone());
            tokio::spawn(async move {
                for missing in tools.offer(&permissions, TOOLS_TIMEOUT).await.unavailable {
                    let (tool, reason) = (missing.name, missing.reason);
                    tracing::warn!(agent = %name, tool, reason, "a tool is not there; it is tried again when it is used");
                }
            });
        }
        if spec.performance.preload_memory
            && let Some(ask) = memory_ask_of(agent)
        {
            let known = Arc::clone(&self.known);
            tokio::spawn(async move {
                for found in known.search(vec![ask]).await {
                    if let Err(error) = found {
                        tracing::warn!(
                            error = failure::chain(&error),
                            "memory could not be looked at ahead of time"
                        );
                    }
                }
            });
        }
    }
}
