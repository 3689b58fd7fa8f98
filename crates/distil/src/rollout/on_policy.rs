//! Fresh responses of the student in training to the prompts of one optimiser step.

use distil_kernels::Precision;
use distil_model::Llama;

use super::{Finish, Generation, Mixture, Prompt, Response, generate_mixed};
use crate::config::Rollout;
use crate::data::example::Example;
use crate::error::{Error, Result};
use crate::step::Work;

/// How the student answers during training.
#[derive(Clone, Debug)]
pub(crate) struct OnPolicy {
    /// Length limit and distribution.
    pub(crate) rollout: Rollout,
    /// Tokens that end a response.
    pub(crate) stop_ids: Vec<u32>,
    /// Rows generated at once.
    pub(crate) batch: usize,
}

/// The policy that samples: the student, computed in a precision of its own.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// How it answers.
    pub(crate) how: OnPolicy,
    /// Number format of its matrix products, whatever the student is trained in.
    pub(crate) precision: Precision,
}

/// A prompt of the step: its tokens, and the numbers of its random stream and of its data row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) prompt: &'a [u32],
    pub(crate) stream: u64,
    pub(crate) row: usize,
}

/// The student's answers, in the order of the prompts.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    /// Prompt and response, as training takes them.
    pub(crate) examples: Vec<Example>,
    /// Log-probability of each token under the distribution it was drawn from, in nats.
    pub(crate) logprobs: Vec<Vec<f32>>,
    /// Whether each response ended with a stop token.
    pub(crate) finished: Vec<bool>,
}

impl Policy {
    /// As [`OnPolicy::answer`].
    pub(crate) fn answer(
        &self,
        student: &Llama,
        asks: &[Ask<'_>],
        work: &mut Work,
    ) -> Result<Answers> {
        self.how.answer(&self.of(student), asks, work)
    }

    /// As [`OnPolicy::answer_mixed`].
    pub(crate) fn answer_mixed(
        &self,
        student: &Llama,
        mixture: Mixture<'_>,
        asks: &[Ask<'_>],
        work: &mut Work,
    ) -> Result<Answers> {
        let student = self.of(student);
        self.how.answer_mixed(&student, mixture, asks, work)
    }

    /// Whether tokens are drawn from the student's own distribution, its precision left aside.
    pub(crate) fn is_plain(&self) -> bool {
        self.how.rollout.sampling.is_plain()
    }

    /// The network that samples.
    fn of(&self, student: &Llama) -> Llama {
        student.clone().in_precision(self.precision)
    }
}

impl OnPolicy {
    /// One response of `network` to each prompt. They depend on the run's seed, the step, and each
    /// prompt's stream.
    pub(crate) fn answer(
        &self,
        network: &Llama,
        asks: &[Ask<'_>],
        work: &mut Work,
    ) -> Result<Answers> {
        self.answer_from(network, None, asks, work)
    }

    /// As [`OnPolicy::answer`], drawn from the mixture of student and teacher.
    pub(crate) fn answer_mixed(
        &self,
        network: &Llama,
        mixture: Mixture<'_>,
        asks: &[Ask<'_>],
        work: &mut Work,
    ) -> Result<Answers> {
        self.answer_from(network, Some(mixture), asks, work)
    }

    fn answer_from(
        &self,
        network: &Llama,
        mixture: Option<Mixture<'_>>,
        asks: &[Ask<'_>],
        work: &mut Work,
    ) -> Result<Answers> {
        let prompts: Vec<Prompt> = asks
            .iter()
            .map(|ask| Prompt {
                ids: ask.prompt,
                stream: ask.stream,
            })
            .collect();
        let generation = self.generation(work.seed, work.step);
        let network = network.frozen();
        let stop = &self.stop_ids;
        let responses = work.phases.time("sample", || {
            generate_mixed(
                &network,
                mixture,
                stop,
                &prompts,
                &generation,
                &mut |_, _| {},
            )
        });
        // A student that was an ordinary model when the run began has diverged.
        let responses = responses.map_err(|error| match error {
            Error::Logits => Error::NotFinite {
                step: work.step,
                term: "what the student samples from".into(),
                rows: asks.iter().map(|ask| ask.row).collect(),
            },
            other => other,
        })?;
        Ok(Answers::new(asks, responses))
    }

    /// The settings of a step's generation.
    pub(crate) fn generation(&self, seed: u64, step: usize) -> Generation {
        Generation {
            sampling: self.rollout.sampling,
            max_new_tokens: self.rollout.max_new_tokens,
            // Another stream for every step; the odd factor keeps steps of near seeds apart.
            seed: seed ^ (step as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            batch: self.batch,
        }
    }
}

impl Answers {
    /// Responses beside what was asked.
    pub(crate) fn new(asks: &[Ask<'_>], responses: Vec<Response>) -> Self {
        let mut answers = Self {
            examples: Vec::with_capacity(asks.len()),
            logprobs: Vec::with_capacity(asks.len()),
            finished: Vec::with_capacity(asks.len()),
        };
        for (ask, response) in asks.iter().zip(responses) {
            answers.finished.push(response.finish == Finish::Stop);
            answers.logprobs.push(response.logprobs);
            answers.examples.push(Example {
                prompt: ask.prompt.to_vec(),
                response: response.tokens,
                row: ask.row,
            });
        }
        answers
    }

    /// Share of the responses that ended with a stop token.
    pub(crate) fn eos_rate(&self) -> f64 {
        let ended = self.finished.iter().filter(|&&finished| finished).count();
        ended as f64 / self.finished.len().max(1) as f64
    }

    /// What there is to say of the responses themselves, for `metrics.jsonl`.
    pub(crate) fn diagnostics(&self) -> Vec<(&'static str, f64)> {
        let responses: Vec<&[u32]> = self.examples.iter().map(|e| &e.response[..]).collect();
        let tokens: usize = responses.iter().map(|response| response.len()).sum();
        vec![
            (
                "response_tokens",
                tokens as f64 / responses.len().max(1) as f64,
            ),
            ("eos_rate", self.eos_rate()),
            ("distinct_1", distinct(&responses, 1)),
            ("distinct_2", distinct(&responses, 2)),
        ]
    }
}

/// Different n-grams of tokens over all n-grams, within responses (Li et al. 2016, arXiv
/// 1510.03055); 1 where there is none.
pub(crate) fn distinct(responses: &[&[u32]], n: usize) -> f64 {
    let all = || responses.iter().flat_map(|response| response.windows(n));
    let different: std::collections::HashSet<&[u32]> = all().collect();
    match all().count() {
        0 => 1.0,
        count => different.len() as f64 / count as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_n_grams() {
        let responses: [&[u32]; 2] = [&[1, 2, 1, 2], &[1, 2]];
        assert_eq!(distinct(&responses, 1), 2.0 / 6.0);
        assert_eq!(distinct(&responses, 2), 2.0 / 4.0);
        assert_eq!(distinct(&[&[1]], 2), 1.0);
    }
}
