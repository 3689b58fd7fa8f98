//! Moment-matching PbKD (Jia 2025, arXiv 2505.18952, Algorithm 3): a game of the student q against a
//! bounded Q-function that has to explain preferences.
//!
//!   M(Q)   = (1−s) · mean_{y~q} Σ_a (p−q)(a|s_t) Q(s_t,a) + s · mean_{y~p} Σ_a (p−q)(a|s_t) Q(s_t,a)
//!   D_Q    = Σ_{t∈y_win} A(s_t,a_t) − Σ_{t∈y_lose} A(s_t,a_t),  A(s,a) = Q(s,a) − Σ p(·|s) Q(s,·)
//!   Q step:       ascend M(Q) + λ · mean log σ(D_Q) − κB · Z, by AdamW of its own
//!   student step: descend M at the visited states, with the exact gradient over the vocabulary
//!                 (the states are held fixed), plus lm_weight · cross-entropy on y ~ p.
//! Z = the states' mean, weighed as in M, of Σ_a ½(p+q)(a) z_a², for Q = B·tanh(z): it keeps tanh from
//! saturating. Means over states are over the tokens of the step's samples of each model, the mean of log σ over
//! its ordered pairs. A pair is the teacher's sample (drawn once) and a fresh one of the student.
//!
//! z are the logits of a network that starts as layers of the student, its last norm
//! scaled down: a language model's logits would saturate tanh.

use std::path::Path;
use std::sync::Arc;

use distil_kernels::math::log_sum_exp;
use distil_kernels::{
    CrossEntropy, HeadPass, RowObjective, TeacherHead, add_in_place, embedding, head_pass,
    head_rows,
};
use distil_model::prune::evenly_spaced;
use distil_model::{Llama, Parameter, files};

use super::judge::Judge;
use super::kd::{live_teacher, teacher_samples};
use super::network_file::{self, damaged};
use super::pass::{Teacher, Tracked, predicted};
use super::watched::looks_at;
use super::{Material, Method, Preparation, StepReport};
use crate::config::{MmPbkd as Settings, Train};
use crate::data::batch::{PackedBatch, micro_batches, pack};
use crate::data::example::Example;
use crate::error::{Error, Result};
use crate::objective::look::{Look, on_own_samples};
use crate::objective::{PolicyMoment, QFunction, log_sigmoid, sigmoid};
use crate::rollout::on_policy::{Ask, Policy};
use crate::score::tokens;
use crate::step::Work;
use crate::step::{Gradients, Optimizer};

/// Factor on the last norm of the Q-network's start, which is a factor on its logits.
const START: f32 = 1.0 / 32.0;

pub(crate) fn prepare(
    settings: Settings,
    mut material: Material,
    preparation: &mut Preparation<'_>,
) -> Result<Option<Box<dyn Method>>> {
    let samples = teacher_samples(&mut material, 1, settings.rollout, preparation)?;
    let Some(samples) = samples else {
        return Ok(None);
    };
    let live = live_teacher(&mut material)?;
    let student = preparation.student(&material, &settings.rollout);
    let judge = Judge::new(&settings.judge, &material, preparation.config.seed)?;
    let network = q_network(&material.student.network, settings.q_layers)?;
    let train = preparation.config.train.clone();
    let method = MmPbkd::new(settings, live, student, samples, judge, network, train);
    Ok(Some(Box::new(method)))
}

/// The Q-network at its start: layers of the student, never more than it has.
pub(super) fn q_network(student: &Llama, layers: usize) -> Result<Llama> {
    let total = student.config().layers;
    let keep = match layers.min(total) {
        1 => vec![0],
        layers => evenly_spaced(total, layers)?,
    };
    let mut network = student.frozen().with_layers(&keep)?;
    for (name, parameter) in network.parameters() {
        if let ("model.norm.weight", Parameter::Vector(weight)) = (name.as_str(), parameter) {
            weight.inplace(|weight| weight * START);
        }
    }
    Ok(network.trainable())
}

pub(super) struct MmPbkd {
    settings: Settings,
    teacher: Teacher,
    student: Policy,
    /// The teacher's sample of each prompt.
    samples: Vec<Example>,
    judge: Judge,
    /// The Q-function's network, tracked.
    pub(super) q: Llama,
    optimizer: Optimizer,
    train: Train,
    /// Updates of the Q-network.
    updates: u32,
}

