//! The rules, as rows: given these events, when this is asked, then this happens.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use caxton_events::memory::Validity;
use caxton_events::{AgentEvent, AgentId, Event, MemoryEvent, MemoryId, Scope, Seq, Timestamp, WorkspaceId};
use caxton_projections::graph::ReadError;

use super::{
    Caller, Decision, EntityChange, EntityRef, Ids, NewEntity, NewObservation, NewRelation, OnExisting,
    Overlay, Present, PresentEntity, PresentObservation, PresentRelation, RefusalCode, RelationChange,
    SweptRow, Write, WriteStatus, decide,
};

/// A memory that holds nothing: what is there comes from the overlay above it.
pub(super) struct Nothing;

impl Present for Nothing {
    fn entity(&self, _: MemoryId) -> Result<Option<PresentEntity>, ReadError> {
        Ok(None)
    }
    fn entity_named(&self, _: &Scope, _: &str) -> Result<Option<PresentEntity>, ReadError> {
        Ok(None)
    }
    fn entities_of(&self, _: &Scope, _: &[String]) -> Result<Vec<MemoryId>, ReadError> {
        Ok(Vec::new())
    }
    fn observation(&self, _: MemoryId) -> Result<Option<PresentObservation>, ReadError> {
        Ok(None)
    }
    fn observation_reading(&self, _: MemoryId, _: &str) -> Result<Option<MemoryId>, ReadError> {
        Ok(None)
    }
    fn observations_of(&self, _: MemoryId) -> Result<Vec<MemoryId>, ReadError> {
        Ok(Vec::new())
    }
    fn relation(&self, _: MemoryId) -> Result<Option<PresentRelation>, ReadError> {
        Ok(None)
    }
    fn relation_between(
        &self,
        _: &Scope,
        _: MemoryId,
        _: MemoryId,
        _: &str,
    ) -> Result<Option<PresentRelation>, ReadError> {
        Ok(None)
    }
    fn relations_of(&self, _: MemoryId) -> Result<Vec<(MemoryId, Scope)>, ReadError> {
        Ok(Vec::new())
    }
    fn relations_in(&self, _: &Scope) -> Result<Vec<MemoryId>, ReadError> {
        Ok(Vec::new())
    }
    fn changed_since(&self, _: SweptRow, _: Seq) -> Result<bool, ReadError> {
        Ok(true)
    }
    fn agent_known(&self, _: &AgentId) -> Result<bool, ReadError> {
        Ok(false)
    }
}

pub(super) fn ada() -> AgentId {
    "ada".parse().unwrap()
}

pub(super) fn lab() -> WorkspaceId {
    "lab".parse().unwrap()
}

pub(super) fn registered() -> Event {
    AgentEvent::ExternalRegistered { agent: ada(), workspace: lab() }.into()
}

pub(super) fn created(id: u64, name: &str) -> Event {
    typed(id, name, "person")
}

fn typed(id: u64, name: &str, entity_type: &str) -> Event {
    MemoryEvent::EntityCreated {
        id: MemoryId(id),
        scope: Scope::Global,
        name: name.to_owned(),
        entity_type: entity_type.to_owned(),
        metadata: None,
        confidence: 1.0,
        validity: Validity::default(),
    }
    .into()
}

pub(super) fn added(id: u64, entity: u64, content: &str) -> Event {
    MemoryEvent::ObservationAdded {
        id: MemoryId(id),
        entity: MemoryId(entity),
        content: content.to_owned(),
        validity: Validity::default(),
    }
    .into()
}

pub(super) fn connected(id: u64, from: u64, to: u64) -> Event {
    MemoryEvent::RelationCreated {
        id: MemoryId(id),
        scope: Scope::Global,
        from: MemoryId(from),
        to: MemoryId(to),
        relation_type: "knows".to_owned(),
        strength: 0.5,
        confidence: 1.0,
        metadata: None,
        validity: Validity::default(),
    }
    .into()
}

/// The same in another scope.
pub(super) fn placed(mut event: Event, scope: &str) -> Event {
    if let Event::Memory(
        MemoryEvent::EntityCreated { scope: place, .. } | MemoryEvent::RelationCreated { scope: place, .. },
    ) = &mut event
    {
        *place = scope.parse().unwrap();
    }
    event
}

fn memory(event: MemoryEvent) -> Event {
    event.into()
}

fn create(name: &str, observations: &[&str]) -> Write {
    create_as(name, observations, OnExisting::Merge)
}

