//! Sequence-level knowledge distillation (Kim & Rush 2016): the teacher answers every prompt once,
//! and the student learns its answers: L = − mean over their tokens of log q(yᵀ_t | s_t).

use super::kd::teacher_samples;
use super::sft;
use super::{Material, Method, Preparation};
use crate::config::SeqKd;
use crate::error::Result;

pub(crate) fn prepare(
    settings: SeqKd,
    mut material: Material,
    preparation: &mut Preparation<'_>,
) -> Result<Option<Box<dyn Method>>> {
    let (each, rollout) = (settings.samples_per_prompt, settings.rollout);
    let samples = teacher_samples(&mut material, each, rollout, preparation)?;
    Ok(samples.map(|samples| Box::new(sft::method(samples)) as Box<dyn Method>))
}
