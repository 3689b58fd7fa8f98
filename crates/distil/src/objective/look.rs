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
        Self::with(logits, token, log_sum_exp(logits), argmax(logits))
    }

    /// As [`TeacherQ::of`], with the logarithm of Σ exp and the largest token found before.
    fn with(logits: &[f32], token: usize, lse: f32, largest: usize) -> Self {
        let (sum, expected) = vectorised(
            #[inline(always)]
            || {
                let expected = sum_of(logits, |z| exp(z - lse) * z);
                (sum_of(logits, |z| z), expected)
            },
        );
        let mean = f64::from(sum) / logits.len() as f64;
        Self {
            taken: f64::from(logits[token]) - mean,
            max: f64::from(logits[largest]) - mean,
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
    /// log p(a|s); 0, like all else of the teacher, where there is none.
    pub teacher: f64,
    /// Whether there was a teacher.
    pub taught: bool,
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
pub fn look(student: &[f32], teacher: Option<&[f32]>, token: usize) -> Look {
    let ls = log_sum_exp(student);
    let (entropy, squares) = vectorised(
        #[inline(always)]
        || {
            let entropy = sum_of2(student, student, |s, _| exp(s - ls) * (ls - s));
            (entropy, sum_of(student, |s| exp(2.0 * (s - ls))))
        },
    );
    let log_q = f64::from(student[token]) - f64::from(ls);
    let look = Look {
        student: log_q,
        entropy: f64::from(entropy),
        score_square: 1.0 - 2.0 * log_q.exp() + f64::from(squares),
        ..Look::default()
    };
    let Some(teacher) = teacher else { return look };
    let (lt, largest) = (log_sum_exp(teacher), argmax(teacher));
    Look {
        teacher: f64::from(teacher[token]) - f64::from(lt),
        taught: true,
        q: TeacherQ::with(teacher, token, lt, largest),
        teacher_on_student_top: f64::from(teacher[argmax(student)] - lt).exp(),
        student_on_teacher_top: f64::from(student[largest] - ls).exp(),
        ..look
    }
}

/// Means over given text, for `metrics.jsonl`: the student's entropy, and each model's mass on the
/// other's likeliest token where there is a teacher.
pub fn on_given_text(looks: &[Look]) -> Vec<(&'static str, f64)> {
    let mean = |of: fn(&Look) -> f64| looks.iter().map(of).sum::<f64>() / looks.len().max(1) as f64;
    if looks.is_empty() {
        return Vec::new();
    }
    let mut means = vec![("student_entropy", mean(|look| look.entropy))];
    if looks.iter().any(|look| look.taught) {
        means.push((
            "teacher_mass_on_student_top",
            mean(|look| look.teacher_on_student_top),
        ));
        means.push((
            "student_mass_on_teacher_top",
            mean(|look| look.student_on_teacher_top),
        ));
    }
    means
}

/// What there is to say of looks at samples: [`on_samples`] of q itself, or, where `plain` is not set
/// because another distribution was sampled, what does not depend on that.
pub fn on_own_samples(looks: &[Look], plain: bool) -> Vec<(&'static str, f64)> {
    match plain {
        true => on_samples(looks, &vec![1.0; looks.len()]),
        false => on_given_text(looks),
    }
}

/// As [`on_given_text`], and the estimates k1 = log q/p and k3 = p/q − 1 − log p/q of KL(q‖p).
/// `weights` are q/b of each token with b the distribution that it was drawn from, 1 for b = q: a
/// weighted mean estimates the divergence at the states that b led to.
pub fn on_samples(looks: &[Look], weights: &[f64]) -> Vec<(&'static str, f64)> {
    let mut means = on_given_text(looks);
    if looks.iter().any(|look| look.taught) {
        let mean = |of: fn(f64) -> f64| {
            let weighted = looks.iter().zip(weights);
            let weighted = weighted.map(|(look, w)| w * of(look.teacher - look.student));
            weighted.sum::<f64>() / looks.len().max(1) as f64
        };
        means.push(("kl_k1", mean(|ratio| -ratio)));
        means.push(("kl_k3", mean(|ratio| ratio.exp_m1() - ratio)));
    }
    means
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
            let got = look(&s, Some(&t), token);
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

    /// Under the student's own distribution, and under another one with the ratio as weight, both
    /// estimates have the reverse KL as their mean.
    #[test]
    fn both_estimates_have_the_kl_as_their_mean() {
        let (s, t) = ([0.5f32, -1.0, 2.0], [1.0f32, 0.0, -2.0]);
        let looks: Vec<Look> = (0..3).map(|token| look(&s, Some(&t), token)).collect();
        let kl: f64 = looks
            .iter()
            .map(|l| l.student.exp() * (l.student - l.teacher))
            .sum();
        let mixed = |l: &Look| 0.2 * l.teacher.exp() + 0.8 * l.student.exp();
        for behaviour in [
            &(|l: &Look| l.student.exp()) as &dyn Fn(&Look) -> f64,
            &mixed,
        ] {
            for name in ["kl_k1", "kl_k3"] {
                let estimate = |l: &Look| {
                    let weight = l.student.exp() / behaviour(l);
                    let terms = on_samples(&[*l], &[weight]);
                    terms.into_iter().find(|(n, _)| *n == name).unwrap().1
                };
                let mean: f64 = looks.iter().map(|l| behaviour(l) * estimate(l)).sum();
                assert!((mean - kl).abs() < 1e-6, "{name}: {mean} {kl}");
            }
        }
    }

    #[test]
    fn without_a_teacher_there_is_the_students_entropy_alone() {
        let seen = look(&[0.0, 0.0], None, 1);
        let terms = on_samples(&[seen], &[1.0]);
        assert_eq!(terms.len(), 1);
        assert!((terms[0].1 - std::f64::consts::LN_2).abs() < 1e-6);
    }
}