/// A micro-batch of pairs, packed as teacher's, student's, teacher's, student's, …
pub(super) struct Pairs {
    batch: PackedBatch,
    teacher: TeacherHead,
    /// The student as it is at this step, untracked.
    student: TeacherHead,
    /// 1 where the teacher's sample is preferred, −1 where the student's is, 0 without verdict.
    pub(super) verdicts: Vec<f64>,
    /// What each position's moment counts, its sum over the step being 1.
    shares: Arc<[f32]>,
    /// What each position's cross-entropy counts.
    lm: Arc<[f32]>,
}

/// What a Q step or a look at its result found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    pub(super) moment: f64,
    on_policy: f64,
    off_policy: f64,
    /// Σ log σ(D_Q) and Σ [D_Q > 0] over ordered pairs.
    pub(super) likelihood: f64,
    right: f64,
    margin: f64,
    /// κB · Z.
    pub(super) penalty: f64,
    /// Sums of A over the teacher's and the student's samples.
    advantages: [f64; 2],
    /// Σ over positions of Σ_a p(a)|Q(a)|/B.
    saturation: f64,
}

impl MmPbkd {
    pub(super) fn new(
        settings: Settings,
        teacher: Teacher,
        student: Policy,
        samples: Vec<Example>,
        judge: Judge,
        q: Llama,
        train: Train,
    ) -> Self {
        Self {
            optimizer: Optimizer::new(&train, &q),
            settings,
            teacher,
            student,
            samples,
            judge,
            q,
            train,
            updates: 0,
        }
    }

    /// The step's pairs with everything about them that the game does not change.
    pub(super) fn pairs(
        &self,
        student: &Llama,
        rows: &[usize],
        answers: &[Example],
        work: &mut Work,
    ) -> Result<Vec<Pairs>> {
        let chosen: Vec<&Example> = rows.iter().map(|&row| &self.samples[row]).collect();
        let count = |tokens: usize| tokens.max(1) as f32;
        let off_tokens = count(chosen.iter().map(|e| predicted(e)).sum());
        let on_tokens = count(answers.iter().map(predicted).sum());
        let share = self.settings.off_policy_share as f32;
        let lengths: Vec<usize> = chosen
            .iter()
            .zip(answers)
            .map(|(c, a)| c.len() + a.len())
            .collect();
        let network = student.frozen();
        let mut all = Vec::new();
        for range in micro_batches(&lengths, work.micro_batch_tokens) {
            let both: Vec<&Example> = range
                .clone()
                .flat_map(|i| [chosen[i], &answers[i]])
                .collect();
            let batch = pack(&both);
            if batch.predict.is_empty() {
                continue;
            }
            let teacher = work.phases.time("teacher", || self.teacher.head(&batch));
            let student = work
                .phases
                .time("student_forward", || head_of(&network, &batch));
            let (mut shares, mut lm) = (
                vec![0.0; batch.predict.len()],
                vec![0.0; batch.predict.len()],
            );
            for pair in batch.response_ranges.chunks_exact(2) {
                shares[pair[0].clone()].fill(share / off_tokens);
                shares[pair[1].clone()].fill((1.0 - share) / on_tokens);
                lm[pair[0].clone()].fill(self.settings.lm_weight as f32 / off_tokens);
            }
            let likelihoods = self.judge.needs_likelihood().then(|| {
                let (vocabulary, head) = (self.teacher.vocabulary, teacher.clone());
                head_rows(head.hidden, &head.weight, None, vocabulary, |row, z, _| {
                    f64::from(z[batch.target_ids[row] as usize] - log_sum_exp(z))
                })
            });
            let mut verdicts = Vec::new();
            for (pair, i) in batch.response_ranges.chunks_exact(2).zip(range) {
                let mean = |side: usize| {
                    let part = likelihoods.as_ref().map(|all| &all[pair[side].clone()]);
                    part.map_or(0.0, |p| p.iter().sum::<f64>() / p.len().max(1) as f64)
                };
                let texts = [&chosen[i].response[..], &answers[i].response[..]];
                let likelihood = [mean(0), mean(1)];
                verdicts.push(self.judge.verdict(rows[i], work.step, texts, likelihood)?);
            }
            all.push(Pairs {
                batch,
                teacher,
                student,
                verdicts,
                shares: shares.into(),
                lm: lm.into(),
            });
        }
        Ok(all)
    }

