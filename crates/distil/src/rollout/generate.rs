//! Batched generation: rows share the weights' traffic, each has its own random stream, and a
//! finished row's place is taken by the next prompt.

use std::ops::Range;

use burn::tensor::Tensor;
use distil_kernels::{KvCache, embedding, head_rows};
use distil_model::{Llama, Tokens};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};

use super::sample::{Drawn, draw};
use crate::config::Sampling;
use crate::error::{Error, Result};

/// Why a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// A stop token was drawn.
    Stop,
    /// The length limit or the model's context was reached.
    Length,
}

/// A generated response.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Token ids; the stop token is the last where `finish` is [`Finish::Stop`].
    pub tokens: Vec<u32>,
    /// Log-probability of each token under the distribution it was drawn from, in nats.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// A prompt to answer.
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'a> {
    /// Token ids, at least one.
    pub ids: &'a [u32],
    /// Number of the row's random stream. The sample depends on it and the seed, not on the batch.
    pub stream: u64,
}

/// How to generate.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The distribution; temperature 0 is greedy.
    pub sampling: Sampling,
    /// Longest response, in tokens.
    pub max_new_tokens: usize,
    /// Seed of all streams.
    pub seed: u64,
    /// Rows generated at once.
    pub batch: usize,
}

/// A row in progress.
struct Row {
    prompt: usize,
    random: ChaCha8Rng,
    response: Response,
}

/// Answers every prompt; responses come in the prompts' order, `on_done` in the order they finish.
///
/// # Errors
/// A prompt is empty or leaves no room in the model's context; the model's logits are not numbers.
pub fn generate(
    network: &Llama,
    stop_ids: &[u32],
    prompts: &[Prompt<'_>],
    settings: &Generation,
    on_done: &mut dyn FnMut(usize, &Response),
) -> Result<Vec<Response>> {
    let context = network.config().context;
    let longest = check(prompts, context)?;
    let slots = settings.batch.clamp(1, prompts.len().max(1));
    let capacity = longest.saturating_add(settings.max_new_tokens).min(context);
    let mut responses: Vec<Option<Response>> = prompts.iter().map(|_| None).collect();
    if settings.max_new_tokens == 0 {
        return Ok(prompts.iter().map(|_| empty()).collect());
    }
    let mut sampler = Sampler {
        network,
        head: network.head(),
        cache: network.cache(slots, capacity),
        sampling: &settings.sampling,
    };
    let mut rows: Vec<Option<Row>> = (0..slots).map(|_| None).collect();
    let mut waiting = 0..prompts.len();
    loop {
        let free: Vec<usize> = (0..slots).filter(|&slot| rows[slot].is_none()).collect();
        let fresh: Vec<usize> = free.into_iter().take(waiting.len()).collect();
        for &slot in &fresh {
            let prompt = waiting
                .next()
                .expect("as many prompts wait as slots were taken");
            sampler.cache.clear(slot);
            rows[slot] = Some(Row {
                prompt,
                random: stream(settings.seed, prompts[prompt].stream),
                response: empty(),
            });
        }
        // Prompts are read in one pass of their own; then every row moves on by one token.
        let going = match fresh.is_empty() {
            true => (0..slots).filter(|&slot| rows[slot].is_some()).collect(),
            false => fresh,
        };
        if going.is_empty() {
            break;
        }
        sampler.advance(prompts, &going, &mut rows)?;
        for &slot in &going {
            let Some(row) = &mut rows[slot] else { continue };
            let last = row.response.tokens.last();
            let stopped = last.is_some_and(|token| stop_ids.contains(token));
            let prompt = prompts[row.prompt].ids.len();
            let full = row.response.tokens.len() >= settings.max_new_tokens
                || prompt + row.response.tokens.len() >= capacity;
            if stopped {
                row.response.finish = Finish::Stop;
            }
            if stopped || full {
                on_done(row.prompt, &row.response);
                if let Some(row) = rows[slot].take() {
                    responses[row.prompt] = Some(row.response);
                }
            }
        }
    }
    Ok(responses
        .into_iter()
        .map(|r| r.unwrap_or_else(empty))
        .collect())
}

fn empty() -> Response {
    Response {
        tokens: Vec::new(),
        logprobs: Vec::new(),
        finish: Finish::Length,
    }
}

/// The longest prompt, in tokens.
fn check(prompts: &[Prompt<'_>], context: usize) -> Result<usize> {
    let mut longest = 0;
    for (index, prompt) in prompts.iter().enumerate() {
        let length = prompt.ids.len();
        if length == 0 || length >= context {
            return Err(Error::Mismatch {
                what: format!(
                    "prompt {} has {length} tokens; the model's context is {context}",
                    index + 1
                ),
                fix: "prompts need at least one token and room for an answer".into(),
            });
        }
        longest = longest.max(length);
    }
    Ok(longest)
}

/// The random numbers of one row.
fn stream(seed: u64, row: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&row.to_le_bytes());
    key[16..23].copy_from_slice(b"rollout");
    ChaCha8Rng::from_seed(key)
}

/// A uniform number in [0, 1) of its own for a run's seed, a step, and what it decides.
pub(crate) fn uniform_of(seed: u64, step: usize, purpose: &[u8]) -> f64 {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(step as u64).to_le_bytes());
    let name = &purpose[..purpose.len().min(16)];
    key[16..16 + name.len()].copy_from_slice(name);
    uniform(&mut ChaCha8Rng::from_seed(key))
}

/// A uniform number in [0, 1) with 53 random bits.
fn uniform(random: &mut ChaCha8Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

struct Sampler<'a> {
    network: &'a Llama,
    head: Tensor<2>,
    cache: KvCache,
    sampling: &'a Sampling,
}

