//! Word-level knowledge distillation (Hinton et al. 2015; Kim & Rush 2016) on the data's text:
//! L = mean over response tokens of (1−s) · T² · D(p_T, q_T) + s · (−log q(y*_t)), with D the
//! forward KL or any other of [`crate::objective::DivergenceLoss`], or the same on samples of the
//! teacher, drawn once and kept.

use std::sync::Arc;

use super::kept_samples::{Whose, kept_samples};
use super::kept_states;
use super::pass::{MakeObjective, PositionWise, Teacher};
use super::{Material, Method, Preparation};
use crate::config::{DivergenceTerm, Kd, Responses, Rollout};
use crate::data::example::Example;
use crate::error::{Error, Result};
use crate::objective::DivergenceLoss;
use crate::teacher::TeacherModel;

/// Names of the objective's terms behind the loss.
pub(crate) const TERMS: &[&str] = &["divergence", "cross_entropy"];

pub(crate) fn prepare(
    settings: Kd,
    mut material: Material,
    preparation: &mut Preparation<'_>,
) -> Result<Option<Box<dyn Method>>> {
    let texts = match &settings.responses {
        Responses::Teacher(rollout) => teacher_samples(&mut material, 1, *rollout, preparation)?,
        Responses::Data => Some(std::mem::take(&mut material.examples)),
    };
    let Some(texts) = texts else { return Ok(None) };
    let teacher = kept_states::teacher(&mut material, &texts, preparation)?;
    Ok(teacher.map(|teacher| Box::new(method(settings.term, teacher, texts)) as Box<dyn Method>))
}

/// A divergence to the teacher.
pub(crate) fn method(
    term: DivergenceTerm,
    teacher: Teacher,
    examples: Vec<Example>,
) -> PositionWise {
    PositionWise {
        teacher: Some(teacher),
        examples,
        objective: objective(term),
        terms: TERMS,
    }
}

/// The divergence's objective for a micro-batch.
pub(crate) fn objective(term: DivergenceTerm) -> Box<MakeObjective> {
    Box::new(move |batch| {
        Box::new(DivergenceLoss {
            term,
            targets: Arc::from(&batch.target_ids[..]),
        })
    })
}

/// The teacher a method cannot do without.
pub(crate) fn teacher_of(material: &mut Material) -> Result<&mut TeacherModel> {
    material.teacher.as_mut().ok_or_else(|| Error::Mismatch {
        what: "this method learns from a teacher and none is set".into(),
        fix: "add [teacher] model = \"…\"".into(),
    })
}

/// The same, read and ready to be asked about anything.
pub(crate) fn live_teacher(material: &mut Material) -> Result<Teacher> {
    let vocabulary = material.vocabulary;
    let network = teacher_of(material)?.network()?.clone();
    Ok(Teacher::live(network, vocabulary))
}

/// Its kept answers to the prompts. `None` if the user interrupted.
pub(crate) fn teacher_samples(
    material: &mut Material,
    per_prompt: usize,
    rollout: Rollout,
    preparation: &mut Preparation<'_>,
) -> Result<Option<Vec<Example>>> {
    let prompts = std::mem::take(&mut material.prompts);
    let whose = Whose::Teacher(teacher_of(material)?);
    let samples = kept_samples(whose, &prompts, per_prompt, rollout, preparation);
    material.prompts = prompts;
    samples
}
