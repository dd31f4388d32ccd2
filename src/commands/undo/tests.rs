//! Undo over a real graph: cases by hand, and random stories of several agents.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};

use caxton_events::memory::{Chosen, Later, Validity};
use caxton_events::{Event, MemoryEvent, MemoryId, Record, Scope, Seq, Timestamp};
use caxton_projections::graph::{EntityFilter, Graph, RelationFilter, RowRef, SqliteOptions};
use caxton_projections::projection::Projection;
use proptest::prelude::*;
use tempfile::TempDir;

use super::{Plan, Undo, Why, plan, row_of};
use crate::commands::tests::Nothing;
use crate::commands::{
    Caller, EntityChange, EntityRef, Ids, NewEntity, NewObservation, NewRelation, OnExisting, Overlay,
    Present as _, RelationChange, Write, decide,
};

static NOTHING: Nothing = Nothing;

/// A memory that is decided on, and its graph.
struct World {
    graph: Graph,
    memory: Overlay<'static>,
    records: Vec<Record>,
    ids: Ids,
    undone: BTreeMap<Seq, Vec<Seq>>,
    /// The time of what is told: the same for worlds that are compared.
    now: u64,
    _dir: TempDir,
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let options =
            SqliteOptions { readers: 1, cache_size_mb: 2, mmap_size_mb: 4, ..SqliteOptions::default() };
        Self {
            graph: Graph::open(dir.path(), &options).unwrap(),
            memory: Overlay::over(&NOTHING),
            records: Vec::new(),
            ids: Ids::starting_at(MemoryId(1)),
            undone: BTreeMap::new(),
            now: 0,
            _dir: dir,
        }
    }

    fn tell(&mut self, actor: &str, events: &[MemoryEvent]) {
        let mut told = Vec::new();
        for event in events {
            let event = Event::Memory(event.clone());
            self.memory.apply(&event).unwrap();
            told.push(Record {
                seq: Seq((self.records.len() + told.len()) as u64 + 1),
                recorded_at: Timestamp::from_unix_micros(1_000_000 + self.now),
                stream: "test".to_owned(),
                actor: actor.to_owned(),
                correlation: None,
                causation: None,
                event,
            });
        }
        self.graph.apply(&told).unwrap();
        self.records.extend(told);
    }

    /// What a write comes to now; nothing when it is refused. Draws no numbers.
    fn decided(&self, actor: &str, write: &Write) -> Vec<MemoryEvent> {
        let (agent, lab) = (actor.parse().unwrap(), "lab".parse().unwrap());
        let caller = Caller { actor: &agent, workspace: &lab, named: None, everywhere: false };
        let (writes, mut ids) = (std::slice::from_ref(write), self.ids);
        let decision = decide(&self.memory, caller, writes, true, &mut ids).unwrap();
        let memory = |event| if let Event::Memory(event) = event { Some(event) } else { None };
        decision.events.into_iter().filter_map(|happened| memory(happened.event)).collect()
    }

    /// Writes; the positions of what happened.
    fn write(&mut self, actor: &str, write: &Write) -> Vec<Seq> {
        self.now += 1;
        let (events, before) = (self.decided(actor, write), self.records.len() as u64);
        self.tell(actor, &events);
        self.ids = Ids::starting_at(self.graph.reader().next_id().unwrap());
        (before..self.records.len() as u64).map(|seq| Seq(seq + 1)).collect()
    }

    /// Every fact about a row whose record passes.
    fn facts(&self, passes: impl Fn(&Record) -> bool) -> Vec<(Seq, RowRef)> {
        let row = |record: &Record| match &record.event {
            Event::Memory(event) => row_of(event),
            Event::Agent(_) | Event::Conversation(_) | Event::Turn(_) | Event::System(_) => None,
        };
        let passing = self.records.iter().filter(|record| passes(record));
        passing.filter_map(|record| Some((record.seq, row(record)?))).collect()
    }

    fn by(&self, actor: &str) -> Vec<(Seq, RowRef)> {
        self.facts(|record| record.actor == actor)
    }

    fn plan(&self, chosen: &[(Seq, RowRef)], later: Later) -> Plan {
        let undo = Undo { chosen, undone: &self.undone, later };
        self.graph.reader().at_once(|memory| Ok(plan(memory, &undo))).unwrap().unwrap()
    }

    /// Undoes, unless later facts are in the way; the plan, and the facts that an undo of this undo takes back.
    fn undo(&mut self, chosen: &[(Seq, RowRef)], later: Later) -> (Plan, Vec<(Seq, RowRef)>) {
        self.now += 1;
        let plan = self.plan(chosen, later);
        if plan.is_refused(later) || plan.changes.is_empty() {
            return (plan, Vec::new());
        }
        let first = Seq(self.records.len() as u64 + 1);
        let undoes: Vec<Vec<Seq>> = plan.changes.iter().map(|change| change.undoes.clone()).collect();
        self.undone.extend((first.0 + 1..).map(Seq).zip(undoes.clone()));
        let undone = MemoryEvent::Undone { chosen: Chosen::default(), later, through: first, undoes };
        let events: Vec<MemoryEvent> =
            std::iter::once(undone).chain(plan.changes.iter().map(|change| change.event.clone())).collect();
        self.tell("operator", &events);
        let back = self.facts(|record| record.seq >= first);
        (plan, back)
    }

    /// Every row of the present with what it says and who said it, without positions.
    fn state(&self) -> BTreeSet<String> {
        let reader = self.graph.reader();
        let mut rows = BTreeSet::new();
        let all = EntityFilter { limit: 10_000, ..EntityFilter::default() };
        for row in reader.list_entities(&all).unwrap() {
            for note in reader.observations_of(row.id, None, 10_000).unwrap() {
                rows.insert(format!(
                    "obs {} {} {:?} {:?} {} {}",
                    note.id, note.entity, note.content, note.validity, note.actor, note.created_at
                ));
            }
            rows.insert(format!(
                "ent {} {} {:?} {} {:?} {} {:?} {} {}",
                row.id,
                row.scope,
                row.name,
                row.entity_type,
                row.metadata,
                row.confidence,
                row.validity,
                row.owner,
                row.created_at
            ));
        }
        let all = RelationFilter { limit: 10_000, ..RelationFilter::default() };
        for row in reader.list_relations(&all).unwrap() {
            rows.insert(format!(
                "rel {} {} {} {} {} {} {} {:?} {} {}",
                row.id,
                row.scope,
                row.from,
                row.to,
                row.relation_type,
                row.strength,
                row.confidence,
                row.metadata,
                row.actor,
                row.created_at
            ));
        }
        rows
    }

    /// Nothing is about what is not there, nothing is there twice, and what decisions see is what the graph has.
    #[track_caller]
    fn assert_sound(&self) {
        let reader = self.graph.reader();
        let all = EntityFilter { limit: 10_000, ..EntityFilter::default() };
        let entities = reader.list_entities(&all).unwrap();
        let names: BTreeSet<_> =
            entities.iter().map(|row| (row.scope.to_string(), row.name.clone())).collect();
        assert_eq!(names.len(), entities.len(), "a name is there twice: {entities:#?}");
        let ids: BTreeSet<_> = entities.iter().map(|row| row.id).collect();
        let mut notes = 0;
        for entity in &entities {
            let seen = self.memory.entity_named(&entity.scope, &entity.name).unwrap().unwrap();
            assert_eq!((seen.id, seen.version), (entity.id, entity.version));
            notes += reader.observations_of(entity.id, None, 10_000).unwrap().len() as u64;
        }
        let stats = reader.stats(None).unwrap();
        assert_eq!(stats.observations, notes, "an observation is about nothing");
        let all = RelationFilter { limit: 10_000, ..RelationFilter::default() };
        let relations = reader.list_relations(&all).unwrap();
        let triples: BTreeSet<_> = relations
            .iter()
            .map(|row| (row.scope.to_string(), row.from, row.to, &row.relation_type))
            .collect();
        assert_eq!(triples.len(), relations.len(), "a relation is there twice");
        assert!(relations.iter().all(|row| ids.contains(&row.from) && ids.contains(&row.to)));
        assert_eq!(self.graph.check().unwrap(), Vec::<String>::new());
    }
}

