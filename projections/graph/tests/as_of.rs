//! The past: as of each record, the whole graph answers what a graph that ends there answers about its present.

use std::collections::BTreeMap;

use caxton_events::{MemoryEvent, MemoryId, Scope, Seq, Timestamp};
use proptest::prelude::*;

use super::model::{SCOPES, WORDS, steps, tell};
use super::{Fixture, Story};
use crate::graph::{
    DIFF_RECORDS_MAX, DiffQuery, Difference, Direction, EntityFilter, Fact, GraphReader, HistoryQuery,
    RelationFilter, WalkQuery, WalkStrategy,
};
use crate::projection::Projection as _;
use crate::text::KeywordQuery;

fn scopes(names: &[&str]) -> Vec<Scope> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn filters() -> Vec<EntityFilter> {
    let all = EntityFilter { limit: 1_000, ..EntityFilter::default() };
    vec![
        all.clone(),
        EntityFilter { scopes: scopes(&["agent:ada", "global"]), limit: 3, ..all.clone() },
        EntityFilter { entity_types: vec!["person".to_owned()], after: Some(MemoryId(4)), ..all.clone() },
        EntityFilter { name_prefix: Some("ada".to_owned()), ..all.clone() },
        EntityFilter { valid_at: Some(Timestamp::from_unix_micros(500)), ..all },
    ]
}

fn walks(root: MemoryId) -> Vec<WalkQuery> {
    let all = WalkQuery {
        root,
        direction: Direction::Both,
        max_depth: 3,
        relation_types: Vec::new(),
        min_strength: 0.0,
        scopes: Vec::new(),
        valid_at: None,
        strategy: WalkStrategy::BreadthFirst,
        nodes_max: 1_000,
    };
    vec![
        all.clone(),
        WalkQuery { direction: Direction::Outgoing, scopes: scopes(&["global", "agent:ada"]), ..all.clone() },
        WalkQuery { valid_at: Some(Timestamp::from_unix_micros(500)), min_strength: 0.3, ..all.clone() },
        WalkQuery { strategy: WalkStrategy::DepthFirst, relation_types: vec!["person".to_owned()], ..all },
    ]
}

fn keywords() -> Vec<KeywordQuery> {
    let ask = |text: &str| KeywordQuery { text: text.to_owned(), limit: 100, ..KeywordQuery::default() };
    let mut queries: Vec<KeywordQuery> = WORDS.iter().map(|word| ask(word)).collect();
    queries.push(ask("ada loves the steam engine"));
    queries.push(KeywordQuery { scopes: scopes(&["agent:ada", "global"]), ..ask("ada notes") });
    queries.push(KeywordQuery { entity_types: vec!["machine".to_owned()], limit: 2, ..ask("engine 東京") });
    queries.push(KeywordQuery { valid_at: Some(Timestamp::from_unix_micros(500)), ..ask("ada steam") });
    queries
}

/// Two handles that must answer alike, whatever they are asked; `ids` are all numbers that were ever given.
fn assert_alike(past: &GraphReader, present: &GraphReader, ids: u64) {
    assert_eq!(past.stats(None).unwrap(), present.stats(None).unwrap());
    let some = scopes(&SCOPES[..2]);
    assert_eq!(past.stats(Some(&some)).unwrap(), present.stats(Some(&some)).unwrap());
    for filter in filters() {
        let (then, now) = (past.list_entities(&filter).unwrap(), present.list_entities(&filter).unwrap());
        assert_eq!(then, now, "{filter:?}");
    }
    let relations = RelationFilter { limit: 1_000, ..RelationFilter::default() };
    let few =
        RelationFilter { scopes: scopes(&["global"]), min_strength: 0.4, limit: 2, ..relations.clone() };
    for filter in [relations, few] {
        let (then, now) = (past.list_relations(&filter).unwrap(), present.list_relations(&filter).unwrap());
        assert_eq!(then, now, "{filter:?}");
    }
    for query in keywords() {
        assert_eq!(past.keyword(&query).unwrap(), present.keyword(&query).unwrap(), "{query:?}");
    }
    for id in (1..=ids).map(MemoryId) {
        assert_rows_alike(past, present, id);
    }
}

