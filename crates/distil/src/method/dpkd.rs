//! Direct preference knowledge distillation (Li, Gu, Dong, Wang, Cheng, Wei 2024, arXiv 2406.19774)
//! and its relatives.
//!
//! Sequence form, Algorithm 1 with eq. 9: for each prompt the teacher's sample y_t (drawn once) is
//! preferred over a fresh sample y_s of the student, with the teacher p as reference model:
//!   L = − log σ( β/|y_t| · log q(y_t)/p(y_t) − β/|y_s| · log q(y_s)/p(y_s) ) + λ · L_lm,
//! a mean over pairs plus λ times the cross-entropy, a mean over tokens, of the language-modelling
//! source. No gradient goes through sampling. The loss may be any other of
//! [`crate::objective::PreferenceLoss`], the pairs the data's own.
//!
//! Token form, as the released code computes it: see [`crate::objective::DpkdTokenLoss`]; with
//! `corpus_weight` c and ce_share w, plus c · [w · CE(corpus) + (1−w) · KL(p‖q)(corpus)]. (The code
//! has the cross-entropy to p instead of the KL: the same gradient, and a value larger by p's
//! entropy.)

use std::sync::Arc;

use distil_model::Llama;

use super::kd::{self, live_teacher, teacher_samples};
use super::kept_states;
use super::language_modelling::{lm_pass, texts_of_step};
use super::pass::{MakeObjective, Teacher, Texts, predicted, token_pass};
use super::preference_pass::{Models, preference_pass};
use super::{Material, Method, Preparation, StepReport};
use crate::config::{
    Divergence, DivergenceTerm, Dpkd, DpkdForm, DpkdSequence, DpkdToken, LmSource, Pairs,
};
use crate::data::example::{Example, PairExample};
use crate::error::Result;
use crate::objective::look::{on_given_text, on_own_samples};
use crate::objective::{DpkdTokenLoss, PreferenceLoss};
use crate::rollout::on_policy::{Ask, Policy};
use crate::step::Work;

pub(crate) fn prepare(
    settings: Dpkd,
    mut material: Material,
    preparation: &mut Preparation<'_>,
) -> Result<Option<Box<dyn Method>>> {
    let form = match settings.form {
        DpkdForm::Token(form) => {
            let data = std::mem::take(&mut material.examples);
            let teacher = kept_states::teacher(&mut material, &data, preparation)?;
            let method = |teacher| {
                let method = token_form(settings.beta, form, teacher, data, material.corpus);
                Box::new(method) as Box<dyn Method>
            };
            return Ok(teacher.map(method));
        }
        DpkdForm::Sequence(form) => form,
    };
    let source = match &form.pairs {
        // Sampled pairs are drawn by the teacher even where the loss has no reference.
        Pairs::Samples(rollout) => {
            let samples = teacher_samples(&mut material, 1, *rollout, preparation)?;
            let Some(chosen) = samples else {
                return Ok(None);
            };
            Source::Samples {
                chosen,
                student: preparation.student(&material, rollout),
            }
        }
        Pairs::Data => Source::Data(std::mem::take(&mut material.pairs)),
    };
    let reference = match form.loss.needs_reference() {
        true => Some(live_teacher(&mut material)?),
        false => None,
    };
    Ok(Some(Box::new(SequenceForm {
        loss: PreferenceLoss {
            kind: form.loss,
            beta: settings.beta,
            length_normalize: form.length_normalize,
        },
        texts: match form.lm_source {
            LmSource::Data => material.examples,
            LmSource::Corpus => material.corpus,
            LmSource::Teacher => Vec::new(),
        },
        form,
        vocabulary: material.vocabulary,
        reference,
        source,
    })))
}