fn create(name: &str, texts: &[&str]) -> Write {
    let note = |text: &&str| NewObservation { content: (*text).to_owned(), validity: Validity::default() };
    Write::CreateEntity(NewEntity {
        scope: Scope::Global,
        name: name.to_owned(),
        entity_type: "thing".to_owned(),
        observations: texts.iter().map(note).collect(),
        metadata: None,
        confidence: 1.0,
        validity: Validity::default(),
        on_existing: OnExisting::Merge,
    })
}

fn named(name: &str) -> EntityRef {
    EntityRef::Named { name: name.to_owned(), scopes: vec![Scope::Global] }
}

fn rename(name: &str, to: &str) -> Write {
    Write::UpdateEntity(EntityChange {
        entity: named(name),
        name: Some(to.to_owned()),
        entity_type: None,
        metadata: None,
        confidence: None,
        validity: None,
        expected_version: None,
    })
}

fn relate(from: &str, to: &str, relation_type: &str, strength: f64) -> Write {
    Write::CreateRelation(NewRelation {
        scope: Scope::Global,
        from: named(from),
        to: named(to),
        relation_type: relation_type.to_owned(),
        strength,
        confidence: 1.0,
        metadata: None,
        validity: Validity::default(),
        bidirectional: false,
        on_existing: OnExisting::Update,
    })
}

