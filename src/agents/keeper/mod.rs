//! The one thread that looks after the agents directory: it alone reads the files and records what becomes of them.

mod wishes;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use caxton_events::agent::{AgentEvent, AgentStatus};
use caxton_events::{AgentId, Clock as _, RegistrationId, Seq};
use crossbeam_channel::{Receiver, never, select};

use super::directory::{DirectoryOptions, Noticing, Shared};
use super::fault::whole_file;
use super::files::{self, Reading, Stamp};
use super::log::{AgentLog, LogError};
use super::parse::Judgement;
use super::reconcile::{Files, Rules, Seen, reconcile};
use super::registry::Registry;
use super::roster::{LoadedAgent, RejectedFile, Roster};
use super::settle::{Settling, Sign};
use super::validator::{Checked, sha256_hex};
use super::watcher::Watcher;
use super::wish::{Asked, Wish};
use crate::config::format_duration;
use crate::engine::SystemClock;
use crate::failure::chain;
use crate::telemetry;

/// Time between two looks through the directory when the system tells of changes: in case it did not.
const LOOK_TOLD: Duration = Duration::from_secs(30);
/// The same when it tells nothing.
const LOOK_UNTOLD: Duration = Duration::from_millis(500);

/// Why the directory could not be looked through.
#[derive(Debug, thiserror::Error)]
pub(super) enum BeginError {
    /// The log said no.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The system said no.
    #[error("could not read the agents directory")]
    Directory(#[source] io::Error),
}

/// The thread's state.
pub(super) struct Keeper {
    log: Arc<dyn AgentLog>,
    options: DirectoryOptions,
    shared: Arc<Shared>,
    registry: Registry,
    /// Texts in use.
    texts: BTreeMap<AgentId, Arc<str>>,
    files: Files,
    stamps: BTreeMap<String, Option<Stamp>>,
    settling: Settling,
    watcher: Option<Watcher>,
    /// Moments are times since then.
    start: Instant,
    look_at: Duration,
    head: Seq,
}

impl Keeper {
    /// A keeper that knows the log and not yet the directory.
    pub(super) fn new(
        log: Arc<dyn AgentLog>,
        options: DirectoryOptions,
        shared: Arc<Shared>,
    ) -> Result<Self, LogError> {
        let mut registry = Registry::default();
        let mut texts = BTreeMap::new();
        let mut head = Seq::ZERO;
        log.replay(&mut |seq, at, event| {
            registry.apply(seq, at, event);
            note_text(&mut texts, event);
            head = seq;
        })?;
        Ok(Self {
            log,
            options,
            shared,
            registry,
            texts,
            files: Files::new(),
            stamps: BTreeMap::new(),
            settling: Settling::default(),
            watcher: None,
            start: Instant::now(),
            look_at: Duration::ZERO,
            head,
        })
    }

    /// Reads the directory for the first time. `is_new`: it was not there, and is not what somebody has emptied.
    pub(super) fn begin(&mut self, is_new: bool) -> Result<(), BeginError> {
        if is_new {
            self.restore_files().map_err(BeginError::Directory)?;
        }
        files::remove_leftovers(self.directory()).map_err(BeginError::Directory)?;
        // Watched before it is read, so that nothing falls between the two.
        self.watch();
        self.look_through()?;
        self.stop_what_is_valid_no_longer()?;
        let agents = self.registry.agents.values();
        let kept_out = agents.filter(|registered| registered.is_kept_out()).count();
        if kept_out > 0 {
            let (agents, agents_max) = (self.registry.agents.len(), self.options.agents.max_agents);
            tracing::warn!(
                agents,
                agents_max,
                kept_out,
                "agents beyond agents.max_agents, by name, are not run"
            );
        }
        self.publish();
        Ok(())
    }

