//! The keyword query: what it finds, in which order, and what it must not see.

use caxton_events::memory::Validity;
use caxton_events::{MemoryEvent, MemoryId, Scope, Seq, Subject, SystemEvent, Timestamp};

use super::{Fixture, Story};
use crate::graph::{Graph, GraphReader, ReadError};
use crate::projection::Projection;
use crate::text::index::HEADERS_SEEN;
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
    let query = KeywordQuery { text: "who".to_owned(), limit: 65_537, ..KeywordQuery::default() };
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

#[test]
fn the_telling_words_of_a_long_question_count_wherever_they_stand() {
    let mut story = Story::default();
    let talk = story.entity("global", "talk", "thing");
    let common: Vec<String> = (0..60).map(|number| format!("w{number}x")).collect();
    let common = common.join(" ");
    for _ in 0..3 {
        story.note(talk, &common);
    }
    let turbine = story.note(talk, "the turbine");
    let reader = Fixture::told(&story, 100).graph.reader();
    assert!(rows(&ask(&reader, &format!("{common} turbine"))).contains(&turbine), "behind frequent words");
    let stop_words = "if I were to be there and you could not have been with them after all of this as it was for her or his";
    assert_eq!(rows(&ask(&reader, &format!("{stop_words} turbine"))), [turbine]);
}

#[test]
fn a_name_without_letters_is_found() {
    let mut story = Story::default();
    let crab = story.entity("global", "🦀", "animal");
    let reader = Fixture::told(&story, 100).graph.reader();
    for reader in [reader.as_of(Seq(1)), reader] {
        let hits = ask(&reader, " 🦀 ");
        assert_eq!(rows(&hits), [crab]);
        assert!(hits.iter().all(|hit| hit.score > 0.0));
        assert_eq!(rows(&ask(&reader, "🐙")), []);
    }
}

#[test]
fn a_character_is_found_in_a_script_without_spaces() {
    let mut story = Story::default();
    let tokyo = story.entity("global", "東京都", "city");
    let osaka = story.entity("global", "大阪", "city");
    let note = story.note(osaka, "大きな都市です");
    let reader = Fixture::told(&story, 100).graph.reader();
    for (text, then) in [
        ("都", vec![tokyo, note]),
        ("東", vec![tokyo]),
        ("市", vec![note]),
        ("東京", vec![tokyo]),
        ("山", vec![]),
    ] {
        let mut found = rows(&ask(&reader, text));
        found.sort_unstable();
        assert_eq!(found, then, "{text}");
    }
}

/// Numbers that look random, the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    /// Up to `most` words, the first ones of the vocabulary far more often than the last.
    fn words(&mut self, most: u64) -> Vec<u64> {
        (0..=self.below(most))
            .map(|_| {
                let bound = self.below(300) + 1;
                self.below(bound)
            })
            .collect()
    }
}

/// An entity or an observation as it should be found: its number, its entity, and its words with their weights.
struct Told {
    row: MemoryId,
    entity: MemoryId,
    entity_type: &'static str,
    words: Vec<(String, f64)>,
}

