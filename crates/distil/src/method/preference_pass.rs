//! The gradient of a preference loss on packed pairs: first the sequences' log-probabilities, then
//! the loss's derivatives as weights of −log q.

use std::ops::Range;
use std::sync::Arc;

use distil_kernels::{CrossEntropy, head_rows};
use distil_model::Llama;

use super::pass::{Forward, Teacher, Tracked};
use crate::data::batch::{PackedBatch, micro_batches, pack};
use crate::data::example::Example;
use crate::error::{Error, Result};
use crate::objective::look::{Look, look};
use crate::objective::{Pair, PreferenceLoss, PreferenceValue};
use crate::step::Work;

/// Sums over the pairs of a step.
#[derive(Clone, Debug, Default)]
pub(crate) struct PairTotals {
    pub(crate) loss: f64,
    margin: f64,
    chosen_reward: f64,
    rejected_reward: f64,
    accuracy: f64,
    /// log q a token, and its ratio to the teacher's, of chosen and of rejected responses.
    chosen_log_q: f64,
    rejected_log_q: f64,
    chosen_log_ratio: f64,
    rejected_log_ratio: f64,
    /// −log q of all chosen tokens.
    pub(crate) lm: f64,
    /// Squares of the rewards of all responses, for their standard deviation.
    reward_squares: f64,
    /// The tokens of the rejected responses.
    pub(crate) looks: Vec<Look>,
}

impl PairTotals {
    fn add(&mut self, value: &PreferenceValue, pair: &Pair) {
        self.loss += value.loss;
        self.margin += value.margin;
        self.chosen_reward += value.chosen_reward;
        self.rejected_reward += value.rejected_reward;
        self.accuracy += f64::from(u8::from(value.margin > 0.0));
        let a_token = |sum: f64, tokens: usize| sum / tokens.max(1) as f64;
        self.chosen_log_q += a_token(pair.student_chosen, pair.chosen_tokens);
        self.rejected_log_q += a_token(pair.student_rejected, pair.rejected_tokens);
        self.chosen_log_ratio += a_token(
            pair.student_chosen - pair.teacher_chosen,
            pair.chosen_tokens,
        );
        self.rejected_log_ratio += a_token(
            pair.student_rejected - pair.teacher_rejected,
            pair.rejected_tokens,
        );
        self.lm -= pair.student_chosen;
        self.reward_squares += value.chosen_reward.powi(2) + value.rejected_reward.powi(2);
    }

    /// Means over `pairs` pairs, for `metrics.jsonl`: both rewards and both log-ratios, since their
    /// difference can grow while both fall.
    pub(crate) fn terms(&self, pairs: usize, teacher: bool) -> Vec<(&'static str, f64)> {
        let mean = |sum: f64| sum / pairs.max(1) as f64;
        let reward = 0.5 * mean(self.chosen_reward + self.rejected_reward);
        let variance = (0.5 * mean(self.reward_squares) - reward * reward).max(0.0);
        let mut terms = vec![
            ("preference", mean(self.loss)),
            ("reward", reward),
            ("reward_std", variance.sqrt()),
            ("margin", mean(self.margin)),
            ("reward_chosen", mean(self.chosen_reward)),
            ("reward_rejected", mean(self.rejected_reward)),
            ("preference_accuracy", mean(self.accuracy)),
            ("log_q_chosen", mean(self.chosen_log_q)),
            ("log_q_rejected", mean(self.rejected_log_q)),
        ];
        if teacher {
            terms.push(("log_ratio_chosen", mean(self.chosen_log_ratio)));
            terms.push(("log_ratio_rejected", mean(self.rejected_log_ratio)));
        }
        terms
    }
}

/// Who takes part.
#[derive(Clone, Copy)]
pub(crate) struct Models<'a> {
    /// Tracked.
    pub(crate) student: &'a Llama,
    /// Reference of the loss, if it has one.
    pub(crate) reference: Option<&'a Teacher>,
    /// Leading ids that student and teacher share.
    pub(crate) vocabulary: usize,
}

