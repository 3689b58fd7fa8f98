//! PbKD: online knowledge distillation with reward guidance (Jia 2025, arXiv 2505.18952), a game of
//! the student q against the most damaging reward that still explains the preferences D,
//!   min_q max_{r ∈ R(D)} E_{y~p} r(x, y) − E_{y~q} r(x, y),
//!   R(D) = { r : L̄_D(r) ≥ L̄_D(r_MLE) − ζ/|D| },
//! offline with fixed pairs (Algorithm 1) or with pairs of the current student added as it goes
//! (Algorithm 2). The inner maximum is taken along its Lagrangian with a dual variable λ:
//!   reward step:  ascend mean_{y~p} r − mean_{y~q} r + λ · L̄_batch(r)
//!   dual step:    λ ← max(0, λ − a (L̄_D(r) − L̄_MLE + ζ/|D|))
//!   student step: descend − mean_t ρ_t (r(x, y) − baseline) · log q(y_t|s_t), y ~ b,
//!                 + kl_weight · KL(q‖p) on y + lm_weight · cross-entropy on y ~ p,
//! b the distribution that was sampled (q itself, unless `temperature`, `top_k` or `top_p` say
//! otherwise) and ρ_t = q/b of the step.
//!
//! After every addition of pairs the likelihood is maximised from where the reward is, as long as it
//! rises; L̄_MLE is the highest that was reached on D, by the game too. It and L̄_D are measured
//! on up to [`MEASURED`] pairs, evenly spaced over D. A share of the prompts is held out of
//! everything that the reward learns from; on them its agreement with the judge is measured after
//! every fit.

use std::path::Path;

use distil_model::{Llama, files};
use serde::{Deserialize, Serialize};

use super::judge::Judge;
use super::kd::{live_teacher, teacher_samples};
use super::kept_samples::{Whose, kept_samples};
use super::network_file::damaged;
use super::pair_set::{PairSet, StoredPair, batch, is_held_out};
use super::pass::{Teacher, Texts, token_pass};
use super::sampled::{Weights, descend, see};
use super::sft::cross_entropy;
use super::{Material, Method, Preparation, StepReport};
use crate::config::{PairSource, Pbkd as Settings, PbkdMode, RewardBaseline};
use crate::data::example::{Example, PromptExample};
use crate::error::{Error, Result};
use crate::objective::advantage::mean;
use crate::objective::bradley_terry::{dual_step, log_likelihood, slack};
use crate::objective::look::on_samples;
use crate::reward_model::RewardModel;
use crate::rollout::on_policy::{Ask, Policy};
use crate::step::Work;

/// Pairs on which likelihoods are measured.
pub(crate) const MEASURED: usize = 32;

/// Rounds of `fit_steps` after an addition of pairs, at most.
const ROUNDS: usize = 5;

/// A round that raises the likelihood by less than this, in nats a pair, is the last.
const RISING: f64 = 0.005;

/// What a checkpoint keeps beside the reward model.
const FILE: &str = "pbkd.json";

