//! Wishes of people and programs: made, replaced, removed, restarted, taken back.

use std::sync::Arc;

use caxton_events::agent::{AgentEvent, AgentStatus, ConfigSource};
use caxton_events::{AgentId, Clock as _, Seq};

use super::super::definition::Definition;
use super::super::fault::whole_file;
use super::super::files::{self, EXTENSION};
use super::super::reconcile::{Loading, Seen, is_beyond, loaded, removal};
use super::super::registry::{Registered, too_many};
use super::super::validator::{Checked, sha256_hex};
use super::super::wish::{Answer, DirectoryError, Earlier, Wish};
use super::{BeginError, Keeper, draw};
use crate::engine::SystemClock;
use crate::failure::chain;

impl Keeper {
    /// Does what was asked, whole or not at all.
    pub(super) fn obey(&mut self, wish: Wish) -> Answer {
        match wish {
            Wish::Create { name, content, start } => self.create(&name, &content, start)?,
            Wish::Replace { name, content, restart } => self.replace(&name, &content, restart)?,
            Wish::Remove { name, force } => self.remove(&name, force)?,
            Wish::Restart { name } => self.restart(&name)?,
            Wish::RollBack { name, to } => self.roll_back(&name, &to)?,
            Wish::Reload => {
                self.look_through().map_err(|error| match error {
                    BeginError::Log(error) => DirectoryError::Log(error),
                    BeginError::Directory(error) => DirectoryError::Unreadable(error),
                })?;
                return Ok(None);
            }
            Wish::Stop => return Ok(None),
        }
        .map_or(Ok(None), |name| Ok(self.shown(&name)))
    }

    fn shown(&self, name: &AgentId) -> Option<Arc<super::super::roster::LoadedAgent>> {
        let roster = self.shared.roster.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        roster.agents.get(name).cloned()
    }

    /// The definition in `content`, which must be that of `name`.
    fn valid(&self, name: &AgentId, content: &str) -> Result<(Arc<Checked>, Definition), DirectoryError> {
        let checked = self.shared.validator.check(content.as_bytes());
        let warnings = checked.judgement.warnings.clone();
        let Some(definition) = checked.judgement.definition.clone() else {
            let problems = checked.judgement.problems.clone();
            return Err(DirectoryError::Invalid { problems, warnings });
        };
        if definition.name != *name {
            let reason = format!("the text defines the agent {}, not {name}", definition.name);
            let mut problem =
                whole_file(reason, format!("write `name: {name}`, or name the agent of the text"));
            "name".clone_into(&mut problem.field);
            return Err(DirectoryError::Invalid { problems: vec![problem], warnings });
        }
        Ok((checked, definition))
    }

    fn registered(&self, name: &AgentId) -> Result<Registered, DirectoryError> {
        let found = self.registry.agents.get(name).cloned();
        found.ok_or_else(|| DirectoryError::NotFound(name.to_string()))
    }

    fn create(
        &mut self,
        name: &AgentId,
        content: &str,
        start: bool,
    ) -> Result<Option<AgentId>, DirectoryError> {
        if let Some(taken) = self.registry.agents.get(name) {
            return Err(DirectoryError::NameTaken { name: name.clone(), path: taken.path.clone() });
        }
        if self.log.is_external(name) {
            return Err(DirectoryError::NameOfAnother(name.clone()));
        }
        let (checked, definition) = self.valid(name, content)?;
        let path = format!("{name}{EXTENSION}");
        if self.files.contains_key(&path) || self.directory().join(&path).symlink_metadata().is_ok() {
            return Err(DirectoryError::NameTaken { name: name.clone(), path });
        }
        let agents_max = self.options.agents.max_agents;
        if self.registry.agents.len() >= agents_max {
            return Err(DirectoryError::Full(agents_max));
        }
        let (source, sha256) = (ConfigSource::Request, checked.sha256.as_str());
        let events = events_of(None, &definition, &Loading { source, path: &path, sha256, content, start });
        self.write_and_record(&path, content, checked, &events)?;
        Ok(Some(name.clone()))
    }

    fn replace(
        &mut self,
        name: &AgentId,
        content: &str,
        restart: bool,
    ) -> Result<Option<AgentId>, DirectoryError> {
        let before = self.registered(name)?;
        let (checked, definition) = self.valid(name, content)?;
        let path = self.path_of(name, &before);
        let (source, sha256) = (ConfigSource::Request, checked.sha256.as_str());
        let loading = Loading { source, path: &path, sha256, content, start: true };
        let mut events = events_of(Some(&before), &definition, &loading);
        let starts = matches!(events.last(), Some(AgentEvent::StatusChanged { .. }));
        if restart && !starts && !before.is_kept_out() {
            let (agent, reason) = (name.clone(), "restarted with another text".to_owned());
            events.push(AgentEvent::StatusChanged { agent, status: AgentStatus::Running, reason });
        }
        self.write_and_record(&path, content, checked, &events)?;
        Ok(Some(name.clone()))
    }

    /// The file that `name` is written to: where it was loaded from, or where that file has moved to.
    fn path_of(&self, name: &AgentId, registered: &Registered) -> String {
        if self.files.contains_key(&registered.path) {
            return registered.path.clone();
        }
        let moved = self.files.iter().find(|(_, seen)| {
            seen.checked.judgement.definition.as_ref().is_some_and(|definition| definition.name == *name)
        });
        moved.map_or_else(|| registered.path.clone(), |(path, _)| path.clone())
    }

