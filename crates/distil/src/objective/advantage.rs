//! From returns to the weights of a policy gradient (LLMR, arXiv 2409.12500, and its relatives):
//!   A_t = (G_t − baseline) / scale, optionally whitened over the batch,
//!   w_t = clip(A_t · ρ_t, −c, c),   ρ_t = q_θ(a_t|s_t) / b(a_t|s_t),
//! with b the policy that sampled. The clip comes after the ratio. Nothing here is differentiated.

use crate::config::Baseline;

/// One response: its returns, and what baselines need to know of the same positions.
#[derive(Clone, Debug, Default)]
pub struct Returns {
    /// G_t; shorter than the response if its last token takes no part.
    pub returns: Vec<f64>,
    /// max_a q(s_t, a).
    pub max_q: Vec<f64>,
    /// Σ_a p(a|s_t) q(s_t, a).
    pub expected_q: Vec<f64>,
    /// ‖∂ log q_θ(a_t|s_t) / ∂ logits‖².
    pub score_square: Vec<f64>,
}

/// How returns become advantages.
#[derive(Clone, Copy, Debug)]
pub struct Weighing {
    /// What is subtracted.
    pub baseline: Baseline,
    /// What advantages are divided by.
    pub scale: f64,
    /// Whether every token gets the return of the whole response.
    pub sentence_level: bool,
    /// Whether advantages get mean 0 and variance 1 over the batch.
    pub normalize: bool,
}

/// Below this standard deviation a batch says nothing about which token was better.
const SAME: f64 = 1e-12;

impl Weighing {
    /// A_t of every response of a batch.
    pub fn advantages(&self, batch: &[Returns]) -> Vec<Vec<f64>> {
        let of_token = |response: &Returns, t: usize| match self.sentence_level {
            true => response.returns[0],
            false => response.returns[t],
        };
        let all = || {
            batch.iter().flat_map(|response| {
                (0..response.returns.len())
                    .map(move |t| (of_token(response, t), response.score_square[t]))
            })
        };
        let constant = match self.baseline {
            Baseline::BatchMean => mean(all().map(|(g, _)| g)),
            Baseline::MinVariance => {
                let squares: f64 = all().map(|(_, square)| square).sum();
                match squares > 0.0 {
                    true => all().map(|(g, square)| g * square).sum::<f64>() / squares,
                    false => 0.0,
                }
            }
            Baseline::None | Baseline::MaxQ | Baseline::ExpectedQ => 0.0,
        };
        let advantage = |response: &Returns, t: usize| {
            let state = match self.baseline {
                Baseline::MaxQ => response.max_q[t],
                Baseline::ExpectedQ => response.expected_q[t],
                _ => constant,
            };
            (of_token(response, t) - state) / self.scale
        };
        let mut advantages: Vec<Vec<f64>> = batch
            .iter()
            .map(|response| {
                let tokens = 0..response.returns.len();
                tokens.map(|t| advantage(response, t)).collect()
            })
            .collect();
        if self.normalize {
            whiten(&mut advantages);
        }
        advantages
    }
}

/// Mean 0 and variance 1 over all entries; only the mean where they are all the same.
pub fn whiten(rows: &mut [Vec<f64>]) {
    let center = mean(rows.iter().flatten().copied());
    let deviation = mean(rows.iter().flatten().map(|a| (a - center).powi(2))).sqrt();
    let factor = match deviation > SAME {
        true => 1.0 / deviation,
        false => 1.0,
    };
    for entry in rows.iter_mut().flatten() {
        *entry = (*entry - center) * factor;
    }
}

/// w = clip(advantage · ratio); a `clip` of 0 is none.
pub fn clipped(advantage: f64, ratio: f64, clip: f64) -> f64 {
    let weight = advantage * ratio;
    match clip > 0.0 {
        true => weight.clamp(-clip, clip),
        false => weight,
    }
}