fn assert_rows_alike(past: &GraphReader, present: &GraphReader, id: MemoryId) {
    let entity = present.entity(id).unwrap();
    assert_eq!(past.entity(id).unwrap(), entity);
    assert_eq!(past.observation(id).unwrap(), present.observation(id).unwrap());
    assert_eq!(past.relation(id).unwrap(), present.relation(id).unwrap());
    assert_eq!(past.observation_count(id).unwrap(), present.observation_count(id).unwrap());
    let true_at =
        |reader: &GraphReader| reader.observation_count_at(id, Timestamp::from_unix_micros(500)).unwrap();
    assert_eq!(true_at(past), true_at(present));
    assert_eq!(past.observations_of(id, None, 3).unwrap(), present.observations_of(id, None, 3).unwrap());
    let parts = |reader: &GraphReader| {
        let parts = reader.at_once(|graph| {
            let before = graph.observations_before(id, MemoryId(u64::from(u32::MAX)), 2)?;
            Ok((before, graph.entity_standing(id)?, graph.observation_extent(id)?))
        });
        parts.unwrap()
    };
    assert_eq!(parts(past), parts(present));
    assert_eq!(past.history(id).unwrap(), present.history(id).unwrap());
    let around =
        |reader: &GraphReader| reader.relations_of(id, Direction::Both, &[], 0.2, None, 100).unwrap();
    assert_eq!(around(past), around(present));
    for walk in walks(id) {
        assert_eq!(past.walk(&walk).unwrap(), present.walk(&walk).unwrap(), "{walk:?}");
    }
    let Some(entity) = entity else { return };
    let named = |reader: &GraphReader| reader.entity_by_name(&entity.scope, &entity.name).unwrap();
    assert_eq!(named(past), named(present));
    for observation in present.observations_of(id, None, 100).unwrap() {
        let same = |reader: &GraphReader| reader.observation_by_content(id, &observation.content).unwrap();
        assert_eq!(same(past), same(present));
    }
}

/// Every row of the memory by its number, as one value.
fn rows(reader: &GraphReader, ids: u64) -> BTreeMap<MemoryId, Fact> {
    let row = |id| {
        let entity = reader.entity(id).unwrap().map(Fact::Entity);
        let observation = reader.observation(id).unwrap().map(Fact::Observation);
        entity.or(observation).or(reader.relation(id).unwrap().map(Fact::Relation))
    };
    (1..=ids).map(MemoryId).filter_map(|id| Some((id, row(id)?))).collect()
}

fn number(fact: &Fact) -> MemoryId {
    match fact {
        Fact::Entity(row) => row.id,
        Fact::Observation(row) => row.id,
        Fact::Relation(row) => row.id,
    }
}

/// All differences between two records, page by page.
fn differences(reader: &GraphReader, from: u64, to: u64, limit: usize) -> Vec<Difference> {
    let (from, to) = (Seq(from), Seq(to));
    let mut query = DiffQuery { scopes: Vec::new(), from, to, after: from, limit, bytes: u64::MAX };
    let mut found = Vec::new();
    loop {
        let page = reader.diff(&query).unwrap();
        assert!(page.differences.len() <= limit && (page.through > query.after || query.after >= to));
        found.extend(page.differences);
        if page.through >= to {
            return found;
        }
        query.after = page.through;
    }
}

/// The differences are those that a comparison of all rows finds, in the order of their records, each once.
fn assert_differences(reader: &GraphReader, ids: u64, from: u64, to: u64) {
    let found = differences(reader, from, to, 3);
    assert!(
        found.is_sorted_by_key(|one| one.seq) && found.iter().all(|one| (from..=to).contains(&one.seq.0))
    );
    let (before, after) = (rows(&reader.as_of(Seq(from)), ids), rows(&reader.as_of(Seq(to)), ids));
    let mut expected = BTreeMap::new();
    for id in (1..=ids).map(MemoryId) {
        let pair = (before.get(&id).cloned(), after.get(&id).cloned());
        let same = match &pair {
            (Some(before), Some(after)) => before.is_as(after),
            (before, after) => before.is_none() && after.is_none(),
        };
        if !same {
            expected.insert(id, pair);
        }
    }
    let found: BTreeMap<_, _> = found
        .into_iter()
        .filter_map(|one| {
            Some((one.after.as_ref().or(one.before.as_ref()).map(number)?, (one.before, one.after)))
        })
        .collect();
    assert_eq!(found, expected, "{from}..{to}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_moment_of_the_past_answers_as_it_did_when_it_was_the_present(
        steps in steps(), batch in 1_usize..20, cut in 0_usize..60,
    ) {
        let (records, _) = tell(&steps);
        let mut whole = Fixture::new();
        for records in records.chunks(batch) {
            whole.graph.apply(records).unwrap();
        }
        let reader = whole.graph.reader();
        let ids = reader.next_id().unwrap().0;
        let mut growing = Fixture::new();
        for through in 0..=records.len() {
            if through > 0 {
                growing.graph.apply(&records[through - 1..through]).unwrap();
            }
            assert_alike(&reader.as_of(Seq(through as u64)), &growing.graph.reader(), ids);
        }
        let (last, cut) = (records.len() as u64, cut as u64 % (records.len() as u64 + 1));
        for (from, to) in [(0, last), (cut, last), (0, cut), (cut / 2, cut), (last, last)] {
            assert_differences(&reader, ids, from, to);
        }
    }
}

