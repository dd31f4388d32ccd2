//! The indexes: the seed's names are there, and every hot query uses one.

use super::{Fixture, Story};
use crate::graph::as_of::Listed;
use crate::graph::reader::relation_sql;
use crate::graph::{AsOf, FILE_NAME, GraphReader, PageMax, columns};
use caxton_events::memory::Validity;
use caxton_events::{MemoryEvent, MemoryId, Scope, Seq, Timestamp};

const SEED: [&str; 13] = [
    "idx_embeddings_similarity",
    "idx_embeddings_vector",
    "idx_entities_created",
    "idx_entities_name",
    "idx_entities_type",
    "idx_entities_type_name",
    "idx_entities_updated",
    "idx_observations_content",
    "idx_observations_entity",
    "idx_relations_from",
    "idx_relations_strength",
    "idx_relations_to",
    "idx_relations_type",
];

/// The statements of `CREATE INDEX` as the seed writes them.
const SEED_SQL: &str = "
CREATE INDEX IF NOT EXISTS idx_entities_type ON entities(entity_type);
CREATE INDEX IF NOT EXISTS idx_entities_name ON entities(name);
CREATE INDEX IF NOT EXISTS idx_relations_from ON relations(from_entity);
CREATE INDEX IF NOT EXISTS idx_relations_to ON relations(to_entity);
CREATE INDEX IF NOT EXISTS idx_observations_entity ON observations(entity_id);
CREATE INDEX IF NOT EXISTS idx_embeddings_vector ON embeddings(entity_id);
CREATE INDEX IF NOT EXISTS idx_entities_type_name ON entities(entity_type, name);
CREATE INDEX IF NOT EXISTS idx_entities_created ON entities(created_at);
CREATE INDEX IF NOT EXISTS idx_entities_updated ON entities(updated_at);
CREATE INDEX IF NOT EXISTS idx_relations_type ON relations(relation_type);
CREATE INDEX IF NOT EXISTS idx_relations_strength ON relations(strength);
CREATE INDEX IF NOT EXISTS idx_observations_content ON observations(content);
CREATE INDEX IF NOT EXISTS idx_embeddings_similarity ON embeddings(vector);
PRAGMA incremental_vacuum(1000);
PRAGMA wal_checkpoint(RESTART);
ANALYZE;
PRAGMA optimize;
";

fn filled() -> Fixture {
    let mut story = Story::default();
    let mut last = story.entity("agent:ada", "root", "thing");
    for number in 0..400 {
        let scope = if number % 3 == 0 { "agent:ada" } else { "global" };
        let thing = story.entity(scope, &format!("thing {number}"), if number % 2 == 0 { "a" } else { "b" });
        story.note(thing, &format!("note {number}"));
        story.relate(last, thing, "next", 0.5);
        last = thing;
    }
    Fixture::told(&story, 1000)
}

