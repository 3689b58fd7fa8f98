//! Direct preference knowledge distillation (Li, Gu, Dong, Wang, Cheng, Wei 2024, arXiv 2406.19774).
//!
//! Sequence form, Algorithm 1 with eq. 9: for each prompt the teacher's sample y_t (drawn once) is
//! preferred over a fresh sample y_s of the student, with the teacher p as reference model:
//!   L = − log σ( β/|y_t| · log q(y_t)/p(y_t) − β/|y_s| · log q(y_s)/p(y_s) ) + λ · L_lm,
//! a mean over pairs plus λ times the cross-entropy, a mean over tokens, of the language-modelling
//! source. No gradient goes through sampling.
//!
//! Token form, as the released code computes it: see [`crate::objective::DpkdTokenLoss`].

use std::sync::Arc;

use distil_kernels::math::log_sum_exp;
use distil_kernels::{CrossEntropy, embedding, head_rows};
use distil_model::Llama;

use super::kd::teacher;
use super::language_modelling::lm_pass;
use super::pass::{Forward, PositionWise, Teacher, predicted};
use super::teacher_samples::teacher_samples;
use super::{Material, Method, Preparation, StepReport, Work};
use crate::config::{Dpkd, DpkdForm, DpkdSequence, DpkdToken, LmSource, Pairs};
use crate::data::batch::{PackedBatch, micro_batches, pack};
use crate::data::example::Example;
use crate::error::{Error, Result};
use crate::objective::{DpkdTokenLoss, Pair, PreferenceLoss, PreferenceValue};
use crate::rollout::on_policy::{Ask, OnPolicy};
use crate::score::tokens;

pub(crate) fn prepare(
    settings: Dpkd,
    material: Material,
    preparation: &mut Preparation<'_>,
) -> Result<Option<Box<dyn Method>>> {
    let live = teacher(&material)?;
    match &settings.form {
        DpkdForm::Token(form) => {
            let method = token_form(&settings, form, live, material.examples);
            Ok(Some(Box::new(method)))
        }
        DpkdForm::Sequence(form) => {
            let form = form.clone();
            let (Some(model), Pairs::Samples(rollout)) = (&material.teacher, &form.pairs) else {
                return Ok(None);
            };
            let rollout = *rollout;
            let samples = teacher_samples(model, &material.prompts, 1, rollout, preparation)?;
            Ok(samples.map(|chosen| {
                Box::new(SequenceForm {
                    loss: PreferenceLoss {
                        beta: settings.beta,
                        length_normalize: form.length_normalize,
                        label_smoothing: 0.0,
                    },
                    student: OnPolicy {
                        rollout,
                        stop_ids: material.student.stop_ids,
                        batch: preparation.config.eval.batch,
                    },
                    form,
                    teacher: live,
                    chosen,
                    data: material.examples,
                    corpus: material.corpus,
                }) as Box<dyn Method>
            }))
        }
    }
}

/// The released code's form, on the data's text.
fn token_form(
    settings: &Dpkd,
    form: &DpkdToken,
    teacher: Teacher,
    examples: Vec<Example>,
) -> PositionWise {
    let (beta, label_smoothing) = (settings.beta, 0.0);
    let ce_weight = form.ce_weight;
    PositionWise {
        teacher: Some(teacher),
        examples,
        objective: Box::new(move |batch| {
            Box::new(DpkdTokenLoss {
                beta,
                label_smoothing,
                ce_weight,
                targets: Arc::from(&batch.target_ids[..]),
            })
        }),
        terms: &["preference", "cross_entropy", "agreement"],
    }
}

/// The paper's form.
struct SequenceForm {
    loss: PreferenceLoss,
    form: DpkdSequence,
    /// How the student answers.
    student: OnPolicy,
    teacher: Teacher,
    /// The teacher's sample of each prompt.
    chosen: Vec<Example>,
    data: Vec<Example>,
    corpus: Vec<Example>,
}

