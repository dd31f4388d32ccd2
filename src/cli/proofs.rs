//! `caxton log head --checkpoint | prove | consistency | check-proof`: what auditors take away, and what they do with it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use caxton_events::Seq;
use caxton_events::log::{ProveError, PublicKey, Reader, SignedCheckpoint, Signer};
use caxton_tools::log::{Overview, ProofFile, Proved, prove, prove_growth};
use serde_json::{Value, json};

use super::args::{CheckProof, Common, ProveEvent, ProveGrowth};
use super::backend::{Backend, Request};
use super::failure::{Exit, Failure};
use super::output::{Output, cell};
use super::setup;
use super::transfer::{is_dash, is_free, write_out};
use crate::engine::signing::{self, SigningKeyError};

/// Longest proof that is read, in bytes: the largest event twice, as text and in base64.
const PROOF_BYTES_MAX: u64 = 128 << 20;

/// What is to be proved.
pub(super) enum Wanted<'a> {
    /// That an event is in the log.
    Event(&'a ProveEvent),
    /// That the log only grew.
    Growth(&'a ProveGrowth),
}

impl Wanted<'_> {
    /// Where the proof goes, and whether it may replace what is there.
    fn place(&self) -> (&Path, bool) {
        match self {
            Self::Event(ProveEvent { out, force, .. }) | Self::Growth(ProveGrowth { out, force, .. }) => {
                (out.as_path(), *force)
            }
        }
    }

    /// Hands out the proof that a running server makes.
    pub(super) fn ask(&self, server: &Backend, out: &mut Output) -> Result<(), Failure> {
        let (path, force) = self.place();
        is_free(path, force)?;
        let number = |number: u64| number.to_string();
        let request = match self {
            Self::Event(ProveEvent { seq, size, .. }) => Request::get("/api/v1/log/proof")
                .with("seq", &number(*seq))
                .with_some("size", size.map(number).as_deref()),
            Self::Growth(ProveGrowth { from, to, .. }) => Request::get("/api/v1/log/consistency")
                .with("from", &number(*from))
                .with_some("to", to.map(number).as_deref()),
        };
        let proof = serde_json::from_value(server.ask(request)?)
            .map_err(|error| Failure::new(Exit::Failed, format!("the server sent no proof: {error}")))?;
        self.hand_out(&proof, out)
    }

    /// Hands out the proof that the stopped log holds.
    pub(super) fn make(&self, reader: &Reader, common: &Common, out: &mut Output) -> Result<(), Failure> {
        let (path, force) = self.place();
        is_free(path, force)?;
        let signer = signer(reader, common)?;
        let proof = match self {
            Self::Event(ProveEvent { seq, size, .. }) => prove(reader, &signer, Seq(*seq), *size),
            Self::Growth(ProveGrowth { from, to, .. }) => prove_growth(reader, &signer, *from, *to),
        };
        let proof = proof.map_err(|error| {
            let exit = match error {
                ProveError::Beyond { .. } | ProveError::Erased { .. } => Exit::NotFound,
                // As what a server answers to it, and as every other question about what was dropped.
                ProveError::Dropped { .. } => Exit::Refused,
                ProveError::Read(_) => Exit::Failed,
            };
            Failure::of(exit, &error)
        })?;
        self.hand_out(&proof, out)
    }

    fn hand_out(&self, proof: &ProofFile, out: &mut Output) -> Result<(), Failure> {
        let (path, _) = self.place();
        if is_dash(path) {
            return out.json(proof);
        }
        write_out(path, |file| {
            serde_json::to_writer_pretty(&mut *file, proof)?;
            file.write_all(b"\n")
        })?;
        let file = path.display();
        if out.is_json() {
            return out.json(&json!({ "file": file.to_string() }));
        }
        out.line(format_args!("wrote {file}; check it with: caxton log check-proof {file}"))
    }
}

