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
    use rand_chacha::rand_core::{RngCore, SeedableRng};

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

    /// PbKD's inner game with a linear reward r(y) = w · φ(y): ascending gap + λ · L̄ with the dual
    /// step brings the reward to the edge of the confidence set, where the gap is the largest that
    /// the preferences allow. For each of 24 problems; the largest gap is found another way, along
    /// the fixed multipliers of the same Lagrangian.
    #[test]
    fn the_game_ends_on_the_edge_of_the_confidence_set() {
        const PAIRS: usize = 100;
        const ZETA: f64 = 2.0 / PAIRS as f64;
        for seed in 0..24u64 {
            let mut uniform = {
                let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
                move || (random.next_u64() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
            };
            let truth: [f64; 2] = [uniform(), uniform()];
            // Differences of features, the preferred response first.
            let pairs: Vec<[f64; 2]> = (0..PAIRS)
                .map(|_| {
                    let x = [uniform(), uniform()];
                    let chance = sigmoid(x[0] * truth[0] + x[1] * truth[1]);
                    match 0.5 * (uniform() + 1.0) < chance {
                        true => x,
                        false => x.map(|x| -x),
                    }
                })
                .collect();
            let likelihood = |w: [f64; 2]| -> (f64, [f64; 2]) {
                let (mut value, mut slope) = (0.0, [0.0; 2]);
                for x in &pairs {
                    let (v, s) = log_likelihood(x[0] * w[0] + x[1] * w[1], 1.0);
                    value += v / PAIRS as f64;
                    slope[0] += s * x[0] / PAIRS as f64;
                    slope[1] += s * x[1] / PAIRS as f64;
                }
                (value, slope)
            };
            // What the teacher's features have more than the student's.
            let gap = [uniform(), uniform()];
            // Ascends gap/λ + L̄, a concave problem, from `w`.
            let ascend = |mut w: [f64; 2], dual: f64, steps: usize| {
                for _ in 0..steps {
                    let (_, slope) = likelihood(w);
                    for i in 0..2 {
                        w[i] += 3.0 * (gap[i] / dual + slope[i]);
                    }
                }
                w
            };
            let mut best = [0.0; 2];
            for _ in 0..2000 {
                let (_, slope) = likelihood(best);
                best = [best[0] + 3.0 * slope[0], best[1] + 3.0 * slope[1]];
            }
            let best_likelihood = likelihood(best).0;

            let (mut w, mut dual) = (best, 1.0);
            for _ in 0..6000 {
                let (_, slope) = likelihood(w);
                for i in 0..2 {
                    w[i] += 0.05 * (gap[i] + dual * slope[i]);
                }
                let inside = slack(likelihood(w).0, best_likelihood, ZETA);
                dual = dual_step(dual, inside, 2.0);
            }
            let inside = slack(likelihood(w).0, best_likelihood, ZETA);
            assert!(inside > -0.05 * ZETA, "{seed}: outside by {inside}");
            assert!(inside < 0.05 * ZETA, "{seed}: {inside} short of the edge");

            let (mut low, mut high) = (0.1, 1e4_f64);
            let mut edge = best;
            for _ in 0..25 {
                let middle = (low * high).sqrt();
                edge = ascend(best, middle, 300);
                match likelihood(edge).0 < best_likelihood - ZETA {
                    true => low = middle,
                    false => high = middle,
                }
            }
            let of = |w: [f64; 2]| gap[0] * w[0] + gap[1] * w[1];
            let (reached, largest) = (of(w), of(edge));
            let width = largest - of(best);
            assert!(
                (reached - largest).abs() < 0.05 * width,
                "{seed}: {reached} {largest}"
            );
        }
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