pub(crate) fn prepare(
    settings: Settings,
    mut material: Material,
    preparation: &mut Preparation<'_>,
) -> Result<Option<Box<dyn Method>>> {
    let pairs = std::mem::take(&mut material.pairs);
    if !pairs.is_empty() {
        // The prompts of the data's own pairs.
        let prompt = |pair: &crate::data::example::PairExample| PromptExample {
            prompt: pair.chosen.prompt.clone(),
            text: String::new(),
            references: Vec::new(),
            row: pair.chosen.row,
        };
        material.prompts = pairs.iter().map(prompt).collect();
    }
    let rollout = settings.rollout;
    let samples = teacher_samples(&mut material, 1, rollout, preparation)?;
    let Some(samples) = samples else {
        return Ok(None);
    };
    let times = settings.samples_per_prompt;
    let mut first_answers = Vec::new();
    if let PbkdMode::Offline {
        pairs: PairSource::Samples(_),
    } = settings.mode
    {
        let whose = Whose::FirstStudent(&material.student);
        match kept_samples(whose, &material.prompts, times, rollout, preparation)? {
            Some(answers) => first_answers = answers,
            None => return Ok(None),
        }
    }
    let teacher = live_teacher(&mut material)?;
    let judge = match settings.mode.judge() {
        Some(judge) => Judge::new(judge, &material, preparation.config.seed)?,
        // Pairs that come in their order: it is never asked.
        None => Judge::teacher(),
    };
    let reward = RewardModel::new(
        &material.student.network,
        settings.reward_layers,
        settings.reward_bound,
        settings.reward_learning_rate,
        &preparation.config.train,
    )?;
    let mut set = PairSet::default();
    set.add(pairs.iter().enumerate().map(StoredPair::given));
    Ok(Some(Box::new(Pbkd {
        student: preparation.student(&material, &settings.rollout),
        judge,
        state: State {
            dual: settings.dual_start,
            set,
            ..State::default()
        },
        settings,
        teacher,
        samples,
        first_answers,
        reward,
    })))
}

pub(super) struct Pbkd {
    pub(super) settings: Settings,
    pub(super) teacher: Teacher,
    pub(super) student: Policy,
    /// The teacher's sample of each prompt, y ~ p.
    pub(super) samples: Vec<Example>,
    /// Offline: the first student's answers, `samples_per_prompt` to each prompt in a row.
    pub(super) first_answers: Vec<Example>,
    pub(super) judge: Judge,
    pub(super) reward: RewardModel,
    pub(super) state: State,
}

/// What changes besides the reward model.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// D.
    pub(super) set: PairSet,
    /// λ.
    pub(super) dual: f64,
    /// L̄_MLE, a pair; none before the first fit.
    pub(super) best: Option<f64>,
    /// Whether the first student's answers have been judged.
    judged: bool,
    /// Share of the held-out pairs that the reward model orders as the judge did, after the last fit.
    agreement: Option<f64>,
    /// Updates of the reward model.
    updates: u32,
}

/// What the reward model says of a set of pairs.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    likelihood: f64,
    agreement: f64,
}

/// What a judge said of a step's pairs.
#[derive(Clone, Copy, Debug, Default)]
struct Verdicts {
    asked: usize,
    judged: usize,
    teacher_preferred: usize,
}

impl Pbkd {
    /// Numbers of the pairs to learn from, or of those held out.
    fn part(&self, held_out: bool) -> Vec<usize> {
        let share = self.settings.held_out_share;
        self.state.set.part(held_out, share)
    }

    fn measure(&self, pairs: &[usize], work: &Work) -> Measured {
        let every = pairs.len().div_ceil(MEASURED).max(1);
        let some: Vec<usize> = pairs.iter().copied().step_by(every).collect();
        let texts = self.state.set.texts(&some, &self.samples);
        let texts: Vec<&Example> = texts.iter().collect();
        let rewards = self.reward.rewards(&texts, work.micro_batch_tokens);
        let margins = || rewards.chunks_exact(2).map(|pair| pair[0] - pair[1]);
        Measured {
            likelihood: mean(margins().map(|margin| log_likelihood(margin, 1.0).0)),
            agreement: mean(margins().map(|m| f64::from(u8::from(m > 0.0)))),
        }
    }

    /// A batch of D for reward update `number` of a step.
    fn batch(&self, train: &[usize], number: usize, work: &Work) -> Vec<usize> {
        let seed = work.seed ^ (work.step as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        batch(train, work.batch, number, seed)
    }

    /// A step down Σ slopes · r(others) minus `weight` times the mean log-likelihood of pairs; the
    /// gradient's norm.
    fn reward_step(
        &mut self,
        others: &[&Example],
        slopes: &[f64],
        pairs: &[usize],
        weight: f64,
        work: &Work,
    ) -> Result<f64> {
        let texts = self.state.set.texts(pairs, &self.samples);
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
            true => Ok(norm),
            false => Err(Error::NotFinite {
                step: work.step,
                term: "the reward model's gradient".into(),
                rows: all.iter().map(|text| text.row).collect(),
            }),
        }
    }

