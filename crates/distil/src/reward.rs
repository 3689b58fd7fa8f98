//! The reward that a teacher's logits induce (LLMR, arXiv 2409.12500) of given responses, token by
//! token: see [`crate::objective::induced_reward`] for the formulas. Several prompt templates are
//! several readings of the same responses; their rewards are averaged.

use distil_kernels::{embedding, head_rows};
use distil_model::Llama;

use crate::config::StateValue;
use crate::data::batch::{micro_batches, pack};
use crate::data::example::Example;
use crate::error::{Error, Result};
use crate::objective::induced_reward::{returns, rewards};
use crate::objective::look::TeacherQ;
use crate::score::tokens;

/// One response's rewards, an entry a token, EOS included, in nats. The last token of a response that
/// was cut off has no reward: the value of the state behind it is not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenRewards {
    /// q(s, a) of the token: its logit less the mean logit.
    pub q: Vec<f64>,
    /// r(s, a) = q(s, a) − V(s').
    pub reward: Vec<f64>,
    /// Sum of the rewards from this token on; of a response that was cut off with the value of where
    /// it stopped.
    pub returns: Vec<f64>,
}

/// Rewards of responses; those that do not end with one of `stop_ids` were cut off.
///
/// `readings` has a list for each prompt template: the same responses in the same order, after the
/// prompt as that template renders it, which has at least one token. Only the first `vocabulary`
/// logits take part. `max_tokens` bounds a pass; `on_rows` hears how many rows of how many readings
/// are done, counted together.
///
/// # Errors
/// [`Error::Mismatch`] if a reward is not finite.
pub fn induced_rewards(
    teacher: &Llama,
    vocabulary: usize,
    stop_ids: &[u32],
    readings: &[Vec<Example>],
    value: StateValue,
    max_tokens: usize,
    on_rows: &mut dyn FnMut(usize),
) -> Result<Vec<TokenRewards>> {
    let Some(first) = readings.first() else {
        return Ok(Vec::new());
    };
    let share = 1.0 / readings.len() as f64;
    let mut means: Vec<Vec<TeacherQ>> = first
        .iter()
        .map(|example| vec![TeacherQ::default(); example.response.len()])
        .collect();
    // Once for all passes.
    let teacher = teacher.packed();
    let mut done = 0;
    for reading in readings {
        let lengths: Vec<usize> = reading.iter().map(Example::len).collect();
        for range in micro_batches(&lengths, max_tokens) {
            let batch = pack(&reading[range.clone()].iter().collect::<Vec<_>>());
            let hidden = embedding(teacher.hidden(tokens(&batch)), &batch.predict);
            let qs = head_rows(hidden, &teacher.head(), None, vocabulary, |row, z, _| {
                TeacherQ::of(z, batch.target_ids[row] as usize)
            });
            done += range.len();
            for (means, rows) in means[range].iter_mut().zip(&batch.response_ranges) {
                for (mean, q) in means.iter_mut().zip(&qs[rows.clone()]) {
                    mean.taken += share * q.taken;
                    mean.max += share * q.max;
                    mean.expected += share * q.expected;
                    mean.soft += share * q.soft;
                }
            }
            on_rows(done);
        }
    }
    let all = means.iter().zip(first).map(|(qs, example)| {
        let ended = example.response.last();
        let ended = ended.is_some_and(|token| stop_ids.contains(token));
        let result = TokenRewards {
            q: qs.iter().map(|q| q.taken).collect(),
            reward: rewards(qs, value, ended),
            returns: returns(qs, value, 1),
        };
        match result.reward.iter().all(|r| r.is_finite()) {
            true => Ok(result),
            false => Err(Error::Mismatch {
                what: format!("the reward of row {} is not finite", example.row),
                fix: "the teacher's weights are damaged; get them again".into(),
            }),
        }
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_network;

    fn example(prompt: &[u32], response: &[u32]) -> Example {
        Example {
            prompt: prompt.into(),
            response: response.into(),
            row: 0,
        }
    }

    fn reading(extra: &[u32]) -> Vec<Example> {
        vec![
            example(&[&[3, 4][..], extra].concat(), &[6, 7, 0]),
            example(&[&[9][..], extra].concat(), &[2, 8, 8, 5, 0]),
        ]
    }

    fn of(readings: &[Vec<Example>], value: StateValue, max_tokens: usize) -> Vec<TokenRewards> {
        induced_rewards(
            &tiny_network(1),
            24,
            &[0],
            readings,
            value,
            max_tokens,
            &mut |_| {},
        )
        .unwrap()
    }

    #[test]
    fn returns_are_sums_of_rewards_and_end_with_the_last_q() {
        for value in [StateValue::Max, StateValue::Expected, StateValue::Soft] {
            for response in of(&[reading(&[])], value, 100) {
                let last = response.q.len() - 1;
                assert_eq!(response.reward[last], response.q[last]);
                for t in 0..=last {
                    let sum: f64 = response.reward[t..].iter().sum();
                    assert!((response.returns[t] - sum).abs() < 1e-9);
                }
            }
        }
    }

    /// Soft: Σ r = q(s_1, a_1) + Σ_{t>1} log p(a_t|s_t), with log p as scoring gives it.
    #[test]
    fn the_soft_return_is_the_log_likelihood_but_for_the_first_state() {
        let network = tiny_network(1);
        let scores = crate::score::score(&network, None, &reading(&[]), 100, &mut |_| {}).unwrap();
        for (response, score) in of(&[reading(&[])], StateValue::Soft, 100)
            .iter()
            .zip(scores)
        {
            let later: f64 = score.logprobs[1..].iter().map(|&l| f64::from(l)).sum();
            assert!((response.returns[0] - response.q[0] - later).abs() < 1e-4);
        }
    }

    #[test]
    fn templates_are_averaged_and_packing_changes_rounding_only() {
        let (one, two) = (reading(&[]), reading(&[11, 12]));
        let value = StateValue::Max;
        let both = of(&[one.clone(), two.clone()], value, 1);
        let alone = [of(&[one], value, 100), of(&[two], value, 100)];
        for (i, mean) in both.iter().enumerate() {
            for t in 0..mean.q.len() {
                let [a, b] = [alone[0][i].reward[t], alone[1][i].reward[t]];
                assert!((a - b).abs() > 1e-4, "the readings differ");
                assert!((mean.reward[t] - (a + b) / 2.0).abs() < 1e-5);
            }
        }
    }

    /// Its returns bootstrap, its last reward is not known.
    #[test]
    fn a_response_that_was_cut_off_has_no_last_reward() {
        let cut = vec![example(&[3, 4], &[6, 7, 9])];
        let response = of(&[cut], StateValue::Max, 100).remove(0);
        assert_eq!((response.q.len(), response.reward.len()), (3, 2));
        assert_eq!(response.returns[2], response.q[2]);
        let sum = response.reward[0] + response.returns[1];
        assert!((response.returns[0] - sum).abs() < 1e-9);
    }

    #[test]
    fn nothing_in_nothing_out() {
        assert!(of(&[], StateValue::Max, 10).is_empty());
        assert!(of(&[Vec::new()], StateValue::Max, 10).is_empty());
    }
}
