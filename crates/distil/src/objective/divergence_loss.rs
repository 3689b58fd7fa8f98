//! A divergence to the teacher at every position, mixed with cross-entropy by one weight:
//!   loss = (1−s) · T² · D(p_T, q_T) + s · (−log q(target)),
//! with p_T, q_T the softmax of logits / T. T² keeps the gradient's size the same at every
//! temperature (Hinton et al. 2015).
//!
//! With h_a = q_a · ∂D/∂q_a (up to a multiple of q_a), the gradient in the student's logits is
//! T · (h − q Σh) for T² · D:
//!
//! | D | value of a token | h | source |
//! |---|---|---|---|
//! | forward KL | p log(p/q) | −p | Hinton et al. 2015 |
//! | reverse KL | q log(q/p) | q log(q/p) | Gu et al. 2024 |
//! | symmetric KL | (1−s) forward + s reverse | likewise | |
//! | JSD(β), m = βp + (1−β)q | βp log(p/m) + (1−β)q log(q/m) | (1−β)q log(q/m) | Agarwal et al. 2024 |
//! | TVD | ½ \|p−q\| | ½ q sign(q−p) | Wen et al. 2023 |
//! | skew KL, m = αp + (1−α)q | p log(p/m) | −(1−α) p q/m | Ko et al. 2024 |
//! | skew reverse KL, m = (1−α)p + αq | q log(q/m) | q (log(q/m) − αq/m) | Ko et al. 2024 |
//! | AKL | w_h forward + w_t reverse, weights held | likewise | Wu et al. 2024, [`akl_weights`] |
//!
//! JSD at β = 0 and 1 is defined as its limit after division by β and 1−β: KL(p‖q) and KL(q‖p).

use std::sync::Arc;

use distil_kernels::math::{dot, exp, log_sum_exp, sum_of, sum_of2, vectorised};
use distil_kernels::{RowObjective, RowTerms};

use crate::config::{Divergence, DivergenceTerm};

/// The loss of KD, GKD and DistiLLM. Terms: loss, divergence at temperature T, cross-entropy.
#[derive(Clone, Debug)]
pub struct DivergenceLoss {
    /// The divergence, its temperature, and the share of the cross-entropy.
    pub term: DivergenceTerm,
    /// The response's token at each row.
    pub targets: Arc<[u32]>,
}

impl DivergenceLoss {
    /// Plain forward KL, as it is benchmarked.
    pub fn forward_kl(targets: Arc<[u32]>) -> Self {
        let term = DivergenceTerm {
            divergence: Divergence::ForwardKl,
            divergence_temperature: 1.0,
            ce_share: 0.0,
        };
        Self { term, targets }
    }
}

