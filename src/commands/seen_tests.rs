//! What a request that names a scope writes, and what one says that asks for both ways of a relation.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use caxton_events::{Event, MemoryId, Scope};

use super::tests::{
    Nothing, ada, added, connect, connected, create_as, created, lab, outcome, placed, registered, texts,
};
use super::{
    Caller, Decision, EntityChange, EntityRef, Ids, NewRelation, OnExisting, Overlay, RefusalCode,
    RelationChange, Write, WriteStatus, decide,
};

fn by_number(id: u64) -> EntityRef {
    EntityRef::Id { id: MemoryId(id), scopes: vec![Scope::Agent(ada())] }
}

/// What a request of ada's that names a scope, or none, comes to. The entity 1 has the observation 2, and the relation 3
/// connects 4 and 5, which are everybody's.
fn asked(place: &str, named: Option<&str>, write: &Write) -> Decision {
    let given = [
        registered(),
        placed(created(1, "Bob"), place),
        added(2, 1, "likes tea"),
        created(4, "Rob"),
        created(5, "Tom"),
        placed(connected(3, 4, 5), place),
    ];
    let mut present = Overlay::over(&Nothing);
    for event in &given {
        present.apply(event).unwrap();
    }
    let named: Option<Scope> = named.map(|named| named.parse().unwrap());
    let caller = Caller { actor: &ada(), workspace: &lab(), named: named.as_ref(), everywhere: false };
    decide(&present, caller, std::slice::from_ref(write), true, &mut Ids::starting_at(MemoryId(100))).unwrap()
}

/// One of each kind of write that means a row by its number, and what it is told when that is not there.
fn writes() -> Vec<(Write, RefusalCode)> {
    let change = EntityChange {
        entity: by_number(1),
        name: Some("Robert".to_owned()),
        entity_type: None,
        metadata: None,
        confidence: None,
        validity: None,
        expected_version: None,
    };
    let stronger = RelationChange {
        id: MemoryId(3),
        strength: Some(1.0),
        confidence: None,
        metadata: None,
        validity: None,
    };
    let (id, content) = (MemoryId(2), Some("likes ale".to_owned()));
    vec![
        (Write::RemoveEntity { entity: by_number(1), expected_version: None }, RefusalCode::EntityNotFound),
        (Write::UpdateEntity(change), RefusalCode::EntityNotFound),
        (
            Write::AddObservations { entity: by_number(1), observations: texts(&["is 40"]) },
            RefusalCode::EntityNotFound,
        ),
        (Write::RemoveObservation { id }, RefusalCode::ObservationNotFound),
        (Write::UpdateObservation { id, content, validity: None }, RefusalCode::ObservationNotFound),
        (Write::RemoveRelation { id: MemoryId(3) }, RefusalCode::RelationNotFound),
        (Write::UpdateRelation(stronger), RefusalCode::RelationNotFound),
    ]
}

#[test]
fn a_write_by_number_touches_only_the_scope_that_is_named() {
    for place in ["agent:ada", "workspace:lab", "global"] {
        for (write, code) in writes() {
            for named in ["agent:ada", "workspace:lab", "global", "agent:eve"] {
                let decision = asked(place, Some(named), &write);
                let told = decision.results[0].as_ref().map_err(|refusal| refusal.code);
                if place == named {
                    assert!(told.is_ok() && !decision.events.is_empty(), "{write:?}: {told:?}");
                } else {
                    assert_eq!(told.unwrap_err(), code, "{write:?} of {place} in {named}");
                    assert_eq!(decision.events, []);
                }
            }
            let decision = asked(place, None, &write);
            assert!(decision.results[0].is_ok(), "where none is named, all that ada sees are meant");
        }
    }
}

#[test]
fn a_version_of_an_entity_in_another_scope_is_not_told() {
    let write = Write::RemoveEntity { entity: by_number(1), expected_version: Some(7_u32.into()) };
    let code = |named| asked("global", named, &write).results[0].as_ref().unwrap_err().code;
    assert_eq!(code(Some("agent:ada")), RefusalCode::EntityNotFound);
    assert_eq!(code(None), RefusalCode::VersionConflict);
}

#[test]
fn a_relation_in_the_scope_that_is_named_connects_entities_of_wider_ones() {
    let scopes = vec![Scope::Agent(ada()), Scope::Global];
    let named = |name: &str| EntityRef::Named { name: name.to_owned(), scopes: scopes.clone() };
    for (from, to) in [(by_number(4), by_number(5)), (named("Rob"), named("Tom"))] {
        let scope = Scope::Agent(ada());
        let wish = NewRelation { scope, from, to, ..connect("Rob", "Tom") };
        let decision = asked("global", Some("agent:ada"), &Write::CreateRelation(wish));
        let events: Vec<Event> = decision.events.into_iter().map(|happened| happened.event).collect();
        assert_eq!(events, [placed(connected(100, 4, 5), "agent:ada")], "{:?}", decision.results);
    }
}

#[test]
fn a_request_that_names_a_scope_creates_nothing_in_another_one() {
    let create = create_as("Eve", &[], OnExisting::Merge);
    let refusal = asked("global", Some("agent:ada"), &create).results.remove(0).unwrap_err();
    assert_eq!((refusal.code, refusal.field.as_str()), (RefusalCode::Validation, "scope"), "{refusal}");
    assert!(asked("global", Some("global"), &create).results[0].is_ok());
}

#[test]
fn what_is_written_of_both_ways_of_a_relation_is_what_is_told() {
    let given = [created(1, "Bob"), created(2, "Eve"), connected(3, 1, 2)];
    let both = [&given[..], &[connected(4, 2, 1)]].concat();
    let other_way = [created(1, "Bob"), created(2, "Eve"), connected(4, 2, 1)];
    for (on_existing, there) in
        [(OnExisting::Skip, WriteStatus::Skipped), (OnExisting::Merge, WriteStatus::Unchanged)]
    {
        let wish = NewRelation { bidirectional: true, on_existing, ..connect("Bob", "Eve") };
        let write = [Write::CreateRelation(wish)];
        for (given, status, written) in [
            (&given[..], WriteStatus::Created, 1),
            (&other_way[..], WriteStatus::Created, 1),
            (&both[..], there, 0),
        ] {
            let decision = outcome(&[&[registered()], given].concat(), &write, true);
            assert_eq!(decision.results[0].as_ref().unwrap().status, status);
            assert_eq!(decision.events.len(), written);
        }
    }
}
