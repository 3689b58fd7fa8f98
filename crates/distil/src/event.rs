//! What a run says while it goes on: to whoever listens, and of each step to `metrics.jsonl`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

/// What happens during a run.
#[derive(Debug)]
pub enum Event<'a> {
    /// Something worth saying once.
    Note(&'a str),
    /// Something that is going wrong.
    Warning(&'a str),
    /// Long work moves on; a `total` of 0 is not known.
    Progress {
        /// What is being done.
        what: &'a str,
        /// Units done.
        done: usize,
        /// Units in all.
        total: usize,
    },
    /// An optimiser step was made.
    Step(&'a StepLine),
    /// The student was measured; step 0 is before training.
    Evaluated {
        /// Optimiser steps made.
        step: usize,
        /// Metrics by name.
        metrics: &'a [(String, f64)],
    },
    /// A checkpoint was written.
    Saved {
        /// Optimiser steps made.
        step: usize,
        /// Its folder.
        path: &'a Path,
    },
}

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, Serialize)]
pub struct StepLine {
    /// Optimiser step, from 1.
    pub step: usize,
    /// Steps of the whole run.
    pub steps: usize,
    /// Steps that are still to come, see [`steps_left`].
    #[serde(skip)]
    pub left: usize,
    /// Passes over the training rows so far.
    pub epoch: f64,
    /// Response tokens trained on so far.
    pub tokens: u64,
    /// The loss.
    pub loss: f64,
    /// Terms of the loss and the method's diagnostics.
    #[serde(flatten)]
    pub terms: BTreeMap<&'static str, f64>,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Norm of each term's own gradient in the student's logits, all response tokens of the step
    /// together, as the term enters the loss.
    pub logit_gradients: BTreeMap<&'static str, f64>,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Response tokens trained on, a second of this step.
    pub tokens_per_second: f64,
    /// Seconds of this step.
    pub seconds: f64,
    /// Seconds by phase.
    pub phases: BTreeMap<&'static str, f64>,
}

/// Optimiser steps that are still to come after `step` of `steps`. A run that ends after `most`
/// response tokens needs as many as these take at the rate of the `tokens` so far.
pub fn steps_left(step: usize, steps: usize, tokens: u64, most: Option<u64>) -> usize {
    let left = steps.saturating_sub(step);
    match most {
        Some(most) if step > 0 && tokens > 0 => {
            let of_tokens = most.saturating_sub(tokens) as f64 / tokens as f64 * step as f64;
            left.min(of_tokens.ceil() as usize)
        }
        _ => left,
    }
}