/// Sums over the pairs of a step.
#[derive(Default)]
struct PairTotals {
    loss: f64,
    margin: f64,
    chosen_reward: f64,
    rejected_reward: f64,
    accuracy: f64,
    lm: f64,
}

impl PairTotals {
    fn add(&mut self, value: &PreferenceValue) {
        self.loss += value.loss;
        self.margin += value.margin;
        self.chosen_reward += value.chosen_reward;
        self.rejected_reward += value.rejected_reward;
        self.accuracy += f64::from(u8::from(value.margin > 0.0));
    }
}

impl SequenceForm {
    /// The gradient of one micro-batch of pairs, packed as chosen, rejected, chosen, rejected, …
    fn pairs_pass(
        &self,
        student: &Llama,
        batch: &PackedBatch,
        pairs: usize,
        lm_weight: f64,
        totals: &mut PairTotals,
        work: &mut Work,
    ) -> Result<()> {
        let teacher = work.phases.time("teacher", || self.teacher.head(batch));
        let hidden = work.phases.time("student_forward", || {
            embedding(student.hidden(tokens(batch)), &batch.predict)
        });
        let logprobs: Vec<[f64; 2]> = work.phases.time("head", || {
            let (plain, head) = (hidden.clone().inner(), student.head().inner());
            head_rows(
                plain,
                head,
                Some(&teacher),
                self.teacher.vocabulary,
                |row, s, t| {
                    let target = batch.target_ids[row] as usize;
                    let logprob = |z: &[f32]| f64::from(z[target] - log_sum_exp(z));
                    [logprob(s), t.map_or(f64::NAN, |t| logprob(t))]
                },
            )
        });
        let mut weights = vec![0.0f32; batch.predict.len()];
        for pair in batch.response_ranges.chunks_exact(2) {
            let (chosen, rejected) = (pair[0].clone(), pair[1].clone());
            let sum = |range: &std::ops::Range<usize>, model: usize| -> f64 {
                logprobs[range.clone()].iter().map(|both| both[model]).sum()
            };
            let value = self.loss.value(&Pair {
                student_chosen: sum(&chosen, 0),
                teacher_chosen: sum(&chosen, 1),
                chosen_tokens: chosen.len(),
                student_rejected: sum(&rejected, 0),
                teacher_rejected: sum(&rejected, 1),
                rejected_tokens: rejected.len(),
            });
            if !value.loss.is_finite() {
                return Err(Error::NotFinite {
                    step: work.step,
                    term: "the preference loss".into(),
                    rows: batch.rows.clone(),
                });
            }
            totals.add(&value);
            totals.lm -= sum(&chosen, 0);
            // d L / d log q of each token, as the weight of its −log q.
            let pairs = pairs as f64;
            weights[chosen].fill((-value.d_chosen / pairs + lm_weight) as f32);
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
            vocabulary: self.teacher.vocabulary,
        };
        forward.backward(None, &objective, 1.0, work)?;
        Ok(())
    }

    /// The language-modelling term where it is not on the teacher's samples: as many texts as the
    /// step has rows, in an order of their own.
    fn lm_pass(&self, student: &Llama, rows: &[usize], work: &mut Work) -> Result<(f64, usize)> {
        let source = match self.form.lm_source {
            LmSource::Data => &self.data,
            LmSource::Corpus => &self.corpus,
            LmSource::Teacher => return Ok((0.0, 0)),
        };
        lm_pass(student, source, rows.len(), self.form.lm_weight, work)
    }
}

impl Method for SequenceForm {
    fn rows(&self) -> usize {
        self.chosen.len()
    }

    fn data_row(&self, row: usize) -> usize {
        self.chosen[row].row
    }

