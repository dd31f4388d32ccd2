//! Pages that are in the journal and not home yet.

use std::collections::BTreeMap;

/// Pieces of the file, none overlapping another, by offset.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    pieces: BTreeMap<u64, Piece>,
    unsaved_bytes: usize,
}

#[derive(Debug)]
struct Piece {
    bytes: Box<[u8]>,
    /// Whether no record holds it yet.
    unsaved: bool,
}

impl Overlay {
    /// Bytes that no record holds yet.
    pub(super) const fn unsaved_bytes(&self) -> usize {
        self.unsaved_bytes
    }

    /// Every piece with its offset.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pieces.iter().map(|(offset, piece)| (*offset, &*piece.bytes))
    }

    /// The pieces that no record holds yet.
    pub(super) fn unsaved(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let unsaved = self.pieces.iter().filter(|(_, piece)| piece.unsaved);
        unsaved.map(|(offset, piece)| (*offset, &*piece.bytes))
    }

    /// Takes note that a record holds every piece.
    pub(super) fn save(&mut self) {
        self.pieces.values_mut().for_each(|piece| piece.unsaved = false);
        self.unsaved_bytes = 0;
    }

    /// Forgets every piece: all are home.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.unsaved_bytes = 0;
    }

    /// Puts bytes in place of what was there.
    pub(super) fn put(&mut self, offset: u64, bytes: &[u8], unsaved: bool) {
        if bytes.is_empty() {
            return;
        }
        match self.pieces.get_mut(&offset) {
            Some(piece) if piece.bytes.len() == bytes.len() => {
                piece.bytes.copy_from_slice(bytes);
                if unsaved && !piece.unsaved {
                    piece.unsaved = true;
                    self.unsaved_bytes += bytes.len();
                }
            }
            Some(_) | None => {
                self.cut(offset, offset + bytes.len() as u64);
                self.insert(offset, bytes.into(), unsaved);
            }
        }
    }

    /// Forgets what lies between `start` and `end`, which was written to its place.
    pub(super) fn cover(&mut self, start: u64, end: u64) {
        self.cut(start, end);
    }

    /// Whether every piece lies inside of `start` and `end` or outside.
    pub(super) fn cuts_nothing(&self, start: u64, end: u64) -> bool {
        self.overlapping(start, end).all(|(offset, piece)| start <= offset && offset + piece.len() <= end)
    }

    /// Reads from a single piece, if there is one that holds it all.
    pub(super) fn read_whole(&self, offset: u64, out: &mut [u8]) -> bool {
        let Some((start, piece)) = self.pieces.range(..=offset).next_back() else {
            return false;
        };
        let from = (offset - start) as usize;
        let Some(bytes) = piece.bytes.get(from..from + out.len()) else {
            return false;
        };
        out.copy_from_slice(bytes);
        true
    }

    /// Lays the pieces over `out`, which was read from home at `offset`.
    pub(super) fn patch(&self, offset: u64, out: &mut [u8]) {
        let end = offset + out.len() as u64;
        for (start, piece) in self.overlapping(offset, end) {
            let (from, to) = (start.max(offset), (start + piece.len()).min(end));
            let bytes = &piece.bytes[(from - start) as usize..(to - start) as usize];
            out[(from - offset) as usize..(to - offset) as usize].copy_from_slice(bytes);
        }
    }

    fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, &Piece)> {
        let before =
            self.pieces.range(..start).next_back().filter(move |(at, piece)| *at + piece.len() > start);
        before.into_iter().chain(self.pieces.range(start..end.max(start))).map(|(at, piece)| (*at, piece))
    }

    /// Takes everything between `start` and `end` out; what reaches beyond stays, as pieces of its own.
    fn cut(&mut self, start: u64, end: u64) {
        let places: Vec<u64> = self.overlapping(start, end).map(|(offset, _)| offset).collect();
        for offset in places {
            let Some(piece) = self.pieces.remove(&offset) else { continue };
            if piece.unsaved {
                self.unsaved_bytes -= piece.bytes.len();
            }
            let after = offset + piece.len();
            if offset < start {
                self.insert(offset, piece.bytes[..(start - offset) as usize].into(), piece.unsaved);
            }
            if after > end {
                self.insert(end, piece.bytes[(end - offset) as usize..].into(), piece.unsaved);
            }
        }
    }

    fn insert(&mut self, offset: u64, bytes: Box<[u8]>, unsaved: bool) {
        if unsaved {
            self.unsaved_bytes += bytes.len();
        }
        self.pieces.insert(offset, Piece { bytes, unsaved });
    }
}

impl Piece {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}
