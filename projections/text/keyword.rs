//! BM25F over every text of the scopes asked: over the words of names, weighted by [`NAME_WEIGHT`](super::batch::NAME_WEIGHT),
//! and of bodies (S. Robertson and H. Zaragoza, "The probabilistic relevance framework: BM25 and beyond", 2009).
//!
//! An observation also gets the score of its entity's header: what is noted of *ada* need not repeat her name. So headers
//! are scored first, all that hold a word; then observations, the windows that can be worth most first, until no window
//! that is left can have one better than those that were found. The answer is the same as if every text had been scored,
//! but for an entity whose name is the whole query: it comes first.
//!
//! As of an earlier record texts are those that were there then, and so are the figures that scores are made of: the answer
//! is the one of that time.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::sync::LazyLock;

use caxton_events::{MemoryId, Timestamp};
use rusqlite::{Connection, ToSql};

use super::index::{AtMoment, ScopeTexts, TextIndex};
use super::list::{List, WINDOW};
use super::score::{Corpus, Cursor, LANES, MARKS, SLACK, Scratch, mark, reaches, sum, windows};
use super::shelf::Shelf;
use super::words::{each_word, is_stop_word};
use super::{KeywordQuery, TextHit, TextHitKind};
use crate::by_name::{NameHash, numbers_of};
use crate::graph::AsOf;

/// Words of a query that count: those that the fewest texts hold, or, as of an earlier record, the first ones.
const TERMS_MAX: usize = 24;
/// Words of a query that they are chosen from, the first ones; the rest is not looked at.
const CANDIDATES_MAX: usize = 256;
/// Observations are marked where at most one entity in so many has a header with a word of the query.
const FEW: usize = 8;

/// A word of the query.
struct Term {
    word: String,
    /// How the index knows it.
    number: u32,
    /// Texts that hold it.
    rows: f32,
    /// How telling it is.
    idf: f32,
}

/// What a query asks of each text, and the best so far.
struct Search<'a> {
    texts: &'a AtMoment<'a>,
    terms: &'a [Term],
    corpus: Corpus,
    /// In order.
    types: Option<Vec<u32>>,
    valid_at: Option<Timestamp>,
    best: Best,
    /// As of an earlier record: entities of the scope under way, and the rows of those that count.
    judged: HashMap<u32, Option<MemoryId>, NameHash>,
}

/// Answers the query within these scopes. `None`: the index must be loaded first.
pub(crate) fn ask(
    connection: &Connection,
    index: &TextIndex,
    as_of: AsOf,
    scopes: &[i64],
    query: &KeywordQuery,
) -> rusqlite::Result<Option<Vec<TextHit>>> {
    let name = query.text.trim();
    if name.is_empty() || scopes.is_empty() || query.limit == 0 {
        return Ok(Some(Vec::new()));
    }
    // How many hold a word now says nothing of the past: the same question has the same answer there, whatever comes later.
    let candidates_max = if as_of.moment().is_some() { TERMS_MAX } else { CANDIDATES_MAX };
    let candidates = terms(name, candidates_max);
    let through: i64 =
        connection.prepare_cached("SELECT checkpoint FROM meta")?.query_row((), |row| row.get(0))?;
    let corpus = corpus(connection, as_of, scopes)?;
    let named = named(connection, as_of, scopes, name)?;
    let Some(texts) = index.at(through as u64, as_of.limit().min(through) as u64) else { return Ok(None) };
    let places: Vec<&ScopeTexts> = scopes.iter().filter_map(|scope| texts.scope(*scope)).collect();
    let terms = weigh_terms(candidates, &texts, &places, corpus);
    let types = match query.entity_types.as_slice() {
        [] => None,
        wanted => Some(numbers_of(wanted, |name| texts.entity_type(name))),
    };
    let best = Best { limit: query.limit, heap: BinaryHeap::with_capacity(query.limit + 1) };
    let (valid_at, judged) = (query.valid_at, HashMap::default());
    let mut search = Search { texts: &texts, terms: &terms, corpus, types, valid_at, best, judged };
    let mut scratch = index.scratch();
    for place in places {
        search.scope(place, &mut scratch);
    }
    index.give_back(scratch);
    for (scope, created) in named {
        if let Some(place) = texts.scope(scope) {
            search.put_first(place, created);
        }
    }
    let mut hits = search.best.heap.into_vec();
    hits.sort_unstable();
    Ok(Some(hits.into_iter().map(|Ranked(hit)| hit).collect()))
}

