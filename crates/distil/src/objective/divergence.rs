//! Divergences between the teacher's distribution p and the student's q at one position, in nats:
//! forward KL(p‖q) = Σ p log(p/q), reverse KL(q‖p), Jensen–Shannon with m = (p+q)/2,
//! total variation ½ Σ |p−q|.

use distil_kernels::math::{exp, log_sum_exp, sum_of2, vectorised};

/// All divergences of one position.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Divergences {
    /// KL(p‖q).
    pub forward_kl: f32,
    /// KL(q‖p).
    pub reverse_kl: f32,
    /// ½ KL(p‖m) + ½ KL(q‖m).
    pub jsd: f32,
    /// ½ Σ |p−q|.
    pub tvd: f32,
}

/// The divergences of two rows of logits of the same length.
pub fn divergences(student: &[f32], teacher: &[f32]) -> Divergences {
    let (ls, lt) = (log_sum_exp(student), log_sum_exp(teacher));
    vectorised(
        #[inline(always)]
        || {
            // log p − log q, exactly zero where the logits are the same.
            let ratio = |s: f32, t: f32| (t - lt) - (s - ls);
            let p = |t: f32| exp(t - lt);
            let q = |s: f32| exp(s - ls);
            let mean_log = |s: f32, t: f32| (0.5 * (p(t) + q(s))).ln();
            Divergences {
                forward_kl: sum_of2(student, teacher, |s, t| p(t) * ratio(s, t)),
                reverse_kl: sum_of2(student, teacher, |s, t| -q(s) * ratio(s, t)),
                jsd: sum_of2(student, teacher, |s, t| {
                    // Where both are the same their mean is too, but its logarithm is rounded.
                    if ratio(s, t) == 0.0 {
                        return 0.0;
                    }
                    let log_m = mean_log(s, t);
                    0.5 * (p(t) * (t - lt - log_m) + q(s) * (s - ls - log_m))
                }),
                tvd: sum_of2(student, teacher, |s, t| 0.5 * (p(t) - q(s)).abs()),
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::testing::{golden, rows};

    #[test]
    fn equal_the_f64_reference() {
        let golden = golden();
        let (student, teacher) = (
            rows(&golden["student_logits"]),
            rows(&golden["teacher_logits"]),
        );
        for (i, (s, t)) in student.iter().zip(&teacher).enumerate() {
            let got = divergences(s, t);
            for (name, value) in [
                ("forward_kl", got.forward_kl),
                ("reverse_kl", got.reverse_kl),
                ("jsd_0.5", got.jsd),
                ("tvd", got.tvd),
            ] {
                let want = golden[name]["per_position"][i].as_f64().unwrap();
                let error = (f64::from(value) - want).abs();
                assert!(
                    error < 1e-6 * want.max(1.0),
                    "{name} {i}: {value} against {want}"
                );
            }
        }
    }

    #[test]
    fn a_teacher_equal_to_the_student_diverges_by_nothing() {
        let row = [0.3, -2.0, 7.5, 0.0, 1.1];
        assert_eq!(divergences(&row, &row), Divergences::default());
    }
}
