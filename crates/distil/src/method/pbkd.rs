//! PbKD: online knowledge distillation with reward guidance (Jia 2025, arXiv 2505.18952), a game of
//! the student q against the most damaging reward that still explains the preferences D,
//!   min_q max_{r ∈ R(D)} E_{y~p} r(x, y) − E_{y~q} r(x, y),
//!   R(D) = { r : L̄_D(r) ≥ L̄_D(r_MLE) − ζ },
//! offline with fixed pairs (Algorithm 1) or with pairs of the current student added as it goes
//! (Algorithm 2). The inner maximum is taken along its Lagrangian with a dual variable λ:
//!   reward step:  ascend mean_{y~p} r − mean_{y~q} r + λ · L̄_batch(r)
//!   dual step:    λ ← max(0, λ − a (L̄_D(r) − L̄_MLE + ζ))
//!   student step: descend − mean_t (r(x, y) − baseline) · log q(y_t|s_t), y ~ q,
//!                 + kl_weight · KL(q‖p) on y + lm_weight · cross-entropy on y ~ p.
//! After every addition of pairs the reward is fitted by maximum likelihood anew, L̄_MLE is what
//! that reaches, and the game goes on from there. L̄_D is measured on up to [`MEASURED`] pairs,
//! evenly spaced over D.

use std::path::Path;

use distil_model::{Llama, files};
use serde::{Deserialize, Serialize};

use super::judge::Judge;
use super::kd;
use super::network_file::damaged;
use super::pass::{Teacher, token_pass};
use super::sampled::{Weights, descend, see};
use super::sft::cross_entropy;
use super::teacher_samples::teacher_samples;
use super::{Material, Method, Preparation, StepReport, Work};
use crate::config::{PairSource, Pbkd as Settings, PbkdMode, RewardBaseline};
use crate::data::batch::order;
use crate::data::example::{Example, PairExample};
use crate::error::{Error, Result};
use crate::objective::advantage::mean;
use crate::objective::bradley_terry::{dual_step, log_likelihood, slack};
use crate::objective::look::summary;
use crate::reward_model::RewardModel;
use crate::rollout::on_policy::{Ask, OnPolicy};

/// Pairs on which likelihoods are measured.
const MEASURED: usize = 64;

/// What a checkpoint keeps beside the reward model.
const FILE: &str = "pbkd.json";

pub(crate) fn prepare(
    settings: Settings,
    mut material: Material,
    preparation: &mut Preparation<'_>,
) -> Result<Option<Box<dyn Method>>> {
    let teacher = kd::teacher(&material)?;
    let pairs = std::mem::take(&mut material.pairs);
    let samples = match (&material.teacher, pairs.is_empty()) {
        (_, false) => pairs.iter().map(|pair| pair.chosen.clone()).collect(),
        (Some(model), true) => {
            let (prompts, rollout) = (&material.prompts, settings.rollout);
            match teacher_samples(model, prompts, 1, rollout, preparation)? {
                Some(samples) => samples,
                None => return Ok(None),
            }
        }
        (None, true) => return Ok(None),
    };
    let reward = RewardModel::new(
        &material.student.network,
        settings.reward_layers,
        settings.reward_bound,
        settings.reward_learning_rate,
        &preparation.config.train,
    )?;
    Ok(Some(Box::new(Pbkd {
        student: preparation.student(&material, &settings.rollout),
        judge: Judge::new(&settings.judge, &material, preparation.config.seed),
        state: State {
            dual: settings.dual_start,
            pairs: pairs
                .into_iter()
                .enumerate()
                .map(StoredPair::given)
                .collect(),
            ..State::default()
        },
        settings,
        teacher,
        samples,
        reward,
    })))
}

pub(super) struct Pbkd {
    pub(super) settings: Settings,
    pub(super) teacher: Teacher,
    pub(super) student: OnPolicy,
    /// The teacher's sample of each prompt, y ~ p.
    pub(super) samples: Vec<Example>,
    pub(super) judge: Judge,
    pub(super) reward: RewardModel,
    pub(super) state: State,
}

/// What changes besides the reward model.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// D.
    pairs: Vec<StoredPair>,
    /// Pairs that join D at the next addition.
    pending: Vec<StoredPair>,
    /// λ.
    pub(super) dual: f64,
    /// L̄_MLE, a pair.
    best: f64,
    /// Whether the reward model has been fitted to D as it is.
    fitted: bool,
    /// Share of the held-out pairs that the reward model orders as the judge did, after the fit.
    agreement: Option<f64>,
    /// Updates of the reward model.
    updates: u32,
}

/// Two responses to the prompt of a row, the preferred one first.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct StoredPair {
    row: usize,
    preferred: Vec<u32>,
    rejected: Vec<u32>,
}

