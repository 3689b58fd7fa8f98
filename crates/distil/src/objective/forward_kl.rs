//! Word-level knowledge distillation (Hinton et al. 2015), mixed with cross-entropy:
//! (1−s) · T² · KL(p_T‖q_T) + s · (−log q(target)), with p_T, q_T the softmax of logits / T.
//!
//! Gradient in the student's logits: (1−s) · T · (q_T − p_T) + s · (q − onehot(target)).
//! T² keeps the gradient's size the same at every temperature.

use std::sync::Arc;

use distil_kernels::RowObjective;
use distil_kernels::math::{exp, log_sum_exp, sum_of2, vectorised};

/// The loss of KD. Terms: loss, KL at temperature T, cross-entropy.
#[derive(Clone, Debug)]
pub struct ForwardKl {
    /// Share s of the cross-entropy, in [0, 1].
    pub ce_share: f32,
    /// Temperature T > 0.
    pub temperature: f32,
    /// The data's token at each row.
    pub targets: Arc<[u32]>,
}

impl RowObjective for ForwardKl {
    fn row(
        &self,
        row: usize,
        student: &mut [f32],
        teacher: Option<&mut [f32]>,
        gradient: bool,
    ) -> [f64; 4] {
        let teacher = teacher.expect("KD always passes a teacher head");
        let (share, heat, target) = (self.ce_share, self.temperature, self.targets[row] as usize);
        let lse = log_sum_exp(student);
        let ce = f64::from(lse) - f64::from(student[target]);
        if heat != 1.0 {
            for x in teacher.iter_mut() {
                *x /= heat;
            }
        }
        let lt = log_sum_exp(teacher);
        let ls = match heat == 1.0 {
            true => lse,
            false => {
                let scaled: Vec<f32> = student.iter().map(|x| x / heat).collect();
                log_sum_exp(&scaled)
            }
        };
        let kl = vectorised(
            #[inline(always)]
            || {
                sum_of2(student, teacher, |s, t| {
                    exp(t - lt) * ((t - lt) - (s / heat - ls))
                })
            },
        );
        if gradient {
            let soft = (1.0 - share) * heat;
            vectorised(
                #[inline(always)]
                || {
                    for (s, &t) in student.iter_mut().zip(teacher.iter()) {
                        let q_soft = exp(*s / heat - ls);
                        let hard = match share == 0.0 {
                            true => 0.0,
                            false => share * exp(*s - lse),
                        };
                        *s = soft * (q_soft - exp(t - lt)) + hard;
                    }
                },
            );
            student[target] -= share;
        }
        let kl = f64::from(kl);
        let (s, t) = (f64::from(share), f64::from(heat));
        [(1.0 - s) * t * t * kl + s * ce, kl, ce, 0.0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::testing::{check_gradient, golden, rows, targets};

    #[test]
    fn value_and_gradient_equal_the_f64_reference() {
        let golden = golden();
        let objective = |ce_share| ForwardKl {
            ce_share,
            temperature: 1.0,
            targets: targets(&golden),
        };
        for (share, name) in [(0.0, "forward_kl"), (1.0, "cross_entropy")] {
            crate::objective::testing::equals_golden(&objective(share), &golden, name);
        }
    }

    #[test]
    fn gradient_equals_differences_at_any_temperature_and_share() {
        let golden = golden();
        for (ce_share, temperature) in [(0.0, 2.0), (0.3, 1.0), (0.5, 4.0), (1.0, 0.5)] {
            let objective = ForwardKl {
                ce_share,
                temperature,
                targets: targets(&golden),
            };
            check_gradient(&objective, &golden, 2e-2);
        }
    }

    #[test]
    fn self_distillation_has_no_loss_and_no_gradient() {
        let objective = ForwardKl {
            ce_share: 0.0,
            temperature: 1.0,
            targets: [0].into(),
        };
        let row = rows(&golden()["student_logits"])[0].clone();
        let (mut student, mut teacher) = (row.clone(), row);
        let terms = objective.row(0, &mut student, Some(&mut teacher), true);
        assert_eq!(terms[0], 0.0);
        assert!(student.iter().all(|&g| g == 0.0));
    }
}
