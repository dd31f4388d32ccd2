//! What happens to agents of the directory, kept in the event log of a running engine.

use std::error::Error;
use std::fmt;

use caxton_events::agent::AgentEvent;
use caxton_events::log::Filter;
use caxton_events::{AgentId, Draft, Event, Family, Seq, Timestamp};

use super::directory::Conversations;
use super::log::{AgentLog, LogError};
use crate::engine::Engine;

/// The event log as the agents directory sees it.
#[derive(Clone)]
pub struct EngineLog(Engine);

impl EngineLog {
    /// The log of `engine`.
    pub const fn of(engine: Engine) -> Self {
        Self(engine)
    }
}

impl fmt::Debug for EngineLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EngineLog").field(&self.0.log().head().seq).finish()
    }
}

/// A failure of `what`.
fn failed(what: &'static str) -> impl FnOnce(Box<dyn Error + Send + Sync>) -> LogError {
    move |source| LogError { what, source }
}

impl AgentLog for EngineLog {
    fn record(&self, events: Vec<AgentEvent>) -> Result<Vec<Seq>, LogError> {
        let draft = |event: AgentEvent| Draft {
            stream: "agents".to_owned(),
            actor: "system".to_owned(),
            correlation: None,
            causation: None,
            event: event.into(),
        };
        let recorded = self.0.record(events.into_iter().map(draft).collect());
        recorded.map_err(|error| failed("record")(error.into()))
    }

    fn replay(&self, each: &mut dyn FnMut(Seq, Timestamp, &AgentEvent)) -> Result<(), LogError> {
        let filter = Filter { kinds: Some(Family::kinds(&[Family::Agent])), ..Filter::default() };
        let dropped = self.0.dropped_agent_events().map_err(|error| failed("read")(error.into()))?;
        for record in dropped.into_iter().map(Ok).chain(self.0.log().scan(Seq::FIRST, &filter)) {
            let record = record.map_err(|error| failed("read")(error.into()))?;
            if let Event::Agent(event) = &record.event {
                each(record.seq, record.recorded_at, event);
            }
        }
        Ok(())
    }

    fn read(&self, seq: Seq) -> Result<Option<AgentEvent>, LogError> {
        let mut found = self.0.records(&[seq]).map_err(|error| failed("read")(error.into()))?;
        if found.is_empty() {
            let dropped = self.0.dropped_agent_events().map_err(|error| failed("read")(error.into()))?;
            found.extend(dropped.into_iter().find(|record| record.seq == seq));
        }
        Ok(found.into_iter().find_map(|record| match record.event {
            Event::Agent(event) => Some(event),
            Event::Memory(_) | Event::Conversation(_) | Event::Turn(_) | Event::System(_) => None,
        }))
    }

    fn is_external(&self, agent: &AgentId) -> bool {
        let talk = self.0.view().talk().read();
        let known = talk.registry.agent(agent).filter(|agent| !agent.removed && agent.config.is_none());
        // A name that a file has had is free for a file, whoever has written or sent something under it since.
        known.is_some_and(|agent| agent.versions.is_empty())
    }
}

