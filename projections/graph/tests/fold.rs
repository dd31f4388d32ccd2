//! Folding: history, checkpoints, what is refused.

use caxton_events::memory::Validity;
use caxton_events::{AgentEvent, MemoryEvent, MemoryId, Seq, SystemEvent};

use super::{Fixture, Story};
use crate::graph::{Fact, HistoryRow};
use crate::projection::{ApplyError, Projection};

fn said(row: &HistoryRow) -> (u64, Option<u64>, String) {
    let text = match &row.fact {
        Fact::Entity(entity) => format!("{} v{}", entity.name, entity.version),
        Fact::Observation(observation) => observation.content.clone(),
        Fact::Relation(relation) => format!("{} {}", relation.relation_type, relation.strength),
    };
    (row.created_seq.0, row.removed_seq.map(|seq| seq.0), text)
}

#[test]
fn nothing_is_updated_away() {
    let mut story = Story::default();
    let ada = story.entity("agent:ada", "ada", "person");
    let bob = story.entity("agent:ada", "bob", "person");
    let note = story.note(ada, "likes engines");
    let knows = story.relate(ada, bob, "knows", 0.5);
    story.relate(bob, ada, "likes", 0.25);
    story.rename(ada, "ada l.");
    let content = "loves engines".to_owned();
    story.tell(MemoryEvent::ObservationUpdated {
        id: note,
        entity: ada,
        content,
        validity: Validity::default(),
    });
    story.tell(MemoryEvent::RelationUpdated {
        id: knows,
        strength: 0.75,
        confidence: 1.0,
        metadata: None,
        validity: Validity::default(),
    });
    story.tell(MemoryEvent::RelationRemoved { id: knows });
    story.tell(MemoryEvent::ObservationRemoved { id: note, entity: ada });
    story.tell(MemoryEvent::EntityRemoved { id: ada });
    let then = [
        (1, Some(6), "ada v1"),
        (3, Some(7), "likes engines"),
        (4, Some(8), "knows 0.5"),
        (5, None, "likes 0.25"),
        (6, Some(11), "ada l. v2"),
        (7, Some(10), "loves engines"),
        (8, Some(9), "knows 0.75"),
    ];
    for batch in [1, 2, 100] {
        let reader = Fixture::told(&story, batch).graph.reader();
        let history: Vec<_> = reader.history(ada).unwrap().iter().map(said).collect();
        let history: Vec<_> = history.iter().map(|(at, until, text)| (*at, *until, text.as_str())).collect();
        assert_eq!(history, then);
        assert_eq!(reader.entity(ada).unwrap(), None);
        assert_eq!(reader.observation(note).unwrap(), None);
        assert_eq!(reader.relation(knows).unwrap(), None);
        assert_eq!(reader.next_id().unwrap(), MemoryId(6));
    }
}

#[test]
fn a_version_keeps_who_and_when_of_the_first() {
    let mut story = Story::default();
    let ada = story.entity("agent:ada", "ada", "person");
    story.rename(ada, "countess");
    story.records.last_mut().unwrap().actor = "bob".to_owned();
    let reader = Fixture::told(&story, 1).graph.reader();
    let entity = reader.entity(ada).unwrap().unwrap();
    assert_eq!((entity.version, entity.owner.as_str()), (2, "ada"));
    assert_eq!((entity.created_seq, entity.updated_seq), (Seq(1), Seq(2)));
    assert_eq!((entity.created_at.unix_micros(), entity.updated_at.unix_micros()), (1_001, 1_002));
    let actors: Vec<_> = reader.history(ada).unwrap().into_iter().map(|row| row.actor).collect();
    assert_eq!(actors, ["ada", "bob"]);
    let json = serde_json::to_value(&entity).unwrap();
    assert_eq!(json.get("metadata").unwrap(), &serde_json::json!({"renamed": true}));
    assert_eq!(json.get("scope").unwrap(), "agent:ada");
    assert!(json.get("valid_from").unwrap().is_null() && json.get("validity").is_none());
}

#[test]
fn agents_are_remembered_by_their_first_registration() {
    let mut story = Story::default();
    let agent: caxton_events::AgentId = "ada".parse().unwrap();
    for workspace in ["lab", "office"] {
        let workspace = workspace.parse().unwrap();
        story.tell(AgentEvent::ExternalRegistered { agent: agent.clone(), workspace });
    }
    story.tell(SystemEvent::ServerStopped);
    let fixture = Fixture::told(&story, 1);
    let reader = fixture.graph.reader();
    assert!(reader.agent_known(&agent).unwrap());
    assert!(!reader.agent_known(&"bob".parse().unwrap()).unwrap());
    assert_eq!(reader.stats(None).unwrap().agents, 1);
    assert_eq!(reader.checkpoint().unwrap(), Seq(3));
}

#[test]
fn a_batch_offered_twice_is_folded_once() {
    let mut story = Story::default();
    let ada = story.entity("agent:ada", "ada", "person");
    story.note(ada, "likes engines");
    let mut fixture = Fixture::told(&story, 1);
    let digest = fixture.graph.reader().digest().unwrap();
    fixture.graph.apply(&story.records).unwrap();
    fixture.graph.apply(&[]).unwrap();
    assert_eq!(fixture.graph.reader().digest().unwrap(), digest);
}

#[test]
fn a_gap_is_refused() {
    let mut story = Story::default();
    story.entity("global", "a", "thing");
    story.entity("global", "b", "thing");
    let mut fixture = Fixture::new();
    let refused = fixture.graph.apply(story.records.get(1..).unwrap());
    assert!(matches!(refused, Err(ApplyError::Gap { expected: Seq(1), found: Seq(2) })), "{refused:?}");
    assert_eq!(fixture.graph.checkpoint(), Seq::ZERO);
}

#[test]
fn a_record_about_nothing_stops_the_fold_and_leaves_the_state_alone() {
    let nobody = MemoryId(99);
    let validity = Validity::default();
    let cases = [
        MemoryEvent::EntityRemoved { id: nobody },
        MemoryEvent::ObservationAdded { id: MemoryId(3), entity: nobody, content: "x".to_owned(), validity },
        MemoryEvent::ObservationRemoved { id: nobody, entity: MemoryId(1) },
        MemoryEvent::RelationRemoved { id: nobody },
    ];
    for event in cases {
        let mut story = Story::default();
        story.entity("global", "first", "thing");
        let mut fixture = Fixture::told(&story, 1);
        let digest = fixture.graph.reader().digest().unwrap();
        story.entity("workspace:new", "second", "thing");
        story.tell(event);
        let refused = fixture.graph.apply(&story.records);
        assert!(matches!(refused, Err(ApplyError::Unknown { seq: Seq(3), id: 99, .. })), "{refused:?}");
        assert_eq!(fixture.graph.reader().digest().unwrap(), digest);
        story.records.pop();
        fixture.graph.apply(&story.records).unwrap();
        let scopes = fixture.graph.reader().stats(None).unwrap().scopes;
        assert_eq!(scopes.iter().map(|scope| scope.entities).collect::<Vec<_>>(), [1, 1]);
    }
}

#[test]
fn a_number_is_given_once() {
    let mut story = Story::default();
    story.entity("global", "first", "thing");
    story.ids = 0;
    story.entity("global", "again", "thing");
    let refused = Fixture::new().graph.apply(&story.records);
    assert!(matches!(refused, Err(ApplyError::Store { after: Seq::ZERO, .. })), "{refused:?}");
}
