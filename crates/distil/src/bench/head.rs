//! The output head: logits, loss and both gradients, without a model around it.
//!
//! Counted are the positions. The products are the logits of teacher and student, and the gradients
//! of hidden states and weights.

use std::sync::Arc;

use burn::tensor::{Device, Distribution, Tensor};
use distil_kernels::{TeacherHead, Weight, head_pass};

use super::{Clock, Figures, Work, forget_peak_rss, positive, random_ids};
use crate::config::Precision;
use crate::error::Result;
use crate::objective::DivergenceLoss;

/// The output head with the loss of word-level distillation, forward and backward, on random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadCase {
    /// Positions.
    pub tokens: usize,
    /// Width of student and teacher.
    pub width: usize,
    /// Vocabulary of both.
    pub vocabulary: usize,
    /// Passes that are averaged, after one that is not counted.
    pub passes: usize,
    /// Number format of the products.
    pub precision: Precision,
}

/// Measures the head.
///
/// # Errors
/// A count is 0.
pub fn head(case: &HeadCase) -> Result<Figures> {
    positive(&[
        ("tokens", case.tokens),
        ("width", case.width),
        ("vocabulary", case.vocabulary),
        ("passes", case.passes),
    ])?;
    let device = Device::flex();
    let random = |rows| {
        let spread = Distribution::Normal(0.0, 0.05);
        Tensor::<2>::random([rows, case.width], spread, &device)
    };
    let precision = case.precision.into();
    let hidden = random(case.tokens);
    let weight = Weight::Plain(random(case.vocabulary), precision);
    let teacher = TeacherHead {
        hidden: random(case.tokens),
        weight: Weight::Plain(random(case.vocabulary), precision).packed(),
    };
    let targets = Arc::from(random_ids(case.tokens, case.vocabulary));
    let objective = DivergenceLoss::forward_kl(targets);
    let mut clock = Clock::default();
    forget_peak_rss();
    for number in 0..=case.passes {
        if number == 1 {
            clock = Clock::default();
        }
        clock.time("head", || {
            let h = hidden.clone();
            head_pass(
                h,
                &weight,
                Some(&teacher),
                case.vocabulary,
                &objective,
                1.0,
                true,
            )
        });
    }
    // Teacher's logits, student's logits, and the two products of the gradient.
    let operations = 4.0 * 2.0 * (case.tokens * case.width * case.vocabulary) as f64;
    let work = Work {
        bench: "head",
        case: format!(
            "kd, {} tokens, width {}, vocabulary {}",
            case.tokens, case.width, case.vocabulary
        ),
        precision: case.precision,
        tokens: case.tokens as f64,
        operations,
        least: Box::new(move |roof| roof.seconds(operations, 0.0)),
    };
    Ok(work.figures(clock.mean(case.passes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_counted_as_four_products() {
        let case = HeadCase {
            tokens: 3,
            width: 4,
            vocabulary: 5,
            passes: 2,
            precision: Precision::F32,
        };
        let figures = head(&case).unwrap();
        let seconds = figures.phases["head"];
        assert!((figures.gflops * 1e9 * seconds - 480.0).abs() < 1e-3);
        assert!((figures.tokens_per_second * seconds - 3.0).abs() < 1e-6);
    }
}
