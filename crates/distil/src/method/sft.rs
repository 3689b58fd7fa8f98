//! Supervised fine-tuning: L = − mean over response tokens of log q(y*_t | s_t), y* from the data.

use std::sync::Arc;

use distil_kernels::{CrossEntropy, RowObjective};

use super::pass::PositionWise;
use crate::data::batch::PackedBatch;
use crate::data::example::Example;

/// Cross-entropy on given responses; SeqKD is this on the teacher's.
pub(crate) fn method(examples: Vec<Example>) -> PositionWise {
    PositionWise {
        teacher: None,
        examples,
        objective: Box::new(cross_entropy),
        terms: &["cross_entropy"],
    }
}

/// Maximum likelihood of a batch's targets.
pub(crate) fn cross_entropy(batch: &PackedBatch) -> Box<dyn RowObjective> {
    Box::new(CrossEntropy {
        targets: Arc::from(&batch.target_ids[..]),
        weights: None,
    })
}
