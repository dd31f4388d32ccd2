//! `KEY=VALUE`: a key of the configuration, set on the command line.

use std::fmt;

/// A key with the value that it is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct KeyValue {
    /// Its name, or an alias. Whether there is one is known when the configuration is loaded.
    pub(in crate::cli) key: String,
    /// As it would stand in a file.
    pub(in crate::cli) value: String,
}

impl KeyValue {
    /// What was typed. A value may have the sign in it.
    pub(super) fn typed(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok(Self { key: key.trim().to_owned(), value: value.to_owned() })
            }
            Some(_) | None => Err("write KEY=VALUE, as in memory.sqlite_config.synchronous=full; `caxton config explain` lists \
                                   the keys"
                .to_owned()),
        }
    }
}

impl fmt::Display for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::KeyValue;

    #[test]
    fn the_first_sign_ends_the_key() {
        let typed = |text| KeyValue::typed(text).map(|set| (set.key, set.value));
        let is = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(typed("a.b=c"), is("a.b", "c"));
        assert_eq!(typed(" a.b = c=d"), is("a.b", " c=d"));
        assert_eq!(typed("a.b="), is("a.b", ""));
        for wrong in ["", "a.b", "=c", " =c"] {
            assert!(typed(wrong).is_err_and(|told| told.starts_with("write KEY=VALUE")), "{wrong}");
        }
    }
}
