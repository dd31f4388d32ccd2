//! Lists, neighbours, relations and walks.

use caxton_events::memory::Validity;
use caxton_events::{MemoryEvent, MemoryId, Scope, Timestamp};

use super::{Fixture, Story};
use crate::graph::{Direction, EntityFilter, ReadError, RelationFilter, Walk, WalkQuery, WalkStrategy};
use crate::projection::Projection as _;

fn scopes(texts: &[&str]) -> Vec<Scope> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Seven entities; the last was true until the tenth microsecond.
fn zoo() -> Fixture {
    let mut story = Story::default();
    for (scope, name, entity_type) in [
        ("agent:ada", "apple", "fruit"),
        ("global", "apple", "fruit"),
        ("agent:ada", "apricot", "fruit"),
        ("agent:ada", "ant", "animal"),
        ("agent:bob", "ape", "animal"),
        ("global", "zebra", "animal"),
    ] {
        story.entity(scope, name, entity_type);
    }
    let id = story.id();
    story.tell(MemoryEvent::EntityCreated {
        id,
        scope: Scope::Global,
        name: "dodo".to_owned(),
        entity_type: "animal".to_owned(),
        metadata: None,
        confidence: 1.0,
        validity: Validity { from: None, to: Some(Timestamp::from_unix_micros(10)) },
    });
    Fixture::told(&story, 3)
}

#[test]
fn entities_are_listed_by_what_the_filter_says() {
    let all = || EntityFilter { limit: 100, ..EntityFilter::default() };
    let within = |names: &[&str]| EntityFilter { scopes: scopes(names), ..all() };
    let starting = |prefix: &str| EntityFilter { name_prefix: Some(prefix.to_owned()), ..all() };
    let animals = || EntityFilter { entity_types: texts(&["animal", "animal"]), ..all() };
    let true_at = |micros| EntityFilter {
        valid_at: Some(Timestamp::from_unix_micros(micros)),
        after: Some(MemoryId(5)),
        ..all()
    };
    let page =
        |filter: EntityFilter, after, limit| EntityFilter { after: Some(MemoryId(after)), limit, ..filter };
    let cases: [(EntityFilter, &[u64]); 13] = [
        (all(), &[1, 2, 3, 4, 5, 6, 7]),
        (within(&["agent:ada", "global", "agent:ada"]), &[1, 2, 3, 4, 6, 7]),
        (within(&["agent:nobody"]), &[]),
        (animals(), &[4, 5, 6, 7]),
        (EntityFilter { scopes: scopes(&["global", "agent:ada"]), ..animals() }, &[4, 6, 7]),
        (starting("ap"), &[1, 2, 3, 5]),
        (EntityFilter { scopes: scopes(&["agent:bob", "global"]), ..starting("ap") }, &[2, 5]),
        (EntityFilter { entity_types: texts(&["animal"]), ..starting("ap") }, &[5]),
        (starting("AP"), &[]),
        (true_at(9), &[6, 7]),
        (true_at(10), &[6]),
        (page(all(), 2, 2), &[3, 4]),
        (page(within(&["agent:ada", "global"]), 1, 2), &[2, 3]),
    ];
    let reader = zoo().graph.reader();
    for (filter, then) in cases {
        let found: Vec<u64> =
            reader.list_entities(&filter).unwrap().iter().map(|entity| entity.id.0).collect();
        assert_eq!(found, then, "{filter:?}");
    }
}

