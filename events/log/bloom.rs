//! Which streams, actors and correlations a block may hold: a Bloom filter of about ten bits an item.

use crate::log::chain::{self, Hash};
use crate::log::header::array;
use crate::log::lanes::hash_each;

/// What an item is, so that an actor named like a stream is not taken for it.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Item {
    Stream = 1,
    Actor = 2,
    Correlation = 3,
}

/// Largest filter, in bytes.
pub(crate) const FILTER_BYTES_MAX: usize = 1 << 10;
/// Smallest filter, in bytes.
const FILTER_BYTES_MIN: usize = 8;
const BITS_PER_ITEM: usize = 10;
/// Longest item, with its tag, that is hashed from the stack: longer than any name.
const ITEM_BYTES: usize = 192;
/// Below this a filter would say "maybe" to nearly everything: it is left out instead.
const BITS_PER_ITEM_MIN: usize = 4;
/// Bits set for an item.
const PROBES: u64 = 7;
/// Places in which items of one sort are remembered, so that what comes again soon is hashed once.
const PLACES: usize = 32;

/// The 64 bits of an item that the filter is made from.
pub(crate) fn item_hash(item: Item, text: &str) -> u64 {
    let (mut short, long): ([u8; ITEM_BYTES], Vec<u8>);
    // A name fits: then nothing is allocated, and blake3 need not set up its state for long inputs.
    let input = if text.len() < ITEM_BYTES {
        short = [0; ITEM_BYTES];
        short[0] = item as u8;
        short[1..=text.len()].copy_from_slice(text.as_bytes());
        &short[..=text.len()]
    } else {
        long = [&[item as u8], text.as_bytes()].concat();
        &long
    };
    first_bits(&chain::hash(input))
}

/// Items on their way to be hashed side by side.
#[derive(Default)]
pub(crate) struct Items {
    /// Each with its tag in front, one after the other.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Items {
    pub(crate) fn push(&mut self, item: Item, text: &str) {
        self.bytes.push(item as u8);
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(self.bytes.len());
    }

    /// Of each, in order, what [`item_hash`] gives.
    pub(crate) fn hashes(&self) -> Vec<u64> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let inputs: Vec<&[u8]> =
            starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end]).collect();
        hash_each(&inputs).iter().map(first_bits).collect()
    }
}

fn first_bits(hash: &Hash) -> u64 {
    u64::from_le_bytes(array(&hash.0[..8]))
}

/// The items of a block's events. Neighbours mostly share them, so what was there shortly before is not taken in again.
#[derive(Default)]
pub(crate) struct BlockItems {
    items: Items,
    /// Where in the bytes of `items` the text of the last item of each place lies, for each sort of item. No text ends at 0,
    /// where a tag stands before it.
    places: [[(usize, usize); PLACES]; 3],
}

impl BlockItems {
    #[inline]
    pub(crate) fn push(&mut self, item: Item, text: &str) {
        let place = &mut self.places[item as usize - 1][place_of(text)];
        let (start, end) = *place;
        if end > 0 && self.items.bytes[start..end] == *text.as_bytes() {
            return;
        }
        self.items.push(item, text);
        let end = self.items.bytes.len();
        *place = (end - text.len(), end);
    }

    /// Whether this filter lets all of them pass.
    pub(crate) fn may_be_in(&self, filter: &[u8]) -> bool {
        filter.is_empty() || self.items.hashes().into_iter().all(|item| may_contain(filter, item))
    }
}

/// The place of a text: names that are in use together mostly differ in how they end.
fn place_of(text: &str) -> usize {
    let [before, last] = text.as_bytes().last_chunk::<2>().copied().unwrap_or_default();
    (usize::from(before) * 7 + usize::from(last) + text.len()) % PLACES
}