#[test]
fn a_difference_is_what_became_of_a_row_and_not_each_step() {
    let mut story = Story::default();
    let ada = story.entity("global", "ada", "person");
    let bob = story.entity("agent:ada", "bob", "person");
    let note = story.note(ada, "likes tea");
    let from = story.records.len() as u64;
    story.rename(ada, "augusta");
    story.rename(ada, "lady ada");
    let brief = story.note(ada, "a slip of the pen");
    story.tell(MemoryEvent::ObservationRemoved { id: brief, entity: ada });
    for content in ["likes coffee", "likes tea"] {
        let validity = caxton_events::memory::Validity::default();
        let content = content.to_owned();
        story.tell(MemoryEvent::ObservationUpdated { id: note, entity: ada, content, validity });
    }
    story.tell(MemoryEvent::EntityRemoved { id: bob });
    let knows = story.relate(ada, ada, "knows", 1.0);
    let reader = Fixture::told(&story, 3).graph.reader();
    let found = differences(&reader, from, story.records.len() as u64, 100);
    let shown: Vec<_> = found
        .iter()
        .map(|one| (one.seq.0, one.before.as_ref().map(number), one.after.as_ref().map(number)))
        .collect();
    assert_eq!(
        shown,
        [(from + 2, Some(ada), Some(ada)), (from + 7, Some(bob), None), (from + 8, None, Some(knows))]
    );
    let Some(Fact::Entity(before)) = &found[0].before else { panic!("{found:?}") };
    let Some(Fact::Entity(after)) = &found[0].after else { panic!("{found:?}") };
    assert_eq!((before.name.as_str(), after.name.as_str(), after.version), ("ada", "lady ada", 3));

    let query = DiffQuery {
        scopes: scopes(&["agent:ada"]),
        from: Seq(from),
        to: Seq(story.records.len() as u64),
        after: Seq(from),
        limit: 100,
        bytes: u64::MAX,
    };
    let own = reader.diff(&query).unwrap().differences;
    assert_eq!(own.iter().map(|one| one.seq.0).collect::<Vec<_>>(), [from + 7]);
}

#[test]
fn a_row_that_is_again_what_it_was_is_no_difference() {
    let mut story = Story::default();
    let ada = story.entity("global", "ada", "thing");
    let bob = story.entity("global", "bob", "person");
    story.rename(ada, "ada");
    let (note, knows) = (story.note(ada, "likes tea"), story.relate(ada, bob, "knows", 0.5));
    let from = story.records.len() as u64;
    let validity = caxton_events::memory::Validity::default();
    story.rename(ada, "augusta");
    for (content, strength) in [("likes coffee", 1.0), ("likes tea", 0.5)] {
        let content = content.to_owned();
        story.tell(MemoryEvent::ObservationUpdated { id: note, entity: ada, content, validity });
        let (id, metadata) = (knows, None);
        story.tell(MemoryEvent::RelationUpdated { id, strength, confidence: 1.0, metadata, validity });
    }
    story.rename(ada, "ada");
    let reader = Fixture::told(&story, 3).graph.reader();
    let end = story.records.len() as u64;
    let found = |to| differences(&reader, from, to, 100).iter().map(|one| one.seq.0).collect::<Vec<_>>();
    assert!(found(end).is_empty(), "{:?}", found(end));
    assert_eq!(found(end - 3), [from + 1, from + 2, from + 3], "on the way there they differ");
}

