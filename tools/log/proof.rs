//! Proofs as files: what an auditor is handed, and checks without the log.

use std::fmt;

use caxton_events::Seq;
use caxton_events::log::proof::UnreadableError;
use caxton_events::log::{
    Evidence, EvidenceError, Growth, ProveError, PublicKey, ReadError, Reader, SignedCheckpoint, Signer,
};
use serde::{Deserialize, Serialize};

use super::line::Line;

/// A proof with all that it takes to check it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "proof", rename_all = "snake_case", deny_unknown_fields)]
pub enum ProofFile {
    /// That an event is in the log.
    Inclusion {
        /// The event as people read it. It must be what the stored bytes of `evidence` say.
        event: Box<Line>,
        /// What proves it.
        evidence: Box<Evidence>,
    },
    /// That the log between two heads only grew.
    Consistency {
        /// Both heads and what proves it.
        growth: Box<Growth>,
    },
}

/// Why a proof does not hold.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Something in it does not fit.
    #[error("the proof does not hold")]
    Evidence(#[source] EvidenceError),
    /// The event that is shown is not the one that is proved.
    #[error("the proof does not hold: {seq} as it is shown is not the event that is proved")]
    Shown {
        /// Position of the event.
        seq: Seq,
    },
    /// The proof speaks of another head than the one that was kept.
    #[error(
        "the proof does not hold for the head that was kept: that is {kept}, the proof is about {proved}; {what}"
    )]
    OtherHead {
        /// The head that was kept.
        kept: String,
        /// The head of the proof.
        proved: String,
        /// What that means.
        what: &'static str,
    },
}

/// What a proof shows, once it was checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "proof", rename_all = "snake_case")]
pub enum Proved {
    /// The event is in the log.
    Inclusion {
        /// The event.
        event: Box<Line>,
        /// The head it is under.
        head: ProvedHead,
        /// Who signed it.
        public_key: String,
    },
    /// Everything under the earlier head lies unchanged under the later one.
    Consistency {
        /// The earlier head.
        earlier: ProvedHead,
        /// The later one.
        later: ProvedHead,
        /// Who signed both.
        public_key: String,
    },
}

/// A signed head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProvedHead {
    /// Name of the log.
    pub log: String,
    /// Position of its last event.
    pub seq: Seq,
    /// Merkle root, hex.
    pub root: String,
    /// When the last event was recorded.
    pub recorded_at: caxton_events::Timestamp,
}

impl From<&SignedCheckpoint> for ProvedHead {
    fn from(signed: &SignedCheckpoint) -> Self {
        let head = signed.checkpoint.head;
        Self {
            log: signed.checkpoint.name(),
            seq: head.seq,
            root: head.root.to_string(),
            recorded_at: head.recorded_at,
        }
    }
}

impl fmt::Display for ProvedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}, root {}", self.seq, self.recorded_at, self.root)
    }
}

impl fmt::Display for Proved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inclusion { event, head, public_key } => {
                writeln!(f, "{event}")?;
                writeln!(f, "is in {}\nunder the head {head}", head.log)?;
                write!(f, "signed by {public_key}")
            }
            Self::Consistency { earlier, later, public_key } => {
                writeln!(f, "{} only grew\nfrom the head {earlier}\nto the head {later}", later.log)?;
                write!(f, "both signed by {public_key}")
            }
        }
    }
}

/// The proof that the event at `seq` is among the first `size` of the log; without a size, in all of it.
///
/// # Errors
///
/// [`ProveError`] if there is no such event, or the log is damaged.
pub fn prove(reader: &Reader, signer: &Signer, seq: Seq, size: Option<u64>) -> Result<ProofFile, ProveError> {
    let evidence = reader.evidence(seq, size.unwrap_or(reader.head().seq.0), signer)?;
    // Encrypted content is left out: whoever checks the proof could not compare it with the bytes that are proved.
    let found = evidence.event.found().map_err(|error| match error {
        UnreadableError::Decode(source) => ReadError::Decode { seq, source },
        UnreadableError::Unpack(what) => ReadError::Damaged { block: seq, what: what.to_owned() },
    })?;
    // As whoever checks it draws the id: an event that a fork shares had another in the log that recorded it.
    let event = Box::new(Line::of_log_found(&evidence.checkpoint.checkpoint.log_id, found));
    Ok(ProofFile::Inclusion { event, evidence: Box::new(evidence) })
}

