//! The receipt of an erasure: a text that says what was destroyed, signed by the log's key.
//!
//! ```text
//! caxton/erasure/<the log's id>
//! asked agent ada
//! by system
//! reason "left the project"
//! ordered #70 2026-11-28T14:05:06.000000Z
//! erased #71 2026-11-28T14:05:06.120000Z
//! subjects 3
//! events 42
//! keys 3
//! key 00c6a4a7935bd1e9 …
//! quoted in 2 conversations, which stay
//! root <Merkle root of the first 71 events, hex>
//! public-key caxton/log/…
//!
//! — caxton/log/… <signature>
//! ```
//!
//! Names of conversations are not in it: their number says how many subjects went, and how many stay that quote what went, if
//! any do.

use std::fmt::Write as _;

use caxton_events::Seq;
use caxton_events::log::checkpoint::NoteError;
use caxton_events::log::{ProveError, PublicKey, SignedTextError};

use super::Order;
use crate::engine::Engine;

/// First line, before the log's id.
const TITLE: &str = "caxton/erasure/";
const PUBLIC_KEY: &str = "public-key ";

/// A signed receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Where the order stands.
    pub order: Seq,
    /// Where it is recorded that it was done.
    pub erased: Seq,
    /// The signed text.
    pub text: String,
}

/// Why a receipt does not hold.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The text is no receipt.
    #[error("this is no receipt of an erasure: it does not begin with {TITLE} and the id of a log")]
    Title,
    /// It names no public key.
    #[error("the receipt names no public key of a log")]
    Key(#[source] Option<NoteError>),
    /// It names another key than the expected one.
    #[error("the receipt names the key {named}, not {expected}")]
    OtherKey {
        /// In the receipt.
        named: String,
        /// What it is checked with.
        expected: String,
    },
    /// The signature does not fit.
    #[error("the receipt is not what was signed")]
    Signature(#[source] SignedTextError),
}

impl Receipt {
    /// The receipt of an order that is done.
    pub(super) fn of(engine: &Engine, order: &Order, erased: Seq, quoted: u64) -> Result<Self, ProveError> {
        let log = engine.log();
        let (ordered, done) = (log.head_at(order.seq.0)?, log.head_at(erased.0)?);
        let mut text = format!("{TITLE}{:032x}\n", u128::from_be_bytes(log.log_id()));
        let Order { asked, by, events, keys, subjects, .. } = order;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "asked {asked}\nby {by}");
        if let Some(reason) = &order.reason {
            let _ = writeln!(text, "reason {reason:?}");
        }
        let _ = writeln!(text, "ordered {} {}", order.seq, ordered.recorded_at);
        let _ = writeln!(text, "erased {erased} {}", done.recorded_at);
        let _ = writeln!(text, "subjects {}\nevents {events}\nkeys {}", subjects.len(), keys.len());
        for key in keys {
            let _ = writeln!(text, "key {key:016x}");
        }
        if quoted > 0 {
            let _ = writeln!(text, "quoted in {quoted} conversations, which stay");
        }
        let _ = writeln!(text, "root {}", done.root);
        let _ = writeln!(text, "{PUBLIC_KEY}{}", engine.signer().public_key());
        Ok(Self { order: order.seq, erased, text: engine.signer().sign_text(&text) })
    }
}

/// Checks a receipt, with `known` by that key; the text that was signed.
///
/// # Errors
///
/// [`ReceiptError`] says what does not fit.
pub fn check<'a>(receipt: &'a str, known: Option<&PublicKey>) -> Result<&'a str, ReceiptError> {
    if !receipt.starts_with(TITLE) {
        return Err(ReceiptError::Title);
    }
    let named = receipt.lines().find_map(|line| line.strip_prefix(PUBLIC_KEY));
    let named: PublicKey =
        named.ok_or(ReceiptError::Key(None))?.parse().map_err(|error| ReceiptError::Key(Some(error)))?;
    if let Some(known) = known
        && *known != named
    {
        return Err(ReceiptError::OtherKey { named: named.to_string(), expected: known.to_string() });
    }
    named.check_text(receipt).map_err(ReceiptError::Signature)
}