#[test]
fn rows_are_found_by_number_and_by_name() {
    let mut story = Story::default();
    let ada = story.entity("agent:ada", "ada", "person");
    let notes: Vec<_> = ["one", "two", "three", "four", "five"].map(|text| story.note(ada, text)).into();
    let other = story.entity("global", "ada", "person");
    story.note(other, "three");
    let reader = Fixture::told(&story, 100).graph.reader();
    let named =
        |scope: &str| reader.entity_by_name(&scope.parse().unwrap(), "ada").unwrap().map(|entity| entity.id);
    assert_eq!([named("agent:ada"), named("global"), named("agent:bob")], [Some(ada), Some(other), None]);
    let ids = [other, MemoryId(77), ada];
    assert_eq!(
        reader.entities(&ids).unwrap().iter().map(|entity| entity.id).collect::<Vec<_>>(),
        [other, ada]
    );
    let text =
        |found: Vec<crate::graph::Observation>| found.into_iter().map(|one| one.content).collect::<Vec<_>>();
    assert_eq!(text(reader.observations_of(ada, Some(notes[0]), 2).unwrap()), ["two", "three"]);
    assert_eq!(text(reader.observations(&[notes[3], notes[0]]).unwrap()), ["four", "one"]);
    reader
        .at_once(|graph| {
            assert_eq!(text(graph.observations_of(ada, notes[2], 9)?), ["four", "five"]);
            assert_eq!(text(graph.observations_before(ada, notes[2], 9)?), ["two", "one"]);
            assert_eq!(text(graph.observations_before(ada, notes[2], 1)?), ["two"]);
            assert_eq!(graph.entity_standing(ada)?, Some(("ada".to_owned(), Validity::default())));
            assert_eq!(graph.observation_extent(notes[2])?, Some((Validity::default(), "three".len())));
            assert_eq!((graph.entity_standing(notes[2])?, graph.observation_extent(ada)?), (None, None));
            Ok(())
        })
        .unwrap();
    assert_eq!(reader.observation_count(ada).unwrap(), 5);
    assert_eq!(reader.observation_by_content(ada, "three").unwrap().unwrap().id, notes[2]);
    assert_eq!(reader.observation_by_content(ada, "six").unwrap(), None);
}

#[test]
fn observations_are_counted_while_they_are_true() {
    let mut story = Story::default();
    let ada = story.entity("global", "ada", "person");
    story.note(ada, "always");
    let at = Timestamp::from_unix_micros;
    for (content, from, to) in [("then", 10, 20), ("later", 20, 30)] {
        let (id, validity) = (story.id(), Validity { from: Some(at(from)), to: Some(at(to)) });
        let content = content.to_owned();
        story.tell(MemoryEvent::ObservationAdded { id, entity: ada, content, validity });
    }
    let reader = Fixture::told(&story, 100).graph.reader();
    let counts = [9, 10, 19, 20, 30].map(|micros| reader.observation_count_at(ada, at(micros)).unwrap());
    assert_eq!(counts, [1, 2, 2, 2, 1]);
    assert_eq!(reader.observation_count(ada).unwrap(), 3);
}

#[test]
fn relations_are_found_by_end_by_triple_and_in_pages() {
    let mut story = Story::default();
    let [a, b, c] = ["a", "b", "c"].map(|name| story.entity("global", name, "thing"));
    let ab = story.relate(a, b, "knows", 0.5);
    let ba = story.relate(b, a, "likes", 0.9);
    let ac = story.relate(a, c, "likes", 0.1);
    let aa = story.relate(a, a, "knows", 1.0);
    let global = caxton_events::Scope::Global;
    let own: caxton_events::Scope = "agent:ada".parse().unwrap();
    let reader = Fixture::told(&story, 2).graph.reader();
    let of = |direction, types: &[&str], strength, after, limit| {
        let found = reader.relations_of(a, direction, &texts(types), strength, after, limit).unwrap();
        found.iter().map(|relation| relation.id).collect::<Vec<_>>()
    };
    assert_eq!(of(Direction::Outgoing, &[], 0.0, None, 9), [ab, ac, aa]);
    assert_eq!(of(Direction::Incoming, &[], 0.0, None, 9), [ba, aa]);
    assert_eq!(of(Direction::Both, &[], 0.0, None, 9), [ab, ba, ac, aa]);
    assert_eq!(of(Direction::Both, &["likes"], 0.0, None, 9), [ba, ac]);
    assert_eq!(of(Direction::Both, &["likes", "knows"], 0.5, None, 9), [ab, ba, aa]);
    assert_eq!(of(Direction::Both, &[], 0.0, Some(ab), 2), [ba, ac]);
    assert_eq!(reader.relation_by_triple(&global, a, c, "likes").unwrap().unwrap().id, ac);
    assert_eq!(reader.relation_by_triple(&global, c, a, "likes").unwrap(), None);
    assert_eq!(reader.relation_by_triple(&own, a, c, "likes").unwrap(), None);
    let list = |filter: RelationFilter| {
        let filter = RelationFilter { limit: 9, ..filter };
        reader.list_relations(&filter).unwrap().iter().map(|relation| relation.id).collect::<Vec<_>>()
    };
    assert_eq!(list(RelationFilter::default()), [ab, ba, ac, aa]);
    assert_eq!(
        list(RelationFilter { scopes: scopes(&["global"]), min_strength: 0.5, ..RelationFilter::default() }),
        [ab, ba, aa]
    );
    assert_eq!(
        list(RelationFilter {
            relation_types: texts(&["likes"]),
            after: Some(ba),
            ..RelationFilter::default()
        }),
        [ac]
    );
    assert_eq!(list(RelationFilter { scopes: scopes(&["agent:x"]), ..RelationFilter::default() }), []);
}

