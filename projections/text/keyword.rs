//! BM25 over a bounded number of candidates.
//!
//! 1. For each word and scope, the newest rows that hold it: at most [`POSTINGS_MAX`]. The length of a list that is cut
//!    is estimated from the part that was read.
//! 2. Where even the rarest word of the query fills its list, the newest rows that hold its two rarest words, so that a
//!    row that holds both is not lost among those that hold one.
//! 3. The candidates with the most weight of words are read, filtered, and scored exactly: BM25F over the words of their
//!    names, weighted by [`NAME_WEIGHT`], and of their bodies. An observation also gets the score of its entity's header:
//!    what is noted of *ada* need not repeat her name.
//!
//! As of an earlier record the rows are those that were there then: the ones that still are, and those removed since, which
//! have an index of their own. So are the figures that scores are made of, so that the answer is the one of that time.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use caxton_events::MemoryId;
use rusqlite::{Connection, OptionalExtension, ToSql};

use super::index::{Field, document, indexed_word, row_of};
use super::words::{each_word, is_stop_word};
use super::{KeywordQuery, TextHit, TextHitKind};
use crate::graph::AsOf;

/// Words of a query that count; the rest is not looked at.
const TERMS_MAX: usize = 24;
/// Rows read for one word of one field in one scope.
const POSTINGS_MAX: usize = 1_024;
/// Removed rows that are looked at for one word of one field in one scope, whether they were there then or not.
const PAST_LOOKED_AT_MAX: usize = 65_536;
/// Candidates that pass the filter and are scored.
const SCORED_MIN: usize = 200;
/// Candidates that are read, whether they pass or not.
const READ_MAX: usize = 4_096;
/// Bytes of a content that are scored; the words of what follows count once.
const SCORED_BYTES_MAX: usize = 16 << 10;
/// How often a word of a name counts.
const NAME_WEIGHT: f32 = 3.0;
/// How fast repetitions of a word stop to count, and how much long texts are marked down.
const K1: f32 = 1.2;
const B: f32 = 0.75;

/// A word of the query.
struct Term {
    word: String,
    /// Stop words are looked for in names only, and only when the query has no other words.
    stop: bool,
    /// How telling it is.
    idf: f32,
    /// Rows that hold it: their documents and in which field.
    found: Vec<(i64, Field)>,
    /// Whether every list of it is complete.
    complete: bool,
    /// Rows that hold it, estimated where lists were cut.
    rows: f32,
}

/// How much there is to search.
#[derive(Debug, Clone, Copy)]
struct Corpus {
    rows: f32,
    mean_len: f32,
}

/// Where and when a query looks.
#[derive(Clone, Copy)]
struct Place<'a> {
    connection: &'a Connection,
    as_of: AsOf,
    scopes: &'a [i64],
    /// Whether a row was removed behind that moment: else nothing of the past was there then.
    removed_since: bool,
}

/// A row that passed the filter.
struct Scored {
    hit: TextHit,
    own: f32,
}

/// Answers the query within these scopes.
pub(crate) fn ask(
    connection: &Connection,
    as_of: AsOf,
    scopes: &[i64],
    query: &KeywordQuery,
) -> rusqlite::Result<Vec<TextHit>> {
    let mut terms = terms(&query.text);
    if terms.is_empty() || scopes.is_empty() || query.limit == 0 {
        return Ok(Vec::new());
    }
    let removed_since = removed_since(connection, as_of)?;
    let place = Place { connection, as_of, scopes, removed_since };
    let corpus = corpus(place)?;
    for term in &mut terms {
        read_postings(place, term)?;
        term.rows = term.rows.min(corpus.rows);
        term.idf = (1.0 + (corpus.rows - term.rows + 0.5) / (term.rows + 0.5)).ln();
    }
    terms.sort_by(|a, b| a.rows.total_cmp(&b.rows).then_with(|| a.word.cmp(&b.word)));
    let mut candidates = candidates(&terms);
    add_rows_with_both(place, &terms, &mut candidates)?;
    add_exact_name(place, query, &terms, &mut candidates)?;
    let scored = score(place, query, &terms, corpus, &merged(candidates))?;
    Ok(rank(scored, query.limit))
}

fn removed_since(connection: &Connection, as_of: AsOf) -> rusqlite::Result<bool> {
    let Some(moment) = as_of.moment() else { return Ok(false) };
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM entities WHERE removed_seq > ?1)
                 OR EXISTS (SELECT 1 FROM observations WHERE removed_seq > ?1)",
        )?
        .query_row((moment.0 as i64,), |row| row.get(0))
}

