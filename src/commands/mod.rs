//! Wishes: what a client asks of the memory, and the pure decision that turns it into events or a refusal.
//!
//! Reading order: [`mod@write`] (what can be asked), [`refusal`] (why not), [`present`] (what a decision may know),
//! [`mod@decide`] (the rules), [`undo`] (what takes facts back).

mod check;
pub mod decide;
mod entities;
pub mod overlay;
pub mod present;
pub mod refusal;
mod relations;
mod seen;
#[cfg(test)]
mod seen_tests;
pub mod talk;
pub mod undo;
pub mod write;

#[cfg(test)]
mod tests;

pub use decide::{Decision, Happened, Ids, decide};
pub use overlay::Overlay;
pub use present::{Present, PresentEntity, PresentObservation, PresentRelation};
pub use refusal::{Refusal, RefusalCode};
pub use seen::Caller;
pub use write::{
    EntityChange, EntityRef, NewEntity, NewObservation, NewRelation, OnExisting, RelationChange, SweptRow,
    Write, WriteStatus, Written, WrittenKind,
};
