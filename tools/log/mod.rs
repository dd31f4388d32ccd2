//! Looking at a log: its end, its events, its figures, whether it is what was written, and proofs of it for others.

mod check;
mod line;
mod overview;
mod payload;
mod proof;
mod salvage;
mod tail;
mod talk;

pub use check::{Intact, verify};
pub use line::Line;
pub use overview::{Overview, origin_lines, overview};
pub use proof::{CheckError, ProofFile, Proved, ProvedHead, prove, prove_growth};
pub use salvage::{Loss, Remains, SalvageError, salvage, survey};
pub use tail::{Tail, tail};