impl StoredPair {
    fn given((row, pair): (usize, PairExample)) -> Self {
        Self {
            row,
            preferred: pair.chosen.response,
            rejected: pair.rejected.response,
        }
    }
}

/// What the reward model says of a set of pairs.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    likelihood: f64,
    agreement: f64,
}

impl Pbkd {
    /// Pairs of D to learn from, or those held out, by number.
    fn part(&self, held_out: bool) -> Vec<usize> {
        let share = self.settings.held_out_share;
        let step = |i: usize| (i as f64 * share).floor();
        let is_held_out = |i: &usize| (step(i + 1) > step(*i)) == held_out;
        (0..self.state.pairs.len()).filter(is_held_out).collect()
    }

    /// The texts of these pairs, preferred, rejected, preferred, …
    fn texts(&self, pairs: &[usize]) -> Vec<Example> {
        let text = |pair: &StoredPair, response: &Vec<u32>| Example {
            response: response.clone(),
            ..self.samples[pair.row].clone()
        };
        let pairs = pairs.iter().map(|&i| &self.state.pairs[i]);
        pairs
            .flat_map(|pair| [text(pair, &pair.preferred), text(pair, &pair.rejected)])
            .collect()
    }

    fn measure(&self, pairs: &[usize], work: &Work) -> Measured {
        let every = pairs.len().div_ceil(MEASURED).max(1);
        let some: Vec<usize> = pairs.iter().copied().step_by(every).collect();
        let texts = self.texts(&some);
        let texts: Vec<&Example> = texts.iter().collect();
        let rewards = self.reward.rewards(&texts, work.micro_batch_tokens);
        let margins = || rewards.chunks_exact(2).map(|pair| pair[0] - pair[1]);
        Measured {
            likelihood: mean(margins().map(|margin| log_likelihood(margin, 1.0).0)),
            agreement: mean(margins().map(|m| f64::from(u8::from(m > 0.0)))),
        }
    }

    /// A batch of D for step `number` of a row of steps.
    fn batch(&self, train: &[usize], count: usize, number: usize, work: &Work) -> Vec<usize> {
        let seed = work.seed ^ (work.step as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let start = number * count;
        let pick = |i: usize| {
            let epoch = order(seed, (i / train.len()) as u64, train.len());
            train[epoch[i % train.len()]]
        };
        match train.is_empty() {
            true => Vec::new(),
            false => (start..start + count.min(train.len())).map(pick).collect(),
        }
    }

    /// A step down `gap_slope`'s objective minus `weight` times the mean log-likelihood of pairs.
    fn reward_step(
        &mut self,
        others: &[&Example],
        slopes: &[f64],
        pairs: &[usize],
        weight: f64,
        work: &Work,
    ) -> Result<()> {
        let texts = self.texts(pairs);
        let of_pairs: Vec<&Example> = texts.iter().collect();
        let rewards = self.reward.rewards(&of_pairs, work.micro_batch_tokens);
        let mut slopes = slopes.to_vec();
        for pair in rewards.chunks_exact(2) {
            let slope = log_likelihood(pair[0] - pair[1], 1.0).1;
            let slope = weight * slope / pairs.len().max(1) as f64;
            slopes.extend([-slope, slope]);
        }
        let all: Vec<&Example> = others.iter().copied().chain(of_pairs).collect();
        let norm = self.reward.descend(&all, &slopes, work.micro_batch_tokens);
        match norm.is_finite() {
            true => Ok(()),
            false => Err(Error::NotFinite {
                step: work.step,
                term: "the reward model's gradient".into(),
                rows: all.iter().map(|text| text.row).collect(),
            }),
        }
    }

    /// Adds what is pending to D and fits the reward model by maximum likelihood.
    fn fit(&mut self, work: &mut Work) -> Result<()> {
        let pending = std::mem::take(&mut self.state.pending);
        self.state.pairs.extend(pending);
        let train = self.part(false);
        for number in 0..self.settings.fit_steps {
            let batch = self.batch(&train, work.batch, number, work);
            if !batch.is_empty() {
                self.reward_step(&[], &[], &batch, 1.0, work)?;
            }
        }
        self.state.best = self.measure(&train, work).likelihood;
        let held_out = self.part(true);
        self.state.agreement = match held_out.is_empty() {
            true => None,
            false => Some(self.measure(&held_out, work).agreement),
        };
        self.state.fitted = true;
        Ok(())
    }

    /// The judge's order of the teacher's samples and the student's `answers`, as pairs.
    fn judged(
        &self,
        rows: &[usize],
        answers: &[Example],
        likelihoods: &[f64],
        work: &Work,
    ) -> Result<Vec<StoredPair>> {
        let mut of_teacher = vec![0.0; rows.len()];
        if self.judge.needs_likelihood() {
            let samples: Vec<Example> = rows.iter().map(|&row| self.samples[row].clone()).collect();
            let (network, most) = (&self.teacher.network, work.micro_batch_tokens);
            let scores = crate::score::score(network, None, &samples, most, &mut |_| {})?;
            let a_token =
                |s: crate::score::TokenScores| mean(s.logprobs.into_iter().map(f64::from));
            of_teacher = scores.into_iter().map(a_token).collect();
        }
        let mut pairs = Vec::new();
        for (i, &row) in rows.iter().enumerate() {
            let both = [&self.samples[row].response[..], &answers[i].response[..]];
            let likelihood = [of_teacher[i], likelihoods[i]];
            // Several answers to one prompt get verdicts of their own.
            let number = work.step * rows.len() + i;
            let verdict = self.judge.verdict(row, number, both, likelihood)?;
            let [teacher, student] = both.map(<[u32]>::to_vec);
            if verdict != 0.0 {
                let (preferred, rejected) = match verdict > 0.0 {
                    true => (teacher, student),
                    false => (student, teacher),
                };
                pairs.push(StoredPair {
                    row,
                    preferred,
                    rejected,
                });
            }
        }
        Ok(pairs)
    }

    /// Offline mode's pairs: the student as it is at the start answers every prompt.
    fn first_pairs(&mut self, student: &Llama, work: &mut Work) -> Result<()> {
        let all: Vec<usize> = (0..self.samples.len()).collect();
        let rows = self.repeated(&all);
        let answers = self.student.answer(student, &self.asks(&rows), work)?;
        let seen = see(student, &self.teacher, &answers.examples, work);
        let likelihoods: Vec<f64> = seen
            .looks
            .iter()
            .map(|looks| mean(looks.iter().map(|look| look.teacher)))
            .collect();
        let pairs = self.judged(&rows, &answers.examples, &likelihoods, work)?;
        self.state.pending.extend(pairs);
        Ok(())
    }

    /// Each row as often as it is asked.
    fn repeated(&self, rows: &[usize]) -> Vec<usize> {
        let times = self.settings.samples_per_prompt;
        rows.iter()
            .flat_map(|&row| std::iter::repeat_n(row, times))
            .collect()
    }

    fn asks(&self, rows: &[usize]) -> Vec<Ask<'_>> {
        let times = self.settings.samples_per_prompt;
        let ask = |(i, &row): (usize, &usize)| Ask {
            prompt: &self.samples[row].prompt,
            stream: (row * times + i % times) as u64,
            row: self.samples[row].row,
        };
        rows.iter().enumerate().map(ask).collect()
    }
}

