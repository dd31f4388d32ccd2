//! The agents directory from outside: started, read, asked.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use caxton_events::{AgentId, Event, Record};
use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::{oneshot, watch};

use super::keeper::{BeginError, Keeper, note_text};
use super::limits::{Caps, Limits};
use super::log::{AgentLog, LogError};
use super::parse::Surroundings;
use super::registry::{Registry, Rejection};
use super::roster::{LoadedAgent, RejectedFile, Roster};
use super::validator::{Checked, Validator};
use super::wish::{Answer, Asked, DirectoryError, Earlier, Wish};
use crate::config::{Agents, Config};

/// Wishes that may wait; then there is no room for more.
const WISHES_QUEUE_MAX: usize = 256;

/// How changes are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noticing {
    /// The system tells; the directory is looked through now and then as well.
    Told,
    /// The directory is looked through twice a second.
    Looking,
}

/// Counts the open conversations of an agent.
#[derive(Clone)]
pub struct Conversations(Arc<dyn Fn(&AgentId) -> usize + Send + Sync>);

impl Conversations {
    /// Counted by `count`.
    pub fn counted(count: impl Fn(&AgentId) -> usize + Send + Sync + 'static) -> Self {
        Self(Arc::new(count))
    }

    /// Nobody talks.
    pub fn none() -> Self {
        Self::counted(|_| 0)
    }

    pub(super) fn of(&self, agent: &AgentId) -> usize {
        (self.0)(agent)
    }
}

impl fmt::Debug for Conversations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Conversations(…)")
    }
}

/// What the directory is told when it starts.
#[derive(Debug, Clone)]
pub struct DirectoryOptions {
    /// Where the files are; made when it is missing.
    pub directory: PathBuf,
    /// `agents` of the configuration.
    pub agents: Agents,
    /// What no file may exceed.
    pub caps: Caps,
    /// What there is beside the files.
    pub surroundings: Surroundings,
    /// How changes are noticed.
    pub noticing: Noticing,
    /// Who talks.
    pub conversations: Conversations,
}

impl DirectoryOptions {
    /// As `config` has it, for the data directory `data_dir`.
    pub fn new(config: &Config, data_dir: &Path) -> Self {
        let agents = config.agents.clone();
        let caps = Caps {
            max_conversations: config.server.max_concurrent_conversations,
            tool_call_timeout: agents.tool_call_timeout,
        };
        Self {
            directory: agents.directory.clone().unwrap_or_else(|| data_dir.join("agents")),
            caps,
            surroundings: Surroundings::bounded(config),
            noticing: Noticing::Told,
            conversations: Conversations::none(),
            agents,
        }
    }
}