impl Sampler<'_> {
    /// Feeds each of `slots` what it has not seen yet (its prompt, or its last token) and draws its
    /// next token.
    fn advance(
        &mut self,
        prompts: &[Prompt<'_>],
        slots: &[usize],
        rows: &mut [Option<Row>],
    ) -> Result<()> {
        let (mut ids, mut positions, mut last) = (Vec::new(), Vec::new(), Vec::new());
        let mut segments: Vec<Range<usize>> = Vec::new();
        for &slot in slots {
            let Some(row) = &rows[slot] else { continue };
            let start = ids.len();
            let past = self.cache.length(slot);
            match row.response.tokens.last() {
                Some(&token) => ids.push(token),
                None => ids.extend_from_slice(prompts[row.prompt].ids),
            }
            positions.extend((past..past + ids.len() - start).map(|p| p as u32));
            segments.push(start..ids.len());
            last.push(ids.len() as u32 - 1);
        }
        let tokens = Tokens {
            ids: &ids,
            positions: &positions,
            segments: &segments,
        };
        let hidden = self.network.hidden_cached(tokens, slots, &mut self.cache);
        let hidden = match ids.len() == slots.len() {
            true => hidden,
            false => embedding(hidden, &last),
        };
        let uniforms: Vec<f64> = slots
            .iter()
            .map(|&slot| {
                rows[slot]
                    .as_mut()
                    .map_or(0.0, |row| uniform(&mut row.random))
            })
            .collect();
        let vocabulary = self.network.tokens();
        let drawn: Vec<Drawn> = head_rows(
            hidden,
            self.head.clone(),
            None,
            vocabulary,
            |i, logits, _| draw(logits, self.sampling, uniforms[i]),
        );
        if drawn.iter().any(|drawn| drawn.logprob.is_nan()) {
            return Err(Error::Mismatch {
                what: "the model's logits are not numbers".into(),
                fix: "its weights are damaged, or training made it diverge; check where they \
                      come from"
                    .into(),
            });
        }
        for (&slot, drawn) in slots.iter().zip(drawn) {
            if let Some(row) = &mut rows[slot] {
                row.response.tokens.push(drawn.token);
                row.response.logprobs.push(drawn.logprob);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::tiny_network;

    fn sampled(batch: usize, seed: u64, rows: &[u64]) -> Vec<Response> {
        let network = tiny_network(1);
        let ids: Vec<Vec<u32>> = rows
            .iter()
            .map(|&r| (0..=r as u32 % 5).map(|i| 3 + i).collect())
            .collect();
        let prompts: Vec<Prompt> = ids
            .iter()
            .zip(rows)
            .map(|(ids, &stream)| Prompt { ids, stream })
            .collect();
        let settings = Generation {
            sampling: Sampling {
                temperature: 1.0,
                top_k: 0,
                top_p: 1.0,
            },
            max_new_tokens: 12,
            seed,
            batch,
        };
        generate(&network, &[0], &prompts, &settings, &mut |_, _| {}).unwrap()
    }

    /// Invariant 6: the same row in any company.
    #[test]
    fn a_sample_depends_on_seed_and_row_not_on_its_batch() {
        let rows: Vec<u64> = (0..11).collect();
        let alone = sampled(1, 7, &rows);
        for batch in [2, 4, 11] {
            for (a, b) in alone.iter().zip(sampled(batch, 7, &rows)) {
                assert_eq!(a.tokens, b.tokens);
            }
        }
        let backwards: Vec<u64> = (0..11).rev().collect();
        let turned = sampled(4, 7, &backwards);
        for (a, b) in alone.iter().zip(turned.iter().rev()) {
            assert_eq!(a.tokens, b.tokens);
        }
        assert_ne!(alone[0].tokens, sampled(1, 8, &rows)[0].tokens);
        assert!(alone.iter().any(|r| r.finish == Finish::Stop), "{alone:?}");
        assert!(alone.iter().any(|r| r.finish == Finish::Length));
        for response in &alone {
            let stop = response.tokens.iter().position(|&t| t == 0);
            match response.finish {
                Finish::Stop => assert_eq!(stop, Some(response.tokens.len() - 1)),
                Finish::Length => assert!(stop.is_none() && response.tokens.len() == 12),
            }
        }
    }

    /// The log-probabilities of generation are those of scoring the finished text.
    #[test]
    fn logprobs_equal_teacher_forcing() {
        let network = tiny_network(1);
        for response in sampled(3, 5, &[0, 1, 2, 3]).iter().zip(0u32..) {
            let (response, row) = response;
            let prompt: Vec<u32> = (0..=row % 5).map(|i| 3 + i).collect();
            let example = crate::data::example::Example {
                prompt,
                response: response.tokens.clone(),
                row: 0,
            };
            let scores =
                crate::score::score(&network, None, &[example], 1000, &mut |_| {}).unwrap();
            for (a, b) in scores[0].logprobs.iter().zip(&response.logprobs) {
                assert!((a - b).abs() < 1e-4, "{a} {b}");
            }
        }
    }

    #[test]
    fn prompts_without_room_are_refused() {
        let network = tiny_network(1);
        let settings = Generation {
            sampling: Sampling {
                temperature: 0.0,
                top_k: 0,
                top_p: 1.0,
            },
            max_new_tokens: 4,
            seed: 0,
            batch: 2,
        };
        for ids in [vec![], vec![1; 64]] {
            let prompts = [Prompt {
                ids: &ids,
                stream: 0,
            }];
            assert!(generate(&network, &[0], &prompts, &settings, &mut |_, _| {}).is_err());
        }
    }
}