/// A hub that all see: others relate it to five things, then `agent:ada` to two of these, the first for a time.
fn hub() -> (Fixture, MemoryId, [MemoryId; 2]) {
    let mut story = Story::default();
    let hub = story.entity("global", "hub", "thing");
    let things: Vec<MemoryId> =
        (0..5).map(|number| story.entity("global", &format!("thing {number}"), "thing")).collect();
    let mut relate = |scope: &str, from, to, validity| {
        let (id, relation_type) = (story.id(), "uses".to_owned());
        let (scope, metadata) = (scope.parse().unwrap(), None);
        let (strength, confidence) = (0.5, 1.0);
        story.tell(MemoryEvent::RelationCreated {
            id,
            scope,
            from,
            to,
            relation_type,
            strength,
            confidence,
            metadata,
            validity,
        });
        id
    };
    for thing in &things {
        relate("agent:bob", hub, *thing, Validity::default());
        relate("agent:bob", *thing, hub, Validity::default());
    }
    let brief = Validity { from: None, to: Some(Timestamp::from_unix_micros(10)) };
    let own = [
        relate("agent:ada", hub, things[3], brief),
        relate("agent:ada", things[4], hub, Validity::default()),
    ];
    (Fixture::told(&story, 100), hub, own)
}

#[test]
fn relations_of_other_scopes_take_no_room() {
    let (fixture, hub, own) = hub();
    let reader = fixture.graph.reader();
    for reader in [reader.as_of(reader.checkpoint().unwrap()), reader] {
        let around = |direction, filter: RelationFilter| {
            let found = reader.relations_around(hub, direction, &filter).unwrap();
            found.iter().map(|relation| relation.id).collect::<Vec<_>>()
        };
        let all = RelationFilter { limit: 2, ..RelationFilter::default() };
        let seen =
            RelationFilter { scopes: scopes(&["agent:ada", "workspace:lab", "global"]), ..all.clone() };
        let at = |micros| Some(Timestamp::from_unix_micros(micros));
        assert_eq!(around(Direction::Both, seen.clone()), own);
        assert_eq!(around(Direction::Outgoing, seen.clone()), own[..1]);
        assert_eq!(around(Direction::Incoming, seen.clone()), own[1..]);
        assert_eq!(around(Direction::Both, RelationFilter { after: Some(own[0]), ..seen.clone() }), own[1..]);
        assert_eq!(around(Direction::Both, RelationFilter { valid_at: at(10), ..seen.clone() }), own[1..]);
        assert_eq!(around(Direction::Both, RelationFilter { valid_at: at(9), ..seen.clone() }), own);
        let list = |filter: RelationFilter| {
            let found = reader.list_relations(&RelationFilter { limit: 99, ..filter }).unwrap();
            found.into_iter().map(|relation| relation.id).filter(|id| own.contains(id)).collect::<Vec<_>>()
        };
        for (since, until, then) in [(9, 10, &own[..]), (10, 20, &own[1..]), (0, 5, &own[..])] {
            let valid_between = at(since).zip(at(until));
            let filter = RelationFilter { valid_between, ..seen.clone() };
            assert_eq!(around(Direction::Both, filter.clone()), then, "{since} {until}");
            assert_eq!(list(filter), then, "{since} {until}");
        }
        assert_eq!(around(Direction::Both, RelationFilter { limit: 99, ..all.clone() }).len(), 12);
        assert_eq!(around(Direction::Both, RelationFilter { scopes: scopes(&["agent:eve"]), ..all }), []);
    }
}