#[test]
fn a_page_of_differences_looks_through_a_bounded_stretch_of_the_log() {
    let mut story = Story::default();
    story.entity("global", "ada", "person");
    let mut fixture = Fixture::told(&story, 1);
    let end = Seq(DIFF_RECORDS_MAX * 2 + 7);
    fixture.graph.fold(&[], end).unwrap();
    let (from, after, bytes) = (Seq::ZERO, Seq::ZERO, u64::MAX);
    let query = DiffQuery { scopes: Vec::new(), from, to: end, after, limit: 10, bytes };
    let reader = fixture.graph.reader();
    let page = reader.diff(&query).unwrap();
    assert_eq!((page.differences.len(), page.through), (1, Seq(DIFF_RECORDS_MAX)));
    let page = reader.diff(&DiffQuery { after: page.through, ..query.clone() }).unwrap();
    assert_eq!((page.differences.len(), page.through), (0, Seq(DIFF_RECORDS_MAX * 2)));
    let page = reader.diff(&DiffQuery { after: page.through, ..query }).unwrap();
    assert_eq!((page.differences.len(), page.through), (0, end));
}

#[test]
fn a_page_of_differences_or_of_a_history_ends_where_its_texts_take_too_much() {
    let mut story = Story::default();
    let ada = story.entity("global", "ada", "person");
    let bob = story.entity("agent:bob", "bob", "person");
    for number in 0..10 {
        story.note(ada, &format!("{number}{}", "x".repeat(99)));
    }
    story.relate(ada, bob, "knows", 0.5);
    story.rename(ada, "augusta");
    let (to, from) = (Seq(story.records.len() as u64), Seq(2));
    let reader = Fixture::told(&story, 3).graph.reader();
    let query = DiffQuery { scopes: Vec::new(), from, to, after: from, limit: 100, bytes: 250 };
    let page = reader.diff(&query).unwrap();
    assert_eq!((page.differences.len(), page.through), (3, Seq(5)));

    let all = reader.history(ada).unwrap();
    assert_eq!(all.len(), 13);
    for (limit, bytes, most) in [(100, 250, 4), (2, 250, 2), (100, 1, 1), (100, u64::MAX, 13)] {
        let (entity, scopes) = (ada, scopes(&["global"]));
        let mut query = HistoryQuery { entity, scopes, after: Seq::ZERO, limit, bytes };
        let (mut found, mut longest) = (Vec::new(), 0);
        loop {
            let page = reader.history_page(&query).unwrap();
            longest = longest.max(page.rows.len());
            query.after = page.rows.last().unwrap().created_seq;
            found.extend(page.rows);
            if page.is_last {
                break;
            }
        }
        assert_eq!((&found, longest), (&all, most), "{limit} {bytes}");
    }
    let (entity, scopes_of_bob) = (ada, scopes(&["agent:bob"]));
    let (after, limit, bytes) = (Seq::ZERO, 100, u64::MAX);
    let theirs = HistoryQuery { entity, scopes: scopes_of_bob.clone(), after, limit, bytes };
    let page = reader.history_page(&theirs).unwrap();
    assert_eq!(page.rows.len(), 10, "observations are of no scope of their own");
    let was_bobs = |reader: &GraphReader, id| reader.entity_was_in(id, &scopes_of_bob).unwrap();
    assert!(was_bobs(&reader, bob) && !was_bobs(&reader, ada));
    assert!(!was_bobs(&reader.as_of(Seq(1)), bob), "not yet");
}

#[test]
fn a_handle_of_the_present_is_not_changed_by_one_of_the_past() {
    let mut story = Story::default();
    let ada = story.entity("global", "ada", "person");
    story.rename(ada, "augusta");
    let reader = Fixture::told(&story, 9).graph.reader();
    let name = |reader: &GraphReader| reader.entity(ada).unwrap().map(|entity| entity.name);
    let past = reader.as_of(Seq(1));
    assert_eq!((name(&past).as_deref(), name(&reader).as_deref()), (Some("ada"), Some("augusta")));
    assert_eq!(name(&past.as_of(Seq(2))).as_deref(), Some("augusta"));
    assert_eq!(name(&past.as_of(Seq::ZERO)), None);
    assert!(past.agent_known(&"ada".parse().unwrap()).is_ok_and(|known| !known));
}