    /// Writes the texts that are in use into a directory that was lost.
    fn restore_files(&self) -> io::Result<()> {
        let directory = self.directory().display().to_string();
        for (agent, registered) in &self.registry.agents {
            let Some(text) = self.texts.get(agent) else { continue };
            files::prepare(self.directory(), &registered.path, text)?.commit()?;
            tracing::warn!(%agent, path = registered.path, directory, "agent file written anew from the log");
        }
        Ok(())
    }

    /// Works until there is nobody left who could ask.
    pub(super) fn run(mut self, asked: &Receiver<Asked>) {
        loop {
            let signs = self.watcher.as_ref().map_or_else(never, |watcher| watcher.signs().clone());
            let now = self.start.elapsed();
            let next = self.settling.next_due().map_or(self.look_at, |due| due.min(self.look_at));
            let wait = next.saturating_sub(now);
            select! {
                recv(asked) -> asked => match asked {
                    Ok(Asked { wish: Wish::Stop, .. }) | Err(_) => return,
                    Ok(asked) => {
                        let answer = self.obey(asked.wish);
                        // Whoever asked may have gone.
                        let _ = asked.answer.send(answer);
                    }
                },
                recv(signs) -> sign => match sign {
                    Ok(sign) => {
                        let now = self.start.elapsed();
                        self.settling.note(&sign.name, sign.sign, now);
                        for sign in signs.try_iter() {
                            self.settling.note(&sign.name, sign.sign, now);
                        }
                    }
                    Err(_) => self.watcher = None,
                },
                default(wait) => (),
            }
            self.turn();
        }
    }