/// What signs the heads of the stopped log.
pub(super) fn signer(reader: &Reader, common: &Common) -> Result<Signer, Failure> {
    let dir = setup::existing_data_dir(common)?;
    signing::open(&dir, reader.log_id()).map_err(|error| {
        if !matches!(error, SigningKeyError::Missing { .. }) {
            return Failure::of(Exit::Failed, &error);
        }
        let message = format!(
            "{error}, or when a command opens the directory, as `caxton memory stats --keyword-only --data-dir {}` does; until \
             then no head of this log is signed, and nothing of it can be proved: a fork has a key of its own",
            dir.display()
        );
        Failure::new(Exit::NotFound, message)
    })
}

/// Shows the end of the log of a running server.
pub(super) fn head_of_server(server: &Backend, checkpoint: bool, out: &mut Output) -> Result<(), Failure> {
    let head = server.ask(Request::get("/api/v1/log/head"))?;
    let [seq, root, at, key] = ["seq", "root", "recorded_at", "public_key"].map(|name| cell(&head, name));
    if checkpoint {
        return out.text(cell(&head, "checkpoint"));
    }
    if out.is_json() {
        return out.json(&head);
    }
    out.line(format_args!("head #{seq}\nroot {root}\nrecorded {at}\npublic key {key}"))?;
    let origin = serde_json::from_value(head.get("origin").cloned().unwrap_or_default()).unwrap_or_default();
    caxton_tools::log::origin_lines(&origin).iter().try_for_each(|line| out.line(line))
}

/// Shows the figures of a stopped log, with its signed head where it has a key.
pub(super) fn head_of_log(
    reader: &Reader,
    common: &Common,
    figures: &Overview,
    out: &mut Output,
) -> Result<(), Failure> {
    let signer = signer(reader, common).ok();
    if !out.is_json() {
        out.line(figures)?;
        return match signer {
            Some(signer) => out.line(format_args!("public key {}", signer.public_key())),
            None => Ok(()),
        };
    }
    let mut figures = json!(figures);
    if let (Some(signer), Value::Object(figures)) = (signer, &mut figures) {
        figures.insert("checkpoint".to_owned(), signer.sign(reader.head()).to_string().into());
        figures.insert("public_key".to_owned(), signer.public_key().to_string().into());
    }
    out.json(&figures)
}

/// `caxton log check-proof`: needs neither a server nor a data directory.
pub(super) fn check(what: &CheckProof, out: &mut Output) -> Result<(), Failure> {
    let key = what.public_key.as_deref().map(str::parse::<PublicKey>).transpose();
    let key = key.map_err(|error| Failure::of(Exit::Usage, &error))?;
    let kept = what.head.as_deref().map(read_checkpoint).transpose()?;
    let path = what.file.as_path();
    let proof: ProofFile = serde_json::from_slice(&read(path)?).map_err(|error| {
        Failure::new(Exit::Failed, format!("{} holds no proof that can be read: {error}", path.display()))
    })?;
    let proved =
        proof.check(key.as_ref(), kept.as_ref()).map_err(|error| Failure::of(Exit::Failed, &error))?;
    if let Some(kept) = kept {
        // The head that was kept is believed only as far as it is signed like the proof.
        let signed = key.map_or_else(|| named_key(&proved), Ok)?;
        kept.check(&signed).map_err(|error| {
            Failure::of(Exit::Failed, &error).told(format!("the head that was kept is wrong: {error}"))
        })?;
    }
    if out.is_json() {
        return out.json(&proved);
    }
    out.line(&proved)?;
    if key.is_none() {
        out.line("that key stands in the file itself: compare it with the one you have from elsewhere (--public-key)")?;
    }
    Ok(())
}

fn named_key(proved: &Proved) -> Result<PublicKey, Failure> {
    let (Proved::Inclusion { public_key, .. } | Proved::Consistency { public_key, .. }) = proved;
    public_key.parse().map_err(|error| Failure::of(Exit::Failed, &error))
}

fn read_checkpoint(path: &Path) -> Result<SignedCheckpoint, Failure> {
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    text.parse()
        .map_err(|error| Failure::of(Exit::Failed, &error).told(format!("{}: {error}", path.display())))
}

/// A file, or standard input for `-`.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if is_dash(path) {
        io::stdin().take(PROOF_BYTES_MAX).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(PROOF_BYTES_MAX).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::file("read", path, &error))?;
    Ok(bytes)
}
