//! MiniLLM (Gu, Dong, Wei & Huang 2024, arXiv 2306.08543): KL(q‖p) of whole responses by policy
//! gradient, with the paper's three remedies: the single-step term summed over the vocabulary,
//! responses drawn from αp + (1−α)q with the step's importance weight, and a length-normalised
//! return; plus a language-modelling term,
//!   L = mean_t [ w_t · KL(q(·|s_t)‖p(·|s_t)) − w_t · R_{t+1} · log q(y_t|s_t) ] + λ · L_pt.
//! The weights are those of [`crate::objective::minillm`].
//!
//! Every response is used once, on the policy that drew it, so that no PPO clipping is needed.

use distil_model::Llama;

use super::language_modelling::lm_pass;
use super::pass::Teacher;
use super::sampled::{Weights, descend, see};
use super::{Method, StepReport};
use crate::config::MiniLlm;
use crate::data::example::{Example, PromptExample};
use crate::error::Result;
use crate::objective::advantage::mean;
use crate::objective::look::on_samples;
use crate::objective::minillm::{Sampled, log_ratio_returns, step_weights};
use crate::rollout::Mixture;
use crate::rollout::on_policy::{Ask, Policy};
use crate::step::Work;

/// MiniLLM with a live teacher.
pub(crate) struct MiniLlmMethod {
    pub(crate) settings: MiniLlm,
    pub(crate) teacher: Teacher,
    pub(crate) student: Policy,
    pub(crate) prompts: Vec<PromptExample>,
    /// Texts of the language-modelling term.
    pub(crate) texts: Vec<Example>,
}

/// The prompts of these rows, as they are asked.
pub(crate) fn asks<'a>(prompts: &'a [PromptExample], rows: &[usize]) -> Vec<Ask<'a>> {
    let ask = |&row: &usize| Ask {
        prompt: &prompts[row].prompt,
        stream: row as u64,
        row: prompts[row].row,
    };
    rows.iter().map(ask).collect()
}

impl Method for MiniLlmMethod {
    fn rows(&self) -> usize {
        self.prompts.len()
    }

    fn data_row(&self, row: usize) -> usize {
        self.prompts[row].row
    }

    fn step(&mut self, student: &Llama, rows: &[usize], work: &mut Work) -> Result<StepReport> {
        let settings = &self.settings;
        let asks = asks(&self.prompts, rows);
        let mixture = Mixture {
            network: self.teacher.network(),
            share: settings.teacher_mix,
            vocabulary: self.teacher.vocabulary,
        };
        let answers = match settings.teacher_mix > 0.0 {
            true => self.student.answer_mixed(student, mixture, &asks, work)?,
            false => self.student.answer(student, &asks, work)?,
        };
        let seen = see(student, &self.teacher, &answers.examples, work);
        let sampled: Vec<Sampled> = seen
            .looks
            .iter()
            .zip(&answers.logprobs)
            .map(|(looks, behaviour)| Sampled {
                student: looks.iter().map(|look| look.student).collect(),
                teacher: looks.iter().map(|look| look.teacher).collect(),
                behaviour: behaviour.iter().map(|&b| f64::from(b)).collect(),
            })
            .collect();
        let (mut policy, mut single) = (Vec::new(), Vec::new());
        for response in &sampled {
            let weights = step_weights(response, settings.single_step, settings.length_normalize);
            policy.push(weights.policy);
            single.push(weights.single);
        }
        let tokens: usize = sampled.iter().map(|response| response.student.len()).sum();
        let count = tokens.max(1) as f64;
        let ratios = sampled
            .iter()
            .flat_map(|r| r.student.iter().zip(&r.behaviour));
        let ratios: Vec<f64> = ratios.map(|(q, b)| (q - b).exp()).collect();
        let importance = mean(ratios.iter().copied());
        let returns: Vec<f64> = sampled
            .iter()
            .filter_map(|response| log_ratio_returns(response).first().copied())
            .collect();
        let mut terms = on_samples(&seen.looks.concat(), &ratios);
        terms.extend(answers.diagnostics());
        let weights = Weights {
            policy,
            reverse_kl: settings.single_step.then_some(single),
            flatten: 0.0,
        };
        let sums = descend(student, &self.teacher, seen, &weights, 1.0 / count, work)?;
        let (lm, lm_tokens) = lm_pass(student, &self.texts, rows.len(), settings.lm_weight, work)?;
        terms.extend([
            ("policy_gradient", sums[1] / count),
            ("single_step_kl", sums[2] / count),
            ("language_modelling", lm),
            ("importance_weight", importance),
            ("return", mean(returns.iter().copied())),
        ]);
        Ok(StepReport {
            loss: sums[0] / count + settings.lm_weight * lm,
            terms,
            tokens: tokens + lm_tokens,
        })
    }
}