    /// The Q-function's objective on a micro-batch; its gradient is added to `gradients` if given.
    pub(super) fn q_pass(
        &self,
        pairs: &Pairs,
        ordered: f64,
        gradients: Option<&mut Gradients>,
        work: &mut Work,
    ) -> Result<Found> {
        let (batch, vocabulary) = (&pairs.batch, self.teacher.vocabulary);
        let (bound, rows) = (self.settings.q_bound as f32, batch.predict.len());
        let hidden = work
            .phases
            .time("q_forward", || Tracked::of(&self.q, batch));
        let (plain, weight) = (hidden.plain(), self.q.head().inner());
        let targets: Arc<[u32]> = Arc::from(&batch.target_ids[..]);
        let penalty = (self.settings.q_penalty * self.settings.q_bound) as f32;
        let penalty: Arc<[f32]> = pairs.shares.iter().map(|share| penalty * share).collect();
        let function = |expectation: Vec<f32>, taken: Vec<f32>| QFunction {
            bound,
            targets: targets.clone(),
            expectation: expectation.into(),
            taken: taken.into(),
            penalty: penalty.clone(),
        };
        // Each position's Σ p Q, Q(a) and saturation, and its Σ q Q.
        let look = function(vec![1.0; rows], vec![0.0; rows]);
        let values = |side: &TeacherHead| {
            let (plain, weight) = (plain.clone(), weight.clone());
            head_rows(plain, &weight, Some(side), vocabulary, |row, z, policy| {
                look.row(row, z, policy, false)
            })
        };
        let (of_teacher, of_student) = work.phases.time("q_head", || {
            (values(&pairs.teacher), values(&pairs.student))
        });
        let mut found = Found::default();
        let mut slopes = vec![0.0f32; rows];
        for (pair, &verdict) in batch.response_ranges.chunks_exact(2).zip(&pairs.verdicts) {
            let sums = [0, 1].map(|side: usize| -> f64 {
                let terms = of_teacher[pair[side].clone()].iter();
                terms.map(|terms| terms.values[2] - terms.values[1]).sum()
            });
            found.advantages[0] += sums[0];
            found.advantages[1] += sums[1];
            if verdict == 0.0 {
                continue;
            }
            let margin = verdict * (sums[0] - sums[1]);
            found.likelihood += log_sigmoid(margin);
            found.margin += margin;
            found.right += f64::from(u8::from(margin > 0.0));
            // d (−λ · mean log σ(D)) / d A of each of the pair's tokens.
            let slope = -self.settings.preference_weight * sigmoid(-margin) * verdict / ordered;
            slopes[pair[0].clone()].fill(slope as f32);
            slopes[pair[1].clone()].fill(-slope as f32);
        }
        for (i, ((p, q), &share)) in of_teacher
            .iter()
            .zip(&of_student)
            .zip(&*pairs.shares)
            .enumerate()
        {
            let (p, q) = (p.values, q.values);
            let moment = f64::from(share) * (p[1] - q[1]);
            found.moment += moment;
            let off = batch
                .response_ranges
                .iter()
                .step_by(2)
                .any(|range| range.contains(&i));
            match off {
                true => found.off_policy += moment,
                false => found.on_policy += moment,
            }
            found.saturation += p[3];
            // What the look has beside its expected value.
            found.penalty += (p[0] - p[1]) + (q[0] - q[1]);
        }
        let all = [found.moment, found.likelihood, found.penalty];
        if !all.iter().all(|x| x.is_finite()) {
            return Err(not_finite("the Q-function", batch, work));
        }
        let Some(gradients) = gradients else {
            return Ok(found);
        };
        let minus = |(share, slope): (&f32, &f32)| -share - slope;
        let expectation = pairs.shares.iter().zip(&slopes).map(minus).collect();
        let passes = work.phases.time("q_head", || {
            let pass = |side: &TeacherHead, objective: QFunction| {
                let (plain, weight) = (plain.clone(), weight.clone());
                head_pass(
                    plain,
                    &weight,
                    Some(side),
                    vocabulary,
                    &objective,
                    1.0,
                    true,
                )
            };
            [
                pass(&pairs.teacher, function(expectation, slopes)),
                pass(
                    &pairs.student,
                    function(pairs.shares.to_vec(), vec![0.0; rows]),
                ),
            ]
        });
        work.phases.time("q_backward", || {
            backward(&self.q, hidden, passes, gradients);
        });
        Ok(found)
    }