/// BM25F of every text, added up as it is defined, best first.
fn scored(all: &[Told], query: &[String], entity_type: Option<&str>) -> Vec<(MemoryId, f64)> {
    let rows = all.len() as f64;
    let mean = all.iter().map(|text| text.words.len()).sum::<usize>() as f64 / rows;
    let idf = |word: &String| {
        let holds = |text: &&Told| text.words.iter().any(|(held, _)| held == word);
        let holders = all.iter().filter(holds).count() as f64;
        (1.0 + (rows - holders + 0.5) / (holders + 0.5)).ln()
    };
    let query: Vec<(&String, f64)> = query.iter().map(|word| (word, idf(word))).collect();
    let own = |text: &Told| -> f64 {
        let length = 0.25 + 0.75 * text.words.len() as f64 / mean;
        let of_word = |(word, idf): &(&String, f64)| {
            let weight: f64 =
                text.words.iter().filter(|(held, _)| held == *word).map(|(_, weight)| weight).sum();
            idf * weight * 2.2 / (weight + 1.2 * length)
        };
        query.iter().map(of_word).sum()
    };
    let headers: std::collections::BTreeMap<MemoryId, f64> =
        all.iter().filter(|text| text.row == text.entity).map(|text| (text.row, own(text))).collect();
    let score = |text: &Told| {
        let own = own(text);
        if text.row == text.entity || own == 0.0 { own } else { own + headers[&text.entity] }
    };
    let wanted = all.iter().filter(|text| entity_type.is_none_or(|wanted| text.entity_type == wanted));
    let mut scores: Vec<_> =
        wanted.map(|text| (text.row, score(text))).filter(|(_, score)| *score > 0.0).collect();
    scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scores
}

#[test]
fn the_answer_is_that_of_scoring_every_text() {
    let (mut story, mut all, mut dice) = (Story::default(), Vec::new(), Dice(88_172_645_463_325_252));
    let word = |number: &u64| format!("w{number}x");
    for number in 0..2_000 {
        let entity_type = if number % 50 == 0 { "rare" } else { "common" };
        // No name is a query.
        let mut name: Vec<String> = dice.words(3).iter().map(word).collect();
        name.push(format!("n{number}"));
        let entity = story.entity("global", &name.join(" "), entity_type);
        let mut words: Vec<_> = name.into_iter().map(|word| (word, 3.0)).collect();
        words.push((entity_type.to_owned(), 1.0));
        all.push(Told { row: entity, entity, entity_type, words });
        for _ in 0..dice.below(9) {
            let words: Vec<String> = dice.words(30).iter().map(word).collect();
            let row = story.note(entity, &words.join(" "));
            let words = words.into_iter().map(|word| (word, 1.0)).collect();
            all.push(Told { row, entity, entity_type, words });
        }
    }
    let reader = Fixture::told(&story, 1_000).graph.reader();
    for (words, entity_type, limit) in [
        (vec![0], None, 10),
        (vec![0, 1, 2], None, 64),
        (vec![250], None, 10),
        (vec![299, 0], None, 10),
        (vec![3, 120, 260, 7], Some("rare"), 20),
        (vec![290, 0, 1], Some("rare"), 5),
        (vec![1, 5], Some("common"), 1_000),
    ] {
        let words: Vec<String> = words.iter().map(word).collect();
        let query = KeywordQuery {
            text: words.join(" "),
            entity_types: entity_type.map(str::to_owned).into_iter().collect(),
            limit,
            ..KeywordQuery::default()
        };
        let found = reader.keyword(&query).unwrap();
        let expected = scored(&all, &words, entity_type);
        assert_eq!(found.len(), limit.min(expected.len()), "{words:?}");
        for (place, (hit, (_, best))) in found.iter().zip(&expected).enumerate() {
            let (_, score) = expected.iter().find(|(row, _)| *row == hit.row).unwrap();
            let near = |score: f64| (f64::from(hit.score) - score).abs() < 1e-4 * score;
            assert!(near(*score) && near(*best), "{words:?} {place}: {hit:?}, not {score} or {best}");
        }
        assert!(found.is_sorted_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)).is_lt()));
    }
}

/// A graph of the first `before` records of `story`, whose texts were read while `meanwhile` came in between each time, with
/// how often they were read.
fn read_beside(
    story: &Story,
    before: usize,
    mut meanwhile: impl FnMut(&mut Graph, usize),
) -> (Fixture, usize) {
    let first = Story { records: story.records[..before].to_vec(), ids: 0 };
    let mut fixture = Fixture::told(&first, 9);
    let (reader, mut reads) = (fixture.graph.reader(), 0);
    let load = reader.pool().texts().load(|read| {
        reader.snapshot("every text", |connection| read(connection))?;
        meanwhile(&mut fixture.graph, reads);
        reads += 1;
        Ok::<_, ReadError>(())
    });
    load.unwrap();
    (fixture, reads)
}

