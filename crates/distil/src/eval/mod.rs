//! Is the student better? Metrics, and the evaluation that computes them.

pub mod bleu;
pub mod chrf;
pub mod distinct;
pub mod evaluate;
pub mod exact_match;
pub mod metric;
mod ngrams;
pub mod porter;
pub mod rank_correlation;
pub mod repetition;
pub mod rouge;
pub mod signature;
#[cfg(test)]
mod text_fixture;
mod whitespace;
pub mod words;