    /// Some of the positions of the student's own responses.
    fn looks(&self, pairs: &Pairs) -> Vec<Look> {
        let own = pairs.batch.response_ranges.iter().skip(1).step_by(2);
        looks_at(
            &pairs.student,
            &pairs.teacher,
            &pairs.batch.target_ids,
            own.flat_map(Clone::clone),
            self.teacher.vocabulary,
        )
    }

    /// One step of the Q-function up its objective.
    fn q_step(&mut self, all: &[Pairs], ordered: f64, work: &mut Work) -> Result<()> {
        let mut gradients = Gradients::default();
        for pairs in all {
            self.q_pass(pairs, ordered, Some(&mut gradients), work)?;
        }
        let (norm, clip) = (gradients.norm(), self.train.clip_norm);
        if !norm.is_finite() {
            return Err(Error::NotFinite {
                step: work.step,
                term: "the Q-function's gradient".into(),
                rows: all
                    .iter()
                    .flat_map(|pairs| pairs.batch.rows.clone())
                    .collect(),
            });
        }
        let scale = match clip > 0.0 && norm > clip {
            true => clip / norm,
            false => 1.0,
        };
        let rate = self.settings.q_learning_rate;
        self.optimizer.update(&mut self.q, gradients, rate, scale);
        self.updates += 1;
        Ok(())
    }

    /// The student's gradient on a micro-batch; returns its Σ of cross-entropy.
    fn policy_pass(&self, student: &Llama, pairs: &Pairs, work: &mut Work) -> Result<f64> {
        let (batch, vocabulary) = (&pairs.batch, self.teacher.vocabulary);
        let q = work
            .phases
            .time("q_forward", || head_of(&self.q.frozen(), batch));
        let hidden = work
            .phases
            .time("student_forward", || Tracked::of(student, batch));
        let moment = PolicyMoment {
            bound: self.settings.q_bound as f32,
            weights: pairs.shares.clone(),
        };
        let text = CrossEntropy {
            targets: Arc::from(&batch.target_ids[..]),
            weights: Some(pairs.lm.clone()),
        };
        let passes = work.phases.time("head", || {
            let pass = |side: Option<&TeacherHead>, objective: &dyn RowObjective| {
                let (plain, weight) = (hidden.plain(), student.head().inner());
                head_pass(plain, &weight, side, vocabulary, objective, 1.0, true)
            };
            [pass(Some(&q), &moment), pass(None, &text)]
        });
        let lm = passes[1].terms.values[0];
        work.logit_gradient("moment", passes[0].terms.squares[1]);
        if self.settings.lm_weight > 0.0 {
            work.logit_gradient("language_modelling", passes[1].terms.squares[1]);
        }
        if !passes.iter().all(|pass| pass.terms.values[0].is_finite()) {
            return Err(not_finite("the loss", batch, work));
        }
        let gradients = &mut work.gradients;
        work.phases.time("backward", || {
            backward(student, hidden, passes, gradients);
        });
        Ok(lm)
    }
}

fn head_of(network: &Llama, batch: &PackedBatch) -> TeacherHead {
    TeacherHead {
        hidden: embedding(network.hidden(tokens(batch)), &batch.predict),
        weight: network.head(),
    }
}

/// Adds the gradient of the sum of two passes over one head.
fn backward(network: &Llama, hidden: Tracked, passes: [HeadPass; 2], gradients: &mut Gradients) {
    let loss = passes.iter().map(|pass| pass.terms.values[0]).sum::<f64>();
    let [first, second] = passes.map(|pass| pass.d_hidden.zip(pass.d_weight));
    if let (Some((h1, w1)), Some((h2, w2))) = (first, second) {
        let (h, w) = (add_in_place(h1, h2), add_in_place(w1, w2));
        hidden.backward(network, loss as f32, h, Some(w), gradients);
    }
}

