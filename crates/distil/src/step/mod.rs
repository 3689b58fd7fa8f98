//! One optimiser step: what it works with, its gradient, and AdamW.
//!
//! Methods fill the gradient, the training loop hands it to the optimiser.

mod gradients;
mod optimizer;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub use gradients::Gradients;
pub(crate) use optimizer::Optimizer;

/// One optimiser step's surroundings.
pub struct Work {
    /// Where the step's gradient adds up.
    pub gradients: Gradients,
    /// Tokens computed at once.
    pub micro_batch_tokens: usize,
    /// Optimiser step, from 1.
    pub step: usize,
    /// Seed of the run.
    pub seed: u64,
    /// Time spent in each phase.
    pub phases: Phases,
    /// Rows of a whole step; the last of an epoch may have fewer.
    pub batch: usize,
    /// Share of the run that is done before this step, in [0, 1].
    pub progress: f64,
    /// ‖∂ term / ∂ logits‖² over the step, of each term of the loss as it enters it.
    pub logit_squares: BTreeMap<&'static str, f64>,
}

impl Work {
    /// Adds to a term's share of the gradient in the student's logits.
    pub(crate) fn logit_gradient(&mut self, term: &'static str, square: f64) {
        *self.logit_squares.entry(term).or_default() += square;
    }
}

/// Seconds by phase.
#[derive(Clone, Debug, Default)]
pub struct Phases(pub BTreeMap<&'static str, Duration>);

impl Phases {
    /// Adds to the clock of `phase`.
    pub fn add(&mut self, phase: &'static str, time: Duration) {
        *self.0.entry(phase).or_default() += time;
    }

    /// Runs `f` on the clock of `phase`.
    pub fn time<R>(&mut self, phase: &'static str, f: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let result = f();
        *self.0.entry(phase).or_default() += start.elapsed();
        result
    }
}