fn remove(name: &str) -> Write {
    Write::RemoveEntity { entity: named(name), expected_version: None }
}

/// A world in which all of this was written.
#[track_caller]
fn told(story: &[(&str, Write)]) -> World {
    let mut world = World::new();
    for (actor, write) in story {
        assert!(!world.write(actor, write).is_empty(), "{write:?} did nothing");
    }
    world
}

/// Tells the story, undoes what eve wrote, and looks at what is in the way and what is left of names and texts.
#[track_caller]
fn check(story: &[(&str, Write)], later: Later, in_the_way: &[Why], left: &[&str]) -> World {
    let mut world = told(story);
    let chosen = world.by("eve");
    let (plan, _) = world.undo(&chosen, later);
    assert_eq!(plan.later_facts.iter().map(|fact| fact.why).collect::<Vec<_>>(), in_the_way);
    world.assert_sound();
    let reader = world.graph.reader();
    let all = EntityFilter { limit: 100, ..EntityFilter::default() };
    let mut found = Vec::new();
    for entity in reader.list_entities(&all).unwrap() {
        found.push(entity.name);
        found.extend(
            reader.observations_of(entity.id, None, 100).unwrap().into_iter().map(|note| note.content),
        );
    }
    let all = RelationFilter { limit: 100, ..RelationFilter::default() };
    let relations = reader.list_relations(&all).unwrap();
    found.extend(relations.into_iter().map(|row| format!("{} {}", row.relation_type, row.strength)));
    assert_eq!(found, left);
    world
}

#[test]
fn what_was_created_goes_and_what_was_changed_is_what_it_was() {
    let story = [
        ("ada", create("engine", &["is brass"])),
        ("ada", create("loom", &[])),
        ("ada", relate("engine", "loom", "resembles", 0.5)),
        ("eve", create("engine", &["is a hoax"])),
        ("eve", create("phlogiston", &["burns"])),
        ("eve", relate("phlogiston", "engine", "drives", 1.0)),
        ("eve", relate("engine", "loom", "resembles", 0.1)),
        ("eve", rename("loom", "toy")),
    ];
    let world = check(&story, Later::Refuse, &[], &["engine", "is brass", "loom", "resembles 0.5"]);
    let loom = world.graph.reader().entity_by_name(&Scope::Global, "loom").unwrap().unwrap();
    assert_eq!((loom.owner.as_str(), loom.version), ("ada", 3), "versions count on");
    let relations = world.graph.reader().list_relations(&RelationFilter { limit: 9, ..Default::default() });
    assert_eq!(relations.unwrap()[0].actor, "ada", "who said what it says again");
}

#[test]
fn what_was_removed_comes_back_under_its_number_with_all_it_had() {
    let story = [
        ("ada", create("engine", &["is brass", "weighs tons"])),
        ("bob", create("loom", &[])),
        ("bob", relate("engine", "loom", "resembles", 0.5)),
        ("eve", remove("engine")),
    ];
    let world =
        check(&story, Later::Refuse, &[], &["engine", "is brass", "weighs tons", "loom", "resembles 0.5"]);
    let engine = world.graph.reader().entity_by_name(&Scope::Global, "engine").unwrap().unwrap();
    assert_eq!((engine.id, engine.created_seq, engine.owner.as_str()), (MemoryId(1), Seq(1), "ada"));
}

