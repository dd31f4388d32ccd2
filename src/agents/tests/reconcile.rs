//! Reconciliation against a model: any registry that history can lead to, any directory.

use std::collections::BTreeMap;
use std::sync::Arc;

use caxton_events::agent::{AgentEvent, AgentStatus, ConfigSource};
use caxton_events::{AgentId, CapabilityName, RegistrationId, Seq, Timestamp};
use proptest::prelude::*;

use super::super::reconcile::{Files, Loading, Rules, Seen, loaded, reconcile, removal};
use super::super::registry::Registry;
use super::super::{Surroundings, Validator};

const NAMES: [&str; 3] = ["Ada", "Bob", "Cyd"];
const PATHS: [&str; 4] = ["a.md", "b.md", "c.md", "d.md"];

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Good {
        name: usize,
        version: u8,
    },
    /// Its name can be read, and no more.
    Bad {
        name: usize,
        version: u8,
    },
    Garbage,
}

impl Text {
    fn content(self) -> String {
        match self {
            Self::Good { name, version } => {
                let capability = if version % 2 == 0 { "even, both" } else { "both" };
                format!(
                    "---\nname: {}\nversion: 1.0.{version}\ncapabilities: [{capability}]\n---\nHi\n",
                    NAMES[name]
                )
            }
            Self::Bad { name, version } => {
                format!("---\nname: {}\nversion: {version}\n---\nHi\n", NAMES[name])
            }
            Self::Garbage => "no agent".to_owned(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Write {
        path: usize,
        text: Text,
    },
    Delete {
        path: usize,
    },
    Move {
        from: usize,
        to: usize,
    },
    /// Take the agent of this name back to its oldest version.
    RollBack {
        name: usize,
    },
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        6 => (0..NAMES.len(), 0_u8..4).prop_map(|(name, version)| Text::Good { name, version }),
        2 => (0..NAMES.len(), 0_u8..2).prop_map(|(name, version)| Text::Bad { name, version }),
        1 => Just(Text::Garbage),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..PATHS.len(), text()).prop_map(|(path, text)| Step::Write { path, text }),
        2 => (0..PATHS.len()).prop_map(|path| Step::Delete { path }),
        2 => (0..PATHS.len(), 0..PATHS.len()).prop_map(|(from, to)| Step::Move { from, to }),
        1 => (0..NAMES.len()).prop_map(|name| Step::RollBack { name }),
    ]
}

/// A directory and a log without either.
struct World {
    registry: Registry,
    files: Files,
    log: Vec<AgentEvent>,
    drawn: u8,
    validator: Validator,
    agents_max: usize,
}

impl World {
    fn new(agents_max: usize) -> Self {
        Self {
            registry: Registry::default(),
            files: Files::new(),
            log: Vec::new(),
            drawn: 0,
            validator: Validator::new(Surroundings::default(), 100),
            agents_max,
        }
    }

    fn seen(&self, content: &str) -> Seen {
        Seen { content: Arc::from(content), checked: self.validator.check(content.as_bytes()) }
    }

    fn write(&mut self, path: &str, content: &str) {
        let seen = self.seen(content);
        self.files.insert(path.to_owned(), seen);
    }

    fn record(&mut self, events: Vec<AgentEvent>) {
        for event in events {
            self.log.push(event);
            let seq = self.log.len() as u64;
            self.registry.apply(Seq(seq), Timestamp::from_unix_micros(seq), &self.log[self.log.len() - 1]);
        }
    }

    /// The events of one reconciliation, which are recorded.
    fn settle(&mut self) -> Vec<AgentEvent> {
        let mut drawn = self.drawn;
        let mut number = || {
            drawn = drawn.wrapping_add(1);
            RegistrationId::from_bytes([drawn; 16])
        };
        let mut rules = Rules { agents_max: self.agents_max, number: &mut number, is_external: &|_| false };
        let events = reconcile(&self.registry, &self.files, &mut rules);
        self.drawn = drawn;
        self.record(events.clone());
        events
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Write { path, text } => self.write(PATHS[path], &text.content()),
            Step::Delete { path } => _ = self.files.remove(PATHS[path]),
            Step::Move { from, to } => {
                if let Some(seen) = self.files.remove(PATHS[from]) {
                    self.files.insert(PATHS[to].to_owned(), seen);
                }
            }
            Step::RollBack { name } => self.roll_back(NAMES[name]),
        }
    }

