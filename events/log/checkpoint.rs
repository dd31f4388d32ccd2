//! Signed heads: a text that says how a log ends, and that whoever has the key said so.
//!
//! The form is that of C2SP's signed notes and checkpoints (c2sp.org/signed-note, c2sp.org/tlog-checkpoint), so that their
//! tools check the signature and witnesses can add theirs:
//!
//! ```text
//! caxton/log/<log id, hex>                the log's name
//! 11                                      events in it
//! mBZ1kYTDS7zDBgOlXi7CH5H+…=              Merkle root, base64
//! time 2026-11-28T14:05:06.000000Z        when the last of them was recorded
//!
//! — caxton/log/<log id, hex> Aq3x…        base64 of | key id: 4 | ed25519 signature of the lines before: 64 |
//! ```
//!
//! The key id is the front of SHA-256 over `| name | "\n" | 1 | public key: 32 |`. A public key as text is
//! `<name>+<key id, hex>+<base64 of | 1 | public key: 32 |>`. The root is one of BLAKE3's: see
//! [`chain`](crate::log::chain).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::ed25519::signature::Signer as _;
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};

use crate::id::Seq;
use crate::log::chain::Hash;
use crate::log::header::array;
use crate::log::reader::Head;
use crate::time::Timestamp;

const NAME: &str = "caxton/log/";
const TIME: &str = "time ";
/// The number of ed25519 in signed notes.
const ALGORITHM: u8 = 1;
const KEY_ID_BYTES: usize = 4;
const KEY_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;
/// Signatures that a checkpoint may carry: that of the log and those of witnesses.
pub const SIGNATURES_MAX: usize = 16;
/// Longest checkpoint that is read, in bytes.
pub const CHECKPOINT_BYTES_MAX: usize = 16 << 10;

/// How a log ended at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's id.
    pub log_id: [u8; 16],
    /// Its size, root, and the time of its last event.
    pub head: Head,
}

/// A checkpoint with the signature of its log, and perhaps of witnesses.
///
/// Its text form is written and read without loss; there is one text for each value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What is signed.
    pub checkpoint: Checkpoint,
    signatures: Vec<NoteSignature>,
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NoteSignature {
    name: String,
    /// Key id and signature.
    bytes: Vec<u8>,
}

/// The key a log signs its heads with. It prints without its secret.
#[derive(Clone)]
pub struct Signer {
    log_id: [u8; 16],
    key: SigningKey,
}

/// What signatures of a log are checked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    log_id: [u8; 16],
    key: VerifyingKey,
}

/// Why a text is no checkpoint or no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not a checkpoint at all.
    #[error("this is no checkpoint of a log: {0}")]
    Checkpoint(&'static str),
    /// Not a public key.
    #[error("this is no public key of a log: {0}; it looks like caxton/log/<id>+<8 hex digits>+<base64>")]
    PublicKey(&'static str),
}

/// Why a checkpoint does not speak for its log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The checkpoint is about another log than the key's.
    #[error("the checkpoint is of the log {checkpoint}, the key of {key}")]
    OtherLog {
        /// Name in the checkpoint.
        checkpoint: String,
        /// Name of the key.
        key: String,
    },
    /// No signature by this key.
    #[error("the checkpoint is not signed by the key {key}")]
    Unsigned {
        /// The key's id, hex.
        key: String,
    },
    /// The signature is not that of this text.
    #[error("the signature does not match the checkpoint: its size, root, time or signature was changed")]
    Signature,
}

impl Checkpoint {
    /// The log's name: `caxton/log/` and its id.
    pub fn name(&self) -> String {
        name(&self.log_id)
    }
}

/// The name of the log with this id.
pub(crate) fn name(log_id: &[u8; 16]) -> String {
    format!("{NAME}{:032x}", u128::from_be_bytes(*log_id))
}

/// The id in a name as [`name`] writes it.
fn parse_name(text: &str) -> Option<[u8; 16]> {
    let digits = text.strip_prefix(NAME)?;
    let log_id = u128::from_str_radix(digits, 16).ok()?.to_be_bytes();
    (name(&log_id) == text).then_some(log_id)
}

fn key_id(name: &str, key: &VerifyingKey) -> [u8; KEY_ID_BYTES] {
    let mut hasher = Sha256::new();
    hasher.update(name);
    hasher.update([b'\n', ALGORITHM]);
    hasher.update(key.as_bytes());
    array(&hasher.finalize()[..KEY_ID_BYTES])
}

fn hex(id: [u8; KEY_ID_BYTES]) -> String {
    format!("{:08x}", u32::from_be_bytes(id))
}

