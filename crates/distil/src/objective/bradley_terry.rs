//! Preferences by the Bradley–Terry model, and the confidence set of rewards that explain them
//! (the standard construction of Zhan et al. 2024, which PbKD, arXiv 2505.18952, builds on):
//!   P_r(y₁ ≻ y₀ | x) = σ(D), D = r(x, y₁) − r(x, y₀),
//!   L̄(r) = mean over pairs of o log σ(D) + (1−o) log σ(−D),
//!   R = { r : L̄(r) ≥ L̄(r_MLE) − ζ }.
//! A dual variable λ ≥ 0 keeps a reward inside: λ ← max(0, λ − a (L̄(r) − L̄(r_MLE) + ζ)).

use super::{log_sigmoid, sigmoid};

/// Log-likelihood of a label and its derivative in the margin D. `label` is the probability that
/// the first response is preferred, 1 or 0 for a plain verdict.
pub fn log_likelihood(margin: f64, label: f64) -> (f64, f64) {
    let value = label * log_sigmoid(margin) + (1.0 - label) * log_sigmoid(-margin);
    (value, label - sigmoid(margin))
}

/// How far inside the confidence set a reward is, in nats a pair; negative outside.
pub fn slack(likelihood: f64, best: f64, zeta: f64) -> f64 {
    likelihood - best + zeta
}

/// The dual variable after one step.
pub fn dual_step(dual: f64, slack: f64, rate: f64) -> f64 {
    (dual - rate * slack).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_derivatives() {
        for label in [0.0, 0.3, 1.0] {
            for margin in [-800.0, -2.0, 0.0, 0.7, 30.0, 900.0f64] {
                let (value, slope) = log_likelihood(margin, label);
                assert!(value.is_finite() && value <= 0.0);
                let h = 1e-5;
                let up = log_likelihood(margin + h, label).0;
                let down = log_likelihood(margin - h, label).0;
                assert!(
                    ((up - down) / (2.0 * h) - slope).abs() < 1e-7,
                    "{margin} {label}"
                );
            }
        }
        assert!((log_likelihood(0.0, 1.0).0 + std::f64::consts::LN_2).abs() < 1e-15);
        // Turning the pair around turns the label around.
        assert_eq!(log_likelihood(1.3, 1.0).0, log_likelihood(-1.3, 0.0).0);
    }

    #[test]
    fn the_dual_grows_outside_of_the_set_and_falls_to_zero_inside() {
        let outside = slack(-0.9, -0.5, 0.1);
        assert!(outside < 0.0 && dual_step(1.0, outside, 2.0) > 1.0);
        let inside = slack(-0.55, -0.5, 0.1);
        assert!(inside > 0.0 && dual_step(1.0, inside, 2.0) < 1.0);
        assert_eq!(dual_step(0.01, inside, 10.0), 0.0);
        assert_eq!(dual_step(1.0, outside, 0.0), 1.0);
    }
}
