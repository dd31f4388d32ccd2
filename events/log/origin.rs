//! Where a log begins that does not begin in its own file: behind sealed files, or behind events that were dropped.
//!
//! A log is sealed by giving its file another name, `sealed/<id>-<last seq>.redb`, after which nobody writes to it any more,
//! and going on in a new one. Several data directories can hold the same sealed file, by hard links, so a fork costs no
//! copy, neither can change what the other reads, and each may be moved or removed without the other.
//!
//! The origin is a row of the log's own file, as JSON; `origin.json` beside it is a copy for people and programs.

use serde::{Deserialize, Serialize};

use crate::id::Seq;
use crate::log::chain::{Frontier, Hash};
use crate::log::pack::ChainEnd;
use crate::log::reader::Head;
use crate::time::Timestamp;

/// The folder of sealed files in a data directory.
pub const SEALED_DIR: &str = "sealed";
/// The copy of the origin for people and programs.
pub const ORIGIN_FILE: &str = "origin.json";

/// What lies before the first event of a log's own file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Files that hold what lies before this log's own file, the oldest first.
    pub sealed: Vec<SealedFile>,
    /// The logs this one was forked from, the oldest first.
    pub forks: Vec<ForkedFrom>,
    /// The events that were dropped, where some were.
    pub dropped: Option<Dropped>,
    /// Files in the folder `sealed` that the log has no more use for: they are removed, if they are still there.
    pub leftover: Vec<String>,
}

/// A part of the log in a file that is not written any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedFile {
    /// Its name in the folder `sealed`.
    pub file: String,
    /// Id of the log whose own file it was.
    #[serde(with = "hex")]
    pub log_id: [u8; 16],
    /// The last position that is read from it.
    pub through: Seq,
    /// Idempotency keys of events up to this position are read from it. It lies behind `through` where a block was cut.
    pub keys_through: Seq,
    /// Merkle root of the log after `through`.
    #[serde(with = "hex")]
    pub root: [u8; 32],
    /// The last position that the file itself holds, as it is shared.
    pub last: Seq,
    /// Merkle root after `last`.
    #[serde(with = "hex")]
    pub last_root: [u8; 32],
}

/// A fork in a log's past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForkedFrom {
    /// Id of the log it was forked from.
    #[serde(with = "hex")]
    pub log_id: [u8; 16],
    /// Where that log was.
    pub dir: String,
    /// The last position that both share.
    pub seq: Seq,
    /// Merkle root of both there.
    #[serde(with = "hex")]
    pub root: [u8; 32],
    /// When it was forked.
    pub at: Timestamp,
}

/// The beginning of a log that was dropped: all that is needed to check and go on with what follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropped {
    /// The last position that was dropped, which is the number of events dropped.
    pub through: Seq,
    /// Merkle root of the log there.
    #[serde(with = "hex")]
    pub root: [u8; 32],
    /// The frontier there: the roots of its complete subtrees, largest first, hex.
    pub peaks: Vec<String>,
    /// Bytes of the events dropped.
    pub bytes: u64,
    /// When the last of them was recorded.
    pub recorded_at: Timestamp,
    /// When they were dropped.
    pub at: Timestamp,
    /// Who dropped them.
    pub by: String,
}

impl Dropped {
    /// The marker for what lies before `end`.
    pub(crate) fn before(end: &ChainEnd, at: Timestamp, by: &str) -> Self {
        Self {
            through: Seq(end.frontier.count()),
            root: end.frontier.root().0,
            peaks: end.frontier.peaks().iter().map(Hash::to_string).collect(),
            bytes: end.bytes_through,
            recorded_at: end.recorded_at,
            at,
            by: by.to_owned(),
        }
    }

    /// Where the chain goes on; `None` if the peaks are not those of the root.
    fn end(&self) -> Option<ChainEnd> {
        let peaks = self.peaks.iter().map(|peak| hex::parse(peak).map(Hash)).collect::<Option<_>>()?;
        let frontier = Frontier::from_peaks(self.through.0, peaks)?;
        let fits = frontier.root().0 == self.root;
        fits.then_some(ChainEnd { frontier, bytes_through: self.bytes, recorded_at: self.recorded_at })
    }
}

impl Origin {
    /// Whether the log simply begins in its own file.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The head the log had before the first event it still has.
    pub fn before_first(&self) -> Head {
        self.dropped.as_ref().map_or_else(Head::default, |dropped| Head {
            seq: dropped.through,
            root: Hash(dropped.root),
            recorded_at: dropped.recorded_at,
        })
    }