#[test]
fn the_numbers_of_rows_are_those_of_the_rows_in_pages() {
    let mut story = Story::default();
    let ada = story.entity("global", "ada", "person");
    let loom = story.entity("global", "loom", "machine");
    story.entity("agent:ada", "ada", "person");
    let notes = [0; 5].map(|_| story.note(ada, "a note"));
    story.relate(loom, ada, "serves", 0.5);
    story.relate(ada, ada, "knows", 0.5);
    let uses = story.relate(ada, loom, "uses", 0.5);
    let before = caxton_events::Seq(story.records.len() as u64);
    story.tell(MemoryEvent::ObservationRemoved { id: notes[1], entity: ada });
    story.tell(MemoryEvent::RelationRemoved { id: uses });
    let fixture = Fixture::told(&story, 3);
    let in_pages = |page: &dyn Fn(Option<MemoryId>) -> Vec<MemoryId>| {
        let mut all: Vec<MemoryId> = Vec::new();
        loop {
            let ids = page(all.last().copied());
            assert!(ids.len() <= 2);
            if ids.is_empty() {
                return all;
            }
            all.extend(ids);
        }
    };
    for reader in [fixture.graph.reader().as_of(before), fixture.graph.reader()] {
        let noted = reader.observations_of(ada, None, 99).unwrap();
        let noted: Vec<MemoryId> = noted.into_iter().map(|row| row.id).collect();
        assert_eq!(in_pages(&|after| reader.observation_ids_of(ada, after, 2).unwrap()), noted);

        let around = reader.relations_of(ada, Direction::Both, &[], 0.0, None, 99).unwrap();
        let around: Vec<(MemoryId, Scope)> = around.into_iter().map(|row| (row.id, row.scope)).collect();
        assert_eq!(reader.relation_ids_of(ada, None, 99).unwrap(), around);
        let around: Vec<MemoryId> = around.into_iter().map(|(id, _)| id).collect();
        let page = |after| reader.relation_ids_of(ada, after, 2).unwrap().into_iter().map(|(id, _)| id);
        assert_eq!(in_pages(&|after| page(after).collect()), around);
        let page = |after| reader.relation_ids_in(&Scope::Global, after, 2).unwrap();
        assert_eq!(in_pages(&page), around, "all of them are of this scope");

        for (scope, types) in [
            ("global", vec![]),
            ("global", vec!["person", "machine", "person"]),
            ("global", vec!["engine"]),
            ("agent:ada", vec!["person"]),
            ("workspace:none", vec![]),
        ] {
            let (scopes, entity_types) = (scopes(&[scope]), texts(&types));
            let scope = &scopes[0].clone();
            let filter = EntityFilter {
                scopes,
                entity_types: entity_types.clone(),
                limit: 99,
                ..EntityFilter::default()
            };
            let listed = reader.list_entities(&filter).unwrap();
            let listed: Vec<MemoryId> = listed.into_iter().map(|row| row.id).collect();
            let page = |after| reader.entity_ids_in(scope, &entity_types, after, 2).unwrap();
            assert_eq!(in_pages(&page), listed, "{scope} {types:?}");
        }
    }
}

