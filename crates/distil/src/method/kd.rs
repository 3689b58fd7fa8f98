//! Word-level knowledge distillation (Hinton et al. 2015; Kim & Rush 2016) on the data's text:
//! L = mean over response tokens of (1−s) · T² · KL(p_T‖q_T) + s · (−log q(y*_t)).

use std::sync::Arc;

use distil_model::Llama;

use super::pass::{Teacher, token_pass};
use super::{Material, Method, StepReport, Work};
use crate::config;
use crate::data::batch::PackedBatch;
use crate::data::example::Example;
use crate::error::{Error, Result};
use crate::objective::ForwardKl;

/// Forward KL to a live teacher.
pub(crate) struct Kd {
    pub(super) settings: config::Kd,
    pub(super) teacher: Teacher,
    pub(super) examples: Vec<Example>,
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

impl Kd {
    pub(crate) fn new(settings: config::Kd, material: Material) -> Result<Self> {
        Ok(Self {
            settings,
            teacher: teacher(&material)?,
            examples: material.examples,
        })
    }
}

impl Method for Kd {
    fn rows(&self) -> usize {
        self.examples.len()
    }

    fn step(&self, student: &Llama, rows: &[usize], work: &mut Work) -> Result<StepReport> {
        let examples: Vec<&Example> = rows.iter().map(|&row| &self.examples[row]).collect();
        let objective = |batch: &PackedBatch| {
            Box::new(ForwardKl {
                ce_share: self.settings.ce_share as f32,
                temperature: self.settings.temperature as f32,
                targets: Arc::from(&batch.target_ids[..]),
            }) as Box<_>
        };
        let teacher = Some(&self.teacher);
        let totals = token_pass(student, teacher, &examples, 1.0, &objective, work)?;
        Ok(StepReport {
            loss: totals.mean(0),
            terms: vec![
                ("forward_kl", totals.mean(1)),
                ("cross_entropy", totals.mean(2)),
            ],
            tokens: totals.tokens,
        })
    }
}
