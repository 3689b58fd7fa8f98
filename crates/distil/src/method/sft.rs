//! Supervised fine-tuning: L = − mean over response tokens of log q(y*_t | s_t), y* from the data.

use std::sync::Arc;

use distil_kernels::CrossEntropy;
use distil_model::Llama;

use super::pass::token_pass;
use super::{Material, Method, StepReport, Work};
use crate::data::batch::PackedBatch;
use crate::data::example::Example;
use crate::error::Result;

/// Cross-entropy on given responses.
pub(crate) struct Sft {
    examples: Vec<Example>,
}

impl Sft {
    pub(crate) fn new(material: Material) -> Self {
        Self::on(material.examples)
    }

    /// On any responses: SeqKD is this on the teacher's.
    pub(crate) fn on(examples: Vec<Example>) -> Self {
        Self { examples }
    }
}

/// Maximum likelihood of a batch's targets.
pub(crate) fn cross_entropy(batch: &PackedBatch) -> CrossEntropy {
    CrossEntropy {
        targets: Arc::from(&batch.target_ids[..]),
        weights: None,
    }
}

impl Method for Sft {
    fn rows(&self) -> usize {
        self.examples.len()
    }

    fn step(&self, student: &Llama, rows: &[usize], work: &mut Work) -> Result<StepReport> {
        let examples: Vec<&Example> = rows.iter().map(|&row| &self.examples[row]).collect();
        let objective = |batch: &PackedBatch| Box::new(cross_entropy(batch)) as Box<_>;
        let totals = token_pass(student, None, &examples, 1.0, &objective, work)?;
        Ok(StepReport {
            loss: totals.mean(0),
            terms: vec![("cross_entropy", totals.mean(1))],
            tokens: totals.tokens,
        })
    }
}
