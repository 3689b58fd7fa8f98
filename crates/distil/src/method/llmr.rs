//! LLMR (Li, Hao & Mou 2024, arXiv 2409.12500): REINFORCE on the reward that the teacher's logits
//! induce, with the variants of its code and of KETCHUP,
//!   L = − mean_t w_t · log q(a_t|s_t) + η · mean_t mean_b −log q(b|s_t),
//! on responses of a behaviour policy, the student itself or a lagged copy of it. Rewards and
//! returns are those of [`crate::objective::induced_reward`], weights those of
//! [`crate::objective::advantage`].

use std::path::Path;

use distil_kernels::{embedding, head_rows};
use distil_model::{Llama, Model};

use super::minillm::asks;
use super::pass::Teacher;
use super::sampled::{Weights, descend, see};
use super::{Method, StepReport};
use crate::config::{Llmr, Unfinished};
use crate::data::batch::{micro_batches, pack};
use crate::data::example::{Example, PromptExample};
use crate::error::Result;
use crate::objective::advantage::{Returns, Weighing, clipped, mean};
use crate::objective::induced_reward::{returns, rewards};
use crate::objective::look::{Look, TeacherQ, on_samples};
use crate::rollout::on_policy::Policy;
use crate::score::tokens;
use crate::step::Work;

/// The lagged policy's folder inside a checkpoint.
const FOLDER: &str = "behaviour";

/// LLMR with a live teacher.
pub(crate) struct LlmrMethod {
    pub(crate) settings: Llmr,
    pub(crate) teacher: Teacher,
    pub(crate) student: Policy,
    pub(crate) prompts: Vec<PromptExample>,
    /// The same prompts as the teacher reads them, for each template; none: as the student does.
    pub(crate) templates: Vec<Vec<PromptExample>>,
    /// The student as it started, for the files of a policy that lags behind; none if it does not.
    pub(crate) model: Option<Model>,
    /// The policy that samples, where it lags behind.
    pub(crate) behaviour: Option<Llama>,
}

impl LlmrMethod {
    /// The teacher's q-function at every token of the responses, a mean over the templates.
    /// `rows` are the responses' prompts.
    fn teacher_q(
        &self,
        responses: &[Example],
        rows: &[usize],
        work: &mut Work,
    ) -> Vec<Vec<TeacherQ>> {
        let mut sums: Vec<Vec<TeacherQ>> = responses
            .iter()
            .map(|response| vec![TeacherQ::default(); response.response.len()])
            .collect();
        let share = 1.0 / self.templates.len() as f64;
        for prompts in &self.templates {
            let as_read: Vec<Example> = responses
                .iter()
                .zip(rows)
                .map(|(response, &row)| Example {
                    prompt: prompts[row].prompt.clone(),
                    ..response.clone()
                })
                .collect();
            let lengths: Vec<usize> = as_read.iter().map(Example::len).collect();
            for range in micro_batches(&lengths, work.micro_batch_tokens) {
                let batch = pack(&as_read[range.clone()].iter().collect::<Vec<_>>());
                let network = self.teacher.network();
                let qs = work.phases.time("teacher", || {
                    let hidden = embedding(network.hidden(tokens(&batch)), &batch.predict);
                    let vocabulary = self.teacher.vocabulary;
                    head_rows(hidden, &network.head(), None, vocabulary, |row, z, _| {
                        TeacherQ::of(z, batch.target_ids[row] as usize)
                    })
                });
                for (sum, rows) in sums[range].iter_mut().zip(&batch.response_ranges) {
                    for (sum, q) in sum.iter_mut().zip(&qs[rows.clone()]) {
                        sum.taken += share * q.taken;
                        sum.max += share * q.max;
                        sum.expected += share * q.expected;
                        sum.soft += share * q.soft;
                    }
                }
            }
        }
        sums
    }
}

impl Method for LlmrMethod {
    fn rows(&self) -> usize {
        self.prompts.len()
    }

    fn data_row(&self, row: usize) -> usize {
        self.prompts[row].row
    }