#[test]
fn a_later_change_of_the_same_row_is_in_the_way() {
    let story = [
        ("ada", create("engine", &[])),
        ("eve", rename("engine", "hoax")),
        ("bob", rename("hoax", "machine")),
        ("eve", rename("machine", "toy")),
        ("eve", create("spoon", &[])),
    ];
    check(&story, Later::Refuse, &[Why::SameRow], &["toy", "spoon"]);
    check(&story, Later::Keep, &[Why::SameRow], &["machine"]);
    check(&story, Later::Undo, &[Why::SameRow], &["engine"]);
}

#[test]
fn what_others_know_of_an_entity_that_would_go_is_in_the_way() {
    let story = [
        ("ada", create("loom", &[])),
        ("eve", create("engine", &["is a hoax"])),
        ("bob", create("engine", &["is brass"])),
        ("bob", relate("engine", "loom", "resembles", 0.5)),
    ];
    let about = [Why::About(MemoryId(2)), Why::About(MemoryId(2))];
    check(&story, Later::Refuse, &about, &["loom", "engine", "is a hoax", "is brass", "resembles 0.5"]);
    check(&story, Later::Keep, &about, &["loom", "engine", "is brass", "resembles 0.5"]);
    check(&story, Later::Undo, &about, &["loom"]);
}

#[test]
fn a_name_that_was_taken_since_is_in_the_way() {
    let story = [
        ("ada", create("engine", &["is brass"])),
        ("eve", remove("engine")),
        ("bob", create("engine", &["is steel"])),
    ];
    let taken = Why::TookPlaceOf(RowRef::Entity(MemoryId(1)));
    let both = [taken, Why::About(MemoryId(3))];
    check(&story, Later::Refuse, &both, &["engine", "is steel"]);
    let mut world = check(&story, Later::Undo, &both, &["engine", "is brass"]);
    let ghosts = world.undo(&world.by("bob"), Later::Refuse).0;
    assert_eq!((ghosts.already_undone, ghosts.changes.len()), (2, 0));
    // With the entity stay its rows away, which would have nowhere to go back to.
    check(&story, Later::Keep, &[taken], &["engine", "is steel"]);
}

#[test]
fn an_entity_that_was_removed_since_comes_back_with_all_it_had_or_its_rows_stay_away() {
    let story = [
        ("ada", create("engine", &["is brass", "weighs tons"])),
        ("eve", Write::RemoveObservation { id: MemoryId(2) }),
        ("bob", remove("engine")),
    ];
    let gone = Why::Removed(MemoryId(1));
    check(&story, Later::Refuse, &[gone, gone], &[]);
    check(&story, Later::Keep, &[gone], &[]);
    check(&story, Later::Undo, &[gone, gone], &["engine", "is brass", "weighs tons"]);
}

/// Takes back what bob did with all that builds on it; the same asked again finds nothing to do.
#[track_caller]
fn check_asked_again(story: &[(&str, Write)]) {
    let mut world = told(story);
    let chosen = world.by("bob");
    assert_ne!(world.undo(&chosen, Later::Undo).0.changes.len(), 0);
    world.assert_sound();
    for later in [Later::Refuse, Later::Undo, Later::Keep] {
        let again = world.plan(&chosen, later);
        assert_eq!(again.changes.len(), 0, "{later:?}: {again:#?}");
        assert!(later == Later::Keep || again.later_facts.is_empty(), "{later:?}: {again:#?}");
    }
}

#[test]
fn what_an_undo_decided_stands_when_the_same_is_asked_again() {
    // What ada said goes with her loom, which took the place of eve's; bob's removal of it brings neither back.
    check_asked_again(&[
        ("eve", create("loom", &["is brass"])),
        ("bob", remove("loom")),
        ("ada", create("loom", &["is steel"])),
        ("bob", Write::RemoveObservation { id: MemoryId(4) }),
    ]);
    // Only one of the two can have the name: the first. The second does not come back for it.
    check_asked_again(&[
        ("eve", create("loom", &[])),
        ("bob", remove("loom")),
        ("eve", create("loom", &["is brass"])),
        ("bob", remove("loom")),
    ]);
    // Nor is a name given back that a row had in between.
    check_asked_again(&[
        ("eve", create("loom", &[])),
        ("eve", create("toy", &[])),
        ("bob", remove("loom")),
        ("ada", rename("toy", "loom")),
        ("bob", rename("loom", "toy")),
    ]);
}