/// The scopes that have an entity of this name, and the records that wrote them.
fn named(
    connection: &Connection,
    as_of: AsOf,
    scopes: &[i64],
    name: &str,
) -> rusqlite::Result<Vec<(i64, u64)>> {
    static SQL: LazyLock<[String; 2]> = LazyLock::new(|| {
        AsOf::both("e", |alive| {
            format!("SELECT e.created_seq FROM entities e WHERE e.name = :name AND e.scope_id = :scope AND {alive}")
        })
        .map(|sql| format!("{sql} ORDER BY 1 LIMIT 1"))
    });
    let mut found = Vec::new();
    for scope in scopes {
        let params: &[(&str, &dyn ToSql)] = &[(":name", &name), (":scope", scope)];
        let created: Option<i64> = as_of.one(connection, as_of.of(&SQL), params, |row| row.get(0))?;
        found.extend(created.map(|created| (*scope, created as u64)));
    }
    Ok(found)
}

/// The first `most` different words of a query. Stop words are indexed in names only, and count only when it has no other words.
fn terms(text: &str, most: usize) -> Vec<Term> {
    let (mut terms, mut stop_words): (Vec<Term>, Vec<Term>) = (Vec::new(), Vec::new());
    each_word(text, |word| {
        let terms = if is_stop_word(word) { &mut stop_words } else { &mut terms };
        if terms.len() < most && !terms.iter().any(|term| term.word == word) {
            terms.push(Term { word: word.to_owned(), number: 0, rows: 0.0, idf: 0.0 });
        }
    });
    if terms.is_empty() { stop_words } else { terms }
}

