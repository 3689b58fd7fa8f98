//! MiniLLM (Gu, Dong, Wei & Huang 2024, arXiv 2306.08543): the gradient of KL(q‖p) over whole
//! responses, split into a part that is summed over the vocabulary and a part that is sampled,
//!   ∇ KL(q‖p) = E_{y~q} Σ_t { ∇ KL(q(·|s_t)‖p(·|s_t)) − R_{t+1} ∇ log q(y_t|s_t) },
//!   R_t = Σ_{i≥t} log p(y_i|s_i)/q(y_i|s_i)   (eqs. 2 and 3).
//! Length normalisation divides R_{t+1} by the number of its steps (section 2.2). Responses drawn
//! from p̃ = αp + (1−α)q weigh each step by w_t = q/p̃ of that step alone, which the paper takes
//! for the product over all steps: lower variance, some bias.

/// One response's log-probabilities, a number a token, in nats.
#[derive(Clone, Debug, Default)]
pub struct Sampled {
    /// log q.
    pub student: Vec<f64>,
    /// log p.
    pub teacher: Vec<f64>,
    /// log p̃, of the distribution that was sampled.
    pub behaviour: Vec<f64>,
}

/// A step's weights, to be held constant: the loss is Σ_t k_t · KL(q‖p)(s_t) − w_t · log q(y_t|s_t).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepWeights {
    /// k_t of the single-step term.
    pub single: Vec<f64>,
    /// w_t of the policy gradient.
    pub policy: Vec<f64>,
}

/// R_t of every token, the sum of log p/q from it on.
pub fn log_ratio_returns(response: &Sampled) -> Vec<f64> {
    let mut sum = 0.0;
    let ratios = response.teacher.iter().zip(&response.student).rev();
    let mut returns: Vec<f64> = ratios
        .map(|(p, q)| {
            sum += p - q;
            sum
        })
        .collect();
    returns.reverse();
    returns
}

/// The weights of one response.
pub fn step_weights(response: &Sampled, single_step: bool, length_normalize: bool) -> StepWeights {
    let returns = log_ratio_returns(response);
    let length = returns.len();
    let importance = response.student.iter().zip(&response.behaviour);
    let importance: Vec<f64> = importance.map(|(q, b)| (q - b).exp()).collect();
    // With the single-step term the sampled return begins at the next step.
    let first = usize::from(single_step);
    let policy = (0..length).map(|t| {
        let steps = length - t - first;
        let rest = returns.get(t + first).copied().unwrap_or(0.0);
        match length_normalize && steps > 0 {
            true => importance[t] * rest / steps as f64,
            false => importance[t] * rest,
        }
    });
    StepWeights {
        policy: policy.collect(),
        single: match single_step {
            true => importance,
            false => vec![0.0; length],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::mdp::{Mdp, Table, Trajectory, distance, softmax};

    fn sampled(student: &Table, teacher: &Table, y: &Trajectory) -> Sampled {
        let log = |table: &Table| -> Vec<f64> {
            let steps = y.steps();
            steps.map(|(s, a)| softmax(&table[s])[a].ln()).collect()
        };
        Sampled {
            student: log(student),
            teacher: log(teacher),
            behaviour: log(student),
        }
    }

    /// ∇ KL(q(·|s)‖p(·|s)) in the logits of one state.
    fn single_gradient(student: &[f64], teacher: &[f64]) -> Vec<f64> {
        let (q, p) = (softmax(student), softmax(teacher));
        let ratio = |a: usize| (q[a] / p[a]).ln();
        let kl: f64 = (0..q.len()).map(|a| q[a] * ratio(a)).sum();
        (0..q.len()).map(|a| q[a] * (ratio(a) - kl)).collect()
    }

    /// E over `behaviour` of the update that the weights make, as a gradient of the loss.
    fn expected_gradient(mdp: &Mdp, student: &Table, teacher: &Table, single_step: bool) -> Table {
        let weights =
            |y: &Trajectory| step_weights(&sampled(student, teacher, y), single_step, false);
        let mut sum =
            mdp.expected_score(student, |y| weights(y).policy.iter().map(|w| -w).collect());
        for y in mdp.trajectories() {
            let probability = mdp.probability(student, &y);
            for ((state, _), k) in y.steps().zip(weights(&y).single) {
                let gradient = single_gradient(&student[state], &teacher[state]);
                for (total, g) in sum[state].iter_mut().zip(gradient) {
                    *total += probability * k * g;
                }
            }
        }
        sum
    }

    #[test]
    fn single_and_long_parts_are_the_exact_gradient_of_the_reverse_kl() {
        let mdp = Mdp::new(3, 3);
        let (teacher, student) = (mdp.table(1), mdp.table(2));
        let kl = |table: &Table| {
            mdp.expectation(table, |y| {
                (mdp.probability(table, y) / mdp.probability(&teacher, y)).ln()
            })
        };
        let exact = mdp.differences(&student, &kl);
        for single_step in [true, false] {
            let error = distance(
                &expected_gradient(&mdp, &student, &teacher, single_step),
                &exact,
            );
            assert!(error < 1e-9, "{single_step}: {error}");
        }
    }

    /// The weight of the current step makes the single-step part exact for its state's action.
    #[test]
    fn importance_weights_have_mean_one_under_the_mixture() {
        let mdp = Mdp::new(3, 1);
        let (teacher, student) = (mdp.table(1), mdp.table(2));
        let (p, q) = (softmax(&teacher[0]), softmax(&student[0]));
        let mixed: Vec<f64> = p.iter().zip(&q).map(|(p, q)| 0.2 * p + 0.8 * q).collect();
        let mean: f64 = (0..3)
            .map(|a| {
                let response = Sampled {
                    student: vec![q[a].ln()],
                    teacher: vec![p[a].ln()],
                    behaviour: vec![mixed[a].ln()],
                };
                mixed[a] * step_weights(&response, true, true).single[0]
            })
            .sum();
        assert!((mean - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_student_equal_to_its_teacher_has_no_long_part() {
        let mdp = Mdp::new(3, 3);
        let table = mdp.table(1);
        assert!(
            distance(
                &expected_gradient(&mdp, &table, &table, true),
                &table.iter().map(|row| vec![0.0; row.len()]).collect()
            ) < 1e-12
        );
    }

    #[test]
    fn length_normalisation_divides_by_the_steps_that_are_summed() {
        let response = Sampled {
            student: vec![-1.0, -2.0, -3.0],
            teacher: vec![-2.0, -1.0, -1.0],
            behaviour: vec![-1.0, -2.0, -3.0],
        };
        assert_eq!(log_ratio_returns(&response), [2.0, 3.0, 2.0]);
        assert_eq!(step_weights(&response, true, true).policy, [1.5, 2.0, 0.0]);
        assert_eq!(step_weights(&response, true, false).policy, [3.0, 2.0, 0.0]);
        let plain = step_weights(&response, false, true);
        assert_eq!(plain.policy, [2.0 / 3.0, 1.5, 2.0]);
        assert_eq!(plain.single, [0.0; 3]);
    }
}