#[test]
fn a_walk_is_bounded_by_the_relations_that_it_may_go_along() {
    let (fixture, hub, own) = hub();
    let reader = fixture.graph.reader();
    let query = WalkQuery {
        root: hub,
        direction: Direction::Both,
        max_depth: 1,
        relation_types: Vec::new(),
        min_strength: 0.0,
        scopes: scopes(&["agent:ada", "global"]),
        valid_at: None,
        strategy: WalkStrategy::BreadthFirst,
        nodes_max: 100,
    };
    let edges = |walk: &Walk| walk.edges.iter().map(|edge| edge.id).collect::<Vec<_>>();
    for reader in [reader.as_of(reader.checkpoint().unwrap()), reader] {
        let walk = reader.walk_within(&query, 3).unwrap();
        assert_eq!((edges(&walk), walk.nodes.len(), walk.truncated), (own.to_vec(), 3, false));
        let walk = reader.walk_within(&query, 1).unwrap();
        assert!(walk.truncated, "{walk:?}");
        let all = reader.walk(&WalkQuery { scopes: Vec::new(), ..query.clone() }).unwrap();
        assert_eq!((all.edges.len(), all.truncated), (12, false));
    }
}

/// `a→b→c→d`, `a→c`, `e→a`, and `b→x` where `x` belongs to another agent.
fn paths() -> Fixture {
    let mut story = Story::default();
    let nodes = ["a", "b", "c", "d", "e"].map(|name| story.entity("global", name, "thing"));
    let hidden = story.entity("agent:bob", "x", "thing");
    for (from, to, relation_type, strength) in
        [(0, 1, "to", 0.9), (1, 2, "to", 0.9), (2, 3, "to", 0.9), (0, 2, "short", 0.2), (4, 0, "to", 0.9)]
    {
        story.relate(nodes[from], nodes[to], relation_type, strength);
    }
    story.relate(nodes[1], hidden, "to", 0.9);
    Fixture::told(&story, 100)
}

#[test]
fn walks_reach_what_the_query_allows() {
    let query = WalkQuery {
        root: MemoryId(1),
        direction: Direction::Outgoing,
        max_depth: 10,
        relation_types: Vec::new(),
        min_strength: 0.0,
        scopes: scopes(&["global"]),
        valid_at: None,
        strategy: WalkStrategy::BreadthFirst,
        nodes_max: 100,
    };
    let depth_first = WalkStrategy::DepthFirst;
    let both = Direction::Both;
    let cases = [
        (query.clone(), "a0 b1 c1 d2", 4, false),
        (WalkQuery { strategy: depth_first, ..query.clone() }, "a0 b1 c1 d2", 4, false),
        (WalkQuery { relation_types: texts(&["to"]), ..query.clone() }, "a0 b1 c2 d3", 3, false),
        (WalkQuery { min_strength: 0.5, max_depth: 2, ..query.clone() }, "a0 b1 c2", 2, false),
        (WalkQuery { max_depth: 0, ..query.clone() }, "a0", 0, false),
        (WalkQuery { direction: Direction::Incoming, ..query.clone() }, "a0 e1", 1, false),
        (WalkQuery { direction: both, max_depth: 1, ..query.clone() }, "a0 b1 c1 e1", 3, false),
        (WalkQuery { nodes_max: 2, ..query.clone() }, "a0 b1", 1, true),
        (WalkQuery { scopes: scopes(&["agent:bob"]), ..query.clone() }, "", 0, false),
        (WalkQuery { root: MemoryId(99), ..query.clone() }, "", 0, false),
        (WalkQuery { scopes: Vec::new(), ..query.clone() }, "a0 b1 c1 x2 d2", 5, false),
    ];
    let reader = paths().graph.reader();
    for (query, nodes, edges, truncated) in cases {
        let walk = reader.walk(&query).unwrap();
        let name = |id: MemoryId| reader.entity(id).unwrap().unwrap().name;
        let found: Vec<_> =
            walk.nodes.iter().map(|node| format!("{}{}", name(node.id), node.depth)).collect();
        assert_eq!(
            (found.join(" ").as_str(), walk.edges.len(), walk.truncated),
            (nodes, edges, truncated),
            "{query:?}"
        );
    }
    let deep = reader.walk(&WalkQuery { max_depth: 11, ..query });
    assert!(matches!(deep, Err(ReadError::TooLarge { field: "max_depth", value: 11, max: 10 })), "{deep:?}");
}

