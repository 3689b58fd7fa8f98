//! Is the student better? Metrics, and the evaluation that computes them.

pub mod bleu;
pub mod chrf;
pub mod compare;
pub mod conditions;
pub mod distinct;
pub mod evaluate;
pub mod exact_match;
pub mod exposure;
pub mod interval;
pub mod judged;
pub mod kept;
pub mod metric;
mod ngrams;
pub mod outcome;
mod partial;
pub mod porter;
pub mod protocol;
pub mod rank_correlation;
pub mod repetition;
pub mod rouge;
pub(crate) mod rows;
pub mod signature;
pub mod suite;
pub mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod text_fixture;
pub mod token_view;
mod whitespace;
pub mod words;