pub(super) fn create_as(name: &str, observations: &[&str], on_existing: OnExisting) -> Write {
    Write::CreateEntity(NewEntity {
        scope: Scope::Global,
        name: name.to_owned(),
        entity_type: "person".to_owned(),
        observations: texts(observations),
        metadata: None,
        confidence: 1.0,
        validity: Validity::default(),
        on_existing,
    })
}

pub(super) fn texts(contents: &[&str]) -> Vec<NewObservation> {
    let text =
        |content: &&str| NewObservation { content: (*content).to_owned(), validity: Validity::default() };
    contents.iter().map(text).collect()
}

fn named(name: &str) -> EntityRef {
    EntityRef::Named { name: name.to_owned(), scopes: vec![Scope::Agent(ada()), Scope::Global] }
}

pub(super) fn connect(from: &str, to: &str) -> NewRelation {
    NewRelation {
        scope: Scope::Global,
        from: named(from),
        to: named(to),
        relation_type: "knows".to_owned(),
        strength: 0.5,
        confidence: 1.0,
        metadata: None,
        validity: Validity::default(),
        bidirectional: false,
        on_existing: OnExisting::Merge,
    }
}

fn rename(name: &str, to: &str) -> EntityChange {
    EntityChange {
        entity: named(name),
        name: Some(to.to_owned()),
        entity_type: None,
        metadata: None,
        confidence: None,
        validity: None,
        expected_version: None,
    }
}

pub(super) fn outcome(given: &[Event], when: &[Write], atomic: bool) -> Decision {
    let mut present = Overlay::over(&Nothing);
    for event in given {
        present.apply(event).unwrap();
    }
    let caller = Caller { actor: &ada(), workspace: &lab(), named: None, everywhere: false };
    decide(&present, caller, when, atomic, &mut Ids::starting_at(MemoryId(100))).unwrap()
}

/// Given these events, when this is asked as one atomic command, then these events happen.
#[track_caller]
fn check(given: &[Event], when: &[Write], then: &[Event]) {
    let given = [&[registered()], given].concat();
    let decision = outcome(&given, when, true);
    let events: Vec<Event> = decision.events.into_iter().map(|happened| happened.event).collect();
    assert_eq!(events, then, "{:?}", decision.results);
}

/// The same, refused: nothing happens, and the first refusal has this code and field.
#[track_caller]
fn check_refused(given: &[Event], when: &[Write], code: RefusalCode, field: &str) {
    let decision = outcome(given, when, true);
    let refusal = decision.results[0].as_ref().unwrap_err();
    assert_eq!((refusal.code, refusal.field.as_str()), (code, field), "{refusal}");
    assert_eq!(decision.events, []);
}

#[test]
fn a_new_entity_comes_with_its_observations_once_each() {
    check(
        &[],
        &[create("Bob", &["likes tea", "likes tea", "is 40"])],
        &[created(100, "Bob"), added(101, 100, "likes tea"), added(102, 100, "is 40")],
    );
}

#[test]
fn the_first_write_of_an_agent_registers_it() {
    let events = outcome(&[], &[create("Bob", &[])], true).events;
    assert_eq!(events[0].event, registered());
    assert_eq!((events[0].stream.as_str(), events[1].stream.as_str()), ("agents", "global"));
    // Nothing written, nobody registered.
    assert_eq!(outcome(&[], &[create("", &[])], true).events, []);
}

#[test]
fn an_entity_that_exists_gets_what_is_missing() {
    let given = [created(1, "Bob"), added(2, 1, "likes tea")];
    check(&given, &[create("Bob", &["likes tea", "is 40"])], &[added(100, 1, "is 40")]);
    check(&given, &[create("Bob", &["likes tea"])], &[]);
    check(&given, &[create_as("Bob", &["is 40"], OnExisting::Skip)], &[]);
    let refused = [create_as("Bob", &[], OnExisting::Refuse)];
    check_refused(&given, &refused, RefusalCode::AlreadyExists, "entity_name");
    let other_type = [typed(1, "Bob", "robot")];
    check_refused(&other_type, &[create("Bob", &[])], RefusalCode::TypeConflict, "entity_type");
}

