//! Is the student better? Metrics, and the evaluation that computes them.

pub mod exact_match;
pub mod porter;
pub mod rouge;
