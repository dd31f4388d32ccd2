//! Answers without a model: the best of what memory knows, verbatim, with where it stands.

use std::fmt::Write as _;

use futures::future::BoxFuture;

use super::words::content_words;
use super::{Answer, Ask, Fact, LanguageModel, ModelError, Pieces, estimate_tokens};

/// Name of the model in answers: it says what it is.
pub const MODEL: &str = "extractive";
/// Facts of one answer at most.
const FACTS_MAX: usize = 3;
/// Lowest cosine of a fact that shares no word with the question. Of questions and facts of every day, those that had
/// nothing to do with each other came to 0.21 at the most, most of the others to 0.24 and more.
const SIMILARITY_MIN: f32 = 0.22;
/// Characters of the question that are repeated.
const QUESTION_CHARS_MAX: usize = 200;

/// The default provider: no network, no key, the same answer to the same question.
#[derive(Debug, Clone)]
pub struct Extractive {
    provider: String,
}

impl Extractive {
    /// A provider of that name.
    pub fn new(provider: &str) -> Self {
        Self { provider: provider.to_owned() }
    }
}

impl LanguageModel for Extractive {
    fn provider(&self) -> &str {
        &self.provider
    }

    fn ask<'a>(&'a self, ask: &'a Ask, pieces: Pieces<'a>) -> BoxFuture<'a, Result<Answer, ModelError>> {
        Box::pin(async move {
            let text = compose(ask);
            pieces(&text);
            Ok(Answer {
                usage: ask.estimate(&text),
                text,
                model: MODEL.to_owned(),
                provider: self.provider.clone(),
                ..Answer::default()
            })
        })
    }
}

/// What memory has to say to the question.
pub(super) fn compose(ask: &Ask) -> String {
    let facts = chosen(ask);
    match facts.as_slice() {
        [] => {
            let question: String = asked(ask).chars().take(QUESTION_CHARS_MAX).collect();
            format!("Nothing in memory about {:?}.", question.trim())
        }
        [fact] => line(fact),
        facts => {
            let mut text = "From memory:".to_owned();
            for fact in facts {
                // Writing to a String does not fail.
                let _ = write!(text, "\n- {}", line(fact));
            }
            text
        }
    }
}

fn asked(ask: &Ask) -> &str {
    let last = || ask.messages.last().map_or("", |message| message.content.as_str());
    if ask.question.is_empty() { last() } else { &ask.question }
}

/// The facts of the answer. A search by meaning always finds something nearest, so a fact that shares a word with the
/// question goes before those that share none, which count only when there is nothing better, and then one alone, if it
/// is near at all.
pub(super) fn chosen(ask: &Ask) -> Vec<&Fact> {
    let question = content_words(asked(ask));
    let mut distinct: Vec<&Fact> = Vec::new();
    for fact in ask.facts.iter().filter(|fact| !fact.text.trim().is_empty()) {
        if !distinct.iter().any(|before| before.text == fact.text && before.entity == fact.entity) {
            distinct.push(fact);
        }
    }
    // The facts come the best first; a stable sort keeps their order among equals whatever the caller did.
    distinct.sort_by(|a, b| b.score.total_cmp(&a.score));
    let shares = |fact: &&&Fact| {
        let mut words = content_words(&fact.text);
        words.extend(content_words(&fact.entity));
        !words.is_disjoint(&question)
    };
    let near: Vec<&Fact> = distinct.iter().filter(shares).copied().take(FACTS_MAX).collect();
    let is_near = |fact: &&Fact| fact.similarity.is_none_or(|cosine| cosine >= SIMILARITY_MIN);
    let mut chosen =
        if near.is_empty() { distinct.into_iter().filter(is_near).take(1).collect() } else { near };
    if let Some(budget) = ask.max_tokens {
        // A fact is whole or not there, and the best one always is.
        let mut used = 0_u32;
        let fits = chosen.iter().take_while(|fact| {
            used = used.saturating_add(estimate_tokens(&line(fact)));
            used <= budget
        });
        let count = fits.count().max(1);
        chosen.truncate(count);
    }
    chosen
}

/// One fact with the entity, where its text does not name it, and with where it stands.
fn line(fact: &Fact) -> String {
    let (entity, text, source) = (fact.entity.trim(), fact.text.trim(), &fact.source);
    let named = entity.is_empty() || text.to_lowercase().contains(&entity.to_lowercase());
    if named { format!("{text} [{source}]") } else { format!("{entity}: {text} [{source}]") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(source: &str, entity: &str, text: &str, score: f32) -> Fact {
        Fact {
            source: source.to_owned(),
            entity: entity.to_owned(),
            text: text.to_owned(),
            score,
            similarity: None,
        }
    }

    /// Given these facts, the question gets this answer.
    #[track_caller]
    fn check(facts: &[Fact], question: &str, max_tokens: Option<u32>, answer: &str) {
        let ask = Ask { facts: facts.to_vec(), question: question.to_owned(), max_tokens, ..Ask::default() };
        assert_eq!(compose(&ask), answer);
    }

    #[test]
    fn the_best_facts_are_quoted_with_their_places() {
        let dune = fact("obs_5", "Dune", "Dune was written by Frank Herbert in 1965.", 0.9);
        let film = fact("obs_9", "Dune", "A film was made in 2021.", 0.7);
        let other = fact("obs_2", "Emma", "A novel by Jane Austen.", 0.5);
        let all = [dune.clone(), film.clone(), other.clone()];
        let quoted = "Dune was written by Frank Herbert in 1965. [obs_5]";
        check(&all[..1], "Who wrote Dune?", None, quoted);
        let both = format!("From memory:\n- {quoted}\n- Dune: A film was made in 2021. [obs_9]");
        check(&all, "Who wrote Dune?", None, &both);
        check(&[film, dune.clone(), dune], "Who wrote Dune?", None, &both);
        check(&all, "Who wrote Dune?", Some(1), quoted);
        check(&[other], "Tell me of books", None, "Emma: A novel by Jane Austen. [obs_2]");
    }

    #[test]
    fn what_is_only_nearest_is_no_answer() {
        let found = |cosine| {
            [Fact { similarity: Some(cosine), ..fact("obs_2", "Emma", "A novel by Jane Austen.", 1.0) }]
        };
        check(&found(0.25), "Tell me of books", None, "Emma: A novel by Jane Austen. [obs_2]");
        check(
            &found(0.04),
            "How tall is Everest?",
            None,
            "Nothing in memory about \"How tall is Everest?\".",
        );
        check(&found(0.04), "Who wrote Emma?", None, "Emma: A novel by Jane Austen. [obs_2]");
    }

    #[test]
    fn what_memory_does_not_know_is_said() {
        check(&[], "Who wrote Dune?", None, "Nothing in memory about \"Who wrote Dune?\".");
        check(&[fact("obs_1", "x", "  ", 1.0)], "a\nb", None, "Nothing in memory about \"a\\nb\".");
        let long = "x".repeat(1_000);
        let answer = format!("Nothing in memory about \"{}\".", &long[..QUESTION_CHARS_MAX]);
        check(&[], &long, None, &answer);
    }

    #[test]
    fn at_most_three_facts_are_told() {
        let many: Vec<Fact> = (0_u8..9)
            .map(|n| fact(&format!("obs_{n}"), "tea", &format!("fact {n}"), f32::from(9 - n)))
            .collect();
        let ask = Ask { facts: many, question: "tea".to_owned(), ..Ask::default() };
        assert_eq!(
            chosen(&ask).iter().map(|fact| fact.source.as_str()).collect::<Vec<_>>(),
            ["obs_0", "obs_1", "obs_2"]
        );
    }
}