fn terms(text: &str) -> Vec<Term> {
    let mut terms: Vec<Term> = Vec::new();
    each_word(text, |word| {
        if terms.len() < TERMS_MAX && !terms.iter().any(|term| term.word == word) {
            let stop = is_stop_word(word);
            terms.push(Term {
                word: word.to_owned(),
                stop,
                idf: 0.0,
                found: Vec::new(),
                complete: true,
                rows: 0.0,
            });
        }
    });
    if terms.iter().any(|term| !term.stop) {
        terms.retain(|term| !term.stop);
    }
    terms
}

fn corpus(place: Place<'_>) -> rusqlite::Result<Corpus> {
    let sql = match place.as_of.moment() {
        None => "SELECT text_rows, text_words FROM scopes WHERE id = :scope",
        Some(_) => {
            "SELECT text_rows, text_words FROM figures WHERE scope_id = :scope AND seq <= :as_of
             ORDER BY seq DESC LIMIT 1"
        }
    };
    let (mut rows, mut words) = (0_i64, 0_i64);
    for scope in place.scopes {
        let figures = place
            .as_of
            .one(place.connection, sql, &[(":scope", scope)], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (more_rows, more_words): (i64, i64) = figures.unwrap_or_default();
        rows += more_rows;
        words += more_words;
    }
    Ok(Corpus { rows: rows as f32, mean_len: (words as f32 / rows.max(1) as f32).max(1.0) })
}

/// The newest documents that match, newest first.
fn newest(place: Place<'_>, pattern: &str) -> rusqlite::Result<Vec<i64>> {
    let Place { connection, as_of, removed_since, .. } = place;
    let Some(moment) = as_of.moment() else {
        return connection
            .prepare_cached("SELECT rowid FROM texts WHERE texts MATCH ?1 ORDER BY rowid DESC LIMIT ?2")?
            .query_map((pattern, POSTINGS_MAX as i64), |row| row.get(0))?
            .collect();
    };
    let last = document(moment.0 as i64, TextHitKind::Header);
    let mut found: Vec<i64> = connection
        .prepare_cached(
            "SELECT rowid FROM texts WHERE texts MATCH ?1 AND rowid <= ?3 ORDER BY rowid DESC LIMIT ?2",
        )?
        .query_map((pattern, POSTINGS_MAX as i64, last), |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    if !removed_since {
        return Ok(found);
    }
    // Their keys do not say when they were removed; their rows do. They come in the order of the inner statement: another
    // one outside would look at all of them before the first.
    let mut removed = connection.prepare_cached(
        "SELECT past.document FROM (SELECT rowid AS document FROM texts_past
             WHERE texts_past MATCH ?1 AND rowid <= ?3 AND rowid > ?6 ORDER BY rowid DESC LIMIT ?5) past
         WHERE CASE past.document & 1
             WHEN 1 THEN (SELECT removed_seq FROM entities WHERE created_seq = past.document >> 1)
             ELSE (SELECT removed_seq FROM observations WHERE created_seq = past.document >> 1) END > ?4
         LIMIT ?2",
    )?;
    // Behind a full list nothing older counts.
    let oldest = found.last().copied().filter(|_| found.len() == POSTINGS_MAX).unwrap_or_default();
    let params = (pattern, POSTINGS_MAX as i64, last, moment.0 as i64, PAST_LOOKED_AT_MAX as i64, oldest);
    for document in removed.query_map(params, |row| row.get(0))? {
        found.push(document?);
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.truncate(POSTINGS_MAX);
    Ok(found)
}

/// One word as a pattern. Words are letters and digits alone, so the quotes hold whatever the user wrote.
fn quoted(scope: i64, field: Field, word: &str) -> String {
    let mut pattern = String::from('"');
    indexed_word(&mut pattern, scope, field, word);
    pattern.push('"');
    pattern
}

fn read_postings(place: Place<'_>, term: &mut Term) -> rusqlite::Result<()> {
    let fields: &[Field] = if term.stop { &[Field::Name] } else { &[Field::Name, Field::Body] };
    for &scope in place.scopes {
        for &field in fields {
            let found = newest(place, &quoted(scope, field, &term.word))?;
            let mut rows = found.len() as f32;
            if let (POSTINGS_MAX, Some(first), Some(last)) = (found.len(), found.first(), found.last()) {
                term.complete = false;
                rows *= *first as f32 / (first - last).max(1) as f32;
            }
            term.rows += rows;
            term.found.extend(found.into_iter().map(|document| (document, field)));
        }
    }
    Ok(())
}

/// What a word is worth before its row is read: as if it stood once in a text of the usual length.
fn usual_weight(term: &Term, field: Field) -> f32 {
    let repeated = match field {
        Field::Name => NAME_WEIGHT,
        Field::Body => 1.0,
    };
    term.idf * repeated * (K1 + 1.0) / (repeated + K1)
}

/// What one word, or more, says for a row.
struct Candidate {
    document: i64,
    weight: f32,
    /// Whether the weight stands for all words of the row, and is not added to that of others.
    whole: bool,
}

fn candidates(terms: &[Term]) -> Vec<Candidate> {
    let of_term = |term: &Term| {
        let (name, body) = (usual_weight(term, Field::Name), usual_weight(term, Field::Body));
        term.found
            .iter()
            .map(|&(document, field)| {
                let weight = if field == Field::Name { name } else { body };
                Candidate { document, weight, whole: false }
            })
            .collect::<Vec<_>>()
    };
    terms.iter().flat_map(of_term).collect()
}

/// Each row once with its weight, the heaviest first, the newest first among equals.
fn merged(mut candidates: Vec<Candidate>) -> Vec<(i64, f32)> {
    candidates.sort_by_key(|candidate| (candidate.document, candidate.whole));
    let mut ranked: Vec<(i64, f32)> = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        match ranked.last_mut() {
            Some((document, weight)) if *document == candidate.document => {
                *weight =
                    if candidate.whole { weight.max(candidate.weight) } else { *weight + candidate.weight };
            }
            Some(_) | None => ranked.push((candidate.document, candidate.weight)),
        }
    }
    ranked.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(b.0.cmp(&a.0)));
    ranked
}

