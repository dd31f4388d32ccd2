//! Files of checked pages: what is read is what was written, or is refused.
//!
//! ```text
//! | content: 4080 | checksum: 16 | …        checksum: front of BLAKE3 over | content | number of the page: u32 LE |
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;

/// Content of a page, in bytes: 340 rows of a segment.
pub(super) const CONTENT_BYTES: usize = 4_080;
const CHECKSUM_BYTES: usize = 16;
pub(super) const PAGE_BYTES: usize = CONTENT_BYTES + CHECKSUM_BYTES;

/// Why a page was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum PageError {
    /// The medium failed.
    #[error("the medium failed")]
    Io(#[from] io::Error),
    /// The bytes are not those that were written.
    #[error("page {page} is not what was written")]
    Damaged {
        /// Its number.
        page: u64,
    },
}

fn checksum(page: u64, content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(content).update(&(page as u32).to_le_bytes());
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES]);
    sum
}

/// One page as it is stored; `content` fills it at the most.
pub(super) fn page(number: u64, content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.resize(CONTENT_BYTES, 0);
    let sum = checksum(number, &bytes);
    bytes.extend(sum);
    bytes
}

/// Writes content as pages, one after the other.
pub(super) struct PageWriter<W> {
    out: W,
    content: Vec<u8>,
    written: u64,
}

impl<W: Write> PageWriter<W> {
    /// Goes on behind `written` pages that `out` has.
    pub(super) fn new(out: W, written: u64) -> Self {
        Self { out, content: Vec::with_capacity(2 * CONTENT_BYTES), written }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.content.extend_from_slice(bytes);
        while self.content.len() >= CONTENT_BYTES {
            self.out.write_all(&page(self.written, &self.content[..CONTENT_BYTES]))?;
            self.content.drain(..CONTENT_BYTES);
            self.written += 1;
        }
        Ok(())
    }

    /// Fills the page that was begun; how many pages there are.
    pub(super) fn end_page(&mut self) -> io::Result<u64> {
        if !self.content.is_empty() {
            self.out.write_all(&page(self.written, &self.content))?;
            self.content.clear();
            self.written += 1;
        }
        Ok(self.written)
    }

    pub(super) fn into_inner(self) -> W {
        self.out
    }
}

/// `len` bytes of content from `start` on, counted over the contents of all pages.
pub(super) fn read(file: &File, start: u64, len: usize) -> Result<Vec<u8>, PageError> {
    let (first, skip) = (start / CONTENT_BYTES as u64, (start % CONTENT_BYTES as u64) as usize);
    let pages = (skip + len).div_ceil(CONTENT_BYTES);
    let mut bytes = vec![0; pages * PAGE_BYTES];
    file.read_exact_at(&mut bytes, first * PAGE_BYTES as u64).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            PageError::Damaged { page: first }
        } else {
            PageError::Io(error)
        }
    })?;
    let mut content = Vec::with_capacity(pages * CONTENT_BYTES);
    for (number, page) in (first..).zip(bytes.chunks_exact(PAGE_BYTES)) {
        let (own, sum) = page.split_at(CONTENT_BYTES);
        if checksum(number, own) != sum {
            return Err(PageError::Damaged { page: number });
        }
        content.extend_from_slice(own);
    }
    content.drain(..skip);
    content.truncate(len);
    Ok(content)
}
