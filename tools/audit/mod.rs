//! Who did what, when and why: questions to the log as they are typed, answers as others read them, and the way from a
//! fact back to what led to it.
//!
//! Reading order: [`Asked`] (questions), [`Answer`] (walking through the log), [`Format`] and [`Writing`] (how it is written),
//! [`why()`] (causes).

mod answer;
mod asked;
mod format;
mod subject;
mod tree;
mod why;

pub use answer::{Answer, AnswerError};
pub use asked::{Asked, Wrong, ago};
pub use format::{FORMATS, Format, Summary, Unread, Writing};
pub use subject::{Subject, SubjectError};
pub use tree::{Cause, Step, TurnShown, Why};
pub use why::{WhyError, WhyOptions, why};
