//! The words of a text that say something, for judging whether two texts speak of the same.

use std::collections::BTreeSet;

/// Words that stand in any text.
const STOP_WORDS: &[&str] = &[
    "a", "about", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be", "been", "being", "but",
    "by", "can", "could", "did", "do", "does", "doing", "for", "from", "had", "has", "have", "having", "he",
    "her", "here", "hers", "him", "his", "how", "i", "if", "in", "into", "is", "it", "its", "just", "me",
    "more", "most", "my", "of", "on", "or", "our", "ours", "out", "please", "she", "should", "so", "some",
    "such", "tell", "than", "that", "the", "their", "theirs", "them", "then", "there", "these", "they",
    "this", "those", "to", "too", "up", "us", "was", "we", "were", "what", "when", "where", "which", "while",
    "who", "whom", "whose", "why", "will", "with", "would", "you", "your", "yours",
];

/// The words of `text` that say something: lower-case, without stop words, plurals like their singulars.
///
/// `not`, `no` and the like are kept: a text that adds one says something else.
pub(super) fn content_words(text: &str) -> BTreeSet<String> {
    let words = text.split(|sign: char| !(sign.is_alphanumeric() || sign == '\''));
    words
        .map(|word| word.trim_matches('\''))
        .filter(|word| !word.is_empty())
        .filter_map(content_word)
        .collect()
}

fn content_word(word: &str) -> Option<String> {
    let word = word.to_lowercase();
    let word = word.strip_suffix("'s").unwrap_or(&word);
    if STOP_WORDS.binary_search(&word).is_ok() {
        return None;
    }
    let plural = word.chars().count() > 3 && word.ends_with('s') && !word.ends_with("ss");
    Some(if plural { &word[..word.len() - 1] } else { word }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_words_are_found_by_binary_search() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn what_says_something_is_left() {
        for (text, words) in [
            ("What is the capital of France?", vec!["capital", "france"]),
            ("Ada's cats are NOT dogs, are they?", vec!["ada", "cat", "dog", "not"]),
            ("It's 42.5 \u{e9}clairs", vec!["42", "5", "\u{e9}clair"]),
            ("glass gas", vec!["gas", "glass"]),
            ("who are you", vec![]),
        ] {
            let found: Vec<String> = content_words(text).into_iter().collect();
            assert_eq!(found, words, "{text}");
        }
    }
}