#[test]
fn what_is_folded_while_the_texts_are_read_is_found() {
    let mut story = Story::default();
    let ada = story.entity("global", "ada", "person");
    story.note(ada, "likes tea");
    let before = story.records.len();
    let note = story.note(ada, "likes coffee");
    story.rename(ada, "lovelace");
    let (fixture, reads) =
        read_beside(&story, before, |graph, _| graph.apply(&story.records[before..]).unwrap());
    let reader = fixture.graph.reader();
    assert_eq!(reads, 1);
    assert_eq!(rows(&ask(&reader, "coffee")), [note]);
    assert_eq!(rows(&ask(&reader, "lovelace")), [ada]);
    assert_eq!(rows(&ask(&reader.as_of(Seq(before as u64)), "ada")), [ada]);
    assert_eq!(rows(&ask(&reader, "ada")), []);
}

#[test]
fn texts_are_read_again_where_an_erasure_came_between() {
    let mut story = Story::default();
    let ada = story.entity("agent:ada", "ada", "person");
    let engine = story.entity("global", "engine", "machine");
    story.note(ada, "keeps a secret engine");
    let before = story.records.len();
    story.tell(SystemEvent::ErasureOrdered {
        subjects: vec![Subject::Scope("agent:ada".parse().unwrap())],
        asked: "agent:ada".to_owned(),
        keys: Vec::new(),
        events: 3,
        next_memory_id: 9,
        reason: None,
        by: "ada".to_owned(),
    });
    let (fixture, reads) = read_beside(&story, before, |graph, reads| {
        if reads == 0 {
            graph.apply(&story.records[before..]).unwrap();
        }
    });
    assert_eq!(reads, 2, "what was read the first time is not what is there");
    let reader = fixture.graph.reader();
    assert_eq!(rows(&ask(&reader, "engine")), [engine]);
    assert_eq!(rows(&ask(&reader, "secret")), []);
}

#[test]
fn texts_are_read_again_where_the_graph_began_anew() {
    let mut story = Story::default();
    let ada = story.entity("global", "ada", "person");
    let note = story.note(ada, "likes tea");
    let (fixture, reads) = read_beside(&story, 2, |graph, reads| {
        if reads == 0 {
            graph.reset().unwrap();
            graph.apply(&story.records).unwrap();
        }
    });
    assert_eq!(reads, 2);
    let reader = fixture.graph.reader();
    assert_eq!(rows(&ask(&reader, "tea")), [note], "once, and not twice");
}

#[test]
fn an_entity_of_the_past_is_looked_up_once_however_many_of_its_texts_match() {
    let mut story = Story::default();
    let (loom, mill) =
        (story.entity("global", "loom", "machine"), story.entity("agent:ada", "mill", "machine"));
    let mut notes: Vec<(MemoryId, MemoryId)> =
        (0..9).map(|number| (story.note(loom, &format!("weaves cloth {number}")), loom)).collect();
    notes.push((story.note(mill, "weaves nothing"), mill));
    let before = Seq(story.records.len() as u64);
    for number in 0..50 {
        story.rename(loom, &format!("loom {number}"));
    }
    let reader = Fixture::told(&story, 100).graph.reader();
    ask(&reader, "loads the words");
    let seen = HEADERS_SEEN.get();
    let hits = ask(&reader.as_of(before), "weaves");
    let seen = HEADERS_SEEN.get() - seen;
    let mut found: Vec<_> = hits.iter().map(|hit| (hit.row, hit.entity)).collect();
    found.sort_unstable();
    notes.sort_unstable();
    assert_eq!(found, notes, "each is of the entity of its scope");
    assert_eq!(seen, 51 + 1, "all headers that one had, and the only one of the other");
}
