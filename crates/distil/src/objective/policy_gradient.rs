//! The policy-gradient form of a loss at one position, with what LLMR, MiniLLM and PbKD add to it:
//!   −w · log q(a) + k · KL(q‖p) + η · H,   H = mean_b −log q(b) = KL(U‖q) + log |V|.
//! Weights w and k of each row are given and not differentiated. H is LLMR's regulariser; it is no
//! entropy: making it small flattens the distribution.
//!
//! Gradient in the logits: w (q − onehot(a)) + k q (log q/p − KL) + η (q − 1/|V|).

use std::sync::Arc;

use distil_kernels::math::{exp, log_sum_exp, sum_of, sum_of2, vectorised};
use distil_kernels::{RowObjective, RowTerms};

/// Terms: loss, −w·log q(a), KL(q‖p) (0 where no row asks for it), H (0 where η is 0).
#[derive(Clone, Debug)]
pub struct PolicyGradient {
    /// The token a of each row.
    pub targets: Arc<[u32]>,
    /// w of each row.
    pub weights: Arc<[f32]>,
    /// k of each row; none of them where it is not set.
    pub reverse_kl: Option<Arc<[f32]>>,
    /// η.
    pub flatten: f32,
}

impl RowObjective for PolicyGradient {
    fn row(
        &self,
        row: usize,
        student: &mut [f32],
        teacher: Option<&mut [f32]>,
        gradient: bool,
    ) -> RowTerms {
        let target = self.targets[row] as usize;
        let (weight, flatten) = (self.weights[row], self.flatten);
        let lse = log_sum_exp(student);
        let policy = f64::from(weight) * (f64::from(lse) - f64::from(student[target]));
        let each = 1.0 / student.len() as f32;
        let flatness = match flatten == 0.0 {
            true => 0.0,
            false => f64::from(lse) - f64::from(sum_of(student, |z| z)) * f64::from(each),
        };
        let share = self.reverse_kl.as_ref().map_or(0.0, |shares| shares[row]);
        let teacher = match share == 0.0 {
            true => None,
            false => Some(teacher.expect("reverse KL always has a teacher head")),
        };
        let lt = teacher.as_ref().map_or(0.0, |t| log_sum_exp(t));
        let kl = teacher.as_ref().map_or(0.0, |t| {
            vectorised(
                #[inline(always)]
                || sum_of2(student, t, |s, t| exp(s - lse) * ((s - lse) - (t - lt))),
            )
        });
        let mut squares = [0.0; 4];
        if gradient {
            let (all_q, of_kl) = vectorised(
                #[inline(always)]
                || {
                    let of_kl = teacher.as_ref().map_or(0.0, |t| {
                        sum_of2(student, t, |s, t| {
                            let part = exp(s - lse) * ((s - lse) - (t - lt) - kl);
                            part * part
                        })
                    });
                    (sum_of(student, |s| exp(2.0 * (s - lse))), of_kl)
                },
            );
            let (all_q, q) = (f64::from(all_q), f64::from(student[target] - lse).exp());
            squares = [
                0.0,
                f64::from(weight).powi(2) * (1.0 - 2.0 * q + all_q),
                f64::from(share).powi(2) * f64::from(of_kl),
                f64::from(flatten).powi(2) * (all_q - f64::from(each)),
            ];
            vectorised(
                #[inline(always)]
                || match teacher {
                    Some(teacher) => {
                        for (s, &t) in student.iter_mut().zip(teacher.iter()) {
                            let (q, ratio) = (exp(*s - lse), (*s - lse) - (t - lt));
                            *s = q * (weight + flatten + share * (ratio - kl)) - flatten * each;
                        }
                    }
                    None => {
                        for s in student.iter_mut() {
                            *s = exp(*s - lse) * (weight + flatten) - flatten * each;
                        }
                    }
                },
            );
            student[target] -= weight;
        }
        let kl = f64::from(kl);
        let loss = policy + f64::from(share) * kl + f64::from(flatten) * flatness;
        RowTerms {
            values: [loss, policy, kl, flatness],
            squares,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::testing::{check_gradient, golden, rows, targets};

    fn objective(golden: &serde_json::Value, kl: f32, flatten: f32) -> PolicyGradient {
        PolicyGradient {
            targets: targets(golden),
            weights: [0.5, -1.0, 2.0, 0.0, 1.5, -0.25].into(),
            reverse_kl: (kl > 0.0).then(|| [kl, kl, 0.0, kl, kl, kl].into()),
            flatten,
        }
    }

    #[test]
    fn gradient_equals_differences() {
        let golden = golden();
        for (kl, flatten) in [(0.0, 0.0), (0.7, 0.0), (0.0, 0.3), (0.5, 0.2)] {
            check_gradient(&objective(&golden, kl, flatten), &golden, 1e-2);
        }
    }

    /// methods of LLMR: its "entropy" is the KL from the uniform distribution, up to a constant.
    #[test]
    fn the_flattening_term_is_the_kl_from_uniform_and_log_of_the_vocabulary() {
        let golden = golden();
        let objective = objective(&golden, 0.0, 1.0);
        for (i, logits) in rows(&golden["student_logits"]).iter().enumerate() {
            let h = objective.row(i, &mut logits.clone(), None, false).values[3];
            let total: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
            let u = 1.0 / logits.len() as f64;
            let kl: f64 = logits
                .iter()
                .map(|&z| u * (u / (f64::from(z).exp() / total)).ln())
                .sum();
            assert!((h - kl - (logits.len() as f64).ln()).abs() < 1e-5);
        }
    }

    #[test]
    fn reverse_kl_equals_the_f64_reference() {
        let golden = golden();
        let objective = objective(&golden, 1.0, 0.0);
        let (students, teachers) = (
            rows(&golden["student_logits"]),
            rows(&golden["teacher_logits"]),
        );
        for (i, (s, t)) in students.iter().zip(&teachers).enumerate() {
            let kl = objective
                .row(i, &mut s.clone(), Some(&mut t.clone()), false)
                .values[2];
            let want = golden["reverse_kl"]["per_position"][i].as_f64().unwrap();
            assert!(
                i == 2 || (kl - want).abs() < 1e-6 * want.max(1.0),
                "{kl} {want}"
            );
        }
    }
}
