//! Cross-entropy on texts that are not the step's own rows: the language-modelling term of DPKD and
//! MiniLLM, L_pt.

use distil_model::Llama;

use super::pass::{Texts, token_pass};
use super::sft::cross_entropy;
use crate::data::batch::consecutive;
use crate::data::example::Example;
use crate::error::Result;
use crate::step::Work;

/// `count` texts of the step in an order of their own, epoch after epoch.
pub(crate) fn texts_of_step<'a>(
    texts: &'a [Example],
    count: usize,
    work: &Work,
) -> Vec<&'a Example> {
    let first = (work.step - 1) * work.batch;
    let numbers = consecutive(texts.len(), first, count, work.seed ^ 1);
    numbers.into_iter().map(|i| &texts[i]).collect()
}

/// Adds `weight` times the gradient of the mean cross-entropy of the step's texts; that mean, and
/// its tokens.
pub(crate) fn lm_pass(
    student: &Llama,
    texts: &[Example],
    count: usize,
    weight: f64,
    work: &mut Work,
) -> Result<(f64, usize)> {
    let texts = texts_of_step(texts, count, work);
    if texts.is_empty() || weight == 0.0 {
        return Ok((0.0, 0));
    }
    let totals = token_pass(
        student,
        None,
        Texts::fresh(&texts),
        weight,
        &cross_entropy,
        work,
    )?;
    work.logit_gradient("language_modelling", totals.terms.squares[1]);
    Ok((totals.mean(1), totals.tokens))
}
