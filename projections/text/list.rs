//! The postings of one word: which documents hold it and how much it counts there, in the order of their numbers.
//!
//! A posting is the distance to the one before as LEB128, shifted by one bit that says whether a byte with the weight
//! follows; without it the weight is the usual one of the shelf. Documents are looked at in windows of
//! [`WINDOW`] numbers, and a list knows for each window where its postings begin and what they can be worth at most, so that
//! whole windows are passed over ("block-max" indexes: S. Ding and T. Suel, "Faster top-k document retrieval using
//! block-max indexes", 2011, here with blocks that are the same for every word).

/// Documents in a window; a power of two.
pub(super) const WINDOW: u32 = 4_096;

/// Where the postings of a window lie and what bounds their score.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// Its documents are those from `number × WINDOW` on.
    pub(super) number: u32,
    /// Where its first posting begins.
    at: u32,
    /// The document of the posting before, which distances count from.
    before: u32,
    /// The largest weight of a posting.
    pub(super) peak: u8,
    /// The length of the shortest document, in words, cut to what a `u16` holds.
    pub(super) shortest: u16,
}

/// One word's postings in one shelf.
#[derive(Debug, Default)]
pub(super) struct List {
    bytes: Vec<u8>,
    /// Those with postings, in their order.
    windows: Vec<Window>,
    last: u32,
    /// Documents that hold the word.
    pub(super) count: u32,
    /// How many of these are not in the present.
    pub(super) gone: u32,
}

impl List {
    /// Adds the posting of `document`, which is behind all others, with a weight above 0. Returns how many bytes that took.
    pub(super) fn push(&mut self, document: u32, weight: u8, len: u16, usual: u8) -> usize {
        let number = document / WINDOW;
        let (bytes, windows) = (self.bytes.len(), self.windows.len());
        let before = if self.count == 0 { 0 } else { self.last };
        match self.windows.last_mut() {
            Some(window) if window.number == number => {
                window.peak = window.peak.max(weight);
                window.shortest = window.shortest.min(len);
            }
            Some(_) | None => {
                let at = self.bytes.len() as u32;
                self.windows.push(Window { number, at, before, peak: weight, shortest: len });
            }
        }
        let mut value = (u64::from(document - before) << 1) | u64::from(weight != usual);
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
        if weight != usual {
            self.bytes.push(weight);
        }
        self.last = document;
        self.count += 1;
        self.bytes.len() - bytes + (self.windows.len() - windows) * size_of::<Window>()
    }

    /// The windows that have postings.
    pub(super) fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Calls `each` with the document and the weight of every posting in the window at `place` of [`windows`](Self::windows).
    pub(super) fn each_in(&self, place: usize, usual: u8, each: impl FnMut(u32, u8)) {
        let Some(window) = self.windows.get(place) else { return };
        let end = self.windows.get(place + 1).map_or(self.bytes.len(), |next| next.at as usize);
        decode(self.bytes.get(window.at as usize..end).unwrap_or_default(), window.before, usual, each);
    }

    /// The same for every posting there is.
    pub(super) fn each(&self, usual: u8, each: impl FnMut(u32, u8)) {
        decode(&self.bytes, 0, usual, each);
    }
}

#[inline]
fn decode(bytes: &[u8], before: u32, usual: u8, mut each: impl FnMut(u32, u8)) {
    let mut bytes = bytes.iter();
    let mut document = before;
    while let Some(&first) = bytes.next() {
        let mut value = u64::from(first & 0x7F);
        let mut byte = first;
        let mut shift = 7;
        while byte >= 0x80 {
            let Some(&next) = bytes.next() else { return };
            value |= u64::from(next & 0x7F) << shift;
            shift += 7;
            byte = next;
        }
        document += (value >> 1) as u32;
        let weight = if value & 1 == 0 { usual } else { bytes.next().copied().unwrap_or(usual) };
        each(document, weight);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{List, WINDOW};

    fn postings() -> impl Strategy<Value = Vec<(u32, u8, u16)>> {
        let step = prop_oneof![1_u32..4, 1_u32..300, 1_u32..3 * WINDOW];
        prop::collection::vec((step, 1_u8..=255, 0_u16..500), 0..200).prop_map(|steps| {
            let mut document = 0;
            let add = |(index, (step, weight, len)): (usize, (u32, u8, u16))| {
                document += if index == 0 { step - 1 } else { step };
                (document, weight, len)
            };
            steps.into_iter().enumerate().map(add).collect()
        })
    }

    proptest! {
        #[test]
        fn a_list_gives_back_what_was_put_into_it(postings in postings(), usual in 1_u8..4) {
            let mut list = List::default();
            for &(document, weight, len) in &postings {
                list.push(document, weight, len, usual);
            }
            let mut found = Vec::new();
            list.each(usual, |document, weight| found.push((document, weight)));
            let expected: Vec<(u32, u8)> = postings.iter().map(|&(document, weight, _)| (document, weight)).collect();
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(list.count as usize, postings.len());

            found.clear();
            for (place, window) in list.windows().iter().enumerate() {
                let from = found.len();
                list.each_in(place, usual, |document, weight| found.push((document, weight)));
                let inside: Vec<_> = postings.iter().filter(|(document, ..)| document / WINDOW == window.number).collect();
                prop_assert_eq!(found.len() - from, inside.len());
                prop_assert_eq!(Some(window.peak), inside.iter().map(|(_, weight, _)| *weight).max());
                prop_assert_eq!(Some(window.shortest), inside.iter().map(|(.., len)| *len).min());
            }
            prop_assert_eq!(found, expected);
        }
    }
}
