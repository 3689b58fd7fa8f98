//! Losses on a pair of responses, y_t preferred to y_s, with the student q and a reference p.
//!
//! With L(y) = log q(y)/p(y), or log q(y) without a reference, and n(y) = |y| where lengths are
//! normalised and 1 where not:
//!
//! | loss | | source |
//! |---|---|---|
//! | dpkd | −log σ(m), m = β L(y_t)/n_t − β L(y_s)/n_s, p the teacher | Li et al. 2024, arXiv 2406.19774, eqs. 8, 9 |
//! | dpo | the same with n = 1 | Rafailov et al. 2023, arXiv 2305.18290 |
//! | ipo | (Δ − 1/(2τ))², Δ = L(y_t)/n_t − L(y_s)/n_s | Azar et al. 2024, arXiv 2310.12036 |
//! | cpo | −log σ(m) − log q(y_t)/n_t, no reference | Xu et al. 2024, arXiv 2401.08417 |
//! | simpo | −log σ(m − γ), no reference | Meng et al. 2024, arXiv 2405.14734 |
//!
//! Label smoothing ε makes −log σ(m) into −(1−ε) log σ(m) − ε log σ(−m). For ε = 0 and dpkd
//!   ∂L/∂ log q(y_t) = −β/n_t · σ(−m),   ∂L/∂ log q(y_s) = +β/n_s · σ(−m).
//! (DPKD's eqs. 11, 28 and 30 print σ with the opposite sign; differences confirm this one, and so
//! does its text: the weight is large where the reward orders the pair wrongly.)

use crate::config::{PreferenceKind, Reference};

use super::{log_sigmoid, sigmoid};

/// Sequence log-probabilities of one pair, in nats, and the lengths in tokens.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// log q(y_t): the student's, of the teacher's sample.
    pub student_chosen: f64,
    /// log p(y_t): the teacher's, of its own sample.
    pub teacher_chosen: f64,
    /// Tokens of y_t.
    pub chosen_tokens: usize,
    /// log q(y_s): the student's, of its own sample.
    pub student_rejected: f64,
    /// log p(y_s): the teacher's, of the student's sample.
    pub teacher_rejected: f64,
    /// Tokens of y_s.
    pub rejected_tokens: usize,
}

/// The loss's settings.
#[derive(Clone, Copy, Debug)]
pub struct PreferenceLoss {
    /// Which loss, and what it alone has.
    pub kind: PreferenceKind,
    /// β: strength of the tie to the reference.
    pub beta: f64,
    /// Whether each sequence's log-ratio is divided by its length.
    pub length_normalize: bool,
}

/// Value and derivatives of one pair.
#[derive(Clone, Copy, Debug)]
pub struct PreferenceValue {
    /// The loss, in nats (for `ipo` in nats²).
    pub loss: f64,
    /// m, the difference of the implicit rewards.
    pub margin: f64,
    /// Implicit reward of y_t: β/n_t · L(y_t).
    pub chosen_reward: f64,
    /// Implicit reward of y_s.
    pub rejected_reward: f64,
    /// ∂L/∂ log q(y_t).
    pub d_chosen: f64,
    /// ∂L/∂ log q(y_s).
    pub d_rejected: f64,
}

impl PreferenceLoss {
    /// The loss of one pair. Without a reference the teacher's numbers are not read.
    pub fn value(&self, pair: &Pair) -> PreferenceValue {
        let share = |tokens: usize| match self.length_normalize {
            true => 1.0 / tokens.max(1) as f64,
            false => 1.0,
        };
        let (chosen, rejected) = (share(pair.chosen_tokens), share(pair.rejected_tokens));
        let log_ratio = |student: f64, teacher: f64| match self.kind.needs_reference() {
            true => student - teacher,
            false => student,
        };
        let of_chosen = chosen * log_ratio(pair.student_chosen, pair.teacher_chosen);
        let of_rejected = rejected * log_ratio(pair.student_rejected, pair.teacher_rejected);
        let gap = of_chosen - of_rejected;
        let margin = self.beta * gap;
        // The loss and its slope in the gap of the log-ratios.
        let smoothed = |margin: f64, smoothing: f64| {
            let loss = -(1.0 - smoothing) * log_sigmoid(margin) - smoothing * log_sigmoid(-margin);
            let slope = smoothing * sigmoid(margin) - (1.0 - smoothing) * sigmoid(-margin);
            (loss, self.beta * slope)
        };
        let (mut loss, slope) = match self.kind {
            PreferenceKind::Dpkd {
                label_smoothing, ..
            }
            | PreferenceKind::Dpo {
                label_smoothing, ..
            }
            | PreferenceKind::Cpo { label_smoothing } => smoothed(margin, label_smoothing),
            PreferenceKind::SimPo {
                label_smoothing,
                simpo_gamma,
            } => smoothed(margin - simpo_gamma, label_smoothing),
            PreferenceKind::Ipo { ipo_tau, .. } => {
                let miss = gap - 0.5 / ipo_tau;
                (miss * miss, 2.0 * miss)
            }
        };
        let mut d_chosen = slope * chosen;
        if matches!(self.kind, PreferenceKind::Cpo { .. }) {
            loss -= of_chosen;
            d_chosen -= chosen;
        }
        PreferenceValue {
            loss,
            margin,
            chosen_reward: self.beta * of_chosen,
            rejected_reward: self.beta * of_rejected,
            d_chosen,
            d_rejected: -slope * rejected,
        }
    }