/// The proof that the first `from` events are still the first of the first `to`; without `to`, of all.
///
/// # Errors
///
/// [`ProveError`] if the log has fewer events, or is damaged.
pub fn prove_growth(
    reader: &Reader,
    signer: &Signer,
    from: u64,
    to: Option<u64>,
) -> Result<ProofFile, ProveError> {
    let growth = reader.growth(from, to.unwrap_or(reader.head().seq.0), signer)?;
    Ok(ProofFile::Consistency { growth: Box::new(growth) })
}

impl ProofFile {
    /// Checks the proof. With `key` it must be signed by that key, with `kept` it must be about that head.
    ///
    /// # Errors
    ///
    /// [`CheckError`] names what does not fit.
    pub fn check(
        &self,
        key: Option<&PublicKey>,
        kept: Option<&SignedCheckpoint>,
    ) -> Result<Proved, CheckError> {
        let proved = match self {
            Self::Inclusion { event, evidence } => {
                let found = evidence.check(key).map_err(CheckError::Evidence)?;
                let seq = found.seq();
                let truth = Line::of_log_found(&evidence.checkpoint.checkpoint.log_id, found);
                if !says_the_same(event, &truth) {
                    return Err(CheckError::Shown { seq });
                }
                same_head(kept, &evidence.checkpoint)?;
                Proved::Inclusion {
                    event: event.clone(),
                    head: (&evidence.checkpoint).into(),
                    public_key: evidence.public_key.to_string(),
                }
            }
            Self::Consistency { growth } => {
                growth.check(key).map_err(CheckError::Evidence)?;
                same_head(kept, &growth.earlier)?;
                Proved::Consistency {
                    earlier: (&growth.earlier).into(),
                    later: (&growth.later).into(),
                    public_key: growth.public_key.to_string(),
                }
            }
        };
        Ok(proved)
    }
}

/// Whether both lines say the same as JSON: a fraction may differ in its last bit once it was text.
fn says_the_same(shown: &Line, truth: &Line) -> bool {
    let read_again = serde_json::to_string(truth).and_then(|text| serde_json::from_str::<Line>(&text));
    read_again.is_ok_and(|truth| truth == *shown)
}

