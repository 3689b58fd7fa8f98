//! The order of a pair of the teacher's and the student's sample, as `method.judge` says:
//! P(the first is preferred) = σ((score₁ − score₂)/noise), or the higher score without noise. Equal
//! scores without noise are no verdict.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use distil_model::Tokenizer;

use super::Material;
use crate::config::{JudgeKind, JudgeSettings};
use crate::error::{Error, Result};
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
    /// # Errors
    /// The judge compares with references and no prompt has one.
    pub(super) fn new(settings: &JudgeSettings, material: &Material, seed: u64) -> Result<Self> {
        let reads = settings.judge == JudgeKind::RougeL;
        let references: Vec<Vec<String>> = material
            .prompts
            .iter()
            .map(|prompt| prompt.references.clone())
            .collect();
        if reads && references.iter().all(Vec::is_empty) {
            return Err(Error::Mismatch {
                what: "method.judge = \"rouge_l\" compares with the data's responses, and no row \
                       has one"
                    .into(),
                fix: "give the rows responses, or choose judge = \"teacher_likelihood\"".into(),
            });
        }
        Ok(Self {
            kind: settings.judge,
            noise: settings.judge_noise,
            seed,
            reader: reads.then(|| (material.student.tokenizer.clone(), references)),
        })
    }

    /// A judge that needs no references: of likelihood, or the teacher itself.
    pub(super) fn without_references(kind: JudgeKind, noise: f64, seed: u64) -> Self {
        Self {
            kind,
            noise,
            seed,
            reader: None,
        }
    }

    /// The teacher's sample is always preferred.
    pub(super) fn teacher() -> Self {
        Self::without_references(JudgeKind::Teacher, 0.0, 0)
    }

    pub(super) fn needs_likelihood(&self) -> bool {
        self.kind == JudgeKind::TeacherLikelihood
    }

    /// 1 if the first of `responses` to prompt `row` is preferred, −1 if the second, 0 for neither:
    /// the same text twice, equal scores without noise, or no reference to compare with.
    /// `likelihood` is the teacher's mean log-probability of a token.
    ///
    /// Every score is of one response alone, so the order of the two does not matter.
    pub(super) fn verdict(
        &self,
        row: usize,
        step: usize,
        responses: [&[u32]; 2],
        likelihood: [f64; 2],
    ) -> Result<f64> {
        let unknown = |(_, references): &(Tokenizer, Vec<Vec<String>>)| references[row].is_empty();
        if responses[0] == responses[1] || self.reader.as_ref().is_some_and(unknown) {
            return Ok(0.0);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(kind: JudgeKind, noise: f64) -> Judge {
        Judge::without_references(kind, noise, 3)
    }

    /// Verdicts turn around with the pair.
    #[test]
    fn the_likelier_response_is_preferred_whichever_stands_first() {
        let judge = judge(JudgeKind::TeacherLikelihood, 0.0);
        let (a, b): (&[u32], &[u32]) = (&[1, 2], &[3]);
        assert!(judge.needs_likelihood());
        assert_eq!(judge.verdict(0, 1, [a, b], [-1.0, -2.0]).unwrap(), 1.0);
        assert_eq!(judge.verdict(0, 1, [b, a], [-2.0, -1.0]).unwrap(), -1.0);
        assert_eq!(judge.verdict(0, 1, [a, b], [-1.0, -1.0]).unwrap(), 0.0);
        assert_eq!(judge.verdict(0, 1, [a, a], [-1.0, -2.0]).unwrap(), 0.0);
    }

    /// The frequency of a noisy judge's verdicts lies in the 99.99 % interval around σ(Δ/noise).
    #[test]
    fn noise_is_that_of_bradley_and_terry() {
        let judge = judge(JudgeKind::TeacherLikelihood, 0.5);
        let (a, b): (&[u32], &[u32]) = (&[1], &[2]);
        for difference in [0.0, 0.4, -1.0] {
            let count = 4000;
            let first = (0..count)
                .filter(|&i| {
                    let verdict = judge.verdict(i % 7, i, [a, b], [difference, 0.0]);
                    verdict.unwrap() > 0.0
                })
                .count();
            let expected = 1.0 / (1.0 + (-difference / 0.5_f64).exp());
            let deviation = (expected * (1.0 - expected) / count as f64).sqrt();
            let share = first as f64 / count as f64;
            assert!(
                (share - expected).abs() < 3.9 * deviation,
                "{difference}: {share}"
            );
        }
        let again = |step| judge.verdict(0, step, [a, b], [0.1, 0.0]).unwrap();
        assert_eq!(again(5), again(5), "one verdict a row and step");
    }

    #[test]
    fn the_teacher_as_judge_prefers_itself() {
        let judge = Judge::teacher();
        assert_eq!(judge.verdict(0, 1, [&[1], &[2]], [0.0; 2]).unwrap(), 1.0);
        assert_eq!(judge.verdict(0, 1, [&[1], &[1]], [0.0; 2]).unwrap(), 0.0);
    }
}
