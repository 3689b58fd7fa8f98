//! Batched generation: rows share the weights' traffic, each has its own random stream, and a
//! finished row's place is taken by the next prompt.

use std::collections::HashMap;
use std::ops::Range;

use burn::tensor::Tensor;
use distil_kernels::math::log_sum_exp;
use distil_kernels::{KvCache, TeacherHead, Weight, embedding, head_rows, together};
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

/// A second model that takes part in what is drawn: p̃ = share · p + (1 − share) · q.
#[derive(Clone, Copy, Debug)]
pub struct Mixture<'a> {
    /// The model p; q is the one that generates.
    pub network: &'a Llama,
    /// Its share, in [0, 1].
    pub share: f64,
    /// Leading ids that both models share; no other is drawn.
    pub vocabulary: usize,
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
    generate_mixed(network, None, stop_ids, prompts, settings, on_done)
}

/// As [`generate`], from the mixture of two models if one is given. Log-probabilities are those of
/// the mixture.
///
/// # Errors
/// As [`generate`].
pub fn generate_mixed(
    network: &Llama,
    mixture: Option<Mixture<'_>>,
    stop_ids: &[u32],
    prompts: &[Prompt<'_>],
    settings: &Generation,
    on_done: &mut dyn FnMut(usize, &Response),
) -> Result<Vec<Response>> {
    // Every token reads all weights: they are packed for that once.
    let network = &network.packed();
    let second = mixture.map(|mixture| mixture.network.packed());
    let mixture = mixture.zip(second.as_ref());
    let mixture = mixture.map(|(mixture, network)| Mixture { network, ..mixture });
    let contexts = [Some(network), mixture.map(|mixture| mixture.network)];
    let contexts = contexts.into_iter().flatten().map(|n| n.config().context);
    let context = contexts.min().unwrap_or(0);
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
        other: mixture.map(|mixture| Other {
            head: mixture.network.head(),
            cache: mixture.network.cache(slots, capacity),
            mixture,
        }),
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
            if let Some(other) = &mut sampler.other {
                other.cache.clear(slot);
            }
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
        together(|| sampler.advance(prompts, &going, &mut rows))?;
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

/// The second model of a mixture, in step with the first.
struct Other<'a> {
    mixture: Mixture<'a>,
    head: Weight,
    cache: KvCache,
}

/// log(share · p + (1 − share) · q), written over q's logits.
fn mix(student: &mut [f32], teacher: &[f32], share: f32) {
    let (ls, lt) = (log_sum_exp(student), log_sum_exp(teacher));
    for (s, t) in student.iter_mut().zip(teacher) {
        let (log_q, log_p) = (*s - ls, *t - lt);
        let larger = log_q.max(log_p);
        *s = match share {
            0.0 => log_q,
            1.0 => log_p,
            _ => {
                let (p, q) = ((log_p - larger).exp(), (log_q - larger).exp());
                larger + (share * p + (1.0 - share) * q).ln()
            }
        };
    }
}

struct Sampler<'a> {
    network: &'a Llama,
    head: Weight,
    cache: KvCache,
    other: Option<Other<'a>>,
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
        // Rows that are fed, and prompts that are read once for several rows.
        let (mut fed, mut copies) = (Vec::new(), Vec::new());
        let mut read: HashMap<&[u32], usize> = HashMap::new();
        for &slot in slots {
            let Some(row) = &rows[slot] else { continue };
            let start = ids.len();
            if row.response.tokens.is_empty() {
                let first = *read.entry(prompts[row.prompt].ids).or_insert(fed.len());
                if first < fed.len() {
                    copies.push((fed[first], slot));
                    last.push(segments[first].end as u32 - 1);
                    continue;
                }
            }
            fed.push(slot);
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
        let each_its_own = ids.len() == last.len() && copies.is_empty();
        let at_last = |hidden: Tensor<2>| match each_its_own {
            true => hidden,
            false => embedding(hidden, &last),
        };
        let hidden = at_last(self.network.hidden_cached(tokens, &fed, &mut self.cache));
        let teacher = self.other.as_mut().map(|other| {
            let network = other.mixture.network;
            TeacherHead {
                hidden: at_last(network.hidden_cached(tokens, &fed, &mut other.cache)),
                weight: other.head.clone(),
            }
        });
        for &(from, to) in &copies {
            self.cache.copy(from, to);
            if let Some(other) = &mut self.other {
                other.cache.copy(from, to);
            }
        }
        let mixture = self.other.as_ref().map(|other| other.mixture);
        let uniforms: Vec<f64> = slots
            .iter()
            .map(|&slot| {
                rows[slot]
                    .as_mut()
                    .map_or(0.0, |row| uniform(&mut row.random))
            })
            .collect();
        let vocabulary = mixture.map_or(self.network.tokens(), |mixture| mixture.vocabulary);
        let drawn: Vec<Drawn> = head_rows(
            hidden,
            &self.head,
            teacher.as_ref(),
            vocabulary,
            |i, logits, teacher| {
                if let (Some(teacher), Some(mixture)) = (teacher, mixture) {
                    mix(logits, teacher, mixture.share as f32);
                }
                draw(logits, self.sampling, uniforms[i])
            },
        );
        if drawn.iter().any(|drawn| drawn.logprob.is_nan()) {
            return Err(Error::Logits);
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

    /// Samples at temperature 1, in batches of `batch`.
    fn plain(max_new_tokens: usize, seed: u64, batch: usize) -> Generation {
        Generation {
            sampling: Sampling {
                temperature: 1.0,
                top_k: 0,
                top_p: 1.0,
            },
            max_new_tokens,
            seed,
            batch,
        }
    }

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
        let settings = plain(12, seed, batch);
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

    /// Prompts that are alike are read once: several samples of one prompt are those that each would
    /// give alone, whatever stands between them.
    #[test]
    fn a_prompt_that_is_read_once_for_several_rows_gives_the_same_samples() {
        let network = tiny_network(1);
        let (one, other): (&[u32], &[u32]) = (&[3, 4, 5], &[6, 7]);
        let asked = [other, other, one, other, one, one, other, one];
        let prompts: Vec<Prompt> = asked
            .iter()
            .zip(0..)
            .map(|(ids, stream)| Prompt { ids, stream })
            .collect();
        let samples = |batch: usize| {
            let settings = plain(12, 5, batch);
            generate(&network, &[0], &prompts, &settings, &mut |_, _| {}).unwrap()
        };
        let alone = samples(1);
        for batch in [2, 4, 8] {
            for (a, b) in alone.iter().zip(samples(batch)) {
                assert_eq!(a.tokens, b.tokens, "{batch}");
            }
        }
    }

    fn mixed(share: f64, rows: u64, seed: u64) -> Vec<Response> {
        let (student, teacher) = (tiny_network(1), tiny_network(2));
        let ids = [3, 4];
        let prompts: Vec<Prompt> = (0..rows)
            .map(|stream| Prompt { ids: &ids, stream })
            .collect();
        let settings = plain(8, seed, 4);
        let mixture = Mixture {
            network: &teacher,
            share,
            vocabulary: 24,
        };
        generate_mixed(
            &student,
            Some(mixture),
            &[0],
            &prompts,
            &settings,
            &mut |_, _| {},
        )
        .unwrap()
    }

    /// log p̃ of every token is the mixture of what both models say of the finished text.
    #[test]
    fn logprobs_of_a_mixture_are_those_of_both_models_mixed() {
        let (student, teacher) = (tiny_network(1), tiny_network(2));
        for share in [0.0, 0.2, 1.0] {
            for response in mixed(share, 5, 9) {
                let example = crate::data::example::Example {
                    prompt: vec![3, 4],
                    response: response.tokens.clone(),
                    row: 0,
                };
                let scores = crate::score::score(
                    &student,
                    Some((&teacher, 24)),
                    &[example],
                    100,
                    &mut |_| {},
                );
                let scores = scores.unwrap().remove(0);
                let both = scores.logprobs.iter().zip(scores.teacher.unwrap().logprobs);
                for ((q, p), got) in both.zip(&response.logprobs) {
                    let share = share as f32;
                    let want = (share * p.exp() + (1.0 - share) * q.exp()).ln();
                    assert!((want - got).abs() < 1e-4, "{share}: {want} {got}");
                }
            }
        }
    }

    #[test]
    fn a_mixture_without_teacher_is_the_student() {
        let network = tiny_network(1);
        let ids = [3, 4];
        let prompts: Vec<Prompt> = (0..6).map(|stream| Prompt { ids: &ids, stream }).collect();
        let settings = Generation {
            sampling: Sampling {
                temperature: 1.0,
                top_k: 0,
                top_p: 1.0,
            },
            max_new_tokens: 8,
            seed: 4,
            batch: 4,
        };
        let plain = generate(&network, &[0], &prompts, &settings, &mut |_, _| {}).unwrap();
        for (a, b) in plain.iter().zip(mixed(0.0, 6, 4)) {
            assert_eq!(a.tokens, b.tokens);
        }
    }

    /// First tokens of 4,000 samples against the mixture's probabilities: χ² with 23 degrees of
    /// freedom is above 57.0 with probability 10⁻⁴.
    #[test]
    fn samples_of_a_mixture_are_distributed_as_it() {
        let share = 0.3;
        let (student, teacher) = (tiny_network(1), tiny_network(2));
        let first = |network: &Llama, token: u32| {
            let example = crate::data::example::Example {
                prompt: vec![3, 4],
                response: vec![token],
                row: 0,
            };
            let scores = crate::score::score(network, None, &[example], 100, &mut |_| {}).unwrap();
            f64::from(scores[0].logprobs[0]).exp()
        };
        let (rows, seed) = (4000, 21);
        let mut counts = [0.0; 24];
        for response in mixed(share, rows, seed) {
            counts[response.tokens[0] as usize] += 1.0;
        }
        let chi: f64 = (0..24u32)
            .map(|token| {
                let p = share * first(&teacher, token) + (1.0 - share) * first(&student, token);
                let expected = p * rows as f64;
                (counts[token as usize] - expected).powi(2) / expected
            })
            .sum();
        assert!(chi < 57.0, "{chi}");
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
