//! A watched directory, for real: what is written there is in use soon after. Nothing here waits on a clock.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use caxton_events::agent::{AgentEvent, AgentStatus};

use super::super::{
    AgentDirectory, AgentLog as _, DirectoryError, DirectoryOptions, Earlier, MemoryLog, Noticing, Roster,
};
use super::file;
use crate::config::Config;

/// A directory that is looked after, and what it recorded.
pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) log: Arc<MemoryLog>,
    pub(super) directory: AgentDirectory,
}

pub(super) fn options(folder: &Path) -> DirectoryOptions {
    DirectoryOptions::new(&Config::default(), folder)
}

/// Starts with these files.
pub(super) fn start(files: &[(&str, &str)], change: impl FnOnce(&mut DirectoryOptions)) -> World {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(MemoryLog::default());
    let agents = folder.path().join("agents");
    fs::create_dir(&agents).unwrap();
    for (name, text) in files {
        fs::write(agents.join(name), text).unwrap();
    }
    let mut options = options(folder.path());
    change(&mut options);
    let directory = AgentDirectory::start(log.clone(), options).unwrap();
    World { folder, log, directory }
}

impl World {
    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("agents").join(name)
    }

    /// Writes as careful editors do: beside, then renamed.
    pub(super) fn put(&self, name: &str, text: &str) {
        let temporary = self.folder.path().join("outside.tmp");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.path(name)).unwrap();
    }

    /// The first roster that is as wanted.
    pub(super) async fn until(&self, wanted: impl Fn(&Roster) -> bool) -> Arc<Roster> {
        let mut changes = self.directory.changes();
        loop {
            changes.borrow_and_update();
            let roster = self.directory.roster();
            if wanted(&roster) {
                return roster;
            }
            changes.changed().await.unwrap();
        }
    }

    /// Stops, and starts again on the same log and folder.
    pub(super) fn again(self, change: impl FnOnce(&mut DirectoryOptions)) -> World {
        let Self { folder, log, directory } = self;
        directory.stop();
        let mut options = options(folder.path());
        change(&mut options);
        let directory = AgentDirectory::start(log.clone(), options).unwrap();
        Self { folder, log, directory }
    }
}

/// The agents in use with their versions, as in `Ada 1.0.0`.
pub(super) fn versions(roster: &Roster) -> Vec<String> {
    roster.agents.iter().map(|(name, agent)| format!("{name} {}", agent.registered.version)).collect()
}

#[tokio::test]
async fn a_file_is_in_use_when_it_is_there_changed_and_gone() {
    let world = start(&[("ada.md", &file("Ada", "1.0.0"))], |_| ());
    assert_eq!(versions(&world.directory.roster()), ["Ada 1.0.0"]);
    world.put("ada.md", &file("Ada", "1.1.0"));
    world.until(|roster| versions(roster) == ["Ada 1.1.0"]).await;
    fs::write(world.path("bob.md"), file("Bob", "1.0.0")).unwrap();
    world.until(|roster| versions(roster) == ["Ada 1.1.0", "Bob 1.0.0"]).await;
    fs::rename(world.path("ada.md"), world.path("cyd.md")).unwrap();
    world.until(|roster| roster.get("Ada").is_some_and(|ada| ada.registered.path == "cyd.md")).await;
    fs::remove_file(world.path("cyd.md")).unwrap();
    let roster = world.until(|roster| versions(roster) == ["Bob 1.0.0"]).await;
    assert_eq!(roster.get("Bob").unwrap().registered.status, AgentStatus::Running);
}

#[tokio::test]
async fn a_readme_among_the_files_is_no_agent_and_no_fault() {
    let files = [("README.md", "# Our agents\n"), ("ada.md", &file("Ada", "1.0.0"))];
    let world = start(&files, |_| ());
    let roster = world.directory.roster();
    assert_eq!((versions(&roster), roster.rejected.len()), (vec!["Ada 1.0.0".to_owned()], 0));
    world.put("README.md", &file("Bob", "1.0.0"));
    world.until(|roster| versions(roster) == ["Ada 1.0.0", "Bob 1.0.0"]).await;
    world.put("README.md", "# Our agents\n");
    world.until(|roster| versions(roster) == ["Ada 1.0.0"]).await;
}