fn corpus(connection: &Connection, as_of: AsOf, scopes: &[i64]) -> rusqlite::Result<Corpus> {
    let sql = match as_of.moment() {
        None => "SELECT text_rows, text_words FROM scopes WHERE id = :scope",
        Some(_) => {
            "SELECT text_rows, text_words FROM figures WHERE scope_id = :scope AND seq <= :as_of
             ORDER BY seq DESC LIMIT 1"
        }
    };
    let (mut rows, mut words) = (0_i64, 0_i64);
    for scope in scopes {
        let figures =
            as_of.one(connection, sql, &[(":scope", scope)], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (more_rows, more_words): (i64, i64) = figures.unwrap_or_default();
        rows += more_rows;
        words += more_words;
    }
    Ok(Corpus { rows: rows as f32, mean_len: (words as f32 / rows.max(1) as f32).max(1.0) })
}

/// Finds how telling the words are that count, the most telling first; those that no text holds are left out.
///
/// Who held a word at another moment than the present, as while a batch is added, is counted text by text. So words are chosen by
/// how many texts hold them now, which is known, and that is done for those alone that are chosen.
fn weigh_terms(
    candidates: Vec<Term>,
    texts: &AtMoment<'_>,
    places: &[&ScopeTexts],
    corpus: Corpus,
) -> Vec<Term> {
    let known = candidates.into_iter().filter_map(|term| {
        let number = texts.word(&term.word)?;
        Some((count(places, number, |_, list| list.count - list.gone), Term { number, ..term }))
    });
    let mut known: Vec<(u64, Term)> = known.collect();
    known.sort_by(|(a_rows, a), (b_rows, b)| a_rows.cmp(b_rows).then_with(|| a.word.cmp(&b.word)));
    let weighed = known.into_iter().filter_map(|(_, term)| {
        let held = count(places, term.number, |shelf, list| shelf.holders(list, shelf.when(texts.moment)));
        let rows = (held as f32).min(corpus.rows);
        let idf = (1.0 + (corpus.rows - rows + 0.5) / (rows + 0.5)).ln();
        (held > 0).then_some(Term { rows, idf, ..term })
    });
    let mut terms: Vec<Term> = weighed.take(TERMS_MAX).collect();
    terms.sort_by(|a, b| a.rows.total_cmp(&b.rows).then_with(|| a.word.cmp(&b.word)));
    terms
}

/// What `of` counts in all lists of the word with this number.
fn count(places: &[&ScopeTexts], number: u32, of: impl Fn(&Shelf, &List) -> u32) -> u64 {
    let shelves = places.iter().flat_map(|place| [&place.headers, &place.contents]);
    shelves.filter_map(|shelf| Some(u64::from(of(shelf, shelf.list(number)?)))).sum()
}

impl Search<'_> {
    fn scope(&mut self, place: &ScopeTexts, scratch: &mut Scratch) {
        // Each scope numbers its own entities.
        self.judged.clear();
        scratch.window.resize(WINDOW as usize, 0.0);
        if scratch.entities.len() < place.entities() {
            scratch.entities.resize(place.entities(), 0.0);
        }
        let highest = self.headers(place, scratch);
        self.contents(place, highest, scratch);
        for entity in scratch.touched.drain(..) {
            if let Some(score) = scratch.entities.get_mut(entity as usize) {
                *score = 0.0;
            }
        }
    }

    fn cursors<'s>(&self, shelf: &'s Shelf) -> Vec<Cursor<'s>> {
        let cursor = |term: &Term| {
            let list = shelf.list(term.number)?;
            Some(Cursor::new(list, term.idf, self.corpus, shelf.usual()))
        };
        self.terms.iter().filter_map(cursor).collect()
    }

    /// Scores every header that holds a word and counts; returns the highest score.
    fn headers(&mut self, place: &ScopeTexts, scratch: &mut Scratch) -> f32 {
        let shelf = &place.headers;
        let cursors = self.cursors(shelf);
        let when = shelf.when(self.texts.moment);
        let mut highest = 0.0_f32;
        let Scratch { window, entities, touched, scored, at_once, .. } = scratch;
        scored.resize(WINDOW as usize / MARKS, 0);
        for (_, parts) in windows(&cursors) {
            let note = |place: usize| {
                if let Some(scored) = scored.get_mut(place / MARKS) {
                    *scored |= 1 << (place % MARKS);
                }
            };
            let Some(first) = sum(&parts, &cursors, shelf.lens(), window, note) else { continue };
            at_once.take(first, scored, window);
            scored.fill(0);
            at_once.look_up(shelf.entities());
            let (least, mut good) = (self.best.least(), Vec::new());
            for (header, entity, score) in at_once.iter() {
                if !shelf.counts(header, when, self.valid_at) || !self.is_wanted(place, header) {
                    continue;
                }
                highest = highest.max(score);
                if let Some(place) = entities.get_mut(entity as usize) {
                    *place = score;
                    touched.push(entity);
                }
                if score >= least {
                    good.push((header, score));
                }
            }
            // Their rows lie far apart, and are waited for together.
            let row = |(header, score)| Some((shelf.document(header)?.row, score));
            let good: Vec<(MemoryId, f32)> = good.into_iter().filter_map(row).collect();
            for (row, score) in good {
                self.best.add(TextHit { row, entity: row, score, kind: TextHitKind::Header });
            }
        }
        highest
    }

    /// Scores observations, the windows that can be worth most first. `highest` is what a header adds at most.
    ///
    /// Few entities have a header with a word of the query, as a rule: their observations are marked, and what all others
    /// must reach is known without a look at their entities.
    fn contents(&mut self, place: &ScopeTexts, highest: f32, scratch: &mut Scratch) {
        let shelf = &place.contents;
        let cursors = self.cursors(shelf);
        let mut windows = windows(&cursors);
        windows.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let few = scratch.touched.len() < place.entities() / FEW;
        if few {
            mark(place, scratch);
        }
        for (bound, parts) in windows {
            let least = self.best.least();
            if bound + highest < least {
                break;
            }
            let first = parts.first().map_or(0, |part| part.window * WINDOW);
            let marks = first as usize / MARKS;
            let marks = scratch.marks.get(marks..).unwrap_or_default();
            let is_marked = marks.iter().take(WINDOW as usize / MARKS).any(|marks| *marks != 0);
            if few && !is_marked && bound < least {
                continue;
            }
            sum(&parts, &cursors, shelf.lens(), &mut scratch.window, |_| ());
            if few {
                self.marked(place, first, scratch);
                self.others(place, first, &mut scratch.window);
            } else {
                self.all(place, first, highest, scratch);
            }
        }
        scratch.marks.clear();
    }

    /// Keeps the best of a window's marked observations, and leaves zeros in their places.
    fn marked(&mut self, place: &ScopeTexts, first: u32, scratch: &mut Scratch) {
        let Scratch { window, entities, marks, at_once, .. } = scratch;
        let marks = marks.get(first as usize / MARKS..).unwrap_or_default();
        at_once.take(first, marks.get(..WINDOW as usize / MARKS).unwrap_or(marks), window);
        at_once.look_up(place.contents.entities());
        at_once.add(entities);
        let mut least = self.best.least();
        for (number, entity, score) in at_once.iter() {
            if score >= least {
                self.offer(place, number, entity, score);
                least = self.best.least();
            }
        }
    }

    /// Keeps the best of the observations of a window whose headers add nothing, and leaves zeros.
    fn others(&mut self, place: &ScopeTexts, first: u32, window: &mut [f32]) {
        for (chunk, scores) in window.chunks_mut(MARKS).enumerate() {
            let least = self.best.least();
            if reaches(scores, least) {
                for (lane, &score) in scores.iter().enumerate() {
                    let number = first + (chunk * MARKS + lane) as u32;
                    if score > 0.0
                        && score >= least
                        && let Some(&entity) = place.contents.entities().get(number as usize)
                    {
                        self.offer(place, number, entity, score);
                    }
                }
            }
            scores.fill(0.0);
        }
    }

    /// Adds the scores of headers to those of all observations of a window and keeps the best; leaves zeros.
    fn all(&mut self, place: &ScopeTexts, first: u32, highest: f32, scratch: &mut Scratch) {
        let about = place.contents.entities().get(first as usize..).unwrap_or_default();
        for (chunk, scores) in scratch.window.chunks_mut(LANES).enumerate() {
            let least = self.best.least();
            if reaches(scores, least / SLACK - highest) {
                // Which of them were matched cannot be foretold: so all are added up, without a branch.
                let mut totals = [0.0_f32; LANES];
                let about = about.get(chunk * LANES..).unwrap_or_default();
                for ((total, &score), &entity) in totals.iter_mut().zip(scores.iter()).zip(about) {
                    let header = scratch.entities.get(entity as usize).copied().unwrap_or_default();
                    *total = if score > 0.0 { score + header } else { 0.0 };
                }
                if reaches(&totals, least) {
                    for (lane, (&total, &entity)) in totals.iter().zip(about).enumerate() {
                        if total > 0.0 && total >= least {
                            self.offer(place, first + (chunk * LANES + lane) as u32, entity, total);
                        }
                    }
                }
            }
            scores.fill(0.0);
        }
    }

    /// Keeps an observation if it is better than others and counts.
    fn offer(&mut self, place: &ScopeTexts, number: u32, entity: u32, score: f32) {
        if score >= self.best.least()
            && self.may_be_wanted(place, entity)
            && let Some(hit) = self.content(place, number, entity, score)
        {
            self.best.add(hit);
        }
    }

    /// An observation with its score as a hit, if it is better than others and counts.
    fn content(&mut self, place: &ScopeTexts, number: u32, entity: u32, score: f32) -> Option<TextHit> {
        let (shelf, moment) = (&place.contents, self.texts.moment);
        let row = shelf.document(number)?.row;
        if !self.best.admits(score, row) || !shelf.counts(number, shelf.when(moment), self.valid_at) {
            return None;
        }
        let entity = self.counting(place, entity)?;
        Some(TextHit { row, entity, score, kind: TextHitKind::Observation })
    }

    /// The row of an entity, if it counts. As of an earlier record its header of that time is looked for among all that it
    /// ever had: once, however many texts about it match.
    fn counting(&mut self, place: &ScopeTexts, entity: u32) -> Option<MemoryId> {
        if self.texts.moment.is_none() {
            return self.judge(place, entity);
        }
        if let Some(known) = self.judged.get(&entity) {
            return *known;
        }
        let row = self.judge(place, entity);
        self.judged.insert(entity, row);
        row
    }

    fn judge(&self, place: &ScopeTexts, entity: u32) -> Option<MemoryId> {
        let (headers, moment) = (&place.headers, self.texts.moment);
        let header = place.header_of(entity, moment)?;
        let counts =
            headers.counts(header, headers.when(moment), self.valid_at) && self.is_wanted(place, header);
        headers.document(header).filter(|_| counts).map(|document| document.row)
    }

    /// Has the header that the record `created` wrote come before all other hits, if it counts.
    fn put_first(&mut self, place: &ScopeTexts, created: u64) {
        let shelf = &place.headers;
        let Some(header) = shelf.number_of(created) else { return };
        let Some(document) = shelf.document(header) else { return };
        let when = shelf.when(self.texts.moment);
        if !shelf.counts(header, when, self.valid_at) || !self.is_wanted(place, header) {
            return;
        }
        let row = document.row;
        let heap = &mut self.best.heap;
        let best = heap.iter().filter(|Ranked(hit)| hit.row != row).map(|Ranked(hit)| hit.score);
        let best = best.fold(0.0_f32, f32::max);
        let own = heap.iter().find(|Ranked(hit)| hit.row == row).map_or(0.0, |Ranked(hit)| hit.score);
        heap.retain(|Ranked(hit)| hit.row != row);
        let hit = TextHit { row, entity: row, score: own.max(best.next_up()), kind: TextHitKind::Header };
        self.best.add(hit);
    }

    /// Whether the type of an entity is among those asked for, as far as that is known without a look at its past.
    fn may_be_wanted(&self, place: &ScopeTexts, entity: u32) -> bool {
        let Some(types) = self.types.as_ref().filter(|_| self.texts.moment.is_none()) else { return true };
        place.newest_type(entity).is_some_and(|entity_type| types.binary_search(&entity_type).is_ok())
    }

    /// Whether the type in a header is among those asked for.
    fn is_wanted(&self, place: &ScopeTexts, header: u32) -> bool {
        let Some(types) = &self.types else { return true };
        place.type_of(header).is_some_and(|entity_type| types.binary_search(&entity_type).is_ok())
    }
}