#[test]
fn an_entity_of_another_type_is_extended_only_where_that_is_asked_for() {
    let given = [typed(1, "Bob", "robot"), added(2, 1, "likes tea")];
    let more = create_as("Bob", &["likes tea", "is 40"], OnExisting::Extend);
    check(&given, &[more], &[added(100, 1, "is 40")]);
    check(&given, &[create_as("Bob", &["likes tea"], OnExisting::Extend)], &[]);
    check(&[], &[create_as("Bob", &[], OnExisting::Extend)], &[created(100, "Bob")]);
    check_refused(&given, &[create("Bob", &["is 40"])], RefusalCode::TypeConflict, "entity_type");
    // The answer says which type that is.
    let told = |on_existing| {
        let decision = outcome(&given, &[create_as("Bob", &[], on_existing)], true);
        decision.results[0].as_ref().unwrap().entity_type.clone()
    };
    let robot = Some("robot".to_owned());
    let modes = [OnExisting::Extend, OnExisting::Skip, OnExisting::Update];
    assert_eq!(modes.map(told), [robot.clone(), robot, None]);
}

/// Given Bob with metadata, a confidence, a time and an observation with a time, when `wish` is merged into him, then
/// these of its fields are told as not taken.
#[track_caller]
fn check_not_taken(wish: impl FnOnce(&mut NewEntity), status: WriteStatus, then: &[&str]) {
    let time = |from, to| Validity { from: Some(Timestamp::from_unix_micros(from)), to };
    let known = NewEntity {
        scope: Scope::Global,
        name: "Bob".to_owned(),
        entity_type: "person".to_owned(),
        observations: vec![NewObservation { content: "likes tea".to_owned(), validity: time(3, None) }],
        metadata: Some("{\"a\":1,\"b\":2}".to_owned()),
        confidence: 0.5,
        validity: time(7, Some(Timestamp::from_unix_micros(9))),
        on_existing: OnExisting::Merge,
    };
    let mut wished = known.clone();
    wish(&mut wished);
    let decision = outcome(&[], &[Write::CreateEntity(known), Write::CreateEntity(wished)], true);
    let written = decision.results[1].as_ref().unwrap();
    let not_taken: Vec<&str> = written.not_taken.iter().map(String::as_str).collect();
    assert_eq!((written.status, not_taken.as_slice()), (status, then));
}

#[test]
fn what_a_merge_does_not_take_is_named() {
    let at = |micros| Some(Timestamp::from_unix_micros(micros));
    let (same, new) = (WriteStatus::Unchanged, WriteStatus::Updated);
    check_not_taken(|_| (), same, &[]);
    check_not_taken(|wish| wish.metadata = Some("{ \"b\": 2, \"a\": 1 }".to_owned()), same, &[]);
    // What is not given is not asked for; of a confidence only whoever reads the request knows.
    let silent = |wish: &mut NewEntity| {
        wish.metadata = None;
        wish.validity = Validity::default();
        wish.observations[0].validity = Validity::default();
    };
    check_not_taken(silent, same, &[]);
    check_not_taken(|wish| wish.metadata = Some("{}".to_owned()), same, &["metadata"]);
    check_not_taken(|wish| wish.confidence = 1.0, same, &["confidence"]);
    check_not_taken(|wish| wish.validity.to = at(8), same, &["valid_to"]);
    let other_time = |wish: &mut NewEntity| {
        wish.observations.push(wish.observations[0].clone());
        wish.observations[0].content = "is 40".to_owned();
        wish.observations[1].validity.from = at(4);
        wish.validity.from = at(6);
    };
    check_not_taken(other_time, new, &["valid_from", "observations[1].valid_from"]);
    let update = |wish: &mut NewEntity| {
        wish.on_existing = OnExisting::Update;
        other_time(wish);
    };
    check_not_taken(update, new, &["observations[1].valid_from"]);
    let twice = |wish: &mut NewEntity| {
        wish.name = "Eve".to_owned();
        wish.observations.push(wish.observations[0].clone());
        wish.observations[1].validity.to = at(5);
    };
    check_not_taken(twice, WriteStatus::Created, &["observations[1].valid_to"]);
}

#[test]
fn an_update_takes_the_type_over_and_keeps_metadata_that_is_not_given() {
    let mut given = typed(1, "Bob", "robot");
    if let Event::Memory(MemoryEvent::EntityCreated { metadata, .. }) = &mut given {
        *metadata = Some("{\"a\":1}".to_owned());
    }
    let then = memory(MemoryEvent::EntityUpdated {
        id: MemoryId(1),
        name: "Bob".to_owned(),
        entity_type: "person".to_owned(),
        metadata: Some("{\"a\":1}".to_owned()),
        confidence: 1.0,
        validity: Validity::default(),
    });
    check(&[given], &[create_as("Bob", &[], OnExisting::Update)], &[then]);
}

