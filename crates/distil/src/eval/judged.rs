//! The number that a metric has for one answer, and what the models themselves say of answers.
//!
//! With `p` the teacher, `q` the student, and `y` an answer of the student to `x`, EOS included:
//!
//! ```text
//! reward          Σ_t r(s_t, y_t),  r(s_t, a) = z(s_t, a) − max_b z(s_{t+1}, b)     (LLMR, arXiv 2409.12500)
//! implicit reward Σ_t log q(y_t | s_t) − log p(y_t | s_t) = log q(y | x) / p(y | x)  (DPKD, arXiv 2406.19774)
//! ```
//!
//! `z` are the teacher's logits, centred over the vocabulary; see
//! [`objective::induced_reward`](crate::objective::induced_reward), also for answers that were cut off.
//! DPKD's reward is β times the implicit one. Its mean over the student's own samples is an estimate
//! of the sequence-level KL(q ‖ p), so that more of it is not better.

use distil_model::Model;
use serde_json::{Map, Value, json};

use super::evaluate::Answer;
use super::metric::{Judged, Measure, MetricInfo};
use crate::config::StateValue;
use crate::data::example::{Example, PromptExample};
use crate::error::{Error, Result};
use crate::reward::{TokenRewards, induced_rewards};
use crate::score::{TokenScores, score};
use crate::teacher;

/// Who judges answers: the models, on the prompts that were answered.
#[derive(Clone, Copy)]
pub(crate) struct Judges<'a> {
    pub(crate) student: &'a Model,
    pub(crate) teacher: Option<&'a Model>,
    /// In the order of their rows.
    pub(crate) prompts: &'a [PromptExample],
    /// Tokens computed at once.
    pub(crate) max_tokens: usize,
}

impl Judges<'_> {
    /// Answers as texts that models score, each after its prompt.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for an answer to none of the prompts.
    pub(crate) fn examples(&self, answers: &[Answer]) -> Result<Vec<Example>> {
        let example = |answer: &Answer| {
            let at = self
                .prompts
                .binary_search_by_key(&answer.row, |prompt| prompt.row);
            match at.ok().and_then(|at| self.prompts.get(at)) {
                Some(prompt) => Ok(Example {
                    prompt: prompt.prompt.clone(),
                    response: answer.token_ids.clone(),
                    row: answer.row,
                }),
                None => Err(Error::Mismatch {
                    what: format!(
                        "there is an answer to row {}, which has no prompt",
                        answer.row
                    ),
                    fix: "measure the rows that were answered".into(),
                }),
            }
        };
        answers.iter().map(example).collect()
    }

    /// The models' scores of texts, token by token.
    ///
    /// # Errors
    /// The vocabularies of teacher and student differ.
    pub(crate) fn scores(
        &self,
        texts: &[Example],
        on_rows: &mut dyn FnMut(usize),
    ) -> Result<Vec<TokenScores>> {
        let teacher = match self.teacher {
            Some(teacher) => Some((&teacher.network, teacher::align(teacher, self.student)?)),
            None => None,
        };
        score(
            &self.student.network,
            teacher,
            texts,
            self.max_tokens,
            on_rows,
        )
    }

    /// The teacher's reward of every token of texts; none without a teacher.
    ///
    /// # Errors
    /// The vocabularies of teacher and student differ; a reward is not finite.
    pub(crate) fn rewards(
        &self,
        texts: &[Example],
        on_rows: &mut dyn FnMut(usize),
    ) -> Result<Vec<TokenRewards>> {
        let Some(teacher) = self.teacher else {
            return Ok(Vec::new());
        };
        induced_rewards(
            &teacher.network,
            teacher::align(teacher, self.student)?,
            // What ends an answer is the student's to say.
            &self.student.stop_ids,
            &[texts.to_vec()],
            StateValue::Max,
            self.max_tokens,
            on_rows,
        )
    }

    /// Notes in every answer's `metrics` the numbers that these metrics have for it, in their order.
    /// What the models say is computed where it is not noted already.
    ///
    /// # Errors
    /// As [`Judges::scores`] and [`Judges::rewards`].
    pub(crate) fn note(
        &self,
        metrics: &[&MetricInfo],
        answers: &mut [Answer],
        on_rows: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let noted: Vec<Map<String, Value>> = answers
            .iter_mut()
            .map(|answer| std::mem::take(&mut answer.metrics))
            .collect();
        for metric in metrics {
            let judged = match metric.measure {
                Measure::Judged(judged) => {
                    let known: Vec<Option<f64>> = noted
                        .iter()
                        .map(|noted| noted.get(metric.name).and_then(Value::as_f64))
                        .collect();
                    self.judge(judged, answers, &known, on_rows)?
                }
                _ => Vec::new(),
            };
            for (index, answer) in answers.iter_mut().enumerate() {
                let value = match metric.measure {
                    Measure::Answer(of) => Some(of(answer)),
                    Measure::AgainstReferences(of) if !answer.references.is_empty() => {
                        Some(of(&answer.references, &answer.response))
                    }
                    Measure::Judged(_) => judged.get(index).copied(),
                    _ => None,
                };
                if let Some(value) = value {
                    answer.metrics.insert(metric.name.to_owned(), json!(value));
                }
            }
        }
        Ok(())
    }

    /// What the models say of every answer: as known, or computed.
    fn judge(
        &self,
        judged: Judged,
        answers: &[Answer],
        known: &[Option<f64>],
        on_rows: &mut dyn FnMut(usize),
    ) -> Result<Vec<f64>> {
        let missing: Vec<Answer> = answers
            .iter()
            .zip(known)
            .filter(|(_, known)| known.is_none())
            .map(|(answer, _)| answer.clone())
            .collect();
        let texts = self.examples(&missing)?;
        let computed: Vec<f64> = match judged {
            Judged::Reward => {
                let rewards = self.rewards(&texts, on_rows)?;
                rewards.iter().map(induced_return).collect()
            }
            Judged::ImplicitReward => {
                let scores = self.scores(&texts, on_rows)?;
                scores.iter().map(implicit_reward).collect()
            }
        };
        let mut computed = computed.into_iter();
        let value = |known: &Option<f64>| known.or_else(|| computed.next()).unwrap_or(f64::NAN);
        Ok(known.iter().map(value).collect())
    }
}

fn induced_return(rewards: &TokenRewards) -> f64 {
    rewards.returns.first().copied().unwrap_or(f64::NAN)
}

fn implicit_reward(scores: &TokenScores) -> f64 {
    let teacher = scores.teacher.as_ref().map(|teacher| &teacher.logprobs);
    let pairs = scores.logprobs.iter().zip(teacher.into_iter().flatten());
    pairs.map(|(q, p)| f64::from(*q) - f64::from(*p)).sum()
}