impl RowObjective for DivergenceLoss {
    fn row(
        &self,
        row: usize,
        student: &mut [f32],
        teacher: Option<&mut [f32]>,
        gradient: bool,
    ) -> RowTerms {
        let teacher = teacher.expect("a divergence always has a teacher head");
        let (share, heat) = (
            self.term.ce_share as f32,
            self.term.divergence_temperature as f32,
        );
        let target = self.targets[row] as usize;
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
        let rows = Rows {
            student,
            teacher,
            heat,
            ls,
            lt,
        };
        let (value, sum_h) = match self.term.divergence {
            Divergence::ForwardKl => rows.forward(),
            Divergence::Jsd { jsd_beta: 0.0 } => rows.forward(),
            Divergence::ReverseKl => rows.weighted(0.0, 1.0),
            Divergence::Jsd { jsd_beta: 1.0 } => rows.weighted(0.0, 1.0),
            Divergence::SymmetricKl { symmetric_share } => {
                let share = symmetric_share as f32;
                rows.weighted(1.0 - share, share)
            }
            Divergence::Akl { akl_head_mass } => {
                let (p, q) = rows.probabilities();
                let (head, tail) = akl_weights(&p, &q, akl_head_mass);
                rows.weighted(head as f32, tail as f32)
            }
            Divergence::Jsd { jsd_beta } => {
                let beta = jsd_beta as f32;
                rows.each(|lp, lq| {
                    let (p, q) = (exp(lp), exp(lq));
                    let to_mean = log_mixture(lp, lq, beta);
                    let (a, b) = (beta * p * (lp - to_mean), (1.0 - beta) * q * (lq - to_mean));
                    (a + b, b)
                })
            }
            Divergence::Tvd => rows.each(|lp, lq| {
                // Exactly zero where the logits are the same.
                if lp == lq {
                    return (0.0, 0.0);
                }
                let (p, q) = (exp(lp), exp(lq));
                (0.5 * (p - q).abs(), 0.5 * q * (lq - lp).signum())
            }),
            Divergence::SkewKl { skew_alpha } => {
                let alpha = skew_alpha as f32;
                rows.each(|lp, lq| {
                    let log_m = log_mixture(lp, lq, alpha);
                    let p = exp(lp);
                    (p * (lp - log_m), -(1.0 - alpha) * p * exp(lq - log_m))
                })
            }
            Divergence::SkewReverseKl { skew_alpha } => {
                let alpha = skew_alpha as f32;
                rows.each(|lp, lq| {
                    let log_m = log_mixture(lp, lq, 1.0 - alpha);
                    let (q, ratio) = (exp(lq), lq - log_m);
                    (q * ratio, q * (ratio - alpha * exp(ratio)))
                })
            }
        };
        let (mut squares, sum_h) = ([0.0; 4], sum_h as f32);
        // The teacher's row now holds h.
        let soft = (1.0 - share) * heat;
        if gradient && share != 0.0 {
            // Of a mixture, each part by itself before they are added.
            let (divergence, all_q) = vectorised(
                #[inline(always)]
                || {
                    let divergence = sum_of2(student, teacher, |s, h| {
                        let part = soft * (h - exp(s / heat - ls) * sum_h);
                        part * part
                    });
                    (divergence, sum_of(student, |s| exp(2.0 * (s - lse))))
                },
            );
            let score = 1.0 - 2.0 * (-ce).exp() + f64::from(all_q);
            squares[1] = f64::from(divergence);
            squares[2] = f64::from(share).powi(2) * score;
        }
        if gradient {
            vectorised(
                #[inline(always)]
                || {
                    for (s, &h) in student.iter_mut().zip(teacher.iter()) {
                        let q_soft = exp(*s / heat - ls);
                        let hard = match share == 0.0 {
                            true => 0.0,
                            false => share * exp(*s - lse),
                        };
                        *s = soft * (h - q_soft * sum_h) + hard;
                    }
                },
            );
            student[target] -= share;
            if share == 0.0 {
                squares[1] = f64::from(dot(student, student));
            }
        }
        let (s, t) = (self.term.ce_share, self.term.divergence_temperature);
        RowTerms {
            values: [(1.0 - s) * t * t * value + s * ce, value, ce, 0.0],
            squares,
        }
    }
}

/// log(w·p + (1−w)·q) of log p and log q; exact where both are the same.
#[inline(always)]
fn log_mixture(lp: f32, lq: f32, w: f32) -> f32 {
    if lp == lq || w == 1.0 {
        return lp;
    }
    if w == 0.0 {
        return lq;
    }
    let larger = lp.max(lq);
    larger + (w * exp(lp - larger) + (1.0 - w) * exp(lq - larger)).ln()
}

/// A position's logits, the teacher's divided by T already, and the logarithms of their sums.
struct Rows<'a> {
    student: &'a [f32],
    teacher: &'a mut [f32],
    heat: f32,
    ls: f32,
    lt: f32,
}

