//! Moment matching with a bounded Q-function (PbKD, Jia 2025, arXiv 2505.18952, Algorithm 3).
//!
//! A Q-network's logits z give Q = B·tanh(z). At a state with teacher p and student q:
//!   moment     Σ_a (p − q)(a) Q(a),
//!   advantage  A(a) = Q(a) − Σ_a' p(a') Q(a').
//! With Q = Q^p and states of the student, the moments of a response sum up to the gap
//! J(p) − J(q) in expectation; with Q = Q^q and states of the teacher they do as well (performance
//! difference). A response's return is V(s₁) + Σ_t A(s_t, a_t), so that for two responses to one
//! prompt the Bradley–Terry margin is the difference of their sums of advantages.
//!
//! The Q-network is the head's first side in [`QFunction`], the student in [`PolicyMoment`]; the
//! other model is the second side, where a teacher usually is.

use std::sync::Arc;

use distil_kernels::math::{dot, exp, log_sum_exp, sum_of2, vectorised};
use distil_kernels::{RowObjective, RowTerms};

/// Weighted values of a Q-function at each position, differentiated in its logits:
/// e · Σ_a π(a) Q(a) + c · Q(target) + k/2 · Σ_a π(a) z_a², with π the policy of the second side.
///
/// e = 1, c = 0 is the expected Q; e = −1, c = 1 the advantage of the target. The square keeps z where
/// tanh has a slope: without it a Q-function that was pushed to ±B hardly comes back.
/// Terms: the weighted sum, Σ π Q, Q(target), Σ π |Q| / B.
#[derive(Clone, Debug)]
pub struct QFunction {
    /// B > 0.
    pub bound: f32,
    /// The response's token at each row.
    pub targets: Arc<[u32]>,
    /// e of each row.
    pub expectation: Arc<[f32]>,
    /// c of each row.
    pub taken: Arc<[f32]>,
    /// k of each row.
    pub penalty: Arc<[f32]>,
}

impl RowObjective for QFunction {
    fn row(
        &self,
        row: usize,
        student: &mut [f32],
        teacher: Option<&mut [f32]>,
        gradient: bool,
    ) -> RowTerms {
        let (z, policy) = (
            student,
            teacher.expect("a Q-function is weighed by a policy"),
        );
        let (bound, target) = (self.bound, self.targets[row] as usize);
        let (expectation, taken) = (self.expectation[row], self.taken[row]);
        let penalty = self.penalty[row];
        let lse = log_sum_exp(policy);
        let [value, size, square] = vectorised(
            #[inline(always)]
            || {
                let mean = |f: fn(f32) -> f32| sum_of2(z, policy, |z, l| exp(l - lse) * f(z));
                [mean(tanh), mean(|z| tanh(z).abs()), mean(|z| z * z)]
            },
        );
        let taken_value = bound * tanh(z[target]);
        if gradient {
            let taken_slope = taken * bound * slope(z[target]);
            vectorised(
                #[inline(always)]
                || {
                    for (z, &l) in z.iter_mut().zip(policy.iter()) {
                        *z = exp(l - lse) * (expectation * bound * slope(*z) + penalty * *z);
                    }
                },
            );
            z[target] += taken_slope;
        }
        let (value, taken_value) = (f64::from(bound * value), f64::from(taken_value));
        let square = 0.5 * f64::from(penalty) * f64::from(square);
        let loss = f64::from(expectation) * value + f64::from(taken) * taken_value + square;
        RowTerms::of([loss, value, taken_value, f64::from(size)])
    }
}

/// The student's part of the moment, −w · Σ_a q(a) Q(a), differentiated in the student's logits:
/// −w · q_a · (Q_a − Σ q Q). The second side is the Q-network.
/// Terms: the weighted value, Σ q Q.
#[derive(Clone, Debug)]
pub struct PolicyMoment {
    /// B > 0.
    pub bound: f32,
    /// w of each row.
    pub weights: Arc<[f32]>,
}

