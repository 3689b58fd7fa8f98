//! What the logits of teacher p and student q say about one sampled token: the numbers that
//! policy-gradient methods weigh it by, and the diagnostics of sampling.

use distil_kernels::math::{argmax, exp, log_sum_exp, sum_of, sum_of2, vectorised};

/// The teacher's q-function at one state, centred over the vocabulary (LLMR, arXiv 2409.12500):
/// q(s, a) = f(s, a) − mean_b f(s, b) with f the logits. All in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TeacherQ {
    /// q(s, a) of the token taken.
    pub taken: f64,
    /// max_b q(s, b).
    pub max: f64,
    /// Σ_b p(b|s) q(s, b).
    pub expected: f64,
    /// log Σ_b exp q(s, b).
    pub soft: f64,
}

impl TeacherQ {
    /// Of a row of the teacher's logits and the token taken.
    pub fn of(logits: &[f32], token: usize) -> Self {
        let lse = log_sum_exp(logits);
        let mean = f64::from(sum_of(logits, |z| z)) / logits.len() as f64;
        let expected = vectorised(
            #[inline(always)]
            || sum_of(logits, |z| exp(z - lse) * z),
        );
        Self {
            taken: f64::from(logits[token]) - mean,
            max: f64::from(logits[argmax(logits)]) - mean,
            expected: f64::from(expected) - mean,
            soft: f64::from(lse) - mean,
        }
    }
}

/// One sampled token as teacher and student see it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Look {
    /// log q(a|s), in nats.
    pub student: f64,
    /// log p(a|s).
    pub teacher: f64,
    /// The teacher's q-function.
    pub q: TeacherQ,
    /// Entropy of the student's distribution, in nats.
    pub entropy: f64,
    /// ‖∂ log q(a|s) / ∂ logits‖² = 1 − 2 q(a) + Σ_b q(b)².
    pub score_square: f64,
    /// The teacher's probability of the student's likeliest token.
    pub teacher_on_student_top: f64,
    /// The student's probability of the teacher's likeliest token.
    pub student_on_teacher_top: f64,
}

/// Looks at `token` under rows of logits of the same length.
pub fn look(student: &[f32], teacher: &[f32], token: usize) -> Look {
    let (ls, lt) = (log_sum_exp(student), log_sum_exp(teacher));
    let (entropy, squares) = vectorised(
        #[inline(always)]
        || {
            let entropy = sum_of2(student, student, |s, _| exp(s - ls) * (ls - s));
            (entropy, sum_of(student, |s| exp(2.0 * (s - ls))))
        },
    );
    let log_q = f64::from(student[token]) - f64::from(ls);
    Look {
        student: log_q,
        teacher: f64::from(teacher[token]) - f64::from(lt),
        q: TeacherQ::of(teacher, token),
        entropy: f64::from(entropy),
        score_square: 1.0 - 2.0 * log_q.exp() + f64::from(squares),
        teacher_on_student_top: f64::from(teacher[argmax(student)] - lt).exp(),
        student_on_teacher_top: f64::from(student[argmax(teacher)] - ls).exp(),
    }
}

/// Means over sampled tokens, for `metrics.jsonl`: entropy, the estimates k1 = log q/p and
/// k3 = p/q − 1 − log p/q of KL(q‖p) (both unbiased on samples of q), and each model's mass on the
/// other's likeliest token.
pub fn summary<'a>(looks: impl Iterator<Item = &'a Look>) -> Vec<(&'static str, f64)> {
    let mut count = 0usize;
    let mut sums = [0.0; 5];
    for look in looks {
        count += 1;
        let ratio = look.teacher - look.student;
        let values = [
            look.entropy,
            -ratio,
            ratio.exp_m1() - ratio,
            look.teacher_on_student_top,
            look.student_on_teacher_top,
        ];
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value;
        }
    }
    let names = [
        "student_entropy",
        "kl_k1",
        "kl_k3",
        "teacher_mass_on_student_top",
        "student_mass_on_teacher_top",
    ];
    let means = sums.map(|sum| sum / count.max(1) as f64);
    names.into_iter().zip(means).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the definitions in f64.
    #[test]
    fn equals_the_definitions() {
        let (s, t) = ([0.5f32, -1.0, 2.0, 0.25], [1.0f32, 3.0, -2.0, 0.5]);
        let softmax = |z: &[f32]| -> Vec<f64> {
            let total: f64 = z.iter().map(|&x| f64::from(x).exp()).sum();
            z.iter().map(|&x| f64::from(x).exp() / total).collect()
        };
        let (p, q) = (softmax(&t), softmax(&s));
        let mean = f64::from(t.iter().sum::<f32>()) / 4.0;
        for token in 0..4 {
            let got = look(&s, &t, token);
            let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{token}: {a} {b}");
            close(got.student, q[token].ln());
            close(got.teacher, p[token].ln());
            close(got.q.taken, f64::from(t[token]) - mean);
            close(got.q.max, 3.0 - mean);
            let expected: f64 = p.iter().zip(t).map(|(p, z)| p * f64::from(z)).sum();
            close(got.q.expected, expected - mean);
            let soft: f64 = t.iter().map(|&z| (f64::from(z) - mean).exp()).sum();
            close(got.q.soft, soft.ln());
            close(got.entropy, -q.iter().map(|q| q * q.ln()).sum::<f64>());
            let onehot = |b: usize| f64::from(u8::from(b == token));
            let square: f64 = (0..4).map(|b| (onehot(b) - q[b]).powi(2)).sum();
            close(got.score_square, square);
            close(got.teacher_on_student_top, p[2]);
            close(got.student_on_teacher_top, q[1]);
        }
    }

    /// Weighted by the student's distribution both estimates are the reverse KL.
    #[test]
    fn both_estimates_have_the_kl_as_their_mean() {
        let (s, t) = ([0.5f32, -1.0, 2.0], [1.0f32, 0.0, -2.0]);
        let looks: Vec<Look> = (0..3).map(|token| look(&s, &t, token)).collect();
        let kl: f64 = looks
            .iter()
            .map(|l| l.student.exp() * (l.student - l.teacher))
            .sum();
        let mean = |name: &str| -> f64 {
            let of = |l: &Look| summary([*l].iter()).into_iter().find(|(n, _)| *n == name);
            looks
                .iter()
                .map(|l| l.student.exp() * of(l).unwrap().1)
                .sum()
        };
        assert!((mean("kl_k1") - kl).abs() < 1e-6);
        assert!((mean("kl_k3") - kl).abs() < 1e-6);
    }
}
