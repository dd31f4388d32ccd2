//! API keys: made at random, kept only as hashes, compared in constant time.
//!
//! A key is 32 random bytes, so one round of SHA-256 is the right hash: a slow password hash defends secrets that
//! can be guessed, and 2²⁵⁶ keys cannot. What leaks with the file of hashes is the names.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use super::document::{Document, Node, Yaml};
use super::paths::resolved;
use super::problem::{Problem, Source};
use super::setting::{Limits, Setting, Wrong, keys};

/// What every key begins with, so that scanners for leaked secrets know it.
pub const KEY_PREFIX: &str = "cax_live_";
/// Random bytes of a key.
const KEY_BYTES: usize = 32;
/// Longest text that is looked at as a key, in bytes.
const KEY_TEXT_BYTES_MAX: usize = 512;
/// Keys of one server at most: each request is compared with all of them.
pub const KEYS_MAX: usize = 10_000;
/// What every written hash begins with.
const HASH_PREFIX: &str = "sha256:";

/// The SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of the whole text of a key.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HASH_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A text that is not a hash of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not `sha256:` and 64 hexadecimal digits")]
pub struct HashError;

impl FromStr for KeyHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let digits = text.strip_prefix(HASH_PREFIX).ok_or(HashError)?;
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(HashError);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| HashError)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| HashError)?;
        }
        Ok(Self(hash))
    }
}

/// Names of keys with the hashes of the keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyHashes(BTreeMap<String, KeyHash>);

impl KeyHashes {
    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The name of the key whose hash is that of `key`, or `None`.
    ///
    /// The time taken depends on the number of keys and the length of `key` alone: every hash is compared in full.
    pub fn verify(&self, key: &str) -> Option<&str> {
        if key.len() > KEY_TEXT_BYTES_MAX {
            return None;
        }
        let given = KeyHash::of(key);
        let mut found = u64::MAX;
        for (index, known) in (0_u64..).zip(self.0.values()) {
            let same: Choice = known.0.ct_eq(&given.0);
            found.conditional_assign(&index, same);
        }
        self.0.keys().nth(usize::try_from(found).ok()?).map(String::as_str)
    }

    /// Adds the key `name`; `false` when the name is taken, and then nothing changes.
    pub fn insert(&mut self, name: String, hash: KeyHash) -> bool {
        if self.0.contains_key(&name) {
            return false;
        }
        self.0.insert(name, hash);
        true
    }

    /// Adds all of `other`; the first name that both have is an error.
    fn merge(&mut self, other: Self) -> Result<(), String> {
        for (name, hash) in other.0 {
            if !self.insert(name.clone(), hash) {
                return Err(name);
            }
        }
        Ok(())
    }
}

/// A new key. Its text is shown once and kept nowhere.
#[derive(Clone)]
pub struct NewKey {
    /// What the client sends: `cax_live_` and 43 characters.
    pub key: String,
    /// What the server keeps.
    pub hash: KeyHash,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("hash", &self.hash).finish_non_exhaustive()
    }
}

/// Why no key could be made.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct CreateError(#[source] getrandom::Error);

/// Makes a key from the system's random source.
///
/// ```
/// let new = caxton::config::create_key()?;
/// let mut keys = caxton::config::KeyHashes::default();
/// keys.insert("ada".to_owned(), new.hash);
/// assert_eq!(keys.verify(&new.key), Some("ada"));
/// assert_eq!(keys.verify("cax_live_guess"), None);
/// # Ok::<(), caxton::config::CreateError>(())
/// ```
///
/// # Errors
///
/// [`CreateError`] when the system has no random bytes.
pub fn create_key() -> Result<NewKey, CreateError> {
    let mut random = [0; KEY_BYTES];
    getrandom::fill(&mut random).map_err(CreateError)?;
    let key = format!("{KEY_PREFIX}{}", base64_url(&random));
    let hash = KeyHash::of(&key);
    Ok(NewKey { key, hash })
}

/// Base 64 for URLs, without padding.
fn base64_url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(*chunk.get(at).unwrap_or(&0)));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}

impl Setting for KeyHashes {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        let wrong = |node: &Node, below: String, message: String| Wrong {
            node: node.id,
            below,
            message,
            remedy: "write `name: sha256:` and 64 hexadecimal digits; `caxton key create NAME` prints both"
                .to_owned(),
        };
        let none = Vec::new();
        let entries = if node.value == Yaml::Null {
            &none
        } else if let Yaml::Map(entries) = &node.value {
            entries
        } else {
            let message = format!("this is not {}", self.takes(limits));
            return Err(wrong(node, String::new(), message));
        };
        let mut hashes = Self::default();
        for entry in entries {
            let below = format!(".{}", entry.key);
            let Yaml::Text(text) = &entry.value.value else {
                return Err(wrong(&entry.value, below, "this is not the hash of a key".to_owned()));
            };
            // The text itself is not repeated: it may be a key that was pasted by mistake.
            let hash = text.parse().map_err(|_| {
                wrong(&entry.value, below.clone(), "this is not the hash of a key".to_owned())
            })?;
            if !hashes.insert(entry.key.clone(), hash) {
                return Err(wrong(&entry.value, below, format!("the key {} is given twice", entry.key)));
            }
        }
        if hashes.len() > KEYS_MAX {
            let message = format!("there are {} keys, the limit is {KEYS_MAX}", hashes.len());
            return Err(wrong(node, String::new(), message));
        }
        *self = hashes;
        Ok(())
    }

    fn show(&self) -> serde_json::Value {
        self.0.iter().map(|(name, hash)| (name.clone(), json!(hash.to_string()))).collect()
    }

    fn takes(&self, _: Limits) -> String {
        "a map of names to `sha256:<hex>`".to_owned()
    }
}

