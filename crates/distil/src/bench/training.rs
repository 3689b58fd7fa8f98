//! What every kind of training step shares: student, teacher and optimiser, and the loop over steps.
//!
//! A step is that of a run: where its texts come from, the token pass of word-level distillation
//! with the forward KL, clipping by the norm, AdamW. It is one micro-batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use burn::tensor::Tensor;
use distil_kernels::RowObjective;
use distil_model::{Llama, Parameter};

use super::{forget_peak_rss, forward_operations, head_operations};
use crate::config::{Length, Precision, Schedule, Train};
use crate::data::batch::PackedBatch;
use crate::data::example::Example;
use crate::error::Result;
use crate::method::pass::{Teacher, Texts, token_pass};
use crate::objective::DivergenceLoss;
use crate::step::{Gradients, Optimizer};
use crate::step::{Phases, Work};

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
    recompute: false,
};

/// A student in training.
pub(super) struct Training {
    pub(super) student: Llama,
    teacher: Teacher,
    optimizer: Optimizer,
}

/// Makes the texts of a step, on the clock of the step's phases.
type MakeTexts<'a> = dyn FnMut(&Llama, &mut Work) -> Result<Vec<Example>> + 'a;

impl Training {
    /// The whole model as the teacher, so many evenly spaced layers of it as the student, which is
    /// trained in the nearest precision that is for training.
    ///
    /// # Errors
    /// The model does not have so many layers.
    pub(super) fn new(model: Llama, student_layers: usize, precision: Precision) -> Result<Self> {
        let (config, vocabulary) = (model.config(), model.config().vocabulary);
        let keep = distil_model::prune::evenly_spaced(config.layers, student_layers)?;
        let student = own_copy(&model.with_layers(&keep)?)
            .in_precision(precision.of_training().into())
            .trainable();
        Ok(Self {
            optimizer: Optimizer::new(&SETTINGS, &student),
            student,
            // What was loaded is given up: a run's teacher has no second copy either.
            teacher: Teacher::live(model.in_precision(precision.into()).packed(), vocabulary),
        })
    }

    /// Seconds by phase, the mean of `steps` steps after one that is not counted.
    ///
    /// # Errors
    /// Those of `texts`; the loss is not finite.
    pub(super) fn run(
        &mut self,
        steps: usize,
        texts: &mut MakeTexts<'_>,
    ) -> Result<BTreeMap<&'static str, f64>> {
        let mut phases = Phases::default();
        forget_peak_rss();
        for number in 0..=steps {
            // The first step allocates what the others reuse.
            if number == 1 {
                phases = Phases::default();
            }
            phases = self.step(number + 1, phases, texts)?;
        }
        let mean =
            |(phase, time): (&'static str, Duration)| (phase, time.as_secs_f64() / steps as f64);
        Ok(phases.0.into_iter().map(mean).collect())
    }

    /// One step; its time is added to the phases.
    fn step(&mut self, number: usize, phases: Phases, texts: &mut MakeTexts<'_>) -> Result<Phases> {
        let mut work = Work {
            gradients: Gradients::default(),
            micro_batch_tokens: SETTINGS.micro_batch_tokens,
            step: number,
            seed: 0,
            phases,
            batch: 0,
            progress: 0.0,
            logit_squares: BTreeMap::new(),
        };
        let examples = texts(&self.student, &mut work)?;
        work.batch = examples.len();
        let examples: Vec<&Example> = examples.iter().collect();
        let fresh = Texts::fresh(&examples);
        let teacher = Some(&self.teacher);
        token_pass(&self.student, teacher, fresh, 1.0, &forward_kl, &mut work)?;
        let Work {
            gradients,
            mut phases,
            ..
        } = work;
        let (student, optimizer) = (&mut self.student, &mut self.optimizer);
        phases.time("optimiser", || {
            let scale = (SETTINGS.clip_norm / gradients.norm().max(f64::MIN_POSITIVE)).min(1.0);
            optimizer.update(student, gradients, SETTINGS.learning_rate, scale);
        });
        Ok(phases)
    }

    /// Operations of a step on `batch` texts, from the texts on: forward through the teacher, forward
    /// and backward through the student.
    pub(super) fn operations(&self, batch: usize, prompt: usize, response: usize) -> f64 {
        // A text's last token is not fed, and only its response has a loss.
        let length = (prompt + response - 1) as f64;
        let (fed, predicted) = (batch as f64 * length, (batch * response) as f64);
        let forward = |network: &Llama| {
            forward_operations(network, fed, length) + head_operations(network, predicted)
        };
        forward(self.teacher.network()) + 3.0 * forward(&self.student)
    }
}

fn forward_kl(batch: &PackedBatch) -> Box<dyn RowObjective> {
    let targets = Arc::from(&batch.target_ids[..]);
    Box::new(DivergenceLoss::forward_kl(targets))
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
    use crate::bench::random_examples;
    use crate::testing::tiny_network;

    #[test]
    fn a_step_is_four_forward_passes_where_both_networks_are_one() {
        let network = tiny_network(1);
        let training = Training::new(network.clone(), 2, Precision::F32).unwrap();
        // 2 × (3 + 4 − 1) tokens are fed, 2 × 4 predicted.
        let forward = forward_operations(&network, 12.0, 6.0) + head_operations(&network, 8.0);
        assert_eq!(training.operations(2, 3, 4), 4.0 * forward);
    }

    #[test]
    fn every_step_trains_and_has_texts_of_its_own() {
        let mut training = Training::new(tiny_network(1), 2, Precision::F32).unwrap();
        let weights = |network: &Llama| {
            distil_kernels::to_host(network.frozen().head().tensor().expect("plain").clone())
        };
        let before = weights(&training.student);
        let mut steps = Vec::new();
        let phases = training
            .run(2, &mut |_, work| {
                steps.push(work.step);
                Ok(random_examples(2, 3, 24))
            })
            .unwrap();
        assert_eq!(steps, [1, 2, 3]);
        assert!(phases.values().all(|&seconds| seconds > 0.0), "{phases:?}");
        assert_ne!(before, weights(&training.student));
        assert_eq!(before, weights(training.teacher.network()));
    }
}
