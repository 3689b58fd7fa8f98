//! DPKD's preference loss on sequences (Li et al. 2024, arXiv 2406.19774, eqs. 8 and 9): the teacher
//! p is the reference model, its sample y_t is preferred over the student's sample y_s.
//!
//!   m = β/n_t · log q(y_t)/p(y_t) − β/n_s · log q(y_s)/p(y_s),
//!   L = −(1−ε) log σ(m) − ε log σ(−m),
//! with n the sequence's length (eq. 9) or 1 (eq. 8). Derivatives, for ε = 0:
//!   ∂L/∂ log q(y_t) = −β/n_t · σ(−m),   ∂L/∂ log q(y_s) = +β/n_s · σ(−m).
//! (The paper's eqs. 11, 28 and 30 print σ with the opposite sign; differences confirm this one,
//! and so does its text: the weight is large where the reward orders the pair wrongly.)

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
    /// Strength β of the divergence penalty.
    pub beta: f64,
    /// Whether log-ratios are divided by their length (eq. 9).
    pub length_normalize: bool,
    /// Label smoothing ε in [0, ½).
    pub label_smoothing: f64,
}

/// Value and derivatives of one pair.
#[derive(Clone, Copy, Debug)]
pub struct PreferenceValue {
    /// The loss, in nats.
    pub loss: f64,
    /// m, the difference of the implicit rewards.
    pub margin: f64,
    /// Implicit reward of y_t: β/n_t · log q(y_t)/p(y_t).
    pub chosen_reward: f64,
    /// Implicit reward of y_s.
    pub rejected_reward: f64,
    /// ∂L/∂ log q(y_t).
    pub d_chosen: f64,
    /// ∂L/∂ log q(y_s).
    pub d_rejected: f64,
}

impl PreferenceLoss {
    /// The loss of one pair.
    pub fn value(&self, pair: &Pair) -> PreferenceValue {
        let scale = |tokens: usize| match self.length_normalize {
            true => self.beta / tokens.max(1) as f64,
            false => self.beta,
        };
        let (chosen, rejected) = (scale(pair.chosen_tokens), scale(pair.rejected_tokens));
        let chosen_reward = chosen * (pair.student_chosen - pair.teacher_chosen);
        let rejected_reward = rejected * (pair.student_rejected - pair.teacher_rejected);
        let margin = chosen_reward - rejected_reward;
        let smoothing = self.label_smoothing;
        let slope = smoothing * sigmoid(margin) - (1.0 - smoothing) * sigmoid(-margin);
        PreferenceValue {
            loss: -(1.0 - smoothing) * log_sigmoid(margin) - smoothing * log_sigmoid(-margin),
            margin,
            chosen_reward,
            rejected_reward,
            d_chosen: slope * chosen,
            d_rejected: -slope * rejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::testing::golden;

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
        let loss = PreferenceLoss {
            beta: golden["beta"].as_f64().unwrap(),
            length_normalize: true,
            label_smoothing: 0.0,
        };
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
        let pair = Pair {
            student_chosen: -40.0,
            teacher_chosen: -22.0,
            chosen_tokens: 12,
            student_rejected: -30.0,
            teacher_rejected: -44.0,
            rejected_tokens: 17,
        };
        for (length_normalize, label_smoothing) in [(true, 0.0), (false, 0.0), (true, 0.2)] {
            let loss = PreferenceLoss {
                beta: 0.7,
                length_normalize,
                label_smoothing,
            };
            let value = loss.value(&pair);
            let step = 1e-5;
            let slope = |f: &dyn Fn(&mut Pair, f64)| {
                let [mut up, mut down] = [pair; 2];
                f(&mut up, step);
                f(&mut down, -step);
                (loss.value(&up).loss - loss.value(&down).loss) / (2.0 * step)
            };
            assert!((slope(&|p, h| p.student_chosen += h) - value.d_chosen).abs() < 1e-8);
            assert!((slope(&|p, h| p.student_rejected += h) - value.d_rejected).abs() < 1e-8);
            assert!(
                value.d_chosen < 0.0 && value.d_rejected > 0.0,
                "the teacher's side rises"
            );
        }
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
        let loss = PreferenceLoss {
            beta: 0.1,
            length_normalize: true,
            label_smoothing: 0.0,
        };
        let value = loss.value(&pair);
        assert_eq!(value.margin, 0.0);
        assert!((value.loss - std::f64::consts::LN_2).abs() < 1e-15);
    }
}