impl Rows<'_> {
    /// Value and Σh of forward KL; h takes the teacher's place. The common case, kept fast.
    fn forward(self) -> (f64, f64) {
        let Self {
            student,
            teacher,
            heat,
            ls,
            lt,
        } = self;
        vectorised(
            #[inline(always)]
            || {
                let value = sum_of2(student, teacher, |s, t| {
                    exp(t - lt) * ((t - lt) - (s / heat - ls))
                });
                for t in teacher.iter_mut() {
                    *t = -exp(*t - lt);
                }
                (f64::from(value), -1.0)
            },
        )
    }

    /// Value and Σh of `forward` · KL(p‖q) + `reverse` · KL(q‖p).
    fn weighted(self, forward: f32, reverse: f32) -> (f64, f64) {
        self.each(|lp, lq| {
            let (p, q, ratio) = (exp(lp), exp(lq), lp - lq);
            let (to_q, to_p) = (forward * p * ratio, -reverse * q * ratio);
            (to_q + to_p, to_p - forward * p)
        })
    }

    /// Σ of a token's value and of its h, given log p and log q; h takes the teacher's place.
    #[inline(always)]
    fn each(self, token: impl Fn(f32, f32) -> (f32, f32)) -> (f64, f64) {
        let (heat, ls, lt) = (self.heat, self.ls, self.lt);
        vectorised(
            #[inline(always)]
            || {
                let (mut value, mut sum_h) = (0.0, 0.0);
                for (s, t) in self.student.chunks(1024).zip(self.teacher.chunks_mut(1024)) {
                    // Short sums in f32, long ones in f64: a row's long tail must not be lost.
                    let (mut part, mut part_h) = (0.0f32, 0.0f32);
                    for (&s, t) in s.iter().zip(t) {
                        let (v, h) = token(*t - lt, s / heat - ls);
                        *t = h;
                        part += v;
                        part_h += h;
                    }
                    value += f64::from(part);
                    sum_h += f64::from(part_h);
                }
                (value, sum_h)
            },
        )
    }

    fn probabilities(&self) -> (Vec<f32>, Vec<f32>) {
        let p = self.teacher.iter().map(|&t| exp(t - self.lt)).collect();
        let q = self.student.iter().map(|&s| exp(s / self.heat - self.ls));
        (p, q.collect())
    }
}

