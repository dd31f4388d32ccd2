//! What a backup is sent as, and what a run of blocks is on disk: frames, one after the other.
//!
//! ```text
//! frame  kind: u8 | length of the first piece: u32 LE | length of the second: u32 LE | number: u64 LE | pieces
//! ```
//!
//! | kind | first piece | second piece | number |
//! | --- | --- | --- | --- |
//! | 1 begin | JSON: log, head, what it follows | – | 0 |
//! | 2 block | header | body | first position |
//! | 3 key | idempotency key | its row | 0 |
//! | 4 file | JSON: kind and name | content | 0 |
//! | 5 end | – | – | last position |
//!
//! A file of a run is the magic `CXTNRUN1` and frames of kinds 2 and 3.

use std::io::{self, Read};

use caxton_events::Seq;
use caxton_events::log::StoredBlock;

/// What a run begins with.
pub(super) const MAGIC: &[u8; 8] = b"CXTNRUN1";
const FIXED_BYTES: usize = 17;
/// Longest piece: the largest block, or the largest file that is taken.
const PIECE_BYTES_MAX: u32 = 96 << 20;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// What comes.
    Begin(Vec<u8>),
    /// A block of the log.
    Block(StoredBlock),
    /// An idempotency key and its row.
    Key(String, Vec<u8>),
    /// A file: what it is, and its content.
    File(Vec<u8>, Vec<u8>),
    /// That was all.
    End(Seq),
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// It ends in the middle of a frame, or before the last one.
    #[error("it is cut short")]
    Cut,
    /// It is no frame.
    #[error("it holds something else than what was written: {0}")]
    Nonsense(&'static str),
    /// It could not be read.
    #[error("could not read it")]
    Io(#[source] io::Error),
}

impl Frame {
    /// The bytes of the frame.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, first, second, number): (u8, &[u8], &[u8], u64) = match self {
            Self::Begin(json) => (1, json, &[], 0),
            Self::Block(StoredBlock { first, header, body }) => (2, header, body, first.0),
            Self::Key(key, row) => (3, key.as_bytes(), row, 0),
            Self::File(json, content) => (4, json, content, 0),
            Self::End(seq) => (5, &[], &[], seq.0),
        };
        let mut bytes = Vec::with_capacity(FIXED_BYTES + first.len() + second.len());
        bytes.push(kind);
        bytes.extend_from_slice(&(first.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(second.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(first);
        bytes.extend_from_slice(second);
        bytes
    }

    /// The next frame; `None` where the source ends between two.
    pub(super) fn read(source: &mut impl Read) -> Result<Option<Self>, FrameError> {
        let mut fixed = [0; FIXED_BYTES];
        let mut got = 0;
        while got < FIXED_BYTES {
            match source.read(&mut fixed[got..]) {
                Ok(0) if got == 0 => return Ok(None),
                Ok(0) => return Err(FrameError::Cut),
                Ok(count) => got += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(of_io(error)),
            }
        }
        let number = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let (first, second) = (number(1), number(5));
        if first > PIECE_BYTES_MAX || second > PIECE_BYTES_MAX {
            return Err(FrameError::Nonsense("a piece is longer than any may be"));
        }
        let mut seq = [0; 8];
        seq.copy_from_slice(&fixed[9..]);
        let seq = Seq(u64::from_le_bytes(seq));
        let (first, second) = (piece(source, first)?, piece(source, second)?);
        Ok(Some(match fixed[0] {
            1 => Self::Begin(first),
            2 => Self::Block(StoredBlock { first: seq, header: first, body: second }),
            3 => {
                let key = String::from_utf8(first);
                Self::Key(key.map_err(|_| FrameError::Nonsense("a key is no text"))?, second)
            }
            4 => Self::File(first, second),
            5 => Self::End(seq),
            _ => return Err(FrameError::Nonsense("a frame has a kind that there is not")),
        }))
    }
}

fn piece(source: &mut impl Read, len: u32) -> Result<Vec<u8>, FrameError> {
    // Not allocated at once: a length that was changed may be anything.
    let mut bytes = Vec::new();
    source.take(u64::from(len)).read_to_end(&mut bytes).map_err(of_io)?;
    if bytes.len() == len as usize { Ok(bytes) } else { Err(FrameError::Cut) }
}

fn of_io(error: io::Error) -> FrameError {
    if error.kind() == io::ErrorKind::UnexpectedEof { FrameError::Cut } else { FrameError::Io(error) }
}

/// Reads the magic of a run.
pub(super) fn read_magic(source: &mut impl Read) -> Result<(), FrameError> {
    let found = piece(source, MAGIC.len() as u32)?;
    if found == MAGIC { Ok(()) } else { Err(FrameError::Nonsense("it begins with something else")) }
}