#[tokio::test]
async fn a_bad_file_keeps_the_last_good_version_and_is_told() {
    let world = start(&[("ada.md", &file("Ada", "1.0.0"))], |_| ());
    world.put("ada.md", "---\nname: Ada\nversion: two\ncapabilities: [a]\n---\nHi\n");
    let roster = world.until(|roster| !roster.rejected.is_empty()).await;
    assert_eq!(versions(&roster), ["Ada 1.0.0"]);
    let rejected = &roster.rejected[0];
    assert_eq!(
        (rejected.path.as_str(), rejected.problems[0].line, rejected.problems[0].column),
        ("ada.md", 3, 10)
    );
    // A restart changes nothing: the last good text is in the log.
    let world = world.again(|_| ());
    let roster = world.directory.roster();
    assert_eq!((versions(&roster), roster.rejected.len()), (vec!["Ada 1.0.0".to_owned()], 1));
    assert!(roster.get("Ada").unwrap().definition.is_some());
    world.put("ada.md", &file("Ada", "2.0.0"));
    world.until(|roster| versions(roster) == ["Ada 2.0.0"] && roster.rejected.is_empty()).await;
}

#[tokio::test]
async fn a_file_that_is_written_in_pieces_is_read_when_it_is_whole() {
    use std::io::Write as _;
    let world = start(&[], |_| ());
    let text = file("Ada", "1.0.0");
    let (head, tail) = text.split_at(20);
    let mut writer = fs::File::create(world.path("ada.md")).unwrap();
    writer.write_all(head.as_bytes()).unwrap();
    writer.sync_all().unwrap();
    writer.write_all(tail.as_bytes()).unwrap();
    drop(writer);
    world.until(|roster| versions(roster) == ["Ada 1.0.0"] && roster.rejected.is_empty()).await;
}

#[tokio::test]
async fn two_files_with_one_name_are_both_named() {
    let world = start(&[("ada.md", &file("Ada", "1.0.0"))], |_| ());
    world.put("aaa.md", &file("Ada", "9.0.0"));
    let roster = world.until(|roster| !roster.rejected.is_empty()).await;
    assert_eq!(versions(&roster), ["Ada 1.0.0"]);
    let reason = &roster.rejected[0].problems[0].reason;
    assert_eq!(reason, "aaa.md and ada.md both define the agent Ada; ada.md is in use");
    fs::remove_file(world.path("ada.md")).unwrap();
    world.until(|roster| versions(roster) == ["Ada 9.0.0"] && roster.rejected.is_empty()).await;
}

#[tokio::test]
async fn a_link_out_of_the_directory_is_refused_and_one_inside_is_not() {
    let world = start(&[], |_| ());
    let secret = world.folder.path().join("secret.md");
    fs::write(&secret, file("Spy", "1.0.0")).unwrap();
    symlink(&secret, world.path("spy.md")).unwrap();
    let roster = world.until(|roster| !roster.rejected.is_empty()).await;
    assert!(roster.agents.is_empty() && roster.rejected[0].problems[0].reason.contains("leads out"));
    fs::remove_file(world.path("spy.md")).unwrap();
    fs::write(world.path("ada.txt"), file("Ada", "1.0.0")).unwrap();
    fs::rename(world.path("ada.txt"), world.path("ada.md")).unwrap();
    world.until(|roster| versions(roster) == ["Ada 1.0.0"] && roster.rejected.is_empty()).await;
}