/// The open conversations of each agent, as `engine` knows them.
pub fn open_conversations(engine: Engine) -> Conversations {
    Conversations::counted(move |agent: &AgentId| {
        let talk = engine.view().talk().read();
        let open = talk.conversations.iter().filter(|conversation| conversation.is_open());
        open.filter(|conversation| conversation.participants.contains(agent)).count()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs;
    use std::sync::Arc;

    use super::EngineLog;
    use crate::agents::{AgentDirectory, AgentLog as _, DirectoryOptions};
    use crate::commands::talk::Upkeep;
    use crate::config::Config;
    use crate::engine::fork::Cut;
    use crate::engine::trim::{DropOptions, drop_events};
    use crate::engine::{Engine, EngineOptions};
    use caxton_events::agent::ConfigProblem;
    use caxton_events::{AgentEvent, AgentId, Seq};

    const TEXT: &str =
        "---\nname: Librarian\nversion: 1.0.0\ncapabilities: [answer]\n---\nAnswer from memory.\n";

    fn start(dir: &std::path::Path) -> (Engine, AgentDirectory) {
        let engine = Engine::start(&EngineOptions::new(dir), &mut |_| ()).unwrap();
        let log = Arc::new(EngineLog::of(engine.clone()));
        let directory = AgentDirectory::start(log, DirectoryOptions::new(&Config::default(), dir)).unwrap();
        (engine, directory)
    }

    /// More events than a block holds.
    fn fill(engine: &Engine) {
        for n in 0..300_u64 {
            let (agent, path) = (None, format!("agents/broken-{n}.md"));
            // Text that does not get smaller.
            let word = |at: u64| format!("{:016x}", (n * 1_000 + at).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let reason = (0..200).map(word).collect::<Vec<_>>().join(" ");
            let problem =
                ConfigProblem { line: 0, column: 0, field: "name".to_owned(), reason, remedy: String::new() };
            let rejected =
                AgentEvent::ConfigRejected { agent, path, sha256: "0".repeat(64), problems: vec![problem] };
            EngineLog::of(engine.clone()).record(vec![rejected]).unwrap();
        }
    }

    #[test]
    fn an_agent_whose_events_were_dropped_is_neither_lost_nor_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("agents")).unwrap();
        fs::write(dir.path().join("agents/librarian.md"), TEXT).unwrap();
        let name = "Librarian".parse().unwrap();
        let (engine, directory) = start(dir.path());
        let loaded = directory.roster().get("Librarian").unwrap().registered.seq;
        fill(&engine);
        directory.stop();
        engine.stop();
        drop(engine);
        let options = EngineOptions::new(dir.path());
        let what = DropOptions { before: Cut::Head, by: "ada".to_owned(), forks_keep: false };
        let dropped = drop_events(&options, &what, &mut |_| ()).unwrap().unwrap();
        assert!(dropped.first > loaded, "{dropped:?}");
        for _ in 0..2 {
            let (engine, directory) = start(dir.path());
            assert_eq!(directory.roster().get("Librarian").unwrap().registered.seq, loaded);
            assert_eq!(engine.view().talk().read().registry.registrations_of(&name).count(), 1);
            let log = EngineLog::of(engine.clone());
            let text = log.read(loaded).unwrap();
            assert!(matches!(text, Some(AgentEvent::ConfigLoaded { .. })), "{text:?}");
            directory.stop();
            engine.stop();
        }
    }

    #[test]
    fn a_name_that_a_file_has_had_is_free_for_a_file_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agents/librarian.md");
        fs::create_dir_all(dir.path().join("agents")).unwrap();
        let name: AgentId = "Librarian".parse().unwrap();
        for has_file in [true, false, true] {
            if has_file {
                fs::write(&path, TEXT).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
            let (engine, directory) = start(dir.path());
            assert_eq!(directory.roster().get("Librarian").is_some(), has_file);
            assert_eq!(engine.view().talk().read().registry.is_known(&name), has_file);
            if !has_file {
                // Somebody registers under the name that is free now.
                let registers =
                    Upkeep::RegisterAgent { agent: name.clone(), workspace: "lab".parse().unwrap() };
                engine.upkeep_blocking(&name, registers).unwrap();
                assert!(engine.view().talk().read().registry.is_known(&name));
            }
            directory.stop();
            engine.stop();
        }
    }

    #[test]
    fn an_agent_of_a_file_is_in_the_registry_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("agents")).unwrap();
        fs::write(dir.path().join("agents/librarian.md"), TEXT).unwrap();
        let name = "Librarian".parse().unwrap();
        let (engine, directory) = start(dir.path());
        assert!(engine.view().talk().read().registry.is_known(&name));
        assert_eq!(engine.view().talk().read().registry.registrations_of(&name).count(), 1);
        let loaded = directory.roster().get("Librarian").unwrap().registered.seq;
        let log = EngineLog::of(engine.clone());
        assert!(log.read(loaded).unwrap().is_some());
        assert!(log.read(Seq::FIRST).unwrap().is_none(), "the first record is the server's start");
        directory.stop();
        engine.stop();
        drop((log, engine));

        let (engine, directory) = start(dir.path());
        assert_eq!(
            directory.roster().get("Librarian").unwrap().registered.seq,
            loaded,
            "nothing is loaded twice"
        );
        directory.stop();
        engine.stop();
    }
}
