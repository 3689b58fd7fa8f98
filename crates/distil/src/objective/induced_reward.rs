//! The reward that a teacher's logits induce (LLMR: Li, Hao & Mou 2024, arXiv 2409.12500).
//!
//! The teacher's distribution is a Boltzmann policy of a q-function, p(a|s) ∝ exp q(s, a), so q is
//! the logits up to a constant of the state, fixed by centring them over the vocabulary. Inverting
//! the Bellman equation,
//!   r(s_t, a_t) = q(s_t, a_t) − V(s_{t+1}),   V = 0 after EOS,
//! with V(s) = max_a q (optimality), Σ_a p q (expectation), or log Σ_a exp q (soft). Then
//!   G_t = Σ_{i≥t} r_i = q(s_t, a_t) + Σ_{i>t} (q(s_i, a_i) − V(s_i)):
//! a constant added to a state's logits changes only that state's own return, by the same constant
//! for every action, which no expected policy gradient sees.
//!
//! K-step returns (KETCHUP): G_t = q(s_t, a_t) − V(s_{t+K}) + G_{t+K}; K = 1 is LLMR.
//!
//! A response that was cut off ends in a state whose V nobody has seen, so that its last token's
//! reward is not known. Its return is: what follows is worth that same V by the bootstrap, and
//! the two cancel, G_T = q(s_T, a_T). Being cut off is neither punished nor paid, and in the last
//! state every action has the weight that it has elsewhere.

use crate::config::StateValue;

use super::look::TeacherQ;

/// V(s) of the state that `q` describes.
pub fn state_value(q: &TeacherQ, value: StateValue) -> f64 {
    match value {
        StateValue::Max => q.max,
        StateValue::Expected => q.expected,
        StateValue::Soft => q.soft,
    }
}

/// r of every token of one response; a response that was cut off has no reward for its last token.
pub fn rewards(qs: &[TeacherQ], value: StateValue, finished: bool) -> Vec<f64> {
    let next = qs.iter().skip(1).map(|q| state_value(q, value));
    let end = finished.then_some(0.0);
    let both = qs.iter().zip(next.chain(end));
    both.map(|(q, v)| q.taken - v).collect()
}

/// G of every token of one response, by steps of `every` tokens; the same whether the response ended
/// or was cut off.
pub fn returns(qs: &[TeacherQ], value: StateValue, every: usize) -> Vec<f64> {
    let every = every.max(1);
    let mut result = vec![0.0; qs.len()];
    for t in (0..qs.len()).rev() {
        let rest = match t + every {
            next if next < qs.len() => result[next] - state_value(&qs[next], value),
            // The end, or a state whose value and what follows it cancel.
            _ => 0.0,
        };
        result[t] = qs[t].taken + rest;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::mdp::{Mdp, softmax};

    fn q_of(logits: &[f64], token: usize) -> TeacherQ {
        let mean = logits.iter().sum::<f64>() / logits.len() as f64;
        let p = softmax(logits);
        TeacherQ {
            taken: logits[token] - mean,
            max: logits.iter().copied().fold(f64::MIN, f64::max) - mean,
            expected: p.iter().zip(logits).map(|(p, z)| p * z).sum::<f64>() - mean,
            soft: logits.iter().map(|z| z.exp()).sum::<f64>().ln() - mean,
        }
    }

    const VALUES: [StateValue; 3] = [StateValue::Max, StateValue::Expected, StateValue::Soft];

    /// A state's q without centring: the shift that must not matter.
    fn shifted(q: TeacherQ, by: f64) -> TeacherQ {
        TeacherQ {
            taken: q.taken + by,
            max: q.max + by,
            expected: q.expected + by,
            soft: q.soft + by,
        }
    }

    #[test]
    fn returns_are_sums_of_rewards_and_telescope() {
        let mdp = Mdp::new(3, 3);
        let teacher = mdp.table(1);
        let mut seen = 0;
        for trajectory in mdp.trajectories() {
            let qs: Vec<TeacherQ> = trajectory
                .steps()
                .map(|(state, action)| q_of(&teacher[state], action))
                .collect();
            for value in VALUES {
                let (r, g) = (rewards(&qs, value, true), returns(&qs, value, 1));
                assert_eq!((r.len(), g.len()), (qs.len(), qs.len()));
                for t in 0..qs.len() {
                    let sum: f64 = r[t..].iter().sum();
                    let later = qs[t + 1..].iter().map(|q| q.taken - state_value(q, value));
                    assert!((g[t] - sum).abs() < 1e-12);
                    assert!((g[t] - qs[t].taken - later.sum::<f64>()).abs() < 1e-12);
                    seen += 1;
                }
                // Steps longer than the response never bootstrap.
                let far = returns(&qs, value, 10);
                assert!(far.iter().zip(&qs).all(|(g, q)| *g == q.taken));
            }
            // Soft: Σ r = q(s_1, a_1) + Σ_{t>1} log p(a_t|s_t).
            let soft = returns(&qs, StateValue::Soft, 1);
            let later = trajectory.steps().skip(1);
            let log_p: f64 = later
                .map(|(state, action)| softmax(&teacher[state])[action].ln())
                .sum();
            assert!((soft[0] - qs[0].taken - log_p).abs() < 1e-12);
        }
        assert!(seen > 50, "{seen}");
    }

    #[test]
    fn a_shift_of_a_state_changes_only_its_own_return() {
        let mdp = Mdp::new(3, 3);
        let teacher = mdp.table(1);
        for trajectory in mdp.trajectories() {
            let qs: Vec<TeacherQ> = trajectory
                .steps()
                .map(|(state, action)| q_of(&teacher[state], action))
                .collect();
            for value in VALUES {
                let before = returns(&qs, value, 1);
                for moved in 0..qs.len() {
                    let mut qs = qs.clone();
                    qs[moved] = shifted(qs[moved], 7.5);
                    let after = returns(&qs, value, 1);
                    for (t, (a, b)) in after.iter().zip(&before).enumerate() {
                        let by = if t == moved { 7.5 } else { 0.0 };
                        assert!((a - b - by).abs() < 1e-12, "{t} {moved}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_response_that_was_cut_off_has_a_return_but_no_reward_for_its_last_token() {
        let q = |taken, max| TeacherQ {
            taken,
            max,
            ..TeacherQ::default()
        };
        let qs = [q(5.0, 6.0), q(3.0, 4.0), q(1.0, 2.0)];
        assert_eq!(rewards(&qs, StateValue::Max, true), [1.0, 1.0, 1.0]);
        assert_eq!(rewards(&qs, StateValue::Max, false), [1.0, 1.0]);
        assert_eq!(returns(&qs, StateValue::Max, 1), [3.0, 2.0, 1.0]);
        // Two steps: 5 − 2 + 1.
        assert_eq!(returns(&qs, StateValue::Max, 2), [4.0, 3.0, 1.0]);
        assert!(returns(&[], StateValue::Max, 1).is_empty());
    }
}
