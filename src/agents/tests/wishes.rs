//! What people and programs ask of the directory.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use caxton_events::agent::{AgentEvent, AgentStatus, ConfigSource};
use caxton_events::{AgentId, Seq};

use super::super::{Conversations, DirectoryError, Earlier};
use super::directory::{start, versions};
use super::file;

fn name(name: &str) -> AgentId {
    name.parse().unwrap()
}

#[tokio::test]
async fn a_made_agent_has_a_file_and_survives_a_restart() {
    let world = start(&[], |_| ());
    let text = file("Ada", "1.0.0");
    let made = world.directory.create(name("Ada"), text.clone(), true).await.unwrap();
    assert_eq!((made.registered.status, made.registered.path.as_str()), (AgentStatus::Running, "Ada.md"));
    assert_eq!(fs::read_to_string(world.path("Ada.md")).unwrap(), text);
    let loads = |world: &super::directory::World| {
        world.log.events().iter().filter(|event| matches!(event, AgentEvent::ConfigLoaded { .. })).count()
    };
    world.directory.reload().await.unwrap();
    assert_eq!(loads(&world), 1, "its own file is no change");
    let world = world.again(|_| ());
    assert_eq!((versions(&world.directory.roster()), loads(&world)), (vec!["Ada 1.0.0".to_owned()], 1));
    let quiet = world.directory.create(name("Bob"), file("Bob", "1.0.0"), false).await.unwrap();
    assert_eq!(quiet.registered.status, AgentStatus::Stopped);
}

#[tokio::test]
async fn what_cannot_be_made_leaves_nothing_behind() {
    let world = start(&[("ada.md", &file("Ada", "1.0.0")), ("Cyd.md", "broken")], |options| {
        options.agents.max_agents = 1;
    });
    let create =
        async |who: &str, text: String| world.directory.create(name(who), text, true).await.unwrap_err();
    assert!(
        matches!(create("Ada", file("Ada", "2.0.0")).await, DirectoryError::NameTaken { path, .. } if path == "ada.md")
    );
    assert!(
        matches!(create("Cyd", file("Cyd", "2.0.0")).await, DirectoryError::NameTaken { path, .. } if path == "Cyd.md")
    );
    assert!(matches!(create("Bob", file("Bob", "2.0.0")).await, DirectoryError::Full(1)));
    assert!(
        matches!(create("Bob", file("Eve", "2.0.0")).await, DirectoryError::Invalid { problems, .. } if problems[0].field == "name")
    );
    assert!(matches!(create("Bob", "no".to_owned()).await, DirectoryError::Invalid { .. }));
    assert_eq!(fs::read_dir(world.path("")).unwrap().count(), 2);
    assert_eq!(versions(&world.directory.roster()), ["Ada 1.0.0"]);
}

