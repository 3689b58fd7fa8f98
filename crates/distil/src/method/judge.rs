//! The order of a pair of the teacher's and the student's sample, as `method.judge` says:
//! P(the first is preferred) = σ((score₁ − score₂)/noise), or the higher score without noise. Equal
//! scores without noise are no verdict.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use distil_model::Tokenizer;

use super::Material;
use crate::config::{JudgeKind, JudgeSettings};
use crate::error::Result;
use crate::eval::rouge::{Stemming, rouge_l_best};
use crate::objective::sigmoid;

/// Orders pairs.
pub(super) struct Judge {
    kind: JudgeKind,
    noise: f64,
    seed: u64,
    /// For judges that read: how ids become text, and each prompt's good answers.
    reader: Option<(Tokenizer, Vec<Vec<String>>)>,
}

impl Judge {
    pub(super) fn new(settings: &JudgeSettings, material: &Material, seed: u64) -> Self {
        let reads = settings.judge == JudgeKind::RougeL;
        let references = || material.prompts.iter().map(|p| p.references.clone());
        Self {
            kind: settings.judge,
            noise: settings.judge_noise,
            seed,
            reader: reads.then(|| (material.student.tokenizer.clone(), references().collect())),
        }
    }

    /// The teacher's sample is always preferred.
    #[cfg(test)]
    pub(super) fn teacher() -> Self {
        Self {
            kind: JudgeKind::Teacher,
            noise: 0.0,
            seed: 0,
            reader: None,
        }
    }

    pub(super) fn needs_likelihood(&self) -> bool {
        self.kind == JudgeKind::TeacherLikelihood
    }

    /// 1 if the first of `responses` to prompt `row` is preferred, −1 if the second, 0 for neither.
    /// `likelihood` is the teacher's mean log-probability of a token.
    pub(super) fn verdict(
        &self,
        row: usize,
        step: usize,
        responses: [&[u32]; 2],
        likelihood: [f64; 2],
    ) -> Result<f64> {
        let scores = match (self.kind, &self.reader) {
            (JudgeKind::RougeL, Some((tokenizer, references))) => {
                let score = |ids: &[u32]| -> Result<f64> {
                    let text = tokenizer.decode(ids, true)?;
                    Ok(rouge_l_best(&references[row], &text, Stemming::Porter).fmeasure)
                };
                [score(responses[0])?, score(responses[1])?]
            }
            (JudgeKind::TeacherLikelihood, _) => likelihood,
            _ => [1.0, 0.0],
        };
        let difference = scores[0] - scores[1];
        if self.noise == 0.0 {
            return Ok(match difference == 0.0 {
                true => 0.0,
                false => difference.signum(),
            });
        }
        let first = self.uniform(row, step) < sigmoid(difference / self.noise);
        Ok(if first { 1.0 } else { -1.0 })
    }

    /// A number in [0, 1) for this row and step.
    fn uniform(&self, row: usize, step: usize) -> f64 {
        let mut key = [0_u8; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..16].copy_from_slice(&(row as u64).to_le_bytes());
        key[16..24].copy_from_slice(&(step as u64).to_le_bytes());
        key[24..].copy_from_slice(b"verdicts");
        let mut random = ChaCha8Rng::from_seed(key);
        (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}