    fn step(&mut self, student: &Llama, rows: &[usize], work: &mut Work) -> Result<StepReport> {
        if self.settings.sync_every > 1 && (work.step - 1).is_multiple_of(self.settings.sync_every)
        {
            self.behaviour = Some(student.frozen());
        }
        let settings = &self.settings;
        let behaviour = self.behaviour.as_ref().unwrap_or(student);
        let answers = self
            .student
            .answer(behaviour, &asks(&self.prompts, rows), work)?;
        let mut terms = answers.diagnostics();
        let drop = settings.unfinished == Unfinished::Drop;
        let kept: Vec<usize> = (0..rows.len())
            .filter(|&i| answers.finished[i] || !drop)
            .collect();
        let share = kept.len() as f64 / rows.len().max(1) as f64;
        let responses: Vec<Example> = kept.iter().map(|&i| answers.examples[i].clone()).collect();
        let seen = see(student, &self.teacher, &responses, work);
        let qs: Vec<Vec<TeacherQ>> = match self.templates.is_empty() {
            true => {
                let of = |looks: &Vec<Look>| looks.iter().map(|look| look.q).collect();
                seen.looks.iter().map(of).collect()
            }
            false => {
                let rows: Vec<usize> = kept.iter().map(|&i| rows[i]).collect();
                self.teacher_q(&responses, &rows, work)
            }
        };
        let mut batch = Vec::with_capacity(kept.len());
        let mut reward = Vec::new();
        for ((&i, qs), looks) in kept.iter().zip(&qs).zip(&seen.looks) {
            let finished = answers.finished[i];
            reward.extend(rewards(qs, settings.value, finished));
            batch.push(Returns {
                returns: returns(qs, settings.value, settings.bootstrap_every),
                max_q: qs.iter().map(|q| q.max).collect(),
                expected_q: qs.iter().map(|q| q.expected).collect(),
                score_square: looks.iter().map(|look| look.score_square).collect(),
            });
        }
        let weighing = Weighing {
            baseline: settings.baseline,
            scale: settings.return_scale,
            sentence_level: settings.sentence_level,
            normalize: settings.normalize_advantage,
        };
        let all_ratios: Vec<f64> = kept
            .iter()
            .zip(&seen.looks)
            .flat_map(|(&i, looks)| looks.iter().zip(&answers.logprobs[i]))
            .map(|(look, &b)| (look.student - f64::from(b)).exp())
            .collect();
        let advantages = weighing.advantages(&batch);
        let tokens: usize = advantages.iter().map(Vec::len).sum();
        let mut ratios = Vec::with_capacity(tokens);
        let mut clipped_tokens = 0usize;
        let mut policy = Vec::with_capacity(kept.len());
        for ((&i, advantages), looks) in kept.iter().zip(&advantages).zip(&seen.looks) {
            let weights = advantages.iter().zip(looks).zip(&answers.logprobs[i]);
            let weights = weights.map(|((&advantage, look), &b)| {
                let ratio = (look.student - f64::from(b)).exp();
                ratios.push(ratio);
                let weight = clipped(advantage, ratio, settings.weight_clip);
                clipped_tokens += usize::from(weight != advantage * ratio);
                share * weight
            });
            policy.push(weights.collect());
        }
        let count = tokens.max(1) as f64;
        let spread = |values: &[f64]| {
            let center = mean(values.iter().copied());
            let square = mean(values.iter().map(|v| (v - center).powi(2)));
            (center, square.sqrt())
        };
        let flat: Vec<f64> = advantages.concat();
        let (reward_mean, reward_std) = spread(&reward);
        let (advantage_mean, advantage_std) = spread(&flat);
        terms.extend(on_samples(&seen.looks.concat(), &all_ratios));
        let weights = Weights {
            policy,
            reverse_kl: None,
            flatten: share * settings.flatten_weight,
        };
        let sums = descend(student, &self.teacher, seen, &weights, 1.0 / count, work)?;
        let starts = batch
            .iter()
            .filter_map(|response| response.returns.first().copied());
        terms.extend([
            ("policy_gradient", sums[1] / count),
            ("flatness", sums[3] / count),
            ("reward", reward_mean),
            ("reward_std", reward_std),
            ("return", mean(starts)),
            ("advantage", advantage_mean),
            ("advantage_std", advantage_std),
            ("ratio", mean(ratios.iter().copied())),
            ("ratio_max", ratios.iter().copied().fold(0.0, f64::max)),
            ("clipped", clipped_tokens as f64 / count),
            ("dropped", 1.0 - share),
        ]);
        Ok(StepReport {
            loss: sums[0] / count,
            terms,
            tokens,
        })
    }

    fn save(&self, folder: &Path) -> Result<()> {
        match (&self.behaviour, &self.model) {
            (Some(network), Some(model)) => {
                let path = folder.join(FOLDER);
                std::fs::create_dir_all(&path).map_err(|source| crate::Error::Write {
                    path: path.clone(),
                    source,
                })?;
                Ok(model.with_network(network.clone()).save_into(&path)?)
            }
            _ => Ok(()),
        }
    }

    fn load(&mut self, folder: &Path) -> Result<()> {
        if let Some(model) = &self.model {
            let device = model.network.device();
            let model = Model::open(&folder.join(FOLDER), &device)?;
            self.behaviour = Some(model.network);
        }
        Ok(())
    }
}
