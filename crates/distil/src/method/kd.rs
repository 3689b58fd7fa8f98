//! Word-level knowledge distillation (Hinton et al. 2015; Kim & Rush 2016) on the data's text:
//! L = mean over response tokens of (1−s) · T² · D(p_T, q_T) + s · (−log q(y*_t)), with D the
//! forward KL or any other of [`crate::objective::DivergenceLoss`], or the same on samples of the
//! teacher, drawn once and kept.

use std::sync::Arc;

use super::kept_samples::{Whose, kept_samples};
use super::kept_states;
use super::pass::{MakeObjective, PositionWise, Teacher};
use super::{Material, Method, Preparation};
use crate::config::{DivergenceTerm, Kd, Responses};
use crate::data::example::Example;
use crate::error::{Error, Result};
use crate::objective::DivergenceLoss;

/// Names of the objective's terms behind the loss.
pub(crate) const TERMS: &[&str] = &["divergence", "cross_entropy"];

pub(crate) fn prepare(
    settings: Kd,
    material: Material,
    preparation: &mut Preparation<'_>,
) -> Result<Option<Box<dyn Method>>> {
    let mut teacher = teacher(&material)?;
    let texts = match (&settings.responses, &material.teacher) {
        (Responses::Teacher(rollout), Some(model)) => {
            let prompts = &material.prompts;
            kept_samples(Whose::Teacher, model, prompts, 1, *rollout, preparation)?
        }
        _ => Some(material.examples),
    };
    let Some(texts) = texts else { return Ok(None) };
    if !kept_states::attach(&mut teacher, &texts, preparation)? {
        return Ok(None);
    }
    Ok(Some(Box::new(method(settings.term, teacher, texts))))
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
pub(crate) fn teacher(material: &Material) -> Result<Teacher> {
    match &material.teacher {
        Some(teacher) => Ok(Teacher {
            network: teacher.network.clone(),
            vocabulary: material.vocabulary,
            states: None,
        }),
        None => Err(Error::Mismatch {
            what: "this method learns from a teacher and none is set".into(),
            fix: "add [teacher] model = \"…\"".into(),
        }),
    }
}