#[tokio::test]
async fn a_thousand_files_are_loaded_and_each_is_watched() {
    let names: Vec<String> = (0..1_000).map(|number| format!("Agent{number:04}")).collect();
    let files: Vec<(String, String)> =
        names.iter().map(|name| (format!("{name}.md"), file(name, "1.0.0"))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let world = start(&files, |_| ());
    assert_eq!(world.directory.roster().agents.len(), 1_000);
    world.put("Agent0999.md", &file("Agent0999", "2.0.0"));
    let changed =
        |roster: &Roster| roster.get("Agent0999").is_some_and(|agent| agent.registered.version == "2.0.0");
    world.until(changed).await;
    world.put("More.md", &file("More", "1.0.0"));
    let roster = world.until(|roster| !roster.rejected.is_empty()).await;
    assert!(roster.rejected[0].problems[0].remedy.contains("agents.max_agents"));
}

#[tokio::test]
async fn agents_beyond_a_lowered_limit_are_not_run_until_there_is_room() {
    use AgentStatus::{Error, Running};
    let files = ["Ada", "Bob", "Cyd"].map(|name| (format!("{name}.md"), file(name, "1.0.0")));
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let states = |world: &World| {
        let roster = world.directory.roster();
        roster.agents.values().map(|agent| agent.registered.status).collect::<Vec<_>>()
    };
    let id = |name: &str| -> caxton_events::AgentId { name.parse().unwrap() };
    let world = start(&files, |_| ()).again(|options| options.agents.max_agents = 1);
    assert_eq!(states(&world), [Running, Error, Error]);
    let reason = world.directory.roster().get("Bob").unwrap().registered.reason.clone();
    assert_eq!(reason, "there are 1 agents already, which is the limit");
    // Neither another text nor a restart makes room.
    let replaced = world.directory.replace(id("Bob"), file("Bob", "2.0.0"), true).await.unwrap();
    assert_eq!((replaced.registered.version.as_str(), replaced.registered.status), ("2.0.0", Error));
    assert!(matches!(world.directory.restart(id("Bob")).await, Err(DirectoryError::Full(1))));
    let events = world.log.events().len();
    let world = world.again(|options| options.agents.max_agents = 1);
    assert_eq!(world.log.events().len(), events, "what is known is not recorded again");
    world.directory.remove(id("Ada"), false).await.unwrap();
    assert_eq!(states(&world), [Running, Error]);
    let world = world.again(|_| ());
    assert_eq!(states(&world), [Running, Running]);
}

#[tokio::test]
async fn neither_a_restart_nor_an_earlier_version_passes_the_limit() {
    use AgentStatus::{Error, Running, Stopped};
    let id = |name: &str| -> caxton_events::AgentId { name.parse().unwrap() };
    let state = |world: &World, name: &str| {
        let registered = world.directory.roster().get(name).unwrap().registered.clone();
        (registered.version, registered.status, registered.reason)
    };
    let too_many = "there are 1 agents already, which is the limit";
    let world = start(&[("ada.md", &file("Ada", "1.0.0")), ("bob.md", &file("Bob", "1.0.0"))], |_| ());
    let doubtful = file("Bob", "2.0.0").replace("capabilities", "hobby: chess\ncapabilities");
    world.directory.replace(id("Bob"), doubtful, false).await.unwrap();
    world.directory.create(id("Cyd"), file("Cyd", "1.0.0"), false).await.unwrap();
    let world = world.again(|options| {
        options.agents.max_agents = 1;
        options.surroundings.strict = true;
    });
    let (version, status, reason) = state(&world, "Bob");
    assert!(version == "2.0.0" && status == Error && reason.contains("valid no longer"), "{reason}");
    assert_eq!(state(&world, "Cyd").1, Stopped);

    let events = world.log.events().len();
    assert!(matches!(world.directory.restart(id("Cyd")).await, Err(DirectoryError::Full(1))));
    assert_eq!((state(&world, "Cyd").1, world.log.events().len()), (Stopped, events));
    let back = world.directory.roll_back(id("Bob"), Earlier::Previous).await.unwrap();
    assert_eq!((back.registered.version.as_str(), back.registered.status), ("1.0.0", Error));
    assert_eq!(state(&world, "Bob"), ("1.0.0".to_owned(), Error, too_many.to_owned()));
    let events = world.log.events().len();
    world.directory.reload().await.unwrap();
    assert_eq!(world.log.events().len(), events, "nothing is left to be done");

    // With room there is nothing in the way.
    world.directory.remove(id("Ada"), false).await.unwrap();
    assert_eq!(state(&world, "Bob").1, Running);
    world.directory.remove(id("Bob"), false).await.unwrap();
    assert_eq!(world.directory.restart(id("Cyd")).await.unwrap().registered.status, Running);
}

#[tokio::test]
async fn a_storm_on_one_file_ends_with_its_newest_text_and_holds_up_nobody() {
    let world = start(&[("storm.md", &file("Storm", "0.0.0"))], |_| ());
    for version in 1..=200 {
        world.put("storm.md", &file("Storm", &format!("{version}.0.0")));
        if version == 100 {
            world.put("calm.md", &file("Calm", "1.0.0"));
        }
    }
    world.until(|roster| versions(roster) == ["Calm 1.0.0", "Storm 200.0.0"]).await;
    let loads =
        world.log.events().iter().filter(|event| matches!(event, AgentEvent::ConfigLoaded { .. })).count();
    assert!(loads < 100, "{loads} of 200 changes were recorded");
}

#[tokio::test]
async fn without_signs_of_the_system_the_directory_is_looked_through() {
    let world = start(&[("ada.md", &file("Ada", "1.0.0"))], |options| options.noticing = Noticing::Looking);
    world.put("ada.md", &file("Ada", "2.0.0"));
    world.until(|roster| versions(roster) == ["Ada 2.0.0"]).await;
    fs::remove_file(world.path("ada.md")).unwrap();
    world.until(|roster| roster.agents.is_empty()).await;
}

#[tokio::test]
async fn a_directory_that_vanishes_takes_no_agent_with_it() {
    let world = start(&[("ada.md", &file("Ada", "1.0.0"))], |options| options.noticing = Noticing::Looking);
    fs::rename(world.folder.path().join("agents"), world.folder.path().join("moved")).unwrap();
    let error = world.directory.reload().await.unwrap_err();
    assert_eq!(error.to_string(), "could not read the agents directory");
    assert_eq!(versions(&world.directory.roster()), ["Ada 1.0.0"]);
    fs::rename(world.folder.path().join("moved"), world.folder.path().join("agents")).unwrap();
    world.put("ada.md", &file("Ada", "2.0.0"));
    world.until(|roster| versions(roster) == ["Ada 2.0.0"]).await;
}

#[tokio::test]
async fn a_directory_that_is_lost_before_a_start_is_written_anew_and_an_emptied_one_is_not() {
    let files = [("ada.md", file("Ada", "1.0.0")), ("bob.md", file("Bob", "2.0.0"))];
    let world = start(&[("ada.md", &files[0].1), ("bob.md", &files[1].1)], |_| ());
    world.put("ada.md", "broken");
    world.until(|roster| !roster.rejected.is_empty()).await;
    world.directory.clone().stop();
    fs::remove_dir_all(world.folder.path().join("agents")).unwrap();
    let world = world.again(|_| ());
    assert_eq!(versions(&world.directory.roster()), ["Ada 1.0.0", "Bob 2.0.0"]);
    for (name, text) in &files {
        assert_eq!(fs::read_to_string(world.path(name)).unwrap(), *text, "the text in use");
    }
    world.directory.clone().stop();
    for (name, _) in &files {
        fs::remove_file(world.path(name)).unwrap();
    }
    assert!(world.again(|_| ()).directory.roster().agents.is_empty());
}

#[tokio::test]
async fn a_file_does_not_take_the_name_of_an_agent_outside_the_server() {
    let world = start(&[("ada.md", &file("Ada", "1.0.0"))], |_| ());
    let (agent, workspace) = ("Eve".parse().unwrap(), "default".parse().unwrap());
    world.log.record(vec![AgentEvent::ExternalRegistered { agent, workspace }]).unwrap();
    world.put("eve.md", &file("Eve", "1.0.0"));
    let roster = world.until(|roster| !roster.rejected.is_empty()).await;
    assert_eq!(versions(&roster), ["Ada 1.0.0"]);
    let problem = &roster.rejected[0].problems[0];
    assert_eq!(
        (problem.field.as_str(), problem.remedy.as_str()),
        ("name", "give the agent in the file another name")
    );
    assert!(
        problem.reason.starts_with("Eve is the name of an agent outside the server"),
        "{}",
        problem.reason
    );
    fs::remove_file(world.path("eve.md")).unwrap();
    world.until(|roster| roster.rejected.is_empty()).await;
    let refused =
        world.directory.create("Eve".parse().unwrap(), file("Eve", "1.0.0"), true).await.unwrap_err();
    assert!(matches!(refused, DirectoryError::NameOfAnother(name) if name.as_str() == "Eve"));
}

#[tokio::test]
async fn a_check_that_takes_too_long_keeps_what_is_in_use() {
    let world = start(&[("ada.md", &file("Ada", "1.0.0"))], |_| ());
    let world = world.again(|options| options.agents.hot_reload_timeout = Duration::ZERO);
    world.put("ada.md", &file("Ada", "2.0.0"));
    let took = |roster: &Roster| {
        roster.rejected.iter().any(|file| file.problems[0].reason.contains("took longer than"))
    };
    let roster = world.until(took).await;
    assert_eq!(versions(&roster), ["Ada 1.0.0"]);
}

#[tokio::test]
async fn what_the_log_does_not_take_is_tried_again() {
    let world = start(&[("ada.md", &file("Ada", "1.0.0"))], |_| ());
    world.log.fail_next("the disk is full");
    world.put("ada.md", &file("Ada", "2.0.0"));
    world.until(|roster| versions(roster) == ["Ada 2.0.0"]).await;
}

#[tokio::test]
async fn stricter_rules_at_a_restart_stop_an_agent_and_say_why() {
    let text = file("Ada", "1.0.0").replace("capabilities", "hobby: chess\ncapabilities");
    let world = start(&[("ada.md", &text)], |_| ());
    assert_eq!(world.directory.roster().get("Ada").unwrap().warnings.len(), 1);
    let world = world.again(|options| options.surroundings.strict = true);
    let roster = world.directory.roster();
    let ada = roster.get("Ada").unwrap();
    assert_eq!((ada.registered.status, ada.definition.is_none()), (AgentStatus::Error, true));
    assert!(ada.registered.reason.contains("hobby: unknown key"), "{}", ada.registered.reason);
    assert_eq!(roster.rejected.len(), 1);
    let events = world.log.events().len();
    let world = world.again(|options| options.surroundings.strict = true);
    assert_eq!(world.log.events().len(), events, "what is known is not recorded again");
    world.put("ada.md", &file("Ada", "1.0.1"));
    let roster = world.until(|roster| versions(roster) == ["Ada 1.0.1"]).await;
    assert_eq!(roster.get("Ada").unwrap().registered.status, AgentStatus::Running);
    assert!(world.log.read(caxton_events::Seq(0)).unwrap().is_none());
}