#[test]
fn the_seeds_indexes_are_there_and_its_statements_run() {
    let mut fixture = filled();
    fixture.graph.analyze().unwrap();
    let client = rusqlite::Connection::open(fixture.dir.path().join(FILE_NAME)).unwrap();
    client.execute_batch(SEED_SQL).unwrap();
    let mut names = client
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'index' AND name LIKE 'idx_%' ORDER BY name")
        .unwrap();
    let names: Vec<String> = names.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    for name in SEED {
        assert!(names.iter().any(|found| found == name), "{name}");
    }
    let people: i64 = client
        .query_row(
            "SELECT count(*) FROM entities WHERE entity_type = 'a' AND removed_seq IS NULL",
            (),
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(people, 200);
}

fn present(condition: &str) -> String {
    relation_sql(AsOf::default(), condition)
}

/// Statements as the queries write them, with values in place of parameters, and what their plans say.
fn hot_queries() -> Vec<(String, &'static str)> {
    let entity = |condition: &str| {
        format!(
            "SELECT {} FROM entities e CROSS JOIN scopes s ON s.id = e.scope_id WHERE {condition} AND e.removed_seq IS NULL",
            columns::ENTITY
        )
    };
    let observation = |condition: &str| {
        format!(
            "SELECT {} FROM observations o WHERE {condition} AND o.removed_seq IS NULL",
            columns::OBSERVATION
        )
    };
    vec![
        (entity("e.id = 1"), "USING INDEX idx_entities_id"),
        (entity("e.name = 'x' AND e.scope_id = 1"), "USING INDEX idx_entities_name"),
        (entity("e.scope_id = 1 AND e.id > 5") + " ORDER BY e.id LIMIT 9", "USING INDEX idx_entities_scope"),
        (
            entity("e.entity_type = 'a' AND e.scope_id = 1 AND e.id > 5") + " ORDER BY e.id LIMIT 9",
            "USING INDEX idx_entities_type ",
        ),
        (entity("e.id > 5") + " ORDER BY e.id LIMIT 9", "USING INDEX idx_entities_id"),
        (
            "SELECT scope_id FROM entities WHERE id = 1 AND removed_seq IS NULL".to_owned(),
            "USING INDEX idx_entities_id",
        ),
        (
            "SELECT count(*) FROM entities WHERE owner = 'ada' AND removed_seq IS NULL".to_owned(),
            "USING COVERING INDEX idx_entities_owner",
        ),
        (observation("o.id = 1"), "USING INDEX idx_observations_id"),
        (
            observation("o.entity_id = 1 AND o.id > 5") + " ORDER BY o.id",
            "USING INDEX idx_observations_entity",
        ),
        (
            observation("o.entity_id = 1 AND o.id < 5") + " ORDER BY o.id DESC",
            "USING INDEX idx_observations_entity",
        ),
        (
            "SELECT count(*) FROM observations WHERE entity_id = 1 AND removed_seq IS NULL".to_owned(),
            "USING COVERING INDEX idx_observations_entity",
        ),
        (present("r.id = 1"), "USING INDEX idx_relations_id"),
        (
            present(
                "r.relation_type = 'next' AND r.from_entity = 1 AND r.to_entity = 2 AND s.scope = 'global'",
            ),
            "USING INDEX idx_relations_from",
        ),
        (present("r.from_entity = 1 AND r.id > 5") + " ORDER BY r.id", "USING INDEX idx_relations_from"),
        (present("r.to_entity = 1 AND r.id > 5") + " ORDER BY r.id", "USING INDEX idx_relations_to"),
        (present("r.scope_id = 1 AND r.id > 5") + " ORDER BY r.id", "USING INDEX idx_relations_scope"),
    ]
}

/// The condition that a relation is of one of some scopes, as the queries write it.
const IN_SCOPES: &str = " AND (+r.scope_id = 1 OR +r.scope_id = 2)";

/// Queries of what leads from an entity to others, in all scopes and in some.
fn hops() -> Vec<(String, &'static str)> {
    let edges = |end: &str, scopes: &str| {
        format!(
            "SELECT id, from_entity, to_entity, relation_type, strength, confidence FROM relations r
             WHERE {end} = 1 AND r.removed_seq IS NULL AND strength >= 0{scopes} ORDER BY 1 LIMIT 10"
        )
    };
    let around =
        |end: &str| present(&format!("r.{end} = 1 AND r.id > 5{IN_SCOPES}")) + " ORDER BY 1 LIMIT 10";
    vec![
        (edges("from_entity", ""), "USING COVERING INDEX idx_relations_from"),
        (edges("from_entity", IN_SCOPES), "USING COVERING INDEX idx_relations_from"),
        (edges("to_entity", ""), "USING COVERING INDEX idx_relations_to"),
        (edges("to_entity", IN_SCOPES), "USING COVERING INDEX idx_relations_to"),
        (around("from_entity"), "USING INDEX idx_relations_from"),
        (around("to_entity"), "USING INDEX idx_relations_to"),
    ]
}

/// Queries of numbers of rows alone, and of an observation by its text.
fn queries_of_numbers() -> Vec<(String, &'static str)> {
    let ids = |table: &str, condition: &str| {
        format!(
            "SELECT id FROM {table} WHERE {condition} AND id > 5 AND removed_seq IS NULL ORDER BY 1 LIMIT 9"
        )
    };
    let one_end = |end: &str| {
        format!(
            "SELECT r.id, s.scope FROM relations r CROSS JOIN scopes s ON s.id = r.scope_id
             WHERE r.{end} = 1 AND r.id > 5 AND r.removed_seq IS NULL"
        )
    };
    let both_ends =
        || format!("{} UNION ALL {} ORDER BY 1 LIMIT 9", one_end("from_entity"), one_end("to_entity"));
    vec![
        (ids("observations", "entity_id = 1"), "USING COVERING INDEX idx_observations_entity"),
        (ids("relations", "scope_id = 1"), "USING INDEX idx_relations_scope"),
        (ids("entities", "scope_id = 1"), "USING INDEX idx_entities_scope"),
        (ids("entities", "entity_type = 'a' AND scope_id = 1"), "USING INDEX idx_entities_type "),
        (both_ends(), "USING COVERING INDEX idx_relations_from"),
        (both_ends(), "USING COVERING INDEX idx_relations_to"),
        (
            "SELECT id FROM observations INDEXED BY idx_observations_content
             WHERE substr(CAST(content AS BLOB), 1, 64) = substr(CAST('x' AS BLOB), 1, 64) AND content = 'x'
                 AND entity_id = 1 AND removed_seq IS NULL"
                .to_owned(),
            "USING INDEX idx_observations_content (<expr>=? AND entity_id=?)",
        ),
    ]
}

/// The same as of a record, and what their plans say: of the rows that still are, and of those that were removed since.
fn past_queries() -> Vec<(String, [&'static str; 2])> {
    let as_of = AsOf::seq(Seq(500));
    let entity = |condition: &str| {
        as_of.sql("e", |alive| {
            format!(
                "SELECT {} FROM entities e CROSS JOIN scopes s ON s.id = e.scope_id WHERE {condition} AND {alive}",
                columns::ENTITY
            )
        })
    };
    let observation = |condition: &str| {
        as_of.sql("o", |alive| {
            format!("SELECT {} FROM observations o WHERE {condition} AND {alive}", columns::OBSERVATION)
        })
    };
    let by_id = |table: &str, alias: &str| {
        let [_, past] = AsOf::by_id(table, alias, |condition| {
            format!("SELECT {alias}.scope_id FROM {table} {alias} WHERE {condition}")
        });
        past
    };
    vec![
        (by_id("entities", "e"), ["idx_entities_id (", "COVERING INDEX idx_entities_past ("]),
        (by_id("observations", "o"), ["idx_observations_id (", "COVERING INDEX idx_observations_past_id ("]),
        (by_id("relations", "r"), ["idx_relations_id (", "COVERING INDEX idx_relations_past_id ("]),
        (
            entity("e.name = 'x' AND e.scope_id = 1") + " ORDER BY 1",
            ["idx_entities_name (", "idx_entities_past_name ("],
        ),
        (
            entity("e.scope_id = 1 AND e.id > 5") + " ORDER BY 1 LIMIT 9",
            ["idx_entities_scope (", "idx_entities_past_scope ("],
        ),
        (
            entity("e.entity_type = 'a' AND e.scope_id = 1 AND e.id > 5") + " ORDER BY 1 LIMIT 9",
            ["idx_entities_type (", "idx_entities_past_type ("],
        ),
        (
            observation("o.entity_id = 1 AND o.id > 5") + " ORDER BY 1 LIMIT 9",
            ["idx_observations_entity (", "idx_observations_past ("],
        ),
        (
            observation("o.entity_id = 1 AND o.id < 5") + " ORDER BY 1 DESC LIMIT 9",
            ["idx_observations_entity (", "idx_observations_past ("],
        ),
    ]
}

/// The same of relations.
fn past_relations() -> Vec<(String, [&'static str; 2])> {
    let as_of = AsOf::seq(Seq(500));
    let relation = |condition: &str| relation_sql(as_of, condition);
    let edges = |end: &str| {
        let sql = as_of.sql("r", |alive| {
            format!(
                "SELECT id, from_entity, to_entity, relation_type, strength, confidence FROM relations r
                 WHERE {end} = 1 AND {alive} AND strength >= 0{IN_SCOPES}"
            )
        });
        sql + " ORDER BY 1 LIMIT 10"
    };
    vec![
        (
            relation("r.from_entity = 1 AND r.id > 5") + " ORDER BY 1",
            ["idx_relations_from (", "idx_relations_past_from ("],
        ),
        (
            relation("r.to_entity = 1 AND r.id > 5") + " ORDER BY 1",
            ["idx_relations_to (", "idx_relations_past_to ("],
        ),
        (
            relation("r.scope_id = 1 AND r.id > 5") + " ORDER BY 1 LIMIT 9",
            ["idx_relations_scope (", "idx_relations_past_scope ("],
        ),
        (
            edges("from_entity"),
            ["COVERING INDEX idx_relations_from (", "COVERING INDEX idx_relations_past_from ("],
        ),
        (edges("to_entity"), ["COVERING INDEX idx_relations_to (", "COVERING INDEX idx_relations_past_to ("]),
    ]
}

/// With a past: every third thing was renamed, its note changed, and its relation made stronger.
fn with_past() -> Fixture {
    let mut story = Story::default();
    let root = story.entity("agent:ada", "root", "thing");
    let mut last = root;
    for number in 0..400 {
        let scope = if number % 3 == 0 { "agent:ada" } else { "global" };
        let thing = story.entity(scope, &format!("thing {number}"), if number % 2 == 0 { "a" } else { "b" });
        let note = story.note(thing, &format!("note {number}"));
        let id = story.relate(last, thing, "next", 0.5);
        if number % 3 == 0 {
            let validity = caxton_events::memory::Validity::default();
            story.rename(thing, &format!("renamed {number}"));
            let content = format!("another note {number}");
            story.tell(MemoryEvent::ObservationUpdated { id: note, entity: thing, content, validity });
            let (strength, confidence, metadata) = (0.9, 1.0, None);
            story.tell(MemoryEvent::RelationUpdated { id, strength, confidence, metadata, validity });
        }
        last = thing;
    }
    Fixture::told(&story, 1000)
}

fn plan(fixture: &Fixture, sql: &str) -> String {
    let sql = sql.replace(":as_of", "500").replace(":id", "1");
    let plan = fixture.graph.reader().with("a plan", |connection| {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
        statement.query_map((), |row| row.get::<_, String>(3))?.collect::<Result<Vec<_>, _>>()
    });
    plan.unwrap().join("\n")
}

#[test]
fn every_question_about_the_past_uses_an_index_of_the_present_and_one_of_the_past() {
    let mut fixture = with_past();
    for analyzed in [false, true] {
        if analyzed {
            fixture.graph.analyze().unwrap();
        }
        for (sql, then) in past_queries().into_iter().chain(past_relations()) {
            let plan = plan(&fixture, &sql);
            assert!(then.iter().all(|index| plan.contains(index)), "{sql}\n{plan}");
            let sorted =
                plan.contains("TEMP B-TREE") && !plan.contains("past_from") && !plan.contains("past_to");
            assert!(!sorted && !plan.contains("SCAN"), "{sql}\n{plan}");
        }
    }
}

#[test]
fn every_hot_query_uses_its_index() {
    let mut fixture = filled();
    for analyzed in [false, true] {
        if analyzed {
            fixture.graph.analyze().unwrap();
        }
        for (sql, then) in hot_queries().into_iter().chain(hops()).chain(queries_of_numbers()) {
            let plan = plan(&fixture, &sql);
            assert!(format!("{plan} ").contains(then), "{sql}\n{plan}");
            // The index that finds triples has the relations of an entity in the order of where they lead.
            let sorted = plan.contains("TEMP B-TREE") && !plan.contains("idx_relations_from");
            assert!(!sorted && !plan.contains("SCAN"), "{sql}\n{plan}");
        }
    }
}

/// What pages of lists, behind the number 5, read rows from that were removed since `seq`.
fn sources_of_the_removed(reader: &GraphReader, seq: u64) -> [String; 4] {
    let lists = [
        ("entities", "e", "e.scope_id = 1 AND e.id > :after"),
        ("entities", "e", "e.entity_type = 'a' AND e.scope_id = 1 AND e.id > :after"),
        ("observations", "o", "o.id > :after"),
        ("relations", "r", "(r.scope_id = 1 OR r.scope_id = 2) AND r.id > :after"),
    ];
    lists.map(|(table, alias, condition)| {
        let read = |connection: &rusqlite::Connection| {
            let listed = Listed { table, alias, condition, params: &[(":after", &5)] };
            AsOf::seq(Seq(seq)).sources(connection, &listed)
        };
        reader.with("a plan", read).unwrap().gone
    })
}

#[test]
fn a_list_near_the_head_looks_for_what_was_removed_since_and_not_through_the_whole_past() {
    let fixture = with_past();
    let reader = fixture.graph.reader();
    let head = reader.checkpoint().unwrap().0;
    let by_removal = ["entities e", "entities e", "observations o", "relations r"]
        .map(|source| format!("{source} INDEXED BY idx_{}_removed", &source[..source.len() - 2]));
    for seq in [head, head - 3] {
        assert_eq!(sources_of_the_removed(&reader, seq), by_removal, "{seq}");
    }
    let by_place = ["entities e", "entities e", "observations o", "relations r"];
    assert_eq!(sources_of_the_removed(&reader, 500), by_place, "more was written since than is removed");
    let never = Fixture::told(&Story::default(), 1);
    assert_eq!(sources_of_the_removed(&never.graph.reader(), 0), by_place, "there is no past");
    let sql = AsOf::seq(Seq(500)).sql("e", |alive| {
        let index = if alive.contains("IS NULL") { "" } else { "INDEXED BY idx_entities_removed" };
        format!("SELECT e.id FROM entities e {index} WHERE e.scope_id = 1 AND e.id > 5 AND {alive}")
    });
    let plan = plan(&fixture, &(sql + " ORDER BY 1 LIMIT 9"));
    assert!(plan.contains("idx_entities_scope (") && plan.contains("idx_entities_removed ("), "{plan}");
}

#[test]
fn pages_are_the_same_whichever_way_the_removed_are_found() {
    let mut story = Story::default();
    let ada = story.entity("global", "ada", "person");
    let notes: Vec<MemoryId> = (0..40).map(|number| story.note(ada, &format!("note {number}"))).collect();
    let told = |story: &mut Story, what: &str| {
        for id in notes.iter().step_by(2) {
            let (content, validity) = (format!("{what} {id}"), Validity::default());
            story.tell(MemoryEvent::ObservationUpdated { id: *id, entity: ada, content, validity });
        }
    };
    told(&mut story, "once");
    let moment = Seq(story.records.len() as u64);
    let then = Fixture::told(&story, 7);
    // Few records behind the moment, and then many.
    story.tell(MemoryEvent::ObservationRemoved { id: notes[31], entity: ada });
    let near = Fixture::told(&story, 7);
    told(&mut story, "twice");
    let far = Fixture::told(&story, 7);
    let all = |reader: &GraphReader| {
        let (mut pages, mut list, mut after) = (Vec::new(), Vec::new(), None);
        loop {
            let page = reader.observations_of(ada, after, 6).unwrap();
            let Some(last) = page.last() else { return (pages, list) };
            list.extend(reader.list_observations(after, PageMax { rows: 6, bytes: 1 << 20 }).unwrap());
            after = Some(last.id);
            pages.extend(page);
        }
    };
    let expected = all(&then.graph.reader());
    assert_eq!(expected.0.len(), notes.len());
    for fixture in [near, far] {
        assert_eq!(all(&fixture.graph.reader().as_of(moment)), expected);
    }
}

#[test]
fn the_next_turn_is_the_first_row_of_an_index_each() {
    let at = Timestamp::from_unix_micros;
    let mut story = Story::default();
    let ada = story.entity("agent:ada", "ada", "person");
    let mut note = |from, to| {
        let (id, content) = (story.id(), format!("{from:?} to {to:?}"));
        story.tell(MemoryEvent::ObservationAdded {
            id,
            entity: ada,
            content,
            validity: Validity { from, to },
        });
        id
    };
    note(Some(at(100)), Some(at(300)));
    note(None, Some(at(200)));
    let removed = note(Some(at(150)), None);
    story.tell(MemoryEvent::ObservationRemoved { id: removed, entity: ada });
    let mut born = |from, to| {
        let (id, name) = (story.id(), format!("{from:?} to {to:?}"));
        let (scope, entity_type) = (Scope::Global, "person".to_owned());
        let (metadata, validity) = (None, Validity { from, to });
        story.tell(MemoryEvent::EntityCreated {
            id,
            scope,
            name,
            entity_type,
            metadata,
            confidence: 1.0,
            validity,
        });
        id
    };
    let bob = born(Some(at(120)), Some(at(320)));
    let gone = born(Some(at(160)), Some(at(360)));
    story.tell(MemoryEvent::EntityRemoved { id: gone });
    let mut related = |from, to| {
        let (id, scope, relation_type) = (story.id(), Scope::Global, format!("{from:?} to {to:?}"));
        let (metadata, validity) = (None, Validity { from, to });
        story.tell(MemoryEvent::RelationCreated {
            id,
            scope,
            from: ada,
            to: bob,
            relation_type,
            strength: 1.0,
            confidence: 1.0,
            metadata,
            validity,
        });
        id
    };
    related(Some(at(140)), Some(at(340)));
    let unrelated = related(Some(at(170)), Some(at(370)));
    story.tell(MemoryEvent::RelationRemoved { id: unrelated });
    let fixture = Fixture::told(&story, 1000);
    let next = |after| fixture.graph.reader().next_turn(at(after)).unwrap().map(Timestamp::unix_micros);
    let turns: Vec<u64> = std::iter::successors(next(0), |turn| next(*turn)).collect();
    assert_eq!(turns, [100, 120, 140, 200, 300, 320, 340]);
    assert_eq!([99, 339, 340].map(next), [Some(100), Some(340), None]);
    let plan = plan(&fixture, &crate::graph::turns::NEXT_TURN.replace("?1", "5"));
    for table in ["entities", "observations", "relations"] {
        for end in ["from", "to"] {
            let index = format!("idx_{table}_valid_{end} (valid_{end}>?)");
            assert!(plan.contains(&index), "{index}\n{plan}");
        }
    }
}