keys!(KeyHashes);

/// Reads a file of keys, one `name: sha256:<hex>` a line (a YAML map), and adds those given in place.
///
/// # Errors
///
/// A [`Problem`] that names the file, and the line where there is one.
pub(crate) fn read_keys_file(path: &Path, in_place: KeyHashes) -> Result<KeyHashes, Box<Problem>> {
    let source = Source::File(path.to_owned());
    let problem =
        |message: String, remedy: &str| Problem::new(source.clone(), "auth.keys_file", message, remedy);
    let text = std::fs::read_to_string(path).map_err(|error| {
        let message = format!("could not read the keys in {}: {error}", resolved(path).display());
        problem(message, "check the path and its permissions")
    })?;
    let document = Document::parse(&text).map_err(|error| {
        let place = error.place;
        problem(error.message, "write one `name: sha256:<hex>` a line").at(place)
    })?;
    let mut hashes = KeyHashes::default();
    hashes.set(&document.root, Limits::Any).map_err(|wrong| {
        let place = document.place(wrong.node);
        let key = format!("auth.keys_file{}", wrong.below);
        Problem::new(source.clone(), &key, wrong.message, &wrong.remedy).at(place)
    })?;
    if hashes.is_empty() {
        // Whoever names a file wants keys: without one, everybody would come in.
        let message = format!("{} holds no key", resolved(path).display());
        let remedy =
            "put a key in it with `caxton key create NAME --keys-file FILE`, or leave auth.keys_file out";
        return Err(Box::new(problem(message, remedy)));
    }
    hashes.merge(in_place).map_err(|name| {
        problem(format!("the key {name} is in this file and in auth.keys"), "give each key its own name")
    })?;
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::*;

    #[test]
    fn a_new_key_is_known_by_its_hash_alone() {
        let (ada, bob) = (create_key().unwrap(), create_key().unwrap());
        let mut keys = KeyHashes::default();
        assert!(keys.insert("ada".to_owned(), ada.hash));
        assert!(keys.insert("bob".to_owned(), bob.hash));
        assert!(!keys.insert("bob".to_owned(), ada.hash), "a name is given once");
        assert_eq!(keys.verify(&ada.key), Some("ada"));
        assert_eq!(keys.verify(&bob.key), Some("bob"));
        for wrong in ["", "cax_live_", &ada.key[1..], &format!("{} ", ada.key), &"x".repeat(1_000_000)] {
            assert_eq!(keys.verify(wrong), None);
        }
        assert_eq!(ada.key.len(), KEY_PREFIX.len() + 43);
        assert!(!format!("{ada:?}").contains(&ada.key), "a key is not logged");
    }

    #[test]
    fn a_hash_reads_back_as_it_prints() {
        let hash = KeyHash::of("cax_live_x");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        let short = &hash.to_string()[..70];
        for text in
            ["", "sha256:", short, "sha256:zz", &hash.to_string().replace("sha256", "md5"), &"é".repeat(35)]
        {
            assert_eq!(text.parse::<KeyHash>(), Err(HashError), "{text}");
        }
    }

    #[test]
    fn base_64_is_that_of_rfc_4648() {
        for (bytes, text) in [("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64_url(bytes.as_bytes()), text);
        }
        assert_eq!(base64_url(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn a_file_of_keys_is_read_with_comments_and_its_faults_have_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.yaml");
        let hash = KeyHash::of("cax_live_x");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_keys_file(&path, KeyHashes(BTreeMap::from([("bob".to_owned(), hash)])))
        };
        let keys = read(&format!("# people\nada: {hash}\n")).unwrap();
        assert_eq!(keys.names().collect::<Vec<_>>(), ["ada", "bob"]);
        for (text, line, words) in [
            ("ada: cax_live_secret\n", Some(1), "not the hash"),
            (&format!("ada: {hash}\nada: {hash}\n"), Some(2), "twice"),
            (&format!("bob: {hash}\n"), None, "bob"),
            ("- ada\n", Some(1), "this is not a map"),
            ("", None, "keys.yaml holds no key"),
            ("\n# people\n\n", None, "or leave auth.keys_file out"),
            ("{}\n", None, "holds no key"),
        ] {
            let problem = read(text).unwrap_err();
            assert_eq!(problem.place.map(|place| place.line), line, "{problem}");
            assert!(problem.to_string().contains(words), "{problem}");
            assert!(!problem.to_string().contains("secret"), "{problem}");
        }
    }
}