    fn step(&mut self, student: &Llama, rows: &[usize], work: &mut Work) -> Result<StepReport> {
        let asks: Vec<Ask> = rows
            .iter()
            .map(|&row| Ask {
                prompt: &self.chosen[row].prompt,
                stream: row as u64,
                row: self.chosen[row].row,
            })
            .collect();
        let answers = self.student.answer(student, &asks, work)?;
        let eos_rate = answers.eos_rate();
        let rejected = answers.examples;
        let chosen: Vec<&Example> = rows.iter().map(|&row| &self.chosen[row]).collect();
        let chosen_tokens: usize = chosen.iter().map(|e| predicted(e)).sum();
        let rejected_tokens: usize = rejected.iter().map(predicted).sum();
        let on_teacher = self.form.lm_source == LmSource::Teacher;
        let lm_weight = match on_teacher {
            true => self.form.lm_weight / chosen_tokens.max(1) as f64,
            false => 0.0,
        };
        let lengths: Vec<usize> = chosen
            .iter()
            .zip(&rejected)
            .map(|(c, r)| c.len() + r.len())
            .collect();
        let mut totals = PairTotals::default();
        for range in micro_batches(&lengths, work.micro_batch_tokens) {
            let pairs: Vec<&Example> = range.flat_map(|i| [chosen[i], &rejected[i]]).collect();
            self.pairs_pass(
                student,
                &pack(&pairs),
                rows.len(),
                lm_weight,
                &mut totals,
                work,
            )?;
        }
        let (mut lm, mut lm_tokens) = (totals.lm / chosen_tokens.max(1) as f64, 0);
        if !on_teacher {
            (lm, lm_tokens) = self.lm_pass(student, rows, work)?;
        }
        let pairs = rows.len().max(1) as f64;
        Ok(StepReport {
            loss: totals.loss / pairs + self.form.lm_weight * lm,
            terms: vec![
                ("preference", totals.loss / pairs),
                ("language_modelling", lm),
                ("margin", totals.margin / pairs),
                ("reward_chosen", totals.chosen_reward / pairs),
                ("reward_rejected", totals.rejected_reward / pairs),
                ("preference_accuracy", totals.accuracy / pairs),
                ("chosen_tokens", chosen_tokens as f64 / pairs),
                ("rejected_tokens", rejected_tokens as f64 / pairs),
                ("rejected_eos_rate", eos_rate),
            ],
            tokens: chosen_tokens + rejected_tokens + lm_tokens,
        })
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::config::{PreferenceKind, Reference, Rollout, Sampling, TokenLoss};

    pub(in crate::method) fn sequence_form(
        teacher: Teacher,
        chosen: Vec<Example>,
    ) -> Box<dyn Method> {
        let rollout = Rollout {
            max_new_tokens: 6,
            sampling: Sampling {
                temperature: 1.0,
                top_k: 0,
                top_p: 1.0,
            },
        };
        Box::new(SequenceForm {
            loss: PreferenceLoss {
                beta: 0.5,
                length_normalize: true,
                label_smoothing: 0.0,
            },
            form: DpkdSequence {
                loss: PreferenceKind::Dpkd {
                    reference: Reference::Teacher,
                    label_smoothing: 0.0,
                },
                pairs: Pairs::Samples(rollout),
                length_normalize: true,
                lm_weight: 0.5,
                lm_source: LmSource::Teacher,
            },
            student: OnPolicy {
                rollout,
                stop_ids: vec![0],
                batch: 4,
            },
            teacher,
            chosen,
            data: Vec::new(),
            corpus: Vec::new(),
        })
    }

    pub(in crate::method) fn token_form(
        teacher: Teacher,
        examples: Vec<Example>,
    ) -> Box<dyn Method> {
        let form = DpkdToken {
            loss: TokenLoss::Dpkd {
                label_smoothing: 0.0,
            },
            reference: Reference::Teacher,
            ce_weight: 0.5,
            corpus_weight: 0.0,
        };
        let settings = Dpkd {
            beta: 0.5,
            form: DpkdForm::Token(form.clone()),
        };
        Box::new(super::token_form(&settings, &form, teacher, examples))
    }
}
