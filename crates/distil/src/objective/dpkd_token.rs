//! DPKD as its released code computes it: a preference loss at every position of the data's text.
//!
//! With y_t = argmax p and y_s = argmax q at the position,
//!   Δ = [log q(y_t) − log q(y_s)] − [log p(y_t) − log p(y_s)] ≤ 0,
//!   L_kd = −(1−ε) log σ(βΔ) − ε log σ(−βΔ),
//!   loss = c · (−log q(target)) + (1−c) · L_kd.
//! or, as two of its options, L_kd = (Δ − 1/(2β))², and Δ without the teacher's bracket.
//! Where both agree Δ = 0: log 2, no gradient. The normaliser of q cancels in Δ, so its gradient in
//! the logits is onehot(y_t) − onehot(y_s). Released code: LMOps/dpkd, with c = 1 − kd_ratio.

use std::sync::Arc;

use distil_kernels::math::{argmax, dot, exp_minus, log_sum_exp};
use distil_kernels::{RowObjective, RowTerms};

use crate::config::{Reference, TokenLoss};

use super::{log_sigmoid, sigmoid};

/// The loss of DPKD's token form. Terms: loss, L_kd, cross-entropy, share of positions that agree.
#[derive(Clone, Debug)]
pub struct DpkdTokenLoss {
    /// Strength β.
    pub beta: f64,
    /// The loss on Δ.
    pub loss: TokenLoss,
    /// Whether the teacher's bracket is part of Δ.
    pub reference: Reference,
    /// Share c of the cross-entropy.
    pub ce_share: f64,
    /// The data's token at each row.
    pub targets: Arc<[u32]>,
}

impl RowObjective for DpkdTokenLoss {
    fn row(
        &self,
        row: usize,
        student: &mut [f32],
        teacher: Option<&mut [f32]>,
        gradient: bool,
    ) -> RowTerms {
        let teacher = teacher.expect("DPKD always passes a teacher head");
        let (chosen, rejected) = (argmax(teacher), argmax(student));
        let gap = |z: &[f32]| f64::from(z[chosen]) - f64::from(z[rejected]);
        let delta = match self.reference {
            Reference::Teacher => gap(student) - gap(teacher),
            Reference::None => gap(student),
        };
        let (preference, slope) = match self.loss {
            TokenLoss::Dpkd { label_smoothing } => {
                let (margin, keep) = (self.beta * delta, 1.0 - label_smoothing);
                let value = -keep * log_sigmoid(margin) - label_smoothing * log_sigmoid(-margin);
                let slope = label_smoothing * sigmoid(margin) - keep * sigmoid(-margin);
                (value, self.beta * slope)
            }
            TokenLoss::Ipo => {
                let miss = delta - 0.5 / self.beta;
                (miss * miss, 2.0 * miss)
            }
        };
        let target = self.targets[row] as usize;
        let lse = log_sum_exp(student);
        let ce = f64::from(lse) - f64::from(student[target]);
        let mut squares = [0.0; 4];
        if gradient {
            match self.ce_share == 0.0 {
                true => student.fill(0.0),
                false => {
                    exp_minus(student, lse);
                    student[target] -= 1.0;
                    for x in student.iter_mut() {
                        *x *= self.ce_share as f32;
                    }
                    squares[2] = f64::from(dot(student, student));
                }
            }
            let slope = ((1.0 - self.ce_share) * slope) as f32;
            // Added and taken away at one token, rounding would leave a trace of it.
            if chosen != rejected {
                student[chosen] += slope;
                student[rejected] -= slope;
                squares[1] = 2.0 * f64::from(slope).powi(2);
            }
        }
        let agree = f64::from(u8::from(chosen == rejected));
        let loss = self.ce_share * ce + (1.0 - self.ce_share) * preference;
        RowTerms {
            values: [loss, preference, ce, agree],
            squares,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Divergence, DivergenceTerm};
    use crate::objective::DivergenceLoss;
    use crate::objective::testing::{
        check_gradient, equals_case, equals_golden, golden, preference_golden, rows, targets,
    };

    fn objective(golden: &serde_json::Value, ce_share: f64, label_smoothing: f64) -> DpkdTokenLoss {
        DpkdTokenLoss {
            beta: 0.1,
            loss: TokenLoss::Dpkd { label_smoothing },
            reference: Reference::Teacher,
            ce_share,
            targets: targets(golden),
        }
    }

    #[test]
    fn value_and_gradient_equal_the_f64_reference() {
        let golden = golden();
        equals_golden(&objective(&golden, 0.0, 0.0), &golden, "dpkd_token");
    }

    #[test]
    fn gradient_equals_differences() {
        let golden = golden();
        for (ce_share, smoothing) in [(0.5, 0.0), (0.2, 0.1)] {
            // Smaller than half the closest tie of the fixture, where an argmax would flip.
            check_gradient(&objective(&golden, ce_share, smoothing), &golden, 2e-3);
        }
    }

    #[test]
    fn every_variant_equals_the_f64_reference() {
        let golden = preference_golden();
        let cases = golden["token"].as_array().unwrap();
        assert_eq!(cases.len(), 6);
        for case in cases {
            let objective = DpkdTokenLoss {
                loss: serde_json::from_value(case.clone()).unwrap(),
                reference: serde_json::from_value(case["reference"].clone()).unwrap(),
                beta: case["beta"].as_f64().unwrap(),
                ce_share: 0.0,
                targets: targets(&golden),
            };
            equals_case(&objective, &golden, case, false);
        }
    }

    /// The corpus term: cross-entropy to the teacher's distribution has the gradient of the KL.
    #[test]
    fn the_corpus_term_has_the_f64_references_gradient() {
        let golden = preference_golden();
        for case in golden["soft_cross_entropy"].as_array().unwrap() {
            let term = DivergenceTerm {
                divergence: Divergence::ForwardKl,
                divergence_temperature: 1.0,
                ce_share: case["ce_share"].as_f64().unwrap(),
            };
            let targets = targets(&golden);
            equals_case(&DivergenceLoss { term, targets }, &golden, case, true);
        }
    }

    #[test]
    fn gradient_of_the_variants_equals_differences() {
        let golden = golden();
        let plain = objective(&golden, 0.3, 0.0);
        let ipo = DpkdTokenLoss {
            loss: TokenLoss::Ipo,
            beta: 0.4,
            ..plain.clone()
        };
        let alone = DpkdTokenLoss {
            reference: Reference::None,
            ..plain
        };
        check_gradient(&ipo, &golden, 2e-3);
        check_gradient(&alone, &golden, 2e-3);
    }

    #[test]
    fn positions_that_agree_teach_nothing_and_margins_are_never_positive() {
        let golden = golden();
        let objective = objective(&golden, 0.0, 0.0);
        let (student, teacher) = (
            rows(&golden["student_logits"]),
            rows(&golden["teacher_logits"]),
        );
        let mut agreed = 0;
        for (i, (s, t)) in student.iter().zip(&teacher).enumerate() {
            let (mut s, mut t) = (s.clone(), t.clone());
            let terms = objective.row(i, &mut s, Some(&mut t), true).values;
            assert!(terms[1] >= std::f64::consts::LN_2 - 1e-12);
            if terms[3] == 1.0 {
                agreed += 1;
                assert!(s.iter().all(|&g| g == 0.0));
            }
        }
        assert_eq!(agreed, 2);
    }
}