    /// Does what is due.
    fn turn(&mut self) {
        let now = self.start.elapsed();
        let missed = self.watcher.as_ref().is_some_and(Watcher::take_missed);
        if missed || now >= self.look_at {
            self.note_changes(now);
        }
        let due = self.settling.take_due(now);
        if due.is_empty() {
            return;
        }
        let first = due.iter().map(|(_, first)| *first).min().unwrap_or(now);
        for (name, _) in &due {
            self.read_file(name);
        }
        match self.bring_up() {
            Ok(0) => (),
            Ok(_) => telemetry::agent_reloaded(self.start.elapsed().saturating_sub(first)),
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    "agents could not be reloaded; they stay as they were"
                );
                for (name, _) in due {
                    self.settling.note(&name, Sign::Touched, self.start.elapsed() + LOOK_UNTOLD);
                }
            }
        }
    }

    fn directory(&self) -> &Path {
        &self.options.directory
    }

    fn watch(&mut self) {
        self.watcher = None;
        if self.options.noticing == Noticing::Told {
            match Watcher::start(self.directory()) {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(error, "the agents directory is looked through twice a second instead");
                }
            }
        }
    }

    /// Notes every file whose stamp has changed.
    fn note_changes(&mut self, now: Duration) {
        self.look_at = now + if self.watcher.is_some() { LOOK_TOLD } else { LOOK_UNTOLD };
        let listed = match files::list(self.directory()) {
            Ok(listed) => listed,
            Err(error) => {
                // No directory is not an empty one: what was loaded stays.
                tracing::warn!(
                    error = chain(&error),
                    "the agents directory cannot be read; agents stay as they are"
                );
                self.watcher = None;
                self.look_at = now + LOOK_UNTOLD;
                return;
            }
        };
        if self.watcher.is_none() {
            // A watch ends with its directory; this may be a new one.
            self.watch();
        }
        let gone = self.files.keys().filter(|name| !listed.contains_key(*name)).cloned().collect::<Vec<_>>();
        let changed = listed.iter().filter(|(name, stamp)| self.stamps.get(*name) != Some(stamp));
        for name in changed.map(|(name, _)| name).chain(&gone) {
            self.settling.note(name, Sign::Touched, now);
        }
    }

    /// Reads everything there is, now.
    fn look_through(&mut self) -> Result<usize, BeginError> {
        let listed = files::list(self.directory()).map_err(BeginError::Directory)?;
        let names: Vec<String> = self.files.keys().chain(listed.keys()).cloned().collect();
        for name in names {
            self.read_file(&name);
        }
        let now = self.start.elapsed();
        self.look_at = now + if self.watcher.is_some() { LOOK_TOLD } else { LOOK_UNTOLD };
        Ok(self.bring_up()?)
    }

    /// Reads one file into `files`.
    fn read_file(&mut self, name: &str) {
        let (bytes, stamp) = match files::read(self.directory(), name) {
            Reading::Gone => {
                self.files.remove(name);
                self.stamps.remove(name);
                return;
            }
            Reading::Changing => {
                self.settling.note(name, Sign::Touched, self.start.elapsed());
                return;
            }
            Reading::Refused { reason, remedy, stamp } => {
                let judgement =
                    Judgement { problems: vec![whole_file(reason, remedy)], ..Judgement::default() };
                let checked = Arc::new(Checked { sha256: String::new(), judgement });
                self.stamps.insert(name.to_owned(), stamp);
                self.files.insert(name.to_owned(), Seen { content: Arc::from(""), checked });
                return;
            }
            Reading::Bytes(bytes, stamp) => (bytes, stamp),
        };
        self.stamps.insert(name.to_owned(), Some(stamp));
        if files::is_note(name, &bytes) {
            self.files.remove(name);
            return;
        }
        let same = self.files.get(name).is_some_and(|seen| seen.content.as_bytes() == bytes);
        if same && !bytes.is_empty() {
            return;
        }
        let began = Instant::now();
        let mut checked = self.shared.validator.check(&bytes);
        let limit = self.options.agents.hot_reload_timeout;
        if began.elapsed() > limit {
            let reason = format!("checking the file took longer than {}", format_duration(limit));
            let remedy = "shorten the file, or raise agents.hot_reload_timeout";
            let judgement = Judgement { problems: vec![whole_file(reason, remedy)], ..Judgement::default() };
            checked = Arc::new(Checked { sha256: sha256_hex(&bytes), judgement });
        }
        let content = String::from_utf8(bytes).map_or_else(|_| Arc::from(""), Arc::from);
        self.files.insert(name.to_owned(), Seen { content, checked });
    }

    /// Records what follows from the files. The number of events.
    fn bring_up(&mut self) -> Result<usize, LogError> {
        let at = SystemClock.now();
        let mut number = move || draw(at);
        let log = Arc::clone(&self.log);
        let mut rules = Rules {
            agents_max: self.options.agents.max_agents,
            number: &mut number,
            is_external: &|agent| log.is_external(agent),
        };
        let events = reconcile(&self.registry, &self.files, &mut rules);
        let count = events.len();
        self.record(&events)?;
        let files = &self.files;
        let before = self.registry.rejected.len();
        // A text that is gone from its file is not refused any more: what stands there now was judged above.
        self.registry.rejected.retain(|path, rejection| {
            files.get(path).is_some_and(|seen| seen.checked.sha256 == rejection.sha256)
        });
        if before != self.registry.rejected.len() {
            self.publish();
        }
        Ok(count)
    }

    /// Records events, folds them and shows what they led to.
    fn record(&mut self, events: &[AgentEvent]) -> Result<(), LogError> {
        if events.is_empty() {
            return Ok(());
        }
        let seqs = self.log.record(events.to_vec())?;
        let at = SystemClock.now();
        for (seq, event) in seqs.into_iter().zip(events) {
            self.registry.apply(seq, at, event);
            note_text(&mut self.texts, event);
            tell(event);
            self.tell_doubts(event);
            self.head = seq;
        }
        self.publish();
        Ok(())
    }

    /// Says on the process's own log what is doubtful in a text that was loaded.
    fn tell_doubts(&self, event: &AgentEvent) {
        let AgentEvent::ConfigLoaded { path, content, .. } = event else { return };
        for doubt in &self.shared.validator.check(content.as_bytes()).judgement.warnings {
            let place = format!("{path}:{}:{}", doubt.line, doubt.column);
            let (field, reason, remedy) = (&doubt.field, &doubt.reason, &doubt.remedy);
            tracing::warn!(place, field, reason, remedy, "doubtful in an agent file");
        }
    }

    /// Texts that were valid when they were loaded and are not now: a tool is gone, or the rules have become stricter.
    fn stop_what_is_valid_no_longer(&mut self) -> Result<(), LogError> {
        let broken = self.registry.agents.iter().filter_map(|(agent, registered)| {
            let text = self.texts.get(agent)?;
            let checked = self.shared.validator.check(text.as_bytes());
            let problem = checked.judgement.problems.first()?;
            let reason = format!("its text is valid no longer: {}: {}", problem.field, problem.reason);
            let known = registered.status == AgentStatus::Error && registered.reason == reason;
            let agent = agent.clone();
            (!known).then_some(AgentEvent::StatusChanged { agent, status: AgentStatus::Error, reason })
        });
        let events: Vec<AgentEvent> = broken.collect();
        self.record(&events)
    }

    /// Makes the roster that readers see.
    fn publish(&self) {
        let before = self.shared.roster.read().unwrap_or_else(PoisonError::into_inner).clone();
        let agents = self.registry.agents.iter().filter_map(|(name, registered)| {
            let known = before.agents.get(name).filter(|known| known.registered == *registered);
            let loaded = known.cloned().or_else(|| self.loaded(name).map(Arc::new))?;
            Some((name.clone(), loaded))
        });
        let rejected = self.registry.rejected.iter().filter(|(path, _)| self.files.contains_key(*path));
        let roster = Roster {
            seq: self.head,
            at: Some(SystemClock.now()),
            agents: agents.collect(),
            rejected: rejected
                .map(|(path, rejection)| RejectedFile {
                    path: path.clone(),
                    agent: rejection.agent.clone(),
                    problems: rejection.problems.clone(),
                })
                .collect(),
        };
        telemetry::config_agents_counted(roster.agents.len());
        *self.shared.roster.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(roster);
        self.shared.changes.send_modify(|count| *count += 1);
    }

    fn loaded(&self, name: &AgentId) -> Option<LoadedAgent> {
        self.shared.loaded(&self.registry, &self.texts, name)
    }
}