/// The best hits so far.
struct Best {
    limit: usize,
    /// The worst of them on top.
    heap: BinaryHeap<Ranked>,
}

/// A hit in the order of an answer: the best first, then by number.
struct Ranked(TextHit);

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.score.total_cmp(&self.0.score).then(self.0.row.cmp(&other.0.row))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

impl Best {
    /// What a hit must not be worth less than.
    fn least(&self) -> f32 {
        if self.heap.len() < self.limit {
            0.0
        } else {
            self.heap.peek().map_or(0.0, |Ranked(worst)| worst.score)
        }
    }

    /// Whether a hit with this score would be among the best.
    fn admits(&self, score: f32, row: MemoryId) -> bool {
        self.heap.len() < self.limit
            || self
                .heap
                .peek()
                .is_some_and(|Ranked(worst)| worst.score.total_cmp(&score).then(row.cmp(&worst.row)).is_lt())
    }

    fn add(&mut self, hit: TextHit) {
        if self.admits(hit.score, hit.row) {
            if self.heap.len() == self.limit {
                self.heap.pop();
            }
            self.heap.push(Ranked(hit));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use caxton_events::MemoryId;
    use caxton_events::memory::Validity;

    use super::{CANDIDATES_MAX, Corpus, TERMS_MAX, Term, TextIndex, terms, weigh_terms};
    use crate::text::batch::{Text, TextBatch, Written};
    use crate::text::index::Texts;

    /// An index of these contents, each of one record.
    fn index_of(contents: &[&str]) -> TextIndex {
        let index = TextIndex::default();
        index.begin_loading();
        assert!(index.finish_loading(Some((Texts::default(), 0))));
        for (record, content) in (1..).zip(contents) {
            let mut batch = TextBatch::default();
            let (at, ids) = (Written { scope: 1, created: record }, (MemoryId(record as u64), MemoryId(1)));
            batch.add(at, ids, Text::Content(content), &Validity::default());
            index.take(batch, record as u64);
        }
        index
    }

    #[test]
    fn words_that_nobody_held_yet_take_no_place_of_those_that_count() {
        let words =
            |letter: &str| (0..TERMS_MAX).map(|n| format!("{letter}{n}x")).collect::<Vec<_>>().join(" ");
        let (early, late) = (words("e"), words("l"));
        let index = index_of(&[&early, &early, "turbine", &late]);
        let corpus = Corpus { rows: 4.0, mean_len: 20.0 };
        // As in front of the last record, which is being added.
        let chosen = |moment| {
            let texts = index.at(4, moment).unwrap();
            let candidates = terms(&format!("{early} turbine {late}"), CANDIDATES_MAX);
            let chosen = weigh_terms(candidates, &texts, &[texts.scope(1).unwrap()], corpus);
            let told = |term: &Term| (term.word.chars().next().unwrap(), term.rows as u32);
            chosen.iter().map(told).collect::<Vec<_>>()
        };
        assert_eq!(chosen(3), [vec![('t', 1_u32)], vec![('e', 2_u32); TERMS_MAX - 1]].concat());
        assert_eq!(chosen(4), vec![('l', 1_u32); TERMS_MAX]);
    }
}