/// AKL's weights of forward and reverse KL (Wu et al. 2024, arXiv 2404.02657): the shares of
/// Σ|p−q| on the head and on the tail of the teacher's distribution. The head is the likeliest
/// tokens while their mass stays within `head_mass`, the first always. Both ½ where p = q.
pub fn akl_weights(p: &[f32], q: &[f32], head_mass: f64) -> (f64, f64) {
    let gap = |i: usize| (f64::from(p[i]) - f64::from(q[i])).abs();
    let total: f64 = (0..p.len()).map(gap).sum();
    if total == 0.0 {
        return (0.5, 0.5);
    }
    if !total.is_finite() {
        return (f64::NAN, f64::NAN);
    }
    // Only the likeliest few have to be ordered; how few is not known before.
    let mut least = 1e-3f32;
    let order = loop {
        let mut likely: Vec<usize> = (0..p.len()).filter(|&i| p[i] >= least).collect();
        let mass: f64 = likely.iter().map(|&i| f64::from(p[i])).sum();
        if mass > head_mass || likely.len() == p.len() {
            likely.sort_unstable_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
            break likely;
        }
        least = match least > 1e-30 {
            true => least * 0.1,
            false => 0.0,
        };
    };
    let (mut mass, mut head) = (0.0, 0.0);
    for (rank, &i) in order.iter().enumerate() {
        mass += f64::from(p[i]);
        if rank > 0 && mass > head_mass {
            break;
        }
        head += gap(i);
    }
    (head / total, 1.0 - head / total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::testing::{check_gradient, equals_golden, golden, rows, targets};

    fn term(divergence: Divergence, temperature: f64, ce_share: f64) -> DivergenceTerm {
        DivergenceTerm {
            divergence,
            divergence_temperature: temperature,
            ce_share,
        }
    }

    fn every_divergence() -> Vec<(&'static str, Divergence)> {
        vec![
            ("forward_kl", Divergence::ForwardKl),
            ("reverse_kl", Divergence::ReverseKl),
            (
                "symmetric_kl_0.9",
                Divergence::SymmetricKl {
                    symmetric_share: 0.9,
                },
            ),
            ("jsd_0.5", Divergence::Jsd { jsd_beta: 0.5 }),
            ("jsd_0.1", Divergence::Jsd { jsd_beta: 0.1 }),
            ("tvd", Divergence::Tvd),
            ("skew_kl_0.1", Divergence::SkewKl { skew_alpha: 0.1 }),
            (
                "skew_reverse_kl_0.1",
                Divergence::SkewReverseKl { skew_alpha: 0.1 },
            ),
            ("akl_0.5", Divergence::Akl { akl_head_mass: 0.5 }),
        ]
    }

    #[test]
    fn values_and_gradients_equal_the_f64_reference() {
        let golden = golden();
        for (name, divergence) in every_divergence() {
            let objective = DivergenceLoss {
                term: term(divergence, 1.0, 0.0),
                targets: targets(&golden),
            };
            equals_golden(&objective, &golden, name);
        }
        let cross_entropy = DivergenceLoss {
            term: term(Divergence::Tvd, 1.0, 1.0),
            targets: targets(&golden),
        };
        equals_golden(&cross_entropy, &golden, "cross_entropy");
    }

    #[test]
    fn gradients_equal_differences_at_any_temperature_and_share() {
        let golden = golden();
        for (name, divergence) in every_divergence() {
            // AKL's weights are held in the gradient but move in the differences; TVD has kinks.
            if matches!(divergence, Divergence::Akl { .. }) {
                continue;
            }
            for (ce_share, temperature) in [(0.0, 2.0), (0.3, 1.0), (0.5, 4.0), (0.9, 0.5)] {
                let objective = DivergenceLoss {
                    term: term(divergence, temperature, ce_share),
                    targets: targets(&golden),
                };
                let step = match divergence {
                    Divergence::Tvd => 1e-3,
                    _ => 2e-2,
                };
                check_gradient(&objective, &golden, step);
            }
            println!("{name}");
        }
    }

    /// T² (1−s) D(p_T, q_T) + s CE by the definitions, in f64, term by term; `akl` holds AKL's weights.
    fn defined(
        term: &DivergenceTerm,
        student: &[f64],
        teacher: &[f64],
        target: usize,
        akl: (f64, f64),
    ) -> f64 {
        let log_softmax = |logits: &[f64], heat: f64| -> Vec<f64> {
            let total: f64 = logits.iter().map(|z| (z / heat).exp()).sum();
            logits.iter().map(|z| z / heat - total.ln()).collect()
        };
        let heat = term.divergence_temperature;
        let (lq, lp) = (log_softmax(student, heat), log_softmax(teacher, heat));
        let mixed = |w: f64| -> Vec<f64> {
            let both = lp.iter().zip(&lq);
            both.map(|(p, q)| (w * p.exp() + (1.0 - w) * q.exp()).ln())
                .collect()
        };
        let kl =
            |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a.exp() * (a - b)).sum() };
        let divergence = match term.divergence {
            Divergence::ForwardKl => kl(&lp, &lq),
            Divergence::ReverseKl => kl(&lq, &lp),
            Divergence::SymmetricKl { symmetric_share: s } => {
                (1.0 - s) * kl(&lp, &lq) + s * kl(&lq, &lp)
            }
            Divergence::Jsd { jsd_beta: b } => {
                b * kl(&lp, &mixed(b)) + (1.0 - b) * kl(&lq, &mixed(b))
            }
            Divergence::Tvd => {
                let gaps = lp.iter().zip(&lq).map(|(p, q)| (p.exp() - q.exp()).abs());
                0.5 * gaps.sum::<f64>()
            }
            Divergence::SkewKl { skew_alpha: a } => kl(&lp, &mixed(a)),
            Divergence::SkewReverseKl { skew_alpha: a } => kl(&lq, &mixed(1.0 - a)),
            Divergence::Akl { .. } => akl.0 * kl(&lp, &lq) + akl.1 * kl(&lq, &lp),
        };
        let ce = -log_softmax(student, 1.0)[target];
        (1.0 - term.ce_share) * heat * heat * divergence + term.ce_share * ce
    }

    /// At every temperature and share, T² and all, value and gradient are those of the definition;
    /// the definition's gradient is its central difference in f64, with AKL's weights held.
    #[test]
    fn values_and_gradients_are_those_of_the_definition() {
        let golden = golden();
        let (students, teachers) = (
            rows(&golden["student_logits"]),
            rows(&golden["teacher_logits"]),
        );
        let all_targets = targets(&golden);
        let doubles = |row: &[f32]| -> Vec<f64> { row.iter().map(|&x| f64::from(x)).collect() };
        for (name, divergence) in every_divergence() {
            for (heat, share) in [(1.0, 0.0), (2.0, 0.0), (2.0, 0.3), (0.5, 0.6)] {
                let objective = DivergenceLoss {
                    term: term(divergence, heat, share),
                    targets: all_targets.clone(),
                };
                for (i, (s, t)) in students.iter().zip(&teachers).enumerate() {
                    let akl = match divergence {
                        Divergence::Akl { akl_head_mass } => {
                            let softmax = |row: &[f32]| -> Vec<f32> {
                                let e: Vec<f64> =
                                    doubles(row).iter().map(|z| (z / heat).exp()).collect();
                                let total: f64 = e.iter().sum();
                                e.iter().map(|e| (e / total) as f32).collect()
                            };
                            akl_weights(&softmax(t), &softmax(s), akl_head_mass)
                        }
                        _ => (0.0, 0.0),
                    };
                    let of = |student: &[f64]| {
                        let target = all_targets[i] as usize;
                        defined(&objective.term, student, &doubles(t), target, akl)
                    };
                    let (mut gradient, mut teacher) = (s.clone(), t.clone());
                    let got = objective
                        .row(i, &mut gradient, Some(&mut teacher), true)
                        .values[0];
                    let want = of(&doubles(s));
                    let what = format!("{name}, T {heat}, share {share}, row {i}");
                    // Relative; below one nat at its temperature absolute, as f32 logits allow.
                    let nat = (heat * heat).max(1.0);
                    assert!(
                        (got - want).abs() < 1e-6 * want.max(nat),
                        "{what}: {got} {want}"
                    );
                    for (entry, &got) in gradient.iter().enumerate() {
                        let at = |by: f64| {
                            let mut moved = doubles(s);
                            moved[entry] += by;
                            of(&moved)
                        };
                        let want = (at(1e-5) - at(-1e-5)) / 2e-5;
                        let error = (f64::from(got) - want).abs();
                        assert!(
                            error < 1e-6 * want.abs().max(nat),
                            "{what}, {entry}: {got} {want}"
                        );
                    }
                }
            }
        }
    }

    /// Each term's square is that of its own gradient, with its weight.
    #[test]
    fn squares_are_those_of_each_terms_gradient() {
        let golden = golden();
        let (s, t) = (
            rows(&golden["student_logits"])[0].clone(),
            rows(&golden["teacher_logits"])[0].clone(),
        );
        let of = |share: f64| {
            let objective = DivergenceLoss {
                term: term(Divergence::ReverseKl, 2.0, share),
                targets: targets(&golden),
            };
            let mut gradient = s.clone();
            let terms = objective.row(0, &mut gradient, Some(&mut t.clone()), true);
            let square: f64 = gradient.iter().map(|g| f64::from(g * g)).sum();
            (terms.squares, square)
        };
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-5 * b, "{a} {b}");
        let ((divergence, divergence_alone), (text, text_alone)) = (of(0.0), of(1.0));
        close(divergence[1], divergence_alone);
        close(text[2], text_alone);
        let (mixed, _) = of(0.3);
        close(mixed[1], 0.49 * divergence_alone);
        close(mixed[2], 0.09 * text_alone);
    }

    /// A teacher without numbers gives no number, and ends.
    #[test]
    fn a_teacher_of_nan_gives_nan() {
        for (name, divergence) in every_divergence() {
            let objective = DivergenceLoss {
                term: term(divergence, 1.0, 0.0),
                targets: [0].into(),
            };
            let terms = objective.row(0, &mut [0.5, 1.0], Some(&mut [f32::NAN, 0.0]), true);
            assert!(terms.values[0].is_nan(), "{name}");
        }
    }

    fn value(divergence: Divergence, student: &[f32], teacher: &[f32]) -> f64 {
        let objective = DivergenceLoss {
            term: term(divergence, 1.0, 0.0),
            targets: [0].into(),
        };
        let (mut s, mut t) = (student.to_vec(), teacher.to_vec());
        objective.row(0, &mut s, Some(&mut t), false).values[0]
    }

    #[test]
    fn self_distillation_has_no_loss_and_no_gradient() {
        let row = rows(&golden()["student_logits"])[0].clone();
        for (name, divergence) in every_divergence() {
            let objective = DivergenceLoss {
                term: term(divergence, 1.0, 0.0),
                targets: [0].into(),
            };
            let (mut student, mut teacher) = (row.clone(), row.clone());
            let terms = objective
                .row(0, &mut student, Some(&mut teacher), true)
                .values;
            assert_eq!(terms[0], 0.0, "{name}");
            assert!(
                student.iter().all(|g| g.abs() < 1e-7),
                "{name}: {student:?}"
            );
        }
    }

    #[test]
    fn identities() {
        let golden = golden();
        let (students, teachers) = (
            rows(&golden["student_logits"]),
            rows(&golden["teacher_logits"]),
        );
        let close = |a: f64, b: f64, what: &str| {
            assert!((a - b).abs() < 2e-6 * b.abs().max(1.0), "{what}: {a} {b}");
        };
        for (s, t) in students.iter().zip(&teachers) {
            let of = |divergence| value(divergence, s, t);
            let (forward, reverse) = (of(Divergence::ForwardKl), of(Divergence::ReverseKl));
            close(of(Divergence::Jsd { jsd_beta: 0.0 }), forward, "JSD(0)");
            close(of(Divergence::Jsd { jsd_beta: 1.0 }), reverse, "JSD(1)");
            let small = 1e-3;
            let near = of(Divergence::Jsd { jsd_beta: small }) / small;
            assert!(
                (near - forward).abs() < 2e-2 * forward,
                "JSD(β)/β → KL: {near} {forward}"
            );
            let half = Divergence::Jsd { jsd_beta: 0.5 };
            close(of(half), value(half, t, s), "JSD(½) is symmetric");
            assert!(of(half) <= std::f64::consts::LN_2);
            close(
                of(Divergence::SkewKl { skew_alpha: 0.0 }),
                forward,
                "skew KL(0)",
            );
            let skew = Divergence::SkewReverseKl { skew_alpha: 0.0 };
            close(of(skew), reverse, "skew reverse KL(0)");
            let tvd = of(Divergence::Tvd);
            assert!((0.0..=1.0).contains(&tvd));
            assert!(tvd <= (0.5 * forward).sqrt() + 1e-6, "Pinsker");
        }
    }

    /// What has a finite value stays finite however far the logits are apart.
    #[test]
    fn extreme_logits_stay_finite() {
        let (student, teacher) = ([90.0, 0.0, -90.0, -1e4], [-90.0, 0.0, 90.0, -1e4]);
        for (name, divergence) in every_divergence() {
            let objective = DivergenceLoss {
                term: term(divergence, 1.0, 0.0),
                targets: [0].into(),
            };
            let (mut s, mut t) = (student.to_vec(), teacher.to_vec());
            let terms = objective.row(0, &mut s, Some(&mut t), true).values;
            assert!(terms[0].is_finite() && terms[0] > 0.1, "{name}: {terms:?}");
            assert!(s.iter().all(|g| g.is_finite()), "{name}: {s:?}");
        }
    }

    #[test]
    fn akl_weighs_head_and_tail_by_their_gaps() {
        let p = [0.4, 0.3, 0.2, 0.1];
        // 0.4 is within one half, 0.4 + 0.3 is not: the head is the first token alone.
        let (head, tail) = akl_weights(&p, &[0.1, 0.3, 0.2, 0.4], 0.5);
        assert!((head - 0.5).abs() < 1e-6 && (tail - 0.5).abs() < 1e-6);
        let (head, _) = akl_weights(&p, &[0.1, 0.6, 0.2, 0.1], 0.75);
        assert!((head - 1.0).abs() < 1e-6);
        assert_eq!(akl_weights(&p, &p, 0.5), (0.5, 0.5));
        // The likeliest token is in the head however heavy it is.
        let (head, _) = akl_weights(&[0.9, 0.1], &[0.5, 0.5], 0.5);
        assert!((head - 0.5).abs() < 1e-6);
    }
}