pub(crate) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), v| (sum + v, count + 1));
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StateValue;
    use crate::objective::induced_reward::{returns, rewards};
    use crate::objective::look::TeacherQ;
    use crate::objective::mdp::{Mdp, Table, Trajectory, distance, softmax};

    fn qs(teacher: &Table, trajectory: &Trajectory) -> Vec<TeacherQ> {
        trajectory
            .steps()
            .map(|(state, action)| {
                let logits = &teacher[state];
                let p = softmax(logits);
                TeacherQ {
                    taken: logits[action],
                    max: logits.iter().copied().fold(f64::MIN, f64::max),
                    expected: p.iter().zip(logits).map(|(p, z)| p * z).sum(),
                    soft: logits.iter().map(|z| z.exp()).sum::<f64>().ln(),
                }
            })
            .collect()
    }

    fn of(qs: &[TeacherQ], student: &Table, trajectory: &Trajectory, value: StateValue) -> Returns {
        let square = |(state, action): (usize, usize)| {
            let q = softmax(&student[state]);
            1.0 - 2.0 * q[action] + q.iter().map(|q| q * q).sum::<f64>()
        };
        Returns {
            returns: returns(qs, value, true, 1),
            max_q: qs.iter().map(|q| q.max).collect(),
            expected_q: qs.iter().map(|q| q.expected).collect(),
            score_square: trajectory.steps().map(square).collect(),
        }
    }

    fn weighing(baseline: Baseline) -> Weighing {
        Weighing {
            baseline,
            scale: 1.0,
            sentence_level: false,
            normalize: false,
        }
    }

    /// By enumeration of every response: the expected update is the gradient of the expected
    /// return, whatever the value, with and without a baseline of the state, and for the return of
    /// the whole response.
    #[test]
    fn the_expected_update_is_the_gradient_of_the_expected_return() {
        let mdp = Mdp::new(3, 3);
        let (teacher, student) = (mdp.table(1), mdp.table(2));
        for value in [StateValue::Max, StateValue::Expected, StateValue::Soft] {
            let total = |y: &Trajectory| rewards(&qs(&teacher, y), value, true).iter().sum();
            let exact = mdp.differences(&student, &|table| mdp.expectation(table, total));
            let mut ways = Vec::new();
            for baseline in [Baseline::None, Baseline::MaxQ, Baseline::ExpectedQ] {
                ways.push(weighing(baseline));
            }
            ways.push(Weighing {
                sentence_level: true,
                ..weighing(Baseline::None)
            });
            for way in ways {
                let update = mdp.expected_score(&student, |y| {
                    let response = of(&qs(&teacher, y), &student, y, value);
                    way.advantages(&[response]).remove(0)
                });
                let error = distance(&update, &exact);
                assert!(error < 1e-9, "{value:?} {way:?}: {error}");
            }
        }
    }

    /// Adding a constant to all logits of each state does not change the expected update.
    #[test]
    fn the_expected_update_does_not_see_shifts_of_the_teachers_logits() {
        let mdp = Mdp::new(3, 3);
        let (teacher, student) = (mdp.table(1), mdp.table(2));
        let mut moved = teacher.clone();
        for (state, row) in moved.iter_mut().enumerate() {
            row.iter_mut().for_each(|z| *z += 3.0 * state as f64 - 5.0);
        }
        let update = |teacher: &Table| {
            mdp.expected_score(&student, |y| {
                let response = of(&qs(teacher, y), &student, y, StateValue::Max);
                weighing(Baseline::None).advantages(&[response]).remove(0)
            })
        };
        assert!(distance(&update(&teacher), &update(&moved)) < 1e-9);
    }

    /// The off-policy correction of a single step: weights A·q/b under samples of b are, step by
    /// step, weights A under samples of q at the same states.
    #[test]
    fn the_ratio_corrects_the_distribution_of_the_step() {
        let mdp = Mdp::new(3, 1);
        let (teacher, student, behaviour) = (mdp.table(1), mdp.table(2), mdp.table(3));
        let weights = |y: &Trajectory| {
            let response = of(&qs(&teacher, y), &student, y, StateValue::Max);
            weighing(Baseline::None).advantages(&[response]).remove(0)
        };
        let on_policy = mdp.expected_score(&student, weights);
        // Σ_y b(y) ρ(y) A(y) ∇ log q(y), spelled out.
        let mut off_policy: Table = student.iter().map(|row| vec![0.0; row.len()]).collect();
        for y in mdp.trajectories() {
            let ratio = mdp.probability(&student, &y) / mdp.probability(&behaviour, &y);
            for ((state, action), a) in y.steps().zip(weights(&y)) {
                let w = clipped(a, ratio, 0.0) * mdp.probability(&behaviour, &y);
                for (token, q) in softmax(&student[state]).into_iter().enumerate() {
                    let onehot = f64::from(u8::from(token == action));
                    off_policy[state][token] += w * (onehot - q);
                }
            }
        }
        assert!(distance(&on_policy, &off_policy) < 1e-9);
    }

    fn batch() -> Vec<Returns> {
        vec![
            Returns {
                returns: vec![3.0, 1.0],
                max_q: vec![2.0, 2.0],
                expected_q: vec![1.0, 0.5],
                score_square: vec![1.0, 0.5],
            },
            Returns {
                returns: vec![-1.0],
                max_q: vec![1.0],
                expected_q: vec![0.0],
                score_square: vec![0.5],
            },
        ]
    }

    #[test]
    fn baselines_by_hand() {
        let of = |baseline| weighing(baseline).advantages(&batch());
        assert_eq!(of(Baseline::None), [vec![3.0, 1.0], vec![-1.0]]);
        assert_eq!(of(Baseline::MaxQ), [vec![1.0, -1.0], vec![-2.0]]);
        assert_eq!(of(Baseline::ExpectedQ), [vec![2.0, 0.5], vec![-1.0]]);
        assert_eq!(of(Baseline::BatchMean), [vec![2.0, 0.0], vec![-2.0]]);
        // (3·1 + 1·½ − 1·½) / 2 = 1.5.
        assert_eq!(of(Baseline::MinVariance), [vec![1.5, -0.5], vec![-2.5]]);
        let scaled = Weighing {
            scale: 2.0,
            sentence_level: true,
            ..weighing(Baseline::None)
        };
        assert_eq!(scaled.advantages(&batch()), [vec![1.5, 1.5], vec![-0.5]]);
        assert!(scaled.advantages(&[]).is_empty());
    }

    /// Of all constants, the minimum-variance baseline makes Σ (G−b)²·g² smallest.
    #[test]
    fn the_minimum_variance_baseline_is_the_best_constant() {
        let spread = |b: f64| -> f64 {
            let tokens = batch().into_iter().flat_map(|r| {
                r.returns
                    .into_iter()
                    .zip(r.score_square)
                    .collect::<Vec<_>>()
            });
            tokens.map(|(g, square)| (g - b).powi(2) * square).sum()
        };
        assert!(spread(1.5) < spread(1.5 + 1e-3) && spread(1.5) < spread(1.5 - 1e-3));
    }

    #[test]
    fn whitened_advantages_have_mean_zero_and_variance_one() {
        let normalized = Weighing {
            normalize: true,
            ..weighing(Baseline::None)
        };
        let flat: Vec<f64> = normalized.advantages(&batch()).concat();
        assert!(mean(flat.iter().copied()).abs() < 1e-12);
        assert!((mean(flat.iter().map(|a| a * a)) - 1.0).abs() < 1e-12);
        let mut same = [vec![2.0, 2.0], vec![2.0]];
        whiten(&mut same);
        assert_eq!(same, [vec![0.0, 0.0], vec![0.0]]);
    }

    #[test]
    fn the_clip_comes_after_the_ratio() {
        assert_eq!(clipped(0.8, 2.0, 1.0), 1.0);
        assert_eq!(clipped(-0.8, 2.0, 1.0), -1.0);
        assert_eq!(clipped(3.0, 0.1, 1.0), 3.0 * 0.1);
        assert_eq!(clipped(3.0, 2.0, 0.0), 6.0);
    }
}