#[test]
fn later_writes_of_a_command_see_earlier_ones() {
    check(
        &[],
        &[create("Bob", &[]), create("Eve", &[]), Write::CreateRelation(connect("Bob", "Eve"))],
        &[created(100, "Bob"), created(101, "Eve"), connected(102, 100, 101)],
    );
    let renamed = memory(MemoryEvent::EntityUpdated {
        id: MemoryId(1),
        name: "Rob".to_owned(),
        entity_type: "person".to_owned(),
        metadata: None,
        confidence: 1.0,
        validity: Validity::default(),
    });
    check(
        &[created(1, "Bob")],
        &[Write::UpdateEntity(rename("Bob", "Rob")), create("Bob", &[]), create("Rob", &["new"])],
        &[renamed, created(100, "Bob"), added(101, 1, "new")],
    );
}

#[test]
fn an_atomic_command_happens_whole_or_not_at_all() {
    let when = [create("Bob", &[]), create(" ", &[]), create("Eve", &[])];
    check_refused(&[registered()], &when, RefusalCode::Validation, "entity_name");
    let decision = outcome(&[registered()], &when, false);
    let events: Vec<Event> = decision.events.into_iter().map(|happened| happened.event).collect();
    assert_eq!(events, [created(100, "Bob"), created(101, "Eve")]);
    assert_eq!(decision.results[1].as_ref().unwrap_err().index, 1);
}

#[test]
fn a_removed_entity_takes_its_rows_along_once() {
    let given =
        [created(1, "Bob"), created(2, "Eve"), added(3, 1, "x"), connected(4, 1, 2), connected(5, 2, 1)];
    check(
        &given,
        &[Write::RemoveEntity { entity: named("Bob"), expected_version: None }],
        &[
            memory(MemoryEvent::RelationRemoved { id: MemoryId(4) }),
            memory(MemoryEvent::RelationRemoved { id: MemoryId(5) }),
            memory(MemoryEvent::ObservationRemoved { id: MemoryId(3), entity: MemoryId(1) }),
            memory(MemoryEvent::EntityRemoved { id: MemoryId(1) }),
        ],
    );
    let cleared =
        outcome(&given, &[Write::ClearScope { scope: Scope::Global, entity_types: Vec::new() }], true);
    let written = cleared.results[0].as_ref().unwrap();
    assert_eq!((written.removed_entities, written.removed_relations), (2, 2));
    assert_eq!(cleared.events.len(), 1 + 2 + 1 + 2);
    let again = [
        Write::RemoveEntity { entity: named("Bob"), expected_version: None },
        Write::RemoveEntity { entity: named("Bob"), expected_version: None },
    ];
    check_refused(&given, &again, RefusalCode::EntityNotFound, "entity");
    // Each is recorded in the scope of its row.
    let given = [created(1, "Bob"), created(2, "Eve"), placed(connected(3, 1, 2), "agent:eve")];
    let remove = Write::RemoveEntity { entity: named("Bob"), expected_version: None };
    let streams = outcome(&given, &[remove], true).events.into_iter().map(|happened| happened.stream);
    assert_eq!(streams.collect::<Vec<_>>(), ["agents", "agent:eve", "global"]);
}

#[test]
fn a_relation_is_unique_by_its_ends_and_type() {
    let given = [created(1, "Bob"), created(2, "Eve"), connected(3, 1, 2)];
    check(&given, &[Write::CreateRelation(connect("Bob", "Eve"))], &[]);
    let both = NewRelation { bidirectional: true, ..connect("Bob", "Eve") };
    check(&given, &[Write::CreateRelation(both)], &[connected(100, 2, 1)]);
    let stronger = NewRelation { strength: 0.9, ..connect("Bob", "Eve") };
    let conflict = [Write::CreateRelation(stronger.clone())];
    check_refused(&given, &conflict, RefusalCode::RelationConflict, "relation_type");
    let updated = memory(MemoryEvent::RelationUpdated {
        id: MemoryId(3),
        strength: 0.9,
        confidence: 1.0,
        metadata: None,
        validity: Validity::default(),
    });
    let update = NewRelation { on_existing: OnExisting::Update, ..stronger };
    check(&given, &[Write::CreateRelation(update)], std::slice::from_ref(&updated));
    let change = RelationChange {
        id: MemoryId(3),
        strength: Some(0.9),
        confidence: None,
        metadata: None,
        validity: None,
    };
    check(&given, &[Write::UpdateRelation(change)], &[updated]);
}

