//! Whether a sentence says only what facts say.

use crate::llm::Fact;
use crate::llm::words::content_words;

/// Words that turn a statement around.
const NEGATIONS: &[&str] =
    &["not", "no", "never", "none", "nobody", "nothing", "neither", "nor", "without", "cannot"];

/// `said` with the places of the facts that bear it out; `None` when a part of it stands in none of them.
pub(super) fn cited(said: &str, facts: &[&Fact]) -> Option<String> {
    let said = said.trim();
    let mut cited: Vec<&str> = Vec::new();
    for sentence in sentences(said) {
        let fact = facts.iter().find(|fact| bears_out(fact, sentence))?;
        if !cited.contains(&fact.source.as_str()) {
            cited.push(&fact.source);
        }
    }
    if cited.is_empty() {
        return None;
    }
    Some(format!("{said} [{}]", cited.join("][")))
}

/// The sentences of a text. A full stop inside a number or a name does not end one.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let ends = |text: &str| text.ends_with(['.', '!', '?', ':', ';']);
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let mut at = 0;
        for word in rest.split_inclusive(char::is_whitespace) {
            at += word.len();
            if ends(word.trim_end()) || word.ends_with('\n') {
                break;
            }
        }
        let (sentence, behind) = rest.split_at(at);
        rest = behind;
        (!sentence.is_empty()).then_some(sentence)
    })
}

/// Whether every word of the sentence that says something stands in the fact, in the order in which the fact has them
/// (`Ada manages Bob` does not bear out `Bob manages Ada`), and neither of the two denies what the other says.
fn bears_out(fact: &Fact, sentence: &str) -> bool {
    let told = format!("{} {}", fact.entity, fact.text);
    let (said_words, told_words) = (content_words(sentence), content_words(&told));
    let denies = |words: &std::collections::BTreeSet<String>| {
        NEGATIONS.iter().any(|word| words.contains(*word)) || words.iter().any(|word| word.ends_with("n't"))
    };
    !said_words.is_empty()
        && said_words.is_subset(&told_words)
        && denies(&said_words) == denies(&told_words)
        && in_order(sentence, &told)
}

/// Whether the words of `sentence` come one after the other in `told`.
fn in_order(sentence: &str, told: &str) -> bool {
    let sequence = |text: &str| -> Vec<String> {
        text.split_whitespace().flat_map(|word| content_words(word).into_iter().collect::<Vec<_>>()).collect()
    };
    let told = sequence(told);
    let mut rest = told.iter();
    sequence(sentence).iter().all(|word| rest.any(|next| next == word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(said: &str, answer: Option<&str>) {
        let fact = |source: &str, entity: &str, text: &str| Fact {
            source: source.to_owned(),
            entity: entity.to_owned(),
            text: text.to_owned(),
            score: 1.0,
            similarity: None,
        };
        let facts = [
            fact("obs_1", "Ada", "manages Bob and 3.5 teams in Paris"),
            fact("obs_2", "Bob", "Bob does not like green tea."),
        ];
        let facts: Vec<&Fact> = facts.iter().collect();
        assert_eq!(cited(said, &facts).as_deref(), answer, "{said}");
    }

    #[test]
    fn only_what_the_facts_say_is_believed() {
        check("Ada manages Bob.", Some("Ada manages Bob. [obs_1]"));
        check(" Ada is in Paris.\n", Some("Ada is in Paris. [obs_1]"));
        check(
            "Ada manages 3.5 teams. Bob does not like tea.",
            Some("Ada manages 3.5 teams. Bob does not like tea. [obs_1][obs_2]"),
        );
        check("Bob likes green tea.", None);
        check("Bob like green tea.", None);
        check("Bob manages Ada.", None);
        check("Ada manages Bob in London.", None);
        check("Ada manages 3 teams.", Some("Ada manages 3 teams. [obs_1]"));
        check("Ada manages 4.5 teams.", None);
        check("Ada does not manage Bob.", None);
        check("Ada manages Bob. I am happy to help!", None);
        check("Ada manages green tea.", None);
        check("Yes, it is.", None);
        check("", None);
    }
}