/// What is signed: the lines before the empty one.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Head { seq, root, recorded_at } = self.head;
        writeln!(f, "{}\n{}\n{}", self.name(), seq.0, BASE64_STANDARD.encode(root.0))?;
        writeln!(f, "{TIME}{recorded_at}")
    }
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.checkpoint)?;
        self.signatures
            .iter()
            .try_for_each(|one| writeln!(f, "— {} {}", one.name, BASE64_STANDARD.encode(&one.bytes)))
    }
}

impl FromStr for SignedCheckpoint {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let unfit = NoteError::Checkpoint;
        if text.len() > CHECKPOINT_BYTES_MAX {
            return Err(unfit("it is too long"));
        }
        let (note, signatures) =
            text.split_once("\n\n").ok_or(unfit("it has no empty line before its signatures"))?;
        let lines: Vec<&str> = note.split('\n').collect();
        let [name, size, root, time] = lines[..] else {
            return Err(unfit("it has not the four lines of name, size, root and time"));
        };
        let log_id = parse_name(name).ok_or(unfit("its first line is no caxton/log/<id>"))?;
        let seq = Seq(size.parse().map_err(|_| unfit("its second line is no number of events"))?);
        let root = BASE64_STANDARD.decode(root).ok().filter(|root| root.len() == 32);
        let root = Hash(array(&root.ok_or(unfit("its third line is no root of 32 bytes in base64"))?));
        let recorded_at = time.strip_prefix(TIME).and_then(|time| time.parse().ok());
        let recorded_at: Timestamp = recorded_at.ok_or(unfit("its fourth line is no time"))?;
        let checkpoint = Checkpoint { log_id, head: Head { seq, root, recorded_at } };
        let signatures = parse_signatures(signatures)?;
        let signed = Self { checkpoint, signatures };
        // One text for each value: what reads the same must not look different.
        if signed.to_string() == text {
            Ok(signed)
        } else {
            Err(unfit("it is not written as checkpoints are"))
        }
    }
}

fn parse_signatures(lines: &str) -> Result<Vec<NoteSignature>, NoteError> {
    let unfit = NoteError::Checkpoint;
    let parse = |line: &str| {
        let (name, bytes) = line.strip_prefix("— ")?.split_once(' ')?;
        let bytes = BASE64_STANDARD.decode(bytes).ok().filter(|bytes| bytes.len() > KEY_ID_BYTES)?;
        Some(NoteSignature { name: name.to_owned(), bytes })
    };
    let signatures: Option<Vec<_>> = lines.lines().map(parse).collect();
    let signatures = signatures.ok_or(unfit("a signature line is not \"— name base64\""))?;
    match signatures.len() {
        1..=SIGNATURES_MAX => Ok(signatures),
        0 => Err(unfit("it has no signature")),
        _ => Err(unfit("it has too many signatures")),
    }
}

impl SignedCheckpoint {
    /// Checks that the log's key signed this checkpoint. Signatures of others are passed over.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] says what does not fit.
    pub fn check(&self, key: &PublicKey) -> Result<(), CheckpointError> {
        let (name, id) = (key.name(), key.id());
        if self.checkpoint.log_id != key.log_id {
            return Err(CheckpointError::OtherLog { checkpoint: self.checkpoint.name(), key: name });
        }
        let ours = self.signatures.iter().find(|one| one.name == name && one.bytes.starts_with(&id));
        let ours = ours.ok_or_else(|| CheckpointError::Unsigned { key: hex(id) })?;
        let signature =
            Signature::from_slice(&ours.bytes[KEY_ID_BYTES..]).map_err(|_| CheckpointError::Signature)?;
        // Strict: a weak key, with which a signature fits several texts, is refused.
        let text = self.checkpoint.to_string();
        key.key.verify_strict(text.as_bytes(), &signature).map_err(|_| CheckpointError::Signature)
    }
}

impl Signer {
    /// The signer of the log with this id, from the 32 secret bytes of its key.
    pub fn new(log_id: [u8; 16], secret: &[u8; KEY_BYTES]) -> Self {
        Self { log_id, key: SigningKey::from_bytes(secret) }
    }

    /// What its signatures are checked with.
    pub fn public_key(&self) -> PublicKey {
        PublicKey { log_id: self.log_id, key: self.key.verifying_key() }
    }

    /// Signs a head. The same head has the same signature at each call.
    ///
    /// ```
    /// use caxton_events::log::{Head, Signer};
    ///
    /// let signer = Signer::new([7; 16], &[1; 32]);
    /// let signed = signer.sign(Head::default());
    /// assert_eq!(signed.check(&signer.public_key()), Ok(()));
    /// assert_eq!(signed.to_string().parse(), Ok(signed));
    /// ```
    pub fn sign(&self, head: Head) -> SignedCheckpoint {
        let checkpoint = Checkpoint { log_id: self.log_id, head };
        let key = self.public_key();
        let mut bytes = key.id().to_vec();
        bytes.reserve_exact(SIGNATURE_BYTES);
        bytes.extend_from_slice(&self.key.sign(checkpoint.to_string().as_bytes()).to_bytes());
        SignedCheckpoint { checkpoint, signatures: vec![NoteSignature { name: key.name(), bytes }] }
    }
}

