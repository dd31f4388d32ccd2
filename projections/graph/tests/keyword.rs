//! The keyword query: what it finds, in which order, and what it must not see.

use caxton_events::memory::Validity;
use caxton_events::{MemoryEvent, MemoryId, Scope, Timestamp};

use super::{Fixture, Story};
use crate::graph::{GraphReader, ReadError};
use crate::text::{KeywordQuery, TextHit, TextHitKind};

fn ask(reader: &GraphReader, text: &str) -> Vec<TextHit> {
    reader.keyword(&KeywordQuery { text: text.to_owned(), limit: 10, ..KeywordQuery::default() }).unwrap()
}

fn rows(hits: &[TextHit]) -> Vec<MemoryId> {
    hits.iter().map(|hit| hit.row).collect()
}

#[test]
fn rare_words_and_names_come_first() {
    let mut story = Story::default();
    let plot = story.entity("global", "gnuplot", "package");
    let draws = story.note(plot, "draws plots of functions in a terminal");
    let editor = story.entity("global", "editor", "package");
    let edits = story.note(editor, "edits text in a terminal, and more text in a terminal");
    let terminal = story.entity("global", "terminal", "package");
    let reader = Fixture::told(&story, 100).graph.reader();
    assert_eq!(rows(&ask(&reader, "Draw a PLOT from a terminal!")), [draws, terminal, edits]);
    assert_eq!(rows(&ask(&reader, "terminal")).first(), Some(&terminal));
    let hits = ask(&reader, "gnuplot functions");
    assert_eq!(rows(&hits), [draws, plot], "an observation stands on its entity's name");
    assert_eq!(hits.first().unwrap().kind, TextHitKind::Observation);
    assert_eq!(hits.first().unwrap().entity, plot);
    assert!(hits.iter().all(|hit| hit.score > 0.0));
    assert_eq!(
        rows(&ask(&reader, "package")),
        [plot, editor, terminal],
        "types are words too; ties by number"
    );
}

#[test]
fn what_was_replaced_or_removed_is_not_found() {
    let mut story = Story::default();
    let thing = story.entity("global", "oldname", "thing");
    let note = story.note(thing, "oldword");
    story.rename(thing, "newname");
    let content = "newword".to_owned();
    story.tell(MemoryEvent::ObservationUpdated {
        id: note,
        entity: thing,
        content,
        validity: Validity::default(),
    });
    let again = story.note(thing, "gone");
    story.tell(MemoryEvent::ObservationRemoved { id: again, entity: thing });
    for batch in [1, 2, 100] {
        let reader = Fixture::told(&story, batch).graph.reader();
        for (text, then) in [
            ("oldname", vec![]),
            ("oldword", vec![]),
            ("gone", vec![]),
            ("newname", vec![thing]),
            ("newword", vec![note]),
        ] {
            assert_eq!(rows(&ask(&reader, text)), then, "{text} in batches of {batch}");
        }
    }
}

#[test]
fn only_what_the_filter_allows_is_found() {
    let mut story = Story::default();
    let mine = story.entity("agent:ada", "engine", "machine");
    let theirs = story.entity("agent:bob", "engine", "machine");
    let idea = story.entity("global", "engine", "idea");
    let past = story.id();
    story.tell(MemoryEvent::ObservationAdded {
        id: past,
        entity: mine,
        content: "engine of old".to_owned(),
        validity: Validity { from: None, to: Some(Timestamp::from_unix_micros(10)) },
    });
    let reader = Fixture::told(&story, 100).graph.reader();
    let ask = |query: KeywordQuery| {
        let query = KeywordQuery { text: "engine".to_owned(), limit: 10, ..query };
        let mut found = rows(&reader.keyword(&query).unwrap());
        found.sort_unstable();
        found
    };
    let scopes = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Scope>>();
    let any = KeywordQuery::default;
    assert_eq!(ask(any()), [mine, theirs, idea, past]);
    assert_eq!(ask(KeywordQuery { scopes: scopes(&["agent:ada", "global"]), ..any() }), [mine, idea, past]);
    assert_eq!(ask(KeywordQuery { scopes: scopes(&["workspace:none"]), ..any() }), []);
    assert_eq!(ask(KeywordQuery { entity_types: vec!["machine".to_owned()], ..any() }), [mine, theirs, past]);
    let later = Some(Timestamp::from_unix_micros(10));
    assert_eq!(ask(KeywordQuery { valid_at: later, ..any() }), [mine, theirs, idea]);
}

#[test]
fn the_users_text_is_never_syntax() {
    let mut story = Story::default();
    let thing = story.entity("global", "The Who", "band");
    let reader = Fixture::told(&story, 1).graph.reader();
    for text in [
        "\"",
        "who\" OR \"1n_x",
        "NEAR(who, 2)",
        "words:who",
        "^who",
        "who*",
        "-who",
        "(who",
        "'; DROP TABLE texts; --",
    ] {
        ask(&reader, text);
    }
    assert_eq!(rows(&ask(&reader, "who\" *:(")), [thing]);
    assert_eq!(
        rows(&ask(&reader, "the who")),
        [thing],
        "stop words count in names when there is nothing else"
    );
    assert_eq!(rows(&ask(&reader, "")), []);
    assert_eq!(rows(&ask(&reader, " \u{0}\t")), []);
    let query = KeywordQuery { text: "who".to_owned(), limit: 1_001, ..KeywordQuery::default() };
    assert!(matches!(reader.keyword(&query), Err(ReadError::TooLarge { field: "limit", .. })));
}

#[test]
fn a_name_is_found_however_frequent_its_word_is() {
    let mut story = Story::default();
    let python = story.entity("global", "python", "language");
    let old = story.note(python, "python is slow but snakes are not");
    for number in 0..3_000 {
        let package = story.entity("global", &format!("python {number}"), "package");
        story.note(package, "a python library");
    }
    let reader = Fixture::told(&story, 1_000).graph.reader();
    assert_eq!(rows(&ask(&reader, "python")).first(), Some(&python), "the name is the whole query");
    assert_eq!(rows(&ask(&reader, "python snake")).first(), Some(&old), "one word is rare");
    assert_eq!(rows(&ask(&reader, "python library")).len(), 10);
}
