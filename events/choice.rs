//! Small sets of words: enums whose members have one spelling, the same on the wire, in files and in answers.

/// A word that is not in the set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no {what}; use {}", known.join(", "))]
pub struct UnknownWord {
    /// What was given.
    pub found: String,
    /// What the set is of, as in `performative`.
    pub what: &'static str,
    /// The words there are.
    pub known: &'static [&'static str],
}

/// Defines an enum with a word for each member. Words are read in any case, with `-` for `_`.
macro_rules! choice {
    ($(#[$doc:meta])* $what:literal $type:ident { $($(#[$member_doc:meta])* $member:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode,
            serde::Serialize, serde::Deserialize,
        )]
        #[serde(try_from = "String", into = "&'static str")]
        pub enum $type {
            $($(#[$member_doc])* $member,)*
        }

        impl $type {
            /// Every member, in order.
            pub const ALL: &[Self] = &[$(Self::$member,)*];
            /// The words, in the same order.
            pub const WORDS: &[&'static str] = &[$($word,)*];

            /// The member's word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$member => $word,)*
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl From<$type> for &'static str {
            fn from(member: $type) -> Self {
                member.as_str()
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::choice::UnknownWord;

            fn from_str(text: &str) -> Result<Self, $crate::choice::UnknownWord> {
                let same = |word: &str| {
                    word.len() == text.len()
                        && word.bytes().zip(text.bytes()).all(|(word, given)| {
                            let given = if given == b'-' { b'_' } else { given };
                            word.eq_ignore_ascii_case(&given)
                        })
                };
                let at = Self::WORDS.iter().position(|word| same(word));
                at.map(|at| Self::ALL[at]).ok_or_else(|| $crate::choice::UnknownWord {
                    found: text.chars().take(64).collect(),
                    what: $what,
                    known: Self::WORDS,
                })
            }
        }

        impl TryFrom<String> for $type {
            type Error = $crate::choice::UnknownWord;

            fn try_from(text: String) -> Result<Self, $crate::choice::UnknownWord> {
                text.parse()
            }
        }
    };
}

pub(crate) use choice;

#[cfg(test)]
mod tests {
    use crate::conversation::Performative;

    #[test]
    fn a_word_is_read_in_any_case_and_written_in_one() {
        for text in ["ACCEPT_PROPOSAL", "accept_proposal", "accept-proposal", "Accept_Proposal"] {
            assert_eq!(text.parse::<Performative>().map(Performative::as_str), Ok("ACCEPT_PROPOSAL"));
        }
        for text in ["", "ACCEPT", "ACCEPT PROPOSAL", "ACCEPT_PROPOSALS"] {
            let unknown = text.parse::<Performative>().map_err(|error| error.to_string());
            assert!(unknown.is_err_and(|error| error.contains("no performative; use REQUEST, INFORM")));
        }
    }
}