/// Rows that hold the two rarest words, when neither list is complete.
fn add_rows_with_both(
    place: Place<'_>,
    terms: &[Term],
    candidates: &mut Vec<Candidate>,
) -> rusqlite::Result<()> {
    let [rarest, next, ..] = terms else { return Ok(()) };
    if rarest.complete || next.complete {
        return Ok(());
    }
    let weight = usual_weight(rarest, Field::Body) + usual_weight(next, Field::Body);
    for &scope in place.scopes {
        let either = |term: &Term| {
            format!(
                "({} OR {})",
                quoted(scope, Field::Name, &term.word),
                quoted(scope, Field::Body, &term.word)
            )
        };
        for document in newest(place, &format!("{} AND {}", either(rarest), either(next)))? {
            candidates.push(Candidate { document, weight, whole: true });
        }
    }
    Ok(())
}

/// An entity whose name is the whole query comes first of all candidates, however frequent its words are.
fn add_exact_name(
    place: Place<'_>,
    query: &KeywordQuery,
    terms: &[Term],
    candidates: &mut Vec<Candidate>,
) -> rusqlite::Result<()> {
    static SQL: LazyLock<[String; 2]> = LazyLock::new(|| {
        AsOf::both("e", |alive| {
            format!("SELECT e.created_seq FROM entities e WHERE e.name = :name AND e.scope_id = :scope AND {alive}")
        })
        .map(|sql| format!("{sql} ORDER BY 1 LIMIT 1"))
    });
    let weight = 1.0 + terms.iter().map(|term| usual_weight(term, Field::Name)).sum::<f32>();
    let name = query.text.trim();
    for scope in place.scopes {
        let params: &[(&str, &dyn ToSql)] = &[(":name", &name), (":scope", scope)];
        let seq: Option<i64> =
            place.as_of.one(place.connection, place.as_of.of(&SQL), params, |row| row.get(0))?;
        if let Some(seq) = seq {
            let document = document(seq, TextHitKind::Header);
            candidates.push(Candidate { document, weight, whole: true });
        }
    }
    Ok(())
}

/// That a row of `alias` is true at `?2`, when it is given.
fn valid(alias: &str) -> String {
    format!(
        "(?2 IS NULL OR ({alias}.valid_from IS NULL OR {alias}.valid_from <= ?2)
             AND ({alias}.valid_to IS NULL OR {alias}.valid_to > ?2))"
    )
}

/// The statements that read a header by the record `?1` that wrote it: now, and as of `?3`.
fn header_sql() -> [String; 2] {
    ["e.removed_seq IS NULL", "(e.removed_seq IS NULL OR e.removed_seq > ?3)"].map(|there| {
        let valid = valid("e");
        format!(
            "SELECT e.id, e.id, e.entity_type, e.name FROM entities e
             WHERE e.created_seq = ?1 AND e.created_seq <= ?3 AND {there} AND {valid}"
        )
    })
}