#[test]
fn a_row_that_is_there_does_not_go_because_an_undo_gave_its_old_name_away() {
    let mut world = told(&[
        ("ada", create("loom", &["is brass"])),
        ("bob", rename("loom", "toy")),
        ("eve", create("loom", &[])),
        ("mallory", remove("loom")),
    ]);
    world.undo(&world.by("mallory"), Later::Refuse);
    let chosen = world.by("bob");
    let found = world.plan(&chosen, Later::Refuse).later_facts;
    assert_eq!((found.len(), found[0].why), (1, Why::TookPlaceOf(RowRef::Entity(MemoryId(1)))));
    world.undo(&chosen, Later::Undo);
    world.assert_sound();
    let loom = world.graph.reader().entity_by_name(&Scope::Global, "loom").unwrap().unwrap();
    assert_eq!((loom.id, loom.owner.as_str()), (MemoryId(1), "ada"));
}

#[test]
fn names_that_were_swapped_are_swapped_back() {
    let story = [
        ("ada", create("a", &[])),
        ("ada", create("b", &[])),
        ("eve", rename("a", "c")),
        ("eve", rename("b", "a")),
        ("eve", rename("c", "b")),
    ];
    check(&story, Later::Refuse, &[], &["a", "b"]);
}

#[test]
fn an_undo_is_undone_and_done_again() {
    let mut world = World::new();
    world.write("ada", &create("engine", &["is brass"]));
    world.write("eve", &create("engine", &["is a hoax"]));
    world.write("eve", &rename("engine", "toy"));
    let (written, chosen) = (world.state(), world.by("eve"));
    let (_, back) = world.undo(&chosen, Later::Refuse);
    let undone = world.state();
    assert_ne!(undone, written);
    let again = world.plan(&chosen, Later::Refuse);
    assert_eq!((again.already_undone, again.changes.len()), (chosen.len(), 0));
    let (_, forth) = world.undo(&back, Later::Refuse);
    assert_eq!(world.state(), written);
    world.undo(&forth, Later::Refuse);
    assert_eq!(world.state(), undone);
    world.undo(&world.facts(|record| record.actor == "operator"), Later::Refuse);
    assert_eq!(world.state(), written, "all three together are two undoes and one that took one back");
    world.undo(&chosen, Later::Refuse);
    assert_eq!(world.state(), undone);
}

#[test]
fn what_was_created_and_removed_leaves_nothing_to_undo() {
    let mut world =
        told(&[("ada", create("loom", &[])), ("eve", create("toy", &["x"])), ("eve", remove("toy"))]);
    let (plan, _) = world.undo(&world.by("eve"), Later::Refuse);
    assert_eq!((plan.changes.len(), plan.without_effect, plan.already_undone), (0, 4, 0));
}

const NAMES: &[&str] = &["a", "b", "c", "d"];
const TEXTS: &[&str] = &["x", "y", "z"];
const ACTORS: &[&str] = &["ada", "bob", "eve"];

#[derive(Debug, Clone)]
struct Step {
    actor: usize,
    action: u8,
    one: usize,
    other: usize,
}

fn steps(max: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = (0..ACTORS.len(), 0_u8..12, 0_usize..1_000, 0_usize..1_000)
        .prop_map(|(actor, action, one, other)| Step { actor, action, one, other });
    prop::collection::vec(step, 1..max)
}