/// The filter over these items (repetitions are taken out). Empty when there are too many to tell apart.
pub(crate) fn build(mut items: Vec<u64>) -> Vec<u8> {
    items.sort_unstable();
    items.dedup();
    if items.len() * BITS_PER_ITEM_MIN > FILTER_BYTES_MAX * 8 {
        return Vec::new();
    }
    let bytes = (items.len() * BITS_PER_ITEM / 8).next_power_of_two();
    let mut filter = vec![0; bytes.clamp(FILTER_BYTES_MIN, FILTER_BYTES_MAX)];
    for item in items {
        for bit in probes(item, filter.len()) {
            filter[bit / 8] |= 1 << (bit % 8);
        }
    }
    filter
}

/// Whether the block may hold the item; "no" is certain.
pub(crate) fn may_contain(filter: &[u8], item: u64) -> bool {
    filter.is_empty() || probes(item, filter.len()).all(|bit| filter[bit / 8] & (1 << (bit % 8)) != 0)
}

/// Whether a stored filter has a length [`build`] can give.
pub(crate) fn is_well_formed(filter: &[u8]) -> bool {
    filter.is_empty()
        || (filter.len().is_power_of_two() && (FILTER_BYTES_MIN..=FILTER_BYTES_MAX).contains(&filter.len()))
}

fn probes(item: u64, bytes: usize) -> impl Iterator<Item = usize> {
    let mask = bytes as u64 * 8 - 1;
    let (start, step) = (item & 0xffff_ffff, item >> 32 | 1);
    (0..PROBES).map(move |probe| (start.wrapping_add(probe * step) & mask) as usize)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{BlockItems, Item, Items, build, is_well_formed, item_hash, may_contain};

    #[track_caller]
    fn check(count: usize, false_positives_max: usize) {
        let inside: Vec<u64> = (0..count).map(|n| item_hash(Item::Stream, &n.to_string())).collect();
        let filter = build(inside.iter().chain(&inside).copied().collect());
        assert!(is_well_formed(&filter));
        assert!(inside.iter().all(|item| may_contain(&filter, *item)));
        let outside = (0..10_000).map(|n| item_hash(Item::Actor, &n.to_string()));
        let wrong = outside.filter(|item| may_contain(&filter, *item)).count();
        assert!(wrong <= false_positives_max, "{count} items: {wrong} of 10000");
    }

    #[test]
    fn items_hashed_together_are_those_hashed_alone() {
        for count in [0, 1, 3, 4, 17, 250] {
            let texts: Vec<String> = (0..count).map(|n| "name".repeat(n * 7 % 60)).collect();
            let mut items = Items::default();
            for text in &texts {
                items.push(Item::Actor, text);
            }
            let alone: Vec<u64> = texts.iter().map(|text| item_hash(Item::Actor, text)).collect();
            assert_eq!(items.hashes(), alone);
        }
    }

    #[test]
    fn the_items_of_a_block_are_all_taken_in_however_often_they_come_again() {
        let sorts = [Item::Stream, Item::Actor, Item::Correlation];
        for count in [0, 1, 2, 31, 33, 300] {
            // The empty text is an item like any other, and one text is three items.
            let mut texts: Vec<String> =
                (0..count).map(|n| format!("{}{}", "n".repeat(n % 3), n / 3)).collect();
            texts.push(String::new());
            let mut items = BlockItems::default();
            for again in 0..3 {
                for text in texts.iter().chain(texts.iter().take(again)) {
                    for sort in sorts {
                        items.push(sort, text);
                    }
                }
            }
            let all: Vec<u64> =
                texts.iter().flat_map(|text| sorts.map(|sort| item_hash(sort, text))).collect();
            let (taken, then): (BTreeSet<u64>, BTreeSet<u64>) =
                (items.items.hashes().into_iter().collect(), all.iter().copied().collect());
            assert_eq!(taken, then);
            assert!(count > 2 || items.items.ends.len() == all.len(), "each is taken in once");
            assert!(items.may_be_in(&build(all)) && items.may_be_in(&[]) && !items.may_be_in(&[0; 8]));
        }
    }

    #[test]
    fn what_is_inside_is_always_found_and_what_is_not_seldom() {
        for (count, false_positives_max) in
            [(0, 0), (1, 50), (3, 200), (50, 200), (800, 200), (2_000, 3_000), (2_049, 10_000)]
        {
            check(count, false_positives_max);
        }
    }
}