    /// The end of the chain before the first event; `None` if the record does not fit itself.
    pub(crate) fn start(&self) -> Option<ChainEnd> {
        self.dropped.as_ref().map_or_else(|| Some(ChainEnd::default()), Dropped::end)
    }

    /// Its text: pretty JSON that ends with a line break.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    pub(crate) fn from_json(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// What a log has of this that shares its first `cut` events, after which the root was `root`, and nothing of its files.
    pub(crate) fn shared(&self, cut: Seq, root: &Hash) -> Self {
        let mut forks = self.forks.clone();
        if let Some(beyond) = forks.iter().position(|fork| fork.seq > cut) {
            forks.truncate(beyond + 1);
            (forks[beyond].seq, forks[beyond].root) = (cut, root.0);
        }
        Self { sealed: Vec::new(), forks, dropped: self.dropped.clone(), leftover: Vec::new() }
    }

    /// The id of the log that recorded the event at `seq`, for a log with this id.
    pub(crate) fn log_id_at(&self, seq: Seq, own: [u8; 16]) -> [u8; 16] {
        self.forks.iter().find(|fork| seq <= fork.seq).map_or(own, |fork| fork.log_id)
    }
}

/// Name of the sealed file of a log with this id that ends at `last`.
pub(crate) fn sealed_name(log_id: &[u8; 16], last: Seq) -> String {
    format!("{}-{:020}.redb", hex::text(log_id), last.0)
}

pub(crate) mod hex {
    use std::fmt::Write as _;

    use super::Deserialize;

    pub(in crate::log) fn text(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    pub(in crate::log) fn parse<const N: usize>(text: &str) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        if text.len() != 2 * N || !text.is_ascii() {
            return None;
        }
        for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
        }
        Some(bytes)
    }

    pub(in crate::log) fn serialize<S: serde::Serializer>(
        bytes: &[u8],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(bytes))
    }

    pub(in crate::log) fn deserialize<'de, D: serde::Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| serde::de::Error::custom(format_args!("{text:?} is not {N} bytes in hex")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::{Dropped, ForkedFrom, Origin, SealedFile, sealed_name};
    use crate::log::chain::{Frontier, hash};
    use crate::log::pack::ChainEnd;
    use crate::{Seq, Timestamp};

    fn origin() -> Origin {
        let mut frontier = Frontier::default();
        for n in 0..11_u8 {
            frontier.push(hash(&[n]));
        }
        let end = ChainEnd { frontier, bytes_through: 77, recorded_at: Timestamp::from_unix_micros(5) };
        let fork = |id: u8, seq| ForkedFrom {
            log_id: [id; 16],
            dir: "/a b".to_owned(),
            seq: Seq(seq),
            root: [id; 32],
            at: Timestamp::EPOCH,
        };
        Origin {
            sealed: vec![SealedFile {
                file: sealed_name(&[1; 16], Seq(30)),
                log_id: [1; 16],
                through: Seq(20),
                keys_through: Seq(25),
                root: [4; 32],
                last: Seq(30),
                last_root: [5; 32],
            }],
            forks: vec![fork(1, 15), fork(2, 25)],
            dropped: Some(Dropped::before(&end, Timestamp::EPOCH, "ada")),
            leftover: vec!["old.redb".to_owned()],
        }
    }

    #[test]
    fn an_origin_reads_back_and_says_where_the_chain_goes_on() {
        let origin = origin();
        assert_eq!(Origin::from_json(origin.to_json().as_bytes()).as_ref(), Some(&origin));
        assert_eq!(origin.start().unwrap().frontier.count(), 11);
        assert_eq!(origin.before_first().root, origin.start().unwrap().frontier.root());
        assert_eq!(Origin::default().start().unwrap().frontier, Frontier::default());
        let other_root = |origin: &Origin| {
            let mut dropped = origin.dropped.clone().unwrap();
            dropped.root[0] ^= 1;
            Origin { dropped: Some(dropped), ..origin.clone() }
        };
        assert!(other_root(&origin).start().is_none());
    }

    #[test]
    fn an_event_has_the_id_of_the_log_that_recorded_it() {
        for (seq, id) in [(1, 1), (15, 1), (16, 2), (25, 2), (26, 3)] {
            assert_eq!(origin().log_id_at(Seq(seq), [3; 16]), [id; 16], "{seq}");
        }
    }
}
