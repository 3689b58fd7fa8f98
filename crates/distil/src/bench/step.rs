//! An off-policy training step on random tokens: the teacher's and the student's forward pass, the
//! head with its loss, the backward pass and the optimiser.
//!
//! Counted are the tokens with a loss, which is all of them.

use distil_model::Llama;

use super::training::Training;
use super::{Figures, Work, fits, positive, random_examples};
use crate::config::Precision;
use crate::error::Result;

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
    /// Number format of both networks.
    pub precision: Precision,
}

/// Measures a step: the student keeps `student_layers` evenly spaced layers of `model`.
///
/// # Errors
/// The model does not have so many layers, its context is shorter than a sequence, or a count is 0.
pub fn step(model: Llama, case: &StepCase) -> Result<Figures> {
    let config = model.config().clone();
    positive(&[
        ("batch", case.batch),
        ("length", case.length),
        ("steps", case.steps),
    ])?;
    fits(case.length, config.context)?;
    let mut training = Training::new(model, case.student_layers, case.precision)?;
    let examples = random_examples(case.batch, case.length, config.vocabulary);
    let phases = training.run(case.steps, &mut |_, _| Ok(examples.clone()))?;
    let operations = training.operations(case.batch, 1, case.length);
    let work = Work {
        bench: "step",
        case: format!(
            "off-policy kd, student {} of {} layers, {} × {} tokens",
            case.student_layers, config.layers, case.batch, case.length
        ),
        precision: case.precision,
        tokens: (case.batch * case.length) as f64,
        operations,
        least: Box::new(move |roof| roof.seconds(operations, 0.0)),
    };
    Ok(work.figures(phases))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_network;

    const CASE: StepCase = StepCase {
        student_layers: 2,
        batch: 2,
        length: 6,
        steps: 2,
        precision: Precision::F32,
    };

    #[test]
    fn figures_are_complete() {
        let figures = step(tiny_network(1), &CASE).unwrap();
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
        assert_eq!(figures.seconds, seconds);
        if cfg!(target_os = "linux") {
            assert!(figures.peak_rss_bytes.is_some_and(|bytes| bytes > 1 << 20));
        }
        let json = serde_json::to_value(&figures).unwrap();
        for key in ["bench", "case", "precision", "gflops", "share_of_roof"] {
            assert!(!json[key].is_null(), "{key}");
        }
        assert!(json["roof"]["instructions"].is_string());
    }

    #[test]
    fn a_step_can_be_one_in_bf16() {
        let case = StepCase {
            precision: Precision::Bf16,
            ..CASE
        };
        let figures = step(tiny_network(1), &case).unwrap();
        assert_eq!(figures.precision, "bf16");
    }

    #[test]
    fn what_measures_nothing_is_refused() {
        let case = StepCase { batch: 0, ..CASE };
        let error = step(tiny_network(1), &case).unwrap_err().to_string();
        assert!(error.contains("batch = 0"), "{error}");
    }
}