#[tokio::test]
async fn a_log_that_refuses_leaves_the_file_as_it_was() {
    let world = start(&[("ada.md", &file("Ada", "1.0.0"))], |_| ());
    world.log.fail_next("closed");
    let error = world.directory.replace(name("Ada"), file("Ada", "2.0.0"), true).await.unwrap_err();
    assert_eq!(error.to_string(), "could not record what happens to agents");
    assert_eq!(fs::read_to_string(world.path("ada.md")).unwrap(), file("Ada", "1.0.0"));
    assert_eq!(fs::read_dir(world.path("")).unwrap().count(), 1);
    world.log.fail_next("closed");
    world.directory.remove(name("Ada"), false).await.unwrap_err();
    assert!(world.path("ada.md").exists());
    assert_eq!(versions(&world.directory.roster()), ["Ada 1.0.0"]);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_changes_no_agent() {
    let world = start(&[("ada.md", &file("Ada", "1.0.0"))], |_| ());
    let folder = world.path("");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
    // Whoever may do everything is not stopped by permissions.
    let allowed = fs::write(folder.join("probe"), "").is_ok();
    let replaced = world.directory.replace(name("Ada"), file("Ada", "2.0.0"), true).await;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let then = if allowed { "Ada 2.0.0" } else { "Ada 1.0.0" };
    assert_eq!(replaced.is_ok(), allowed);
    assert_eq!(versions(&world.directory.roster()), [then]);
}

#[tokio::test]
async fn a_replaced_text_is_written_where_the_agent_came_from() {
    let world = start(&[("people.md", &file("Ada", "1.0.0"))], |_| ());
    let replaced = world.directory.replace(name("Ada"), file("Ada", "2.0.0"), true).await.unwrap();
    assert_eq!(
        (replaced.registered.version.as_str(), replaced.registered.reason.as_str()),
        ("2.0.0", "restarted with another text")
    );
    assert_eq!(fs::read_to_string(world.path("people.md")).unwrap(), file("Ada", "2.0.0"));
    let error = world.directory.replace(name("Nobody"), file("Nobody", "1.0.0"), true).await.unwrap_err();
    assert!(matches!(error, DirectoryError::NotFound(_)));
}

#[tokio::test]
async fn an_agent_that_talks_is_removed_by_force_only() {
    let world = start(&[("ada.md", &file("Ada", "1.0.0"))], |options| {
        options.conversations = Conversations::counted(|agent| usize::from(agent.as_str() == "Ada") * 3);
    });
    let error = world.directory.remove(name("Ada"), false).await.unwrap_err();
    assert!(matches!(error, DirectoryError::Talking { conversations: 3, .. }));
    world.directory.remove(name("Ada"), true).await.unwrap();
    assert!(world.directory.roster().agents.is_empty() && !world.path("ada.md").exists());
    assert!(matches!(world.directory.restart(name("Ada")).await, Err(DirectoryError::NotFound(_))));
}

#[tokio::test]
async fn any_earlier_version_comes_back_and_stays_until_the_file_changes() {
    let world = start(&[("ada.md", &file("Ada", "1.0.0"))], |_| ());
    for version in ["1.1.0", "1.2.0"] {
        world.directory.replace(name("Ada"), file("Ada", version), false).await.unwrap();
    }
    let back = world.directory.roll_back(name("Ada"), Earlier::Previous).await.unwrap();
    assert_eq!(back.registered.version, "1.1.0");
    let back = world.directory.roll_back(name("Ada"), Earlier::Version("1.0.0".to_owned())).await.unwrap();
    assert_eq!(
        (back.registered.version.as_str(), back.definition.as_ref().unwrap().version.as_str()),
        ("1.0.0", "1.0.0")
    );
    let rollback = |event: &AgentEvent| {
        matches!(event, AgentEvent::ConfigLoaded { source: ConfigSource::Rollback { to: Seq(1), .. }, .. })
    };
    assert!(world.log.events().iter().any(rollback));
    let world = world.again(|_| ());
    assert_eq!(versions(&world.directory.roster()), ["Ada 1.0.0"]);
    assert_eq!(
        fs::read_to_string(world.path("ada.md")).unwrap(),
        file("Ada", "1.2.0"),
        "the file is the user's"
    );
    for wanted in [Earlier::Version("7.0.0".to_owned()), Earlier::At(Seq(999)), Earlier::At(Seq(2))] {
        let error = world.directory.roll_back(name("Ada"), wanted).await.unwrap_err();
        assert!(matches!(error, DirectoryError::NoSuchVersion { .. }), "{error}");
    }
    world.put("ada.md", &file("Ada", "2.0.0"));
    world.until(|roster| versions(roster) == ["Ada 2.0.0"]).await;
}

#[tokio::test]
async fn judgements_are_kept_by_content() {
    let world = start(&[], |_| ());
    let text = file("Ada", "1.0.0");
    let first = world.directory.validate(&text);
    let second = world.directory.validate(&text);
    assert!(std::sync::Arc::ptr_eq(&first, &second));
    let world = world.again(|options| options.agents.validation_cache_size = 0);
    assert!(!std::sync::Arc::ptr_eq(&world.directory.validate(&text), &world.directory.validate(&text)));
    world.directory.clone().stop();
    let error = world.directory.restart(name("Ada")).await.unwrap_err();
    assert!(matches!(error, DirectoryError::Stopped));
}