impl RowObjective for PolicyMoment {
    fn row(
        &self,
        row: usize,
        student: &mut [f32],
        teacher: Option<&mut [f32]>,
        gradient: bool,
    ) -> RowTerms {
        let weight = self.weights[row];
        let z = teacher.expect("the moment is that of a Q-function");
        let (bound, lse) = (self.bound, log_sum_exp(student));
        let value = vectorised(
            #[inline(always)]
            || sum_of2(student, z, |s, z| exp(s - lse) * bound * tanh(z)),
        );
        if gradient {
            vectorised(
                #[inline(always)]
                || {
                    for (s, &z) in student.iter_mut().zip(z.iter()) {
                        *s = weight * exp(*s - lse) * (value - bound * tanh(z));
                    }
                },
            );
        }
        let square = match gradient {
            true => f64::from(dot(student, student)),
            false => 0.0,
        };
        let value = f64::from(value);
        RowTerms {
            values: [-f64::from(weight) * value, value, 0.0, 0.0],
            squares: [0.0, square, 0.0, 0.0],
        }
    }
}

/// tanh to about 10⁻⁷, and NaN where z is.
#[inline(always)]
fn tanh(z: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * z) + 1.0)
}

/// The derivative of tanh, 1 − tanh² = 4 / (eᶻ + e⁻ᶻ)², without cancellation.
#[inline(always)]
fn slope(z: f32) -> f32 {
    let half = 0.5 * (exp(z) + exp(-z));
    1.0 / half / half
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::testing::{check_gradient, golden, rows, targets};

    const BOUND: f32 = 1.5;

    fn q_function(expectation: f32, taken: f32, penalty: f32) -> QFunction {
        let targets = targets(&golden());
        QFunction {
            bound: BOUND,
            expectation: vec![expectation; targets.len()].into(),
            taken: vec![taken; targets.len()].into(),
            penalty: vec![penalty; targets.len()].into(),
            targets,
        }
    }

    fn policy_moment(weight: f32) -> PolicyMoment {
        PolicyMoment {
            bound: BOUND,
            weights: vec![weight; targets(&golden()).len()].into(),
        }
    }

    fn softmax(logits: &[f64]) -> Vec<f64> {
        let most = logits.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = logits.iter().map(|z| (z - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|w| w / total).collect()
    }

    fn doubles(row: &[f32]) -> Vec<f64> {
        row.iter().map(|&x| f64::from(x)).collect()
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn values_equal_the_definition_in_f64() {
        let golden = golden();
        let (first, second) = (
            rows(&golden["student_logits"]),
            rows(&golden["teacher_logits"]),
        );
        let targets = targets(&golden);
        for (i, (z, l)) in first.iter().zip(&second).enumerate() {
            let q: Vec<f64> = doubles(z)
                .iter()
                .map(|z| f64::from(BOUND) * z.tanh())
                .collect();
            let policy = softmax(&doubles(l));
            let (expected, taken) = (dot(&policy, &q), q[targets[i] as usize]);
            let (mut zs, mut ls) = (z.clone(), l.clone());
            let terms = q_function(-1.0, 1.0, 0.0)
                .row(i, &mut zs, Some(&mut ls), false)
                .values;
            for (got, want) in terms.iter().zip([taken - expected, expected, taken]) {
                assert!((got - want).abs() < 2e-6, "{got} against {want}");
            }
            // The same numbers from the student's side.
            let objective = policy_moment(1.0);
            let value = objective.row(i, &mut ls, Some(&mut zs), false).values[0];
            assert!((value + expected).abs() < 2e-6, "{value} {expected}");
        }
    }

    #[test]
    fn gradients_equal_differences() {
        let golden = golden();
        for (expectation, taken, penalty) in [(1.0, 0.0, 0.0), (-1.0, 1.0, 0.0), (0.3, -2.0, 0.4)] {
            check_gradient(&q_function(expectation, taken, penalty), &golden, 1e-2);
        }
        check_gradient(&policy_moment(0.7), &golden, 1e-2);
    }

    #[test]
    fn a_q_function_that_is_no_number_is_noticed() {
        let mut z = vec![0.5, f32::NAN, 1.0];
        let terms = q_function(1.0, 0.0, 0.0)
            .row(0, &mut z, Some(&mut [0.0; 3]), false)
            .values;
        assert!(terms[0].is_nan());
    }

    /// Every response of 3 tokens out of 3, a reward at every step, a teacher and a student.
    struct Mdp {
        reward: Vec<[f64; 3]>,
        teacher: Vec<[f64; 3]>,
        student: Vec<[f64; 3]>,
    }

    const HORIZON: usize = 3;
    const STATES: usize = 1 + 3 + 9;

    /// States are numbered by levels; their successors follow as in a heap.
    fn next(state: usize, action: usize) -> usize {
        3 * state + 1 + action
    }

    impl Mdp {
        fn new(seed: u64) -> Self {
            let mut state = seed;
            let mut normal = || {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
            };
            let mut table = |scale: f64| -> Vec<[f64; 3]> {
                (0..STATES)
                    .map(|_| std::array::from_fn(|_| scale * normal()))
                    .collect()
            };
            Self {
                reward: table(1.0),
                teacher: table(2.0),
                student: table(2.0),
            }
        }

        /// Q of a policy given by logits, and V, by backward induction.
        fn q(&self, logits: &[[f64; 3]]) -> (Vec<[f64; 3]>, Vec<f64>) {
            let (mut q, mut v) = (vec![[0.0; 3]; STATES], vec![0.0; STATES]);
            for s in (0..STATES).rev() {
                q[s] = std::array::from_fn(|a| {
                    let later = v.get(next(s, a)).copied().unwrap_or(0.0);
                    self.reward[s][a] + later
                });
                v[s] = dot(&softmax(&logits[s]), &q[s]);
            }
            (q, v)
        }

        /// Every response as its states and actions, with its probability under `logits`.
        fn responses(logits: &[[f64; 3]]) -> Vec<(Vec<(usize, usize)>, f64)> {
            let mut all = vec![(Vec::new(), 0usize, 1.0)];
            for _ in 0..HORIZON {
                all = all
                    .into_iter()
                    .flat_map(|(path, s, p)| {
                        let policy = softmax(&logits[s]);
                        (0..3).map(move |a| {
                            let mut path: Vec<(usize, usize)> = path.clone();
                            path.push((s, a));
                            (path, next(s, a), p * policy[a])
                        })
                    })
                    .collect();
            }
            all.into_iter().map(|(path, _, p)| (path, p)).collect()
        }

        fn moment(&self, state: usize, q: &[f64; 3]) -> f64 {
            let (p, s) = (softmax(&self.teacher[state]), softmax(&self.student[state]));
            dot(&p, q) - dot(&s, q)
        }
    }

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-9, "{got} against {want}");
    }

    #[test]
    fn both_performance_difference_lemmas_hold() {
        for seed in 1..=5 {
            let mdp = Mdp::new(seed);
            let (q_teacher, v_teacher) = mdp.q(&mdp.teacher);
            let (q_student, v_student) = mdp.q(&mdp.student);
            let gap = v_teacher[0] - v_student[0];
            let sum = |states: &[[f64; 3]], q: &[[f64; 3]]| -> f64 {
                Mdp::responses(states)
                    .iter()
                    .map(|(path, p)| {
                        p * path.iter().map(|&(s, _)| mdp.moment(s, &q[s])).sum::<f64>()
                    })
                    .sum()
            };
            near(sum(&mdp.student, &q_teacher), gap);
            near(sum(&mdp.teacher, &q_student), gap);
            // The other pairings are no lemmas: the test could tell.
            assert!((sum(&mdp.teacher, &q_teacher) - gap).abs() > 1e-3);
        }
    }

    #[test]
    fn a_return_is_the_first_value_and_the_advantages() {
        let mdp = Mdp::new(7);
        let (q, v) = mdp.q(&mdp.teacher);
        for (path, _) in Mdp::responses(&mdp.teacher) {
            let reward: f64 = path.iter().map(|&(s, a)| mdp.reward[s][a]).sum();
            let advantages: f64 = path.iter().map(|&(s, a)| q[s][a] - v[s]).sum();
            near(v[0] + advantages, reward);
        }
    }

    /// Without preferences the worst bounded Q makes the moment 2B times the total variation.
    #[test]
    fn the_largest_moment_is_twice_the_bound_times_the_total_variation() {
        let mdp = Mdp::new(9);
        let bound = f64::from(BOUND);
        for state in 0..STATES {
            let (p, s) = (softmax(&mdp.teacher[state]), softmax(&mdp.student[state]));
            let variation: f64 = 0.5 * p.iter().zip(&s).map(|(p, s)| (p - s).abs()).sum::<f64>();
            // Linear in Q: the largest is at a corner of the cube.
            let corners = (0..8u8).map(|corner| {
                let q = std::array::from_fn(|a| match corner >> a & 1 {
                    1 => bound,
                    _ => -bound,
                });
                mdp.moment(state, &q)
            });
            near(corners.fold(f64::MIN, f64::max), 2.0 * bound * variation);
            // Gradient ascent on the logits of Q, as training does it, comes near and never above.
            let mut z = [0.0f32; 3];
            let (mut teacher, mut student) = (
                mdp.teacher[state].map(|x| x as f32),
                mdp.student[state].map(|x| x as f32),
            );
            let expected = QFunction {
                bound: BOUND,
                targets: [0].into(),
                expectation: [1.0].into(),
                taken: [0.0].into(),
                penalty: [0.0].into(),
            };
            let mut moment = 0.0;
            for _ in 0..4000 {
                let (mut up, mut down) = (z, z);
                let high = expected.row(0, &mut up, Some(&mut teacher), true).values[0];
                moment = high - expected.row(0, &mut down, Some(&mut student), true).values[0];
                for a in 0..3 {
                    z[a] += 2.0 * (up[a] - down[a]);
                }
            }
            let most = 2.0 * bound * variation;
            assert!(
                moment < most + 1e-5 && moment > 0.97 * most,
                "{moment} {most}"
            );
        }
    }

    /// With Q = Q^q, the policy step's gradient over all of the student's responses is the policy
    /// gradient: that of −J(q).
    #[test]
    fn the_expected_policy_step_is_the_gradient_of_the_return() {
        let mdp = Mdp::new(11);
        let (q, _) = mdp.q(&mdp.student);
        let mut expected = vec![[0.0; 3]; STATES];
        for (path, probability) in Mdp::responses(&mdp.student) {
            for (s, _) in path {
                let policy = softmax(&mdp.student[s]);
                let mean = dot(&policy, &q[s]);
                for a in 0..3 {
                    expected[s][a] -= probability * policy[a] * (q[s][a] - mean);
                }
                // The objective says the same at this state, in f32.
                let mut logits = mdp.student[s].map(|x| x as f32);
                let bound = 8.0;
                let mut z = q[s].map(|q| (q / bound).atanh() as f32);
                let objective = PolicyMoment {
                    bound: bound as f32,
                    weights: [1.0].into(),
                };
                objective.row(0, &mut logits, Some(&mut z), true);
                for a in 0..3 {
                    let want = -policy[a] * (q[s][a] - mean);
                    assert!((f64::from(logits[a]) - want).abs() < 3e-6);
                }
            }
        }
        for s in 0..STATES {
            for a in 0..3 {
                let value = |by: f64| {
                    let mut moved = mdp.student.clone();
                    moved[s][a] += by;
                    -mdp.q(&moved).1[0]
                };
                let h = 1e-3;
                // Differences of fourth order.
                let near_by = value(h) - value(-h);
                let far = value(2.0 * h) - value(-2.0 * h);
                near((8.0 * near_by - far) / (12.0 * h), expected[s][a]);
            }
        }
    }
}