impl Method for Pbkd {
    fn rows(&self) -> usize {
        self.samples.len()
    }

    fn data_row(&self, row: usize) -> usize {
        self.samples[row].row
    }

    fn step(&mut self, student: &Llama, rows: &[usize], work: &mut Work) -> Result<StepReport> {
        let most = work.micro_batch_tokens;
        let online = match self.settings.mode {
            PbkdMode::Online { iteration_steps } => Some(iteration_steps),
            PbkdMode::Offline { pairs } => {
                if !self.state.fitted && pairs == PairSource::Samples {
                    self.first_pairs(student, work)?;
                }
                None
            }
        };
        let asked = self.repeated(rows);
        let answers = self.student.answer(student, &self.asks(&asked), work)?;
        let seen = see(student, &self.teacher, &answers.examples, work);
        if online.is_some() {
            let likelihoods: Vec<f64> = seen
                .looks
                .iter()
                .map(|looks| mean(looks.iter().map(|look| look.teacher)))
                .collect();
            let pairs = self.judged(&asked, &answers.examples, &likelihoods, work)?;
            self.state.pending.extend(pairs);
        }
        let due = online.is_some_and(|every| (work.step - 1).is_multiple_of(every));
        if due || !self.state.fitted {
            let start = std::time::Instant::now();
            self.fit(work)?;
            work.phases.add("reward_fit", start.elapsed());
        }

        // The reward's side of the game.
        let start = std::time::Instant::now();
        let teacher_samples: Vec<&Example> = rows.iter().map(|&row| &self.samples[row]).collect();
        let teacher_samples: Vec<Example> = teacher_samples.into_iter().cloned().collect();
        let own: Vec<&Example> = answers.examples.iter().collect();
        let both: Vec<&Example> = teacher_samples.iter().chain(own.iter().copied()).collect();
        let share = |count: usize| 1.0 / count.max(1) as f64;
        let mut slopes = vec![-share(teacher_samples.len()); teacher_samples.len()];
        slopes.extend(vec![share(own.len()); own.len()]);
        let train = self.part(false);
        for number in 0..self.settings.reward_steps {
            // Behind those of the fit, so that no batch is drawn twice in a step.
            let number = self.settings.fit_steps + number;
            let batch = self.batch(&train, work.batch, number, work);
            let dual = self.state.dual;
            self.reward_step(&both, &slopes, &batch, dual, work)?;
        }
        let measured = self.measure(&train, work);
        let inside = match train.is_empty() {
            true => 0.0,
            false => slack(measured.likelihood, self.state.best, self.settings.zeta),
        };
        self.state.dual = dual_step(self.state.dual, inside, self.settings.dual_learning_rate);
        let rewards = self.reward.rewards(&both, most);
        let (of_teacher, of_student) = rewards.split_at(teacher_samples.len());
        work.phases.add("reward_step", start.elapsed());

        // The student's.
        let center = mean(of_student.iter().copied());
        let times = self.settings.samples_per_prompt;
        let advantages: Vec<f64> = of_student
            .iter()
            .enumerate()
            .map(|(i, reward)| match self.settings.baseline {
                RewardBaseline::None => *reward,
                RewardBaseline::BatchMean => reward - center,
                RewardBaseline::Teacher => reward - of_teacher[i / times],
            })
            .collect();
        let deviation = mean(of_student.iter().map(|r| (r - center).powi(2))).sqrt();
        let tokens: usize = seen.looks.iter().map(Vec::len).sum();
        let lengths: Vec<usize> = seen.looks.iter().map(Vec::len).collect();
        let filled = |of: &dyn Fn(usize) -> f64| -> Vec<Vec<f64>> {
            lengths
                .iter()
                .enumerate()
                .map(|(i, &n)| vec![of(i); n])
                .collect()
        };
        let kl_weight = self.settings.kl_weight;
        let weights = Weights {
            policy: filled(&|i| advantages[i]),
            reverse_kl: (kl_weight > 0.0).then(|| filled(&|_| kl_weight)),
            flatten: 0.0,
        };
        let mut terms = summary(seen.looks.iter().flatten());
        terms.extend(answers.diagnostics());
        let count = tokens.max(1) as f64;
        let sums = descend(student, &self.teacher, seen, &weights, 1.0 / count, work)?;
        let (mut lm, mut lm_tokens) = (0.0, 0);
        if self.settings.lm_weight > 0.0 {
            let texts: Vec<&Example> = teacher_samples.iter().collect();
            let weight = self.settings.lm_weight;
            let totals = token_pass(student, None, &texts, weight, &cross_entropy, work)?;
            (lm, lm_tokens) = (totals.mean(1), totals.tokens);
        }
        self.state.updates = self.reward.updates();
        terms.extend([
            ("policy_gradient", sums[1] / count),
            ("language_modelling", lm),
            ("reward_gap", mean(of_teacher.iter().copied()) - center),
            ("reward", center),
            ("reward_std", deviation),
            ("pairs", self.state.pairs.len() as f64),
            ("log_likelihood", measured.likelihood),
            ("log_likelihood_mle", self.state.best),
            ("zeta", self.settings.zeta),
            ("slack", inside),
            ("dual", self.state.dual),
        ]);
        if let Some(agreement) = self.state.agreement {
            terms.push(("held_out_agreement", agreement));
        }
        Ok(StepReport {
            loss: sums[0] / count + self.settings.lm_weight * lm,
            terms,
            tokens: tokens + lm_tokens,
        })
    }

