//! What a cleanup would remove first.

use caxton_events::{MemoryEvent, MemoryId, Seq, Timestamp};

use super::{Fixture, Story};
use crate::graph::FILE_NAME;

/// Everything.
const ALL: std::ops::Range<MemoryId> = MemoryId(0)..MemoryId(u64::MAX >> 1);

fn ids(victims: &[crate::graph::Victim]) -> Vec<u64> {
    victims.iter().map(|victim| victim.id.0).collect()
}

#[test]
fn the_last_change_or_use_of_an_entity_says_how_recent_it_is() {
    let mut story = Story::default();
    let names = ["one", "two", "three", "four"];
    let [one, two, three, four] = names.map(|name| story.entity("global", name, "thing"));
    // A note keeps the first one fresh, a new description the second; what is removed does not count.
    story.note(one, "still of interest");
    story.rename(two, "deux");
    let gone = story.note(three, "soon gone");
    story.tell(MemoryEvent::ObservationRemoved { id: gone, entity: three });
    let reader = Fixture::told(&story, 3);
    let reader = reader.graph.reader();
    let unused = |_| None;
    assert_eq!(ids(&reader.least_recent(10, unused).unwrap()), [three.0, four.0, one.0, two.0]);
    assert_eq!(ids(&reader.least_recent(2, unused).unwrap()), [three.0, four.0]);
    let used = |id| (id == three).then(|| Timestamp::from_unix_micros(9_000));
    assert_eq!(ids(&reader.least_recent(2, used).unwrap()), [four.0, one.0], "who is read stays");
    assert!(reader.least_recent(0, unused).unwrap().is_empty());
}

#[test]
fn a_row_has_changed_since_whatever_was_recorded_of_it_then() {
    let mut story = Story::default();
    let names = ["still", "noted", "shorter", "renamed"];
    let [still, noted, shorter, renamed] = names.map(|name| story.entity("global", name, "thing"));
    let [kept, gone] = ["kept", "soon gone"].map(|text| story.note(shorter, text));
    let [firm, loose] = ["first", "second"].map(|kind| story.relate(still, noted, kind, 0.5));
    let since = Fixture::told(&story, 100).graph.reader().checkpoint().unwrap();
    story.note(noted, "of interest");
    story.tell(MemoryEvent::ObservationRemoved { id: gone, entity: shorter });
    story.rename(renamed, "other");
    story.tell(MemoryEvent::RelationRemoved { id: loose });
    let fixture = Fixture::told(&story, 100);
    let reader = fixture.graph.reader();
    let end = reader.checkpoint().unwrap();
    for (id, since, changed) in [
        (still, since, false),
        (noted, since, true),
        (shorter, since, true),
        (renamed, since, true),
        (noted, end, false),
        (shorter, end, false),
        (renamed, end, false),
        (kept, end, true),
    ] {
        assert_eq!(reader.entity_changed_since(id, since).unwrap(), changed, "{id} {since}");
    }
    assert!(!reader.relation_changed_since(firm, since).unwrap());
    assert!(reader.relation_changed_since(firm, Seq::FIRST).unwrap(), "it came later");
    assert!(reader.relation_changed_since(loose, end).unwrap(), "it is gone");
}

#[test]
fn the_largest_have_the_most_bytes_in_what_is_noted_of_them() {
    let mut story = Story::default();
    let [small, large, none] =
        ["small", "large", "none"].map(|name| story.entity("agent:ada", name, "thing"));
    story.note(small, "a few");
    story.note(large, &"many ".repeat(100));
    let gone = story.note(small, &"very many ".repeat(1_000));
    story.tell(MemoryEvent::ObservationRemoved { id: gone, entity: small });
    let fixture = Fixture::told(&story, 100);
    let reader = fixture.graph.reader();
    let found = reader.largest(ALL, 10).unwrap();
    assert_eq!(ids(&found), [large.0, small.0, none.0]);
    assert_eq!(found.iter().map(|victim| victim.key).collect::<Vec<_>>(), [500, 5, 0]);
    assert_eq!(ids(&reader.largest(ALL, 1).unwrap()), [large.0]);
    assert_eq!(ids(&reader.largest(small..large, 10).unwrap()), [small.0]);
}

#[test]
fn relations_go_by_strength_or_by_age() {
    let mut story = Story::default();
    let [a, b] = ["a", "b"].map(|name| story.entity("global", name, "thing"));
    let strong = story.relate(a, b, "first", 0.9);
    let weak = story.relate(a, b, "second", 0.1);
    let other = story.relate(b, a, "third", 0.9);
    let fixture = Fixture::told(&story, 100);
    let reader = fixture.graph.reader();
    assert_eq!(reader.relations_to_go(10, true).unwrap(), [weak, strong, other]);
    assert_eq!(reader.relations_to_go(2, false).unwrap(), [strong, weak]);
    assert!(reader.orphaned_relations(ALL, 10).unwrap().is_empty());
    // No event leaves such a relation behind; a file that was tampered with has some.
    let file = rusqlite::Connection::open(fixture.dir.path().join(FILE_NAME)).unwrap();
    file.execute("UPDATE relations SET to_entity = 77 WHERE id = ?1", (other.0 as i64,)).unwrap();
    assert_eq!(reader.orphaned_relations(ALL, 10).unwrap(), [other]);
    assert!(reader.orphaned_relations(strong..other, 10).unwrap().is_empty());
}
