//! Keys of providers: read from the environment or from a file, never shown.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Longest key, in bytes.
const KEY_BYTES_MAX: u64 = 8 << 10;
/// Characters of a key by which a part of it is known in a text.
const KNOWN_BY_CHARS: usize = 8;
/// What stands where a key stood.
const HIDDEN: &str = "[secret]";

/// A key. It is shown to nobody: `Debug` and `Display` say `[secret]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Why there is no key. No variant holds a part of one.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The variable is not set, or empty.
    #[error("the variable {name} is not set; export it before the server starts")]
    Unset {
        /// The variable.
        name: String,
    },
    /// The file could not be read.
    #[error("could not read the key in {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others than the owner may read the file.
    #[error("{} can be read by others (mode {mode:03o}); run `chmod 600 {}`", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The text is not a key.
    #[error("what is in {place} is not a key: it must be one line of visible ASCII characters")]
    NotAKey {
        /// The variable or the file.
        place: String,
    },
}

impl Secret {
    /// A key whose text the caller has.
    ///
    /// # Errors
    ///
    /// [`KeyError::NotAKey`], naming `place` as where it came from.
    pub fn new(text: &str, place: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let fits = !text.is_empty() && text.len() as u64 <= KEY_BYTES_MAX;
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(KeyError::NotAKey { place: place.to_owned() })
        }
    }

    /// The key in the variable `name` of `environment`.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when there is none.
    pub fn from_variable(name: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, KeyError> {
        let text = environment(name).filter(|text| !text.trim().is_empty());
        let text = text.ok_or_else(|| KeyError::Unset { name: name.to_owned() })?;
        Self::new(&text, name)
    }

    /// The key in the file `path`, which only its owner may read.
    ///
    /// # Errors
    ///
    /// [`KeyError`] when there is none, or when others may read it.
    pub fn from_file(path: &Path) -> Result<Self, KeyError> {
        use std::io::Read as _;
        let unreadable = |source| KeyError::Unreadable { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        // Asked of the open file: the name may lead elsewhere a moment later.
        check_mode(path, &file.metadata().map_err(unreadable)?)?;
        let mut text = String::new();
        file.take(KEY_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        Self::new(&text, &path.display().to_string())
    }

    /// The key itself, for the one header that carries it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// `text` without this key and without words that share its beginning, as providers show keys that they refuse.
    pub(crate) fn scrub(&self, text: &str) -> String {
        let text = text.replace(&self.0, HIDDEN);
        let Some(beginning) = self.0.get(..KNOWN_BY_CHARS) else { return text };
        let mut clean = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = rest.find(beginning) {
            let (before, found) = rest.split_at(at);
            clean.push_str(before);
            clean.push_str(HIDDEN);
            let end = found.find(|sign: char| !(sign.is_ascii_graphic())).unwrap_or(found.len());
            rest = &found[end..];
        }
        clean.push_str(rest);
        clean
    }
}

#[cfg(unix)]
fn check_mode(path: &Path, metadata: &std::fs::Metadata) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt as _;
    // The lowest six bits are what group and others may do.
    let mode = metadata.permissions().mode() & 0o777;
    if mode.trailing_zeros() >= 6 { Ok(()) } else { Err(KeyError::Exposed { path: path.to_owned(), mode }) }
}

#[cfg(not(unix))]
fn check_mode(_: &Path, _: &std::fs::Metadata) -> Result<(), KeyError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let secret = Secret::new("sk-live-0123456789\n", "here").unwrap();
        assert_eq!(secret.expose(), "sk-live-0123456789");
        for shown in [format!("{secret}"), format!("{secret:?}"), format!("{:?}", Some(&secret))] {
            assert!(!shown.contains("sk-"), "{shown}");
        }
        for (text, clean) in [
            ("bad key sk-live-0123456789.", "bad key [secret]."),
            ("bad key sk-live-****6789, sorry", "bad key [secret] sorry"),
            ("nothing here: sk-", "nothing here: sk-"),
        ] {
            assert_eq!(secret.scrub(text), clean);
        }
    }

    #[test]
    fn a_variable_must_hold_one_line() {
        let environment = |name: &str| match name {
            "GOOD" => Some(" k1 \n".to_owned()),
            "EMPTY" => Some("  ".to_owned()),
            "TWO" => Some("top secret".to_owned()),
            _ => None,
        };
        let read = |name: &str| Secret::from_variable(name, &environment);
        assert_eq!(read("GOOD").unwrap().expose(), "k1");
        assert!(matches!(read("NONE"), Err(KeyError::Unset { .. })));
        assert!(matches!(read("EMPTY"), Err(KeyError::Unset { .. })));
        let error = read("TWO").unwrap_err().to_string();
        assert!(error.contains("TWO") && !error.contains("top"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "sk-1\n").unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o660, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = Secret::from_file(&path);
            assert_eq!(read.is_ok(), good, "{mode:o}");
            if let Err(error) = read {
                assert!(error.to_string().contains("chmod 600"), "{error}");
            }
        }
        assert!(matches!(Secret::from_file(&dir.path().join("none")), Err(KeyError::Unreadable { .. })));
    }
}