#[test]
fn values_outside_their_bounds_are_refused_by_name() {
    let given = [created(1, "Bob"), created(2, "Eve")];
    let long = "x".repeat(1_025);
    let rows: Vec<(Write, RefusalCode, &str)> = vec![
        (create("", &[]), RefusalCode::Validation, "entity_name"),
        (create(&long, &[]), RefusalCode::TooLarge, "entity_name"),
        (create("a\u{0}b", &[]), RefusalCode::Validation, "entity_name"),
        (create("a\nb", &[]), RefusalCode::Validation, "entity_name"),
        (create(" a", &[]), RefusalCode::Validation, "entity_name"),
        (create("a", &["ok", ""]), RefusalCode::Validation, "observations[1]"),
        (create("a", &["bell\u{7}"]), RefusalCode::Validation, "observations[0]"),
        (
            create("a", &[&"x".repeat(1 << 20), "more", &"y".repeat((1 << 20) + 1)]),
            RefusalCode::TooLarge,
            "observations[2]",
        ),
        (
            Write::CreateRelation(NewRelation { strength: f64::NAN, ..connect("Bob", "Eve") }),
            RefusalCode::Validation,
            "strength",
        ),
        (
            Write::CreateRelation(NewRelation { confidence: -0.1, ..connect("Bob", "Eve") }),
            RefusalCode::Validation,
            "confidence",
        ),
        (Write::CreateRelation(connect("Bob", "Nobody")), RefusalCode::EntityNotFound, "to_entity"),
        (Write::CreateRelation(connect("Bob", "Bob")), RefusalCode::Validation, "to_entity"),
        (Write::RemoveRelation { id: MemoryId(9) }, RefusalCode::RelationNotFound, "relation_id"),
        (Write::RemoveObservation { id: MemoryId(9) }, RefusalCode::ObservationNotFound, "observation_id"),
        (Write::UpdateEntity(rename("Bob", "Eve")), RefusalCode::AlreadyExists, "entity_name"),
        (
            Write::RemoveEntity { entity: named("Bob"), expected_version: Some(2_u32.into()) },
            RefusalCode::VersionConflict,
            "version",
        ),
        (
            Write::UpdateEntity(EntityChange {
                expected_version: Some(7_u32.into()),
                ..rename("Bob", "Rob")
            }),
            RefusalCode::VersionConflict,
            "version",
        ),
        (
            Write::UpdateEntity(EntityChange {
                metadata: Some(Some("[]".to_owned())),
                ..rename("Bob", "Rob")
            }),
            RefusalCode::Validation,
            "metadata",
        ),
    ];
    for (write, code, field) in rows {
        check_refused(&given, &[write], code, field);
    }
}

#[test]
fn an_unchanged_row_writes_nothing_and_says_so() {
    let decision = outcome(&[created(1, "Bob")], &[Write::UpdateEntity(rename("Bob", "Bob"))], true);
    assert_eq!(decision.results[0].as_ref().unwrap().status, WriteStatus::Unchanged);
    assert_eq!(decision.events, []);
}

#[test]
fn rows_of_other_agents_and_workspaces_cannot_be_written() {
    let theirs = |scope: &str| placed(created(1, "Bob"), scope);
    let entity = EntityRef::Id { id: MemoryId(1), scopes: vec![Scope::Agent(ada())] };
    let remove = [Write::RemoveEntity { entity, expected_version: None }];
    for scope in ["agent:eve", "workspace:other"] {
        check_refused(&[theirs(scope)], &remove, RefusalCode::EntityNotFound, "entity");
    }
    for scope in ["agent:ada", "workspace:lab", "global"] {
        check(&[theirs(scope)], &remove, &[memory(MemoryEvent::EntityRemoved { id: MemoryId(1) })]);
    }
}