pub(super) fn note_text(texts: &mut BTreeMap<AgentId, Arc<str>>, event: &AgentEvent) {
    if let AgentEvent::ConfigLoaded { agent, content, .. } = event {
        texts.insert(agent.clone(), Arc::from(content.as_str()));
    } else if let AgentEvent::ConfigRemoved { agent, .. } = event {
        texts.remove(agent);
    }
}

/// A new number for a registration.
fn draw(at: caxton_events::Timestamp) -> RegistrationId {
    static DRAWN: AtomicU64 = AtomicU64::new(0);
    let mut random = [0; 10];
    if getrandom::fill(&mut random).is_err() {
        // Numbers need to differ, not to be secret.
        random[..8].copy_from_slice(&DRAWN.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    }
    RegistrationId::new(at, random)
}

/// Says on the process's own log what became of a file.
fn tell(event: &AgentEvent) {
    if let AgentEvent::ConfigLoaded { agent, version, path, .. } = event {
        tracing::info!(%agent, version, path, "agent loaded");
    } else if let AgentEvent::ConfigRemoved { agent, path } = event {
        tracing::info!(%agent, path, "agent removed");
    } else if let AgentEvent::ConfigRejected { path, problems, .. } = event {
        for problem in problems.iter().take(3) {
            let place = format!("{path}:{}:{}", problem.line, problem.column);
            let (field, reason, remedy) = (&problem.field, &problem.reason, &problem.remedy);
            tracing::warn!(place, field, reason, remedy, "agent file rejected");
        }
    }
}