#[test]
fn a_depth_first_walk_follows_each_path_to_its_end() {
    let mut story = Story::default();
    let [root, left, deep, right] =
        ["root", "left", "deep", "right"].map(|name| story.entity("global", name, "thing"));
    story.relate(root, left, "to", 1.0);
    story.relate(root, right, "to", 1.0);
    story.relate(left, deep, "to", 1.0);
    let reader = Fixture::told(&story, 100).graph.reader();
    let walk = |strategy| {
        let walk = reader.walk(&WalkQuery {
            root,
            direction: Direction::Outgoing,
            max_depth: 3,
            relation_types: Vec::new(),
            min_strength: 0.0,
            scopes: Vec::new(),
            valid_at: None,
            strategy,
            nodes_max: 9,
        });
        walk.unwrap().nodes.iter().map(|node| node.id).collect::<Vec<_>>()
    };
    assert_eq!(walk(WalkStrategy::BreadthFirst), [root, left, right, deep]);
    assert_eq!(walk(WalkStrategy::DepthFirst), [root, left, deep, right]);
}

#[test]
fn figures_count_the_present_by_scope() {
    let mut story = Story::default();
    let ada = story.entity("agent:ada", "ada", "person");
    let note = story.note(ada, "x");
    story.note(ada, "y");
    story.tell(MemoryEvent::ObservationRemoved { id: note, entity: ada });
    let other = story.entity("global", "bob", "person");
    story.relate(ada, other, "knows", 0.5);
    let reader = Fixture::told(&story, 2).graph.reader();
    let count = |scopes: Option<&[Scope]>| {
        let stats = reader.stats(scopes).unwrap();
        (stats.entities, stats.observations, stats.relations)
    };
    assert_eq!(count(None), (2, 1, 1));
    assert_eq!(count(Some(&scopes(&["agent:ada"]))), (1, 1, 0));
    assert_eq!(count(Some(&[])), (0, 0, 0));
}

#[test]
fn questions_asked_at_once_see_one_state() {
    let mut story = Story::default();
    let apple = story.entity("global", "apple", "fruit");
    let notes = [story.note(apple, "red"), story.note(apple, "round")];
    let told = story.records.len();
    story.note(apple, "sweet");
    let mut fixture = Fixture::new();
    fixture.graph.apply(&story.records[..told]).unwrap();
    let reader = fixture.graph.reader();
    let (entity, red) = (reader.entity(apple).unwrap(), reader.observation(notes[0]).unwrap());
    let ids = |found: Vec<crate::graph::Observation>| -> Vec<_> { found.iter().map(|row| row.id).collect() };
    reader
        .at_once(|moment| {
            assert_eq!(moment.entity(apple)?, entity);
            fixture.graph.apply(&story.records[told..]).unwrap();
            assert_eq!(
                ids(moment.observations_of(apple, MemoryId(0), 10)?),
                notes,
                "what came meanwhile is not seen"
            );
            assert_eq!(ids(moment.observations_of(apple, MemoryId(0), 1)?), notes[..1]);
            assert_eq!(moment.observation(notes[0])?, red);
            assert_eq!(moment.observation(apple)?, None);
            assert_eq!(moment.entity(notes[0])?, None);
            Ok(())
        })
        .unwrap();
    assert_eq!(reader.at_once(|moment| moment.observations_of(apple, MemoryId(0), 10)).unwrap().len(), 3);
}