    fn roll_back(&mut self, name: &str) {
        let name: AgentId = name.parse().unwrap();
        let Some(before) = self.registry.agents.get(&name).cloned() else { return };
        let seq = self.registry.past[&name][0].seq;
        let AgentEvent::ConfigLoaded { content, .. } = self.log[seq.0 as usize - 1].clone() else {
            panic!("a past version is a loaded one")
        };
        let checked = self.validator.check(content.as_bytes());
        let file_sha256 =
            self.files.get(&before.path).map_or(before.sha256.clone(), |seen| seen.checked.sha256.clone());
        let source = ConfigSource::Rollback { to: seq, file_sha256 };
        let (path, sha256, content) = (before.path.as_str(), checked.sha256.as_str(), content.as_str());
        let loading = Loading { source, path, sha256, content, start: true };
        let definition = checked.judgement.definition.as_ref().unwrap();
        let mut number = || RegistrationId::from_bytes([99; 16]);
        let events = loaded(Some(&before), definition, &loading, &mut number);
        self.record(events);
    }

    /// What must be true whenever nothing is to be done.
    fn check(&mut self, before: &Registry) {
        let again = self.settle();
        assert!(again.is_empty(), "a second look must find nothing to do: {again:?}");
        assert!(self.registry.agents.len() <= self.agents_max);
        let mut good: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (path, seen) in &self.files {
            if let Some(definition) = &seen.checked.judgement.definition {
                good.entry(definition.name.as_str()).or_default().push(path);
            }
        }
        for (name, agent) in &self.registry.agents {
            let offered: Vec<_> = agent.capabilities.keys().map(CapabilityName::as_str).collect();
            assert!(offered == ["both", "even"] || offered == ["both"], "{offered:?}");
            assert_eq!(agent.status, AgentStatus::Running);
            if agent.pinned.is_some() {
                continue;
            }
            let seen = self.files.get(&agent.path).expect("an agent in use has its file");
            let is_good = seen.checked.judgement.definition.is_some();
            if is_good {
                assert_eq!(agent.sha256, seen.checked.sha256, "a good file is the version in use");
                assert!(good[name.as_str()].contains(&agent.path.as_str()));
            } else {
                let kept = before.agents.get(name).expect("only what was loaded is kept");
                assert_eq!(kept.sha256, agent.sha256, "a bad file keeps the last good version");
            }
        }
        for (name, paths) in good {
            let name: AgentId = name.parse().unwrap();
            let agent = self.registry.agents.get(&name);
            assert!(
                agent.is_some() || self.registry.agents.len() >= self.agents_max,
                "{name} has a good file"
            );
            let refused = paths.iter().filter(|path| agent.is_none_or(|agent| agent.path != **path));
            for path in refused.filter(|_| agent.is_none_or(|agent| agent.pinned.is_none())) {
                let rejection = self.registry.rejected.get(*path).expect("whoever comes second is told");
                let reason = &rejection.problems[0].reason;
                let both = agent.is_none_or(|agent| reason.contains(*path) && reason.contains(&agent.path));
                assert!(both || reason.contains("the limit"), "{reason}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn whatever_happens_the_registry_is_what_the_directory_says(
        steps in prop::collection::vec((step(), any::<bool>()), 1..30),
        agents_max in 1_usize..4,
    ) {
        let mut world = World::new(agents_max);
        for (step, look) in steps {
            world.take(step);
            if look {
                let before = world.registry.clone();
                world.settle();
                world.check(&before);
            }
        }
        // The same log folds to the same registry.
        let mut again = Registry::default();
        for (index, event) in world.log.iter().enumerate() {
            let seq = index as u64 + 1;
            again.apply(Seq(seq), Timestamp::from_unix_micros(seq), event);
        }
        prop_assert_eq!(again, world.registry);
    }
}

/// After these files one after the other, the events of the last look by name.
#[track_caller]
fn check(looks: &[&[(&str, &str)]], then: &[&str]) {
    let mut world = World::new(10);
    let mut last = Vec::new();
    for files in looks {
        world.files.clear();
        for (path, content) in *files {
            world.write(path, content);
        }
        last = world.settle();
    }
    let last: Vec<String> = last.iter().map(shown).collect();
    assert_eq!(last, then);
}

fn shown(event: &AgentEvent) -> String {
    match event {
        AgentEvent::ConfigLoaded { agent, version, path, .. } => format!("loaded {agent} {version} {path}"),
        AgentEvent::ConfigRemoved { agent, path } => format!("removed {agent} {path}"),
        AgentEvent::ConfigRejected { path, problems, .. } => {
            format!("rejected {path} {}", problems[0].reason)
        }
        AgentEvent::StatusChanged { agent, status, .. } => format!("{agent} {status}"),
        AgentEvent::CapabilityRegistered { capability, .. } => format!("+{capability}"),
        AgentEvent::CapabilityRemoved { capability, .. } => format!("-{capability}"),
        AgentEvent::CapabilityUpdated { priority, .. } => format!("priority {priority}"),
        AgentEvent::ExternalRegistered { .. }
        | AgentEvent::HealthChanged { .. }
        | AgentEvent::CircuitChanged { .. } => format!("{event:?}"),
    }
}

fn good(name: usize, version: u8) -> String {
    Text::Good { name, version }.content()
}

#[test]
fn files_come_change_move_and_go() {
    let (one, two, three) = (good(0, 1), good(0, 2), good(0, 3));
    check(&[&[("a.md", &one)]], &["loaded Ada 1.0.1 a.md", "+both", "Ada running"]);
    check(&[&[("a.md", &one)], &[("a.md", &one)]], &[]);
    check(&[&[("a.md", &one)], &[("a.md", &two)]], &["loaded Ada 1.0.2 a.md", "+even"]);
    check(&[&[("a.md", &two)], &[("a.md", &three)]], &["loaded Ada 1.0.3 a.md", "-even"]);
    check(&[&[("a.md", &one)], &[("b.md", &one)]], &["loaded Ada 1.0.1 b.md"]);
    check(&[&[("a.md", &one)], &[]], &["-both", "removed Ada a.md"]);
    let bob = good(1, 1);
    check(
        &[&[("a.md", &one)], &[("a.md", &bob)]],
        &["-both", "removed Ada a.md", "loaded Bob 1.0.1 a.md", "+both", "Bob running"],
    );
}

#[test]
fn of_two_files_with_one_name_the_first_stays_until_it_goes() {
    let (one, two) = (good(0, 1), good(0, 2));
    let taken = "rejected a.md a.md and b.md both define the agent Ada; b.md is in use";
    check(&[&[("b.md", &one)], &[("a.md", &two), ("b.md", &one)]], &[taken]);
    check(&[&[("b.md", &one)], &[("a.md", &two), ("b.md", &one)], &[("a.md", &two), ("b.md", &one)]], &[]);
    check(
        &[&[("b.md", &one)], &[("a.md", &two), ("b.md", &one)], &[("a.md", &two)]],
        &["loaded Ada 1.0.2 a.md", "+even"],
    );
    // Even while the first is broken: whoever repairs it finds the agent as it was.
    let both: &[(&str, &str)] = &[("a.md", &two), ("b.md", "no agent")];
    check(&[&[("b.md", &one)], both], &[taken, "rejected b.md there is no front matter"]);
}

#[test]
fn a_version_that_was_taken_back_to_stays_until_the_file_changes() {
    let mut world = World::new(10);
    for version in [1, 2] {
        world.write("a.md", &good(0, version));
        world.settle();
    }
    world.roll_back("Ada");
    let in_use =
        |world: &World| world.registry.agents.values().map(|agent| agent.version.clone()).collect::<Vec<_>>();
    assert_eq!(in_use(&world), ["1.0.1"]);
    assert!(world.settle().is_empty(), "the file is the same");
    world.write("a.md", "broken");
    world.settle();
    assert_eq!(in_use(&world), ["1.0.1"]);
    world.write("a.md", &good(0, 3));
    world.settle();
    assert_eq!(in_use(&world), ["1.0.3"]);
}

#[test]
fn removal_takes_the_capabilities_first() {
    let mut world = World::new(10);
    world.write("a.md", &good(0, 2));
    world.settle();
    let (name, agent) = world.registry.agents.first_key_value().unwrap();
    let events: Vec<String> = removal(name, agent).iter().map(shown).collect();
    assert_eq!(events, ["-both", "-even", "removed Ada a.md"]);
}