    /// Everything that is likely to fail comes first: the file is written and synced beside its place, then the events
    /// are recorded, then the file is put there. If that fails after all, the directory is read again, and what was
    /// recorded is taken back by what it says.
    fn write_and_record(
        &mut self,
        path: &str,
        content: &str,
        checked: Arc<Checked>,
        events: &[AgentEvent],
    ) -> Result<(), DirectoryError> {
        let file = |source| DirectoryError::File { path: path.to_owned(), source };
        let prepared = files::prepare(self.directory(), path, content).map_err(file)?;
        self.record(events)?;
        if let Err(source) = prepared.commit() {
            self.files.remove(path);
            self.read_file(path);
            if let Err(error) = self.bring_up() {
                tracing::error!(error = chain(&error), path, "the log is ahead of the agents directory");
            }
            return Err(file(source));
        }
        self.files.insert(path.to_owned(), Seen { content: Arc::from(content), checked });
        // A rejected file that stood here is no more.
        self.bring_up()?;
        Ok(())
    }

    fn remove(&mut self, name: &AgentId, force: bool) -> Result<Option<AgentId>, DirectoryError> {
        let registered = self.registered(name)?;
        let conversations = self.options.conversations.of(name);
        if conversations > 0 && !force {
            return Err(DirectoryError::Talking { name: name.clone(), conversations });
        }
        let path = self.path_of(name, &registered);
        self.record(&removal(name, &registered))?;
        let removed = files::remove(self.directory(), &path);
        self.read_file(&path);
        self.bring_up()?;
        removed.map_err(|source| DirectoryError::File { path, source })?;
        Ok(None)
    }

    fn restart(&mut self, name: &AgentId) -> Result<Option<AgentId>, DirectoryError> {
        // Stopped agents have a place among the others, too.
        if self.registered(name)?.is_kept_out() || self.is_beyond(name) {
            return Err(DirectoryError::Full(self.options.agents.max_agents));
        }
        let shown = self.shown(name);
        if shown.is_none_or(|agent| agent.definition.is_none()) {
            let text = self.texts.get(name).cloned().unwrap_or_default();
            self.valid(name, &text)?;
        }
        let (agent, reason) = (name.clone(), "restarted by a request".to_owned());
        self.record(&[AgentEvent::StatusChanged { agent, status: AgentStatus::Running, reason }])?;
        Ok(Some(name.clone()))
    }

    fn roll_back(&mut self, name: &AgentId, to: &Earlier) -> Result<Option<AgentId>, DirectoryError> {
        let before = self.registered(name)?;
        let (seq, content) = self.earlier(name, &before, to)?;
        let (checked, definition) = self.valid(name, &content)?;
        let path = self.path_of(name, &before);
        let file_sha256 = self
            .files
            .get(&path)
            .map_or_else(|| before.file_sha256().to_owned(), |seen| seen.checked.sha256.clone());
        let source = ConfigSource::Rollback { to: seq, file_sha256 };
        let (sha256, content) = (checked.sha256.as_str(), content.as_str());
        let loading = Loading { source, path: &path, sha256, content, start: true };
        let mut events = events_of(Some(&before), &definition, &loading);
        if self.is_beyond(name) {
            keep_out(&mut events, self.options.agents.max_agents);
        }
        self.record(&events)?;
        Ok(Some(name.clone()))
    }

    fn is_beyond(&self, name: &AgentId) -> bool {
        is_beyond(&self.registry, &self.files, name, self.options.agents.max_agents)
    }

    /// An earlier text and where it stands.
    fn earlier(
        &self,
        name: &AgentId,
        before: &Registered,
        to: &Earlier,
    ) -> Result<(Seq, String), DirectoryError> {
        let mut past = self.registry.past.get(name).into_iter().flatten().rev();
        let found = match to {
            Earlier::At(seq) => Some(*seq),
            Earlier::Version(version) => past.find(|past| past.version == *version).map(|past| past.seq),
            Earlier::Previous => {
                past.find(|past| past.seq < before.seq && past.sha256 != before.sha256).map(|past| past.seq)
            }
        };
        let wanted = match to {
            Earlier::At(seq) => seq.to_string(),
            Earlier::Version(version) => version.clone(),
            Earlier::Previous => "before this one".to_owned(),
        };
        let none = || DirectoryError::NoSuchVersion { name: name.clone(), wanted: wanted.clone() };
        let seq = found.ok_or_else(none)?;
        match self.log.read(seq)? {
            Some(AgentEvent::ConfigLoaded { agent, content, sha256, .. })
                if agent == *name && sha256 == sha256_hex(content.as_bytes()) =>
            {
                Ok((seq, content))
            }
            _ => Err(none()),
        }
    }
}

/// The events that put `definition` into use now.
fn events_of(before: Option<&Registered>, definition: &Definition, loading: &Loading<'_>) -> Vec<AgentEvent> {
    let at = SystemClock.now();
    loaded(before, definition, loading, &mut || draw(at))
}

/// Has an agent for which there is no room not started by `events`.
fn keep_out(events: &mut [AgentEvent], agents_max: usize) {
    for event in events {
        if let AgentEvent::StatusChanged { status: status @ AgentStatus::Running, reason, .. } = event {
            (*status, *reason) = (AgentStatus::Error, too_many(agents_max));
        }
    }
}
