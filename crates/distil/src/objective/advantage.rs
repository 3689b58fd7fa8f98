//! From returns to the weights of a policy gradient (LLMR, arXiv 2409.12500, and its relatives):
//!   A_t = (G_t − baseline) / scale, optionally whitened over the batch,
//!   w_t = clip(A_t · ρ_t, −c, c),   ρ_t = q_θ(a_t|s_t) / b(a_t|s_t),
//! with b the policy that sampled. The clip comes after the ratio. Nothing here is differentiated.

use crate::config::Baseline;

/// One response: its returns, and what baselines need to know of the same positions.
#[derive(Clone, Debug, Default)]
pub struct Returns {
    /// G_t.
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

/// Below this standard deviation, or this sum of weights, a batch says nothing about which token
/// was better.
const SAME: f64 = 1e-12;

impl Weighing {
    /// A_t of every response of a batch.
    pub fn advantages(&self, batch: &[Returns]) -> Vec<Vec<f64>> {
        let of_token = |response: &Returns, t: usize| match self.sentence_level {
            true => response.returns[0],
            false => response.returns[t],
        };
        // Σ weight · G and Σ weight of a response's tokens, for a baseline that is a mean.
        let weigh = |response: &Returns| -> (f64, f64) {
            let tokens = 0..response.returns.len();
            let pairs = tokens.map(|t| {
                let weight = match self.baseline {
                    Baseline::BatchMean => 1.0,
                    Baseline::MinVariance => response.score_square[t],
                    Baseline::None | Baseline::MaxQ | Baseline::ExpectedQ => 0.0,
                };
                (weight * of_token(response, t), weight)
            });
            pairs.fold((0.0, 0.0), |(sum, total), (part, weight)| {
                (sum + part, total + weight)
            })
        };
        let weighed: Vec<(f64, f64)> = batch.iter().map(weigh).collect();
        let all = weighed
            .iter()
            .fold((0.0, 0.0), |(sum, total), (part, weight)| {
                (sum + part, total + weight)
            });
        let advantages = batch.iter().zip(&weighed).map(|(response, own)| {
            // A response's own return in its baseline would bias the gradient.
            let (sum, total) = (all.0 - own.0, all.1 - own.1);
            let others = (total > SAME).then(|| sum / total);
            let advantage = |t: usize| {
                let state = match self.baseline {
                    Baseline::MaxQ => response.max_q[t],
                    Baseline::ExpectedQ => response.expected_q[t],
                    Baseline::None => 0.0,
                    // With nobody to compare with, nothing is learnt.
                    Baseline::BatchMean | Baseline::MinVariance => {
                        others.unwrap_or_else(|| of_token(response, t))
                    }
                };
                (of_token(response, t) - state) / self.scale
            };
            (0..response.returns.len()).map(advantage).collect()
        });
        let mut advantages: Vec<Vec<f64>> = advantages.collect();
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
            returns: returns(qs, value, 1),
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
        // The other response's mean: −1 for the first, 2 for the second.
        assert_eq!(of(Baseline::BatchMean), [vec![4.0, 2.0], vec![-3.0]]);
        // −1·½ / ½ for the first, (3·1 + 1·½) / 1.5 for the second.
        let second = -1.0 - 3.5 / 1.5;
        assert_eq!(of(Baseline::MinVariance), [vec![4.0, 2.0], vec![second]]);
        assert_eq!(
            weighing(Baseline::BatchMean).advantages(&batch()[..1]),
            [vec![0.0, 0.0]],
            "nobody else to compare with"
        );
        let scaled = Weighing {
            scale: 2.0,
            sentence_level: true,
            ..weighing(Baseline::None)
        };
        assert_eq!(scaled.advantages(&batch()), [vec![1.5, 1.5], vec![-0.5]]);
        assert!(scaled.advantages(&[]).is_empty());
    }

    /// Of all constants, the minimum-variance baseline makes Σ (G−b)²·g² of the other responses
    /// smallest.
    #[test]
    fn the_minimum_variance_baseline_is_the_best_constant() {
        let first = &batch()[0];
        let spread = |b: f64| -> f64 {
            let tokens = first.returns.iter().zip(&first.score_square);
            tokens.map(|(g, square)| (g - b).powi(2) * square).sum()
        };
        let best = 3.5 / 1.5;
        assert!(spread(best) < spread(best + 1e-3) && spread(best) < spread(best - 1e-3));
    }

    /// Two responses a step, every pair of them enumerated: baselines made of the other response
    /// leave the expected update what it is.
    #[test]
    fn baselines_of_the_batch_leave_the_expected_update_alone() {
        let mdp = Mdp::new(3, 2);
        let (teacher, student) = (mdp.table(1), mdp.table(2));
        let response = |y: &Trajectory| of(&qs(&teacher, y), &student, y, StateValue::Max);
        let plain = mdp.expected_score(&student, |y| {
            weighing(Baseline::None)
                .advantages(&[response(y)])
                .remove(0)
        });
        for baseline in [Baseline::BatchMean, Baseline::MinVariance] {
            let update = mdp.expected_score(&student, |y| {
                let mut mean = vec![0.0; y.actions.len()];
                for other in mdp.trajectories() {
                    let both = [response(y), response(&other)];
                    let own = weighing(baseline).advantages(&both).remove(0);
                    let probability = mdp.probability(&student, &other);
                    for (sum, a) in mean.iter_mut().zip(own) {
                        *sum += probability * a;
                    }
                }
                mean
            });
            let error = distance(&update, &plain);
            assert!(error < 1e-9, "{baseline:?}: {error}");
        }
    }

    /// Where only token 0 ends a response, those without it are cut off at the horizon. Their last
    /// token's return bootstraps: the expected update is still the gradient of the expected return,
    /// blind to shifts of the teacher's logits.
    #[test]
    fn responses_that_were_cut_off_keep_the_gradient_exact() {
        let mdp = Mdp::new(3, 3);
        let (teacher, student) = (mdp.table(1), mdp.table(2));
        let mut moved = teacher.clone();
        for (state, row) in moved.iter_mut().enumerate() {
            row.iter_mut().for_each(|z| *z += 2.0 * state as f64 - 3.0);
        }
        for value in [StateValue::Max, StateValue::Expected, StateValue::Soft] {
            // The rewards that are known, and the value of where the response was cut off: the
            // last state's own, since what follows it is worth as much.
            let total = |y: &Trajectory| -> f64 {
                let qs = qs(&teacher, y);
                let cut = y.actions.last() != Some(&0);
                let known: f64 = rewards(&qs, value, !cut).iter().sum();
                match cut {
                    true => known + qs.last().unwrap().taken,
                    false => known,
                }
            };
            let exact = mdp.differences(&student, &|table| mdp.expectation(table, total));
            for baseline in [Baseline::None, Baseline::MaxQ, Baseline::ExpectedQ] {
                let update = |teacher: &Table| {
                    mdp.expected_score(&student, |y| {
                        let response = of(&qs(teacher, y), &student, y, value);
                        weighing(baseline).advantages(&[response]).remove(0)
                    })
                };
                let error = distance(&update(&teacher), &exact);
                assert!(error < 1e-9, "{value:?} {baseline:?}: {error}");
                let shift = distance(&update(&teacher), &update(&moved));
                assert!(shift < 1e-9, "{value:?} {baseline:?}: {shift}");
            }
        }
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
