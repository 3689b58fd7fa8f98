//! Is the student better? Metrics, and the evaluation that computes them.

pub mod evaluate;
pub mod exact_match;
pub mod metric;
pub mod porter;
pub mod rank_correlation;
pub mod rouge;
