//! Text to words: the same for what is indexed and for what is asked.

use unicode_normalization::char::is_combining_mark;
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};

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

/// Singulars that end as plurals do and have plurals of their own.
const SINGULARS_IN_S: &[&str] = &["alias", "atlas", "bias", "canvas", "chaos", "cosmos", "lens", "pancreas"];

/// What a text has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A word.
    Word,
    /// A character of a script without spaces, beside the pairs that are the words of its text: so that it is found alone.
    Character,
}

/// Calls `each` with every word of `text`: runs of letters and digits in lower case, English plurals as their singulars.
/// Scripts without spaces between words give pairs of characters.
pub(crate) fn each_word(text: &str, mut each: impl FnMut(&str)) {
    each_piece(text, |piece, kind| {
        if kind == Piece::Word {
            each(piece);
        }
    });
}

/// The same with every character that a pair is made of.
pub(crate) fn each_piece(text: &str, each: impl FnMut(&str, Piece)) {
    // A letter may be typed together with its marks or apart from them. Nearly every text is as it should be.
    if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        each_of(text.chars(), each);
    } else {
        each_of(text.nfc(), each);
    }
}

fn each_of(text: impl Iterator<Item = char>, mut each: impl FnMut(&str, Piece)) {
    let mut word = String::with_capacity(WORD_BYTES_MAX);
    let mut run = Run::default();
    for c in text {
        if is_unspaced(c) {
            end_of_word(&mut word, &mut each);
            run.add(c, &mut each);
        } else if c.is_ascii_alphanumeric() {
            run.end(&mut each);
            if word.len() < WORD_BYTES_MAX {
                word.push(c.to_ascii_lowercase());
            }
        } else if c.is_alphanumeric() {
            run.end(&mut each);
            for lower in c.to_lowercase() {
                if word.len() + lower.len_utf8() <= WORD_BYTES_MAX && lower.is_alphanumeric() {
                    word.push(lower);
                }
            }
        } else if c.is_ascii() || !is_combining_mark(c) {
            // A mark that is no part of a letter ends no word all the same.
            run.end(&mut each);
            end_of_word(&mut word, &mut each);
        }
    }
    run.end(&mut each);
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

fn end_of_word(word: &mut String, each: &mut impl FnMut(&str, Piece)) {
    if !word.is_empty() {
        if !is_stop_word(word) {
            singular(word);
        }
        each(word, Piece::Word);
        word.clear();
    }
}

/// Characters of scripts without spaces that follow one another.
#[derive(Default)]
struct Run {
    last: Option<char>,
    len: usize,
    pair: String,
}

impl Run {
    fn add(&mut self, c: char, each: &mut impl FnMut(&str, Piece)) {
        if let Some(last) = self.last.replace(c) {
            self.pair.clear();
            self.pair.extend([last, c]);
            each(&self.pair, Piece::Word);
            each(last.encode_utf8(&mut [0; 4]), Piece::Character);
        }
        self.len += 1;
    }

    /// A lone character is a word; in a run the pairs are.
    fn end(&mut self, each: &mut impl FnMut(&str, Piece)) {
        if let Some(last) = self.last.take() {
            let piece = if self.len == 1 { Piece::Word } else { Piece::Character };
            each(last.encode_utf8(&mut [0; 4]), piece);
            self.len = 0;
        }
    }
}

/// Letters of scripts without spaces between words: Chinese, Japanese and Korean, Thai and Lao, Burmese, Khmer.
fn is_unspaced(c: char) -> bool {
    matches!(
        u32::from(c),
        0x0E00..=0x0EFF
            | 0x1000..=0x109F
            | 0x1780..=0x17FF
            | 0x3041..=0x30FF
            | 0x3400..=0x4DBF
            | 0x4E00..=0x9FFF
            | 0xA9E0..=0xA9FF
            | 0xAA60..=0xAA7F
            | 0xAC00..=0xD7A3
            | 0xF900..=0xFAFF
            | 0x2_0000..=0x3_FFFF
    ) && c.is_alphabetic()
}

/// D. Harman's S-stemmer ("How effective is suffixing?", 1991): plurals only, so that few different words become one. Where a plural
/// may be of a singular with an `e` at its end or of one without, as those of `cache` and `match`, both lose it; of `y` and `ie`
/// both are `y`.
fn singular(word: &mut String) {
    if word.len() <= 3 || !word.is_ascii() {
        return;
    }
    let (end, instead) = end_of_singular(word);
    if end.is_empty() {
        return;
    }
    let kept = word.len() - end.len();
    word.truncate(kept);
    word.push_str(instead);
    // Nobody who looks for "cans" means a word that is left out.
    if is_stop_word(word) {
        word.truncate(kept);
        word.push_str(end);
    }
}

/// How a word of more than three letters ends, and how it should.
fn end_of_singular(word: &str) -> (&'static str, &'static str) {
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| word.ends_with(suffix));
    // Singulars of three letters stay as they are, so that plurals of four lose an `s` alone: "tie", "use".
    let is_long = word.len() > 4;
    match word.as_bytes().last() {
        Some(b'e') if ends(&["ie"]) && !ends(&["aie", "eie"]) => ("ie", "y"),
        Some(b'e') if ends(&["se", "xe", "ze", "che", "she", "oe"]) => ("e", ""),
        Some(b's') if ends(&["us", "ss", "is"]) || SINGULARS_IN_S.contains(&word) => ("", ""),
        Some(b's') if is_long && ends(&["ies"]) && !ends(&["aies", "eies"]) => ("ies", "y"),
        Some(b's') if is_long && ends(&["ses", "xes", "zes", "ches", "shes", "oes"]) => ("es", ""),
        Some(b's') => ("s", ""),
        Some(_) | None => ("", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::{Piece, SINGULARS_IN_S, STOP_WORDS, each_piece, each_word, is_stop_word};

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
    fn a_plural_and_its_singular_are_one_word() {
        for (one, many) in [
            ("cache", "caches"),
            ("headache", "headaches"),
            ("match", "matches"),
            ("movie", "movies"),
            ("cookie", "cookies"),
            ("library", "libraries"),
            ("tie", "ties"),
            ("use", "uses"),
            ("case", "cases"),
            ("bus", "buses"),
            ("class", "classes"),
            ("size", "sizes"),
            ("waltz", "waltzes"),
            ("box", "boxes"),
            ("deluxe", "deluxes"),
            ("wish", "wishes"),
            ("hero", "heroes"),
            ("shoe", "shoes"),
            ("alias", "aliases"),
            ("lens", "lenses"),
            ("schema", "schemas"),
            ("database", "databases"),
        ] {
            let mut words = Vec::new();
            each_word(&format!("{one} {many}"), |word| words.push(word.to_owned()));
            assert!(matches!(words.as_slice(), [a, b] if a == b), "{words:?}");
        }
        // What none of them is stays apart, and nothing becomes a word that is left out.
        check(
            "plea please era erase lens ten tense",
            &["plea", "pleas", "era", "eras", "lens", "ten", "tens"],
        );
        check("cans these wills", &["cans", "these", "wills"]);
        assert!(SINGULARS_IN_S.iter().all(|word| word.ends_with('s')));
    }

    #[test]
    fn scripts_without_spaces_give_pairs() {
        check("東京都 x 山", &["東京", "京都", "x", "山"]);
        check("abc東京", &["abc", "東京"]);
        check("ภาษาไทย ๑๒ ລາວ", &["ภา", "าษ", "ษา", "าไ", "ไท", "ทย", "๑๒", "ລາ", "າວ"]);
        // A tone is no letter, and ends no run.
        check("น้ำ", &["นำ"]);
    }

    #[test]
    fn each_character_of_a_pair_is_found_alone_and_counts_as_no_word() {
        let mut pieces = Vec::new();
        each_piece("東京都 山 x", |piece, kind| pieces.push((piece.to_owned(), kind)));
        let characters: Vec<&str> =
            pieces.iter().filter(|(_, kind)| *kind == Piece::Character).map(|(piece, _)| &**piece).collect();
        assert_eq!(characters, ["東", "京", "都"]);
        check("東京都 山 x", &["東京", "京都", "山", "x"]);
    }

    #[test]
    fn letters_are_the_same_however_their_marks_were_typed() {
        check("Cafe\u{301} caf\u{e9}s A\u{308}O\u{308}", &["caf\u{e9}", "caf\u{e9}s", "\u{e4}\u{f6}"]);
        check("か\u{3099}き", &["がき"]);
        // No letter has this mark.
        check("x\u{304}y z", &["xy", "z"]);
    }

    #[test]
    fn stop_words_are_in_order_so_that_they_are_found() {
        assert!(STOP_WORDS.is_sorted());
        assert!(STOP_WORDS.iter().all(|word| is_stop_word(word)));
        assert!(["plot", "", "th", "they're", "東京", "zebra", "1"].iter().all(|word| !is_stop_word(word)));
    }
}