    /// Adds what is pending to D and fits the reward model by maximum likelihood.
    fn fit(&mut self, work: &mut Work) -> Result<()> {
        self.state.set.join();
        let train = self.part(false);
        if train.is_empty() {
            return Ok(());
        }
        let mut best = self.measure(&train, work).likelihood;
        for round in 0..ROUNDS {
            for number in 0..self.settings.fit_steps {
                let number = round * self.settings.fit_steps + number;
                let batch = self.batch(&train, number, work);
                self.reward_step(&[], &[], &batch, 1.0, work)?;
            }
            let now = self.measure(&train, work).likelihood;
            let rising = now > best + RISING;
            best = best.max(now);
            if !rising {
                break;
            }
        }
        self.state.best = Some(best);
        let held_out = self.part(true);
        if !held_out.is_empty() {
            self.state.agreement = Some(self.measure(&held_out, work).agreement);
        }
        Ok(())
    }

    /// The judge's order of the teacher's samples and `answers` to `rows`, as pairs that wait.
    fn judge_pairs(
        &mut self,
        rows: &[usize],
        answers: &[Example],
        work: &Work,
    ) -> Result<Verdicts> {
        let likelihoods = |texts: &[Example]| -> Result<Vec<f64>> {
            if !self.judge.needs_likelihood() {
                return Ok(vec![0.0; texts.len()]);
            }
            let (network, most) = (self.teacher.network(), work.micro_batch_tokens);
            let scores = crate::score::score(network, None, texts, most, &mut |_| {})?;
            let a_token =
                |s: crate::score::TokenScores| mean(s.logprobs.into_iter().map(f64::from));
            Ok(scores.into_iter().map(a_token).collect())
        };
        let samples: Vec<Example> = rows.iter().map(|&row| self.samples[row].clone()).collect();
        let (of_teacher, of_student) = (likelihoods(&samples)?, likelihoods(answers)?);
        let mut verdicts = Verdicts {
            asked: rows.len(),
            ..Verdicts::default()
        };
        let mut pairs = Vec::new();
        for (i, &row) in rows.iter().enumerate() {
            let both = [&samples[i].response[..], &answers[i].response[..]];
            // Several answers to one prompt get verdicts of their own.
            let number = work.step * rows.len() + i;
            let likelihood = [of_teacher[i], of_student[i]];
            let verdict = self.judge.verdict(row, number, both, likelihood)?;
            let [teacher, student] = both.map(<[u32]>::to_vec);
            if verdict == 0.0 {
                continue;
            }
            verdicts.judged += 1;
            verdicts.teacher_preferred += usize::from(verdict > 0.0);
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
        self.state.set.add(pairs);
        Ok(verdicts)
    }

    /// Offline mode's pairs, all of them at once.
    fn first_pairs(&mut self, work: &Work) -> Result<()> {
        self.state.judged = true;
        if self.first_answers.is_empty() {
            return Ok(());
        }
        let all: Vec<usize> = (0..self.samples.len()).collect();
        let answers = std::mem::take(&mut self.first_answers);
        let verdicts = self.judge_pairs(&self.repeated(&all), &answers, work)?;
        match verdicts.judged {
            0 => Err(Error::Mismatch {
                what: format!("the judge ordered none of {} pairs", verdicts.asked),
                fix: "choose another method.judge, or longer responses (max_new_tokens)".into(),
            }),
            _ => Ok(()),
        }
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

    /// The reward's side of the game on a step's samples of teacher and student, which stand in the
    /// order of `rows` and `asked`; what there is to say of it.
    fn play(
        &mut self,
        rows: &[usize],
        asked: &[usize],
        own: &[Example],
        work: &Work,
    ) -> Result<Vec<(&'static str, f64)>> {
        let share = self.settings.held_out_share;
        let learnt = |row: &&usize| !is_held_out(**row, share);
        let of_teacher: Vec<&Example> = rows
            .iter()
            .filter(learnt)
            .map(|&r| &self.samples[r])
            .collect();
        let of_teacher: Vec<Example> = of_teacher.into_iter().cloned().collect();
        let of_student = asked.iter().zip(own).filter(|(row, _)| learnt(row));
        let of_student: Vec<&Example> = of_student.map(|(_, text)| text).collect();
        let each = |count: usize| 1.0 / count.max(1) as f64;
        let mut slopes = vec![-each(of_teacher.len()); of_teacher.len()];
        slopes.extend(vec![each(of_student.len()); of_student.len()]);
        let both: Vec<&Example> = of_teacher.iter().chain(of_student).collect();
        let train = self.part(false);
        let mut norm = 0.0;
        // Without a single preference every reward would be plausible.
        if !train.is_empty() {
            for number in 0..self.settings.reward_steps {
                // Behind those of the fit, so that no batch is drawn twice in a step.
                let number = ROUNDS * self.settings.fit_steps + number;
                let batch = self.batch(&train, number, work);
                norm = self.reward_step(&both, &slopes, &batch, self.state.dual, work)?;
            }
        }
        let mut terms = vec![
            ("pairs", self.state.set.len() as f64),
            ("reward_gradient_norm", norm),
        ];
        if let Some(best) = self.state.best {
            let measured = self.measure(&train, work).likelihood;
            let best = best.max(measured);
            let zeta = self.settings.zeta / train.len() as f64;
            let inside = slack(measured, best, zeta);
            self.state.best = Some(best);
            self.state.dual = dual_step(self.state.dual, inside, self.settings.dual_learning_rate);
            terms.extend([
                ("log_likelihood", measured),
                ("log_likelihood_mle", best),
                ("zeta", zeta),
                ("slack", inside),
                ("dual", self.state.dual),
            ]);
        }
        if let Some(agreement) = self.state.agreement {
            terms.push(("held_out_agreement", agreement));
        }
        Ok(terms)
    }

    /// What each of the student's responses is worth, r − baseline.
    fn advantages(&self, of_teacher: &[f64], of_student: &[f64]) -> Vec<f64> {
        let times = self.settings.samples_per_prompt;
        let sum: f64 = of_student.iter().sum();
        let others = (of_student.len() - 1).max(1) as f64;
        let advantage = |(i, reward): (usize, &f64)| match self.settings.baseline {
            RewardBaseline::None => *reward,
            // Of the others: a mean that holds the response itself would bias the gradient.
            RewardBaseline::BatchMean if of_student.len() == 1 => 0.0,
            RewardBaseline::BatchMean => reward - (sum - reward) / others,
            RewardBaseline::Teacher => reward - of_teacher[i / times],
        };
        of_student.iter().enumerate().map(advantage).collect()
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
        let online = match self.settings.mode {
            PbkdMode::Online {
                iteration_steps, ..
            } => Some(iteration_steps),
            PbkdMode::Offline { .. } => None,
        };
        if !self.state.judged {
            self.first_pairs(work)?;
        }
        let asked = self.repeated(rows);
        let answers = self.student.answer(student, &self.asks(&asked), work)?;
        let mut terms = answers.diagnostics();
        if online.is_some() {
            let verdicts = self.judge_pairs(&asked, &answers.examples, work)?;
            let share = |part: usize, of: usize| part as f64 / of.max(1) as f64;
            terms.extend([
                ("judged", share(verdicts.judged, verdicts.asked)),
                (
                    "teacher_preferred",
                    share(verdicts.teacher_preferred, verdicts.judged),
                ),
            ]);
        }
        let start = std::time::Instant::now();
        let due = online.is_some_and(|every| (work.step - 1).is_multiple_of(every));
        if due || self.state.best.is_none() {
            self.fit(work)?;
        }
        work.phases.add("reward_fit", start.elapsed());
        let start = std::time::Instant::now();
        terms.extend(self.play(rows, &asked, &answers.examples, work)?);
        let teacher_samples: Vec<&Example> = rows.iter().map(|&row| &self.samples[row]).collect();
        let own: Vec<&Example> = answers.examples.iter().collect();
        let of_teacher = self
            .reward
            .rewards(&teacher_samples, work.micro_batch_tokens);
        let of_student = self.reward.rewards(&own, work.micro_batch_tokens);
        work.phases.add("reward_step", start.elapsed());

        // The student's side.
        let seen = see(student, &self.teacher, &answers.examples, work);
        let advantages = self.advantages(&of_teacher, &of_student);
        let ratios: Vec<Vec<f64>> = seen
            .looks
            .iter()
            .zip(&answers.logprobs)
            .map(|(looks, drawn)| {
                let both = looks.iter().zip(drawn);
                both.map(|(look, &b)| (look.student - f64::from(b)).exp())
                    .collect()
            })
            .collect();
        let of_advantage = |(ratios, advantage): (&Vec<f64>, &f64)| -> Vec<f64> {
            ratios.iter().map(|ratio| ratio * advantage).collect()
        };
        let kl_weight = self.settings.kl_weight;
        let everywhere = |ratios: &Vec<f64>| vec![kl_weight; ratios.len()];
        let weights = Weights {
            policy: ratios.iter().zip(&advantages).map(of_advantage).collect(),
            reverse_kl: (kl_weight > 0.0).then(|| ratios.iter().map(everywhere).collect()),
            flatten: 0.0,
        };
        terms.extend(on_samples(&seen.looks.concat(), &ratios.concat()));
        let tokens: usize = seen.looks.iter().map(Vec::len).sum();
        let count = tokens.max(1) as f64;
        let sums = descend(student, &self.teacher, seen, &weights, 1.0 / count, work)?;
        let (mut lm, mut lm_tokens) = (0.0, 0);
        if self.settings.lm_weight > 0.0 {
            let weight = self.settings.lm_weight;
            let texts = Texts::fresh(&teacher_samples);
            let totals = token_pass(student, None, texts, weight, &cross_entropy, work)?;
            work.logit_gradient("language_modelling", totals.terms.squares[1]);
            (lm, lm_tokens) = (totals.mean(1), totals.tokens);
        }
        self.state.updates = self.reward.updates();
        let reward = mean(of_student.iter().copied());
        let square = mean(of_student.iter().map(|r| (r - reward).powi(2)));
        let sizes = of_student
            .iter()
            .map(|r| r.abs() / self.settings.reward_bound);
        terms.extend([
            ("policy_gradient", sums[1] / count),
            ("language_modelling", lm),
            ("reward_gap", mean(of_teacher.iter().copied()) - reward),
            ("reward", reward),
            ("reward_std", square.sqrt()),
            ("reward_saturation", mean(sizes)),
        ]);
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
        if !state.set.is_of(self.samples.len()) {
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
        student: Policy,
        samples: Vec<Example>,
        train: &Train,
    ) -> Pbkd {
        let network = crate::testing::tiny_network(1);
        let (layers, bound) = (settings.reward_layers, settings.reward_bound);
        let rate = settings.reward_learning_rate;
        let first_answers = match settings.mode {
            PbkdMode::Online { .. } => Vec::new(),
            // Another prompt's sample, cut: worse than the prompt's own by any judge of likelihood.
            PbkdMode::Offline { .. } => samples
                .iter()
                .zip(samples.iter().cycle().skip(1))
                .flat_map(|(sample, other)| {
                    let answer = Example {
                        response: other.response[..2].to_vec(),
                        ..sample.clone()
                    };
                    std::iter::repeat_n(answer, settings.samples_per_prompt)
                })
                .collect(),
        };
        Pbkd {
            reward: RewardModel::new(&network, layers, bound, rate, train).unwrap(),
            judge: settings.mode.judge().map_or_else(Judge::teacher, |judge| {
                Judge::without_references(judge.judge, judge.judge_noise, 0)
            }),
            state: State {
                dual: settings.dual_start,
                ..State::default()
            },
            settings,
            teacher,
            student,
            samples,
            first_answers,
        }
    }
}