fn same_head(kept: Option<&SignedCheckpoint>, proved: &SignedCheckpoint) -> Result<(), CheckError> {
    match kept {
        Some(kept) if kept.checkpoint != proved.checkpoint => {
            let (ours, theirs) = (&kept.checkpoint, &proved.checkpoint);
            let what = if ours.log_id != theirs.log_id && ours.head.root == theirs.head.root {
                "both have the same events under the names of two logs: one is a fork or a restored copy of the other"
            } else if ours.log_id != theirs.log_id {
                "they are heads of two logs: ask for a proof from the log whose head was kept"
            } else if ours.head.seq != theirs.head.seq {
                "the log had another length then: ask for a proof with --size of the kept head, or for caxton log consistency \
                 from it to this one"
            } else {
                "both have the same size: if both are signed, the log was rewritten"
            };
            Err(CheckError::OtherHead {
                kept: ProvedHead::from(kept).to_string(),
                proved: ProvedHead::from(proved).to_string(),
                what,
            })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::sync::Arc;

    use caxton_events::log::{Batch, ForkOptions, Log, LogOptions, Signer, fork_log};
    use caxton_events::{Clock, Draft, MemoryEvent, MemoryId, Seq, Timestamp};

    use super::{ProofFile, prove, prove_growth};

    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            Timestamp::from_unix_micros(43_200_000_000)
        }
    }

    fn signer() -> Signer {
        Signer::new([7; 16], &[1; 32])
    }

    fn log(dir: &std::path::Path) -> Log {
        let log = Log::open(dir, LogOptions::new([7; 16]), Arc::new(Noon)).unwrap();
        let drafts = (0..5_u64).map(|n| Draft {
            stream: "agent:ada".to_owned(),
            actor: "ada".to_owned(),
            correlation: None,
            causation: None,
            event: MemoryEvent::ObservationAdded {
                id: MemoryId(n),
                entity: MemoryId(1),
                content: format!("observation {n}"),
                validity: caxton_events::memory::Validity::default(),
            }
            .into(),
        });
        log.append(vec![Batch::of(drafts.collect())]).unwrap().remove(0).unwrap();
        log
    }

    #[track_caller]
    fn check(text: &str, then: &str) {
        let error = serde_json::from_str::<ProofFile>(text).unwrap().check(None, None).unwrap_err();
        let source = std::error::Error::source(&error);
        let said = source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        assert!(said.starts_with(then), "{said}");
    }

    #[test]
    fn a_proof_file_is_checked_without_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path());
        let inclusion =
            serde_json::to_string(&prove(&log.reader(), &signer(), Seq(3), None).unwrap()).unwrap();
        let growth =
            serde_json::to_string(&prove_growth(&log.reader(), &signer(), 2, None).unwrap()).unwrap();
        let kept = signer().sign(log.reader().head_at(2).unwrap());
        drop(log);
        let read: ProofFile = serde_json::from_str(&inclusion).unwrap();
        let shown = read.check(Some(&signer().public_key()), None).unwrap().to_string();
        assert!(
            shown.starts_with("#3 1970-01-01T12:00:00.000000Z memory.observation_added agent:ada"),
            "{shown}"
        );
        assert!(shown.contains("\nunder the head #5 of 1970-01-01T12:00:00.000000Z, root "), "{shown}");
        let read: ProofFile = serde_json::from_str(&growth).unwrap();
        let shown = read.check(None, Some(&kept)).unwrap().to_string();
        assert!(shown.contains(" only grew\nfrom the head #2 of "), "{shown}");
        let other = signer().sign(caxton_events::log::Head { seq: Seq(2), ..Default::default() });
        let error = read.check(None, Some(&other)).unwrap_err().to_string();
        assert!(
            error.starts_with("the proof does not hold for the head that was kept: that is #2 of "),
            "{error}"
        );
    }

    #[test]
    fn a_fork_proves_what_it_shares_with_the_log_that_it_was_forked_from() {
        let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let options = ForkOptions { cut: Seq(4), log_id: [9; 16], at: Timestamp::EPOCH };
        fork_log(&log(dir.path()).seal().unwrap(), &options, to.path(), None).unwrap();
        let (fork, signer) = (Log::open_read_only(to.path()).unwrap(), Signer::new([9; 16], &[2; 32]));
        for seq in 1..=4 {
            let proof = prove(&fork, &signer, Seq(seq), None).unwrap();
            let read: ProofFile = serde_json::from_str(&serde_json::to_string(&proof).unwrap()).unwrap();
            let shown = read.check(Some(&signer.public_key()), None).unwrap().to_string();
            assert!(shown.contains("is in caxton/log/09090909"), "{shown}");
        }
    }

    #[test]
    fn what_is_shown_must_be_what_is_proved() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path());
        let text = serde_json::to_string(&prove(&log.reader(), &signer(), Seq(3), None).unwrap()).unwrap();
        let shown = "the proof does not hold: #3 as it is shown is not the event that is proved";
        check(&text.replace("observation 2", "observation 9"), shown);
        check(&text.replace("\"actor\":\"ada\"", "\"actor\":\"bob\""), shown);
        check(
            &text.replace("\"kind\":\"memory.observation_added\"", "\"kind\":\"memory.entity_created\""),
            shown,
        );
        let place =
            "the proof does not hold: the position, the time or the kind of #4 is not what was recorded";
        check(&text.replace("\"seq\":3", "\"seq\":4"), place);
    }
}
