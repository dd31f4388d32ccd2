//! Two folds of the same records as sets of rows: in which order they lie, and in which slot a vector is, means nothing.

use std::cmp::Ordering;

use caxton_events::Scope;

use super::Vectors;
use super::past::Past;
use super::shared::{Kinds, Shared};
use super::slab::{Block, RowKey, Spans};
use crate::difference::{Difference, PartDigest};

const PART: &str = "vectors";

/// A row, of the present or closed: where it stands, and the hash of all it says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    scope: Scope,
    key: RowKey,
    content: [u8; 32],
}

/// Every row of the present and every closed one, by scope and key.
fn places(shared: &Shared) -> Vec<Place> {
    let mut places = Vec::new();
    let kinds = shared.kinds();
    for cell in shared.cells() {
        let view = cell.view();
        for slab in [&view.slab, &view.closed] {
            let alive = (0..slab.rows).map(|row| slab.locate(row)).filter(|(block, at)| block.is_alive(*at));
            places.extend(alive.map(|(block, at)| {
                let content = content(block, at, &view.past, &kinds);
                Place { scope: cell.scope.clone(), key: block.keys[at], content }
            }));
        }
    }
    places.sort_unstable();
    places
}

/// The hash of all that a row says.
fn content(block: &Block, at: usize, past: &Past, kinds: &Kinds) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&block.entities[at].0.to_le_bytes());
    let Spans { own, entity, told } = block.spans_of(at);
    let records = [block.created[at], block.closed.get(at).copied().unwrap_or(u64::MAX)];
    for number in [own.from, own.to].into_iter().chain(records) {
        hasher.update(&number.to_le_bytes());
    }
    let described = std::iter::once((u64::MAX, block.kinds[at], entity));
    let before = past.of(told).map(|was| (was.until, was.kind, was.span));
    for (until, kind, span) in described.chain(before) {
        let kind = kinds.names.get(kind as usize).map_or("", AsRef::as_ref);
        hasher.update(&(kind.len() as u64).to_le_bytes()).update(kind.as_bytes());
        for number in [until, span.from, span.to] {
            hasher.update(&number.to_le_bytes());
        }
    }
    hasher.update(&block.scales[at].to_le_bytes());
    hasher.update(&block.codes[at].0.map(|step| step as u8));
    *hasher.finalize().as_bytes()
}

impl Vectors {
    /// BLAKE3 over all rows, by scope and number: what each is of, when it holds, which records made and closed it, and
    /// its vector in eight bits.
    pub fn part(&self) -> PartDigest {
        let places = places(&self.shared);
        let mut hasher = blake3::Hasher::new();
        for place in &places {
            let scope = place.scope.to_string();
            hasher.update(&(scope.len() as u64).to_le_bytes()).update(scope.as_bytes());
            hasher.update(&place.key.0.to_le_bytes()).update(&place.content);
        }
        PartDigest { part: PART, digest: *hasher.finalize().as_bytes(), rows: places.len() as u64 }
    }

    /// The first row, by scope and number, that one has and the other has not, or has otherwise.
    pub fn difference(&self, other: &Self) -> Option<Difference> {
        let (first, second) = (places(&self.shared), places(&other.shared));
        let (mut here, mut there) = (first.iter().peekable(), second.iter().peekable());
        loop {
            let order = match (here.peek(), there.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(one), Some(other)) if one == other => {
                    here.next();
                    there.next();
                    continue;
                }
                (Some(one), Some(other)) => (&one.scope, one.key).cmp(&(&other.scope, other.key)),
            };
            let one = here.peek().filter(|_| order.is_le());
            let other = there.peek().filter(|_| order.is_ge());
            let scope = one.or(other).map_or_else(String::new, |place| place.scope.to_string());
            let shown = |place: &&Place| format!("{}, content {}", named(place.key), hex(&place.content));
            return Some(Difference {
                part: PART,
                table: scope,
                first: one.copied().map(|place| shown(&place)),
                second: other.copied().map(|place| shown(&place)),
            });
        }
    }

    /// Takes another fold in the place of the present one, if both include the same records; else gives it back, to be
    /// folded further. Searches see the one or the other.
    ///
    /// # Errors
    ///
    /// The fold, untouched.
    pub fn replace(&mut self, fold: Self) -> Result<(), Box<Self>> {
        if fold.shared.checkpoint() != self.shared.checkpoint() {
            return Err(Box::new(fold));
        }
        self.shared.take_over(&fold.shared);
        self.entities.clone_from(&fold.entities);
        // So that it is saved although no record was folded.
        self.unsaved = self.unsaved.max(1);
        self.builder.wake();
        Ok(())
    }
}

fn named(key: RowKey) -> String {
    format!("row {} piece {}", key.row().0, key.chunk())
}

fn hex(content: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*content).to_hex().chars().take(12).collect()
}