/// The released code's form, on the data's text.
fn token_form(
    beta: f64,
    form: DpkdToken,
    teacher: Teacher,
    examples: Vec<Example>,
    corpus: Vec<Example>,
) -> TokenForm {
    let (loss, reference, ce_share) = (form.loss, form.reference, form.ce_share);
    TokenForm {
        objective: Box::new(move |batch| {
            Box::new(DpkdTokenLoss {
                beta,
                loss,
                reference,
                ce_share,
                targets: Arc::from(&batch.target_ids[..]),
            })
        }),
        on_corpus: kd::objective(DivergenceTerm {
            divergence: Divergence::ForwardKl,
            divergence_temperature: 1.0,
            ce_share,
        }),
        form,
        teacher,
        examples,
        corpus,
    }
}

/// The released code's form.
struct TokenForm {
    objective: Box<MakeObjective>,
    on_corpus: Box<MakeObjective>,
    form: DpkdToken,
    teacher: Teacher,
    examples: Vec<Example>,
    corpus: Vec<Example>,
}

impl Method for TokenForm {
    fn rows(&self) -> usize {
        self.examples.len()
    }

    fn data_row(&self, row: usize) -> usize {
        self.examples[row].row
    }

    fn step(&mut self, student: &Llama, rows: &[usize], work: &mut Work) -> Result<StepReport> {
        let data: Vec<&Example> = rows.iter().map(|&row| &self.examples[row]).collect();
        let teacher = Some(&self.teacher);
        let on_data = Texts::training(&data, rows);
        let totals = token_pass(student, teacher, on_data, 1.0, &self.objective, work)?;
        let mut report = StepReport {
            loss: totals.mean(0),
            terms: vec![
                ("preference", totals.mean(1)),
                ("cross_entropy", totals.mean(2)),
                ("agreement", totals.mean(3)),
            ],
            tokens: totals.tokens,
        };
        report.terms.extend(on_given_text(&totals.looks));
        work.logit_gradient("preference", totals.terms.squares[1]);
        work.logit_gradient("cross_entropy", totals.terms.squares[2]);
        let weight = self.form.corpus_weight;
        let texts = texts_of_step(&self.corpus, rows.len(), work);
        if weight > 0.0 && !texts.is_empty() {
            let texts = Texts::fresh(&texts);
            let totals = token_pass(student, teacher, texts, weight, &self.on_corpus, work)?;
            report.loss += weight * totals.mean(0);
            report.tokens += totals.tokens;
            report.terms.push(("corpus", totals.mean(0)));
            let [_, divergence, cross_entropy, _] = totals.terms.squares;
            work.logit_gradient("corpus", divergence + cross_entropy);
        }
        Ok(report)
    }
}

/// Where a step's pairs come from.
enum Source {
    /// The teacher's sample of each prompt, against a fresh one of the student.
    Samples {
        chosen: Vec<Example>,
        student: Policy,
    },
    /// The data's own.
    Data(Vec<PairExample>),
}

/// The paper's form.
struct SequenceForm {
    loss: PreferenceLoss,
    form: DpkdSequence,
    /// Leading ids that student and teacher share.
    vocabulary: usize,
    /// The reference model, if the loss has one.
    reference: Option<Teacher>,
    source: Source,
    /// Texts of the language-modelling term where it is not on the chosen responses.
    texts: Vec<Example>,
}

impl SequenceForm {
    fn chosen(&self, row: usize) -> &Example {
        match &self.source {
            Source::Samples { chosen, .. } => &chosen[row],
            Source::Data(pairs) => &pairs[row].chosen,
        }
    }

    /// What stands against the chosen responses of `rows`, and what there is to say of it.
    #[allow(clippy::type_complexity)]
    fn rejected(
        &self,
        student: &Llama,
        rows: &[usize],
        work: &mut Work,
    ) -> Result<(Vec<Example>, Vec<(&'static str, f64)>)> {
        match &self.source {
            Source::Samples {
                chosen,
                student: sampler,
            } => {
                let ask = |&row: &usize| Ask {
                    prompt: &chosen[row].prompt,
                    stream: row as u64,
                    row: chosen[row].row,
                };
                let asks: Vec<Ask> = rows.iter().map(ask).collect();
                let answers = sampler.answer(student, &asks, work)?;
                let diagnostics = answers.diagnostics();
                Ok((answers.examples, diagnostics))
            }
            Source::Data(pairs) => {
                let rejected = rows.iter().map(|&row| pairs[row].rejected.clone());
                Ok((rejected.collect(), Vec::new()))
            }
        }
    }
}

impl Method for SequenceForm {
    fn rows(&self) -> usize {
        match &self.source {
            Source::Samples { chosen, .. } => chosen.len(),
            Source::Data(pairs) => pairs.len(),
        }
    }

