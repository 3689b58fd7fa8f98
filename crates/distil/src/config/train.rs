//! `[train]`: AdamW (arXiv 1711.05101), its schedule, and what is kept of the run.

use serde::{Deserialize, Serialize};

use super::data::Data;
use super::document::Document;
use super::eval::Eval;
use super::given::GivenTrain;
use super::method::Method;
use crate::Result;

/// The optimiser and its loop.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Train {
    /// How long the run is.
    #[serde(flatten)]
    pub length: Length,
    /// Response tokens after which the run ends early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Sequences an optimiser step.
    pub batch: usize,
    /// Tokens computed at once; at least the longest sequence.
    pub micro_batch_tokens: usize,
    /// Largest learning rate, in (0, 1].
    pub learning_rate: f64,
    /// How the learning rate falls.
    pub schedule: Schedule,
    /// Steps in which the learning rate rises from 0.
    pub warmup_steps: usize,
    /// Learning rate at the end as a share of the largest, in [0, 1].
    pub min_learning_rate_ratio: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay of the gradient's running mean, in [0, 1).
    pub beta1: f64,
    /// Decay of the squared gradient's running mean, in [0, 1).
    pub beta2: f64,
    /// Added to the root of the squared gradient's mean.
    pub epsilon: f64,
    /// Largest norm of the whole gradient; 0 is off.
    pub clip_norm: f64,
    /// Steps between checkpoints; 0 is only at the end and on Ctrl-C.
    pub checkpoint_every: usize,
    /// Checkpoints kept, newest first; at least 1.
    pub keep_last: usize,
    /// Whether the best checkpoint is kept, too.
    pub keep_best: bool,
    /// Whether the backward pass computes each layer's activations again instead of keeping them.
    pub recompute: bool,
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Length {
    /// Optimiser steps.
    Steps(usize),
    /// Passes over the training rows; a part of a pass is allowed.
    Epochs(f64),
}

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Along half a cosine.
    Cosine,
    /// Along a straight line.
    Linear,
    /// Not at all.
    Constant,
}

impl Schedule {
    /// The name as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Linear => "linear",
            Self::Constant => "constant",
        }
    }
}

impl Train {
    /// Optimiser steps of a run over `rows` training rows, at least 1; the last step of an epoch may be a part of a batch.
    pub fn steps(&self, rows: usize) -> usize {
        match self.length {
            Length::Steps(steps) => steps,
            // A cast from a float saturates; both factors are far below 2^53.
            Length::Epochs(epochs) => {
                ((epochs * rows as f64 / self.batch as f64).ceil() as usize).max(1)
            }
        }
    }
}

pub(crate) fn resolve(
    given: GivenTrain,
    data: &Data,
    method: &Method,
    eval: &Eval,
    document: &Document,
) -> Result<Train> {
    let length = match (given.steps, given.epochs) {
        (Some(_), Some(_)) => {
            return Err(document.refuse(
                "train.epochs",
                "does not go together with train.steps",
                "remove one of the two",
            ));
        }
        (Some(steps), None) => Length::Steps(steps),
        (None, epochs) => Length::Epochs(epochs.unwrap_or(1.0)),
    };
    let warmup_steps = given.warmup_steps.unwrap_or(0);
    if let Length::Steps(steps) = length
        && warmup_steps >= steps
    {
        let what =
            format!("{warmup_steps} steps of warm-up leave nothing of a run of {steps} steps");
        return Err(document.refuse(
            "train.warmup_steps",
            what,
            "make it smaller than train.steps",
        ));
    }
    let schedule = given.schedule.unwrap_or(Schedule::Cosine);
    let min_learning_rate_ratio = given.min_learning_rate_ratio.unwrap_or(0.0);
    if schedule == Schedule::Constant && min_learning_rate_ratio > 0.0 {
        let fix = "remove it, or choose schedule = \"cosine\" or \"linear\"";
        return Err(document.refuse(
            "train.min_learning_rate_ratio",
            "schedule \"constant\" never falls",
            fix,
        ));
    }
    let micro_batch_tokens = given.micro_batch_tokens.unwrap_or(4096);
    let longest = data
        .max_prompt_tokens
        .saturating_add(method.longest_response(data));
    if micro_batch_tokens < longest {
        let what = format!(
            "{micro_batch_tokens} tokens cannot hold the longest sequence, {longest} tokens of prompt and response"
        );
        let fix = format!(
            "set it to {longest} or more, or lower data.max_prompt_tokens or the limit of responses"
        );
        return Err(document.refuse("train.micro_batch_tokens", what, fix));
    }
    let keep_best = given.keep_best.unwrap_or(eval.best_metric.is_some());
    if keep_best && eval.best_metric.is_none() {
        let fix = "set data.eval and eval.metrics, or keep_best = false";
        return Err(document.refuse(
            "train.keep_best",
            "nothing is measured that could say which checkpoint is best",
            fix,
        ));
    }
    Ok(Train {
        length,
        tokens: given.tokens,
        batch: given.batch.unwrap_or(32),
        micro_batch_tokens,
        learning_rate: given.learning_rate.unwrap_or(1e-5),
        schedule,
        warmup_steps,
        min_learning_rate_ratio,
        weight_decay: given.weight_decay.unwrap_or(0.01),
        beta1: given.beta1.unwrap_or(0.9),
        beta2: given.beta2.unwrap_or(0.999),
        epsilon: given.epsilon.unwrap_or(1e-8),
        clip_norm: given.clip_norm.unwrap_or(1.0),
        checkpoint_every: given.checkpoint_every.unwrap_or(eval.every),
        keep_last: given.keep_last.unwrap_or(2),
        keep_best,
        recompute: given.recompute.unwrap_or(false),
    })
}