fn not_finite(term: &str, batch: &PackedBatch, work: &Work) -> Error {
    Error::NotFinite {
        step: work.step,
        term: term.into(),
        rows: batch.rows.clone(),
    }
}

impl Method for MmPbkd {
    fn rows(&self) -> usize {
        self.samples.len()
    }

    fn data_row(&self, row: usize) -> usize {
        self.samples[row].row
    }

    fn step(&mut self, student: &Llama, rows: &[usize], work: &mut Work) -> Result<StepReport> {
        let asks: Vec<Ask<'_>> = rows
            .iter()
            .map(|&row| Ask {
                prompt: &self.samples[row].prompt,
                stream: row as u64,
                row: self.samples[row].row,
            })
            .collect();
        let answers = self.student.answer(student, &asks, work)?;
        let all = self.pairs(student, rows, &answers.examples, work)?;
        let verdicts = || all.iter().flat_map(|pairs| &pairs.verdicts);
        let judged = verdicts().filter(|&&verdict| verdict != 0.0).count();
        let ordered = judged.max(1) as f64;
        let preferred = verdicts().filter(|&&verdict| verdict > 0.0).count();
        for _ in 0..self.settings.q_steps {
            self.q_step(&all, ordered, work)?;
        }
        let looks: Vec<Look> = work.phases.time("head", || {
            all.iter().flat_map(|pairs| self.looks(pairs)).collect()
        });
        // The student descends the moment of the Q-function as it is now.
        let (mut total, mut lm, mut positions) = (Found::default(), 0.0, 0);
        for pairs in &all {
            let found = self.q_pass(pairs, ordered, None, work)?;
            total.add(&found);
            lm += self.policy_pass(student, pairs, work)?;
            positions += pairs.batch.predict.len();
        }
        let share = self.settings.off_policy_share;
        let of_share = |sum: f64, share: f64| match share > 0.0 {
            true => sum / share,
            false => 0.0,
        };
        let (count, per_token) = (rows.len().max(1) as f64, positions.max(1) as f64);
        let lm_mean = of_share(lm, self.settings.lm_weight);
        Ok(StepReport {
            loss: total.moment + lm,
            terms: vec![
                ("moment", total.moment),
                ("moment_on_policy", of_share(total.on_policy, 1.0 - share)),
                ("moment_off_policy", of_share(total.off_policy, share)),
                ("preference_log_likelihood", total.likelihood / ordered),
                ("preference_accuracy", total.right / ordered),
                ("margin", total.margin / ordered),
                ("judged", judged as f64 / count),
                ("teacher_preferred", preferred as f64 / ordered),
                ("q_penalty", total.penalty),
                ("q_saturation", total.saturation / per_token),
                ("advantage_teacher", total.advantages[0] / count),
                ("advantage_student", total.advantages[1] / count),
                ("language_modelling", lm_mean),
            ]
            .into_iter()
            .chain(answers.diagnostics())
            .chain(on_own_samples(&looks, self.student.is_plain()))
            .collect(),
            tokens: positions,
        })
    }

    fn save(&self, folder: &Path) -> Result<()> {
        network_file::save(&folder.join("q-network.safetensors"), &self.q, Vec::new())?;
        self.optimizer
            .save(&folder.join("q-optimizer.safetensors"))?;
        let updates = self.updates.to_string();
        files::write_whole(&folder.join("q-updates.txt"), updates.as_bytes())?;
        Ok(())
    }

    fn load(&mut self, folder: &Path) -> Result<()> {
        let path = folder.join("q-network.safetensors");
        network_file::load(&path, &mut self.q, &mut [])?;
        let path = folder.join("q-updates.txt");
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        let updates = text.parse().ok();
        self.updates = updates.ok_or_else(|| damaged(&path, "is not a number".into()))?;
        let path = folder.join("q-optimizer.safetensors");
        self.optimizer.load(&path, self.updates)
    }
}

impl Found {
    fn add(&mut self, other: &Self) {
        self.moment += other.moment;
        self.on_policy += other.on_policy;
        self.off_policy += other.off_policy;
        self.likelihood += other.likelihood;
        self.right += other.right;
        self.margin += other.margin;
        self.saturation += other.saturation;
        self.penalty += other.penalty;
        for (sum, part) in self.advantages.iter_mut().zip(other.advantages) {
            *sum += part;
        }
    }
}