/// Adds the gradient of the mean loss over the pairs, plus `lm_weight` a token times −log q of the
/// chosen responses.
pub(crate) fn preference_pass(
    models: Models<'_>,
    loss: &PreferenceLoss,
    pairs: &[(&Example, &Example)],
    lm_weight: f64,
    work: &mut Work,
) -> Result<PairTotals> {
    let lengths: Vec<usize> = pairs.iter().map(|(c, r)| c.len() + r.len()).collect();
    let mut totals = PairTotals::default();
    for range in micro_batches(&lengths, work.micro_batch_tokens) {
        // Packed as chosen, rejected, chosen, rejected, …
        let texts: Vec<&Example> = pairs[range].iter().flat_map(|&(c, r)| [c, r]).collect();
        let micro_batch = MicroBatch {
            batch: pack(&texts),
            pairs: pairs.len(),
            lm_weight,
        };
        if !micro_batch.batch.predict.is_empty() {
            micro_batch.add(models, loss, &mut totals, work)?;
        }
    }
    Ok(totals)
}

struct MicroBatch {
    batch: PackedBatch,
    /// Pairs of the whole step.
    pairs: usize,
    lm_weight: f64,
}

impl MicroBatch {
    fn add(
        &self,
        models: Models<'_>,
        loss: &PreferenceLoss,
        totals: &mut PairTotals,
        work: &mut Work,
    ) -> Result<()> {
        let batch = &self.batch;
        let Models {
            student,
            reference,
            vocabulary,
        } = models;
        let head = reference.map(|teacher| work.phases.time("teacher", || teacher.head(batch)));
        let hidden = work
            .phases
            .time("student_forward", || Tracked::of(student, batch));
        let looks: Vec<Look> = work.phases.time("head", || {
            let (plain, weight) = (hidden.plain(), student.head().inner());
            head_rows(plain, &weight, head.as_ref(), vocabulary, |row, s, t| {
                look(s, t.as_deref(), batch.target_ids[row] as usize)
            })
        });
        let mut weights = vec![0.0f32; batch.predict.len()];
        for both in batch.response_ranges.chunks_exact(2) {
            let (chosen, rejected) = (both[0].clone(), both[1].clone());
            let sum = |range: &Range<usize>, of: fn(&Look) -> f64| -> f64 {
                looks[range.clone()].iter().map(of).sum()
            };
            let pair = Pair {
                student_chosen: sum(&chosen, |look| look.student),
                teacher_chosen: sum(&chosen, |look| look.teacher),
                chosen_tokens: chosen.len(),
                student_rejected: sum(&rejected, |look| look.student),
                teacher_rejected: sum(&rejected, |look| look.teacher),
                rejected_tokens: rejected.len(),
            };
            let value = loss.value(&pair);
            if !value.loss.is_finite() {
                return Err(Error::NotFinite {
                    step: work.step,
                    term: "the preference loss".into(),
                    rows: batch.rows.clone(),
                });
            }
            totals.add(&value, &pair);
            // d L / d log q of each token, as the weight of its −log q.
            let pairs = self.pairs as f64;
            let scores = [&chosen, &rejected].map(|range| sum(range, |look| look.score_square));
            let preference = (value.d_chosen / pairs).powi(2) * scores[0]
                + (value.d_rejected / pairs).powi(2) * scores[1];
            work.logit_gradient("preference", preference);
            if self.lm_weight > 0.0 {
                let square = self.lm_weight.powi(2) * scores[0];
                work.logit_gradient("language_modelling", square);
            }
            totals.looks.extend_from_slice(&looks[rejected.clone()]);
            weights[chosen].fill((-value.d_chosen / pairs + self.lm_weight) as f32);
            weights[rejected].fill((-value.d_rejected / pairs) as f32);
        }
        let objective = CrossEntropy {
            targets: Arc::from(&batch.target_ids[..]),
            weights: Some(weights.into()),
        };
        let forward = Forward {
            student,
            batch,
            hidden,
            vocabulary,
        };
        forward.backward(None, &objective, 1.0, work)?;
        Ok(())
    }
}