/// Why the directory cannot be looked after.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot be made, or not be read.
    #[error("could not open the agents directory {}", path.display())]
    Directory {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The log cannot be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The system gives no thread.
    #[error("could not start the thread of the agents directory")]
    Thread(#[source] io::Error),
}

/// The agents directory while it is looked after. Cheap to clone; it ends with [`AgentDirectory::stop`], or with the
/// last clone.
#[derive(Debug, Clone)]
pub struct AgentDirectory {
    wishes: Sender<Asked>,
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// What readers and the thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) roster: RwLock<Arc<Roster>>,
    pub(super) changes: watch::Sender<u64>,
    pub(super) validator: Validator,
    /// `agents` of the configuration.
    pub(super) agents: Agents,
    /// What no file may exceed.
    pub(super) caps: Caps,
}

impl Shared {
    /// What a registered agent is, by its text.
    pub(super) fn loaded(
        &self,
        registry: &Registry,
        texts: &BTreeMap<AgentId, Arc<str>>,
        name: &AgentId,
    ) -> Option<LoadedAgent> {
        let registered = registry.agents.get(name)?.clone();
        let content = texts.get(name)?.clone();
        let checked = self.validator.check(content.as_bytes());
        let definition = checked.judgement.definition.clone().map(Arc::new);
        let limits = definition.as_ref().map(|definition| Limits::of(definition, &self.agents, self.caps));
        let versions = registry.past.get(name).map(|past| past.iter().cloned().collect());
        Some(LoadedAgent {
            name: name.clone(),
            registered,
            definition,
            limits,
            content,
            warnings: checked.judgement.warnings.clone().into(),
            versions: versions.unwrap_or_else(|| Arc::from([])),
        })
    }
}

impl AgentDirectory {
    /// Reads the log and the directory, brings the agents to what the files say, and goes on watching.
    ///
    /// When it returns, every file that was there has been judged. A directory that is not there is made; the agents that the
    /// log knows are written into it.
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing is looked after then.
    pub fn start(log: Arc<dyn AgentLog>, options: DirectoryOptions) -> Result<Self, StartError> {
        let path = options.directory.clone();
        let directory = |source| StartError::Directory { path: path.clone(), source };
        let is_new = !options.directory.try_exists().map_err(directory)?;
        fs::create_dir_all(&options.directory).map_err(directory)?;
        if is_new {
            // A name that was mistyped shows here.
            tracing::info!(directory = %options.directory.display(), "made the agents directory: it was not there");
        }
        let shared = Arc::new(Shared {
            roster: RwLock::default(),
            changes: watch::Sender::new(0),
            validator: Validator::new(options.surroundings.clone(), options.agents.validation_cache_size),
            agents: options.agents.clone(),
            caps: options.caps,
        });
        let (wishes, asked) = crossbeam_channel::bounded(WISHES_QUEUE_MAX);
        let mut keeper = Keeper::new(log, options, shared.clone())?;
        keeper.begin(is_new).map_err(|error| match error {
            BeginError::Log(error) => StartError::Log(error),
            BeginError::Directory(source) => StartError::Directory { path, source },
        })?;
        let thread = std::thread::Builder::new()
            .name("agents-directory".to_owned())
            .spawn(move || keeper.run(&asked))
            .map_err(StartError::Thread)?;
        Ok(Self { wishes, shared, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// The agents as they are now.
    pub fn roster(&self) -> Arc<Roster> {
        self.shared.roster.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The agents that these records make, which are all records about agents up to some moment, in their order. What texts
    /// mean and which limits hold is judged as it is now.
    ///
    /// # Errors
    ///
    /// The first error among the records.
    pub fn roster_of<E>(&self, records: impl Iterator<Item = Result<Record, E>>) -> Result<Roster, E> {
        let (mut registry, mut texts, mut roster) = (Registry::default(), BTreeMap::new(), Roster::default());
        for record in records {
            let record = record?;
            if let Event::Agent(event) = &record.event {
                registry.apply(record.seq, record.recorded_at, event);
                note_text(&mut texts, event);
                (roster.seq, roster.at) = (record.seq, Some(record.recorded_at));
            }
        }
        let loaded = registry.agents.keys().filter_map(|name| self.shared.loaded(&registry, &texts, name));
        roster.agents = loaded.map(|agent| (agent.name.clone(), Arc::new(agent))).collect();
        let rejected = |(path, row): (&String, &Rejection)| RejectedFile {
            path: path.clone(),
            agent: row.agent.clone(),
            problems: row.problems.clone(),
        };
        roster.rejected = registry.rejected.iter().map(rejected).collect();
        Ok(roster)
    }

    /// Tells of every new roster.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// What a text would be as a file. Nothing changes.
    pub fn validate(&self, content: &str) -> Arc<Checked> {
        self.shared.validator.check(content.as_bytes())
    }

    /// Makes an agent and its file.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`].
    pub async fn create(
        &self,
        name: AgentId,
        content: String,
        start: bool,
    ) -> Result<Arc<LoadedAgent>, DirectoryError> {
        self.agent(Wish::Create { name, content, start }).await
    }

    /// Gives an agent another text, and its file too. `restart`: it begins anew.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`].
    pub async fn replace(
        &self,
        name: AgentId,
        content: String,
        restart: bool,
    ) -> Result<Arc<LoadedAgent>, DirectoryError> {
        self.agent(Wish::Replace { name, content, restart }).await
    }

    /// Removes an agent and its file.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`].
    pub async fn remove(&self, name: AgentId, force: bool) -> Result<(), DirectoryError> {
        self.ask(Wish::Remove { name, force }).await.map(|_| ())
    }

    /// Starts an agent anew.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`].
    pub async fn restart(&self, name: AgentId) -> Result<Arc<LoadedAgent>, DirectoryError> {
        self.agent(Wish::Restart { name }).await
    }

    /// Takes an earlier version back into use, until the file changes.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`].
    pub async fn roll_back(&self, name: AgentId, to: Earlier) -> Result<Arc<LoadedAgent>, DirectoryError> {
        self.agent(Wish::RollBack { name, to }).await
    }

    /// Looks through the whole directory at once; the answer is what it led to.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`].
    pub async fn reload(&self) -> Result<Arc<Roster>, DirectoryError> {
        self.ask(Wish::Reload).await?;
        Ok(self.roster())
    }

    async fn agent(&self, wish: Wish) -> Result<Arc<LoadedAgent>, DirectoryError> {
        // The thread answers with an agent whatever leaves one behind.
        self.ask(wish).await?.ok_or(DirectoryError::Stopped)
    }

    async fn ask(&self, wish: Wish) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.wishes.try_send(Asked { wish, answer }).map_err(|error| match error {
            TrySendError::Full(_) => DirectoryError::Busy,
            TrySendError::Disconnected(_) => DirectoryError::Stopped,
        })?;
        answered.await.unwrap_or(Err(DirectoryError::Stopped))
    }

    /// Stops looking after the directory: what is under way is finished, what waits is refused.
    pub fn stop(self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (answer, _) = oneshot::channel();
        drop(self.wishes.send(Asked { wish: Wish::Stop, answer }));
        if let Some(thread) = thread {
            // A panic there was reported by the thread itself.
            let _ = thread.join();
        }
    }
}
