//! BM25 over a bounded number of candidates.
//!
//! 1. For each word and scope, the newest rows that hold it: at most [`POSTINGS_MAX`]. The length of a list that is cut
//!    is estimated from the part that was read.
//! 2. Where even the rarest word of the query fills its list, the newest rows that hold its two rarest words, so that a
//!    row that holds both is not lost among those that hold one.
//! 3. The candidates with the most weight of words are read, filtered, and scored exactly: BM25F over the words of their
//!    names, weighted by [`NAME_WEIGHT`], and of their bodies. An observation also gets the score of its entity's header:
//!    what is noted of *ada* need not repeat her name.

use std::collections::BTreeMap;

use caxton_events::MemoryId;
use rusqlite::{Connection, OptionalExtension};

use super::index::{Field, document, indexed_word, row_of};
use super::words::{each_word, is_stop_word};
use super::{KeywordQuery, TextHit, TextHitKind};

/// Words of a query that count; the rest is not looked at.
const TERMS_MAX: usize = 24;
/// Rows read for one word of one field in one scope.
const POSTINGS_MAX: usize = 1_024;
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

/// A row that passed the filter.
struct Scored {
    hit: TextHit,
    own: f32,
}

/// Answers the query within these scopes.
pub(crate) fn ask(
    connection: &Connection,
    scopes: &[i64],
    query: &KeywordQuery,
) -> rusqlite::Result<Vec<TextHit>> {
    let mut terms = terms(&query.text);
    if terms.is_empty() || scopes.is_empty() || query.limit == 0 {
        return Ok(Vec::new());
    }
    let corpus = corpus(connection, scopes)?;
    for term in &mut terms {
        read_postings(connection, scopes, term)?;
        term.rows = term.rows.min(corpus.rows);
        term.idf = (1.0 + (corpus.rows - term.rows + 0.5) / (term.rows + 0.5)).ln();
    }
    terms.sort_by(|a, b| a.rows.total_cmp(&b.rows).then_with(|| a.word.cmp(&b.word)));
    let mut candidates = candidates(&terms);
    add_rows_with_both(connection, scopes, &terms, &mut candidates)?;
    add_exact_name(connection, scopes, query, &terms, &mut candidates)?;
    let scored = score(connection, query, &terms, corpus, &merged(candidates))?;
    Ok(rank(scored, query.limit))
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

fn corpus(connection: &Connection, scopes: &[i64]) -> rusqlite::Result<Corpus> {
    let mut statement =
        connection.prepare_cached("SELECT text_rows, text_words FROM scopes WHERE id = ?1")?;
    let (mut rows, mut words) = (0_i64, 0_i64);
    for scope in scopes {
        let (more_rows, more_words): (i64, i64) =
            statement.query_row((scope,), |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows += more_rows;
        words += more_words;
    }
    Ok(Corpus { rows: rows as f32, mean_len: (words as f32 / rows.max(1) as f32).max(1.0) })
}

/// The newest documents that match, newest first.
fn newest(connection: &Connection, pattern: &str) -> rusqlite::Result<Vec<i64>> {
    connection
        .prepare_cached("SELECT rowid FROM texts WHERE texts MATCH ?1 ORDER BY rowid DESC LIMIT ?2")?
        .query_map((pattern, POSTINGS_MAX as i64), |row| row.get(0))?
        .collect()
}

/// One word as a pattern. Words are letters and digits alone, so the quotes hold whatever the user wrote.
fn quoted(scope: i64, field: Field, word: &str) -> String {
    let mut pattern = String::from('"');
    indexed_word(&mut pattern, scope, field, word);
    pattern.push('"');
    pattern
}

fn read_postings(connection: &Connection, scopes: &[i64], term: &mut Term) -> rusqlite::Result<()> {
    let fields: &[Field] = if term.stop { &[Field::Name] } else { &[Field::Name, Field::Body] };
    for &scope in scopes {
        for &field in fields {
            let found = newest(connection, &quoted(scope, field, &term.word))?;
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
    connection: &Connection,
    scopes: &[i64],
    terms: &[Term],
    candidates: &mut Vec<Candidate>,
) -> rusqlite::Result<()> {
    let [rarest, next, ..] = terms else { return Ok(()) };
    if rarest.complete || next.complete {
        return Ok(());
    }
    let weight = usual_weight(rarest, Field::Body) + usual_weight(next, Field::Body);
    for &scope in scopes {
        let either = |term: &Term| {
            format!(
                "({} OR {})",
                quoted(scope, Field::Name, &term.word),
                quoted(scope, Field::Body, &term.word)
            )
        };
        for document in newest(connection, &format!("{} AND {}", either(rarest), either(next)))? {
            candidates.push(Candidate { document, weight, whole: true });
        }
    }
    Ok(())
}

/// An entity whose name is the whole query comes first of all candidates, however frequent its words are.
fn add_exact_name(
    connection: &Connection,
    scopes: &[i64],
    query: &KeywordQuery,
    terms: &[Term],
    candidates: &mut Vec<Candidate>,
) -> rusqlite::Result<()> {
    let weight = 1.0 + terms.iter().map(|term| usual_weight(term, Field::Name)).sum::<f32>();
    let mut statement = connection.prepare_cached(
        "SELECT created_seq FROM entities WHERE name = ?1 AND scope_id = ?2 AND removed_seq IS NULL",
    )?;
    for scope in scopes {
        let seq: Option<i64> =
            statement.query_row((query.text.trim(), scope), |row| row.get(0)).optional()?;
        if let Some(seq) = seq {
            let document = document(seq, TextHitKind::Header);
            candidates.push(Candidate { document, weight, whole: true });
        }
    }
    Ok(())
}

/// Reads candidates until enough of them pass the filter.
fn score(
    connection: &Connection,
    query: &KeywordQuery,
    terms: &[Term],
    corpus: Corpus,
    ranked: &[(i64, f32)],
) -> rusqlite::Result<Vec<Scored>> {
    let enough = SCORED_MIN.max(query.limit * 2);
    let at = query.valid_at.map(|at| at.unix_micros() as i64);
    let types = |entity_type: &str| {
        query.entity_types.is_empty() || query.entity_types.iter().any(|wanted| wanted == entity_type)
    };
    let mut header = connection.prepare_cached(
        "SELECT id, id, entity_type, name FROM entities WHERE created_seq = ?1 AND removed_seq IS NULL
             AND (?2 IS NULL OR (valid_from IS NULL OR valid_from <= ?2) AND (valid_to IS NULL OR valid_to > ?2))",
    )?;
    let mut observation = connection.prepare_cached(
        "SELECT o.id, o.entity_id, e.entity_type, o.content
         FROM observations o CROSS JOIN entities e ON e.id = o.entity_id AND e.removed_seq IS NULL
         WHERE o.created_seq = ?1 AND o.removed_seq IS NULL
             AND (?2 IS NULL OR (o.valid_from IS NULL OR o.valid_from <= ?2) AND (o.valid_to IS NULL OR o.valid_to > ?2)
                 AND (e.valid_from IS NULL OR e.valid_from <= ?2) AND (e.valid_to IS NULL OR e.valid_to > ?2))",
    )?;
    let mut scored = Vec::new();
    for &(document, expected) in ranked.iter().take(READ_MAX) {
        let (seq, kind) = row_of(document);
        let statement = match kind {
            TextHitKind::Header => &mut header,
            TextHitKind::Observation => &mut observation,
        };
        let found = statement
            .query_row((seq, at), |row| {
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
            })
            .optional()?;
        scored.extend(found.flatten());
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
