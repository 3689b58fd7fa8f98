//! An on-policy training step, as GKD makes it: the student answers random prompts, and both models
//! read its answers; then the head with its loss, the backward pass and the optimiser.
//!
//! Counted are the sampled tokens, which are those with a loss. The least time is that of sampling
//! ([`Generating`]) and that of the products of all passes.

use distil_model::Llama;

use super::sample::Generating;
use super::training::Training;
use super::{Figures, PLAIN, Work, fits, positive, random_ids};
use crate::config::{Precision, Rollout};
use crate::error::Result;
use crate::rollout::on_policy::{Ask, OnPolicy};

/// An on-policy step of word-level distillation; every response has its full length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnPolicyCase {
    /// Layers that the student keeps of the model; the teacher is the whole model.
    pub student_layers: usize,
    /// Sequences, sampled together at temperature 1.
    pub batch: usize,
    /// Random tokens of each prompt.
    pub prompt_tokens: usize,
    /// Tokens of each response, all of them with a loss.
    pub new_tokens: usize,
    /// Steps that are averaged, after one that is not counted.
    pub steps: usize,
    /// Number format of both networks.
    pub precision: Precision,
}

/// Measures a step: the student keeps `student_layers` evenly spaced layers of `model`.
///
/// # Errors
/// The model does not have so many layers, its context is shorter than a sequence, or a count is 0.
pub fn on_policy(model: Llama, case: &OnPolicyCase) -> Result<Figures> {
    let config = model.config().clone();
    let (batch, prompt, response) = (case.batch, case.prompt_tokens, case.new_tokens);
    positive(&[
        ("batch", batch),
        ("prompt tokens", prompt),
        ("new tokens", response),
        ("steps", case.steps),
    ])?;
    fits(prompt.saturating_add(response), config.context)?;
    let mut training = Training::new(model, case.student_layers, case.precision)?;
    let ids = random_ids(batch * prompt, config.vocabulary);
    let asks: Vec<Ask<'_>> = ids
        .chunks(prompt)
        .enumerate()
        .map(|(row, prompt)| Ask {
            prompt,
            stream: row as u64,
            row,
        })
        .collect();
    let student = OnPolicy {
        rollout: Rollout {
            max_new_tokens: response,
            sampling: PLAIN,
        },
        // No token ends a response, so that all have the full length.
        stop_ids: Vec::new(),
        batch,
    };
    let phases = training.run(case.steps, &mut |network, work| {
        let network = network.clone().in_precision(case.precision.into());
        Ok(student.answer(&network, &asks, work)?.examples)
    })?;
    let generating = Generating::of(&training.student, case.precision, [batch, prompt, response]);
    let passes = training.operations(batch, prompt, response);
    let work = Work {
        bench: "step",
        case: format!(
            "on-policy gkd, student {} of {} layers, {batch} × ({prompt} + {response} new) tokens",
            case.student_layers, config.layers
        ),
        precision: case.precision,
        tokens: (batch * response) as f64,
        operations: generating.operations() + passes,
        least: Box::new(move |roof| generating.least(roof) + roof.seconds(passes, 0.0)),
    };
    Ok(work.figures(phases))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_network;

    const CASE: OnPolicyCase = OnPolicyCase {
        student_layers: 2,
        batch: 3,
        prompt_tokens: 4,
        new_tokens: 5,
        steps: 2,
        precision: Precision::F32,
    };

    #[test]
    fn sampled_tokens_are_what_is_trained() {
        let figures = on_policy(tiny_network(1), &CASE).unwrap();
        let phases: Vec<&str> = figures.phases.keys().copied().collect();
        assert_eq!(
            phases,
            [
                "backward",
                "head",
                "optimiser",
                "sample",
                "student_forward",
                "teacher"
            ]
        );
        assert!((figures.tokens_per_second * figures.seconds - 15.0).abs() < 1e-6);
        assert_eq!(figures.bench, "step");
        assert!(figures.case.starts_with("on-policy"), "{}", figures.case);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let case = OnPolicyCase {
            new_tokens: 61,
            ..CASE
        };
        let error = on_policy(tiny_network(1), &case).unwrap_err().to_string();
        assert!(error.contains("65 tokens is over"), "{error}");
    }
}