/// Why a signed text does not speak for its log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedTextError {
    /// It has no text and no signature lines behind an empty line.
    #[error("this is no signed text: it has no signature lines behind an empty line")]
    Form,
    /// No signature by this key.
    #[error("the text is not signed by the key {key}")]
    Unsigned {
        /// The key's id, hex.
        key: String,
    },
    /// The signature is not that of this text.
    #[error("the signature does not match the text: something in it was changed")]
    Signature,
}

impl Signer {
    /// Signs a text of lines, as a note in the form of <https://c2sp.org/signed-note>. Its first line must say what it is,
    /// so that no signature serves for another kind of text.
    pub fn sign_text(&self, text: &str) -> String {
        let key = self.public_key();
        let mut bytes = key.id().to_vec();
        bytes.extend_from_slice(&self.key.sign(text.as_bytes()).to_bytes());
        format!("{text}\n— {} {}\n", key.name(), BASE64_STANDARD.encode(bytes))
    }
}

impl PublicKey {
    /// The text of a note that this key signed.
    ///
    /// # Errors
    ///
    /// [`SignedTextError`] says what does not fit.
    pub fn check_text<'a>(&self, note: &'a str) -> Result<&'a str, SignedTextError> {
        let at = note.rfind("\n\n").ok_or(SignedTextError::Form)?;
        let (text, lines) = (&note[..=at], &note[at + 2..]);
        let signatures = parse_signatures(lines).map_err(|_| SignedTextError::Form)?;
        let (name, id) = (self.name(), self.id());
        let ours = signatures.iter().find(|one| one.name == name && one.bytes.starts_with(&id));
        let ours = ours.ok_or_else(|| SignedTextError::Unsigned { key: hex(id) })?;
        let signature =
            Signature::from_slice(&ours.bytes[KEY_ID_BYTES..]).map_err(|_| SignedTextError::Signature)?;
        self.key.verify_strict(text.as_bytes(), &signature).map_err(|_| SignedTextError::Signature)?;
        Ok(text)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.public_key())
    }
}

impl PublicKey {
    /// Name of the log whose key this is.
    pub fn name(&self) -> String {
        name(&self.log_id)
    }

    fn id(&self) -> [u8; KEY_ID_BYTES] {
        key_id(&self.name(), &self.key)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ALGORITHM];
        key.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{}+{}", self.name(), hex(self.id()), BASE64_STANDARD.encode(key))
    }
}

