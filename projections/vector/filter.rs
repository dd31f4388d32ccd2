//! Which rows a search wants.

use crate::vector::past::Past;
use crate::vector::slab::Slab;

/// Which rows a search wants.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Numbers of the types wanted; `None`: all.
    pub(crate) kinds: Option<Vec<u32>>,
    /// The moment at which a row must be true; `None`: at any time.
    pub(crate) valid_at: Option<u64>,
    /// The record after which a row must have been there; `None`: it is there now.
    pub(crate) as_of: Option<u64>,
}

impl Filter {
    /// Whether every row of the present passes.
    pub(crate) const fn passes_all(&self) -> bool {
        self.kinds.is_none() && self.valid_at.is_none() && self.as_of.is_none()
    }

    /// This filter as far as it tells rows of `slab` apart: where none has a time, each is true at any.
    pub(crate) fn on(&self, slab: &Slab) -> Self {
        Self { valid_at: self.valid_at.filter(|_| slab.spanned > 0), ..self.clone() }
    }

    /// Whether what a row says of its entity matters.
    pub(crate) const fn asks_of_entities(&self) -> bool {
        self.kinds.is_some() || self.valid_at.is_some()
    }

    pub(crate) fn wants_kind(&self, kind: u32) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }
}

/// A filter on the rows of one scope, whose entities were something else before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) filter: &'a Filter,
    pub(crate) past: &'a Past,
}
