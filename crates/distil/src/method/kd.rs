//! Word-level knowledge distillation (Hinton et al. 2015; Kim & Rush 2016) on the data's text:
//! L = mean over response tokens of (1−s) · T² · KL(p_T‖q_T) + s · (−log q(y*_t)).

use std::sync::Arc;

use super::Material;
use super::pass::{PositionWise, Teacher};
use crate::config::Kd;
use crate::data::example::Example;
use crate::error::{Error, Result};
use crate::objective::ForwardKl;

/// Forward KL to a live teacher.
pub(crate) fn method(settings: &Kd, teacher: Teacher, examples: Vec<Example>) -> PositionWise {
    let term = settings.term;
    let ce_share = term.ce_share as f32;
    let temperature = term.divergence_temperature as f32;
    PositionWise {
        teacher: Some(teacher),
        examples,
        objective: Box::new(move |batch| {
            Box::new(ForwardKl {
                ce_share,
                temperature,
                targets: Arc::from(&batch.target_ids[..]),
            })
        }),
        terms: &["forward_kl", "cross_entropy"],
    }
}

/// The teacher a method cannot do without.
pub(crate) fn teacher(material: &Material) -> Result<Teacher> {
    match &material.teacher {
        Some(teacher) => Ok(Teacher {
            network: teacher.network.clone(),
            vocabulary: material.vocabulary,
        }),
        None => Err(Error::Mismatch {
            what: "this method learns from a teacher and none is set".into(),
            fix: "add [teacher] model = \"…\"".into(),
        }),
    }
}
