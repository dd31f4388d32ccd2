//! Text to words: the same for what is indexed and for what is asked.

/// Longest word kept, in bytes; the rest of a longer one is cut off.
const WORD_BYTES_MAX: usize = 64;

/// Words too frequent in English to tell rows apart, in order.
const STOP_WORDS: &[&str] = &[
    "a", "about", "after", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be", "because",
    "been", "before", "being", "but", "by", "can", "could", "d", "did", "do", "does", "doing", "don", "for",
    "from", "had", "has", "have", "having", "he", "her", "here", "hers", "him", "his", "how", "i", "if",
    "in", "into", "is", "it", "its", "just", "ll", "m", "me", "more", "most", "my", "no", "nor", "not", "of",
    "on", "or", "other", "our", "out", "over", "re", "s", "she", "should", "so", "some", "such", "t", "than",
    "that", "the", "their", "them", "then", "there", "these", "they", "this", "those", "to", "too", "up",
    "ve", "very", "was", "we", "were", "what", "when", "where", "which", "who", "whom", "why", "will",
    "with", "would", "you", "your",
];

/// Calls `each` with every word of `text`: runs of letters and digits in lower case, English plurals in the singular.
/// Scripts without spaces between words give pairs of characters.
pub(crate) fn each_word(text: &str, mut each: impl FnMut(&str)) {
    let mut word = String::with_capacity(WORD_BYTES_MAX);
    let mut last_unspaced = None;
    let mut unspaced_run = 0_usize;
    let mut pair = String::with_capacity(8);
    for c in text.chars() {
        if is_unspaced(c) {
            end_of_word(&mut word, &mut each);
            if let Some(last) = last_unspaced {
                pair.clear();
                pair.extend([last, c]);
                each(&pair);
            }
            last_unspaced = Some(c);
            unspaced_run += 1;
            continue;
        }
        end_of_run(&mut last_unspaced, &mut unspaced_run, &mut each);
        if c.is_ascii_alphanumeric() {
            if word.len() < WORD_BYTES_MAX {
                word.push(c.to_ascii_lowercase());
            }
        } else if c.is_alphanumeric() {
            for lower in c.to_lowercase() {
                if word.len() + lower.len_utf8() <= WORD_BYTES_MAX && lower.is_alphanumeric() {
                    word.push(lower);
                }
            }
        } else {
            end_of_word(&mut word, &mut each);
        }
    }
    end_of_run(&mut last_unspaced, &mut unspaced_run, &mut each);
    end_of_word(&mut word, &mut each);
}

/// Whether `word`, as [`each_word`] gives it, is kept out of contents and queries.
pub(crate) fn is_stop_word(word: &str) -> bool {
    let Some(letter @ b'a'..=b'z') = word.bytes().next() else { return false };
    let place = usize::from(letter - b'a');
    let (Some(&from), Some(&to)) = (STARTS.get(place), STARTS.get(place + 1)) else { return false };
    STOP_WORDS.get(from..to).is_some_and(|words| words.contains(&word))
}

/// Where the stop words of each letter begin. Every word of every text is looked up: a search over all of them took an
/// eighth of a rebuild.
const STARTS: [usize; 27] = starts();

const fn starts() -> [usize; 27] {
    let mut starts = [0; 27];
    let mut letter = 0;
    while letter < 26 {
        let mut end = starts[letter];
        while end < STOP_WORDS.len() && STOP_WORDS[end].as_bytes()[0] == b'a' + letter as u8 {
            end += 1;
        }
        letter += 1;
        starts[letter] = end;
    }
    starts
}

fn end_of_word(word: &mut String, each: &mut impl FnMut(&str)) {
    if !word.is_empty() {
        if !is_stop_word(word) {
            singular(word);
        }
        each(word);
        word.clear();
    }
}

/// A lone character of such a script is a word; in a run the pairs are.
fn end_of_run(last: &mut Option<char>, run: &mut usize, each: &mut impl FnMut(&str)) {
    if let Some(c) = last.take()
        && *run == 1
    {
        each(c.encode_utf8(&mut [0; 4]));
    }
    *run = 0;
}

/// Chinese, Japanese and Korean characters.
fn is_unspaced(c: char) -> bool {
    matches!(
        u32::from(c),
        0x3041..=0x30FF | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xAC00..=0xD7A3 | 0xF900..=0xFAFF | 0x2_0000..=0x3_FFFF
    ) && c.is_alphanumeric()
}

/// D. Harman's S-stemmer ("How effective is suffixing?", 1991): plurals only, so that few different words become one.
fn singular(word: &mut String) {
    if word.len() <= 3 || !word.is_ascii() || !word.ends_with('s') {
        return;
    }
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| word.ends_with(suffix));
    if ends(&["ies"]) {
        if !ends(&["eies", "aies"]) {
            word.truncate(word.len() - 3);
            word.push('y');
        }
    } else if ends(&["xes", "ches", "shes", "sses"]) {
        word.truncate(word.len() - 2);
    } else if !ends(&["us", "ss", "is"]) {
        word.truncate(word.len() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::{STOP_WORDS, each_word, is_stop_word};

    #[track_caller]
    fn check(text: &str, then: &[&str]) {
        let mut words = Vec::new();
        each_word(text, |word| words.push(word.to_owned()));
        assert_eq!(words, then, "{text:?}");
    }

    #[test]
    fn words_are_runs_of_letters_and_digits_in_lower_case() {
        check("", &[]);
        check("Draw a plot, from: a TERMINAL!", &["draw", "a", "plot", "from", "a", "terminal"]);
        check("x86_64-linux.gnu", &["x86", "64", "linux", "gnu"]);
        check("\u{0}\"*:^NEAR(a b)", &["near", "a", "b"]);
        check("Ünïcode ÄÖ", &["ünïcode", "äö"]);
        check(&"x".repeat(300), &["x".repeat(64).as_str()]);
    }

    #[test]
    fn plurals_become_singulars() {
        check("plots libraries boxes matches classes", &["plot", "library", "box", "match", "class"]);
        check("glass bus is this analysis gas", &["glass", "bus", "is", "this", "analysis", "gas"]);
    }

    #[test]
    fn scripts_without_spaces_give_pairs() {
        check("東京都 x 山", &["東京", "京都", "x", "山"]);
        check("abc東京", &["abc", "東京"]);
    }

    #[test]
    fn stop_words_are_in_order_so_that_they_are_found() {
        assert!(STOP_WORDS.is_sorted());
        assert!(STOP_WORDS.iter().all(|word| is_stop_word(word)));
        assert!(["plot", "", "th", "they're", "東京", "zebra", "1"].iter().all(|word| !is_stop_word(word)));
    }
}