impl FromStr for PublicKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let unfit = NoteError::PublicKey;
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(_), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(unfit("it has not the three parts of name, key id and key"));
        };
        let log_id = parse_name(name).ok_or(unfit("its name is no caxton/log/<id>"))?;
        let key = BASE64_STANDARD.decode(key).map_err(|_| unfit("its key is no base64"))?;
        let Some((&ALGORITHM, key)) = key.split_first().filter(|(_, key)| key.len() == KEY_BYTES) else {
            return Err(unfit("its key is not one of ed25519"));
        };
        let key =
            VerifyingKey::from_bytes(&array(key)).map_err(|_| unfit("its key is not one of ed25519"))?;
        let public = Self { log_id, key };
        if public.to_string() == text {
            Ok(public)
        } else {
            Err(unfit("its key id is not that of name and key"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CheckpointError, NoteError, PublicKey, SIGNATURES_MAX, SignedCheckpoint, Signer};
    use crate::log::{Hash, Head};
    use crate::{Seq, Timestamp};

    fn head() -> Head {
        Head { seq: Seq(10), root: Hash([9; 32]), recorded_at: Timestamp::from_unix_micros(1_000_000) }
    }

    fn signer(secret: u8) -> Signer {
        Signer::new([7; 16], &[secret; 32])
    }

    /// As `openssl pkeyutl -sign -rawin` signs the first four lines with the key whose secret bytes are all 1.
    const SIGNED: &str = "caxton/log/07070707070707070707070707070707\n10\n\
        CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=\ntime 1970-01-01T00:00:01.000000Z\n\n\
        — caxton/log/07070707070707070707070707070707 bju1DzHE/6jglfPYFwcx+1e+0ayAUxAWAAcb8bcMWsNV2dX2pNqe/aVVSUOtcOTFs\
        Hzl8lAkiIjQ6ux6VQN0OUpXawo=\n";
    const PUBLIC_KEY: &str =
        "caxton/log/07070707070707070707070707070707+6e3bb50f+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c";

    #[test]
    fn a_checkpoint_is_this_text_for_ever() {
        assert_eq!(signer(1).sign(head()).to_string(), SIGNED);
        assert_eq!(signer(1).public_key().to_string(), PUBLIC_KEY);
        let (signed, key) = (SIGNED.parse::<SignedCheckpoint>().unwrap(), PUBLIC_KEY.parse().unwrap());
        assert_eq!((signed.check(&key), signed.checkpoint.head), (Ok(()), head()));
        assert_eq!(format!("{:?}", signer(1)), format!("Signer({PUBLIC_KEY})"), "no secret is printed");
    }

    #[test]
    fn no_bit_of_a_checkpoint_or_a_key_can_change_unseen() {
        let key: PublicKey = PUBLIC_KEY.parse().unwrap();
        let flips = |text: &str| {
            let bits = 0..text.len() * 8;
            let text = text.to_owned();
            bits.filter_map(move |bit| {
                let mut bytes = text.clone().into_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                String::from_utf8(bytes).ok()
            })
        };
        for flipped in flips(SIGNED) {
            let checked = flipped.parse::<SignedCheckpoint>().map(|signed| signed.check(&key));
            assert!(!matches!(checked, Ok(Ok(()))), "{flipped}");
        }
        let signed: SignedCheckpoint = SIGNED.parse().unwrap();
        for flipped in flips(PUBLIC_KEY) {
            let checked = flipped.parse::<PublicKey>().map(|key| signed.check(&key));
            assert!(!matches!(checked, Ok(Ok(()))), "{flipped}");
        }
    }

    #[track_caller]
    fn check(signed: &SignedCheckpoint, key: &PublicKey, then: &str) {
        assert_eq!(signed.check(key).unwrap_err().to_string(), then);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (signed, key) = (signer(1).sign(head()), signer(1).public_key());
        let other_log = Signer::new([8; 16], &[1; 32]).public_key();
        check(
            &signed,
            &other_log,
            "the checkpoint is of the log caxton/log/07070707070707070707070707070707, the key of \
             caxton/log/08080808080808080808080808080808",
        );
        check(
            &signer(2).sign(head()),
            &key,
            &CheckpointError::Unsigned { key: super::hex(key.id()) }.to_string(),
        );
        let mut larger = signed;
        larger.checkpoint.head.seq = Seq(11);
        check(
            &larger,
            &key,
            "the signature does not match the checkpoint: its size, root, time or signature was changed",
        );
    }

    #[test]
    fn signatures_of_witnesses_are_kept_and_passed_over() {
        let witness = "— witness.example/w AAAAAAECAwQ=\n";
        let text = format!("{SIGNED}{witness}");
        let signed: SignedCheckpoint = text.parse().unwrap();
        assert_eq!((signed.to_string(), signed.check(&signer(1).public_key())), (text, Ok(())));
        let many = format!("{SIGNED}{}", witness.repeat(SIGNATURES_MAX));
        assert_eq!(
            many.parse::<SignedCheckpoint>(),
            Err(NoteError::Checkpoint("it has too many signatures"))
        );
        let alone = format!("{}\n\n{witness}", SIGNED.split_once("\n\n").unwrap().0);
        let alone: SignedCheckpoint = alone.parse().unwrap();
        assert!(matches!(alone.check(&signer(1).public_key()), Err(CheckpointError::Unsigned { .. })));
    }

    #[test]
    fn what_is_no_checkpoint_says_why() {
        let cases = [
            ("", "it has no empty line before its signatures"),
            ("a\n\n", "it has not the four lines of name, size, root and time"),
            (&SIGNED.replacen("07", "0x", 1), "its first line is no caxton/log/<id>"),
            (&SIGNED.replace("\n10\n", "\nten\n"), "its second line is no number of events"),
            (&SIGNED.replace("\n10\n", "\n+10\n"), "it is not written as checkpoints are"),
            (&SIGNED.replace("CQk=", ""), "its third line is no root of 32 bytes in base64"),
            (&SIGNED.replace("time ", "at "), "its fourth line is no time"),
            (&SIGNED.replace("— ", "- "), "a signature line is not \"— name base64\""),
            (SIGNED.split_inclusive("\n\n").next().unwrap(), "it has no signature"),
        ];
        for (text, why) in cases {
            assert_eq!(text.parse::<SignedCheckpoint>(), Err(NoteError::Checkpoint(why)), "{text}");
        }
        let cases = [
            ("", "it has not the three parts of name, key id and key"),
            ("a+b+c", "its name is no caxton/log/<id>"),
            (&PUBLIC_KEY.replace("+AY", "+!Y"), "its key is no base64"),
            (&PUBLIC_KEY.replace("+AY", "+BY"), "its key is not one of ed25519"),
            (&PUBLIC_KEY.replacen("07", "08", 1), "its key id is not that of name and key"),
        ];
        for (text, why) in cases {
            assert_eq!(text.parse::<PublicKey>(), Err(NoteError::PublicKey(why)), "{text}");
        }
    }
}