/// A wish that makes sense more often than not.
fn wish(world: &World, step: &Step) -> Option<Write> {
    let name = |pick: usize| NAMES[pick % NAMES.len()];
    let nth = |rows: Vec<MemoryId>| (!rows.is_empty()).then(|| rows[step.other % rows.len()]);
    let notes = || {
        let entity = world.memory.entity_named(&Scope::Global, name(step.one)).unwrap()?;
        nth(world.memory.observations_of(entity.id).unwrap())
    };
    let relations = || nth(world.memory.relations_in(&Scope::Global).unwrap());
    let text = TEXTS[step.other % TEXTS.len()];
    Some(match step.action {
        0 | 1 => create(name(step.one), &[text]),
        2 => create(name(step.one), &[]),
        3 => rename(name(step.one), name(step.other)),
        4 | 5 => relate(name(step.one), name(step.other), TEXTS[step.one % 2], (step.other % 4) as f64 / 4.0),
        6 => Write::UpdateObservation { id: notes()?, content: Some(text.repeat(2)), validity: None },
        7 => Write::RemoveObservation { id: notes()? },
        8 => Write::RemoveRelation { id: relations()? },
        9 => Write::UpdateRelation(RelationChange {
            id: relations()?,
            strength: Some((step.one % 5) as f64 / 5.0),
            confidence: None,
            metadata: None,
            validity: None,
        }),
        10 => remove(name(step.one)),
        _ => Write::UpdateEntity(EntityChange {
            entity: named(name(step.one)),
            name: None,
            entity_type: Some(text.to_owned()),
            metadata: None,
            confidence: Some(0.5),
            validity: None,
            expected_version: None,
        }),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn without_what_nobody_built_on_the_memory_is_as_if_it_had_never_been_written(steps in steps(40)) {
        let (mut with, mut without) = (World::new(), World::new());
        let mut touched: BTreeSet<RowRef> = BTreeSet::new();
        for step in &steps {
            let Some(write) = wish(&with, step) else { continue };
            let actor = ACTORS[step.actor];
            without.ids = with.ids;
            let events = with.decided(actor, &write);
            let rows: Vec<RowRef> = events.iter().filter_map(row_of).collect();
            if actor == "eve" {
                touched.extend(rows);
                with.write(actor, &write);
                without.now += 1;
            } else if events == without.decided(actor, &write) && rows.iter().all(|row| !touched.contains(row)) {
                with.write(actor, &write);
                without.write(actor, &write);
            }
        }
        let (plan, back) = with.undo(&with.by("eve"), Later::Refuse);
        prop_assert_eq!(&plan.later_facts, &vec![]);
        prop_assert_eq!(with.state(), without.state());
        with.assert_sound();
        // Nothing is left to undo, and the undo can be taken back.
        let again = with.plan(&with.by("eve"), Later::Refuse);
        prop_assert_eq!(again.changes.len() + again.later_facts.len(), 0);
        with.undo(&back, Later::Refuse);
        with.assert_sound();
    }

    #[test]
    fn whatever_is_undone_the_memory_stays_sound_and_each_undo_can_be_undone(
        steps in steps(40),
        undoes in prop::collection::vec((0..=ACTORS.len(), any::<bool>(), 0_usize..1_000, 1_usize..12), 1..5),
    ) {
        let mut world = World::new();
        let mut undoes = undoes.into_iter();
        for chunk in steps.chunks(steps.len().div_ceil(5)) {
            for step in chunk {
                if let Some(write) = wish(&world, step) {
                    world.write(ACTORS[step.actor], &write);
                }
            }
            let Some((actor, takes_along, from, len)) = undoes.next() else { break };
            let chosen = if let Some(actor) = ACTORS.get(actor) {
                world.by(actor)
            } else {
                let from = (from % world.records.len().max(1)) as u64 + 1;
                world.facts(|record| (from..from + len as u64).contains(&record.seq.0))
            };
            let later = if takes_along { Later::Undo } else { Later::Keep };
            let before = world.state();
            let (_, back) = world.undo(&chosen, later);
            world.assert_sound();
            if takes_along {
                let again = world.plan(&chosen, Later::Refuse);
                prop_assert_eq!(again.changes.len() + again.later_facts.len(), 0, "{:#?}", again);
            }
            let after = world.state();
            let (plan, forth) = world.undo(&back, Later::Refuse);
            prop_assert_eq!(&plan.later_facts, &vec![]);
            prop_assert_eq!(world.state(), before);
            world.assert_sound();
            world.undo(&forth, Later::Refuse);
            prop_assert_eq!(world.state(), after);
        }
    }
}
