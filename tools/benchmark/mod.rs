//! What benchmarks found: results that can be kept, graded against the targets, shown as a page, and compared.
//!
//! Reading order: [`results`] (what is kept), [`baselines`] (what criterion keeps), [`targets`] (what is good enough), [`rounds`] (several runs as one),
//! [`compare`](mod@compare) (what became worse), [`page`](mod@page) (for people).

pub mod baselines;
pub mod compare;
pub mod page;
pub mod results;
pub mod rounds;
pub mod targets;

pub use baselines::{CriterionError, read_criterion};
pub use compare::{Change, CompareError, Comparison, Verdict, compare};
pub use page::page;
pub use results::{
    Better, Figure, Interval, Machine, Middle, Part, Percentiles, ReadError, Results, Setting, read_results,
    read_run,
};
pub use rounds::of_rounds;
pub use targets::{Grade, Target};