#[test]
fn observations_and_relations_of_others_are_not_there() {
    let given = [
        placed(created(1, "Bob"), "agent:eve"),
        added(2, 1, "likes tea"),
        created(3, "Rob"),
        created(4, "Tom"),
        placed(connected(5, 3, 4), "agent:eve"),
    ];
    let change = RelationChange {
        id: MemoryId(5),
        strength: Some(1.0),
        confidence: None,
        metadata: None,
        validity: None,
    };
    for (write, code, field) in [
        (Write::RemoveObservation { id: MemoryId(2) }, RefusalCode::ObservationNotFound, "observation_id"),
        (
            Write::UpdateObservation { id: MemoryId(2), content: Some("x".to_owned()), validity: None },
            RefusalCode::ObservationNotFound,
            "observation_id",
        ),
        (Write::RemoveRelation { id: MemoryId(5) }, RefusalCode::RelationNotFound, "relation_id"),
        (Write::UpdateRelation(change), RefusalCode::RelationNotFound, "relation_id"),
    ] {
        check_refused(&given, &[write], code, field);
    }
}

#[test]
fn an_entity_has_a_text_once_however_it_comes_to_it() {
    let given = [created(1, "Bob"), added(2, 1, "likes tea"), added(3, 1, "likes ale"), created(4, "Eve")];
    let change =
        |id, text: &str| Write::UpdateObservation { id, content: Some(text.to_owned()), validity: None };
    check_refused(&given, &[change(MemoryId(3), "likes tea")], RefusalCode::AlreadyExists, "content");
    check(&given, &[change(MemoryId(3), "likes ale")], &[]);
    let elsewhere = [&given[..], &[added(5, 4, "likes gin")]].concat();
    let event = MemoryEvent::ObservationUpdated {
        id: MemoryId(5),
        entity: MemoryId(4),
        content: "likes tea".to_owned(),
        validity: Validity::default(),
    };
    check(&elsewhere, &[change(MemoryId(5), "likes tea")], &[memory(event)]);
}

#[test]
fn a_name_that_reads_like_a_number_counts_where_the_number_does_not() {
    let given = [placed(created(1, "Bob"), "agent:eve"), created(2, "ent_1")];
    let entity = EntityRef::Id { id: MemoryId(1), scopes: vec![Scope::Global] };
    let remove = [Write::RemoveEntity { entity, expected_version: None }];
    check(&given, &remove, &[memory(MemoryEvent::EntityRemoved { id: MemoryId(2) })]);
}

#[test]
fn every_scope_has_relations_of_its_own_between_shared_entities() {
    let given = [created(1, "Bob"), created(2, "Eve"), placed(connected(3, 1, 2), "agent:eve")];
    let own = NewRelation { scope: Scope::Agent(ada()), strength: 0.9, ..connect("Bob", "Eve") };
    let mut then = placed(connected(100, 1, 2), "agent:ada");
    if let Event::Memory(MemoryEvent::RelationCreated { strength, .. }) = &mut then {
        *strength = 0.9;
    }
    check(&given, &[Write::CreateRelation(own)], &[then]);
    check(&given, &[Write::CreateRelation(connect("Bob", "Eve"))], &[connected(100, 1, 2)]);
}

#[test]
fn a_relation_never_leads_into_a_narrower_scope() {
    let given = [placed(created(1, "Bob"), "agent:ada"), created(2, "Eve")];
    let scopes = vec![Scope::Global];
    let from = EntityRef::Id { id: MemoryId(1), scopes };
    let out = NewRelation { from, ..connect("Bob", "Eve") };
    for scope in ["global", "workspace:lab"] {
        let wide = NewRelation { scope: scope.parse().unwrap(), ..out.clone() };
        check_refused(&given, &[Write::CreateRelation(wide)], RefusalCode::Validation, "from_entity");
    }
    let own = NewRelation { scope: Scope::Agent(ada()), ..out };
    check(&given, &[Write::CreateRelation(own)], &[placed(connected(100, 1, 2), "agent:ada")]);
}

#[test]
fn clearing_a_scope_takes_its_relations_between_shared_entities_too() {
    let given = [
        created(1, "Bob"),
        created(2, "Eve"),
        placed(connected(3, 1, 2), "agent:ada"),
        placed(connected(4, 1, 2), "agent:eve"),
    ];
    let clear = Write::ClearScope { scope: Scope::Agent(ada()), entity_types: Vec::new() };
    check(&given, &[clear], &[memory(MemoryEvent::RelationRemoved { id: MemoryId(3) })]);
    let some = Write::ClearScope { scope: Scope::Agent(ada()), entity_types: vec!["person".to_owned()] };
    check(&given, &[some], &[]);
}
