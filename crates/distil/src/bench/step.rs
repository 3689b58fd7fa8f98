//! A training step as training makes it, on random tokens: the teacher's and the student's forward
//! pass, the head with its loss, the backward pass and the optimiser.

use std::sync::Arc;

use burn::tensor::Tensor;
use distil_model::{Llama, Parameter};

use super::{Figures, Work, fits, forget_peak_rss, forward_operations, head_operations};
use super::{positive, random_ids};
use crate::config::{Length, Schedule, Train};
use crate::data::batch::PackedBatch;
use crate::data::example::Example;
use crate::error::Result;
use crate::method::pass::{Teacher, Texts, token_pass};
use crate::method::{Phases, Work as StepWork};
use crate::objective::DivergenceLoss;
use crate::train::{Gradients, Optimizer};

/// An off-policy step of word-level distillation on random tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepCase {
    /// Layers that the student keeps of the model; the teacher is the whole model.
    pub student_layers: usize,
    /// Sequences.
    pub batch: usize,
    /// Tokens of each, all of them with a loss.
    pub length: usize,
    /// Steps that are averaged, after one that is not counted.
    pub steps: usize,
}

/// The optimiser's settings: those that a run has by default.
const SETTINGS: Train = Train {
    length: Length::Steps(1),
    tokens: None,
    batch: 1,
    micro_batch_tokens: usize::MAX,
    learning_rate: 1e-5,
    schedule: Schedule::Constant,
    warmup_steps: 0,
    min_learning_rate_ratio: 0.0,
    weight_decay: 0.01,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    clip_norm: 1.0,
    checkpoint_every: 0,
    keep_last: 1,
    keep_best: false,
};

/// Measures a step: the student keeps `student_layers` evenly spaced layers of `model`.
///
/// # Errors
/// The model does not have so many layers, its context is shorter than a sequence, or a count is 0.
pub fn step(model: &Llama, case: &StepCase) -> Result<Figures> {
    let config = model.config();
    positive(&[
        ("batch", case.batch),
        ("length", case.length),
        ("steps", case.steps),
    ])?;
    fits(case.length, config.context)?;
    let keep = distil_model::prune::evenly_spaced(config.layers, case.student_layers)?;
    let mut student = own_copy(&model.with_layers(&keep)?).trainable();
    let teacher = Teacher {
        network: model.frozen(),
        vocabulary: config.vocabulary,
        states: None,
    };
    let ids = random_ids(case.batch * (case.length + 1), config.vocabulary);
    let examples: Vec<Example> = ids
        .chunks(case.length + 1)
        .filter_map(|ids| ids.split_first())
        .map(|(first, rest)| Example {
            prompt: vec![*first],
            response: rest.to_vec(),
            row: 0,
        })
        .collect();
    let examples: Vec<&Example> = examples.iter().collect();
    let objective = |batch: &PackedBatch| {
        let targets = Arc::from(&batch.target_ids[..]);
        Box::new(DivergenceLoss::forward_kl(targets)) as Box<_>
    };
    let mut optimizer = Optimizer::new(&SETTINGS, &student);
    let mut phases = Phases::default();
    forget_peak_rss();
    for number in 0..=case.steps {
        let mut work = StepWork {
            gradients: Gradients::default(),
            progress: 0.0,
            logit_squares: std::collections::BTreeMap::new(),
            micro_batch_tokens: SETTINGS.micro_batch_tokens,
            step: number + 1,
            seed: 0,
            // The first step allocates what the others reuse.
            phases: match number {
                0 | 1 => Phases::default(),
                _ => phases,
            },
            batch: case.batch,
        };
        token_pass(
            &student,
            Some(&teacher),
            Texts::fresh(&examples),
            1.0,
            &objective,
            &mut work,
        )?;
        let gradients = work.gradients;
        phases = work.phases;
        phases.time("optimiser", || {
            let scale = (SETTINGS.clip_norm / gradients.norm().max(f64::MIN_POSITIVE)).min(1.0);
            optimizer.update(&mut student, gradients, SETTINGS.learning_rate, scale);
        });
    }
    let mean =
        |(name, time): (_, std::time::Duration)| (name, time.as_secs_f64() / case.steps as f64);
    let (n, length) = ((case.batch * case.length) as f64, case.length as f64);
    let operations = forward_operations(&teacher.network, n, length)
        + head_operations(&teacher.network, n)
        + 3.0 * (forward_operations(&student, n, length) + head_operations(&student, n));
    let work = Work {
        bench: "step",
        case: format!(
            "off-policy kd, student {} of {} layers, {} × {} tokens",
            case.student_layers, config.layers, case.batch, case.length
        ),
        tokens: n,
        operations,
        least: Box::new(move |roof| roof.seconds(operations, 0.0)),
    };
    Ok(work.figures(phases.0.into_iter().map(mean).collect()))
}

/// A network that shares no memory with `network`, as a student that was loaded by itself.
fn own_copy(network: &Llama) -> Llama {
    let mut copy = network.frozen();
    for (_, parameter) in copy.parameters() {
        match parameter {
            Parameter::Vector(t) => t.inplace(|t| Tensor::from_data(t.to_data(), &t.device())),
            Parameter::Matrix(t) => t.inplace(|t| Tensor::from_data(t.to_data(), &t.device())),
        }
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_network;

    #[test]
    fn figures_are_complete() {
        let case = StepCase {
            student_layers: 2,
            batch: 2,
            length: 6,
            steps: 2,
        };
        let figures = step(&tiny_network(1), &case).unwrap();
        let phases: Vec<&str> = figures.phases.keys().copied().collect();
        assert_eq!(
            phases,
            [
                "backward",
                "head",
                "optimiser",
                "student_forward",
                "teacher"
            ]
        );
        let seconds: f64 = figures.phases.values().sum();
        assert!((figures.tokens_per_second * seconds - 12.0).abs() < 1e-6);
        if cfg!(target_os = "linux") {
            assert!(figures.peak_rss_bytes.is_some_and(|bytes| bytes > 1 << 20));
        }
        let json = serde_json::to_value(&figures).unwrap();
        for key in ["bench", "case", "precision", "gflops", "share_of_roof"] {
            assert!(!json[key].is_null(), "{key}");
        }
    }

    #[test]
    fn what_measures_nothing_is_refused() {
        let case = StepCase {
            student_layers: 2,
            batch: 0,
            length: 6,
            steps: 1,
        };
        let error = step(&tiny_network(1), &case).unwrap_err().to_string();
        assert!(error.contains("batch = 0"), "{error}");
    }
}
