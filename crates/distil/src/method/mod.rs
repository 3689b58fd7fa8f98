//! One file a method, each beginning with its formula and paper, each composing where responses
//! come from, what the teacher says of them, and an objective.
//!
//! A method turns one optimiser step's rows into a gradient. The training loop knows no more of it.

pub mod about;
mod distillm;
mod dpkd;
mod gkd;
mod judge;
mod kd;
mod kept_samples;
mod kept_states;
mod language_modelling;
mod llmr;
mod minillm;
mod mm_pbkd;
pub(crate) mod network_file;
mod pair_set;
pub(crate) mod pass;
mod pbkd;
mod preference_pass;
mod sampled;
mod seqkd;
mod sft;
#[cfg(test)]
mod tests;
mod watched;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use distil_model::{Llama, Model};

pub(crate) use pbkd::MEASURED as MEASURED_PAIRS;

use crate::config::{Config, LmSource, Method as Choice, Rollout};
use crate::data::example::{Example, PairExample, PromptExample};
use crate::error::Result;
use crate::event::Event;
use crate::rollout::on_policy::{OnPolicy, Policy};
use crate::step::Work;
use crate::teacher::TeacherModel;

/// What a run has to work with.
pub struct Material {
    /// The teacher, if there is one; its weights are read when they are asked for, and freed with
    /// this unless a method keeps what it got.
    pub teacher: Option<TeacherModel>,
    /// The student as it starts; its tokenizer is used throughout.
    pub student: Model,
    /// Leading ids that both models share.
    pub vocabulary: usize,
    /// Training rows with a response; empty for methods that only need prompts.
    pub examples: Vec<Example>,
    /// Training rows' prompts; empty for methods that learn from the rows' responses.
    pub prompts: Vec<PromptExample>,
    /// The prompts in other templates, for methods whose teacher reads them so.
    pub teacher_prompts: Vec<Vec<PromptExample>>,
    /// Training rows with a preferred and a rejected response, for methods that read such rows.
    pub pairs: Vec<PairExample>,
    /// Text for a language-modelling term.
    pub corpus: Vec<Example>,
}

/// What a step reports.
#[derive(Clone, Debug, Default)]
pub struct StepReport {
    /// The loss that was differentiated.
    pub loss: f64,
    /// Its terms and the method's diagnostics, by name.
    pub terms: Vec<(&'static str, f64)>,
    /// Response tokens that were trained on.
    pub tokens: usize,
}

/// A way to make a gradient of rows.
pub trait Method {
    /// Number of rows an epoch goes over.
    fn rows(&self) -> usize;

    /// The row of the data set that one of these rows was made of, for messages.
    fn data_row(&self, row: usize) -> usize;

    /// Adds the gradient of the loss over `rows` to `work.gradients`. `student` is tracked.
    ///
    /// # Errors
    /// The loss is not finite.
    fn step(&mut self, student: &Llama, rows: &[usize], work: &mut Work) -> Result<StepReport>;

    /// Writes what the method must know to go on into a checkpoint's folder. Random streams and the
    /// order of rows are functions of seed and step; most methods have nothing else.
    ///
    /// # Errors
    /// The folder cannot be written.
    fn save(&self, _folder: &Path) -> Result<()> {
        Ok(())
    }

    /// Reads what [`Method::save`] wrote.
    ///
    /// # Errors
    /// A file is missing or damaged.
    fn load(&mut self, _folder: &Path) -> Result<()> {
        Ok(())
    }

    /// Hears the metrics of every evaluation, the first before the first step.
    fn evaluated(&mut self, _metrics: &[(String, f64)]) {}
}

/// What a method may need before its first step.
pub(crate) struct Preparation<'a> {
    pub(crate) config: &'a Config,
    /// The run's folder.
    pub(crate) folder: &'a Path,
    pub(crate) interrupt: &'a AtomicBool,
    pub(crate) events: &'a mut dyn FnMut(Event<'_>),
}

impl Preparation<'_> {
    /// How the student answers during training.
    pub(crate) fn student(&self, material: &Material, rollout: &Rollout) -> Policy {
        Policy {
            how: OnPolicy {
                rollout: *rollout,
                stop_ids: material.student.stop_ids.clone(),
                batch: self.config.eval.batch,
            },
            precision: self.config.student.sampling_precision.into(),
        }
    }
}

/// Makes the configured method ready. `None` if the user interrupted it; what was generated is kept.
pub(crate) fn prepare(
    mut material: Material,
    preparation: &mut Preparation<'_>,
) -> Result<Option<Box<dyn Method>>> {
    Ok(match &preparation.config.method {
        Choice::Sft => Some(Box::new(sft::method(material.examples))),
        Choice::Kd(settings) => kd::prepare(settings.clone(), material, preparation)?,
        Choice::SeqKd(settings) => seqkd::prepare(settings.clone(), material, preparation)?,
        Choice::Gkd(settings) => {
            let student = preparation.student(&material, &settings.rollout);
            let examples = std::mem::take(&mut material.examples);
            let teacher = kept_states::teacher(&mut material, &examples, preparation)?;
            let Some(teacher) = teacher else {
                return Ok(None);
            };
            Some(Box::new(gkd::method(settings, teacher, student, examples)))
        }
        Choice::DistiLlm(settings) => {
            let student = preparation.student(&material, &settings.rollout);
            let examples = std::mem::take(&mut material.examples);
            let teacher = kept_states::teacher(&mut material, &examples, preparation)?;
            let Some(teacher) = teacher else {
                return Ok(None);
            };
            let settings = settings.clone();
            Some(Box::new(distillm::method(
                settings, teacher, student, examples,
            )))
        }
        Choice::MiniLlm(settings) => Some(Box::new(minillm::MiniLlmMethod {
            settings: settings.clone(),
            teacher: kd::live_teacher(&mut material)?,
            student: preparation.student(&material, &settings.rollout),
            prompts: material.prompts,
            texts: match settings.lm_source {
                LmSource::Corpus => material.corpus,
                _ => material.examples,
            },
        })),
        Choice::Llmr(settings) => Some(Box::new(llmr::LlmrMethod {
            settings: settings.clone(),
            teacher: kd::live_teacher(&mut material)?,
            student: preparation.student(&material, &settings.rollout),
            prompts: material.prompts,
            templates: material.teacher_prompts,
            model: (settings.sync_every > 1).then_some(material.student),
            behaviour: None,
        })),
        Choice::Dpkd(settings) => dpkd::prepare(settings.clone(), material, preparation)?,
        Choice::MmPbkd(settings) => mm_pbkd::prepare(settings.clone(), material, preparation)?,
        Choice::Pbkd(settings) => pbkd::prepare(settings.clone(), material, preparation)?,
    })
}