    /// DPKD's eq. 9 with the teacher as reference.
    pub fn dpkd(beta: f64) -> Self {
        let kind = PreferenceKind::Dpkd {
            reference: Reference::Teacher,
            label_smoothing: 0.0,
        };
        Self {
            kind,
            beta,
            length_normalize: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::testing::{golden, preference_golden};

    fn numbers(pair: &Pair) -> [f64; 4] {
        [
            pair.student_chosen,
            pair.student_rejected,
            pair.teacher_chosen,
            pair.teacher_rejected,
        ]
    }

    #[test]
    fn value_and_derivatives_equal_the_f64_reference() {
        let golden = golden();
        let golden = &golden["dpkd_sequence"];
        let loss = PreferenceLoss::dpkd(golden["beta"].as_f64().unwrap());
        let pairs = golden["pairs"].as_array().unwrap();
        assert_eq!(pairs.len(), 3);
        for pair in pairs {
            let number = |key: &str| pair[key].as_f64().unwrap();
            let value = loss.value(&Pair {
                student_chosen: number("student_chosen"),
                teacher_chosen: number("teacher_chosen"),
                chosen_tokens: number("chosen_tokens") as usize,
                student_rejected: number("student_rejected"),
                teacher_rejected: number("teacher_rejected"),
                rejected_tokens: number("rejected_tokens") as usize,
            });
            let close =
                |a: f64, b: f64| assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{a} {b}");
            close(value.loss, number("value"));
            close(value.margin, number("margin"));
            let gradient = &pair["gradient"];
            close(value.d_chosen, gradient["student_chosen"].as_f64().unwrap());
            close(
                value.d_rejected,
                gradient["student_rejected"].as_f64().unwrap(),
            );
        }
    }

    #[test]
    fn derivatives_equal_differences_in_every_form() {
        let pair = PAIR;
        for loss in every_loss() {
            let value = loss.value(&pair);
            let step = 1e-5;
            let slope = |f: &dyn Fn(&mut Pair, f64)| {
                let [mut up, mut down] = [pair; 2];
                f(&mut up, step);
                f(&mut down, -step);
                (loss.value(&up).loss - loss.value(&down).loss) / (2.0 * step)
            };
            let close = |got: f64, want: f64| {
                assert!(
                    (got - want).abs() < 1e-7 * want.abs().max(1.0),
                    "{loss:?}: {got} {want}"
                );
            };
            close(value.d_chosen, slope(&|p, h| p.student_chosen += h));
            close(value.d_rejected, slope(&|p, h| p.student_rejected += h));
            assert!(
                value.d_chosen < 0.0 && value.d_rejected > 0.0,
                "the preferred side rises: {loss:?}"
            );
        }
    }

    #[test]
    fn every_loss_equals_the_f64_reference() {
        let golden = preference_golden();
        let cases = golden["sequence"].as_array().unwrap();
        assert!(cases.len() >= 10, "{}", cases.len());
        for case in cases {
            let loss = PreferenceLoss {
                kind: serde_json::from_value(case.clone()).unwrap(),
                beta: case["beta"].as_f64().unwrap(),
                length_normalize: case["length_normalize"].as_bool().unwrap(),
            };
            for pair in case["pairs"].as_array().unwrap() {
                let number = |key: &str| pair[key].as_f64().unwrap();
                let value = loss.value(&Pair {
                    student_chosen: number("student_chosen"),
                    teacher_chosen: number("teacher_chosen"),
                    chosen_tokens: number("chosen_tokens") as usize,
                    student_rejected: number("student_rejected"),
                    teacher_rejected: number("teacher_rejected"),
                    rejected_tokens: number("rejected_tokens") as usize,
                });
                let close = |a: f64, b: &serde_json::Value| {
                    let b = b.as_f64().unwrap();
                    assert!(
                        (a - b).abs() <= 1e-9 * b.abs().max(1.0),
                        "{loss:?}: {a} {b}"
                    );
                };
                close(value.loss, &pair["value"]);
                close(value.d_chosen, &pair["gradient"][0]);
                close(value.d_rejected, &pair["gradient"][1]);
            }
        }
    }

    fn every_loss() -> Vec<PreferenceLoss> {
        let mut all = Vec::new();
        for reference in [Reference::Teacher, Reference::None] {
            for label_smoothing in [0.0, 0.2] {
                all.push(PreferenceKind::Dpkd {
                    reference,
                    label_smoothing,
                });
                all.push(PreferenceKind::Cpo { label_smoothing });
                all.push(PreferenceKind::SimPo {
                    label_smoothing,
                    simpo_gamma: 0.5,
                });
            }
            all.push(PreferenceKind::Ipo {
                reference,
                ipo_tau: 0.02,
            });
        }
        let with = |kind| {
            [true, false].map(|length_normalize| PreferenceLoss {
                kind,
                beta: 0.7,
                length_normalize,
            })
        };
        all.into_iter().flat_map(with).collect()
    }

    const PAIR: Pair = Pair {
        student_chosen: -40.0,
        teacher_chosen: -22.0,
        chosen_tokens: 12,
        student_rejected: -30.0,
        teacher_rejected: -44.0,
        rejected_tokens: 17,
    };

    #[test]
    fn identities_between_the_losses() {
        let of = |kind, length_normalize| {
            PreferenceLoss {
                kind,
                beta: 0.3,
                length_normalize,
            }
            .value(&PAIR)
        };
        let dpkd = |reference, label_smoothing| PreferenceKind::Dpkd {
            reference,
            label_smoothing,
        };
        let simpo = |simpo_gamma| PreferenceKind::SimPo {
            label_smoothing: 0.0,
            simpo_gamma,
        };
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        // SimPO without a margin is DPKD without a reference.
        let (a, b) = (of(simpo(0.0), true), of(dpkd(Reference::None, 0.0), true));
        close(a.loss, b.loss);
        close(a.d_chosen, b.d_chosen);
        // DPO is DPKD whose lengths are not normalised.
        let dpo = PreferenceKind::Dpo {
            reference: Reference::Teacher,
            label_smoothing: 0.1,
        };
        let (a, b) = (of(dpo, false), of(dpkd(Reference::Teacher, 0.1), false));
        close(a.loss, b.loss);
        close(a.d_rejected, b.d_rejected);
        // CPO is DPO without a reference, and the likelihood of the preferred response.
        let cpo = PreferenceKind::Cpo {
            label_smoothing: 0.0,
        };
        let (a, b) = (of(cpo, false), of(dpkd(Reference::None, 0.0), false));
        close(a.loss - b.loss, -PAIR.student_chosen);
        close(a.d_chosen - b.d_chosen, -1.0);
        close(a.d_rejected, b.d_rejected);
        // IPO is content where the gap is 1/(2τ).
        let gap = (PAIR.student_rejected - PAIR.teacher_rejected)
            - (PAIR.student_chosen - PAIR.teacher_chosen);
        let turned = Pair {
            student_chosen: PAIR.student_rejected,
            teacher_chosen: PAIR.teacher_rejected,
            student_rejected: PAIR.student_chosen,
            teacher_rejected: PAIR.teacher_chosen,
            ..PAIR
        };
        let ipo = PreferenceLoss {
            kind: PreferenceKind::Ipo {
                reference: Reference::Teacher,
                ipo_tau: 0.5 / gap,
            },
            beta: 1.0,
            length_normalize: false,
        };
        close(ipo.value(&turned).loss, 0.0);
        close(ipo.value(&turned).d_chosen, 0.0);
        // Smoothing by one half would not care about the order.
        let half = |kind| of(kind, true).loss;
        let nearly = half(dpkd(Reference::Teacher, 0.499_999_999));
        let m = of(dpkd(Reference::Teacher, 0.0), true).margin;
        assert!((nearly + 0.5 * (log_sigmoid(m) + log_sigmoid(-m))).abs() < 1e-6);
    }

    #[test]
    fn a_student_equal_to_its_teacher_has_no_margin() {
        let pair = Pair {
            student_chosen: -10.0,
            teacher_chosen: -10.0,
            chosen_tokens: 5,
            student_rejected: -25.0,
            teacher_rejected: -25.0,
            rejected_tokens: 9,
        };
        assert_eq!(numbers(&pair)[0], numbers(&pair)[2]);
        let value = PreferenceLoss::dpkd(0.1).value(&pair);
        assert_eq!(value.margin, 0.0);
        assert!((value.loss - std::f64::consts::LN_2).abs() < 1e-15);
    }
}