    fn data_row(&self, row: usize) -> usize {
        self.chosen(row).row
    }

    fn step(&mut self, student: &Llama, rows: &[usize], work: &mut Work) -> Result<StepReport> {
        let (rejected, diagnostics) = self.rejected(student, rows, work)?;
        let chosen: Vec<&Example> = rows.iter().map(|&row| self.chosen(row)).collect();
        let chosen_tokens: usize = chosen.iter().map(|e| predicted(e)).sum();
        let rejected_tokens: usize = rejected.iter().map(predicted).sum();
        let on_chosen = self.form.lm_source == LmSource::Teacher;
        let lm_weight = match on_chosen {
            true => self.form.lm_weight / chosen_tokens.max(1) as f64,
            false => 0.0,
        };
        let pairs: Vec<(&Example, &Example)> = chosen.into_iter().zip(&rejected).collect();
        let reference = self.reference.as_ref();
        let models = Models {
            student,
            reference,
            vocabulary: self.vocabulary,
        };
        let totals = preference_pass(models, &self.loss, &pairs, lm_weight, work)?;
        let (mut lm, mut lm_tokens) = (totals.lm / chosen_tokens.max(1) as f64, 0);
        if !on_chosen {
            let weight = self.form.lm_weight;
            (lm, lm_tokens) = lm_pass(student, &self.texts, rows.len(), weight, work)?;
        }
        let count = rows.len().max(1) as f64;
        let mut terms = totals.terms(rows.len(), reference.is_some());
        terms.extend(match &self.source {
            Source::Samples { student, .. } => on_own_samples(&totals.looks, student.is_plain()),
            Source::Data(_) => on_given_text(&totals.looks),
        });
        terms.push(("language_modelling", lm));
        terms.push(("chosen_tokens", chosen_tokens as f64 / count));
        terms.push(("rejected_tokens", rejected_tokens as f64 / count));
        terms.extend(diagnostics);
        Ok(StepReport {
            loss: totals.loss / count + self.form.lm_weight * lm,
            terms,
            tokens: chosen_tokens + rejected_tokens + lm_tokens,
        })
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub(in crate::method) fn sequence_form(
        form: DpkdSequence,
        beta: f64,
        teacher: Teacher,
        student: Policy,
        chosen: Vec<Example>,
    ) -> Box<dyn Method> {
        let texts = chosen.iter().rev().cloned().collect();
        let source = match form.pairs {
            Pairs::Samples(_) => Source::Samples { chosen, student },
            // The shortest of the responses is preferred to the others.
            Pairs::Data => {
                let rejected = chosen.iter().cycle().skip(1);
                let pair = |(chosen, rejected): (&Example, &Example)| PairExample {
                    chosen: chosen.clone(),
                    rejected: Example {
                        response: rejected.response.clone(),
                        ..chosen.clone()
                    },
                };
                Source::Data(chosen.iter().zip(rejected).map(pair).collect())
            }
        };
        Box::new(SequenceForm {
            loss: PreferenceLoss {
                kind: form.loss,
                beta,
                length_normalize: form.length_normalize,
            },
            reference: form.loss.needs_reference().then_some(teacher),
            texts: match form.lm_source {
                LmSource::Teacher => Vec::new(),
                LmSource::Data | LmSource::Corpus => texts,
            },
            form,
            vocabulary: 24,
            source,
        })
    }

    pub(in crate::method) fn token_form(
        form: DpkdToken,
        beta: f64,
        teacher: Teacher,
        examples: Vec<Example>,
    ) -> Box<dyn Method> {
        let corpus = examples.iter().rev().cloned().collect();
        Box::new(super::token_form(beta, form, teacher, examples, corpus))
    }
}