/// The same for an observation and the entity it is about.
fn observation_sql() -> [String; 2] {
    let select = |there: &str, entity: &str| {
        let (own, of_entity) = (valid("o"), valid("e"));
        format!(
            "SELECT o.id, o.entity_id, e.entity_type, o.content
             FROM observations o CROSS JOIN entities e ON {entity} AND e.created_seq <= ?3
             WHERE o.created_seq = ?1 AND o.created_seq <= ?3 AND {there} AND {own} AND {of_entity}"
        )
    };
    let present = "e.id = o.entity_id AND e.removed_seq IS NULL";
    let past = "e.created_seq = (SELECT created_seq FROM entities WHERE id = o.entity_id AND removed_seq > ?3
                    ORDER BY removed_seq LIMIT 1)";
    let there = "(o.removed_seq IS NULL OR o.removed_seq > ?3)";
    let both = format!("{} UNION ALL {} LIMIT 1", select(there, present), select(there, past));
    [select("o.removed_seq IS NULL", present), both]
}

/// Reads candidates until enough of them pass the filter.
fn score(
    place: Place<'_>,
    query: &KeywordQuery,
    terms: &[Term],
    corpus: Corpus,
    ranked: &[(i64, f32)],
) -> rusqlite::Result<Vec<Scored>> {
    static HEADER: LazyLock<[String; 2]> = LazyLock::new(header_sql);
    static OBSERVATION: LazyLock<[String; 2]> = LazyLock::new(observation_sql);
    let enough = SCORED_MIN.max(query.limit * 2);
    let at = query.valid_at.map(|at| at.unix_micros() as i64);
    let types = |entity_type: &str| {
        query.entity_types.is_empty() || query.entity_types.iter().any(|wanted| wanted == entity_type)
    };
    let mut header = place.connection.prepare_cached(place.as_of.of(&HEADER))?;
    let mut observation = place.connection.prepare_cached(place.as_of.of(&OBSERVATION))?;
    let mut scored = Vec::new();
    for &(document, expected) in ranked.iter().take(READ_MAX) {
        let (seq, kind) = row_of(document);
        let statement = match kind {
            TextHitKind::Header => &mut header,
            TextHitKind::Observation => &mut observation,
        };
        let found = statement.query_row((seq, at, place.as_of.limit()), |row| {
            let entity_type = row.get_ref(2)?.as_str()?;
            if !types(entity_type) {
                return Ok(None);
            }
            let text = row.get_ref(3)?.as_str()?;
            let own = match kind {
                TextHitKind::Header => weigh(terms, corpus, text, entity_type),
                TextHitKind::Observation => weigh(terms, corpus, "", text),
            };
            let id = |column| row.get::<_, i64>(column).map(|id| MemoryId(id as u64));
            // Only what lies beyond the part that was read can have brought the row here.
            let own = if own > 0.0 { own } else { expected };
            Ok(Some(Scored { hit: TextHit { row: id(0)?, entity: id(1)?, score: own, kind }, own }))
        });
        scored.extend(found.optional()?.flatten());
        if scored.len() >= enough {
            break;
        }
    }
    Ok(scored)
}

/// BM25F of a row.
fn weigh(terms: &[Term], corpus: Corpus, name: &str, body: &str) -> f32 {
    let mut counts = [0.0_f32; TERMS_MAX];
    let mut len = 0.0_f32;
    let mut count = |word: &str, weight: f32| {
        len += 1.0;
        if let Some(index) = terms.iter().position(|term| term.word == word)
            && let Some(count) = counts.get_mut(index)
        {
            *count += weight;
        }
    };
    each_word(name, |word| count(word, NAME_WEIGHT));
    let end = body.floor_char_boundary(SCORED_BYTES_MAX);
    each_word(body.get(..end).unwrap_or(body), |word| {
        if !is_stop_word(word) {
            count(word, 1.0);
        }
    });
    let length = 1.0 - B + B * len / corpus.mean_len;
    terms.iter().zip(counts).map(|(term, count)| term.idf * count * (K1 + 1.0) / (count + K1 * length)).sum()
}

/// Adds the scores of headers to those of their observations, and sorts: best first, then by number.
fn rank(mut scored: Vec<Scored>, limit: usize) -> Vec<TextHit> {
    let headers: BTreeMap<MemoryId, f32> = scored
        .iter()
        .filter(|row| row.hit.kind == TextHitKind::Header)
        .map(|row| (row.hit.entity, row.own))
        .collect();
    for row in &mut scored {
        if row.hit.kind == TextHitKind::Observation {
            row.hit.score = row.own + headers.get(&row.hit.entity).copied().unwrap_or(0.0);
        }
    }
    let mut hits: Vec<TextHit> = scored.into_iter().map(|row| row.hit).collect();
    hits.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
    hits.truncate(limit);
    hits
}
