//! Looking at a log: its end, its events, its figures, and whether it is what was written.

mod check;
mod line;
mod overview;
mod payload;
mod tail;
mod talk;

pub use check::{Intact, verify};
pub use line::Line;
pub use overview::{Overview, overview};
pub use tail::{Tail, tail};