    fn save(&self, folder: &Path) -> Result<()> {
        self.reward.save(folder)?;
        let text = serde_json::to_string(&self.state).unwrap_or_default();
        Ok(files::write_whole(&folder.join(FILE), text.as_bytes())?)
    }

    fn load(&mut self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        let state: State = serde_json::from_str(&text)
            .map_err(|e| damaged(&path, format!("the pairs are damaged ({e})")))?;
        let rows = self.samples.len();
        let mut pairs = state.pairs.iter().chain(&state.pending);
        if !pairs.all(|pair| pair.row < rows) {
            return Err(damaged(&path, "the pairs are of other rows".into()));
        }
        self.reward.load(folder, state.updates)?;
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::config::Train;

    pub(in crate::method) fn pbkd(
        settings: Settings,
        teacher: Teacher,
        student: OnPolicy,
        samples: Vec<Example>,
        train: &Train,
    ) -> Pbkd {
        let network = crate::testing::tiny_network(1);
        let (layers, bound) = (settings.reward_layers, settings.reward_bound);
        let rate = settings.reward_learning_rate;
        Pbkd {
            reward: RewardModel::new(&network, layers, bound, rate, train).unwrap(),
            judge: Judge::teacher(),
            state: State {
                dual: settings.dual_start,
                ..State::default()
            },
            settings,
            teacher,
            student,
            samples,
        }
    }
}
